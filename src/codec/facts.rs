//! Facts on `deal.canonical` (the deal facts, public) and `contract.facts` (all of them).
//!
//! Invariant: a fact decodes to what was encoded, `occurred_at` to the microsecond. Each type's payload is a nullable
//! field of its own rather than a branch of one union: so a new type is a new field, which readers of every version
//! can skip, and the public topic can stay FULL_TRANSITIVE. Deliberately absent: validation (`Fact::validate`).

use std::borrow::Cow;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::names::Named;
use super::schemas::{Product, Schemas};
use super::wire::{Amount, Day, Fixed, Instant, Rate};
use super::{DecodeError, Refused};
use crate::revenue::fact::{
    AccountMapped, Body, Cancellation, Credit, Customer, Deal, Delivery, Fact, FxRate, Line, MappedSubject, Milestone,
    MilestoneAccepted, MilestoneShare, Payment, Progress, ProgressMeasure, RecognitionTerms, Refund, Renewal, SspRange,
    Tax, TaxBasis, Usage,
};
use crate::revenue::ids::{CustomerId, DealId, EventId, InvoiceId, LineId, LineType, MilestoneId, TenantId};
use crate::revenue::money::Currency;
use crate::revenue::period::Period;

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

type Text<'a> = Cow<'a, str>;

/// These structs are named after the records of the schema, which the Avro library insists on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Fact")]
pub(super) struct FactWire<'a> {
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
}

/// `FactWire` without the facts that belong to no deal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "DealEvent")]
struct DealEventWire<'a> {
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
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Deal")]
pub(super) struct DealWire<'a> {
    amount: Amount,
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
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Customer")]
struct CustomerWire<'a> {
    customer_id: Text<'a>,
    name: Option<Text<'a>>,
    accounting_id: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "LineItem")]
struct LineWire<'a> {
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
#[serde(rename = "Milestone")]
struct MilestoneWire<'a> {
    id: Text<'a>,
    amount: Option<Amount>,
    percent: Option<Rate>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Renewal")]
struct RenewalWire {
    window_days: Option<i32>,
    auto: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Tax")]
struct TaxWire {
    rate: Option<Rate>,
    amount: Option<Amount>,
    inclusive: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Cancellation")]
struct CancellationWire<'a> {
    effective_date: Option<Day>,
    refund: Text<'a>,
    refund_amount: Option<Amount>,
    reason: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "MilestoneAccepted")]
struct AcceptedWire<'a> {
    line_item_id: Text<'a>,
    milestone_id: Text<'a>,
    date: Day,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Delivery")]
struct DeliveryWire<'a> {
    line_item_id: Text<'a>,
    quantity: Rate,
    date: Day,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Progress")]
struct ProgressWire<'a> {
    line_item_id: Text<'a>,
    date: Day,
    percent: Option<Rate>,
    cost_to_date: Option<Amount>,
    cost_expected: Option<Amount>,
    precision: Option<i32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Usage")]
struct UsageWire<'a> {
    line_item_id: Text<'a>,
    date: Day,
    quantity: Rate,
    amount: Option<Amount>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Credit")]
struct CreditWire<'a> {
    line_item_id: Option<Text<'a>>,
    amount: Amount,
    reason: Option<Text<'a>>,
    date: Day,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Payment")]
struct PaymentWire<'a> {
    amount: Amount,
    currency: Text<'a>,
    date: Day,
    invoice_id: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "FxRate")]
struct RateWire<'a> {
    base: Text<'a>,
    quote: Text<'a>,
    date: Day,
    rate: Rate,
    version: i32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "AccountMapped")]
struct AccountWire<'a> {
    customer_id: Option<Text<'a>>,
    role: Option<Text<'a>>,
    accounting_id: Text<'a>,
    from: Day,
}

// Out: from the domain to the wire.

impl<'a> From<&'a Fact> for FactWire<'a> {
    fn from(fact: &'a Fact) -> FactWire<'a> {
        let mut wire = FactWire {
            event_id: fact.event_id.as_str().into(),
            source: fact.source.as_str().into(),
            kind: fact.body.type_name().into(),
            occurred_at: Instant(fact.occurred_at),
            tenant_id: fact.tenant.as_str().into(),
            deal_id: fact.body.deal_id().map(|deal| deal.as_str().into()),
            deal: None,
            cancellation: None,
            milestone: None,
            delivery: None,
            progress: None,
            usage: None,
            credit: None,
            payment: None,
            rate: None,
            account: None,
            period: None,
            clock: None,
        };
        match &fact.body {
            Body::DealClosed(deal) | Body::DealAmended(deal) | Body::DealRenewed(deal) => {
                wire.deal = Some(DealWire::from(deal));
            }
            Body::DealCancelled(it) => wire.cancellation = Some(CancellationWire::from(it)),
            Body::MilestoneAccepted(it) => {
                wire.milestone = Some(AcceptedWire {
                    line_item_id: it.line_id.as_str().into(),
                    milestone_id: it.milestone_id.as_str().into(),
                    date: Day(it.date),
                });
            }
            Body::DeliveryRecorded(it) => {
                wire.delivery = Some(DeliveryWire {
                    line_item_id: it.line_id.as_str().into(),
                    quantity: Fixed(it.quantity),
                    date: Day(it.date),
                });
            }
            Body::ProgressMeasured(it) => wire.progress = Some(ProgressWire::from(it)),
            Body::UsageReported(it) => {
                wire.usage = Some(UsageWire {
                    line_item_id: it.line_id.as_str().into(),
                    date: Day(it.date),
                    quantity: Fixed(it.quantity),
                    amount: it.amount.map(Fixed),
                });
            }
            Body::CreditGranted(it) => {
                wire.credit = Some(CreditWire {
                    line_item_id: it.line_id.as_ref().map(|line| line.as_str().into()),
                    amount: Fixed(it.amount),
                    reason: it.reason.as_deref().map(Into::into),
                    date: Day(it.date),
                });
            }
            Body::PaymentReceived(it) => {
                wire.payment = Some(PaymentWire {
                    amount: Fixed(it.amount),
                    currency: it.currency.code().into(),
                    date: Day(it.date),
                    invoice_id: it.invoice_id.as_ref().map(|invoice| invoice.as_str().into()),
                });
            }
            Body::FxRate(it) => {
                wire.rate = Some(RateWire {
                    base: it.base.code().into(),
                    quote: it.quote.code().into(),
                    date: Day(it.date),
                    rate: Fixed(it.rate),
                    version: i32::try_from(it.version).unwrap_or(i32::MAX),
                });
            }
            Body::AccountMapped(it) => {
                let (customer_id, role) = match &it.subject {
                    MappedSubject::Customer(customer) => (Some(customer.as_str().into()), None),
                    MappedSubject::Role(role) => (None, Some(role.as_str().into())),
                };
                let accounting_id = it.accounting_id.as_str().into();
                wire.account = Some(AccountWire {
                    customer_id,
                    role,
                    accounting_id,
                    from: Day(it.from),
                });
            }
            Body::PeriodClosed(period) | Body::PeriodReopened(period) => wire.period = Some(period.to_string()),
            Body::ClockTicked(date) => wire.clock = Some(Day(*date)),
        }
        wire
    }
}

impl<'a> TryFrom<FactWire<'a>> for DealEventWire<'a> {
    type Error = Refused;

    fn try_from(fact: FactWire<'a>) -> Result<DealEventWire<'a>, Refused> {
        let FactWire {
            event_id,
            source,
            kind,
            occurred_at,
            tenant_id,
            deal_id,
            ..
        } = fact;
        let deal_id = deal_id.ok_or_else(|| {
            Refused::new(
                "unencodable",
                format!("{kind} belongs to no deal, so it is no event of deal.canonical"),
            )
        })?;
        let FactWire {
            deal,
            cancellation,
            milestone,
            delivery,
            progress,
            usage,
            credit,
            payment,
            ..
        } = fact;
        Ok(DealEventWire {
            event_id,
            source,
            kind,
            occurred_at,
            tenant_id,
            deal_id,
            deal,
            cancellation,
            milestone,
            delivery,
            progress,
            usage,
            credit,
            payment,
        })
    }
}

impl<'a> From<DealEventWire<'a>> for FactWire<'a> {
    fn from(event: DealEventWire<'a>) -> FactWire<'a> {
        let DealEventWire {
            event_id,
            source,
            kind,
            occurred_at,
            tenant_id,
            deal_id,
            ..
        } = event;
        let DealEventWire {
            deal,
            cancellation,
            milestone,
            delivery,
            progress,
            usage,
            credit,
            payment,
            ..
        } = event;
        FactWire {
            event_id,
            source,
            kind,
            occurred_at,
            tenant_id,
            deal_id: Some(deal_id),
            deal,
            cancellation,
            milestone,
            delivery,
            progress,
            usage,
            credit,
            payment,
            rate: None,
            account: None,
            period: None,
            clock: None,
        }
    }
}

impl<'a> From<&'a Deal> for DealWire<'a> {
    fn from(deal: &'a Deal) -> DealWire<'a> {
        DealWire {
            amount: Fixed(deal.amount),
            currency: deal.currency.code().into(),
            term_months: deal.term_months.map(|months| i32::try_from(months).unwrap_or(i32::MAX)),
            billing_cycle: deal.billing_cycle.map(|cycle| cycle.name().into()),
            contract_start: deal.contract_start.map(Day),
            contract_end: deal.contract_end.map(Day),
            effective_date: deal.effective_date.map(Day),
            customer: deal.customer.as_ref().map(|customer| CustomerWire {
                customer_id: customer.customer_id.as_str().into(),
                name: customer.name.as_deref().map(Into::into),
                accounting_id: customer.accounting_id.as_deref().map(Into::into),
            }),
            line_items: deal.lines.iter().map(LineWire::from).collect(),
            method: deal.recognition.method.map(|method| method.name().into()),
            defer_setup: deal.recognition.defer_setup,
            renewal: deal.renewal.map(|renewal| RenewalWire {
                window_days: renewal.window_days.map(|days| i32::try_from(days).unwrap_or(i32::MAX)),
                auto: renewal.auto,
            }),
            tax: deal.tax.map(|tax| {
                let (rate, amount) = match tax.basis {
                    TaxBasis::Rate(rate) => (Some(Fixed(rate)), None),
                    TaxBasis::Amount(amount) => (None, Some(Fixed(amount))),
                };
                TaxWire {
                    rate,
                    amount,
                    inclusive: tax.inclusive,
                }
            }),
            treatment: deal.treatment.map(|treatment| treatment.name().into()),
        }
    }
}

impl<'a> From<&'a Line> for LineWire<'a> {
    fn from(line: &'a Line) -> LineWire<'a> {
        LineWire {
            id: line.id.as_str().into(),
            line_type: line.line_type.as_str().into(),
            name: line.name.as_deref().map(Into::into),
            amount: Fixed(line.amount),
            quantity: line.quantity.map(Fixed),
            unit_price: line.unit_price.map(Fixed),
            ssp: line.ssp.map(Fixed),
            ssp_low: line.ssp_range.map(|range| Fixed(range.low)),
            ssp_high: line.ssp_range.map(|range| Fixed(range.high)),
            discount: line.discount.map(Fixed),
            start: line.start.map(Day),
            end: line.end.map(Day),
            method: line.method.map(|method| method.name().into()),
            milestones: line.milestones.iter().map(MilestoneWire::from).collect(),
            distinct: line.distinct,
            recurring: line.recurring,
            bundle: line.bundle.as_deref().map(Into::into),
        }
    }
}

impl<'a> From<&'a Milestone> for MilestoneWire<'a> {
    fn from(milestone: &'a Milestone) -> MilestoneWire<'a> {
        let (amount, percent) = match milestone.share {
            MilestoneShare::Amount(amount) => (Some(Fixed(amount)), None),
            MilestoneShare::Percent(percent) => (None, Some(Fixed(percent))),
        };
        MilestoneWire {
            id: milestone.id.as_str().into(),
            amount,
            percent,
        }
    }
}

impl<'a> From<&'a Cancellation> for CancellationWire<'a> {
    fn from(it: &'a Cancellation) -> CancellationWire<'a> {
        let (refund, refund_amount) = match it.refund {
            Refund::Unused => ("unused", None),
            Refund::None => ("none", None),
            Refund::Amount(amount) => ("amount", Some(Fixed(amount))),
        };
        CancellationWire {
            effective_date: it.effective_date.map(Day),
            refund: refund.into(),
            refund_amount,
            reason: it.reason.as_deref().map(Into::into),
        }
    }
}

impl<'a> From<&'a Progress> for ProgressWire<'a> {
    fn from(it: &'a Progress) -> ProgressWire<'a> {
        let (percent, cost_to_date, cost_expected) = match it.measure {
            ProgressMeasure::Percent(percent) => (Some(Fixed(percent)), None, None),
            ProgressMeasure::Cost { to_date, expected } => (None, Some(Fixed(to_date)), Some(Fixed(expected))),
        };
        ProgressWire {
            line_item_id: it.line_id.as_str().into(),
            date: Day(it.date),
            percent,
            cost_to_date,
            cost_expected,
            precision: it.precision.map(|digits| i32::try_from(digits).unwrap_or(i32::MAX)),
        }
    }
}

// In: from the wire to the domain. Another program may have written the record, so nothing is taken on trust.

impl TryFrom<FactWire<'_>> for Fact {
    type Error = Refused;

    fn try_from(wire: FactWire<'_>) -> Result<Fact, Refused> {
        Ok(Fact {
            event_id: id("event_id", &wire.event_id, EventId::parse)?,
            source: wire.source.to_string(),
            occurred_at: wire.occurred_at.0,
            tenant: id("tenant_id", &wire.tenant_id, TenantId::parse)?,
            body: body(&wire)?,
        })
    }
}

fn body(wire: &FactWire<'_>) -> Result<Body, Refused> {
    let deal_id = || id("deal_id", wire.deal_id.as_deref().unwrap_or_default(), DealId::parse);
    let deal = || deal(deal_id()?, given(wire, "deal", wire.deal.as_ref())?);
    let period = || {
        let label = given(wire, "period", wire.period.as_deref())?;
        Period::parse(label).ok_or_else(|| bad("period", label))
    };
    Ok(match wire.kind.as_ref() {
        "deal.closed" => Body::DealClosed(deal()?),
        "deal.amended" => Body::DealAmended(deal()?),
        "deal.renewed" => Body::DealRenewed(deal()?),
        "deal.cancelled" => {
            let it = given(wire, "cancellation", wire.cancellation.as_ref())?;
            Body::DealCancelled(Cancellation {
                deal_id: deal_id()?,
                effective_date: it.effective_date.map(|day| day.0),
                refund: match (it.refund.as_ref(), it.refund_amount) {
                    ("unused", None) => Refund::Unused,
                    ("none", None) => Refund::None,
                    ("amount", Some(amount)) => Refund::Amount(amount.0),
                    (refund, _) => return Err(bad("cancellation.refund", refund)),
                },
                reason: owned(&it.reason),
            })
        }
        "milestone.accepted" => {
            let it = given(wire, "milestone", wire.milestone.as_ref())?;
            Body::MilestoneAccepted(MilestoneAccepted {
                deal_id: deal_id()?,
                line_id: id("milestone.line_item_id", &it.line_item_id, LineId::parse)?,
                milestone_id: id("milestone.milestone_id", &it.milestone_id, MilestoneId::parse)?,
                date: it.date.0,
            })
        }
        "delivery.recorded" => {
            let it = given(wire, "delivery", wire.delivery.as_ref())?;
            Body::DeliveryRecorded(Delivery {
                deal_id: deal_id()?,
                line_id: id("delivery.line_item_id", &it.line_item_id, LineId::parse)?,
                quantity: it.quantity.0,
                date: it.date.0,
            })
        }
        "progress.measured" => {
            let it = given(wire, "progress", wire.progress.as_ref())?;
            Body::ProgressMeasured(Progress {
                deal_id: deal_id()?,
                line_id: id("progress.line_item_id", &it.line_item_id, LineId::parse)?,
                date: it.date.0,
                measure: match (it.percent, it.cost_to_date, it.cost_expected) {
                    (Some(percent), None, None) => ProgressMeasure::Percent(percent.0),
                    (None, Some(to_date), Some(expected)) => ProgressMeasure::Cost {
                        to_date: to_date.0,
                        expected: expected.0,
                    },
                    _ => return Err(bad("progress", "neither one percent nor two costs")),
                },
                precision: it
                    .precision
                    .map(|digits| count("progress.precision", digits))
                    .transpose()?,
            })
        }
        "usage.reported" => {
            let it = given(wire, "usage", wire.usage.as_ref())?;
            Body::UsageReported(Usage {
                deal_id: deal_id()?,
                line_id: id("usage.line_item_id", &it.line_item_id, LineId::parse)?,
                date: it.date.0,
                quantity: it.quantity.0,
                amount: number(it.amount),
            })
        }
        "credit.granted" => {
            let it = given(wire, "credit", wire.credit.as_ref())?;
            Body::CreditGranted(Credit {
                deal_id: deal_id()?,
                line_id: maybe_id("credit.line_item_id", &it.line_item_id, LineId::parse)?,
                amount: it.amount.0,
                reason: owned(&it.reason),
                date: it.date.0,
            })
        }
        "payment.received" => {
            let it = given(wire, "payment", wire.payment.as_ref())?;
            Body::PaymentReceived(Payment {
                deal_id: deal_id()?,
                amount: it.amount.0,
                currency: currency("payment.currency", &it.currency)?,
                date: it.date.0,
                invoice_id: maybe_id("payment.invoice_id", &it.invoice_id, InvoiceId::parse)?,
            })
        }
        "fx.rate" => {
            let it = given(wire, "rate", wire.rate.as_ref())?;
            Body::FxRate(FxRate {
                base: currency("rate.base", &it.base)?,
                quote: currency("rate.quote", &it.quote)?,
                date: it.date.0,
                rate: it.rate.0,
                version: count("rate.version", it.version)?,
            })
        }
        "account.mapped" => {
            let it = given(wire, "account", wire.account.as_ref())?;
            let subject = match (&it.customer_id, &it.role) {
                (Some(customer), None) => {
                    MappedSubject::Customer(id("account.customer_id", customer, CustomerId::parse)?)
                }
                (None, Some(role)) => MappedSubject::Role(role.to_string()),
                (Some(_), Some(_)) | (None, None) => return Err(bad("account", "not one of customer_id and role")),
            };
            Body::AccountMapped(AccountMapped {
                subject,
                accounting_id: it.accounting_id.to_string(),
                from: it.from.0,
            })
        }
        "period.closed" => Body::PeriodClosed(period()?),
        "period.reopened" => Body::PeriodReopened(period()?),
        "clock.ticked" => Body::ClockTicked(given(wire, "clock", wire.clock)?.0),
        other => {
            let message = format!("type {other:?} is not known to this version; upgrade accrue before reading it");
            return Err(Refused::new("bad_event", message));
        }
    })
}

pub(super) fn deal(deal_id: DealId, wire: &DealWire<'_>) -> Result<Deal, Refused> {
    Ok(Deal {
        deal_id,
        amount: wire.amount.0,
        currency: currency("deal.currency", &wire.currency)?,
        term_months: wire
            .term_months
            .map(|months| count("deal.term_months", months))
            .transpose()?,
        billing_cycle: named("deal.billing_cycle", &wire.billing_cycle)?,
        contract_start: wire.contract_start.map(|day| day.0),
        contract_end: wire.contract_end.map(|day| day.0),
        effective_date: wire.effective_date.map(|day| day.0),
        customer: match &wire.customer {
            Some(customer) => Some(Customer {
                customer_id: id("deal.customer.customer_id", &customer.customer_id, CustomerId::parse)?,
                name: owned(&customer.name),
                accounting_id: owned(&customer.accounting_id),
            }),
            None => None,
        },
        lines: wire.line_items.iter().map(line).collect::<Result<_, _>>()?,
        recognition: RecognitionTerms {
            method: named("deal.method", &wire.method)?,
            defer_setup: wire.defer_setup,
        },
        renewal: match &wire.renewal {
            Some(renewal) => Some(Renewal {
                window_days: renewal
                    .window_days
                    .map(|days| count("deal.renewal.window_days", days))
                    .transpose()?,
                auto: renewal.auto,
            }),
            None => None,
        },
        tax: match &wire.tax {
            Some(TaxWire {
                rate: Some(rate),
                amount: None,
                inclusive,
            }) => Some(Tax {
                basis: TaxBasis::Rate(rate.0),
                inclusive: *inclusive,
            }),
            Some(TaxWire {
                rate: None,
                amount: Some(amount),
                inclusive,
            }) => Some(Tax {
                basis: TaxBasis::Amount(amount.0),
                inclusive: *inclusive,
            }),
            Some(TaxWire { .. }) => return Err(bad("deal.tax", "not one of rate and amount")),
            None => None,
        },
        treatment: named("deal.treatment", &wire.treatment)?,
    })
}

fn line(wire: &LineWire<'_>) -> Result<Line, Refused> {
    Ok(Line {
        id: id("deal.line_items.id", &wire.id, LineId::parse)?,
        line_type: id("deal.line_items.type", &wire.line_type, LineType::parse)?,
        name: owned(&wire.name),
        amount: wire.amount.0,
        quantity: number(wire.quantity),
        unit_price: number(wire.unit_price),
        ssp: number(wire.ssp),
        ssp_range: match (wire.ssp_low, wire.ssp_high) {
            (Some(low), Some(high)) => Some(SspRange {
                low: low.0,
                high: high.0,
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(bad("deal.line_items.ssp_low", "given without its other end"));
            }
        },
        discount: number(wire.discount),
        start: wire.start.map(|day| day.0),
        end: wire.end.map(|day| day.0),
        method: named("deal.line_items.method", &wire.method)?,
        milestones: wire.milestones.iter().map(milestone).collect::<Result<_, _>>()?,
        distinct: wire.distinct,
        recurring: wire.recurring,
        bundle: owned(&wire.bundle),
    })
}

fn milestone(wire: &MilestoneWire<'_>) -> Result<Milestone, Refused> {
    let share = match (wire.amount, wire.percent) {
        (Some(amount), None) => MilestoneShare::Amount(amount.0),
        (None, Some(percent)) => MilestoneShare::Percent(percent.0),
        (Some(_), Some(_)) | (None, None) => {
            return Err(bad("deal.line_items.milestones", "not one of amount and percent"));
        }
    };
    Ok(Milestone {
        id: id("deal.line_items.milestones.id", &wire.id, MilestoneId::parse)?,
        share,
    })
}

fn given<T>(wire: &FactWire<'_>, field: &str, payload: Option<T>) -> Result<T, Refused> {
    payload.ok_or_else(|| {
        Refused::new(
            "bad_event",
            format!("{field} is missing, though the type is {}", wire.kind),
        )
    })
}

fn bad(field: &str, value: &str) -> Refused {
    Refused::new(
        "bad_event",
        format!("{field}: {value:?} cannot be read by this version"),
    )
}

pub(super) fn id<T>(field: &str, text: &str, parse: impl Fn(String) -> Option<T>) -> Result<T, Refused> {
    parse(text.to_string()).ok_or_else(|| bad(field, text))
}

fn maybe_id<T>(
    field: &str,
    text: &Option<Text<'_>>,
    parse: impl Fn(String) -> Option<T>,
) -> Result<Option<T>, Refused> {
    text.as_deref().map(|text| id(field, text, parse)).transpose()
}

pub(super) fn currency(field: &str, code: &str) -> Result<Currency, Refused> {
    Currency::parse(code).ok_or_else(|| bad(field, code))
}

pub(super) fn named<T: Named>(field: &str, name: &Option<Text<'_>>) -> Result<Option<T>, Refused> {
    name.as_deref()
        .map(|name| T::of_name(name).ok_or_else(|| bad(field, name)))
        .transpose()
}

fn count(field: &str, number: i32) -> Result<u32, Refused> {
    u32::try_from(number).map_err(|_| bad(field, &number.to_string()))
}

fn owned(text: &Option<Text<'_>>) -> Option<String> {
    text.as_deref().map(str::to_string)
}

fn number<const SCALE: u32>(number: Option<Fixed<SCALE>>) -> Option<Decimal> {
    number.map(|number| number.0)
}
