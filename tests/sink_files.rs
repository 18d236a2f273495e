//! The quick start's books delivered to files by the program itself: once, again, and killed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use accrue::codec::receipt::hex;
use accrue::stream::log::Log;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::record::{Offset, Partition, Topic, TopicPartition};
use sha2::{Digest, Sha256};

/// The program, on a quick start's folder. `files` is the shipped sink, changed by `change`.
fn accrue(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command
        .args(arguments)
        .arg("--topology")
        .arg(dir.join("topology.toml"))
        .env("ACCRUE_DATA_DIR", dir.join("data"))
        .env("USER", "kim");
    command
}

fn done(mut command: Command) -> Output {
    let out = command.output().expect("it runs");
    assert!(
        out.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A folder with the quick start's data, and the shipped topology after `change`.
fn quickstart(change: impl Fn(String) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command.arg("quickstart").arg("--dir").arg(dir.path().join("data"));
    done(command);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("topology.toml");
    let topology = change(std::fs::read_to_string(shipped).expect("topology.toml"));
    std::fs::write(dir.path().join("topology.toml"), topology).expect("written");
    dir
}

/// The ids of the issued entries.
fn issued(dir: &Path) -> BTreeSet<String> {
    let log = EmbeddedLog::open(&dir.join("data/log"), false).expect("log");
    let topic = Topic::new("journal.entries");
    let mut ids = BTreeSet::new();
    for n in 0..log.partitions(&topic).expect("log").expect("a topic") {
        let at = TopicPartition::new(&topic, Partition(n));
        let mut reader = log.reader(&at, Offset(0)).expect("reader");
        loop {
            let records = reader.read(Duration::ZERO).expect("read");
            if records.is_empty() {
                break;
            }
            for record in records {
                let id = record.header("ce_id").expect("an id");
                ids.insert(String::from_utf8(id.to_vec()).expect("text"));
            }
        }
    }
    ids
}

/// Every line of every manifest: key to file. Each file is whole.
fn manifest(dir: &Path) -> BTreeMap<String, PathBuf> {
    let ledger = dir.join("data/ledger");
    let mut documents = BTreeMap::new();
    for tenant in std::fs::read_dir(&ledger).expect("the ledger") {
        let tenant = tenant.expect("a tenant").path();
        if !tenant.is_dir() {
            continue;
        }
        let lines = std::fs::read_to_string(tenant.join("manifest.jsonl")).expect("a manifest");
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let field = |name: &str| line[name].as_str().expect(name).to_owned();
            let file = ledger.join(field("file"));
            let content = std::fs::read(&file).expect("the file");
            assert_eq!(hex(&Sha256::digest(&content)), field("sha256"), "{}", file.display());
            let twice = documents.insert(field("key"), file);
            assert_eq!(twice, None, "{} twice", field("key"));
        }
    }
    documents
}

#[test]
fn the_quick_start_is_delivered_once() {
    let dir = quickstart(|shipped| shipped);
    let dir = dir.path();
    let entries = issued(dir);
    assert!(entries.len() > 50);
    done(accrue(dir, &["sink", "files", "--until-idle"]));
    let documents = manifest(dir);
    assert_eq!(documents.keys().cloned().collect::<BTreeSet<_>>(), entries);
    let verified = text(&done(accrue(dir, &["receipts", "verify"])));
    assert!(verified.contains(&format!("{} receipts", entries.len())), "{verified}");
    assert!(verified.contains("whole"), "{verified}");

    // Again, and with the store lost: nothing new.
    done(accrue(dir, &["sink", "files", "--until-idle"]));
    std::fs::remove_dir_all(dir.join("data/state/sink-files")).expect("the store");
    done(accrue(dir, &["sink", "files", "--until-idle"]));
    assert_eq!(manifest(dir), documents);
    assert_eq!(text(&done(accrue(dir, &["receipts", "verify"]))), verified);

    // An export is verified without the topics, and shows a hand in it.
    let export = dir.join("export");
    done({
        let mut command = accrue(dir, &["receipts", "export"]);
        command.arg("--dir").arg(&export);
        command
    });
    let offline = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
        command.args(["receipts", "verify", "--dir"]).arg(&export);
        command.output().expect("it runs")
    };
    assert!(offline().status.success());
    let file = std::fs::read_dir(&export)
        .expect("the export")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("files-"))
        })
        .expect("receipts");
    let whole = std::fs::read_to_string(&file).expect("receipts");
    let first = whole.lines().next().expect("a receipt").to_owned() + "\n";
    for (tampered, word) in [
        (whole.replacen("\"attempts\":1", "\"attempts\":2", 1), "changed"),
        (whole.replacen(&first, "", 1), "missing before it"),
        (whole.replacen(&first, "", 1) + &first, "out of order"),
    ] {
        assert_ne!(tampered, whole);
        std::fs::write(&file, tampered).expect("written");
        let found = offline();
        assert_eq!(found.status.code(), Some(1));
        assert!(text(&found).contains(word), "{word}: {}", text(&found));
    }

    let report = text(&done(accrue(dir, &["sla", "report"])));
    assert!(
        report.contains(&format!("files: {} documents, promised 30m", entries.len())),
        "{report}"
    );
}

#[test]
fn an_account_that_is_not_mapped_parks_its_deals_until_the_line_is_there() {
    let line = "revenue.subscription = \"Income:Subscription\"\n";
    let dir = quickstart(|shipped| shipped.replace(line, ""));
    let dir = dir.path();
    let entries = issued(dir);
    let out = done(accrue(dir, &["sink", "files", "--until-idle"]));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("wait for a person"), "{said}");
    let listed = text(&done(accrue(dir, &["deliveries", "list", "--parked"])));
    assert!(listed.contains("revenue.subscription = \"ACCOUNT\""), "{listed}");
    let parked = listed
        .split_whitespace()
        .find(|word| word.starts_with("je_"))
        .expect("a key")
        .to_owned();
    let explained = text(&done(accrue(dir, &["deliveries", "explain", &parked])));
    assert!(
        explained.contains("account_not_mapped") && explained.contains("revenue.subscription"),
        "{explained}"
    );

    // A person cancels one; the line is added; the rest goes on by itself.
    done(accrue(
        dir,
        &["deliveries", "cancel", &parked, "--note", "booked by hand"],
    ));
    let topology = std::fs::read_to_string(dir.join("topology.toml")).expect("the topology");
    let mended = topology.replace("[sinks.files.accounts]\n", &format!("[sinks.files.accounts]\n{line}"));
    std::fs::write(dir.join("topology.toml"), mended).expect("written");
    done(accrue(dir, &["sink", "files", "--until-idle"]));
    let written: BTreeSet<String> = manifest(dir).into_keys().collect();
    let missing: Vec<&String> = entries.difference(&written).collect();
    assert_eq!(missing, [&parked]);
    let verified = text(&done(accrue(dir, &["receipts", "verify"])));
    assert!(verified.contains(&format!("{} receipts", entries.len())), "{verified}");
}

#[test]
fn killed_again_and_again_it_writes_each_document_once() {
    let dir = quickstart(|shipped| shipped);
    let dir = dir.path();
    let entries = issued(dir);
    let mut cut_short = 0;
    let began = Instant::now();
    for life in 1..60 {
        let mut child = accrue(dir, &["sink", "files", "--until-idle"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        // From before it has read anything to in the midst of writing.
        let until = Instant::now() + Duration::from_millis(150 + 70 * life);
        while child.try_wait().expect("wait").is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = child.try_wait().expect("wait").is_some();
        if !ended {
            child.kill().expect("kill");
            cut_short += 1;
        }
        child.wait().expect("wait");
        if ended || began.elapsed() > Duration::from_secs(40) {
            break;
        }
    }
    assert!(cut_short >= 2, "it was killed {cut_short} times");
    done(accrue(dir, &["sink", "files", "--until-idle"]));
    let written: BTreeSet<String> = manifest(dir).into_keys().collect();
    assert_eq!(written, entries);
    let verified = text(&done(accrue(dir, &["receipts", "verify"])));
    assert!(verified.contains(&format!("{} receipts", entries.len())), "{verified}");
}

/// The folder as hledger and Beancount read it.
fn judged(format: &str, program: &str, arguments: &[&str]) {
    let dir = quickstart(|shipped| shipped.replace("format = \"hledger\"", &format!("format = \"{format}\"")));
    let dir = dir.path();
    done(accrue(dir, &["sink", "files", "--until-idle"]));
    let documents = manifest(dir);
    let tenants = std::fs::read_dir(dir.join("data/ledger")).expect("the ledger");
    for tenant in tenants
        .map(|tenant| tenant.expect("a tenant").path())
        .filter(|path| path.is_dir())
    {
        let extension = if format == "hledger" { "journal" } else { format };
        let ledger = tenant.join(format!("ledger.{extension}"));
        let judge = || {
            let place = arguments
                .iter()
                .map(|argument| argument.replace("FILE", &ledger.display().to_string()));
            Command::new(program)
                .args(place)
                .output()
                .expect("the judge is installed")
        };
        let out = judge();
        assert!(
            out.status.success(),
            "{}{}",
            text(&out),
            String::from_utf8_lossy(&out.stderr)
        );
    }
    // A cent more, and the judge objects.
    let (_, file) = documents.iter().next().expect("a document");
    let content = std::fs::read_to_string(file).expect("the file");
    let tampered = content.replacen(".00 ", ".01 ", 1).replacen(".50 ", ".51 ", 1);
    assert_ne!(tampered, content);
    std::fs::write(file, tampered).expect("written");
    let tenant = file.parent().and_then(Path::parent).expect("the tenant");
    let extension = if format == "hledger" { "journal" } else { format };
    let ledger = tenant.join(format!("ledger.{extension}"));
    let place = arguments
        .iter()
        .map(|argument| argument.replace("FILE", &ledger.display().to_string()));
    let out = Command::new(program)
        .args(place)
        .output()
        .expect("the judge is installed");
    assert!(!out.status.success(), "the judge did not see the cent");
}

#[test]
#[ignore = "needs hledger: make test"]
fn hledger_accepts_the_folder() {
    judged("hledger", "hledger", &["-f", "FILE", "check", "--strict"]);
}

#[test]
#[ignore = "needs bean-check: make test"]
fn beancount_accepts_the_folder() {
    let program = std::env::var("BEAN_CHECK").unwrap_or_else(|_| "bean-check".to_owned());
    judged("beancount", &program, &["FILE"]);
}
