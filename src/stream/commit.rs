//! The commit protocol, top to bottom.
//!
//! Owns: the order in which outputs, changelog, input offsets and stores become durable.
//! Invariant: until the transaction commits nothing of it is visible anywhere; after it, the store write can be lost
//! without harm, because a restore repeats it from the changelog.
//!
//! A crash before step 4 undoes everything; between 4 and 5 the restore rolls the store forward from its checkpoint.

use std::collections::BTreeMap;
use std::time::Instant;

use super::fault::Fault;
use super::log::{Consumer, Log, Positions, Producer};
use super::metrics::Metrics;
use super::record::{Offset, Outgoing, Timestamp, TopicPartition};
use super::seeded::{self, Bug};
use super::store::TaskStore;
use super::task::{Task, TaskId};
use super::topology::Shape;

/// Commits everything that `tasks` have done since the last commit, in the transaction that is open on `producer`.
pub fn run(
    shape: &Shape,
    log: &dyn Log,
    tasks: &mut BTreeMap<TaskId, Task>,
    consumer: &dyn Consumer,
    producer: &mut dyn Producer,
    metrics: &Metrics,
    wall: Timestamp,
) -> Result<(), Fault> {
    let began = Instant::now();
    let offsets = offsets(shape, log, tasks)?;
    if seeded::has(Bug::OffsetsBeforeChangelog) {
        producer.commit(&offsets, Some(&consumer.membership()?))?;
        producer.begin()?;
    }

    // 1. The overlays' last values go to the changelogs (outputs were sent as they came).
    for task in tasks.values().filter(|task| !task.overlay.is_empty()) {
        for (index, changelog) in changelogs(shape, task).into_iter().enumerate() {
            for (key, value) in task.overlay.store(index) {
                producer.send(Outgoing {
                    to: changelog.clone(),
                    timestamp: task.newest_timestamp(),
                    key: Some(key.clone()),
                    value: value.clone(),
                    headers: Vec::new(),
                })?;
            }
        }
    }

    // 2 to 4. Every delivery is confirmed, the input offsets join the transaction, the transaction commits.
    if seeded::has(Bug::StoreBeforeCommit) {
        tasks
            .values()
            .try_for_each(|task| write(shape, task, &Positions::new(), wall))?;
    }
    let membership = consumer.membership()?;
    let ends = producer.commit(&offsets, Some(&membership))?;

    // 5. Each task's overlay and its changelog positions go to its store in one batch.
    for task in tasks.values_mut() {
        write(shape, task, &ends, wall)?;
    }
    for task in tasks.values_mut().filter(|task| task.is_staged()) {
        task.committed();
    }
    metrics.commits.inc();
    metrics.commit_latency.observe(began.elapsed().as_secs_f64());
    Ok(())
}

/// Where the inputs go on of every task that has staged anything, moved or not: with them the group's coordinator sees
/// the generation, and refuses a member whose partitions have gone to another (a transaction without offsets is
/// committed unseen).
fn offsets(shape: &Shape, log: &dyn Log, tasks: &mut BTreeMap<TaskId, Task>) -> Result<Positions, Fault> {
    let mut offsets = Positions::new();
    for task in tasks.values_mut().filter(|task| task.is_staged()) {
        if task.inputs.values().all(|input| input.next.is_none()) {
            // It staged between records, before its first one.
            let inputs: Vec<TopicPartition> = task.inputs.keys().cloned().collect();
            let committed = log.committed(&shape.application_id, &inputs)?;
            for (at, input) in &mut task.inputs {
                let known = committed.get(at).copied();
                input.next = Some(known.map_or_else(|| log.start(at), Ok)?);
            }
        }
        let known = task
            .inputs
            .iter()
            .filter_map(|(at, input)| Some((at.clone(), input.next?)));
        offsets.extend(known);
    }
    if seeded::has(Bug::GenerationNotShown) {
        let inputs: Vec<TopicPartition> = offsets.keys().cloned().collect();
        let committed = log.committed(&shape.application_id, &inputs)?;
        offsets.retain(|at, next| committed.get(at) != Some(next));
    }
    Ok(offsets)
}

/// Writes a task's overlay and the positions after its changelog records to its store.
fn write(shape: &Shape, task: &Task, ends: &Positions, wall: Timestamp) -> Result<(), Fault> {
    if task.overlay.is_empty() {
        return Ok(());
    }
    let positions: Vec<Option<Offset>> = changelogs(shape, task)
        .iter()
        .map(|changelog| ends.get(changelog).copied())
        .collect();
    let store: &TaskStore = task
        .store
        .as_deref()
        .ok_or_else(|| Fault::Fatal(format!("task {} staged writes without a store", task.id)))?;
    // Nobody else writes to the changelog of a task while it commits.
    store
        .apply(&task.overlay, &positions)
        .and_then(|()| store.note_current(wall))
        .map_err(|error| Fault::of_store(&task.id, &error))
}

/// The changelog partition of each store of a task.
fn changelogs(shape: &Shape, task: &Task) -> Vec<TopicPartition> {
    shape
        .subs
        .iter()
        .find(|sub| sub.name == task.id.sub)
        .map(|sub| {
            sub.stores
                .iter()
                .map(|store| TopicPartition::new(&store.changelog, task.id.partition))
                .collect()
        })
        .unwrap_or_default()
}
