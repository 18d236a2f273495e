//! `accrue facts`: say something to the books by hand: a rate, a period close, a tick of the clock, a deal.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Failure, TopologyFile, look};
use crate::codec::{self, Incoming};
use crate::config::{Input, Topology};
use crate::observe::logs;
use crate::pipeline::emit::deal_key;
use crate::stream::log::Positions;
use crate::stream::partitioner::partition_for;
use crate::stream::record::{Outgoing, Timestamp, Topic, TopicPartition};

#[derive(Subcommand)]
pub enum Command {
    /// Validate canonical events and write them to a source's topic, all in one transaction
    Post(Post),
}

#[derive(Args)]
pub struct Post {
    /// The events, one JSON object a line; `-` reads standard input
    events: PathBuf,
    /// The source to write to; its format must be canonical-json
    #[arg(long, default_value = "reference-facts")]
    source: String,
    #[command(flatten)]
    file: TopologyFile,
}

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("warn");
    match command {
        Command::Post(arguments) => post(arguments),
    }
}

fn post(arguments: &Post) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let events: Box<dyn BufRead> = if arguments.events.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let path = arguments.events.display();
        Box::new(BufReader::new(
            File::open(&arguments.events).with_context(|| path.to_string())?,
        ))
    };
    let (posted, topic) = send(&topology, &arguments.source, events)?;
    println!("{posted} events written to {topic}");
    Ok(())
}

/// Writes canonical events, one JSON object a line, to a source's topic in one transaction. Returns how many, and where.
///
/// Errors: the source does not take facts, or a line is no valid one, and nothing was written; the log.
pub(super) fn send(topology: &Topology, source: &str, events: impl BufRead) -> Result<(usize, Topic), Failure> {
    let found = topology.sources.iter().find(|known| known.name.as_str() == source);
    let topic = match found.map(|source| (&source.topic, &source.input)) {
        Some((topic, Input::Canonical)) => Topic::new(topic.as_str()),
        Some((_, Input::Debezium { .. })) => {
            return Err(Failure::Usage(format!("source {source} holds row changes, not facts")));
        }
        None => {
            return Err(Failure::Usage(format!("the topology has no source {source}")));
        }
    };

    // All lines are read before the first is written: a bad one stops all.
    let mut records = Vec::new();
    let mut problems = Vec::new();
    for (n, line) in events.lines().enumerate() {
        let line = line.with_context(|| format!("line {}", n + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let incoming = Incoming {
            topic: topic.as_str(),
            partition: 0,
            offset: n as u64,
            key: None,
            value: Some(line.as_bytes()),
            headers: &[],
        };
        let fact = match codec::source::fact(&incoming, topology.settings()) {
            Ok(fact) => fact,
            Err(refused) => {
                problems.push(format!("line {}: {refused}", n + 1));
                continue;
            }
        };
        if let Err(rejection) = fact.validate() {
            problems.push(format!("line {}: {rejection}", n + 1));
            continue;
        }
        let key = match fact.body.deal_id() {
            Some(deal) => deal_key(&fact.tenant, deal),
            None => format!("{}/{}", fact.tenant, fact.body.type_name()).into_bytes(),
        };
        records.push((key, fact.occurred_at.as_millisecond(), line.into_bytes()));
    }
    if !problems.is_empty() {
        return Err(Failure::Usage(format!("nothing was written:\n{}", problems.join("\n"))));
    }

    let log = look::log(topology)?;
    let count = log
        .partitions(&topic)?
        .with_context(|| format!("there is no topic {topic}; run `accrue apply` first"))?;
    let mut producer = log.producer(&format!("{}-post", topology.application_id.as_str()))?;
    producer.begin()?;
    let posted = records.len();
    for (key, timestamp, value) in records {
        producer.send(Outgoing {
            to: TopicPartition::new(&topic, partition_for(&key, count)),
            timestamp: Timestamp(timestamp),
            key: Some(key),
            value: Some(value),
            headers: Vec::new(),
        })?;
    }
    producer.commit(&Positions::new(), None)?;
    Ok((posted, topic))
}
