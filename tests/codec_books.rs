//! What the books store and give out comes back equal, and a contract that was stored decides as one that was not.

mod avro;

use std::sync::Arc;

use accrue::codec::contract_store::Paged;
use accrue::codec::registry::{Compatibility, Embedded, Registry, Subject};
use accrue::codec::schemas::{AnyReader, Product, Schemas};
use accrue::codec::{Incoming, contract_store, fact_json, source};
use accrue::revenue::contract::{self, Contract, Decision};
use accrue::revenue::fact::Fact;
use accrue::revenue::ids::{ObligationId, TenantId};
use accrue::revenue::reference::{Context, Reference, Settings};
use accrue::revenue::view::Recurring;
use avro::rewritten;
use serde_json::{Value as Json, json};

/// A life of a deal in EUR for a tenant that reports in USD.
fn story() -> Vec<Fact> {
    let event = |n: usize, kind: &str, payload: Json| {
        json!({
            "event_id": format!("evt-{n:03}"), "source": "crm", "type": kind, "tenant_id": "acme-corp",
            "occurred_at": format!("2026-01-{:02}T10:22:33.123456Z", n + 1), "payload": payload,
        })
    };
    let deal = |amount: &str, service: &str| {
        json!({
            "deal_id": "D-1", "amount": amount, "currency": "EUR", "term_months": 12, "billing_cycle": "quarterly",
            "contract_start": "2026-01-15", "customer": {"customer_id": "C-1", "name": "Globex"},
            "line_items": [
                {"id": "li-1", "type": "subscription", "amount": service, "quantity": "12.5", "unit_price": "8.333333"},
                {"id": "li-2", "type": "services", "amount": "20000.10", "method": "milestone",
                 "milestones": [{"id": "m-1", "percent": "33.3333"}, {"id": "m-2", "percent": "66.6667"}]},
            ],
            "tax": {"rate": "0.2", "inclusive": false},
        })
    };
    let rate = |date: String, rate: &str| {
        let mut event = event(
            0,
            "fx.rate",
            json!({"base": "EUR", "quote": "USD", "date": date, "rate": rate}),
        );
        event["event_id"] = format!("fx-{}", event["payload"]["date"]).into();
        event
    };
    let mut events = vec![
        event(
            1,
            "account.mapped",
            json!({"role": "revenue.subscription", "accounting_id": "4000", "from": "2026-01-01"}),
        ),
        event(2, "deal.closed", deal("120000.10", "100000")),
        event(3, "clock.ticked", json!({"date": "2026-02-01"})),
        event(
            4,
            "milestone.accepted",
            json!({"deal_id": "D-1", "line_item_id": "li-2", "milestone_id": "m-1", "date": "2026-02-10"}),
        ),
        event(
            5,
            "payment.received",
            json!({"deal_id": "D-1", "amount": "30000.03", "currency": "EUR", "date": "2026-02-12"}),
        ),
    ];
    let mut amended = deal("150000.10", "130000");
    amended["effective_date"] = "2026-04-01".into();
    for (month, price) in [
        (1, "1.0834"),
        (2, "1.09"),
        (3, "1.10"),
        (4, "1.07"),
        (5, "1.12"),
        (6, "1.11"),
    ] {
        // A rate holds for some days only, so there is one every few days.
        for day in (1..=28).step_by(3) {
            events.push(rate(format!("2026-{month:02}-{day:02}"), price));
        }
        events.push(event(
            10 + month,
            "clock.ticked",
            json!({"date": format!("2026-{month:02}-28")}),
        ));
    }
    events.push(event(20, "period.closed", json!({"period": "2026-02"})));
    events.push(event(21, "deal.amended", amended));
    events.push(event(
        22,
        "credit.granted",
        json!({"deal_id": "D-1", "line_item_id": "li-1", "amount": "99.99", "reason": "outage", "date": "2026-05-05"}),
    ));
    events.push(event(
        23,
        "deal.cancelled",
        json!({"deal_id": "D-1", "effective_date": "2026-05-16", "refund": "unused"}),
    ));
    events.push(event(24, "clock.ticked", json!({"date": "2026-06-29"})));
    let settings = settings();
    events
        .iter()
        .map(|event| fact_json::read(event.to_string().as_bytes(), &settings).unwrap())
        .collect()
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    let mut tenant = settings.default.clone();
    tenant.functional_currency = accrue::revenue::money::Currency::parse("USD");
    settings.tenants.insert(TenantId::parse("acme-corp").unwrap(), tenant);
    settings
}

/// The decisions of the story as the stage takes them: facts off the topic, and each contract passed through `stored`
/// before the next fact.
fn decisions(stored: impl Fn(Contract) -> Contract) -> Vec<Decision> {
    let folder = tempfile::tempdir().unwrap();
    let (_, schemas) = schemas(folder.path());
    let settings = settings();
    let mut reference = Reference::default();
    let mut contract = None;
    let mut decisions = Vec::new();
    for fact in story() {
        let fact = schemas.decode_fact(&schemas.encode_fact(&fact).unwrap()).unwrap();
        let decision = if fact.body.deal_id().is_some() {
            let cx = Context::new(&settings, &reference, &fact.tenant);
            contract::apply(contract.take(), &fact, &cx).unwrap()
        } else {
            reference.learn(&fact).unwrap();
            let cx = Context::new(&settings, &reference, &fact.tenant);
            match contract.take() {
                Some(contract) => contract::settle(contract, &cx).unwrap(),
                None => continue,
            }
        };
        contract = Some(stored(decision.contract.clone()));
        decisions.push(decision);
    }
    decisions
}

fn through_the_store(contract: Contract) -> Contract {
    let nothing = Paged::default();
    let bytes = contract_store::encode(&contract, nothing).unwrap();
    assert_eq!(
        contract_store::encode(&contract, nothing).unwrap(),
        bytes,
        "the same bytes each time"
    );
    let schema = include_str!("../avro/contract-store.avsc");
    assert_eq!(rewritten(schema, &bytes[1..]), &bytes[1..]);
    let (back, pages) = contract_store::decode(&bytes).unwrap();
    assert_eq!((&back, pages), (&contract, 0));
    assert_eq!(
        contract_store::encode(&back, nothing).unwrap(),
        bytes,
        "whatever decimals a number was written with"
    );
    on_a_page(&contract);
    back
}

/// What is on a page is not in the head, and together they are the contract.
fn on_a_page(contract: &Contract) {
    let before = Paged {
        pages: 2,
        facts: contract.facts.len() / 2,
        issued: contract.issued.len() / 2,
    };
    let all = Paged {
        pages: 3,
        facts: contract.facts.len(),
        issued: contract.issued.len(),
    };
    let page = contract_store::encode_page(contract, before, all).unwrap();
    let (facts, issued) = contract_store::decode_page(&page).unwrap();
    assert_eq!(facts, contract.facts[before.facts..]);
    assert_eq!(issued, contract.issued[before.issued..]);
    let (head, pages) = contract_store::decode(&contract_store::encode(contract, before).unwrap()).unwrap();
    assert_eq!((&head.facts, &head.issued, pages), (&facts, &issued, 2));
    assert_eq!((&head.ledger, head.next_due), (&contract.ledger, contract.next_due));
}

fn schemas(folder: &std::path::Path) -> (Arc<Embedded>, Schemas) {
    let registry = Arc::new(Embedded::open(folder).unwrap());
    let schemas = Schemas::register(registry.clone(), |product| format!("{product:?}")).unwrap();
    (registry, schemas)
}

#[test]
fn a_stored_contract_decides_as_one_that_was_not() {
    let kept = decisions(|contract| contract);
    let stored = decisions(through_the_store);
    assert_eq!(kept.len(), stored.len());
    let entries: usize = kept.iter().map(|decision| decision.entries.len()).sum();
    assert!(entries >= 20, "the story has {entries} entries");
    for (kept, stored) in kept.iter().zip(&stored) {
        assert_eq!(kept.entries, stored.entries);
        assert_eq!(kept.view, stored.view);
        assert_eq!(kept.contract.issued, stored.contract.issued);
        assert_eq!(kept.contract.ledger, stored.contract.ledger);
        assert_eq!(kept.rejections, stored.rejections);
        assert_eq!(kept.schedule, stored.schedule);
        assert_eq!(kept.billing, stored.billing);
    }
}

#[test]
fn outputs_come_back_equal_and_are_for_people_too() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, schemas) = schemas(folder.path());
    let any = AnyReader::new(registry);
    let as_the_library_writes = |product: Product, bytes: &[u8]| {
        assert_eq!(
            rewritten(product.schema_text(), &bytes[5..]),
            &bytes[5..],
            "{product:?}"
        );
    };
    let (mut entries, mut rows, mut billed) = (0, 0, 0);
    for decision in decisions(through_the_store) {
        for entry in &decision.entries {
            let bytes = schemas.encode_journal_entry(entry).unwrap();
            as_the_library_writes(Product::JournalEntries, &bytes);
            assert_eq!(schemas.decode_journal_entry(&bytes).unwrap(), *entry);
            let shown = any.json(&bytes);
            assert_eq!(shown["date"], entry.date.to_string());
            assert_eq!(shown["lines"].as_array().unwrap().len(), entry.lines.len());
            let debit = shown["lines"][0]["debit"]
                .as_str()
                .unwrap()
                .parse::<rust_decimal::Decimal>()
                .unwrap();
            assert_eq!(debit, entry.lines[0].debit);
            entries += 1;
        }
        as_the_library_writes(
            Product::ContractState,
            &schemas.encode_contract_state(&decision).unwrap(),
        );
        let bytes = schemas.encode_recognition_schedule(&decision).unwrap();
        as_the_library_writes(Product::RecognitionSchedule, &bytes);
        assert_eq!(schemas.decode_recognition_schedule(&bytes).unwrap(), decision.schedule);
        let shown = any.json(&bytes);
        assert_eq!(shown["deal_id"], decision.contract.deal.as_str());
        assert_eq!(shown["revision"], decision.contract.schedule_revision);
        rows += decision.schedule.len();
        let bytes = schemas.encode_billing_schedule(&decision).unwrap();
        as_the_library_writes(Product::BillingSchedule, &bytes);
        assert_eq!(schemas.decode_billing_schedule(&bytes).unwrap(), decision.billing);
        assert_eq!(any.json(&bytes)["revision"], decision.contract.billing_revision);
        billed += decision.billing.len();
    }
    assert!(entries >= 20 && rows > 20 && billed > 4, "{entries} {rows} {billed}");
}

#[test]
fn the_contract_state_says_how_the_deal_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, schemas) = schemas(folder.path());
    let any = AnyReader::new(registry);
    let states: Vec<Json> = decisions(through_the_store)
        .iter()
        .map(|decision| any.json(&schemas.encode_contract_state(decision).unwrap()))
        .collect();
    let first = &states[0];
    assert_eq!(
        (first["status"].as_str(), first["version"].as_i64()),
        (Some("active"), Some(1))
    );
    assert_eq!(first["contracts"][0]["transaction_price"], "120000.100000");
    assert_eq!(first["terms"]["line_items"][0]["unit_price"], "8.333333000000");
    assert_eq!(first["history"][0]["type"], "deal.closed");
    assert_eq!(first["history"][0]["occurred_at"], "2026-01-03T10:22:33.123456Z");
    let last = states.last().unwrap();
    assert_eq!(
        (last["status"].as_str(), last["version"].as_i64()),
        (Some("cancelled"), Some(3))
    );
    assert_eq!(
        last["terms"]["amount"], "150000.100000",
        "a cancellation leaves the terms as last agreed"
    );
    assert_eq!(last["balances"]["remaining"], "0.000000");
}

fn stretch() -> Recurring {
    Recurring {
        obligation: ObligationId::parse("D-1/li-1").unwrap(),
        from: jiff::civil::date(2026, 1, 1),
        to: jiff::civil::date(2026, 12, 31),
        annual: "1200.5".parse().unwrap(),
    }
}

#[test]
fn a_contract_state_of_before_its_recurring_revenue_is_still_read() {
    let mut former: Json = serde_json::from_str(include_str!("../avro/contract-state.avsc")).unwrap();
    let fields = former["fields"].as_array_mut().unwrap();
    assert_eq!(fields.pop().unwrap()["name"], "recurring");
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Embedded::open(folder.path()).unwrap());
    let subject = Subject::value_of("ContractState");
    let former = registry.register(&subject, &former.to_string()).unwrap();
    registry.set_compatibility(&subject, Compatibility::Backward).unwrap();
    // Refused if a reader of the new schema could not read what was written before.
    let schemas = Schemas::register(registry.clone(), |product| format!("{product:?}")).unwrap();
    let any = AnyReader::new(registry);
    let mut decision = decisions(through_the_store).remove(0);
    decision.view.recurring = vec![stretch()];
    let shown = any.json(&schemas.encode_contract_state(&decision).unwrap());
    let said = json!([{
        "obligation_id": "D-1/li-1", "from": "2026-01-01", "to": "2026-12-31", "annual_amount": "1200.500000",
    }]);
    assert_eq!(shown["recurring"], said);
    // The field is the last one, and an empty list is one byte.
    decision.view.recurring.clear();
    let bytes = schemas.encode_contract_state(&decision).unwrap();
    let before = [&[0], &former.0.to_be_bytes()[..], &bytes[5..bytes.len() - 1]].concat();
    let shown = any.json(&before);
    assert_eq!((&shown["deal_id"], &shown["recurring"]), (&"D-1".into(), &Json::Null));
}

#[test]
fn reference_facts_are_stored_too() {
    for fact in story() {
        assert_eq!(
            contract_store::decode_fact(&contract_store::encode_fact(&fact).unwrap()).unwrap(),
            fact
        );
    }
    let fact = &story()[0];
    contract_store::decode_page(&contract_store::encode_fact(fact).unwrap()).unwrap_err();
    let refused = contract_store::decode(&contract_store::encode_fact(fact).unwrap()).unwrap_err();
    assert_eq!(refused.code, "bad_store");
}

#[test]
fn a_dead_letter_keeps_the_record_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (_, schemas) = schemas(folder.path());
    let headers: [(&str, &[u8]); 2] = [
        ("a", b"\xff\x00"),
        (
            "traceparent",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let record = Incoming {
        topic: "crm.changes",
        partition: 3,
        offset: 77,
        key: Some(b"acme-corp/D-1"),
        value: Some(b"\x00\x01not avro"),
        headers: &headers,
    };
    let written = schemas.encode_dead_letter(&record, 1_768_645_353_123, "canonicalize", "not_avro", "what to do");
    let datum = &written.value[5..];
    assert_eq!(rewritten(Product::DeadLetters.schema_text(), datum), datum);
    let letter = schemas.decode_dead_letter(&written.value).unwrap();
    assert_eq!(
        (letter.topic.as_str(), letter.partition, letter.offset),
        ("crm.changes", 3, 77)
    );
    assert_eq!(
        (letter.key.as_deref(), letter.value.as_deref()),
        (record.key, record.value)
    );
    assert_eq!(letter.headers[0], ("a".to_string(), b"\xff\x00".to_vec()));
    assert_eq!(
        (letter.stage.as_str(), letter.code.as_str()),
        ("canonicalize", "not_avro")
    );
    assert_eq!(letter.tenant, TenantId::parse("acme-corp"));
    assert_eq!(letter.timestamp, 1_768_645_353_123);
    let header = |name: &str| {
        let found = written.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
    };
    assert_eq!(header("ce_time").as_deref(), Some("2026-01-17T10:22:33.123Z"));
    assert_eq!(header("ce_id").as_deref(), Some("crm.changes/3/77"));
    assert!(
        header("traceparent")
            .unwrap()
            .starts_with("00-0af7651916cd43dd8448eb211c80319c-")
    );

    let tombstone = Incoming {
        key: None,
        value: None,
        headers: &[],
        ..record
    };
    let written = schemas.encode_dead_letter(&tombstone, 0, "rekey", "not_debezium", "");
    let letter = schemas.decode_dead_letter(&written.value).unwrap();
    assert_eq!((letter.key, letter.value, letter.tenant), (None, None, None));
}

/// The bytes of the contract store as the programs that released each version first wrote them: every later version must
/// read them.
#[test]
fn stored_contracts_of_earlier_versions_are_still_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/codec");
    let newest = decisions(through_the_store).pop().unwrap().contract;
    for version in [1, 2, 3] {
        let bytes = std::fs::read(folder.join(format!("contract-store.{version}.bin"))).unwrap();
        assert_eq!(bytes[0], version);
        let (contract, pages) = contract_store::decode(&bytes).unwrap();
        assert_eq!(pages, 0);
        assert_eq!(contract.deal.as_str(), "D-1");
        assert_eq!(contract.facts, newest.facts);
        assert!(!contract.issued.is_empty());
    }
    assert_eq!(
        contract_store::encode(&newest, Paged::default()).unwrap()[0],
        4,
        "a new version needs its fixture here"
    );
}

#[test]
fn a_canonical_event_is_a_fact_or_a_reason() {
    let settings = settings();
    let record = |value: &'static [u8], headers: &'static [(&'static str, &'static [u8])]| Incoming {
        topic: "crm.events",
        partition: 0,
        offset: 0,
        key: None,
        value: Some(value),
        headers,
    };
    let fact = source::fact(
        &record(
            br#"{"date":"2026-02-01"}"#,
            &[
                ("ce_specversion", b"1.0"),
                ("ce_id", b"e1"),
                ("ce_source", b"clock"),
                ("ce_type", b"clock.ticked"),
                ("ce_time", b"2026-02-01T00:00:00Z"),
                ("ce_tenantid", b"acme-corp"),
            ],
        ),
        &settings,
    )
    .unwrap();
    assert_eq!(fact.body.type_name(), "clock.ticked");
    let refused = source::fact(&record(br#"{"event_id":"e9","type":"deal.closed"}"#, &[]), &settings).unwrap_err();
    assert!(refused.message.starts_with("event e9: "), "{refused}");
    assert_eq!(
        source::fact(&record(b"{", &[]), &settings).unwrap_err().code,
        "malformed"
    );
}

#[test]
fn every_product_has_a_schema_of_its_own() {
    let mut names: Vec<String> = Product::ALL
        .iter()
        .map(|product| {
            let schema = apache_avro::Schema::parse_str(product.schema_text()).unwrap();
            schema.name().unwrap().fullname(None)
        })
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), Product::ALL.len());
}
