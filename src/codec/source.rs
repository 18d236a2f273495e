//! A record of any configured source, and what it says.
//!
//! Invariant: a record either says something, says nothing (a tombstone, a heartbeat, the start of a transaction), or is
//! refused with the reason. Only columns that the mapping names are carried on. Deliberately absent: partitions and
//! keys of what is said.

use super::change::Said;
use super::debezium::{Message, TransactionMark, decode_json};
use super::schemas::Schemas;
use super::{DecodeError, Incoming, Refused, cloudevents, fact_json};
use crate::config::{Encoding, Input, Mapping, Source, TableRole};
use crate::revenue::fact::Fact;
use crate::revenue::reference::Settings;

/// What the record says; `None` when it says nothing.
///
/// # Errors
/// `Refused`: the record goes to the dead letters. `Unavailable`: the registry is away, the record is to be read again.
pub fn read(
    schemas: &Schemas,
    source: &Source,
    settings: &Settings,
    record: &Incoming<'_>,
) -> Result<Option<Said>, DecodeError> {
    match &source.input {
        Input::Canonical => Ok(Some(Said::Fact(fact(record, settings)?))),
        Input::Debezium {
            encoding,
            table,
            mapping,
        } => {
            let message = match encoding {
                Encoding::Json => decode_json(record)?,
                Encoding::Avro => schemas.decode_debezium_avro(record)?,
            };
            Ok(said(message, *table, mapping)?)
        }
    }
}

/// The canonical event of a record: plain, or a CloudEvent, binary or structured.
pub fn fact(record: &Incoming<'_>, settings: &Settings) -> Result<Fact, Refused> {
    let event = cloudevents::canonical(record)?;
    fact_json::read(&event, settings).map_err(|unreadable| {
        let named = unreadable
            .event_id
            .map(|id| format!("event {id}: "))
            .unwrap_or_default();
        Refused::new(
            unreadable.rejection.code.as_str(),
            format!("{named}{}", unreadable.rejection),
        )
    })
}

fn said(message: Message, table: TableRole, mapping: &Mapping) -> Result<Option<Said>, Refused> {
    match (message, table) {
        (Message::Row(_), TableRole::Transaction) => Err(Refused::not_debezium(
            "a row change came on the source whose table is transaction; name the table that the topic holds",
        )),
        (Message::Row(mut change), table) => {
            let columns = mapping.columns(table);
            if let Some(after) = &mut change.after {
                after.keep(|column| columns.contains(&column));
            }
            Ok(Some(Said::Row { table, change }))
        }
        (Message::Transaction(TransactionMark::End { id, events, tables }), TableRole::Transaction) => {
            Ok(Some(Said::TransactionEnd { id, events, tables }))
        }
        (Message::Transaction(TransactionMark::Begin { .. }), TableRole::Transaction) => Ok(None),
        (Message::Transaction(_), _) => Err(Refused::not_debezium(
            "a transaction mark came on the source of a table; set the source's table to transaction",
        )),
        (Message::Tombstone { .. } | Message::Nothing, _) => Ok(None),
    }
}
