//! The committed state of one task.
//!
//! Owns: [`TaskStore`] (one family of keys per store, one for checkpoints) over what keeps it: [`disk`] in a process,
//! [`memory`] in a simulation.
//! Invariant: values and the changelog position they stand for are written in one batch, so a store at its checkpoint
//! equals the fold of its changelog up to there.
//! Absent: uncommitted writes (`overlay.rs`), the changelog's traffic (`restore.rs`).

pub mod disk;
pub mod memory;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::overlay::Overlay;
use super::record::{Offset, Record, Timestamp};

/// A store that cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    message: String,
    /// What is stored cannot be trusted, and has to be made again from the changelog. Else the machine is in the way (no
    /// space, no file handles, no permission), and what is stored is as good as ever.
    pub is_damage: bool,
}

/// RocksDB's words for a database that this process has open already.
const HELD_HERE: &str = "lock hold by current process";
/// And for one that another process has.
const HELD_ELSEWHERE: &str = "While lock file";

impl StoreError {
    fn damage(message: String) -> StoreError {
        StoreError {
            message,
            is_damage: true,
        }
    }

    fn obstacle(message: String) -> StoreError {
        StoreError {
            message,
            is_damage: false,
        }
    }

    /// Whether this process has the store open already.
    pub fn is_held_here(&self) -> bool {
        self.message.contains(HELD_HERE)
    }

    /// Whether this process or another has the store open already.
    pub fn is_held(&self) -> bool {
        self.is_held_here() || self.message.contains(HELD_ELSEWHERE)
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// One write of a batch; `None` deletes.
pub(super) struct Write<'a> {
    pub family: &'a str,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

pub(super) const CHECKPOINTS: &str = "checkpoints";
/// Among the checkpoints: when the stores were last at the end of their changelogs. No store has such a name.
const CURRENT_AT: &[u8] = b"\0current-at";
/// How often that is noted.
const NOTE_EVERY_MS: i64 = 60_000;

/// What keeps the stores of a process; clones share it.
#[derive(Clone)]
pub enum StoreHome {
    Disk(disk::Memory),
    Memory(memory::Shelf),
}

impl StoreHome {
    /// On disk, with at most about `bytes` of memory for all stores together.
    pub fn disk(bytes: usize) -> StoreHome {
        StoreHome::Disk(disk::Memory::new(bytes))
    }

    /// In memory. It outlives the tasks, as a disk outlives a killed process.
    pub fn memory() -> StoreHome {
        StoreHome::Memory(memory::Shelf::default())
    }
}

/// The stores of one task.
pub struct TaskStore {
    db: Db,
    names: Vec<String>,
    /// When [`TaskStore::current_at`] was last written by this process.
    noted: AtomicI64,
}

enum Db {
    Disk(disk::Db),
    Memory(memory::Db),
}

impl TaskStore {
    /// Opens or creates the stores `names` in `dir`.
    ///
    /// # Errors
    /// They are damaged, or open already (the message says `lock`).
    pub fn open(dir: &Path, names: &[String], home: &StoreHome) -> Result<TaskStore, StoreError> {
        Ok(TaskStore {
            db: match home {
                StoreHome::Disk(memory) => Db::Disk(disk::Db::open(dir, names, memory)?),
                StoreHome::Memory(shelf) => Db::Memory(shelf.open(dir)?),
            },
            names: names.to_vec(),
            noted: AtomicI64::new(i64::MIN),
        })
    }

    /// Removes the stores in `dir`.
    pub fn wipe(dir: &Path, home: &StoreHome) -> Result<(), StoreError> {
        match home {
            StoreHome::Disk(_) => disk::wipe(dir),
            StoreHome::Memory(shelf) => shelf.wipe(dir),
        }
    }

    pub fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.find(self.name(store)?, key)
    }

    /// Entries from `from` (inclusive) to `to` (exclusive), in key order, lazily.
    pub fn range<'a>(
        &'a self,
        store: usize,
        from: &[u8],
        to: &'a [u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 'a>, StoreError> {
        let family = self.name(store)?;
        match &self.db {
            Db::Disk(db) => Ok(Box::new(db.range(family, from, to)?)),
            Db::Memory(db) => Ok(Box::new(db.range(family, from, to).into_iter().map(Ok))),
        }
    }

    /// The changelog position that this store stands for; `None` for a new store.
    pub fn checkpoint(&self, store: usize) -> Result<Option<Offset>, StoreError> {
        let name = self.name(store)?;
        mark(name, self.find(CHECKPOINTS, name.as_bytes())?)
    }

    /// When the stores were last known to be at the end of their changelogs; `None` before that was noted.
    pub fn current_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let found = mark("the time of the checkpoints", self.find(CHECKPOINTS, CURRENT_AT)?)?;
        Ok(found.map(|at| Timestamp(at.0 as i64)))
    }

    /// Notes that the stores are at the end of their changelogs now.
    pub fn note_current(&self, now: Timestamp) -> Result<(), StoreError> {
        if now.0.saturating_sub(self.noted.load(Ordering::Relaxed)) < NOTE_EVERY_MS {
            return Ok(());
        }
        self.noted.store(now.0, Ordering::Relaxed);
        let at = (now.0 as u64).to_be_bytes();
        let write = Write {
            family: CHECKPOINTS,
            key: CURRENT_AT,
            value: Some(&at),
        };
        self.write(&[write])
    }

    /// What is committed at this moment, for as long as the view is kept.
    pub fn view(&self) -> View<'_> {
        View {
            names: &self.names,
            at: match &self.db {
                Db::Disk(db) => At::Disk(db.snapshot()),
                Db::Memory(db) => At::Memory(db.copy()),
            },
        }
    }

    /// Makes committed writes durable: values and, per store, the position after their changelog records.
    pub fn apply(&self, overlay: &Overlay, positions: &[Option<Offset>]) -> Result<(), StoreError> {
        let marks: Vec<Option<[u8; 8]>> = positions.iter().map(|at| at.map(|at| at.0.to_be_bytes())).collect();
        let mut batch = Vec::new();
        for (store, mark) in marks.iter().enumerate() {
            let family = self.name(store)?;
            batch.extend(overlay.store(store).iter().map(|(key, value)| Write {
                family,
                key,
                value: value.as_deref(),
            }));
            if let Some(mark) = mark {
                batch.push(checkpoint(family, mark));
            }
        }
        self.write(&batch)
    }

    /// Applies changelog records read while restoring, and the position after them.
    pub fn replay(&self, store: usize, records: &[Record], position: Offset) -> Result<(), StoreError> {
        let family = self.name(store)?;
        let mark = position.0.to_be_bytes();
        let keyed = records
            .iter()
            .filter_map(|record| Some((record.key.as_ref()?, &record.value)));
        let mut batch: Vec<Write<'_>> = keyed
            .map(|(key, value)| Write {
                family,
                key,
                value: value.as_deref(),
            })
            .collect();
        batch.push(checkpoint(family, &mark));
        self.write(&batch)
    }

    fn find(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.db {
            Db::Disk(db) => db.get(family, key),
            Db::Memory(db) => Ok(db.get(family, key)),
        }
    }

    fn write(&self, batch: &[Write<'_>]) -> Result<(), StoreError> {
        match &self.db {
            Db::Disk(db) => db.write(batch),
            Db::Memory(db) => {
                db.write(batch);
                Ok(())
            }
        }
    }

    fn name(&self, store: usize) -> Result<&str, StoreError> {
        self.names
            .get(store)
            .map(String::as_str)
            .ok_or_else(|| StoreError::obstacle(format!("there is no store number {store}")))
    }
}

/// The committed state of one task at one moment: values, and the changelog position they stand for.
pub struct View<'a> {
    names: &'a [String],
    at: At<'a>,
}

enum At<'a> {
    Disk(disk::Snapshot<'a>),
    Memory(memory::Families),
}

impl View<'_> {
    /// Up to `limit` entries from `from` (inclusive) to `to` (exclusive), in key order.
    pub fn range(&self, store: &str, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        let family = self.known(store)?;
        match &self.at {
            At::Disk(snapshot) => snapshot.range(family, from, to)?.take(limit).collect(),
            At::Memory(families) => Ok(memory::range(families, family, from, to).take(limit).collect()),
        }
    }

    /// The changelog offset up to which everything is in this view; `None` when nothing was ever written.
    pub fn position(&self, store: &str) -> Result<Option<Offset>, StoreError> {
        let key = self.known(store)?.as_bytes();
        let found = match &self.at {
            At::Disk(snapshot) => snapshot.get(CHECKPOINTS, key)?,
            At::Memory(families) => families.get(CHECKPOINTS).and_then(|marks| marks.get(key)).cloned(),
        };
        mark(store, found)
    }

    fn known<'s>(&self, store: &'s str) -> Result<&'s str, StoreError> {
        match self.names.iter().any(|name| name == store) {
            true => Ok(store),
            false => Err(StoreError::obstacle(format!("there is no store {store}"))),
        }
    }
}

fn mark(store: &str, bytes: Option<Vec<u8>>) -> Result<Option<Offset>, StoreError> {
    match bytes.as_deref().map(<[u8; 8]>::try_from) {
        None => Ok(None),
        Some(Ok(bytes)) => Ok(Some(Offset(u64::from_be_bytes(bytes)))),
        Some(Err(_)) => Err(StoreError::damage(format!("the checkpoint of {store} is damaged"))),
    }
}

fn checkpoint<'a>(store: &'a str, position: &'a [u8; 8]) -> Write<'a> {
    Write {
        family: CHECKPOINTS,
        key: store.as_bytes(),
        value: Some(position),
    }
}
