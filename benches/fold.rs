//! The accounting alone: no log, no store. What a fact costs, and what a deal weighs.
//!
//! The first part folds a million facts of 100,000 deals, interleaved, month by month, with a clock that moves on between
//! the months; the second feeds one deal 10,000 usage facts and 200 amendments and shows that the cost of a fact follows
//! the contract's size. `cargo bench --bench fold`, or `-- 10000` for fewer deals.

use std::time::Duration;

use accrue::codec::contract_store::{self, Paged};
use accrue::codec::fact_json;
use accrue::revenue::contract::{self, Contract};
use accrue::revenue::fact::Fact;
use accrue::revenue::ids::TenantId;
use accrue::revenue::reference::{Context, Reference, Settings};
use jiff::civil::{Date, date};
use serde_json::{Value, json};

/// Deals that are alive at the same time.
const ALIVE: usize = 1_000;

/// Deals that are held to see what they weigh.
const WEIGHED: usize = 10_000;

fn main() {
    let deals = std::env::args()
        .skip(1)
        .find_map(|it| it.parse().ok())
        .unwrap_or(100_000);
    many_deals(deals);
    weight();
    one_deal();
}

/// What a deal of ten facts weighs in memory, as the stage has it: the contract with what it remembers.
fn weight() {
    let settings = Settings::default();
    let (tenant, reference) = (TenantId::parse("acme").expect("id"), Reference::default());
    let cx = Context::new(&settings, &reference, &tenant);
    let before = resident();
    let held: Vec<Contract> = (0..WEIGHED)
        .map(|number| {
            let folded = (1..=10).fold(None, |contract, month| {
                let decision = contract::apply(contract, &fact(number, month), &cx).expect("a fact that fits");
                Some(decision.contract)
            });
            folded.expect("a contract")
        })
        .collect();
    println!("bytes of memory a deal {}", (resident() - before) / held.len() as u64);
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = status.split(' ').nth(1).and_then(|it| it.parse().ok());
    pages.unwrap_or_default() * 4096
}

fn many_deals(deals: usize) {
    let settings = Settings::default();
    let tenant = TenantId::parse("acme").expect("id");
    let (mut facts, mut settled, mut entries) = (0u64, 0u64, 0u64);
    let (mut folding, mut settling, mut storing) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut bytes, mut stores) = (0u64, 0u64);
    for first in (0..deals).step_by(ALIVE) {
        let numbers = first..deals.min(first + ALIVE);
        let mut alive: Vec<Option<Contract>> = numbers.clone().map(|_| None).collect();
        let mut reference = Reference::default();
        for month in 1..=10i8 {
            let said: Vec<Fact> = numbers.clone().map(|number| fact(number, month)).collect();
            let began = cpu();
            let cx = Context::new(&settings, &reference, &tenant);
            for (slot, fact) in alive.iter_mut().zip(&said) {
                let decision = contract::apply(slot.take(), fact, &cx).expect("a fact that fits");
                entries += decision.entries.len() as u64;
                facts += 1;
                *slot = Some(decision.contract);
            }
            folding += cpu() - began;
            let began = cpu();
            reference.tick(&tenant, date(2026, month, 28));
            let cx = Context::new(&settings, &reference, &tenant);
            let clock = cx.reference.clock();
            for slot in &mut alive {
                let due = slot.as_ref().and_then(Contract::next_due);
                if due.is_some_and(|due| clock.is_some_and(|clock| clock >= due))
                    && let Some(contract) = slot.take()
                {
                    let decision = contract::settle(contract, &cx).expect("a contract settles");
                    entries += decision.entries.len() as u64;
                    settled += 1;
                    *slot = Some(decision.contract);
                }
            }
            settling += cpu() - began;
        }
        let began = cpu();
        for contract in alive.iter().flatten().take(100) {
            let stored = contract_store::encode(contract, Paged::default()).expect("a contract is stored");
            bytes += stored.len() as u64;
            let (back, _) = contract_store::decode(&stored).expect("a contract is read");
            assert_eq!(back.facts.len(), 10, "nothing is lost");
            stores += 1;
        }
        storing += cpu() - began;
    }
    let all = folding + settling;
    let micros = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count.max(1) as f64;
    println!("{deals} deals, {facts} facts, {settled} settlements, {entries} entries");
    println!(
        "facts a second of CPU, settlements included: {:.0}; CPU s per million facts: {:.1}",
        facts as f64 / all.as_secs_f64(),
        micros(all, facts)
    );
    println!(
        "us a fact {:.1}, us a settlement {:.1}",
        micros(folding, facts),
        micros(settling, settled)
    );
    println!(
        "stored bytes a deal {}, us to encode and decode {:.1}",
        bytes / stores.max(1),
        micros(storing, stores)
    );
}

/// What is said of a deal in a month: sold, then used, paid, amended, credited.
fn fact(number: usize, month: i8) -> Fact {
    let deal = format!("D-{number}");
    let day = date(2026, month, 1 + (number % 27) as i8);
    let (kind, payload) = match month {
        1 => ("deal.closed", terms(&deal, 12_000 + number % 977, None)),
        6 => ("deal.amended", terms(&deal, 15_000 + number % 977, Some(day))),
        3 | 5 | 7 | 9 => (
            "payment.received",
            json!({"deal_id": deal, "amount": 1000, "currency": "USD", "date": day.to_string()}),
        ),
        8 => (
            "credit.granted",
            json!({"deal_id": deal, "line_item_id": "seats", "amount": 50, "date": day.to_string(), "reason": "goodwill"}),
        ),
        _ => (
            "usage.reported",
            json!({"deal_id": deal, "line_item_id": "calls", "quantity": 100, "date": day.to_string()}),
        ),
    };
    read(&format!("{number}-{month}"), day, kind, payload)
}

fn terms(deal: &str, amount: usize, effective: Option<Date>) -> Value {
    let mut payload = json!({"deal_id": deal, "amount": amount, "currency": "USD", "term_months": 12,
        "billing_cycle": "monthly", "contract_start": "2026-01-01", "line_items": [
            {"id": "seats", "type": "subscription", "amount": amount},
            {"id": "calls", "type": "usage", "amount": 0, "method": "usage", "unit_price": "0.05"}]});
    if let Some(day) = effective {
        payload["effective_date"] = json!(day.to_string());
    }
    payload
}

fn one_deal() {
    let settings = Settings::default();
    let tenant = TenantId::parse("acme").expect("id");
    let reference = Reference::default();
    let cx = Context::new(&settings, &reference, &tenant);
    let first = date(2026, 1, 1);
    let closed = read("0", first, "deal.closed", terms("D", 12_000, None));
    let mut contract = Some(contract::apply(None, &closed, &cx).expect("closed").contract);
    println!("one deal: facts before, us a fact");
    let mut spent = Duration::ZERO;
    for number in 1..=10_200usize {
        let day = first
            .checked_add(jiff::Span::new().days((number * 360 / 10_200) as i64))
            .expect("day");
        let fact = match number % 51 {
            0 => read(
                &format!("{number:05}"),
                day,
                "deal.amended",
                terms("D", 12_000 + number, Some(day)),
            ),
            _ => {
                let usage = json!({"deal_id": "D", "line_item_id": "calls", "quantity": 1, "date": day.to_string()});
                read(&format!("{number:05}"), day, "usage.reported", usage)
            }
        };
        let began = cpu();
        let decision = contract::apply(contract.take(), &fact, &cx).expect("a fact that fits");
        spent += cpu() - began;
        contract = Some(decision.contract);
        if [100, 500, 1000, 2000, 5000, 10_200].contains(&number) {
            println!("  {number:>6} {:.0}", spent.as_secs_f64() * 1e6 / 100.0);
        }
        if number % 100 == 0 {
            spent = Duration::ZERO;
        }
    }
    let stored = contract_store::encode(&contract.expect("a contract"), Paged::default()).expect("stored");
    println!("  stored bytes {}", stored.len());
}

fn read(id: &str, day: Date, kind: &str, payload: Value) -> Fact {
    let event = json!({"event_id": id, "source": "bench", "type": kind, "occurred_at": format!("{day}T12:00:00Z"),
        "tenant_id": "acme", "payload": payload});
    fact_json::read(event.to_string().as_bytes(), &Settings::default()).expect("a fact")
}

/// Time on the processor: others that use the machine do not count.
fn cpu() -> Duration {
    // The kernel counts when the thread stops running, or at its own ticks, which are too far apart.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|it| it.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
