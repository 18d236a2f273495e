//! `[budgets.NAME]`: what is planned for each month, as files for planning systems.
//!
//! Owns what a feed says and where it goes. Invariant: a [`Budget`] has one tenant and one place, and everything that
//! place needs. Absent on purpose: schedules; a month is published when it changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kinds::{self, Key};
use super::leaf::{HttpUrl, Name, Secret, plain};
use super::measure::Interval;
use super::problem::{KeyPath, Problems};
use super::tenants::TenantName;
use crate::revenue::ids::TenantId;

/// A budget feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub tenant: TenantId,
    pub basis: BudgetBasis,
    pub by: BudgetBy,
    /// What stands in the column `source`, before `:` and the deal.
    pub source: String,
    /// By line type; `billing` for a feed by billing.
    pub categories: BTreeMap<String, String>,
    pub place: BudgetPlace,
    pub interval: Interval,
}

/// When money counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetBasis {
    /// When it is earned.
    Recognition,
    /// When it is to be invoiced.
    Billing,
}

/// What a line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetBy {
    /// One deal and category.
    Deal,
    /// One category.
    Category,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetPlace {
    Folder(PathBuf),
    Sftp {
        host: String,
        port: u16,
        user: String,
        folder: String,
        identity_file: Option<PathBuf>,
        known_hosts: Option<PathBuf>,
    },
    Http {
        url: HttpUrl,
        token: Option<Secret>,
    },
}

impl BudgetPlace {
    /// Where it is, whoever writes there.
    fn describe(&self) -> String {
        match self {
            BudgetPlace::Folder(folder) => format!("folder {}", plain(folder).display()),
            BudgetPlace::Sftp {
                host,
                port,
                user,
                folder,
                ..
            } => {
                // A relative folder is the account's own.
                let user = if folder.starts_with('/') { "" } else { user };
                format!("sftp {user}@{host}:{port} {}", folder.trim_end_matches('/'))
            }
            BudgetPlace::Http { url, .. } => format!("http {}", url.as_str().trim_end_matches('/')),
        }
    }
}

/// Where a feed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum BudgetKind {
    /// A folder of this machine.
    Folder,
    /// A folder of a server, by OpenSSH's `sftp`, which must be installed.
    Sftp,
    /// A server that takes `PUT url/budget-2026-02.csv`.
    Http,
}

/// What is planned for each month, as CSV files and a manifest.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetText {
    /// `folder`, `sftp` or `http`.
    kind: BudgetKind,
    /// Whose deals.
    tenant: TenantName,
    /// `recognition` or `billing`; without it, `recognition`.
    basis: Option<BudgetBasis>,
    /// `deal` or `category`; without it, `deal`.
    by: Option<BudgetBy>,
    /// What stands in the column `source`, before `:` and the deal; without it, `crm`.
    #[schemars(length(min = 1))]
    source: Option<String>,
    /// The category of each line type. Without an entry, `subscription` is `Subscription Revenue`; a feed by billing has
    /// one category, `billing`, which is `Billings`.
    #[serde(default)]
    categories: BTreeMap<String, String>,
    /// Folder and SFTP: the folder. On a server it must exist.
    #[schemars(length(min = 1))]
    folder: Option<String>,
    /// SFTP: the server.
    #[schemars(length(min = 1))]
    host: Option<String>,
    /// SFTP: the server's port; without it, 22.
    #[schemars(range(min = 1, max = 65_535))]
    port: Option<u16>,
    /// SFTP: the account there.
    #[schemars(length(min = 1))]
    user: Option<String>,
    /// SFTP: the private key's file; without it, what the SSH configuration of this account says.
    identity_file: Option<PathBuf>,
    /// SFTP: the file that holds the server's public key; without it, those of this account.
    known_hosts: Option<PathBuf>,
    /// HTTP: the address below which the files are put.
    url: Option<HttpUrl>,
    /// HTTP: bearer token.
    token: Option<Secret>,
    /// How often to look for changes; without it, 60s.
    interval: Option<Interval>,
}

impl BudgetText {
    /// The key that names the place.
    fn place_key(&self) -> &'static str {
        match self.kind {
            BudgetKind::Folder | BudgetKind::Sftp => "folder",
            BudgetKind::Http => "url",
        }
    }
}

pub(super) fn budgets(texts: BTreeMap<Name, BudgetText>, problems: &mut Problems<'_>) -> BTreeMap<Name, Budget> {
    let mut taken: BTreeMap<String, Name> = BTreeMap::new();
    let checked = texts.into_iter().filter_map(|(name, text)| {
        let table = KeyPath::of(["budgets", name.as_str()]);
        // What an unknown kind needs is unknown too.
        if problems.is_refused(&table.key("kind")) {
            return None;
        }
        let place = place(&text, &table, problems)?;
        if let Some(other) = taken.insert(place.describe(), name.clone()) {
            let said = format!(
                "the place of [budgets.{other}] as well, and each would overwrite the other's months; give each its own"
            );
            problems.report(&table.key(text.place_key()), said);
        }
        Some((
            name,
            Budget {
                tenant: text.tenant.into(),
                basis: text.basis.unwrap_or(BudgetBasis::Recognition),
                by: text.by.unwrap_or(BudgetBy::Deal),
                source: text.source.unwrap_or_else(|| "crm".to_owned()),
                categories: text.categories,
                place,
                interval: text.interval.unwrap_or(Interval::seconds(60)),
            },
        ))
    });
    checked.collect()
}

fn place(text: &BudgetText, table: &KeyPath, problems: &mut Problems<'_>) -> Option<BudgetPlace> {
    let kind: (&str, &[&str], &[&str]) = match text.kind {
        BudgetKind::Folder => ("a feed to a folder", &["folder"], &[]),
        BudgetKind::Sftp => (
            "a feed over SFTP",
            &["host", "user", "folder"],
            &["port", "identity_file", "known_hosts"],
        ),
        BudgetKind::Http => ("a feed over HTTP", &["url"], &["token"]),
    };
    if !kinds::fit(&keys(text), table, kind, problems) {
        return None;
    }
    // These become words of a command line and of a batch of sftp(1).
    let mut plain = |key: &str, value: &Option<String>| {
        let value = value.clone()?;
        if value.starts_with('-') || value.contains(char::is_control) {
            let said = "starts with a dash or holds a line feed; write a plain name";
            problems.report(&table.key(key), said);
            return None;
        }
        Some(value)
    };
    match text.kind {
        BudgetKind::Folder => Some(BudgetPlace::Folder(plain("folder", &text.folder)?.into())),
        BudgetKind::Sftp => {
            let host = plain("host", &text.host);
            let user = plain("user", &text.user);
            let folder = plain("folder", &text.folder);
            Some(BudgetPlace::Sftp {
                host: host?,
                port: text.port.unwrap_or(22),
                user: user?,
                folder: folder?,
                identity_file: text.identity_file.clone(),
                known_hosts: text.known_hosts.clone(),
            })
        }
        BudgetKind::Http => Some(BudgetPlace::Http {
            url: text.url.clone()?,
            token: text.token.clone(),
        }),
    }
}

fn keys(text: &BudgetText) -> [Key; 8] {
    let key = |name, given, example| Key { name, given, example };
    [
        key("folder", text.folder.is_some(), "inbound/budget"),
        key("host", text.host.is_some(), "sftp.example.com"),
        key("port", text.port.is_some(), "22"),
        key("user", text.user.is_some(), "accrue"),
        key("identity_file", text.identity_file.is_some(), "/etc/accrue/ssh/id"),
        key("known_hosts", text.known_hosts.is_some(), "/etc/accrue/ssh/known_hosts"),
        key("url", text.url.is_some(), "https://planning.example.com/budget"),
        key("token", text.token.is_some(), "${PLANNING_TOKEN}"),
    ]
}
