use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::wire::Bytes;
use super::{Plan, read, write};

/// Every kind of field that our schemas have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "All")]
struct All {
    flag: bool,
    small: i32,
    large: i64,
    text: String,
    bytes: Bytes,
    perhaps: Option<i64>,
    numbers: Vec<i64>,
    inner: Option<Inner>,
    inners: Option<Vec<Inner>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Inner")]
struct Inner {
    text: Option<String>,
    #[serde(default)]
    flags: Vec<bool>,
}

const INNER: &str = r#"{"type":"record","name":"Inner","fields":[{"name":"text","type":["null","string"]},
    {"name":"flags","type":{"type":"array","items":"boolean"}}]}"#;

fn schema(fields: &str) -> Schema {
    Schema::parse_str(&format!(r#"{{"type":"record","name":"All","fields":[{fields}]}}"#)).unwrap()
}

fn all() -> Schema {
    schema(&format!(
        r#"{{"name":"flag","type":"boolean"}},{{"name":"small","type":"int"}},{{"name":"large","type":"long"}},
        {{"name":"text","type":"string"}},{{"name":"bytes","type":"bytes"}},{{"name":"perhaps","type":["null","long"]}},
        {{"name":"numbers","type":{{"type":"array","items":"long"}}}},{{"name":"inner","type":["null",{INNER}]}},
        {{"name":"inners","type":["null",{{"type":"array","items":"Inner"}}]}}"#
    ))
}

fn an_inner() -> impl Strategy<Value = Inner> {
    (of("\\PC{0,9}"), vec(any::<bool>(), 0..4)).prop_map(|(text, flags)| Inner { text, flags })
}

fn one() -> impl Strategy<Value = All> {
    let scalars = (
        any::<bool>(),
        any::<i32>(),
        any::<i64>(),
        "\\PC{0,99}",
        vec(any::<u8>(), 0..99),
    );
    let rest = (
        of(any::<i64>()),
        vec(any::<i64>(), 0..9),
        of(an_inner()),
        of(vec(an_inner(), 0..4)),
    );
    (scalars, rest).prop_map(
        |((flag, small, large, text, bytes), (perhaps, numbers, inner, inners))| All {
            flag,
            small,
            large,
            text,
            bytes: Bytes(bytes),
            perhaps,
            numbers,
            inner,
            inners,
        },
    )
}

fn written(schema: &Schema, value: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    write(&Plan::of(schema), value, &mut bytes).map_err(|misfit| misfit.to_string())?;
    Ok(bytes)
}

fn back<'de, T: Deserialize<'de>>(schema: &Schema, bytes: &'de [u8]) -> Result<T, String> {
    read(&Plan::of(schema), bytes).map_err(|misfit| misfit.to_string())
}

fn written_by_library(schema: &Schema, value: &impl Serialize) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema)
        .human_readable(false)
        .build()
        .unwrap();
    let mut bytes = Vec::new();
    writer.write_ser(&mut bytes, value).unwrap();
    bytes
}

fn read_by_library(schema: &Schema, mut bytes: &[u8]) -> Option<All> {
    let reader = GenericDatumReader::builder(schema)
        .human_readable(false)
        .build()
        .unwrap();
    reader.read_deser(&mut bytes).ok()
}

proptest! {
    #[test]
    fn both_ways_are_the_librarys(value in one()) {
        let schema = all();
        let bytes = written(&schema, &value).unwrap();
        prop_assert_eq!(&written_by_library(&schema, &value), &bytes);
        prop_assert_eq!(back::<All>(&schema, &bytes).unwrap(), value);
    }

    /// Whatever is read of damaged bytes is what the library reads of them, and all of it.
    #[test]
    fn damaged_bytes_are_refused_or_read_as_the_library_reads_them(
        value in one(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in of(any::<prop::sample::Index>()),
        more in vec(any::<u8>(), 0..3),
    ) {
        let schema = all();
        let mut bytes = written(&schema, &value).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(more);
        if let Ok(value) = back::<All>(&schema, &bytes) {
            prop_assert_eq!(read_by_library(&schema, &bytes), Some(value.clone()));
            prop_assert_eq!(back::<All>(&schema, &written(&schema, &value).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(value) = back::<All>(&all(), &bytes) {
            prop_assert_eq!(back::<All>(&all(), &written(&all(), &value).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn bytes_cut_short_or_with_more_after_them_are_refused(value in one(), cut in any::<prop::sample::Index>()) {
        let bytes = written(&all(), &value).unwrap();
        prop_assert!(back::<All>(&all(), &bytes[..cut.index(bytes.len())]).is_err());
        let more = [bytes.as_slice(), &[0]].concat();
        prop_assert!(back::<All>(&all(), &more).unwrap_err().contains("1 bytes are left"));
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Two {
    a: i32,
    b: Option<String>,
}

#[test]
fn a_struct_that_is_not_the_schemas_is_never_written() {
    let two = Two { a: 1, b: None };
    let a = r#"{"name":"a","type":"int"}"#;
    let b = r#"{"name":"b","type":["null","string"]}"#;
    assert_eq!(written(&schema(&format!("{a},{b}")), &two).unwrap(), [2, 0]);
    for (fields, words) in [
        (format!("{b},{a}"), "field a where the schema has b"),
        (a.to_string(), "field b, which the schema has not"),
        (format!(r#"{a},{b},{{"name":"c","type":"int"}}"#), "no field c"),
        (
            format!(r#"{{"name":"a","type":"long"}},{b}"#),
            "a: an int where the schema has a long",
        ),
        (
            format!(r#"{a},{{"name":"b","type":"string"}}"#),
            "b: null where the schema has a string",
        ),
        (
            format!(r#"{a},{{"name":"b","type":["string","null"]}}"#),
            "b: null where the schema has a union",
        ),
    ] {
        assert_eq!(written(&schema(&fields), &two).unwrap_err(), words);
    }
}

/// A field that was moved, one that was added (of each kind, before those that are known), one that is not there.
#[test]
fn another_version_of_the_schema_is_read_by_name() {
    let added = r#"{"name":"c","type":[
        "null",
        {"type":"array","items":{"type":"map","values":{"type":"fixed","name":"F","size":3}}},
        {"type":"record","name":"R","fields":[
            {"name":"d","type":"double"},{"name":"f","type":"float"},{"name":"again","type":"F"},
            {"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}}]},
        "string"]}"#;
    let newer = schema(&format!(
        r#"{added},{{"name":"b","type":["int","string","null"]}},{{"name":"a","type":["int","null"]}}"#
    ));
    let (moved, text) = ([2, 2, b'x'], [6, 2, b'y']);
    let array = [2, 1, 16, 2, 2, b'k', 1, 2, 3, 0, 0];
    let record = [&[4u8][..], &[0; 8], &[0; 4], &[1, 2, 3], &[2]].concat();
    for added in [&[0u8][..], &array, &record, &text] {
        let bytes = [added, &moved, &[0, 14]].concat();
        let b = Some("x".to_string());
        assert_eq!(back::<Two>(&newer, &bytes), Ok(Two { a: 7, b }), "{added:?}");
    }
    let older = schema(r#"{"name":"a","type":"int"}"#);
    assert_eq!(back::<Two>(&older, &[14]), Ok(Two { a: 7, b: None }));
    let without = schema(r#"{"name":"b","type":["null","string"]}"#);
    assert_eq!(back::<Two>(&without, &[0]).unwrap_err(), "missing field `a`");
}

#[test]
fn an_enum_is_its_word_and_a_smaller_number_is_as_good() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Wide {
        a: i64,
        b: String,
    }
    let schema =
        schema(r#"{"name":"a","type":"int"},{"name":"b","type":{"type":"enum","name":"E","symbols":["X","Y"]}}"#);
    let b = "Y".to_string();
    assert_eq!(back::<Wide>(&schema, &[1, 2]), Ok(Wide { a: -1, b }));
    assert_eq!(back::<Wide>(&schema, &[1, 4]).unwrap_err(), "b: 2 is none of 2 choices");
}

#[test]
fn blocks_may_say_their_size() {
    let schema = schema(r#"{"name":"a","type":{"type":"array","items":"long"}}"#);
    let numbers =
        |bytes: &[u8]| back::<BTreeMap<String, Vec<i64>>>(&schema, bytes).map(|mut all| all.remove("a").unwrap());
    assert_eq!(numbers(&[2, 2, 3, 4, 2, 4, 0]), Ok(vec![1, 1, 2]));
    for forged in [
        &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2][..],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 0],
        &[8, 2, 0],
    ] {
        assert!(numbers(forged).is_err(), "{forged:?}");
    }
}

#[test]
fn numbers_have_64_bits_and_ints_32() {
    let long = schema(r#"{"name":"a","type":"long"}"#);
    let number = |bytes: &[u8]| back::<BTreeMap<String, i64>>(&long, bytes).map(|all| all["a"]);
    let ends = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    assert_eq!(number(&ends), Ok(i64::MIN));
    assert!(number(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2]).is_err());
    assert!(number(&[0xFF; 11]).is_err());
    let int = schema(r#"{"name":"a","type":"int"}"#);
    assert!(
        back::<BTreeMap<String, i64>>(&int, &ends)
            .unwrap_err()
            .contains("is no int")
    );
}

/// Data of such a schema could be nested until the stack ends.
#[test]
fn a_schema_within_itself_is_neither_read_nor_skipped() {
    let list = schema(r#"{"name":"a","type":"int"},{"name":"next","type":["null","All"]}"#);
    assert_eq!(back::<Two>(&list, &[14, 0]), Ok(Two { a: 7, b: None }));
    assert!(
        back::<Two>(&list, &[14, 2, 14, 0])
            .unwrap_err()
            .contains("a schema within itself")
    );
}
