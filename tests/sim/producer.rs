//! A transactional producer: records wait in it until they are sent, and an `EndTxn` may be lost, late, or unanswered.

use accrue::stream::log::{LogError, LogErrorKind, Membership, Positions, Producer};
use accrue::stream::record::Outgoing;

use super::client::{Fate, SimLog};
use super::consumer::Proof;

pub struct SimProducer {
    log: SimLog,
    id: String,
    epoch: u64,
    /// Records that the client has not sent yet.
    waiting: Vec<Outgoing>,
    ends: Positions,
}

impl SimProducer {
    pub fn new(log: SimLog, id: &str, epoch: u64) -> SimProducer {
        SimProducer {
            log,
            id: id.to_owned(),
            epoch,
            waiting: Vec::new(),
            ends: Positions::new(),
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        for out in std::mem::take(&mut self.waiting) {
            let at = out.to.clone();
            let offset = self.log.broker().produce(&self.id, self.epoch, out)?;
            self.ends.insert(at, offset.next());
        }
        Ok(())
    }
}

impl Producer for SimProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.waiting.clear();
        self.ends.clear();
        Ok(())
    }

    fn send(&mut self, record: Outgoing) -> Result<(), LogError> {
        self.waiting.push(record);
        if self.log.broker().rng.chance(70) {
            return Ok(());
        }
        let fate = self.log.fate();
        match fate {
            Fate::Goes => self.flush(),
            Fate::FailsBefore | Fate::FailsAfter => Err(LogError::new(LogErrorKind::Abort, "planned: not delivered")),
            Fate::DiesAfter => {
                let _ = self.flush();
                self.log.die()
            }
        }
    }

    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError> {
        // Every delivery is confirmed.
        self.log.call(LogErrorKind::Abort, |_| Ok(()))?;
        self.flush()?;
        // Offsets join, if there are any.
        if let (Some(membership), false) = (membership, offsets.is_empty()) {
            let proof = membership.get::<Proof>()?;
            let (id, epoch) = (self.id.clone(), self.epoch);
            self.log.call(LogErrorKind::Abort, |broker| {
                broker.offsets(&id, epoch, offsets, proof.member, proof.generation)
            })?;
        }
        // The end of the transaction is asked for.
        let (id, epoch) = (self.id.clone(), self.epoch);
        let unknown = || Err(LogError::new(LogErrorKind::Unknown, "planned: no answer to EndTxn"));
        let lost = self.log.trouble().unknown;
        if self.log.broker().rng.chance(lost) {
            let mut broker = self.log.broker();
            match broker.rng.below(3) {
                0 => {}
                1 => broker.end_txn_later(&id, epoch, true),
                _ => {
                    let _ = broker.end_txn(&id, epoch, true);
                }
            }
            return unknown();
        }
        self.log
            .call(LogErrorKind::Unknown, |broker| broker.end_txn(&id, epoch, true))?;
        Ok(std::mem::take(&mut self.ends))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.waiting.clear();
        let (id, epoch) = (self.id.clone(), self.epoch);
        self.log
            .call(LogErrorKind::Unknown, |broker| broker.end_txn(&id, epoch, false))
    }
}
