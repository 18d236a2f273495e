//! From wanted books to entries: only what was not yet issued becomes one.
//!
//! Everything wanted is a *movement* under a key (an invoice day, an obligation's period, a credit, a payment). The
//! difference between what is wanted under a key and what was issued under it is the movement still to post:
//!
//! ```text
//! wanted - issued = 0    nothing
//! issued nothing         the movement itself
//! wanted nothing         a reversal (an invoice: a credit memo)
//! otherwise              an adjustment
//! ```
//!
//! A movement of a closed period is posted in the first open one and keeps a reference to the period it concerns:
//! recognition on the period's last day, everything else on its first. A movement dated D is due once the clock has
//! passed D, or when its period is closed. Movements are posted in the order of their days.
//!
//! Invariant: planning again after planning yields nothing; an issued entry is never changed. Deliberately absent: how
//! the wanted books come about (`derive`) and what a movement does to balances (`ledger`).

mod entry;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use rust_decimal::Decimal;

pub use self::entry::{EntryLine, Issued, JournalEntry, Key, Kind, What};
use self::target::{Behind, Target, targets};
use super::content::Content;
use super::derive::{Standing, Wanted};
use super::ids::{ContractId, DealId, EntryId, EventId, LineType, TenantId};
use super::ledger::{Exchange, Ledger, Posting, Role};
use super::period::{FiscalCalendar, Period, add_days};
use super::policy::RecognitionPosting;
use super::reference::{Context, RATE_HOLDS_DAYS, RateNeeded};

/// A movement to post.
#[derive(Clone, Debug, PartialEq)]
pub struct Movement {
    pub key: Key,
    pub kind: Kind,
    pub contract: ContractId,
    pub line_type: Option<LineType>,
    pub amount: Decimal,
    pub tax: Decimal,
    /// The day it is posted on.
    pub date: Date,
    /// False when it waits for an event rather than for a day.
    pub firm: bool,
    behind: Behind,
    reverses: Option<(EntryId, Decimal)>,
    /// Entries issued under the key before.
    sequence: usize,
}

/// The result of planning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub entries: Vec<JournalEntry>,
    pub issued: Vec<Issued>,
    /// Movements not yet due, with the functional amount they are expected to earn where a rate is known.
    pub pending: Vec<(Movement, Option<Decimal>)>,
    pub waits_for: Option<RateNeeded>,
}

/// Who is planned for, and what was issued so far.
pub struct Books<'a> {
    pub tenant: &'a TenantId,
    pub deal: &'a DealId,
    pub issued: &'a [Issued],
    pub wanted: &'a Wanted,
    pub cx: Context<'a>,
    /// Periods that take no entry.
    pub locked: &'a BTreeSet<Period>,
    /// Periods that are being closed: all that is theirs is due now.
    pub closing: &'a BTreeSet<Period>,
}

/// Posts what is due, and says what is not.
pub fn plan(books: &Books, ledger: &mut Ledger) -> Plan {
    let fx = Exchange {
        cx: books.cx,
        currency: books.wanted.currency,
        functional: books.cx.functional(books.wanted.currency),
        within_days: Some(RATE_HOLDS_DAYS),
    };
    let mut plan = Plan::default();
    let mut movements = differences(books);
    movements.extend(remeasurements(books, ledger, fx, &movements));
    movements.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let (due, later): (Vec<Movement>, Vec<Movement>) =
        movements.into_iter().partition(|movement| books.is_due(movement));
    let mut waiting = Vec::new();
    for movement in due {
        if plan.waits_for.is_some() {
            waiting.push(movement);
            continue;
        }
        match books.post(&movement, ledger, fx, &mut plan) {
            Ok(()) => {}
            Err(needed) => {
                plan.waits_for = Some(needed);
                waiting.push(movement);
            }
        }
    }
    let estimate = Exchange {
        within_days: None,
        ..fx
    };
    let mut ahead = ledger.clone();
    for movement in waiting.into_iter().chain(later) {
        if movement.key.what == What::Remeasurement {
            continue;
        }
        let functional = match fx.is_foreign() {
            true => books
                .effect(&movement, &mut ahead, estimate)
                .ok()
                .map(|lines| recognised(&lines)),
            false => Some(movement.amount),
        };
        plan.pending.push((movement, functional));
    }
    plan
}

impl Books<'_> {
    fn calendar(&self) -> FiscalCalendar {
        self.cx.tenant.fiscal
    }

    fn is_due(&self, movement: &Movement) -> bool {
        let closing = self.closing.contains(&self.calendar().of(movement.date));
        let passed = |day: Date| self.cx.reference.clock().is_some_and(|clock| clock > day);
        let recognition = movement.key.what == What::Recognition;
        movement.firm
            && match (recognition, self.cx.tenant.policy.recognition_posting) {
                (true, RecognitionPosting::AtClose) => closing,
                (true, RecognitionPosting::Upfront) => closing || passed(self.wanted.agreed) || passed(movement.date),
                (true, RecognitionPosting::PeriodEnd) | (false, _) => closing || passed(movement.date),
            }
    }

    fn post(&self, movement: &Movement, ledger: &mut Ledger, fx: Exchange, plan: &mut Plan) -> Result<(), RateNeeded> {
        let mut after = ledger.clone();
        let lines = self.effect(movement, &mut after, fx)?;
        let deposit = match movement.key.what {
            What::Invoice => after.apply_deposit(movement.key.date, fx)?,
            What::Application
            | What::Payment
            | What::Lump
            | What::CreditMemo
            | What::Recognition
            | What::Remeasurement => Vec::new(),
        };
        *ledger = after;
        if !lines.is_empty() {
            self.issue(movement, lines, plan);
        }
        if !deposit.is_empty() {
            let key = Key {
                what: What::Application,
                ..movement.key.clone()
            };
            let amount = Decimal::ZERO;
            let tax = Decimal::ZERO;
            let kind = Kind::Payment;
            let applied = Movement {
                key,
                kind,
                amount,
                tax,
                ..movement.clone()
            };
            self.issue(&applied, deposit, plan);
        }
        Ok(())
    }

    fn effect(&self, movement: &Movement, ledger: &mut Ledger, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let (amount, tax, day) = (movement.amount, movement.tax, movement.key.date);
        match (movement.key.what, &movement.line_type) {
            (What::Invoice, _) if amount + tax >= Decimal::ZERO => ledger.invoice(amount, tax, day, fx),
            (What::Invoice, _) => ledger.credit(-amount, -tax, day, fx),
            (What::CreditMemo, _) if amount + tax >= Decimal::ZERO => ledger.credit(amount, tax, day, fx),
            (What::CreditMemo, _) => ledger.invoice(-amount, -tax, day, fx),
            (What::Payment, _) => {
                let ended = match self.wanted.status {
                    Standing::Cancelled(since) => day >= since,
                    Standing::Active => false,
                };
                ledger.pay(amount, ended, day, fx)
            }
            (What::Lump | What::Recognition, Some(line_type)) => {
                let exactly = movement.reverses.as_ref().map(|(_, functional)| -functional);
                ledger.recognise(amount, line_type, day, exactly, fx)
            }
            (What::Remeasurement, _) => Ok(ledger.remeasure(day, fx)),
            (What::Lump | What::Recognition, None) | (What::Application, _) => Ok(Vec::new()),
        }
    }

    fn issue(&self, movement: &Movement, lines: Vec<Posting>, plan: &mut Plan) {
        let calendar = self.calendar();
        let period = calendar.of(movement.date);
        let concerns = calendar.of(movement.key.date);
        let provenance = self.provenance(movement);
        let Some(cause) = provenance.last().cloned() else {
            return; // nothing is ever posted without a fact behind it
        };
        let entry_id = self.entry_id(movement, &cause);
        let of = |role: fn(&Role) -> bool| -> Decimal {
            lines
                .iter()
                .filter(|line| role(&line.role))
                .map(|line| line.amount)
                .sum()
        };
        plan.issued.push(Issued {
            entry_id: entry_id.clone(),
            key: movement.key.clone(),
            kind: movement.kind,
            contract: movement.contract.clone(),
            line_type: movement.line_type.clone(),
            date: movement.date,
            period,
            concerns,
            amount: movement.amount,
            tax: movement.tax,
            functional: recognised(&lines),
            position: -of(|role| matches!(role, Role::ContractLiability | Role::ContractAsset)),
            receivable: of(|role| matches!(role, Role::AccountsReceivable)),
            cause: cause.clone(),
        });
        plan.entries.push(JournalEntry {
            entry_id,
            tenant: self.tenant.clone(),
            deal: self.deal.clone(),
            contract: movement.contract.clone(),
            obligation: movement.key.obligation.clone(),
            kind: movement.kind,
            date: movement.date,
            period,
            concerns,
            currency: self.wanted.currency,
            functional_currency: self.cx.functional(self.wanted.currency),
            lines: lines.into_iter().map(|line| self.line(line, movement.date)).collect(),
            cause,
            provenance,
            reverses: movement.reverses.as_ref().map(|(entry, _)| entry.clone()),
            customer_id: self.wanted.customer.as_ref().map(|it| it.customer_id.clone()),
            customer_name: self.wanted.customer.as_ref().and_then(|it| it.name.clone()),
        });
    }

    fn line(&self, posting: Posting, day: Date) -> EntryLine {
        let name = posting.role.name();
        let mapped = match (&posting.role, &self.wanted.customer) {
            (Role::AccountsReceivable, Some(it)) => self.cx.customer_account(&it.customer_id, day),
            (
                Role::AccountsReceivable
                | Role::Cash
                | Role::ContractLiability
                | Role::ContractAsset
                | Role::Revenue(_)
                | Role::TaxPayable
                | Role::FxGainLoss
                | Role::RefundLiability,
                _,
            ) => None,
        };
        let account = mapped.or_else(|| self.cx.role_account(&name, day)).unwrap_or(&name);
        let side = |amount: Decimal| (amount.max(Decimal::ZERO), (-amount).max(Decimal::ZERO));
        let (debit, credit) = side(posting.amount);
        let (functional_debit, functional_credit) = side(posting.functional);
        EntryLine {
            account: account.to_owned(),
            role: posting.role,
            debit,
            credit,
            functional_debit,
            functional_credit,
        }
    }

    /// The facts a movement rests on; the last one is its cause.
    fn provenance(&self, movement: &Movement) -> Vec<EventId> {
        match &movement.behind {
            Behind::Facts(facts) => facts.clone(),
            Behind::Flow(at) => {
                let last = movement.key.date;
                let first = self.calendar().first_day(self.calendar().of(last));
                self.wanted.obligations[*at].provenance(first, last)
            }
        }
    }

    /// Derived from content alone, so that a replay repeats it.
    fn entry_id(&self, movement: &Movement, cause: &EventId) -> EntryId {
        let mut content = Content::new();
        content.text(self.tenant.as_str());
        content.text(self.deal.as_str());
        content.text(movement.contract.as_str());
        content.text(movement.key.obligation.as_ref().map_or("", |id| id.as_str()));
        content.text(movement.kind.as_str());
        content.text(movement.key.what.as_str());
        content.text(&movement.key.date.to_string());
        content.text(cause.as_str());
        content.text(&movement.sequence.to_string());
        // One event may take back what several facts booked on one day: each is an entry of its own.
        if let Some(fact) = movement.key.fact.as_ref().filter(|fact| *fact != cause) {
            content.text(fact.as_str());
        }
        let mut id = String::with_capacity(27);
        id.push_str("je_");
        for byte in &content.finish()[..12] {
            for half in [byte >> 4, byte & 15] {
                id.push(char::from_digit(half.into(), 16).unwrap_or('0'));
            }
        }
        EntryId::trusted(id)
    }
}

impl Movement {
    /// By day; but revenue that is taken back comes first, so that a credit memo finds it on the position.
    fn rank(&self) -> (bool, Date, What, &Key) {
        let taken_back =
            self.sequence > 0 && self.amount < Decimal::ZERO && matches!(self.key.what, What::Recognition | What::Lump);
        (!taken_back, self.date, self.key.what, &self.key)
    }
}

/// Revenue in functional currency among the lines.
fn recognised(lines: &[Posting]) -> Decimal {
    let revenue = lines.iter().filter(|line| matches!(line.role, Role::Revenue(_)));
    -revenue.map(|line| line.functional).sum::<Decimal>()
}

/// What was issued under a key.
struct Before<'a> {
    amount: Decimal,
    tax: Decimal,
    count: usize,
    first: &'a Issued,
}

fn differences(books: &Books) -> Vec<Movement> {
    let mut targets = targets(books.wanted, books.calendar());
    let mut issued: BTreeMap<&Key, Before> = BTreeMap::new();
    for entry in books.issued {
        let before = issued.entry(&entry.key).or_insert(Before {
            amount: Decimal::ZERO,
            tax: Decimal::ZERO,
            count: 0,
            first: entry,
        });
        before.amount += entry.amount;
        before.tax += entry.tax;
        before.count += 1;
        if !matches!(entry.key.what, What::Application | What::Remeasurement) {
            targets.entry(entry.key.clone()).or_insert_with(|| Target {
                contract: entry.contract.clone(),
                line_type: entry.line_type.clone(),
                amount: Decimal::ZERO,
                tax: Decimal::ZERO,
                firm: true,
                behind: Behind::Facts(
                    books
                        .wanted
                        .history
                        .last()
                        .map(|(event, _)| event.clone())
                        .into_iter()
                        .collect(),
                ),
            });
        }
    }
    targets
        .into_iter()
        .filter_map(|(key, target)| {
            let before = issued.get(&key);
            let amount = target.amount - before.map_or(Decimal::ZERO, |it| it.amount);
            let tax = target.tax - before.map_or(Decimal::ZERO, |it| it.tax);
            let sequence = before.map_or(0, |it| it.count);
            if amount.is_zero() && tax.is_zero() {
                return None;
            }
            let kind = kind_of(&key, amount, target.amount, sequence);
            // A reversal is of the only entry there is, see `kind_of`.
            let reverses = before
                .filter(|_| kind == Kind::Reversal)
                .map(|it| (it.first.entry_id.clone(), it.first.functional));
            Some(Movement {
                date: books.posting_date(&key),
                kind,
                contract: target.contract,
                line_type: target.line_type,
                amount,
                tax,
                firm: target.firm,
                behind: target.behind,
                reverses,
                sequence,
                key,
            })
        })
        .collect()
}

fn kind_of(key: &Key, difference: Decimal, wanted: Decimal, issued: usize) -> Kind {
    match (key.what, issued, wanted.is_zero()) {
        (What::Invoice, _, _) if difference < Decimal::ZERO => Kind::CreditMemo,
        (What::Invoice, _, _) => Kind::Invoice,
        (What::CreditMemo, 0, _) => Kind::CreditMemo,
        (What::Recognition, 0, _) if difference > Decimal::ZERO => Kind::Recognition,
        (What::Payment, 0, _) => Kind::Payment,
        (What::Lump | What::Recognition, 0, _) => Kind::Adjustment,
        (What::Lump | What::Recognition | What::CreditMemo | What::Payment, 1, true) => Kind::Reversal,
        (What::Lump | What::Recognition | What::CreditMemo | What::Payment, _, _) => Kind::Adjustment,
        (What::Application, _, _) => Kind::Payment,
        (What::Remeasurement, _, _) => Kind::FxRemeasurement,
    }
}

impl Books<'_> {
    /// The day a movement is posted on: its own, or in the first open period.
    fn posting_date(&self, key: &Key) -> Date {
        let calendar = self.calendar();
        let natural = calendar.of(key.date);
        let mut period = natural;
        while self.locked.contains(&period) {
            period = calendar.next(period);
        }
        match (period == natural, key.what) {
            (true, _) => key.date,
            (false, What::Recognition) => calendar.last_day(period),
            (
                false,
                What::Invoice | What::Application | What::Payment | What::Lump | What::CreditMemo | What::Remeasurement,
            ) => calendar.first_day(period),
        }
    }
}

/// Receivables in a foreign currency are valued at the end of each period that is over or being closed.
fn remeasurements(books: &Books, ledger: &Ledger, fx: Exchange, movements: &[Movement]) -> Vec<Movement> {
    if !fx.is_foreign() {
        return Vec::new();
    }
    let calendar = books.calendar();
    let first = match ledger.remeasured {
        Some(day) => Some(add_days(day, 1)),
        None => movements.iter().map(|movement| movement.date).min(),
    };
    let over = books.cx.reference.clock().map(|clock| add_days(clock, -1));
    let closing = books.closing.iter().map(|period| calendar.last_day(*period)).max();
    let (Some(first), Some(last)) = (first, over.max(closing)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut period = calendar.of(first);
    while calendar.last_day(period) <= last {
        let day = calendar.last_day(period);
        let key = Key {
            date: day,
            what: What::Remeasurement,
            obligation: None,
            fact: None,
        };
        let cause = books.wanted.history.first().map(|(event, _)| event.clone());
        if let (false, Some(cause)) = (books.locked.contains(&period), cause) {
            found.push(Movement {
                key,
                kind: Kind::FxRemeasurement,
                contract: books.wanted.contracts[0].clone(),
                line_type: None,
                amount: Decimal::ZERO,
                tax: Decimal::ZERO,
                date: day,
                firm: true,
                behind: Behind::Facts(vec![cause]),
                reverses: None,
                sequence: 0,
            });
        }
        period = calendar.next(period);
    }
    found
}
