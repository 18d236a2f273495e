//! Groups of the embedded log: members, what each should own, and its records.
//!
//! Invariant: a partition has one owner, who lets it go before another one gets it. Absent: idle-member timeouts (a member
//! leaves when it is dropped).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{Consumer, Event, Log as _, LogError, Membership, Positions, lost};
use super::{EmbeddedLog, MAX_FETCH_RECORDS, State, TopicState, bounds};
use crate::stream::record::{Offset, Partition, Record, Topic, TopicPartition};

/// The members of a group, and what they own.
#[derive(Default)]
pub(super) struct Group {
    pub(super) members: BTreeMap<u64, BTreeSet<Topic>>,
    pub(super) owned: BTreeMap<TopicPartition, u64>,
}

impl Group {
    /// Who should own what, as Kafka's range assignor has it: the partitions of a topic are cut into as many runs as
    /// members read it. So partitions of one number are together, as far as their topics have equally many.
    pub(super) fn target(&self, topics: &BTreeMap<Topic, TopicState>) -> BTreeMap<TopicPartition, u64> {
        let mut target = BTreeMap::new();
        for (topic, state) in topics {
            let subscribed = self.members.iter().filter(|(_, wanted)| wanted.contains(topic));
            let subscribed: Vec<u64> = subscribed.map(|(member, _)| *member).collect();
            let (count, members) = (state.bounds.len(), subscribed.len());
            let mut next = 0..count as u32;
            for (rank, member) in subscribed.into_iter().enumerate() {
                // The first ones get what is left over.
                let run = count / members + usize::from(rank < count % members);
                target.extend(
                    next.by_ref()
                        .take(run)
                        .map(|n| (TopicPartition::new(topic, Partition(n)), member)),
                );
            }
        }
        target
    }
}

pub(super) struct EmbeddedConsumer {
    pub(super) log: EmbeddedLog,
    pub(super) group: String,
    pub(super) member: u64,
    /// Where each accepted partition is read next.
    pub(super) positions: Positions,
    pub(super) paused: BTreeSet<TopicPartition>,
    /// Revocations announced and not yet answered.
    pub(super) announced: BTreeSet<TopicPartition>,
}

/// What a member shows with its offsets: it must still own every partition it commits for.
pub(super) struct EmbeddedMember {
    pub(super) group: String,
    pub(super) member: u64,
}

impl EmbeddedConsumer {
    /// Partitions to give up, or to take, before anything is read.
    fn rebalance(&mut self, state: &mut State) -> Option<Event> {
        let group = state.groups.get(&self.group)?;
        let target = group.target(&state.topics);
        let revoked: Vec<TopicPartition> = group
            .owned
            .iter()
            .filter(|(at, owner)| {
                **owner == self.member && target.get(at) != Some(&self.member) && !self.announced.contains(at)
            })
            .map(|(at, _)| at.clone())
            .collect();
        if !revoked.is_empty() {
            self.announced.extend(revoked.iter().cloned());
            return Some(Event::Revoked(revoked));
        }
        let assigned: Vec<TopicPartition> = target
            .iter()
            .filter(|(at, member)| **member == self.member && !group.owned.contains_key(at))
            .map(|(at, _)| at.clone())
            .collect();
        if assigned.is_empty() {
            return None;
        }
        let group = state.groups.get_mut(&self.group)?;
        for at in &assigned {
            group.owned.insert(at.clone(), self.member);
        }
        Some(Event::Assigned(assigned))
    }

    fn fetch(&mut self, state: &State, most: usize) -> Result<Vec<Record>, LogError> {
        let mut all = Vec::new();
        for (at, position) in &mut self.positions {
            if self.paused.contains(at) {
                continue;
            }
            let (number, start, end) = bounds(state, at)?;
            let from = (*position).max(start);
            let (records, next) = self.log.0.fetch(number, at, from, end, most.min(MAX_FETCH_RECORDS))?;
            *position = next;
            all.extend(records);
        }
        Ok(all)
    }

    fn start_of(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        let (start, end) = (self.log.start(at)?, self.log.end(at)?);
        match self.log.0.offset_of(&self.group, at)? {
            Some(offset) if offset < start || offset > end => Err(lost(at, offset, start, end)),
            Some(offset) => Ok(offset),
            None => Ok(start),
        }
    }
}

impl Consumer for EmbeddedConsumer {
    fn poll(&mut self, timeout: Duration, most: usize) -> Result<Event, LogError> {
        let log = self.log.clone();
        let mut state = log.0.lock();
        let mut waited = false;
        loop {
            if let Some(event) = self.rebalance(&mut state) {
                return Ok(event);
            }
            let records = self.fetch(&state, most)?;
            if !records.is_empty() {
                return Ok(Event::Records(records));
            }
            if waited {
                return Ok(Event::Idle);
            }
            state = log
                .0
                .changed
                .wait_timeout(state, timeout)
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .0;
            waited = true;
        }
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for at in partitions {
            let from = self.start_of(at)?;
            self.positions.insert(at.clone(), from);
            self.paused.insert(at.clone());
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut state = self.log.0.lock();
        for at in partitions {
            self.positions.remove(at);
            self.paused.remove(at);
            self.announced.remove(at);
            if let Some(group) = state.groups.get_mut(&self.group)
                && group.owned.get(at) == Some(&self.member)
            {
                group.owned.remove(at);
            }
        }
        self.log.0.changed.notify_all();
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.paused.extend(partitions.iter().cloned());
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for at in partitions {
            self.paused.remove(at);
        }
        Ok(())
    }

    fn rewind(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for at in partitions {
            let from = self.start_of(at)?;
            self.positions.insert(at.clone(), from);
        }
        Ok(())
    }

    fn caught_up(&self, partition: &TopicPartition) -> bool {
        let end = self.log.end(partition).unwrap_or_default();
        self.positions.get(partition).is_none_or(|next| *next >= end)
    }

    fn membership(&self) -> Result<Membership, LogError> {
        Ok(Membership::new(EmbeddedMember {
            group: self.group.clone(),
            member: self.member,
        }))
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let mut state = self.log.0.lock();
        if let Some(group) = state.groups.get_mut(&self.group) {
            group.members.remove(&self.member);
            group.owned.retain(|_, owner| *owner != self.member);
        }
        self.log.0.changed.notify_all();
    }
}
