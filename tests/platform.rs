//! The whole program on real servers: PostgreSQL, Debezium, Kafka, a schema registry. `make test` starts them and runs
//! this; `ACCRUE_TEST_PLATFORM` names their folder.
//!
//! What the program wrote is judged from outside, by `tests/e2e/check.py` with its own Kafka client and Avro decoder.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use accrue::stream::log::{Log, Positions};
use accrue::stream::record::{Header, Outgoing, Partition, Timestamp, Topic, TopicPartition};

mod installation;

use installation::{Installation, PRODUCTS, Platform};

/// From rows that a sales team changes to books that an outsider finds right, in each format Debezium writes.
#[test]
#[ignore = "needs real servers: make test"]
fn debezium_to_books() {
    let platform = Platform::get();
    platform.script("platform/crm.py", &["schema"]);
    let formats = [
        ("plain", "json", "debezium-json"),
        ("schemas", "json-schemas", "debezium-json"),
        ("avro", "avro", "debezium-avro"),
    ];
    for (crm, form, _) in formats {
        platform.script(
            "platform/crm.py",
            &["capture", "--prefix", crm, "--format", form, "--partitions", "1"],
        );
    }
    let truth = platform.load("all", "7", "120", "D");
    for (crm, _, format) in formats {
        platform.script("platform/crm.py", &["drain", "--prefix", crm]);
        let books = Installation::new(&platform, &format!("books-{crm}"), crm, format);
        books.apply();
        if crm == "plain" {
            books.post_reference_facts();
        }
        let mut running = books.run();
        books.settle(&mut running);
        running.stop();
        books.check(&truth);
    }
}

/// The same input, once undisturbed and once with the process killed again and again: the same outputs, each once.
#[test]
#[ignore = "needs real servers: make test"]
fn killed_in_mid_stream() {
    let platform = Platform::get();
    let calm = Installation::new(&platform, "books-plain", "plain", "debezium-json");
    let wanted = calm.hashes();
    let all = calm.committed();

    // Small transactions: there are many moments to be killed at.
    let mut killed = Installation::new(&platform, "books-killed", "plain", "debezium-json");
    killed.change_topology(&[("max_records_per_commit = 10000", "max_records_per_commit = 100")]);
    killed.apply();
    let log = platform.log();
    let places = |of: &Installation<'_>| -> Vec<TopicPartition> {
        let topics = PRODUCTS.map(|product| Topic::new(format!("{}{product}", of.prefix())));
        let all = topics.iter().map(|topic| log.partitions_of(topic).expect("partitions"));
        all.flatten().collect()
    };
    // Records there, committed or not.
    let written = |at: &[TopicPartition]| -> u64 { at.iter().map(|at| log.end(at).expect("end").0).sum() };
    let products = places(&killed);
    // Each life ends when it has written so many, most of them within a transaction; or when it found less than that to do.
    const LIVES: u64 = 10;
    let share = written(&places(&calm)) / (LIVES + 2);
    let mut progress = Vec::new();
    for _ in 0..LIVES {
        let (before, began) = (written(&products), Instant::now());
        let mut running = killed.run();
        while written(&products) < before + share && began.elapsed() < Duration::from_secs(15) {
            running.assert_alive();
            std::thread::sleep(Duration::from_millis(2));
        }
        running.kill();
        progress.push(killed.committed());
        if progress.last() == Some(&all) {
            break;
        }
    }
    println!("records committed at each kill, of {all}: {progress:?}");
    assert!(
        progress.iter().any(|at| 0 < *at && *at < all),
        "at least one kill fell into the middle of the work"
    );
    let mut running = killed.run();
    killed.settle(&mut running);
    running.stop();
    assert_eq!(killed.hashes(), wanted);
    let out = killed.command(&["verify"]).output().expect("verify");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(
        said.contains("12 tasks on this machine") && !said.contains("left out"),
        "{said}"
    );
}

/// Kafka is killed and comes back: the process waits, resumes, and loses nothing.
///
/// Our broker is alone, and killed while it writes the markers of a transaction it may skip the rest of them when it is back
/// (docs/faults.md, "A transaction that Kafka never ends"). It says so, and then nothing can be seen of the program.
#[test]
#[ignore = "needs real servers: make test"]
fn kafka_away_and_back() {
    let platform = Platform::get();
    let calm = Installation::new(&platform, "books-plain", "plain", "debezium-json");
    let wanted = calm.hashes();
    let said = || std::fs::read_to_string(platform.dir.join("kafka.log")).expect("log of the broker");

    for life in 1..=8 {
        let books = Installation::new(&platform, &format!("books-outage-{life}"), "plain", "debezium-json");
        books.apply();
        let mut running = books.run();
        std::thread::sleep(Duration::from_millis(1_500));
        let before = said().len();
        platform.script("platform/platform", &["kill", "kafka"]);
        std::thread::sleep(Duration::from_secs(5));
        running.assert_alive();
        platform.script("platform/platform", &["start", "kafka"]);
        let skipped = |line: &str| line.contains("Couldn't find leader endpoint") && line.contains(&books.name);
        if said()[before..].lines().any(skipped) {
            println!("{}: the broker skipped markers; once more", books.name);
            running.kill();
            continue;
        }
        books.settle(&mut running);
        running.stop();
        assert_eq!(books.hashes(), wanted);
        return;
    }
    panic!("the broker skipped markers each time; its log is kafka.log");
}

/// Servers that are not there at the start: a clear error after a bounded wait, not a hang.
#[test]
#[ignore = "needs real servers: make test"]
fn nobody_home() {
    let platform = Platform::get();
    let mut books = Installation::new(&platform, "books-nobody", "plain", "debezium-json");
    books.change_topology(&[("startup_timeout = \"60s\"", "startup_timeout = \"3s\"")]);

    let began = Instant::now();
    let out = books
        .command(&["run"])
        .env("KAFKA_BOOTSTRAP", "127.0.0.1:1")
        .output()
        .expect("run");
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{words}");
    assert!(words.contains("no Kafka broker answered at 127.0.0.1:1"), "{words}");

    let out = books
        .command(&["run"])
        .env("REGISTRY_URL", "http://127.0.0.1:1")
        .output()
        .expect("run");
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{words}");
    assert!(words.contains("127.0.0.1:1"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(60), "the waits are bounded");
}

/// Two instances, of which each has some of the contracts: either one answers for all, also after the other is gone.
#[test]
#[ignore = "needs real servers: make test"]
fn queries_reach_all_contracts_through_any_instance() {
    let platform = Platform::get();
    let books = Installation::new(&platform, "books-queried", "plain", "debezium-json");
    books.apply();
    let instances: Vec<Installation<'_>> = ["a", "b"].map(|name| books.instance(name)).into();
    let ports: Vec<u16> = (0..2)
        .map(|_| {
            std::net::TcpListener::bind("127.0.0.1:0")
                .expect("port")
                .local_addr()
                .expect("address")
                .port()
        })
        .collect();
    let start = |n: usize| instances[n].run_with(&[("ACCRUE_HTTP_LISTEN", &format!("127.0.0.1:{}", ports[n]))]);
    let (mut first, second) = (start(0), start(1));
    books.settle(&mut first);

    let within = Duration::from_secs(90);
    let list = |port: u16| -> Vec<serde_json::Value> {
        let began = Instant::now();
        let (mut deals, mut from) = (Vec::new(), String::new());
        loop {
            let (status, body) = ask(port, &format!("/contracts?tenant=acme-corp&limit=25&from={from}"));
            if status != 200 {
                assert_eq!(status, 503, "{body}");
                assert!(began.elapsed() < within, "no list: {body}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
            assert_eq!(body["positions"].as_array().map(Vec::len), Some(6), "{body}");
            deals.extend(body["deals"].as_array().expect("deals").iter().cloned());
            match body["next"].as_str() {
                Some(next) => from = next.to_owned(),
                None => return deals,
            }
        }
    };
    let deals = list(ports[0]);
    let calm = Installation::new(&platform, "books-plain", "plain", "debezium-json");
    assert_eq!(books.hashes(), calm.hashes(), "two instances write what one does");
    assert!(deals.len() >= 110, "{} deals", deals.len());
    let ids: BTreeSet<&str> = deals.iter().filter_map(|deal| deal["deal_id"].as_str()).collect();
    assert_eq!(ids.len(), deals.len(), "each once");
    assert_eq!(list(ports[1]), deals, "both say the same");
    // Some are here, some there, and each is had from either, once the second one has its share: the first may have done all
    // there was to do before that one was in the group.
    let of = |port: u16, id: &str, query: &str| ask(port, &format!("/contracts/acme-corp/{id}{query}"));
    let home = |id: &str| -> Option<usize> {
        let local = [0, 1].map(|n| of(ports[n], id, "?local=true").0);
        let (one, other) = (of(ports[0], id, ""), of(ports[1], id, ""));
        match local {
            [200, 503] if one.0 == 200 && one == other => Some(0),
            [503, 200] if one.0 == 200 && one == other => Some(1),
            _ => None,
        }
    };
    let homes = || -> Option<[usize; 2]> {
        let mut homes = [0, 0];
        for id in &ids {
            homes[home(id)?] += 1;
        }
        homes.iter().all(|count| *count > 0).then_some(homes)
    };
    let began = Instant::now();
    let homes = loop {
        match homes() {
            Some(homes) => break homes,
            None => assert!(
                began.elapsed() < within,
                "not each contract is had from either instance"
            ),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    println!("{homes:?} contracts by instance");

    second.kill();
    let began = Instant::now();
    let after = list(ports[0]);
    println!(
        "a full list {:.1} s after the other was killed",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(after, deals);
    first.stop();
}

/// Status and body of a request to an instance of this machine.
fn ask(port: u16, path: &str) -> (u16, serde_json::Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let response = reqwest::get(format!("http://127.0.0.1:{port}{path}"))
            .await
            .expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    })
}

/// A reset, killed now and then, writes the same books again; a rewind adds nothing; grown partitions are refused, and the way
/// out that the refusal names leads to the same books in more partitions.
#[test]
#[ignore = "needs real servers: make test"]
fn reset_rewind_and_more_partitions() {
    let platform = Platform::get();
    let mut books = Installation::new(&platform, "books-reset", "reset", "debezium-json");
    // No static member that outlives its process.
    books.instance = String::new();
    books.change_topology(&[
        ("topic = \"deal.events\"", "topic = \"reset.deal.events\""),
        ("topic = \"reference.facts\"", "topic = \"reset.reference.facts\""),
    ]);
    let save = |name: &str, text: &str| {
        let file = platform.dir.join(name);
        std::fs::write(&file, text).expect("write");
        file
    };
    books.apply();
    let event = |id: &str, kind: &str, at: &str, payload: &str| {
        format!(
            "{{\"event_id\":\"{id}\",\"source\":\"test\",\"type\":\"{kind}\",\"occurred_at\":\"{at}T00:00:00Z\",\"tenant_id\":\"reset\",\"payload\":{payload}}}\n"
        )
    };
    let (mut deals, mut ticks) = (String::new(), String::new());
    for n in 0..60 {
        let deal = |amount: u32| {
            format!(
                "{{\"deal_id\":\"R{n}\",\"amount\":{amount},\"currency\":\"USD\",\"term_months\":12,\"contract_start\":\"2024-02-01\"}}"
            )
        };
        deals += &event(&format!("closed-{n}"), "deal.closed", "2024-01-05", &deal(1_200 + n));
        if n % 3 == 0 {
            deals += &event(&format!("amended-{n}"), "deal.amended", "2024-06-10", &deal(2_400 + n));
        }
    }
    for month in 2..=12 {
        let day = format!("2024-{month:02}-01");
        ticks += &event(
            &format!("tick-{month}"),
            "clock.ticked",
            &day,
            &format!("{{\"date\":\"{day}\"}}"),
        );
    }
    let run = |books: &Installation<'_>, arguments: &[&str]| -> (Option<i32>, String) {
        let out = books.command(arguments).stdin(Stdio::null()).output().expect("accrue");
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    for (source, facts) in [("deal-events", &deals), ("reference-facts", &ticks)] {
        let file = save(&format!("reset-{source}.jsonl"), facts);
        let (code, text) = run(
            &books,
            &["facts", "post", file.to_str().expect("path"), "--source", source],
        );
        assert_eq!(code, Some(0), "{text}");
    }
    let work = |books: &Installation<'_>| {
        let mut running = books.run();
        books.settle(&mut running);
        running.stop();
    };
    // How often each record is there, without its place; of compacted topics the last one of each key.
    let held = |books: &Installation<'_>| -> BTreeMap<(String, String), usize> {
        let (mut held, mut last) = (BTreeMap::new(), BTreeMap::new());
        for line in books.read("dump").lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("a record");
            let topic = record["topic"].as_str().expect("topic").to_owned();
            let (key, offset) = (record["key"].to_string(), record["offset"].as_u64());
            let whole = format!("{key} {}", record["value"]);
            match topic.trim_start_matches(&books.prefix()) {
                // The migration at the end has facts in another topic.
                "contract.facts" => {}
                "contract.state" | "recognition.schedule" | "billing.schedule" => {
                    let known = last.entry((topic, key)).or_insert((offset, whole.clone()));
                    if known.0 < offset {
                        *known = (offset, whole);
                    }
                }
                _ => *held.entry((topic, whole)).or_default() += 1,
            }
        }
        held.extend(last.into_iter().map(|((topic, _), (_, whole))| ((topic, whole), 1)));
        held
    };

    let mut running = books.run();
    books.settle(&mut running);
    let (code, refused) = run(&books, &["reset", "--yes"]);
    assert_eq!(code, Some(1), "{refused}");
    assert!(
        refused.contains("group books-reset has live members (1): stop the processes first"),
        "{refused}"
    );
    running.stop();
    let first = held(&books);
    let journal = |held: &BTreeMap<(String, String), usize>| -> Vec<usize> {
        let entries = held.iter().filter(|((topic, _), _)| topic.ends_with("journal.entries"));
        entries.map(|(_, count)| *count).collect()
    };
    let entries = journal(&first);
    assert!(
        entries.len() > 600 && entries.iter().all(|count| *count == 1),
        "{}",
        entries.len()
    );

    let mut unfinished = 0;
    for wait in [300, 500, 700, 900, 1_200, 1_500] {
        let mut child = books
            .command(&["reset", "--yes"])
            .stdout(Stdio::null())
            .spawn()
            .expect("reset");
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let (_, text) = run(&books, &["offsets", "rewind", "reset.deal.events", "--to", "0"]);
        unfinished += usize::from(text.contains("a reset of books-reset was begun and has not ended"));
    }
    println!("{unfinished} of 6 resets were killed in the middle");
    let (code, text) = run(&books, &["reset", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    work(&books);
    let second = held(&books);
    assert!(second.keys().eq(first.keys()), "the same records");
    assert!(journal(&second).iter().all(|count| *count == 2), "each entry once more");

    let (code, text) = run(
        &books,
        &[
            "offsets",
            "rewind",
            "reset.deal.events",
            "--to-time",
            "2024-01-01T00:00:00Z",
            "--yes",
        ],
    );
    assert_eq!(code, Some(0), "{text}");
    work(&books);
    let third = held(&books);
    assert!(third.keys().eq(first.keys()), "the same records");
    assert_eq!(journal(&third), journal(&second), "no entry");

    let log = platform.log();
    for topic in ["books-reset.contract.facts", "books-reset-contract-changelog"] {
        log.grow(&Topic::new(topic), 12).expect("grow");
    }
    let (code, text) = run(&books, &["run"]);
    assert_eq!(code, Some(1), "{text}");
    let wanted = "topic books-reset.contract.facts, which stage contract reads, had 6 partitions and has 12 now";
    assert!(text.contains(wanted), "{text}");

    books.change_topology(&[
        (
            "contract_facts = \"contract.facts\"",
            "contract_facts = \"contract.facts.12\"\ncrm_changes = \"crm.changes.12\"",
        ),
        ("partitions = 6", "partitions = 12"),
    ]);
    let (code, text) = run(&books, &["apply"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("done: 2 topics created") && text.contains("`accrue run` would not start"),
        "{text}"
    );
    let (code, text) = run(&books, &["run"]);
    assert_eq!(code, Some(1), "{text}");
    let wanted = "stage contract read books-reset.contract.facts, and reads books-reset.contract.facts.12 now";
    assert!(text.contains(wanted), "{text}");
    let (code, text) = run(&books, &["reset", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    work(&books);
    let fourth = held(&books);
    assert!(fourth.keys().eq(first.keys()), "the same records");
    assert!(journal(&fourth).iter().all(|count| *count == 3), "each entry once more");
    let (code, text) = run(&books, &["books", "verify"]);
    assert_eq!(code, Some(0), "{text}");
}

/// What cannot be used is in the dead letters, whole, and an outsider can read it there. Runs last: the bad records stay in
/// the topic that all installations read.
#[test]
#[ignore = "needs real servers: make test"]
fn unusable_records_are_dead_letters() {
    let platform = Platform::get();
    let books = Installation::new(&platform, "books-bad", "plain", "debezium-json");
    books.apply();
    let log = platform.log();
    let mut producer = log.producer("bad-records").expect("producer");
    producer.begin().expect("begin");
    let event = |id: &str, payload: &str| {
        format!(
            r#"{{"event_id":"{id}","source":"test","type":"deal.closed","occurred_at":"2026-01-05T00:00:00Z","tenant_id":"bad","payload":{payload}}}"#
        )
    };
    for value in [
        "not JSON at all".to_owned(),
        event(
            "no-currency",
            r#"{"deal_id":"B1","amount":10,"term_months":12,"contract_start":"2026-02-01"}"#,
        ),
        event(
            "odd-currency",
            r#"{"deal_id":"B2","amount":10,"currency":"ZZZ","term_months":12,"contract_start":"2026-02-01"}"#,
        ),
        event(
            "negative-term",
            r#"{"deal_id":"B3","amount":10,"currency":"USD","term_months":-1,"contract_start":"2026-02-01"}"#,
        ),
    ] {
        producer
            .send(Outgoing {
                to: TopicPartition::new(&Topic::new("deal.events"), Partition(0)),
                timestamp: Timestamp(1_767_600_000_000),
                key: Some(b"bad".to_vec()),
                value: Some(value.into_bytes()),
                headers: vec![Header::new("who", "test")],
            })
            .expect("send");
    }
    producer.commit(&Positions::new(), None).expect("commit");

    let mut running = books.run();
    books.settle(&mut running);
    running.stop();
    let topic = format!("{}accrue.dead-letters", books.prefix());
    let letters: Vec<serde_json::Value> = platform
        .script("e2e/reader.py", &["dump", &topic])
        .lines()
        .map(|line| serde_json::from_str(line).expect("a decoded letter"))
        .collect();
    let told: Vec<(String, bool)> = letters
        .iter()
        .map(|letter| {
            let value = &letter["value"];
            assert_eq!(value["topic"], "deal.events");
            assert_eq!(value["stage"], "rekey");
            assert_eq!(value["headers"][0]["name"], "who");
            let whole = value["value"].as_str().is_some_and(|bytes| !bytes.is_empty());
            (value["code"].as_str().unwrap_or_default().to_owned(), whole)
        })
        .collect();
    let codes = ["malformed", "missing_field", "unknown_currency", "malformed"];
    assert_eq!(told, codes.map(|code| (code.to_owned(), true)), "{letters:#?}");
}
