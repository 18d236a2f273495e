//! Tryton: the bodies we send, its answers, and delivery to a real Tryton 8.2 on PostgreSQL.
//!
//! The tests marked `needs Tryton` take the server from `TRYTON_URL` and its siblings, and the folder of
//! `tests/tryton/tryton` from `ACCRUE_TEST_TRYTON`; `make test` starts one.

mod vendor;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use accrue::codec::fact_json;
use accrue::revenue::books::{Books, Report};
use accrue::revenue::journal::{EntryLine, JournalEntry, Kind};
use accrue::revenue::ledger::Role;
use accrue::revenue::money::Currency;
use accrue::revenue::reference::{Settings as BookSettings, Tenant};
use accrue::sink::accounting::http::{Http, Reply};
use accrue::sink::accounting::tryton::{Settings, Tryton, judge, request, rpc};
use accrue::sink::destination::{Certainty, Destination, Found, Outcome, Plan, Tries};
use accrue::sink::document::{Document, Form, Key, Party};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use vendor::*;

fn body(document: &Document) -> Value {
    serde_json::from_slice(&request::plan(document).unwrap().body).unwrap()
}

#[test]
fn a_move_carries_both_amounts_of_a_foreign_entry() {
    let rows = [
        (Role::ContractLiability, "2400", "100.00", "108.12"),
        (revenue("subscription"), "4000", "-100.00", "-108.12"),
    ];
    let amount = |text: &str| json!({ "__class__": "Decimal", "decimal": text });
    let expected = json!({
        "party": { "code": "C-1", "name": "Globex Corporation" },
        "currency": "USD",
        "date": { "__class__": "date", "year": 2026, "month": 2, "day": 28 },
        "description": "je_01",
        "lines": [
            { "account": "2400", "debit": amount("108.12"), "credit": amount("0.00"), "description": "D-98765 recognition 2026-02",
              "second_currency": "EUR", "amount_second_currency": amount("100.00") },
            { "account": "4000", "debit": amount("0.00"), "credit": amount("108.12"), "description": "D-98765 recognition 2026-02",
              "second_currency": "EUR", "amount_second_currency": amount("-100.00") },
        ],
    });
    assert_eq!(
        body(&foreign("je_01", Form::Journal, "2026-02-28", "EUR", &rows)),
        expected
    );
}

#[test]
fn a_credit_note_has_negative_quantities_and_a_foreign_invoice_is_a_move() {
    let note = body(&credit_note("je_02", "2026-03-01"));
    assert_eq!(note["lines"][0]["quantity"], "-1");
    assert_eq!(note["lines"][0]["unit_price"]["decimal"], "2500.00");
    let rows = [
        (Role::AccountsReceivable, "1100", "100.00", "108.12"),
        (Role::ContractLiability, "2400", "-100.00", "-108.12"),
    ];
    let plan = request::plan(&foreign("je_03", Form::Invoice, "2026-02-28", "EUR", &rows)).unwrap();
    assert_eq!(plan.form, Form::Journal);
}

#[test]
fn every_kind_of_fault_has_its_outcome() {
    let business = |kind: &str, words: &str| {
        judge::fault(rpc::Fault::Business {
            kind: kind.to_owned(),
            words: words.to_owned(),
        })
    };
    let refusals = [
        (
            business(
                "UserError",
                "To post move \"(3)\", you must balance all its lines debits and credits.",
            ),
            "unbalanced",
        ),
        (
            business(
                "UserError",
                "You cannot add/modify/delete lines on closed journal-period \"Miscellaneous - 2026-02\".",
            ),
            "closed_period",
        ),
        (
            business("missing_account", "there is no account of code \"9\""),
            "unknown_account",
        ),
        (business("missing_period_open", "closed"), "closed_period"),
        (
            business("UserWarning", "The invoice is dated in the future."),
            "invalid",
        ),
    ];
    for (outcome, code) in refusals {
        let Outcome::Refused(refusal) = &outcome else {
            panic!("{code}: {outcome:?}");
        };
        assert_eq!(refusal.code, code);
        assert!(!refusal.words.is_empty() && refusal.advice.len() > 20, "{refusal:?}");
    }
    assert!(matches!(business("ConcurrencyException", "x"), Outcome::Unavailable(_)));
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(
        judge::fault(rpc::Fault::Throttled(retry_after)),
        Outcome::Throttled { retry_after }
    );
    assert!(matches!(
        judge::fault(rpc::Fault::Unknown("x".into())),
        Outcome::Uncertain(_)
    ));
    assert!(matches!(
        judge::fault(rpc::Fault::Unsent("x".into())),
        Outcome::Unavailable(_)
    ));
}

#[test]
fn a_poisoned_look_up_is_no_answer() {
    let plan = request::plan(&recognition("je_01", "2026-02-28", "1.00")).unwrap();
    let reply = Reply {
        status: 200,
        retry_after: None,
        location: None,
        body: Vec::new(),
    };
    for (documents, lines) in [
        (json!(null), json!([])),
        (json!({}), json!([])),
        (json!([{ "id": 1 }]), json!([])),
        (json!([[]]), json!([[]])),
        (
            json!([{ "id": 1, "state": "posted", "date": { "year": 1e99, "month": -1, "day": "x" } }]),
            json!([]),
        ),
    ] {
        let found = judge::found(&documents, &lines, &plan, &reply);
        assert!(matches!(found, Found::Unknown(_)), "{documents}: {found:?}");
    }
    assert_eq!(judge::found(&json!([]), &json!([]), &plan, &reply), Found::Nothing);
}

// The real server.

/// Keys of one run, so that a server that is used again holds none of them.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros();
    format!("je_{name}_{since:x}_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` starts a Tryton"))
}

fn settings(timeout: Duration, after: Duration) -> Settings {
    Settings {
        url: url(&env("TRYTON_URL")),
        database: env("TRYTON_DATABASE"),
        user: env("TRYTON_USER"),
        password: secret(&env("TRYTON_PASSWORD")),
        company: None,
        journal: "MISC".to_owned(),
        invoice_journal: "REV".to_owned(),
        timeout,
        certainty: Certainty::LookUp { after },
    }
}

fn tryton() -> Tryton {
    Tryton::new(settings(Duration::from_secs(60), Duration::from_millis(500))).unwrap()
}

/// The tests' own way in.
fn session() -> rpc::Session {
    let settings = settings(Duration::from_secs(60), Duration::ZERO);
    rpc::Session::new(Http::new(settings.timeout).unwrap(), settings)
}

async fn call(session: &rpc::Session, method: &str, params: Value) -> Value {
    session
        .call(method, params)
        .await
        .unwrap_or_else(|fault| panic!("{method}: {fault:?}"))
        .0
}

fn platform(command: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tryton/tryton");
    let done = Command::new(script)
        .args(command)
        .arg("--dir")
        .arg(env("ACCRUE_TEST_TRYTON"))
        .status()
        .unwrap();
    assert!(done.success(), "{command:?}");
}

/// Posted moves: the balance of every account.
async fn trial_balance(session: &rpc::Session) -> BTreeMap<String, Decimal> {
    let posted = json!([["move.state", "=", "posted"]]);
    let lines = call(
        session,
        "model.account.move.line.search_read",
        json!([posted, 0, null, null, ["account.code", "debit", "credit"], {}]),
    )
    .await;
    let mut balances = BTreeMap::new();
    for line in lines.as_array().unwrap() {
        let amount = rpc::read_amount(&line["debit"]).unwrap() - rpc::read_amount(&line["credit"]).unwrap();
        *balances
            .entry(line["account."]["code"].as_str().unwrap().to_owned())
            .or_insert(Decimal::ZERO) += amount;
    }
    balances
}

fn change(before: &BTreeMap<String, Decimal>, after: &BTreeMap<String, Decimal>) -> BTreeMap<String, Decimal> {
    let none = Decimal::ZERO;
    let changed = after.iter().map(|(account, sum)| {
        (
            account.clone(),
            (sum - before.get(account).unwrap_or(&none)).normalize(),
        )
    });
    changed.filter(|(_, change)| !change.is_zero()).collect()
}

/// What documents say about each account, in dollars.
fn expected(documents: &[Document]) -> BTreeMap<String, Decimal> {
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for line in documents.iter().flat_map(|document| &document.lines) {
        *sums.entry(line.account.clone()).or_default() += line.functional_debit - line.functional_credit;
    }
    sums.retain(|_, sum| !sum.is_zero());
    sums.into_iter()
        .map(|(account, sum)| (account, sum.normalize()))
        .collect()
}

fn customer(document: Document) -> Document {
    let customer = Some(Party {
        id: accrue::revenue::ids::CustomerId::parse(unique("customer")).unwrap(),
        name: "Globex & Söhne <Ltd>".to_owned(),
    });
    Document { customer, ..document }
}

#[tokio::test]
#[ignore = "needs Tryton: make test"]
async fn documents_are_posted_and_read_back() {
    let (tryton, session) = (tryton(), session());
    let before = trial_balance(&session).await;
    let invoice = customer(invoice(&unique("invoice"), "2026-01-15"));
    let note = Document {
        customer: invoice.customer.clone(),
        ..credit_note(&unique("note"), "2026-03-01")
    };
    let rows = [
        (Role::AccountsReceivable, "1100", "100.00", "108.12"),
        (Role::ContractLiability, "2400", "-100.00", "-108.12"),
    ];
    let documents = [
        invoice,
        note,
        customer(recognition(&unique("journal"), "2026-02-28", "833.33")),
        customer(foreign(&unique("euro"), Form::Invoice, "2026-02-01", "EUR", &rows)),
    ];
    for document in &documents {
        let plan = tryton.plan(document).unwrap();
        assert_eq!(tryton.look_up(&document.key, &plan).await, Found::Nothing);
        let End::Acknowledged(id) = deliver(&tryton, document).await else {
            panic!(
                "{document:?}: {:?}",
                tryton.send(&document.key, &plan, &Tries::default()).await
            );
        };
        let Found::Same(there) = tryton.look_up(&document.key, &plan).await else {
            panic!("{:?}", tryton.look_up(&document.key, &plan).await);
        };
        assert_eq!(there.external_id, id);
    }
    assert_eq!(change(&before, &trial_balance(&session).await), expected(&documents));
    assert_eq!(tryton.probe().await, Ok(()));
}

#[tokio::test]
#[ignore = "needs Tryton: make test"]
async fn a_look_up_prevents_the_second_write_and_sees_other_content() {
    let tryton = tryton();
    let document = customer(recognition(&unique("once"), "2026-02-28", "10.00"));
    let plan = tryton.plan(&document).unwrap();
    assert!(matches!(deliver(&tryton, &document).await, End::Acknowledged(_)));
    let mut other = document.clone();
    other.lines[0].functional_debit = dec("11.00");
    other.lines[1].functional_credit = dec("11.00");
    let other = tryton.plan(&other).unwrap();
    let found = tryton.look_up(&document.key, &other).await;
    let Found::Different { what, .. } = &found else {
        panic!("{found:?}");
    };
    assert_eq!(what, "account 2400: 10 instead of 11; account 4000: -10 instead of -11");
    // Tryton itself would take a second one: it enforces no reference. That is why there is a look-up.
    assert!(matches!(
        tryton.send(&document.key, &plan, &Tries::default()).await,
        Outcome::Acknowledged(_)
    ));
    assert!(matches!(tryton.look_up(&document.key, &plan).await, Found::Several(ids) if ids.len() == 2));
}

#[tokio::test]
#[ignore = "needs Tryton: make test"]
async fn a_draft_left_by_a_crash_is_completed() {
    let (tryton, session) = (tryton(), session());
    let document = customer(recognition(&unique("draft"), "2026-02-28", "10.00"));
    let plan = tryton.plan(&document).unwrap();
    assert!(matches!(deliver(&tryton, &document).await, End::Acknowledged(_)));
    // A copy under another key, as a draft: what a process leaves that dies between its two calls.
    let key = unique("left");
    let domain = json!([["description", "=", document.key.as_str()]]);
    let ids = call(
        &session,
        "model.account.move.search",
        json!([domain, 0, null, null, {}]),
    )
    .await;
    call(
        &session,
        "model.account.move.copy",
        json!([ids, { "description": key, "date": rpc::day(document.date) }, {}]),
    )
    .await;
    let left = Plan {
        reference: key.clone(),
        ..plan
    };
    let key = Key::parse(key).unwrap();
    let Found::Unfinished { external_id } = tryton.look_up(&key, &left).await else {
        panic!("{:?}", tryton.look_up(&key, &left).await);
    };
    let done = tryton.send(&key, &left, &resumed(&external_id)).await;
    assert!(
        matches!(&done, Outcome::Acknowledged(there) if there.external_id == external_id),
        "{done:?}"
    );
    assert!(matches!(tryton.look_up(&key, &left).await, Found::Same(_)));
}

#[tokio::test]
#[ignore = "needs Tryton: make test"]
async fn refusals_say_what_to_do_and_leave_nothing_behind() {
    let (tryton, session) = (tryton(), session());
    let refused = |outcome: Outcome| match outcome {
        Outcome::Refused(refusal) => (refusal.code, refusal.words),
        other => panic!("{other:?}"),
    };
    // Unbalanced: `plan` would refuse it, so the body is spoiled afterwards.
    let document = customer(recognition(&unique("uneven"), "2026-02-28", "10.00"));
    let mut plan = tryton.plan(&document).unwrap();
    plan.body = String::from_utf8(plan.body)
        .unwrap()
        .replacen("10.00", "10.01", 1)
        .into_bytes();
    let (code, words) = refused(tryton.send(&document.key, &plan, &Tries::default()).await);
    assert_eq!(code, "unbalanced", "{words}");
    assert_eq!(tryton.look_up(&document.key, &plan).await, Found::Nothing);

    let unmapped = document_on(&unique("account"), "9999");
    let (code, words) = refused(
        tryton
            .send(&unmapped.key, &tryton.plan(&unmapped).unwrap(), &Tries::default())
            .await,
    );
    assert_eq!(
        (code.as_str(), words.as_str()),
        ("unknown_account", "there is no account of code \"9999\"")
    );

    let mut nobody = recognition(&unique("nobody"), "2026-02-28", "10.00");
    nobody.customer = None;
    let (code, _) = refused(
        tryton
            .send(&nobody.key, &tryton.plan(&nobody).unwrap(), &Tries::default())
            .await,
    );
    assert_eq!(code, "no_customer");

    let far = customer(recognition(&unique("far"), "2019-02-28", "10.00"));
    let (code, _) = refused(
        tryton
            .send(&far.key, &tryton.plan(&far).unwrap(), &Tries::default())
            .await,
    );
    assert_eq!(code, "no_period");

    let invoice = customer(vendor::document(
        &unique("debt"),
        Form::Invoice,
        "2026-02-28",
        &[
            (Role::AccountsReceivable, "1100", "5.00"),
            (Role::RefundLiability, "2500", "-5.00"),
        ],
    ));
    let (code, words) = refused(
        tryton
            .send(&invoice.key, &tryton.plan(&invoice).unwrap(), &Tries::default())
            .await,
    );
    assert_eq!(code, "account_not_for_invoices", "{words}");

    // A closed month, in which nothing is written; reopened (and its journals with it), the same document goes through.
    let domain = json!([
        ["start_date", "=", rpc::day("2024-03-01".parse().unwrap())],
        ["type", "=", "standard"]
    ]);
    let period = call(&session, "model.account.period.search", json!([domain, 0, 1, null, {}])).await;
    call(&session, "model.account.period.close", json!([period, {}])).await;
    let closed = customer(recognition(&unique("closed"), "2024-03-31", "10.00"));
    let plan = tryton.plan(&closed).unwrap();
    let (code, _) = refused(tryton.send(&closed.key, &plan, &Tries::default()).await);
    assert_eq!(code, "closed_period");
    assert_eq!(tryton.look_up(&closed.key, &plan).await, Found::Nothing);
    call(&session, "model.account.period.reopen", json!([period, {}])).await;
    let journals = json!([[["period", "in", period], ["state", "=", "closed"]], 0, null, null, {}]);
    let journals = call(&session, "model.account.journal.period.search", journals).await;
    call(&session, "model.account.journal.period.reopen", json!([journals, {}])).await;
    assert!(matches!(deliver(&tryton, &closed).await, End::Acknowledged(_)));
}

fn document_on(key: &str, account: &str) -> Document {
    let rows = [
        (Role::ContractLiability, "2400", "1.00"),
        (revenue("setup"), account, "-1.00"),
    ];
    customer(document(key, Form::Journal, "2026-02-28", &rows))
}

#[tokio::test]
#[ignore = "needs Tryton: make test"]
async fn wrong_credentials_write_nothing_and_are_not_repeated_in_words() {
    let wrong = Settings {
        password: secret("not-the-password"),
        ..settings(Duration::from_secs(60), Duration::ZERO)
    };
    assert!(!format!("{wrong:?}").contains("not-the-password"));
    let tryton = Tryton::new(wrong).unwrap();
    let document = recognition(&unique("login"), "2026-02-28", "1.00");
    let outcome = tryton
        .send(&document.key, &tryton.plan(&document).unwrap(), &Tries::default())
        .await;
    let Outcome::Unavailable(why) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        why.contains("check user and password") && !why.contains("not-the-password"),
        "{why}"
    );
}

#[tokio::test]
#[ignore = "needs Tryton: make test"]
async fn a_server_that_answers_after_we_gave_up_gets_one_document() {
    // Stopped in the middle: the request lies in its socket, and is carried out once it goes on.
    let hasty = Tryton::new(settings(Duration::from_secs(5), Duration::from_secs(10))).unwrap();
    let warm = customer(recognition(&unique("warm"), "2026-02-28", "1.00"));
    deliver(&tryton(), &warm).await;
    assert_eq!(hasty.probe().await, Ok(()));
    let document = Document {
        customer: warm.customer.clone(),
        ..recognition(&unique("paused"), "2026-02-28", "10.00")
    };
    platform(&["pause", "tryton"]);
    let waking = tokio::spawn(async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        tokio::task::spawn_blocking(|| platform(&["resume", "tryton"]))
            .await
            .unwrap();
    });
    let end = deliver(&hasty, &document).await;
    waking.await.unwrap();
    assert!(matches!(end, End::Acknowledged(_)), "{end:?}");
    let plan = hasty.plan(&document).unwrap();
    let found = tryton().look_up(&document.key, &plan).await;
    assert!(matches!(found, Found::Same(_)), "{found:?}");
}

/// Facts of one year: monthly, quarterly and annual deals, two currencies, an upsell, a downgrade, a renewal, credits, payments,
/// cancellations.
fn year(run: &str) -> Report {
    let usd = Currency::parse("USD");
    let settings = BookSettings {
        default: Tenant {
            functional_currency: usd,
            ..Tenant::default()
        },
        ..BookSettings::default()
    };
    let mut books = Books::new(settings.clone());
    let mut number = 0;
    let mut say = |kind: &str, payload: Value| {
        number += 1;
        let fact = json!({
            "event_id": format!("{run}-{number:03}"), "source": "crm", "type": kind,
            "occurred_at": format!("2026-01-01T00:{:02}:{:02}Z", number / 60, number % 60),
            "tenant_id": "acme", "payload": payload,
        });
        let fact =
            fact_json::read(fact.to_string().as_bytes(), &settings).unwrap_or_else(|why| panic!("{fact}: {why:?}"));
        books.fold(fact);
    };
    for (month, day) in (1..=12).flat_map(|month| [1, 6, 11, 16, 21, 26].map(|day| (month, day))) {
        let rate = format!("1.{:02}{day:02}", 5 + month);
        say(
            "fx.rate",
            json!({ "base": "EUR", "quote": "USD", "date": format!("2026-{month:02}-{day:02}"), "rate": rate }),
        );
    }
    let deal = |n: u32, amount: u32, currency: &str, cycle: &str, start: &str| {
        json!({
            "deal_id": format!("{run}-D{n}"), "customer": { "customer_id": format!("{run}-C{n}"), "name": format!("Customer {n}") },
            "amount": amount, "currency": currency, "term_months": 12, "billing_cycle": cycle, "contract_start": start,
            "line_items": [{ "id": "a", "type": "subscription", "amount": amount }],
        })
    };
    say("deal.closed", deal(1, 12000, "USD", "annual", "2026-01-01"));
    say("deal.closed", deal(2, 9999, "USD", "monthly", "2026-01-15"));
    say("deal.closed", deal(3, 8000, "EUR", "quarterly", "2026-02-01"));
    say("deal.closed", deal(4, 6000, "USD", "quarterly", "2026-01-01"));
    say(
        "payment.received",
        json!({ "deal_id": format!("{run}-D1"), "amount": 12000, "currency": "USD", "date": "2026-01-20" }),
    );
    say(
        "payment.received",
        json!({ "deal_id": format!("{run}-D3"), "amount": 2000, "currency": "EUR", "date": "2026-04-20" }),
    );
    let mut more = deal(2, 12000, "USD", "monthly", "2026-01-15");
    more["effective_date"] = json!("2026-05-15");
    say("deal.amended", more);
    say(
        "credit.granted",
        json!({ "deal_id": format!("{run}-D1"), "amount": 600, "currency": "USD", "date": "2026-06-10", "reason": "outage" }),
    );
    say(
        "deal.cancelled",
        json!({ "deal_id": format!("{run}-D4"), "effective_date": "2026-08-16", "refund": "unused" }),
    );
    books.finish(Some("2026-12-31".parse().unwrap()))
}

fn account(role: &Role) -> String {
    let account = match role {
        Role::AccountsReceivable => "1100",
        Role::Cash => "1000",
        Role::ContractLiability => "2400",
        Role::ContractAsset => "1200",
        Role::TaxPayable => "2300",
        Role::FxGainLoss => "7100",
        Role::RefundLiability => "2500",
        Role::Revenue(_) => "4000",
    };
    account.to_owned()
}

fn as_document(entry: &JournalEntry) -> Document {
    let form = match entry.kind {
        Kind::Invoice => Form::Invoice,
        Kind::CreditMemo => Form::CreditNote,
        Kind::Payment | Kind::Adjustment | Kind::Reversal | Kind::Recognition | Kind::FxRemeasurement => Form::Journal,
    };
    Document {
        key: Key::parse(entry.entry_id.as_str()).unwrap(),
        form,
        tenant: entry.tenant.clone(),
        deal: Some(entry.deal.clone()),
        customer: Some(Party {
            id: accrue::revenue::ids::CustomerId::parse(format!("{}-customer", entry.deal)).unwrap(),
            name: format!("Customer of {}", entry.deal),
        }),
        date: entry.date,
        period: entry.period,
        currency: entry.currency,
        functional_currency: entry.functional_currency,
        lines: entry
            .lines
            .iter()
            .map(|line| EntryLine {
                role: line.role.clone(),
                account: account(&line.role),
                debit: line.debit,
                credit: line.credit,
                functional_debit: line.functional_debit,
                functional_credit: line.functional_credit,
            })
            .collect(),
        entries: vec![entry.entry_id.clone()],
        narration: format!("{} {} {}", entry.deal, entry.kind.as_str(), entry.period),
    }
}

/// Delivers one document after the other, as the system's limits ask for.
async fn deliver_all(tryton: &Tryton, documents: &[Document]) -> Vec<End> {
    assert_eq!(tryton.limits().in_flight, 1);
    let mut ends = Vec::new();
    for document in documents {
        ends.push(deliver(tryton, document).await);
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Tryton: make test"]
async fn a_year_of_deals_gives_the_same_trial_balance_after_kills_and_a_replay() {
    let session = session();
    let report = year(&unique("year").replace("je_", "r"));
    assert!(report.rejections.is_empty(), "{:#?}", report.rejections);
    let documents: Vec<Document> = report.journals.iter().map(as_document).collect();
    let kinds: Vec<Kind> = report.journals.iter().map(|entry| entry.kind).collect();
    for kind in [
        Kind::Invoice,
        Kind::Payment,
        Kind::CreditMemo,
        Kind::Recognition,
        Kind::FxRemeasurement,
    ] {
        assert!(kinds.contains(&kind), "the year has no {kind:?}");
    }
    let before = trial_balance(&session).await;
    let tryton = Tryton::new(settings(Duration::from_secs(20), Duration::from_secs(1))).unwrap();
    let killing = tokio::spawn(async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            tokio::task::spawn_blocking(|| {
                platform(&["kill", "tryton"]);
                platform(&["start", "tryton"]);
            })
            .await
            .unwrap();
        }
    });
    let ends = deliver_all(&tryton, &documents).await;
    killing.await.unwrap();
    let failed: Vec<_> = ends.iter().filter(|end| !matches!(end, End::Acknowledged(_))).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let after = trial_balance(&session).await;
    assert_eq!(change(&before, &after), expected(&documents));

    // A replay that has lost its receipts looks first, and writes nothing.
    for document in &documents {
        let plan = tryton.plan(document).unwrap();
        let found = tryton.look_up(&document.key, &plan).await;
        assert!(matches!(found, Found::Same(_)), "{}: {found:?}", document.key);
    }
    assert_eq!(trial_balance(&session).await, after);
}
