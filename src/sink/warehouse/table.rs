//! What a warehouse table is: its columns, where each comes from, and how often a record makes a row.
//!
//! Owns the vocabulary of [`super::tables`]. DDL, `docs/warehouse.md` and the encoders all follow from it, so they cannot
//! disagree. Invariant: a table is fed by one topic alone, so that its rows and the position up to which the topic is in
//! it can move together in every warehouse, also in those that commit table by table.
//! Absent: the warehouse's own types and statements (`sql`, `lakehouse`).

use crate::codec::schemas::Product;

/// One table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub name: &'static str,
    pub doc: &'static str,
    /// What one row stands for, to follow "One row for each".
    pub grain: &'static str,
    /// The topic that feeds it.
    pub feed: Product,
    /// Lists inside the record, outermost first: one row for each item of the last one. Empty: one row a record.
    pub explode: &'static [&'static str],
    /// Records without a value here make no row.
    pub only: Option<&'static str>,
    /// Of two rows with one key, the one with more here holds; without it, the one read later.
    pub order: Option<&'static str>,
    pub columns: &'static [Column],
}

#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
    /// Part of the natural key. The key's columns are the table's first ones.
    pub key: bool,
    pub from: From,
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
    /// Money: 28 digits, 6 of them decimals.
    Amount,
    /// Rates, quantities and unit prices: 28 digits, 12 of them decimals.
    Rate,
    Day,
    /// To the microsecond.
    Instant,
}

/// Where a column's value is found. Paths are names with dots between.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// In the record.
    Record(&'static str),
    /// In the item of the first exploded list.
    Item(&'static str),
    /// In the item of the second one.
    Inner(&'static str),
    /// The item's number in its list, from 1.
    Number,
    /// What the tenant's calendar says of the `period` of the item of the last exploded list.
    Period(PeriodPart),
    /// Days from the first day to the second, both counted, of the item of the last exploded list.
    Days(&'static str, &'static str),
    SourcePartition,
    SourceOffset,
}

#[derive(Clone, Copy, Debug)]
pub enum PeriodPart {
    FirstDay,
    LastDay,
    Year,
    Number,
    Quarter,
    /// Twelve times the year, plus the number: consecutive periods differ by one.
    Index,
}

impl Table {
    pub fn keys(&self) -> impl Iterator<Item = &'static Column> {
        self.columns.iter().filter(|column| column.key)
    }

    /// How many columns the key has.
    pub fn key_width(&self) -> usize {
        self.keys().count()
    }

    pub fn position_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| known.name == column)
    }
}

impl Kind {
    /// In the words of `docs/warehouse.md`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Amount => "decimal(28,6)",
            Kind::Rate => "decimal(28,12)",
            Kind::Day => "date",
            Kind::Instant => "timestamp",
        }
    }

    /// Decimals after the point, of the two kinds that have them.
    pub fn scale(self) -> Option<u32> {
        match self {
            Kind::Amount => Some(6),
            Kind::Rate => Some(12),
            Kind::Text | Kind::Integer | Kind::Boolean | Kind::Day | Kind::Instant => None,
        }
    }
}

/// A column that always has a value.
pub const fn column(name: &'static str, kind: Kind, from: From, doc: &'static str) -> Column {
    Column {
        name,
        kind,
        nullable: false,
        key: false,
        from,
        doc,
    }
}

impl Column {
    pub const fn key(self) -> Column {
        Column { key: true, ..self }
    }

    pub const fn nullable(self) -> Column {
        Column { nullable: true, ..self }
    }
}
