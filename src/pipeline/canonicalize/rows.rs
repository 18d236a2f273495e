//! Rows of the CRM's tables: which deal they concern, what they change of its picture, and which have to wait.
//!
//! Owns: the merging of rows into pictures (duplicates by log position, unchanged columns, changed primary keys), and the
//! order of transactions: the rows of a later one are held until the deal's open one has ended.
//! Invariant: a picture is only ever judged as one transaction left it, where ends of transactions are sent.
//! Absent: what a picture means (`judge`).

use super::{At, Canonicalize, Mappings, STORE, after, expiry, joined};
use crate::codec::change::{Change, Said};
use crate::codec::crm_store::{DealPicture, KnownRow};
use crate::codec::debezium::{Moved, Op, RowChange};
use crate::codec::position::TransactionId;
use crate::config::{Mapping, Snapshot, TableRole};
use crate::pipeline::rekey::{required_id, tenant};
use crate::stream::processor::{Context, Failure, Rejected};
use crate::stream::record::Record;

impl Canonicalize {
    pub(super) fn row(
        &self,
        change: &Change,
        table: TableRole,
        row: &RowChange,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
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

    pub(super) fn transaction_ended(&self, id: &TransactionId, at: &mut At<'_, '_>) -> Result<(), Failure> {
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
