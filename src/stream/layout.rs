//! What an application looked like when it last ran, and what of that it has to keep.
//!
//! Owns: the topic `<installation>.layout` (key: the application, value: [`Recorded`] as lines of text), and the comparison
//! at each start, before anything is read.
//! Invariant: stages with stores, their sources, and the partitions that keys hash to are what they were, or the
//! application does not start: whatever would orphan a store, or part a key from its state, is refused with the way out.
//! What is new is taken and recorded; an application that is new as a whole finds no outputs of another. It is in the log,
//! since the next process may have another disk.
//! Absent: beginning again (`reset.rs`). Sources of stages without stores may change and grow: their records have no state
//! to find, and the group deals out new partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::fault::Fault;
use super::log::{Log, LogError, Positions, read_to_end};
use super::record::{Outgoing, Partition, Timestamp, Topic, TopicPartition};
use super::topics::{counts, fit, inputs};
use super::topology::Shape;

/// Pause after a failed call to the log.
const BACKOFF: Duration = Duration::from_millis(500);

/// The part of a shape that has to stay, with what the log says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By name; those with stores.
    pub stages: BTreeMap<String, Stage>,
    /// Partitions of each topic in which a record is found by its key.
    pub partitions: BTreeMap<Topic, u32>,
}

/// A stage with stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub source: Topic,
    /// Changelogs by the names of their stores.
    pub stores: BTreeMap<String, Topic>,
}

/// What is recorded of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub layout: Layout,
    /// How often it was reset. A state folder of fewer resets is not used.
    pub resets: u64,
    /// Whether a reset was begun that has not ended.
    pub resetting: bool,
}

impl Layout {
    pub fn of(shape: &Shape, counts: &BTreeMap<Topic, u32>) -> Layout {
        let stages = shape.stateful().map(|sub| {
            let stores = sub.stores.iter().map(|it| (it.name.clone(), it.changelog.clone()));
            let stage = Stage {
                source: sub.sources[0].clone(),
                stores: stores.collect(),
            };
            (sub.name.clone(), stage)
        });
        let stages: BTreeMap<String, Stage> = stages.collect();
        let pinned = stages.values().map(|stage| &stage.source).chain(&shape.keyed);
        Layout {
            partitions: pinned
                .filter_map(|topic| Some((topic.clone(), *counts.get(topic)?)))
                .collect(),
            stages,
        }
    }

    /// The topics that cannot be what they are now, each with the reason and the way out.
    pub fn grown(&self, now: &Layout, may_reset: bool) -> Vec<String> {
        let mut refusals = Vec::new();
        for (topic, was) in &self.partitions {
            let Some(is) = now.partitions.get(topic).filter(|is| *is != was) else {
                continue;
            };
            let reader = now.stages.iter().find(|(_, stage)| stage.source == *topic);
            refusals.push(match reader {
                Some((stage, _)) if may_reset => format!(
                    "topic {topic}, which stage {stage} reads, had {was} partitions and has {is} now: keys are in other partitions than their state, and new ones lack what was sent to every partition. Kafka takes no partition away: in the topology file name new topics in place of {topic} and of the others between stages, all with as many partitions, run `accrue apply`, then `accrue reset`"
                ),
                Some((stage, _)) => format!(
                    "topic {topic}, which stage {stage} reads, had {was} partitions and has {is} now: keys are in other partitions than the memory of what was delivered, which would be delivered again. Delete {topic}, let `accrue apply` make it again with runtime.partitions = {was}, and read its inputs again with `accrue offsets rewind`: what was delivered is recognised"
                ),
                None => format!(
                    "topic {topic} had {was} partitions and has {is} now: the records of one key would be in two of them. Kafka takes no partition away: in the topology file name a new topic in place of {topic}, run `accrue apply`, then `accrue reset`, which fills it from the start"
                ),
            });
        }
        refusals
    }

    /// The stages and stores that would be orphaned, each with the reason and the way out.
    pub fn orphans(&self, now: &Layout, may_reset: bool) -> Vec<String> {
        let way_out = match may_reset {
            true => ", or begin again from what the stages read: `accrue reset` says first what it does",
            false => "; what it remembers was delivered, so nothing else can stand for it",
        };
        let mut refusals = Vec::new();
        for (name, was) in &self.stages {
            let Some(is) = now.stages.get(name) else {
                let stages: Vec<&str> = now.stages.keys().map(String::as_str).collect();
                refusals.push(format!(
                    "stage {name} had {}; there is no such stage now, but {}: what it knew would be lost. Run the version of the program that has it{way_out}",
                    stores(was.stores.iter()),
                    stages.join(", ")
                ));
                continue;
            };
            let lost: Vec<_> = was
                .stores
                .iter()
                .filter(|(it, log)| is.stores.get(*it) != Some(*log))
                .collect();
            if !lost.is_empty() {
                refusals.push(format!(
                    "stage {name} had {}, and has {} now: what it knew would be lost. Run the version of the program that has it{way_out}",
                    stores(lost.into_iter()),
                    stores(is.stores.iter())
                ));
            }
            if is.source != was.source {
                refusals.push(format!(
                    "stage {name} read {}, and reads {} now: its state stands for another topic. Name {} again in the topology file{way_out}",
                    was.source, is.source, was.source
                ));
            }
        }
        refusals
    }
}

fn stores<'a>(stores: impl Iterator<Item = (&'a String, &'a Topic)>) -> String {
    let named: Vec<String> = stores
        .map(|(store, changelog)| format!("the store {store} (changelog {changelog})"))
        .collect();
    named.join(" and ")
}

impl Recorded {
    /// What is recorded of the application; `None` when it has never run.
    ///
    /// # Errors
    /// The topic is missing, a newer version wrote what it holds, or the log.
    pub fn read(shape: &Shape, log: &dyn Log) -> Result<Option<Recorded>, Fault> {
        let Some(text) = Recorded::texts(&shape.layout, log)?.remove(&shape.application_id) else {
            return Ok(None);
        };
        Recorded::parse(&text).map(Some).ok_or_else(|| {
            Fault::Fatal(format!(
                "what topic {} says of {} cannot be read: a newer version of the program wrote it. Run that one",
                shape.layout, shape.application_id
            ))
        })
    }

    /// The ids of all applications that ever ran in an installation.
    ///
    /// # Errors
    /// The topic is missing, or the log.
    pub fn applications(layout: &Topic, log: &dyn Log) -> Result<BTreeSet<String>, Fault> {
        Ok(Recorded::texts(layout, log)?.into_keys().collect())
    }

    fn texts(layout: &Topic, log: &dyn Log) -> Result<BTreeMap<String, String>, Fault> {
        let at = TopicPartition::new(layout, Partition(0));
        if log.partitions(layout)?.is_none() {
            return Err(Fault::Fatal(format!(
                "topic {layout} is missing. Run `accrue apply` to create it"
            )));
        }
        let mut texts = BTreeMap::new();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        read_to_end(log, &at, log.start(&at)?, |record| {
            match (record.key, record.value) {
                (Some(key), Some(value)) => texts.insert(text(key), text(value)),
                (Some(key), None) => texts.remove(&text(key)),
                (None, _) => None,
            };
            Ok::<(), LogError>(())
        })?;
        Ok(texts)
    }

    /// Records what `decide` makes of what is recorded, if it makes anything of it; nobody else records meanwhile.
    pub fn update<T>(
        shape: &Shape,
        log: &dyn Log,
        decide: impl FnOnce(Option<Recorded>) -> Result<(Recorded, T), Fault>,
    ) -> Result<T, Fault> {
        // An older one is fenced, and what it left open is ended; so what is read next is all there is.
        let mut producer = log.producer(&format!("{}.layout", shape.application_id))?;
        let (recorded, answer) = decide(Recorded::read(shape, log)?)?;
        producer.begin()?;
        producer.send(Outgoing {
            to: TopicPartition::new(&shape.layout, Partition(0)),
            timestamp: Timestamp(0),
            key: Some(shape.application_id.clone().into_bytes()),
            value: Some(recorded.text().into_bytes()),
            headers: Vec::new(),
        })?;
        producer.commit(&Positions::new(), None)?;
        Ok(answer)
    }

    fn text(&self) -> String {
        let mut text = format!("layout 1\nresets {}\n", self.resets);
        if self.resetting {
            text.push_str("resetting\n");
        }
        for (name, stage) in &self.layout.stages {
            let _ = writeln!(text, "stage {name} {}", stage.source);
            for (store, changelog) in &stage.stores {
                let _ = writeln!(text, "store {name} {store} {changelog}");
            }
        }
        for (topic, count) in &self.layout.partitions {
            let _ = writeln!(text, "partitions {topic} {count}");
        }
        text
    }

    fn parse(text: &str) -> Option<Recorded> {
        let mut lines = text.lines();
        if lines.next()? != "layout 1" {
            return None;
        }
        let mut recorded = Recorded::default();
        let Layout { stages, partitions } = &mut recorded.layout;
        for line in lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["resets", count] => recorded.resets = count.parse().ok()?,
                ["resetting"] => recorded.resetting = true,
                ["stage", name, source] => {
                    let stage = Stage {
                        source: Topic::new(source),
                        stores: BTreeMap::new(),
                    };
                    stages.insert(name.to_owned(), stage);
                }
                ["store", stage, store, changelog] => {
                    let stores = &mut stages.get_mut(stage)?.stores;
                    stores.insert(store.to_owned(), Topic::new(changelog));
                }
                ["partitions", topic, count] => {
                    partitions.insert(Topic::new(topic), count.parse().ok()?);
                }
                _ => return None,
            }
        }
        Some(recorded)
    }
}

/// Compares the application with what is recorded of it, and records what is new. Waits while the log is away. Says how
/// often it was reset.
///
/// # Errors
/// It would orphan a store, or part keys from their state; a reset has not ended; topics are missing or do not fit.
pub fn admit(shape: &Shape, log: &dyn Log) -> Result<u64, Fault> {
    loop {
        match try_admit(shape, log) {
            Err(Fault::Retry(why) | Fault::Abort(why) | Fault::Fenced(why)) => {
                tracing::warn!(why, "the layout is compared again");
                std::thread::sleep(BACKOFF);
            }
            done => return done,
        }
    }
}

fn try_admit(shape: &Shape, log: &dyn Log) -> Result<u64, Fault> {
    let counts = counts(shape, log)?;
    let (recorded, known) = look(shape, &counts, log)?;
    if recorded.as_ref() == Some(&known) {
        return Ok(known.resets);
    }
    tracing::info!(topic = %shape.layout, "what the application looks like now is recorded");
    Recorded::update(shape, log, |recorded| {
        let known = judge(shape, &counts, recorded)?;
        let resets = known.resets;
        Ok((known, resets))
    })
}

/// Whether the application would be admitted; nothing is recorded.
///
/// # Errors
/// Those of [`admit`]; the log is away.
pub fn compare(shape: &Shape, log: &dyn Log) -> Result<(), Fault> {
    look(shape, &counts(shape, log)?, log).map(|_| ())
}

/// What is recorded of the application, and what is to be.
fn look(shape: &Shape, counts: &BTreeMap<Topic, u32>, log: &dyn Log) -> Result<(Option<Recorded>, Recorded), Fault> {
    let recorded = Recorded::read(shape, log)?;
    if recorded.is_none() {
        finds_nothing(shape, log)?;
    }
    let known = judge(shape, counts, recorded.clone())?;
    Ok((recorded, known))
}

/// An application that has never run finds nothing where it writes: what another id has written, under which all state is
/// kept, is not written once more unasked.
fn finds_nothing(shape: &Shape, log: &dyn Log) -> Result<(), Fault> {
    let mut found = Vec::new();
    for topic in &shape.keyed {
        for at in log.partitions_of(topic)? {
            if log.start(&at)? < log.end(&at)? {
                found.push(topic.as_str());
                break;
            }
        }
    }
    // Versions that recorded no layout have left offsets.
    if found.is_empty() || !log.committed(&shape.application_id, &inputs(shape, log)?)?.is_empty() {
        return Ok(());
    }
    Err(Fault::Fatal(format!(
        "application {} has never run, but {} {} records of one that has: everything would be written there once more. If application_id was changed, give it its old value back: state, changelogs and offsets are kept under it. If this is a new application, name topics of its own with outputs.prefix. If all is to be written again under the new id, run `accrue reset`, which says first what it does",
        shape.application_id,
        found.join(", "),
        if found.len() == 1 { "has" } else { "have" }
    )))
}

/// What is to be recorded of an application with these topics.
fn judge(shape: &Shape, counts: &BTreeMap<Topic, u32>, recorded: Option<Recorded>) -> Result<Recorded, Fault> {
    let (here, mut known) = (Layout::of(shape, counts), recorded.unwrap_or_default());
    if known.resetting {
        return Err(unfinished(shape));
    }
    let mut refusals = known.layout.orphans(&here, shape.may_reset);
    refusals.extend(known.layout.grown(&here, shape.may_reset));
    if !refusals.is_empty() {
        return Err(Fault::Fatal(refusals.join("\n")));
    }
    fit(shape, counts)?;
    known.layout = here;
    Ok(known)
}

/// How often the application was reset.
///
/// # Errors
/// The log is away.
pub fn resets(shape: &Shape, log: &dyn Log) -> Result<u64, Fault> {
    Ok(Recorded::read(shape, log)?.map_or(0, |recorded| recorded.resets))
}

/// Whether the application may go on, asked by whoever has just become a member of its group: a reset looks for members
/// after it has recorded that it began, so one of both sees the other.
pub fn confirm(shape: &Shape, log: &dyn Log, resets: u64) -> Result<(), Fault> {
    match Recorded::read(shape, log)? {
        Some(recorded) if recorded.resetting => Err(unfinished(shape)),
        Some(recorded) if recorded.resets != resets => Err(Fault::Fatal(format!(
            "{} was reset while this process started or was away: start it again",
            shape.application_id
        ))),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn unfinished(shape: &Shape) -> Fault {
    Fault::Fatal(format!(
        "a reset of {} was begun and has not ended: run `accrue reset` again, which finishes it",
        shape.application_id
    ))
}
