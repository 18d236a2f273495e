//! `[[source]]`: a topic accrue reads, and how to understand it.
//!
//! Owns the pairing of topic, format, mapping and table. Invariant: a [`Source`] of a database has a mapping that
//! describes its table. Absent on purpose: decoding, which is the codec's.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{Name, TopicName};
use super::mapping::Mapping;
use super::outputs::Outputs;
use super::problem::{KeyPath, Problems};
use super::shape::{nearest, quoted};

/// A topic accrue reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: Name,
    pub topic: TopicName,
    pub input: Input,
}

/// What the records of a source are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Facts as JSON. Plain ones and CloudEvents, binary or structured, are told apart record by record.
    Canonical,
    /// Row changes of one table, or the transaction topic, of a Debezium connector.
    Debezium {
        encoding: Encoding,
        table: TableRole,
        mapping: Arc<Mapping>,
    },
}

/// How Debezium's records are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON with or without schemas, told apart record by record.
    Json,
    /// Avro with the registry's schema id in front.
    Avro,
}

/// What a table of the CRM holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableRole {
    /// One row for each deal.
    Deals,
    /// The lines of deals.
    DealLineItems,
    /// The customers that deals refer to.
    Customers,
    /// The milestones of lines, and when they were accepted.
    Milestones,
    /// Not a table: the transaction topic of the connector (`provide.transaction.metadata`), which says when all
    /// changes of a transaction have arrived.
    Transaction,
}

/// How the records of a topic are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// Debezium change events as JSON, with or without schemas.
    DebeziumJson,
    /// Debezium change events as Avro, with schemas in the registry.
    DebeziumAvro,
    /// Facts as JSON, plain or as CloudEvents (binary or structured).
    CanonicalJson,
}

/// A topic accrue reads.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceText {
    /// The name of this source in logs, metrics and dead letters; unique.
    name: Name,
    /// The topic; one source each.
    topic: TopicName,
    /// How its records are written.
    format: Format,
    /// The mapping that says what the columns mean. For Debezium formats only, and required there.
    mapping: Option<Name>,
    /// What the topic's table holds. For Debezium formats only, and required there.
    table: Option<TableRole>,
}

/// The sources of a file. Those with a problem are left out.
pub(super) fn sources(
    texts: Vec<SourceText>,
    mappings: &BTreeMap<Name, Arc<Mapping>>,
    outputs: &Outputs,
    problems: &mut Problems<'_>,
) -> Vec<Source> {
    let root = KeyPath::of(["source"]);
    for (index, text) in texts.iter().enumerate() {
        let at = root.index(index);
        let before = &texts[..index];
        if let Some(first) = before.iter().position(|other| other.name == text.name) {
            let message = format!("the name of source[{first}] as well; give each its own");
            problems.report(&at.key("name"), message);
        }
        if let Some(first) = before.iter().position(|other| other.topic == text.topic) {
            let message = format!("read by source[{first}] as well; keep one of the two");
            problems.report(&at.key("topic"), message);
        }
        if let Some((key, _)) = outputs.topics().iter().find(|(_, topic)| **topic == text.topic) {
            let message = format!("accrue writes this topic (outputs.{key}); read another, or rename the output");
            problems.report(&at.key("topic"), message);
        }
    }
    check_deals(&texts, &root, problems);
    texts
        .into_iter()
        .enumerate()
        .filter_map(|(index, text)| {
            let at = root.index(index);
            if problems.is_refused(&at.key("format")) {
                return None;
            }
            let input = match text.format {
                Format::CanonicalJson => canonical(&text, &at, problems),
                Format::DebeziumJson => debezium(Encoding::Json, &text, &at, mappings, problems),
                Format::DebeziumAvro => debezium(Encoding::Avro, &text, &at, mappings, problems),
            }?;
            Some(Source {
                name: text.name,
                topic: text.topic,
                input,
            })
        })
        .collect()
}

/// Lines and customers without their deals would wait for ever; said once for each mapping.
fn check_deals(texts: &[SourceText], root: &KeyPath, problems: &mut Problems<'_>) {
    for (index, text) in texts.iter().enumerate() {
        let Some(name) = &text.mapping else {
            continue;
        };
        let same = |other: &&SourceText| other.mapping.as_ref() == Some(name) && other.format != Format::CanonicalJson;
        // A table that is missing or misspelt is a problem already, and may be the deals.
        let settled = texts
            .iter()
            .filter(same)
            .any(|other| matches!(other.table, None | Some(TableRole::Deals)));
        if same(&text) && !settled && !texts[..index].iter().any(|other| same(&other)) {
            let message = format!(
                "no source reads the deals of [mapping.{name}], so nothing of it would ever settle; add a source with \
                 table = \"deals\""
            );
            problems.report(&root.index(index).key("mapping"), message);
        }
    }
}

fn canonical(text: &SourceText, at: &KeyPath, problems: &mut Problems<'_>) -> Option<Input> {
    let useless = [("mapping", text.mapping.is_some()), ("table", text.table.is_some())];
    for (key, _) in useless.iter().filter(|(_, given)| *given) {
        problems.report(
            &at.key(key),
            "only for debezium formats; remove it, or change the format",
        );
    }
    useless.iter().all(|(_, given)| !given).then_some(Input::Canonical)
}

fn debezium(
    encoding: Encoding,
    text: &SourceText,
    at: &KeyPath,
    mappings: &BTreeMap<Name, Arc<Mapping>>,
    problems: &mut Problems<'_>,
) -> Option<Input> {
    let names = || mappings.keys().map(Name::as_str);
    if text.mapping.is_none() {
        let message = "missing, and the format is a debezium one; write the NAME of a [mapping.NAME]";
        problems.report(&at.key("mapping"), message);
    }
    if text.table.is_none() {
        let message = "missing, and the format is a debezium one; write what the table holds, such as \"deals\"";
        problems.report(&at.key("table"), message);
    }
    let (name, table) = (text.mapping.as_ref()?, text.table?);
    let Some(mapping) = mappings.get(name) else {
        // A mapping that is there with problems of its own is no second problem here.
        if !problems.has(&KeyPath::of(["mapping", name.as_str()])) {
            let shown = problems.shown(&at.key("mapping"), name.as_str());
            let message = match nearest(name.as_str(), names()) {
                Some(near) => format!("there is no [mapping.{shown}]; did you mean {near:?}?"),
                None if mappings.is_empty() => format!("there is no [mapping.{shown}]; add it"),
                None => format!(
                    "there is no [mapping.{shown}]; add it, or write one of {}",
                    quoted(names())
                ),
            };
            problems.report(&at.key("mapping"), message);
        }
        return None;
    };
    if let Some(missing) = mapping.lacks(table) {
        let message = format!("[mapping.{name}] does not describe this table; add [mapping.{name}.{missing}]");
        problems.report(&at.key("table"), message);
        return None;
    }
    Some(Input::Debezium {
        encoding,
        table,
        mapping: Arc::clone(mapping),
    })
}
