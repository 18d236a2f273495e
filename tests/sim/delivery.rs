//! A sink, from the journal to a system outside.
//!
//! Owns: what the journal says, the people who decide what a machine must not, and what must hold.
//!
//! * *Written once*: the system has a document of each key at most once, whatever became of processes, requests and answers.
//! * *Nothing unaccounted*: each entry is in one receipt; each document has a receipt with its id and the hash of its body;
//!   the chains of receipts are whole, and end where the stores say.
//! * *In order*: the documents of a deal are written in the order of its entries.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use accrue::codec::delivery_command::{Decision, SinkCommand};
use accrue::codec::fact_json;
use accrue::codec::receipt::{Receipt, hex};
use accrue::codec::registry::Embedded;
use accrue::codec::schemas::Schemas;
use accrue::config::{self, Granularity};
use accrue::pipeline;
use accrue::revenue::books::Books;
use accrue::revenue::journal::JournalEntry;
use accrue::revenue::reference::Settings;
use accrue::sink::application;
use accrue::sink::courier::{Clock, Outside, Threads};
use accrue::sink::delivery::State;
use accrue::sink::metrics::Metrics;
use accrue::sink::reading::{self, Holdings};
use accrue::sink::receipt::Chains;
use accrue::stream::log::TopicSpec;
use accrue::stream::partitioner::partition_for;
use accrue::stream::record::{Outgoing, Partition, Timestamp, Topic, TopicPartition};
use accrue::stream::topology::Shape;
use jiff::Timestamp as Moment;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::client::SimLog;
use super::rng::Rng;
use super::scene::{Pace, Process, Scene};
use super::vendor::{LATEST, Vendor};
use super::world::{Tally, moment};

const PARTITIONS: u32 = 2;

/// Everything that is the same for all seeds.
struct Subject {
    config: config::Topology,
    shape: Shape,
    schemas: Arc<Schemas>,
}

/// With a document for each entry, and with summaries.
fn subjects() -> &'static [Subject; 2] {
    static SUBJECTS: OnceLock<[Subject; 2]> = OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("folder");
        let registry = Arc::new(Embedded::open(dir.path()).expect("registry"));
        ["", "granularity = \"summary\"\nsummary_interval = \"3s\""].map(|sink| {
            let text = format!(
                "application_id = \"sim\"\n[runtime]\npartitions = {PARTITIONS}\n\
                 [[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n\
                 [tenants.acme]\nfunctional_currency = \"USD\"\n\
                 [sinks.ledger]\nkind = \"file\"\n{sink}\n\
                 [sinks.ledger.file]\nformat = \"csv\"\ndir = \"unused\"\n\
                 [sinks.ledger.breaker]\nafter = 4\nprobe_after = \"1s\"\nprobe_at_most = \"10s\"\n\
                 [sinks.ledger.accounts]\naccounts_receivable = \"1100\"\ncash = \"1000\"\n\
                 contract_liability = \"2400\"\ncontract_asset = \"1200\"\nrevenue.subscription = \"4000\"\n"
            );
            let config = config::parse("sim.toml", &text, &|_| None).expect("topology");
            let schemas = Arc::new(pipeline::schemas(&config, registry.clone()).expect("schemas"));
            Subject {
                shape: application::shape(&config, sink_of(&config)).expect("shape"),
                schemas,
                config,
            }
        })
    })
}

fn sink_of(config: &config::Topology) -> &config::Sink {
    config.sinks.values().next().expect("a sink")
}

/// See the module.
pub struct Delivery {
    subject: &'static Subject,
    vendor: Vendor,
    /// As they were written to the journal.
    entries: RefCell<Vec<JournalEntry>>,
    /// What was decided about a document, and when.
    decided: RefCell<BTreeMap<String, Duration>>,
}

impl Delivery {
    pub fn new(seed: u64) -> Delivery {
        let mut rng = Rng::new(seed ^ 0x1ed6_e500);
        Delivery {
            subject: &subjects()[usize::from(rng.chance(30))],
            vendor: Vendor::new(rng),
            entries: RefCell::default(),
            decided: RefCell::default(),
        }
    }

    fn sink(&self) -> &'static config::Sink {
        sink_of(&self.subject.config)
    }

    fn outgoing(&self, topic: &config::TopicName, partition: Partition, key: String, value: Vec<u8>) -> Outgoing {
        Outgoing {
            to: TopicPartition::new(&Topic::new(topic.as_str()), partition),
            timestamp: moment(Duration::ZERO).wall,
            key: Some(key.into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        }
    }

    fn holdings(&self, log: &SimLog) -> Result<Holdings, String> {
        reading::holdings(log, &self.subject.config, self.sink()).map_err(|error| error.to_string())
    }

    fn receipts(&self, log: &SimLog) -> Result<Vec<Receipt>, String> {
        let mut all = Vec::new();
        let read = reading::receipts(log, &self.subject.config, &self.subject.schemas, |receipt| {
            all.push(receipt);
            Ok(())
        });
        read.map_err(|error| error.to_string())?;
        Ok(all)
    }
}

/// Deals that are sold, invoiced, paid and recognized for some months, and their entries, each deal's in its order.
fn books(settings: &Settings, rng: &mut Rng) -> VecDeque<VecDeque<JournalEntry>> {
    let mut books = Books::new(settings.clone());
    let mut say = |id: String, kind: &str, payload: serde_json::Value| {
        let event = json!({"event_id": id, "source": "test", "type": kind, "occurred_at": "2026-01-05T00:00:00Z",
                           "tenant_id": "acme", "payload": payload});
        let fact = fact_json::read(event.to_string().as_bytes(), settings).expect("a fact");
        books.fold(fact);
    };
    let deals = 2 + rng.below(5);
    for deal in 0..deals {
        let payload = json!({"deal_id": format!("D{deal}"), "amount": 1_200 + 100 * deal, "currency": "USD",
            "term_months": 12, "contract_start": "2026-01-01", "billing_cycle": "monthly"});
        say(format!("close-{deal}"), "deal.closed", payload);
    }
    for month in 2..4 + rng.below(3) {
        say(
            format!("tick-{month}"),
            "clock.ticked",
            json!({"date": format!("2026-{month:02}-01")}),
        );
        let payload = json!({"deal_id": format!("D{}", rng.below(deals)), "amount": 10, "currency": "USD",
            "date": format!("2026-{month:02}-01")});
        say(format!("paid-{month}"), "payment.received", payload);
    }
    let mut by_deal: BTreeMap<String, VecDeque<JournalEntry>> = BTreeMap::new();
    for entry in books.finish(None).journals {
        by_deal.entry(entry.deal.to_string()).or_default().push_back(entry);
    }
    by_deal.into_values().collect()
}

impl Scene for Delivery {
    fn shape(&self) -> &Shape {
        &self.subject.shape
    }

    fn topics(&self) -> Vec<TopicSpec> {
        let mut topics = pipeline::topics(&self.subject.config);
        topics.extend(application::topics(&self.subject.config));
        topics
    }

    fn feed(&self, rng: &mut Rng) -> VecDeque<Outgoing> {
        let mut by_deal = books(self.subject.config.settings(), rng);
        let (mut feed, mut entries) = (VecDeque::new(), self.entries.borrow_mut());
        while !by_deal.is_empty() {
            let which = rng.below(by_deal.len() as u64) as usize;
            let Some(entry) = by_deal[which].pop_front() else {
                by_deal.remove(which);
                continue;
            };
            let key = format!("{}/{}", entry.tenant, entry.deal);
            let value = self.subject.schemas.encode_journal_entry(&entry).expect("encodes");
            let to = partition_for(key.as_bytes(), PARTITIONS);
            feed.push_back(self.outgoing(&self.subject.config.outputs.journal_entries, to, key, value));
            entries.push(entry);
        }
        feed
    }

    fn process(&self, log: &SimLog) -> Result<Process, String> {
        let requests = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| error.to_string())?;
        let log = log.clone();
        let clock: Clock = Arc::new(move || time(log.broker().now));
        let built = application::build(
            &self.subject.config,
            self.sink(),
            Outside {
                destination: Arc::new(self.vendor.clone()),
                threads: Threads::of(requests.handle().clone()),
                clock,
            },
            self.subject.schemas.clone(),
            Metrics::new(&prometheus::Registry::new()).map_err(|error| error.to_string())?,
            pipeline::dead_letters(self.subject.schemas.clone()),
        );
        Ok(Process {
            topology: built.map_err(|error| error.to_string())?.topology,
            requests: Some(requests),
        })
    }

    /// Slower than the pipeline's: what a session's end leaves in doubt has to be found out before it ends again.
    fn pace(&self) -> Pace {
        Pace {
            storm_steps: 1_000,
            storm_ms: 600,
            peace_ms: 2_000,
            calm: 3,
        }
    }

    fn pass(&self, now: Duration) {
        self.vendor.pass(now);
    }

    fn peace(&self) {
        self.vendor.peace();
    }

    /// Looks for what is parked in the system, once nothing can be on its way there any more.
    fn people(&self, log: &SimLog) -> Result<(), String> {
        let now = log.broker().now;
        let Ok(Holdings { waiting: parked, .. }) = self.holdings(log) else {
            // The brokers are away: later.
            return Ok(());
        };
        for waiting in &parked {
            let State::Parked(refusal) = &waiting.row.track.state else {
                continue;
            };
            if refusal.code == "several_documents" {
                return Err(format!("written once: {} is there twice", waiting.row.key));
            }
            let key = waiting.row.key.as_str();
            let seen = time(now).duration_since(waiting.row.track.since).unsigned_abs();
            let patient = LATEST * 4;
            let mut decided = self.decided.borrow_mut();
            if seen < patient || decided.get(key).is_some_and(|at| now < *at + patient) {
                continue;
            }
            decided.insert(key.to_owned(), now);
            let decision = match self.vendor.find(key) {
                Some(external_id) => Decision::Confirm { external_id },
                // They book it by hand.
                None if key.ends_with(['0', '1', '2']) => Decision::Cancel,
                None => Decision::Retry,
            };
            let command = SinkCommand {
                sink: "ledger".to_owned(),
                key: key.to_owned(),
                attempts: Some(waiting.row.track.attempts),
                decision,
                by: "kim".to_owned(),
                note: "looked".to_owned(),
            };
            let value = self
                .subject
                .schemas
                .encode_sink_command(&command)
                .map_err(|error| error.to_string())?;
            let topic = &self.subject.config.outputs.sink_commands;
            log.broker()
                .append(self.outgoing(topic, Partition(0), key.to_owned(), value));
        }
        Ok(())
    }

    fn left(&self, log: &SimLog) -> Option<String> {
        let holdings = match self.holdings(log) {
            Ok(holdings) => holdings,
            Err(what) => return Some(what),
        };
        let coming = self.vendor.coming();
        let waiting = holdings
            .waiting
            .iter()
            .map(|waiting| format!("{} is {:?}", waiting.row.key, waiting.row.track.state));
        let waiting: Vec<String> = waiting.collect();
        let gathering = holdings.gathering.len();
        (!waiting.is_empty() || gathering > 0 || coming > 0).then(|| {
            format!(
                "{}; {gathering} summaries are gathered, {coming} requests on their way",
                waiting.join("; ")
            )
        })
    }

    fn check(&self, log: &SimLog, tally: &mut Tally) -> Result<(), String> {
        (tally.requests, tally.lost) = self.vendor.counts();
        let receipts = self.receipts(log)?;
        let mut chains = Chains::default();
        let mut broken: Vec<_> = receipts.iter().flat_map(|receipt| chains.add(receipt)).collect();
        broken.extend(chains.end(&self.holdings(log)?.chains));
        if let Some(broken) = broken.first() {
            return Err(format!("nothing unaccounted: {broken}"));
        }
        let mut receipted: Vec<&str> = receipts.iter().flat_map(|it| &it.entries).map(String::as_str).collect();
        receipted.sort_unstable();
        let entries = self.entries.borrow();
        let mut wanted: Vec<&str> = entries.iter().map(|entry| entry.entry_id.as_str()).collect();
        wanted.sort_unstable();
        if receipted != wanted {
            return Err(format!(
                "nothing unaccounted: {} entries in receipts, the journal has {}",
                receipted.len(),
                wanted.len()
            ));
        }
        self.vendor.documents(|documents| {
            let mut seen = BTreeSet::new();
            for document in documents {
                if !seen.insert(document.reference.as_str()) {
                    return Err(format!("written once: {} is there twice", document.reference));
                }
                if document.is_draft {
                    return Err(format!(
                        "nothing unaccounted: {} was never completed",
                        document.reference
                    ));
                }
                let receipt = receipts.iter().find(|receipt| receipt.key == document.reference);
                let Some(receipt) = receipt else {
                    return Err(format!("nothing unaccounted: {} has no receipt", document.reference));
                };
                if receipt.external_id.as_ref() != Some(&document.id)
                    || receipt.body_sha256 != Some(hex(&Sha256::digest(&document.body)))
                {
                    return Err(format!(
                        "nothing unaccounted: the receipt {receipt:?} is of another document"
                    ));
                }
            }
            let cancelled = receipts.iter().filter(|receipt| receipt.outcome == "cancelled");
            let cancelled: BTreeSet<&str> = cancelled.map(|receipt| receipt.key.as_str()).collect();
            if documents.len() + cancelled.len() != receipts.len() {
                return Err(format!(
                    "nothing unaccounted: {} documents, {} receipts, {} of what was cancelled",
                    documents.len(),
                    receipts.len(),
                    cancelled.len()
                ));
            }
            if let Granularity::Entry = self.sink().granularity {
                let issued = entries
                    .iter()
                    .filter(|entry| !cancelled.contains(entry.entry_id.as_str()));
                in_order(issued, documents.iter().map(|document| document.reference.as_str()))?;
            }
            Ok(())
        })
    }
}

fn in_order<'a>(
    issued: impl Iterator<Item = &'a JournalEntry>,
    written: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut deal_of = BTreeMap::new();
    for entry in issued {
        let (id, deal) = (entry.entry_id.as_str(), entry.deal.as_str());
        wanted.entry(deal).or_default().push(id);
        deal_of.insert(id, deal);
    }
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in written {
        let deal = deal_of
            .get(key)
            .ok_or_else(|| format!("in order: nobody issued {key}"))?;
        found.entry(deal).or_default().push(key);
    }
    match found == wanted {
        true => Ok(()),
        false => Err(format!("in order: written were {found:?}, the journal has {wanted:?}")),
    }
}

fn time(now: Duration) -> Moment {
    let Timestamp(millisecond) = moment(now).wall;
    Moment::from_millisecond(millisecond).expect("a time")
}
