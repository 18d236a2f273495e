//! The whole path, measured: canonical events in; changes, facts, contracts, schedules and journal entries out.
//!
//! `make bench` runs it on the embedded log, and on Kafka when `ACCRUE_TEST_KAFKA` names a broker. Figures are of one
//! run on one machine: compare them with one another, not with other machines'. `tools/profiled` takes from it what to
//! optimise for.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use accrue::codec::registry::Embedded;
use accrue::config;
use accrue::pipeline;
use accrue::stream::app::{self, Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::kafka::{KafkaLog, KafkaTimeouts};
use accrue::stream::log::{Log, Positions, TopicSpec};
use accrue::stream::metrics::Metrics;
use accrue::stream::record::{Outgoing, Partition, Timestamp, Topic, TopicPartition};

use common::cpu_seconds;

/// Deals of one run: each closes, with two lines, and every second is amended later; the clock stands in the fifth month.
const DEALS: usize = 20_000;
const EVENTS: usize = DEALS + DEALS / 2 + 1;

fn main() {
    println!("| log | events | seconds | events/s | CPU us an event | records written |");
    println!("|---|---|---|---|---|---|");
    let dir = tempfile::tempdir().expect("folder");
    let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), false).expect("log"));
    measure("embedded", log, dir.path(), "");
    if let Ok(servers) = std::env::var("ACCRUE_TEST_KAFKA") {
        let dir = tempfile::tempdir().expect("folder");
        let log = KafkaLog::connect(
            BTreeMap::from([("bootstrap.servers".to_owned(), servers)]),
            KafkaTimeouts {
                transaction: Duration::from_secs(30),
                session: Duration::from_secs(45),
            },
            Duration::from_secs(30),
            &|message| eprintln!("{message}"),
        )
        .expect("broker");
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
        measure("kafka", Arc::new(log), dir.path(), &format!("bench-{nanos}."));
    }
}

fn measure(name: &str, log: Arc<dyn Log>, dir: &Path, prefix: &str) {
    let text = format!(
        "application_id = \"{p}bench\"\n[outputs]\nprefix = \"{prefix}\"\n[[source]]\nname = \"events\"\ntopic = \"{prefix}events\"\nformat = \"canonical-json\"\n",
        p = prefix.replace('.', "-"),
    );
    let topology = config::parse("bench", &text, &|_| None).expect("topology");
    let specs: Vec<TopicSpec> = pipeline::topics(&topology)
        .into_iter()
        .map(|spec| TopicSpec {
            replication_factor: 1,
            ..spec
        })
        .collect();
    log.create_topics(&specs).expect("topics");
    let registry = Arc::new(Embedded::open(&dir.join("registry")).expect("registry"));
    let schemas = Arc::new(pipeline::schemas(&topology, registry).expect("schemas"));
    load(log.as_ref(), &Topic::new(format!("{prefix}events")));

    let stream = pipeline::build(&topology, schemas).expect("stream");
    let shape = stream.shape.clone();
    let config = RuntimeConfig {
        threads: 1,
        state_dir: dir.join("state"),
        memory: Budget::of(256 << 20),
        commit_interval: Duration::from_millis(100),
        max_records_per_commit: 10_000,
        overlay_max_bytes: 64 << 20,
        ask_ends_after: Duration::from_millis(100),
        restore_threads: 2,
        instance: None,
        standbys: false,
    };
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let runtime = Runtime::start(stream, log.clone(), config, metrics).expect("start");
    while app::lag(&shape, log.as_ref()).expect("lag") > 0 {
        assert!(!runtime.is_finished(), "a thread ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    runtime.stop();
    runtime.join().expect("clean end");

    let mut written = 0;
    for topic in shape.written() {
        for n in 0..log.partitions(&topic).expect("count").unwrap_or(0) {
            written += log.end(&TopicPartition::new(&topic, Partition(n))).expect("end").0;
        }
    }
    println!(
        "| {name} | {EVENTS} | {seconds:.1} | {:.0} | {:.0} | {written} |",
        EVENTS as f64 / seconds,
        cpu * 1e6 / EVENTS as f64
    );
}

fn load(log: &dyn Log, topic: &Topic) {
    let mut producer = log.producer("bench-loader").expect("producer");
    let closes = (0..DEALS).map(|n| deal("deal.closed", "2026-01-17", n, 0));
    let amended = (0..DEALS)
        .step_by(2)
        .map(|n| deal("deal.amended", "2026-05-20", n, 3_000));
    let events: Vec<String> = closes.chain([tick()]).chain(amended).collect();
    let mut at = 1_768_645_353_000;
    for chunk in events.chunks(5_000) {
        producer.begin().expect("begin");
        for value in chunk {
            at += 1;
            producer
                .send(Outgoing {
                    to: TopicPartition::new(topic, Partition(0)),
                    timestamp: Timestamp(at),
                    key: None,
                    value: Some(value.clone().into_bytes()),
                    headers: Vec::new(),
                })
                .expect("send");
        }
        producer.commit(&Positions::new(), None).expect("commit");
    }
}

/// An event of about 500 bytes on deal `n`; its subscription costs so much more.
fn deal(kind: &str, day: &str, n: usize, more: usize) -> String {
    format!(
        r#"{{"event_id":"{kind}-{n}","source":"bench","type":"{kind}","occurred_at":"{day}T10:22:33Z","tenant_id":"acme","payload":{{"deal_id":"D-{n}","amount":{total},"currency":"USD","term_months":12,"billing_cycle":"monthly","contract_start":"2026-02-01","customer":{{"customer_id":"C-{c}","name":"Customer {c}"}},"line_items":[{{"id":"l1","type":"subscription","amount":{a}}},{{"id":"l2","type":"setup","amount":2000}}],"revenue_recognition":{{"method":"linear","defer_setup":true}}}}}}"#,
        a = 10_000 + n + more,
        total = 12_000 + n + more,
        c = n % 997,
    )
}

fn tick() -> String {
    r#"{"event_id":"tick","source":"bench","type":"clock.ticked","occurred_at":"2026-05-02T00:00:00Z","tenant_id":"acme","payload":{"date":"2026-05-02"}}"#.to_owned()
}
