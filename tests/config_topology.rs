//! What a right topology file becomes, and what is shipped with the project.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use accrue::config::{
    self, Column, Compatibility, Encoding, Input, Log, RegistryPlace, Retention, Snapshot, Stage, TableRole, TenantOf,
    Topology,
};
use accrue::revenue::fact::{BillingCycle, Method};
use accrue::revenue::ids::TenantId;
use accrue::revenue::period::{FiscalCalendar, YearEnd};
use accrue::revenue::policy::{BillingTiming, Policy, Rounding, StraightLine};
use serde_json::Value as Json;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn parse(text: &str, env: &[(&str, &str)]) -> Topology {
    let lookup = |name: &str| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    config::parse("topology.toml", text, &lookup)
        .unwrap_or_else(|problems| panic!("{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>()))
}

fn revealed(kafka: &config::Kafka) -> Vec<(&str, &str)> {
    kafka
        .properties
        .iter()
        .map(|(name, value)| (name, value.reveal()))
        .collect()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a tenant id")
}

#[test]
fn the_shipped_file_runs_alone_by_default() {
    let topology = parse(&read("topology.toml"), &[]);
    assert_eq!(topology.application_id.as_str(), "accrue");
    match &topology.log {
        Log::Embedded(embedded) => {
            assert_eq!(embedded.dir, Path::new("data/log"));
            assert!(embedded.sync);
        }
        Log::Kafka(kafka) => panic!("{kafka:?}"),
    }
    assert!(matches!(&topology.registry.place, RegistryPlace::Embedded { dir } if dir == Path::new("data/registry")));
    assert_eq!(topology.registry.compatibility, Compatibility::Backward);
    assert_eq!(topology.runtime.commit_interval.get(), Duration::from_millis(100));
    assert_eq!(topology.state.memory_budget.bytes(), 512 << 20);
    assert_eq!(topology.outputs.retention, Retention::Forever);
    assert_eq!(topology.outputs.dead_letters.as_str(), "accrue.dead-letters");
    let roles: Vec<(&str, Option<TableRole>)> = topology
        .sources
        .iter()
        .map(|source| {
            let role = match &source.input {
                Input::Debezium {
                    table,
                    encoding: Encoding::Json,
                    ..
                } => Some(*table),
                Input::Debezium {
                    encoding: Encoding::Avro,
                    ..
                } => panic!("{source:?}"),
                Input::Canonical => None,
            };
            (source.topic.as_str(), role)
        })
        .collect();
    assert_eq!(
        roles,
        [
            ("crm.public.deals", Some(TableRole::Deals)),
            ("crm.public.deal_line_items", Some(TableRole::DealLineItems)),
            ("crm.public.customers", Some(TableRole::Customers)),
            ("crm.public.milestones", Some(TableRole::Milestones)),
            ("crm.transaction", Some(TableRole::Transaction)),
            ("deal.events", None),
            ("reference.facts", None),
        ]
    );
    // The file writes the default policy out; it must say what an empty one would.
    let settings = topology.settings();
    assert_eq!(settings.tenant(&tenant("acme-corp")).policy, Policy::default());
    assert_eq!(settings.default.policy, Policy::default());
}

#[test]
fn the_shipped_file_runs_on_a_cluster_by_environment() {
    let topology = parse(
        &read("topology.toml"),
        &[
            ("ACCRUE_LOG", "kafka"),
            ("KAFKA_BOOTSTRAP", "kafka-1:9092,kafka-2:9092"),
            ("ACCRUE_INSTANCE_ID", "accrue-0"),
            ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
            ("KAFKA_SASL_USERNAME", "accrue"),
            ("KAFKA_SASL_PASSWORD", "secret"),
            ("ACCRUE_REGISTRY", "confluent"),
            ("REGISTRY_URL", "http://registry:8080/apis/ccompat/v7"),
            ("ACCRUE_TOPIC_PREFIX", "finance."),
            ("CRM_FORMAT", "debezium-avro"),
        ],
    );
    let Log::Kafka(kafka) = &topology.log else {
        panic!("{:?}", topology.log);
    };
    assert_eq!(kafka.bootstrap_servers.as_str(), "kafka-1:9092,kafka-2:9092");
    assert_eq!(kafka.instance_id.as_ref().map(config::Name::as_str), Some("accrue-0"));
    // What is empty in the environment is not set at all: librdkafka would refuse an empty location.
    assert_eq!(
        revealed(kafka),
        [
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.password", "secret"),
            ("sasl.username", "accrue"),
            ("security.protocol", "sasl_ssl"),
        ]
    );
    assert_eq!(
        kafka.properties.shown().find(|(name, _)| *name == "sasl.password"),
        Some(("sasl.password", "***"))
    );
    assert!(
        matches!(&topology.registry.place, RegistryPlace::Confluent { url, .. } if url.as_str() == "http://registry:8080/apis/ccompat/v7")
    );
    assert_eq!(topology.outputs.journal_entries.as_str(), "finance.journal.entries");
    assert!(matches!(
        &topology.sources[0].input,
        Input::Debezium {
            encoding: Encoding::Avro,
            ..
        }
    ));
}

const MINIMAL: &str = r#"
    [[source]]
    name = "deals"
    topic = "crm.deals"
    format = "debezium-json"
    mapping = "crm"
    table = "deals"

    [mapping.crm]
    tenant = "acme-corp"
    currency = "EUR"
    decimal_scale = 2
    snapshot = "baseline"
    stages = { "Closed Won" = "closed", "Renewed" = "renewed" }
    line_types = { "SaaS Seat" = "subscription" }
    billing_cycles = { "p.a." = "annual" }
    methods = { linear = "straight_line" }
    deal = { id = "id", stage = "stage", amount = { column = "total", scale = 4 }, contract_start = "start", term_months = "months" }
    line = { id = "id", deal_id = "deal", amount = "amount" }

    [kafka.properties]
    sasl.mechanism = "PLAIN"
    linger.ms = 5
    enable.ssl.certificate.verification = true
"#;

#[test]
fn a_mapping_translates_the_words_and_columns_of_the_crm() {
    let topology = parse(MINIMAL, &[("", "")]);
    let [(_, mapping)] = topology.mappings.iter().collect::<Vec<_>>()[..] else {
        panic!("{:?}", topology.mappings);
    };
    assert_eq!(mapping.stage("Closed Won"), Stage::Closed);
    assert_eq!(mapping.stage("Renewed"), Stage::Renewed);
    assert_eq!(mapping.stage("closed won"), Stage::Ignore);
    let line_type = |crm| mapping.line_type(crm).map(|kind| kind.to_string());
    assert_eq!(line_type(Some("SaaS Seat")).as_deref(), Some("subscription"));
    assert_eq!(line_type(Some("setup")).as_deref(), Some("setup"));
    assert_eq!(line_type(Some("Set up")), None);
    assert_eq!(line_type(None), None);
    assert_eq!(mapping.billing_cycle("p.a."), Some(BillingCycle::Annual));
    assert_eq!(mapping.billing_cycle("quarterly"), Some(BillingCycle::Quarterly));
    assert_eq!(mapping.billing_cycle("sometimes"), None);
    assert_eq!(mapping.method("linear"), Some(Method::StraightLine));
    assert_eq!(mapping.method("point_in_time"), Some(Method::PointInTime));
    assert_eq!(mapping.snapshot, Snapshot::Baseline);
    assert_eq!(mapping.settle_timeout.get(), Duration::from_secs(600));
    assert_eq!(mapping.tenant, TenantOf::Fixed(tenant("acme-corp")));
    assert_eq!(
        mapping.deal.amount,
        Column {
            name: "total".to_owned(),
            scale: Some(4)
        }
    );
    assert_eq!(mapping.scale(&mapping.deal.amount), Some(4));
    assert_eq!(mapping.scale(&mapping.deal.id), Some(2));
    assert_eq!(
        mapping.columns(TableRole::Deals),
        ["id", "stage", "total", "start", "months"]
    );
    assert_eq!(mapping.columns(TableRole::Milestones), Vec::<&str>::new());

    let shipped = parse(&read("topology.toml"), &[]);
    let (_, mapping) = shipped.mappings.iter().next().expect("one mapping");
    assert_eq!(mapping.tenant, TenantOf::Column("tenant_id".to_owned()));
    assert!(mapping.columns(TableRole::Customers).contains(&"tenant_id"));
    assert_eq!(
        mapping.line_type(None).map(|kind| kind.to_string()).as_deref(),
        Some("subscription")
    );
}

#[test]
fn kafka_properties_may_be_written_with_or_without_quotes() {
    let text = MINIMAL.replace(
        "[kafka.properties]",
        "[log]\nkind = \"kafka\"\n[kafka]\nbootstrap_servers = \"k:1\"\n[kafka.properties]",
    );
    let topology = parse(&text, &[]);
    let Log::Kafka(kafka) = &topology.log else {
        panic!("{:?}", topology.log);
    };
    assert_eq!(
        revealed(kafka),
        [
            ("enable.ssl.certificate.verification", "true"),
            ("linger.ms", "5"),
            ("sasl.mechanism", "PLAIN")
        ]
    );
}

#[test]
fn settings_need_nothing_but_tenants_and_policies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("books.toml");
    let text = r#"
        [tenants.acme-corp]
        functional_currency = "USD"
        time_zone = "America/New_York"
        policy = "daily"
        fiscal_calendar = { pattern = "5-4-4", year_end_month = 1, year_end_weekday = "friday", year_end = "nearest_month_end" }

        [tenants.globex]
        fiscal_calendar = "4-4-5"

        [policies.daily]
        straight_line = "daily"
        rounding = "largest_remainder"

        [policies.default]
        billing = "in_arrears"
    "#;
    fs::write(&path, text).expect("written");
    let settings = config::load_settings(&path).expect("valid");
    let acme = settings.tenant(&tenant("acme-corp"));
    assert_eq!(
        acme.functional_currency.map(|c| c.code().to_owned()).as_deref(),
        Some("USD")
    );
    assert_eq!(acme.time_zone.iana_name(), Some("America/New_York"));
    assert_eq!(acme.policy.name, "daily");
    assert_eq!(acme.policy.straight_line, StraightLine::Daily);
    assert_eq!(acme.policy.rounding, Rounding::LargestRemainder);
    assert_eq!(acme.policy.billing, BillingTiming::InAdvance);
    assert!(matches!(
        acme.fiscal,
        FiscalCalendar::Weeks {
            pattern: [5, 4, 4],
            year_end_month: 1,
            year_end: YearEnd::NearestMonthEnd,
            ..
        }
    ));
    // A tenant that names no policy, and one that is not listed, have the one called default.
    let globex = settings.tenant(&tenant("globex"));
    assert_eq!(globex.fiscal, FiscalCalendar::FOUR_FOUR_FIVE);
    assert_eq!(globex.policy.billing, BillingTiming::InArrears);
    assert_eq!(globex.functional_currency, None);
    assert_eq!(
        settings.tenant(&tenant("unlisted")).policy.billing,
        BillingTiming::InArrears
    );

    assert!(
        config::load(&path).expect_err("no source")[0]
            .to_string()
            .contains("nothing to read")
    );
    fs::write(&path, format!("{text}\n[runtime]\nthreds = 1\n")).expect("written");
    let found = config::load_settings(&path).expect_err("a misspelt key");
    assert!(
        found[0]
            .to_string()
            .ends_with("runtime.threds: unknown key; did you mean \"threads\"?"),
        "{found:?}"
    );
    fs::write(&path, "").expect("written");
    assert_eq!(
        config::load_settings(&path).expect("valid").default.policy,
        Policy::default()
    );
}

#[test]
fn the_checked_in_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/topology.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, config::schema()).expect("written");
    }
    assert_eq!(
        read("docs/topology.schema.json"),
        config::schema(),
        "the schema has changed; UPDATE=1 cargo test writes it anew"
    );
}

/// Settings that the shipped file leaves to their defaults.
const UNWRITTEN: [&str; 21] = [
    "budgets",
    "mapping.*.deal.refund",
    "mapping.*.deal.renewed_from",
    "mapping.*.deal.treatment",
    "outputs.crm_changes",
    "registry.token",
    "runtime.replication_factor",
    "runtime.restore_threads",
    "runtime.standbys",
    "sinks.*.limits",
    "sinks.*.moved_from",
    "sinks.*.netsuite",
    "sinks.*.odoo",
    "sinks.*.oracle",
    "sinks.*.quickbooks",
    "sinks.*.tenant_accounts",
    "sinks.*.tenants",
    "sinks.*.tryton",
    "sinks.*.xero",
    "tenants.*.fiscal_calendar",
    "warehouses",
];

#[test]
fn the_schema_and_the_shipped_file_have_the_same_keys_and_every_key_is_explained() {
    let schema: Json = serde_json::from_str(&config::schema()).expect("JSON");
    let mut known = BTreeSet::new();
    schema_keys(&schema, &schema, "", &mut known);
    let file: toml::Table = toml::from_str(&read("topology.toml")).expect("TOML");
    let mut written = BTreeSet::new();
    file_keys(&toml::Value::Table(file), "", &known, &mut written);

    let unknown: Vec<_> = written.difference(&known).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "in the file, not in the schema");
    let unwritten: Vec<_> = known
        .difference(&written)
        .filter(|key| !UNWRITTEN.iter().any(|left_out| key.starts_with(left_out)))
        // The parts of a column are written where the column has them.
        .filter(|key| !key.ends_with(".column") && !key.ends_with(".scale"))
        .collect();
    assert_eq!(unwritten, Vec::<&String>::new(), "in the schema, not in the file");
}

/// Every key the schema allows, with `*` for names the user chooses; fails on one without a description.
fn schema_keys(root: &Json, shape: &Json, path: &str, keys: &mut BTreeSet<String>) {
    let shape = match shape["allOf"][0]["$ref"].as_str().or(shape["$ref"].as_str()) {
        Some(reference) => root.pointer(&reference[1..]).expect("a definition"),
        None => shape,
    };
    for alternative in shape["anyOf"].as_array().into_iter().flatten() {
        schema_keys(root, alternative, path, keys);
    }
    if path == "kafka.properties" {
        return;
    }
    for (key, inner) in shape["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let target = inner["allOf"][0]["$ref"].as_str().or(inner["$ref"].as_str());
        let described = |shape: &Json| shape["description"].is_string();
        let explained = described(inner)
            || target
                .and_then(|target| root.pointer(&target[1..]))
                .is_some_and(described)
            || inner["items"]["$ref"]
                .as_str()
                .and_then(|target| root.pointer(&target[1..]))
                .is_some_and(described);
        assert!(explained, "{path} has no description");
        schema_keys(root, inner, &path, keys);
        keys.insert(path);
    }
    if shape["items"].is_object() {
        schema_keys(root, &shape["items"], path, keys);
    }
    if shape["additionalProperties"].is_object() {
        schema_keys(root, &shape["additionalProperties"], &format!("{path}.*"), keys);
    }
}

fn file_keys(value: &toml::Value, path: &str, known: &BTreeSet<String>, keys: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                let plain = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let chosen = format!("{path}.*");
                let is_chosen = known.iter().any(|known| known.starts_with(&format!("{chosen}.")));
                let is_leaf_map = [
                    "stages",
                    "line_types",
                    "billing_cycles",
                    "methods",
                    "properties",
                    "revenue",
                ]
                .iter()
                .any(|map| path.ends_with(&format!(".{map}")));
                if is_leaf_map {
                    continue;
                }
                if is_chosen {
                    file_keys(inner, &chosen, known, keys);
                } else {
                    file_keys(inner, &plain, known, keys);
                    keys.insert(plain);
                }
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| file_keys(item, path, known, keys)),
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}
