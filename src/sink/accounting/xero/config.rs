//! What is set for a Xero organisation, and what Xero says of its own limits.
//!
//! Source: <https://developer.xero.com/documentation/guides/oauth2/limits> (limits) and
//! <https://developer.xero.com/documentation/api/accounting/requests-and-responses> (idempotency keys, statuses).

use std::time::Duration;

use crate::config::XeroSystem;
use crate::sink::accounting::http::Url;
use crate::sink::accounting::oauth::Client;
use crate::sink::accounting::{address, looked_up_after};
use crate::sink::destination::{Certainty, Limits};

/// Where Xero serves the API and gives tokens.
pub const API: &str = "https://api.xero.com/api.xro/2.0";
pub const TOKEN: &str = "https://identity.xero.com/connect/token";

/// 60 calls a minute and 5,000 a day for an organisation, 5 at once.
pub const LIMITS: Limits = Limits {
    in_flight: 5,
    per_minute: Some(60),
    per_day: Some(5000),
};

/// Xero repeats its answer to an `Idempotency-Key`, but states no time for it: we count on a few minutes, then look.
/// Ours, too, is the time that a lost request may take to arrive.
pub const CERTAINTY: Certainty = Certainty::Key {
    remembered: Duration::from_secs(5 * 60),
    look_up_after: Some(Duration::from_secs(5 * 60)),
};

/// One organisation.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Url,
    /// The organisation: header `xero-tenant-id`.
    pub organisation: String,
    pub client: Client,
    pub timeout: Duration,
    /// Days from an invoice's date to the day it is due; Xero approves no invoice without one.
    pub due_days: u16,
    pub certainty: Certainty,
}

impl Settings {
    /// # Errors
    /// An address is none.
    pub fn of(system: &XeroSystem, sink: &str) -> Result<Settings, String> {
        Ok(Settings {
            url: match &system.url {
                Some(url) => address(url)?,
                None => Url::parse(API).map_err(|error| error.to_string())?,
            },
            organisation: system.organisation.clone(),
            due_days: system.due_days,
            client: Client::of(&system.oauth, Some(TOKEN), sink)?,
            timeout: system.timeout.get(),
            certainty: looked_up_after(CERTAINTY, system.look_up_after),
        })
    }
}
