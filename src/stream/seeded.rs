//! Bugs that can be switched on, to prove that the simulation finds them.
//!
//! Owns: their list, those of sinks included. Each is a mistake that was made here once or that others are known for; `tests/sim.rs` states
//! within how many seeds the simulation finds it.
//! Invariant: without the feature `seeded-bugs` there is no switch, and [`has`] is always false: what is built for use
//! has none of them.

/// A mistake in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Input offsets are committed in a transaction of their own, before the changelog is flushed.
    OffsetsBeforeChangelog,
    /// The store is written before the transaction commits.
    StoreBeforeCommit,
    /// A restore ends where read_committed ends, not where the log does.
    RestoreStopsAtStableOffset,
    /// A producer is used again after a commit whose outcome is unknown (librdkafka issue 5423).
    ProducerReused,
    /// After an abort a task goes on with what it had staged.
    OverlayKept,
    /// A transaction that moves no input is committed without showing the group's generation.
    GenerationNotShown,
    /// A revocation is forgotten when the commit before it fails.
    RevocationForgotten,
    /// A task whose restore failed runs with no store.
    RunsUnrestored,
    /// A record is gone when its processing has to be tried again.
    RecordForgotten,
    /// After a fault, partitions are forgotten when they cannot be rewound at once.
    InputForgotten,
    /// A partition counts as resumed though the call failed.
    ResumeAssumed,
    /// A store that was left behind for days goes on from where it was, though deletions are forgotten meanwhile.
    StaleStoreKept,
    /// The thread that lost a task gives back the right to its store, which another thread of the process has by now.
    ClaimOfAnotherGivenBack,
    /// A sink sends a document before it is written down that it was sent.
    SentBeforeCommit,
    /// A document that another process had sent is taken for one that was not.
    OrphanSentAgain,
    /// A request is made however long ago it was decided, by a process that stood still meanwhile.
    StaleRequestMade,
    /// What a person decided about a document is done with what was sent of it since.
    StaleDecisionObeyed,
}

#[cfg(feature = "seeded-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a bug on, for the calling thread, or off.
    pub fn set(bug: Option<Bug>) {
        ON.set(bug);
    }

    pub fn has(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }
}

#[cfg(feature = "seeded-bugs")]
pub use switch::set;

/// Whether a bug is on.
pub(crate) fn has(bug: Bug) -> bool {
    #[cfg(feature = "seeded-bugs")]
    return switch::has(bug);
    #[cfg(not(feature = "seeded-bugs"))]
    {
        let _ = bug;
        false
    }
}
