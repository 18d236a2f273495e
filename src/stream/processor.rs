//! What a stage implements, and what it may do.
//!
//! Owns: [`Processor`], and [`Context`] with which it reads and stages store writes and emits records.
//! Invariants: nothing that a processor stages is visible before the commit; when it fails on a record, all that it
//! staged for that record is taken back.
//! Absent: the log, threads, time. A processor knows its input and its stores.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::fault::Fault;
use super::overlay::Overlay;
use super::partitioner::partition_for;
use super::record::{Header, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use super::store::{Entry, StoreError, TaskStore};
use super::task::TaskId;

/// One stage of the topology, for one partition.
pub trait Processor: Send {
    /// Called once the stores are restored, before the first record: load what is kept in memory.
    fn open(&mut self, _cx: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Handles one record. [`Progress::More`] asks to be called again with the same record, after a commit if one is
    /// due: so a record with much work (a clock tick over many contracts) stays within the overlay's bound.
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure>;

    /// Called after a record that moved stream time (the greatest record timestamp of this task) on. What it stages is taken
    /// back when it fails, and nothing of the record; the dead letter is then about whatever was due.
    fn punctuate(&mut self, _stream_time: Timestamp, _cx: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Called between records, many times a second, with the machine's clock (Kafka Streams' wall-clock punctuation).
    /// For stages that wait on the world outside the log, such as a delivery's answer; a stage that decides money has
    /// its time from facts and does nothing here.
    fn tick(&mut self, _now: Timestamp, _cx: &mut Context<'_>) -> Result<(), Fault> {
        Ok(())
    }

    /// Called after a commit that carried something of this task, with the store written: everything staged so far is
    /// durable, and effects outside the log may begin here, never earlier. It may be left out: after a crash, or a commit
    /// whose outcome was unknown, a new processor gets [`Processor::open`] instead, and finds there what is still to do.
    fn committed(&mut self) {}
}

/// Whether a record is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    Done,
    More,
}

/// Why a record was not processed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The record's own fault: it goes to the dead letters and the partition goes on.
    Record(Rejected),
    /// The runtime's fault: the record is processed again.
    Fault(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Failure {
        Failure::Record(rejected)
    }
}

/// What a dead letter says about its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Stable, for counting: `snake_case`.
    pub code: String,
    /// For people: which field, which value, what to do.
    pub message: String,
}

/// A record to emit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emission {
    pub topic: Topic,
    pub route: Route,
    pub timestamp: Timestamp,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

/// Where in its topic an emitted record goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The partition that the key hashes to.
    ByKey,
    /// This partition.
    To(Partition),
    /// A copy to each partition of the topic.
    Everywhere,
}

/// What a processor may do while it handles one record.
pub struct Context<'a> {
    pub(super) task: &'a TaskId,
    pub(super) store_names: &'a [String],
    pub(super) overlay: &'a mut Overlay,
    pub(super) store: Option<&'a TaskStore>,
    pub(super) partitions: &'a BTreeMap<Topic, u32>,
    pub(super) outgoing: &'a mut Vec<Outgoing>,
    pub(super) rejected: &'a mut Vec<Rejected>,
}

impl Context<'_> {
    /// The partition that this task works on.
    pub fn partition(&self) -> Partition {
        self.task.partition
    }

    /// The value of `key` in `store`, uncommitted writes included.
    pub fn get(&self, store: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let index = self.index(store)?;
        match (self.overlay.get(index, key), self.store) {
            (Some(staged), _) => Ok(staged.clone()),
            (None, Some(committed)) => committed.get(index, key).map_err(|e| Fault::of_store(self.task, &e)),
            (None, None) => Ok(None),
        }
    }

    pub fn put(&mut self, store: &str, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Result<(), Fault> {
        let index = self.index(store)?;
        self.overlay.put(index, key.into(), Some(value));
        Ok(())
    }

    pub fn delete(&mut self, store: &str, key: impl Into<Vec<u8>>) -> Result<(), Fault> {
        let index = self.index(store)?;
        self.overlay.put(index, key.into(), None);
        Ok(())
    }

    /// Up to `limit` entries from `from` (inclusive) to `to` (exclusive) in key order, uncommitted writes included.
    pub fn range(&self, store: &str, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Entry>, Fault> {
        let index = self.index(store)?;
        if from >= to {
            return Ok(Vec::new());
        }
        let staged = self
            .overlay
            .store(index)
            .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
        let committed = match self.store {
            Some(store) => Some(
                store
                    .range(index, from, to)
                    .map_err(|e| Fault::of_store(self.task, &e))?,
            ),
            None => None,
        };
        let mut committed = committed.into_iter().flatten().peekable();
        let mut entries = Vec::new();
        for (key, value) in staged {
            while let Some(entry) = next_before(&mut committed, key).transpose() {
                if entries.len() == limit {
                    return Ok(entries);
                }
                entries.push(entry.map_err(|e| Fault::of_store(self.task, &e))?);
            }
            if entries.len() == limit {
                return Ok(entries);
            }
            if matches!(committed.peek(), Some(Ok((other, _))) if other == key) {
                committed.next();
            }
            if let Some(value) = value {
                entries.push((key.clone(), value.clone()));
            }
        }
        for entry in committed {
            if entries.len() == limit {
                break;
            }
            entries.push(entry.map_err(|e| Fault::of_store(self.task, &e))?);
        }
        Ok(entries)
    }

    /// Emits a record, to be visible with the commit.
    pub fn emit(&mut self, emission: Emission) -> Result<(), Fault> {
        let count = *self.partitions.get(&emission.topic).ok_or_else(|| {
            Fault::Fatal(format!(
                "task {} emits to {}, which its topology does not name as a sink",
                self.task, emission.topic
            ))
        })?;
        let targets = match emission.route {
            Route::ByKey => {
                let to = partition_for(emission.key.as_deref().unwrap_or_default(), count);
                to.0..to.0 + 1
            }
            Route::To(to) => to.0..to.0 + 1,
            Route::Everywhere => 0..count,
        };
        let outgoing = |to: u32, emission: Emission| Outgoing {
            to: TopicPartition::new(&emission.topic, Partition(to)),
            timestamp: emission.timestamp,
            key: emission.key,
            value: emission.value,
            headers: emission.headers,
        };
        // The last partition, nearly always the only one, gets the emission itself: a copy has a dozen allocations.
        for to in targets.start..targets.end.saturating_sub(1) {
            self.outgoing.push(outgoing(to, emission.clone()));
        }
        if let Some(last) = targets.last() {
            self.outgoing.push(outgoing(last, emission));
        }
        Ok(())
    }

    /// Sends a copy of the record at hand to the dead letters, while what was staged for it stays.
    pub fn reject(&mut self, rejected: Rejected) {
        self.rejected.push(rejected);
    }

    fn index(&self, store: &str) -> Result<usize, Fault> {
        self.store_names.iter().position(|name| name == store).ok_or_else(|| {
            Fault::Fatal(format!(
                "task {} asks for store {store}, which its topology does not give it",
                self.task
            ))
        })
    }
}

/// The next entry whose key is less than `key`.
fn next_before(
    entries: &mut Peekable<impl Iterator<Item = Result<Entry, StoreError>>>,
    key: &[u8],
) -> Result<Option<Entry>, StoreError> {
    match entries.peek() {
        Some(Ok((other, _))) if other.as_slice() < key => entries.next().transpose(),
        Some(Err(_)) => entries.next().transpose(),
        Some(Ok(_)) | None => Ok(None),
    }
}
