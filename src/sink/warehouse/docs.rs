//! `docs/warehouse.md`: what BI people read.
//!
//! Invariant: the tables in it are those of [`super::tables`], word for word; `tests/warehouse_tables.rs` compares, and
//! with `ACCRUE_WRITE_DOCS` set writes it.

use super::{marts, tables};

const PREFACE: &str = include_str!("docs.preface.md");

/// The whole file.
pub fn markdown() -> String {
    let mut text = PREFACE.to_owned();
    for table in tables::ALL {
        text += &format!(
            "\n### {}\n\n{} One row for each {}.\n\n",
            table.name, table.doc, table.grain
        );
        text += "| column | type | null | |\n|---|---|---|---|\n";
        for column in table.columns {
            let null = if column.nullable { "yes" } else { "" };
            let key = if column.key { "**key** " } else { "" };
            let doc = column.doc.replace('|', "\\|");
            text += &format!("| {} | {} | {null} | {key}{doc} |\n", column.name, column.kind.name());
        }
    }
    text += "\n## Views\n\n| view | |\n|---|---|\n";
    for view in marts::ALL {
        text += &format!("| {} | {} |\n", view.name, view.doc);
    }
    text
}
