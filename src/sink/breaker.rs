//! The circuit breaker of one destination.
//!
//! ```text
//! Closed --failures in a row--> Open --time is up--> Probing --served--> Closed
//!                                ^                      |
//!                                `------ failed --------'   twice the wait, up to a limit
//! ```
//!
//! Owns: when nothing is sent. Pure. Invariant: while it is not closed, the probe is the only request. Deliberately
//! absent: what a failure is; `gate` decides that.

use std::time::Duration;

use jiff::Timestamp;

use super::delivery::later;
use crate::config;

/// See the diagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Closed {
        failures: u32,
    },
    Open {
        opened_at: Timestamp,
        probe_at: Timestamp,
        wait: Duration,
    },
    Probing {
        opened_at: Timestamp,
        wait: Duration,
    },
}

/// A change that an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Opened { at: Timestamp, why: String },
    Closed { opened_at: Timestamp, at: Timestamp },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: config::Breaker,
    state: State,
}

impl Breaker {
    pub fn new(settings: config::Breaker) -> Breaker {
        Breaker {
            settings,
            state: State::Closed { failures: 0 },
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn is_closed(&self) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// The system answered, whatever it said.
    pub fn served(&mut self) {
        match self.state {
            State::Closed { .. } => self.state = State::Closed { failures: 0 },
            // An answer to a request sent before it opened; the probe decides.
            State::Open { .. } | State::Probing { .. } => {}
        }
    }

    /// The system did not serve.
    pub fn failed(&mut self, why: &str, now: Timestamp) -> Option<Change> {
        match self.state {
            State::Closed { failures } if failures + 1 < self.settings.after => {
                self.state = State::Closed { failures: failures + 1 };
                None
            }
            State::Closed { .. } => {
                let wait = self.settings.probe_after.get();
                self.state = State::Open {
                    opened_at: now,
                    probe_at: later(now, wait),
                    wait,
                };
                Some(Change::Opened {
                    at: now,
                    why: why.to_owned(),
                })
            }
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    /// Whether a probe is to be sent now; it then counts as sent.
    pub fn take_probe(&mut self, now: Timestamp) -> bool {
        match self.state {
            State::Open {
                opened_at,
                probe_at,
                wait,
            } if probe_at <= now => {
                self.state = State::Probing { opened_at, wait };
                true
            }
            State::Closed { .. } | State::Open { .. } | State::Probing { .. } => false,
        }
    }

    pub fn probed(&mut self, served: bool, now: Timestamp) -> Option<Change> {
        match self.state {
            State::Probing { opened_at, .. } if served => {
                self.state = State::Closed { failures: 0 };
                Some(Change::Closed { opened_at, at: now })
            }
            State::Probing { opened_at, wait } => {
                let wait = (wait * 2).min(self.settings.probe_at_most.get());
                self.state = State::Open {
                    opened_at,
                    probe_at: later(now, wait),
                    wait,
                };
                None
            }
            State::Closed { .. } | State::Open { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn it_opens_probes_with_growing_waits_and_closes() {
        let mut breaker = Breaker::new(config::Breaker {
            after: 3,
            ..config::Breaker::default()
        });
        assert_eq!(breaker.failed("a", at(0)), None);
        assert_eq!(breaker.failed("b", at(1)), None);
        breaker.served();
        assert_eq!(breaker.failed("c", at(2)), None);
        assert_eq!(breaker.failed("d", at(3)), None);
        let opened = Change::Opened {
            at: at(4),
            why: "e".to_owned(),
        };
        assert_eq!(breaker.failed("e", at(4)), Some(opened));
        assert_eq!(breaker.failed("f", at(5)), None);
        breaker.served();
        assert!(!breaker.is_closed());
        assert!(!breaker.take_probe(at(13)));
        assert!(breaker.take_probe(at(14)));
        assert!(!breaker.take_probe(at(14)), "one probe at a time");
        assert_eq!(breaker.probed(false, at(15)), None);
        assert!(!breaker.take_probe(at(34)));
        assert!(breaker.take_probe(at(35)));
        let closed = Change::Closed {
            opened_at: at(4),
            at: at(36),
        };
        assert_eq!(breaker.probed(true, at(36)), Some(closed));
        assert!(breaker.is_closed());
    }
}
