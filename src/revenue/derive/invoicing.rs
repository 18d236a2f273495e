//! The invoices of a deal: the plan of its terms, and what follows from performance.
//!
//! Usage beyond what is prepaid is invoiced on the last day of its billing cycle; under the cycle `milestone`, milestone
//! lines are invoiced as they are accepted. Everything else follows the plan (`billing`).
//!
//! Invariant: invoices sum to the price before credits, and a change of terms leaves the invoices before it as they were, tax
//! included. Tax is never revenue (ASC 606-10-32-2A): where the price includes it, gross invoices sum to the price as agreed,
//! and the tax of each is what is left of it beside its net price. Deliberately absent: credit memos.

use std::cmp::Reverse;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::{Taxed, net_of_tax};
use super::super::billing::{Grid, Invoice, replan, split};
use super::super::fact::{BillingCycle, Credit, Deal, Fact, Method, Tax, TaxBasis};
use super::super::ids::EventId;
use super::super::money::Currency;
use super::super::obligation::{Curve, LumpReason, Obligation};
use super::super::period::add_days;
use super::super::reject::{Code, Rejection};
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
        let of_term = || self.term.obligations.iter().map(|at| &self.wanted.obligations[*at]);
        let prices = |accepted: bool| -> Decimal {
            of_term()
                .filter(|obligation| on_acceptance(obligation) == accepted)
                .map(|obligation| self.fixed_price(obligation))
                .sum()
        };
        let (spread, on_acceptance) = (prices(false), prices(true));
        let taxed = self.taxed_from(from);
        let old: Vec<(Date, Decimal)> = self.wanted.invoices.iter().map(|it| (it.date, it.amount)).collect();
        let mut rows = replan(&old, spread, &self.term.grid, from, currency);
        let before = self.wanted.invoices.iter().filter(|it| it.date < from);
        let kept = Charged {
            taxes: before.clone().map(|it| it.tax).collect(),
            net: before.map(|it| it.amount).sum(),
        };
        // The terms price what follows alone where they begin anew.
        let follows = self.term.grid.start > self.term.start;
        // What lines that are no longer sold earned is beside the price, and was taxed as it was.
        let beside = spread + on_acceptance - taxed.net;
        let tax = match (follows, kept.net.is_zero()) {
            (true, _) => kept.tax() + taxed.on(spread - kept.net + on_acceptance) - taxed.on(on_acceptance),
            (false, true) => taxed.whole - taxed.on(on_acceptance) + taxed.on_more(beside),
            (false, false) => taxed.whole - taxed.on(on_acceptance) + currency.share(kept.tax(), beside, kept.net),
        };
        if rows.len() == kept.taxes.len() && taxed.rate().is_none() && tax != kept.tax() {
            // All is invoiced but for the tax that changed.
            rows.push((from, Decimal::ZERO));
        }
        let taxes = taxes(&rows, &kept, tax, &taxed, &self.term.grid, currency);
        self.taxed.retain(|it| it.from < taxed.from);
        self.taxed.push(taxed);
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
            .zip(taxes)
            .filter(|((_, amount), tax)| !amount.is_zero() || !tax.is_zero())
            .map(|((date, amount), tax)| Invoice {
                date,
                amount,
                tax,
                cause: cause_of(date, amount),
                firm: true,
            })
            .collect();
    }

    /// How the running term's deal is taxed from the day on which its terms hold.
    fn taxed_from(&self, from: Date) -> Taxed {
        let deal = &self.term.deal;
        let net = match self.term.grid.start > self.term.start {
            true => net_of_tax(deal),
            false => net_of_tax(&self.at_taxes_billed(deal, from)),
        };
        let first = match self.taxed.is_empty() {
            true => Date::MIN,
            // A following term is planned as a whole.
            false if from == Date::MIN => self.term.start,
            false => from,
        };
        Taxed::new(deal, net, first)
    }

    /// A deal whose price includes tax at a rate that is not the one of what was billed before: what was billed contains the
    /// old tax, and only the rest of the price the new one.
    pub(super) fn at_taxes_billed(&self, deal: &Deal, from: Date) -> Deal {
        let Some(Tax {
            basis: TaxBasis::Rate(rate),
            inclusive: true,
        }) = deal.tax
        else {
            return deal.clone();
        };
        let term = self.term.start;
        let before = || self.wanted.invoices.iter().filter(|it| it.date < from);
        let of_rate = |at: Date| self.taxed_on(at).and_then(Taxed::rate_inside) == Some(rate);
        if before().all(|it| of_rate(it.date.max(term))) {
            return deal.clone();
        }
        let net: Decimal = before().map(|it| it.amount).sum();
        let gross: Decimal = before().map(|it| it.amount + it.tax).sum();
        let left = deal.amount - gross;
        let rest = match left < Decimal::ZERO {
            // What is given back contains the tax that was charged for it.
            true => self.wanted.currency.share(net, left, gross),
            false => self.wanted.currency.round(left / (Decimal::ONE + rate)),
        };
        let tax = (deal.amount - net - rest).min(deal.amount);
        Deal {
            tax: Some(Tax {
                basis: TaxBasis::Amount(tax),
                inclusive: true,
            }),
            ..deal.clone()
        }
    }

    /// The taxes that hold on a day.
    fn taxed_on(&self, day: Date) -> Option<&Taxed> {
        let holds = self.taxed.iter().rfind(|it| it.from <= day);
        holds.or(self.taxed.first())
    }

    /// The tax on an amount of the price that is invoiced on a day.
    pub(super) fn tax_on(&self, amount: Decimal, day: Date) -> Decimal {
        self.taxed_on(day).map_or(Decimal::ZERO, |taxed| taxed.on(amount))
    }

    /// Invoices that follow from performance: usage beyond what is prepaid, accepted milestones; of an earlier term also
    /// what is performed late.
    pub(super) fn invoices_of_performance(&self) -> Vec<Invoice> {
        let former = self.former.iter().map(|(_, term)| term);
        let terms = former.chain([&self.term]);
        terms.flat_map(|term| self.performed_in(term)).collect()
    }

    fn performed_in(&self, term: &Term) -> Vec<Invoice> {
        let of_term = || term.obligations.iter().map(|at| &self.wanted.obligations[*at]);
        let method = |obligation: &&Obligation, method: Method| obligation.last_segment().terms.method == method;
        let mut used: Vec<Performed> = of_term()
            .filter(|it| method(it, Method::Usage))
            .flat_map(|obligation| self.usage_invoices(obligation, term))
            .collect();
        let mut accepted: Vec<Performed> = match term.grid.cycle {
            BillingCycle::Milestone => of_term()
                .filter(|it| method(it, Method::Milestone))
                .flat_map(milestone_invoices)
                .collect(),
            BillingCycle::Monthly | BillingCycle::Quarterly | BillingCycle::Annual | BillingCycle::Upfront => {
                Vec::new()
            }
        };
        used.retain(|(_, amount, ..)| !amount.is_zero());
        accepted.retain(|(_, amount, ..)| !amount.is_zero());
        accepted.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        let invoice = |(date, amount, cause, firm): Performed, tax: Decimal| Invoice {
            date,
            amount,
            tax,
            cause,
            firm,
        };
        let used = used.into_iter().map(|it| {
            let tax = self.taxed_on(it.0).map_or(Decimal::ZERO, |taxed| taxed.on_more(it.1));
            invoice(it, tax)
        });
        // The running total is taxed, so that the parts of a price have all of its tax.
        let mut billed = Decimal::ZERO;
        let accepted = accepted.into_iter().map(|it| {
            let tax = match self.taxed_on(it.0) {
                Some(taxed) if taxed.rate().is_none() => taxed.on(billed + it.1) - taxed.on(billed),
                Some(taxed) => taxed.on(it.1),
                None => Decimal::ZERO,
            };
            billed += it.1;
            invoice(it, tax)
        });
        used.chain(accepted).collect()
    }

    /// Usage is invoiced on the last day of the billing cycle in which it falls, under the last fact of the cycle.
    fn usage_invoices(&self, obligation: &Obligation, term: &Term) -> Vec<Performed> {
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
        let tax = self.tax_on(amount, date);
        let cause = fact.event_id.clone();
        self.wanted.invoices.push(Invoice {
            date,
            amount,
            tax,
            cause,
            firm: true,
        });
    }

    /// A credit stops at what is billed and left of the price; people hear of the part that finds nothing there.
    pub(super) fn refuse_the_rest(&mut self, fact: &Fact, it: &Credit) {
        let memos = self.wanted.credits.iter().filter(|memo| memo.cause == fact.event_id);
        let granted: Decimal = memos.map(|memo| memo.amount).sum();
        if granted < it.amount {
            let rejection = Rejection::new(
                Code::CreditInPart,
                "payload.amount",
                it.amount,
                &format!(
                    "{granted} of it is credited, as no more is billed and left of the price on {}; {} is refused: \
                     lower the price by deal.amended, or credit it once it is billed",
                    it.date,
                    it.amount - granted
                ),
            );
            self.refused_parts.push((fact.event_id.clone(), rejection));
        }
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

/// Day, net amount and cause of an invoice that follows from performance, and whether it is firm.
type Performed = (Date, Decimal, EventId, bool);

/// What was invoiced before a change.
struct Charged {
    taxes: Vec<Decimal>,
    net: Decimal,
}

impl Charged {
    fn tax(&self) -> Decimal {
        self.taxes.iter().sum()
    }
}

/// The tax of each row of a plan, of which the first ones were invoiced before. `tax` is that of all rows, where it is
/// agreed.
fn taxes(
    rows: &[(Date, Decimal)],
    kept: &Charged,
    tax: Decimal,
    taxed: &Taxed,
    grid: &Grid,
    currency: Currency,
) -> Vec<Decimal> {
    let (earlier, later) = rows.split_at(kept.taxes.len());
    if let Some(rate) = taxed.rate() {
        let charge = |(_, net): &(Date, Decimal)| match net.is_sign_negative() && !kept.net.is_zero() {
            // It takes back a part of what was invoiced, with the tax that was charged for it.
            true => currency.share(kept.tax(), *net, kept.net),
            false => currency.round(net * rate),
        };
        return kept.taxes.iter().copied().chain(later.iter().map(charge)).collect();
    }
    let share = |tax: Decimal, rows: &[(Date, Decimal)]| match taxed.is_inclusive() {
        true => inclusive(tax, rows, grid, currency),
        false => in_proportion(tax, rows, currency),
    };
    // As if it had been agreed so from the start, where that leaves what was invoiced as it was.
    let fresh = share(tax, rows);
    if fresh[..earlier.len()] == kept.taxes {
        return fresh;
    }
    let rest = share(tax - kept.tax(), later);
    kept.taxes.iter().copied().chain(rest).collect()
}

/// Tax by net amounts; the last one takes the rest.
fn in_proportion(tax: Decimal, rows: &[(Date, Decimal)], currency: Currency) -> Vec<Decimal> {
    let all: Decimal = rows.iter().map(|(_, net)| net).sum();
    let mut taxes: Vec<Decimal> = rows.iter().map(|(_, net)| currency.share(tax, *net, all)).collect();
    let rest = tax - taxes.iter().sum::<Decimal>();
    if let Some(last) = taxes.last_mut() {
        *last += rest;
    }
    taxes
}

/// The gross price is split as the net price was; what is not net of it is tax.
fn inclusive(tax: Decimal, rows: &[(Date, Decimal)], grid: &Grid, currency: Currency) -> Vec<Decimal> {
    let first = rows.first().map_or(Date::MAX, |(day, _)| *day);
    let days: Vec<(Date, Decimal)> = grid.days().into_iter().filter(|(day, _)| *day >= first).collect();
    if !days.iter().map(|it| it.0).eq(rows.iter().map(|it| it.0)) {
        return in_proportion(tax, rows, currency);
    }
    let net: Decimal = rows.iter().map(|(_, net)| net).sum();
    let gross = split(net + tax, &days, currency);
    gross
        .iter()
        .zip(rows)
        .map(|((_, gross), (_, net))| gross - net)
        .collect()
}

/// A milestone is invoiced on the day of its acceptance; a change of the price of what was accepted, on its own day, as the
/// right to it is unconditional by then (ASC 606-10-45-4). What is not accepted is expected at the end.
fn milestone_invoices(obligation: &Obligation) -> Vec<Performed> {
    let accepted = obligation.performance.accepted().iter();
    let accepted = accepted.map(|(date, _, cause)| (*date, cause));
    let changes = obligation.lumps.iter().filter(|it| it.reason == LumpReason::CatchUp);
    // What a change leaves where every milestone was accepted is earned on one day.
    let at_once = obligation.segments.iter().filter_map(|segment| match &segment.curve {
        Curve::Point { date, .. } if *date < Date::MAX => Some((*date, &segment.cause)),
        _ => None,
    });
    let changes = changes.map(|it| (it.date, &it.cause)).chain(at_once);
    let mut days: Vec<(Date, &EventId)> = accepted.chain(changes).collect();
    days.sort_by_key(|(date, _)| *date);
    let mut billed = Decimal::ZERO;
    let mut invoices = Vec::new();
    for (date, cause) in days {
        // Credits have memos of their own: what is invoiced is before them.
        let credits = obligation.credits.iter().filter(|(day, ..)| *day <= date);
        let changes = obligation.lumps.iter();
        let changes = changes.filter(|it| it.reason == LumpReason::CatchUp && it.date <= date);
        let level = obligation.level_before(add_days(date, 1))
            + credits.map(|(_, amount, _)| amount).sum::<Decimal>()
            + changes.map(|it| it.amount).sum::<Decimal>();
        invoices.push((date, level - billed, cause.clone(), true));
        billed = level;
    }
    if obligation.stop.is_none() {
        let cause = obligation.last_segment().cause.clone();
        invoices.push((obligation.end, obligation.gross_price() - billed, cause, false));
    }
    invoices
}
