//! Tables of amounts: for people as aligned sections with bars, for programs as CSV or JSON.
//!
//! Invariant: the three forms have the same rows and the same digits; every row says whose it is, on which basis and in
//! which currency, and amounts are at that currency's exponent. Deliberately absent: what the rows mean.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};

use clap::ValueEnum;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::codec::ledger::csv_row;
use crate::revenue::ids::TenantId;
use crate::revenue::money::Currency;

/// The longest bar, in characters.
const BAR: u32 = 20;

/// How a table is printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum Form {
    Table,
    Csv,
    Json,
}

/// In whose money a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// The currency of the contracts.
    Contract,
    /// The tenant's functional currency, over contracts of all currencies.
    Functional,
}

impl Basis {
    fn as_str(self) -> &'static str {
        match self {
            Basis::Contract => "contract",
            Basis::Functional => "functional",
        }
    }
}

/// Whose row it is. Rows of one scope are one section of the printed table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    pub tenant: TenantId,
    pub basis: Basis,
    pub currency: Currency,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Amount(Decimal),
    Count(usize),
    /// Not known, for want of an exchange rate.
    Unknown,
}

impl From<Option<Decimal>> for Cell {
    fn from(amount: Option<Decimal>) -> Cell {
        amount.map_or(Cell::Unknown, Cell::Amount)
    }
}

/// One table; `rows` are sorted by scope.
pub struct Table {
    /// For programs: `waterfall`.
    pub name: &'static str,
    /// For people: `Deferred revenue`.
    pub title: &'static str,
    /// The columns after tenant, basis and currency.
    pub columns: &'static [&'static str],
    pub rows: Vec<(Scope, Vec<Cell>)>,
    /// The column that is drawn as a bar.
    pub bar: Option<usize>,
}

impl Table {
    pub fn print(&self, form: Form) {
        match form {
            Form::Table => print!("{}", self.text(None)),
            Form::Csv => print!("{}", self.csv()),
            Form::Json => println!("{:#}", self.json()),
        }
    }

    /// Aligned sections, each with its last rows, all of them where there is no limit.
    pub fn text(&self, last: Option<usize>) -> String {
        let mut text = String::new();
        for section in self.rows.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((scope, _)) = section.first() else {
                continue;
            };
            let whose = match scope.basis {
                Basis::Contract => format!("{} of {}", scope.currency, scope.tenant),
                Basis::Functional => format!("all of {}, in {}", scope.tenant, scope.currency),
            };
            let _ = writeln!(text, "\n{}, {whose}", self.title);
            let largest = section.iter().filter_map(|(_, cells)| self.drawn(cells)).max();
            let shown = section
                .iter()
                .skip(section.len().saturating_sub(last.unwrap_or(usize::MAX)));
            let mut lines: Vec<Vec<String>> = vec![self.columns.iter().map(|name| name.replace('_', " ")).collect()];
            if self.bar.is_some() {
                lines[0].push(String::new());
            }
            for (scope, cells) in shown {
                let mut line: Vec<String> = cells.iter().map(|cell| scope.show(cell)).collect();
                if let Some(value) = self.drawn(cells) {
                    line.push(bar(value, largest.unwrap_or_default()));
                }
                lines.push(line);
            }
            let right = |column: usize| {
                section
                    .iter()
                    .any(|(_, cells)| matches!(cells.get(column), Some(Cell::Amount(_) | Cell::Count(_))))
            };
            text += &aligned(&lines, &right);
        }
        if self.rows.is_empty() {
            let _ = writeln!(text, "{}: nothing", self.title);
        }
        text
    }

    fn drawn(&self, cells: &[Cell]) -> Option<Decimal> {
        match cells.get(self.bar?)? {
            Cell::Amount(amount) => Some(*amount),
            Cell::Text(_) | Cell::Count(_) | Cell::Unknown => None,
        }
    }

    fn csv(&self) -> String {
        let mut text = csv_row(["tenant_id", "basis", "currency"].iter().chain(self.columns));
        for (scope, cells) in &self.rows {
            let whose = [
                scope.tenant.to_string(),
                scope.basis.as_str().to_owned(),
                scope.currency.to_string(),
            ];
            text += &csv_row(whose.into_iter().chain(cells.iter().map(|cell| scope.show(cell))));
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(scope, cells)| {
            let mut row = Map::new();
            row.insert("tenant_id".to_owned(), scope.tenant.as_str().into());
            row.insert("basis".to_owned(), scope.basis.as_str().into());
            row.insert("currency".to_owned(), scope.currency.code().into());
            for (name, cell) in self.columns.iter().zip(cells) {
                let value = match cell {
                    Cell::Text(_) | Cell::Amount(_) => scope.show(cell).into(),
                    Cell::Count(count) => (*count).into(),
                    Cell::Unknown => Value::Null,
                };
                row.insert((*name).to_owned(), value);
            }
            Value::Object(row)
        });
        json!({ "report": self.name, "rows": rows.collect::<Vec<_>>() })
    }
}

impl Scope {
    fn show(&self, cell: &Cell) -> String {
        match cell {
            Cell::Text(text) => text.clone(),
            Cell::Amount(amount) => self.currency.format(*amount),
            Cell::Count(count) => count.to_string(),
            Cell::Unknown => String::new(),
        }
    }
}

/// Lines in columns, two spaces from the margin and from one another.
pub fn aligned(lines: &[Vec<String>], right: &dyn Fn(usize) -> bool) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let _ = match right(column) {
                true => write!(row, "  {cell:>width$}"),
                false => write!(row, "  {cell:<width$}"),
            };
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// A bar that is as long as its share of the largest; blocks on a terminal, number signs elsewhere.
fn bar(value: Decimal, largest: Decimal) -> String {
    let length = value
        .checked_mul(Decimal::from(BAR))
        .and_then(|scaled| scaled.checked_div(largest))
        .and_then(|length| u32::try_from(length.round()).ok())
        .unwrap_or(0);
    let mark = match stdout().is_terminal() {
        true => "\u{2588}",
        false => "#",
    };
    mark.repeat(length.min(BAR) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_have_the_same_digits() {
        let scope = |code| Scope {
            tenant: TenantId::parse("acme").unwrap(),
            basis: Basis::Contract,
            currency: Currency::parse(code).unwrap(),
        };
        let table = Table {
            name: "t",
            title: "Things",
            columns: &["period", "closing"],
            rows: vec![
                (
                    scope("JPY"),
                    vec![Cell::Text("a,b".to_owned()), Cell::Amount(100.into())],
                ),
                (scope("JPY"), vec![Cell::Text("c".to_owned()), Cell::Amount(50.into())]),
                (scope("KWD"), vec![Cell::Text("d".to_owned()), Cell::Unknown]),
            ],
            bar: Some(1),
        };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            lines(table.text(None)),
            [
                "",
                "Things, JPY of acme",
                "  period  closing",
                "  a,b         100  ####################",
                "  c            50  ##########",
                "",
                "Things, KWD of acme",
                "  period  closing",
                "  d",
            ]
        );
        assert_eq!(lines(table.text(Some(1)))[3], "  c            50  ##########");
        assert_eq!(
            lines(table.csv()),
            [
                "tenant_id,basis,currency,period,closing",
                "acme,contract,JPY,\"a,b\",100",
                "acme,contract,JPY,c,50",
                "acme,contract,KWD,d,"
            ]
        );
        assert_eq!(table.json()["rows"][2]["closing"], Value::Null);
        assert_eq!(table.json()["rows"][1]["closing"], "50");
    }
}
