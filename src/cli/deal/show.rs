//! `accrue deal show`: a deal's books on a day.

use std::fmt::Write as _;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{Format, Found, Show};
use crate::cli::Failure;
use crate::cli::books::table::aligned;
use crate::codec::fact_json::{self, method_name};
use crate::codec::replay;
use crate::revenue::books::Report;
use crate::revenue::contract::{ScheduleRow, View};
use crate::revenue::fact::Fact;
use crate::revenue::ids::EventId;
use crate::revenue::journal::JournalEntry;
use crate::revenue::measures::pending;
use crate::revenue::money::Currency;
use crate::revenue::reference::RateNeeded;
use crate::revenue::reject::Rejection;

pub fn run(arguments: &Show) -> Result<(), Failure> {
    let found = arguments.which.find()?;
    let books = DealBooks::of(&found);
    match arguments.format {
        Format::Text => print!("{}", books.text(&found)),
        Format::Json => println!("{:#}", books.json(&found)),
    }
    Ok(())
}

/// The report of one deal, and what it is made of.
struct DealBooks {
    report: Report,
    view: View,
    facts: Vec<Fact>,
    waits_for: Option<RateNeeded>,
}

impl DealBooks {
    fn of(found: &Found) -> DealBooks {
        let view = found.view();
        let mut books = DealBooks {
            report: Report {
                contracts: vec![view.clone()],
                schedule: Vec::new(),
                billing: Vec::new(),
                journals: Vec::new(),
                rejections: Vec::new(),
            },
            view,
            facts: Vec::new(),
            waits_for: None,
        };
        let Some(kept) = found.kept() else {
            return books;
        };
        let report = &mut books.report;
        report.rejections = kept.refused.iter().chain(&kept.unfit).cloned().collect();
        report.journals = kept.entries.clone();
        let as_of = found.known.as_of;
        report.journals.retain(|entry| as_of.is_none_or(|day| entry.date < day));
        report.journals.sort_by(|a, b| {
            let key = |it: &JournalEntry| (it.date, it.kind, it.obligation.clone());
            key(a).cmp(&key(b)).then(a.entry_id.cmp(&b.entry_id))
        });
        if let Some(contract) = &kept.contract {
            let cx = found.folded.context(&found.known.settings, &found.tenant);
            report.schedule = contract.schedule_now(&cx);
            report.billing = contract.billing_now(&cx);
            if let Some(day) = as_of {
                // By today's entries, months that had not begun would be called issued.
                let left = pending(&report.schedule, &report.journals, day);
                for row in &mut report.schedule {
                    let is_left = |it: &ScheduleRow| (&it.obligation, it.period) == (&row.obligation, row.period);
                    row.posted = !left.iter().any(is_left);
                }
            }
            books.facts = contract.facts.clone();
            books.waits_for = contract.waits_for();
        }
        books
    }

    fn json(&self, found: &Found) -> Value {
        let mut document = replay::document(&self.report);
        if let Value::Object(fields) = &mut document {
            let event_type = |event: &_| {
                let fact = self.facts.iter().find(|fact| fact.event_id == *event);
                fact.map(|fact| fact.body.type_name())
            };
            let history = self.view.history.iter().enumerate().map(|(n, (event, from))| {
                json!({
                    "version": n + 1,
                    "from": from.to_string(),
                    "event_id": event.as_str(),
                    "type": event_type(event),
                })
            });
            fields.insert("as_of".to_owned(), json!(found.day().map(|day| day.to_string())));
            fields.insert("history".to_owned(), history.collect());
            fields.insert("facts".to_owned(), self.facts.iter().map(fact_json::write).collect());
            fields.insert("waits_for".to_owned(), json!(self.waits_for.map(rate)));
        }
        document
    }

    fn text(&self, found: &Found) -> String {
        let view = &self.view;
        let as_of = found
            .day()
            .map_or("before any clock tick".to_owned(), |day| format!("as of {day}"));
        let mut text = format!(
            "Deal {} of {}: {}, version {}, {as_of}\n",
            view.deal,
            view.tenant,
            view.status.as_str(),
            view.version
        );
        if let Some(needed) = self.waits_for {
            let _ = writeln!(text, "Parked: it waits for the rate {}", rate(needed));
        }
        if let Some(currency) = view.currency {
            self.contract(&mut text, currency);
            self.amounts(&mut text, currency);
        }
        section(&mut text, "Facts", &["occurred at", "type", "event"], &[], {
            let line = |fact: &Fact| {
                vec![
                    fact.occurred_at.to_string(),
                    fact.body.type_name().to_owned(),
                    fact.event_id.to_string(),
                ]
            };
            self.facts.iter().map(line).collect()
        });
        section(&mut text, "Without effect", &["event", "code", "why"], &[], {
            let refused = self.report.rejections.iter();
            let line =
                |(event, why): &(EventId, Rejection)| vec![event.to_string(), why.code.to_string(), why.to_string()];
            refused.map(line).collect()
        });
        text
    }

    fn contract(&self, text: &mut String, currency: Currency) {
        let view = &self.view;
        let mut lines = Vec::new();
        for contract in &view.contracts {
            for it in &contract.obligations {
                lines.push(vec![
                    contract.contract.to_string(),
                    it.line_id.to_string(),
                    method_name(it.method).replace('_', " "),
                    it.start.to_string(),
                    it.end.to_string(),
                    currency.format(it.allocated),
                ]);
            }
        }
        let names = ["contract", "line", "method", "start", "end", "price"];
        section(text, &format!("Obligations, {currency}"), &names, &[5], lines);
        if let Some(it) = &view.balances {
            let lines = [
                ("contract liability", it.contract_liability),
                ("contract asset", it.contract_asset),
                ("receivable", it.receivable),
                ("recognised", it.recognised),
                ("remaining", it.remaining),
            ];
            let lines = lines.map(|(name, amount)| vec![name.to_owned(), currency.format(amount)]);
            section(text, &format!("Balances, {currency}"), &["", ""], &[1], lines.into());
        }
        let history = view.history.iter().enumerate();
        let lines = history.map(|(n, (event, from))| vec![(n + 1).to_string(), from.to_string(), event.to_string()]);
        section(text, "Versions", &["version", "from", "event"], &[0], lines.collect());
    }

    fn amounts(&self, text: &mut String, currency: Currency) {
        let day = self.report.schedule.iter().map(|row| {
            let state = match row.posted {
                true => "issued",
                false => "to come",
            };
            vec![
                row.period.to_string(),
                row.line_id.to_string(),
                row.currency.format(row.amount),
                row.functional_amount
                    .map_or("no rate".to_owned(), |it| row.functional_currency.format(it)),
                state.to_owned(),
            ]
        });
        let functional = self.report.schedule.first().map(|row| row.functional_currency);
        let names = [
            "period".to_owned(),
            "line".to_owned(),
            currency.to_string(),
            format!("in {}", functional.unwrap_or(currency)),
            String::new(),
        ];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        section(text, "Recognition", &names, &[2, 3], day.collect());
        let invoices = self.report.billing.iter().map(|row| {
            let state = match row.firm {
                true => "",
                false => "expected",
            };
            vec![
                row.date.to_string(),
                row.currency.format(row.amount),
                row.currency.format(row.tax),
                state.to_owned(),
            ]
        });
        section(
            text,
            "Invoices",
            &["date", "net", "tax", ""],
            &[1, 2],
            invoices.collect(),
        );
        let mut lines = Vec::new();
        for entry in &self.report.journals {
            for (n, line) in entry.lines.iter().enumerate() {
                let head = match n {
                    0 => [entry.date.to_string(), entry.kind.as_str().replace('_', " ")],
                    _ => Default::default(),
                };
                let amount = |amount: Decimal| match amount.is_zero() {
                    true => String::new(),
                    false => entry.currency.format(amount),
                };
                let value = line.functional_debit - line.functional_credit;
                lines.push(
                    head.into_iter()
                        .chain([
                            line.account.clone(),
                            amount(line.debit),
                            amount(line.credit),
                            entry.functional_currency.format(value),
                        ])
                        .collect(),
                );
            }
        }
        let worth = format!("worth in {}", functional.unwrap_or(currency));
        let names = ["date", "entry", "account", "debit", "credit", worth.as_str()];
        section(text, "Entries", &names, &[3, 4, 5], lines);
    }
}

fn rate(needed: RateNeeded) -> String {
    format!("{}/{} of {}", needed.base, needed.quote, needed.date)
}

/// A heading and aligned lines; nothing where there are none.
fn section(text: &mut String, title: &str, names: &[&str], right: &[usize], lines: Vec<Vec<String>>) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let mut all = lines;
    if names.iter().any(|name| !name.is_empty()) {
        all.insert(0, names.iter().map(|name| (*name).to_owned()).collect());
    }
    *text += &aligned(&all, &|column| right.contains(&column));
}
