//! Lakehouse tables: equal to the books in DuckDB and in delta-rs, whatever happens to the worker.
//!
//! Tests that need no other program look at the tables through a second `Lakehouse`; the ignored ones ask DuckDB and
//! delta-rs, whose Python `ACCRUE_TEST_LAKE_PYTHON` names (`make test` sets it).

mod warehouse;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use accrue::sink::warehouse::lakehouse::Lakehouse;
use accrue::sink::warehouse::lakehouse::store::{Folder, S3, Store};
use accrue::sink::warehouse::metrics::Metrics;
use accrue::sink::warehouse::row::Value;
use accrue::sink::warehouse::worker::Worker;
use accrue::sink::warehouse::{Move, TableBatch, Warehouse, WarehouseError, tables};
use accrue::stream::record::{Offset, Partition, Topic, TopicPartition};
use serde_json::{Value as Json, json};
use warehouse::{Data, compare, fill, kill_again_and_again, program};

fn lake(folder: &Path) -> Lakehouse {
    // Small files, so that the sample makes many and they are cut.
    Lakehouse::new(Box::new(Folder::new(folder)), tables::ALL).with_rows_per_file(700)
}

/// What `tests/warehouse/lake.py` says.
fn ask(program: &str, lake: &str, question: &Json, env: &[(&str, &str)]) -> Json {
    let python = std::env::var("ACCRUE_TEST_LAKE_PYTHON").expect("ACCRUE_TEST_LAKE_PYTHON; `make test` sets it");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/warehouse/lake.py");
    let mut child = Command::new(python)
        .arg(script)
        .args([program, lake])
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut input = child.stdin.take().expect("stdin");
    input.write_all(question.to_string().as_bytes()).expect("question");
    drop(input);
    let out = child.wait_with_output().expect("answer");
    assert!(out.status.success(), "{program} failed");
    serde_json::from_slice(&out.stdout).expect("JSON")
}

/// Compares with the books in DuckDB; all questions go to one process.
fn compare_in_duckdb(data: &Data, log: &dyn accrue::stream::log::Log, folder: &Path) {
    let questions = warehouse::QUESTIONS
        .iter()
        .chain(&warehouse::NEVER)
        .map(|(_, sql)| *sql);
    let asked: Vec<&str> = questions.chain([warehouse::FINDINGS]).collect();
    let answers = ask("duckdb", &folder.display().to_string(), &json!(asked), &[]);
    let rows = |sql: &str| -> Vec<Vec<String>> {
        let at = asked.iter().position(|known| *known == sql).expect("a known question");
        serde_json::from_value(answers[at].clone()).expect("rows of texts")
    };
    compare(&data.books(log), &mut |sql| rows(sql));
}

#[test]
#[ignore = "needs DuckDB and delta-rs: make test"]
fn duckdb_and_delta_rs_read_what_the_books_say() {
    let data = Data::new();
    let log = data.log();
    let folder = data.dir.path().join("lake");
    assert!(fill(&data, &log, &mut lake(&folder), 2_000) > 5);
    compare_in_duckdb(&data, log.as_ref(), &folder);

    let said = ask(
        "deltalake",
        &folder.display().to_string(),
        &json!(["fact_journal_line", "dim_customer"]),
        &[],
    );
    let lines: usize = data.books(log.as_ref())["journal"].len();
    assert_eq!(said["fact_journal_line"]["rows"], json!(lines));
    let sums = &said["fact_journal_line"]["sums"];
    assert_eq!(sums["debit"], sums["credit"]);
    assert_eq!(sums["functional_debit"], sums["functional_credit"]);
    assert!(said["fact_journal_line"]["files"].as_u64() > Some(5), "{said}");
    assert_eq!(fill(&data, &log, &mut lake(&folder), 2_000), 0);
}

#[test]
#[ignore = "needs DuckDB and delta-rs: make test"]
fn killed_again_and_again_and_over_many_versions_it_ends_with_the_same_tables() {
    let data = Data::new();
    let folder = data.dir.path().join("lake");
    let file = data.topology_file(&format!(
        "[warehouses.delta]\nkind = \"lakehouse\"\nlocation = {:?}\nmax_rows = 400\n",
        folder.display().to_string()
    ));
    kill_again_and_again(&file, "delta", || ());
    assert!(program(&file, "delta").status().expect("accrue").success());
    // More than ten versions: readers open a checkpoint.
    let checkpoint = folder.join("fact_journal_line/_delta_log/_last_checkpoint");
    assert!(
        checkpoint.exists(),
        "too few versions for a checkpoint: the test proves less than it should"
    );
    let log = data.log();
    compare_in_duckdb(&data, log.as_ref(), &folder);
    let said = ask(
        "deltalake",
        &folder.display().to_string(),
        &json!(["fact_journal_line"]),
        &[],
    );
    assert!(said["fact_journal_line"]["version"].as_u64() > Some(10), "{said}");
}

/// A row of `dim_account` and the move of one position.
fn step(from: Option<Offset>, to: u64) -> Vec<TableBatch> {
    let mut row: Vec<Value> = ["t", "a", "r"].map(|text| Value::Text(format!("{text}{to}"))).to_vec();
    row.extend([0, 0].map(Value::Integer));
    vec![TableBatch {
        table: tables::ALL
            .iter()
            .find(|table| table.name == "dim_account")
            .expect("table"),
        rows: vec![row],
        moves: vec![Move {
            at: at(),
            from,
            to: Offset(to),
        }],
    }]
}

fn at() -> TopicPartition {
    TopicPartition::new(&Topic::new("journal.entries"), Partition(0))
}

fn held(warehouse: &mut Lakehouse) -> Option<Offset> {
    warehouse
        .positions()
        .expect("positions")
        .get(&("dim_account", at()))
        .copied()
}

#[test]
fn a_zombie_is_refused_and_a_lost_race_leaves_no_row() {
    let dir = tempfile::tempdir().expect("folder");
    let (mut owner, mut zombie) = (lake(dir.path()), lake(dir.path()));
    owner.prepare(false).expect("prepare");
    assert_eq!((held(&mut owner), held(&mut zombie)), (None, None));
    owner.commit(&step(None, 10)).expect("the owner commits");
    // The zombie has not seen that version.
    let refused = zombie.commit(&step(None, 20));
    assert!(matches!(refused, Err(WarehouseError::Fenced(_))), "{refused:?}");
    assert_eq!(held(&mut zombie), Some(Offset(10)));
    // Now it has, and wants to go on from where it thinks it is.
    let refused = zombie.commit(&step(Some(Offset(5)), 20));
    assert!(matches!(refused, Err(WarehouseError::Fenced(_))), "{refused:?}");
    zombie
        .commit(&step(Some(Offset(10)), 20))
        .expect("from where the table stands");
    assert_eq!(held(&mut owner), Some(Offset(20)));
    // Emptied, it starts over.
    owner.clear().expect("clear");
    assert_eq!(held(&mut zombie), None);
    let late = zombie.commit(&step(Some(Offset(20)), 30));
    assert!(matches!(late, Err(WarehouseError::Fenced(_))), "{late:?}");
}

#[test]
fn a_table_with_foreign_files_or_types_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let mut ours = lake(dir.path());
    ours.prepare(false).expect("prepare");
    assert!(held(&mut ours).is_none());
    ours.commit(&step(None, 10)).expect("commit");
    let log = dir.path().join("dim_account/_delta_log");
    let first = std::fs::read_to_string(log.join(format!("{:020}.json", 0))).expect("version 0");
    assert!(first.contains("\"minReaderVersion\":1"), "{first}");
    let foreign =
        r#"{"add":{"path":"x.parquet","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}"#;
    std::fs::write(log.join(format!("{:020}.json", 2)), foreign).expect("version 2");
    let refused = ours.positions().expect_err("foreign");
    assert!(
        refused.to_string().contains("another engine added files to it"),
        "{refused}"
    );

    let other = first.replacen("\\\"type\\\":\\\"string\\\"", "\\\"type\\\":\\\"long\\\"", 1);
    assert_ne!(other, first, "the schema is written otherwise than this test thinks");
    for n in 1..=2 {
        std::fs::remove_file(log.join(format!("{n:020}.json"))).expect("remove");
    }
    std::fs::write(log.join(format!("{:020}.json", 0)), other).expect("version 0");
    let refused = ours.prepare(false).expect_err("another type");
    assert!(refused.to_string().contains("and accrue writes string"), "{refused}");
}

#[test]
fn two_workers_on_one_lake_double_nothing() {
    let data = Data::new();
    let log = data.log();
    let folder = data.dir.path().join("lake");
    lake(&folder).prepare(false).expect("prepare");
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (worker, folder) = (data.worker(log.clone(), 4_000), folder.clone());
            std::thread::spawn(move || worker.run(&mut lake(&folder), &AtomicBool::new(false)).expect("worker"))
        })
        .collect();
    for worker in workers {
        worker.join().expect("thread");
    }
    let mut whole = lake(&folder);
    for ((table, at), next) in whole.positions().expect("positions") {
        assert_eq!(next, log.end(&at).expect("end"), "{table} {at}");
    }
    assert_eq!(fill(&data, &log, &mut whole, 4_000), 0);
}

#[test]
#[ignore = "needs an S3 server: make test"]
fn on_s3_too_and_of_two_writers_one_is_refused() {
    let place = std::env::var("ACCRUE_TEST_S3").expect("ACCRUE_TEST_S3; `make test` starts a server");
    let store =
        |prefix: &str| S3::new(&place, "us-east-1", "accrue-test", prefix, "accrue", "accrue-secret").expect("S3");
    let prefix = format!("run-{}", std::process::id());
    let plain = store(&prefix);
    assert!(plain.put_new("a/1", b"one").expect("put"));
    assert!(!plain.put_new("a/1", b"two").expect("put again"));
    assert_eq!(plain.get("a/1").expect("get").as_deref(), Some(&b"one"[..]));
    assert_eq!(plain.get("a/2").expect("get"), None);
    plain.put("a/2", b"").expect("put");
    assert_eq!(plain.list("a/", "a/1").expect("list"), ["a/2"]);

    let data = Data::new();
    let log = data.log();
    let open = || Lakehouse::new(Box::new(store(&prefix)), tables::ALL);
    assert!(fill(&data, &log, &mut open(), 10_000) > 1);
    assert_eq!(fill(&data, &log, &mut open(), 10_000), 0);
    let env = [
        ("AWS_ENDPOINT_URL", place.as_str()),
        ("AWS_ACCESS_KEY_ID", "accrue"),
        ("AWS_SECRET_ACCESS_KEY", "accrue-secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    let said = ask(
        "deltalake",
        &format!("s3://accrue-test/{prefix}"),
        &json!(["fact_journal_line"]),
        &env,
    );
    assert_eq!(
        said["fact_journal_line"]["rows"],
        json!(data.books(log.as_ref())["journal"].len())
    );

    let (mut owner, mut zombie) = (open(), open());
    let (from, seen) = (held(&mut owner), held(&mut zombie));
    let next = from.map_or(1, |from| from.0 + 1);
    owner.commit(&step(from, next)).expect("owner");
    let refused = zombie.commit(&step(seen, next + 1));
    assert!(matches!(refused, Err(WarehouseError::Fenced(_))), "{refused:?}");
}

#[test]
fn a_worker_tells_what_it_wrote_and_how_far_it_is() {
    let data = Data::new();
    let log = data.log();
    let folder = data.dir.path().join("lake");
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry, "warehouse", "lake").expect("metrics");
    let worker = Worker {
        metrics: metrics.clone(),
        ..data.worker(log, 50_000)
    };
    assert!(!metrics.is_working(), "nothing has answered yet");
    let mut warehouse = lake(&folder);
    warehouse.prepare(false).expect("prepare");
    let report = worker.run(&mut warehouse, &AtomicBool::new(false)).expect("worker");
    assert!(metrics.is_working());
    let told = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .expect("text");
    for line in [
        format!("accrue_warehouse_rows_total{{name=\"lake\"}} {}", report.rows),
        format!("accrue_warehouse_commits_total{{name=\"lake\"}} {}", report.commits),
        "accrue_warehouse_lag_records{name=\"lake\"} 0".to_owned(),
    ] {
        assert!(
            report.rows > 0 && told.lines().any(|known| known == line),
            "{line}\n{told}"
        );
    }
    assert!(
        !told.contains("last_commit_timestamp_seconds{name=\"lake\"} 0\n"),
        "{told}"
    );
}
