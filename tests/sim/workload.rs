//! What the CRM says in a simulation, and the production topology that listens.
//!
//! Owns: the configuration, the topics, and the source records of a seed: deals with lines and customers as row changes,
//! facts (closings, rates, ticks, periods), and bytes that nobody can read.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use accrue::codec::registry::Embedded;
use accrue::codec::schemas::Schemas;
use accrue::config;
use accrue::pipeline;
use accrue::stream::log::{Cleanup, TopicSpec};
use accrue::stream::record::{Outgoing, Partition, Timestamp, Topic, TopicPartition};
use accrue::stream::topology::Topology;
use serde_json::{Value as Json, json};

use super::rng::Rng;

const TOPOLOGY: &str = r#"
application_id = "sim"
[runtime]
partitions = 2
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

/// Everything that is the same for all seeds.
pub struct Subject {
    pub config: config::Topology,
    pub topology: Topology,
    pub schemas: Arc<Schemas>,
    pub topics: Vec<TopicSpec>,
}

/// Built once: registering schemas takes longer than a run.
pub fn subject() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        let config = config::parse("sim.toml", TOPOLOGY, &|_| None).expect("topology");
        let dir = tempfile::tempdir().expect("folder");
        let registry = Arc::new(Embedded::open(dir.path()).expect("registry"));
        let schemas = Arc::new(pipeline::schemas(&config, registry).expect("schemas"));
        let mut topics = pipeline::topics(&config);
        for spec in topics.iter_mut().filter(|spec| spec.topic == Topic::new("events")) {
            // Two partitions, so that the first stage has two tasks.
            spec.partitions = 2;
            spec.cleanup = Cleanup::Delete { retention: None };
        }
        Subject {
            topology: pipeline::build(&config, schemas.clone()).expect("stream"),
            config,
            schemas,
            topics,
        }
    })
}

/// The source records of a seed, in the order in which the CRM writes them.
pub fn records(rng: &mut Rng) -> VecDeque<Outgoing> {
    let mut crm = Crm {
        out: VecDeque::new(),
        clock: 1_767_225_600_000,
        lsn: 1_000,
    };
    crm.row("crm.customers", 1, "C-1", json!({"id": "C-1", "name": "Globex"}));
    let deals = 2 + rng.below(4);
    for deal in 0..deals {
        crm.deal(rng, 10 + deal, &format!("D{deal}"), "won", 1_200);
    }
    let mut month = 2;
    for n in 0..6 + rng.below(14) {
        let deal = format!("D{}", rng.below(deals));
        match rng.below(9) {
            0 => {
                let amount = 1_200 + 100 * rng.below(5);
                crm.deal(rng, 100 + n, &deal, "won", amount);
            }
            1 => crm.deal(rng, 100 + n, &deal, "cancelled", 1_200),
            2 => crm.raw("crm.deals", rng, b"not a change"),
            3 => crm.raw("events", rng, b"{\"type\":"),
            4 => {
                let currency = if rng.chance(50) { "EUR" } else { "USD" };
                let payload = json!({"deal_id": format!("E{}", rng.below(5)), "amount": 2_400, "currency": currency,
                    "term_months": 12, "contract_start": "2026-02-01", "billing_cycle": "monthly"});
                crm.fact(rng, &format!("close-{n}"), "deal.closed", payload);
            }
            5 => {
                let rate =
                    json!({"base": "EUR", "quote": "USD", "date": format!("2026-{month:02}-01"), "rate": "1.10"});
                crm.fact(rng, &format!("fx-{n}"), "fx.rate", rate);
            }
            6 => {
                let payload = json!({"deal_id": format!("E{}", rng.below(5)), "amount": 10, "currency": "USD",
                    "date": "2026-03-03"});
                crm.fact(rng, &format!("paid-{n}"), "payment.received", payload);
            }
            7 => {
                month += 1;
                let day = format!("2026-{month:02}-01");
                crm.fact(rng, &format!("tick-{n}"), "clock.ticked", json!({"date": day}));
            }
            _ => {
                let period = json!({"period": format!("2026-{:02}", month - 1)});
                crm.fact(rng, &format!("closed-{n}"), "period.closed", period);
            }
        }
    }
    crm.out
}

struct Crm {
    out: VecDeque<Outgoing>,
    clock: i64,
    lsn: i64,
}

impl Crm {
    fn send(&mut self, topic: &str, partition: u64, key: Option<Vec<u8>>, value: Vec<u8>) {
        self.clock += 1_000;
        self.out.push_back(Outgoing {
            to: TopicPartition::new(&Topic::new(topic), Partition(partition as u32)),
            timestamp: Timestamp(self.clock),
            key,
            value: Some(value),
            headers: Vec::new(),
        });
    }

    fn raw(&mut self, topic: &str, rng: &mut Rng, bytes: &[u8]) {
        let partition = if topic == "events" { rng.below(2) } else { 0 };
        self.send(topic, partition, None, bytes.to_vec());
    }

    fn row(&mut self, topic: &str, tx: u64, id: &str, after: Json) {
        self.lsn += 100;
        let event = json!({
            "before": null, "after": after, "op": "u", "ts_ms": self.clock,
            "source": {"connector": "postgresql", "schema": "public", "table": topic, "txId": tx, "lsn": self.lsn,
                       "ts_ms": self.clock, "snapshot": "false"},
            "transaction": null,
        });
        self.send(
            topic,
            0,
            Some(json!({"id": id}).to_string().into_bytes()),
            event.to_string().into_bytes(),
        );
    }

    /// A deal and its line, in one transaction of the CRM.
    fn deal(&mut self, rng: &mut Rng, tx: u64, id: &str, stage: &str, amount: u64) {
        let effective = if rng.chance(50) {
            json!("2026-05-01")
        } else {
            Json::Null
        };
        let deal = json!({"id": id, "stage": stage, "amount": amount.to_string(), "currency": "USD",
            "start": "2026-02-01", "months": 12, "effective": effective, "customer": "C-1"});
        let line = json!({"id": format!("L-{id}"), "deal": id, "amount": amount.to_string()});
        self.row("crm.deals", tx, id, deal);
        self.row("crm.lines", tx, &format!("L-{id}"), line);
    }

    fn fact(&mut self, rng: &mut Rng, id: &str, kind: &str, payload: Json) {
        let event = json!({"event_id": id, "source": "test", "type": kind, "occurred_at": "2026-01-05T00:00:00Z",
                           "tenant_id": "acme", "payload": payload});
        let partition = rng.below(2);
        self.send("events", partition, None, event.to_string().into_bytes());
    }
}
