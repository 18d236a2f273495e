//! Every system by the same measure: made from the topology that `accrue sandbox` prints, delivered to its double.

mod vendor;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use accrue::config;
use accrue::revenue::ledger::Role;
use accrue::sandbox::fault::{Fault, Garbage, Script};
use accrue::sandbox::room::{Kind, Settings};
use accrue::sandbox::{Options, Sandbox, settings, vendors};
use accrue::sink::accounting;
use accrue::sink::accounting::http::Reply;
use accrue::sink::accounting::{netsuite, odoo, oracle, quickbooks};
use accrue::sink::destination::{Destination, Found, Outcome, Tries};
use accrue::sink::document::{Document, Form};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use vendor::*;

const NAMES: [&str; 5] = ["xero", "quickbooks", "netsuite", "oracle", "odoo"];

/// A double, and the destination that the topology makes of what the sandbox prints. A request may take 0.6 s, and a
/// document is looked for 0.6 s later.
async fn system(name: &str) -> (Sandbox, Arc<dyn Destination>) {
    system_at(name, speed(name)).await
}

/// How fast the sandbox's clock runs. Xero forgets keys after minutes, of which it needs more than one second.
fn speed(name: &str) -> u32 {
    if name == "xero" { 60 } else { 600 }
}

async fn system_at(name: &str, speed: u32) -> (Sandbox, Arc<dyn Destination>) {
    let options = Options {
        speed,
        limits: false,
        ..Options::default()
    };
    let vendor: Vec<_> = vendors().into_iter().filter(|vendor| vendor.name() == name).collect();
    let sandbox = Sandbox::start(vendor, ([127, 0, 0, 1], 0).into(), options)
        .await
        .unwrap();
    let sink = settings::topology(name, &sandbox.url(name)).replace("\"1s\"", "\"50ms\"");
    let more = match name {
        "oracle" => format!(
            "poll_for = \"1s\"\njobs_dir = {:?}\n",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-jobs-{}", std::process::id()))
        ),
        _ => String::new(),
    };
    let text = format!("{sink}timeout = \"600ms\"\nlook_up_after = \"600ms\"\n{more}");
    (sandbox, accounting::build(&sink_of(name, &text)).unwrap())
}

/// The sink of a table, beside the shipped ones.
fn sink_of(name: &str, table: &str) -> config::Sink {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.toml")).unwrap();
    let topology = config::parse("topology.toml", &format!("{shipped}\n{table}"), &|_| None)
        .unwrap_or_else(|problems| panic!("{:?}", problems.iter().map(ToString::to_string).collect::<Vec<_>>()));
    let mut sinks = topology.sinks.into_iter();
    sinks
        .find(|(known, _)| known.as_str() == name)
        .map(|(_, sink)| sink)
        .unwrap()
}

fn three(run: &str) -> [Document; 3] {
    [
        invoice(&format!("je_{run}_1"), "2026-01-15"),
        recognition(&format!("je_{run}_2"), "2026-02-28", "833.33"),
        credit_note(&format!("je_{run}_3"), "2026-03-01"),
    ]
}

fn balances(sandbox: &Sandbox, name: &str) -> BTreeMap<String, Decimal> {
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for (account, amount) in sandbox.documents(name).into_iter().flat_map(|document| document.lines) {
        // Xero's receivable is its own account.
        let account = if account == "610" { "1100".to_owned() } else { account };
        *sums.entry(account).or_default() += amount;
    }
    sums.into_iter()
        .map(|(account, sum)| (account, sum.normalize()))
        .collect()
}

#[tokio::test]
async fn what_arrives_is_what_was_sent_and_a_second_look_finds_it() {
    for name in NAMES {
        let (sandbox, destination) = system(name).await;
        assert_eq!(destination.probe().await, Ok(()), "{name}");
        for document in three("a") {
            let plan = destination.plan(&document).unwrap();
            assert_eq!(
                destination.plan(&document).unwrap(),
                plan,
                "{name}: the same document, other bytes"
            );
            assert_eq!(
                destination.look_up(&document.key, &plan).await,
                Found::Nothing,
                "{name}"
            );
            let end = deliver(&*destination, &document).await;
            let End::Acknowledged(id) = end else {
                panic!(
                    "{name} {}: {end:?} {:?}",
                    document.key,
                    destination.send(&document.key, &plan, &Tries::default()).await
                );
            };
            let found = destination.look_up(&document.key, &plan).await;
            assert!(
                matches!(&found, Found::Same(there) if there.external_id == id),
                "{name} {}: {found:?}",
                document.key
            );
        }
        let expected: BTreeMap<String, Decimal> = [
            ("1100", "8200.00"),
            ("2300", "-700.00"),
            ("2400", "-6666.67"),
            ("4000", "-833.33"),
        ]
        .into_iter()
        .map(|(account, sum)| (account.to_owned(), dec(sum).normalize()))
        .collect();
        assert_eq!(balances(&sandbox, name), expected, "{name}");
    }
}

#[tokio::test]
async fn one_document_whatever_befalls_the_request() {
    let garbage = |garbage| Fault::CommitThenGarbage { garbage };
    let faults = [
        Fault::CommitThenHang,
        Fault::HangThenCommit { after_seconds: 480 },
        Fault::Hang,
        Fault::Throttle { retry_after_seconds: 1 },
        Fault::Fail { status: 503 },
        Fault::CommitThenFail { status: 502 },
        garbage(Garbage::Empty),
        garbage(Garbage::Html),
        garbage(Garbage::Truncated),
        garbage(Garbage::Shape),
        garbage(Garbage::Deep),
        Fault::ExpireTokens,
    ];
    let runs = NAMES.map(|name| {
        let faults = faults.clone();
        tokio::spawn(async move {
            let (sandbox, destination) = system(name).await;
            // Odoo writes twice: a draft, and its posting.
            let skips = if name == "odoo" { 0..2 } else { 0..1 };
            let cases = faults
                .iter()
                .flat_map(|fault| skips.clone().map(move |skip| (fault.clone(), skip)));
            for (n, (mut fault, skip)) in cases.enumerate() {
                if let Fault::HangThenCommit { after_seconds } = &mut fault {
                    // 0.8 s: after the client gave up, before it looks.
                    *after_seconds = u64::from(speed(name)) * 8 / 10;
                }
                let script = Script {
                    skip,
                    ..Script::once(fault.clone())
                };
                sandbox.misbehave(name, script);
                let before = sandbox.documents(name).len();
                let document = recognition(&format!("je_{n:02}"), "2026-02-28", "833.33");
                let end = deliver(&*destination, &document).await;
                assert!(
                    matches!(end, End::Acknowledged(_)),
                    "{name} {fault:?} after {skip}: {end:?}"
                );
                assert_eq!(
                    sandbox.documents(name).len(),
                    before + 1,
                    "{name} {fault:?} after {skip}"
                );
            }
            // And nothing comes late.
            let held = sandbox.documents(name);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(sandbox.documents(name), held, "{name}");
        })
    });
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn refusals_are_told_apart_and_leave_nothing_behind() {
    for name in NAMES {
        let (sandbox, destination) = system(name).await;
        sandbox.set(name, &closed("2026-01-31"));
        let early = recognition("je_early", "2026-01-31", "1.00");
        let expected = match name {
            "oracle" => "import_rejected", // the job's output has the reason
            _ => "closed_period",
        };
        assert_eq!(
            deliver(&*destination, &early).await,
            End::Refused(expected.to_owned()),
            "{name}"
        );
        let only = Settings {
            accounts: Some(vec!["2400".to_owned()]),
            ..Settings::default()
        };
        sandbox.set(name, &only);
        let unmapped = recognition("je_unmapped", "2026-02-28", "1.00");
        let expected = match name {
            "oracle" => "import_rejected",
            // Its id was found before it went away.
            "odoo" => "archived_account",
            _ => "unknown_account",
        };
        assert_eq!(
            deliver(&*destination, &unmapped).await,
            End::Refused(expected.to_owned()),
            "{name}"
        );
        assert_eq!(sandbox.documents(name), [], "{name}");
    }
}

#[tokio::test]
async fn a_refusal_that_quickbooks_repeats_is_not_met_again_and_a_taken_number_is_looked_up() {
    let (sandbox, destination) = system("quickbooks").await;
    let document = recognition("je_1", "2026-01-31", "1.00");
    let plan = destination.plan(&document).unwrap();
    let send = async |round| {
        let tries = Tries { round, resume: None };
        destination.send(&document.key, &plan, &tries).await
    };
    sandbox.set("quickbooks", &closed("2026-01-31"));
    assert_eq!(name(&send(0).await), "refused closed_period");
    sandbox.set("quickbooks", &closed(""));
    assert_eq!(name(&send(0).await), "refused closed_period", "it repeats itself");
    assert!(matches!(send(1).await, Outcome::Acknowledged(_)));
    assert_eq!(name(&send(2).await), "taken");
    assert!(matches!(
        destination.look_up(&document.key, &plan).await,
        Found::Same(_)
    ));
    assert_eq!(sandbox.documents("quickbooks").len(), 1);
}

#[tokio::test]
async fn other_content_under_our_key_is_for_a_person() {
    for name in NAMES {
        let (_sandbox, destination) = system(name).await;
        let document = recognition("je_1", "2026-02-28", "10.00");
        assert!(
            matches!(deliver(&*destination, &document).await, End::Acknowledged(_)),
            "{name}"
        );
        let other = recognition("je_1", "2026-02-28", "11.00");
        let found = destination
            .look_up(&other.key, &destination.plan(&other).unwrap())
            .await;
        let Found::Different { what, .. } = &found else {
            panic!("{name}: {found:?}");
        };
        assert!(what.contains("10 instead of 11"), "{name}: {what}");
    }
}

#[tokio::test]
async fn secrets_are_in_nothing_that_is_kept() {
    let secrets = [
        "access-",
        "sandbox-client-secret",
        "sandbox-odoo-api-key",
        "sandbox-oracle-password",
    ];
    for name in NAMES {
        let (sandbox, destination) = system(name).await;
        let document = recognition("je_1", "2026-02-28", "10.00");
        let plan = destination.plan(&document).unwrap();
        sandbox.misbehave(name, Script::once(Fault::RepeatSecrets));
        let sent = destination.send(&document.key, &plan, &Tries::default()).await;
        sandbox.misbehave(
            name,
            Script {
                on: Kind::Read,
                ..Script::once(Fault::RepeatSecrets)
            },
        );
        let found = destination.look_up(&document.key, &plan).await;
        let shown = format!("{sent:?} {found:?} {}", String::from_utf8_lossy(&plan.body));
        assert!(!matches!(sent, Outcome::Acknowledged(_)), "{name}: {shown}");
        for secret in secrets {
            assert!(!shown.contains(secret), "{name}: {shown}");
        }
    }
}

#[tokio::test]
async fn a_draft_of_odoo_that_was_left_is_posted() {
    let (sandbox, destination) = system("odoo").await;
    let document = recognition("je_1", "2026-02-28", "10.00");
    let plan = destination.plan(&document).unwrap();
    sandbox.misbehave(
        "odoo",
        Script {
            skip: 1,
            ..Script::once(Fault::Hang)
        },
    );
    assert!(matches!(
        destination.send(&document.key, &plan, &Tries::default()).await,
        Outcome::Uncertain(_)
    ));
    let Found::Unfinished { external_id } = destination.look_up(&document.key, &plan).await else {
        panic!("no draft");
    };
    assert!(matches!(
        destination.send(&document.key, &plan, &resumed(&external_id)).await,
        Outcome::Acknowledged(_)
    ));
    assert_eq!(sandbox.documents("odoo").len(), 1);
}

/// What a column of the import or the time of a request cannot hold is refused before anything is sent.
#[test]
fn oracle_settings_that_cannot_work_are_refused() {
    let build = |from: &str, to: &str| {
        let sink = settings::topology("oracle", "http://127.0.0.1:1").replace(from, to);
        let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.toml")).unwrap();
        let topology = config::parse("topology.toml", &format!("{shipped}\n{sink}"), &|_| None)
            .unwrap_or_else(|problems| panic!("{:?}", problems.iter().map(ToString::to_string).collect::<Vec<_>>()));
        let sink = topology
            .sinks
            .values()
            .find(|sink| sink.name.as_str() == "oracle")
            .unwrap();
        accounting::build(sink).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(build("poll_every = \"1s\"", "poll_every = \"1s\""), Ok(()));
    let refused = build("poll_every = \"1s\"", "poll_every = \"1s\"\npoll_for = \"5m\"").unwrap_err();
    assert!(refused.contains("poll_for"), "{refused}");
    for (from, to) in [("\"Accrue\"", "\"Accrue, Inc\""), ("\"Revenue\"", "'Re\"venue'")] {
        let refused = build(from, to).unwrap_err();
        assert!(refused.contains("holds a comma, a quote"), "{refused}");
    }
}

#[tokio::test]
async fn a_job_of_oracle_that_stays_pending_is_asked_about_and_not_submitted_again() {
    // Half a minute of the sandbox, after which the job would run by itself, is five seconds here.
    let (sandbox, destination) = system_at("oracle", 6).await;
    let patience = Settings {
        pending_polls: Some(30),
        ..Settings::default()
    };
    sandbox.set("oracle", &patience);
    let document = recognition("je_pending", "2026-02-28", "10.00");
    let plan = destination.plan(&document).unwrap();
    let outcome = destination.send(&document.key, &plan, &Tries::default()).await;
    assert!(
        // No failure, and looked at soon: the system serves.
        matches!(&outcome, Outcome::Taken(why) if why.contains("is still WAIT")),
        "{outcome:?}"
    );
    let Found::Unfinished { external_id: job } = destination.look_up(&document.key, &plan).await else {
        panic!("the job is not known");
    };
    let mut end = destination.send(&document.key, &plan, &resumed(&job)).await;
    for _ in 0..5 {
        if matches!(end, Outcome::Taken(_)) {
            end = destination.send(&document.key, &plan, &resumed(&job)).await;
        }
    }
    assert!(matches!(end, Outcome::Acknowledged(_)), "{end:?}");
    assert_eq!((sandbox.writes("oracle"), sandbox.documents("oracle").len()), (1, 1));
}

#[tokio::test]
async fn a_job_of_oracle_whose_number_cannot_be_read_is_not_taken_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let sink = settings::topology("oracle", "http://127.0.0.1:1") + &format!("jobs_dir = {:?}\n", dir.path());
    let destination = accounting::build(&sink_of("oracle", &sink)).unwrap();
    let document = recognition("je_unread", "2026-02-28", "10.00");
    let plan = destination.plan(&document).unwrap();
    // A folder where the note should be: any error but that it is not there.
    std::fs::create_dir(dir.path().join(plan.reference.replace(':', "_"))).unwrap();
    let found = destination.look_up(&document.key, &plan).await;
    assert!(
        matches!(&found, Found::Unknown(why) if why.contains("cannot be read")),
        "{found:?}"
    );
}

/// A server that gives tokens, and asks for patience whatever else it is asked.
fn throttling() -> String {
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap_or(0);
            let is_token = String::from_utf8_lossy(&asked[..read]).contains("token");
            let (status, body) = match is_token {
                true => ("200 OK", r#"{"access_token":"t","expires_in":3600}"#),
                false => ("429 Too Many Requests\r\nretry-after: 7", ""),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + body).as_bytes());
        }
    });
    url
}

#[tokio::test]
async fn a_question_that_is_throttled_is_no_outage() {
    let seven = Some(Duration::from_secs(7));
    for name in NAMES {
        let sink = settings::topology(name, &throttling());
        let destination = accounting::build(&sink_of(name, &sink)).unwrap();
        let document = match name {
            "oracle" => recognition("je_slow", "2026-02-28", "10.00"),
            _ => invoice("je_slow", "2026-02-28"),
        };
        let plan = destination.plan(&document).unwrap();
        // Where a customer is looked for first, that is what is throttled.
        let sent = destination.send(&document.key, &plan, &Tries::default()).await;
        assert!(matches!(&sent, Outcome::Throttled { .. }), "{name}: {sent:?}");
        let found = destination.look_up(&document.key, &plan).await;
        assert_eq!(found, Found::Throttled { retry_after: seven }, "{name}");
    }
}

fn body(plan: Result<accrue::sink::destination::Plan, accrue::sink::destination::Refusal>) -> Value {
    serde_json::from_slice(&plan.unwrap().body).unwrap()
}

fn items() -> BTreeMap<String, String> {
    [("2400", "21"), ("2300", "22")]
        .map(|(account, item)| (account.to_owned(), item.to_owned()))
        .into()
}

#[test]
fn quickbooks_bodies_are_as_its_schemas_say() {
    let journal = quickbooks::request::plan(
        &recognition("je_0123456789abcdef01234567", "2026-02-28", "833.33"),
        &items(),
    );
    assert_eq!(journal.as_ref().unwrap().reference, "je_0123456789abcdef01");
    let line = |kind: &str, account: &str, role: &str| {
        json!({ "DetailType": "JournalEntryLineDetail", "Amount": 833.33, "Description": role,
            "JournalEntryLineDetail": { "PostingType": kind, "AccountRef": { "value": account } } })
    };
    let expected = json!({
        "DocNumber": "je_0123456789abcdef01", "TxnDate": "2026-02-28",
        "PrivateNote": "D-98765 recognition 2026-02 [je_0123456789abcdef01234567]",
        "Line": [line("Debit", "2400", "contract_liability"), line("Credit", "4000", "revenue.subscription")],
    });
    assert_eq!(body(journal), expected);
    let sent = body(quickbooks::request::plan(&invoice("je_1", "2026-01-15"), &items()));
    assert_eq!(sent["CustomerRef"], json!({ "name": "Globex Corporation (C-1)" }));
    assert_eq!(sent["Line"][0]["SalesItemLineDetail"]["ItemRef"]["value"], "21");
    assert_eq!(sent["Line"][1]["Amount"].to_string(), "700.00");
    let refusal = quickbooks::request::plan(&invoice("je_1", "2026-01-15"), &BTreeMap::new()).unwrap_err();
    assert_eq!(refusal.code, "no_item");
    assert!(refusal.advice.contains("\"2400\" ="), "{}", refusal.advice);
    let mut payment = document(
        "je_2",
        Form::Journal,
        "2026-01-20",
        &[
            (Role::Cash, "1000", "5.00"),
            (Role::AccountsReceivable, "1100", "-5.00"),
        ],
    );
    let sent = body(quickbooks::request::plan(&payment, &items()));
    assert_eq!(sent["Line"][1]["JournalEntryLineDetail"]["Entity"]["Type"], "Customer");
    payment.customer = None;
    assert_eq!(
        quickbooks::request::plan(&payment, &items()).unwrap_err().code,
        "no_customer"
    );
}

#[test]
fn netsuite_bodies_carry_the_external_id() {
    let sent = body(netsuite::request::plan(
        &recognition("je_1", "2026-02-28", "833.33"),
        Some("3"),
        &items(),
    ));
    let expected = json!({
        "customer": { "externalId": "C-1", "companyName": "Globex Corporation", "isPerson": false, "subsidiary": { "id": "3" } },
        "record": {
            "externalId": "je_1", "tranDate": "2026-02-28", "memo": "D-98765 recognition 2026-02", "subsidiary": { "id": "3" },
            "line": { "items": [
                { "account": { "id": "2400" }, "debit": 833.33, "memo": "contract_liability" },
                { "account": { "id": "4000" }, "credit": 833.33, "memo": "revenue.subscription" },
            ] },
        },
    });
    assert_eq!(sent, expected);
}

#[test]
fn odoo_entries_carry_both_amounts_of_a_foreign_entry() {
    let rows = [
        (Role::ContractLiability, "2400", "100.00", "108.12"),
        (revenue("subscription"), "4000", "-100.00", "-108.12"),
    ];
    let sent = body(odoo::request::plan(&foreign(
        "je_1",
        Form::Journal,
        "2026-02-28",
        "EUR",
        &rows,
    )));
    assert_eq!(sent["line_ids"][1]["credit"].to_string(), "108.12");
    assert_eq!(sent["line_ids"][1]["amount_currency"].to_string(), "-100.00");
    assert_eq!(sent["line_ids"][1]["currency_id"], "EUR");
    assert_eq!(
        body(odoo::request::plan(&credit_note("je_2", "2026-03-01")))["move_type"],
        "out_refund"
    );
}

fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        retry_after: None,
        location: None,
        body: body.as_bytes().to_vec(),
    }
}

fn name(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Acknowledged(there) => format!("acknowledged {}", there.external_id),
        Outcome::Refused(refusal) => {
            assert!(refusal.advice.len() > 20, "{refusal:?}");
            format!("refused {}", refusal.code)
        }
        Outcome::Throttled { retry_after } => format!("throttled {retry_after:?}"),
        Outcome::Unavailable(_) => "unavailable".to_owned(),
        Outcome::Uncertain(_) => "uncertain".to_owned(),
        Outcome::Taken(_) => "taken".to_owned(),
    }
}

#[test]
fn quickbooks_faults_have_their_outcomes() {
    let plan = quickbooks::request::plan(&recognition("je_1", "2026-02-28", "1.00"), &items()).unwrap();
    let fault = |status: u16, kind: &str, code: &str, text: &str| {
        let body = json!({ "Fault": { "type": kind, "Error": [{ "code": code, "Message": text, "Detail": "" }] } });
        quickbooks::judge::sent(&reply(status, &body.to_string()), &plan)
    };
    let cases = [
        (
            quickbooks::judge::sent(&reply(200, r#"{"JournalEntry":{"Id":"7"}}"#), &plan),
            "acknowledged 7",
        ),
        (quickbooks::judge::sent(&reply(200, "{}"), &plan), "uncertain"),
        (quickbooks::judge::sent(&reply(200, "<html>"), &plan), "uncertain"),
        (quickbooks::judge::sent(&reply(429, ""), &plan), "throttled Some(60s)"),
        (quickbooks::judge::sent(&reply(401, ""), &plan), "unavailable"),
        (quickbooks::judge::sent(&reply(500, ""), &plan), "uncertain"),
        (quickbooks::judge::sent(&reply(504, ""), &plan), "uncertain"),
        (
            quickbooks::judge::sent(&reply(400, "no JSON"), &plan),
            "refused not_understood",
        ),
        // A fault may come with 200.
        (
            fault(200, "ValidationFault", "2500", "Invalid Reference Id"),
            "refused unknown_account",
        ),
        (
            fault(400, "ValidationFault", "6140", "Duplicate Document Number Error"),
            "taken",
        ),
        (
            fault(400, "ValidationFault", "5010", "Stale Object Error"),
            "refused stale_object",
        ),
        (
            fault(400, "ValidationFault", "6210", "Account Period Closed"),
            "refused closed_period",
        ),
        (
            fault(400, "ValidationFault", "6000", "debits and credits do not balance"),
            "refused unbalanced",
        ),
        (
            fault(400, "ValidationFault", "9999", "Something new"),
            "refused invalid",
        ),
        (fault(400, "SystemFault", "10000", "An application error"), "uncertain"),
        (
            fault(401, "AuthenticationFault", "3200", "Token expired"),
            "unavailable",
        ),
        (fault(403, "AuthorizationFault", "3100", "no"), "unavailable"),
    ];
    for (outcome, expected) in &cases {
        assert_eq!(name(outcome), *expected, "{outcome:?}");
    }
}

#[test]
fn netsuite_odoo_and_oracle_errors_have_their_outcomes() {
    let netsuite = |status: u16, code: &str, detail: &str| {
        let body = json!({ "status": status, "o:errorDetails": [{ "o:errorCode": code, "detail": detail }] });
        netsuite::judge::sent(&reply(status, &body.to_string()))
    };
    let made = Reply {
        location: Some("https://x/services/rest/record/v1/journalEntry/42".to_owned()),
        ..reply(204, "")
    };
    let odoo = |status: u16, kind: &str, message: &str| {
        let body = json!({ "name": kind, "message": message });
        odoo::judge::fault(odoo::judge::result(&reply(status, &body.to_string())).unwrap_err())
    };
    let submitted = |status: u16, body: &str| match oracle::judge::submitted(&reply(status, body)) {
        Ok(job) => format!("job {job}"),
        Err(outcome) => name(&outcome),
    };
    let cases = [
        (netsuite::judge::sent(&made), "acknowledged 42"),
        (netsuite::judge::sent(&reply(204, "")), "uncertain"),
        (netsuite(400, "USER_ERROR", "This record already exists."), "taken"),
        (
            netsuite(400, "USER_ERROR", "the posting period is closed"),
            "refused closed_period",
        ),
        (
            netsuite(400, "INVALID_KEY_OR_REF", "Invalid reference key 9 for account."),
            "refused unknown_account",
        ),
        (
            netsuite(400, "RCRD_HAS_BEEN_CHANGED", "Record has been changed"),
            "refused stale_object",
        ),
        (netsuite(400, "NEW", "Something new"), "refused invalid"),
        (netsuite(401, "INVALID_LOGIN", "Invalid login attempt."), "unavailable"),
        (netsuite(429, "CONCURRENCY", "limit"), "throttled None"),
        (netsuite(500, "UNEXPECTED_ERROR", "x"), "uncertain"),
        (
            odoo(
                422,
                "odoo.exceptions.UserError",
                "prior to and inclusive of the lock date",
            ),
            "refused closed_period",
        ),
        (
            odoo(422, "odoo.exceptions.ValidationError", "Something new"),
            "refused invalid",
        ),
        (odoo(403, "odoo.exceptions.AccessError", "no"), "unavailable"),
        (odoo(401, "werkzeug.exceptions.Unauthorized", "no"), "unavailable"),
        (odoo(429, "", ""), "throttled None"),
        (odoo(500, "psycopg2.errors.SerializationFailure", "x"), "uncertain"),
    ];
    for (outcome, expected) in &cases {
        assert_eq!(name(outcome), *expected, "{outcome:?}");
    }
    assert_eq!(submitted(201, r#"{"ReqstId":"300100"}"#), "job 300100");
    assert_eq!(submitted(201, r#"{"ReqstId":300100}"#), "job 300100");
    assert_eq!(submitted(201, r#"{"ReqstId":"../../etc"}"#), "uncertain");
    assert_eq!(submitted(201, "{}"), "uncertain");
    assert_eq!(submitted(400, "{}"), "refused not_submitted");
    assert_eq!(submitted(503, ""), "uncertain");
    for (status, expected) in [
        ("SUCCEEDED", Ok(oracle::judge::Job::Ended)),
        ("RUNNING", Ok(oracle::judge::Job::Pending("RUNNING".to_owned()))),
        ("ERROR", Ok(oracle::judge::Job::Failed("ERROR".to_owned()))),
    ] {
        let body = json!({ "items": [{ "RequestStatus": status }] }).to_string();
        assert_eq!(oracle::judge::job(&reply(200, &body)), expected);
    }
    assert!(oracle::judge::job(&reply(200, "{}")).is_err());
}
