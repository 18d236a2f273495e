//! One column of a row change, and the row: what a CRM database said, before anyone asked what it means.
//!
//! Invariant: a value is exactly what the source wrote; nothing is rounded, guessed or defaulted here. Meaning comes
//! when a mapping asks (`decimal`, `day`, `instant`, ...), and an answer that would need a guess is an error that
//! says what to declare. Deliberately absent: floats. A double arrives as its text and is refused for money.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::decimal;

/// The text Debezium sends for a TOASTed column that the change did not touch.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// 9999-12-31 as days since 1970-01-01: an integer up to this is a count of days, above it a count of
/// milliseconds, microseconds or nanoseconds.
const LAST_DAY: i64 = 2_932_896;

pub(super) const EPOCH: Date = Date::constant(1970, 1, 1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    /// The column was not sent because it did not change; its value is whatever was known before.
    Unavailable,
    Bool(bool),
    Int(i64),
    /// A JSON number with a fraction, an exponent or more than 64 bits: its text as written.
    Number(String),
    /// A binary double: its shortest text. Never money.
    Double(String),
    Decimal(Decimal),
    Text(String),
    Day(Date),
    /// A date and time without a zone (`timestamp` in PostgreSQL, `DATETIME` in MySQL).
    Local(DateTime),
    Instant(Timestamp),
    Bytes(Vec<u8>),
    /// A list or a struct, as compact JSON.
    Json(String),
}

/// The columns of one row by name. A column that is absent was not in the record at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(BTreeMap<String, Value>);

/// A column that does not hold what the mapping asks for. The record goes to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct ColumnError {
    pub column: String,
    pub message: String,
}

impl Row {
    pub fn new() -> Row {
        Row::default()
    }

    pub fn set(&mut self, column: impl Into<String>, value: Value) {
        self.0.insert(column.into(), value);
    }

    /// The raw value; `None` when the record has no such column.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.get(column)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn columns(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Only the columns for which `wanted` is true: what no mapping names is not carried on.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// Replaces every `Unavailable` by what `previous` knows. One that it does not know stays: the column is not empty, and
    /// whoever needs it must hear that.
    pub fn fill_unavailable(&mut self, previous: &Row) {
        for (name, value) in &mut self.0 {
            if let (Value::Unavailable, Some(known)) = (&value, previous.get(name)) {
                *value = known.clone();
            }
        }
    }

    /// Text, or the plain text of a number, day or instant.
    pub fn text(&self, column: &str) -> Result<Option<String>, ColumnError> {
        self.ask(column, |value| match value {
            Value::Text(text) | Value::Number(text) | Value::Double(text) | Value::Json(text) => Ok(text.clone()),
            Value::Bool(flag) => Ok(flag.to_string()),
            Value::Int(number) => Ok(number.to_string()),
            Value::Decimal(number) => Ok(number.to_string()),
            Value::Day(day) => Ok(day.to_string()),
            Value::Local(moment) => Ok(moment.to_string()),
            Value::Instant(instant) => Ok(instant.to_string()),
            Value::Bytes(_) => Err("holds bytes, not text".into()),
            Value::Null | Value::Unavailable => Err(unasked()),
        })
    }

    /// An exact decimal. Where the record does not say how it is written, `base64_scale` does: `Some` decimals of base64
    /// bytes (`decimal.handling.mode=precise`), `None` for decimal text (`string`). The two cannot be told apart by
    /// looking: "1000" is both.
    ///
    /// # Errors
    /// A binary double, text that is not a decimal, or more than 28 digits.
    pub fn decimal(&self, column: &str, base64_scale: Option<u32>) -> Result<Option<Decimal>, ColumnError> {
        self.ask(column, |value| match value {
            Value::Decimal(number) => Ok(*number),
            Value::Int(number) => Ok(Decimal::from(*number)),
            Value::Number(text) => decimal::from_number(text),
            Value::Double(text) => Err(format!(
                "holds the binary double {text}, which cannot be trusted with money; set the connector's \
                 decimal.handling.mode to string or precise"
            )),
            Value::Text(text) => match base64_scale {
                None => decimal::from_text(text),
                Some(scale) => decimal::from_bytes(&base64_of(text)?, i64::from(scale)),
            },
            Value::Bytes(bytes) => match base64_scale {
                None => {
                    Err("holds the bytes of a decimal of unknown scale; declare decimal_scale in the mapping".into())
                }
                Some(scale) => decimal::from_bytes(bytes, i64::from(scale)),
            },
            Value::Json(text) => variable_scale(text),
            Value::Bool(_) | Value::Day(_) | Value::Local(_) | Value::Instant(_) => {
                Err(format!("holds {}, not a number", value.kind()))
            }
            Value::Null | Value::Unavailable => Err(unasked()),
        })
    }

    /// A whole number.
    pub fn integer(&self, column: &str) -> Result<Option<i64>, ColumnError> {
        self.ask(column, |value| match value {
            Value::Int(number) => Ok(*number),
            Value::Decimal(number) => whole(*number),
            Value::Text(text) => decimal::from_text(text).and_then(whole),
            Value::Number(text) => decimal::from_number(text).and_then(whole),
            Value::Bool(_)
            | Value::Double(_)
            | Value::Day(_)
            | Value::Local(_)
            | Value::Instant(_)
            | Value::Bytes(_)
            | Value::Json(_) => Err(format!("holds {}, not a whole number", value.kind())),
            Value::Null | Value::Unavailable => Err(unasked()),
        })
    }

    /// True or false; 0 and 1 and their usual texts count.
    pub fn boolean(&self, column: &str) -> Result<Option<bool>, ColumnError> {
        self.ask(column, |value| match value {
            Value::Bool(flag) => Ok(*flag),
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "1" => Ok(true),
                "false" | "f" | "no" | "n" | "0" => Ok(false),
                other => Err(format!("holds {other:?}, not true or false")),
            },
            Value::Int(_)
            | Value::Number(_)
            | Value::Double(_)
            | Value::Decimal(_)
            | Value::Day(_)
            | Value::Local(_)
            | Value::Instant(_)
            | Value::Bytes(_)
            | Value::Json(_) => Err(format!("holds {}, not true or false", value.kind())),
            Value::Null | Value::Unavailable => Err(unasked()),
        })
    }

    /// A day: of an instant, the day it is in `zone`; of a time without zone, its own day.
    pub fn day(&self, column: &str, zone: &TimeZone) -> Result<Option<Date>, ColumnError> {
        self.ask(column, |value| match moment(value)? {
            Moment::Day(day) => Ok(day),
            Moment::Local(local) => Ok(local.date()),
            Moment::Instant(instant) => Ok(zone.to_datetime(instant).date()),
        })
    }

    /// An instant: a day or a time without zone is read in `zone`.
    pub fn instant(&self, column: &str, zone: &TimeZone) -> Result<Option<Timestamp>, ColumnError> {
        let local = |local: DateTime| {
            zone.to_timestamp(local)
                .map_err(|error| format!("holds {local}, outside what can be kept: {error}"))
        };
        self.ask(column, |value| match moment(value)? {
            Moment::Day(day) => local(day.to_datetime(jiff::civil::Time::midnight())),
            Moment::Local(moment) => local(moment),
            Moment::Instant(instant) => Ok(instant),
        })
    }

    fn ask<T>(&self, column: &str, answer: impl FnOnce(&Value) -> Result<T, String>) -> Result<Option<T>, ColumnError> {
        let result = match self.0.get(column) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Unavailable) => Err(
                "did not change in this record, and no earlier value is known; let the connector send it \
                 (REPLICA IDENTITY FULL) or take a new snapshot"
                    .into(),
            ),
            Some(value) => answer(value),
        };
        match result {
            Ok(value) => Ok(Some(value)),
            Err(message) => Err(ColumnError {
                column: column.into(),
                message,
            }),
        }
    }
}

impl FromIterator<(String, Value)> for Row {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(columns: I) -> Row {
        Row(columns.into_iter().collect())
    }
}

impl Value {
    /// What it is, in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Unavailable => "an unchanged value that was not sent",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Number(_) => "a number",
            Value::Double(_) => "a binary double",
            Value::Decimal(_) => "a decimal",
            Value::Text(_) => "text",
            Value::Day(_) => "a day",
            Value::Local(_) => "a date and time",
            Value::Instant(_) => "an instant",
            Value::Bytes(_) => "bytes",
            Value::Json(_) => "a list or a struct",
        }
    }
}

enum Moment {
    Day(Date),
    Local(DateTime),
    Instant(Timestamp),
}

fn moment(value: &Value) -> Result<Moment, String> {
    match value {
        Value::Day(day) => Ok(Moment::Day(*day)),
        Value::Local(local) => Ok(Moment::Local(*local)),
        Value::Instant(instant) => Ok(Moment::Instant(*instant)),
        Value::Int(number) => moment_of_number(*number),
        Value::Text(text) => moment_of_text(text),
        Value::Null
        | Value::Unavailable
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Double(_)
        | Value::Decimal(_)
        | Value::Bytes(_)
        | Value::Json(_) => Err(format!("holds {}, not a date", value.kind())),
    }
}

/// A number without a schema: the magnitudes of days, milliseconds, microseconds and nanoseconds do not overlap
/// between 1973 and 5138, so the unit is read off it. Debezium sends numbers only for times without a zone.
fn moment_of_number(number: i64) -> Result<Moment, String> {
    let size = number.unsigned_abs();
    if size <= LAST_DAY.unsigned_abs() {
        day_from_epoch(number).map(Moment::Day)
    } else if size < 100_000_000_000_000 {
        local_from_epoch(SignedDuration::from_millis(number)).map(Moment::Local)
    } else if size < 100_000_000_000_000_000 {
        local_from_epoch(SignedDuration::from_micros(number)).map(Moment::Local)
    } else {
        local_from_epoch(SignedDuration::from_nanos(number)).map(Moment::Local)
    }
}

/// ISO 8601: a date (with or without the `Z` of Debezium's `isostring` mode), a date and time, or an instant.
fn moment_of_text(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Some(day) = text.strip_suffix('Z').or(Some(text)).filter(|day| day.len() == 10) {
        return day.parse().map(Moment::Day).map_err(|_| not_a_date(text));
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(Moment::Instant(instant));
    }
    text.parse().map(Moment::Local).map_err(|_| not_a_date(text))
}

fn not_a_date(text: &str) -> String {
    format!("holds {text:?}, which is not an ISO 8601 date or time")
}

/// Days since 1970-01-01 (`io.debezium.time.Date`, Connect's `Date`, Avro's `date`).
pub(super) fn day_from_epoch(days: i64) -> Result<Date, String> {
    i64::checked_mul(days, 24)
        .and_then(|hours| EPOCH.checked_add(SignedDuration::from_hours(hours)).ok())
        .ok_or_else(|| format!("holds day number {days}, outside the calendar"))
}

/// A time without a zone, as its distance from 1970-01-01T00:00:00.
pub(super) fn local_from_epoch(distance: SignedDuration) -> Result<DateTime, String> {
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0)
        .checked_add(distance)
        .map_err(|_| format!("is {distance} from 1970, outside the calendar"))
}

pub(super) fn base64_of(text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|_| {
        format!(
            "holds {text:?}, which is not base64; if the connector sends decimals as text \
             (decimal.handling.mode=string), remove decimal_scale from the mapping"
        )
    })
}

/// `{"scale": 2, "value": "<base64>"}`: Debezium's VariableScaleDecimal where no schema named it.
pub(super) fn variable_scale(text: &str) -> Result<Decimal, String> {
    let parsed: serde_json::Value = serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    match (
        parsed.get("scale").and_then(|scale| scale.as_i64()),
        parsed.get("value").and_then(|value| value.as_str()),
    ) {
        (Some(scale), Some(value)) => decimal::from_bytes(&base64_of(value)?, scale),
        (Some(_) | None, Some(_) | None) => Err("holds a list or a struct, not a number".into()),
    }
}

fn whole(number: Decimal) -> Result<i64, String> {
    if !number.is_integer() {
        return Err(format!("holds {number}, not a whole number"));
    }
    i64::try_from(number).map_err(|_| format!("holds {number}, too large for a whole number"))
}

/// `Row::ask` answers nulls itself; the arms that call this are there so that a new kind of value cannot be forgotten.
fn unasked() -> String {
    "holds no value".into()
}
