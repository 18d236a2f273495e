//! The replay document as strangers see it: accepted input, exact keys, and what is said about input that is refused.

use accrue::codec::fact_json;
use accrue::codec::replay::replay;
use accrue::revenue::policy::{RecognitionPosting, SetupFees};
use accrue::revenue::reference::{Settings, Tenant};
use accrue::revenue::reject::Code;
use jiff::civil::Date;
use serde_json::{Value, json};

const ARTICLE: &str = r#"{"event_id": "evt_20260117_0001", "source": "salesforce", "type": "deal.closed",
    "occurred_at": "2026-01-17T10:22:33Z", "tenant_id": "acme-corp",
    "payload": {"deal_id": "D-98765", "amount": 120000, "currency": "USD", "term_months": 12,
      "billing_cycle": "monthly", "contract_start": "2026-02-01",
      "customer": {"customer_id": "C-123", "name": "Globex, Inc.", "accounting_id": "AR-212"},
      "line_items": [{"id": "li-1", "type": "subscription", "amount": 100000},
        {"id": "li-2", "type": "setup", "amount": 20000}],
      "revenue_recognition": {"method": "linear", "defer_setup": true}}}"#;

fn article() -> Value {
    serde_json::from_str(ARTICLE).unwrap()
}

fn changed(path: &[&str], value: Value) -> Value {
    let mut event = article();
    let mut at = &mut event;
    for field in path {
        at = match field.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[*field],
        };
    }
    *at = value;
    event
}

fn event(id: &str, kind: &str, payload: Value) -> Value {
    json!({"event_id": id, "source": "test", "type": kind, "occurred_at": "2026-03-01T00:00:00Z",
        "tenant_id": "acme-corp", "payload": payload})
}

fn run(events: &[Value], settings: &Settings, as_of: Option<&str>) -> Value {
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    let as_of = as_of.map(|day| day.parse::<Date>().unwrap());
    serde_json::from_str(&replay(text.as_bytes(), settings, as_of)).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort();
    keys
}

#[test]
fn the_article_is_accepted_and_the_keys_are_the_interface() {
    let document = run(&[article()], &Settings::default(), Some("2026-03-01"));
    assert_eq!(
        keys(&document),
        ["balances", "billing", "contracts", "journals", "rejections", "schedule"]
    );
    let contract = &document["contracts"][0];
    assert_eq!(
        keys(contract),
        [
            "contract_id",
            "currency",
            "deal_id",
            "obligations",
            "status",
            "tenant_id",
            "transaction_price",
            "version"
        ]
    );
    assert_eq!(
        contract["obligations"][0],
        json!({"obligation_id": "D-98765/li-1", "line_item_id": "li-1", "method": "straight_line",
            "start": "2026-02-01", "end": "2027-01-31", "allocated": "100000.00"})
    );
    assert_eq!(
        document["schedule"][0],
        json!({"tenant_id": "acme-corp", "deal_id": "D-98765", "contract_id": "D-98765",
            "obligation_id": "D-98765/li-1", "line_item_id": "li-1", "period": "2026-02", "amount": "8333.33",
            "currency": "USD", "functional_amount": "8333.33", "functional_currency": "USD", "version": 1})
    );
    assert_eq!(
        document["billing"][0],
        json!({"tenant_id": "acme-corp", "deal_id": "D-98765", "date": "2026-02-01", "amount": "10000.00",
            "tax": "0.00", "currency": "USD"})
    );
    let entry = &document["journals"][0];
    assert_eq!(
        keys(entry),
        [
            "currency",
            "date",
            "deal_id",
            "entry_id",
            "kind",
            "lines",
            "period",
            "tenant_id"
        ]
    );
    assert_eq!(
        entry["lines"][0],
        json!({"account": "accounts_receivable", "role": "accounts_receivable", "debit": "10000.00",
            "credit": "0.00", "functional_debit": "10000.00", "functional_credit": "0.00"})
    );
    assert_eq!(
        document["balances"][0],
        json!({"tenant_id": "acme-corp", "deal_id": "D-98765", "currency": "USD", "contract_liability": "0.00",
            "contract_asset": "0.00", "receivable": "10000.00", "recognised": "10000.00", "remaining": "110000.00"})
    );
    assert_eq!(document["rejections"], json!([]));
}

#[test]
fn nothing_is_due_before_its_day_is_over() {
    let entries = |as_of| {
        let document = run(&[article()], &Settings::default(), as_of);
        document["journals"].as_array().unwrap().len()
    };
    assert_eq!(entries(None), 0);
    assert_eq!(entries(Some("2026-02-01")), 0);
    assert_eq!(entries(Some("2026-02-02")), 1);
    assert_eq!(entries(Some("2026-02-28")), 1);
    assert_eq!(entries(Some("2026-03-01")), 3);
}

#[test]
fn recognition_is_posted_when_the_policy_says() {
    let settings = |posting| {
        let mut tenant = Tenant::default();
        tenant.policy.recognition_posting = posting;
        Settings {
            default: tenant,
            ..Settings::default()
        }
    };
    let recognitions = |posting, events: &[Value], as_of| {
        let document = run(events, &settings(posting), Some(as_of));
        let entries = document["journals"].as_array().unwrap();
        entries.iter().filter(|entry| entry["kind"] == "recognition").count()
    };
    let closed = event("close", "period.closed", json!({"period": "2026-02"}));
    let open = [article()];
    let closing = [article(), closed];
    assert_eq!(recognitions(RecognitionPosting::PeriodEnd, &open, "2026-04-01"), 4);
    assert_eq!(recognitions(RecognitionPosting::AtClose, &open, "2026-04-01"), 0);
    assert_eq!(recognitions(RecognitionPosting::AtClose, &closing, "2026-04-01"), 2);
    assert_eq!(recognitions(RecognitionPosting::Upfront, &open, "2026-01-17"), 0);
    assert_eq!(recognitions(RecognitionPosting::Upfront, &open, "2026-01-18"), 24);
}

#[test]
fn tenants_and_currencies_do_not_mix() {
    let mut other = article();
    other["tenant_id"] = json!("umbrella");
    other["payload"]["currency"] = json!("JPY");
    let document = run(&[other, article()], &Settings::default(), Some("2026-03-01"));
    let shown: Vec<(&str, &str, &str)> = document["balances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let text = |key: &str| it[key].as_str().unwrap();
            (text("tenant_id"), text("currency"), text("recognised"))
        })
        .collect();
    assert_eq!(shown, [("acme-corp", "USD", "10000.00"), ("umbrella", "JPY", "10000")]);
}

#[test]
fn accounts_are_mapped_from_their_day_on() {
    let role = json!({"role": "revenue.setup", "accounting_id": "4010", "from": "2026-03-01"});
    let customer = json!({"customer_id": "C-123", "accounting_id": "1212", "from": "2026-01-01"});
    let events = [
        event("m1", "account.mapped", role),
        event("m2", "account.mapped", customer),
        article(),
    ];
    let document = run(&events, &Settings::default(), Some("2026-04-01"));
    let accounts = |role: &str| -> Vec<String> {
        let entries = document["journals"].as_array().unwrap().iter();
        let lines = entries.flat_map(|entry| entry["lines"].as_array().unwrap());
        let lines = lines.filter(|line| line["role"] == role);
        lines.map(|line| line["account"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(accounts("revenue.setup"), ["revenue.setup", "4010"]);
    assert_eq!(accounts("accounts_receivable"), ["1212", "1212"]);
    assert_eq!(accounts("cash"), [""; 0]);
}

#[test]
fn each_wrong_input_is_refused_with_its_path() {
    let lines = |lines: Value| changed(&["payload", "line_items"], lines);
    let cases: Vec<(Value, Code, &str)> = vec![
        (json!([1]), Code::Malformed, "event"),
        (changed(&["type"], json!("deal.lost")), Code::UnknownType, "type"),
        (
            changed(&["occurred_at"], json!("yesterday")),
            Code::InvalidDate,
            "occurred_at",
        ),
        (changed(&["tenant_id"], json!("a b")), Code::InvalidId, "tenant_id"),
        (
            changed(&["payload", "deal_id"], json!("a/b")),
            Code::InvalidId,
            "payload.deal_id",
        ),
        (
            changed(&["payload", "currency"], json!("ABC")),
            Code::UnknownCurrency,
            "payload.currency",
        ),
        (
            changed(&["payload", "amount"], json!("12x")),
            Code::Malformed,
            "payload.amount",
        ),
        (
            changed(&["payload", "amount"], json!(-1)),
            Code::InvalidAmount,
            "payload.amount",
        ),
        (
            changed(&["payload", "amount"], json!("120000.001")),
            Code::TooPrecise,
            "payload.amount",
        ),
        (
            changed(&["payload", "amount"], json!("9e99")),
            Code::Overflow,
            "payload.amount",
        ),
        (
            changed(&["payload", "amount"], json!("9999999999999999999999")),
            Code::Overflow,
            "payload.amount",
        ),
        (
            changed(&["payload", "amount"], json!(130000)),
            Code::LinesDoNotAddUp,
            "payload.amount",
        ),
        (
            changed(&["payload", "term_months"], json!(0)),
            Code::InvalidTerm,
            "payload.term_months",
        ),
        (
            changed(&["payload", "term_months"], json!(-3)),
            Code::Malformed,
            "payload.term_months",
        ),
        (
            changed(&["payload", "term_months"], Value::Null),
            Code::MissingField,
            "payload.term_months",
        ),
        (
            changed(&["payload", "contract_start"], Value::Null),
            Code::MissingField,
            "payload.contract_start",
        ),
        (
            changed(&["payload", "contract_start"], json!("2026-02-30")),
            Code::InvalidDate,
            "payload.contract_start",
        ),
        (
            changed(&["payload", "contract_end"], json!("2026-01-01")),
            Code::InvalidDate,
            "payload.contract_end",
        ),
        (
            changed(&["payload", "billing_cycle"], json!("weekly")),
            Code::Malformed,
            "payload.billing_cycle",
        ),
        (
            changed(&["payload", "ammount"], json!(1)),
            Code::UnknownField,
            "payload.ammount",
        ),
        (
            changed(&["payload", "line_items", "1", "id"], json!("li-1")),
            Code::DuplicateLine,
            "payload.line_items[1].id",
        ),
        (
            lines(json!([{"id": "a", "type": "x", "amount": "120000", "method": "milestone"}])),
            Code::MissingField,
            "payload.line_items[0].milestones",
        ),
        (
            lines(json!([{"id": "a", "type": "x", "amount": "120000", "milestones": [{"id": "m", "percent": 90}]}])),
            Code::InvalidMilestones,
            "payload.line_items[0].milestones",
        ),
        (
            event(
                "evt_20260117_0001",
                "fx.rate",
                json!({"base": "EUR", "quote": "USD", "date": "2026-01-01", "rate": 0}),
            ),
            Code::InvalidRate,
            "payload.rate",
        ),
        (
            event("evt_20260117_0001", "period.closed", json!({"period": "FY2026-P01"})),
            Code::UnknownPeriod,
            "payload.period",
        ),
        (
            event("evt_20260117_0001", "deal.cancelled", json!({"deal_id": "D-1"})),
            Code::DealNotClosed,
            "payload.deal_id",
        ),
    ];
    for (given, code, field) in cases {
        let document = run(std::slice::from_ref(&given), &Settings::default(), Some("2026-03-01"));
        let rejections = document["rejections"].as_array().unwrap();
        assert_eq!(rejections.len(), 1, "{given}: {document}");
        assert_eq!(rejections[0]["code"], code.as_str(), "{given}: {document}");
        let message = rejections[0]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
        assert_eq!(document["journals"], json!([]), "{given}");
    }
}

#[test]
fn a_suggestion_helps_with_a_misspelt_field() {
    let document = run(
        &[changed(&["payload", "effective_dat"], json!("2026-02-01"))],
        &Settings::default(),
        None,
    );
    let message = document["rejections"][0]["message"].as_str().unwrap();
    assert!(message.contains("did you mean `effective_date`?"), "{message}");
}

#[test]
fn the_first_of_several_faults_is_reported_in_the_order_of_the_codes() {
    let mut event = article();
    event["payload"]["amount"] = json!("-1.001");
    event["payload"]["term_months"] = json!(0);
    let codes = |event: &Value| {
        let document = run(std::slice::from_ref(event), &Settings::default(), None);
        document["rejections"][0]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(codes(&event), "invalid_term");
    event["payload"]["term_months"] = json!(12);
    assert_eq!(codes(&event), "invalid_amount");
    event["payload"]["amount"] = json!("1.001");
    assert_eq!(codes(&event), "too_precise");
    event["payload"]["amount"] = json!("1");
    assert_eq!(codes(&event), "lines_do_not_add_up");
    assert!(Code::ALL.is_sorted(), "precedence is the order of the enum");
}

#[test]
fn an_event_id_means_one_content() {
    let same = run(&[article(), article()], &Settings::default(), Some("2026-03-01"));
    assert_eq!(same, run(&[article()], &Settings::default(), Some("2026-03-01")));
    for (path, value, field) in [
        (
            vec!["payload", "line_items", "0", "name"],
            json!("Gold"),
            "payload.line_items[0].name",
        ),
        (
            vec!["payload", "billing_cycle"],
            json!("annual"),
            "payload.billing_cycle",
        ),
        (vec!["source"], json!("hubspot"), "source"),
        (vec!["payload", "deal_id"], json!("D-1"), "payload.deal_id"),
    ] {
        let document = run(
            &[article(), changed(&path, value)],
            &Settings::default(),
            Some("2026-03-01"),
        );
        assert_eq!(document["rejections"][0]["code"], "conflicting_duplicate");
        let message = document["rejections"][0]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
        assert_eq!(document["journals"], same["journals"]);
    }
}

#[test]
fn a_rate_that_was_published_stands_until_a_version_corrects_it() {
    let rate = |id: &str, rate: &str, version: Option<u32>| {
        let mut payload = json!({"base": "USD", "quote": "EUR", "date": "2026-02-01", "rate": rate});
        if let Some(version) = version {
            payload["version"] = json!(version);
        }
        event(id, "fx.rate", payload)
    };
    let tenant = Tenant {
        functional_currency: accrue::revenue::money::Currency::parse("EUR"),
        ..Tenant::default()
    };
    let settings = Settings {
        default: tenant,
        ..Settings::default()
    };
    let debit = |events: &[Value]| {
        let document = run(events, &settings, Some("2026-02-02"));
        let debit = document["journals"][0]["lines"][0]["functional_debit"]
            .as_str()
            .unwrap()
            .to_owned();
        (debit, document["rejections"].as_array().unwrap().len())
    };
    assert_eq!(
        debit(&[rate("r1", "0.9", None), rate("r2", "0.8", None), article()]),
        ("9000.00".into(), 1)
    );
    assert_eq!(
        debit(&[rate("r1", "0.9", None), rate("r2", "0.8", Some(2)), article()]),
        ("8000.00".into(), 0)
    );
    assert_eq!(
        debit(&[rate("r2", "0.8", Some(2)), rate("r1", "0.9", None), article()]),
        ("8000.00".into(), 0)
    );
}

#[test]
fn a_day_with_a_time_is_a_day_of_the_tenant() {
    let event = changed(&["payload", "contract_start"], json!("2026-02-01T03:00:00Z"));
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(-5));
    let settings = Settings {
        default: Tenant {
            time_zone: zone,
            ..Tenant::default()
        },
        ..Settings::default()
    };
    let document = run(&[event], &settings, None);
    assert_eq!(document["contracts"][0]["obligations"][0]["start"], "2026-01-31");
}

#[test]
fn setup_fees_follow_the_deal_then_the_policy() {
    let end_and_method = |defer: Value, policy| {
        let mut tenant = Tenant::default();
        tenant.policy.setup_fees = policy;
        let settings = Settings {
            default: tenant,
            ..Settings::default()
        };
        let event = changed(&["payload", "revenue_recognition", "defer_setup"], defer);
        let document = run(&[event], &settings, None);
        let setup = &document["contracts"][0]["obligations"][1];
        (
            setup["method"].as_str().unwrap().to_owned(),
            setup["end"].as_str().unwrap().to_owned(),
        )
    };
    let over_term = ("straight_line".to_owned(), "2027-01-31".to_owned());
    let at_once = ("point_in_time".to_owned(), "2027-01-31".to_owned());
    let life = ("straight_line".to_owned(), "2029-01-31".to_owned());
    assert_eq!(end_and_method(json!(true), SetupFees::Immediately), over_term);
    assert_eq!(end_and_method(json!(false), SetupFees::OverTerm), at_once);
    assert_eq!(end_and_method(Value::Null, SetupFees::Immediately), at_once);
    assert_eq!(end_and_method(Value::Null, SetupFees::OverTerm), over_term);
    assert_eq!(end_and_method(json!(true), SetupFees::OverCustomerLife), life);
}

#[test]
fn every_type_is_read_back_as_it_was_written() {
    let settings = Settings::default();
    let line = json!({"id": "a", "type": "goods", "name": "Ore", "amount": "10", "quantity": "2.5", "unit_price": "4",
        "ssp": "4.4", "discount": "0", "start": "2026-02-02", "end": "2026-03-03", "method": "units",
        "distinct": false, "recurring": true, "bundle": "b"});
    let deal = json!({"deal_id": "D", "amount": "30", "currency": "KWD", "term_months": 3, "billing_cycle": "upfront",
        "contract_start": "2026-02-02", "contract_end": "2026-04-30", "effective_date": "2026-02-03",
        "customer": {"customer_id": "C", "phone": "kept nowhere"}, "line_items": [line,
            {"id": "b", "type": "x", "amount": 20, "milestones": [{"id": "m", "amount": "15"}, {"id": "n", "percent": 25}]},
            {"id": "c", "type": "y", "ssp_range": [5, 15]}],
        "revenue_recognition": {"method": "progress", "defer_setup": false}, "renewal": {"window": 30, "auto": true},
        "tax": {"rate": 20, "inclusive": true}, "amendment": {"treatment": "cumulative_catch_up"},
        "instalments": [{"date": "2026-02-02", "amount": "12.5"}, {"date": "2026-03-02", "amount": "17.5"}]});
    let of_line = |rest: Value| {
        let mut payload = json!({"deal_id": "D", "line_item_id": "a", "date": "2026-02-03"});
        for (key, value) in rest.as_object().unwrap() {
            payload[key] = value.clone();
        }
        payload
    };
    let events = [
        ("deal.closed", deal.clone()),
        ("deal.amended", deal.clone()),
        ("deal.renewed", deal),
        (
            "deal.cancelled",
            json!({"deal_id": "D", "effective_date": "2026-03-01", "refund": "1.5", "reason": "r"}),
        ),
        ("deal.cancelled", json!({"deal_id": "D", "refund": "none"})),
        ("milestone.accepted", of_line(json!({"milestone_id": "m"}))),
        ("delivery.recorded", of_line(json!({"quantity": "-1.25"}))),
        ("progress.measured", of_line(json!({"percent": "33.3", "precision": 2}))),
        (
            "progress.measured",
            of_line(json!({"cost_to_date": 1, "cost_expected": 3})),
        ),
        ("usage.reported", of_line(json!({"quantity": 3, "amount": "0.000001"}))),
        (
            "progress.measured",
            of_line(
                json!({"cost_to_date": 2, "cost_expected": 3, "materials_to_date": 1, "materials_expected": "1.5"}),
            ),
        ),
        (
            "credit.granted",
            json!({"deal_id": "D", "amount": 3, "reason": "defects", "date": "2026-02-03"}),
        ),
        (
            "consideration.estimated",
            json!({"deal_id": "D", "date": "2026-02-03", "method": "expected_value", "included": "0.5", "reason": "r",
                "outcomes": [{"amount": "2", "probability": "62.5"}, {"amount": "-1.5", "probability": "37.5"}]}),
        ),
        (
            "consideration.estimated",
            of_line(json!({"estimate_id": "bonus", "method": "most_likely_amount", "amount": -7})),
        ),
        (
            "consideration.estimated",
            of_line(json!({"amount": "1.125", "final": true})),
        ),
        (
            "payment.received",
            json!({"deal_id": "D", "amount": 3, "currency": "KWD", "date": "2026-02-03", "invoice_id": "I"}),
        ),
        (
            "fx.rate",
            json!({"base": "EUR", "quote": "USD", "date": "2026-02-03", "rate": "1.0987654321", "version": 2}),
        ),
        (
            "account.mapped",
            json!({"customer_id": "C", "accounting_id": "A", "from": "2026-02-03"}),
        ),
        (
            "account.mapped",
            json!({"role": "cash", "accounting_id": "A", "from": "2026-02-03"}),
        ),
        ("period.closed", json!({"period": "2026-02"})),
        ("period.reopened", json!({"period": "FY2026-P02"})),
        ("clock.ticked", json!({"date": "2026-02-03"})),
    ];
    for (kind, payload) in events {
        let given = event("e", kind, payload);
        let fact =
            fact_json::read(given.to_string().as_bytes(), &settings).unwrap_or_else(|it| panic!("{given}: {it:?}"));
        let written = fact_json::write(&fact);
        let again = fact_json::read(written.to_string().as_bytes(), &settings).unwrap();
        assert_eq!(fact, again, "{written}");
    }
}
