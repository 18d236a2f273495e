//! The wanted books as movements under keys.
//!
//! Invariant: every amount of the wanted books is in exactly one movement. Deliberately absent: what was issued.

use std::collections::BTreeMap;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::derive::Wanted;
use super::super::fact::Method;
use super::super::ids::{ContractId, EventId, LineType};
use super::super::obligation::Obligation;
use super::super::period::{FiscalCalendar, add_days};
use super::{Key, What};

/// A movement as the books want it, before anything issued is taken off.
pub(super) struct Target {
    pub(super) contract: ContractId,
    pub(super) line_type: Option<LineType>,
    pub(super) amount: Decimal,
    pub(super) tax: Decimal,
    pub(super) firm: bool,
    pub(super) provenance: Vec<EventId>,
}

pub(super) fn targets(wanted: &Wanted, calendar: FiscalCalendar) -> BTreeMap<Key, Target> {
    let main = &wanted.contracts[0];
    let mut targets: BTreeMap<Key, Target> = BTreeMap::new();
    let mut add = |key: Key,
                   amount: Decimal,
                   tax: Decimal,
                   firm: bool,
                   contract: &ContractId,
                   line_type: Option<&LineType>,
                   facts: Vec<EventId>| {
        let target = targets.entry(key).or_insert_with(|| Target {
            contract: contract.clone(),
            line_type: line_type.cloned(),
            amount: Decimal::ZERO,
            tax: Decimal::ZERO,
            firm,
            provenance: Vec::new(),
        });
        target.amount += amount;
        target.tax += tax;
        target.provenance.extend(facts);
    };
    for it in &wanted.invoices {
        // An expected invoice must not join a firm one of the same day.
        let fact = (!it.firm).then(|| it.cause.clone());
        let key = Key {
            date: it.date,
            what: What::Invoice,
            obligation: None,
            fact,
        };
        add(key, it.amount, it.tax, it.firm, main, None, vec![it.cause.clone()]);
    }
    for it in &wanted.credits {
        let fact = Some(it.cause.clone());
        let key = Key {
            date: it.date,
            what: What::CreditMemo,
            obligation: None,
            fact,
        };
        add(key, it.amount, it.tax, true, main, None, vec![it.cause.clone()]);
    }
    for it in &wanted.payments {
        let fact = Some(it.cause.clone());
        let key = Key {
            date: it.date,
            what: What::Payment,
            obligation: None,
            fact,
        };
        add(key, it.amount, Decimal::ZERO, true, main, None, vec![it.cause.clone()]);
    }
    for obligation in &wanted.obligations {
        let contract = &obligation.contract;
        let line_type = Some(&obligation.line_type);
        let id = Some(obligation.id.clone());
        for lump in &obligation.lumps {
            let fact = Some(lump.cause.clone());
            let key = Key {
                date: lump.date,
                what: What::Lump,
                obligation: id.clone(),
                fact,
            };
            add(
                key,
                lump.amount,
                Decimal::ZERO,
                true,
                contract,
                line_type,
                vec![lump.cause.clone()],
            );
        }
        for row in rows(obligation, calendar) {
            let key = Key {
                date: row.last,
                what: What::Recognition,
                obligation: id.clone(),
                fact: None,
            };
            add(key, row.amount, Decimal::ZERO, true, contract, line_type, row.facts);
        }
        let open = obligation.expected() - obligation.booked_before(Date::MAX);
        if !open.is_zero() {
            let last = calendar.last_day(calendar.of(obligation.end));
            let fact = Some(obligation.last_segment().cause.clone());
            let facts = fact.clone().into_iter().collect();
            let key = Key {
                date: last,
                what: What::Recognition,
                obligation: id,
                fact,
            };
            add(key, open, Decimal::ZERO, false, contract, line_type, facts);
        }
    }
    targets
}

/// An obligation's flow of one period, lumps apart.
struct Row {
    last: Date,
    amount: Decimal,
    facts: Vec<EventId>,
}

fn rows(obligation: &Obligation, calendar: FiscalCalendar) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut period = calendar.of(obligation.first_day());
    let end = obligation.last_day();
    let mut booked = Decimal::ZERO;
    loop {
        let (first, last) = (calendar.first_day(period), calendar.last_day(period));
        let until = obligation.flow_before(add_days(last, 1));
        if until != booked {
            let mut facts = obligation.provenance(first, last);
            if obligation.method == Method::Usage && facts.is_empty() {
                facts.push(obligation.last_segment().cause.clone());
            }
            rows.push(Row {
                last,
                amount: until - booked,
                facts,
            });
            booked = until;
        }
        if last > end {
            return rows;
        }
        period = calendar.next(period);
    }
}
