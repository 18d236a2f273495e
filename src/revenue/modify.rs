//! Changing an obligation from a day on (ASC 606-10-25-12, 25-13).
//!
//! ```text
//! added distinct goods at their selling price -> separate contract      (25-12)
//! what remains is distinct                    -> prospective            (25-13(a))
//! what remains is not distinct                -> cumulative catch-up    (25-13(b))
//! a mix                                       -> each line its own way  (25-13(c))
//! ```
//!
//! Invariant: no function here changes what is earned before the day of the change; terms equal to those in force
//! change nothing, so an amendment and its exact undo restore the rows. Deliberately absent: which facts exist (`derive`).

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::allocate::{Sold, milestone_weight};
use super::curve::{Spread, TimeCurve};
use super::fact::Method;
use super::ids::{ContractId, EventId, ObligationId};
use super::money::largest_remainder;
use super::obligation::{Curve, LineTerms, Lump, LumpReason, Obligation, Segment};
use super::performance::{Performance, Reached};
use super::policy::Treatment;

/// A new obligation for a line as sold. `units_before` are units of the same line that belong to an earlier contract.
pub fn promise(
    id: ObligationId,
    contract: ContractId,
    sold: &Sold,
    performance: Performance,
    units_before: Decimal,
    cause: &EventId,
    spread: Spread,
) -> Obligation {
    let terms = sold.terms.clone();
    let curve = initial(&terms, terms.price, units_before, spread);
    Obligation {
        id,
        contract,
        line_id: sold.line_id.clone(),
        line_type: sold.line_type.clone(),
        method: terms.method,
        recurring: sold.recurring,
        start: terms.start,
        end: terms.end,
        currency: spread.currency,
        segments: vec![Segment {
            from: terms.start,
            base: Decimal::ZERO,
            offset: Decimal::ZERO,
            curve,
            price: terms.price,
            terms,
            cause: cause.clone(),
        }],
        lumps: Vec::new(),
        credits: Vec::new(),
        stop: None,
        units_before,
        estimate: None,
        performance,
    }
}

/// How a line that was sold before changes, and why: the given treatment, else what the lines say.
pub fn treatment_of(given: Treatment, sold: &Sold, existing: Option<&Obligation>) -> (Treatment, &'static str) {
    match (given, existing) {
        (Treatment::SeparateContract, Some(existing)) if measured_as_one(sold, existing) => (
            Treatment::Prospective,
            "the line is measured as one, so that nothing measured could tell what is added from what was there",
        ),
        (Treatment::SeparateContract | Treatment::Prospective | Treatment::CumulativeCatchUp, _) => (given, "as given"),
        (Treatment::Auto, None) => match (sold.distinct, sold.ssp) {
            (Some(false), _) => (Treatment::CumulativeCatchUp, "the added goods are not distinct"),
            (Some(true) | None, Some(ssp)) if ssp == sold.terms.price => (
                Treatment::SeparateContract,
                "the added goods are distinct and priced at their standalone selling price",
            ),
            (Some(true) | None, Some(_) | None) => (
                Treatment::Prospective,
                "the added goods are distinct, but not shown to be at their standalone selling price",
            ),
        },
        (Treatment::Auto, Some(existing)) => match (sold.distinct, sold.terms.method) {
            (Some(false), _) => (Treatment::CumulativeCatchUp, "the remaining goods are not distinct"),
            (None, Method::Progress) => (
                Treatment::CumulativeCatchUp,
                "progress of one undertaking is measured, so what remains is not distinct",
            ),
            (_, _) if added_at_ssp(sold, existing).is_some() => (
                Treatment::SeparateContract,
                "units are added at their standalone selling price",
            ),
            (_, _) => (Treatment::Prospective, "the remaining goods are distinct"),
        },
    }
}

/// Whether what is added to a line could not be told apart in what is measured of it: acceptances, progress and usage are
/// the line's, and would be earned in both contracts. Units are counted off one contract after the other, time passes in
/// each.
fn measured_as_one(sold: &Sold, existing: &Obligation) -> bool {
    [sold.terms.method, existing.method].iter().any(|method| match method {
        Method::StraightLine | Method::Units => false,
        Method::PointInTime | Method::Milestone | Method::Progress | Method::Usage => true,
    })
}

/// Units added to a line of units at their selling price: the quantity and price of the addition.
pub fn added_at_ssp(sold: &Sold, existing: &Obligation) -> Option<(Decimal, Decimal)> {
    let (quantity, price) = added(sold, existing)?;
    let ssp = sold.ssp? * quantity / sold.terms.quantity?;
    (sold.terms.method == Method::Units && ssp == price).then_some((quantity, price))
}

/// What a changed line adds to the one in force; `None` when it adds no price.
pub fn added(sold: &Sold, existing: &Obligation) -> Option<(Decimal, Decimal)> {
    let old = &existing.last_segment().terms;
    let price = sold.terms.price - old.price;
    let quantity = sold.terms.quantity.unwrap_or_default() - old.quantity.unwrap_or_default();
    let units_missing = sold.terms.method == Method::Units && quantity <= Decimal::ZERO;
    (price > Decimal::ZERO && !units_missing).then_some((quantity, price))
}

/// What is left of a line's price on a day: new price, less credits, less what is earned.
pub fn remaining(obligation: &Obligation, price: Decimal, day: Date) -> Decimal {
    let credited: Decimal = obligation
        .credits
        .iter()
        .filter(|(date, ..)| *date < day)
        .map(|(_, amount, _)| amount)
        .sum();
    let caught_up: Decimal = obligation
        .lumps
        .iter()
        .filter(|lump| lump.reason == LumpReason::CatchUp && lump.date < day)
        .map(|lump| lump.amount)
        .sum();
    price - credited - caught_up - obligation.level_before(day)
}

/// The whole price of a line under new terms, before credits: by how much the stated price moved, so that what a pool
/// once gave a line or took from it (25-13(a)) stays where it is and the contract's price is the one that was stated.
pub fn price_under(obligation: &Obligation, terms: &LineTerms) -> Decimal {
    let last = obligation.last_segment();
    last.price + terms.price - last.terms.price
}

/// Terms from a day on replace everything later. True when they are the terms in force, so that nothing changes.
pub fn supersede(obligation: &mut Obligation, day: Date, terms: &LineTerms) -> bool {
    if let Some(stop) = obligation.stop.take().filter(|stop| *stop < day) {
        let segment = obligation.segment_before(stop).clone();
        let (curve, base) = (Curve::NOTHING, obligation.level_before(stop));
        let offset = Decimal::ZERO;
        push(
            obligation,
            Segment {
                from: stop,
                base,
                offset,
                curve,
                ..segment
            },
        );
        return false;
    }
    while obligation.segments.len() > 1 && obligation.last_segment().from >= day {
        obligation.segments.pop();
        obligation
            .lumps
            .retain(|lump| lump.reason != LumpReason::CatchUp || lump.date < day);
    }
    obligation.last_segment().terms == *terms
}

/// 25-13(a): `amount` is earned over what remains from `day` on.
pub fn prospective(
    obligation: &mut Obligation,
    day: Date,
    terms: LineTerms,
    amount: Decimal,
    cause: &EventId,
    spread: Spread,
) {
    let base = obligation.level_before(day);
    let curve = match terms.method {
        // Usage counts from the start; only its prepaid part changes.
        Method::Usage => initial(&terms, base + amount, Decimal::ZERO, spread),
        Method::StraightLine | Method::PointInTime | Method::Units | Method::Milestone | Method::Progress => {
            rest(&terms, amount, day, obligation, spread)
        }
    };
    let base = if terms.method == Method::Usage {
        Decimal::ZERO
    } else {
        base
    };
    let price = amount - remaining(obligation, Decimal::ZERO, day);
    let offset = Decimal::ZERO;
    push(
        obligation,
        Segment {
            from: day,
            base,
            offset,
            curve,
            price,
            terms,
            cause: cause.clone(),
        },
    );
}

/// 25-13(b): the new terms are measured from the start, and revenue to date is brought up to them on `day`.
pub fn catch_up(obligation: &mut Obligation, day: Date, terms: LineTerms, cause: &EventId, spread: Spread) {
    let whole = price_under(obligation, &terms);
    let left = remaining(obligation, whole, day);
    let base = obligation.level_before(day);
    let credited: Decimal = obligation
        .credits
        .iter()
        .filter(|(date, ..)| *date < day)
        .map(|(_, amount, _)| amount)
        .sum();
    let price = whole - credited;
    let curve = initial(&terms, price, obligation.units_before, spread);
    let offset = curve.earned_before(day, &obligation.performance, spread.currency);
    let amount = offset - (price - left);
    let price = whole;
    push(
        obligation,
        Segment {
            from: day,
            base,
            offset,
            curve,
            price,
            terms,
            cause: cause.clone(),
        },
    );
    if !amount.is_zero() {
        let reason = LumpReason::CatchUp;
        obligation.lumps.push(Lump {
            date: day,
            amount,
            cause: cause.clone(),
            reason,
        });
    }
}

/// Makes a new obligation earn nothing by itself, so that a catch-up brings in everything earned before its day.
pub fn begin_empty(obligation: &mut Obligation) {
    let first = &mut obligation.segments[0];
    first.curve = Curve::NOTHING;
    first.price = Decimal::ZERO;
    first.terms.price = Decimal::ZERO;
}

/// A credit on a day. One for a past shortcoming takes back price already earned; what is left of it, and any other
/// credit, lowers the price of what remains; what finds nothing there is earned price too.
pub fn credit(obligation: &mut Obligation, day: Date, amount: Decimal, past: bool, cause: &EventId, spread: Spread) {
    let day = day.max(obligation.last_segment().from);
    let terms = obligation.last_segment().terms.clone();
    let price = obligation.last_segment().price;
    let lumps: Decimal = obligation
        .lumps
        .iter()
        .filter(|lump| lump.date <= day)
        .map(|lump| lump.amount)
        .sum();
    let earned = (obligation.level_before(day) + lumps).max(Decimal::ZERO);
    let now = if past { amount.min(earned) } else { Decimal::ZERO };
    let stopped = obligation.stop.is_some_and(|stop| stop <= day);
    let left = match stopped {
        true => Decimal::ZERO,
        false => {
            let same_day = obligation
                .credits
                .iter()
                .filter(|(date, ..)| *date >= day)
                .map(|(_, amount, _)| amount);
            // A catch-up of the same day has already moved price between what is earned and what remains.
            let caught_up = obligation
                .lumps
                .iter()
                .filter(|lump| lump.reason == LumpReason::CatchUp && lump.date >= day)
                .map(|lump| lump.amount);
            let taken = same_day.sum::<Decimal>() + caught_up.sum::<Decimal>();
            (remaining(obligation, price, day) - taken).max(Decimal::ZERO)
        }
    };
    let lowered = (amount - now).min(left);
    if lowered > Decimal::ZERO {
        prospective(obligation, day, terms, left - lowered, cause, spread);
        if let Some(segment) = obligation.segments.last_mut() {
            segment.price = price;
        }
        obligation.credits.push((day, lowered, cause.clone()));
    }
    if amount > lowered {
        obligation.lumps.push(Lump {
            date: day,
            amount: lowered - amount,
            cause: cause.clone(),
            reason: LumpReason::Credit,
        });
    }
}

/// What is left of a line on a day.
pub struct Left<'a> {
    pub sold: &'a Sold,
    pub performance: &'a Performance,
    pub units_before: Decimal,
    /// Its own unrecognised price.
    pub amount: Decimal,
}

/// Shares a pool of remaining price over the lines it buys (25-13(a)): by the selling price of what remains of each,
/// where all have one; by units, where all are units of one good. `None` where there is no such measure: then each line
/// keeps its own.
pub fn pool(lines: &[Left], day: Date, spread: Spread) -> Option<Vec<Decimal>> {
    if lines.len() < 2 {
        return None;
    }
    let by_price: Option<Vec<Decimal>> = lines.iter().map(|it| it.sold.ssp).collect();
    let measures = match by_price {
        Some(prices) => prices,
        None => units_of_one_good(lines)?,
    };
    let weights: Vec<Decimal> = lines
        .iter()
        .zip(measures)
        .map(|(it, measure)| measure * fraction_left(&it.sold.terms, day, it, spread))
        .collect();
    let total: Decimal = lines.iter().map(|it| it.amount).sum();
    let usable = total >= Decimal::ZERO && weights.iter().any(|weight| *weight > Decimal::ZERO);
    usable.then(|| largest_remainder(total, &weights, spread.currency))
}

/// The units of each line, where all may be taken for units of one good, which need no selling price to be compared
/// (example 5, ASC 606-10-55-114): of one type, none priced at more than twice another. A type alone does not say it; cables
/// and servers are both hardware, and a unit of the one is not worth one of the other (32-31).
fn units_of_one_good(lines: &[Left]) -> Option<Vec<Decimal>> {
    let mut units = Vec::new();
    let (mut least, mut most) = (Decimal::MAX, Decimal::ZERO);
    for it in lines {
        let terms = &it.sold.terms;
        let quantity = terms.quantity.filter(|quantity| *quantity > Decimal::ZERO)?;
        if terms.method != Method::Units || it.sold.line_type != lines[0].sold.line_type {
            return None;
        }
        let each = it.sold.ssp.unwrap_or(terms.price) / quantity;
        (least, most) = (least.min(each), most.max(each));
        units.push(quantity);
    }
    (least * Decimal::TWO >= most).then_some(units)
}

/// The part of a line that is still to come on a day, 0 to 1.
fn fraction_left(terms: &LineTerms, day: Date, left: &Left, spread: Spread) -> Decimal {
    let performance = left.performance;
    let done = match terms.method {
        Method::StraightLine => {
            let time = TimeCurve::new(Decimal::ONE, terms.start, terms.end, spread);
            Decimal::from(time.weight_before(day)) / Decimal::from(time.total_weight().max(1))
        }
        Method::Units => {
            let full = terms.quantity.unwrap_or(Decimal::ONE);
            let own = (performance.units_before(day) - left.units_before).max(Decimal::ZERO);
            own / full.max(spread.currency.unit())
        }
        Method::PointInTime if terms.start < day => Decimal::ONE,
        Method::PointInTime => Decimal::ZERO,
        Method::Progress => performance.reached_before(day).ratio,
        Method::Milestone => {
            let weight = |open: bool| -> Decimal {
                terms
                    .milestones
                    .iter()
                    .filter(|it| open || performance.accepted_before(&it.id, day))
                    .map(|it| milestone_weight(it.share, terms.price))
                    .sum()
            };
            let all = weight(true);
            if all.is_zero() {
                Decimal::ZERO
            } else {
                weight(false) / all
            }
        }
        Method::Usage => Decimal::ZERO,
    };
    (Decimal::ONE - done).clamp(Decimal::ZERO, Decimal::ONE)
}

fn push(obligation: &mut Obligation, segment: Segment) {
    obligation.method = segment.terms.method;
    obligation.end = segment.terms.end;
    if segment.from <= obligation.segments[0].from {
        obligation.start = segment.terms.start;
        obligation.segments.clear();
        if !segment.offset.is_zero() {
            // What was caught up on its day is not earned before it.
            let terms = LineTerms {
                price: Decimal::ZERO,
                ..segment.terms.clone()
            };
            let (curve, price, offset) = (Curve::NOTHING, Decimal::ZERO, Decimal::ZERO);
            obligation.segments.push(Segment {
                curve,
                price,
                offset,
                terms,
                ..segment.clone()
            });
        }
    } else {
        obligation.start = obligation.start.min(segment.terms.start);
    }
    obligation.segments.push(segment);
}

/// The curve of a whole promise.
fn initial(terms: &LineTerms, amount: Decimal, units_before: Decimal, spread: Spread) -> Curve {
    match terms.method {
        Method::StraightLine => Curve::Time(TimeCurve::new(amount, terms.start, terms.end, spread)),
        Method::PointInTime => Curve::Point {
            amount,
            date: terms.start,
            quantity: terms.quantity,
        },
        Method::Units => Curve::Units {
            amount,
            base: units_before,
            full: units_before + terms.quantity.unwrap_or(Decimal::ONE),
        },
        Method::Milestone => Curve::Milestones {
            amount,
            open: milestones(terms),
        },
        Method::Progress => Curve::Progress {
            amount,
            base: Reached::default(),
        },
        Method::Usage => Curve::Usage {
            prepaid: amount,
            end: terms.end,
        },
    }
}

/// The curve of what remains from a day on; where nothing remains to be measured, the amount falls on that day.
fn rest(terms: &LineTerms, amount: Decimal, day: Date, obligation: &Obligation, spread: Spread) -> Curve {
    let (performance, units_before) = (&obligation.performance, obligation.units_before);
    let now = Curve::Point {
        amount,
        date: day.max(terms.start),
        quantity: None,
    };
    match terms.method {
        Method::StraightLine if terms.end < day => now,
        Method::StraightLine => Curve::Time(TimeCurve::new(amount, day.max(terms.start), terms.end, spread)),
        Method::PointInTime | Method::Units => {
            let full = units_before + terms.quantity.unwrap_or(Decimal::ONE);
            let base = performance.units_before(day).max(units_before);
            match terms.method == Method::Units || performance.has_deliveries() {
                true if base < full => Curve::Units { amount, base, full },
                true | false => now,
            }
        }
        Method::Milestone => {
            let open: Vec<_> = milestones(terms)
                .into_iter()
                .filter(|(id, _)| !performance.accepted_before(id, day))
                .collect();
            if open.is_empty() {
                now
            } else {
                Curve::Milestones { amount, open }
            }
        }
        Method::Progress => {
            let base = performance.reached_before(day);
            if base.ratio < Decimal::ONE {
                Curve::Progress { amount, base }
            } else {
                now
            }
        }
        Method::Usage => Curve::Usage {
            prepaid: terms.price,
            end: terms.end,
        },
    }
}

fn milestones(terms: &LineTerms) -> Vec<(super::ids::MilestoneId, Decimal)> {
    terms
        .milestones
        .iter()
        .map(|it| (it.id.clone(), milestone_weight(it.share, terms.price)))
        .collect()
}
