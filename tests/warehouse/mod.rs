//! What the warehouse tests share: the quick start's books, and what a warehouse must say of them.
//!
//! The judge is the fold of `contract.facts` through the accounting core, as `accrue books replay` prints it. A
//! warehouse is compared with it row by row, by SQL that PostgreSQL and DuckDB both run.

#![allow(dead_code)] // each test program uses a part

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use accrue::codec::registry::{Embedded, Registry};
use accrue::codec::replay;
use accrue::codec::schemas::{AnyReader, Product, Schemas};
use accrue::config::{self, Topology};
use accrue::pipeline::product_topic;
use accrue::revenue::books::Books;
use accrue::revenue::measures;
use accrue::sink::warehouse::metrics::Metrics;
use accrue::sink::warehouse::worker::Worker;
use accrue::sink::warehouse::{Warehouse, tables};
use accrue::stream::log::Log;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::record::{Offset, Partition, Record, Topic, TopicPartition};
use rust_decimal::Decimal;
use serde_json::Value as Json;

/// A folder with the log and the registry of a finished quick start, of which each test has its own copy.
pub struct Data {
    pub dir: tempfile::TempDir,
}

struct Quickstart {
    /// Among cargo's own temporary files, and made anew by each run of a test program: nothing is told when that ends.
    dir: PathBuf,
    /// What `accrue books report movement` says of it.
    movement: Vec<String>,
}

static QUICKSTART: OnceLock<Quickstart> = OnceLock::new();

fn quickstart() -> Quickstart {
    let program = std::env::current_exe().expect("a program");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program.file_name().expect("a name"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("folder");
    let accrue = |arguments: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_accrue"))
            .args(arguments)
            .env("ACCRUE_DATA_DIR", &dir)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("accrue");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let folder = dir.display().to_string();
    accrue(&["quickstart", "--books-only", "--dir", &folder]);
    let report = accrue(&["books", "report", "movement", "--format", "json"]);
    let report: Json = serde_json::from_slice(&report).expect("report");
    let amount = |cell: &Json| Decimal::from_str_exact(cell.as_str().expect("amount")).expect("amount");
    let has_any = |row: &Json| !amount(&row["opening"]).is_zero() || !amount(&row["closing"]).is_zero();
    let rows = report["rows"].as_array().expect("rows").iter();
    let moved = rows.filter(|row| row["basis"] == "contract" && has_any(row));
    Quickstart {
        movement: moved.map(|row| line(row, &MOVEMENT)).collect(),
        dir,
    }
}

/// The program on one warehouse of a topology file; it ends when idle and says nothing.
pub fn program(file: &Path, name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command
        .args(["warehouse", name, "--until-idle", "--topology"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Kills the program, one life after another, each a little longer, until one comes to its end; `between` looks at what each
/// left.
pub fn kill_again_and_again(file: &Path, name: &str, mut between: impl FnMut()) {
    let mut cut_short = 0;
    for life in 1..60 {
        let mut child = program(file, name).spawn().expect("accrue");
        std::thread::sleep(Duration::from_millis(45 * life));
        let ended = child.try_wait().expect("wait");
        if ended.is_none() {
            child.kill().expect("kill");
            cut_short += 1;
        }
        child.wait().expect("wait");
        between();
        if let Some(status) = ended {
            assert!(status.success(), "the life {life} ended by itself: {status}");
            break;
        }
    }
    assert!(cut_short >= 2, "no run was cut short: the test proves nothing");
}

impl Data {
    pub fn new() -> Data {
        let made = QUICKSTART.get_or_init(quickstart);
        let dir = tempfile::tempdir().expect("folder");
        for part in ["log", "registry"] {
            let copied = Command::new("cp")
                .arg("-r")
                .arg(made.dir.join(part))
                .arg(dir.path())
                .status()
                .expect("cp");
            assert!(copied.success());
        }
        Data { dir }
    }

    /// The repository's topology on this data, with `more` after it.
    pub fn topology_text(&self, more: &str) -> String {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("topology.toml");
        let text = std::fs::read_to_string(shipped).expect("topology.toml");
        format!("{text}\n{more}").replace("${ACCRUE_DATA_DIR:-data}", &self.dir.path().display().to_string())
    }

    pub fn topology(&self, more: &str) -> Topology {
        config::parse("topology.toml", &self.topology_text(more), &|_| None)
            .unwrap_or_else(|problems| panic!("{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>()))
    }

    /// The same as a file.
    pub fn topology_file(&self, more: &str) -> PathBuf {
        let path = self.dir.path().join("topology.toml");
        std::fs::write(&path, self.topology_text(more)).expect("topology.toml");
        path
    }

    pub fn log(&self) -> Arc<dyn Log> {
        Arc::new(EmbeddedLog::open(&self.dir.path().join("log"), false).expect("log"))
    }

    pub fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(Embedded::open(&self.dir.path().join("registry")).expect("registry"))
    }

    /// A worker that ends when idle.
    pub fn worker(&self, log: Arc<dyn Log>, max_rows: usize) -> Worker {
        let topology = self.topology("");
        Worker {
            log,
            values: AnyReader::new(self.registry()),
            settings: topology.settings().clone(),
            topics: topics(&topology),
            tables: tables::ALL,
            interval: Duration::from_secs(5),
            max_rows,
            until_idle: true,
            metrics: Metrics::new(&prometheus::Registry::new(), "warehouse", "test").expect("metrics"),
        }
    }

    /// What a warehouse must say: the lines of each question.
    pub fn books(&self, log: &dyn Log) -> BTreeMap<&'static str, Vec<String>> {
        let topology = self.topology("");
        let schemas = Schemas::look_up(self.registry(), |product| {
            product_topic(&topology, product).as_str().to_owned()
        })
        .expect("registered schemas");
        let mut partitions: BTreeMap<Partition, Books> = BTreeMap::new();
        for record in records(log, "contract.facts") {
            let fact = schemas
                .decode_fact(record.value.as_deref().unwrap_or_default())
                .expect("fact");
            let books = partitions
                .entry(record.at.partition)
                .or_insert_with(|| Books::new(topology.settings().clone()));
            books.fold(fact);
        }
        let mut said: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut journals = Vec::new();
        for books in partitions.into_values() {
            let report = books.finish(None);
            let document = replay::document(&report);
            for (question, list, fields) in [
                ("billing", "billing", &BILLING[..]),
                ("balances", "balances", &BALANCES[..]),
            ] {
                let rows = document[list].as_array().expect(list);
                said.entry(question)
                    .or_default()
                    .extend(rows.iter().map(|row| line(row, fields)));
            }
            for (row, of) in document["schedule"]
                .as_array()
                .expect("schedule")
                .iter()
                .zip(&report.schedule)
            {
                // Of a row that is not posted the topic keeps the estimate of the day on which the plan changed.
                let functional = if of.posted {
                    line(row, &["functional_amount"])
                } else {
                    String::new()
                };
                said.entry("schedule")
                    .or_default()
                    .push(line(row, &SCHEDULE) + "|" + &functional);
            }
            for contract in document["contracts"].as_array().expect("contracts") {
                for obligation in contract["obligations"].as_array().expect("obligations") {
                    said.entry("obligations")
                        .or_default()
                        .push(line(contract, &CONTRACT) + "|" + &line(obligation, &OBLIGATION));
                }
            }
            for entry in document["journals"].as_array().expect("journals") {
                for row in entry["lines"].as_array().expect("lines") {
                    said.entry("journal")
                        .or_default()
                        .push(line(entry, &ENTRY) + "|" + &line(row, &LINE));
                }
            }
            journals.extend(report.journals);
        }
        for row in measures::waterfall(&journals) {
            let amounts = [row.amounts, row.functional].map(|it| {
                let five = [it.opening, it.billed, it.recognised, it.fx, it.closing];
                five.map(|amount| amount.normalize().to_string()).join("|")
            });
            let line = format!(
                "{}|{}|{}|{}|{}",
                row.tenant,
                row.currency.code(),
                row.functional_currency.code(),
                row.period,
                amounts.join("|")
            );
            said.entry("waterfall").or_default().push(line);
        }
        let made = QUICKSTART.get_or_init(quickstart);
        said.insert("movement", made.movement.clone());
        said.values_mut().for_each(|lines| lines.sort());
        assert!(
            said.len() == 7 && said.values().all(|lines| lines.len() > 10),
            "the sample is not what it was"
        );
        said
    }
}

const SCHEDULE: [&str; 10] = [
    "tenant_id",
    "deal_id",
    "contract_id",
    "obligation_id",
    "line_item_id",
    "period",
    "amount",
    "currency",
    "functional_currency",
    "version",
];
const BILLING: [&str; 6] = ["tenant_id", "deal_id", "date", "amount", "tax", "currency"];
const BALANCES: [&str; 8] = [
    "tenant_id",
    "deal_id",
    "currency",
    "contract_liability",
    "contract_asset",
    "receivable",
    "recognised",
    "remaining",
];
const CONTRACT: [&str; 6] = ["tenant_id", "deal_id", "contract_id", "version", "status", "currency"];
const OBLIGATION: [&str; 6] = ["obligation_id", "line_item_id", "method", "start", "end", "allocated"];
const ENTRY: [&str; 7] = ["entry_id", "tenant_id", "deal_id", "kind", "date", "period", "currency"];
const MOVEMENT: [&str; 9] = [
    "tenant_id",
    "currency",
    "period",
    "opening",
    "new",
    "expansion",
    "contraction",
    "churn",
    "closing",
];
const LINE: [&str; 6] = [
    "account",
    "role",
    "debit",
    "credit",
    "functional_debit",
    "functional_credit",
];

/// The same questions to a warehouse. Its answers are compared as sorted lines, numbers without trailing zeros.
pub const QUESTIONS: [(&str, &str); 7] = [
    (
        "schedule",
        "SELECT tenant_id, deal_id, contract_id, obligation_id, line_item_id, period, amount, currency, \
         functional_currency, version, CASE WHEN posted THEN functional_amount END FROM recognition_current",
    ),
    (
        "billing",
        "SELECT tenant_id, deal_id, invoice_date, amount, tax, currency FROM billing_current",
    ),
    (
        "balances",
        "SELECT tenant_id, deal_id, currency, contract_liability, contract_asset, receivable, recognised, remaining \
         FROM dim_deal WHERE status <> 'draft'",
    ),
    (
        "obligations",
        "SELECT o.tenant_id, o.deal_id, o.contract_id, o.version, d.status, o.currency, o.obligation_id, o.line_item_id, \
         o.method, o.start_date, o.end_date, o.allocated FROM fact_obligation o JOIN dim_deal d \
         ON d.tenant_id = o.tenant_id AND d.deal_id = o.deal_id AND d.version = o.version",
    ),
    (
        "journal",
        "SELECT entry_id, tenant_id, deal_id, kind, posting_date, period, currency, account, role, debit, credit, \
         functional_debit, functional_credit FROM fact_journal_line",
    ),
    (
        "waterfall",
        "SELECT tenant_id, currency, functional_currency, period, opening, billed, recognised, fx, closing, \
         functional_opening, functional_billed, functional_recognised, functional_fx, functional_closing \
         FROM mart_deferred_waterfall",
    ),
    // The clock of the sample has come to 2027-01-01, and the report ends with the day before.
    (
        "movement",
        "SELECT tenant_id, currency, period, opening, new_business, expansion, contraction, churn, closing \
         FROM mart_arr_movement WHERE last_day < DATE '2027-01-01'",
    ),
];

/// Questions whose answer must be empty, whatever the books.
pub const NEVER: [(&str, &str); 5] = [
    (
        "a posted row differs from the journal",
        "SELECT deal_id, obligation_id, period FROM recognition_current WHERE posted AND (amount <> posted_amount \
         OR functional_amount <> posted_functional_amount)",
    ),
    (
        "an entry does not balance",
        "SELECT entry_id FROM fact_journal_line GROUP BY entry_id HAVING sum(debit) <> sum(credit) \
         OR sum(functional_debit) <> sum(functional_credit)",
    ),
    (
        "a recurring revenue bridge does not close",
        "SELECT period FROM mart_arr_movement WHERE opening + new_business + expansion - contraction - churn <> closing",
    ),
    (
        "a forecast is not its plan",
        "SELECT f.a FROM (SELECT sum(planned) AS a, sum(posted) AS b FROM mart_forecast) f, \
         (SELECT sum(amount) AS a, sum(posted_amount) AS b FROM recognition_current) r WHERE f.a <> r.a OR f.b <> r.b",
    ),
    (
        "what remains is not what is due soon and later",
        "SELECT remaining FROM mart_rpo WHERE within_12_periods + later <> remaining",
    ),
];

pub const FINDINGS: &str = "SELECT finding, count(*) FROM mart_reconciliation GROUP BY finding";

/// Compares a warehouse with the books; `ask` answers SQL with lines of cells with `|` between, null as nothing.
pub fn compare(books: &BTreeMap<&'static str, Vec<String>>, ask: &mut dyn FnMut(&str) -> Vec<Vec<String>>) {
    for (name, sql) in QUESTIONS {
        let mut found: Vec<String> = ask(sql).iter().map(|cells| joined(cells)).collect();
        found.sort();
        let wanted = &books[name];
        if let Some(n) = (0..found.len().max(wanted.len())).find(|n| found.get(*n) != wanted.get(*n)) {
            panic!(
                "{name}: {} rows, and the books have {}; first difference:\n  warehouse {:?}\n  books     {:?}",
                found.len(),
                wanted.len(),
                found.get(n),
                wanted.get(n)
            );
        }
    }
    for (what, sql) in NEVER {
        assert_eq!(ask(sql), Vec::<Vec<String>>::new(), "{what}");
    }
    let found = ask(FINDINGS);
    assert!(found.iter().any(|row| row[0] == "agrees"), "{found:?}");
}

/// What `mart_rpo` must say once a period is posted in part: 1,200 raised to 2,400 with a cumulative catch-up within a
/// month that is open. The judge is `accrue books report rpo`, whose `waiting` is planned and not posted, too.
pub const RPO: &str = "SELECT tenant_id, currency, remaining FROM mart_rpo WHERE remaining <> 0";

pub fn posted_in_part(data: &Data) -> Vec<String> {
    let accrue = |arguments: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_accrue"))
            .args(arguments)
            .env("ACCRUE_DATA_DIR", data.dir.path())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("accrue");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let event = |id: &str, kind: &str, day: &str, payload: Json| {
        let at = format!("{day}T00:00:00Z");
        serde_json::json!({"event_id": id, "source": "test", "type": kind, "occurred_at": at, "tenant_id": "acme-corp",
            "payload": payload})
        .to_string()
    };
    let deal = |amount: u32| {
        serde_json::json!({"deal_id": "D-part", "amount": amount, "currency": "USD", "term_months": 12,
            "billing_cycle": "annual", "contract_start": "2027-01-01", "line_items": [{"id": "a", "type": "subscription",
            "amount": amount, "recurring": true}]})
    };
    let mut raised = deal(2400);
    raised["effective_date"] = "2027-03-10".into();
    raised["amendment"] = serde_json::json!({"treatment": "cumulative_catch_up"});
    let deals = [
        event("part-1", "deal.closed", "2027-01-01", deal(1200)),
        event("part-2", "deal.amended", "2027-03-10", raised),
    ];
    let clock = event(
        "part-3",
        "clock.ticked",
        "2027-03-15",
        serde_json::json!({"date": "2027-03-15"}),
    );
    for (name, source, lines) in [
        ("deals.jsonl", "deal-events", deals.join("\n")),
        ("clock.jsonl", "reference-facts", clock),
    ] {
        let file = data.dir.path().join(name);
        std::fs::write(&file, lines).expect("events");
        accrue(&["facts", "post", &file.display().to_string(), "--source", source]);
    }
    accrue(&[
        "quickstart",
        "--books-only",
        "--dir",
        &data.dir.path().display().to_string(),
    ]);
    let report = accrue(&["books", "report", "rpo", "--format", "json"]);
    let report: Json = serde_json::from_slice(&report).expect("report");
    let amount = |cell: &Json| Decimal::from_str_exact(cell.as_str().expect("amount")).expect("amount");
    let rows = report["rows"].as_array().expect("rows").iter();
    let left = rows.filter(|row| row["basis"] == "contract").filter_map(|row| {
        let left = amount(&row["waiting"]) + amount(&row["remaining"]);
        let texts = ["tenant_id", "currency"].map(|field| row[field].as_str().unwrap_or_default().to_owned());
        (!left.is_zero()).then(|| format!("{}|{}", texts.join("|"), left.normalize()))
    });
    let mut left: Vec<String> = left.collect();
    left.sort();
    left
}

/// Runs until idle.
pub fn fill(data: &Data, log: &Arc<dyn Log>, warehouse: &mut dyn Warehouse, max_rows: usize) -> u64 {
    warehouse.prepare(false).expect("prepare");
    let worker = data.worker(log.clone(), max_rows);
    let report = worker
        .run(warehouse, &std::sync::atomic::AtomicBool::new(false))
        .expect("worker");
    assert_eq!(report.unfit, 0);
    report.commits
}

fn line(row: &Json, fields: &[&str]) -> String {
    let cells: Vec<String> = fields
        .iter()
        .map(|field| match &row[*field] {
            Json::Null => String::new(),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    joined(&cells)
}

pub fn joined(cells: &[String]) -> String {
    let plain = cells.iter().map(|cell| match Decimal::from_str_exact(cell) {
        Ok(number) => number.normalize().to_string(),
        Err(_) => cell.clone(),
    });
    plain.collect::<Vec<_>>().join("|")
}

pub fn topics(topology: &Topology) -> BTreeMap<Product, Topic> {
    tables::ALL
        .iter()
        .map(|table| (table.feed, Topic::new(product_topic(topology, table.feed).as_str())))
        .collect()
}

pub fn records(log: &dyn Log, topic: &str) -> Vec<Record> {
    let topic = Topic::new(topic);
    let mut all = Vec::new();
    for n in 0..log.partitions(&topic).expect("partitions").expect("topic") {
        let at = TopicPartition::new(&topic, Partition(n));
        let mut reader = log.reader(&at, Offset(0)).expect("reader");
        loop {
            let records = reader.read(Duration::ZERO).expect("read");
            if records.is_empty() {
                break;
            }
            all.extend(records);
        }
    }
    all
}
