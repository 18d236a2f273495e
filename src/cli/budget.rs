//! `accrue budget NAME`: publishes what is planned for each month.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, TopologyFile, connect, named, run, warehouse};
use crate::codec::registry::Registry;
use crate::codec::schemas::AnyReader;
use crate::config::{self, BudgetBasis, BudgetBy, BudgetPlace, Topology};
use crate::observe::logs;
use crate::sink::budget::lines::{Basis, By, Feed};
use crate::sink::budget::outlet::{Http, Outlet, Sftp};
use crate::sink::budget::{BY_BILLING, BY_RECOGNITION, Budget};
use crate::sink::warehouse::lakehouse::store::Folder;
use crate::sink::warehouse::metrics::Metrics;
use crate::sink::warehouse::worker::{Report, Worker};
use crate::stream::log::Log;

/// Rows folded between two looks at the clock.
const MAX_ROWS: usize = 50_000;

#[derive(Args)]
pub struct Arguments {
    /// The feed: NAME of [budgets.NAME]
    name: String,
    #[command(flatten)]
    file: TopologyFile,
    /// End when everything that is in the topics now is published
    #[arg(long)]
    until_idle: bool,
    /// Where health and metrics are served, instead of http.listen
    #[arg(long)]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init(if arguments.until_idle { "warn" } else { "info" });
    let topology = arguments.file.load()?;
    let name = &arguments.name;
    let wanted = named("budgets", &topology.budgets, name)?;
    let stop = run::stop_on_signals()?;
    let log = connect::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let metrics = warehouse::metrics(&topology, ("budget", name), arguments.until_idle, arguments.listen)?;
    let report = publish(
        &topology,
        name,
        wanted,
        (log, registry),
        arguments.until_idle,
        metrics,
        &stop,
    )?;
    println!("{} rows folded; {} records fit no table", report.rows, report.unfit);
    Ok(())
}

/// Folds the plans of the topics, and publishes what differs from what is there.
pub fn publish(
    topology: &Topology,
    name: &str,
    wanted: &config::Budget,
    (log, registry): (Arc<dyn Log>, Arc<dyn Registry>),
    until_idle: bool,
    metrics: Metrics,
    stop: &AtomicBool,
) -> Result<Report, Failure> {
    let (basis, tables) = match wanted.basis {
        BudgetBasis::Recognition => (Basis::Recognition, BY_RECOGNITION),
        BudgetBasis::Billing => (Basis::Billing, BY_BILLING),
    };
    let feed = Feed {
        tenant: wanted.tenant.clone(),
        basis,
        by: match wanted.by {
            BudgetBy::Deal => By::Deal,
            BudgetBy::Category => By::Category,
        },
        source: wanted.source.clone(),
        categories: wanted.categories.clone(),
    };
    let worker = Worker {
        log,
        values: AnyReader::new(registry),
        settings: topology.settings().clone(),
        topics: warehouse::topics(topology),
        tables,
        interval: wanted.interval.get(),
        max_rows: MAX_ROWS,
        until_idle,
        metrics,
    };
    let report = worker
        .run(&mut Budget::new(feed, outlet(&wanted.place)?), stop)
        .with_context(|| format!("budget {name}"))?;
    Ok(report)
}

fn outlet(place: &BudgetPlace) -> Result<Box<dyn Outlet>, Failure> {
    Ok(match place {
        BudgetPlace::Folder(folder) => Box::new(Folder::new(folder)),
        BudgetPlace::Sftp {
            host,
            port,
            user,
            folder,
            identity_file,
            known_hosts,
        } => Box::new(Sftp {
            host: host.clone(),
            port: *port,
            user: user.clone(),
            folder: folder.clone(),
            identity: identity_file.clone(),
            known_hosts: known_hosts.clone(),
        }),
        BudgetPlace::Http { url, token } => {
            Box::new(Http::new(url.as_str(), token.as_ref().map(config::Secret::reveal))?)
        }
    })
}
