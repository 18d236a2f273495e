//! Reply to outcome, for NetSuite. Pure.
//!
//! Source: <https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_1545141395.html> (errors) and
//! <https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_1545222128.html> (a record created is 204 with its
//! address in `Location`).

use serde_json::Value;

use crate::sink::accounting::http::Reply;
use crate::sink::accounting::judge::{Sign, acknowledged, compared, not_understood, told, transport, unknown};
use crate::sink::accounting::voucher::{Content, decimal};
use crate::sink::destination::{Found, Outcome, Plan};
use crate::sink::document::Form;

const ERRORS: &[Sign] = &[
    (
        "closed",
        "closed_period",
        "reopen the period in NetSuite, or close it in the books so that entries go to the next",
    ),
    (
        "invalid_key_or_ref",
        "unknown_account",
        "NetSuite has nothing of this internal id: correct it in [sinks.NAME.accounts] or items",
    ),
    (
        "nonexistent_id",
        "unknown_account",
        "NetSuite has nothing of this internal id: correct it in [sinks.NAME.accounts] or items",
    ),
    (
        "inactive",
        "archived_account",
        "the account, item or customer is inactive in NetSuite: make it active, or map another",
    ),
    (
        "balance",
        "unbalanced",
        "NetSuite counts other debits than credits: compare the currency's decimals with the subsidiary's",
    ),
    (
        "rcrd_has_been_changed",
        "stale_object",
        "somebody changed the record at the same time: retry the delivery",
    ),
    (
        "permission",
        "not_permitted",
        "give the role of the integration the permission to create this kind of record",
    ),
];

/// What became of a POST.
pub fn sent(reply: &Reply) -> Outcome {
    // NetSuite says 404 for an id in the body as well as for an address.
    let said = reply.json().unwrap_or_default();
    let details = said["o:errorDetails"].as_array();
    if let (400 | 404 | 409, Some(details)) = (reply.status, details) {
        let describe = |one: &Value| {
            format!(
                "{} {}",
                one["o:errorCode"].as_str().unwrap_or_default(),
                one["detail"].as_str().unwrap_or_default()
            )
        };
        let words = details.iter().map(describe).collect::<Vec<_>>().join("; ");
        if words.to_lowercase().contains("already exists") {
            // Ours from an earlier try, or somebody else's: only a look can tell.
            return Outcome::Taken(format!("NetSuite says that the external id is taken: {words}"));
        }
        return told(&words, ERRORS, "NetSuite");
    }
    if let Some(outcome) = transport(reply, "NetSuite") {
        return outcome;
    }
    if reply.status >= 400 {
        return not_understood(&reply.words(), "NetSuite");
    }
    let id = reply.location.as_deref().and_then(|address| address.rsplit('/').next());
    match id {
        Some(id) if !id.is_empty() => acknowledged(id, reply),
        Some(_) | None => Outcome::Uncertain(format!("NetSuite answered HTTP {} and names no record", reply.status)),
    }
}

/// Whether a record that was asked for by its external id is there.
///
/// # Errors
/// The reply does not tell.
pub fn is_there(reply: &Reply) -> Result<bool, String> {
    match reply.status {
        200 if reply.json().is_ok_and(|said| said.is_object()) => Ok(true),
        // An address that is wrong is a 404, too; but not in NetSuite's words.
        404 if reply.json().is_ok_and(|said| said["o:errorDetails"].is_array()) => Ok(false),
        status => Err(format!("HTTP {status}: {}", reply.words())),
    }
}

/// What a look-up found.
pub fn found(reply: &Reply, plan: &Plan) -> Found {
    match is_there(reply) {
        Ok(true) => {}
        Ok(false) => return Found::Nothing,
        Err(_) => return unknown(reply, "NetSuite"),
    }
    let there = reply.json().unwrap_or_default();
    let planned: Value = serde_json::from_slice(&plan.body).unwrap_or_default();
    let (Some(wanted), Some(there_is), Some(id)) = (
        content(&planned["record"], plan.form),
        content(&there, plan.form),
        there["id"].as_str(),
    ) else {
        return unknown(reply, "NetSuite");
    };
    compared(&wanted, &there_is, id.to_owned(), reply)
}

fn content(record: &Value, form: Form) -> Option<Content> {
    let (list, what) = match form {
        Form::Journal => ("line", "account"),
        Form::Invoice | Form::CreditNote => ("item", "item"),
    };
    let side = |line: &Value, name: &str| {
        if line[name].is_null() {
            Some(Default::default())
        } else {
            decimal(&line[name])
        }
    };
    let line = |line: &Value| {
        let amount = match form {
            Form::Journal => side(line, "debit")? - side(line, "credit")?,
            Form::Invoice | Form::CreditNote => decimal(&line["amount"])?,
        };
        Some((line[what]["id"].as_str()?.to_owned(), amount))
    };
    Some(Content {
        date: record["tranDate"].as_str()?.to_owned(),
        currency: None,
        lines: record[list]["items"]
            .as_array()?
            .iter()
            .map(line)
            .collect::<Option<_>>()?,
    })
}
