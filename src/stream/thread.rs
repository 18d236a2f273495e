//! One stream thread: a consumer, a transactional producer, its tasks.
//!
//! Owns: the run loop, assignment and revocation, when to commit, and what follows from each [`Fault`].
//! Invariants: one transaction at most is open, and it covers all tasks of the thread; partitions leave only after the
//! work on them is committed or dropped; faults are handled here and nowhere else.
//! Absent: async. librdkafka's transaction calls block, so this is a plain OS thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::app::{App, TaskReport};
use super::commit;
use super::fault::Fault;
use super::log::{Consumer, Event, GroupSpec, LogError, Producer};
use super::record::{Record, Timestamp, TopicPartition};
use super::restore::{Restore, RestoreJob};
use super::store::TaskStore;
use super::task::{Input, Outcome, Step, Task, TaskId, TaskState};
use super::topology::DeadLetter;

/// Records buffered per partition at which it is paused, and at which it is resumed.
const PAUSE_AT_RECORDS: usize = 4_000;
const RESUME_AT_RECORDS: usize = 1_000;
/// Records processed between two polls, so that a rebalance never waits long.
const RECORDS_PER_TURN: usize = 500;
/// The longest wait for records when nothing else is due.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Pause after a fault that time may heal.
const BACKOFF: Duration = Duration::from_millis(500);

/// See the module.
pub struct StreamThread {
    app: Arc<App>,
    index: usize,
    consumer: Option<Box<dyn Consumer>>,
    producer: Option<Box<dyn Producer>>,
    tasks: BTreeMap<TaskId, Task>,
    /// Whether a transaction is open on the producer.
    open: bool,
    /// Records processed in the open transaction.
    processed: usize,
    last_commit: Instant,
    /// Since when an empty partition holds back older-first merging.
    held_since: Option<Instant>,
}

impl StreamThread {
    pub fn new(app: Arc<App>, index: usize) -> StreamThread {
        StreamThread {
            app,
            index,
            consumer: None,
            producer: None,
            tasks: BTreeMap::new(),
            open: false,
            processed: 0,
            last_commit: Instant::now(),
            held_since: None,
        }
    }

    /// Runs until `stop` is set, then commits and leaves; or until a fault that nothing here can mend.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), Fault> {
        loop {
            let turn = if stop.load(Ordering::SeqCst) {
                self.commit()
            } else {
                self.turn()
            };
            match turn {
                Ok(()) if stop.load(Ordering::SeqCst) => {
                    // Stopping is checked again: a turn during which it was set is followed by a last commit.
                    if !self.open {
                        break;
                    }
                }
                Ok(()) => {}
                Err(fault) => self.mend(fault)?,
            }
        }
        self.close_tasks();
        self.report();
        Ok(())
    }

    /// One round: what the group says, what was restored, some records, perhaps a commit.
    fn turn(&mut self) -> Result<(), Fault> {
        self.join()?;
        self.collect_restored()?;
        let busy = self
            .tasks
            .values()
            .any(|task| task.is_running() && task.inputs.values().any(|input| !input.buffer.is_empty()));
        let wait = if busy && self.held_since.is_none() {
            Duration::ZERO
        } else if self.open {
            self.app
                .config
                .commit_interval
                .saturating_sub(self.last_commit.elapsed())
                .min(IDLE_POLL)
        } else {
            IDLE_POLL
        };
        match self.consumer()?.poll(wait)? {
            Event::Idle => {}
            Event::Records(records) => self.buffer(records)?,
            Event::Assigned(partitions) => self.take(&partitions)?,
            Event::Revoked(partitions) => {
                self.commit()?;
                self.release(&partitions);
                self.consumer()?.unassign(&partitions)?;
            }
            Event::Lost(partitions) => {
                tracing::warn!(?partitions, "partitions lost; uncommitted work is dropped");
                self.release(&partitions);
                self.consumer()?.unassign(&partitions)?;
                if self.open {
                    return Err(Fault::Abort("partitions were lost".to_owned()));
                }
            }
        }
        self.process()?;
        self.tick()?;
        let due = self.last_commit.elapsed() >= self.app.config.commit_interval;
        if self.open && due {
            self.commit()?;
        }
        self.report();
        Ok(())
    }

    /// Makes the consumer and joins the group, if not done.
    fn join(&mut self) -> Result<(), Fault> {
        if self.consumer.is_none() {
            let instance = self
                .app
                .config
                .instance
                .as_ref()
                .map(|instance| format!("{instance}-{}", self.index));
            self.consumer = Some(self.app.log.consumer(&GroupSpec {
                group: self.app.topology.shape.application_id.clone(),
                instance,
                topics: self.app.topology.shape.sources(),
            })?);
        }
        Ok(())
    }

    fn consumer(&mut self) -> Result<&mut Box<dyn Consumer>, Fault> {
        self.consumer
            .as_mut()
            .ok_or_else(|| Fault::Fenced("the thread has left its group".to_owned()))
    }

    /// Asks the consumer again while the log is away: an answer that the group waits for must not be lost.
    fn until_back(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut dyn Consumer) -> Result<(), LogError>,
    ) -> Result<(), Fault> {
        loop {
            match ask(self.consumer()?.as_mut()).map_err(Fault::from) {
                Ok(()) => return Ok(()),
                Err(Fault::Retry(message)) if !self.app.stopping() => {
                    tracing::warn!(message, "cannot {what} yet; waiting");
                    std::thread::sleep(BACKOFF);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Accepts partitions: tasks are made, their stores restored, their input stays paused until then.
    fn take(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        self.until_back("assign partitions", |consumer| consumer.assign(partitions))?;
        for at in partitions {
            let Some(sub) = self.app.topology.shape.reader_of(&at.topic) else {
                continue;
            };
            let id = TaskId {
                sub: self.app.topology.shape.subs[sub].name.clone(),
                partition: at.partition,
            };
            if !self.tasks.contains_key(&id) {
                let task = self.create(&id)?;
                self.tasks.insert(id.clone(), task);
            }
            if let Some(task) = self.tasks.get_mut(&id) {
                task.inputs.insert(
                    at.clone(),
                    Input {
                        paused: true,
                        ..Input::default()
                    },
                );
            }
        }
        tracing::info!(thread = self.index, ?partitions, "partitions assigned");
        self.start_running()
    }

    fn create(&self, id: &TaskId) -> Result<Task, Fault> {
        let app = &self.app;
        let subs = app.topology.shape.subs.iter().zip(&app.topology.processors);
        let (sub, processor) = subs
            .into_iter()
            .find(|(sub, _)| sub.name == id.sub)
            .ok_or_else(|| Fault::Fatal(format!("there is no sub-topology {}", id.sub)))?;
        if sub.stores.is_empty() {
            let mut task = Task::new(id.clone(), TaskState::Running, processor(), Vec::new());
            task.run(None, &app.partitions)?;
            return Ok(task);
        }
        let state = TaskState::Restoring(Restore::start(
            app.log.clone(),
            RestoreJob {
                task: id.clone(),
                stores: sub.stores.clone(),
                dir: app.task_dir(id),
                memory: app.memory.clone(),
                permits: app.restores.clone(),
                metrics: app.metrics.clone(),
            },
        )?);
        let names = sub.stores.iter().map(|store| store.name.clone()).collect();
        Ok(Task::new(id.clone(), state, processor(), names))
    }

    /// Puts finished restores to work.
    fn collect_restored(&mut self) -> Result<(), Fault> {
        let ready: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| match &task.state {
                TaskState::Restoring(restore) => restore.is_finished(),
                TaskState::Running => false,
            })
            .map(|task| task.id.clone())
            .collect();
        for id in ready {
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            let TaskState::Restoring(restore) = std::mem::replace(&mut task.state, TaskState::Running) else {
                continue;
            };
            let store = restore.join()?;
            task.run(store, &self.app.partitions)?;
        }
        self.start_running()
    }

    /// Lets the input of running tasks flow.
    fn start_running(&mut self) -> Result<(), Fault> {
        let mut flow = Vec::new();
        for task in self.tasks.values_mut().filter(|task| task.is_running()) {
            for (at, input) in &mut task.inputs {
                if input.paused && input.buffer.len() <= RESUME_AT_RECORDS {
                    flow.push(at.clone());
                }
            }
        }
        if flow.is_empty() {
            return Ok(());
        }
        self.consumer()?.resume(&flow)?;
        // Only now: a call that failed is made again in the next turn.
        let inputs = self.tasks.values_mut().flat_map(|task| &mut task.inputs);
        for (_, input) in inputs.filter(|(at, _)| flow.contains(at)) {
            input.paused = false;
        }
        Ok(())
    }

    /// Queues records with their tasks and holds back partitions that run ahead.
    fn buffer(&mut self, records: Vec<Record>) -> Result<(), Fault> {
        let mut full = BTreeSet::new();
        for record in records {
            let Some(sub) = self.app.topology.shape.reader_of(&record.at.topic) else {
                continue;
            };
            let id = TaskId {
                sub: self.app.topology.shape.subs[sub].name.clone(),
                partition: record.at.partition,
            };
            let Some(input) = self.tasks.get_mut(&id).and_then(|task| task.inputs.get_mut(&record.at)) else {
                continue;
            };
            if input.buffer.len() + 1 >= PAUSE_AT_RECORDS && !input.paused {
                input.paused = true;
                full.insert(record.at.clone());
            }
            input.buffer.push_back(record);
        }
        if full.is_empty() {
            return Ok(());
        }
        let full: Vec<TopicPartition> = full.into_iter().collect();
        Ok(self.consumer()?.pause(&full)?)
    }

    /// Processes buffered records, oldest first within each task, until none is left or a commit is due.
    fn process(&mut self) -> Result<(), Fault> {
        let patient = match self.held_since {
            None => true,
            Some(since) => since.elapsed() < self.app.config.max_task_idle,
        };
        let ids: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.is_running())
            .map(|task| task.id.clone())
            .collect();
        let mut left = RECORDS_PER_TURN;
        let mut moved = false;
        for id in &ids {
            let mut budget = left.min((RECORDS_PER_TURN / ids.len()).max(50));
            while budget > 0 {
                let (Some(task), Some(consumer)) = (self.tasks.get_mut(id), &self.consumer) else {
                    break;
                };
                let caught_up = |at: &TopicPartition| consumer.caught_up(at);
                let Some(step) = task.step(patient, &caught_up, &self.app.partitions)? else {
                    break;
                };
                let overlay = task.overlay.bytes();
                moved = true;
                budget -= 1;
                left = left.saturating_sub(1);
                self.stage(id, step)?;
                let config = &self.app.config;
                if self.processed >= config.max_records_per_commit || overlay >= config.overlay_max_bytes {
                    self.commit()?;
                }
            }
        }
        let waiting = self
            .tasks
            .values()
            .any(|task| task.is_running() && task.inputs.values().any(|input| !input.buffer.is_empty()));
        self.held_since = match (moved, waiting) {
            (true, _) | (false, false) => None,
            (false, true) => Some(self.held_since.unwrap_or_else(Instant::now)),
        };
        self.start_running()
    }

    /// Lets each running task act between records.
    fn tick(&mut self) -> Result<(), Fault> {
        let now = wall_clock();
        let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id).filter(|task| task.is_running()) else {
                continue;
            };
            let (staged, outgoing) = task.tick(now, &self.app.partitions)?;
            if !staged {
                continue;
            }
            self.begin()?;
            if let Some(producer) = self.producer.as_mut() {
                for record in outgoing {
                    producer.send(record)?;
                }
            }
        }
        Ok(())
    }

    /// Puts what a step led to into the transaction.
    fn stage(&mut self, id: &TaskId, step: Step) -> Result<(), Fault> {
        self.begin()?;
        let app = self.app.clone();
        let Some(producer) = self.producer.as_mut() else {
            return Err(Fault::Abort("the producer is gone".to_owned()));
        };
        for record in step.outgoing {
            producer.send(record)?;
        }
        for rejected in &step.rejected {
            app.metrics
                .dead_letters
                .with_label_values(&[&id.sub, &rejected.code])
                .inc();
            tracing::warn!(
                stage = id.sub, code = rejected.code, at = %step.record.at, offset = %step.record.offset,
                "dead letter"
            );
            producer.send(app.dead_letter(&DeadLetter {
                stage: &id.sub,
                rejected,
                record: &step.record,
            }))?;
        }
        match step.outcome {
            Outcome::Done => app.metrics.processed.with_label_values(&[&id.sub]).inc(),
            Outcome::More => {}
        }
        self.processed += 1;
        Ok(())
    }

    /// Opens a transaction if none is open. It is called when something is staged already, so any failure means that
    /// the work is done again.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.open {
            return Ok(());
        }
        self.open_transaction().map_err(|fault| match fault {
            Fault::Retry(message) => Fault::Abort(message),
            Fault::Abort(_) | Fault::Fenced(_) | Fault::Corrupted { .. } | Fault::Fatal(_) => fault,
        })
    }

    fn open_transaction(&mut self) -> Result<(), Fault> {
        if self.producer.is_none() {
            let id = self.app.transactional_id(self.index);
            self.producer = Some(self.app.log.producer(&id)?);
        }
        if let Some(producer) = self.producer.as_mut() {
            producer.begin()?;
        }
        self.open = true;
        self.processed = 0;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.last_commit = Instant::now();
        if !self.open {
            return Ok(());
        }
        let (Some(consumer), Some(producer)) = (self.consumer.as_ref(), self.producer.as_mut()) else {
            return Err(Fault::Abort("the producer is gone".to_owned()));
        };
        commit::run(
            &self.app.topology.shape,
            &mut self.tasks,
            consumer.as_ref(),
            producer.as_mut(),
            &self.app.metrics,
        )?;
        self.open = false;
        self.processed = 0;
        Ok(())
    }

    /// Drops the inputs of partitions, and the tasks that have none left.
    fn release(&mut self, partitions: &[TopicPartition]) {
        for task in self.tasks.values_mut() {
            task.inputs.retain(|at, _| !partitions.contains(at));
        }
        let gone: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.inputs.is_empty())
            .map(|task| task.id.clone())
            .collect();
        for id in gone {
            if let Some(task) = self.tasks.remove(&id) {
                close(task);
            }
        }
        tracing::info!(thread = self.index, ?partitions, "partitions released");
    }

    fn close_tasks(&mut self) {
        for (_, task) in std::mem::take(&mut self.tasks) {
            close(task);
        }
    }

    /// What each fault leads to. Returns it when the thread must end.
    fn mend(&mut self, fault: Fault) -> Result<(), Fault> {
        let kind = match &fault {
            Fault::Retry(_) => "retry",
            Fault::Abort(_) => "abort",
            Fault::Fenced(_) => "fenced",
            Fault::Corrupted { .. } => "corrupted",
            Fault::Fatal(_) => "fatal",
        };
        self.app.metrics.faults.with_label_values(&[kind]).inc();
        match fault {
            Fault::Retry(message) => {
                tracing::warn!(message, "waiting, then trying again");
                std::thread::sleep(BACKOFF);
                // What was processed in the open transaction may be half staged.
                if self.open {
                    self.recover("a call failed in mid-transaction")
                } else {
                    Ok(())
                }
            }
            Fault::Abort(message) => self.recover(&message),
            Fault::Corrupted { task, message } => {
                tracing::error!(%task, message, "the store is wiped and rebuilt from its changelog");
                let dir = self.app.task_dir(&task);
                self.drop_transaction();
                let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
                for id in &ids {
                    if *id == task
                        && let Some(task) = self.tasks.get_mut(id)
                    {
                        task.store = None;
                    }
                }
                self.restart_tasks(|id| {
                    if *id == task {
                        TaskStore::wipe(&dir).map_err(|e| Fault::Fatal(e.to_string()))
                    } else {
                        Ok(())
                    }
                })
            }
            Fault::Fenced(message) => {
                tracing::warn!(message, "another owner took over; joining again");
                self.drop_transaction();
                self.close_tasks();
                self.consumer = None;
                std::thread::sleep(BACKOFF);
                Ok(())
            }
            Fault::Fatal(message) => {
                self.drop_transaction();
                self.close_tasks();
                Err(Fault::Fatal(message))
            }
        }
    }

    /// Goes back to the last commit: new producer, overlays dropped, stores restored from their checkpoints, inputs
    /// rewound.
    fn recover(&mut self, why: &str) -> Result<(), Fault> {
        tracing::warn!(why, "going back to the last commit");
        self.drop_transaction();
        self.restart_tasks(|_| Ok(()))
    }

    /// Aborts the open transaction as far as possible. The producer is never used again: its successor fences it.
    fn drop_transaction(&mut self) {
        if let Some(mut producer) = self.producer.take()
            && self.open
            && let Err(error) = producer.abort()
        {
            tracing::debug!(%error, "abort not confirmed; the next producer fences this one");
        }
        self.open = false;
        self.processed = 0;
    }

    /// Makes every task anew, over a restore, and reads again from the committed offsets.
    fn restart_tasks(&mut self, prepare: impl Fn(&TaskId) -> Result<(), Fault>) -> Result<(), Fault> {
        let old = std::mem::take(&mut self.tasks);
        let mut inputs: Vec<(TaskId, Vec<TopicPartition>)> = Vec::new();
        for (id, task) in old {
            inputs.push((id, task.inputs.keys().cloned().collect()));
            close(task);
        }
        let all: Vec<TopicPartition> = inputs.iter().flat_map(|(_, at)| at.iter().cloned()).collect();
        // A fresh producer first: it ends what the old one left open, so the restore need not wait for that.
        loop {
            let id = self.app.transactional_id(self.index);
            match self.app.log.producer(&id).map_err(Fault::from) {
                Ok(producer) => {
                    self.producer = Some(producer);
                    break;
                }
                Err(Fault::Retry(message) | Fault::Abort(message)) => {
                    if self.app.stopping() {
                        return Ok(());
                    }
                    tracing::warn!(message, "no producer yet; waiting");
                    std::thread::sleep(BACKOFF);
                }
                Err(fault @ (Fault::Fenced(_) | Fault::Corrupted { .. } | Fault::Fatal(_))) => {
                    return Err(fault);
                }
            }
        }
        self.consumer()?.pause(&all)?;
        self.until_back("rewind", |consumer| consumer.rewind(&all))?;
        for (id, partitions) in inputs {
            prepare(&id)?;
            let mut task = self.create(&id)?;
            for at in partitions {
                task.inputs.insert(
                    at,
                    Input {
                        paused: true,
                        ..Input::default()
                    },
                );
            }
            self.tasks.insert(id, task);
        }
        Ok(())
    }

    /// Tells the application what this thread's tasks do.
    fn report(&self) {
        let tasks = self
            .tasks
            .values()
            .map(|task| TaskReport {
                task: task.id.clone(),
                running: task.is_running(),
            })
            .collect();
        self.app.report(self.index, tasks);
    }
}

/// The machine's clock. Only [`super::processor::Processor::tick`] sees it.
fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as i64))
}

/// Lets a task's store go, whatever it was doing.
fn close(task: Task) {
    match task.state {
        TaskState::Restoring(restore) => restore.cancel(),
        TaskState::Running => {}
    }
}
