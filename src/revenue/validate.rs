//! What a fact must satisfy by itself, before its deal is looked at.
//!
//! Invariant: a fact that passes is inside the bounds of `money` and of the days 1970 to 2200, its lines add up, and
//! its ids are unique where they must be. Checks run in the order of [`Code`]; the first that fails is reported.
//! Deliberately absent: everything that needs the deal, the policy or reference facts.

use std::collections::BTreeSet;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::allocate::line_ssp;
use super::fact::*;
use super::money::{Currency, MAX_AMOUNT, MAX_QUANTITY, MAX_RATE};
use super::period::add_months;
use super::reject::{Code, Rejection};

/// The longest term accepted, in months: a century.
pub const MAX_TERM_MONTHS: u32 = 1200;
/// The most lines a deal may have.
pub const MAX_LINES: usize = 1000;
/// The most stated invoices a deal may have: one a month for a century.
pub const MAX_INSTALMENTS: usize = 1200;
/// The most outcomes an estimate may have.
pub const MAX_OUTCOMES: usize = 1000;
const FIRST_DAY: Date = date(1970, 1, 1);
const LAST_DAY: Date = date(2200, 12, 31);

impl Fact {
    /// Checks everything that the fact alone can show to be wrong.
    pub fn validate(&self) -> Result<(), Rejection> {
        let mut found: Vec<Rejection> = Vec::new();
        check_days(
            &[(
                "occurred_at",
                Some(self.occurred_at.to_zoned_datetime(TimeZone::UTC).date()),
            )],
            &mut found,
        );
        match &self.body {
            Body::DealClosed(deal) => {
                check_deal(deal, &mut found);
                if deal.contract_start.is_none() {
                    found.push(missing("payload.contract_start"));
                }
                if deal.term_months.is_none() && deal.contract_end.is_none() {
                    found.push(missing("payload.term_months"));
                }
            }
            Body::DealAmended(deal) | Body::DealRenewed(deal) => check_deal(deal, &mut found),
            Body::DealCancelled(it) => {
                check_days(&[("payload.effective_date", it.effective_date)], &mut found);
                if let Refund::Amount(amount) = it.refund {
                    check_size("payload.refund", amount, MAX_AMOUNT, &mut found);
                    check_not_negative("payload.refund", amount, &mut found);
                }
            }
            Body::MilestoneAccepted(it) => check_days(&[("payload.date", Some(it.date))], &mut found),
            Body::DeliveryRecorded(it) => {
                check_days(&[("payload.date", Some(it.date))], &mut found);
                check_size("payload.quantity", it.quantity, MAX_QUANTITY, &mut found);
                check_scale("payload.quantity", it.quantity, 12, &mut found);
                if it.quantity.is_zero() {
                    found.push(Rejection::new(
                        Code::InvalidQuantity,
                        "payload.quantity",
                        it.quantity,
                        "a delivery needs a quantity other than zero (negative for a return)",
                    ));
                }
            }
            Body::ProgressMeasured(it) => check_progress(it, &mut found),
            Body::UsageReported(it) => {
                check_days(&[("payload.date", Some(it.date))], &mut found);
                check_size("payload.quantity", it.quantity, MAX_QUANTITY, &mut found);
                check_scale("payload.quantity", it.quantity, 12, &mut found);
                if let Some(amount) = it.amount {
                    check_size("payload.amount", amount, MAX_AMOUNT, &mut found);
                    check_scale("payload.amount", amount, 6, &mut found);
                }
            }
            Body::CreditGranted(it) => {
                check_days(&[("payload.date", Some(it.date))], &mut found);
                check_size("payload.amount", it.amount, MAX_AMOUNT, &mut found);
                check_positive("payload.amount", it.amount, &mut found);
            }
            Body::ConsiderationEstimated(it) => check_estimate(it, &mut found),
            Body::PaymentReceived(it) => {
                check_days(&[("payload.date", Some(it.date))], &mut found);
                check_size("payload.amount", it.amount, MAX_AMOUNT, &mut found);
                check_positive("payload.amount", it.amount, &mut found);
                check_precision("payload.amount", it.amount, it.currency, &mut found);
            }
            Body::FxRate(it) => {
                check_days(&[("payload.date", Some(it.date))], &mut found);
                check_rate(it, &mut found);
            }
            Body::AccountMapped(it) => {
                check_days(&[("payload.from", Some(it.from))], &mut found);
                if it.accounting_id.trim().is_empty() {
                    found.push(missing("payload.accounting_id"));
                }
            }
            Body::PeriodClosed(_) | Body::PeriodReopened(_) => {}
            Body::ClockTicked(day) => check_days(&[("payload.date", Some(*day))], &mut found),
        }
        match found.into_iter().min_by_key(|rejection| rejection.code) {
            Some(first) => Err(first),
            None => Ok(()),
        }
    }
}

fn check_deal(deal: &Deal, found: &mut Vec<Rejection>) {
    check_days(
        &[
            ("payload.contract_start", deal.contract_start),
            ("payload.contract_end", deal.contract_end),
            ("payload.effective_date", deal.effective_date),
        ],
        found,
    );
    if let (Some(start), Some(end)) = (deal.contract_start, deal.contract_end)
        && end < start
    {
        found.push(ends_before_start("payload.contract_end", end));
    }
    if let (Some(start), Some(end)) = (deal.contract_start, deal.contract_end)
        && end > add_months(start, i64::from(MAX_TERM_MONTHS))
    {
        found.push(Rejection::new(
            Code::InvalidTerm,
            "payload.contract_end",
            end,
            "a contract lasts at most a century",
        ));
    }
    if let Some(months) = deal.term_months
        && (months == 0 || months > MAX_TERM_MONTHS)
    {
        found.push(Rejection::new(
            Code::InvalidTerm,
            "payload.term_months",
            months,
            "a term has 1 to 1200 months",
        ));
    }
    check_size("payload.amount", deal.amount, MAX_AMOUNT, found);
    check_not_negative("payload.amount", deal.amount, found);
    check_precision("payload.amount", deal.amount, deal.currency, found);
    if let Some(tax) = deal.tax {
        check_tax(tax, deal.currency, found);
    }
    if deal.lines.len() > MAX_LINES {
        found.push(Rejection::new(
            Code::Overflow,
            "payload.line_items",
            deal.lines.len(),
            "a deal has at most 1000 lines",
        ));
        return;
    }
    let mut ids = BTreeSet::new();
    for (index, line) in deal.lines.iter().enumerate() {
        let at = |field: &str| format!("payload.line_items[{index}].{field}");
        if !ids.insert(&line.id) {
            found.push(Rejection::new(
                Code::DuplicateLine,
                &at("id"),
                &line.id,
                "another line of the deal has this id; line ids are unique within a deal",
            ));
        }
        check_line(line, deal.currency, at, found);
    }
    check_sum(deal, found);
    check_instalments(deal, found);
}

fn check_instalments(deal: &Deal, found: &mut Vec<Rejection>) {
    if deal.instalments.is_empty() {
        return;
    }
    if deal.instalments.len() > MAX_INSTALMENTS {
        found.push(Rejection::new(
            Code::Overflow,
            "payload.instalments",
            deal.instalments.len(),
            "a deal has at most 1200 instalments",
        ));
        return;
    }
    for (index, it) in deal.instalments.iter().enumerate() {
        let at = |field: &str| format!("payload.instalments[{index}].{field}");
        check_days(&[(&at("date"), Some(it.date))], found);
        check_size(&at("amount"), it.amount, MAX_AMOUNT, found);
        check_positive(&at("amount"), it.amount, found);
        check_precision(&at("amount"), it.amount, deal.currency, found);
    }
    if deal.billing_cycle == Some(BillingCycle::Milestone) {
        found.push(Rejection::new(
            Code::InvalidInstalments,
            "payload.instalments",
            "billing_cycle milestone",
            "a deal is invoiced by milestones or by instalments; leave one of them out",
        ));
    }
    if found.iter().any(|it| it.code == Code::Overflow) {
        return;
    }
    let sum: Decimal = deal.instalments.iter().map(|it| it.amount).sum();
    if sum != deal.amount {
        found.push(Rejection::new(
            Code::InvalidInstalments,
            "payload.instalments",
            format!("{sum} of {}", deal.amount),
            "the instalments, past ones included, must sum to the deal's amount",
        ));
    }
}

fn check_line(line: &Line, currency: Currency, at: impl Fn(&str) -> String, found: &mut Vec<Rejection>) {
    check_days(&[(&at("start"), line.start), (&at("end"), line.end)], found);
    if let (Some(start), Some(end)) = (line.start, line.end)
        && end < start
    {
        found.push(ends_before_start(&at("end"), end));
    }
    check_size(&at("amount"), line.amount, MAX_AMOUNT, found);
    check_precision(&at("amount"), line.amount, currency, found);
    if line.amount.is_sign_negative() && !line.amount.is_zero() && !line.is_discount() {
        found.push(Rejection::new(
            Code::InvalidAmount,
            &at("amount"),
            line.amount,
            "a line's amount is zero or more; only a line of type `discount` may be negative",
        ));
    }
    for (field, value) in [
        ("unit_price", line.unit_price),
        ("ssp", line.ssp),
        ("discount", line.discount),
        ("ssp_range.low", line.ssp_range.map(|range| range.low)),
        ("ssp_range.high", line.ssp_range.map(|range| range.high)),
    ] {
        if let Some(value) = value {
            check_size(&at(field), value, MAX_AMOUNT, found);
            check_scale(&at(field), value, 12, found);
            check_not_negative(&at(field), value, found);
        }
    }
    if let Some(quantity) = line.quantity {
        check_size(&at("quantity"), quantity, MAX_QUANTITY, found);
        check_scale(&at("quantity"), quantity, 12, found);
        if quantity <= Decimal::ZERO {
            found.push(Rejection::new(
                Code::InvalidQuantity,
                &at("quantity"),
                quantity,
                "a line's quantity is more than zero",
            ));
        }
    }
    if line.method == Some(Method::Units) && line.quantity.is_none() {
        found.push(missing(&at("quantity")));
    }
    if let Some(range) = line.ssp_range
        && range.high < range.low
    {
        found.push(Rejection::new(
            Code::InvalidSsp,
            &at("ssp_range"),
            format!("{} to {}", range.low, range.high),
            "the range's high is below its low",
        ));
    }
    let within = |value: Option<Decimal>| value.is_none_or(|value| value.abs() <= MAX_AMOUNT);
    let sane = within(line.ssp)
        && line
            .quantity
            .is_none_or(|it| it > Decimal::new(1, 12) && it <= MAX_QUANTITY);
    if sane && within(Some(line.amount)) && !within(line_ssp(line)) {
        found.push(Rejection::new(
            Code::Overflow,
            &at("ssp"),
            line.ssp.unwrap_or_default(),
            "the selling price of all units is beyond the largest amount",
        ));
    }
    check_milestones(line, &at, found);
}

fn check_milestones(line: &Line, at: &impl Fn(&str) -> String, found: &mut Vec<Rejection>) {
    if line.milestones.is_empty() {
        if line.method == Some(Method::Milestone) {
            found.push(missing(&at("milestones")));
        }
        return;
    }
    let mut ids = BTreeSet::new();
    let mut sum = Decimal::ZERO;
    let mut bad = None;
    for milestone in &line.milestones {
        if !ids.insert(&milestone.id) {
            bad = Some(format!("milestone {} appears twice", milestone.id));
        }
        let (share, most) = match milestone.share {
            MilestoneShare::Amount(amount) => (amount, MAX_AMOUNT),
            MilestoneShare::Percent(percent) => (percent, Decimal::ONE_HUNDRED),
        };
        if share.is_sign_negative() || share > most {
            bad = Some(format!("milestone {} has a share of {share}", milestone.id));
        } else {
            sum += match milestone.share {
                MilestoneShare::Amount(amount) => amount,
                MilestoneShare::Percent(percent) => {
                    line.amount.min(MAX_AMOUNT).max(-MAX_AMOUNT) * percent / Decimal::ONE_HUNDRED
                }
            };
        }
    }
    if bad.is_none() && sum != line.amount {
        bad = Some(format!("the shares sum to {} of {}", sum.normalize(), line.amount));
    }
    if let Some(value) = bad {
        found.push(Rejection::new(
            Code::InvalidMilestones,
            &at("milestones"),
            value,
            "milestone ids are unique and their amounts or percents sum to the line",
        ));
    }
}

/// Lines add up net of their discounts; gross of them; or, where every line states a selling price of its own, the
/// deal's amount is the price of the bundle.
fn check_sum(deal: &Deal, found: &mut Vec<Rejection>) {
    if deal.lines.is_empty() || found.iter().any(|it| it.code == Code::Overflow) {
        return;
    }
    let sum: Decimal = deal.lines.iter().map(|line| line.amount).sum();
    let discounts: Decimal = deal.lines.iter().filter_map(|line| line.discount).sum();
    let priced = deal
        .lines
        .iter()
        .all(|line| line.ssp.is_some() || line.ssp_range.is_some());
    if sum == deal.amount || sum - discounts == deal.amount || priced {
        return;
    }
    found.push(Rejection::new(
        Code::LinesDoNotAddUp,
        "payload.amount",
        format!("{}, lines {sum}", deal.amount),
        "the line amounts must sum to the deal's amount; correct one of them at the source",
    ));
}

fn check_tax(tax: Tax, currency: Currency, found: &mut Vec<Rejection>) {
    match tax.basis {
        TaxBasis::Rate(rate) => {
            if rate.is_sign_negative() || rate >= Decimal::ONE {
                found.push(Rejection::new(
                    Code::InvalidPercent,
                    "payload.tax.rate",
                    rate,
                    "a tax rate is 0 or more and below 1 (0.2), or given in percent (20)",
                ));
            }
        }
        TaxBasis::Amount(amount) => {
            check_size("payload.tax.amount", amount, MAX_AMOUNT, found);
            check_not_negative("payload.tax.amount", amount, found);
            check_precision("payload.tax.amount", amount, currency, found);
        }
    }
}

fn check_progress(it: &Progress, found: &mut Vec<Rejection>) {
    check_days(&[("payload.date", Some(it.date))], found);
    match it.measure {
        ProgressMeasure::Percent(percent) => {
            check_scale("payload.percent", percent, 12, found);
            if percent.is_sign_negative() || percent > Decimal::ONE_HUNDRED {
                found.push(Rejection::new(
                    Code::InvalidPercent,
                    "payload.percent",
                    percent,
                    "percent complete is 0 to 100",
                ));
            }
        }
        ProgressMeasure::Cost {
            to_date,
            expected,
            materials,
        } => {
            check_size("payload.cost_to_date", to_date, MAX_AMOUNT, found);
            check_not_negative("payload.cost_to_date", to_date, found);
            check_size("payload.cost_expected", expected, MAX_AMOUNT, found);
            check_positive("payload.cost_expected", expected, found);
            check_scale("payload.cost_to_date", to_date, 6, found);
            check_scale("payload.cost_expected", expected, 6, found);
            if to_date > expected {
                found.push(Rejection::new(
                    Code::InvalidPercent,
                    "payload.cost_to_date",
                    to_date,
                    "the cost to date is more than the cost expected in all; revise the expectation",
                ));
            }
            if let Some(materials) = materials {
                check_materials(materials, to_date, expected, found);
            }
        }
    }
    if let Some(precision) = it.precision
        && precision > 12
    {
        found.push(Rejection::new(
            Code::InvalidPercent,
            "payload.precision",
            precision,
            "the precision is 0 to 12 decimals of the ratio",
        ));
    }
}

fn check_materials(it: Materials, to_date: Decimal, expected: Decimal, found: &mut Vec<Rejection>) {
    for (field, value) in [
        ("payload.materials_to_date", it.to_date),
        ("payload.materials_expected", it.expected),
    ] {
        check_size(field, value, MAX_AMOUNT, found);
        check_not_negative(field, value, found);
        check_scale(field, value, 6, found);
    }
    if it.to_date > it.expected || it.to_date > to_date {
        found.push(Rejection::new(
            Code::InvalidPercent,
            "payload.materials_to_date",
            it.to_date,
            "materials handed over are part of materials_expected and of cost_to_date",
        ));
    }
    let work = expected.saturating_sub(it.expected);
    if work <= Decimal::ZERO || to_date.saturating_sub(it.to_date) > work {
        found.push(Rejection::new(
            Code::InvalidPercent,
            "payload.materials_expected",
            it.expected,
            "materials_expected is part of cost_expected, and the rest of it covers the rest of cost_to_date",
        ));
    }
}

fn check_estimate(it: &Estimate, found: &mut Vec<Rejection>) {
    check_days(&[("payload.date", Some(it.date))], found);
    let included = match &it.consideration {
        Consideration::Outcomes { outcomes, included, .. } => {
            check_outcomes(outcomes, found);
            *included
        }
        Consideration::Amount { amount, included, .. } => {
            check_estimated("payload.amount", *amount, found);
            *included
        }
        Consideration::Resolved(amount) => {
            check_estimated("payload.amount", *amount, found);
            None
        }
    };
    let Some(included) = included else {
        return;
    };
    check_estimated("payload.included", included, found);
    if found
        .iter()
        .any(|it| it.code == Code::Overflow || it.code == Code::InvalidEstimate)
    {
        return;
    }
    let estimated = it.consideration.estimated();
    if included > estimated {
        found.push(Rejection::new(
            Code::InvalidEstimate,
            "payload.included",
            format!("{included} of {}", estimated.normalize()),
            "the constraint only lowers the price: include no more than is estimated (ASC 606-10-32-11)",
        ));
    }
}

fn check_outcomes(outcomes: &[Outcome], found: &mut Vec<Rejection>) {
    if outcomes.len() > MAX_OUTCOMES {
        found.push(Rejection::new(
            Code::Overflow,
            "payload.outcomes",
            outcomes.len(),
            "an estimate has at most 1000 outcomes",
        ));
        return;
    }
    let mut sum = Decimal::ZERO;
    for (index, it) in outcomes.iter().enumerate() {
        let at = |field: &str| format!("payload.outcomes[{index}].{field}");
        check_estimated(&at("amount"), it.amount, found);
        check_scale(&at("probability"), it.probability, 6, found);
        if it.probability.is_sign_negative() || it.probability > Decimal::ONE_HUNDRED {
            found.push(Rejection::new(
                Code::InvalidPercent,
                &at("probability"),
                it.probability,
                "a probability is 0 to 100 percent",
            ));
        } else {
            sum += it.probability;
        }
    }
    if sum != Decimal::ONE_HUNDRED {
        found.push(Rejection::new(
            Code::InvalidEstimate,
            "payload.outcomes",
            format!("{} percent in all", sum.normalize()),
            "the probabilities of all outcomes sum to 100 percent",
        ));
    }
}

fn check_estimated(field: &str, amount: Decimal, found: &mut Vec<Rejection>) {
    check_size(field, amount, MAX_AMOUNT, found);
    check_scale(field, amount, 6, found);
}

fn check_rate(it: &FxRate, found: &mut Vec<Rejection>) {
    check_scale("payload.rate", it.rate, 12, found);
    if it.rate <= Decimal::ZERO || it.rate > MAX_RATE || it.rate < Decimal::ONE / MAX_RATE {
        found.push(Rejection::new(
            Code::InvalidRate,
            "payload.rate",
            it.rate,
            "a rate is more than zero and at most 10^9",
        ));
    }
    if it.base == it.quote && it.rate != Decimal::ONE {
        found.push(Rejection::new(
            Code::InvalidRate,
            "payload.quote",
            it.quote,
            "a currency has the rate 1 to itself",
        ));
    }
}

fn check_days(days: &[(&str, Option<Date>)], found: &mut Vec<Rejection>) {
    for (field, day) in days {
        if let Some(day) = day
            && !(FIRST_DAY..=LAST_DAY).contains(day)
        {
            found.push(Rejection::new(
                Code::InvalidDate,
                field,
                day,
                "days lie between 1970-01-01 and 2200-12-31",
            ));
        }
    }
}

/// Digits after the point that a record can carry: amounts 6, prices and quantities 12.
fn check_scale(field: &str, value: Decimal, decimals: u32, found: &mut Vec<Rejection>) {
    if value.normalize().scale() > decimals {
        found.push(Rejection::new(
            Code::TooPrecise,
            field,
            value,
            &format!("at most {decimals} decimals are kept; round at the source"),
        ));
    }
}

fn check_size(field: &str, value: Decimal, most: Decimal, found: &mut Vec<Rejection>) {
    if value.abs() > most {
        found.push(Rejection::new(
            Code::Overflow,
            field,
            value,
            &format!("the largest value accepted is {most}"),
        ));
    }
}

fn check_not_negative(field: &str, value: Decimal, found: &mut Vec<Rejection>) {
    if value < Decimal::ZERO {
        found.push(Rejection::new(
            Code::InvalidAmount,
            field,
            value,
            "must be zero or more",
        ));
    }
}

fn check_positive(field: &str, value: Decimal, found: &mut Vec<Rejection>) {
    if value <= Decimal::ZERO {
        found.push(Rejection::new(
            Code::InvalidAmount,
            field,
            value,
            "must be more than zero",
        ));
    }
}

fn check_precision(field: &str, value: Decimal, currency: Currency, found: &mut Vec<Rejection>) {
    if !currency.holds(value) {
        found.push(Rejection::new(
            Code::TooPrecise,
            field,
            value,
            &format!("{currency} has {} decimals; round at the source", currency.exponent()),
        ));
    }
}

fn missing(field: &str) -> Rejection {
    Rejection::new(Code::MissingField, field, "nothing", "this field is required here")
}

fn ends_before_start(field: &str, end: Date) -> Rejection {
    Rejection::new(Code::InvalidDate, field, end, "ends before it starts")
}
