//! The binary form of Avro, to and from serde: <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>.
//!
//! A schema becomes a [`Plan`], and a struct is written and read along it, field by field. The Avro library parses schemas
//! and reads what has no struct of ours; for each field of each record, it looks the name up, and it is ten times as slow.
//!
//! Invariants: what is written are the bytes that the library would write; a struct whose fields are not those of the
//! schema, in their order, is an error and never bytes. Reading trusts nothing: a length is at most what is left, a number of
//! items too (so arrays of items without bytes, which Avro allows, are not read). Deliberately absent: kinds that none of our
//! structs has (maps, enums, floats), except to read over them where another version of a schema has them.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

pub(super) use read::read;
pub(super) use write::write;

/// A schema, laid out for one walk from its start to its end. Logical types are the types they are written as.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    /// So many bytes.
    Fixed(usize),
    /// The words, by their number.
    Enum(Arc<[String]>),
    Array(Arc<Plan>),
    Map(Arc<Plan>),
    /// `["null", T]`: every union of ours.
    Optional(Arc<Plan>),
    Union(Arc<[Plan]>),
    Record(Arc<Record>),
    /// A schema within itself, whose data could be nested without end.
    Endless,
}

#[derive(Debug)]
pub(super) struct Record {
    fields: Box<[Field]>,
    /// The names of the first struct that was found to have these fields, so that they are compared once.
    names: OnceLock<&'static [&'static str]>,
}

#[derive(Debug)]
struct Field {
    name: String,
    /// The name of the first struct's field that was found to be the same, so that it is compared once.
    found: OnceLock<&'static str>,
    plan: Plan,
}

impl Field {
    /// Whether a struct's field is this one.
    fn is(&self, name: &'static str) -> bool {
        if self.found.get().is_some_and(|found| std::ptr::eq(*found, name)) {
            return true;
        }
        let same = self.name == name;
        if same {
            self.found.get_or_init(|| name);
        }
        same
    }
}

impl Record {
    /// Whether a struct of these fields has those of the record, in their order.
    fn is(&self, names: &'static [&'static str]) -> bool {
        if self.names.get().is_some_and(|known| std::ptr::eq(*known, names)) {
            return true;
        }
        let same = self
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .eq(names.iter().copied());
        if same {
            self.names.get_or_init(|| names);
        }
        same
    }
}

impl Plan {
    pub(super) fn of(schema: &Schema) -> Plan {
        Plan::within(schema, &mut HashMap::new())
    }

    /// `known` are the named schemas that came before.
    fn within(schema: &Schema, known: &mut HashMap<Name, Plan>) -> Plan {
        let (name, plan) = match schema {
            Schema::Null => return Plan::Null,
            Schema::Boolean => return Plan::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => return Plan::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => return Plan::Long,
            Schema::Float => return Plan::Float,
            Schema::Double => return Plan::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => return Plan::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => return Plan::Text,
            Schema::Array(of) => return Plan::Array(Arc::new(Plan::within(&of.items, known))),
            Schema::Map(of) => return Plan::Map(Arc::new(Plan::within(&of.types, known))),
            Schema::Union(of) => {
                return match of.variants() {
                    [Schema::Null, some] => Plan::Optional(Arc::new(Plan::within(some, known))),
                    variants => Plan::Union(variants.iter().map(|of| Plan::within(of, known)).collect()),
                };
            }
            Schema::Decimal(of) => match &of.inner {
                InnerDecimalSchema::Bytes => return Plan::Bytes,
                InnerDecimalSchema::Fixed(of) => (&of.name, Plan::Fixed(of.size)),
            },
            Schema::Fixed(of) | Schema::Duration(of) | Schema::Uuid(UuidSchema::Fixed(of)) => {
                (&of.name, Plan::Fixed(of.size))
            }
            Schema::Enum(of) => (&of.name, Plan::Enum(of.symbols.clone().into())),
            Schema::Record(of) => {
                known.insert(of.name.clone(), Plan::Endless);
                let fields = of.fields.iter().map(|field| Field {
                    name: field.name.clone(),
                    found: OnceLock::new(),
                    plan: Plan::within(&field.schema, known),
                });
                let record = Record {
                    fields: fields.collect(),
                    names: OnceLock::new(),
                };
                (&of.name, Plan::Record(Arc::new(record)))
            }
            Schema::Ref { name } => return known.get(name).cloned().unwrap_or(Plan::Endless),
        };
        known.insert(name.clone(), plan.clone());
        plan
    }

    /// Whether it has a schema within itself.
    pub(super) fn is_endless(&self) -> bool {
        self.has_endless(&mut HashSet::new())
    }

    /// `seen` are the records that were looked into: one may stand in many places.
    fn has_endless(&self, seen: &mut HashSet<*const Record>) -> bool {
        match self {
            Plan::Endless => true,
            Plan::Array(of) | Plan::Map(of) | Plan::Optional(of) => of.has_endless(seen),
            Plan::Union(branches) => branches.iter().any(|of| of.has_endless(seen)),
            Plan::Record(record) => {
                seen.insert(Arc::as_ptr(record)) && record.fields.iter().any(|field| field.plan.has_endless(seen))
            }
            Plan::Null
            | Plan::Boolean
            | Plan::Int
            | Plan::Long
            | Plan::Float
            | Plan::Double
            | Plan::Bytes
            | Plan::Text
            | Plan::Fixed(_)
            | Plan::Enum(_) => false,
        }
    }

    /// For messages.
    fn kind(&self) -> &'static str {
        match self {
            Plan::Null => "null",
            Plan::Boolean => "a boolean",
            Plan::Int => "an int",
            Plan::Long => "a long",
            Plan::Float => "a float",
            Plan::Double => "a double",
            Plan::Bytes => "bytes",
            Plan::Text => "a string",
            Plan::Fixed(_) => "a fixed",
            Plan::Enum(_) => "an enum",
            Plan::Array(_) => "an array",
            Plan::Map(_) => "a map",
            Plan::Optional(_) | Plan::Union(_) => "a union",
            Plan::Record(_) => "a record",
            Plan::Endless => "a schema within itself",
        }
    }
}

/// Why bytes or a struct do not fit a plan, and in which field.
#[derive(Debug)]
pub(super) struct Misfit(Box<(String, String)>);

impl Misfit {
    fn new(words: impl fmt::Display) -> Misfit {
        Misfit(Box::new((String::new(), words.to_string())))
    }

    fn within(mut self, field: &str) -> Misfit {
        let path = &mut self.0.0;
        *path = match path.as_str() {
            "" => field.to_string(),
            inner => format!("{field}.{inner}"),
        };
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.0.as_str(), self.0.1.as_str()) {
            ("", words) => f.write_str(words),
            (path, words) => write!(f, "{path}: {words}"),
        }
    }
}

impl std::error::Error for Misfit {}

impl serde::ser::Error for Misfit {
    fn custom<T: fmt::Display>(words: T) -> Misfit {
        Misfit::new(words)
    }
}

impl serde::de::Error for Misfit {
    fn custom<T: fmt::Display>(words: T) -> Misfit {
        Misfit::new(words)
    }
}
