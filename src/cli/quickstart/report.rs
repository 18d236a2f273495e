//! What the quick start prints: what came in, what came out, the deferred revenue, one deal explained.
//!
//! Invariant: figures come from the topics. The journal that is printed is the one that the topic holds; it is compared,
//! byte for byte, with a fold of `contract.facts` through the accounting core.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rust_decimal::Decimal;

use super::sample::LAST_TICK;
use crate::codec::schemas::Schemas;
use crate::config::Topology;
use crate::revenue::books::Books;
use crate::revenue::checks;
use crate::revenue::contract;
use crate::revenue::explain::explain;
use crate::revenue::fact::{Body, Fact};
use crate::revenue::journal::JournalEntry;
use crate::revenue::measures::{self, WaterfallRow};
use crate::revenue::reference::{Context, Reference};
use crate::stream::log::Log;
use crate::stream::record::{Offset, Partition, Record, Topic, TopicPartition};

/// Periods of the waterfall that are printed, the latest ones.
const PERIODS: usize = 12;
/// Explanations of the chosen deal that are printed.
const REASONS: usize = 8;

/// What there is to report.
pub struct Run<'a> {
    pub topology: &'a Topology,
    pub log: &'a dyn Log,
    pub schemas: &'a Schemas,
    pub dir: &'a Path,
    pub loaded: usize,
    pub processed: bool,
    pub seconds: f64,
}

pub fn print(run: &Run<'_>) -> Result<(), anyhow::Error> {
    let out = &run.topology.outputs;
    if run.processed {
        println!(
            "Loaded {} records of a sample CRM history and processed them in {:.1} s.",
            run.loaded, run.seconds
        );
    } else {
        println!("Resumed: everything was processed before, nothing is new.");
    }

    println!("\nWhat came in");
    for source in &run.topology.sources {
        let records = read(run.log, source.topic.as_str())?;
        println!("  {:<28} {:>6} records", source.topic.as_str(), records.len());
    }

    println!("\nWhat came out");
    let facts = facts(run)?;
    let deal_facts: Vec<&Fact> = facts
        .iter()
        .flatten()
        .filter(|fact| fact.body.deal_id().is_some())
        .collect();
    counted(
        out.deal_canonical.as_str(),
        "facts",
        deal_facts.iter().map(|fact| fact.body.type_name()),
    );
    // Compacted: what counts is the latest state of each deal.
    let states = read(run.log, out.contract_state.as_str())?;
    let deals: BTreeSet<_> = states.iter().filter_map(|record| record.key.as_deref()).collect();
    println!("  {:<28} {:>6} deals", out.contract_state.as_str(), deals.len());
    for (topic, what) in [
        (&out.recognition_schedule, "rows of schedule versions"),
        (&out.billing_schedule, "planned invoices"),
    ] {
        println!(
            "  {:<28} {:>6} {what}",
            topic.as_str(),
            read(run.log, topic.as_str())?.len()
        );
    }
    let journal = proved_journal(run, &facts)?;
    counted(
        out.journal_entries.as_str(),
        "entries",
        journal.iter().map(|entry| entry.kind.as_str()),
    );
    let letters = read(run.log, out.dead_letters.as_str())?;
    println!(
        "  {:<28} {:>6} records that could not be used:",
        out.dead_letters.as_str(),
        letters.len()
    );
    for letter in &letters {
        let letter = run
            .schemas
            .decode_dead_letter(letter.value.as_deref().unwrap_or_default())?;
        println!(
            "    {}, offset {}: {}: {}",
            letter.topic,
            letter.offset,
            letter.code,
            cut(&letter.message, 110)
        );
    }
    println!(
        "  checked: the journal in the topic equals the fold of {} through the accounting core,",
        out.contract_facts.as_str()
    );
    println!("           byte for byte; every entry balances; every schedule sums to its price");

    waterfall(&journal);
    explained(run, &facts)?;

    let dir = run.dir.display();
    println!("\nWhere it lies: {dir}/log (topics), {dir}/state (stores), {dir}/registry (Avro schemas)");
    println!(
        "Look further: ACCRUE_DATA_DIR={dir} accrue topics tail {} -n 3",
        out.journal_entries.as_str()
    );
    Ok(())
}

/// Every committed record of a topic, partition by partition.
fn read(log: &dyn Log, topic: &str) -> Result<Vec<Record>, anyhow::Error> {
    let topic = Topic::new(topic);
    let mut all = Vec::new();
    for n in 0..log.partitions(&topic)?.unwrap_or(0) {
        let mut reader = log.reader(&TopicPartition::new(&topic, Partition(n)), Offset(0))?;
        loop {
            let records = reader.read(Duration::ZERO)?;
            if records.is_empty() {
                break;
            }
            all.extend(records);
        }
    }
    Ok(all)
}

/// The facts of each partition of `contract.facts`, in their order.
fn facts(run: &Run<'_>) -> Result<Vec<Vec<Fact>>, anyhow::Error> {
    let mut partitions: BTreeMap<Partition, Vec<Fact>> = BTreeMap::new();
    for record in read(run.log, run.topology.outputs.contract_facts.as_str())? {
        let fact = run.schemas.decode_fact(record.value.as_deref().unwrap_or_default())?;
        partitions.entry(record.at.partition).or_default().push(fact);
    }
    Ok(partitions.into_values().collect())
}

/// Folds the facts anew and compares the entries with the topic's. Returns them.
fn proved_journal(run: &Run<'_>, facts: &[Vec<Fact>]) -> Result<Vec<JournalEntry>, anyhow::Error> {
    let mut folded = Vec::new();
    for partition in facts {
        let mut books = Books::new(run.topology.settings().clone());
        for fact in partition {
            books.fold(fact.clone());
        }
        let report = books.finish(None);
        if let Some(violation) = checks::run(&report).first() {
            bail!(
                "check {} does not hold for {}: {}",
                violation.check,
                violation.subject,
                violation.detail
            );
        }
        folded.extend(report.journals);
    }
    let wanted: BTreeSet<Vec<u8>> = folded
        .iter()
        .map(|entry| run.schemas.encode_journal_entry(entry))
        .collect::<Result<_, _>>()?;
    let topic = run.topology.outputs.journal_entries.as_str();
    let records = read(run.log, topic)?;
    let found: BTreeSet<Vec<u8>> = records.iter().filter_map(|record| record.value.clone()).collect();
    if found.len() != records.len() || found != wanted {
        bail!(
            "{topic} holds {} entries ({} different ones), the fold of the facts makes {}: the books do not agree with themselves",
            records.len(),
            found.len(),
            wanted.len()
        );
    }
    Ok(folded)
}

fn counted<'a>(topic: &str, what: &str, kinds: impl Iterator<Item = &'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    kinds.for_each(|kind| *counts.entry(kind).or_default() += 1);
    let list: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!(
        "  {topic:<28} {:>6} {what}: {}",
        counts.values().sum::<usize>(),
        list.join(", ")
    );
}

/// The deferred revenue of each currency, for the latest periods.
fn waterfall(journal: &[JournalEntry]) {
    let mut currencies: BTreeMap<String, Vec<WaterfallRow>> = BTreeMap::new();
    for row in measures::waterfall(journal) {
        currencies
            .entry(format!("{} of {}", row.currency, row.tenant))
            .or_default()
            .push(row);
    }
    for (name, rows) in currencies {
        println!("\nDeferred revenue, {name}");
        println!(
            "  {:<10} {:>16} {:>16} {:>16} {:>16}",
            "period", "opening", "+ billed", "- recognised", "= closing"
        );
        let largest = rows.iter().map(|row| row.amounts.closing).max().unwrap_or_default();
        for row in rows.iter().skip(rows.len().saturating_sub(PERIODS)) {
            let amount = |value: Decimal| row.currency.format(value);
            println!(
                "  {:<10} {:>16} {:>16} {:>16} {:>16} {}",
                row.period.to_string(),
                amount(row.amounts.opening),
                amount(row.amounts.billed),
                amount(row.amounts.recognised),
                amount(row.amounts.closing),
                bar(row.amounts.closing, largest),
            );
        }
    }
}

/// A bar of at most 20 blocks.
fn bar(value: Decimal, largest: Decimal) -> String {
    let blocks = value
        .checked_mul(Decimal::from(20))
        .and_then(|scaled| scaled.checked_div(largest))
        .and_then(|blocks| u32::try_from(blocks.round()).ok())
        .unwrap_or(0);
    "#".repeat(blocks.min(20) as usize)
}

/// One deal with a change in it: what was said, and why each decision followed.
fn explained(run: &Run<'_>, facts: &[Vec<Fact>]) -> Result<(), anyhow::Error> {
    let amended = facts.iter().find_map(|partition| {
        partition.iter().find_map(|fact| match &fact.body {
            Body::DealAmended(deal) => Some((partition, fact.tenant.clone(), deal.deal_id.clone())),
            _ => None,
        })
    });
    let (partition, tenant, deal) = amended.context("the sample has no amended deal")?;
    let settings = run.topology.settings();
    let mut reference = Reference::default();
    let mut contract = None;
    for fact in partition.iter().filter(|fact| fact.tenant == tenant) {
        match fact.body.deal_id() {
            None => {
                reference.learn(fact)?;
            }
            Some(id) if *id == deal => {
                let cx = Context::new(settings, &reference, &tenant);
                contract = Some(contract::apply(contract, fact, &cx)?.contract);
            }
            Some(_) => {}
        }
    }
    let contract = contract.context("the amended deal has facts")?;
    let cx = Context::new(settings, &reference, &tenant);
    println!("\nDeal {deal} of {tenant}, explained (books as of {LAST_TICK})");
    for fact in &contract.facts {
        println!("  {}  {}  {}", fact.occurred_at, fact.body.type_name(), fact.event_id);
    }
    let reasons = explain(&contract, &cx);
    for reason in reasons.iter().take(REASONS) {
        println!("  - {}", reason.decision);
        println!("    rule: {}", reason.rule);
        if !reason.inputs.is_empty() {
            let inputs: Vec<String> = reason
                .inputs
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            println!("    from: {}", inputs.join(", "));
        }
        if !reason.arithmetic.is_empty() {
            println!("    so:   {}", cut(&reason.arithmetic, 140));
        }
    }
    if reasons.len() > REASONS {
        println!("  ... and {} more, down to each entry", reasons.len() - REASONS);
    }
    Ok(())
}

fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
