//! Every rejection by its code: an input that gets it, the field and the value it names, and what it says to do. And the
//! order: of several faults of a fact, the first in the order of [`Code`].

use std::collections::BTreeSet;

use accrue::codec::fact_json;
use accrue::revenue::books::Books;
use accrue::revenue::ids::EventId;
use accrue::revenue::money::Currency;
use accrue::revenue::reference::{Settings, Tenant};
use accrue::revenue::reject::{Code, Rejection};
use serde_json::{Value, json};

fn event(id: &str, kind: &str, payload: Value) -> Value {
    json!({"event_id": id, "source": "test", "type": kind, "occurred_at": "2026-03-01T00:00:00Z",
        "tenant_id": "acme", "payload": payload})
}

fn sold() -> Value {
    event(
        "sold",
        "deal.closed",
        json!({"deal_id": "D", "amount": 1200, "currency": "USD", "term_months": 12, "billing_cycle": "upfront",
            "contract_start": "2026-01-01", "line_items": [
                {"id": "s", "type": "subscription", "amount": 600},
                {"id": "m", "type": "project", "amount": 400, "milestones": [{"id": "m1", "percent": 100}]},
                {"id": "u", "type": "goods", "amount": 200, "method": "units", "quantity": 10}]}),
    )
}

/// The deal with other values at some paths.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut event = sold();
    for (path, value) in changes {
        *event.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
    }
    event
}

/// The deal with one field more in its payload.
fn having(field: &str, value: Value) -> Value {
    let mut event = sold();
    event["payload"][field] = value;
    event
}

fn of_deal(id: &str, kind: &str, rest: Value) -> Value {
    let mut payload = json!({"deal_id": "D"});
    for (key, value) in rest.as_object().unwrap() {
        payload[key] = value.clone();
    }
    event(id, kind, payload)
}

fn rejections(events: &[Value], settings: &Settings) -> Vec<(EventId, Rejection)> {
    let mut books = Books::new(settings.clone());
    for (number, value) in events.iter().enumerate() {
        match fact_json::read(value.to_string().as_bytes(), settings) {
            Ok(fact) => books.fold(fact),
            Err(unreadable) => {
                let line = EventId::parse(format!("line {}", number + 1)).unwrap();
                books.refuse(unreadable.event_id.unwrap_or(line), unreadable.rejection);
            }
        }
    }
    books.finish(Some("2026-06-01".parse().unwrap())).rejections
}

struct Example {
    code: Code,
    /// The last one is the one refused, unless `event` says otherwise.
    events: Vec<Value>,
    event: &'static str,
    field: &'static str,
    value: &'static str,
    correction: &'static str,
}

fn example(
    code: Code,
    events: Vec<Value>,
    event: &'static str,
    field: &'static str,
    value: &'static str,
    correction: &'static str,
) -> Example {
    Example {
        code,
        events,
        event,
        field,
        value,
        correction,
    }
}

fn examples() -> Vec<Example> {
    let of_line = |id: &str, kind: &str, line: &str, rest: Value| {
        let mut payload = json!({"line_item_id": line, "date": "2026-02-02"});
        for (key, value) in rest.as_object().unwrap() {
            payload[key] = value.clone();
        }
        of_deal(id, kind, payload)
    };
    let amended = |changes: &[(&str, Value)]| {
        let mut event = with(changes);
        event["event_id"] = json!("next");
        event["type"] = json!("deal.amended");
        event["payload"]["effective_date"] = json!("2026-02-01");
        event
    };
    let rate = |id: &str, rate: &str| {
        event(
            id,
            "fx.rate",
            json!({"base": "USD", "quote": "EUR", "date": "2025-01-01", "rate": rate}),
        )
    };
    let accepted = |id: &str| of_line(id, "milestone.accepted", "m", json!({"milestone_id": "m1"}));
    let cancelled = |id: &str| of_deal(id, "deal.cancelled", json!({"effective_date": "2026-02-01"}));
    let resolved = |id: &str, amount: i64| {
        let payload = json!({"date": "2026-02-02", "amount": amount, "final": true});
        of_deal(id, "consideration.estimated", payload)
    };
    let residual = json!([{"id": "a", "type": "x", "amount": 700, "ssp": 700},
        {"id": "b", "type": "y", "amount": 500, "ssp_range": [550, 600]}]);
    let ranged = json!([{"id": "a", "type": "x", "amount": 1200, "ssp_range": [9, 8]}]);
    let mut again = sold();
    again["event_id"] = json!("next");
    vec![
        example(
            Code::Malformed,
            vec![json!([1])],
            "line 1",
            "event",
            "[1]",
            "JSON object",
        ),
        example(
            Code::UnknownType,
            vec![with(&[("/type", json!("deal.lost"))])],
            "sold",
            "type",
            "deal.lost",
            "the types are deal.closed",
        ),
        example(
            Code::MissingField,
            vec![with(&[("/payload/amount", Value::Null)])],
            "sold",
            "payload.amount",
            "nothing",
            "required",
        ),
        example(
            Code::UnknownField,
            vec![having("effective_dat", json!("2026-01-01"))],
            "sold",
            "payload.effective_dat",
            "effective_dat",
            "did you mean `effective_date`",
        ),
        example(
            Code::InvalidId,
            vec![with(&[("/payload/deal_id", json!("a/b"))])],
            "sold",
            "payload.deal_id",
            "a/b",
            "without control characters or `/`",
        ),
        example(
            Code::UnknownCurrency,
            vec![with(&[("/payload/currency", json!("usd"))])],
            "sold",
            "payload.currency",
            "usd",
            "ISO 4217 code in capitals",
        ),
        example(
            Code::InvalidDate,
            vec![with(&[("/payload/contract_start", json!("3026-01-01"))])],
            "sold",
            "payload.contract_start",
            "3026-01-01",
            "between 1970-01-01 and 2200-12-31",
        ),
        example(
            Code::InvalidTerm,
            vec![with(&[("/payload/term_months", json!(0))])],
            "sold",
            "payload.term_months",
            "0",
            "1 to 1200 months",
        ),
        example(
            Code::Overflow,
            vec![with(&[("/payload/amount", json!("10000000000000000"))])],
            "sold",
            "payload.amount",
            "10000000000000000",
            "largest value accepted is 1000000000000000",
        ),
        example(
            Code::InvalidAmount,
            vec![with(&[("/payload/amount", json!(-5))])],
            "sold",
            "payload.amount",
            "-5",
            "zero or more",
        ),
        example(
            Code::TooPrecise,
            vec![with(&[("/payload/amount", json!("1200.001"))])],
            "sold",
            "payload.amount",
            "1200.001",
            "round at the source",
        ),
        example(
            Code::InvalidQuantity,
            vec![with(&[("/payload/line_items/2/quantity", json!(0))])],
            "sold",
            "payload.line_items[2].quantity",
            "0",
            "more than zero",
        ),
        example(
            Code::InvalidPercent,
            vec![having("tax", json!({"rate": -1}))],
            "sold",
            "payload.tax.rate",
            "-1",
            "0 or more and below 1",
        ),
        example(
            Code::InvalidRate,
            vec![rate("r", "0")],
            "r",
            "payload.rate",
            "0",
            "more than zero",
        ),
        example(
            Code::DuplicateLine,
            vec![with(&[("/payload/line_items/1/id", json!("s"))])],
            "sold",
            "payload.line_items[1].id",
            "s",
            "unique within a deal",
        ),
        example(
            Code::LinesDoNotAddUp,
            vec![with(&[("/payload/amount", json!(1300))])],
            "sold",
            "payload.amount",
            "1300, lines 1200",
            "correct one of them",
        ),
        example(
            Code::InvalidMilestones,
            vec![with(&[("/payload/line_items/1/milestones/0/percent", json!(90))])],
            "sold",
            "payload.line_items[1].milestones",
            "360 of 400",
            "sum to the line",
        ),
        example(
            Code::InvalidInstalments,
            vec![having("instalments", json!([{"date": "2026-02-01", "amount": 1199}]))],
            "sold",
            "payload.instalments",
            "1199 of 1200",
            "must sum to the deal's amount",
        ),
        example(
            Code::InvalidSsp,
            vec![with(&[("/payload/line_items", ranged)])],
            "sold",
            "payload.line_items[0].ssp_range",
            "9 to 8",
            "high is below its low",
        ),
        example(
            Code::ConflictingDuplicate,
            vec![sold(), with(&[("/payload/term_months", json!(13))])],
            "sold",
            "payload.term_months",
            "sold",
            "send a new event id",
        ),
        example(
            Code::UnknownPeriod,
            vec![event("p", "period.closed", json!({"period": "FY2026-P01"}))],
            "p",
            "payload.period",
            "FY2026-P01",
            "use 2026-02 or FY2026-P02",
        ),
        example(
            Code::PeriodNotOver,
            vec![
                event("now", "clock.ticked", json!({"date": "2026-02-05"})),
                event("p", "period.closed", json!({"period": "2026-11"})),
            ],
            "p",
            "payload.period",
            "2026-11",
            "the clock stands at 2026-02-05; close it once",
        ),
        example(
            Code::CreditInPart,
            vec![
                with(&[("/payload/billing_cycle", json!("monthly"))]),
                of_deal("next", "credit.granted", json!({"amount": 500, "date": "2026-02-02"})),
            ],
            "next",
            "payload.amount",
            "500",
            "300.00 is refused",
        ),
        example(
            Code::RateConflict,
            vec![rate("r1", "0.9"), rate("r2", "0.8")],
            "r2",
            "payload.rate",
            "0.8",
            "correction with a higher version",
        ),
        example(
            Code::DealNotClosed,
            vec![cancelled("next")],
            "next",
            "payload.deal_id",
            "D",
            "waits for it",
        ),
        example(
            Code::AlreadyClosed,
            vec![sold(), again],
            "sold",
            "payload.deal_id",
            "D",
            "send deal.amended or deal.renewed",
        ),
        example(
            Code::AlreadyCancelled,
            vec![sold(), cancelled("c1"), cancelled("c2")],
            "c2",
            "payload.deal_id",
            "2026-02-01",
            "close a new deal instead",
        ),
        example(
            Code::CurrencyMismatch,
            vec![sold(), amended(&[("/payload/currency", json!("EUR"))])],
            "next",
            "payload.currency",
            "EUR",
            "keeps its currency",
        ),
        example(
            Code::OutsideTerm,
            vec![
                sold(),
                of_deal("next", "deal.cancelled", json!({"effective_date": "2028-01-01"})),
            ],
            "next",
            "payload.effective_date",
            "2028-01-01",
            "ended by then",
        ),
        example(
            Code::ResidualRefused,
            vec![with(&[("/payload/line_items", residual)])],
            "sold",
            "payload.line_items.ssp_range",
            "550 to 600",
            "give an observable or estimated ssp",
        ),
        example(
            Code::UnknownLine,
            vec![
                sold(),
                of_line("next", "delivery.recorded", "x", json!({"quantity": 1})),
            ],
            "next",
            "payload.line_item_id",
            "x",
            "no such line",
        ),
        example(
            Code::UnknownMilestone,
            vec![
                sold(),
                of_line("next", "milestone.accepted", "m", json!({"milestone_id": "m9"})),
            ],
            "next",
            "payload.milestone_id",
            "m9",
            "no such milestone",
        ),
        example(
            Code::WrongMethod,
            vec![sold(), of_line("next", "progress.measured", "s", json!({"percent": 5}))],
            "next",
            "payload.line_item_id",
            "s",
            "set its method in the deal",
        ),
        example(
            Code::AlreadyAccepted,
            vec![sold(), accepted("a1"), accepted("a2")],
            "a2",
            "payload.milestone_id",
            "m1",
            "accepted by an earlier event",
        ),
        example(
            Code::OverDelivery,
            vec![
                sold(),
                of_line("next", "delivery.recorded", "u", json!({"quantity": 11})),
            ],
            "next",
            "payload.quantity",
            "11",
            "11 of 10 units",
        ),
        example(
            Code::OverCredit,
            vec![
                sold(),
                of_deal("next", "credit.granted", json!({"amount": 5, "date": "2025-12-01"})),
            ],
            "next",
            "payload.amount",
            "5",
            "nothing is billed by that day",
        ),
        example(
            Code::AlreadyResolved,
            vec![sold(), resolved("e1", 30), resolved("e2", 40)],
            "e2",
            "payload.estimate_id",
            "variable",
            "resolved by an earlier event",
        ),
        example(
            Code::InvalidEstimate,
            vec![
                sold(),
                of_deal(
                    "next",
                    "consideration.estimated",
                    json!({"date": "2026-02-02", "method": "expected_value",
                        "outcomes": [{"amount": 10, "probability": 50}, {"amount": 0, "probability": 49}]}),
                ),
            ],
            "next",
            "payload.outcomes",
            "99 percent",
            "sum to 100 percent",
        ),
        example(
            Code::RateMissing,
            vec![with(&[("/payload/currency", json!("JPY"))])],
            "sold",
            "fx.rate",
            "JPY/EUR on 2026-01-01",
            "goes on by itself",
        ),
    ]
}

#[test]
fn every_code_names_the_field_the_value_and_what_to_do() {
    let mut seen = BTreeSet::new();
    for it in examples() {
        let foreign = it.code == Code::RateMissing;
        let settings = Settings {
            default: Tenant {
                functional_currency: foreign.then(|| Currency::parse("EUR")).flatten(),
                ..Tenant::default()
            },
            ..Settings::default()
        };
        let found = rejections(&it.events, &settings);
        let mine: Vec<&Rejection> = found
            .iter()
            .filter(|(_, found)| found.code == it.code)
            .map(|(_, found)| found)
            .collect();
        let [rejection] = mine.as_slice() else {
            panic!("{}: {found:#?}", it.code);
        };
        assert!(
            found
                .iter()
                .any(|(event, found)| event.as_str() == it.event && found.code == it.code),
            "{found:#?}"
        );
        assert_eq!(rejection.field, it.field, "{}", it.code);
        assert!(rejection.value.contains(it.value), "{}: {rejection:?}", it.code);
        assert!(rejection.message.contains(it.correction), "{}: {rejection:?}", it.code);
        seen.insert(it.code);
    }
    let all: BTreeSet<Code> = Code::ALL.iter().copied().collect();
    assert_eq!(seen, all, "an example is missing");
}

/// Faults that a readable deal can have side by side.
fn faults() -> Vec<(Code, &'static str, Value)> {
    let instalments = json!([{"date": "2026-02-01", "amount": 7}]);
    vec![
        (Code::InvalidDate, "/payload/contract_start", json!("1969-12-31")),
        (Code::InvalidTerm, "/payload/term_months", json!(1201)),
        (Code::Overflow, "/payload/line_items/0/ssp", json!("9999999999999999")),
        (Code::InvalidAmount, "/payload/line_items/1/discount", json!(-1)),
        (
            Code::TooPrecise,
            "/payload/line_items/1/unit_price",
            json!("0.1234567890123"),
        ),
        (Code::InvalidQuantity, "/payload/line_items/2/quantity", json!(-1)),
        (Code::InvalidPercent, "/payload/tax", json!({"rate": "-0.1"})),
        (Code::DuplicateLine, "/payload/line_items/2/id", json!("s")),
        (Code::LinesDoNotAddUp, "/payload/amount", json!(1000)),
        (
            Code::InvalidMilestones,
            "/payload/line_items/1/milestones/0/percent",
            json!(1),
        ),
        (Code::InvalidInstalments, "/payload/instalments", instalments),
        (Code::InvalidSsp, "/payload/line_items/0/ssp_range", json!([2, 1])),
    ]
}

#[test]
fn of_two_faults_the_first_in_the_order_of_the_codes_is_reported() {
    let set = |event: &mut Value, path: &str, value: Value| {
        let (parent, field) = path.rsplit_once('/').unwrap();
        let parent = event.pointer_mut(parent).unwrap();
        parent[field] = value;
    };
    let faults = faults();
    assert!(faults.is_sorted_by_key(|(code, ..)| *code));
    for (first, one) in faults.iter().enumerate() {
        for two in &faults[first..] {
            let mut event = sold();
            set(&mut event, one.1, one.2.clone());
            set(&mut event, two.1, two.2.clone());
            let found = rejections(&[event], &Settings::default());
            let codes: Vec<Code> = found.iter().map(|(_, found)| found.code).collect();
            assert_eq!(codes, [one.0], "{} and {}", one.0, two.0);
        }
    }
}

#[test]
fn a_fact_of_its_own_faults_is_refused_before_its_identity_and_its_deal_are_looked_at() {
    let mut faulty = with(&[("/payload/term_months", json!(0))]);
    let codes = |events: &[Value]| -> Vec<Code> {
        let found = rejections(events, &Settings::default());
        found.into_iter().map(|(_, found)| found.code).collect()
    };
    assert_eq!(
        codes(&[sold(), faulty.clone()]),
        [Code::InvalidTerm],
        "before the duplicate"
    );
    faulty["event_id"] = json!("next");
    assert_eq!(
        codes(&[sold(), faulty]),
        [Code::InvalidTerm],
        "before the second closing"
    );
    let mut twice = sold();
    twice["payload"]["amount"] = json!(1300);
    twice["payload"]["line_items"][0]["amount"] = json!(700);
    assert_eq!(
        codes(&[sold(), twice]),
        [Code::ConflictingDuplicate],
        "identity before the deal"
    );
}

#[test]
fn an_estimate_is_refused_with_its_field_and_reason() {
    let estimate = |rest: Value| {
        let mut payload = json!({"date": "2026-02-02", "method": "expected_value"});
        for (key, value) in rest.as_object().unwrap() {
            payload[key] = value.clone();
        }
        of_deal("next", "consideration.estimated", payload)
    };
    let cases = [
        (
            json!({"amount": 5, "included": 6}),
            Code::InvalidEstimate,
            "payload.included",
        ),
        (
            json!({"amount": -5, "included": -4}),
            Code::InvalidEstimate,
            "payload.included",
        ),
        (
            json!({"amount": 5, "final": true}),
            Code::UnknownField,
            "payload.method",
        ),
        (
            json!({"amount": 5, "outcomes": [{"amount": 1, "probability": 100}]}),
            Code::UnknownField,
            "payload.amount",
        ),
        (json!({}), Code::MissingField, "payload.amount"),
        (
            json!({"amount": 5, "method": "guess"}),
            Code::Malformed,
            "payload.method",
        ),
        (
            json!({"amount": 5, "included": "0.001"}),
            Code::TooPrecise,
            "payload.included",
        ),
        (
            json!({"amount": 5, "line_item_id": "x"}),
            Code::UnknownLine,
            "payload.line_item_id",
        ),
        (json!({"amount": -1201}), Code::OverCredit, "payload.included"),
        (
            json!({"outcomes": [{"amount": 1, "probability": 101}]}),
            Code::InvalidPercent,
            "payload.outcomes[0].probability",
        ),
    ];
    for (rest, code, field) in cases {
        let found = rejections(&[sold(), estimate(rest.clone())], &Settings::default());
        let found: Vec<(Code, &str)> = found.iter().map(|(_, it)| (it.code, it.field.as_str())).collect();
        assert_eq!(found, [(code, field)], "{rest}");
    }
    let mut other = estimate(json!({"amount": 5, "method": "most_likely_amount"}));
    other["event_id"] = json!("other");
    let found = rejections(&[sold(), estimate(json!({"amount": 5})), other], &Settings::default());
    let found: Vec<(Code, &str)> = found.iter().map(|(_, it)| (it.code, it.field.as_str())).collect();
    assert_eq!(found, [(Code::WrongMethod, "payload.method")], "one method throughout");
}
