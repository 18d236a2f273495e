//! Stores in RocksDB.
//!
//! Owns: the database of a task (a column family for each family of keys) and what all tasks of the process share
//! (block cache, write buffers).
//! Invariant: a batch is whole or absent. The write-ahead log stays on, unsynced: a killed process loses nothing, a lost
//! machine at most the tail, which the changelog gives back.
//! Larger values lie apart from their keys, in blob files: what compactions sort and write again and again is the keys, and
//! those in few large merges (universal), so that a write costs much the same in a store of ten thousand contracts and of ten
//! million.
//! Absent: what the families mean.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    Direction, ErrorKind, IteratorMode, Options, WriteBatch, WriteBufferManager,
};

use super::{CHECKPOINTS, Entry, StoreError, Write};

/// Values of so many bytes or more lie in blob files.
const BLOB_BYTES: u64 = 256;
/// A compaction moves those values out of the oldest blob files, this share of them, that it comes across, and a file that
/// nobody points to is deleted. With none, a value that stays for ever keeps the file of all its dead neighbours: a store of
/// contracts that end one by one took nine times the disk. With a quarter, a write cost half as much again as with a tenth.
const BLOBS_MOVED: f64 = 0.1;

/// A family has at most so many sorted runs before some are merged. Each is asked by a read whose key its filter lets through.
const RUNS: i32 = 8;

/// Memory that the stores of one process share, bounded as a whole.
#[derive(Clone)]
pub struct Memory {
    cache: Cache,
    buffers: WriteBufferManager,
    /// At which a database writes one family's buffer out, if all together have not made it do so before. Small: two of
    /// them may wait for a busy processor at each database, whatever the budget says.
    buffer_bytes: usize,
}

impl Memory {
    /// `bytes` for blocks, of which write buffers may take about half. The process may have as many files open from now on as
    /// it is allowed at most: a blob file has the values of one write buffer, and stays open once it was read.
    pub fn new(bytes: usize) -> Memory {
        // Where that is refused, RocksDB names the limit when it is met.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let cache = Cache::new_lru_cache(bytes);
        // Whoever writes while there is too much writes its own buffers out. It must not wait for the others to do so
        // (`allow_stall`): they do it only when they are written to, by the thread that waits.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 2, false, cache.clone());
        Memory {
            cache,
            buffers,
            buffer_bytes: (bytes / 32).max(1 << 20),
        }
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> StoreError {
        let message = error.to_string();
        let is_damage = match error.kind() {
            ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound => true,
            // One of its files is missing.
            _ => message.contains("No such file or directory"),
        };
        StoreError { message, is_damage }
    }
}

pub(super) struct Db(DB);

impl Db {
    pub fn open(dir: &Path, names: &[String], memory: &Memory) -> Result<Db, StoreError> {
        // RocksDB is compiled for them (.cargo/config.toml), and would end the process.
        #[cfg(target_arch = "x86_64")]
        if !(std::is_x86_feature_detected!("sse4.2") && std::is_x86_feature_detected!("pclmulqdq")) {
            return Err(StoreError::obstacle(
                "the processor has no SSE4.2 and PCLMULQDQ, as every one since 2010 does: give a virtual machine the host's processor, or the type x86-64-v2-AES"
                    .to_owned(),
            ));
        }
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&memory.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&memory.buffers);
        options.set_write_buffer_size(memory.buffer_bytes);
        // Against level by level, half the processor's time a write and the same a read, for up to half as much disk again;
        // merged at four already, a third more.
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(RUNS);
        // Files of 64 MiB, the default, have an index that finds no room in a small cache.
        options.set_target_file_size_base(memory.buffer_bytes as u64);
        // At every level: left out at the upper two, a store takes four times the disk, and compactions more memory than the
        // budget leaves them.
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        options.set_blob_file_size(64 << 20);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(BLOBS_MOVED);
        // For each file that a compaction reads, and no part of what is bounded: after a restore there are dozens. The
        // default is 2 MiB.
        options.set_compaction_readahead_size(128 << 10);
        options.set_max_total_wal_size(64 << 20);
        options.set_keep_log_file_num(2);
        let families = names
            .iter()
            .map(String::as_str)
            .chain([CHECKPOINTS])
            .map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| StoreError::obstacle(format!("{}: {error}", parent.display())))?;
        }
        Ok(Db(DB::open_cf_descriptors(&options, dir, families)?))
    }

    pub fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get_cf(self.family(family)?, key)?)
    }

    pub fn range<'a>(
        &'a self,
        family: &str,
        from: &[u8],
        to: &'a [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + 'a, StoreError> {
        let from = IteratorMode::From(from, Direction::Forward);
        Ok(until(to, self.0.iterator_cf(self.family(family)?, from)))
    }

    pub fn write(&self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for write in writes {
            let family = self.family(write.family)?;
            match write.value {
                Some(value) => batch.put_cf(family, write.key, value),
                None => batch.delete_cf(family, write.key),
            }
        }
        Ok(self.0.write(batch)?)
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            db: self,
            at: self.0.snapshot(),
        }
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.0
            .cf_handle(name)
            .ok_or_else(|| StoreError::damage(format!("there is no column family {name}")))
    }
}

/// A database as it was at one moment.
pub(super) struct Snapshot<'a> {
    db: &'a Db,
    at: rocksdb::Snapshot<'a>,
}

impl Snapshot<'_> {
    pub fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.at.get_cf(self.db.family(family)?, key)?)
    }

    pub fn range<'a>(
        &'a self,
        family: &str,
        from: &[u8],
        to: &'a [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + 'a, StoreError> {
        let from = IteratorMode::From(from, Direction::Forward);
        Ok(until(to, self.at.iterator_cf(self.db.family(family)?, from)))
    }
}

/// The entries before `to`.
fn until<'a>(
    to: &'a [u8],
    entries: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>> + 'a,
) -> impl Iterator<Item = Result<Entry, StoreError>> + 'a {
    entries
        .map(|item| match item {
            Ok((key, value)) => Ok((key.into_vec(), value.into_vec())),
            Err(error) => Err(error.into()),
        })
        .take_while(move |item| match item {
            Ok((key, _)) => key.as_slice() < to,
            Err(_) => true,
        })
}

pub(super) fn wipe(dir: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::obstacle(format!("{}: {error}", dir.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = "contract";

    fn open(dir: &Path) -> Result<Db, StoreError> {
        Db::open(dir, &[FAMILY.to_owned()], &Memory::new(1 << 20))
    }

    /// Values on both sides of the limit, in files: what the write-ahead log has is written out when a database is opened.
    fn filled(dir: &Path) -> Vec<Entry> {
        let entries: Vec<Entry> = (0..20u8).map(|n| (vec![n], vec![n; usize::from(n) * 100])).collect();
        let writes: Vec<Write<'_>> = entries
            .iter()
            .map(|(key, value)| Write {
                family: FAMILY,
                key,
                value: Some(value),
            })
            .collect();
        open(dir).unwrap().write(&writes).unwrap();
        drop(open(dir).unwrap());
        entries
    }

    fn blob_files(dir: &Path) -> Vec<std::path::PathBuf> {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "blob"))
            .collect()
    }

    #[test]
    fn large_values_lie_apart_and_are_read_like_others() {
        let dir = tempfile::tempdir().unwrap();
        let entries = filled(dir.path());
        assert!(!blob_files(dir.path()).is_empty());
        let db = open(dir.path()).unwrap();
        for (key, value) in &entries {
            assert_eq!(db.get(FAMILY, key).unwrap().as_ref(), Some(value));
        }
        let read: Result<Vec<Entry>, StoreError> = db.range(FAMILY, &[3], &[15]).unwrap().collect();
        assert_eq!(read.unwrap(), entries[3..15]);
    }

    /// Merged level by level and values beside their keys, as until 2026-11.
    #[test]
    fn a_database_of_earlier_versions_is_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_size(64 << 10);
        options.set_max_bytes_for_level_base(64 << 10);
        options.set_target_file_size_base(16 << 10);
        let (key, old, new) = (
            |n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes(),
            |n: u32| vec![n as u8; 300],
            |n: u32| vec![n as u8; 400],
        );
        {
            let db = DB::open_cf(&options, dir.path(), [FAMILY, CHECKPOINTS]).unwrap();
            let family = db.cf_handle(FAMILY).unwrap();
            (0..3_000).for_each(|n| db.put_cf(family, key(n), old(n)).unwrap());
            db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
            (3_000..4_000).for_each(|n| db.put_cf(family, key(n), old(n)).unwrap());
            db.flush_cf(family).unwrap();
            let levels = (0..7).map(|n| format!("rocksdb.num-files-at-level{n}"));
            let deep = levels.filter(|it| db.property_value_cf(family, it).unwrap().is_some_and(|n| n != "0"));
            assert!(deep.count() > 1, "files at several levels");
        }
        let db = open(dir.path()).unwrap();
        for n in 0..4_000 {
            assert_eq!(db.get(FAMILY, &key(n)).unwrap(), Some(old(n)));
        }
        for n in (0..4_000).step_by(2) {
            let write = Write {
                family: FAMILY,
                key: &key(n),
                value: Some(&new(n)),
            };
            db.write(&[write]).unwrap();
        }
        drop(db);
        let db = open(dir.path()).unwrap();
        let read: Result<Vec<Entry>, StoreError> = db.range(FAMILY, &[], &[255; 5]).unwrap().collect();
        let mut wanted: Vec<Entry> = (0..4_000)
            .map(|n| (key(n).to_vec(), if n % 2 == 0 { new(n) } else { old(n) }))
            .collect();
        wanted.sort();
        assert_eq!(read.unwrap(), wanted);
    }

    #[test]
    fn a_blob_file_that_is_damaged_or_gone_is_damage() {
        for damage in [
            |path: &Path| {
                let size = std::fs::metadata(path).unwrap().len() as usize;
                std::fs::write(path, vec![7; size]).unwrap();
            },
            |path: &Path| std::fs::remove_file(path).unwrap(),
        ] {
            let dir = tempfile::tempdir().unwrap();
            filled(dir.path());
            blob_files(dir.path()).iter().for_each(|path| damage(path));
            let found = open(dir.path()).and_then(|db| db.get(FAMILY, &[19]));
            assert!(found.as_ref().is_err_and(|error| error.is_damage), "{found:?}");
        }
    }
}
