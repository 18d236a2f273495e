//! Oracle Fusion's journal import, as far as a writer of journals meets it.
//!
//! Source: <https://docs.oracle.com/en/cloud/saas/financials/24d/farfa/Importing_Financials_Data.html>. A file is submitted, a
//! job waits, and runs when it was asked about often enough or after half a minute; rows that are wrong fail the job.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::Company;
use super::room::{Kind, Limits, Posted, Request, Response, Settings, Vendor};

/// What a user of the sandbox configures.
pub const USER: &str = "sandbox-user";
pub const PASSWORD: &str = "sandbox-oracle-password";
const RUNS_AFTER: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub struct Oracle {
    company: Company,
    pending_polls: u32,
    jobs: Vec<Job>,
    batches: Vec<Value>,
}

struct Job {
    id: u64,
    at: Duration,
    polls_left: u32,
    rows: Vec<Vec<String>>,
    status: &'static str,
}

impl Vendor for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn kind(&self, request: &Request) -> Kind {
        match request.method.as_str() {
            "GET" => Kind::Read,
            _ => Kind::Write,
        }
    }

    fn handle(&mut self, request: &Request, now: Duration) -> Response {
        let who = format!("Basic {}", BASE64.encode(format!("{USER}:{PASSWORD}")));
        if request.header("authorization") != who {
            return Response::empty(401);
        }
        let due: Vec<u64> = self
            .jobs
            .iter()
            .filter(|job| job.status == "WAIT" && job.at + RUNS_AFTER <= now)
            .map(|job| job.id)
            .collect();
        due.into_iter().for_each(|id| self.run(id));
        let resource = request
            .path
            .strip_prefix("fscmRestApi/resources/11.13.18.05/")
            .unwrap_or_default();
        match (request.method.as_str(), resource) {
            ("POST", "erpintegrations") => self.submit(&request.json(), now),
            ("GET", "erpintegrations") => self.status(request.query("finder")),
            ("GET", "journalBatches") => self.find(request.query("q")),
            _ => Response::empty(404),
        }
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn documents(&self) -> Vec<Posted> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let amount = |value: &Value| {
            value
                .as_str()
                .and_then(|text| text.parse::<Decimal>().ok())
                .unwrap_or_default()
        };
        let shown = |batch: &Value| {
            let header = &batch["journalHeaders"]["items"][0];
            let lines = header["journalLines"]["items"].as_array().into_iter().flatten();
            Posted {
                kind: "journal",
                id: batch["JeBatchId"].to_string(),
                reference: text(&batch["BatchName"])
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
                date: text(&header["EffectiveDate"]),
                currency: "USD".to_owned(),
                status: "imported".to_owned(),
                customer: String::new(),
                text: text(&batch["BatchDescription"]),
                lines: lines
                    .map(|line| {
                        (
                            text(&line["AccountCombination"]),
                            amount(&line["AccountedDr"]) - amount(&line["AccountedCr"]),
                        )
                    })
                    .collect(),
            }
        };
        self.batches.iter().map(shown).collect()
    }

    fn expire_tokens(&mut self) {}

    fn set(&mut self, settings: &Settings) {
        self.company.set(settings);
        if let Some(polls) = settings.pending_polls {
            self.pending_polls = polls;
        }
    }
}

impl Oracle {
    fn submit(&mut self, body: &Value, now: Duration) -> Response {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let known = text("JobName").ends_with("common,JournalImportLauncher")
            && text("DocumentAccount") == "fin$/generalLedger$/import$";
        let rows = BASE64.decode(text("DocumentContent")).ok().and_then(rows);
        let (true, "importBulkData", "zip", Some(rows)) = (known, text("OperationName"), text("ContentType"), rows)
        else {
            return Response::json(
                400,
                &json!({ "title": "Bad Request", "status": "400", "detail": "JBO-FND: the request is not valid" }),
            );
        };
        let id = 300_000_000 + self.company.next_number();
        self.jobs.push(Job {
            id,
            at: now,
            polls_left: self.pending_polls,
            rows,
            status: "WAIT",
        });
        Response::json(
            201,
            &json!({ "OperationName": "importBulkData", "ReqstId": id.to_string() }),
        )
    }

    fn status(&mut self, finder: &str) -> Response {
        let id = finder
            .strip_prefix("ESSJobStatusRF;requestId=")
            .and_then(|id| id.parse::<u64>().ok());
        let Some(job) = self.jobs.iter_mut().find(|job| Some(job.id) == id) else {
            return Response::json(200, &json!({ "items": [], "count": 0 }));
        };
        let id = job.id;
        match (job.status, job.polls_left) {
            ("WAIT", 0) => self.run(id),
            ("WAIT", _) => job.polls_left -= 1,
            _ => {}
        }
        let status = self
            .jobs
            .iter()
            .find(|job| job.id == id)
            .map_or("ERROR", |job| job.status);
        Response::json(
            200,
            &json!({ "items": [{ "RequestStatus": status, "ReqstId": id.to_string() }], "count": 1 }),
        )
    }

    fn run(&mut self, id: u64) {
        let Some(at) = self.jobs.iter().position(|job| job.id == id) else {
            return;
        };
        let rows = std::mem::take(&mut self.jobs[at].rows);
        let batch = self.batch(id, &rows);
        self.jobs[at].status = if batch.is_some() { "SUCCEEDED" } else { "ERROR" };
        self.batches.extend(batch);
    }

    /// `None` when a row is wrong.
    fn batch(&mut self, job: u64, rows: &[Vec<String>]) -> Option<Value> {
        let mut sum = Decimal::ZERO;
        let mut lines = Vec::new();
        let first = rows.first()?;
        for row in rows {
            let segments: Vec<&str> = row
                .get(8..38)?
                .iter()
                .map(String::as_str)
                .filter(|one| !one.is_empty())
                .collect();
            let account = segments.join("-");
            let amount = |at: usize| match row.get(at).map(String::as_str)? {
                "" => Some(Decimal::ZERO),
                text => text.parse::<Decimal>().ok(),
            };
            let right = row.len() == 67 && row[0] == "NEW" && row[7] == "A" && self.company.knows(&account);
            let open = !self.company.is_closed(&row[2].replace('/', "-"));
            right.then_some(())?;
            open.then_some(())?;
            sum += amount(40)? - amount(41)?;
            lines.push(json!({
                "AccountCombination": account,
                "AccountedDr": amount(40)?.to_string(),
                "AccountedCr": amount(41)?.to_string(),
            }));
        }
        sum.is_zero().then_some(())?;
        let header = json!({
            "EffectiveDate": first[2].replace('/', "-"),
            "CurrencyCode": first[5],
            "journalLines": { "items": lines },
        });
        Some(json!({
            "JeBatchId": self.company.next_number(),
            "BatchName": format!("{} {} {job} A", first[42], first[3]),
            "BatchDescription": first[43],
            "journalHeaders": { "items": [header] },
        }))
    }

    fn find(&self, query: &str) -> Response {
        let prefix = query
            .strip_prefix("BatchName LIKE '")
            .and_then(|rest| rest.strip_suffix("%'"));
        let matching = |batch: &&Value| {
            let name = batch["BatchName"].as_str().unwrap_or_default();
            prefix.is_none_or(|prefix| name.starts_with(prefix))
        };
        let items: Vec<&Value> = self.batches.iter().filter(matching).collect();
        Response::json(200, &json!({ "items": items, "count": items.len(), "hasMore": false }))
    }
}

/// The rows of `GlInterface.csv` in an archive.
fn rows(archive: Vec<u8>) -> Option<Vec<Vec<String>>> {
    // The local header of the one file: stored (method 0), with its size and the length of its name.
    let number = |at: usize, bytes: usize| {
        let part = archive.get(at..at + bytes)?;
        Some(
            part.iter()
                .rev()
                .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte)),
        )
    };
    let (method, size, name) = (number(8, 2)?, number(18, 4)?, number(26, 2)?);
    let named = archive.starts_with(b"PK\x03\x04") && archive.get(30..30 + name)? == b"GlInterface.csv";
    (named && method == 0).then_some(())?;
    let csv = String::from_utf8(archive.get(30 + name..30 + name + size)?.to_vec()).ok()?;
    Some(csv.lines().map(fields).collect())
}

fn fields(row: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut characters = row.chars().peekable();
    while let Some(c) = characters.next() {
        let last = fields.len() - 1;
        match (c, quoted) {
            ('"', true) if characters.peek() == Some(&'"') => {
                characters.next();
                fields[last].push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', false) => fields.push(String::new()),
            (c, _) => fields[last].push(c),
        }
    }
    fields
}
