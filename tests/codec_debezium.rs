//! Debezium records, as real connectors sent them, become the same rows in every format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use accrue::codec::change::Said;
use accrue::codec::debezium::{Message, Moved, Op, RowChange, TableEvents, TransactionMark, decode_json};
use accrue::codec::position::{LogPosition, TransactionId};
use accrue::codec::registry::{Compatibility, Embedded, Registry, RegistryError, SchemaId, Subject};
use accrue::codec::schemas::Schemas;
use accrue::codec::source;
use accrue::codec::value::{Row, Value};
use accrue::codec::{DecodeError, Incoming, Refused};
use accrue::config::{self, TableRole};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil::date;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::Value as Json;

fn fixture(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/debezium")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A record of a fixture, owned.
struct Sample {
    offset: u64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Sample {
    fn read<T>(&self, decode: impl FnOnce(&Incoming<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        decode(&Incoming {
            topic: "crm.deals",
            partition: 0,
            offset: self.offset,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        })
    }
}

fn samples(name: &str) -> Vec<Sample> {
    fixture(name)
        .lines()
        .map(|line| {
            let record: Json = serde_json::from_str(line).unwrap();
            let part = |json: &str, base64: &str| match (&record[json], &record[base64]) {
                (_, Json::String(text)) => Some(BASE64.decode(text).unwrap()),
                (Json::Null, _) => None,
                (json, _) if record.get(base64).is_none() => Some(json.to_string().into_bytes()),
                _ => None,
            };
            let headers = record["headers"].as_array().unwrap().iter().map(|header| {
                let value = BASE64.decode(header[1].as_str().unwrap()).unwrap();
                (header[0].as_str().unwrap().to_string(), value)
            });
            Sample {
                offset: record["offset"].as_u64().unwrap(),
                key: part("key", "key_b64"),
                value: part("value", "value_b64"),
                headers: headers.collect(),
            }
        })
        .collect()
}

/// Key and value as text, split by a tab, as the console consumer printed them.
fn lines(name: &str) -> Vec<Sample> {
    fixture(name)
        .lines()
        .map(|line| {
            let (key, value) = line.split_once('\t').unwrap();
            let key = (key != "null").then(|| key.as_bytes().to_vec());
            Sample {
                offset: 0,
                key,
                value: Some(value.as_bytes().to_vec()),
                headers: Vec::new(),
            }
        })
        .collect()
}

fn json(key: &str, value: &str) -> Result<Message, Refused> {
    decode_json(&Incoming {
        topic: "crm.deals",
        partition: 0,
        offset: 0,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: &[],
    })
}

/// A registry that holds the writers' schemas under the ids that the fixtures carry.
fn avro_schemas(folder: &Path) -> Schemas {
    let registry = Embedded::open(folder).unwrap();
    for (id, subject) in [(1, "key"), (2, "value"), (3, "value")] {
        let schema = fixture(&format!("avro-schema-id-{id}.avsc"));
        let got = registry
            .register(&Subject::new(format!("av.crm.deals-{subject}")), &schema)
            .unwrap();
        assert_eq!(got, SchemaId(id));
    }
    Schemas::register(Arc::new(registry), |product| format!("{product:?}")).unwrap()
}

fn avro(schemas: &Schemas, sample: &Sample) -> Message {
    sample.read(|record| schemas.decode_debezium_avro(record)).unwrap()
}

fn row_of(message: Message) -> RowChange {
    match message {
        Message::Row(change) => change,
        other => panic!("not a row: {other:?}"),
    }
}

/// What a mapping reads off the deals table, whatever the format: the row's meaning.
#[derive(Debug, PartialEq)]
struct Deal {
    id: Option<i64>,
    name: Option<String>,
    stage: Option<String>,
    amount: Option<Decimal>,
    currency: Option<String>,
    owner: Option<String>,
    probability: Option<String>,
    closed: Option<bool>,
    close_date: Option<jiff::civil::Date>,
    tags: Option<String>,
    attrs: Option<String>,
    created_at: Option<jiff::Timestamp>,
    updated_at: Option<jiff::Timestamp>,
    region: Option<String>,
}

fn deal(row: &Row) -> Deal {
    let utc = TimeZone::UTC;
    Deal {
        id: row.integer("id").unwrap(),
        name: row.text("name").unwrap(),
        stage: row.text("stage").unwrap(),
        amount: row.decimal("amount", Some(2)).unwrap(),
        currency: row.text("currency").unwrap(),
        owner: row.text("owner_id").unwrap(),
        probability: row.text("probability").unwrap(),
        closed: row.boolean("closed").unwrap(),
        close_date: row.day("close_date", &utc).unwrap(),
        tags: row.text("tags").unwrap(),
        attrs: row.text("attrs").unwrap(),
        created_at: row.instant("created_at", &utc).unwrap(),
        updated_at: row.instant("updated_at", &utc).unwrap(),
        region: row.text("region").unwrap(),
    }
}

#[derive(Debug, PartialEq)]
enum Told {
    Row {
        op: Op,
        key: Option<i64>,
        after: Option<Box<Deal>>,
        moved: Option<(bool, Option<i64>)>,
        snapshot: bool,
    },
    Tombstone(Option<i64>),
}

fn told(message: Message) -> Told {
    match message {
        Message::Row(change) => Told::Row {
            op: change.op,
            key: change.key.integer("id").unwrap(),
            after: change.after.as_ref().map(|row| Box::new(deal(row))),
            moved: change.moved.map(|moved| match moved {
                Moved::To(key) => (true, key.integer("id").unwrap()),
                Moved::From(key) => (false, key.integer("id").unwrap()),
            }),
            snapshot: change.snapshot,
        },
        Message::Tombstone { key } => Told::Tombstone(key.integer("id").unwrap()),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn the_three_formats_tell_the_same_story() {
    let folder = tempfile::tempdir().unwrap();
    let schemas = avro_schemas(folder.path());
    let plain: Vec<Told> = samples("json-without-schemas.jsonl")
        .iter()
        .map(|s| told(s.read(decode_json).unwrap()))
        .collect();
    let with: Vec<Told> = samples("json-with-schemas.jsonl")
        .iter()
        .map(|s| told(s.read(decode_json).unwrap()))
        .collect();
    let wire: Vec<Told> = samples("avro-confluent-wire.jsonl")
        .iter()
        .map(|s| told(avro(&schemas, s)))
        .collect();
    assert_eq!(plain.len(), 16);
    assert_eq!(plain, with);
    assert_eq!(plain, wire);

    let kinds: Vec<(Option<Op>, Option<i64>)> = plain
        .iter()
        .map(|told| match told {
            Told::Row { op, key, .. } => (Some(*op), *key),
            Told::Tombstone(key) => (None, *key),
        })
        .collect();
    use Op::{Create, Delete, Read, Update};
    let expected = [
        (Some(Read), 1),
        (Some(Read), 2),
        (Some(Create), 3),
        (Some(Update), 3),
        (Some(Delete), 3),
        (None, 3),
        (Some(Create), 4),
        (Some(Create), 5),
        (Some(Update), 2),
        (Some(Update), 1),
        (Some(Delete), 5),
        (None, 5),
        (Some(Update), 1),
        (Some(Delete), 4),
        (None, 4),
        (Some(Create), 1004),
    ];
    assert_eq!(kinds, expected.map(|(op, key)| (op, Some(key))));
    match &plain[3] {
        Told::Row {
            after: Some(after),
            moved: None,
            snapshot: false,
            ..
        } => assert_eq!(
            **after,
            Deal {
                id: Some(3),
                name: Some("Initech expansion".into()),
                stage: Some("won".into()),
                amount: Some(Decimal::new(4_500_050, 2)),
                currency: Some("EUR".into()),
                owner: Some("0b5f2f50-3f0e-4a3c-8d2e-8f1f4a5c9d10".into()),
                probability: Some("0.6".into()),
                closed: Some(true),
                close_date: Some(date(2027, 3, 31)),
                tags: Some(r#"["upsell"]"#.into()),
                attrs: Some(r#"{"src": "salesforce", "score": 87}"#.into()),
                created_at: Some("2026-11-24T11:28:40.124759Z".parse().unwrap()),
                updated_at: Some("2026-11-24T11:00:00.5Z".parse().unwrap()),
                region: None,
            }
        ),
        other => panic!("{other:?}"),
    }
    assert!(matches!(&plain[0], Told::Row { snapshot: true, .. }));
    assert!(matches!(&plain[12], Told::Row { after: Some(after), .. } if after.region.as_deref() == Some("EMEA")));
    assert!(matches!(
        &plain[13],
        Told::Row {
            moved: Some((true, Some(1004))),
            ..
        }
    ));
    assert!(matches!(
        &plain[15],
        Told::Row {
            moved: Some((false, Some(4))),
            ..
        }
    ));
}

#[test]
fn with_a_schema_the_typed_rows_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let schemas = avro_schemas(folder.path());
    let with = samples("json-with-schemas.jsonl");
    let wire = samples("avro-confluent-wire.jsonl");
    let mut rows = 0;
    for (with, wire) in with.iter().zip(&wire) {
        match (with.read(decode_json).unwrap(), avro(&schemas, wire)) {
            (Message::Row(with), Message::Row(wire)) => {
                assert_eq!((with.op, &with.key, &with.after), (wire.op, &wire.key, &wire.after));
                rows += 1;
            }
            (with, wire) => assert_eq!(with, wire),
        }
    }
    assert_eq!(rows, 13);
    let row = row_of(with[2].read(decode_json).unwrap()).after.unwrap();
    assert_eq!(row.get("amount"), Some(&Value::Decimal(Decimal::new(4_500_000, 2))));
    assert_eq!(row.get("probability"), Some(&Value::Double("0.6".into())));
    assert_eq!(row.get("close_date"), Some(&Value::Day(date(2027, 3, 31))));
    assert_eq!(
        row.get("updated_at"),
        Some(&Value::Local(date(2026, 11, 24).at(11, 0, 0, 500_000_000)))
    );
    assert!(
        row.decimal("probability", None)
            .unwrap_err()
            .to_string()
            .contains("decimal.handling.mode")
    );
}

#[test]
fn positions_and_transactions_meet() {
    let changes: Vec<RowChange> = samples("json-without-schemas.jsonl")
        .iter()
        .filter_map(|sample| match sample.read(decode_json).unwrap() {
            Message::Row(change) => Some(change),
            Message::Tombstone { .. } | Message::Transaction(_) | Message::Nothing => None,
        })
        .collect();
    assert_eq!(changes[2].position.log, Some(LogPosition([26_386_232, 0, 0])));
    assert_eq!(changes[2].at, Some("2026-11-24T11:28:40.125618Z".parse().unwrap()));
    let logs: Vec<_> = changes
        .iter()
        .map(|change| (change.position.log, change.position.total_order))
        .collect();
    assert!(logs.is_sorted(), "{logs:?}");

    // Three changes of one transaction carry three different metadata ids; the END carries a fourth.
    let of_737: Vec<Option<i64>> = changes
        .iter()
        .filter(|change| change.position.transaction == Some(TransactionId("737".into())))
        .map(|change| change.position.total_order)
        .collect();
    assert_eq!(of_737, [Some(1), Some(2), Some(3)]);

    let marks: Vec<TransactionMark> = samples("json-transaction-topic.jsonl")
        .iter()
        .map(|sample| match sample.read(decode_json).unwrap() {
            Message::Transaction(mark) => mark,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(marks.len(), 18);
    assert_eq!(
        marks[6],
        TransactionMark::Begin {
            id: TransactionId("737".into())
        }
    );
    assert_eq!(
        marks[7],
        TransactionMark::End {
            id: TransactionId("737".into()),
            events: 3,
            tables: vec![TableEvents {
                table: "crm.deals".into(),
                events: 3
            }],
        }
    );
    assert_eq!(
        marks[17],
        TransactionMark::End {
            id: TransactionId("744".into()),
            events: 0,
            tables: vec![]
        }
    );
}

#[test]
fn a_delete_says_nothing_but_its_key() {
    // The real record's `before` holds an empty name and 1970; no way leads to them.
    let change = row_of(samples("json-without-schemas.jsonl")[4].read(decode_json).unwrap());
    assert_eq!((change.op, change.after), (Op::Delete, None));
    assert_eq!(change.key.columns().collect::<Vec<_>>(), [("id", &Value::Int(3))]);
}

#[test]
fn heartbeats_truncates_and_flattened_rows() {
    for sample in lines("heartbeat.txt") {
        assert_eq!(sample.read(decode_json), Ok(Message::Nothing));
    }
    let truncate = row_of(lines("truncate.txt")[0].read(decode_json).unwrap());
    assert_eq!(
        (truncate.op, truncate.key.is_empty(), truncate.after),
        (Op::Truncate, true, None)
    );

    let flat: Vec<RowChange> = lines("flattened.txt")
        .iter()
        .map(|sample| row_of(sample.read(decode_json).unwrap()))
        .collect();
    assert_eq!(
        flat.iter().map(|change| change.op).collect::<Vec<_>>(),
        [Op::Create, Op::Update, Op::Delete]
    );
    assert_eq!(flat[1].position.log, Some(LogPosition([26_395_688, 0, 0])));
    let row = flat[1].after.as_ref().unwrap();
    assert_eq!(row.decimal("amount", None).unwrap(), Some(Decimal::new(525, 2)));
    assert_eq!(row.text("stage").unwrap().as_deref(), Some("x"));
    assert!(row.columns().all(|(column, _)| !column.starts_with("__")));
    assert_eq!(flat[2].after, None);
    assert_eq!(flat[2].key.integer("id").unwrap(), Some(6));
}

#[test]
fn every_decimal_mode() {
    let schema = |column: &str| {
        format!(r#"{{"type":"struct","fields":[{{"type":"struct","field":"after","fields":[{column}]}}]}}"#)
    };
    let row = |schema: Option<String>, amount: &str| {
        let payload = format!(r#"{{"op":"c","source":{{}},"after":{{"amount":{amount}}}}}"#);
        let value = match schema {
            Some(schema) => format!(r#"{{"schema":{schema},"payload":{payload}}}"#),
            None => payload,
        };
        row_of(json(r#"{"id":1}"#, &value).unwrap()).after.unwrap()
    };
    let expected = Some(Decimal::new(4_500_050, 2));
    // string: text, with or without a schema
    assert_eq!(row(None, r#""45000.50""#).decimal("amount", None).unwrap(), expected);
    // precise, no schema: base64 and a declared scale
    assert_eq!(row(None, r#""RKpS""#).decimal("amount", Some(2)).unwrap(), expected);
    let error = row(None, r#""RKpS""#).decimal("amount", None).unwrap_err();
    assert!(error.to_string().contains("decimal_scale"), "{error}");
    let error = row(None, r#""45000.50""#).decimal("amount", Some(2)).unwrap_err();
    assert!(error.to_string().contains("remove decimal_scale"), "{error}");
    // precise, with a schema: the scale is the record's, whatever was declared
    let precise = schema(
        r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"amount"}"#,
    );
    assert_eq!(
        row(Some(precise), r#""RKpS""#).decimal("amount", Some(4)).unwrap(),
        expected
    );
    // a numeric without scale: VariableScaleDecimal, with and without a schema
    let variable = r#"{"scale":2,"value":"RKpS"}"#;
    let named = schema(r#"{"type":"struct","name":"io.debezium.data.VariableScaleDecimal","field":"amount"}"#);
    assert_eq!(row(None, variable).decimal("amount", None).unwrap(), expected);
    assert_eq!(row(Some(named), variable).decimal("amount", None).unwrap(), expected);
    // double: the text where it is exact, never a value known to be binary
    assert_eq!(row(None, "45000.5").decimal("amount", None).unwrap(), expected);
    assert!(row(None, "1.2345678901234568E16").decimal("amount", None).is_err());
    let double = schema(r#"{"type":"double","field":"amount"}"#);
    assert!(row(Some(double), "45000.5").decimal("amount", None).is_err());
    // whole numbers, negative ones, and what is no number
    assert_eq!(
        row(None, "45000").decimal("amount", None).unwrap(),
        Some(Decimal::from(45_000))
    );
    assert_eq!(
        row(None, r#""/w==""#).decimal("amount", Some(2)).unwrap(),
        Some(Decimal::new(-1, 2))
    );
    assert_eq!(row(None, "null").decimal("amount", None).unwrap(), None);
    for nonsense in [r#""NaN""#, "true", r#"["1"]"#, r#""1,000.00""#] {
        assert!(row(None, nonsense).decimal("amount", None).is_err(), "{nonsense}");
    }
}

#[test]
fn every_temporal_mode() {
    let paris = TimeZone::get("Europe/Paris").unwrap();
    let row = |name: &str, kind: &str, text: &str| {
        let value = match name {
            "" => format!(r#"{{"op":"c","source":{{}},"after":{{"at":{text}}}}}"#),
            _ => format!(
                r#"{{"schema":{{"type":"struct","fields":[{{"type":"struct","field":"after","fields":[
                {{"type":"{kind}","name":"{name}","field":"at"}}]}}]}},
                "payload":{{"op":"c","source":{{}},"after":{{"at":{text}}}}}}}"#
            ),
        };
        row_of(json(r#"{"id":1}"#, &value).unwrap()).after.unwrap()
    };
    // 2026-01-31 as days, and 2026-01-31T23:30:00 without a zone: its day is its own, in whatever zone
    let day = date(2026, 1, 31);
    for (name, kind, text) in [
        ("io.debezium.time.Date", "int32", "20484"),
        ("org.apache.kafka.connect.data.Date", "int32", "20484"),
        ("io.debezium.time.IsoDate", "string", r#""2026-01-31Z""#),
        ("io.debezium.time.Timestamp", "int64", "1769902200000"),
        ("org.apache.kafka.connect.data.Timestamp", "int64", "1769902200000"),
        ("io.debezium.time.MicroTimestamp", "int64", "1769902200000000"),
        ("io.debezium.time.NanoTimestamp", "int64", "1769902200000000000"),
        ("io.debezium.time.IsoTimestamp", "string", r#""2026-01-31T23:30:00Z""#),
        ("", "", "20484"),
        ("", "", "1769902200000"),
        ("", "", "1769902200000000"),
        ("", "", "1769902200000000000"),
        ("", "", r#""2026-01-31""#),
        ("", "", r#""2026-01-31Z""#),
        ("", "", r#""2026-01-31T23:30:00""#),
        ("", "", r#""2026-01-31 23:30:00.000""#),
    ] {
        assert_eq!(
            row(name, kind, text).day("at", &paris).unwrap(),
            Some(day),
            "{name} {text}"
        );
    }
    // an instant is already the next day in Paris
    for (name, text) in [
        ("io.debezium.time.ZonedTimestamp", r#""2026-01-31T23:30:00Z""#),
        ("", r#""2026-01-31T23:30:00Z""#),
        ("", r#""2026-01-31T18:30:00-05:00""#),
    ] {
        let row = row(name, "string", text);
        assert_eq!(row.day("at", &paris).unwrap(), Some(date(2026, 2, 1)), "{name} {text}");
        assert_eq!(
            row.instant("at", &paris).unwrap(),
            Some("2026-01-31T23:30:00Z".parse().unwrap())
        );
    }
    // a time without a zone, and a day, are read in the tenant's
    let instant = |text: &str| Some(text.parse::<jiff::Timestamp>().unwrap());
    assert_eq!(
        row("", "", "1769902200000").instant("at", &paris).unwrap(),
        instant("2026-01-31T22:30:00Z")
    );
    assert_eq!(
        row("", "", "20484").instant("at", &paris).unwrap(),
        instant("2026-01-30T23:00:00Z")
    );
    for nonsense in [
        r#""soon""#,
        "true",
        "1.5",
        r#""2026-02-30""#,
        "9223372036854775807",
        "[1]",
    ] {
        let row = row("", "", nonsense);
        assert!(
            row.day("at", &paris).is_err() || nonsense.starts_with('9'),
            "{nonsense}"
        );
    }
    let outside = r#"{"schema":{"type":"struct","fields":[{"type":"struct","field":"after","fields":[
        {"type":"int32","name":"io.debezium.time.Date","field":"at"}]}]},
        "payload":{"op":"c","source":{},"after":{"at":9000000000}}}"#;
    assert_eq!(json(r#"{"id":1}"#, outside).unwrap_err().code, "bad_column");
}

#[test]
fn an_unchanged_toast_column_is_merged_and_never_taken_for_empty() {
    for (column, sent) in [
        ("notes", r#""__debezium_unavailable_value""#),
        ("blob", r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#),
        ("tags", r#"["__debezium_unavailable_value"]"#),
        (
            "attrs",
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
        ),
    ] {
        let value = format!(r#"{{"op":"u","source":{{}},"after":{{"id":1,"{column}":{sent}}}}}"#);
        let mut row = row_of(json(r#"{"id":1}"#, &value).unwrap()).after.unwrap();
        assert_eq!(row.get(column), Some(&Value::Unavailable));
        assert!(
            row.text(column)
                .unwrap_err()
                .to_string()
                .contains("REPLICA IDENTITY FULL")
        );
        let mut merged = row.clone();
        let known: Row = [(column.to_string(), Value::Text("long".into()))].into_iter().collect();
        merged.fill_unavailable(&known);
        assert_eq!(merged.text(column).unwrap().as_deref(), Some("long"));
        // Sent twice, and still unknown.
        for previous in [Row::new(), row.clone()] {
            row.fill_unavailable(&previous);
            assert_eq!(row.get(column), Some(&Value::Unavailable));
        }
        assert_eq!(row.integer("id").unwrap(), Some(1));
    }
}

#[test]
fn other_connectors_have_positions_too() {
    let position = |source: &str| {
        let value = format!(r#"{{"op":"u","source":{source},"after":{{"id":1}}}}"#);
        row_of(json(r#"{"id":1}"#, &value).unwrap())
            .position
            .log
            .map(|log| log.0)
    };
    assert_eq!(
        position(r#"{"connector":"mysql","file":"binlog.000003","pos":805,"row":1}"#),
        Some([3, 805, 1])
    );
    assert_eq!(
        position(r#"{"connector":"sqlserver","change_lsn":"00000027:00000ac0:0002","event_serial_no":2}"#),
        Some([(0x27 << 32) + 0xac0, 2, 2])
    );
    assert_eq!(
        position(r#"{"connector":"oracle","scn":"2868546"}"#),
        Some([2_868_546, 0, 0])
    );
    let of_one_scn = |rs_id: &str, ssn: i64| {
        position(&format!(
            r#"{{"connector":"oracle","scn":"2868546","rs_id":"{rs_id}","ssn":{ssn}}}"#
        ))
        .unwrap()
    };
    let changes = [
        of_one_scn(" 0x000022.00000f2c.0010 ", 0),
        of_one_scn(" 0x000022.00000f2c.0010 ", 1),
        of_one_scn(" 0x000022.00000f2c.01a4 ", 0),
        of_one_scn(" 0x000022.00000f2d.0010 ", 0),
        of_one_scn(" 0x000023.00000001.0010 ", 0),
    ];
    assert!(changes.is_sorted_by(|one, next| one < next), "{changes:?}");
    assert_eq!(position(r#"{"connector":"postgresql"}"#), None);
}

#[test]
fn what_is_no_debezium_record_says_why() {
    let refused = |key: &str, value: &str| json(key, value).unwrap_err();
    assert_eq!(refused(r#"{"id":1}"#, "{").code, "not_json");
    assert_eq!(refused(r#"{"id":1}"#, "[1]").code, "not_debezium");
    assert_eq!(refused(r#"{"id":1}"#, r#"{"op":"x","source":{}}"#).code, "not_debezium");
    assert_eq!(
        refused(r#"{"id":1}"#, r#"{"op":"u","source":{},"after":null}"#).code,
        "not_debezium"
    );
    assert_eq!(
        refused("7", r#"{"op":"u","source":{},"after":{}}"#).code,
        "not_debezium"
    );
    let keyless = refused("null", r#"{"op":"u","source":{},"after":{"id":1}}"#);
    assert!(keyless.message.contains("message.key.columns"), "{keyless}");
    let avro = refused(r#"{"id":1}"#, "\0\0\0\0\x02\0");
    assert!(avro.message.contains("debezium-avro"), "{avro}");
    let nothing = decode_json(&Incoming {
        topic: "t",
        partition: 0,
        offset: 0,
        key: None,
        value: None,
        headers: &[],
    });
    assert_eq!(nothing.unwrap_err().code, "not_debezium");
}

#[test]
fn an_unknown_schema_is_refused_and_an_absent_registry_is_not() {
    struct Answers(RegistryError);
    impl Registry for Answers {
        fn register(&self, _: &Subject, _: &str) -> Result<SchemaId, RegistryError> {
            Ok(SchemaId(1))
        }
        fn lookup(&self, _: &Subject, _: &str) -> Result<Option<SchemaId>, RegistryError> {
            Ok(None)
        }
        fn schema(&self, _: SchemaId) -> Result<String, RegistryError> {
            Err(self.0.clone())
        }
        fn check(&self, _: &Subject, _: &str) -> Result<(), RegistryError> {
            Ok(())
        }
        fn set_compatibility(&self, _: &Subject, _: Compatibility) -> Result<(), RegistryError> {
            Ok(())
        }
    }
    let sample = &samples("avro-confluent-wire.jsonl")[0];
    let told = |answer: RegistryError| {
        let schemas = Schemas::register(Arc::new(Answers(answer)), |product| format!("{product:?}")).unwrap();
        sample.read(|record| schemas.decode_debezium_avro(record)).unwrap_err()
    };
    // Not there, and not let in: neither says anything about the record.
    for answer in [
        RegistryError::Unavailable("connection refused".into()),
        RegistryError::Refused("401 Unauthorized".into()),
    ] {
        let error = told(answer);
        assert!(matches!(error, DecodeError::Unavailable(_)), "{error}");
    }
    let kind = "Protobuf".to_string();
    let error = told(RegistryError::NotAvro { id: SchemaId(7), kind });
    assert!(
        matches!(&error, DecodeError::Refused(refused) if refused.code == "not_avro"),
        "{error}"
    );
    assert!(
        error.to_string().contains("schema id 7 is Protobuf, not Avro"),
        "{error}"
    );

    let folder = tempfile::tempdir().unwrap();
    let empty = Schemas::register(Arc::new(Embedded::open(folder.path()).unwrap()), |product| {
        format!("{product:?}")
    })
    .unwrap();
    let mut stranger = Sample {
        offset: 0,
        key: sample.key.clone(),
        value: sample.value.clone(),
        headers: vec![],
    };
    stranger.key = None;
    stranger.value.as_mut().unwrap()[3] = 9;
    match stranger.read(|record| empty.decode_debezium_avro(record)).unwrap_err() {
        DecodeError::Refused(refused) => {
            assert_eq!(refused.code, "unknown_schema");
            assert!(refused.message.contains("2306"), "{refused}");
        }
        other => panic!("{other}"),
    }
}

/// Through the topology that is shipped: what a source says, and what it leaves out.
/// Whoever may register a schema must not be able to stop the process: data of a schema within itself is as deep as it likes.
#[test]
fn data_without_end_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Embedded::open(folder.path()).unwrap());
    let schemas = Schemas::register(registry.clone(), |product| format!("{product:?}")).unwrap();
    let schema = r#"{"type":"record","name":"Chain","fields":[{"name":"next","type":["null","Chain"]}]}"#;
    let id = registry.register(&Subject::value_of("chain"), schema).unwrap();
    let mut value = vec![0];
    value.extend(id.0.to_be_bytes());
    value.extend(std::iter::repeat_n(2, 1_000_000));
    value.push(0);
    let refused = schemas.decode_debezium_avro(&Incoming {
        topic: "t",
        partition: 0,
        offset: 0,
        key: Some(br#"{"id":1}"#),
        value: Some(&value),
        headers: &[],
    });
    assert!(
        matches!(&refused, Err(DecodeError::Refused(refused)) if refused.code == "not_avro"),
        "{refused:?}"
    );
}

#[test]
fn a_source_says_what_its_mapping_names() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("topology.toml")).unwrap();
    let topology = config::parse("topology.toml", &text, &|_| None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let schemas = avro_schemas(folder.path());
    let read = |name: &str, key: &str, value: &str| {
        let source = topology
            .sources
            .iter()
            .find(|source| source.name.as_str() == name)
            .unwrap();
        let record = Incoming {
            topic: source.topic.as_str(),
            partition: 0,
            offset: 0,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        source::read(&schemas, source, topology.settings(), &record)
    };
    let value =
        r#"{"op":"u","source":{"lsn":7},"after":{"id":"D-1","tenant_id":"acme","amount":"R4aMAA==","ssn":"secret"}}"#;
    match read("crm-deals", r#"{"id":"D-1"}"#, value).unwrap().unwrap() {
        Said::Row { table, change } => {
            assert_eq!(table, TableRole::Deals);
            let after = change.after.unwrap();
            let columns: Vec<&str> = after.columns().map(|(name, _)| name).collect();
            assert_eq!(
                columns,
                ["amount", "id", "tenant_id"],
                "what no mapping names is not carried on"
            );
            assert_eq!(after.decimal("amount", Some(4)).unwrap(), Some(Decimal::from(120_000)));
        }
        other => panic!("{other:?}"),
    }
    let end = r#"{"status":"END","id":"7:1","event_count":2,"data_collections":[]}"#;
    let expected = Said::TransactionEnd {
        id: TransactionId("7".into()),
        events: 2,
        tables: vec![],
    };
    assert_eq!(
        read("crm-transactions", r#"{"id":"7:1"}"#, end).unwrap(),
        Some(expected)
    );
    let begin = r#"{"status":"BEGIN","id":"7:1","event_count":null,"data_collections":null}"#;
    assert_eq!(read("crm-transactions", r#"{"id":"7:1"}"#, begin).unwrap(), None);
    assert_eq!(
        read("crm-deals", r#"{"id":"D-1"}"#, "null").unwrap(),
        None,
        "a tombstone says nothing"
    );
    for (source, value, words) in [
        ("crm-deals", end, "table to transaction"),
        ("crm-transactions", value, "row change"),
    ] {
        match read(source, r#"{"id":"D-1"}"#, value) {
            Err(DecodeError::Refused(refused)) => assert!(refused.message.contains(words), "{refused}"),
            other => panic!("{other:?}"),
        }
    }
    let tick = r#"{"event_id":"t1","source":"clock","type":"clock.ticked","occurred_at":"2026-02-01T00:00:00Z",
        "tenant_id":"acme-corp","payload":{"date":"2026-02-01"}}"#;
    match read("reference-facts", "", tick).unwrap().unwrap() {
        Said::Fact(fact) => assert_eq!(fact.body.type_name(), "clock.ticked"),
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// Any bytes are a message or a refusal, never a panic; a real record with a byte changed too.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let record = |value: &[u8]| decode_json(&Incoming {
            topic: "t", partition: 0, offset: 0, key: Some(br#"{"id":1}"#), value: Some(value), headers: &[],
        }).err().map(|refused| refused.code);
        let known = [None, Some("not_json"), Some("not_debezium"), Some("bad_column")];
        prop_assert!(known.contains(&record(&bytes)));
        let mut real = br#"{"op":"c","source":{"ts_ms":1,"lsn":7},"after":{"id":1,"amount":"RKpS","at":20484}}"#.to_vec();
        let at = at.index(real.len());
        real[at] = byte;
        prop_assert!(known.contains(&record(&real)));
    }
}

#[test]
fn no_damaged_avro_panics() {
    let folder = tempfile::tempdir().unwrap();
    let schemas = avro_schemas(folder.path());
    let mut refused = 0;
    for sample in samples("avro-confluent-wire.jsonl") {
        let Some(value) = &sample.value else { continue };
        for at in (0..value.len()).step_by(3) {
            for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut damaged = value.clone();
                damaged[at] = byte;
                let sample = Sample {
                    offset: 0,
                    key: sample.key.clone(),
                    value: Some(damaged),
                    headers: vec![],
                };
                match sample.read(|record| schemas.decode_debezium_avro(record)) {
                    Ok(_) => {}
                    Err(DecodeError::Refused(_)) => refused += 1,
                    Err(error @ DecodeError::Unavailable(_)) => panic!("{error}"),
                }
            }
            let cut = Sample {
                offset: 0,
                key: sample.key.clone(),
                value: Some(value[..at].to_vec()),
                headers: vec![],
            };
            let result = cut.read(|record| schemas.decode_debezium_avro(record));
            assert!(result.is_err() || at == 0, "cut at {at}: {result:?}");
        }
    }
    assert!(refused > 1000, "{refused}");
}
