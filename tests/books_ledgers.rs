//! The exported journal in hledger and in Beancount: both accept it, both come to our balances, and both would notice an
//! altered cent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use rust_decimal::Decimal;
use serde_json::Value;

/// Account as we call it and currency, with its balance; those that are zero are left out.
type Balances = BTreeMap<(String, String), Decimal>;

fn run(program: &str, arguments: &[&str]) -> Output {
    let done = Command::new(program).args(arguments).output();
    done.unwrap_or_else(|error| panic!("{program}: {error}; run tools/ledger-tools"))
}

fn out(program: &str, arguments: &[&str]) -> String {
    let out = run(program, arguments);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(out.stdout).expect("text")
}

fn accrue(arguments: &[&str], data: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let out = command.env("ACCRUE_DATA_DIR", data).output().expect("accrue");
    assert!(
        out.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("text")
}

/// A cell of CSV and what follows it.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = cells.len() - 1;
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => cells[last].extend(chars.next()),
            ('"', _) => quoted = !quoted,
            (',', false) => cells.push(String::new()),
            _ => cells[last].push(c),
        }
    }
    cells
}

fn put(balances: &mut Balances, account: &str, currency: &str, amount: Decimal) {
    *balances.entry((account.to_owned(), currency.to_owned())).or_default() += amount;
    balances.retain(|_, amount| !amount.is_zero());
}

/// Our own balances, from the rows of the replay document where facts are in a file, else from the report.
fn ours(report: &str, basis: &str) -> Balances {
    let document: Value = serde_json::from_str(report).expect("JSON");
    let mut balances = Balances::new();
    for row in document["rows"].as_array().expect("rows") {
        if row["basis"] == basis {
            let of = |field: &str| row[field].as_str().expect("text");
            put(
                &mut balances,
                of("account"),
                of("currency"),
                of("balance").parse().expect("amount"),
            );
        }
    }
    balances
}

/// The text of a tag, whose separators are written as in a URL.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().expect("digit"), rest.next().expect("digit")];
                let digits = std::str::from_utf8(&digits).expect("digits").to_owned();
                bytes.push(u8::from_str_radix(&digits, 16).expect("hexadecimal"));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// What hledger says; `cost` is its `-B`, the functional books.
fn hledger(file: &str, journal: &str, cost: bool) -> Balances {
    let names: BTreeMap<&str, String> = journal
        .lines()
        .filter_map(|line| line.strip_prefix("account ")?.split_once("  ; account:"))
        .map(|(name, original)| (name, decoded(original)))
        .collect();
    let mut arguments = vec!["-f", file, "balance", "--flat", "-N", "-O", "csv", "--layout=bare"];
    arguments.extend(cost.then_some("-B"));
    let mut balances = Balances::new();
    for line in out("hledger", &arguments).lines().skip(1) {
        let [account, currency, amount] = cells(line).try_into().expect("three cells");
        put(
            &mut balances,
            &names[account.as_str()],
            &currency,
            amount.parse().expect("amount"),
        );
    }
    balances
}

fn beancount(file: &str, journal: &str) -> Balances {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut lines = journal.lines();
    while let Some(line) = lines.next() {
        if let Some((_, name)) = line.split_once(" open ") {
            let original = lines
                .next()
                .and_then(|line| line.strip_prefix("  account: \"")?.strip_suffix('"'));
            names.insert(name, original.expect("the account's own name").to_owned());
        }
    }
    let query = "SELECT account, currency, sum(number) AS total GROUP BY account, currency";
    let mut balances = Balances::new();
    for line in out("bean-query", &["-f", "csv", file, query]).lines().skip(1) {
        let [account, currency, amount] = cells(line).try_into().expect("three cells");
        put(
            &mut balances,
            &names[account.trim()],
            currency.trim(),
            amount.trim().parse().expect("amount"),
        );
    }
    balances
}

/// Exports, lets both tools judge the files, and compares every balance.
fn agree(given: &[&str], data: &Path, dir: &Path) -> (String, String) {
    let command = |command: &[&str]| accrue(&[command, given].concat(), data);
    let report = command(&["books", "report", "balances", "--format", "json"]);
    let (contract, functional) = (ours(&report, "contract"), ours(&report, "functional"));
    assert!(contract.len() > 8 && functional.len() > 5, "{contract:?}");

    let journal = command(&["books", "export", "--format", "hledger"]);
    let file = write(dir, "books.journal", &journal);
    out("hledger", &["-f", &file, "check", "--strict"]);
    assert_eq!(hledger(&file, &journal, true), functional);
    // Beside the contracts' own amounts, hledger shows what moved in functional currency alone.
    let own = hledger(&file, &journal, false);
    let foreign = |all: &Balances| -> Balances {
        let of = all.iter().filter(|((_, currency), _)| currency != "USD");
        of.map(|(key, amount)| (key.clone(), *amount)).collect()
    };
    assert_eq!(foreign(&own), foreign(&contract));

    let beans = command(&["books", "export", "--format", "beancount"]);
    let file = write(dir, "books.beancount", &beans);
    out("bean-check", &[&file]);
    assert_eq!(beancount(&file, &beans), functional);
    (journal, beans)
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("file");
    path.display().to_string()
}

/// The journal with one cent more in the first amount of that currency, `times` times.
fn altered(journal: &str, posting: &str, times: usize) -> String {
    assert!(
        journal.matches(posting).count() >= times,
        "{posting} is not in the journal"
    );
    let (account, amount) = posting.rsplit_once("  ").expect("a posting");
    let (number, currency) = amount.split_once(' ').expect("an amount");
    let cent: Decimal = number.parse::<Decimal>().expect("number") + Decimal::new(1, 2);
    journal.replacen(posting, &format!("{account}  {cent} {currency}"), times)
}

#[test]
#[ignore = "needs hledger and bean-check: make test"]
fn both_ledgers_come_to_our_balances_in_four_currencies() {
    let dir = tempfile::tempdir().expect("folder");
    let given = [
        "--events",
        "tests/fixtures/books/history.jsonl",
        "--topology",
        "tests/fixtures/books/topology.toml",
    ];
    agree(&given, dir.path(), dir.path());
}

#[test]
#[ignore = "needs hledger and bean-check: make test"]
fn both_ledgers_come_to_our_balances_over_the_sample_history() {
    let dir = tempfile::tempdir().expect("folder");
    let data = dir.path().join("data");
    accrue(
        &["quickstart", "--books-only", "--dir", &data.display().to_string()],
        &data,
    );
    agree(&[], &data, dir.path());
}

#[test]
#[ignore = "needs hledger and bean-check: make test"]
fn an_altered_cent_does_not_pass() {
    let dir = tempfile::tempdir().expect("folder");
    let given = [
        "--events",
        "tests/fixtures/books/history.jsonl",
        "--topology",
        "tests/fixtures/books/topology.toml",
    ];
    let (journal, beans) = agree(&given, dir.path(), dir.path());
    // One side of an entry: the ledgers refuse it.
    let receivable = "Assets:1100-Receivables  600.00 USD";
    let file = write(dir.path(), "one.journal", &altered(&journal, receivable, 1));
    assert!(!run("hledger", &["-f", &file, "check", "--strict"]).status.success());
    let file = write(dir.path(), "one.beancount", &altered(&beans, receivable, 1));
    assert!(!run("bean-check", &[&file]).status.success());
    // Both sides: the entry balances, and the comparison of accounts finds it.
    let both = |text: &str| {
        let text = altered(text, receivable, 1);
        text.replacen(
            "Liabilities:2400-deferred-net  -600.00 USD",
            "Liabilities:2400-deferred-net  -600.01 USD",
            1,
        )
    };
    let (one, two) = (both(&journal), both(&beans));
    let (one_file, two_file) = (
        write(dir.path(), "two.journal", &one),
        write(dir.path(), "two.beancount", &two),
    );
    out("hledger", &["-f", &one_file, "check", "--strict"]);
    out("bean-check", &[&two_file]);
    assert_ne!(
        hledger(&one_file, &one, true),
        beancount(&write(dir.path(), "ok.beancount", &beans), &beans)
    );
    assert_ne!(
        beancount(&two_file, &two),
        hledger(&write(dir.path(), "ok.journal", &journal), &journal, true)
    );
}
