//! Every order of every small world: five facts of one deal or its tenant, in all 120 orders, each fact said once or
//! twice, and the same books in the end.
//!
//! What is equal, and why:
//!
//! * In a world without ticks and period changes nothing is issued before the end, so the whole document is equal, byte
//!   for byte, whatever the order.
//! * Where the clock moves or a period closes in between, entries are issued from what was known by then, and corrected
//!   by further entries: their number, ids and days differ. Equal are the terms (contracts, obligations, prices, status,
//!   version), the invoices planned, what each obligation earns in all, the rejections, the deal's balances in its own
//!   currency, and the trial balance by account in that currency. Where periods close, rows of the schedule move to the
//!   period that was open when they became known, so that only their sums are compared; without, all rows are equal.
//! * Functional amounts are compared only where nothing is issued in between: a correction is valued at the rate of its
//!   own day.
//! * A duplicate changes nothing at all, wherever in the order it comes: with and without it, the whole report is equal.

use std::collections::BTreeMap;

use accrue::codec::{fact_json, replay};
use accrue::revenue::books::{Books, Report};
use accrue::revenue::checks;
use accrue::revenue::fact::{Body, Fact};
use accrue::revenue::money::Currency;
use accrue::revenue::reference::{Settings, Tenant};
use serde_json::{Value, json};

struct World {
    name: &'static str,
    functional: Option<&'static str>,
    facts: Vec<Fact>,
}

fn event(number: usize, kind: &str, payload: Value) -> Fact {
    let value = json!({"event_id": format!("e{number}"), "source": "test", "type": kind,
        "occurred_at": format!("2026-01-01T00:00:{number:02}Z"), "tenant_id": "acme", "payload": payload});
    fact_json::read(value.to_string().as_bytes(), &Settings::default()).unwrap()
}

/// A deal of `lines`; the amount is their sum.
fn terms(number: usize, kind: &str, currency: &str, lines: &[(&str, &str, i64)], rest: Value) -> Fact {
    let items: Vec<Value> = lines
        .iter()
        .map(|(id, method, amount)| {
            let mut line = json!({"id": id, "type": "service", "amount": amount, "method": method});
            match *method {
                "units" => line["quantity"] = json!(10),
                "usage" => line["unit_price"] = json!("0.5"),
                "milestone" => line["milestones"] = json!([{"id": "m1", "percent": 40}, {"id": "m2", "percent": 60}]),
                _other => {}
            }
            line
        })
        .collect();
    let amount: i64 = lines.iter().map(|(_, _, amount)| amount).sum();
    let mut payload = json!({"deal_id": "D", "amount": amount, "currency": currency, "term_months": 6,
        "billing_cycle": "monthly", "contract_start": "2026-01-31", "line_items": items});
    for (key, value) in rest.as_object().unwrap() {
        payload[key] = value.clone();
    }
    event(number, kind, payload)
}

fn closed(currency: &str, lines: &[(&str, &str, i64)], rest: Value) -> Fact {
    terms(1, "deal.closed", currency, lines, rest)
}

fn amended(number: usize, from: &str, currency: &str, lines: &[(&str, &str, i64)]) -> Fact {
    terms(number, "deal.amended", currency, lines, json!({"effective_date": from}))
}

fn of(number: usize, kind: &str, rest: Value) -> Fact {
    let mut payload = json!({"deal_id": "D"});
    for (key, value) in rest.as_object().unwrap() {
        payload[key] = value.clone();
    }
    event(number, kind, payload)
}

fn paid(number: usize, amount: i64, currency: &str, day: &str) -> Fact {
    of(
        number,
        "payment.received",
        json!({"amount": amount, "currency": currency, "date": day}),
    )
}

fn cancelled(number: usize, from: &str) -> Fact {
    of(number, "deal.cancelled", json!({"effective_date": from}))
}

fn credited(number: usize, amount: i64, day: &str, reason: &str) -> Fact {
    of(
        number,
        "credit.granted",
        json!({"amount": amount, "date": day, "reason": reason}),
    )
}

fn used(number: usize, quantity: i64, day: &str) -> Fact {
    of(
        number,
        "usage.reported",
        json!({"line_item_id": "u", "quantity": quantity, "date": day}),
    )
}

fn accepted(number: usize, milestone: &str, day: &str) -> Fact {
    of(
        number,
        "milestone.accepted",
        json!({"line_item_id": "m", "milestone_id": milestone, "date": day}),
    )
}

fn delivered(number: usize, quantity: i64, day: &str) -> Fact {
    of(
        number,
        "delivery.recorded",
        json!({"line_item_id": "d", "quantity": quantity, "date": day}),
    )
}

fn estimated(number: usize, amount: i64, day: &str, line: Option<&str>) -> Fact {
    let mut rest = json!({"amount": amount, "date": day, "method": "most_likely_amount"});
    if let Some(line) = line {
        rest["line_item_id"] = json!(line);
    }
    of(number, "consideration.estimated", rest)
}

fn resolved(number: usize, amount: i64, day: &str) -> Fact {
    of(
        number,
        "consideration.estimated",
        json!({"amount": amount, "date": day, "final": true}),
    )
}

fn rate(number: usize, day: &str, rate: &str) -> Fact {
    event(
        number,
        "fx.rate",
        json!({"base": "USD", "quote": "EUR", "date": day, "rate": rate}),
    )
}

fn tick(number: usize, day: &str) -> Fact {
    event(number, "clock.ticked", json!({"date": day}))
}

fn close(number: usize, period: &str) -> Fact {
    event(number, "period.closed", json!({"period": period}))
}

fn reopen(number: usize, period: &str) -> Fact {
    event(number, "period.reopened", json!({"period": period}))
}

fn worlds() -> Vec<World> {
    let seats = [("s", "straight_line", 6000)];
    let more = [("s", "straight_line", 9001)];
    let mixed = [
        ("s", "straight_line", 6000),
        ("u", "usage", 100),
        ("m", "milestone", 1000),
    ];
    let goods = [("d", "units", 1000), ("s", "straight_line", 777)];
    let progress = |number, percent: i64, day: &str| {
        of(
            number,
            "progress.measured",
            json!({"line_item_id": "p", "percent": percent, "date": day}),
        )
    };
    let build = [("p", "progress", 5000)];
    let world = |name, functional, facts: [Fact; 5]| World {
        name,
        functional,
        facts: facts.into(),
    };
    vec![
        world(
            "amended twice, credited, paid",
            None,
            [
                closed("USD", &seats, json!({})),
                amended(2, "2026-03-10", "USD", &more),
                amended(3, "2026-04-29", "USD", &seats),
                credited(4, 50, "2026-04-01", "goodwill"),
                paid(5, 1500, "USD", "2026-03-01"),
            ],
        ),
        world(
            "amended and undone, cancelled, paid too much",
            None,
            [
                closed("USD", &seats, json!({"billing_cycle": "upfront"})),
                amended(2, "2026-03-10", "USD", &more),
                amended(3, "2026-03-10", "USD", &seats),
                cancelled(4, "2026-05-16"),
                paid(5, 12_000, "USD", "2026-02-01"),
            ],
        ),
        world(
            "used, accepted, amended, cancelled",
            None,
            [
                closed("USD", &mixed, json!({"billing_cycle": "milestone"})),
                used(2, 400, "2026-02-14"),
                accepted(3, "m2", "2026-03-03"),
                amended(
                    4,
                    "2026-03-03",
                    "USD",
                    &[
                        ("s", "straight_line", 3000),
                        ("u", "usage", 100),
                        ("m", "milestone", 1000),
                    ],
                ),
                cancelled(5, "2026-04-30"),
            ],
        ),
        world(
            "delivered, returned, more ordered, renewed early",
            None,
            [
                closed("USD", &goods, json!({})),
                delivered(2, 6, "2026-02-28"),
                delivered(3, -1, "2026-03-31"),
                amended(
                    4,
                    "2026-03-15",
                    "USD",
                    &[("d", "units", 900), ("s", "straight_line", 777)],
                ),
                terms(
                    5,
                    "deal.renewed",
                    "USD",
                    &goods,
                    json!({"contract_start": "2026-06-01"}),
                ),
            ],
        ),
        world(
            "progress in any order, catch-up, defect",
            None,
            [
                closed("USD", &build, json!({})),
                progress(2, 60, "2026-05-31"),
                progress(3, 25, "2026-02-28"),
                amended(4, "2026-04-01", "USD", &[("p", "progress", 6000)]),
                credited(5, 321, "2026-04-15", "defects"),
            ],
        ),
        world(
            "a bonus estimated, estimated anew, resolved, and an amendment in between",
            None,
            [
                closed("USD", &mixed, json!({})),
                estimated(2, 500, "2026-02-10", None),
                amended(3, "2026-03-10", "USD", &more),
                estimated(4, 700, "2026-04-01", None),
                resolved(5, 650, "2026-05-02"),
            ],
        ),
        world(
            "a penalty expected of one line, resolved after a cancellation, with a credit",
            None,
            [
                closed("USD", &seats, json!({"billing_cycle": "upfront"})),
                estimated(2, -900, "2026-02-10", Some("s")),
                credited(3, 50, "2026-03-01", "goodwill"),
                cancelled(4, "2026-05-16"),
                of(
                    5,
                    "consideration.estimated",
                    json!({"line_item_id": "s", "amount": -400, "date": "2026-04-01", "final": true}),
                ),
            ],
        ),
        world(
            "a bonus while the clock moves and a period closes",
            None,
            [
                closed("USD", &goods, json!({})),
                paid(2, 300, "USD", "2026-02-10"),
                estimated(3, 300, "2026-02-15", Some("s")),
                tick(4, "2026-03-01"),
                close(5, "2026-02"),
            ],
        ),
        world(
            "facts that do not fit",
            None,
            [
                closed("USD", &seats, json!({})),
                terms(2, "deal.closed", "USD", &more, json!({})),
                amended(3, "2026-03-01", "JPY", &more),
                used(4, 3, "2026-02-02"),
                cancelled(5, "2027-05-05"),
            ],
        ),
        world(
            "nothing but cancelled",
            None,
            [
                closed("JPY", &seats, json!({})),
                cancelled(2, "2026-01-31"),
                cancelled(3, "2026-02-01"),
                paid(4, 100, "JPY", "2026-01-31"),
                credited(5, 10, "2026-02-10", "goodwill"),
            ],
        ),
        world(
            "foreign, two rates, paid in part",
            Some("EUR"),
            [
                closed("USD", &seats, json!({"billing_cycle": "upfront"})),
                rate(2, "2026-01-30", "0.9"),
                rate(3, "2026-02-27", "0.8"),
                paid(4, 2000, "USD", "2026-02-28"),
                amended(5, "2026-02-01", "USD", &[("s", "straight_line", 4000)]),
            ],
        ),
        world(
            "foreign, a rate that comes last",
            Some("EUR"),
            [
                closed("USD", &goods, json!({})),
                rate(2, "2026-01-31", "0.9"),
                rate(3, "2026-03-01", "0.95"),
                delivered(4, 2, "2026-03-02"),
                paid(5, 90, "USD", "2026-03-03"),
            ],
        ),
        world(
            "ticks between",
            None,
            [
                closed("USD", &seats, json!({})),
                tick(2, "2026-03-05"),
                amended(3, "2026-02-10", "USD", &more),
                tick(4, "2026-06-01"),
                credited(5, 200, "2026-02-20", "goodwill"),
            ],
        ),
        world(
            "ticks and a cancellation known late",
            None,
            [
                closed("USD", &mixed, json!({})),
                tick(2, "2026-04-05"),
                cancelled(3, "2026-03-01"),
                used(4, 1000, "2026-02-03"),
                paid(5, 700, "USD", "2026-02-03"),
            ],
        ),
        world(
            "a period closes",
            None,
            [
                closed("USD", &seats, json!({})),
                tick(2, "2026-04-05"),
                close(3, "2026-02"),
                amended(4, "2026-02-10", "USD", &more),
                paid(5, 1000, "USD", "2026-02-15"),
            ],
        ),
        world(
            "a period closes and opens again",
            None,
            [
                closed("USD", &goods, json!({})),
                close(2, "2026-02"),
                delivered(3, 3, "2026-02-11"),
                reopen(4, "2026-02"),
                amended(
                    5,
                    "2026-03-01",
                    "USD",
                    &[("d", "units", 1500), ("s", "straight_line", 777)],
                ),
            ],
        ),
        world(
            "two periods close, a milestone is accepted",
            None,
            [
                closed(
                    "KWD",
                    &[("m", "milestone", 1000)],
                    json!({"billing_cycle": "milestone"}),
                ),
                close(2, "2026-02"),
                close(3, "2026-03"),
                accepted(4, "m1", "2026-02-05"),
                accepted(5, "m2", "2026-03-05"),
            ],
        ),
        world(
            "foreign, a tick, a period closes",
            Some("EUR"),
            [
                closed("USD", &seats, json!({"billing_cycle": "upfront"})),
                rate(2, "2026-01-31", "0.9"),
                tick(3, "2026-02-05"),
                close(4, "2026-01"),
                paid(5, 6000, "USD", "2026-02-04"),
            ],
        ),
        world(
            "usage at two prices, reported late",
            None,
            [
                terms(
                    1,
                    "deal.closed",
                    "USD",
                    &[("u", "usage", 0)],
                    json!({"line_items": [{"id": "u", "type": "api", "amount": 0, "method": "usage", "unit_price": 1}]}),
                ),
                terms(
                    2,
                    "deal.amended",
                    "USD",
                    &[("u", "usage", 0)],
                    json!({"effective_date": "2026-03-10",
                        "line_items": [{"id": "u", "type": "api", "amount": 0, "method": "usage", "unit_price": 3}]}),
                ),
                used(3, 10, "2026-02-02"),
                used(4, 10, "2026-03-10"),
                used(5, 10, "2026-03-09"),
            ],
        ),
        world(
            "a deposit, and cancelled before any invoice",
            None,
            [
                closed("USD", &seats, json!({"tax": {"amount": 600}})),
                paid(2, 1500, "USD", "2026-01-10"),
                paid(3, 500, "USD", "2026-01-11"),
                cancelled(4, "2026-01-20"),
                paid(5, 7, "USD", "2026-01-25"),
            ],
        ),
    ]
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for at in 0..count {
            let mut order = shorter.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

fn fold(world: &World, order: &[usize]) -> Report {
    let settings = Settings {
        default: Tenant {
            functional_currency: world.functional.and_then(Currency::parse),
            ..Tenant::default()
        },
        ..Settings::default()
    };
    let mut books = Books::new(settings);
    for at in order {
        books.fold(world.facts[*at].clone());
    }
    books.finish(Some("2026-09-01".parse().unwrap()))
}

/// What every order agrees on when entries are issued in between, see the module.
fn essence(report: &Report, rows: bool) -> Value {
    let document = replay::document(report);
    let mut earned: BTreeMap<String, rust_decimal::Decimal> = BTreeMap::new();
    for row in &report.schedule {
        let of = match rows {
            true => format!("{} {}", row.obligation, row.period),
            false => row.obligation.to_string(),
        };
        *earned.entry(of).or_default() += row.amount;
    }
    let mut accounts: BTreeMap<&str, rust_decimal::Decimal> = BTreeMap::new();
    for line in report.journals.iter().flat_map(|entry| &entry.lines) {
        *accounts.entry(&line.account).or_default() += line.debit - line.credit;
    }
    let text = |sums: BTreeMap<String, rust_decimal::Decimal>| -> Vec<String> {
        let rows = sums.into_iter().filter(|(_, sum)| !sum.is_zero());
        rows.map(|(name, sum)| format!("{name} {}", sum.normalize())).collect()
    };
    json!({
        "contracts": document["contracts"], "billing": document["billing"], "balances": document["balances"],
        "rejections": document["rejections"], "earned": text(earned),
        "accounts": text(accounts.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect()),
    })
}

#[test]
fn all_orders_and_duplicates_of_small_worlds_give_the_same_books() {
    let orders = permutations(5);
    assert_eq!(orders.len(), 120);
    let mut folds = 0;
    for world in worlds() {
        let is = |wanted: fn(&Body) -> bool| world.facts.iter().any(|fact| wanted(&fact.body));
        let closes = is(|body| matches!(body, Body::PeriodClosed(_) | Body::PeriodReopened(_)));
        let ticks = is(|body| matches!(body, Body::ClockTicked(_)));
        let whole = !closes && !ticks;
        let first = fold(&world, &orders[0]);
        let (document, essentials) = (replay::document(&first).to_string(), essence(&first, !closes));
        for order in &orders {
            let report = fold(&world, order);
            let violations = checks::run(&report);
            assert!(violations.is_empty(), "{} {order:?}: {violations:#?}", world.name);
            if whole {
                assert_eq!(
                    replay::document(&report).to_string(),
                    document,
                    "{} {order:?}",
                    world.name
                );
            }
            assert_eq!(essence(&report, !closes), essentials, "{} {order:?}", world.name);
            folds += 1;
            for again in duplications(order) {
                assert_eq!(fold(&world, &again), report, "{} {again:?}", world.name);
                folds += 1;
            }
        }
    }
    assert_eq!(
        folds,
        20 * 120 * (1 + 5 + 10),
        "every order, every fact twice, every pair of facts twice"
    );
}

/// Each fact said again, and each pair of facts: at the end, or right after the first time, by turns.
fn duplications(order: &[usize]) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for one in 0..order.len() {
        let mut late = order.to_vec();
        late.push(order[one]);
        all.push(late);
        for two in one + 1..order.len() {
            let mut again = order.to_vec();
            again.push(order[two]);
            again.insert(one + 1, order[one]);
            all.push(again);
        }
    }
    all
}
