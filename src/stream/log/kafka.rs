//! The log on a real Kafka cluster, through librdkafka.
//!
//! Owns: which librdkafka settings the runtime needs, and what its errors mean.
//! Invariants: a rebalance waits until the thread has answered (no work happens inside librdkafka's callback); a
//! producer is never used again after an error; the end of a partition is asked for *read_uncommitted*, replay is
//! *read_committed* (a read_committed watermark stops at the last stable offset: too early).
//! Absent: TLS and SASL knowledge; those settings pass through as librdkafka names them.

#[cfg(target_os = "linux")]
mod leader_hints;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::{
    Cleanup, Consumer, Event, GroupSpec, Log, LogError, LogErrorKind, Membership, Positions, Producer, Reader,
    TopicFound, TopicSpec,
};
use crate::stream::record::{Header, Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};

/// Records handed out by one poll at most.
const MAX_POLL_RECORDS: usize = 2_000;
/// Keys and values handed out by one poll at most, after which the next record is left for the next poll.
const MAX_POLL_BYTES: usize = 4 << 20;
/// How long librdkafka waits before it looks again whether its queue has room; by default a second.
const FULL_QUEUE_PAUSE_MS: &str = "10";
/// Memory of the queue of a reader: there may be one for each store of a process.
const READER_QUEUE_BYTES: usize = 1 << 20;
/// A partition that delivered nothing for so long is looked at; if it is behind at two looks in a row, it is roused.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the processing thread may wait for the end of a partition.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// A lasting outage is logged once in this time.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Offsets before the end of a partition that may hold nothing for us.
const UNSEEN_AT_MOST: u64 = 1_000;
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
pub struct KafkaQueues {
    /// Fetched by a consumer and not handed out.
    pub fetched_bytes: usize,
    /// Written by a producer and not confirmed.
    pub unconfirmed_bytes: usize,
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
        })
    }

    /// Bounds the memory of each consumer and producer.
    pub fn with_queues(self, queues: KafkaQueues) -> KafkaLog {
        KafkaLog { queues, ..self }
    }

    /// How its consumers share partitions. All members of a group may differ in it: the broker translates.
    pub fn with_protocol(self, protocol: GroupProtocol) -> KafkaLog {
        KafkaLog { protocol, ..self }
    }

    fn base(&self) -> ClientConfig {
        base_config(&self.properties)
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
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .zip(&retentions)
            .map(|(spec, retention)| {
                let topic = NewTopic::new(
                    spec.topic.as_str(),
                    spec.partitions as i32,
                    TopicReplication::Fixed(spec.replication_factor),
                );
                match spec.cleanup {
                    Cleanup::Compact => topic.set("cleanup.policy", "compact"),
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
        // All topics, since asking for one by name may create it on a broker with auto-creation.
        let metadata = self
            .uncommitted
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(|error| classify(&format!("asking for topic {topic}"), &error))?;
        Ok(metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic.as_str() && !found.partitions().is_empty())
            .map(|found| found.partitions().len() as u32))
    }

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        let mut config = self.base();
        config
            .set("group.id", &group.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // A fetch that waits longer than a commit interval only adds latency.
            .set("fetch.wait.max.ms", "50")
            // Half for what waits, half for the answer to a fetch that was sent while there was room.
            .set("queued.max.messages.kbytes", kbytes(self.queues.fetched_bytes / 2))
            .set("fetch.max.bytes", (self.queues.fetched_bytes / 2).to_string())
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
        let context = Rebalances::of(self.protocol);
        let shared = context.0.clone();
        let consumer: BaseConsumer<Rebalances> =
            BaseConsumer::from_config_and_context(&config, context).map_err(setup)?;
        let topics: Vec<&str> = group.topics.iter().map(Topic::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| classify("subscribing", &error))?;
        Ok(Box::new(KafkaConsumer {
            consumer,
            shared,
            assigned: BTreeSet::new(),
            topics: group
                .topics
                .iter()
                .cloned()
                .map(|t| (t.as_str().to_owned(), t))
                .collect(),
            next: HashMap::new(),
            flowing: HashMap::new(),
            told_away: None,
        }))
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
            .set("queue.buffering.max.kbytes", kbytes(self.queues.unconfirmed_bytes));
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        let deliveries = Deliveries::default();
        let producer: ThreadedProducer<Deliveries> =
            ThreadedProducer::from_config_and_context(&config, deliveries.clone()).map_err(setup)?;
        producer
            .init_transactions(self.timeouts.session)
            .map_err(|error| classify("initialising the transactional producer", &error))?;
        Ok(Box::new(KafkaProducer {
            producer,
            deliveries,
            timeout: self.timeouts.transaction,
            protocol: self.protocol,
        }))
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
            .set("fetch.queue.backoff.ms", FULL_QUEUE_PAUSE_MS);
        let consumer: BaseConsumer<Quiet> = BaseConsumer::from_config_and_context(&config, Quiet).map_err(setup)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            at.topic.as_str(),
            at.partition.0 as i32,
            KafkaOffset::Offset(from.0 as i64),
        )
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| classify(&format!("reading {at}"), &error))?;
        Ok(Box::new(KafkaReader {
            consumer,
            at: at.clone(),
            from,
        }))
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
        let consumer: BaseConsumer<Quiet> = BaseConsumer::from_config_and_context(&config, Quiet).map_err(setup)?;
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
        let listed = self
            .uncommitted
            .client()
            .fetch_group_list(Some(group), REQUEST_TIMEOUT)
            .map_err(|error| classify(&format!("asking for the members of group {group}"), &error))?;
        let found = listed.groups().iter().find(|found| found.name() == group);
        Ok(found.map_or(0, |found| found.members().len()))
    }

    fn move_group(&self, group: &str, to: &Positions) -> Result<(), LogError> {
        let mut config = self.base();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer: BaseConsumer<Quiet> = BaseConsumer::from_config_and_context(&config, Quiet).map_err(setup)?;
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

/// Rebalances seen by librdkafka and not yet answered.
#[derive(Clone)]
struct Rebalances(Arc<RebalanceQueue>);

impl Rebalances {
    fn of(protocol: GroupProtocol) -> Rebalances {
        Rebalances(Arc::new(RebalanceQueue {
            protocol,
            events: Mutex::default(),
            closing: AtomicBool::default(),
        }))
    }
}

struct RebalanceQueue {
    /// With the consumer protocol an event names what comes or goes, and so must its answer; with the classic one, all.
    protocol: GroupProtocol,
    events: Mutex<VecDeque<Event>>,
    /// Set while the consumer closes: nobody will answer any more.
    closing: AtomicBool,
}

impl RebalanceQueue {
    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        connection_error(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<TopicPartition> = list.elements().iter().map(place_of).collect();
        let assign = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.0.closing.load(Ordering::SeqCst) {
            let answered = match (assign, self.0.protocol) {
                (true, _) => Ok(()),
                (false, GroupProtocol::Classic) => consumer.unassign(),
                (false, GroupProtocol::Consumer) => consumer.incremental_unassign(list),
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "unassigning while closing the consumer");
            }
            return;
        }
        let event = if assign {
            Event::Assigned(partitions)
        } else if consumer.assignment_lost() {
            Event::Lost(partitions)
        } else {
            Event::Revoked(partitions)
        };
        self.0.events().push_back(event);
    }
}

struct KafkaConsumer {
    consumer: BaseConsumer<Rebalances>,
    shared: Arc<RebalanceQueue>,
    /// What librdkafka was told that we have.
    assigned: BTreeSet<TopicPartition>,
    topics: HashMap<String, Topic>,
    /// The offset of the next record to hand out, by assigned partition.
    next: HashMap<TopicPartition, Offset>,
    /// Assigned and not paused.
    flowing: HashMap<TopicPartition, Flow>,
    /// When an outage was last logged.
    told_away: Option<Instant>,
}

/// What is known of a partition that should deliver.
struct Flow {
    /// When it last delivered, or was last seen to have nothing.
    seen: Instant,
    /// The position at which it was last found behind.
    behind_at: Option<i64>,
}

impl Flow {
    fn new() -> Flow {
        Flow {
            seen: Instant::now(),
            behind_at: None,
        }
    }
}

impl KafkaConsumer {
    fn topic(&mut self, name: &str) -> Topic {
        match self.topics.get(name) {
            Some(topic) => topic.clone(),
            None => {
                let topic = Topic::new(name);
                self.topics.insert(name.to_owned(), topic.clone());
                topic
            }
        }
    }

    /// Where each partition is to be read from: the group's committed offset, or the first one kept. As numbers, since
    /// a logical offset is looked up by librdkafka on its own and can be lost when the broker goes away meanwhile.
    fn starts(&mut self, partitions: &[TopicPartition]) -> Result<TopicPartitionList, LogError> {
        let committed = self
            .consumer
            .committed_offsets(list_of(partitions), REQUEST_TIMEOUT)
            .map_err(|error| classify(&format!("asking for committed offsets ({HELD_BACK})"), &error))?;
        let committed = positions(&committed);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            let (first, _) = self
                .consumer
                .fetch_watermarks(at.topic.as_str(), at.partition.0 as i32, REQUEST_TIMEOUT)
                .map_err(|error| classify(&format!("asking for the offsets of {at}"), &error))?;
            let offset = match committed.get(at) {
                Some(offset) if (offset.0 as i64) < first => {
                    tracing::error!(
                        %at, committed = %offset, first,
                        "records were deleted by the topic's retention before they were read; going on with the first one kept"
                    );
                    first
                }
                Some(offset) => offset.0 as i64,
                None => first,
            };
            list.add_partition_offset(at.topic.as_str(), at.partition.0 as i32, KafkaOffset::Offset(offset))
                .map_err(|error| classify(&format!("reading {at}"), &error))?;
            // Known from the start: a partition without news must not look as if it held some back.
            self.next.insert(at.clone(), Offset(offset as u64));
        }
        Ok(list)
    }

    /// The offset up to which librdkafka has handed out or passed everything.
    fn position(&self, at: &TopicPartition) -> Option<Offset> {
        positions(&self.consumer.position().ok()?).get(at).copied()
    }

    /// The same; before anything was read, where reading starts.
    fn position_or_next(&self, at: &TopicPartition) -> Option<Offset> {
        self.position(at).or(self.next.get(at).copied())
    }

    /// The end as a read_committed client sees it: before the first transaction that is still open.
    fn end(&self, at: &TopicPartition) -> Result<i64, KafkaError> {
        let watermarks = self
            .consumer
            .fetch_watermarks(at.topic.as_str(), at.partition.0 as i32, END_TIMEOUT);
        watermarks.map(|(_, end)| end)
    }

    /// Looks after a partition that has been silent: one that has records and delivers none is assigned anew.
    fn rouse(&mut self) -> Result<(), LogError> {
        let Some(at) = self
            .flowing
            .iter()
            .find(|(_, flow)| flow.seen.elapsed() > SILENCE)
            .map(|(at, _)| at.clone())
        else {
            return Ok(());
        };
        let Ok(end) = self.end(&at) else {
            return Ok(());
        };
        let position = self.position_or_next(&at);
        let Some(flow) = self.flowing.get_mut(&at) else {
            return Ok(());
        };
        flow.seen = Instant::now();
        let here = position.map_or(-1, |offset| offset.0 as i64);
        if here >= end || end == 0 {
            flow.behind_at = None;
            return Ok(());
        }
        if flow.behind_at != Some(here) {
            flow.behind_at = Some(here);
            return Ok(());
        }
        flow.behind_at = None;
        tracing::warn!(%at, position = here, end, "the partition has records and delivers none; it is assigned anew");
        self.assign_anew()
    }

    /// Assigns all partitions once more, each at its next record, and pauses those that do not flow; with the consumer
    /// protocol, which allows no such thing, each is sought.
    fn assign_anew(&self) -> Result<(), LogError> {
        let mut list = TopicPartitionList::with_capacity(self.next.len());
        for (at, next) in &self.next {
            let next = KafkaOffset::Offset(next.0 as i64);
            list.add_partition_offset(at.topic.as_str(), at.partition.0 as i32, next)
                .map_err(|error| classify(&format!("reading {at}"), &error))?;
        }
        let held: Vec<TopicPartition> = self
            .next
            .keys()
            .filter(|at| !self.flowing.contains_key(*at))
            .cloned()
            .collect();
        match self.shared.protocol {
            GroupProtocol::Classic => self
                .consumer
                .assign(&list)
                .and_then(|()| self.consumer.pause(&list_of(&held)))
                .map_err(|error| classify("assigning partitions anew", &error)),
            GroupProtocol::Consumer => self.seek(list),
        }
    }

    /// What an error means that a poll found. The consumer protocol gives a static member's name to nobody else until
    /// the session of a killed process ends, and librdkafka makes that fatal for the client: another one tries again.
    fn consuming(&self, error: &KafkaError) -> LogError {
        match self.consumer.client().fatal_error() {
            Some((RDKafkaErrorCode::UnreleasedInstanceId, why)) => LogError::new(
                LogErrorKind::Fenced,
                format!("a process that was killed still has this one's instance id, until its session ends: {why}"),
            ),
            Some(_) | None => classify("consuming", error),
        }
    }

    /// An answer that failed half way may be given again: a classic assignment replaces the one before it, and of the
    /// consumer protocol's only what is not assigned yet is.
    fn accept(&mut self, list: &TopicPartitionList) -> Result<(), LogError> {
        let assigned = match self.shared.protocol {
            GroupProtocol::Classic => self.consumer.assign(list),
            GroupProtocol::Consumer => {
                let mut fresh = TopicPartitionList::new();
                for element in list.elements() {
                    if !self.assigned.contains(&place_of(&element)) {
                        let (topic, partition) = (element.topic(), element.partition());
                        fresh
                            .add_partition_offset(topic, partition, element.offset())
                            .map_err(|error| classify("assigning partitions", &error))?;
                    }
                }
                self.consumer.incremental_assign(&fresh)
            }
        };
        assigned.map_err(|error| classify("assigning partitions", &error))?;
        self.assigned.extend(list.elements().iter().map(place_of));
        self.consumer
            .pause(list)
            .map_err(|error| classify("assigning partitions", &error))
    }

    fn seek(&self, list: TopicPartitionList) -> Result<(), LogError> {
        let done = self
            .consumer
            .seek_partitions(list, REQUEST_TIMEOUT)
            .map_err(|error| rewinding(&error))?;
        for element in done.elements() {
            element.error().map_err(|error| rewinding(&error))?;
        }
        Ok(())
    }
}

impl Consumer for KafkaConsumer {
    fn poll(&mut self, timeout: Duration) -> Result<Event, LogError> {
        if let Some(event) = self.shared.events().pop_front() {
            return Ok(event);
        }
        let mut records: Vec<Record> = Vec::new();
        let (mut wait, mut bytes) = (timeout, 0);
        while records.len() < MAX_POLL_RECORDS && bytes < MAX_POLL_BYTES {
            let (name, partition, offset, timestamp, key, value, headers) = match self.consumer.poll(wait) {
                None => break,
                Some(Err(error)) if is_transient(&error) => {
                    // An outage queues thousands of these.
                    if self.told_away.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                        self.told_away = Some(Instant::now());
                        tracing::warn!(%error, "Kafka is away; waiting");
                    }
                    break;
                }
                Some(Err(error)) => return Err(self.consuming(&error)),
                Some(Ok(message)) => (
                    message.topic().to_owned(),
                    Partition(message.partition() as u32),
                    Offset(message.offset() as u64),
                    Timestamp(message.timestamp().to_millis().unwrap_or(0)),
                    message.key().map(<[u8]>::to_vec),
                    message.payload().map(<[u8]>::to_vec),
                    message.headers().map(headers_in).unwrap_or_default(),
                ),
            };
            let at = TopicPartition {
                topic: self.topic(&name),
                partition,
            };
            self.next.insert(at.clone(), offset.next());
            if let Some(flow) = self.flowing.get_mut(&at) {
                flow.seen = Instant::now();
                flow.behind_at = None;
            }
            let record = Record {
                at,
                offset,
                timestamp,
                key,
                value,
                headers,
            };
            bytes += record.bytes();
            records.push(record);
            wait = Duration::ZERO;
            if !self.shared.events().is_empty() {
                break;
            }
        }
        if !records.is_empty() {
            return Ok(Event::Records(records));
        }
        if let Some(event) = self.shared.events().pop_front() {
            return Ok(event);
        }
        self.rouse()?;
        Ok(Event::Idle)
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        if partitions.is_empty() {
            // An empty assignment must be answered as well.
            return self.accept(&TopicPartitionList::new());
        }
        let list = self.starts(partitions)?;
        self.accept(&list)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for at in partitions {
            self.next.remove(at);
            self.flowing.remove(at);
        }
        let released = match self.shared.protocol {
            // The group takes all partitions or none.
            GroupProtocol::Classic => self.consumer.unassign(),
            GroupProtocol::Consumer => {
                let had = partitions.iter().filter(|at| self.assigned.contains(*at));
                let had: Vec<TopicPartition> = had.cloned().collect();
                self.consumer.incremental_unassign(&list_of(&had))
            }
        };
        released.map_err(|error| classify("letting partitions go", &error))?;
        self.assigned.retain(|at| !partitions.contains(at));
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for at in partitions {
            self.flowing.remove(at);
        }
        self.consumer
            .pause(&list_of(partitions))
            .map_err(|error| classify("pausing", &error))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.consumer
            .resume(&list_of(partitions))
            .map_err(|error| classify("resuming", &error))?;
        for at in partitions {
            self.flowing.insert(at.clone(), Flow::new());
        }
        Ok(())
    }

    fn rewind(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let list = self.starts(partitions)?;
        self.seek(list)
    }

    fn caught_up(&self, partition: &TopicPartition) -> bool {
        // The high watermark as the last fetch reported it, without asking the broker.
        let mut low = -1i64;
        let mut high = -1i64;
        let Ok(topic) = std::ffi::CString::new(partition.topic.as_str()) else {
            return true;
        };
        // SAFETY: the client outlives the call, the topic is a valid C string, both out-parameters are valid.
        let code = unsafe {
            rdkafka::bindings::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.partition.0 as i32,
                &mut low,
                &mut high,
            )
        };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || high < 0 {
            return false;
        }
        let high = high as u64;
        match self.next.get(partition) {
            Some(next) if next.0 >= high => true,
            // The end may be a transaction marker or aborted records, which are passed and never handed out.
            Some(next) if high - next.0 <= UNSEEN_AT_MOST => self.position(partition).is_some_and(|at| at.0 >= high),
            Some(_) | None => false,
        }
    }

    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        match self.end(partition) {
            Ok(end) => self
                .position_or_next(partition)
                .is_some_and(|here| here.0 as i64 >= end),
            Err(error) => {
                tracing::debug!(at = %partition, %error, "the end is not known");
                false
            }
        }
    }

    fn membership(&self) -> Result<Membership, LogError> {
        self.consumer
            .group_metadata()
            .map(Membership::new)
            .ok_or_else(|| LogError::new(LogErrorKind::Fenced, "the consumer is no member of its group"))
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // An announced but unanswered revocation would make the close wait for ever.
        let pending: Vec<Event> = self.shared.events().drain(..).collect();
        for event in pending {
            match event {
                Event::Revoked(partitions) | Event::Lost(partitions) => {
                    if let Err(error) = self.unassign(&partitions) {
                        tracing::warn!(%error, "letting partitions go while closing");
                    }
                }
                Event::Assigned(_) => {
                    if let Err(error) = self.accept(&TopicPartitionList::new()) {
                        tracing::warn!(%error, "declining partitions while closing");
                    }
                }
                Event::Idle | Event::Records(_) => {}
            }
        }
    }
}

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

struct KafkaProducer {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    timeout: Duration,
    protocol: GroupProtocol,
}

impl KafkaProducer {
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
}

impl KafkaProducer {
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

struct KafkaReader {
    consumer: BaseConsumer<Quiet>,
    at: TopicPartition,
    from: Offset,
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
                Some(Ok(message)) => records.push(Record {
                    at: self.at.clone(),
                    offset: Offset(message.offset() as u64),
                    timestamp: Timestamp(message.timestamp().to_millis().unwrap_or(0)),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message.headers().map(headers_in).unwrap_or_default(),
                }),
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

fn headers_in(headers: &rdkafka::message::BorrowedHeaders) -> Vec<Header> {
    headers
        .iter()
        .map(|header| Header::new(header.key.to_owned(), header.value.unwrap_or_default()))
        .collect()
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

fn is_transient(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| TRANSIENT.contains(&code))
}

/// Errors that pass when brokers, leaders or coordinators are back.
const TRANSIENT: [RDKafkaErrorCode; 13] = [
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::LeaderNotAvailable,
    RDKafkaErrorCode::NotLeaderForPartition,
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownPartition,
    RDKafkaErrorCode::PartitionEOF,
];

/// A partition that librdkafka has not begun to fetch cannot be rewound yet.
fn rewinding(error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::State) => LogError::retry(format!("rewinding: {error}")),
        Some(_) | None => classify("rewinding", error),
    }
}

/// What a librdkafka error means to the caller. The one place where its retriable, abortable and fatal flags are read.
fn classify(doing: &str, error: &KafkaError) -> LogError {
    let message = format!("{doing}: {error}");
    let fenced = |code: RDKafkaErrorCode| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::FencedMemberEpoch
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::InvalidProducerIdMapping
        )
    };
    let kind = match error {
        KafkaError::Transaction(inner) if fenced(inner.code()) => LogErrorKind::Fenced,
        KafkaError::Transaction(inner) if inner.txn_requires_abort() => LogErrorKind::Abort,
        KafkaError::Transaction(inner) if inner.is_retriable() => LogErrorKind::Retry,
        KafkaError::Transaction(_) => LogErrorKind::Fatal,
        other => match other.rdkafka_error_code() {
            Some(code) if fenced(code) => LogErrorKind::Fenced,
            // A record that was not delivered in `delivery.timeout.ms`, because brokers were away or slow, makes librdkafka
            // demand an abort; it is no reason to stop.
            Some(
                RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight | RDKafkaErrorCode::MessageTimedOut,
            ) => LogErrorKind::Abort,
            Some(code) if TRANSIENT.contains(&code) => LogErrorKind::Retry,
            _ => LogErrorKind::Fatal,
        },
    };
    LogError::new(kind, message)
}

impl LogError {
    /// Within a transaction there is nothing to call again: the transaction is aborted and run again as a whole.
    fn but_not_retry(self) -> LogError {
        match self.kind {
            LogErrorKind::Retry => LogError::new(LogErrorKind::Abort, self.message),
            LogErrorKind::Abort | LogErrorKind::Unknown | LogErrorKind::Fenced | LogErrorKind::Fatal => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_not_delivered_in_time_only_aborts() {
        for (code, kind) in [
            (RDKafkaErrorCode::MessageTimedOut, LogErrorKind::Abort),
            (RDKafkaErrorCode::NotLeaderForPartition, LogErrorKind::Abort),
            (RDKafkaErrorCode::ProducerFenced, LogErrorKind::Fenced),
            (RDKafkaErrorCode::MessageSizeTooLarge, LogErrorKind::Fatal),
        ] {
            let error = classify("delivering", &KafkaError::MessageProduction(code)).but_not_retry();
            assert_eq!(error.kind, kind, "{code}");
        }
    }
}
