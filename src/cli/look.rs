//! The log, for commands that need one that is there.
//!
//! Invariant: nothing is made where nothing is. Opening the embedded log makes its folder, so a look under a wrong
//! `ACCRUE_DATA_DIR` would leave a second, empty installation behind, and call it done.

use std::sync::Arc;

use super::{Failure, connect};
use crate::config::{Log as Place, Topology};
use crate::stream::log::Log;

/// Whether there is a log to open; one on Kafka is taken to be.
pub fn is_there(topology: &Topology) -> bool {
    match &topology.log {
        // The file that names the others of the database.
        Place::Embedded(embedded) => embedded.dir.join("CURRENT").exists(),
        Place::Kafka(_) => true,
    }
}

/// Opens the log that the topology names.
///
/// Errors: the folder of an embedded one holds none; those of [`connect::log`].
pub fn log(topology: &Topology) -> Result<Arc<dyn Log>, Failure> {
    match &topology.log {
        Place::Embedded(embedded) if !is_there(topology) => Err(anyhow::anyhow!(
            "there is no log in {}: check log.dir (ACCRUE_DATA_DIR in the shipped file), or make one with `accrue apply`",
            embedded.dir.display()
        )
        .into()),
        Place::Embedded(_) | Place::Kafka(_) => connect::log(topology),
    }
}
