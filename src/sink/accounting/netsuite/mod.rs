//! NetSuite: journal entries, invoices and credit memos of one subsidiary.
//!
//! Owns: the meaning of SuiteTalk REST (record service v1) for the delivery.
//! Invariant: a document is created under its key as external id, which NetSuite keeps unique for each record type. It is
//! a POST, not the PUT that would also update: a repetition is refused, and what a person changed is never overwritten.
//! Absent: custom forms and fields, approval workflows, NetSuite's tax engine.

pub mod client;
pub mod config;
pub mod judge;
pub mod request;

pub use client::NetSuite;
pub use config::Settings;
