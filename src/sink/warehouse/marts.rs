//! Views over the tables: the plans that stand, and what finance reports.
//!
//! Owns the SQL, which PostgreSQL, DuckDB, Snowflake and BigQuery all run: no word that one of them reserves, tables
//! right after FROM or JOIN. Invariant: amounts are sums and differences of stored amounts:
//! no division, which DuckDB does in floating point. Absent: parameters, and the day: what is past is what was posted.

/// A view; later ones use earlier ones.
pub struct View {
    pub name: &'static str,
    pub doc: &'static str,
    pub sql: &'static str,
}

macro_rules! views {
    ($($name:literal: $doc:literal,)*) => {
        &[$(View { name: $name, doc: $doc, sql: include_str!(concat!("marts/", $name, ".sql")) },)*]
    };
}

pub const ALL: &[View] = views! {
    "recognition_current": "The recognition plan that stands, one row for each deal, obligation and period, with what the journal \
        holds of it (posted_amount, posted_functional_amount).",
    "billing_current": "The billing plan that stands, one row for each planned invoice.",
    "mart_deferred_waterfall": "Deferred revenue by tenant, currency and period: opening + billed - recognised + fx = closing, in \
        both currencies.",
    "mart_rpo": "Remaining performance obligations (ASC 606-10-50-13) by tenant and currency: planned, less what the journal holds of \
        it (a period may be posted in part); as `accrue books report rpo` says it, with what waits for a rate or a close; due \
        within twelve periods of the latest posted one, and later.",
    "mart_arr_movement": "Annual recurring revenue by tenant, currency and period: opening + new_business + expansion - contraction - churn = \
        closing. What is active on the period's last day, as the terms that stand now say, not as they were known then; \
        the same as `accrue books report movement` in the contract's currency.",
    "mart_forecast": "Planned and posted revenue by tenant, currency, period and line type.",
    "mart_reconciliation": "Each deal's price, plan, and what the journal holds of both revenue and invoices, how many of its entries were issued and how many a ledger has, with a finding.",
};
