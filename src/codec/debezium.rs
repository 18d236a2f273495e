//! Debezium records: row changes, tombstones, transaction marks, heartbeats, in JSON without schemas, JSON with
//! schemas, and (through `registry`) Avro on the Confluent wire; also rows flattened by `ExtractNewRecordState`.
//!
//! Invariant: one change decodes to the same row in every format. Deliberately absent: `before`. With PostgreSQL's
//! default replica identity it holds the key and placeholder values (empty text, 1970), which nothing tells apart from
//! data; the key says which row it was, and what the row held is the reader's own state.
//!
//! Source: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events>.

use std::sync::{Arc, Once};

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::column::row;
use super::position::{LogPosition, Position, TransactionId};
use super::schemas::Schemas;
use super::shape::Shape;
use super::value::Row;
use super::{DecodeError, Incoming, Refused, avro_json};

/// What one record of a Debezium topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Row(RowChange),
    /// Follows a delete so that compaction can drop the key; the delete has said it all.
    Tombstone {
        key: Row,
    },
    Transaction(TransactionMark),
    /// Heartbeats and logical decoding messages: nothing about a row.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    pub op: Op,
    /// The key columns; empty only for `Op::Truncate`.
    pub key: Row,
    /// The row as it now stands; `None` for a delete or a truncate.
    pub after: Option<Row>,
    pub position: Position,
    /// When the database made the change, by its clock.
    pub at: Option<Timestamp>,
    /// Read by a snapshot: state, not news.
    pub snapshot: bool,
    pub moved: Option<Moved>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create,
    Update,
    Delete,
    /// A row read by a snapshot.
    Read,
    /// The whole table was emptied.
    Truncate,
}

/// A primary-key change is a delete under the old key and a create under the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// On the delete: the key the row now has (`__debezium.newkey`).
    To(Row),
    /// On the create: the key the row had (`__debezium.oldkey`).
    From(Row),
}

/// A record of the transaction metadata topic (`provide.transaction.metadata=true`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionMark {
    Begin {
        id: TransactionId,
    },
    End {
        id: TransactionId,
        events: u64,
        tables: Vec<TableEvents>,
    },
}

/// How many events a transaction has for one table (`schema.table`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEvents {
    pub table: String,
    pub events: u64,
}

/// A JSON document with what its schema says of it.
struct Document {
    json: Json,
    shape: Arc<Shape>,
}

/// Decodes a record whose key and value are JSON, with or without schemas.
///
/// # Errors
/// The bytes are not JSON, or not a Debezium record: the record goes to the dead letters.
pub fn decode_json(record: &Incoming<'_>) -> Result<Message, Refused> {
    let document = |part: &str, bytes: Option<&[u8]>| {
        bytes
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| Document::of_json(part, bytes))
            .transpose()
    };
    decode(record, document("key", record.key)?, document("value", record.value)?)
}

impl Schemas {
    /// Decodes a record whose value is Avro on the Confluent wire; a key in JSON (another key converter) is read too.
    ///
    /// # Errors
    /// `Refused` as for JSON, or when the registry does not know the schema; `Unavailable` when it does not answer.
    pub fn decode_debezium_avro(&self, record: &Incoming<'_>) -> Result<Message, DecodeError> {
        let avro = |bytes: &[u8]| -> Result<Document, DecodeError> {
            let (writer, datum) = self.readers.open(bytes)?;
            Ok(Document {
                json: avro_json::json(writer.read_value(datum)?),
                shape: writer.shape.clone(),
            })
        };
        let key = match record.key {
            None | Some([]) => None,
            Some(bytes @ [b'{', ..]) => Some(Document::of_json("key", bytes)?),
            Some(bytes) => Some(avro(bytes)?),
        };
        let value = record.value.filter(|bytes| !bytes.is_empty()).map(avro).transpose()?;
        Ok(decode(record, key, value)?)
    }
}

/// Decodes a record from its documents, whichever way they were read.
fn decode(record: &Incoming<'_>, key: Option<Document>, value: Option<Document>) -> Result<Message, Refused> {
    let key_row = match &key {
        Some(Document {
            json: Json::Object(columns),
            shape,
        }) => row(columns, shape)?,
        Some(Document { json: Json::Null, .. }) | None => Row::new(),
        Some(Document { .. }) => {
            return Err(Refused::not_debezium("the key is not a struct of key columns"));
        }
    };
    let Some(Document { json, shape }) = value else {
        return tombstone(key_row);
    };
    let fields = match json {
        Json::Object(fields) => fields,
        Json::Null => return tombstone(key_row),
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            return Err(Refused::not_debezium("the value is not an object"));
        }
    };
    if fields.contains_key("op") && fields.contains_key("source") {
        return envelope(record, key_row, &fields, &shape);
    }
    if fields.contains_key("status") && fields.contains_key("event_count") {
        return transaction(&fields).map(Message::Transaction);
    }
    if fields.len() == 1 && fields.contains_key("ts_ms") {
        return Ok(Message::Nothing);
    }
    flattened(record, key_row, &fields, &shape)
}

fn tombstone(key: Row) -> Result<Message, Refused> {
    if key.is_empty() {
        return Err(Refused::not_debezium("the record has neither key nor value"));
    }
    Ok(Message::Tombstone { key })
}

fn envelope(record: &Incoming<'_>, key: Row, fields: &Map<String, Json>, shape: &Shape) -> Result<Message, Refused> {
    let op = match fields.get("op").and_then(Json::as_str) {
        Some("c") => Op::Create,
        Some("u") => Op::Update,
        Some("d") => Op::Delete,
        Some("r") => Op::Read,
        Some("t") => Op::Truncate,
        Some("m") => return Ok(Message::Nothing),
        Some(other) => {
            return Err(Refused::not_debezium(&format!(
                "op {other:?} is not one of c, u, d, r, t, m"
            )));
        }
        None => return Err(Refused::not_debezium("op is not text")),
    };
    let empty = Map::new();
    let source = fields.get("source").and_then(Json::as_object).unwrap_or(&empty);
    let after = match (op, fields.get("after")) {
        (Op::Create | Op::Update | Op::Read, Some(Json::Object(columns))) => Some(row(columns, shape.field("after"))?),
        (Op::Create | Op::Update | Op::Read, _) => {
            return Err(Refused::not_debezium("after is missing, though the row exists"));
        }
        (Op::Delete | Op::Truncate, _) => None,
    };
    let transaction = fields.get("transaction").and_then(Json::as_object).unwrap_or(&empty);
    let connector = source.get("connector").and_then(Json::as_str).unwrap_or_default();
    let position = Position {
        log: LogPosition::of_source(connector, source),
        transaction: transaction
            .get("id")
            .and_then(Json::as_str)
            .map(TransactionId::of_metadata),
        total_order: transaction.get("total_order").and_then(Json::as_i64),
    };
    let snapshot = op == Op::Read || !matches!(source.get("snapshot").and_then(Json::as_str), None | Some("false"));
    finish(record, op, key, after, position, instant_of(source), snapshot)
}

/// `ExtractNewRecordState`: the row itself, with `__op`, `__deleted` and any `add.fields` beside the columns. Without
/// them a row is what now stands; `__source_` and `__` prefixes are the two spellings the transform uses. Deletes are heard
/// only with `delete.tombstone.handling.mode=rewrite`: by its default the transform leaves a tombstone, which has no position,
/// and could be that of a row that is there again.
fn flattened(record: &Incoming<'_>, key: Row, fields: &Map<String, Json>, shape: &Shape) -> Result<Message, Refused> {
    let (meta, columns): (Map<_, _>, Map<_, _>) = fields
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .partition(|(name, _)| name.starts_with("__"));
    let source: Map<String, Json> = meta
        .into_iter()
        // The connector's clock, which a record that it sends again has anew, is not the database's.
        .filter(|(name, _)| !matches!(name.as_str(), "__ts_ms" | "__ts_us" | "__ts_ns"))
        .map(|(name, value)| {
            (
                name.trim_start_matches("__").trim_start_matches("source_").to_string(),
                value,
            )
        })
        .collect();
    let text = |name: &str| source.get(name).and_then(Json::as_str);
    if !source.contains_key("deleted") {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                topic = record.topic,
                "flattened rows without __deleted: a deleted row would only leave a tombstone, which says nothing; set \
                 transforms.unwrap.delete.tombstone.handling.mode=rewrite at the connector"
            );
        });
    }
    let deleted = match source.get("deleted") {
        Some(Json::String(text)) => text == "true",
        Some(Json::Bool(flag)) => *flag,
        Some(Json::Null | Json::Number(_) | Json::Array(_) | Json::Object(_)) | None => false,
    };
    let op = match (deleted, text("op")) {
        (true, _) | (false, Some("d")) => Op::Delete,
        (false, Some("c")) => Op::Create,
        (false, Some("r")) => Op::Read,
        (false, Some("t")) => Op::Truncate,
        (false, Some("u") | None) => Op::Update,
        (false, Some(other)) => {
            return Err(Refused::not_debezium(&format!(
                "__op {other:?} is not one of c, u, d, r, t"
            )));
        }
    };
    let after = match op {
        Op::Create | Op::Update | Op::Read => Some(row(&columns, shape)?),
        Op::Delete | Op::Truncate => None,
    };
    let position = Position {
        log: LogPosition::of_source(text("connector").unwrap_or_default(), &source),
        transaction: text("transaction_id").map(TransactionId::of_metadata),
        total_order: source.get("transaction_total_order").and_then(Json::as_i64),
    };
    let snapshot = op == Op::Read || !matches!(text("snapshot"), None | Some("false"));
    finish(record, op, key, after, position, instant_of(&source), snapshot)
}

fn finish(
    record: &Incoming<'_>,
    op: Op,
    key: Row,
    after: Option<Row>,
    position: Position,
    at: Option<Timestamp>,
    snapshot: bool,
) -> Result<Message, Refused> {
    if key.is_empty() && op != Op::Truncate {
        return Err(Refused::not_debezium(
            "the record has no key: give the table a primary key, or name its columns in the connector's \
             message.key.columns",
        ));
    }
    let moved = moved(record)?;
    Ok(Message::Row(RowChange {
        op,
        key,
        after,
        position,
        at,
        snapshot,
        moved,
    }))
}

fn moved(record: &Incoming<'_>) -> Result<Option<Moved>, Refused> {
    let key = |name: &str| -> Result<Option<Row>, Refused> {
        let Some(bytes) = record.header(name) else {
            return Ok(None);
        };
        match Document::of_json(name, bytes)? {
            Document {
                json: Json::Object(columns),
                shape,
            } => row(&columns, &shape).map(Some),
            Document { .. } => Err(Refused::not_debezium(&format!(
                "the header {name} is not a struct of key columns"
            ))),
        }
    };
    if let Some(new) = key("__debezium.newkey")? {
        return Ok(Some(Moved::To(new)));
    }
    Ok(key("__debezium.oldkey")?.map(Moved::From))
}

fn transaction(fields: &Map<String, Json>) -> Result<TransactionMark, Refused> {
    let text = |name: &str| fields.get(name).and_then(Json::as_str).unwrap_or_default();
    let id = TransactionId::of_metadata(text("id"));
    match text("status") {
        "BEGIN" => Ok(TransactionMark::Begin { id }),
        "END" => {
            let count = |of: Option<&Json>| {
                of.and_then(Json::as_u64)
                    .ok_or_else(|| Refused::not_debezium("a transaction's END lacks a count"))
            };
            let tables = fields
                .get("data_collections")
                .and_then(Json::as_array)
                .into_iter()
                .flatten()
                .map(|of| {
                    let table = of
                        .get("data_collection")
                        .and_then(Json::as_str)
                        .unwrap_or_default()
                        .to_string();
                    Ok(TableEvents {
                        table,
                        events: count(of.get("event_count"))?,
                    })
                })
                .collect::<Result<_, Refused>>()?;
            Ok(TransactionMark::End {
                id,
                events: count(fields.get("event_count"))?,
                tables,
            })
        }
        other => Err(Refused::not_debezium(&format!(
            "transaction status {other:?} is neither BEGIN nor END"
        ))),
    }
}

/// The finest clock the source gives.
fn instant_of(source: &Map<String, Json>) -> Option<Timestamp> {
    let number = |name: &str| source.get(name).and_then(Json::as_i64);
    number("ts_us")
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .or_else(|| number("ts_ms").and_then(|millis| Timestamp::from_millisecond(millis).ok()))
}

impl Document {
    /// JSON bytes; `{"schema", "payload"}` is opened.
    fn of_json(part: &str, bytes: &[u8]) -> Result<Document, Refused> {
        let json: Json = serde_json::from_slice(bytes).map_err(|error| Refused::not_json(part, bytes, &error))?;
        match json {
            Json::Object(mut fields)
                if fields.len() == 2 && fields.contains_key("schema") && fields.contains_key("payload") =>
            {
                let shape = fields.get("schema").map_or(Shape::Unknown, Shape::of_connect);
                let json = fields.remove("payload").unwrap_or(Json::Null);
                Ok(Document {
                    json,
                    shape: Arc::new(shape),
                })
            }
            json => Ok(Document {
                json,
                shape: Arc::new(Shape::Unknown),
            }),
        }
    }
}
