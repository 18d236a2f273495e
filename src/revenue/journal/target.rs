//! The wanted books as movements under keys.
//!
//! Invariant: every amount of the wanted books is in exactly one movement. Deliberately absent: what was issued.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::derive::Wanted;
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
    pub(super) behind: Behind,
}

/// The facts behind a movement.
#[derive(Clone, Debug, PartialEq)]
pub enum Behind {
    Facts(Vec<EventId>),
    /// Those of an obligation, by its index, in the movement's period: looked up when it is posted, because most
    /// movements of a plan were posted before.
    Flow(usize),
}

pub(super) fn targets(wanted: &Wanted, calendar: FiscalCalendar) -> BTreeMap<Key, Target> {
    let main = &wanted.contracts[0];
    let mut targets: BTreeMap<Key, Target> = BTreeMap::new();
    let plain = |amount, tax, firm, cause: &EventId| Target {
        contract: main.clone(),
        line_type: None,
        amount,
        tax,
        firm,
        behind: Behind::Facts(vec![cause.clone()]),
    };
    for it in &wanted.invoices {
        // An expected invoice must not join a firm one of the same day.
        let fact = (!it.firm).then(|| it.cause.clone());
        let target = plain(it.amount, it.tax, it.firm, &it.cause);
        add(&mut targets, key(it.date, What::Invoice, fact), target);
    }
    for it in &wanted.credits {
        let target = plain(it.amount, it.tax, true, &it.cause);
        add(
            &mut targets,
            key(it.date, What::CreditMemo, Some(it.cause.clone())),
            target,
        );
    }
    for it in &wanted.payments {
        let target = plain(it.amount, Decimal::ZERO, true, &it.cause);
        add(
            &mut targets,
            key(it.date, What::Payment, Some(it.cause.clone())),
            target,
        );
    }
    for (at, obligation) in wanted.obligations.iter().enumerate() {
        let of = |amount, firm, behind| Target {
            contract: obligation.contract.clone(),
            line_type: Some(obligation.line_type.clone()),
            amount,
            tax: Decimal::ZERO,
            firm,
            behind,
        };
        let key = |date, what, fact| Key {
            obligation: Some(obligation.id.clone()),
            ..key(date, what, fact)
        };
        for lump in &obligation.lumps {
            let target = of(lump.amount, true, Behind::Facts(vec![lump.cause.clone()]));
            add(
                &mut targets,
                key(lump.date, What::Lump, Some(lump.cause.clone())),
                target,
            );
        }
        for (last, amount) in rows(obligation, calendar) {
            add(
                &mut targets,
                key(last, What::Recognition, None),
                of(amount, true, Behind::Flow(at)),
            );
        }
        let open = obligation.expected() - obligation.booked_before(Date::MAX);
        if !open.is_zero() {
            let last = calendar.last_day(calendar.of(obligation.end));
            let cause = &obligation.last_segment().cause;
            let target = of(open, false, Behind::Facts(vec![cause.clone()]));
            add(&mut targets, key(last, What::Recognition, Some(cause.clone())), target);
        }
    }
    targets
}

fn key(date: Date, what: What, fact: Option<EventId>) -> Key {
    Key {
        date,
        what,
        obligation: None,
        fact,
    }
}

fn add(targets: &mut BTreeMap<Key, Target>, key: Key, target: Target) {
    match targets.entry(key) {
        Entry::Vacant(slot) => {
            slot.insert(target);
        }
        Entry::Occupied(mut slot) => {
            let known = slot.get_mut();
            known.amount += target.amount;
            known.tax += target.tax;
            if let (Behind::Facts(known), Behind::Facts(more)) = (&mut known.behind, target.behind) {
                known.extend(more);
            }
        }
    }
}

/// An obligation's flow by the last days of its periods, lumps apart.
fn rows(obligation: &Obligation, calendar: FiscalCalendar) -> Vec<(Date, Decimal)> {
    let mut rows = Vec::new();
    let mut period = calendar.of(obligation.first_day());
    let end = obligation.last_day();
    let mut booked = Decimal::ZERO;
    loop {
        let last = calendar.last_day(period);
        let until = obligation.flow_before(add_days(last, 1));
        if until != booked {
            rows.push((last, until - booked));
            booked = until;
        }
        if last > end {
            return rows;
        }
        period = calendar.next(period);
    }
}
