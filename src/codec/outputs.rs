//! What the books give out: contract state, recognition and billing schedules, journal entries.
//!
//! Invariant: an entry or a schedule decodes to what was encoded; amounts are exact. Deliberately absent: keys and headers,
//! which are the pipeline's.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::contract_store::{RateNeededWire, id, maybe_id};
use super::facts::DealWire;
use super::names::Named;
use super::schemas::{Product, Schemas};
use super::wire::{Amount, Day, Fixed, Instant, Label, Rate, Text};
use super::{DecodeError, Refused};
use crate::revenue::contract::{BillingRow, Decision, ScheduleRow};

use crate::revenue::ids::{ContractId, CustomerId, DealId, EntryId, EventId, LineId, ObligationId, TenantId};
use crate::revenue::journal::{EntryLine, JournalEntry, Kind};
use crate::revenue::ledger::Role;
use crate::revenue::money::Currency;

impl Schemas {
    /// A deal as it stands.
    pub fn encode_contract_state(&self, decision: &Decision) -> Result<Vec<u8>, Refused> {
        self.encode(Product::ContractState, &StateWire::from(decision))
    }

    /// The whole recognition schedule of a deal.
    pub fn encode_recognition_schedule(&self, decision: &Decision) -> Result<Vec<u8>, Refused> {
        self.encode(Product::RecognitionSchedule, &RecognitionWire::from(decision))
    }

    /// The rows of a recognition schedule, obligation by obligation.
    pub fn decode_recognition_schedule(&self, bytes: &[u8]) -> Result<Vec<ScheduleRow>, DecodeError> {
        let wire: RecognitionWire<'_> = self.decode(Product::RecognitionSchedule, bytes)?;
        Ok(wire.rows()?)
    }

    /// The whole billing schedule of a deal.
    pub fn encode_billing_schedule(&self, decision: &Decision) -> Result<Vec<u8>, Refused> {
        self.encode(Product::BillingSchedule, &BillingWire::from(decision))
    }

    pub fn decode_billing_schedule(&self, bytes: &[u8]) -> Result<Vec<BillingRow>, DecodeError> {
        let wire: BillingWire<'_> = self.decode(Product::BillingSchedule, bytes)?;
        Ok(wire.rows()?)
    }

    pub fn encode_journal_entry(&self, entry: &JournalEntry) -> Result<Vec<u8>, Refused> {
        self.encode(Product::JournalEntries, &EntryWire::from(entry))
    }

    pub fn decode_journal_entry(&self, bytes: &[u8]) -> Result<JournalEntry, DecodeError> {
        let wire: EntryWire<'_> = self.decode(Product::JournalEntries, bytes)?;
        Ok(JournalEntry::try_from(wire)?)
    }
}

#[derive(Serialize)]
struct StateWire<'a> {
    tenant_id: Text<'a>,
    deal_id: Text<'a>,
    status: Text<'a>,
    version: i64,
    currency: Option<Text<'a>>,
    contracts: Vec<ContractWire<'a>>,
    balances: Option<BalancesWire<'a>>,
    terms: Option<DealWire<'a>>,
    history: Vec<ChangeWire<'a>>,
    waits_for: Option<RateNeededWire<'a>>,
    next_due: Option<Day>,
    rejections: Vec<RejectionWire<'a>>,
    schedule_revision: i64,
    billing_revision: i64,
    recurring: Vec<RecurringWire<'a>>,
}

#[derive(Serialize)]
#[serde(rename = "RecurringRevenue")]
struct RecurringWire<'a> {
    obligation_id: Text<'a>,
    from: Day,
    to: Day,
    annual_amount: Amount,
}

#[derive(Serialize)]
struct ContractWire<'a> {
    contract_id: Text<'a>,
    transaction_price: Amount,
    obligations: Vec<ObligationWire<'a>>,
}

#[derive(Serialize)]
struct ObligationWire<'a> {
    obligation_id: Text<'a>,
    line_item_id: Text<'a>,
    method: Text<'a>,
    start: Day,
    end: Day,
    allocated: Amount,
}

#[derive(Serialize)]
struct BalancesWire<'a> {
    currency: Text<'a>,
    contract_liability: Amount,
    contract_asset: Amount,
    receivable: Amount,
    recognised: Amount,
    remaining: Amount,
}

#[derive(Serialize)]
struct ChangeWire<'a> {
    event_id: Text<'a>,
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    occurred_at: Option<Instant>,
    effective: Day,
}

#[derive(Serialize)]
struct RejectionWire<'a> {
    event_id: Text<'a>,
    code: Text<'a>,
    field: Text<'a>,
    value: Text<'a>,
    message: Text<'a>,
}

#[derive(Serialize, Deserialize)]
struct RecognitionWire<'a> {
    #[serde(borrow)]
    tenant_id: Text<'a>,
    deal_id: Text<'a>,
    version: i64,
    revision: i64,
    currency: Option<Text<'a>>,
    functional_currency: Option<Text<'a>>,
    obligations: Vec<ScheduledWire<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ScheduledWire<'a> {
    #[serde(borrow)]
    contract_id: Text<'a>,
    obligation_id: Text<'a>,
    line_item_id: Text<'a>,
    rows: Vec<RecognitionRowWire>,
}

#[derive(Serialize, Deserialize)]
struct RecognitionRowWire {
    period: Label,
    amount: Amount,
    functional_amount: Option<Amount>,
    rate: Option<Rate>,
    posted: bool,
}

#[derive(Serialize, Deserialize)]
struct BillingWire<'a> {
    #[serde(borrow)]
    tenant_id: Text<'a>,
    deal_id: Text<'a>,
    revision: i64,
    currency: Option<Text<'a>>,
    rows: Vec<BillingRowWire>,
}

#[derive(Serialize, Deserialize)]
struct BillingRowWire {
    date: Day,
    amount: Amount,
    tax: Amount,
    firm: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EntryWire<'a> {
    #[serde(borrow)]
    entry_id: Text<'a>,
    tenant_id: Text<'a>,
    deal_id: Text<'a>,
    contract_id: Text<'a>,
    obligation_id: Option<Text<'a>>,
    kind: Text<'a>,
    date: Day,
    period: Label,
    concerns: Label,
    currency: Text<'a>,
    functional_currency: Text<'a>,
    lines: Vec<LineWire<'a>>,
    cause: Text<'a>,
    provenance: Vec<Text<'a>>,
    reverses: Option<Text<'a>>,
    customer_id: Option<Text<'a>>,
    customer_name: Option<Text<'a>>,
}

#[derive(Serialize, Deserialize)]
struct LineWire<'a> {
    #[serde(borrow)]
    account: Text<'a>,
    role: Text<'a>,
    debit: Amount,
    credit: Amount,
    functional_debit: Amount,
    functional_credit: Amount,
}

impl<'a> From<&'a Decision> for StateWire<'a> {
    fn from(decision: &'a Decision) -> StateWire<'a> {
        let Decision {
            contract,
            view,
            rejections,
            ..
        } = decision;
        let fact = |event: &EventId| contract.fact(event);
        let terms = view
            .history
            .iter()
            .rev()
            .find_map(|(event, _)| fact(event)?.body.terms());
        StateWire {
            tenant_id: view.tenant.as_str().into(),
            deal_id: view.deal.as_str().into(),
            status: view.status.as_str().into(),
            version: i64::from(view.version),
            currency: view.currency.as_ref().map(|currency| currency.code().into()),
            contracts: view
                .contracts
                .iter()
                .map(|of| ContractWire {
                    contract_id: of.contract.as_str().into(),
                    transaction_price: Fixed(of.transaction_price),
                    obligations: of
                        .obligations
                        .iter()
                        .map(|it| ObligationWire {
                            obligation_id: it.obligation.as_str().into(),
                            line_item_id: it.line_id.as_str().into(),
                            method: it.method.name().into(),
                            start: Day(it.start),
                            end: Day(it.end),
                            allocated: Fixed(it.allocated),
                        })
                        .collect(),
                })
                .collect(),
            balances: view.balances.as_ref().map(|it| BalancesWire {
                currency: it.currency.code().into(),
                contract_liability: Fixed(it.contract_liability),
                contract_asset: Fixed(it.contract_asset),
                receivable: Fixed(it.receivable),
                recognised: Fixed(it.recognised),
                remaining: Fixed(it.remaining),
            }),
            terms: terms.map(DealWire::from),
            history: view
                .history
                .iter()
                .map(|(event, effective)| ChangeWire {
                    event_id: event.as_str().into(),
                    kind: fact(event).map(|fact| fact.body.type_name().into()),
                    occurred_at: fact(event).map(|fact| Instant(fact.occurred_at)),
                    effective: Day(*effective),
                })
                .collect(),
            waits_for: contract.waits_for.as_ref().map(RateNeededWire::from),
            next_due: contract.next_due.map(Day),
            rejections: rejections
                .iter()
                .map(|(event, rejection)| RejectionWire {
                    event_id: event.as_str().into(),
                    code: rejection.code.as_str().into(),
                    field: rejection.field.as_str().into(),
                    value: rejection.value.as_str().into(),
                    message: rejection.message.as_str().into(),
                })
                .collect(),
            schedule_revision: i64::from(contract.schedule_revision),
            billing_revision: i64::from(contract.billing_revision),
            recurring: view
                .recurring
                .iter()
                .map(|it| RecurringWire {
                    obligation_id: it.obligation.as_str().into(),
                    from: Day(it.from),
                    to: Day(it.to),
                    annual_amount: Fixed(it.annual),
                })
                .collect(),
        }
    }
}

impl<'a> From<&'a Decision> for RecognitionWire<'a> {
    fn from(decision: &'a Decision) -> RecognitionWire<'a> {
        let Decision {
            contract,
            schedule,
            view,
            ..
        } = decision;
        let first = schedule.first();
        RecognitionWire {
            tenant_id: contract.tenant.as_str().into(),
            deal_id: contract.deal.as_str().into(),
            version: i64::from(view.version),
            revision: i64::from(contract.schedule_revision),
            currency: first.map(|row| row.currency.code().into()),
            functional_currency: first.map(|row| row.functional_currency.code().into()),
            obligations: schedule
                .chunk_by(|a, b| a.obligation == b.obligation)
                .filter_map(|rows| {
                    let first = rows.first()?;
                    Some(ScheduledWire {
                        contract_id: first.contract.as_str().into(),
                        obligation_id: first.obligation.as_str().into(),
                        line_item_id: first.line_id.as_str().into(),
                        rows: rows.iter().map(RecognitionRowWire::from).collect(),
                    })
                })
                .collect(),
        }
    }
}

impl From<&ScheduleRow> for RecognitionRowWire {
    fn from(row: &ScheduleRow) -> RecognitionRowWire {
        RecognitionRowWire {
            period: Label(row.period),
            amount: Fixed(row.amount),
            functional_amount: row.functional_amount.map(Fixed),
            rate: row.rate().map(|rate| Fixed(informative(rate))),
            posted: row.posted,
        }
    }
}

/// The rate is a quotient of two amounts, for information: its digits end where the schema's do.
fn informative(rate: Decimal) -> Decimal {
    rate.round_dp(12)
}

impl RecognitionWire<'_> {
    fn rows(&self) -> Result<Vec<ScheduleRow>, Refused> {
        let mut rows = Vec::new();
        for of in &self.obligations {
            for row in &of.rows {
                rows.push(ScheduleRow {
                    tenant: id("tenant_id", &self.tenant_id, TenantId::parse)?,
                    deal: id("deal_id", &self.deal_id, DealId::parse)?,
                    contract: id("contract_id", &of.contract_id, ContractId::parse)?,
                    obligation: id("obligation_id", &of.obligation_id, ObligationId::parse)?,
                    line_id: id("line_item_id", &of.line_item_id, LineId::parse)?,
                    period: row.period.0,
                    amount: row.amount.0,
                    currency: needed("currency", self.currency.as_deref())?,
                    functional_amount: row.functional_amount.as_ref().map(|amount| amount.0),
                    functional_currency: needed("functional_currency", self.functional_currency.as_deref())?,
                    version: u32::try_from(self.version).map_err(|_| bad("version", &self.version.to_string()))?,
                    revision: u32::try_from(self.revision).map_err(|_| bad("revision", &self.revision.to_string()))?,
                    posted: row.posted,
                });
            }
        }
        Ok(rows)
    }
}

impl<'a> From<&'a Decision> for BillingWire<'a> {
    fn from(decision: &'a Decision) -> BillingWire<'a> {
        let Decision { contract, billing, .. } = decision;
        BillingWire {
            tenant_id: contract.tenant.as_str().into(),
            deal_id: contract.deal.as_str().into(),
            revision: i64::from(contract.billing_revision),
            currency: billing.first().map(|row| row.currency.code().into()),
            rows: billing
                .iter()
                .map(|row| BillingRowWire {
                    date: Day(row.date),
                    amount: Fixed(row.amount),
                    tax: Fixed(row.tax),
                    firm: row.firm,
                })
                .collect(),
        }
    }
}

impl BillingWire<'_> {
    fn rows(&self) -> Result<Vec<BillingRow>, Refused> {
        let rows = self.rows.iter().map(|row| {
            Ok(BillingRow {
                tenant: id("tenant_id", &self.tenant_id, TenantId::parse)?,
                deal: id("deal_id", &self.deal_id, DealId::parse)?,
                date: row.date.0,
                amount: row.amount.0,
                tax: row.tax.0,
                currency: needed("currency", self.currency.as_deref())?,
                firm: row.firm,
                revision: u32::try_from(self.revision).map_err(|_| bad("revision", &self.revision.to_string()))?,
            })
        });
        rows.collect()
    }
}

/// The currency of a schedule that has rows.
fn needed(field: &str, code: Option<&str>) -> Result<Currency, Refused> {
    currency(field, code.unwrap_or_default())
}

impl<'a> From<&'a JournalEntry> for EntryWire<'a> {
    fn from(entry: &'a JournalEntry) -> EntryWire<'a> {
        EntryWire {
            entry_id: entry.entry_id.as_str().into(),
            tenant_id: entry.tenant.as_str().into(),
            deal_id: entry.deal.as_str().into(),
            contract_id: entry.contract.as_str().into(),
            obligation_id: entry.obligation.as_ref().map(|id| id.as_str().into()),
            kind: entry.kind.name().into(),
            date: Day(entry.date),
            period: Label(entry.period),
            concerns: Label(entry.concerns),
            currency: entry.currency.code().into(),
            functional_currency: entry.functional_currency.code().into(),
            lines: entry
                .lines
                .iter()
                .map(|line| LineWire {
                    account: line.account.as_str().into(),
                    role: line.role.name().into(),
                    debit: Fixed(line.debit),
                    credit: Fixed(line.credit),
                    functional_debit: Fixed(line.functional_debit),
                    functional_credit: Fixed(line.functional_credit),
                })
                .collect(),
            cause: entry.cause.as_str().into(),
            provenance: entry.provenance.iter().map(|event| event.as_str().into()).collect(),
            reverses: entry.reverses.as_ref().map(|entry| entry.as_str().into()),
            customer_id: entry.customer_id.as_ref().map(|id| id.as_str().into()),
            customer_name: entry.customer_name.as_deref().map(Text::from),
        }
    }
}

impl TryFrom<EntryWire<'_>> for JournalEntry {
    type Error = Refused;

    fn try_from(wire: EntryWire<'_>) -> Result<JournalEntry, Refused> {
        Ok(JournalEntry {
            entry_id: id("entry_id", &wire.entry_id, EntryId::parse)?,
            tenant: id("tenant_id", &wire.tenant_id, TenantId::parse)?,
            deal: id("deal_id", &wire.deal_id, DealId::parse)?,
            contract: id("contract_id", &wire.contract_id, ContractId::parse)?,
            obligation: maybe_id("obligation_id", wire.obligation_id.as_deref(), ObligationId::parse)?,
            kind: Kind::of_name(&wire.kind).ok_or_else(|| bad("kind", &wire.kind))?,
            date: wire.date.0,
            period: wire.period.0,
            concerns: wire.concerns.0,
            currency: currency("currency", &wire.currency)?,
            functional_currency: currency("functional_currency", &wire.functional_currency)?,
            lines: wire
                .lines
                .into_iter()
                .map(EntryLine::try_from)
                .collect::<Result<_, _>>()?,
            cause: id("cause", &wire.cause, EventId::parse)?,
            provenance: wire
                .provenance
                .iter()
                .map(|event| id("provenance", event, EventId::parse))
                .collect::<Result<_, _>>()?,
            reverses: maybe_id("reverses", wire.reverses.as_deref(), EntryId::parse)?,
            customer_id: maybe_id("customer_id", wire.customer_id.as_deref(), CustomerId::parse)?,
            customer_name: wire.customer_name.map(Text::into_owned),
        })
    }
}

impl TryFrom<LineWire<'_>> for EntryLine {
    type Error = Refused;

    fn try_from(wire: LineWire<'_>) -> Result<EntryLine, Refused> {
        Ok(EntryLine {
            account: wire.account.into_owned(),
            role: Role::parse(&wire.role).ok_or_else(|| bad("role", &wire.role))?,
            debit: wire.debit.0,
            credit: wire.credit.0,
            functional_debit: wire.functional_debit.0,
            functional_credit: wire.functional_credit.0,
        })
    }
}

fn currency(field: &str, code: &str) -> Result<Currency, Refused> {
    Currency::parse(code).ok_or_else(|| bad(field, code))
}

fn bad(field: &str, value: &str) -> Refused {
    Refused::new(
        "bad_event",
        format!("{field}: {value:?} cannot be read by this version"),
    )
}
