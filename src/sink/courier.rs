//! The asynchronous side: requests to a destination, and their answers on the way back.
//!
//! Owns: where the requests of a sink run, and a time limit on every one of them. Invariants: each errand is answered exactly
//! once, whatever the destination's code does; a request that was given up, or panicked, is uncertain, never failed.
//! Deliberately absent: state. What an answer means is `delivery`'s; an answer to a task that is gone is dropped, and
//! its successor finds the document sent and in doubt.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::{Handle, Runtime};

use super::delivery::later;
use super::destination::{Destination, Found, Outcome, Plan, Tries};
use super::document::Key;
use super::gate::{Gate, Permit};
use super::store::Place;
use crate::stream::seeded::{self, Bug};

/// The longest time that a request may take, whatever the destination's own limits are.
pub const LONGEST_REQUEST: Duration = Duration::from_secs(120);
/// A write decided longer ago is not made: a process that was stopped in between may have lost its partition to another,
/// which already looks for the document.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
const THREADS: usize = 2;

/// The time, to the millisecond. An input, so that a test may set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Where requests run.
pub struct Threads {
    handle: Handle,
    /// Its own; `None` where they are somebody else's.
    runtime: Option<Runtime>,
}

impl Threads {
    /// Threads for one sink.
    ///
    /// # Errors
    /// The machine gives none.
    pub fn start() -> std::io::Result<Threads> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("courier")
            .enable_all()
            .build()?;
        Ok(Threads {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Requests run when, and as long as, the owner of `handle` lets them.
    pub fn of(handle: Handle) -> Threads {
        Threads { handle, runtime: None }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Requests under way are given up: their documents are found sent, and in doubt.
            runtime.shutdown_background();
        }
    }
}

/// What lies outside the log: the system that is written to, what reaches it, and the time there.
pub struct Outside {
    pub destination: Arc<dyn Destination>,
    pub threads: Threads,
    pub clock: Clock,
}

/// See the module.
pub struct Couriers {
    threads: Threads,
    destination: Arc<dyn Destination>,
    gate: Gate,
    clock: Clock,
}

/// A request to be made.
pub struct Job {
    pub errand: Errand,
    pub place: Place,
    pub key: Key,
    pub plan: Plan,
    pub permit: Permit,
    /// When it was decided.
    pub staged_at: Timestamp,
    pub answer_to: Sender<Answer>,
}

/// Which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    Send(Tries),
    LookUp,
}

/// What a request came to.
pub struct Answer {
    pub place: Place,
    pub said: Said,
    /// Held until the answer is taken, which bounds the answers that wait.
    pub permit: Permit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Outcome(Outcome),
    Found(Found),
}

impl Couriers {
    pub fn new(outside: Outside, gate: Gate) -> Couriers {
        Couriers {
            threads: outside.threads,
            destination: outside.destination,
            gate,
            clock: outside.clock,
        }
    }

    pub fn destination(&self) -> &dyn Destination {
        self.destination.as_ref()
    }

    /// Makes the request and sends the answer.
    pub fn dispatch(&self, job: Job) {
        let threads = &self.threads.handle;
        let (destination, gate, clock) = (self.destination.clone(), self.gate.clone(), self.clock.clone());
        let errand = job.errand;
        let is_send = match errand {
            Errand::Send(_) => true,
            Errand::LookUp => false,
        };
        let (key, plan) = (job.key, job.plan);
        let (asked, mut latest) = (clock.clone(), later(job.staged_at, LONGEST_DELAY));
        if seeded::has(Bug::StaleRequestMade) {
            latest = Timestamp::MAX;
        }
        // In a task of its own, so that a panic is seen here.
        let request = threads.spawn(async move {
            match errand {
                Errand::Send(_) if asked() > latest => {
                    Said::Outcome(Outcome::Unavailable("decided too long ago; not sent".to_owned()))
                }
                Errand::Send(tries) => {
                    let sent = destination.send(&key, &plan, &tries);
                    Said::Outcome(match tokio::time::timeout(LONGEST_REQUEST, sent).await {
                        Ok(outcome) => outcome,
                        Err(_) => Outcome::Uncertain(too_long()),
                    })
                }
                Errand::LookUp => {
                    let looked = destination.look_up(&key, &plan);
                    Said::Found(match tokio::time::timeout(LONGEST_REQUEST, looked).await {
                        Ok(found) => found,
                        Err(_) => Found::Unknown(too_long()),
                    })
                }
            }
        });
        threads.spawn(async move {
            let said = match request.await {
                Ok(said) => said,
                Err(error) if is_send => Said::Outcome(Outcome::Uncertain(format!("the request broke off: {error}"))),
                Err(error) => Said::Found(Found::Unknown(format!("the look-up broke off: {error}"))),
            };
            let now = clock();
            match &said {
                Said::Outcome(outcome) => gate.answered(outcome, now),
                Said::Found(found) => gate.looked_up(found, now),
            }
            let answer = Answer {
                place: job.place,
                said,
                permit: job.permit,
            };
            // Nobody may be waiting any more.
            let _ = job.answer_to.send(answer);
        });
    }

    /// Asks the destination whether it serves, and tells the breaker.
    pub fn probe(&self) {
        let threads = &self.threads.handle;
        let (destination, gate, clock) = (self.destination.clone(), self.gate.clone(), self.clock.clone());
        let request = threads.spawn(async move {
            match tokio::time::timeout(LONGEST_REQUEST, destination.probe()).await {
                Ok(served) => served,
                Err(_) => Err(too_long()),
            }
        });
        threads.spawn(async move {
            let served = match request.await {
                Ok(served) => served,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = &served {
                tracing::warn!(why, "the destination does not serve yet");
            }
            gate.probed(served.is_ok(), clock());
        });
    }
}

fn too_long() -> String {
    format!("no answer within {} s", LONGEST_REQUEST.as_secs())
}
