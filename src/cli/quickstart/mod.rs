//! `accrue quickstart`: everything in one process on the embedded log, with a sample CRM history.
//!
//! Owns: loading the sample once, running the stream processor until nothing is left, delivering the books, and printing
//! what came of it.
//! Invariant: what is printed is read back from the topics, not from memory; the journal in its topic must equal the
//! fold of `contract.facts` through the accounting core, and the command fails when it does not.

mod deliver;
mod report;
mod sample;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{Failure, connect, run};
use crate::config::{self, Topology};
use crate::observe::{logs, server};
use crate::pipeline;
use crate::stream::app::{self, Runtime};
use crate::stream::log::{Log, Positions};
use crate::stream::metrics::Metrics;
use crate::stream::partitioner::partition_for;
use crate::stream::record::{Outgoing, Timestamp, Topic, TopicPartition};
use crate::stream::topology::Shape;

/// The topology that the repository ships, so that the command needs no file.
const TOPOLOGY: &str = include_str!("../../../topology.toml");

#[derive(Args)]
pub struct Arguments {
    /// Where the log, the registry and the stores are kept
    #[arg(long, default_value = "quickstart-data")]
    dir: PathBuf,
    /// Make the books, and leave out what delivers them: ledger, lakehouse, budget
    #[arg(long)]
    books_only: bool,
    /// Go on running, with the registry and the metrics served, until Ctrl-C
    #[arg(long)]
    keep_running: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("error");
    let began = Instant::now();
    let topology = topology(&arguments.dir)?;
    let stop = run::stop_on_signals()?;
    let log = connect::log(&topology)?;
    let (registry, embedded) = connect::registry(&topology)?;
    log.create_topics(&pipeline::topics(&topology))?;
    let schemas = Arc::new(connect::schemas(&topology, &registry)?);

    let loaded = load(&topology, log.as_ref())?;
    let stream = pipeline::build(&topology, schemas.clone())?;
    let shape = stream.shape.clone();
    let left = app::lag(&shape, log.as_ref())?;
    let metrics = prometheus::Registry::new();
    let runtime = Runtime::start(
        stream,
        log.clone(),
        connect::runtime_config(&topology),
        Metrics::new(&metrics)?,
    )?;
    drain(&runtime, &shape, log.as_ref(), &stop)?;
    let done = runtime.lag()?;
    if done > 0 {
        runtime.stop();
        runtime.join()?;
        return Err(anyhow::anyhow!("stopped with {done} records left; run it again to go on").into());
    }

    let processed = began.elapsed();
    report::books(&report::Run {
        topology: &topology,
        log: log.as_ref(),
        schemas: &schemas,
        loaded,
        processed: left > 0,
        seconds: processed.as_secs_f64(),
    })?;

    if !arguments.books_only {
        deliver::run(&topology, &log, &registry, &schemas, &stop)?;
    }
    report::further(&topology, &arguments.dir);

    if arguments.keep_running {
        let ready: server::Readiness = Arc::new(|| Ok(()));
        let mut routes = server::routes(metrics, ready);
        if let Some(embedded) = embedded {
            routes = routes.merge(connect::registry_routes(&topology, embedded));
        }
        let listen = topology.http.listen.0;
        let bound = server::serve(listen, routes).with_context(|| format!("http.listen {listen}"))?;
        println!("\nserving the schema registry, /metrics and /ready at http://{bound}; Ctrl-C ends it");
        while !stop.load(Ordering::SeqCst) && !runtime.is_finished() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    runtime.stop();
    runtime.join()?;
    Ok(())
}

/// The shipped topology, with everything in `dir` and nothing taken from the environment but the address to listen at.
fn topology(dir: &Path) -> Result<Topology, Failure> {
    let data = dir.display().to_string();
    config::parse("topology.toml (built in)", TOPOLOGY, &|name| match name {
        "ACCRUE_DATA_DIR" => Some(data.clone()),
        "ACCRUE_HTTP_LISTEN" => std::env::var(name).ok(),
        _ => None,
    })
    .map_err(Failure::Configuration)
}

/// Loads the sample in one transaction, unless it is there. Returns how many records were loaded.
fn load(topology: &Topology, log: &dyn Log) -> Result<usize, Failure> {
    let topic_of = |source: &str| {
        topology
            .sources
            .iter()
            .find(|known| known.name.as_str() == source)
            .map(|known| Topic::new(known.topic.as_str()))
            .with_context(|| format!("topology.toml has no source {source}"))
    };
    let mark = TopicPartition::new(
        &topic_of(sample::SampleTopic::Deals.source())?,
        crate::stream::record::Partition(0),
    );
    if log.end(&mark)?.0 > 0 {
        return Ok(0);
    }
    let history = sample::history();
    let mut producer = log.producer("quickstart-loader")?;
    producer.begin()?;
    for record in &history {
        let topic = topic_of(record.topic.source())?;
        let count = log.partitions(&topic)?.unwrap_or(1);
        let key = record.key.as_deref().unwrap_or_default();
        producer.send(Outgoing {
            to: TopicPartition::new(&topic, partition_for(key.as_bytes(), count)),
            timestamp: Timestamp(record.timestamp),
            key: record.key.clone().map(String::into_bytes),
            value: record.value.clone().map(String::into_bytes),
            headers: Vec::new(),
        })?;
    }
    producer.commit(&Positions::new(), None)?;
    Ok(history.len())
}

/// Waits until every record is processed, saying how many are left.
fn drain(
    runtime: &Runtime,
    shape: &Shape,
    log: &dyn Log,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<(), anyhow::Error> {
    let mut told = Instant::now();
    loop {
        let left = app::lag(shape, log)?;
        if left == 0 || stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        if runtime.is_finished() {
            bail!("the stream processor ended early; its log lines say why");
        }
        if told.elapsed() > Duration::from_secs(1) {
            eprintln!("processing: {left} records left");
            told = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
