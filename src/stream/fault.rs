//! Failures, named for what the stream thread does next.
//!
//! Owns: [`Fault`] and how a log error becomes one.
//! Invariant: faults are handled in `thread.rs` and nowhere else; a bad *record* is never a fault, it is a dead letter.

use super::log::{LogError, LogErrorKind};
use super::store::StoreError;
use super::task::TaskId;

/// What went wrong, by what follows from it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// Away for now: wait and call again.
    #[error("{0}")]
    Retry(String),
    /// The transaction cannot be committed, or nobody knows whether it was: take a new producer, drop the overlays,
    /// restore from the checkpoints and read again from the committed offsets.
    #[error("{0}")]
    Abort(String),
    /// Another owner took over: drop everything uncommitted and join the group again.
    #[error("{0}")]
    Fenced(String),
    /// This task's store cannot be trusted: rebuild it from its changelog.
    #[error("store of task {task} cannot be used: {message}")]
    Corrupted { task: TaskId, message: String },
    /// Nothing here can help: stop the process.
    #[error("{0}")]
    Fatal(String),
}

impl Fault {
    /// What follows from a store that failed: a damaged one is made again, and one that the machine does not let us use is
    /// opened again and brought up to its changelog; nothing of it is removed.
    pub(super) fn of_store(task: &TaskId, error: &StoreError) -> Fault {
        match error.is_damage {
            true => Fault::Corrupted {
                task: task.clone(),
                message: error.to_string(),
            },
            false => Fault::Abort(format!("the store of task {task} cannot be used now: {error}")),
        }
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Fault {
        match error.kind {
            LogErrorKind::Retry => Fault::Retry(error.message),
            LogErrorKind::Abort | LogErrorKind::Unknown => Fault::Abort(error.message),
            LogErrorKind::Fenced => Fault::Fenced(error.message),
            LogErrorKind::Fatal => Fault::Fatal(error.message),
        }
    }
}
