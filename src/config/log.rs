//! `[log]` and `[kafka]`: where records are read and written.
//!
//! Owns the choice between a Kafka cluster and the embedded log, and the list of client settings that are not the
//! user's to choose. Invariant: a [`Log`] is complete; one for Kafka has brokers. Absent on purpose: the client itself; what it
//! takes is asked of a [`Judge`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{Brokers, MASK, Name, Secret};
use super::measure::Interval;
use super::problem::{KeyPath, Problems};
use super::shape::nearest;

/// Says whether the client takes a setting, by its name and value.
pub type Judge<'a> = &'a dyn Fn(&str, &str) -> Result<(), Unfit>;

/// Why the client does not take a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It has none of this name.
    Name,
    /// The value is wrong; the text may quote it.
    Value(String),
}

/// The log the runtime works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    Kafka(Kafka),
    Embedded(Embedded),
}

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    pub bootstrap_servers: Brokers,
    /// The name of this instance, for static membership.
    pub instance_id: Option<Name>,
    pub group_protocol: GroupProtocol,
    pub startup_timeout: Interval,
    pub properties: Properties,
}

/// Who shares out the partitions among the instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// One of the instances. Each change takes all partitions from all instances for a moment.
    #[default]
    Classic,
    /// The brokers (Kafka 4.0 and newer, KIP-848), which take away only what goes to another instance.
    Consumer,
}

/// A log in a folder of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    pub dir: PathBuf,
    pub sync: bool,
}

/// Which log the records are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LogKind {
    /// A Kafka cluster, described by `[kafka]`.
    Kafka,
    /// A durable log in a folder of one process: the quick start and small installations.
    Embedded,
}

/// Where records are read and written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogText {
    /// `kafka` or `embedded`.
    kind: LogKind,
    /// Folder of the embedded log; not used with Kafka.
    #[schemars(length(min = 1))]
    dir: PathBuf,
    /// Whether each commit of the embedded log waits for the disk. Without it, a power cut may lose the last commits;
    /// a crash of the process does not.
    sync: bool,
}

impl Default for LogText {
    fn default() -> Self {
        Self {
            kind: LogKind::Embedded,
            dir: "data/log".into(),
            sync: true,
        }
    }
}

/// The Kafka cluster, used when `log.kind` is `kafka`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KafkaText {
    /// The first brokers to ask, as `host:port`, several with commas between. Required when `log.kind` is `kafka`.
    bootstrap_servers: Option<Brokers>,
    /// The name of this instance (`group.instance.id`), such as the name of its pod. With it, a restart within
    /// `runtime.session_timeout` moves no partitions. Must differ between running instances.
    instance_id: Option<Name>,
    /// `classic`, or `consumer` for Kafka 4.0 and newer (KIP-848): what stays with an instance goes on without a break when
    /// others come and go. Then the length of a session is the brokers' `group.consumer.session.timeout.ms` instead of
    /// `runtime.session_timeout`, and a process that was killed gets its partitions back only when its session has
    /// ended, also with an `instance_id`. Instances may change over one by one.
    group_protocol: GroupProtocol,
    /// How long a start waits for the brokers before it fails.
    startup_timeout: Interval,
    /// Settings of librdkafka, passed on as they are: `security.protocol`, `sasl.*`, `ssl.*` and the like.
    /// Those that exactly-once processing depends on are refused, each with its reason.
    properties: Properties,
}

impl Default for KafkaText {
    fn default() -> Self {
        Self {
            bootstrap_servers: None,
            instance_id: None,
            group_protocol: GroupProtocol::default(),
            startup_timeout: Interval::seconds(60),
            properties: Properties::default(),
        }
    }
}

/// The log of `[log]` and `[kafka]`. Settings of Kafka are checked even while the embedded log is chosen.
pub(super) fn log(log: LogText, kafka: KafkaText, judge: Judge<'_>, problems: &mut Problems<'_>) -> Option<Log> {
    for (name, value) in &kafka.properties.0 {
        let at = property_path(name, problems);
        if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| owned == name) {
            problems.report(&at, format!("not yours to set: {reason}"));
        } else if let Err(unfit) = judge(name, value.reveal()) {
            let message = unfit_message(name, value.reveal(), unfit, &at, problems);
            problems.report(&at, message);
        }
    }
    match log.kind {
        LogKind::Embedded => Some(Log::Embedded(Embedded {
            dir: log.dir,
            sync: log.sync,
        })),
        LogKind::Kafka => {
            let Some(bootstrap_servers) = kafka.bootstrap_servers else {
                let message = "missing, and log.kind is \"kafka\"; write bootstrap_servers = \"host:9092\"";
                problems.report(&KeyPath::of(["kafka", "bootstrap_servers"]), message);
                return None;
            };
            Some(Log::Kafka(Kafka {
                bootstrap_servers,
                instance_id: kafka.instance_id,
                group_protocol: kafka.group_protocol,
                startup_timeout: kafka.startup_timeout,
                properties: kafka.properties,
            }))
        }
    }
}

fn unfit_message(name: &str, value: &str, unfit: Unfit, at: &KeyPath, problems: &Problems<'_>) -> String {
    match unfit {
        Unfit::Name => match nearest(name, SECURITY.iter().copied()) {
            Some(near) => format!("librdkafka has no such setting; did you mean {near:?}?"),
            None => "librdkafka has no such setting; its CONFIGURATION.md lists them".to_owned(),
        },
        Unfit::Value(why) => {
            let shown = problems.shown(at, value);
            match shown == value && !is_secret(name) {
                true => format!("librdkafka refuses it: {why}"),
                // The client's words would quote what the file keeps out of itself.
                false if is_secret(name) => "librdkafka refuses the value".to_owned(),
                false => format!("librdkafka refuses the value of {shown:?}"),
            }
        }
    }
}

/// The settings that connecting takes, for suggestions.
const SECURITY: &[&str] = &[
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.kerberos.service.name",
    "sasl.kerberos.principal",
    "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.config",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    "client.id",
    "client.rack",
    "broker.address.family",
    "socket.keepalive.enable",
    "compression.type",
    "statistics.interval.ms",
];

/// Where the file has a property: `"sasl.mechanism" = ...`, or without quotes, which TOML reads as nested tables.
fn property_path(name: &str, problems: &Problems<'_>) -> KeyPath {
    let table = KeyPath::of(["kafka", "properties"]);
    let quoted = table.key(name);
    if problems.has(&quoted) {
        return quoted;
    }
    name.split('.').fold(table, |path, part| path.key(part))
}

/// The librdkafka settings that the runtime owns, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write kafka.bootstrap_servers"),
    ("metadata.broker.list", "write kafka.bootstrap_servers"),
    ("group.id", "it is application_id"),
    ("group.instance.id", "write kafka.instance_id"),
    ("group.protocol", "write kafka.group_protocol"),
    (
        "partition.assignment.strategy",
        "the runtime keeps the partitions of one number with one member, since they are one task's input",
    ),
    (
        "group.remote.assignor",
        "the runtime keeps the partitions of one number with one member, since they are one task's input",
    ),
    ("session.timeout.ms", "write runtime.session_timeout"),
    ("transaction.timeout.ms", "write runtime.transaction_timeout"),
    (
        "transactional.id",
        "it follows from application_id and the instance, and fences a predecessor",
    ),
    ("enable.idempotence", "transactions need it on"),
    ("acks", "transactions need all replicas to confirm"),
    ("request.required.acks", "transactions need all replicas to confirm"),
    ("max.in.flight", "the order of a partition depends on it"),
    (
        "max.in.flight.requests.per.connection",
        "the order of a partition depends on it",
    ),
    (
        "partitioner",
        "the runtime places each deal itself, so that all its records meet in one partition",
    ),
    (
        "enable.auto.commit",
        "offsets are committed inside the transaction, with the outputs",
    ),
    (
        "auto.commit.interval.ms",
        "offsets are committed inside the transaction; write runtime.commit_interval",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed inside the transaction, with the outputs",
    ),
    (
        "auto.offset.reset",
        "a new group starts at the beginning, and a lost position stops it rather than skip records",
    ),
    ("isolation.level", "only committed records may be read"),
    (
        "enable.partition.eof",
        "the runtime finds the end of a changelog by its own protocol",
    ),
];

/// Settings passed on to librdkafka. `Debug` masks those that hold secrets.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "BTreeMap<String, PropertyText>")]
#[schemars(description = "Settings of librdkafka, by name.")]
pub struct Properties(BTreeMap<String, Secret>);

impl Properties {
    /// Names and values, by name. Any value may be a secret.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Names and values, by name, for people: secrets are masked.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| {
            let shown = if is_secret(name) { MASK } else { value.reveal() };
            (name, shown)
        })
    }
}

/// The sensitive settings of librdkafka's list, by what their names have in common.
fn is_secret(name: &str) -> bool {
    [
        "password",
        "passphrase",
        "secret",
        "pem",
        "ssl_key",
        "oauthbearer.config",
        "kinit.cmd",
    ]
    .iter()
    .any(|part| name.contains(part))
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

/// One setting, or several whose names start alike.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum PropertyText {
    Text(String),
    Number(i64),
    Switch(bool),
    Group(BTreeMap<String, PropertyText>),
}

impl From<BTreeMap<String, PropertyText>> for Properties {
    fn from(group: BTreeMap<String, PropertyText>) -> Self {
        let mut flat = BTreeMap::new();
        flatten("", group, &mut flat);
        Self(flat)
    }
}

fn flatten(prefix: &str, group: BTreeMap<String, PropertyText>, flat: &mut BTreeMap<String, Secret>) {
    for (key, value) in group {
        let name = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        let text = match value {
            PropertyText::Text(text) => text,
            PropertyText::Number(number) => number.to_string(),
            PropertyText::Switch(on) => on.to_string(),
            PropertyText::Group(group) => {
                flatten(&name, group, flat);
                continue;
            }
        };
        flat.insert(name, Secret::new(text));
    }
}
