//! Whether an application's log and stores are whole, as seen from outside.
//!
//! Owns: three of the invariants of the runtime as questions that anybody may ask at any time: no transaction hangs; a
//! store at its position is the fold of its changelog; and what a stage wrote is what it makes of its input ([`cut`] and
//! [`replay`]).
//! Absent: what records mean.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::log::{Log, LogError, Positions, read_to_end, read_until};
use super::record::{Offset, Outgoing, Partition, Topic, TopicPartition};
use super::store::{StoreError, StoreHome, TaskStore};
use super::task::{Ends, Input, Task, TaskId};
use super::topics;
use super::topology::{Shape, StoreSpec, SubTopology, Topology};

/// Pause before a transaction that is open is looked at again.
const AGAIN: Duration = Duration::from_millis(500);
/// Keys of a store that are named in a finding.
const NAMED: usize = 3;
/// How often a moment is looked for at which a stage commits nothing.
const LOOKS: usize = 20;
/// What a replay keeps in memory before it writes it to its store.
const STAGED_BYTES: usize = 8 << 20;

/// A transaction that should have ended: readers of committed records stop at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hanging {
    pub at: TopicPartition,
    /// Where readers of committed records stop.
    pub from: Offset,
    pub end: Offset,
}

/// Every partition of the application's own and source topics.
///
/// # Errors
/// Topics are missing; the log is away.
pub fn partitions(shape: &Shape, log: &dyn Log) -> Result<Vec<TopicPartition>, Fault> {
    let counts = topics::counts(shape, log)?;
    let all = counts.iter().flat_map(|(topic, count)| {
        let partitions = (0..*count).map(Partition);
        partitions.map(move |partition| TopicPartition::new(topic, partition))
    });
    Ok(all.collect())
}

/// Transactions that stay open for longer than `longest`, which no transaction of a process in good health does.
///
/// # Errors
/// The log is away.
pub fn hanging(log: &dyn Log, partitions: &[TopicPartition], longest: Duration) -> Result<Vec<Hanging>, LogError> {
    let mut open = Vec::new();
    for at in partitions {
        // The end first: what ends meanwhile is no finding.
        let end = log.end(at)?;
        let from = log.stable_end(at)?;
        if from < end {
            open.push(Hanging {
                at: at.clone(),
                from,
                end,
            });
        }
    }
    let began = Instant::now();
    while !open.is_empty() && began.elapsed() < longest {
        std::thread::sleep(AGAIN);
        let mut still = Vec::new();
        for one in open {
            if log.stable_end(&one.at)? == one.from {
                still.push(one);
            }
        }
        open = still;
    }
    Ok(open)
}

/// What a look at a store on this machine found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is not here.
    Absent,
    /// A process works with it.
    InUse,
    /// It has these keys, each as the changelog has it.
    Whole { keys: usize },
    /// Keys that are not as the changelog has them, and some of their names.
    Differs { keys: usize, such_as: Vec<String> },
}

/// A store of a task in `dir`, held against its changelog. Keys that the changelog has written again since the store's
/// position are left out: compaction may have removed what they were.
///
/// # Errors
/// The log is away; the store cannot be read.
pub fn store(
    log: &dyn Log,
    dir: &Path,
    stores: &[StoreSpec],
    partition: Partition,
    home: &StoreHome,
) -> Result<Found, Fault> {
    if !dir.exists() {
        return Ok(Found::Absent);
    }
    let names: Vec<String> = stores.iter().map(|store| store.name.clone()).collect();
    let opened = match TaskStore::open(dir, &names, home) {
        Ok(opened) => opened,
        Err(error) if error.is_held() => return Ok(Found::InUse),
        Err(error) => return Err(Fault::Fatal(format!("{}: {error}", dir.display()))),
    };
    let unreadable = |error| Fault::Fatal(format!("{}: {error}", dir.display()));
    let (mut keys, mut differing, mut such_as) = (0, 0, Vec::new());
    for (index, spec) in stores.iter().enumerate() {
        let position = opened.checkpoint(index).map_err(unreadable)?.unwrap_or(Offset(0));
        let at = TopicPartition::new(&spec.changelog, partition);
        let mut last: HashMap<Vec<u8>, Logged> = HashMap::new();
        read_to_end(log, &at, log.start(&at)?, |record| {
            if let Some(key) = record.key {
                let logged = match record.offset < position {
                    true => Logged::Value(record.value.as_deref().map(digest)),
                    false => Logged::Later,
                };
                last.insert(key, logged);
            }
            Ok::<(), LogError>(())
        })?;
        let mut differs = |key: &[u8]| {
            differing += 1;
            if such_as.len() < NAMED {
                such_as.push(String::from_utf8_lossy(key).into_owned());
            }
        };
        for entry in opened.range(index, &[], &[0xff; 64]).map_err(unreadable)? {
            let (key, value) = entry.map_err(unreadable)?;
            keys += 1;
            match last.remove(&key) {
                Some(Logged::Value(Some(logged))) if logged == digest(&value) => {}
                Some(Logged::Later) => {}
                Some(Logged::Value(_)) | None => differs(&key),
            }
        }
        for (key, logged) in last {
            if let Logged::Value(Some(_)) = logged {
                differs(&key);
            }
        }
    }
    Ok(match differing {
        0 => Found::Whole { keys },
        keys => Found::Differs { keys, such_as },
    })
}

/// A stage between two of its commits.
pub struct Cut {
    /// How far each partition of its input is processed.
    pub processed: Positions,
    /// Where each partition of what it writes ends: what led to it is processed, all of it and no more.
    pub ends: Positions,
}

/// A moment at which the stage commits nothing; `None` where it commits too often for that.
///
/// # Errors
/// The log is away.
pub fn cut(log: &dyn Log, shape: &Shape, stage: &SubTopology) -> Result<Option<Cut>, LogError> {
    let partitions = |topics: &[Topic]| {
        let all = topics.iter().map(|topic| log.partitions_of(topic));
        Ok(all.collect::<Result<Vec<_>, LogError>>()?.concat())
    };
    let (inputs, outputs) = (partitions(&stage.sources)?, partitions(&stage.sinks)?);
    for _ in 0..LOOKS {
        let processed = log.committed(&shape.application_id, &inputs)?;
        let mut ends = Positions::new();
        let mut open = false;
        for at in &outputs {
            let end = log.end(at)?;
            // Ahead of a transaction's end come the offsets that it commits, or what it wrote: there is no order.
            open |= log.stable_end(at)? != end;
            ends.insert(at.clone(), end);
        }
        if !open && log.committed(&shape.application_id, &inputs)? == processed {
            return Ok(Some(Cut { processed, ends }));
        }
        std::thread::sleep(AGAIN / 10);
    }
    Ok(None)
}

/// What a stage makes of one partition of its input, from its start to `until`: each record it writes is handed to
/// `emitted`. Its stores are made anew in `dir`, and removed.
///
/// # Errors
/// The log is away; `dir` cannot be written, or another process replays there; the stage fails.
pub fn replay(
    log: &dyn Log,
    topology: &Topology,
    stage: &str,
    (at, until): (&TopicPartition, Offset),
    (dir, home): (&Path, &StoreHome),
    mut emitted: impl FnMut(Outgoing) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let in_store = |error: StoreError| Fault::Fatal(format!("{}: {error}", dir.display()));
    let stages = topology.shape.subs.iter().zip(&topology.processors);
    let (sub, processor) = stages
        .into_iter()
        .find(|(sub, _)| sub.name == stage)
        .ok_or_else(|| Fault::Fatal(format!("there is no stage {stage}")))?;
    let names: Vec<String> = sub.stores.iter().map(|store| store.name.clone()).collect();
    let counts: BTreeMap<Topic, u32> = topics::counts(&topology.shape, log)?;
    let id = TaskId {
        sub: sub.name.clone(),
        partition: at.partition,
    };
    // Left by one that was killed, or held by one that runs: then opening it fails.
    drop(TaskStore::open(dir, &names, home).map_err(in_store)?);
    TaskStore::wipe(dir, home).map_err(in_store)?;
    let store = TaskStore::open(dir, &names, home).map_err(in_store)?;
    let unmarked = vec![None; names.len()];
    let mut task = Task::new(id, processor(), names);
    task.inputs.insert(at.clone(), Input::held());
    task.run(Some(store), &counts)?;
    let ends = Ends {
        known: &|_| true,
        asked: &|_| true,
    };
    read_until(log, at, log.start(at)?, until, |record| {
        if let Some(input) = task.inputs.get_mut(at) {
            input.push(record);
        }
        while let Some(step) = task.step(Duration::ZERO, Duration::ZERO, &ends, &counts)? {
            step.outgoing.into_iter().try_for_each(&mut emitted)?;
            if let Some(store) = task.store.as_ref().filter(|_| task.overlay.bytes() > STAGED_BYTES) {
                store.apply(&task.overlay, &unmarked).map_err(in_store)?;
                task.committed();
            }
        }
        Ok::<(), Fault>(())
    })?;
    drop(task);
    TaskStore::wipe(dir, home).map_err(in_store)
}

/// What a changelog has of a key.
enum Logged {
    /// Its last value up to the store's position; `None` when it was deleted.
    Value(Option<u64>),
    /// It was written again since.
    Later,
}

/// Tells values apart; nobody forges them.
pub fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
