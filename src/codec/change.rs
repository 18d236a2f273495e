//! `crm.changes`: what sources said, on the partition of the deal it concerns. Internal, and read by `canonicalize` only.
//!
//! Invariant: a change decodes to what was encoded, facts' instants to the microsecond. It carries the place it was
//! read from, so that everything derived from it is derived from the same place again.

use serde::{Deserialize, Serialize};

use super::cell::{Cell, cells, row};
use super::debezium::{Moved, Op, RowChange, TableEvents};
use super::facts::FactWire;
use super::names::{Named, named};
use super::position::{LogPosition, Position, TransactionId};
use super::schemas::{Product, Schemas};
use super::wire::{Instant, Text};
use super::{DecodeError, Refused};
use crate::config::TableRole;
use crate::revenue::fact::Fact;

/// One record of `crm.changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The source's name in the topology.
    pub source: String,
    /// Where it was read.
    pub origin: Origin,
    pub said: Said,
}

/// The record something was read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Row {
        table: TableRole,
        change: RowChange,
    },
    Fact(Fact),
    /// A database transaction has ended: all its changes were sent.
    TransactionEnd {
        id: TransactionId,
        events: u64,
        tables: Vec<TableEvents>,
    },
}

impl Schemas {
    pub fn encode_change(&self, change: &Change) -> Result<Vec<u8>, Refused> {
        self.encode(Product::CrmChanges, &ChangeWire::try_from(change)?)
    }

    pub fn decode_change(&self, bytes: &[u8]) -> Result<Change, DecodeError> {
        let wire: ChangeWire<'_> = self.decode(Product::CrmChanges, bytes)?;
        Ok(Change::try_from(wire)?)
    }
}

named! { Op:
    Create = "create",
    Update = "update",
    Delete = "delete",
    Read = "read",
    Truncate = "truncate",
}

named! { TableRole:
    Deals = "deals",
    DealLineItems = "deal_line_items",
    Customers = "customers",
    Milestones = "milestones",
    Transaction = "transaction",
}

#[derive(Serialize, Deserialize)]
struct ChangeWire<'a> {
    #[serde(borrow)]
    source: Text<'a>,
    topic: Text<'a>,
    partition: i32,
    offset: i64,
    row: Option<RowWire<'a>>,
    fact: Option<FactWire<'a>>,
    transaction: Option<EndWire<'a>>,
}

#[derive(Serialize, Deserialize)]
struct RowWire<'a> {
    #[serde(borrow)]
    table: Text<'a>,
    op: Text<'a>,
    key: Vec<Cell<'a>>,
    after: Option<Vec<Cell<'a>>>,
    moved_to: Option<Vec<Cell<'a>>>,
    moved_from: Option<Vec<Cell<'a>>>,
    snapshot: bool,
    at: Option<Instant>,
    log_position: Vec<i64>,
    transaction: Option<Text<'a>>,
    total_order: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct EndWire<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    events: i64,
    tables: Vec<TableWire<'a>>,
}

#[derive(Serialize, Deserialize)]
struct TableWire<'a> {
    #[serde(borrow)]
    table: Text<'a>,
    events: i64,
}

impl<'a> TryFrom<&'a Change> for ChangeWire<'a> {
    type Error = Refused;

    fn try_from(change: &'a Change) -> Result<ChangeWire<'a>, Refused> {
        let mut wire = ChangeWire {
            source: change.source.as_str().into(),
            topic: change.origin.topic.as_str().into(),
            partition: number(change.origin.partition)?,
            offset: number(change.origin.offset)?,
            row: None,
            fact: None,
            transaction: None,
        };
        match &change.said {
            Said::Row { table, change } => wire.row = Some(RowWire::new(*table, change)),
            Said::Fact(fact) => wire.fact = Some(FactWire::from(fact)),
            Said::TransactionEnd { id, events, tables } => {
                let tables = tables
                    .iter()
                    .map(|of| {
                        Ok(TableWire {
                            table: of.table.as_str().into(),
                            events: number(of.events)?,
                        })
                    })
                    .collect::<Result<_, Refused>>()?;
                wire.transaction = Some(EndWire {
                    id: id.0.as_str().into(),
                    events: number(*events)?,
                    tables,
                });
            }
        }
        Ok(wire)
    }
}

impl<'a> RowWire<'a> {
    fn new(table: TableRole, change: &'a RowChange) -> RowWire<'a> {
        let (moved_to, moved_from) = match &change.moved {
            Some(Moved::To(key)) => (Some(cells(key)), None),
            Some(Moved::From(key)) => (None, Some(cells(key))),
            None => (None, None),
        };
        RowWire {
            table: table.name().into(),
            op: change.op.name().into(),
            key: cells(&change.key),
            after: change.after.as_ref().map(cells),
            moved_to,
            moved_from,
            snapshot: change.snapshot,
            at: change.at.map(Instant),
            log_position: change.position.log.map(|log| log.0.to_vec()).unwrap_or_default(),
            transaction: change.position.transaction.as_ref().map(|id| id.0.as_str().into()),
            total_order: change.position.total_order,
        }
    }
}

impl TryFrom<ChangeWire<'_>> for Change {
    type Error = Refused;

    fn try_from(wire: ChangeWire<'_>) -> Result<Change, Refused> {
        let said = match (wire.row, wire.fact, wire.transaction) {
            (Some(row), None, None) => row_said(row)?,
            (None, Some(fact), None) => Said::Fact(Fact::try_from(fact)?),
            (None, None, Some(end)) => Said::TransactionEnd {
                id: TransactionId(end.id.into_owned()),
                events: number(end.events)?,
                tables: end
                    .tables
                    .into_iter()
                    .map(|of| {
                        Ok(TableEvents {
                            table: of.table.into_owned(),
                            events: number(of.events)?,
                        })
                    })
                    .collect::<Result<_, Refused>>()?,
            },
            _ => return Err(bad("not one of row, fact and transaction is given")),
        };
        Ok(Change {
            source: wire.source.into_owned(),
            origin: Origin {
                topic: wire.topic.into_owned(),
                partition: number(wire.partition)?,
                offset: number(wire.offset)?,
            },
            said,
        })
    }
}

fn row_said(wire: RowWire<'_>) -> Result<Said, Refused> {
    let moved = match (wire.moved_to, wire.moved_from) {
        (Some(key), None) => Some(Moved::To(row(key)?)),
        (None, Some(key)) => Some(Moved::From(row(key)?)),
        (None, None) => None,
        (Some(_), Some(_)) => return Err(bad("moved both to and from a key")),
    };
    let change = RowChange {
        op: Op::of_name(&wire.op).ok_or_else(|| bad(&format!("op {:?} is unknown", wire.op)))?,
        key: row(wire.key)?,
        after: wire.after.map(row).transpose()?,
        position: Position {
            log: log_position(&wire.log_position)?,
            transaction: wire.transaction.map(|id| TransactionId(id.into_owned())),
            total_order: wire.total_order,
        },
        at: wire.at.map(|at| at.0),
        snapshot: wire.snapshot,
        moved,
    };
    let table = TableRole::of_name(&wire.table).ok_or_else(|| bad(&format!("table {:?} is unknown", wire.table)))?;
    Ok(Said::Row { table, change })
}

pub(super) fn log_position(steps: &[i64]) -> Result<Option<LogPosition>, Refused> {
    match steps {
        [] => Ok(None),
        [a, b, c] => Ok(Some(LogPosition([*a, *b, *c]))),
        _ => Err(bad("log_position has not three steps")),
    }
}

/// Avro has no unsigned numbers.
fn number<From: Copy + std::fmt::Display, To: TryFrom<From>>(from: From) -> Result<To, Refused> {
    To::try_from(from).map_err(|_| bad(&format!("{from} is out of range")))
}

fn bad(message: &str) -> Refused {
    Refused::new("bad_event", format!("crm change: {message}"))
}
