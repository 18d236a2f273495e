//! One partition of a simulation: a log of slots, most of which end as committed or aborted.

use std::time::Duration;

use accrue::stream::record::{Offset, Record};

/// The number of a transaction, in the order of their beginnings.
pub type TxnId = u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    Committed,
    Aborted,
    Marker,
}

/// One offset of a partition.
pub struct Slot {
    /// `None` for what the CRM wrote.
    pub txn: Option<TxnId>,
    pub state: State,
    /// Compaction took it; readers do not see it any more.
    pub gone: bool,
    /// Of a deletion: since when it is all that is left of its key.
    pub alone_since: Option<Duration>,
    pub record: Option<Record>,
}

#[derive(Default)]
pub struct Log {
    pub slots: Vec<Slot>,
    pub compacted: bool,
    /// How many slots from the start on are decided.
    stable: usize,
}

impl Log {
    pub fn end(&self) -> Offset {
        Offset(self.slots.len() as u64)
    }

    /// The last stable offset: nothing below it is undecided.
    pub fn stable(&self) -> Offset {
        Offset(self.stable as u64)
    }

    pub fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
        while self
            .slots
            .get(self.stable)
            .is_some_and(|slot| slot.state != State::Open)
        {
            self.stable += 1;
        }
    }

    /// What a read_committed reader finds in `from..to`.
    pub fn visible(&self, from: Offset, to: Offset) -> impl Iterator<Item = &Record> {
        let (from, to) = (from.0 as usize, (to.0 as usize).min(self.slots.len()));
        self.slots[from.min(to)..to]
            .iter()
            .filter(|slot| slot.state == State::Committed && !slot.gone)
            .filter_map(|slot| slot.record.as_ref())
    }
}
