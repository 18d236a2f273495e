//! `accrue run`: the stream processor, until SIGTERM or SIGINT.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use super::{Failure, TopologyFile, connect};
use crate::codec::registry::serve;
use crate::observe::{logs, server};
use crate::pipeline;
use crate::stream::app::Runtime;
use crate::stream::metrics::Metrics;

pub fn run(file: &TopologyFile) -> Result<(), Failure> {
    logs::init("info");
    let topology = file.load()?;
    let stop = stop_on_signals()?;
    let log = connect::log(&topology)?;
    let (registry, embedded) = connect::registry(&topology)?;
    let schemas = Arc::new(connect::schemas(&topology, &registry)?);
    if embedded.is_some() {
        // One process has everything: what is missing is made.
        log.create_topics(&pipeline::topics(&topology))?;
    }
    let stream = pipeline::build(&topology, schemas)?;
    let metrics = prometheus::Registry::new();
    let runtime = Arc::new(Runtime::start(
        stream,
        log,
        connect::runtime_config(&topology),
        Metrics::new(&metrics)?,
    )?);

    let watched = runtime.clone();
    let ready: server::Readiness = Arc::new(move || {
        if watched.is_ready() {
            return Ok(());
        }
        let waiting: Vec<String> = watched
            .tasks()
            .iter()
            .filter(|report| !report.running)
            .map(|report| report.task.to_string())
            .collect();
        Err(if waiting.is_empty() {
            "no partitions assigned yet".to_owned()
        } else {
            format!("restoring: {}", waiting.join(", "))
        })
    });
    let mut routes = server::routes(metrics, ready);
    if let Some(embedded) = embedded {
        routes = routes.merge(serve::router(embedded));
    }
    let listen = topology.http.listen.0;
    let bound = server::serve(listen, routes).with_context(|| format!("http.listen {listen}"))?;
    tracing::info!(application = topology.application_id.as_str(), http = %bound, "running");

    while !stop.load(Ordering::SeqCst) && !runtime.is_finished() {
        std::thread::sleep(Duration::from_millis(50));
    }
    tracing::info!("stopping: committing and leaving the group");
    runtime.stop();
    runtime.join()?;
    tracing::info!("stopped");
    Ok(())
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
