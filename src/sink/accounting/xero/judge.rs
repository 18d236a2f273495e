//! Reply to outcome, for Xero. Pure.
//!
//! Source: <https://developer.xero.com/documentation/api/accounting/responsecodes>. A 400 lists what is wrong with each
//! element as `ValidationErrors`; its texts are for people, so they are told apart by the words that Xero documents.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::sink::accounting::http::Reply;
use crate::sink::accounting::judge::{Sign, acknowledged, compared, not_understood, only, told, transport, unknown};
use crate::sink::accounting::voucher::{Content, decimal};
use crate::sink::destination::{Found, Outcome, Plan};
use crate::sink::document::Form;

const ERRORS: &[Sign] = &[
    (
        "lock date",
        "closed_period",
        "the period is locked in Xero: move the lock date back, or close the period in the books so that entries go to the next",
    ),
    (
        "is not a valid code",
        "unknown_account",
        "no such account in Xero: correct it in [sinks.NAME.accounts], or add the account to the chart",
    ),
    (
        "archived",
        "archived_account",
        "the account or contact is archived in Xero: restore it, or map another account",
    ),
    (
        "system account",
        "system_account",
        "Xero keeps this account for its own documents: map a clearing account for journals, or post invoices (documents = \"invoices\")",
    ),
    (
        "must equal",
        "unbalanced",
        "Xero counts other debits than credits: compare the currency's decimals with the organisation's",
    ),
    (
        "currency",
        "currency_not_enabled",
        "add the currency to the Xero organisation (Settings, Currencies), or post journals, which are in base currency",
    ),
    (
        "already assigned to another contact",
        "contact_name_taken",
        "another contact has this name: give one of the two the contact number of the customer, or rename it",
    ),
];

/// What became of a PUT.
pub fn sent(reply: &Reply, plan: &Plan) -> Outcome {
    if let Some(outcome) = transport(reply, "Xero") {
        return outcome;
    }
    let said = match reply.json() {
        Ok(said) => said,
        Err(why) if reply.status >= 400 => {
            return not_understood(&why, "Xero");
        }
        Err(why) => return Outcome::Uncertain(why),
    };
    if reply.status >= 400 {
        return refusal(reply, &said);
    }
    let (list, id) = names(plan.form);
    match said[list][0][id].as_str() {
        Some(id) if !id.is_empty() => acknowledged(id, reply),
        Some(_) | None => Outcome::Uncertain(format!("Xero's reply names no {id}: {}", reply.words())),
    }
}

fn refusal(reply: &Reply, said: &Value) -> Outcome {
    let elements = said["Elements"].as_array().into_iter().flatten();
    let errors = elements.flat_map(|element| element["ValidationErrors"].as_array().into_iter().flatten());
    let mut words: Vec<&str> = errors.filter_map(|error| error["Message"].as_str()).collect();
    if words.is_empty() {
        words.extend(said["Message"].as_str().or(said["Detail"].as_str()));
    }
    let words = words.join("; ");
    if reply.status == 412 {
        return Outcome::Unavailable(format!("Xero says that the organisation is offline: {words}"));
    }
    let small = words.to_lowercase();
    if small.contains("must be unique") || small.contains("idempotency") {
        // Ours from an earlier try, or somebody else's: only a look can tell.
        return Outcome::Taken(format!("Xero says that the number is taken: {words}"));
    }
    told(&words, ERRORS, "Xero")
}

/// What a look-up found.
pub fn found(reply: &Reply, plan: &Plan) -> Found {
    if reply.status != 200 {
        return unknown(reply, "Xero");
    }
    let (list, id) = names(plan.form);
    let (Ok(said), Ok(planned)) = (reply.json(), serde_json::from_slice::<Value>(&plan.body)) else {
        return unknown(reply, "Xero");
    };
    let Some(documents) = said[list].as_array() else {
        return unknown(reply, "Xero");
    };
    let name = |document: &Value| document[id].as_str().unwrap_or_default().to_owned();
    let document = match only(documents, name) {
        Ok(document) => document,
        Err(found) => return found,
    };
    let external_id = name(document);
    let (Some(wanted), Some(there)) = (content(&planned[list][0], plan.form), content(document, plan.form)) else {
        return Found::Unknown(format!("a document of Xero's cannot be read: {}", reply.words()));
    };
    match document["Status"].as_str().unwrap_or("without status") {
        "POSTED" | "AUTHORISED" | "PAID" => compared(&wanted, &there, external_id, reply),
        other => Found::Different {
            external_id,
            what: format!("its status is {other}"),
        },
    }
}

/// The list that holds documents of a form, and the field of their id.
fn names(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Journal => ("ManualJournals", "ManualJournalID"),
        Form::Invoice => ("Invoices", "InvoiceID"),
        Form::CreditNote => ("CreditNotes", "CreditNoteID"),
    }
}

fn content(document: &Value, form: Form) -> Option<Content> {
    let lines = match form {
        Form::Journal => &document["JournalLines"],
        Form::Invoice | Form::CreditNote => &document["LineItems"],
    };
    let line = |line: &Value| Some((line["AccountCode"].as_str()?.to_owned(), decimal(&line["LineAmount"])?));
    Some(Content {
        date: day(document)?,
        currency: document["CurrencyCode"].as_str().map(str::to_owned),
        lines: lines.as_array()?.iter().map(line).collect::<Option<_>>()?,
    })
}

/// `2026-02-28`, or `DateString` `2026-02-28T00:00:00`, or `/Date(1772236800000+0000)/`.
fn day(document: &Value) -> Option<String> {
    let text = document["DateString"].as_str().or(document["Date"].as_str())?;
    if let Some(inner) = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")) {
        let end = inner.rfind(['+', '-']).filter(|at| *at > 0).unwrap_or(inner.len());
        let milliseconds = inner[..end].parse().ok()?;
        let instant = Timestamp::from_millisecond(milliseconds).ok()?;
        return Some(TimeZone::UTC.to_datetime(instant).date().to_string());
    }
    text.get(..10).map(str::to_owned)
}
