//! From a record to the rows it makes.
//!
//! Owns [`Value`], [`Row`] and the walk along a table's paths. Invariant: a value is exactly what the record says, in the
//! column's kind, or the record is refused with the column's name; the same record always makes the same rows.
//! Absent: Avro (the codec has made plain values of it) and any warehouse's notation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde_json::Value as Json;

use super::table::{Column, From, Kind, PeriodPart, Table};
use crate::revenue::ids::TenantId;
use crate::revenue::period::{self, days_between};
use crate::revenue::reference::Settings;
use crate::stream::record::Record;

/// One cell. Ordered, so that rows can be kept and merged by key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    Decimal(Decimal),
    Day(Date),
    Instant(Timestamp),
}

/// Cells in the order of the table's columns; the key's come first.
pub type Row = Vec<Value>;

/// Rows of one table by their keys.
pub type ByKey = BTreeMap<Vec<Value>, Row>;

/// Which of two rows with one key stands: the one of the higher order, of equals the later.
#[derive(Clone, Copy)]
pub struct Precedence {
    key_width: usize,
    order: Option<usize>,
}

impl Precedence {
    pub fn of(table: &Table) -> Precedence {
        Precedence {
            key_width: table.key_width(),
            order: table.order.and_then(|column| table.position_of(column)),
        }
    }

    /// Keeps the row, unless a later one of its key is there. Says whether its key is new.
    pub fn keep(self, rows: &mut ByKey, row: Row) -> bool {
        match (rows.get_mut(&row[..self.key_width]), self.order) {
            (Some(known), Some(at)) if row[at] < known[at] => false,
            (Some(known), _) => {
                *known = row;
                false
            }
            (None, _) => {
                rows.insert(row[..self.key_width].to_vec(), row);
                true
            }
        }
    }
}

/// A record that cannot be a row of this table. It is ours, so this is a foreign writer or a mistake of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table}.{column}: {message}")]
pub struct Unfit {
    pub table: &'static str,
    pub column: &'static str,
    pub message: String,
}

/// The rows that a record makes in a table. `json` is its value as the codec shows it to people.
///
/// # Errors
/// A column that must have a value has none, or one of another kind.
pub fn rows(table: &Table, record: &Record, json: &Json, settings: &Settings) -> Result<Vec<Row>, Unfit> {
    if table.only.is_some_and(|path| at(json, path).is_null()) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut row = |items: [&Json; 2], number: usize| {
        let place = Place {
            record,
            json,
            items,
            number,
            last: table.explode.len().saturating_sub(1),
            settings,
        };
        let cells = table.columns.iter().map(|column| {
            place.value(column).map_err(|message| Unfit {
                table: table.name,
                column: column.name,
                message,
            })
        });
        cells.collect::<Result<Row, Unfit>>().map(|row| found.push(row))
    };
    match table.explode {
        [] => row([&Json::Null; 2], 0)?,
        [outer] => {
            for (n, item) in list(json, outer).enumerate() {
                row([item, &Json::Null], n + 1)?;
            }
        }
        [outer, inner, ..] => {
            for item in list(json, outer) {
                for (n, part) in list(item, inner).enumerate() {
                    row([item, part], n + 1)?;
                }
            }
        }
    }
    Ok(found)
}

fn list<'a>(json: &'a Json, path: &str) -> impl Iterator<Item = &'a Json> {
    at(json, path).as_array().into_iter().flatten()
}

/// The value at a path of names with dots between, the empty path being the value itself; null where there is none.
fn at<'a>(json: &'a Json, path: &str) -> &'a Json {
    if path.is_empty() {
        return json;
    }
    path.split('.')
        .fold(json, |json, name| json.get(name).unwrap_or(&Json::Null))
}

struct Place<'a> {
    record: &'a Record,
    json: &'a Json,
    items: [&'a Json; 2],
    number: usize,
    /// Which of the items is the innermost.
    last: usize,
    settings: &'a Settings,
}

impl Place<'_> {
    fn value(&self, column: &Column) -> Result<Value, String> {
        let value = match column.from {
            From::Record(path) => typed(at(self.json, path), column.kind),
            From::Item(path) => typed(at(self.items[0], path), column.kind),
            From::Inner(path) => typed(at(self.items[1], path), column.kind),
            From::Number => Ok(Value::Integer(whole(self.number as u64)?)),
            From::Period(part) => self.period(part),
            From::Days(from, to) => Ok(self.days(from, to)?.map_or(Value::Null, Value::Integer)),
            From::SourcePartition => Ok(Value::Integer(i64::from(self.record.at.partition.0))),
            From::SourceOffset => Ok(Value::Integer(whole(self.record.offset.0)?)),
        }?;
        match (value, column.nullable) {
            (Value::Null, false) => Err("missing".to_owned()),
            (value, _) => Ok(value),
        }
    }

    fn period(&self, part: PeriodPart) -> Result<Value, String> {
        let label = at(self.innermost(), "period").as_str().unwrap_or_default();
        let tenant = at(self.json, "tenant_id").as_str().and_then(TenantId::parse);
        let (Some(period), Some(tenant)) = (period::Period::parse(label), tenant) else {
            return Err(format!("{label:?} is no period"));
        };
        let calendar = self.settings.tenant(&tenant).fiscal;
        if !calendar.knows(period) {
            return Err(format!("{label:?} is no period of the calendar of tenant {tenant}"));
        }
        Ok(match part {
            PeriodPart::FirstDay => Value::Day(calendar.first_day(period)),
            PeriodPart::LastDay => Value::Day(calendar.last_day(period)),
            PeriodPart::Year => Value::Integer(period.year().into()),
            PeriodPart::Number => Value::Integer(period.number().into()),
            PeriodPart::Quarter => Value::Integer((i64::from(period.number()) + 2) / 3),
            PeriodPart::Index => Value::Integer(i64::from(period.year()) * 12 + i64::from(period.number())),
        })
    }

    fn innermost(&self) -> &Json {
        self.items[self.last.min(1)]
    }

    fn days(&self, from: &str, to: &str) -> Result<Option<i64>, String> {
        let day = |path| typed(at(self.innermost(), path), Kind::Day);
        match (day(from)?, day(to)?) {
            (Value::Day(from), Value::Day(to)) => Ok(Some(days_between(from, to) + 1)),
            _ => Ok(None),
        }
    }
}

fn whole(number: u64) -> Result<i64, String> {
    i64::try_from(number).map_err(|_| format!("{number} is too large"))
}

/// A plain value as a cell of this kind.
fn typed(json: &Json, kind: Kind) -> Result<Value, String> {
    let wrong = || format!("{json} is no {}", kind.name());
    if json.is_null() {
        return Ok(Value::Null);
    }
    let text = || json.as_str().ok_or_else(wrong);
    match kind {
        Kind::Text => Ok(Value::Text(text()?.to_owned())),
        Kind::Integer => json.as_i64().map(Value::Integer).ok_or_else(wrong),
        Kind::Boolean => json.as_bool().map(Value::Boolean).ok_or_else(wrong),
        Kind::Amount | Kind::Rate => match Decimal::from_str_exact(text()?) {
            Ok(number) if Some(number.normalize().scale()) <= kind.scale() => Ok(Value::Decimal(number.normalize())),
            Ok(_) | Err(_) => Err(wrong()),
        },
        Kind::Day => text()?.parse().map(Value::Day).map_err(|_| wrong()),
        Kind::Instant => text()?.parse().map(Value::Instant).map_err(|_| wrong()),
    }
}
