//! Dead letters: a record that could not be used, whole, with the reason.
//!
//! Invariant: the original key, value and headers are kept byte for byte, so that the record can be sent round again.
//! Writing a dead letter never fails: it is the last resort.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schemas::{Product, Schemas};
use super::trace::Trace;
use super::wire::{Bytes, Text};
use super::{DecodeError, Incoming, Refused};
use crate::revenue::ids::{DealId, TenantId};

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
        let letter = LetterWire {
            topic: record.topic.into(),
            partition: i32::try_from(record.partition).unwrap_or(i32::MAX),
            offset: i64::try_from(record.offset).unwrap_or(i64::MAX),
            timestamp,
            key: record.key.map(|bytes| Bytes(bytes.to_vec())),
            value: record.value.map(|bytes| Bytes(bytes.to_vec())),
            headers: record
                .headers
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
        };
        let place = format!("{}/{}/{}", record.topic, record.partition, record.offset);
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
            .unwrap_or_else(|_| record.value.unwrap_or_default().to_vec());
        Written {
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
            stage: wire.stage.into_owned(),
            code: wire.code.into_owned(),
            message: wire.message.into_owned(),
            tenant: wire.tenant_id.and_then(|tenant| TenantId::parse(&*tenant)),
            deal: wire.deal_id.and_then(|deal| DealId::parse(&*deal)),
        })
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
}

#[derive(Serialize, Deserialize)]
struct HeaderWire<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    value: Bytes,
}
