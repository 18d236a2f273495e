//! Where a row change stands in its database's log: what makes a duplicate a duplicate.
//!
//! Invariant: positions of one source compare as the database ordered the changes. Positions of different sources, or
//! of connectors of different kinds, do not compare in any meaningful way.

use std::fmt;

use serde_json::{Map, Value as Json};

/// The place of one change. Two records of one source with equal `log` and `total_order` are the same change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    pub log: Option<LogPosition>,
    /// From the transaction metadata alone. The `source` block names the transaction too (`txId`), also where the connector
    /// sends no ends of transactions, and one whose end never comes is not to be waited for.
    pub transaction: Option<TransactionId>,
    /// The change's number within its transaction, from 1; known only with transaction metadata.
    pub total_order: Option<i64>,
}

/// A log position in up to three steps, most significant first: PostgreSQL `lsn`; MySQL file number, `pos`, `row`;
/// SQL Server `change_lsn` (two steps), `event_serial_no`; Oracle `scn`, then the redo record's `rs_id` and `ssn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub [i64; 3]);

/// A database transaction, spelled the same on the row changes and on the transaction topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub String);

impl LogPosition {
    pub(super) fn of_source(connector: &str, source: &Map<String, Json>) -> Option<LogPosition> {
        let number = |name: &str| whole(source.get(name)?);
        let text = |name: &str| source.get(name).and_then(Json::as_str);
        let steps = match connector {
            "mysql" | "mariadb" => {
                let file = text("file")?.rsplit('.').next()?.parse().ok()?;
                [file, number("pos")?, number("row").unwrap_or(0)]
            }
            "sqlserver" => {
                let mut parts = text("change_lsn").or(text("commit_lsn"))?.split(':');
                let mut part = || i64::from_str_radix(parts.next()?, 16).ok();
                let (file, block, slot) = (part()?, part()?, part()?);
                let file_and_block = file.checked_mul(1 << 32)?.checked_add(block)?;
                [file_and_block, slot, number("event_serial_no").unwrap_or(0)]
            }
            "oracle" => {
                let (redo, offset) = text("rs_id").and_then(redo_place).unwrap_or_default();
                let ssn = number("ssn").unwrap_or(0);
                [number("scn")?, redo, offset.checked_mul(1 << 32)?.checked_add(ssn)?]
            }
            // PostgreSQL, and flattened records, which seldom name their connector.
            _ => [number("lsn")?, 0, 0],
        };
        Some(LogPosition(steps))
    }
}

impl TransactionId {
    /// From Debezium's transaction metadata. PostgreSQL writes `txId:lsn`, and the lsn differs from record to record of
    /// one transaction (seen with 3.6): only the first half names it.
    pub(super) fn of_metadata(id: &str) -> TransactionId {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match id.split_once(':') {
            Some((transaction, lsn)) if digits(transaction) && digits(lsn) => TransactionId(transaction.to_string()),
            Some(_) | None => TransactionId(id.to_string()),
        }
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number, or a number as text (Oracle's `scn`).
fn whole(json: &Json) -> Option<i64> {
    json.as_i64().or_else(|| json.as_str()?.parse().ok())
}

/// Oracle's `rs_id`, ` 0x000022.00000f2c.0010 `: file and block of the redo log as one number, and the offset in the block.
/// Changes of one `scn` often differ in nothing else.
fn redo_place(rs_id: &str) -> Option<(i64, i64)> {
    let mut parts = rs_id.trim().trim_start_matches("0x").split('.');
    let mut part = || i64::from_str_radix(parts.next()?, 16).ok();
    let (file, block, offset) = (part()?, part()?, part()?);
    Some((file.checked_mul(1 << 32)?.checked_add(block)?, offset))
}
