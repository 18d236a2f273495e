//! What derivation remembers of a deal from one fact to the next.
//!
//! Invariant: nothing of it decides: without it the same comes out, later. Deliberately absent: storage; it is made
//! anew from the facts.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::Taxed;
use super::super::curve::Spread;
use super::super::fact::{Body, Fact};
use super::super::ids::{ContractId, EventId};
use super::super::reference::Tenant;
use super::estimated::Estimates;
use super::measured::{Measured, measured_on};
use super::{Fold, Standing, Term, Wanted};

/// What derivation remembers of a deal's facts, so that the next fact costs what the contract has, and not what was ever
/// measured of it. Since it decides nothing, all memos are equal.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    /// Where each fact is.
    places: HashMap<EventId, usize>,
    /// The facts that shape the contract and those that measure it, by `occurred_at`, then `event_id`.
    pub(super) shaping: Vec<usize>,
    pub(super) measuring: Vec<usize>,
    pub(super) measured: Measured,
    pub(super) fold: Option<Kept>,
}

impl PartialEq for Memo {
    fn eq(&self, _: &Memo) -> bool {
        true
    }
}

impl Memo {
    /// Where the fact of an event is among those that were taken in.
    pub fn place(&self, event: &EventId) -> Option<usize> {
        self.places.get(event).copied()
    }

    /// How many facts were taken in.
    pub fn seen(&self) -> usize {
        self.places.len()
    }

    /// Takes in the facts that it has not seen: `facts` are those of before, and more.
    pub(super) fn take(&mut self, facts: &[Fact]) {
        for (at, fact) in facts.iter().enumerate().skip(self.places.len()) {
            self.places.insert(fact.event_id.clone(), at);
            let list = match measured_on(fact) {
                Some(_) => &mut self.measuring,
                None => &mut self.shaping,
            };
            list.insert(list.partition_point(|known| rank(&facts[*known]) < rank(fact)), at);
        }
    }
}

/// Facts of a deal up to which all is derived anew as quickly.
pub(super) const SHORT: usize = 16;

/// A fold before it was finished, all facts in it that shape the contract. It goes on where that comes to the same as
/// beginning anew: nothing was refused, and what came since cannot change what was decided. That is certain for changes
/// of terms and payments which come last, and for usage on and after the day of every change: a change looks at what was
/// measured before its day, and beyond that only whether enough is billed and earned, of which usage never makes less. A
/// credit, an estimate and an end of service look at all of it, so that a deal with one begins anew.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    tenant: Tenant,
    spread: Spread,
    main: ContractId,
    taxed: Vec<Taxed>,
    wanted: Wanted,
    term: Term,
    /// How many facts that shape the contract are in it.
    shaped: usize,
    /// The last day from which a change of terms holds.
    changed: Date,
}

impl Kept {
    pub(super) fn of(fold: &Fold, shaped: usize) -> Option<Kept> {
        let simple = fold.granted.is_empty() && fold.estimates.is_empty() && fold.former.is_empty();
        let changed = fold.wanted.history.iter().map(|(_, from)| *from).max()?;
        (simple && fold.wanted.status == Standing::Active).then(|| Kept {
            tenant: fold.tenant.clone(),
            spread: fold.spread,
            main: fold.main.clone(),
            taxed: fold.taxed.clone(),
            wanted: fold.wanted.clone(),
            term: fold.term.clone(),
            shaped,
            changed,
        })
    }

    pub(super) fn detach(&mut self, measured: &Measured) {
        for obligation in &mut self.wanted.obligations {
            measured.detach(&mut obligation.performance);
        }
    }

    /// Whether it may go on after the facts from `fresh` on.
    pub(super) fn stands(&self, facts: &[Fact], fresh: usize, shaping: &[usize], tenant: &Tenant) -> bool {
        let harmless = |fact: &Fact| match &fact.body {
            Body::DealAmended(_) | Body::PaymentReceived(_) => true,
            Body::UsageReported(it) => {
                it.date >= self.changed
                    && it.quantity >= Decimal::ZERO
                    && it.amount.is_none_or(|amount| amount >= Decimal::ZERO)
            }
            Body::DealClosed(_)
            | Body::DealRenewed(_)
            | Body::DealCancelled(_)
            | Body::MilestoneAccepted(_)
            | Body::DeliveryRecorded(_)
            | Body::ProgressMeasured(_)
            | Body::CreditGranted(_)
            | Body::ConsiderationEstimated(_)
            | Body::FxRate(_)
            | Body::AccountMapped(_)
            | Body::PeriodClosed(_)
            | Body::PeriodReopened(_)
            | Body::ClockTicked(_) => false,
        };
        self.tenant == *tenant
            && facts[fresh..].iter().all(harmless)
            && shaping[..self.shaped].iter().all(|at| *at < fresh)
            && shaping[self.shaped..].iter().all(|at| *at >= fresh)
    }

    /// The fold with what came since; `None` when something of it is refused.
    pub(super) fn resume<'a>(
        mut self,
        shaping: impl Iterator<Item = &'a Fact>,
        tenant: &'a Tenant,
        measured: &'a Measured,
    ) -> Option<Fold<'a>> {
        for obligation in &mut self.wanted.obligations {
            measured.attach(&obligation.line_id, &mut obligation.performance);
        }
        let mut fold = Fold {
            tenant,
            explained: false,
            touched: false,
            spread: self.spread,
            main: self.main,
            measured,
            granted: Vec::new(),
            refused_parts: Vec::new(),
            estimates: Estimates::new(),
            former: Vec::new(),
            notice: None,
            superseded: Default::default(),
            taxed: self.taxed,
            wanted: self.wanted,
            term: self.term,
        };
        for fact in shaping.skip(self.shaped) {
            fold.fact(fact).ok()?;
        }
        Some(fold)
    }
}

/// Where a fact stands among those of its deal.
pub(super) fn rank(fact: &Fact) -> (Timestamp, &EventId) {
    (fact.occurred_at, &fact.event_id)
}
