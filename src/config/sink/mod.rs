//! `[sinks.NAME]`: where documents of the books are delivered, and how.
//!
//! Owns what every destination shares: accounts, granularity, limits, breaker, promised time. What one kind of system
//! needs is a file of its own and a table of the kind's name (`[sinks.NAME.file]`). Invariant: a [`Sink`] has the table
//! of its kind; a table of another kind is refused.
//! Absent on purpose: delivery itself.

mod accounts;
mod file;
mod systems;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use accounts::Accounts;
pub use file::{FileFormat, FileSystem};
pub use systems::{NetSuiteSystem, OAuth, OdooSystem, OracleSystem, QuickBooksSystem, TrytonSystem, XeroSystem};

use super::kinds::{self, Key};
use super::leaf::{HttpUrl, Name, plain};
use super::measure::Interval;
use super::problem::{KeyPath, Problems};
use super::shape::quoted;
use super::tenants::TenantName;
use crate::revenue::ids::TenantId;
use crate::revenue::money::Currency;
use crate::revenue::reference::Settings;
use accounts::{AccountsText, TenantAccountsText};
use file::FileText;

/// A destination of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    pub name: Name,
    pub system: System,
    /// Whose entries are delivered; `None`: everybody's.
    pub tenants: Option<BTreeSet<TenantId>>,
    /// The identity that these books had before they moved: see [`System::identity`].
    pub moved_from: Option<String>,
    pub documents: Documents,
    pub granularity: Granularity,
    pub accounts: Accounts,
    /// Promised time from the source event to the receipt.
    pub sla: Interval,
    pub limits: SinkLimits,
    pub breaker: Breaker,
}

impl Sink {
    /// Whether entries of the tenant are delivered here.
    pub fn takes(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }

    fn shares_tenants_with(&self, other: &Sink) -> bool {
        match (&self.tenants, &other.tenants) {
            (Some(ours), Some(theirs)) => !ours.is_disjoint(theirs),
            (Some(_) | None, _) => true,
        }
    }
}

/// The system behind a sink, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    File(FileSystem),
    Tryton(TrytonSystem),
    Xero(XeroSystem),
    QuickBooks(QuickBooksSystem),
    NetSuite(NetSuiteSystem),
    Oracle(OracleSystem),
    Odoo(OdooSystem),
}

impl System {
    /// The word of the file.
    pub fn kind(&self) -> &'static str {
        match self {
            System::File(_) => "file",
            System::Tryton(_) => "tryton",
            System::Xero(_) => "xero",
            System::QuickBooks(_) => "quickbooks",
            System::NetSuite(_) => "netsuite",
            System::Oracle(_) => "oracle",
            System::Odoo(_) => "odoo",
        }
    }

    /// Which books these are: the kind, the address, and the company there. What was delivered counts for these alone, and
    /// is kept with this text, so it must stay as it is.
    pub fn identity(&self) -> String {
        let some = |text: &Option<String>| text.clone().unwrap_or_default();
        let address = |url: &Option<HttpUrl>| url.as_ref().map_or("", HttpUrl::as_str).to_owned();
        let (url, company) = match self {
            System::File(it) => (String::new(), plain(&it.dir).display().to_string()),
            System::Tryton(it) => (
                it.url.as_str().to_owned(),
                format!("{} {}", it.database, some(&it.company)),
            ),
            System::Xero(it) => (address(&it.url), it.organisation.clone()),
            System::QuickBooks(it) => (address(&it.url), it.company.clone()),
            System::NetSuite(it) => (it.url.as_str().to_owned(), some(&it.subsidiary)),
            System::Oracle(it) => (it.url.as_str().to_owned(), it.ledger_id.to_string()),
            System::Odoo(it) => {
                let company = it.company.map(|id| id.to_string());
                (
                    it.url.as_str().to_owned(),
                    format!("{} {}", some(&it.database), some(&company)),
                )
            }
        };
        let parts = [self.kind(), url.trim_end_matches('/'), company.trim()];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(" ")
    }

    /// Whether it posts in the one currency of a company, so that entries of tenants with several would be posted wrong.
    fn has_one_currency(&self) -> bool {
        match self {
            System::File(_) => false,
            System::Tryton(_)
            | System::Xero(_)
            | System::QuickBooks(_)
            | System::NetSuite(_)
            | System::Oracle(_)
            | System::Odoo(_) => true,
        }
    }
}

/// Which kind of system a sink writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum SystemKind {
    /// A folder of files with a manifest: hledger or Beancount journals, or CSV for an import.
    File,
    /// A company of Tryton.
    Tryton,
    /// An organisation of Xero.
    Xero,
    /// A company of QuickBooks Online.
    #[serde(rename = "quickbooks")]
    QuickBooks,
    /// A subsidiary of NetSuite.
    #[serde(rename = "netsuite")]
    NetSuite,
    /// A ledger of Oracle Fusion.
    Oracle,
    /// A company of Odoo.
    Odoo,
}

/// What entries become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Documents {
    /// Every entry is a manual journal.
    Journals,
    /// Entries of kind `invoice` and `credit_memo` are invoices and credit notes of the customer; all others journals.
    Invoices,
}

/// How many entries one document carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// One.
    Entry,
    /// All of a tenant, posting day and pair of currencies that arrive within this time on one partition of the
    /// intake, summed per account. Invoices and credit notes are never summed.
    Summary { every: Interval },
}

/// How many entries one document carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum GranularityText {
    /// One document for each entry.
    Entry,
    /// One document for each tenant, posting day and currency, with a line for each account: see `summary_interval`.
    Summary,
}

/// Bounds below the system's own, for accounts that share its quota with others. Processes share them as they share
/// the partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SinkLimits {
    /// Writes at the same time.
    #[schemars(range(min = 1, max = 1000))]
    pub in_flight: Option<u32>,
    /// Requests a minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_minute: Option<u32>,
    /// Requests a day.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_day: Option<u32>,
}

/// When a sink stops asking a system that does not serve, and when it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row, of any documents, after which nothing more is sent.
    #[schemars(range(min = 1, max = 1000))]
    pub after: u32,
    /// Time until the first probe; each failed probe doubles it.
    pub probe_after: Interval,
    /// The longest time between two probes.
    pub probe_at_most: Interval,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            after: 5,
            probe_after: Interval::seconds(10),
            probe_at_most: Interval::seconds(300),
        }
    }
}

/// A destination of documents: an accounting system, or files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SinkText {
    /// The kind of system; its own settings are in the table of that name.
    kind: SystemKind,
    /// Whose entries are delivered; without it, those of every tenant. One company keeps its books in one currency.
    tenants: Option<Vec<TenantName>>,
    /// Only after the same books got another address: what the sink wrote to before, as the refusal of a start says it.
    #[schemars(length(min = 1))]
    moved_from: Option<String>,
    /// What entries become.
    #[serde(default = "journals")]
    documents: Documents,
    /// How many entries one document carries.
    #[serde(default = "entry")]
    granularity: GranularityText,
    /// With `granularity = "summary"`: how long entries are gathered before their document is written.
    #[serde(default = "one_day")]
    summary_interval: Interval,
    /// Promised time from the source event to the receipt; what takes longer is listed as a breach.
    #[serde(default = "half_an_hour")]
    sla: Interval,
    #[serde(default)]
    limits: SinkLimits,
    #[serde(default)]
    breaker: Breaker,
    /// The ledger's account for each role. A document with a role that is not mapped waits, visibly, until it is.
    #[serde(default)]
    accounts: AccountsText,
    /// Accounts of single tenants, by tenant id; what is left out is as in `accounts`.
    #[serde(default)]
    tenant_accounts: TenantAccountsText,
    /// Settings of `kind = "file"`.
    file: Option<FileText>,
    /// Settings of `kind = "tryton"`.
    tryton: Option<TrytonSystem>,
    /// Settings of `kind = "xero"`.
    xero: Option<XeroSystem>,
    /// Settings of `kind = "quickbooks"`.
    quickbooks: Option<QuickBooksSystem>,
    /// Settings of `kind = "netsuite"`.
    netsuite: Option<NetSuiteSystem>,
    /// Settings of `kind = "oracle"`.
    oracle: Option<OracleSystem>,
    /// Settings of `kind = "odoo"`.
    odoo: Option<OdooSystem>,
}

fn journals() -> Documents {
    Documents::Journals
}

fn entry() -> GranularityText {
    GranularityText::Entry
}

fn one_day() -> Interval {
    Interval::days(1)
}

fn half_an_hour() -> Interval {
    Interval::seconds(1800)
}

/// The sink of a name; `None` when its kind's table is missing or wrong.
pub(super) fn sink(name: &Name, text: SinkText, problems: &mut Problems<'_>) -> Option<Sink> {
    let at = KeyPath::of(["sinks", name.as_str()]);
    if text.breaker.probe_at_most < text.breaker.probe_after {
        let message = format!(
            "must not be shorter than probe_after; write \"{}\" or more",
            text.breaker.probe_after
        );
        problems.report(&at.key("breaker").key("probe_at_most"), message);
    }
    if problems.is_refused(&at.key("kind")) {
        return None;
    }
    let written = [
        ("file", text.file.is_some()),
        ("tryton", text.tryton.is_some()),
        ("xero", text.xero.is_some()),
        ("quickbooks", text.quickbooks.is_some()),
        ("netsuite", text.netsuite.is_some()),
        ("oracle", text.oracle.is_some()),
        ("odoo", text.odoo.is_some()),
    ];
    let keys = written.map(|(name, given)| Key {
        name,
        given,
        example: "",
    });
    let (table, system) = match text.kind {
        SystemKind::File => ("file", text.file.map(|file| System::File(file.into()))),
        SystemKind::Tryton => ("tryton", text.tryton.map(System::Tryton)),
        SystemKind::Xero => ("xero", text.xero.map(System::Xero)),
        SystemKind::QuickBooks => ("quickbooks", text.quickbooks.map(System::QuickBooks)),
        SystemKind::NetSuite => ("netsuite", text.netsuite.map(System::NetSuite)),
        SystemKind::Oracle => ("oracle", text.oracle.map(System::Oracle)),
        SystemKind::Odoo => ("odoo", text.odoo.map(System::Odoo)),
    };
    kinds::fit(&keys, &at, (&format!("kind = {table:?}"), &[], &[table]), problems);
    if system.is_none() {
        let what = match text.kind {
            SystemKind::File => "write file = { format = \"hledger\", dir = \"ledger\" }".to_owned(),
            SystemKind::Tryton
            | SystemKind::Xero
            | SystemKind::QuickBooks
            | SystemKind::NetSuite
            | SystemKind::Oracle
            | SystemKind::Odoo => format!("write the table [sinks.{name}.{table}], as in docs/destinations.md"),
        };
        problems.report(&at.key(table), format!("missing, and the kind is \"{table}\"; {what}"));
    }
    Some(Sink {
        name: name.clone(),
        system: system?,
        tenants: text
            .tenants
            .map(|tenants| tenants.into_iter().map(TenantId::from).collect()),
        moved_from: text.moved_from,
        documents: text.documents,
        granularity: match text.granularity {
            GranularityText::Entry => Granularity::Entry,
            GranularityText::Summary => Granularity::Summary {
                every: text.summary_interval,
            },
        },
        accounts: Accounts::new(text.accounts, text.tenant_accounts),
        sla: text.sla,
        limits: text.limits,
        breaker: text.breaker,
    })
}

/// What no sink can see alone: which tenants have which currency, and which sinks write to the same books.
pub(super) fn check(sinks: &BTreeMap<Name, Sink>, settings: &Settings, problems: &mut Problems<'_>) {
    for (position, (name, sink)) in sinks.iter().enumerate() {
        let at = KeyPath::of(["sinks", name.as_str()]);
        if sink.tenants.as_ref().is_some_and(BTreeSet::is_empty) {
            let message = "names nobody, so nothing would be delivered; name tenants, or leave it out for all";
            problems.report(&at.key("tenants"), message);
        }
        one_currency(sink, settings, &at, problems);
        let same = |other: &&Sink| other.system.identity() == sink.system.identity() && other.shares_tenants_with(sink);
        if let Some(other) = sinks.values().take(position).find(same) {
            // Without the address, which may have come from the environment.
            let message = format!(
                "writes to the same books as [sinks.{}], so every entry would be there twice; remove one of them, or give each tenants of its own",
                other.name
            );
            problems.report(&at.key("kind"), message);
        }
    }
}

/// A company has one currency, and a sink that posts to it tenants of that currency.
fn one_currency(sink: &Sink, settings: &Settings, at: &KeyPath, problems: &mut Problems<'_>) {
    if !sink.system.has_one_currency() {
        return;
    }
    let mut by_currency: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tenant, books) in &settings.tenants {
        if let (true, Some(currency)) = (sink.takes(tenant), &books.functional_currency) {
            by_currency
                .entry(Currency::code(currency))
                .or_default()
                .push(tenant.as_str());
        }
    }
    let Some(first) = by_currency.values().next().filter(|_| by_currency.len() > 1) else {
        return;
    };
    let listed = by_currency
        .iter()
        .map(|(currency, tenants)| format!("{} in {currency}", tenants.join(", ")));
    let message = format!(
        "a company has one currency, and the tenants keep their books {}; write tenants = [{}] here, and a sink of its own for each other currency",
        listed.collect::<Vec<_>>().join("; "),
        quoted(first.iter().copied())
    );
    problems.report(&at.key("tenants"), message);
}
