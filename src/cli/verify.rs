//! `accrue verify`: whether log, stores, journal, books and receipts fit together.
//!
//! Each check says what it looked at. What cannot be looked at now (a store that a process works with, a journal that is
//! being written) is left out, and says so: it is no failure. Deliberately absent: mending anything.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::books::known::{self, Known};
use super::out::Format;
use super::{Failure, TopologyFile, connect, receipts};
use crate::codec::DecodeError;
use crate::codec::schemas::Schemas;
use crate::config::Topology;
use crate::observe::logs;
use crate::pipeline::{self, emit::deal_key};
use crate::revenue::books::Report;
use crate::revenue::checks;
use crate::revenue::contract::{BillingRow, ScheduleRow};
use crate::revenue::journal::JournalEntry;
use crate::sink::reading::{self, ReadError};
use crate::stream::log::Log;
use crate::stream::record::{Partition, Topic};
use crate::stream::store::StoreHome;
use crate::stream::topology::Shape;
use crate::stream::verify::{self, Found, Hanging};
use crate::stream::{app, layout, topics};

/// Beyond the longest transaction, before one that is open is called hanging.
const GRACE: Duration = Duration::from_secs(5);
/// Findings of one check that are named.
const NAMED: usize = 10;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What a check came to.
struct Check {
    name: &'static str,
    /// What it looked at.
    looked_at: String,
    /// What does not hold.
    findings: Vec<String>,
    /// What it could not look at, and why.
    left_out: Vec<String>,
}

impl Check {
    fn new(name: &'static str) -> Check {
        Check {
            name,
            looked_at: String::new(),
            findings: Vec::new(),
            left_out: Vec::new(),
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("error");
    let topology = arguments.file.load()?;
    let log = connect::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let shape = pipeline::shape(&topology)?;
    let (log, shape) = (log.as_ref(), &shape);

    let mut checks = vec![transactions(&topology, shape, log)?, stores(&topology, shape, log)?];
    checks.extend(books(&topology, shape, log, &schemas)?);
    if !topology.sinks.is_empty() {
        checks.push(chains(&topology, log, &schemas)?);
    }
    match arguments.format {
        Format::Text => print!("{}", text(&checks)),
        Format::Json => {
            let checks = checks.iter().map(|check| {
                json!({"check": check.name, "looked_at": check.looked_at, "findings": check.findings,
                       "left_out": check.left_out})
            });
            println!("{:#}", json!({"checks": checks.collect::<Vec<_>>()}));
        }
    }
    let broken: Vec<&str> = checks
        .iter()
        .filter(|check| !check.findings.is_empty())
        .map(|check| check.name)
        .collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(anyhow::anyhow!("does not hold: {}", broken.join(", ")).into()),
    }
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let verdict = if check.findings.is_empty() { "ok" } else { "FAIL" };
        text += &format!("{verdict:<5} {:<28} {}\n", check.name, check.looked_at);
        for finding in check.findings.iter().take(NAMED) {
            text += &format!("        {finding}\n");
        }
        if let Some(more) = check.findings.len().checked_sub(NAMED).filter(|more| *more > 0) {
            text += &format!("        and {more} more\n");
        }
        for left_out in &check.left_out {
            text += &format!("      - left out: {left_out}\n");
        }
    }
    text
}

/// Readers of committed records reach the end of every partition.
fn transactions(topology: &Topology, shape: &Shape, log: &dyn Log) -> Result<Check, Failure> {
    let mut check = Check::new("no_transaction_hangs");
    let partitions = verify::partitions(shape, log)?;
    let longest = topology.runtime.transaction_timeout.get() + GRACE;
    let hanging = verify::hanging(log, &partitions, longest)?;
    let words = |Hanging { at, from, end }: &Hanging| {
        format!(
            "{at}: open since offset {from}, the end is {end}: see docs/faults.md, \"A transaction that Kafka never ends\""
        )
    };
    check.findings = hanging.iter().map(words).collect();
    check.looked_at = format!("{} partitions", partitions.len());
    Ok(check)
}

/// The stores on this machine are the folds of their changelogs.
fn stores(topology: &Topology, shape: &Shape, log: &dyn Log) -> Result<Check, Failure> {
    let mut check = Check::new("stores_are_their_changelogs");
    let counts = topics::counts(shape, log)?;
    let home = StoreHome::disk(connect::memory(topology).stores);
    let (mut looked_at, mut keys) = (0, 0);
    for sub in shape.stateful() {
        for n in 0..counts.get(&sub.sources[0]).copied().unwrap_or(0) {
            let task = format!("{}_{n}", sub.name);
            let dir = topology.state.dir.join(&task);
            match verify::store(log, &dir, &sub.stores, Partition(n), &home)? {
                Found::Absent => {}
                Found::InUse => check
                    .left_out
                    .push(format!("{task}: a process works with it; stop that first")),
                Found::Whole { keys: some } => (looked_at, keys) = (looked_at + 1, keys + some),
                Found::Differs { keys, such_as } => {
                    looked_at += 1;
                    check.findings.push(format!(
                        "{task}: {keys} keys are not as its changelog has them, such as {}: stop the process and remove {}, which is then rebuilt",
                        such_as.join(", "),
                        dir.display()
                    ));
                }
            }
        }
    }
    check.looked_at = format!("{looked_at} tasks on this machine, {keys} keys");
    Ok(check)
}

/// The journal holds each entry that the facts give once, as they give it, and no other; the last plans of each deal are
/// those that the facts give; and the books that they give are sound.
fn books(topology: &Topology, shape: &Shape, log: &dyn Log, schemas: &Schemas) -> Result<Vec<Check>, Failure> {
    let mut entries = Check::new("journal_is_what_facts_give");
    let mut plans = Check::new("plans_are_what_facts_give");
    let facts = Topic::new(topology.outputs.contract_facts.as_str());
    let journal = Topic::new(topology.outputs.journal_entries.as_str());
    let waiting = || -> Result<u64, Failure> { Ok(app::lags(shape, log)?.get(&facts).copied().unwrap_or(0)) };

    let before = waiting()?;
    let report = Known::of(topology.settings().clone(), &known::facts(log, schemas, topology)?).report();
    let mut held: BTreeMap<String, (JournalEntry, u64)> = BTreeMap::new();
    reading::each(log, &journal, |record| {
        let entry = schemas.decode_journal_entry(record.value.as_deref().unwrap_or_default());
        let entry = entry.map_err(|error| ReadError::Unreadable {
            place: format!("{} offset {}", record.at, record.offset),
            message: error.to_string(),
        })?;
        held.entry(entry.entry_id.to_string()).or_insert((entry, 0)).1 += 1;
        Ok(())
    })?;
    entries.looked_at = format!("{} entries", report.journals.len());
    let differing = [
        recognition(topology, &report, log, schemas)?,
        billing(topology, &report, log, schemas)?,
    ];
    plans.looked_at = format!(
        "{} rows of revenue, {} of invoices",
        report.schedule.len(),
        report.billing.len()
    );
    let why_not = if before > 0 || waiting()? > 0 {
        Some("facts wait to be processed; again when `accrue status` shows none".to_owned())
    } else if deleted(log, &facts)? || deleted(log, &journal)? {
        Some(format!(
            "records of {facts} or {journal} were deleted by their retention"
        ))
    } else {
        None
    };
    match why_not {
        Some(why) => {
            entries.left_out.push(why.clone());
            plans.left_out.push(why);
        }
        None => {
            let reset = layout::resets(shape, log)? > 0;
            entries.findings = compare(&report, held, reset);
            plans.findings = differing.concat();
        }
    }

    let mut sound = Check::new("books_are_sound");
    sound.looked_at = format!(
        "{} deals, {} invariants of `accrue books verify`",
        report.contracts.len(),
        checks::ALL.len()
    );
    sound.findings = checks::run(&report)
        .iter()
        .map(|it| format!("{}: {}: {}", it.check, it.subject, it.detail))
        .collect();
    Ok(vec![entries, plans, sound])
}

/// Deals whose last recognition schedule is not the plan that the facts give.
fn recognition(topology: &Topology, report: &Report, log: &dyn Log, schemas: &Schemas) -> Result<Vec<String>, Failure> {
    // How often a plan changed is counted where it is written. In another currency, what is not posted is an estimate by
    // the rates of the day on which it was written.
    let plain = |row: &ScheduleRow| ScheduleRow {
        revision: 0,
        functional_amount: row.functional_amount.filter(|_| row.posted),
        ..row.clone()
    };
    let wanted = report
        .schedule
        .iter()
        .map(|row| (deal_key(&row.tenant, &row.deal), plain(row)));
    let topic = Topic::new(topology.outputs.recognition_schedule.as_str());
    let decode = |bytes: &[u8]| {
        let mut rows: Vec<ScheduleRow> = schemas.decode_recognition_schedule(bytes)?.iter().map(plain).collect();
        rows.sort_by(|a, b| (a.period, &a.obligation).cmp(&(b.period, &b.obligation)));
        Ok(rows)
    };
    differing(log, &topic, wanted, decode)
}

/// Deals whose last billing schedule is not the plan that the facts give.
fn billing(topology: &Topology, report: &Report, log: &dyn Log, schemas: &Schemas) -> Result<Vec<String>, Failure> {
    let plain = |row: &BillingRow| BillingRow {
        revision: 0,
        ..row.clone()
    };
    let wanted = report
        .billing
        .iter()
        .map(|row| (deal_key(&row.tenant, &row.deal), plain(row)));
    let topic = Topic::new(topology.outputs.billing_schedule.as_str());
    let decode = |bytes: &[u8]| Ok(schemas.decode_billing_schedule(bytes)?.iter().map(plain).collect());
    differing(log, &topic, wanted, decode)
}

/// The keys of a compacted topic whose last record does not hold the rows that are wanted of it, in their order.
fn differing<R: PartialEq>(
    log: &dyn Log,
    topic: &Topic,
    rows: impl Iterator<Item = (Vec<u8>, R)>,
    decode: impl Fn(&[u8]) -> Result<Vec<R>, DecodeError>,
) -> Result<Vec<String>, Failure> {
    let mut wanted: BTreeMap<Vec<u8>, Vec<R>> = BTreeMap::new();
    rows.for_each(|(key, row)| wanted.entry(key).or_default().push(row));
    let mut held: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    reading::each(log, topic, |record| {
        held.insert(record.key.unwrap_or_default(), record.value.unwrap_or_default());
        Ok(())
    })?;
    let mut findings = Vec::new();
    for (key, bytes) in held {
        let deal = String::from_utf8_lossy(&key);
        let wanted = wanted.remove(&key).unwrap_or_default();
        match decode(&bytes) {
            Ok(rows) if rows == wanted => {}
            Ok(_) => findings.push(format!(
                "the last record of {deal} in {topic} is not what the facts give"
            )),
            Err(error) => findings.push(format!("the last record of {deal} in {topic} cannot be read: {error}")),
        }
    }
    let missing = wanted.into_keys();
    findings.extend(missing.map(|key| format!("{} is missing in {topic}", String::from_utf8_lossy(&key))));
    Ok(findings)
}

/// What the journal holds against what it should. After a reset everything was said once more.
fn compare(report: &Report, mut held: BTreeMap<String, (JournalEntry, u64)>, reset: bool) -> Vec<String> {
    let mut findings = Vec::new();
    for entry in &report.journals {
        let id = entry.entry_id.to_string();
        match held.remove(&id) {
            None => findings.push(format!("{id} of deal {} is missing", entry.deal)),
            Some((found, _)) if found != *entry => {
                findings.push(format!("{id} of deal {} is not what the facts give", entry.deal));
            }
            Some((_, times)) if times > 1 && !reset => {
                findings.push(format!("{id} of deal {} is there {times} times", entry.deal));
            }
            Some(_) => {}
        }
    }
    let foreign = held.values();
    findings.extend(foreign.map(|(entry, _)| format!("{} of deal {} comes from no fact", entry.entry_id, entry.deal)));
    findings
}

/// Whether a topic has lost records to its retention.
fn deleted(log: &dyn Log, topic: &Topic) -> Result<bool, Failure> {
    for at in log.partitions_of(topic)? {
        if log.start(&at)?.0 > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What sinks have written is recorded whole.
fn chains(topology: &Topology, log: &dyn Log, schemas: &Schemas) -> Result<Check, Failure> {
    let mut check = Check::new("receipts_are_whole");
    let proof = receipts::proof(topology, log, schemas)?;
    check.findings = proof.problems().map(ToString::to_string).collect();
    check.looked_at = proof.to_string();
    Ok(check)
}
