//! The description of the tables itself: keys, names, and the document made of it.

use std::collections::BTreeSet;
use std::path::Path;

use accrue::sink::warehouse::table::Kind;
use accrue::sink::warehouse::{docs, marts, tables};

#[test]
fn the_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/warehouse.md");
    let wanted = docs::markdown();
    if std::env::var_os("ACCRUE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/warehouse.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/warehouse.md is not what the tables say: run ACCRUE_WRITE_DOCS=1 cargo test --test warehouse_tables"
    );
}

#[test]
fn every_table_keeps_the_rules_that_warehouses_rely_on() {
    let mut names = BTreeSet::new();
    for table in tables::ALL {
        assert!(names.insert(table.name), "{} twice", table.name);
        let width = table.key_width();
        assert!(width >= 2, "{} needs a key", table.name);
        assert_eq!(table.columns[0].name, "tenant_id", "{}", table.name);
        for (n, column) in table.columns.iter().enumerate() {
            let place = format!("{}.{}", table.name, column.name);
            assert_eq!(column.key, n < width, "{place}: the key's columns come first");
            assert!(!(column.key && column.nullable), "{place}: a key has a value");
            let plain = matches!(column.kind, Kind::Text | Kind::Integer);
            assert!(
                !column.key || plain,
                "{place}: bounds of a lakehouse's files are texts and numbers"
            );
            assert!(
                column
                    .name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
                "{place}: a plain lower-case name needs no quotes anywhere"
            );
            assert!(column.doc.ends_with('.'), "{place}: its words are a sentence");
            let twice = table.columns.iter().filter(|other| other.name == column.name).count();
            assert_eq!(twice, 1, "{place} twice");
        }
        if let Some(order) = table.order {
            assert!(table.position_of(order).is_some(), "{}: no column {order}", table.name);
        }
        for needed in ["source_partition", "source_offset"] {
            assert!(table.position_of(needed).is_some(), "{}: no {needed}", table.name);
        }
    }
    for view in marts::ALL {
        assert!(names.insert(view.name), "{} twice", view.name);
    }
}
