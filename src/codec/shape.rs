//! What a record's own schema says about its columns, whichever way the schema travels: inside a JSON record
//! (Connect's `schema`/`payload`) or as the writer's Avro schema in the registry.
//!
//! Invariant: both ways lead to the same `Shape`, so the formats of one change decode to equal rows. A schema is only
//! ever used to read more exactly; an unknown name falls back to the value as written. Deliberately absent: validation
//! against the schema.
//!
//! Names: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types> and
//! `org.apache.kafka.connect.data`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::column::column;
use super::value::{Value, base64_of};

/// How to read one JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// No schema, or one that adds nothing.
    Unknown,
    Struct(BTreeMap<String, Shape>),
    List(Box<Shape>),
    /// Days since 1970-01-01.
    Day,
    /// Milliseconds, microseconds, nanoseconds since 1970-01-01T00:00:00, without a zone.
    LocalMillis,
    LocalMicros,
    LocalNanos,
    /// ISO 8601 text without a zone; the `Z` that Debezium's `isostring` mode appends means nothing.
    LocalText,
    /// Milliseconds, microseconds, nanoseconds since 1970-01-01T00:00:00Z.
    InstantMillis,
    InstantMicros,
    InstantNanos,
    /// ISO 8601 text with an offset.
    InstantText,
    /// ISO 8601 date text.
    DayText,
    /// Base64 of unscaled bytes with this many decimals.
    Decimal {
        scale: i64,
    },
    /// `{"scale", "value"}`.
    VariableScaleDecimal,
    /// Base64.
    Bytes,
    /// A binary float or double.
    Double,
}

impl Shape {
    /// The shape of a struct's field.
    pub fn field(&self, name: &str) -> &Shape {
        match self {
            Shape::Struct(fields) => fields.get(name).unwrap_or(&Shape::Unknown),
            Shape::Unknown
            | Shape::List(_)
            | Shape::Day
            | Shape::LocalMillis
            | Shape::LocalMicros
            | Shape::LocalNanos
            | Shape::LocalText
            | Shape::InstantMillis
            | Shape::InstantMicros
            | Shape::InstantNanos
            | Shape::InstantText
            | Shape::DayText
            | Shape::Decimal { .. }
            | Shape::VariableScaleDecimal
            | Shape::Bytes
            | Shape::Double => &Shape::Unknown,
        }
    }

    /// From Connect's JSON schema.
    pub fn of_connect(schema: &Json) -> Shape {
        let text = |key| schema.get(key).and_then(Json::as_str).unwrap_or_default();
        let scale = schema
            .pointer("/parameters/scale")
            .and_then(Json::as_str)
            .and_then(|scale| scale.parse().ok());
        if let Some(shape) = named(text("name"), scale) {
            return shape;
        }
        match text("type") {
            "struct" => Shape::Struct(
                list(schema, "fields")
                    .filter_map(|field| {
                        let name = field.get("field")?.as_str()?;
                        Some((name.to_string(), Shape::of_connect(field)))
                    })
                    .collect(),
            ),
            "array" => Shape::List(Box::new(schema.get("items").map_or(Shape::Unknown, Shape::of_connect))),
            "bytes" => Shape::Bytes,
            "float" | "double" => Shape::Double,
            _ => Shape::Unknown,
        }
    }

    /// A value for people to read: decimals as text, days and times in ISO 8601, bytes as text where they are text.
    /// What does not fit its shape stays as it is.
    pub fn for_people(&self, json: Json) -> Json {
        match (self, json) {
            (Shape::Struct(_), Json::Object(fields)) => fields
                .into_iter()
                .map(|(name, value)| (name.clone(), self.field(&name).for_people(value)))
                .collect(),
            (Shape::List(items), Json::Array(values)) => {
                values.into_iter().map(|value| items.for_people(value)).collect()
            }
            (Shape::Bytes, Json::String(text)) => {
                let bytes = base64_of(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                Json::String(bytes.unwrap_or(text))
            }
            (_, json) => match column(&json, self) {
                Ok(Value::Decimal(number)) => number.to_string().into(),
                Ok(Value::Day(day)) => day.to_string().into(),
                Ok(Value::Local(local)) => local.to_string().into(),
                Ok(Value::Instant(instant)) => instant.to_string().into(),
                Ok(
                    Value::Null
                    | Value::Unavailable
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::Number(_)
                    | Value::Double(_)
                    | Value::Text(_)
                    | Value::Bytes(_)
                    | Value::Json(_),
                )
                | Err(_) => json,
            },
        }
    }

    /// From a writer's Avro schema: the JSON text is walked because `connect.name` on a primitive is not kept by the
    /// Avro library.
    pub fn of_avro(schema: &Json) -> Shape {
        Avro::default().shape(schema, "")
    }
}

fn named(name: &str, scale: Option<i64>) -> Option<Shape> {
    Some(match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Shape::Day,
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Shape::LocalMillis,
        "io.debezium.time.MicroTimestamp" => Shape::LocalMicros,
        "io.debezium.time.NanoTimestamp" => Shape::LocalNanos,
        "io.debezium.time.ZonedTimestamp" => Shape::InstantText,
        "io.debezium.time.IsoTimestamp" => Shape::LocalText,
        "io.debezium.time.IsoDate" => Shape::DayText,
        "io.debezium.data.VariableScaleDecimal" => Shape::VariableScaleDecimal,
        "org.apache.kafka.connect.data.Decimal" => Shape::Decimal { scale: scale? },
        _ => return None,
    })
}

fn list<'a>(schema: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    schema.get(key).and_then(Json::as_array).into_iter().flatten()
}

/// A walk through an Avro schema; named types are remembered by full name.
#[derive(Default)]
struct Avro {
    known: BTreeMap<String, Shape>,
}

impl Avro {
    fn shape(&mut self, schema: &Json, namespace: &str) -> Shape {
        match schema {
            Json::String(name) => self.reference(name, namespace),
            Json::Array(branches) => self.nullable(branches, namespace),
            Json::Object(_) => self.object(schema, namespace),
            Json::Null | Json::Bool(_) | Json::Number(_) => Shape::Unknown,
        }
    }

    fn reference(&self, name: &str, namespace: &str) -> Shape {
        match name {
            "bytes" => Shape::Bytes,
            "float" | "double" => Shape::Double,
            _ => self
                .known
                .get(&full_name(name, namespace))
                .cloned()
                .unwrap_or(Shape::Unknown),
        }
    }

    /// `["null", T]` in either order is T; a wider union says nothing of which branch a value takes.
    fn nullable(&mut self, branches: &[Json], namespace: &str) -> Shape {
        let shapes: Vec<Shape> = branches
            .iter()
            .filter(|branch| branch.as_str() != Some("null"))
            .map(|branch| self.shape(branch, namespace))
            .collect();
        match <[Shape; 1]>::try_from(shapes) {
            Ok([only]) => only,
            Err(_) => Shape::Unknown,
        }
    }

    fn object(&mut self, schema: &Json, namespace: &str) -> Shape {
        let text = |key| schema.get(key).and_then(Json::as_str).unwrap_or_default();
        let kind = text("type");
        let scale = schema.get("scale").map_or(Some(0), Json::as_i64);
        if let Some(shape) = named(text("connect.name"), scale) {
            // A named record (VariableScaleDecimal) is written once and then only referred to.
            self.remember(schema, namespace, &shape);
            return shape;
        }
        match text("logicalType") {
            "date" => return Shape::Day,
            "timestamp-millis" => return Shape::InstantMillis,
            "timestamp-micros" => return Shape::InstantMicros,
            "timestamp-nanos" => return Shape::InstantNanos,
            "local-timestamp-millis" => return Shape::LocalMillis,
            "local-timestamp-micros" => return Shape::LocalMicros,
            "local-timestamp-nanos" => return Shape::LocalNanos,
            "decimal" => return scale.map_or(Shape::Unknown, |scale| Shape::Decimal { scale }),
            _ => {}
        }
        match kind {
            "record" => {
                let name = full_name(
                    text("name"),
                    schema.get("namespace").and_then(Json::as_str).unwrap_or(namespace),
                );
                let inner = name.rsplit_once('.').map_or("", |(space, _)| space).to_string();
                let fields = list(schema, "fields")
                    .filter_map(|field| {
                        let name = field.get("name")?.as_str()?;
                        Some((name.to_string(), self.shape(field.get("type")?, &inner)))
                    })
                    .collect();
                let shape = Shape::Struct(fields);
                self.known.insert(name, shape.clone());
                shape
            }
            "fixed" => Shape::Bytes,
            "array" => match schema.get("items") {
                Some(items) => Shape::List(Box::new(self.shape(items, namespace))),
                None => Shape::Unknown,
            },
            "map" | "enum" | "" => Shape::Unknown,
            primitive => self.reference(primitive, namespace),
        }
    }

    fn remember(&mut self, schema: &Json, namespace: &str, shape: &Shape) {
        if let Some(name) = schema.get("name").and_then(Json::as_str) {
            let space = schema.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
            self.known.insert(full_name(name, space), shape.clone());
        }
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_string()
    } else {
        format!("{namespace}.{name}")
    }
}
