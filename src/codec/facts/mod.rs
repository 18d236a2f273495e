//! Facts on `deal.canonical` (the deal facts, public) and `contract.facts` (all of them).
//!
//! Invariant: a fact decodes to what was encoded, `occurred_at` to the microsecond. Each type's payload is a nullable
//! field of its own rather than a branch of one union: so a new type is a new field, which readers of every version
//! can skip, and the public topic can stay FULL_TRANSITIVE. Deliberately absent: validation (`Fact::validate`).

mod from_wire;
mod to_wire;

use serde::{Deserialize, Serialize};

use super::schemas::{Product, Schemas};
use super::wire::{Amount, Day, Instant, Rate, Text};
use super::{DecodeError, Refused};
use crate::revenue::fact::Fact;

impl Schemas {
    /// The value of a record on `contract.facts`.
    ///
    /// # Errors
    /// A number with more digits than the schema has: the fact goes to the dead letters.
    pub fn encode_fact(&self, fact: &Fact) -> Result<Vec<u8>, Refused> {
        self.encode(Product::ContractFacts, &FactWire::from(fact))
    }

    /// The value of a record on `deal.canonical`.
    ///
    /// # Errors
    /// As `encode_fact`, and for a fact that belongs to no deal.
    pub fn encode_deal_event(&self, fact: &Fact) -> Result<Vec<u8>, Refused> {
        self.encode(Product::DealCanonical, &DealEventWire::try_from(FactWire::from(fact))?)
    }

    /// A fact from a record on `contract.facts`.
    pub fn decode_fact(&self, bytes: &[u8]) -> Result<Fact, DecodeError> {
        let wire: FactWire<'_> = self.decode(Product::ContractFacts, bytes)?;
        Ok(Fact::try_from(wire)?)
    }

    /// A fact from a record on `deal.canonical`.
    pub fn decode_deal_event(&self, bytes: &[u8]) -> Result<Fact, DecodeError> {
        let wire: DealEventWire<'_> = self.decode(Product::DealCanonical, bytes)?;
        Ok(Fact::try_from(FactWire::from(wire))?)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FactWire<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    source: Text<'a>,
    #[serde(rename = "type")]
    kind: Text<'a>,
    occurred_at: Instant,
    tenant_id: Text<'a>,
    deal_id: Option<Text<'a>>,
    #[serde(default)]
    deal: Option<DealWire<'a>>,
    #[serde(default)]
    cancellation: Option<CancellationWire<'a>>,
    #[serde(default)]
    milestone: Option<AcceptedWire<'a>>,
    #[serde(default)]
    delivery: Option<DeliveryWire<'a>>,
    #[serde(default)]
    progress: Option<ProgressWire<'a>>,
    #[serde(default)]
    usage: Option<UsageWire<'a>>,
    #[serde(default)]
    credit: Option<CreditWire<'a>>,
    #[serde(default)]
    payment: Option<PaymentWire<'a>>,
    #[serde(default)]
    rate: Option<RateWire<'a>>,
    #[serde(default)]
    account: Option<AccountWire<'a>>,
    #[serde(default)]
    period: Option<String>,
    #[serde(default)]
    clock: Option<Day>,
    #[serde(default)]
    estimate: Option<EstimateWire<'a>>,
}

/// `FactWire` without the facts that belong to no deal.
#[derive(Debug, Serialize, Deserialize)]
struct DealEventWire<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    source: Text<'a>,
    #[serde(rename = "type")]
    kind: Text<'a>,
    occurred_at: Instant,
    tenant_id: Text<'a>,
    deal_id: Text<'a>,
    deal: Option<DealWire<'a>>,
    cancellation: Option<CancellationWire<'a>>,
    milestone: Option<AcceptedWire<'a>>,
    delivery: Option<DeliveryWire<'a>>,
    progress: Option<ProgressWire<'a>>,
    usage: Option<UsageWire<'a>>,
    credit: Option<CreditWire<'a>>,
    payment: Option<PaymentWire<'a>>,
    #[serde(default)]
    estimate: Option<EstimateWire<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DealWire<'a> {
    amount: Amount,
    #[serde(borrow)]
    currency: Text<'a>,
    term_months: Option<i32>,
    billing_cycle: Option<Text<'a>>,
    contract_start: Option<Day>,
    contract_end: Option<Day>,
    effective_date: Option<Day>,
    customer: Option<CustomerWire<'a>>,
    line_items: Vec<LineWire<'a>>,
    method: Option<Text<'a>>,
    defer_setup: Option<bool>,
    renewal: Option<RenewalWire>,
    tax: Option<TaxWire>,
    treatment: Option<Text<'a>>,
    #[serde(default)]
    instalments: Vec<InstalmentWire>,
}

#[derive(Debug, Serialize, Deserialize)]
struct InstalmentWire {
    date: Day,
    amount: Amount,
}

#[derive(Debug, Serialize, Deserialize)]
struct CustomerWire<'a> {
    #[serde(borrow)]
    customer_id: Text<'a>,
    name: Option<Text<'a>>,
    accounting_id: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LineWire<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(rename = "type")]
    line_type: Text<'a>,
    name: Option<Text<'a>>,
    amount: Amount,
    quantity: Option<Rate>,
    unit_price: Option<Rate>,
    ssp: Option<Rate>,
    ssp_low: Option<Rate>,
    ssp_high: Option<Rate>,
    discount: Option<Amount>,
    start: Option<Day>,
    end: Option<Day>,
    method: Option<Text<'a>>,
    milestones: Vec<MilestoneWire<'a>>,
    distinct: Option<bool>,
    recurring: Option<bool>,
    bundle: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MilestoneWire<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    amount: Option<Amount>,
    percent: Option<Rate>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RenewalWire {
    window_days: Option<i32>,
    auto: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct TaxWire {
    rate: Option<Rate>,
    amount: Option<Amount>,
    inclusive: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct CancellationWire<'a> {
    effective_date: Option<Day>,
    #[serde(borrow)]
    refund: Text<'a>,
    refund_amount: Option<Amount>,
    reason: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AcceptedWire<'a> {
    #[serde(borrow)]
    line_item_id: Text<'a>,
    milestone_id: Text<'a>,
    date: Day,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeliveryWire<'a> {
    #[serde(borrow)]
    line_item_id: Text<'a>,
    quantity: Rate,
    date: Day,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProgressWire<'a> {
    #[serde(borrow)]
    line_item_id: Text<'a>,
    date: Day,
    percent: Option<Rate>,
    cost_to_date: Option<Amount>,
    cost_expected: Option<Amount>,
    precision: Option<i32>,
    #[serde(default)]
    materials_to_date: Option<Amount>,
    #[serde(default)]
    materials_expected: Option<Amount>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UsageWire<'a> {
    #[serde(borrow)]
    line_item_id: Text<'a>,
    date: Day,
    quantity: Rate,
    amount: Option<Amount>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CreditWire<'a> {
    #[serde(borrow)]
    line_item_id: Option<Text<'a>>,
    amount: Amount,
    reason: Option<Text<'a>>,
    date: Day,
}

#[derive(Debug, Serialize, Deserialize)]
struct PaymentWire<'a> {
    amount: Amount,
    #[serde(borrow)]
    currency: Text<'a>,
    date: Day,
    invoice_id: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RateWire<'a> {
    #[serde(borrow)]
    base: Text<'a>,
    quote: Text<'a>,
    date: Day,
    rate: Rate,
    version: i32,
}

#[derive(Debug, Serialize, Deserialize)]
struct AccountWire<'a> {
    #[serde(borrow)]
    customer_id: Option<Text<'a>>,
    role: Option<Text<'a>>,
    accounting_id: Text<'a>,
    from: Day,
}

#[derive(Debug, Serialize, Deserialize)]
struct EstimateWire<'a> {
    #[serde(borrow)]
    estimate_id: Text<'a>,
    line_item_id: Option<Text<'a>>,
    date: Day,
    method: Option<Text<'a>>,
    outcomes: Vec<OutcomeWire>,
    amount: Option<Amount>,
    included: Option<Amount>,
    resolved: bool,
    reason: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OutcomeWire {
    amount: Amount,
    probability: Rate,
}
