//! Which process has which task, and where it answers.
//!
//! Owns: the compacted topic `<application>.owners` (key: the task, value: the address of its process), which each
//! process writes when it gets a task, and reads to find the others.
//! Invariant: the last word on a task is its owner's: a process that finds somebody else's name on a task of its own
//! writes its name again.
//! Absent: correctness. What stands here may be a moment old, or name a process that is gone; whoever follows it asks
//! that process, which answers for tasks of its own only. So nothing is withdrawn either.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::app::App;
use super::fault::Fault;
use super::log::{LogError, Positions, Producer, Reader};
use super::record::{Offset, Outgoing, Partition, Timestamp, TopicPartition};
use super::task::TaskId;
use super::topology::Shape;

/// How long one look waits for news.
const LOOK: Duration = Duration::from_millis(200);
/// Pause after a failed call to the log.
const BACKOFF: Duration = Duration::from_secs(1);

/// The directory as this process knows it. Dropping it ends its thread.
pub struct Directory {
    known: Known,
    ended: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Addresses by task.
type Known = Arc<Mutex<BTreeMap<String, String>>>;

impl Directory {
    /// Enters the tasks of `app` under `address` from now on, and follows what others enter.
    ///
    /// # Errors
    /// The topic is missing, or there is no thread.
    pub fn start(app: Arc<App>, address: String) -> Result<Directory, Fault> {
        let topic = Shape::owners(&app.topology.shape.application_id);
        if app.log.partitions(&topic)?.is_none() {
            return Err(Fault::Fatal(format!(
                "topic {topic} is missing. Run `accrue apply` to create it"
            )));
        }
        let known = Known::default();
        let ended = Arc::new(AtomicBool::new(false));
        let mut clerk = Clerk {
            at: TopicPartition::new(&topic, Partition(0)),
            next: Offset(0),
            app,
            address,
            known: known.clone(),
            reader: None,
            producer: None,
        };
        let flag = ended.clone();
        let work = move || {
            while !flag.load(Ordering::SeqCst) {
                if let Err(error) = clerk.look() {
                    tracing::warn!(%error, "the directory of tasks waits");
                    (clerk.reader, clerk.producer) = (None, None);
                    std::thread::sleep(BACKOFF);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("directory".to_owned())
            .spawn(work)
            .map_err(|error| Fault::Fatal(format!("no thread for the directory: {error}")))?;
        Ok(Directory {
            known,
            ended,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Where the process answers that has a task, as far as is known.
    pub fn owner(&self, task: &TaskId) -> Option<String> {
        lock(&self.known).get(&task.to_string()).cloned()
    }

    /// Ends the thread: nothing is entered or followed any more.
    pub fn stop(&self) {
        self.ended.store(true, Ordering::SeqCst);
        let thread = lock(&self.thread).take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the directory's thread panicked");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Reads and writes the topic.
struct Clerk {
    app: Arc<App>,
    at: TopicPartition,
    /// Everything before was read.
    next: Offset,
    address: String,
    known: Known,
    reader: Option<Box<dyn Reader>>,
    producer: Option<Box<dyn Producer>>,
}

impl Clerk {
    fn look(&mut self) -> Result<(), LogError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let first = self.app.log.start(&self.at)?;
                none.insert(self.app.log.reader(&self.at, self.next.max(first))?)
            }
        };
        let records = reader.read(LOOK)?;
        let news = !records.is_empty();
        for record in records {
            self.next = record.offset.next();
            let text = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            match (text(record.key), text(record.value)) {
                (Some(task), Some(address)) => lock(&self.known).insert(task, address),
                (Some(task), None) => lock(&self.known).remove(&task),
                (None, _) => None,
            };
        }
        // What is older than the end is no reason to write, and whoever leaves has nothing to say.
        match news || self.app.is_stopping() {
            true => Ok(()),
            false => self.enter(),
        }
    }

    /// Enters the tasks of this process that stand under another address, or none.
    fn enter(&mut self) -> Result<(), LogError> {
        let own = self.app.tasks().into_iter().map(|report| report.task.to_string());
        let missing: Vec<String> = {
            let known = lock(&self.known);
            own.filter(|task| known.get(task) != Some(&self.address)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => none.insert(self.app.log.producer(&self.app.transactional_id("owners"))?),
        };
        producer.begin()?;
        for task in missing {
            tracing::debug!(task, address = self.address, "entered in the directory");
            producer.send(Outgoing {
                to: self.at.clone(),
                timestamp: Timestamp(0),
                key: Some(task.into_bytes()),
                value: Some(self.address.clone().into_bytes()),
                headers: Vec::new(),
            })?;
        }
        producer.commit(&Positions::new(), None).map(|_| ())
    }
}
