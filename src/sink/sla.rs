//! Event to ledger: how long each document took, by destination, which took longer than promised, and which are overdue.
//!
//! Owns: the figures, from receipts and from what is on its way, so that a report needs no running sink. Pure.
//! Invariant: percentiles are times that some document took (nearest rank), not between two.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::reading::{Holdings, Waiting};
use crate::codec::receipt::Receipt;
use crate::config::Sink;

/// The times of one sink.
#[derive(Default)]
pub struct Times {
    took: Vec<SignedDuration>,
    pub breaches: Vec<Breach>,
    pub overdue: Vec<Overdue>,
}

/// A document on its way for longer than promised.
pub struct Overdue {
    pub waiting: Waiting,
    pub age: SignedDuration,
}

/// A document that took longer than promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub receipt: Receipt,
    pub took: SignedDuration,
}

/// The times of all sinks.
#[derive(Default)]
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
        let promised = sink.and_then(promised);
        if promised.is_some_and(|promised| took > promised) {
            times.breaches.push(Breach {
                receipt: receipt.clone(),
                took,
            });
        }
    }

    /// Counts what a sink has on its way, as of `now`.
    pub fn add_waiting(&mut self, sink: &Sink, holdings: Holdings, now: Timestamp) {
        let late = holdings.waiting.into_iter().filter_map(|waiting| {
            let age = now.duration_since(waiting.row.source_at);
            let is_late = promised(sink).is_some_and(|promised| age > promised);
            is_late.then_some(Overdue { waiting, age })
        });
        let late: Vec<Overdue> = late.collect();
        if !late.is_empty() {
            let times = self.0.entry(sink.name.as_str().to_owned()).or_default();
            times.overdue.extend(late);
        }
    }
}

/// From an event to its receipt.
fn promised(sink: &Sink) -> Option<SignedDuration> {
    SignedDuration::try_from(sink.sla.get()).ok()
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
