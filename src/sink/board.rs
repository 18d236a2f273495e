//! What each task of a sink has to do, for those who wait for it: `--until-idle`, and a clean end.
//!
//! Invariant: a task that took something in says so before its commit, so a reader who sees no lag and no work sees the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::stream::record::Partition;

/// See the module; clones share it.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Posted>>);

#[derive(Default)]
struct Posted {
    tasks: BTreeMap<Partition, Work>,
    /// Summaries are to be written now, whenever their time would be.
    flush: bool,
}

/// What a task has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Deals with something that will happen without anybody's help.
    pub active: usize,
    /// Deals that wait for a person.
    pub parked: usize,
    /// Summaries that are being gathered.
    pub gathering: usize,
    /// Something is done and not yet committed.
    pub uncommitted: bool,
}

impl Board {
    /// What a task has to do; `None` once it is gone.
    pub fn post(&self, partition: Partition, work: Option<Work>) {
        let mut posted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match work {
            Some(work) => posted.tasks.insert(partition, work),
            None => posted.tasks.remove(&partition),
        };
    }

    /// All tasks together.
    pub fn work(&self) -> Work {
        let posted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        posted.tasks.values().fold(Work::default(), |all, one| Work {
            active: all.active + one.active,
            parked: all.parked + one.parked,
            gathering: all.gathering + one.gathering,
            uncommitted: all.uncommitted || one.uncommitted,
        })
    }

    /// Has summaries written now.
    pub fn flush(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush = true;
    }

    pub fn is_flushing(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush
    }
}
