//! The tables that accrue keeps in a warehouse, column by column.
//!
//! Owns their names, grains and words. Invariant: a key is unique, its first columns are tenant and, where there is one,
//! deal; what is added to a table later is nullable. To add a column is to add a line in `dims` or `facts`, and to run
//! `accrue warehouse NAME --backfill` where old rows should have it; to add a table is to describe it there and to name it
//! in [`ALL`]: it fills itself from the start of its topic. Absent: views (`marts`).

mod dims;
mod facts;

pub use dims::{DIM_ACCOUNT, DIM_CUSTOMER, DIM_DEAL, DIM_DEAL_LINE, DIM_PERIOD};
pub use facts::{
    FACT_BILLING, FACT_CONTRACT_VERSION, FACT_DEAL_EVENT, FACT_JOURNAL_LINE, FACT_OBLIGATION, FACT_RECEIPT,
    FACT_RECOGNITION, FACT_RECURRING,
};

use super::table::From::{Record, SourceOffset, SourcePartition};
use super::table::Kind::{Integer, Text};
use super::table::{Column, Table, column};

/// Every table, in the order in which they are created and documented.
pub const ALL: &[Table] = &[
    DIM_DEAL,
    DIM_DEAL_LINE,
    DIM_CUSTOMER,
    DIM_ACCOUNT,
    DIM_PERIOD,
    FACT_DEAL_EVENT,
    FACT_CONTRACT_VERSION,
    FACT_OBLIGATION,
    FACT_RECURRING,
    FACT_RECOGNITION,
    FACT_BILLING,
    FACT_JOURNAL_LINE,
    FACT_RECEIPT,
];

const TENANT: Column = column("tenant_id", Text, Record("tenant_id"), "The tenant.").key();
const DEAL: Column = column("deal_id", Text, Record("deal_id"), "The deal.").key();
const PARTITION: Column = column(
    "source_partition",
    Integer,
    SourcePartition,
    "Partition of the record behind the row.",
);
const OFFSET: Column = column(
    "source_offset",
    Integer,
    SourceOffset,
    "Offset of the record behind the row.",
);
