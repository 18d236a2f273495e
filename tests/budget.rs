//! Budget feeds: a folder, SFTP on a real OpenSSH server, HTTP. What is published sums to the plan, month by month.

mod warehouse;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use accrue::revenue::ids::TenantId;
use accrue::sink::budget::lines::{Basis, By, Feed};
use accrue::sink::budget::outlet::{Http, Outlet, Sftp};
use accrue::sink::budget::{BY_BILLING, BY_RECOGNITION, Budget, MANIFEST};
use accrue::sink::warehouse::lakehouse::store::Folder;
use accrue::sink::warehouse::worker::{Worker, WorkerError};
use accrue::stream::log::Log;
use rust_decimal::Decimal;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use warehouse::Data;

fn feed(basis: Basis, by: By) -> Feed {
    Feed {
        tenant: TenantId::parse("acme-corp").expect("tenant"),
        basis,
        by,
        source: "crm".to_owned(),
        categories: BTreeMap::from([("setup".to_owned(), "Set-up, one-off".to_owned())]),
    }
}

fn publish(data: &Data, log: &Arc<dyn Log>, feed: Feed, outlet: Box<dyn Outlet>) -> Result<(), WorkerError> {
    let tables = match feed.basis {
        Basis::Recognition => BY_RECOGNITION,
        Basis::Billing => BY_BILLING,
    };
    let worker = Worker {
        tables,
        ..data.worker(log.clone(), 3_000)
    };
    worker
        .run(&mut Budget::new(feed, outlet), &AtomicBool::new(false))
        .map(drop)
}

/// The cells of a CSV line by RFC 4180.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().expect("a cell").push(other),
        }
    }
    cells
}

/// Sums of a feed by month and currency, after checking every file against the manifest.
fn sums(get: &dyn Fn(&str) -> Option<Vec<u8>>) -> BTreeMap<(String, String), Decimal> {
    let manifest: Json = serde_json::from_slice(&get(MANIFEST).expect("manifest")).expect("JSON");
    let mut sums: BTreeMap<(String, String), Decimal> = BTreeMap::new();
    for (month, said) in manifest["months"].as_object().expect("months") {
        let bytes = get(said["file"].as_str().expect("file")).expect("a file that the manifest names");
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(said["sha256"], digest.as_str(), "{month}");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("date,category,amount,currency,source,deal_id"));
        let mut count = 0;
        for line in lines {
            let cells = cells(line);
            assert_eq!(cells.len(), 6, "{line}");
            assert_eq!(cells[0], format!("{month}-01"), "{line}");
            assert!(!cells[1].is_empty() && cells[1] != "Setup Revenue", "{line}");
            let amount = Decimal::from_str_exact(&cells[2]).expect("amount");
            *sums.entry((month.clone(), cells[3].clone())).or_default() += amount;
            count += 1;
        }
        assert_eq!(said["lines"], count, "{month}");
        for (currency, total) in said["totals"].as_object().expect("totals") {
            let total = Decimal::from_str_exact(total.as_str().expect("text")).expect("total");
            assert_eq!(sums[&(month.clone(), currency.clone())], total, "{month}");
        }
    }
    sums.retain(|_, sum| !sum.is_zero());
    sums
}

/// The same sums from the books: `schedule` by period, `billing` by day.
fn planned(data: &Data, log: &dyn Log, question: &str) -> BTreeMap<(String, String), Decimal> {
    let mut sums: BTreeMap<(String, String), Decimal> = BTreeMap::new();
    for line in &data.books(log)[question] {
        let cells: Vec<&str> = line.split('|').collect();
        let (month, amount, currency) = match question {
            "schedule" => (cells[5], cells[6], cells[7]),
            _ => (&cells[2][..7], cells[3], cells[5]),
        };
        if cells[0] == "acme-corp" {
            let amount = Decimal::from_str_exact(amount).expect("amount");
            *sums.entry((month.to_owned(), currency.to_owned())).or_default() += amount;
        }
    }
    sums.retain(|_, sum| !sum.is_zero());
    sums
}

fn times_or_none(folder: &Path) -> BTreeMap<String, std::time::SystemTime> {
    match folder.exists() {
        true => times(folder),
        false => BTreeMap::new(),
    }
}

fn times(folder: &Path) -> BTreeMap<String, std::time::SystemTime> {
    let entries = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry"));
    entries
        .map(|entry| {
            let time = entry.metadata().and_then(|it| it.modified()).expect("time");
            (entry.file_name().to_string_lossy().into_owned(), time)
        })
        .collect()
}

#[test]
fn a_folder_holds_the_plan_and_only_a_month_that_changed_is_published_again() {
    let data = Data::new();
    let log = data.log();
    for (basis, question, by) in [
        (Basis::Recognition, "schedule", By::Deal),
        (Basis::Billing, "billing", By::Category),
    ] {
        let folder = data.dir.path().join(format!("{basis:?}-{by:?}"));
        publish(&data, &log, feed(basis, by), Box::new(Folder::new(&folder))).expect("published");
        let get = |name: &str| std::fs::read(folder.join(name)).ok();
        assert_eq!(sums(&get), planned(&data, log.as_ref(), question), "{basis:?} {by:?}");
        let manifest = get(MANIFEST);

        let before = times(&folder);
        std::thread::sleep(Duration::from_millis(20));
        publish(&data, &log, feed(basis, by), Box::new(Folder::new(&folder))).expect("published");
        assert_eq!(times(&folder), before, "nothing changed, and something was written");

        // One month's entry in the manifest is of other bytes: that month comes again, and no other.
        let mut said: Json = serde_json::from_slice(manifest.as_deref().expect("manifest")).expect("JSON");
        let month = said["months"]
            .as_object()
            .expect("months")
            .keys()
            .next()
            .expect("a month")
            .clone();
        said["months"][&month]["sha256"] = "0".into();
        std::fs::write(folder.join(MANIFEST), said.to_string()).expect("manifest");
        publish(&data, &log, feed(basis, by), Box::new(Folder::new(&folder))).expect("published");
        let after = times(&folder);
        let changed: Vec<&String> = after.keys().filter(|name| after[*name] != before[*name]).collect();
        assert_eq!(changed, [&format!("budget-{month}.csv"), MANIFEST]);
        assert_eq!(get(MANIFEST), manifest);

        // A month that the plan has no longer is published as empty.
        said["months"][&month]["sha256"] = serde_json::from_slice::<Json>(manifest.as_deref().expect("manifest"))
            .expect("JSON")["months"][&month]["sha256"]
            .clone();
        said["months"]["1999-01"] = serde_json::json!({"file": "budget-1999-01.csv", "sha256": "x"});
        std::fs::write(folder.join(MANIFEST), said.to_string()).expect("manifest");
        publish(&data, &log, feed(basis, by), Box::new(Folder::new(&folder))).expect("published");
        let empty = get("budget-1999-01.csv").expect("the month");
        assert_eq!(empty, b"date,category,amount,currency,source,deal_id\n");
    }
}

#[test]
fn a_feed_in_place_of_another_empties_its_months_and_asks_nobody() {
    let data = Data::new();
    let log = data.log();
    let folder = data.dir.path().join("feed");
    let get = |name: &str| std::fs::read(folder.join(name)).ok();
    publish(
        &data,
        &log,
        feed(Basis::Recognition, By::Deal),
        Box::new(Folder::new(&folder)),
    )
    .expect("published");
    // Further than this feed will ever read, and a month that it has nothing in.
    let mut said: Json = serde_json::from_slice(&get(MANIFEST).expect("manifest")).expect("JSON");
    said["positions"]["billing.schedule-0"] = 1_000_000.into();
    said["months"]["1999-01"] = serde_json::json!({"file": "budget-1999-01.csv", "sha256": "x"});
    std::fs::write(folder.join(MANIFEST), said.to_string()).expect("manifest");
    publish(
        &data,
        &log,
        feed(Basis::Billing, By::Deal),
        Box::new(Folder::new(&folder)),
    )
    .expect("published in its place");
    assert_eq!(sums(&get), planned(&data, log.as_ref(), "billing"));
    let empty = get("budget-1999-01.csv").expect("the month");
    assert_eq!(empty, b"date,category,amount,currency,source,deal_id\n");
}

#[test]
fn a_planned_amount_of_a_period_without_days_is_not_left_out() {
    let data = Data::new();
    let log = data.log();
    let folder = data.dir.path().join("feed");
    let mut worker = Worker {
        tables: BY_RECOGNITION,
        ..data.worker(log.clone(), 3_000)
    };
    // Planned by calendar months, and read by a topology whose tenant has years of weeks.
    let weeks = "[[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n[tenants.acme-corp]\nfiscal_calendar = \"4-4-5\"\n";
    let topology = accrue::config::parse("topology.toml", weeks, &|_| None).expect("a topology");
    worker.settings = topology.settings().clone();
    let mut budget = Budget::new(feed(Basis::Recognition, By::Deal), Box::new(Folder::new(&folder)));
    let refused = worker.run(&mut budget, &AtomicBool::new(false)).map(drop);
    let refused = refused.expect_err("no days").to_string();
    assert!(refused.contains("fiscal_calendar of [tenants.acme-corp]"), "{refused}");
    assert!(times_or_none(&folder).is_empty(), "nothing is published");
}

#[test]
fn a_feed_that_is_behind_publishes_nothing() {
    let data = Data::new();
    let log = data.log();
    let folder = data.dir.path().join("feed");
    let publish = || {
        publish(
            &data,
            &log,
            feed(Basis::Billing, By::Deal),
            Box::new(Folder::new(&folder)),
        )
    };
    publish().expect("published");
    let mut said: Json =
        serde_json::from_slice(&std::fs::read(folder.join(MANIFEST)).expect("manifest")).expect("JSON");
    said["positions"]["billing.schedule-0"] = 1_000_000.into();
    said["months"] = Json::Object(serde_json::Map::new());
    std::fs::write(folder.join(MANIFEST), said.to_string()).expect("manifest");
    let before = times(&folder);
    let refused = publish().expect_err("another feed is ahead").to_string();
    assert!(refused.contains("billing.schedule-0 up to 1000000"), "{refused}");
    assert_eq!(times(&folder), before);
}

/// OpenSSH's server for this account, on a free port, stopped when dropped.
struct Sshd {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Sshd {
    fn start() -> Sshd {
        let dir = tempfile::tempdir().expect("folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "client", "stranger"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)])
                .status()
                .expect("ssh-keygen");
            assert!(made.success());
        }
        std::fs::copy(at("client.pub"), at("authorized")).expect("copy");
        std::fs::create_dir(dir.path().join("in box")).expect("folder");
        // Where the server runs as root, it wants this folder.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("port")
            .port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n",
            at("host"),
            at("authorized")
        );
        std::fs::write(at("config"), config).expect("config");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &at("config")])
            .stderr(Stdio::from(std::fs::File::create(at("log")).expect("log")))
            .spawn()
            .expect("sshd (Debian: openssh-server)");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{}",
                std::fs::read_to_string(at("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let public = std::fs::read_to_string(at("host.pub")).expect("host key");
        std::fs::write(at("known"), format!("[127.0.0.1]:{port} {public}")).expect("known hosts");
        std::fs::write(at("unknown"), "").expect("no known hosts");
        Sshd { child, port, dir }
    }

    fn outlet(&self, key: &str, known: &str) -> Sftp {
        let user = Command::new("id").arg("-un").output().expect("id").stdout;
        Sftp {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user: String::from_utf8_lossy(&user).trim().to_owned(),
            folder: self.dir.path().join("in box").display().to_string(),
            identity: Some(self.dir.path().join(key)),
            known_hosts: Some(self.dir.path().join(known)),
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs OpenSSH's server: make test"]
fn sftp_replaces_whole_files_and_trusts_no_stranger() {
    let data = Data::new();
    let log = data.log();
    let server = Sshd::start();
    let good = || Box::new(server.outlet("client", "known"));
    let by_category = || feed(Basis::Billing, By::Category);
    publish(&data, &log, by_category(), good()).expect("published");
    let folder = server.dir.path().join("in box");
    let get = |name: &str| std::fs::read(folder.join(name)).ok();
    assert_eq!(sums(&get), planned(&data, log.as_ref(), "billing"));
    let left = times(&folder).into_keys().find(|name| name.ends_with(".new"));
    assert_eq!(left, None, "an upload was left under its other name");

    // A file that is there is replaced.
    let sftp = server.outlet("client", "known");
    sftp.put("it", b"one").expect("put");
    sftp.put("it", b"two").expect("replaced");
    assert_eq!(sftp.get("it").expect("get").as_deref(), Some(&b"two"[..]));
    assert_eq!(sftp.get("nothing").expect("get"), None);

    let stranger = server
        .outlet("stranger", "known")
        .put("it", b"three")
        .expect_err("no login");
    assert!(stranger.to_string().contains("Permission denied"), "{stranger}");
    let unknown = server
        .outlet("client", "unknown")
        .put("it", b"three")
        .expect_err("unknown server");
    assert!(
        unknown.to_string().contains("Host key verification failed"),
        "{unknown}"
    );
    assert_eq!(get("it").as_deref(), Some(&b"two"[..]));
}

/// A server that keeps what is put, and can be told to fail.
struct Planning {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    failures: Arc<Mutex<u32>>,
    port: u16,
}

impl Planning {
    fn start() -> Planning {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        let planning = Planning {
            files: Arc::default(),
            failures: Arc::default(),
            port,
        };
        let (files, failures) = (planning.files.clone(), planning.failures.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = Planning::serve(stream, &files, &failures);
            }
        });
        planning
    }

    fn serve(
        mut stream: TcpStream,
        files: &Mutex<BTreeMap<String, Vec<u8>>>,
        failures: &Mutex<u32>,
    ) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let (head, mut body) = loop {
            let n = stream.read(&mut buffer)?;
            bytes.extend_from_slice(&buffer[..n]);
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break (
                    String::from_utf8_lossy(&bytes[..end]).to_lowercase(),
                    bytes[end + 4..].to_vec(),
                );
            }
            if n == 0 {
                return Ok(());
            }
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0);
        while body.len() < length {
            let n = stream.read(&mut buffer)?;
            body.extend_from_slice(&buffer[..n]);
        }
        let mut words = head.split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default().to_owned(),
        );
        let mut files = files.lock().expect("files");
        let mut failures = failures.lock().expect("failures");
        let (status, answer) = match method {
            _ if !head.contains("authorization: bearer t0ken") => ("401 No", Vec::new()),
            "put" if *failures > 0 => {
                *failures -= 1;
                ("503 Later", Vec::new())
            }
            "put" => {
                files.insert(path, body);
                ("204 Done", Vec::new())
            }
            _ => match files.get(&path) {
                Some(bytes) => ("200 OK", bytes.clone()),
                None => ("404 Nothing", Vec::new()),
            },
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&answer)
    }
}

#[test]
fn over_http_a_server_that_fails_gets_everything_in_the_end() {
    let data = Data::new();
    let log = data.log();
    let server = Planning::start();
    *server.failures.lock().expect("failures") = 2;
    let base = format!("http://127.0.0.1:{}/budget/", server.port);
    let outlet = || Box::new(Http::new(&base, Some("T0ken")).expect("client"));
    publish(&data, &log, feed(Basis::Recognition, By::Category), outlet()).expect("published");
    assert_eq!(
        *server.failures.lock().expect("failures"),
        0,
        "the server was not made to fail"
    );
    let get = |name: &str| {
        server
            .files
            .lock()
            .expect("files")
            .get(&format!("/budget/{name}"))
            .cloned()
    };
    assert_eq!(sums(&get), planned(&data, log.as_ref(), "schedule"));

    let stranger = Http::new(&base, None).expect("client");
    let refused = publish(&data, &log, feed(Basis::Recognition, By::Category), Box::new(stranger));
    assert!(refused.expect_err("no token").to_string().contains("401"));
}
