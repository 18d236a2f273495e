//! The first stage of a sink: what concerns one deal comes to one partition, in one order. Stateless.
//!
//! Owns: the intake topic, which carries entries and operators' decisions as they were, keyed by deal. Two topics read by
//! one stateful stage would not do: a consumer group may give equal partitions of two topics to two members, and a store
//! has one owner. Invariants: entries of a deal keep their order; those of tenants that the sink does not serve end here,
//! so nothing is remembered of them. Deliberately absent: state, and what an entry means.

use std::sync::Arc;

use super::courier::Clock;
use crate::codec::schemas::Schemas;
use crate::config::Sink;
use crate::revenue::ids::{DealId, TenantId};
use crate::stream::processor::{Context, Emission, Failure, Processor, Progress, Rejected, Route};
use crate::stream::record::{Header, Partition, Record, Timestamp, Topic};

/// What an intake record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Entry,
    Command,
}

/// The partition of `sink.commands` that has every decision, so that they are read in the order in which they were made.
pub const COMMANDS: Partition = Partition(0);

const KIND: &str = "accrue-kind";
const SOURCE_TIME: &str = "accrue-source-time";

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Entry => "entry",
            Kind::Command => "command",
        }
    }
}

/// See the module.
pub struct Collect {
    sink: Sink,
    schemas: Arc<Schemas>,
    clock: Clock,
    commands: Topic,
    intake: Topic,
}

impl Collect {
    pub fn new(sink: Sink, schemas: Arc<Schemas>, clock: Clock, commands: Topic, intake: Topic) -> Collect {
        Collect {
            sink,
            schemas,
            clock,
            commands,
            intake,
        }
    }
}

impl Processor for Collect {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let Some(value) = &record.value else {
            return Ok(Progress::Done);
        };
        let (kind, route, key) = if record.at.topic == self.commands {
            let command = self.schemas.decode_sink_command(value)?;
            if command.sink != self.sink.name.as_str() {
                return Ok(Progress::Done);
            }
            // Who has the document knows it; a summary is of no one deal.
            (Kind::Command, Route::Everywhere, command.key)
        } else {
            let entry = self.schemas.decode_journal_entry(value)?;
            if !self.sink.takes(&entry.tenant) {
                return Ok(Progress::Done);
            }
            (Kind::Entry, Route::ByKey, partition_key(&entry.tenant, &entry.deal))
        };
        cx.emit(Emission {
            topic: self.intake.clone(),
            route,
            // How long the topic is kept counts from now, however old what it carries is.
            timestamp: Timestamp((self.clock)().as_millisecond()),
            key: Some(key.into_bytes()),
            value: Some(value.clone()),
            headers: vec![
                Header::new(KIND, kind.as_str()),
                Header::new(SOURCE_TIME, record.timestamp.0.to_string()),
            ],
        })?;
        Ok(Progress::Done)
    }
}

/// The key of everything that belongs to a deal, as in the topics of the pipeline.
fn partition_key(tenant: &TenantId, deal: &DealId) -> String {
    format!("{tenant}/{deal}")
}

/// What an intake record is, and the time of its source.
///
/// # Errors
/// The record was not written by this stage.
pub fn marks(record: &Record) -> Result<(Kind, Timestamp), Rejected> {
    let text = |name: &str| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
    let kind = [Kind::Entry, Kind::Command]
        .into_iter()
        .find(|kind| text(KIND) == Some(kind.as_str()));
    let time = text(SOURCE_TIME).and_then(|text| text.parse().ok()).map(Timestamp);
    kind.zip(time).ok_or_else(|| Rejected {
        code: "not_intake".to_owned(),
        message: "the intake topic is written by its sink alone; this record lacks the sink's headers".to_owned(),
    })
}
