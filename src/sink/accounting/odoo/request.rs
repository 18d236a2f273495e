//! Document to body, for Odoo. Pure.
//!
//! The body is one element of `vals_list`, with codes where Odoo wants its own ids (accounts, journal, currency, partner);
//! the client puts those in when it is sent. Source: the models `account.move` and `account.move.line`.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::sink::accounting::voucher::{Posting, Sale, Voucher, number, postings, reference, voucher};
use crate::sink::destination::{Plan, Refusal};
use crate::sink::document::{Document, Form, Party};

/// What is sent. An invoice in another currency than the company's becomes an entry: Odoo would convert the invoice at a
/// rate of its own, and an entry takes both amounts as they are.
///
/// # Errors
/// Unbalanced, or an invoice without a customer.
pub fn plan(document: &Document) -> Result<Plan, Refusal> {
    let reference = reference(document)?;
    let foreign = document.currency != document.functional_currency;
    let (form, body) = match voucher(document)? {
        Voucher::Journal(postings) => (Form::Journal, entry(document, &postings, &reference)),
        Voucher::Invoice(_) | Voucher::CreditNote(_) if foreign => {
            (Form::Journal, entry(document, &postings(document)?, &reference))
        }
        Voucher::Invoice(sale) => (Form::Invoice, invoice(document, &sale, "out_invoice", &reference)),
        Voucher::CreditNote(sale) => (Form::CreditNote, invoice(document, &sale, "out_refund", &reference)),
    };
    Ok(Plan {
        form,
        reference,
        body: body.to_string().into_bytes(),
    })
}

fn entry(document: &Document, postings: &[Posting], reference: &str) -> Value {
    let line = |posting: &Posting| {
        let functional = document.functional_currency;
        let mut line = json!({
            "account_id": posting.line.account,
            "name": document.narration,
            "debit": number(posting.amount.max(Decimal::ZERO), functional),
            "credit": number((-posting.amount).max(Decimal::ZERO), functional),
        });
        if document.currency != functional {
            line["currency_id"] = json!(document.currency.code());
            line["amount_currency"] = number(posting.original, document.currency);
        }
        line
    };
    json!({
        "move_type": "entry",
        "ref": reference,
        "date": document.date.to_string(),
        "partner_id": document.customer.as_ref().map(partner),
        "line_ids": postings.iter().map(line).collect::<Vec<_>>(),
    })
}

fn invoice(document: &Document, sale: &Sale, kind: &str, reference: &str) -> Value {
    let lines: Vec<Value> = sale
        .lines
        .iter()
        .map(|part| {
            json!({
                "account_id": part.line.account,
                "name": document.narration,
                "quantity": 1,
                "price_unit": number(part.amount, document.currency),
                "tax_ids": [],
            })
        })
        .collect();
    json!({
        "move_type": kind,
        "ref": reference,
        "date": document.date.to_string(),
        "invoice_date": document.date.to_string(),
        "partner_id": partner(sale.customer),
        "currency_id": document.currency.code(),
        "invoice_line_ids": lines,
    })
}

fn partner(party: &Party) -> Value {
    let name = match party.name.trim() {
        "" => party.id.as_str(),
        name => name,
    };
    json!({ "ref": party.id.as_str(), "name": name })
}
