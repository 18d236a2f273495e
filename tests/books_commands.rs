//! The commands for people: each one run as a process, over a history in four currencies whose figures must agree with
//! one another and, over one small deal, with figures worked out by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use accrue::codec::registry::Embedded;
use accrue::config;
use accrue::pipeline;
use accrue::stream::app::{self, Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Log, Positions};
use accrue::stream::metrics::Metrics;
use accrue::stream::record::{Outgoing, Partition, Timestamp, Topic, TopicPartition};
use rust_decimal::Decimal;
use serde_json::{Value, json};

const HISTORY: &str = "tests/fixtures/books/history.jsonl";
const TOPOLOGY: &str = "tests/fixtures/books/topology.toml";
const DAILY: &str = "tests/fixtures/books/daily.toml";

fn accrue(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn run(arguments: &[&str]) -> Output {
    accrue(arguments).output().expect("accrue")
}

/// The output of a command that must succeed.
fn out(arguments: &[&str]) -> String {
    let out = run(arguments);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(out.stdout).expect("text")
}

/// The exit code and the errors of a command that must fail.
fn fails(arguments: &[&str]) -> (i32, String) {
    let out = run(arguments);
    assert!(!out.status.success(), "{arguments:?}");
    let errors = String::from_utf8(out.stderr).expect("text");
    (out.status.code().expect("exit code"), errors)
}

fn history<'a>(command: &[&'a str]) -> Vec<&'a str> {
    let given = ["--events", HISTORY, "--topology", TOPOLOGY];
    command.iter().chain(&given).copied().collect()
}

/// The rows of a report over the history.
fn report(name: &str, more: &[&'static str]) -> Vec<Value> {
    let mut arguments = history(&["books", "report", name, "--format", "json"]);
    arguments.extend(more);
    let document: Value = serde_json::from_str(&out(&arguments)).expect("JSON");
    assert_eq!(document["report"], name);
    document["rows"].as_array().expect("rows").clone()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is no text in {row}"))
}

fn amount(row: &Value, field: &str) -> Decimal {
    text(row, field).parse().expect("amount")
}

fn scope(row: &Value) -> (String, String) {
    (text(row, "basis").to_owned(), text(row, "currency").to_owned())
}

fn by_scope(rows: &[Value]) -> BTreeMap<(String, String), Vec<&Value>> {
    let mut scopes: BTreeMap<_, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        scopes.entry(scope(row)).or_default().push(row);
    }
    scopes
}

fn event(id: &str, kind: &str, at: &str, payload: Value) -> String {
    json!({"event_id": id, "source": "test", "type": kind, "occurred_at": at, "tenant_id": "acme", "payload": payload})
        .to_string()
}

fn one_deal(amount: u32) -> Value {
    json!({"deal_id": "D-1", "amount": amount, "currency": "USD", "term_months": 12, "billing_cycle": "annual",
        "contract_start": "2026-01-01",
        "line_items": [{"id": "a", "type": "subscription", "amount": amount, "recurring": true}]})
}

/// USD 1200 over 2026, from July on USD 1800.
fn small(dir: &Path) -> String {
    let mut amended = one_deal(1800);
    amended["effective_date"] = "2026-07-01".into();
    let lines = [
        event("e1", "deal.closed", "2025-12-20T00:00:00Z", one_deal(1200)),
        event("e2", "deal.amended", "2026-06-20T00:00:00Z", amended),
        event(
            "e3",
            "clock.ticked",
            "2026-10-01T00:00:00Z",
            json!({"date": "2026-10-01"}),
        ),
    ];
    write(dir, "small.jsonl", &lines)
}

fn write(dir: &Path, name: &str, lines: &[String]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, lines.join("\n")).expect("file");
    path.display().to_string()
}

#[test]
fn every_bridge_closes_and_the_reports_agree() {
    let balances = report("balances", &[]);
    let mut liability = BTreeMap::new();
    for (scope, rows) in by_scope(&balances) {
        let sum: Decimal = rows.iter().map(|row| amount(row, "balance")).sum();
        assert_eq!(sum, Decimal::ZERO, "{scope:?}");
        let owed = rows.iter().filter(|row| text(row, "role") == "contract_liability");
        liability.insert(scope, -owed.map(|row| amount(row, "balance")).sum::<Decimal>());
    }
    assert_eq!(liability.len(), 5, "four currencies and the functional one");

    for (scope, rows) in by_scope(&report("waterfall", &[])) {
        let mut last = Decimal::ZERO;
        for row in rows {
            assert_eq!(amount(row, "opening"), last, "{row}");
            last = last + amount(row, "billed") - amount(row, "recognised") + amount(row, "fx");
            assert_eq!(amount(row, "closing"), last, "{row}");
        }
        assert_eq!(last, liability[&scope], "{scope:?}");
    }

    let forecast = report("forecast", &[]);
    for row in report("rpo", &[]) {
        let parts = ["recognised", "waiting", "remaining"].map(|field| amount(&row, field));
        assert_eq!(parts.iter().sum::<Decimal>(), amount(&row, "price"), "{row}");
        assert_eq!(
            amount(&row, "within_12_months") + amount(&row, "later"),
            amount(&row, "remaining")
        );
        let to_come = forecast.iter().filter(|it| scope(it) == scope(&row));
        let sum: Decimal = to_come.map(|it| amount(it, "to_recognise")).sum();
        assert_eq!(sum, parts[1] + parts[2], "{row}");
    }

    let arr = report("arr", &[]);
    let mut closings = BTreeMap::new();
    for (scope, rows) in by_scope(&report("movement", &[])) {
        let mut last = Decimal::ZERO;
        for row in rows {
            assert_eq!(amount(row, "opening"), last, "{row}");
            last = last + amount(row, "new") + amount(row, "expansion");
            last = last - amount(row, "contraction") - amount(row, "churn");
            assert_eq!(amount(row, "closing"), last, "{row}");
        }
        closings.insert(scope, last);
    }
    for row in &arr {
        assert_eq!(closings[&scope(row)], amount(row, "arr"), "{row}");
    }
    // The deal in yen was cancelled.
    assert_eq!(closings[&("contract".to_owned(), "JPY".to_owned())], Decimal::ZERO);
    assert_eq!(arr.len(), 4);
}

#[test]
fn reports_of_a_small_deal_are_as_worked_out_by_hand() {
    let dir = tempfile::tempdir().expect("folder");
    let events = small(dir.path());
    let csv = |name: &str, as_of: &str| {
        let given = ["--events", &events, "--format", "csv", "--as-of", as_of];
        out(&[&["books", "report", name], given.as_slice()].concat())
    };
    assert_eq!(
        csv("waterfall", "2026-03-01"),
        "tenant_id,basis,currency,period,opening,billed,recognised,fx,closing\n\
         acme,contract,USD,2026-01,0.00,1200.00,100.00,0.00,1100.00\n\
         acme,contract,USD,2026-02,1100.00,0.00,100.00,0.00,1000.00\n\
         acme,functional,USD,2026-01,0.00,1200.00,100.00,0.00,1100.00\n\
         acme,functional,USD,2026-02,1100.00,0.00,100.00,0.00,1000.00\n"
    );
    // 1800 less six months of 100 leaves 200 a month.
    assert!(csv("rpo", "2026-10-01").contains("acme,contract,USD,1800.00,1200.00,0.00,600.00,0.00,600.00\n"));
    // The amendment of June 20 is no part of what was sold in March, nor on the morning of its own day.
    assert!(csv("rpo", "2026-03-01").contains("acme,contract,USD,1200.00,200.00,0.00,1000.00,0.00,1000.00\n"));
    assert!(csv("rpo", "2026-06-20").contains("acme,contract,USD,1200.00,500.00,0.00,700.00,0.00,700.00\n"));
    assert!(csv("rpo", "2026-06-21").contains("acme,contract,USD,1800.00,500.00,0.00,1300.00,0.00,1300.00\n"));
    assert!(!csv("rpo", "2025-12-20").contains("USD"), "before the deal was closed");
    assert!(csv("forecast", "2026-03-01").contains(
        "acme,functional,USD,2026-11,100.00,100.00\n\
         acme,functional,USD,2026-12,100.00,0.00\n"
    ));
    assert!(csv("forecast", "2026-11-01").ends_with(
        "acme,functional,USD,2026-11,200.00,200.00\n\
         acme,functional,USD,2026-12,200.00,0.00\n"
    ));
    assert!(csv("arr", "2026-03-01").contains("acme,contract,USD,2026-02-28,1,100.00,1200.00\n"));
    assert!(csv("arr", "2026-10-01").contains("acme,contract,USD,2026-09-30,1,200.00,2400.00\n"));
    assert!(
        csv("movement", "2026-10-01")
            .contains("acme,contract,USD,2026-07,1200.00,0.00,1200.00,0.00,0.00,2400.00,0.00\n")
    );
    let table = out(&[
        "books",
        "report",
        "waterfall",
        "--events",
        &events,
        "--as-of",
        "2026-03-01",
    ]);
    assert!(table.contains("\nDeferred revenue, USD of acme\n"), "{table}");
    assert!(
        table.contains("  2026-01     0.00  1200.00      100.00  0.00  1100.00  ####################\n"),
        "{table}"
    );
}

#[test]
fn a_deal_is_shown_as_it_was_known_then_and_as_it_stood_on_a_day() {
    let dir = tempfile::tempdir().expect("folder");
    let events = small(dir.path());
    let show = |more: &[&str]| -> Value {
        let given = ["deal", "show", "D-1", "--events", &events, "--format", "json"];
        serde_json::from_str(&out(&[&given, more].concat())).expect("JSON")
    };
    let balances = |document: &Value| {
        let it = &document["balances"][0];
        ["contract_liability", "receivable", "recognised", "remaining"]
            .map(|field| amount(it, field).normalize().to_string())
    };
    let now = show(&[]);
    assert_eq!(now["contracts"][0]["version"], 2);
    assert_eq!(now["as_of"], "2026-10-01");
    assert_eq!(
        now["history"][1],
        json!({"version": 2, "from": "2026-07-01", "event_id": "e2", "type": "deal.amended"})
    );
    assert_eq!(balances(&now), ["600", "1800", "1200", "600"]);
    // On an earlier day nothing later had happened.
    let march = show(&["--as-of", "2026-03-01"]);
    assert_eq!(march["contracts"][0]["version"], 1);
    assert_eq!(balances(&march), ["1000", "1200", "200", "1000"]);
    assert_eq!(march["journals"].as_array().expect("entries").len(), 3);
    assert_eq!(march["facts"].as_array().expect("facts").len(), 1);
    let march = out(&["deal", "show", "D-1", "--events", &events, "--as-of", "2026-03-01"]);
    assert_eq!(march.matches("  issued\n").count(), 2, "January and February: {march}");
    assert_eq!(march.matches("  to come\n").count(), 10, "{march}");
    let (code, errors) = fails(&["deal", "show", "D-1", "--events", &events, "--as-of", "2025-12-20"]);
    assert_eq!(code, 1);
    assert!(
        errors.contains("by 2025-12-20 nothing tells of deal D-1: its first fact occurred at 2025-12-20T00:00:00Z"),
        "{errors}"
    );
    // The same day, with only what had been said a few days later.
    let known = show(&["--known-at", "2026-03-05T00:00:00Z", "--as-of", "2026-03-01"]);
    assert_eq!(known["contracts"][0]["version"], 1);
    assert_eq!(known["facts"].as_array().expect("facts").len(), 1);
    assert_eq!(balances(&known), ["1000", "1200", "200", "1000"]);

    let text = out(&["deal", "show", "D-1", "--events", &events]);
    assert!(
        text.starts_with("Deal D-1 of acme: active, version 2, as of 2026-10-01\n"),
        "{text}"
    );
    for heading in [
        "Obligations, USD",
        "Balances, USD",
        "Versions",
        "Recognition",
        "Invoices",
        "Entries",
        "Facts",
    ] {
        assert!(text.contains(&format!("\n{heading}\n")), "{heading}: {text}");
    }
    let (code, errors) = fails(&["deal", "show", "D-9", "--events", &events]);
    assert_eq!(code, 1);
    assert!(errors.contains("no fact tells of deal D-9"), "{errors}");
}

#[test]
fn explanations_are_sentences_and_their_amounts_make_the_price() {
    for deal in ["D-EUR", "D-JPY", "D-KWD", "D-USD"] {
        let text = out(&history(&["deal", "explain", deal]));
        for debug in ["None", "Some(", "{", "StraightLine", "Monthly", "Cumulative", "::"] {
            assert!(!text.contains(debug), "{debug} in {text}");
        }
        assert!(
            text.contains("\nVersion 1 holds from ") && text.contains("ASC 606"),
            "{text}"
        );

        let document: Value =
            serde_json::from_str(&out(&history(&["deal", "explain", deal, "--format", "json"]))).expect("JSON");
        let amounts = document["amounts"].as_array().expect("amounts");
        let earned = amounts.iter().filter(|it| text_of(it, "decision").contains(" earns "));
        let sum: Decimal = earned.map(|it| amount(it, "amount")).sum();
        let shown: Value =
            serde_json::from_str(&out(&history(&["deal", "show", deal, "--format", "json"]))).expect("JSON");
        let contracts = shown["contracts"].as_array().expect("contracts");
        let price: Decimal = contracts.iter().map(|it| amount(it, "transaction_price")).sum();
        // A milestone of D-EUR is accepted, so all of every price has its day.
        assert_eq!(sum, price, "{deal}");
        for why in amounts
            .iter()
            .chain(document["decisions"].as_array().expect("decisions"))
        {
            assert!(
                !text_of(why, "rule").is_empty() && !why["facts"].as_array().expect("facts").is_empty(),
                "{why}"
            );
        }
    }
    let dir = tempfile::tempdir().expect("folder");
    let events = small(dir.path());
    let july = out(&["deal", "explain", "D-1", "--events", &events, "--cents", "2026-07"]);
    let wanted = "600 under earlier terms + 1200 x 1 of 6 months: 800 earned by 2026-07-31, less 600 earned before 2026-07-01 = 200";
    assert!(july.contains(wanted), "{july}");
    assert!(!july.contains("earns 100 in 2026-01"), "{july}");
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    text(value, field)
}

#[test]
fn every_check_is_named_and_holds() {
    let text = out(&history(&["books", "verify"]));
    for (name, _) in accrue::revenue::checks::ALL {
        assert!(text.contains(&format!("ok    {name}\n")), "{name}: {text}");
    }
    assert!(
        text.ends_with("4 deals, 62 entries, 0 facts without effect\n"),
        "{text}"
    );
    let document: Value = serde_json::from_str(&out(&history(&["books", "verify", "--format", "json"]))).expect("JSON");
    assert_eq!(
        document["checks"].as_array().expect("checks").len(),
        accrue::revenue::checks::ALL.len()
    );
}

#[test]
fn a_close_prints_the_hash_that_the_period_keeps() {
    let dir = tempfile::tempdir().expect("folder");
    let facts = std::fs::read_to_string(HISTORY).expect("history");
    let mut lines: Vec<String> = facts.lines().map(str::to_owned).collect();
    let open = write(dir.path(), "open.jsonl", &lines);
    let on = |events: &str, command: &[&str]| {
        let given = ["--events", events, "--topology", TOPOLOGY, "--format", "json"];
        [command, given.as_slice()]
            .concat()
            .iter()
            .map(|it| (*it).to_owned())
            .collect::<Vec<String>>()
    };
    let json = |arguments: Vec<String>| -> Value {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        serde_json::from_str(&out(&arguments)).expect("JSON")
    };
    let close = ["books", "close", "--period", "2026-05", "--at", "2026-07-05T08:00:00Z"];
    let said = json(on(&open, &close));
    assert_eq!(said["fact"]["event_id"], "accrue-close-2026-05-1");
    assert_eq!(said["fact"]["type"], "period.closed");
    assert!(said["entries"].as_u64() > Some(0), "{said}");

    lines.push(said["fact"].to_string());
    // What comes late goes elsewhere.
    let late = json!({"deal_id": "D-KWD", "amount": "10", "reason": "goodwill", "date": "2026-05-10"});
    lines.push(event("late-credit", "credit.granted", "2026-07-06T00:00:00Z", late));
    let closed = write(dir.path(), "closed.jsonl", &lines);
    let hash = json(on(&closed, &["books", "hash", "--period", "2026-05"]));
    assert_eq!((&hash["sha256"], &hash["state"]), (&said["sha256"], &json!("closed")));
    let again = json(on(&closed, &close));
    assert_eq!(again["state"], "was closed before, nothing said");
    assert_eq!(again["sha256"], said["sha256"]);
    // An open period takes the late credit, so its hash is another one.
    lines.remove(lines.len() - 2);
    let still_open = write(dir.path(), "still_open.jsonl", &lines);
    let moved = json(on(&still_open, &["books", "hash", "--period", "2026-05"]));
    assert_ne!(moved["sha256"], said["sha256"]);
}

#[test]
fn a_close_waits_for_the_end_of_the_period_and_for_rates() {
    let dir = tempfile::tempdir().expect("folder");
    let facts = std::fs::read_to_string(HISTORY).expect("history");
    let mut lines: Vec<String> = facts.lines().map(str::to_owned).collect();
    let mut pounds = one_deal(1200);
    pounds["deal_id"] = "D-GBP".into();
    pounds["currency"] = "GBP".into();
    pounds["contract_start"] = "2026-05-01".into();
    lines.push(event("gbp-1", "deal.closed", "2026-06-20T00:00:00Z", pounds));
    let events = write(dir.path(), "parked.jsonl", &lines);
    let close = |period: &'static str| {
        let at = [
            "--at",
            "2026-07-05T08:00:00Z",
            "--events",
            &events,
            "--topology",
            TOPOLOGY,
        ];
        [&["books", "close", "--period", period], at.as_slice()].concat()
    };
    let (code, errors) = fails(&close("2026-07"));
    assert_eq!(code, 1);
    assert!(
        errors.contains("2026-07 ends on 2026-07-31, and the clock of acme stands at 2026-07-01"),
        "{errors}"
    );
    let (code, errors) = fails(&close("2026-05"));
    assert_eq!(code, 1);
    assert!(
        errors.contains("1 deals are parked in 2026-05") && errors.contains("D-GBP waits for GBP/USD of 2026-05-01"),
        "{errors}"
    );
    let forced = out(&[close("2026-05").as_slice(), &["--force"]].concat());
    assert!(forced.contains("accrue-close-2026-05-1"), "{forced}");
    let (code, errors) = fails(&close("FY2026-P05"));
    assert_eq!(code, 2);
    assert!(errors.contains("the tenant's calendar has no such period"), "{errors}");
}

#[test]
fn policies_are_compared_on_the_same_facts() {
    let same = [
        "books", "diff", "--policy", TOPOLOGY, "--policy", TOPOLOGY, "--events", HISTORY,
    ];
    assert_eq!(out(&same), "Differences: nothing\n");
    let daily = [
        "books", "diff", "--policy", TOPOLOGY, "--policy", DAILY, "--events", HISTORY,
    ];
    let document: Value =
        serde_json::from_str(&out(&[daily.as_slice(), &["--format", "json"]].concat())).expect("JSON");
    let rows = document["rows"].as_array().expect("rows");
    let mut sums: BTreeMap<_, Decimal> = BTreeMap::new();
    for row in rows {
        assert_eq!(
            amount(row, "base") + amount(row, "difference"),
            amount(row, "other"),
            "{row}"
        );
        assert_ne!(amount(row, "difference"), Decimal::ZERO, "{row}");
        *sums.entry((scope(row), text(row, "period"))).or_default() += amount(row, "difference");
    }
    assert!(sums.values().all(Decimal::is_zero), "{sums:?}");
    // February of D-KWD: a twelfth against 28 of 365 days of 3000.123.
    let february = rows.iter().find(|row| {
        (
            text(row, "deal_id"),
            text(row, "period"),
            text(row, "account"),
            text(row, "basis"),
        ) == ("D-KWD", "2026-02", "4000 Subscriptions", "contract")
    });
    let february = february.expect("a difference");
    assert_eq!(
        (text(february, "base"), text(february, "other")),
        ("-250.011", "-230.146")
    );
    let (code, errors) = fails(&["books", "diff", "--policy", TOPOLOGY, "--events", HISTORY]);
    assert_eq!(
        (code, errors.contains("give --policy FILE twice")),
        (2, true),
        "{errors}"
    );
}

#[test]
fn the_csv_export_is_the_journal() {
    let csv = out(&history(&["books", "export", "--format", "csv"]));
    let replayed: Value = serde_json::from_str(&out(&history(&["books", "replay"]))).expect("JSON");
    let journals = replayed["journals"].as_array().expect("journals");
    let lines: usize = journals
        .iter()
        .map(|it| it["lines"].as_array().expect("lines").len())
        .sum();
    assert_eq!(csv.lines().count(), 1 + lines);
    let ids: BTreeSet<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let wanted: BTreeSet<&str> = journals.iter().map(|it| text(it, "entry_id")).collect();
    assert_eq!(ids, wanted);
    assert!(csv.contains(",\"2400, deferred; [net]\",contract_liability,"), "{csv}");
}

#[test]
fn of_several_tenants_one_has_to_be_named() {
    let dir = tempfile::tempdir().expect("folder");
    let deal = event("e1", "deal.closed", "2025-12-20T00:00:00Z", one_deal(1200));
    let events = write(dir.path(), "two.jsonl", &[deal.clone(), deal.replace("acme", "other")]);
    let (code, errors) = fails(&["books", "export", "--format", "csv", "--events", &events]);
    assert_eq!(code, 2);
    assert!(errors.contains("give --tenant, one of acme, other"), "{errors}");
    let (code, errors) = fails(&["deal", "show", "D-1", "--events", &events]);
    assert_eq!((code, errors.contains("give --tenant")), (2, true), "{errors}");
    let (code, errors) = fails(&["books", "report", "arr", "--events", &events]);
    assert_eq!((code, errors.contains("give --as-of DATE")), (2, true), "{errors}");
    let shown = out(&["deal", "show", "D-1", "--tenant", "other", "--events", &events]);
    assert!(
        shown.starts_with("Deal D-1 of other: active, version 1, before any clock tick"),
        "{shown}"
    );
}

#[test]
fn a_reader_that_stops_reading_ends_a_command_quietly() {
    let commands: [&[&str]; 8] = [
        &["check"],
        &["describe"],
        &["books", "replay", "--events", HISTORY],
        &["books", "report", "waterfall", "--events", HISTORY],
        &["books", "export", "--format", "beancount", "--events", HISTORY],
        &["books", "verify", "--events", HISTORY],
        &["deal", "show", "D-EUR", "--events", HISTORY],
        &["deal", "explain", "D-EUR", "--events", HISTORY],
    ];
    for command in commands {
        let mut child = accrue(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("accrue");
        // The reader is gone before the first byte.
        drop(child.stdout.take());
        let out = child.wait_with_output().expect("accrue");
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success() && errors.is_empty(),
            "{command:?}: {:?} {errors}",
            out.status
        );
    }
}

#[test]
fn on_a_log_a_close_reaches_the_stream_processor() {
    let dir = tempfile::tempdir().expect("folder");
    let data = dir.path().display().to_string();
    out(&["quickstart", "--books-only", "--dir", &data]);
    let on_log = |arguments: &[&str]| {
        let out = accrue(arguments)
            .env("ACCRUE_DATA_DIR", &data)
            .output()
            .expect("accrue");
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(out.stdout).expect("text")
    };
    let close = [
        "books",
        "close",
        "--period",
        "2026-12",
        "--at",
        "2027-01-05T00:00:00Z",
        "--format",
        "json",
    ];
    let said: Value = serde_json::from_str(&on_log(&close)).expect("JSON");
    assert_eq!(said["state"], "close said to reference.facts");
    let hash = ["books", "hash", "--period", "2026-12", "--format", "json"];
    let before: Value = serde_json::from_str(&on_log(&hash)).expect("JSON");
    assert_eq!(before["state"], "open", "said, but not yet processed");
    let resumed = out(&["quickstart", "--books-only", "--dir", &data]);
    let after: Value = serde_json::from_str(&on_log(&hash)).expect("JSON");
    assert_eq!((&after["state"], &after["sha256"]), (&json!("closed"), &said["sha256"]));
    // The quick start prints what the report prints.
    let table = on_log(&["books", "report", "waterfall"]);
    let line = table.lines().find(|line| line.contains("2026-12")).expect("a line");
    assert!(resumed.contains(line), "{line}");
}

/// An installation of its own on the embedded log, which takes facts alone.
struct Installation {
    dir: tempfile::TempDir,
}

impl Installation {
    fn new() -> Installation {
        let dir = tempfile::tempdir().expect("folder");
        let data = dir.path().join("data");
        let data = data.display();
        let source = |name: &str, topic: &str| {
            format!("[[source]]\nname = \"{name}\"\ntopic = \"{topic}\"\nformat = \"canonical-json\"\n")
        };
        let text = format!(
            "log = {{ kind = \"embedded\", dir = \"{data}/log\", sync = false }}\n\
             registry = {{ kind = \"embedded\", dir = \"{data}/registry\" }}\n\
             state = {{ dir = \"{data}/state\" }}\nruntime = {{ partitions = 3 }}\n\
             http = {{ listen = \"127.0.0.1:9\" }}\n{}{}\
             [tenants.acme]\nfunctional_currency = \"USD\"\ntime_zone = \"Asia/Tokyo\"\n",
            source("deal-events", "deal.events"),
            source("reference-facts", "reference.facts"),
        );
        std::fs::write(dir.path().join("topology.toml"), text).expect("file");
        Installation { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn out(&self, arguments: &[&str]) -> String {
        out(&[arguments, &["--topology", &self.path("topology.toml")]].concat())
    }

    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        fails(&[arguments, &["--topology", &self.path("topology.toml")]].concat())
    }

    fn post(&self, events: &[String]) {
        let events = write(self.dir.path(), "posted.jsonl", events);
        self.out(&["facts", "post", &events, "--source", "deal-events"]);
    }

    /// Writes what `facts post` would refuse.
    fn write_event(&self, value: &str) {
        let log = EmbeddedLog::open(Path::new(&self.path("data/log")), false).expect("log");
        let mut producer = log.producer("test").expect("producer");
        producer.begin().expect("begin");
        let written = Outgoing {
            to: TopicPartition::new(&Topic::new("deal.events"), Partition(0)),
            timestamp: Timestamp(0),
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
        };
        producer.send(written).expect("send");
        producer.commit(&Positions::new(), None).expect("commit");
    }

    /// Runs the stream processor until nothing is left.
    fn process(&self) {
        let topology = config::load(Path::new(&self.path("topology.toml"))).expect("topology");
        let log = Arc::new(EmbeddedLog::open(Path::new(&self.path("data/log")), false).expect("log"));
        let registry = Arc::new(Embedded::open(Path::new(&self.path("data/registry"))).expect("registry"));
        let schemas = Arc::new(pipeline::schemas(&topology, registry).expect("schemas"));
        let stream = pipeline::build(&topology, schemas).expect("stream");
        let shape = stream.shape.clone();
        let config = RuntimeConfig {
            threads: 1,
            state_dir: self.path("data/state").into(),
            memory: Budget::of(16 << 20),
            commit_interval: Duration::from_millis(10),
            max_records_per_commit: 1_000,
            overlay_max_bytes: 1 << 20,
            ask_ends_after: Duration::from_millis(20),
            restore_threads: 1,
            instance: None,
            standbys: false,
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        let runtime = Runtime::start(stream, log.clone(), config, metrics).expect("start");
        let deadline = Instant::now() + Duration::from_secs(60);
        while app::lag(&shape, log.as_ref()).expect("lag") > 0 {
            assert!(!runtime.is_finished() && Instant::now() < deadline, "not drained");
            std::thread::sleep(Duration::from_millis(5));
        }
        runtime.stop();
        runtime.join().expect("clean end");
    }

    /// The entries as their topic has them.
    fn entries(&self) -> Vec<String> {
        let tail = self.out(&["topics", "tail", "journal.entries", "-n", "1000"]);
        tail.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_tick_of_the_clock_books_what_is_due_and_said_twice_is_the_same_fact() {
    let installation = Installation::new();
    installation.out(&["apply"]);
    installation.post(&[event("e1", "deal.closed", "2025-12-20T00:00:00Z", one_deal(1200))]);
    installation.process();
    assert_eq!(installation.entries(), Vec::<String>::new());
    let status = installation.out(&["status"]);
    assert!(
        status.contains("run `accrue facts tick` now, and every day"),
        "{status}"
    );

    let tick = ["facts", "tick", "--date", "2026-03-01"];
    assert_eq!(
        installation.out(&tick),
        "acme: accrue-tick-2026-03-01 written to reference.facts\n"
    );
    installation.process();
    let entries = installation.entries();
    // The invoice of the year, January and February.
    assert_eq!(entries.len(), 3, "{entries:?}");
    installation.out(&tick);
    installation.process();
    assert_eq!(installation.entries(), entries);
    assert!(installation.out(&["deadletters", "list"]).contains("no dead letters"));
    assert!(!installation.out(&["status"]).contains("facts tick"));

    // Its day begins where the tenant is.
    let facts = installation.out(&["topics", "tail", "reference.facts", "-n", "1"]);
    assert!(facts.contains("2026-02-28T15:00:00Z"), "{facts}");
    // Without a day it is the machine's, and one that has not begun is refused.
    installation.out(&["facts", "tick", "--tenant", "acme"]);
    let (code, errors) = installation.fails(&["facts", "tick", "--date", "2199-01-01"]);
    assert_eq!(code, 2);
    assert!(errors.contains("2199-01-01 has not begun"), "{errors}");
}

#[test]
fn where_nothing_is_nothing_is_called_done_and_nothing_is_made() {
    let installation = Installation::new();
    for command in [
        ["status"].as_slice(),
        &["deliveries", "list"],
        &["deadletters", "list"],
        &["topics", "list"],
        &["offsets", "show"],
        &["books", "report", "rpo"],
        &["deal", "show", "D-1"],
        &["facts", "tick"],
    ] {
        let (code, errors) = installation.fails(command);
        assert_eq!(code, 1, "{command:?}");
        assert!(errors.contains("there is no log in "), "{command:?}: {errors}");
        assert!(!Path::new(&installation.path("data")).exists(), "{command:?}");
    }
    let plan = installation.out(&["apply", "--dry-run"]);
    assert!(
        plan.contains("create: 3 partitions") && plan.contains("nothing was changed"),
        "{plan}"
    );
    assert!(!Path::new(&installation.path("data")).exists());
    // A log without topics.
    drop(EmbeddedLog::open(Path::new(&installation.path("data/log")), false).expect("log"));
    let (code, errors) = installation.fails(&["status"]);
    assert_eq!(code, 1);
    assert!(errors.contains("topics are missing: accrue-"), "{errors}");
    let (code, errors) = installation.fails(&["deliveries", "list"]);
    assert_eq!(code, 1);
    assert!(errors.contains("there is no topic journal.entries"), "{errors}");
}

#[test]
fn a_close_waits_for_what_is_not_processed_and_said_twice_is_said_once() {
    let installation = Installation::new();
    installation.out(&["apply"]);
    installation.post(&[event("e1", "deal.closed", "2025-12-20T00:00:00Z", one_deal(1200))]);
    installation.out(&["facts", "tick", "--date", "2026-03-01"]);
    let close = ["books", "close", "--period", "2026-02"];
    let (code, errors) = installation.fails(&close);
    assert_eq!(code, 1);
    assert!(
        errors.contains("2 records wait to be processed and may change 2026-02") && errors.contains("accrue status"),
        "{errors}"
    );
    installation.process();
    let said = installation.out(&close);
    assert!(
        said.starts_with("acme 2026-02 close said to reference.facts: 1 entries, sha256 ")
            && said.contains("`accrue books hash --period 2026-02` shows it closed"),
        "{said}"
    );
    let (_, errors) = installation.fails(&close);
    assert!(errors.contains("1 records wait to be processed"), "{errors}");
    // At another moment it would be another fact of the same id.
    let again = installation.out(&[close.as_slice(), &["--force"]].concat());
    assert!(
        again.contains("close was said to reference.facts before and waits to be processed, nothing said"),
        "{again}"
    );
    installation.process();
    assert!(installation.out(&["deadletters", "list"]).contains("no dead letters"));
    let hash = installation.out(&["books", "hash", "--period", "2026-02"]);
    let sealed = said.lines().next().and_then(|line| line.split("sha256 ").nth(1));
    assert_eq!(hash.trim().split("closed: 1 entries, sha256 ").nth(1), sealed, "{hash}");
}

#[test]
fn a_deal_of_which_only_dead_letters_tell_leads_to_them() {
    let installation = Installation::new();
    installation.out(&["apply"]);
    let wrong = event("e1", "deal.close", "2025-12-20T00:00:00Z", one_deal(1200));
    installation.write_event(&wrong);
    installation.process();
    let (code, errors) = installation.fails(&["deal", "show", "D-1"]);
    assert_eq!(code, 1);
    assert!(
        errors.contains("no fact tells of deal D-1, but 1 dead letters do: `accrue deadletters list --deal D-1`"),
        "{errors}"
    );
    let letters = installation.out(&["deadletters", "list", "--deal", "D-1"]);
    assert!(
        letters.contains("did you mean `deal.closed`?; the types are deal.closed, deal.amended, "),
        "{letters}"
    );
    assert!(
        installation
            .out(&["deadletters", "list", "--deal", "D-11"])
            .contains("no dead letters")
    );
    let (code, errors) = installation.fails(&["deal", "show", "D-11"]);
    assert_eq!(code, 1);
    assert!(
        errors.contains("no fact tells of deal D-11; no dead letter does either"),
        "{errors}"
    );
}
