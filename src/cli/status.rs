//! `accrue status`: how far the stream processor has come, as its committed offsets tell.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Failure, TopologyFile, connect};
use crate::observe::logs;
use crate::pipeline;
use crate::stream::app;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("error");
    let topology = arguments.file.load()?;
    let log = connect::log(&topology)?;
    let shape = pipeline::shape(&topology)?;
    let lags = app::lags(&shape, log.as_ref())?;
    let total: u64 = lags.values().sum();
    match arguments.format {
        Format::Text => {
            for (topic, lag) in &lags {
                println!("{:<44} {lag:>10} records to process", topic.as_str());
            }
            println!("{:<44} {total:>10} in all", "");
        }
        Format::Json => {
            let topics: serde_json::Map<String, serde_json::Value> = lags
                .iter()
                .map(|(topic, lag)| (topic.to_string(), json!(lag)))
                .collect();
            println!(
                "{}",
                json!({"application_id": shape.application_id, "lag": total, "topics": topics})
            );
        }
    }
    Ok(())
}
