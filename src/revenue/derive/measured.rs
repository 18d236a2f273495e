//! What was measured of a deal's lines, each fact judged against every term the deal ever had.
//!
//! Invariant: facts are judged in the order of the days they concern, whatever the order of arrival. Deliberately
//! absent: what a measurement earns (`obligation`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::method_of;
use super::super::fact::{Body, Fact, Method, Progress, ProgressMeasure};
use super::super::ids::{EventId, LineId, MilestoneId};
use super::super::money::{Currency, MAX_AMOUNT};
use super::super::performance::{Measurements, Performance, Reached};
use super::super::reference::Tenant;
use super::super::reject::{Code, Rejection};
use super::unknown_line;

/// Everything measured, by line.
#[derive(Clone, Default)]
pub(super) struct Measured {
    lines: BTreeMap<LineId, Arc<Measurements>>,
    /// Of a line that was never measured.
    nothing: Arc<Measurements>,
}

impl Measured {
    /// What was measured of a line from a day on, before another if one is given.
    pub(super) fn of(&self, line: &LineId, from: Date, until: Option<Date>) -> Performance {
        Performance::window(self.lines.get(line).unwrap_or(&self.nothing), from, until)
    }

    pub(super) fn collect(
        first: &Fact,
        ordered: &[&Fact],
        tenant: &Tenant,
        rejections: &mut Vec<(EventId, Rejection)>,
    ) -> Measured {
        let mut sold: BTreeMap<&LineId, Known> = BTreeMap::new();
        for fact in ordered {
            let is_terms = !matches!(fact.body, Body::DealClosed(_)) || fact.event_id == first.event_id;
            let Some(deal) = fact.body.terms().filter(|_| is_terms) else {
                continue;
            };
            let again = matches!(fact.body, Body::DealRenewed(_));
            for line in &deal.lines {
                let known = sold.entry(&line.id).or_default();
                let method = method_of(line, deal, &tenant.policy);
                if !known.methods.contains(&method) {
                    known.methods.push(method);
                }
                for milestone in &line.milestones {
                    if !known.milestones.contains(&&milestone.id) {
                        known.milestones.push(&milestone.id);
                    }
                }
                known.unit_price = line.unit_price.or(known.unit_price);
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
        let mut facts: Vec<(Date, &Fact)> = ordered
            .iter()
            .filter_map(|fact| measured_on(fact).map(|date| (date, *fact)))
            .collect();
        facts.sort_by(|a, b| (a.0, a.1.occurred_at, &a.1.event_id).cmp(&(b.0, b.1.occurred_at, &b.1.event_id)));
        let mut collected = Collected::default();
        for (date, fact) in facts {
            if let Err(rejection) = collected.add(date, fact, &sold, first.body.terms().map(|deal| deal.currency)) {
                rejections.push((fact.event_id.clone(), rejection));
            }
        }
        let shared = collected
            .lines
            .into_iter()
            .map(|(line, of)| (line.clone(), Arc::new(of)));
        Measured {
            lines: shared.collect(),
            nothing: Arc::default(),
        }
    }
}

/// Measurements while they are being judged.
#[derive(Default)]
struct Collected<'a> {
    lines: BTreeMap<&'a LineId, Measurements>,
}

impl<'a> Collected<'a> {
    fn add(
        &mut self,
        date: Date,
        fact: &'a Fact,
        sold: &BTreeMap<&LineId, Known>,
        currency: Option<Currency>,
    ) -> Result<(), Rejection> {
        let event = fact.event_id.clone();
        match &fact.body {
            Body::MilestoneAccepted(it) => {
                let known = known(sold, &it.line_id, &[Method::Milestone])?;
                if !known.milestones.contains(&&it.milestone_id) {
                    return Err(Rejection::new(
                        Code::UnknownMilestone,
                        "payload.milestone_id",
                        &it.milestone_id,
                        "the line has no such milestone",
                    ));
                }
                let line = self.lines.entry(&it.line_id).or_default();
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
                let line = self.lines.entry(&it.line_id).or_default();
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
                let line = self.lines.entry(&it.line_id).or_default();
                line.progress.push((date, reached(it), event));
            }
            Body::UsageReported(it) => {
                let known = known(sold, &it.line_id, &[Method::Usage])?;
                let amount = match (it.amount, known.unit_price) {
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
                let line = self.lines.entry(&it.line_id).or_default();
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

/// What the terms of a deal say about one line, over all its terms.
#[derive(Default)]
struct Known<'a> {
    methods: Vec<Method>,
    milestones: Vec<&'a MilestoneId>,
    /// The most units of each term.
    quantities: Vec<Decimal>,
    unit_price: Option<Decimal>,
}

fn known<'m, 'a>(
    sold: &'m BTreeMap<&LineId, Known<'a>>,
    line: &LineId,
    methods: &[Method],
) -> Result<&'m Known<'a>, Rejection> {
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
