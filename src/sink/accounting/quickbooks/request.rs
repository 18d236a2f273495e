//! Document to body, for QuickBooks Online. Pure.
//!
//! `CustomerRef` and `EntityRef` carry the display name; the customer's own id joins it when the body is sent.
//! Source: Intuit's schemas `JournalEntry`, `Invoice`, `CreditMemo` (v3).

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::revenue::ledger::Role;
use crate::sink::accounting::voucher::{
    Posting, Sale, Voucher, exact, number, rate, reference, refuse, shorten, voucher,
};
use crate::sink::destination::{Plan, Refusal};
use crate::sink::document::{Document, Form, Party};

/// The longest `DocNumber`. The whole key is in `PrivateNote`, by which a found document is known.
pub const DOC_NUMBER_MAX: usize = 21;
/// The longest `DisplayName`.
const NAME_MAX: usize = 100;
const RATE_DECIMALS: u32 = 6;

/// What is sent.
///
/// # Errors
/// QuickBooks could never take it: no customer on a receivable, an account without an item, a rate that does not come out.
pub fn plan(document: &Document, items: &BTreeMap<String, String>) -> Result<Plan, Refusal> {
    let key = reference(document)?;
    let (form, mut body) = match voucher(document)? {
        Voucher::Journal(postings) => (Form::Journal, journal(document, &postings)?),
        Voucher::Invoice(sale) => (Form::Invoice, sales_document(document, &sale, items)?),
        Voucher::CreditNote(sale) => (Form::CreditNote, sales_document(document, &sale, items)?),
    };
    let number = shorten(&key, DOC_NUMBER_MAX);
    body["DocNumber"] = json!(number);
    body["TxnDate"] = json!(document.date.to_string());
    body["PrivateNote"] = json!(format!("{} [{key}]", document.narration).trim_start());
    Ok(Plan {
        form,
        reference: number,
        body: body.to_string().into_bytes(),
    })
}

fn journal(document: &Document, postings: &[Posting]) -> Result<Value, Refusal> {
    let line = |posting: &Posting| {
        let kind = if posting.amount > Decimal::ZERO {
            "Debit"
        } else {
            "Credit"
        };
        let mut detail = json!({ "PostingType": kind, "AccountRef": { "value": posting.line.account } });
        if posting.line.role == Role::AccountsReceivable {
            let customer = document.customer.as_ref().ok_or_else(|| {
                let words = format!("{} moves the receivable and names no customer", document.key);
                refuse(
                    "no_customer",
                    words,
                    "QuickBooks keeps receivables by customer: give the deal one in the CRM, or post by entry",
                )
            })?;
            detail["Entity"] = json!({ "Type": "Customer", "EntityRef": { "name": display_name(customer) } });
        }
        Ok(json!({
            "DetailType": "JournalEntryLineDetail",
            "Amount": number(posting.amount.abs(), document.functional_currency),
            "Description": posting.line.role.name(),
            "JournalEntryLineDetail": detail,
        }))
    };
    let lines = postings.iter().map(line).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(json!({ "Line": lines }))
}

fn sales_document(document: &Document, sale: &Sale, items: &BTreeMap<String, String>) -> Result<Value, Refusal> {
    let line = |part: &crate::sink::accounting::voucher::Part| {
        let account = &part.line.account;
        let item = items.get(account).ok_or_else(|| {
            let words = format!("no item is configured for account {account}");
            refuse(
                "no_item",
                words,
                &format!(
                    "add to [sinks.NAME.quickbooks.items]: {account:?} = \"the id of a service item on this account\""
                ),
            )
        })?;
        Ok(json!({
            "DetailType": "SalesItemLineDetail",
            "Amount": number(part.amount, document.currency),
            "Description": format!("{} {}", document.narration, part.line.role.name()).trim_start(),
            "SalesItemLineDetail": {
                "ItemRef": { "value": item },
                "Qty": 1,
                "UnitPrice": number(part.amount, document.currency),
                "TaxCodeRef": { "value": "NON" },
            },
        }))
    };
    let lines = sale.lines.iter().map(line).collect::<Result<Vec<_>, Refusal>>()?;
    let mut body = json!({
        "CustomerRef": { "name": display_name(sale.customer) },
        "CurrencyRef": { "value": document.currency.code() },
        "Line": lines,
    });
    if let Some(rate) = rate(document, sale, RATE_DECIMALS)? {
        body["ExchangeRate"] = exact(rate);
    }
    Ok(body)
}

/// `Globex (C-1)`: unique in QuickBooks, and found by its end when the name changes. A colon would make a sub-customer.
pub fn display_name(customer: &Party) -> String {
    let end = name_end(customer.id.as_str());
    let name: String = customer
        .name
        .chars()
        .map(|c| if c == ':' || c.is_control() { ' ' } else { c })
        .collect();
    let room = NAME_MAX.saturating_sub(end.chars().count());
    format!("{}{end}", shorten(name.trim(), room)).trim_start().to_owned()
}

/// The end of a display name, from a customer's id.
pub fn name_end(id: &str) -> String {
    format!(" ({})", id.replace(':', "-"))
}
