//! How much a process may ask of one destination, now.
//!
//! Owns: the writes in flight, the requests of the last minute and day, the pause a throttled answer asks for, the
//! breaker; and this process's part of the limits, which is what its partitions are of all. The number in flight grows by
//! one with each full round of answers and is halved by a throttled one (additive increase, multiplicative decrease: Chiu
//! and Jain 1989), between one and the destination's limit.
//! Invariant: a request is made only with a [`Permit`], and a permit that is dropped, however that comes, is free again.
//! Deliberately absent: what was asked before a start, or by who had a partition before; the system's own answer (429)
//! covers the minute after.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::breaker::{Breaker, Change};
use super::delivery::{backoff, later};
use super::destination::{Found, Limits, Outcome};
use crate::config;

/// Shared by all tasks of a process that write to one destination.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<Inner>>);

struct Inner {
    limits: Limits,
    /// Partitions whose tasks are here, and all there are.
    here: u32,
    partitions: u32,
    in_flight: usize,
    /// What may be in flight; at most the limit.
    window: usize,
    /// Answers since the window last grew.
    answers: usize,
    throttled_in_a_row: u64,
    paused_until: Timestamp,
    minute: Rolling,
    day: Rolling,
    breaker: Breaker,
    /// Changes that no task has written yet.
    changes: Vec<Change>,
    /// Nothing new is started: the process is to end.
    draining: bool,
}

/// A task's part of the limits, while it lives.
pub struct Share(Gate);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.lock().here -= 1;
    }
}

/// The right to one request.
pub struct Permit(Gate);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

impl Gate {
    /// `partitions`: how many tasks there are, in all processes. None is here yet.
    pub fn new(limits: Limits, own: config::SinkLimits, breaker: config::Breaker, partitions: u32) -> Gate {
        let lower = |theirs: Option<u32>, ours: Option<u32>| match (theirs, ours) {
            (Some(theirs), Some(ours)) => Some(theirs.min(ours)),
            (theirs, ours) => theirs.or(ours),
        };
        let in_flight = own.in_flight.map_or(limits.in_flight, |own| {
            limits.in_flight.min(usize::try_from(own).unwrap_or(usize::MAX))
        });
        let limits = Limits {
            in_flight: in_flight.max(1),
            per_minute: lower(limits.per_minute, own.per_minute),
            per_day: lower(limits.per_day, own.per_day),
        };
        Gate(Arc::new(Mutex::new(Inner {
            window: limits.in_flight,
            limits,
            here: 0,
            partitions: partitions.max(1),
            in_flight: 0,
            answers: 0,
            throttled_in_a_row: 0,
            paused_until: Timestamp::MIN,
            minute: Rolling::new(Duration::from_secs(1), 60),
            day: Rolling::new(Duration::from_secs(15 * 60), 96),
            breaker: Breaker::new(breaker),
            changes: Vec::new(),
            draining: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task is here.
    pub fn join(&self) -> Share {
        self.lock().here += 1;
        Share(self.clone())
    }

    /// The right to one request now, if there is one.
    pub fn enter(&self, now: Timestamp) -> Option<Permit> {
        let mut inner = self.lock();
        let (per_minute, per_day) = (inner.limits.per_minute, inner.limits.per_day);
        let (per_minute, per_day) = (per_minute.map(|it| inner.part(it)), per_day.map(|it| inner.part(it)));
        let below = |limit: Option<u64>, made: u64| limit.is_none_or(|limit| made < limit);
        let may = !inner.draining
            && inner.breaker.is_closed()
            && now >= inner.paused_until
            && inner.in_flight < inner.window.min(inner.most_in_flight())
            && below(per_minute, inner.minute.count(now))
            && below(per_day, inner.day.count(now));
        if !may {
            return None;
        }
        inner.in_flight += 1;
        inner.minute.add(now);
        inner.day.add(now);
        Some(Permit(self.clone()))
    }

    /// What a write came to.
    pub fn answered(&self, outcome: &Outcome, now: Timestamp) {
        let mut inner = self.lock();
        match outcome {
            Outcome::Acknowledged(_) | Outcome::Refused(_) | Outcome::Taken(_) => inner.served(),
            Outcome::Throttled { retry_after } => inner.throttled(*retry_after, now),
            Outcome::Unavailable(why) | Outcome::Uncertain(why) => inner.failed(why, now),
        }
    }

    /// What a look-up came to.
    pub fn looked_up(&self, found: &Found, now: Timestamp) {
        let mut inner = self.lock();
        match found {
            Found::Same(_)
            | Found::Different { .. }
            | Found::Unfinished { .. }
            | Found::Several(_)
            | Found::Nothing => inner.served(),
            Found::Throttled { retry_after } => inner.throttled(*retry_after, now),
            Found::Unknown(why) => inner.failed(why, now),
        }
    }

    /// Whether the breaker's probe is to be sent now; it then counts as sent.
    pub fn take_probe(&self, now: Timestamp) -> bool {
        let mut inner = self.lock();
        !inner.draining && inner.breaker.take_probe(now)
    }

    pub fn probed(&self, served: bool, now: Timestamp) {
        let mut inner = self.lock();
        let change = inner.breaker.probed(served, now);
        inner.changes.extend(change);
    }

    /// Changes of the breaker to be written down; who cannot, gives them back.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    pub fn give_back(&self, changes: Vec<Change>) {
        let mut inner = self.lock();
        let newer = std::mem::replace(&mut inner.changes, changes);
        inner.changes.extend(newer);
    }

    /// Starts nothing from now on.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    pub fn is_closed(&self) -> bool {
        self.lock().breaker.is_closed()
    }
}

impl Inner {
    /// This process's part of a limit; never less than one.
    fn part(&self, limit: u32) -> u64 {
        let here = self.here.min(self.partitions);
        (u64::from(limit) * u64::from(here) / u64::from(self.partitions)).max(1)
    }

    fn most_in_flight(&self) -> usize {
        let limit = u32::try_from(self.limits.in_flight).unwrap_or(u32::MAX);
        usize::try_from(self.part(limit)).unwrap_or(usize::MAX)
    }

    fn served(&mut self) {
        self.breaker.served();
        self.throttled_in_a_row = 0;
        self.answers += 1;
        if self.answers >= self.window {
            self.answers = 0;
            self.window = (self.window + 1).min(self.most_in_flight());
        }
    }

    fn throttled(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        self.breaker.served();
        let wait = retry_after.unwrap_or_else(|| backoff(self.throttled_in_a_row));
        self.throttled_in_a_row += 1;
        self.answers = 0;
        self.window = (self.window.min(self.most_in_flight()) / 2).max(1);
        self.paused_until = self.paused_until.max(later(now, wait));
    }

    fn failed(&mut self, why: &str, now: Timestamp) {
        let change = self.breaker.failed(why, now);
        self.changes.extend(change);
    }
}

/// Requests of the last so many slots of time. A slot that is only partly within counts whole, so the limit holds for
/// every stretch of that length.
struct Rolling {
    slot: Duration,
    slots: i64,
    /// Slot number and count, oldest first.
    counts: VecDeque<(i64, u64)>,
}

impl Rolling {
    fn new(slot: Duration, slots: i64) -> Rolling {
        Rolling {
            slot,
            slots,
            counts: VecDeque::new(),
        }
    }

    fn number(&self, now: Timestamp) -> i64 {
        let slot = i64::try_from(self.slot.as_millis()).unwrap_or(i64::MAX).max(1);
        now.as_millisecond().div_euclid(slot)
    }

    fn count(&mut self, now: Timestamp) -> u64 {
        let oldest = self.number(now) - self.slots;
        while self.counts.front().is_some_and(|(number, _)| *number < oldest) {
            self.counts.pop_front();
        }
        self.counts.iter().map(|(_, count)| count).sum()
    }

    fn add(&mut self, now: Timestamp) {
        let number = self.number(now);
        match self.counts.back_mut() {
            Some((last, count)) if *last >= number => *count += 1,
            Some(_) | None => self.counts.push_back((number, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::destination::Acknowledgement;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).expect("a time")
    }

    fn gate(in_flight: usize, per_minute: Option<u32>, partitions: u32) -> Gate {
        let limits = Limits {
            in_flight,
            per_minute,
            per_day: None,
        };
        Gate::new(
            limits,
            config::SinkLimits::default(),
            config::Breaker::default(),
            partitions,
        )
    }

    fn acknowledged() -> Outcome {
        Outcome::Acknowledged(Acknowledgement {
            external_id: "1".to_owned(),
            response_digest: String::new(),
        })
    }

    #[test]
    fn no_stretch_of_a_minute_holds_more_than_the_limit() {
        let gate = gate(1000, Some(60), 1);
        let _all = gate.join();
        let mut made: Vec<i64> = Vec::new();
        for millis in (0..300_000).step_by(137) {
            if gate.enter(at(millis)).is_some() {
                made.push(millis);
            }
        }
        for (n, first) in made.iter().enumerate() {
            let within = made[n..].iter().filter(|later| **later - first < 60_000).count();
            assert!(within <= 60, "{within} within a minute of {first}");
        }
        assert!(made.len() > 240, "only {} in five minutes", made.len());
    }

    #[test]
    fn processes_that_share_the_partitions_share_the_limit() {
        let all_now = |gate: &Gate, now: i64| std::iter::from_fn(|| gate.enter(at(now))).collect::<Vec<_>>();
        let (one, other) = (gate(100, Some(60), 12), gate(100, Some(60), 12));
        let mut of_one: Vec<Share> = (0..7).map(|_| one.join()).collect();
        let of_other: Vec<Share> = (0..5).map(|_| other.join()).collect();
        assert_eq!((all_now(&one, 0).len(), all_now(&other, 0).len()), (35, 25));
        // The other ends, and its partitions come here.
        drop(of_other);
        of_one.extend((0..5).map(|_| one.join()));
        assert_eq!(all_now(&one, 70_000).len(), 60);
        // What is in flight is shared too, and nobody is left with nothing.
        let (few, many) = (gate(6, None, 12), gate(6, None, 12));
        let _few = few.join();
        let _many: Vec<Share> = (0..11).map(|_| many.join()).collect();
        assert_eq!((all_now(&few, 0).len(), all_now(&many, 0).len()), (1, 5));
    }

    #[test]
    fn a_throttled_answer_pauses_and_halves_what_is_in_flight() {
        let gate = gate(8, None, 1);
        let _all = gate.join();
        let permits: Vec<Permit> = std::iter::from_fn(|| gate.enter(at(0))).collect();
        assert_eq!(permits.len(), 8);
        gate.answered(
            &Outcome::Throttled {
                retry_after: Some(Duration::from_secs(30)),
            },
            at(0),
        );
        drop(permits);
        assert!(gate.enter(at(29_999)).is_none());
        let permits: Vec<Permit> = std::iter::from_fn(|| gate.enter(at(30_000))).collect();
        assert_eq!(permits.len(), 4);
        for _ in 0..4 {
            gate.answered(&acknowledged(), at(30_000));
        }
        drop(permits);
        assert_eq!(
            std::iter::from_fn(|| gate.enter(at(30_000))).collect::<Vec<_>>().len(),
            5
        );
    }

    #[test]
    fn the_topology_lowers_limits_and_never_raises_them() {
        let limits = Limits {
            in_flight: 4,
            per_minute: Some(10),
            per_day: None,
        };
        let own = config::SinkLimits {
            in_flight: Some(100),
            per_minute: Some(3),
            per_day: Some(2),
        };
        let gate = Gate::new(limits, own, config::Breaker::default(), 1);
        let _all = gate.join();
        assert_eq!(std::iter::from_fn(|| gate.enter(at(0))).collect::<Vec<_>>().len(), 2);
    }
}
