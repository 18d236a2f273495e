//! One JSON value under its shape, to one column of a row.
//!
//! Invariant: a value that contradicts its schema is refused; without a schema nothing is refused and nothing guessed.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};

use super::shape::Shape;
use super::value::{self, Row, UNAVAILABLE, Value};
use super::{Refused, decimal};

pub(super) fn row(columns: &Map<String, Json>, shape: &Shape) -> Result<Row, Refused> {
    columns
        .iter()
        .map(|(name, json)| match column(json, shape.field(name)) {
            Ok(value) => Ok((name.clone(), value)),
            Err(message) => Err(Refused::new("bad_column", format!("column {name}: {message}"))),
        })
        .collect()
}

pub(super) fn column(json: &Json, shape: &Shape) -> Result<Value, String> {
    if is_unavailable(json) {
        return Ok(Value::Unavailable);
    }
    if json.is_null() {
        return Ok(Value::Null);
    }
    let number = || {
        json.as_i64()
            .ok_or_else(|| format!("holds {json}, where its schema says a whole number"))
    };
    let text = || {
        json.as_str()
            .ok_or_else(|| format!("holds {json}, where its schema says text"))
    };
    let out_of_range = |error: jiff::Error| format!("holds {json}, outside the calendar: {error}");
    Ok(match shape {
        Shape::Unknown => plain(json),
        Shape::Struct(_) | Shape::List(_) => Value::Json(json.to_string()),
        Shape::Double => Value::Double(json.to_string()),
        Shape::Day => Value::Day(value::day_from_epoch(number()?)?),
        Shape::LocalMillis => Value::Local(value::local_from_epoch(SignedDuration::from_millis(number()?))?),
        Shape::LocalMicros => Value::Local(value::local_from_epoch(SignedDuration::from_micros(number()?))?),
        Shape::LocalNanos => Value::Local(value::local_from_epoch(SignedDuration::from_nanos(number()?))?),
        Shape::LocalText => local_text(text()?)?,
        Shape::InstantMillis => Value::Instant(Timestamp::from_millisecond(number()?).map_err(out_of_range)?),
        Shape::InstantMicros => Value::Instant(Timestamp::from_microsecond(number()?).map_err(out_of_range)?),
        Shape::InstantNanos => Value::Instant(Timestamp::from_nanosecond(i128::from(number()?)).map_err(out_of_range)?),
        Shape::InstantText => Value::Instant(text()?.parse().map_err(out_of_range)?),
        Shape::DayText => Value::Day(text()?.trim_end_matches('Z').parse().map_err(out_of_range)?),
        Shape::Decimal { scale } => Value::Decimal(decimal::from_bytes(&value::base64_of(text()?)?, *scale)?),
        Shape::VariableScaleDecimal => Value::Decimal(value::variable_scale(&json.to_string())?),
        Shape::Bytes => Value::Bytes(value::base64_of(text()?)?),
    })
}

fn plain(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => number
            .as_i64()
            .map_or_else(|| Value::Number(number.to_string()), Value::Int),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(_) | Json::Object(_) => Value::Json(json.to_string()),
    }
}

fn local_text(text: &str) -> Result<Value, String> {
    let not_a_time = |_| format!("holds {text:?}, which is not an ISO 8601 date and time");
    match text.parse::<Timestamp>() {
        Ok(instant) => Ok(Value::Local(TimeZone::UTC.to_datetime(instant))),
        Err(_) => text.parse().map(Value::Local).map_err(not_a_time),
    }
}

/// The placeholder as text, as bytes (its base64), or as the only element of an array or a map.
fn is_unavailable(json: &Json) -> bool {
    const AS_BYTES: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
    match json {
        Json::String(text) => text == UNAVAILABLE || text == AS_BYTES,
        Json::Array(items) => matches!(items.as_slice(), [Json::String(text)] if text == UNAVAILABLE),
        Json::Object(fields) => fields.len() == 1 && fields.contains_key(UNAVAILABLE),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}
