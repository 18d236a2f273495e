//! Oracle Fusion Cloud: journals of one ledger, through the asynchronous journal import.
//!
//! Owns: the meaning of the ERP integration service (`importBulkData`) and of the journal batch it makes.
//! Invariant: a job's number is on the disk before it is asked about, so that a restart asks about the same job; a job
//! that has ended well is not believed until the batch was read back.
//! Absent: receivables invoices (an invoice or credit note is imported as the journal that it is), posting (Oracle's
//! AutoPost does that), approval.

mod archive;
pub mod client;
pub mod config;
pub mod judge;
pub mod request;

pub use client::Oracle;
pub use config::Settings;
