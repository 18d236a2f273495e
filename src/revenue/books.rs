//! The books of many deals, folded from a log in memory: what a replay prints.
//!
//! Invariant: folding the same facts in the same order gives the same report; without ticks and period changes among
//! them, any order does. Deliberately absent: storage. The stream processor keeps contracts in its store and calls
//! `contract` itself.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::contract::{self, BillingRow, Contract, ScheduleRow, View};
use super::difference::first_difference;
use super::fact::Fact;
use super::ids::{DealId, EventId, TenantId};
use super::journal::JournalEntry;
use super::reference::{Context, Learned, Reference, Settings, conflict};
use super::reject::{Code, Rejection};

/// Facts in, report out.
pub struct Books {
    settings: Settings,
    reference: Reference,
    contracts: BTreeMap<(TenantId, DealId), Contract>,
    entries: Vec<JournalEntry>,
    seen: BTreeMap<(TenantId, EventId), Fact>,
    rejections: Vec<(EventId, Rejection)>,
}

/// Everything the books say, sorted by tenant, deal, then time.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Drafts included.
    pub contracts: Vec<View>,
    pub schedule: Vec<ScheduleRow>,
    pub billing: Vec<BillingRow>,
    pub journals: Vec<JournalEntry>,
    /// Refused facts, facts that do not fit their deal as it stands, and parked deals; sorted by event id.
    pub rejections: Vec<(EventId, Rejection)>,
}

impl Books {
    pub fn new(settings: Settings) -> Books {
        Books {
            settings,
            reference: Reference::default(),
            contracts: BTreeMap::new(),
            entries: Vec::new(),
            seen: BTreeMap::new(),
            rejections: Vec::new(),
        }
    }

    /// Takes the next fact of the log.
    pub fn fold(&mut self, fact: Fact) {
        let event = fact.event_id.clone();
        if let Err(rejection) = self.try_fold(fact) {
            self.rejections.push((event, rejection));
        }
    }

    /// Notes a line of the log that is no fact.
    pub fn refuse(&mut self, event: EventId, rejection: Rejection) {
        self.rejections.push((event, rejection));
    }

    fn try_fold(&mut self, fact: Fact) -> Result<(), Rejection> {
        fact.validate()?;
        let key = (fact.tenant.clone(), fact.event_id.clone());
        if let Some(known) = self.seen.get(&key) {
            return match first_difference(known, &fact) {
                None => Ok(()),
                Some(field) => Err(conflict(&field, &fact)),
            };
        }
        match fact.body.deal_id() {
            Some(deal) => self.fold_deal(deal, &fact)?,
            None => self.fold_reference(&fact)?,
        }
        self.seen.insert(key, fact);
        Ok(())
    }

    fn fold_deal(&mut self, deal: &DealId, fact: &Fact) -> Result<(), Rejection> {
        let key = (fact.tenant.clone(), deal.clone());
        let cx = Context::new(&self.settings, &self.reference, &fact.tenant);
        contract::check(self.contracts.get(&key), fact)?;
        let decision = contract::apply(self.contracts.remove(&key), fact, &cx)?;
        self.contracts.insert(key, decision.contract);
        self.entries.extend(decision.entries);
        Ok(())
    }

    fn fold_reference(&mut self, fact: &Fact) -> Result<(), Rejection> {
        if self.settings.learn(fact, &mut self.reference)? == Learned::New {
            self.settle(&fact.tenant);
        }
        Ok(())
    }

    /// Settles every contract of a tenant on which the news can act.
    fn settle(&mut self, tenant: &TenantId) {
        let cx = Context::new(&self.settings, &self.reference, tenant);
        for ((of, _), contract) in &mut self.contracts {
            if of != tenant || !contract.is_affected(&cx) {
                continue;
            }
            if let Ok(decision) = contract::settle(contract.clone(), &cx) {
                *contract = decision.contract;
                self.entries.extend(decision.entries);
            }
        }
    }

    /// Ends the log. `as_of` acts as a tick of every tenant.
    pub fn finish(mut self, as_of: Option<Date>) -> Report {
        if let Some(day) = as_of {
            let tenants: Vec<TenantId> = self.contracts.keys().map(|(tenant, _)| tenant.clone()).collect();
            for tenant in tenants {
                if self.reference.tick(&tenant, day) == Learned::New {
                    self.settle(&tenant);
                }
            }
        }
        let mut report = Report {
            contracts: Vec::new(),
            schedule: Vec::new(),
            billing: Vec::new(),
            journals: self.entries,
            rejections: self.rejections,
        };
        for ((tenant, _), contract) in self.contracts {
            let cx = Context::new(&self.settings, &self.reference, &tenant);
            let now = Contract {
                schedule_hash: [0; 32],
                billing_hash: [0; 32],
                ..contract
            };
            if let Ok(decision) = contract::settle(now, &cx) {
                report.contracts.push(decision.view);
                report.schedule.extend(decision.schedule);
                report.billing.extend(decision.billing);
                report.journals.extend(decision.entries);
                report.rejections.extend(decision.rejections);
                report.rejections.extend(parked(&decision.contract));
            }
        }
        report.schedule.sort_by(|a, b| {
            (&a.tenant, &a.deal, a.period, &a.obligation).cmp(&(&b.tenant, &b.deal, b.period, &b.obligation))
        });
        report.journals.sort_by(|a, b| {
            (&a.tenant, &a.deal, a.date, a.kind, &a.obligation, &a.entry_id).cmp(&(
                &b.tenant,
                &b.deal,
                b.date,
                b.kind,
                &b.obligation,
                &b.entry_id,
            ))
        });
        report
            .rejections
            .sort_by(|(a, x), (b, y)| (a, x.code, &x.field, &x.value).cmp(&(b, y.code, &y.field, &y.value)));
        report.rejections.dedup();
        report
    }
}

/// A deal that waits for a rate is shown, under its first fact.
fn parked(contract: &Contract) -> Option<(EventId, Rejection)> {
    let needed = contract.waits_for()?;
    let first = contract
        .facts
        .iter()
        .min_by_key(|fact| (fact.occurred_at, &fact.event_id))?;
    let rejection = Rejection::new(
        Code::RateMissing,
        "fx.rate",
        format!("{}/{} on {}", needed.base, needed.quote, needed.date),
        "the deal is parked until this rate is published; it then goes on by itself",
    );
    Some((first.event_id.clone(), rejection))
}
