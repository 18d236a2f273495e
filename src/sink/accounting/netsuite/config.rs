//! What is set for a NetSuite subsidiary, and what NetSuite says of its own limits.
//!
//! Source: <https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_1500275531.html> (concurrency governance:
//! 5 requests at once on the smallest service tier; more are answered 429) and
//! <https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_158074210415.html> (OAuth 2.0).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{HttpUrl, NetSuiteSystem};
use crate::sink::accounting::http::Url;
use crate::sink::accounting::oauth::Client;
use crate::sink::accounting::{address, looked_up_after};
use crate::sink::destination::{Certainty, Limits};

pub const LIMITS: Limits = Limits {
    in_flight: 5,
    per_minute: None,
    per_day: None,
};

/// The look-up by external id is exact. NetSuite states no longest time for a request: fifteen minutes are ours.
pub const CERTAINTY: Certainty = Certainty::LookUp {
    after: Duration::from_secs(15 * 60),
};

/// One subsidiary.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://ACCOUNT.suitetalk.api.netsuite.com`.
    pub url: Url,
    pub client: Client,
    /// The subsidiary's internal id; `None` where the account has none (no OneWorld).
    pub subsidiary: Option<String>,
    pub timeout: Duration,
    /// The item for lines on an account, by the account's internal id.
    pub items: BTreeMap<String, String>,
    pub certainty: Certainty,
}

impl Settings {
    /// # Errors
    /// An address is none.
    pub fn of(system: &NetSuiteSystem, sink: &str) -> Result<Settings, String> {
        Ok(Settings {
            url: address(&system.url)?,
            subsidiary: system.subsidiary.clone(),
            items: system
                .items
                .iter()
                .map(|(account, item)| (account.to_string(), item.to_string()))
                .collect(),
            client: Client::of(&system.oauth, Some(&token_url(&system.url)), sink)?,
            timeout: system.timeout.get(),
            certainty: looked_up_after(CERTAINTY, system.look_up_after),
        })
    }
}

fn token_url(url: &HttpUrl) -> String {
    format!(
        "{}/services/rest/auth/oauth2/v1/token",
        url.as_str().trim_end_matches('/')
    )
}
