//! A running stream application: its threads and what they share.
//!
//! Owns: [`Runtime`] (start, stop, status) and [`App`] (topology, log, memory, settings shared by threads).
//! Invariant: a thread that ends with a fault stops all others; the fault is returned by [`Runtime::join`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::fault::Fault;
use super::layout;
use super::log::Log;
use super::metrics::Metrics;
use super::processor::Processor;
use super::query::Queries;
use super::record::{Offset, Outgoing, Partition, Topic, TopicPartition};
use super::restore::{Permits, Restore, RestoreJob, RestoreProgress};
use super::standby::Standbys;
use super::store::{StoreHome, TaskStore};
use super::task::TaskId;
use super::thread::StreamThread;
use super::topics;
use super::topology::{DeadLetter, Shape, Topology};

/// Settings of the runtime.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    pub threads: usize,
    pub state_dir: PathBuf,
    pub memory: Budget,
    pub commit_interval: Duration,
    pub max_records_per_commit: usize,
    /// Uncommitted store writes of one thread at which it commits early, if its part of the memory is not less.
    pub overlay_max_bytes: usize,
    /// How long a task with an empty input that is not known to be at its end waits before it asks for the end. It goes on
    /// with the other inputs when this one is there, as Kafka Streams does with `max.task.idle.ms` at 0 (KIP-695).
    pub ask_ends_after: Duration,
    /// Restores at the same time, each on a thread of its own; with 0 they take turns with the records of the stream
    /// thread.
    pub restore_threads: usize,
    /// `group.instance.id` prefix for static membership.
    pub instance: Option<String>,
    /// Whether the process keeps up to date the stores of tasks that others own.
    pub standbys: bool,
}

/// What threads share.
pub struct App {
    pub topology: Topology,
    pub log: Arc<dyn Log>,
    pub config: RuntimeConfig,
    pub metrics: Metrics,
    pub home: StoreHome,
    /// `None` when restores take turns with records.
    pub restores: Option<Permits>,
    pub standbys: Standbys,
    pub queries: Queries,
    /// Partition counts of every topic that is read or written.
    pub partitions: BTreeMap<Topic, u32>,
    /// How often the application was reset before this process; `None` where nobody asked.
    resets: Option<u64>,
    process_id: String,
    stop: AtomicBool,
    /// The machine's clock in milliseconds, as the threads last saw it.
    pub(super) wall: Arc<AtomicI64>,
    reports: Mutex<BTreeMap<usize, ThreadReport>>,
}

/// What a stream thread said last.
struct ThreadReport {
    tasks: Vec<TaskReport>,
    doing: &'static str,
    since: Instant,
}

/// What a task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReport {
    pub task: TaskId,
    pub running: bool,
    /// How far it is, while it is restored.
    pub restore: Option<RestoreProgress>,
}

impl App {
    /// Checks the topics. `process_id` must be the same for each start over the same state.
    pub fn new(
        topology: Topology,
        log: Arc<dyn Log>,
        config: RuntimeConfig,
        metrics: Metrics,
        home: StoreHome,
        process_id: String,
    ) -> Result<App, Fault> {
        let partitions = topics::counts(&topology.shape, log.as_ref())?;
        topics::fit(&topology.shape, &partitions)?;
        Ok(App {
            partitions,
            resets: None,
            restores: (config.restore_threads > 0).then(|| Permits::new(config.restore_threads)),
            home,
            standbys: Standbys::default(),
            queries: Queries::default(),
            topology,
            log,
            metrics,
            process_id,
            stop: AtomicBool::new(false),
            wall: Arc::new(AtomicI64::new(0)),
            reports: Mutex::new(BTreeMap::new()),
            config,
        })
    }

    /// A new processor of a sub-topology.
    pub fn processor(&self, sub: &str) -> Option<Box<dyn Processor>> {
        let index = self.topology.shape.subs.iter().position(|known| known.name == sub)?;
        Some(self.topology.processors.get(index)?())
    }

    /// A restore of a task's stores; `None` when it has none. With `follow` it never ends.
    pub fn restore(&self, task: &TaskId, follow: bool) -> Result<Option<Restore>, Fault> {
        let subs = &self.topology.shape.subs;
        let Some(sub) = subs.iter().find(|sub| sub.name == task.sub && !sub.stores.is_empty()) else {
            return Ok(None);
        };
        let job = RestoreJob {
            task: task.clone(),
            stores: sub.stores.clone(),
            dir: self.task_dir(task),
            home: self.home.clone(),
            log: self.log.clone(),
            metrics: self.metrics.clone(),
            follow,
            wall: self.wall.clone(),
        };
        Ok(Some(match &self.restores {
            // A standby waits for nobody, and nobody for it.
            Some(_) if follow => Restore::on_thread(job, Permits::new(1))?,
            Some(permits) => Restore::on_thread(job, permits.clone())?,
            None => Restore::in_steps(job),
        }))
    }

    /// Keeps the standbys of this process going, if it should have any.
    pub fn follow(&self) -> Result<(), Fault> {
        if !self.config.standbys {
            return Ok(());
        }
        self.standbys.follow(self.stateful_tasks(), |task| {
            self.restore(task, true)?
                .ok_or_else(|| Fault::Fatal(format!("task {task} has no store to follow")))
        })
    }

    /// What the tasks of all threads do.
    pub fn tasks(&self) -> Vec<TaskReport> {
        let reports = self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        reports.values().flat_map(|report| &report.tasks).cloned().collect()
    }

    /// The id of a producer of this process: a stream thread's number, or another name.
    pub fn transactional_id(&self, of: impl Display) -> String {
        format!("{}-{}-{of}", self.topology.shape.application_id, self.process_id)
    }

    /// Whether a member of the group that was given partitions may work on them.
    ///
    /// # Errors
    /// The application was reset since this process asked, or a keyed topic has grown.
    pub fn confirm(&self, given: &[TopicPartition]) -> Result<(), Fault> {
        let (shape, log) = (&self.topology.shape, self.log.as_ref());
        let Some(resets) = self.resets else { return Ok(()) };
        layout::confirm(shape, log, resets)?;
        let is_new = |at: &TopicPartition| {
            self.partitions
                .get(&at.topic)
                .is_some_and(|count| at.partition.0 >= *count)
        };
        match given.iter().any(is_new) {
            true => layout::compare(shape, log),
            false => Ok(()),
        }
    }

    /// Removes stores of a time before the last reset: the changelog that emptied them may have forgotten that by now.
    fn drop_older_stores(&self, resets: u64) -> Result<(), Fault> {
        let file = self.config.state_dir.join("resets");
        let seen = std::fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if seen.unwrap_or(0) == resets {
            return Ok(());
        }
        for task in self.stateful_tasks() {
            TaskStore::wipe(&self.task_dir(&task), &self.home).map_err(|error| Fault::Fatal(error.to_string()))?;
        }
        std::fs::write(&file, resets.to_string())
            .map_err(|error| Fault::Fatal(format!("{} cannot be written: {error}", file.display())))
    }

    fn stateful_tasks(&self) -> impl Iterator<Item = TaskId> {
        self.topology.shape.stateful().flat_map(|sub| {
            let count = self.partitions.get(&sub.sources[0]).copied().unwrap_or(0);
            (0..count).map(|n| TaskId {
                sub: sub.name.clone(),
                partition: Partition(n),
            })
        })
    }

    /// Whether the threads were asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub fn task_dir(&self, task: &TaskId) -> PathBuf {
        self.config.state_dir.join(task.to_string())
    }

    /// A dead letter, for its partition: the one its original came from, as far as there are so many.
    pub fn dead_letter(&self, letter: &DeadLetter<'_>) -> Outgoing {
        let topic = &self.topology.shape.dead_letters;
        let count = self.partitions.get(topic).copied().unwrap_or(1).max(1);
        let (key, value, headers) = (self.topology.dead_letter)(letter);
        Outgoing {
            to: TopicPartition::new(topic, Partition(letter.record.at.partition.0 % count)),
            timestamp: letter.record.timestamp,
            key,
            value: Some(value),
            headers,
        }
    }

    /// Takes note of a thread that came round, with its tasks.
    pub fn report(&self, thread: usize, tasks: Vec<TaskReport>) {
        let mut reports = self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        reports.insert(
            thread,
            ThreadReport {
                tasks,
                doing: "its turn",
                since: Instant::now(),
            },
        );
        let all = || reports.values().flat_map(|report| &report.tasks);
        let running = all().filter(|task| task.running).count();
        let restoring = all().count() - running;
        self.metrics.tasks.with_label_values(&["running"]).set(running as i64);
        self.metrics
            .tasks
            .with_label_values(&["restoring"])
            .set(restoring as i64);
        let (standbys, left) = self.standbys.left();
        self.metrics.standby_left.set(left as i64);
        self.metrics.tasks.with_label_values(&["standby"]).set(standbys as i64);
    }

    /// Takes note of a call that may never return: librdkafka's transaction calls can outlive their timeouts while the
    /// group's coordinator is away (its issue 5456).
    pub fn enters(&self, thread: usize, call: &'static str) {
        let mut reports = self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(report) = reports.get_mut(&thread) {
            report.doing = call;
            report.since = Instant::now();
        }
    }
}

/// How long the group may take to give a process its partitions.
const SPARE_AFTER: Duration = Duration::from_secs(30);

/// A running application.
pub struct Runtime {
    app: Arc<App>,
    began: Instant,
    threads: Mutex<Vec<JoinHandle<Result<(), Fault>>>>,
}

impl Runtime {
    /// Compares the application with what it was, checks the topics, then starts the threads.
    pub fn start(
        topology: Topology,
        log: Arc<dyn Log>,
        config: RuntimeConfig,
        metrics: Metrics,
    ) -> Result<Runtime, Fault> {
        let home = StoreHome::disk(config.memory.stores);
        let resets = layout::admit(&topology.shape, log.as_ref())?;
        let process_id = process_id(&config.state_dir)?;
        let mut app = App::new(topology, log, config, metrics, home, process_id)?;
        app.drop_older_stores(resets)?;
        app.resets = Some(resets);
        let app = Arc::new(app);
        let mut threads = Vec::new();
        for index in 0..app.config.threads.max(1) {
            let app = app.clone();
            app.report(index, Vec::new());
            let thread = std::thread::Builder::new()
                .name(format!("stream-{index}"))
                .spawn(move || {
                    let ended = StreamThread::new(app.clone(), index).run(&app.stop);
                    if let Err(fault) = &ended {
                        tracing::error!(%fault, thread = index, "stream thread ended");
                        app.stop.store(true, Ordering::SeqCst);
                    }
                    ended
                })
                .map_err(|error| Fault::Fatal(format!("no stream thread: {error}")))?;
            threads.push(thread);
        }
        Ok(Runtime {
            app,
            began: Instant::now(),
            threads: Mutex::new(threads),
        })
    }

    /// Asks all threads to commit and leave.
    pub fn stop(&self) {
        self.app.stop.store(true, Ordering::SeqCst);
    }

    /// Whether a thread has ended, by request or by a fault.
    pub fn is_finished(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        threads.iter().any(JoinHandle::is_finished)
    }

    /// Whether all threads have ended.
    pub fn has_ended(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        threads.iter().all(JoinHandle::is_finished)
    }

    /// The watchdog's question: which thread has not come round for `limit`, and in what it is. Nothing in the process
    /// can free such a thread: the caller ends the process, and the next start goes on from the last commit.
    pub fn stuck(&self, limit: Duration) -> Option<String> {
        let reports = self.app.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let alive = reports
            .iter()
            .filter(|(n, _)| threads.get(**n).is_some_and(|thread| !thread.is_finished()));
        let (thread, report) = alive.min_by_key(|(_, report)| report.since)?;
        let age = report.since.elapsed();
        self.app.metrics.turn_age.set(age.as_secs() as i64);
        (age >= limit).then(|| {
            format!(
                "stream thread {thread} has been in {} for {} s, which never takes so long",
                report.doing,
                age.as_secs()
            )
        })
    }

    /// Waits for all threads; the first fault is the answer.
    pub fn join(&self) -> Result<(), Fault> {
        let mut threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut ended = Ok(());
        for thread in threads.drain(..) {
            let one = thread
                .join()
                .unwrap_or_else(|_| Err(Fault::Fatal("a stream thread panicked".to_owned())));
            if ended.is_ok() {
                ended = one;
            }
        }
        ended
    }

    pub fn tasks(&self) -> Vec<TaskReport> {
        self.app.tasks()
    }

    /// What the threads share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// How many standbys this process has, and how many changelog offsets they have still to pass.
    pub fn standbys(&self) -> (usize, u64) {
        self.app.standbys.left()
    }

    /// Whether each task of this process is restored and running. One to which the group has given none, since there are
    /// more processes than partitions, is ready after [`SPARE_AFTER`]: to take over is all it has to do.
    pub fn is_ready(&self) -> bool {
        let tasks = self.tasks();
        match tasks.is_empty() {
            true => self.began.elapsed() > SPARE_AFTER,
            false => tasks.iter().all(|task| task.running),
        }
    }

    /// Records between the group's committed offsets and the ends of all source topics.
    pub fn lag(&self) -> Result<u64, Fault> {
        lag(&self.app.topology.shape, self.app.log.as_ref())
    }
}

/// Records that the application has still to process, over all its source topics.
pub fn lag(shape: &Shape, log: &dyn Log) -> Result<u64, Fault> {
    Ok(lags(shape, log)?.values().sum())
}

/// The same by source topic.
pub fn lags(shape: &Shape, log: &dyn Log) -> Result<BTreeMap<Topic, u64>, Fault> {
    let all = topics::inputs(shape, log)?;
    let mut lags: BTreeMap<Topic, u64> = shape.sources().into_iter().map(|topic| (topic, 0)).collect();
    let committed = log.committed(&shape.application_id, &all)?;
    // A look at the end of a partition takes a while, and there may be hundreds.
    for some in all.chunks(LOOKS_AT_ONCE) {
        let left = std::thread::scope(|scope| {
            let looks: Vec<_> = some
                .iter()
                .map(|at| scope.spawn(|| left(log, at, committed.get(at).copied())))
                .collect();
            let died = || Err(Fault::Fatal("a look at a partition panicked".to_owned()));
            let joined = looks.into_iter().map(|look| look.join().unwrap_or_else(|_| died()));
            joined.collect::<Result<Vec<u64>, Fault>>()
        })?;
        for (at, left) in some.iter().zip(left) {
            *lags.entry(at.topic.clone()).or_default() += left;
        }
    }
    Ok(lags)
}

/// Partitions looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// Records of a partition that are still to be processed, after what the group has committed.
fn left(log: &dyn Log, at: &TopicPartition, committed: Option<Offset>) -> Result<u64, Fault> {
    let done = match committed {
        Some(done) => done,
        None => log.start(at)?,
    };
    let end = log.end(at)?;
    let left = end.0.saturating_sub(done.0);
    // A Kafka partition ends in what nobody processes: the marker of its last transaction, and after an outage those of
    // the aborted ones, with their records.
    match (1..=TAIL_AT_MOST).contains(&left) && is_tail(log, at, done, end)? {
        true => Ok(0),
        false => Ok(left),
    }
}

/// Offsets at the end of a partition that may have no committed record. More are counted without a look.
const TAIL_AT_MOST: u64 = 100;

/// How long a partition's end may take to be read before its offsets are counted as records.
const LOOK_AT_MOST: Duration = Duration::from_secs(5);

/// Whether a partition has no committed record from `done` to `end`.
fn is_tail(log: &dyn Log, at: &TopicPartition, done: Offset, end: Offset) -> Result<bool, Fault> {
    let mut reader = log.reader(at, done)?;
    let began = Instant::now();
    while began.elapsed() < LOOK_AT_MOST {
        if !reader.read(Duration::from_millis(50))?.is_empty() {
            return Ok(false);
        }
        if reader.position()? >= end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A name for this process's producers that survives its restart, so that the restarted process fences what its
/// predecessor left open. Kept in the state folder, as Kafka Streams keeps its process id.
fn process_id(state_dir: &Path) -> Result<String, Fault> {
    let refused = |error: std::io::Error| {
        Fault::Fatal(format!(
            "the state folder {} cannot be used: {error}",
            state_dir.display()
        ))
    };
    std::fs::create_dir_all(state_dir).map_err(refused)?;
    let file = state_dir.join("process-id");
    match std::fs::read_to_string(&file) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Ok(_) | Err(_) => {
            use std::hash::{BuildHasher, Hasher, RandomState};
            let random = RandomState::new().build_hasher().finish();
            let id = format!("{random:016x}");
            let temporary = state_dir.join("process-id.new");
            std::fs::write(&temporary, &id)
                .and_then(|()| std::fs::rename(&temporary, &file))
                .map_err(refused)?;
            Ok(id)
        }
    }
}
