//! The topics of an application: whether they are there, and have the partitions that they need.
//!
//! Invariant: a key's state, its changelog and what was sent to every partition are in partitions of one number.
//! Absent: what they were before (`layout.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fault::Fault;
use super::log::{Log, LogError, LogErrorKind};
use super::record::{Topic, TopicPartition};
use super::topology::Shape;

/// Pause after a failed call to the log.
const BACKOFF: Duration = Duration::from_millis(500);

/// The partitions of every topic that the application reads or writes.
///
/// # Errors
/// Topics are missing.
pub fn counts(shape: &Shape, log: &dyn Log) -> Result<BTreeMap<Topic, u32>, Fault> {
    let count = |topic: &Topic| -> Result<Option<u32>, Fault> {
        loop {
            match log.partitions(topic) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind == LogErrorKind::Retry => {
                    tracing::warn!(%error, "the log is away; waiting");
                    std::thread::sleep(BACKOFF);
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let mut missing = Vec::new();
    let mut counts = BTreeMap::new();
    let topics: BTreeSet<Topic> = shape.written().into_iter().chain(shape.sources()).collect();
    for topic in topics {
        match count(&topic)? {
            Some(partitions) => {
                counts.insert(topic, partitions);
            }
            None => missing.push(topic.to_string()),
        }
    }
    if !missing.is_empty() {
        return Err(Fault::Fatal(format!(
            "topics are missing: {}. Run `accrue apply` to create them; source topics appear with their first record, or when their connector starts",
            missing.join(", ")
        )));
    }
    Ok(counts)
}

/// The partitions of all topics that the application reads.
///
/// # Errors
/// The log is away.
pub fn inputs(shape: &Shape, log: &dyn Log) -> Result<Vec<TopicPartition>, LogError> {
    let mut inputs = Vec::new();
    for topic in shape.sources() {
        inputs.extend(log.partitions_of(&topic)?);
    }
    Ok(inputs)
}

/// A changelog has as many partitions as the source of its store.
///
/// # Errors
/// It has not, or stages do not fit (see [`chained`]).
pub fn fit(shape: &Shape, counts: &BTreeMap<Topic, u32>) -> Result<(), Fault> {
    chained(shape, counts)?;
    for sub in shape.stateful() {
        for store in &sub.stores {
            let (source, changelog) = (&sub.sources[0], &store.changelog);
            if counts.get(source) != counts.get(changelog) {
                return Err(Fault::Fatal(format!(
                    "{source} has {} partitions, but the changelog {changelog} has {}: keys would find the wrong state. In the topology file name a new topic with as many partitions in place of {source}, or delete {changelog} while it is empty, and run `accrue apply`",
                    counts.get(source).copied().unwrap_or(0),
                    counts.get(changelog).copied().unwrap_or(0),
                )));
            }
        }
    }
    Ok(())
}

/// A stage with stores that reads what another one writes has as many tasks as that one: each hands on what was sent to
/// every partition to the task of its own number.
pub fn chained(shape: &Shape, counts: &BTreeMap<Topic, u32>) -> Result<(), Fault> {
    for sub in shape.stateful() {
        for next in shape.stateful().filter(|next| sub.sinks.contains(&next.sources[0])) {
            let (read, written) = (&sub.sources[0], &next.sources[0]);
            if counts.get(read) != counts.get(written) {
                return Err(Fault::Fatal(format!(
                    "stage {} reads {read} with {} partitions and writes {written} with {}: what is sent to every partition of the one would be missing in partitions of the other. Give both as many: in the topology file name a new topic in place of one, and run `accrue apply`",
                    sub.name,
                    counts.get(read).copied().unwrap_or(0),
                    counts.get(written).copied().unwrap_or(0),
                )));
            }
        }
    }
    Ok(())
}
