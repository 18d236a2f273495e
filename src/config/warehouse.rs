//! `[warehouses.NAME]`: where the books are kept as tables.
//!
//! Owns the choice of the kind and what each kind needs. Invariant: a [`Warehouse`] has everything its kind needs and
//! nothing of another. Absent on purpose: which tables there are; all of them, always.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{HttpUrl, Name, Secret};
use super::measure::Interval;
use super::problem::{KeyPath, Problems};

/// A warehouse, and how often it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warehouse {
    pub place: WarehousePlace,
    pub interval: Interval,
    pub max_rows: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarehousePlace {
    Postgres {
        url: Secret,
        schema: Name,
    },
    /// Delta tables in a folder.
    Folder(PathBuf),
    /// Delta tables on S3 or a server that speaks its protocol.
    S3 {
        endpoint: HttpUrl,
        region: String,
        bucket: String,
        prefix: String,
        access_key: Secret,
        secret_key: Secret,
    },
}

/// What kind of warehouse it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum WarehouseKind {
    /// PostgreSQL 15 or newer, at `url`.
    Postgres,
    /// Delta Lake tables at `location`.
    Lakehouse,
}

/// The books as tables.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WarehouseText {
    /// `postgres` or `lakehouse`.
    kind: WarehouseKind,
    /// PostgreSQL: a connection string such as `postgresql://user:password@host:5432/database`. TLS is used where the
    /// server offers it, and its certificate checked; `?sslmode=require` insists, `?sslmode=disable` does without.
    url: Option<Secret>,
    /// PostgreSQL: the schema of the tables; it is made when it is missing.
    schema: Option<Name>,
    /// Lakehouse: a folder, or `s3://bucket/prefix`.
    #[schemars(length(min = 1))]
    location: Option<String>,
    /// Lakehouse on S3: the server's address.
    endpoint: Option<HttpUrl>,
    /// Lakehouse on S3: the region.
    #[schemars(length(min = 1))]
    region: Option<String>,
    /// Lakehouse on S3: the access key's id.
    access_key: Option<Secret>,
    /// Lakehouse on S3: the access key's secret.
    secret_key: Option<Secret>,
    /// A commit comes after this time. Without it, 5s for PostgreSQL and 60s for a lakehouse, whose every commit makes
    /// files.
    interval: Option<Interval>,
    /// A commit comes after this many rows, if the time is not over before.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_rows: Option<u32>,
}

pub(super) fn warehouses(
    texts: BTreeMap<Name, WarehouseText>,
    problems: &mut Problems<'_>,
) -> BTreeMap<Name, Warehouse> {
    let checked = texts.into_iter().filter_map(|(name, text)| {
        let table = KeyPath::of(["warehouses", name.as_str()]);
        let interval = text.interval.unwrap_or(match text.kind {
            WarehouseKind::Postgres => Interval::seconds(5),
            WarehouseKind::Lakehouse => Interval::seconds(60),
        });
        let max_rows = text.max_rows.unwrap_or(50_000);
        let place = place(text, &table, problems)?;
        Some((
            name,
            Warehouse {
                place,
                interval,
                max_rows,
            },
        ))
    });
    checked.collect()
}

fn place(text: WarehouseText, table: &KeyPath, problems: &mut Problems<'_>) -> Option<WarehousePlace> {
    let of_postgres = [("url", text.url.is_some()), ("schema", text.schema.is_some())];
    let of_s3 = [
        ("endpoint", text.endpoint.is_some()),
        ("region", text.region.is_some()),
        ("access_key", text.access_key.is_some()),
        ("secret_key", text.secret_key.is_some()),
    ];
    let mut needless = |keys: &[(&str, bool)], of: &str| {
        for (key, _) in keys.iter().filter(|(_, given)| *given) {
            problems.report(&table.key(key), format!("means nothing for {of}; remove it"));
        }
    };
    let s3 = text
        .location
        .as_deref()
        .and_then(|location| location.strip_prefix("s3://"));
    match text.kind {
        WarehouseKind::Postgres => {
            needless(&of_s3, "a PostgreSQL warehouse");
            needless(&[("location", text.location.is_some())], "a PostgreSQL warehouse");
        }
        WarehouseKind::Lakehouse => {
            needless(&of_postgres, "a lakehouse");
            if s3.is_none() && text.location.is_some() {
                needless(&of_s3, "a lakehouse in a folder");
            }
        }
    }
    let mut missing = |key: &str, example: &str| {
        problems.report(&table.key(key), format!("missing; write {key} = {example:?}"));
    };
    match (text.kind, s3) {
        (WarehouseKind::Postgres, _) => {
            let schema = text.schema.unwrap_or_else(|| Name::literal("accrue"));
            match text.url {
                Some(url) => Some(WarehousePlace::Postgres { url, schema }),
                None => {
                    missing("url", "${WAREHOUSE_URL}");
                    None
                }
            }
        }
        (WarehouseKind::Lakehouse, None) => match text.location {
            Some(location) => Some(WarehousePlace::Folder(location.into())),
            None => {
                missing("location", "s3://bucket/prefix");
                None
            }
        },
        (WarehouseKind::Lakehouse, Some(place)) => {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            for (key, example) in [
                ("endpoint", "https://s3.eu-central-1.amazonaws.com"),
                ("region", "eu-central-1"),
                ("access_key", "${AWS_ACCESS_KEY_ID}"),
                ("secret_key", "${AWS_SECRET_ACCESS_KEY}"),
            ] {
                if of_s3.contains(&(key, false)) {
                    missing(key, example);
                }
            }
            Some(WarehousePlace::S3 {
                endpoint: text.endpoint?,
                region: text.region?,
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
                access_key: text.access_key?,
                secret_key: text.secret_key?,
            })
        }
    }
}
