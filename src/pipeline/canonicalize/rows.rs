//! Rows of the CRM's tables: which deal they concern, what they change of its picture, and which have to wait.
//!
//! Owns: the merging of rows into pictures (duplicates by log position, unchanged columns, changed primary keys), and the
//! order of transactions: the rows of a later one are held until the deal's open one has ended.
//! Invariant: a picture is only ever judged as one transaction left it, where ends of transactions are sent.
//! Absent: which row is which (`place`), and what a picture means (`judge`).

use super::place::{Place, Placed, by_key, customer_key, is_of};
use super::{At, Canonicalize, Mappings, STORE, after, expiry, joined};
use crate::codec::change::{Change, Said};
use crate::codec::crm_store::{DealPicture, KnownRow};
use crate::codec::debezium::{Moved, Op, RowChange};
use crate::codec::position::TransactionId;
use crate::codec::value::Row;
use crate::config::{Mapping, Snapshot, Stage, TableRole};
use crate::pipeline::picture;
use crate::stream::processor::{Failure, Progress, Rejected};
use crate::stream::record::Record;

/// Deals judged in one go at the end of a transaction, before the runtime may commit.
const SLICE: usize = 200;

impl Canonicalize {
    pub(super) fn row(
        &self,
        change: &Change,
        table: TableRole,
        row: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let mapping = Mappings::get(&self.mappings.by_source, &change.source)?;
        at.baseline = row.snapshot && mapping.snapshot == Snapshot::Baseline;
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
        let name = self.customer_name(mapping, columns, change, at.cx)?;
        let mut known = self.known_customer(mapping, &name, at.cx)?.unwrap_or_default();
        if !learn(&mut known, mapping, TableRole::Customers, change, change.after.as_ref())? {
            return Ok(());
        }
        at.cx.put(STORE, customer_key(mapping, &name), known.encode()?)?;
        let waiting = format!("w {} {} ", mapping.name.as_str(), name.id).into_bytes();
        for (entry, _) in at.cx.range(STORE, &waiting, &after(&waiting), usize::MAX)? {
            let key = &entry[waiting.len()..];
            let Some(mut picture) = self.picture(key, at.cx)? else {
                continue;
            };
            // An id may hold spaces, so the range of customer `A` has those who wait for `A 2`: the deal says for whom.
            let is_it = picture::customer_of(&picture, mapping).is_ok_and(|of| of.as_ref() == Some(&name.id));
            if is_it && name.tenant.as_ref().is_none_or(|tenant| is_of(key, tenant)) {
                at.cx.delete(STORE, entry.clone())?;
                self.judge(key, &mut picture, false, at)?;
            }
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
        let placed = match &change.after {
            Some(row) => self.placed(mapping, table, change, row, at.cx)?,
            // A delete is everywhere; only the partition that knows the row has something to do.
            None => match self.placed_before(mapping, table, change, at.cx)? {
                Some(now) => Placed { now, before: None },
                None => return Ok(()),
            },
        };
        if let Some(before) = placed.before.as_ref().filter(|before| before.deal != placed.now.deal)
            && !self.leave(mapping, table, before, change, at)?
        {
            return Ok(());
        }
        let place = &placed.now;
        let mut picture = match (self.picture(&place.deal, at.cx)?, &change.after) {
            (Some(picture), _) => picture,
            (None, Some(_)) => DealPicture::default(),
            (None, None) => return Ok(()),
        };
        if picture.mapping != mapping.name.as_str() {
            picture.mapping = mapping.name.as_str().to_owned();
            // Positions of another source do not compare. So whose database was restored gives its mapping another name.
            let rows = picture.lines.values_mut().chain(picture.milestones.values_mut());
            rows.chain([&mut picture.deal]).for_each(|known| known.position = None);
        }
        let index = by_key("i", mapping, table, &change.key);
        if comes_later(&picture, change) {
            if change.after.is_some() {
                at.cx.put(STORE, index, place.written())?;
            }
            return self.hold(mapping, &place.deal, &mut picture, change, at);
        }
        // The same row under another id of the same deal.
        if let Some(before) = placed.before.filter(|before| before.deal == place.deal)
            && !self.absorb(mapping, table, &before, None, change, &mut picture, at)?
        {
            return Ok(());
        }
        if !self.absorb(mapping, table, place, change.after.as_ref(), change, &mut picture, at)? {
            return Ok(());
        }
        if change.after.is_some() {
            at.cx.put(STORE, index, place.written())?;
        }
        self.judge(&place.deal, &mut picture, table == TableRole::Deals, at)
    }

    /// A row that went to another deal is gone from the one where it was, if that is in this partition; no other hears of it.
    /// False when it is known there by a newer change: then it is an old one that comes again.
    fn leave(
        &self,
        mapping: &Mapping,
        table: TableRole,
        before: &Place,
        change: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<bool, Failure> {
        let Some(mut picture) = self.picture(&before.deal, at.cx)? else {
            return Ok(true);
        };
        if comes_later(&picture, change) {
            self.hold(mapping, &before.deal, &mut picture, change, at)?;
            return Ok(true);
        }
        let new = self.absorb(mapping, table, before, None, change, &mut picture, at)?;
        if new {
            self.judge(&before.deal, &mut picture, false, at)?;
        }
        Ok(new)
    }

    fn hold(
        &self,
        mapping: &Mapping,
        key: &[u8],
        picture: &mut DealPicture,
        change: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let value = at.record.value.clone().unwrap_or_default();
        at.cx.put(STORE, held_key(key, change, at.record), value)?;
        // What is held is let in when the deal's time is over, at the latest. Pictures of earlier versions may wait for the
        // end of a transaction without a time.
        if picture.unsettled_since.is_none() {
            self.wait(key, picture, mapping, at)?;
            self.keep(key, picture, at.cx)?;
        }
        Ok(())
    }

    /// Takes a row into the picture, as it is in this deal now: `None` when it is gone. False when it says nothing new.
    #[expect(clippy::too_many_arguments, reason = "a row and its place in the picture")]
    fn absorb(
        &self,
        mapping: &Mapping,
        table: TableRole,
        place: &Place,
        row: Option<&Row>,
        change: &RowChange,
        picture: &mut DealPicture,
        at: &mut At<'_, '_>,
    ) -> Result<bool, Failure> {
        let known = match table {
            TableRole::DealLineItems => picture.lines.entry(place.id.clone()).or_default(),
            TableRole::Milestones => picture.milestones.entry(place.id.clone()).or_default(),
            TableRole::Deals | TableRole::Customers | TableRole::Transaction => &mut picture.deal,
        };
        if !learn(known, mapping, table, change, row)? {
            return Ok(false);
        }
        if table == TableRole::Deals {
            self.note_identity(&place.deal, picture, change, at);
        }
        if let (Some(row), true) = (row, at.baseline) {
            note_baseline(mapping, table, place, row, picture);
        }
        self.await_transaction(mapping, &place.deal, picture, change, at)?;
        Ok(true)
    }

    /// Lets the rows of the next transactions in, one transaction after the other, each judged as a whole, until one is
    /// not complete.
    pub(super) fn release_held(&self, key: &[u8], at: &mut At<'_, '_>) -> Result<(), Failure> {
        let prefix = held_prefix(key);
        loop {
            let Some(mut picture) = self.picture(key, at.cx)? else {
                return Ok(());
            };
            // The transaction that is let in on this round.
            let mut current = None;
            let mut own_row = false;
            for (held, value) in at.cx.range(STORE, &prefix, &after(&prefix), usize::MAX)? {
                // Deal `D` is a prefix of deal `D 2`: what follows the id is of one length.
                if held.len() != prefix.len() + HELD_PLACE_BYTES {
                    continue;
                }
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
                match self.let_in(&change, *table, row, key, &mut picture, at) {
                    Ok(()) => own_row |= *table == TableRole::Deals,
                    // The record at hand is not to blame, and the rows after this one are as good as before.
                    Err(Failure::Record(why)) => at.cx.reject(Rejected {
                        code: why.code,
                        message: format!(
                            "a row that waited for the end of a transaction, read from {} {}/{}: {}",
                            change.origin.topic, change.origin.partition, change.origin.offset, why.message
                        ),
                    }),
                    Err(Failure::Fault(fault)) => return Err(fault.into()),
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

    fn let_in(
        &self,
        change: &Change,
        table: TableRole,
        row: &RowChange,
        key: &[u8],
        picture: &mut DealPicture,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let mapping = Mappings::get(&self.mappings.by_source, &change.source)?;
        let place = match &row.after {
            Some(after) => Some(self.placed(&mapping, table, row, after, at.cx)?.now),
            None => self.placed_before(&mapping, table, row, at.cx)?,
        };
        let Some(Place { deal, id }) = place else {
            return Ok(());
        };
        // It may have gone to another deal, which takes it in by itself.
        let after = row.after.as_ref().filter(|_| deal == key);
        let deal = key.to_vec();
        self.absorb(&mapping, table, &Place { deal, id }, after, row, picture, at)?;
        Ok(())
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
                picture.renamed = true;
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
        if at.cx.get(STORE, &ended_key(mapping, id))?.is_none() {
            picture.open_transactions.push(id.clone());
            at.cx.put(STORE, joined(&format!("o {id} "), key), Vec::new())?;
        }
        Ok(())
    }

    /// The numbers of transactions are of one database: another's may be the same. A transaction of many deals is done in
    /// slices, so that it fits the overlay.
    pub(super) fn transaction_ended(
        &self,
        source: &str,
        id: &TransactionId,
        at: &mut At<'_, '_>,
    ) -> Result<Progress, Failure> {
        let mapping = Mappings::get(&self.mappings.by_source, source)?;
        let key = ended_key(&mapping, id);
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
        let (mut from, mut done) = (waiting.clone(), 0);
        loop {
            let some = at.cx.range(STORE, &from, &after(&waiting), SLICE)?;
            let Some((last, _)) = some.last() else {
                return Ok(Progress::Done);
            };
            from = [last.as_slice(), &[0]].concat();
            for (key, _) in some {
                let deal = &key[waiting.len()..];
                if let Some(mut picture) = self.picture(deal, at.cx)?
                    && picture.mapping == mapping.name.as_str()
                {
                    at.cx.delete(STORE, key.clone())?;
                    picture.open_transactions.retain(|open| open != id);
                    self.judge(deal, &mut picture, false, at)?;
                    self.release_held(deal, at)?;
                    done += 1;
                }
            }
            if done >= SLICE {
                return Ok(Progress::More);
            }
        }
    }
}

/// Takes a row in. False when it is older than, or the same as, what is known.
fn learn(
    known: &mut KnownRow,
    mapping: &Mapping,
    table: TableRole,
    change: &RowChange,
    row: Option<&Row>,
) -> Result<bool, Failure> {
    if let (Some(last), Some(new)) = (known.position, change.position.log)
        && new <= last
    {
        // A repeated record is older by both. A log that began anew, with the database restored from a backup or another
        // server in its place, goes back while time goes on.
        return match (known.at, change.at) {
            (Some(before), Some(now)) if new < last && now > before => Err(Failure::Record(went_back(mapping, table))),
            (Some(_) | None, _) => Ok(false),
        };
    }
    known.row = row.map(|row| {
        let mut row = row.clone();
        let wanted = mapping.columns(table);
        row.keep(|column| wanted.contains(&column));
        if let Some(previous) = &known.row {
            row.fill_unavailable(previous);
        }
        row
    });
    known.position = change.position.log.or(known.position);
    known.at = change.at.or(known.at);
    Ok(true)
}

/// What a snapshot states that was taken as the baseline is in the books, and is not announced; what changes later is.
fn note_baseline(mapping: &Mapping, table: TableRole, place: &Place, row: &Row, picture: &mut DealPicture) {
    match (table, &mapping.milestone) {
        (TableRole::Deals, _) if picture.announced.is_none() => match picture::stage(row, mapping) {
            Ok(Stage::Closed | Stage::Amended | Stage::Renewed) => picture.baseline = true,
            Ok(Stage::Cancelled) => (picture.baseline, picture.cancelled) = (true, true),
            Ok(Stage::Ignore) | Err(_) => {}
        },
        (TableRole::Milestones, Some(columns)) if picture.announced.is_none() || picture.baseline => {
            let accepted = row.text(&columns.accepted_on.name).is_ok_and(|day| day.is_some());
            if accepted && !picture.accepted.contains(&place.id) {
                picture.accepted.push(place.id.clone());
            }
        }
        _ => {}
    }
}

fn went_back(mapping: &Mapping, table: TableRole) -> Rejected {
    let name = mapping.name.as_str();
    Rejected {
        code: "log_went_back".to_owned(),
        message: format!(
            "a row of {table:?} is newer than what is known of it by its time, but older by its place in the database's log, and was \
             not taken in. If the database was restored, or another server took its place: give [mapping.{name}] another name, \
             under which positions are compared anew, with snapshot = \"announce\", and let the connector take a new snapshot: what \
             differs is announced",
        ),
    }
}

/// Whether a row belongs to another transaction than the one that the deal waits for: it has to wait too, or two changes
/// of the deal would be seen as one.
fn comes_later(picture: &DealPicture, change: &RowChange) -> bool {
    match (&change.position.transaction, picture.open_transactions.is_empty()) {
        (Some(id), false) => !change.snapshot && !picture.open_transactions.contains(id),
        (Some(_) | None, _) => false,
    }
}

fn ended_key(mapping: &Mapping, id: &TransactionId) -> Vec<u8> {
    format!("t {} {id}", mapping.name.as_str()).into_bytes()
}

/// A log position and an offset.
const HELD_PLACE_BYTES: usize = 4 * size_of::<u64>();

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
