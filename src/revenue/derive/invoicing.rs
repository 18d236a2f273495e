//! The invoices of a deal: the plan of its terms, and what follows from performance.
//!
//! Usage beyond what is prepaid is invoiced on the last day of its billing cycle; under the cycle `milestone`, milestone
//! lines are invoiced as they are accepted. Everything else follows the plan (`billing`).
//!
//! Invariant: invoices sum to the price before credits. Deliberately absent: credit memos.

use std::cmp::Reverse;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::tax_on;
use super::super::billing::{Invoice, replan};
use super::super::fact::{BillingCycle, Fact, Method};
use super::super::ids::EventId;
use super::super::money::Currency;
use super::super::obligation::Obligation;
use super::super::period::add_days;
use super::{Fold, Term};

impl Fold<'_> {
    /// The price that is invoiced by the plan; usage beyond it is invoiced as it is reported.
    pub(super) fn fixed_price(&self, obligation: &Obligation) -> Decimal {
        match (obligation.last_segment().terms.method, obligation.stop) {
            (Method::Usage, None) => obligation.last_segment().price,
            (_, _) => obligation.gross_price(),
        }
    }

    pub(super) fn plan_invoices(&mut self, from: Date, cause: &EventId) {
        let currency = self.wanted.currency;
        let by_milestone = self.term.grid.cycle == BillingCycle::Milestone;
        let on_acceptance =
            |obligation: &Obligation| by_milestone && obligation.last_segment().terms.method == Method::Milestone;
        let spread: Decimal = self
            .term
            .obligations
            .iter()
            .map(|at| &self.wanted.obligations[*at])
            .filter(|obligation| !on_acceptance(obligation))
            .map(|obligation| self.fixed_price(obligation))
            .sum();
        let old: Vec<(Date, Decimal)> = self.wanted.invoices.iter().map(|it| (it.date, it.amount)).collect();
        let rows = replan(&old, spread, &self.term.grid, from, currency);
        let mut planned = std::mem::take(&mut self.wanted.invoices);
        planned.sort_by_key(|it| it.date);
        let cause_of = |date: Date, amount: Decimal| {
            let of_day = &planned[planned.partition_point(|it| it.date < date)..];
            let of_day = of_day.iter().take_while(|it| it.date == date);
            let known = of_day.filter(|it| it.amount == amount).last();
            known.map_or(cause, |it| &it.cause).clone()
        };
        self.wanted.invoices = rows
            .into_iter()
            .filter(|(_, amount)| !amount.is_zero())
            .map(|(date, amount)| Invoice {
                date,
                amount,
                tax: tax_on(amount, &self.term.deal),
                cause: cause_of(date, amount),
                firm: true,
            })
            .collect();
    }

    /// Invoices that follow from performance: usage beyond what is prepaid, accepted milestones; of an earlier term also
    /// what is performed late.
    pub(super) fn invoices_of_performance(&self) -> Vec<Invoice> {
        let former = self.former.iter().map(|(_, term)| term);
        let terms = former.chain([&self.term]);
        terms.flat_map(|term| self.performed_in(term)).collect()
    }

    fn performed_in(&self, term: &Term) -> Vec<Invoice> {
        let mut rows: Vec<(Date, Decimal, EventId, bool)> = Vec::new();
        for obligation in term.obligations.iter().map(|at| &self.wanted.obligations[*at]) {
            match obligation.last_segment().terms.method {
                Method::Usage => rows.extend(self.usage_invoices(obligation, term)),
                Method::Milestone if term.grid.cycle == BillingCycle::Milestone => {
                    rows.extend(milestone_invoices(obligation));
                }
                Method::Milestone | Method::StraightLine | Method::PointInTime | Method::Units | Method::Progress => {}
            }
        }
        rows.retain(|(_, amount, ..)| !amount.is_zero());
        let tax = |amount| tax_on(amount, &term.deal);
        let invoice = |(date, amount, cause, firm)| Invoice {
            date,
            amount,
            tax: tax(amount),
            cause,
            firm,
        };
        rows.into_iter().map(invoice).collect()
    }

    /// Usage is invoiced on the last day of the billing cycle in which it falls, under the last fact of the cycle.
    fn usage_invoices(&self, obligation: &Obligation, term: &Term) -> Vec<(Date, Decimal, EventId, bool)> {
        let days = term.grid.cycle_ends();
        let cycle_end = |date: Date| match term.grid.cycle {
            BillingCycle::Monthly | BillingCycle::Quarterly | BillingCycle::Annual => days
                .get(days.partition_point(|day| *day < date))
                .copied()
                .unwrap_or(date),
            BillingCycle::Upfront | BillingCycle::Milestone => {
                self.spread.calendar.last_day(self.spread.calendar.of(date))
            }
        };
        let prepaid = obligation.last_segment().price - obligation.credited();
        let performance = &obligation.performance;
        let beyond = |day: Date| (performance.usage_before(day) - prepaid).max(Decimal::ZERO);
        let usage = performance.usage();
        let stop = obligation.stop.unwrap_or(Date::MAX);
        let mut left = &usage[..usage.partition_point(|it| it.date < stop)];
        let mut invoiced = Decimal::ZERO.max(-prepaid);
        let mut invoices = Vec::new();
        while let Some(first) = left.first() {
            let day = cycle_end(first.date);
            let (cycle, rest) = left.split_at(left.partition_point(|it| it.date <= day));
            let until = beyond(add_days(day, 1).min(stop));
            if let Some(last) = cycle.last() {
                invoices.push((day, until - invoiced, last.event.clone(), true));
            }
            (invoiced, left) = (until, rest);
        }
        invoices
    }

    pub(super) fn invoice(&mut self, date: Date, amount: Decimal, fact: &Fact) {
        let tax = tax_on(amount, &self.term.deal);
        let cause = fact.event_id.clone();
        self.wanted.invoices.push(Invoice {
            date,
            amount,
            tax,
            cause,
            firm: true,
        });
    }

    /// Invoiced less credited on the days before a day, without tax.
    pub(super) fn billed_before(&self, day: Date) -> Decimal {
        self.billed(day).0
    }

    /// The tax of a credit of a day.
    pub(super) fn tax_of_credit(&self, amount: Decimal, day: Date) -> Decimal {
        share_of_tax(amount, lowest_from(&self.billed_rows(), day), self.wanted.currency)
    }

    /// Invoiced less credited on the days before a day: net and tax.
    fn billed(&self, day: Date) -> (Decimal, Decimal) {
        let before = self.billed_rows().into_iter().filter(|it| it.0 < day);
        before.fold((Decimal::ZERO, Decimal::ZERO), |(net, tax), it| {
            (net + it.1, tax + it.2)
        })
    }

    /// Invoiced less credited over all days, without tax and without what estimates bill.
    pub(super) fn billed_of_terms(&self) -> Decimal {
        self.rows_of_terms().into_iter().map(|it| it.1).sum()
    }

    /// What is billed and not credited by the end of a day and ever after: what a credit of the day may take back.
    pub(super) fn billed_from(&self, day: Date) -> Decimal {
        lowest_from(&self.billed_rows(), day).0
    }

    /// Day, net and tax of every firm invoice and, below zero, of every credit.
    fn billed_rows(&self) -> Vec<(Date, Decimal, Decimal)> {
        let mut rows = self.rows_of_terms();
        let resolved = self.invoices_of_estimates().into_iter();
        rows.extend(resolved.map(|it| (it.date, it.amount, it.tax)));
        if !self.estimates.is_empty() {
            let memos = self.credits_of_estimates(rows.clone());
            rows.extend(memos.iter().map(|it| (it.date, -it.amount, -it.tax)));
        }
        rows
    }

    fn rows_of_terms(&self) -> Vec<(Date, Decimal, Decimal)> {
        let performance = self.invoices_of_performance();
        let invoices = self.wanted.invoices.iter().chain(&self.term.settled);
        let firm = invoices.chain(&performance).filter(|it| it.firm);
        let credits = self.wanted.credits.iter().map(|it| (it.date, -it.amount, -it.tax));
        firm.map(|it| (it.date, it.amount, it.tax)).chain(credits).collect()
    }
}

/// The least that is billed and not credited at the end of a day or of any later one, and the least tax of it.
pub(super) fn lowest_from(billed: &[(Date, Decimal, Decimal)], day: Date) -> (Decimal, Decimal) {
    let mut later: Vec<&(Date, Decimal, Decimal)> = billed.iter().filter(|it| it.0 > day).collect();
    // Of one day, invoices first: what counts is the end of it.
    later.sort_by_key(|it| (it.0, Reverse(it.1)));
    let by_then = billed.iter().filter(|it| it.0 <= day);
    let now = by_then.fold((Decimal::ZERO, Decimal::ZERO), |sum, it| (sum.0 + it.1, sum.1 + it.2));
    let (_, least) = later.iter().fold((now, now), |(sum, least), it| {
        let sum = (sum.0 + it.1, sum.1 + it.2);
        (sum, (least.0.min(sum.0), least.1.min(sum.1)))
    });
    least
}

/// The tax of a credit: its share of the tax that is billed and not yet given back, so that no rounding ever gives back
/// more tax than was charged. `billed` is what a credit of its day may take back, see [`lowest_from`].
pub(super) fn share_of_tax(amount: Decimal, (net, tax): (Decimal, Decimal), currency: Currency) -> Decimal {
    let share = currency.share(tax, amount, net);
    share.clamp(Decimal::ZERO, tax.max(Decimal::ZERO))
}

/// A milestone is invoiced on the day of its acceptance; what is not accepted is expected at the end.
fn milestone_invoices(obligation: &Obligation) -> Vec<(Date, Decimal, EventId, bool)> {
    let mut billed = Decimal::ZERO;
    let mut invoices = Vec::new();
    for (date, _, cause) in obligation.performance.accepted() {
        // Credits have memos of their own: what is invoiced is before them.
        let credits = obligation.credits.iter().filter(|(day, ..)| day <= date);
        let level = obligation.level_before(add_days(*date, 1)) + credits.map(|(_, amount, _)| amount).sum::<Decimal>();
        invoices.push((*date, level - billed, cause.clone(), true));
        billed = level;
    }
    if obligation.stop.is_none() {
        let cause = obligation.last_segment().cause.clone();
        invoices.push((obligation.end, obligation.gross_price() - billed, cause, false));
    }
    invoices
}
