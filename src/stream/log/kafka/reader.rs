//! Reading a partition outside a group, and clients for one purpose.
//!
//! Owns: how they are closed.
//! Invariant: a client is closed before the process may end: librdkafka's threads and OpenSSL's cleaning up at the end of a
//! process do not go together.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::super::{LogError, Reader};
use super::errors::{classify, is_transient};
use super::{MAX_POLL_BYTES, MAX_POLL_RECORDS, Quiet, positions, record_of, setup};
use crate::stream::record::{Offset, Record, TopicPartition};

/// A client for one purpose, closed on a thread of its own: rdkafka takes 100 ms to close one that names a group, joined or not,
/// and whoever restores a store or starts a process would wait that long for each.
pub(super) struct Brief {
    client: ManuallyDrop<BaseConsumer<Quiet>>,
    closing: Closing,
}

impl Brief {
    pub(super) fn new(config: &ClientConfig, closing: Closing) -> Result<Brief, LogError> {
        let client = BaseConsumer::from_config_and_context(config, Quiet).map_err(setup)?;
        Ok(Brief {
            client: ManuallyDrop::new(client),
            closing,
        })
    }
}

impl Drop for Brief {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and not used after.
        let client = unsafe { ManuallyDrop::take(&mut self.client) };
        self.closing.close(client);
    }
}

impl Deref for Brief {
    type Target = BaseConsumer<Quiet>;

    fn deref(&self) -> &BaseConsumer<Quiet> {
        &self.client
    }
}

/// Clients that are being closed. The last of those who share it waits for them.
#[derive(Clone, Default)]
pub(super) struct Closing(Arc<Threads>);

#[derive(Default)]
struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Closing {
    fn close(&self, client: BaseConsumer<Quiet>) {
        // Where there is no thread to be had, what it was to do is done here.
        let thread = std::thread::Builder::new()
            .name("closing".to_owned())
            .spawn(move || drop(client));
        let mut threads = self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        threads.retain(|thread| !thread.is_finished());
        threads.extend(thread);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let threads = self.0.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub(super) struct KafkaReader {
    consumer: Brief,
    at: TopicPartition,
    from: Offset,
}

impl KafkaReader {
    pub(super) fn start(consumer: Brief, at: &TopicPartition, from: Offset) -> Result<KafkaReader, LogError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            at.topic.as_str(),
            at.partition.0 as i32,
            KafkaOffset::Offset(from.0 as i64),
        )
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| classify(&format!("reading {at}"), &error))?;
        Ok(KafkaReader {
            consumer,
            at: at.clone(),
            from,
        })
    }
}

impl Reader for KafkaReader {
    fn read(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let mut records: Vec<Record> = Vec::new();
        let (mut wait, mut bytes) = (timeout, 0);
        while records.len() < MAX_POLL_RECORDS && bytes < MAX_POLL_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Err(error)) if is_transient(&error) => break,
                Some(Err(error)) => return Err(classify(&format!("reading {}", self.at), &error)),
                Some(Ok(message)) => records.push(record_of(&message, self.at.clone())),
            }
            bytes += records.last().map_or(0, Record::bytes);
            wait = Duration::ZERO;
        }
        Ok(records)
    }

    fn position(&self) -> Result<Offset, LogError> {
        let list = self
            .consumer
            .position()
            .map_err(|error| classify(&format!("reading {}", self.at), &error))?;
        Ok(positions(&list).get(&self.at).copied().unwrap_or(self.from))
    }
}
