//! `accrue books diff`: what two sets of policies make of the same facts.
//!
//! Invariant: both sides fold the same facts up to the same day; the differences of every period and currency sum to
//! zero, because both books balance. Deliberately absent: which of the two is right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use rust_decimal::Decimal;

use super::super::Failure;
use super::known::{Given, Known};
use super::table::{Basis, Cell, Form, Scope, Table};
use crate::config;
use crate::revenue::ids::DealId;
use crate::revenue::period::Period;

#[derive(Args)]
pub struct Arguments {
    /// The two topology files whose tenants and policies are compared; given twice, the first one is the base
    #[arg(long = "policy", value_name = "FILE", required = true)]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let [first, second] = arguments.policies.as_slice() else {
        return Err(Failure::Usage(
            "give --policy FILE twice: the base, and what to compare with it".to_owned(),
        ));
    };
    let read = |path: &PathBuf| config::load_settings(path).map_err(Failure::Configuration);
    let base = arguments.given.read_under(read(first)?)?;
    let other = base.under(read(second)?);
    differences(&sums(&base), &sums(&other)).print(arguments.format);
    Ok(())
}

/// What an account holds of one deal and period; above zero is a debit.
type Sums = BTreeMap<(Scope, String, Period, DealId), Decimal>;

fn sums(known: &Known) -> Sums {
    let mut sums = Sums::new();
    for entry in known.journal() {
        for line in &entry.lines {
            let mut add = |basis, currency, amount: Decimal| {
                let scope = Scope {
                    tenant: entry.tenant.clone(),
                    basis,
                    currency,
                };
                let key = (scope, line.account.clone(), entry.period, entry.deal.clone());
                *sums.entry(key).or_default() += amount;
            };
            add(Basis::Contract, entry.currency, line.debit - line.credit);
            let functional = line.functional_debit - line.functional_credit;
            add(Basis::Functional, entry.functional_currency, functional);
        }
    }
    sums
}

fn differences(base: &Sums, other: &Sums) -> Table {
    let keys: BTreeSet<_> = base.keys().chain(other.keys()).collect();
    let mut rows = Vec::new();
    for key in keys {
        let of = |sums: &Sums| sums.get(key).copied().unwrap_or_default();
        let (was, is) = (of(base), of(other));
        if was != is {
            let (scope, account, period, deal) = key;
            let texts = [account.clone(), period.to_string(), deal.to_string()].map(Cell::Text);
            let amounts = [was, is, is - was].map(Cell::Amount);
            rows.push((scope.clone(), texts.into_iter().chain(amounts).collect()));
        }
    }
    Table {
        name: "diff",
        title: "Differences",
        columns: &["account", "period", "deal_id", "base", "other", "difference"],
        rows,
        bar: None,
    }
}
