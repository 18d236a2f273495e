//! From rows of the books to lines of a budget, month by month. Pure.
//!
//! Invariant: the lines of all months sum, currency by currency, to the plan that stands; lines are sorted, and equal
//! plans give equal bytes. Absent: rounding (the plan's amounts have the currency's decimals) and conversion.

use std::collections::BTreeMap;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::super::warehouse::WarehouseError;
use super::super::warehouse::row::{ByKey, Row, Value};
use super::super::warehouse::table::Table;
use super::super::warehouse::tables::{DIM_DEAL, DIM_DEAL_LINE, DIM_PERIOD, FACT_BILLING, FACT_RECOGNITION};
use crate::codec::ledger::csv_row;
use crate::revenue::ids::TenantId;

/// The columns, in this order.
pub const HEADER: &str = "date,category,amount,currency,source,deal_id";

/// What a feed says.
#[derive(Clone, Debug)]
pub struct Feed {
    pub tenant: TenantId,
    pub basis: Basis,
    pub by: By,
    /// What stands in `source`, before `:` and the deal where there is one.
    pub source: String,
    /// The category of each line type. One that is not here is named after itself: `Subscription Revenue`.
    pub categories: BTreeMap<String, String>,
}

/// When money counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// When it is earned.
    Recognition,
    /// When it is to be invoiced, without tax.
    Billing,
}

/// What a line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Deal,
    Category,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The first day of the month or fiscal period.
    pub date: Date,
    pub category: String,
    pub currency: String,
    pub source: String,
    /// Empty for a category.
    pub deal: String,
    pub amount: Decimal,
}

/// The rows that a feed has folded, by table and key.
#[derive(Default)]
pub struct Rows(BTreeMap<&'static str, ByKey>);

impl Rows {
    pub fn of(&mut self, table: &'static str) -> &mut ByKey {
        self.0.entry(table).or_default()
    }

    fn get(&self, table: &Table) -> impl Iterator<Item = &Row> {
        self.0.get(table.name).into_iter().flat_map(BTreeMap::values)
    }

    /// Of each plan, only the revision that the deal names and later ones, which the deal will name, are of use.
    pub fn forget_old_revisions(&mut self) {
        for (plan, named) in [
            (FACT_RECOGNITION, "schedule_revision"),
            (FACT_BILLING, "billing_revision"),
        ] {
            let current = revisions(self, named);
            if let Some(rows) = self.0.get_mut(plan.name) {
                rows.retain(|_, row| {
                    current
                        .get(&row[..2])
                        .is_none_or(|now| cell(&plan, row, "revision") >= now)
                });
            }
        }
    }
}

/// The revision that each deal names, by tenant and deal.
fn revisions(rows: &Rows, column: &str) -> BTreeMap<Vec<Value>, Value> {
    let named = rows
        .get(&DIM_DEAL)
        .map(|row| (row[..2].to_vec(), cell(&DIM_DEAL, row, column).clone()));
    named.collect()
}

fn cell<'a>(table: &Table, row: &'a Row, column: &str) -> &'a Value {
    table
        .position_of(column)
        .and_then(|at| row.get(at))
        .unwrap_or(&Value::Null)
}

fn text<'a>(table: &Table, row: &'a Row, column: &str) -> &'a str {
    match cell(table, row, column) {
        Value::Text(text) => text,
        Value::Null | Value::Integer(_) | Value::Boolean(_) | Value::Decimal(_) | Value::Day(_) | Value::Instant(_) => {
            ""
        }
    }
}

/// What a line sums: day, category, currency, deal, amount.
type Part = (Date, String, String, String, Decimal);

impl Feed {
    /// For people, in the manifest.
    pub fn describe(&self) -> String {
        let basis = match self.basis {
            Basis::Recognition => "recognition",
            Basis::Billing => "billing",
        };
        let by = match self.by {
            By::Deal => "deal",
            By::Category => "category",
        };
        format!("{} of {} by {by}", basis, self.tenant)
    }

    /// The lines of each month, named `2026-02` after the day they bear.
    ///
    /// # Errors
    /// A sum beyond 28 digits; a period without a row that says its days.
    pub fn months(&self, rows: &Rows) -> Result<BTreeMap<String, Vec<Line>>, WarehouseError> {
        let mut sums: BTreeMap<(Date, String, String, String), Decimal> = BTreeMap::new();
        for (date, category, currency, deal, amount) in self.parts(rows)? {
            let deal = match self.by {
                By::Deal => deal,
                By::Category => String::new(),
            };
            let sum = sums.entry((date, category, currency, deal)).or_default();
            *sum = sum
                .checked_add(amount)
                .ok_or_else(|| WarehouseError::Refused(format!("the budget of {date} is too large to be summed")))?;
        }
        let mut months: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for ((date, category, currency, deal), amount) in sums {
            if amount.is_zero() {
                continue;
            }
            let source = if deal.is_empty() {
                self.source.clone()
            } else {
                format!("{}:{deal}", self.source)
            };
            months
                .entry(format!("{:04}-{:02}", date.year(), date.month()))
                .or_default()
                .push(Line {
                    date,
                    category,
                    currency,
                    source,
                    deal,
                    amount,
                });
        }
        Ok(months)
    }

    fn parts(&self, rows: &Rows) -> Result<Vec<Part>, WarehouseError> {
        let mut parts = Vec::new();
        let (plan, named) = match self.basis {
            Basis::Recognition => (FACT_RECOGNITION, "schedule_revision"),
            Basis::Billing => (FACT_BILLING, "billing_revision"),
        };
        let current = revisions(rows, named);
        let first_days: BTreeMap<&[Value], &Value> = rows
            .get(&DIM_PERIOD)
            .map(|row| (&row[..2], cell(&DIM_PERIOD, row, "first_day")))
            .collect();
        let line_types: BTreeMap<&[Value], &str> = rows
            .get(&DIM_DEAL_LINE)
            .map(|row| (&row[..3], text(&DIM_DEAL_LINE, row, "line_type")))
            .collect();
        for row in rows.get(&plan) {
            let stands = current.get(&row[..2]) == Some(cell(&plan, row, "revision"));
            if text(&plan, row, "tenant_id") != self.tenant.as_str() || !stands {
                continue;
            }
            let (date, category) = match self.basis {
                Basis::Recognition => {
                    let period = [row[0].clone(), cell(&plan, row, "period").clone()];
                    let line = [row[0].clone(), row[1].clone(), cell(&plan, row, "line_item_id").clone()];
                    let line_type = line_types.get(line.as_slice()).copied().unwrap_or("subscription");
                    (first_days.get(period.as_slice()).copied(), self.category(line_type))
                }
                Basis::Billing => (
                    Some(cell(&plan, row, "invoice_date")),
                    self.named("billing", "Billings"),
                ),
            };
            let Some(Value::Day(date)) = date else {
                // Left out, its amount would be missing from the budget without a word.
                return Err(WarehouseError::Refused(format!(
                    "deal {} has an amount in {}, a period whose days are not known: is fiscal_calendar of [tenants.{}] the one that it was planned by?",
                    text(&plan, row, "deal_id"),
                    text(&plan, row, "period"),
                    self.tenant
                )));
            };
            if let Value::Decimal(amount) = cell(&plan, row, "amount") {
                let date = match self.basis {
                    Basis::Recognition => *date,
                    Basis::Billing => date.first_of_month(),
                };
                let currency = text(&plan, row, "currency").to_owned();
                parts.push((
                    date,
                    category,
                    currency,
                    text(&plan, row, "deal_id").to_owned(),
                    *amount,
                ));
            }
        }
        Ok(parts)
    }

    fn category(&self, line_type: &str) -> String {
        let words = line_type.split(['_', '-', '.']).filter(|word| !word.is_empty());
        let capital = words.map(|word| {
            let mut letters = word.chars();
            let first = letters
                .next()
                .map(|first| first.to_uppercase().to_string())
                .unwrap_or_default();
            first + letters.as_str()
        });
        self.named(line_type, &format!("{} Revenue", capital.collect::<Vec<_>>().join(" ")))
    }

    fn named(&self, key: &str, otherwise: &str) -> String {
        self.categories
            .get(key)
            .map_or_else(|| otherwise.to_owned(), String::clone)
    }
}

/// The file of a month: a header and its lines, each ended by a line feed; RFC 4180 quoting where a text needs it.
pub fn csv(lines: &[Line]) -> String {
    let mut text = format!("{HEADER}\n");
    for line in lines {
        let (date, amount) = (line.date.to_string(), line.amount.normalize().to_string());
        text += &csv_row([&date, &line.category, &amount, &line.currency, &line.source, &line.deal]);
    }
    text
}

/// The sum of each currency.
pub fn totals(lines: &[Line]) -> BTreeMap<String, Decimal> {
    let mut totals: BTreeMap<String, Decimal> = BTreeMap::new();
    for line in lines {
        let sum = totals.entry(line.currency.clone()).or_default();
        *sum = sum.saturating_add(line.amount).normalize();
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_as_planning_systems_read_it() {
        let line = |deal: &str, amount: &str| Line {
            date: Date::constant(2026, 2, 1),
            category: "Subscription Revenue".to_owned(),
            currency: "USD".to_owned(),
            source: format!("crm:{deal}"),
            deal: deal.to_owned(),
            amount: Decimal::from_str_exact(amount).expect("amount"),
        };
        assert_eq!(
            csv(&[line("D-98765", "10000.00"), line("a \"b\", c", "-0.10")]),
            "date,category,amount,currency,source,deal_id\n\
             2026-02-01,Subscription Revenue,10000,USD,crm:D-98765,D-98765\n\
             2026-02-01,Subscription Revenue,-0.1,USD,\"crm:a \"\"b\"\", c\",\"a \"\"b\"\", c\"\n"
        );
    }
}
