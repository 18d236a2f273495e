//! Beginning again: stores are emptied, and what fills them is read from its start.
//!
//! Owns: which stages read what again, the order of the steps, and what makes it safe to be killed between any two.
//!
//! 1. The layout's record says that a reset was begun: from here on no process works (`layout.rs`).
//! 2. The group has no members. One that joins later sees the record, and ends.
//! 3. Changelogs get a tombstone for each key they hold, and as many partitions as their sources.
//! 4. The group's offsets go to the starts.
//! 5. The record says what the application looks like now, and counts the reset; state folders of before are not used.
//!
//! Each step may be done twice. Tombstones, since a deleted and remade changelog could not be told, by a disk that was away,
//! from the one that it knows; and since they need no right to delete topics.
//!
//! Invariant: a stage with stores reads its source from the start. One without goes on where it is, since what it wrote is
//! still there, unless a stage reads a new topic in place of the one that it wrote.
//! Absent: what consumers of the outputs make of records that come again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::fault::Fault;
use super::layout::{Layout, Recorded};
use super::log::{Log, LogError, Positions, read_to_end};
use super::record::{Offset, Outgoing, Partition, Timestamp, Topic, TopicPartition};
use super::topics;
use super::topology::Shape;

/// Tombstones of one transaction.
const AT_ONCE: usize = 10_000;

/// A reset that was found possible, and not begun.
pub struct Reset<'a> {
    shape: &'a Shape,
    log: &'a dyn Log,
    now: Layout,
    /// Where each partition is read from again.
    pub from: Positions,
    /// Stages that go on where they are.
    pub going_on: Vec<String>,
    /// Changelogs to empty, those of earlier layouts included, with the partitions they need.
    pub emptied: BTreeMap<Topic, u32>,
    /// Topics that get records again.
    pub again: BTreeSet<Topic>,
}

impl<'a> Reset<'a> {
    /// Looks whether a reset is possible, and changes nothing. `as_far_as_kept`: also where sources do not reach back to
    /// their beginning.
    ///
    /// # Errors
    /// It is not: members, a topic that cannot be used, a source that does not reach back, stores that remember effects.
    pub fn plan(shape: &'a Shape, log: &'a dyn Log, as_far_as_kept: bool) -> Result<Reset<'a>, Fault> {
        if !shape.may_reset {
            return Err(Fault::Fatal(format!(
                "{} cannot be reset: its stores are the memory of what was done outside the log, which would be done again",
                shape.application_id
            )));
        }
        let counts = topics::counts(shape, log)?;
        topics::chained(shape, &counts)?;
        let known = Recorded::read(shape, log)?.unwrap_or_default().layout;
        let now = Layout::of(shape, &counts);
        let grown = known.grown(&now, true);
        if !grown.is_empty() {
            return Err(Fault::Fatal(grown.join("\n")));
        }
        without_members(shape, log)?;

        // Topics that some stage reads in place of another: whoever writes them has to fill them.
        let new: BTreeSet<&Topic> = now
            .stages
            .iter()
            .filter(|(name, stage)| known.stages.get(*name).is_some_and(|was| was.source != stage.source))
            .map(|(_, stage)| &stage.source)
            .collect();
        let mut reset = Reset {
            shape,
            log,
            from: Positions::new(),
            going_on: Vec::new(),
            emptied: BTreeMap::new(),
            again: BTreeSet::new(),
            now: now.clone(),
        };
        let mut short = Vec::new();
        for sub in &shape.subs {
            if sub.stores.is_empty() && !sub.sinks.iter().any(|sink| new.contains(sink)) {
                reset.going_on.push(sub.name.clone());
                continue;
            }
            reset.again.extend(sub.sinks.iter().cloned());
            for source in &sub.sources {
                for n in 0..counts.get(source).copied().unwrap_or(0) {
                    let at = TopicPartition::new(source, Partition(n));
                    let start = log.start(&at)?;
                    if start > Offset(0) {
                        short.push(format!("{at} begins at offset {start}"));
                    }
                    reset.from.insert(at, start);
                }
            }
        }
        if !short.is_empty() && !as_far_as_kept {
            return Err(Fault::Fatal(format!(
                "what was read first is not kept any more: {}. What it said would be missing from the state. Bring it back into new topics named in the topology file, or, where that is meant, reset with --as-far-as-kept",
                short.join(", ")
            )));
        }
        for stage in known.stages.values() {
            for changelog in stage.stores.values() {
                if let Some(count) = log.partitions(changelog)? {
                    reset.emptied.insert(changelog.clone(), count);
                }
            }
        }
        for stage in now.stages.values() {
            let wanted = counts.get(&stage.source).copied().unwrap_or(0);
            for changelog in stage.stores.values() {
                let has = counts.get(changelog).copied().unwrap_or(0);
                if has > wanted {
                    return Err(Fault::Fatal(format!(
                        "changelog {changelog} has {has} partitions and {} has {wanted}: delete the topic {changelog}, which a reset would empty, and run `accrue apply` with runtime.partitions = {wanted}",
                        stage.source
                    )));
                }
                reset.emptied.insert(changelog.clone(), wanted);
            }
        }
        Ok(reset)
    }

    /// Does it. Killed or failed at any moment, it is done again from [`Reset::plan`] on. Says how many keys were emptied.
    ///
    /// # Errors
    /// A process joined meanwhile, and nothing was changed; or the log.
    pub fn run(&self) -> Result<u64, Fault> {
        let (shape, log) = (self.shape, self.log);
        let begun = Recorded::update(shape, log, |recorded| {
            let mut recorded = recorded.unwrap_or_else(|| Recorded {
                layout: self.now.clone(),
                ..Recorded::default()
            });
            let begun = std::mem::replace(&mut recorded.resetting, true);
            Ok((recorded, begun))
        })?;
        if let Err(joined) = without_members(shape, log) {
            // An earlier one that was killed half way still has to be finished.
            Recorded::update(shape, log, |recorded| {
                let mut recorded = recorded.unwrap_or_default();
                recorded.resetting = begun;
                Ok((recorded, ()))
            })?;
            return Err(joined);
        }
        let mut emptied = 0;
        for (changelog, wanted) in &self.emptied {
            emptied += self.empty(changelog)?;
            log.grow(changelog, *wanted)?;
        }
        log.move_group(&shape.application_id, &self.from)?;
        Recorded::update(shape, log, |recorded| {
            let recorded = Recorded {
                layout: self.now.clone(),
                resets: recorded.map_or(0, |recorded| recorded.resets) + 1,
                resetting: false,
            };
            Ok((recorded, ()))
        })?;
        Ok(emptied)
    }

    fn empty(&self, changelog: &Topic) -> Result<u64, Fault> {
        let mut producer = self.log.producer(&format!("{}.reset", self.shape.application_id))?;
        let mut emptied = 0;
        for at in self.log.partitions_of(changelog)? {
            let mut held: HashSet<Vec<u8>> = HashSet::new();
            read_to_end(self.log, &at, self.log.start(&at)?, |record| {
                if let Some(key) = record.key {
                    match record.value {
                        Some(_) => held.insert(key),
                        None => held.remove(&key),
                    };
                }
                Ok::<(), LogError>(())
            })?;
            let keys: Vec<Vec<u8>> = held.into_iter().collect();
            for some in keys.chunks(AT_ONCE) {
                producer.begin()?;
                for key in some {
                    producer.send(Outgoing {
                        to: at.clone(),
                        timestamp: Timestamp(0),
                        key: Some(key.clone()),
                        value: None,
                        headers: Vec::new(),
                    })?;
                }
                producer.commit(&Positions::new(), None)?;
            }
            emptied += keys.len() as u64;
        }
        Ok(emptied)
    }
}

/// Refuses while processes of the application run.
///
/// # Errors
/// There are; or the log.
pub fn without_members(shape: &Shape, log: &dyn Log) -> Result<(), Fault> {
    let group = &shape.application_id;
    match log.members(group)? {
        0 => Ok(()),
        members => Err(Fault::Fatal(format!(
            "group {group} has live members ({members}): stop the processes first. One with a static name (kafka.instance_id) counts until its session_timeout has passed after its end"
        ))),
    }
}
