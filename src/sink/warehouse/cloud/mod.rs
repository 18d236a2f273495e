//! Warehouses in a cloud that are spoken to in SQL over HTTP: Snowflake and BigQuery.
//!
//! ```text
//! stage part 1 .. n      rows and moves as JSON in accrue_stage, one statement each, seen by nobody
//! one transaction        moves positions | is refused if one was not where it was | merges rows | empties the stage
//! ```
//!
//! Owns that order and the ids of requests. Invariant: the position moves in the transaction that merges the rows, and a
//! request that was sent and not answered is sent again under its own id, which the vendor carries out once. Ids are of
//! one session: one that outlived it would be taken for done after the tables were emptied or made anew. A worker that
//! was killed asks for the positions instead; what it left in the stage goes with the same batch, or a day later.
//! Neither vendor takes parameters where it takes transactions (Snowflake) or more than ten megabytes of them (BigQuery):
//! that is why rows go by way of a stage. No value of a record is ever part of a statement's text.
//! Absent: databases, schemas, datasets and grants; they are the warehouse owner's.
//!
//! In reading order: [`script`], the statements; [`snowflake`], [`bigquery`]; [`http`], [`token`], which they share.

pub mod bigquery;
mod http;
mod script;
pub mod snowflake;
mod token;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::row::Value;
use super::table::Table;
use super::{Held, TableBatch, Warehouse, WarehouseError, marts};
use crate::codec::receipt::hex;
use crate::stream::record::{Offset, Partition, Topic, TopicPartition};
use script::{Dialect, POSITIONS};

/// What is staged by one statement. Vendors take more; small requests are cheap to repeat.
const PART_BYTES: usize = 1_000_000;

/// A row of an answer: each cell as text, null as `None`.
pub type Cells = Vec<Option<String>>;

/// How a vendor is spoken to. Implemented by [`snowflake`] and [`bigquery`].
pub trait Client: Send {
    fn dialect(&self) -> Dialect;

    /// One statement that may be carried out twice: a query, or DDL that says `IF NOT EXISTS`.
    fn ask(&mut self, statement: &str) -> Result<Vec<Cells>, WarehouseError>;

    /// One statement with `?` for each text. Carried out once for each id, however often it is sent.
    fn write(&mut self, id: &RequestId, statement: &str, texts: &[&str]) -> Result<(), WarehouseError>;

    /// Statements from BEGIN to COMMIT: all of them or none. Carried out once for each id.
    fn transact(&mut self, id: &RequestId, statements: &[String]) -> Result<(), WarehouseError>;
}

/// Names one request of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// 32 hexadecimal digits.
    fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The same in the form of a UUID.
    fn uuid(&self) -> String {
        let hex = self.hex();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

/// See the module.
pub struct Cloud {
    client: Box<dyn Client>,
    tables: &'static [Table],
    session: [u8; 16],
}

impl Cloud {
    pub fn new(client: Box<dyn Client>, tables: &'static [Table]) -> Cloud {
        Cloud {
            client,
            tables,
            session: [0; 16],
        }
    }

    /// The id of a part of a batch; the transaction is the part after the last.
    fn id(&self, batch: &str, part: usize) -> RequestId {
        let digest = Sha256::digest([&self.session, batch.as_bytes(), &part.to_be_bytes()].concat());
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        RequestId(id)
    }

    /// The columns that are missing, of all tables; refuses those of another type.
    fn missing(&mut self) -> Result<Vec<Step>, WarehouseError> {
        let dialect = self.client.dialect();
        let known = self.client.ask(&dialect.columns())?;
        let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
        let known: Vec<(String, String, String)> = known
            .iter()
            .filter_map(|row| match &row[..] {
                [table, column, kind] => Some((text(table), text(column), text(kind))),
                _ => None,
            })
            .collect();
        let mut steps = Vec::new();
        for table in self.tables {
            if !known.iter().any(|(name, _, _)| name == table.name) {
                steps.push(Step::Table(table));
                continue;
            }
            for column in table.columns {
                let there = known.iter().find(|(t, c, _)| t == table.name && c == column.name);
                match there {
                    Some((_, _, kind)) if *kind == dialect.declared(column.kind) => {}
                    Some((_, _, kind)) => {
                        return Err(WarehouseError::Refused(format!(
                            "{}.{} is {kind}, and accrue writes {}: rename or drop the table, then run it with --backfill",
                            table.name,
                            column.name,
                            dialect.declared(column.kind)
                        )));
                    }
                    None => steps.push(Step::Column(table, column.name)),
                }
            }
        }
        Ok(steps)
    }
}

enum Step {
    Table(&'static Table),
    Column(&'static Table, &'static str),
}

impl Warehouse for Cloud {
    fn prepare(&mut self, dry_run: bool) -> Result<Vec<String>, WarehouseError> {
        let dialect = self.client.dialect();
        let missing = self.missing()?;
        let mut said = Vec::new();
        for step in &missing {
            said.push(match step {
                Step::Table(table) => format!("table {}: created", table.name),
                Step::Column(table, column) => format!("table {}: column {column} added", table.name),
            });
        }
        said.push(format!("{} views", marts::ALL.len()));
        if dry_run {
            return Ok(said);
        }
        for statement in dialect.own_tables() {
            self.client.ask(&statement)?;
        }
        for step in missing {
            self.client.ask(&match step {
                Step::Table(table) => dialect.create(table),
                Step::Column(table, column) => dialect.add(table, column),
            })?;
        }
        for view in marts::ALL {
            self.client.ask(&dialect.view(view, self.tables))?;
        }
        self.client.ask(&dialect.sweep())?;
        Ok(said)
    }

    fn positions(&mut self) -> Result<Held, WarehouseError> {
        openssl::rand::rand_bytes(&mut self.session)
            .map_err(|error| WarehouseError::Refused(format!("no random bytes: {error}")))?;
        let statement = format!("SELECT table_name, topic, partition_number, next_offset FROM {POSITIONS}");
        let mut held = Held::new();
        for row in self.client.ask(&statement)? {
            let parsed = match &row[..] {
                [Some(table), Some(topic), Some(partition), Some(next)] => partition
                    .parse()
                    .ok()
                    .zip(next.parse().ok())
                    .map(|(partition, next)| (table, topic, Partition(partition), Offset(next))),
                _ => None,
            };
            let Some((table, topic, partition, next)) = parsed else {
                return Err(WarehouseError::Refused(format!(
                    "{POSITIONS} holds {row:?}, which is no position"
                )));
            };
            if let Some(table) = self.tables.iter().find(|known| known.name == table) {
                let at = TopicPartition::new(&Topic::new(topic.as_str()), partition);
                held.insert((table.name, at), next);
            }
        }
        Ok(held)
    }

    fn commit(&mut self, batch: &[TableBatch]) -> Result<(), WarehouseError> {
        let parts = parts(batch, PART_BYTES);
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        let name = hex(&hash.finalize()[..16]);
        let dialect = self.client.dialect();
        for (n, part) in parts.iter().enumerate() {
            let id = self.id(&name, n);
            self.client
                .write(&id, &dialect.stage(), &[&name, &n.to_string(), part])?;
        }
        let moves = batch.iter().map(|table| table.moves.len()).sum();
        let filled = batch.iter().filter(|it| !it.rows.is_empty()).map(|it| it.table);
        let statements = dialect.transaction(&name, parts.len(), moves, filled);
        self.client.transact(&self.id(&name, parts.len()), &statements)
    }

    fn clear(&mut self) -> Result<(), WarehouseError> {
        let dialect = self.client.dialect();
        let statements = dialect.emptied(self.tables);
        openssl::rand::rand_bytes(&mut self.session)
            .map_err(|error| WarehouseError::Refused(format!("no random bytes: {error}")))?;
        self.client.transact(&self.id("clear", 0), &statements)
    }
}

/// The batch as JSON objects of about this size: each table's rows under its name, the moves under that of the table of
/// positions. Every cell is a text or null, so that no number passes through anybody's floating point.
fn parts(batch: &[TableBatch], bytes: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut open: Map<String, Json> = Map::new();
    let mut size = 0;
    let mut add = |table: &str, cells: Json| {
        let length = cells.to_string().len();
        if size > 0 && size + length > bytes {
            parts.push(Json::Object(std::mem::take(&mut open)).to_string());
            size = 0;
        }
        size += length;
        if let Json::Array(rows) = open.entry(table).or_insert_with(|| json!([])) {
            rows.push(cells);
        }
    };
    for TableBatch { table, rows, moves } in batch {
        for it in moves {
            let from = it.from.map(|from| from.0.to_string());
            let at = (it.at.topic.as_str(), it.at.partition.0.to_string());
            add(POSITIONS, json!([table.name, at.0, at.1, from, it.to.0.to_string()]));
        }
        for row in rows {
            add(table.name, row.iter().map(cell).collect());
        }
    }
    parts.push(Json::Object(open).to_string());
    parts
}

fn cell(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        // A JSON text in these warehouses keeps no NUL.
        Value::Text(text) => json!(text.replace('\0', "\u{FFFD}")),
        Value::Integer(number) => json!(number.to_string()),
        Value::Boolean(flag) => json!(flag.to_string()),
        Value::Decimal(number) => json!(number.to_string()),
        Value::Day(day) => json!(day.to_string()),
        // The form that both document; some read no Z.
        Value::Instant(instant) => json!(format!("{instant:.6}").replace('Z', "+00:00")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::warehouse::{Move, tables};

    #[test]
    fn a_batch_is_cut_by_size_and_nothing_is_left_out() {
        let at = TopicPartition::new(&Topic::new("receipts"), Partition(3));
        let rows = (0..50).map(|n| vec![Value::Text(format!("row {n}\0")), Value::Integer(n), Value::Null]);
        let batch = [TableBatch {
            table: &tables::ALL[0],
            rows: rows.collect(),
            moves: vec![Move {
                at,
                from: None,
                to: Offset(9),
            }],
        }];
        let cut = parts(&batch, 200);
        assert!(cut.len() > 5 && cut.iter().all(|part| part.len() < 300), "{cut:?}");
        let whole = parts(&batch, usize::MAX);
        assert_eq!(whole.len(), 1);
        let rows = |part: &String| -> Vec<Json> {
            let part: Json = serde_json::from_str(part).expect("JSON");
            part["dim_deal"].as_array().cloned().unwrap_or_default()
        };
        let together: Vec<Json> = cut.iter().flat_map(rows).collect();
        assert_eq!(together, rows(&whole[0]));
        assert_eq!(together[7], json!(["row 7\u{FFFD}", "7", null]));
        let moved: Json = serde_json::from_str(&cut[0]).expect("JSON");
        assert_eq!(moved[POSITIONS], json!([["dim_deal", "receipts", "3", null, "9"]]));
    }

    #[test]
    fn an_instant_keeps_its_microseconds_and_names_its_offset() {
        let instant: jiff::Timestamp = "2026-01-02T03:04:05.000007Z".parse().expect("instant");
        assert_eq!(
            cell(&Value::Instant(instant)),
            json!("2026-01-02T03:04:05.000007+00:00")
        );
    }
}
