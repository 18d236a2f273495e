//! QuickBooks Online: journal entries, invoices and credit memos of one company.
//!
//! Owns: the meaning of the QuickBooks Accounting API (v3) for the delivery.
//! Invariant: accounts, items and currencies are QuickBooks' own ids, from configuration; a customer is found by the id
//! at the end of the display name, which QuickBooks keeps unique. Journals are in home currency.
//! Absent: sales tax by QuickBooks' own engine, payments, attachments.

pub mod client;
pub mod config;
pub mod judge;
pub mod request;

pub use client::QuickBooks;
pub use config::Settings;
