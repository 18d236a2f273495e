//! Stores in memory, for simulations: opening RocksDB takes milliseconds even on its in-memory environment, and a
//! simulation opens a store at every step that fails.
//!
//! Owns: a shelf of databases by folder. Invariants: a batch is whole or absent; what was written stays when the handle
//! is dropped; a database is open once at a time, as RocksDB's lock file sees to.
//! Absent: durability.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Entry, HELD_HERE, StoreError, Write};

pub(super) type Families = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The databases of one process by folder; clones share them.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<BTreeMap<PathBuf, Place>>>);

#[derive(Default)]
struct Place {
    families: Arc<Mutex<Families>>,
    open: bool,
}

pub(super) struct Db {
    families: Arc<Mutex<Families>>,
    shelf: Shelf,
    dir: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shelf {
    pub(super) fn open(&self, dir: &Path) -> Result<Db, StoreError> {
        let mut places = lock(&self.0);
        let place = places.entry(dir.to_owned()).or_default();
        if std::mem::replace(&mut place.open, true) {
            return Err(StoreError::obstacle(format!("{HELD_HERE}: {}", dir.display())));
        }
        Ok(Db {
            families: place.families.clone(),
            shelf: self.clone(),
            dir: dir.to_owned(),
        })
    }

    pub(super) fn wipe(&self, dir: &Path) -> Result<(), StoreError> {
        let mut places = lock(&self.0);
        match places.get(dir) {
            Some(place) if place.open => Err(StoreError::obstacle(format!("{HELD_HERE}: {}", dir.display()))),
            Some(_) | None => {
                places.remove(dir);
                Ok(())
            }
        }
    }
}

impl Db {
    pub fn get(&self, family: &str, key: &[u8]) -> Option<Vec<u8>> {
        lock(&self.families).get(family)?.get(key).cloned()
    }

    pub fn range(&self, family: &str, from: &[u8], to: &[u8]) -> Vec<Entry> {
        range(&lock(&self.families), family, from, to).collect()
    }

    /// Everything as it is now.
    pub fn copy(&self) -> Families {
        lock(&self.families).clone()
    }

    pub fn write(&self, writes: &[Write<'_>]) {
        let mut families = lock(&self.families);
        for write in writes {
            let entries = families.entry(write.family.to_owned()).or_default();
            match write.value {
                Some(value) => entries.insert(write.key.to_vec(), value.to_vec()),
                None => entries.remove(write.key),
            };
        }
    }
}

/// Entries from `from` (inclusive) to `to` (exclusive), in key order.
pub(super) fn range<'a>(
    families: &'a Families,
    family: &str,
    from: &'a [u8],
    to: &'a [u8],
) -> impl Iterator<Item = Entry> + 'a {
    let entries = families.get(family).filter(|_| from < to);
    entries
        .into_iter()
        .flat_map(move |entries| entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))))
        .map(|(key, value)| (key.clone(), value.clone()))
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Some(place) = lock(&self.shelf.0).get_mut(&self.dir) {
            place.open = false;
        }
    }
}
