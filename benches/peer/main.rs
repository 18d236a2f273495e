//! The Rust side of `tools/bench`: makes the input, runs the contract stage or a rung of it, hashes what was written.
//!
//! It is one process for each of these, so that its CPU time and memory can be read from outside, as those of the Kafka
//! Streams peer (benches/kafka-streams) are. Deliberately absent: starting servers and measuring (`compare.py`).

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod digest;
mod rungs;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use accrue::codec::registry::Confluent;
use accrue::codec::registry::confluent::Access;
use accrue::codec::schemas::Schemas;
use accrue::pipeline;
use accrue::stream::app::{Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::log::kafka::{KafkaLog, KafkaTimeouts};
use accrue::stream::log::{Cleanup, Log, TopicSpec};
use accrue::stream::metrics::Metrics;
use accrue::stream::record::Topic;
use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::rungs::Rung;
use crate::workload::Workload;

#[derive(Parser)]
struct Arguments {
    #[arg(long, env = "KAFKA_BOOTSTRAP")]
    kafka: String,
    #[arg(long, env = "REGISTRY_URL")]
    registry: String,
    #[command(subcommand)]
    command: Command,
    /// What `cargo bench` adds
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Write facts to `<input>.contract.facts`; prints `partition end` lines
    Load {
        #[arg(long)]
        input: String,
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        #[command(flatten)]
        workload: Workload,
    },
    /// Create the topics and register the schemas of one side
    Apply {
        #[arg(long)]
        prefix: String,
        #[arg(long, default_value_t = 1)]
        partitions: u32,
    },
    /// Run the stage, or a rung of it, until SIGTERM
    Run {
        #[arg(long)]
        prefix: String,
        #[arg(long)]
        input: String,
        #[arg(long)]
        state: PathBuf,
        #[arg(long, value_enum, default_value = "domain")]
        rung: Rung,
        /// The memory budget of the process
        #[arg(long, default_value_t = 256)]
        memory_mib: usize,
        /// Static membership under this name
        #[arg(long)]
        instance: Option<String>,
        #[command(flatten)]
        workload: Workload,
    },
    /// Hash the output topics of one side; prints `topic records bytes sha256` lines
    Digest {
        #[arg(long)]
        prefix: String,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    accrue::observe::logs::init("warn");
    let log = || connect(&arguments.kafka).map(Arc::new);
    let schemas = |prefix: &str| -> Result<Arc<Schemas>> {
        let registry = Confluent::new(&arguments.registry, Access::Open)?;
        Ok(Arc::new(pipeline::schemas(
            &rungs::settings(prefix)?,
            Arc::new(registry),
        )?))
    };
    match arguments.command {
        Command::Load {
            input,
            partitions,
            workload,
        } => {
            let log = log()?;
            log.create_topics(&[TopicSpec {
                topic: facts(&input),
                partitions,
                replication_factor: 1,
                cleanup: Cleanup::Delete { retention: None },
            }])?;
            let ends = workload::load(log.as_ref(), &*schemas(&input)?, &facts(&input), &workload)?;
            for (at, end) in ends {
                println!("{} {end}", at.partition);
            }
        }
        Command::Apply { prefix, partitions } => {
            let settings = rungs::settings(&prefix)?;
            let stage = rungs::stage(&settings, schemas(&prefix)?, &facts(&prefix))?;
            log()?.create_topics(&rungs::topics(&settings, &stage, partitions))?;
        }
        Command::Run {
            prefix,
            input,
            state,
            rung,
            memory_mib,
            instance,
            workload,
        } => {
            let schemas = schemas(&prefix)?;
            let stage = rungs::stage(&rungs::settings(&prefix)?, schemas.clone(), &facts(&input))?;
            let topology = rungs::rung(rung, stage, schemas, &workload)?;
            let stop = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.clone())?;
            let metrics = Metrics::new(&prometheus::Registry::new())?;
            let memory = Budget::of(memory_mib << 20);
            let log = Arc::new(connect(&arguments.kafka)?.with_memory(memory));
            let config = RuntimeConfig {
                memory,
                instance,
                ..rungs::runtime_config(&state)
            };
            let runtime = Runtime::start(topology, log, config, metrics)?;
            while !stop.load(Ordering::SeqCst) && !runtime.is_finished() {
                std::thread::sleep(Duration::from_millis(20));
            }
            runtime.stop();
            runtime.join()?;
        }
        Command::Digest { prefix } => {
            let settings = rungs::settings(&prefix)?;
            let stage = rungs::stage(&settings, schemas(&prefix)?, &facts(&prefix))?;
            let log = log()?;
            for topic in &stage.shape.subs[0].sinks {
                let digest = digest::of(log.as_ref(), topic)?;
                let name = topic
                    .as_str()
                    .strip_prefix(&format!("{prefix}."))
                    .unwrap_or(topic.as_str());
                println!("{name} {} {} {}", digest.records, digest.value_bytes, digest.sha256);
            }
            let letters = digest::of(log.as_ref(), &stage.shape.dead_letters)?;
            if letters.records > 0 {
                bail!("{} facts went to the dead letters", letters.records);
            }
        }
    }
    Ok(())
}

fn connect(kafka: &str) -> Result<KafkaLog> {
    Ok(KafkaLog::connect(
        BTreeMap::from([("bootstrap.servers".to_owned(), kafka.to_owned())]),
        KafkaTimeouts {
            transaction: Duration::from_secs(30),
            session: Duration::from_secs(45),
        },
        Duration::from_secs(30),
        &|message| eprintln!("{message}"),
    )?)
}

/// The topic of an input.
fn facts(input: &str) -> Topic {
    Topic::new(format!("{input}.contract.facts"))
}
