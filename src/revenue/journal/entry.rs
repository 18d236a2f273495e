//! The journal entry, and what is remembered of one.
//!
//! Invariant: an entry balances in both currencies and is never changed. Deliberately absent: how it comes about.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::ids::{ContractId, CustomerId, DealId, EntryId, EventId, LineType, ObligationId, TenantId};
use super::super::ledger::Role;
use super::super::money::Currency;
use super::super::period::Period;

/// An immutable, balanced entry.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    pub entry_id: EntryId,
    pub tenant: TenantId,
    pub deal: DealId,
    pub contract: ContractId,
    pub obligation: Option<ObligationId>,
    pub kind: Kind,
    pub date: Date,
    pub period: Period,
    /// The period whose business it is; differs from `period` when that one was closed.
    pub concerns: Period,
    pub currency: Currency,
    pub functional_currency: Currency,
    pub lines: Vec<EntryLine>,
    /// The fact behind it.
    pub cause: EventId,
    /// All facts it rests on, the cause included.
    pub provenance: Vec<EventId>,
    /// The entry it reverses.
    pub reverses: Option<EntryId>,
    /// The deal's customer when the entry was issued, for those who write invoices from it.
    pub customer_id: Option<CustomerId>,
    pub customer_name: Option<String>,
}

/// All amounts are zero or more.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryLine {
    /// The mapped ledger account, or the role's name.
    pub account: String,
    pub role: Role,
    pub debit: Decimal,
    pub credit: Decimal,
    pub functional_debit: Decimal,
    pub functional_credit: Decimal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Invoice,
    Payment,
    Adjustment,
    CreditMemo,
    Reversal,
    Recognition,
    FxRemeasurement,
}

impl Kind {
    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::Invoice => "invoice",
            Kind::Payment => "payment",
            Kind::Adjustment => "adjustment",
            Kind::CreditMemo => "credit_memo",
            Kind::Reversal => "reversal",
            Kind::Recognition => "recognition",
            Kind::FxRemeasurement => "fx_remeasurement",
        }
    }
}

/// What a movement is about. The order is the order of posting within a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Invoice,
    /// A deposit meets an invoice; with a fact, the one by which the contract ended, what is left of it is owed back.
    Application,
    Payment,
    /// Revenue booked on one day outside the flow of a period.
    Lump,
    CreditMemo,
    /// An obligation's revenue of one period.
    Recognition,
    Remeasurement,
}

impl What {
    /// The word in an entry's id.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            What::Invoice => "Invoice",
            What::Application => "Application",
            What::Payment => "Payment",
            What::Lump => "Lump",
            What::CreditMemo => "CreditMemo",
            What::Recognition => "Recognition",
            What::Remeasurement => "Remeasurement",
        }
    }
}

/// The identity of a movement. `date` is its natural day, whatever period is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub date: Date,
    pub what: What,
    pub obligation: Option<ObligationId>,
    /// The fact, where a movement exists once per fact.
    pub fact: Option<EventId>,
}

/// A [`Key`] of something that is kept elsewhere; they are ordered alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At<'a> {
    pub(super) date: Date,
    pub(super) what: What,
    pub(super) obligation: Option<&'a ObligationId>,
    pub(super) fact: Option<&'a EventId>,
}

impl Key {
    pub(super) fn at(&self) -> At<'_> {
        At {
            date: self.date,
            what: self.what,
            obligation: self.obligation.as_ref(),
            fact: self.fact.as_ref(),
        }
    }
}

impl At<'_> {
    pub(super) fn key(&self) -> Key {
        Key {
            date: self.date,
            what: self.what,
            obligation: self.obligation.cloned(),
            fact: self.fact.cloned(),
        }
    }
}

/// What is remembered of an issued entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    pub entry_id: EntryId,
    pub key: Key,
    pub kind: Kind,
    pub contract: ContractId,
    pub line_type: Option<LineType>,
    pub date: Date,
    pub period: Period,
    pub concerns: Period,
    /// Invoiced or credited net, recognised, or paid.
    pub amount: Decimal,
    pub tax: Decimal,
    /// Recognised, in functional currency; zero for other movements.
    pub functional: Decimal,
    /// Change of the position: above zero more liability or less asset.
    pub position: Decimal,
    pub receivable: Decimal,
    pub cause: EventId,
}
