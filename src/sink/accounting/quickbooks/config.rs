//! What is set for a QuickBooks company, and what Intuit says of its own limits.
//!
//! Source: <https://developer.intuit.com/app/developer/qbo/docs/learn/rest-api-features> (500 requests a minute and 10 at
//! once for a company; `requestid` of at most 50 characters) and
//! <https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0> (access tokens
//! of an hour; refresh tokens that change, each replaced one good for 24 hours more).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::QuickBooksSystem;
use crate::sink::accounting::http::Url;
use crate::sink::accounting::oauth::Client;
use crate::sink::accounting::{address, looked_up_after};
use crate::sink::destination::{Certainty, Limits};

/// Where Intuit serves the API and gives tokens.
pub const API: &str = "https://quickbooks.api.intuit.com";
pub const TOKEN: &str = "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer";

pub const LIMITS: Limits = Limits {
    in_flight: 10,
    per_minute: Some(500),
    per_day: None,
};

/// Intuit repeats its answer to a `requestid`, but states no time for it: we count on ten minutes, then look. Ours, too,
/// is the time that a lost request may take.
pub const CERTAINTY: Certainty = Certainty::Key {
    remembered: Duration::from_secs(10 * 60),
    look_up_after: Some(Duration::from_secs(5 * 60)),
};

/// Patience where a 429 names none: the quota is by the minute.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One company.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Url,
    /// The company: `realmId`.
    pub realm: String,
    pub client: Client,
    pub timeout: Duration,
    /// The item for lines on an account, by account id: an invoice's line has an item, and the item has the account.
    pub items: BTreeMap<String, String>,
    pub certainty: Certainty,
}

impl Settings {
    /// # Errors
    /// An address is none.
    pub fn of(system: &QuickBooksSystem, sink: &str) -> Result<Settings, String> {
        Ok(Settings {
            url: match &system.url {
                Some(url) => address(url)?,
                None => Url::parse(API).map_err(|error| error.to_string())?,
            },
            realm: system.company.clone(),
            items: system
                .items
                .iter()
                .map(|(account, item)| (account.to_string(), item.to_string()))
                .collect(),
            client: Client::of(&system.oauth, Some(TOKEN), sink)?,
            timeout: system.timeout.get(),
            certainty: looked_up_after(CERTAINTY, system.look_up_after),
        })
    }
}
