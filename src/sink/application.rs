//! A sink as a stream application: `<application_id>.sink.<name>`.
//!
//! ```text
//! journal.entries --\
//! sink.commands ----+--> collect --> intake --> deliver --> receipts, tickets, sink.commands     store delivery
//! ```
//!
//! Owns: which topics and stores a sink has. Invariant: receipts have a partition for each of the intake's, so that a chain
//! is in one partition. Deliberately absent: the processors (`collect`, `worker`).

use std::sync::Arc;

use super::board::Board;
use super::collect::Collect;
use super::courier::{Couriers, Outside};
use super::gate::Gate;
use super::metrics::Metrics;
use super::reading::{self, ReadError};
use super::store::STORE;
use super::worker::{Deliver, Shared, Topics};
use crate::codec::schemas::Schemas;
use crate::config::{self, Retention, Sink};
use crate::stream::fault::Fault;
use crate::stream::layout::Recorded;
use crate::stream::log::{Cleanup, Log, LogError, TopicSpec};
use crate::stream::record::Topic;
use crate::stream::topology::{
    DeadLetterEncoder, ProcessorFactory, Shape, StoreSpec, SubTopology, Topology, TopologyError,
};

/// What reads and writes what, for one sink.
pub fn shape(topology: &config::Topology, sink: &Sink) -> Result<Shape, TopologyError> {
    let out = &topology.outputs;
    let topic = |name: &config::TopicName| Topic::new(name.as_str());
    let shape = Shape::new(
        application_id(topology, sink),
        vec![
            SubTopology {
                name: "collect".to_owned(),
                sources: vec![topic(&out.journal_entries), topic(&out.sink_commands)],
                stores: Vec::new(),
                sinks: vec![intake(topology, sink)],
            },
            SubTopology {
                name: "deliver".to_owned(),
                sources: vec![intake(topology, sink)],
                stores: vec![StoreSpec {
                    name: STORE.to_owned(),
                    changelog: changelog(topology, sink),
                }],
                sinks: vec![topic(&out.receipts), topic(&out.tickets), topic(&out.sink_commands)],
            },
        ],
        topic(&out.dead_letters),
    )?;
    Ok(Shape {
        layout: Shape::layout(topology.application_id.as_str()),
        may_reset: false,
        ..shape
    })
}

/// The consumer group of a sink, and the start of its transactional ids.
pub fn application_id(topology: &config::Topology, sink: &Sink) -> String {
    format!("{}.sink.{}", topology.application_id, sink.name)
}

/// The changelog of a sink's store, which is also what `accrue deliveries` reads.
pub fn changelog(topology: &config::Topology, sink: &Sink) -> Topic {
    Shape::changelog(&application_id(topology, sink), STORE)
}

/// Entries and decisions, keyed by deal.
fn intake(topology: &config::Topology, sink: &Sink) -> Topic {
    Topic::new(format!("{}-intake", application_id(topology, sink)))
}

/// The topics that sinks need beside those of the pipeline.
pub fn topics(topology: &config::Topology) -> Vec<TopicSpec> {
    let spec = |topic: Topic, cleanup: Cleanup| TopicSpec {
        topic,
        partitions: u32::from(topology.runtime.partitions),
        replication_factor: topology.runtime.replication_factor.map_or(-1, i32::from),
        cleanup,
    };
    // An entry that was collected is read from the journal no more: the intake must keep it as long, or a sink that is
    // away meanwhile loses it.
    let kept = Cleanup::Delete {
        retention: match topology.outputs.retention {
            Retention::Forever => None,
            Retention::For(interval) => Some(interval.get()),
        },
    };
    let of_sink = |sink: &Sink| {
        [
            spec(intake(topology, sink), kept),
            spec(changelog(topology, sink), Cleanup::Compact),
        ]
    };
    topology.sinks.values().flat_map(of_sink).collect()
}

/// Checks what the runtime does not: that each chain of receipts has its partition, and that a new sink does not stand for
/// one of another name, or of another application, whose memory of what was delivered it would not have.
///
/// # Errors
/// The topics or the name do not fit; the message says what to do.
pub fn check(
    topology: &config::Topology,
    sink: &Sink,
    log: &dyn Log,
    schemas: &Schemas,
) -> Result<(), ApplicationError> {
    let ran = Recorded::applications(&Shape::layout(topology.application_id.as_str()), log)?;
    if !ran.contains(&application_id(topology, sink)) {
        let prefix = format!("{}.sink.", topology.application_id);
        let gone = |name: &&str| topology.sinks.keys().all(|known| known.as_str() != *name);
        if let Some(gone) = ran.iter().filter_map(|id| id.strip_prefix(&prefix)).find(gone) {
            return Err(ApplicationError::Renamed {
                new: sink.name.as_str().to_owned(),
                gone: gone.to_owned(),
            });
        }
        let mut delivered = false;
        reading::receipts(log, topology, schemas, |receipt| {
            delivered |= receipt.sink == sink.name.as_str();
            Ok(())
        })?;
        if delivered {
            return Err(ApplicationError::Delivered {
                sink: sink.name.as_str().to_owned(),
                application: topology.application_id.as_str().to_owned(),
                receipts: topology.outputs.receipts.as_str().to_owned(),
            });
        }
    }
    let receipts = Topic::new(topology.outputs.receipts.as_str());
    let intake = intake(topology, sink);
    // What is missing, the runtime names.
    if let (Some(chains), Some(partitions)) = (log.partitions(&intake)?, log.partitions(&receipts)?)
        && partitions < chains
    {
        return Err(ApplicationError::Receipts {
            receipts,
            partitions,
            intake,
            chains,
        });
    }
    Ok(())
}

/// A sink that can be run, and what tells how it stands.
pub struct Application {
    pub topology: Topology,
    pub board: Board,
    pub gate: Gate,
}

/// Why a sink cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Layout(#[from] Fault),
    #[error(
        "sink {new} is new, and sink {gone}, which has delivered, is not in the topology any more: if {new} is {gone} under another name, call it {gone} again, or everything is delivered once more, since what was delivered is remembered by the name. If it is another one, put [sinks.{gone}] back beside it; it need not run"
    )]
    Renamed { new: String, gone: String },
    #[error(
        "sink {sink} has never run in application {application}, but {receipts} has receipts of it: it has delivered in an application of another id, which remembers what. Give application_id its old value back, or everything is delivered once more. If it is another sink, give it another name"
    )]
    Delivered {
        sink: String,
        application: String,
        receipts: String,
    },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{receipts} has {partitions} partitions, and {intake} has {chains}: give {receipts} as many")]
    Receipts {
        receipts: Topic,
        partitions: u32,
        intake: Topic,
        chains: u32,
    },
}

/// The stream application of a sink.
///
/// # Errors
/// The topology cannot be run.
pub fn build(
    topology: &config::Topology,
    sink: &Sink,
    outside: Outside,
    schemas: Arc<Schemas>,
    metrics: Metrics,
    dead_letter: DeadLetterEncoder,
) -> Result<Application, TopologyError> {
    let out = &topology.outputs;
    let topic = |name: &config::TopicName| Topic::new(name.as_str());
    let partitions = u32::from(topology.runtime.partitions);
    let clock = outside.clock.clone();
    let gate = Gate::new(outside.destination.limits(), sink.limits, sink.breaker, partitions);
    let board = Board::default();
    let collect: ProcessorFactory = {
        let (sink, schemas, clock) = (sink.clone(), schemas.clone(), clock.clone());
        let (commands, intake) = (topic(&out.sink_commands), intake(topology, &sink));
        Arc::new(move || {
            Box::new(Collect::new(
                sink.clone(),
                schemas.clone(),
                clock.clone(),
                commands.clone(),
                intake.clone(),
            ))
        })
    };
    let shared = Arc::new(Shared {
        sink: sink.clone(),
        schemas,
        couriers: Couriers::new(outside, gate.clone()),
        gate: gate.clone(),
        clock,
        board: board.clone(),
        metrics,
        topics: Topics {
            commands: topic(&out.sink_commands),
            receipts: topic(&out.receipts),
            tickets: topic(&out.tickets),
        },
    });
    let deliver: ProcessorFactory = Arc::new(move || Box::new(Deliver::new(shared.clone())));
    Ok(Application {
        topology: Topology::new(shape(topology, sink)?, vec![collect, deliver], dead_letter)?,
        board,
        gate,
    })
}
