//! Reading what sinks have written, from outside: documents on their way, receipts, the ends of chains.
//!
//! Owns: nothing; it reads topics to the end they have when asked. Invariant: only committed records are seen.

use std::collections::BTreeMap;

use super::application::changelog;
use super::receipt::ChainName;
use super::store::Row;
use crate::codec::delivery::{self, ChainRow, GroupRow, Stored};
use crate::codec::receipt::Receipt;
use crate::codec::schemas::Schemas;
use crate::config::{Sink, Topology};
use crate::revenue::journal::JournalEntry;
use crate::stream::log::{Log, LogError, read_topic};
use crate::stream::record::{Partition, Record, Topic};

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("there is no topic {0}; run `accrue apply`, then the sink")]
    NoTopic(Topic),
    #[error("{place}: {message}")]
    Unreadable { place: String, message: String },
}

/// Hands each record of a topic to `take`, partition by partition, in order.
pub fn each(log: &dyn Log, topic: &Topic, take: impl FnMut(Record) -> Result<(), ReadError>) -> Result<(), ReadError> {
    match read_topic(log, topic, take)? {
        true => Ok(()),
        false => Err(ReadError::NoTopic(topic.clone())),
    }
}

/// Every receipt, chain by chain in order.
pub fn receipts(
    log: &dyn Log,
    topology: &Topology,
    schemas: &Schemas,
    mut take: impl FnMut(Receipt) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let topic = Topic::new(topology.outputs.receipts.as_str());
    each(log, &topic, |record| {
        let Some(value) = &record.value else {
            return Ok(());
        };
        match schemas.decode_receipt(value) {
            Ok(receipt) => take(receipt),
            Err(error) => Err(unreadable(&record, &error.to_string())),
        }
    })
}

/// A document on its way, or a summary that is being gathered.
pub struct Waiting {
    pub partition: Partition,
    pub row: Row,
    pub entries: Vec<JournalEntry>,
}

/// What a sink's store holds.
#[derive(Default)]
pub struct Holdings {
    /// In the order in which they are written, deal by deal.
    pub waiting: Vec<Waiting>,
    pub gathering: Vec<(Partition, GroupRow)>,
    pub chains: BTreeMap<ChainName, ChainRow>,
}

/// What a sink's store holds, from its changelog.
pub fn holdings(log: &dyn Log, topology: &Topology, sink: &Sink) -> Result<Holdings, ReadError> {
    let mut kept: BTreeMap<(Partition, Vec<u8>), Vec<u8>> = BTreeMap::new();
    each(log, &changelog(topology, sink), |record| {
        let (Some(key), partition) = (record.key, record.at.partition) else {
            return Ok(());
        };
        // What became of settled documents is most of it, and not asked for here.
        if key.starts_with(b"d\0") {
            return Ok(());
        }
        match record.value {
            Some(value) => kept.insert((partition, key), value),
            None => kept.remove(&(partition, key)),
        };
        Ok(())
    })?;
    let mut holdings = Holdings::default();
    let mut entries: BTreeMap<(Partition, String), Vec<JournalEntry>> = BTreeMap::new();
    for ((partition, key), value) in kept {
        let bad = |message: String| ReadError::Unreadable {
            place: format!("store of {}, partition {partition}", sink.name),
            message,
        };
        match delivery::decode(&value).map_err(|refused| bad(refused.to_string()))? {
            Stored::Delivery(row) => holdings.waiting.push(Waiting {
                partition,
                row: Row::decoded(*row).map_err(bad)?,
                entries: Vec::new(),
            }),
            Stored::Entry(entry) => {
                let of = key.get(2..key.len().saturating_sub(9)).unwrap_or_default();
                let of = String::from_utf8_lossy(of).into_owned();
                entries.entry((partition, of)).or_default().push(*entry);
            }
            Stored::Group(row) => holdings.gathering.push((partition, row)),
            Stored::Chain(row) => {
                holdings
                    .chains
                    .insert((sink.name.as_str().to_owned(), partition.0), row);
            }
            Stored::Placed(_) | Stored::Done(_) | Stored::Sequence(_) | Stored::Books(_) => {}
        }
    }
    for waiting in &mut holdings.waiting {
        let of = (waiting.partition, waiting.row.source.clone());
        waiting.entries = entries.remove(&of).unwrap_or_default();
    }
    Ok(holdings)
}

fn unreadable(record: &Record, message: &str) -> ReadError {
    ReadError::Unreadable {
        place: format!("{} offset {}", record.at, record.offset),
        message: message.to_owned(),
    }
}
