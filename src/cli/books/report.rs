//! `accrue books report`: what finance reports, in the currencies of the contracts and in functional currency.
//!
//! Invariant: bridges close in every row and every currency; a figure that needs a rate nobody published is unknown,
//! never a guess; what is left of contracts on a day knows no contract and no change that came later (ASC 606-10-50-13).
//! Deliberately absent: sums over tenants.

mod recurring;

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::Failure;
use super::known::{Given, Known};
use super::table::{Basis, Cell, Form, Scope, Table};
use crate::revenue::contract::ScheduleRow;
use crate::revenue::ids::TenantId;
use crate::revenue::journal::JournalEntry;
use crate::revenue::ledger::Role;
use crate::revenue::measures::{self, Waterfall, pending};
use crate::revenue::period::{Period, add_days, add_months};

#[derive(Args)]
pub struct Arguments {
    /// Which report
    #[arg(value_enum)]
    report: Kind,
    #[command(flatten)]
    given: Given,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Deferred revenue by period: opening, billed, recognised, exchange, closing
    Waterfall,
    /// Remaining performance obligations (ASC 606-10-50-13), and what falls due within twelve months; with --as-of, of
    /// what had been sold by then
    Rpo,
    /// Annual and monthly recurring revenue
    Arr,
    /// How recurring revenue moved, period by period
    Movement,
    /// Revenue still to come, by period; with --as-of, of what had been sold by then
    Forecast,
    /// Every account with its balance
    Balances,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let known = arguments.given.read()?;
    let table = match arguments.report {
        Kind::Waterfall => waterfall(&known.journal()),
        Kind::Balances => balances(&known.journal()),
        Kind::Rpo => rpo(&Plan::of(&known.by_then())?),
        Kind::Forecast => forecast(&Plan::of(&known.by_then())?),
        Kind::Arr => recurring::arr(&known, &days(&known)?),
        Kind::Movement => recurring::movement(&known, &days(&known)?),
    };
    table.print(arguments.format);
    Ok(())
}

/// The day that each tenant's books have come to: the one asked for, or that of its clock.
///
/// Errors: the clock of a tenant never ticked, and no day was asked for.
fn days(known: &Known) -> Result<BTreeMap<TenantId, Date>, Failure> {
    let reference = known.reference();
    known
        .tenants()
        .into_iter()
        .map(|tenant| match reference.tenant(&tenant).clock() {
            Some(day) => Ok((tenant, day)),
            None => Err(Failure::Usage(format!(
                "no clock.ticked says which day the books of {tenant} have come to; give --as-of DATE"
            ))),
        })
        .collect()
}

/// The deferred revenue of each currency.
pub fn waterfall(journal: &[JournalEntry]) -> Table {
    let mut rows = Vec::new();
    let mut together: BTreeMap<(Scope, Period), Waterfall> = BTreeMap::new();
    for row in measures::waterfall(journal) {
        let scope = |basis, currency| Scope {
            tenant: row.tenant.clone(),
            basis,
            currency,
        };
        rows.push((scope(Basis::Contract, row.currency), row.period, row.amounts));
        let sum = together
            .entry((scope(Basis::Functional, row.functional_currency), row.period))
            .or_default();
        sum.billed += row.functional.billed;
        sum.recognised += row.functional.recognised;
        sum.fx += row.functional.fx;
    }
    // A currency without entries in a period carries its balance on, so openings are counted anew.
    let mut last: BTreeMap<Scope, Decimal> = BTreeMap::new();
    for ((scope, period), mut sum) in together {
        let balance = last.entry(scope.clone()).or_default();
        sum.opening = *balance;
        sum.closing = sum.opening + sum.billed - sum.recognised + sum.fx;
        *balance = sum.closing;
        rows.push((scope, period, sum));
    }
    rows.sort_by(|(a, x, _), (b, y, _)| (a, x).cmp(&(b, y)));
    Table {
        name: "waterfall",
        title: "Deferred revenue",
        columns: &["period", "opening", "billed", "recognised", "fx", "closing"],
        rows: rows
            .into_iter()
            .map(|(scope, period, it)| {
                let amounts = [it.opening, it.billed, it.recognised, it.fx, it.closing];
                let mut cells = vec![Cell::Text(period.to_string())];
                cells.extend(amounts.map(Cell::Amount));
                (scope, cells)
            })
            .collect(),
        bar: Some(5),
    }
}

/// The trial balance: what each account took and gave. Balances above zero are debits.
pub fn balances(journal: &[JournalEntry]) -> Table {
    let mut sums: BTreeMap<(Scope, Role, &str), (Decimal, Decimal)> = BTreeMap::new();
    for entry in journal {
        for line in &entry.lines {
            let mut add = |basis, currency, debit: Decimal, credit: Decimal| {
                let scope = Scope {
                    tenant: entry.tenant.clone(),
                    basis,
                    currency,
                };
                let sum = sums
                    .entry((scope, line.role.clone(), line.account.as_str()))
                    .or_default();
                sum.0 += debit;
                sum.1 += credit;
            };
            add(Basis::Contract, entry.currency, line.debit, line.credit);
            add(
                Basis::Functional,
                entry.functional_currency,
                line.functional_debit,
                line.functional_credit,
            );
        }
    }
    let row = |((scope, role, account), (debit, credit)): ((Scope, Role, &str), (Decimal, Decimal))| {
        let texts = [account.to_owned(), role.name().into_owned()].map(Cell::Text);
        let amounts = [debit, credit, debit - credit].map(Cell::Amount);
        (scope, texts.into_iter().chain(amounts).collect())
    };
    Table {
        name: "balances",
        title: "Trial balance",
        columns: &["account", "role", "debit", "credit", "balance"],
        rows: sums.into_iter().map(row).collect(),
        bar: None,
    }
}

/// The schedule with what of it is still to come, in every scope.
struct Plan {
    days: BTreeMap<TenantId, Date>,
    /// The whole price, by scope.
    price: BTreeMap<Scope, Option<Decimal>>,
    /// What is not yet recognised, with the first and the last day of its period.
    left: Vec<(Scope, Period, [Date; 2], Option<Decimal>)>,
}

impl Plan {
    fn of(known: &Known) -> Result<Plan, Failure> {
        let days = days(known)?;
        let report = known.report();
        let mut plan = Plan {
            days,
            price: BTreeMap::new(),
            left: Vec::new(),
        };
        for row in &report.schedule {
            for (scope, amount) in amounts(row) {
                let sum = plan.price.entry(scope).or_insert(Some(Decimal::ZERO));
                *sum = sum.zip(amount).map(|(a, b)| a + b);
            }
        }
        for (tenant, day) in &plan.days {
            let calendar = known.settings.tenant(tenant).fiscal;
            let of: Vec<ScheduleRow> = report
                .schedule
                .iter()
                .filter(|row| row.tenant == *tenant)
                .cloned()
                .collect();
            for row in pending(&of, &report.journals, *day) {
                let bounds = [calendar.first_day(row.period), calendar.last_day(row.period)];
                let amounts = amounts(&row).into_iter();
                plan.left
                    .extend(amounts.map(|(scope, amount)| (scope, row.period, bounds, amount)));
            }
        }
        Ok(plan)
    }
}

/// A row's amount in each scope it counts in.
fn amounts(row: &ScheduleRow) -> [(Scope, Option<Decimal>); 2] {
    let scope = |basis, currency| Scope {
        tenant: row.tenant.clone(),
        basis,
        currency,
    };
    [
        (scope(Basis::Contract, row.currency), Some(row.amount)),
        (scope(Basis::Functional, row.functional_currency), row.functional_amount),
    ]
}

/// `recognised + waiting + within_12_months + later = price`. What waits belongs to days that are over, and is posted
/// once a rate comes or its period is closed.
fn rpo(plan: &Plan) -> Table {
    let rows = plan.price.iter().map(|(scope, price)| {
        let day = plan.days.get(&scope.tenant).copied().unwrap_or(Date::MIN);
        let year = add_days(add_months(day, 12), -1);
        let mut sums = [Some(Decimal::ZERO); 3];
        for (_, _, [first, last], amount) in plan.left.iter().filter(|(of, ..)| of == scope) {
            let at = match (*last < day, *first <= year) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            sums[at] = sums[at].zip(*amount).map(|(a, b)| a + b);
        }
        let [waiting, within, later] = sums;
        let remaining = within.zip(later).map(|(a, b)| a + b);
        let recognised = price.zip(waiting).zip(remaining).map(|((all, a), b)| all - a - b);
        let cells = [*price, recognised, waiting, within, later, remaining].map(Cell::from);
        (scope.clone(), cells.into())
    });
    Table {
        name: "rpo",
        title: "Remaining performance obligations",
        columns: &[
            "price",
            "recognised",
            "waiting",
            "within_12_months",
            "later",
            "remaining",
        ],
        rows: rows.collect(),
        bar: None,
    }
}

/// Revenue still to come, by the period in which it will be recognised.
fn forecast(plan: &Plan) -> Table {
    let mut sums: BTreeMap<(Scope, Period), Option<Decimal>> = BTreeMap::new();
    for (scope, period, _, amount) in &plan.left {
        let sum = sums.entry((scope.clone(), *period)).or_insert(Some(Decimal::ZERO));
        *sum = sum.zip(*amount).map(|(a, b)| a + b);
    }
    let mut left: BTreeMap<Scope, Option<Decimal>> = BTreeMap::new();
    for ((scope, _), amount) in &sums {
        let all = left.entry(scope.clone()).or_insert(Some(Decimal::ZERO));
        *all = all.zip(*amount).map(|(a, b)| a + b);
    }
    let mut rows = Vec::new();
    for ((scope, period), amount) in sums {
        let after = left.entry(scope.clone()).or_default();
        *after = after.zip(amount).map(|(a, b)| a - b);
        let cells = vec![Cell::Text(period.to_string()), amount.into(), (*after).into()];
        rows.push((scope, cells));
    }
    Table {
        name: "forecast",
        title: "Revenue to come",
        columns: &["period", "to_recognise", "left_after"],
        rows,
        bar: Some(1),
    }
}
