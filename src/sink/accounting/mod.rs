//! The systems that keep books, each in a folder of its own.
//!
//! Owns: which kind of system is made of which configuration. Invariant: making a destination does no I/O beyond its
//! own folder; a system that is away is found by the first probe or write. Absent: delivery (`sink::worker`).
//!
//! A folder holds: `config` (what it needs, and what the system documents of itself), `request` (pure: document to body),
//! `client` (I/O), `judge` (pure: reply to outcome). Files need no requests. Beside the folders: [`http`] (one exchange),
//! [`oauth`] (tokens), [`voucher`] (a document as ledgers want it), [`judge`] (what all systems mean alike).

pub mod file;
pub mod http;
pub mod judge;
pub mod oauth;
pub mod quickbooks;
pub mod tryton;
pub mod voucher;
pub mod xero;

use std::sync::Arc;

use super::destination::Destination;
use crate::config::{Sink, System};

/// A destination cannot be made as configured; the message says what to change.
#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {message}")]
pub struct BuildError {
    pub sink: String,
    pub message: String,
}

/// The destination of a sink.
///
/// # Errors
/// The sink's own table asks for something that this machine or program cannot give.
pub fn build(sink: &Sink) -> Result<Arc<dyn Destination>, BuildError> {
    match &sink.system {
        System::File(system) => match file::Folder::open(system, &sink.accounts) {
            Ok(folder) => Ok(Arc::new(folder)),
            Err(error) => Err(BuildError {
                sink: sink.name.to_string(),
                message: format!("the folder {} cannot be used: {error}", system.dir.display()),
            }),
        },
    }
}
