//! The log on a real Kafka cluster, through librdkafka.
//!
//! Owns: which librdkafka settings the runtime needs, and what is asked outside a group. A member of a group is in `consumer`,
//! how many a group has in `members`, transactions in `producer`, replay in `reader`, what errors mean in `errors`.
//! Invariant: the end of a partition is asked for *read_uncommitted*, replay is *read_committed* (a read_committed watermark
//! stops at the last stable offset: too early).
//! Absent: TLS and SASL knowledge; those settings pass through as librdkafka names them.

mod consumer;
mod errors;
#[cfg(target_os = "linux")]
mod leader_hints;
mod members;
mod producer;
mod reader;
mod settings;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use self::consumer::KafkaConsumer;
use self::errors::classify;
use self::producer::KafkaProducer;
use self::reader::{Brief, Closing, KafkaReader};
pub use self::settings::{SettingError, check_setting};
use super::{
    Cleanup, Consumer, DELETIONS_KEPT, GroupSpec, Log, LogError, LogErrorKind, Positions, Producer, Reader, TopicFound,
    TopicSpec,
};
use crate::stream::budget::Budget;
use crate::stream::record::{Header, LARGEST_BATCH_BYTES, Offset, Partition, Record, Timestamp, Topic, TopicPartition};

/// librdkafka's own default for what a client sends. Consumers send nothing of that size, and one whose fetches are smaller
/// than this is refused; larger records reach it all the same (KIP-74).
const CONSUMERS_LARGEST_BYTES: usize = 1_000_000;

/// Records handed out by one poll at most.
const MAX_POLL_RECORDS: usize = 2_000;
/// Keys and values handed out by one poll at most, after which the next record is left for the next poll.
const MAX_POLL_BYTES: usize = 4 << 20;
/// How long librdkafka waits before it looks again whether its queue has room; by default a second.
const FULL_QUEUE_PAUSE_MS: &str = "10";
/// Memory of the queue of a reader: there may be one for each store of a process.
const READER_QUEUE_BYTES: usize = 1 << 20;
/// How long metadata and offset questions may take before they are an error the caller may retry.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Why there may be no answer although brokers are there (KIP-447).
const HELD_BACK: &str = "none are given out while a transaction holds them; one that never ends is a matter for kafka-transactions.sh, see docs/faults.md";

/// Timeouts of the transaction protocol. The transaction timeout must stay below the session timeout, so that a
/// lost member's transaction ends before its partitions have new work in them.
#[derive(Clone, Debug)]
pub struct KafkaTimeouts {
    pub transaction: Duration,
    pub session: Duration,
}

/// How the members of a group share the partitions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// By one of them; each change takes all partitions from all of them for a moment.
    #[default]
    Classic,
    /// By the broker (KIP-848, Kafka 4.0 and newer), which takes away only what goes to another. The session's length is
    /// the broker's too: `group.consumer.session.timeout.ms`.
    Consumer,
}

/// Memory of the queues of one client, in bytes.
#[derive(Clone, Copy, Debug)]
struct KafkaQueues {
    /// Fetched by a consumer and not handed out.
    fetched_bytes: usize,
    /// Written by a producer and not confirmed.
    unconfirmed_bytes: usize,
}

impl Default for KafkaQueues {
    fn default() -> KafkaQueues {
        KafkaQueues {
            fetched_bytes: 64 << 20,
            unconfirmed_bytes: 64 << 20,
        }
    }
}

/// A Kafka cluster.
pub struct KafkaLog {
    properties: BTreeMap<String, String>,
    timeouts: KafkaTimeouts,
    queues: KafkaQueues,
    protocol: GroupProtocol,
    admin: AdminClient<DefaultClientContext>,
    /// For ends and starts: its own isolation level is read_uncommitted.
    uncommitted: BaseConsumer<Quiet>,
    /// For stable ends, once somebody asks: its own is read_committed.
    committed: OnceLock<BaseConsumer<Quiet>>,
    closing: Closing,
}

impl KafkaLog {
    /// Connects with librdkafka `properties` (`bootstrap.servers` and whatever security needs), waiting up to `wait`
    /// for the first answer. `progress` is told about each failed try.
    pub fn connect(
        properties: BTreeMap<String, String>,
        timeouts: KafkaTimeouts,
        wait: Duration,
        progress: &dyn Fn(&str),
    ) -> Result<KafkaLog, LogError> {
        let base = base_config(&properties);
        let admin = AdminClient::from_config(&base).map_err(setup)?;
        let mut config = base.clone();
        config.set("isolation.level", "read_uncommitted");
        let uncommitted = BaseConsumer::from_config_and_context(&config, Quiet).map_err(setup)?;
        let deadline = Instant::now() + wait;
        loop {
            match uncommitted.fetch_metadata(None, Duration::from_secs(5).min(wait)) {
                Ok(_) => break,
                Err(error) if Instant::now() >= deadline => {
                    return Err(LogError::fatal(format!(
                        "no Kafka broker answered at {} within {} s: {error}. Check kafka.bootstrap_servers, that the broker is up, and the security settings",
                        properties.get("bootstrap.servers").map_or("?", String::as_str),
                        wait.as_secs(),
                    )));
                }
                Err(error) => {
                    progress(&format!("waiting for Kafka: {error}"));
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
        Ok(KafkaLog {
            properties,
            timeouts,
            queues: KafkaQueues::default(),
            protocol: GroupProtocol::default(),
            admin,
            uncommitted,
            committed: OnceLock::new(),
            closing: Closing::default(),
        })
    }

    /// Bounds what each consumer fetches ahead and each producer has unconfirmed by one thread's part of the memory.
    pub fn with_memory(self, memory: Budget) -> KafkaLog {
        let queues = KafkaQueues {
            fetched_bytes: memory.fetched,
            unconfirmed_bytes: memory.unconfirmed,
        };
        KafkaLog { queues, ..self }
    }

    /// How its consumers share partitions. All members of a group may differ in it: the broker translates.
    pub fn with_protocol(self, protocol: GroupProtocol) -> KafkaLog {
        KafkaLog { protocol, ..self }
    }

    fn base(&self) -> ClientConfig {
        base_config(&self.properties)
    }

    fn brief(&self, config: &ClientConfig) -> Result<Brief, LogError> {
        Brief::new(config, self.closing.clone())
    }

    fn watermarks(&self, at: &TopicPartition) -> Result<(i64, i64), LogError> {
        self.uncommitted
            .fetch_watermarks(at.topic.as_str(), at.partition.0 as i32, REQUEST_TIMEOUT)
            .map_err(|error| classify(&format!("asking for the offsets of {at}"), &error))
    }
}

fn base_config(properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "accrue")
        // Idle connections that a broker closes are normal, not worth a log line.
        .set("log.connection.close", "false")
        // A broker that is back should not wait for us: the default pause between tries grows to 10 s.
        .set("reconnect.backoff.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Warning);
    for (key, value) in properties {
        config.set(key, value);
    }
    config
}

fn setup(error: KafkaError) -> LogError {
    LogError::fatal(format!("Kafka client settings refused: {error}"))
}

impl Log for KafkaLog {
    fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicFound>, LogError> {
        let mut found = Vec::with_capacity(specs.len());
        let mut missing = Vec::new();
        for spec in specs {
            match self.partitions(&spec.topic)? {
                Some(partitions) => found.push(TopicFound {
                    topic: spec.topic.clone(),
                    partitions,
                    created: false,
                }),
                None => missing.push(spec),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let retentions: Vec<String> = missing.iter().map(|spec| retention_ms(spec.cleanup)).collect();
        let largest = LARGEST_BATCH_BYTES.to_string();
        // As brokers have it unless they were told otherwise; restores rely on it.
        let deletions_kept = DELETIONS_KEPT.as_millis().to_string();
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .zip(&retentions)
            .map(|(spec, retention)| {
                let topic = NewTopic::new(
                    spec.topic.as_str(),
                    spec.partitions as i32,
                    TopicReplication::Fixed(spec.replication_factor),
                )
                .set("max.message.bytes", &largest);
                match spec.cleanup {
                    Cleanup::Compact => topic
                        .set("cleanup.policy", "compact")
                        .set("delete.retention.ms", &deletions_kept),
                    Cleanup::Delete { .. } => topic.set("cleanup.policy", "delete").set("retention.ms", retention),
                }
            })
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let results = block_on(self.admin.create_topics(&topics, &options))?
            .map_err(|error| classify("creating topics", &error))?;
        for (spec, result) in missing.iter().zip(results) {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(LogError::fatal(format!("topic {name} cannot be created: {code}")));
                }
            }
            // Metadata follows the creation by a moment.
            let deadline = Instant::now() + REQUEST_TIMEOUT;
            let partitions = loop {
                match self.partitions(&spec.topic)? {
                    Some(partitions) => break partitions,
                    None if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    None => {
                        return Err(LogError::retry(format!(
                            "topic {} was created but the brokers do not show it yet",
                            spec.topic
                        )));
                    }
                }
            };
            found.push(TopicFound {
                topic: spec.topic.clone(),
                partitions,
                created: true,
            });
        }
        Ok(found)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, LogError> {
        // A consumer's question creates nothing, also where brokers create topics that are asked for.
        let refused = |error: KafkaError| classify(&format!("asking for topic {topic}"), &error);
        let metadata = self
            .uncommitted
            .fetch_metadata(Some(topic.as_str()), REQUEST_TIMEOUT)
            .map_err(refused)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic.as_str()) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            _ if !found.partitions().is_empty() => Ok(Some(found.partitions().len() as u32)),
            // The last while it is being made.
            None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable) => Ok(None),
            Some(code) => Err(refused(KafkaError::MetadataFetch(code))),
        }
    }

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let mut config = self.base();
        config
            .set("group.id", &group.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // A fetch that waits longer than a commit interval only adds latency.
            .set("fetch.wait.max.ms", "50")
            // Half for what waits, half for the answer to a fetch that was sent while there was room.
            .set("queued.max.messages.kbytes", kbytes(self.queues.fetched_bytes / 2))
            .set(
                "fetch.max.bytes",
                (self.queues.fetched_bytes / 2).max(CONSUMERS_LARGEST_BYTES).to_string(),
            )
            .set("fetch.queue.backoff.ms", FULL_QUEUE_PAUSE_MS);
        // The partitions of one number of all sources are one task's, and belong to one member: of all assignors only
        // range sees to that (cooperative-sticky and uniform deal them out one by one).
        match self.protocol {
            GroupProtocol::Classic => config
                .set("partition.assignment.strategy", "range")
                .set("session.timeout.ms", self.timeouts.session.as_millis().to_string()),
            GroupProtocol::Consumer => config
                .set("group.protocol", "consumer")
                .set("group.remote.assignor", "range"),
        };
        if let Some(instance) = &group.instance {
            config.set("group.instance.id", instance);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("message.max.bytes", CONSUMERS_LARGEST_BYTES.to_string());
        Ok(Box::new(KafkaConsumer::join(&config, self.protocol, group)?))
    }

    fn producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>, LogError> {
        let mut config = self.base();
        config
            .set("transactional.id", transactional_id)
            .set("enable.idempotence", "true")
            .set(
                "transaction.timeout.ms",
                self.timeouts.transaction.as_millis().to_string(),
            )
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("batch.num.messages", "10000")
            .set("message.max.bytes", LARGEST_BATCH_BYTES.to_string())
            // A record that does not fit into the queue would wait for ever.
            .set(
                "queue.buffering.max.kbytes",
                kbytes(self.queues.unconfirmed_bytes.max(LARGEST_BATCH_BYTES)),
            );
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        Ok(Box::new(KafkaProducer::start(&config, &self.timeouts, self.protocol)?))
    }

    fn reader(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, LogError> {
        let mut config = self.base();
        config
            // Assigning needs a group's name, although this one is never joined.
            .set("group.id", "accrue-reader")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50")
            .set("queued.max.messages.kbytes", kbytes(READER_QUEUE_BYTES))
            .set("fetch.max.bytes", READER_QUEUE_BYTES.to_string())
            .set("fetch.queue.backoff.ms", FULL_QUEUE_PAUSE_MS)
            .set("message.max.bytes", CONSUMERS_LARGEST_BYTES.to_string());
        Ok(Box::new(KafkaReader::start(self.brief(&config)?, at, from)?))
    }

    fn end(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        Ok(Offset(self.watermarks(at)?.1.max(0) as u64))
    }

    fn stable_end(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        let committed = match self.committed.get() {
            Some(client) => client,
            None => {
                let mut config = self.base();
                config.set("isolation.level", "read_committed");
                let client = BaseConsumer::from_config_and_context(&config, Quiet).map_err(setup)?;
                self.committed.get_or_init(|| client)
            }
        };
        let (_, end) = committed
            .fetch_watermarks(at.topic.as_str(), at.partition.0 as i32, REQUEST_TIMEOUT)
            .map_err(|error| classify(&format!("asking for the stable end of {at}"), &error))?;
        Ok(Offset(end.max(0) as u64))
    }

    fn start(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        Ok(Offset(self.watermarks(at)?.0.max(0) as u64))
    }

    fn committed(&self, group: &str, of: &[TopicPartition]) -> Result<Positions, LogError> {
        let mut config = self.base();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer = self.brief(&config)?;
        let found = consumer
            .committed_offsets(list_of(of), REQUEST_TIMEOUT)
            .map_err(|error| {
                classify(
                    &format!("asking for the offsets of group {group} ({HELD_BACK})"),
                    &error,
                )
            })?;
        Ok(positions(&found))
    }

    fn members(&self, group: &str) -> Result<usize, LogError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match members::count(self.admin.inner(), group, REQUEST_TIMEOUT) {
                // Its coordinator has just changed, say.
                Err(error) if error.kind == LogErrorKind::Retry && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                counted => return counted,
            }
        }
    }

    fn move_group(&self, group: &str, to: &Positions) -> Result<(), LogError> {
        let mut config = self.base();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer = self.brief(&config)?;
        let doing = format!("moving the offsets of group {group}");
        let mut list = TopicPartitionList::with_capacity(to.len());
        for (at, offset) in to {
            let offset = KafkaOffset::Offset(offset.0 as i64);
            list.add_partition_offset(at.topic.as_str(), at.partition.0 as i32, offset)
                .map_err(|error| classify(&doing, &error))?;
        }
        if to.is_empty() {
            return Ok(());
        }
        consumer
            .commit(&list, CommitMode::Sync)
            .map_err(|error| classify(&doing, &error))
    }

    fn grow(&self, topic: &Topic, partitions: u32) -> Result<(), LogError> {
        match self.partitions(topic)? {
            None => return Err(LogError::fatal(format!("there is no topic {topic}"))),
            Some(count) if count >= partitions => return Ok(()),
            Some(_) => {}
        }
        let doing = format!("giving topic {topic} {partitions} partitions");
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let wanted = NewPartitions::new(topic.as_str(), partitions as usize);
        let results =
            block_on(self.admin.create_partitions([&wanted], &options))?.map_err(|error| classify(&doing, &error))?;
        if let Some(Err((_, code))) = results.into_iter().find(Result::is_err) {
            return Err(LogError::fatal(format!("{doing}: {code}")));
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while self.partitions(topic)?.is_none_or(|count| count < partitions) {
            if Instant::now() > deadline {
                return Err(LogError::retry(format!("{doing}: the brokers do not show them yet")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<Offset, LogError> {
        let doing = format!("asking for an offset of {at} by its time");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            at.topic.as_str(),
            at.partition.0 as i32,
            KafkaOffset::Offset(time.0.max(0)),
        )
        .map_err(|error| classify(&doing, &error))?;
        let found = self
            .uncommitted
            .offsets_for_times(list, REQUEST_TIMEOUT)
            .map_err(|error| classify(&doing, &error))?;
        match positions(&found).get(at) {
            Some(offset) => Ok(*offset),
            None => self.end(at),
        }
    }
}

fn kbytes(bytes: usize) -> String {
    (bytes >> 10).max(1).to_string()
}

fn retention_ms(cleanup: Cleanup) -> String {
    match cleanup {
        Cleanup::Compact | Cleanup::Delete { retention: None } => "-1".to_owned(),
        Cleanup::Delete { retention: Some(keep) } => keep.as_millis().to_string(),
    }
}

/// Waits for an admin call; the future is driven by librdkafka's own threads.
fn block_on<F: Future>(future: F) -> Result<F::Output, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| LogError::fatal(format!("no runtime for Kafka administration: {error}")))?;
    Ok(runtime.block_on(future))
}

fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition(at.topic.as_str(), at.partition.0 as i32);
    }
    list
}

fn place_of(element: &TopicPartitionListElem<'_>) -> TopicPartition {
    TopicPartition::new(&Topic::new(element.topic()), Partition(element.partition() as u32))
}

fn positions(list: &TopicPartitionList) -> Positions {
    list.elements()
        .iter()
        .filter_map(|element| match element.offset() {
            KafkaOffset::Offset(offset) if offset >= 0 => Some((place_of(element), Offset(offset as u64))),
            _ => None,
        })
        .collect()
}

/// librdkafka's own log line has said it; what matters comes back from a call.
fn connection_error(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, reason, "client error");
}

/// A client whose messages reach nobody but the logs.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        connection_error(&error, reason);
    }
}
impl ConsumerContext for Quiet {}

/// A message of a consumer, as a record of `at`.
fn record_of(message: &BorrowedMessage<'_>, at: TopicPartition) -> Record {
    Record {
        at,
        offset: Offset(message.offset() as u64),
        timestamp: Timestamp(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message.headers().map(headers_in).unwrap_or_default(),
    }
}

fn headers_in(headers: &BorrowedHeaders) -> Vec<Header> {
    headers
        .iter()
        .map(|header| {
            Header::new(
                header.key.to_owned(),
                Bytes::copy_from_slice(header.value.unwrap_or_default()),
            )
        })
        .collect()
}
