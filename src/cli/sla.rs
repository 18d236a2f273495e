//! `accrue sla report`: how long events took to reach their ledgers.

use clap::{Args, Subcommand};
use jiff::SignedDuration;
use serde_json::json;

use super::out::Format;
use super::{Failure, TopologyFile, connect, look};
use crate::observe::logs;
use crate::revenue::ids::DealId;
use crate::sink::reading::{self, ReadError};
use crate::sink::sla::Report;
use crate::sink::store::word;

#[derive(Subcommand)]
pub enum Command {
    /// Event to receipt, by destination, what took longer than promised, and what is overdue
    Report(Arguments),
}

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    /// Only receipts since this instant, such as 2026-11-01T00:00:00Z
    #[arg(long)]
    since: Option<jiff::Timestamp>,
    /// Breaches, and overdue documents, listed for each destination, the slowest first
    #[arg(long, default_value_t = 20)]
    breaches: usize,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("error");
    match command {
        Command::Report(arguments) => report(arguments),
    }
}

fn report(arguments: &Arguments) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let mut report = Report::default();
    reading::receipts(log.as_ref(), &topology, &schemas, |receipt| {
        if arguments.since.is_none_or(|since| receipt.settled_at >= since) {
            let sink = topology.sinks.values().find(|sink| sink.name.as_str() == receipt.sink);
            report.add(&receipt, sink);
        }
        Ok(())
    })?;
    let now = jiff::Timestamp::now();
    for sink in topology.sinks.values() {
        match reading::holdings(log.as_ref(), &topology, sink) {
            Ok(holdings) => report.add_waiting(sink, holdings, now),
            // It never ran.
            Err(ReadError::NoTopic(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (sink, times) in &mut report.0 {
        times.overdue.sort_by_key(|overdue| std::cmp::Reverse(overdue.age));
        times.breaches.sort_by_key(|breach| std::cmp::Reverse(breach.took));
        let promised = topology.sinks.values().find(|known| known.name.as_str() == sink);
        let promised = promised.map(|sink| sink.sla.to_string());
        let percentile = |percent| times.percentile(percent);
        match arguments.format {
            Format::Text => {
                let whole = |time: SignedDuration| SignedDuration::from_secs(time.as_secs());
                let shown =
                    |time: Option<SignedDuration>| time.map_or("-".to_owned(), |time| format!("{:#}", whole(time)));
                println!(
                    "{sink}: {} documents, promised {}; half within {}, 95 of 100 within {}, all within {}; {} breaches, {} overdue",
                    times.count(),
                    promised.as_deref().unwrap_or("nothing"),
                    shown(percentile(50)),
                    shown(percentile(95)),
                    shown(percentile(100)),
                    times.breaches.len(),
                    times.overdue.len(),
                );
                for breach in times.breaches.iter().take(arguments.breaches) {
                    let receipt = &breach.receipt;
                    println!(
                        "  {:<28} {:<24} event {}, receipt {}, {:#}",
                        receipt.key,
                        receipt.deal.as_deref().unwrap_or("-"),
                        receipt.source_at,
                        receipt.settled_at,
                        whole(breach.took)
                    );
                }
                for overdue in times.overdue.iter().take(arguments.breaches) {
                    let row = &overdue.waiting.row;
                    println!(
                        "  {:<28} {:<24} event {}, no receipt ({}), {:#}",
                        row.key,
                        row.deal.as_ref().map_or("-", DealId::as_str),
                        row.source_at,
                        word(&row.track.state),
                        whole(overdue.age)
                    );
                }
            }
            Format::Json => {
                let seconds = |time: Option<SignedDuration>| time.map(|time| time.as_secs());
                let breaches: Vec<_> = times
                    .breaches
                    .iter()
                    .take(arguments.breaches)
                    .map(|breach| {
                        json!({
                            "key": breach.receipt.key,
                            "tenant_id": breach.receipt.tenant,
                            "deal_id": breach.receipt.deal,
                            "source_at": breach.receipt.source_at.to_string(),
                            "settled_at": breach.receipt.settled_at.to_string(),
                            "seconds": breach.took.as_secs(),
                        })
                    })
                    .collect();
                let overdue: Vec<_> = times
                    .overdue
                    .iter()
                    .take(arguments.breaches)
                    .map(|overdue| {
                        let row = &overdue.waiting.row;
                        json!({
                            "key": row.key.as_str(),
                            "tenant_id": row.tenant.as_str(),
                            "deal_id": row.deal.as_ref().map(DealId::as_str),
                            "source_at": row.source_at.to_string(),
                            "state": word(&row.track.state),
                            "seconds": overdue.age.as_secs(),
                        })
                    })
                    .collect();
                println!(
                    "{}",
                    json!({
                        "sink": sink,
                        "promised": promised,
                        "documents": times.count(),
                        "p50_seconds": seconds(percentile(50)),
                        "p95_seconds": seconds(percentile(95)),
                        "max_seconds": seconds(percentile(100)),
                        "breaches": times.breaches.len(),
                        "slowest": breaches,
                        "overdue": times.overdue.len(),
                        "longest": overdue,
                    })
                );
            }
        }
    }
    if report.0.is_empty() {
        eprintln!("no receipts yet, and nothing is overdue");
    }
    Ok(())
}
