//! One hash over everything that a program wrote to a topic, so that two programs can be compared.
//!
//! Invariant: the hash covers, of each record in the order of its partition, key, timestamp, headers in their order and
//! the Avro datum. Left out, because both depend on the topic's name: the schema id before the datum, and the span in
//! `traceparent` (its trace id is in).

use std::time::Duration;

use accrue::codec::trace::TRACEPARENT;
use accrue::stream::log::Log;
use accrue::stream::record::{Partition, Record, Topic, TopicPartition};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// A zero and a schema id.
const WIRE_PREFIX_BYTES: usize = 5;
/// `00-`, the trace id, `-`.
const TRACE_BYTES: usize = 36;

pub struct Digest {
    pub records: u64,
    pub value_bytes: u64,
    pub sha256: String,
}

pub fn of(log: &dyn Log, topic: &Topic) -> Result<Digest> {
    let mut hash = Sha256::new();
    let (mut records, mut value_bytes) = (0, 0);
    let count = log
        .partitions(topic)?
        .with_context(|| format!("there is no topic {topic}"))?;
    for n in 0..count {
        let at = TopicPartition::new(topic, Partition(n));
        let (start, end) = (log.start(&at)?, log.end(&at)?);
        let mut reader = log.reader(&at, start)?;
        let mut idle = 0;
        while reader.position()? < end {
            let read = reader.read(Duration::from_millis(100))?;
            idle = if read.is_empty() { idle + 1 } else { 0 };
            if idle > 300 {
                bail!("{at} gives no more committed records, though it has not ended");
            }
            for record in &read {
                records += 1;
                value_bytes += record.value.as_ref().map_or(0, Vec::len) as u64;
                feed(&mut hash, record);
            }
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Digest {
        records,
        value_bytes,
        sha256,
    })
}

fn feed(hash: &mut Sha256, record: &Record) {
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(record.key.as_deref().unwrap_or_default());
    part(&record.timestamp.0.to_be_bytes());
    for header in &record.headers {
        part(header.name.as_bytes());
        match header.name == TRACEPARENT {
            true => part(&header.value[..TRACE_BYTES.min(header.value.len())]),
            false => part(&header.value),
        }
    }
    let value = record.value.as_deref().unwrap_or_default();
    part(&value[WIRE_PREFIX_BYTES.min(value.len())..]);
}
