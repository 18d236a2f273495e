//! `[registry]`: where Avro schemas are kept.
//!
//! Owns the choice of a Confluent-compatible registry or the embedded one, and its credentials. Invariant: a
//! [`Registry`] that is remote has an address, and one kind of credentials at most. Absent on purpose: HTTP.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{HttpUrl, Secret};
use super::problem::{KeyPath, Problems};

/// The schema registry, and what it demands of a new schema version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    pub place: RegistryPlace,
    pub compatibility: Compatibility,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryPlace {
    /// A server that speaks the Confluent Schema Registry API.
    Confluent { url: HttpUrl, auth: RegistryAuth },
    /// A folder of this process.
    Embedded { dir: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    None,
    Basic { username: String, password: Secret },
    Token(Secret),
}

/// What the registry demands of a new version of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compatibility {
    /// A reader of the new version reads data of the last one.
    Backward,
    /// A reader of the new version reads data of every earlier one.
    BackwardTransitive,
    /// Readers of the last version and of the new one read each other's data.
    Full,
    /// Readers of every version read every other's data.
    FullTransitive,
}

/// Which registry keeps the schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RegistryKind {
    /// A server with the Confluent Schema Registry API, at `url`.
    Confluent,
    /// A folder of this process, served over `[http]`: read-only, but to those who show `http.token`.
    Embedded,
}

/// Where Avro schemas are kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RegistryText {
    /// `confluent` or `embedded`.
    kind: RegistryKind,
    /// Address of the server. Required when `kind` is `confluent`.
    url: Option<HttpUrl>,
    /// User for HTTP basic authentication; goes with `password`.
    #[schemars(length(min = 1))]
    username: Option<String>,
    /// Password for HTTP basic authentication; goes with `username`.
    password: Option<Secret>,
    /// Bearer token, instead of `username` and `password`.
    token: Option<Secret>,
    /// Folder of the embedded registry.
    #[schemars(length(min = 1))]
    dir: PathBuf,
    /// What a new version of a schema must satisfy. The public topic `deal.canonical` is always `full_transitive`.
    compatibility: Compatibility,
}

impl Default for RegistryText {
    fn default() -> Self {
        Self {
            kind: RegistryKind::Embedded,
            url: None,
            username: None,
            password: None,
            token: None,
            dir: "data/registry".into(),
            compatibility: Compatibility::Backward,
        }
    }
}

pub(super) fn registry(text: RegistryText, problems: &mut Problems<'_>) -> Option<Registry> {
    let table = KeyPath::of(["registry"]);
    let auth = auth(text.username, text.password, text.token, &table, problems);
    let place = match (text.kind, text.url) {
        (RegistryKind::Embedded, _) => RegistryPlace::Embedded { dir: text.dir },
        (RegistryKind::Confluent, Some(url)) => RegistryPlace::Confluent { url, auth: auth? },
        (RegistryKind::Confluent, None) => {
            let message = "missing, and registry.kind is \"confluent\"; write url = \"https://host:8081\"";
            problems.report(&table.key("url"), message);
            return None;
        }
    };
    Some(Registry {
        place,
        compatibility: text.compatibility,
    })
}

fn auth(
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    table: &KeyPath,
    problems: &mut Problems<'_>,
) -> Option<RegistryAuth> {
    let (key, message) = match (username, password, token) {
        (None, None, None) => return Some(RegistryAuth::None),
        (Some(username), Some(password), None) => {
            return Some(RegistryAuth::Basic { username, password });
        }
        (None, None, Some(token)) => return Some(RegistryAuth::Token(token)),
        (_, _, Some(_)) => ("token", "given beside username or password; keep one of the two"),
        (Some(_), None, None) => ("username", "given without password; write both or neither"),
        (None, Some(_), None) => ("password", "given without username; write both or neither"),
    };
    problems.report(&table.key(key), message);
    None
}
