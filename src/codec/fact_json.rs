//! The canonical event as JSON: bytes to [`Fact`] and back.
//!
//! Unknown fields of the envelope are ignored (CloudEvents attributes, trace contexts); unknown fields of a payload are
//! refused, because a misspelt `effective_date` would otherwise change the books in silence. Amounts are JSON numbers or
//! strings of digits and never pass through a float. A day with a time is converted to the tenant's time zone.
//!
//! Invariant: what is written is read back as the same fact, and every error names the path of its field. Deliberately
//! absent: checks of meaning, which are `Fact::validate`'s.

mod fields;
mod write;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::Value;

pub use self::fields::method_name;
use self::fields::{CYCLES, ESTIMATE_METHODS, Fields, METHODS, TREATMENTS, decimal, did_you_mean};
pub use self::write::write;
use crate::revenue::fact::*;
use crate::revenue::ids::*;
use crate::revenue::money::Currency;
use crate::revenue::period::Period;
use crate::revenue::reference::Settings;
use crate::revenue::reject::{Code, Rejection};

/// A line that is no fact, with its event id where one could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    pub event_id: Option<EventId>,
    pub rejection: Rejection,
}

/// Reads one event.
pub fn read(bytes: &[u8], settings: &Settings) -> Result<Fact, Unreadable> {
    let unreadable = |event_id, rejection| Unreadable { event_id, rejection };
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let message = "the line is not JSON; send one JSON object a line";
        unreadable(None, Rejection::new(Code::Malformed, "event", error, message))
    })?;
    let event_id = value.get("event_id").and_then(Value::as_str).and_then(EventId::parse);
    fact(&value, settings).map_err(|rejection| unreadable(event_id, rejection))
}

fn fact(value: &Value, settings: &Settings) -> Result<Fact, Rejection> {
    let envelope = Fields::new(value, "event", TimeZone::UTC)?.rooted("");
    let event_id = envelope.id("event_id", EventId::parse)?;
    let tenant = envelope.id("tenant_id", TenantId::parse)?;
    let source = envelope.text("source")?.to_owned();
    let occurred_at = envelope.instant("occurred_at")?;
    let zone = settings.tenant(&tenant).time_zone.clone();
    let kind = envelope.text("type")?;
    let payload = Fields::new(envelope.required("payload")?, "payload", zone)?;
    let body = body(kind, &payload)?;
    Ok(Fact {
        event_id,
        source,
        occurred_at,
        tenant,
        body,
    })
}

fn body(kind: &str, payload: &Fields) -> Result<Body, Rejection> {
    let deal_id = || payload.id("deal_id", DealId::parse);
    let line_id = || payload.id("line_item_id", LineId::parse);
    Ok(match kind {
        "deal.closed" => Body::DealClosed(deal(payload)?),
        "deal.amended" => Body::DealAmended(deal(payload)?),
        "deal.renewed" => Body::DealRenewed(deal(payload)?),
        "deal.cancelled" => {
            // Sources often repeat the deal as it was; of that, only the fields below say something.
            let mut known = vec!["refund", "reason"];
            known.extend(DEAL_FIELDS);
            payload.only(&known)?;
            Body::DealCancelled(Cancellation {
                deal_id: deal_id()?,
                effective_date: payload.maybe_day("effective_date")?,
                refund: refund(payload)?,
                reason: payload.maybe_text("reason")?.map(str::to_owned),
            })
        }
        "milestone.accepted" => {
            payload.only(&["deal_id", "line_item_id", "milestone_id", "date"])?;
            Body::MilestoneAccepted(MilestoneAccepted {
                deal_id: deal_id()?,
                line_id: line_id()?,
                milestone_id: payload.id("milestone_id", MilestoneId::parse)?,
                date: payload.day("date")?,
            })
        }
        "delivery.recorded" => {
            payload.only(&["deal_id", "line_item_id", "quantity", "date"])?;
            Body::DeliveryRecorded(Delivery {
                deal_id: deal_id()?,
                line_id: line_id()?,
                quantity: payload.decimal("quantity")?,
                date: payload.day("date")?,
            })
        }
        "progress.measured" => {
            payload.only(&[
                "deal_id",
                "line_item_id",
                "date",
                "percent",
                "cost_to_date",
                "cost_expected",
                "materials_to_date",
                "materials_expected",
                "precision",
            ])?;
            Body::ProgressMeasured(Progress {
                deal_id: deal_id()?,
                line_id: line_id()?,
                date: payload.day("date")?,
                measure: match payload.maybe_decimal("percent")? {
                    Some(percent) => ProgressMeasure::Percent(percent),
                    None => ProgressMeasure::Cost {
                        to_date: payload.decimal("cost_to_date")?,
                        expected: payload.decimal("cost_expected")?,
                        materials: materials(payload)?,
                    },
                },
                precision: payload.maybe_count("precision")?,
            })
        }
        "usage.reported" => {
            payload.only(&["deal_id", "line_item_id", "date", "quantity", "amount"])?;
            Body::UsageReported(Usage {
                deal_id: deal_id()?,
                line_id: line_id()?,
                date: payload.day("date")?,
                quantity: payload.decimal("quantity")?,
                amount: payload.maybe_decimal("amount")?,
            })
        }
        "credit.granted" => {
            payload.only(&["deal_id", "line_item_id", "amount", "reason", "date", "currency"])?;
            Body::CreditGranted(Credit {
                deal_id: deal_id()?,
                line_id: payload.maybe_id("line_item_id", LineId::parse)?,
                amount: payload.decimal("amount")?,
                reason: payload.maybe_text("reason")?.map(str::to_owned),
                date: payload.day("date")?,
            })
        }
        "consideration.estimated" => {
            payload.only(ESTIMATE_FIELDS)?;
            Body::ConsiderationEstimated(Estimate {
                deal_id: deal_id()?,
                estimate_id: payload.maybe_id("estimate_id", EstimateId::parse)?.unwrap_or_default(),
                line_id: payload.maybe_id("line_item_id", LineId::parse)?,
                date: payload.day("date")?,
                consideration: consideration(payload)?,
                reason: payload.maybe_text("reason")?.map(str::to_owned),
            })
        }
        "payment.received" => {
            payload.only(&["deal_id", "amount", "currency", "date", "invoice_id"])?;
            Body::PaymentReceived(Payment {
                deal_id: deal_id()?,
                amount: payload.decimal("amount")?,
                currency: payload.currency("currency")?,
                date: payload.day("date")?,
                invoice_id: payload.maybe_id("invoice_id", InvoiceId::parse)?,
            })
        }
        "fx.rate" => {
            payload.only(&["base", "quote", "date", "rate", "version"])?;
            Body::FxRate(FxRate {
                base: payload.currency("base")?,
                quote: payload.currency("quote")?,
                date: payload.day("date")?,
                rate: payload.decimal("rate")?,
                version: payload.maybe_count("version")?.unwrap_or(1),
            })
        }
        "account.mapped" => {
            payload.only(&["customer_id", "role", "accounting_id", "from"])?;
            let subject = match payload.maybe_id("customer_id", CustomerId::parse)? {
                Some(customer) => MappedSubject::Customer(customer),
                None => MappedSubject::Role(payload.text("role")?.to_owned()),
            };
            Body::AccountMapped(AccountMapped {
                subject,
                accounting_id: payload.text("accounting_id")?.to_owned(),
                from: payload.day("from")?,
            })
        }
        "period.closed" => Body::PeriodClosed(period(payload)?),
        "period.reopened" => Body::PeriodReopened(period(payload)?),
        "clock.ticked" => {
            payload.only(&["date"])?;
            Body::ClockTicked(payload.day("date")?)
        }
        unknown => {
            let near = did_you_mean(unknown, TYPES);
            let message = format!("no such event type{near}; the types are {}", TYPES.join(", "));
            return Err(Rejection::new(Code::UnknownType, "type", unknown, &message));
        }
    })
}

/// The types, as `body` reads them.
const TYPES: &[&str] = &[
    "deal.closed",
    "deal.amended",
    "deal.renewed",
    "deal.cancelled",
    "milestone.accepted",
    "delivery.recorded",
    "progress.measured",
    "usage.reported",
    "credit.granted",
    "consideration.estimated",
    "payment.received",
    "fx.rate",
    "account.mapped",
    "period.closed",
    "period.reopened",
    "clock.ticked",
];

const DEAL_FIELDS: &[&str] = &[
    "deal_id",
    "amount",
    "currency",
    "term_months",
    "billing_cycle",
    "contract_start",
    "contract_end",
    "effective_date",
    "customer",
    "line_items",
    "revenue_recognition",
    "renewal",
    "tax",
    "amendment",
    "instalments",
];

const LINE_FIELDS: &[&str] = &[
    "id",
    "type",
    "name",
    "amount",
    "quantity",
    "unit_price",
    "ssp",
    "ssp_range",
    "discount",
    "start",
    "end",
    "method",
    "milestones",
    "distinct",
    "recurring",
    "bundle",
];

fn deal(payload: &Fields) -> Result<Deal, Rejection> {
    payload.only(DEAL_FIELDS)?;
    let currency = payload.currency("currency")?;
    let recognition = match payload.maybe_object("revenue_recognition")? {
        Some(it) => {
            it.only(&["method", "defer_setup"])?;
            RecognitionTerms {
                method: it.maybe_choice("method", METHODS)?,
                defer_setup: it.maybe_flag("defer_setup")?,
            }
        }
        None => RecognitionTerms::default(),
    };
    let treatment = match payload.maybe_object("amendment")? {
        Some(it) => {
            it.only(&["treatment", "reason"])?;
            it.maybe_choice("treatment", TREATMENTS)?
        }
        None => None,
    };
    Ok(Deal {
        deal_id: payload.id("deal_id", DealId::parse)?,
        amount: payload.decimal("amount")?,
        currency,
        term_months: payload.maybe_count("term_months")?,
        billing_cycle: payload.maybe_choice("billing_cycle", CYCLES)?,
        contract_start: payload.maybe_day("contract_start")?,
        contract_end: payload.maybe_day("contract_end")?,
        effective_date: payload.maybe_day("effective_date")?,
        customer: customer(payload)?,
        lines: payload
            .maybe_list("line_items")?
            .iter()
            .map(|item| line(item, currency))
            .collect::<Result<_, _>>()?,
        recognition,
        renewal: renewal(payload)?,
        tax: tax(payload)?,
        treatment,
        instalments: payload
            .maybe_list("instalments")?
            .iter()
            .map(instalment)
            .collect::<Result<_, _>>()?,
    })
}

const ESTIMATE_FIELDS: &[&str] = &[
    "deal_id",
    "estimate_id",
    "line_item_id",
    "date",
    "method",
    "outcomes",
    "amount",
    "included",
    "final",
    "reason",
];

fn consideration(payload: &Fields) -> Result<Consideration, Rejection> {
    if payload.maybe_flag("final")? == Some(true) {
        for field in ["method", "outcomes", "included"] {
            if let Some(value) = payload.maybe(field) {
                let message = "a final amount is no estimate any more; leave this field out";
                return Err(Rejection::new(Code::UnknownField, &payload.path(field), value, message));
            }
        }
        return Ok(Consideration::Resolved(payload.decimal("amount")?));
    }
    let method = payload.choice("method", ESTIMATE_METHODS)?;
    let included = payload.maybe_decimal("included")?;
    let outcomes = payload.maybe_list("outcomes")?;
    if outcomes.is_empty() {
        let amount = payload.decimal("amount")?;
        return Ok(Consideration::Amount {
            method,
            amount,
            included,
        });
    }
    if let Some(value) = payload.maybe("amount") {
        let message = "the outcomes give the amount; leave one of the two out";
        return Err(Rejection::new(
            Code::UnknownField,
            &payload.path("amount"),
            value,
            message,
        ));
    }
    let outcomes = outcomes.iter().map(outcome).collect::<Result<_, _>>()?;
    Ok(Consideration::Outcomes {
        method,
        outcomes,
        included,
    })
}

fn outcome(it: &Fields) -> Result<Outcome, Rejection> {
    it.only(&["amount", "probability"])?;
    Ok(Outcome {
        amount: it.decimal("amount")?,
        probability: it.decimal("probability")?,
    })
}

fn instalment(it: &Fields) -> Result<Instalment, Rejection> {
    it.only(&["date", "amount"])?;
    Ok(Instalment {
        date: it.day("date")?,
        amount: it.decimal("amount")?,
    })
}

/// Both or neither: what is handed over means nothing without the whole.
fn materials(payload: &Fields) -> Result<Option<Materials>, Rejection> {
    let given = |field| payload.maybe(field).is_some();
    if !given("materials_to_date") && !given("materials_expected") {
        return Ok(None);
    }
    Ok(Some(Materials {
        to_date: payload.decimal("materials_to_date")?,
        expected: payload.decimal("materials_expected")?,
    }))
}

fn customer(payload: &Fields) -> Result<Option<Customer>, Rejection> {
    let Some(it) = payload.maybe_object("customer")? else {
        return Ok(None);
    };
    // Sources attach addresses and contacts: none of them decides anything, so none is kept.
    Ok(Some(Customer {
        customer_id: it.id("customer_id", CustomerId::parse)?,
        name: it.maybe_text("name")?.map(str::to_owned),
        accounting_id: it.maybe_text("accounting_id")?.map(str::to_owned),
    }))
}

fn line(it: &Fields, currency: Currency) -> Result<Line, Rejection> {
    it.only(LINE_FIELDS)?;
    let quantity = it.maybe_decimal("quantity")?;
    let unit_price = it.maybe_decimal("unit_price")?;
    let discount = it.maybe_decimal("discount")?;
    let ssp = it.maybe_decimal("ssp")?;
    let stated = it.maybe_decimal("amount")?;
    let product = quantity
        .zip(unit_price)
        .and_then(|(quantity, price)| quantity.checked_mul(price))
        .and_then(|gross| gross.checked_sub(discount.unwrap_or_default()))
        .map(|amount| currency.round(amount));
    let range = ssp_range(it)?;
    let amount = match stated.or(product).or(ssp) {
        Some(amount) => amount,
        None if range.is_some() => Decimal::ZERO,
        None => it.decimal("amount")?,
    };
    Ok(Line {
        id: it.id("id", LineId::parse)?,
        line_type: it.id("type", LineType::parse)?,
        name: it.maybe_text("name")?.map(str::to_owned),
        amount,
        quantity,
        unit_price,
        ssp,
        ssp_range: range,
        discount,
        start: it.maybe_day("start")?,
        end: it.maybe_day("end")?,
        method: it.maybe_choice("method", METHODS)?,
        milestones: it
            .maybe_list("milestones")?
            .iter()
            .map(milestone)
            .collect::<Result<_, _>>()?,
        distinct: it.maybe_flag("distinct")?,
        recurring: it.maybe_flag("recurring")?,
        bundle: it.maybe_text("bundle")?.map(str::to_owned),
    })
}

fn milestone(it: &Fields) -> Result<Milestone, Rejection> {
    it.only(&["id", "name", "amount", "percent"])?;
    Ok(Milestone {
        id: it.id("id", MilestoneId::parse)?,
        share: match it.maybe_decimal("percent")? {
            Some(percent) => MilestoneShare::Percent(percent),
            None => MilestoneShare::Amount(it.decimal("amount")?),
        },
    })
}

/// `{"low": 5, "high": 15}`, `{"min": 5, "max": 15}` or `[5, 15]`.
fn ssp_range(it: &Fields) -> Result<Option<SspRange>, Rejection> {
    let Some(value) = it.maybe("ssp_range") else {
        return Ok(None);
    };
    let path = it.path("ssp_range");
    if let Value::Array(pair) = value {
        return match pair.as_slice() {
            [low, high] => Ok(Some(SspRange {
                low: decimal(low, &format!("{path}[0]"))?,
                high: decimal(high, &format!("{path}[1]"))?,
            })),
            [..] => Err(Rejection::new(Code::Malformed, &path, value, "a range has two ends")),
        };
    }
    let range = Fields::new(value, &path, it.zone.clone())?;
    range.only(&["low", "high", "min", "max"])?;
    let end = |name, other| match range.maybe_decimal(other)? {
        Some(end) => Ok(end),
        None => range.decimal(name),
    };
    Ok(Some(SspRange {
        low: end("low", "min")?,
        high: end("high", "max")?,
    }))
}

fn renewal(payload: &Fields) -> Result<Option<Renewal>, Rejection> {
    let Some(it) = payload.maybe_object("renewal")? else {
        return Ok(None);
    };
    it.only(&["window", "window_days", "auto"])?;
    // The window is a note of the source's; one that is no number of days decides nothing and is not kept.
    let days = |field| it.maybe_count(field).unwrap_or_default();
    Ok(Some(Renewal {
        window_days: days("window_days").or(days("window")),
        auto: it.maybe_flag("auto")?.unwrap_or(false),
    }))
}

/// A rate below 1 is a fraction, from 1 on a percentage: 0.2 and 20 are the same tax.
fn tax(payload: &Fields) -> Result<Option<Tax>, Rejection> {
    let Some(it) = payload.maybe_object("tax")? else {
        return Ok(None);
    };
    it.only(&["rate", "amount", "inclusive"])?;
    let basis = match it.maybe_decimal("rate")? {
        Some(rate) if rate >= Decimal::ONE => TaxBasis::Rate(rate.checked_div(Decimal::ONE_HUNDRED).unwrap_or(rate)),
        Some(rate) => TaxBasis::Rate(rate),
        None => TaxBasis::Amount(it.decimal("amount")?),
    };
    Ok(Some(Tax {
        basis,
        inclusive: it.maybe_flag("inclusive")?.unwrap_or(false),
    }))
}

fn refund(payload: &Fields) -> Result<Refund, Rejection> {
    match payload.maybe("refund") {
        None => Ok(Refund::Unused),
        Some(Value::String(text)) if text == "unused" => Ok(Refund::Unused),
        Some(Value::String(text)) if text == "none" => Ok(Refund::None),
        Some(value) => Ok(Refund::Amount(decimal(value, &payload.path("refund"))?)),
    }
}

fn period(payload: &Fields) -> Result<Period, Rejection> {
    payload.only(&["period"])?;
    let label = payload.text("period")?;
    Period::parse(label).ok_or_else(|| {
        Rejection::new(
            Code::UnknownPeriod,
            "payload.period",
            label,
            "a period is written 2026-02, or FY2026-P02 in a fiscal calendar",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_that_an_error_lists_are_those_that_are_read() {
        let code = |kind: &str| {
            let nothing = Value::Object(serde_json::Map::new());
            let payload = Fields::new(&nothing, "payload", TimeZone::UTC)?;
            body(kind, &payload).map(|_| ())
        };
        for kind in TYPES {
            assert_eq!(code(kind).map_err(|why| why.code), Err(Code::MissingField), "{kind}");
        }
        let unknown = code("deal.close").map_err(|why| why.to_string());
        let wanted = "did you mean `deal.closed`?; the types are deal.closed, deal.amended, ";
        assert!(unknown.is_err_and(|why| why.contains(wanted)));
    }
}
