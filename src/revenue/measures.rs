//! Measures that finance reports: the deferred revenue waterfall, remaining performance obligations, recurring revenue.
//!
//! Invariant: every bridge closes exactly: opening and movements make closing. Deliberately absent: charts, estimates,
//! and sums over currencies.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::contract::ScheduleRow;
use super::curve::{MONTH, months};
use super::ids::{DealId, TenantId};
use super::journal::{JournalEntry, Kind};
use super::ledger::Role;
use super::money::Currency;
use super::obligation::{Curve, Obligation, Segment};
use super::period::{FiscalCalendar, Period, add_days, add_months};
use super::reference::Context;
use super::view::Recurring;

/// Deferred revenue of one tenant, currency and period.
#[derive(Clone, Debug, PartialEq)]
pub struct WaterfallRow {
    pub tenant: TenantId,
    pub currency: Currency,
    pub functional_currency: Currency,
    pub period: Period,
    pub amounts: Waterfall,
    pub functional: Waterfall,
}

/// `opening + billed - recognised + fx = closing`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waterfall {
    pub opening: Decimal,
    /// Invoiced and prepaid, less credited.
    pub billed: Decimal,
    pub recognised: Decimal,
    /// Zero where the liability keeps its historic rate (IFRIC 22).
    pub fx: Decimal,
    pub closing: Decimal,
}

/// The waterfall of contract liabilities, one row for each period with entries, sorted by tenant, currency, period.
pub fn waterfall(entries: &[JournalEntry]) -> Vec<WaterfallRow> {
    let mut rows: BTreeMap<(TenantId, Currency, Currency, Period), (Waterfall, Waterfall)> = BTreeMap::new();
    for entry in entries {
        let key = (
            entry.tenant.clone(),
            entry.currency,
            entry.functional_currency,
            entry.period,
        );
        let (amounts, functional) = rows.entry(key).or_default();
        for line in entry.lines.iter().filter(|line| line.role == Role::ContractLiability) {
            amounts.add(entry.kind, line.credit - line.debit);
            functional.add(entry.kind, line.functional_credit - line.functional_debit);
        }
    }
    let mut last: BTreeMap<(TenantId, Currency, Currency), (Decimal, Decimal)> = BTreeMap::new();
    rows.into_iter()
        .map(
            |((tenant, currency, functional_currency, period), (mut amounts, mut functional))| {
                let balance = last.entry((tenant.clone(), currency, functional_currency)).or_default();
                balance.0 = amounts.open_at(balance.0);
                balance.1 = functional.open_at(balance.1);
                WaterfallRow {
                    tenant,
                    currency,
                    functional_currency,
                    period,
                    amounts,
                    functional,
                }
            },
        )
        .collect()
}

impl Waterfall {
    fn add(&mut self, kind: Kind, liability: Decimal) {
        match kind {
            Kind::Invoice | Kind::Payment | Kind::CreditMemo => self.billed += liability,
            Kind::Recognition | Kind::Adjustment | Kind::Reversal => self.recognised -= liability,
            Kind::FxRemeasurement => self.fx += liability,
        }
    }

    fn open_at(&mut self, opening: Decimal) -> Decimal {
        self.opening = opening;
        self.closing = opening + self.billed - self.recognised + self.fx;
        self.closing
    }
}

/// Remaining performance obligations (ASC 606-10-50-13), and the part due within twelve months.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Remaining {
    pub total: Decimal,
    pub within_a_year: Decimal,
}

/// What the rows of one currency still hold for the days from `day` on.
pub fn remaining(rows: &[ScheduleRow], currency: Currency, day: Date, cx: &Context) -> Remaining {
    let calendar = cx.tenant.fiscal;
    let year = add_days(add_months(day, 12), -1);
    let mut found = Remaining::default();
    for row in rows.iter().filter(|row| row.currency == currency) {
        if calendar.last_day(row.period) >= day && !row.posted {
            found.total += row.amount;
            if calendar.first_day(row.period) <= year {
                found.within_a_year += row.amount;
            }
        }
    }
    found
}

/// What is still to be recognised of schedule rows: each less what the entries dated before `day` recognised of it.
///
/// Whatever was posted ahead or in part, these rows and those entries make the price on every day. `posted` is false in
/// all of them.
pub fn pending(rows: &[ScheduleRow], entries: &[JournalEntry], day: Date) -> Vec<ScheduleRow> {
    let mut recognised: BTreeMap<_, (Decimal, Decimal)> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.date < day) {
        if let Some(obligation) = &entry.obligation {
            let sum = recognised
                .entry((&entry.tenant, &entry.deal, obligation, entry.period))
                .or_default();
            for line in entry.lines.iter().filter(|line| matches!(line.role, Role::Revenue(_))) {
                sum.0 += line.credit - line.debit;
                sum.1 += line.functional_credit - line.functional_debit;
            }
        }
    }
    let left = rows.iter().map(|row| {
        let key = (&row.tenant, &row.deal, &row.obligation, row.period);
        let (amount, functional) = recognised.get(&key).copied().unwrap_or_default();
        ScheduleRow {
            amount: row.amount - amount,
            functional_amount: row.functional_amount.map(|all| all - functional),
            posted: false,
            ..row.clone()
        }
    });
    left.filter(|row| !row.amount.is_zero()).collect()
}

/// The recurring revenue of a deal, obligation by obligation, each stretch of days from the first on.
pub(super) fn recurring(obligations: &[Obligation], cx: &Context) -> Vec<Recurring> {
    let recurring = obligations.iter().filter(|it| it.recurring);
    recurring.flat_map(|it| stretches(it, cx)).collect()
}

/// A segment governs its days until the next one begins or the obligation ends.
fn stretches(obligation: &Obligation, cx: &Context) -> Vec<Recurring> {
    let last = match obligation.stop {
        Some(stop) => add_days(stop, -1).min(obligation.end),
        None => obligation.end,
    };
    let mut found = Vec::new();
    for (n, segment) in obligation.segments.iter().enumerate() {
        let from = match n {
            0 => obligation.start,
            _ => segment.from.max(obligation.start),
        };
        let next = obligation.segments.get(n + 1);
        let to = next.map_or(last, |next| add_days(next.from, -1).min(last));
        let Some(annual) = annual_rate(segment, obligation.currency, cx) else {
            continue;
        };
        if from <= to && !annual.is_zero() {
            found.push(Recurring {
                obligation: obligation.id.clone(),
                from,
                to,
                annual,
            });
        }
    }
    found
}

fn annual_rate(segment: &Segment, currency: Currency, cx: &Context) -> Option<Decimal> {
    match &segment.curve {
        Curve::Time(time) => Some(annual_amount(
            time.amount,
            time.from,
            time.to,
            cx.tenant.fiscal,
            currency,
        )),
        Curve::Point { .. }
        | Curve::Units { .. }
        | Curve::Milestones { .. }
        | Curve::Progress { .. }
        | Curve::Usage { .. } => None,
    }
}

/// Annual recurring revenue on a day; a twelfth of it is the monthly one.
pub fn annual_on(stretches: &[Recurring], day: Date) -> Decimal {
    let active = stretches.iter().filter(|it| it.from <= day && day <= it.to);
    active.map(|it| it.annual).sum()
}

/// An amount that is spread evenly over its months, of a calendar, for twelve of them.
fn annual_amount(amount: Decimal, from: Date, to: Date, calendar: FiscalCalendar, currency: Currency) -> Decimal {
    let months = months(calendar, from, to);
    currency.share(amount, (12 * MONTH).into(), months.into())
}

/// How recurring revenue moved between two days:
/// `opening + new + expansion - contraction - churn = closing`. `renewed` tells how much of it went into a new term.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Movement {
    pub opening: Decimal,
    pub new: Decimal,
    pub expansion: Decimal,
    pub contraction: Decimal,
    pub churn: Decimal,
    pub renewed: Decimal,
    pub closing: Decimal,
}

/// Compares recurring revenue by deal on two days; `renewals` are the deals whose term was renewed in between.
pub fn movement(
    before: &BTreeMap<DealId, Decimal>,
    after: &BTreeMap<DealId, Decimal>,
    renewals: &BTreeSet<DealId>,
) -> Movement {
    let mut found = Movement {
        opening: before.values().sum(),
        closing: after.values().sum(),
        ..Movement::default()
    };
    let deals: BTreeSet<&DealId> = before.keys().chain(after.keys()).collect();
    for deal in deals {
        let of = |day: &BTreeMap<DealId, Decimal>| day.get(deal).copied().unwrap_or_default();
        let (was, is) = (of(before), of(after));
        match (was.is_zero(), is.is_zero()) {
            (true, _) => found.new += is,
            (false, true) => found.churn += was,
            (false, false) => {
                found.expansion += (is - was).max(Decimal::ZERO);
                found.contraction += (was - is).max(Decimal::ZERO);
                if renewals.contains(deal) {
                    found.renewed += is.min(was);
                }
            }
        }
    }
    found
}
