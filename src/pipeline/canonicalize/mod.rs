//! The second stage: from what the CRM said to what happened to a deal.
//!
//! Owns: the store `crm` (pictures of deals, customers, ends of transactions) and when a picture becomes a fact.
//! Invariants: rows are state, facts are differences. A fact is announced when the settled picture differs from what was
//! announced last; so a repeated row, a snapshot of a known deal, or a row that changes nothing for the books announces
//! nothing. A deal whose rows disagree waits, and is parked visibly when the mapping's `settle_timeout` has passed in
//! record time. Facts from sources of facts, and reference facts, pass through in order.
//! Absent: accounting.
//!
//! Keys of the store:
//!
//! ```text
//! d <tenant>/<deal>                        the picture of a deal
//! i <mapping> <table> <row key>            where a row is: its deal, and its id there; of a customer, its tenant
//! a <mapping> <table> <row key>            the first id of a line or milestone whose primary key changed
//! c <mapping> <tenant>/<customer id>       a customer's row; without the tenant where its row names none
//! w <mapping> <customer id> <tenant/deal>  a deal that waits for that customer
//! t <mapping> <transaction>                a database transaction that has ended
//! o <transaction> <tenant/deal>            a deal that waits for that end
//! h <tenant/deal> <log position>           a row of a later transaction than the one the deal waits for
//! e <milliseconds> <key>                   when to look at a waiting deal, or to forget an end, again
//! ```

mod judge;
mod place;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::emit::{Cause, deal_key, incoming, named};
use super::picture;
use crate::codec::change::Said;
use crate::codec::crm_store::DealPicture;
use crate::codec::schemas::Schemas;
use crate::codec::trace::Trace;
use crate::config::{Input, Mapping, Source, TableRole};
use crate::revenue::fact::Fact;
use crate::revenue::reference::Settings;
use crate::stream::processor::{Context, Failure, Processor, Progress, Rejected, Route};
use crate::stream::record::{Record, Timestamp, Topic};

pub const STORE: &str = "crm";

/// Entries of the time index looked at in one go.
const EXPIRIES_PER_TICK: usize = 256;

/// See the module.
pub struct Canonicalize {
    schemas: Arc<Schemas>,
    settings: Arc<Settings>,
    mappings: Arc<Mappings>,
    canonical: Topic,
    facts: Topic,
}

/// The mappings by name and by source.
pub struct Mappings {
    by_name: BTreeMap<String, Arc<Mapping>>,
    by_source: BTreeMap<String, Arc<Mapping>>,
    /// Mappings whose connector sends ends of transactions.
    transactional: Vec<String>,
}

impl Mappings {
    pub fn new(sources: &[Source]) -> Mappings {
        let mut found = Mappings {
            by_name: BTreeMap::new(),
            by_source: BTreeMap::new(),
            transactional: Vec::new(),
        };
        for source in sources {
            if let Input::Debezium { mapping, table, .. } = &source.input {
                let name = mapping.name.as_str().to_owned();
                if *table == TableRole::Transaction {
                    found.transactional.push(name.clone());
                }
                found.by_name.insert(name, mapping.clone());
                found.by_source.insert(source.name.as_str().to_owned(), mapping.clone());
            }
        }
        found
    }

    /// The mapping of a picture or a source; one that the topology no longer has cannot be read any more.
    fn get(of: &BTreeMap<String, Arc<Mapping>>, name: &str) -> Result<Arc<Mapping>, Failure> {
        of.get(name).cloned().ok_or_else(|| {
            Failure::Record(Rejected {
                code: "unknown_mapping".to_owned(),
                message: format!("the topology has no mapping for {name} any more; put it back, or drop the record"),
            })
        })
    }
}

impl Canonicalize {
    pub fn new(
        schemas: Arc<Schemas>,
        settings: Arc<Settings>,
        mappings: Arc<Mappings>,
        canonical: Topic,
        facts: Topic,
    ) -> Canonicalize {
        Canonicalize {
            schemas,
            settings,
            mappings,
            canonical,
            facts,
        }
    }
}

impl Processor for Canonicalize {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let bytes = record.value.as_deref().unwrap_or_default();
        let change = self.schemas.decode_change(bytes)?;
        let trace = incoming(record, Trace::of);
        let mut at = At {
            record,
            trace,
            baseline: false,
            cx,
        };
        match &change.said {
            Said::Fact(fact) => self.pass(fact, &mut at)?,
            Said::TransactionEnd { id, .. } => return self.transaction_ended(&change.source, id, &mut at),
            Said::Row { table, change: row } => self.row(&change, *table, row, &mut at)?,
        }
        Ok(Progress::Done)
    }

    fn punctuate(&mut self, stream_time: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        let until = time_key(stream_time.0);
        for (key, value) in cx.range(STORE, b"e ", &until, EXPIRIES_PER_TICK)? {
            cx.delete(STORE, key)?;
            if value.starts_with(b"t ") {
                cx.delete(STORE, value)?;
            } else {
                self.timed_out(&value, stream_time, cx)?;
            }
        }
        Ok(())
    }
}

/// The record at hand and what it leads to.
struct At<'a, 'b> {
    record: &'a Record,
    trace: Trace,
    /// Whether it was read by a snapshot that is taken as the baseline of the books.
    baseline: bool,
    cx: &'a mut Context<'b>,
}

impl Canonicalize {
    /// A fact goes on as it is: those of a deal to both topics, reference facts to this partition's `contract.facts`.
    fn pass(&self, fact: &Fact, at: &mut At<'_, '_>) -> Result<(), Failure> {
        let value = self.schemas.encode_fact(fact)?;
        let deal = fact.body.deal_id();
        let cause = Cause::new(at.record, &at.trace, fact, deal);
        let name = named(fact);
        match deal {
            Some(deal) => {
                let key = deal_key(&fact.tenant, deal);
                let public = self.schemas.encode_deal_event(fact)?;
                at.cx
                    .emit(cause.emission((&self.canonical, Route::ByKey), key.clone(), public, name))?;
                at.cx
                    .emit(cause.emission((&self.facts, Route::ByKey), key, value, name))?;
            }
            None => {
                let key = format!("{}/{}", fact.tenant, fact.body.type_name()).into_bytes();
                let route = Route::To(at.cx.partition());
                at.cx.emit(cause.emission((&self.facts, route), key, value, name))?;
            }
        }
        Ok(())
    }

    fn picture(&self, key: &[u8], cx: &Context<'_>) -> Result<Option<DealPicture>, Failure> {
        match cx.get(STORE, &joined("d ", key))? {
            Some(bytes) => {
                let mut picture = DealPicture::decode(&bytes)?;
                if let Some(mapping) = self.mappings.by_name.get(&picture.mapping) {
                    picture::name_milestones(&mut picture, mapping);
                }
                Ok(Some(picture))
            }
            None => Ok(None),
        }
    }

    fn keep(&self, key: &[u8], picture: &DealPicture, cx: &mut Context<'_>) -> Result<(), Failure> {
        let bytes = picture.encode()?;
        Ok(cx.put(STORE, joined("d ", key), bytes)?)
    }
}

fn joined(prefix: &str, key: &[u8]) -> Vec<u8> {
    [prefix.as_bytes(), key].concat()
}

/// `e`, the time big-endian, the key.
fn expiry(millis: i64, key: &[u8]) -> Vec<u8> {
    [time_key(millis).as_slice(), b" ", key].concat()
}

fn time_key(millis: i64) -> Vec<u8> {
    [b"e ".as_slice(), &millis.max(0).to_be_bytes()].concat()
}

/// The first key after all that start with `prefix`.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
