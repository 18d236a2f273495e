//! Document to body, for NetSuite. Pure.
//!
//! The plan holds two records: the customer, which is made where there is none of its external id, and the document.
//! Accounts and items are internal ids.
//! Source: the REST API browser's `journalEntry`, `invoice` and `creditMemo`.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::revenue::ledger::Role;
use crate::sink::accounting::voucher::{
    Part, Posting, Sale, Voucher, exact, number, rate, reference, refuse, shorten, voucher,
};
use crate::sink::destination::{Plan, Refusal};
use crate::sink::document::{Document, Form};

const RATE_DECIMALS: u32 = 8;
/// The longest memo.
const MEMO_MAX: usize = 999;

/// What is sent.
///
/// # Errors
/// NetSuite could never take it: no customer on a receivable, an account without an item, a rate that does not come out.
pub fn plan(document: &Document, subsidiary: Option<&str>, items: &BTreeMap<String, String>) -> Result<Plan, Refusal> {
    let key = reference(document)?;
    let (form, mut body) = match voucher(document)? {
        Voucher::Journal(postings) => (Form::Journal, journal(document, &postings)?),
        Voucher::Invoice(sale) => (Form::Invoice, sales_document(document, &sale, items)?),
        Voucher::CreditNote(sale) => (Form::CreditNote, sales_document(document, &sale, items)?),
    };
    body["externalId"] = json!(key);
    body["tranDate"] = json!(document.date.to_string());
    body["memo"] = json!(shorten(&document.narration, MEMO_MAX));
    if let Some(subsidiary) = subsidiary {
        body["subsidiary"] = json!({ "id": subsidiary });
    }
    Ok(Plan {
        form,
        reference: key,
        body: json!({ "customer": customer(document, subsidiary), "record": body })
            .to_string()
            .into_bytes(),
    })
}

fn journal(document: &Document, postings: &[Posting]) -> Result<Value, Refusal> {
    let line = |posting: &Posting| {
        let side = if posting.amount > Decimal::ZERO {
            "debit"
        } else {
            "credit"
        };
        let mut line = json!({
            "account": { "id": posting.line.account },
            side: number(posting.amount.abs(), document.functional_currency),
            "memo": posting.line.role.name(),
        });
        if posting.line.role == Role::AccountsReceivable {
            let customer = document.customer.as_ref().ok_or_else(|| {
                let words = format!("{} moves the receivable and names no customer", document.key);
                refuse(
                    "no_customer",
                    words,
                    "NetSuite keeps receivables by customer: give the deal one in the CRM, or post by entry",
                )
            })?;
            line["entity"] = json!({ "externalId": customer.id.as_str() });
        }
        Ok(line)
    };
    let lines = postings.iter().map(line).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(json!({ "line": { "items": lines } }))
}

fn sales_document(document: &Document, sale: &Sale, items: &BTreeMap<String, String>) -> Result<Value, Refusal> {
    let line = |part: &Part| {
        let account = &part.line.account;
        let item = items.get(account).ok_or_else(|| {
            let words = format!("no item is configured for account {account}");
            refuse("no_item", words, &format!("add to [sinks.NAME.netsuite.items]: {account:?} = \"the internal id of a service item on this account\""))
        })?;
        Ok(json!({
            "item": { "id": item },
            "quantity": 1,
            "rate": number(part.amount, document.currency),
            "amount": number(part.amount, document.currency),
            "description": part.line.role.name(),
        }))
    };
    let lines = sale.lines.iter().map(line).collect::<Result<Vec<_>, Refusal>>()?;
    let mut body = json!({
        "entity": { "externalId": sale.customer.id.as_str() },
        "account": { "id": sale.receivable },
        "item": { "items": lines },
    });
    if let Some(rate) = rate(document, sale, RATE_DECIMALS)? {
        body["currency"] = json!({ "refName": document.currency.code() });
        body["exchangeRate"] = exact(rate);
    }
    Ok(body)
}

fn customer(document: &Document, subsidiary: Option<&str>) -> Option<Value> {
    let customer = document.customer.as_ref()?;
    let name = match customer.name.trim() {
        "" => customer.id.as_str(),
        name => name,
    };
    let mut body = json!({ "externalId": customer.id.as_str(), "companyName": shorten(name, 83), "isPerson": false });
    if let Some(subsidiary) = subsidiary {
        body["subsidiary"] = json!({ "id": subsidiary });
    }
    Some(body)
}
