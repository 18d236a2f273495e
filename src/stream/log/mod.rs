//! The port to the log.
//!
//! Owns: what the runtime asks of a partitioned, transactional log.
//! Invariant: records become visible, and group offsets move, only by [`Producer::commit`], all together.
//! Absent: serialization, stores, threads.
//!
//! Implementations: [`kafka`] (a real cluster) and [`embedded`] (one process, durable, on RocksDB). Both pass the
//! contract in `tests/log_contract.rs`. No method calls back: rebalances arrive as [`Event`]s from
//! [`Consumer::poll`], and the group waits until the thread answers with [`Consumer::assign`] or
//! [`Consumer::unassign`], so a commit can be finished first.

pub mod embedded;
pub mod kafka;

use std::any::Any;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};

/// Positions by partition: the offset of the next record.
pub type Positions = BTreeMap<TopicPartition, Offset>;

/// A log: topics of partitions of records, consumer groups, transactions.
pub trait Log: Send + Sync {
    /// Creates the topics that are missing and says what was found for each. A topic that exists is left as it is.
    fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<TopicFound>, LogError>;

    /// How many partitions a topic has; `None` when there is no such topic.
    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, LogError>;

    /// Each partition of a topic; none of one that is not there.
    fn partitions_of(&self, topic: &Topic) -> Result<Vec<TopicPartition>, LogError> {
        let count = self.partitions(topic)?.unwrap_or(0);
        Ok((0..count).map(|n| TopicPartition::new(topic, Partition(n))).collect())
    }

    /// Joins a consumer group; partitions come by [`Event::Assigned`]. The partitions of one number of all topics with
    /// equally many go to one member: they are the input of one task.
    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError>;

    /// A transactional producer. When this returns, an older producer of the same id is fenced and its open
    /// transaction ended (`InitProducerId`).
    fn producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>, LogError>;

    /// Reads committed records of one partition from an offset on, outside any group.
    fn reader(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, LogError>;

    /// The end of the partition including records of transactions still open (*read_uncommitted*): a restore that
    /// has passed it has seen everything that any predecessor committed.
    fn end(&self, at: &TopicPartition) -> Result<Offset, LogError>;

    /// The end as readers of committed records have it: before the first transaction that is still open. The same as
    /// [`Log::end`] where nothing is visible before it is committed.
    fn stable_end(&self, at: &TopicPartition) -> Result<Offset, LogError> {
        self.end(at)
    }

    /// The first offset still kept.
    fn start(&self, at: &TopicPartition) -> Result<Offset, LogError>;

    /// What a group has committed for these partitions; those without a commit are absent.
    fn committed(&self, group: &str, of: &[TopicPartition]) -> Result<Positions, LogError>;

    /// How many members a group has, those with a static name that are away for less than their session included.
    fn members(&self, group: &str) -> Result<usize, LogError>;

    /// Commits positions for a group without members.
    ///
    /// # Errors
    /// [`LogErrorKind::Fenced`]: it has members.
    fn move_group(&self, group: &str, to: &Positions) -> Result<(), LogError>;

    /// Gives a topic more partitions; one that has as many is left as it is.
    fn grow(&self, topic: &Topic, partitions: u32) -> Result<(), LogError>;

    /// The offset of the first record of that time or later; where there is none, one after the last.
    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<Offset, LogError>;
}

/// How long one read waits whose reader looks for the end: most often what is last is a marker, and no record that ends the wait.
pub const READ_WAIT: Duration = Duration::from_millis(10);
/// How long [`read_to_end`] waits for the next record before the end: longer than a transaction is open in good health.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hands each committed record of a partition from an offset on, up to its end as it is now, to `take`.
///
/// # Errors
/// Nothing came for a minute before the end was reached (a transaction was left open); the log; `take`.
pub fn read_to_end<E: From<LogError>>(
    log: &dyn Log,
    at: &TopicPartition,
    from: Offset,
    take: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    read_until(log, at, from, log.end(at)?, take)
}

/// The same up to an end that is given.
///
/// # Errors
/// Those of [`read_to_end`].
pub fn read_until<E: From<LogError>>(
    log: &dyn Log,
    at: &TopicPartition,
    from: Offset,
    end: Offset,
    mut take: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    if from >= end {
        return Ok(());
    }
    let mut reader = log.reader(at, from)?;
    let mut heard = Instant::now();
    while reader.position()? < end {
        let records = reader.read(READ_WAIT)?;
        if !records.is_empty() {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            return Err(LogError::retry(format!(
                "the end of {at} was not reached: a transaction was left open there, or its broker is away. Try again"
            ))
            .into());
        }
        let mut known = records.into_iter().filter(|record| record.offset < end);
        known.try_for_each(&mut take)?;
    }
    Ok(())
}

/// The same for a whole topic from its start, partition by partition. Whether there is such a topic.
///
/// # Errors
/// Those of [`read_to_end`].
pub fn read_topic<E: From<LogError>>(
    log: &dyn Log,
    topic: &Topic,
    mut take: impl FnMut(Record) -> Result<(), E>,
) -> Result<bool, E> {
    let partitions = log.partitions_of(topic)?;
    for at in &partitions {
        read_to_end(log, at, log.start(at)?, &mut take)?;
    }
    Ok(!partitions.is_empty())
}

/// A committed offset that its partition does not have: to go on anywhere else would skip records or read them again unasked.
fn lost(at: &TopicPartition, committed: Offset, start: Offset, end: Offset) -> LogError {
    let why = match committed < start {
        true => "what was not read yet was deleted by its retention",
        false => "it was made anew, or has lost records",
    };
    LogError::fatal(format!(
        "{at} was read up to {committed}, but has {start} to {end}: {why}. To go on with the first record it has: `accrue offsets rewind {} --to-start` (of a sink: --sink NAME), or, where a store stands behind it, `accrue reset`",
        at.topic
    ))
}

/// What a topic should be when it has to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub topic: Topic,
    pub partitions: u32,
    pub replication_factor: i32,
    pub cleanup: Cleanup,
}

/// How long a deletion is kept in a compacted topic before compaction forgets it (Kafka's `delete.retention.ms`).
pub const DELETIONS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How a topic sheds old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// The latest record of each key is kept for ever, and a deletion for [`DELETIONS_KEPT`].
    Compact,
    /// Records older than this are dropped; `None` keeps all.
    Delete { retention: Option<Duration> },
}

/// The answer for one topic of [`Log::create_topics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFound {
    pub topic: Topic,
    pub partitions: u32,
    pub created: bool,
}

/// Which group to join, for which topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    pub group: String,
    /// `group.instance.id` (KIP-345): a member that returns under the same name keeps its partitions.
    pub instance: Option<String>,
    pub topics: Vec<Topic>,
}

/// A member of a consumer group.
pub trait Consumer: Send {
    /// What happened next, with at most `most` records of a partition; returns within about `timeout`.
    fn poll(&mut self, timeout: Duration, most: usize) -> Result<Event, LogError>;

    /// Accepts partitions announced by [`Event::Assigned`]. They start paused, at the group's committed offset, or
    /// at the start of the partition where there is none.
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Lets partitions go that [`Event::Revoked`] or [`Event::Lost`] named.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Goes back to the committed offsets: what was read since is read again.
    fn rewind(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Whether nothing is left to fetch, as far as is known here, after what [`Consumer::poll`] has handed out.
    fn caught_up(&self, partition: &TopicPartition) -> bool;

    /// The same, for certain: the end is asked for if need be, since a transaction that is open before it, or a long tail
    /// without records, looks like records to come. False while nobody answers.
    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        self.caught_up(partition)
    }

    /// Proof of membership for [`Producer::commit`] (KIP-447).
    fn membership(&self) -> Result<Membership, LogError>;
}

/// What a consumer's poll found.
#[derive(Debug)]
pub enum Event {
    Idle,
    Records(Vec<Record>),
    /// These partitions come: answer with [`Consumer::assign`].
    Assigned(Vec<TopicPartition>),
    /// These partitions go: commit, then answer with [`Consumer::unassign`].
    Revoked(Vec<TopicPartition>),
    /// These partitions are gone, another member may already own them: drop uncommitted work, then
    /// [`Consumer::unassign`].
    Lost(Vec<TopicPartition>),
}

/// An opaque proof that a consumer belongs to its group in a certain generation.
pub struct Membership(Box<dyn Any + Send>);

impl Membership {
    pub fn new(proof: impl Any + Send) -> Self {
        Membership(Box::new(proof))
    }

    pub fn get<T: Any>(&self) -> Result<&T, LogError> {
        self.0
            .downcast_ref::<T>()
            .ok_or_else(|| LogError::fatal("a membership of one log was handed to the producer of another"))
    }
}

/// A transactional producer. After an error from any method it must be dropped and a new one made.
pub trait Producer: Send {
    /// Starts a transaction.
    fn begin(&mut self) -> Result<(), LogError>;

    /// Adds a record to the open transaction.
    fn send(&mut self, record: Outgoing) -> Result<(), LogError>;

    /// Ends the transaction: waits for every delivery, adds the group's offsets, commits. Returns, for each partition
    /// written to, the position after the last record. [`LogErrorKind::Unknown`] means that the commit may or may not
    /// have happened.
    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError>;

    /// Ends the transaction without effect.
    fn abort(&mut self) -> Result<(), LogError>;
}

/// Committed records of one partition, in order.
pub trait Reader: Send {
    /// The next records, at most some thousands; empty when none came within `timeout`.
    fn read(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError>;

    /// The offset up to which this reader has seen everything, transaction markers and aborted records included.
    fn position(&self) -> Result<Offset, LogError>;
}

/// A failed log operation, named for what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct LogError {
    pub kind: LogErrorKind,
    pub message: String,
}

/// What a caller does after a [`LogError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogErrorKind {
    /// Away for now: call again.
    Retry,
    /// The transaction failed for certain: abort it and run again from the last commit.
    Abort,
    /// The end of the transaction was asked for and no answer came: it may have committed.
    Unknown,
    /// Another producer or a newer group generation took over.
    Fenced,
    /// Calling again cannot help.
    Fatal,
}

impl LogError {
    pub fn new(kind: LogErrorKind, message: impl Into<String>) -> Self {
        LogError {
            kind,
            message: message.into(),
        }
    }

    pub fn fatal(message: impl Into<String>) -> Self {
        LogError::new(LogErrorKind::Fatal, message)
    }

    pub fn retry(message: impl Into<String>) -> Self {
        LogError::new(LogErrorKind::Retry, message)
    }
}
