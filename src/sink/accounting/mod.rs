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
pub mod netsuite;
pub mod oauth;
pub mod odoo;
pub mod oracle;
pub mod quickbooks;
pub mod tryton;
pub mod voucher;
pub mod xero;

use std::sync::Arc;

use self::http::Url;
use super::destination::{Certainty, Destination};
use crate::config::{HttpUrl, Interval, Sink, System};

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
    let failed = |message: String| BuildError {
        sink: sink.name.to_string(),
        message,
    };
    let no_tls = |error: reqwest::Error| failed(format!("no HTTP client can be made: {error}"));
    let name = sink.name.as_str();
    Ok(match &sink.system {
        System::File(system) => {
            let folder = file::Folder::open(system, &sink.accounts);
            Arc::new(
                folder
                    .map_err(|error| failed(format!("the folder {} cannot be used: {error}", system.dir.display())))?,
            )
        }
        System::Tryton(system) => {
            let settings = tryton::Settings::of(system).map_err(failed)?;
            Arc::new(tryton::Tryton::new(settings).map_err(no_tls)?)
        }
        System::Xero(system) => {
            let settings = xero::Settings::of(system, name).map_err(failed)?;
            Arc::new(xero::Xero::new(settings).map_err(no_tls)?)
        }
        System::QuickBooks(system) => {
            let settings = quickbooks::Settings::of(system, name).map_err(failed)?;
            Arc::new(quickbooks::QuickBooks::new(settings).map_err(no_tls)?)
        }
        System::NetSuite(system) => {
            let settings = netsuite::Settings::of(system, name).map_err(failed)?;
            Arc::new(netsuite::NetSuite::new(settings).map_err(no_tls)?)
        }
        System::Oracle(system) => {
            let settings = oracle::Settings::of(system).map_err(failed)?;
            Arc::new(oracle::Oracle::new(settings).map_err(no_tls)?)
        }
        System::Odoo(system) => {
            let settings = odoo::Settings::of(system).map_err(failed)?;
            Arc::new(odoo::Odoo::new(settings).map_err(no_tls)?)
        }
    })
}

/// # Errors
/// It is no address after all.
fn address(url: &HttpUrl) -> Result<Url, String> {
    Url::parse(url.as_str()).map_err(|error| format!("{:?} is no address: {error}", url.as_str()))
}

/// A system's own certainty, with another time to wait before a look where one is configured.
fn looked_up_after(certainty: Certainty, after: Option<Interval>) -> Certainty {
    match (certainty, after.map(Interval::get)) {
        (Certainty::LookUp { .. }, Some(after)) => Certainty::LookUp { after },
        (Certainty::Key { remembered, .. }, Some(after)) => Certainty::Key {
            remembered,
            look_up_after: Some(after),
        },
        (certainty @ (Certainty::LookUp { .. } | Certainty::Key { .. } | Certainty::None), _) => certainty,
    }
}
