//! Event to ledger: how long each document took, by destination, and which took longer than promised.
//!
//! Owns: the figures, from receipts alone, so that a report needs no running sink. Pure.
//! Invariant: percentiles are times that some document took (nearest rank), not between two.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::codec::receipt::Receipt;
use crate::config::Sink;

/// The times of one sink.
#[derive(Clone, Debug, Default)]
pub struct Times {
    took: Vec<SignedDuration>,
    pub breaches: Vec<Breach>,
}

/// A document that took longer than promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub receipt: Receipt,
    pub took: SignedDuration,
}

/// The times of all sinks.
#[derive(Clone, Debug, Default)]
pub struct Report(pub BTreeMap<String, Times>);

impl Report {
    /// Counts a receipt against the promise of its sink. What a person cancelled promises nothing.
    pub fn add(&mut self, receipt: &Receipt, sink: Option<&Sink>) {
        if receipt.outcome == "cancelled" {
            return;
        }
        let took = receipt.settled_at.duration_since(receipt.source_at);
        let times = self.0.entry(receipt.sink.clone()).or_default();
        times.took.push(took);
        let promised = sink.and_then(|sink| SignedDuration::try_from(sink.sla.get()).ok());
        if promised.is_some_and(|promised| took > promised) {
            times.breaches.push(Breach {
                receipt: receipt.clone(),
                took,
            });
        }
    }
}

impl Times {
    pub fn count(&self) -> usize {
        self.took.len()
    }

    /// The time that so many of a hundred documents took at most; `None` without any.
    pub fn percentile(&self, percent: usize) -> Option<SignedDuration> {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}
