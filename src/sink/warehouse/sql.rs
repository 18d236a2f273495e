//! What SQL warehouses share: DDL and MERGE from a table's description.
//!
//! Invariant: names are plain lower-case words of ours and are never quoted, so each warehouse folds them its own way
//! everywhere alike. Absent: how rows travel.

use super::table::{Kind, Table};

/// How a warehouse calls the types.
pub(super) type TypeName = fn(Kind) -> &'static str;

/// `name type [NOT NULL]` for each column.
pub(super) fn columns(table: &Table, type_name: TypeName) -> Vec<String> {
    let column = table.columns.iter().map(|column| {
        let null = if column.nullable { "" } else { " NOT NULL" };
        format!("{} {}{null}", column.name, type_name(column.kind))
    });
    column.collect()
}

/// Makes the table's rows those of `source`, a table or query with the same columns and one row for each key.
pub(super) fn merge(table: &Table, source: &str) -> String {
    let join = |texts: Vec<String>, by: &str| texts.join(by);
    let keys = join(
        table.keys().map(|it| format!("t.{0} = s.{0}", it.name)).collect(),
        " AND ",
    );
    let newer = table
        .order
        .map_or(String::new(), |column| format!(" AND s.{column} >= t.{column}"));
    let values = table.columns.iter().filter(|column| !column.key);
    let set = join(values.map(|it| format!("{0} = s.{0}", it.name)).collect(), ", ");
    let names = join(table.columns.iter().map(|it| it.name.to_owned()).collect(), ", ");
    let from = join(table.columns.iter().map(|it| format!("s.{}", it.name)).collect(), ", ");
    format!(
        "MERGE INTO {} AS t USING {source} AS s ON {keys} WHEN MATCHED{newer} THEN UPDATE SET {set} \
         WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({from})",
        table.name
    )
}
