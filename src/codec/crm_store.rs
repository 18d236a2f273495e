//! What the CRM is known to have said about one deal, and about one customer: the stored state of `canonicalize`.
//!
//! Invariant: what is stored comes back equal, the announced fact's instant to the microsecond. Deliberately absent:
//! anything that can be derived from the rows under the mapping.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refused;
use super::cell::{Cell, cells, row};
use super::change::log_position;
use super::facts::FactWire;
use super::position::{LogPosition, TransactionId};
use super::stored::Stored;
use super::value::Row;
use super::wire::{Instant, Text};
use crate::revenue::fact::Fact;

/// A row as last told, or its absence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownRow {
    /// `None` once it was deleted; kept so that a repeated older change is known for what it is.
    pub row: Option<Row>,
    pub position: Option<LogPosition>,
    /// When the database made the change.
    pub at: Option<Timestamp>,
}

/// Everything known about one deal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DealPicture {
    /// The mapping's name in the topology.
    pub mapping: String,
    pub deal: KnownRow,
    /// By line id.
    pub lines: BTreeMap<String, KnownRow>,
    /// By line id and milestone id, `L1/M1`.
    pub milestones: BTreeMap<String, KnownRow>,
    /// Database transactions whose END is still to come.
    pub open_transactions: Vec<TransactionId>,
    /// Milestones whose acceptance was announced, or is the baseline's.
    pub accepted: Vec<String>,
    /// The terms last announced, as a fact; `None` before the first.
    pub announced: Option<Fact>,
    /// Whether the deal's end was announced.
    pub cancelled: bool,
    /// How many facts were announced: part of the next one's id.
    pub announcements: u64,
    /// Since when (record time, milliseconds) the picture does not add up; `None` when settled.
    pub unsettled_since: Option<i64>,
    /// Whether it was parked, visibly, for that.
    pub parked: bool,
    /// The baseline of the books has this deal: a snapshot that was taken for that said so.
    pub baseline: bool,
    /// The CRM gave an older deal this id; the books keep the older one, and hear nothing under this one.
    pub renamed: bool,
}

static STORED: LazyLock<Stored> = LazyLock::new(|| {
    Stored::new(
        "CRM store",
        &[
            include_str!("../../avro/crm-store.1.avsc"),
            include_str!("../../avro/crm-store.2.avsc"),
            include_str!("../../avro/crm-store.3.avsc"),
            include_str!("../../avro/crm-store.avsc"),
        ],
    )
});

impl DealPicture {
    pub fn encode(&self) -> Result<Vec<u8>, Refused> {
        STORED.encode(&StoredWire {
            deal: Some(PictureWire::from(self)),
            row: None,
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<DealPicture, Refused> {
        match STORED.decode(bytes)? {
            StoredWire {
                deal: Some(deal),
                row: None,
            } => DealPicture::try_from(deal),
            StoredWire { .. } => Err(not_a("deal")),
        }
    }
}

impl KnownRow {
    pub fn encode(&self) -> Result<Vec<u8>, Refused> {
        STORED.encode(&StoredWire {
            deal: None,
            row: Some(KnownRowWire::from(self)),
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<KnownRow, Refused> {
        match STORED.decode(bytes)? {
            StoredWire {
                deal: None,
                row: Some(row),
            } => KnownRow::try_from(row),
            StoredWire { .. } => Err(not_a("row")),
        }
    }
}

fn not_a(what: &str) -> Refused {
    Refused::new("bad_store", format!("CRM store: the value is not a {what}"))
}

#[derive(Serialize, Deserialize)]
struct StoredWire<'a> {
    #[serde(borrow)]
    deal: Option<PictureWire<'a>>,
    row: Option<KnownRowWire<'a>>,
}

#[derive(Serialize, Deserialize)]
struct PictureWire<'a> {
    #[serde(borrow)]
    mapping: Text<'a>,
    deal: KnownRowWire<'a>,
    lines: Vec<NamedRowWire<'a>>,
    milestones: Vec<NamedRowWire<'a>>,
    open_transactions: Vec<Text<'a>>,
    accepted: Vec<Text<'a>>,
    announced: Option<FactWire<'a>>,
    cancelled: bool,
    announcements: i64,
    unsettled_since: Option<i64>,
    parked: bool,
    baseline: bool,
    #[serde(default)]
    renamed: bool,
}

#[derive(Serialize, Deserialize)]
struct KnownRowWire<'a> {
    #[serde(borrow)]
    row: Option<Vec<Cell<'a>>>,
    log_position: Vec<i64>,
    at: Option<Instant>,
}

#[derive(Serialize, Deserialize)]
struct NamedRowWire<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    known: KnownRowWire<'a>,
}

impl<'a> From<&'a DealPicture> for PictureWire<'a> {
    fn from(picture: &'a DealPicture) -> PictureWire<'a> {
        PictureWire {
            mapping: picture.mapping.as_str().into(),
            deal: KnownRowWire::from(&picture.deal),
            lines: named_rows(&picture.lines),
            milestones: named_rows(&picture.milestones),
            open_transactions: picture
                .open_transactions
                .iter()
                .map(|id| id.0.as_str().into())
                .collect(),
            accepted: picture.accepted.iter().map(|id| id.as_str().into()).collect(),
            announced: picture.announced.as_ref().map(FactWire::from),
            cancelled: picture.cancelled,
            announcements: i64::try_from(picture.announcements).unwrap_or(i64::MAX),
            unsettled_since: picture.unsettled_since,
            parked: picture.parked,
            baseline: picture.baseline,
            renamed: picture.renamed,
        }
    }
}

impl TryFrom<PictureWire<'_>> for DealPicture {
    type Error = Refused;

    fn try_from(wire: PictureWire<'_>) -> Result<DealPicture, Refused> {
        Ok(DealPicture {
            mapping: wire.mapping.into_owned(),
            deal: KnownRow::try_from(wire.deal)?,
            lines: known_rows(wire.lines)?,
            milestones: known_rows(wire.milestones)?,
            open_transactions: wire
                .open_transactions
                .into_iter()
                .map(|id| TransactionId(id.into_owned()))
                .collect(),
            accepted: wire.accepted.into_iter().map(Text::into_owned).collect(),
            announced: wire.announced.map(Fact::try_from).transpose()?,
            cancelled: wire.cancelled,
            announcements: u64::try_from(wire.announcements)
                .map_err(|_| Refused::new("bad_store", "CRM store: a negative count of announcements"))?,
            unsettled_since: wire.unsettled_since,
            parked: wire.parked,
            baseline: wire.baseline,
            renamed: wire.renamed,
        })
    }
}

impl<'a> From<&'a KnownRow> for KnownRowWire<'a> {
    fn from(known: &'a KnownRow) -> KnownRowWire<'a> {
        KnownRowWire {
            row: known.row.as_ref().map(cells),
            log_position: known.position.map(|log| log.0.to_vec()).unwrap_or_default(),
            at: known.at.map(Instant),
        }
    }
}

impl TryFrom<KnownRowWire<'_>> for KnownRow {
    type Error = Refused;

    fn try_from(wire: KnownRowWire<'_>) -> Result<KnownRow, Refused> {
        Ok(KnownRow {
            row: wire.row.map(row).transpose()?,
            position: log_position(&wire.log_position)?,
            at: wire.at.map(|at| at.0),
        })
    }
}

fn named_rows(rows: &BTreeMap<String, KnownRow>) -> Vec<NamedRowWire<'_>> {
    rows.iter()
        .map(|(id, known)| NamedRowWire {
            id: id.as_str().into(),
            known: known.into(),
        })
        .collect()
}

fn known_rows(rows: Vec<NamedRowWire<'_>>) -> Result<BTreeMap<String, KnownRow>, Refused> {
    rows.into_iter()
        .map(|NamedRowWire { id, known }| Ok((id.into_owned(), KnownRow::try_from(known)?)))
        .collect()
}
