//! Answer to outcome, for Tryton. Pure.
//!
//! Source: `account/message.xml`, `account_invoice/message.xml` and `account_deposit/message.xml` of release 8.2. Tryton
//! gives no codes, only texts in the user's language: the user of the sink should be English, and a text that is not
//! known is refused as it stands.

use rust_decimal::Decimal;
use serde_json::Value;

use super::rpc::{Fault, read_amount, read_day};
use crate::sink::accounting::http::Reply;
use crate::sink::accounting::judge::{Sign, compared, in_state, only, refused, told};
use crate::sink::accounting::voucher::Content;
use crate::sink::destination::{Found, Outcome, Plan};
use crate::sink::document::Form;

/// What Tryton lacks, by the kind of a fault; the code for it; what to do.
const MISSING: &[(&str, &str, &str)] = &[
    (
        "missing_account",
        "unknown_account",
        "correct the code in [sinks.NAME.accounts], or add the account to Tryton's chart",
    ),
    (
        "missing_currency",
        "unknown_currency",
        "activate the currency in Tryton",
    ),
    (
        "missing_company_currency",
        "wrong_company",
        "the tenant's functional_currency and the company's currency must be the same: check company in [sinks.NAME.tryton]",
    ),
    (
        "missing_journal",
        "unknown_journal",
        "correct journal in [sinks.NAME.tryton]",
    ),
    (
        "missing_company",
        "unknown_company",
        "correct company in [sinks.NAME.tryton]",
    ),
    (
        "missing_party",
        "no_customer",
        "give the deal a customer in the CRM, or clear \"party required\" of the account in Tryton",
    ),
    ("missing_address", "no_address", "give the party an address in Tryton"),
    (
        "missing_period_open",
        "closed_period",
        "reopen the period in Tryton, or close it in the books so that entries go to the next",
    ),
    (
        "missing_period",
        "no_period",
        "create the fiscal year and its periods in Tryton",
    ),
];

const MESSAGES: &[Sign] = &[
    (
        "closed journal-period",
        "closed_period",
        "reopen the journal's period in Tryton, or close it in the books so that entries go to the next",
    ),
    (
        "closed period",
        "closed_period",
        "reopen the period in Tryton, or close it in the books so that entries go to the next",
    ),
    (
        "closed account",
        "archived_account",
        "the account is closed in Tryton: map another one",
    ),
    (
        "must balance",
        "unbalanced",
        "Tryton counts other debits than credits: compare the currency's digits with the company's",
    ),
    (
        "must set an invoice date after",
        "invoice_out_of_order",
        "somebody dated an invoice of this series in the future, and Tryton numbers in the order of dates: wait for that day, or give the series of people another sequence",
    ),
    (
        "deposit",
        "deposit_not_enough",
        "the credit takes more from the customer's contract liability than Tryton knows of: deliver the earlier documents first",
    ),
    (
        "field \"account\" in record",
        "account_not_for_invoices",
        "Tryton's invoices credit only accounts whose type has Revenue, or Deposit (module account_deposit): mark the type, or post journals (documents = \"journals\")",
    ),
];

/// What a fault of a write means.
pub fn fault(fault: Fault) -> Outcome {
    match fault {
        Fault::Unsent(why) => Outcome::Unavailable(why),
        Fault::Throttled(retry_after) => Outcome::Throttled { retry_after },
        Fault::Unknown(why) => Outcome::Uncertain(why),
        Fault::Business { kind, words } if kind == "ConcurrencyException" => {
            Outcome::Unavailable(format!("another user changed the record at the same time: {words}"))
        }
        Fault::Business { kind, words } => match MISSING.iter().find(|(missing, _, _)| *missing == kind) {
            Some((_, code, advice)) => refused(code, &words, advice),
            None => told(&words, MESSAGES, "Tryton"),
        },
    }
}

/// What a look-up found: documents of the reference, and all their lines.
pub fn found(documents: &Value, lines: &Value, plan: &Plan, reply: &Reply) -> Found {
    let unreadable = || Found::Unknown(format!("a document of Tryton's cannot be read: {}", reply.words()));
    let (Some(documents), Some(lines)) = (documents.as_array(), lines.as_array()) else {
        return unreadable();
    };
    let name = |document: &Value| document["id"].to_string();
    let document = match only(documents, name) {
        Ok(document) => document,
        Err(found) => return found,
    };
    let planned: Value = serde_json::from_slice(&plan.body).unwrap_or_default();
    let (wanted, there) = match plan.form {
        Form::Journal => (planned_move(&planned), found_move(document, lines)),
        Form::Invoice | Form::CreditNote => (planned_invoice(&planned), found_invoice(document, lines)),
    };
    let (Some(wanted), Some(there)) = (wanted, there) else {
        return unreadable();
    };
    let found = compared(&wanted, &there, name(document), reply);
    in_state(document, &["draft", "validated"], &["posted", "paid"], found)
}

fn planned_move(planned: &Value) -> Option<Content> {
    let line = |line: &Value| {
        let account = line["account"].as_str()?;
        Some(sides(account, line, line["second_currency"].as_str()))
    };
    content(
        read_day(&planned["date"])?,
        None,
        planned["lines"].as_array()?.iter().map(line),
    )
}

fn found_move(document: &Value, lines: &[Value]) -> Option<Content> {
    let line = |line: &Value| {
        let account = line["account."]["code"].as_str()?;
        Some(sides(account, line, line["second_currency."]["code"].as_str()))
    };
    content(read_day(&document["date"])?, None, lines.iter().map(line))
}

fn planned_invoice(planned: &Value) -> Option<Content> {
    let line = |line: &Value| {
        let sign = if line["quantity"].as_str()?.starts_with('-') {
            -1
        } else {
            1
        };
        let amount = read_amount(&line["unit_price"])? * Decimal::from(sign);
        Some(vec![(line["account"].as_str()?.to_owned(), amount)])
    };
    let currency = planned["currency"].as_str().map(str::to_owned);
    content(
        read_day(&planned["accounting_date"])?,
        currency,
        planned["lines"].as_array()?.iter().map(line),
    )
}

fn found_invoice(document: &Value, lines: &[Value]) -> Option<Content> {
    let line = |line: &Value| {
        let account = line["account."]["code"].as_str()?.to_owned();
        Some(vec![(account, read_amount(&line["amount"])?)])
    };
    let currency = document["currency."]["code"].as_str().map(str::to_owned);
    content(
        read_day(&document["accounting_date"])?,
        currency,
        lines.iter().map(line),
    )
}

/// The amount of a move's line, and beside it the amount in the second currency.
fn sides(account: &str, line: &Value, second: Option<&str>) -> Vec<(String, Decimal)> {
    let side = |name: &str| read_amount(&line[name]).unwrap_or_default();
    let mut amounts = vec![(account.to_owned(), side("debit") - side("credit"))];
    if let Some(second) = second {
        amounts.push((format!("{account} in {second}"), side("amount_second_currency")));
    }
    amounts
}

type Amounts = Vec<(String, Decimal)>;

fn content(date: String, currency: Option<String>, lines: impl Iterator<Item = Option<Amounts>>) -> Option<Content> {
    let lines: Vec<Amounts> = lines.collect::<Option<_>>()?;
    Some(Content {
        date,
        currency,
        lines: lines.concat(),
    })
}
