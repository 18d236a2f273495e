//! The pipeline, from what the CRM says to the journal.
//!
//! Owns: what must hold of it.
//!
//! * *Moved together* (2, 3): a transaction holds exactly what its input offsets lead to: outputs, changelog and dead
//!   letters, the same bytes, each once (`replay.rs`).
//! * *Books balance* (6): the journal equals the books folded from the committed facts, and the accounting's own checks
//!   pass on them.

use std::collections::VecDeque;

use accrue::revenue::books::Books;
use accrue::revenue::checks;
use accrue::stream::log::TopicSpec;
use accrue::stream::record::{Offset, Outgoing, Topic};
use accrue::stream::topology::Shape;

use super::broker::Broker;
use super::client::{SimLog, at};
use super::replay::Replay;
use super::rng::Rng;
use super::scene::{Pace, Process, Scene};
use super::workload::{self, Subject, subject};
use super::world::Tally;

/// See the module.
pub struct Pipeline;

impl Scene for Pipeline {
    fn shape(&self) -> &Shape {
        &subject().topology.shape
    }

    fn topics(&self) -> Vec<TopicSpec> {
        subject().topics.clone()
    }

    fn feed(&self, rng: &mut Rng) -> VecDeque<Outgoing> {
        workload::records(rng)
    }

    fn process(&self, _log: &SimLog) -> Result<Process, String> {
        Ok(Process {
            topology: subject().topology.clone(),
            requests: None,
        })
    }

    fn pace(&self) -> Pace {
        Pace {
            storm_steps: 400,
            storm_ms: 20,
            peace_ms: 400,
            calm: 1,
        }
    }

    fn check(&self, log: &SimLog, _tally: &mut Tally) -> Result<(), String> {
        let mut replay = Replay::new(log)?;
        let broker = log.broker();
        for decided in &broker.history {
            replay.moved_together(&broker, decided)?;
        }
        replay.all_was_processed(&broker)?;
        books_balance(&broker, subject())
    }
}

fn books_balance(broker: &Broker, subject: &Subject) -> Result<(), String> {
    let out = &subject.config.outputs;
    let (facts, journal) = (
        Topic::new(out.contract_facts.as_str()),
        Topic::new(out.journal_entries.as_str()),
    );
    for n in 0..2 {
        let of = |topic: &Topic| -> Result<Vec<&[u8]>, String> {
            let log = broker.log(&at(topic, n)).map_err(|error| error.to_string())?;
            let records = log.visible(Offset(0), log.end());
            Ok(records
                .map(|record| record.value.as_deref().unwrap_or_default())
                .collect())
        };
        let mut books = Books::new(subject.config.settings().clone());
        for bytes in of(&facts)? {
            books.fold(subject.schemas.decode_fact(bytes).map_err(|error| error.to_string())?);
        }
        let report = books.finish(None);
        if let Some(violation) = checks::run(&report).first() {
            return Err(format!("books balance: {violation:?}"));
        }
        let mut wanted: Vec<String> = report.journals.iter().map(|entry| entry.entry_id.to_string()).collect();
        let mut found = Vec::new();
        for bytes in of(&journal)? {
            let entry = subject
                .schemas
                .decode_journal_entry(bytes)
                .map_err(|error| error.to_string())?;
            found.push(entry.entry_id.to_string());
        }
        wanted.sort();
        found.sort();
        if wanted != found {
            let missing = wanted.iter().filter(|id| !found.contains(id)).count();
            return Err(format!(
                "books balance: partition {n} has {} journal entries, the facts give {} ({missing} are missing)",
                found.len(),
                wanted.len()
            ));
        }
    }
    Ok(())
}
