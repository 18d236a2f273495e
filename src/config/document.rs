//! The whole file as text: every section, before anything was compared with anything.
//!
//! Owns the list of sections and, through their doc comments, the JSON Schema that editors show. Invariant: what the
//! walk lets through deserialises into [`Document`]. Absent on purpose: meaning.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::budget::BudgetText;
use super::leaf::Name;
use super::log::{KafkaText, LogText};
use super::mapping::MappingText;
use super::outputs::OutputsText;
use super::policy::PolicyText;
use super::registry::RegistryText;
use super::runtime::{Http, Runtime, State};
use super::sink::SinkText;
use super::source::SourceText;
use super::tenants::{TenantName, TenantText};
use super::warehouse::WarehouseText;

/// Accrue topology: what is read, what it means, whose books it goes to, and where everything runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "topology.toml")]
pub(super) struct Document {
    /// The name of this installation: its consumer group, and the start of its transactional ids and changelog topics.
    /// A new name starts from the beginning of the sources, and is refused where the outputs have records of another.
    pub application_id: Name,
    pub log: LogText,
    pub kafka: KafkaText,
    pub registry: RegistryText,
    pub state: State,
    pub runtime: Runtime,
    pub source: Vec<SourceText>,
    /// By name, for `source.mapping`.
    #[schemars(extend("propertyNames" = name_shape()))]
    pub mapping: BTreeMap<Name, MappingText>,
    /// By name, for `tenants.NAME.policy`. The one called `default` is the policy of tenants that name none.
    #[schemars(extend("propertyNames" = name_shape()))]
    pub policies: BTreeMap<Name, PolicyText>,
    /// By tenant id. A tenant that is not listed gets the defaults.
    #[schemars(extend("propertyNames" = tenant_shape()))]
    pub tenants: BTreeMap<TenantName, TenantText>,
    pub outputs: OutputsText,
    /// By name, for `accrue sink NAME`: where documents of the books are delivered.
    #[schemars(extend("propertyNames" = name_shape()))]
    pub sinks: BTreeMap<Name, SinkText>,
    /// By name, for `accrue warehouse NAME`.
    #[schemars(extend("propertyNames" = name_shape()))]
    pub warehouses: BTreeMap<Name, WarehouseText>,
    /// By name, for `accrue budget NAME`.
    #[schemars(extend("propertyNames" = name_shape()))]
    pub budgets: BTreeMap<Name, BudgetText>,
    pub http: Http,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            application_id: Name::literal("accrue"),
            log: LogText::default(),
            kafka: KafkaText::default(),
            registry: RegistryText::default(),
            state: State::default(),
            runtime: Runtime::default(),
            source: Vec::new(),
            mapping: BTreeMap::new(),
            policies: BTreeMap::new(),
            tenants: BTreeMap::new(),
            outputs: OutputsText::default(),
            sinks: BTreeMap::new(),
            warehouses: BTreeMap::new(),
            budgets: BTreeMap::new(),
            http: Http::default(),
        }
    }
}

fn name_shape() -> schemars::Schema {
    Name::json_schema(&mut SchemaSettings::draft07().into_generator())
}

fn tenant_shape() -> schemars::Schema {
    TenantName::json_schema(&mut SchemaSettings::draft07().into_generator())
}

/// The schema that drives the walk. Draft 7, which every TOML editor reads.
pub(super) fn walk_schema() -> Json {
    let settings = SchemaSettings::draft07().with(|settings| {
        // Before the draft's own transforms, which move what stands beside a `$ref`.
        settings
            .transforms
            .insert(0, Box::new(RecursiveTransform(without_null)));
    });
    settings.into_generator().into_root_schema_for::<Document>().to_value()
}

/// The schema for editors: the same, except that a choice may also be left to `${...}`.
pub(super) fn editor_schema() -> Json {
    let mut schema = walk_schema();
    open_choices(&mut schema);
    schema
}

/// TOML has no null: an optional key is left out.
fn without_null(schema: &mut schemars::Schema) {
    if schema.get("default").is_some_and(Json::is_null) {
        schema.remove("default");
    }
    if let Some(Json::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Json::Array(alternatives)) = schema.get_mut("anyOf") {
        alternatives.retain(|alternative| alternative.get("type") != Some(&json!("null")));
        if let [Json::Object(only)] = alternatives.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
}

fn open_choices(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::Array(choices)) = map.get_mut("oneOf") {
                choices.push(json!({"type": "string", "pattern": r"\$\{"}));
            }
            map.values_mut().for_each(open_choices);
        }
        Json::Array(items) => items.iter_mut().for_each(open_choices),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}
