//! What is set for a Tryton company, and what Tryton says of its own limits.
//!
//! Source: <https://docs.tryton.org/8.2/server/topics/configuration.html> (`[request] timeout`, 60 seconds unless set;
//! `[database] retry`, 5).

use std::time::Duration;

use crate::config::{Secret, TrytonSystem};
use crate::sink::accounting::http::Url;
use crate::sink::accounting::{address, looked_up_after};
use crate::sink::destination::{Certainty, Limits};

/// A call is ended after 60 seconds, and repeated by the server itself a few times where the database asked for it: what
/// is not there after five minutes does not come.
pub const CERTAINTY: Certainty = Certainty::LookUp {
    after: Duration::from_secs(5 * 60),
};

/// Tryton sets no quota. But posting locks the numbering without waiting (`FOR UPDATE NOWAIT`), and after a few tries it
/// answers a second writer with 503: so there is one.
pub const LIMITS: Limits = Limits {
    in_flight: 1,
    per_minute: None,
    per_day: None,
};

/// One company.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Url,
    pub database: String,
    pub user: String,
    pub password: Secret,
    /// The company's name, where the user sees more than one.
    pub company: Option<String>,
    /// Code of the journal for moves.
    pub journal: String,
    /// Code of the journal for invoices and credit notes.
    pub invoice_journal: String,
    pub timeout: Duration,
    pub certainty: Certainty,
}

impl Settings {
    /// # Errors
    /// The address is none.
    pub fn of(system: &TrytonSystem) -> Result<Settings, String> {
        Ok(Settings {
            url: address(&system.url)?,
            database: system.database.clone(),
            user: system.user.clone(),
            password: system.password.clone(),
            company: system.company.clone(),
            journal: system.journal.clone(),
            invoice_journal: system.invoice_journal.clone(),
            timeout: system.timeout.get(),
            certainty: looked_up_after(CERTAINTY, system.look_up_after),
        })
    }
}
