//! Document to body, for Tryton. Pure.
//!
//! The body is what `account.move.create` or `account.invoice.create` is given, with codes where Tryton wants its own ids
//! (accounts, party, journal, currencies); [`super::resolve`] puts those in when it is sent.
//! Source: the models `account.move`, `account.move.line`, `account.invoice` and `account.invoice.line` of release 8.2.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::rpc;
use crate::sink::accounting::voucher::{Posting, Sale, Voucher, postings, reference, voucher};
use crate::sink::destination::{Plan, Refusal};
use crate::sink::document::{Document, Form, Party};

/// What is sent. An invoice in another currency than the company's becomes a move: Tryton would convert the invoice at a
/// rate of its own table, and a move takes both amounts as they are.
///
/// # Errors
/// Unbalanced, or an invoice without a customer.
pub fn plan(document: &Document) -> Result<Plan, Refusal> {
    let reference = reference(document)?;
    let foreign = document.currency != document.functional_currency;
    let (form, body) = match voucher(document)? {
        Voucher::Journal(postings) => (Form::Journal, a_move(document, &postings, &reference)),
        Voucher::Invoice(_) | Voucher::CreditNote(_) if foreign => {
            (Form::Journal, a_move(document, &postings(document)?, &reference))
        }
        Voucher::Invoice(sale) => (Form::Invoice, invoice(document, &sale, Decimal::ONE, &reference)),
        Voucher::CreditNote(sale) => (Form::CreditNote, invoice(document, &sale, -Decimal::ONE, &reference)),
    };
    Ok(Plan {
        form,
        reference,
        body: body.to_string().into_bytes(),
    })
}

fn a_move(document: &Document, postings: &[Posting], reference: &str) -> Value {
    let line = |posting: &Posting| {
        let mut line = json!({
            "account": posting.line.account,
            "debit": rpc::amount(posting.amount.max(Decimal::ZERO), document.functional_currency),
            "credit": rpc::amount((-posting.amount).max(Decimal::ZERO), document.functional_currency),
            "description": document.narration,
        });
        if document.currency != document.functional_currency {
            line["second_currency"] = json!(document.currency.code());
            line["amount_second_currency"] = rpc::amount(posting.original, document.currency);
        }
        line
    };
    json!({
        "party": document.customer.as_ref().map(party),
        "currency": document.functional_currency.code(),
        "date": rpc::day(document.date),
        // The one text that is searched for: nothing but the key.
        "description": reference,
        "lines": postings.iter().map(line).collect::<Vec<_>>(),
    })
}

/// A credit note is an invoice of negative quantities, to Tryton.
fn invoice(document: &Document, sale: &Sale, quantity: Decimal, reference: &str) -> Value {
    let lines: Vec<Value> = sale
        .lines
        .iter()
        .map(|part| {
            json!({
                "account": part.line.account,
                "quantity": quantity.normalize().to_string(),
                "unit_price": rpc::amount(part.amount, document.currency),
                "description": document.narration,
            })
        })
        .collect();
    json!({
        "party": party(sale.customer),
        "currency": document.currency.code(),
        "account": sale.receivable,
        // The day of the books. The day of issue is left to Tryton, which numbers invoices in the order of those days and
        // would refuse one of an earlier day than its last.
        "accounting_date": rpc::day(document.date),
        "reference": reference,
        "description": document.narration,
        "lines": lines,
    })
}

fn party(party: &Party) -> Value {
    let name = match party.name.trim() {
        "" => party.id.as_str(),
        name => name,
    };
    json!({ "code": party.id.as_str(), "name": name })
}
