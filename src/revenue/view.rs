//! A deal's books for readers: schedule rows, billing rows, contracts and balances as plain data.
//!
//! Invariant: everything here is derived; nothing of it is stored. Deliberately absent: formatting.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::fact::Method;
use super::ids::{ContractId, DealId, EventId, LineId, ObligationId, TenantId};
use super::money::Currency;
use super::period::Period;

/// Recognition of one obligation in one period.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleRow {
    pub tenant: TenantId,
    pub deal: DealId,
    pub contract: ContractId,
    pub obligation: ObligationId,
    pub line_id: LineId,
    pub period: Period,
    pub amount: Decimal,
    pub currency: Currency,
    /// `None` while no rate is known. An estimate where the row is not posted.
    pub functional_amount: Option<Decimal>,
    pub functional_currency: Currency,
    pub version: u32,
    /// Counts every change of the plan, by terms or by performance: the rows of the highest revision are the plan.
    pub revision: u32,
    /// True when all of it is issued.
    pub posted: bool,
}

impl ScheduleRow {
    /// Functional units per unit, where a rate is known and the amount is not zero.
    pub fn rate(&self) -> Option<Decimal> {
        match self.functional_amount? {
            same if same == self.amount && !same.is_zero() => Some(Decimal::ONE),
            functional => functional.checked_div(self.amount),
        }
    }
}

/// One planned invoice; below zero a credit memo.
#[derive(Clone, Debug, PartialEq)]
pub struct BillingRow {
    pub tenant: TenantId,
    pub deal: DealId,
    pub date: Date,
    /// Without tax.
    pub amount: Decimal,
    pub tax: Decimal,
    pub currency: Currency,
    /// False while the date is only expected, such as a milestone's.
    pub firm: bool,
    /// As in [`ScheduleRow`].
    pub revision: u32,
}

/// A deal's contracts as they stand.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub tenant: TenantId,
    pub deal: DealId,
    pub status: Status,
    pub version: u32,
    /// `None` while the deal is a draft.
    pub currency: Option<Currency>,
    pub contracts: Vec<ContractView>,
    pub balances: Option<Balances>,
    pub recurring: Vec<Recurring>,
    /// Event id and first day of each change of terms.
    pub history: Vec<(EventId, Date)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ContractView {
    pub contract: ContractId,
    pub transaction_price: Decimal,
    pub obligations: Vec<ObligationView>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ObligationView {
    pub obligation: ObligationId,
    pub line_id: LineId,
    pub method: Method,
    pub start: Date,
    pub end: Date,
    pub allocated: Decimal,
}

/// Recurring revenue of an obligation at one price, from the first day to the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurring {
    pub obligation: ObligationId,
    pub from: Date,
    pub to: Date,
    /// For twelve months, in the deal's currency.
    pub annual: Decimal,
}

/// Balances of the entries dated before the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Balances {
    pub currency: Currency,
    pub contract_liability: Decimal,
    pub contract_asset: Decimal,
    pub receivable: Decimal,
    pub recognised: Decimal,
    /// Transaction price less recognised.
    pub remaining: Decimal,
}

/// ```text
/// draft --closed--> active --all earned and over--> completed
///                     `-----cancelled-----> cancelled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Draft,
    Active,
    Completed,
    Cancelled,
}

impl Status {
    pub fn as_str(&self) -> &'static str {
        match self {
            Status::Draft => "draft",
            Status::Active => "active",
            Status::Completed => "completed",
            Status::Cancelled => "cancelled",
        }
    }
}
