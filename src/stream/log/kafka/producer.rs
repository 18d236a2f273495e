//! A transactional producer.
//!
//! Invariant: it is never used again after an error; an outcome that is not known is said to be unknown.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::bindings::{rd_kafka_flush, rd_kafka_resp_err_t};
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
    /// Topic, partition, and the offset after the last record there.
    ends: Vec<(String, i32, i64)>,
    /// Whose record was delivered last: most often the next is of the same partition.
    latest: usize,
    failed: Option<KafkaError>,
}

impl Delivered {
    fn note(&mut self, topic: &str, partition: i32, end: i64) {
        let is = |of: &(String, i32, i64)| of.1 == partition && of.0 == topic;
        if !self.ends.get(self.latest).is_some_and(is) {
            self.latest = match self.ends.iter().position(is) {
                Some(known) => known,
                None => {
                    self.ends.push((topic.to_owned(), partition, end));
                    self.ends.len() - 1
                }
            };
        }
        let known = &mut self.ends[self.latest].2;
        *known = (*known).max(end);
    }
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
            Ok(message) => delivered.note(message.topic(), message.partition(), message.offset() + 1),
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

    /// Sends what still waits for its batch to fill, and waits until every record has its delivery report, which the
    /// producer's own thread takes. Its `flush` would poll as well, for 100 ms at a time.
    fn drain(&self) -> Result<(), LogError> {
        let within = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client lives as long as `self`, and any thread may flush it.
        let flushed = unsafe { rd_kafka_flush(self.producer.client().native_ptr(), within) };
        if flushed != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(LogError::new(
                LogErrorKind::Abort,
                format!(
                    "{} records were not acknowledged within {} s",
                    self.producer.in_flight_count(),
                    self.timeout.as_secs()
                ),
            ));
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
        let mut full_since = None;
        loop {
            match self.producer.send(base) {
                Ok(()) => return Ok(()),
                // Local back-pressure: the queue drains as brokers acknowledge.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if full_since.get_or_insert_with(Instant::now).elapsed() < self.timeout =>
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
        let ends = delivered.ends.into_iter().map(|(topic, partition, end)| {
            let at = TopicPartition::new(&Topic::new(topic), Partition(partition as u32));
            (at, Offset(end as u64))
        });
        Ok(ends.collect())
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
            value: Some(header.value.as_ref()),
        });
    }
    out
}
