//! The brokers of a simulation: partitions, transactions, and messages still on their way.
//!
//! Owns: what a Kafka cluster would do under its first transaction protocol (the one librdkafka speaks): open, decided and
//! finished transactions, the last stable offset, producer epochs.
//! Invariant: one seed gives one history. Nothing here looks at a clock; [`Broker::now`] is set by the world.
//! Absent: the group (`group.rs`), the clients' view and their faults (`client.rs`), replication (an acknowledged record is never lost).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use accrue::stream::log::{Cleanup, DELETIONS_KEPT, LogError, LogErrorKind, Positions, TopicSpec};
use accrue::stream::record::{Offset, Outgoing, Partition, Record, Topic, TopicPartition};

use super::group::{Group, MemberId};
use super::partition::{Log, Slot, State, TxnId};
use super::rng::Rng;

/// The coordinator aborts a transaction that is open for longer, and fences its producer.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// A decided transaction that committed, for the checks.
pub struct Decided {
    pub txn: TxnId,
    pub producer: String,
    pub records: Vec<Record>,
    pub offsets: Positions,
}

struct Ongoing {
    txn: TxnId,
    since: Duration,
    partitions: BTreeSet<TopicPartition>,
    offsets: Positions,
}

enum Phase {
    Empty,
    Ongoing(Ongoing),
    /// Decided; the partitions and the group still have to learn it.
    Ending {
        ongoing: Ongoing,
        commit: bool,
    },
}

struct Coordinator {
    epoch: u64,
    phase: Phase,
}

/// A request that its sender has given up waiting for.
struct Message {
    due: Duration,
    producer: String,
    epoch: u64,
    commit: bool,
}

/// See the module.
pub struct Broker {
    pub now: Duration,
    pub rng: Rng,
    pub logs: BTreeMap<TopicPartition, Log>,
    pub committed: Positions,
    pub history: Vec<Decided>,
    /// What no cluster may see; the run fails on any.
    pub violations: Vec<String>,
    /// Of a hundred decided transactions, how many do not reach their partitions at once.
    pub slow_markers: u64,
    /// Of a hundred moments, in how many such a transaction reaches one more partition.
    pub marker_pace: u64,
    coordinators: BTreeMap<String, Coordinator>,
    pub group: Group,
    messages: Vec<Message>,
    next_txn: TxnId,
}

fn fenced(message: impl Into<String>) -> LogError {
    LogError::new(LogErrorKind::Fenced, message)
}

impl Broker {
    pub fn new(rng: Rng) -> Broker {
        Broker {
            now: Duration::ZERO,
            rng,
            logs: BTreeMap::new(),
            committed: Positions::new(),
            history: Vec::new(),
            violations: Vec::new(),
            slow_markers: 0,
            marker_pace: 100,
            coordinators: BTreeMap::new(),
            group: Group::default(),
            messages: Vec::new(),
            next_txn: 0,
        }
    }

    pub fn create(&mut self, spec: &TopicSpec) {
        for n in 0..spec.partitions {
            let log = self
                .logs
                .entry(TopicPartition::new(&spec.topic, Partition(n)))
                .or_default();
            log.compacted = spec.cleanup == Cleanup::Compact;
            self.group
                .partitions
                .insert(TopicPartition::new(&spec.topic, Partition(n)));
        }
    }

    pub fn partitions(&self, topic: &Topic) -> Option<u32> {
        let count = self.logs.keys().filter(|at| at.topic == *topic).count() as u32;
        (count > 0).then_some(count)
    }

    pub fn log(&self, at: &TopicPartition) -> Result<&Log, LogError> {
        self.logs
            .get(at)
            .ok_or_else(|| LogError::fatal(format!("there is no partition {at}")))
    }

    /// Of everything written, in order.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (at, log) in &self.logs {
            (at.topic.as_str(), at.partition.0, log.slots.len()).hash(&mut hasher);
            for slot in &log.slots {
                (slot.state as u8, slot.txn).hash(&mut hasher);
                slot.record
                    .as_ref()
                    .map(|record| (&record.key, &record.value))
                    .hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Writes outside transactions, as the CRM's connector does.
    pub fn append(&mut self, out: Outgoing) {
        self.push(out, None, State::Committed);
    }

    fn push(&mut self, out: Outgoing, txn: Option<TxnId>, state: State) -> Offset {
        let log = self.logs.entry(out.to.clone()).or_default();
        let offset = log.end();
        log.push(Slot {
            txn,
            state,
            gone: false,
            alone_since: None,
            record: Some(Record {
                at: out.to,
                offset,
                timestamp: out.timestamp,
                key: out.key,
                value: out.value,
                headers: out.headers,
            }),
        });
        offset
    }

    // Transactions.

    /// `InitProducerId`: fences older producers of the name and ends what they left open.
    pub fn init(&mut self, producer: &str) -> Result<u64, LogError> {
        let known = self.coordinators.entry(producer.to_owned()).or_insert(Coordinator {
            epoch: 0,
            phase: Phase::Empty,
        });
        if let Phase::Ongoing(_) = known.phase {
            known.epoch += 1;
            self.decide(producer, false);
        }
        if self.is_ending(producer) {
            return Err(LogError::retry("concurrent transactions: the last one is still ending"));
        }
        let known = self.coordinator(producer)?;
        known.epoch += 1;
        Ok(known.epoch)
    }

    fn coordinator(&mut self, producer: &str) -> Result<&mut Coordinator, LogError> {
        self.coordinators
            .get_mut(producer)
            .ok_or_else(|| LogError::fatal(format!("there is no producer {producer}")))
    }

    fn is_ending(&self, producer: &str) -> bool {
        matches!(
            self.coordinators.get(producer).map(|known| &known.phase),
            Some(Phase::Ending { .. })
        )
    }

    /// The open transaction of a producer, begun if there is none.
    fn ongoing(&mut self, producer: &str, epoch: u64) -> Result<&mut Ongoing, LogError> {
        // A client waits for its last transaction to end before it adds to the next.
        while self.is_ending(producer) {
            self.spread(producer);
        }
        let (now, next) = (self.now, &mut self.next_txn);
        let known = self
            .coordinators
            .get_mut(producer)
            .filter(|known| known.epoch == epoch)
            .ok_or_else(|| fenced(format!("a newer producer uses {producer}")))?;
        if let Phase::Empty = known.phase {
            *next += 1;
            known.phase = Phase::Ongoing(Ongoing {
                txn: *next,
                since: now,
                partitions: BTreeSet::new(),
                offsets: Positions::new(),
            });
        }
        match &mut known.phase {
            Phase::Ongoing(ongoing) => Ok(ongoing),
            Phase::Empty | Phase::Ending { .. } => Err(LogError::fatal("no transaction")),
        }
    }

    pub fn produce(&mut self, producer: &str, epoch: u64, out: Outgoing) -> Result<Offset, LogError> {
        let ongoing = self.ongoing(producer, epoch)?;
        ongoing.partitions.insert(out.to.clone());
        let txn = ongoing.txn;
        Ok(self.push(out, Some(txn), State::Open))
    }

    /// `TxnOffsetCommit` (KIP-447): the group looks at the generation, and at nothing else.
    pub fn offsets(
        &mut self,
        producer: &str,
        epoch: u64,
        offsets: &Positions,
        member: MemberId,
        generation: u64,
    ) -> Result<(), LogError> {
        self.group.expire(self.now);
        if !self.group.is_current(member, generation) {
            return Err(fenced("unknown member or illegal generation"));
        }
        for at in offsets.keys() {
            if let Some(owner) = self.group.owner(at).filter(|owner| *owner != member) {
                self.violations
                    .push(format!("member {member} commits for {at}, which {owner} owns"));
            }
        }
        let ongoing = self.ongoing(producer, epoch)?;
        ongoing.offsets.extend(offsets.clone());
        Ok(())
    }

    /// `EndTxn`.
    pub fn end_txn(&mut self, producer: &str, epoch: u64, commit: bool) -> Result<(), LogError> {
        let known = self.coordinator(producer)?;
        if known.epoch != epoch {
            return Err(fenced(format!("a newer producer uses {producer}")));
        }
        match known.phase {
            Phase::Ongoing(_) => {
                self.decide(producer, commit);
                Ok(())
            }
            // Nothing was added, so there is nothing to end.
            Phase::Empty => Ok(()),
            Phase::Ending { .. } => Ok(()),
        }
    }

    /// An `EndTxn` that arrives later, though nobody waits for its answer.
    pub fn end_txn_later(&mut self, producer: &str, epoch: u64, commit: bool) {
        let due = self.now + Duration::from_millis(self.rng.below(3_000));
        self.messages.push(Message {
            due,
            producer: producer.to_owned(),
            epoch,
            commit,
        });
    }

    fn decide(&mut self, producer: &str, commit: bool) {
        let Some(known) = self.coordinators.get_mut(producer) else {
            return;
        };
        let Phase::Ongoing(ongoing) = std::mem::replace(&mut known.phase, Phase::Empty) else {
            return;
        };
        if commit {
            let slots = ongoing
                .partitions
                .iter()
                .filter_map(|at| self.logs.get(at))
                .flat_map(|log| &log.slots);
            let ours = slots.filter(|slot| slot.txn == Some(ongoing.txn));
            self.history.push(Decided {
                txn: ongoing.txn,
                producer: producer.to_owned(),
                records: ours.filter_map(|slot| slot.record.clone()).collect(),
                offsets: ongoing.offsets.clone(),
            });
        }
        known.phase = Phase::Ending { ongoing, commit };
        let slow = self.rng.chance(self.slow_markers);
        while !slow && self.is_ending(producer) {
            self.spread(producer);
        }
    }

    /// Tells one more partition (or, at the end, the group) how a transaction ended.
    fn spread(&mut self, producer: &str) {
        let Some(known) = self.coordinators.get_mut(producer) else {
            return;
        };
        let Phase::Ending { ongoing, commit } = &mut known.phase else {
            return;
        };
        let turn = self.rng.below(ongoing.partitions.len() as u64) as usize;
        if let Some(at) = ongoing.partitions.iter().nth(turn).cloned() {
            ongoing.partitions.remove(&at);
            let log = self.logs.entry(at).or_default();
            let ended = if *commit { State::Committed } else { State::Aborted };
            for slot in log.slots.iter_mut().filter(|slot| slot.txn == Some(ongoing.txn)) {
                slot.state = ended;
            }
            log.push(Slot {
                txn: Some(ongoing.txn),
                state: State::Marker,
                gone: false,
                alone_since: None,
                record: None,
            });
            return;
        }
        if *commit {
            self.committed.extend(std::mem::take(&mut ongoing.offsets));
        }
        known.phase = Phase::Empty;
    }

    /// Whether an undecided transaction holds an offset of this partition (a fetch of stable offsets has to wait).
    pub fn is_unstable(&self, at: &TopicPartition) -> bool {
        self.coordinators.values().any(|known| match &known.phase {
            Phase::Ongoing(ongoing) | Phase::Ending { ongoing, .. } => ongoing.offsets.contains_key(at),
            Phase::Empty => false,
        })
    }

    /// Whether any transaction is open or still ending.
    pub fn is_busy(&self) -> bool {
        !self.messages.is_empty()
            || self
                .coordinators
                .values()
                .any(|known| !matches!(known.phase, Phase::Empty))
    }

    /// What happens by itself: late messages arrive, decisions spread, timeouts strike, compaction cleans.
    pub fn background(&mut self) {
        let (due, later) = std::mem::take(&mut self.messages)
            .into_iter()
            .partition::<Vec<_>, _>(|message| message.due <= self.now);
        self.messages = later;
        for message in due {
            // Nobody hears of it if the producer is fenced by now.
            let _ = self.end_txn(&message.producer, message.epoch, message.commit);
        }
        let names: Vec<String> = self.coordinators.keys().cloned().collect();
        for name in names {
            if self.is_ending(&name) && self.rng.chance(self.marker_pace) {
                self.spread(&name);
            }
            let now = self.now;
            let Some(known) = self.coordinators.get_mut(&name) else {
                continue;
            };
            if let Phase::Ongoing(ongoing) = &known.phase
                && now > ongoing.since + TRANSACTION_TIMEOUT
            {
                known.epoch += 1;
                self.decide(&name, false);
            }
        }
        self.group.expire(self.now);
        if self.rng.chance(2) {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let now = self.now;
        for log in self.logs.values_mut().filter(|log| log.compacted) {
            let stable = log.stable().0 as usize;
            let mut seen = BTreeSet::new();
            for slot in log.slots[..stable]
                .iter_mut()
                .rev()
                .filter(|slot| slot.state == State::Committed)
            {
                let Some(record) = &slot.record else { continue };
                if !record.key.clone().is_some_and(|key| seen.insert(key)) {
                    slot.gone = true;
                } else if record.value.is_none() {
                    // A deletion is kept for a while, so that readers hear of it (KIP-534).
                    let since = *slot.alone_since.get_or_insert(now);
                    slot.gone |= now > since + DELETIONS_KEPT;
                }
            }
        }
    }
}
