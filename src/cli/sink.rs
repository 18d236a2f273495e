//! `accrue sink NAME...`: delivery workers, until SIGTERM or SIGINT.
//!
//! Several instances share the partitions of the journal. On a signal nothing new is sent, what is under way is awaited
//! for a while, and the answers are committed: so a restart has nothing to look up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::{Failure, TopologyFile, connect, named, run};
use crate::codec::schemas::Schemas;
use crate::config::{Sink, Topology};
use crate::observe::{logs, server};
use crate::pipeline;
use crate::sink::application::{self, Application};
use crate::sink::courier::{Clock, Outside, Threads};
use crate::sink::{accounting, metrics};
use crate::stream::app::{Runtime, RuntimeConfig};
use crate::stream::log::Log;
use crate::stream::metrics::Metrics;

/// How long answers are awaited at the end.
const GRACE: Duration = Duration::from_secs(20);

#[derive(Args)]
pub struct Arguments {
    /// The sinks to run, by their names in the topology
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    file: TopologyFile,
    /// Stop when nothing is left to write; documents that wait for a person do not count
    #[arg(long)]
    until_idle: bool,
    /// Where health and metrics are served, instead of http.listen
    #[arg(long)]
    listen: Option<SocketAddr>,
}

/// A sink that runs.
pub struct Running {
    name: String,
    application: Application,
    runtime: Arc<Runtime>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init(if arguments.until_idle { "warn" } else { "info" });
    let topology = arguments.file.load()?;
    let sinks = arguments
        .names
        .iter()
        .map(|name| named("sinks", &topology.sinks, name).cloned())
        .collect::<Result<Vec<_>, _>>()?;
    let stop = run::stop_on_signals()?;
    let starting = run::end_at_once_on_signals()?;
    let log = connect::log_of(&topology, sinks.len())?;
    let (registry, embedded) = connect::registry(&topology)?;
    let schemas = Arc::new(connect::schemas(&topology, &registry)?);
    if embedded.is_some() {
        // One process has everything: what is missing is made.
        log.create_topics(&pipeline::topics(&topology))?;
        log.create_topics(&application::topics(&topology))?;
    }
    let registry = prometheus::Registry::new();
    let running = start(&topology, &sinks, &log, &schemas, &registry)?;
    starting.store(false, Ordering::SeqCst);
    if !arguments.until_idle {
        for sink in &running {
            let app = sink.runtime.app();
            connect::report_lag(app.topology.shape.clone(), log.clone(), app.metrics.clone())?;
        }
        let watched: Vec<(String, Arc<Runtime>)> = running
            .iter()
            .map(|sink| (sink.name.clone(), sink.runtime.clone()))
            .collect();
        let ready: server::Readiness = Arc::new(move || {
            let waiting: Vec<&str> = watched
                .iter()
                .filter(|(_, runtime)| !runtime.is_ready())
                .map(|(name, _)| name.as_str())
                .collect();
            match waiting.is_empty() {
                true => Ok(()),
                false => Err(format!("no partitions yet, or restoring: {}", waiting.join(", "))),
            }
        });
        let mut routes = server::routes(registry, ready);
        if let Some(embedded) = embedded {
            routes = routes.merge(connect::registry_routes(&topology, embedded));
        }
        let listen = arguments.listen.unwrap_or(topology.http.listen.0);
        let bound = server::serve(listen, routes).with_context(|| format!("http.listen {listen}"))?;
        tracing::info!(sinks = arguments.names.join(","), http = %bound, "running");
    }

    deliver(&running, arguments.until_idle, run::stuck_after(&topology), &stop)
}

/// Starts the sinks, which share the memory.
pub fn start(
    topology: &Topology,
    sinks: &[Sink],
    log: &Arc<dyn Log>,
    schemas: &Arc<Schemas>,
    registry: &prometheus::Registry,
) -> Result<Vec<Running>, Failure> {
    let (stream_metrics, sink_metrics) = (Metrics::new(registry)?, metrics::Metrics::new(registry)?);
    let mut running = Vec::new();
    for sink in sinks {
        application::check(topology, sink, log.as_ref(), schemas)?;
        let application = application::build(
            topology,
            sink,
            Outside {
                destination: accounting::build(sink)?,
                threads: Threads::start().context("no threads for requests")?,
                clock: clock(),
            },
            schemas.clone(),
            sink_metrics.clone(),
            pipeline::dead_letters(schemas.clone()),
        )?;
        let config = runtime_config(topology, sink, sinks.len());
        let runtime = Runtime::start(
            application.topology.clone(),
            log.clone(),
            config,
            stream_metrics.clone(),
        )?;
        running.push(Running {
            name: sink.name.as_str().to_owned(),
            application,
            runtime: Arc::new(runtime),
        });
    }
    Ok(running)
}

/// Waits for a signal, or with `until_idle` until nothing is left to write; then ends the sinks.
///
/// Errors: a sink failed, or a call of one took longer than `limit`.
pub fn deliver(running: &[Running], until_idle: bool, limit: Duration, stop: &AtomicBool) -> Result<(), Failure> {
    let watch = || run::watch(running.iter().map(|sink| &sink.runtime), limit);
    let mut told = Instant::now();
    while !stop.load(Ordering::SeqCst) && !running.iter().any(|sink| sink.runtime.is_finished()) {
        if until_idle {
            let mut left = 0;
            for sink in running {
                left += left_to_do(sink)?;
            }
            if left == 0 {
                break;
            }
            if told.elapsed() > Duration::from_secs(5) {
                eprintln!("delivering: {left} records to read or deals to write");
                told = Instant::now();
            }
        }
        watch()?;
    }
    finish(running)?;
    for sink in running {
        let work = sink.application.board.work();
        if work.parked > 0 {
            eprintln!(
                "{}: {} deals wait for a person; see `accrue deliveries list --sink {}`",
                sink.name, work.parked, sink.name
            );
        }
    }
    for sink in running {
        sink.runtime.stop();
    }
    while !running.iter().all(|sink| sink.runtime.has_ended()) {
        watch()?;
    }
    for sink in running {
        sink.runtime.join()?;
    }
    Ok(())
}

/// Records to read and documents to write; summaries are written at once when nothing is left to read.
fn left_to_do(sink: &Running) -> Result<u64, Failure> {
    if !sink.runtime.is_ready() {
        return Ok(1);
    }
    let lag = sink.runtime.lag()?;
    if lag > 0 {
        return Ok(lag);
    }
    let work = sink.application.board.work();
    if work.gathering > 0 {
        sink.application.board.flush();
    }
    Ok(work.active as u64 + work.gathering as u64 + u64::from(work.uncommitted))
}

/// Waits for answers that are under way, and for them to be committed.
fn finish(running: &[Running]) -> Result<(), Failure> {
    for sink in running {
        sink.application.gate.drain();
    }
    let deadline = Instant::now() + GRACE;
    let is_busy = |sink: &Running| sink.application.gate.in_flight() > 0 || sink.application.board.work().uncommitted;
    while Instant::now() < deadline && running.iter().any(|sink| !sink.runtime.is_finished() && is_busy(sink)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn runtime_config(topology: &Topology, sink: &Sink, sinks: usize) -> RuntimeConfig {
    let shared = connect::runtime_config(topology);
    RuntimeConfig {
        state_dir: shared.state_dir.join(format!("sink-{}", sink.name)),
        memory: shared.memory.part(sinks),
        ..shared
    }
}

/// The machine's clock, to the millisecond that topics keep.
fn clock() -> Clock {
    Arc::new(|| {
        let now = jiff::Timestamp::now();
        jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    })
}
