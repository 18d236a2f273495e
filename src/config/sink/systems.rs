//! `[sinks.NAME.xero]` and its siblings: what each accounting system needs to be reached.
//!
//! Owns the keys and their defaults. Invariant: secrets are [`Secret`]s. Absent on purpose: what a system documents of
//! itself (limits, times); that is `sink::accounting`'s, beside the code that relies on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;

use crate::config::leaf::{AccountName, HttpUrl, Name, Secret};
use crate::config::measure::Interval;

/// An app's way in by OAuth 2.0: by client credentials, or by a refresh token of a consent given once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    /// The app's id.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// The app's secret.
    pub client_secret: Secret,
    /// The refresh token of the consent. Without it, client credentials are used.
    pub refresh_token: Option<Secret>,
    /// Where the refresh token of today is kept: it changes with every use, and the next must be on the disk before it is
    /// relied upon. One file each sink; default `data/tokens/SINK.json`.
    #[schemars(length(min = 1))]
    pub token_file: Option<PathBuf>,
    /// What is asked for, with client credentials.
    #[schemars(length(min = 1))]
    pub scope: Option<String>,
    /// Where tokens are given; the system's own address unless set.
    pub token_url: Option<HttpUrl>,
}

/// An organisation of Xero.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XeroSystem {
    /// Where the API is; Xero's own address unless set.
    pub url: Option<HttpUrl>,
    /// The organisation's tenant id.
    #[schemars(length(min = 1))]
    pub organisation: String,
    /// The app's way in.
    pub oauth: OAuth,
    /// Days from an invoice's date to the day it is due.
    #[serde(default = "thirty")]
    #[schemars(range(min = 0, max = 3650))]
    pub due_days: u16,
    /// How long one request may take.
    #[serde(default = "a_minute")]
    pub timeout: Interval,
    /// How long after a lost answer its document is looked for, instead of the system's own time.
    pub look_up_after: Option<Interval>,
}

/// A company of QuickBooks Online.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuickBooksSystem {
    /// Where the API is; Intuit's own address unless set.
    pub url: Option<HttpUrl>,
    /// The company's realm id.
    #[schemars(length(min = 1))]
    pub company: String,
    /// The app's way in.
    pub oauth: OAuth,
    /// The item for invoice lines on an account: account id to item id.
    #[serde(default)]
    #[schemars(extend("propertyNames" = account_shape()))]
    pub items: BTreeMap<AccountName, Name>,
    /// How long one request may take.
    #[serde(default = "a_minute")]
    pub timeout: Interval,
    /// How long after a lost answer its document is looked for, instead of the system's own time.
    pub look_up_after: Option<Interval>,
}

/// A subsidiary of NetSuite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetSuiteSystem {
    /// The account's address for SuiteTalk.
    pub url: HttpUrl,
    /// The subsidiary's internal id, in accounts that have several.
    #[schemars(length(min = 1))]
    pub subsidiary: Option<String>,
    /// The app's way in.
    pub oauth: OAuth,
    /// The item for invoice lines on an account: internal id to internal id.
    #[serde(default)]
    #[schemars(extend("propertyNames" = account_shape()))]
    pub items: BTreeMap<AccountName, Name>,
    /// How long one request may take.
    #[serde(default = "a_minute")]
    pub timeout: Interval,
    /// How long after a lost answer its document is looked for, instead of the system's own time.
    pub look_up_after: Option<Interval>,
}

/// A ledger of Oracle Fusion.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleSystem {
    /// The pod's address.
    pub url: HttpUrl,
    /// A user with the duty to import journals.
    #[schemars(length(min = 1))]
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The ledger's id.
    #[schemars(range(min = 1, max = 999_999_999_999_999_999u64))]
    pub ledger_id: u64,
    /// The id of the data access set.
    #[schemars(range(min = 1, max = 999_999_999_999_999_999u64))]
    pub data_access_set_id: u64,
    /// The journal source, as Oracle shows it.
    #[schemars(length(min = 1))]
    pub source: String,
    /// The journal category, as Oracle shows it.
    #[schemars(length(min = 1))]
    pub category: String,
    /// Where the numbers of running jobs are kept. Instances that share the work must share it.
    #[serde(default = "oracle_jobs")]
    #[schemars(length(min = 1))]
    pub jobs_dir: PathBuf,
    /// How often a running job is asked about.
    #[serde(default = "ten_seconds")]
    pub poll_every: Interval,
    /// How long a running job is asked about before its document counts as uncertain.
    #[serde(default = "a_minute")]
    pub poll_for: Interval,
    /// How long one request may take.
    #[serde(default = "a_minute")]
    pub timeout: Interval,
    /// How long after a lost answer its document is looked for, instead of an hour.
    pub look_up_after: Option<Interval>,
}

/// A company of Odoo.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OdooSystem {
    /// The server's address.
    pub url: HttpUrl,
    /// The database, where one address serves several.
    #[schemars(length(min = 1))]
    pub database: Option<String>,
    /// An API key of a user who may post.
    pub api_key: Secret,
    /// The company's id, where the user has several.
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub company: Option<u32>,
    /// Code of the journal for entries.
    #[serde(default = "misc")]
    #[schemars(length(min = 1))]
    pub journal: String,
    /// Code of the journal for invoices and credit notes.
    #[serde(default = "inv")]
    #[schemars(length(min = 1))]
    pub invoice_journal: String,
    /// How long one request may take.
    #[serde(default = "a_minute")]
    pub timeout: Interval,
    /// How long after a lost answer its document is looked for, instead of the system's own time.
    pub look_up_after: Option<Interval>,
}

/// A company of Tryton.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrytonSystem {
    /// The server's address.
    pub url: HttpUrl,
    /// The database.
    #[schemars(length(min = 1))]
    pub database: String,
    /// A user who may post, in English: refusals are told apart by Tryton's words.
    #[schemars(length(min = 1))]
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The company's name, where the user has several.
    #[schemars(length(min = 1))]
    pub company: Option<String>,
    /// Code of the journal for moves.
    #[serde(default = "misc")]
    #[schemars(length(min = 1))]
    pub journal: String,
    /// Code of the journal for invoices and credit notes.
    #[serde(default = "rev")]
    #[schemars(length(min = 1))]
    pub invoice_journal: String,
    /// How long one request may take.
    #[serde(default = "a_minute")]
    pub timeout: Interval,
    /// How long after a lost answer its document is looked for, instead of the system's own time.
    pub look_up_after: Option<Interval>,
}

fn account_shape() -> schemars::Schema {
    AccountName::json_schema(&mut SchemaSettings::draft07().into_generator())
}

fn thirty() -> u16 {
    30
}

fn a_minute() -> Interval {
    Interval::seconds(60)
}

fn ten_seconds() -> Interval {
    Interval::seconds(10)
}

fn oracle_jobs() -> PathBuf {
    "data/oracle-jobs".into()
}

fn misc() -> String {
    "MISC".to_owned()
}

fn inv() -> String {
    "INV".to_owned()
}

fn rev() -> String {
    "REV".to_owned()
}
