//! From a deal's facts to the books it should have: obligations, invoices, credits, payments.
//!
//! `deal.closed` comes first, whenever it arrived; the other facts follow by `occurred_at`, then `event_id`. Each change of
//! terms acts from its effective date on; performance acts on its own day, whatever the order.
//!
//! ```text
//!            closed            cancelled
//!   (draft) --------> active -----------> cancelled
//!                     |    ^ amended, renewed, credited
//!                     `----'
//! ```
//!
//! Invariant: a function of the set of facts and the tenant's policy alone. Rates, locks, the clock and what was issued
//! are deliberately absent: they decide when and how the result is posted (`journal`), not what it is.
//!
//! Decisions: an amendment's `amount` is the whole price as the deal now stands, past included; if its `contract_start`
//! moved up to the effective date, it is the price of what follows. A line that the amendment no longer has ends on the
//! effective date and keeps what it earned. An early renewal settles the running term like a cancellation that refunds
//! the unused part. What is billed and not refunded is earned when the contract ends (no promise is left, ASC
//! 606-10-25-13, 55-48); what is earned and not billed is invoiced then. A credit stops at what was billed; one whose reason
//! names a past shortcoming takes back earned price, any other lowers the price of what remains. An amendment states the
//! price before credits, and is refused where more was credited than it would cost. A cancellation credits no more than
//! is billed and not yet credited; a line credited by more than it turns out to have earned gives the excess to the others.

mod amend;
mod days;
mod ending;
mod estimated;
mod invoicing;
mod measured;
mod memo;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;

use self::days::{TermDays, outside_term};
use self::estimated::Estimates;
use self::measured::{Measured, measured_on};
pub use self::memo::Memo;
use self::memo::{Kept, SHORT, rank};
use super::allocate::{Sold, Taxed, sell};
use super::billing::{Grid, Invoice};
use super::curve::Spread;
use super::explain::Explanation;
use super::fact::*;
use super::ids::{ContractId, EventId, LineId, ObligationId};
use super::modify;
use super::money::Currency;
use super::obligation::Obligation;
use super::reference::Tenant;
use super::reject::{Code, Rejection};

/// The books a deal should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub status: Standing,
    /// Changes of terms that took effect: closed, amended, renewed, cancelled.
    pub version: u32,
    /// The day on which the deal was closed.
    pub agreed: Date,
    pub currency: Currency,
    pub customer: Option<Customer>,
    pub contracts: Vec<ContractId>,
    pub obligations: Vec<Obligation>,
    /// Sorted by day.
    pub invoices: Vec<Invoice>,
    pub credits: Vec<CreditMemo>,
    pub payments: Vec<PaymentDue>,
    /// Empty unless they were asked for.
    pub explanations: Vec<Explanation>,
    /// Event ids of the changes of terms, with the first day on which each holds.
    pub history: Vec<(EventId, Date)>,
}

/// Whether promises are still owed under the contract's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// From this day on nothing is owed.
    Cancelled(Date),
}

/// A reduction of what was invoiced; both amounts are positive.
#[derive(Clone, Debug, PartialEq)]
pub struct CreditMemo {
    pub date: Date,
    pub amount: Decimal,
    pub tax: Decimal,
    pub cause: EventId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PaymentDue {
    pub date: Date,
    pub amount: Decimal,
    pub cause: EventId,
}

/// What became of a deal's facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Derived {
    /// `None` while the deal is a draft.
    pub wanted: Option<Wanted>,
    /// Facts without effect, or with only a part of it, in the order in which they were judged.
    pub rejections: Vec<(EventId, Rejection)>,
}

/// Derives a deal's books. `facts` are the deal's own, each event id once, each valid by itself. The cost is that of the
/// facts, each looked at once, plus that of what is changed; nothing is copied for the case that a change fails.
pub fn derive(facts: &[Fact], tenant: &Tenant) -> Derived {
    judge(facts, tenant, &mut Memo::default(), false)
}

/// The same with [`Wanted::explanations`], which cost more than all the rest.
pub fn derive_explained(facts: &[Fact], tenant: &Tenant) -> Derived {
    judge(facts, tenant, &mut Memo::default(), true)
}

/// The same with a memo of an earlier derivation from facts with which these begin: what was measured of the deal is not
/// looked at again, unless the news is of an earlier day, or the terms say other things of what is measured.
pub fn derive_again(facts: &[Fact], tenant: &Tenant, memo: &mut Memo) -> Derived {
    judge(facts, tenant, memo, false)
}

fn judge(facts: &[Fact], tenant: &Tenant, memo: &mut Memo, explained: bool) -> Derived {
    let fresh = memo.seen();
    memo.take(facts);
    let Memo {
        shaping: all_shaping,
        measuring,
        measured,
        fold: kept,
        ..
    } = memo;
    let mut earlier = kept.take();
    if let Some(earlier) = &mut earlier {
        earlier.detach(measured);
    }
    let shaping = || all_shaping.iter().map(|at| &facts[*at]);
    let is_closed = |fact: &&Fact| matches!(fact.body, Body::DealClosed(_));
    let Some((first, Body::DealClosed(deal))) = shaping().find(is_closed).map(|fact| (fact, &fact.body)) else {
        let mut all: Vec<&Fact> = facts.iter().collect();
        all.sort_by(|a, b| rank(a).cmp(&rank(b)));
        return Derived {
            wanted: None,
            rejections: all
                .iter()
                .map(|fact| (fact.event_id.clone(), not_closed(fact)))
                .collect(),
        };
    };
    let stands = measured.take(first, shaping(), facts, tenant);
    if let Some(earlier) = earlier.filter(|it| stands && it.stands(facts, fresh, all_shaping, tenant))
        && let Some(fold) = earlier.resume(shaping(), tenant, measured)
    {
        *kept = Kept::of(&fold, all_shaping.len());
        return fold.finish(measured.unfit().to_vec());
    }
    let measuring_until = |until: &Fact| measuring.partition_point(|at| rank(&facts[*at]) < rank(until));
    // A change of terms that fails halfway must leave nothing behind: all is judged again without it.
    let mut halfway: BTreeMap<&EventId, Rejection> = BTreeMap::new();
    let mut ahead = Ahead::new();
    // Notices after which an earlier end was agreed.
    let mut superseded: BTreeSet<EventId> = BTreeSet::new();
    loop {
        let mut rejections = measured.unfit().to_vec();
        let mut fold = match Fold::close(first, deal, tenant, measured, explained) {
            Ok(fold) => fold,
            Err(rejection) => {
                rejections.push((first.event_id.clone(), rejection));
                return Derived {
                    wanted: None,
                    rejections,
                };
            }
        };
        fold.superseded.clone_from(&superseded);
        let known = halfway.len();
        // Only what is measured after the end has to be looked at one by one.
        let mut after_end: Option<usize> = None;
        let late = |fold: &mut Fold, rejections: &mut Vec<_>, from: usize, to: usize| {
            for fact in measuring[from..to].iter().map(|at| &facts[*at]) {
                rejections.extend(
                    fold.fact(fact)
                        .err()
                        .map(|rejection| (fact.event_id.clone(), rejection)),
                );
            }
        };
        let mut postponed = false;
        for fact in in_effect(shaping().filter(|fact| !std::ptr::eq(*fact, first)), &ahead) {
            if let Some(from) = after_end {
                let to = measuring_until(fact).max(from);
                late(&mut fold, &mut rejections, from, to);
                after_end = Some(to);
            }
            if let Some(rejection) = halfway.get(&fact.event_id) {
                rejections.push((fact.event_id.clone(), rejection.clone()));
                continue;
            }
            if let Some(notice) = fold.notice_before(fact) {
                match fact.body {
                    Body::DealCancelled(_) => _ = superseded.insert(notice),
                    _ => {
                        let earlier = ahead.values_mut();
                        earlier.for_each(|facts| facts.retain(|it| !std::ptr::eq(*it, fact)));
                        ahead.entry(notice).or_default().push(fact);
                    }
                }
                postponed = true;
                break;
            }
            fold.touched = false;
            match fold.fact(fact) {
                Ok(()) => {}
                Err(rejection) if fold.touched => {
                    halfway.insert(&fact.event_id, rejection);
                    break;
                }
                Err(rejection) => rejections.push((fact.event_id.clone(), rejection)),
            }
            if after_end.is_none() && fold.wanted.status != Standing::Active {
                after_end = Some(measuring_until(fact));
            }
        }
        if halfway.len() == known && !postponed {
            if let Some(from) = after_end {
                late(&mut fold, &mut rejections, from, measuring.len());
            }
            if !explained && facts.len() > SHORT && rejections.len() == measured.unfit().len() {
                *kept = Kept::of(&fold, all_shaping.len());
            }
            return fold.finish(rejections);
        }
    }
}

/// By notice of cancellation: amendments that were said after it and hold before the end that it gave. The deal is in force
/// until then and may still be changed; the notice is judged after that, and ends what there is by then.
type Ahead<'f> = BTreeMap<EventId, Vec<&'f Fact>>;

/// The facts in the order in which they are judged: by `occurred_at`, but for what goes ahead of a notice.
fn in_effect<'f>(facts: impl Iterator<Item = &'f Fact>, ahead: &Ahead<'f>) -> Vec<&'f Fact> {
    fn put<'f>(fact: &'f Fact, ahead: &Ahead<'f>, order: &mut Vec<&'f Fact>) {
        let mut before = ahead.get(&fact.event_id).cloned().unwrap_or_default();
        before.sort_by(|a, b| rank(a).cmp(&rank(b)));
        for it in before {
            put(it, ahead, order);
        }
        order.push(fact);
    }
    let mut order = Vec::new();
    let goes_ahead = |fact: &&'f Fact| ahead.values().flatten().any(|it| std::ptr::eq(*it, *fact));
    for fact in facts.filter(|fact| !goes_ahead(fact)) {
        put(fact, ahead, &mut order);
    }
    order
}

fn not_closed(fact: &Fact) -> Rejection {
    Rejection::new(
        Code::DealNotClosed,
        "payload.deal_id",
        fact.body.deal_id().map_or("", |deal| deal.as_str()),
        "the deal has no deal.closed yet; this fact waits for it",
    )
}

struct Fold<'a> {
    tenant: &'a Tenant,
    /// Whether explanations are wanted.
    explained: bool,
    /// Whether the fact at hand has changed anything yet.
    touched: bool,
    spread: Spread,
    main: ContractId,
    measured: &'a Measured,
    /// Credits in force, by event.
    granted: Vec<(EventId, Credit)>,
    /// What of a credit was refused, the other part of it being in force.
    refused_parts: Vec<(EventId, Rejection)>,
    estimates: Estimates,
    /// Each earlier term, with the first day of the term that followed it.
    former: Vec<(Date, Term)>,
    /// The fact that ended the deal, by `occurred_at` and event.
    notice: Option<(Timestamp, EventId)>,
    /// Notices that only say when service is to end: an earlier end, agreed later, is the one that is settled.
    superseded: BTreeSet<EventId>,
    /// Sorted by the day from which each holds, over all terms.
    taxed: Vec<Taxed>,
    wanted: Wanted,
    term: Term,
}

/// The running term.
#[derive(Clone, Debug)]
struct Term {
    deal: Deal,
    start: Date,
    end: Date,
    /// Suffix of obligation ids, empty in the first term.
    suffix: String,
    /// Indices of the term's obligations in `Wanted::obligations`.
    obligations: Vec<usize>,
    /// Invoices of earlier terms, which nothing changes any more.
    settled: Vec<Invoice>,
    grid: Grid,
    measured_from: Date,
}

impl<'a> Fold<'a> {
    fn close(
        fact: &Fact,
        deal: &Deal,
        tenant: &'a Tenant,
        measured: &'a Measured,
        explained: bool,
    ) -> Result<Fold<'a>, Rejection> {
        let TermDays { start, end, .. } = TermDays::closed(deal, day(tenant, fact));
        let main = ContractId::trusted(deal.deal_id.as_str());
        let mut fold = Fold {
            tenant,
            explained,
            touched: false,
            spread: Spread {
                convention: tenant.policy.straight_line,
                rounding: tenant.policy.rounding,
                calendar: tenant.fiscal,
                currency: deal.currency,
            },
            main: main.clone(),
            measured,
            granted: Vec::new(),
            refused_parts: Vec::new(),
            estimates: Estimates::new(),
            former: Vec::new(),
            notice: None,
            superseded: BTreeSet::new(),
            taxed: Vec::new(),
            wanted: Wanted {
                status: Standing::Active,
                version: 0,
                agreed: day(tenant, fact),
                currency: deal.currency,
                customer: None,
                contracts: vec![main],
                obligations: Vec::new(),
                invoices: Vec::new(),
                credits: Vec::new(),
                payments: Vec::new(),
                explanations: Vec::new(),
                history: Vec::new(),
            },
            term: Term {
                deal: deal.clone(),
                start,
                end,
                suffix: String::new(),
                obligations: Vec::new(),
                settled: Vec::new(),
                grid: grid(tenant, deal, start, end, None),
                measured_from: Date::MIN,
            },
        };
        let sold = sell(deal, start, end, &tenant.policy)?;
        fold.explain(|| Explanation::allocation(&fact.event_id, deal, &sold));
        for line in &sold {
            fold.promise(line, fold.main.clone(), Decimal::ZERO, &fact.event_id)?;
        }
        fold.plan_invoices(Date::MIN, &fact.event_id);
        fold.accept(fact, deal.customer.as_ref(), start);
        Ok(fold)
    }

    /// The days of the running term.
    fn days(&self) -> TermDays {
        TermDays {
            start: self.term.start,
            end: self.term.end,
            months: self.term.deal.term_months,
            follows: !self.former.is_empty(),
        }
    }

    /// The notice of cancellation ahead of which a change of terms is to be judged, or which an earlier end supersedes.
    fn notice_before(&self, fact: &Fact) -> Option<EventId> {
        let from = match &fact.body {
            Body::DealAmended(deal) => deal.effective_date,
            Body::DealCancelled(it) if self.refund_fits(it) => it.effective_date,
            Body::DealCancelled(_)
            | Body::DealClosed(_)
            | Body::DealRenewed(_)
            | Body::MilestoneAccepted(_)
            | Body::DeliveryRecorded(_)
            | Body::ProgressMeasured(_)
            | Body::UsageReported(_)
            | Body::CreditGranted(_)
            | Body::ConsiderationEstimated(_)
            | Body::PaymentReceived(_)
            | Body::FxRate(_)
            | Body::AccountMapped(_)
            | Body::PeriodClosed(_)
            | Body::PeriodReopened(_)
            | Body::ClockTicked(_) => return None,
        };
        let from = from.unwrap_or_else(|| day(self.tenant, fact));
        let known = |event: &EventId| matches!(fact.body, Body::DealCancelled(_)) && self.superseded.contains(event);
        let notice = self.notice.as_ref();
        let notice = notice.filter(|(at, event)| (*at, event) < rank(fact) && !known(event));
        match self.wanted.status {
            Standing::Cancelled(since) if from < since => notice.map(|(_, event)| event.clone()),
            Standing::Cancelled(_) | Standing::Active => None,
        }
    }

    fn fact(&mut self, fact: &Fact) -> Result<(), Rejection> {
        match &fact.body {
            Body::DealClosed(deal) => Err(Rejection::new(
                Code::AlreadyClosed,
                "payload.deal_id",
                &deal.deal_id,
                "this deal was closed by an earlier event; send deal.amended or deal.renewed",
            )),
            Body::DealAmended(deal) => self.amend(fact, deal),
            Body::DealRenewed(deal) => self.renew(fact, deal),
            Body::DealCancelled(cancellation) => self.cancel(fact, cancellation),
            Body::CreditGranted(credit) => self.credit(fact, credit),
            Body::ConsiderationEstimated(estimate) => self.estimate(fact, estimate),
            Body::PaymentReceived(payment) => self.pay(fact, payment),
            Body::MilestoneAccepted(_)
            | Body::DeliveryRecorded(_)
            | Body::ProgressMeasured(_)
            | Body::UsageReported(_) => self.measured_after_end(fact),
            Body::FxRate(_)
            | Body::AccountMapped(_)
            | Body::PeriodClosed(_)
            | Body::PeriodReopened(_)
            | Body::ClockTicked(_) => Ok(()),
        }
    }

    fn pay(&mut self, fact: &Fact, it: &Payment) -> Result<(), Rejection> {
        if it.currency != self.wanted.currency {
            return Err(currency_mismatch(it.currency, self.wanted.currency));
        }
        self.wanted.payments.push(PaymentDue {
            date: it.date,
            amount: it.amount,
            cause: fact.event_id.clone(),
        });
        Ok(())
    }

    /// Performance was collected before; here only what comes after the end is refused.
    fn measured_after_end(&self, fact: &Fact) -> Result<(), Rejection> {
        match (self.wanted.status, measured_on(fact)) {
            (Standing::Cancelled(since), Some(day)) if day >= since => Err(already_cancelled(since)),
            (Standing::Cancelled(_) | Standing::Active, Some(_) | None) => Ok(()),
        }
    }

    fn changeable(&self, deal: &Deal) -> Result<(), Rejection> {
        if let Standing::Cancelled(since) = self.wanted.status {
            return Err(already_cancelled(since));
        }
        match deal.currency == self.wanted.currency {
            true => Ok(()),
            false => Err(currency_mismatch(deal.currency, self.wanted.currency)),
        }
    }

    fn accept(&mut self, fact: &Fact, customer: Option<&Customer>, from: Date) {
        self.wanted.version += 1;
        self.wanted.history.push((fact.event_id.clone(), from));
        if let Some(customer) = customer {
            self.wanted.customer = Some(customer.clone());
        }
    }

    fn explain(&mut self, explanation: impl FnOnce() -> Explanation) {
        if self.explained {
            self.wanted.explanations.push(explanation());
        }
    }

    fn promise(
        &mut self,
        line: &Sold,
        contract: ContractId,
        units_before: Decimal,
        cause: &EventId,
    ) -> Result<usize, Rejection> {
        let id = ObligationId::parse(format!("{contract}/{}{}", line.line_id, self.term.suffix)).ok_or_else(|| {
            Rejection::new(
                Code::InvalidId,
                "payload.line_items.id",
                &line.line_id,
                "deal id and line id are too long together",
            )
        })?;
        let first = self.close_windows(&line.line_id, self.term.measured_from.max(line.terms.start));
        let performance = self
            .measured
            .of(&line.line_id, first.unwrap_or(self.term.measured_from), None);
        self.wanted.obligations.push(modify::promise(
            id,
            contract,
            line,
            performance,
            units_before,
            cause,
            self.spread,
        ));
        self.term.obligations.push(self.wanted.obligations.len() - 1);
        Ok(self.wanted.obligations.len() - 1)
    }

    /// What is delivered late of a line that no later term has is still earned by the earlier one (ASC 606-10-25-30). Where
    /// the line is promised again, that ends on `day`; `Some` where there was such a promise.
    fn close_windows(&mut self, line: &LineId, day: Date) -> Option<Date> {
        let former = self.former.iter().flat_map(|(_, term)| &term.obligations);
        let mut closed = None;
        for at in former {
            let obligation = &mut self.wanted.obligations[*at];
            if obligation.line_id == *line && obligation.performance.close(day) {
                closed = Some(day);
            }
        }
        closed
    }

    /// The obligation of a line in the running term: that of the main contract, else that of a separate one.
    fn index(&self, line: &LineId) -> Option<usize> {
        self.of_line(line)
            .find(|at| self.wanted.obligations[*at].contract == self.main)
            .or_else(|| self.of_line(line).next())
    }

    fn of_line(&self, line: &LineId) -> impl Iterator<Item = usize> {
        let all = self.term.obligations.iter().copied();
        all.filter(move |at| self.wanted.obligations[*at].line_id == *line)
    }

    fn current(&self, line: &LineId) -> Option<&Obligation> {
        self.index(line).map(|at| &self.wanted.obligations[at])
    }

    fn finish(mut self, mut rejections: Vec<(EventId, Rejection)>) -> Derived {
        let mut seen = BTreeSet::new();
        rejections.append(&mut self.refused_parts);
        rejections.retain(|(event, _)| seen.insert(event.clone()));
        let performance = self.invoices_of_performance();
        self.wanted.invoices.extend(performance);
        self.wanted.invoices.append(&mut self.term.settled);
        if !self.estimates.is_empty() {
            self.finish_estimates();
        }
        self.wanted
            .invoices
            .sort_by(|a, b| (a.date, &a.cause).cmp(&(b.date, &b.cause)));
        self.wanted
            .credits
            .sort_by(|a, b| (a.date, &a.cause).cmp(&(b.date, &b.cause)));
        self.wanted
            .payments
            .sort_by(|a, b| (a.date, &a.cause).cmp(&(b.date, &b.cause)));
        Derived {
            wanted: Some(self.wanted),
            rejections,
        }
    }
}

fn grid(tenant: &Tenant, deal: &Deal, start: Date, end: Date, before: Option<BillingCycle>) -> Grid {
    let mut instalments = deal.instalments.clone();
    instalments.sort_by_key(|it| it.date);
    Grid {
        cycle: deal.billing_cycle.or(before).unwrap_or(BillingCycle::Monthly),
        timing: tenant.policy.billing,
        start,
        end,
        instalments,
    }
}

fn day(tenant: &Tenant, fact: &Fact) -> Date {
    fact.occurred_at.to_zoned_datetime(tenant.time_zone.clone()).date()
}

fn bad_id(fact: &Fact) -> Rejection {
    Rejection::new(
        Code::InvalidId,
        "event_id",
        &fact.event_id,
        "deal id and event id are too long together",
    )
}

fn already_cancelled(since: Date) -> Rejection {
    Rejection::new(
        Code::AlreadyCancelled,
        "payload.deal_id",
        since,
        "the deal was cancelled from this day on; close a new deal instead",
    )
}

fn currency_mismatch(found: Currency, expected: Currency) -> Rejection {
    Rejection::new(
        Code::CurrencyMismatch,
        "payload.currency",
        found,
        &format!("the deal is in {expected}; a deal keeps its currency"),
    )
}

fn too_precise(field: &str, amount: Decimal, currency: Currency) -> Rejection {
    Rejection::new(
        Code::TooPrecise,
        field,
        amount,
        &format!("{currency} has {} decimals; round at the source", currency.exponent()),
    )
}

fn unknown_line(field: &str, line: &LineId) -> Rejection {
    Rejection::new(Code::UnknownLine, field, line, "the deal has no such line")
}
