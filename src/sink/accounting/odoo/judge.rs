//! Answer to outcome, for Odoo. Pure.
//!
//! Source: <https://www.odoo.com/documentation/19.0/developer/reference/external_api.html>: an error is 4xx or 5xx with the
//! Python exception's name and message. Messages are in the user's language: the user of the sink should be English.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::sink::accounting::http::{Lost, Reply, words};
use crate::sink::accounting::judge::{Sign, compared, in_state, only, refused, told, transport};
use crate::sink::accounting::voucher::{Content, decimal};
use crate::sink::destination::{Found, Outcome, Plan};
use crate::sink::document::Form;

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Odoo refused, and undid what it had begun.
    #[error("{0}")]
    Business(String),
    /// Odoo lacks what a code names.
    #[error("{0}")]
    Missing(String),
    #[error("Odoo asks for patience")]
    Throttled(Option<std::time::Duration>),
    /// Nothing was done.
    #[error("{0}")]
    Unsent(String),
    /// Perhaps done.
    #[error("{0}")]
    Unknown(String),
}

impl Fault {
    /// The same before the document was sent: nothing of it can be there.
    pub fn before(self) -> Fault {
        match self {
            Fault::Unknown(why) => Fault::Unsent(why),
            Fault::Business(_) | Fault::Missing(_) | Fault::Throttled(_) | Fault::Unsent(_) => self,
        }
    }
}

impl From<Lost> for Fault {
    fn from(lost: Lost) -> Fault {
        match lost {
            Lost::Unsent(why) => Fault::Unsent(why),
            Lost::Unknown(why) => Fault::Unknown(why),
        }
    }
}

/// What Odoo lacks.
pub fn missing(model: &str, code: &str) -> Fault {
    Fault::Missing(format!("there is no {model} of code {code:?}"))
}

/// The result of a call.
///
/// # Errors
/// As [`Fault`].
pub fn result(reply: &Reply) -> Result<Value, Fault> {
    if reply.status == 200 {
        return reply.json().map_err(Fault::Unknown);
    }
    let said = reply.json().unwrap_or_default();
    let message = words(said["message"].as_str().unwrap_or_default());
    match said["name"].as_str().unwrap_or_default() {
        "odoo.exceptions.UserError" | "odoo.exceptions.ValidationError" | "odoo.exceptions.RedirectWarning" => {
            Err(Fault::Business(message))
        }
        "odoo.exceptions.AccessError" | "odoo.exceptions.AccessDenied" => Err(Fault::Unsent(format!(
            "Odoo gives the user no right to this: {message}"
        ))),
        _ => match transport(reply, "Odoo") {
            Some(Outcome::Throttled { retry_after }) => Err(Fault::Throttled(retry_after)),
            Some(Outcome::Unavailable(why)) => Err(Fault::Unsent(why)),
            Some(Outcome::Uncertain(why) | Outcome::Taken(why)) => Err(Fault::Unknown(why)),
            Some(Outcome::Refused(_) | Outcome::Acknowledged(_)) | None => {
                Err(Fault::Business(if message.is_empty() {
                    reply.words()
                } else {
                    message
                }))
            }
        },
    }
}

const MESSAGES: &[Sign] = &[
    (
        "lock date",
        "closed_period",
        "move the lock date in Odoo, or close the period in the books so that entries go to the next",
    ),
    (
        "prior to and inclusive of",
        "closed_period",
        "move the lock date in Odoo, or close the period in the books so that entries go to the next",
    ),
    (
        "balanced",
        "unbalanced",
        "Odoo counts other debits than credits: compare the currency's decimals with the company's",
    ),
    (
        "archived",
        "archived_account",
        "the account or journal is archived in Odoo: unarchive it, or map another",
    ),
    (
        "deprecated",
        "archived_account",
        "the account is deprecated in Odoo: map another one",
    ),
];

/// What a fault of a write means.
pub fn fault(fault: Fault) -> Outcome {
    match fault {
        Fault::Unsent(why) => Outcome::Unavailable(why),
        Fault::Unknown(why) => Outcome::Uncertain(why),
        Fault::Throttled(retry_after) => Outcome::Throttled { retry_after },
        Fault::Missing(words) if words.contains("account.account") => refused(
            "unknown_account",
            &words,
            "correct the code in [sinks.NAME.accounts], or add the account in Odoo",
        ),
        Fault::Missing(words) => refused(
            "not_set_up",
            &words,
            "correct the code in [sinks.NAME.odoo], or add what is missing in Odoo",
        ),
        Fault::Business(words) => told(&words, MESSAGES, "Odoo"),
    }
}

/// What a look-up found: moves of the reference, all their lines, and the planned values with Odoo's ids.
pub fn found(moves: &Value, lines: &Value, planned: &Value, plan: &Plan, reply: &Reply) -> Found {
    let unreadable = || Found::Unknown(format!("a move of Odoo's cannot be read: {}", reply.words()));
    let (Some(moves), Some(lines)) = (moves.as_array(), lines.as_array()) else {
        return unreadable();
    };
    let name = |one: &Value| one["id"].to_string();
    let one = match only(moves, name) {
        Ok(one) => one,
        Err(found) => return found,
    };
    let (Some(wanted), Some(there)) = (
        planned_content(planned, plan.form),
        found_content(one, lines, plan.form),
    ) else {
        return unreadable();
    };
    in_state(
        one,
        &["draft"],
        &["posted"],
        compared(&wanted, &there, name(one), reply),
    )
}

/// Balances, debit above zero.
fn planned_content(planned: &Value, form: Form) -> Option<Content> {
    let (lines, sign) = match form {
        Form::Journal => ("line_ids", Decimal::ONE),
        Form::Invoice => ("invoice_line_ids", -Decimal::ONE),
        Form::CreditNote => ("invoice_line_ids", Decimal::ONE),
    };
    let line = |command: &Value| {
        let line = &command[2];
        let balance = match form {
            Form::Journal => decimal(&line["debit"])? - decimal(&line["credit"])?,
            Form::Invoice | Form::CreditNote => decimal(&line["price_unit"])? * sign,
        };
        Some((line["account_id"].to_string(), balance))
    };
    Some(Content {
        date: planned["date"].as_str()?.to_owned(),
        currency: None,
        lines: planned[lines].as_array()?.iter().map(line).collect::<Option<_>>()?,
    })
}

fn found_content(one: &Value, lines: &[Value], form: Form) -> Option<Content> {
    let counted = lines
        .iter()
        .filter(|line| form == Form::Journal || line["display_type"] == "product");
    // A many2one is read as [id, name].
    let line = |line: &Value| Some((line["account_id"].get(0)?.to_string(), decimal(&line["balance"])?));
    Some(Content {
        date: one["date"].as_str()?.to_owned(),
        currency: None,
        lines: counted.map(line).collect::<Option<_>>()?,
    })
}
