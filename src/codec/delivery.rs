//! The stored state of a sink: documents on their way, the entries behind them, and what became of them.
//!
//! Invariant: a value comes back equal to what was stored. Deliberately absent: what the states mean (`sink::delivery`);
//! here they are words.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refused;
use super::outputs::EntryWire;
use super::stored::Stored as Versions;
use super::wire::{Bytes, Instant};
use crate::revenue::journal::JournalEntry;

static STORED: LazyLock<Versions> = LazyLock::new(|| {
    let versions = [
        include_str!("../../avro/delivery-store.1.avsc"),
        include_str!("../../avro/delivery-store.2.avsc"),
        include_str!("../../avro/delivery-store.avsc"),
    ];
    Versions::new("delivery store", &versions)
});

/// One value of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    Delivery(Box<DeliveryRow>),
    /// An entry behind a document on its way.
    Entry(Box<JournalEntry>),
    /// The store's key of the delivery of an entry or a document.
    Placed(Vec<u8>),
    Done(DoneRow),
    Group(GroupRow),
    Chain(ChainRow),
    /// The number of the next document.
    Sequence(u64),
    /// The identity of the system that the rest is about.
    Books(String),
}

/// A document on its way. See avro/delivery-store.avsc for each field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    pub key: String,
    pub form: String,
    pub tenant: String,
    pub deal: Option<String>,
    pub source: String,
    pub entries: Vec<String>,
    pub source_at: Timestamp,
    pub planned_at: Timestamp,
    pub first_sent_at: Option<Timestamp>,
    pub attempts: u64,
    pub failures: u64,
    pub doubt: bool,
    pub remake: bool,
    pub reference: Option<String>,
    pub body: Option<Vec<u8>>,
    pub state: String,
    pub since: Timestamp,
    pub due_at: Option<Timestamp>,
    pub resume: Option<String>,
    pub looks: u64,
    pub why: String,
    pub refusal: Option<RefusalRow>,
    pub rounds: u64,
    pub taken: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalRow {
    pub code: String,
    pub words: String,
    pub advice: String,
}

/// What became of an entry or a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneRow {
    pub key: String,
    pub outcome: String,
    pub external_id: Option<String>,
    pub receipt: Vec<u8>,
}

/// A summary that is being gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    pub tenant: String,
    pub opened_at: Timestamp,
    pub source_at: Timestamp,
    pub source: String,
    pub count: u64,
}

/// The end of a chain of receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainRow {
    pub number: u64,
    pub hash: Vec<u8>,
}

pub fn encode(value: &Stored) -> Result<Vec<u8>, Refused> {
    let mut wire = StoredWire::default();
    match value {
        Stored::Delivery(row) => wire.delivery = Some(DeliveryWire::from((**row).clone())),
        Stored::Entry(entry) => wire.entry = Some(EntryWire::from(&**entry)),
        Stored::Placed(at) => wire.placed = Some(Bytes(at.clone())),
        Stored::Done(row) => {
            wire.done = Some(DoneWire {
                key: row.key.clone(),
                outcome: row.outcome.clone(),
                external_id: row.external_id.clone(),
                receipt: Bytes(row.receipt.clone()),
            });
        }
        Stored::Group(row) => {
            wire.group = Some(GroupWire {
                tenant_id: row.tenant.clone(),
                opened_at: Instant(row.opened_at),
                source_at: Instant(row.source_at),
                source: row.source.clone(),
                count: signed(row.count),
            });
        }
        Stored::Chain(row) => {
            wire.chain = Some(ChainWire {
                number: signed(row.number),
                hash: Bytes(row.hash.clone()),
            });
        }
        Stored::Sequence(next) => wire.sequence = Some(signed(*next)),
        Stored::Books(identity) => wire.books = Some(identity.clone()),
    }
    STORED.encode(&wire)
}

/// # Errors
/// Bytes of a newer program, or not ours: the store cannot be used as it is.
pub fn decode(bytes: &[u8]) -> Result<Stored, Refused> {
    let wire: StoredWire<'_> = STORED.decode(bytes)?;
    if let Some(row) = wire.delivery {
        return Ok(Stored::Delivery(Box::new(row.try_into()?)));
    }
    if let Some(entry) = wire.entry {
        return Ok(Stored::Entry(Box::new(JournalEntry::try_from(entry)?)));
    }
    if let Some(at) = wire.placed {
        return Ok(Stored::Placed(at.0));
    }
    if let Some(row) = wire.done {
        return Ok(Stored::Done(DoneRow {
            key: row.key,
            outcome: row.outcome,
            external_id: row.external_id,
            receipt: row.receipt.0,
        }));
    }
    if let Some(row) = wire.group {
        return Ok(Stored::Group(GroupRow {
            tenant: row.tenant_id,
            opened_at: row.opened_at.0,
            source_at: row.source_at.0,
            source: row.source,
            count: count(row.count)?,
        }));
    }
    if let Some(row) = wire.chain {
        return Ok(Stored::Chain(ChainRow {
            number: count(row.number)?,
            hash: row.hash.0,
        }));
    }
    if let Some(identity) = wire.books {
        return Ok(Stored::Books(identity));
    }
    match wire.sequence {
        Some(next) => Ok(Stored::Sequence(count(next)?)),
        None => Err(Refused::new("bad_store", "delivery store: a value without content")),
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(number: i64) -> Result<u64, Refused> {
    u64::try_from(number).map_err(|_| Refused::new("bad_store", format!("delivery store: {number} is no count")))
}

#[derive(Default, Serialize, Deserialize)]
struct StoredWire<'a> {
    delivery: Option<DeliveryWire>,
    #[serde(borrow)]
    entry: Option<EntryWire<'a>>,
    placed: Option<Bytes>,
    done: Option<DoneWire>,
    group: Option<GroupWire>,
    chain: Option<ChainWire>,
    sequence: Option<i64>,
    #[serde(default)]
    books: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct DeliveryWire {
    key: String,
    form: String,
    tenant_id: String,
    deal_id: Option<String>,
    source: String,
    entries: Vec<String>,
    source_at: Instant,
    planned_at: Instant,
    first_sent_at: Option<Instant>,
    attempts: i64,
    failures: i64,
    doubt: bool,
    remake: bool,
    reference: Option<String>,
    body: Option<Bytes>,
    state: String,
    since: Instant,
    due_at: Option<Instant>,
    resume: Option<String>,
    looks: i64,
    why: String,
    refusal: Option<RefusalRow>,
    #[serde(default)]
    rounds: i64,
    #[serde(default)]
    taken: i64,
}

#[derive(Serialize, Deserialize)]
struct DoneWire {
    key: String,
    outcome: String,
    external_id: Option<String>,
    receipt: Bytes,
}

#[derive(Serialize, Deserialize)]
struct GroupWire {
    tenant_id: String,
    opened_at: Instant,
    source_at: Instant,
    source: String,
    count: i64,
}

#[derive(Serialize, Deserialize)]
struct ChainWire {
    number: i64,
    hash: Bytes,
}

impl From<DeliveryRow> for DeliveryWire {
    fn from(row: DeliveryRow) -> DeliveryWire {
        DeliveryWire {
            key: row.key,
            form: row.form,
            tenant_id: row.tenant,
            deal_id: row.deal,
            source: row.source,
            entries: row.entries,
            source_at: Instant(row.source_at),
            planned_at: Instant(row.planned_at),
            first_sent_at: row.first_sent_at.map(Instant),
            attempts: signed(row.attempts),
            failures: signed(row.failures),
            doubt: row.doubt,
            remake: row.remake,
            reference: row.reference,
            body: row.body.map(Bytes),
            state: row.state,
            since: Instant(row.since),
            due_at: row.due_at.map(Instant),
            resume: row.resume,
            looks: signed(row.looks),
            why: row.why,
            refusal: row.refusal,
            rounds: signed(row.rounds),
            taken: signed(row.taken),
        }
    }
}

impl TryFrom<DeliveryWire> for DeliveryRow {
    type Error = Refused;

    fn try_from(wire: DeliveryWire) -> Result<DeliveryRow, Refused> {
        Ok(DeliveryRow {
            key: wire.key,
            form: wire.form,
            tenant: wire.tenant_id,
            deal: wire.deal_id,
            source: wire.source,
            entries: wire.entries,
            source_at: wire.source_at.0,
            planned_at: wire.planned_at.0,
            first_sent_at: wire.first_sent_at.map(|at| at.0),
            attempts: count(wire.attempts)?,
            failures: count(wire.failures)?,
            doubt: wire.doubt,
            remake: wire.remake,
            reference: wire.reference,
            body: wire.body.map(|body| body.0),
            state: wire.state,
            since: wire.since.0,
            due_at: wire.due_at.map(|at| at.0),
            resume: wire.resume,
            looks: count(wire.looks)?,
            why: wire.why,
            refusal: wire.refusal,
            rounds: count(wire.rounds)?,
            taken: count(wire.taken)?,
        })
    }
}
