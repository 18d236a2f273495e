//! The quick start as a newcomer runs it: once, again, and killed at any moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Log, Positions};
use accrue::stream::overlay::Overlay;
use accrue::stream::record::{Header, Offset, Outgoing, Partition, Record, Topic, TopicPartition};
use accrue::stream::store::{StoreHome, TaskStore};

fn quickstart(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command.arg("quickstart").arg("--dir").arg(dir).stderr(Stdio::piped());
    command
}

fn finish(dir: &Path) -> String {
    output(&mut quickstart(dir))
}

fn output(command: &mut Command) -> String {
    let out = command.output().expect("quickstart");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// For each topic we write, how often each (key, value, trace) is there.
type Books = BTreeMap<String, BTreeMap<(Vec<u8>, Vec<u8>, Vec<u8>), usize>>;

fn books(dir: &Path) -> Books {
    let log = EmbeddedLog::open(&dir.join("log"), false).expect("log");
    let mut books = Books::new();
    for (topic, bounds) in log.topics() {
        // Changelogs are written once per key and commit, so they depend on where commits fell.
        if topic.as_str().ends_with("-changelog") {
            continue;
        }
        let held = books.entry(topic.to_string()).or_default();
        for n in 0..bounds.len() as u32 {
            let mut reader = log
                .reader(&TopicPartition::new(&topic, Partition(n)), Offset(0))
                .expect("reader");
            loop {
                let records = reader.read(Duration::ZERO).expect("read");
                if records.is_empty() {
                    break;
                }
                for record in records {
                    let trace = record.header("traceparent").unwrap_or_default().to_vec();
                    let key = record.key.unwrap_or_default();
                    *held.entry((key, record.value.unwrap_or_default(), trace)).or_default() += 1;
                }
            }
        }
    }
    books
}

#[test]
fn it_shows_the_books_and_a_second_run_changes_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let first = finish(dir.path());
    for wanted in [
        "What came in",
        "What came out",
        "deal.canonical",
        "records that could not be used",
        "Deferred revenue, EUR of acme-corp",
        "explained",
        "ASC 606",
        "Where it went",
        "chains: whole",
        "tables (Delta Lake)",
        "months of the plan",
        "Where it lies",
    ] {
        assert!(first.contains(wanted), "{wanted} is missing:\n{first}");
    }
    let before = books(dir.path());
    let second = finish(dir.path());
    assert!(second.starts_with("Resumed"), "{second}");
    assert_eq!(books(dir.path()), before);
    // All but the first line is the same.
    let rest = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rest(&first), rest(&second));
    what_was_tampered_with_is_found(dir.path());
}

/// `accrue verify` on the books of a quick start: its exit code, and what it said.
fn verify(dir: &Path) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_accrue"))
        .arg("verify")
        .env("ACCRUE_DATA_DIR", dir)
        .output()
        .expect("verify");
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
}

fn what_was_tampered_with_is_found(dir: &Path) {
    let (code, said) = verify(dir);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 5, "{said}");
    assert!(said.contains("12 tasks on this machine"), "{said}");

    // An entry once more and one of no fact, what is said of one deal under another one's key, and a contract that nobody
    // wrote.
    let log = EmbeddedLog::open(&dir.join("log"), false).expect("log");
    let first_two = |topic: &str| {
        let at = TopicPartition::new(&Topic::new(topic), Partition(0));
        let mut reader = log.reader(&at, Offset(0)).expect("reader");
        let mut records = reader.read(Duration::ZERO).expect("read");
        let first = records.remove(0);
        let other = records.into_iter().find(|record| record.key != first.key);
        (first, other.expect("a record of another deal"))
    };
    let write_as = |at: &Record, value: &Record, headers: Vec<Header>| {
        let mut producer = log.producer("tamper").expect("producer");
        producer.begin().expect("begin");
        let written = Outgoing {
            to: at.at.clone(),
            timestamp: at.timestamp,
            key: at.key.clone(),
            value: value.value.clone(),
            headers,
        };
        producer.send(written).expect("send");
        producer.commit(&Positions::new(), None).expect("commit");
        String::from_utf8(at.key.clone().expect("a key")).expect("text")
    };
    let write = |at: &Record, value: &Record| write_as(at, value, value.headers.clone());
    let (entry, _) = first_two("journal.entries");
    let id = String::from_utf8(entry.header("ce_id").expect("an id").to_vec()).expect("text");
    write(&entry, &entry);
    write_as(&entry, &entry, vec![Header::new("ce_id", "je_nobody")]);
    let swapped = ["contract.state", "recognition.schedule", "billing.schedule"].map(|topic| {
        let (first, other) = first_two(topic);
        (topic, write(&first, &other))
    });
    drop(log);
    let store = dir.join("state").join("contract_0");
    let mut overlay = Overlay::new(1);
    overlay.put(0, b"c nobody".to_vec(), Some(b"nothing".to_vec()));
    overlay.keep();
    TaskStore::open(&store, &["contract".to_owned()], &StoreHome::disk(1 << 20))
        .and_then(|opened| opened.apply(&overlay, &[None]))
        .expect("store");

    let (code, said) = verify(dir);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL  outputs_are_what_facts_give"), "{said}");
    for finding in [
        format!("{id} in journal.entries is there 2 times"),
        "je_nobody in journal.entries comes from no fact".to_owned(),
    ] {
        assert!(said.contains(&finding), "{finding}: {said}");
    }
    for (topic, deal) in swapped {
        let finding = format!("the last record of {deal} in {topic} is not what the facts give");
        assert!(said.contains(&finding), "{finding}: {said}");
    }
    assert!(said.contains("FAIL  stores_are_their_changelogs"), "{said}");
    assert!(said.contains("contract_0: 1 keys"), "{said}");
    assert!(said.contains("c nobody"), "{said}");
}

/// Without delivery, whose receipts have times; killed sinks have tests of their own.
fn books_only(dir: &Path) -> Command {
    let mut command = quickstart(dir);
    command.arg("--books-only");
    command
}

#[test]
fn killed_again_and_again_it_ends_with_the_same_books() {
    let calm = tempfile::tempdir().expect("folder");
    let began = Instant::now();
    output(&mut books_only(calm.path()));
    let whole = began.elapsed();
    let wanted = books(calm.path());

    let dir = tempfile::tempdir().expect("folder");
    let mut cut_short = 0;
    for life in [20, 35, 50, 30, 45, 25, 40] {
        let mut child = books_only(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("quickstart");
        std::thread::sleep(whole * life / 100);
        if child.try_wait().expect("wait").is_none() {
            child.kill().expect("kill");
            cut_short += 1;
        }
        child.wait().expect("wait");
    }
    assert!(cut_short > 0, "at least one run was killed before its end");
    output(&mut books_only(dir.path()));
    assert_eq!(books(dir.path()), wanted);
}

#[test]
fn dead_letters_that_were_dealt_with_do_not_stop_it() {
    let dir = tempfile::tempdir().expect("folder");
    output(&mut books_only(dir.path()));
    let deadletters = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
        command.arg("deadletters").args(arguments);
        output(command.env("ACCRUE_DATA_DIR", dir.path()))
    };
    let list = deadletters(&["list"]);
    let ids: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).take(2).collect();
    deadletters(&["drop", ids[0]]);
    deadletters(&["retry", ids[1]]);
    let again = output(&mut books_only(dir.path()));
    assert!(again.contains("9 records that could not be used:"), "{again}");
    assert!(
        again.contains(" (dropped)\n") && again.contains(" (retried)\n"),
        "{again}"
    );
}
