//! Bringing a task's store up to its changelog.
//!
//! Owns: when a store must be wiped, where a replay starts and when it may stop.
//! Invariant: a replay ends only when its *read_committed* position has passed the *read_uncommitted* end asked for at
//! the start. A read_committed end would stop at the last stable offset, before what a predecessor has just committed
//! (KAFKA-10167).
//! Absent: the processing thread. Restores run on threads of their own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::log::{Log, LogError, LogErrorKind};
use super::metrics::Metrics;
use super::record::{Offset, TopicPartition};
use super::store::{StoreError, StoreMemory, TaskStore};
use super::task::TaskId;
use super::topology::StoreSpec;

/// How often progress is logged.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

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
        let mut count = free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
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
        *free.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        changed.notify_one();
    }
}

/// A restore under way.
pub struct Restore {
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<Result<Option<TaskStore>, Fault>>,
}

/// What a restore needs to know.
pub struct RestoreJob {
    pub task: TaskId,
    pub stores: Vec<StoreSpec>,
    pub dir: PathBuf,
    pub memory: StoreMemory,
    pub permits: Permits,
    pub metrics: Metrics,
}

impl Restore {
    pub fn start(log: Arc<dyn Log>, job: RestoreJob) -> Result<Restore, Fault> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        let thread = std::thread::Builder::new()
            .name(format!("restore-{}", job.task))
            .spawn(move || run(log.as_ref(), &job, &flag))
            .map_err(|error| Fault::Fatal(format!("no thread for a restore: {error}")))?;
        Ok(Restore { cancelled, thread })
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The restored store; `None` when it was cancelled.
    pub fn join(self) -> Result<Option<TaskStore>, Fault> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Fault::Fatal("a restore panicked".to_owned())))
    }

    /// Stops the restore and waits until it has let the store go.
    pub fn cancel(self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if let Err(fault) = self.join() {
            tracing::debug!(%fault, "a cancelled restore ended with a fault");
        }
    }
}

fn run(log: &dyn Log, job: &RestoreJob, cancelled: &AtomicBool) -> Result<Option<TaskStore>, Fault> {
    let Some(_permit) = job.permits.take(cancelled) else {
        return Ok(None);
    };
    let names: Vec<String> = job.stores.iter().map(|store| store.name.clone()).collect();
    let corrupted = |error: StoreError| Fault::Corrupted {
        task: job.task.clone(),
        message: error.to_string(),
    };
    let mut store = open(job, &names)?;
    for (index, spec) in job.stores.iter().enumerate() {
        let at = TopicPartition::new(&spec.changelog, job.task.partition);
        let Some(end) = patiently(cancelled, || log.end(&at))? else {
            return Ok(None);
        };
        let Some(start) = patiently(cancelled, || log.start(&at))? else {
            return Ok(None);
        };
        let mut from = match store.checkpoint(index).map_err(corrupted)? {
            Some(checkpoint) if checkpoint >= start && checkpoint <= end => checkpoint,
            Some(checkpoint) => {
                tracing::warn!(
                    task = %job.task, store = spec.name, %checkpoint, changelog_start = %start, changelog_end = %end,
                    "the checkpoint lies outside the changelog; the store is wiped and rebuilt"
                );
                drop(store);
                TaskStore::wipe(&job.dir).map_err(corrupted)?;
                store = open(job, &names)?;
                start
            }
            None => start,
        };
        if from == end {
            continue;
        }
        let began = Instant::now();
        let mut told = began;
        let first = from;
        let mut count = 0u64;
        let mut reader = log.reader(&at, from)?;
        while from < end {
            if cancelled.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let records = match reader.read(Duration::from_millis(100)) {
                Ok(records) => records,
                Err(error) if error.kind == LogErrorKind::Retry => continue,
                Err(error) => return Err(error.into()),
            };
            let position = reader.position()?;
            if position > from {
                store.replay(index, &records, position).map_err(corrupted)?;
                count += records.len() as u64;
                job.metrics
                    .restored
                    .with_label_values(&[&job.task.sub])
                    .inc_by(records.len() as u64);
                from = position;
            }
            if told.elapsed() > PROGRESS_EVERY {
                told = Instant::now();
                let done = (from.0 - first.0).max(1);
                let left = end.0.saturating_sub(from.0);
                tracing::info!(
                    task = %job.task, store = spec.name, records = count, offsets_left = left,
                    seconds_left = (began.elapsed().as_secs_f64() * left as f64 / done as f64).round(),
                    "restoring"
                );
            }
        }
        tracing::info!(
            task = %job.task, store = spec.name, records = count, from = %first, to = %from,
            ms = began.elapsed().as_millis() as u64, "restored"
        );
    }
    Ok(Some(store))
}

/// Opens the stores; damaged ones are wiped, since the changelog has everything.
fn open(job: &RestoreJob, names: &[String]) -> Result<TaskStore, Fault> {
    match TaskStore::open(&job.dir, names, &job.memory) {
        Ok(store) => Ok(store),
        Err(error) if error.to_string().contains("lock") => Err(Fault::Fatal(format!(
            "{} is in use by another process: {error}",
            job.dir.display()
        ))),
        Err(error) => {
            tracing::warn!(task = %job.task, %error, "the store cannot be opened; it is wiped and rebuilt");
            TaskStore::wipe(&job.dir)
                .and_then(|()| TaskStore::open(&job.dir, names, &job.memory))
                .map_err(|error| Fault::Fatal(format!("{}: {error}", job.dir.display())))
        }
    }
}

/// Asks again while the log is away; `None` when cancelled.
fn patiently(
    cancelled: &AtomicBool,
    mut ask: impl FnMut() -> Result<Offset, LogError>,
) -> Result<Option<Offset>, Fault> {
    loop {
        match ask() {
            Ok(offset) => return Ok(Some(offset)),
            Err(error) if error.kind == LogErrorKind::Retry => {
                if cancelled.load(Ordering::SeqCst) {
                    return Ok(None);
                }
                tracing::warn!(%error, "the log is away; the restore waits");
                std::thread::sleep(Duration::from_millis(500));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
