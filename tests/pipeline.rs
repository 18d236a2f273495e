//! The stages on the embedded log: what a CRM says, record by record, and what becomes of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accrue::codec::dead_letter::DeadLetter;
use accrue::codec::registry::Embedded;
use accrue::codec::schemas::Schemas;
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
        let text = TOPOLOGY.replace("#TRANSACTIONS", if transactions { TRANSACTIONS } else { "" });
        let topology = config::parse("test.toml", &text, &|_| None).expect("topology");
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
        self.lsn += 100;
        let event = json!({
            "before": null, "after": after, "op": op, "ts_ms": self.clock,
            "source": {"connector": "postgresql", "schema": "public", "table": topic, "txId": tx, "lsn": self.lsn,
                       "ts_ms": self.clock, "snapshot": if op == "r" { "true" } else { "false" }},
            "transaction": null,
        });
        self.send(topic, Some(json!({"id": id})), Some(event));
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

    fn end(&mut self, tx: i64, events: u64) {
        if self
            .topology
            .sources
            .iter()
            .any(|source| source.name.as_str() == "transactions")
        {
            let mark = json!({"status": "END", "id": format!("{tx}:{}", self.lsn), "event_count": events,
                              "data_collections": [], "ts_ms": self.clock});
            self.send("crm.transaction", Some(json!({"id": tx.to_string()})), Some(mark));
        }
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
    let (lsn, newest) = (crm.lsn, 1_100);
    crm.lsn = newest;
    crm.line(5, "L1", "D1", "1200");
    crm.lsn = lsn;
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
