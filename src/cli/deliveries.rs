//! `accrue deliveries`: documents on their way, why one waits, and what is to become of it.

use clap::{Args, Subcommand};
use serde_json::json;

use super::out::Format;
use super::{Failure, TopologyFile, connect, look, named};
use crate::codec::delivery_command::{Decision, SinkCommand};
use crate::codec::receipt::hex;
use crate::config::{Sink, Topology};
use crate::observe::logs;
use crate::sink::collect::COMMANDS;
use crate::sink::delivery::State;
use crate::sink::reading::{self, Waiting};
use crate::sink::store::word;
use crate::stream::log::{Log, Positions};
use crate::stream::record::{Outgoing, Timestamp, Topic, TopicPartition};
use sha2::{Digest, Sha256};

#[derive(Subcommand)]
pub enum Command {
    /// List documents that are not in their ledger yet
    List(List),
    /// Say what a document is, how it stands and what can be done
    Explain(One),
    /// Send a parked document round again, after its cause was corrected
    Retry(Decide),
    /// Never write a document; a receipt says who decided and why
    Cancel(Decide),
    /// Say that a document is in the ledger, under the ledger's own name for it
    Confirm(Confirm),
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    file: TopologyFile,
    /// Only this sink
    #[arg(long)]
    sink: Option<String>,
    /// Only documents that wait for a person
    #[arg(long)]
    parked: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
pub struct One {
    /// The document's key
    key: String,
    #[command(flatten)]
    file: TopologyFile,
    /// The sink, where several have the document
    #[arg(long)]
    sink: Option<String>,
}

#[derive(Args)]
pub struct Decide {
    #[command(flatten)]
    one: One,
    /// Why; kept with the decision
    #[arg(long)]
    note: String,
    /// Who decides
    #[arg(long, env = "USER")]
    by: String,
}

#[derive(Args)]
pub struct Confirm {
    #[command(flatten)]
    decide: Decide,
    /// The ledger's own name for the document
    #[arg(long)]
    external_id: String,
}

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("error");
    match command {
        Command::List(arguments) => list(arguments),
        Command::Explain(one) => explain(one),
        Command::Retry(decide) => decide_on(decide, Decision::Retry),
        Command::Cancel(decide) => decide_on(decide, Decision::Cancel),
        Command::Confirm(confirm) => {
            let external_id = confirm.external_id.clone();
            decide_on(&confirm.decide, Decision::Confirm { external_id })
        }
    }
}

fn sinks(topology: &Topology, name: Option<&str>) -> Result<Vec<Sink>, Failure> {
    match name {
        Some(name) => Ok(vec![named("sinks", &topology.sinks, name)?.clone()]),
        None => Ok(topology.sinks.values().cloned().collect()),
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    // Where there are no entries either, nothing can be said of documents.
    let entries = Topic::new(topology.outputs.journal_entries.as_str());
    if log.partitions(&entries)?.is_none() {
        return Err(anyhow::anyhow!("there is no topic {entries}; run `accrue apply` first").into());
    }
    let mut shown = 0;
    for sink in sinks(&topology, arguments.sink.as_deref())? {
        let holdings = match reading::holdings(log.as_ref(), &topology, &sink) {
            // A sink that never ran has nothing on its way.
            Err(reading::ReadError::NoTopic(_)) if arguments.sink.is_none() => continue,
            held => held?,
        };
        for waiting in &holdings.waiting {
            let is_parked = matches!(waiting.row.track.state, State::Parked(_));
            if arguments.parked && !is_parked {
                continue;
            }
            shown += 1;
            match arguments.format {
                Format::Text => println!("{}", line(&sink, waiting)),
                Format::Json => println!("{}", object(&sink, waiting)),
            }
        }
        for (_, group) in &holdings.gathering {
            if arguments.format == Format::Text && !arguments.parked {
                println!(
                    "{:<12} gathering    {} entries of {} since {}",
                    sink.name.as_str(),
                    group.count,
                    group.tenant,
                    group.opened_at
                );
            }
        }
    }
    if arguments.format == Format::Text && shown == 0 {
        eprintln!("no document waits");
    }
    Ok(())
}

fn line(sink: &Sink, waiting: &Waiting) -> String {
    let row = &waiting.row;
    format!(
        "{:<12} {:<12} {:<28} {:<24} {}",
        sink.name.as_str(),
        word(&row.track.state),
        row.key.as_str(),
        row.queue(),
        reason(&row.track.state)
    )
}

fn reason(state: &State) -> String {
    match state {
        State::Planned { why, .. } if why.is_empty() => "waits for its turn".to_owned(),
        State::Planned { not_before, why, .. } => format!("again at {not_before}: {why}"),
        State::Sent { .. } => "its answer is awaited".to_owned(),
        State::Uncertain { look_up_at, why, .. } => format!("looked up at {look_up_at}: {why}"),
        State::Parked(refusal) if refusal.words.is_empty() => format!("{}: {}", refusal.code, refusal.advice),
        State::Parked(refusal) => format!("{}: {} ({})", refusal.code, refusal.words, refusal.advice),
        State::Acknowledged { .. } | State::Cancelled(_) => String::new(),
    }
}

fn object(sink: &Sink, waiting: &Waiting) -> serde_json::Value {
    let row = &waiting.row;
    let refusal = match &row.track.state {
        State::Parked(refusal) => Some(json!({
            "code": refusal.code, "words": refusal.words, "advice": refusal.advice,
        })),
        State::Planned { .. }
        | State::Sent { .. }
        | State::Uncertain { .. }
        | State::Acknowledged { .. }
        | State::Cancelled(_) => None,
    };
    json!({
        "sink": sink.name.as_str(),
        "key": row.key.as_str(),
        "form": row.form.as_str(),
        "tenant_id": row.tenant.as_str(),
        "deal_id": row.deal.as_ref().map(|deal| deal.as_str()),
        "state": word(&row.track.state),
        "since": row.track.since.to_string(),
        "reason": reason(&row.track.state),
        "refusal": refusal,
        "attempts": row.track.attempts,
        "entries": row.entries,
        "source_at": row.source_at.to_string(),
        "partition": waiting.partition.0,
    })
}

/// The document of a key, with its sink.
fn look_for(topology: &Topology, log: &dyn Log, one: &One) -> Result<(Sink, Waiting), Failure> {
    let mut found = Vec::new();
    for sink in sinks(topology, one.sink.as_deref())? {
        let holdings = match reading::holdings(log, topology, &sink) {
            Err(reading::ReadError::NoTopic(_)) if one.sink.is_none() => continue,
            held => held?,
        };
        let of_key = |waiting: &Waiting| waiting.row.key.as_str() == one.key || waiting.row.entries.contains(&one.key);
        found.extend(holdings.waiting.into_iter().find(of_key).map(|waiting| (sink, waiting)));
    }
    match found.len() {
        0 => Err(Failure::Usage(format!(
            "no document {} is on its way; `accrue receipts verify` reads what is settled",
            one.key
        ))),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<&str> = found.iter().map(|(sink, _)| sink.name.as_str()).collect();
            Err(Failure::Usage(format!(
                "{} is on its way to several sinks; add --sink {}",
                one.key,
                names.join(" or --sink ")
            )))
        }
    }
}

fn explain(one: &One) -> Result<(), Failure> {
    let topology = one.file.load()?;
    let log = look::log(&topology)?;
    let (sink, waiting) = look_for(&topology, log.as_ref(), one)?;
    let (row, track) = (&waiting.row, &waiting.row.track);
    println!("{} {} for {}", row.form.as_str(), row.key, sink.name);
    println!("  deal      {}", row.queue());
    println!("  state     {} since {}", word(&track.state), track.since);
    println!("  attempts  {}", track.attempts);
    println!("  event     {}", row.source_at);
    println!("  taken up  {}", row.planned_at);
    if let Some(at) = track.first_sent_at {
        println!("  sent      {at}, first");
    }
    if let Some(plan) = &row.plan {
        println!("  reference {}", plan.reference);
        println!("  body      SHA-256 {}", hex(&Sha256::digest(&plan.body)));
    }
    match &track.state {
        State::Parked(refusal) => {
            println!("  refused   {}", refusal.code);
            if !refusal.words.is_empty() {
                println!("  its words {}", refusal.words);
            }
            println!("  to do     {}", refusal.advice);
        }
        State::Planned { .. } | State::Sent { .. } | State::Uncertain { .. } => {
            println!("  now       {}", reason(&track.state));
        }
        State::Acknowledged { .. } | State::Cancelled(_) => {}
    }
    for entry in &waiting.entries {
        println!(
            "\n  entry {} of {}, {}",
            entry.entry_id,
            entry.date,
            entry.kind.as_str()
        );
        for line in &entry.lines {
            let account = sink
                .accounts
                .account(&entry.tenant, &line.role)
                .unwrap_or(&line.account);
            println!(
                "    {:<32} {:<28} {:>16} {:>16} {}",
                account,
                line.role.name(),
                entry.currency.format(line.debit),
                entry.currency.format(line.credit),
                entry.currency
            );
        }
    }
    Ok(())
}

fn decide_on(decide: &Decide, decision: Decision) -> Result<(), Failure> {
    let topology = decide.one.file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let (sink, waiting) = look_for(&topology, log.as_ref(), &decide.one)?;
    let command = SinkCommand {
        sink: sink.name.as_str().to_owned(),
        key: waiting.row.key.as_str().to_owned(),
        attempts: Some(waiting.row.track.attempts),
        decision,
        by: decide.by.clone(),
        note: decide.note.clone(),
    };
    let value = schemas.encode_sink_command(&command)?;
    let topic = Topic::new(topology.outputs.sink_commands.as_str());
    let mut producer = log.producer(&format!("{}-decisions", topology.application_id))?;
    producer.begin()?;
    producer.send(Outgoing {
        to: TopicPartition::new(&topic, COMMANDS),
        timestamp: Timestamp(jiff::Timestamp::now().as_millisecond()),
        key: Some(waiting.row.queue().into_bytes()),
        value: Some(value),
        headers: Vec::new(),
    })?;
    producer.commit(&Positions::new(), None)?;
    println!(
        "written to {topic}; the sink {} carries it out when it runs, and a decision it cannot carry out becomes a dead letter",
        sink.name
    );
    Ok(())
}
