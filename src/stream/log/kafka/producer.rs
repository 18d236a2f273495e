//! A transactional producer.
//!
//! Invariant: it is never used again after an error; an outcome that is not known is said to be unknown.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::super::{LogError, LogErrorKind, Membership, Positions, Producer};
use super::errors::classify;
use super::{GroupProtocol, KafkaTimeouts, connection_error, setup};
use crate::stream::record::{Header, Offset, Outgoing, Partition, Topic, TopicPartition};
/// What became of the records of the open transaction, gathered from delivery reports.
#[derive(Default, Clone)]
struct Deliveries(Arc<Mutex<Delivered>>);

#[derive(Default)]
struct Delivered {
    /// By topic, then partition: the offset after the last record.
    ends: HashMap<String, BTreeMap<i32, i64>>,
    failed: Option<KafkaError>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        connection_error(&error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut delivered = self.lock();
        match result {
            Ok(message) => {
                let end = message.offset() + 1;
                if !delivered.ends.contains_key(message.topic()) {
                    delivered.ends.insert(message.topic().to_owned(), BTreeMap::new());
                }
                if let Some(ends) = delivered.ends.get_mut(message.topic()) {
                    let known = ends.entry(message.partition()).or_insert(end);
                    *known = (*known).max(end);
                }
            }
            Err((error, _)) => {
                if delivered.failed.is_none() {
                    delivered.failed = Some(error.clone());
                }
            }
        }
    }
}

pub(super) struct KafkaProducer {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    timeout: Duration,
    protocol: GroupProtocol,
}

impl KafkaProducer {
    /// A producer with the settings of `config`. When this returns, an older one of its transactional id is fenced.
    pub(super) fn start(
        config: &ClientConfig,
        timeouts: &KafkaTimeouts,
        protocol: GroupProtocol,
    ) -> Result<KafkaProducer, LogError> {
        let deliveries = Deliveries::default();
        let producer: ThreadedProducer<Deliveries> =
            ThreadedProducer::from_config_and_context(config, deliveries.clone()).map_err(setup)?;
        producer
            .init_transactions(timeouts.session)
            .map_err(|error| classify("initialising the transactional producer", &error))?;
        Ok(KafkaProducer {
            producer,
            deliveries,
            timeout: timeouts.transaction,
            protocol,
        })
    }

    /// Waits until every record has its delivery report. `flush` would do, but adds about 100 ms to each commit.
    fn drain(&self) -> Result<(), LogError> {
        let deadline = Instant::now() + self.timeout;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(LogError::new(
                    LogErrorKind::Abort,
                    format!(
                        "{} records were not acknowledged within {} s",
                        self.producer.in_flight_count(),
                        self.timeout.as_secs()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        match self.deliveries.lock().failed.take() {
            None => Ok(()),
            Some(error) => Err(classify("delivering", &error).but_not_retry()),
        }
    }

    /// The consumer protocol gives a member a new generation whenever something is taken from it, and tells it so: it is
    /// still a member, and only the work on what it lost is in vain.
    fn offsets_refused(&self, error: &KafkaError) -> LogError {
        let refused = classify("adding offsets to the transaction", error).but_not_retry();
        match (self.protocol, error.rdkafka_error_code()) {
            (
                GroupProtocol::Consumer,
                Some(RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::StaleMemberEpoch),
            ) => LogError::new(LogErrorKind::Abort, refused.message),
            _ => refused,
        }
    }
}

impl Producer for KafkaProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        *self.deliveries.lock() = Delivered::default();
        self.producer
            .begin_transaction()
            .map_err(|error| classify("beginning a transaction", &error).but_not_retry())
    }

    fn send(&mut self, record: Outgoing) -> Result<(), LogError> {
        let mut base: BaseRecord<'_, Vec<u8>, Vec<u8>> = BaseRecord::to(record.to.topic.as_str())
            .partition(record.to.partition.0 as i32)
            .timestamp(record.timestamp.0);
        if let Some(key) = &record.key {
            base = base.key(key);
        }
        if let Some(value) = &record.value {
            base = base.payload(value);
        }
        if !record.headers.is_empty() {
            base = base.headers(headers_out(&record.headers));
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.producer.send(base) {
                Ok(()) => return Ok(()),
                // Local back-pressure: the queue drains as brokers acknowledge.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    base = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    return Err(classify(&format!("writing to {}", record.to), &error).but_not_retry());
                }
            }
        }
    }

    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError> {
        self.drain()?;
        if let (Some(membership), false) = (membership, offsets.is_empty()) {
            let metadata = membership.get::<ConsumerGroupMetadata>()?;
            let mut list = TopicPartitionList::with_capacity(offsets.len());
            for (at, offset) in offsets {
                list.add_partition_offset(
                    at.topic.as_str(),
                    at.partition.0 as i32,
                    KafkaOffset::Offset(offset.0 as i64),
                )
                .map_err(|error| classify("listing offsets", &error))?;
            }
            retrying(self.timeout, || {
                self.producer.send_offsets_to_transaction(&list, metadata, self.timeout)
            })
            .map_err(|error| self.offsets_refused(&error))?;
        }
        // A retriable error of EndTxn may be asked again; anything less than a clear refusal leaves the outcome open.
        retrying(self.timeout, || self.producer.commit_transaction(self.timeout)).map_err(|error| {
            let known = classify("committing", &error);
            match known.kind {
                LogErrorKind::Retry | LogErrorKind::Fatal => LogError::new(LogErrorKind::Unknown, known.message),
                LogErrorKind::Abort | LogErrorKind::Unknown | LogErrorKind::Fenced => known,
            }
        })?;
        let delivered = std::mem::take(&mut *self.deliveries.lock());
        let mut ends = Positions::new();
        for (topic, partitions) in delivered.ends {
            let topic = Topic::new(topic);
            for (partition, end) in partitions {
                ends.insert(
                    TopicPartition::new(&topic, Partition(partition as u32)),
                    Offset(end as u64),
                );
            }
        }
        Ok(ends)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        // An abort that overtakes AddPartitions leaves the transaction hanging; wait for the reports first.
        let _ = self.drain();
        self.producer
            .abort_transaction(self.timeout)
            .map_err(|error| classify("aborting", &error))
    }
}

/// Calls again while librdkafka says that the very same call may be repeated.
fn retrying(within: Duration, mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + within;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                tracing::warn!(%error, "transaction call will be repeated");
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

fn headers_out(headers: &[Header]) -> OwnedHeaders {
    let mut out = OwnedHeaders::new_with_capacity(headers.len());
    for header in headers {
        out = out.insert(KafkaHeader {
            key: &header.name,
            value: Some(&header.value),
        });
    }
    out
}
