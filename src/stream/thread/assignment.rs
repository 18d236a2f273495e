//! Which tasks a thread has, and how far they are on their way to running.
//!
//! Owns: membership of the group, answers to its events, tasks from [`TaskState::Created`] to [`TaskState::Running`],
//! pausing and resuming.
//! Invariants: every partition that the group gave us is an input of a task until the group takes it away, whatever fails
//! in between; an event is answered in full or answered again; partitions leave only after the work on them is
//! committed or dropped.

use super::super::fault::Fault;
use super::super::log::{Event, GroupSpec};
use super::super::record::TopicPartition;
use super::super::seeded::{self, Bug};
use super::super::task::{Input, Task, TaskId, TaskState};
use super::{StreamThread, half_done};

/// Records buffered per partition at which a paused one is resumed.
const RESUME_AT_RECORDS: usize = 1_000;

impl StreamThread {
    /// Makes the consumer and joins the group, if not done; the producer is made while the group takes its time.
    pub(super) fn join(&mut self) -> Result<(), Fault> {
        if self.consumer.is_none() {
            let instance = self.app.config.instance.as_ref();
            self.consumer = Some(self.app.log.consumer(&GroupSpec {
                group: self.app.topology.shape.application_id.clone(),
                instance: instance.map(|instance| format!("{instance}-{}", self.index)),
                topics: self.app.topology.shape.sources(),
            })?);
            self.produce()?;
        }
        Ok(())
    }

    /// Answers what the group said last, if that is still to do. A failed answer is given again on the next turn: an
    /// event comes once, and the whole group waits for the answer.
    pub(super) fn answer(&mut self) -> Result<(), Fault> {
        let Some(event) = self.unanswered.take() else {
            return Ok(());
        };
        let answered = self.try_answer(&event);
        if answered.is_err() && !seeded::has(Bug::RevocationForgotten) {
            self.unanswered = Some(event);
        }
        answered
    }

    fn try_answer(&mut self, event: &Event) -> Result<(), Fault> {
        match event {
            Event::Idle | Event::Records(_) => Ok(()),
            Event::Assigned(partitions) => {
                self.produce()?;
                self.app.confirm(partitions)?;
                self.consumer()?.assign(partitions)?;
                self.take(partitions)
            }
            Event::Revoked(partitions) => {
                // If this fails the work is dropped; the next answer finds nothing to commit.
                self.commit()?;
                self.release(partitions);
                Ok(self.consumer()?.unassign(partitions)?)
            }
            Event::Lost(partitions) => {
                if self.open {
                    return Err(Fault::Abort(format!("partitions were lost: {partitions:?}")));
                }
                self.release(partitions);
                Ok(self.consumer()?.unassign(partitions)?)
            }
        }
    }

    pub(super) fn task_of(&self, at: &TopicPartition) -> Option<TaskId> {
        let shape = &self.app.topology.shape;
        shape.reader_of(&at.topic).map(|sub| TaskId {
            sub: shape.subs[sub].name.clone(),
            partition: at.partition,
        })
    }

    fn take(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        for at in partitions {
            let Some(id) = self.task_of(at) else { continue };
            if !self.tasks.contains_key(&id) {
                let task = self.create(&id)?;
                self.tasks.insert(id.clone(), task);
            }
            if let Some(task) = self.tasks.get_mut(&id) {
                task.inputs.insert(at.clone(), Input::held());
            }
        }
        tracing::info!(thread = self.index, ?partitions, "partitions assigned");
        Ok(())
    }

    fn create(&self, id: &TaskId) -> Result<Task, Fault> {
        let subs = &self.app.topology.shape.subs;
        match (subs.iter().find(|sub| sub.name == id.sub), self.app.processor(&id.sub)) {
            (Some(sub), Some(processor)) => {
                let names = sub.stores.iter().map(|store| store.name.clone()).collect();
                let mut task = Task::new(id.clone(), processor, names);
                if !sub.stores.is_empty() {
                    task.claim = Some(self.app.standbys.claim(id));
                }
                Ok(task)
            }
            _ => Err(Fault::Fatal(format!("there is no sub-topology {}", id.sub))),
        }
    }

    /// Drops the inputs of partitions, and the tasks that have none left.
    fn release(&mut self, partitions: &[TopicPartition]) {
        for task in self.tasks.values_mut() {
            task.inputs.retain(|at, _| !partitions.contains(at));
        }
        self.tasks.retain(|_, task| !task.inputs.is_empty());
        tracing::info!(thread = self.index, ?partitions, "partitions released");
    }

    /// After a fault: a new producer first, which ends what the old one left open, so that neither the committed offsets
    /// nor a restore need wait for that; then the inputs go back to the committed offsets.
    pub(super) fn go_back(&mut self) -> Result<(), Fault> {
        if !self.behind {
            return Ok(());
        }
        self.produce()?;
        let inputs = self.tasks.values().flat_map(|task| task.inputs.keys().cloned());
        let inputs: Vec<TopicPartition> = inputs.collect();
        if seeded::has(Bug::InputForgotten) {
            self.behind = false;
        }
        self.consumer()?.pause(&inputs)?;
        self.consumer()?.rewind(&inputs)?;
        self.behind = false;
        Ok(())
    }

    /// Brings tasks on their way: starts restores, and puts to work what is restored.
    pub(super) fn start_tasks(&mut self) -> Result<(), Fault> {
        for task in self.tasks.values_mut() {
            let restored = match &mut task.state {
                TaskState::Running => continue,
                TaskState::Created => {
                    match self.app.restore(&task.id, false)? {
                        None => task.run(None, &self.app.partitions).map_err(half_done)?,
                        Some(restore) => task.state = TaskState::Restoring(restore),
                    }
                    continue;
                }
                TaskState::Restoring(restore) => restore.check(),
            };
            match restored {
                Ok(Some(store)) => {
                    task.run(Some(store), &self.app.partitions).map_err(half_done)?;
                    task.show(&self.app.queries);
                }
                Ok(None) => {}
                Err(Fault::Retry(message)) if !seeded::has(Bug::RunsUnrestored) => {
                    tracing::warn!(task = %task.id, reason = message, "the restore waits");
                }
                Err(fault) => {
                    // Whatever follows from the fault, this task has no store: it must not run.
                    task.state = TaskState::Created;
                    if seeded::has(Bug::RunsUnrestored) {
                        task.state = TaskState::Running;
                    }
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Lets the input of running tasks flow.
    pub(super) fn resume(&mut self) -> Result<(), Fault> {
        let roomy = self.waiting_bytes() <= self.memory().waiting / 2;
        let ready = |input: &Input| input.paused && input.len() <= RESUME_AT_RECORDS && (roomy || input.is_empty());
        let running = self.tasks.values().filter(|task| task.is_running());
        let flow = running.flat_map(|task| &task.inputs).filter(|(_, input)| ready(input));
        let flow: Vec<TopicPartition> = flow.map(|(at, _)| at.clone()).collect();
        if flow.is_empty() {
            return Ok(());
        }
        let resumed = self.consumer()?.resume(&flow);
        if !seeded::has(Bug::ResumeAssumed) {
            resumed?;
        }
        for task in self.tasks.values_mut() {
            for (_, input) in task.inputs.iter_mut().filter(|(at, _)| flow.contains(at)) {
                input.paused = false;
            }
        }
        Ok(())
    }
}
