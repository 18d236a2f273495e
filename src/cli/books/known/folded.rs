//! Contracts folded from the facts of one partition.
//!
//! Invariant: the same steps as `revenue::books`, which gives a report and no contracts: every fact is applied in its
//! order, and every piece of news settles the contracts on which it can act. Deliberately absent: deals nobody asked for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::revenue::contract::{self, Contract};
use crate::revenue::fact::Fact;
use crate::revenue::ids::{DealId, EventId, TenantId};
use crate::revenue::journal::JournalEntry;
use crate::revenue::reference::{Context, Learned, Reference, Settings};
use crate::revenue::reject::Rejection;

/// Contracts as they stand after the last fact of one partition, with what was issued for each.
pub struct Folded {
    pub reference: Reference,
    pub deals: BTreeMap<(TenantId, DealId), FoldedDeal>,
}

#[derive(Default)]
pub struct FoldedDeal {
    /// `None` while no fact of the deal was accepted.
    pub contract: Option<Contract>,
    pub entries: Vec<JournalEntry>,
    /// Facts that were refused when they came.
    pub refused: Vec<(EventId, Rejection)>,
    /// Facts that do not fit the deal as it stands.
    pub unfit: Vec<(EventId, Rejection)>,
}

impl Folded {
    /// Folds one partition's facts; `as_of` acts as a tick of the clock after the last one.
    pub fn of<'a>(
        facts: impl Iterator<Item = &'a Fact>,
        settings: &Settings,
        as_of: Option<Date>,
        chosen: &dyn Fn(&TenantId, &DealId) -> bool,
    ) -> Folded {
        let mut folded = Folded {
            reference: Reference::default(),
            deals: BTreeMap::new(),
        };
        facts.for_each(|fact| folded.take(fact, settings, chosen));
        if let Some(day) = as_of {
            let tenants: BTreeSet<TenantId> = folded.deals.keys().map(|(tenant, _)| tenant.clone()).collect();
            for tenant in tenants {
                if folded.reference.tick(&tenant, day) == Learned::New {
                    folded.settle(&tenant, settings);
                }
            }
        }
        folded
    }

    pub fn context<'a>(&'a self, settings: &'a Settings, tenant: &TenantId) -> Context<'a> {
        Context::new(settings, &self.reference, tenant)
    }

    fn take(&mut self, fact: &Fact, settings: &Settings, chosen: &dyn Fn(&TenantId, &DealId) -> bool) {
        let Some(deal) = fact.body.deal_id() else {
            if settings.learn(fact, &mut self.reference) == Ok(Learned::New) {
                self.settle(&fact.tenant, settings);
            }
            return;
        };
        if !chosen(&fact.tenant, deal) {
            return;
        }
        let cx = Context::new(settings, &self.reference, &fact.tenant);
        let kept = self.deals.entry((fact.tenant.clone(), deal.clone())).or_default();
        match contract::apply(kept.contract.clone(), fact, &cx) {
            Ok(decision) => kept.keep(decision),
            Err(rejection) => kept.refused.push((fact.event_id.clone(), rejection)),
        }
    }

    fn settle(&mut self, tenant: &TenantId, settings: &Settings) {
        let cx = Context::new(settings, &self.reference, tenant);
        for ((of, _), kept) in &mut self.deals {
            let affected = |contract: &&Contract| of == tenant && contract.is_affected(&cx);
            let Some(contract) = kept.contract.as_ref().filter(affected) else {
                continue;
            };
            if let Ok(decision) = contract::settle(contract.clone(), &cx) {
                kept.keep(decision);
            }
        }
    }
}

impl FoldedDeal {
    fn keep(&mut self, decision: contract::Decision) {
        self.entries.extend(decision.entries);
        self.unfit = decision.rejections;
        self.contract = Some(decision.contract);
    }
}
