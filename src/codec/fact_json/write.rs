//! A fact as JSON.
//!
//! Invariant: `read` of what is written here gives the same fact. Deliberately absent: layout; the value prints as the
//! caller wishes.

use serde_json::{Value, json};

use super::fields::{CYCLES, ESTIMATE_METHODS, TREATMENTS, method_name, name_of};
use crate::revenue::fact::*;

/// Writes one event, with amounts as strings and absent fields left out.
pub fn write(fact: &Fact) -> Value {
    json!({
        "event_id": fact.event_id.as_str(),
        "source": fact.source,
        "type": fact.body.type_name(),
        "occurred_at": fact.occurred_at.to_string(),
        "tenant_id": fact.tenant.as_str(),
        "payload": payload(&fact.body),
    })
}

fn payload(body: &Body) -> Value {
    let fields = match body {
        Body::DealClosed(deal) | Body::DealAmended(deal) | Body::DealRenewed(deal) => {
            return write_deal(deal);
        }
        Body::DealCancelled(it) => vec![
            ("deal_id", some(&it.deal_id)),
            ("effective_date", text(it.effective_date)),
            (
                "refund",
                match it.refund {
                    Refund::Unused => some("unused"),
                    Refund::None => some("none"),
                    Refund::Amount(amount) => some(amount),
                },
            ),
            ("reason", text(it.reason.as_ref())),
        ],
        Body::MilestoneAccepted(it) => vec![
            ("deal_id", some(&it.deal_id)),
            ("line_item_id", some(&it.line_id)),
            ("milestone_id", some(&it.milestone_id)),
            ("date", some(it.date)),
        ],
        Body::DeliveryRecorded(it) => vec![
            ("deal_id", some(&it.deal_id)),
            ("line_item_id", some(&it.line_id)),
            ("quantity", some(it.quantity)),
            ("date", some(it.date)),
        ],
        Body::ProgressMeasured(it) => {
            let mut fields = vec![
                ("deal_id", some(&it.deal_id)),
                ("line_item_id", some(&it.line_id)),
                ("date", some(it.date)),
                ("precision", it.precision.map(Value::from)),
            ];
            match it.measure {
                ProgressMeasure::Percent(percent) => fields.push(("percent", some(percent))),
                ProgressMeasure::Cost {
                    to_date,
                    expected,
                    materials,
                } => fields.extend([
                    ("cost_to_date", some(to_date)),
                    ("cost_expected", some(expected)),
                    ("materials_to_date", text(materials.map(|it| it.to_date))),
                    ("materials_expected", text(materials.map(|it| it.expected))),
                ]),
            }
            fields
        }
        Body::UsageReported(it) => vec![
            ("deal_id", some(&it.deal_id)),
            ("line_item_id", some(&it.line_id)),
            ("date", some(it.date)),
            ("quantity", some(it.quantity)),
            ("amount", text(it.amount)),
        ],
        Body::CreditGranted(it) => vec![
            ("deal_id", some(&it.deal_id)),
            ("line_item_id", text(it.line_id.as_ref())),
            ("amount", some(it.amount)),
            ("reason", text(it.reason.as_ref())),
            ("date", some(it.date)),
        ],
        Body::ConsiderationEstimated(it) => estimate(it),
        Body::PaymentReceived(it) => vec![
            ("deal_id", some(&it.deal_id)),
            ("amount", some(it.amount)),
            ("currency", some(it.currency)),
            ("date", some(it.date)),
            ("invoice_id", text(it.invoice_id.as_ref())),
        ],
        Body::FxRate(it) => vec![
            ("base", some(it.base)),
            ("quote", some(it.quote)),
            ("date", some(it.date)),
            ("rate", some(it.rate)),
            ("version", Some(Value::from(it.version))),
        ],
        Body::AccountMapped(it) => vec![
            match &it.subject {
                MappedSubject::Customer(customer) => ("customer_id", some(customer)),
                MappedSubject::Role(role) => ("role", some(role)),
            },
            ("accounting_id", some(&it.accounting_id)),
            ("from", some(it.from)),
        ],
        Body::PeriodClosed(period) | Body::PeriodReopened(period) => {
            vec![("period", some(period))]
        }
        Body::ClockTicked(day) => vec![("date", some(day))],
    };
    object(fields)
}

fn estimate(it: &Estimate) -> Vec<(&'static str, Option<Value>)> {
    let method = |method| Some(name_of(ESTIMATE_METHODS, method).into());
    let mut fields = vec![
        ("deal_id", some(&it.deal_id)),
        ("estimate_id", some(&it.estimate_id)),
        ("line_item_id", text(it.line_id.as_ref())),
        ("date", some(it.date)),
    ];
    match &it.consideration {
        Consideration::Outcomes {
            method: by,
            outcomes,
            included,
        } => {
            let outcome =
                |it: &Outcome| object(vec![("amount", some(it.amount)), ("probability", some(it.probability))]);
            let outcomes: Vec<Value> = outcomes.iter().map(outcome).collect();
            fields.extend([
                ("method", method(by)),
                ("outcomes", Some(outcomes.into())),
                ("included", text(*included)),
            ]);
        }
        Consideration::Amount {
            method: by,
            amount,
            included,
        } => fields.extend([
            ("method", method(by)),
            ("amount", some(amount)),
            ("included", text(*included)),
        ]),
        Consideration::Resolved(amount) => {
            fields.extend([("amount", some(amount)), ("final", Some(Value::from(true)))])
        }
    }
    fields.push(("reason", text(it.reason.as_ref())));
    fields
}

fn write_deal(deal: &Deal) -> Value {
    let recognition = object(vec![
        ("method", deal.recognition.method.map(|it| method_name(it).into())),
        ("defer_setup", deal.recognition.defer_setup.map(Value::from)),
    ]);
    let customer = deal.customer.as_ref().map(|it| {
        object(vec![
            ("customer_id", some(&it.customer_id)),
            ("name", text(it.name.as_ref())),
            ("accounting_id", text(it.accounting_id.as_ref())),
        ])
    });
    let renewal = deal.renewal.map(|it| {
        object(vec![
            ("window", it.window_days.map(Value::from)),
            ("auto", Some(Value::from(it.auto))),
        ])
    });
    let tax = deal.tax.map(|it| {
        let basis = match it.basis {
            TaxBasis::Rate(rate) => ("rate", some(rate)),
            TaxBasis::Amount(amount) => ("amount", some(amount)),
        };
        object(vec![basis, ("inclusive", Some(Value::from(it.inclusive)))])
    });
    let lines: Vec<Value> = deal.lines.iter().map(write_line).collect();
    let instalments: Vec<Value> = deal
        .instalments
        .iter()
        .map(|it| object(vec![("date", some(it.date)), ("amount", some(it.amount))]))
        .collect();
    object(vec![
        ("deal_id", some(&deal.deal_id)),
        ("amount", some(deal.amount)),
        ("currency", some(deal.currency)),
        ("term_months", deal.term_months.map(Value::from)),
        (
            "billing_cycle",
            deal.billing_cycle.map(|it| name_of(CYCLES, &it).into()),
        ),
        ("contract_start", text(deal.contract_start)),
        ("contract_end", text(deal.contract_end)),
        ("effective_date", text(deal.effective_date)),
        ("customer", customer),
        ("line_items", (!lines.is_empty()).then(|| lines.into())),
        ("revenue_recognition", Some(recognition)),
        ("renewal", renewal),
        ("tax", tax),
        (
            "amendment",
            deal.treatment
                .map(|it| json!({ "treatment": name_of(TREATMENTS, &it) })),
        ),
        ("instalments", (!instalments.is_empty()).then(|| instalments.into())),
    ])
}

fn write_line(line: &Line) -> Value {
    let milestones: Vec<Value> = line
        .milestones
        .iter()
        .map(|it| {
            let share = match it.share {
                MilestoneShare::Amount(amount) => ("amount", some(amount)),
                MilestoneShare::Percent(percent) => ("percent", some(percent)),
            };
            object(vec![("id", some(&it.id)), share])
        })
        .collect();
    let range = line
        .ssp_range
        .map(|it| object(vec![("low", some(it.low)), ("high", some(it.high))]));
    object(vec![
        ("id", some(&line.id)),
        ("type", some(&line.line_type)),
        ("name", text(line.name.as_ref())),
        ("amount", some(line.amount)),
        ("quantity", text(line.quantity)),
        ("unit_price", text(line.unit_price)),
        ("ssp", text(line.ssp)),
        ("ssp_range", range),
        ("discount", text(line.discount)),
        ("start", text(line.start)),
        ("end", text(line.end)),
        ("method", line.method.map(|it| method_name(it).into())),
        ("milestones", (!milestones.is_empty()).then(|| milestones.into())),
        ("distinct", line.distinct.map(Value::from)),
        ("recurring", line.recurring.map(Value::from)),
        ("bundle", text(line.bundle.as_ref())),
    ])
}

fn some(value: impl ToString) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

fn text(value: Option<impl ToString>) -> Option<Value> {
    value.and_then(some)
}

fn object(fields: Vec<(&str, Option<Value>)>) -> Value {
    let present = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect())
}
