//! One stream thread: a consumer, a transactional producer, its tasks.
//!
//! Owns: the run loop, when to commit, and what follows from each [`Fault`]; [`assignment`] has which tasks there are.
//! Invariants: one transaction at most is open, and it covers all tasks of the thread; faults are handled here and
//! nowhere else; a turn never waits for longer than one call to the log takes: what cannot be done now is noted, and
//! tried again on the next turn.
//! Absent: async (librdkafka's transaction calls block, so this is a plain OS thread), and a clock: each turn is told the
//! time, so a simulation can run the same turns.

mod assignment;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::app::{App, TaskReport};
use super::budget::Budget;
use super::commit;
use super::fault::Fault;
use super::log::{Consumer, Event, Producer};
use super::record::{Record, Timestamp, TopicPartition};
use super::seeded::{self, Bug};
use super::store::TaskStore;
use super::task::{Ends, Input, Outcome, Step, Task, TaskId, TaskState};
use super::topology::DeadLetter;

/// Records buffered per partition at which it is paused.
const PAUSE_AT_RECORDS: usize = 4_000;
/// Records processed between two polls, so that a rebalance never waits long.
const RECORDS_PER_TURN: usize = 500;
/// The longest wait for records when nothing else is due.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// The same while a task is restored, which ends at any moment.
const RESTORING_POLL: Duration = Duration::from_millis(5);
/// The part of the commit interval after which is committed when nothing waits to be processed.
const IDLE_COMMITS: u32 = 5;
/// Pause after a fault that time may heal.
const BACKOFF: Duration = Duration::from_millis(500);

/// See the module.
pub struct StreamThread {
    app: Arc<App>,
    index: usize,
    now: Now,
    consumer: Option<Box<dyn Consumer>>,
    producer: Option<Box<dyn Producer>>,
    tasks: BTreeMap<TaskId, Task>,
    /// What the group said and we have not answered yet.
    unanswered: Option<Event>,
    /// Whether the inputs have to go back to the committed offsets before anything is processed.
    behind: bool,
    /// Whether a transaction is open on the producer.
    open: bool,
    /// Records processed in the open transaction.
    processed: usize,
    /// When the last commit began, on the clock of [`Now::since_start`].
    last_commit: Duration,
    /// Whether there was a fault since the last commit.
    troubled: bool,
    /// Tasks whose stores were wiped, and that have committed nothing since.
    rebuilt: BTreeSet<TaskId>,
    /// Turns that processed something: each begins with another task, since the first ones may take all there is to give.
    turns: usize,
}

/// The time, as a turn is told it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back.
    pub since_start: Duration,
    /// The machine's clock. Only [`super::processor::Processor::tick`] sees it.
    pub wall: Timestamp,
}

impl Now {
    fn of_machine(start: Instant) -> Now {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Now {
            since_start: start.elapsed(),
            wall: Timestamp(since.map_or(0, |since| since.as_millis() as i64)),
        }
    }
}

impl StreamThread {
    pub fn new(app: Arc<App>, index: usize) -> StreamThread {
        StreamThread {
            app,
            index,
            now: Now {
                since_start: Duration::ZERO,
                wall: Timestamp(0),
            },
            consumer: None,
            producer: None,
            tasks: BTreeMap::new(),
            unanswered: None,
            behind: false,
            open: false,
            processed: 0,
            last_commit: Duration::ZERO,
            troubled: false,
            rebuilt: BTreeSet::new(),
            turns: 0,
        }
    }

    /// Runs until `stop` is set, then commits and leaves; or until a fault that nothing here can mend.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), Fault> {
        let start = Instant::now();
        loop {
            let stopping = stop.load(Ordering::SeqCst);
            let now = Now::of_machine(start);
            let wait = if stopping { self.finish(now)? } else { self.turn(now)? };
            if stopping && !self.open {
                break;
            }
            std::thread::sleep(wait);
        }
        self.tasks.clear();
        self.report();
        Ok(())
    }

    /// One round: what the group says, what was restored, some records, perhaps a commit. Says how long to wait before
    /// the next one.
    ///
    /// # Errors
    /// Nothing here can mend it: the thread ends.
    pub fn turn(&mut self, now: Now) -> Result<Duration, Fault> {
        self.now = now;
        self.app.wall.store(now.wall.0, Ordering::Relaxed);
        let wait = self
            .round()
            .map_or_else(|fault| self.mend(fault), |()| Ok(Duration::ZERO));
        self.report();
        wait
    }

    /// Commits what is open, as the last thing.
    pub fn finish(&mut self, now: Now) -> Result<Duration, Fault> {
        self.now = now;
        self.commit()
            .map_or_else(|fault| self.mend(fault), |()| Ok(Duration::ZERO))
    }

    fn round(&mut self) -> Result<(), Fault> {
        self.join()?;
        self.answer()?;
        let wait = self.wait();
        let most = self.wanted();
        match self.consumer()?.poll(wait, most)? {
            Event::Idle => {}
            Event::Records(records) => self.buffer(records)?,
            event @ (Event::Assigned(_) | Event::Revoked(_) | Event::Lost(_)) => {
                self.unanswered = Some(event);
                self.answer()?;
            }
        }
        self.go_back()?;
        self.start_tasks()?;
        self.resume()?;
        self.process()?;
        self.resume()?;
        self.tick()?;
        if self.index == 0 {
            self.app.follow()?;
        }
        if self.open && self.until_commit().is_zero() {
            self.commit()?;
        }
        Ok(())
    }

    /// How long a poll may wait for records.
    fn wait(&self) -> Duration {
        if self.has_work() {
            return Duration::ZERO;
        }
        let idle = match self.tasks.values().all(Task::is_running) {
            true => IDLE_POLL,
            false => RESTORING_POLL,
        };
        match self.open {
            true => self.until_commit().min(idle),
            false => idle,
        }
    }

    /// How many records a poll may hand out: all there are, while an input may have less than the next turn takes; else one,
    /// since who polls must take something. What is left waits in the consumer's own queue, which stops fetching when it is full.
    /// A partition that is paused instead is fetched again: librdkafka drops what it has of it.
    fn wanted(&self) -> usize {
        let mut inputs = self.tasks.values().flat_map(|task| task.inputs.values());
        match self.has_work() && inputs.all(|input| input.len() >= RECORDS_PER_TURN) {
            true => 1,
            false => usize::MAX,
        }
    }

    fn has_work(&self) -> bool {
        self.tasks.values().any(|task| task.has_work() && !task.is_held())
    }

    /// How long until what is open is committed, as things stand: an interval after the last commit, and a part of it when
    /// nothing waits to be processed. So few transactions carry much where there is much, and where there is little nobody
    /// waits for more.
    fn until_commit(&self) -> Duration {
        let interval = match self.has_work() {
            true => self.app.config.commit_interval,
            false => self.app.config.commit_interval / IDLE_COMMITS,
        };
        let since = self.now.since_start.saturating_sub(self.last_commit);
        interval.saturating_sub(since)
    }

    fn consumer(&mut self) -> Result<&mut Box<dyn Consumer>, Fault> {
        self.consumer
            .as_mut()
            .ok_or_else(|| Fault::Fenced("the thread has left its group".to_owned()))
    }

    /// Queues records with their tasks and holds back partitions that run ahead.
    fn buffer(&mut self, records: Vec<Record>) -> Result<(), Fault> {
        // What is read before the inputs went back is read again after.
        if self.behind {
            return Ok(());
        }
        let mut full = BTreeSet::new();
        for record in records {
            let Some(id) = self.task_of(&record.at) else { continue };
            let Some(input) = self.tasks.get_mut(&id).and_then(|task| task.inputs.get_mut(&record.at)) else {
                continue;
            };
            if input.len() + 1 >= PAUSE_AT_RECORDS && !input.paused {
                input.paused = true;
                full.insert(record.at.clone());
            }
            input.push(record);
        }
        if self.waiting_bytes() > self.memory().waiting {
            // A partition of which nothing waits may have what the others wait for.
            for (at, input) in self.tasks.values_mut().flat_map(|task| &mut task.inputs) {
                if !input.paused && !input.is_empty() {
                    input.paused = true;
                    full.insert(at.clone());
                }
            }
        }
        if full.is_empty() {
            return Ok(());
        }
        let full: Vec<TopicPartition> = full.into_iter().collect();
        Ok(self.consumer()?.pause(&full)?)
    }

    /// Memory of the records that wait at the tasks.
    fn waiting_bytes(&self) -> usize {
        let inputs = self.tasks.values().flat_map(|task| task.inputs.values());
        inputs.map(Input::bytes).sum()
    }

    /// This thread's part of the memory.
    fn memory(&self) -> Budget {
        self.app.config.memory.part(self.app.config.threads)
    }

    /// Processes buffered records, oldest first within each task, until none is left or a commit is due.
    fn process(&mut self) -> Result<(), Fault> {
        let running = self.tasks.values().filter(|task| task.is_running());
        let mut ids: Vec<TaskId> = running.map(|task| task.id.clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.turns = self.turns.wrapping_add(1);
        let first = self.turns % ids.len();
        ids.rotate_left(first);
        let mut left = RECORDS_PER_TURN;
        let most_staged = self.app.config.overlay_max_bytes.min(self.memory().staged);
        for id in &ids {
            let mut budget = left.min((RECORDS_PER_TURN / ids.len()).max(50));
            while budget > 0 {
                let (Some(task), Some(consumer)) = (self.tasks.get_mut(id), &self.consumer) else {
                    break;
                };
                let (now, ask_after) = (self.now.since_start, self.app.config.ask_ends_after);
                let ends = Ends {
                    known: &|at| consumer.caught_up(at),
                    asked: &|at| consumer.is_at_end(at),
                };
                let step = task
                    .step(now, ask_after, &ends, &self.app.partitions)
                    .map_err(half_done)?;
                let Some(step) = step else { break };
                budget -= 1;
                left = left.saturating_sub(1);
                self.stage(id, step)?;
                let staged: usize = self.tasks.values().map(|task| task.overlay.bytes()).sum();
                if self.processed >= self.app.config.max_records_per_commit || staged >= most_staged {
                    self.commit()?;
                }
            }
        }
        Ok(())
    }

    /// Lets each running task act between records.
    fn tick(&mut self) -> Result<(), Fault> {
        let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id).filter(|task| task.is_running()) else {
                continue;
            };
            let (staged, outgoing) = task.tick(self.now.wall, &self.app.partitions).map_err(half_done)?;
            if !staged {
                continue;
            }
            let producer = self.begin()?;
            for record in outgoing {
                producer.send(record).map_err(|error| half_done(error.into()))?;
            }
        }
        Ok(())
    }

    /// Puts what a step led to into the transaction.
    fn stage(&mut self, id: &TaskId, step: Step) -> Result<(), Fault> {
        let app = self.app.clone();
        let producer = self.begin()?;
        for record in step.outgoing {
            producer.send(record).map_err(|error| half_done(error.into()))?;
        }
        // Nothing of the record that moved time on: whoever deals with the letter must not send that again.
        let clock = (!step.overdue.is_empty()).then(|| Record {
            at: step.record.at.clone(),
            offset: step.record.offset,
            timestamp: step.record.timestamp,
            key: None,
            value: None,
            headers: Vec::new(),
        });
        let of_record = step.rejected.iter().map(|rejected| (rejected, &step.record));
        let of_timers = clock
            .iter()
            .flat_map(|clock| step.overdue.iter().map(move |rejected| (rejected, clock)));
        for (rejected, record) in of_record.chain(of_timers) {
            app.metrics
                .dead_letters
                .with_label_values(&[&id.sub, &rejected.code])
                .inc();
            tracing::warn!(
                stage = id.sub, code = rejected.code, at = %step.record.at, offset = %step.record.offset,
                "dead letter"
            );
            let letter = app.dead_letter(&DeadLetter {
                stage: &id.sub,
                rejected,
                record,
            });
            producer.send(letter).map_err(|error| half_done(error.into()))?;
        }
        match step.outcome {
            Outcome::Done => {
                let late = self.now.wall.0.saturating_sub(step.record.timestamp.0).max(0);
                app.metrics.processed.with_label_values(&[&id.sub]).inc();
                let latency = app.metrics.e2e_latency.with_label_values(&[&id.sub]);
                latency.observe(late as f64 / 1_000.0);
            }
            Outcome::More => {}
        }
        self.processed += 1;
        Ok(())
    }

    /// The producer, with a transaction open. It is called when something is staged already, so any failure means that
    /// the work is done again.
    fn begin(&mut self) -> Result<&mut dyn Producer, Fault> {
        self.produce().map_err(half_done)?;
        let Some(producer) = self.producer.as_mut() else {
            return Err(Fault::Abort("the producer is gone".to_owned()));
        };
        if !self.open {
            producer.begin().map_err(|error| half_done(error.into()))?;
            self.open = true;
            self.processed = 0;
        }
        Ok(producer.as_mut())
    }

    /// Makes the producer, if there is none. That ends what an older one left open, which committed offsets, and whoever
    /// reads what it wrote, would wait for until the transaction's timeout.
    fn produce(&mut self) -> Result<(), Fault> {
        if self.producer.is_none() {
            self.app.enters(self.index, "a new producer");
            self.producer = Some(self.app.log.producer(&self.app.transactional_id(self.index))?);
            self.open = false;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.last_commit = self.now.since_start;
        if !self.open {
            return Ok(());
        }
        let (Some(consumer), Some(producer)) = (self.consumer.as_ref(), self.producer.as_mut()) else {
            return Err(Fault::Abort("the producer is gone".to_owned()));
        };
        self.app.enters(self.index, "a commit");
        let staged = self.tasks.values().filter(|task| task.is_staged());
        let staged: Vec<TaskId> = staged.map(|task| task.id.clone()).collect();
        let (shape, log) = (&self.app.topology.shape, self.app.log.as_ref());
        let (consumer, producer) = (consumer.as_ref(), producer.as_mut());
        let (metrics, wall) = (&self.app.metrics, self.now.wall);
        commit::run(shape, log, &mut self.tasks, consumer, producer, metrics, wall)?;
        self.rebuilt.retain(|task| !staged.contains(task));
        self.open = false;
        self.processed = 0;
        self.troubled = false;
        Ok(())
    }

    /// What each fault leads to: how long to wait before the next turn. Returns the fault when the thread must end.
    fn mend(&mut self, fault: Fault) -> Result<Duration, Fault> {
        let kind = match &fault {
            Fault::Retry(_) => "retry",
            Fault::Abort(_) => "abort",
            Fault::Fenced(_) => "fenced",
            Fault::Corrupted { .. } => "corrupted",
            Fault::Fatal(_) => "fatal",
        };
        self.app.metrics.faults.with_label_values(&[kind]).inc();
        // A transaction that fails again and again must not keep the broker busy.
        let wait = if self.troubled { BACKOFF } else { Duration::ZERO };
        self.troubled = true;
        match fault {
            Fault::Retry(message) => {
                tracing::warn!(reason = message, "waiting, then trying again");
                // What was processed in the open transaction may be half staged.
                if self.open {
                    self.fall_back();
                }
                Ok(BACKOFF)
            }
            Fault::Abort(message) => {
                tracing::warn!(reason = message, "going back to the last commit");
                self.fall_back();
                Ok(wait)
            }
            // What a rebuild does not mend lies in the disk, the changelog or the program; wiping again would go on for ever.
            Fault::Corrupted { task, message } if self.rebuilt.contains(&task) => self.end(Fault::Fatal(format!(
                "the store of task {task} is unusable again right after it was rebuilt from its changelog: {message}. Look at the disk under {}, and whether a newer version of the program wrote the changelog",
                self.app.task_dir(&task).display()
            ))),
            Fault::Corrupted { task, message } => {
                tracing::error!(%task, reason = message, "the store is wiped and rebuilt from its changelog");
                self.fall_back();
                self.rebuilt.insert(task.clone());
                match TaskStore::wipe(&self.app.task_dir(&task), &self.app.home) {
                    Ok(()) => Ok(wait),
                    Err(error) => self.end(Fault::Fatal(error.to_string())),
                }
            }
            Fault::Fenced(message) => {
                tracing::warn!(reason = message, "another owner took over; joining again");
                self.leave();
                Ok(BACKOFF)
            }
            Fault::Fatal(message) => self.end(Fault::Fatal(message)),
        }
    }

    fn end(&mut self, fault: Fault) -> Result<Duration, Fault> {
        self.leave();
        Err(fault)
    }

    /// Back to the last commit: the transaction is dropped; on the next turn a new producer ends what the old one left
    /// open, the inputs go back, and the tasks start again.
    fn fall_back(&mut self) {
        self.abort();
        if !seeded::has(Bug::ProducerReused) {
            self.producer = None;
        }
        for task in self.tasks.values_mut() {
            if let Some(processor) = self.app.processor(&task.id.sub) {
                task.restart(processor);
            }
        }
        self.behind = !self.tasks.is_empty();
    }

    /// Drops everything uncommitted and leaves the group.
    fn leave(&mut self) {
        self.abort();
        self.producer = None;
        self.tasks.clear();
        self.consumer = None;
        self.unanswered = None;
        self.behind = false;
    }

    /// Aborts the open transaction as far as possible. The producer must not be used again: its successor fences it.
    fn abort(&mut self) {
        self.app.enters(self.index, "an abort");
        if let Some(producer) = self.producer.as_mut().filter(|_| self.open)
            && let Err(error) = producer.abort()
        {
            tracing::debug!(%error, "abort not confirmed; the next producer fences this one");
        }
        self.open = false;
        self.processed = 0;
    }

    /// Tells the application what this thread's tasks do.
    fn report(&self) {
        let tasks = self.tasks.values().map(|task| TaskReport {
            task: task.id.clone(),
            running: task.is_running(),
            restore: match &task.state {
                TaskState::Restoring(restore) => Some(restore.progress()),
                TaskState::Created | TaskState::Running => None,
            },
        });
        self.app.report(self.index, tasks.collect());
    }
}

/// A call failed in the middle of a record: the record is done again as a whole, by a processor that remembers nothing
/// of it.
fn half_done(fault: Fault) -> Fault {
    match fault {
        Fault::Retry(message) if !seeded::has(Bug::RecordForgotten) => Fault::Abort(message),
        Fault::Retry(_) | Fault::Abort(_) | Fault::Fenced(_) | Fault::Corrupted { .. } | Fault::Fatal(_) => fault,
    }
}
