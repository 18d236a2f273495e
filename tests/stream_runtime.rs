//! The runtime on the embedded log: a word count whose books are easy to check, undisturbed and under faults.

mod doubled_log;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use accrue::stream::app::{self, Runtime, RuntimeConfig, TaskReport};
use accrue::stream::budget::Budget;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{
    Cleanup, Consumer, Event, GroupSpec, Log, LogError, LogErrorKind, Membership, Positions, Producer, TopicSpec,
};
use accrue::stream::metrics::Metrics;
use accrue::stream::partitioner::partition_for;
use accrue::stream::processor::{Context, Emission, Failure, Processor, Progress, Rejected, Route};
use accrue::stream::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use accrue::stream::store::{StoreHome, TaskStore};
use accrue::stream::task::{Ends, Input, Task, TaskId};
use accrue::stream::topology::{Shape, StoreSpec, SubTopology, Topology};
use accrue::stream::verify::{self, Found};
use doubled_log::left_to_inner;

const PARTITIONS: u32 = 3;

/// Counts each word and emits `word` -> `count`. `bad` words stage a write and then fail; `echo:n` asks for `n` turns.
struct Count;

impl Processor for Count {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let word = record.value.clone().unwrap_or_default();
        let old = cx
            .get("counts", &word)?
            .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")));
        cx.put("counts", word.clone(), (old + 1).to_be_bytes().to_vec())?;
        if word.starts_with(b"bad") {
            return Err(Rejected {
                code: "bad_word".into(),
                message: "a bad word".into(),
            }
            .into());
        }
        cx.emit(Emission {
            topic: Topic::new("counted"),
            route: Route::ByKey,
            timestamp: record.timestamp,
            key: Some(word.clone()),
            value: Some((old + 1).to_string().into_bytes()),
            headers: Vec::new(),
        })?;
        let turns = word
            .strip_prefix(b"echo:")
            .and_then(|n| std::str::from_utf8(n).ok()?.parse::<u64>().ok());
        Ok(if turns.is_some_and(|turns| old + 1 < turns) {
            Progress::More
        } else {
            Progress::Done
        })
    }
}

fn topology() -> Topology {
    topology_of(|| Box::new(Count))
}

fn topology_of(processor: impl Fn() -> Box<dyn Processor> + Send + Sync + 'static) -> Topology {
    let shape = Shape::new(
        "words",
        vec![SubTopology {
            name: "count".into(),
            sources: vec![Topic::new("words")],
            stores: vec![StoreSpec {
                name: "counts".into(),
                changelog: Topic::new("words-counts-changelog"),
            }],
            sinks: vec![Topic::new("counted")],
        }],
        Topic::new("dead"),
    )
    .expect("shape");
    Topology::new(
        shape,
        vec![Arc::new(processor)],
        Arc::new(|letter| {
            (
                letter.record.key.clone(),
                letter.rejected.code.clone().into_bytes(),
                Vec::new(),
            )
        }),
    )
    .expect("topology")
}

fn config(dir: &Path, threads: usize) -> RuntimeConfig {
    RuntimeConfig {
        threads,
        state_dir: dir.join("state"),
        memory: Budget::of(16 << 20),
        commit_interval: Duration::from_millis(5),
        max_records_per_commit: 20,
        overlay_max_bytes: 1 << 20,
        ask_ends_after: Duration::from_millis(20),
        restore_threads: 2,
        instance: None,
        standbys: false,
    }
}

fn open(dir: &Path) -> EmbeddedLog {
    open_with(dir, PARTITIONS)
}

fn open_with(dir: &Path, partitions: u32) -> EmbeddedLog {
    let log = EmbeddedLog::open(&dir.join("log"), false).expect("log");
    let spec = |name: &str, cleanup| TopicSpec {
        topic: Topic::new(name),
        partitions,
        replication_factor: 1,
        cleanup,
    };
    let keep = Cleanup::Delete { retention: None };
    log.create_topics(&[
        spec("words", keep),
        spec("counted", keep),
        spec("dead", keep),
        spec("words-counts-changelog", Cleanup::Compact),
        spec("words.layout", Cleanup::Compact),
    ])
    .expect("topics");
    log
}

fn load(log: &dyn Log, words: &[String]) {
    let mut producer = log.producer("loader").expect("producer");
    producer.begin().expect("begin");
    for (n, word) in words.iter().enumerate() {
        producer
            .send(Outgoing {
                to: TopicPartition::new(&Topic::new("words"), partition_for(word.as_bytes(), PARTITIONS)),
                timestamp: Timestamp(n as i64),
                key: Some(word.clone().into_bytes()),
                value: Some(word.clone().into_bytes()),
                headers: Vec::new(),
            })
            .expect("send");
    }
    producer.commit(&Positions::new(), None).expect("commit");
}

fn words(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("w{}", (n * n + 7 * n) % 23)).collect()
}

/// Runs until nothing is left to process, then stops cleanly.
fn drain(log: Arc<dyn Log>, dir: &Path, threads: usize) {
    drain_with(topology(), log, dir, threads);
}

fn drain_with(topology: Topology, log: Arc<dyn Log>, dir: &Path, threads: usize) {
    let shape = topology.shape.clone();
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let runtime = Runtime::start(topology, log.clone(), config(dir, threads), metrics).expect("start");
    let deadline = Instant::now() + Duration::from_secs(60);
    // A task whose partition has no records is as much part of it as the others.
    while app::lag(&shape, log.as_ref()).expect("lag") > 0 || !runtime.is_ready() {
        assert!(!runtime.is_finished(), "a thread ended: {:?}", runtime.join());
        assert!(Instant::now() < deadline, "not drained");
        std::thread::sleep(Duration::from_millis(5));
    }
    runtime.stop();
    runtime.join().expect("clean end");
}

fn read(log: &dyn Log, topic: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for n in 0..PARTITIONS {
        let at = TopicPartition::new(&Topic::new(topic), Partition(n));
        let mut reader = log.reader(&at, Offset(0)).expect("reader");
        loop {
            let records = reader.read(Duration::ZERO).expect("read");
            if records.is_empty() {
                break;
            }
            all.extend(records.into_iter().map(|record| {
                let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).expect("text");
                (text(record.key), text(record.value))
            }));
        }
    }
    all
}

/// What the topic must hold: for each word its counts 1, 2, 3, ... in order, each once.
fn assert_counted(log: &dyn Log, loaded: &[String]) {
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for word in loaded {
        let counts = wanted.entry(word.clone()).or_default();
        counts.push((counts.len() + 1).to_string());
    }
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (word, count) in read(log, "counted") {
        found.entry(word).or_default().push(count);
    }
    assert_eq!(found, wanted);
}

#[test]
fn every_record_counts_once_and_a_restart_goes_on() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let first = words(500);
    load(log.as_ref(), &first);
    drain(log.clone(), dir.path(), 1);
    assert_counted(log.as_ref(), &first);
    let second = words(300);
    load(log.as_ref(), &second);
    drain(log.clone(), dir.path(), 2);
    assert_counted(log.as_ref(), &[first, second].concat());
}

#[test]
fn a_bad_record_is_a_dead_letter_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let good = words(40);
    let mut mixed = good.clone();
    for n in [35, 20, 3] {
        mixed.insert(n, "bad1".to_owned());
    }
    load(log.as_ref(), &mixed);
    drain(log.clone(), dir.path(), 1);
    assert_counted(log.as_ref(), &good);
    let letters = read(log.as_ref(), "dead");
    assert_eq!(letters, vec![("bad1".to_owned(), "bad_word".to_owned()); 3]);
    let changelog = read(log.as_ref(), "words-counts-changelog");
    assert!(
        changelog.iter().all(|(word, _)| word != "bad1"),
        "the failed write was taken back"
    );
}

/// Counts, and has a timer that cannot do its work.
struct LateTimer;

impl Processor for LateTimer {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        Count.process(record, cx)
    }

    fn punctuate(&mut self, _stream_time: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        cx.put("counts", b"timer".to_vec(), vec![0; 8])?;
        Err(Rejected {
            code: "timer".into(),
            message: "what was due cannot be done".into(),
        }
        .into())
    }
}

#[test]
fn a_timer_that_fails_leaves_the_record_at_hand_alone() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let good = words(40);
    load(log.as_ref(), &good);
    drain_with(topology_of(|| Box::new(LateTimer)), log.clone(), dir.path(), 1);
    assert_counted(log.as_ref(), &good);
    let letters = read(log.as_ref(), "dead");
    assert!(!letters.is_empty(), "somebody hears of it");
    let of_no_record = |(word, code): &(String, String)| word.is_empty() && code == "timer";
    assert!(letters.iter().all(of_no_record), "{letters:?}");
    let changelog = read(log.as_ref(), "words-counts-changelog");
    assert!(
        changelog.iter().all(|(word, _)| word != "timer"),
        "what it staged is gone"
    );
}

#[test]
fn no_task_waits_for_the_backlog_of_others() {
    const MANY: u32 = 14;
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open_with(dir.path(), MANY));
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let runtime = Runtime::start(topology(), log.clone(), config(dir.path(), 1), metrics).expect("start");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !runtime.is_ready() || runtime.tasks().len() < MANY as usize {
        assert!(Instant::now() < deadline, "{:?}", runtime.tasks());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut producer = log.producer("loader").expect("producer");
    producer.begin().expect("begin");
    for n in 0..MANY * 1_500 {
        let record = Outgoing {
            to: TopicPartition::new(&Topic::new("words"), Partition(n % MANY)),
            timestamp: Timestamp(i64::from(n)),
            key: None,
            value: Some(format!("w{}", n % 97).into_bytes()),
            headers: Vec::new(),
        };
        producer.send(record).expect("send");
    }
    producer.commit(&Positions::new(), None).expect("commit");
    let inputs: Vec<TopicPartition> = (0..MANY)
        .map(|n| TopicPartition::new(&Topic::new("words"), Partition(n)))
        .collect();
    let done = loop {
        let done = log.committed("words", &inputs).expect("committed");
        if done.values().map(|offset| offset.0).sum::<u64>() >= 7_000 {
            break done;
        }
        assert!(Instant::now() < deadline, "{done:?}");
        std::thread::sleep(Duration::from_millis(1));
    };
    runtime.stop();
    runtime.join().expect("clean end");
    assert_eq!(done.len(), MANY as usize, "each task has come to something: {done:?}");
}

#[test]
fn a_record_with_much_work_is_committed_in_parts() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    load(log.as_ref(), &["echo:75".to_owned()]);
    drain(log.clone(), dir.path(), 1);
    let counted = read(log.as_ref(), "counted");
    assert_eq!(counted.len(), 75);
    assert_eq!(counted[74].1, "75");
}

#[test]
fn a_lost_state_folder_is_rebuilt_from_the_changelog() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let first = words(200);
    load(log.as_ref(), &first);
    drain(log.clone(), dir.path(), 1);
    std::fs::remove_dir_all(dir.path().join("state")).expect("wipe");
    let second = words(100);
    load(log.as_ref(), &second);
    drain(log.clone(), dir.path(), 1);
    assert_counted(log.as_ref(), &[first, second].concat());
}

/// Where the store of a task is, and what is looked at to tell how it is.
fn place(dir: &Path, n: u32) -> std::path::PathBuf {
    dir.join(format!("state/count_{n}"))
}

fn look(log: &dyn Log, dir: &Path, n: u32) -> Result<Found, String> {
    let stores = topology().shape.subs[0].stores.clone();
    let home = StoreHome::disk(1 << 20);
    verify::store(log, &place(dir, n), &stores, Partition(n), &home).map_err(|fault| fault.to_string())
}

#[test]
fn a_damaged_store_is_rebuilt_and_not_taken_for_one_in_use() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let first = words(400);
    load(log.as_ref(), &first);
    drain(log.clone(), dir.path(), 1);
    // Opened once more, RocksDB writes what was in its log to a table.
    let mut damaged = 0;
    for n in 0..PARTITIONS {
        match look(log.as_ref(), dir.path(), n) {
            Ok(Found::Whole { keys: 1.. }) => damaged += 1,
            Ok(Found::Whole { keys: 0 }) => continue,
            other => panic!("{other:?}"),
        }
        let files = std::fs::read_dir(place(dir.path(), n)).expect("files");
        let tables: Vec<_> = files
            .map(|file| file.expect("file").path())
            .filter(|path| path.extension().is_some_and(|end| end == "sst"))
            .collect();
        assert!(!tables.is_empty());
        for table in tables {
            let mut bytes = std::fs::read(&table).expect("table");
            bytes.iter_mut().take(64).for_each(|byte| *byte ^= 0x55);
            std::fs::write(&table, bytes).expect("damage");
        }
        let said = look(log.as_ref(), dir.path(), n).expect_err("damage is seen");
        assert!(said.contains("checksum") || said.contains("Corruption"), "{said}");
    }
    assert!(damaged > 0);
    let second = words(100);
    load(log.as_ref(), &second);
    drain(log.clone(), dir.path(), 1);
    assert_counted(log.as_ref(), &[first, second].concat());
    for n in 0..PARTITIONS {
        assert!(matches!(look(log.as_ref(), dir.path(), n), Ok(Found::Whole { .. })));
    }
}

#[test]
fn a_store_that_the_machine_does_not_let_us_open_is_left_as_it_is() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    load(log.as_ref(), &words(100));
    drain(log.clone(), dir.path(), 1);
    // Its lock is a folder: no store can be opened there, whatever is in it.
    let lock = place(dir.path(), 0).join("LOCK");
    std::fs::remove_file(&lock).expect("lock");
    std::fs::create_dir(&lock).expect("folder");
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let runtime = Runtime::start(topology(), log, config(dir.path(), 1), metrics).expect("start");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !runtime.has_ended() {
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let fault = runtime.join().expect_err("it stops").to_string();
    assert!(fault.contains("count_0"), "{fault}");
    assert!(place(dir.path(), 0).join("CURRENT").exists(), "nothing was removed");
}

/// Compaction forgets deletions after a day: a store that was left behind for longer would keep what was deleted.
#[test]
fn a_store_that_was_left_behind_for_long_is_made_again() {
    for (hours, whole) in [(1, false), (13, true)] {
        let dir = tempfile::tempdir().expect("folder");
        let log: Arc<dyn Log> = Arc::new(open(dir.path()));
        let first = words(300);
        load(log.as_ref(), &first);
        drain(log.clone(), dir.path(), 1);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let then = since.expect("time").as_millis() as i64 - hours * 3_600_000;
        for n in 0..PARTITIONS {
            let store = TaskStore::open(&place(dir.path(), n), &["counts".to_owned()], &StoreHome::disk(1 << 20))
                .expect("store");
            assert!(store.current_at().expect("time").is_some());
            store.note_current(Timestamp(then)).expect("note");
        }
        // Another process has the partitions meanwhile.
        let second = words(200);
        load(log.as_ref(), &second);
        let other = tempfile::tempdir().expect("folder");
        drain(log.clone(), other.path(), 1);
        let changelog = read(log.as_ref(), "words-counts-changelog").len() as u64;

        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        let runtime = Runtime::start(topology(), log.clone(), config(dir.path(), 1), metrics.clone()).expect("start");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !runtime.is_ready() {
            assert!(Instant::now() < deadline, "{:?}", runtime.tasks());
            std::thread::sleep(Duration::from_millis(5));
        }
        runtime.stop();
        runtime.join().expect("clean end");
        let restored = metrics.restored.with_label_values(&["count"]).get();
        assert!(restored > 0);
        assert_eq!(
            restored == changelog,
            whole,
            "{restored} of {changelog} after {hours} h"
        );
    }
}

/// As when the group gives a task to one thread while another, which was away too long, does not know yet.
#[test]
fn a_store_that_another_thread_has_is_waited_for() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let first = words(200);
    load(log.as_ref(), &first);
    drain(log.clone(), dir.path(), 1);
    let home = StoreHome::disk(1 << 20);
    let look = |n: u32| look(log.as_ref(), dir.path(), n).expect("look");
    let keys = (0..PARTITIONS).map(|n| match look(n) {
        Found::Whole { keys } => keys,
        other => panic!("{other:?}"),
    });
    assert!(keys.sum::<usize>() > 0, "some word was counted");
    let held = TaskStore::open(&place(dir.path(), 0), &["counts".to_owned()], &home).expect("store");
    assert_eq!(look(0), Found::InUse);
    let second = words(100);
    load(log.as_ref(), &second);
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let runtime = Runtime::start(topology(), log.clone(), config(dir.path(), 1), metrics).expect("start");
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait = || {
        assert!(!runtime.is_finished(), "the process ended");
        assert!(Instant::now() < deadline, "{:?}", runtime.tasks());
        std::thread::sleep(Duration::from_millis(5));
    };
    let counted = |task: &TaskReport| task.running && task.task.partition == Partition(1);
    while !runtime.tasks().iter().any(counted) {
        wait();
    }
    let waits = |task: &TaskReport| !task.running && task.task.partition == Partition(0);
    assert!(runtime.tasks().iter().any(waits), "{:?}", runtime.tasks());
    drop(held);
    while app::lag(&topology().shape, log.as_ref()).expect("lag") > 0 {
        wait();
    }
    runtime.stop();
    runtime.join().expect("clean end");
    assert_counted(log.as_ref(), &[first, second].concat());
}

/// Brokers may be away while one input has records and the other has none yet: what is merged must not depend on it.
#[test]
fn nothing_is_processed_before_what_may_be_older_is_known() {
    let id = TaskId {
        sub: "count".into(),
        partition: Partition(0),
    };
    let partitions = BTreeMap::from([(Topic::new("counted"), PARTITIONS)]);
    let mut task = Task::new(id, Box::new(Count), vec!["counts".into()]);
    task.run(None, &partitions).expect("run");
    let [fast, slow] = ["fast", "slow"].map(|name| TopicPartition::new(&Topic::new(name), Partition(0)));
    for at in [&fast, &slow] {
        task.inputs.insert(at.clone(), Input::held());
    }
    let push = |task: &mut Task, at: &TopicPartition, time: i64| {
        let input = task.inputs.get_mut(at).expect("input");
        input.push(Record {
            at: at.clone(),
            offset: Offset(time as u64),
            timestamp: Timestamp(time),
            key: None,
            value: Some(b"word".to_vec()),
            headers: Vec::new(),
        });
    };
    let asked = Cell::new(0);
    // When it looks, and whether the answer is that nothing is left of the slow input.
    let step = |task: &mut Task, now: u64, at_end: bool| {
        let ends = Ends {
            known: &|_| false,
            asked: &|at| {
                assert_eq!(at, &slow);
                asked.set(asked.get() + 1);
                at_end
            },
        };
        let ask_after = Duration::from_millis(250);
        let step = task.step(Duration::from_millis(now), ask_after, &ends, &partitions);
        step.expect("step").map(|step| step.record.at.topic.to_string())
    };
    push(&mut task, &fast, 20);
    assert_eq!(step(&mut task, 0, true), None, "not before it has asked");
    assert_eq!(step(&mut task, 300, false), None);
    assert_eq!(step(&mut task, 310, true), None, "it does not ask at each turn");
    assert_eq!(asked.get(), 1);
    assert_eq!(step(&mut task, 3_600_000, false), None, "however long that takes");
    push(&mut task, &slow, 10);
    assert_eq!(step(&mut task, 3_600_100, false).as_deref(), Some("slow"));
    assert_eq!(step(&mut task, 3_600_200, true), None, "the slow one may have more");
    assert_eq!(step(&mut task, 3_600_500, true).as_deref(), Some("fast"));
    push(&mut task, &fast, 30);
    assert_eq!(
        step(&mut task, 3_600_600, false).as_deref(),
        Some("fast"),
        "an answer holds for a while"
    );
    assert_eq!(asked.get(), 3);
}

/// A log whose transactions end badly, by plan: the nth commit is lost before it happens, or happens and the answer
/// is lost.
struct Flaky {
    inner: EmbeddedLog,
    commits: Arc<AtomicU64>,
    /// Whether every commit waits for ever instead.
    hangs: bool,
}

struct FlakyProducer {
    inner: Box<dyn Producer>,
    commits: Arc<AtomicU64>,
    disturbed: bool,
    hangs: bool,
}

impl Log for Flaky {
    left_to_inner!(create_topics partitions reader end start committed members move_group grow offset_at);

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        Ok(Box::new(FlakyConsumer {
            inner: self.inner.consumer(group)?,
            polls: 0,
        }))
    }
    fn producer(&self, id: &str) -> Result<Box<dyn Producer>, LogError> {
        Ok(Box::new(FlakyProducer {
            inner: self.inner.producer(id)?,
            commits: self.commits.clone(),
            disturbed: id != "loader" && id != "words.layout",
            hangs: self.hangs,
        }))
    }
}

impl Producer for FlakyProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.inner.begin()
    }
    fn send(&mut self, record: Outgoing) -> Result<(), LogError> {
        self.inner.send(record)
    }
    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError> {
        if !self.disturbed {
            return self.inner.commit(offsets, membership);
        }
        if self.hangs {
            std::thread::sleep(Duration::from_secs(3_600));
        }
        let lost = |kind| Err(LogError::new(kind, "planned"));
        match self.commits.fetch_add(1, Ordering::SeqCst) % 6 {
            1 => lost(LogErrorKind::Abort),
            2 => lost(LogErrorKind::Unknown),
            3 => {
                self.inner.commit(offsets, membership)?;
                lost(LogErrorKind::Unknown)
            }
            4 => lost(LogErrorKind::Fenced),
            _ => self.inner.commit(offsets, membership),
        }
    }
    fn abort(&mut self) -> Result<(), LogError> {
        self.inner.abort()
    }
}

struct FlakyConsumer {
    inner: Box<dyn Consumer>,
    polls: u64,
}

impl Consumer for FlakyConsumer {
    fn poll(&mut self, timeout: Duration, most: usize) -> Result<Event, LogError> {
        self.polls += 1;
        if self.polls == 7 {
            return Err(LogError::retry("planned"));
        }
        self.inner.poll(timeout, most)
    }
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.assign(partitions)
    }
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.unassign(partitions)
    }
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.pause(partitions)
    }
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.resume(partitions)
    }
    fn rewind(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.rewind(partitions)
    }
    fn caught_up(&self, partition: &TopicPartition) -> bool {
        self.inner.caught_up(partition)
    }
    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        self.inner.is_at_end(partition)
    }
    fn membership(&self) -> Result<Membership, LogError> {
        self.inner.membership()
    }
}

#[test]
fn commits_that_fail_or_lose_their_answer_change_nothing() {
    for threads in [1, 2] {
        let dir = tempfile::tempdir().expect("folder");
        let commits = Arc::new(AtomicU64::new(0));
        let log: Arc<dyn Log> = Arc::new(Flaky {
            inner: open(dir.path()),
            commits: commits.clone(),
            hangs: false,
        });
        let loaded = words(200);
        load(log.as_ref(), &loaded);
        drain(log.clone(), dir.path(), threads);
        assert_counted(log.as_ref(), &loaded);
        assert!(
            commits.load(Ordering::SeqCst) >= 12,
            "every kind of fault came at least twice"
        );
    }
}

#[test]
fn a_commit_that_never_returns_is_noticed() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(Flaky {
        inner: open(dir.path()),
        commits: Arc::default(),
        hangs: true,
    });
    load(log.as_ref(), &words(10));
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let runtime = Runtime::start(topology(), log, config(dir.path(), 1), metrics.clone()).expect("start");
    let deadline = Instant::now() + Duration::from_secs(60);
    let what = loop {
        assert!(Instant::now() < deadline, "not noticed");
        if let Some(what) = runtime.stuck(Duration::from_secs(2)) {
            break what;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(what.starts_with("stream thread 0 has been in a commit for"), "{what}");
    assert!(metrics.turn_age.get() >= 2);
    assert!(!runtime.has_ended());
}

#[test]
fn a_standby_takes_over_without_a_restore() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let start = |name: &str| {
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        let config = RuntimeConfig {
            state_dir: dir.path().join(name),
            standbys: true,
            ..config(dir.path(), 1)
        };
        let runtime = Runtime::start(topology(), log.clone(), config, metrics.clone()).expect("start");
        (runtime, metrics)
    };
    let restored = |metrics: &Metrics| metrics.restored.with_label_values(&["count"]).get();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let lag = || app::lag(&topology().shape, log.as_ref()).expect("lag");
    let first = words(500);
    load(log.as_ref(), &first);
    let (one, _) = start("one");
    until("one drains", &|| lag() == 0);
    // The other gets one partition or two, and follows the rest.
    let (other, metrics) = start("other");
    until("other has tasks and standbys", &|| {
        other.is_ready() && other.standbys().0 > 0 && one.tasks().len() < 3
    });
    let changelog = read(log.as_ref(), "words-counts-changelog").len() as u64;
    until("other has it all", &|| restored(&metrics) == changelog);

    one.stop();
    one.join().expect("clean end");
    until("other takes over", &|| other.is_ready() && other.tasks().len() == 3);
    assert_eq!(other.standbys().0, 0);
    assert_eq!(restored(&metrics), changelog, "nothing was left to restore");
    let second = words(300);
    load(log.as_ref(), &second);
    until("other drains", &|| lag() == 0);
    other.stop();
    other.join().expect("clean end");
    assert_counted(log.as_ref(), &[first, second].concat());
}

/// Finds its store unusable, however often it is rebuilt.
struct Hopeless(Arc<AtomicU64>);

impl Processor for Hopeless {
    fn open(&mut self, _cx: &mut Context<'_>) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Rejected {
            code: "unreadable".into(),
            message: "a value of the future".into(),
        }
        .into())
    }

    fn process(&mut self, _record: &Record, _cx: &mut Context<'_>) -> Result<Progress, Failure> {
        Ok(Progress::Done)
    }
}

#[test]
fn a_store_that_a_rebuild_does_not_mend_stops_the_process() {
    let dir = tempfile::tempdir().expect("folder");
    let log: Arc<dyn Log> = Arc::new(open(dir.path()));
    let opened = Arc::new(AtomicU64::new(0));
    let count = opened.clone();
    let topology = topology_of(move || Box::new(Hopeless(count.clone())));
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
    let runtime = Runtime::start(topology, log, config(dir.path(), 1), metrics.clone()).expect("start");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !runtime.has_ended() {
        assert!(Instant::now() < deadline, "it rebuilds for ever");
        std::thread::sleep(Duration::from_millis(5));
    }
    let fault = runtime.join().expect_err("it stops").to_string();
    assert!(
        fault.contains("right after it was rebuilt") && fault.contains("a value of the future"),
        "{fault}"
    );
    // Each of the tasks may be rebuilt once; then the first one found unusable again ends it.
    let rebuilt = metrics.faults.with_label_values(&["corrupted"]).get();
    assert!((2..=u64::from(PARTITIONS) + 1).contains(&rebuilt), "{rebuilt} rebuilds");
    assert_eq!(opened.load(Ordering::SeqCst), rebuilt);
}
