//! What a simulation is about.
//!
//! Owns: [`Scene`]: an application, what it is told, what is around it, and what must have come of it. There are the
//! pipeline (`pipeline.rs`) and a sink (`delivery.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use accrue::stream::log::TopicSpec;
use accrue::stream::record::Outgoing;
use accrue::stream::topology::{Shape, Topology};

use super::client::SimLog;
use super::rng::Rng;
use super::world::Tally;

/// See the module.
pub trait Scene {
    fn shape(&self) -> &Shape;

    fn topics(&self) -> Vec<TopicSpec>;

    /// What the world says, in its order.
    fn feed(&self, rng: &mut Rng) -> VecDeque<Outgoing>;

    /// The application as one process has it.
    ///
    /// # Errors
    /// It cannot be built.
    fn process(&self, log: &SimLog) -> Result<Process, String>;

    fn pace(&self) -> Pace;

    /// Time has passed outside the log, too.
    fn pass(&self, _now: Duration) {}

    /// From now on nothing fails.
    fn peace(&self) {}

    /// What people do about what waits for them, when nothing is in a transaction.
    ///
    /// # Errors
    /// They do not understand what they see.
    fn people(&self, _log: &SimLog) -> Result<(), String> {
        Ok(())
    }

    /// What is not done yet, beside inputs that were not read.
    fn left(&self, _log: &SimLog) -> Option<String> {
        None
    }

    /// What must hold at the end, beside what must hold of every application.
    ///
    /// # Errors
    /// It does not.
    fn check(&self, log: &SimLog, tally: &mut Tally) -> Result<(), String>;
}

/// How time goes.
pub struct Pace {
    /// Steps under faults.
    pub storm_steps: usize,
    /// The longest step under faults, and once they are over, in milliseconds.
    pub storm_ms: u64,
    pub peace_ms: u64,
    /// How many times rarer than the pipeline's the faults of each step are.
    pub calm: u64,
}

/// One process of an application.
pub struct Process {
    pub topology: Topology,
    /// Where its requests to systems outside run, a little whenever the process has a turn.
    pub requests: Option<tokio::runtime::Runtime>,
}

impl Process {
    /// Lets requests go on as far as they can.
    pub fn go_on(&self) {
        if let Some(requests) = &self.requests {
            requests.block_on(async {
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
            });
        }
    }
}
