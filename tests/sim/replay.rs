//! Each committed transaction, done again by the production stages alone.
//!
//! Owns: a fold of every stage over its committed inputs, with no log, no store on disk, and nothing of the runtime but
//! one task's steps; and the comparison of what it gives with what the transaction holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use accrue::stream::app::{App, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::record::{Offset, Outgoing, Record, Topic, TopicPartition};
use accrue::stream::store::StoreHome;
use accrue::stream::task::{Ends, Input, Outcome, Task, TaskId};
use accrue::stream::topology::DeadLetter;
use bytes::Bytes;

use super::broker::{Broker, Decided};
use super::client::SimLog;
use super::partition::State;
use super::workload::subject;
use super::world;

/// The production stages, fed with committed inputs.
pub struct Replay {
    app: App,
    tasks: BTreeMap<TopicPartition, Fold>,
}

struct Fold {
    task: Task,
    sub: usize,
    next: Offset,
    /// What the changelog gave up to the last transaction.
    last: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// A partition and a key.
type Place = (TopicPartition, Option<Vec<u8>>);

/// What one output is compared by.
type Output = (
    TopicPartition,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    i64,
    Vec<(String, Bytes)>,
);

impl Replay {
    pub fn new(log: &SimLog) -> Result<Replay, String> {
        let config = RuntimeConfig {
            threads: 1,
            state_dir: PathBuf::new(),
            memory: Budget::of(0),
            commit_interval: Duration::ZERO,
            max_records_per_commit: 0,
            overlay_max_bytes: 0,
            ask_ends_after: Duration::ZERO,
            restore_threads: 0,
            instance: None,
            standbys: false,
        };
        let subject = subject();
        let app = world::app(subject.topology.clone(), log, config, StoreHome::memory(), usize::MAX)?;
        let mut tasks = BTreeMap::new();
        let sources = subject.topology.shape.sources();
        let partitions: Vec<TopicPartition> = log
            .broker()
            .logs
            .keys()
            .filter(|at| sources.contains(&at.topic))
            .cloned()
            .collect();
        for at in partitions {
            let sub = subject
                .topology
                .shape
                .reader_of(&at.topic)
                .ok_or("a source without a reader")?;
            let shape = &subject.topology.shape.subs[sub];
            let id = TaskId {
                sub: shape.name.clone(),
                partition: at.partition,
            };
            let stores = shape.stores.iter().map(|store| store.name.clone()).collect();
            let mut task = Task::new(id, app.processor(&shape.name).ok_or("no processor")?, stores);
            task.run(None, &app.partitions).map_err(|fault| fault.to_string())?;
            task.inputs.insert(at.clone(), Input::held());
            tasks.insert(
                at,
                Fold {
                    task,
                    sub,
                    next: Offset(0),
                    last: BTreeMap::new(),
                },
            );
        }
        Ok(Replay { app, tasks })
    }

    pub fn moved_together(&mut self, broker: &Broker, decided: &Decided) -> Result<(), String> {
        let wrong = |what: String| {
            format!(
                "moved together: transaction {} of {}: {what}",
                decided.txn, decided.producer
            )
        };
        let shape = &subject().topology.shape;
        let changelogs: BTreeSet<&Topic> = shape
            .subs
            .iter()
            .flat_map(|sub| &sub.stores)
            .map(|store| &store.changelog)
            .collect();
        let (logged, found): (Vec<&Record>, Vec<&Record>) = decided
            .records
            .iter()
            .partition(|record| changelogs.contains(&record.at.topic));
        let mut wanted = Vec::new();
        let mut told = 0;
        for (input, to) in &decided.offsets {
            let fold = self
                .tasks
                .get_mut(input)
                .ok_or_else(|| wrong(format!("{input} is no input")))?;
            if *to < fold.next {
                return Err(wrong(format!("{input} goes back from {} to {to}", fold.next)));
            }
            let log = broker.log(input).map_err(|error| error.to_string())?;
            let from = fold.next.0 as usize;
            let all = log.slots[from..].iter().filter(|slot| slot.state == State::Committed);
            let all = all.filter_map(|slot| slot.record.as_ref());
            let waiting = fold.task.inputs.get_mut(input).ok_or("no input")?;
            waiting.clear();
            all.take_while(|record| record.offset < *to)
                .for_each(|record| waiting.push(record.clone()));
            // With the first record beyond, which may have been processed in part.
            let beyond = log.slots[to.0 as usize..]
                .iter()
                .find(|slot| slot.state == State::Committed && slot.record.is_some());
            beyond
                .and_then(|slot| slot.record.clone())
                .into_iter()
                .for_each(|record| waiting.push(record));
            while fold.task.inputs[input]
                .first()
                .is_some_and(|record| record.offset < *to)
            {
                fold.step(&self.app, &mut wanted).map_err(&wrong)?;
            }
            fold.next = *to;
            // A store's part of the transaction; a record that needs several turns may be committed in parts.
            if let Some(store) = shape.subs[fold.sub].stores.first() {
                let changelog = TopicPartition::new(&store.changelog, input.partition);
                let part = logged.iter().filter(|record| record.at == changelog);
                let part: BTreeMap<Vec<u8>, Option<Vec<u8>>> = part
                    .map(|record| (record.key.clone().unwrap_or_default(), record.value.clone()))
                    .collect();
                told += logged.iter().filter(|record| record.at == changelog).count();
                for _ in 0..200 {
                    if fold.has_written(&part).is_ok() || fold.task.inputs[input].is_empty() {
                        break;
                    }
                    if let Outcome::Done = fold.step(&self.app, &mut wanted).map_err(&wrong)? {
                        return Err(wrong(format!(
                            "{changelog} holds what its input {input} up to {to} does not give"
                        )));
                    }
                }
                fold.has_written(&part)
                    .map_err(|what| wrong(format!("{changelog}: {what}")))?;
                fold.last = fold.task.overlay.store(0).clone();
            }
        }
        if told != logged.len() {
            return Err(wrong(
                "it writes to the changelog of a task whose input it does not name".to_owned(),
            ));
        }
        compare(found, wanted).map_err(wrong)
    }

    pub fn all_was_processed(&self, broker: &Broker) -> Result<(), String> {
        for (at, fold) in &self.tasks {
            let log = broker.log(at).map_err(|error| error.to_string())?;
            let slots = log.slots[fold.next.0 as usize..].iter();
            if slots.filter(|slot| slot.state == State::Committed).count() > 0 {
                return Err(format!("moved together: {at} was not processed beyond {}", fold.next));
            }
        }
        Ok(())
    }
}

impl Fold {
    fn step(&mut self, app: &App, wanted: &mut Vec<Outgoing>) -> Result<Outcome, String> {
        let ends = Ends {
            known: &|_| true,
            asked: &|_| true,
        };
        let stepped = self.task.step(Duration::ZERO, Duration::ZERO, &ends, &app.partitions);
        let step = stepped
            .map_err(|fault| fault.to_string())?
            .ok_or("the replay stands still")?;
        wanted.extend(step.outgoing);
        for rejected in &step.rejected {
            wanted.push(app.dead_letter(&DeadLetter {
                stage: &self.task.id.sub,
                rejected,
                record: &step.record,
            }));
        }
        Ok(step.outcome)
    }

    /// Whether a transaction's changelog is what the store has changed by since the last.
    fn has_written(&self, part: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), String> {
        let now = self.task.overlay.store(0);
        let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        if let Some((key, _)) = part.iter().find(|(key, value)| now.get(*key) != Some(*value)) {
            return Err(format!("{} is not what the stage writes", name(key)));
        }
        match now
            .iter()
            .find(|(key, value)| self.last.get(*key) != Some(*value) && !part.contains_key(*key))
        {
            Some((key, _)) => Err(format!("{} is missing", name(key))),
            None => Ok(()),
        }
    }
}

/// The same records, and those of one key in the same order.
fn compare(found: Vec<&Record>, wanted: Vec<Outgoing>) -> Result<(), String> {
    let mut by_key: BTreeMap<Place, (Vec<Output>, Vec<Output>)> = BTreeMap::new();
    for record in found {
        let headers = record
            .headers
            .iter()
            .map(|h| (h.name.to_string(), h.value.clone()))
            .collect();
        let (at, key, value) = (record.at.clone(), record.key.clone(), record.value.clone());
        let place = by_key.entry((at.clone(), key.clone())).or_default();
        place.0.push((at, key, value, record.timestamp.0, headers));
    }
    for out in wanted {
        let headers = out
            .headers
            .iter()
            .map(|h| (h.name.to_string(), h.value.clone()))
            .collect();
        let place = by_key.entry((out.to.clone(), out.key.clone())).or_default();
        place.1.push((out.to, out.key, out.value, out.timestamp.0, headers));
    }
    for ((at, key), (mut found, mut wanted)) in by_key {
        if found != wanted && shared(&at) {
            // Several tasks write this key here, in an order of their own.
            found.sort();
            wanted.sort();
        }
        if found != wanted {
            return Err(format!(
                "{at}, key {}: {} records, the inputs give {}",
                String::from_utf8_lossy(&key.unwrap_or_default()),
                found.len(),
                wanted.len()
            ));
        }
    }
    Ok(())
}

/// Whether a topic is written to by several tasks of one stage, or by several stages, under the same key.
fn shared(at: &TopicPartition) -> bool {
    let out = &subject().config.outputs;
    [out.crm_changes.as_str(), out.dead_letters.as_str()].contains(&at.topic.as_str())
}
