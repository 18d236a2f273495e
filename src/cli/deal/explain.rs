//! `accrue deal explain`: explanations as a controller reads them.
//!
//! Invariant: nothing is worked out here; every rule, input and figure was written where the decision was made.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::{Format, Which};
use crate::cli::Failure;
use crate::revenue::contract::{Contract, View};
use crate::revenue::explain::{self, ExplainedAmount, Explanation};
use crate::revenue::fact::Fact;
use crate::revenue::ids::EventId;
use crate::revenue::period::Period;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Of the amounts, only those that concern these periods, such as 2026-02
    #[arg(long, value_name = "PERIOD", num_args = 1.., value_parser = crate::cli::books::period)]
    cents: Vec<Period>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let found = arguments.which.find()?;
    let contract = found.kept().and_then(|kept| kept.contract.as_ref());
    let Some(contract) = contract else {
        return Err(anyhow::anyhow!(
            "every fact of deal {} was refused; `accrue deal show` says why",
            found.deal
        )
        .into());
    };
    let view = found.view();
    let reasons = explain::explain(contract, &found.context());
    let mut amounts = explain::amounts(contract, &found.context());
    amounts.retain(|it| arguments.cents.is_empty() || arguments.cents.contains(&it.period));
    amounts.sort_by_key(|it| it.period);
    match arguments.format {
        Format::Text => {
            let as_of = found.day().map_or(String::new(), |day| format!(", as of {day}"));
            println!("Deal {} of {}, explained{as_of}", found.deal, found.tenant);
            print!("{}{}", versions(contract, &view, &reasons), periods(&view, &amounts));
        }
        Format::Json => println!(
            "{:#}",
            json!({
                "tenant_id": found.tenant.as_str(),
                "deal_id": found.deal.as_str(),
                "as_of": found.day().map(|day| day.to_string()),
                "decisions": reasons.iter().map(document).collect::<Vec<_>>(),
                "amounts": amounts.iter().map(|it| {
                    let mut why = document(&it.why);
                    why["period"] = it.period.to_string().into();
                    why["amount"] = view.currency.map(|currency| currency.format(it.amount)).into();
                    why
                }).collect::<Vec<_>>(),
            })
        ),
    }
    Ok(())
}

/// Each version with the decisions that its fact led to, then the decisions of facts that made none.
fn versions(contract: &Contract, view: &View, reasons: &[Explanation]) -> String {
    let mut text = String::new();
    let caused_by = |reason: &Explanation, event: &EventId| reason.facts.first() == Some(event);
    let of = |event: &EventId| -> Option<&Fact> { contract.fact(event) };
    for (n, (event, from)) in view.history.iter().enumerate() {
        let what = of(event).map_or("", |fact| fact.body.type_name());
        let when = of(event).map_or(String::new(), |fact| format!(" of {}", fact.occurred_at));
        let _ = writeln!(text, "\nVersion {} holds from {from}: {what}{when}", n + 1);
        text += &paragraphs(reasons.iter().filter(|reason| caused_by(reason, event)));
    }
    let versioned = |reason: &&Explanation| !view.history.iter().any(|(event, _)| caused_by(reason, event));
    let others = paragraphs(reasons.iter().filter(versioned));
    if !others.is_empty() {
        let _ = write!(text, "\nOther facts\n{others}");
    }
    text
}

fn periods(view: &View, amounts: &[ExplainedAmount]) -> String {
    let mut text = String::new();
    for of in amounts.chunk_by(|a, b| a.period == b.period) {
        if let (Some(first), Some(currency)) = (of.first(), view.currency) {
            let _ = writeln!(text, "\nAmounts that concern {}, in {currency}", first.period);
            text += &paragraphs(of.iter().map(|it| &it.why));
        }
    }
    text
}

/// One paragraph an explanation.
pub fn paragraphs<'a>(reasons: impl Iterator<Item = &'a Explanation>) -> String {
    let mut text = String::new();
    for reason in reasons {
        let _ = writeln!(text, "  - {}", reason.decision);
        let _ = writeln!(text, "    rule:        {}", reason.rule);
        let inputs: Vec<String> = reason
            .inputs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
            .collect();
        let facts: Vec<&str> = reason.facts.iter().map(EventId::as_str).collect();
        for (name, value) in [
            ("from:       ", inputs.join(", ")),
            ("calculation:", reason.arithmetic.clone()),
            ("facts:      ", facts.join(", ")),
        ] {
            if !value.is_empty() {
                let _ = writeln!(text, "    {name} {value}");
            }
        }
    }
    text
}

fn document(reason: &Explanation) -> Value {
    let inputs = reason
        .inputs
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    json!({
        "rule": reason.rule,
        "decision": reason.decision,
        "inputs": Value::Object(inputs),
        "arithmetic": reason.arithmetic,
        "facts": reason.facts.iter().map(EventId::as_str).collect::<Vec<_>>(),
    })
}
