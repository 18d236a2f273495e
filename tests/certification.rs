//! What is certain about each connector: `accrue sink`, killed around every kind of write, many times; then each document
//! is there once, whatever the worker and the system knew when it died. `make certify` prints the table of
//! docs/certification.md.
//!
//! The systems here are doubles of the sandbox; `vendor::steps` says where a worker dies. A real Tryton has the same in
//! `vendor_tryton_worker`.

mod vendor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use accrue::sandbox::{Options, Sandbox, settings, vendors};
use accrue::stream::record::Outgoing;
use rust_decimal::Decimal;
use vendor::steps::{STEPS, kill_and_finish};
use vendor::worker::*;

/// How fast the sandbox's clock runs. Where a key is what makes a second write safe, as fast as the worker's: it is
/// remembered for minutes, and the worker counts on them.
fn speed(name: &str) -> u32 {
    match name {
        "xero" | "quickbooks" => 1,
        _ => 240,
    }
}

/// The shipped topology with CSV files, and the system as the sandbox says.
fn topology(sandbox: &Sandbox, name: &str, documents: &str) -> String {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.toml")).unwrap();
    let start = shipped.find("[sinks.files]").unwrap();
    let end = shipped[start..].find("\n[http]").map_or(shipped.len(), |at| start + at);
    let own = settings::topology(name, &sandbox.url(name)).replace("\"invoices\"", &format!("{documents:?}"));
    let jobs = match name {
        "oracle" => "jobs_dir = \"${ACCRUE_DATA_DIR:-data}/jobs\"\npoll_for = \"1s\"\n",
        _ => "",
    };
    let own = own.replace("poll_every = \"1s\"", "poll_every = \"50ms\"");
    let files = format!(
        "[sinks.csv]\nkind = \"file\"\ndocuments = {documents:?}\n\
         file = {{ format = \"csv\", dir = \"${{ACCRUE_DATA_DIR:-data}}/csv\" }}\n[sinks.csv.accounts]\n{}\n",
        settings::accounts()
    );
    let system = format!(
        "{own}timeout = \"2s\"\nlook_up_after = \"800ms\"\n{jobs}[sinks.{name}.breaker]\nafter = 50\nprobe_after = \"1s\"\n\
         [sinks.{name}.limits]\nin_flight = 1\n"
    );
    format!("{}{files}{system}{}", &shipped[..start], &shipped[end..])
}

/// Short deals in one currency: a foreign invoice may be for a person to decide, by design.
fn is_domestic(entries: &[Outgoing]) -> bool {
    let says = |entry: &Outgoing, word: &[u8]| {
        let value = entry.value.as_deref().unwrap_or_default();
        value.windows(word.len()).any(|part| part == word)
    };
    (10..=35).contains(&entries.len()) && !entries.iter().any(|entry| says(entry, b"EUR") || says(entry, b"JPY"))
}

/// The keys of the documents that a folder of CSV files has.
fn keys(dir: &Path) -> BTreeSet<String> {
    let tenants = std::fs::read_dir(dir.join("data/csv")).unwrap();
    let mut keys = BTreeSet::new();
    for tenant in tenants.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(tenant.join("documents")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let row = text.lines().nth(1).unwrap();
            keys.insert(row.split(',').next().unwrap().to_owned());
        }
    }
    keys
}

async fn certify(name: &'static str, documents: &'static str) {
    let options = Options {
        speed: speed(name),
        limits: false,
        ..Options::default()
    };
    let vendor = vendors().into_iter().filter(|vendor| vendor.name() == name).collect();
    let sandbox = Sandbox::start(vendor, ([127, 0, 0, 1], 0).into(), options)
        .await
        .unwrap();
    let topology = topology(&sandbox, name, documents);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let (sandbox, died, wanted, parked, sums) = tokio::task::spawn_blocking(move || {
        let mut quickstart = Command::new(env!("CARGO_BIN_EXE_accrue"));
        quickstart
            .args(["quickstart", "--books-only", "--dir"])
            .arg(dir.join("whole"));
        done(quickstart);
        std::fs::write(dir.join("topology.toml"), &topology).unwrap();
        deals_of(&dir, &topology, 5, &is_domestic);
        done(accrue(&dir, &["sink", "csv", "--until-idle"]));
        let died = kill_and_finish(&dir, &sandbox, name, speed(name));
        let parked = done(accrue(&dir, &["deliveries", "list", "--parked"]));
        let verified = done(accrue(&dir, &["receipts", "verify"]));
        assert!(String::from_utf8_lossy(&verified.stdout).contains("whole"));
        let parked = String::from_utf8_lossy(&parked.stdout).into_owned();
        (sandbox, died, keys(&dir), parked, of_files(&dir))
    })
    .await
    .unwrap();

    let held = sandbox.documents(name);
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut found: BTreeMap<String, Decimal> = BTreeMap::new();
    for document in &held {
        *times.entry(&document.reference).or_default() += 1;
        *kinds.entry(document.kind).or_default() += 1;
        for (account, amount) in &document.lines {
            // Xero posts what an invoice is owed to the organisation's own account, whatever we map.
            let own = name == "xero" && account == "610";
            let account = if own { "1100" } else { account };
            *found.entry(account.to_owned()).or_default() += amount;
        }
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{name}: written twice: {twice:?}");
    assert_eq!(held.len(), wanted.len(), "{name}: one document for each key; {parked}");
    found.retain(|_, sum| !sum.is_zero());
    let found: BTreeMap<_, _> = found
        .into_iter()
        .map(|(account, sum)| (account, sum.normalize()))
        .collect();
    assert_eq!(found, sums, "{name}: the balances");
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let died: Vec<String> = STEPS
        .iter()
        .zip(died)
        .map(|(step, times)| format!("{step} {times}"))
        .collect();
    println!(
        "| {name} | {} | {} | {} keys, {} documents, balances equal |",
        kinds.join(", "),
        died.join(", "),
        wanted.len(),
        held.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make certify"]
async fn xero() {
    certify("xero", "invoices").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make certify"]
async fn quickbooks() {
    certify("quickbooks", "invoices").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make certify"]
async fn netsuite() {
    certify("netsuite", "invoices").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make certify"]
async fn oracle() {
    certify("oracle", "journals").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make certify"]
async fn odoo() {
    certify("odoo", "invoices").await;
}
