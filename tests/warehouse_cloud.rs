//! Snowflake and BigQuery as warehouses, on doubles that carry out their SQL (`tests/doubles`): the tables equal the
//! books, whatever the vendor and the worker do.
//!
//! `make test` names the doubles' Python in `ACCRUE_TEST_DOUBLE_PYTHON`.

mod warehouse;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use accrue::sink::warehouse::cloud::bigquery::{self, BigQuery};
use accrue::sink::warehouse::cloud::snowflake::{self, Snowflake};
use accrue::sink::warehouse::cloud::{Client, Cloud};
use accrue::sink::warehouse::row::Value;
use accrue::sink::warehouse::{Move, TableBatch, Warehouse, WarehouseError, tables};
use accrue::stream::record::{Offset, Partition, Topic, TopicPartition};
use serde_json::{Value as Json, json};
use warehouse::{Data, compare, fill, program};

const VENDORS: [Vendor; 2] = [Vendor::Snowflake, Vendor::BigQuery];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    Snowflake,
    BigQuery,
}

type Books = BTreeMap<&'static str, Vec<String>>;

/// Both vendors in one process, which ends with this one: its input is a pipe of ours.
struct Double {
    child: Child,
    access: Json,
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Double {
    fn start() -> Double {
        let python =
            std::env::var("ACCRUE_TEST_DOUBLE_PYTHON").expect("ACCRUE_TEST_DOUBLE_PYTHON; `make test` sets it");
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doubles/cloud.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("double");
        let mut said = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        said.read_line(&mut line).expect("where it listens");
        let access = serde_json::from_str(&line).expect("JSON");
        Double { child, access }
    }

    fn of(&self, name: &str) -> &str {
        self.access[name].as_str().expect(name)
    }

    fn control(&self, what: &str, given: &Json) -> Json {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let url = format!("{}/double/{what}", self.of("address"));
        runtime.block_on(async {
            let answer = reqwest::Client::new()
                .post(url)
                .json(given)
                .send()
                .await
                .expect("double");
            answer.json().await.expect("JSON")
        })
    }

    fn schema(&self, name: &str) {
        self.control("schema", &json!(name));
    }

    fn arm(&self, faults: &Json) {
        self.control("arm", faults);
    }

    fn ask(&self, vendor: Vendor, schema: &str, sql: &str) -> Vec<Vec<String>> {
        let vendor = match vendor {
            Vendor::Snowflake => "snowflake",
            Vendor::BigQuery => "bigquery",
        };
        let answer = self.control("ask", &json!([vendor, schema, sql]));
        serde_json::from_value(answer["rows"].clone()).unwrap_or_else(|_| panic!("{sql}: {answer}"))
    }

    fn client(&self, vendor: Vendor, schema: &str) -> Box<dyn Client> {
        match vendor {
            Vendor::Snowflake => Box::new(
                Snowflake::new(&snowflake::Place {
                    endpoint: self.of("address"),
                    account: self.of("account"),
                    user: self.of("user"),
                    private_key: self.of("private_key"),
                    database: "FINANCE",
                    schema,
                    warehouse: "LOADING",
                    role: None,
                })
                .expect("client"),
            ),
            Vendor::BigQuery => Box::new(
                BigQuery::new(&bigquery::Place {
                    endpoint: self.of("address"),
                    project: self.of("project"),
                    dataset: schema,
                    location: Some("EU"),
                    credentials: self.of("credentials"),
                })
                .expect("client"),
            ),
        }
    }

    fn warehouse(&self, vendor: Vendor, schema: &str) -> Cloud {
        Cloud::new(self.client(vendor, schema), tables::ALL)
    }

    /// The same as a section of topology.toml.
    fn section(&self, vendor: Vendor, schema: &str, max_rows: usize) -> String {
        let address = self.of("address");
        match vendor {
            Vendor::Snowflake => format!(
                "[warehouses.cloud]\nkind = \"snowflake\"\nendpoint = {address:?}\naccount = {:?}\nuser = {:?}\n\
                 private_key = {:?}\ndatabase = \"FINANCE\"\nschema = {schema:?}\nwarehouse = \"LOADING\"\nmax_rows = {max_rows}\n",
                self.of("account"),
                self.of("user"),
                self.of("private_key"),
            ),
            Vendor::BigQuery => format!(
                "[warehouses.cloud]\nkind = \"bigquery\"\nendpoint = {address:?}\nproject = {:?}\ndataset = {schema:?}\n\
                 region = \"EU\"\ncredentials = {}\nmax_rows = {max_rows}\n",
                self.of("project"),
                json!(self.of("credentials")),
            ),
        }
    }

    fn compare(&self, vendor: Vendor, schema: &str, books: &Books) {
        compare(books, &mut |sql| self.ask(vendor, schema, sql));
        assert_eq!(
            self.ask(vendor, schema, "SELECT batch FROM accrue_stage"),
            Vec::<Vec<String>>::new(),
            "{vendor:?}: something stayed in the stage"
        );
    }
}

#[test]
#[ignore = "needs doubles of Snowflake and BigQuery: make test"]
fn tables_equal_the_books_and_a_second_run_writes_nothing() {
    let double = Double::start();
    double.schema("PLAIN");
    let data = Data::new();
    let log = data.log();
    let books = data.books(log.as_ref());
    for vendor in VENDORS {
        assert!(fill(&data, &log, &mut double.warehouse(vendor, "PLAIN"), 50_000) > 0);
        double.compare(vendor, "PLAIN", &books);
        let mut again = double.warehouse(vendor, "PLAIN");
        assert_eq!(fill(&data, &log, &mut again, 50_000), 0, "{vendor:?}");
        again.clear().expect("clear");
        let left = double.ask(vendor, "PLAIN", "SELECT entry_id FROM fact_journal_line");
        assert_eq!(left, Vec::<Vec<String>>::new(), "{vendor:?}");
        assert!(fill(&data, &log, &mut again, 20_000) > 1, "{vendor:?}");
        double.compare(vendor, "PLAIN", &books);
    }
}

#[test]
#[ignore = "needs doubles of Snowflake and BigQuery: make test"]
fn whatever_the_vendor_does_to_a_request_the_tables_equal_the_books() {
    let double = Double::start();
    double.schema("FAULTS");
    let data = Data::new();
    let faults = [
        "busy",
        "pending",
        "lost_after",
        "malformed",
        "broken",
        "expired",
        "broken_after",
        "lost_before",
    ];
    // Each fault strikes statements of every kind: the distance between two of them is no multiple of their number.
    let armed: Vec<Json> = (0..32).map(|n| json!([n % 3, faults[n % faults.len()]])).collect();
    let log = data.log();
    let books = data.books(log.as_ref());
    for vendor in VENDORS {
        let mut warehouse = double.warehouse(vendor, "FAULTS");
        warehouse.prepare(false).expect("prepare");
        double.arm(&json!(armed));
        fill(&data, &log, &mut warehouse, 4_000);
        let struck: Vec<String> = serde_json::from_value(double.control("struck", &Json::Null)).expect("faults");
        for fault in faults {
            assert!(
                struck.iter().any(|known| known == fault),
                "{vendor:?}: {fault} never struck: {struck:?}"
            );
        }
        double.arm(&json!([]));
        double.compare(vendor, "FAULTS", &books);
    }
}

#[test]
#[ignore = "needs doubles of Snowflake and BigQuery: make test"]
fn killed_before_and_after_every_kind_of_request_it_ends_with_the_same_tables() {
    let double = Double::start();
    for vendor in VENDORS {
        double.schema("KILLED");
        let data = Data::new();
        let file = data.topology_file(&double.section(vendor, "KILLED", 4_000));
        let run = || program(&file, "cloud");
        double.warehouse(vendor, "KILLED").prepare(false).expect("prepare");
        // What a start asks: the columns, its own tables, the views, the sweep, the positions.
        let start = 1 + 2 + accrue::sink::warehouse::marts::ALL.len() as u64 + 1 + 1;
        let (mut held, mut staged) = (0, false);
        for (at, fault) in [
            (start, "hold_before"),
            (start, "hold_after"),
            (start + 1, "hold_before"),
            (start + 1, "hold_after"),
            (start + 2, "hold_before"),
            (start + 2, "hold_after"),
            (start + 3, "hold_after"),
            (start + 4, "hold_after"),
        ] {
            double.arm(&json!([[at, fault]]));
            let mut child = run().spawn().expect("accrue");
            while double.control("holding", &Json::Null) == json!(0) {
                let ended = child.try_wait().expect("wait");
                assert_eq!(ended, None, "{vendor:?} {at} {fault}: the worker ended before");
                std::thread::sleep(Duration::from_millis(20));
            }
            child.kill().expect("kill");
            child.wait().expect("wait");
            let sum = double.ask(vendor, "KILLED", "SELECT SUM(next_offset) FROM accrue_position");
            let now: u64 = sum[0][0].parse().unwrap_or(0);
            assert!(now >= held, "{vendor:?}: positions went back from {held} to {now}");
            held = now;
            staged |= double.ask(vendor, "KILLED", "SELECT COUNT(*) FROM accrue_stage") != [["0"]];
        }
        assert!(
            held > 0,
            "{vendor:?}: no transaction stood before a kill: the test proves nothing"
        );
        assert!(staged, "{vendor:?}: nobody was killed between stage and transaction");
        // What a killed worker left is merged with the same batch, or swept a day later.
        double.ask(vendor, "KILLED", "DELETE FROM accrue_stage WHERE TRUE");
        double.arm(&json!([]));
        assert!(run().status().expect("accrue").success(), "{vendor:?}");
        double.compare(vendor, "KILLED", &data.books(data.log().as_ref()));
    }
}

fn at() -> TopicPartition {
    TopicPartition::new(&Topic::new("journal.entries"), Partition(0))
}

/// A row of `dim_account` and the move of one position.
fn step(from: Option<Offset>, to: u64) -> Vec<TableBatch> {
    let mut row: Vec<Value> = ["t'; --", "ä\\\"\n\t", "r"]
        .map(|text| Value::Text(format!("{text}{to}")))
        .to_vec();
    row.extend([0, 0].map(Value::Integer));
    let moves = vec![Move {
        at: at(),
        from,
        to: Offset(to),
    }];
    let table = tables::ALL
        .iter()
        .find(|table| table.name == "dim_account")
        .expect("table");
    vec![TableBatch {
        table,
        rows: vec![row],
        moves,
    }]
}

#[test]
#[ignore = "needs doubles of Snowflake and BigQuery: make test"]
fn a_zombie_is_refused_and_leaves_no_row() {
    let double = Double::start();
    double.schema("ZOMBIE");
    for vendor in VENDORS {
        let (mut owner, mut zombie) = (double.warehouse(vendor, "ZOMBIE"), double.warehouse(vendor, "ZOMBIE"));
        owner.prepare(false).expect("prepare");
        assert!(owner.positions().expect("positions").is_empty());
        assert!(zombie.positions().expect("positions").is_empty());
        owner.commit(&step(None, 10)).expect("owner");
        for from in [None, Some(Offset(5))] {
            let refused = zombie.commit(&step(from, 20));
            assert!(
                matches!(refused, Err(WarehouseError::Fenced(_))),
                "{vendor:?}: {refused:?}"
            );
        }
        let held = zombie.positions().expect("positions");
        assert_eq!(held.get(&("dim_account", at())), Some(&Offset(10)), "{vendor:?}");
        let rows = double.ask(vendor, "ZOMBIE", "SELECT tenant_id, account FROM dim_account");
        assert_eq!(rows, [["t'; --10", "ä\\\"\n\t10"]], "{vendor:?}");
        zombie
            .commit(&step(Some(Offset(10)), 20))
            .expect("from where it stands");
        // The answer of the transaction is lost, and its id is not: it stands once, and is not refused.
        double.arm(&json!([[1, "lost_after"]]));
        zombie.commit(&step(Some(Offset(20)), 30)).expect("settled by its id");
        assert_eq!(
            owner.positions().expect("positions")[&("dim_account", at())],
            Offset(30),
            "{vendor:?}"
        );
    }
}

#[test]
#[ignore = "needs doubles of Snowflake and BigQuery: make test"]
fn of_two_workers_one_writes_and_nothing_is_doubled() {
    let double = Double::start();
    double.schema("TWO");
    let data = Data::new();
    let log = data.log();
    let books = data.books(log.as_ref());
    for vendor in VENDORS {
        double.warehouse(vendor, "TWO").prepare(false).expect("prepare");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (worker, mut warehouse) = (data.worker(log.clone(), 20_000), double.warehouse(vendor, "TWO"));
                scope.spawn(move || worker.run(&mut warehouse, &AtomicBool::new(false)).expect("worker"));
            }
        });
        let doubled = "SELECT table_name, topic, partition_number FROM accrue_position \
                       GROUP BY table_name, topic, partition_number HAVING COUNT(*) > 1";
        assert_eq!(
            double.ask(vendor, "TWO", doubled),
            Vec::<Vec<String>>::new(),
            "{vendor:?}"
        );
        double.ask(vendor, "TWO", "DELETE FROM accrue_stage WHERE TRUE");
        double.compare(vendor, "TWO", &books);
    }
}

#[test]
#[ignore = "needs doubles of Snowflake and BigQuery: make test"]
fn what_is_wrong_is_said_and_columns_are_added() {
    let double = Double::start();
    double.schema("SAID");
    for vendor in VENDORS {
        let mut warehouse = double.warehouse(vendor, "SAID");
        let would = warehouse.prepare(true).expect("dry run");
        assert!(would.iter().any(|step| step == "table dim_deal: created"), "{would:?}");
        let refused = warehouse.positions().expect_err("a dry run makes nothing");
        assert!(matches!(refused, WarehouseError::Refused(_)), "{refused}");
        warehouse.prepare(false).expect("prepare");
        assert_eq!(warehouse.prepare(true).expect("dry run"), ["7 views"], "{vendor:?}");

        let absent = double
            .warehouse(vendor, "ABSENT")
            .prepare(false)
            .expect_err("no such schema");
        assert!(
            matches!(&absent, WarehouseError::Refused(why) if why.contains("schema") || why.contains("Dataset")),
            "{absent}"
        );
    }
    let mut stranger = Cloud::new(
        Box::new(
            Snowflake::new(&snowflake::Place {
                endpoint: double.of("address"),
                account: "ACME-BOOKS",
                user: "SOMEBODY",
                private_key: double.of("private_key"),
                database: "FINANCE",
                schema: "SAID",
                warehouse: "LOADING",
                role: None,
            })
            .expect("client"),
        ),
        tables::ALL,
    );
    let refused = stranger.positions().expect_err("a stranger");
    assert!(
        refused.to_string().contains("does the user have the public key"),
        "{refused}"
    );
    let no_key = bigquery::Place {
        endpoint: double.of("address"),
        project: "p",
        dataset: "d",
        location: None,
        credentials: "{}",
    };
    let refused = BigQuery::new(&no_key).err().expect("no credentials");
    assert!(refused.to_string().contains("they have no private_key"), "{refused}");
}
