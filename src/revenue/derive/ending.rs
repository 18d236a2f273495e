//! What ends or reduces promises: `deal.renewed`, `deal.cancelled`, `credit.granted`.
//!
//! Invariant: after a stop, billed less credited equals earned, so that the deferral clears and nothing is below zero.
//! Deliberately absent: postings.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::allocate::sell;
use super::super::explain::Explanation;
use super::super::fact::{Cancellation, Credit, Deal, Fact, Refund};
use super::super::ids::EventId;
use super::super::modify;
use super::super::money::largest_remainder;
use super::super::obligation::{Lump, LumpReason, Obligation};
use super::super::period::add_days;
use super::super::reject::{Code, Rejection};
use super::days::TermDays;
use super::{CreditMemo, Fold, Standing, Term, already_cancelled, day, grid, outside_term, too_precise, unknown_line};

impl Fold<'_> {
    pub(super) fn renew(&mut self, fact: &Fact, deal: &Deal) -> Result<(), Rejection> {
        self.changeable(deal)?;
        let TermDays { start, end, .. } = self.days().renewed(deal)?;
        let ends = deal.effective_date.unwrap_or(start).min(start);
        let deal = &Deal {
            // Days of the running term are none of the following one.
            instalments: deal.instalments.clone(),
            ..self.inherit(deal)
        };
        let sold = sell(deal, start, end, &self.tenant.policy)?;
        self.touched = true;
        if ends <= self.term.end {
            self.stop(fact, ends, Refund::Unused, Some(self.term.end));
        }
        let planned = self.wanted.invoices.drain(..);
        let settled = self.term.settled.drain(..).chain(planned).collect();
        let followed = Term {
            deal: deal.clone(),
            start,
            end,
            suffix: format!("/{}", fact.event_id),
            obligations: Vec::new(),
            settled,
            grid: grid(self.tenant, deal, start, end, Some(self.term.grid.cycle)),
            measured_from: start,
        };
        let ended = std::mem::replace(&mut self.term, followed);
        self.former.push((start, ended));
        self.explain(|| Explanation::renewal(&fact.event_id, start, ends));
        self.explain(|| Explanation::allocation(&fact.event_id, deal, &sold));
        for line in &sold {
            self.close_windows(&line.line_id, start);
            self.promise(line, self.main.clone(), Decimal::ZERO, &fact.event_id)?;
        }
        self.plan_invoices(Date::MIN, &fact.event_id);
        self.limit_estimates(fact, ends);
        self.accept(fact, deal.customer.as_ref(), start);
        Ok(())
    }

    pub(super) fn cancel(&mut self, fact: &Fact, it: &Cancellation) -> Result<(), Rejection> {
        let from = it.effective_date.unwrap_or_else(|| day(self.tenant, fact));
        if let Standing::Cancelled(since) = self.wanted.status {
            let notice = self.notice.as_ref().map(|(_, event)| event);
            let superseded = notice.is_some_and(|event| self.superseded.contains(event));
            if !superseded || from >= since {
                return Err(already_cancelled(since));
            }
        }
        if let Refund::Amount(amount) = it.refund
            && !self.refund_fits(it)
        {
            return Err(too_precise("payload.refund", amount, self.wanted.currency));
        }
        if from > add_days(self.term.end, 1) {
            return Err(outside_term(from, "the contract has ended by then"));
        }
        if self.superseded.contains(&fact.event_id) {
            self.end_promises(from, None);
        } else {
            self.stop(fact, from, it.refund, None);
            self.limit_estimates(fact, from);
        }
        self.wanted.status = Standing::Cancelled(from);
        self.notice = Some((fact.occurred_at, fact.event_id.clone()));
        self.accept(fact, None, from);
        Ok(())
    }

    pub(super) fn refund_fits(&self, it: &Cancellation) -> bool {
        match it.refund {
            Refund::Amount(amount) => self.wanted.currency.holds(amount),
            Refund::Unused | Refund::None => true,
        }
    }

    /// Ends every promise on a day, but what outlasts the running term. Returns those that it ended, and what is still to
    /// be earned of the others.
    fn end_promises(&mut self, from: Date, outlasts: Option<Date>) -> (Vec<usize>, Decimal) {
        let mut stopped = Vec::new();
        let mut carried = Decimal::ZERO;
        for (index, obligation) in self.wanted.obligations.iter_mut().enumerate() {
            // What an earlier renewal ended outlasts nothing, whatever its end would have been.
            let goes_on = obligation.stop.is_none_or(|stop| stop > from);
            if goes_on && outlasts.is_some_and(|end| obligation.end > end) {
                carried += obligation.last_segment().price - obligation.level_before(from);
                continue;
            }
            let last = obligation.last_segment();
            let over = obligation.end < from && last.from < from;
            let performed = over && obligation.level_before(from) >= last.price;
            if !performed && obligation.stop.is_none_or(|stop| stop > from) {
                obligation.stop = Some(from);
                obligation
                    .lumps
                    .retain(|lump| lump.date < from || lump.reason != LumpReason::CatchUp);
                stopped.push(index);
            }
        }
        (stopped, carried)
    }

    /// Ends every promise on a day and settles what was billed against what was earned. A renewal leaves alone what
    /// was to outlast the running term, such as setup fees over the customer's life.
    pub(super) fn stop(&mut self, fact: &Fact, from: Date, refund: Refund, outlasts: Option<Date>) {
        let late = self.withdraw_credits(from);
        let (stopped, carried) = self.end_promises(from, outlasts);
        self.wanted
            .invoices
            .retain(|invoice| invoice.date < from && invoice.firm);
        self.term.settled.retain(|invoice| invoice.date < from && invoice.firm);
        let billed = self.billed_of_terms();
        let earned: Decimal = self
            .wanted
            .obligations
            .iter()
            .map(|obligation| {
                obligation.level_before(from) + obligation.lumps.iter().map(|lump| lump.amount).sum::<Decimal>()
            })
            .sum();
        let mut unused = billed - earned - carried + self.unearned_of_resolved();
        if unused < Decimal::ZERO {
            self.invoice(from, -unused, fact);
            unused = Decimal::ZERO;
        }
        let billed = self.billed_before(Date::MAX) - self.expected_back() - self.resolved_after(from);
        let credited = match refund {
            // Not more than what is still billed: a credit granted for the days now unused has paid part of it back.
            Refund::Unused => unused.min(billed).max(Decimal::ZERO),
            Refund::None => Decimal::ZERO,
            Refund::Amount(amount) => amount.min(billed).max(Decimal::ZERO),
        };
        self.explain(|| Explanation::cancellation(&fact.event_id, from, billed, earned, credited));
        if credited > Decimal::ZERO {
            let tax = self.tax_of_credit(credited, Date::MAX);
            let cause = fact.event_id.clone();
            self.wanted.credits.push(CreditMemo {
                date: from,
                amount: credited,
                tax,
                cause,
            });
        }
        let kept = unused - credited;
        let reason = if kept > Decimal::ZERO {
            LumpReason::Forfeit
        } else {
            LumpReason::Refund
        };
        let kept = kept - self.make_good(fact, from, kept);
        // What was forfeited belongs to what ended; what is refunded beyond the unused part, to all that was earned.
        let over: Vec<usize> = match stopped.is_empty() || kept < Decimal::ZERO {
            true => (0..self.wanted.obligations.len()).collect(),
            false => stopped,
        };
        self.lump(&over, from, kept, reason, &fact.event_id, |it| {
            match kept > Decimal::ZERO {
                true => (it.last_segment().price - it.level_before(from)).max(Decimal::ZERO),
                false => {
                    let lumps: Decimal = it.lumps.iter().map(|lump| lump.amount).sum();
                    (it.level_before(from) + lumps).max(Decimal::ZERO)
                }
            }
        });
        for (event, credit) in late {
            // What found no price left then finds none now: the rest of it was refunded just above.
            let _nothing_left = self.grant(&event, &credit);
        }
    }

    /// An ended line that was credited by more than it turns out to have earned takes back the excess: from what is
    /// kept, before anything is forfeited, then from the other lines, whose credit it was. Returns how much was kept.
    fn make_good(&mut self, fact: &Fact, from: Date, kept: Decimal) -> Decimal {
        let net = |it: &Obligation| it.level_before(from) + it.lumps.iter().map(|lump| lump.amount).sum::<Decimal>();
        let ended = |it: &Obligation| it.end < from || it.stop.is_some_and(|stop| stop <= from);
        let excess = |it: &Obligation| match ended(it) {
            true => (-net(it)).max(Decimal::ZERO),
            false => Decimal::ZERO,
        };
        let (owed, able): (Vec<usize>, Vec<usize>) = (0..self.wanted.obligations.len())
            .filter(|at| ended(&self.wanted.obligations[*at]))
            .partition(|at| net(&self.wanted.obligations[*at]) < Decimal::ZERO);
        let all: Decimal = self.wanted.obligations.iter().map(excess).sum();
        let others: Decimal = able.iter().map(|at| net(&self.wanted.obligations[*at])).sum();
        let from_kept = all.min(kept.max(Decimal::ZERO));
        let from_others = (all - from_kept).min(others);
        let (event, reason) = (&fact.event_id, LumpReason::Forfeit);
        self.lump(&owed, from, from_kept + from_others, reason, event, excess);
        self.lump(&able, from, -from_others, LumpReason::Credit, event, net);
        from_kept
    }

    pub(super) fn credit(&mut self, fact: &Fact, it: &Credit) -> Result<(), Rejection> {
        self.grant(&fact.event_id, it)?;
        self.refuse_the_rest(fact, it);
        self.granted.push((fact.event_id.clone(), it.clone()));
        Ok(())
    }

    /// Takes back credits dated on or after the day on which service is found to have ended before, and returns those
    /// that still concern something delivered; the others lowered the price of what is now never delivered.
    fn withdraw_credits(&mut self, from: Date) -> Vec<(EventId, Credit)> {
        let (early, late): (Vec<_>, Vec<_>) = self.granted.drain(..).partition(|(_, credit)| credit.date < from);
        self.granted = early;
        self.wanted.credits.retain(|memo| memo.date < from);
        for obligation in &mut self.wanted.obligations {
            obligation.credits.retain(|(date, ..)| *date < from);
            obligation
                .lumps
                .retain(|lump| lump.date < from || lump.reason != LumpReason::Credit);
        }
        let end = self.term.end;
        late.into_iter()
            .filter(|(_, it)| it.date > end || concerns_the_past(it.reason.as_deref().unwrap_or("")))
            .collect()
    }

    /// The promises that a credit concerns, by its day: those of the term that runs then, and of earlier ones what still
    /// runs; where it pays for a past shortcoming, all of them. Never a term that is only to follow.
    fn credited_lines(&self, it: &Credit, past: bool) -> Vec<usize> {
        let of_line = |at: &usize| {
            let line = &self.wanted.obligations[*at].line_id;
            it.line_id.as_ref().is_none_or(|wanted| wanted == line)
        };
        let all: Vec<usize> = (0..self.wanted.obligations.len()).filter(of_line).collect();
        let over = self.former.partition_point(|(next, _)| *next <= it.date);
        let later = self
            .former
            .iter()
            .map(|(_, term)| term)
            .chain([&self.term])
            .skip(over + 1);
        let later: Vec<usize> = later.flat_map(|term| term.obligations.iter().copied()).collect();
        let before = self.former[..over].iter().flat_map(|(_, term)| &term.obligations);
        let before: Vec<usize> = before.copied().collect();
        let open = |at: &usize| {
            let obligation = &self.wanted.obligations[*at];
            obligation.end >= it.date && obligation.stop.is_none_or(|stop| stop > it.date)
        };
        let concerned = |at: &usize| !later.contains(at) && (past || open(at) || !before.contains(at));
        let lines: Vec<usize> = all.iter().copied().filter(concerned).collect();
        match lines.is_empty() {
            true => all,
            false => lines,
        }
    }

    fn grant(&mut self, event: &EventId, it: &Credit) -> Result<(), Rejection> {
        if !self.wanted.currency.holds(it.amount) {
            return Err(too_precise("payload.amount", it.amount, self.wanted.currency));
        }
        let past = concerns_the_past(it.reason.as_deref().unwrap_or(""));
        let lines = self.credited_lines(it, past);
        if let (Some(line), true) = (&it.line_id, lines.is_empty()) {
            return Err(unknown_line("payload.line_item_id", line));
        }
        // What a later change takes back from the invoices cannot be credited a second time.
        let billed = self.billed_from(it.date) - self.expected_back();
        // What an estimate takes back of a line cannot be credited as well.
        let in_all = self.prices_in_all();
        let price = |at: &usize| {
            self.wanted.obligations[*at]
                .expected()
                .min(in_all[*at])
                .max(Decimal::ZERO)
        };
        let prices: Vec<Decimal> = lines.iter().map(price).collect();
        let most = billed.min(prices.iter().sum());
        if most <= Decimal::ZERO {
            return Err(Rejection::new(
                Code::OverCredit,
                "payload.amount",
                it.amount,
                "nothing is billed by that day that could be credited",
            ));
        }
        let amount = it.amount.min(most);
        self.explain(|| Explanation::credit(event, it, amount, past));
        let parts = largest_remainder(amount, &prices, self.wanted.currency);
        for (at, part) in lines.iter().zip(parts) {
            if part > Decimal::ZERO {
                let obligation = &mut self.wanted.obligations[*at];
                modify::credit(obligation, it.date, part, past, event, self.spread);
            }
        }
        let tax = self.tax_of_credit(amount, it.date);
        self.wanted.credits.push(CreditMemo {
            date: it.date,
            amount,
            tax,
            cause: event.clone(),
        });
        Ok(())
    }

    pub(super) fn lump(
        &mut self,
        over: &[usize],
        date: Date,
        amount: Decimal,
        reason: LumpReason,
        cause: &EventId,
        weight: impl Fn(&Obligation) -> Decimal,
    ) {
        if amount.is_zero() || over.is_empty() {
            return;
        }
        let weights: Vec<Decimal> = over.iter().map(|at| weight(&self.wanted.obligations[*at])).collect();
        for (at, amount) in over
            .iter()
            .zip(largest_remainder(amount, &weights, self.wanted.currency))
        {
            if !amount.is_zero() {
                let lump = Lump {
                    date,
                    amount,
                    cause: cause.clone(),
                    reason,
                };
                self.wanted.obligations[*at].lumps.push(lump);
            }
        }
    }
}

/// Words by which a credit's reason says that it pays for a past shortcoming, not for what is still to come.
fn concerns_the_past(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    let mut words = reason.split(|c: char| !c.is_alphanumeric());
    words.any(|word| {
        word == "sla"
            || ["defect", "fault", "damage", "outage", "quality", "past", "goodwill"]
                .iter()
                .any(|stem| word.starts_with(stem))
    })
}
