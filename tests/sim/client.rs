//! The log port over simulated brokers, with faults at every call.
//!
//! Owns: what a client of Kafka suffers: calls that fail before or after their effect, and the death of the process in
//! the middle of a call. Absent: the brokers themselves (`broker.rs`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use accrue::stream::log::{
    Consumer, GroupSpec, Log, LogError, LogErrorKind, Positions, Producer, Reader, TopicFound, TopicSpec,
};
use accrue::stream::record::{Offset, Partition, Record, Timestamp, Topic, TopicPartition};

use super::broker::Broker;
use super::consumer::SimConsumer;
use super::group::Vital;
use super::producer::SimProducer;

/// How often each kind of trouble comes, in a thousand calls.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trouble {
    pub fails: u64,
    pub dies: u64,
    /// Of a hundred commits, those whose outcome the client does not learn.
    pub unknown: u64,
}

/// Unwinds a thread whose process dies in the middle of a call.
pub struct Died;

/// One process's view of the brokers; clones share it.
#[derive(Clone)]
pub struct SimLog {
    broker: Arc<Mutex<Broker>>,
    trouble: Arc<Mutex<Trouble>>,
    pub vital: Arc<Vital>,
}

/// What becomes of a call.
pub enum Fate {
    Goes,
    FailsBefore,
    FailsAfter,
    DiesAfter,
}

impl SimLog {
    pub fn new(broker: Arc<Mutex<Broker>>, trouble: Arc<Mutex<Trouble>>) -> SimLog {
        SimLog {
            broker,
            trouble,
            vital: Arc::default(),
        }
    }

    /// The same brokers, for another process.
    pub fn of_another_process(&self) -> SimLog {
        SimLog::new(self.broker.clone(), self.trouble.clone())
    }

    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().expect("broker")
    }

    pub fn trouble(&self) -> Trouble {
        *self.trouble.lock().expect("trouble")
    }

    pub fn die(&self) -> ! {
        self.vital.dead.store(true, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new(Died))
    }

    /// What becomes of a call. It may die here.
    pub fn fate(&self) -> Fate {
        let trouble = self.trouble();
        let mut broker = self.broker();
        if trouble.fails > 0 && broker.rng.rarely(20) {
            broker.background();
        }
        if self.vital.cut.load(Ordering::SeqCst) {
            return Fate::FailsBefore;
        }
        if broker.rng.rarely(trouble.dies) {
            if broker.rng.chance(50) {
                return Fate::DiesAfter;
            }
            drop(broker);
            self.die();
        }
        if broker.rng.rarely(trouble.fails) {
            return if broker.rng.chance(50) {
                Fate::FailsBefore
            } else {
                Fate::FailsAfter
            };
        }
        Fate::Goes
    }

    /// A call that may fail before or after its effect.
    pub fn call<T>(
        &self,
        kind: LogErrorKind,
        effect: impl FnOnce(&mut Broker) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let fate = self.fate();
        let away = || Err(LogError::new(kind, "planned: the brokers are away"));
        match fate {
            Fate::FailsBefore => away(),
            Fate::Goes => effect(&mut self.broker()),
            Fate::FailsAfter => {
                effect(&mut self.broker())?;
                away()
            }
            Fate::DiesAfter => {
                let _ = effect(&mut self.broker());
                self.die()
            }
        }
    }
}

impl Log for SimLog {
    fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicFound>, LogError> {
        let mut broker = self.broker();
        let found = |spec: &TopicSpec| {
            let created = broker.partitions(&spec.topic).is_none();
            broker.create(spec);
            TopicFound {
                topic: spec.topic.clone(),
                partitions: spec.partitions,
                created,
            }
        };
        Ok(specs.iter().map(found).collect())
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, LogError> {
        Ok(self.broker().partitions(topic))
    }

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        self.call(LogErrorKind::Retry, |_| Ok(()))?;
        Ok(Box::new(SimConsumer::join(self.clone(), group.clone())))
    }

    fn producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>, LogError> {
        let epoch = self.call(LogErrorKind::Retry, |broker| broker.init(transactional_id))?;
        Ok(Box::new(SimProducer::new(self.clone(), transactional_id, epoch)))
    }

    fn reader(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, LogError> {
        self.call(LogErrorKind::Retry, |_| Ok(()))?;
        Ok(Box::new(SimReader {
            log: self.clone(),
            at: at.clone(),
            next: from,
        }))
    }

    fn end(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        self.call(LogErrorKind::Retry, |broker| Ok(broker.log(at)?.end()))
    }

    fn stable_end(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        self.call(LogErrorKind::Retry, |broker| Ok(broker.log(at)?.stable()))
    }

    fn start(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        self.call(LogErrorKind::Retry, |broker| broker.log(at).map(|_| Offset(0)))
    }

    fn committed(&self, _group: &str, of: &[TopicPartition]) -> Result<Positions, LogError> {
        self.call(LogErrorKind::Retry, |broker| committed(broker, of))
    }

    // What operators do between two lives of an application is not simulated.
    fn members(&self, _group: &str) -> Result<usize, LogError> {
        Err(LogError::fatal("not simulated"))
    }

    fn move_group(&self, _group: &str, _to: &Positions) -> Result<(), LogError> {
        Err(LogError::fatal("not simulated"))
    }

    fn grow(&self, _topic: &Topic, _partitions: u32) -> Result<(), LogError> {
        Err(LogError::fatal("not simulated"))
    }

    fn offset_at(&self, _at: &TopicPartition, _time: Timestamp) -> Result<Offset, LogError> {
        Err(LogError::fatal("not simulated"))
    }
}

/// Stable committed offsets (KIP-447's `RequireStable`).
pub fn committed(broker: &Broker, of: &[TopicPartition]) -> Result<Positions, LogError> {
    if of.iter().any(|at| broker.is_unstable(at)) {
        return Err(LogError::retry("unstable offset commit"));
    }
    Ok(of
        .iter()
        .filter_map(|at| Some((at.clone(), *broker.committed.get(at)?)))
        .collect())
}

/// Committed records from `from` on, some of them, and the position after them.
pub fn fetch(broker: &mut Broker, at: &TopicPartition, from: Offset, most: u64) -> (Vec<Record>, Offset) {
    let most = 1 + broker.rng.below(most) as usize;
    let Some(log) = broker.logs.get(at) else {
        return (Vec::new(), from);
    };
    let stable = log.stable();
    let records: Vec<Record> = log.visible(from, stable).take(most).cloned().collect();
    let next = match records.last() {
        Some(last) if records.len() == most => last.offset.next(),
        Some(_) | None => stable.max(from),
    };
    (records, next)
}

struct SimReader {
    log: SimLog,
    at: TopicPartition,
    next: Offset,
}

impl Reader for SimReader {
    fn read(&mut self, _timeout: Duration) -> Result<Vec<Record>, LogError> {
        self.log.call(LogErrorKind::Retry, |_| Ok(()))?;
        let (records, next) = fetch(&mut self.log.broker(), &self.at, self.next, 20);
        self.next = next;
        Ok(records)
    }

    fn position(&self) -> Result<Offset, LogError> {
        Ok(self.next)
    }
}

/// Partition `n` of a topic.
pub fn at(topic: &Topic, n: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(n))
}
