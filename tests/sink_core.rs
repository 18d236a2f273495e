//! Delivery without any I/O: the state machine under any sequence of events, chains of receipts, documents from entries.

use std::time::Duration;

use accrue::codec::delivery::{self as stored, ChainRow, DoneRow, GroupRow, Stored};
use accrue::codec::receipt::{Receipt, from_line, to_line};
use accrue::codec::registry::{Embedded, Registry, Subject};
use accrue::codec::schemas::Schemas;
use accrue::config;
use accrue::revenue::ids::{ContractId, CustomerId, DealId, EntryId, EventId, LineType, TenantId};
use accrue::revenue::journal::{EntryLine, JournalEntry, Kind};
use accrue::revenue::ledger::Role;
use accrue::revenue::money::Currency;
use accrue::revenue::period::Period;
use accrue::sink::assemble::{self, NOT_MAPPED};
use accrue::sink::delivery::{Effect, Event, Misplaced, Person, State, Track, step};
use accrue::sink::destination::{Acknowledgement, Certainty, Found, Outcome, Plan, Refusal};
use accrue::sink::document::{Form, Key};
use accrue::sink::receipt::{Chains, append};
use accrue::sink::store::Row;
use jiff::Timestamp;
use proptest::prelude::*;
use rust_decimal::Decimal;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn acknowledgement() -> Acknowledgement {
    Acknowledgement {
        external_id: "7".to_owned(),
        response_digest: "d".to_owned(),
    }
}

fn refusal() -> Refusal {
    Refusal {
        code: "closed_period".to_owned(),
        words: "the period is closed".to_owned(),
        advice: "open it".to_owned(),
    }
}

fn person() -> Person {
    Person {
        by: "kim".to_owned(),
        note: "seen in the ledger".to_owned(),
    }
}

const REMEMBERED_S: u64 = 3_600;
const COMMIT_TIME_S: i64 = 90;

fn certainties() -> Vec<Certainty> {
    let remembered = Duration::from_secs(REMEMBERED_S);
    let after = Duration::from_secs(COMMIT_TIME_S as u64);
    vec![
        Certainty::Key {
            remembered,
            look_up_after: Some(after),
        },
        Certainty::Key {
            remembered,
            look_up_after: None,
        },
        Certainty::LookUp { after },
        Certainty::None,
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Due),
        1 => Just(Event::Unplannable(refusal())),
        2 => Just(Event::Answered(Outcome::Acknowledged(acknowledgement()))),
        2 => Just(Event::Answered(Outcome::Refused(refusal()))),
        2 => Just(Event::Answered(Outcome::Throttled { retry_after: Some(Duration::from_secs(5)) })),
        2 => Just(Event::Answered(Outcome::Unavailable("away".to_owned()))),
        4 => Just(Event::Answered(Outcome::Uncertain("lost".to_owned()))),
        2 => Just(Event::Answered(Outcome::Taken("duplicate number".to_owned()))),
        1 => Just(Event::Found(Found::Same(acknowledgement()))),
        2 => Just(Event::Found(Found::Nothing)),
        1 => Just(Event::Found(Found::Unfinished { external_id: "draft".to_owned() })),
        1 => Just(Event::Found(Found::Different { external_id: "8".to_owned(), what: "amount".to_owned() })),
        1 => Just(Event::Found(Found::Several(vec!["8".to_owned(), "9".to_owned()]))),
        1 => Just(Event::Found(Found::Unknown("away".to_owned()))),
        1 => Just(Event::Found(Found::Throttled { retry_after: None })),
        2 => Just(Event::Orphaned),
        1 => Just(Event::Retry),
        1 => Just(Event::Confirm { external_id: "7".to_owned(), person: person() }),
        1 => Just(Event::Cancel(person())),
    ]
}

/// What an outsider knows of a document, from events and effects alone.
#[derive(Default)]
struct Witness {
    /// A request is under way.
    sending: bool,
    /// A request may have been written, and nobody has looked since it can have been.
    doubt_since_first_send: Option<Timestamp>,
    lost_at: Option<Timestamp>,
    /// The round under whose key it was sent last, and whether the answer to that was a refusal.
    round: Option<u64>,
    refused: bool,
    first_send: Option<Timestamp>,
    settled: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// One write at a time; after a doubt none without a look-up, a person, or a system that knows the key; one receipt.
    #[test]
    fn no_sequence_of_events_writes_twice(
        which in 0_usize..4,
        events in prop::collection::vec((event(), 0_i64..400), 1..60),
    ) {
        let certainty = certainties()[which];
        let mut now = 1_000_000;
        let mut track = Track::new(at(now));
        let mut seen = Witness::default();
        for (event, wait) in events {
            now += wait;
            // The worker starts only what is due.
            if event == Event::Due && track.due_at().is_none_or(|due| due > at(now)) {
                continue;
            }
            let before = track.clone();
            let Ok((after, effect)) = step(&track, event.clone(), certainty, at(now)) else {
                prop_assert_eq!(&track, &before);
                continue;
            };
            prop_assert_eq!(seen.settled, 0, "nothing happens after the receipt");
            match &event {
                Event::Answered(Outcome::Uncertain(_) | Outcome::Taken(_)) | Event::Orphaned => {
                    prop_assert!(seen.sending);
                    seen.sending = false;
                    seen.doubt_since_first_send = seen.first_send;
                    seen.lost_at = Some(at(now));
                    if let (Event::Answered(Outcome::Taken(_)), State::Uncertain { look_up_at, .. }) = (&event, &after.state) {
                        prop_assert!(*look_up_at <= at(now + 60), "what is taken is looked up soon");
                    }
                }
                Event::Answered(outcome) => {
                    prop_assert!(seen.sending, "an answer is taken only while one is awaited");
                    seen.sending = false;
                    seen.refused = matches!(outcome, Outcome::Refused(_));
                }
                // Before that it may still be on its way.
                Event::Found(Found::Nothing)
                    if seen.lost_at.is_none_or(|lost| now - lost.as_second() >= COMMIT_TIME_S) =>
                {
                    seen.doubt_since_first_send = None;
                }
                Event::Found(Found::Unfinished { .. }) => seen.doubt_since_first_send = None,
                Event::Retry if certainty == Certainty::None || matches!(certainty, Certainty::Key { look_up_after: None, .. }) => {
                    // A person has looked.
                    if matches!(before.state, State::Parked(_)) { seen.doubt_since_first_send = None; }
                }
                _ => {}
            }
            match &effect {
                Effect::Send { .. } => {
                    let sent = matches!(after.state, State::Sent { .. });
                    prop_assert!(sent, "what leaves is stored as sent");
                    prop_assert!(!seen.sending, "one write in flight");
                    if let Some(first) = seen.doubt_since_first_send {
                        let remembers = matches!(certainty, Certainty::Key { .. });
                        let age = at(now).duration_since(first).as_secs();
                        prop_assert!(remembers && age < REMEMBERED_S as i64, "sent again in doubt after {} s", age);
                    }
                    if let Some(round) = seen.round {
                        let is_new = after.rounds != round;
                        prop_assert!(!is_new || seen.doubt_since_first_send.is_none(), "another key while in doubt");
                        let goes_on = matches!(&effect, Effect::Send { resume: Some(_) });
                        prop_assert!(
                            is_new || !seen.refused || goes_on || seen.doubt_since_first_send.is_some(),
                            "the key of a refusal again"
                        );
                    }
                    (seen.round, seen.refused) = (Some(after.rounds), false);
                    seen.sending = true;
                    seen.first_send = seen.first_send.or(Some(at(now)));
                }
                Effect::LookUp => prop_assert!(!seen.sending),
                Effect::Settle => seen.settled += 1,
                Effect::None => {}
            }
            if after.is_remade() {
                prop_assert!(!seen.sending && seen.doubt_since_first_send.is_none(), "changed while it may be written");
            }
            prop_assert_eq!(after.attempts > 0, after.first_sent_at.is_some());
            track = after;
        }
    }

    /// A state comes back from the store as it was.
    #[test]
    fn every_state_is_stored_whole(
        which in 0_usize..4,
        events in prop::collection::vec((event(), 0_i64..400), 0..30),
    ) {
        let certainty = certainties()[which];
        let mut now = 1_000_000;
        let mut track = Track::new(at(now));
        for (event, wait) in events {
            now += wait;
            if let Ok((after, effect)) = step(&track, event, certainty, at(now)) {
                if effect == Effect::Settle { break; }
                track = after;
            }
        }
        let row = row(track);
        let bytes = stored::encode(&Stored::Delivery(Box::new(row.encoded()))).expect("encodes");
        let Stored::Delivery(back) = stored::decode(&bytes).expect("decodes") else {
            panic!("another kind of value");
        };
        prop_assert_eq!(Row::decoded(*back).expect("a row"), row);
    }
}

#[test]
fn a_document_stored_by_the_first_version_is_read_again() {
    let bytes = include_bytes!("fixtures/codec/delivery-store.1.bin");
    let Stored::Delivery(back) = stored::decode(bytes).expect("decodes") else {
        panic!("another kind of value");
    };
    let track = Track {
        state: State::Uncertain {
            look_up_at: at(98),
            looks: 3,
            why: "lost".to_owned(),
        },
        since: at(8),
        attempts: 2,
        first_sent_at: Some(at(7)),
        failures: 1,
        doubt: true,
        remake: false,
        rounds: 0,
        taken: 0,
    };
    assert_eq!(Row::decoded(*back).expect("a row"), row(track));
}

#[test]
fn a_document_stored_by_the_second_version_is_read_again() {
    let bytes = include_bytes!("fixtures/codec/delivery-store.2.bin");
    let Stored::Delivery(back) = stored::decode(bytes).expect("decodes") else {
        panic!("another kind of value");
    };
    let track = Track {
        attempts: 2,
        first_sent_at: Some(at(7)),
        failures: 1,
        rounds: 3,
        ..Track::new(at(9))
    };
    assert_eq!(Row::decoded(*back).expect("a row"), row(track));
}

/// The system says that the number is taken, and shows nothing under it.
#[test]
fn a_number_that_is_taken_by_nothing_to_be_found_is_parked_with_the_systems_words() {
    for certainty in [certainties()[0], certainties()[2]] {
        let mut now = 1_000_000;
        let mut track = Track::new(at(now));
        let mut sent = 0;
        while !matches!(track.state, State::Parked(_)) {
            assert!(sent < 20, "it goes round for ever");
            now += COMMIT_TIME_S;
            let event = match &track.state {
                State::Planned { .. } => Event::Due,
                State::Sent { .. } => Event::Answered(Outcome::Taken("Invoice # must be unique".to_owned())),
                _ => Event::Found(Found::Nothing),
            };
            sent += u64::from(event == Event::Due);
            track = step(&track, event, certainty, at(now)).expect("possible").0;
        }
        let State::Parked(refusal) = &track.state else {
            unreachable!();
        };
        assert_eq!((refusal.code.as_str(), sent), ("number_taken", 6));
        assert_eq!(refusal.words, "Invoice # must be unique");
        // A person has freed the number: it is looked for once more, and has all its rounds again.
        let (retried, _) = step(&track, Event::Retry, certainty, at(now)).expect("retried");
        assert!(matches!(retried.state, State::Uncertain { .. }) && retried.taken == 0);
    }
}

#[test]
fn a_look_up_that_is_throttled_waits_as_long_as_the_system_says() {
    let certainty = certainties()[2];
    let mut track = Track::new(at(0));
    for event in [Event::Due, Event::Answered(Outcome::Uncertain("lost".to_owned()))] {
        track = step(&track, event, certainty, at(0)).expect("possible").0;
    }
    let retry_after = Some(Duration::from_secs(77));
    let found = Event::Found(Found::Throttled { retry_after });
    track = step(&track, found, certainty, at(100)).expect("possible").0;
    assert_eq!(track.due_at(), Some(at(177)));
}

fn row(track: Track) -> Row {
    Row {
        key: Key::parse("je_1").expect("a key"),
        form: Form::Invoice,
        tenant: TenantId::parse("acme").expect("a tenant"),
        deal: DealId::parse("D-1"),
        source: "je_1".to_owned(),
        entries: vec!["je_1".to_owned()],
        source_at: at(5),
        planned_at: at(6),
        plan: Some(Plan {
            form: Form::Invoice,
            reference: "R".to_owned(),
            body: vec![0, 255, 7],
        }),
        track,
    }
}

#[test]
fn a_lost_answer_is_looked_up_only_after_the_longest_commit_time() {
    let certainty = Certainty::LookUp {
        after: Duration::from_secs(90),
    };
    let go = |track: &Track, event: Event, now: i64| step(track, event, certainty, at(now)).expect("a step");
    let (sent, effect) = go(&Track::new(at(0)), Event::Due, 0);
    assert_eq!(effect, Effect::Send { resume: None });
    let (uncertain, _) = go(&sent, Event::Answered(Outcome::Uncertain("timeout".to_owned())), 30);
    assert_eq!(uncertain.due_at(), Some(at(120)));
    let refused: Misplaced = step(&uncertain, Event::Retry, certainty, at(31)).expect_err("too early for a retry");
    assert!(refused.to_string().contains("will be looked up"), "{refused}");
    let (same, effect) = go(&uncertain, Event::Due, 120);
    assert_eq!((same.clone(), effect), (uncertain.clone(), Effect::LookUp));
    let (draft, _) = go(
        &same,
        Event::Found(Found::Unfinished {
            external_id: "d".into(),
        }),
        121,
    );
    let (sent, effect) = go(&draft, Event::Due, 121);
    assert_eq!(
        effect,
        Effect::Send {
            resume: Some("d".into())
        }
    );
    // Patience asked for: the draft is not forgotten.
    let (again, _) = go(
        &sent,
        Event::Answered(Outcome::Throttled {
            retry_after: Some(Duration::from_secs(7)),
        }),
        122,
    );
    assert_eq!(again.due_at(), Some(at(129)));
    let (_, effect) = go(&again, Event::Due, 129);
    assert_eq!(
        effect,
        Effect::Send {
            resume: Some("d".into())
        }
    );
}

fn receipt(key: &str) -> Receipt {
    Receipt {
        sink: "books".to_owned(),
        chain: 3,
        number: 0,
        previous: Vec::new(),
        hash: Vec::new(),
        key: key.to_owned(),
        form: "journal".to_owned(),
        outcome: "acknowledged".to_owned(),
        tenant: "acme".to_owned(),
        deal: Some("D-1".to_owned()),
        entries: vec![key.to_owned()],
        reference: Some("R".to_owned()),
        body_sha256: Some("00".to_owned()),
        external_id: Some("77".to_owned()),
        response_digest: None,
        by: None,
        note: None,
        attempts: 1,
        source_at: at(1),
        planned_at: at(2),
        sent_at: Some(at(3)),
        settled_at: at(4),
    }
}

fn chain(count: usize) -> (Vec<Receipt>, ChainRow) {
    let mut end = ChainRow::default();
    let mut receipts = Vec::new();
    for n in 0..count {
        let (next, receipt) = append(&end, receipt(&format!("je_{n}")));
        end = next;
        receipts.push(receipt);
    }
    (receipts, end)
}

fn problems(receipts: &[Receipt], end: &ChainRow) -> Vec<String> {
    let mut chains = Chains::default();
    let mut found: Vec<_> = receipts.iter().flat_map(|receipt| chains.add(receipt)).collect();
    found.extend(chains.end(&[(("books".to_owned(), 3), end.clone())].into()));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_chain_shows_what_was_changed_left_out_or_moved() {
    let (receipts, end) = chain(6);
    assert_eq!(problems(&receipts, &end), Vec::<String>::new());

    type Change = fn(&mut Receipt);
    let changes: [Change; 9] = [
        |it| it.external_id = Some("78".to_owned()),
        |it| it.external_id = None,
        |it| it.key.push('x'),
        |it| it.entries.push("je_9".to_owned()),
        |it| it.outcome = "found".to_owned(),
        |it| it.deal = Some("D-2".to_owned()),
        |it| it.settled_at = at(5),
        |it| it.sent_at = None,
        |it| it.attempts = 2,
    ];
    for change in changes {
        let mut changed = receipts.clone();
        change(&mut changed[2]);
        assert!(
            problems(&changed, &end)[0].contains("receipt 3: changed"),
            "{:?}",
            problems(&changed, &end)
        );
        // A forger who also makes the hash anew breaks the link to the next one.
        changed[2].hash = accrue::sink::receipt::hash(&changed[2]);
        assert!(problems(&changed, &end)[0].contains("receipt 4: it does not follow"));
    }
    let mut missing = receipts.clone();
    missing.remove(2);
    assert!(problems(&missing, &end)[0].contains("missing before it: 3 to 3"));
    let mut moved = receipts.clone();
    moved.swap(2, 3);
    assert!(
        problems(&moved, &end)
            .iter()
            .any(|problem| problem.contains("out of order"))
    );
    assert!(problems(&receipts[..4], &end)[0].contains("missing at the end: 5 to 6"));
    let mut other = receipts.clone();
    other[5].note = Some("forged".to_owned());
    other[5].hash = accrue::sink::receipt::hash(&other[5]);
    assert!(problems(&other, &end)[0].contains("not the one that the sink wrote last"));
}

#[test]
fn receipts_and_stored_values_come_back_as_they_were() {
    let (receipts, end) = chain(2);
    for receipt in &receipts {
        let line = to_line(receipt).expect("a line");
        assert_eq!(from_line(&line).expect("a receipt"), *receipt);
    }
    for value in [
        Stored::Entry(Box::new(entry("je_1", "100.00"))),
        Stored::Placed(b"q\0acme/D-1\0\0\0\0\0\0\0\0\x01".to_vec()),
        Stored::Done(DoneRow {
            key: "je_1".to_owned(),
            outcome: "acknowledged".to_owned(),
            external_id: Some("7".to_owned()),
            receipt: end.hash.clone(),
        }),
        Stored::Group(GroupRow {
            tenant: "acme".to_owned(),
            opened_at: at(1),
            source_at: at(2),
            source: "s".to_owned(),
            count: 3,
        }),
        Stored::Chain(end),
        Stored::Sequence(9),
    ] {
        let bytes = stored::encode(&value).expect("encodes");
        assert_eq!(stored::decode(&bytes).expect("decodes"), value);
        // Cut short, it is refused and not misread.
        assert!(stored::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}

fn entry(id: &str, amount: &str) -> JournalEntry {
    let amount: Decimal = amount.parse().expect("an amount");
    let usd = Currency::parse("USD").expect("a currency");
    let line = |role: Role, debit: Decimal, credit: Decimal| EntryLine {
        account: role.name().into_owned(),
        role,
        debit,
        credit,
        functional_debit: debit,
        functional_credit: credit,
    };
    let revenue = Role::Revenue(LineType::parse("subscription").expect("a line type"));
    JournalEntry {
        entry_id: EntryId::parse(id).expect("an id"),
        tenant: TenantId::parse("acme").expect("a tenant"),
        deal: DealId::parse("D-1").expect("a deal"),
        contract: ContractId::parse("D-1").expect("a contract"),
        obligation: None,
        kind: Kind::Invoice,
        date: jiff::civil::date(2026, 1, 31),
        period: Period::parse("2026-01").expect("a period"),
        concerns: Period::parse("2026-01").expect("a period"),
        currency: usd,
        functional_currency: usd,
        lines: vec![
            line(Role::AccountsReceivable, amount, Decimal::ZERO),
            line(revenue, Decimal::ZERO, amount),
        ],
        cause: EventId::parse("e1").expect("an event"),
        provenance: Vec::new(),
        reverses: None,
        customer_id: CustomerId::parse("C-1"),
        customer_name: Some("Initech".to_owned()),
    }
}

fn sink(text: &str) -> config::Sink {
    let text = format!(
        "[[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n[sinks.books]\nkind = \"file\"\n{text}\n[sinks.books.file]\nformat = \"csv\"\ndir = \"x\"\n"
    );
    let topology = config::parse("topology.toml", &text, &|_| None).expect("valid");
    topology.sinks.into_values().next().expect("a sink")
}

#[test]
fn roles_become_accounts_and_one_that_is_not_mapped_says_what_to_write() {
    let mapped = sink(
        "[sinks.books.accounts]\naccounts_receivable = \"1100\"\nrevenue.subscription = \"4000\"\n[sinks.books.tenant_accounts.acme]\nrevenue.subscription = \"4001\"\n",
    );
    let key = Key::parse("je_1").expect("a key");
    let document = assemble::document(
        "books",
        &key,
        Form::Invoice,
        &[entry("je_1", "100.00")],
        &mapped.accounts,
    )
    .expect("mapped");
    let accounts: Vec<&str> = document.lines.iter().map(|line| line.account.as_str()).collect();
    assert_eq!(accounts, ["1100", "4001"]);
    assert_eq!(document.customer.as_ref().map(|it| it.name.as_str()), Some("Initech"));
    assert_eq!(document.narration, "D-1 invoice");

    let half = sink("[sinks.books.accounts]\naccounts_receivable = \"1100\"\n");
    let refusal = assemble::document("books", &key, Form::Journal, &[entry("je_1", "100.00")], &half.accounts)
        .expect_err("not mapped");
    assert_eq!(refusal.code, NOT_MAPPED);
    assert!(
        refusal.advice.contains("revenue.subscription = \"ACCOUNT\""),
        "{}",
        refusal.advice
    );
    assert!(refusal.advice.contains("[sinks.books.accounts]"), "{}", refusal.advice);
    // An account that a fact has mapped serves where the topology names none.
    let mut by_fact = entry("je_1", "100.00");
    by_fact.lines[1].account = "4999".to_owned();
    let document = assemble::document("books", &key, Form::Journal, &[by_fact], &half.accounts).expect("mapped");
    assert_eq!(document.lines[1].account, "4999");
}

#[test]
fn a_summary_sums_each_account_and_names_its_entries() {
    let mapped =
        sink("[sinks.books.accounts]\naccounts_receivable = \"1100\"\nrevenue.subscription = \"4000\"\n").accounts;
    let mut back = entry("je_3", "30.00");
    for line in &mut back.lines {
        std::mem::swap(&mut line.debit, &mut line.credit);
        std::mem::swap(&mut line.functional_debit, &mut line.functional_credit);
    }
    let entries = [entry("je_1", "100.10"), entry("je_2", "0.20"), back];
    let ids: Vec<String> = entries.iter().map(|entry| entry.entry_id.to_string()).collect();
    let key = Key::parse(assemble::summary_key(&ids)).expect("a key");
    let document = assemble::document("books", &key, Form::Journal, &entries, &mapped).expect("mapped");
    let lines: Vec<String> = document
        .lines
        .iter()
        .map(|line| format!("{} {} {}", line.account, line.debit, line.credit))
        .collect();
    assert_eq!(lines, ["1100 70.30 0", "4000 0 70.30"]);
    assert_eq!(document.entries.len(), 3);
    assert_eq!((document.deal, document.customer), (None, None));
    assert_ne!(assemble::summary_key(&ids[..2]), assemble::summary_key(&ids));
}

#[test]
fn entries_of_before_the_customer_was_in_them_are_still_read() {
    let dir = tempfile::tempdir().expect("folder");
    let registry = std::sync::Arc::new(Embedded::open(dir.path()).expect("registry"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("avro/journal-entry.avsc");
    let mut old: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON");
    let fields = old["fields"].as_array_mut().expect("fields");
    fields.retain(|field| field["name"] != "customer_id" && field["name"] != "customer_name");
    let id = registry
        .register(&Subject::value_of("old"), &old.to_string())
        .expect("registered");
    let schemas = Schemas::register(registry, |product| format!("{product:?}")).expect("schemas");
    let entry = JournalEntry {
        customer_id: None,
        customer_name: None,
        ..entry("je_1", "100.00")
    };
    // Both fields are null, and at the end: without their two zeros it is what an old program wrote.
    let mut bytes = schemas.encode_journal_entry(&entry).expect("encodes");
    assert_eq!(bytes.split_off(bytes.len() - 2), [0, 0]);
    bytes[1..5].copy_from_slice(&id.0.to_be_bytes());
    assert_eq!(schemas.decode_journal_entry(&bytes).expect("decodes"), entry);
}

#[test]
fn the_store_holds_entries_in_the_schema_of_their_topic() {
    let read = |name: &str| -> serde_json::Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("avro").join(name);
        serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON")
    };
    let store = read("delivery-store.avsc");
    let fields = store["fields"].as_array().expect("fields");
    let entry = fields.iter().find(|field| field["name"] == "entry").expect("entry");
    assert_eq!(entry["type"][1], read("journal-entry.avsc"));
}
