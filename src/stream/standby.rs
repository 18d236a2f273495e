//! Standbys: stores that a process keeps up to date without owning their tasks, so that it can take them over at once.
//!
//! Owns: who may open a task's store in this process (its task, or its standby, never both), and which tasks have a
//! standby: all that no thread of the process has. Which process a partition goes to is the group's business, and
//! librdkafka lets nobody tell its assignors where standbys are; so a process is ready for any.
//! Invariant: a task gets its store only after its standby has let it go.
//! Absent: reading and writing; a standby is a restore that does not end (`restore.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::fault::Fault;
use super::restore::Restore;
use super::seeded::{self, Bug};
use super::task::TaskId;

/// The stores of a process by who has them; clones share it.
#[derive(Clone, Default)]
pub struct Standbys(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// How many claims there are: a task that goes from one thread to another may have two for a while.
    claimed: BTreeMap<TaskId, usize>,
    following: BTreeMap<TaskId, Restore>,
}

/// A task's right to its store, given back when dropped.
pub struct Claim {
    task: TaskId,
    standbys: Standbys,
}

impl Standbys {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives a task its store; returns when its standby has let it go.
    pub fn claim(&self, task: &TaskId) -> Claim {
        let mut state = self.lock();
        *state.claimed.entry(task.clone()).or_default() += 1;
        drop(state.following.remove(task));
        Claim {
            task: task.clone(),
            standbys: self.clone(),
        }
    }

    /// Starts, with `start`, what has neither a task nor a standby, and moves on those that run in steps. A standby that
    /// failed is started again by the next call.
    pub fn follow(
        &self,
        tasks: impl Iterator<Item = TaskId>,
        start: impl Fn(&TaskId) -> Result<Restore, Fault>,
    ) -> Result<(), Fault> {
        let mut state = self.lock();
        for task in tasks {
            if state.claimed.contains_key(&task) {
                continue;
            }
            let followed = match state.following.get_mut(&task) {
                Some(standby) => standby.check().map(|_| ()),
                None => start(&task).map(|standby| {
                    state.following.insert(task.clone(), standby);
                }),
            };
            match followed {
                Ok(()) | Err(Fault::Retry(_)) => {}
                Err(fault @ (Fault::Abort(_) | Fault::Fenced(_))) => {
                    tracing::warn!(%task, %fault, "the standby starts again");
                    state.following.remove(&task);
                }
                Err(fault @ (Fault::Corrupted { .. } | Fault::Fatal(_))) => {
                    state.following.remove(&task);
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// How many standbys there are, and how many changelog offsets they have still to pass.
    pub fn left(&self) -> (usize, u64) {
        let state = self.lock();
        let left = state.following.values().map(|standby| standby.progress().offsets_left);
        (state.following.len(), left.sum())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.standbys.lock();
        if let Some(claims) = state.claimed.get_mut(&self.task) {
            *claims -= 1;
            if *claims == 0 || seeded::has(Bug::ClaimOfAnotherGivenBack) {
                state.claimed.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::record::Partition;

    /// The thread that has a task may learn that it lost it after the thread that gets it.
    #[test]
    fn a_task_that_changes_threads_gets_no_standby_in_between() {
        let standbys = Standbys::default();
        let task = TaskId {
            sub: "contract".to_owned(),
            partition: Partition(0),
        };
        let started = std::cell::Cell::new(0);
        let follow = || {
            let start = |_: &TaskId| {
                started.set(started.get() + 1);
                Err(Fault::Retry("not yet".to_owned()))
            };
            standbys.follow(std::iter::once(task.clone()), start).expect("no fault");
            started.get()
        };
        let (loses, gets) = (standbys.claim(&task), standbys.claim(&task));
        drop(loses);
        assert_eq!(follow(), 0);
        drop(gets);
        assert_eq!(follow(), 1);
    }
}
