//! Records of sources that come again: what recognises them.
//!
//! A fact is recognised by its event id, in the store `contract`; a row by its position in its database's log, in the store
//! `crm`. A row without a position is taken for the newest state of what it is about.

use super::emit::incoming;
use crate::codec::DecodeError;
use crate::codec::change::Said;
use crate::codec::schemas::Schemas;
use crate::codec::source;
use crate::config::Topology;
use crate::stream::record::Record;

/// Why a record of a source that was processed before would not be recognised; `None` where it is, where it says nothing,
/// and where it is a dead letter, which it would be again.
///
/// # Errors
/// The registry is away.
pub fn unrecognised(topology: &Topology, schemas: &Schemas, record: &Record) -> Result<Option<String>, String> {
    let source = topology
        .sources
        .iter()
        .find(|source| source.topic.as_str() == record.at.topic.as_str());
    let Some(source) = source else {
        return Ok(Some("no source of the topology".to_owned()));
    };
    let said = incoming(record, |record| {
        source::read(schemas, source, topology.settings(), record)
    });
    match said {
        Ok(Some(Said::Row { change, .. })) if change.position.log.is_none() => Ok(Some(
            "a row without a position in its database's log (Debezium's source block; for flattened records, add.fields): it would be taken for newer than what came after it".to_owned(),
        )),
        Ok(_) | Err(DecodeError::Refused(_)) => Ok(None),
        Err(DecodeError::Unavailable(why)) => Err(format!("schema registry: {why}")),
    }
}
