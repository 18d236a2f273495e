//! The ladder: the contract stage taken apart, each rung one more of its costs.
//!
//! ```text
//! consume     read the facts, commit their offsets
//! copy        + write the records of the four output topics, as made before
//! changelog   + write the store's changelog: all that Kafka costs, the ceiling
//! store       + read and write the contract in the overlay and RocksDB
//! decode      + Avro of the fact and of the stored contract, both ways
//! domain      the stage itself: + the accounting, and Avro and headers of the outputs
//! ```
//!
//! Invariant: a rung writes as many records of the same sizes as the stage does, because what it writes was made by the
//! stage ([`templates`]), for so many deals that compression finds no more in it than in the stage's own. Deliberately
//! absent: measuring, which is done from outside the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use accrue::codec::contract_store::{self, Paged};
use accrue::codec::registry::Embedded;
use accrue::codec::schemas::Schemas;
use accrue::config;
use accrue::pipeline::{self, contract};
use accrue::revenue::contract::Contract;
use accrue::stream::app::{self, Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Cleanup, Log, LogError, TopicSpec, read_to_end};
use accrue::stream::metrics::Metrics;
use accrue::stream::processor::{Context, Emission, Failure, Processor, Progress, Route};
use accrue::stream::record::{Header, Offset, Partition, Record, Topic, TopicPartition};
use accrue::stream::topology::{ProcessorFactory, Topology};
use anyhow::{Context as _, Result, bail};

use crate::workload::{self, Workload};

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    Consume,
    Copy,
    Changelog,
    Store,
    Decode,
    Domain,
}

/// The names of one side of the comparison: its application, and topics that start with `<prefix>.`.
pub fn settings(prefix: &str) -> Result<config::Topology> {
    let text = format!(
        "application_id = \"{prefix}\"\n[outputs]\nprefix = \"{prefix}.\"\n[[source]]\nname = \"events\"\n\
         topic = \"{prefix}.events\"\nformat = \"canonical-json\"\n"
    );
    config::parse("bench", &text, &|_| None)
        .map_err(|problems| anyhow::anyhow!("the bench's own topology: {problems:?}"))
}

/// The contract stage without the stages before it, reading `input`.
pub fn stage(settings: &config::Topology, schemas: Arc<Schemas>, input: &Topic) -> Result<Topology> {
    let mut topology = pipeline::build(settings, schemas)?;
    let at = topology
        .shape
        .subs
        .iter()
        .position(|sub| sub.name == "contract")
        .context("there is no contract stage")?;
    let mut sub = topology.shape.subs.swap_remove(at);
    sub.sources = vec![input.clone()];
    topology.processors = vec![topology.processors.swap_remove(at)];
    topology.shape.subs = vec![sub];
    Ok(topology)
}

/// The topics of the stage that reads `input`, without `input` itself. Outputs are not compacted: that would drop records of the
/// one side or the other before they are compared.
pub fn topics(settings: &config::Topology, topology: &Topology, partitions: u32) -> Vec<TopicSpec> {
    let (written, layout) = (topology.shape.written(), &topology.shape.layout);
    let outputs: Vec<&Topic> = topology.shape.subs.iter().flat_map(|sub| &sub.sinks).collect();
    let specs = pipeline::topics(settings).into_iter();
    specs
        .filter(|spec| written.contains(&spec.topic) || spec.topic == *layout)
        .map(|spec| TopicSpec {
            partitions: if spec.topic == *layout { 1 } else { partitions },
            replication_factor: 1,
            cleanup: match outputs.contains(&&spec.topic) {
                true => Cleanup::Delete { retention: None },
                false => spec.cleanup,
            },
            ..spec
        })
        .collect()
}

/// The stage as far as a rung goes.
pub fn rung(rung: Rung, mut topology: Topology, schemas: Arc<Schemas>, workload: &Workload) -> Result<Topology> {
    if rung == Rung::Domain {
        return Ok(topology);
    }
    let templates = Arc::new(templates(workload)?);
    let sub = &mut topology.shape.subs[0];
    let outputs = sub.sinks.clone();
    let changelog = sub.stores[0].changelog.clone();
    match rung {
        Rung::Consume | Rung::Copy => sub.stores.clear(),
        Rung::Changelog => {
            sub.stores.clear();
            sub.sinks.push(changelog.clone());
        }
        Rung::Store | Rung::Decode | Rung::Domain => {}
    }
    let factory: ProcessorFactory = Arc::new(move || {
        Box::new(Partial {
            rung,
            schemas: schemas.clone(),
            outputs: outputs.clone(),
            changelog: changelog.clone(),
            templates: templates.clone(),
        })
    });
    topology.processors = vec![factory];
    Ok(topology)
}

pub fn runtime_config(state_dir: &Path) -> RuntimeConfig {
    RuntimeConfig {
        threads: 1,
        state_dir: state_dir.to_owned(),
        memory: Budget::of(256 << 20),
        commit_interval: Duration::from_millis(100),
        max_records_per_commit: 10_000,
        overlay_max_bytes: 64 << 20,
        ask_ends_after: Duration::from_millis(100),
        restore_threads: 2,
        standbys: false,
        instance: None,
    }
}

/// Deals that templates are made for: what is written for so many is more than lz4 looks back over (64 KiB).
const TEMPLATES: u64 = 128;

/// What the stage writes for one fact.
#[derive(Default)]
struct Template {
    /// In the order of emission; the number is that of the output topic.
    emitted: Vec<(usize, Vec<u8>, Vec<Header>)>,
    /// Changelog records: key without the deal's own, value.
    stored: Vec<(Vec<u8>, Vec<u8>)>,
    contract: Option<Contract>,
}

/// Runs the stage once on the embedded log, over some closes and then their amendments, and keeps what it wrote for each.
fn templates(workload: &Workload) -> Result<[Vec<Template>; 2]> {
    let dir = tempfile::tempdir()?;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), false)?);
    let settings = settings("template")?;
    let registry = Arc::new(Embedded::open(&dir.path().join("registry"))?);
    let schemas = Arc::new(pipeline::schemas(&settings, registry)?);
    let input = Topic::new("template.facts");
    let topology = stage(&settings, schemas.clone(), &input)?;
    let mut specs = topics(&settings, &topology, 1);
    specs.push(TopicSpec {
        topic: input.clone(),
        ..specs[0].clone()
    });
    log.create_topics(&specs)?;
    let shape = topology.shape.clone();
    let runtime = Runtime::start(
        topology,
        log.clone(),
        runtime_config(&dir.path().join("state")),
        Metrics::new(&prometheus::Registry::new())?,
    )?;

    let changelog = shape.subs[0].stores[0].changelog.clone();
    let written: Vec<Topic> = shape.subs[0].sinks.iter().chain([&changelog]).cloned().collect();
    let mut read = vec![Offset(0); written.len()];
    let mut rounds = Vec::new();
    for (round, facts) in workload.rounds(TEMPLATES)?.iter().enumerate() {
        workload::load_round(log.as_ref(), &schemas, &input, round == 0, facts)?;
        while app::lag(&shape, log.as_ref())? > 0 {
            if runtime.is_finished() {
                bail!("the stage ended while the templates were made");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut by_deal: BTreeMap<Vec<u8>, Template> = BTreeMap::new();
        for (topic, written) in written.iter().enumerate() {
            let at = TopicPartition::new(written, Partition(0));
            read_to_end(log.as_ref(), &at, read[topic], |record| {
                read[topic] = record.offset.next();
                let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
                // Keys of outputs and of the store end with `/<deal>`.
                let deal = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
                match *written == changelog {
                    true if key.starts_with(b"c ") || key.starts_with(b"u ") => {
                        by_deal.entry(deal).or_default().stored.push((key, value));
                    }
                    true => {}
                    false => by_deal
                        .entry(deal)
                        .or_default()
                        .emitted
                        .push((topic, value, record.headers)),
                }
                Ok::<(), LogError>(())
            })?;
        }
        let mut templates = Vec::new();
        for mut template in by_deal.into_values() {
            let stored = template.stored.iter().find(|(key, _)| key.starts_with(b"c "));
            let (_, stored) = stored.context("the stage stored no contract")?;
            let (contract, pages) = contract_store::decode(stored).map_err(|refused| anyhow::anyhow!("{refused}"))?;
            anyhow::ensure!(
                pages == 0,
                "the ladder has no rung for pages; its contracts have to be shorter"
            );
            template.contract = Some(contract);
            templates.push(template);
        }
        anyhow::ensure!(templates.len() as u64 == TEMPLATES, "a template for each deal");
        rounds.push(templates);
    }
    runtime.stop();
    runtime.join()?;
    let (amended, closed) = (rounds.pop(), rounds.pop());
    Ok([closed.context("no closes")?, amended.context("no amendments")?])
}

/// The stage up to a rung.
struct Partial {
    rung: Rung,
    schemas: Arc<Schemas>,
    outputs: Vec<Topic>,
    changelog: Topic,
    templates: Arc<[Vec<Template>; 2]>,
}

impl Processor for Partial {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let templates = match record.header("ce_type") {
            Some(b"deal.closed") => &self.templates[0],
            Some(b"deal.amended") => &self.templates[1],
            _ => return Ok(Progress::Done),
        };
        let template = &templates[record.offset.0 as usize % templates.len()];
        let key = record.key.clone().unwrap_or_default();
        if self.rung >= Rung::Decode {
            self.schemas.decode_fact(record.value.as_deref().unwrap_or_default())?;
        }
        if self.rung >= Rung::Store {
            if let Some(old) = cx.get(contract::STORE, &[b"c ", key.as_slice()].concat())?
                && self.rung >= Rung::Decode
            {
                contract_store::decode(&old)?;
            }
            for (stored, value) in &template.stored {
                let value = match &template.contract {
                    Some(contract) if self.rung >= Rung::Decode && !value.is_empty() => {
                        contract_store::encode(contract, Paged::default())?
                    }
                    Some(_) | None => value.clone(),
                };
                cx.put(contract::STORE, store_key(stored, &key), value)?;
            }
        }
        if self.rung >= Rung::Copy {
            for (topic, value, headers) in &template.emitted {
                cx.emit(emission(record, &self.outputs[*topic], key.clone(), value, headers))?;
            }
        }
        if self.rung == Rung::Changelog {
            for (stored, value) in &template.stored {
                cx.emit(emission(record, &self.changelog, store_key(stored, &key), value, &[]))?;
            }
        }
        Ok(Progress::Done)
    }
}

/// A template's key for another deal: `c <tenant>/<deal>` or `u <tenant>/<day>/<deal>`.
fn store_key(template: &[u8], key: &[u8]) -> Vec<u8> {
    let keep = match template.first() {
        Some(b'u') => template.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1),
        _ => return [b"c ", key].concat(),
    };
    let deal = key.iter().position(|byte| *byte == b'/').map_or(0, |at| at + 1);
    [&template[..keep], &key[deal..]].concat()
}

fn emission(input: &Record, topic: &Topic, key: Vec<u8>, value: &[u8], headers: &[Header]) -> Emission {
    Emission {
        topic: topic.clone(),
        // The input's key decides, as it does for the stage's outputs and its changelog.
        route: Route::To(input.at.partition),
        timestamp: input.timestamp,
        key: Some(key),
        value: Some(value.to_vec()),
        headers: headers.to_vec(),
    }
}
