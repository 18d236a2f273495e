//! Odoo: entries, invoices and credit notes (`account.move`) of one company.
//!
//! Owns: the meaning of Odoo's JSON-2 API (release 19) for the delivery.
//! Invariant: Odoo has no idempotency key and enforces no unique reference, so a document is looked up before any second
//! write; a draft that an earlier try left is posted, not made again.
//! Absent: the older XML-RPC and JSON-RPC, which Odoo removes; taxes by Odoo's own rules; payments.

pub mod client;
pub mod config;
pub mod judge;
pub mod request;

pub use client::Odoo;
pub use config::Settings;
