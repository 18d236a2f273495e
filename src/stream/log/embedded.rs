//! The log in one process, durable, on RocksDB: the quick start and small installations.
//!
//! Owns: the layout of topics, records, group offsets and producer epochs in one database; group membership among
//! the consumers of this process.
//! Invariants: a transaction is one write batch (records, ends, group offsets), so it is whole or absent after a crash;
//! nothing uncommitted is ever stored, so every reader is read_committed; a second process is refused by RocksDB's lock.
//! Absent: a network, replication, idle-member timeouts (a member leaves when it is dropped).

mod bytes;
mod consumer;
mod producer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocksdb::{ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};

use self::bytes::{Cut, bounds_key, bounds_value, corrupt, decode, offset_key, record_key, topic_key, topic_value};
use self::consumer::{EmbeddedConsumer, Group};
use self::producer::EmbeddedProducer;
use super::{
    Cleanup, Consumer, GroupSpec, Log, LogError, LogErrorKind, Positions, Producer, Reader, TopicFound, TopicSpec,
};
use crate::stream::record::{Offset, Partition, Record, Timestamp, Topic, TopicPartition};
use crate::stream::store::StoreError;

/// Records of one partition that one poll or read hands out at most.
const MAX_FETCH_RECORDS: usize = 1_000;
/// Commits between two looks for what compaction and retention may drop.
const COMMITS_PER_UPKEEP: u64 = 1_000;

/// `t` + topic: number, partitions, cleanup. `o` + group + topic + partition: committed offset. `p` + transactional id:
/// epoch. `e` + topic number + partition: start and end offset.
const META: &str = "meta";
/// Topic number, partition, offset, all big-endian: one record each.
const RECORDS: &str = "records";

/// A handle; clones share one database.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Shared>);

struct Shared {
    db: DB,
    /// Whether a commit waits until the disk has it (survives power loss, not only a crash of the process).
    sync: bool,
    state: Mutex<State>,
    /// Rung at every commit and every change of a group.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Topic, TopicState>,
    epochs: HashMap<String, u64>,
    groups: HashMap<String, Group>,
    commits: u64,
    next_member: u64,
}

#[derive(Clone)]
struct TopicState {
    number: u32,
    cleanup: Cleanup,
    /// Start and end of each partition.
    bounds: Vec<(Offset, Offset)>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, creating it when it is missing.
    pub fn open(dir: &Path, sync: bool) -> Result<EmbeddedLog, LogError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_total_wal_size(64 << 20);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        let families = [META, RECORDS].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = DB::open_cf_descriptors(&options, dir, families).map_err(|error| {
            let error = StoreError::from(error);
            let hint = if error.is_held() {
                "; another process has it open: stop that one first"
            } else {
                ""
            };
            LogError::fatal(format!(
                "the embedded log in {} cannot be opened: {error}{hint}",
                dir.display()
            ))
        })?;
        let log = EmbeddedLog(Arc::new(Shared {
            db,
            sync,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }));
        log.0.load()?;
        let mut state = log.0.lock();
        log.0.upkeep(&mut state)?;
        drop(state);
        Ok(log)
    }

    /// Every topic with its partitions' start and end.
    pub fn topics(&self) -> Vec<(Topic, Vec<(Offset, Offset)>)> {
        self.0
            .lock()
            .topics
            .iter()
            .map(|(topic, state)| (topic.clone(), state.bounds.clone()))
            .collect()
    }

    /// Drops what compaction and retention allow, now. Runs by itself when opened and every
    /// thousand commits.
    pub fn upkeep(&self) -> Result<(), LogError> {
        let mut state = self.0.lock();
        self.0.upkeep(&mut state)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn family(&self, name: &str) -> Result<&rocksdb::ColumnFamily, LogError> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| LogError::fatal(format!("the embedded log has no family {name}")))
    }

    fn load(&self) -> Result<(), LogError> {
        let mut state = self.lock();
        let meta = self.family(META)?;
        for item in self.db.iterator_cf(meta, IteratorMode::From(b"t", Direction::Forward)) {
            let (key, value) = item.map_err(storage)?;
            let Some(name) = key.strip_prefix(b"t") else {
                break;
            };
            let name = std::str::from_utf8(name).map_err(|_| corrupt("topic name"))?;
            let mut at = Cut(&value);
            let number = at.u32()?;
            let partitions = at.u32()?;
            let cleanup = match at.u64()? {
                u64::MAX => Cleanup::Compact,
                0 => Cleanup::Delete { retention: None },
                ms => Cleanup::Delete {
                    retention: Some(Duration::from_millis(ms)),
                },
            };
            let mut bounds = Vec::with_capacity(partitions as usize);
            for n in 0..partitions {
                let stored = self.db.get_cf(meta, bounds_key(number, n)).map_err(storage)?;
                bounds.push(match stored {
                    None => (Offset(0), Offset(0)),
                    Some(bytes) => {
                        let mut at = Cut(&bytes);
                        (Offset(at.u64()?), Offset(at.u64()?))
                    }
                });
            }
            state.topics.insert(
                Topic::new(name),
                TopicState {
                    number,
                    cleanup,
                    bounds,
                },
            );
        }
        Ok(())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        self.db.write_opt(batch, &options).map_err(storage)
    }

    /// Up to `limit` records from `from` on, and the offset up to which the partition was looked at.
    fn fetch(
        &self,
        number: u32,
        at: &TopicPartition,
        from: Offset,
        end: Offset,
        limit: usize,
    ) -> Result<(Vec<Record>, Offset), LogError> {
        let mut records = Vec::new();
        if from >= end {
            return Ok((records, from));
        }
        let first = record_key(number, at.partition.0, from.0);
        let family = self.family(RECORDS)?;
        for item in self
            .db
            .iterator_cf(family, IteratorMode::From(&first, Direction::Forward))
        {
            let (key, value) = item.map_err(storage)?;
            if key.len() != 16 || key[..8] != first[..8] {
                break;
            }
            let offset = Cut(&key[8..]).u64()?;
            if offset >= end.0 {
                break;
            }
            if records.len() == limit {
                return Ok((records, Offset(offset)));
            }
            records.push(decode(at, Offset(offset), &value)?);
        }
        Ok((records, end))
    }

    fn offset_of(&self, group: &str, at: &TopicPartition) -> Result<Option<Offset>, LogError> {
        let stored = self
            .db
            .get_cf(self.family(META)?, offset_key(group, at))
            .map_err(storage)?;
        stored.map(|bytes| Cut(&bytes).u64().map(Offset)).transpose()
    }

    fn upkeep(&self, state: &mut State) -> Result<(), LogError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        for (topic, kept) in &mut state.topics {
            for n in 0..kept.bounds.len() {
                let at = TopicPartition::new(topic, Partition(n as u32));
                match kept.cleanup {
                    Cleanup::Compact => self.compact(kept, &at)?,
                    Cleanup::Delete { retention: None } => {}
                    Cleanup::Delete { retention: Some(keep) } => {
                        self.expire(kept, &at, now - keep.as_millis() as i64)?
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes each record that a later one of the same key replaces. Offsets stay as they are; gaps are normal.
    fn compact(&self, kept: &TopicState, at: &TopicPartition) -> Result<(), LogError> {
        let (start, end) = kept.bounds[at.partition.0 as usize];
        let mut latest: HashMap<Vec<u8>, Offset> = HashMap::new();
        let mut batch = WriteBatch::default();
        let family = self.family(RECORDS)?;
        let mut from = start;
        while from < end {
            let (records, next) = self.fetch(kept.number, at, from, end, MAX_FETCH_RECORDS)?;
            for record in records {
                let Some(key) = record.key else { continue };
                if let Some(old) = latest.insert(key, record.offset) {
                    batch.delete_cf(family, record_key(kept.number, at.partition.0, old.0));
                }
            }
            from = next;
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.write(batch)
    }

    /// Deletes from the front what is older than `before` (milliseconds since 1970).
    fn expire(&self, kept: &mut TopicState, at: &TopicPartition, before: i64) -> Result<(), LogError> {
        let (start, end) = kept.bounds[at.partition.0 as usize];
        let mut from = start;
        let mut fresh = None;
        while from < end && fresh.is_none() {
            let (records, next) = self.fetch(kept.number, at, from, end, MAX_FETCH_RECORDS)?;
            fresh = records.iter().find(|r| r.timestamp.0 >= before).map(|r| r.offset);
            from = next;
        }
        let first_kept = fresh.unwrap_or(end);
        if first_kept == start {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        let n = at.partition.0;
        batch.delete_range_cf(
            self.family(RECORDS)?,
            record_key(kept.number, n, start.0),
            record_key(kept.number, n, first_kept.0),
        );
        batch.put_cf(
            self.family(META)?,
            bounds_key(kept.number, n),
            bounds_value(first_kept, end),
        );
        self.write(batch)?;
        kept.bounds[n as usize] = (first_kept, end);
        Ok(())
    }
}

impl Log for EmbeddedLog {
    fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicFound>, LogError> {
        let mut state = self.0.lock();
        let mut batch = WriteBatch::default();
        let mut found = Vec::with_capacity(specs.len());
        for spec in specs {
            if let Some(known) = state.topics.get(&spec.topic) {
                found.push(TopicFound {
                    topic: spec.topic.clone(),
                    partitions: known.bounds.len() as u32,
                    created: false,
                });
                continue;
            }
            let number = state.topics.values().map(|t| t.number + 1).max().unwrap_or(0);
            let value = topic_value(number, spec.partitions, spec.cleanup);
            batch.put_cf(self.0.family(META)?, topic_key(&spec.topic), value);
            state.topics.insert(
                spec.topic.clone(),
                TopicState {
                    number,
                    cleanup: spec.cleanup,
                    bounds: vec![(Offset(0), Offset(0)); spec.partitions as usize],
                },
            );
            found.push(TopicFound {
                topic: spec.topic.clone(),
                partitions: spec.partitions,
                created: true,
            });
        }
        self.0.write(batch)?;
        self.0.changed.notify_all();
        Ok(found)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, LogError> {
        Ok(self.0.lock().topics.get(topic).map(|t| t.bounds.len() as u32))
    }

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let mut state = self.0.lock();
        state.next_member += 1;
        let member = state.next_member;
        let joined = state.groups.entry(group.group.clone()).or_default();
        joined.members.insert(member, group.topics.iter().cloned().collect());
        self.0.changed.notify_all();
        Ok(Box::new(EmbeddedConsumer {
            log: self.clone(),
            group: group.group.clone(),
            member,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            announced: BTreeSet::new(),
        }))
    }

    fn producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>, LogError> {
        let mut state = self.0.lock();
        let mut key = b"p".to_vec();
        key.extend_from_slice(transactional_id.as_bytes());
        let meta = self.0.family(META)?;
        let last = match state.epochs.get(transactional_id) {
            Some(epoch) => *epoch,
            None => match self.0.db.get_cf(meta, &key).map_err(storage)? {
                Some(bytes) => Cut(&bytes).u64()?,
                None => 0,
            },
        };
        let epoch = last + 1;
        let mut batch = WriteBatch::default();
        batch.put_cf(meta, key, epoch.to_be_bytes());
        self.0.write(batch)?;
        state.epochs.insert(transactional_id.to_owned(), epoch);
        Ok(Box::new(EmbeddedProducer {
            log: self.clone(),
            id: transactional_id.to_owned(),
            epoch,
            open: None,
        }))
    }

    fn reader(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(EmbeddedReader {
            log: self.clone(),
            at: at.clone(),
            next: from,
        }))
    }

    fn end(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        bounds(&self.0.lock(), at).map(|(_, _, end)| end)
    }

    fn start(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        bounds(&self.0.lock(), at).map(|(_, start, _)| start)
    }

    fn committed(&self, group: &str, of: &[TopicPartition]) -> Result<Positions, LogError> {
        let mut found = Positions::new();
        for at in of {
            if let Some(offset) = self.0.offset_of(group, at)? {
                found.insert(at.clone(), offset);
            }
        }
        Ok(found)
    }

    fn members(&self, group: &str) -> Result<usize, LogError> {
        let state = self.0.lock();
        Ok(state.groups.get(group).map_or(0, |group| group.members.len()))
    }

    fn move_group(&self, group: &str, to: &Positions) -> Result<(), LogError> {
        let state = self.0.lock();
        if state.groups.get(group).is_some_and(|group| !group.members.is_empty()) {
            return Err(LogError::new(
                LogErrorKind::Fenced,
                format!("group {group} has members"),
            ));
        }
        let mut batch = WriteBatch::default();
        for (at, offset) in to {
            batch.put_cf(self.0.family(META)?, offset_key(group, at), offset.0.to_be_bytes());
        }
        self.0.write(batch)
    }

    fn grow(&self, topic: &Topic, partitions: u32) -> Result<(), LogError> {
        let mut state = self.0.lock();
        let Some(known) = state.topics.get_mut(topic) else {
            return Err(LogError::fatal(format!(
                "there is no topic {topic} in the embedded log"
            )));
        };
        if known.bounds.len() < partitions as usize {
            let mut batch = WriteBatch::default();
            let value = topic_value(known.number, partitions, known.cleanup);
            batch.put_cf(self.0.family(META)?, topic_key(topic), value);
            self.0.write(batch)?;
            known.bounds.resize(partitions as usize, (Offset(0), Offset(0)));
            self.0.changed.notify_all();
        }
        Ok(())
    }

    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<Offset, LogError> {
        let (number, start, end) = bounds(&self.0.lock(), at)?;
        let mut from = start;
        while from < end {
            let (records, next) = self.0.fetch(number, at, from, end, MAX_FETCH_RECORDS)?;
            if let Some(found) = records.iter().find(|record| record.timestamp >= time) {
                return Ok(found.offset);
            }
            from = next;
        }
        Ok(end)
    }
}

/// The number, start and end of a partition.
fn bounds(state: &State, at: &TopicPartition) -> Result<(u32, Offset, Offset), LogError> {
    state
        .topics
        .get(&at.topic)
        .and_then(|topic| {
            topic
                .bounds
                .get(at.partition.0 as usize)
                .map(|(start, end)| (topic.number, *start, *end))
        })
        .ok_or_else(|| LogError::fatal(format!("there is no partition {at} in the embedded log")))
}

struct EmbeddedReader {
    log: EmbeddedLog,
    at: TopicPartition,
    next: Offset,
}

impl Reader for EmbeddedReader {
    fn read(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let shared = &self.log.0;
        let mut state = shared.lock();
        let mut waited = timeout.is_zero();
        loop {
            let (number, start, end) = bounds(&state, &self.at)?;
            let from = self.next.max(start);
            let (records, next) = shared.fetch(number, &self.at, from, end, MAX_FETCH_RECORDS)?;
            self.next = next;
            if waited || !records.is_empty() {
                return Ok(records);
            }
            state = shared
                .changed
                .wait_timeout(state, timeout)
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .0;
            waited = true;
        }
    }

    fn position(&self) -> Result<Offset, LogError> {
        Ok(self.next)
    }
}

fn storage(error: rocksdb::Error) -> LogError {
    LogError::fatal(format!("the embedded log's storage failed: {error}"))
}
