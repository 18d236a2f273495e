//! Which row is which: the deal that a row is in, and the id under which the deal's picture has it.
//!
//! Owns: the index of rows by their keys, the first ids of lines and milestones whose keys changed, and how the store names
//! customers.
//! Invariant: a row is known by every column of its key, so that two rows are never taken for one; within its deal, a line is
//! known by its id, and a milestone by its line's id and its own.
//! Absent: what rows say (`rows`).

use super::{Canonicalize, STORE};
use crate::codec::crm_store::KnownRow;
use crate::codec::debezium::{Moved, RowChange};
use crate::codec::value::Row;
use crate::config::{Column, CustomerColumns, Mapping, TableRole, TenantOf};
use crate::pipeline::rekey::{required_id, tenant};
use crate::stream::processor::{Context, Failure};

/// Between the columns of a key, and between a deal and an id within it: no id may hold control characters.
const BETWEEN_COLUMNS: &str = "\u{1f}";
const BEFORE_ID: char = '\n';

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `<tenant>/<deal>`
    pub(super) deal: Vec<u8>,
    pub(super) id: String,
}

/// A row that is there: where it is now, and where the store has it, if that is another place.
pub(super) struct Placed {
    pub(super) now: Place,
    pub(super) before: Option<Place>,
}

/// A customer. The store has it under `<tenant>/<id>`, or under the id alone where rows name no tenant.
pub(super) struct CustomerName {
    pub(super) tenant: Option<String>,
    pub(super) id: String,
}

impl Place {
    fn read(kept: &[u8]) -> Option<Place> {
        let (deal, id) = std::str::from_utf8(kept).ok()?.split_once(BEFORE_ID)?;
        Some(Place {
            deal: deal.as_bytes().to_vec(),
            id: id.to_owned(),
        })
    }

    pub(super) fn written(&self) -> Vec<u8> {
        [self.deal.as_slice(), &[BEFORE_ID as u8], self.id.as_bytes()].concat()
    }
}

impl Canonicalize {
    /// Where a row that is there belongs, as it says itself.
    pub(super) fn placed(
        &self,
        mapping: &Mapping,
        table: TableRole,
        change: &RowChange,
        row: &Row,
        cx: &mut Context<'_>,
    ) -> Result<Placed, Failure> {
        let deal_column = &deal_column(mapping, table).name;
        let deal = required_id(row, deal_column)?;
        let key = format!("{}/{deal}", tenant(mapping, row)?).into_bytes();
        let own = row_id(change, &id_column(mapping, table).name)?;
        // A deal's own row is in no other deal; one with a new id is noted where its picture is.
        if table == TableRole::Deals {
            let now = Place { deal: key, id: own };
            return Ok(Placed { now, before: None });
        }
        let (before, first) = match &change.moved {
            Some(Moved::From(old)) => {
                let before = self.place(mapping, table, old, cx)?;
                let elsewhere = before.as_ref().is_some_and(|before| before.deal != key)
                    || text(old, deal_column).is_some_and(|of| of != deal);
                let first = match elsewhere {
                    true => own,
                    // It stays what it was: its new key is another name of the first.
                    false => {
                        let first = match self.first_id(mapping, table, old, cx)? {
                            Some(first) => first,
                            None => text(old, &id_column(mapping, table).name).unwrap_or(own),
                        };
                        cx.put(
                            STORE,
                            by_key("a", mapping, table, &change.key),
                            first.clone().into_bytes(),
                        )?;
                        first
                    }
                };
                (before, first)
            }
            Some(Moved::To(_)) | None => {
                let before = self.place(mapping, table, &change.key, cx)?;
                (before, self.first_id(mapping, table, &change.key, cx)?.unwrap_or(own))
            }
        };
        let id = match (table, &mapping.milestone) {
            (TableRole::Milestones, Some(columns)) => {
                let line = text(row, &columns.line_item_id.name).unwrap_or_default();
                format!("{line}/{first}")
            }
            _ => first,
        };
        let now = Place { deal: key, id };
        let before = before.filter(|before| *before != now);
        Ok(Placed { now, before })
    }

    /// Where the store has the row of this key. A row whose key is about to change within its deal is left where it is.
    pub(super) fn placed_before(
        &self,
        mapping: &Mapping,
        table: TableRole,
        change: &RowChange,
        cx: &Context<'_>,
    ) -> Result<Option<Place>, Failure> {
        let Some(place) = self.place(mapping, table, &change.key, cx)? else {
            return Ok(None);
        };
        Ok(match (table, &change.moved) {
            (TableRole::Deals, _) | (_, None | Some(Moved::From(_))) => Some(place),
            (_, Some(Moved::To(new))) => {
                let goes =
                    text(new, &deal_column(mapping, table).name).is_some_and(|deal| !names_deal(&place.deal, &deal));
                goes.then_some(place)
            }
        })
    }

    fn place(
        &self,
        mapping: &Mapping,
        table: TableRole,
        key: &Row,
        cx: &Context<'_>,
    ) -> Result<Option<Place>, Failure> {
        let index = by_key("i", mapping, table, key);
        let kept = cx.get(STORE, &index)?;
        if let Some(place) = kept.as_deref().and_then(Place::read) {
            return Ok(Some(place));
        }
        // Kept by an earlier version: the deal alone, under the row's own id alone, which may be another row's as well. So the
        // deal has to have the row that the key names.
        let Some(own) = text(key, &id_column(mapping, table).name) else {
            return Ok(None);
        };
        let tenant = match &mapping.tenant {
            TenantOf::Fixed(tenant) => Some(tenant.to_string()),
            TenantOf::Column(column) => text(key, column),
        };
        let deal = match (kept, &tenant, text(key, &deal_column(mapping, table).name)) {
            (Some(deal), _, _) => Some(deal),
            (None, Some(tenant), Some(deal)) => Some(format!("{tenant}/{deal}").into_bytes()),
            (None, _, of) => {
                let old = format!("i {} {table:?} {own}", mapping.name.as_str()).into_bytes();
                let kept = if old == index { None } else { cx.get(STORE, &old)? };
                kept.filter(|deal| of.is_none_or(|of| names_deal(deal, &of)))
                    .filter(|deal| tenant.is_none_or(|tenant| is_of(deal, &tenant)))
            }
        };
        let Some(deal) = deal else {
            return Ok(None);
        };
        let Some(picture) = self.picture(&deal, cx)? else {
            return Ok(None);
        };
        let first = self.first_id(mapping, table, key, cx)?.unwrap_or(own);
        let id = match (table, &mapping.milestone) {
            (TableRole::Milestones, Some(columns)) => {
                let line = text(key, &columns.line_item_id.name);
                let named = |id: &String| {
                    let (of, own) = id.split_once('/').unwrap_or_default();
                    own == first && line.as_ref().is_none_or(|line| line == of)
                };
                picture.milestones.into_keys().find(named)
            }
            (TableRole::DealLineItems, _) => Some(first).filter(|id| picture.lines.contains_key(id)),
            _ => Some(first),
        };
        Ok(id.map(|id| Place { deal, id }))
    }

    /// The first id of a row whose key changed to this one.
    fn first_id(
        &self,
        mapping: &Mapping,
        table: TableRole,
        key: &Row,
        cx: &Context<'_>,
    ) -> Result<Option<String>, Failure> {
        let kept = cx.get(STORE, &by_key("a", mapping, table, key))?;
        Ok(kept.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Whom a customer's row is about. Where its tenant is not told, as in a delete, it is found by the row's key.
    pub(super) fn customer_name(
        &self,
        mapping: &Mapping,
        columns: &CustomerColumns,
        change: &RowChange,
        cx: &mut Context<'_>,
    ) -> Result<CustomerName, Failure> {
        let id = row_id(change, &columns.id.name)?;
        let TenantOf::Column(column) = &mapping.tenant else {
            return Ok(CustomerName { tenant: None, id });
        };
        let mut tenant = text(&change.key, column);
        if tenant.is_none() {
            let index = by_key("i", mapping, TableRole::Customers, &change.key);
            match change.after.as_ref().and_then(|row| text(row, column)) {
                Some(of) => {
                    cx.put(STORE, index, of.clone().into_bytes())?;
                    tenant = Some(of);
                }
                None => {
                    let kept = cx.get(STORE, &index)?;
                    tenant = kept.and_then(|bytes| String::from_utf8(bytes).ok());
                }
            }
        }
        Ok(CustomerName { tenant, id })
    }

    /// What is known of a customer.
    pub(super) fn known_customer(
        &self,
        mapping: &Mapping,
        name: &CustomerName,
        cx: &Context<'_>,
    ) -> Result<Option<KnownRow>, Failure> {
        let read = |key: Vec<u8>| -> Result<Option<KnownRow>, Failure> {
            let kept = cx.get(STORE, &key)?;
            Ok(kept.map(|bytes| KnownRow::decode(&bytes)).transpose()?)
        };
        let known = read(customer_key(mapping, name))?;
        let (None, TenantOf::Column(column), Some(tenant)) = (&known, &mapping.tenant, &name.tenant) else {
            return Ok(known);
        };
        // A row without a tenant is everybody's; and an earlier version kept all of them under their ids alone.
        let nobodys = CustomerName {
            tenant: None,
            id: name.id.clone(),
        };
        let known = read(customer_key(mapping, &nobodys))?;
        Ok(known.filter(|known| {
            let row = known.row.as_ref();
            row.and_then(|row| text(row, column)).is_none_or(|of| of == *tenant)
        }))
    }
}

pub(super) fn customer_key(mapping: &Mapping, name: &CustomerName) -> Vec<u8> {
    let id = &name.id;
    match (&mapping.tenant, &name.tenant) {
        (TenantOf::Column(_), Some(tenant)) => format!("c {} {tenant}/{id}", mapping.name.as_str()).into_bytes(),
        (TenantOf::Fixed(_), _) | (_, None) => format!("c {} {id}", mapping.name.as_str()).into_bytes(),
    }
}

/// `<kind> <mapping> <table> <every column of the row's key>`
pub(super) fn by_key(kind: &str, mapping: &Mapping, table: TableRole, key: &Row) -> Vec<u8> {
    let columns: Vec<String> = key
        .columns()
        .map(|(name, _)| text(key, name).unwrap_or_default())
        .collect();
    format!(
        "{kind} {} {table:?} {}",
        mapping.name.as_str(),
        columns.join(BETWEEN_COLUMNS)
    )
    .into_bytes()
}

fn names_deal(key: &[u8], deal: &str) -> bool {
    key.strip_suffix(deal.as_bytes())
        .is_some_and(|tenant| tenant.ends_with(b"/"))
}

/// Whether a deal is of this tenant.
pub(super) fn is_of(key: &[u8], tenant: &str) -> bool {
    key.strip_prefix(tenant.as_bytes())
        .is_some_and(|deal| deal.starts_with(b"/"))
}

/// A column's text, if it has one.
fn text(row: &Row, column: &str) -> Option<String> {
    row.text(column).ok().flatten()
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
fn id_column(mapping: &Mapping, table: TableRole) -> &Column {
    match (table, &mapping.line, &mapping.milestone) {
        (TableRole::DealLineItems, Some(columns), _) => &columns.id,
        (TableRole::Milestones, _, Some(columns)) => &columns.id,
        _ => &mapping.deal.id,
    }
}

/// The column that names a row's deal.
fn deal_column(mapping: &Mapping, table: TableRole) -> &Column {
    match (table, &mapping.line, &mapping.milestone) {
        (TableRole::DealLineItems, Some(columns), _) => &columns.deal_id,
        (TableRole::Milestones, _, Some(columns)) => &columns.deal_id,
        _ => &mapping.deal.id,
    }
}
