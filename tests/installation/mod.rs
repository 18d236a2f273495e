//! Installations of the whole program on the real servers that `tools/on-platform` starts; `ACCRUE_TEST_PLATFORM` names
//! their folder.
//!
//! Owns how a process of the program is started, stopped, killed and asked, and how an outsider reads what it wrote.

#![allow(dead_code)] // each test program uses a part

pub mod deals;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use accrue::stream::log::kafka::{KafkaLog, KafkaTimeouts};
use accrue::stream::record::Topic;

/// How long nothing may move before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub const PRODUCTS: [&str; 7] = [
    "deal.canonical",
    "contract.facts",
    "contract.state",
    "recognition.schedule",
    "billing.schedule",
    "journal.entries",
    "accrue.dead-letters",
];

pub struct Platform {
    pub dir: PathBuf,
    pub env: BTreeMap<String, String>,
}

impl Platform {
    pub fn get() -> Platform {
        let dir = PathBuf::from(
            std::env::var("ACCRUE_TEST_PLATFORM")
                .expect("ACCRUE_TEST_PLATFORM must name a platform; `make test` starts one"),
        );
        let env = std::fs::read_to_string(dir.join("env"))
            .expect("env")
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Platform { dir, env }
    }

    pub fn log(&self) -> KafkaLog {
        KafkaLog::connect(
            BTreeMap::from([("bootstrap.servers".to_owned(), self.env["KAFKA_BOOTSTRAP"].clone())]),
            KafkaTimeouts {
                transaction: Duration::from_secs(10),
                session: Duration::from_secs(15),
            },
            Duration::from_secs(30),
            &|message| eprintln!("{message}"),
        )
        .expect("broker")
    }

    pub fn script(&self, script: &str, arguments: &[&str]) -> String {
        let out = Command::new(repo().join("tests").join(script))
            .args(arguments)
            .arg("--dir")
            .arg(&self.dir)
            .stderr(Stdio::inherit())
            .output()
            .expect("script");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{script} {arguments:?} failed:\n{text}");
        text
    }

    /// Loads `deals` deals into the CRM; returns the file with what the books owe.
    pub fn load(&self, name: &str, seed: &str, deals: &str, ids: &str) -> PathBuf {
        let truth = self.script(
            "platform/crm.py",
            &[
                "load",
                "--seed",
                seed,
                "--deals",
                deals,
                "--currencies",
                "USD,EUR",
                "--prefix-deals",
                ids,
            ],
        );
        let file = self.dir.join(format!("truth-{name}.jsonl"));
        std::fs::write(&file, truth).expect("truth");
        file
    }
}

pub fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One installation of Accrue: its own consumer group, output topics and state folder.
pub struct Installation<'a> {
    pub platform: &'a Platform,
    pub name: String,
    pub crm: String,
    pub format: &'static str,
    pub state: PathBuf,
    /// Static membership: a process that is killed and started again need not wait for its own session to end.
    pub instance: String,
    pub topology: PathBuf,
}

impl<'a> Installation<'a> {
    pub fn new(platform: &'a Platform, name: &str, crm: &str, format: &'static str) -> Installation<'a> {
        Installation {
            platform,
            name: name.to_owned(),
            crm: crm.to_owned(),
            format,
            state: platform.dir.join(format!("state-{name}")),
            instance: "one".to_owned(),
            topology: repo().join("topology.toml"),
        }
    }

    /// An installation that reads what [`deals::Deals`] sends to `events`, with `runtime` as further lines of `[runtime]`.
    /// `ACCRUE_TEST_GROUP_PROTOCOL` is its `kafka.group_protocol`.
    pub fn of_deals(platform: &'a Platform, name: &str, events: &Topic, runtime: &str) -> Installation<'a> {
        let dir = platform.dir.join(name);
        std::fs::create_dir_all(&dir).expect("folder");
        let topology = dir.join("topology.toml");
        let text = format!(
            r#"application_id = "${{ACCRUE_APPLICATION_ID}}"
[log]
kind = "kafka"
[kafka]
bootstrap_servers = "${{KAFKA_BOOTSTRAP}}"
instance_id = "${{ACCRUE_INSTANCE_ID}}"
group_protocol = "${{ACCRUE_TEST_GROUP_PROTOCOL:-classic}}"
[registry]
kind = "confluent"
url = "${{REGISTRY_URL}}"
[state]
dir = "${{ACCRUE_DATA_DIR}}/state"
memory_budget = "${{ACCRUE_MEMORY_BUDGET:-256MiB}}"
[http]
listen = "${{ACCRUE_HTTP_LISTEN}}"
[outputs]
prefix = "${{ACCRUE_TOPIC_PREFIX}}"
[runtime]
{runtime}
[[source]]
name = "events"
topic = "{events}"
format = "canonical-json"
"#
        );
        std::fs::write(&topology, text).expect("write");
        Installation {
            topology,
            ..Installation::new(platform, name, "none", "debezium-json")
        }
    }

    /// With some of its topology's text replaced, all of which has to be there.
    pub fn change_topology(&mut self, replaced: &[(&str, &str)]) {
        let mut text = std::fs::read_to_string(&self.topology).expect("topology");
        for (from, to) in replaced {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        self.topology = self.platform.dir.join(format!("{}.toml", self.name));
        std::fs::write(&self.topology, text).expect("write");
    }

    /// Another process of the same installation, on a machine of its own.
    pub fn instance(&self, instance: &str) -> Installation<'a> {
        Installation {
            name: self.name.clone(),
            crm: self.crm.clone(),
            state: self.platform.dir.join(format!("state-{}-{instance}", self.name)),
            instance: instance.to_owned(),
            topology: self.topology.clone(),
            ..*self
        }
    }

    pub fn prefix(&self) -> String {
        format!("{}.", self.name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
        command
            .args(arguments)
            .current_dir(repo())
            .env("ACCRUE_LOG", "kafka")
            .env("ACCRUE_REGISTRY", "confluent")
            .env("KAFKA_BOOTSTRAP", &self.platform.env["KAFKA_BOOTSTRAP"])
            .env("REGISTRY_URL", &self.platform.env["REGISTRY_URL"])
            .env("ACCRUE_APPLICATION_ID", &self.name)
            .env("ACCRUE_TOPIC_PREFIX", self.prefix())
            .env("ACCRUE_DATA_DIR", &self.state)
            .env("ACCRUE_HTTP_LISTEN", "127.0.0.1:0")
            .env("CRM_TOPIC_PREFIX", &self.crm)
            .env("CRM_FORMAT", self.format)
            .env("ACCRUE_TOPOLOGY", &self.topology)
            .env("ACCRUE_INSTANCE_ID", &self.instance);
        command
    }

    pub fn apply(&self) {
        let out = self.command(&["apply"]).output().expect("apply");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let again = self.command(&["apply"]).output().expect("apply again");
        let text = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(
            text.contains("done: 0 topics created"),
            "a second apply changes nothing:\n{text}"
        );
    }

    /// Rates for every day that a deal of the workload can touch, and the clock at the end of them.
    pub fn post_reference_facts(&self) {
        let mut facts = String::new();
        let mut day = jiff::civil::date(2025, 12, 1);
        let end = jiff::civil::date(2029, 6, 1);
        let mut say = |kind: &str, id: &str, payload: String| {
            facts.push_str(&format!(
                "{{\"event_id\":\"{id}\",\"source\":\"test\",\"type\":\"{kind}\",\"occurred_at\":\"2025-12-01T00:00:00Z\",\"tenant_id\":\"acme-corp\",\"payload\":{payload}}}\n"
            ));
        };
        while day < end {
            let rate = format!(
                "{{\"base\":\"EUR\",\"quote\":\"USD\",\"date\":\"{day}\",\"rate\":\"1.08{}\"}}",
                day.day()
            );
            say("fx.rate", &format!("fx-{day}"), rate);
            day = day.tomorrow().expect("calendar");
        }
        say(
            "clock.ticked",
            "tick",
            format!("{{\"date\":\"{}\"}}", jiff::civil::date(2029, 6, 1)),
        );
        let file = self.platform.dir.join("reference.jsonl");
        std::fs::write(&file, facts).expect("facts");
        let out = self
            .command(&["facts", "post", file.to_str().expect("path")])
            .output()
            .expect("post");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    pub fn run(&self) -> Running {
        self.run_with(&[])
    }

    pub fn run_with(&self, env: &[(&str, &str)]) -> Running {
        let log = format!("accrue-{}-{}.log", self.name, self.instance);
        let log = self.platform.dir.join(log);
        let file = File::options().create(true).append(true).open(&log).expect("log");
        let before = file.metadata().expect("log").len() as usize;
        let child = self
            .command(&["run"])
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("run");
        Running { child, log, before }
    }

    /// The records that an outsider sees in the products, which grow while the program works.
    pub fn committed(&self) -> u64 {
        self.read("count")
            .lines()
            .filter_map(|line| line.split('\t').nth(1)?.parse::<u64>().ok())
            .sum()
    }

    /// Reads the products from now on, until [`Follower::hashes`] ends it.
    pub fn follow(&self) -> Follower {
        let child = Command::new(repo().join("tests/e2e/reader.py"))
            .args(["follow", "--dir", self.platform.dir.to_str().expect("path")])
            .args(self.products())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Follower(child.expect("reader"))
    }

    fn products(&self) -> Vec<String> {
        PRODUCTS.iter().map(|name| format!("{}{name}", self.prefix())).collect()
    }

    pub fn read(&self, what: &str) -> String {
        let topics = self.products();
        let mut arguments = vec![what];
        arguments.extend(topics.iter().map(String::as_str));
        self.platform.script("e2e/reader.py", &arguments)
    }

    /// Waits until everything that is in the sources has gone through all stages.
    pub fn settle(&self, running: &mut Running) {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            let out = self.command(&["status", "--format", "json"]).output().expect("status");
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            match status["lag"].as_u64() {
                Some(0) => return,
                Some(lag) if lag < least => (least, since) = (lag, Instant::now()),
                Some(_) | None => {}
            }
            running.assert_alive();
            assert!(
                since.elapsed() < PATIENCE,
                "{}: not settled: {text}\n{}",
                self.name,
                running.last_words()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn check(&self, truth: &Path) {
        let report = self.platform.script(
            "e2e/check.py",
            &["--truth", truth.to_str().expect("path"), "--prefix", &self.prefix()],
        );
        print!("{report}");
        assert!(report.contains("all is well"));
    }

    /// No transaction is open or hangs in a partition of the products: it ends where a reader of committed records ends.
    pub fn nothing_hangs(&self) {
        self.read("ends");
    }

    /// For each product, how many records and the hash of their set.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        hashes(&self.read("hash"))
    }
}

/// The lines of `reader.py hash`, by product.
fn hashes(lines: &str) -> BTreeMap<String, String> {
    lines
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(topic, hash)| {
            let product = PRODUCTS
                .iter()
                .find(|product| topic.ends_with(*product))
                .expect("product");
            ((*product).to_owned(), hash.to_owned())
        })
        .collect()
}

/// An outsider that reads what is committed while it is written.
pub struct Follower(Child);

impl Follower {
    /// What it has read once it is at the end: an aborted record that it was given would be in the hash, and one given
    /// twice too.
    pub fn hashes(mut self) -> BTreeMap<String, String> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        let stdout = self.0.stdout.as_mut().expect("stdout");
        stdout.read_to_string(&mut said).expect("read");
        assert!(self.0.wait().expect("wait").success(), "the follower failed");
        hashes(&said)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

pub struct Running {
    child: Child,
    pub log: PathBuf,
    /// Bytes of the log that were there before it.
    before: usize,
}

impl Running {
    /// SIGTERM, once it runs: it must commit, leave, and exit with 0.
    pub fn stop(mut self) {
        let began = Instant::now();
        while !self.is_up() {
            self.assert_alive();
            assert!(began.elapsed() < PATIENCE, "not up:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
        signal("TERM", self.child.id());
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                assert!(status.success(), "exit {status}:\n{}", self.last_words());
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "no exit within the grace period:\n{}",
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn kill(mut self) {
        signal("KILL", self.child.id());
        self.child.wait().expect("wait");
    }

    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("wait") {
            panic!("ended with {status}:\n{}", self.last_words());
        }
    }

    fn is_up(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let own = String::from_utf8_lossy(log.get(self.before..).unwrap_or_default());
        own.contains(r#""message":"running""#)
    }

    /// How many lines of its log have this text.
    pub fn said(&self, text: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// The events of its log with this message, and their fields.
    pub fn events(&self, message: &str) -> Vec<serde_json::Value> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|event: &serde_json::Value| event["message"] == message)
            .collect()
    }

    pub fn last_words(&self) -> String {
        let lines: Vec<String> = File::open(&self.log)
            .map(|file| BufReader::new(file).lines().map_while(Result::ok).collect())
            .unwrap_or_default();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failed test must not leave the program running.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .expect("kill");
    assert!(sent.success());
}
