//! Measures and explanations over small books whose numbers fit on one hand.

use std::collections::{BTreeMap, BTreeSet};

use accrue::codec::fact_json;
use accrue::revenue::books::{Books, Report};
use accrue::revenue::contract::{self, Contract};
use accrue::revenue::explain::explain;
use accrue::revenue::fact::Fact;
use accrue::revenue::ids::{DealId, TenantId};
use accrue::revenue::measures::{annual_on, movement, remaining, waterfall};
use accrue::revenue::money::Currency;
use accrue::revenue::reference::{Context, Reference, Settings};
use jiff::civil::{Date, date};
use rust_decimal::Decimal;
use serde_json::{Value, json};

fn fact(number: usize, kind: &str, payload: Value) -> Fact {
    let event = json!({"event_id": format!("e{number}"), "source": "test", "type": kind,
        "occurred_at": format!("2026-01-01T00:00:{number:02}Z"), "tenant_id": "acme", "payload": payload});
    fact_json::read(event.to_string().as_bytes(), &Settings::default()).unwrap()
}

fn deal(id: &str, amount: i64, rest: Value) -> Value {
    let mut deal = json!({"deal_id": id, "amount": amount, "currency": "USD", "term_months": 12,
        "billing_cycle": "annual", "contract_start": "2026-01-01",
        "line_items": [{"id": "a", "type": "subscription", "amount": amount}]});
    for (key, value) in rest.as_object().unwrap() {
        deal[key] = value.clone();
    }
    deal
}

fn books(facts: &[Fact], as_of: Date) -> Report {
    let mut books = Books::new(Settings::default());
    facts.iter().cloned().for_each(|fact| books.fold(fact));
    books.finish(Some(as_of))
}

fn with_contract<T>(facts: &[Fact], clock: Date, look: impl Fn(&Contract, &Context) -> T) -> T {
    let (settings, mut reference) = (Settings::default(), Reference::default());
    let tenant = TenantId::parse("acme").unwrap();
    reference.tick(&tenant, clock);
    let cx = Context::new(&settings, &reference, &tenant);
    let mut stored = None;
    for fact in facts {
        stored = Some(contract::apply(stored, fact, &cx).unwrap().contract);
    }
    look(&stored.unwrap(), &cx)
}

#[test]
fn the_waterfall_shows_what_was_billed_and_earned() {
    let facts = [
        fact(1, "deal.closed", deal("D-1", 1200, json!({}))),
        fact(
            2,
            "deal.closed",
            deal("D-2", 600, json!({"contract_start": "2026-02-01"})),
        ),
        fact(
            3,
            "deal.cancelled",
            json!({"deal_id": "D-1", "effective_date": "2026-03-01"}),
        ),
    ];
    let rows: Vec<String> = waterfall(&books(&facts, date(2026, 4, 1)).journals)
        .iter()
        .map(|row| {
            let it = row.amounts;
            let [opening, billed, recognised, fx, closing] =
                [it.opening, it.billed, it.recognised, it.fx, it.closing].map(|amount| amount.normalize());
            format!("{} {opening} + {billed} - {recognised} + {fx} = {closing}", row.period)
        })
        .collect();
    assert_eq!(
        rows,
        [
            "2026-01 0 + 1200 - 100 + 0 = 1100",
            "2026-02 1100 + 600 - 150 + 0 = 1550",
            "2026-03 1550 + -1000 - 50 + 0 = 500"
        ]
    );
}

#[test]
fn remaining_obligations_and_their_first_year() {
    let two_years = fact(1, "deal.closed", deal("D-1", 2400, json!({"term_months": 24})));
    let found = with_contract(&[two_years], date(2026, 4, 1), |contract, cx| {
        let usd = Currency::parse("USD").unwrap();
        remaining(&contract.schedule_now(cx), usd, date(2026, 4, 1), cx)
    });
    assert_eq!(
        (found.total, found.within_a_year),
        (Decimal::from(2100), Decimal::from(1200))
    );
}

#[test]
fn recurring_revenue_moves_by_a_bridge_that_closes() {
    let histories: Vec<(&str, Vec<Fact>)> = vec![
        (
            "grown",
            vec![
                fact(1, "deal.closed", deal("grown", 1200, json!({}))),
                fact(
                    2,
                    "deal.amended",
                    deal("grown", 1500, json!({"effective_date": "2026-07-01"})),
                ),
            ],
        ),
        (
            "gone",
            vec![
                fact(1, "deal.closed", deal("gone", 600, json!({}))),
                fact(
                    2,
                    "deal.cancelled",
                    json!({"deal_id": "gone", "effective_date": "2026-06-01"}),
                ),
            ],
        ),
        (
            "new",
            vec![fact(
                1,
                "deal.closed",
                deal("new", 240, json!({"contract_start": "2026-05-15"})),
            )],
        ),
        (
            "renewed",
            vec![
                fact(1, "deal.closed", deal("renewed", 100, json!({"term_months": 3}))),
                fact(
                    2,
                    "deal.renewed",
                    deal("renewed", 300, json!({"contract_start": "2026-04-01"})),
                ),
            ],
        ),
        (
            "setup",
            vec![fact(
                1,
                "deal.closed",
                deal(
                    "setup",
                    50,
                    json!({"line_items": [{"id": "s", "type": "setup", "amount": 50}]}),
                ),
            )],
        ),
    ];
    let on = |day: Date| -> BTreeMap<DealId, Decimal> {
        let deals = histories.iter();
        deals
            .map(|(id, facts)| {
                let annual = with_contract(facts, day, |contract, cx| {
                    contract
                        .view_now(cx)
                        .map_or(Decimal::ZERO, |view| annual_on(&view.recurring, day))
                });
                (DealId::parse(*id).unwrap(), annual)
            })
            .collect()
    };
    let renewals = BTreeSet::from([DealId::parse("renewed").unwrap()]);
    let found = movement(&on(date(2026, 3, 1)), &on(date(2026, 8, 1)), &renewals);
    let whole = |amount: i64| Decimal::from(amount);
    assert_eq!(found.opening, whole(1200 + 600 + 400));
    assert_eq!(
        (found.new, found.expansion, found.contraction),
        (whole(240), whole(600), whole(100))
    );
    assert_eq!((found.churn, found.renewed), (whole(600), whole(300)));
    assert_eq!(
        found.closing,
        found.opening + found.new + found.expansion - found.contraction - found.churn
    );
}

#[test]
fn decisions_are_explained_by_their_paragraph_and_their_facts() {
    let facts = [
        fact(1, "deal.closed", deal("D-1", 1200, json!({}))),
        fact(
            2,
            "deal.amended",
            deal("D-1", 1500, json!({"effective_date": "2026-07-01"})),
        ),
        fact(
            3,
            "deal.cancelled",
            json!({"deal_id": "D-1", "effective_date": "2026-10-01"}),
        ),
        fact(
            4,
            "deal.amended",
            deal("D-1", 9, json!({"effective_date": "2026-10-01"})),
        ),
    ];
    let found = with_contract(&facts, date(2026, 12, 1), explain);
    let rule_of = |event: &str| -> Vec<&str> {
        let about = found
            .iter()
            .filter(|it| it.facts.iter().any(|fact| fact.as_str() == event));
        about.map(|it| it.rule.as_str()).collect()
    };
    assert!(rule_of("e1")[0].starts_with("line amount"), "{:?}", rule_of("e1"));
    assert!(rule_of("e2").contains(&"ASC 606-10-25-13(a) prospective"));
    assert_eq!(rule_of("e4"), ["rejected: already_cancelled"]);
    let cancelled = found.iter().find(|it| it.facts[0].as_str() == "e3").unwrap();
    assert_eq!(cancelled.arithmetic, "1500 - 1050 = 450 unused");
}
