//! A member of a consumer group.
//!
//! Owns: rebalances between librdkafka's callback and the thread's answer, and partitions that deliver nothing although they
//! should.
//! Invariant: no work happens inside the callback; a revocation waits until the thread has answered.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::super::{Consumer, Event, GroupSpec, LogError, LogErrorKind, Membership, lost};
use super::errors::{classify, is_transient, rewinding};
use super::{
    GroupProtocol, HELD_BACK, MAX_POLL_BYTES, MAX_POLL_RECORDS, REQUEST_TIMEOUT, connection_error, list_of, place_of,
    positions, record_of, setup,
};
use crate::stream::record::{Offset, Partition, Record, Topic, TopicPartition};

/// A partition that delivered nothing for so long is looked at; if it is behind at two looks in a row, it is roused.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the processing thread may wait for the end of a partition.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// A lasting outage is logged once in this time.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Offsets before the end of a partition that may hold nothing for us.
const UNSEEN_AT_MOST: u64 = 1_000;

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

pub(super) struct KafkaConsumer {
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
    /// A member of a group, with the settings of `config`.
    pub(super) fn join(
        config: &ClientConfig,
        protocol: GroupProtocol,
        group: &GroupSpec,
    ) -> Result<KafkaConsumer, LogError> {
        let context = Rebalances::of(protocol);
        let shared = context.0.clone();
        let consumer: BaseConsumer<Rebalances> =
            BaseConsumer::from_config_and_context(config, context).map_err(setup)?;
        let topics: Vec<&str> = group.topics.iter().map(Topic::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| classify("subscribing", &error))?;
        Ok(KafkaConsumer {
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
        })
    }

    /// Where each partition is to be read from: the group's committed offset, or the first one kept where there is none. As
    /// numbers, since a logical offset is looked up by librdkafka on its own and can be lost when the broker goes away
    /// meanwhile.
    ///
    /// # Errors
    /// Fatal: the committed offset is not in the partition, so that records would be skipped or read again unasked.
    fn starts(&mut self, partitions: &[TopicPartition]) -> Result<TopicPartitionList, LogError> {
        let committed = self
            .consumer
            .committed_offsets(list_of(partitions), REQUEST_TIMEOUT)
            .map_err(|error| classify(&format!("asking for committed offsets ({HELD_BACK})"), &error))?;
        let committed = positions(&committed);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            let (first, end) = self
                .consumer
                .fetch_watermarks(at.topic.as_str(), at.partition.0 as i32, REQUEST_TIMEOUT)
                .map_err(|error| classify(&format!("asking for the offsets of {at}"), &error))?;
            let offset = match committed.get(at) {
                Some(offset) if !(first..=end).contains(&(offset.0 as i64)) => {
                    return Err(lost(at, *offset, Offset(first as u64), Offset(end as u64)));
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

    /// Has librdkafka fetch what was just resumed. When nothing else happens at the connection to a broker, it looks only once a
    /// second what it may ask that broker for; a question to the leaders of the partitions makes it look now. The answer is of no
    /// use, and yet waited for: a connection on which a question times out is closed.
    fn nudge(&self, partitions: &[TopicPartition]) {
        let mut ends = list_of(partitions);
        let asked = ends
            .set_all_offsets(KafkaOffset::End)
            .and_then(|()| self.consumer.offsets_for_times(ends, END_TIMEOUT));
        if let Err(error) = asked {
            tracing::trace!(%error, "the ends of resumed partitions");
        }
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

/// The topic of a name, which shares its text with those before.
fn topic_of(topics: &mut HashMap<String, Topic>, name: &str) -> Topic {
    match topics.get(name) {
        Some(topic) => topic.clone(),
        None => {
            let topic = Topic::new(name);
            topics.insert(name.to_owned(), topic.clone());
            topic
        }
    }
}

impl Consumer for KafkaConsumer {
    fn poll(&mut self, timeout: Duration, most: usize) -> Result<Event, LogError> {
        if let Some(event) = self.shared.events().pop_front() {
            return Ok(event);
        }
        let mut records: Vec<Record> = Vec::new();
        let (mut wait, mut bytes) = (timeout, 0);
        while records.len() < most.min(MAX_POLL_RECORDS) && bytes < MAX_POLL_BYTES {
            let record = match self.consumer.poll(wait) {
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
                Some(Ok(message)) => {
                    let topic = topic_of(&mut self.topics, message.topic());
                    let partition = Partition(message.partition() as u32);
                    record_of(&message, TopicPartition { topic, partition })
                }
            };
            self.next.insert(record.at.clone(), record.offset.next());
            if let Some(flow) = self.flowing.get_mut(&record.at) {
                flow.seen = Instant::now();
                flow.behind_at = None;
            }
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
        self.nudge(partitions);
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
