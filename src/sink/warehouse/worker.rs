//! The worker: from topics to a warehouse.
//!
//! ```text
//! positions --> read --> commit --> read --> commit ...
//!     ^                    |
//!     `--- away, fenced ---'
//! ```
//!
//! Owns: reading committed records from the positions that the warehouse holds, making rows, and cutting batches.
//! Invariant: a batch holds every row of its records, and its moves start where the warehouse stood when they were read;
//! whatever fails, the next session starts from what the warehouse says. Memory is bounded by `max_rows`.
//! Absent: a consumer group. Several workers are safe and gain nothing: one of them writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::metrics::Metrics;
use super::row::{ByKey, Precedence, Row, rows};
use super::table::Table;
use super::{Move, TableBatch, Warehouse, WarehouseError};
use crate::codec::DecodeError;
use crate::codec::schemas::{AnyReader, Product};
use crate::revenue::reference::Settings;
use crate::stream::log::{Log, LogError, LogErrorKind, Reader};
use crate::stream::record::{Offset, Partition, Record, Topic, TopicPartition};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks at topics that had nothing.
const IDLE_PAUSE: Duration = Duration::from_millis(20);

/// What the worker reads and how it cuts it.
pub struct Worker {
    pub log: Arc<dyn Log>,
    pub values: AnyReader,
    pub settings: Settings,
    /// The topic of each product.
    pub topics: BTreeMap<Product, Topic>,
    pub tables: &'static [Table],
    /// A commit comes after this time or this many rows, whichever is first.
    pub interval: Duration,
    pub max_rows: usize,
    /// End when everything that was in the topics at the start is in the warehouse.
    pub until_idle: bool,
    pub metrics: Metrics,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub commits: u64,
    /// Rows written; a row written again counts again.
    pub rows: u64,
    /// Records that made no row because they do not fit their table; each is in the log.
    pub unfit: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("schema registry unavailable: {0}")]
    Registry(String),
    /// What the warehouse holds and what the topic holds do not meet.
    #[error("{0}; after finding out why, run it once with --backfill")]
    Gap(String),
}

impl WorkerError {
    /// Whether another session, after a pause, may succeed.
    fn passes(&self) -> bool {
        match self {
            WorkerError::Warehouse(WarehouseError::Away(_) | WarehouseError::Fenced(_)) | WorkerError::Registry(_) => {
                true
            }
            WorkerError::Log(error) => error.kind == LogErrorKind::Retry,
            WorkerError::Warehouse(WarehouseError::Refused(_)) | WorkerError::Gap(_) => false,
        }
    }
}

impl Worker {
    /// Runs until `stop` is set, or until idle.
    ///
    /// # Errors
    /// What no waiting mends, named.
    pub fn run(&self, warehouse: &mut dyn Warehouse, stop: &AtomicBool) -> Result<Report, WorkerError> {
        let mut report = Report::default();
        let mut pause = FIRST_PAUSE;
        while !stop.load(Ordering::SeqCst) {
            let commits = report.commits;
            match self.session(warehouse, stop, &mut report) {
                Ok(()) => break,
                Err(error) if error.passes() => {
                    if report.commits > commits {
                        pause = FIRST_PAUSE;
                    }
                    self.metrics.set_working(false);
                    self.metrics.restarts.inc();
                    tracing::warn!(%error, "starting over from the warehouse's positions");
                    let until = Instant::now() + pause;
                    while Instant::now() < until && !stop.load(Ordering::SeqCst) {
                        std::thread::sleep(IDLE_PAUSE);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    fn session(
        &self,
        warehouse: &mut dyn Warehouse,
        stop: &AtomicBool,
        report: &mut Report,
    ) -> Result<(), WorkerError> {
        let mut feeds = self.feeds(warehouse)?;
        self.metrics.set_working(true);
        let mut live = false;
        while !stop.load(Ordering::SeqCst) {
            let (batch, unfit) = self.gather(&mut feeds, live, stop)?;
            if !batch.is_empty() {
                warehouse.commit(&batch)?;
                let rows = batch.iter().map(|table| table.rows.len() as u64).sum::<u64>();
                report.commits += 1;
                report.rows += rows;
                report.unfit += unfit;
                self.metrics.commits.inc();
                self.metrics.rows.inc_by(rows);
                self.metrics.unfit.inc_by(unfit);
                self.metrics.last_commit.set(jiff::Timestamp::now().as_second());
                for moved in batch
                    .iter()
                    .flat_map(|table| table.moves.iter().map(|it| (table.table.name, it)))
                {
                    let (name, Move { at, to, .. }) = moved;
                    for feed in feeds.iter_mut().filter(|feed| feed.at == *at) {
                        for target in feed.targets.iter_mut().filter(|target| target.table.name == name) {
                            target.held = Some(*to);
                        }
                    }
                }
                tracing::info!(rows = report.rows, commits = report.commits, "committed");
            }
            self.metrics.lag.set(self.lag(&feeds)?);
            let reached = live || Feed::all_reached(&feeds)?;
            if reached && (!live || !batch.is_empty()) {
                warehouse.live()?;
            }
            live = reached;
            if live && self.until_idle {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One feed for each partition of each topic, opened at the lowest position that one of its tables holds.
    fn feeds(&self, warehouse: &mut dyn Warehouse) -> Result<Vec<Feed>, WorkerError> {
        let held = warehouse.positions()?;
        let mut feeds = Vec::new();
        for (product, topic) in &self.topics {
            let tables = || self.tables.iter().filter(|table| table.feed == *product);
            if tables().next().is_none() {
                continue;
            }
            let Some(partitions) = self.log.partitions(topic)? else {
                return Err(WorkerError::Gap(format!("there is no topic {topic}; run accrue apply")));
            };
            for number in 0..partitions {
                let at = TopicPartition::new(topic, Partition(number));
                let (start, end) = (self.log.start(&at)?, self.log.end(&at)?);
                let mut targets = Vec::new();
                for table in tables() {
                    let held = held.get(&(table.name, at.clone())).copied();
                    check(table, &at, held, start, end)?;
                    targets.push(Target { table, held });
                }
                let from = targets
                    .iter()
                    .map(|it| it.held.unwrap_or(start))
                    .min()
                    .unwrap_or(start)
                    .max(start);
                let reader = self.log.reader(&at, from)?;
                feeds.push(Feed {
                    product: *product,
                    at,
                    reader,
                    from,
                    end,
                    targets,
                });
            }
        }
        Ok(feeds)
    }

    /// Offsets between where the feeds stand and where their partitions end now.
    fn lag(&self, feeds: &[Feed]) -> Result<i64, LogError> {
        let mut lag = 0;
        for feed in feeds {
            lag += self.log.end(&feed.at)?.0.saturating_sub(feed.position()?.0);
        }
        Ok(i64::try_from(lag).unwrap_or(i64::MAX))
    }

    /// Reads until the interval is over, enough rows are there or, before going live, all feeds have reached their end.
    fn gather(&self, feeds: &mut [Feed], live: bool, stop: &AtomicBool) -> Result<(Vec<TableBatch>, u64), WorkerError> {
        let deadline = Instant::now() + self.interval;
        let mut kept = Kept::default();
        let mut unfit = 0;
        loop {
            let mut anything = false;
            for feed in feeds.iter_mut() {
                for record in feed.reader.read(Duration::ZERO)? {
                    anything = true;
                    unfit += self.keep(feed, &record, &mut kept)?;
                }
                if kept.count >= self.max_rows {
                    return Ok((kept.batch(feeds, self.tables)?, unfit));
                }
            }
            let over = Instant::now() >= deadline || stop.load(Ordering::SeqCst);
            if over || (!anything && !live && Feed::all_reached(feeds)?) {
                return Ok((kept.batch(feeds, self.tables)?, unfit));
            }
            if !anything {
                std::thread::sleep(IDLE_PAUSE);
            }
        }
    }

    /// Adds the rows of a record to those kept. Returns 1 when it fits no table.
    fn keep(&self, feed: &Feed, record: &Record, kept: &mut Kept) -> Result<u64, WorkerError> {
        let Some(bytes) = record.value.as_deref() else {
            return Ok(0);
        };
        let json = match self.values.avro(bytes) {
            Ok(json) => json,
            Err(DecodeError::Unavailable(why)) => return Err(WorkerError::Registry(why)),
            Err(DecodeError::Refused(refused)) => {
                tracing::error!(at = %record.at, offset = record.offset.0, code = refused.code, %refused, "left out");
                return Ok(1);
            }
        };
        let mut unfit = 0;
        for target in &feed.targets {
            if target.held.is_some_and(|held| record.offset < held) {
                continue;
            }
            match rows(target.table, record, &json, &self.settings) {
                Ok(found) => found.into_iter().for_each(|row| kept.add(target.table, row)),
                Err(error) => {
                    tracing::error!(at = %record.at, offset = record.offset.0, %error, "left out");
                    unfit = 1;
                }
            }
        }
        Ok(unfit)
    }
}

/// A position that the topic cannot continue is never skipped over.
fn check(
    table: &Table,
    at: &TopicPartition,
    held: Option<Offset>,
    start: Offset,
    end: Offset,
) -> Result<(), WorkerError> {
    match held {
        Some(held) if held > end => Err(WorkerError::Gap(format!(
            "{} holds {at} up to {held}, and the topic ends at {end}: was it made anew?",
            table.name
        ))),
        Some(held) if held < start => Err(WorkerError::Gap(format!(
            "{} holds {at} up to {held}, and the topic has dropped its records before {start}",
            table.name
        ))),
        Some(_) | None => Ok(()),
    }
}

/// One partition and the tables it feeds.
struct Feed {
    product: Product,
    at: TopicPartition,
    reader: Box<dyn Reader>,
    from: Offset,
    /// Where the partition ended when the session began.
    end: Offset,
    targets: Vec<Target>,
}

struct Target {
    table: &'static Table,
    held: Option<Offset>,
}

impl Feed {
    fn position(&self) -> Result<Offset, LogError> {
        Ok(self.reader.position()?.max(self.from))
    }

    fn all_reached(feeds: &[Feed]) -> Result<bool, LogError> {
        for feed in feeds {
            if feed.position()? < feed.end {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Rows by table and key.
#[derive(Default)]
struct Kept {
    rows: BTreeMap<&'static str, (Precedence, ByKey)>,
    count: usize,
}

impl Kept {
    fn add(&mut self, table: &'static Table, row: Row) {
        let none = || (Precedence::of(table), ByKey::new());
        let (precedence, rows) = self.rows.entry(table.name).or_insert_with(none);
        self.count += usize::from(precedence.keep(rows, row));
    }

    fn batch(mut self, feeds: &[Feed], tables: &'static [Table]) -> Result<Vec<TableBatch>, LogError> {
        let mut batch = Vec::new();
        for table in tables {
            let mut moves = Vec::new();
            for feed in feeds.iter().filter(|feed| feed.product == table.feed) {
                let to = feed.position()?;
                for target in feed.targets.iter().filter(|target| target.table.name == table.name) {
                    if target.held.map_or(to > feed.from, |held| to > held) {
                        moves.push(Move {
                            at: feed.at.clone(),
                            from: target.held,
                            to,
                        });
                    }
                }
            }
            let rows = self.rows.remove(table.name).map(|(_, rows)| rows);
            let rows = rows.unwrap_or_default().into_values().collect();
            if !moves.is_empty() {
                batch.push(TableBatch { table, rows, moves });
            }
        }
        Ok(batch)
    }
}
