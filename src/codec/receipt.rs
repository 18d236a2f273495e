//! Receipts: on their topic as Avro, in an export as one JSON object a line.
//!
//! Invariant: a receipt comes back equal to what was written, in both forms. Deliberately absent: the hash, which the
//! sink computes over the fields and not over any encoding, so that a schema may grow.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schemas::{Product, Schemas};
use super::wire::{Bytes, Instant};
use super::{DecodeError, Refused};

/// What was written where. `hash` and `previous` are SHA-256; `previous` is empty for the first of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub sink: String,
    /// The partition of the journal; with `sink` it names one chain.
    pub chain: u32,
    /// From 1.
    pub number: u64,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
    pub key: String,
    pub form: String,
    /// `acknowledged`, `found`, `confirmed` or `cancelled`.
    pub outcome: String,
    pub tenant: String,
    pub deal: Option<String>,
    pub entries: Vec<String>,
    pub reference: Option<String>,
    pub body_sha256: Option<String>,
    pub external_id: Option<String>,
    pub response_digest: Option<String>,
    pub by: Option<String>,
    pub note: Option<String>,
    pub attempts: u64,
    /// To the millisecond, as all instants here.
    pub source_at: Timestamp,
    pub planned_at: Timestamp,
    pub sent_at: Option<Timestamp>,
    pub settled_at: Timestamp,
}

impl Schemas {
    pub fn encode_receipt(&self, receipt: &Receipt) -> Result<Vec<u8>, Refused> {
        self.encode(Product::Receipts, &ReceiptWire::from(receipt.clone()))
    }

    pub fn decode_receipt(&self, bytes: &[u8]) -> Result<Receipt, DecodeError> {
        let wire: ReceiptWire = self.decode(Product::Receipts, bytes)?;
        Ok(wire.try_into()?)
    }
}

/// One line of an export, without a line feed.
pub fn to_line(receipt: &Receipt) -> Result<String, Refused> {
    let text = ReceiptText {
        sink: receipt.sink.clone(),
        chain: receipt.chain,
        number: receipt.number,
        previous: hex(&receipt.previous),
        hash: hex(&receipt.hash),
        key: receipt.key.clone(),
        form: receipt.form.clone(),
        outcome: receipt.outcome.clone(),
        tenant_id: receipt.tenant.clone(),
        deal_id: receipt.deal.clone(),
        entries: receipt.entries.clone(),
        reference: receipt.reference.clone(),
        body_sha256: receipt.body_sha256.clone(),
        external_id: receipt.external_id.clone(),
        response_digest: receipt.response_digest.clone(),
        by: receipt.by.clone(),
        note: receipt.note.clone(),
        attempts: receipt.attempts,
        source_at: receipt.source_at.to_string(),
        planned_at: receipt.planned_at.to_string(),
        sent_at: receipt.sent_at.map(|at| at.to_string()),
        settled_at: receipt.settled_at.to_string(),
    };
    serde_json::to_string(&text).map_err(|error| Refused::new("unencodable", error.to_string()))
}

/// # Errors
/// The line is no receipt; the message says why.
pub fn from_line(line: &str) -> Result<Receipt, Refused> {
    let text: ReceiptText = serde_json::from_str(line).map_err(|error| bad(&error.to_string()))?;
    let at = |text: &str| text.parse::<Timestamp>().map_err(|error| bad(&error.to_string()));
    Ok(Receipt {
        previous: unhex(&text.previous)?,
        hash: unhex(&text.hash)?,
        source_at: at(&text.source_at)?,
        planned_at: at(&text.planned_at)?,
        sent_at: text.sent_at.as_deref().map(at).transpose()?,
        settled_at: at(&text.settled_at)?,
        sink: text.sink,
        chain: text.chain,
        number: text.number,
        key: text.key,
        form: text.form,
        outcome: text.outcome,
        tenant: text.tenant_id,
        deal: text.deal_id,
        entries: text.entries,
        reference: text.reference,
        body_sha256: text.body_sha256,
        external_id: text.external_id,
        response_digest: text.response_digest,
        by: text.by,
        note: text.note,
        attempts: text.attempts,
    })
}

/// How a chain ended when it was exported: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    pub sink: String,
    pub chain: u32,
    pub number: u64,
    pub hash: Vec<u8>,
}

impl ChainEnd {
    /// Without a line feed.
    pub fn to_line(&self) -> String {
        let hash = hex(&self.hash);
        serde_json::json!({"sink": self.sink, "chain": self.chain, "number": self.number, "hash": hash}).to_string()
    }

    /// # Errors
    /// The line is no end of a chain; the message says why.
    pub fn from_line(line: &str) -> Result<ChainEnd, Refused> {
        let text: ChainEndText = serde_json::from_str(line).map_err(|error| bad(&error.to_string()))?;
        Ok(ChainEnd {
            sink: text.sink,
            chain: text.chain,
            number: text.number,
            hash: unhex(&text.hash)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainEndText {
    sink: String,
    chain: u32,
    number: u64,
    hash: String,
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, Refused> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    bytes.ok_or_else(|| bad(&format!("{text:?} is not hexadecimal")))
}

fn bad(why: &str) -> Refused {
    Refused::new("bad_receipt", format!("no receipt: {why}"))
}

#[derive(Serialize, Deserialize)]
struct ReceiptWire {
    sink: String,
    chain: i32,
    number: i64,
    previous: Bytes,
    hash: Bytes,
    key: String,
    form: String,
    outcome: String,
    tenant_id: String,
    deal_id: Option<String>,
    entries: Vec<String>,
    reference: Option<String>,
    body_sha256: Option<String>,
    external_id: Option<String>,
    response_digest: Option<String>,
    by: Option<String>,
    note: Option<String>,
    attempts: i64,
    source_at: Instant,
    planned_at: Instant,
    sent_at: Option<Instant>,
    settled_at: Instant,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptText {
    sink: String,
    chain: u32,
    number: u64,
    previous: String,
    hash: String,
    key: String,
    form: String,
    outcome: String,
    tenant_id: String,
    deal_id: Option<String>,
    entries: Vec<String>,
    reference: Option<String>,
    body_sha256: Option<String>,
    external_id: Option<String>,
    response_digest: Option<String>,
    by: Option<String>,
    note: Option<String>,
    attempts: u64,
    source_at: String,
    planned_at: String,
    sent_at: Option<String>,
    settled_at: String,
}

impl From<Receipt> for ReceiptWire {
    fn from(it: Receipt) -> ReceiptWire {
        ReceiptWire {
            sink: it.sink,
            chain: i32::try_from(it.chain).unwrap_or(i32::MAX),
            number: i64::try_from(it.number).unwrap_or(i64::MAX),
            previous: Bytes(it.previous),
            hash: Bytes(it.hash),
            key: it.key,
            form: it.form,
            outcome: it.outcome,
            tenant_id: it.tenant,
            deal_id: it.deal,
            entries: it.entries,
            reference: it.reference,
            body_sha256: it.body_sha256,
            external_id: it.external_id,
            response_digest: it.response_digest,
            by: it.by,
            note: it.note,
            attempts: i64::try_from(it.attempts).unwrap_or(i64::MAX),
            source_at: Instant(it.source_at),
            planned_at: Instant(it.planned_at),
            sent_at: it.sent_at.map(Instant),
            settled_at: Instant(it.settled_at),
        }
    }
}

impl TryFrom<ReceiptWire> for Receipt {
    type Error = Refused;

    fn try_from(wire: ReceiptWire) -> Result<Receipt, Refused> {
        let count = |field: &str, number: i64| u64::try_from(number).map_err(|_| bad(&format!("{field} {number}")));
        Ok(Receipt {
            sink: wire.sink,
            chain: u32::try_from(wire.chain).map_err(|_| bad(&format!("chain {}", wire.chain)))?,
            number: count("number", wire.number)?,
            previous: wire.previous.0,
            hash: wire.hash.0,
            key: wire.key,
            form: wire.form,
            outcome: wire.outcome,
            tenant: wire.tenant_id,
            deal: wire.deal_id,
            entries: wire.entries,
            reference: wire.reference,
            body_sha256: wire.body_sha256,
            external_id: wire.external_id,
            response_digest: wire.response_digest,
            by: wire.by,
            note: wire.note,
            attempts: count("attempts", wire.attempts)?,
            source_at: wire.source_at.0,
            planned_at: wire.planned_at.0,
            sent_at: wire.sent_at.map(|at| at.0),
            settled_at: wire.settled_at.0,
        })
    }
}
