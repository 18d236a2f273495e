//! A document as text: hledger, Beancount, or rows of CSV.
//!
//! How one line is written is in [`codec::ledger`](crate::codec::ledger). Invariant: the same document gives the same
//! bytes, and what is not valid in the format is refused, with what to change. Sources: hledger 1.x manual ("Account
//! names", "Comments"); Beancount 2 language syntax.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::codec::ledger::{beancount_posting, csv_amounts, csv_row, hledger_commodity, hledger_postings, quoted};
use crate::config::{Accounts, FileFormat};
use crate::sink::destination::Refusal;
use crate::sink::document::Document;

/// The file of a document.
///
/// # Errors
/// An account's name that the format does not know.
pub fn body(format: FileFormat, document: &Document) -> Result<String, Refusal> {
    let valid: fn(&str) -> bool = match format {
        FileFormat::Csv => |_| true,
        FileFormat::Hledger => is_hledger_account,
        FileFormat::Beancount => is_beancount_account,
    };
    if let Some(line) = document.lines.iter().find(|line| !valid(&line.account)) {
        return Err(Refusal {
            code: "account_not_valid".to_owned(),
            words: String::new(),
            advice: format!(
                "{:?} (for {}) is no account name in this format; write one such as \"Assets:Receivable\" in the sink's accounts",
                line.account,
                line.role.name(),
            ),
        });
    }
    Ok(match format {
        FileFormat::Csv => csv(document),
        FileFormat::Hledger => hledger(document),
        FileFormat::Beancount => beancount(document),
    })
}

pub fn extension(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Csv => "csv",
        FileFormat::Hledger => "journal",
        FileFormat::Beancount => "beancount",
    }
}

/// The accounts that a ledger file declares.
pub fn declared(format: FileFormat, ledger: &str) -> BTreeSet<&str> {
    let name = |line| match format {
        FileFormat::Csv => None,
        FileFormat::Hledger => str::strip_prefix(line, "account "),
        FileFormat::Beancount => str::strip_prefix(line, "1970-01-01 open "),
    };
    ledger.lines().filter_map(name).collect()
}

/// The file that declares the accounts of a folder and includes its documents. `before` are those it declared: documents
/// that were written keep the accounts they had, whatever is mapped today.
pub fn ledger(format: FileFormat, accounts: &Accounts, before: &BTreeSet<&str>) -> Option<String> {
    let extension = extension(format);
    let mut names: BTreeSet<&str> = accounts.names().collect();
    names.extend(before);
    let mut text =
        String::from("; Written by accrue. Each document is a file of its own; manifest.jsonl lists them.\n");
    match format {
        FileFormat::Csv => return None,
        FileFormat::Hledger => {
            for name in names.into_iter().filter(|name| is_hledger_account(name)) {
                let _ = writeln!(text, "account {name}");
            }
            let _ = writeln!(text, "include documents/*.{extension}");
        }
        FileFormat::Beancount => {
            for name in names.into_iter().filter(|name| is_beancount_account(name)) {
                let _ = writeln!(text, "1970-01-01 open {name}");
            }
            let _ = writeln!(text, "include \"documents/*.{extension}\"");
        }
    }
    Some(text)
}

fn hledger(document: &Document) -> String {
    let (own, functional) = (document.currency, document.functional_currency);
    let mut text = String::new();
    for currency in BTreeSet::from([own, functional]) {
        let _ = writeln!(text, "{}", hledger_commodity(currency));
    }
    let _ = writeln!(
        text,
        "\n{} * ({}) {}",
        document.date,
        document.key,
        plain(&document.narration)
    );
    for (name, value) in about(document) {
        let _ = writeln!(text, "    ; {name}: {}", plain(&value));
    }
    for line in &document.lines {
        text += &hledger_postings(&line.account, line, own, functional);
    }
    text
}

fn beancount(document: &Document) -> String {
    let mut text = format!("{} * {}\n", document.date, quoted(&document.narration));
    let _ = writeln!(text, "  key: {}", quoted(document.key.as_str()));
    for (name, value) in about(document) {
        let _ = writeln!(text, "  {name}: {}", quoted(&value));
    }
    for line in &document.lines {
        text += &beancount_posting(&line.account, line, document.currency, document.functional_currency);
    }
    text
}

const CSV_COLUMNS: [&str; 18] = [
    "key",
    "line",
    "form",
    "tenant_id",
    "deal_id",
    "customer_id",
    "customer_name",
    "date",
    "period",
    "narration",
    "account",
    "role",
    "currency",
    "debit",
    "credit",
    "functional_currency",
    "functional_debit",
    "functional_credit",
];

fn csv(document: &Document) -> String {
    let mut text = csv_row(CSV_COLUMNS);
    for (n, line) in document.lines.iter().enumerate() {
        let customer = document.customer.as_ref();
        let cells = [
            document.key.to_string(),
            (n + 1).to_string(),
            document.form.as_str().to_owned(),
            document.tenant.to_string(),
            document.deal.as_ref().map_or_else(String::new, ToString::to_string),
            customer.map_or_else(String::new, |it| it.id.to_string()),
            customer.map_or_else(String::new, |it| it.name.clone()),
            document.date.to_string(),
            document.period.to_string(),
            document.narration.clone(),
            line.account.clone(),
            line.role.name().into_owned(),
        ];
        let amounts = csv_amounts(line, document.currency, document.functional_currency);
        text += &csv_row(cells.into_iter().chain(amounts));
    }
    text
}

/// What a document is about, by name.
fn about(document: &Document) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("form", document.form.as_str().to_owned()),
        ("tenant", document.tenant.to_string()),
    ];
    all.extend(document.deal.iter().map(|deal| ("deal", deal.to_string())));
    all.extend(document.customer.iter().map(|it| ("customer", it.id.to_string())));
    all.push(("period", document.period.to_string()));
    let entries: Vec<&str> = document.entries.iter().map(|entry| entry.as_str()).collect();
    all.push(("entries", entries.join(" ")));
    all
}

/// A text that ends no comment, code or tag of hledger's: such characters become spaces.
fn plain(text: &str) -> String {
    let kept = |c: char| match c.is_control() || matches!(c, ';' | ',' | '|' | '(' | ')' | '[' | ']') {
        true => ' ',
        false => c,
    };
    text.chars().map(kept).collect()
}

fn is_hledger_account(name: &str) -> bool {
    !name.contains("  ") && !name.contains([';', '(', ')', '[', ']', '*', '!']) && !name.split(':').any(str::is_empty)
}

fn is_beancount_account(name: &str) -> bool {
    let mut parts = name.split(':');
    let root = parts.next().unwrap_or_default();
    let first = |part: &str| part.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit());
    let rest = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let parts: Vec<&str> = parts.collect();
    ["Assets", "Liabilities", "Equity", "Income", "Expenses"].contains(&root)
        && !parts.is_empty()
        && parts.iter().all(|part| first(part) && rest(part))
}
