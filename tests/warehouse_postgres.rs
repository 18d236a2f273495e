//! PostgreSQL as a warehouse, on a real server: the tables equal the books, whatever happens to the worker.
//!
//! `make test` starts the server and runs this; `ACCRUE_TEST_POSTGRES` is its connection string. Each test has a schema.

mod warehouse;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use accrue::codec::schemas::Product;
use accrue::sink::warehouse::postgres::Postgres;
use accrue::sink::warehouse::worker::Worker;
use accrue::sink::warehouse::{Move, TableBatch, Warehouse, WarehouseError, tables};
use accrue::stream::log::kafka::{KafkaLog, KafkaTimeouts};
use accrue::stream::log::{Cleanup, Log, Positions, TopicSpec};
use accrue::stream::record::{Offset, Outgoing, Partition, Timestamp, Topic, TopicPartition};
use postgres::config::Host;
use postgres::{Client, NoTls, SimpleQueryMessage};
use warehouse::{Data, compare, fill, kill_again_and_again, program};

const NEEDS: &str = "ACCRUE_TEST_POSTGRES must name a server; `make test` starts one";

fn dsn() -> String {
    std::env::var("ACCRUE_TEST_POSTGRES").expect(NEEDS)
}

/// A fresh schema and a client that looks into it.
fn schema(name: &str) -> Client {
    let mut client = Client::connect(&dsn(), NoTls).expect(NEEDS);
    client
        .batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}; SET search_path TO {name}"
        ))
        .expect("schema");
    client
}

fn ask(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let answer = client
        .simple_query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|n| row.get(n).unwrap_or_default().to_owned())
                .collect(),
        ),
        _ => None,
    });
    rows.collect()
}

fn warehouse(schema: &str) -> Postgres {
    Postgres::new(&dsn(), schema, tables::ALL)
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn what_remains_is_what_the_report_says_while_a_period_is_posted_in_part() {
    let mut client = schema("wh_part");
    let data = Data::new();
    let wanted = warehouse::posted_in_part(&data);
    let log = data.log();
    fill(&data, &log, &mut warehouse("wh_part"), 50_000);
    let part = "SELECT 1 FROM recognition_current WHERE NOT posted AND posted_amount <> 0";
    assert!(
        !ask(&mut client, part).is_empty(),
        "no period is posted in part: the test proves nothing"
    );
    let found = ask(&mut client, warehouse::RPO);
    let mut found: Vec<String> = found.iter().map(|cells| warehouse::joined(cells)).collect();
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn tables_equal_the_books_and_a_second_run_writes_nothing() {
    let mut client = schema("wh_plain");
    let data = Data::new();
    let log = data.log();
    let commits = fill(&data, &log, &mut warehouse("wh_plain"), 50_000);
    assert!(commits > 0);
    let books = data.books(log.as_ref());
    compare(&books, &mut |sql| ask(&mut client, sql));
    assert_eq!(fill(&data, &log, &mut warehouse("wh_plain"), 50_000), 0);

    // From the start again: the same tables.
    let mut again = warehouse("wh_plain");
    again.clear().expect("clear");
    assert_eq!(
        ask(&mut client, "SELECT 1 FROM fact_journal_line"),
        Vec::<Vec<String>>::new()
    );
    assert!(fill(&data, &log, &mut again, 1_000) > 10);
    compare(&books, &mut |sql| ask(&mut client, sql));
}

/// The books' topics on a broker, as transactions with aborted ones between: offsets have gaps there.
fn copy_to_kafka(
    topics: BTreeMap<Product, Topic>,
    from: &dyn Log,
    to: &KafkaLog,
    prefix: &str,
) -> BTreeMap<Product, Topic> {
    let mut copied = BTreeMap::new();
    for (product, topic) in topics {
        let there = Topic::new(format!("{prefix}{topic}"));
        to.create_topics(&[TopicSpec {
            topic: there.clone(),
            partitions: from.partitions(&topic).expect("partitions").expect("topic"),
            replication_factor: 1,
            cleanup: Cleanup::Delete { retention: None },
        }])
        .expect("topic");
        let mut producer = to.producer(&format!("{prefix}copy")).expect("producer");
        for batch in warehouse::records(from, topic.as_str()).chunks(700) {
            for commits in [false, true] {
                producer.begin().expect("begin");
                for record in batch {
                    let outgoing = Outgoing {
                        to: TopicPartition::new(&there, record.at.partition),
                        // The sample's history reaches past today, which a broker refuses.
                        timestamp: Timestamp(0),
                        key: record.key.clone(),
                        value: record.value.clone(),
                        headers: record.headers.clone(),
                    };
                    producer.send(outgoing).expect("send");
                }
                match commits {
                    true => drop(producer.commit(&Positions::new(), None).expect("commit")),
                    false => producer.abort().expect("abort"),
                }
            }
        }
        copied.insert(product, there);
    }
    copied
}

#[test]
#[ignore = "needs PostgreSQL and Kafka: make test"]
fn from_a_real_broker_only_what_was_committed_arrives() {
    let mut client = schema("wh_kafka");
    let data = Data::new();
    let log = data.log();
    let bootstrap = std::env::var("ACCRUE_TEST_KAFKA").expect("ACCRUE_TEST_KAFKA; `make test` starts a broker");
    let kafka = KafkaLog::connect(
        BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap)]),
        KafkaTimeouts {
            transaction: Duration::from_secs(30),
            session: Duration::from_secs(45),
        },
        Duration::from_secs(30),
        &|message| eprintln!("{message}"),
    )
    .expect("broker");
    let topics = copy_to_kafka(
        warehouse::topics(&data.topology("")),
        log.as_ref(),
        &kafka,
        &format!("wh-{}.", std::process::id()),
    );
    let worker = Worker {
        topics,
        ..data.worker(Arc::new(kafka), 3_000)
    };
    let stop = AtomicBool::new(false);
    let mut postgres = warehouse("wh_kafka");
    postgres.prepare(false).expect("prepare");
    let report = worker.run(&mut postgres, &stop).expect("worker");
    assert!(report.commits > 2 && report.unfit == 0, "{report:?}");
    compare(&data.books(log.as_ref()), &mut |sql| ask(&mut client, sql));
    let again = worker.run(&mut warehouse("wh_kafka"), &stop).expect("worker");
    assert_eq!(again.commits, 0, "a run that resumes at the end has nothing to write");
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn receipts_say_which_entries_a_ledger_has() {
    let mut client = schema("wh_receipts");
    let data = Data::new();
    let delivered = Command::new(env!("CARGO_BIN_EXE_accrue"))
        .args(["sink", "files", "--until-idle", "--listen", "127.0.0.1:0", "--topology"])
        .arg(data.topology_file(""))
        .stdout(Stdio::null())
        .status()
        .expect("accrue sink");
    assert!(delivered.success());
    let log = data.log();
    fill(&data, &log, &mut warehouse("wh_receipts"), 50_000);
    let mut count = |sql: &str| -> usize { ask(&mut client, sql)[0][0].parse().expect("number") };
    let known = count("SELECT count(DISTINCT entry_id) FROM fact_receipt WHERE outcome = 'acknowledged'");
    assert!(known > 1_000, "{known} entries were delivered");
    let entries = warehouse::records(log.as_ref(), "receipts").len();
    assert_eq!(known, entries, "one receipt for each entry");
    assert_eq!(count("SELECT sum(delivered_entries) FROM mart_reconciliation"), known);
    let strangers = "SELECT count(*) FROM fact_receipt r WHERE NOT EXISTS \
                     (SELECT 1 FROM fact_journal_line j WHERE j.entry_id = r.entry_id AND j.deal_id = r.deal_id)";
    assert_eq!(count(strangers), 0);
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn killed_again_and_again_it_ends_with_the_same_tables() {
    let mut client = schema("wh_killed");
    let data = Data::new();
    let file = data.topology_file(&format!(
        "[warehouses.main]\nkind = \"postgres\"\nurl = {:?}\nschema = \"wh_killed\"\nmax_rows = 400\n",
        dsn()
    ));
    let mut held = 0;
    kill_again_and_again(&file, "main", || {
        let now: i64 = match client.query_one("SELECT coalesce(sum(next_offset), 0)::bigint FROM accrue_position", &[])
        {
            Ok(row) => row.get(0),
            Err(_) => 0, // killed before it made the tables
        };
        assert!(now >= held, "positions went back from {held} to {now}");
        held = now;
    });
    assert!(program(&file, "main").status().expect("accrue").success());
    let log = data.log();
    compare(&data.books(log.as_ref()), &mut |sql| ask(&mut client, sql));
}

/// Forwards connections to the server, once it may: an address of its own.
fn gateway(may: mpsc::Receiver<()>) -> SocketAddr {
    let config: postgres::Config = dsn().parse().expect("a connection string");
    let host = match &config.get_hosts()[0] {
        Host::Tcp(host) => host.clone(),
        Host::Unix(path) => panic!("{}: a TCP address is needed", path.display()),
    };
    let port = config.get_ports()[0];
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        may.recv().expect("leave to forward");
        for client in listener.incoming() {
            let client = client.expect("connection");
            let server = TcpStream::connect((host.as_str(), port)).expect("server");
            for (mut from, mut to) in [
                (client.try_clone().expect("clone"), server.try_clone().expect("clone")),
                (server, client),
            ] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    address
}

/// Status and body of `GET http://ADDRESS/PATH`; `None` where nobody listens.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn a_worker_is_ready_once_the_warehouse_has_answered() {
    let mut client = schema("wh_ready");
    let data = Data::new();
    let (open, may) = mpsc::channel();
    let server: postgres::Config = dsn().parse().expect("a connection string");
    let url = format!(
        "postgresql://{}:{}@{}/{}?sslmode=disable",
        server.get_user().unwrap_or_default(),
        String::from_utf8_lossy(server.get_password().unwrap_or_default()),
        gateway(may),
        server.get_dbname().unwrap_or_default()
    );
    let file = data.topology_file(&format!(
        "[warehouses.main]\nkind = \"postgres\"\nurl = {url:?}\nschema = \"wh_ready\"\n"
    ));
    // Free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").expect("listener");
    let listen = free.local_addr().expect("address");
    drop(free);
    let mut worker = Command::new(env!("CARGO_BIN_EXE_accrue"))
        .args(["warehouse", "main", "--listen", &listen.to_string(), "--topology"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("accrue");
    let status = |path: &str| get(listen, path).map(|(status, _)| status);
    let mut until = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert_eq!(worker.try_wait().expect("wait"), None, "it ended before {what}");
            assert!(Instant::now() < deadline, "still not: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("it listens", &|| status("/live") == Some(200));
    let (code, why) = get(listen, "/ready").expect("an answer");
    assert_eq!(code, 503);
    assert!(why.contains("warehouse main has not answered"), "{why}");
    open.send(()).expect("the gateway");
    until("it is ready", &|| status("/ready") == Some(200));
    until("all is written", &|| {
        let told = get(listen, "/metrics").map(|(_, body)| body).unwrap_or_default();
        told.contains("accrue_warehouse_lag_records{name=\"main\"} 0")
            && !told.contains("accrue_warehouse_rows_total{name=\"main\"} 0")
    });
    let asked = Command::new("kill")
        .arg(worker.id().to_string())
        .status()
        .expect("kill");
    assert!(asked.success() && worker.wait().expect("wait").success(), "a clean end");
    let log = data.log();
    compare(&data.books(log.as_ref()), &mut |sql| ask(&mut client, sql));
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn of_two_workers_one_writes_and_nothing_is_doubled() {
    let mut client = schema("wh_two");
    let data = Data::new();
    let log = data.log();
    warehouse("wh_two").prepare(false).expect("prepare");
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let worker = data.worker(log.clone(), 500);
            std::thread::spawn(move || {
                worker
                    .run(&mut warehouse("wh_two"), &std::sync::atomic::AtomicBool::new(false))
                    .expect("worker")
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("thread");
    }
    compare(&data.books(log.as_ref()), &mut |sql| ask(&mut client, sql));
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn a_zombie_is_refused_and_leaves_no_row() {
    let mut client = schema("wh_zombie");
    let data = Data::new();
    let log = data.log();
    let mut zombie = warehouse("wh_zombie");
    fill(&data, &log, &mut zombie, 50_000);
    let held = zombie.positions().expect("positions");
    let at = TopicPartition::new(&Topic::new("journal.entries"), Partition(0));
    let from = held[&("dim_account", at.clone())];
    let step = |to: u64| {
        let row = ["t", "a", "r"].map(|text| accrue::sink::warehouse::row::Value::Text(format!("{text}{to}")));
        let mut row = row.to_vec();
        row.extend([0, 0].map(accrue::sink::warehouse::row::Value::Integer));
        vec![TableBatch {
            table: tables::ALL
                .iter()
                .find(|table| table.name == "dim_account")
                .expect("table"),
            rows: vec![row],
            moves: vec![Move {
                at: at.clone(),
                from: Some(from),
                to: Offset(to),
            }],
        }]
    };
    warehouse("wh_zombie")
        .commit(&step(from.0 + 1))
        .expect("the new owner commits");
    let refused = zombie.commit(&step(from.0 + 2));
    assert!(matches!(refused, Err(WarehouseError::Fenced(_))), "{refused:?}");
    let found = ask(
        &mut client,
        "SELECT tenant_id FROM dim_account WHERE tenant_id LIKE 't%'",
    );
    assert_eq!(found, [[format!("t{}", from.0 + 1)]]);
}

#[test]
#[ignore = "needs PostgreSQL: make test"]
fn columns_are_added_and_others_types_are_refused() {
    let mut client = schema("wh_schema");
    let data = Data::new();
    let log = data.log();
    fill(&data, &log, &mut warehouse("wh_schema"), 50_000);
    // As if accrue had learned a column since.
    client
        .batch_execute("DROP VIEW mart_reconciliation; ALTER TABLE dim_customer DROP COLUMN accounting_id")
        .expect("drop");
    let mut later = warehouse("wh_schema");
    let would = later.prepare(true).expect("dry run");
    assert!(
        would
            .iter()
            .any(|step| step == "table dim_customer: column accounting_id added"),
        "{would:?}"
    );
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'wh_schema' \
                   AND table_name = 'dim_customer' AND column_name = 'accounting_id'";
    assert_eq!(ask(&mut client, columns), [["0"]]);
    later.prepare(false).expect("prepare");
    assert_eq!(ask(&mut client, columns), [["1"]]);

    client
        .batch_execute("DROP TABLE dim_account; CREATE TABLE dim_account (tenant_id text, account text, role integer)")
        .expect("another table");
    let refused = later.prepare(false).expect_err("another type");
    assert!(
        refused
            .to_string()
            .contains("wh_schema.dim_account.role is integer, and accrue writes text"),
        "{refused}"
    );
}
