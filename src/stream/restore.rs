//! Bringing a task's store up to its changelog.
//!
//! Owns: when a store must be wiped, where a replay starts and when it may stop; how far it is.
//! Invariant: a replay ends only when its *read_committed* position has passed the *read_uncommitted* end asked for at
//! the start. A read_committed end would stop at the last stable offset, before what a predecessor has just committed
//! (KAFKA-10167).
//! Absent: the processing of records. A restore runs on a thread of its own, or, with no threads for it, in steps
//! between the records of the stream thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::log::{DELETIONS_KEPT, Log, READ_WAIT, Reader};
use super::metrics::Metrics;
use super::record::{Offset, Timestamp, TopicPartition};
use super::seeded::{self, Bug};
use super::store::{StoreError, StoreHome, TaskStore};
use super::task::TaskId;
use super::topology::StoreSpec;

/// Behind for so long, a store is made again: it might keep what its changelog has deleted and forgotten ([`DELETIONS_KEPT`],
/// from which this is far, since clocks differ and a restore takes its time).
const STALE_AFTER: Duration = Duration::from_secs(DELETIONS_KEPT.as_secs() / 2);
/// How often progress is logged.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Pause of a restore's own thread while the log is away.
const BACKOFF: Duration = Duration::from_millis(500);
/// How long one read of a standby waits, which looks for no end.
const FOLLOW_WAIT: Duration = Duration::from_millis(100);

/// How many restores may still start; clones share the count.
#[derive(Clone)]
pub struct Permits(Arc<(Mutex<usize>, Condvar)>);

impl Permits {
    pub fn new(count: usize) -> Permits {
        Permits(Arc::new((Mutex::new(count.max(1)), Condvar::new())))
    }

    /// Waits for a permit; it is given back when dropped. `None` when cancelled.
    fn take(&self, cancelled: &AtomicBool) -> Option<Permit<'_>> {
        let (free, changed) = &*self.0;
        let mut count = lock(free);
        while *count == 0 {
            if cancelled.load(Ordering::SeqCst) {
                return None;
            }
            let waited = changed.wait_timeout(count, Duration::from_millis(50));
            count = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        *count -= 1;
        Some(Permit(self))
    }
}

struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let (free, changed) = &*self.0.0;
        *lock(free) += 1;
        changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How far a restore has come, over all stores of its task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Changelog records applied.
    pub records: u64,
    /// Changelog offsets still to pass in the store at hand, as far as they were known at the start.
    pub offsets_left: u64,
    /// At the pace so far; `None` before there is one.
    pub seconds_left: Option<u64>,
}

/// What a restore needs to know.
pub struct RestoreJob {
    pub task: TaskId,
    pub stores: Vec<StoreSpec>,
    pub dir: PathBuf,
    pub home: StoreHome,
    pub log: Arc<dyn Log>,
    pub metrics: Metrics,
    /// Whether to go on with what comes after: a standby.
    pub follow: bool,
    /// The machine's clock, as the threads last saw it.
    pub wall: Arc<AtomicI64>,
}

impl RestoreJob {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::Relaxed))
    }

    /// Whether so much time has passed since the store was last at the end of its changelog that a deletion since then may
    /// be gone from there. One of an earlier version, which noted no time, is trusted.
    fn is_stale(&self, store: &TaskStore) -> Result<bool, StoreError> {
        Ok(store.current_at()?.is_some_and(|at| self.is_long_ago(at)))
    }

    fn is_long_ago(&self, at: Timestamp) -> bool {
        let ago = self.now().0.saturating_sub(at.0);
        ago > STALE_AFTER.as_millis() as i64 && !seeded::has(Bug::StaleStoreKept)
    }
}

/// A restore under way. Dropping it stops it, and waits until it has let the store go.
pub struct Restore {
    mode: Mode,
    progress: Arc<Mutex<RestoreProgress>>,
}

enum Mode {
    Thread {
        cancelled: Arc<AtomicBool>,
        /// `None` once its result was taken.
        thread: Option<JoinHandle<Result<Option<TaskStore>, Fault>>>,
    },
    Steps(Box<Replay>),
}

impl Restore {
    /// Restores on a thread of its own, once there is a permit.
    pub fn on_thread(job: RestoreJob, permits: Permits) -> Result<Restore, Fault> {
        let progress = Arc::new(Mutex::new(RestoreProgress::default()));
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        let name = format!("restore-{}", job.task);
        let wait = if job.follow { FOLLOW_WAIT } else { READ_WAIT };
        let mut replay = Replay::new(job, progress.clone());
        let work = move || {
            let Some(_permit) = permits.take(&flag) else {
                return Ok(None);
            };
            while !flag.load(Ordering::SeqCst) {
                match replay.step(wait) {
                    Ok(true) => return Ok(replay.store.take()),
                    Ok(false) => {}
                    Err(Fault::Retry(message)) => {
                        tracing::warn!(reason = message, "the restore waits");
                        std::thread::sleep(BACKOFF);
                    }
                    Err(fault) => return Err(fault),
                }
            }
            Ok(None)
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(work)
            .map_err(|error| Fault::Fatal(format!("no thread for a restore: {error}")))?;
        let mode = Mode::Thread {
            cancelled,
            thread: Some(thread),
        };
        Ok(Restore { mode, progress })
    }

    /// Restores a step at each [`Restore::check`].
    pub fn in_steps(job: RestoreJob) -> Restore {
        let progress = Arc::new(Mutex::new(RestoreProgress::default()));
        Restore {
            mode: Mode::Steps(Box::new(Replay::new(job, progress.clone()))),
            progress,
        }
    }

    /// The restored store, once it is there. After an error the restore is over and has to be started again, except
    /// after [`Fault::Retry`].
    pub fn check(&mut self) -> Result<Option<TaskStore>, Fault> {
        match &mut self.mode {
            Mode::Steps(replay) => Ok(if replay.step(Duration::ZERO)? {
                replay.store.take()
            } else {
                None
            }),
            Mode::Thread { thread, .. } => match thread.take() {
                Some(running) if running.is_finished() => running
                    .join()
                    .unwrap_or_else(|_| Err(Fault::Fatal("a restore panicked".to_owned()))),
                running => {
                    *thread = running;
                    Ok(None)
                }
            },
        }
    }

    pub fn progress(&self) -> RestoreProgress {
        *lock(&self.progress)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Mode::Thread { cancelled, thread } = &mut self.mode
            && let Some(thread) = thread.take()
        {
            cancelled.store(true, Ordering::SeqCst);
            if let Ok(Err(fault)) = thread.join() {
                tracing::debug!(%fault, "a cancelled restore ended with a fault");
            }
        }
    }
}

/// The work itself. A step that fails with [`Fault::Retry`] may be called again.
struct Replay {
    job: RestoreJob,
    names: Vec<String>,
    store: Option<TaskStore>,
    /// The store at hand, by its number.
    index: usize,
    /// By the store's number.
    readings: Vec<Option<Reading>>,
    progress: Arc<Mutex<RestoreProgress>>,
}

struct Reading {
    reader: Box<dyn Reader>,
    first: Offset,
    /// What the store stands for.
    from: Offset,
    end: Offset,
    records: u64,
    began: Instant,
    told: Instant,
    /// When it was last read on.
    read_at: Timestamp,
}

impl Replay {
    fn new(job: RestoreJob, progress: Arc<Mutex<RestoreProgress>>) -> Replay {
        Replay {
            names: job.stores.iter().map(|store| store.name.clone()).collect(),
            readings: job.stores.iter().map(|_| None).collect(),
            job,
            store: None,
            index: 0,
            progress,
        }
    }

    /// Opens, or reads once. Whether all stores are restored.
    fn step(&mut self, wait: Duration) -> Result<bool, Fault> {
        let Some(store) = &self.store else {
            self.store = Some(self.open()?);
            return Ok(false);
        };
        let (Some(spec), Some(slot)) = (self.job.stores.get(self.index), self.readings.get_mut(self.index)) else {
            return Ok(true);
        };
        let at = TopicPartition::new(&spec.changelog, self.job.task.partition);
        let Some(reading) = slot else {
            let (end, start) = (self.job.log.end(&at)?, self.job.log.start(&at)?);
            let job = &self.job;
            let in_store = |error: StoreError| Fault::of_store(&job.task, &error);
            let checkpoint = store.checkpoint(self.index).map_err(in_store)?;
            let useless = match checkpoint {
                Some(at) if at < start || at > end => Some("the checkpoint lies outside the changelog"),
                Some(at) if at < end && job.is_stale(store).map_err(in_store)? => {
                    Some("the store has been behind for so long that its changelog may have forgotten deletions")
                }
                Some(_) | None => None,
            };
            if let Some(why) = useless {
                tracing::warn!(
                    task = %job.task, store = spec.name, checkpoint = checkpoint.map_or(0, |at| at.0),
                    changelog_start = %start, changelog_end = %end, "{why}; the store is wiped and rebuilt"
                );
                return self.begin_again();
            }
            let from = match checkpoint {
                Some(at) => at,
                None => {
                    // What is deleted from now on is kept for as long as from the end on.
                    store.note_current(job.now()).map_err(in_store)?;
                    start
                }
            };
            let began = Instant::now();
            *slot = Some(Reading {
                reader: self.job.log.reader(&at, from)?,
                first: from,
                from,
                end,
                records: 0,
                began,
                told: began,
                read_at: job.now(),
            });
            return Ok(false);
        };
        if reading.from < reading.end || self.job.follow {
            if self.job.is_long_ago(reading.read_at) {
                tracing::warn!(task = %self.job.task, "the restore was asleep for hours; the store is wiped and rebuilt");
                return self.begin_again();
            }
            reading.read_at = self.job.now();
            let records = reading.reader.read(wait)?;
            let position = reading.reader.position()?;
            if position > reading.from {
                let replayed = store.replay(self.index, &records, position);
                replayed.map_err(|error| Fault::of_store(&self.job.task, &error))?;
                reading.from = position;
                reading.records += records.len() as u64;
                let restored = &self.job.metrics.restored;
                restored
                    .with_label_values(&[&self.job.task.sub])
                    .inc_by(records.len() as u64);
            }
            let now = reading.progress();
            *lock(&self.progress) = now;
            // A standby that has caught up has nothing more to say.
            if now.offsets_left > 0 && reading.told.elapsed() > PROGRESS_EVERY {
                reading.told = Instant::now();
                tracing::info!(
                    task = %self.job.task, store = spec.name, records = now.records, offsets_left = now.offsets_left,
                    seconds_left = now.seconds_left, "restoring"
                );
            }
            if self.job.follow {
                // A standby that found nothing to read is at the end.
                if records.is_empty() && now.offsets_left == 0 && self.job.stores.len() == 1 {
                    let noted = store.note_current(self.job.now());
                    noted.map_err(|error| Fault::of_store(&self.job.task, &error))?;
                }
                self.index = (self.index + 1) % self.job.stores.len();
                return Ok(false);
            }
            let stopped_early = seeded::has(Bug::RestoreStopsAtStableOffset) && records.is_empty();
            if reading.from < reading.end && !stopped_early {
                return Ok(false);
            }
        }
        tracing::info!(
            task = %self.job.task, store = spec.name, records = reading.records, from = %reading.first,
            to = %reading.from, ms = reading.began.elapsed().as_millis() as u64, "restored"
        );
        *slot = None;
        self.index += 1;
        let whole = self.index == self.job.stores.len();
        if whole && let Some(store) = &self.store {
            let noted = store.note_current(self.job.now());
            noted.map_err(|error| Fault::of_store(&self.job.task, &error))?;
        }
        Ok(whole)
    }

    /// All stores of a task share a database: all are wiped, and read from the start of their changelogs.
    fn begin_again(&mut self) -> Result<bool, Fault> {
        self.store = None;
        self.index = 0;
        self.readings.fill_with(|| None);
        let wiped = TaskStore::wipe(&self.job.dir, &self.job.home);
        wiped.map_err(|error| Fault::of_store(&self.job.task, &error))?;
        Ok(false)
    }

    /// Opens the stores; damaged ones are wiped, since the changelog has everything.
    fn open(&self) -> Result<TaskStore, Fault> {
        let RestoreJob { task, dir, home, .. } = &self.job;
        match TaskStore::open(dir, &self.names, home) {
            Ok(store) => Ok(store),
            // A thread that does not know yet that it lost the task still has it, and lets it go when it does.
            Err(error) if error.is_held_here() => Err(Fault::Retry(format!("another thread has it: {error}"))),
            Err(error) if error.is_held() => Err(Fault::Fatal(format!(
                "{} is in use by another process: {error}",
                dir.display()
            ))),
            Err(error) if error.is_damage => {
                tracing::warn!(%task, %error, "the store is damaged; it is wiped and rebuilt");
                TaskStore::wipe(dir, home)
                    .and_then(|()| TaskStore::open(dir, &self.names, home))
                    .map_err(|error| Fault::Fatal(format!("{}: {error}", dir.display())))
            }
            // Of which the store knows nothing: what is in it is as good as before.
            Err(error) => Err(Fault::Fatal(format!(
                "the store in {} cannot be opened, and nothing of it was removed: {error}",
                dir.display()
            ))),
        }
    }
}

impl Reading {
    fn progress(&self) -> RestoreProgress {
        let done = self.from.0.saturating_sub(self.first.0);
        let left = self.end.0.saturating_sub(self.from.0);
        let pace = |done: u64| self.began.elapsed().as_millis() as u64 * left / done / 1_000;
        RestoreProgress {
            records: self.records,
            offsets_left: left,
            seconds_left: (done > 0).then(|| pace(done)),
        }
    }
}
