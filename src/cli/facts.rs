//! `accrue facts`: say something to the books: a rate, a period close, a deal, and that days have ended.
//!
//! Invariant: what is said twice is the same fact. So the id and the time of a tick follow from its day, and `tick` is the only
//! place where the machine's clock becomes a fact. Deliberately absent: a schedule; cron has one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp as Instant;
use jiff::civil::Date;

use super::books::tenant;
use super::{Failure, TopologyFile, look};
use crate::codec::{self, Incoming, fact_json};
use crate::config::mapping::TenantOf;
use crate::config::{Input, Topology};
use crate::observe::logs;
use crate::pipeline::emit::deal_key;
use crate::revenue::fact::{Body, Fact};
use crate::revenue::ids::{EventId, TenantId};
use crate::stream::log::Positions;
use crate::stream::partitioner::partition_for;
use crate::stream::record::{Outgoing, Timestamp, Topic, TopicPartition};

#[derive(Subcommand)]
pub enum Command {
    /// Validate canonical events and write them to a source's topic, all in one transaction
    Post(Post),
    /// Say that all days before today have ended, so that what is due is booked. To be run every day
    Tick(Tick),
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

#[derive(Args)]
pub struct Tick {
    /// Whose clock [default: that of every tenant the topology names]
    #[arg(long, value_parser = tenant)]
    tenant: Option<TenantId>,
    /// The day that has begun; all days before it have ended [default: today, in each tenant's time zone]
    #[arg(long, value_name = "DATE")]
    date: Option<Date>,
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
        Command::Tick(arguments) => tick(arguments),
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

fn tick(arguments: &Tick) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let tenants = match &arguments.tenant {
        Some(tenant) => BTreeSet::from([tenant.clone()]),
        None => tenants(&topology),
    };
    if tenants.is_empty() {
        return Err(Failure::Usage(
            "the topology names no tenant; give --tenant, or add [tenants.NAME]".to_owned(),
        ));
    }
    let now = Instant::now();
    let mut lines = String::new();
    let mut said = Vec::new();
    for tenant in tenants {
        let fact = ticked(&topology, &tenant, arguments.date, now)?;
        lines += &format!("{}\n", fact_json::write(&fact));
        said.push(fact);
    }
    let (_, topic) = send(&topology, &arguments.source, lines.as_bytes())?;
    for Fact { tenant, event_id, .. } in said {
        println!("{tenant}: {event_id} written to {topic}");
    }
    Ok(())
}

/// The tenants that the file gives books or deals. A CRM may name others in its rows; they are not known before.
fn tenants(topology: &Topology) -> BTreeSet<TenantId> {
    let listed = topology.settings().tenants.keys().cloned();
    let fixed = topology.mappings.values().filter_map(|mapping| match &mapping.tenant {
        TenantOf::Fixed(tenant) => Some(tenant.clone()),
        TenantOf::Column(_) => None,
    });
    listed.chain(fixed).collect()
}

/// The fact that a tenant's day has begun: the same one whenever it is said. `date`: instead of the day of `now`.
///
/// Errors: the day has not begun. A clock never goes back, so what was booked too early could not be taken back.
fn ticked(topology: &Topology, tenant: &TenantId, date: Option<Date>, now: Instant) -> Result<Fact, Failure> {
    let zone = &topology.settings().tenant(tenant).time_zone;
    let today = now.to_zoned_datetime(zone.clone()).date();
    let day = date.unwrap_or(today);
    if day > today {
        return Err(Failure::Usage(format!(
            "--date {day} has not begun, for {tenant} it is {today}; nothing was written, since a clock never goes back"
        )));
    }
    let began = day
        .to_zoned_datetime(zone.clone())
        .with_context(|| format!("--date {day}"))?;
    Ok(Fact {
        event_id: EventId::parse(format!("accrue-tick-{day}")).with_context(|| format!("{day} makes no event id"))?,
        source: "accrue facts tick".to_owned(),
        occurred_at: began.timestamp(),
        tenant: tenant.clone(),
        body: Body::ClockTicked(day),
    })
}

/// The topic of a source.
///
/// Errors: it does not take facts.
pub(super) fn takes_facts(topology: &Topology, source: &str) -> Result<Topic, Failure> {
    let found = topology.sources.iter().find(|known| known.name.as_str() == source);
    match found.map(|source| (&source.topic, &source.input)) {
        Some((topic, Input::Canonical)) => Ok(Topic::new(topic.as_str())),
        Some((_, Input::Debezium { .. })) => {
            Err(Failure::Usage(format!("source {source} holds row changes, not facts")))
        }
        None => Err(Failure::Usage(format!("the topology has no source {source}"))),
    }
}

/// Writes canonical events, one JSON object a line, to a source's topic in one transaction. Returns how many, and where.
///
/// Errors: the source does not take facts, or a line is no valid one, and nothing was written; the log.
pub(super) fn send(topology: &Topology, source: &str, events: impl BufRead) -> Result<(usize, Topic), Failure> {
    let topic = takes_facts(topology, source)?;
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
