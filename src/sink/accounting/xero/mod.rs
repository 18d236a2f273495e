//! Xero: manual journals, invoices and credit notes of one organisation.
//!
//! Owns: the meaning of Xero's Accounting API 2.0 for the delivery.
//! Invariant: documents are created with PUT, never POST: a POST of an invoice number that exists would change that
//! invoice. Journals are in the organisation's base currency, as Xero has no others.
//! Absent: contacts as such (Xero makes one of an invoice's customer), payments, attachments.

pub mod client;
pub mod config;
pub mod judge;
pub mod request;

pub use client::Xero;
pub use config::Settings;
