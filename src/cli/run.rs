//! `accrue run`: the stream processor, until SIGTERM or SIGINT.

mod contracts;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use self::contracts::{Access, Desk};
use self::standing::Standing;
use super::{Failure, TopologyFile, connect};
use crate::config::{Input, Topology};
use crate::observe::{logs, server};
use crate::pipeline;
use crate::pipeline::queries::Contracts;
use crate::stream::app::{Runtime, TaskReport};
use crate::stream::directory::Directory;
use crate::stream::log::Log;
use crate::stream::metrics::Metrics;
use crate::stream::record::Topic;

pub fn run(file: &TopologyFile) -> Result<(), Failure> {
    logs::init("info");
    let topology = file.load()?;
    let stop = stop_on_signals()?;
    let starting = end_at_once_on_signals()?;
    let log = connect::log(&topology)?;
    let (registry, embedded) = connect::registry(&topology)?;
    let schemas = Arc::new(connect::schemas(&topology, &registry)?);
    if embedded.is_some() {
        // One process has everything: what is missing is made.
        log.create_topics(&pipeline::topics(&topology))?;
    }
    warn_of_lost_order(&topology, log.as_ref())?;
    let stream = pipeline::build(&topology, schemas)?;
    let metrics = prometheus::Registry::new();
    let of_stream = Metrics::new(&metrics)?;
    let shape = stream.shape.clone();
    let config = connect::runtime_config(&topology);
    let runtime = Arc::new(Runtime::start(stream, log.clone(), config, of_stream.clone())?);
    starting.store(false, Ordering::SeqCst);
    connect::report_lag(shape, log, of_stream)?;

    let watched = runtime.clone();
    let ready: server::Readiness = Arc::new(move || {
        if watched.is_ready() {
            return Ok(());
        }
        let waiting: Vec<String> = watched
            .tasks()
            .iter()
            .filter(|report| !report.running)
            .map(restoring)
            .collect();
        Err(if waiting.is_empty() {
            "no partitions assigned yet".to_owned()
        } else {
            format!("restoring: {}", waiting.join(", "))
        })
    });
    let listen = topology.http.listen.0;
    let bound = server::bind(listen).with_context(|| format!("http.listen {listen}"))?;
    let address = bound.address();
    let directory = Directory::start(runtime.app().clone(), advertised(&topology, address))?;
    let directory = Arc::new(directory);
    let contracts = Arc::new(Contracts::new(topology.settings().clone()));
    metrics.register(Box::new(Standing::new(runtime.app().clone(), contracts.clone())?))?;
    let desk = Desk::new(
        runtime.app().clone(),
        contracts,
        directory.clone(),
        access(&topology),
        &metrics,
    )?;
    let mut routes = server::routes(metrics, ready).merge(contracts::routes(desk));
    if let Some(embedded) = embedded {
        routes = routes.merge(connect::registry_routes(&topology, embedded));
    }
    bound.serve(routes)?;
    tracing::info!(application = topology.application_id.as_str(), http = %address, "running");

    let limit = stuck_after(&topology);
    while !stop.load(Ordering::SeqCst) && !runtime.is_finished() {
        watch([&runtime], limit)?;
    }
    tracing::info!("stopping: committing and leaving the group");
    runtime.stop();
    while !runtime.has_ended() {
        watch([&runtime], limit)?;
    }
    directory.stop();
    runtime.join()?;
    tracing::info!("stopped");
    Ok(())
}

/// Where other processes reach this one.
fn advertised(topology: &Topology, bound: SocketAddr) -> String {
    match &topology.http.advertised {
        Some(url) => url.as_str().to_owned(),
        None if bound.ip().is_unspecified() => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = Some(name.trim()).filter(|name| !name.is_empty());
            format!("http://{}:{}", name.unwrap_or("localhost"), bound.port())
        }
        None => format!("http://{bound}"),
    }
}

/// Who may read contracts.
fn access(topology: &Topology) -> Access {
    match &topology.http.token {
        Some(token) => Access::Token(token.reveal().to_owned()),
        None if topology.http.listen.0.ip().is_loopback() => Access::Machine,
        None => Access::Closed,
    }
}

/// Kafka's own limit for a silent consumer (`max.poll.interval.ms`): a thread that is away for longer has lost its
/// partitions already.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// How long a call may take before it is one that never returns.
pub fn stuck_after(topology: &Topology) -> Duration {
    STUCK_AFTER.max(topology.runtime.transaction_timeout.get() * 6)
}

/// Waits a moment, and looks whether a thread is caught in a call that never returns.
pub fn watch<'a>(runtimes: impl IntoIterator<Item = &'a Arc<Runtime>>, limit: Duration) -> Result<(), Failure> {
    std::thread::sleep(Duration::from_millis(50));
    match runtimes.into_iter().find_map(|runtime| runtime.stuck(limit)) {
        None => Ok(()),
        Some(what) => {
            tracing::error!(what, "the process ends itself, to be started again");
            Err(Failure::Stuck(what))
        }
    }
}

/// A task on its way to running, with how far it is.
fn restoring(report: &TaskReport) -> String {
    let task = &report.task;
    match report.restore {
        None => task.to_string(),
        Some(at) => {
            let left = at.seconds_left.map_or_else(String::new, |s| format!(", about {s} s"));
            format!(
                "{task} ({} records done, {} offsets left{left})",
                at.records, at.offsets_left
            )
        }
    }
}

/// The rows of one transaction are in the topics of several tables. One task reads all topics' partitions of one number,
/// oldest record first; rows that are spread over several partitions are read by tasks that do not wait for one another.
fn warn_of_lost_order(topology: &Topology, log: &dyn Log) -> Result<(), Failure> {
    for source in &topology.sources {
        let topic = Topic::new(source.topic.as_str());
        let partitions = log.partitions(&topic)?.unwrap_or(1);
        if let (Input::Debezium { .. }, true) = (&source.input, partitions > 1) {
            tracing::warn!(
                topic = topic.as_str(),
                partitions,
                "change topics with several partitions lose the order of a transaction's rows: two changes of a deal may be seen as one. Give them one partition each (Debezium's default)"
            );
        }
    }
    Ok(())
}

/// While what is returned is true, SIGTERM and SIGINT end the process as if nobody looked after them: nothing is open yet
/// that has to be brought to an end, and what it waits for may not come.
pub fn end_at_once_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let starting = Arc::new(AtomicBool::new(true));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_default(signal, starting.clone())?;
    }
    Ok(starting)
}

/// Set once SIGTERM or SIGINT has come; a second one ends the process at once.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}
