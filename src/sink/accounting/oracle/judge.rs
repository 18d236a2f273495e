//! Reply to outcome, for Oracle Fusion. Pure.
//!
//! Source: <https://docs.oracle.com/en/cloud/saas/financials/24b/oeswf/erpintegrationservice-d16476e420.html> (jobs and their
//! status) and the `journalBatches` resource of the same REST API.

use serde_json::Value;

use crate::sink::accounting::http::Reply;
use crate::sink::accounting::judge::{compared, only, refused, transport, unknown};
use crate::sink::accounting::voucher::{Content, decimal};
use crate::sink::destination::{Found, Outcome, Plan};

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Waits or runs; Oracle's word.
    Pending(String),
    Ended,
    /// Has ended without importing all of it; Oracle's word.
    Failed(String),
}

/// The number of a submitted job.
///
/// # Errors
/// There is none; what became of the request.
pub fn submitted(reply: &Reply) -> Result<String, Outcome> {
    if let Some(outcome) = transport(reply, "Oracle") {
        return Err(outcome);
    }
    if reply.status >= 400 {
        let advice = "Oracle took no job: see its words, and the settings in [sinks.NAME.oracle]";
        return Err(refused("not_submitted", &reply.words(), advice));
    }
    let said = reply.json().map_err(Outcome::Uncertain)?;
    let job = match &said["ReqstId"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    };
    match is_job(&job) && job != "0" {
        true => Ok(job),
        false => Err(Outcome::Uncertain(format!(
            "Oracle's reply names no job: {}",
            reply.words()
        ))),
    }
}

/// Whether a text is the number of a job.
pub fn is_job(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a job does.
///
/// # Errors
/// The reply does not tell.
pub fn job(reply: &Reply) -> Result<Job, String> {
    if reply.status != 200 {
        return Err(format!("HTTP {}: {}", reply.status, reply.words()));
    }
    let said = reply.json()?;
    let status = said["items"][0]["RequestStatus"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    match status.as_str() {
        "SUCCEEDED" | "FINISHED" => Ok(Job::Ended),
        "ERROR" | "WARNING" | "CANCELLED" | "EXPIRED" | "VALIDATION_FAILED" | "SCHEDULE_ENDED" => {
            Ok(Job::Failed(status))
        }
        "WAIT"
        | "READY"
        | "RUNNING"
        | "COMPLETED"
        | "BLOCKED"
        | "HOLD"
        | "CANCELLING"
        | "PAUSED"
        | "PENDING_VALIDATION"
        | "ERROR_AUTO_RETRY"
        | "ERROR_MANUAL_RECOVERY" => Ok(Job::Pending(status)),
        _ => Err(format!("a status that is not documented: {}", reply.words())),
    }
}

/// The outcome of a job that imported nothing.
pub fn failed(job: &str, status: &str) -> Outcome {
    let words = format!("job {job} ended as {status}");
    let advice = "open the job's output in Oracle (Scheduled Processes): an account combination, a period or the source is \
                  wrong; correct it, delete the rows from the interface (Delete Import Journals), then retry the delivery";
    refused("import_rejected", &words, advice)
}

/// What a look-up found.
pub fn found(reply: &Reply, plan: &Plan) -> Found {
    let Ok(said) = reply.json() else {
        return unknown(reply, "Oracle");
    };
    let Some(batches) = said["items"].as_array().filter(|_| reply.status == 200) else {
        return unknown(reply, "Oracle");
    };
    let name = |batch: &Value| match &batch["JeBatchId"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let batch = match only(batches, name) {
        Ok(batch) => batch,
        Err(found) => return found,
    };
    let (Some(wanted), Some(there)) = (planned(plan), imported(batch)) else {
        return unknown(reply, "Oracle");
    };
    compared(&wanted, &there, name(batch), reply)
}

/// The rows that were sent, out of the archive in the body.
fn planned(plan: &Plan) -> Option<Content> {
    use base64::Engine as _;

    let body: Value = serde_json::from_slice(&plan.body).ok()?;
    let archive = base64::engine::general_purpose::STANDARD
        .decode(body["DocumentContent"].as_str()?)
        .ok()?;
    let csv = std::str::from_utf8(super::archive::stored(&archive, super::request::FILE)?).ok()?;
    let mut content = Content::default();
    for row in csv.lines() {
        // The columns that are read come before any free text, and hold none of CSV's own characters.
        let fields: Vec<&str> = row.splitn(43, ',').collect();
        content.date = fields.get(2)?.replace('/', "-");
        content.currency = Some((*fields.get(5)?).to_owned());
        let segments: Vec<&str> = fields
            .get(8..38)?
            .iter()
            .copied()
            .filter(|segment| !segment.is_empty())
            .collect();
        let amount = |at: usize| match *fields.get(at)? {
            "" => Some(rust_decimal::Decimal::ZERO),
            text => text.parse().ok(),
        };
        content.lines.push((segments.join("-"), amount(40)? - amount(41)?));
    }
    Some(content)
}

fn imported(batch: &Value) -> Option<Content> {
    let header = &batch["journalHeaders"]["items"][0];
    let side = |line: &Value, name: &str| {
        if line[name].is_null() {
            Some(Default::default())
        } else {
            decimal(&line[name])
        }
    };
    let line = |line: &Value| {
        let account = line["AccountCombination"].as_str()?.to_owned();
        Some((account, side(line, "AccountedDr")? - side(line, "AccountedCr")?))
    };
    Some(Content {
        date: header["EffectiveDate"]
            .as_str()
            .or(header["AccountingDate"].as_str())?
            .get(..10)?
            .to_owned(),
        currency: header["CurrencyCode"].as_str().map(str::to_owned),
        lines: header["journalLines"]["items"]
            .as_array()?
            .iter()
            .map(line)
            .collect::<Option<_>>()?,
    })
}
