//! What an application has to stay between two starts, and how it begins again: on the embedded log, with a word count whose
//! outputs are easy to foretell, and with the quick start's books.

mod doubled_log;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use accrue::codec::registry::Embedded;
use accrue::config;
use accrue::pipeline;
use accrue::sink::application;
use accrue::stream::app::{self, Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::layout::{self, Recorded};
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Cleanup, Consumer, GroupSpec, Log, LogError, Membership, Positions, Producer, TopicSpec};
use accrue::stream::metrics::Metrics;
use accrue::stream::partitioner::partition_for;
use accrue::stream::processor::{Context, Emission, Failure, Processor, Progress, Route};
use accrue::stream::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use accrue::stream::reset::Reset;
use accrue::stream::rewind::{self, Target};
use accrue::stream::topology::{Shape, StoreSpec, SubTopology, Topology};
use doubled_log::left_to_inner;

const PARTITIONS: u32 = 3;
/// What the log says to a call of a process that was killed.
const GONE: &str = "the process is gone";

/// Sends each line on, as a word.
struct Split(Topic);

impl Processor for Split {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        cx.emit(Emission {
            topic: self.0.clone(),
            route: Route::ByKey,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: Vec::new(),
        })?;
        Ok(Progress::Done)
    }
}

/// Counts each word.
struct Count {
    store: String,
    out: Topic,
}

impl Processor for Count {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let word = record.key.clone().unwrap_or_default();
        let old = cx.get(&self.store, &word)?;
        let count = old.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes"))) + 1;
        cx.put(&self.store, word.clone(), count.to_be_bytes().to_vec())?;
        cx.emit(Emission {
            topic: self.out.clone(),
            route: Route::ByKey,
            timestamp: record.timestamp,
            key: Some(word),
            value: Some(count.to_string().into_bytes()),
            headers: Vec::new(),
        })?;
        Ok(Progress::Done)
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name)
}

/// lines --> split --> words --> count --> counted
fn base() -> Shape {
    let subs = vec![
        SubTopology {
            name: "split".into(),
            sources: vec![topic("lines")],
            stores: Vec::new(),
            sinks: vec![topic("words")],
        },
        counting("count", "counts", "words", "counted"),
    ];
    Shape {
        keyed: [topic("counted")].into(),
        ..Shape::new("app", subs, topic("dead")).expect("shape")
    }
}

fn counting(name: &str, store: &str, source: &str, sink: &str) -> SubTopology {
    SubTopology {
        name: name.into(),
        sources: vec![topic(source)],
        stores: vec![StoreSpec {
            name: store.into(),
            changelog: Shape::changelog("app", store),
        }],
        sinks: vec![topic(sink)],
    }
}

/// The base with a change.
fn changed(change: impl FnOnce(&mut Shape)) -> Shape {
    let mut shape = base();
    change(&mut shape);
    shape
}

fn topology(shape: &Shape) -> Topology {
    let processors = shape.subs.iter().map(|sub| {
        let (stores, sink) = (sub.stores.clone(), sub.sinks[0].clone());
        let make: accrue::stream::topology::ProcessorFactory = Arc::new(move || match stores.first() {
            None => Box::new(Split(sink.clone())),
            Some(store) => Box::new(Count {
                store: store.name.clone(),
                out: sink.clone(),
            }),
        });
        make
    });
    let letter: accrue::stream::topology::DeadLetterEncoder =
        Arc::new(|letter| (letter.record.key.clone(), Vec::new(), Vec::new()));
    Topology::new(shape.clone(), processors.collect(), letter).expect("topology")
}

struct World {
    dir: tempfile::TempDir,
    log: Arc<EmbeddedLog>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("folder");
        let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), false).expect("log"));
        let world = World { dir, log };
        world.make("lines", 1, Cleanup::Delete { retention: None });
        for name in ["words", "counted", "dead"] {
            world.make(name, PARTITIONS, Cleanup::Delete { retention: None });
        }
        world.make("app-counts-changelog", PARTITIONS, Cleanup::Compact);
        world.make("app.layout", 1, Cleanup::Compact);
        world
    }

    /// One that has run, with some words.
    fn that_ran() -> World {
        let world = World::new();
        world.say("lines", &["a", "b", "a", "c", "a"]);
        world.drain(&base());
        assert_eq!(world.counted(), counts(&[("a", 3), ("b", 1), ("c", 1)], 1));
        world
    }

    fn make(&self, name: &str, partitions: u32, cleanup: Cleanup) {
        let spec = TopicSpec {
            topic: topic(name),
            partitions,
            replication_factor: 1,
            cleanup,
        };
        self.log.create_topics(&[spec]).expect("topic");
    }

    fn grow(&self, name: &str) {
        self.log.grow(&topic(name), 2 * PARTITIONS).expect("grow");
    }

    fn say(&self, name: &str, words: &[&str]) {
        let count = self.log.partitions(&topic(name)).expect("count").expect("topic");
        let mut producer = self.log.producer("sayer").expect("producer");
        producer.begin().expect("begin");
        for word in words {
            let to = TopicPartition::new(&topic(name), partition_for(word.as_bytes(), count));
            let (key, value) = (Some(word.as_bytes().to_vec()), Some(word.as_bytes().to_vec()));
            let record = Outgoing {
                to,
                timestamp: Timestamp(1_000),
                key,
                value,
                headers: Vec::new(),
            };
            producer.send(record).expect("send");
        }
        producer.commit(&Positions::new(), None).expect("commit");
    }

    fn start_on(&self, log: Arc<dyn Log>, shape: &Shape) -> Result<Runtime, String> {
        let config = RuntimeConfig {
            threads: 1,
            state_dir: self.dir.path().join("state"),
            memory: Budget::of(16 << 20),
            commit_interval: Duration::from_millis(5),
            max_records_per_commit: 20,
            overlay_max_bytes: 1 << 20,
            ask_ends_after: Duration::from_millis(20),
            restore_threads: 1,
            instance: None,
            standbys: false,
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        Runtime::start(topology(shape), log, config, metrics).map_err(|fault| fault.to_string())
    }

    fn start(&self, shape: &Shape) -> Result<Runtime, String> {
        self.start_on(self.log.clone(), shape)
    }

    /// Runs until nothing is left, then stops.
    fn drain(&self, shape: &Shape) {
        let runtime = self.start(shape).expect("start");
        self.wait(&runtime, shape);
        runtime.stop();
        runtime.join().expect("clean end");
    }

    fn wait(&self, runtime: &Runtime, shape: &Shape) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while app::lag(shape, self.log.as_ref()).expect("lag") > 0 {
            assert!(!runtime.is_finished(), "ended: {:?}", runtime.join());
            assert!(Instant::now() < deadline, "not drained");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn refused(&self, shape: &Shape) -> String {
        match self.start(shape) {
            Ok(runtime) => {
                runtime.stop();
                panic!("it started")
            }
            Err(text) => text,
        }
    }

    /// The counts of each word, in the order in which they were written.
    fn counted(&self) -> BTreeMap<String, Vec<u64>> {
        let mut counted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for n in 0..self.log.partitions(&topic("counted")).expect("count").expect("topic") {
            let at = TopicPartition::new(&topic("counted"), Partition(n));
            let mut reader = self.log.reader(&at, Offset(0)).expect("reader");
            for record in reader.read(Duration::ZERO).expect("read") {
                let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("bytes")).expect("text");
                let count = text(record.value).parse().expect("a number");
                counted.entry(text(record.key)).or_default().push(count);
            }
        }
        counted
    }

    fn recorded(&self) -> Recorded {
        Recorded::read(&base(), self.log.as_ref())
            .expect("read")
            .expect("recorded")
    }

    fn reset(&self, shape: &Shape) -> Result<u64, String> {
        reset(self.log.as_ref(), shape)
    }
}

fn reset(log: &dyn Log, shape: &Shape) -> Result<u64, String> {
    let reset = Reset::plan(shape, log, false).map_err(|fault| fault.to_string())?;
    reset.run().map_err(|fault| fault.to_string())
}

/// Each word counted from one to its number, `times` times over.
fn counts(words: &[(&str, u64)], times: usize) -> BTreeMap<String, Vec<u64>> {
    words
        .iter()
        .map(|(word, count)| {
            let once: Vec<u64> = (1..=*count).collect();
            ((*word).to_owned(), once.repeat(times))
        })
        .collect()
}

#[test]
fn what_would_orphan_a_store_is_refused_with_the_way_out() {
    let world = World::that_ran();
    for name in ["others", "app-others-changelog"] {
        world.make(name, PARTITIONS, Cleanup::Compact);
    }
    let way_out = ", or begin again from what the stages read: `accrue reset` says first what it does";
    let before = "had the store counts (changelog app-counts-changelog)";
    let store = changed(|shape| shape.subs[1] = counting("count", "others", "words", "counted"));
    assert_eq!(
        world.refused(&store),
        format!(
            "stage count {before}, and has the store others (changelog app-others-changelog) now: what it knew would be lost. Run the version of the program that has it{way_out}"
        )
    );
    let stage = changed(|shape| shape.subs[1].name = "tally".into());
    let gone = |now: &str| {
        format!(
            "stage count {before}; there is no such stage now, but {now}: what it knew would be lost. Run the version of the program that has it{way_out}"
        )
    };
    assert_eq!(world.refused(&stage), gone("tally"));
    let source = changed(|shape| {
        shape.subs[0].sinks = vec![topic("others")];
        shape.subs[1].sources = vec![topic("others")];
    });
    assert_eq!(
        world.refused(&source),
        format!(
            "stage count read words, and reads others now: its state stands for another topic. Name words again in the topology file{way_out}"
        )
    );
    // Where a reset would do things again, there is none to offer.
    let outward = changed(|shape| {
        shape.may_reset = false;
        shape.subs[1].name = "tally".into();
    });
    let text = world.refused(&outward);
    assert!(
        text.ends_with("; what it remembers was delivered, so nothing else can stand for it"),
        "{text}"
    );
    // Nothing of all this was recorded.
    world.say("lines", &["a"]);
    world.drain(&base());
    assert_eq!(world.counted(), counts(&[("a", 4), ("b", 1), ("c", 1)], 1));
}

#[test]
fn keyed_topics_that_grew_are_refused_with_the_way_out() {
    // One alone, all together, and an output.
    let source = "topic words, which stage count reads, had 3 partitions and has 6 now: keys are in other partitions than their state, and new ones lack what was sent to every partition. Kafka takes no partition away: in the topology file name new topics in place of words and of the others between stages, all with as many partitions, run `accrue apply`, then `accrue reset`";
    let output = "topic counted had 3 partitions and has 6 now: the records of one key would be in two of them. Kafka takes no partition away: in the topology file name a new topic in place of counted, run `accrue apply`, then `accrue reset`, which fills it from the start";
    let both = format!("{output}\n{source}");
    for (grown, wanted) in [
        (&["words"][..], source),
        (&["words", "app-counts-changelog", "counted", "dead"], &both),
        (&["counted"], output),
    ] {
        let world = World::that_ran();
        grown.iter().for_each(|name| world.grow(name));
        assert_eq!(world.refused(&base()), wanted);
        assert_eq!(world.reset(&base()).expect_err("no reset mends it"), wanted);
        assert!(!world.recorded().resetting);
    }
    let world = World::that_ran();
    world.grow("words");
    let outward = changed(|shape| shape.may_reset = false);
    assert!(
        world.refused(&outward).ends_with(
            "Delete words, let `accrue apply` make it again with runtime.partitions = 3, and read its inputs again with `accrue offsets rewind`: what was delivered is recognised"
        )
    );
}

#[test]
fn a_keyed_topic_that_grows_under_a_process_ends_it() {
    let world = World::that_ran();
    let runtime = world.start(&base()).expect("start");
    world.grow("words");
    let fault = runtime.join().expect_err("it ends").to_string();
    assert!(
        fault.starts_with("topic words, which stage count reads, had 3 partitions and has 6 now"),
        "{fault}"
    );
    assert_eq!(world.counted(), counts(&[("a", 3), ("b", 1), ("c", 1)], 1));
}

#[test]
fn topics_that_never_fitted_are_refused_before_anything_is_recorded() {
    let world = World::new();
    world.grow("app-counts-changelog");
    let text = world.refused(&base());
    assert!(
        text.starts_with("words has 3 partitions, but the changelog app-counts-changelog has 6"),
        "{text}"
    );
    assert_eq!(Recorded::read(&base(), world.log.as_ref()).expect("read"), None);

    // What one stage sends to every partition of its own number, the next one has to have as many of.
    world.make("again", 2 * PARTITIONS, Cleanup::Delete { retention: None });
    world.make("app-further-changelog", 2 * PARTITIONS, Cleanup::Compact);
    let chain = changed(|shape| {
        shape.subs[1].sinks.push(topic("again"));
        shape.subs.push(counting("further", "further", "again", "counted"));
    });
    assert_eq!(
        world.refused(&chain),
        "stage count reads words with 3 partitions and writes again with 6: what is sent to every partition of the one would be missing in partitions of the other. Give both as many: in the topology file name a new topic in place of one, and run `accrue apply`"
    );

    let other = Shape {
        layout: topic("nowhere"),
        ..base()
    };
    assert_eq!(
        world.refused(&other),
        "topic nowhere is missing. Run `accrue apply` to create it"
    );
}

#[test]
fn new_stages_and_stores_are_taken_and_recorded() {
    let world = World::that_ran();
    for name in ["app-more-changelog", "app-further-changelog"] {
        world.make(name, PARTITIONS, Cleanup::Compact);
    }
    let more = changed(|shape| {
        shape.subs[1].stores.push(StoreSpec {
            name: "more".into(),
            changelog: topic("app-more-changelog"),
        });
        shape.subs.push(counting("further", "further", "counted", "dead"));
    });
    world.say("lines", &["a"]);
    world.drain(&more);
    assert_eq!(world.counted(), counts(&[("a", 4), ("b", 1), ("c", 1)], 1));
    let recorded = world.recorded();
    assert_eq!(
        recorded.layout.stages["count"].stores.keys().collect::<Vec<_>>(),
        ["counts", "more"]
    );
    // And so the version before cannot come back and forget them.
    let text = world.refused(&base());
    assert!(
        text.contains("stage count had the store more") && text.contains("stage further had"),
        "{text}"
    );
}

#[test]
fn the_input_of_a_stage_without_stores_may_grow_while_it_runs() {
    let world = World::that_ran();
    let runtime = world.start(&base()).expect("start");
    world.say("lines", &["a"]);
    world.wait(&runtime, &base());
    world.log.grow(&topic("lines"), 4).expect("grow");
    let words = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let homes: std::collections::BTreeSet<u32> = words.iter().map(|w| partition_for(w.as_bytes(), 4).0).collect();
    assert_eq!(homes.len(), 4, "every partition gets some");
    world.say("lines", &words);
    world.wait(&runtime, &base());
    runtime.stop();
    runtime.join().expect("clean end");
    let ones = ["d", "e", "f", "g", "h"].map(|word| (word, 1));
    let wanted = [&[("a", 5), ("b", 2), ("c", 2)][..], &ones].concat();
    assert_eq!(world.counted(), counts(&wanted, 1));
}

#[test]
fn a_reset_writes_the_same_again_and_goes_on_from_there() {
    let world = World::that_ran();
    let old = world.dir.path().join("state/count_0/of-before");
    std::fs::write(&old, "").expect("marker");
    assert_eq!(world.reset(&base()).expect("reset"), 3, "three words");
    assert_eq!((world.recorded().resets, world.recorded().resetting), (1, false));
    world.drain(&base());
    assert!(!old.exists(), "a state folder of before is not used");
    assert_eq!(world.counted(), counts(&[("a", 3), ("b", 1), ("c", 1)], 2));
    world.say("lines", &["b"]);
    world.drain(&base());
    assert_eq!(world.counted()["b"], [1, 1, 2]);
    // Once more, and with the state lost at once.
    world.reset(&base()).expect("reset");
    std::fs::remove_dir_all(world.dir.path().join("state")).expect("wipe");
    world.drain(&base());
    assert_eq!(world.counted()["b"], [1, 1, 2, 1, 2]);
}

#[test]
fn a_reset_takes_a_renamed_store_and_a_new_topic_with_more_partitions() {
    let world = World::that_ran();
    // Six partitions, in new topics; the changelog of the new store is as small as the old one.
    world.make("words.6", 2 * PARTITIONS, Cleanup::Delete { retention: None });
    world.make("app-others-changelog", PARTITIONS, Cleanup::Compact);
    let moved = changed(|shape| {
        shape.subs[0].sinks = vec![topic("words.6")];
        shape.subs[1] = counting("count", "others", "words.6", "counted");
    });
    assert!(world.refused(&moved).contains("reads words.6 now"));
    let plan = Reset::plan(&moved, world.log.as_ref(), false).expect("plan");
    assert_eq!(plan.going_on, Vec::<String>::new(), "split has to fill words.6");
    let emptied = [("app-counts-changelog", 3), ("app-others-changelog", 6)];
    assert_eq!(plan.emptied, emptied.map(|(name, count)| (topic(name), count)).into());
    assert_eq!(plan.run().expect("reset"), 3);
    world.drain(&moved);
    assert_eq!(world.counted(), counts(&[("a", 3), ("b", 1), ("c", 1)], 2));
    // From here on the old shape is the stranger.
    assert!(
        world
            .refused(&base())
            .contains("stage count read words.6, and reads words now")
    );
}

#[test]
fn a_reset_is_refused_while_it_would_not_be_whole() {
    let world = World::that_ran();
    let runtime = world.start(&base()).expect("start");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !runtime.is_ready() {
        assert!(Instant::now() < deadline, "not ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    let members = "group app has live members (1): stop the processes first. One with a static name (kafka.instance_id) counts until its session_timeout has passed after its end";
    assert_eq!(world.reset(&base()).expect_err("it runs"), members);
    let back = rewind::plan(&base(), world.log.as_ref(), &topic("lines"), None, Target::Start);
    assert_eq!(back.expect_err("it runs").to_string(), members);
    runtime.stop();
    runtime.join().expect("clean end");

    let outward = changed(|shape| shape.may_reset = false);
    assert_eq!(
        world.reset(&outward).expect_err("outward"),
        "app cannot be reset: its stores are the memory of what was done outside the log, which would be done again"
    );

    // Retention took what was read first.
    let world = World::new();
    let hour = Cleanup::Delete {
        retention: Some(Duration::from_secs(3_600)),
    };
    world.make("short", PARTITIONS, hour);
    let short = changed(|shape| {
        shape.subs[0].sinks = vec![topic("short")];
        shape.subs[1].sources = vec![topic("short")];
    });
    world.say("lines", &["a"]);
    world.drain(&short);
    world.log.upkeep().expect("upkeep");
    let home = partition_for(b"a", PARTITIONS);
    assert_eq!(
        world.reset(&short).expect_err("gone"),
        format!(
            "what was read first is not kept any more: short-{home} begins at offset 1. What it said would be missing from the state. Bring it back into new topics named in the topology file, or, where that is meant, reset with --as-far-as-kept"
        )
    );
    let told = Reset::plan(&short, world.log.as_ref(), true).expect("told");
    told.run().expect("reset");
    world.say("lines", &["a"]);
    world.drain(&short);
    assert_eq!(world.counted()["a"], [1, 1], "what is gone is not counted");
}

/// A log on which the process dies at its nth change, before or after it happens; and whose members can be made up.
struct Mortal {
    inner: Arc<EmbeddedLog>,
    left: Arc<AtomicU64>,
    happens: bool,
    /// Answers to [`Log::members`], the last one first; then the truth.
    members: std::sync::Mutex<Vec<usize>>,
    /// What to do when a consumer is made.
    joining: Box<dyn Fn() + Send + Sync>,
}

impl Mortal {
    fn new(inner: &Arc<EmbeddedLog>, left: u64, happens: bool) -> Mortal {
        Mortal {
            inner: inner.clone(),
            left: Arc::new(AtomicU64::new(left)),
            happens,
            members: Vec::new().into(),
            joining: Box::new(|| ()),
        }
    }

    fn change<T>(&self, effect: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        change(&self.left, self.happens, effect)
    }
}

fn change<T>(left: &AtomicU64, happens: bool, effect: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    match left.load(Ordering::SeqCst) {
        0 => Err(LogError::fatal(GONE)),
        1 => {
            left.store(0, Ordering::SeqCst);
            if happens {
                effect()?;
            }
            Err(LogError::fatal(GONE))
        }
        more => {
            left.store(more - 1, Ordering::SeqCst);
            effect()
        }
    }
}

struct MortalProducer {
    inner: Box<dyn Producer>,
    left: Arc<AtomicU64>,
    happens: bool,
}

impl Producer for MortalProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.inner.begin()
    }
    fn send(&mut self, record: Outgoing) -> Result<(), LogError> {
        self.inner.send(record)
    }
    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError> {
        change(&self.left, self.happens, || self.inner.commit(offsets, membership))
    }
    fn abort(&mut self) -> Result<(), LogError> {
        self.inner.abort()
    }
}

impl Log for Mortal {
    left_to_inner!(create_topics partitions reader end start committed offset_at);

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        (self.joining)();
        self.inner.consumer(group)
    }
    fn producer(&self, id: &str) -> Result<Box<dyn Producer>, LogError> {
        Ok(Box::new(MortalProducer {
            inner: self.inner.producer(id)?,
            left: self.left.clone(),
            happens: self.happens,
        }))
    }
    fn members(&self, group: &str) -> Result<usize, LogError> {
        match self.members.lock().expect("members").pop() {
            Some(made_up) => Ok(made_up),
            None => self.inner.members(group),
        }
    }
    fn move_group(&self, group: &str, to: &Positions) -> Result<(), LogError> {
        self.change(|| self.inner.move_group(group, to))
    }
    fn grow(&self, topic: &Topic, partitions: u32) -> Result<(), LogError> {
        self.change(|| self.inner.grow(topic, partitions))
    }
}

const UNFINISHED: &str = "a reset of app was begun and has not ended: run `accrue reset` again, which finishes it";

#[test]
fn a_reset_killed_at_any_change_keeps_the_application_from_starting_until_it_is_finished() {
    let mut unfinished = 0;
    for happens in [false, true] {
        for nth in 1.. {
            let world = World::that_ran();
            let mortal = Mortal::new(&world.log, nth, happens);
            let killed = reset(&mortal, &base());
            match &killed {
                Ok(_) => {
                    assert!(
                        nth > 6,
                        "{nth} changes: the record twice, words of three partitions, offsets"
                    );
                    break;
                }
                Err(text) => assert_eq!(text, GONE),
            }
            // What a process finds: all as before, or a reset to finish, or a finished one.
            match (world.recorded().resetting, world.recorded().resets) {
                (true, 0) => {
                    assert_eq!(world.refused(&base()), UNFINISHED);
                    let back = rewind::plan(&base(), world.log.as_ref(), &topic("lines"), None, Target::Start);
                    assert_eq!(back.expect_err("no rewind either").to_string(), UNFINISHED);
                    unfinished += 1;
                    world.reset(&base()).expect("the reset is finished");
                }
                (false, 0) => {
                    assert!(nth == 1 && !happens, "killed before it began");
                    world.reset(&base()).expect("reset");
                }
                (false, 1) => assert!(happens, "the last change was done"),
                other => panic!("{other:?}"),
            }
            world.drain(&base());
            assert_eq!(
                world.counted(),
                counts(&[("a", 3), ("b", 1), ("c", 1)], 2),
                "killed at {nth}"
            );
        }
    }
    assert!(unfinished >= 8, "{unfinished} kills in the middle");
}

#[test]
fn a_process_and_a_reset_that_begin_together_see_each_other() {
    // The process is first: it joins between the two looks of the reset, which changes nothing.
    let world = World::that_ran();
    let crowded = Mortal {
        members: vec![1, 0].into(),
        ..Mortal::new(&world.log, u64::MAX, true)
    };
    let text = reset(&crowded, &base()).expect_err("a member joined");
    assert!(text.starts_with("group app has live members (1)"), "{text}");
    assert!(!world.recorded().resetting);
    world.say("lines", &["a"]);
    world.drain(&base());
    assert_eq!(world.counted(), counts(&[("a", 4), ("b", 1), ("c", 1)], 1));

    // An earlier reset that was killed still has to be finished, whoever joined meanwhile.
    assert_eq!(reset(&Mortal::new(&world.log, 3, true), &base()), Err(GONE.to_owned()));
    let crowded = Mortal {
        members: vec![1, 0].into(),
        ..Mortal::new(&world.log, u64::MAX, true)
    };
    reset(&crowded, &base()).expect_err("a member joined");
    assert_eq!(world.refused(&base()), UNFINISHED);
    world.reset(&base()).expect("reset");
    world.drain(&base());
    assert_eq!(world.counted(), counts(&[("a", 4), ("b", 1), ("c", 1)], 2));

    // The reset is first: the process has looked at the record, and joins when it is over, or in the middle of it.
    for (left, wanted) in [
        (
            u64::MAX,
            "app was reset while this process started or was away: start it again",
        ),
        (3, UNFINISHED),
    ] {
        let log = world.log.clone();
        let late = Mortal {
            joining: Box::new(move || {
                let _ = reset(&Mortal::new(&log, left, true), &base());
            }),
            ..Mortal::new(&world.log, u64::MAX, true)
        };
        let runtime = world.start_on(Arc::new(late), &base()).expect("it has looked");
        assert_eq!(runtime.join().expect_err("it has looked again").to_string(), wanted);
    }
    assert_eq!(
        world.counted(),
        counts(&[("a", 4), ("b", 1), ("c", 1)], 2),
        "it did nothing"
    );
    world.reset(&base()).expect("reset");
    world.drain(&base());
    assert_eq!(world.counted(), counts(&[("a", 4), ("b", 1), ("c", 1)], 3));
}

#[test]
fn only_inputs_without_a_store_behind_them_go_back() {
    let world = World::that_ran();
    let back = |name: &str, partition: Option<u32>, target: Target| {
        let steps = rewind::plan(
            &base(),
            world.log.as_ref(),
            &topic(name),
            partition.map(Partition),
            target,
        );
        steps.map_err(|fault| fault.to_string())
    };
    let to = |offset: u64| Target::Offset(Offset(offset));
    for (refused, wanted) in [
        (
            back("words", None, Target::Start),
            "stage count has read words into its store counts: to read again without emptying it would part the two. `accrue reset` begins both again",
        ),
        (
            back("elsewhere", None, Target::Start),
            "app does not read elsewhere; it can go back in lines",
        ),
        (
            back("lines", Some(7), Target::Start),
            "lines has 1 partitions, numbered from 0; there is no 7",
        ),
        (
            back("lines", None, to(6)),
            "lines-0 was read up to 5: to go on at 6 would lose the records between. What cannot be used becomes a dead letter by itself",
        ),
    ] {
        assert_eq!(refused.expect_err(wanted), wanted);
    }
    let none = back("lines", None, to(5)).expect("plan");
    assert!(none.is_empty(), "{none:?}");
    let steps = back("lines", Some(0), to(3)).expect("plan");
    assert_eq!(
        steps.values().map(|step| (step.from.0, step.to.0)).collect::<Vec<_>>(),
        [(5, 3)]
    );
    rewind::run(&base(), world.log.as_ref(), &steps).expect("rewind");
    world.drain(&base());
    // A word count recognises nothing: the last two words are counted once more.
    assert_eq!(world.counted(), counts(&[("a", 4), ("b", 1), ("c", 2)], 1));
}

#[test]
fn a_sink_under_a_new_name_is_refused_since_it_would_deliver_everything_again() {
    let world = World::new();
    let text = |sinks: &[&str]| {
        let tables = sinks.iter().map(|name| {
            format!("[sinks.{name}]\nkind = \"file\"\n[sinks.{name}.file]\ndir = \"ledger-{name}\"\nformat = \"csv\"\n")
        });
        format!(
            "[[source]]\nname = \"events\"\ntopic = \"events\"\nformat = \"canonical-json\"\n{}",
            tables.collect::<String>()
        )
    };
    let of = |sinks: &[&str]| {
        let topology = config::parse("test.toml", &text(sinks), &|_| None).expect("topology");
        world.log.create_topics(&pipeline::topics(&topology)).expect("topics");
        world
            .log
            .create_topics(&application::topics(&topology))
            .expect("topics");
        topology
    };
    let registry = Arc::new(Embedded::open(&world.dir.path().join("registry")).expect("registry"));
    let check = |topology: &config::Topology, name: &str| {
        let schemas = pipeline::schemas(topology, registry.clone()).expect("schemas");
        let sink = topology
            .sinks
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .expect("sink")
            .1;
        application::check(topology, sink, world.log.as_ref(), &schemas).map_err(|refused| refused.to_string())
    };
    let files = of(&["files"]);
    check(&files, "files").expect("the first one");
    // What `accrue sink files` does first.
    let shape = application::shape(&files, files.sinks.values().next().expect("sink")).expect("shape");
    layout::admit(&shape, world.log.as_ref()).expect("admitted");

    check(&of(&["files"]), "files").expect("again");
    let refused = check(&of(&["books"]), "books").expect_err("a new name");
    assert_eq!(
        refused,
        "sink books is new, and sink files, which has delivered, is not in the topology any more: if books is files under another name, call it files again, or everything is delivered once more, since what was delivered is remembered by the name. If it is another one, put [sinks.files] back beside it; it need not run"
    );
    check(&of(&["books", "files"]), "books").expect("another one");
}

#[test]
fn an_application_under_a_new_id_does_not_write_all_once_more_unasked() {
    let world = World::that_ran();
    world.make("renamed.layout", 1, Cleanup::Compact);
    world.make("renamed-counts-changelog", PARTITIONS, Cleanup::Compact);
    let renamed = changed(|shape| {
        shape.application_id = "renamed".into();
        shape.layout = Shape::layout("renamed");
        shape.subs[1].stores[0].changelog = Shape::changelog("renamed", "counts");
    });
    let refused = "application renamed has never run, but counted has records of one that has: everything would be written there once more. If application_id was changed, give it its old value back: state, changelogs and offsets are kept under it. If this is a new application, name topics of its own with outputs.prefix. If all is to be written again under the new id, run `accrue reset`, which says first what it does";
    assert_eq!(world.refused(&renamed), refused);
    let compared = layout::compare(&renamed, world.log.as_ref()).map_err(|fault| fault.to_string());
    assert_eq!(compared, Err(refused.to_owned()));
    assert_eq!(world.refused(&renamed), refused, "nothing was recorded");

    // A version that recorded no layout has left offsets.
    let words: Vec<TopicPartition> = (0..PARTITIONS)
        .map(|n| TopicPartition::new(&topic("words"), Partition(n)))
        .collect();
    let at_their_ends = words.iter().map(|at| (at.clone(), world.log.end(at).expect("end")));
    world
        .log
        .move_group("older", &at_their_ends.collect())
        .expect("offsets");
    world.make("older.layout", 1, Cleanup::Compact);
    let older = changed(|shape| {
        shape.application_id = "older".into();
        shape.layout = Shape::layout("older");
    });
    layout::compare(&older, world.log.as_ref()).expect("admitted");

    // Asked for, it begins: with what is in its topics, and with what the first stage reads again.
    world.reset(&renamed).expect("reset");
    world.drain(&renamed);
    let again = |first: u64| (1..=first).chain(1..=2 * first).collect::<Vec<u64>>();
    let wanted = [("a", 3), ("b", 1), ("c", 1)].map(|(word, first)| (word.to_owned(), again(first)));
    assert_eq!(world.counted(), BTreeMap::from(wanted));
}

/// How often each record (topic, key, value, trace) is in the topics that were written, changelogs and the like left out.
type Books = BTreeMap<String, BTreeMap<(Vec<u8>, Vec<u8>, Vec<u8>), usize>>;

fn books(dir: &Path) -> Books {
    let log = EmbeddedLog::open(&dir.join("log"), false).expect("log");
    let mut books = Books::new();
    for (topic, bounds) in log.topics() {
        let held = books.entry(topic.to_string()).or_default();
        for n in 0..bounds.len() as u32 {
            let at = TopicPartition::new(&topic, Partition(n));
            let mut reader = log.reader(&at, Offset(0)).expect("reader");
            loop {
                let records = reader.read(Duration::ZERO).expect("read");
                if records.is_empty() {
                    break;
                }
                for record in records {
                    let trace = record.header("traceparent").unwrap_or_default().to_vec();
                    let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
                    *held.entry((key, value, trace)).or_default() += 1;
                }
            }
        }
    }
    books.retain(|topic, _| !topic.ends_with("-changelog") && !topic.ends_with(".layout"));
    books
}

/// Runs a command on the quick start's data: exit code, and what it printed.
fn accrue(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_accrue"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ACCRUE_DATA_DIR", dir)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("accrue");
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn done(dir: &Path, arguments: &[&str]) -> String {
    let (code, text) = accrue(dir, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    text
}

#[test]
fn after_a_reset_the_books_are_the_same_to_the_byte() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let quickstart = ["quickstart", "--books-only", "--dir", dir.to_str().expect("path")];
    done(dir, &quickstart);
    let before = books(dir);
    let balances = ["books", "report", "balances", "--format", "json"];
    let (reported, verified) = (done(dir, &balances), done(dir, &["books", "verify"]));

    let (code, text) = accrue(dir, &["reset"]);
    assert_eq!(code, Some(2), "{text}");
    for wanted in [
        "The stream processor accrue begins again:\n",
        "crm.changes                                  read again from its start:",
        "contract.facts                               read again from its start:",
        "accrue-contract-changelog                    emptied\n",
        "rekey                                        goes on where it is\n",
        "journal.entries                              gets the same records again\n",
        "error: nothing was changed: add --yes where nobody can be asked\n",
    ] {
        assert!(text.contains(wanted), "{wanted}{text}");
    }
    assert_eq!(books(dir), before);

    let text = done(dir, &["reset", "--yes"]);
    assert!(
        text.contains("keys of state emptied. `accrue run` fills it again"),
        "{text}"
    );
    // The quick start goes on where the reset left off, and compares the journal with the fold of the facts.
    let text = done(dir, &quickstart);
    assert!(text.contains("byte for byte"), "{text}");
    let after = books(dir);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (topic, records) in &before {
        let again = &after[topic];
        assert!(again.keys().eq(records.keys()), "{topic}: the same records");
        let twice = |(record, count): (&_, &usize)| again[record] == 2 * count;
        match topic.as_str() {
            "deal.canonical" | "contract.facts" | "journal.entries" => {
                assert!(
                    !records.is_empty() && records.iter().all(twice),
                    "{topic}: each once more"
                );
            }
            // Those of stages that went on are not repeated.
            "accrue.dead-letters" => {}
            // Sources, and compacted topics: the last record of each deal.
            _ => assert_eq!(again, records, "{topic}"),
        }
    }
    assert_eq!(done(dir, &balances), reported);
    assert_eq!(done(dir, &["books", "verify"]), verified);
}

#[test]
fn sources_that_are_read_again_change_nothing_in_the_books() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let quickstart = ["quickstart", "--books-only", "--dir", dir.to_str().expect("path")];
    done(dir, &quickstart);
    let before = books(dir);
    let shown = done(dir, &["offsets", "show"]);
    assert!(
        shown.contains("crm.public.deals-0 ") && shown.contains("  kept from 0 to "),
        "{shown}"
    );
    let rewind = |topic: &str, to: &[&str]| accrue(dir, &[&["offsets", "rewind", topic, "--yes"], to].concat());
    let sources = ["deals", "deal_line_items", "customers"].map(|table| format!("crm.public.{table}"));
    for topic in sources.iter().map(String::as_str).chain(["reference.facts"]) {
        let (code, text) = rewind(topic, &["--to-start"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains(&format!("{topic}-0 ")) && text.ends_with("done\n"),
            "{text}"
        );
    }
    assert_ne!(done(dir, &["offsets", "show"]), shown);
    done(dir, &quickstart);
    let after = books(dir);
    for topic in [
        "journal.entries",
        "contract.state",
        "recognition.schedule",
        "billing.schedule",
    ] {
        assert_eq!(after[topic], before[topic], "{topic}");
    }
    assert!(after["deal.canonical"].keys().eq(before["deal.canonical"].keys()));

    let (code, text) = rewind("contract.facts", &["--to", "0"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("`accrue reset` begins both again"), "{text}");
    let (code, text) = rewind("crm.public.deals", &["--to-time", "2999-01-01T00:00:00Z"]);
    assert_eq!(
        (code, text.as_str()),
        (
            Some(0),
            "nothing to read again: no partition was read further than that\n"
        )
    );
    let (code, text) = accrue(
        dir,
        &["offsets", "rewind", "sink.commands", "--sink", "files", "--to-start"],
    );
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("decisions of people, which would be carried out again"),
        "{text}"
    );
}
