//! A member of the group, as a stream thread sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use accrue::stream::log::{Consumer, Event, GroupSpec, LogError, LogErrorKind, Membership};
use accrue::stream::record::{Offset, TopicPartition};

use super::broker::Broker;
use super::client::{Fate, SimLog, committed, fetch};
use super::group::{MemberId, Told};

struct Fetched {
    at: TopicPartition,
    /// `None` until the committed offset is known and stable.
    next: Option<Offset>,
    paused: bool,
}

pub struct SimConsumer {
    log: SimLog,
    group: GroupSpec,
    id: MemberId,
    inputs: Vec<Fetched>,
    /// Partitions announced as revoked or lost, and not given up yet.
    told: BTreeSet<TopicPartition>,
}

/// What a member shows with its offsets.
pub struct Proof {
    pub member: MemberId,
    pub generation: u64,
}

impl SimConsumer {
    pub fn join(log: SimLog, group: GroupSpec) -> SimConsumer {
        let id = enter(&mut log.broker(), &log, &group);
        SimConsumer {
            id,
            log,
            group,
            inputs: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    fn holds(&self) -> BTreeSet<TopicPartition> {
        self.inputs.iter().map(|input| input.at.clone()).collect()
    }

    fn next(&self, partition: &TopicPartition) -> Option<Offset> {
        self.inputs.iter().find(|input| input.at == *partition)?.next
    }
}

fn enter(broker: &mut Broker, log: &SimLog, group: &GroupSpec) -> MemberId {
    let (instance, vital) = (group.instance.clone(), log.vital.clone());
    broker.group.join(broker.now, instance, &group.topics, vital)
}

impl Consumer for SimConsumer {
    fn poll(&mut self, _timeout: Duration, most: usize) -> Result<Event, LogError> {
        self.log.call(LogErrorKind::Retry, |_| Ok(()))?;
        let holds = self.holds();
        let mut broker = self.log.broker();
        let now = broker.now;
        match broker.group.told(now, self.id, &holds, &self.told) {
            Told::Assigned(partitions) => return Ok(Event::Assigned(partitions)),
            Told::Revoked(partitions) => {
                self.told.extend(partitions.iter().cloned());
                return Ok(Event::Revoked(partitions));
            }
            Told::Replaced => return Err(LogError::new(LogErrorKind::Fenced, "fenced instance id")),
            Told::Unknown => {
                let lost: Vec<TopicPartition> = holds.difference(&self.told).cloned().collect();
                if !lost.is_empty() {
                    self.told.extend(lost.iter().cloned());
                    return Ok(Event::Lost(lost));
                }
                if holds.is_empty() {
                    self.id = enter(&mut broker, &self.log, &self.group);
                }
                return Ok(Event::Idle);
            }
            Told::Nothing => {}
        }
        let mut all = Vec::new();
        for input in &mut self.inputs {
            if input.next.is_none() && !broker.is_unstable(&input.at) {
                input.next = Some(broker.committed.get(&input.at).copied().unwrap_or(Offset(0)));
            }
            // A revoked partition is not fetched any more.
            let stands = input.paused || self.told.contains(&input.at) || broker.rng.chance(20);
            if let (Some(next), false) = (input.next, stands) {
                let (records, next) = fetch(&mut broker, &input.at, next, most.min(6) as u64);
                input.next = Some(next);
                all.extend(records);
            }
        }
        Ok(if all.is_empty() {
            Event::Idle
        } else {
            Event::Records(all)
        })
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let fate = self.log.fate();
        let away = || Err(LogError::retry("planned: not assigned"));
        if let Fate::FailsBefore = fate {
            return away();
        }
        for at in partitions {
            self.inputs.retain(|input| input.at != *at);
            self.told.remove(at);
            self.inputs.push(Fetched {
                at: at.clone(),
                next: None,
                paused: true,
            });
        }
        match fate {
            Fate::Goes | Fate::FailsBefore => Ok(()),
            Fate::FailsAfter => away(),
            Fate::DiesAfter => self.log.die(),
        }
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let id = self.id;
        let done = self.log.call(LogErrorKind::Retry, |broker| {
            broker.group.gave_up(id, partitions);
            Ok(())
        });
        if done.is_ok() {
            self.inputs.retain(|input| !partitions.contains(&input.at));
            self.told.retain(|at| !partitions.contains(at));
        }
        done
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.log.call(LogErrorKind::Retry, |_| Ok(()))?;
        let named = self.inputs.iter_mut().filter(|input| partitions.contains(&input.at));
        named.for_each(|input| input.paused = true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.log.call(LogErrorKind::Retry, |_| Ok(()))?;
        let named = self.inputs.iter_mut().filter(|input| partitions.contains(&input.at));
        named.for_each(|input| input.paused = false);
        Ok(())
    }

    fn rewind(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let committed = self
            .log
            .call(LogErrorKind::Retry, |broker| committed(broker, partitions))?;
        for input in self.inputs.iter_mut().filter(|input| partitions.contains(&input.at)) {
            input.next = Some(committed.get(&input.at).copied().unwrap_or(Offset(0)));
        }
        Ok(())
    }

    fn caught_up(&self, partition: &TopicPartition) -> bool {
        let end = self.log.broker().log(partition).map(|log| log.end());
        matches!((self.next(partition), end), (Some(next), Ok(end)) if next >= end)
    }

    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        let stable = self
            .log
            .call(LogErrorKind::Retry, |broker| Ok(broker.log(partition)?.stable()));
        matches!((self.next(partition), stable), (Some(next), Ok(stable)) if next >= stable)
    }

    fn membership(&self) -> Result<Membership, LogError> {
        Ok(Membership::new(Proof {
            member: self.id,
            generation: self.log.broker().group.generation(self.id),
        }))
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        self.log.broker().group.leave(self.id);
    }
}
