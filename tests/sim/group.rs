//! The consumer group of a simulation.
//!
//! Owns: members, generations, who owns which partition; sessions that end, static members that return (KIP-345).
//! Partitions move one by one, given up by one member before the next one gets them: harder on the runtime than Kafka's
//! range assignor, which moves all at once.
//! Absent: that equal numbers stay together (`tests/log_contract.rs`), and offsets (`broker.rs` moves them with
//! transactions).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use accrue::stream::record::{Topic, TopicPartition};

/// The group drops a member that is silent for longer.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

/// How a process is doing; the group sees heartbeats while it lives.
#[derive(Default)]
pub struct Vital {
    pub dead: AtomicBool,
    pub frozen: AtomicBool,
    /// The network between it and the brokers is down.
    pub cut: AtomicBool,
}

impl Vital {
    fn beats(&self) -> bool {
        ![&self.dead, &self.frozen, &self.cut]
            .iter()
            .any(|flag| flag.load(Ordering::SeqCst))
    }
}

pub type MemberId = u64;

struct Member {
    instance: Option<String>,
    topics: BTreeSet<Topic>,
    vital: Arc<Vital>,
    /// Whether its consumer is gone, though the group was not told.
    silent: bool,
    seen: Duration,
    /// The generation this member knows.
    generation: u64,
}

/// See the module.
#[derive(Default)]
pub struct Group {
    pub partitions: BTreeSet<TopicPartition>,
    /// Whose static name another process took.
    replaced: BTreeSet<MemberId>,
    generation: u64,
    next: MemberId,
    members: BTreeMap<MemberId, Member>,
    owned: BTreeMap<TopicPartition, MemberId>,
    /// Who should own what; made anew after members or owners changed.
    target: Option<BTreeMap<TopicPartition, MemberId>>,
}

/// What the group has for a member that asks.
pub enum Told {
    Nothing,
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    /// The group does not know it any more.
    Unknown,
    /// Another process took its static name.
    Replaced,
}

impl Group {
    pub fn join(&mut self, now: Duration, instance: Option<String>, topics: &[Topic], vital: Arc<Vital>) -> MemberId {
        self.next += 1;
        let id = self.next;
        let old = instance.as_ref().and_then(|name| {
            let mut members = self.members.iter();
            members
                .find(|(_, member)| member.instance.as_ref() == Some(name))
                .map(|(id, _)| *id)
        });
        if let Some(old) = old {
            // A static member that returns takes over what its predecessor had, in the same generation.
            self.members.remove(&old);
            self.replaced.insert(old);
            for owner in self.owned.values_mut().filter(|owner| **owner == old) {
                *owner = id;
            }
        } else {
            self.generation += 1;
        }
        self.members.insert(
            id,
            Member {
                instance,
                topics: topics.iter().cloned().collect(),
                vital,
                silent: false,
                seen: now,
                generation: self.generation,
            },
        );
        self.target = None;
        id
    }

    /// A consumer closes. A static member keeps its place until its session ends, and so does one that is not heard.
    pub fn leave(&mut self, id: MemberId) {
        match self.members.get_mut(&id) {
            Some(member) if member.instance.is_some() || !member.vital.beats() => member.silent = true,
            Some(_) => self.drop_member(id),
            None => {}
        }
    }

    fn drop_member(&mut self, id: MemberId) {
        self.members.remove(&id);
        self.owned.retain(|_, owner| *owner != id);
        self.generation += 1;
        self.target = None;
    }

    /// Drops members whose session has ended.
    pub fn expire(&mut self, now: Duration) {
        for member in self
            .members
            .values_mut()
            .filter(|member| !member.silent && member.vital.beats())
        {
            member.seen = now;
        }
        let silent = self
            .members
            .iter()
            .filter(|(_, member)| now > member.seen + SESSION_TIMEOUT);
        for id in silent.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.drop_member(id);
        }
    }

    /// What the group has for a member that `holds` some partitions and has been `told` to give others up.
    pub fn told(
        &mut self,
        now: Duration,
        id: MemberId,
        holds: &BTreeSet<TopicPartition>,
        told: &BTreeSet<TopicPartition>,
    ) -> Told {
        self.expire(now);
        let generation = self.generation;
        match self.members.get_mut(&id) {
            Some(member) => member.generation = generation,
            None if self.replaced.contains(&id) => return Told::Replaced,
            None => return Told::Unknown,
        }
        let target = self.target.take().unwrap_or_else(|| self.target());
        let told = self.compare(id, holds, told, &target);
        if let Told::Nothing = told {
            self.target = Some(target);
        }
        told
    }

    fn compare(
        &mut self,
        id: MemberId,
        holds: &BTreeSet<TopicPartition>,
        told: &BTreeSet<TopicPartition>,
        target: &BTreeMap<TopicPartition, MemberId>,
    ) -> Told {
        // What a static member took over, does not hold yet and need not have.
        self.owned
            .retain(|at, owner| *owner != id || holds.contains(at) || target.get(at) == Some(&id));
        let mine = |at: &TopicPartition| target.get(at) == Some(&id);
        let owned = |at: &TopicPartition| self.owned.get(at) == Some(&id);
        let revoked: Vec<_> = holds
            .iter()
            .filter(|at| !mine(at) && !told.contains(at))
            .cloned()
            .collect();
        if !revoked.is_empty() {
            return Told::Revoked(revoked);
        }
        let free = |at: &&TopicPartition| !self.owned.contains_key(*at) || owned(at);
        let assigned: Vec<_> = target
            .keys()
            .filter(|at| mine(at) && !holds.contains(at))
            .filter(free)
            .cloned()
            .collect();
        if assigned.is_empty() {
            return Told::Nothing;
        }
        for at in &assigned {
            self.owned.insert(at.clone(), id);
        }
        Told::Assigned(assigned)
    }

    /// Who is in the group and who owns what, for people.
    pub fn describe(&self) -> String {
        let members = self.members.iter().map(|(id, member)| {
            let name = member.instance.as_deref().unwrap_or("dynamic");
            let owned = self
                .owned
                .iter()
                .filter(|(_, owner)| *owner == id)
                .map(|(at, _)| at.to_string());
            format!(
                "member {id} ({name}, silent {}, seen {:?}): {}",
                member.silent,
                member.seen,
                owned.collect::<Vec<_>>().join(" ")
            )
        });
        members.collect::<Vec<_>>().join("; ")
    }

    pub fn is_current(&self, id: MemberId, generation: u64) -> bool {
        self.members.contains_key(&id) && self.generation == generation
    }

    pub fn owner(&self, at: &TopicPartition) -> Option<MemberId> {
        self.owned.get(at).copied()
    }

    /// The generation that a member knows.
    pub fn generation(&self, id: MemberId) -> u64 {
        self.members.get(&id).map_or(0, |member| member.generation)
    }

    pub fn gave_up(&mut self, id: MemberId, partitions: &[TopicPartition]) {
        self.owned.retain(|at, owner| *owner != id || !partitions.contains(at));
        self.target = None;
    }

    /// Sticky: who owns a partition keeps it while nobody has two less.
    fn target(&self) -> BTreeMap<TopicPartition, MemberId> {
        let group = self;
        let wants = |id: &MemberId, at: &TopicPartition| {
            group
                .members
                .get(id)
                .is_some_and(|member| member.topics.contains(&at.topic))
        };
        let read = self
            .partitions
            .iter()
            .filter(|at| group.members.keys().any(|id| wants(id, at)));
        let read: Vec<&TopicPartition> = read.collect();
        let most = read.len().div_ceil(group.members.len().max(1));
        let mut load: BTreeMap<MemberId, usize> = group.members.keys().map(|id| (*id, 0)).collect();
        let mut target = BTreeMap::new();
        for at in &read {
            if let Some(owner) = group
                .owned
                .get(*at)
                .filter(|owner| load.get(owner).is_some_and(|n| *n < most))
            {
                *load.entry(*owner).or_default() += 1;
                target.insert((*at).clone(), *owner);
            }
        }
        for at in read {
            if !target.contains_key(at)
                && let Some((id, n)) = load.iter_mut().min_by_key(|(id, n)| (**n, **id))
            {
                *n += 1;
                target.insert(at.clone(), *id);
            }
        }
        target
    }
}
