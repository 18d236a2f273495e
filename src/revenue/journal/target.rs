//! The wanted books as movements under keys.
//!
//! Invariant: every amount of the wanted books is in exactly one movement. Deliberately absent: what was issued.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::derive::Wanted;
use super::super::ids::{ContractId, EventId, LineType};
use super::super::obligation::Obligation;
use super::super::period::{FiscalCalendar, add_days};
use super::{At, What, join_by_key};

/// A movement as the books want it, before anything issued is taken off.
pub(super) struct Target<'a> {
    pub(super) at: At<'a>,
    pub(super) contract: &'a ContractId,
    pub(super) line_type: Option<&'a LineType>,
    pub(super) amount: Decimal,
    pub(super) tax: Decimal,
    pub(super) firm: bool,
    pub(super) behind: Behind<'a>,
}

/// The facts behind a movement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Behind<'a> {
    Fact(&'a EventId),
    Facts(Vec<&'a EventId>),
    /// Those of an obligation, by its index, in the movement's period: looked up when it is posted, because most
    /// movements of a plan were posted before.
    Flow(usize),
}

impl<'a> Behind<'a> {
    /// Takes in those of another movement of the same key. A flow is one movement.
    fn join(&mut self, more: &Behind<'a>) {
        match (&mut *self, more) {
            (Behind::Fact(one), Behind::Fact(other)) => *self = Behind::Facts(vec![one, other]),
            (Behind::Facts(known), Behind::Fact(one)) => known.push(one),
            (_, Behind::Fact(_) | Behind::Facts(_) | Behind::Flow(_)) => {}
        }
    }
}

/// Sorted by key, one for each.
pub(super) fn targets(wanted: &Wanted, calendar: FiscalCalendar) -> Vec<Target<'_>> {
    let main = &wanted.contracts[0];
    let mut targets = Vec::with_capacity(wanted.invoices.len() + 16 * wanted.obligations.len());
    let plain = |at, amount, tax, firm, cause| Target {
        at,
        contract: main,
        line_type: None,
        amount,
        tax,
        firm,
        behind: Behind::Fact(cause),
    };
    for it in &wanted.invoices {
        // An expected invoice must not join a firm one of the same day.
        let fact = (!it.firm).then_some(&it.cause);
        let at = at(it.date, What::Invoice, fact);
        targets.push(plain(at, it.amount, it.tax, it.firm, &it.cause));
    }
    for it in &wanted.credits {
        let at = at(it.date, What::CreditMemo, Some(&it.cause));
        targets.push(plain(at, it.amount, it.tax, true, &it.cause));
    }
    for it in &wanted.payments {
        let at = at(it.date, What::Payment, Some(&it.cause));
        targets.push(plain(at, it.amount, Decimal::ZERO, true, &it.cause));
    }
    for (index, obligation) in wanted.obligations.iter().enumerate() {
        let of = |date, what, fact, amount, firm, behind| Target {
            at: At {
                obligation: Some(&obligation.id),
                ..at(date, what, fact)
            },
            contract: &obligation.contract,
            line_type: Some(&obligation.line_type),
            amount,
            tax: Decimal::ZERO,
            firm,
            behind,
        };
        for lump in &obligation.lumps {
            let cause = &lump.cause;
            targets.push(of(
                lump.date,
                What::Lump,
                Some(cause),
                lump.amount,
                true,
                Behind::Fact(cause),
            ));
        }
        for (last, amount) in rows(obligation, calendar) {
            targets.push(of(last, What::Recognition, None, amount, true, Behind::Flow(index)));
        }
        let open = obligation.expected() - obligation.booked_before(Date::MAX);
        if !open.is_zero() {
            let last = calendar.last_day(calendar.of(obligation.end));
            let cause = &obligation.last_segment().cause;
            targets.push(of(
                last,
                What::Recognition,
                Some(cause),
                open,
                false,
                Behind::Fact(cause),
            ));
        }
    }
    join_by_key(
        &mut targets,
        |it| it.at,
        |known, later| {
            known.amount += later.amount;
            known.tax += later.tax;
            known.behind.join(&later.behind);
        },
    );
    targets
}

fn at(date: Date, what: What, fact: Option<&EventId>) -> At<'_> {
    At {
        date,
        what,
        obligation: None,
        fact,
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
