//! The schema registry: which schema an id stands for, and which schemas a topic may carry.
//!
//! Invariant: an id names one schema for ever; registering the same schema again returns the same id. Two
//! implementations: `confluent` (any server with the Confluent REST API) and `embedded` (a folder of JSON files).
//! Deliberately absent: caching, which is `readers`'; schema references; protobuf and JSON Schema.
//!
//! Source: <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>.

pub mod confluent;
pub mod embedded;
pub mod serve;

use std::fmt;
use std::str::FromStr;

pub use confluent::Confluent;
pub use embedded::Embedded;

/// Every method blocks: callers are OS threads, never async tasks.
pub trait Registry: Send + Sync {
    /// The id of `schema` under `subject`; a new version if the subject does not have it and its compatibility allows.
    fn register(&self, subject: &Subject, schema: &str) -> Result<SchemaId, RegistryError>;

    /// The id `schema` already has under `subject`; `None` when it is not registered there.
    fn lookup(&self, subject: &Subject, schema: &str) -> Result<Option<SchemaId>, RegistryError>;

    /// The JSON text of the schema that `id` names.
    fn schema(&self, id: SchemaId) -> Result<String, RegistryError>;

    /// Whether `schema` could be registered under `subject`; `Err(Incompatible)` says why not.
    fn check(&self, subject: &Subject, schema: &str) -> Result<(), RegistryError>;

    fn set_compatibility(&self, subject: &Subject, level: Compatibility) -> Result<(), RegistryError>;
}

/// The number in the four bytes after the magic byte of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u32);

/// A registry subject: by `TopicNameStrategy`, `<topic>-value`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

/// Which earlier versions a new version must be able to read (backward) or be read by (forward).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    None,
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Try again later: the registry did not answer, or answered that it cannot now.
    #[error("schema registry unavailable: {0}")]
    Unavailable(String),
    /// The registry answered that there is no such id: no retry will find it.
    #[error("schema id {} is unknown to the registry; was the record written against another registry?", .0.0)]
    UnknownSchema(SchemaId),
    /// The registry answered with a schema of another kind: no retry will make it Avro.
    #[error("schema id {} is {kind}, not Avro; set the connector's converters to Avro", .id.0)]
    NotAvro { id: SchemaId, kind: String },
    /// The new schema breaks the subject's compatibility: change the schema.
    #[error("schema refused for subject {subject}: {reason}")]
    Incompatible { subject: Subject, reason: String },
    /// The registry refuses us or the request: change the configuration.
    #[error("schema registry refused: {0}")]
    Refused(String),
}

impl Subject {
    pub fn value_of(topic: &str) -> Subject {
        Subject(format!("{topic}-value"))
    }

    pub fn new(name: impl Into<String>) -> Subject {
        Subject(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Compatibility {
    pub const ALL: [Compatibility; 7] = [
        Compatibility::None,
        Compatibility::Backward,
        Compatibility::BackwardTransitive,
        Compatibility::Forward,
        Compatibility::ForwardTransitive,
        Compatibility::Full,
        Compatibility::FullTransitive,
    ];

    /// The name the REST API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Compatibility::None => "NONE",
            Compatibility::Backward => "BACKWARD",
            Compatibility::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Compatibility::Forward => "FORWARD",
            Compatibility::ForwardTransitive => "FORWARD_TRANSITIVE",
            Compatibility::Full => "FULL",
            Compatibility::FullTransitive => "FULL_TRANSITIVE",
        }
    }
}

impl FromStr for Compatibility {
    type Err = String;

    fn from_str(name: &str) -> Result<Compatibility, String> {
        Compatibility::ALL
            .into_iter()
            .find(|level| level.as_str() == name)
            .ok_or_else(|| {
                let names = Compatibility::ALL.map(Compatibility::as_str).join(", ");
                format!("compatibility {name:?} is not one of {names}")
            })
    }
}
