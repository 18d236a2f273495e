//! Reply to outcome, for QuickBooks Online. Pure.
//!
//! Source: <https://developer.intuit.com/app/developer/qbo/docs/develop/troubleshooting/error-codes>. An error is a `Fault`
//! with a type and a list of codes; even HTTP 200 may carry one.

use serde_json::Value;

use super::client::entity;
use super::config::PATIENCE;
use crate::sink::accounting::http::Reply;
use crate::sink::accounting::judge::{acknowledged, compared, invalid, not_understood, refused, transport, unknown};
use crate::sink::accounting::voucher::{Content, decimal};
use crate::sink::destination::{Found, Outcome, Plan};
use crate::sink::document::{Form, Key};

/// What an error is known by.
enum Sign {
    /// Words anywhere in it.
    Words(&'static str),
    /// The code that it states, which its text may hold as part of an amount or an id.
    Code(&'static str),
}

/// The sign of a fault, the stable code for it, and what to do. Words first: 6000 means many things.
const FAULTS: &[(Sign, &str, &str)] = &[
    (
        Sign::Words("closed"),
        "closed_period",
        "the books are closed for this day in QuickBooks: move the closing date, or close the period in the books so that entries go to the next",
    ),
    (
        Sign::Words("closing date"),
        "closed_period",
        "the books are closed for this day in QuickBooks: move the closing date, or close the period in the books so that entries go to the next",
    ),
    (
        Sign::Words("inactive"),
        "archived_account",
        "an account, item or customer is inactive in QuickBooks: make it active, or map another",
    ),
    (
        Sign::Code("2500"),
        "unknown_account",
        "QuickBooks has nothing of this id: correct it in [sinks.NAME.accounts] or items",
    ),
    (
        Sign::Code("610"),
        "unknown_account",
        "QuickBooks has nothing of this id: correct it in [sinks.NAME.accounts] or items",
    ),
    (
        Sign::Code("6240"),
        "customer_name_taken",
        "another customer, vendor or employee has this display name: rename it in QuickBooks",
    ),
    (
        Sign::Code("5010"),
        "stale_object",
        "somebody changed the object at the same time: retry the delivery",
    ),
    (
        Sign::Code("6190"),
        "company_unusable",
        "the QuickBooks subscription has ended or has a billing problem",
    ),
    (
        Sign::Words("balance"),
        "unbalanced",
        "QuickBooks counts other debits than credits: compare the currency's decimals with the company's",
    ),
    (
        Sign::Words("currency"),
        "currency_not_enabled",
        "turn multicurrency on and add the currency in QuickBooks, or post journals, which are in home currency",
    ),
    (
        Sign::Code("2010"),
        "body_not_understood",
        "QuickBooks does not know a field that we send: report this delivery",
    ),
    (
        Sign::Code("2020"),
        "field_missing",
        "QuickBooks requires a field more: see its words, and the company's settings",
    ),
];

/// What became of a POST.
pub fn sent(reply: &Reply, plan: &Plan) -> Outcome {
    if let Some(outcome) = trouble(reply) {
        return outcome;
    }
    let said = match reply.json() {
        Ok(said) => said,
        Err(why) => return Outcome::Uncertain(why),
    };
    match said[entity(plan.form).1]["Id"].as_str() {
        Some(id) if !id.is_empty() => acknowledged(id, reply),
        Some(_) | None => Outcome::Uncertain(format!("QuickBooks' reply names no id: {}", reply.words())),
    }
}

/// The outcome of a reply that is not the document.
fn trouble(reply: &Reply) -> Option<Outcome> {
    if let Some(outcome) = transport(reply, "QuickBooks") {
        return Some(match outcome {
            Outcome::Throttled { retry_after } => Outcome::Throttled {
                retry_after: retry_after.or(Some(PATIENCE)),
            },
            other => other,
        });
    }
    let said = reply.json().ok();
    let fault = said.as_ref().map(|said| {
        if said["fault"].is_object() {
            &said["fault"]
        } else {
            &said["Fault"]
        }
    });
    let Some(fault) = fault.filter(|fault| fault.is_object()) else {
        return (reply.status >= 400).then(|| not_understood(&reply.words(), "QuickBooks"));
    };
    let errors = fault.get("Error").or(fault.get("error")).and_then(Value::as_array);
    let part = |error: &Value, small: &str, large: &str| {
        let text = error[large].as_str().or(error[small].as_str()).unwrap_or_default();
        text.to_owned()
    };
    let describe = |error: &Value| {
        format!(
            "{} {} {}",
            part(error, "code", "code"),
            part(error, "message", "Message"),
            part(error, "detail", "Detail")
        )
    };
    let words = errors
        .into_iter()
        .flatten()
        .map(describe)
        .collect::<Vec<_>>()
        .join("; ");
    let small = words.to_lowercase();
    let shows = |sign: &Sign| match sign {
        Sign::Words(words) => small.contains(words),
        Sign::Code(code) => errors
            .into_iter()
            .flatten()
            .any(|error| part(error, "code", "code") == *code),
    };
    Some(match fault["type"].as_str().unwrap_or_default() {
        "AuthenticationFault" | "AUTHENTICATION" | "AuthorizationFault" => Outcome::Unavailable(format!(
            "QuickBooks refuses the app: {words}; connect it again with the right to post"
        )),
        "SystemFault" | "SERVICE" => Outcome::Uncertain(format!("QuickBooks failed: {words}")),
        // Ours from an earlier try, or somebody else's: only a look can tell.
        _ if small.contains("duplicate document number") => Outcome::Taken(words),
        _ => match FAULTS.iter().find(|(sign, _, _)| shows(sign)) {
            Some((_, code, advice)) => refused(code, &words, advice),
            None => invalid(&words, "QuickBooks"),
        },
    })
}

/// The id of the first object that a query found.
///
/// # Errors
/// The reply is none.
pub fn first_id(reply: &Reply, entity: &str) -> Result<Option<String>, String> {
    let said = reply.json()?;
    match said.get("QueryResponse") {
        Some(found) if reply.status == 200 => Ok(found[entity][0]["Id"].as_str().map(str::to_owned)),
        Some(_) | None => Err(format!("HTTP {}: {}", reply.status, reply.words())),
    }
}

/// The id of a customer that was made.
///
/// # Errors
/// Why the document cannot be sent now; an uncertain one only delays it, since customers are found by their names.
pub fn made_customer(reply: &Reply) -> Result<String, Outcome> {
    match trouble(reply) {
        Some(Outcome::Uncertain(why) | Outcome::Taken(why)) => return Err(Outcome::Unavailable(why)),
        Some(outcome) => return Err(outcome),
        None => {}
    }
    let said = reply.json().map_err(Outcome::Unavailable)?;
    let id = said["Customer"]["Id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Outcome::Unavailable(format!("QuickBooks' reply names no customer: {}", reply.words())))
}

/// What a look-up found.
pub fn found(reply: &Reply, key: &Key, plan: &Plan) -> Found {
    let (Ok(said), Ok(planned)) = (reply.json(), serde_json::from_slice::<Value>(&plan.body)) else {
        return unknown(reply, "QuickBooks");
    };
    let Some(found) = said.get("QueryResponse").filter(|_| reply.status == 200) else {
        return unknown(reply, "QuickBooks");
    };
    // A number of 21 characters may be another document's: ours carries the whole key.
    let sign = format!("[{key}]");
    let documents: Vec<&Value> = found[entity(plan.form).1].as_array().into_iter().flatten().collect();
    let ours: Vec<&Value> = documents
        .iter()
        .copied()
        .filter(|one| one["PrivateNote"].as_str().is_some_and(|note| note.contains(&sign)))
        .collect();
    let name = |document: &Value| document["Id"].as_str().unwrap_or_default().to_owned();
    match (ours.as_slice(), documents.as_slice()) {
        ([], []) => Found::Nothing,
        ([], [other, ..]) => Found::Different {
            external_id: name(other),
            what: format!("its number is {}, its note does not name {key}", plan.reference),
        },
        ([document], _) => {
            let external_id = name(document);
            match (content(&planned, plan.form), content(document, plan.form)) {
                (Some(wanted), Some(there)) => compared(&wanted, &there, external_id, reply),
                _ => Found::Unknown(format!("a document of QuickBooks' cannot be read: {}", reply.words())),
            }
        }
        (several, _) => Found::Several(several.iter().map(|one| name(one)).collect()),
    }
}

fn content(document: &Value, form: Form) -> Option<Content> {
    let line = |line: &Value| {
        let amount = decimal(&line["Amount"])?;
        let (account, amount) = match form {
            Form::Journal => {
                let detail = &line["JournalEntryLineDetail"];
                let amount = match detail["PostingType"].as_str()? {
                    "Debit" => amount,
                    _ => -amount,
                };
                (detail["AccountRef"]["value"].as_str()?, amount)
            }
            Form::Invoice | Form::CreditNote => (line["SalesItemLineDetail"]["ItemRef"]["value"].as_str()?, amount),
        };
        Some((account.to_owned(), amount))
    };
    // QuickBooks adds a line with the subtotal.
    let lines = document["Line"]
        .as_array()?
        .iter()
        .filter(|one| one["DetailType"] != "SubTotalLineDetail");
    Some(Content {
        date: document["TxnDate"].as_str()?.to_owned(),
        currency: match form {
            Form::Journal => None,
            Form::Invoice | Form::CreditNote => document["CurrencyRef"]["value"].as_str().map(str::to_owned),
        },
        lines: lines.map(line).collect::<Option<_>>()?,
    })
}
