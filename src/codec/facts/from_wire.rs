//! Facts from the wire to the domain. Another program may have written the record, so nothing is taken on trust: every
//! refusal names the field.

use rust_decimal::Decimal;

use super::super::Refused;
use super::super::names::Named;
use super::super::wire::{Fixed, Text};
use super::{DealWire, EstimateWire, FactWire, LineWire, MilestoneWire, TaxWire};
use crate::revenue::fact::{
    AccountMapped, Body, Cancellation, Consideration, Credit, Customer, Deal, Delivery, Estimate, EstimateMethod, Fact,
    FxRate, Instalment, Line, MappedSubject, Materials, Milestone, MilestoneAccepted, MilestoneShare, Outcome, Payment,
    Progress, ProgressMeasure, RecognitionTerms, Refund, Renewal, SspRange, Tax, TaxBasis, Usage,
};
use crate::revenue::ids::{
    CustomerId, DealId, EstimateId, EventId, InvoiceId, LineId, LineType, MilestoneId, TenantId,
};
use crate::revenue::money::Currency;
use crate::revenue::period::Period;

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
    Ok(match &*wire.kind {
        "deal.closed" => Body::DealClosed(deal()?),
        "deal.amended" => Body::DealAmended(deal()?),
        "deal.renewed" => Body::DealRenewed(deal()?),
        "deal.cancelled" => {
            let it = given(wire, "cancellation", wire.cancellation.as_ref())?;
            Body::DealCancelled(Cancellation {
                deal_id: deal_id()?,
                effective_date: it.effective_date.map(|day| day.0),
                refund: match (&*it.refund, it.refund_amount) {
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
                        materials: match (it.materials_to_date, it.materials_expected) {
                            (Some(to_date), Some(expected)) => Some(Materials {
                                to_date: to_date.0,
                                expected: expected.0,
                            }),
                            (None, None) => None,
                            (Some(_), None) | (None, Some(_)) => {
                                return Err(bad("progress.materials_to_date", "given without its other half"));
                            }
                        },
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
        "consideration.estimated" => {
            let it = given(wire, "estimate", wire.estimate.as_ref())?;
            Body::ConsiderationEstimated(Estimate {
                deal_id: deal_id()?,
                estimate_id: id("estimate.estimate_id", &it.estimate_id, EstimateId::parse)?,
                line_id: maybe_id("estimate.line_item_id", &it.line_item_id, LineId::parse)?,
                date: it.date.0,
                consideration: consideration(it)?,
                reason: owned(&it.reason),
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

fn consideration(it: &EstimateWire<'_>) -> Result<Consideration, Refused> {
    let method = named::<EstimateMethod>("estimate.method", &it.method)?;
    let included = number(it.included);
    match (method, it.amount, it.resolved) {
        (None, Some(amount), true) if it.outcomes.is_empty() && included.is_none() => {
            Ok(Consideration::Resolved(amount.0))
        }
        (Some(method), Some(amount), false) if it.outcomes.is_empty() => Ok(Consideration::Amount {
            method,
            amount: amount.0,
            included,
        }),
        (Some(method), None, false) if !it.outcomes.is_empty() => Ok(Consideration::Outcomes {
            method,
            outcomes: it
                .outcomes
                .iter()
                .map(|it| Outcome {
                    amount: it.amount.0,
                    probability: it.probability.0,
                })
                .collect(),
            included,
        }),
        _ => Err(bad(
            "estimate",
            "neither outcomes nor an amount by a method, nor a final amount alone",
        )),
    }
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
        instalments: wire
            .instalments
            .iter()
            .map(|it| Instalment {
                date: it.date.0,
                amount: it.amount.0,
            })
            .collect(),
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

pub(super) fn id<'a, T>(field: &str, text: &'a str, parse: impl Fn(&'a str) -> Option<T>) -> Result<T, Refused> {
    parse(text).ok_or_else(|| bad(field, text))
}

fn maybe_id<'a, T>(
    field: &str,
    text: &'a Option<Text<'_>>,
    parse: impl Fn(&'a str) -> Option<T>,
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
