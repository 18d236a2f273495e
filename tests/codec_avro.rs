//! What we write comes back equal, from this version's bytes and from older ones, and is what the Avro library would write.

mod avro;

use std::path::Path;
use std::sync::Arc;

use accrue::codec::change::{Change, Origin, Said};
use accrue::codec::cloudevents::{self, Attributes};
use accrue::codec::crm_store::{DealPicture, KnownRow};
use accrue::codec::debezium::{Moved, Op, RowChange, TableEvents};
use accrue::codec::position::{LogPosition, Position, TransactionId};
use accrue::codec::registry::{Embedded, Registry, Subject};
use accrue::codec::schemas::{Product, Schemas};
use accrue::codec::trace::Trace;
use accrue::codec::value::{Row, Value};
use accrue::codec::{DecodeError, Incoming};
use accrue::config::TableRole;
use accrue::revenue::fact::*;
use accrue::revenue::ids::*;
use accrue::revenue::money::Currency;
use accrue::revenue::period::Period;
use accrue::revenue::policy::Treatment;
use apache_avro::types::Value as Avro;
use avro::rewritten;
use jiff::Timestamp;
use jiff::civil::Date;
use proptest::option::of;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::Value as Json;

fn schemas(folder: &Path) -> (Arc<Embedded>, Schemas) {
    let registry = Arc::new(Embedded::open(folder).unwrap());
    let schemas = Schemas::register(registry.clone(), |product| format!("{product:?}")).unwrap();
    (registry, schemas)
}

// Strategies: any value the domain allows.

fn id<T: std::fmt::Debug>(parse: fn(String) -> Option<T>) -> impl Strategy<Value = T> {
    "[A-Za-z0-9._-]{1,12}".prop_map(move |text| parse(text).unwrap())
}

fn amount() -> impl Strategy<Value = Decimal> {
    (
        -1_000_000_000_000_000_000_000i128..=1_000_000_000_000_000_000_000,
        0u32..=6,
    )
        .prop_map(|(unscaled, scale)| Decimal::from_i128_with_scale(unscaled / 10i128.pow(6 - scale), scale))
}

fn rate() -> impl Strategy<Value = Decimal> {
    (
        -1_000_000_000_000_000_000_000_000i128..=1_000_000_000_000_000_000_000_000,
        0u32..=12,
    )
        .prop_map(|(unscaled, scale)| Decimal::from_i128_with_scale(unscaled / 10i128.pow(12 - scale), scale))
}

fn day() -> impl Strategy<Value = Date> {
    (-100_000i64..100_000).prop_map(|days| {
        let epoch = jiff::civil::date(1970, 1, 1);
        epoch.checked_add(jiff::Span::new().days(days)).unwrap()
    })
}

fn instant() -> impl Strategy<Value = Timestamp> {
    (-2_000_000_000_000_000i64..4_000_000_000_000_000).prop_map(|micros| Timestamp::from_microsecond(micros).unwrap())
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof!["USD", "EUR", "JPY", "KWD"].prop_map(|code: String| Currency::parse(&code).unwrap())
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn method() -> impl Strategy<Value = Method> {
    use Method::*;
    prop::sample::select(vec![StraightLine, PointInTime, Units, Milestone, Progress, Usage])
}

fn milestone() -> impl Strategy<Value = Milestone> {
    let share = prop_oneof![
        amount().prop_map(MilestoneShare::Amount),
        rate().prop_map(MilestoneShare::Percent)
    ];
    (id(MilestoneId::parse), share).prop_map(|(id, share)| Milestone { id, share })
}

fn line() -> impl Strategy<Value = Line> {
    let prices = (
        amount(),
        of(rate()),
        of(rate()),
        of(rate()),
        of((rate(), rate())),
        of(amount()),
    );
    let time = (
        of(day()),
        of(day()),
        of(method()),
        prop::collection::vec(milestone(), 0..3),
    );
    let flags = (of(any::<bool>()), of(any::<bool>()), of(text()), of(text()));
    (id(LineId::parse), id(LineType::parse), prices, time, flags).prop_map(|(id, line_type, prices, time, flags)| {
        let (amount, quantity, unit_price, ssp, range, discount) = prices;
        let (start, end, method, milestones) = time;
        let (distinct, recurring, name, bundle) = flags;
        let ssp_range = range.map(|(low, high)| SspRange { low, high });
        Line {
            id,
            line_type,
            name,
            amount,
            quantity,
            unit_price,
            ssp,
            ssp_range,
            discount,
            start,
            end,
            method,
            milestones,
            distinct,
            recurring,
            bundle,
        }
    })
}

fn deal() -> impl Strategy<Value = Deal> {
    use BillingCycle::*;
    let cycle = prop::sample::select(vec![Monthly, Quarterly, Annual, Upfront, Milestone]);
    let treatment = prop::sample::select(vec![
        Treatment::Auto,
        Treatment::SeparateContract,
        Treatment::Prospective,
        Treatment::CumulativeCatchUp,
    ]);
    let customer =
        (id(CustomerId::parse), of(text()), of(text())).prop_map(|(customer_id, name, accounting_id)| Customer {
            customer_id,
            name,
            accounting_id,
        });
    let basis = prop_oneof![rate().prop_map(TaxBasis::Rate), amount().prop_map(TaxBasis::Amount)];
    let tax = (basis, any::<bool>()).prop_map(|(basis, inclusive)| Tax { basis, inclusive });
    let renewal = (of(0u32..400), any::<bool>()).prop_map(|(window_days, auto)| Renewal { window_days, auto });
    let terms = (of(0u32..600), of(cycle), of(day()), of(day()), of(day()));
    let rest = (
        of(customer),
        prop::collection::vec(line(), 0..3),
        of(method()),
        of(any::<bool>()),
    );
    let instalments = prop::collection::vec((day(), amount()), 0..3);
    let more = (of(renewal), of(tax), of(treatment), instalments);
    (id(DealId::parse), amount(), currency(), terms, rest, more).prop_map(
        |(deal_id, amount, currency, terms, rest, (renewal, tax, treatment, instalments))| {
            let (term_months, billing_cycle, contract_start, contract_end, effective_date) = terms;
            let (customer, lines, method, defer_setup) = rest;
            Deal {
                deal_id,
                amount,
                currency,
                term_months,
                billing_cycle,
                contract_start,
                contract_end,
                effective_date,
                customer,
                lines,
                recognition: RecognitionTerms { method, defer_setup },
                renewal,
                tax,
                treatment,
                instalments: instalments
                    .into_iter()
                    .map(|(date, amount)| Instalment { date, amount })
                    .collect(),
            }
        },
    )
}

/// Facts that belong to a deal.
fn deal_body() -> impl Strategy<Value = Body> {
    let on = || (id(DealId::parse), id(LineId::parse));
    let refund = prop_oneof![
        Just(Refund::Unused),
        Just(Refund::None),
        amount().prop_map(Refund::Amount)
    ];
    let measure = prop_oneof![
        rate().prop_map(ProgressMeasure::Percent),
        (amount(), amount(), of((amount(), amount()))).prop_map(|(to_date, expected, materials)| {
            ProgressMeasure::Cost {
                to_date,
                expected,
                materials: materials.map(|(to_date, expected)| Materials { to_date, expected }),
            }
        }),
    ];
    prop_oneof![
        3 => deal().prop_map(Body::DealClosed),
        1 => deal().prop_map(Body::DealAmended),
        1 => deal().prop_map(Body::DealRenewed),
        1 => (id(DealId::parse), of(day()), refund, of(text())).prop_map(|(deal_id, effective_date, refund, reason)| {
            Body::DealCancelled(Cancellation { deal_id, effective_date, refund, reason })
        }),
        1 => (on(), id(MilestoneId::parse), day()).prop_map(|((deal_id, line_id), milestone_id, date)| {
            Body::MilestoneAccepted(MilestoneAccepted { deal_id, line_id, milestone_id, date })
        }),
        1 => (on(), rate(), day()).prop_map(|((deal_id, line_id), quantity, date)| {
            Body::DeliveryRecorded(Delivery { deal_id, line_id, quantity, date })
        }),
        1 => (on(), day(), measure, of(0u32..12)).prop_map(|((deal_id, line_id), date, measure, precision)| {
            Body::ProgressMeasured(Progress { deal_id, line_id, date, measure, precision })
        }),
        1 => (on(), day(), rate(), of(amount())).prop_map(|((deal_id, line_id), date, quantity, amount)| {
            Body::UsageReported(Usage { deal_id, line_id, date, quantity, amount })
        }),
        1 => (id(DealId::parse), of(id(LineId::parse)), amount(), of(text()), day()).prop_map(
            |(deal_id, line_id, amount, reason, date)| {
                Body::CreditGranted(Credit { deal_id, line_id, amount, reason, date })
            }
        ),
        1 => (id(DealId::parse), id(EstimateId::parse), of(id(LineId::parse)), day(), consideration(), of(text())).prop_map(
            |(deal_id, estimate_id, line_id, date, consideration, reason)| {
                Body::ConsiderationEstimated(Estimate { deal_id, estimate_id, line_id, date, consideration, reason })
            }
        ),
        1 => (id(DealId::parse), amount(), currency(), day(), of(id(InvoiceId::parse))).prop_map(
            |(deal_id, amount, currency, date, invoice_id)| {
                Body::PaymentReceived(Payment { deal_id, amount, currency, date, invoice_id })
            }
        ),
    ]
}

fn consideration() -> impl Strategy<Value = Consideration> {
    let method = || prop::sample::select(vec![EstimateMethod::ExpectedValue, EstimateMethod::MostLikelyAmount]);
    let outcome = (amount(), rate()).prop_map(|(amount, probability)| Outcome { amount, probability });
    prop_oneof![
        (method(), prop::collection::vec(outcome, 1..4), of(amount())).prop_map(|(method, outcomes, included)| {
            Consideration::Outcomes {
                method,
                outcomes,
                included,
            }
        }),
        (method(), amount(), of(amount())).prop_map(|(method, amount, included)| Consideration::Amount {
            method,
            amount,
            included
        }),
        amount().prop_map(Consideration::Resolved),
    ]
}

fn reference_body() -> impl Strategy<Value = Body> {
    let subject = prop_oneof![
        id(CustomerId::parse).prop_map(MappedSubject::Customer),
        "revenue\\.[a-z]{1,9}".prop_map(MappedSubject::Role),
    ];
    let period =
        || prop_oneof!["20[0-9]{2}-0[1-9]", "FY20[0-9]{2}-P1[0-2]"].prop_map(|label| Period::parse(&label).unwrap());
    prop_oneof![
        (currency(), currency(), day(), rate(), 1u32..9).prop_map(|(base, quote, date, rate, version)| Body::FxRate(
            FxRate {
                base,
                quote,
                date,
                rate,
                version
            }
        )),
        (subject, "[0-9]{4}", day()).prop_map(|(subject, accounting_id, from)| Body::AccountMapped(AccountMapped {
            subject,
            accounting_id,
            from
        })),
        period().prop_map(Body::PeriodClosed),
        period().prop_map(Body::PeriodReopened),
        day().prop_map(Body::ClockTicked),
    ]
}

fn fact(body: impl Strategy<Value = Body>) -> impl Strategy<Value = Fact> {
    (id(EventId::parse), text(), instant(), id(TenantId::parse), body).prop_map(
        |(event_id, source, occurred_at, tenant, body)| Fact {
            event_id,
            source,
            occurred_at,
            tenant,
            body,
        },
    )
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unavailable),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        "[0-9]{1,3}\\.[0-9]{1,3}".prop_map(Value::Number),
        "[0-9]{1,3}\\.[0-9]{1,3}".prop_map(Value::Double),
        amount().prop_map(Value::Decimal),
        text().prop_map(Value::Text),
        day().prop_map(Value::Day),
        (day(), 0i8..24, 0i32..1_000_000_000).prop_map(|(day, hour, nanos)| Value::Local(day.at(hour, 7, 9, nanos))),
        instant().prop_map(Value::Instant),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        Just(Value::Json("[1,{\"a\":null}]".into())),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    prop::collection::vec(("[a-z_]{1,8}", value()), 0..6).prop_map(|columns| columns.into_iter().collect())
}

fn log_position() -> impl Strategy<Value = LogPosition> {
    any::<[i64; 3]>().prop_map(LogPosition)
}

fn row_change() -> impl Strategy<Value = RowChange> {
    let op = prop::sample::select(vec![Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate]);
    let position =
        (of(log_position()), of("[0-9]{1,9}"), of(any::<i64>())).prop_map(|(log, id, total_order)| Position {
            log,
            transaction: id.map(TransactionId),
            total_order,
        });
    let moved = prop_oneof![row().prop_map(Moved::To), row().prop_map(Moved::From)];
    (op, row(), of(row()), position, of(instant()), any::<bool>(), of(moved)).prop_map(
        |(op, key, after, position, at, snapshot, moved)| RowChange {
            op,
            key,
            after,
            position,
            at,
            snapshot,
            moved,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let table = prop::sample::select(vec![
        TableRole::Deals,
        TableRole::DealLineItems,
        TableRole::Customers,
        TableRole::Milestones,
    ]);
    let tables = prop::collection::vec(
        ("[a-z.]{1,9}", 0u64..99).prop_map(|(table, events)| TableEvents { table, events }),
        0..3,
    );
    let said = prop_oneof![
        (table, row_change()).prop_map(|(table, change)| Said::Row { table, change }),
        fact(prop_oneof![deal_body(), reference_body()]).prop_map(Said::Fact),
        ("[0-9]{1,9}", 0u64..99, tables).prop_map(|(id, events, tables)| Said::TransactionEnd {
            id: TransactionId(id),
            events,
            tables
        }),
    ];
    ("[a-z]{1,9}", "[a-z.]{1,9}", 0u32..64, 0u64..1 << 62, said).prop_map(|(source, topic, partition, offset, said)| {
        Change {
            source,
            origin: Origin {
                topic,
                partition,
                offset,
            },
            said,
        }
    })
}

fn known_row() -> impl Strategy<Value = KnownRow> {
    (of(row()), of(log_position()), of(instant())).prop_map(|(row, position, at)| KnownRow { row, position, at })
}

fn picture() -> impl Strategy<Value = DealPicture> {
    let rows = || prop::collection::btree_map("[a-z0-9-]{1,5}", known_row(), 0..3);
    let ids = || prop::collection::vec("[0-9]{1,5}", 0..3);
    let flags = (
        any::<bool>(),
        0u64..1000,
        of(any::<i64>()),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (
        "[a-z]{1,8}",
        known_row(),
        rows(),
        rows(),
        ids(),
        ids(),
        of(fact(deal_body())),
        flags,
    )
        .prop_map(|(mapping, deal, lines, milestones, open, accepted, announced, flags)| {
            let (cancelled, announcements, unsettled_since, parked, baseline, renamed) = flags;
            DealPicture {
                mapping,
                deal,
                lines,
                milestones,
                open_transactions: open.into_iter().map(TransactionId).collect(),
                accepted,
                announced,
                cancelled,
                announcements,
                unsettled_since,
                parked,
                baseline,
                renamed,
            }
        })
}

thread_local! {
    static SHARED: (tempfile::TempDir, Schemas) = {
        let folder = tempfile::tempdir().unwrap();
        let (_, schemas) = schemas(folder.path());
        (folder, schemas)
    };
}

fn with_schemas<T>(test: impl FnOnce(&Schemas) -> T) -> T {
    SHARED.with(|(_, schemas)| test(schemas))
}

proptest! {
    #[test]
    fn facts_come_back_equal(fact in fact(prop_oneof![deal_body(), reference_body()])) {
        let bytes = with_schemas(|schemas| schemas.encode_fact(&fact)).unwrap();
        prop_assert_eq!(&with_schemas(|schemas| schemas.encode_fact(&fact)).unwrap(), &bytes);
        prop_assert_eq!(rewritten(Product::ContractFacts.schema_text(), &bytes[5..]), &bytes[5..]);
        prop_assert_eq!(with_schemas(|schemas| schemas.decode_fact(&bytes)).unwrap(), fact);
    }

    #[test]
    fn deal_events_come_back_equal(fact in fact(deal_body())) {
        let bytes = with_schemas(|schemas| schemas.encode_deal_event(&fact)).unwrap();
        prop_assert_eq!(rewritten(Product::DealCanonical.schema_text(), &bytes[5..]), &bytes[5..]);
        prop_assert_eq!(with_schemas(|schemas| schemas.decode_deal_event(&bytes)).unwrap(), fact);
    }

    #[test]
    fn reference_facts_are_no_deal_events(fact in fact(reference_body())) {
        let refused = with_schemas(|schemas| schemas.encode_deal_event(&fact)).unwrap_err();
        prop_assert_eq!(refused.code, "unencodable");
    }

    #[test]
    fn changes_come_back_equal(change in change()) {
        let bytes = with_schemas(|schemas| schemas.encode_change(&change)).unwrap();
        prop_assert_eq!(rewritten(Product::CrmChanges.schema_text(), &bytes[5..]), &bytes[5..]);
        prop_assert_eq!(with_schemas(|schemas| schemas.decode_change(&bytes)).unwrap(), change);
    }

    #[test]
    fn pictures_come_back_equal(picture in picture(), known in known_row()) {
        for bytes in [picture.encode().unwrap(), known.encode().unwrap()] {
            prop_assert_eq!(rewritten(include_str!("../avro/crm-store.avsc"), &bytes[1..]), &bytes[1..]);
        }
        prop_assert_eq!(DealPicture::decode(&picture.encode().unwrap()).unwrap(), picture);
        prop_assert_eq!(KnownRow::decode(&known.encode().unwrap()).unwrap(), known);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(picture in picture(), cut in any::<prop::sample::Index>()) {
        let bytes = picture.encode().unwrap();
        let cut = cut.index(bytes.len());
        prop_assert_eq!(DealPicture::decode(&bytes[..cut]).unwrap_err().code, "bad_store");
    }
}

fn a_fact() -> Fact {
    Fact {
        event_id: EventId::parse("evt-1").unwrap(),
        source: "salesforce".into(),
        occurred_at: "2026-01-17T10:22:33Z".parse().unwrap(),
        tenant: TenantId::parse("acme-corp").unwrap(),
        body: Body::DealCancelled(Cancellation {
            deal_id: DealId::parse("D-98765").unwrap(),
            effective_date: Some(jiff::civil::date(2026, 6, 1)),
            refund: Refund::Amount(Decimal::new(5_000_000, 2)),
            reason: None,
        }),
    }
}

#[test]
fn too_many_digits_are_refused_and_not_rounded() {
    let mut fact = a_fact();
    fact.body = Body::FxRate(FxRate {
        base: Currency::parse("EUR").unwrap(),
        quote: Currency::parse("USD").unwrap(),
        date: jiff::civil::date(2026, 1, 1),
        rate: Decimal::from_str_exact("1.0000000000001").unwrap(),
        version: 1,
    });
    let refused = with_schemas(|schemas| schemas.encode_fact(&fact)).unwrap_err();
    assert_eq!(refused.code, "unencodable");
    assert!(refused.message.contains("more than 12 decimals"), "{refused}");
}

#[test]
fn instants_are_kept_to_the_microsecond_towards_the_past() {
    for (given, kept) in [
        ("2026-01-17T10:22:33.123456789Z", "2026-01-17T10:22:33.123456Z"),
        ("1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999999Z"),
    ] {
        let mut fact = a_fact();
        fact.occurred_at = given.parse().unwrap();
        let back = with_schemas(|schemas| schemas.decode_fact(&schemas.encode_fact(&fact).unwrap())).unwrap();
        assert_eq!(back.occurred_at, kept.parse().unwrap());
    }
}

/// Changes every record named `record` in a schema.
fn edit(schema: &mut Json, record: &str, change: &dyn Fn(&mut Vec<Json>)) {
    if schema.get("name").and_then(Json::as_str) == Some(record)
        && let Some(fields) = schema.get_mut("fields").and_then(Json::as_array_mut)
    {
        change(fields);
    }
    match schema {
        Json::Object(fields) => fields.values_mut().for_each(|inner| edit(inner, record, change)),
        Json::Array(items) => items.iter_mut().for_each(|inner| edit(inner, record, change)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// A record of `schema` with the given fields, and null for the others.
fn record(schema: &Json, given: Vec<(&str, Avro)>) -> Avro {
    let fields = schema["fields"].as_array().unwrap().iter().map(|field| {
        let name = field["name"].as_str().unwrap();
        let value = given
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone());
        (name.to_string(), value.unwrap_or(Avro::Union(0, Box::new(Avro::Null))))
    });
    Avro::Record(fields.collect())
}

/// Bytes written by another version of the schema, as that version's own program would.
fn written_by(registry: &Embedded, schema: &Json, record: Avro) -> Vec<u8> {
    let text = schema.to_string();
    let id = registry.register(&Subject::value_of("ContractFacts"), &text).unwrap();
    let schema = apache_avro::Schema::parse_str(&text).unwrap();
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .build()
        .unwrap();
    [
        &[0][..],
        &id.0.to_be_bytes(),
        &writer.write_value_to_vec(record).unwrap(),
    ]
    .concat()
}

#[test]
fn records_of_an_older_and_a_newer_schema_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, schemas) = schemas(folder.path());
    let current: Json = serde_json::from_str(Product::ContractFacts.schema_text()).unwrap();

    // Older: before fields that have defaults today were added.
    let mut older = current.clone();
    let without = ["clock", "account", "payment", "usage"];
    edit(&mut older, "Fact", &|fields| {
        fields.retain(|field| !without.contains(&field["name"].as_str().unwrap()));
    });
    edit(&mut older, "Cancellation", &|fields| {
        fields.retain(|field| field["name"] != "reason")
    });
    // Newer: fields of every kind that this version has never heard of, before and between those it knows.
    let mut newer = current.clone();
    edit(&mut newer, "Fact", &|fields| {
        let added: Vec<Json> = serde_json::from_str(
            r#"[{"name":"fee","type":["null",{"type":"bytes","logicalType":"decimal","precision":28,"scale":6}],"default":null},
                {"name":"mood","type":{"type":"enum","name":"Mood","symbols":["CALM","TENSE"]},"default":"CALM"},
                {"name":"notes","type":{"type":"array","items":{"type":"record","name":"Note","fields":[
                    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
                    {"name":"words","type":["null","string"],"default":null}]}},"default":[]},
                {"name":"tags","type":{"type":"map","values":"string"},"default":{}}]"#,
        )
        .unwrap();
        fields.splice(2..2, added);
    });
    edit(&mut newer, "Cancellation", &|fields| {
        fields.insert(0, serde_json::json!({"name": "fee", "type": "double", "default": 0.0}));
    });

    let text = |text: &str| Avro::String(text.into());
    let some = |value| Avro::Union(1, Box::new(value));
    let decimal = |bytes: &[u8]| Avro::Decimal(apache_avro::Decimal::from(bytes));
    let cancellation_of = |schema: &Json| {
        let fields = schema["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == "cancellation").unwrap()["type"][1].clone()
    };
    let envelope = |schema: &Json, ours: Vec<(&str, Avro)>, theirs: Vec<(&str, Avro)>| {
        let mut cancellation = vec![
            ("effective_date", some(Avro::Date(20_605))),
            ("refund", text("amount")),
            // 50,000.00 in the fewest bytes, far fewer than the precision allows
            ("refund_amount", some(decimal(&[0x0b, 0xa4, 0x3b, 0x74, 0x00]))),
        ];
        cancellation.extend(theirs);
        let mut fields = vec![
            ("event_id", text("evt-1")),
            ("source", text("salesforce")),
            ("type", text("deal.cancelled")),
            ("occurred_at", Avro::TimestampMicros(1_768_645_353_000_000)),
            ("tenant_id", text("acme-corp")),
            ("deal_id", some(text("D-98765"))),
            ("cancellation", some(record(&cancellation_of(schema), cancellation))),
        ];
        fields.extend(ours);
        record(schema, fields)
    };
    let note = Avro::Record(vec![
        ("at".into(), Avro::TimestampMicros(1)),
        ("words".into(), some(text("unseen"))),
    ]);
    let unseen = vec![
        ("fee", some(decimal(&[7]))),
        ("mood", Avro::Enum(1, "TENSE".into())),
        ("notes", Avro::Array(vec![note.clone(), note])),
        ("tags", Avro::Map([("a".to_string(), text("b"))].into_iter().collect())),
    ];
    let old = written_by(&registry, &older, envelope(&older, vec![], vec![]));
    let new = written_by(
        &registry,
        &newer,
        envelope(&newer, unseen, vec![("fee", Avro::Double(1.5))]),
    );
    for bytes in [old, new] {
        assert_eq!(schemas.decode_fact(&bytes).unwrap(), a_fact());
    }
}

#[test]
fn a_new_optional_field_is_allowed_on_the_public_topic_and_a_required_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, _) = schemas(folder.path());
    let subject = Subject::value_of("DealCanonical");
    let with = |field: Json| {
        let mut schema: Json = serde_json::from_str(Product::DealCanonical.schema_text()).unwrap();
        edit(&mut schema, "LineItem", &|fields| fields.push(field.clone()));
        registry.check(&subject, &schema.to_string())
    };
    with(serde_json::json!({"name": "region", "type": ["null", "string"], "default": null})).unwrap();
    with(serde_json::json!({"name": "region", "type": "string"})).unwrap_err();
}

/// Every schema of the repository: its file's name and text.
fn schema_files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("avro");
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "avsc"))
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(path).unwrap(),
            )
        })
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{}", files.len());
    files
}

/// A record that several schemas share has the same fields in each of them.
#[test]
fn shared_records_are_one() {
    fn records(schema: &Json, found: &mut Vec<(String, Json)>) {
        match schema {
            Json::Object(fields) => {
                if fields.get("namespace").and_then(Json::as_str) == Some("io.accrue.facts.v1") {
                    found.push((fields["name"].as_str().unwrap().into(), fields["fields"].clone()));
                }
                fields.values().for_each(|inner| records(inner, found));
            }
            Json::Array(items) => items.iter().for_each(|inner| records(inner, found)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
    let mut by_name = std::collections::BTreeMap::<String, Json>::new();
    let mut shared = 0;
    // Versions that are only read stand as they were written: `contract-store.1.avsc`.
    let newest = |file: &str| file.matches('.').count() == 1;
    for (_, text) in schema_files().into_iter().filter(|(file, _)| newest(file)) {
        let schema = serde_json::from_str(&text).unwrap();
        let mut found = Vec::new();
        records(&schema, &mut found);
        for (name, fields) in found {
            if let Some(known) = by_name.get(&name) {
                assert_eq!(known, &fields, "{name}");
                shared += 1;
            }
            by_name.insert(name, fields);
        }
    }
    assert!(by_name.contains_key("LineItem") && shared > 20, "{shared}");
}

#[test]
fn every_schema_is_documented_to_the_last_field() {
    fn undocumented(schema: &Json, path: &str, found: &mut Vec<String>) {
        match schema {
            Json::Object(fields) => {
                let name = fields.get("name").and_then(Json::as_str);
                let path = name.map_or(path.to_string(), |name| format!("{path}.{name}"));
                let named = name.is_some() && fields.contains_key("type");
                if named && fields.get("doc").and_then(Json::as_str).is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                fields.values().for_each(|inner| undocumented(inner, &path, found));
            }
            Json::Array(items) => items.iter().for_each(|inner| undocumented(inner, path, found)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
    let mut found = Vec::new();
    for (_, text) in schema_files() {
        apache_avro::Schema::parse_str(&text).unwrap();
        undocumented(&serde_json::from_str(&text).unwrap(), "", &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

/// A word added to an Avro enum breaks every older reader; a word added to a string does not.
#[test]
fn no_schema_has_an_enum() {
    for (name, text) in schema_files() {
        assert!(
            !text.contains(r#""enum""#),
            "{}: write a string with documented words instead",
            name
        );
    }
}

#[test]
fn a_picture_of_the_version_before_renamed_deals_is_read() {
    let picture = DealPicture {
        mapping: "crm".into(),
        baseline: true,
        announced: Some(a_fact()),
        ..DealPicture::default()
    };
    let mut bytes = picture.encode().unwrap();
    // The last field of the deal, before the null in place of a row.
    bytes.remove(bytes.len() - 2);
    bytes[0] = 3;
    assert_eq!(DealPicture::decode(&bytes).unwrap(), picture);
}

#[test]
fn stored_state_of_a_newer_program_is_refused_with_what_to_do() {
    let mut bytes = DealPicture::default().encode().unwrap();
    bytes[0] = 9;
    let refused = DealPicture::decode(&bytes).unwrap_err();
    assert_eq!(refused.code, "bad_store");
    assert!(
        refused.message.contains("version 9") && refused.message.contains("a newer one"),
        "{refused}"
    );
    assert!(KnownRow::decode(&DealPicture::default().encode().unwrap()).is_err());
}

fn incoming<'a>(value: &'a str, headers: &'a [(&'a str, &'a [u8])]) -> Incoming<'a> {
    Incoming {
        topic: "crm",
        partition: 0,
        offset: 1,
        key: None,
        value: Some(value.as_bytes()),
        headers,
    }
}

#[test]
fn an_event_is_the_same_plain_binary_and_structured() {
    let plain = r#"{"event_id":"e1","source":"crm","type":"clock.ticked","occurred_at":"2026-01-01T00:00:00Z",
        "tenant_id":"acme","payload":{"date":"2026-02-01","amount":120000.10}}"#;
    let read =
        |record: &Incoming<'_>| -> Json { serde_json::from_slice(&cloudevents::canonical(record).unwrap()).unwrap() };
    let expected = read(&incoming(plain, &[]));
    assert_eq!(
        expected["payload"]["amount"].to_string(),
        "120000.10",
        "numbers keep their text"
    );
    let attributes: [(&str, &[u8]); 7] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"e1"),
        ("ce_source", b"crm"),
        ("ce_type", b"clock.ticked"),
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("ce_tenantid", b"acme"),
        ("content-type", b"application/json; charset=utf-8"),
    ];
    let data = r#"{"date":"2026-02-01","amount":120000.10}"#;
    assert_eq!(read(&incoming(data, &attributes)), expected);
    assert_eq!(read(&incoming(plain, &attributes)), expected);
    let fields = r#""specversion":"1.0","id":"e1","source":"crm","type":"clock.ticked","time":"2026-01-01T00:00:00Z",
        "tenantid":"acme","subject":"ignored""#;
    let structured = format!(r#"{{{fields},"data":{data}}}"#);
    let header: [(&str, &[u8]); 1] = [("content-type", b"application/cloudevents+json")];
    assert_eq!(read(&incoming(&structured, &header)), expected);
    assert_eq!(read(&incoming(&structured, &[])), expected);
    let encoded = "eyJkYXRlIjoiMjAyNi0wMi0wMSIsImFtb3VudCI6MTIwMDAwLjEwfQ==";
    let base64 = format!(r#"{{{fields},"data_base64":"{encoded}"}}"#);
    assert_eq!(read(&incoming(&base64, &header)), expected);

    for (value, headers, words) in [
        (data, &attributes[..5], "ce_tenantid"),
        (data, &[("ce_specversion", &b"0.3"[..])][..], "specversion is 0.3"),
        (
            data,
            &[("content-type", &b"application/cloudevents-batch+json"[..])][..],
            "batches",
        ),
        ("{", &attributes[..], "not JSON"),
        (
            "[]",
            &[("content-type", &b"application/cloudevents+json"[..])][..],
            "JSON object",
        ),
        (
            "<a/>",
            &[("ce_specversion", &b"1.0"[..]), ("content-type", b"application/xml")][..],
            "send JSON",
        ),
    ] {
        let refused = cloudevents::canonical(&incoming(value, headers)).unwrap_err();
        assert!(refused.message.contains(words), "{refused}");
    }
}

#[test]
fn what_we_emit_is_a_cloud_event_with_its_trace() {
    let tenant = TenantId::parse("acme").unwrap();
    let time = "2026-01-17T10:22:33Z".parse().unwrap();
    let attributes = Attributes::new("accrue", time, Some("D-1"), &tenant);
    let trace = Trace::of(&incoming("", &[])).child("journal.entries", "je-1");
    let headers: Vec<_> = attributes.headers("je-1", "journal.entry", &trace).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_time",
            "ce_subject",
            "ce_tenantid",
            "content-type",
            "traceparent"
        ]
    );
    assert_eq!(headers[4].1, "2026-01-17T10:22:33Z");
    assert_eq!(headers[8].1, trace.to_string());
    let again: Vec<_> = attributes.headers("je-1", "journal.entry", &trace).collect();
    assert_eq!(headers, again);
}

/// Stream threads have ordinary stacks; a full record must not need much of one.
#[test]
fn a_quarter_of_a_megabyte_of_stack_is_enough() {
    let work = || {
        let folder = tempfile::tempdir().unwrap();
        let (_, schemas) = schemas(folder.path());
        let bytes = schemas.encode_fact(&a_fact()).unwrap();
        assert_eq!(schemas.decode_fact(&bytes).unwrap(), a_fact());
        let picture = DealPicture {
            announced: Some(a_fact()),
            ..DealPicture::default()
        };
        assert_eq!(DealPicture::decode(&picture.encode().unwrap()).unwrap(), picture);
    };
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_damaged_length_does_not_ask_for_the_memory_it_names() {
    with_schemas(|schemas| {
        let mut bytes = schemas.encode_fact(&a_fact()).unwrap();
        // The first field's length, as the largest number a varint of nine bytes holds.
        bytes.splice(5..6, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        let refused = schemas.decode_fact(&bytes).unwrap_err().to_string();
        assert!(refused.ends_with("event_id: the Avro datum is cut short"), "{refused}");
    });
}

#[test]
fn bytes_of_another_program_are_refused() {
    with_schemas(|schemas| {
        let good = schemas.encode_fact(&a_fact()).unwrap();
        for bytes in [&b""[..], b"{}", &good[..good.len() - 1], &[&good[..], b"x"].concat()] {
            match schemas.decode_fact(bytes) {
                Err(DecodeError::Refused(refused)) => assert_eq!(refused.code, "not_avro", "{refused}"),
                other => panic!("{other:?}"),
            }
        }
    });
}
