//! `accrue status`: how far the stream processor has come, as its committed offsets tell, and what the process on this
//! machine says of itself (what it restores, and how long that takes).
//!
//! Invariant: where topics are missing nothing is counted, so that an installation that is not there is not called done.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::out::Format;
use super::{Failure, TopologyFile, look};
use crate::config::Topology;
use crate::observe::logs;
use crate::pipeline;
use crate::stream::log::{Log, LogError, read_to_end};
use crate::stream::record::{Topic, TopicPartition};
use crate::stream::{app, topics};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("error");
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    let shape = pipeline::shape(&topology)?;
    topics::counts(&shape, log.as_ref())?;
    let lags = app::lags(&shape, log.as_ref())?;
    let total: u64 = lags.values().sum();
    let process = process(&topology);
    let hint = match is_without_clock(&topology, log.as_ref())? {
        true => Some(
            "there are deals and no clock.ticked, so nothing is booked: run `accrue facts tick` now, and every day",
        ),
        false => None,
    };
    match arguments.format {
        Format::Text => {
            for (topic, lag) in &lags {
                println!("{:<44} {lag:>10} records to process", topic.as_str());
            }
            println!("{:<44} {total:>10} in all", "");
            println!("this machine: {process}");
            if let Some(hint) = hint {
                println!("{hint}");
            }
        }
        Format::Json => {
            let topics: serde_json::Map<String, serde_json::Value> = lags
                .iter()
                .map(|(topic, lag)| (topic.to_string(), json!(lag)))
                .collect();
            println!(
                "{}",
                json!({"application_id": shape.application_id, "lag": total, "topics": topics, "process": process,
                       "hint": hint})
            );
        }
    }
    Ok(())
}

/// Whether deals are known, and no tick of any tenant's clock, without which no entry is due.
///
/// Facts are read only while there is no entry at all. Every tick is in every partition, so that one tells.
fn is_without_clock(topology: &Topology, log: &dyn Log) -> Result<bool, LogError> {
    let out = &topology.outputs;
    let of = |name: &str| log.partitions_of(&Topic::new(name));
    let is_empty = |all: &[TopicPartition]| -> Result<bool, LogError> {
        for at in all {
            if log.end(at)? > log.start(at)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    if !is_empty(&of(out.journal_entries.as_str())?)? || is_empty(&of(out.contract_state.as_str())?)? {
        return Ok(false);
    }
    let mut ticked = false;
    if let Some(first) = of(out.contract_facts.as_str())?.first() {
        read_to_end(log, first, log.start(first)?, |record| {
            ticked |= record.header("ce_type") == Some(b"clock.ticked");
            Ok::<(), LogError>(())
        })?;
    }
    Ok(!ticked)
}

/// The answer of `/ready` on this machine, where `http.listen` says it is.
fn process(topology: &Topology) -> String {
    let url = format!("http://127.0.0.1:{}/ready", topology.http.listen.0.port());
    let asked = async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        client.get(&url).send().await?.text().await
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return format!("cannot be asked: {error}"),
    };
    match runtime.block_on(asked) {
        Ok(answer) => answer.trim().to_owned(),
        Err(_) => format!("no process answers at {url}"),
    }
}
