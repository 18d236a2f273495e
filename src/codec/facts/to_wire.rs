//! Facts from the domain to the wire. Every variant and field is named, so that none can be forgotten.

use super::super::Refused;
use super::super::names::Named;
use super::super::wire::{Day, Fixed, Instant};
use super::{
    AcceptedWire, AccountWire, CancellationWire, CreditWire, CustomerWire, DealEventWire, DealWire, DeliveryWire,
    EstimateWire, FactWire, InstalmentWire, LineWire, MilestoneWire, OutcomeWire, PaymentWire, ProgressWire, RateWire,
    RenewalWire, TaxWire, UsageWire,
};
use crate::revenue::fact::{
    Body, Cancellation, Consideration, Deal, Estimate, Fact, Line, MappedSubject, Milestone, MilestoneShare, Outcome,
    Progress, ProgressMeasure, Refund, TaxBasis,
};

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
            estimate: None,
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
            Body::ConsiderationEstimated(it) => wire.estimate = Some(EstimateWire::from(it)),
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
            estimate,
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
            estimate,
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
            estimate,
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
            estimate,
        }
    }
}

impl<'a> From<&'a Estimate> for EstimateWire<'a> {
    fn from(it: &'a Estimate) -> EstimateWire<'a> {
        let (outcomes, amount, included): (&[Outcome], _, _) = match &it.consideration {
            Consideration::Outcomes { outcomes, included, .. } => (outcomes, None, *included),
            Consideration::Amount { amount, included, .. } => (&[], Some(*amount), *included),
            Consideration::Resolved(amount) => (&[], Some(*amount), None),
        };
        let outcome = |it: &Outcome| OutcomeWire {
            amount: Fixed(it.amount),
            probability: Fixed(it.probability),
        };
        EstimateWire {
            estimate_id: it.estimate_id.as_str().into(),
            line_item_id: it.line_id.as_ref().map(|line| line.as_str().into()),
            date: Day(it.date),
            method: it.consideration.method().map(|method| method.name().into()),
            outcomes: outcomes.iter().map(outcome).collect(),
            amount: amount.map(Fixed),
            included: included.map(Fixed),
            resolved: matches!(it.consideration, Consideration::Resolved(_)),
            reason: it.reason.as_deref().map(Into::into),
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
            instalments: deal
                .instalments
                .iter()
                .map(|it| InstalmentWire {
                    date: Day(it.date),
                    amount: Fixed(it.amount),
                })
                .collect(),
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
        let (percent, cost_to_date, cost_expected, materials) = match it.measure {
            ProgressMeasure::Percent(percent) => (Some(Fixed(percent)), None, None, None),
            ProgressMeasure::Cost {
                to_date,
                expected,
                materials,
            } => (None, Some(Fixed(to_date)), Some(Fixed(expected)), materials),
        };
        ProgressWire {
            line_item_id: it.line_id.as_str().into(),
            date: Day(it.date),
            percent,
            cost_to_date,
            cost_expected,
            precision: it.precision.map(|digits| i32::try_from(digits).unwrap_or(i32::MAX)),
            materials_to_date: materials.map(|it| Fixed(it.to_date)),
            materials_expected: materials.map(|it| Fixed(it.expected)),
        }
    }
}
