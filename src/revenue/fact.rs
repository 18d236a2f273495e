//! Facts: everything that decides, as it was said by its source.
//!
//! A fact is immutable and says what happened, never what to book. Invariant: a fact that passed [`Fact::validate`]
//! has amounts, quantities, rates and dates inside bounds under which no later arithmetic can overflow.
//! Deliberately absent: JSON and Avro (codec), defaults that depend on policy, and anything derived.
//!
//! Units: amounts are in units of the named currency (120000 is USD 120,000.00), percents are 0 to 100, rates are
//! units of `quote` for one unit of `base`. Days are days in the tenant's time zone.

use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;

use super::ids::{CustomerId, DealId, EstimateId, EventId, InvoiceId, LineId, LineType, MilestoneId, TenantId};
use super::money::Currency;
use super::period::Period;
use super::policy::Treatment;

/// One fact with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub event_id: EventId,
    /// Who said it: `salesforce`, `billing`. Any text.
    pub source: String,
    /// When it happened. Orders a deal's own facts; ties are broken by `event_id`.
    pub occurred_at: Timestamp,
    pub tenant: TenantId,
    pub body: Body,
}

/// What a fact says, one variant per type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    DealClosed(Deal),
    DealAmended(Deal),
    DealRenewed(Deal),
    DealCancelled(Cancellation),
    MilestoneAccepted(MilestoneAccepted),
    DeliveryRecorded(Delivery),
    ProgressMeasured(Progress),
    UsageReported(Usage),
    CreditGranted(Credit),
    ConsiderationEstimated(Estimate),
    PaymentReceived(Payment),
    FxRate(FxRate),
    AccountMapped(AccountMapped),
    PeriodClosed(Period),
    PeriodReopened(Period),
    /// All days before this one have ended.
    ClockTicked(Date),
}

impl Body {
    /// The type's name on the wire, as in the canonical event.
    pub fn type_name(&self) -> &'static str {
        match self {
            Body::DealClosed(_) => "deal.closed",
            Body::DealAmended(_) => "deal.amended",
            Body::DealRenewed(_) => "deal.renewed",
            Body::DealCancelled(_) => "deal.cancelled",
            Body::MilestoneAccepted(_) => "milestone.accepted",
            Body::DeliveryRecorded(_) => "delivery.recorded",
            Body::ProgressMeasured(_) => "progress.measured",
            Body::UsageReported(_) => "usage.reported",
            Body::CreditGranted(_) => "credit.granted",
            Body::ConsiderationEstimated(_) => "consideration.estimated",
            Body::PaymentReceived(_) => "payment.received",
            Body::FxRate(_) => "fx.rate",
            Body::AccountMapped(_) => "account.mapped",
            Body::PeriodClosed(_) => "period.closed",
            Body::PeriodReopened(_) => "period.reopened",
            Body::ClockTicked(_) => "clock.ticked",
        }
    }

    /// The terms that a fact states, if it states a deal.
    pub fn terms(&self) -> Option<&Deal> {
        match self {
            Body::DealClosed(deal) | Body::DealAmended(deal) | Body::DealRenewed(deal) => Some(deal),
            Body::DealCancelled(_)
            | Body::MilestoneAccepted(_)
            | Body::DeliveryRecorded(_)
            | Body::ProgressMeasured(_)
            | Body::UsageReported(_)
            | Body::CreditGranted(_)
            | Body::ConsiderationEstimated(_)
            | Body::PaymentReceived(_)
            | Body::FxRate(_)
            | Body::AccountMapped(_)
            | Body::PeriodClosed(_)
            | Body::PeriodReopened(_)
            | Body::ClockTicked(_) => None,
        }
    }

    /// The deal a fact belongs to; `None` for reference facts, which concern every deal of the tenant.
    pub fn deal_id(&self) -> Option<&DealId> {
        match self {
            Body::DealClosed(deal) | Body::DealAmended(deal) | Body::DealRenewed(deal) => Some(&deal.deal_id),
            Body::DealCancelled(it) => Some(&it.deal_id),
            Body::MilestoneAccepted(it) => Some(&it.deal_id),
            Body::DeliveryRecorded(it) => Some(&it.deal_id),
            Body::ProgressMeasured(it) => Some(&it.deal_id),
            Body::UsageReported(it) => Some(&it.deal_id),
            Body::CreditGranted(it) => Some(&it.deal_id),
            Body::ConsiderationEstimated(it) => Some(&it.deal_id),
            Body::PaymentReceived(it) => Some(&it.deal_id),
            Body::FxRate(_)
            | Body::AccountMapped(_)
            | Body::PeriodClosed(_)
            | Body::PeriodReopened(_)
            | Body::ClockTicked(_) => None,
        }
    }
}

/// The deal as sold (`closed`), as it now stands from `effective_date` on (`amended`), or its following term (`renewed`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    pub deal_id: DealId,
    /// The whole price, before tax unless the tax says it is inclusive.
    pub amount: Decimal,
    pub currency: Currency,
    pub term_months: Option<u32>,
    pub billing_cycle: Option<BillingCycle>,
    pub contract_start: Option<Date>,
    /// The last day of service; without it, `term_months` after the start, less a day.
    pub contract_end: Option<Date>,
    /// The first day on which the new state holds; without it, the day of `occurred_at`.
    pub effective_date: Option<Date>,
    pub customer: Option<Customer>,
    /// Empty: the deal is one subscription line for the whole amount.
    pub lines: Vec<Line>,
    pub recognition: RecognitionTerms,
    pub renewal: Option<Renewal>,
    pub tax: Option<Tax>,
    /// `amendment.treatment`; a given treatment wins over the policy.
    pub treatment: Option<Treatment>,
    /// Stated invoices in place of a cycle, those of the past included; they sum to `amount`. Empty: by `billing_cycle`.
    pub instalments: Vec<Instalment>,
}

/// One stated invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instalment {
    pub date: Date,
    /// Its share of the deal's amount, before tax unless the tax is inclusive.
    pub amount: Decimal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BillingCycle {
    Monthly,
    Quarterly,
    Annual,
    Upfront,
    /// Invoiced when a milestone is accepted.
    Milestone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub customer_id: CustomerId,
    pub name: Option<String>,
    /// The customer's name in the accounting system, for those who deliver there. A ledger account for its receivables
    /// is mapped by [`AccountMapped`].
    pub accounting_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: LineId,
    pub line_type: LineType,
    pub name: Option<String>,
    /// The line's share of the deal's amount.
    pub amount: Decimal,
    pub quantity: Option<Decimal>,
    pub unit_price: Option<Decimal>,
    /// Standalone selling price of the whole line; of one unit where it is nearer to `unit_price` than to `amount`.
    pub ssp: Option<Decimal>,
    /// Lowest and highest observed standalone selling price: the residual approach (ASC 606-10-32-34(c)).
    pub ssp_range: Option<SspRange>,
    pub discount: Option<Decimal>,
    pub start: Option<Date>,
    pub end: Option<Date>,
    pub method: Option<Method>,
    pub milestones: Vec<Milestone>,
    /// Whether the goods are distinct from those already delivered (ASC 606-10-25-19). Absent: distinct.
    pub distinct: Option<bool>,
    pub recurring: Option<bool>,
    /// Lines of one bundle are regularly sold together; a discount of the bundle is theirs (ASC 606-10-32-37).
    pub bundle: Option<String>,
}

impl Line {
    /// A price reduction written as a line: no promise of its own, it lowers the price of the others.
    pub fn is_discount(&self) -> bool {
        self.line_type.as_str() == "discount"
    }

    /// An activity that hands nothing to the customer by itself (ASC 606-10-25-17).
    pub fn is_setup(&self) -> bool {
        matches!(self.line_type.as_str(), "setup" | "setup_fee")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SspRange {
    pub low: Decimal,
    pub high: Decimal,
}

/// How an obligation's progress is measured (ASC 606-10-25-31 to 25-37).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    StraightLine,
    /// At the line's start day, or on delivery where deliveries are recorded.
    PointInTime,
    /// Units delivered over `quantity`.
    Units,
    Milestone,
    Progress,
    Usage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Milestone {
    pub id: MilestoneId,
    pub share: MilestoneShare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MilestoneShare {
    Amount(Decimal),
    /// 0 to 100.
    Percent(Decimal),
}

/// `revenue_recognition` of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecognitionTerms {
    /// The method of lines that name none; `linear` is [`Method::StraightLine`].
    pub method: Option<Method>,
    pub defer_setup: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub window_days: Option<u32>,
    pub auto: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tax {
    pub basis: TaxBasis,
    /// True when the deal's amounts already contain the tax.
    pub inclusive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaxBasis {
    /// A fraction: 0.2 is twenty percent.
    Rate(Decimal),
    /// The tax of the whole deal.
    Amount(Decimal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    pub deal_id: DealId,
    /// The first day without service; without it, the day of `occurred_at`.
    pub effective_date: Option<Date>,
    pub refund: Refund,
    pub reason: Option<String>,
}

/// What the customer gets back of what was billed and not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refund {
    #[default]
    Unused,
    None,
    /// At most what was billed.
    Amount(Decimal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MilestoneAccepted {
    pub deal_id: DealId,
    pub line_id: LineId,
    pub milestone_id: MilestoneId,
    pub date: Date,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub deal_id: DealId,
    pub line_id: LineId,
    /// Units delivered on the day; negative for a return.
    pub quantity: Decimal,
    pub date: Date,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub deal_id: DealId,
    pub line_id: LineId,
    pub date: Date,
    pub measure: ProgressMeasure,
    /// Decimals of the ratio, rounded half-up; exact without it.
    pub precision: Option<u32>,
}

/// Progress since the obligation began, not since the last measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMeasure {
    /// 0 to 100.
    Percent(Decimal),
    /// `materials`: the part of both costs that is of uninstalled materials, which earn their own cost when they are
    /// handed over and say nothing of the work (ASC 606-10-55-21).
    Cost {
        to_date: Decimal,
        expected: Decimal,
        materials: Option<Materials>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Materials {
    /// Cost of what was handed over so far.
    pub to_date: Decimal,
    /// Cost of all of them.
    pub expected: Decimal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub deal_id: DealId,
    pub line_id: LineId,
    pub date: Date,
    pub quantity: Decimal,
    /// Absent: quantity times the line's unit price.
    pub amount: Option<Decimal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    pub deal_id: DealId,
    /// Absent: the credit is spread over all lines by their price.
    pub line_id: Option<LineId>,
    pub amount: Decimal,
    pub reason: Option<String>,
    pub date: Date,
}

/// What an uncertain part of the price is expected to be: a bonus, a penalty, a rebate, a concession (ASC 606-10-32-5 to
/// 32-14, IFRS 15.50-59). A later one of the same line and `estimate_id` takes its place from its `date` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub deal_id: DealId,
    /// Which uncertainty, unique within the deal and line.
    pub estimate_id: EstimateId,
    /// The line to which it wholly relates (ASC 606-10-32-40). Absent: all lines, as at inception (32-43).
    pub line_id: Option<LineId>,
    /// The first day on which it holds.
    pub date: Date,
    pub consideration: Consideration,
    pub reason: Option<String>,
}

/// Amounts are without tax; below zero they lower the price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consideration {
    /// Estimated by its outcomes. `included`: what the constraint leaves in the price (32-11); absent: all of it.
    Outcomes {
        method: EstimateMethod,
        outcomes: Vec<Outcome>,
        included: Option<Decimal>,
    },
    /// Estimated elsewhere, by a method that is named.
    Amount {
        method: EstimateMethod,
        amount: Decimal,
        included: Option<Decimal>,
    },
    /// No longer uncertain: this much is owed, to the customer where it is below zero.
    Resolved(Decimal),
}

/// ASC 606-10-32-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EstimateMethod {
    ExpectedValue,
    MostLikelyAmount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub amount: Decimal,
    /// In percent; all outcomes of an estimate sum to 100.
    pub probability: Decimal,
}

impl Consideration {
    /// The amount estimated, before the constraint, not rounded; the first of several most likely outcomes.
    pub fn estimated(&self) -> Decimal {
        match self {
            Consideration::Outcomes { method, outcomes, .. } => match method {
                EstimateMethod::ExpectedValue => {
                    let weighted = outcomes
                        .iter()
                        .map(|it| it.amount * (it.probability / Decimal::ONE_HUNDRED));
                    weighted.sum()
                }
                EstimateMethod::MostLikelyAmount => {
                    let likelier = |best: Outcome, it: &Outcome| match it.probability > best.probability {
                        true => *it,
                        false => best,
                    };
                    let first = outcomes.first().copied();
                    first.map_or(Decimal::ZERO, |first| outcomes.iter().fold(first, likelier).amount)
                }
            },
            Consideration::Amount { amount, .. } | Consideration::Resolved(amount) => *amount,
        }
    }

    /// What joins the transaction price.
    pub fn included(&self, currency: Currency) -> Decimal {
        match self {
            Consideration::Outcomes { included, .. } | Consideration::Amount { included, .. } => {
                included.unwrap_or_else(|| currency.round(self.estimated()))
            }
            Consideration::Resolved(amount) => *amount,
        }
    }

    /// `None` once it is resolved.
    pub fn method(&self) -> Option<EstimateMethod> {
        match self {
            Consideration::Outcomes { method, .. } | Consideration::Amount { method, .. } => Some(*method),
            Consideration::Resolved(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub deal_id: DealId,
    pub amount: Decimal,
    pub currency: Currency,
    pub date: Date,
    /// For people: a payment settles the deal's one receivable, whichever invoice it names.
    pub invoice_id: Option<InvoiceId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FxRate {
    pub base: Currency,
    pub quote: Currency,
    pub date: Date,
    /// Units of `quote` for one unit of `base`.
    pub rate: Decimal,
    /// 1 or absent is the first publication; a correction has a higher version.
    pub version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountMapped {
    pub subject: MappedSubject,
    /// The ledger account.
    pub accounting_id: String,
    /// The first day on which the mapping holds.
    pub from: Date,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MappedSubject {
    /// The customer's receivable account.
    Customer(CustomerId),
    /// A role such as `revenue.subscription`.
    Role(String),
}
