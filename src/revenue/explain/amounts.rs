//! Where each amount comes from: what is earned in each period, and what was invoiced, credited, paid and remeasured.
//!
//! Invariant: the amounts earned are those of the derived schedule, by the period they concern, and sum to the price.
//! Deliberately absent: terms and their changes, which [`super::explain`] has.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::contract::Contract;
use super::super::curve::MONTH;
use super::super::derive::{Wanted, derive};
use super::super::journal::{Issued, Kind, What};
use super::super::obligation::{Curve, LumpReason, Obligation};
use super::super::period::{Period, add_days};
use super::super::policy::StraightLine;
use super::super::reference::Context;
use super::{Explanation, inputs, plain, words};

/// One amount of one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedAmount {
    /// The period it concerns.
    pub period: Period,
    /// In the contract's currency.
    pub amount: Decimal,
    pub why: Explanation,
}

/// Explains every amount of a contract: first what each obligation earns, period by period, then what was issued beside
/// revenue. Empty while the deal is a draft.
pub fn amounts(contract: &Contract, cx: &Context) -> Vec<ExplainedAmount> {
    let Some(wanted) = derive(&contract.facts, cx.tenant).wanted else {
        return Vec::new();
    };
    let mut all: Vec<ExplainedAmount> = wanted
        .obligations
        .iter()
        .flat_map(|obligation| earned(obligation, cx))
        .collect();
    all.extend(
        contract
            .issued
            .iter()
            .filter_map(|issued| beside_revenue(issued, &wanted)),
    );
    all
}

fn earned(obligation: &Obligation, cx: &Context) -> Vec<ExplainedAmount> {
    let calendar = cx.tenant.fiscal;
    let last_period = calendar.of(obligation.last_day());
    let mut period = calendar.of(obligation.first_day());
    let mut all = Vec::new();
    loop {
        let (first, last) = (calendar.first_day(period), calendar.last_day(period));
        let next = match period == last_period {
            true => Date::MAX,
            false => add_days(last, 1),
        };
        let (before, after) = (obligation.flow_before(first), obligation.flow_before(next));
        if after != before {
            let end = last.min(obligation.last_day());
            let segment = obligation.segment_before(next.min(obligation.stop.unwrap_or(next)));
            all.push(ExplainedAmount {
                period,
                amount: after - before,
                why: Explanation {
                    rule: words::recognition(obligation.method, &cx.tenant.policy),
                    decision: format!("{} earns {} in {period}", obligation.line_id, plain(after - before)),
                    inputs: inputs([
                        ("price", plain(segment.price)),
                        ("start", segment.terms.start.to_string()),
                        ("end", segment.terms.end.to_string()),
                        ("terms_since", segment.from.to_string()),
                    ]),
                    arithmetic: format!(
                        "{}: {} earned by {end}, less {} earned before {first} = {}",
                        measure(obligation, next, cx),
                        plain(after),
                        plain(before),
                        plain(after - before)
                    ),
                    facts: obligation.provenance(first, last),
                },
            });
        }
        let lumps = obligation.lumps.iter();
        for lump in lumps.filter(|lump| calendar.of(lump.date) == period && !lump.amount.is_zero()) {
            let rule = match lump.reason {
                LumpReason::CatchUp if obligation.estimate.is_some() => {
                    "ASC 606-10-32-43 change of an estimate: revenue to date"
                }
                LumpReason::CatchUp => "ASC 606-10-25-13(b) cumulative catch-up",
                LumpReason::Credit => "ASC 606-10-55-114 credit for past defects: revenue now",
                LumpReason::Forfeit => {
                    "ASC 606-10-25-13, 55-46 to 55-48 billed, not refundable, and nothing is owed any more"
                }
                LumpReason::Refund => "ASC 606-10-32-10 refunded beyond the unused part",
            };
            all.push(ExplainedAmount {
                period,
                amount: lump.amount,
                why: Explanation {
                    rule: rule.to_owned(),
                    decision: format!("{} earns {} on {}", obligation.line_id, plain(lump.amount), lump.date),
                    inputs: inputs([("date", lump.date.to_string())]),
                    arithmetic: format!("{} at once", plain(lump.amount)),
                    facts: vec![lump.cause.clone()],
                },
            });
        }
        if period >= last_period {
            return all;
        }
        period = calendar.next(period);
    }
}

/// What is measured on the days before `day`.
fn measure(obligation: &Obligation, day: Date, cx: &Context) -> String {
    let until = day.min(obligation.stop.unwrap_or(day));
    let segment = obligation.segment_before(until);
    let done = &obligation.performance;
    let measured = match &segment.curve {
        Curve::Time(time) => {
            let (weight, total) = (time.weight_before(until), time.total_weight());
            let months = |weight: i64| plain((Decimal::from(weight) / Decimal::from(MONTH)).round_dp(4));
            match cx.tenant.policy.straight_line {
                StraightLine::Daily | StraightLine::Thirty360 => {
                    format!("{} x {weight} of {total} days", plain(time.amount))
                }
                StraightLine::Monthly | StraightLine::HalfMonth => {
                    format!(
                        "{} x {} of {} months",
                        plain(time.amount),
                        months(weight),
                        months(total)
                    )
                }
                // Booked by whole service months, of which a day in the middle shows no share.
                StraightLine::MonthlyEven => format!("{} from {} to {}", plain(time.amount), time.from, time.to),
            }
        }
        Curve::Point { amount, date, .. } => format!("{} on {date} or on delivery", plain(*amount)),
        Curve::Units { amount, base, full } => format!(
            "{} x ({} - {}) of ({} - {}) units",
            plain(*amount),
            plain(done.units_before(until)),
            plain(*base),
            plain(*full),
            plain(*base)
        ),
        Curve::Milestones { amount, open } => {
            let accepted = open.iter().filter(|(id, _)| done.accepted_before(id, until));
            let names: Vec<&str> = accepted.map(|(id, _)| id.as_str()).collect();
            format!("{} by milestones, accepted: {}", plain(*amount), names.join(", "))
        }
        Curve::Progress { amount, base } => {
            let now = done.reached_before(until);
            let most = (*amount).max(Decimal::ZERO);
            let materials = (now.materials - base.handed_over).clamp(Decimal::ZERO, most);
            let handed_over = (now.handed_over - base.handed_over).clamp(Decimal::ZERO, materials);
            let work = format!(
                "{} x ({} - {}) of (1 - {}) complete",
                plain(*amount - materials),
                plain(now.ratio.round_dp(6)),
                plain(base.ratio.round_dp(6)),
                plain(base.ratio.round_dp(6))
            );
            match materials.is_zero() {
                true => work,
                // ASC 606-10-55-21: such materials earn their own cost.
                false => format!(
                    "{work} + {} of {} uninstalled materials handed over, at cost",
                    plain(handed_over),
                    plain(materials)
                ),
            }
        }
        Curve::Usage { prepaid, .. } => format!(
            "usage reported {}, prepaid {}",
            plain(done.usage_before(until)),
            plain(*prepaid)
        ),
    };
    let earlier = segment.base - segment.offset;
    match earlier.is_zero() {
        true => measured,
        false => format!("{} under earlier terms + {measured}", plain(earlier)),
    }
}

/// An issued entry that is no revenue; revenue is explained where it is earned.
fn beside_revenue(issued: &Issued, wanted: &Wanted) -> Option<ExplainedAmount> {
    let (rule, what) = match issued.key.what {
        What::Recognition | What::Lump => return None,
        What::Invoice => (
            "ASC 606-10-45-4 a receivable; ASC 606-10-45-2 owed until earned",
            "invoiced",
        ),
        What::Application if issued.key.fact.is_some() => (
            "ASC 606-10-32-10 what is left of a deposit when the contract ends",
            "owed back",
        ),
        What::Application => ("ASC 606-10-45-2 a deposit meets its invoice", "applied"),
        What::Payment => (
            "ASC 606-10-45-2 cash settles the receivable, the rest is a deposit",
            "paid",
        ),
        What::CreditMemo => ("ASC 606-10-32-43 less is owed by the customer", "credited"),
        What::Remeasurement => ("ASC 830-20-35-1 a monetary item at the rate of the day", "remeasured"),
    };
    let rule = match issued.kind {
        Kind::Adjustment | Kind::Reversal => format!("{rule}; the difference to what was issued before"),
        Kind::Invoice | Kind::Payment | Kind::CreditMemo | Kind::Recognition | Kind::FxRemeasurement => rule.to_owned(),
    };
    let amount = match issued.key.what {
        // It has no amount of its own: the ledger says how much of the deposit it was.
        What::Application => -issued.position,
        _ => issued.amount,
    };
    let (net, tax) = (plain(amount), plain(issued.tax));
    let gross = plain(amount + issued.tax);
    let (decision, arithmetic) = match issued.key.what {
        What::Remeasurement => (
            format!(
                "the receivable is remeasured on {}, in functional currency alone",
                issued.date
            ),
            String::new(),
        ),
        What::Invoice | What::Application | What::Payment | What::Lump | What::CreditMemo | What::Recognition => (
            format!("{} {gross} {what} on {}", wanted.currency, issued.date),
            format!("{net} + {tax} tax = {gross}"),
        ),
    };
    Some(ExplainedAmount {
        period: issued.concerns,
        amount: issued.amount,
        why: Explanation {
            rule,
            decision,
            inputs: inputs([
                ("entry", issued.entry_id.to_string()),
                ("kind", issued.kind.as_str().replace('_', " ")),
            ]),
            arithmetic,
            facts: vec![issued.cause.clone()],
        },
    })
}
