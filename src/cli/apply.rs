//! `accrue apply`: topics, schemas and warehouse tables, a plan first; then whether the applications would start.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::{Failure, TopologyFile, connect, look, warehouse};
use crate::config::Topology;
use crate::observe::logs;
use crate::pipeline;
use crate::sink::application;
use crate::stream::fault::Fault;
use crate::stream::layout;
use crate::stream::log::{Cleanup, Log, TopicSpec};
use crate::stream::topology::Shape;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("warn");
    let topology = arguments.file.load()?;
    // A dry run makes no log; where there is none, there is no topic either.
    let log = match arguments.dry_run && !look::is_there(&topology) {
        true => None,
        false => Some(connect::log(&topology)?),
    };
    let mut specs = pipeline::topics(&topology);
    specs.extend(application::topics(&topology));
    let mut missing = Vec::new();
    for spec in &specs {
        let partitions = log.as_ref().map_or(Ok(None), |log| log.partitions(&spec.topic))?;
        match partitions {
            Some(partitions) => println!("topic   {:<44} exists, {partitions} partitions", spec.topic),
            None => {
                println!("topic   {:<44} create: {}", spec.topic, describe(spec));
                missing.push(spec.clone());
            }
        }
    }
    for (subject, compatibility) in pipeline::subjects(&topology) {
        println!("schema  {:<44} register, {}", subject.as_str(), compatibility.as_str());
    }
    for step in warehouse::apply(&topology, true)? {
        println!("warehouse {step}");
    }
    let log = match (arguments.dry_run, log) {
        (false, Some(log)) => log,
        (true, Some(log)) if missing.is_empty() => {
            println!("dry run: nothing was changed");
            return would_start(&topology, log.as_ref());
        }
        (true, Some(_)) | (_, None) => {
            println!("dry run: nothing was changed");
            return Ok(());
        }
    };
    let (registry, _) = connect::registry(&topology)?;
    log.create_topics(&missing)?;
    connect::schemas(&topology, &registry)?;
    warehouse::apply(&topology, false)?;
    println!(
        "done: {} topics created, schemas registered, warehouses ready",
        missing.len()
    );
    would_start(&topology, log.as_ref())
}

/// Says already now, while an earlier version may be at work, that the next start would be refused.
fn would_start(topology: &Topology, log: &dyn Log) -> Result<(), Failure> {
    compare(&pipeline::shape(topology)?, log).context("`accrue run` would not start")?;
    for (name, sink) in &topology.sinks {
        let shape = application::shape(topology, sink)?;
        compare(&shape, log).with_context(|| format!("`accrue sink {name}` would not start"))?;
    }
    Ok(())
}

/// A topic that was just made has no leader for a moment.
fn compare(shape: &Shape, log: &dyn Log) -> Result<(), Fault> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match layout::compare(shape, log) {
            Err(Fault::Retry(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
            compared => return compared,
        }
    }
}

fn describe(spec: &TopicSpec) -> String {
    let cleanup = match spec.cleanup {
        Cleanup::Compact => "compacted".to_owned(),
        Cleanup::Delete { retention: None } => "kept for ever".to_owned(),
        Cleanup::Delete { retention: Some(keep) } => format!("kept {} h", keep.as_secs() / 3600),
    };
    format!("{} partitions, {cleanup}", spec.partitions)
}
