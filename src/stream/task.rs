//! The work of one partition of one sub-topology.
//!
//! Owns: a task's state, its inputs' buffers, its processor, overlay and store.
//!
//! ```text
//!   (assigned) --> Created --> Restoring --> Running --> (revoked, lost)
//!                    ^             |            |
//!                    `-------------+------------'   back to the last commit, after a fault
//! ```
//!
//! A task without stores skips Restoring. There is one way back: a new processor, and the store through a restore.
//! Invariant: records are handed to the processor in offset order per partition, and across partitions the oldest
//! timestamp first.
//! Absent: the log; `thread.rs` feeds a task and commits for it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::overlay::Overlay;
use super::processor::{Context, Failure, Processor, Progress, Rejected};
use super::query::{Queries, Shown};
use super::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use super::restore::Restore;
use super::seeded::{self, Bug};
use super::standby::Claim;
use super::store::TaskStore;

/// How long a task waits for an input before that is logged.
const TELL_HELD_AFTER: Duration = Duration::from_secs(10);

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
    Created,
    Restoring(Restore),
    Running,
}

/// One task.
pub struct Task {
    pub id: TaskId,
    pub state: TaskState,
    pub inputs: BTreeMap<TopicPartition, Input>,
    pub overlay: Overlay,
    /// What lets others read the store. First, so that nobody reads a store that is let go.
    shown: Option<Shown>,
    pub store: Option<Arc<TaskStore>>,
    store_names: Vec<String>,
    processor: Box<dyn Processor>,
    stream_time: Timestamp,
    /// Whether something was staged since the last commit.
    staged: bool,
    /// While an empty input holds back older-first merging.
    hold: Option<Hold>,
    /// Until when the inputs that were found at their ends are taken to be there.
    free_until: Duration,
    /// The right to the store. Last, so that it goes after the store.
    pub claim: Option<Claim>,
}

/// Whether everything of a partition was handed out.
pub struct Ends<'a> {
    /// As far as is known.
    pub known: &'a dyn Fn(&TopicPartition) -> bool,
    /// For certain, which may take a while.
    pub asked: &'a dyn Fn(&TopicPartition) -> bool,
}

/// A task that has records and waits for others.
struct Hold {
    since: Duration,
    /// When ends were last asked for; before the first time, since when it waits.
    asked: Duration,
    /// Whether it was logged.
    told: bool,
}

impl Hold {
    fn new(now: Duration) -> Hold {
        Hold {
            since: now,
            asked: now,
            told: false,
        }
    }
}

/// One input partition of a task.
pub struct Input {
    buffer: VecDeque<Record>,
    /// Of the records in the buffer.
    bytes: usize,
    pub paused: bool,
    /// Where the task goes on; `None` until a record came.
    pub next: Option<Offset>,
}

impl Input {
    /// The input of a task that does not run yet.
    pub fn held() -> Input {
        Input {
            buffer: VecDeque::new(),
            bytes: 0,
            paused: true,
            next: None,
        }
    }

    pub fn push(&mut self, record: Record) {
        self.next.get_or_insert(record.offset);
        self.bytes += record.bytes();
        self.buffer.push_back(record);
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.bytes = 0;
    }

    /// The next record.
    pub fn first(&self) -> Option<&Record> {
        self.buffer.front()
    }

    /// Records that wait.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Memory of the records that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self) -> Option<Record> {
        let record = self.buffer.pop_front()?;
        self.bytes -= record.bytes();
        Some(record)
    }

    fn give_back(&mut self, record: Record) {
        self.bytes += record.bytes();
        self.buffer.push_front(record);
    }
}

/// What processing one record led to.
pub struct Step {
    pub record: Record,
    pub outcome: Outcome,
    pub outgoing: Vec<Outgoing>,
    pub rejected: Vec<Rejected>,
    /// What timers could not do that were due by the record's time; the record has no part in it.
    pub overdue: Vec<Rejected>,
}

/// What a call of the processor led to.
struct Staged<R> {
    result: R,
    outgoing: Vec<Outgoing>,
    rejected: Vec<Rejected>,
}

/// Whether the record is finished.
pub enum Outcome {
    Done,
    /// The processor wants the same record again.
    More,
}

impl Task {
    pub fn new(id: TaskId, processor: Box<dyn Processor>, store_names: Vec<String>) -> Task {
        Task {
            id,
            state: TaskState::Created,
            inputs: BTreeMap::new(),
            overlay: Overlay::new(store_names.len()),
            shown: None,
            store: None,
            store_names,
            processor,
            stream_time: Timestamp(i64::MIN),
            staged: false,
            hold: None,
            free_until: Duration::ZERO,
            claim: None,
        }
    }

    /// Back to the last commit: all that is not committed is dropped, and the store let go.
    pub fn restart(&mut self, processor: Box<dyn Processor>) {
        if seeded::has(Bug::OverlayKept) {
            self.inputs.values_mut().for_each(|input| *input = Input::held());
            return;
        }
        let mut fresh = Task::new(self.id.clone(), processor, std::mem::take(&mut self.store_names));
        for at in self.inputs.keys() {
            fresh.inputs.insert(at.clone(), Input::held());
        }
        fresh.claim = self.claim.take();
        *self = fresh;
    }

    pub fn is_running(&self) -> bool {
        match self.state {
            TaskState::Running => true,
            TaskState::Created | TaskState::Restoring(_) => false,
        }
    }

    /// Whether a record waits to be processed.
    pub fn has_work(&self) -> bool {
        self.is_running() && self.inputs.values().any(|input| !input.is_empty())
    }

    /// Whether it has work, but waits for an input that may bring an older record.
    pub fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether a commit has something of this task to carry.
    pub fn is_staged(&self) -> bool {
        self.staged
    }

    /// The timestamp of changelog records: the newest record processed.
    pub fn newest_timestamp(&self) -> Timestamp {
        Timestamp(self.stream_time.0.max(0))
    }

    /// The restored store is in place: the processor loads what it keeps in memory. After an error the task has to be
    /// restarted.
    pub fn run(&mut self, store: Option<TaskStore>, partitions: &BTreeMap<Topic, u32>) -> Result<(), Fault> {
        self.store = store.map(Arc::new);
        let fault = match self.stage(partitions, |processor, cx| processor.open(cx)).result {
            Ok(()) => {
                self.state = TaskState::Running;
                return Ok(());
            }
            Err(Failure::Fault(fault)) => fault,
            Err(Failure::Record(why)) => Fault::Corrupted {
                task: self.id.clone(),
                message: format!("{}: {}", why.code, why.message),
            },
        };
        self.store = None;
        self.state = TaskState::Created;
        Err(fault)
    }

    /// Lets the processor act between records. Whether it staged anything that a commit must carry, and what it emits.
    pub fn tick(&mut self, now: Timestamp, partitions: &BTreeMap<Topic, u32>) -> Result<(bool, Vec<Outgoing>), Fault> {
        let Staged { result, outgoing, .. } = self.stage(partitions, |processor, cx| processor.tick(now, cx));
        result?;
        let staged = self.overlay.is_touched() || !outgoing.is_empty();
        self.overlay.keep();
        self.staged |= staged;
        Ok((staged, outgoing))
    }

    /// All that was staged is durable.
    pub fn committed(&mut self) {
        self.staged = false;
        self.overlay.clear();
        if self.is_running() {
            self.processor.committed();
        }
    }

    /// Calls the processor with a context over the rest of the task.
    fn stage<R>(
        &mut self,
        partitions: &BTreeMap<Topic, u32>,
        call: impl FnOnce(&mut dyn Processor, &mut Context<'_>) -> R,
    ) -> Staged<R> {
        let (mut outgoing, mut rejected) = (Vec::new(), Vec::new());
        let mut cx = Context {
            task: &self.id,
            store_names: &self.store_names,
            overlay: &mut self.overlay,
            store: self.store.as_deref(),
            partitions,
            outgoing: &mut outgoing,
            rejected: &mut rejected,
        };
        let result = call(self.processor.as_mut(), &mut cx);
        Staged {
            result,
            outgoing,
            rejected,
        }
    }

    /// Lets others read what is committed, until the store is let go.
    pub fn show(&mut self, queries: &Queries) {
        self.shown = self.store.as_ref().map(|store| queries.show(&self.id, store.clone()));
    }

    /// The partition whose first buffered record is oldest. `None` when nothing is buffered, or while an empty partition may
    /// still bring an older record: where it is not known to be at its end, the end is asked for after `ask_after` and then
    /// again and again, and nothing is processed before the answer (KIP-695). So what is merged does not depend on how fast
    /// each partition is fetched, or whether the brokers are there.
    fn choose(&mut self, now: Duration, ask_after: Duration, ends: &Ends<'_>) -> Option<TopicPartition> {
        let mut oldest: Option<(Timestamp, &TopicPartition)> = None;
        let mut lacking = Vec::new();
        for (at, input) in &self.inputs {
            match input.first() {
                Some(record) if oldest.is_none_or(|(timestamp, _)| record.timestamp < timestamp) => {
                    oldest = Some((record.timestamp, at));
                }
                Some(_) => {}
                None if (ends.known)(at) => {}
                None => lacking.push(at),
            }
        }
        let (_, at) = oldest?;
        if !lacking.is_empty() && now >= self.free_until {
            let hold = self.hold.get_or_insert(Hold::new(now));
            if now.saturating_sub(hold.asked) < ask_after {
                return None;
            }
            hold.asked = now;
            if let Some(behind) = lacking.into_iter().find(|at| !(ends.asked)(at)) {
                if !hold.told && now.saturating_sub(hold.since) > TELL_HELD_AFTER {
                    hold.told = true;
                    tracing::warn!(task = %self.id, at = %behind, "waiting for records that are not delivered; older ones than those at hand may be among them");
                }
                return None;
            }
            self.free_until = now + ask_after;
        }
        self.hold = None;
        Some(at.clone())
    }

    /// Processes one buffered record, if one may be processed now. After an error the processor may hold half of it in
    /// memory: the task has to be restarted.
    pub fn step(
        &mut self,
        now: Duration,
        ask_after: Duration,
        ends: &Ends<'_>,
        partitions: &BTreeMap<Topic, u32>,
    ) -> Result<Option<Step>, Fault> {
        let Some(at) = self.choose(now, ask_after, ends) else {
            return Ok(None);
        };
        let Some(record) = self.inputs.get_mut(&at).and_then(|input| input.take()) else {
            return Ok(None);
        };
        let Staged {
            result,
            mut outgoing,
            mut rejected,
        } = self.stage(partitions, |processor, cx| processor.process(&record, cx));
        let outcome = match result {
            Ok(Progress::Done) => Outcome::Done,
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
        self.staged = true;
        let mut overdue = Vec::new();
        if matches!(outcome, Outcome::Done) && record.timestamp > self.stream_time {
            self.stream_time = record.timestamp;
            // A timer of its own: what it cannot do is not the fault of the record that moved time on, and leaves that alone.
            let timers = self.stage(partitions, |processor, cx| processor.punctuate(record.timestamp, cx));
            match timers.result {
                Ok(()) => {
                    self.overlay.keep();
                    outgoing.extend(timers.outgoing);
                    overdue = timers.rejected;
                }
                Err(Failure::Record(why)) => {
                    self.overlay.rollback();
                    overdue.push(why);
                }
                Err(Failure::Fault(fault)) => return Err(fault),
            }
        }
        if let Some(input) = self.inputs.get_mut(&at) {
            match outcome {
                Outcome::Done => input.next = Some(record.offset.next()),
                Outcome::More => input.give_back(record.clone()),
            }
        }
        Ok(Some(Step {
            record,
            outcome,
            outgoing,
            rejected,
            overdue,
        }))
    }
}
