//! The contract: a deal's facts and what was issued for them, and the two steps that move it.
//!
//! `apply` takes one fact of the deal; `settle` looks again after a tick, a rate, a mapping or a period change. Both
//! derive the wanted books from all facts, so the order in which facts arrive does not matter; what was issued before
//! decides what is issued now.
//!
//! Before a fact is applied, periods that closed since the last step are sealed: whatever was theirs is issued, and
//! from then on they take nothing.
//!
//! Invariant: [`Contract`] holds nothing that can be derived from its facts, except what was issued and a memo that only
//! saves time. Deliberately absent: storage, serialization, and facts of other deals.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::content::Content;
use super::derive::{Derived, Memo, Standing, Wanted, derive, derive_again};
use super::difference::first_difference;
use super::fact::Fact;
use super::ids::{DealId, EventId, ObligationId, TenantId};
use super::journal::{Books, Issued, JournalEntry, Plan, What, join_by_key, plan};
use super::ledger::Ledger;
use super::measures::recurring;
use super::money::Currency;
use super::period::{Period, add_days};
use super::reference::{Context, RateNeeded, conflict};
use super::reject::Rejection;
pub use super::view::{Balances, BillingRow, ContractView, ObligationView, ScheduleRow, Status, View};

/// What is stored of a deal. Every field is plain, so that a codec can write it and read it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    pub tenant: TenantId,
    pub deal: DealId,
    /// Each event id once, in the order of arrival.
    pub facts: Vec<Fact>,
    /// In the order of issue.
    pub issued: Vec<Issued>,
    pub ledger: Ledger,
    /// The locks under which the contract was last settled.
    pub locked: BTreeSet<Period>,
    pub waits_for: Option<RateNeeded>,
    pub next_due: Option<Date>,
    /// Hashes of the schedule and the billing plan last given out.
    pub schedule_hash: [u8; 32],
    pub billing_hash: [u8; 32],
    /// How many schedules and billing plans were given out.
    pub schedule_revision: u32,
    pub billing_revision: u32,
    /// Not stored.
    pub memo: Memo,
}

/// What a step decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The state to store.
    pub contract: Contract,
    /// All rows, obligation by obligation: of a new revision when an amount changed, under the revision as it is when
    /// rows were posted in this step; else none.
    pub schedule: Vec<ScheduleRow>,
    /// All rows of a new revision; empty when nothing changed.
    pub billing: Vec<BillingRow>,
    /// Newly issued, in the order of issue.
    pub entries: Vec<JournalEntry>,
    /// All facts of the deal that have no effect, or only a part of it, as things stand.
    pub rejections: Vec<(EventId, Rejection)>,
    /// The contract for readers.
    pub view: View,
}

/// Takes one fact of the deal. A fact that was seen before changes nothing; one that does not fit the deal as it
/// stands is kept, reported in [`Decision::rejections`], and judged again with the next fact.
///
/// Errors: the fact is invalid by itself, is no fact of a deal, belongs to another deal, or repeats an event id with
/// other content.
pub fn apply(contract: Option<Contract>, fact: &Fact, cx: &Context) -> Result<Decision, Rejection> {
    let deal = check(contract.as_ref(), fact)?;
    let mut contract = contract.unwrap_or_else(|| Contract::new(fact.tenant.clone(), deal.clone(), cx));
    let mut sealed = Vec::new();
    let issued_before = contract.issued.len();
    contract.seal(cx, &mut sealed);
    if contract.fact(&fact.event_id).is_none() {
        contract.facts.push(fact.clone());
    }
    let mut decision = contract.decide(cx, issued_before);
    sealed.append(&mut decision.entries);
    decision.entries = sealed;
    Ok(decision)
}

/// Whether [`apply`] takes a fact, so that a caller can keep its contract where it does not; the fact's deal.
///
/// Errors: those of [`apply`].
pub fn check<'f>(contract: Option<&Contract>, fact: &'f Fact) -> Result<&'f DealId, Rejection> {
    fact.validate()?;
    let Some(deal) = fact.body.deal_id() else {
        return Err(conflict("type", fact));
    };
    let Some(contract) = contract else {
        return Ok(deal);
    };
    if contract.deal != *deal {
        return Err(conflict("payload.deal_id", fact));
    }
    if contract.tenant != fact.tenant {
        return Err(conflict("tenant_id", fact));
    }
    match contract
        .fact(&fact.event_id)
        .and_then(|known| first_difference(known, fact))
    {
        Some(field) => Err(conflict(&field, fact)),
        None => Ok(deal),
    }
}

/// Looks again: the clock moved, or a rate, a mapping or a period changed.
///
/// Errors: none today; the signature is that of [`apply`].
pub fn settle(mut contract: Contract, cx: &Context) -> Result<Decision, Rejection> {
    let mut sealed = Vec::new();
    let issued_before = contract.issued.len();
    contract.seal(cx, &mut sealed);
    let mut decision = contract.decide(cx, issued_before);
    sealed.append(&mut decision.entries);
    decision.entries = sealed;
    Ok(decision)
}

impl Contract {
    /// A deal of which nothing is known. Periods closed before it take nothing of it.
    pub fn new(tenant: TenantId, deal: DealId, cx: &Context) -> Contract {
        Contract {
            tenant,
            deal,
            facts: Vec::new(),
            issued: Vec::new(),
            ledger: Ledger::default(),
            locked: cx.reference.closed_periods().clone(),
            waits_for: None,
            next_due: None,
            schedule_hash: [0; 32],
            billing_hash: [0; 32],
            schedule_revision: 0,
            billing_revision: 0,
            memo: Memo::default(),
        }
    }

    /// The fact of an event, if the deal has it.
    pub fn fact(&self, event: &EventId) -> Option<&Fact> {
        let known = self.memo.place(event).and_then(|at| self.facts.get(at));
        known.or_else(|| {
            let mut unseen = self.facts.iter().skip(self.memo.seen());
            unseen.find(|fact| fact.event_id == *event)
        })
    }

    /// Whether news of reference facts can act on it: something is due, locks changed, or it waits for a rate.
    pub fn is_affected(&self, cx: &Context) -> bool {
        let due = self
            .next_due
            .zip(cx.reference.clock())
            .is_some_and(|(due, clock)| clock >= due);
        due || self.locked != *cx.reference.closed_periods() || self.waits_for.is_some()
    }

    /// The earliest clock at which a tick issues something; `None` when no tick would.
    pub fn next_due(&self) -> Option<Date> {
        self.next_due
    }

    /// The rate without which nothing more is posted.
    pub fn waits_for(&self) -> Option<RateNeeded> {
        self.waits_for
    }

    /// Issues what belongs to periods that closed since the last step, under the locks of that step.
    fn seal(&mut self, cx: &Context, entries: &mut Vec<JournalEntry>) {
        let closed = cx.reference.closed_periods();
        if self.locked == *closed {
            return;
        }
        let closing: BTreeSet<Period> = closed.difference(&self.locked).copied().collect();
        if !closing.is_empty()
            && let Some(wanted) = derive_again(&self.facts, cx.tenant, &mut self.memo).wanted
        {
            entries.append(&mut self.post(&wanted, cx, &closing).entries);
        }
        self.locked = closed.clone();
    }

    /// Posts what is due, and remembers it: the plan has the entries, and what is not due.
    fn post(&mut self, wanted: &Wanted, cx: &Context, closing: &BTreeSet<Period>) -> Plan {
        let mut ledger = std::mem::take(&mut self.ledger);
        let mut plan = self.plan(wanted, cx, closing, &mut ledger);
        self.ledger = ledger;
        self.issued.append(&mut plan.issued);
        plan
    }

    fn plan(&self, wanted: &Wanted, cx: &Context, closing: &BTreeSet<Period>, ledger: &mut Ledger) -> Plan {
        let books = Books {
            tenant: &self.tenant,
            deal: &self.deal,
            issued: &self.issued,
            wanted,
            cx: *cx,
            locked: &self.locked,
            closing,
        };
        plan(&books, ledger)
    }

    /// `issued_before`: how much was issued before this step.
    fn decide(mut self, cx: &Context, issued_before: usize) -> Decision {
        let Derived { wanted, rejections } = derive_again(&self.facts, cx.tenant, &mut self.memo);
        let Some(wanted) = wanted else {
            let view = View {
                tenant: self.tenant.clone(),
                deal: self.deal.clone(),
                status: Status::Draft,
                version: 0,
                currency: None,
                contracts: Vec::new(),
                balances: None,
                recurring: Vec::new(),
                history: Vec::new(),
            };
            let (schedule, billing, entries) = (Vec::new(), Vec::new(), Vec::new());
            return Decision {
                contract: self,
                schedule,
                billing,
                entries,
                rejections,
                view,
            };
        };
        let plan = self.post(&wanted, cx, &BTreeSet::new());
        self.waits_for = plan.waits_for;
        self.next_due = self.next_tick(&wanted, &plan, cx);
        let calendar = cx.tenant.fiscal;
        let mut schedule = self.schedule(&wanted, &plan, &[], cx);
        let mut billing = self.billing(&wanted);
        let mut amounts = Content::with_capacity(64 * schedule.len());
        for row in &schedule {
            amounts.text(row.obligation.as_str());
            amounts.day(calendar.first_day(row.period));
            amounts.amount(row.amount);
            amounts.number(row.version.into());
        }
        if replaced(&mut self.schedule_hash, amounts) {
            self.schedule_revision += 1;
        } else if self.issued[issued_before..]
            .iter()
            .all(|it| it.key.obligation.is_none())
        {
            // The plan stands, and nothing of it was posted in this step.
            schedule.clear();
        }
        let mut invoices = Content::with_capacity(64 * billing.len());
        for row in &billing {
            invoices.day(row.date);
            invoices.amount(row.amount);
            invoices.amount(row.tax);
            invoices.number(row.firm.into());
        }
        if replaced(&mut self.billing_hash, invoices) {
            self.billing_revision += 1;
        } else {
            billing.clear();
        }
        schedule
            .iter_mut()
            .for_each(|row| row.revision = self.schedule_revision);
        billing.iter_mut().for_each(|row| row.revision = self.billing_revision);
        let view = self.view(&wanted, cx);
        Decision {
            contract: self,
            schedule,
            billing,
            entries: plan.entries,
            rejections,
            view,
        }
    }

    /// All schedule rows as they stand, whether or not they changed.
    pub fn schedule_now(&self, cx: &Context) -> Vec<ScheduleRow> {
        let Some(wanted) = derive(&self.facts, cx.tenant).wanted else {
            return Vec::new();
        };
        let plan = self.plan(&wanted, cx, &BTreeSet::new(), &mut self.ledger.clone());
        self.schedule(&wanted, &plan, &plan.issued, cx)
    }

    /// The billing plan as it stands.
    pub fn billing_now(&self, cx: &Context) -> Vec<BillingRow> {
        match derive(&self.facts, cx.tenant).wanted {
            Some(wanted) => self.billing(&wanted),
            None => Vec::new(),
        }
    }

    fn next_tick(&self, wanted: &Wanted, plan: &Plan, cx: &Context) -> Option<Date> {
        if plan.waits_for.is_some() {
            return None;
        }
        let clock = cx.reference.clock();
        let later = |date: Date| clock.is_none_or(|clock| date >= clock);
        let due = plan.pending.iter().filter(|it| it.firm);
        let due = due.map(|it| it.date).filter(|date| later(*date)).min();
        let functional = cx.functional(wanted.currency);
        let period_end = clock.map(|clock| cx.tenant.fiscal.last_day(cx.tenant.fiscal.of(clock)));
        let remeasured = period_end.filter(|_| functional != wanted.currency && !self.ledger.receivable.is_zero());
        [due, remeasured]
            .into_iter()
            .flatten()
            .min()
            .map(|date| add_days(date, 1))
    }

    /// `just_issued` is what [`Contract::issued`] has not yet.
    fn schedule(&self, wanted: &Wanted, plan: &Plan, just_issued: &[Issued], cx: &Context) -> Vec<ScheduleRow> {
        let calendar = cx.tenant.fiscal;
        let functional_currency = cx.functional(wanted.currency);
        let places: BTreeMap<&ObligationId, usize> =
            (0..).zip(&wanted.obligations).map(|(at, it)| (&it.id, at)).collect();
        let of = |obligation: &Option<ObligationId>, period, amount, functional, posted| {
            let obligation = *places.get(obligation.as_ref()?)?;
            Some(Sum {
                obligation,
                period,
                amount,
                functional,
                posted,
            })
        };
        let issued = self.issued.iter().chain(just_issued);
        let issued = issued.filter_map(|it| of(&it.key.obligation, it.period, it.amount, Some(it.functional), true));
        let pending = plan.pending.iter();
        let pending =
            pending.filter_map(|it| of(&it.obligation, calendar.of(it.date), it.amount, it.functional, false));
        let mut sums: Vec<Sum> = issued.chain(pending).collect();
        join_by_key(
            &mut sums,
            |it| (it.obligation, it.period),
            |known, later| {
                known.amount += later.amount;
                known.functional = known.functional.zip(later.functional).map(|(a, b)| a + b);
                known.posted &= later.posted;
            },
        );
        let rows = sums.into_iter().filter(|it| !it.amount.is_zero()).map(|it| {
            let obligation = &wanted.obligations[it.obligation];
            ScheduleRow {
                tenant: self.tenant.clone(),
                deal: self.deal.clone(),
                contract: obligation.contract.clone(),
                obligation: obligation.id.clone(),
                line_id: obligation.line_id.clone(),
                period: it.period,
                amount: it.amount,
                currency: wanted.currency,
                functional_amount: it.functional,
                functional_currency,
                version: wanted.version,
                revision: self.schedule_revision,
                posted: it.posted,
            }
        });
        rows.collect()
    }

    fn billing(&self, wanted: &Wanted) -> Vec<BillingRow> {
        let rows = wanted.invoices.iter().map(|invoice| BillingRow {
            tenant: self.tenant.clone(),
            deal: self.deal.clone(),
            date: invoice.date,
            amount: invoice.amount,
            tax: invoice.tax,
            currency: wanted.currency,
            firm: invoice.firm,
            revision: self.billing_revision,
        });
        rows.collect()
    }

    /// The contract for readers, without posting anything.
    pub fn view_now(&self, cx: &Context) -> Option<View> {
        derive(&self.facts, cx.tenant)
            .wanted
            .map(|wanted| self.view(&wanted, cx))
    }

    fn view(&self, wanted: &Wanted, cx: &Context) -> View {
        let clock = cx.reference.clock();
        let contracts: Vec<ContractView> = wanted
            .contracts
            .iter()
            .map(|contract| {
                let obligations: Vec<ObligationView> = wanted
                    .obligations
                    .iter()
                    .filter(|it| it.contract == *contract)
                    .map(|it| ObligationView {
                        obligation: it.id.clone(),
                        line_id: it.line_id.clone(),
                        method: it.method,
                        start: it.start,
                        end: it.stop.map_or(it.end, |stop| add_days(stop, -1).min(it.end)),
                        allocated: it.expected(),
                    })
                    .collect();
                ContractView {
                    contract: contract.clone(),
                    transaction_price: obligations.iter().map(|it| it.allocated).sum(),
                    obligations,
                }
            })
            .collect();
        let balances = self.balances(&contracts, wanted.currency, clock);
        let over = wanted.obligations.iter().all(|it| {
            clock.is_some_and(|clock| clock > it.stop.unwrap_or(it.end)) && it.booked_before(Date::MAX) == it.expected()
        });
        let status = match wanted.status {
            Standing::Cancelled(since) if clock.is_none_or(|clock| clock >= since) => Status::Cancelled,
            Standing::Active if over && balances.remaining.is_zero() => Status::Completed,
            // Notice is given, but service goes on until the day.
            Standing::Active | Standing::Cancelled(_) => Status::Active,
        };
        View {
            tenant: self.tenant.clone(),
            deal: self.deal.clone(),
            status,
            version: wanted.version,
            currency: Some(wanted.currency),
            contracts,
            balances: Some(balances),
            recurring: recurring(&wanted.obligations, cx),
            history: wanted.history.clone(),
        }
    }

    fn balances(&self, contracts: &[ContractView], currency: Currency, clock: Option<Date>) -> Balances {
        let past = || {
            self.issued
                .iter()
                .filter(move |it| clock.is_some_and(|clock| it.date < clock))
        };
        let position: Decimal = past().map(|it| it.position).sum();
        let recognised: Decimal = past()
            .filter(|it| matches!(it.key.what, What::Recognition | What::Lump))
            .map(|it| it.amount)
            .sum();
        let price: Decimal = contracts.iter().map(|it| it.transaction_price).sum();
        Balances {
            currency,
            contract_liability: position.max(Decimal::ZERO),
            contract_asset: (-position).max(Decimal::ZERO),
            receivable: past().map(|it| it.receivable).sum(),
            recognised,
            remaining: price - recognised,
        }
    }
}

/// What is posted or planned of an obligation, by its index, in a period.
struct Sum {
    obligation: usize,
    period: Period,
    amount: Decimal,
    /// `None` where a rate is missing.
    functional: Option<Decimal>,
    posted: bool,
}

/// True when the content differs from what was last hashed; remembers it.
fn replaced(hash: &mut [u8; 32], content: Content) -> bool {
    let now = content.finish();
    std::mem::replace(hash, now) != now
}
