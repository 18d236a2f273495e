//! What must hold after a run, whatever happened in it.
//!
//! Owns: the named invariants.
//!
//! Of every application:
//!
//! * *Store is a fold* (1): every store, at its checkpoint, equals the fold of its committed changelog up to there. Looked
//!   at whenever a process dies, and at the end.
//! * *Nothing hangs* (4): at the end no transaction is open, so read_committed and read_uncommitted ends agree.
//! * *One window is restored* (5): a store of a running task lags by at most one transaction of its owner.
//!
//! What must hold of one in particular says its scene (`pipeline.rs`, `delivery.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use accrue::stream::app::TaskReport;
use accrue::stream::record::{Offset, TopicPartition};
use accrue::stream::store::{StoreHome, TaskStore};
use accrue::stream::task::TaskId;
use accrue::stream::topology::Shape;

use super::broker::Broker;
use super::client::at;
use super::partition::State;

/// A store as a dead process left it.
pub struct Snapshot {
    process: usize,
    task: TaskId,
    changelog: TopicPartition,
    checkpoint: Option<Offset>,
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
    was_running: bool,
    /// Transactions decided by then.
    decided: usize,
}

/// Every store that a process has.
pub fn snapshots(
    shape: &Shape,
    home: &StoreHome,
    process: usize,
    tasks: &[TaskReport],
    decided: usize,
) -> Vec<Snapshot> {
    let mut found = Vec::new();
    for (task, store, changelog) in stateful(shape) {
        let dir = PathBuf::from("state").join(task.to_string());
        let opened = TaskStore::open(&dir, std::slice::from_ref(&store), home).expect("a dead process holds no lock");
        let entries = opened
            .range(0, &[], &[0xff; 64])
            .expect("range")
            .map(|entry| entry.expect("entry"));
        found.push(Snapshot {
            process,
            changelog,
            checkpoint: opened.checkpoint(0).expect("checkpoint"),
            contents: entries.collect(),
            was_running: tasks.iter().any(|report| report.task == task && report.running),
            task,
            decided,
        });
    }
    found
}

/// The tasks with a store: the store's name and changelog partition.
fn stateful(shape: &Shape) -> Vec<(TaskId, String, TopicPartition)> {
    let mut all = Vec::new();
    for sub in &shape.subs {
        for store in &sub.stores {
            for n in 0..2 {
                let changelog = at(&store.changelog, n);
                let task = TaskId {
                    sub: sub.name.clone(),
                    partition: changelog.partition,
                };
                all.push((task, store.name.clone(), changelog));
            }
        }
    }
    all
}

/// Source partitions whose committed offset is not past their last record, with both.
fn behind(shape: &Shape, broker: &Broker) -> Vec<String> {
    let sources = shape.sources();
    let read = broker.logs.iter().filter(|(at, _)| sources.contains(&at.topic));
    read.filter_map(|(at, log)| {
        let last = log.visible(Offset(0), log.end()).last()?.offset;
        let done = broker.committed.get(at).copied().unwrap_or_default();
        (done <= last).then(|| format!("{at} is at {done}, its last record is {last}"))
    })
    .collect()
}

pub fn is_drained(shape: &Shape, broker: &Broker) -> bool {
    !broker.is_busy() && behind(shape, broker).is_empty()
}

pub fn left(shape: &Shape, broker: &Broker) -> String {
    let open = broker.logs.iter().filter(|(_, log)| log.stable() != log.end());
    let open: Vec<String> = open
        .map(|(at, log)| format!("{at} is open from {}", log.stable()))
        .collect();
    format!(
        "{} {} {}",
        behind(shape, broker).join("; "),
        open.join("; "),
        broker.group.describe()
    )
}

/// All of them.
pub fn run(shape: &Shape, broker: &Broker, taken: &[Snapshot]) -> Result<(), String> {
    if let Some(violation) = broker.violations.first() {
        return Err(violation.clone());
    }
    nothing_hangs(broker)?;
    taken.iter().try_for_each(|snapshot| {
        store_is_a_fold(broker, snapshot)?;
        one_window_is_restored(shape, broker, snapshot)
    })
}

fn nothing_hangs(broker: &Broker) -> Result<(), String> {
    let open = broker.logs.iter().find(|(_, log)| log.stable() != log.end());
    open.map_or(Ok(()), |(at, log)| {
        Err(format!("nothing hangs: {at} is undecided from {}", log.stable()))
    })
}

fn store_is_a_fold(broker: &Broker, snapshot: &Snapshot) -> Result<(), String> {
    let log = broker.log(&snapshot.changelog).map_err(|error| error.to_string())?;
    let mut fold = BTreeMap::new();
    let mut compacted = BTreeSet::new();
    let until = snapshot.checkpoint.unwrap_or_default().0 as usize;
    for slot in log.slots[..until].iter().filter(|slot| slot.state == State::Committed) {
        let Some(record) = &slot.record else { continue };
        let key = record.key.clone().unwrap_or_default();
        if slot.gone {
            compacted.insert(key.clone());
        }
        match &record.value {
            Some(value) => fold.insert(key, value.clone()),
            None => fold.remove(&key),
        };
    }
    if fold == snapshot.contents {
        return Ok(());
    }
    let keys: BTreeSet<&Vec<u8>> = fold.keys().chain(snapshot.contents.keys()).collect();
    let mut differ = keys
        .into_iter()
        .filter(|key| fold.get(*key) != snapshot.contents.get(*key));
    // Half-way through a restore, a key is missing whose old value compaction took and whose new one is further on.
    let differs = differ.find(|key| snapshot.was_running || !compacted.contains(*key));
    if differs.is_none() {
        return Ok(());
    }
    Err(format!(
        "store is a fold: process {}, task {}, at {until}: {} differs ({} entries, the changelog gives {})",
        snapshot.process,
        snapshot.task,
        String::from_utf8_lossy(differs.map_or(b"?".as_slice(), Vec::as_slice)),
        snapshot.contents.len(),
        fold.len()
    ))
}

fn one_window_is_restored(shape: &Shape, broker: &Broker, snapshot: &Snapshot) -> Result<(), String> {
    let log = broker.log(&snapshot.changelog).map_err(|error| error.to_string())?;
    let from = snapshot.checkpoint.unwrap_or_default().0 as usize;
    let mine = format!("{}-p{}-", shape.application_id, snapshot.process);
    let owners: BTreeMap<u64, &str> = broker.history[..snapshot.decided]
        .iter()
        .map(|decided| (decided.txn, decided.producer.as_str()))
        .collect();
    let tail = log.slots[from..]
        .iter()
        .filter(|slot| slot.state == State::Committed)
        .filter_map(|slot| slot.txn);
    let tail: BTreeSet<u64> = tail
        .filter(|txn| owners.get(txn).is_some_and(|name| name.starts_with(&mine)))
        .collect();
    if snapshot.was_running && tail.len() > 1 {
        return Err(format!(
            "one window is restored: process {} has to restore {} of its own transactions for task {}",
            snapshot.process,
            tail.len(),
            snapshot.task
        ));
    }
    Ok(())
}
