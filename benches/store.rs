//! What a store costs by the number of contracts in it, with keys in no order: those of a CRM are seldom counted up.
//!
//! Each size is filled, then written anew twice as a month's end would, batch by batch; then a part is read. The process has
//! little memory for its stores, so that what does not scale shows. Times are of the processor, RocksDB's threads included.
//! Last, contracts that end one by one while others go on, which is what a store must clean up after: it tells how much disk
//! is left over. `cargo bench --bench store`, or `-- 1000000` for a larger last size.

mod common;

use std::path::Path;

use accrue::stream::overlay::Overlay;
use accrue::stream::record::Offset;
use accrue::stream::store::{StoreHome, TaskStore};

use common::cpu_seconds;

/// Block cache and write buffers of all stores of the process: what a budget of 256 MiB gives them.
const MEMORY_BYTES: usize = 64 << 20;
const VALUE_BYTES: usize = 4_000;
const BATCH: usize = 200;

fn main() {
    let largest = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(400_000);
    println!("| contracts | us a new one | us a write over it | us a read | MB of values | MB on disk | files |");
    println!("|---|---|---|---|---|---|---|");
    let mut contracts = 25_000;
    while contracts <= largest {
        of_size(contracts);
        contracts *= 4;
    }
    ending();
}

fn of_size(contracts: usize) {
    let dir = tempfile::tempdir().expect("folder");
    let store = open(dir.path());
    let mut values = Values(88_172_645_463_325_252);
    let filled = taken(|| write(&store, &mut values, 0..contracts)) / contracts as f64;
    let over = taken(|| (0..2).for_each(|_| write(&store, &mut values, 0..contracts))) / (2 * contracts) as f64;
    let asked = contracts / 5;
    let read = taken(|| {
        for n in (0..contracts).step_by(5) {
            assert!(store.get(0, &key(n)).expect("get").is_some());
        }
    }) / asked as f64;
    let (mb, files) = on_disk(dir.path());
    println!(
        "| {contracts} | {filled:.1} | {over:.1} | {read:.1} | {} | {mb} | {files} |",
        (contracts * VALUE_BYTES) >> 20
    );
}

/// 30,000 contracts are alive; each month writes them all, a twentieth ends, and as many begin.
fn ending() {
    const ALIVE: usize = 30_000;
    const MONTHS: usize = 48;
    let dir = tempfile::tempdir().expect("folder");
    let store = open(dir.path());
    let mut values = Values(88_172_645_463_325_252);
    let used = taken(|| {
        for month in 0..MONTHS {
            let first = month * ALIVE / 20;
            write(&store, &mut values, first..first + ALIVE);
        }
    });
    let (mb, files) = on_disk(dir.path());
    let stored = (((MONTHS - 1) * ALIVE / 20 + ALIVE) * VALUE_BYTES) >> 20;
    println!(
        "\n{MONTHS} months of {ALIVE} contracts, of which a twentieth ends each month: {:.1} us a write, {stored} MB of values, {mb} MB on disk in {files} files",
        used / (MONTHS * ALIVE) as f64
    );
}

fn open(dir: &Path) -> TaskStore {
    TaskStore::open(dir, &["contract".to_owned()], &StoreHome::disk(MEMORY_BYTES)).expect("store")
}

/// Writes contracts in batches, as commits do, in an order that is not that of their keys.
fn write(store: &TaskStore, values: &mut Values, numbers: std::ops::Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for batch in numbers.chunks(BATCH) {
        let mut overlay = Overlay::new(1);
        for n in batch {
            overlay.put(0, key(*n), Some(values.next()));
        }
        store.apply(&overlay, &[Some(Offset(1))]).expect("apply");
    }
}

/// Neighbouring numbers are far apart as keys.
fn key(number: usize) -> Vec<u8> {
    format!("c acme/D-{}", number.wrapping_mul(2_654_435_761) % 1_000_000_007).into_bytes()
}

/// Values that are a fifth chance, as a stored contract is by what lz4 makes of it.
struct Values(u64);

impl Values {
    fn next(&mut self) -> Vec<u8> {
        let mut value = Vec::with_capacity(VALUE_BYTES + 40);
        while value.len() < VALUE_BYTES {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            value.extend_from_slice(&self.0.to_be_bytes());
            value.extend_from_slice(b"obligation-1 2026-02-01 linear  ");
        }
        value
    }
}

/// CPU microseconds.
fn taken(work: impl FnOnce()) -> f64 {
    let before = cpu_seconds();
    work();
    (cpu_seconds() - before) * 1e6
}

/// Megabytes, files.
fn on_disk(dir: &Path) -> (u64, usize) {
    let sizes: Vec<u64> = std::fs::read_dir(dir)
        .expect("folder")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .collect();
    (sizes.iter().sum::<u64>() >> 20, sizes.len())
}
