//! A document as ledgers want it: functional amounts for journals, a customer and lines for invoices.
//!
//! Owns: what every system needs of a [`Document`], the amounts as JSON numbers, and the comparison of a planned document
//! with a found one.
//! Invariant: amounts are exact decimals, never floats; what cannot be said exactly is refused.
//! Absent: field names of any system.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::{Number, Value};

use crate::revenue::journal::EntryLine;
use crate::revenue::ledger::Role;
use crate::revenue::money::Currency;
use crate::sink::destination::Refusal;
use crate::sink::document::{Document, Form, Party};

/// A line of a journal: debit above zero, credit below, in the ledger's own currency.
#[derive(Clone, Debug, PartialEq)]
pub struct Posting<'a> {
    pub line: &'a EntryLine,
    pub amount: Decimal,
    /// The same in the document's currency.
    pub original: Decimal,
}

/// The lines of a journal in functional currency; a ledger is kept in that. Lines of nothing are left out.
///
/// # Errors
/// The lines do not balance, or there are none.
pub fn postings(document: &Document) -> Result<Vec<Posting<'_>>, Refusal> {
    let lines: Vec<Posting> = document
        .lines
        .iter()
        .map(|line| Posting {
            line,
            amount: line.functional_debit - line.functional_credit,
            original: line.debit - line.credit,
        })
        .filter(|posting| !posting.amount.is_zero())
        .collect();
    let sum: Decimal = lines.iter().map(|posting| posting.amount).sum();
    if !sum.is_zero() || lines.is_empty() {
        let words = format!(
            "the lines of {} sum to {sum} {}",
            document.key, document.functional_currency
        );
        let advice = "an entry must have lines, and debits equal to credits; report this entry";
        return Err(refuse("unbalanced", words, advice));
    }
    Ok(lines)
}

/// What becomes of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Voucher<'a> {
    Journal(Vec<Posting<'a>>),
    Invoice(Sale<'a>),
    CreditNote(Sale<'a>),
}

/// Reads a document. An invoice that does not raise what the customer owes, or a credit note that does not lower it (it
/// may all go to a refund), is a journal: no ledger has an invoice of nothing.
///
/// # Errors
/// It is unbalanced or empty, or an invoice names no customer.
pub fn voucher(document: &Document) -> Result<Voucher<'_>, Refusal> {
    let postings = postings(document)?;
    let sign = match document.form {
        Form::Journal => return Ok(Voucher::Journal(postings)),
        Form::Invoice => Decimal::ONE,
        Form::CreditNote => -Decimal::ONE,
    };
    let receivables = || {
        document
            .lines
            .iter()
            .filter(|line| line.role == Role::AccountsReceivable)
    };
    let total: Decimal = receivables().map(|line| line.debit - line.credit).sum::<Decimal>() * sign;
    let functional = receivables().map(|line| line.functional_debit - line.functional_credit);
    let functional_total = functional.sum::<Decimal>() * sign;
    let Some(receivable) = receivables().next().filter(|_| total > Decimal::ZERO) else {
        return Ok(Voucher::Journal(postings));
    };
    let lines: Vec<Part> = document
        .lines
        .iter()
        .filter(|line| line.role != Role::AccountsReceivable)
        .map(|line| Part {
            line,
            amount: (line.credit - line.debit) * sign,
            functional: (line.functional_credit - line.functional_debit) * sign,
        })
        .filter(|part| !part.amount.is_zero())
        .collect();
    if lines.iter().map(|part| part.amount).sum::<Decimal>() != total {
        let words = format!(
            "the lines of {} do not sum to its total {total} {}",
            document.key, document.currency
        );
        return Err(refuse(
            "unbalanced",
            words,
            "debits must equal credits; report this entry",
        ));
    }
    let Some(customer) = &document.customer else {
        let words = format!("{} names no customer", document.key);
        let advice = "give the deal a customer in the CRM, or let this sink post journals (documents = \"journals\")";
        return Err(refuse("no_customer", words, advice));
    };
    let sale = Sale {
        customer,
        receivable: &receivable.account,
        total,
        functional_total,
        lines,
    };
    Ok(match document.form {
        Form::CreditNote => Voucher::CreditNote(sale),
        Form::Invoice | Form::Journal => Voucher::Invoice(sale),
    })
}

/// An invoice or a credit note.
#[derive(Clone, Debug, PartialEq)]
pub struct Sale<'a> {
    pub customer: &'a Party,
    /// The receivable's account.
    pub receivable: &'a str,
    /// What the customer owes more (invoice) or less (credit note), above zero, in the document's currency.
    pub total: Decimal,
    pub functional_total: Decimal,
    /// Its parts; they sum to the total.
    pub lines: Vec<Part<'a>>,
}

/// A line of an invoice or credit note, above zero where it has the sign of the total.
#[derive(Clone, Debug, PartialEq)]
pub struct Part<'a> {
    pub line: &'a EntryLine,
    pub amount: Decimal,
    pub functional: Decimal,
}

/// The units of functional currency for one of the document's, with at most `decimals`, at which every amount comes out
/// right to the cent. `None` when both are the same currency.
///
/// # Errors
/// There is no such rate: a part that was paid for in advance keeps the rate of that day, for example.
pub fn rate(document: &Document, sale: &Sale, decimals: u32) -> Result<Option<Decimal>, Refusal> {
    let functional = document.functional_currency;
    if document.currency == functional {
        return Ok(None);
    }
    let rate = exact_rate(sale.total, sale.functional_total, functional, decimals).filter(|rate| {
        let right =
            |part: &Part| part.amount.checked_mul(*rate).map(|exact| functional.round(exact)) == Some(part.functional);
        sale.lines.iter().all(right)
    });
    rate.map(Some).ok_or_else(|| {
        let total = format!("{} {}", sale.total, document.currency);
        let words = format!(
            "{total} and its lines do not become {} {functional} at one rate",
            sale.functional_total
        );
        refuse(
            "rate_not_exact",
            words,
            "the system takes one rate an invoice; post journals here (documents = \"journals\")",
        )
    })
}

fn exact_rate(total: Decimal, functional: Decimal, currency: Currency, decimals: u32) -> Option<Decimal> {
    let rate = functional.checked_div(total)?.round_dp(decimals);
    (currency.round(total.checked_mul(rate)?) == functional).then_some(rate.normalize())
}

/// A refusal of ours.
pub fn refuse(code: &str, words: String, advice: &str) -> Refusal {
    Refusal {
        code: code.to_owned(),
        words,
        advice: advice.to_owned(),
    }
}

/// An amount as a JSON number, digit for digit, with the currency's decimals.
pub fn number(amount: Decimal, currency: Currency) -> Value {
    // `Number` keeps the text it is given (serde_json's arbitrary_precision), and this text is a JSON number.
    let text = currency.format(amount);
    text.parse::<Number>().map_or(Value::String(text), Value::Number)
}

/// An exact decimal as a JSON number.
pub fn exact(amount: Decimal) -> Value {
    let text = amount.normalize().to_string();
    text.parse::<Number>().map_or(Value::String(text), Value::Number)
}

/// An amount that a system wrote as a number or a string of digits.
pub fn decimal(value: &Value) -> Option<Decimal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    text.parse().ok().or_else(|| Decimal::from_scientific(&text).ok())
}

/// What two copies of a document must agree in.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Content {
    /// As `2026-02-28`.
    pub date: String,
    /// Where the system keeps it with the document.
    pub currency: Option<String>,
    /// Account and amount, in any order; several amounts of one account count as their sum.
    pub lines: Vec<(String, Decimal)>,
}

impl Content {
    /// What differs in `found`, for a person; `None` when nothing does.
    pub fn difference(&self, found: &Content) -> Option<String> {
        let mut differences = Vec::new();
        if self.date != found.date {
            differences.push(format!("date {} instead of {}", found.date, self.date));
        }
        if let (Some(ours), Some(theirs)) = (&self.currency, &found.currency)
            && ours != theirs
        {
            differences.push(format!("currency {theirs} instead of {ours}"));
        }
        let (ours, theirs) = (self.by_account(), found.by_account());
        for account in ours
            .keys()
            .chain(theirs.keys().filter(|account| !ours.contains_key(*account)))
        {
            let amount = |of: &BTreeMap<&str, Decimal>| of.get(account).copied().unwrap_or_default().normalize();
            if amount(&ours) != amount(&theirs) {
                differences.push(format!(
                    "account {account}: {} instead of {}",
                    amount(&theirs),
                    amount(&ours)
                ));
            }
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }

    fn by_account(&self) -> BTreeMap<&str, Decimal> {
        let mut sums = BTreeMap::new();
        for (account, amount) in &self.lines {
            *sums.entry(account.as_str()).or_insert(Decimal::ZERO) += amount;
        }
        sums
    }
}

/// The key as text that any system's filter and address takes as it is.
///
/// # Errors
/// The key has other characters than letters, digits, dots, dashes, colons and underscores.
pub fn reference(document: &Document) -> Result<String, Refusal> {
    let key = document.key.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if key.chars().all(plain) {
        return Ok(key.to_owned());
    }
    let advice = "its id should be letters, digits, dots, dashes, colons or underscores; report this entry";
    Err(refuse(
        "key_not_plain",
        format!("the key {key:?} cannot be looked up"),
        advice,
    ))
}

/// At most `max` characters.
pub fn shorten(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_every_digit() {
        let usd = Currency::parse("USD").unwrap();
        let amount: Decimal = "1000000000000000.10".parse().unwrap();
        assert_eq!(number(amount, usd).to_string(), "1000000000000000.10");
        assert_eq!(number(Decimal::new(-5, 1), usd).to_string(), "-0.50");
        assert_eq!(
            decimal(&serde_json::from_str("1000000000000000.10").unwrap()),
            Some(amount)
        );
        assert_eq!(
            decimal(&serde_json::from_str("1.5e3").unwrap()),
            Some(Decimal::from(1500))
        );
        assert_eq!(
            decimal(&Value::String(" 12.30 ".to_owned())),
            Some(Decimal::new(123, 1))
        );
        assert_eq!(decimal(&Value::String("twelve".to_owned())), None);
    }

    #[test]
    fn a_rate_is_exact_or_refused() {
        let usd = Currency::parse("USD").unwrap();
        let (hundred, converted) = (Decimal::from(100), Decimal::new(10_812, 2));
        assert_eq!(exact_rate(hundred, converted, usd, 6), Some(Decimal::new(10_812, 4)));
        let large = Decimal::from(1_000_000_000u64);
        assert_eq!(exact_rate(large, Decimal::new(100_000_000_033, 2), usd, 6), None);
    }

    #[test]
    fn differences_are_named_by_account() {
        let content = |lines: &[(&str, i64)]| Content {
            date: "2026-02-28".to_owned(),
            currency: None,
            lines: lines
                .iter()
                .map(|(account, amount)| ((*account).to_owned(), Decimal::from(*amount)))
                .collect(),
        };
        let ours = content(&[("4000", -3), ("1100", 5), ("4000", -2)]);
        assert_eq!(ours.difference(&content(&[("1100", 5), ("4000", -5)])), None);
        let found = content(&[("1100", 6), ("4001", -6)]);
        let what = ours.difference(&found).unwrap();
        assert_eq!(
            what,
            "account 1100: 6 instead of 5; account 4000: 0 instead of -5; account 4001: -6 instead of 0"
        );
    }
}
