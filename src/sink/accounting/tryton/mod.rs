//! Tryton: posted moves, invoices and credit notes of one company.
//!
//! Owns: the meaning of Tryton's JSON-RPC for the delivery, release 8.2 on PostgreSQL (on SQLite that release posts moves
//! that do not balance).
//! Invariant: Tryton has no idempotency key and enforces no unique reference, so a document is looked up before any
//! second write; a draft that an earlier try left is completed, not made again.
//! Absent: taxes by Tryton's own rules (an invoice's tax is a line like any other), payments, reconciliation.

pub mod client;
pub mod config;
pub mod judge;
pub mod request;
mod resolve;
pub mod rpc;

pub use client::Tryton;
pub use config::Settings;
