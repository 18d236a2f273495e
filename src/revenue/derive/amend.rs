//! `deal.amended`: the deal as it now stands, line by line.
//!
//! Invariant: nothing before the effective date changes. Deliberately absent: how a segment is built (`modify`) and
//! what it means for invoices (`invoicing`).

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::{Sold, line_ssp, sell};
use super::super::explain::Explanation;
use super::super::fact::{Deal, Fact, Line, RecognitionTerms};
use super::super::ids::ContractId;
use super::super::modify;
use super::super::money::largest_remainder;
use super::super::obligation::LumpReason;
use super::super::period::add_days;
use super::super::policy::Treatment;
use super::super::reject::{Code, Rejection};
use super::days::Amended;
use super::{Fold, bad_id, day, grid};

impl Fold<'_> {
    pub(super) fn amend(&mut self, fact: &Fact, deal: &Deal) -> Result<(), Rejection> {
        self.changeable(deal)?;
        let Amended {
            from,
            stated,
            restarts,
            start,
            end,
        } = self.days().amended(deal, day(self.tenant, fact))?;
        let deal = &self.inherit(deal);
        let given = deal.treatment.unwrap_or(self.tenant.policy.modification);
        let mut sold = match restarts {
            true => self.sell_amended(deal, start, end, given)?,
            false => self.sell_amended(&self.at_taxes_billed(deal, from), start, end, given)?,
        };
        if restarts {
            self.add_the_past(&mut sold, from);
        }
        self.touched = true;
        self.modify(fact, &sold, given, from)?;
        self.term.start = start;
        self.term.end = end;
        let grid_start = if restarts { stated } else { start };
        self.term.grid = grid(self.tenant, deal, grid_start, end, Some(self.term.grid.cycle));
        self.term.deal = deal.clone();
        self.plan_invoices(from, &fact.event_id);
        let below = !self.below_zero().is_empty();
        if below || self.billed_before(Date::MAX) < Decimal::ZERO || self.credits_before_invoices() {
            return Err(Rejection::new(
                Code::OverCredit,
                "payload.amount",
                deal.amount,
                "more was credited than the deal would now cost, or than it would have billed by then; state the price before \
                 credits, let the change begin after the credit, or cancel the deal",
            ));
        }
        self.accept(fact, deal.customer.as_ref(), from);
        Ok(())
    }

    /// Whether invoices moved behind a credit of what they bill.
    fn credits_before_invoices(&self) -> bool {
        let mut days = self.wanted.credits.iter().map(|it| add_days(it.date, 1));
        days.any(|day| self.billed_before(day) < Decimal::ZERO)
    }

    /// What the payload leaves out stays as it was; without lines, those there are change in proportion.
    pub(super) fn inherit(&self, deal: &Deal) -> Deal {
        let before = &self.term.deal;
        let recognition = RecognitionTerms {
            method: deal.recognition.method.or(before.recognition.method),
            defer_setup: deal.recognition.defer_setup.or(before.recognition.defer_setup),
        };
        let keeps_plan = deal.instalments.is_empty() && deal.billing_cycle.is_none();
        let deal = Deal {
            recognition,
            tax: deal.tax.or(before.tax_for(deal.amount)),
            instalments: match keeps_plan {
                true => before.instalments.clone(),
                false => deal.instalments.clone(),
            },
            ..deal.clone()
        };
        if !deal.lines.is_empty() || before.lines.is_empty() {
            return deal;
        }
        let before: Vec<Decimal> = self.term.deal.lines.iter().map(|line| line.amount).collect();
        let parts = largest_remainder(deal.amount, &before, deal.currency);
        let lines = self.term.deal.lines.iter().zip(parts);
        let lines = lines.map(|(line, amount)| Line { amount, ..line.clone() }).collect();
        Deal { lines, ..deal }
    }

    /// Prices the lines. What stands by itself as a separate contract keeps its stated price and takes no part in the
    /// allocation of the others, whose shares therefore stay as they were.
    fn sell_amended(&self, deal: &Deal, start: Date, end: Date, given: Treatment) -> Result<Vec<Sold>, Rejection> {
        let policy = &self.tenant.policy;
        let separate = |line: &Line| match self.index(&line.id) {
            Some(index) => self.wanted.obligations[index].contract != self.main,
            None => match given {
                Treatment::SeparateContract => !line.is_discount(),
                Treatment::Auto => line.distinct != Some(false) && line_ssp(line) == Some(line.amount),
                Treatment::Prospective | Treatment::CumulativeCatchUp => false,
            },
        };
        let (apart, others): (Vec<Line>, Vec<Line>) = deal.lines.iter().cloned().partition(separate);
        let amount = deal.amount - apart.iter().map(|line| line.amount).sum::<Decimal>();
        let inclusive = deal.tax.is_some_and(|tax| tax.inclusive);
        if apart.is_empty() || others.is_empty() || inclusive || amount < Decimal::ZERO {
            return sell(deal, start, end, policy);
        }
        let rest = Deal {
            amount,
            lines: others,
            ..deal.clone()
        };
        let mut sold = sell(&rest, start, end, policy)?;
        for line in apart {
            let alone = Deal {
                amount: line.amount,
                lines: vec![line],
                ..deal.clone()
            };
            sold.extend(sell(&alone, start, end, policy)?);
        }
        Ok(sold)
    }

    /// The amendment prices only what follows: what was earned is added, line by line.
    pub(super) fn add_the_past(&self, sold: &mut [Sold], from: Date) {
        for line in sold {
            let Some(obligation) = self.current(&line.line_id) else {
                continue;
            };
            // In stated prices, as what follows is: what a pool moved comes on top of them, see `modify::price_under`.
            let last = obligation.last_segment();
            line.terms.price += last.terms.price - modify::remaining(obligation, last.price, from);
            line.terms.start = obligation.start;
        }
    }

    pub(super) fn modify(&mut self, fact: &Fact, sold: &[Sold], given: Treatment, from: Date) -> Result<(), Rejection> {
        let spread = self.spread;
        let mut pooled: Vec<(usize, Sold)> = Vec::new();
        let mut unchanged: Vec<(usize, Sold)> = Vec::new();
        for line in sold {
            let Some(index) = self.index(&line.line_id) else {
                let (treatment, why) = modify::treatment_of(given, line, None);
                self.explain(|| Explanation::modification(&fact.event_id, line, treatment, why, from));
                pooled.extend(self.add_line(fact, line, treatment, from)?);
                continue;
            };
            self.supersede_separate(line, index, from);
            let line = &self.as_existing(line, index);
            let obligation = &mut self.wanted.obligations[index];
            obligation.distinct = line.distinct;
            if modify::supersede(obligation, from, &line.terms) {
                unchanged.push((index, line.clone()));
                continue;
            }
            let (treatment, why) = modify::treatment_of(given, line, Some(obligation));
            match treatment {
                Treatment::SeparateContract if self.separate(fact, line, index, from)? => {}
                Treatment::CumulativeCatchUp => {
                    let terms = line.terms.clone();
                    let obligation = &mut self.wanted.obligations[index];
                    modify::catch_up(obligation, from, terms, &fact.event_id, spread);
                }
                Treatment::SeparateContract | Treatment::Prospective | Treatment::Auto => {
                    pooled.push((index, line.clone()))
                }
            }
            self.explain(|| Explanation::modification(&fact.event_id, line, treatment, why, from));
        }
        for index in self.term.obligations.clone() {
            let obligation = &mut self.wanted.obligations[index];
            let kept = sold.iter().any(|line| line.line_id == obligation.line_id);
            if !kept && obligation.stop.is_none() && obligation.end >= from {
                obligation.stop = Some(from);
                obligation
                    .lumps
                    .retain(|lump| lump.date < from || lump.reason != LumpReason::CatchUp);
            }
        }
        self.apply_pool(fact, pooled, unchanged, from);
        self.reapply_credits(from);
        Ok(())
    }

    /// 25-13(a): the old contract ends and a new one begins, for what remains of the changed lines, and of the
    /// unchanged ones where all of them share a measure by which one price can be spread over them.
    pub(super) fn apply_pool(
        &mut self,
        fact: &Fact,
        changed: Vec<(usize, Sold)>,
        unchanged: Vec<(usize, Sold)>,
        from: Date,
    ) {
        let spread = self.spread;
        if changed.is_empty() {
            return;
        }
        let wanted = &self.wanted;
        let left = |(index, line): &(usize, Sold)| {
            let obligation = &wanted.obligations[*index];
            modify::remaining(obligation, modify::price_under(obligation, &line.terms), from)
        };
        let shared = |lines: &[(usize, Sold)], amounts: &[Decimal]| {
            let lines = lines.iter().zip(amounts).map(|((index, sold), amount)| modify::Left {
                sold,
                performance: &wanted.obligations[*index].performance,
                units_before: wanted.obligations[*index].units_before,
                amount: *amount,
            });
            modify::pool(&lines.collect::<Vec<_>>(), from, spread)
        };
        let mut amounts: Vec<Decimal> = changed.iter().map(left).collect();
        let mut lines = changed;
        let own = lines.len();
        lines.extend(
            unchanged
                .into_iter()
                .filter(|(at, _)| wanted.obligations[*at].contract == self.main),
        );
        amounts.extend(lines[own..].iter().map(left));
        let parts = match shared(&lines, &amounts) {
            Some(parts) => parts,
            None => {
                lines.truncate(own);
                amounts.truncate(own);
                shared(&lines, &amounts).unwrap_or(amounts)
            }
        };
        for ((index, line), amount) in lines.into_iter().zip(parts) {
            let obligation = &mut self.wanted.obligations[index];
            modify::prospective(obligation, from, line.terms, amount, &fact.event_id, spread);
        }
    }

    /// A line that was not sold before. `Some` when its price is to be pooled with what remains.
    pub(super) fn add_line(
        &mut self,
        fact: &Fact,
        line: &Sold,
        treatment: Treatment,
        from: Date,
    ) -> Result<Option<(usize, Sold)>, Rejection> {
        let mut line = line.clone();
        let catches_up = treatment == Treatment::CumulativeCatchUp;
        if line.terms.start < from && !catches_up {
            line.terms.start = from.min(line.terms.end);
        }
        match treatment {
            Treatment::SeparateContract => {
                let contract = self.separate_contract(fact)?;
                self.promise(&line, contract, Decimal::ZERO, &fact.event_id)?;
                Ok(None)
            }
            Treatment::CumulativeCatchUp => {
                let index = self.promise(&line, self.main.clone(), Decimal::ZERO, &fact.event_id)?;
                if from > line.terms.start {
                    let obligation = &mut self.wanted.obligations[index];
                    modify::begin_empty(obligation);
                    modify::catch_up(obligation, from, line.terms, &fact.event_id, self.spread);
                }
                Ok(None)
            }
            Treatment::Prospective | Treatment::Auto => {
                let index = self.promise(&line, self.main.clone(), Decimal::ZERO, &fact.event_id)?;
                Ok(Some((index, line)))
            }
        }
    }

    /// Books what a changed line adds as a contract of its own. False when it adds nothing.
    pub(super) fn separate(&mut self, fact: &Fact, line: &Sold, index: usize, from: Date) -> Result<bool, Rejection> {
        let existing = &self.wanted.obligations[index];
        let Some((quantity, price)) = modify::added(line, existing) else {
            return Ok(false);
        };
        let before = existing.last_segment().terms.quantity.unwrap_or_default();
        let mut added = line.clone();
        added.terms.price = price;
        added.terms.start = from.max(line.terms.start);
        added.terms.end = line.terms.end.max(added.terms.start);
        added.terms.quantity = line.terms.quantity.map(|_| quantity);
        let contract = self.separate_contract(fact)?;
        self.promise(&added, contract, before, &fact.event_id)?;
        Ok(true)
    }

    pub(super) fn separate_contract(&mut self, fact: &Fact) -> Result<ContractId, Rejection> {
        let event = fact.event_id.as_str().replace('/', "_");
        let contract = ContractId::parse(format!("{}.{event}", self.main)).ok_or_else(|| bad_id(fact))?;
        if !self.wanted.contracts.contains(&contract) {
            self.wanted.contracts.push(contract.clone());
        }
        Ok(contract)
    }

    /// A line that changes on a day takes the place of what was added to it as a contract of its own on that day or later.
    fn supersede_separate(&mut self, line: &Sold, index: usize, from: Date) {
        let others: Vec<usize> = self.of_line(&line.line_id).filter(|at| *at != index).collect();
        let stated = |at: &usize| self.wanted.obligations[*at].last_segment().terms.price;
        if others.iter().chain([&index]).map(stated).sum::<Decimal>() == line.terms.price {
            return;
        }
        for at in others {
            let obligation = &mut self.wanted.obligations[at];
            let first = obligation.segments[0].from;
            if first >= from {
                obligation.stop = Some(first);
                obligation.lumps.clear();
                obligation.credits.clear();
                self.term.obligations.retain(|known| *known != at);
            }
        }
    }

    /// The line as its obligation would state it: without what separate contracts already hold of it, and, where no
    /// start is stated, from the day on which it was added.
    pub(super) fn as_existing(&self, line: &Sold, index: usize) -> Sold {
        let mut line = line.clone();
        let added_on = self.wanted.obligations[index].last_segment().terms.start;
        if !line.start_stated && added_on > self.term.start {
            line.terms.start = added_on.min(line.terms.end);
        }
        for at in self.of_line(&line.line_id.clone()).filter(|at| *at != index) {
            let held = &self.wanted.obligations[at].last_segment().terms;
            line.terms.price -= held.price.min(line.terms.price);
            line.terms.quantity = match (line.terms.quantity, held.quantity) {
                (Some(all), Some(part)) if all > part => Some(all - part),
                (quantity, _) => quantity,
            };
        }
        line
    }

    pub(super) fn reapply_credits(&mut self, from: Date) {
        for index in &self.term.obligations {
            let obligation = &mut self.wanted.obligations[*index];
            let later: Vec<_> = obligation
                .credits
                .iter()
                .filter(|(date, ..)| *date >= from)
                .cloned()
                .collect();
            obligation.credits.retain(|(date, ..)| *date < from);
            for (date, amount, cause) in later {
                modify::credit(obligation, date, amount, false, &cause, self.spread);
            }
        }
    }
}
