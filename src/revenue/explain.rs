//! Explanations: for each decision the rule, its inputs, its arithmetic and the facts it rests on, as data.
//!
//! Invariant: an explanation is written where the decision is made, from the values it used; nothing is reconstructed
//! afterwards. Deliberately absent: prose for screens and any formatting beyond plain numbers.

mod amounts;
mod words;

use jiff::civil::Date;
use rust_decimal::Decimal;

pub use self::amounts::{ExplainedAmount, amounts};
use super::allocate::Sold;
use super::contract::Contract;
use super::fact::{Consideration, Credit, Deal, Estimate, EstimateMethod};
use super::ids::EventId;
use super::policy::Treatment;
use super::reference::Context;
use super::reject::Code;

/// Why something was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The paragraph or policy: `ASC 606-10-25-13(a) prospective`.
    pub rule: String,
    pub decision: String,
    /// Name and value of each input.
    pub inputs: Vec<(String, String)>,
    /// The calculation, as text with its numbers.
    pub arithmetic: String,
    pub facts: Vec<EventId>,
}

/// Explains a contract from its facts under the tenant's present policy: terms and changes first, then what was issued.
pub fn explain(contract: &Contract, cx: &Context) -> Vec<Explanation> {
    let derived = super::derive::derive_explained(&contract.facts, cx.tenant);
    let mut all: Vec<Explanation> = derived
        .rejections
        .iter()
        .map(|(event, rejection)| Explanation {
            rule: format!("rejected: {}", rejection.code),
            decision: match rejection.code {
                Code::CreditInPart => "a part of this fact has no effect",
                _ => "this fact has no effect",
            }
            .to_owned(),
            inputs: vec![(rejection.field.clone(), rejection.value.clone())],
            arithmetic: rejection.message.clone(),
            facts: vec![event.clone()],
        })
        .collect();
    if let Some(wanted) = derived.wanted {
        all.extend(wanted.explanations);
        for obligation in &wanted.obligations {
            for segment in &obligation.segments {
                all.push(Explanation {
                    rule: words::recognition(obligation.method, &cx.tenant.policy),
                    decision: format!("{} is recognised from {}", obligation.line_id, segment.from),
                    inputs: inputs([
                        ("price", plain(segment.price)),
                        ("start", segment.terms.start.to_string()),
                        ("end", segment.terms.end.to_string()),
                        ("earned_before", plain(segment.base)),
                    ]),
                    arithmetic: format!(
                        "{} - {} = {} to recognise from {}",
                        plain(segment.price),
                        plain(segment.base),
                        plain(segment.price - segment.base),
                        segment.from
                    ),
                    facts: vec![segment.cause.clone()],
                });
            }
        }
    }
    for issued in &contract.issued {
        if issued.period != issued.concerns {
            all.push(Explanation {
                rule: "policy late_events: first_open_period".to_owned(),
                decision: format!("{} was posted in {}", issued.entry_id, issued.period),
                inputs: inputs([
                    ("concerns", issued.concerns.to_string()),
                    ("posted", issued.period.to_string()),
                ]),
                arithmetic: format!("{} is closed", issued.concerns),
                facts: vec![issued.cause.clone()],
            });
        }
    }
    all
}

impl Explanation {
    pub(super) fn allocation(event: &EventId, deal: &Deal, sold: &[Sold]) -> Explanation {
        let shares: Vec<String> = sold
            .iter()
            .map(|line| match line.ssp {
                Some(ssp) => {
                    format!("{} {} (ssp {})", line.line_id, plain(line.terms.price), plain(ssp))
                }
                None => format!("{} {}", line.line_id, plain(line.terms.price)),
            })
            .collect();
        let total = plain(sold.iter().map(|line| line.terms.price).sum());
        Explanation {
            rule: sold.iter().map(|line| line.rule).max().unwrap_or_default().to_owned(),
            decision: format!("the price of {} {} is allocated", deal.currency, total),
            inputs: inputs([("amount", plain(deal.amount)), ("lines", sold.len().to_string())]),
            arithmetic: format!("{} = {total}", shares.join(" + ")),
            facts: vec![event.clone()],
        }
    }

    pub(super) fn modification(
        event: &EventId,
        line: &Sold,
        treatment: Treatment,
        why: &str,
        from: Date,
    ) -> Explanation {
        let rule = match treatment {
            Treatment::SeparateContract => "ASC 606-10-25-12 separate contract",
            Treatment::Prospective | Treatment::Auto => "ASC 606-10-25-13(a) prospective",
            Treatment::CumulativeCatchUp => "ASC 606-10-25-13(b) cumulative catch-up",
        };
        Explanation {
            rule: rule.to_owned(),
            decision: format!("line {} from {from}: {why}", line.line_id),
            inputs: inputs([
                ("price", plain(line.terms.price)),
                ("distinct", words::stated(line.distinct)),
                ("ssp", line.ssp.map_or("none".to_owned(), plain)),
            ]),
            arithmetic: format!("new price {} until {}", plain(line.terms.price), line.terms.end),
            facts: vec![event.clone()],
        }
    }

    pub(super) fn renewal(event: &EventId, start: Date, ends: Date) -> Explanation {
        Explanation {
            rule: "ASC 606-10-25-3 a following term".to_owned(),
            decision: format!("a new term from {start}"),
            inputs: inputs([("start", start.to_string()), ("running_term_ends", ends.to_string())]),
            arithmetic: String::new(),
            facts: vec![event.clone()],
        }
    }

    pub(super) fn cancellation(
        event: &EventId,
        from: Date,
        billed: Decimal,
        earned: Decimal,
        credited: Decimal,
    ) -> Explanation {
        Explanation {
            rule: "ASC 606-10-25-13(a) termination of what remains".to_owned(),
            decision: format!("no service from {from}; {} is credited", plain(credited)),
            inputs: inputs([("billed", plain(billed)), ("earned", plain(earned))]),
            arithmetic: format!(
                "{} - {} = {} unused",
                plain(billed),
                plain(earned),
                plain(billed - earned)
            ),
            facts: vec![event.clone()],
        }
    }

    pub(super) fn estimate(event: &EventId, it: &Estimate, included: Decimal, date: Date) -> Explanation {
        let (rule, arithmetic) = match (&it.consideration, it.consideration.method()) {
            (Consideration::Resolved(_), _) | (_, None) => (
                "ASC 606-10-32-43 the uncertainty is resolved",
                format!("{} is owed", plain(included)),
            ),
            (Consideration::Outcomes { outcomes, .. }, Some(method)) => {
                let of = |(amount, probability)| format!("{} at {} %", plain(amount), plain(probability));
                let shown: Vec<String> = outcomes.iter().map(|it| of((it.amount, it.probability))).collect();
                (
                    estimate_rule(method),
                    format!("{} = {}", shown.join(", "), plain(it.consideration.estimated())),
                )
            }
            (Consideration::Amount { amount, .. }, Some(method)) => {
                (estimate_rule(method), format!("{} as stated", plain(*amount)))
            }
        };
        let to = match &it.line_id {
            Some(line) => format!("of line {line} (ASC 606-10-32-40)"),
            None => "of all lines as at inception (ASC 606-10-32-43)".to_owned(),
        };
        Explanation {
            rule: rule.to_owned(),
            decision: format!("{} is included in the price {to} from {date}", plain(included)),
            inputs: inputs([
                ("estimate", it.estimate_id.to_string()),
                ("estimated", plain(it.consideration.estimated())),
                ("included", plain(included)),
                ("reason", it.reason.clone().unwrap_or_default()),
            ]),
            arithmetic,
            facts: vec![event.clone()],
        }
    }

    pub(super) fn credit(event: &EventId, it: &Credit, amount: Decimal, past: bool) -> Explanation {
        let rule = match past {
            true => "ASC 606-10-55-114 credit for past defects: revenue now",
            false => "ASC 606-10-25-13(a) price concession: the remaining price first",
        };
        Explanation {
            rule: rule.to_owned(),
            decision: format!("{} is credited on {}", plain(amount), it.date),
            inputs: inputs([
                ("amount", plain(it.amount)),
                ("reason", it.reason.clone().unwrap_or_default()),
            ]),
            arithmetic: format!("min({}, billed) = {}", plain(it.amount), plain(amount)),
            facts: vec![event.clone()],
        }
    }
}

fn estimate_rule(method: EstimateMethod) -> &'static str {
    match method {
        EstimateMethod::ExpectedValue => "ASC 606-10-32-8(a) expected value, within the constraint of 32-11",
        EstimateMethod::MostLikelyAmount => "ASC 606-10-32-8(b) most likely amount, within the constraint of 32-11",
    }
}

/// An amount in its shortest form, however it is held.
fn plain(amount: Decimal) -> String {
    amount.normalize().to_string()
}

fn inputs<const N: usize>(pairs: [(&str, String); N]) -> Vec<(String, String)> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
