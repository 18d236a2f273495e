//! Two instances of a sink on a real broker: they share the work, one is killed, each document is written once.
//! `make test` starts the servers; `ACCRUE_TEST_PLATFORM` names their folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use accrue::codec::registry::Confluent;
use accrue::codec::registry::confluent::Access;
use accrue::config;
use accrue::pipeline;
use accrue::revenue::ids::{ContractId, DealId, EntryId, EventId, TenantId};
use accrue::revenue::journal::{EntryLine, JournalEntry, Kind};
use accrue::revenue::ledger::Role;
use accrue::revenue::money::Currency;
use accrue::revenue::period::Period;
use accrue::stream::log::kafka::{KafkaLog, KafkaTimeouts};
use accrue::stream::log::{Log, Positions};
use accrue::stream::partitioner::partition_for;
use accrue::stream::record::{Outgoing, Timestamp, Topic, TopicPartition};
use rust_decimal::Decimal;

const DEALS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(120);

struct Installation {
    env: BTreeMap<String, String>,
    dir: PathBuf,
}

impl Installation {
    fn new() -> Installation {
        let platform = PathBuf::from(
            std::env::var("ACCRUE_TEST_PLATFORM")
                .expect("ACCRUE_TEST_PLATFORM must name a platform; `make test` starts one"),
        );
        let mut env: BTreeMap<String, String> = std::fs::read_to_string(platform.join("env"))
            .expect("env")
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| ["KAFKA_BOOTSTRAP", "REGISTRY_URL"].contains(key))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let dir = platform.join(format!("sink-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("folder");
        let name = format!("sinks-{}", std::process::id());
        for (key, value) in [
            ("ACCRUE_LOG", "kafka".to_owned()),
            ("ACCRUE_REGISTRY", "confluent".to_owned()),
            ("ACCRUE_TOPIC_PREFIX", format!("{name}.")),
            ("ACCRUE_APPLICATION_ID", name),
            ("ACCRUE_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ] {
            env.insert(key.to_owned(), value);
        }
        // One ledger for all instances, and sessions that end soon after a kill.
        let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("topology.toml"));
        let topology = shipped
            .expect("topology.toml")
            .replace(
                "${ACCRUE_DATA_DIR:-data}/ledger",
                &dir.join("ledger").display().to_string(),
            )
            .replace("session_timeout = \"45s\"", "session_timeout = \"7s\"")
            .replace("transaction_timeout = \"30s\"", "transaction_timeout = \"6s\"");
        std::fs::write(dir.join("topology.toml"), topology).expect("written");
        Installation { env, dir }
    }

    fn command(&self, instance: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
        command
            .args(arguments)
            .arg("--topology")
            .arg(self.dir.join("topology.toml"))
            .envs(&self.env)
            .env("ACCRUE_DATA_DIR", self.dir.join(instance));
        command
    }

    fn done(&self, instance: &str, arguments: &[&str]) -> String {
        let out = self.command(instance, arguments).output().expect("it runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            out.status.success(),
            "{arguments:?}: {text}\n{}",
            String::from_utf8_lossy(&out.stderr)
        );
        text
    }

    fn start(&self, instance: &str) -> Child {
        let log = std::fs::File::create(self.dir.join(format!("{instance}.log"))).expect("log");
        self.command(instance, &["sink", "files"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it runs")
    }

    fn issue(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.dir.join("topology.toml")).expect("the topology");
        let topology = config::parse("topology.toml", &text, &|name| self.env.get(name).cloned()).expect("a topology");
        let registry = Confluent::new(&self.env["REGISTRY_URL"], Access::Open).expect("registry");
        let schemas = pipeline::schemas(&topology, Arc::new(registry)).expect("schemas");
        let properties = [("bootstrap.servers".to_owned(), self.env["KAFKA_BOOTSTRAP"].clone())];
        let timeouts = KafkaTimeouts {
            transaction: Duration::from_secs(30),
            session: Duration::from_secs(45),
        };
        let log = KafkaLog::connect(properties.into(), timeouts, Duration::from_secs(30), &|_| {}).expect("kafka");
        let topic = Topic::new(topology.outputs.journal_entries.as_str());
        let count = log.partitions(&topic).expect("kafka").expect("a topic");
        let mut producer = log.producer("sink-test").expect("producer");
        producer.begin().expect("begin");
        let mut ids = BTreeSet::new();
        for n in 0..3 {
            for deal in 0..DEALS {
                let entry = entry(deal, n);
                ids.insert(entry.entry_id.to_string());
                let key = format!("{}/{}", entry.tenant, entry.deal).into_bytes();
                producer
                    .send(Outgoing {
                        to: TopicPartition::new(&topic, partition_for(&key, count)),
                        timestamp: Timestamp(jiff::Timestamp::now().as_millisecond()),
                        key: Some(key),
                        value: Some(schemas.encode_journal_entry(&entry).expect("encodes")),
                        headers: Vec::new(),
                    })
                    .expect("send");
            }
        }
        producer.commit(&Positions::new(), None).expect("commit");
        ids
    }

    /// The keys in the manifest, each once.
    fn manifest(&self) -> Vec<String> {
        let file = self.dir.join("ledger/acme-corp/manifest.jsonl");
        let lines = std::fs::read_to_string(file).unwrap_or_default();
        lines
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .map(|line| line["key"].as_str().expect("a key").to_owned())
            .collect()
    }
}

fn entry(deal: usize, n: usize) -> JournalEntry {
    let usd = Currency::parse("USD").expect("a currency");
    let line = |role: Role, debit: i64, credit: i64| EntryLine {
        account: role.name().into_owned(),
        role,
        debit: Decimal::from(debit),
        credit: Decimal::from(credit),
        functional_debit: Decimal::from(debit),
        functional_credit: Decimal::from(credit),
    };
    JournalEntry {
        entry_id: EntryId::parse(format!("je_{deal:04}{n}")).expect("an id"),
        tenant: TenantId::parse("acme-corp").expect("a tenant"),
        deal: DealId::parse(format!("D-{deal}")).expect("a deal"),
        contract: ContractId::parse(format!("D-{deal}")).expect("a contract"),
        obligation: None,
        kind: Kind::Payment,
        date: jiff::civil::date(2026, 1, 31),
        period: Period::parse("2026-01").expect("a period"),
        concerns: Period::parse("2026-01").expect("a period"),
        currency: usd,
        functional_currency: usd,
        lines: vec![line(Role::Cash, 10, 0), line(Role::AccountsReceivable, 0, 10)],
        cause: EventId::parse("e").expect("an event"),
        provenance: Vec::new(),
        reverses: None,
        customer_id: None,
        customer_name: None,
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs Kafka and a registry: make test"]
fn instances_share_the_work_and_survive_a_kill() {
    let installation = Installation::new();
    installation.done("apply", &["apply"]);
    let entries = installation.issue();
    let (mut one, mut two) = (installation.start("one"), installation.start("two"));
    wait("some are written", || {
        installation.manifest().len() > entries.len() / 10
    });
    one.kill().expect("kill");
    one.wait().expect("wait");
    wait("all are written", || installation.manifest().len() >= entries.len());
    let pid = i32::try_from(two.id()).expect("a process id");
    // SIGTERM: it commits what is answered and leaves.
    let stopped = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()
        .expect("kill");
    assert!(stopped.success());
    assert!(two.wait().expect("wait").success());
    installation.done("three", &["sink", "files", "--until-idle"]);

    let written = installation.manifest();
    assert_eq!(written.len(), entries.len(), "each once");
    assert_eq!(written.iter().cloned().collect::<BTreeSet<_>>(), entries);
    // In each deal's order.
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for key in &written {
        let (deal, n) = key.split_at(key.len() - 1);
        let before = last.insert(deal, n);
        assert!(before.is_none_or(|before| before < n), "{key} after {before:?}");
    }
    let verified = installation.done("three", &["receipts", "verify"]);
    assert!(verified.contains(&format!("{} receipts", entries.len())), "{verified}");
    assert!(verified.contains("whole"), "{verified}");
}
