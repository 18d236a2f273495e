//! Contracts over HTTP, as the program serves them on the embedded log.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const DEALS: usize = 12;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn accrue(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accrue"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ACCRUE_DATA_DIR", dir);
    command
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("address").port()
}

/// Status, headers that matter, body.
fn get(url: &str, token: Option<&str>) -> Option<(u16, Option<String>, Value)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let mut request = reqwest::Client::new().get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.ok()?;
        let retry = response.headers().get("retry-after");
        let retry = retry.map(|value| value.to_str().expect("text").to_owned());
        Some((response.status().as_u16(), retry, response.json().await.ok()?))
    })
}

fn text(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let response = reqwest::get(url).await.expect("an answer");
        response.text().await.expect("text")
    })
}

/// Asks the embedded registry to take any schema of the public topic.
fn set_no_compatibility(port: u16, token: Option<&str>) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let url = format!("http://127.0.0.1:{port}/config/deal.canonical-value");
        let mut request = reqwest::Client::new().put(url).body(r#"{"compatibility": "NONE"}"#);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    })
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn say(dir: &Path) {
    let out = accrue(dir, &["apply"]).output().expect("apply");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut facts = String::new();
    for n in 0..DEALS {
        let tenant = if n % 6 == 5 { "other-inc" } else { "acme-corp" };
        facts.push_str(&format!(
            r#"{{"event_id":"close-{n:02}","source":"test","type":"deal.closed","occurred_at":"2026-01-05T00:00:00Z","tenant_id":"{tenant}","payload":{{"deal_id":"D{n:02}","amount":"{}.00","currency":"USD","term_months":12,"contract_start":"2026-02-01"}}}}"#,
            1200 * (n + 1)
        ));
        facts.push('\n');
    }
    // In another currency than the books, and nobody has said a rate.
    facts.push_str(
        r#"{"event_id":"close-waits","source":"test","type":"deal.closed","occurred_at":"2026-01-05T00:00:00Z","tenant_id":"acme-corp","payload":{"deal_id":"E00","amount":"1200.00","currency":"EUR","term_months":12,"contract_start":"2026-02-01"}}"#,
    );
    facts.push('\n');
    for tenant in ["acme-corp", "other-inc"] {
        facts.push_str(&format!(
            r#"{{"event_id":"tick-{tenant}","source":"test","type":"clock.ticked","occurred_at":"2026-03-01T00:00:00Z","tenant_id":"{tenant}","payload":{{"date":"2026-03-01"}}}}"#
        ));
        facts.push('\n');
    }
    let file = dir.join("facts.jsonl");
    std::fs::write(&file, facts).expect("facts");
    let out = accrue(dir, &["facts", "post", file.to_str().expect("path")])
        .output()
        .expect("post");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn run(dir: &Path, listen: &str, token: &str) -> Running {
    let log = File::create(dir.join("run.log")).expect("log");
    let child = accrue(dir, &["run"])
        .env("ACCRUE_HTTP_LISTEN", listen)
        .env("ACCRUE_HTTP_TOKEN", token)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Running(child.expect("run"))
}

#[test]
fn contracts_are_served_as_they_stand() {
    let dir = tempfile::tempdir().expect("folder");
    let (port, open) = (free_port(), "http://127.0.0.1");
    say(dir.path());
    let _running = run(dir.path(), &format!("127.0.0.1:{port}"), "");
    let base = format!("{open}:{port}/contracts");

    // The last deal of all is there: then its whole partition is.
    let last = until("the last deal", || {
        let (status, _, body) = get(&format!("{base}/acme-corp/D10"), None)?;
        let settled = status == 200 && body["as_of"] == "2026-03-01";
        settled.then_some(body)
    });
    assert_eq!(last["tenant_id"], "acme-corp");
    assert_eq!(last["contracts"][0]["transaction_price"], "13200.00");
    assert_eq!(last["balances"][0]["deal_id"], "D10");
    assert_eq!(last["schedule"].as_array().map(Vec::len), Some(12));
    assert!(last["position"]["offset"].as_u64() > Some(0), "{last}");
    assert_eq!(last["position"]["topic"], "accrue-contract-changelog");

    // The partition that would have it may still be on its way.
    for none in ["acme-corp/no-such-deal", "other-inc/D10"] {
        let (status, body) = until("an answer for a deal that is none", || {
            let (status, _, body) = get(&format!("{base}/{none}"), None)?;
            (status != 503).then_some((status, body))
        });
        assert_eq!(
            (status, body["error"].as_str()),
            (404, Some("no such contract")),
            "{none}: a deal is its tenant's only"
        );
    }
    let (status, _, body) = get(&format!("{base}?from=D00"), None).expect("an answer");
    assert_eq!(status, 400, "{body}");
    for limit in ["0", "501", "18446744073709551615"] {
        let (status, _, body) = get(&format!("{base}?tenant=acme-corp&limit={limit}"), None).expect("an answer");
        assert_eq!(status, 400, "{limit}: {body}");
    }

    // Page by page over all partitions: each deal of the tenant once, in order.
    let page = |from: &str| {
        until("a whole list", || {
            let (status, _, body) = get(&format!("{base}?tenant=acme-corp&limit=4&from={from}"), None)?;
            (status == 200).then_some(body)
        })
    };
    let (mut ids, mut from) = (Vec::new(), String::new());
    let mut wanted: Vec<String> = (0..DEALS).filter(|n| n % 6 != 5).map(|n| format!("D{n:02}")).collect();
    wanted.push("E00".to_owned());
    until("every partition has its deals", || {
        let (_, _, all) = get(&format!("{base}?tenant=acme-corp"), None)?;
        (all["deals"].as_array().map(Vec::len) == Some(wanted.len())).then_some(())
    });
    loop {
        let body = page(&from);
        assert_eq!(body["positions"].as_array().map(Vec::len), Some(6), "{body}");
        let deals = body["deals"].as_array().expect("deals").clone();
        ids.extend(
            deals
                .iter()
                .map(|deal| deal["deal_id"].as_str().expect("id").to_owned()),
        );
        match body["next"].as_str() {
            Some(next) => from = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(ids, wanted);

    // Figures of the books: every partition has its clock, and one contract waits.
    let figures = text(&format!("{open}:{port}/metrics"));
    let of = |name: &str| -> Vec<f64> {
        let lines = figures.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines
            .map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
            .collect()
    };
    let midnight = "2026-03-01T00:00:00Z"
        .parse::<jiff::Timestamp>()
        .expect("a time")
        .as_second();
    assert_eq!(
        of("accrue_books_clock_timestamp_seconds"),
        vec![midnight as f64; 6],
        "{figures}"
    );
    assert_eq!(
        of("accrue_books_waiting_contracts").iter().sum::<f64>(),
        1.0,
        "{figures}"
    );
}

#[test]
fn an_open_address_serves_contracts_to_a_token_alone() {
    let dir = tempfile::tempdir().expect("folder");
    say(dir.path());
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/contracts/acme-corp/D00");
    {
        let _running = run(dir.path(), &format!("0.0.0.0:{port}"), "");
        let (status, _, body) = until("an answer", || get(&url, None));
        assert_eq!(status, 403);
        assert!(body["error"].as_str().expect("why").contains("http.token"), "{body}");
        let (status, body) = set_no_compatibility(port, None);
        assert_eq!(status, 403);
        assert!(body["message"].as_str().expect("why").contains("http.token"), "{body}");
    }
    let _running = run(dir.path(), &format!("0.0.0.0:{port}"), "s3cret");
    let (status, _, _) = until("an answer", || get(&url, None));
    assert_eq!(status, 401);
    let (status, _, _) = get(&url, Some("s3creT")).expect("an answer");
    assert_eq!(status, 401);
    assert_eq!(set_no_compatibility(port, Some("s3creT")).0, 401);
    let config = format!("http://127.0.0.1:{port}/config/deal.canonical-value");
    let (_, _, level) = get(&config, None).expect("an answer");
    assert_eq!(level["compatibilityLevel"], "FULL_TRANSITIVE", "reading needs no token");
    assert_eq!(set_no_compatibility(port, Some("s3cret")).0, 200);
    let shown = until("the deal", || {
        let (status, retry, body) = get(&url, Some("s3cret"))?;
        if status == 503 {
            assert_eq!(
                retry.as_deref(),
                Some("2"),
                "an answer that is not there yet says when to ask again"
            );
            assert!(
                body["error"].as_str().is_some_and(|why| why.contains("contract_")),
                "{body}"
            );
        }
        (status == 200).then_some(body)
    });
    assert_eq!(shown["deal_id"], "D00");
}
