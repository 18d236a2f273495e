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
use super::obligation::{Curve, Laid, LineTerms, Lump, LumpReason, Obligation, Segment};
use super::performance::{Performance, Reached};
use super::period::add_days;
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
            laid: Laid::Sold,
        }],
        lumps: Vec::new(),
        credits: Vec::new(),
        stop: None,
        distinct: sold.distinct,
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
        pause(obligation, stop);
        return false;
    }
    while obligation.segments.len() > 1 && obligation.last_segment().from >= day {
        obligation.segments.pop();
        obligation
            .lumps
            .retain(|lump| lump.reason != LumpReason::CatchUp || lump.date < day);
    }
    // A credit was spread over what was earned until an end that is none now: what is left of the price follows from here.
    let last = obligation.last_segment();
    let cut_short = last.laid == Laid::Credit && matches!(&last.curve, Curve::Time(time) if time.to < last.terms.end);
    !cut_short && last.terms == *terms
}

/// Nothing is promised from a day on.
fn pause(obligation: &mut Obligation, day: Date) {
    let segment = obligation.segment_before(day).clone();
    let (curve, base) = (Curve::NOTHING, obligation.level_before(day));
    let (from, offset, laid) = (day, Decimal::ZERO, Laid::Pause);
    push(
        obligation,
        Segment {
            from,
            base,
            offset,
            curve,
            laid,
            ..segment
        },
    );
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
            laid: Laid::Rest,
        },
    );
}

/// 25-13(b): the new terms are measured from the start, and revenue to date is brought up to them on `day`.
pub fn catch_up(obligation: &mut Obligation, day: Date, terms: LineTerms, cause: &EventId, spread: Spread) {
    let price = price_under(obligation, &terms);
    measure_anew(obligation, day, terms, price, Laid::Anew, cause, spread);
}

/// A catch-up at a price before credits; one that a credit makes counts the credits of its day, and what an amendment of
/// the day has caught up.
fn measure_anew(
    obligation: &mut Obligation,
    day: Date,
    terms: LineTerms,
    price: Decimal,
    laid: Laid,
    cause: &EventId,
    spread: Spread,
) {
    let counts = |date: Date| date < day || date == day && laid == Laid::Credit;
    let base = obligation.level_before(day);
    let credits = obligation.credits.iter().filter(|(date, ..)| counts(*date));
    let credited: Decimal = credits.map(|(_, amount, _)| amount).sum();
    let caught_up = |lump: &&Lump| lump.reason == LumpReason::CatchUp && counts(lump.date);
    let caught_up: Decimal = obligation.lumps.iter().filter(caught_up).map(|lump| lump.amount).sum();
    let curve = initial(&terms, price - credited, obligation.units_before, spread);
    let offset = curve.earned_before(day, &obligation.performance, spread.currency);
    let amount = offset - caught_up - base;
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
            laid,
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
/// credit, lowers the price of what remains, or, where that is not distinct, of the whole undertaking, so that revenue to
/// date falls with it (25-13(b), 32-43). What finds no price there is earned price too. Terms already agreed for later
/// days, an end of service among them, stand: they are laid again over what the credit leaves.
pub fn credit(obligation: &mut Obligation, day: Date, amount: Decimal, past: bool, cause: &EventId, spread: Spread) {
    let day = day_of_credit(obligation, day);
    let stop = obligation.stop.filter(|stop| *stop > day);
    let credited = obligation.credited();
    let ahead = stop.map(|stop| (obligation.earned_until(stop), obligation.lump_sum(LumpReason::Credit)));
    // What service until its end still earns: no more than that can be lowered by then.
    let due = stop.map(|stop| (obligation.level_before(stop) - obligation.level_before(day)).max(Decimal::ZERO));
    let (later, credits) = take_later(obligation, day);
    let terms = obligation.last_segment().terms.clone();
    let price = obligation.last_segment().price;
    let lumps = obligation.lumps.iter().filter(|lump| lump.date <= day);
    let earned = obligation.level_before(day) + lumps.map(|lump| lump.amount).sum::<Decimal>();
    let now = if past {
        amount.min(earned.max(Decimal::ZERO))
    } else {
        Decimal::ZERO
    };
    let anew = !past && undivided(obligation);
    let of_day = |it: &&(Date, Decimal, EventId)| it.0 >= day;
    let same_day: Decimal = obligation
        .credits
        .iter()
        .filter(of_day)
        .map(|(_, amount, _)| amount)
        .sum();
    let left = match (obligation.stop, anew) {
        (Some(stop), _) if stop <= day => Decimal::ZERO,
        (_, true) => price - obligation.credited(),
        // A catch-up of the same day has already moved price between what is earned and what remains.
        (_, false) => remaining(obligation, price, day) - same_day - caught_up_on(obligation, day),
    };
    let most = match (due, anew) {
        (Some(due), false) => left.min(due),
        (Some(_), true) | (None, _) => left,
    };
    let lowered = (amount - now).min(most.max(Decimal::ZERO));
    if lowered > Decimal::ZERO {
        obligation.credits.push((day, lowered, cause.clone()));
        if anew {
            measure_anew(obligation, day, terms, price, Laid::Credit, cause, spread);
        } else {
            let (start, end) = (terms.start, terms.end);
            let by_time = terms.method == Method::StraightLine;
            prospective(obligation, day, terms, left - lowered, cause, spread);
            let until = stop.filter(|stop| by_time && later.iter().all(|it| it.from >= *stop));
            if let Some(segment) = obligation.segments.last_mut() {
                (segment.price, segment.laid) = (price, Laid::Credit);
                if let Some((stop, due)) = until.zip(due) {
                    let last = end.min(add_days(stop, -1));
                    let curve = TimeCurve::new(due - lowered, day.max(start), last, spread);
                    segment.curve = Curve::Time(curve);
                }
            }
        }
    }
    let reason = LumpReason::Credit;
    let lump = |amount: Decimal| Lump {
        date: day,
        amount,
        cause: cause.clone(),
        reason,
    };
    if amount > lowered {
        obligation.lumps.push(lump(lowered - amount));
    }
    lay_again(obligation, later, credits, spread);
    // An end cuts off some of what was lowered: that is not price of anything that remains, so that it is taken back now.
    if let (Some(stop), Some((earned, taken_back))) = (stop, ahead) {
        let by_end = obligation.earned_until(stop);
        let missing = (earned + taken_back - amount) - (by_end + obligation.lump_sum(LumpReason::Credit));
        let unlowered = (earned + credited) - (by_end + obligation.credited());
        if !missing.is_zero() {
            obligation.lumps.push(lump(missing));
        }
        match obligation.credits.iter_mut().find(|it| it.0 == day && it.2 == *cause) {
            Some(own) => own.1 += unlowered,
            None if unlowered.is_zero() => {}
            None => obligation.credits.push((day, unlowered, cause.clone())),
        }
        obligation.credits.retain(|it| !it.1.is_zero());
    }
}

/// The day on which a credit acts: not before a line has a price, nor while nothing of it is promised.
fn day_of_credit(obligation: &Obligation, day: Date) -> Date {
    let segments = &obligation.segments;
    let mut day = day.max(segments[0].from);
    for (at, segment) in segments.iter().enumerate() {
        let governs = segment.from <= day && segments.get(at + 1).is_none_or(|next| next.from > day);
        if governs && segment.curve == Curve::NOTHING {
            day = segments.get(at + 1).map_or(day, |next| next.from);
        }
    }
    day
}

/// Whether what remains of a line is not distinct from what was delivered, so that a change of its price is one of all of
/// it. A line of which earned price was taken back for its defects has that behind it: a later credit is of the rest.
fn undivided(obligation: &Obligation) -> bool {
    let whole = match (obligation.distinct, obligation.method) {
        (_, Method::Usage) => false,
        (Some(distinct), _) => !distinct,
        (None, method) => method == Method::Progress,
    };
    whole && obligation.lumps.iter().all(|lump| lump.reason != LumpReason::Credit)
}

fn caught_up_on(obligation: &Obligation, day: Date) -> Decimal {
    let caught_up = |lump: &&Lump| lump.reason == LumpReason::CatchUp && lump.date >= day;
    obligation.lumps.iter().filter(caught_up).map(|lump| lump.amount).sum()
}

type Credits = Vec<(Date, Decimal, EventId)>;

/// Takes out what holds from a later day on: terms, in order, and credits.
fn take_later(obligation: &mut Obligation, day: Date) -> (Vec<Segment>, Credits) {
    let first = obligation.segments[0].from.max(day);
    let at = obligation.segments.partition_point(|it| it.from <= first).max(1);
    let mut later = obligation.segments.split_off(at);
    later.retain(|it| it.laid != Laid::Credit);
    let mut credits: Credits = Vec::new();
    obligation.credits.retain(|it| {
        let before = it.0 <= first;
        if !before {
            credits.push(it.clone());
        }
        before
    });
    obligation
        .lumps
        .retain(|lump| lump.reason != LumpReason::CatchUp || lump.date <= first);
    (later, credits)
}

/// Puts back what was taken out, each over what now is left by its day.
fn lay_again(obligation: &mut Obligation, later: Vec<Segment>, mut credits: Credits, spread: Spread) {
    for segment in later {
        let (day, price) = (segment.from, segment.price);
        match segment.laid {
            Laid::Anew => measure_anew(
                obligation,
                day,
                segment.terms,
                price,
                Laid::Anew,
                &segment.cause,
                spread,
            ),
            Laid::Pause => pause(obligation, day),
            Laid::Rest | Laid::Sold | Laid::Credit => {
                let amount = remaining(obligation, price, day);
                prospective(obligation, day, segment.terms, amount, &segment.cause, spread);
            }
        }
    }
    credits.sort_by_key(|it| it.0);
    for (day, amount, cause) in credits {
        credit(obligation, day, amount, false, &cause, spread);
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
                laid: Laid::Sold,
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
