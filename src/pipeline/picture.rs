//! From the rows of a CRM to what they say about one deal.
//!
//! Owns: the reading of rows by their mapping, and when a deal's rows agree with one another.
//! Invariant: pure. The same picture and mapping give the same answer; nothing is defaulted that the books would rest on.
//! Absent: stores and records (`canonicalize.rs`), columns' encodings (`codec::value`).

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use crate::codec::crm_store::DealPicture;
use crate::codec::value::{ColumnError, Row};
use crate::config::{Column, CustomerColumns, LineColumns, Mapping, MilestoneColumns, Stage};
use crate::revenue::fact::{Cancellation, Customer, Deal, Line, Milestone, MilestoneShare, RecognitionTerms, Refund};
use crate::revenue::ids::{CustomerId, DealId, LineId, MilestoneId};
use crate::revenue::money::Currency;
use crate::revenue::policy::Treatment;

/// What a deal's rows say, taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Nothing for the books: no row, or a stage that is ignored.
    Nothing,
    /// The rows do not add up yet; `why` is for people.
    Unsettled { why: String },
    /// The deal stands like this.
    Terms {
        stage: Stage,
        deal: Box<Deal>,
        closed_at: Option<Timestamp>,
        /// For a CRM that renews by a new row: the deal that this one follows.
        renewed_from: Option<DealId>,
    },
    /// The deal ends.
    Cancelled(Cancellation),
}

/// Rows that cannot be read, whatever else arrives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    pub code: &'static str,
    pub message: String,
}

impl From<ColumnError> for Unreadable {
    fn from(error: ColumnError) -> Unreadable {
        Unreadable {
            code: "bad_column",
            message: error.to_string(),
        }
    }
}

impl Unreadable {
    fn field(column: &str, message: impl std::fmt::Display) -> Unreadable {
        Unreadable {
            code: "bad_column",
            message: format!("column {column}: {message}"),
        }
    }
}

/// The customer's id that the deal's row names, if the mapping looks for one.
pub fn customer_of(picture: &DealPicture, mapping: &Mapping) -> Result<Option<String>, Unreadable> {
    match (&picture.deal.row, &mapping.deal.customer_id) {
        (Some(row), Some(column)) => Ok(row.text(&column.name)?),
        (Some(_) | None, _) => Ok(None),
    }
}

/// Reads a picture. `customer` is the row that [`customer_of`] names, where it is known.
pub fn read(
    picture: &DealPicture,
    customer: Option<&Row>,
    mapping: &Mapping,
    zone: &TimeZone,
) -> Result<Told, Unreadable> {
    // Before anything else is looked at: half a transaction says nothing, not even that the deal is none of ours.
    if let Some(open) = picture.open_transactions.first() {
        return Ok(unsettled(format!(
            "the end of its database transaction {open} is not here"
        )));
    }
    let Some(row) = &picture.deal.row else {
        return Ok(if picture.lines.values().any(|line| line.row.is_some()) {
            unsettled("its lines are here, its own row is not")
        } else {
            Told::Nothing
        });
    };
    match stage(row, mapping)? {
        Stage::Ignore => Ok(Told::Nothing),
        Stage::Cancelled => cancellation(row, mapping, zone).map(Told::Cancelled),
        stage @ (Stage::Closed | Stage::Amended | Stage::Renewed) => {
            terms(stage, row, picture, customer, mapping, zone)
        }
    }
}

/// What a deal's row says of its stage.
pub fn stage(row: &Row, mapping: &Mapping) -> Result<Stage, Unreadable> {
    Ok(match row.text(&mapping.deal.stage.name)? {
        Some(stage) => mapping.stage(&stage),
        None => Stage::Ignore,
    })
}

/// Milestones are known by their line and their own id; earlier versions knew them by their own alone.
pub fn name_milestones(picture: &mut DealPicture, mapping: &Mapping) {
    let Some(columns) = &mapping.milestone else {
        return;
    };
    let line_of = |id: &String| {
        let row = picture.milestones[id].row.as_ref()?;
        row.text(&columns.line_item_id.name).ok().flatten()
    };
    let old = picture.milestones.keys().filter(|id| !id.contains('/'));
    let named: Vec<(String, String)> = old
        .filter_map(|id| Some((id.clone(), format!("{}/{id}", line_of(id)?))))
        .collect();
    for (old, new) in named {
        if let Some(known) = picture.milestones.remove(&old) {
            picture.milestones.insert(new.clone(), known);
        }
        for accepted in picture.accepted.iter_mut().filter(|accepted| **accepted == old) {
            accepted.clone_from(&new);
        }
    }
}

fn unsettled(why: impl Into<String>) -> Told {
    Told::Unsettled { why: why.into() }
}

fn cancellation(row: &Row, mapping: &Mapping, zone: &TimeZone) -> Result<Cancellation, Unreadable> {
    let columns = &mapping.deal;
    let refund = match optional_text(row, columns.refund.as_ref())?.as_deref() {
        None | Some("unused") => Refund::Unused,
        Some("none") => Refund::None,
        Some(_) => match decimal(row, columns.refund.as_ref(), mapping)? {
            Some(amount) => Refund::Amount(amount),
            None => Refund::Unused,
        },
    };
    Ok(Cancellation {
        deal_id: deal_id(row, &columns.id)?,
        effective_date: day(row, columns.effective_date.as_ref(), zone)?,
        refund,
        reason: None,
    })
}

fn terms(
    stage: Stage,
    row: &Row,
    picture: &DealPicture,
    customer: Option<&Row>,
    mapping: &Mapping,
    zone: &TimeZone,
) -> Result<Told, Unreadable> {
    let columns = &mapping.deal;
    let amount = required(&columns.amount, decimal(row, Some(&columns.amount), mapping)?)?;
    let currency = match optional_text(row, columns.currency.as_ref())? {
        Some(code) => Currency::parse(&code).ok_or_else(|| {
            let column = columns.currency.as_ref().map_or("currency", |c| &c.name);
            Unreadable {
                code: "unknown_currency",
                message: format!("column {column}: {code:?} is not an ISO 4217 currency code"),
            }
        })?,
        None => mapping
            .currency
            .ok_or_else(|| Unreadable::field("currency", "is empty, and the mapping has no currency for such deals"))?,
    };
    let customer = match (customer_of(picture, mapping)?, &mapping.customer, customer) {
        (None, _, _) => None,
        (Some(id), None, _) => Some(Customer {
            customer_id: customer_id(&id)?,
            name: None,
            accounting_id: None,
        }),
        (Some(id), Some(columns), Some(row)) => Some(read_customer(&id, row, columns)?),
        (Some(id), Some(_), None) => {
            return Ok(unsettled(format!("its customer {id} is not here")));
        }
    };
    let lines = match &mapping.line {
        None => Vec::new(),
        Some(columns) => lines(picture, columns, mapping, zone)?,
    };
    if mapping.line.is_some() {
        let sum = lines
            .iter()
            .try_fold(Decimal::ZERO, |sum, line| sum.checked_add(line.amount))
            .ok_or_else(|| Unreadable::field("amount", "the lines' sum is out of range"))?;
        if sum != amount {
            return Ok(unsettled(format!(
                "its {} lines add up to {sum}, its amount is {amount}",
                lines.len()
            )));
        }
    }
    let method = match optional_text(row, columns.method.as_ref())? {
        None => None,
        Some(word) => Some(method(&word, columns.method.as_ref(), mapping)?),
    };
    let deal = Deal {
        deal_id: deal_id(row, &columns.id)?,
        amount,
        currency,
        term_months: whole(row, columns.term_months.as_ref())?,
        billing_cycle: match optional_text(row, columns.billing_cycle.as_ref())? {
            None => mapping.billing_cycle,
            Some(word) => Some(mapping.billing_cycle(&word).ok_or_else(|| {
                let column = columns.billing_cycle.as_ref().map_or("billing_cycle", |c| &c.name);
                Unreadable::field(
                    column,
                    format!(
                        "{word:?} is no billing cycle; add it to [mapping.{}.billing_cycles]",
                        mapping.name
                    ),
                )
            })?),
        },
        contract_start: Some(required(
            &columns.contract_start,
            row.day(&columns.contract_start.name, zone)?,
        )?),
        contract_end: day(row, columns.contract_end.as_ref(), zone)?,
        effective_date: day(row, columns.effective_date.as_ref(), zone)?,
        customer,
        lines,
        recognition: RecognitionTerms {
            method,
            defer_setup: match &columns.defer_setup {
                Some(column) => row.boolean(&column.name)?,
                None => None,
            },
        },
        renewal: None,
        tax: None,
        treatment: match optional_text(row, columns.treatment.as_ref())? {
            None => None,
            Some(word) => Some(treatment(&word, columns.treatment.as_ref())?),
        },
        instalments: Vec::new(),
    };
    let renewed_from = match optional_text(row, columns.renewed_from.as_ref())? {
        None => None,
        Some(id) => Some(DealId::parse(id.clone()).ok_or_else(|| {
            let column = columns.renewed_from.as_ref().map_or("renewed_from", |c| &c.name);
            Unreadable::field(column, format!("{id:?} cannot be a deal id"))
        })?),
    };
    Ok(Told::Terms {
        stage,
        deal: Box::new(deal),
        closed_at: match &columns.closed_at {
            Some(column) => row.instant(&column.name, zone)?,
            None => None,
        },
        renewed_from,
    })
}

fn lines(
    picture: &DealPicture,
    columns: &LineColumns,
    mapping: &Mapping,
    zone: &TimeZone,
) -> Result<Vec<Line>, Unreadable> {
    let rows = picture
        .lines
        .iter()
        .filter_map(|(id, line)| Some((id, line.row.as_ref()?)));
    rows.map(|(id, row)| line(id, row, picture, columns, mapping, zone))
        .collect()
}

fn line(
    id: &str,
    row: &Row,
    picture: &DealPicture,
    columns: &LineColumns,
    mapping: &Mapping,
    zone: &TimeZone,
) -> Result<Line, Unreadable> {
    let word = optional_text(row, columns.line_type.as_ref())?;
    let line_type = mapping.line_type(word.as_deref()).ok_or_else(|| {
        let column = columns.line_type.as_ref().map_or("type", |c| &c.name);
        Unreadable::field(
            column,
            format!(
                "line {id}: {word:?} cannot be a line type; add it to [mapping.{}.line_types]",
                mapping.name
            ),
        )
    })?;
    let milestones = match &mapping.milestone {
        None => Vec::new(),
        Some(columns) => milestones_of(id, picture, columns, mapping)?,
    };
    Ok(Line {
        id: LineId::parse(id)
            .ok_or_else(|| Unreadable::field(&columns.id.name, format!("{id:?} cannot be a line id")))?,
        line_type,
        name: optional_text(row, columns.name.as_ref())?,
        amount: required(&columns.amount, decimal(row, Some(&columns.amount), mapping)?)?,
        quantity: decimal(row, columns.quantity.as_ref(), mapping)?,
        unit_price: decimal(row, columns.unit_price.as_ref(), mapping)?,
        ssp: decimal(row, columns.ssp.as_ref(), mapping)?,
        ssp_range: None,
        discount: None,
        start: day(row, columns.start.as_ref(), zone)?,
        end: day(row, columns.end.as_ref(), zone)?,
        method: match optional_text(row, columns.method.as_ref())? {
            None => None,
            Some(word) => Some(method(&word, columns.method.as_ref(), mapping)?),
        },
        milestones,
        distinct: None,
        recurring: None,
        bundle: None,
    })
}

/// The milestones of one line, in the order of their row ids.
fn milestones_of(
    line: &str,
    picture: &DealPicture,
    columns: &MilestoneColumns,
    mapping: &Mapping,
) -> Result<Vec<Milestone>, Unreadable> {
    let mut found = Vec::new();
    for (id, known) in &picture.milestones {
        let Some(row) = &known.row else { continue };
        if row.text(&columns.line_item_id.name)?.as_deref() != Some(line) {
            continue;
        }
        let percent = decimal(row, columns.percent.as_ref(), mapping)?;
        let amount = decimal(row, columns.amount.as_ref(), mapping)?;
        let share = match (percent, amount) {
            (Some(percent), _) => MilestoneShare::Percent(percent),
            (None, Some(amount)) => MilestoneShare::Amount(amount),
            (None, None) => {
                return Err(Unreadable::field(
                    "percent",
                    format!("milestone {id} has neither a percent nor an amount"),
                ));
            }
        };
        found.push(Milestone {
            id: milestone_id(id, columns)?,
            share,
        });
    }
    Ok(found)
}

/// An accepted milestone: its row, line, and day. `None` while it is not accepted.
pub fn accepted(
    id: &str,
    row: &Row,
    columns: &MilestoneColumns,
    zone: &TimeZone,
) -> Result<Option<(LineId, MilestoneId, Date)>, Unreadable> {
    let Some(date) = row.day(&columns.accepted_on.name, zone)? else {
        return Ok(None);
    };
    let line = required(&columns.line_item_id, row.text(&columns.line_item_id.name)?)?;
    let line = LineId::parse(line.clone())
        .ok_or_else(|| Unreadable::field(&columns.line_item_id.name, format!("{line:?} cannot be a line id")))?;
    Ok(Some((line, milestone_id(id, columns)?, date)))
}

/// `id` is `<line>/<milestone>`.
fn milestone_id(id: &str, columns: &MilestoneColumns) -> Result<MilestoneId, Unreadable> {
    let id = id.split_once('/').map_or(id, |(_, own)| own);
    MilestoneId::parse(id)
        .ok_or_else(|| Unreadable::field(&columns.id.name, format!("{id:?} cannot be a milestone id")))
}

fn read_customer(id: &str, row: &Row, columns: &CustomerColumns) -> Result<Customer, Unreadable> {
    Ok(Customer {
        customer_id: customer_id(id)?,
        name: optional_text(row, columns.name.as_ref())?,
        accounting_id: optional_text(row, columns.accounting_id.as_ref())?,
    })
}

fn customer_id(id: &str) -> Result<CustomerId, Unreadable> {
    CustomerId::parse(id).ok_or_else(|| Unreadable::field("customer_id", format!("{id:?} cannot be a customer id")))
}

fn deal_id(row: &Row, column: &Column) -> Result<DealId, Unreadable> {
    let id = required(column, row.text(&column.name)?)?;
    DealId::parse(id.clone()).ok_or_else(|| {
        Unreadable::field(
            &column.name,
            format!("{id:?} cannot be a deal id: it may not be empty or contain /"),
        )
    })
}

fn method(word: &str, column: Option<&Column>, mapping: &Mapping) -> Result<crate::revenue::fact::Method, Unreadable> {
    mapping.method(word).ok_or_else(|| {
        Unreadable::field(
            column.map_or("method", |c| &c.name),
            format!(
                "{word:?} is no recognition method; add it to [mapping.{}.methods]",
                mapping.name
            ),
        )
    })
}

fn treatment(word: &str, column: Option<&Column>) -> Result<Treatment, Unreadable> {
    match word {
        "auto" => Ok(Treatment::Auto),
        "separate_contract" => Ok(Treatment::SeparateContract),
        "prospective" => Ok(Treatment::Prospective),
        "cumulative_catch_up" => Ok(Treatment::CumulativeCatchUp),
        _ => Err(Unreadable::field(
            column.map_or("treatment", |c| &c.name),
            format!("{word:?} is not auto, separate_contract, prospective or cumulative_catch_up"),
        )),
    }
}

/// Text, where an empty one counts as none.
fn optional_text(row: &Row, column: Option<&Column>) -> Result<Option<String>, Unreadable> {
    match column {
        None => Ok(None),
        Some(column) => Ok(row.text(&column.name)?.filter(|text| !text.trim().is_empty())),
    }
}

fn decimal(row: &Row, column: Option<&Column>, mapping: &Mapping) -> Result<Option<Decimal>, Unreadable> {
    match column {
        None => Ok(None),
        Some(column) => Ok(row
            .decimal(&column.name, mapping.scale(column))?
            .map(|number| number.normalize())),
    }
}

fn day(row: &Row, column: Option<&Column>, zone: &TimeZone) -> Result<Option<Date>, Unreadable> {
    match column {
        None => Ok(None),
        Some(column) => Ok(row.day(&column.name, zone)?),
    }
}

fn whole(row: &Row, column: Option<&Column>) -> Result<Option<u32>, Unreadable> {
    let Some(column) = column else { return Ok(None) };
    match row.integer(&column.name)? {
        None => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| Unreadable::field(&column.name, format!("{number} is not a number of months"))),
    }
}

fn required<T>(column: &Column, value: Option<T>) -> Result<T, Unreadable> {
    value.ok_or_else(|| Unreadable {
        code: "missing_field",
        message: format!("column {}: is empty, and the books need it", column.name),
    })
}
