//! `consideration.estimated`: the uncertain part of the price (ASC 606-10-32-5 to 32-14, 32-42 to 32-45).
//!
//! The included amount of an estimate is shared over its lines as the price was at inception (32-43), or belongs to one
//! line (32-40). A share is kept beside the line's own price, as a part that is earned by the line's measure: a
//! re-estimate brings revenue to date up to it on its day (32-43, 32-44), and the rest follows. Lines that a later
//! amendment adds take no share (32-45(a)). Usage earns itself and takes none either.
//!
//! ```text
//! estimated --re-estimated--> estimated --final--> resolved: invoiced, or credited as far as anything is billed
//! ```
//!
//! Invariant: the parts of an estimate sum to what is included of it, while no promise ends early; what is resolved is
//! invoiced or credited in full once as much is billed. After the end of service nothing is left to perform, so that what
//! is estimated then is earned at once. Deliberately absent: how an estimate is found, and a refund liability apart from
//! the contract liability before it is resolved.

use std::collections::BTreeMap;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::milestone_weight;
use super::super::billing::Invoice;
use super::super::explain::Explanation;
use super::super::fact::{Consideration, Estimate, EstimateMethod, Fact, Method, Milestone, MilestoneShare};
use super::super::ids::{ContractId, EstimateId, EventId, LineId, ObligationId};
use super::super::modify;
use super::super::money::largest_remainder;
use super::super::obligation::{Laid, LineTerms, Lump, LumpReason, Obligation, Segment};
use super::super::period::add_days;
use super::super::reject::{Code, Rejection};
use super::invoicing::{lowest_from, share_of_tax};
use super::{CreditMemo, Fold, Standing, too_precise, unknown_line};

/// The estimates of a deal, by line and name.
pub(super) type Estimates = BTreeMap<(Option<LineId>, EstimateId), Uncertain>;

/// One uncertainty.
#[derive(Clone)]
pub(super) struct Uncertain {
    /// The obligations that share it, by index, with their price at inception.
    shared: Vec<(usize, Decimal)>,
    /// Sorted by day, one a day.
    steps: Vec<Step>,
    /// The method first used: it serves throughout (32-9).
    method: Option<EstimateMethod>,
    resolved: bool,
}

#[derive(Clone)]
struct Step {
    date: Date,
    included: Decimal,
    /// Made when the end of service was known: an estimate of what service until then is paid, all of it.
    until_end: bool,
    cause: EventId,
}

impl Uncertain {
    fn set(&mut self, date: Date, included: Decimal, until_end: bool, cause: EventId) {
        self.steps.retain(|step| step.date != date);
        self.steps.push(Step {
            date,
            included,
            until_end,
            cause,
        });
        self.steps.sort_by_key(|step| step.date);
    }

    fn last(&self) -> Option<&Step> {
        self.steps.last()
    }

    /// What is owed since it was resolved.
    fn owed(&self) -> Option<&Step> {
        self.last().filter(|_| self.resolved)
    }
}

impl Fold<'_> {
    pub(super) fn estimate(&mut self, fact: &Fact, it: &Estimate) -> Result<(), Rejection> {
        let included = it.consideration.included(self.wanted.currency);
        if !self.wanted.currency.holds(included) {
            let field = match it.consideration {
                Consideration::Resolved(_) => "payload.amount",
                Consideration::Outcomes { .. } | Consideration::Amount { .. } => "payload.included",
            };
            return Err(too_precise(field, included, self.wanted.currency));
        }
        let date = it.date;
        let until_end = match self.wanted.status {
            Standing::Cancelled(since) => date < since,
            Standing::Active => false,
        };
        let key = (it.line_id.clone(), it.estimate_id.clone());
        let before = self.estimates.get(&key).cloned();
        let mut now = match &before {
            Some(known) => known.clone(),
            None => Uncertain {
                shared: self.shares(it, date)?,
                steps: Vec::new(),
                method: None,
                resolved: false,
            },
        };
        if now.resolved {
            return Err(Rejection::new(
                Code::AlreadyResolved,
                "payload.estimate_id",
                &it.estimate_id,
                "this uncertainty was resolved by an earlier event; send credit.granted, or an estimate of another name",
            ));
        }
        match (now.method, it.consideration.method()) {
            (Some(before), Some(method)) if before != method => {
                return Err(Rejection::new(
                    Code::WrongMethod,
                    "payload.method",
                    &it.estimate_id,
                    "an uncertainty is estimated by one method throughout (ASC 606-10-32-9)",
                ));
            }
            (before, method) => now.method = before.or(method),
        }
        now.resolved = matches!(it.consideration, Consideration::Resolved(_));
        if now.resolved {
            now.steps.retain(|step| step.date < date);
        }
        now.set(date, included, until_end, fact.event_id.clone());
        self.estimates.insert(key.clone(), now);
        if !self.below_zero().is_empty() {
            match before {
                Some(before) => self.estimates.insert(key, before),
                None => self.estimates.remove(&key),
            };
            return Err(Rejection::new(
                Code::OverCredit,
                "payload.included",
                included,
                "with it the contract's price would be below zero; lower the reduction, or cancel the deal",
            ));
        }
        self.explain(|| Explanation::estimate(&fact.event_id, it, included, date));
        Ok(())
    }

    /// The obligations that share an estimate first made for a day, with the weight of each.
    fn shares(&self, it: &Estimate, date: Date) -> Result<Vec<(usize, Decimal)>, Rejection> {
        let former = self.former.iter().find(|(next, _)| date < *next);
        let term = &former.map_or(&self.term, |(_, term)| term).obligations;
        let of = |at: &usize| &self.wanted.obligations[*at];
        let mut lines: Vec<usize> = match &it.line_id {
            Some(line) => {
                let mut of_line: Vec<usize> = term.iter().copied().filter(|at| of(at).line_id == *line).collect();
                of_line.sort_by_key(|at| of(at).contract != self.main);
                of_line.truncate(1);
                if of_line.is_empty() {
                    return Err(unknown_line("payload.line_item_id", line));
                }
                of_line
            }
            None => term.iter().copied().filter(|at| of(at).contract == self.main).collect(),
        };
        lines.retain(|at| of(at).method != Method::Usage);
        if lines.is_empty() {
            return Err(Rejection::new(
                Code::WrongMethod,
                "payload.line_item_id",
                it.line_id.as_ref().map_or("all lines", |line| line.as_str()),
                "usage is earned as it is reported; report it at the price expected, or name another line",
            ));
        }
        let promised = |at: &usize| of(at).stop.is_none_or(|stop| stop > date);
        if lines.iter().any(promised) {
            lines.retain(promised);
        }
        for at in &lines {
            self.part_id(*at, &it.line_id, &it.estimate_id)?;
        }
        let weight = |at: usize| (at, self.wanted.obligations[at].last_segment().terms.price);
        Ok(lines.into_iter().map(weight).collect())
    }

    /// A line may have a share of the deal's estimate and one of its own, of the same name.
    fn part_id(&self, at: usize, line: &Option<LineId>, estimate: &EstimateId) -> Result<ObligationId, Rejection> {
        let of = match line {
            Some(_) => "line",
            None => "deal",
        };
        ObligationId::parse(format!("{}/{of}~{estimate}", self.wanted.obligations[at].id)).ok_or_else(|| {
            Rejection::new(
                Code::InvalidId,
                "payload.estimate_id",
                estimate,
                "deal id, line id and estimate id are too long together",
            )
        })
    }

    /// The variable parts as things stand, sorted by estimate; each with the line's obligation, by index, and whether it is
    /// resolved.
    fn variable_parts(&self) -> Vec<(usize, Obligation, bool)> {
        let parts = |(key, it): (&(Option<LineId>, EstimateId), &Uncertain)| {
            let resolved = it.resolved;
            let parts = self.parts_of(key, it).into_iter();
            parts.map(move |(at, part)| (at, part, resolved))
        };
        self.estimates.iter().flat_map(parts).collect()
    }

    fn parts_of(&self, (line, name): &(Option<LineId>, EstimateId), uncertain: &Uncertain) -> Vec<(usize, Obligation)> {
        let weights: Vec<Decimal> = uncertain.shared.iter().map(|(_, weight)| *weight).collect();
        let share = |step: &Step| largest_remainder(step.included, &weights, self.wanted.currency);
        let shares: Vec<Vec<Decimal>> = uncertain.steps.iter().map(share).collect();
        let lines = uncertain.shared.iter().enumerate();
        let parts = lines.filter_map(|(place, (at, _))| {
            let steps = uncertain.steps.iter().zip(&shares).map(|(step, shares)| Step {
                included: shares[place],
                ..step.clone()
            });
            // The id was judged when the estimate was taken.
            let id = self.part_id(*at, line, name).ok()?;
            Some((*at, self.part(*at, id, name, steps.collect())))
        });
        parts.collect()
    }

    /// The part of one line: the line's terms and their changes, at the price of the estimates.
    fn part(&self, at: usize, id: ObligationId, name: &EstimateId, steps: Vec<Step>) -> Obligation {
        let line = &self.wanted.obligations[at];
        let (spread, zero) = (self.spread, Decimal::ZERO);
        let mut part = Obligation {
            id,
            recurring: false,
            segments: vec![Segment {
                terms: priced(&line.segments[0].terms, zero),
                ..line.segments[0].clone()
            }],
            lumps: Vec::new(),
            credits: Vec::new(),
            estimate: Some(name.clone()),
            performance: line.performance.without_materials(),
            ..line.clone()
        };
        modify::begin_empty(&mut part);
        let mut price = zero;
        let stop = line.stop.unwrap_or(Date::MAX);
        let mut changes = line.segments[1..].iter().filter(|it| it.from < stop).peekable();
        for step in steps.iter().filter(|step| step.date < stop) {
            while let Some(segment) = changes.next_if(|it| it.from <= step.date) {
                follow(&mut part, segment, price, self);
            }
            let mut terms = priced(&part.last_segment().terms, step.included);
            price = step.included;
            if step.until_end {
                terms.end = terms.end.min(add_days(stop, -1)).max(terms.start);
            }
            modify::catch_up(&mut part, step.date, terms, &step.cause, spread);
        }
        for segment in changes {
            follow(&mut part, segment, price, self);
        }
        // Nothing is performed after the end: what is expected then is earned at once, and at the end what was expected by it.
        let mut earned = part.earned_until(stop);
        let before = steps.partition_point(|step| step.date < stop);
        let last = before.checked_sub(1).map(|at| &steps[at]).filter(|step| step.until_end);
        for step in last.into_iter().chain(&steps[before..]) {
            let (date, amount, cause) = (step.date.max(stop), step.included - earned, step.cause.clone());
            if !amount.is_zero() {
                let reason = LumpReason::CatchUp;
                part.lumps.push(Lump {
                    date,
                    amount,
                    cause,
                    reason,
                });
            }
            earned = step.included;
        }
        part
    }

    /// Adds to the books what estimates make of them. Invoices of performance are among the others by now.
    pub(super) fn finish_estimates(&mut self) {
        let invoices = self.invoices_of_estimates();
        self.wanted.invoices.extend(invoices);
        let firm = self.wanted.invoices.iter().filter(|it| it.firm);
        let invoiced = firm.map(|it| (it.date, it.amount, it.tax));
        let credited = self.wanted.credits.iter().map(|it| (it.date, -it.amount, -it.tax));
        let memos = self.credits_of_estimates(invoiced.chain(credited).collect());
        self.wanted.credits.extend(memos);
        let parts = self.variable_parts().into_iter().map(|(_, part, _)| part);
        self.wanted.obligations.extend(parts);
    }

    /// The price of each obligation with its variable parts.
    pub(super) fn prices_in_all(&self) -> Vec<Decimal> {
        let mut prices: Vec<Decimal> = self.wanted.obligations.iter().map(Obligation::expected).collect();
        for (at, part, _) in self.variable_parts() {
            prices[at] += part.expected();
        }
        prices
    }

    /// The price of each contract, variable parts included, that is below zero.
    pub(super) fn below_zero(&self) -> BTreeMap<&ContractId, Decimal> {
        let mut prices: BTreeMap<&ContractId, Decimal> = BTreeMap::new();
        for (obligation, price) in self.wanted.obligations.iter().zip(self.prices_in_all()) {
            *prices.entry(&obligation.contract).or_default() += price;
        }
        prices.retain(|_, price| *price < Decimal::ZERO);
        prices
    }

    /// An end of service may leave less of the price than an estimate takes back: then it takes back what is left.
    pub(super) fn limit_estimates(&mut self, fact: &Fact, from: Date) {
        let keys: Vec<_> = self.estimates.keys().cloned().collect();
        for key in keys {
            let Some(it) = self.estimates.get(&key) else {
                continue;
            };
            let parts = self.parts_of(&key, it);
            let below = self.below_zero();
            let of = parts.first().and_then(|(_, part)| below.get(&part.contract));
            let short = of.map_or(Decimal::ZERO, |price| -price);
            let takes_back = -parts.iter().map(|(_, part)| part.expected()).sum::<Decimal>();
            let less = short.min(takes_back);
            if less > Decimal::ZERO
                && let Some(it) = self.estimates.get_mut(&key)
            {
                let date = it.last().map_or(from, |last| last.date.max(from));
                it.set(date, less - takes_back, false, fact.event_id.clone());
            }
        }
    }

    /// What resolved estimates bill that their parts do not earn, when service ends: it is unused.
    pub(super) fn unearned_of_resolved(&self) -> Decimal {
        let owed: Decimal = self
            .estimates
            .values()
            .filter_map(Uncertain::owed)
            .map(|step| step.included)
            .sum();
        let parts = self.variable_parts();
        let earned: Decimal = parts
            .iter()
            .filter(|(.., resolved)| *resolved)
            .map(|(_, part, _)| part.expected())
            .sum();
        owed - earned
    }

    /// By how much estimates that are not resolved lower the price: as much of what is billed is the customer's.
    pub(super) fn expected_back(&self) -> Decimal {
        let parts = self.variable_parts();
        let open: Decimal = parts
            .iter()
            .filter(|(.., resolved)| !*resolved)
            .map(|(_, part, _)| part.expected())
            .sum();
        (-open).max(Decimal::ZERO)
    }

    /// What is invoiced of estimates after a day: a credit of that day cannot take it back.
    pub(super) fn resolved_after(&self, day: Date) -> Decimal {
        let later = self.invoices_of_estimates().into_iter().filter(|it| it.date > day);
        later.map(|it| it.amount).sum()
    }

    /// Invoices of what was resolved in our favour.
    pub(super) fn invoices_of_estimates(&self) -> Vec<Invoice> {
        let owed = self.estimates.values().filter_map(Uncertain::owed);
        owed.filter(|step| step.included > Decimal::ZERO)
            .map(|step| Invoice {
                date: step.date,
                amount: step.included,
                tax: self.tax_on(step.included, step.date),
                cause: step.cause.clone(),
                firm: true,
            })
            .collect()
    }

    /// Credit memos of what was resolved in the customer's favour: up to what is billed and not credited on the day and
    /// ever after; the rest as more is billed. `billed` has the day, the net and the tax of each invoice, and of each
    /// credit below zero.
    pub(super) fn credits_of_estimates(&self, mut billed: Vec<(Date, Decimal, Decimal)>) -> Vec<CreditMemo> {
        let mut memos = Vec::new();
        let owed = self.estimates.values().filter_map(Uncertain::owed);
        for step in owed.filter(|step| step.included < Decimal::ZERO) {
            let mut left = -step.included;
            let mut days: Vec<Date> = billed.iter().map(|it| it.0).filter(|day| *day > step.date).collect();
            days.push(step.date);
            days.sort_unstable();
            days.dedup();
            for day in days {
                if left.is_zero() {
                    break;
                }
                let least = lowest_from(&billed, day);
                let amount = left.min(least.0).max(Decimal::ZERO);
                if amount.is_zero() {
                    continue;
                }
                let tax = share_of_tax(amount, least, self.wanted.currency);
                billed.push((day, -amount, -tax));
                memos.push(CreditMemo {
                    date: day,
                    amount,
                    tax,
                    cause: step.cause.clone(),
                });
                left -= amount;
            }
        }
        memos
    }
}

/// The line's change of terms, for its part: as of that day, over what remains, or measured anew where the line was.
fn follow(part: &mut Obligation, segment: &Segment, price: Decimal, fold: &Fold) {
    if segment.laid == Laid::Credit {
        return;
    }
    let terms = priced(&segment.terms, price);
    if part.last_segment().terms == terms {
        return;
    }
    let left = modify::remaining(part, price, segment.from);
    modify::prospective(part, segment.from, terms, left, &segment.cause, fold.spread);
}

/// A line's terms at the price of a part. Milestones keep the weights that they have at the line's own price.
fn priced(terms: &LineTerms, price: Decimal) -> LineTerms {
    let weight = |it: &Milestone| Milestone {
        id: it.id.clone(),
        share: MilestoneShare::Amount(milestone_weight(it.share, terms.price)),
    };
    LineTerms {
        price,
        milestones: terms.milestones.iter().map(weight).collect(),
        ..terms.clone()
    }
}
