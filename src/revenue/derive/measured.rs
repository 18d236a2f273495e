//! What was measured of a deal's lines, each fact judged against every term the deal ever had.
//!
//! Invariant: facts are judged in the order of the days they concern, whatever the order of arrival; so one that concerns
//! the latest day is added to what is known, and any other has all judged again. Usage without an amount has the unit price
//! of its own day: a new price is a modification of what remains (ASC 606-10-25-13(a)), and prices nothing that was used
//! before it. Deliberately absent: what a measurement earns (`obligation`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::method_of;
use super::super::fact::{Body, Deal, Fact, Method, Progress, ProgressMeasure};
use super::super::ids::{EventId, LineId, MilestoneId};
use super::super::money::{Currency, MAX_AMOUNT};
use super::super::performance::{Measurements, Performance, Reached};
use super::super::reference::Tenant;
use super::super::reject::{Code, Rejection};
use super::days::{Amended, TermDays};
use super::{day, unknown_line};

/// Everything measured, by line.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    lines: BTreeMap<LineId, Arc<Measurements>>,
    /// Of a line that was never measured.
    nothing: Arc<Measurements>,
    /// Facts that do not fit, in the order in which they were judged.
    unfit: Vec<(EventId, Rejection)>,
    sold: Sold,
    currency: Option<Currency>,
    /// How many of the deal's facts, as they arrived, were looked at.
    seen: usize,
    /// Where the last fact stands in the order of judgement.
    last: Option<(Date, Timestamp, EventId)>,
}

impl Measured {
    /// What was measured of a line from a day on, before another if one is given.
    pub(super) fn of(&self, line: &LineId, from: Date, until: Option<Date>) -> Performance {
        Performance::window(self.lines.get(line).unwrap_or(&self.nothing), from, until)
    }

    pub(super) fn unfit(&self) -> &[(EventId, Rejection)] {
        &self.unfit
    }

    /// Gives an obligation its line's measurements, in the window that it had.
    pub(super) fn attach(&self, line: &LineId, performance: &mut Performance) {
        performance.attach(self.lines.get(line).unwrap_or(&self.nothing));
    }

    /// Takes the measurements away again: while nobody else has them, they are added to in place.
    pub(super) fn detach(&self, performance: &mut Performance) {
        performance.attach(&self.nothing);
    }

    /// Takes in what was not seen yet. `terms` are the facts that state terms, `first` the one that closed the deal among
    /// them; `facts` are all of the deal, in the order of arrival, the same ones as before and more. True when what was
    /// known before stands, and only more came.
    pub(super) fn take<'a>(
        &mut self,
        first: &'a Fact,
        terms: impl Iterator<Item = &'a Fact>,
        facts: &[Fact],
        tenant: &Tenant,
    ) -> bool {
        let mut stands = true;
        let sold = sold(first, terms, tenant);
        let currency = first.body.terms().map(|deal| deal.currency);
        if self.sold != sold || self.currency != currency {
            *self = Measured {
                sold,
                currency,
                ..Measured::default()
            };
            stands = false;
        }
        let mut fresh = in_order(&facts[self.seen..]);
        if fresh.first().is_some_and(|at| {
            self.last
                .as_ref()
                .is_some_and(|last| rank(at) < (last.0, last.1, &last.2))
        }) {
            (self.lines, self.unfit) = Default::default();
            fresh = in_order(facts);
            stands = false;
        }
        for (date, fact) in &fresh {
            if let Err(rejection) = self.add(*date, fact) {
                self.unfit.push((fact.event_id.clone(), rejection));
            }
        }
        if let Some((date, fact)) = fresh.last() {
            self.last = Some((*date, fact.occurred_at, fact.event_id.clone()));
        }
        self.seen = facts.len();
        stands
    }

    fn add(&mut self, date: Date, fact: &Fact) -> Result<(), Rejection> {
        let (sold, currency) = (&self.sold, self.currency);
        let event = fact.event_id.clone();
        match &fact.body {
            Body::MilestoneAccepted(it) => {
                let known = known(sold, &it.line_id, &[Method::Milestone])?;
                if !known.milestones.contains(&it.milestone_id) {
                    return Err(Rejection::new(
                        Code::UnknownMilestone,
                        "payload.milestone_id",
                        &it.milestone_id,
                        "the line has no such milestone",
                    ));
                }
                let line = of(&mut self.lines, &it.line_id);
                if line.accepted.iter().any(|(_, id, _)| *id == it.milestone_id) {
                    return Err(Rejection::new(
                        Code::AlreadyAccepted,
                        "payload.milestone_id",
                        &it.milestone_id,
                        "this milestone was accepted by an earlier event",
                    ));
                }
                line.accepted.push((date, it.milestone_id.clone(), event));
            }
            Body::DeliveryRecorded(it) => {
                let known = known(sold, &it.line_id, &[Method::Units, Method::PointInTime])?;
                let most: Decimal = known.quantities.iter().sum();
                let line = of(&mut self.lines, &it.line_id);
                let units = line.deliveries.all() + it.quantity;
                if units < Decimal::ZERO || most > Decimal::ZERO && units > most {
                    return Err(Rejection::new(
                        Code::OverDelivery,
                        "payload.quantity",
                        it.quantity,
                        &format!("with it, {units} of {most} units would be delivered"),
                    ));
                }
                line.deliveries.push(date, it.quantity, event);
            }
            Body::ProgressMeasured(it) => {
                known(sold, &it.line_id, &[Method::Progress])?;
                let line = of(&mut self.lines, &it.line_id);
                line.progress.push((date, reached(it), event));
            }
            Body::UsageReported(it) => {
                let known = known(sold, &it.line_id, &[Method::Usage])?;
                let amount = match (it.amount, known.unit_price(date)) {
                    (Some(amount), _) => amount,
                    (None, Some(price)) => it.quantity * price,
                    (None, None) => {
                        return Err(Rejection::new(
                            Code::MissingField,
                            "payload.amount",
                            "nothing",
                            "the line has no unit_price, so usage must state its amount",
                        ));
                    }
                };
                if amount.abs() > MAX_AMOUNT {
                    return Err(Rejection::new(
                        Code::Overflow,
                        "payload.quantity",
                        it.quantity,
                        "quantity times unit price is beyond the largest amount",
                    ));
                }
                let amount = currency.map_or(amount, |currency| currency.round(amount));
                let line = of(&mut self.lines, &it.line_id);
                line.usage.push(date, amount, event);
            }
            Body::DealClosed(_)
            | Body::DealAmended(_)
            | Body::DealRenewed(_)
            | Body::DealCancelled(_)
            | Body::CreditGranted(_)
            | Body::ConsiderationEstimated(_)
            | Body::PaymentReceived(_)
            | Body::FxRate(_)
            | Body::AccountMapped(_)
            | Body::PeriodClosed(_)
            | Body::PeriodReopened(_)
            | Body::ClockTicked(_) => {}
        }
        Ok(())
    }
}

/// The measurements of a line, to add to. They are copied only where an earlier derivation is still held.
fn of<'m>(lines: &'m mut BTreeMap<LineId, Arc<Measurements>>, line: &LineId) -> &'m mut Measurements {
    Arc::make_mut(lines.entry(line.clone()).or_default())
}

/// The facts that measure, with the day each concerns, in the order of judgement.
fn in_order(facts: &[Fact]) -> Vec<(Date, &Fact)> {
    let measuring = facts.iter().filter_map(|fact| Some((measured_on(fact)?, fact)));
    let mut measuring: Vec<(Date, &Fact)> = measuring.collect();
    measuring.sort_by(|a, b| rank(a).cmp(&rank(b)));
    measuring
}

fn rank<'a>((date, fact): &(Date, &'a Fact)) -> (Date, Timestamp, &'a EventId) {
    (*date, fact.occurred_at, &fact.event_id)
}

/// What the terms of a deal say about its lines, over all its terms.
type Sold = BTreeMap<LineId, Known>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    methods: Vec<Method>,
    milestones: Vec<MilestoneId>,
    /// The most units of each term.
    quantities: Vec<Decimal>,
    /// Each unit price with the first day on which it holds, sorted by day; the first one holds since ever.
    unit_prices: Vec<(Date, Decimal)>,
}

impl Known {
    fn unit_price(&self, day: Date) -> Option<Decimal> {
        let over = self.unit_prices.partition_point(|(from, _)| *from <= day);
        self.unit_prices.get(over.max(1) - 1).map(|(_, price)| *price)
    }

    /// A price stated from a day on takes the place of every later one, as all terms do. Stated again it changes nothing,
    /// so that what was measured need not be looked at again.
    fn reprice(&mut self, from: Date, price: Decimal) {
        self.unit_prices.retain(|(known, _)| *known < from);
        if self.unit_prices.last().is_none_or(|(_, known)| *known != price) {
            let from = if self.unit_prices.is_empty() { Date::MIN } else { from };
            self.unit_prices.push((from, price));
        }
    }
}

/// The first day on which the terms of a fact hold; `None` where the deal refuses the day. `running` becomes the term's days
/// after it.
fn holds_from(fact: &Fact, deal: &Deal, running: &mut TermDays, tenant: &Tenant) -> Option<Date> {
    match &fact.body {
        Body::DealAmended(_) => {
            let Amended { from, start, end, .. } = running.amended(deal, day(tenant, fact)).ok()?;
            (running.start, running.end, running.months) = (start, end, deal.term_months);
            Some(from)
        }
        Body::DealRenewed(_) => {
            *running = running.renewed(deal).ok()?;
            Some(running.start)
        }
        _ => Some(Date::MIN),
    }
}

fn sold<'a>(first: &'a Fact, terms: impl Iterator<Item = &'a Fact>, tenant: &Tenant) -> Sold {
    let mut sold = Sold::new();
    let currency = first.body.terms().map(|deal| deal.currency);
    let mut running = first
        .body
        .terms()
        .map(|deal| TermDays::closed(deal, day(tenant, first)));
    // The deal is closed first, whenever that was said.
    let others = terms.filter(|fact| !matches!(fact.body, Body::DealClosed(_)));
    for fact in std::iter::once(first).chain(others) {
        let Some(deal) = fact.body.terms() else {
            continue;
        };
        let again = matches!(fact.body, Body::DealRenewed(_));
        let from = match Some(deal.currency) == currency {
            true => running.as_mut().and_then(|it| holds_from(fact, deal, it, tenant)),
            false => None,
        };
        for line in &deal.lines {
            let known = sold.entry(line.id.clone()).or_default();
            let method = method_of(line, deal, &tenant.policy);
            if !known.methods.contains(&method) {
                known.methods.push(method);
            }
            for milestone in &line.milestones {
                if !known.milestones.contains(&milestone.id) {
                    known.milestones.push(milestone.id.clone());
                }
            }
            if let (Some(from), Some(price)) = (from, line.unit_price) {
                known.reprice(from, price);
            }
            let quantity = line.quantity.unwrap_or_default();
            match again || known.quantities.is_empty() {
                true => known.quantities.push(quantity),
                false => {
                    let last = known.quantities.len() - 1;
                    known.quantities[last] = known.quantities[last].max(quantity);
                }
            }
        }
    }
    sold
}

fn known<'m>(sold: &'m Sold, line: &LineId, methods: &[Method]) -> Result<&'m Known, Rejection> {
    let known = sold
        .get(line)
        .ok_or_else(|| unknown_line("payload.line_item_id", line))?;
    match known.methods.iter().any(|method| methods.contains(method)) {
        true => Ok(known),
        false => Err(Rejection::new(
            Code::WrongMethod,
            "payload.line_item_id",
            line,
            "the line is not recognised by this measure; set its method in the deal",
        )),
    }
}

pub(super) fn measured_on(fact: &Fact) -> Option<Date> {
    match &fact.body {
        Body::MilestoneAccepted(it) => Some(it.date),
        Body::DeliveryRecorded(it) => Some(it.date),
        Body::ProgressMeasured(it) => Some(it.date),
        Body::UsageReported(it) => Some(it.date),
        Body::DealClosed(_)
        | Body::DealAmended(_)
        | Body::DealRenewed(_)
        | Body::DealCancelled(_)
        | Body::CreditGranted(_)
        | Body::ConsiderationEstimated(_)
        | Body::PaymentReceived(_)
        | Body::FxRate(_)
        | Body::AccountMapped(_)
        | Body::PeriodClosed(_)
        | Body::PeriodReopened(_)
        | Body::ClockTicked(_) => None,
    }
}

/// How far the undertaking has come, its ratio at the stated precision.
fn reached(it: &Progress) -> Reached {
    let (exact, materials) = match it.measure {
        ProgressMeasure::Percent(percent) => (percent / Decimal::ONE_HUNDRED, None),
        ProgressMeasure::Cost {
            to_date,
            expected,
            materials: None,
        } => (to_date / expected, None),
        ProgressMeasure::Cost {
            to_date,
            expected,
            materials: Some(of),
        } => ((to_date - of.to_date) / (expected - of.expected), Some(of)),
    };
    let half_up = rust_decimal::RoundingStrategy::MidpointAwayFromZero;
    Reached {
        ratio: match it.precision {
            Some(decimals) => exact.round_dp_with_strategy(decimals, half_up),
            None => exact,
        },
        materials: materials.map_or(Decimal::ZERO, |of| of.expected),
        handed_over: materials.map_or(Decimal::ZERO, |of| of.to_date),
    }
}
