//! Document to body, for Oracle Fusion. Pure.
//!
//! The body is the JSON of `importBulkData` with a ZIP of one `GlInterface.csv` inside. Its columns are those of Oracle's
//! Journal Import template: status, ledger, day, source, category, currency, creation day, actual flag, 30 segments,
//! entered and accounted amounts, ten references, ten descriptive columns, statistical amount, three of conversion, group.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rust_decimal::Decimal;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::archive::archive;
use super::config::{SEPARATORS, Settings};
use crate::codec::ledger::csv_row;
use crate::sink::accounting::voucher::{postings, reference, refuse, shorten};
use crate::sink::destination::{Plan, Refusal};
use crate::sink::document::{Document, Form};

const JOB: &str = "/oracle/apps/ess/financials/generalLedger/programs/common,JournalImportLauncher";
const FOLDER: &str = "fin$/generalLedger$/import$";
/// The file in the archive.
pub(super) const FILE: &str = "GlInterface.csv";
const SEGMENTS: usize = 30;
/// A reference column of the interface.
const REFERENCE_MAX: usize = 100;

/// What is sent. An account is a combination of segments with dashes between: `01-000-4000`.
///
/// # Errors
/// Unbalanced, or an account of more than 30 segments or with signs that no segment has.
pub fn plan(document: &Document, settings: &Settings) -> Result<Plan, Refusal> {
    let reference = reference(document)?;
    let postings = postings(document)?;
    let (narration, group) = (
        shorten(&document.narration, REFERENCE_MAX),
        group(&reference).to_string(),
    );
    let day = document.date.strftime("%Y/%m/%d").to_string();
    let mut csv = String::new();
    for posting in &postings {
        let segments: Vec<&str> = posting.line.account.split('-').collect();
        if segments.len() > SEGMENTS {
            let words = format!("account {} has {} segments", posting.line.account, segments.len());
            return Err(refuse(
                "account_too_long",
                words,
                "an account has at most 30 segments: correct [sinks.NAME.accounts]",
            ));
        }
        if posting.line.account.contains(SEPARATORS) {
            let words = format!(
                "account {:?} holds a comma, a quote or a line's end",
                posting.line.account
            );
            return Err(refuse("account_not_valid", words, "correct [sinks.NAME.accounts]"));
        }
        // Both sides have the sign of the functional amount; a line of exchange differences has no amount in its currency.
        let side = |amount: Decimal, debit: bool, currency: crate::revenue::money::Currency| {
            let amount = if debit { amount } else { -amount };
            if amount > Decimal::ZERO {
                currency.format(amount)
            } else {
                String::new()
            }
        };
        let (entered, accounted) = (document.currency, document.functional_currency);
        let mut row: Vec<String> = Vec::with_capacity(67);
        row.extend(["NEW".to_owned(), settings.ledger_id.to_string(), day.clone()]);
        row.extend([
            settings.source.clone(),
            settings.category.clone(),
            entered.code().to_owned(),
            day.clone(),
            "A".to_owned(),
        ]);
        row.extend((0..SEGMENTS).map(|at| segments.get(at).map_or(String::new(), |one| (*one).to_owned())));
        row.extend([
            side(posting.original, true, entered),
            side(posting.original, false, entered),
        ]);
        row.extend([
            side(posting.amount, true, accounted),
            side(posting.amount, false, accounted),
        ]);
        row.extend([
            reference.clone(),
            narration.clone(),
            String::new(),
            reference.clone(),
            narration.clone(),
        ]);
        row.extend([
            reference.clone(),
            String::new(),
            String::new(),
            String::new(),
            posting.line.role.name().into_owned(),
        ]);
        row.extend((0..10).map(|_| String::new()));
        row.push(String::new());
        let user_rate = if entered == accounted { "" } else { "User" };
        row.extend([
            user_rate.to_owned(),
            if user_rate.is_empty() {
                String::new()
            } else {
                day.clone()
            },
            String::new(),
        ]);
        row.push(group.clone());
        csv += &csv_row(row);
    }
    let archive = archive(FILE, csv.as_bytes()).ok_or_else(|| {
        refuse(
            "too_large",
            reference.clone(),
            "post by entry (granularity = \"entry\")",
        )
    })?;
    let parameters = [
        settings.data_access_set_id.to_string(),
        settings.source.clone(),
        settings.ledger_id.to_string(),
        group,
        "N".to_owned(),
        "N".to_owned(),
        "N".to_owned(),
    ];
    let body = json!({
        "OperationName": "importBulkData",
        "DocumentContent": BASE64.encode(archive),
        "ContentType": "zip",
        "FileName": format!("{reference}.zip"),
        "DocumentAccount": FOLDER,
        "JobName": JOB,
        "ParameterList": parameters.join(","),
        "CallbackURL": "#NULL",
        "NotificationCode": "10",
    });
    Ok(Plan {
        form: Form::Journal,
        reference,
        body: body.to_string().into_bytes(),
    })
}

/// The interface group: rows of one document and no other. 15 digits, which Oracle's number takes.
fn group(reference: &str) -> u64 {
    let digest = Sha256::digest(reference);
    let first = digest
        .iter()
        .take(8)
        .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    first % 1_000_000_000_000_000
}
