//! Recurring revenue: how much there is on a day, and how it moved between the ends of periods.
//!
//! In functional currency every day is valued at the rate of the last one (constant currency), so that a movement shows
//! business, not exchange, and its bridge closes. Deliberately absent: usage and everything else that is not recurring
//! by its terms.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::known::{Folded, Known};
use super::super::table::{Basis, Cell, Scope, Table};
use crate::revenue::fact::Body;
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::measures::{self, Movement};
use crate::revenue::money::Currency;
use crate::revenue::period::{Period, add_days};
use crate::revenue::reference::Context;
use crate::revenue::view::Recurring;

/// The periods of a movement, each with its first and last day.
type Ended = Vec<(Period, Date, Date)>;

/// A deal that has recurring revenue on some day, or had.
struct Deal<'a> {
    id: &'a DealId,
    cx: Context<'a>,
    stretches: Vec<Recurring>,
    currency: Currency,
    /// The first days of renewed terms.
    renewals: Vec<Date>,
    /// First day of its first term.
    since: Date,
}

impl Deal<'_> {
    fn on(&self, day: Date) -> Decimal {
        measures::annual_on(&self.stretches, day)
    }

    /// A deal that is on no contract yet has none.
    fn of<'a>(folded: &'a Folded, known: &'a Known, of: &TenantId) -> Vec<Deal<'a>> {
        let deals = folded.deals.iter().filter(|((tenant, _), _)| tenant == of);
        let mut found = Vec::new();
        for ((_, id), kept) in deals {
            let cx = folded.context(&known.settings, of);
            let view = kept.contract.as_ref().and_then(|it| Some((it, it.view_now(&cx)?)));
            let Some((contract, view)) = view else {
                continue;
            };
            let Some(currency) = view.currency else {
                continue;
            };
            let obligations = view.contracts.iter().flat_map(|it| &it.obligations);
            let renewed = view.history.iter().filter(|(event, _)| {
                let fact = contract.fact(event);
                matches!(fact.map(|fact| &fact.body), Some(Body::DealRenewed(_)))
            });
            found.push(Deal {
                id,
                cx,
                stretches: view.recurring.clone(),
                currency,
                renewals: renewed.map(|(_, from)| *from).collect(),
                since: obligations.map(|it| it.start).min().unwrap_or(Date::MAX),
            });
        }
        found
    }
}

/// Recurring revenue on the last day that each tenant's books have behind them.
pub fn arr(known: &Known, days: &BTreeMap<TenantId, Date>) -> Table {
    let folded = known.contracts(&|_, _| true);
    let mut rows = Vec::new();
    for (tenant, day) in days {
        let day = add_days(*day, -1);
        let mut sums: BTreeMap<Scope, (usize, Option<Decimal>)> = BTreeMap::new();
        for deal in folded.iter().flat_map(|it| Deal::of(it, known, tenant)) {
            let annual = deal.on(day);
            if annual.is_zero() {
                continue;
            }
            for (scope, amount) in scopes(tenant, &deal, annual, day) {
                let sum = sums.entry(scope).or_insert((0, Some(Decimal::ZERO)));
                sum.0 += 1;
                sum.1 = sum.1.zip(amount).map(|(a, b)| a + b);
            }
        }
        rows.extend(sums.into_iter().map(|(scope, (deals, annual))| {
            let monthly = annual.map(|annual| scope.currency.round(annual / Decimal::from(12)));
            let on = Cell::Text(day.to_string());
            (scope, vec![on, Cell::Count(deals), monthly.into(), annual.into()])
        }));
    }
    Table {
        name: "arr",
        title: "Recurring revenue",
        columns: &["on", "deals", "mrr", "arr"],
        rows,
        bar: None,
    }
}

/// How recurring revenue moved in each period that has ended by the tenant's day, from the first one with a deal.
pub fn movement(known: &Known, days: &BTreeMap<TenantId, Date>) -> Table {
    let folded = known.contracts(&|_, _| true);
    let mut rows = Vec::new();
    for (tenant, day) in days {
        let deals: Vec<Deal> = folded.iter().flat_map(|it| Deal::of(it, known, tenant)).collect();
        let periods = ended(known, tenant, &deals, *day);
        let mut before: BTreeMap<Scope, Option<BTreeMap<DealId, Decimal>>> = BTreeMap::new();
        for (period, first, last) in periods {
            let mut after: BTreeMap<Scope, Option<BTreeMap<DealId, Decimal>>> = BTreeMap::new();
            let mut renewals = BTreeSet::new();
            for deal in &deals {
                for (scope, amount) in scopes(tenant, deal, deal.on(last), add_days(*day, -1)) {
                    let of = after.entry(scope).or_insert_with(|| Some(BTreeMap::new()));
                    *of = of.take().zip(amount).map(|(mut of, amount)| {
                        of.insert(deal.id.clone(), amount);
                        of
                    });
                }
                if deal.renewals.iter().any(|from| (first..=last).contains(from)) {
                    renewals.insert(deal.id.clone());
                }
            }
            for (scope, after) in &after {
                let none = || Some(BTreeMap::new());
                let before = before.get(scope).cloned().unwrap_or_else(none);
                let moved = before.zip(after.as_ref());
                let moved = moved.map(|(before, after)| measures::movement(&before, after, &renewals));
                rows.push((scope.clone(), period, cells(period, moved)));
            }
            before = after;
        }
    }
    rows.sort_by(|(a, x, _), (b, y, _)| (a, x).cmp(&(b, y)));
    Table {
        name: "movement",
        title: "Movement of annual recurring revenue",
        columns: &[
            "period",
            "opening",
            "new",
            "expansion",
            "contraction",
            "churn",
            "closing",
            "of_it_renewed",
        ],
        rows: rows.into_iter().map(|(scope, _, cells)| (scope, cells)).collect(),
        bar: Some(6),
    }
}

fn cells(period: Period, moved: Option<Movement>) -> Vec<Cell> {
    let amounts = match moved {
        Some(it) => [
            it.opening,
            it.new,
            it.expansion,
            it.contraction,
            it.churn,
            it.closing,
            it.renewed,
        ]
        .map(Some),
        None => [None; 7],
    };
    let mut cells = vec![Cell::Text(period.to_string())];
    cells.extend(amounts.map(Cell::from));
    cells
}

fn ended(known: &Known, tenant: &TenantId, deals: &[Deal], day: Date) -> Ended {
    let calendar = known.settings.tenant(tenant).fiscal;
    let mut found = Vec::new();
    let Some(since) = deals.iter().map(|deal| deal.since).min() else {
        return found;
    };
    let mut period = calendar.of(since);
    while calendar.last_day(period) < day {
        found.push((period, calendar.first_day(period), calendar.last_day(period)));
        period = calendar.next(period);
    }
    found
}

/// An amount of a deal in its own currency and in functional currency, at the rate of a day however old.
fn scopes(tenant: &TenantId, deal: &Deal, amount: Decimal, day: Date) -> [(Scope, Option<Decimal>); 2] {
    let functional = deal.cx.functional(deal.currency);
    let rate = deal.cx.reference.rate(deal.currency, functional, day, None);
    let value = rate
        .and_then(|rate| amount.checked_mul(rate))
        .map(|exact| functional.round(exact));
    let scope = |basis, currency| Scope {
        tenant: tenant.clone(),
        basis,
        currency,
    };
    [
        (scope(Basis::Contract, deal.currency), Some(amount)),
        (scope(Basis::Functional, functional), value),
    ]
}
