//! Document to body, for Xero. Pure.
//!
//! Source: Xero's OpenAPI description of the Accounting API (`ManualJournals`, `Invoices`, `CreditNotes`).

use jiff::ToSpan as _;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::revenue::money::Currency;
use crate::sink::accounting::voucher::{Sale, Voucher, exact, number, rate, reference, refuse, shorten, voucher};
use crate::sink::destination::{Plan, Refusal};
use crate::sink::document::{Document, Form, Party};

/// The longest contact number.
const CONTACT_NUMBER_MAX: usize = 50;
/// Decimals of `CurrencyRate`.
const RATE_DECIMALS: u32 = 6;

/// What is sent. An invoice's lines carry `LineAmount`, from which Xero finds the unit amount.
///
/// # Errors
/// Xero could never take it: no customer, a rate that does not come out, an id that is too long.
pub fn plan(document: &Document, due_days: u16) -> Result<Plan, Refusal> {
    let reference = reference(document)?;
    let (form, body) = match voucher(document)? {
        Voucher::Journal(postings) => {
            let lines: Vec<Value> = postings
                .iter()
                .map(|posting| {
                    let original = match document.currency == document.functional_currency {
                        true => String::new(),
                        false => format!(
                            " ({} {})",
                            document.currency.format(posting.original),
                            document.currency
                        ),
                    };
                    json!({
                        "LineAmount": number(posting.amount, document.functional_currency),
                        "AccountCode": posting.line.account,
                        "Description": format!("{}{original}", posting.line.role.name()),
                        "TaxType": "NONE",
                    })
                })
                .collect();
            let journal = json!({
                // The only text of a manual journal: the key at its end is how it is found.
                "Narration": format!("{} [{reference}]", document.narration).trim_start(),
                "Date": document.date.to_string(),
                "LineAmountTypes": "NoTax",
                "Status": "POSTED",
                "ShowOnCashBasisReports": false,
                "JournalLines": lines,
            });
            (Form::Journal, json!({ "ManualJournals": [journal] }))
        }
        Voucher::Invoice(sale) => {
            let due = document
                .date
                .checked_add(i64::from(due_days).days())
                .unwrap_or(document.date);
            let mut invoice = sales_document(document, &sale, "ACCREC")?;
            invoice["InvoiceNumber"] = json!(reference);
            invoice["DueDate"] = json!(due.to_string());
            (Form::Invoice, json!({ "Invoices": [invoice] }))
        }
        Voucher::CreditNote(sale) => {
            let mut note = sales_document(document, &sale, "ACCRECCREDIT")?;
            note["CreditNoteNumber"] = json!(reference);
            (Form::CreditNote, json!({ "CreditNotes": [note] }))
        }
    };
    Ok(Plan {
        form,
        reference,
        body: body.to_string().into_bytes(),
    })
}

fn sales_document(document: &Document, sale: &Sale, kind: &str) -> Result<Value, Refusal> {
    let line = |amount: Decimal, account: &str, description: String, currency: Currency| {
        json!({
            "Description": description,
            "Quantity": 1,
            "UnitAmount": number(amount, currency),
            "LineAmount": number(amount, currency),
            "AccountCode": account,
            "TaxType": "NONE",
        })
    };
    let lines = sale.lines.iter().map(|part| {
        let role = part.line.role.name();
        line(
            part.amount,
            &part.line.account,
            format!("{} {role}", document.narration).trim_start().to_owned(),
            document.currency,
        )
    });
    let mut body = json!({
        "Type": kind,
        "Contact": contact(sale.customer)?,
        "Date": document.date.to_string(),
        "LineAmountTypes": "NoTax",
        "Status": "AUTHORISED",
        "CurrencyCode": document.currency.code(),
        "LineItems": lines.collect::<Vec<_>>(),
    });
    if let Some(deal) = &document.deal {
        body["Reference"] = json!(shorten(deal.as_str(), 255));
    }
    if let Some(rate) = rate(document, sale, 12)? {
        // Xero's rate is the other way round: units of the document's currency for one of the base currency.
        body["CurrencyRate"] = exact(inverse(document, sale, rate)?);
    }
    Ok(body)
}

/// Xero divides by the rate it is given: the one that gives every amount back, with its six decimals.
fn inverse(document: &Document, sale: &Sale, rate: Decimal) -> Result<Decimal, Refusal> {
    let functional = document.functional_currency;
    let inverse = Decimal::ONE
        .checked_div(rate)
        .map(|inverse| inverse.round_dp(RATE_DECIMALS));
    let right = |amount: Decimal, wanted: Decimal, inverse: Decimal| {
        amount.checked_div(inverse).map(|exact| functional.round(exact)) == Some(wanted)
    };
    inverse
        .filter(|inverse| {
            right(sale.total, sale.functional_total, *inverse)
                && sale.lines.iter().all(|part| right(part.amount, part.functional, *inverse))
        })
        .ok_or_else(|| {
            let words = format!("{} {} at {rate}", sale.total, document.currency);
            let advice = "a rate of six decimals does not give these amounts in Xero; post journals here (documents = \"journals\")";
            refuse("rate_not_exact", words, advice)
        })
}

fn contact(customer: &Party) -> Result<Value, Refusal> {
    let id = customer.id.as_str();
    if id.chars().count() > CONTACT_NUMBER_MAX {
        let words = format!("the customer id {id:?} has more than {CONTACT_NUMBER_MAX} characters");
        return Err(refuse(
            "customer_id_too_long",
            words,
            "map a shorter customer id: Xero's contact numbers have 50",
        ));
    }
    let name = match customer.name.trim() {
        "" => id,
        name => name,
    };
    Ok(json!({ "ContactNumber": id, "Name": shorten(name, 255) }))
}
