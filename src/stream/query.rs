//! Committed state for whoever asks from outside the stream threads (Kafka Streams' interactive queries).
//!
//! Owns: which stores of this process may be read, and until when.
//! Invariants: only what is committed is seen, with the changelog position it stands for; a store is let go only when
//! nobody reads it, since RocksDB opens a folder once at a time.
//! Absent: stores that are being restored, and standbys: they are behind by an amount that nobody knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use super::store::{TaskStore, View};
use super::task::TaskId;

/// The readable stores of a process; clones share them.
#[derive(Clone, Default)]
pub struct Queries(Arc<Mutex<BTreeMap<TaskId, Window>>>);

/// `None` once the store is let go.
type Window = Arc<RwLock<Option<Arc<TaskStore>>>>;

/// Ends the reading of a task's store when dropped; waits for whoever is at it.
pub struct Shown {
    task: TaskId,
    window: Window,
    queries: Queries,
}

impl Queries {
    /// Reads a running task's store at one moment. `None` when this process has no such task running.
    ///
    /// The task cannot go to another process before `read` returns: read a bounded number of entries.
    pub fn read<T>(&self, task: &TaskId, read: impl FnOnce(&View<'_>) -> T) -> Option<T> {
        let window = self.lock().get(task).cloned()?;
        let store = window.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        store.as_ref().map(|store| read(&store.view()))
    }

    pub(super) fn show(&self, task: &TaskId, store: Arc<TaskStore>) -> Shown {
        let window: Window = Arc::new(RwLock::new(Some(store)));
        self.lock().insert(task.clone(), window.clone());
        Shown {
            task: task.clone(),
            window,
            queries: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Window>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut windows = self.queries.lock();
        if windows
            .get(&self.task)
            .is_some_and(|window| Arc::ptr_eq(window, &self.window))
        {
            windows.remove(&self.task);
        }
        drop(windows);
        *self.window.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }
}
