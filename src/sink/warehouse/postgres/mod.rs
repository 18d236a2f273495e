//! PostgreSQL, 15 or newer: COPY into a staging table, MERGE, positions, one transaction.
//!
//! Invariant: a transaction first moves the positions from the values that were read, and only then touches rows: the
//! second of two workers waits on those rows of `accrue_position`, finds them moved, and gives up.
//! Absent: grants and indexes beyond the primary keys; they are the warehouse owner's.
//!
//! Sources: <https://www.postgresql.org/docs/15/sql-copy.html> (text format), <https://www.postgresql.org/docs/15/sql-merge.html>.

use std::io::Write as _;
use std::time::Duration;

use postgres::{Client, Transaction};

use super::row::{Row, Value};
use super::table::{Kind, Table};
use super::{Held, Move, TableBatch, Warehouse, WarehouseError, marts, sql};
use crate::stream::record::{Offset, Partition, Topic, TopicPartition};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(30);
/// How long what was sent may stay without a sign that it arrived.
const UNANSWERED: Duration = Duration::from_secs(60);
/// The library's own.
const KEEPALIVES_IDLE_UNLESS_SET: Duration = Duration::from_secs(2 * 60 * 60);

const POSITIONS: &str = "CREATE TABLE IF NOT EXISTS accrue_position (table_name text NOT NULL, topic text NOT NULL, \
     partition integer NOT NULL, next_offset bigint NOT NULL, PRIMARY KEY (table_name, topic, partition))";

/// See the module.
pub struct Postgres {
    /// A libpq connection string or URL; holds the password.
    dsn: String,
    schema: String,
    tables: &'static [Table],
    client: Option<Client>,
}

impl Postgres {
    /// Connects at the first call. `sslmode=disable` in the connection string turns TLS off; otherwise the server is
    /// asked for it, and its certificate checked against the system's authorities.
    pub fn new(dsn: &str, schema: &str, tables: &'static [Table]) -> Postgres {
        Postgres {
            dsn: dsn.to_owned(),
            schema: schema.to_owned(),
            tables,
            client: None,
        }
    }

    /// The connection, made again when it was lost.
    fn client(&mut self) -> Result<&mut Client, WarehouseError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let mut client = connect(&self.dsn)?;
            client
                .batch_execute(&format!("SET search_path TO {}", quoted(&self.schema)))
                .map_err(classify)?;
            self.client = Some(client);
        }
        match &mut self.client {
            Some(client) => Ok(client),
            None => Err(WarehouseError::Away("not connected".to_owned())),
        }
    }

    fn transaction(&mut self) -> Result<Transaction<'_>, WarehouseError> {
        self.client()?.transaction().map_err(classify)
    }
}

fn connect(dsn: &str) -> Result<Client, WarehouseError> {
    let refused = |why: String| WarehouseError::Refused(why);
    // The library's words may quote the string, which holds the password.
    let mut config: postgres::Config = dsn.parse().map_err(|_| {
        refused(
            "warehouse url is no PostgreSQL connection string; write postgresql://user:password@host:5432/database"
                .to_owned(),
        )
    })?;
    config.application_name("accrue");
    // A server or a firewall that has gone without a word ends the connection within minutes, not never. What the string
    // says counts.
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNANSWERED);
    }
    if config.get_keepalives_idle() == KEEPALIVES_IDLE_UNLESS_SET {
        config.keepalives_idle(UNANSWERED / 2);
    }
    let tls = openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls_client())
        .map_err(|error| refused(format!("TLS cannot be set up: {error}")))?;
    config
        .connect(postgres_openssl::MakeTlsConnector::new(tls.build()))
        .map_err(classify)
}

impl Warehouse for Postgres {
    fn prepare(&mut self, dry_run: bool) -> Result<Vec<String>, WarehouseError> {
        let (schema, tables) = (self.schema.clone(), self.tables);
        let mut steps = Vec::new();
        let mut transaction = self.transaction()?;
        // Two that prepare at once would both find a table missing.
        run(&mut transaction, "SELECT pg_advisory_xact_lock(4716205)")?;
        run(
            &mut transaction,
            &format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&schema)),
        )?;
        run(&mut transaction, POSITIONS)?;
        for table in tables {
            let known = columns_of(&mut transaction, &schema, table.name)?;
            if known.is_empty() {
                let keys: Vec<&str> = table.keys().map(|column| column.name).collect();
                let columns = sql::columns(table, type_name).join(", ");
                let create = format!(
                    "CREATE TABLE {} ({columns}, PRIMARY KEY ({}))",
                    table.name,
                    keys.join(", ")
                );
                run(&mut transaction, &create)?;
                steps.push(format!("table {}: created", table.name));
                continue;
            }
            for column in table.columns {
                match known.iter().find(|(name, _)| name == column.name) {
                    Some((_, kind)) if kind == type_name(column.kind) => {}
                    Some((_, kind)) => {
                        return Err(WarehouseError::Refused(format!(
                            "{schema}.{}.{} is {kind}, and accrue writes {}: rename or drop the table, then run it with --backfill",
                            table.name,
                            column.name,
                            type_name(column.kind)
                        )));
                    }
                    None => {
                        // Rows that are there have no value for it, whatever the description says of new ones.
                        let add = format!(
                            "ALTER TABLE {} ADD COLUMN {} {}",
                            table.name,
                            column.name,
                            type_name(column.kind)
                        );
                        run(&mut transaction, &add)?;
                        steps.push(format!("table {}: column {} added", table.name, column.name));
                    }
                }
            }
        }
        for view in marts::ALL {
            run(
                &mut transaction,
                &format!("CREATE OR REPLACE VIEW {} AS\n{}", view.name, view.sql),
            )?;
        }
        steps.push(format!("{} views", marts::ALL.len()));
        if dry_run {
            transaction.rollback().map_err(classify)?;
        } else {
            transaction.commit().map_err(classify)?;
        }
        Ok(steps)
    }

    fn positions(&mut self) -> Result<Held, WarehouseError> {
        let tables = self.tables;
        let found = self
            .client()?
            .query(
                "SELECT table_name, topic, partition, next_offset FROM accrue_position",
                &[],
            )
            .map_err(classify)?;
        let mut held = Held::new();
        for row in found {
            let name: String = row.get(0);
            let (topic, partition, next): (String, i32, i64) = (row.get(1), row.get(2), row.get(3));
            let (Ok(partition), Ok(next)) = (u32::try_from(partition), u64::try_from(next)) else {
                return Err(WarehouseError::Refused(format!(
                    "accrue_position of {name} holds a number below zero"
                )));
            };
            if let Some(table) = tables.iter().find(|table| table.name == name) {
                held.insert(
                    (
                        table.name,
                        TopicPartition::new(&Topic::new(topic), Partition(partition)),
                    ),
                    Offset(next),
                );
            }
        }
        Ok(held)
    }

    fn commit(&mut self, batch: &[TableBatch]) -> Result<(), WarehouseError> {
        let mut transaction = self.transaction()?;
        for table in batch {
            for moved in &table.moves {
                move_position(&mut transaction, table.table, moved)?;
            }
        }
        for TableBatch { table, rows, .. } in batch.iter().filter(|table| !table.rows.is_empty()) {
            let stage = format!("stage_{}", table.name);
            let create = format!("CREATE TEMP TABLE {stage} (LIKE {}) ON COMMIT DROP", table.name);
            run(&mut transaction, &create)?;
            let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
            let copy = format!("COPY {stage} ({}) FROM STDIN", names.join(", "));
            let mut writer = transaction.copy_in(&copy).map_err(classify)?;
            for row in rows {
                writer
                    .write_all(copy_line(row).as_bytes())
                    .map_err(|error| WarehouseError::Away(error.to_string()))?;
            }
            writer.finish().map_err(classify)?;
            run(&mut transaction, &sql::merge(table, &stage))?;
        }
        transaction.commit().map_err(classify)
    }

    fn clear(&mut self) -> Result<(), WarehouseError> {
        let tables = self.tables;
        let mut transaction = self.transaction()?;
        for table in tables {
            run(&mut transaction, &format!("TRUNCATE {}", table.name))?;
        }
        run(&mut transaction, "DELETE FROM accrue_position")?;
        transaction.commit().map_err(classify)
    }
}

/// Name and type of each column; none when there is no such table.
fn columns_of(
    transaction: &mut Transaction<'_>,
    schema: &str,
    table: &str,
) -> Result<Vec<(String, String)>, WarehouseError> {
    let found = transaction
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a \
             JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
            &[&schema, &table],
        )
        .map_err(classify)?;
    Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn move_position(transaction: &mut Transaction<'_>, table: &Table, moved: &Move) -> Result<(), WarehouseError> {
    let number = |offset: Offset| {
        i64::try_from(offset.0).map_err(|_| WarehouseError::Refused(format!("offset {offset} is too large")))
    };
    let partition = i32::try_from(moved.at.partition.0)
        .map_err(|_| WarehouseError::Refused(format!("partition {} is too large", moved.at.partition)))?;
    let (topic, to) = (moved.at.topic.as_str(), number(moved.to)?);
    let changed = match moved.from {
        Some(from) => transaction.execute(
            "UPDATE accrue_position SET next_offset = $1 WHERE table_name = $2 AND topic = $3 AND partition = $4 \
             AND next_offset = $5",
            &[&to, &table.name, &topic, &partition, &number(from)?],
        ),
        None => transaction.execute(
            "INSERT INTO accrue_position (next_offset, table_name, topic, partition) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
            &[&to, &table.name, &topic, &partition],
        ),
    };
    match changed.map_err(classify)? {
        1 => Ok(()),
        _ => Err(WarehouseError::Fenced(format!(
            "{} of {} is not where it was",
            moved.at, table.name
        ))),
    }
}

fn run(transaction: &mut Transaction<'_>, statement: &str) -> Result<(), WarehouseError> {
    transaction.batch_execute(statement).map_err(classify)
}

/// As `format_type` writes them.
fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Integer => "bigint",
        Kind::Boolean => "boolean",
        Kind::Amount => "numeric(28,6)",
        Kind::Rate => "numeric(28,12)",
        Kind::Day => "date",
        Kind::Instant => "timestamp with time zone",
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A line of COPY's text format.
fn copy_line(row: &Row) -> String {
    let mut line = String::new();
    for (n, value) in row.iter().enumerate() {
        if n > 0 {
            line.push('\t');
        }
        match value {
            Value::Null => line.push_str("\\N"),
            Value::Text(text) => {
                for c in text.chars() {
                    match c {
                        '\\' => line.push_str("\\\\"),
                        '\t' => line.push_str("\\t"),
                        '\n' => line.push_str("\\n"),
                        '\r' => line.push_str("\\r"),
                        // PostgreSQL keeps no NUL in text.
                        '\0' => line.push('\u{FFFD}'),
                        other => line.push(other),
                    }
                }
            }
            Value::Integer(number) => line.push_str(&number.to_string()),
            Value::Boolean(flag) => line.push(if *flag { 't' } else { 'f' }),
            Value::Decimal(number) => line.push_str(&number.to_string()),
            Value::Day(day) => line.push_str(&day.to_string()),
            Value::Instant(instant) => line.push_str(&instant.to_string()),
        }
    }
    line.push('\n');
    line
}

/// <https://www.postgresql.org/docs/15/errcodes-appendix.html>
fn classify(error: postgres::Error) -> WarehouseError {
    let Some(db) = error.as_db_error() else {
        return WarehouseError::Away(words(&error));
    };
    let text = format!("PostgreSQL: {} ({})", db.message(), db.code().code());
    match db.code().code().get(..2) {
        // Serialization failures and deadlocks, and a row that another worker inserted first.
        Some("40") => WarehouseError::Fenced(text),
        _ if db.code().code() == "23505" => WarehouseError::Fenced(text),
        // Connection, resources, operator intervention, system errors.
        Some("08" | "53" | "57" | "58") => WarehouseError::Away(text),
        _ => WarehouseError::Refused(text),
    }
}

/// The error with its causes: the library's own text alone says only "error connecting to server".
fn words(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
