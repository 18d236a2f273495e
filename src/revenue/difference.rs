//! Where two facts with one event id differ.
//!
//! Invariant: `None` exactly when the facts are equal. Deliberately absent: what to do about it.

use super::fact::{Body, Consideration, Fact, Line};

/// The path of the first field in which two facts differ; `None` when they say the same.
pub fn first_difference(known: &Fact, other: &Fact) -> Option<String> {
    let mut fields: Vec<(String, bool)> = vec![
        ("type".into(), known.body.type_name() == other.body.type_name()),
        ("tenant_id".into(), known.tenant == other.tenant),
        ("payload.deal_id".into(), known.body.deal_id() == other.body.deal_id()),
    ];
    let field = |name: &str, same: bool| (format!("payload.{name}"), same);
    match (&known.body, &other.body) {
        (Body::DealClosed(a), Body::DealClosed(b))
        | (Body::DealAmended(a), Body::DealAmended(b))
        | (Body::DealRenewed(a), Body::DealRenewed(b)) => {
            fields.extend([
                field("amount", a.amount == b.amount),
                field("currency", a.currency == b.currency),
                field("term_months", a.term_months == b.term_months),
                field("billing_cycle", a.billing_cycle == b.billing_cycle),
                field("contract_start", a.contract_start == b.contract_start),
                field("contract_end", a.contract_end == b.contract_end),
                field("effective_date", a.effective_date == b.effective_date),
                field("customer", a.customer == b.customer),
                (lines_field(&a.lines, &b.lines), a.lines == b.lines),
                field("revenue_recognition", a.recognition == b.recognition),
                field("renewal", a.renewal == b.renewal),
                field("tax", a.tax == b.tax),
                field("amendment.treatment", a.treatment == b.treatment),
                field("instalments", a.instalments == b.instalments),
            ]);
        }
        (Body::DealCancelled(a), Body::DealCancelled(b)) => fields.extend([
            field("effective_date", a.effective_date == b.effective_date),
            field("refund", a.refund == b.refund),
            field("reason", a.reason == b.reason),
        ]),
        (Body::MilestoneAccepted(a), Body::MilestoneAccepted(b)) => fields.extend([
            field("line_item_id", a.line_id == b.line_id),
            field("milestone_id", a.milestone_id == b.milestone_id),
            field("date", a.date == b.date),
        ]),
        (Body::DeliveryRecorded(a), Body::DeliveryRecorded(b)) => fields.extend([
            field("line_item_id", a.line_id == b.line_id),
            field("quantity", a.quantity == b.quantity),
            field("date", a.date == b.date),
        ]),
        (Body::ProgressMeasured(a), Body::ProgressMeasured(b)) => fields.extend([
            field("line_item_id", a.line_id == b.line_id),
            field("date", a.date == b.date),
            field("percent", a.measure == b.measure),
            field("precision", a.precision == b.precision),
        ]),
        (Body::UsageReported(a), Body::UsageReported(b)) => fields.extend([
            field("line_item_id", a.line_id == b.line_id),
            field("date", a.date == b.date),
            field("quantity", a.quantity == b.quantity),
            field("amount", a.amount == b.amount),
        ]),
        (Body::CreditGranted(a), Body::CreditGranted(b)) => fields.extend([
            field("line_item_id", a.line_id == b.line_id),
            field("amount", a.amount == b.amount),
            field("reason", a.reason == b.reason),
            field("date", a.date == b.date),
        ]),
        (Body::ConsiderationEstimated(a), Body::ConsiderationEstimated(b)) => fields.extend([
            field("estimate_id", a.estimate_id == b.estimate_id),
            field("line_item_id", a.line_id == b.line_id),
            field("date", a.date == b.date),
            (
                consideration_field(&a.consideration, &b.consideration).to_owned(),
                a.consideration == b.consideration,
            ),
            field("reason", a.reason == b.reason),
        ]),
        (Body::PaymentReceived(a), Body::PaymentReceived(b)) => fields.extend([
            field("amount", a.amount == b.amount),
            field("currency", a.currency == b.currency),
            field("date", a.date == b.date),
            field("invoice_id", a.invoice_id == b.invoice_id),
        ]),
        (Body::FxRate(a), Body::FxRate(b)) => fields.extend([
            field("base", a.base == b.base),
            field("quote", a.quote == b.quote),
            field("date", a.date == b.date),
            field("rate", a.rate == b.rate),
            field("version", a.version == b.version),
        ]),
        (Body::AccountMapped(a), Body::AccountMapped(b)) => fields.extend([
            field("customer_id", a.subject == b.subject),
            field("accounting_id", a.accounting_id == b.accounting_id),
            field("from", a.from == b.from),
        ]),
        (Body::PeriodClosed(a), Body::PeriodClosed(b)) | (Body::PeriodReopened(a), Body::PeriodReopened(b)) => {
            fields.push(field("period", a == b))
        }
        (Body::ClockTicked(a), Body::ClockTicked(b)) => fields.push(field("date", a == b)),
        // Different types: `type` differs above.
        (_, _) => {}
    }
    fields.push(("source".into(), known.source == other.source));
    fields.push(("occurred_at".into(), known.occurred_at == other.occurred_at));
    fields.into_iter().find(|(_, same)| !same).map(|(path, _)| path)
}

/// The path of a field in which two estimates differ.
fn consideration_field(known: &Consideration, other: &Consideration) -> &'static str {
    match (known, other) {
        (Consideration::Resolved(_), Consideration::Resolved(_)) => "payload.amount",
        (Consideration::Resolved(_), _) | (_, Consideration::Resolved(_)) => "payload.final",
        (_, _) if known.method() != other.method() => "payload.method",
        (Consideration::Outcomes { outcomes: a, .. }, Consideration::Outcomes { outcomes: b, .. }) if a != b => {
            "payload.outcomes"
        }
        (Consideration::Amount { amount: a, .. }, Consideration::Amount { amount: b, .. }) if a != b => {
            "payload.amount"
        }
        (Consideration::Outcomes { .. }, Consideration::Amount { .. })
        | (Consideration::Amount { .. }, Consideration::Outcomes { .. }) => "payload.outcomes",
        (Consideration::Outcomes { .. }, Consideration::Outcomes { .. })
        | (Consideration::Amount { .. }, Consideration::Amount { .. }) => "payload.included",
    }
}

/// The path of the first field in which two lists of lines differ; of the list where only their lengths do.
fn lines_field(known: &[Line], other: &[Line]) -> String {
    let mut pairs = known.iter().zip(other).enumerate();
    let differs = pairs.find_map(|(index, (a, b))| line_field(a, b).map(|field| (index, field)));
    match differs {
        Some((index, field)) => format!("payload.line_items[{index}].{field}"),
        None => "payload.line_items".to_owned(),
    }
}

fn line_field(a: &Line, b: &Line) -> Option<&'static str> {
    let fields = [
        ("id", a.id == b.id),
        ("type", a.line_type == b.line_type),
        ("name", a.name == b.name),
        ("amount", a.amount == b.amount),
        ("quantity", a.quantity == b.quantity),
        ("unit_price", a.unit_price == b.unit_price),
        ("ssp", a.ssp == b.ssp),
        ("ssp_range", a.ssp_range == b.ssp_range),
        ("discount", a.discount == b.discount),
        ("start", a.start == b.start),
        ("end", a.end == b.end),
        ("method", a.method == b.method),
        ("milestones", a.milestones == b.milestones),
        ("distinct", a.distinct == b.distinct),
        ("recurring", a.recurring == b.recurring),
        ("bundle", a.bundle == b.bundle),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}
