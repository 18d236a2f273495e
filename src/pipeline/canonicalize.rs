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
//! i <mapping> <table> <row id>             the deal of a line or milestone, for deletes that carry only its id
//! a <mapping> <table> <row id>             the first id of a line or milestone whose primary key changed
//! c <mapping> <customer id>                a customer's row
//! w <mapping> <customer id> <tenant/deal>  a deal that waits for that customer
//! t <transaction>                          a database transaction that has ended
//! o <transaction> <tenant/deal>            a deal that waits for that end
//! h <tenant/deal> <log position>           a row of a later transaction than the one the deal waits for
//! e <milliseconds> <key>                   when to look at a waiting deal, or to forget an end, again
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::emit::{deal_key, emission, incoming, named};
use super::picture::{self, Told, Unreadable};
use super::rekey::{required_id, tenant};
use crate::codec::change::{Change, Said};
use crate::codec::crm_store::{DealPicture, KnownRow};
use crate::codec::debezium::{Moved, Op, RowChange};
use crate::codec::position::TransactionId;
use crate::codec::schemas::Schemas;
use crate::codec::trace::Trace;
use crate::config::{Input, Mapping, Snapshot, Source, Stage, TableRole};
use crate::revenue::fact::{Body, Customer, Deal, Fact, MilestoneAccepted};
use crate::revenue::ids::{DealId, EventId, TenantId};
use crate::revenue::reference::Settings;
use crate::stream::fault::Fault;
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
        let mut at = At { record, trace, cx };
        match &change.said {
            Said::Fact(fact) => self.pass(fact, &mut at)?,
            Said::TransactionEnd { id, .. } => self.transaction_ended(id, &mut at)?,
            Said::Row { table, change: row } => self.row(&change, *table, row, &mut at)?,
        }
        Ok(Progress::Done)
    }

    fn punctuate(&mut self, stream_time: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        // The record that moved time on is the one that dead letters of a timeout are about.
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
    cx: &'a mut Context<'b>,
}

impl Canonicalize {
    /// A fact goes on as it is: those of a deal to both topics, reference facts to this partition's `contract.facts`.
    fn pass(&self, fact: &Fact, at: &mut At<'_, '_>) -> Result<(), Failure> {
        let value = self.schemas.encode_fact(fact)?;
        match fact.body.deal_id() {
            Some(deal) => {
                let key = deal_key(&fact.tenant, deal);
                let public = self.schemas.encode_deal_event(fact)?;
                let name = named(fact);
                at.cx.emit(emission(
                    at.record,
                    &at.trace,
                    &self.canonical,
                    Route::ByKey,
                    key.clone(),
                    Some(public),
                    &name,
                ))?;
                at.cx.emit(emission(
                    at.record,
                    &at.trace,
                    &self.facts,
                    Route::ByKey,
                    key,
                    Some(value),
                    &name,
                ))?;
            }
            None => {
                let key = format!("{}/{}", fact.tenant, fact.body.type_name()).into_bytes();
                let route = Route::To(at.cx.partition());
                at.cx.emit(emission(
                    at.record,
                    &at.trace,
                    &self.facts,
                    route,
                    key,
                    Some(value),
                    &named(fact),
                ))?;
            }
        }
        Ok(())
    }

    fn row(&self, change: &Change, table: TableRole, row: &RowChange, at: &mut At<'_, '_>) -> Result<(), Failure> {
        let mapping = Mappings::get(&self.mappings.by_source, &change.source)?;
        match table {
            TableRole::Customers => self.customer(&mapping, row, at),
            TableRole::Deals | TableRole::DealLineItems | TableRole::Milestones => {
                self.deal_row(&mapping, table, row, at)
            }
            TableRole::Transaction => Ok(()),
        }
    }

    fn customer(&self, mapping: &Mapping, change: &RowChange, at: &mut At<'_, '_>) -> Result<(), Failure> {
        let Some(columns) = &mapping.customer else {
            return Ok(());
        };
        let id = row_id(change, &columns.id.name)?;
        let key = format!("c {} {id}", mapping.name.as_str()).into_bytes();
        let mut known = match at.cx.get(STORE, &key)? {
            Some(bytes) => KnownRow::decode(&bytes)?,
            None => KnownRow::default(),
        };
        if !learn(&mut known, mapping, TableRole::Customers, change) {
            return Ok(());
        }
        at.cx.put(STORE, key, known.encode()?)?;
        let waiting = format!("w {} {id} ", mapping.name.as_str()).into_bytes();
        for (key, _) in at.cx.range(STORE, &waiting, &after(&waiting), usize::MAX)? {
            at.cx.delete(STORE, key.clone())?;
            self.look_again(&key[waiting.len()..], at)?;
        }
        Ok(())
    }

    fn deal_row(
        &self,
        mapping: &Mapping,
        table: TableRole,
        change: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let deal_column = match (table, &mapping.line, &mapping.milestone) {
            (TableRole::DealLineItems, Some(columns), _) => &columns.deal_id,
            (TableRole::Milestones, _, Some(columns)) => &columns.deal_id,
            _ => &mapping.deal.id,
        };
        let Some(id) = self.identity(mapping, table, &id_column(mapping, table), change, at)? else {
            return Ok(());
        };
        let index = format!("i {} {table:?} {id}", mapping.name.as_str()).into_bytes();
        let key = match &change.after {
            Some(row) => {
                let deal = required_id(row, &deal_column.name)?;
                format!("{}/{deal}", tenant(mapping, row)?).into_bytes()
            }
            // A delete is everywhere; only the partition that knows the row has something to do.
            None => match at.cx.get(STORE, &index)? {
                Some(key) => key,
                None => return Ok(()),
            },
        };
        at.cx.put(STORE, index, key.clone())?;
        let mut picture = self.picture(&key, at.cx)?.unwrap_or_default();
        picture.mapping = mapping.name.as_str().to_owned();
        if comes_later(&picture, change) {
            let value = at.record.value.clone().unwrap_or_default();
            return Ok(at.cx.put(STORE, held_key(&key, change, at.record), value)?);
        }
        if !self.absorb(mapping, table, &id, change, &key, &mut picture, at)? {
            return Ok(());
        }
        self.judge(&key, &mut picture, table == TableRole::Deals, at)
    }

    /// Takes a row into the picture. False when it says nothing new.
    #[expect(clippy::too_many_arguments, reason = "a row and its place in the picture")]
    fn absorb(
        &self,
        mapping: &Mapping,
        table: TableRole,
        id: &str,
        change: &RowChange,
        key: &[u8],
        picture: &mut DealPicture,
        at: &mut At<'_, '_>,
    ) -> Result<bool, Failure> {
        let known = match table {
            TableRole::DealLineItems => picture.lines.entry(id.to_owned()).or_default(),
            TableRole::Milestones => picture.milestones.entry(id.to_owned()).or_default(),
            TableRole::Deals | TableRole::Customers | TableRole::Transaction => &mut picture.deal,
        };
        if !learn(known, mapping, table, change) {
            return Ok(false);
        }
        if table == TableRole::Deals {
            self.note_identity(key, picture, change, at);
        }
        if change.snapshot && mapping.snapshot == Snapshot::Baseline && picture.announced.is_none() {
            picture.baseline = true;
        }
        self.await_transaction(mapping, key, picture, change, at)?;
        Ok(true)
    }

    /// Lets the rows of the next transactions in, one transaction after the other, each judged as a whole, until one is
    /// not complete.
    fn release_held(&self, key: &[u8], at: &mut At<'_, '_>) -> Result<(), Failure> {
        let prefix = held_prefix(key);
        loop {
            let Some(mut picture) = self.picture(key, at.cx)? else {
                return Ok(());
            };
            // The transaction that is let in on this round.
            let mut current = None;
            let mut own_row = false;
            for (held, value) in at.cx.range(STORE, &prefix, &after(&prefix), usize::MAX)? {
                let change = self.schemas.decode_change(&value)?;
                let Said::Row { table, change: row } = &change.said else {
                    continue;
                };
                let transaction = row.position.transaction.clone();
                if current.is_some() && transaction != current || comes_later(&picture, row) {
                    continue;
                }
                current = transaction;
                at.cx.delete(STORE, held)?;
                let mapping = Mappings::get(&self.mappings.by_source, &change.source)?;
                let column = id_column(&mapping, *table);
                if let Some(id) = self.identity(&mapping, *table, &column, row, at)? {
                    self.absorb(&mapping, *table, &id, row, key, &mut picture, at)?;
                    own_row |= *table == TableRole::Deals;
                }
            }
            if current.is_none() {
                return Ok(());
            }
            self.judge(key, &mut picture, own_row, at)?;
            if !picture.open_transactions.is_empty() {
                return Ok(());
            }
        }
    }

    /// Under which id the picture knows a row. A line or milestone whose primary key changed stays what it was: its new
    /// key is an alias of the first. `None` for the delete that such a change begins with.
    fn identity(
        &self,
        mapping: &Mapping,
        table: TableRole,
        column: &str,
        change: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<Option<String>, Failure> {
        let id = row_id(change, column)?;
        if table == TableRole::Deals {
            return Ok(Some(id));
        }
        let alias = |id: &str| format!("a {} {table:?} {id}", mapping.name.as_str()).into_bytes();
        let known = |cx: &Context<'_>, id: &str| -> Result<Option<String>, Failure> {
            Ok(cx
                .get(STORE, &alias(id))?
                .and_then(|bytes| String::from_utf8(bytes).ok()))
        };
        match &change.moved {
            Some(Moved::To(_)) => Ok(None),
            Some(Moved::From(old)) => {
                let old = required_id(old, column)?;
                let first = known(at.cx, &old)?.unwrap_or(old);
                at.cx.put(STORE, alias(&id), first.clone().into_bytes())?;
                Ok(Some(first))
            }
            None => Ok(Some(known(at.cx, &id)?.unwrap_or(id))),
        }
    }

    /// A deal's row that went away or took another id says nothing about the contract; people must.
    fn note_identity(&self, key: &[u8], picture: &mut DealPicture, change: &RowChange, at: &mut At<'_, '_>) {
        let deal = String::from_utf8_lossy(key).into_owned();
        let told = match (&change.op, &change.moved) {
            (Op::Delete, Some(Moved::To(_))) => None,
            (Op::Delete, _) if picture.announced.is_some() && !picture.cancelled => Some((
                "deal_deleted",
                format!("the CRM deleted the row of deal {deal}; its contract stands. Send deal.cancelled if it ended"),
            )),
            (_, Some(Moved::From(old))) => {
                picture.baseline = true;
                let old: Vec<String> = old
                    .columns()
                    .filter_map(|(name, _)| old.text(name).ok().flatten())
                    .collect();
                Some((
                    "deal_renamed",
                    format!(
                        "the CRM gave deal {} the id {deal}; the books keep the contract under the old id, and the new one is not announced. Send its events under the old id",
                        old.join(",")
                    ),
                ))
            }
            (Op::Create | Op::Update | Op::Read | Op::Delete | Op::Truncate, _) => None,
        };
        if let Some((code, message)) = told {
            at.cx.reject(Rejected {
                code: code.to_owned(),
                message,
            });
        }
    }

    /// Holds the deal until the end of the change's transaction, where ends are sent and this one is not here yet.
    fn await_transaction(
        &self,
        mapping: &Mapping,
        key: &[u8],
        picture: &mut DealPicture,
        change: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let sends_ends = self
            .mappings
            .transactional
            .iter()
            .any(|name| name == mapping.name.as_str());
        let Some(id) = &change.position.transaction else {
            return Ok(());
        };
        if change.snapshot || !sends_ends || picture.open_transactions.contains(id) {
            return Ok(());
        }
        if at.cx.get(STORE, format!("t {id}").as_bytes())?.is_none() {
            picture.open_transactions.push(id.clone());
            at.cx.put(STORE, joined(&format!("o {id} "), key), Vec::new())?;
        }
        Ok(())
    }

    fn transaction_ended(&self, id: &TransactionId, at: &mut At<'_, '_>) -> Result<(), Failure> {
        let key = format!("t {id}").into_bytes();
        at.cx.put(STORE, key.clone(), Vec::new())?;
        let longest = self
            .mappings
            .by_name
            .values()
            .map(|m| m.settle_timeout.as_millis())
            .max()
            .unwrap_or(0);
        let forget = at.record.timestamp.0.saturating_add(longest as i64);
        at.cx.put(STORE, expiry(forget, &key), key)?;
        let waiting = format!("o {id} ").into_bytes();
        for (key, _) in at.cx.range(STORE, &waiting, &after(&waiting), usize::MAX)? {
            at.cx.delete(STORE, key.clone())?;
            let deal = &key[waiting.len()..];
            if let Some(mut picture) = self.picture(deal, at.cx)? {
                picture.open_transactions.retain(|open| open != id);
                self.judge(deal, &mut picture, false, at)?;
                self.release_held(deal, at)?;
            }
        }
        Ok(())
    }

    fn look_again(&self, key: &[u8], at: &mut At<'_, '_>) -> Result<(), Failure> {
        match self.picture(key, at.cx)? {
            Some(mut picture) => self.judge(key, &mut picture, false, at),
            None => Ok(()),
        }
    }

    /// The heart: does the picture say something new, and is it settled? Stores the picture either way. `own_row`: the
    /// deal's own row has changed.
    fn judge(&self, key: &[u8], picture: &mut DealPicture, own_row: bool, at: &mut At<'_, '_>) -> Result<(), Failure> {
        let mapping = Mappings::get(&self.mappings.by_name, &picture.mapping)?;
        let tenant = tenant_of(key)?;
        let told = match self.read(&mapping, &tenant, picture, at.cx)? {
            Ok(told) => told,
            Err(unreadable) => {
                // The rows are kept, the record is a dead letter; a corrected row mends the picture. What else arrives
                // for a deal that is parked already says nothing new.
                if own_row || !picture.parked {
                    at.cx.reject(about(key, &unreadable));
                }
                picture.parked = true;
                return self.keep(key, picture, at.cx);
            }
        };
        match told {
            Told::Nothing => self.settle(key, picture, at.cx)?,
            Told::Unsettled { .. } => {
                self.wait(key, picture, &mapping, at)?;
                return self.keep(key, picture, at.cx);
            }
            Told::Cancelled(cancellation) => {
                self.settle(key, picture, at.cx)?;
                if picture.announced.is_some() && !picture.cancelled && !picture.baseline {
                    picture.cancelled = true;
                    let fact = self.fact(&tenant, picture, Body::DealCancelled(cancellation), None, at)?;
                    self.pass(&fact, at)?;
                }
            }
            Told::Terms {
                stage,
                deal,
                closed_at,
                renewed_from,
            } => {
                self.settle(key, picture, at.cx)?;
                self.announce(key, picture, &tenant, stage, *deal, closed_at, renewed_from, at)?;
            }
        }
        self.announce_milestones(key, picture, &mapping, &tenant, at)?;
        self.keep(key, picture, at.cx)
    }

    fn read(
        &self,
        mapping: &Mapping,
        tenant: &TenantId,
        picture: &DealPicture,
        cx: &Context<'_>,
    ) -> Result<Result<Told, Unreadable>, Failure> {
        let customer = match picture::customer_of(picture, mapping) {
            Ok(Some(id)) => match cx.get(STORE, format!("c {} {id}", mapping.name.as_str()).as_bytes())? {
                Some(bytes) => KnownRow::decode(&bytes)?.row,
                None => None,
            },
            Ok(None) => None,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let zone = &self.settings.tenant(tenant).time_zone;
        Ok(picture::read(picture, customer.as_ref(), mapping, zone))
    }

    #[expect(clippy::too_many_arguments, reason = "one settled reading, taken apart once")]
    fn announce(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        tenant: &TenantId,
        stage: Stage,
        mut deal: Deal,
        closed_at: Option<jiff::Timestamp>,
        renewed_from: Option<DealId>,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        if picture.cancelled {
            at.cx.reject(Rejected {
                code: "deal_reopened".to_owned(),
                message: format!(
                    "deal {} was cancelled and now stands at {stage:?} again; the books keep the cancellation. Sell it as a new deal",
                    String::from_utf8_lossy(key)
                ),
            });
            return Ok(());
        }
        let last = picture.announced.as_ref().and_then(|fact| terms_of(&fact.body));
        let body = match (last, stage, renewed_from) {
            (Some(last), _, _) if same_terms(last, &deal) => return Ok(()),
            (Some(last), Stage::Renewed, _) if last.contract_start != deal.contract_start => Body::DealRenewed(deal),
            (Some(_), _, _) => Body::DealAmended(deal),
            (None, Stage::Renewed, Some(old)) => {
                deal.deal_id = old;
                Body::DealRenewed(deal)
            }
            (None, _, _) => Body::DealClosed(deal),
        };
        let first = picture.announced.is_none();
        let fact = self.fact(tenant, picture, body, closed_at.filter(|_| first), at)?;
        if let Err(rejection) = fact.validate() {
            at.cx.reject(super::emit::rejected(fact.event_id.as_str(), &rejection));
            return Ok(());
        }
        picture.announced = Some(fact.clone());
        if picture.baseline && first {
            return Ok(());
        }
        self.pass(&fact, at)
    }

    fn announce_milestones(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        mapping: &Mapping,
        tenant: &TenantId,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let (Some(columns), Some(announced)) = (&mapping.milestone, &picture.announced) else {
            return Ok(());
        };
        let deal_id = announced.body.deal_id().cloned();
        let zone = &self.settings.tenant(tenant).time_zone;
        let mut accepted = Vec::new();
        for (id, known) in &picture.milestones {
            if let (Some(row), false) = (&known.row, picture.accepted.contains(id)) {
                match picture::accepted(id, row, columns, zone) {
                    Ok(Some(found)) => accepted.push((id.clone(), found)),
                    Ok(None) => {}
                    Err(unreadable) => at.cx.reject(about(key, &unreadable)),
                }
            }
        }
        for (id, (line_id, milestone_id, date)) in accepted {
            picture.accepted.push(id);
            let (Some(deal_id), false) = (&deal_id, picture.baseline) else {
                continue;
            };
            let body = Body::MilestoneAccepted(MilestoneAccepted {
                deal_id: deal_id.clone(),
                line_id,
                milestone_id,
                date,
            });
            let fact = self.fact(tenant, picture, body, None, at)?;
            self.pass(&fact, at)?;
        }
        Ok(())
    }

    /// A fact of this deal. Its id counts the deal's facts; its instant is the newest change of the picture, and later
    /// than that of the fact before it.
    fn fact(
        &self,
        tenant: &TenantId,
        picture: &mut DealPicture,
        body: Body,
        occurred_at: Option<jiff::Timestamp>,
        at: &At<'_, '_>,
    ) -> Result<Fact, Failure> {
        let rows = [&picture.deal]
            .into_iter()
            .chain(picture.lines.values())
            .chain(picture.milestones.values());
        let newest = rows.filter_map(|row| row.at).max();
        let mut occurred_at = match occurred_at.or(newest) {
            Some(instant) => instant,
            None => jiff::Timestamp::from_millisecond(at.record.timestamp.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        };
        if let Some(last) = &picture.announced
            && occurred_at <= last.occurred_at
        {
            occurred_at = last
                .occurred_at
                .checked_add(SignedDuration::from_micros(1))
                .unwrap_or(last.occurred_at);
        }
        let deal = body.deal_id().map(DealId::to_string).unwrap_or_default();
        picture.announcements += 1;
        let id = format!("{}:{deal}:{:06}", picture.mapping, picture.announcements);
        Ok(Fact {
            event_id: EventId::parse(id.clone()).ok_or_else(|| Rejected {
                code: "invalid_id".to_owned(),
                message: format!("{id:?} cannot be an event id; shorten the deal's id"),
            })?,
            source: picture.mapping.clone(),
            occurred_at,
            tenant: tenant.clone(),
            body,
        })
    }

    fn wait(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        mapping: &Mapping,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        if let Ok(Some(customer)) = picture::customer_of(picture, mapping) {
            let waiting = joined(&format!("w {} {customer} ", mapping.name.as_str()), key);
            at.cx.put(STORE, waiting, Vec::new())?;
        }
        // Each change of an unsettled deal starts its time anew: it is the silence after it that parks it.
        self.settle(key, picture, at.cx)?;
        let now = at.record.timestamp.0;
        picture.unsettled_since = Some(now);
        let until = now.saturating_add(mapping.settle_timeout.as_millis() as i64);
        at.cx.put(STORE, expiry(until, key), joined("d ", key))?;
        Ok(())
    }

    /// The deal waits for nothing any more.
    fn settle(&self, key: &[u8], picture: &mut DealPicture, cx: &mut Context<'_>) -> Result<(), Failure> {
        if let Some(since) = picture.unsettled_since.take() {
            let mapping = Mappings::get(&self.mappings.by_name, &picture.mapping)?;
            let until = since.saturating_add(mapping.settle_timeout.as_millis() as i64);
            cx.delete(STORE, expiry(until, key))?;
        }
        picture.parked = false;
        Ok(())
    }

    /// A deal has waited its time. If only the end of a transaction is missing, its rows agree, and they count.
    fn timed_out(&self, value: &[u8], now: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(key) = value.strip_prefix(b"d ") else {
            return Ok(());
        };
        let Some(mut picture) = self.picture(key, cx)? else {
            return Ok(());
        };
        let record = timer_record(key, now);
        let trace = incoming(&record, Trace::of);
        let mut at = At {
            record: &record,
            trace,
            cx,
        };
        let mapping = Mappings::get(&self.mappings.by_name, &picture.mapping)?;
        for open in std::mem::take(&mut picture.open_transactions) {
            at.cx.delete(STORE, joined(&format!("o {open} "), key))?;
        }
        picture.unsettled_since = None;
        match self.read(&mapping, &tenant_of(key)?, &picture, at.cx)? {
            Ok(Told::Unsettled { why }) => {
                picture.parked = true;
                at.cx.reject(Rejected {
                    code: "deal_unsettled".to_owned(),
                    message: format!(
                        "deal {} is parked: for {} its rows have not agreed: {why}. It goes on with the next change that makes them agree",
                        String::from_utf8_lossy(key),
                        mapping.settle_timeout,
                    ),
                });
                self.keep(key, &picture, at.cx)?;
            }
            Ok(Told::Nothing | Told::Terms { .. } | Told::Cancelled(_)) | Err(_) => {
                self.judge(key, &mut picture, false, &mut at)?;
            }
        }
        self.release_held(key, &mut at)
    }

    fn picture(&self, key: &[u8], cx: &Context<'_>) -> Result<Option<DealPicture>, Failure> {
        match cx.get(STORE, &joined("d ", key))? {
            Some(bytes) => Ok(Some(DealPicture::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    fn keep(&self, key: &[u8], picture: &DealPicture, cx: &mut Context<'_>) -> Result<(), Failure> {
        let bytes = picture.encode()?;
        Ok(cx.put(STORE, joined("d ", key), bytes)?)
    }
}

/// Takes a row in. False when it is older than, or the same as, what is known.
fn learn(known: &mut KnownRow, mapping: &Mapping, table: TableRole, change: &RowChange) -> bool {
    if let (Some(known), Some(new)) = (known.position, change.position.log)
        && new <= known
    {
        return false;
    }
    known.row = change.after.as_ref().map(|after| {
        let mut row = after.clone();
        let wanted = mapping.columns(table);
        row.keep(|column| wanted.contains(&column));
        if let Some(previous) = &known.row {
            row.fill_unavailable(previous);
        }
        row
    });
    known.position = change.position.log.or(known.position);
    known.at = change.at.or(known.at);
    true
}

/// The id of the row itself, from its key or, where the key is not sent, from the row.
fn row_id(change: &RowChange, column: &str) -> Result<String, Failure> {
    if change.key.get(column).is_some() {
        return required_id(&change.key, column);
    }
    match &change.after {
        Some(row) => required_id(row, column),
        None => required_id(&change.key, column),
    }
}

fn terms_of(body: &Body) -> Option<&Deal> {
    match body {
        Body::DealClosed(deal) | Body::DealAmended(deal) | Body::DealRenewed(deal) => Some(deal),
        Body::DealCancelled(_)
        | Body::MilestoneAccepted(_)
        | Body::DeliveryRecorded(_)
        | Body::ProgressMeasured(_)
        | Body::UsageReported(_)
        | Body::CreditGranted(_)
        | Body::PaymentReceived(_)
        | Body::FxRate(_)
        | Body::AccountMapped(_)
        | Body::PeriodClosed(_)
        | Body::PeriodReopened(_)
        | Body::ClockTicked(_) => None,
    }
}

/// Whether two readings of a deal are the same bargain: since when a change holds, how it is treated, and what the
/// customer is called, is no change.
fn same_terms(last: &Deal, now: &Deal) -> bool {
    let bargain = |deal: &Deal| Deal {
        deal_id: now.deal_id.clone(),
        customer: deal.customer.as_ref().map(|customer| Customer {
            customer_id: customer.customer_id.clone(),
            name: None,
            accounting_id: None,
        }),
        effective_date: None,
        treatment: None,
        ..deal.clone()
    };
    bargain(last) == bargain(now)
}

fn tenant_of(key: &[u8]) -> Result<TenantId, Failure> {
    let tenant = key.split(|byte| *byte == b'/').next().unwrap_or_default();
    std::str::from_utf8(tenant)
        .ok()
        .and_then(TenantId::parse)
        .ok_or_else(|| Failure::Fault(Fault::Fatal("a deal's key in the store has no tenant".to_owned())))
}

fn about(key: &[u8], unreadable: &Unreadable) -> Rejected {
    Rejected {
        code: unreadable.code.to_owned(),
        message: format!("deal {}: {}", String::from_utf8_lossy(key), unreadable.message),
    }
}

/// A stand-in for the record that a timer has not: facts that a timeout announces derive from the deal and the time.
fn timer_record(key: &[u8], now: Timestamp) -> Record {
    Record {
        at: crate::stream::record::TopicPartition::new(
            &Topic::new(format!("timer/{}", String::from_utf8_lossy(key))),
            crate::stream::record::Partition(0),
        ),
        offset: crate::stream::record::Offset(now.0.max(0) as u64),
        timestamp: now,
        key: None,
        value: None,
        headers: Vec::new(),
    }
}

/// The column that holds a row's own id.
fn id_column(mapping: &Mapping, table: TableRole) -> String {
    let column = match (table, &mapping.line, &mapping.milestone) {
        (TableRole::DealLineItems, Some(columns), _) => &columns.id,
        (TableRole::Milestones, _, Some(columns)) => &columns.id,
        _ => &mapping.deal.id,
    };
    column.name.clone()
}

/// Whether a row belongs to another transaction than the one that the deal waits for: it has to wait too, or two changes
/// of the deal would be seen as one.
fn comes_later(picture: &DealPicture, change: &RowChange) -> bool {
    match (&change.position.transaction, picture.open_transactions.is_empty()) {
        (Some(id), false) => !change.snapshot && !picture.open_transactions.contains(id),
        (Some(_) | None, _) => false,
    }
}

fn held_prefix(key: &[u8]) -> Vec<u8> {
    [b"h ".as_slice(), key, b" "].concat()
}

/// Held rows sort as the database ordered them.
fn held_key(key: &[u8], change: &RowChange, record: &Record) -> Vec<u8> {
    let mut held = held_prefix(key);
    for step in change.position.log.map_or([0; 3], |log| log.0) {
        held.extend_from_slice(&step.max(0).to_be_bytes());
    }
    held.extend_from_slice(&record.offset.0.to_be_bytes());
    held
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
