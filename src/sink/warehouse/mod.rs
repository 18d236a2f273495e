//! Warehouse sinks: the books as tables for BI tools, exactly once.
//!
//! Owns: the tables ([`tables`]), how records become rows ([`row`]), the worker that carries them ([`worker`]), and the
//! warehouses. Invariant: the position up to which a topic is in a table is stored in the warehouse, by the transaction
//! that stores the rows, and moves only from the value that the writer read. So a worker that was killed resumes from
//! what the warehouse says, and of two workers one fails its transaction and starts over: nothing is lost or doubled.
//! Absent: consumer groups, receipts, and accounting; a row says what a topic says.
//!
//! In reading order: [`table`], [`tables`], [`row`], [`worker`]; [`sql`], what SQL warehouses share; [`postgres`],
//! [`lakehouse`], [`cloud`]; [`marts`], the views; [`docs`]; [`metrics`].

pub mod cloud;
pub mod docs;
pub mod http;
pub mod lakehouse;
pub mod marts;
pub mod metrics;
pub mod postgres;
pub mod row;
mod sql;
pub mod table;
pub mod tables;
pub mod worker;

use std::collections::BTreeMap;

use crate::stream::record::{Offset, TopicPartition};
use row::Row;
use table::Table;

/// Where tables are kept. Implemented by [`postgres`], [`lakehouse`], [`cloud`], and the budget feeds, which keep theirs in memory.
pub trait Warehouse: Send {
    /// Creates what is missing and adds columns that are new; with `dry_run` it only says what it would do. Returns one
    /// line for each step.
    fn prepare(&mut self, dry_run: bool) -> Result<Vec<String>, WarehouseError>;

    /// The position after the last record of each topic that is in each table. Tables and partitions that were never
    /// written are absent.
    fn positions(&mut self) -> Result<Held, WarehouseError>;

    /// Stores rows and positions: each table's in one transaction, all tables' in one where the warehouse can.
    fn commit(&mut self, batch: &[TableBatch]) -> Result<(), WarehouseError>;

    /// Removes rows and positions, so that the tables fill again from the start of their topics.
    fn clear(&mut self) -> Result<(), WarehouseError>;

    /// Everything that was in the topics when the worker started has been committed; called again after later commits.
    fn live(&mut self) -> Result<(), WarehouseError> {
        Ok(())
    }
}

/// Positions by table and partition.
pub type Held = BTreeMap<(&'static str, TopicPartition), Offset>;

/// What one table gets in one commit.
#[derive(Debug)]
pub struct TableBatch {
    pub table: &'static Table,
    /// One row for each key, in the order of keys.
    pub rows: Vec<Row>,
    pub moves: Vec<Move>,
}

/// How the position of one partition moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub at: TopicPartition,
    /// What the warehouse must hold now; `None`: nothing yet.
    pub from: Option<Offset>,
    pub to: Offset,
}

/// A failed warehouse operation, named for what the worker does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WarehouseError {
    /// Wait, ask the warehouse for its positions, and go on from there. A commit may have happened.
    #[error("the warehouse does not answer: {0}")]
    Away(String),
    /// Another worker moved the positions: as `Away`, without waiting.
    #[error("another worker wrote first: {0}")]
    Fenced(String),
    /// A person has to change something.
    #[error("{0}")]
    Refused(String),
}
