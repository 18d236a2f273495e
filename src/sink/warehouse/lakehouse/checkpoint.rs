//! Checkpoints of a table's log: one Parquet file that says what all versions up to its own say, so that a reader opens
//! it and the few versions after it.
//!
//! Invariant: a checkpoint holds the protocol, the metadata, every file and every position of its version; a table is
//! whole without it, so one that is missing or cut short costs time only. Absent: multi-part and V2 checkpoints, and
//! tombstones (engines that VACUUM find removed files by listing).
//!
//! Source: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#checkpoints>.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value as Json, json};

use super::super::WarehouseError;
use super::super::table::Table;
use super::log::{self, Snapshot};
use super::store::Store;

const MESSAGE: &str = "message checkpoint {
  optional group txn { required binary appId (UTF8); required int64 version; optional int64 lastUpdated; }
  optional group add {
    required binary path (UTF8);
    required group partitionValues (MAP) { repeated group key_value { required binary key (UTF8); optional binary value (UTF8); } }
    required int64 size; required int64 modificationTime; required boolean dataChange;
    optional binary stats (UTF8);
    optional group tags (MAP) { repeated group key_value { required binary key (UTF8); optional binary value (UTF8); } }
  }
  optional group metaData {
    required binary id (UTF8); optional binary name (UTF8); optional binary description (UTF8);
    required group format { required binary provider (UTF8); optional group options (MAP) { repeated group key_value { required binary key (UTF8); optional binary value (UTF8); } } }
    required binary schemaString (UTF8);
    required group partitionColumns (LIST) { repeated group list { required binary element (UTF8); } }
    optional int64 createdTime;
    required group configuration (MAP) { repeated group key_value { required binary key (UTF8); optional binary value (UTF8); } }
  }
  optional group protocol { required int32 minReaderVersion; required int32 minWriterVersion; }
}";

/// One leaf of the file's schema in one row: how deep it is defined, and its value when that is all the way.
enum Leaf {
    At(i16),
    Text(String),
    Long(i64),
    Int(i32),
    Bool(bool),
}

pub(super) fn write(store: &dyn Store, table: &Table, snapshot: &Snapshot, now_ms: i64) -> Result<(), WarehouseError> {
    let Some(version) = snapshot.version else {
        return Ok(());
    };
    let mut rows = vec![json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})];
    rows.push(json!({"metaData": log::metadata(table, &store.location(), &snapshot.schema, snapshot.created)}));
    rows.extend(
        snapshot
            .positions
            .iter()
            .map(|(id, next)| json!({"txn": {"appId": id, "version": next, "lastUpdated": now_ms}})),
    );
    rows.extend(snapshot.files.iter().map(|(path, file)| {
        json!({"add": {
            "path": path, "size": file.size, "modificationTime": now_ms, "dataChange": false,
            "stats": log::stats(file), "tags": {"accrue.first": log::bound_text(&file.first)},
        }})
    }));
    let bytes = parquet_of(&rows).map_err(wrong)?;
    let folder = format!("{}/_delta_log", table.name);
    store.put(&format!("{folder}/{version:020}.checkpoint.parquet"), &bytes)?;
    let pointer = json!({"version": version, "size": rows.len()}).to_string();
    store.put(&format!("{folder}/_last_checkpoint"), pointer.as_bytes())
}

/// The latest checkpoint; `None` when there is none.
pub(super) fn load(store: &dyn Store, table: &Table) -> Result<Option<Snapshot>, WarehouseError> {
    let folder = format!("{}/_delta_log", table.name);
    let Some(pointer) = store.get(&format!("{folder}/_last_checkpoint"))? else {
        return Ok(None);
    };
    let pointer: Json = serde_json::from_slice(&pointer).unwrap_or(Json::Null);
    let Some(version) = pointer["version"].as_u64() else {
        return Ok(None);
    };
    let Some(bytes) = store.get(&format!("{folder}/{version:020}.checkpoint.parquet"))? else {
        return Ok(None);
    };
    let mut snapshot = Snapshot {
        version: Some(version),
        ..Snapshot::default()
    };
    let file = SerializedFileReader::new(Bytes::from(bytes)).map_err(wrong)?;
    for row in file.get_row_iter(None).map_err(wrong)? {
        let row = row.map_err(wrong)?;
        for (name, field) in row.get_column_iter().filter(|(_, field)| !matches!(field, Field::Null)) {
            log::apply(&mut snapshot, table, &json!({name: plain(field)}))?;
        }
    }
    Ok(Some(snapshot))
}

/// A field of a checkpoint as the log's JSON would have it.
fn plain(field: &Field) -> Json {
    match field {
        Field::Str(text) => text.as_str().into(),
        Field::Long(number) => (*number).into(),
        Field::Int(number) => (*number).into(),
        Field::Bool(flag) => (*flag).into(),
        Field::Group(row) => row
            .get_column_iter()
            .map(|(name, field)| (name.clone(), plain(field)))
            .collect(),
        Field::MapInternal(map) => map
            .entries()
            .iter()
            .map(|(key, value)| (plain(key).as_str().unwrap_or_default().to_owned(), plain(value)))
            .collect(),
        _ => Json::Null,
    }
}

fn parquet_of(rows: &[Json]) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(parse_message_type(MESSAGE)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    while let Some(mut chunk) = group.next_column()? {
        let column = match chunk.untyped() {
            ColumnWriter::ByteArrayColumnWriter(out) => out.get_descriptor().clone(),
            ColumnWriter::Int64ColumnWriter(out) => out.get_descriptor().clone(),
            ColumnWriter::Int32ColumnWriter(out) => out.get_descriptor().clone(),
            ColumnWriter::BoolColumnWriter(out) => out.get_descriptor().clone(),
            _ => return Err(ParquetError::General("a checkpoint has no such column".to_owned())),
        };
        let (path, full) = (column.path().parts().to_vec(), column.max_def_level());
        let leaves: Vec<Leaf> = rows.iter().map(|row| leaf(row, &path, full)).collect();
        let depth = |leaf: &Leaf| if let Leaf::At(depth) = leaf { *depth } else { full };
        let levels: Vec<i16> = leaves.iter().map(depth).collect();
        // No row repeats anything: maps and lists hold one entry or none.
        let repeats = (column.max_rep_level() > 0).then(|| vec![0i16; rows.len()]);
        let (levels, repeats) = (Some(levels.as_slice()), repeats.as_deref());
        match chunk.untyped() {
            ColumnWriter::ByteArrayColumnWriter(out) => {
                let text = |leaf: &Leaf| {
                    if let Leaf::Text(text) = leaf {
                        Some(ByteArray::from(text.as_str()))
                    } else {
                        None
                    }
                };
                out.write_batch(&leaves.iter().filter_map(text).collect::<Vec<_>>(), levels, repeats)?
            }
            ColumnWriter::Int64ColumnWriter(out) => {
                let long = |leaf: &Leaf| {
                    if let Leaf::Long(number) = leaf {
                        Some(*number)
                    } else {
                        None
                    }
                };
                out.write_batch(&leaves.iter().filter_map(long).collect::<Vec<_>>(), levels, repeats)?
            }
            ColumnWriter::Int32ColumnWriter(out) => {
                let int = |leaf: &Leaf| {
                    if let Leaf::Int(number) = leaf {
                        Some(*number)
                    } else {
                        None
                    }
                };
                out.write_batch(&leaves.iter().filter_map(int).collect::<Vec<_>>(), levels, repeats)?
            }
            ColumnWriter::BoolColumnWriter(out) => {
                let flag = |leaf: &Leaf| if let Leaf::Bool(flag) = leaf { Some(*flag) } else { None };
                out.write_batch(&leaves.iter().filter_map(flag).collect::<Vec<_>>(), levels, repeats)?
            }
            _ => return Err(ParquetError::General("a checkpoint has no such column".to_owned())),
        };
        chunk.close()?;
    }
    group.close()?;
    writer.into_inner()
}

/// What a row has at a leaf's path. `full` is the leaf's greatest definition level.
fn leaf(row: &Json, path: &[String], full: i16) -> Leaf {
    let mut at = row;
    let mut depth = 0;
    for (n, part) in path.iter().enumerate() {
        match part.as_str() {
            // The maps we write have one entry; its key and its value are the leaf.
            "key_value" => {
                let entry = at.as_object().and_then(|map| map.iter().next());
                let Some((key, value)) = entry else {
                    return Leaf::At(depth);
                };
                let is_key = path.get(n + 1).is_some_and(|part| part == "key");
                return Leaf::Text(if is_key {
                    key.clone()
                } else {
                    value.as_str().unwrap_or_default().to_owned()
                });
            }
            "list" => return Leaf::At(depth),
            name => match at.get(name) {
                Some(inner) => {
                    at = inner;
                    depth = defined(path, n, depth);
                }
                // A required map that the row leaves out is there at this depth too, and empty.
                None => return Leaf::At(depth),
            },
        }
    }
    let int = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    match at {
        Json::String(text) => Leaf::Text(text.clone()),
        Json::Bool(flag) => Leaf::Bool(*flag),
        Json::Number(number) if path[0] == "protocol" => Leaf::Int(int(number.as_i64().unwrap_or(0))),
        Json::Number(number) => Leaf::Long(number.as_i64().unwrap_or(0)),
        Json::Null | Json::Array(_) | Json::Object(_) => Leaf::At(full - 1),
    }
}

/// The definition level once part `n` of a path is there: optional parts count, required ones do not.
fn defined(path: &[String], n: usize, depth: i16) -> i16 {
    const OPTIONAL: [&str; 7] = [
        "stats",
        "tags",
        "name",
        "description",
        "options",
        "createdTime",
        "lastUpdated",
    ];
    let optional = n == 0 || OPTIONAL.contains(&path[n].as_str());
    depth + i16::from(optional)
}

fn wrong(error: ParquetError) -> WarehouseError {
    WarehouseError::Refused(format!("a checkpoint: {error}"))
}
