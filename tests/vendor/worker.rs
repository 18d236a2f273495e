//! The program itself, delivering a few deals of the quick start.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use accrue::config;
use accrue::pipeline;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Log, Positions};
use accrue::stream::record::{Offset, Outgoing, Partition, Topic, TopicPartition};
use rust_decimal::Decimal;

use super::dec;

pub fn accrue(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    let topology = dir.join("topology.toml");
    command
        .args(arguments)
        .arg("--topology")
        .arg(topology)
        .env("ACCRUE_DATA_DIR", dir.join("data"));
    command
}

pub fn done(mut command: Command) -> Output {
    let out = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{command:?}\n{}\n{said}",
        String::from_utf8_lossy(&out.stdout)
    );
    out
}

/// Takes a few deals of the quick start's journal, and its registry: all of it, some thousands of entries, would keep
/// Tryton busy for an hour.
pub fn some_deals(dir: &Path, topology: &str, count: usize) {
    deals_of(dir, topology, count, &|entries| (15..=35).contains(&entries.len()));
}

/// The first deals whose entries are as asked.
pub fn deals_of(dir: &Path, topology: &str, count: usize, wanted: &dyn Fn(&[Outgoing]) -> bool) {
    let topology = config::parse("topology.toml", topology, &|name| {
        (name == "TRYTON_PASSWORD").then(|| "x".to_owned())
    })
    .unwrap_or_else(|why| panic!("{why:?}"));
    let whole = EmbeddedLog::open(&dir.join("whole/log"), false).unwrap();
    let some = EmbeddedLog::open(&dir.join("data/log"), false).unwrap();
    some.create_topics(&pipeline::topics(&topology)).unwrap();
    let topic = Topic::new("journal.entries");
    let mut by_deal: BTreeMap<Vec<u8>, Vec<Outgoing>> = BTreeMap::new();
    for n in 0..whole.partitions(&topic).unwrap().unwrap() {
        let at = TopicPartition::new(&topic, Partition(n));
        let mut reader = whole.reader(&at, Offset(0)).unwrap();
        loop {
            let records = reader.read(Duration::ZERO).unwrap();
            if records.is_empty() {
                break;
            }
            for record in records {
                by_deal.entry(record.key.clone().unwrap()).or_default().push(Outgoing {
                    to: at.clone(),
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
    }
    let mut producer = some.producer("some-deals").unwrap();
    producer.begin().unwrap();
    let short: Vec<_> = by_deal
        .into_values()
        .filter(|entries| wanted(entries))
        .take(count)
        .collect();
    assert_eq!(short.len(), count);
    for record in short.into_iter().flatten() {
        producer.send(record).unwrap();
    }
    producer.commit(&Positions::new(), None).unwrap();
    let registry = Command::new("cp")
        .arg("-r")
        .arg(dir.join("whole/registry"))
        .arg(dir.join("data/registry"))
        .status();
    assert!(registry.unwrap().success());
}

/// Account to sum, of every row of every file.
pub fn of_files(dir: &Path) -> BTreeMap<String, Decimal> {
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for tenant in std::fs::read_dir(dir.join("data/csv"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        for file in std::fs::read_dir(tenant.join("documents")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let mut lines = text.lines();
            let header: Vec<&str> = lines.next().unwrap().split(',').collect();
            let column = |name: &str| {
                header
                    .iter()
                    .rev()
                    .position(|known| *known == name)
                    .unwrap_or_else(|| panic!("{name} in {header:?}"))
            };
            let (account, debit, credit) = (
                column("account"),
                column("functional_debit"),
                column("functional_credit"),
            );
            for row in lines {
                // Counted from the end: no field from the account on holds a comma, and a customer's name may.
                let fields: Vec<&str> = row.rsplit(',').collect();
                *sums.entry(fields[account].to_owned()).or_default() += dec(fields[debit]) - dec(fields[credit]);
            }
        }
    }
    sums.retain(|_, sum| !sum.is_zero());
    sums.into_iter()
        .map(|(account, sum)| (account, sum.normalize()))
        .collect()
}
