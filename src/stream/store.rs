//! The committed state of one task, in RocksDB.
//!
//! Owns: the database of a task (one column family per store, one for checkpoints) and what all tasks of the process
//! share (block cache, write buffers).
//! Invariant: values and the changelog position they stand for are written in one batch, so a store at its checkpoint
//! equals the fold of its changelog up to there. The write-ahead log stays on, unsynced: a killed process loses nothing,
//! a lost machine at most the tail, which the changelog gives back.
//! Absent: uncommitted writes (`overlay.rs`), the changelog's traffic (`restore.rs`).

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, WriteBatch,
    WriteBufferManager,
};

use super::overlay::Overlay;
use super::record::{Offset, Record};

/// Memory that the stores of one process share, bounded as a whole.
#[derive(Clone)]
pub struct StoreMemory {
    cache: Cache,
    buffers: WriteBufferManager,
}

impl StoreMemory {
    /// Half of `bytes` for reading, of which write buffers may take at most half.
    pub fn new(bytes: usize) -> StoreMemory {
        let cache = Cache::new_lru_cache(bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 2, true, cache.clone());
        StoreMemory { cache, buffers }
    }
}

/// A store that cannot be read or written; the task is rebuilt from its changelog.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(String);

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> StoreError {
        StoreError(error.to_string())
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

const CHECKPOINTS: &str = "checkpoints";

/// The stores of one task.
pub struct TaskStore {
    db: DB,
    names: Vec<String>,
    dir: PathBuf,
}

impl TaskStore {
    /// Opens or creates the stores `names` in `dir`.
    pub fn open(dir: &Path, names: &[String], memory: &StoreMemory) -> Result<TaskStore, StoreError> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&memory.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&memory.buffers);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_max_total_wal_size(64 << 20);
        options.set_keep_log_file_num(2);
        let families = names
            .iter()
            .map(String::as_str)
            .chain([CHECKPOINTS])
            .map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(|error| StoreError(format!("{}: {error}", parent.display())))?;
        }
        Ok(TaskStore {
            db: DB::open_cf_descriptors(&options, dir, families)?,
            names: names.to_vec(),
            dir: dir.to_owned(),
        })
    }

    /// Removes the stores in `dir` from disk.
    pub fn wipe(dir: &Path) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(dir) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError(format!("{}: {error}", dir.display()))),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(store)?, key)?)
    }

    /// Entries from `from` (inclusive) to `to` (exclusive), in key order, lazily.
    pub fn range<'a>(
        &'a self,
        store: usize,
        from: &[u8],
        to: &'a [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + 'a, StoreError> {
        let family = self.family(store)?;
        Ok(self
            .db
            .iterator_cf(family, IteratorMode::From(from, Direction::Forward))
            .map(|item| match item {
                Ok((key, value)) => Ok((key.into_vec(), value.into_vec())),
                Err(error) => Err(error.into()),
            })
            .take_while(move |item| match item {
                Ok((key, _)) => key.as_slice() < to,
                Err(_) => true,
            }))
    }

    /// The changelog position that this store stands for; `None` for a new store.
    pub fn checkpoint(&self, store: usize) -> Result<Option<Offset>, StoreError> {
        let name = self.name(store)?;
        match self.db.get_cf(self.checkpoints()?, name)? {
            None => Ok(None),
            Some(bytes) => match <[u8; 8]>::try_from(bytes.as_slice()) {
                Ok(bytes) => Ok(Some(Offset(u64::from_be_bytes(bytes)))),
                Err(_) => Err(StoreError(format!("the checkpoint of {name} is damaged"))),
            },
        }
    }

    /// Makes committed writes durable: values and, per store, the position after their changelog records.
    pub fn apply(&self, overlay: &Overlay, positions: &[Option<Offset>]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for (store, position) in positions.iter().enumerate() {
            let family = self.family(store)?;
            for (key, value) in overlay.store(store) {
                match value {
                    Some(value) => batch.put_cf(family, key, value),
                    None => batch.delete_cf(family, key),
                }
            }
            if let Some(position) = position {
                self.stage_checkpoint(&mut batch, store, *position)?;
            }
        }
        Ok(self.db.write(batch)?)
    }

    /// Applies changelog records read while restoring, and the position after them.
    pub fn replay(&self, store: usize, records: &[Record], position: Offset) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let family = self.family(store)?;
        for record in records {
            let Some(key) = &record.key else { continue };
            match &record.value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
        self.stage_checkpoint(&mut batch, store, position)?;
        Ok(self.db.write(batch)?)
    }

    fn stage_checkpoint(&self, batch: &mut WriteBatch, store: usize, position: Offset) -> Result<(), StoreError> {
        batch.put_cf(self.checkpoints()?, self.name(store)?, position.0.to_be_bytes());
        Ok(())
    }

    fn name(&self, store: usize) -> Result<&str, StoreError> {
        self.names
            .get(store)
            .map(String::as_str)
            .ok_or_else(|| StoreError(format!("there is no store number {store}")))
    }

    fn family(&self, store: usize) -> Result<&rocksdb::ColumnFamily, StoreError> {
        let name = self.name(store)?;
        self.db
            .cf_handle(name)
            .ok_or_else(|| StoreError(format!("there is no column family {name}")))
    }

    fn checkpoints(&self) -> Result<&rocksdb::ColumnFamily, StoreError> {
        self.db
            .cf_handle(CHECKPOINTS)
            .ok_or_else(|| StoreError("there are no checkpoints".to_owned()))
    }
}
