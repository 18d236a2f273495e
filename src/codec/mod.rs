//! The codec room: the only place that serializes. Bytes come in and become types of `revenue` or rows of a CRM; types
//! go out and become bytes.
//!
//! Invariants: decoding never panics and never rounds; the same value always encodes to the same bytes; bytes written
//! by an older version still decode. Deliberately absent: decisions. Nothing here knows what a deal means.
//!
//! Reading order:
//! - `value`, `decimal`, `position`: what a row change holds; `shape`, `column`, `debezium`: how it is
//!   read off a record.
//! - `source`: any input record to what it says; `fact_json`, `cloudevents`: the canonical event; `trace`: W3C trace context.
//! - `avro`: the binary form of Avro; `registry`: schema ids; `schemas`: our topics' schemas, on the Confluent wire.
//! - `wire`, `names`: amounts, days, instants and words as Avro sees them; `facts`, `change`, `outputs`, `dead_letter`:
//!   our topics; `stored`, `contract_store`, `crm_store`: stored state.
//! - `delivery`, `delivery_command`, `delivery_manifest`, `receipt`: what a sink stores, hears and leaves behind.
//! - `replay`: the document of `accrue books replay`.
//! - `ledger`, `export`: one line, and the whole journal, for other ledgers.

mod avro;
mod avro_json;
mod cell;
pub mod change;
pub mod cloudevents;
mod column;
pub mod contract_store;
pub mod crm_store;
pub mod dead_letter;
pub mod debezium;
pub mod decimal;
pub mod delivery;
pub mod delivery_command;
pub mod delivery_manifest;
pub mod export;
pub mod fact_json;
pub mod facts;
pub mod ledger;
mod names;
pub mod outputs;
pub mod position;
pub mod receipt;
pub mod registry;
pub mod replay;
pub mod schemas;
mod shape;
pub mod source;
mod stored;
pub mod trace;
pub mod value;
mod wire;

/// A record as it was read, borrowed from whoever read it.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    pub topic: &'a str,
    pub partition: u32,
    pub offset: u64,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names may repeat; the last one counts, as in Kafka's `lastHeader`.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Incoming<'a> {
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }
}

/// A record that no retry will make readable: it goes to the dead letters with this code and message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Stable, for counting: `not_json`, `not_debezium`, `not_avro`, `unknown_schema`, `bad_column`, `bad_event`,
    /// `bad_store`, `unencodable`; for a canonical event, a code of `revenue::reject`.
    pub code: &'static str,
    pub message: String,
}

/// Why a record was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The registry did not answer: the record is as good as before, try again.
    #[error("schema registry unavailable: {0}")]
    Unavailable(String),
}

impl Refused {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused {
            code,
            message: message.into(),
        }
    }

    fn not_debezium(message: &str) -> Refused {
        Refused::new("not_debezium", message)
    }

    fn not_json(part: &str, bytes: &[u8], error: &serde_json::Error) -> Refused {
        let hint = if bytes.first() == Some(&schemas::MAGIC) {
            "; it looks like Avro on the Confluent wire: set the source's format to debezium-avro"
        } else {
            ""
        };
        Refused::new("not_json", format!("the {part} is not JSON: {error}{hint}"))
    }
}
