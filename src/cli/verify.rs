//! `accrue verify`: whether log, stores, journal, books and receipts fit together.
//!
//! Each check says what it looked at. What cannot be looked at now (a store that a process works with, a journal that is
//! being written) is left out, and says so: it is no failure. Deliberately absent: mending anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::books::known::{self, Known};
use super::out::Format;
use super::{Failure, TopologyFile, connect, look, receipts};
use crate::codec::DecodeError;
use crate::codec::schemas::{Product, Schemas};
use crate::config::Topology;
use crate::observe::logs;
use crate::pipeline;
use crate::revenue::checks;
use crate::stream::fault::Fault;
use crate::stream::log::{Log, LogError, read_until};
use crate::stream::record::{Header, Partition, Topic};
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
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = Arc::new(connect::schemas(&topology, &registry)?);
    let shape = pipeline::shape(&topology)?;
    let (log, shape) = (log.as_ref(), &shape);

    let mut checks = vec![
        transactions(&topology, shape, log)?,
        stores(&topology, shape, log)?,
        outputs(&topology, shape, log, &schemas)?,
        books(&topology, log, &schemas)?,
    ];
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

/// What the contract stage has written is what it makes of its facts: the last state and the last plans of each deal, and
/// each journal entry once and no other.
fn outputs(topology: &Topology, shape: &Shape, log: &dyn Log, schemas: &Arc<Schemas>) -> Result<Check, Failure> {
    let mut check = Check::new("outputs_are_what_facts_give");
    let stages = pipeline::build(topology, schemas.clone())?;
    let facts = Topic::new(topology.outputs.contract_facts.as_str());
    let Some(stage) = shape.stateful().find(|stage| stage.sources.contains(&facts)) else {
        return Ok(check);
    };
    let mut written: Vec<Written> = [
        Product::ContractState,
        Product::RecognitionSchedule,
        Product::BillingSchedule,
        Product::JournalEntries,
    ]
    .into_iter()
    .map(|product| Written::new(topology, product))
    .collect();
    let again = layout::resets(shape, log)? > 0;
    let Some(cut) = verify::cut(log, shape, stage)? else {
        let why = "the process commits all the time: again when it has less to do, or was stopped";
        check.left_out.push(why.to_owned());
        return Ok(check);
    };
    if deleted(log, &facts)? {
        check.left_out.push(format!(
            "records of {facts} were deleted by their retention: what came of them cannot be made again"
        ));
        return Ok(check);
    }
    if again && app::lags(shape, log)?.get(&facts).is_some_and(|lag| *lag > 0) {
        let why = "after `accrue reset` facts still wait to be processed: again when `accrue status` shows none";
        check.left_out.push(why.to_owned());
        return Ok(check);
    }

    let dir = topology.state.dir.join("verify");
    let home = StoreHome::disk(connect::memory(topology).stores);
    for (at, until) in &cut.processed {
        verify::replay(log, &stages, &stage.name, (at, *until), (&dir, &home), |record| {
            let bytes = record.value.as_deref().unwrap_or_default();
            let of = written.iter_mut().find(|it| it.topic == record.to.topic);
            of.map_or(Ok(()), |it| {
                it.wants(record.key.as_deref(), &record.headers, bytes, schemas)
            })
        })?;
    }
    for (at, end) in &cut.ends {
        let Some(it) = written.iter_mut().find(|it| it.topic == at.topic) else {
            continue;
        };
        read_until(log, at, log.start(at)?, *end, |record| {
            let bytes = record.value.as_deref().unwrap_or_default();
            it.holds(record.key.as_deref(), &record.headers, bytes, schemas);
            Ok::<(), LogError>(())
        })?;
    }
    let mut looked_at = Vec::new();
    for it in written {
        if it.once && deleted(log, &it.topic)? {
            let why = format!("records of {} were deleted by their retention", it.topic);
            check.left_out.push(why);
            continue;
        }
        looked_at.push(format!("{} of {}", it.wanted.len(), it.topic));
        check.findings.extend(it.compare(again));
    }
    check.looked_at = looked_at.join(", ");
    Ok(check)
}

/// What a topic of the books should hold, and does.
struct Written {
    product: Product,
    topic: Topic,
    /// Whether each record stands for itself; else the last of a key is all that counts.
    once: bool,
    /// Digests, by key, or by the id of the record.
    wanted: HashMap<Vec<u8>, u64>,
    held: HashMap<Vec<u8>, (Held, u32)>,
}

/// What the last record of a key came to, and how many there are.
enum Held {
    Digest(u64),
    Unreadable(String),
}

impl Written {
    fn new(topology: &Topology, product: Product) -> Written {
        Written {
            product,
            topic: Topic::new(pipeline::product_topic(topology, product).as_str()),
            once: product == Product::JournalEntries,
            wanted: HashMap::new(),
            held: HashMap::new(),
        }
    }

    fn name(&self, key: Option<&[u8]>, headers: &[Header]) -> Vec<u8> {
        let id = headers.iter().find(|header| header.name == "ce_id");
        match self.once {
            true => id.map(|id| id.value.to_vec()).unwrap_or_default(),
            false => key.unwrap_or_default().to_vec(),
        }
    }

    fn wants(&mut self, key: Option<&[u8]>, headers: &[Header], bytes: &[u8], schemas: &Schemas) -> Result<(), Fault> {
        let unreadable = |error: DecodeError| Fault::Fatal(error.to_string());
        let datum = schemas.datum(self.product, bytes).map_err(unreadable)?;
        self.wanted
            .insert(self.name(key, headers), verify::digest((key, datum)));
        Ok(())
    }

    fn holds(&mut self, key: Option<&[u8]>, headers: &[Header], bytes: &[u8], schemas: &Schemas) {
        let held = match schemas.datum(self.product, bytes) {
            Ok(datum) => Held::Digest(verify::digest((key, datum))),
            Err(error) => Held::Unreadable(error.to_string()),
        };
        let name = self.name(key, headers);
        let times = self.held.get(&name).map_or(0, |(_, times)| *times);
        self.held.insert(name, (held, times + 1));
    }

    /// What does not fit, by name. `again`: everything may have been said more than once.
    fn compare(mut self, again: bool) -> Vec<String> {
        let what = |name: &[u8]| match self.once {
            true => format!("{} in {}", String::from_utf8_lossy(name), self.topic),
            false => format!("the last record of {} in {}", String::from_utf8_lossy(name), self.topic),
        };
        let mut findings = Vec::new();
        for (name, (held, times)) in self.held {
            let what = what(&name);
            match (self.wanted.remove(&name), held) {
                (_, Held::Unreadable(why)) => findings.push(format!("{what} cannot be read: {why}")),
                (None, Held::Digest(_)) => findings.push(format!("{what} comes from no fact")),
                (Some(wanted), Held::Digest(held)) if wanted != held => {
                    findings.push(format!("{what} is not what the facts give"));
                }
                (Some(_), Held::Digest(_)) if self.once && times > 1 && !again => {
                    findings.push(format!("{what} is there {times} times"));
                }
                (Some(_), Held::Digest(_)) => {}
            }
        }
        let missing = self.wanted.keys();
        findings.extend(missing.map(|name| format!("{} is missing", what(name))));
        findings.sort_unstable();
        findings
    }
}

/// The books that the facts give keep their invariants. Each deal is in one partition, with all reference facts.
fn books(topology: &Topology, log: &dyn Log, schemas: &Schemas) -> Result<Check, Failure> {
    let mut check = Check::new("books_are_sound");
    let mut deals = 0;
    for at in log.partitions_of(&Topic::new(topology.outputs.contract_facts.as_str()))? {
        let facts = known::facts_of(log, schemas, &at)?;
        let report = Known::of(topology.settings().clone(), &[facts]).report();
        deals += report.contracts.len();
        let broken = checks::run(&report).into_iter();
        let broken = broken.map(|it| format!("{}: {}: {}", it.check, it.subject, it.detail));
        check.findings.extend(broken);
    }
    check.looked_at = format!(
        "{deals} deals, {} invariants of `accrue books verify`",
        checks::ALL.len()
    );
    Ok(check)
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
