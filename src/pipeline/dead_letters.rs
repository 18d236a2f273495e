//! Dead letters after the fact: which are there, and sending one round again, once.
//!
//! Owns: how a letter is marked as dealt with.
//! Invariant: the record that goes round and the mark on its letter are one transaction of one transactional id, and the
//! letters are read after older owners of that id are fenced. So two people who retry the same letter at the same time
//! send it round once.
//! Absent: what a letter means to a person; the command line prints that.
//!
//! A mark is a record without value in the letter's own partition, whose header [`RESOLVES`] names the letter's offset.

use std::collections::BTreeMap;

use crate::codec::dead_letter::DeadLetter;
use crate::codec::schemas::Schemas;
use crate::stream::log::{Log, LogError, Positions, Producer, read_topic};
use crate::stream::record::{Header, Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};

/// The header of a mark: the offset of the letter it is about.
pub const RESOLVES: &str = "accrue_resolves";
/// The header of a mark: `retried` or `dropped`.
pub const RESOLUTION: &str = "accrue_resolution";
/// The header of a record that goes round again: partition and offset of its letter.
pub const RETRY_OF: &str = "accrue_retry_of";

/// The name of a letter for people and commands: its partition and offset in the dead-letter topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LetterId {
    pub partition: Partition,
    pub offset: Offset,
}

impl LetterId {
    /// `3:17` is offset 17 of partition 3.
    pub fn parse(text: &str) -> Option<LetterId> {
        let (partition, offset) = text.split_once(':')?;
        Some(LetterId {
            partition: Partition(partition.parse().ok()?),
            offset: Offset(offset.parse().ok()?),
        })
    }
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition.0, self.offset.0)
    }
}

/// A letter as it lies in its topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Filed {
    pub letter: DeadLetter,
    pub key: Option<Vec<u8>>,
    /// When it was written: the original record's time.
    pub timestamp: Timestamp,
    pub resolution: Option<Resolution>,
}

/// What was done about a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Its record was sent to its topic again.
    Retried,
    /// Somebody decided that nothing is to be done.
    Dropped,
}

impl Resolution {
    pub fn as_str(self) -> &'static str {
        match self {
            Resolution::Retried => "retried",
            Resolution::Dropped => "dropped",
        }
    }

    fn parse(text: &[u8]) -> Option<Resolution> {
        [Resolution::Retried, Resolution::Dropped]
            .into_iter()
            .find(|one| one.as_str().as_bytes() == text)
    }
}

/// Why a letter could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("there is no topic {0}; `accrue apply` creates it")]
    NoTopic(Topic),
    #[error("there is no dead letter {0}; `accrue deadletters list` names them")]
    Unknown(LetterId),
    #[error("dead letter {0} was {how} already", how = .1.as_str())]
    Resolved(LetterId, Resolution),
    #[error(
        "dead letter {0} has not all of its record, which was too large: send the record of {1} {2}/{3} again by its source"
    )]
    Cut(LetterId, String, u32, u64),
    #[error(
        "dead letter {0} came from {1}, which has no partition {2} any more; the record can only be sent by its source"
    )]
    NoWayBack(LetterId, String, u32),
    #[error(
        "dead letter {0} has no record to send again: it is about what was due by then, as its message says. Mend that, and drop the letter"
    )]
    NoRecord(LetterId),
}

/// All letters, oldest first within each partition. A record of the topic that is no letter is left out.
///
/// # Errors
/// The topic is missing or the log is away.
pub fn read(log: &dyn Log, topic: &Topic, schemas: &Schemas) -> Result<BTreeMap<LetterId, Filed>, LetterError> {
    let mut letters = BTreeMap::new();
    let found = read_topic(log, topic, |record| {
        file(&mut letters, record.at.partition, record, schemas);
        Ok::<(), LetterError>(())
    })?;
    match found {
        true => Ok(letters),
        false => Err(LetterError::NoTopic(topic.clone())),
    }
}

fn file(letters: &mut BTreeMap<LetterId, Filed>, partition: Partition, record: Record, schemas: &Schemas) {
    let header = |name: &str| {
        let found = record.headers.iter().find(|header| header.name == name);
        found.map(|header| header.value.as_ref())
    };
    match &record.value {
        Some(value) => {
            let Ok(letter) = schemas.decode_dead_letter(value) else {
                return;
            };
            let id = LetterId {
                partition,
                offset: record.offset,
            };
            letters.insert(
                id,
                Filed {
                    letter,
                    key: record.key,
                    timestamp: record.timestamp,
                    resolution: None,
                },
            );
        }
        None => {
            let about = header(RESOLVES).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let how = header(RESOLUTION).and_then(Resolution::parse);
            if let (Some(offset), Some(how)) = (about.map(Offset), how)
                && let Some(filed) = letters.get_mut(&LetterId { partition, offset })
            {
                filed.resolution = Some(how);
            }
        }
    }
}

/// The one who deals with letters. While it lives, no other can.
pub struct Clerk<'a> {
    log: &'a dyn Log,
    topic: Topic,
    producer: Box<dyn Producer>,
    letters: BTreeMap<LetterId, Filed>,
}

impl<'a> Clerk<'a> {
    /// Fences whoever deals with letters of this application now, then reads them.
    ///
    /// # Errors
    /// As [`read`].
    pub fn new(
        log: &'a dyn Log,
        application_id: &str,
        topic: &Topic,
        schemas: &Schemas,
    ) -> Result<Clerk<'a>, LetterError> {
        let producer = log.producer(&format!("{application_id}.dead-letters"))?;
        let letters = read(log, topic, schemas)?;
        Ok(Clerk {
            log,
            topic: topic.clone(),
            producer,
            letters,
        })
    }

    pub fn letters(&self) -> &BTreeMap<LetterId, Filed> {
        &self.letters
    }

    /// Sends the letter's record to the partition it came from, with `value` in place of its own if given, and marks the
    /// letter: both or neither.
    ///
    /// # Errors
    /// The letter is unknown or dealt with, or the transaction failed: then nothing happened, unless the log's error says
    /// that the outcome is unknown; a new clerk sees what became of it.
    pub fn retry(&mut self, id: LetterId, value: Option<Vec<u8>>) -> Result<(), LetterError> {
        let letter = self.open(id)?.letter.clone();
        let topic = Topic::new(letter.topic.as_str());
        let to = TopicPartition::new(&topic, Partition(letter.partition));
        // Without its value it would be a tombstone.
        if letter.cut {
            return Err(LetterError::Cut(id, letter.topic, letter.partition, letter.offset));
        }
        if value.is_none() && letter.value.is_none() {
            return Err(LetterError::NoRecord(id));
        }
        if self
            .log
            .partitions(&topic)?
            .is_none_or(|count| letter.partition >= count)
        {
            return Err(LetterError::NoWayBack(id, letter.topic, letter.partition));
        }
        let mut headers: Vec<Header> = letter
            .headers
            .into_iter()
            .filter(|(name, _)| name != RETRY_OF)
            .map(|(name, value)| Header::new(name, value))
            .collect();
        headers.push(Header::new(RETRY_OF, id.to_string()));
        let again = Outgoing {
            to,
            timestamp: Timestamp(letter.timestamp),
            key: letter.key,
            value: value.or(letter.value),
            headers,
        };
        self.resolve(id, Resolution::Retried, Some(again))
    }

    /// Marks the letter as one that nothing is to be done about.
    ///
    /// # Errors
    /// As [`Clerk::retry`].
    pub fn drop_letter(&mut self, id: LetterId) -> Result<(), LetterError> {
        self.open(id)?;
        self.resolve(id, Resolution::Dropped, None)
    }

    fn open(&self, id: LetterId) -> Result<&Filed, LetterError> {
        let filed = self.letters.get(&id).ok_or(LetterError::Unknown(id))?;
        match filed.resolution {
            Some(how) => Err(LetterError::Resolved(id, how)),
            None => Ok(filed),
        }
    }

    fn resolve(&mut self, id: LetterId, how: Resolution, again: Option<Outgoing>) -> Result<(), LetterError> {
        let Some(filed) = self.letters.get_mut(&id) else {
            return Err(LetterError::Unknown(id));
        };
        self.producer.begin()?;
        if let Some(again) = again {
            self.producer.send(again)?;
        }
        self.producer.send(Outgoing {
            to: TopicPartition::new(&self.topic, id.partition),
            timestamp: filed.timestamp,
            key: filed.key.clone(),
            value: None,
            headers: vec![
                Header::new(RESOLVES, id.offset.0.to_string()),
                Header::new(RESOLUTION, how.as_str()),
            ],
        })?;
        self.producer.commit(&Positions::new(), None)?;
        filed.resolution = Some(how);
        Ok(())
    }
}
