//! Deals as another system sends them, as many and for as long as a test wants: each is closed, and amended a little later.
//!
//! Invariant: a function of the deal's number; all events are in one partition, the clock of the books first, so that every
//! installation takes them in the same order.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use accrue::stream::log::kafka::KafkaLog;
use accrue::stream::log::{Cleanup, Log, LogErrorKind, Positions, Producer, TopicSpec};
use accrue::stream::record::{Outgoing, Partition, Timestamp, Topic, TopicPartition};

use super::Platform;

const LINES: u64 = 2;
/// The fourth month of every deal begins: three months of each are recognized.
const CLOCK: &str = r#"{"event_id":"tick","source":"test","type":"clock.ticked","occurred_at":"2025-12-01T00:00:00Z","tenant_id":"acme-corp","payload":{"date":"2026-05-01"}}"#;
/// How many deals are closed between a deal's close and its amendment.
const AMENDED_LATER: u64 = 40;

pub struct Deals {
    pub topic: Topic,
    log: KafkaLog,
    producer: Box<dyn Producer>,
    /// Characters of the name of each of its lines: what makes a contract large.
    name_chars: usize,
    closed: u64,
    sent: u64,
}

impl Deals {
    pub fn new(platform: &Platform, topic: &str, name_chars: usize) -> Deals {
        let log = platform.log();
        let topic = Topic::new(topic);
        let spec = TopicSpec {
            topic: topic.clone(),
            partitions: 1,
            replication_factor: 1,
            cleanup: Cleanup::Delete { retention: None },
        };
        log.create_topics(&[spec]).expect("topic");
        let producer = log.producer(&format!("{topic}.sender")).expect("producer");
        let mut deals = Deals {
            topic,
            log,
            producer,
            name_chars,
            closed: 0,
            sent: 0,
        };
        deals.producer.begin().expect("begin");
        deals.put(CLOCK.to_owned());
        deals.producer.commit(&Positions::new(), None).expect("commit");
        deals.sent = 0;
        deals
    }

    /// Closes `count` more deals, and amends as many older ones.
    pub fn send(&mut self, count: u64) {
        self.producer.begin().expect("begin");
        for n in self.closed..self.closed + count {
            self.put(self.event(n, "deal.closed", "c", 1_000, ""));
            if let Some(older) = n.checked_sub(AMENDED_LATER) {
                self.put(self.amended(older, "a".to_owned(), 1_500));
            }
        }
        self.producer.commit(&Positions::new(), None).expect("commit");
        self.closed += count;
    }

    /// Amends `count` deals, anywhere among all that were closed.
    pub fn amend_anywhere(&mut self, count: u64) {
        self.producer.begin().expect("begin");
        for turn in self.sent..self.sent + count {
            let n = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.closed;
            self.put(self.amended(n, format!("b-{turn}"), 2_000 + turn % 1_000));
        }
        self.producer.commit(&Positions::new(), None).expect("commit");
    }

    fn put(&mut self, value: String) {
        // A broker rolls the segments of records that look old at once, and compacts them.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
        self.producer
            .send(Outgoing {
                to: TopicPartition::new(&self.topic, Partition(0)),
                timestamp: Timestamp(now.as_millis() as i64),
                key: None,
                value: Some(value.into_bytes()),
                headers: Vec::new(),
            })
            .expect("send");
        self.sent += 1;
    }

    /// Events of deals sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Events of them that a group has committed, about: offsets count the markers of transactions too. None while its
    /// coordinator is not there yet.
    pub fn processed(&self, group: &str) -> u64 {
        let place = TopicPartition::new(&self.topic, Partition(0));
        match self.log.committed(group, &[place]) {
            Ok(committed) => committed.values().map(|at| at.0).sum(),
            Err(error) if error.kind == LogErrorKind::Retry => 0,
            Err(error) => panic!("committed: {error}"),
        }
    }

    /// Sends `count` deals every tenth of a second until `over`.
    pub fn send_until(&mut self, over: &AtomicBool, count: u64) {
        while !over.load(Ordering::SeqCst) {
            self.send(count);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// The ids of all events sent.
    pub fn ids(&self) -> BTreeSet<String> {
        let amended = self.closed.saturating_sub(AMENDED_LATER);
        let closed = (0..self.closed).map(|n| format!("c-{n}"));
        closed.chain((0..amended).map(|n| format!("a-{n}"))).collect()
    }

    fn amended(&self, n: u64, id: String, price: u64) -> String {
        self.event(n, "deal.amended", &id, price, r#""effective_date":"2026-05-01","#)
    }

    fn event(&self, n: u64, kind: &str, id: &str, price: u64, more: &str) -> String {
        let price = price + n % 7_919;
        let lines: Vec<String> = (0..LINES)
            .map(|line| {
                let name = noise(LINES * n + line, self.name_chars);
                format!(
                    r#"{{"id":"l{line}","type":"subscription","name":"{name}","amount":{}}}"#,
                    price + line
                )
            })
            .collect();
        let total: u64 = (0..LINES).map(|line| price + line).sum();
        format!(
            r#"{{"event_id":"{id}-{n}","source":"test","type":"{kind}","occurred_at":"2026-01-05T00:00:00Z","tenant_id":"acme-corp","payload":{{"deal_id":"D-{n}","amount":{total},"currency":"USD","term_months":12,"billing_cycle":"monthly","contract_start":"2026-02-01",{more}"customer":{{"customer_id":"C-{c}","name":"Customer {c}"}},"line_items":[{lines}],"revenue_recognition":{{"method":"linear"}}}}}}"#,
            c = n % 997,
            lines = lines.join(","),
        )
    }
}

/// Letters that no compression shortens, the same for the same seed.
fn noise(seed: u64, chars: usize) -> String {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state >> 40) as u8 % 26)
    };
    (0..chars).map(|_| next()).collect()
}
