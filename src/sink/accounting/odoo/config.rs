//! What is set for an Odoo company, and what Odoo says of its own limits.
//!
//! Source: <https://www.odoo.com/documentation/19.0/developer/reference/external_api.html> and
//! <https://www.odoo.com/documentation/19.0/developer/reference/cli.html> (`--limit-time-real`, 120 seconds: the server
//! ends a request that takes longer).

use std::time::Duration;

use crate::config::{OdooSystem, Secret};
use crate::sink::accounting::http::Url;
use crate::sink::accounting::{address, looked_up_after};
use crate::sink::destination::{Certainty, Limits};

/// Twice the time after which Odoo ends a request, and a minute for proxies.
pub const CERTAINTY: Certainty = Certainty::LookUp {
    after: Duration::from_secs(5 * 60),
};

/// Odoo states no quota. Numbering takes a lock, so more writers only wait for one another.
pub const LIMITS: Limits = Limits {
    in_flight: 4,
    per_minute: None,
    per_day: None,
};

/// One company.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Url,
    /// Where one address serves several.
    pub database: Option<String>,
    pub api_key: Secret,
    /// The company's id, where the user may use more than one.
    pub company: Option<u32>,
    /// Code of the journal for entries.
    pub journal: String,
    /// Code of the journal for invoices and credit notes.
    pub invoice_journal: String,
    pub timeout: Duration,
    pub certainty: Certainty,
}

impl Settings {
    /// # Errors
    /// The address is none.
    pub fn of(system: &OdooSystem) -> Result<Settings, String> {
        Ok(Settings {
            url: address(&system.url)?,
            database: system.database.clone(),
            api_key: system.api_key.clone(),
            company: system.company,
            journal: system.journal.clone(),
            invoice_journal: system.invoice_journal.clone(),
            timeout: system.timeout.get(),
            certainty: looked_up_after(CERTAINTY, system.look_up_after),
        })
    }
}
