//! How the memory of a process is shared out.
//!
//! Owns: the shares of the one setting, `state.memory_budget`.
//! Invariant: the shares and what a process takes at rest are together less than the budget; the rest, a third of what is
//! shared out, is for what nobody counts: RocksDB's compactions, the allocator's slack, the record at hand. `make soak`
//! measures whether that is enough.

/// What a process takes beside its shares: code, threads, clients, schemas, and what the allocator keeps.
const AT_REST: usize = 96 << 20;
/// Below this nothing moves, whatever the budget.
const LEAST: usize = 8 << 20;

/// Memory by use, in bytes, of one application: of all its threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Block cache and write buffers of all stores.
    pub stores: usize,
    /// Records fetched by the log's client and not handed out.
    pub fetched: usize,
    /// Records handed out that wait at their tasks.
    pub waiting: usize,
    /// Store writes that are not committed.
    pub staged: usize,
    /// Records written that the log has not confirmed.
    pub unconfirmed: usize,
}

impl Budget {
    /// Shares out the memory of a process, `total` bytes.
    pub fn of(total: usize) -> Budget {
        let bytes = total.saturating_sub(AT_REST).max(LEAST);
        Budget {
            stores: bytes * 2 / 5,
            fetched: bytes / 16,
            waiting: bytes / 16,
            staged: bytes / 16,
            unconfirmed: bytes / 16,
        }
    }

    /// The part of one of `count` applications of the same process, or of one of so many threads.
    pub fn part(self, count: usize) -> Budget {
        let part = |bytes: usize| bytes / count.max(1);
        Budget {
            stores: part(self.stores),
            fetched: part(self.fetched),
            waiting: part(self.waiting),
            staged: part(self.staged),
            unconfirmed: part(self.unconfirmed),
        }
    }
}
