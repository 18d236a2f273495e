//! The replay document: facts as JSON lines in, the books as one JSON document out.
//!
//! The keys are a fixed interface (`accrue books replay`). Amounts are strings at their currency's exponent, days are
//! ISO, arrays are sorted by tenant, deal, then time. Invariant: the same input gives the same bytes. Deliberately
//! absent: files and arguments, which are the command's.

use std::io::BufRead;

use jiff::civil::Date;
use serde_json::{Value, json};

use super::fact_json::{self, method_name};
use crate::revenue::books::{Books, Report};
use crate::revenue::contract::View;
use crate::revenue::fact::Fact;
use crate::revenue::ids::EventId;
use crate::revenue::journal::JournalEntry;
use crate::revenue::reference::Settings;
use crate::revenue::reject::{Code, Rejection};

/// Folds events, one JSON object a line, and returns the document.
pub fn replay(events: impl BufRead, settings: &Settings, as_of: Option<Date>) -> String {
    let mut books = Books::new(settings.clone());
    for line in lines(events, settings) {
        match line {
            Ok(fact) => books.fold(fact),
            Err((event, rejection)) => books.refuse(event, rejection),
        }
    }
    let mut text = document(&books.finish(as_of)).to_string();
    text.push('\n');
    text
}

/// A fact of a file, or a line that is none: its event id, or `line N` where it shows none, and why.
pub type Line = Result<Fact, (EventId, Rejection)>;

/// Events, one JSON object a line, in their order. Empty lines are left out; a line that cannot be read at all is the
/// last one.
pub fn lines(events: impl BufRead, settings: &Settings) -> impl Iterator<Item = Line> {
    let mut ended = false;
    let until_error = events.split(b'\n').enumerate().map_while(move |(index, line)| {
        let before = ended;
        ended = line.is_err();
        (!before).then_some((index + 1, line))
    });
    until_error.filter_map(|(number, line)| {
        let (event, rejection) = match line {
            Err(error) => {
                let message = format!("line {number} cannot be read; replay stops here");
                (None, Rejection::new(Code::Malformed, "event", error, &message))
            }
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => return None,
            Ok(line) => match fact_json::read(&line, settings) {
                Ok(fact) => return Some(Ok(fact)),
                Err(unreadable) => (unreadable.event_id, unreadable.rejection),
            },
        };
        let event = event.or_else(|| EventId::parse(format!("line {number}")))?;
        Some(Err((event, rejection)))
    })
}

/// The report as a document.
pub fn document(report: &Report) -> Value {
    json!({
        "contracts": report.contracts.iter().flat_map(contracts).collect::<Vec<_>>(),
        "schedule": report.schedule.iter().map(|row| json!({
            "tenant_id": row.tenant.as_str(),
            "deal_id": row.deal.as_str(),
            "contract_id": row.contract.as_str(),
            "obligation_id": row.obligation.as_str(),
            "line_item_id": row.line_id.as_str(),
            "period": row.period.to_string(),
            "amount": row.currency.format(row.amount),
            "currency": row.currency.code(),
            "functional_amount": row.functional_amount.map(|amount| row.functional_currency.format(amount)),
            "functional_currency": row.functional_currency.code(),
            "version": row.version,
        })).collect::<Vec<_>>(),
        "billing": report.billing.iter().map(|row| json!({
            "tenant_id": row.tenant.as_str(),
            "deal_id": row.deal.as_str(),
            "date": row.date.to_string(),
            "amount": row.currency.format(row.amount),
            "tax": row.currency.format(row.tax),
            "currency": row.currency.code(),
        })).collect::<Vec<_>>(),
        "journals": report.journals.iter().map(journal).collect::<Vec<_>>(),
        "balances": report.contracts.iter().filter_map(balances).collect::<Vec<_>>(),
        "rejections": report.rejections.iter().map(|(event, rejection)| json!({
            "event_id": event.as_str(),
            "code": rejection.code.as_str(),
            "message": rejection.to_string(),
        })).collect::<Vec<_>>(),
    })
}

/// One object a contract; a draft is shown without terms.
fn contracts(view: &View) -> Vec<Value> {
    let Some(currency) = view.currency else {
        return vec![json!({
            "tenant_id": view.tenant.as_str(),
            "deal_id": view.deal.as_str(),
            "contract_id": view.deal.as_str(),
            "version": view.version,
            "status": view.status.as_str(),
            "currency": null,
            "transaction_price": null,
            "obligations": [],
        })];
    };
    let contract = |contract: &crate::revenue::contract::ContractView| {
        json!({
            "tenant_id": view.tenant.as_str(),
            "deal_id": view.deal.as_str(),
            "contract_id": contract.contract.as_str(),
            "version": view.version,
            "status": view.status.as_str(),
            "currency": currency.code(),
            "transaction_price": currency.format(contract.transaction_price),
            "obligations": contract.obligations.iter().map(|it| json!({
                "obligation_id": it.obligation.as_str(),
                "line_item_id": it.line_id.as_str(),
                "method": method_name(it.method),
                "start": it.start.to_string(),
                "end": it.end.to_string(),
                "allocated": currency.format(it.allocated),
            })).collect::<Vec<_>>(),
        })
    };
    view.contracts.iter().map(contract).collect()
}

fn journal(entry: &JournalEntry) -> Value {
    let (currency, functional) = (entry.currency, entry.functional_currency);
    json!({
        "entry_id": entry.entry_id.as_str(),
        "tenant_id": entry.tenant.as_str(),
        "deal_id": entry.deal.as_str(),
        "kind": entry.kind.as_str(),
        "date": entry.date.to_string(),
        "period": entry.period.to_string(),
        "currency": currency.code(),
        "lines": entry.lines.iter().map(|line| json!({
            "account": line.account,
            "role": line.role.name(),
            "debit": currency.format(line.debit),
            "credit": currency.format(line.credit),
            "functional_debit": functional.format(line.functional_debit),
            "functional_credit": functional.format(line.functional_credit),
        })).collect::<Vec<_>>(),
    })
}

fn balances(view: &View) -> Option<Value> {
    let it = view.balances.as_ref()?;
    let amount = |amount| it.currency.format(amount);
    Some(json!({
        "tenant_id": view.tenant.as_str(),
        "deal_id": view.deal.as_str(),
        "currency": it.currency.code(),
        "contract_liability": amount(it.contract_liability),
        "contract_asset": amount(it.contract_asset),
        "receivable": amount(it.receivable),
        "recognised": amount(it.recognised),
        "remaining": amount(it.remaining),
    }))
}
