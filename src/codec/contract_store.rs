//! The stored state of the contract stage: contracts, and the reference facts it has learned.
//!
//! A contract is a head and pages: the head is written with each step, a page once, so that what a step writes does not
//! grow with the deal's history.
//!
//! Invariant: a contract comes back equal to what was stored, its facts' instants to the microsecond. Deliberately
//! absent: anything `revenue` derives; the schema has a field for each field of `Contract` and of what was issued.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Refused;
use super::facts::FactWire;
use super::names::{Named, named};
use super::stored::Stored;
use super::wire::{Amount, Bytes, Day, Fixed, Label, Text};
use crate::revenue::contract::Contract;
use crate::revenue::derive::Memo;
use crate::revenue::fact::Fact;
use crate::revenue::ids::{ContractId, DealId, EntryId, EventId, LineType, ObligationId, TenantId};
use crate::revenue::journal::{Issued, Key, Kind, What};
use crate::revenue::ledger::Ledger;
use crate::revenue::money::Currency;
use crate::revenue::reference::RateNeeded;

static STORED: LazyLock<Stored> = LazyLock::new(|| {
    Stored::new(
        "contract store",
        &[
            include_str!("../../avro/contract-store.1.avsc"),
            include_str!("../../avro/contract-store.2.avsc"),
            include_str!("../../avro/contract-store.3.avsc"),
            include_str!("../../avro/contract-store.avsc"),
        ],
    )
});

/// How much of a contract is on pages, and so not in its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paged {
    pub pages: u32,
    pub facts: usize,
    pub issued: usize,
}

/// The head of a contract: all of it but what is on pages.
pub fn encode(contract: &Contract, paged: Paged) -> Result<Vec<u8>, Refused> {
    STORED.encode(&StoredWire {
        contract: Some(ContractWire::of(contract, paged)),
        fact: None,
        page: None,
    })
}

/// The contract as far as its head has it, and the number of its pages.
///
/// # Errors
/// Bytes of a newer program, or not a contract's: the store cannot be used as it is.
pub fn decode(bytes: &[u8]) -> Result<(Contract, u32), Refused> {
    match STORED.decode(bytes)? {
        StoredWire {
            contract: Some(contract),
            fact: None,
            page: None,
        } => {
            let pages = u32::try_from(contract.pages).map_err(|_| bad("pages", "not a count"))?;
            Ok((Contract::try_from(contract)?, pages))
        }
        StoredWire { .. } => Err(bad("the value", "not a contract")),
    }
}

/// A page of what a contract has beyond its pages so far, up to where `to` says.
pub fn encode_page(contract: &Contract, from: Paged, to: Paged) -> Result<Vec<u8>, Refused> {
    STORED.encode(&StoredWire {
        contract: None,
        fact: None,
        page: Some(PageWire {
            facts: contract.facts[from.facts..to.facts]
                .iter()
                .map(FactWire::from)
                .collect(),
            issued: contract.issued[from.issued..to.issued]
                .iter()
                .map(IssuedWire::from)
                .collect(),
        }),
    })
}

/// # Errors
/// As `decode`.
pub fn decode_page(bytes: &[u8]) -> Result<(Vec<Fact>, Vec<Issued>), Refused> {
    match STORED.decode(bytes)? {
        StoredWire {
            contract: None,
            fact: None,
            page: Some(page),
        } => Ok((all(page.facts)?, all(page.issued)?)),
        StoredWire { .. } => Err(bad("the value", "not a page of a contract")),
    }
}

pub fn encode_fact(fact: &Fact) -> Result<Vec<u8>, Refused> {
    STORED.encode(&StoredWire {
        contract: None,
        fact: Some(FactWire::from(fact)),
        page: None,
    })
}

/// # Errors
/// As `decode`.
pub fn decode_fact(bytes: &[u8]) -> Result<Fact, Refused> {
    match STORED.decode(bytes)? {
        StoredWire {
            contract: None,
            fact: Some(fact),
            page: None,
        } => Fact::try_from(fact),
        StoredWire { .. } => Err(bad("the value", "not a fact")),
    }
}

named! { Kind:
    Invoice = "invoice",
    Payment = "payment",
    Adjustment = "adjustment",
    CreditMemo = "credit_memo",
    Reversal = "reversal",
    Recognition = "recognition",
    FxRemeasurement = "fx_remeasurement",
}

named! { What:
    Invoice = "invoice",
    Application = "application",
    Payment = "payment",
    Lump = "lump",
    CreditMemo = "credit_memo",
    Recognition = "recognition",
    Remeasurement = "remeasurement",
}

#[derive(Serialize, Deserialize)]
struct StoredWire<'a> {
    #[serde(borrow)]
    contract: Option<ContractWire<'a>>,
    fact: Option<FactWire<'a>>,
    #[serde(default)]
    page: Option<PageWire<'a>>,
}

#[derive(Serialize, Deserialize)]
struct PageWire<'a> {
    #[serde(borrow)]
    facts: Vec<FactWire<'a>>,
    issued: Vec<IssuedWire<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ContractWire<'a> {
    #[serde(borrow)]
    tenant_id: Text<'a>,
    deal_id: Text<'a>,
    facts: Vec<FactWire<'a>>,
    issued: Vec<IssuedWire<'a>>,
    ledger: LedgerWire,
    locked: Vec<Label>,
    waits_for: Option<RateNeededWire<'a>>,
    next_due: Option<Day>,
    schedule_hash: Bytes,
    billing_hash: Bytes,
    schedule_revision: i64,
    billing_revision: i64,
    #[serde(default)]
    pages: i32,
}

#[derive(Serialize, Deserialize)]
struct IssuedWire<'a> {
    #[serde(borrow)]
    entry_id: Text<'a>,
    natural_date: Day,
    what: Text<'a>,
    obligation_id: Option<Text<'a>>,
    fact: Option<Text<'a>>,
    kind: Text<'a>,
    contract_id: Text<'a>,
    line_type: Option<Text<'a>>,
    date: Day,
    period: Label,
    concerns: Label,
    amount: Amount,
    tax: Amount,
    functional: Amount,
    position: Amount,
    receivable: Amount,
    cause: Text<'a>,
}

#[derive(Serialize, Deserialize)]
struct LedgerWire {
    position: Amount,
    position_functional: Amount,
    receivable: Amount,
    receivable_functional: Amount,
    deposit: Amount,
    remeasured: Option<Day>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RateNeededWire<'a> {
    #[serde(borrow)]
    base: Text<'a>,
    quote: Text<'a>,
    date: Day,
}

impl<'a> ContractWire<'a> {
    fn of(contract: &'a Contract, paged: Paged) -> ContractWire<'a> {
        let ledger = &contract.ledger;
        ContractWire {
            tenant_id: contract.tenant.as_str().into(),
            deal_id: contract.deal.as_str().into(),
            facts: contract.facts[paged.facts..].iter().map(FactWire::from).collect(),
            issued: contract.issued[paged.issued..].iter().map(IssuedWire::from).collect(),
            ledger: LedgerWire {
                position: Fixed(ledger.position),
                position_functional: Fixed(ledger.position_functional),
                receivable: Fixed(ledger.receivable),
                receivable_functional: Fixed(ledger.receivable_functional),
                deposit: Fixed(ledger.deposit),
                remeasured: ledger.remeasured.map(Day),
            },
            locked: contract.locked.iter().copied().map(Label).collect(),
            waits_for: contract.waits_for.as_ref().map(RateNeededWire::from),
            next_due: contract.next_due.map(Day),
            schedule_hash: Bytes(contract.schedule_hash.to_vec()),
            billing_hash: Bytes(contract.billing_hash.to_vec()),
            schedule_revision: contract.schedule_revision.into(),
            billing_revision: contract.billing_revision.into(),
            pages: i32::try_from(paged.pages).unwrap_or(i32::MAX),
        }
    }
}

impl TryFrom<ContractWire<'_>> for Contract {
    type Error = Refused;

    fn try_from(wire: ContractWire<'_>) -> Result<Contract, Refused> {
        let revision = |field: &str, number: i64| u32::try_from(number).map_err(|_| bad(field, "not a count"));
        let hash =
            |field: &str, bytes: Bytes| <[u8; 32]>::try_from(bytes.0).map_err(|_| bad(field, "not a hash of 32 bytes"));
        Ok(Contract {
            tenant: id("tenant_id", &wire.tenant_id, TenantId::parse)?,
            deal: id("deal_id", &wire.deal_id, DealId::parse)?,
            facts: all(wire.facts)?,
            issued: all(wire.issued)?,
            ledger: Ledger {
                position: wire.ledger.position.0,
                position_functional: wire.ledger.position_functional.0,
                receivable: wire.ledger.receivable.0,
                receivable_functional: wire.ledger.receivable_functional.0,
                deposit: wire.ledger.deposit.0,
                remeasured: wire.ledger.remeasured.map(|day| day.0),
            },
            locked: wire.locked.into_iter().map(|label| label.0).collect(),
            waits_for: wire.waits_for.map(RateNeeded::try_from).transpose()?,
            next_due: wire.next_due.map(|day| day.0),
            schedule_hash: hash("schedule_hash", wire.schedule_hash)?,
            billing_hash: hash("billing_hash", wire.billing_hash)?,
            schedule_revision: revision("schedule_revision", wire.schedule_revision)?,
            billing_revision: revision("billing_revision", wire.billing_revision)?,
            memo: Memo::default(),
        })
    }
}

impl<'a> From<&'a Issued> for IssuedWire<'a> {
    fn from(issued: &'a Issued) -> IssuedWire<'a> {
        IssuedWire {
            entry_id: issued.entry_id.as_str().into(),
            natural_date: Day(issued.key.date),
            what: issued.key.what.name().into(),
            obligation_id: issued.key.obligation.as_ref().map(|id| id.as_str().into()),
            fact: issued.key.fact.as_ref().map(|id| id.as_str().into()),
            kind: issued.kind.name().into(),
            contract_id: issued.contract.as_str().into(),
            line_type: issued.line_type.as_ref().map(|of| of.as_str().into()),
            date: Day(issued.date),
            period: Label(issued.period),
            concerns: Label(issued.concerns),
            amount: Fixed(issued.amount),
            tax: Fixed(issued.tax),
            functional: Fixed(issued.functional),
            position: Fixed(issued.position),
            receivable: Fixed(issued.receivable),
            cause: issued.cause.as_str().into(),
        }
    }
}

impl TryFrom<IssuedWire<'_>> for Issued {
    type Error = Refused;

    fn try_from(wire: IssuedWire<'_>) -> Result<Issued, Refused> {
        Ok(Issued {
            entry_id: id("entry_id", &wire.entry_id, EntryId::parse)?,
            key: Key {
                date: wire.natural_date.0,
                what: What::of_name(&wire.what).ok_or_else(|| bad("what", &wire.what))?,
                obligation: maybe_id("obligation_id", wire.obligation_id.as_deref(), ObligationId::parse)?,
                fact: maybe_id("fact", wire.fact.as_deref(), EventId::parse)?,
            },
            kind: Kind::of_name(&wire.kind).ok_or_else(|| bad("kind", &wire.kind))?,
            contract: id("contract_id", &wire.contract_id, ContractId::parse)?,
            line_type: maybe_id("line_type", wire.line_type.as_deref(), LineType::parse)?,
            date: wire.date.0,
            period: wire.period.0,
            concerns: wire.concerns.0,
            amount: wire.amount.0,
            tax: wire.tax.0,
            functional: wire.functional.0,
            position: wire.position.0,
            receivable: wire.receivable.0,
            cause: id("cause", &wire.cause, EventId::parse)?,
        })
    }
}

impl<'a> From<&'a RateNeeded> for RateNeededWire<'a> {
    fn from(needed: &'a RateNeeded) -> RateNeededWire<'a> {
        RateNeededWire {
            base: needed.base.code().into(),
            quote: needed.quote.code().into(),
            date: Day(needed.date),
        }
    }
}

impl TryFrom<RateNeededWire<'_>> for RateNeeded {
    type Error = Refused;

    fn try_from(wire: RateNeededWire<'_>) -> Result<RateNeeded, Refused> {
        let currency = |code: &str| Currency::parse(code).ok_or_else(|| bad("waits_for", code));
        Ok(RateNeeded {
            base: currency(&wire.base)?,
            quote: currency(&wire.quote)?,
            date: wire.date.0,
        })
    }
}

fn all<W, T: TryFrom<W, Error = Refused>>(wires: Vec<W>) -> Result<Vec<T>, Refused> {
    wires.into_iter().map(T::try_from).collect()
}

pub(super) fn id<'a, T>(field: &str, text: &'a str, parse: impl Fn(&'a str) -> Option<T>) -> Result<T, Refused> {
    parse(text).ok_or_else(|| bad(field, text))
}

pub(super) fn maybe_id<'a, T>(
    field: &str,
    text: Option<&'a str>,
    parse: impl Fn(&'a str) -> Option<T>,
) -> Result<Option<T>, Refused> {
    text.map(|text| id(field, text, parse)).transpose()
}

fn bad(field: &str, value: &str) -> Refused {
    Refused::new(
        "bad_store",
        format!("{field}: {value:?} cannot be read by this version"),
    )
}
