//! The keys and values of the embedded log's database.
//!
//! Invariant: what is written is read back the same, and what is damaged is refused.

use super::super::{Cleanup, LogError};
use crate::stream::record::{Header, Offset, Outgoing, Record, Timestamp, Topic, TopicPartition};

pub(super) fn corrupt(what: &str) -> LogError {
    LogError::fatal(format!("the embedded log is damaged: {what} cannot be read"))
}

pub(super) fn topic_key(topic: &Topic) -> Vec<u8> {
    [b"t", topic.as_str().as_bytes()].concat()
}

pub(super) fn topic_value(number: u32, partitions: u32, cleanup: Cleanup) -> Vec<u8> {
    let cleanup = match cleanup {
        Cleanup::Compact => u64::MAX,
        Cleanup::Delete { retention: None } => 0,
        Cleanup::Delete { retention: Some(keep) } => (keep.as_millis() as u64).max(1),
    };
    let (number, partitions) = (number.to_be_bytes(), partitions.to_be_bytes());
    [number.as_slice(), &partitions, &cleanup.to_be_bytes()].concat()
}

pub(super) fn record_key(topic: u32, partition: u32, offset: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&topic.to_be_bytes());
    key[4..8].copy_from_slice(&partition.to_be_bytes());
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

pub(super) fn bounds_key(topic: u32, partition: u32) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..5].copy_from_slice(&topic.to_be_bytes());
    key[5..].copy_from_slice(&partition.to_be_bytes());
    key
}

pub(super) fn bounds_value(start: Offset, end: Offset) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&start.0.to_be_bytes());
    value[8..].copy_from_slice(&end.0.to_be_bytes());
    value
}

pub(super) fn offset_key(group: &str, at: &TopicPartition) -> Vec<u8> {
    let mut key = b"o".to_vec();
    for part in [group, at.topic.as_str()] {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key.extend_from_slice(&at.partition.0.to_be_bytes());
    key
}

/// Timestamp, key, value, headers; a length of `u32::MAX` stands for absent.
pub(super) fn encode(record: &Outgoing, out: &mut Vec<u8>) {
    fn field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
        match bytes {
            None => out.extend_from_slice(&u32::MAX.to_be_bytes()),
            Some(bytes) => {
                out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
    out.clear();
    out.extend_from_slice(&record.timestamp.0.to_be_bytes());
    field(out, record.key.as_deref());
    field(out, record.value.as_deref());
    out.extend_from_slice(&(record.headers.len() as u32).to_be_bytes());
    for header in &record.headers {
        field(out, Some(header.name.as_bytes()));
        field(out, Some(&header.value));
    }
}

pub(super) fn decode(at: &TopicPartition, offset: Offset, bytes: &[u8]) -> Result<Record, LogError> {
    let mut cut = Cut(bytes);
    let timestamp = Timestamp(cut.u64()? as i64);
    let key = cut.field()?;
    let value = cut.field()?;
    let count = cut.u32()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = cut.field()?.ok_or_else(|| corrupt("a header"))?;
        let name = String::from_utf8(name).map_err(|_| corrupt("a header"))?;
        headers.push(Header::new(name, cut.field()?.unwrap_or_default()));
    }
    Ok(Record {
        at: at.clone(),
        offset,
        timestamp,
        key,
        value,
        headers,
    })
}

/// The bytes not read yet.
pub(super) struct Cut<'a>(pub(super) &'a [u8]);

impl Cut<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(|| corrupt("a number"))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, LogError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, LogError> {
        self.take().map(u64::from_be_bytes)
    }

    fn field(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let length = self.u32()?;
        if length == u32::MAX {
            return Ok(None);
        }
        if length as usize > self.0.len() {
            return Err(corrupt("a field"));
        }
        let (head, tail) = self.0.split_at(length as usize);
        self.0 = tail;
        Ok(Some(head.to_vec()))
    }
}
