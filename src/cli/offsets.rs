//! `accrue offsets`: where the stream processor and the sinks read next, and how to read records again.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::json;

use super::out::Format;
use super::{Failure, TopologyFile, confirm, connect, look, named};
use crate::config::Topology;
use crate::observe::logs;
use crate::pipeline::{self, replays};
use crate::sink::application;
use crate::stream::log::read_to_end;
use crate::stream::record::{Offset, Partition, Timestamp, Topic};
use crate::stream::rewind::{self, Target};
use crate::stream::topics;
use crate::stream::topology::Shape;

#[derive(Subcommand)]
pub enum Command {
    /// Where each partition is read next, and from where to where it reaches
    Show(Show),
    /// Read records of a source again; those that changed the books are recognised
    Rewind(Rewind),
}

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    of: Of,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
pub struct Rewind {
    /// The topic
    topic: String,
    #[command(flatten)]
    of: Of,
    /// Only this partition
    #[arg(long)]
    partition: Option<u32>,
    #[command(flatten)]
    to: To,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// Whose offsets.
#[derive(Args)]
struct Of {
    #[command(flatten)]
    file: TopologyFile,
    /// Those of a sink instead of the stream processor's
    #[arg(long)]
    sink: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To this offset
    #[arg(long)]
    to: Option<u64>,
    /// To the first record of this time or later, such as 2026-03-31T00:00:00Z
    #[arg(long)]
    to_time: Option<jiff::Timestamp>,
    /// As far back as the topic is kept
    #[arg(long)]
    to_start: bool,
}

impl Of {
    fn shape(&self, topology: &Topology) -> Result<Shape, Failure> {
        Ok(match &self.sink {
            None => pipeline::shape(topology)?,
            Some(name) => application::shape(topology, named("sinks", &topology.sinks, name)?)?,
        })
    }
}

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("warn");
    match command {
        Command::Show(arguments) => show(arguments),
        Command::Rewind(arguments) => go_back(arguments),
    }
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let topology = arguments.of.file.load()?;
    let shape = arguments.of.shape(&topology)?;
    let log = look::log(&topology)?;
    let all = topics::inputs(&shape, log.as_ref())?;
    let committed = log.committed(&shape.application_id, &all)?;
    for at in &all {
        let (start, end) = (log.start(at)?, log.end(at)?);
        let next = committed.get(at);
        match arguments.format {
            Format::Text => println!(
                "{:<44} next {:>10}  kept from {start} to {end}",
                at.to_string(),
                next.map_or_else(|| "none yet".to_owned(), Offset::to_string)
            ),
            Format::Json => println!(
                "{}",
                json!({"group": shape.application_id, "topic": at.topic.as_str(), "partition": at.partition.0,
                       "next": next.map(|next| next.0), "start": start.0, "end": end.0})
            ),
        }
    }
    Ok(())
}

fn go_back(arguments: &Rewind) -> Result<(), Failure> {
    let topology = arguments.of.file.load()?;
    let shape = arguments.of.shape(&topology)?;
    let topic = Topic::new(&arguments.topic);
    if arguments.of.sink.is_some() && topic.as_str() == topology.outputs.sink_commands.as_str() {
        return Err(Failure::Usage(format!(
            "{topic} holds decisions of people, which would be carried out again"
        )));
    }
    let target = match (arguments.to.to, arguments.to.to_time) {
        (Some(offset), _) => Target::Offset(Offset(offset)),
        (None, Some(time)) => Target::Time(Timestamp(time.as_millisecond())),
        (None, None) => Target::Start,
    };
    let log = look::log(&topology)?;
    let steps = rewind::plan(&shape, log.as_ref(), &topic, arguments.partition.map(Partition), target)?;
    if steps.is_empty() {
        println!("nothing to read again: no partition was read further than that");
        return Ok(());
    }
    if arguments.of.sink.is_none() {
        let (registry, _) = connect::registry(&topology)?;
        let schemas = connect::schemas(&topology, &registry)?;
        for (at, step) in &steps {
            read_to_end(log.as_ref(), at, step.to, |record| {
                if record.offset >= step.from {
                    return Ok(());
                }
                match replays::unrecognised(&topology, &schemas, &record) {
                    Ok(None) => Ok(()),
                    Ok(Some(why)) => Err(anyhow!(
                        "{at} cannot be read again from {}: offset {} is {why}. Nothing was changed",
                        step.to,
                        record.offset
                    )),
                    Err(away) => Err(anyhow!(away)),
                }
            })?;
        }
    }
    for (at, step) in &steps {
        println!(
            "{:<44} from {} back to {}: {} offsets are read again",
            at.to_string(),
            step.from,
            step.to,
            step.from.0 - step.to.0
        );
    }
    println!("{RECOGNISED}");
    confirm(arguments.yes)?;
    rewind::run(&shape, log.as_ref(), &steps)?;
    println!("done");
    Ok(())
}

const RECOGNISED: &str = "What was taken in before is recognised (facts and entries by their ids, rows by their positions) and changes nothing;
what could not be used is tried again, and is a dead letter again if it still cannot. Topics of facts get them again.";
