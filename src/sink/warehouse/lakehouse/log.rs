//! The Delta transaction log of one table: what its versions say, and how a version is added.
//!
//! Owns: the actions we write (`protocol`, `metaData`, `add`, `remove`, `txn`, `commitInfo`) and the [`Snapshot`] they
//! add up to. Invariant: a version is one file, made only where there is none of its number, so of two writers one fails;
//! the positions of the topics are `txn` actions of the version that holds the rows.
//! Absent: deletion vectors, column mapping, table features: the tables are reader version 1, writer version 2, which
//! every engine reads. A table to which another engine added files or features is refused.
//!
//! Source: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::super::WarehouseError;
use super::super::row::Value;
use super::super::table::{Kind, Table};
use super::checkpoint;
use super::store::Store;
use crate::codec::receipt::hex;
use crate::stream::record::{Offset, TopicPartition};

/// A key as text, to be kept in the log: bounds are only compared after they were made values again.
pub(super) type Bound = Vec<Value>;

/// Versions between two checkpoints, which spare readers the versions before.
const VERSIONS_PER_CHECKPOINT: u64 = 10;

/// What a table is at one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// `None` when there is no table.
    pub version: Option<u64>,
    /// By path.
    pub files: BTreeMap<String, DataFile>,
    /// By application id.
    pub positions: BTreeMap<String, u64>,
    /// The schema as the log has it.
    pub schema: Json,
    /// Of the latest `metaData`, for the next one.
    pub created: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DataFile {
    pub size: u64,
    pub rows: u64,
    /// The lowest key in it.
    pub first: Bound,
}

pub(super) enum Action {
    Create(Json),
    Add { path: String, file: DataFile },
    Remove { path: String, size: u64 },
    Position { id: String, next: u64 },
}

/// The application id under which a partition's position is kept.
pub(super) fn position_id(at: &TopicPartition) -> String {
    format!("accrue/{}/{}", at.topic, at.partition)
}

/// Positions that were reset are zero, and as good as none.
pub(super) fn held(snapshot: &Snapshot, at: &TopicPartition) -> Option<Offset> {
    let next = snapshot.positions.get(&position_id(at)).copied().unwrap_or(0);
    (next > 0).then_some(Offset(next))
}

/// The table as it stands.
pub(super) fn load(store: &dyn Store, table: &Table) -> Result<Snapshot, WarehouseError> {
    let mut snapshot = checkpoint::load(store, table)?.unwrap_or_default();
    let folder = format!("{}/_delta_log/", table.name);
    let after = snapshot
        .version
        .map_or(folder.clone(), |version| format!("{folder}{version:020}.json"));
    for name in store.list(&folder, &after)? {
        let number = name.strip_prefix(&folder).and_then(|rest| rest.strip_suffix(".json"));
        let Some(version) = number.filter(|it| it.len() == 20).and_then(|it| it.parse::<u64>().ok()) else {
            continue;
        };
        if version != snapshot.version.map_or(0, |version| version + 1) {
            return Err(damaged(
                table,
                &format!("version {version} follows {:?}", snapshot.version),
            ));
        }
        let Some(bytes) = store.get(&name)? else {
            return Err(WarehouseError::Away(format!("{name} was listed and is not there")));
        };
        for line in String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            let action: Json =
                serde_json::from_str(line).map_err(|error| damaged(table, &format!("{name}: {error}")))?;
            apply(&mut snapshot, table, &action)?;
        }
        snapshot.version = Some(version);
    }
    Ok(snapshot)
}

/// Adds a version. `false`: another writer made it first.
pub(super) fn append(
    store: &dyn Store,
    table: &Table,
    snapshot: &mut Snapshot,
    operation: &str,
    actions: &[Action],
    now_ms: i64,
) -> Result<bool, WarehouseError> {
    let version = snapshot.version.map_or(0, |version| version + 1);
    let info = json!({"commitInfo": {"timestamp": now_ms, "operation": operation, "engineInfo": concat!("accrue/", env!("CARGO_PKG_VERSION"))}});
    let mut lines = vec![info];
    for action in actions {
        lines.extend(written(action, table, &store.location(), snapshot.created, now_ms));
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let name = format!("{}/_delta_log/{version:020}.json", table.name);
    if !store.put_new(&name, text.as_bytes())? {
        return Ok(false);
    }
    for line in &lines {
        apply(snapshot, table, line)?;
    }
    snapshot.version = Some(version);
    if version > 0 && version.is_multiple_of(VERSIONS_PER_CHECKPOINT) {
        checkpoint::write(store, table, snapshot, now_ms)?;
    }
    Ok(true)
}

fn written(action: &Action, table: &Table, location: &str, created: i64, now_ms: i64) -> Vec<Json> {
    match action {
        Action::Create(schema) => vec![
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
            json!({"metaData": metadata(table, location, schema, if created == 0 { now_ms } else { created })}),
        ],
        Action::Add { path, file } => vec![json!({"add": {
            "path": path, "partitionValues": {}, "size": file.size, "modificationTime": now_ms, "dataChange": true,
            "stats": stats(file), "tags": {"accrue.first": bound_text(&file.first)},
        }})],
        Action::Remove { path, size } => vec![json!({"remove": {
            "path": path, "deletionTimestamp": now_ms, "dataChange": true, "extendedFileMetadata": true,
            "partitionValues": {}, "size": size,
        }})],
        Action::Position { id, next } => vec![json!({"txn": {"appId": id, "version": next, "lastUpdated": now_ms}})],
    }
}

pub(super) fn stats(file: &DataFile) -> String {
    json!({"numRecords": file.rows}).to_string()
}

/// The table's id follows from its place, so that it is the same however often it is made.
pub(super) fn metadata(table: &Table, location: &str, schema: &Json, created: i64) -> Json {
    let digest = Sha256::digest(format!("{location}/{}", table.name));
    let hex = hex(&digest[..16]);
    let id = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    );
    json!({
        "id": id, "name": table.name, "description": table.doc, "format": {"provider": "parquet", "options": {}},
        "schemaString": schema.to_string(), "partitionColumns": [], "configuration": {}, "createdTime": created,
    })
}

pub(super) fn apply(snapshot: &mut Snapshot, table: &Table, action: &Json) -> Result<(), WarehouseError> {
    let number = |json: &Json| json.as_u64().unwrap_or(0);
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    if let Some(protocol) = action.get("protocol") {
        if number(&protocol["minReaderVersion"]) > 1 || number(&protocol["minWriterVersion"]) > 2 {
            return Err(foreign(table, "its protocol was raised"));
        }
    } else if let Some(metadata) = action.get("metaData") {
        snapshot.schema = serde_json::from_str(&text(&metadata["schemaString"]))
            .map_err(|error| damaged(table, &format!("its schema: {error}")))?;
        snapshot.created = metadata["createdTime"].as_i64().unwrap_or(0);
    } else if let Some(add) = action.get("add") {
        let first = bound(table, &text(&add["tags"]["accrue.first"]))
            .ok_or_else(|| foreign(table, "another engine added files to it"))?;
        let stats: Json = serde_json::from_str(&text(&add["stats"])).unwrap_or(Json::Null);
        let file = DataFile {
            size: number(&add["size"]),
            rows: number(&stats["numRecords"]),
            first,
        };
        snapshot.files.insert(text(&add["path"]), file);
    } else if let Some(remove) = action.get("remove") {
        snapshot.files.remove(&text(&remove["path"]));
    } else if let Some(position) = action.get("txn") {
        snapshot
            .positions
            .insert(text(&position["appId"]), number(&position["version"]));
    }
    Ok(())
}

/// The schema of a table in the log's words, columns of `known` first.
pub(super) fn schema(table: &Table, known: &Json) -> Result<Json, WarehouseError> {
    let mut fields: Vec<Json> = known["fields"].as_array().cloned().unwrap_or_default();
    for column in table.columns {
        let kind = match column.kind {
            Kind::Text => "string",
            Kind::Integer => "long",
            Kind::Boolean => "boolean",
            Kind::Amount => "decimal(28,6)",
            Kind::Rate => "decimal(28,12)",
            Kind::Day => "date",
            Kind::Instant => "timestamp",
        };
        match fields.iter().find(|field| field["name"] == column.name) {
            Some(field) if field["type"] == kind => {}
            Some(field) => {
                return Err(WarehouseError::Refused(format!(
                    "lakehouse table {}: column {} is {}, and accrue writes {kind}: move the table away, then run with --backfill",
                    table.name, column.name, field["type"]
                )));
            }
            None => fields.push(json!({
                "name": column.name, "type": kind, "nullable": !column.key, "metadata": {"comment": column.doc},
            })),
        }
    }
    Ok(json!({"type": "struct", "fields": fields}))
}

pub(super) fn bound_text(bound: &Bound) -> String {
    let parts = bound.iter().map(|value| match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Integer(number) => Json::from(*number),
        Value::Null | Value::Boolean(_) | Value::Decimal(_) | Value::Day(_) | Value::Instant(_) => Json::Null,
    });
    parts.collect::<Json>().to_string()
}

/// Keys are texts and whole numbers.
pub(super) fn bound(table: &Table, text: &str) -> Option<Bound> {
    let parts: Vec<Json> = serde_json::from_str(text).ok()?;
    let values = parts.iter().map(|part| match part {
        Json::String(text) => Some(Value::Text(text.clone())),
        Json::Number(number) => number.as_i64().map(Value::Integer),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    });
    let bound: Bound = values.collect::<Option<_>>()?;
    (bound.len() == table.key_width()).then_some(bound)
}

fn damaged(table: &Table, what: &str) -> WarehouseError {
    WarehouseError::Refused(format!(
        "the log of lakehouse table {} cannot be read: {what}",
        table.name
    ))
}

fn foreign(table: &Table, what: &str) -> WarehouseError {
    WarehouseError::Refused(format!(
        "lakehouse table {}: {what}; accrue alone writes its tables. Move the table away, then run with --backfill",
        table.name
    ))
}
