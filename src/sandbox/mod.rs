//! Doubles of accounting systems: for tests, and for anyone who wants to see what would be posted.
//!
//! A double keeps documents, refuses what the system would refuse, and misbehaves as the system does, on request or by a
//! seed. It is written from the system's published contract and knows nothing of our clients: no room of ours is used.
//!
//! * [`room`]: what a system must offer to be played: one pure step from request to response.
//! * [`fault`]: how it misbehaves.
//! * [`server`]: HTTP, time, rate limits and the control addresses around all of them.
//! * [`settings`]: what to write into the topology to deliver to them.
//! * [`tokens`], [`ledger`]: what several systems share: OAuth 2.0, and the check and listing of documents.
//!
//! Invariant: with the same requests in the same order, a double gives the same answers. Absent: anything that a real
//! system does beyond what a writer of journals, invoices and credit notes meets.

pub mod fault;
pub mod ledger;
pub mod netsuite;
pub mod odoo;
pub mod oracle;
pub mod page;
pub mod quickbooks;
pub mod room;
pub mod server;
pub mod settings;
pub mod tokens;
pub mod xero;

pub use fault::{Fault, Script};
pub use room::{Posted, Vendor};
pub use server::{Options, Sandbox};

/// Every system that can be played.
pub fn vendors() -> Vec<Box<dyn Vendor>> {
    vec![
        Box::new(xero::Xero::default()),
        Box::new(quickbooks::QuickBooks::default()),
        Box::new(netsuite::NetSuite::default()),
        Box::new(oracle::Oracle::default()),
        Box::new(odoo::Odoo::default()),
    ]
}
