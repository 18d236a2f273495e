//! The journal for other ledgers: hledger, Beancount, CSV.
//!
//! How one posting is written is in [`ledger`](super::ledger); here is the whole journal, with its accounts.
//!
//! Invariant: two accounts of ours never share a name there, whatever characters they have; the same entries give the
//! same bytes. Deliberately absent: several tenants in one ledger, which is the caller's to choose, and imports.
//!
//! Sources: hledger 1.x manual, "Account names", "Comments"; Beancount 2 language syntax, "Accounts".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::civil::Date;
use sha2::{Digest, Sha256};

use super::ledger::{beancount_posting, csv_amounts, csv_row, hledger_commodity, hledger_postings, quoted};
use crate::revenue::journal::{EntryLine, JournalEntry};
use crate::revenue::ledger::Role;
use crate::revenue::money::Currency;

/// The journal as hledger reads it; passes `hledger check --strict`.
pub fn hledger(entries: &[JournalEntry], chart: &Chart) -> String {
    let mut text = String::from("; Written by accrue books export. `hledger balance -B` shows functional amounts.\n\n");
    let currencies: BTreeSet<Currency> = entries
        .iter()
        .flat_map(|it| [it.currency, it.functional_currency])
        .collect();
    for currency in currencies {
        let _ = writeln!(text, "{}", hledger_commodity(currency));
    }
    for (name, original) in chart.accounts() {
        let _ = writeln!(text, "account {name}  ; account:{}", tag(original));
    }
    for entry in by_day(entries) {
        let _ = writeln!(
            text,
            "\n{} * ({}) {}",
            entry.date,
            tag(entry.entry_id.as_str()),
            entry.kind.as_str()
        );
        for (name, value) in provenance(entry) {
            let _ = writeln!(text, "    ; {name}:{}", tag(&value));
        }
        for line in &entry.lines {
            let name = chart.name(line);
            text += &hledger_postings(name, line, entry.currency, entry.functional_currency);
        }
    }
    text
}

/// The journal as Beancount reads it; passes `bean-check`.
pub fn beancount(entries: &[JournalEntry], chart: &Chart) -> String {
    let mut text = String::from("; Written by accrue books export. Amounts are in functional currency.\n\n");
    let currencies: BTreeSet<Currency> = entries.iter().map(|it| it.functional_currency).collect();
    for currency in currencies {
        let _ = writeln!(text, "option \"operating_currency\" \"{currency}\"");
    }
    let mut opened: BTreeMap<&str, Date> = BTreeMap::new();
    for entry in entries {
        for line in &entry.lines {
            let day = opened.entry(chart.name(line)).or_insert(entry.date);
            *day = entry.date.min(*day);
        }
    }
    for (name, original) in chart.accounts() {
        if let Some(day) = opened.get(name) {
            let _ = writeln!(text, "{day} open {name}\n  account: {}", quoted(original));
        }
    }
    for entry in by_day(entries) {
        let (kind, deal) = (quoted(entry.kind.as_str()), quoted(entry.deal.as_str()));
        let _ = writeln!(text, "\n{} * {kind} {deal}", entry.date);
        let _ = writeln!(text, "  entry: {}", quoted(entry.entry_id.as_str()));
        let mut facts = 0;
        for (name, value) in provenance(entry) {
            // A key may be there once only.
            let name = match name {
                "fact" => {
                    facts += 1;
                    format!("fact-{facts}")
                }
                name => name.to_owned(),
            };
            let _ = writeln!(text, "  {name}: {}", quoted(&value));
        }
        for line in &entry.lines {
            let name = chart.name(line);
            text += &beancount_posting(name, line, entry.currency, entry.functional_currency);
        }
    }
    text
}

/// One row a line of an entry. `provenance` is a JSON array.
pub fn csv(entries: &[JournalEntry]) -> String {
    let mut text = csv_row(CSV_COLUMNS);
    for entry in by_day(entries) {
        let facts: Vec<&str> = entry.provenance.iter().map(|event| event.as_str()).collect();
        for (n, line) in entry.lines.iter().enumerate() {
            let amounts = csv_amounts(line, entry.currency, entry.functional_currency);
            let cells = [
                entry.entry_id.as_str(),
                &(n + 1).to_string(),
                entry.tenant.as_str(),
                entry.deal.as_str(),
                entry.contract.as_str(),
                entry.obligation.as_ref().map_or("", |id| id.as_str()),
                entry.kind.as_str(),
                &entry.date.to_string(),
                &entry.period.to_string(),
                &entry.concerns.to_string(),
                &line.account,
                &line.role.name(),
            ];
            let source = [
                entry.cause.as_str(),
                &serde_json::json!(facts).to_string(),
                entry.reverses.as_ref().map_or("", |id| id.as_str()),
            ];
            let amounts = amounts.iter().map(String::as_str);
            text += &csv_row(cells.into_iter().chain(amounts).chain(source));
        }
    }
    text
}

const CSV_COLUMNS: [&str; 21] = [
    "entry_id",
    "line",
    "tenant_id",
    "deal_id",
    "contract_id",
    "obligation_id",
    "kind",
    "date",
    "period",
    "concerns",
    "account",
    "role",
    "currency",
    "debit",
    "credit",
    "functional_currency",
    "functional_debit",
    "functional_credit",
    "cause",
    "provenance",
    "reverses",
];

/// The name of each account in other ledgers: a root by role, then the mapped account or the role, in letters, digits
/// and `-`. A mapped account that starts with a root, such as `Liabilities:Deferred Revenue`, keeps its place.
pub struct Chart(BTreeMap<Account, String>);

/// An account of ours: its root there, and its text here.
type Account = (&'static str, String);

const ROOTS: [&str; 5] = ["Assets", "Liabilities", "Equity", "Income", "Expenses"];

impl Chart {
    pub fn of(entries: &[JournalEntry]) -> Chart {
        Chart::named(entries.iter().flat_map(|entry| &entry.lines))
    }

    fn named<'a>(lines: impl Iterator<Item = &'a EntryLine>) -> Chart {
        let accounts: BTreeSet<Account> = lines.map(account).collect();
        let mut by_name: BTreeMap<String, Vec<Account>> = BTreeMap::new();
        for account in accounts {
            by_name.entry(valid(&account)).or_default().push(account);
        }
        let mut names = BTreeMap::new();
        for (name, accounts) in by_name {
            let alone = accounts.windows(2).all(|pair| pair[0].1 == pair[1].1);
            for account in accounts {
                let name = match alone {
                    true => name.clone(),
                    false => format!("{name}-{}", digest(&account.1)),
                };
                names.insert(account, name);
            }
        }
        Chart(names)
    }

    /// The name of a line's account; its root where the line is of no entry that the chart was made of.
    pub fn name(&self, line: &EntryLine) -> &str {
        self.0.get(&account(line)).map_or(root(&line.role), String::as_str)
    }

    /// Each name with the account's own text.
    fn accounts(&self) -> impl Iterator<Item = (&str, &str)> {
        let sorted: BTreeMap<&str, &str> = self
            .0
            .iter()
            .map(|((_, text), name)| (name.as_str(), text.as_str()))
            .collect();
        sorted.into_iter()
    }
}

fn account(line: &EntryLine) -> Account {
    (root(&line.role), line.account.clone())
}

fn root(role: &Role) -> &'static str {
    match role {
        Role::AccountsReceivable | Role::Cash | Role::ContractAsset => "Assets",
        Role::ContractLiability | Role::TaxPayable | Role::RefundLiability => "Liabilities",
        Role::Revenue(_) | Role::FxGainLoss => "Income",
    }
}

/// An account name that both ledgers accept; several accounts may come out as one.
fn valid((root, text): &Account) -> String {
    let parts: Vec<String> = text
        .split(':')
        .map(component)
        .filter(|component| !component.is_empty())
        .collect();
    match parts.as_slice() {
        [] => format!("{root}:X"),
        [first, _, ..] if ROOTS.contains(&first.as_str()) => parts.join(":"),
        [..] => format!("{root}:{}", parts.join(":")),
    }
}

/// Letters and digits, with a `-` for each run of anything else; first an upper case letter or a digit.
fn component(text: &str) -> String {
    // Letters of Latin-1, of which both ledgers are sure.
    let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='þ');
    let words: Vec<&str> = text.split(|c| !kept(c)).filter(|word| !word.is_empty()).collect();
    let joined = words.join("-");
    let mut chars = joined.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    first + chars.as_str()
}

fn digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Entries by day, then tenant and deal; within them as they come.
fn by_day(entries: &[JournalEntry]) -> Vec<&JournalEntry> {
    let mut sorted: Vec<&JournalEntry> = entries.iter().collect();
    sorted.sort_by(|a, b| (a.date, &a.tenant, &a.deal).cmp(&(b.date, &b.tenant, &b.deal)));
    sorted
}

/// Where an entry comes from, by name; `fact` once for each.
fn provenance(entry: &JournalEntry) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("tenant", entry.tenant.to_string()),
        ("deal", entry.deal.to_string()),
        ("contract", entry.contract.to_string()),
    ];
    all.extend(entry.obligation.iter().map(|id| ("obligation", id.to_string())));
    all.push(("period", entry.period.to_string()));
    if entry.concerns != entry.period {
        all.push(("concerns", entry.concerns.to_string()));
    }
    all.push(("cause", entry.cause.to_string()));
    all.extend(entry.provenance.iter().map(|event| ("fact", event.to_string())));
    all.extend(entry.reverses.iter().map(|id| ("reverses", id.to_string())));
    all
}

/// The value of an hledger tag, which ends at a comma or a line's end; brackets could be read as a date, a bracket
/// as the end of a code. Such characters are written as in a URL.
fn tag(text: &str) -> String {
    let mut value = String::new();
    for c in text.chars() {
        if c.is_control() || matches!(c, ',' | '[' | ']' | '(' | ')' | ';' | '%') {
            c.to_string().bytes().for_each(|byte| {
                let _ = write!(value, "%{byte:02X}");
            });
        } else {
            value.push(c);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn names(accounts: &[(Role, &str)]) -> Vec<String> {
        let line = |(role, account): &(Role, &str)| EntryLine {
            account: (*account).to_owned(),
            role: role.clone(),
            debit: Decimal::ZERO,
            credit: Decimal::ZERO,
            functional_debit: Decimal::ZERO,
            functional_credit: Decimal::ZERO,
        };
        let lines: Vec<EntryLine> = accounts.iter().map(line).collect();
        let chart = Chart::named(lines.iter());
        lines.iter().map(|line| chart.name(line).to_owned()).collect()
    }

    #[test]
    fn accounts_get_names_that_both_ledgers_accept() {
        let cash = |account| (Role::Cash, account);
        let named = names(&[
            cash("cash"),
            cash("1000"),
            cash("Liabilities:Deferred Revenue"),
            cash("Liabilities"),
            cash("\u{fc}ber konto"),
            cash("\u{4f1a}\u{8a08}"),
            (Role::FxGainLoss, "7000: FX"),
        ]);
        let wanted = [
            "Assets:Cash",
            "Assets:1000",
            "Liabilities:Deferred-Revenue",
            "Assets:Liabilities",
            "Assets:\u{dc}ber-konto",
            "Assets:X",
            "Income:7000:FX",
        ];
        assert_eq!(named, wanted);
    }

    #[test]
    fn accounts_that_would_share_a_name_are_told_apart() {
        let named = names(&[(Role::Cash, "A b"), (Role::Cash, "a-b"), (Role::Cash, "c")]);
        assert!(
            named[0].starts_with("Assets:A-b-") && named[1].starts_with("Assets:A-b-"),
            "{named:?}"
        );
        assert_ne!(named[0], named[1]);
        assert_eq!(named[2], "Assets:C");
    }

    #[test]
    fn text_of_others_cannot_break_out_of_its_place() {
        assert_eq!(tag("a, b; (c) [2026-01-01]\n"), "a%2C b%3B %28c%29 %5B2026-01-01%5D%0A");
    }
}
