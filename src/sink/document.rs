//! What is written to a ledger in one piece.
//!
//! Owns: [`Document`], in the terms of the books, with ledger accounts in place of roles.
//! Invariant: debits equal credits in both currencies; the key follows from the entries inside, so a replay repeats it.
//! Absent: any vendor's format; a destination's `plan` makes that.

use std::fmt;

use jiff::civil::Date;

use crate::revenue::ids::{CustomerId, DealId, EntryId, TenantId};
use crate::revenue::journal::EntryLine;
use crate::revenue::money::Currency;
use crate::revenue::period::Period;

/// The identity of one external write, and its idempotency key: the entry's id, or for a summary the hash of the ids of
/// its entries. ASCII, at most 64 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(String);

impl Key {
    /// `None` when the text is empty, longer than 64 characters, or not printable ASCII.
    pub fn parse(text: impl Into<String>) -> Option<Key> {
        let text = text.into();
        (!text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic())).then_some(Key(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The idempotency key of a round: the key itself, and another one for each later round. At most 85 characters.
    pub fn of_round(&self, round: u64) -> String {
        match round {
            0 => self.0.clone(),
            later => format!("{}~{later}", self.0),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a document is to the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Form {
    /// A manual journal entry.
    Journal,
    /// A customer's invoice.
    Invoice,
    /// A credit to a customer.
    CreditNote,
}

impl Form {
    pub const ALL: [Form; 3] = [Form::Journal, Form::Invoice, Form::CreditNote];

    pub fn as_str(self) -> &'static str {
        match self {
            Form::Journal => "journal",
            Form::Invoice => "invoice",
            Form::CreditNote => "credit_note",
        }
    }

    pub fn parse(text: &str) -> Option<Form> {
        Form::ALL.into_iter().find(|form| form.as_str() == text)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub key: Key,
    pub form: Form,
    pub tenant: TenantId,
    /// `None` for a summary of several deals.
    pub deal: Option<DealId>,
    pub customer: Option<Party>,
    /// The posting day.
    pub date: Date,
    pub period: Period,
    pub currency: Currency,
    pub functional_currency: Currency,
    /// The account of a line is the ledger's own, as `[sinks.NAME.accounts]` maps the role.
    pub lines: Vec<EntryLine>,
    /// The journal entries that this document carries, in order.
    pub entries: Vec<EntryId>,
    /// For people: what it is about. At most 200 characters.
    pub narration: String,
}

/// Who an invoice is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    pub id: CustomerId,
    /// Empty when the CRM gave none.
    pub name: String,
}
