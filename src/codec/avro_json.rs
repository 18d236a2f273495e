//! An Avro value of another program's schema as JSON, so that Debezium's Avro takes the same path as its JSON with
//! schemas: bytes and decimals as base64, logical times as their numbers, doubles as their shortest text.
//!
//! Invariant: together with the writer's `Shape` nothing is lost. Deliberately absent: the names of unions' branches.

use apache_avro::types::Value as Avro;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Number, Value as Json};

pub(super) fn json(value: Avro) -> Json {
    match value {
        Avro::Null => Json::Null,
        Avro::Boolean(flag) => Json::Bool(flag),
        Avro::Int(number) | Avro::Date(number) | Avro::TimeMillis(number) => number.into(),
        Avro::Long(number)
        | Avro::TimeMicros(number)
        | Avro::TimestampMillis(number)
        | Avro::TimestampMicros(number)
        | Avro::TimestampNanos(number)
        | Avro::LocalTimestampMillis(number)
        | Avro::LocalTimestampMicros(number)
        | Avro::LocalTimestampNanos(number) => number.into(),
        Avro::Float(number) => shortest(format!("{number:?}")),
        Avro::Double(number) => shortest(format!("{number:?}")),
        Avro::Bytes(bytes) | Avro::Fixed(_, bytes) => BASE64.encode(bytes).into(),
        Avro::Decimal(decimal) => match <Vec<u8>>::try_from(&decimal) {
            Ok(bytes) => BASE64.encode(bytes).into(),
            Err(_) => Json::Null, // a decimal that was just read always has its bytes
        },
        Avro::BigDecimal(decimal) => decimal.to_string().into(),
        Avro::String(text) | Avro::Enum(_, text) => text.into(),
        Avro::Uuid(uuid) => uuid.to_string().into(),
        Avro::Duration(duration) => BASE64.encode(<[u8; 12]>::from(duration)).into(),
        Avro::Union(_, value) => json(*value),
        Avro::Array(items) => items.into_iter().map(json).collect(),
        Avro::Map(entries) => entries.into_iter().map(|(name, value)| (name, json(value))).collect(),
        Avro::Record(fields) => fields.into_iter().map(|(name, value)| (name, json(value))).collect(),
    }
}

/// Infinities and NaN are no JSON numbers: they stay text, which nothing takes for a number.
fn shortest(text: String) -> Json {
    match text.parse::<Number>() {
        Ok(number) => Json::Number(number),
        Err(_) => Json::String(text),
    }
}
