//! A row's columns as `crm.changes` and the CRM store keep them: a kind and a text for each.
//!
//! Invariant: a row comes back equal to what was written, decimals with their scale, times to the nanosecond.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::Refused;
use super::names::{Named, named};
use super::value::{Row, Value};
use super::wire::Text;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cell<'a> {
    #[serde(borrow)]
    column: Text<'a>,
    kind: Text<'a>,
    text: Text<'a>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Null,
    Unavailable,
    Bool,
    Int,
    Number,
    Double,
    Decimal,
    Text,
    Day,
    Local,
    Instant,
    Bytes,
    Json,
}

named! { Kind:
    Null = "null",
    Unavailable = "unavailable",
    Bool = "bool",
    Int = "int",
    Number = "number",
    Double = "double",
    Decimal = "decimal",
    Text = "text",
    Day = "day",
    Local = "local",
    Instant = "instant",
    Bytes = "bytes",
    Json = "json",
}

pub(super) fn cells(row: &Row) -> Vec<Cell<'_>> {
    row.columns()
        .map(|(column, value)| {
            let (kind, text) = match value {
                Value::Null => (Kind::Null, "".into()),
                Value::Unavailable => (Kind::Unavailable, "".into()),
                Value::Bool(flag) => (Kind::Bool, if *flag { "true" } else { "false" }.into()),
                Value::Int(number) => (Kind::Int, number.to_string().into()),
                Value::Number(text) => (Kind::Number, text.as_str().into()),
                Value::Double(text) => (Kind::Double, text.as_str().into()),
                Value::Decimal(number) => (Kind::Decimal, number.to_string().into()),
                Value::Text(text) => (Kind::Text, text.as_str().into()),
                Value::Day(day) => (Kind::Day, day.to_string().into()),
                Value::Local(local) => (Kind::Local, local.to_string().into()),
                Value::Instant(instant) => (Kind::Instant, instant.to_string().into()),
                Value::Bytes(bytes) => (Kind::Bytes, BASE64.encode(bytes).into()),
                Value::Json(text) => (Kind::Json, text.as_str().into()),
            };
            Cell {
                column: column.into(),
                kind: kind.name().into(),
                text,
            }
        })
        .collect()
}

pub(super) fn row(cells: Vec<Cell<'_>>) -> Result<Row, Refused> {
    cells
        .into_iter()
        .map(
            |cell| match Kind::of_name(&cell.kind).and_then(|kind| value(kind, &cell.text)) {
                Some(value) => Ok((cell.column.into_owned(), value)),
                None => {
                    let message = format!(
                        "column {}: {:?} is no value of kind {:?}",
                        cell.column, cell.text, cell.kind
                    );
                    Err(Refused::new("bad_column", message))
                }
            },
        )
        .collect()
}

fn value(kind: Kind, text: &str) -> Option<Value> {
    Some(match kind {
        Kind::Null => Value::Null,
        Kind::Unavailable => Value::Unavailable,
        Kind::Bool => Value::Bool(text.parse().ok()?),
        Kind::Int => Value::Int(text.parse().ok()?),
        Kind::Number => Value::Number(text.into()),
        Kind::Double => Value::Double(text.into()),
        Kind::Decimal => Value::Decimal(Decimal::from_str_exact(text).ok()?),
        Kind::Text => Value::Text(text.into()),
        Kind::Day => Value::Day(text.parse().ok()?),
        Kind::Local => Value::Local(text.parse().ok()?),
        Kind::Instant => Value::Instant(text.parse().ok()?),
        Kind::Bytes => Value::Bytes(BASE64.decode(text).ok()?),
        Kind::Json => Value::Json(text.into()),
    })
}
