//! Lakehouse tables: Delta on a folder or on S3, readable by DuckDB, Spark, Trino, Snowflake, BigQuery and Power BI.
//!
//! A table is a row of data files, sorted and cut by key: a commit reads the files whose keys it touches, merges, and
//! writes them anew, so that every reader sees one row for each key without knowing how. Invariant: the commit that adds
//! the rows holds the positions; a file that no commit names is nobody's. Tables commit one by one, each whole.
//! Absent: the delta crate, whose merge needs DataFusion and takes longer to build than everything else here together
//! (`Cargo.toml` says what stands in its place); OPTIMIZE by other engines. VACUUM by any engine removes old files.
//!
//! * [`store`]: where files lie; `datafile`: Parquet; `log`: the transaction log; `checkpoint`: its short form.

mod checkpoint;
mod datafile;
mod log;
pub mod store;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::row::{ByKey, Precedence, Row};
use super::table::Table;
use super::{Held, TableBatch, Warehouse, WarehouseError, marts};
use crate::codec::receipt::hex;
use crate::stream::record::{Offset, Partition, Topic, TopicPartition};
use log::{Action, Bound, DataFile, Snapshot};
use store::Store;

/// A data file is cut in two when it would hold more rows.
const MAX_ROWS_PER_FILE: usize = 50_000;

/// See the module.
pub struct Lakehouse {
    store: Box<dyn Store>,
    tables: &'static [Table],
    /// As last loaded or written by us.
    snapshots: BTreeMap<&'static str, Snapshot>,
    max_rows_per_file: usize,
}

impl Lakehouse {
    pub fn new(store: Box<dyn Store>, tables: &'static [Table]) -> Lakehouse {
        Lakehouse {
            store,
            tables,
            snapshots: BTreeMap::new(),
            max_rows_per_file: MAX_ROWS_PER_FILE,
        }
    }

    /// Cuts files at another number of rows.
    pub fn with_rows_per_file(self, max_rows_per_file: usize) -> Lakehouse {
        Lakehouse {
            max_rows_per_file: max_rows_per_file.max(1),
            ..self
        }
    }

    fn append(&mut self, table: &'static Table, operation: &str, actions: &[Action]) -> Result<(), WarehouseError> {
        let snapshot = self.snapshots.entry(table.name).or_default();
        match log::append(self.store.as_ref(), table, snapshot, operation, actions, now_ms())? {
            true => Ok(()),
            false => Err(WarehouseError::Fenced(format!("a version was added to {}", table.name))),
        }
    }

    fn snapshot(&self, table: &Table) -> Result<&Snapshot, WarehouseError> {
        match self
            .snapshots
            .get(table.name)
            .filter(|snapshot| snapshot.version.is_some())
        {
            Some(snapshot) => Ok(snapshot),
            None => Err(WarehouseError::Refused(format!(
                "there is no lakehouse table {}; run accrue apply",
                table.name
            ))),
        }
    }

    /// Writes the files that take the rows in, and says what the commit has to say about it.
    fn merge(&self, table: &'static Table, rows: &[Row]) -> Result<Vec<Action>, WarehouseError> {
        let snapshot = self.snapshot(table)?;
        let version = snapshot.version.map_or(0, |version| version + 1);
        let mut by_first: Vec<(&Bound, &String)> =
            snapshot.files.iter().map(|(path, file)| (&file.first, path)).collect();
        by_first.sort();
        // Each row belongs to the last file that starts at or before its key; what precedes all belongs to the first.
        let mut touched: BTreeMap<Option<&String>, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            let key = &row[..table.key_width()];
            let after = by_first.partition_point(|(first, _)| first.as_slice() <= key);
            let path = by_first.get(after.saturating_sub(1)).map(|(_, path)| *path);
            touched.entry(path).or_default().push(row);
        }
        let precedence = Precedence::of(table);
        let mut actions = Vec::new();
        for (path, rows) in touched {
            let mut merged = ByKey::new();
            if let Some(path) = path {
                let name = format!("{}/{path}", table.name);
                let Some(bytes) = self.store.get(&name)? else {
                    return Err(WarehouseError::Refused(format!(
                        "{name} is in the table's log and is not there"
                    )));
                };
                let size = bytes.len() as u64;
                for row in datafile::read(table, bytes)? {
                    merged.insert(row[..table.key_width()].to_vec(), row);
                }
                actions.push(Action::Remove {
                    path: path.clone(),
                    size,
                });
            }
            for row in rows {
                precedence.keep(&mut merged, row.clone());
            }
            let merged: Vec<Row> = merged.into_values().collect();
            let pieces = merged.len().div_ceil(self.max_rows_per_file).max(1);
            for piece in merged.chunks(merged.len().div_ceil(pieces).max(1)) {
                actions.push(self.add(table, version, piece)?);
            }
        }
        Ok(actions)
    }

    /// The name says what is inside, so that another writer's file of this version is never overwritten by another.
    fn add(&self, table: &Table, version: u64, rows: &[Row]) -> Result<Action, WarehouseError> {
        let bytes = datafile::write(table, rows)?;
        let digest = hex(&Sha256::digest(&bytes)[..8]);
        let path = format!("part-{version:08}-{digest}.parquet");
        self.store.put(&format!("{}/{path}", table.name), &bytes)?;
        let first = rows
            .first()
            .map(|row| row[..table.key_width()].to_vec())
            .unwrap_or_default();
        let file = DataFile {
            size: bytes.len() as u64,
            rows: rows.len() as u64,
            first,
        };
        Ok(Action::Add { path, file })
    }

    /// The views, and the tables they stand on, for DuckDB.
    fn views(&self) -> String {
        let mut text = "-- duckdb -init views.sql: the tables of this lakehouse and the views over them.\n\
                        INSTALL delta;\nLOAD delta;\n"
            .to_owned();
        for table in self.tables {
            let place = format!("{}/{}", self.store.location(), table.name).replace('\'', "''");
            text += &format!(
                "CREATE OR REPLACE VIEW {} AS SELECT * FROM delta_scan('{place}');\n",
                table.name
            );
        }
        for view in marts::ALL {
            text += &format!("CREATE OR REPLACE VIEW {} AS\n{};\n", view.name, view.sql.trim_end());
        }
        text
    }
}

impl Warehouse for Lakehouse {
    fn prepare(&mut self, dry_run: bool) -> Result<Vec<String>, WarehouseError> {
        let mut steps = Vec::new();
        for table in self.tables {
            let snapshot = log::load(self.store.as_ref(), table)?;
            let schema = log::schema(table, &snapshot.schema)?;
            let step = match snapshot.version {
                None => Some(format!("table {}: created", table.name)),
                Some(_) if schema != snapshot.schema => Some(format!("table {}: columns added", table.name)),
                Some(_) => None,
            };
            self.snapshots.insert(table.name, snapshot);
            if let Some(step) = step {
                if !dry_run {
                    self.append(table, "CREATE TABLE", &[Action::Create(schema)])?;
                }
                steps.push(step);
            }
        }
        if !dry_run {
            self.store.put("views.sql", self.views().as_bytes())?;
        }
        steps.push(format!("{} views in views.sql", marts::ALL.len()));
        Ok(steps)
    }

    fn positions(&mut self) -> Result<Held, WarehouseError> {
        let mut held = Held::new();
        for table in self.tables {
            let snapshot = log::load(self.store.as_ref(), table)?;
            for (id, next) in snapshot.positions.iter().filter(|(_, next)| **next > 0) {
                let place = id.strip_prefix("accrue/").and_then(|rest| rest.rsplit_once('/'));
                let Some((topic, partition)) = place.and_then(|(topic, n)| Some((topic, n.parse().ok()?))) else {
                    continue;
                };
                held.insert(
                    (
                        table.name,
                        TopicPartition::new(&Topic::new(topic), Partition(partition)),
                    ),
                    Offset(*next),
                );
            }
            self.snapshots.insert(table.name, snapshot);
        }
        Ok(held)
    }

    fn commit(&mut self, batch: &[TableBatch]) -> Result<(), WarehouseError> {
        for TableBatch { table, rows, moves } in batch {
            let snapshot = self.snapshot(table)?;
            if let Some(moved) = moves.iter().find(|moved| log::held(snapshot, &moved.at) != moved.from) {
                return Err(WarehouseError::Fenced(format!(
                    "{} of {} is not where it was",
                    moved.at, table.name
                )));
            }
            let mut actions = self.merge(table, rows)?;
            actions.extend(moves.iter().map(|moved| Action::Position {
                id: log::position_id(&moved.at),
                next: moved.to.0,
            }));
            self.append(table, "MERGE", &actions)?;
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), WarehouseError> {
        for table in self.tables {
            let snapshot = log::load(self.store.as_ref(), table)?;
            let files = snapshot.files.iter().map(|(path, file)| Action::Remove {
                path: path.clone(),
                size: file.size,
            });
            let positions = snapshot.positions.keys().map(|id| Action::Position {
                id: id.clone(),
                next: 0,
            });
            let actions: Vec<Action> = files.chain(positions).collect();
            self.snapshots.insert(table.name, snapshot);
            if !actions.is_empty() {
                self.append(table, "TRUNCATE", &actions)?;
            }
        }
        Ok(())
    }
}

/// Wall clock, for what engines show of a commit; nothing rests on it.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
