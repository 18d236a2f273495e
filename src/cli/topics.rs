//! `accrue topics`: what is in the topics, decoded.

use std::io::{ErrorKind, Write as _};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::{Failure, TopologyFile, connect, look};
use crate::codec::registry::Registry;
use crate::codec::schemas::AnyReader;
use crate::observe::logs;
use crate::pipeline;
use crate::stream::record::{Offset, Partition, Record, Topic, TopicPartition};

#[derive(Subcommand)]
pub enum Command {
    /// List topics with their partitions' ends
    List(TopologyFile),
    /// Print the last records of a topic, one JSON object a line
    Tail(Tail),
}

#[derive(Args)]
pub struct Tail {
    /// The topic
    name: String,
    #[command(flatten)]
    file: TopologyFile,
    /// Records of each partition, counted from its end
    #[arg(long, short = 'n', default_value_t = 10)]
    last: u64,
    /// Go on printing what comes
    #[arg(long, short)]
    follow: bool,
}

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("warn");
    match command {
        Command::List(file) => list(file),
        Command::Tail(arguments) => tail(arguments),
    }
}

fn list(file: &TopologyFile) -> Result<(), Failure> {
    let topology = file.load()?;
    let log = look::log(&topology)?;
    let shape = pipeline::shape(&topology)?;
    let mut topics = shape.written();
    topics.extend(shape.sources());
    for topic in topics {
        match log.partitions(&topic)? {
            None => println!("{topic:<44} missing"),
            Some(count) => {
                let mut records = 0;
                for n in 0..count {
                    let at = TopicPartition::new(&topic, Partition(n));
                    records += log.end(&at)?.0 - log.start(&at)?.0;
                }
                println!("{:<44} {count:>3} partitions  {records:>10} offsets", topic.as_str());
            }
        }
    }
    Ok(())
}

fn tail(arguments: &Tail) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let topic = Topic::new(&arguments.name);
    let Some(count) = log.partitions(&topic)? else {
        return Err(Failure::Usage(format!(
            "there is no topic {topic}; `accrue topics list` names them"
        )));
    };
    let values = AnyReader::new(registry.clone() as std::sync::Arc<dyn Registry>);
    let mut out = std::io::stdout().lock();
    let mut readers = Vec::new();
    for n in 0..count {
        let at = TopicPartition::new(&topic, Partition(n));
        let (start, end) = (log.start(&at)?, log.end(&at)?);
        let from = Offset(end.0.saturating_sub(arguments.last)).max(start);
        readers.push((log.reader(&at, from)?, end));
    }
    loop {
        for (reader, end) in &mut readers {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                for record in reader.read(Duration::from_millis(100))? {
                    match writeln!(out, "{}", line(&record, &values)) {
                        // The reader of our output has seen enough.
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                        written => written?,
                    }
                }
                if reader.position()? >= *end || Instant::now() > deadline {
                    break;
                }
            }
        }
        if !arguments.follow {
            return Ok(());
        }
    }
}

/// One record as a JSON object: coordinates, headers, key, and the value decoded as far as it is Avro, JSON or text.
fn line(record: &Record, values: &AnyReader) -> serde_json::Value {
    let text = |bytes: &[u8]| serde_json::Value::from(String::from_utf8_lossy(bytes).into_owned());
    let headers: serde_json::Map<String, serde_json::Value> = record
        .headers
        .iter()
        .map(|header| (header.name.to_string(), text(&header.value)))
        .collect();
    serde_json::json!({
        "topic": record.at.topic.as_str(),
        "partition": record.at.partition.0,
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "headers": headers,
        "key": record.key.as_deref().map(text),
        "value": record.value.as_deref().map(|bytes| values.json(bytes)),
    })
}
