//! The topology file: `topology.toml`, read and validated.
//!
//! Owns everything a user can set. A file becomes a [`Topology`] in three steps, and every step reports all of its
//! problems: the TOML parser, a walk over the document against the JSON Schema (`walk`), and the rules that compare
//! keys with one another (the function of each section). Invariant: a [`Topology`] refers to nothing that does not
//! exist. Nothing is read from the environment but through `${...}` in the file. Absent on purpose: reloading, and
//! any setting that no code reads.

mod budget;
mod columns;
mod document;
mod interpolate;
mod kinds;
mod leaf;
mod log;
pub mod mapping;
mod measure;
mod outputs;
mod policy;
mod problem;
mod registry;
mod runtime;
mod shape;
mod sink;
mod source;
mod tenants;
mod walk;
mod warehouse;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::de::DeTable;

pub use budget::{Budget, BudgetBasis, BudgetBy, BudgetPlace};
pub use columns::{Column, CustomerColumns, DealColumns, LineColumns, MilestoneColumns};
pub use leaf::{Brokers, HttpUrl, Listen, Name, Secret, TopicName};
pub use log::{Embedded, GroupProtocol, Judge, Kafka, Log, Properties, Unfit};
pub use mapping::{Mapping, Snapshot, Stage, TenantOf};
pub use measure::{ByteSize, Interval, Retention};
pub use outputs::Outputs;
pub use problem::Problem;
pub use registry::{Compatibility, Registry, RegistryAuth, RegistryPlace};
pub use runtime::{Http, Runtime, State};
pub use sink::{
    Accounts, Breaker, Documents, FileFormat, FileSystem, Granularity, NetSuiteSystem, OAuth, OdooSystem, OracleSystem,
    QuickBooksSystem, Sink, SinkLimits, System, TrytonSystem, XeroSystem,
};
pub use source::{Encoding, Input, Source, TableRole};
pub use warehouse::{Warehouse, WarehousePlace};

use crate::revenue::reference::Settings;
use document::Document;
use problem::{KeyPath, Problems};

/// A valid topology file.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Consumer group, and start of transactional ids and changelog topics.
    pub application_id: Name,
    pub log: Log,
    pub registry: Registry,
    pub state: State,
    pub runtime: Runtime,
    /// At least one.
    pub sources: Vec<Source>,
    pub mappings: BTreeMap<Name, Arc<Mapping>>,
    pub outputs: Outputs,
    pub sinks: BTreeMap<Name, Sink>,
    pub warehouses: BTreeMap<Name, Warehouse>,
    pub budgets: BTreeMap<Name, Budget>,
    pub http: Http,
    settings: Settings,
}

impl Topology {
    /// The tenants and their policies, for the accounting.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Reads a topology file, with `${...}` taken from the environment.
///
/// # Errors
/// Every problem of the file, in file order.
pub fn load(path: &Path) -> Result<Topology, Vec<Problem>> {
    load_with(path, &taken)
}

/// As [`load`]; `judge` says which settings the Kafka client takes.
///
/// # Errors
/// Every problem of the file, in file order.
pub fn load_with(path: &Path, judge: Judge<'_>) -> Result<Topology, Vec<Problem>> {
    let (name, text) = read(path)?;
    parse_with(&name, &text, &environment, judge)
}

/// Reads the tenants and policies of a file that may have nothing else. Other sections are checked if they are there.
///
/// # Errors
/// Every problem of the file, in file order.
pub fn load_settings(path: &Path) -> Result<Settings, Vec<Problem>> {
    let (name, text) = read(path)?;
    parse_settings(&name, &text, &environment)
}

/// Reads the text of a topology file. `file` is how problems call it; `env` answers `${NAME}`.
///
/// # Errors
/// Every problem of the file, in file order.
pub fn parse(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Topology, Vec<Problem>> {
    parse_with(file, text, env, &taken)
}

fn parse_with(
    file: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    judge: Judge<'_>,
) -> Result<Topology, Vec<Problem>> {
    let mut problems = Problems::new(file, text);
    let topology = topology(text, env, judge, &mut problems);
    if topology.as_ref().is_some_and(|topology| topology.sources.is_empty()) {
        problems.report(
            &KeyPath::of(["source"]),
            "missing, so there is nothing to read; add a [[source]]",
        );
    }
    problems.or(topology)
}

/// As [`load_settings`], from text.
///
/// # Errors
/// Every problem of the file, in file order.
pub fn parse_settings(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::new(file, text);
    let topology = topology(text, env, &taken, &mut problems);
    problems.or(topology.map(|topology| topology.settings))
}

/// The JSON Schema of a topology file, for editors.
pub fn schema() -> String {
    format!("{:#}\n", document::editor_schema())
}

/// Parser, walk, rules. `None` when a section could not be made; the problems then say why.
fn topology(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    judge: Judge<'_>,
    problems: &mut Problems<'_>,
) -> Option<Topology> {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        problems.report_syntax(offset, error.message());
    }
    let table = walk::walk(&document::walk_schema(), &parsed, env, problems);
    if problems.has_broken_syntax() {
        return None;
    }
    let Ok(document) = Document::deserialize(toml::Value::Table(table)) else {
        // The schema and the text types come from one source, so this is our mistake. serde's own words are left out:
        // they may quote a secret.
        let message = "passed the schema, but cannot be understood; please report this";
        problems.report(&KeyPath::default(), message);
        return None;
    };
    runtime::check(&document.runtime, problems);
    runtime::check_state(&document.state, problems);
    let log = log::log(document.log, document.kafka, judge, problems);
    let registry = registry::registry(document.registry, problems);
    let outputs = outputs::outputs(document.outputs, problems);
    let mappings: BTreeMap<Name, Arc<Mapping>> = document
        .mapping
        .into_iter()
        .map(|(name, text)| {
            let mapping = mapping::mapping(&name, text, problems);
            (name, Arc::new(mapping))
        })
        .collect();
    let sources = source::sources(document.source, &mappings, &outputs, problems);
    let sinks: BTreeMap<Name, Sink> = document
        .sinks
        .into_iter()
        .filter_map(|(name, text)| Some((name.clone(), sink::sink(&name, text, problems)?)))
        .collect();
    let warehouses = warehouse::warehouses(document.warehouses, problems);
    let budgets = budget::budgets(document.budgets, problems);
    let settings = tenants::settings(document.tenants, document.policies, problems);
    sink::check(&sinks, &settings, problems);
    Some(Topology {
        application_id: document.application_id,
        log: log?,
        registry: registry?,
        state: document.state,
        runtime: document.runtime,
        sources,
        mappings,
        outputs,
        sinks,
        warehouses,
        budgets,
        http: document.http,
        settings,
    })
}

fn read(path: &Path) -> Result<(String, String), Vec<Problem>> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(vec![Problem::unreadable(&name, format!("cannot be read: {error}"))]),
    }
}

/// Where no client is at hand, every setting may be one.
fn taken(_: &str, _: &str) -> Result<(), Unfit> {
    Ok(())
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
