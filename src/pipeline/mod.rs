//! The stages: what the CRM says, what happened, what it means for the books.
//!
//! ```text
//! sources --> rekey --> crm.changes --> canonicalize --> deal.canonical
//!                                            |
//!                                            `--> contract.facts --> contract --> contract.state, recognition.schedule,
//!                                                                                 billing.schedule, journal.entries
//! ```
//!
//! In reading order: [`rekey`], [`picture`], [`canonicalize`], [`contract`], `kept`, [`emit`]; then [`dead_letters`],
//! [`replays`] and [`queries`].
//!
//! Owns: which topics and stores there are, and the binding of the accounting and the codec to the runtime.
//! Invariant: a stage decides by its input record and its store alone.
//! Absent: accounting rules (`revenue`), bytes (`codec`), transactions (`stream`).

pub mod canonicalize;
pub mod contract;
pub mod dead_letters;
pub mod emit;
mod kept;
pub mod picture;
pub mod queries;
pub mod rekey;
pub mod replays;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::registry::{Compatibility, Registry, RegistryError, Subject};
use crate::codec::schemas::{Product, Schemas};
use crate::config::{self, Retention, TopicName};
use crate::stream::log::{Cleanup, TopicSpec};
use crate::stream::record::{Header, Topic};
use crate::stream::topology::{
    DeadLetterEncoder, ProcessorFactory, Shape, StoreSpec, SubTopology, Topology, TopologyError,
};

/// What reads and writes what, under a configuration.
pub fn shape(topology: &config::Topology) -> Result<Shape, TopologyError> {
    let out = &topology.outputs;
    let application = topology.application_id.as_str();
    let store = |name: &str| StoreSpec {
        name: name.to_owned(),
        changelog: Shape::changelog(application, name),
    };
    let subs = vec![
        SubTopology {
            name: "rekey".to_owned(),
            sources: topology.sources.iter().map(|source| topic(&source.topic)).collect(),
            stores: Vec::new(),
            sinks: vec![topic(&out.crm_changes)],
        },
        SubTopology {
            name: "canonicalize".to_owned(),
            sources: vec![topic(&out.crm_changes)],
            stores: vec![store(canonicalize::STORE)],
            sinks: vec![topic(&out.deal_canonical), topic(&out.contract_facts)],
        },
        SubTopology {
            name: "contract".to_owned(),
            sources: vec![topic(&out.contract_facts)],
            stores: vec![store(contract::STORE)],
            sinks: vec![
                topic(&out.contract_state),
                topic(&out.recognition_schedule),
                topic(&out.billing_schedule),
                topic(&out.journal_entries),
            ],
        },
    ];
    let keyed = subs[1].sinks.iter().chain(&subs[2].sinks).cloned().collect();
    Ok(Shape {
        keyed,
        ..Shape::new(application, subs, topic(&out.dead_letters))?
    })
}

/// The stream application.
pub fn build(topology: &config::Topology, schemas: Arc<Schemas>) -> Result<Topology, TopologyError> {
    let out = &topology.outputs;
    let settings = Arc::new(topology.settings().clone());
    let sources: BTreeMap<Topic, config::Source> = topology
        .sources
        .iter()
        .map(|source| (topic(&source.topic), source.clone()))
        .collect();
    let sources = Arc::new(sources);
    let mappings = Arc::new(canonicalize::Mappings::new(&topology.sources));
    let outputs = Arc::new(contract::Outputs {
        state: topic(&out.contract_state),
        recognition: topic(&out.recognition_schedule),
        billing: topic(&out.billing_schedule),
        journal: topic(&out.journal_entries),
    });
    let (changes, canonical, facts) = (
        topic(&out.crm_changes),
        topic(&out.deal_canonical),
        topic(&out.contract_facts),
    );

    let rekey: ProcessorFactory = {
        let (schemas, settings) = (schemas.clone(), settings.clone());
        Arc::new(move || {
            Box::new(rekey::Rekey::new(
                schemas.clone(),
                settings.clone(),
                sources.clone(),
                changes.clone(),
            ))
        })
    };
    let canonicalize: ProcessorFactory = {
        let (schemas, settings) = (schemas.clone(), settings.clone());
        Arc::new(move || {
            Box::new(canonicalize::Canonicalize::new(
                schemas.clone(),
                settings.clone(),
                mappings.clone(),
                canonical.clone(),
                facts.clone(),
            ))
        })
    };
    let contract: ProcessorFactory = {
        let schemas = schemas.clone();
        Arc::new(move || {
            Box::new(contract::ContractStage::new(
                schemas.clone(),
                settings.clone(),
                outputs.clone(),
            ))
        })
    };
    Topology::new(
        shape(topology)?,
        vec![rekey, canonicalize, contract],
        dead_letters(schemas),
    )
}

/// How a record that cannot be processed is written to the dead letters.
pub fn dead_letters(schemas: Arc<Schemas>) -> DeadLetterEncoder {
    Arc::new(move |letter| {
        let written = emit::incoming(letter.record, |record| {
            schemas.encode_dead_letter(
                record,
                letter.record.timestamp.0,
                letter.stage,
                &letter.rejected.code,
                &letter.rejected.message,
            )
        });
        let headers = written
            .headers
            .into_iter()
            .map(|(name, value)| Header::new(name, value))
            .collect();
        (written.key, written.value, headers)
    })
}

/// Every topic that `accrue apply` makes, sources included where a single process stands for the platform.
pub fn topics(topology: &config::Topology) -> Vec<TopicSpec> {
    let (out, application) = (&topology.outputs, topology.application_id.as_str());
    let partitions = u32::from(topology.runtime.partitions);
    let replication_factor = topology.runtime.replication_factor.map_or(-1, i32::from);
    let spec = |topic: Topic, partitions: u32, cleanup: Cleanup| TopicSpec {
        topic,
        partitions,
        replication_factor,
        cleanup,
    };
    let keep = |retention: &Retention| Cleanup::Delete {
        retention: match retention {
            Retention::Forever => None,
            Retention::For(interval) => Some(interval.get()),
        },
    };
    let mut specs = Vec::new();
    for source in &topology.sources {
        // A source of one partition keeps the order of what it holds; Debezium's own topics have one by default.
        specs.push(spec(topic(&source.topic), 1, Cleanup::Delete { retention: None }));
    }
    for (name, product) in out.topics() {
        let cleanup = match name {
            // Each record is all of what stands for its deal.
            "contract_state" | "recognition_schedule" | "billing_schedule" => Cleanup::Compact,
            "dead_letters" => keep(&out.dead_letter_retention),
            _ => keep(&out.retention),
        };
        specs.push(spec(topic(product), partitions, cleanup));
    }
    for store in [canonicalize::STORE, contract::STORE] {
        specs.push(spec(Shape::changelog(application, store), partitions, Cleanup::Compact));
    }
    for one in [Shape::owners(application), Shape::layout(application)] {
        specs.push(spec(one, 1, Cleanup::Compact));
    }
    specs
}

/// Every subject with the compatibility it is registered under: the public topic's own, and for the others what the
/// configuration says.
pub fn subjects(topology: &config::Topology) -> Vec<(Subject, Compatibility)> {
    Product::ALL
        .into_iter()
        .map(|product| {
            (
                Subject::value_of(product_topic(topology, product).as_str()),
                compatibility(topology, product),
            )
        })
        .collect()
}

fn compatibility(topology: &config::Topology, product: Product) -> Compatibility {
    match (product.compatibility(), topology.registry.compatibility) {
        (Compatibility::FullTransitive, _) => Compatibility::FullTransitive,
        (_, config::Compatibility::Backward) => Compatibility::Backward,
        (_, config::Compatibility::BackwardTransitive) => Compatibility::BackwardTransitive,
        (_, config::Compatibility::Full) => Compatibility::Full,
        (_, config::Compatibility::FullTransitive) => Compatibility::FullTransitive,
    }
}

/// Registers the schemas of all topics we write.
pub fn schemas(topology: &config::Topology, registry: Arc<dyn Registry>) -> Result<Schemas, RegistryError> {
    Schemas::register_at(
        registry,
        |product| product_topic(topology, product).as_str().to_owned(),
        |product| compatibility(topology, product),
    )
}

/// The topic that has a product.
pub fn product_topic(topology: &config::Topology, product: Product) -> &TopicName {
    let out = &topology.outputs;
    match product {
        Product::DealCanonical => &out.deal_canonical,
        Product::ContractFacts => &out.contract_facts,
        Product::ContractState => &out.contract_state,
        Product::RecognitionSchedule => &out.recognition_schedule,
        Product::BillingSchedule => &out.billing_schedule,
        Product::JournalEntries => &out.journal_entries,
        Product::DeadLetters => &out.dead_letters,
        Product::CrmChanges => &out.crm_changes,
        Product::Receipts => &out.receipts,
        Product::Tickets => &out.tickets,
        Product::SinkCommands => &out.sink_commands,
    }
}

fn topic(name: &TopicName) -> Topic {
    Topic::new(name.as_str())
}
