//! The work of one partition of one sub-topology.
//!
//! Owns: a task's state, its inputs' buffers, its processor, overlay and store.
//!
//! ```text
//!   (assigned) --> Restoring --> Running --> (closed)
//!                      |                        ^
//!                      `------------------------'   revoked, lost, or recovering from a fault
//! ```
//!
//! A task without stores starts Running. A task that recovers is closed and made anew: one way back, through restore.
//! Invariant: records are handed to the processor in offset order per partition, and across partitions the oldest
//! timestamp first.
//! Absent: the log; `thread.rs` feeds a task and commits for it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::fault::Fault;
use super::overlay::Overlay;
use super::processor::{Context, Failure, Processor, Progress, Rejected};
use super::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use super::restore::Restore;
use super::store::TaskStore;

/// A sub-topology and a partition.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TaskId {
    pub sub: String,
    pub partition: Partition,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub, self.partition)
    }
}

/// See the diagram above.
pub enum TaskState {
    Restoring(Restore),
    Running,
}

/// One task.
pub struct Task {
    pub id: TaskId,
    pub state: TaskState,
    pub inputs: BTreeMap<TopicPartition, Input>,
    pub overlay: Overlay,
    pub store: Option<TaskStore>,
    store_names: Vec<String>,
    processor: Box<dyn Processor>,
    stream_time: Timestamp,
}

/// One input partition of a task.
#[derive(Default)]
pub struct Input {
    pub buffer: VecDeque<Record>,
    pub paused: bool,
    /// The offset after the last record processed since the last commit.
    pub processed: Option<Offset>,
}

/// What processing one record led to.
pub struct Step {
    pub record: Record,
    pub outcome: Outcome,
    pub outgoing: Vec<Outgoing>,
    pub rejected: Vec<Rejected>,
}

/// Whether the record is finished.
pub enum Outcome {
    Done,
    /// The processor wants the same record again.
    More,
}

impl Task {
    pub fn new(id: TaskId, state: TaskState, processor: Box<dyn Processor>, store_names: Vec<String>) -> Task {
        Task {
            id,
            state,
            inputs: BTreeMap::new(),
            overlay: Overlay::new(store_names.len()),
            store: None,
            store_names,
            processor,
            stream_time: Timestamp(i64::MIN),
        }
    }

    pub fn is_running(&self) -> bool {
        match self.state {
            TaskState::Running => true,
            TaskState::Restoring(_) => false,
        }
    }

    /// The timestamp of changelog records: the newest record processed.
    pub fn newest_timestamp(&self) -> Timestamp {
        Timestamp(self.stream_time.0.max(0))
    }

    /// The restored store is in place: the processor loads what it keeps in memory.
    pub fn run(&mut self, store: Option<TaskStore>, partitions: &BTreeMap<Topic, u32>) -> Result<(), Fault> {
        self.store = store;
        self.state = TaskState::Running;
        let mut outgoing = Vec::new();
        let mut rejected = Vec::new();
        let mut cx = context(
            &self.id,
            &self.store_names,
            &mut self.overlay,
            self.store.as_ref(),
            partitions,
            &mut outgoing,
            &mut rejected,
        );
        match self.processor.open(&mut cx) {
            Ok(()) => Ok(()),
            Err(Failure::Fault(fault)) => Err(fault),
            Err(Failure::Record(why)) => Err(Fault::Corrupted {
                task: self.id.clone(),
                message: format!("{}: {}", why.code, why.message),
            }),
        }
    }

    /// Lets the processor act between records. Whether it staged anything that a commit must carry, and what it emits.
    pub fn tick(&mut self, now: Timestamp, partitions: &BTreeMap<Topic, u32>) -> Result<(bool, Vec<Outgoing>), Fault> {
        let mut outgoing = Vec::new();
        let mut rejected = Vec::new();
        let mut cx = context(
            &self.id,
            &self.store_names,
            &mut self.overlay,
            self.store.as_ref(),
            partitions,
            &mut outgoing,
            &mut rejected,
        );
        self.processor.tick(now, &mut cx)?;
        let staged = self.overlay.is_touched() || !outgoing.is_empty();
        self.overlay.keep();
        Ok((staged, outgoing))
    }

    /// Tells the processor that what it staged is durable.
    pub fn committed(&mut self) {
        self.processor.committed();
    }

    /// The partition whose first buffered record is oldest. `None` when nothing is buffered, or when an empty
    /// partition may still hold an older record (`caught_up` tells) and `patient`.
    fn choose(&self, patient: bool, caught_up: &dyn Fn(&TopicPartition) -> bool) -> Option<TopicPartition> {
        let mut oldest: Option<(Timestamp, &TopicPartition)> = None;
        for (at, input) in &self.inputs {
            match input.buffer.front() {
                Some(record) if oldest.is_none_or(|(timestamp, _)| record.timestamp < timestamp) => {
                    oldest = Some((record.timestamp, at));
                }
                None if patient && !caught_up(at) => return None,
                Some(_) | None => {}
            }
        }
        oldest.map(|(_, at)| at.clone())
    }

    /// Processes one buffered record, if one may be processed now.
    pub fn step(
        &mut self,
        patient: bool,
        caught_up: &dyn Fn(&TopicPartition) -> bool,
        partitions: &BTreeMap<Topic, u32>,
    ) -> Result<Option<Step>, Fault> {
        let Some(at) = self.choose(patient, caught_up) else {
            return Ok(None);
        };
        let Some(record) = self.inputs.get_mut(&at).and_then(|input| input.buffer.pop_front()) else {
            return Ok(None);
        };
        let mut outgoing = Vec::new();
        let mut rejected = Vec::new();
        let mut cx = context(
            &self.id,
            &self.store_names,
            &mut self.overlay,
            self.store.as_ref(),
            partitions,
            &mut outgoing,
            &mut rejected,
        );
        let mut done = self.processor.process(&record, &mut cx);
        if matches!(done, Ok(Progress::Done)) && record.timestamp > self.stream_time {
            done = self
                .processor
                .punctuate(record.timestamp, &mut cx)
                .map(|()| Progress::Done);
        }
        let outcome = match done {
            Ok(Progress::Done) => {
                self.stream_time = self.stream_time.max(record.timestamp);
                Outcome::Done
            }
            Ok(Progress::More) => Outcome::More,
            Err(Failure::Record(why)) => {
                self.overlay.rollback();
                outgoing.clear();
                rejected.clear();
                rejected.push(why);
                Outcome::Done
            }
            Err(Failure::Fault(fault)) => return Err(fault),
        };
        self.overlay.keep();
        if let Some(input) = self.inputs.get_mut(&at) {
            match outcome {
                Outcome::Done => input.processed = Some(record.offset.next()),
                Outcome::More => input.buffer.push_front(record.clone()),
            }
        }
        Ok(Some(Step {
            record,
            outcome,
            outgoing,
            rejected,
        }))
    }
}

/// A context over a task's parts, while its processor is borrowed.
fn context<'a>(
    task: &'a TaskId,
    store_names: &'a [String],
    overlay: &'a mut Overlay,
    store: Option<&'a TaskStore>,
    partitions: &'a BTreeMap<Topic, u32>,
    outgoing: &'a mut Vec<Outgoing>,
    rejected: &'a mut Vec<Rejected>,
) -> Context<'a> {
    Context {
        task,
        store_names,
        overlay,
        store,
        partitions,
        outgoing,
        rejected,
    }
}
