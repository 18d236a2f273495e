//! The statements, in the words of each warehouse.
//!
//! Invariant: their texts hold names and numbers of ours and a batch's hexadecimal name, never a value of a record.
//! Absent: how they are sent.
//!
//! Sources: <https://docs.snowflake.com/en/sql-reference/sql/merge>, <https://docs.snowflake.com/en/sql-reference/functions/flatten>,
//! <https://cloud.google.com/bigquery/docs/reference/standard-sql/dml-syntax>, <https://cloud.google.com/bigquery/docs/transactions>.

use super::super::marts::{self, View};
use super::super::sql;
use super::super::table::{Kind, Table};

/// The table of positions. `batch` is the batch that moved the position last.
pub(super) const POSITIONS: &str = "accrue_position";
const STAGE: &str = "accrue_stage";

/// What the guard says, by which its error is known.
pub(super) const FENCED: &str = "accrue: another worker wrote first";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    Snowflake,
    /// The dataset as `project.dataset`, which views must name.
    BigQuery {
        dataset: String,
    },
}

impl Dialect {
    fn type_name(&self) -> fn(Kind) -> &'static str {
        match self {
            Dialect::Snowflake => |kind| match kind {
                Kind::Text => "VARCHAR",
                Kind::Integer => "NUMBER(19,0)",
                Kind::Boolean => "BOOLEAN",
                Kind::Amount => "NUMBER(28,6)",
                Kind::Rate => "NUMBER(28,12)",
                Kind::Day => "DATE",
                Kind::Instant => "TIMESTAMP_TZ(6)",
            },
            // NUMERIC has nine decimals at most.
            Dialect::BigQuery { .. } => |kind| match kind {
                Kind::Text => "STRING",
                Kind::Integer => "INT64",
                Kind::Boolean => "BOOL",
                Kind::Amount => "NUMERIC(28,6)",
                Kind::Rate => "BIGNUMERIC(28,12)",
                Kind::Day => "DATE",
                Kind::Instant => "TIMESTAMP",
            },
        }
    }

    /// A type as [`Dialect::columns`] tells it.
    pub(super) fn declared(&self, kind: Kind) -> String {
        self.type_name()(kind).replace("(6)", "")
    }

    /// Table, column and type of every column there is, names in small letters, types without blanks.
    pub(super) fn columns(&self) -> String {
        match self {
            Dialect::Snowflake => "SELECT LOWER(table_name), LOWER(column_name), \
                 CASE data_type WHEN 'TEXT' THEN 'VARCHAR' \
                 WHEN 'NUMBER' THEN 'NUMBER(' || numeric_precision || ',' || numeric_scale || ')' ELSE data_type END \
                 FROM information_schema.columns WHERE table_schema = CURRENT_SCHEMA()"
                .to_owned(),
            Dialect::BigQuery { dataset } => format!(
                "SELECT table_name, column_name, REPLACE(data_type, ' ', '') FROM `{dataset}`.INFORMATION_SCHEMA.COLUMNS"
            ),
        }
    }

    /// The tables of positions and of what is on its way.
    pub(super) fn own_tables(&self) -> [String; 2] {
        let (text, integer, instant) = (
            self.type_name()(Kind::Text),
            self.type_name()(Kind::Integer),
            self.type_name()(Kind::Instant),
        );
        [
            format!(
                "CREATE TABLE IF NOT EXISTS {POSITIONS} (table_name {text} NOT NULL, topic {text} NOT NULL, \
                 partition_number {integer} NOT NULL, next_offset {integer} NOT NULL, batch {text} NOT NULL)"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {STAGE} (batch {text} NOT NULL, part {integer} NOT NULL, \
                 body {text} NOT NULL, staged_at {instant} NOT NULL)"
            ),
        ]
    }

    /// A table of the books.
    pub(super) fn create(&self, table: &Table) -> String {
        let columns = sql::columns(table, self.type_name()).join(", ");
        let keys: Vec<&str> = table.keys().map(|column| column.name).collect();
        // BigQuery reads, and bills, the blocks that a condition on these columns needs; it takes four of them.
        let cluster = match self {
            Dialect::Snowflake => String::new(),
            Dialect::BigQuery { .. } => format!(" CLUSTER BY {}", keys[..keys.len().min(4)].join(", ")),
        };
        format!("CREATE TABLE IF NOT EXISTS {} ({columns}){cluster}", table.name)
    }

    /// A column that the table did not have; its rows have no value for it, whatever the description says of new ones.
    pub(super) fn add(&self, table: &Table, column: &str) -> String {
        let kind = table
            .columns
            .iter()
            .find(|known| known.name == column)
            .map(|it| it.kind);
        let kind = self.type_name()(kind.unwrap_or(Kind::Text));
        format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {column} {kind}", table.name)
    }

    pub(super) fn view(&self, view: &View, tables: &[Table]) -> String {
        match self {
            Dialect::Snowflake => format!("CREATE OR REPLACE VIEW {} AS\n{}", view.name, view.sql),
            Dialect::BigQuery { dataset } => {
                let known = |name: &str| {
                    marts::ALL.iter().any(|view| view.name == name) || tables.iter().any(|it| it.name == name)
                };
                let text = qualified(view.sql, dataset, &known);
                format!("CREATE OR REPLACE VIEW `{dataset}`.{} AS\n{text}", view.name)
            }
        }
    }

    /// Removes what killed workers left in the stage; what is a day old is of no worker that still runs.
    pub(super) fn sweep(&self) -> String {
        let day_ago = match self {
            Dialect::Snowflake => "DATEADD(DAY, -1, CURRENT_TIMESTAMP())",
            Dialect::BigQuery { .. } => "TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY)",
        };
        format!("DELETE FROM {STAGE} WHERE staged_at < {day_ago}")
    }

    /// Stages one part: its batch, its number, its body.
    pub(super) fn stage(&self) -> String {
        let number = match self {
            Dialect::Snowflake => "TO_NUMBER(?)",
            Dialect::BigQuery { .. } => "CAST(? AS INT64)",
        };
        format!("INSERT INTO {STAGE} (batch, part, body, staged_at) SELECT ?, {number}, ?, CURRENT_TIMESTAMP()")
    }

    /// The transaction of a batch of so many parts and moves, with rows for the tables in `filled`.
    pub(super) fn transaction<'a>(
        &self,
        batch: &str,
        parts: usize,
        moves: usize,
        filled: impl Iterator<Item = &'a Table>,
    ) -> Vec<String> {
        let mut statements = vec![
            self.begin().to_owned(),
            self.moved(batch),
            self.guard(batch, parts, moves),
        ];
        statements.extend(filled.map(|table| {
            let cells = table.columns.iter().enumerate();
            let cells = cells.map(|(n, column)| format!("{} AS {}", self.cell(n, column.kind), column.name));
            let columns = cells.collect::<Vec<_>>().join(", ");
            sql::merge(table, &format!("(SELECT {columns} {})", self.staged(batch, table.name)))
        }));
        statements.push(format!("DELETE FROM {STAGE} WHERE batch = '{batch}'"));
        statements.push(self.commit().to_owned());
        statements
    }

    /// Everything goes, in one transaction.
    pub(super) fn emptied(&self, tables: &[Table]) -> Vec<String> {
        let names = tables.iter().map(|table| table.name).chain([POSITIONS]);
        let emptied = names.map(|name| format!("DELETE FROM {name} WHERE TRUE"));
        let whole = [self.begin().to_owned()].into_iter().chain(emptied);
        whole.chain([self.commit().to_owned()]).collect()
    }

    fn begin(&self) -> &'static str {
        match self {
            Dialect::Snowflake | Dialect::BigQuery { .. } => "BEGIN TRANSACTION",
        }
    }

    fn commit(&self) -> &'static str {
        match self {
            Dialect::Snowflake => "COMMIT",
            Dialect::BigQuery { .. } => "COMMIT TRANSACTION",
        }
    }

    /// The rows of a table in the stage as `r`. A part that was staged twice counts once.
    fn staged(&self, batch: &str, table: &str) -> String {
        let parts = format!("(SELECT DISTINCT part, body FROM {STAGE} WHERE batch = '{batch}') AS p");
        match self {
            Dialect::Snowflake => format!("FROM {parts}, LATERAL FLATTEN(INPUT => PARSE_JSON(p.body):{table}) AS r"),
            Dialect::BigQuery { .. } => format!("FROM {parts}, UNNEST(JSON_QUERY_ARRAY(p.body, '$.{table}')) AS r"),
        }
    }

    /// A cell of the row `r`.
    fn cell(&self, number: usize, kind: Kind) -> String {
        let kind = self.type_name()(kind);
        match self {
            Dialect::Snowflake => format!("CAST(r.value[{number}] AS {kind})"),
            Dialect::BigQuery { .. } => format!("CAST(JSON_VALUE(r, '$[{number}]') AS {kind})"),
        }
    }

    /// Moves each position from the value that was read.
    fn moved(&self, batch: &str) -> String {
        let cell = |n, kind| self.cell(n, kind);
        let (text, integer) = (Kind::Text, Kind::Integer);
        format!(
            "MERGE INTO {POSITIONS} AS t USING (SELECT {} AS table_name, {} AS topic, {} AS partition_number, \
             {} AS from_offset, {} AS next_offset {}) AS s \
             ON t.table_name = s.table_name AND t.topic = s.topic AND t.partition_number = s.partition_number \
             WHEN MATCHED AND t.next_offset = s.from_offset THEN UPDATE SET next_offset = s.next_offset, batch = '{batch}' \
             WHEN NOT MATCHED AND s.from_offset IS NULL THEN \
             INSERT (table_name, topic, partition_number, next_offset, batch) \
             VALUES (s.table_name, s.topic, s.partition_number, s.next_offset, '{batch}')",
            cell(0, text),
            cell(1, text),
            cell(2, integer),
            cell(3, integer),
            cell(4, integer),
            self.staged(batch, POSITIONS)
        )
    }

    /// Ends the transaction unless every position moved and every part is there.
    fn guard(&self, batch: &str, parts: usize, moves: usize) -> String {
        let moved = format!("(SELECT COUNT(*) FROM {POSITIONS} WHERE batch = '{batch}') = {moves}");
        let whole = format!("(SELECT COUNT(DISTINCT part) FROM {STAGE} WHERE batch = '{batch}') = {parts}");
        match self {
            // Snowflake has no assertion outside its scripts. The text that is no number holds what was counted, so that
            // it is no constant that could be judged before the count.
            Dialect::Snowflake => format!(
                "SELECT TO_NUMBER(IFF({moved} AND {whole}, '1', \
                 '{FENCED}, moved ' || (SELECT COUNT(*) FROM {POSITIONS} WHERE batch = '{batch}')))"
            ),
            Dialect::BigQuery { .. } => format!("ASSERT {moved} AND {whole} AS '{FENCED}'"),
        }
    }
}

/// A view's text with the dataset before each of our tables and views, where FROM or JOIN names one.
fn qualified(text: &str, dataset: &str, known: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut names_a_table = false;
    for word in text.split_inclusive([' ', '\n']) {
        let name = word.trim_end_matches([' ', '\n', ')']);
        if names_a_table && known(name) {
            out += &format!("`{dataset}`.");
        }
        names_a_table = match name {
            "FROM" | "JOIN" => true,
            "" => names_a_table,
            _ => false,
        };
        out += word;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_name_their_dataset_and_leave_common_tables_alone() {
        let text = "WITH moves AS (\n    SELECT a FROM fact_x b\n)\nSELECT * FROM moves\nLEFT JOIN\n  fact_x ON 1 = 1\nJOIN (SELECT 1 FROM fact_x) j";
        let said = qualified(text, "p.d", &|name| name == "fact_x");
        assert_eq!(
            said,
            "WITH moves AS (\n    SELECT a FROM `p.d`.fact_x b\n)\nSELECT * FROM moves\nLEFT JOIN\n  `p.d`.fact_x ON 1 = 1\nJOIN (SELECT 1 FROM `p.d`.fact_x) j"
        );
    }
}
