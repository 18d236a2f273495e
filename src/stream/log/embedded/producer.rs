//! Transactions of the embedded log.
//!
//! Invariant: a transaction is one write batch, made by whoever has its transactional id last.

use rocksdb::WriteBatch;

use super::super::{LogError, LogErrorKind, Membership, Positions, Producer};
use super::bytes::{bounds_key, bounds_value, encode, offset_key, record_key};
use super::consumer::EmbeddedMember;
use super::{COMMITS_PER_UPKEEP, EmbeddedLog, META, RECORDS, bounds};
use crate::stream::record::Outgoing;

/// A producer with its open transaction.
pub(super) struct EmbeddedProducer {
    pub(super) log: EmbeddedLog,
    pub(super) id: String,
    pub(super) epoch: u64,
    /// The records of the open transaction.
    pub(super) open: Option<Vec<Outgoing>>,
}

impl Producer for EmbeddedProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        match self.open {
            None => {
                self.open = Some(Vec::new());
                Ok(())
            }
            Some(_) => Err(LogError::fatal("a transaction is already open")),
        }
    }

    fn send(&mut self, record: Outgoing) -> Result<(), LogError> {
        match &mut self.open {
            Some(records) => {
                records.push(record);
                Ok(())
            }
            None => Err(LogError::fatal("no transaction is open")),
        }
    }

    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError> {
        let Some(records) = self.open.take() else {
            return Err(LogError::fatal("no transaction is open"));
        };
        let shared = &self.log.0;
        let mut state = shared.lock();
        if state.epochs.get(&self.id) != Some(&self.epoch) {
            return Err(LogError::new(
                LogErrorKind::Fenced,
                format!("a newer producer uses the transactional id {}", self.id),
            ));
        }
        let (records_cf, meta_cf) = (shared.family(RECORDS)?, shared.family(META)?);
        let mut batch = WriteBatch::default();
        let mut ends = Positions::new();
        let mut value = Vec::new();
        for record in records {
            let (number, _, end) = bounds(&state, &record.to)?;
            let offset = ends.get(&record.to).copied().unwrap_or(end);
            encode(&record, &mut value);
            batch.put_cf(records_cf, record_key(number, record.to.partition.0, offset.0), &value);
            ends.insert(record.to, offset.next());
        }
        for (at, end) in &ends {
            let (number, start, _) = bounds(&state, at)?;
            batch.put_cf(meta_cf, bounds_key(number, at.partition.0), bounds_value(start, *end));
        }
        if let Some(membership) = membership {
            let proof = membership.get::<EmbeddedMember>()?;
            let group = state.groups.get(&proof.group);
            for (at, offset) in offsets {
                if group.and_then(|g| g.owned.get(at)) != Some(&proof.member) {
                    return Err(LogError::new(
                        LogErrorKind::Fenced,
                        format!("{at} belongs to another member of group {}", proof.group),
                    ));
                }
                batch.put_cf(meta_cf, offset_key(&proof.group, at), offset.0.to_be_bytes());
            }
        }
        shared.write(batch)?;
        for (at, end) in &ends {
            if let Some(topic) = state.topics.get_mut(&at.topic) {
                topic.bounds[at.partition.0 as usize].1 = *end;
            }
        }
        state.commits += 1;
        if state.commits.is_multiple_of(COMMITS_PER_UPKEEP) {
            shared.upkeep(&mut state)?;
        }
        shared.changed.notify_all();
        Ok(ends)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.open = None;
        Ok(())
    }
}
