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

use std::collections::BTreeSet;

use jiff::civil::Date;
use rust_decimal::Decimal;

use self::entry::At;
pub use self::entry::{EntryLine, Issued, JournalEntry, Key, Kind, What};
use self::target::{Behind, Target, targets};
use super::content::Content;
use super::derive::{Standing, Wanted};
use super::ids::{ContractId, DealId, EntryId, EventId, LineType, ObligationId, TenantId};
use super::ledger::{Exchange, Ledger, Posting, Role};
use super::period::{FiscalCalendar, Period, add_days};
use super::policy::RecognitionPosting;
use super::reference::{Context, RATE_HOLDS_DAYS, RateNeeded};

/// A movement to post.
#[derive(Clone)]
struct Movement<'a> {
    at: At<'a>,
    kind: Kind,
    contract: &'a ContractId,
    line_type: Option<&'a LineType>,
    amount: Decimal,
    tax: Decimal,
    /// The day it is posted on.
    date: Date,
    /// False when it waits for an event rather than for a day.
    firm: bool,
    behind: Behind<'a>,
    reverses: Option<(&'a EntryId, Decimal)>,
    /// Entries issued under the key before.
    sequence: usize,
}

/// A movement that is not due yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub obligation: Option<ObligationId>,
    pub amount: Decimal,
    /// What it is expected to earn in functional currency, where a rate is known.
    pub functional: Option<Decimal>,
    /// The day it is posted on.
    pub date: Date,
    /// False when it waits for an event rather than for a day.
    pub firm: bool,
}

/// The result of planning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub entries: Vec<JournalEntry>,
    pub issued: Vec<Issued>,
    pub pending: Vec<Pending>,
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
    movements.extend(deposit_owed_back(books));
    movements.extend(remeasurements(books, ledger, fx, &movements));
    movements.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let (due, later): (Vec<&Movement>, Vec<&Movement>) = movements.iter().partition(|movement| books.is_due(movement));
    let mut waiting = Vec::new();
    for movement in due {
        if plan.waits_for.is_some() {
            waiting.push(movement);
            continue;
        }
        match books.post(movement, ledger, fx, &mut plan) {
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
    let pending = waiting
        .into_iter()
        .chain(later)
        .filter(|movement| movement.at.what != What::Remeasurement);
    plan.pending = pending
        .map(|movement| Pending {
            obligation: movement.at.obligation.cloned(),
            amount: movement.amount,
            functional: match fx.is_foreign() {
                true => books
                    .effect(movement, &mut ahead, estimate)
                    .ok()
                    .map(|lines| recognised(&lines)),
                false => Some(movement.amount),
            },
            date: movement.date,
            firm: movement.firm,
        })
        .collect();
    plan
}

impl Books<'_> {
    fn calendar(&self) -> FiscalCalendar {
        self.cx.tenant.fiscal
    }

    fn is_due(&self, movement: &Movement) -> bool {
        let closing = self.closing.contains(&self.calendar().of(movement.date));
        let passed = |day: Date| self.cx.reference.clock().is_some_and(|clock| clock > day);
        let recognition = movement.at.what == What::Recognition;
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
        let deposit = match movement.at.what {
            What::Invoice => after.apply_deposit(movement.at.date, fx)?,
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
            let applied = Movement {
                at: At {
                    what: What::Application,
                    ..movement.at
                },
                kind: Kind::Payment,
                amount: Decimal::ZERO,
                tax: Decimal::ZERO,
                ..movement.clone()
            };
            self.issue(&applied, deposit, plan);
        }
        Ok(())
    }

    fn effect(&self, movement: &Movement, ledger: &mut Ledger, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let (amount, tax, day) = (movement.amount, movement.tax, movement.at.date);
        match (movement.at.what, movement.line_type) {
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
                let exactly = movement.reverses.map(|(_, functional)| -functional);
                ledger.recognise(amount, line_type, day, exactly, fx)
            }
            (What::Remeasurement, _) => ledger.remeasure(day, fx),
            (What::Application, _) => ledger.owe_back(day, fx),
            (What::Lump | What::Recognition, None) => Ok(Vec::new()),
        }
    }

    fn issue(&self, movement: &Movement, lines: Vec<Posting>, plan: &mut Plan) {
        let calendar = self.calendar();
        let period = calendar.of(movement.date);
        let concerns = calendar.of(movement.at.date);
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
            key: movement.at.key(),
            kind: movement.kind,
            contract: movement.contract.clone(),
            line_type: movement.line_type.cloned(),
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
            obligation: movement.at.obligation.cloned(),
            kind: movement.kind,
            date: movement.date,
            period,
            concerns,
            currency: self.wanted.currency,
            functional_currency: self.cx.functional(self.wanted.currency),
            lines: lines.into_iter().map(|line| self.line(line, movement.date)).collect(),
            cause,
            provenance,
            reverses: movement.reverses.map(|(entry, _)| entry.clone()),
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
            Behind::Fact(fact) => vec![(*fact).clone()],
            Behind::Facts(facts) => facts.iter().map(|fact| (*fact).clone()).collect(),
            Behind::Flow(at) => {
                let last = movement.at.date;
                let first = self.calendar().first_day(self.calendar().of(last));
                self.wanted.obligations[*at].provenance(first, last)
            }
        }
    }

    /// Derived from content alone, so that a replay repeats it.
    fn entry_id(&self, movement: &Movement, cause: &EventId) -> EntryId {
        let mut content = Content::with_capacity(256);
        content.text(self.tenant.as_str());
        content.text(self.deal.as_str());
        content.text(movement.contract.as_str());
        content.text(movement.at.obligation.map_or("", |id| id.as_str()));
        content.text(movement.kind.as_str());
        content.text(movement.at.what.as_str());
        content.text(&movement.at.date.to_string());
        content.text(cause.as_str());
        content.text(&movement.sequence.to_string());
        // One event may take back what several facts booked on one day: each is an entry of its own.
        if let Some(fact) = movement.at.fact.filter(|fact| *fact != cause) {
            content.text(fact.as_str());
        }
        // The last invoice of a cancelled deal may meet the deposit of which the rest is owed back on the same day.
        if movement.at.what == What::Application && movement.at.fact.is_some() {
            content.text("owed back");
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

impl Movement<'_> {
    /// By day; but revenue that is taken back comes first, so that a credit memo finds it on the position, and a deposit is
    /// owed back after all that the day's invoices, payments and memos do to it.
    fn rank(&self) -> (bool, Date, What, At<'_>) {
        let taken_back =
            self.sequence > 0 && self.amount < Decimal::ZERO && matches!(self.at.what, What::Recognition | What::Lump);
        let what = match self.at.what {
            What::Application => What::Recognition,
            what @ (What::Invoice
            | What::Payment
            | What::Lump
            | What::CreditMemo
            | What::Recognition
            | What::Remeasurement) => what,
        };
        (!taken_back, self.date, what, self.at)
    }
}

/// Revenue in functional currency among the lines.
fn recognised(lines: &[Posting]) -> Decimal {
    let revenue = lines.iter().filter(|line| matches!(line.role, Role::Revenue(_)));
    -revenue.map(|line| line.functional).sum::<Decimal>()
}

/// What was issued under a key.
struct Before<'a> {
    at: At<'a>,
    amount: Decimal,
    tax: Decimal,
    count: usize,
    first: &'a Issued,
}

/// What was issued, sorted by key, one for each.
fn issued_before(issued: &[Issued]) -> Vec<Before<'_>> {
    let mut before: Vec<Before<'_>> = issued
        .iter()
        .map(|entry| Before {
            at: entry.key.at(),
            amount: entry.amount,
            tax: entry.tax,
            count: 1,
            first: entry,
        })
        .collect();
    join_by_key(
        &mut before,
        |it| it.at,
        |known, later| {
            known.amount += later.amount;
            known.tax += later.tax;
            known.count += later.count;
        },
    );
    before
}

/// Sorts by key, and joins what has the same key into the first of it.
pub(super) fn join_by_key<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K, join: impl Fn(&mut T, &T)) {
    items.sort_by_key(&key);
    items.dedup_by(|later, known| {
        let same = key(later) == key(known);
        if same {
            join(known, later);
        }
        same
    });
}

/// What is still to be posted, by key.
fn differences<'a>(books: &Books<'a>) -> Vec<Movement<'a>> {
    let targets = targets(books.wanted, books.calendar());
    let mut movements = Vec::with_capacity(targets.len());
    let mut issued = issued_before(books.issued).into_iter().peekable();
    for target in targets {
        while let Some(before) = issued.next_if(|before| before.at < target.at) {
            movements.extend(books.no_longer(&before));
        }
        let before = issued.next_if(|before| before.at == target.at);
        movements.extend(books.movement(target, before.as_ref()));
    }
    movements.extend(issued.filter_map(|before| books.no_longer(&before)));
    movements
}

fn kind_of(what: What, difference: Decimal, wanted: Decimal, issued: usize) -> Kind {
    match (what, issued, wanted.is_zero()) {
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

impl<'a> Books<'a> {
    /// What takes back all that was issued under a key that is no longer wanted.
    fn no_longer(&self, before: &Before<'a>) -> Option<Movement<'a>> {
        let because = self.wanted.history.last().map(|(event, _)| event);
        let nothing = Target {
            at: before.at,
            contract: &before.first.contract,
            line_type: before.first.line_type.as_ref(),
            amount: Decimal::ZERO,
            tax: Decimal::ZERO,
            firm: true,
            behind: Behind::Facts(because.into_iter().collect()),
        };
        match before.at.what {
            // They follow from other movements, and are wanted by none.
            What::Application | What::Remeasurement => None,
            What::Invoice | What::Payment | What::Lump | What::CreditMemo | What::Recognition => {
                self.movement(nothing, Some(before))
            }
        }
    }

    /// What is missing of a target; `None` when that is nothing.
    fn movement(&self, target: Target<'a>, before: Option<&Before<'a>>) -> Option<Movement<'a>> {
        let amount = target.amount - before.map_or(Decimal::ZERO, |it| it.amount);
        let tax = target.tax - before.map_or(Decimal::ZERO, |it| it.tax);
        let sequence = before.map_or(0, |it| it.count);
        if amount.is_zero() && tax.is_zero() {
            return None;
        }
        let kind = kind_of(target.at.what, amount, target.amount, sequence);
        // A reversal is of the only entry there is, see `kind_of`.
        let reverses = before
            .filter(|_| kind == Kind::Reversal)
            .map(|it| (&it.first.entry_id, it.first.functional));
        Some(Movement {
            date: self.posting_date(target.at),
            kind,
            contract: target.contract,
            line_type: target.line_type,
            amount,
            tax,
            firm: target.firm,
            behind: target.behind,
            reverses,
            sequence,
            at: target.at,
        })
    }

    /// The day a movement is posted on: its own, or in the first open period.
    fn posting_date(&self, key: At<'_>) -> Date {
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

/// What is left of deposits when the contract ends, whatever that is: only the ledger knows what invoices left of it.
fn deposit_owed_back<'a>(books: &Books<'a>) -> Option<Movement<'a>> {
    let Standing::Cancelled(since) = books.wanted.status else {
        return None;
    };
    let (cause, _) = books.wanted.history.last()?;
    let at = At {
        date: since,
        what: What::Application,
        obligation: None,
        fact: Some(cause),
    };
    let before = books.issued.iter().filter(|it| it.key.at() == at).count();
    (!books.wanted.payments.is_empty()).then(|| Movement {
        at,
        kind: Kind::Payment,
        contract: &books.wanted.contracts[0],
        line_type: None,
        amount: Decimal::ZERO,
        tax: Decimal::ZERO,
        date: books.posting_date(at),
        firm: true,
        behind: Behind::Fact(cause),
        reverses: None,
        sequence: before,
    })
}

/// Receivables in a foreign currency are valued at the end of each period that is over or being closed.
fn remeasurements<'a>(books: &Books<'a>, ledger: &Ledger, fx: Exchange, movements: &[Movement]) -> Vec<Movement<'a>> {
    if !fx.is_foreign() {
        return Vec::new();
    }
    let calendar = books.calendar();
    let first = match ledger.remeasured {
        Some(day) => Some(add_days(day, 1)),
        None => {
            let issued = books.issued.iter().map(|issued| issued.date);
            issued.chain(movements.iter().map(|movement| movement.date)).min()
        }
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
        let at = At {
            date: day,
            what: What::Remeasurement,
            obligation: None,
            fact: None,
        };
        let cause = books.wanted.history.first().map(|(event, _)| event);
        if let (false, Some(cause)) = (books.locked.contains(&period), cause) {
            found.push(Movement {
                at,
                kind: Kind::FxRemeasurement,
                contract: &books.wanted.contracts[0],
                line_type: None,
                amount: Decimal::ZERO,
                tax: Decimal::ZERO,
                date: day,
                firm: true,
                behind: Behind::Fact(cause),
                reverses: None,
                sequence: 0,
            });
        }
        period = calendar.next(period);
    }
    found
}
