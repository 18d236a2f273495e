//! Dead letters: a record that could not be used, whole, with the reason.
//!
//! Invariant: the original key, value and headers are kept byte for byte, so that the record can be sent round again; what a
//! letter has no room for is left out whole, and the letter says so. Writing a dead letter never fails, and none is larger
//! than a broker takes by default: it is the last resort.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schemas::{Product, Schemas};
use super::trace::Trace;
use super::wire::{Bytes, Text};
use super::{DecodeError, Incoming, Refused};
use crate::revenue::ids::{DealId, TenantId};

/// Bytes of a record's key, value and headers that a letter has room for. A record may be as large as its broker takes, and
/// its letter is that and more; a broker takes 1,048,588 bytes by default, batch included.
const LARGEST_ORIGINAL_BYTES: usize = 1_000_000;

/// Of a message, which may quote the value.
const LARGEST_MESSAGE_BYTES: usize = 8 << 10;

/// A dead letter as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    /// The record's own timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Whether key, value or headers were too large to be kept. They are where the record is, by topic, partition and offset.
    pub cut: bool,
    pub stage: String,
    pub code: String,
    pub message: String,
    /// Known when the record's key is `tenant/deal`.
    pub tenant: Option<TenantId>,
    pub deal: Option<DealId>,
}

/// A dead letter as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The record's own, if there is room for it.
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Schemas {
    /// `timestamp` is the record's own, in milliseconds since 1970.
    pub fn encode_dead_letter(
        &self,
        record: &Incoming<'_>,
        timestamp: i64,
        stage: &str,
        code: &str,
        message: &str,
    ) -> Written {
        let (tenant, deal) = owner(record.key);
        let place = format!("{}/{}/{}", record.topic, record.partition, record.offset);
        let mut room = LARGEST_ORIGINAL_BYTES;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes);
            room = left.unwrap_or(room);
            left.is_some()
        };
        // The key is the letter's own, too.
        let key = record.key.filter(|key| fits(2 * key.len()));
        let headers = match fits(
            record
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum(),
        ) {
            true => record.headers,
            false => &[],
        };
        let kept = record.value.filter(|value| fits(value.len()));
        let cut = key.is_none() != record.key.is_none()
            || headers.len() != record.headers.len()
            || kept.is_none() != record.value.is_none();
        let mut message = shortened(message);
        if cut {
            message = format!("{message} (the record is too large to be kept here whole: it is at {place})").into();
        }
        let letter = LetterWire {
            topic: record.topic.into(),
            partition: i32::try_from(record.partition).unwrap_or(i32::MAX),
            offset: i64::try_from(record.offset).unwrap_or(i64::MAX),
            timestamp,
            key: key.map(|bytes| Bytes(bytes.to_vec())),
            value: kept.map(|bytes| Bytes(bytes.to_vec())),
            headers: headers
                .iter()
                .map(|(name, value)| HeaderWire {
                    name: (*name).into(),
                    value: Bytes(value.to_vec()),
                })
                .collect(),
            stage: stage.into(),
            code: code.into(),
            message: message.into(),
            tenant_id: tenant.as_ref().map(|tenant| tenant.as_str().into()),
            deal_id: deal.as_ref().map(|deal| deal.as_str().into()),
            cut,
        };
        let source = format!("accrue/{stage}");
        let time = Timestamp::from_millisecond(timestamp)
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .to_string();
        let tenant = tenant.as_ref().map(TenantId::as_str);
        let headers = [
            ("ce_specversion", Some("1.0")),
            ("ce_id", Some(place.as_str())),
            ("ce_source", Some(source.as_str())),
            ("ce_type", Some("accrue.dead_letter")),
            ("ce_time", Some(time.as_str())),
            ("ce_tenantid", tenant),
            ("content-type", Some("application/avro")),
            ("accrue_code", Some(code)),
        ];
        let named = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_string(), value?.as_bytes().to_vec())));
        let trace = Trace::of(record).child("dead-letter", &place.to_string());
        // Text and bytes always fit the schema; should they not, the original must not be lost over it.
        let value = self
            .encode(Product::DeadLetters, &letter)
            .unwrap_or_else(|_| kept.unwrap_or_default().to_vec());
        Written {
            key: key.map(<[u8]>::to_vec),
            value,
            headers: named
                .chain(trace.headers().map(|(name, value)| (name.to_string(), value.into())))
                .collect(),
        }
    }

    pub fn decode_dead_letter(&self, bytes: &[u8]) -> Result<DeadLetter, DecodeError> {
        let wire: LetterWire<'_> = self.decode(Product::DeadLetters, bytes)?;
        let out_of_range = || Refused::new("bad_event", "the dead letter's partition or offset is below zero");
        Ok(DeadLetter {
            topic: wire.topic.into_owned(),
            partition: u32::try_from(wire.partition).map_err(|_| out_of_range())?,
            offset: u64::try_from(wire.offset).map_err(|_| out_of_range())?,
            timestamp: wire.timestamp,
            key: wire.key.map(|bytes| bytes.0),
            value: wire.value.map(|bytes| bytes.0),
            headers: wire
                .headers
                .into_iter()
                .map(|header| (header.name.into_owned(), header.value.0))
                .collect(),
            cut: wire.cut,
            stage: wire.stage.into_owned(),
            code: wire.code.into_owned(),
            message: wire.message.into_owned(),
            tenant: wire.tenant_id.and_then(|tenant| TenantId::parse(&*tenant)),
            deal: wire.deal_id.and_then(|deal| DealId::parse(&*deal)),
        })
    }
}

fn shortened(message: &str) -> Cow<'_, str> {
    match message.len() <= LARGEST_MESSAGE_BYTES {
        true => message.into(),
        false => format!("{}...", &message[..message.floor_char_boundary(LARGEST_MESSAGE_BYTES)]).into(),
    }
}

fn owner(key: Option<&[u8]>) -> (Option<TenantId>, Option<DealId>) {
    let key = key.and_then(|key| std::str::from_utf8(key).ok());
    match key.and_then(|key| key.split_once('/')) {
        Some((tenant, deal)) => match (TenantId::parse(tenant), DealId::parse(deal)) {
            (Some(tenant), Some(deal)) => (Some(tenant), Some(deal)),
            (Some(_) | None, Some(_) | None) => (None, None),
        },
        None => (None, None),
    }
}

#[derive(Serialize, Deserialize)]
struct LetterWire<'a> {
    #[serde(borrow)]
    topic: Text<'a>,
    partition: i32,
    offset: i64,
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<HeaderWire<'a>>,
    stage: Text<'a>,
    code: Text<'a>,
    message: Text<'a>,
    tenant_id: Option<Text<'a>>,
    deal_id: Option<Text<'a>>,
    #[serde(default)]
    cut: bool,
}

#[derive(Serialize, Deserialize)]
struct HeaderWire<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    value: Bytes,
}
