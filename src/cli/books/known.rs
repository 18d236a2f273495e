//! The facts that the books are made of: from a file, or from `contract.facts` of a topology's log.
//!
//! Invariant: each partition of the log is folded on its own, in its order, as the stream processor does, so that both
//! come to the same books. Reference facts are in every partition; deals are in one.

mod folded;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;

pub use self::folded::{Folded, FoldedDeal};
use super::super::{Failure, connect, load, look};
use crate::codec::replay::{self, Line};
use crate::codec::schemas::Schemas;
use crate::config::{self, Topology};
use crate::observe::logs;
use crate::revenue::books::{Books, Report};
use crate::revenue::fact::{Body, Fact};
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::journal::JournalEntry;
use crate::revenue::reference::{Reference, Settings};
use crate::stream::log::{Log, LogError, read_to_end};
use crate::stream::record::{Record, Topic, TopicPartition};

/// Which facts, and as of when.
#[derive(Args)]
pub struct Given {
    /// A file of facts, one JSON object a line; `-` reads standard input. Without it: contract.facts of the log
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Tenants, policies and the log [default: topology.toml; with --events the accounting defaults]
    #[arg(long, short, env = "ACCRUE_TOPOLOGY", value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Books as of the start of this day: entries dated before it, those due by then included
    #[arg(long, value_name = "DATE")]
    as_of: Option<Date>,
    /// Only facts that had occurred by then, such as 2026-03-31T23:59:59Z
    #[arg(long, value_name = "TIMESTAMP")]
    known_at: Option<Timestamp>,
}

/// What is known.
pub struct Known {
    pub settings: Settings,
    pub as_of: Option<Date>,
    /// The lines of each partition, in their order; a file is one partition.
    partitions: Vec<Vec<Line>>,
}

impl Given {
    /// Reads all of it. Errors: a file, a topology or a log that cannot be read.
    pub fn read(&self) -> Result<Known, Failure> {
        let settings = match (&self.events, &self.topology) {
            (Some(_), None) => Settings::default(),
            (Some(_), Some(path)) => config::load_settings(path).map_err(Failure::Configuration)?,
            (None, _) => self.log_topology()?.settings().clone(),
        };
        self.read_under(settings)
    }

    /// The same under other tenants and policies.
    pub fn read_under(&self, settings: Settings) -> Result<Known, Failure> {
        logs::init("warn");
        let mut partitions = match &self.events {
            Some(events) => vec![replay::lines(open(events)?, &settings).collect()],
            None => {
                let topology = self.log_topology()?;
                let log = look::log(&topology)?;
                let (registry, _) = connect::registry(&topology)?;
                let schemas = connect::schemas(&topology, &registry)?;
                let facts = facts(log.as_ref(), &schemas, &topology)?;
                facts
                    .into_iter()
                    .map(|facts| facts.into_iter().map(Ok).collect())
                    .collect()
            }
        };
        if let Some(instant) = self.known_at {
            let known = |line: &Line| line.as_ref().is_ok_and(|fact| fact.occurred_at <= instant);
            partitions
                .iter_mut()
                .for_each(|lines: &mut Vec<Line>| lines.retain(known));
        }
        Ok(Known {
            settings,
            as_of: self.as_of,
            partitions,
        })
    }

    /// The instant after which nothing is known, where one was asked for.
    pub fn known_at(&self) -> Option<Timestamp> {
        self.known_at
    }

    /// The topology whose log the facts are in; `None` where they are in a file.
    pub fn log(&self) -> Result<Option<Topology>, Failure> {
        match self.events {
            Some(_) => Ok(None),
            None => self.log_topology().map(Some),
        }
    }

    fn log_topology(&self) -> Result<Topology, Failure> {
        let path = self.topology.as_deref().unwrap_or(Path::new("topology.toml"));
        load(path)
    }
}

/// Opens a file of events; `-` is standard input.
pub fn open(events: &Path) -> Result<Box<dyn BufRead>, anyhow::Error> {
    if events.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(events).with_context(|| format!("--events {}", events.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

impl Known {
    /// Facts of a log that were read already.
    pub fn of(settings: Settings, facts: &[Vec<Fact>]) -> Known {
        let lines = |facts: &Vec<Fact>| facts.iter().cloned().map(Ok).collect();
        Known {
            settings,
            as_of: None,
            partitions: facts.iter().map(lines).collect(),
        }
    }

    /// What had happened by the day asked for: facts that occurred on that day or later, in the tenant's days, are left out.
    ///
    /// A tick and the first rate of a day are about their day whenever they were said, since those come late: ticks up to
    /// the day asked for are in, and rates of the days before it.
    pub fn by_then(mut self) -> Known {
        let Some(day) = self.as_of else {
            return self;
        };
        let settings = &self.settings;
        let happened = |line: &Line| {
            let Ok(fact) = line else {
                return true;
            };
            match &fact.body {
                Body::ClockTicked(began) => *began <= day,
                Body::FxRate(rate) if rate.version <= 1 => rate.date < day,
                _ => {
                    let zone = settings.tenant(&fact.tenant).time_zone.clone();
                    fact.occurred_at.to_zoned_datetime(zone).date() < day
                }
            }
        };
        self.partitions.iter_mut().for_each(|lines| lines.retain(happened));
        self
    }

    /// The same facts under other tenants and policies. Days of facts that came with a time stay as they were read.
    pub fn under(&self, settings: Settings) -> Known {
        Known {
            settings,
            as_of: self.as_of,
            partitions: self.partitions.clone(),
        }
    }

    /// The tenant asked for, or the only one.
    ///
    /// Errors: no fact tells of it, or none was asked for and there is not exactly one.
    pub fn one_tenant(&self, wanted: Option<&TenantId>) -> Result<TenantId, Failure> {
        let tenants = self.tenants();
        let names = || {
            let names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
            names.join(", ")
        };
        match (wanted, tenants.first(), tenants.len()) {
            (Some(wanted), _, _) if tenants.contains(wanted) => Ok(wanted.clone()),
            (_, None, _) => Err(Failure::Usage("there are no facts yet".to_owned())),
            (Some(wanted), Some(_), _) => Err(Failure::Usage(format!(
                "no fact tells of tenant {wanted}; there are {}",
                names()
            ))),
            (None, Some(only), 1) => Ok(only.clone()),
            (None, Some(_), _) => Err(Failure::Usage(format!(
                "the facts are of several tenants; give --tenant, one of {}",
                names()
            ))),
        }
    }

    /// The books of all facts, sorted by tenant and deal; entries dated ahead of `as_of` included.
    pub fn report(&self) -> Report {
        self.report_with(&[])
    }

    /// The books of all facts and of more, said to every partition after the last one.
    pub fn report_with(&self, more: &[Fact]) -> Report {
        let mut all = Report {
            contracts: Vec::new(),
            schedule: Vec::new(),
            billing: Vec::new(),
            journals: Vec::new(),
            rejections: Vec::new(),
        };
        for lines in &self.partitions {
            let mut books = Books::new(self.settings.clone());
            for line in lines {
                match line {
                    Ok(fact) => books.fold(fact.clone()),
                    Err((event, rejection)) => books.refuse(event.clone(), rejection.clone()),
                }
            }
            more.iter().for_each(|fact| books.fold(fact.clone()));
            let report = books.finish(self.as_of);
            all.contracts.extend(report.contracts);
            all.schedule.extend(report.schedule);
            all.billing.extend(report.billing);
            all.journals.extend(report.journals);
            all.rejections.extend(report.rejections);
        }
        // Each deal is in one partition, sorted there.
        all.contracts
            .sort_by(|a, b| (&a.tenant, &a.deal).cmp(&(&b.tenant, &b.deal)));
        all.schedule
            .sort_by(|a, b| (&a.tenant, &a.deal).cmp(&(&b.tenant, &b.deal)));
        all.billing
            .sort_by(|a, b| (&a.tenant, &a.deal).cmp(&(&b.tenant, &b.deal)));
        all.journals
            .sort_by(|a, b| (&a.tenant, &a.deal).cmp(&(&b.tenant, &b.deal)));
        all.rejections
            .sort_by(|(a, x), (b, y)| (a, x.code, &x.field, &x.value).cmp(&(b, y.code, &y.field, &y.value)));
        all.rejections.dedup();
        all
    }

    /// The entries as of the day asked for; all that were issued where none was.
    pub fn journal(&self) -> Vec<JournalEntry> {
        let mut journal = self.report().journals;
        journal.retain(|entry| self.as_of.is_none_or(|day| entry.date < day));
        journal
    }

    /// The contracts of the chosen deals, partition by partition, settled as the stream processor does.
    pub fn contracts(&self, chosen: &dyn Fn(&TenantId, &DealId) -> bool) -> Vec<Folded> {
        let fold = |lines: &Vec<Line>| {
            let facts = lines.iter().filter_map(|line| line.as_ref().ok());
            Folded::of(facts, &self.settings, self.as_of, chosen)
        };
        self.partitions.iter().map(fold).collect()
    }

    /// What reference facts say, with the clock at the day asked for, even where it went on since.
    pub fn reference(&self) -> Reference {
        let mut reference = Reference::default();
        for partition in &self.partitions {
            // A close is judged by the clock of the log, wherever the day asked for puts it.
            let mut judged = Reference::default();
            for fact in partition.iter().filter_map(|line| line.as_ref().ok()) {
                // What is refused is among the rejections of the fold.
                if self.settings.learn(fact, &mut judged).is_err() {
                    continue;
                }
                if let (Body::ClockTicked(day), Some(as_of)) = (&fact.body, self.as_of)
                    && *day > as_of
                {
                    continue;
                }
                let _ = reference.learn(fact);
            }
        }
        if let Some(day) = self.as_of {
            for tenant in self.tenants() {
                reference.tick(&tenant, day);
            }
        }
        reference
    }

    /// The facts of all partitions.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.partitions.iter().flatten().filter_map(|line| line.as_ref().ok())
    }

    /// Everyone of whom a fact tells.
    pub fn tenants(&self) -> BTreeSet<TenantId> {
        self.facts().map(|fact| fact.tenant.clone()).collect()
    }
}

/// The facts of each partition of `contract.facts`, in their order.
pub fn facts(log: &dyn Log, schemas: &Schemas, topology: &Topology) -> Result<Vec<Vec<Fact>>, anyhow::Error> {
    let all = partitions(log, &Topic::new(topology.outputs.contract_facts.as_str()))?;
    all.iter().map(|at| facts_of(log, schemas, at)).collect()
}

/// The facts of one partition, in their order.
pub fn facts_of(log: &dyn Log, schemas: &Schemas, at: &TopicPartition) -> Result<Vec<Fact>, anyhow::Error> {
    let mut facts = Vec::new();
    read_to_end(log, at, log.start(at)?, |record| {
        facts.push(schemas.decode_fact(record.value.as_deref().unwrap_or_default())?);
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(facts)
}

/// The committed records of each partition of a topic, up to its end as it is now.
///
/// Errors: there is no such topic, or its end is not reached.
pub fn committed(log: &dyn Log, topic: &Topic) -> Result<Vec<Vec<Record>>, anyhow::Error> {
    let of = |at: &TopicPartition| {
        let mut records = Vec::new();
        read_to_end(log, at, log.start(at)?, |record| {
            records.push(record);
            Ok::<(), LogError>(())
        })?;
        Ok(records)
    };
    partitions(log, topic)?.iter().map(of).collect()
}

fn partitions(log: &dyn Log, topic: &Topic) -> Result<Vec<TopicPartition>, anyhow::Error> {
    let all = log.partitions_of(topic)?;
    if all.is_empty() {
        bail!("there is no topic {topic}; run `accrue apply` first, or give facts with --events");
    }
    Ok(all)
}
