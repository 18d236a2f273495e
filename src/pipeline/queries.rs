//! What the books know of a contract at this moment, read from the committed state of a running stage.
//!
//! Owns: the answers to queries. Invariant: an answer is of one moment, and names it: the changelog position that the
//! store stood for, and the day of the clock. So two answers of one position are equal.
//! Absent: HTTP, and which process to ask (`cli/run/contracts.rs`); entries, which are in their topic.

use std::collections::BTreeMap;
use std::sync::Mutex;

use jiff::civil::Date;
use serde_json::{Value, json};

use super::contract::{STORE, refused_before};
use super::emit::deal_key;
use super::kept::{Kept, head_key};
use crate::codec::{Refused, contract_store, replay};
use crate::revenue::books::Report;
use crate::revenue::contract::Contract;
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::reference::{Context, Reference, Settings};
use crate::stream::app::App;
use crate::stream::partitioner::partition_for;
use crate::stream::record::{Partition, TopicPartition};
use crate::stream::store::{StoreError, View};
use crate::stream::task::TaskId;
use crate::stream::topology::Shape;

/// The name of the stage that has the contracts.
const STAGE: &str = "contract";

/// The contracts of the running tasks of one process.
pub struct Contracts {
    settings: Settings,
    /// What the reference facts of each partition said, as far as they were read.
    known: Mutex<BTreeMap<Partition, Known>>,
}

#[derive(Default)]
struct Known {
    reference: Reference,
    facts: u64,
}

/// Contracts of one partition, in the order of their deals.
pub struct Found {
    pub deals: Vec<(String, Value)>,
    /// What the answer is as of.
    pub position: Value,
}

/// How the books of one partition stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The day up to which the clock was said, of the tenant that is furthest behind; `None` before any was.
    pub clock: Option<Date>,
    /// Contracts that wait for a rate, counted up to [`MOST_WAITING`].
    pub waiting: usize,
}

/// See [`Standing::waiting`].
pub const MOST_WAITING: usize = 100_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("what is stored cannot be read: {0}")]
    Stored(#[from] Refused),
    #[error("a stored reference fact is refused: {0}")]
    Fact(#[from] crate::revenue::reject::Rejection),
}

impl Contracts {
    pub fn new(settings: Settings) -> Contracts {
        Contracts {
            settings,
            known: Mutex::default(),
        }
    }

    /// The tasks that have contracts.
    pub fn tasks(app: &App) -> impl Iterator<Item = TaskId> {
        (0..count(app)).map(|n| task(Partition(n)))
    }

    /// The task that has the contract of a deal, if there is one.
    pub fn task_of(app: &App, tenant: &TenantId, deal: &DealId) -> TaskId {
        task(partition_for(&deal_key(tenant, deal), count(app)))
    }

    /// The contract of one deal. `None` when the task does not run here; otherwise at most one deal.
    pub fn one(&self, app: &App, task: &TaskId, tenant: &TenantId, deal: &DealId) -> Option<Result<Found, NoAnswer>> {
        let from = head_key(&deal_key(tenant, deal));
        let to = [from.as_slice(), &[0]].concat();
        self.read(app, task, (&from, &to), 1)
    }

    /// At most `limit` contracts of a tenant in one partition, from the deal `from` on. `None` when the task does not run
    /// here.
    pub fn range(
        &self,
        app: &App,
        task: &TaskId,
        tenant: &TenantId,
        from: &str,
        limit: usize,
    ) -> Option<Result<Found, NoAnswer>> {
        let from = head_key(format!("{tenant}/{from}").as_bytes());
        // The sign after `/`.
        let to = head_key(format!("{tenant}0").as_bytes());
        self.read(app, task, (&from, &to), limit)
    }

    /// How the books of one partition stand. `None` when the task does not run here.
    pub fn standing(&self, app: &App, task: &TaskId) -> Option<Result<Standing, NoAnswer>> {
        self.view(app, task, |known, view| {
            let clocks = known.reference.tenants().filter_map(|(_, tenant)| tenant.clock());
            Ok(Standing {
                clock: clocks.min(),
                waiting: view.range(STORE, b"w ", b"w!", MOST_WAITING)?.len(),
            })
        })
    }

    /// Looks at the store of a task, with the reference facts that it has.
    fn view<T>(
        &self,
        app: &App,
        task: &TaskId,
        look: impl FnOnce(&Known, &View<'_>) -> Result<T, NoAnswer>,
    ) -> Option<Result<T, NoAnswer>> {
        // Taken before the view, so that what is known is never newer than a view.
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = known.entry(task.partition).or_default();
        app.queries.read(task, |view| {
            known.catch_up(view, &self.settings)?;
            look(known, view)
        })
    }

    fn read(
        &self,
        app: &App,
        task: &TaskId,
        (from, to): (&[u8], &[u8]),
        limit: usize,
    ) -> Option<Result<Found, NoAnswer>> {
        self.view(app, task, |known, view| {
            let mut deals = Vec::new();
            for (key, head) in view.range(STORE, from, to, limit)? {
                let read = |from: &[u8], to: &[u8], most| Ok(view.range(STORE, from, to, most)?);
                let key = key.get(2..).unwrap_or_default();
                let contract = Kept::read(key, &head, read, NoAnswer::Stored)?.contract;
                let cx = Context::new(&self.settings, &known.reference, &contract.tenant);
                deals.push((contract.deal.to_string(), document(&contract, &cx)));
            }
            let at = changelog(app, task);
            let position = json!({
                "topic": at.topic.as_str(),
                "partition": at.partition.0,
                "offset": view.position(STORE)?.map_or(0, |offset| offset.0),
            });
            Ok(Found { deals, position })
        })
    }
}

impl Known {
    /// Learns the reference facts that came since.
    fn catch_up(&mut self, view: &View<'_>, settings: &Settings) -> Result<(), NoAnswer> {
        let from = [b"r ".as_slice(), &self.facts.to_be_bytes()].concat();
        for (_, bytes) in view.range(STORE, &from, b"r!", usize::MAX)? {
            let learned = settings.learn(&contract_store::decode_fact(&bytes)?, &mut self.reference);
            learned.map(|_| ()).or_else(refused_before)?;
            self.facts += 1;
        }
        Ok(())
    }
}

/// A contract as `accrue books replay` writes it, without what is in topics of its own.
fn document(contract: &Contract, cx: &Context<'_>) -> Value {
    let mut document = replay::document(&Report {
        contracts: contract.view_now(cx).into_iter().collect(),
        schedule: contract.schedule_now(cx),
        billing: contract.billing_now(cx),
        journals: Vec::new(),
        rejections: Vec::new(),
    });
    if let Value::Object(fields) = &mut document {
        fields.remove("journals");
        fields.remove("rejections");
        let waits = contract.waits_for();
        let waits = waits.map(|rate| format!("{}/{} of {}", rate.base, rate.quote, rate.date));
        let day = cx.reference.clock().map(|day| day.to_string());
        fields.insert("tenant_id".to_owned(), json!(contract.tenant.as_str()));
        fields.insert("deal_id".to_owned(), json!(contract.deal.as_str()));
        fields.insert("as_of".to_owned(), json!(day));
        fields.insert("waits_for".to_owned(), json!(waits));
    }
    document
}

fn task(partition: Partition) -> TaskId {
    TaskId {
        sub: STAGE.to_owned(),
        partition,
    }
}

fn changelog(app: &App, task: &TaskId) -> TopicPartition {
    let topic = Shape::changelog(&app.topology.shape.application_id, STORE);
    TopicPartition::new(&topic, task.partition)
}

fn count(app: &App) -> u32 {
    let sub = app.topology.shape.subs.iter().find(|sub| sub.name == STAGE);
    let source = sub.and_then(|sub| sub.sources.first());
    source.and_then(|topic| app.partitions.get(topic)).copied().unwrap_or(0)
}
