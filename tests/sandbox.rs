//! `accrue sink` against doubles that misbehave at every third write: each document once, to the cent.

mod vendor;

use std::collections::BTreeMap;
use std::process::Command;

use accrue::sandbox::{Options, Sandbox, settings, vendors};
use rust_decimal::Decimal;
use vendor::worker::*;

/// Delivers four deals to a system as the topology of the sandbox says, `documents` apart.
async fn deliver_to(name: &str, documents: &str) {
    let options = Options {
        speed: 240,
        seed: 5,
        faults_per_thousand: 300,
        limits: false,
    };
    let vendor = vendors().into_iter().filter(|vendor| vendor.name() == name).collect();
    let sandbox = Sandbox::start(vendor, ([127, 0, 0, 1], 0).into(), options)
        .await
        .unwrap();
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.toml")).unwrap();
    let start = shipped.find("[sinks.files]").unwrap();
    let end = shipped[start..].find("\n[http]").map_or(shipped.len(), |at| start + at);
    let own = settings::topology(name, &sandbox.url(name)).replace("\"invoices\"", &format!("{documents:?}"));
    // A late commit comes 120 s of the sandbox's clock after its request: half a second.
    let more = "timeout = \"400ms\"\nlook_up_after = \"800ms\"\n";
    let files = "[sinks.csv]\nkind = \"file\"\nfile = { format = \"csv\", dir = \"${ACCRUE_DATA_DIR:-data}/csv\" }\n[sinks.csv.accounts]\n";
    let breaker = format!("[sinks.{name}.breaker]\nafter = 20\nprobe_after = \"1s\"\n");
    let sinks = format!("{files}{}\n{own}{more}{breaker}", settings::accounts());
    let topology = format!("{}{sinks}{}", &shipped[..start], &shipped[end..]);

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let name = name.to_owned();
    let expected = tokio::task::spawn_blocking({
        let name = name.clone();
        move || {
            let mut quickstart = Command::new(env!("CARGO_BIN_EXE_accrue"));
            quickstart
                .args(["quickstart", "--books-only", "--dir"])
                .arg(dir.join("whole"));
            done(quickstart);
            std::fs::write(dir.join("topology.toml"), &topology).unwrap();
            some_deals(&dir, &topology, 4);
            done(accrue(&dir, &["sink", "csv", "--until-idle"]));
            done(accrue(&dir, &["sink", &name, "--until-idle"]));
            of_files(&dir)
        }
    })
    .await
    .unwrap();
    let held = sandbox.documents(&name);
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    let mut keys: BTreeMap<String, u32> = BTreeMap::new();
    for document in &held {
        *keys.entry(document.reference.clone()).or_default() += 1;
        for (account, amount) in &document.lines {
            *sums.entry(account.clone()).or_default() += amount;
        }
    }
    keys.retain(|_, times| *times > 1);
    assert!(keys.is_empty(), "written twice: {keys:?}");
    sums.retain(|_, sum| !sum.is_zero());
    let sums: BTreeMap<_, _> = sums
        .into_iter()
        .map(|(account, sum)| (account, sum.normalize()))
        .collect();
    assert_eq!(sums, expected, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invoices_and_foreign_entries_reach_a_misbehaving_odoo_once() {
    deliver_to("odoo", "invoices").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journals_reach_a_misbehaving_netsuite_once() {
    deliver_to("netsuite", "journals").await;
}
