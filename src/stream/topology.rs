//! The shape of a stream application: sources, processors, stores, sinks.
//!
//! Owns: [`Shape`] with the rules it must keep, and [`Topology`], which adds the processors.
//! Invariant: a built topology names every topic it reads or writes, and a sub-topology with stores has exactly one
//! source, so that a partition of state has one ordered input.
//! Absent: what the processors mean; connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::processor::{Processor, Rejected};
use super::record::{Header, Record, Topic};

/// Makes a processor for each task.
pub type ProcessorFactory = Arc<dyn Fn() -> Box<dyn Processor> + Send + Sync>;

/// A processor with its sources, stores and sinks, by name. Its tasks are numbered by the sources' partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubTopology {
    pub name: String,
    pub sources: Vec<Topic>,
    pub stores: Vec<StoreSpec>,
    pub sinks: Vec<Topic>,
}

/// A key-value store and the compacted topic that is its truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    pub name: String,
    pub changelog: Topic,
}

/// A record that could not be processed, and why.
pub struct DeadLetter<'a> {
    pub stage: &'a str,
    pub rejected: &'a Rejected,
    pub record: &'a Record,
}

/// Turns a dead letter into a record's key, value and headers.
pub type DeadLetterEncoder = Arc<dyn Fn(&DeadLetter<'_>) -> (Option<Vec<u8>>, Vec<u8>, Vec<Header>) + Send + Sync>;

/// What reads and writes what, checked; without the processors themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The consumer group, and the start of transactional ids.
    pub application_id: String,
    pub subs: Vec<SubTopology>,
    /// Where records go that cannot be processed.
    pub dead_letters: Topic,
    /// Where it is recorded what the application looked like (`layout.rs`).
    pub layout: Topic,
    /// Topics written in which others find a record by its key: their partitions cannot become more.
    pub keyed: BTreeSet<Topic>,
    /// Whether it may begin again from its inputs: not where its stores are the memory of effects outside the log.
    pub may_reset: bool,
}

/// A stream application: a shape, and a processor for each of its sub-topologies.
#[derive(Clone)]
pub struct Topology {
    pub shape: Shape,
    /// In the order of the shape's sub-topologies.
    pub processors: Vec<ProcessorFactory>,
    pub dead_letter: DeadLetterEncoder,
}

/// A topology that breaks a rule; a programming error, not a user's.
#[derive(Debug, thiserror::Error)]
#[error("topology: {0}")]
pub struct TopologyError(String);

impl Topology {
    /// # Errors
    /// There is not one processor for each sub-topology.
    pub fn new(
        shape: Shape,
        processors: Vec<ProcessorFactory>,
        dead_letter: DeadLetterEncoder,
    ) -> Result<Topology, TopologyError> {
        if shape.subs.len() != processors.len() {
            return Err(TopologyError(format!(
                "{} sub-topologies, but {} processors",
                shape.subs.len(),
                processors.len()
            )));
        }
        Ok(Topology {
            shape,
            processors,
            dead_letter,
        })
    }
}

impl Shape {
    /// An application that may be reset, without keyed topics.
    ///
    /// # Errors
    /// A rule of this module is broken.
    pub fn new(
        application_id: impl Into<String>,
        subs: Vec<SubTopology>,
        dead_letters: Topic,
    ) -> Result<Shape, TopologyError> {
        let mut read = BTreeSet::new();
        let mut names = BTreeSet::new();
        for sub in &subs {
            if !names.insert(&sub.name) {
                return Err(TopologyError(format!("two sub-topologies are named {}", sub.name)));
            }
            if sub.sources.is_empty() {
                return Err(TopologyError(format!("{} has no source", sub.name)));
            }
            if !sub.stores.is_empty() && sub.sources.len() != 1 {
                return Err(TopologyError(format!(
                    "{} has stores and {} sources; state needs one ordered input",
                    sub.name,
                    sub.sources.len()
                )));
            }
            for source in &sub.sources {
                if !read.insert(source) {
                    return Err(TopologyError(format!("topic {source} is read twice")));
                }
            }
        }
        let application_id = application_id.into();
        Ok(Shape {
            layout: Shape::layout(&application_id),
            application_id,
            subs,
            dead_letters,
            keyed: BTreeSet::new(),
            may_reset: true,
        })
    }

    /// All topics that are read.
    pub fn sources(&self) -> Vec<Topic> {
        self.subs.iter().flat_map(|sub| sub.sources.iter().cloned()).collect()
    }

    /// The compacted topic that is the truth of a store.
    pub fn changelog(application_id: &str, store: &str) -> Topic {
        Topic::new(format!("{application_id}-{store}-changelog"))
    }

    /// Where it is recorded what an installation's applications look like (`layout.rs`). Compacted, one partition.
    pub fn layout(application_id: &str) -> Topic {
        Topic::new(format!("{application_id}.layout"))
    }

    /// Where processes say which tasks they have (`directory.rs`). Compacted, one partition.
    pub fn owners(application_id: &str) -> Topic {
        Topic::new(format!("{application_id}.owners"))
    }

    /// All topics that are written, changelogs included.
    pub fn written(&self) -> BTreeSet<Topic> {
        self.subs
            .iter()
            .flat_map(|sub| {
                let changelogs = sub.stores.iter().map(|store| &store.changelog);
                sub.sinks.iter().chain(changelogs).cloned()
            })
            .chain([self.dead_letters.clone()])
            .collect()
    }

    /// The sub-topologies with stores. Each has one source.
    pub fn stateful(&self) -> impl Iterator<Item = &SubTopology> {
        self.subs.iter().filter(|sub| !sub.stores.is_empty())
    }

    /// The sub-topology that reads a topic.
    pub fn reader_of(&self, topic: &Topic) -> Option<usize> {
        self.subs.iter().position(|sub| sub.sources.contains(topic))
    }

    /// One line per part, for people.
    pub fn describe(&self) -> String {
        let mut text = format!("application {}\n", self.application_id);
        for sub in &self.subs {
            text.push_str(&format!("\nsub-topology {}\n", sub.name));
            for source in &sub.sources {
                text.push_str(&format!("  source     {source}\n"));
            }
            text.push_str(&format!("  processor  {}\n", sub.name));
            for store in &sub.stores {
                text.push_str(&format!(
                    "  store      {}  (changelog {})\n",
                    store.name, store.changelog
                ));
            }
            for sink in &sub.sinks {
                text.push_str(&format!("  sink       {sink}\n"));
            }
        }
        text.push_str(&format!("\ndead letters {}\n", self.dead_letters));
        text
    }

    /// The same as a Mermaid flow chart.
    pub fn mermaid(&self) -> String {
        let id = |name: &str| name.replace(['.', '-'], "_");
        let mut text = String::from("flowchart LR\n");
        for sub in &self.subs {
            text.push_str(&format!("  {}[\"{}\"]\n", id(&sub.name), sub.name));
            for source in &sub.sources {
                text.push_str(&format!(
                    "  t_{}([{source}]) --> {}\n",
                    id(source.as_str()),
                    id(&sub.name)
                ));
            }
            for store in &sub.stores {
                text.push_str(&format!(
                    "  {} <--> s_{}[(\"{}\")]\n",
                    id(&sub.name),
                    id(&store.name),
                    store.name
                ));
            }
            for sink in &sub.sinks {
                text.push_str(&format!("  {} --> t_{}([{sink}])\n", id(&sub.name), id(sink.as_str())));
            }
            text.push_str(&format!(
                "  {} -.-> t_{}([{}])\n",
                id(&sub.name),
                id(self.dead_letters.as_str()),
                self.dead_letters
            ));
        }
        text
    }
}
