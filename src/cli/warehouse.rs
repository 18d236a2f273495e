//! `accrue warehouse NAME`: carries the books into a warehouse's tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, TopologyFile, connect, named, run};
use crate::codec::registry::Registry;
use crate::codec::schemas::{AnyReader, Product};
use crate::config::{self, Topology, WarehousePlace};
use crate::observe::{logs, server};
use crate::pipeline::product_topic;
use crate::sink::warehouse::cloud::Cloud;
use crate::sink::warehouse::cloud::bigquery::{self, BigQuery};
use crate::sink::warehouse::cloud::snowflake::{self, Snowflake};
use crate::sink::warehouse::lakehouse::Lakehouse;
use crate::sink::warehouse::lakehouse::store::{Folder, S3};
use crate::sink::warehouse::metrics::Metrics;
use crate::sink::warehouse::postgres::Postgres;
use crate::sink::warehouse::table::Table;
use crate::sink::warehouse::worker::{Report, Worker};
use crate::sink::warehouse::{Warehouse, tables};
use crate::stream::log::Log;
use crate::stream::record::Topic;

#[derive(Args)]
pub struct Arguments {
    /// The warehouse: NAME of [warehouses.NAME]
    name: String,
    #[command(flatten)]
    file: TopologyFile,
    /// End when everything that is in the topics now is in the warehouse
    #[arg(long)]
    until_idle: bool,
    /// Where health and metrics are served, instead of http.listen
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Empty the tables first, and fill them from the start of the topics
    #[arg(long)]
    backfill: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init(if arguments.until_idle { "warn" } else { "info" });
    let topology = arguments.file.load()?;
    let name = &arguments.name;
    let wanted = named("warehouses", &topology.warehouses, name)?;
    let stop = run::stop_on_signals()?;
    let log = connect::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let metrics = metrics(&topology, ("warehouse", name), arguments.until_idle, arguments.listen)?;
    let worker = worker(&topology, wanted, log, registry, arguments.until_idle, metrics);
    let report = fill(name, wanted, &worker, arguments.backfill, &stop)?;
    println!(
        "{} rows in {} commits; {} records fit no table",
        report.rows, report.commits, report.unfit
    );
    Ok(())
}

/// What carries the topics into a warehouse.
pub fn worker(
    topology: &Topology,
    wanted: &config::Warehouse,
    log: Arc<dyn Log>,
    registry: Arc<dyn Registry>,
    until_idle: bool,
    metrics: Metrics,
) -> Worker {
    Worker {
        log,
        values: AnyReader::new(registry),
        settings: topology.settings().clone(),
        topics: topics(topology),
        tables: tables::ALL,
        interval: wanted.interval.get(),
        max_rows: wanted.max_rows as usize,
        until_idle,
        metrics,
    }
}

/// Makes the tables that are missing, and runs the worker.
pub fn fill(
    name: &str,
    wanted: &config::Warehouse,
    worker: &Worker,
    backfill: bool,
    stop: &AtomicBool,
) -> Result<Report, Failure> {
    let mut warehouse = open(wanted)?;
    for step in warehouse.prepare(false).with_context(|| format!("warehouse {name}"))? {
        tracing::info!(warehouse = name, "{step}");
    }
    if backfill {
        warehouse
            .clear()
            .with_context(|| format!("emptying warehouse {name}"))?;
    }
    let report = worker
        .run(warehouse.as_mut(), stop)
        .with_context(|| format!("warehouse {name}"))?;
    Ok(report)
}

/// The figures of a worker; where it runs on, served with its health.
pub fn metrics(
    topology: &Topology,
    (kind, name): (&str, &str),
    until_idle: bool,
    listen: Option<SocketAddr>,
) -> Result<Metrics, Failure> {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry, kind, name)?;
    if until_idle {
        return Ok(metrics);
    }
    let (seen, what) = (
        metrics.clone(),
        format!("{kind} {name} has not answered, or fails; see the log"),
    );
    let ready: server::Readiness = Arc::new(move || if seen.is_working() { Ok(()) } else { Err(what.clone()) });
    let listen = listen.unwrap_or(topology.http.listen.0);
    let bound = server::serve(listen, server::routes(registry, ready));
    let bound = bound.with_context(|| format!("http.listen {listen}"))?;
    tracing::info!(name, http = %bound, "running");
    Ok(metrics)
}

/// What `accrue apply` does, or would do, about the warehouses: one line a step.
pub fn apply(topology: &Topology, dry_run: bool) -> Result<Vec<String>, Failure> {
    let mut steps = Vec::new();
    for (name, wanted) in &topology.warehouses {
        if let WarehousePlace::Folder(_) = wanted.place {
            // A folder is of the machine that the worker runs on, which makes its tables when it starts.
            continue;
        }
        let name = name.as_str();
        let done = open(wanted)?
            .prepare(dry_run)
            .with_context(|| format!("warehouse {name}"))?;
        steps.extend(done.into_iter().map(|step| format!("{name}: {step}")));
    }
    Ok(steps)
}

fn open(wanted: &config::Warehouse) -> Result<Box<dyn Warehouse>, Failure> {
    Ok(match &wanted.place {
        WarehousePlace::Postgres { url, schema } => Box::new(Postgres::new(url.reveal(), schema.as_str(), tables::ALL)),
        WarehousePlace::Folder(folder) => Box::new(Lakehouse::new(Box::new(Folder::new(folder)), tables::ALL)),
        WarehousePlace::S3 {
            endpoint,
            region,
            bucket,
            prefix,
            access_key,
            secret_key,
        } => {
            let (access, secret) = (access_key.reveal(), secret_key.reveal());
            let store = S3::new(endpoint.as_str(), region, bucket, prefix, access, secret)?;
            Box::new(Lakehouse::new(Box::new(store), tables::ALL))
        }
        WarehousePlace::Snowflake {
            endpoint,
            account,
            user,
            private_key,
            database,
            schema,
            warehouse,
            role,
        } => {
            let client = Snowflake::new(&snowflake::Place {
                endpoint,
                account: account.as_str(),
                user,
                private_key: private_key.reveal(),
                database: database.as_str(),
                schema: schema.as_str(),
                warehouse: warehouse.as_str(),
                role: role.as_ref().map(config::Name::as_str),
            })?;
            Box::new(Cloud::new(Box::new(client), tables::ALL))
        }
        WarehousePlace::BigQuery {
            endpoint,
            project,
            dataset,
            location,
            credentials,
        } => {
            let client = BigQuery::new(&bigquery::Place {
                endpoint,
                project: project.as_str(),
                dataset: dataset.as_str(),
                location: location.as_deref(),
                credentials: credentials.reveal(),
            })?;
            Box::new(Cloud::new(Box::new(client), tables::ALL))
        }
    })
}

/// The topics that feed tables.
pub fn topics(topology: &Topology) -> BTreeMap<Product, Topic> {
    let fed = |table: &Table| (table.feed, Topic::new(product_topic(topology, table.feed).as_str()));
    tables::ALL.iter().map(fed).collect()
}
