//! `[warehouses.NAME]`: where the books are kept as tables.
//!
//! Owns the choice of the kind and what each kind needs. Invariant: a [`Warehouse`] has everything its kind needs and
//! nothing of another. Absent on purpose: which tables there are; all of them, always.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kinds::{self, Key};
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
    Snowflake {
        /// Such as `https://ORG-ACCOUNT.snowflakecomputing.com`.
        endpoint: String,
        account: Name,
        user: String,
        private_key: Secret,
        database: Name,
        schema: Name,
        warehouse: Name,
        role: Option<Name>,
    },
    BigQuery {
        /// Such as `https://bigquery.googleapis.com`.
        endpoint: String,
        project: Name,
        dataset: Name,
        location: Option<String>,
        credentials: Secret,
    },
}

/// What kind of warehouse it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WarehouseKind {
    /// PostgreSQL 15 or newer, at `url`.
    Postgres,
    /// Delta Lake tables at `location`.
    Lakehouse,
    /// Snowflake, over its SQL API.
    Snowflake,
    /// Google BigQuery, over its REST API.
    BigQuery,
}

/// The books as tables.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WarehouseText {
    /// `postgres`, `lakehouse`, `snowflake` or `bigquery`.
    kind: WarehouseKind,
    /// PostgreSQL: a connection string such as `postgresql://user:password@host:5432/database`. TLS is used where the
    /// server offers it, and its certificate checked; `?sslmode=require` insists, `?sslmode=disable` does without.
    url: Option<Secret>,
    /// PostgreSQL: the schema of the tables; it is made when it is missing. Snowflake: the schema, which must be there,
    /// as Snowflake shows it: in capitals unless it was made in quotes.
    schema: Option<Name>,
    /// Lakehouse: a folder, or `s3://bucket/prefix`.
    #[schemars(length(min = 1))]
    location: Option<String>,
    /// Lakehouse on S3: the server's address. Snowflake and BigQuery: another address than the vendor's usual one.
    endpoint: Option<HttpUrl>,
    /// Lakehouse on S3: the region. BigQuery: the dataset's location, such as `EU`.
    #[schemars(length(min = 1))]
    region: Option<String>,
    /// Lakehouse on S3: the access key's id.
    access_key: Option<Secret>,
    /// Lakehouse on S3: the access key's secret.
    secret_key: Option<Secret>,
    /// Snowflake: the account, such as `ORG-ACCOUNT`.
    account: Option<Name>,
    /// Snowflake: the user who has the public key.
    #[schemars(length(min = 1))]
    user: Option<String>,
    /// Snowflake: the user's private RSA key in PEM, without a passphrase, such as `${file:/secrets/snowflake.p8}`.
    private_key: Option<Secret>,
    /// Snowflake: the database, as Snowflake shows it.
    database: Option<Name>,
    /// Snowflake: the warehouse that computes.
    warehouse: Option<Name>,
    /// Snowflake: the role, if it is not the user's default one.
    role: Option<Name>,
    /// BigQuery: the project that holds the dataset and pays for queries.
    project: Option<Name>,
    /// BigQuery: the dataset, which must be there.
    dataset: Option<Name>,
    /// BigQuery: the service account's key file as JSON, such as `${file:/secrets/bigquery.json}`.
    credentials: Option<Secret>,
    /// A commit comes after this time. Without it, 5s for PostgreSQL and 60s for the others, whose every commit makes
    /// files or costs money.
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
        // What an unknown kind needs is unknown too.
        if problems.is_refused(&table.key("kind")) {
            return None;
        }
        let interval = text.interval.unwrap_or(match text.kind {
            WarehouseKind::Postgres => Interval::seconds(5),
            WarehouseKind::Lakehouse | WarehouseKind::Snowflake | WarehouseKind::BigQuery => Interval::seconds(60),
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
    let s3 = text
        .location
        .as_deref()
        .and_then(|location| location.strip_prefix("s3://"));
    let s3 = s3.map(str::to_owned);
    let kind: (&str, &[&str], &[&str]) = match (text.kind, &s3) {
        (WarehouseKind::Postgres, _) => ("a PostgreSQL warehouse", &["url"], &["schema"]),
        (WarehouseKind::Lakehouse, Some(_)) => (
            "a lakehouse on S3",
            &["location", "endpoint", "region", "access_key", "secret_key"],
            &[],
        ),
        (WarehouseKind::Lakehouse, None) => ("a lakehouse in a folder", &["location"], &[]),
        (WarehouseKind::Snowflake, _) => (
            "Snowflake",
            &["account", "user", "private_key", "database", "schema", "warehouse"],
            &["endpoint", "role"],
        ),
        (WarehouseKind::BigQuery, _) => (
            "BigQuery",
            &["project", "dataset", "credentials"],
            &["endpoint", "region"],
        ),
    };
    if !kinds::fit(&keys(&text), table, kind, problems) {
        return None;
    }
    match text.kind {
        WarehouseKind::Postgres => Some(WarehousePlace::Postgres {
            url: text.url?,
            schema: text.schema.unwrap_or_else(|| Name::literal("accrue")),
        }),
        WarehouseKind::Lakehouse => match s3 {
            None => Some(WarehousePlace::Folder(text.location?.into())),
            Some(place) => {
                let (bucket, prefix) = place.split_once('/').unwrap_or((&place, ""));
                Some(WarehousePlace::S3 {
                    endpoint: text.endpoint?,
                    region: text.region?,
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_owned(),
                    access_key: text.access_key?,
                    secret_key: text.secret_key?,
                })
            }
        },
        WarehouseKind::Snowflake => {
            let account = text.account?;
            Some(WarehousePlace::Snowflake {
                endpoint: match text.endpoint {
                    Some(endpoint) => endpoint.as_str().to_owned(),
                    None => format!("https://{account}.snowflakecomputing.com"),
                },
                account,
                user: text.user?,
                private_key: text.private_key?,
                database: text.database?,
                schema: text.schema?,
                warehouse: text.warehouse?,
                role: text.role,
            })
        }
        WarehouseKind::BigQuery => Some(WarehousePlace::BigQuery {
            endpoint: match text.endpoint {
                Some(endpoint) => endpoint.as_str().to_owned(),
                None => "https://bigquery.googleapis.com".to_owned(),
            },
            project: text.project?,
            dataset: text.dataset?,
            location: text.region,
            credentials: text.credentials?,
        }),
    }
}

fn keys(text: &WarehouseText) -> [Key; 16] {
    let key = |name, given, example| Key { name, given, example };
    [
        key("url", text.url.is_some(), "${WAREHOUSE_URL}"),
        key("schema", text.schema.is_some(), "ACCRUE"),
        key("location", text.location.is_some(), "s3://bucket/prefix"),
        key(
            "endpoint",
            text.endpoint.is_some(),
            "https://s3.eu-central-1.amazonaws.com",
        ),
        key("region", text.region.is_some(), "eu-central-1"),
        key("access_key", text.access_key.is_some(), "${AWS_ACCESS_KEY_ID}"),
        key("secret_key", text.secret_key.is_some(), "${AWS_SECRET_ACCESS_KEY}"),
        key("account", text.account.is_some(), "ORG-ACCOUNT"),
        key("user", text.user.is_some(), "ACCRUE"),
        key(
            "private_key",
            text.private_key.is_some(),
            "${file:/secrets/snowflake.p8}",
        ),
        key("database", text.database.is_some(), "FINANCE"),
        key("warehouse", text.warehouse.is_some(), "LOADING"),
        key("role", text.role.is_some(), "ACCRUE"),
        key("project", text.project.is_some(), "company-finance"),
        key("dataset", text.dataset.is_some(), "accrue"),
        key(
            "credentials",
            text.credentials.is_some(),
            "${file:/secrets/bigquery.json}",
        ),
    ]
}
