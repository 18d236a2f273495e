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
use super::log::{Consumer, Positions, Producer};
use super::metrics::Metrics;
use super::record::{Offset, Outgoing, TopicPartition};
use super::store::TaskStore;
use super::task::{Task, TaskId};
use super::topology::Shape;

/// Commits everything that `tasks` have done since the last commit, in the transaction that is open on `producer`.
pub fn run(
    shape: &Shape,
    tasks: &mut BTreeMap<TaskId, Task>,
    consumer: &dyn Consumer,
    producer: &mut dyn Producer,
    metrics: &Metrics,
) -> Result<(), Fault> {
    let began = Instant::now();

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
    let offsets: Positions = tasks
        .values()
        .flat_map(|task| &task.inputs)
        .filter_map(|(at, input)| input.processed.map(|next| (at.clone(), next)))
        .collect();
    let membership = consumer.membership()?;
    let ends = producer.commit(&offsets, Some(&membership))?;

    // 5. Each task's overlay and its changelog positions go to its store in one batch.
    for task in tasks.values_mut() {
        for input in task.inputs.values_mut() {
            input.processed = None;
        }
        if task.overlay.is_empty() {
            continue;
        }
        let positions: Vec<Option<Offset>> = changelogs(shape, task)
            .iter()
            .map(|changelog| ends.get(changelog).copied())
            .collect();
        let store: &TaskStore = task
            .store
            .as_ref()
            .ok_or_else(|| Fault::Fatal(format!("task {} staged writes without a store", task.id)))?;
        store
            .apply(&task.overlay, &positions)
            .map_err(|error| Fault::Corrupted {
                task: task.id.clone(),
                message: error.to_string(),
            })?;
        task.overlay.clear();
    }
    for task in tasks.values_mut().filter(|task| task.is_running()) {
        task.committed();
    }
    metrics.commits.inc();
    metrics.commit_latency.observe(began.elapsed().as_secs_f64());
    Ok(())
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
