//! The whole path into a real Tryton, by the program itself: the quick start's books, killed around every kind of write,
//! replayed.
//!
//! The same documents go to CSV files, whose sums per account are what Tryton's trial balance must say. The quick start's ids
//! are the same every time, so each run needs a Tryton that has not seen them.

mod vendor;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use accrue::sandbox::{Options, settings};
use accrue::sink::accounting::http::Http;
use accrue::sink::accounting::tryton::{Settings, rpc};
use accrue::sink::destination::Certainty;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use vendor::relay::Relay;
use vendor::steps::kill_and_finish;
use vendor::worker::*;
use vendor::*;

/// So fast runs the clock of what stands before Tryton: what is taken after a death is taken half a second after it.
const SPEED: u32 = 2;

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` starts a Tryton"))
}

/// The shipped topology with accounts as codes, CSV files, and Tryton.
fn topology(documents: &str, url: &str) -> String {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.toml")).unwrap();
    let start = shipped.find("[sinks.files]").unwrap();
    let end = shipped[start..].find("\n[http]").map_or(shipped.len(), |at| start + at);
    let accounts = settings::accounts();
    let tryton = format!(
        "[sinks.tryton.tryton]\nurl = \"{}\"\ndatabase = \"{}\"\nuser = \"{}\"\npassword = \"${{TRYTON_PASSWORD}}\"\n\
         timeout = \"10s\"\nlook_up_after = \"4s\"\n",
        url,
        env("TRYTON_DATABASE"),
        env("TRYTON_USER")
    );
    let sinks = format!(
        "[sinks.csv]\nkind = \"file\"\nfile = {{ format = \"csv\", dir = \"${{ACCRUE_DATA_DIR:-data}}/csv\" }}\n[sinks.csv.accounts]\n\
         {accounts}\n[sinks.tryton]\nkind = \"tryton\"\ndocuments = \"{documents}\"\n[sinks.tryton.accounts]\n{accounts}\n{tryton}"
    );
    format!("{}{sinks}{}", &shipped[..start], &shipped[end..])
}

async fn of_tryton() -> BTreeMap<String, Decimal> {
    let settings = Settings {
        url: url(&env("TRYTON_URL")),
        database: env("TRYTON_DATABASE"),
        user: env("TRYTON_USER"),
        password: secret(&env("TRYTON_PASSWORD")),
        company: None,
        journal: String::new(),
        invoice_journal: String::new(),
        timeout: Duration::from_secs(60),
        certainty: Certainty::None,
    };
    let session = rpc::Session::new(Http::new(settings.timeout).unwrap(), settings);
    let params = json!([
        [["move.state", "=", "posted"]],
        0,
        null,
        null,
        ["account.code", "debit", "credit"],
        {}
    ]);
    let (lines, _) = session
        .call("model.account.move.line.search_read", params)
        .await
        .unwrap();
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for line in lines.as_array().unwrap() {
        let side = |name: &str| rpc::read_amount(&line[name]).unwrap();
        *sums
            .entry(line["account."]["code"].as_str().unwrap().to_owned())
            .or_default() += side("debit") - side("credit");
    }
    sums
}

fn change(before: &BTreeMap<String, Decimal>, after: &BTreeMap<String, Decimal>) -> BTreeMap<String, Decimal> {
    let changed = after.iter().map(|(account, sum)| {
        (
            account.clone(),
            (sum - before.get(account).copied().unwrap_or_default()).normalize(),
        )
    });
    changed.filter(|(_, sum)| !sum.is_zero()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Tryton: make test"]
async fn the_quick_start_is_in_tryton_once_to_the_cent() {
    let options = Options {
        speed: SPEED,
        ..Options::default()
    };
    let sandbox = sandbox(Relay::new(&env("TRYTON_URL")), options).await;
    let before = of_tryton().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let (sandbox, expected, parked) = tokio::task::spawn_blocking(move || {
        let mut quickstart = Command::new(env!("CARGO_BIN_EXE_accrue"));
        quickstart
            .args(["quickstart", "--books-only", "--dir"])
            .arg(dir.join("whole"));
        done(quickstart);
        let topology = topology("journals", &sandbox.url("tryton"));
        std::fs::write(dir.join("topology.toml"), &topology).unwrap();
        some_deals(&dir, &topology, 4);
        done(accrue(&dir, &["sink", "csv", "--until-idle"]));
        kill_and_finish(&dir, &sandbox, "tryton", SPEED);
        let parked = done(accrue(&dir, &["deliveries", "list", "--parked"]));
        let parked = String::from_utf8_lossy(&parked.stdout).into_owned();
        (sandbox, of_files(&dir), parked)
    })
    .await
    .unwrap();
    assert!(expected.len() >= 5, "{expected:?}");
    let after = of_tryton().await;
    assert_eq!(change(&before, &after), expected, "{parked}");

    // The same topics read again with an empty store: nothing new.
    let dir = folder.path();
    let writes = sandbox.writes("tryton");
    std::fs::remove_dir_all(dir.join("data/state/sink-tryton")).unwrap();
    done(accrue(dir, &["sink", "tryton", "--until-idle"]));
    assert_eq!(of_tryton().await, after);
    assert_eq!(sandbox.writes("tryton"), writes);
    let verified = done(accrue(dir, &["receipts", "verify"]));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("whole"));
    let shown: Value = json!(String::from_utf8_lossy(&done(accrue(dir, &["describe"])).stdout));
    assert!(!shown.to_string().contains(&env("TRYTON_PASSWORD")));
}
