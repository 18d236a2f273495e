//! The contract of the log port, the same for each implementation.
//!
//! The Kafka half needs a broker at `ACCRUE_TEST_KAFKA`; `make test` starts one and runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use accrue::stream::app;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::kafka::{GroupProtocol, KafkaLog, KafkaTimeouts};
use accrue::stream::log::{Cleanup, Consumer, Event, GroupSpec, Log, LogErrorKind, Positions, Producer, TopicSpec};
use accrue::stream::record::{Header, Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use accrue::stream::topology::{Shape, SubTopology};
use accrue::stream::verify;

/// One log under test and a prefix that keeps its topics and groups apart from other tests'.
struct Subject {
    log: Box<dyn Log>,
    prefix: String,
    _dir: Option<tempfile::TempDir>,
}

impl Subject {
    fn topic(&self, name: &str, partitions: u32) -> Topic {
        let topic = Topic::new(format!("{}.{name}", self.prefix));
        let found = self
            .log
            .create_topics(&[TopicSpec {
                topic: topic.clone(),
                partitions,
                replication_factor: 1,
                cleanup: Cleanup::Delete { retention: None },
            }])
            .expect("topic");
        assert_eq!(found[0].partitions, partitions);
        topic
    }

    fn group(&self, name: &str, topic: &Topic) -> GroupSpec {
        GroupSpec {
            group: format!("{}.{name}", self.prefix),
            instance: None,
            topics: vec![topic.clone()],
        }
    }

    fn producer(&self, name: &str) -> Box<dyn Producer> {
        self.log.producer(&format!("{}.{name}", self.prefix)).expect("producer")
    }

    /// Everything committed in a partition, up to its end.
    fn all(&self, at: &TopicPartition) -> Vec<Record> {
        let end = self.log.end(at).expect("end");
        let mut reader = self.log.reader(at, Offset(0)).expect("reader");
        let mut records = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while reader.position().expect("position") < end {
            assert!(Instant::now() < deadline, "the reader does not reach the end of {at}");
            records.extend(reader.read(Duration::from_millis(100)).expect("read"));
        }
        records
    }
}

fn embedded() -> Subject {
    let dir = tempfile::tempdir().expect("folder");
    Subject {
        log: Box::new(EmbeddedLog::open(dir.path(), false).expect("log")),
        prefix: "t".to_owned(),
        _dir: Some(dir),
    }
}

fn kafka(protocol: GroupProtocol) -> Subject {
    let servers =
        std::env::var("ACCRUE_TEST_KAFKA").expect("ACCRUE_TEST_KAFKA must name a broker; `make test` starts one");
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
    Subject {
        log: Box::new(
            KafkaLog::connect(
                BTreeMap::from([
                    ("bootstrap.servers".to_owned(), servers),
                    // New partitions are seen within five minutes, unless this is set.
                    ("topic.metadata.refresh.interval.ms".to_owned(), "1000".to_owned()),
                ]),
                KafkaTimeouts {
                    transaction: Duration::from_secs(10),
                    session: Duration::from_secs(15),
                },
                Duration::from_secs(30),
                &|message| eprintln!("{message}"),
            )
            .expect("broker")
            .with_protocol(protocol),
        ),
        prefix: format!("contract-{nanos}"),
        _dir: None,
    }
}

fn outgoing(topic: &Topic, partition: u32, key: &str, value: Option<&str>) -> Outgoing {
    Outgoing {
        to: TopicPartition::new(topic, Partition(partition)),
        timestamp: Timestamp(1_700_000_000_000),
        key: Some(key.as_bytes().to_vec()),
        value: value.map(|v| v.as_bytes().to_vec()),
        headers: vec![Header::new("h", key.as_bytes().to_vec())],
    }
}

fn at(topic: &Topic, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

fn values(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap_or(b"-")).into_owned())
        .collect()
}

/// Commits `values` to partition 0 in one transaction.
fn put(producer: &mut dyn Producer, topic: &Topic, values: &[&str]) -> Positions {
    producer.begin().expect("begin");
    for value in values {
        producer.send(outgoing(topic, 0, value, Some(value))).expect("send");
    }
    producer.commit(&Positions::new(), None).expect("commit")
}

/// A consumer with what it owns, answering rebalances as a stream thread would.
struct Member {
    consumer: Box<dyn Consumer>,
    owned: Vec<TopicPartition>,
    /// How many partitions were taken from it.
    taken: usize,
    records: Vec<Record>,
}

impl Member {
    fn join(subject: &Subject, group: &GroupSpec) -> Member {
        Member {
            consumer: subject.log.consumer(group).expect("consumer"),
            owned: Vec::new(),
            taken: 0,
            records: Vec::new(),
        }
    }

    fn poll(&mut self) {
        match self.consumer.poll(Duration::from_millis(50), usize::MAX).expect("poll") {
            Event::Idle => {}
            Event::Records(records) => self.records.extend(records),
            Event::Assigned(partitions) => {
                // Not every broker node knows a partition that has just been added, so this may have to be done again.
                until("assign", || match self.consumer.assign(&partitions) {
                    Ok(()) => true,
                    Err(error) if error.kind == LogErrorKind::Retry => {
                        std::thread::sleep(Duration::from_millis(50));
                        false
                    }
                    Err(error) => panic!("assign: {error}"),
                });
                self.consumer.resume(&partitions).expect("resume");
                self.owned.extend(partitions);
            }
            Event::Revoked(partitions) | Event::Lost(partitions) => {
                self.consumer.unassign(&partitions).expect("unassign");
                self.owned.retain(|at| !partitions.contains(at));
                self.taken += partitions.len();
            }
        }
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "timed out: {what}");
    }
}

fn topics_are_created_once(subject: &Subject) {
    let topic = subject.topic("once", 3);
    let again = subject
        .log
        .create_topics(&[TopicSpec {
            topic: topic.clone(),
            partitions: 5,
            replication_factor: 1,
            cleanup: Cleanup::Compact,
        }])
        .expect("again");
    assert!(!again[0].created);
    assert_eq!(again[0].partitions, 3, "an existing topic is left as it is");
    // Asked for again, since the question must not have created it.
    let none = Topic::new(format!("{topic}.there.is.no.such"));
    for _ in 0..2 {
        assert_eq!(subject.log.partitions(&none).expect("count"), None);
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn records_come_back_as_they_were(subject: &Subject) {
    let topic = subject.topic("whole", 2);
    let mut producer = subject.producer("whole");
    producer.begin().expect("begin");
    producer.send(outgoing(&topic, 1, "k", Some("v"))).expect("send");
    producer.send(outgoing(&topic, 1, "k", None)).expect("send");
    let ends = producer.commit(&Positions::new(), None).expect("commit");
    assert_eq!(
        ends.get(&at(&topic, 1)),
        Some(&Offset(2)),
        "the position after the last record"
    );

    let records = subject.all(&at(&topic, 1));
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].key.as_deref(), Some(b"k".as_slice()));
    assert_eq!(records[0].value.as_deref(), Some(b"v".as_slice()));
    assert_eq!(records[0].timestamp, Timestamp(1_700_000_000_000));
    assert_eq!(records[0].header("h"), Some(b"k".as_slice()));
    assert_eq!(records[1].value, None, "a tombstone stays one");
    assert_eq!(subject.all(&at(&topic, 0)), vec![]);
}

fn aborted_records_are_never_read(subject: &Subject) {
    let topic = subject.topic("aborted", 1);
    let mut producer = subject.producer("aborted");
    put(producer.as_mut(), &topic, &["a"]);
    producer.begin().expect("begin");
    producer.send(outgoing(&topic, 0, "x", Some("x"))).expect("send");
    producer.abort().expect("abort");
    drop(producer);
    // The partition now ends in an aborted record and a marker; the reader must still reach its end.
    assert_eq!(values(&subject.all(&at(&topic, 0))), ["a"]);
    let mut producer = subject.producer("aborted");
    put(producer.as_mut(), &topic, &["b"]);
    assert_eq!(values(&subject.all(&at(&topic, 0))), ["a", "b"]);
}

/// What an outage leaves at the end of a partition, aborted records and the markers of transactions, is no work left.
fn a_tail_of_aborted_records_is_no_lag(subject: &Subject) {
    let topic = subject.topic("tail", 1);
    let application = format!("{}.tail", subject.prefix);
    let reads = SubTopology {
        name: "reads".to_owned(),
        sources: vec![topic.clone()],
        stores: Vec::new(),
        sinks: Vec::new(),
    };
    let letters = Topic::new(format!("{application}.letters"));
    let shape = Shape::new(application, vec![reads], letters).expect("shape");
    let lag = || app::lag(&shape, subject.log.as_ref()).expect("lag");
    assert_eq!(lag(), 0);
    let mut producer = subject.producer("tail");
    for n in 0..5 {
        producer.begin().expect("begin");
        producer.send(outgoing(&topic, 0, "k", Some("aborted"))).expect("send");
        producer.abort().unwrap_or_else(|error| panic!("abort {n}: {error}"));
    }
    until("the aborted tail counts as nothing", || lag() == 0);
    put(producer.as_mut(), &topic, &["a"]);
    assert!(lag() > 0, "a record is work");
}

fn offsets_move_with_the_transaction(subject: &Subject) {
    let topic = subject.topic("in", 1);
    let out = subject.topic("out", 1);
    let input = at(&topic, 0);
    let mut producer = subject.producer("in");
    put(producer.as_mut(), &topic, &["1", "2", "3"]);
    let group = subject.group("reader", &topic);
    let mut member = Member::join(subject, &group);
    until("three records", || {
        member.poll();
        member.records.len() == 3
    });

    // An aborted transaction moves nothing: after a rewind all three come again.
    let mut worker = subject.producer("worker");
    worker.begin().expect("begin");
    worker.send(outgoing(&out, 0, "o", Some("never"))).expect("send");
    worker.abort().expect("abort");
    drop(worker);
    member.records.clear();
    member.consumer.rewind(std::slice::from_ref(&input)).expect("rewind");
    until("three records again", || {
        member.poll();
        member.records.len() == 3
    });

    // A committed one moves the offset, and a new member starts there.
    let mut worker = subject.producer("worker");
    worker.begin().expect("begin");
    worker.send(outgoing(&out, 0, "o", Some("once"))).expect("send");
    let offsets = Positions::from([(input.clone(), member.records[1].offset.next())]);
    let membership = member.consumer.membership().expect("membership");
    worker.commit(&offsets, Some(&membership)).expect("commit");
    assert_eq!(
        subject
            .log
            .committed(&group.group, std::slice::from_ref(&input))
            .expect("committed"),
        offsets
    );
    drop(member);
    let mut next = Member::join(subject, &group);
    until("the record after the commit", || {
        next.poll();
        !next.records.is_empty()
    });
    assert_eq!(values(&next.records), ["3"]);
    assert_eq!(values(&subject.all(&at(&out, 0))), ["once"]);
}

/// A task merges its partitions oldest first, and waits for those that may hold something older. One with nothing left,
/// or with a transaction's marker at its end, must not look as if it did: after a rewind, and in a new member.
fn a_partition_without_news_is_caught_up(subject: &Subject) {
    let topic = subject.topic("quiet", 2);
    let (full, empty) = (at(&topic, 0), at(&topic, 1));
    let mut producer = subject.producer("quiet");
    put(producer.as_mut(), &topic, &["1", "2", "3"]);
    let group = subject.group("quiet", &topic);
    let mut member = Member::join(subject, &group);
    let caught_up = |member: &mut Member| {
        member.poll();
        member.consumer.caught_up(&full) && member.consumer.caught_up(&empty)
    };
    until("three records and no more", || {
        caught_up(&mut member) && member.records.len() == 3
    });

    let mut worker = subject.producer("quiet-worker");
    worker.begin().expect("begin");
    let offsets = Positions::from([(full.clone(), Offset(3))]);
    let membership = member.consumer.membership().expect("membership");
    worker.commit(&offsets, Some(&membership)).expect("commit");
    member.consumer.rewind(&[full.clone(), empty.clone()]).expect("rewind");
    until("nothing is left after the rewind", || caught_up(&mut member));
    assert_eq!(member.records.len(), 3, "nothing came twice");
    drop(member);

    let mut next = Member::join(subject, &group);
    until("nothing is left for a new member", || {
        next.poll();
        next.owned.len() == 2 && caught_up(&mut next)
    });
    assert!(next.records.is_empty());
    put(producer.as_mut(), &topic, &["4"]);
    until("the next record", || {
        next.poll();
        values(&next.records) == ["4"]
    });
}

/// librdkafka by itself looks up to a second later whether it may fetch again: a thread with one input would be idle half of
/// the time.
fn a_resumed_partition_delivers_at_once(subject: &Subject) {
    let topic = subject.topic("resumed", 1);
    let only = [at(&topic, 0)];
    let mut producer = subject.producer("resumed");
    let mut member = Member::join(subject, &subject.group("resumed", &topic));
    let mut waits = Vec::new();
    for round in 1..=5 {
        until("what was there", || {
            member.poll();
            member.records.len() == round - 1 && member.owned.len() == 1
        });
        member.consumer.pause(&only).expect("pause");
        put(producer.as_mut(), &topic, &["next"]);
        // The first look after the pause, which finds it paused.
        member.poll();
        member.consumer.resume(&only).expect("resume");
        let resumed = Instant::now();
        until("the next", || {
            member.poll();
            member.records.len() == round
        });
        waits.push(resumed.elapsed());
    }
    waits.sort();
    assert!(waits[2] < Duration::from_millis(400), "{waits:?}");
}

fn a_newer_producer_fences_the_older(subject: &Subject) {
    let topic = subject.topic("fence", 1);
    let mut old = subject.producer("same");
    old.begin().expect("begin");
    old.send(outgoing(&topic, 0, "z", Some("zombie"))).expect("send");
    let mut new = subject.producer("same");
    let refused = old.commit(&Positions::new(), None).expect_err("the older is fenced");
    assert_eq!(refused.kind, LogErrorKind::Fenced, "{refused}");
    put(new.as_mut(), &topic, &["n"]);
    assert_eq!(values(&subject.all(&at(&topic, 0))), ["n"]);
}

fn a_group_shares_partitions(subject: &Subject) {
    let topic = subject.topic("shared", 4);
    let group = subject.group("shared", &topic);
    let mut first = Member::join(subject, &group);
    until("the first owns all", || {
        first.poll();
        first.owned.len() == 4
    });
    let mut second = Member::join(subject, &group);
    until("two each", || {
        first.poll();
        second.poll();
        first.owned.len() == 2 && second.owned.len() == 2
    });
    assert!(first.owned.iter().all(|at| !second.owned.contains(at)));
    drop(first);
    until("the second owns all", || {
        second.poll();
        second.owned.len() == 4
    });
}

/// A task reads the partitions of one number of several topics: they must never be dealt out to several members.
fn partitions_of_one_number_are_one_members(subject: &Subject) {
    let topics: Vec<Topic> = ["one", "two", "three"].map(|name| subject.topic(name, 4)).into();
    let group = GroupSpec {
        topics: topics.clone(),
        ..subject.group("together", &topics[0])
    };
    let mut members: Vec<Member> = (0..3).map(|_| Member::join(subject, &group)).collect();
    until("all partitions are owned, by three", || {
        members.iter_mut().for_each(Member::poll);
        members.iter().map(|member| member.owned.len()).sum::<usize>() == 12
            && members.iter().all(|member| !member.owned.is_empty())
    });
    for member in &members {
        let of = |topic: &Topic| -> BTreeSet<Partition> {
            let owned = member.owned.iter().filter(|at| at.topic == *topic);
            owned.map(|at| at.partition).collect()
        };
        assert!(
            topics.iter().all(|topic| of(topic) == of(&topics[0])),
            "{:?}",
            member.owned
        );
    }
}

fn a_member_that_lost_its_partition_cannot_commit_for_it(subject: &Subject) {
    let topic = subject.topic("stale", 1);
    let mut producer = subject.producer("stale");
    put(producer.as_mut(), &topic, &["1"]);
    let group = subject.group("stale", &topic);
    let mut member = Member::join(subject, &group);
    until("one record", || {
        member.poll();
        !member.records.is_empty()
    });
    let stale = member.consumer.membership().expect("membership");
    drop(member);
    let mut next = Member::join(subject, &group);
    until("the next owns it", || {
        next.poll();
        !next.owned.is_empty()
    });
    let mut worker = subject.producer("stale-worker");
    worker.begin().expect("begin");
    worker.send(outgoing(&topic, 0, "s", Some("stale"))).expect("send");
    let offsets = Positions::from([(at(&topic, 0), Offset(1))]);
    let refused = worker.commit(&offsets, Some(&stale)).expect_err("refused");
    assert!(
        matches!(refused.kind, LogErrorKind::Fenced | LogErrorKind::Abort),
        "{:?}: {refused}",
        refused.kind
    );
    worker.abort().expect("abort");
    assert_eq!(values(&subject.all(&at(&topic, 0))), ["1"]);
}

fn a_group_is_moved_only_while_nobody_is_in_it(subject: &Subject) {
    let topic = subject.topic("moved", 1);
    let input = at(&topic, 0);
    put(subject.producer("moved").as_mut(), &topic, &["1", "2", "3"]);
    let group = subject.group("moved", &topic);
    let members = || subject.log.members(&group.group).expect("members");
    assert_eq!(members(), 0, "a group that nobody has heard of");
    let to = |offset: u64| Positions::from([(input.clone(), Offset(offset))]);
    subject.log.move_group(&group.group, &to(2)).expect("it is new");

    let mut member = Member::join(subject, &group);
    until("the third record", || {
        member.poll();
        values(&member.records) == ["3"]
    });
    assert_eq!(members(), 1);
    let refused = subject
        .log
        .move_group(&group.group, &to(0))
        .expect_err("it has a member");
    assert_eq!(refused.kind, LogErrorKind::Fenced, "{refused}");
    drop(member);
    until("the member has gone", || {
        subject.log.move_group(&group.group, &to(1)).is_ok()
    });
    assert_eq!(members(), 0);

    // One that never committed.
    let fresh = subject.group("fresh", &topic);
    let mut member = Member::join(subject, &fresh);
    until("its partition", || {
        member.poll();
        !member.owned.is_empty()
    });
    assert_eq!(subject.log.members(&fresh.group).expect("members"), 1);
    drop(member);

    let committed = subject.log.committed(&group.group, std::slice::from_ref(&input));
    assert_eq!(committed.expect("committed"), to(1));
    let mut next = Member::join(subject, &group);
    until("two records", || {
        next.poll();
        next.records.len() == 2
    });
    assert_eq!(values(&next.records), ["2", "3"]);
}

fn a_position_that_the_partition_does_not_have_is_refused(subject: &Subject) {
    let topic = subject.topic("lost", 1);
    put(subject.producer("lost").as_mut(), &topic, &["1", "2", "3"]);
    let group = subject.group("lost", &topic);
    let beyond = Positions::from([(at(&topic, 0), Offset(1_000))]);
    subject.log.move_group(&group.group, &beyond).expect("it is new");
    let mut consumer = subject.log.consumer(&group).expect("consumer");
    let mut refused = None;
    until("the partition", || {
        if let Event::Assigned(partitions) = consumer.poll(Duration::from_millis(50), usize::MAX).expect("poll") {
            let mut answer = consumer.assign(&partitions);
            while answer.as_ref().is_err_and(|error| error.kind == LogErrorKind::Retry) {
                answer = consumer.assign(&partitions);
            }
            refused = Some(answer.expect_err("it reads from anywhere"));
        }
        refused.is_some()
    });
    let refused = refused.expect("an error");
    assert_eq!(refused.kind, LogErrorKind::Fatal, "{refused}");
    let way_out = format!("accrue offsets rewind {topic} --to-start");
    assert!(refused.to_string().contains(&way_out), "{refused}");
}

fn a_member_reads_partitions_that_come_while_it_is_there(subject: &Subject) {
    let topic = subject.topic("growing", 1);
    let group = subject.group("growing", &topic);
    let mut member = Member::join(subject, &group);
    until("the only partition", || {
        member.poll();
        member.owned.len() == 1
    });
    for wanted in [3, 2] {
        subject.log.grow(&topic, wanted).expect("grow");
        assert_eq!(subject.log.partitions(&topic).expect("count"), Some(3), "never fewer");
    }
    let mut producer = subject.producer("growing");
    producer.begin().expect("begin");
    producer.send(outgoing(&topic, 2, "k", Some("new"))).expect("send");
    producer.commit(&Positions::new(), None).expect("commit");
    until("the record of a new partition", || {
        member.poll();
        values(&member.records) == ["new"]
    });
    assert_eq!(member.owned.len(), 3);
    assert!(subject.log.grow(&Topic::new("there.is.no.such"), 2).is_err());
}

fn an_offset_is_found_by_its_time(subject: &Subject) {
    let topic = subject.topic("times", 1);
    let place = at(&topic, 0);
    let mut producer = subject.producer("times");
    producer.begin().expect("begin");
    for time in [1_000, 2_000, 3_000] {
        let timestamp = Timestamp(time);
        let record = outgoing(&topic, 0, "k", Some("v"));
        producer.send(Outgoing { timestamp, ..record }).expect("send");
    }
    producer.commit(&Positions::new(), None).expect("commit");
    let found = |time: i64| subject.log.offset_at(&place, Timestamp(time)).expect("offset");
    assert_eq!([found(0), found(1_500), found(3_000)], [0, 1, 2].map(Offset));
    assert!(found(3_001) >= Offset(3), "after the last one");
}

#[test]
#[ignore = "needs a broker: make test"]
fn a_transaction_that_does_not_end_is_found() {
    let subject = &kafka(GroupProtocol::Classic);
    let topic = subject.topic("hangs", 2);
    let places = [at(&topic, 0), at(&topic, 1)];
    let mut producer = subject.producer("hangs");
    producer.begin().expect("begin");
    for partition in [0, 1] {
        producer
            .send(outgoing(&topic, partition, "k", Some("committed")))
            .expect("send");
    }
    producer.commit(&Positions::new(), None).expect("commit");
    let log = subject.log.as_ref();
    let hanging = || verify::hanging(log, &places, Duration::from_secs(1)).expect("look");
    assert_eq!(hanging(), []);

    let from = log.end(&places[1]).expect("end");
    producer.begin().expect("begin");
    producer.send(outgoing(&topic, 1, "k", Some("open"))).expect("send");
    until("the record is there", || log.end(&places[1]).expect("end") > from);
    let found = hanging();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].at, found[0].from), (&places[1], from));
    producer.commit(&Positions::new(), None).expect("commit");
    assert_eq!(hanging(), []);
}

/// With the consumer protocol, a member that joins takes some partitions; the others go on without a break, and what is
/// committed for them under the membership from before counts.
#[test]
#[ignore = "needs a broker: make test"]
fn what_stays_with_a_member_is_not_taken_from_it() {
    let subject = &kafka(GroupProtocol::Consumer);
    let topic = subject.topic("stays", 4);
    let mut producer = subject.producer("stays");
    let mut put_in = |partitions: &[u32], value: &str| {
        producer.begin().expect("begin");
        for partition in partitions {
            let record = outgoing(&topic, *partition, value, Some(value));
            producer.send(record).expect("send");
        }
        producer.commit(&Positions::new(), None).expect("commit");
    };
    put_in(&[0, 1, 2, 3], "early");
    let group = subject.group("stays", &topic);
    let mut first = Member::join(subject, &group);
    until("the first owns all and reads", || {
        first.poll();
        first.owned.len() == 4 && first.records.len() == 4
    });
    let before = first.consumer.membership().expect("membership");
    let mut second = Member::join(subject, &group);
    until("two each", || {
        first.poll();
        second.poll();
        first.owned.len() == 2 && second.owned.len() == 2
    });
    assert_eq!(first.taken, 2, "only what went to the other was taken away");
    let (stayed, went) = (first.owned[0].clone(), second.owned[0].clone());
    let commit = |at: &TopicPartition| {
        let mut worker = subject.producer("stays-worker");
        worker.begin().expect("begin");
        worker.commit(&Positions::from([(at.clone(), Offset(0))]), Some(&before))
    };
    commit(&stayed).expect("commit");
    // Nor does a member that asks for what went to another have to leave.
    let refused = commit(&went).expect_err("it is another's");
    assert_eq!(refused.kind, LogErrorKind::Abort, "{refused}");
    put_in(&[stayed.partition.0], "late");
    until("it goes on where it was, and not from what was committed", || {
        first.poll();
        first.records.len() == 5
    });
    assert_eq!(values(&first.records[4..]), ["late"]);
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod embedded_log {
            $(#[test] fn $case() { super::$case(&super::embedded()); })*
        }
        mod kafka_log {
            $(#[test] #[ignore = "needs a broker: make test"] fn $case() { super::$case(&super::kafka(super::GroupProtocol::Classic)); })*
        }
        mod kafka_log_and_groups_of_the_broker {
            $(#[test] #[ignore = "needs a broker: make test"] fn $case() {
                super::$case(&super::kafka(super::GroupProtocol::Consumer));
            })*
        }
    };
}

contract! {
    topics_are_created_once
    records_come_back_as_they_were
    aborted_records_are_never_read
    a_tail_of_aborted_records_is_no_lag
    offsets_move_with_the_transaction
    a_partition_without_news_is_caught_up
    a_resumed_partition_delivers_at_once
    a_newer_producer_fences_the_older
    a_group_shares_partitions
    partitions_of_one_number_are_one_members
    a_member_that_lost_its_partition_cannot_commit_for_it
    a_group_is_moved_only_while_nobody_is_in_it
    a_position_that_the_partition_does_not_have_is_refused
    a_member_reads_partitions_that_come_while_it_is_there
    an_offset_is_found_by_its_time
}

/// What only the embedded log has to show: durability, compaction, retention, the lock.
mod embedded_only {
    use super::*;

    #[test]
    fn everything_survives_a_restart() {
        let dir = tempfile::tempdir().expect("folder");
        let topic = Topic::new("kept");
        let spec = TopicSpec {
            topic: topic.clone(),
            partitions: 2,
            replication_factor: 1,
            cleanup: Cleanup::Delete { retention: None },
        };
        let input = at(&topic, 0);
        {
            let log = EmbeddedLog::open(dir.path(), true).expect("log");
            log.create_topics(std::slice::from_ref(&spec)).expect("topic");
            let mut producer = log.producer("p").expect("producer");
            put(producer.as_mut(), &topic, &["1", "2"]);
            let group = GroupSpec {
                group: "g".into(),
                instance: None,
                topics: vec![topic.clone()],
            };
            let mut consumer = log.consumer(&group).expect("consumer");
            let Event::Assigned(partitions) = consumer.poll(Duration::ZERO, usize::MAX).expect("poll") else {
                panic!("assignment comes first");
            };
            consumer.assign(&partitions).expect("assign");
            producer.begin().expect("begin");
            let membership = consumer.membership().expect("membership");
            let offsets = Positions::from([(input.clone(), Offset(1))]);
            producer.commit(&offsets, Some(&membership)).expect("commit");
            assert!(EmbeddedLog::open(dir.path(), true).is_err(), "one process at a time");
        }
        let log = EmbeddedLog::open(dir.path(), true).expect("log again");
        assert_eq!(log.partitions(&topic).expect("count"), Some(2));
        assert_eq!(log.end(&input).expect("end"), Offset(2));
        assert_eq!(
            log.committed("g", std::slice::from_ref(&input)).expect("committed"),
            Positions::from([(input.clone(), Offset(1))])
        );
        let mut reader = log.reader(&input, Offset(0)).expect("reader");
        assert_eq!(values(&reader.read(Duration::ZERO).expect("read")), ["1", "2"]);
    }

    #[test]
    fn compaction_keeps_the_latest_of_each_key_and_every_offset() {
        let dir = tempfile::tempdir().expect("folder");
        let log = EmbeddedLog::open(dir.path(), false).expect("log");
        let topic = Topic::new("compacted");
        log.create_topics(&[TopicSpec {
            topic: topic.clone(),
            partitions: 1,
            replication_factor: 1,
            cleanup: Cleanup::Compact,
        }])
        .expect("topic");
        let mut producer = log.producer("p").expect("producer");
        producer.begin().expect("begin");
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")] {
            producer.send(outgoing(&topic, 0, key, Some(value))).expect("send");
        }
        producer.commit(&Positions::new(), None).expect("commit");
        log.upkeep().expect("upkeep");
        let mut reader = log.reader(&at(&topic, 0), Offset(0)).expect("reader");
        let records = reader.read(Duration::ZERO).expect("read");
        assert_eq!(values(&records), ["3", "4", "5"]);
        assert_eq!(records[0].offset, Offset(2));
        assert_eq!(log.end(&at(&topic, 0)).expect("end"), Offset(5));
    }

    #[test]
    fn retention_drops_old_records_from_the_front() {
        let dir = tempfile::tempdir().expect("folder");
        let log = EmbeddedLog::open(dir.path(), false).expect("log");
        let topic = Topic::new("short");
        log.create_topics(&[TopicSpec {
            topic: topic.clone(),
            partitions: 1,
            replication_factor: 1,
            cleanup: Cleanup::Delete {
                retention: Some(Duration::from_secs(3600)),
            },
        }])
        .expect("topic");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_millis() as i64;
        let mut producer = log.producer("p").expect("producer");
        producer.begin().expect("begin");
        for (key, age_s) in [("old", 7200), ("older", 9000), ("fresh", 10)] {
            let mut record = outgoing(&topic, 0, key, Some(key));
            record.timestamp = Timestamp(now - age_s * 1000);
            producer.send(record).expect("send");
        }
        producer.commit(&Positions::new(), None).expect("commit");
        log.upkeep().expect("upkeep");
        assert_eq!(log.start(&at(&topic, 0)).expect("start"), Offset(2));
        let mut reader = log.reader(&at(&topic, 0), Offset(0)).expect("reader");
        assert_eq!(values(&reader.read(Duration::ZERO).expect("read")), ["fresh"]);
    }
}
