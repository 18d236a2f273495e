//! What the quick start prints: what came in, what came out, the deferred revenue, one deal explained.
//!
//! Invariant: figures come from the topics. The journal that is printed is the one that the topic holds; it is compared,
//! byte for byte, with a fold of `contract.facts` through the accounting core.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::sample::LAST_TICK;
use crate::cli::books;
use crate::cli::books::known::{self, Known};
use crate::cli::books::table::Basis;
use crate::cli::deal;
use crate::codec::schemas::Schemas;
use crate::config::Topology;
use crate::pipeline;
use crate::pipeline::dead_letters::{self, Filed};
use crate::revenue::books::Books;
use crate::revenue::checks;
use crate::revenue::explain::explain;
use crate::revenue::fact::{Body, Fact};
use crate::revenue::journal::JournalEntry;
use crate::stream::layout::Recorded;
use crate::stream::log::Log;
use crate::stream::record::{Record, Topic};

/// Periods of the waterfall that are printed, the latest ones.
const PERIODS: usize = 12;
/// Explanations of the chosen deal that are printed.
const REASONS: usize = 8;

/// What there is to report.
pub struct Run<'a> {
    pub topology: &'a Topology,
    pub log: &'a dyn Log,
    pub schemas: &'a Schemas,
    pub loaded: usize,
    pub processed: bool,
    pub seconds: f64,
}

pub fn books(run: &Run<'_>) -> Result<(), anyhow::Error> {
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
    let facts = known::facts(run.log, run.schemas, run.topology)?;
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
    // Compacted: what counts is the latest record of each deal.
    for topic in [&out.contract_state, &out.recognition_schedule, &out.billing_schedule] {
        let records = read(run.log, topic.as_str())?;
        let deals: BTreeSet<_> = records.iter().filter_map(|record| record.key.as_deref()).collect();
        println!("  {:<28} {:>6} deals", topic.as_str(), deals.len());
    }
    let journal = proved_journal(run, &facts)?;
    counted(
        out.journal_entries.as_str(),
        "entries",
        journal.iter().map(|entry| entry.kind.as_str()),
    );
    let topic = Topic::new(out.dead_letters.as_str());
    let letters = dead_letters::read(run.log, &topic, run.schemas)?;
    println!(
        "  {:<28} {:>6} records that could not be used:",
        out.dead_letters.as_str(),
        letters.len()
    );
    for Filed { letter, resolution, .. } in letters.values() {
        println!(
            "    {}, offset {}: {}: {}{}",
            letter.topic,
            letter.offset,
            letter.code,
            cut(&letter.message, 110),
            resolution.map_or(String::new(), |how| format!(" ({})", how.as_str()))
        );
    }
    println!(
        "  checked: the journal in the topic equals the fold of {} through the accounting core,",
        out.contract_facts.as_str()
    );
    println!("           byte for byte; every entry balances; every schedule sums to its price");

    let mut deferred = books::waterfall(&journal);
    deferred.rows.retain(|(scope, _)| scope.basis == Basis::Contract);
    print!("{}", deferred.text(Some(PERIODS)));
    explained(run, &facts)?;

    Ok(())
}

/// Where it lies, and how to go on.
pub fn further(topology: &Topology, dir: &Path) {
    let (out, dir) = (&topology.outputs, dir.display());
    println!("\nWhere it lies: {dir}/log (topics), {dir}/state (stores), {dir}/registry (Avro schemas)");
    println!(
        "Look further: ACCRUE_DATA_DIR={dir} accrue topics tail {} -n 3",
        out.journal_entries.as_str()
    );
    println!("              ACCRUE_DATA_DIR={dir} accrue books report movement");
}

/// Every committed record of a topic, partition by partition; none where there is no such topic.
fn read(log: &dyn Log, topic: &str) -> Result<Vec<Record>, anyhow::Error> {
    let topic = Topic::new(topic);
    Ok(match log.partitions(&topic)? {
        Some(_) => known::committed(log, &topic)?.into_iter().flatten().collect(),
        None => Vec::new(),
    })
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
    // A reset has every entry written again, with the same bytes.
    let resets = Recorded::read(&pipeline::shape(run.topology)?, run.log)?.map_or(0, |recorded| recorded.resets);
    if (resets == 0 && found.len() != records.len()) || found != wanted {
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

/// One deal with a change in it: what was said, and why each decision followed.
fn explained(run: &Run<'_>, facts: &[Vec<Fact>]) -> Result<(), anyhow::Error> {
    let amended = facts.iter().flatten().find_map(|fact| match &fact.body {
        Body::DealAmended(deal) => Some((&fact.tenant, &deal.deal_id)),
        _ => None,
    });
    let (tenant, deal) = amended.context("the sample has no amended deal")?;
    let known = Known::of(run.topology.settings().clone(), facts);
    let folded = known.contracts(&|of, id| of == tenant && id == deal);
    let key = (tenant.clone(), deal.clone());
    let found = folded
        .iter()
        .find_map(|part| Some((part, part.deals.get(&key)?.contract.as_ref()?)));
    let (part, contract) = found.context("the amended deal has facts")?;
    println!("\nDeal {deal} of {tenant}, explained (books as of {LAST_TICK})");
    for fact in &contract.facts {
        println!("  {}  {}  {}", fact.occurred_at, fact.body.type_name(), fact.event_id);
    }
    let reasons = explain(contract, &part.context(&known.settings, tenant));
    print!("{}", deal::paragraphs(reasons.iter().take(REASONS)));
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
