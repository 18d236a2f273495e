//! The stages on the embedded log: what a CRM says, record by record, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use accrue::codec::crm_store::DealPicture;
use accrue::codec::dead_letter::DeadLetter;
use accrue::codec::registry::{Embedded, Registry, RegistryError, Subject};
use accrue::codec::schemas::{Product, Schemas};
use accrue::config::{self, Topology};
use accrue::pipeline;
use accrue::pipeline::dead_letters::{self, Clerk, LetterError, LetterId, Resolution};
use accrue::pipeline::replays;
use accrue::revenue::books::Books;
use accrue::revenue::fact::{Body, Fact};
use accrue::stream::app::{self, Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Log, Positions};
use accrue::stream::metrics::Metrics;
use accrue::stream::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use accrue::stream::rewind::{self, Target};
use serde_json::{Value as Json, json};

/// A CRM whose decimals are text, with and without transaction metadata.
const TOPOLOGY: &str = r#"
application_id = "test"
[runtime]
partitions = 3
[[source]]
name = "deals"
topic = "crm.deals"
format = "debezium-json"
mapping = "crm"
table = "deals"
[[source]]
name = "lines"
topic = "crm.lines"
format = "debezium-json"
mapping = "crm"
table = "deal_line_items"
[[source]]
name = "customers"
topic = "crm.customers"
format = "debezium-json"
mapping = "crm"
table = "customers"
#TRANSACTIONS
[[source]]
name = "events"
topic = "events"
format = "canonical-json"
[mapping.crm]
tenant = "acme"
currency = "USD"
default_line_type = "subscription"
settle_timeout = "10m"
[mapping.crm.stages]
won = "closed"
cancelled = "cancelled"
[mapping.crm.deal]
id = "id"
stage = "stage"
amount = "amount"
currency = "currency"
contract_start = "start"
term_months = "months"
effective_date = "effective"
customer_id = "customer"
[mapping.crm.line]
id = "id"
deal_id = "deal"
amount = "amount"
[mapping.crm.customer]
id = "id"
name = "name"
[tenants.acme]
functional_currency = "USD"
"#;

const TRANSACTIONS: &str = r#"
[[source]]
name = "transactions"
topic = "crm.transaction"
format = "debezium-json"
mapping = "crm"
table = "transaction"
"#;

struct Crm {
    dir: tempfile::TempDir,
    log: Arc<EmbeddedLog>,
    topology: Topology,
    schemas: Arc<Schemas>,
    lsn: i64,
    clock: i64,
}

impl Crm {
    fn new(transactions: bool) -> Crm {
        Crm::with(&TOPOLOGY.replace("#TRANSACTIONS", if transactions { TRANSACTIONS } else { "" }))
    }

    fn with(topology: &str) -> Crm {
        let topology = config::parse("test.toml", topology, &|_| None).expect("topology");
        let dir = tempfile::tempdir().expect("folder");
        let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), false).expect("log"));
        log.create_topics(&pipeline::topics(&topology)).expect("topics");
        let registry = Arc::new(Embedded::open(&dir.path().join("registry")).expect("registry"));
        let schemas = Arc::new(pipeline::schemas(&topology, registry).expect("schemas"));
        Crm {
            dir,
            log,
            topology,
            schemas,
            lsn: 1_000,
            clock: 1_767_225_600_000,
        }
    }

    fn send(&mut self, topic: &str, key: Option<Json>, value: Option<Json>) {
        self.clock += 1_000;
        self.send_at(topic, key, value, self.clock);
    }

    fn send_at(&mut self, topic: &str, key: Option<Json>, value: Option<Json>, timestamp: i64) {
        let mut producer = self.log.producer("crm").expect("producer");
        producer.begin().expect("begin");
        producer
            .send(Outgoing {
                to: TopicPartition::new(&Topic::new(topic), Partition(0)),
                timestamp: Timestamp(timestamp),
                key: key.map(|key| key.to_string().into_bytes()),
                value: value.map(|value| value.to_string().into_bytes()),
                headers: Vec::new(),
            })
            .expect("send");
        producer.commit(&Positions::new(), None).expect("commit");
    }

    /// A change event of transaction `tx`; `after` of `None` is a delete.
    fn row(&mut self, topic: &str, op: &str, tx: i64, id: &str, after: Option<Json>) {
        self.keyed(topic, op, tx, json!({"id": id}), after);
    }

    fn keyed(&mut self, topic: &str, op: &str, tx: i64, key: Json, after: Option<Json>) {
        self.lsn += 100;
        let transaction = match self.sends_ends() && op != "r" {
            true => json!({"id": format!("{tx}:{}", self.lsn), "total_order": 1, "data_collection_order": 1}),
            false => Json::Null,
        };
        let event = json!({
            "before": null, "after": after, "op": op, "ts_ms": self.clock,
            "source": {"connector": "postgresql", "schema": "public", "table": topic, "txId": tx, "lsn": self.lsn,
                       "ts_ms": self.clock, "snapshot": if op == "r" { "true" } else { "false" }},
            "transaction": transaction,
        });
        self.send(topic, Some(key), Some(event));
    }

    fn deal(&mut self, tx: i64, id: &str, stage: &str, amount: &str) {
        self.deal_from(tx, id, stage, amount, Json::Null);
    }

    fn deal_from(&mut self, tx: i64, id: &str, stage: &str, amount: &str, effective: Json) {
        let after = json!({"id": id, "stage": stage, "amount": amount, "currency": "USD", "start": "2026-02-01",
                           "months": 12, "effective": effective, "customer": "C-1"});
        self.row("crm.deals", "u", tx, id, Some(after));
    }

    fn line(&mut self, tx: i64, id: &str, deal: &str, amount: &str) {
        let after = json!({"id": id, "deal": deal, "amount": amount});
        self.row("crm.lines", "u", tx, id, Some(after));
    }

    fn customer(&mut self) {
        self.row(
            "crm.customers",
            "c",
            1,
            "C-1",
            Some(json!({"id": "C-1", "name": "Globex"})),
        );
        self.end(1, 1);
    }

    fn sends_ends(&self) -> bool {
        let mut sources = self.topology.sources.iter();
        sources.any(|source| source.name.as_str() == "transactions")
    }

    fn end(&mut self, tx: i64, events: u64) {
        if self.sends_ends() {
            let mark = json!({"status": "END", "id": format!("{tx}:{}", self.lsn), "event_count": events,
                              "data_collections": [], "ts_ms": self.clock});
            self.send("crm.transaction", Some(json!({"id": tx.to_string()})), Some(mark));
        }
    }

    /// Time goes on by so many minutes, as far as the records say.
    fn pass_minutes(&mut self, minutes: i64) {
        self.clock += minutes * 60 * 1_000;
        let id = format!("tick-{}", self.clock);
        self.fact(&id, "clock.ticked", json!({"date": "2026-01-02"}));
    }

    fn fact(&mut self, id: &str, kind: &str, payload: Json) {
        let event = json!({"event_id": id, "source": "test", "type": kind, "occurred_at": "2026-01-05T00:00:00Z",
                           "tenant_id": "acme", "payload": payload});
        self.send("events", None, Some(event));
    }

    /// Runs the processor until nothing is left, then stops it.
    fn process(&self) {
        let stream = pipeline::build(&self.topology, self.schemas.clone()).expect("stream");
        let shape = stream.shape.clone();
        let config = RuntimeConfig {
            threads: 1,
            state_dir: self.dir.path().join("state"),
            memory: Budget::of(16 << 20),
            commit_interval: Duration::from_millis(10),
            max_records_per_commit: 1_000,
            overlay_max_bytes: 1 << 20,
            ask_ends_after: Duration::from_millis(20),
            restore_threads: 2,
            instance: None,
            standbys: false,
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        let runtime = Runtime::start(stream, self.log.clone(), config, metrics).expect("start");
        let deadline = Instant::now() + Duration::from_secs(60);
        while app::lag(&shape, self.log.as_ref()).expect("lag") > 0 {
            assert!(!runtime.is_finished() && Instant::now() < deadline, "not drained");
            std::thread::sleep(Duration::from_millis(5));
        }
        runtime.stop();
        runtime.join().expect("clean end");
    }

    fn read(&self, topic: &str) -> Vec<Record> {
        let topic = Topic::new(topic);
        let count = self.log.partitions(&topic).expect("count").expect("topic");
        let mut all = Vec::new();
        for n in 0..count {
            let mut reader = self
                .log
                .reader(&TopicPartition::new(&topic, Partition(n)), Offset(0))
                .expect("reader");
            loop {
                let records = reader.read(Duration::ZERO).expect("read");
                if records.is_empty() {
                    break;
                }
                all.extend(records);
            }
        }
        all
    }

    /// What was announced: type and amount.
    fn announced(&self) -> Vec<String> {
        let records = self.read("deal.canonical");
        let facts = records.iter().map(|record| {
            self.schemas
                .decode_deal_event(record.value.as_deref().unwrap())
                .expect("fact")
        });
        facts.map(|fact| said(&fact)).collect()
    }

    fn letters(&self) -> Vec<DeadLetter> {
        let records = self.read("accrue.dead-letters");
        records
            .iter()
            .map(|record| {
                self.schemas
                    .decode_dead_letter(record.value.as_deref().unwrap())
                    .expect("letter")
            })
            .collect()
    }

    fn codes(&self) -> Vec<String> {
        self.letters().into_iter().map(|letter| letter.code).collect()
    }
}

fn said(fact: &Fact) -> String {
    match &fact.body {
        Body::DealClosed(deal) | Body::DealAmended(deal) | Body::DealRenewed(deal) => {
            let lines: Vec<String> = deal
                .lines
                .iter()
                .map(|line| format!("{}={}", line.id, line.amount.normalize()))
                .collect();
            format!(
                "{} {} [{}]",
                fact.body.type_name(),
                deal.amount.normalize(),
                lines.join(" ")
            )
        }
        _ => fact.body.type_name().to_owned(),
    }
}

#[test]
fn a_deal_is_announced_once_its_rows_agree() {
    let mut crm = Crm::new(false);
    crm.line(5, "L1", "D1", "700");
    crm.deal(5, "D1", "won", "1200");
    crm.process();
    assert_eq!(
        crm.announced(),
        Vec::<String>::new(),
        "a line and the customer are missing"
    );
    crm.line(5, "L2", "D1", "500");
    crm.process();
    assert_eq!(crm.announced(), Vec::<String>::new(), "the customer is missing");
    crm.customer();
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=700 L2=500]"]);
    assert_eq!(crm.codes(), Vec::<String>::new());
}

/// More than what is judged between two commits.
#[test]
fn the_end_of_a_transaction_of_many_deals_lets_each_go_on_once() {
    let mut crm = Crm::new(true);
    crm.customer();
    let deals = 900;
    for n in 0..deals {
        crm.line(5, &format!("L{n}"), &format!("D{n}"), "1200");
        crm.deal(5, &format!("D{n}"), "won", "1200");
    }
    crm.end(5, 2 * deals);
    crm.process();
    assert_eq!(crm.announced().len() as u64, deals);
    assert_eq!(crm.codes(), Vec::<String>::new());
}

#[test]
fn what_changes_nothing_announces_nothing() {
    let mut crm = Crm::new(false);
    crm.customer();
    crm.line(5, "L1", "D1", "1200");
    crm.deal(5, "D1", "won", "1200");
    crm.process();
    // The same rows by a snapshot, a customer's new name, a stage nobody mapped, a key change of the line, and a tombstone.
    let after = json!({"id": "L1", "deal": "D1", "amount": "1200"});
    crm.row("crm.lines", "r", 6, "L1", Some(after));
    crm.row(
        "crm.customers",
        "u",
        7,
        "C-1",
        Some(json!({"id": "C-1", "name": "Globex, Inc."})),
    );
    crm.send("crm.deals", Some(json!({"id": "D1"})), None);
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    // An older change of the row, delivered again, does not undo the newer one.
    crm.line(8, "L1", "D1", "1500");
    crm.deal(8, "D1", "won", "1500");
    let (lsn, clock) = (crm.lsn, crm.clock);
    (crm.lsn, crm.clock) = (1_100, clock - 60_000);
    crm.line(5, "L1", "D1", "1200");
    (crm.lsn, crm.clock) = (lsn, clock);
    crm.process();
    assert_eq!(
        crm.announced(),
        ["deal.closed 1200 [L1=1200]", "deal.amended 1500 [L1=1500]"]
    );
    assert_eq!(crm.codes(), Vec::<String>::new());
}

#[test]
fn transactions_are_seen_one_by_one_though_their_rows_arrive_together() {
    let mut crm = Crm::new(true);
    crm.customer();
    // Rows of three transactions arrive before the end of the first.
    crm.deal(5, "D1", "won", "1200");
    crm.line(5, "L1", "D1", "1200");
    crm.deal_from(6, "D1", "won", "1500", json!("2026-05-01"));
    crm.line(6, "L1", "D1", "1500");
    crm.deal_from(7, "D1", "cancelled", "1500", json!("2026-09-01"));
    crm.process();
    assert_eq!(crm.announced(), Vec::<String>::new());
    crm.end(5, 2);
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    crm.end(7, 1);
    crm.end(6, 2);
    crm.process();
    assert_eq!(
        crm.announced(),
        [
            "deal.closed 1200 [L1=1200]",
            "deal.amended 1500 [L1=1500]",
            "deal.cancelled"
        ]
    );
}

#[test]
fn a_missing_end_of_transaction_holds_a_deal_only_for_its_time() {
    let mut crm = Crm::new(true);
    crm.customer();
    crm.deal(5, "D1", "won", "1200");
    crm.line(5, "L1", "D1", "1200");
    crm.process();
    assert_eq!(crm.announced(), Vec::<String>::new());
    crm.clock += 11 * 60 * 1_000;
    crm.fact("tick", "clock.ticked", json!({"date": "2026-01-02"}));
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
}

#[test]
fn a_missing_end_holds_a_deal_only_for_its_time_though_its_row_meant_nothing() {
    let mut crm = Crm::new(true);
    crm.customer();
    crm.deal(5, "D1", "negotiation", "1200");
    crm.deal(6, "D1", "won", "1200");
    crm.line(6, "L1", "D1", "1200");
    crm.end(6, 2);
    crm.process();
    assert_eq!(crm.announced(), Vec::<String>::new(), "transaction 5 may have more");
    crm.pass_minutes(11);
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    assert_eq!(crm.codes(), Vec::<String>::new());
}

#[test]
fn half_a_transaction_cancels_nothing() {
    let mut crm = Crm::new(true);
    crm.customer();
    crm.deal(5, "D1", "won", "1200");
    crm.line(5, "L1", "D1", "1200");
    crm.end(5, 2);
    crm.deal(6, "D1", "cancelled", "1200");
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    crm.deal(6, "D1", "won", "1200");
    crm.end(6, 2);
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
}

#[test]
fn a_transaction_whose_end_is_not_sent_is_not_waited_for() {
    let mut crm = Crm::new(true);
    // Debezium names the transaction of a row in its source block, also without transaction metadata.
    let name = &mut crm
        .topology
        .sources
        .iter_mut()
        .find(|it| it.name.as_str() == "transactions");
    name.as_mut().expect("source").name = "others".parse().expect("name");
    crm.customer();
    crm.deal(5, "D1", "won", "1200");
    crm.line(5, "L1", "D1", "1200");
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
}

#[test]
fn the_end_of_another_databases_transaction_ends_nothing_here() {
    let crm = TOPOLOGY.replace("#TRANSACTIONS", TRANSACTIONS);
    let (_, mapping) = crm.split_once("[mapping.crm]").expect("mapping");
    let mapping = format!(
        "[mapping.crm]{}",
        mapping.replace("[tenants.acme]\nfunctional_currency = \"USD\"", "")
    );
    let erp = |text: &str| text.replace("crm", "erp");
    let sources = "[[source]]\nname = \"erp-deals\"\ntopic = \"crm.erp-deals\"\nformat = \"debezium-json\"\nmapping = \"crm\"\ntable = \"deals\"\n";
    let ends = TRANSACTIONS.replace("\"transactions\"", "\"erp-transactions\"");
    let mut crm = Crm::with(&format!("{crm}{}{}{}", erp(sources), erp(&ends), erp(&mapping)));
    crm.customer();
    crm.line(5, "L1", "D1", "1200");
    crm.deal(5, "D1", "won", "1200");
    let end = json!({"status": "END", "id": "5:77", "event_count": 1, "data_collections": [], "ts_ms": crm.clock});
    crm.send("erp.transaction", Some(json!({"id": "5"})), Some(end));
    crm.deal(5, "D1", "won", "1300");
    crm.process();
    assert_eq!(crm.announced(), Vec::<String>::new());
    crm.line(5, "L2", "D1", "100");
    crm.end(5, 4);
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1300 [L1=1200 L2=100]"]);
}

#[test]
fn a_deal_whose_mapping_went_is_parked_and_fails_no_other_record() {
    let mut crm = Crm::new(false);
    crm.customer();
    crm.deal(5, "D1", "won", "1300");
    crm.line(5, "L1", "D1", "1200");
    crm.process();
    let renamed = TOPOLOGY
        .replace("\"crm\"", "\"sales\"")
        .replace("[mapping.crm", "[mapping.sales");
    crm.topology = config::parse("test.toml", &renamed, &|_| None).expect("topology");
    crm.pass_minutes(11);
    for deal in ["F1", "F2", "F3"] {
        let terms = json!({"deal_id": deal, "amount": 10, "currency": "USD", "term_months": 12, "contract_start": "2026-02-01"});
        crm.fact(deal, "deal.closed", terms);
    }
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 10 []"; 3]);
    assert_eq!(crm.codes(), ["unknown_mapping"]);
    let told = &crm.letters()[0].message;
    assert!(told.starts_with("deal acme/D1 is parked"), "{told}");
    crm.customer();
    crm.line(6, "L2", "D1", "100");
    crm.process();
    assert_eq!(crm.announced().last().expect("D1"), "deal.closed 1300 [L1=1200 L2=100]");
}

/// Ids may hold spaces: one may be the beginning of another.
#[test]
fn ids_that_begin_alike_are_kept_apart() {
    let text = TOPOLOGY
        .replace("#TRANSACTIONS", TRANSACTIONS)
        .replace("partitions = 3", "partitions = 1");
    let mut crm = Crm::with(&text);
    crm.customer();
    for (tx, deal) in [(5, "Acme"), (6, "Acme 2")] {
        crm.deal(tx, deal, "won", "1200");
        crm.line(tx, &format!("L{tx}"), deal, "1200");
    }
    crm.deal(7, "Acme 2", "won", "1500");
    crm.line(7, "L6", "Acme 2", "1500");
    crm.end(5, 2);
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L5=1200]"]);
    crm.end(6, 2);
    crm.end(7, 2);
    crm.process();
    assert_eq!(
        crm.announced()[1..],
        ["deal.closed 1200 [L6=1200]", "deal.amended 1500 [L6=1500]"]
    );

    let mut crm = Crm::with(&TOPOLOGY.replace("partitions = 3", "partitions = 1"));
    for (n, customer) in [(1, "C"), (2, "C 2")] {
        let deal = format!("D{n}");
        let after = json!({"id": deal, "stage": "won", "amount": "12", "start": "2026-02-01", "months": 12, "customer": customer});
        crm.row("crm.deals", "u", 5, &deal, Some(after));
        crm.line(5, &format!("L{n}"), &deal, "12");
    }
    crm.row("crm.customers", "c", 6, "C", Some(json!({"id": "C", "name": "Globex"})));
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 12 [L1=12]"]);
    crm.row(
        "crm.customers",
        "c",
        6,
        "C 2",
        Some(json!({"id": "C 2", "name": "Initech"})),
    );
    crm.process();
    assert_eq!(crm.announced()[1..], ["deal.closed 12 [L2=12]"]);
}

#[test]
fn a_deal_that_does_not_add_up_is_parked_visibly_and_resumes() {
    let mut crm = Crm::new(false);
    crm.customer();
    crm.deal(5, "D1", "won", "1300");
    crm.line(5, "L1", "D1", "1200");
    crm.process();
    crm.clock += 11 * 60 * 1_000;
    crm.fact("tick", "clock.ticked", json!({"date": "2026-01-02"}));
    crm.process();
    assert_eq!(crm.codes(), ["deal_unsettled"]);
    assert!(
        crm.letters()[0].message.contains("add up to 1200, its amount is 1300"),
        "{}",
        crm.letters()[0].message
    );
    crm.line(6, "L2", "D1", "100");
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1300 [L1=1200 L2=100]"]);
}

#[test]
fn a_line_is_deleted_by_its_own_key_alone() {
    let mut crm = Crm::new(false);
    crm.customer();
    crm.deal(5, "D1", "won", "1200");
    crm.line(5, "L1", "D1", "700");
    crm.line(5, "L2", "D1", "500");
    crm.row("crm.lines", "d", 6, "L2", None);
    crm.deal_from(6, "D1", "won", "700", json!("2026-05-01"));
    crm.process();
    assert_eq!(
        crm.announced(),
        ["deal.closed 1200 [L1=700 L2=500]", "deal.amended 700 [L1=700]"]
    );
}

#[test]
fn what_people_must_decide_is_a_dead_letter_and_the_books_stand() {
    let mut crm = Crm::new(false);
    crm.customer();
    crm.deal(5, "D1", "won", "1200");
    crm.line(5, "L1", "D1", "1200");
    crm.row("crm.deals", "d", 6, "D1", None);
    crm.lsn += 100;
    let truncate = json!({"before": null, "after": null, "op": "t", "ts_ms": 1, "transaction": null,
                          "source": {"connector": "postgresql", "schema": "public", "table": "deals", "txId": 7, "lsn": crm.lsn}});
    crm.send("crm.deals", None, Some(truncate));
    crm.process();
    let codes: BTreeSet<String> = crm.codes().into_iter().collect();
    assert_eq!(
        codes,
        BTreeSet::from(["deal_deleted".to_owned(), "table_truncated".to_owned()])
    );
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
}

#[test]
fn bad_records_become_dead_letters_with_everything_about_them() {
    let mut crm = Crm::new(false);
    crm.send("crm.deals", Some(json!({"id": "D9"})), Some(json!("not a change")));
    crm.fact(
        "bad-amount",
        "deal.closed",
        json!({"deal_id": "D2", "amount": -5, "currency": "USD", "term_months": 12, "contract_start": "2026-02-01"}),
    );
    crm.fact(
        "bad-sum",
        "deal.closed",
        json!({"deal_id": "D3", "amount": 10, "currency": "USD", "term_months": 12,
        "contract_start": "2026-02-01", "line_items": [{"id": "l", "type": "subscription", "amount": 9}]}),
    );
    crm.fact(
        "good",
        "deal.closed",
        json!({"deal_id": "D4", "amount": 10, "currency": "USD", "term_months": 12, "contract_start": "2026-02-01"}),
    );
    crm.process();
    let letters = crm.letters();
    let told: BTreeSet<(String, u64, String)> = letters
        .iter()
        .map(|l| (l.topic.clone(), l.offset, l.code.clone()))
        .collect();
    assert_eq!(
        told,
        BTreeSet::from([
            ("crm.deals".to_owned(), 0, "not_debezium".to_owned()),
            ("events".to_owned(), 0, "invalid_amount".to_owned()),
            ("events".to_owned(), 1, "lines_do_not_add_up".to_owned()),
        ])
    );
    assert!(
        letters
            .iter()
            .all(|letter| letter.stage == "rekey" && letter.value.is_some())
    );
    assert_eq!(crm.announced().len(), 1, "the partition goes on");
}

/// A record that was refused goes round again, corrected, exactly once, whoever asks and however often.
#[test]
fn a_dead_letter_is_corrected_and_goes_round_once() {
    let mut crm = Crm::new(false);
    let event = |amount: &str| {
        json!({"event_id": "E-1", "source": "test", "type": "deal.closed", "occurred_at": "2026-01-05T00:00:00Z",
               "tenant_id": "acme", "payload": {"deal_id": "D1", "amount": amount, "currency": "USD",
                                                "term_months": 12, "contract_start": "2026-02-01"}})
    };
    crm.send("events", None, Some(event("twelve")));
    crm.send("events", None, Some(json!("no event")));
    crm.process();
    let topic = Topic::new(crm.topology.outputs.dead_letters.as_str());
    let letters = dead_letters::read(crm.log.as_ref(), &topic, &crm.schemas).expect("letters");
    assert_eq!(letters.len(), 2);
    let ids: Vec<LetterId> = letters.keys().copied().collect();
    let (bad, junk) = (ids[0], ids[1]);
    assert!(letters[&bad].letter.message.contains("twelve"), "{:?}", letters[&bad]);

    let clerk = || Clerk::new(crm.log.as_ref(), "test", &topic, &crm.schemas).expect("clerk");
    let mut late = clerk();
    let mut first = clerk();
    let corrected = event("1200.00").to_string().into_bytes();
    first.retry(bad, Some(corrected.clone())).expect("retry");
    first.drop_letter(junk).expect("drop");
    assert!(matches!(
        first.retry(bad, Some(corrected.clone())),
        Err(LetterError::Resolved(_, Resolution::Retried))
    ));
    assert!(
        matches!(late.retry(bad, Some(corrected.clone())), Err(LetterError::Log(_))),
        "one who read the letters before was fenced"
    );
    assert!(matches!(
        clerk().retry(bad, Some(corrected)),
        Err(LetterError::Resolved(_, Resolution::Retried))
    ));

    crm.process();
    assert_eq!(crm.announced().len(), 1, "the deal closed once");
    let letters = dead_letters::read(crm.log.as_ref(), &topic, &crm.schemas).expect("letters");
    assert_eq!(letters.len(), 2, "nothing failed again");
    assert_eq!(letters[&bad].resolution, Some(Resolution::Retried));
    assert_eq!(letters[&junk].resolution, Some(Resolution::Dropped));
}

#[test]
fn reference_facts_reach_every_partition_and_a_missing_rate_only_parks() {
    let mut crm = Crm::new(false);
    for n in 0..12 {
        crm.fact(
            &format!("e{n}"),
            "deal.closed",
            json!({"deal_id": format!("D{n}"), "amount": 1200, "currency": "EUR", "term_months": 12, "contract_start": "2026-02-01"}),
        );
    }
    crm.fact("tick", "clock.ticked", json!({"date": "2026-03-01"}));
    crm.process();
    assert_eq!(crm.read("journal.entries").len(), 0, "no rate, no entry");
    crm.fact(
        "fx",
        "fx.rate",
        json!({"base": "EUR", "quote": "USD", "date": "2026-02-01", "rate": "1.10"}),
    );
    crm.fact(
        "fx2",
        "fx.rate",
        json!({"base": "EUR", "quote": "USD", "date": "2026-02-28", "rate": "1.12"}),
    );
    crm.process();
    let entries = crm.read("journal.entries");
    let deals: BTreeSet<_> = entries.iter().filter_map(|entry| entry.key.clone()).collect();
    assert_eq!(deals.len(), 12, "each deal resumed by itself");
    assert_eq!(
        crm.read("contract.facts")
            .iter()
            .filter(|r| r.header("ce_id") == Some(b"fx"))
            .count(),
        3
    );
    for name in [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "ce_tenantid",
        "traceparent",
    ] {
        assert!(entries.iter().all(|entry| entry.header(name).is_some()), "{name}");
    }
}

/// One contract whose books cannot be written (they have more digits than there are) does not keep a rate from the others.
#[test]
fn a_contract_that_cannot_be_settled_stops_no_other() {
    let mut crm = Crm::new(false);
    for (deal, amount) in [("A", 1_200), ("M", 1_000_000_000_000_000_i64), ("Z", 1_200)] {
        for n in 0..12 {
            crm.fact(
                &format!("{deal}{n}"),
                "deal.closed",
                json!({"deal_id": format!("{deal}{n}"), "amount": amount, "currency": "EUR", "term_months": 12, "contract_start": "2026-02-01"}),
            );
        }
    }
    crm.fact("tick", "clock.ticked", json!({"date": "2026-03-01"}));
    crm.fact(
        "fx",
        "fx.rate",
        json!({"base": "EUR", "quote": "USD", "date": "2026-02-01", "rate": "1000000000"}),
    );
    crm.fact("next", "clock.ticked", json!({"date": "2026-03-02"}));
    crm.process();
    let keys = |topic: &str| -> BTreeSet<String> {
        let records = crm.read(topic).into_iter();
        records
            .map(|record| String::from_utf8(record.key.expect("a key")).expect("text"))
            .collect()
    };
    let wanted: BTreeSet<String> = (0..12)
        .flat_map(|n| [format!("acme/A{n}"), format!("acme/Z{n}")])
        .collect();
    assert_eq!(keys("journal.entries"), wanted);
    let letters = crm.letters();
    for n in 0..12 {
        let of = format!("contract acme/M{n}: ");
        assert!(
            letters
                .iter()
                .any(|it| it.code == "unencodable" && it.message.starts_with(&of)),
            "{of}"
        );
    }
}

/// What came ahead of its deal is judged when that closes, and goes to people if it does not fit then.
#[test]
fn a_fact_that_waited_for_its_deal_and_does_not_fit_it_is_a_dead_letter() {
    let mut crm = Crm::new(false);
    crm.fact(
        "early",
        "usage.reported",
        json!({"deal_id": "D1", "line_item_id": "nobody", "quantity": 5, "date": "2026-02-03"}),
    );
    crm.process();
    assert_eq!(crm.codes(), Vec::<String>::new());
    crm.fact(
        "close",
        "deal.closed",
        json!({"deal_id": "D1", "amount": 1200, "currency": "USD", "term_months": 12, "contract_start": "2026-02-01"}),
    );
    crm.process();
    let letters = crm.letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].message.contains("early"), "{}", letters[0].message);
}

#[test]
fn a_tick_over_many_contracts_posts_each_once() {
    let mut crm = Crm::new(false);
    for n in 0..900 {
        crm.fact(
            &format!("e{n}"),
            "deal.closed",
            json!({"deal_id": format!("D{n}"), "amount": 1200, "currency": "USD", "term_months": 12, "contract_start": "2026-02-01",
                   "billing_cycle": "monthly"}),
        );
    }
    crm.fact("tick", "clock.ticked", json!({"date": "2026-03-02"}));
    crm.fact("again", "clock.ticked", json!({"date": "2026-03-02"}));
    crm.process();
    // For each deal: the invoices of February and March, and February's revenue.
    let ids: BTreeSet<_> = crm
        .read("journal.entries")
        .iter()
        .map(|r| r.header("ce_id").map(<[u8]>::to_vec))
        .collect();
    assert_eq!(ids.len(), 2_700);
    assert_eq!(crm.read("journal.entries").len(), 2_700);
}

/// A plan is one record, and the last one of a deal is all of it: also where an obligation went, and where nothing is left.
#[test]
fn the_last_schedule_of_a_deal_is_its_whole_plan() {
    let mut crm = Crm::new(false);
    let lines = |lines: &[(&str, i64)]| {
        let lines: Vec<Json> = lines
            .iter()
            .map(|(id, amount)| json!({"id": id, "type": "subscription", "amount": amount}))
            .collect();
        Json::from(lines)
    };
    for (id, deal) in [("c1", "D1"), ("c2", "D2")] {
        crm.fact(
            id,
            "deal.closed",
            json!({"deal_id": deal, "amount": 1800, "currency": "USD", "term_months": 12, "contract_start": "2026-02-01",
                   "billing_cycle": "monthly", "line_items": lines(&[("a", 1200), ("b", 600)])}),
        );
    }
    // From the first day on, one line only; and nothing at all.
    crm.fact(
        "d1",
        "deal.amended",
        json!({"deal_id": "D1", "amount": 1200, "currency": "USD", "effective_date": "2026-02-01",
               "line_items": lines(&[("a", 1200)])}),
    );
    crm.fact(
        "d2",
        "deal.cancelled",
        json!({"deal_id": "D2", "effective_date": "2026-02-01"}),
    );
    crm.fact("tick", "clock.ticked", json!({"date": "2026-03-02"}));
    crm.process();

    let plans = |deal: &str| {
        let records: Vec<Record> = crm.read("recognition.schedule");
        let of = records
            .iter()
            .filter(|it| it.key.as_deref() == Some(format!("acme/{deal}").as_bytes()));
        of.map(|it| {
            crm.schemas
                .decode_recognition_schedule(it.value.as_deref().expect("value"))
                .expect("plan")
        })
        .collect::<Vec<_>>()
    };
    let obligations = |plan: &[accrue::revenue::contract::ScheduleRow]| {
        let names: BTreeSet<String> = plan.iter().map(|row| row.obligation.to_string()).collect();
        names.len()
    };
    let kept = plans("D1");
    let shape: Vec<(usize, usize)> = kept.iter().map(|plan| (obligations(plan), plan.len())).collect();
    assert_eq!(shape, [(2, 24), (1, 12), (1, 12)], "closed, amended, posted in part");
    let sum: rust_decimal::Decimal = kept[2].iter().map(|row| row.amount).sum();
    assert_eq!(sum, 1200.into());
    let posted = |plan: &[accrue::revenue::contract::ScheduleRow]| plan.iter().filter(|row| row.posted).count();
    assert_eq!(kept.iter().map(|plan| posted(plan)).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(kept.iter().map(|plan| plan[0].revision).collect::<Vec<_>>(), [1, 2, 2]);
    let gone = plans("D2");
    assert_eq!(
        gone.iter().map(Vec::len).collect::<Vec<_>>(),
        [24, 0],
        "closed, cancelled"
    );
    let billed: Vec<usize> = crm
        .read("billing.schedule")
        .iter()
        .filter(|it| it.key.as_deref() == Some(b"acme/D2"))
        .map(|it| {
            crm.schemas
                .decode_billing_schedule(it.value.as_deref().expect("value"))
                .expect("plan")
                .len()
        })
        .collect();
    assert_eq!(billed, [12, 0]);

    // Each record that was ever written has an id of its own.
    for topic in ["contract.state", "recognition.schedule", "billing.schedule"] {
        let records = crm.read(topic);
        let ids: BTreeSet<_> = records
            .iter()
            .map(|it| it.header("ce_id").map(<[u8]>::to_vec))
            .collect();
        assert_eq!(ids.len(), records.len(), "{topic}");
    }
}

/// What a fact writes does not grow with the deal's history, and a start in between finds all of it.
#[test]
fn a_long_history_is_stored_page_by_page() {
    let mut crm = Crm::new(false);
    let terms = json!({"deal_id": "D1", "amount": 1200, "currency": "USD", "term_months": 12, "billing_cycle": "monthly",
        "contract_start": "2026-01-01", "line_items": [{"id": "seats", "type": "subscription", "amount": 1200},
        {"id": "calls", "type": "usage", "amount": 0, "method": "usage", "unit_price": "0.05"}]});
    crm.fact("e0", "deal.closed", terms);
    for start in 0..3 {
        for n in 0..60 {
            // Some are of earlier days than what was stored before.
            let day = format!("2026-{:02}-{:02}", 1 + (n * 5 + start) % 9, 1 + n % 28);
            let usage = json!({"deal_id": "D1", "line_item_id": "calls", "quantity": 100 + n, "date": day});
            crm.fact(&format!("u{start}-{n}"), "usage.reported", usage);
        }
        crm.fact(
            &format!("t{start}"),
            "clock.ticked",
            json!({"date": format!("2026-{:02}-01", 4 + 3 * start)}),
        );
        crm.process();
    }
    assert_eq!(crm.codes(), Vec::<String>::new());

    let stored = crm.read("test-contract-changelog");
    let size = |record: &Record| record.value.as_ref().map_or(0, Vec::len);
    let largest = stored.iter().map(size).max().unwrap();
    assert!(largest < 8_000, "a record of {largest} bytes");
    let pages = stored
        .iter()
        .filter(|record| record.key.as_ref().is_some_and(|key| key.starts_with(b"h ")));
    let pages: Vec<_> = pages.map(|record| record.key.clone()).collect();
    assert!(pages.len() >= 5, "{} pages", pages.len());
    assert_eq!(
        pages.iter().collect::<BTreeSet<_>>().len(),
        pages.len(),
        "a page is written once"
    );

    let records = crm.read("contract.facts");
    let here = records
        .iter()
        .find(|record| record.key.as_deref() == Some(b"acme/D1"))
        .unwrap()
        .at
        .partition;
    let mut books = Books::new(crm.topology.settings().clone());
    for record in records.iter().filter(|record| record.at.partition == here) {
        books.fold(crm.schemas.decode_fact(record.value.as_deref().unwrap()).expect("fact"));
    }
    let expected: BTreeSet<_> = books
        .finish(None)
        .journals
        .iter()
        .map(|entry| entry.entry_id.to_string())
        .collect();
    let issued: BTreeSet<_> = crm
        .read("journal.entries")
        .iter()
        .map(|record| {
            crm.schemas
                .decode_journal_entry(record.value.as_deref().unwrap())
                .expect("entry")
                .entry_id
                .to_string()
        })
        .collect();
    assert!(issued.len() > 20, "{} entries", issued.len());
    assert_eq!(issued, expected);
}

/// A deal of many lines that began long ago issues thousands of entries in one step: its records stay small all the same.
#[test]
fn a_step_that_issues_thousands_of_entries_writes_several_pages() {
    let mut crm = Crm::new(false);
    let lines: Vec<Json> = (0..150)
        .map(|n| json!({"id": format!("l{n}"), "type": "subscription", "amount": 380}))
        .collect();
    let terms = json!({"deal_id": "D1", "amount": 57_000, "currency": "USD", "term_months": 38,
        "contract_start": "2023-01-01", "line_items": lines});
    crm.fact("e0", "deal.closed", terms);
    crm.fact("tick", "clock.ticked", json!({"date": "2026-02-01"}));
    crm.process();
    crm.fact("next", "clock.ticked", json!({"date": "2026-03-01"}));
    crm.process();
    let letters: Vec<String> = crm.letters().into_iter().map(|letter| letter.message).collect();
    assert_eq!(letters, Vec::<String>::new());
    let entries = crm.read("journal.entries").len();
    assert!(entries > 150 * 38, "{entries} entries");
    let stored = crm.read("test-contract-changelog");
    let largest = stored
        .iter()
        .map(|record| record.value.as_ref().map_or(0, Vec::len))
        .max();
    assert!(largest < Some(300_000), "a record of {largest:?} bytes");
    let pages = stored
        .iter()
        .filter(|record| record.key.as_ref().is_some_and(|key| key.starts_with(b"h ")));
    assert!(pages.count() >= 6);
}

/// A deal with the columns that few tests need.
fn deal_row(id: &str, stage: &str, amount: &str, more: Json) -> Json {
    let mut row = json!({"id": id, "stage": stage, "amount": amount, "currency": "USD", "start": "2026-02-01",
                         "months": 12, "customer": "C-1"});
    let more = more.as_object().expect("columns").clone();
    row.as_object_mut().expect("columns").extend(more);
    row
}

/// The deals that the public facts are about, with their ids and types.
fn told(crm: &Crm) -> Vec<String> {
    let records = crm.read("deal.canonical");
    let facts = records.iter().map(|record| {
        let fact = crm
            .schemas
            .decode_deal_event(record.value.as_deref().unwrap())
            .expect("fact");
        let deal = fact.body.deal_id().expect("deal");
        format!("{} {} {deal}", fact.event_id, fact.body.type_name())
    });
    facts.collect()
}

#[test]
fn a_renewal_by_a_row_of_its_own_goes_on_with_the_contract_of_the_first() {
    let text = TOPOLOGY
        .replace("won = \"closed\"", "won = \"closed\"\nrenewed = \"renewed\"")
        .replace("partitions = 3", "partitions = 1")
        .replace(
            "effective_date = \"effective\"",
            "effective_date = \"effective\"\nrenewed_from = \"prior\"",
        );
    let mut crm = Crm::with(&text);
    crm.customer();
    crm.line(5, "L1", "D1", "1200");
    crm.deal(5, "D1", "won", "1200");
    crm.process();
    let next = |amount, stage| deal_row("D2", stage, amount, json!({"start": "2027-02-01", "prior": "D1"}));
    crm.line(6, "L2", "D2", "1500");
    crm.row("crm.deals", "c", 6, "D2", Some(next("1500", "renewed")));
    crm.process();
    crm.line(7, "L2", "D2", "1600");
    crm.row("crm.deals", "u", 7, "D2", Some(next("1600", "renewed")));
    crm.process();
    crm.row("crm.deals", "u", 8, "D2", Some(next("1600", "cancelled")));
    crm.process();
    assert_eq!(
        told(&crm),
        [
            "crm:D1:000001 deal.closed D1",
            "crm:D2:000001 deal.renewed D1",
            "crm:D2:000002 deal.amended D1",
            "crm:D2:000003 deal.cancelled D1",
        ]
    );
    assert_eq!(crm.codes(), Vec::<String>::new());
}

const MILESTONES: &str = r#"
[[source]]
name = "milestones"
topic = "crm.milestones"
format = "debezium-json"
mapping = "crm"
table = "milestones"
"#;

const MILESTONE_COLUMNS: &str = r#"
[mapping.crm.milestone]
id = "id"
deal_id = "deal"
line_item_id = "line"
accepted_on = "accepted"
percent = "percent"
[tenants.acme]"#;

fn with_milestones() -> String {
    TOPOLOGY
        .replace("#TRANSACTIONS", MILESTONES)
        .replace("[tenants.acme]", MILESTONE_COLUMNS)
        .replace("partitions = 3", "partitions = 1")
}

#[test]
fn a_baseline_keeps_quiet_about_what_it_states_and_about_nothing_later() {
    let mut crm = Crm::with(&with_milestones().replace("settle_timeout", "snapshot = \"baseline\"\nsettle_timeout"));
    crm.customer();
    let milestone = |id: &str, line: &str, accepted: Json| json!({"id": id, "deal": "D1", "line": line, "percent": 100, "accepted": accepted});
    let line = |id: &str, amount: &str| json!({"id": id, "deal": "D1", "amount": amount});
    crm.row(
        "crm.deals",
        "r",
        5,
        "D1",
        Some(deal_row("D1", "won", "1200", json!({}))),
    );
    crm.row(
        "crm.deals",
        "r",
        5,
        "D2",
        Some(deal_row("D2", "negotiation", "10", json!({}))),
    );
    crm.row(
        "crm.deals",
        "r",
        5,
        "D3",
        Some(deal_row("D3", "cancelled", "10", json!({}))),
    );
    crm.row("crm.lines", "r", 5, "L1", Some(line("L1", "1000")));
    crm.row("crm.lines", "r", 5, "L2", Some(line("L2", "200")));
    crm.row(
        "crm.milestones",
        "r",
        5,
        "M1",
        Some(milestone("M1", "L1", json!("2026-01-15"))),
    );
    crm.row("crm.milestones", "r", 5, "M2", Some(milestone("M2", "L2", Json::Null)));
    crm.process();
    assert_eq!(crm.announced(), Vec::<String>::new());
    crm.line(6, "L1", "D1", "1300");
    crm.deal(6, "D1", "won", "1500");
    crm.process();
    crm.row(
        "crm.milestones",
        "u",
        7,
        "M2",
        Some(milestone("M2", "L2", json!("2026-03-15"))),
    );
    crm.deal(8, "D1", "cancelled", "1500");
    // A deal that was open when the books were, is new to them when it is won.
    crm.line(9, "L9", "D2", "10");
    crm.deal(9, "D2", "won", "10");
    crm.process();
    let mut told: Vec<String> = told(&crm);
    told.sort();
    assert_eq!(
        told,
        [
            "crm:D1:000004 deal.amended D1",
            "crm:D1:000005 milestone.accepted D1",
            "crm:D1:000006 deal.cancelled D1",
            "crm:D2:000001 deal.closed D2",
        ]
    );
    assert_eq!(crm.codes(), Vec::<String>::new());
}

/// A deal with a new id is the old one for the books: each of its events is for people to send.
#[test]
fn a_renamed_deal_says_nothing_under_its_new_id() {
    let mut crm = Crm::with(&TOPOLOGY.replace("partitions = 3", "partitions = 1"));
    crm.customer();
    crm.line(5, "L1", "D1", "1200");
    crm.deal(5, "D1", "won", "1200");
    crm.process();
    crm.lsn += 100;
    let moved = json!({"before": null, "after": deal_row("D9", "won", "1200", json!({})), "op": "c",
                       "source": {"connector": "postgresql", "lsn": crm.lsn, "ts_ms": crm.clock}, "transaction": null});
    let mut producer = crm.log.producer("crm").expect("producer");
    producer.begin().expect("begin");
    let old_key = accrue::stream::record::Header::new("__debezium.oldkey", json!({"id": "D1"}).to_string());
    producer
        .send(Outgoing {
            to: TopicPartition::new(&Topic::new("crm.deals"), Partition(0)),
            timestamp: Timestamp(crm.clock),
            key: Some(json!({"id": "D9"}).to_string().into_bytes()),
            value: Some(moved.to_string().into_bytes()),
            headers: vec![old_key],
        })
        .expect("send");
    producer.commit(&Positions::new(), None).expect("commit");
    crm.line(6, "L1", "D9", "1200");
    crm.process();
    crm.deal(7, "D9", "cancelled", "1200");
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    let letters = crm.letters();
    assert!(
        letters.iter().all(|letter| letter.code == "deal_renamed"),
        "{letters:?}"
    );
    assert!(
        letters.last().expect("letter").message.contains("deal.cancelled"),
        "{letters:?}"
    );
}

fn of_two_tenants() -> String {
    with_milestones()
        .replace("tenant = \"acme\"", "tenant = { column = \"tenant\" }")
        .replace(
            "[tenants.acme]",
            "[tenants.globex]\nfunctional_currency = \"USD\"\n[tenants.acme]",
        )
}

#[test]
fn rows_of_two_tenants_with_the_same_ids_are_two() {
    let mut crm = Crm::with(&of_two_tenants());
    for (tenant, name) in [("acme", "Wile E."), ("globex", "Hank")] {
        let row = json!({"tenant": tenant, "id": "C-1", "name": name});
        crm.keyed(
            "crm.customers",
            "c",
            1,
            json!({"tenant": tenant, "id": "C-1"}),
            Some(row),
        );
    }
    for tenant in ["acme", "globex"] {
        let line = json!({"tenant": tenant, "id": "L1", "deal": "D1", "amount": "1200"});
        crm.keyed("crm.lines", "c", 5, json!({"tenant": tenant, "id": "L1"}), Some(line));
        let deal = deal_row("D1", "won", "1200", json!({"tenant": tenant}));
        crm.keyed("crm.deals", "c", 5, json!({"tenant": tenant, "id": "D1"}), Some(deal));
    }
    crm.process();
    let records = crm.read("deal.canonical");
    let customers: BTreeSet<String> = records
        .iter()
        .map(|record| {
            let fact = crm
                .schemas
                .decode_deal_event(record.value.as_deref().unwrap())
                .expect("fact");
            let customer = fact
                .body
                .terms()
                .and_then(|deal| deal.customer.clone())
                .expect("customer");
            format!("{} {}", fact.tenant, customer.name.unwrap_or_default())
        })
        .collect();
    assert_eq!(
        customers,
        BTreeSet::from(["acme Wile E.".to_owned(), "globex Hank".to_owned()])
    );
    crm.keyed("crm.deals", "d", 6, json!({"tenant": "acme", "id": "D1"}), None);
    crm.process();
    assert_eq!(crm.codes(), ["deal_deleted"]);
    let told = &crm.letters()[0].message;
    assert!(told.contains("deal acme/D1"), "{told}");
}

#[test]
fn lines_are_numbered_within_their_deals_and_milestones_within_their_lines() {
    let mut crm = Crm::with(&with_milestones());
    crm.customer();
    let line = |deal: &str, no: i64, amount: &str| json!({"deal": deal, "id": no, "amount": amount});
    let key = |deal: &str, no: i64| json!({"deal": deal, "id": no});
    for deal in ["D1", "D2"] {
        crm.keyed("crm.lines", "c", 5, key(deal, 1), Some(line(deal, 1, "700")));
        crm.keyed("crm.lines", "c", 5, key(deal, 2), Some(line(deal, 2, "500")));
        for no in [1, 2] {
            let row = json!({"deal": deal, "line": no, "id": "M", "percent": 100, "accepted": null});
            let key = json!({"deal": deal, "line": no, "id": "M"});
            crm.keyed("crm.milestones", "c", 5, key, Some(row));
        }
        crm.deal(5, deal, "won", "1200");
    }
    crm.process();
    crm.keyed("crm.lines", "d", 6, key("D1", 2), None);
    crm.deal_from(6, "D1", "won", "700", json!("2026-05-01"));
    crm.process();
    let both = "deal.closed 1200 [1=700 2=500]";
    assert_eq!(crm.announced(), [both, both, "deal.amended 700 [1=700]"]);
    for no in [1, 2] {
        let row = json!({"deal": "D2", "line": no, "id": "M", "percent": 100, "accepted": "2026-03-01"});
        crm.keyed(
            "crm.milestones",
            "u",
            7,
            json!({"deal": "D2", "line": no, "id": "M"}),
            Some(row),
        );
    }
    crm.process();
    assert_eq!(crm.announced()[3..], ["milestone.accepted", "milestone.accepted"]);
    assert_eq!(crm.codes(), Vec::<String>::new());
}

#[test]
fn a_line_that_goes_to_another_deal_leaves_the_first() {
    let mut crm = Crm::with(&TOPOLOGY.replace("partitions = 3", "partitions = 1"));
    crm.customer();
    crm.line(5, "L1", "D3", "700");
    crm.line(5, "L2", "D3", "500");
    crm.deal(5, "D3", "won", "1200");
    crm.line(5, "L4", "D4", "100");
    crm.deal(5, "D4", "won", "100");
    crm.process();
    crm.line(6, "L2", "D4", "500");
    crm.deal(6, "D3", "won", "700");
    crm.deal(6, "D4", "won", "600");
    crm.process();
    assert_eq!(
        crm.announced()[2..],
        ["deal.amended 700 [L1=700]", "deal.amended 600 [L2=500 L4=100]"]
    );
    // Its delete finds it where it is now.
    crm.row("crm.lines", "d", 7, "L2", None);
    crm.deal(7, "D4", "won", "100");
    crm.process();
    assert_eq!(crm.announced()[4..], ["deal.amended 100 [L4=100]"]);
    assert_eq!(crm.codes(), Vec::<String>::new());
}

#[test]
fn a_restored_database_is_not_taken_for_old_news() {
    let mut crm = Crm::new(false);
    crm.customer();
    crm.line(5, "L1", "D1", "1200");
    crm.deal(5, "D1", "won", "1200");
    crm.process();
    crm.lsn = 10;
    crm.line(6, "L1", "D1", "1500");
    crm.deal(6, "D1", "won", "1500");
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    assert_eq!(crm.codes(), ["log_went_back", "log_went_back"]);
    let told = &crm.letters()[0].message;
    assert!(told.contains("give [mapping.crm] another name"), "{told}");

    let renamed = TOPOLOGY
        .replace("\"crm\"", "\"sales\"")
        .replace("[mapping.crm", "[mapping.sales");
    crm.topology = config::parse("test.toml", &renamed, &|_| None).expect("topology");
    crm.row(
        "crm.customers",
        "r",
        7,
        "C-1",
        Some(json!({"id": "C-1", "name": "Globex"})),
    );
    crm.row(
        "crm.deals",
        "r",
        7,
        "D1",
        Some(deal_row("D1", "won", "1500", json!({}))),
    );
    crm.row(
        "crm.lines",
        "r",
        7,
        "L1",
        Some(json!({"id": "L1", "deal": "D1", "amount": "1500"})),
    );
    crm.process();
    assert_eq!(crm.announced()[1..], ["deal.amended 1500 [L1=1500]"]);
}

/// What a connector did not send is not empty: a refund is not guessed from it.
#[test]
fn a_refund_that_was_not_sent_is_asked_for() {
    let text = TOPOLOGY.replace(
        "effective_date = \"effective\"",
        "effective_date = \"effective\"\nrefund = \"refund\"",
    );
    let mut crm = Crm::with(&text);
    crm.customer();
    crm.line(5, "L1", "D1", "1200");
    let unsent = || json!({"refund": "__debezium_unavailable_value"});
    crm.row("crm.deals", "u", 5, "D1", Some(deal_row("D1", "won", "1200", unsent())));
    crm.row(
        "crm.deals",
        "u",
        6,
        "D1",
        Some(deal_row("D1", "cancelled", "1200", unsent())),
    );
    crm.process();
    assert_eq!(crm.announced(), ["deal.closed 1200 [L1=1200]"]);
    assert_eq!(crm.codes(), ["bad_column"]);
    crm.row(
        "crm.deals",
        "u",
        7,
        "D1",
        Some(deal_row("D1", "cancelled", "1200", json!({"refund": "none"}))),
    );
    crm.process();
    assert_eq!(crm.announced()[1..], ["deal.cancelled"]);
}

/// A record as large as a source's producer can write, and its letter, which is that and more.
#[test]
fn the_letter_of_the_largest_record_is_one_that_a_broker_takes() {
    let mut crm = Crm::new(false);
    crm.send(
        "crm.deals",
        Some(json!({"id": "D1"})),
        Some(json!("x".repeat(1_048_000))),
    );
    crm.row(
        "crm.deals",
        "u",
        5,
        "D2",
        Some(deal_row("y".repeat(1_020_000).as_str(), "won", "1", json!({}))),
    );
    crm.row(
        "crm.deals",
        "u",
        5,
        "D3",
        Some(deal_row("D3", "won", "1", json!({"amount": "z".repeat(1_020_000)}))),
    );
    crm.process();
    let letters = crm.letters();
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        assert!(
            letter.cut && letter.value.is_none() && letter.key.is_some(),
            "{}",
            letter.code
        );
        assert!(
            letter.message.len() < 9_000 && letter.message.contains("it is at crm."),
            "{}",
            letter.code
        );
    }
    for topic in ["accrue.dead-letters", "crm.changes"] {
        for record in crm.read(topic) {
            assert!(record.bytes() < 1_048_000, "{topic}: {} bytes", record.bytes());
        }
    }
    let topic = Topic::new(crm.topology.outputs.dead_letters.as_str());
    let mut clerk = Clerk::new(crm.log.as_ref(), "test", &topic, &crm.schemas).expect("clerk");
    let first = *clerk.letters().keys().next().expect("letter");
    assert!(matches!(clerk.retry(first, None), Err(LetterError::Cut(..))));
}

/// As an earlier version left it: rows by their own ids alone, with their deals alone; milestones by their own ids.
fn as_stored_before(crm: &Crm) {
    let topic = Topic::new("test-crm-changelog");
    let mut producer = crm.log.producer("before").expect("producer");
    producer.begin().expect("begin");
    let latest: BTreeMap<Vec<u8>, Record> = crm
        .read("test-crm-changelog")
        .into_iter()
        .filter_map(|record| Some((record.key.clone()?, record)))
        .collect();
    for (key, record) in latest {
        let Some(value) = &record.value else { continue };
        let (old_key, old_value) = if key.starts_with(b"i ") {
            let own = key.split(|byte| *byte == 0x1f).next_back().expect("id");
            let kept = key.split(|byte| *byte == b' ').take(3).collect::<Vec<_>>().join(&b' ');
            let old_key = match key.contains(&0x1f) {
                true => [&kept, &b" "[..], own].concat(),
                false => key.clone(),
            };
            (
                old_key,
                value.split(|byte| *byte == b'\n').next().expect("deal").to_vec(),
            )
        } else if key.starts_with(b"d ") {
            let mut picture = DealPicture::decode(value).expect("picture");
            let own = |id: String| id.split_once('/').map_or(id.clone(), |(_, own)| own.to_owned());
            let rows = std::mem::take(&mut picture.milestones);
            picture.milestones = rows.into_iter().map(|(id, known)| (own(id), known)).collect();
            picture.accepted = std::mem::take(&mut picture.accepted).into_iter().map(own).collect();
            (key.clone(), picture.encode().expect("bytes"))
        } else {
            continue;
        };
        for (key, value) in [(key, None), (old_key, Some(old_value))] {
            producer
                .send(Outgoing {
                    to: TopicPartition::new(&topic, record.at.partition),
                    timestamp: record.timestamp,
                    key: Some(key),
                    value,
                    headers: Vec::new(),
                })
                .expect("send");
        }
    }
    producer.commit(&Positions::new(), None).expect("commit");
    std::fs::remove_dir_all(crm.dir.path().join("state")).expect("state");
}

#[test]
fn what_an_earlier_version_stored_is_found() {
    let mut crm = Crm::with(&with_milestones());
    crm.customer();
    let accepted =
        |percent: i64| json!({"id": "M1", "deal": "D1", "line": "L1", "percent": percent, "accepted": "2026-03-01"});
    crm.row("crm.milestones", "c", 5, "M1", Some(accepted(100)));
    crm.line(5, "L1", "D1", "700");
    crm.line(5, "L2", "D1", "500");
    crm.deal(5, "D1", "won", "1200");
    // A table whose key is of two columns.
    crm.keyed(
        "crm.lines",
        "c",
        5,
        json!({"a": "D1", "id": "3"}),
        Some(json!({"id": "3", "deal": "D1", "amount": "0"})),
    );
    crm.process();
    let before = crm.announced().len();
    as_stored_before(&crm);
    crm.row("crm.milestones", "u", 6, "M1", Some(accepted(100)));
    crm.row("crm.lines", "d", 6, "L2", None);
    crm.keyed("crm.lines", "d", 6, json!({"a": "D1", "id": "3"}), None);
    crm.deal(6, "D1", "won", "700");
    crm.process();
    assert_eq!(
        crm.announced()[before..],
        ["deal.amended 700 [L1=700]"],
        "and nothing is accepted twice"
    );
    assert_eq!(crm.codes(), Vec::<String>::new());
}

/// Every source from its start again, as `accrue offsets rewind --to-start` has it.
fn read_again(crm: &Crm) {
    let shape = pipeline::shape(&crm.topology).expect("shape");
    for topic in &shape.subs[0].sources {
        let steps = rewind::plan(&shape, crm.log.as_ref(), topic, None, Target::Start).expect("plan");
        for (at, step) in &steps {
            for record in crm.read(at.topic.as_str()) {
                assert!(record.offset < step.from, "all was read");
                let unknown = replays::unrecognised(&crm.topology, &crm.schemas, &record).expect("registry");
                assert_eq!(unknown, None, "{at} {}", record.offset);
            }
        }
        rewind::run(&shape, crm.log.as_ref(), &steps).expect("rewind");
    }
}

/// Also facts that changed nothing when they came, and would now: the second close of a period that was reopened since, and
/// the close that came before its period was over.
#[test]
fn sources_that_are_read_again_change_nothing() {
    let history = |rewound: bool| {
        let mut crm = Crm::new(true);
        crm.customer();
        crm.line(5, "L1", "D1", "1200");
        crm.deal(5, "D1", "won", "1200");
        crm.end(5, 2);
        crm.send("crm.deals", Some(json!({"id": "D2"})), Some(json!("not a change")));
        let deal = json!({"deal_id": "F1", "amount": 600, "currency": "USD", "term_months": 6, "contract_start": "2026-02-01"});
        crm.fact("f1", "deal.closed", deal);
        crm.fact("t0", "clock.ticked", json!({"date": "2026-03-05"}));
        crm.fact("early", "period.closed", json!({"period": "2026-04"}));
        for id in ["c1", "c2"] {
            crm.fact(id, "period.closed", json!({"period": "2026-02"}));
        }
        crm.process();
        crm.line(6, "L1", "D1", "2400");
        crm.deal(6, "D1", "won", "2400");
        crm.end(6, 2);
        crm.fact("r1", "period.reopened", json!({"period": "2026-02"}));
        crm.fact("t1", "clock.ticked", json!({"date": "2026-05-01"}));
        crm.process();
        if rewound {
            read_again(&crm);
            crm.process();
        }
        let payment = json!({"deal_id": "F1", "amount": 1, "currency": "USD", "date": "2026-04-10"});
        crm.fact("p1", "payment.received", payment);
        crm.fact("t2", "clock.ticked", json!({"date": "2026-06-01"}));
        crm.process();
        let books = [
            "contract.state",
            "recognition.schedule",
            "billing.schedule",
            "journal.entries",
        ];
        books.map(|topic| -> Vec<_> {
            let values = crm.read(topic).into_iter().map(|record| (record.key, record.value));
            values.collect()
        })
    };
    let calm = history(false);
    assert!(calm[3].len() >= 6, "{} entries", calm[3].len());
    assert!(history(true) == calm, "the books differ");
}

/// A schema that only the configured level refuses is refused, and not accepted before the level is set.
#[test]
fn schemas_are_registered_under_the_configured_compatibility() {
    let text = format!("{TOPOLOGY}[registry]\ncompatibility = \"full_transitive\"\n");
    let topology = config::parse("test.toml", &text, &|_| None).expect("topology");
    let dir = tempfile::tempdir().expect("folder");
    let registry = Arc::new(Embedded::open(dir.path()).expect("registry"));
    // The version before had a field more, without a default: it cannot read what is written now.
    let mut before: Json = serde_json::from_str(Product::ContractFacts.schema_text()).expect("schema");
    let fields = before["fields"].as_array_mut().expect("fields");
    fields.push(json!({"name": "dropped", "type": "string"}));
    let subject = Subject::value_of("contract.facts");
    registry.register(&subject, &before.to_string()).expect("registered");
    let refused = pipeline::schemas(&topology, registry).err();
    assert!(
        matches!(refused, Some(RegistryError::Incompatible { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_row_without_a_position_would_not_be_recognised() {
    let mut crm = Crm::new(false);
    let row = |source: Json| json!({"before": null, "after": {"id": "D1", "stage": "won"}, "op": "u", "ts_ms": 1, "source": source});
    let known = json!({"connector": "postgresql", "schema": "public", "table": "deals", "lsn": 7});
    let unknown = json!({"connector": "postgresql", "schema": "public", "table": "deals"});
    for source in [known, unknown] {
        crm.send("crm.deals", Some(json!({"id": "D1"})), Some(row(source)));
    }
    let told: Vec<Option<String>> = crm
        .read("crm.deals")
        .iter()
        .map(|record| replays::unrecognised(&crm.topology, &crm.schemas, record).expect("registry"))
        .collect();
    assert_eq!(told[0], None);
    let why = told[1].as_deref().expect("refused");
    assert!(
        why.starts_with("a row without a position in its database's log"),
        "{why}"
    );
}
