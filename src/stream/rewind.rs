//! Reading inputs again: the group's offsets go back, nothing else changes.
//!
//! Owns: what may go back, and how far. Only inputs of stages without stores, since a store stands for what its stage has
//! read; only back, since what is skipped is lost.
//! Absent: whether what comes again is recognised further on; who knows the records has to say (`pipeline::replays`).

use std::collections::BTreeMap;

use super::fault::Fault;
use super::layout::{self, Recorded};
use super::log::{Log, Positions};
use super::record::{Offset, Partition, Timestamp, Topic, TopicPartition};
use super::reset::without_members;
use super::topology::Shape;

/// Where to.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Start,
    Offset(Offset),
    /// The first record of that time or later.
    Time(Timestamp),
}

/// Where a partition is read next, and where it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub from: Offset,
    pub to: Offset,
}

/// Looks how far the partitions of `topic`, or one of them, would go back; changes nothing. Partitions that stay are left
/// out.
///
/// # Errors
/// That topic cannot go back, or not there; a reset has not ended; processes run.
pub fn plan(
    shape: &Shape,
    log: &dyn Log,
    topic: &Topic,
    partition: Option<Partition>,
    target: Target,
) -> Result<BTreeMap<TopicPartition, Step>, Fault> {
    let refused = |message: String| Err(Fault::Fatal(message));
    let Some(sub) = shape.reader_of(topic).map(|sub| &shape.subs[sub]) else {
        let inputs = shape.subs.iter().filter(|sub| sub.stores.is_empty());
        let inputs: Vec<&str> = inputs.flat_map(|sub| &sub.sources).map(Topic::as_str).collect();
        return refused(format!(
            "{} does not read {topic}; it can go back in {}",
            shape.application_id,
            inputs.join(", ")
        ));
    };
    if let Some(store) = sub.stores.first() {
        let way_out = match shape.may_reset {
            true => ". `accrue reset` begins both again",
            false => ". Go back in what is read before it",
        };
        return refused(format!(
            "stage {} has read {topic} into its store {}: to read again without emptying it would part the two{way_out}",
            sub.name, store.name
        ));
    }
    if Recorded::read(shape, log)?.is_some_and(|recorded| recorded.resetting) {
        return Err(layout::unfinished(shape));
    }
    without_members(shape, log)?;
    let Some(count) = log.partitions(topic)? else {
        return refused(format!("there is no topic {topic}"));
    };
    let all: Vec<TopicPartition> = (0..count)
        .map(Partition)
        .filter(|n| partition.is_none_or(|one| one == *n))
        .map(|n| TopicPartition::new(topic, n))
        .collect();
    if let (Some(one), true) = (partition, all.is_empty()) {
        return refused(format!(
            "{topic} has {count} partitions, numbered from 0; there is no {one}"
        ));
    }
    let committed = log.committed(&shape.application_id, &all)?;
    let mut steps = BTreeMap::new();
    for at in all {
        let Some(from) = committed.get(&at).copied() else {
            // Nothing of it was read.
            continue;
        };
        let start = log.start(&at)?;
        let to = match target {
            Target::Start => start,
            Target::Offset(to) if to < start => {
                return refused(format!(
                    "{at} is kept from offset {start} on, so it cannot be read from {to}"
                ));
            }
            Target::Offset(to) if to > from => {
                return refused(format!(
                    "{at} was read up to {from}: to go on at {to} would lose the records between. What cannot be used becomes a dead letter by itself"
                ));
            }
            Target::Offset(to) => to,
            Target::Time(time) => log.offset_at(&at, time)?.min(from),
        };
        if to < from {
            steps.insert(at, Step { from, to });
        }
    }
    Ok(steps)
}

/// Goes back.
///
/// # Errors
/// A process joined meanwhile, and nothing was changed; or the log.
pub fn run(shape: &Shape, log: &dyn Log, steps: &BTreeMap<TopicPartition, Step>) -> Result<(), Fault> {
    let to: Positions = steps.iter().map(|(at, step)| (at.clone(), step.to)).collect();
    Ok(log.move_group(&shape.application_id, &to)?)
}
