//! What must hold after a run, whatever happened in it.
//!
//! Owns: the named invariants.
//!
//! * *Moved together* (2, 3): a transaction holds exactly what its input offsets lead to: outputs, changelog and dead
//!   letters, the same bytes, each once (`replay.rs`).
//! * *Store is a fold* (1): every store, at its checkpoint, equals the fold of its committed changelog up to there. Looked
//!   at whenever a process dies, and at the end.
//! * *Nothing hangs* (4): at the end no transaction is open, so read_committed and read_uncommitted ends agree.
//! * *One window is restored* (5): a store of a running task lags by at most one transaction of its owner.
//! * *Books balance* (6): the journal equals the books folded from the committed facts, and the accounting's own checks
//!   pass on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use accrue::revenue::books::Books;
use accrue::revenue::checks;
use accrue::stream::app::TaskReport;
use accrue::stream::record::{Offset, Topic, TopicPartition};
use accrue::stream::store::{StoreHome, TaskStore};
use accrue::stream::task::TaskId;

use super::broker::Broker;
use super::client::{SimLog, at};
use super::partition::State;
use super::replay::Replay;
use super::workload::{Subject, subject};

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
pub fn snapshots(home: &StoreHome, process: usize, tasks: &[TaskReport], decided: usize) -> Vec<Snapshot> {
    let mut found = Vec::new();
    for (task, store, changelog) in stateful() {
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
fn stateful() -> Vec<(TaskId, String, TopicPartition)> {
    let mut all = Vec::new();
    for sub in &subject().topology.shape.subs {
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
fn behind(broker: &Broker) -> Vec<String> {
    let sources = subject().topology.shape.sources();
    let read = broker.logs.iter().filter(|(at, _)| sources.contains(&at.topic));
    read.filter_map(|(at, log)| {
        let last = log.visible(Offset(0), log.end()).last()?.offset;
        let done = broker.committed.get(at).copied().unwrap_or_default();
        (done <= last).then(|| format!("{at} is at {done}, its last record is {last}"))
    })
    .collect()
}

pub fn is_drained(broker: &Broker) -> bool {
    !broker.is_busy() && behind(broker).is_empty()
}

pub fn left(broker: &Broker) -> String {
    let open = broker.logs.iter().filter(|(_, log)| log.stable() != log.end());
    let open: Vec<String> = open
        .map(|(at, log)| format!("{at} is open from {}", log.stable()))
        .collect();
    format!(
        "{} {} {}",
        behind(broker).join("; "),
        open.join("; "),
        broker.group.describe()
    )
}

/// All of them.
pub fn run(log: &SimLog, taken: &[Snapshot]) -> Result<(), String> {
    let broker = log.broker();
    if let Some(violation) = broker.violations.first() {
        return Err(violation.clone());
    }
    nothing_hangs(&broker)?;
    for snapshot in taken {
        store_is_a_fold(&broker, snapshot)?;
        one_window_is_restored(&broker, snapshot)?;
    }
    drop(broker);
    let mut replay = Replay::new(log)?;
    let broker = log.broker();
    for decided in &broker.history {
        replay.moved_together(&broker, decided)?;
    }
    replay.all_was_processed(&broker)?;
    books_balance(&broker, subject())
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

fn one_window_is_restored(broker: &Broker, snapshot: &Snapshot) -> Result<(), String> {
    let log = broker.log(&snapshot.changelog).map_err(|error| error.to_string())?;
    let from = snapshot.checkpoint.unwrap_or_default().0 as usize;
    let mine = format!("sim-p{}-", snapshot.process);
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

fn books_balance(broker: &Broker, subject: &Subject) -> Result<(), String> {
    let out = &subject.config.outputs;
    let (facts, journal) = (
        Topic::new(out.contract_facts.as_str()),
        Topic::new(out.journal_entries.as_str()),
    );
    for n in 0..2 {
        let of = |topic: &Topic| -> Result<Vec<&[u8]>, String> {
            let log = broker.log(&at(topic, n)).map_err(|error| error.to_string())?;
            let records = log.visible(Offset(0), log.end());
            Ok(records
                .map(|record| record.value.as_deref().unwrap_or_default())
                .collect())
        };
        let mut books = Books::new(subject.config.settings().clone());
        for bytes in of(&facts)? {
            books.fold(subject.schemas.decode_fact(bytes).map_err(|error| error.to_string())?);
        }
        let report = books.finish(None);
        if let Some(violation) = checks::run(&report).first() {
            return Err(format!("books balance: {violation:?}"));
        }
        let mut wanted: Vec<String> = report.journals.iter().map(|entry| entry.entry_id.to_string()).collect();
        let mut found = Vec::new();
        for bytes in of(&journal)? {
            let entry = subject
                .schemas
                .decode_journal_entry(bytes)
                .map_err(|error| error.to_string())?;
            found.push(entry.entry_id.to_string());
        }
        wanted.sort();
        found.sort();
        if wanted != found {
            let missing = wanted.iter().filter(|id| !found.contains(id)).count();
            return Err(format!(
                "books balance: partition {n} has {} journal entries, the facts give {} ({missing} are missing)",
                found.len(),
                wanted.len()
            ));
        }
    }
    Ok(())
}
