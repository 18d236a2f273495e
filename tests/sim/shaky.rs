//! Stages that fail.

use accrue::stream::fault::Fault;
use accrue::stream::processor::{Context, Failure, Processor, Progress};
use accrue::stream::record::{Record, Timestamp};

use super::client::{Fate, SimLog};

/// A stage whose processing fails now and then, after it did its work: a schema registry that is away.
pub struct Shaky {
    pub inner: Box<dyn Processor>,
    pub log: SimLog,
}

impl Processor for Shaky {
    fn open(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        self.inner.open(cx)
    }

    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let fate = self.log.fate();
        let progress = self.inner.process(record, cx)?;
        match fate {
            Fate::Goes => Ok(progress),
            Fate::FailsBefore | Fate::FailsAfter => Err(Failure::Fault(Fault::Retry("planned: no schema".to_owned()))),
            Fate::DiesAfter => self.log.die(),
        }
    }

    fn punctuate(&mut self, stream_time: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        self.inner.punctuate(stream_time, cx)
    }

    fn tick(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Result<(), Fault> {
        self.inner.tick(now, cx)
    }

    fn committed(&mut self) {
        self.inner.committed();
    }
}
