//! Whether an application's log and stores are whole, as seen from outside.
//!
//! Owns: two of the invariants of the runtime as questions that anybody may ask at any time: no transaction hangs, and a
//! store at its position is the fold of its changelog.
//! Absent: what records mean.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::log::{Log, LogError, read_to_end};
use super::record::{Offset, Partition, TopicPartition};
use super::store::{StoreHome, TaskStore};
use super::topics;
use super::topology::{Shape, StoreSpec};

/// Pause before a transaction that is open is looked at again.
const AGAIN: Duration = Duration::from_millis(500);
/// Keys of a store that are named in a finding.
const NAMED: usize = 3;

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

/// What a changelog has of a key.
enum Logged {
    /// Its last value up to the store's position; `None` when it was deleted.
    Value(Option<u64>),
    /// It was written again since.
    Later,
}

/// Tells values apart; nobody forges them.
fn digest(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
