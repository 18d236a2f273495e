//! The books, delivered: each sink, warehouse and budget feed of the shipped topology, until nothing is left.
//!
//! Invariant: what is printed is counted where it arrived, so that a second run, which delivers nothing, prints the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;

use crate::cli::{Failure, budget, receipts, run, sink, warehouse};
use crate::codec::registry::Registry;
use crate::codec::schemas::Schemas;
use crate::config::{BudgetPlace, System, Topology, WarehousePlace};
use crate::sink::application;
use crate::sink::warehouse::metrics::Metrics;
use crate::stream::log::Log;

pub fn run(
    topology: &Topology,
    log: &Arc<dyn Log>,
    registry: &Arc<dyn Registry>,
    schemas: &Arc<Schemas>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    println!("\nWhere it went");
    let nobody = prometheus::Registry::new();
    log.create_topics(&application::topics(topology))?;
    let sinks: Vec<_> = topology.sinks.values().cloned().collect();
    let running = sink::start(topology, &sinks, log, schemas, &nobody)?;
    sink::deliver(&running, true, run::stuck_after(topology), stop)?;
    for sink in &sinks {
        if let System::File(system) = &sink.system {
            let mut documents = 0;
            for tenant in files(&system.dir)? {
                documents += files(system.dir.join(tenant).join("documents"))?.len();
            }
            println!("  {:<40} {documents:>6} documents of a ledger", shown(&system.dir));
        }
    }
    let proof = receipts::proof(topology, log.as_ref(), schemas)?;
    println!("  {:<40} {}", topology.outputs.receipts.as_str(), proof.verdict()?);
    for (name, wanted) in &topology.warehouses {
        let name = name.as_str();
        let metrics = Metrics::new(&nobody, "warehouse", name)?;
        let worker = warehouse::worker(topology, wanted, log.clone(), registry.clone(), true, metrics);
        warehouse::fill(name, wanted, &worker, false, stop)?;
        if let WarehousePlace::Folder(folder) = &wanted.place {
            println!("  {:<40} {:>6} tables (Delta Lake)", shown(folder), worker.tables.len());
        }
    }
    for (name, wanted) in &topology.budgets {
        let name = name.as_str();
        let metrics = Metrics::new(&nobody, "budget", name)?;
        budget::publish(
            topology,
            name,
            wanted,
            (log.clone(), registry.clone()),
            true,
            metrics,
            stop,
        )?;
        if let BudgetPlace::Folder(folder) = &wanted.place {
            let months = files(folder)?.iter().filter(|name| name.ends_with(".csv")).count();
            println!("  {:<40} {months:>6} months of the plan, as CSV", shown(folder));
        }
    }
    Ok(())
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// The names in a folder.
fn files(folder: impl AsRef<Path>) -> Result<Vec<String>, anyhow::Error> {
    let folder = folder.as_ref();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
