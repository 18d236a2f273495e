//! The billing plan: what to invoice when.
//!
//! A price is split over the cycles of the term in proportion to their months, by cumulative rounding. Invoice days
//! keep the anchor of the contract's start day, also for the days 29 to 31. In advance: the first day of a cycle; in
//! arrears: its last; `upfront`: the first day of the term. Stated instalments take the place of the cycles: their amounts
//! are the weights. An amendment leaves every invoice before its effective
//! date as it is and spreads the rest over the days that remain; where none remains, the difference falls due on the
//! effective date itself, as an invoice or, below zero, as a credit memo.
//!
//! Invariant: the rows of a plan sum to its price exactly. Deliberately absent: what an invoice posts (`ledger`).

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::curve::MONTH;
use super::fact::{BillingCycle, Instalment};
use super::ids::EventId;
use super::money::Currency;
use super::period::{add_days, add_months, days_between};
use super::policy::BillingTiming;

/// A planned invoice; below zero, a credit memo. `amount` is net of `tax`.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoice {
    pub date: Date,
    pub amount: Decimal,
    pub tax: Decimal,
    /// The fact that planned it.
    pub cause: EventId,
    /// False while it waits for an event, such as the acceptance of a milestone.
    pub firm: bool,
}

/// When a term is invoiced.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub cycle: BillingCycle,
    pub timing: BillingTiming,
    pub start: Date,
    pub end: Date,
    /// Sorted by day; they replace the cycle where there are any.
    pub instalments: Vec<Instalment>,
}

impl Grid {
    /// Invoice days with the weight of their cycle.
    pub fn days(&self) -> Vec<(Date, Decimal)> {
        match self.instalments.is_empty() {
            true => self.cycles(),
            false => self.instalments.iter().map(|it| (it.date, it.amount)).collect(),
        }
    }

    fn cycles(&self) -> Vec<(Date, Decimal)> {
        let Some(months) = self.months() else {
            return vec![(self.start, MONTH.into())];
        };
        self.starts(months)
            .map(|(cycle, start, last)| {
                let day = match self.timing {
                    BillingTiming::InAdvance => start,
                    BillingTiming::InArrears => last.min(self.end),
                };
                (day, self.weight(cycle * months, (cycle + 1) * months).into())
            })
            .collect()
    }

    /// The last day of each cycle, whatever instalments are stated; empty for a term that is one cycle.
    pub fn cycle_ends(&self) -> Vec<Date> {
        let cycles = self.months().map(|months| self.starts(months));
        cycles
            .into_iter()
            .flatten()
            .map(|(_, _, last)| last.min(self.end))
            .collect()
    }

    fn months(&self) -> Option<i64> {
        match self.cycle {
            BillingCycle::Monthly => Some(1),
            BillingCycle::Quarterly => Some(3),
            BillingCycle::Annual => Some(12),
            BillingCycle::Upfront | BillingCycle::Milestone => None,
        }
    }

    /// Number, first and last day of each cycle that begins in the term.
    fn starts(&self, months: i64) -> impl Iterator<Item = (i64, Date, Date)> {
        (0..)
            .map(move |cycle| {
                let start = add_months(self.start, cycle * months);
                (cycle, start, add_days(add_months(self.start, (cycle + 1) * months), -1))
            })
            .take_while(|(_, start, last)| *start <= self.end && start <= last)
    }

    /// Months `from` to `to` after the start, as far as they lie inside the term.
    fn weight(&self, from: i64, to: i64) -> i64 {
        if add_months(self.start, to) <= add_days(self.end, 1) {
            return (to - from) * MONTH;
        }
        (from..to)
            .map(|month| {
                let (first, next) = (add_months(self.start, month), add_months(self.start, month + 1));
                let days = days_between(first, next.min(add_days(self.end, 1))).max(0);
                days * MONTH / days_between(first, next).max(1)
            })
            .sum()
    }

    /// The rows of a price.
    pub fn split(&self, price: Decimal, currency: Currency) -> Vec<(Date, Decimal)> {
        split(price, &self.days(), currency)
    }
}

/// Rows of a plan after a change on `from`: what was planned before stays, the rest of `price` follows.
pub fn replan(
    planned: &[(Date, Decimal)],
    price: Decimal,
    grid: &Grid,
    from: Date,
    currency: Currency,
) -> Vec<(Date, Decimal)> {
    let kept: Vec<(Date, Decimal)> = planned.iter().filter(|(day, _)| *day < from).copied().collect();
    let days = grid.days();
    let fresh = split(price, &days, currency);
    if fresh.iter().filter(|(day, _)| *day < from).eq(kept.iter()) {
        return fresh;
    }
    let billed: Decimal = kept.iter().map(|(_, amount)| amount).sum();
    let rest = price - billed;
    let days: Vec<(Date, Decimal)> = days.into_iter().filter(|(day, _)| *day >= from).collect();
    let mut rows = kept;
    match days.is_empty() || rest < Decimal::ZERO {
        true if rest.is_zero() => {}
        true => rows.push((from, rest)),
        false => rows.extend(split(rest, &days, currency)),
    }
    rows
}

/// A price over days with their weights, by cumulative rounding.
pub fn split(price: Decimal, days: &[(Date, Decimal)], currency: Currency) -> Vec<(Date, Decimal)> {
    let total: Decimal = days.iter().map(|(_, weight)| weight).sum();
    let (mut weight, mut billed) = (Decimal::ZERO, Decimal::ZERO);
    days.iter()
        .map(|(day, part)| {
            weight += part;
            let until = currency.share(price, weight, total);
            let amount = until - billed;
            billed = until;
            (*day, amount)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn rows(grid: Grid, price: i64) -> Vec<String> {
        let currency = Currency::parse("USD").unwrap();
        let rows = grid.split(Decimal::from(price), currency);
        assert_eq!(rows.iter().map(|(_, a)| a).sum::<Decimal>(), Decimal::from(price));
        rows.iter()
            .map(|(day, amount)| format!("{day} {}", currency.format(*amount)))
            .collect()
    }

    #[test]
    fn anchors_and_cycles() {
        let grid = |cycle, timing| Grid {
            cycle,
            timing,
            start: date(2024, 1, 31),
            end: date(2024, 12, 30),
            instalments: Vec::new(),
        };
        let monthly = rows(grid(BillingCycle::Monthly, BillingTiming::InAdvance), 1100);
        assert_eq!(
            monthly[..3],
            ["2024-01-31 100.00", "2024-02-29 100.00", "2024-03-31 100.00"]
        );
        let quarterly = rows(grid(BillingCycle::Quarterly, BillingTiming::InArrears), 1100);
        assert_eq!(
            quarterly,
            [
                "2024-04-29 300.00",
                "2024-07-30 300.00",
                "2024-10-30 300.00",
                "2024-12-30 200.00"
            ]
        );
        assert_eq!(
            rows(grid(BillingCycle::Upfront, BillingTiming::InArrears), 5),
            ["2024-01-31 5.00"]
        );
    }

    #[test]
    fn a_change_keeps_what_was_billed() {
        let currency = Currency::parse("USD").unwrap();
        let grid = Grid {
            cycle: BillingCycle::Annual,
            timing: BillingTiming::InAdvance,
            start: date(2026, 1, 1),
            end: date(2026, 12, 31),
            instalments: Vec::new(),
        };
        let planned = grid.split(Decimal::from(1200), currency);
        let more = replan(&planned, 1500.into(), &grid, date(2026, 7, 1), currency);
        assert_eq!(more, [(date(2026, 1, 1), 1200.into()), (date(2026, 7, 1), 300.into())]);
        let undone = replan(&more, 1200.into(), &grid, date(2026, 7, 1), currency);
        assert_eq!(undone, planned);
    }
}
