//! `[budgets.NAME]`: what is planned for each month, as files for planning systems.
//!
//! Owns what a feed says and where it goes. Invariant: a [`Budget`] has one tenant and one place, and everything that
//! place needs. Absent on purpose: schedules; a month is published when it changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{HttpUrl, Name, Secret};
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

pub(super) fn budgets(texts: BTreeMap<Name, BudgetText>, problems: &mut Problems<'_>) -> BTreeMap<Name, Budget> {
    let checked = texts.into_iter().filter_map(|(name, text)| {
        let table = KeyPath::of(["budgets", name.as_str()]);
        let place = place(&text, &table, problems)?;
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
    let of_sftp = [
        ("host", text.host.is_some()),
        ("port", text.port.is_some()),
        ("user", text.user.is_some()),
        ("identity_file", text.identity_file.is_some()),
        ("known_hosts", text.known_hosts.is_some()),
    ];
    let of_http = [("url", text.url.is_some()), ("token", text.token.is_some())];
    let of_folder = [("folder", text.folder.is_some())];
    let (needless, kind): (Vec<(&str, bool)>, &str) = match text.kind {
        BudgetKind::Folder => ([&of_sftp[..], &of_http[..]].concat(), "folder"),
        BudgetKind::Sftp => (of_http.to_vec(), "sftp"),
        BudgetKind::Http => ([&of_sftp[..], &of_folder[..]].concat(), "http"),
    };
    for (key, _) in needless.iter().filter(|(_, given)| *given) {
        problems.report(&table.key(key), format!("means nothing for kind = {kind:?}; remove it"));
    }
    let mut needed = |key: &str, value: &Option<String>, example: &str| match value {
        // These become words of a command line and of a batch of sftp(1).
        Some(text) if text.starts_with('-') || text.contains(char::is_control) => {
            problems.report(
                &table.key(key),
                "starts with a dash or holds a line feed; write a plain name",
            );
            None
        }
        Some(text) => Some(text.clone()),
        None => {
            problems.report(&table.key(key), format!("missing; write {key} = {example:?}"));
            None
        }
    };
    match text.kind {
        BudgetKind::Folder => {
            let folder = needed("folder", &text.folder, "/var/lib/accrue/budget")?;
            Some(BudgetPlace::Folder(folder.into()))
        }
        BudgetKind::Sftp => {
            let host = needed("host", &text.host, "sftp.example.com");
            let user = needed("user", &text.user, "accrue");
            let folder = needed("folder", &text.folder, "inbound/budget");
            Some(BudgetPlace::Sftp {
                host: host?,
                port: text.port.unwrap_or(22),
                user: user?,
                folder: folder?,
                identity_file: text.identity_file.clone(),
                known_hosts: text.known_hosts.clone(),
            })
        }
        BudgetKind::Http => match &text.url {
            Some(url) => Some(BudgetPlace::Http {
                url: url.clone(),
                token: text.token.clone(),
            }),
            None => {
                needed("url", &None, "https://planning.example.com/budget")?;
                None
            }
        },
    }
}
