//! Delivery on the embedded log, to a ledger that misbehaves, through crashes: each document once, in its deal's order,
//! with a receipt, and nothing unaccounted.

mod doubled_log;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use accrue::codec::delivery_command::{Decision, SinkCommand, TicketState};
use accrue::codec::receipt::Receipt;
use accrue::codec::registry::Embedded;
use accrue::codec::schemas::Schemas;
use accrue::config::{self, Topology};
use accrue::pipeline;
use accrue::revenue::ids::{ContractId, DealId, EntryId, EventId, TenantId};
use accrue::revenue::journal::{EntryLine, JournalEntry, Kind};
use accrue::revenue::ledger::Role;
use accrue::revenue::money::Currency;
use accrue::revenue::period::Period;
use accrue::sink::application::{self, Application};
use accrue::sink::courier::{Clock, Outside, Threads};
use accrue::sink::delivery::State;
use accrue::sink::destination::{
    Acknowledgement, Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries,
};
use accrue::sink::document::{Document, Form, Key};
use accrue::sink::metrics;
use accrue::sink::reading;
use accrue::sink::receipt::Chains;
use accrue::stream::app::{Runtime, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::layout;
use accrue::stream::log::embedded::EmbeddedLog;
use accrue::stream::log::{Cleanup, Consumer, GroupSpec, Log, LogError, LogErrorKind, Membership, Positions, Producer};
use accrue::stream::metrics::Metrics;
use accrue::stream::partitioner::partition_for;
use accrue::stream::record::{Outgoing, Timestamp, Topic, TopicPartition};
use doubled_log::left_to_inner;
use jiff::Timestamp as Instant9;
use rust_decimal::Decimal;

/// What the ledger does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Serve,
    /// It writes, and the answer is lost.
    WriteAndLose,
    /// The answer is lost, and nothing was written.
    Lose,
    /// The answer is lost, and it writes a little later.
    WriteLate,
    Throttle,
    Away,
    Refuse,
}

/// A ledger in memory: it keeps what it was sent, and answers by script, then well.
struct Ledger {
    certainty: Certainty,
    limits: Limits,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    moods: VecDeque<Mood>,
    /// Deals whose documents it refuses.
    refuses: BTreeSet<String>,
    down: bool,
    /// Key and body, in the order of writing; a key twice is a document written twice.
    written: Vec<(String, Vec<u8>)>,
    sends: BTreeMap<String, u64>,
    /// Idempotency keys whose answer was a refusal: it is repeated.
    refused: BTreeSet<String>,
    under_way: BTreeSet<String>,
    /// Rules of delivery that it saw broken.
    broken: Vec<String>,
}

impl Books {
    fn write(&mut self, key: &Key, plan: &Plan) {
        self.written.push((key.as_str().to_owned(), plan.body.clone()));
    }

    fn has(&self, key: &Key) -> bool {
        self.written.iter().any(|(known, _)| known == key.as_str())
    }
}

/// How long a late write takes, and so the longest commit time of this ledger.
const LATE: Duration = Duration::from_millis(60);

/// What this ledger makes of every document: it must be asked for that again, and not for what the document was.
const WRITES: Form = Form::Invoice;

impl Destination for Ledger {
    fn certainty(&self) -> Certainty {
        self.certainty
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        let deal = document.deal.as_ref().map_or("", DealId::as_str);
        Ok(Plan {
            form: WRITES,
            reference: document.key.to_string(),
            body: format!("{deal} {} {}", document.key, document.lines.len()).into_bytes(),
        })
    }

    fn send<'a>(&'a self, key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let mood = {
                let mut books = self.books.lock().expect("books");
                *books.sends.entry(key.to_string()).or_default() += 1;
                if !books.under_way.insert(key.to_string()) {
                    books.broken.push(format!("two writes of {key} under way"));
                }
                if plan.form != WRITES {
                    books
                        .broken
                        .push(format!("{key} is sent as another form than was planned"));
                }
                let deal = String::from_utf8_lossy(&plan.body)
                    .split(' ')
                    .next()
                    .unwrap_or("")
                    .to_owned();
                let id = key.of_round(tries.round);
                let refuses = books.refuses.contains(&deal)
                    || matches!(self.certainty, Certainty::Key { .. }) && books.refused.contains(&id);
                match () {
                    () if books.down => Mood::Away,
                    () if refuses => {
                        books.refused.insert(id);
                        Mood::Refuse
                    }
                    () => books.moods.pop_front().unwrap_or(Mood::Serve),
                }
            };
            tokio::time::sleep(Duration::from_millis(1)).await;
            let remembers = matches!(self.certainty, Certainty::Key { .. });
            let outcome = {
                let mut books = self.books.lock().expect("books");
                let known = remembers && books.has(key);
                match mood {
                    Mood::Serve | Mood::WriteAndLose if !known => books.write(key, plan),
                    _ => {}
                }
                match mood {
                    Mood::Serve => Outcome::Acknowledged(acknowledgement(key)),
                    Mood::WriteAndLose | Mood::Lose | Mood::WriteLate => Outcome::Uncertain("no answer".to_owned()),
                    Mood::Throttle => Outcome::Throttled {
                        retry_after: Some(Duration::from_millis(30)),
                    },
                    Mood::Away => Outcome::Unavailable("connection refused".to_owned()),
                    Mood::Refuse => Outcome::Refused(Refusal {
                        code: "closed_period".to_owned(),
                        words: "The period is locked".to_owned(),
                        advice: "open the period, then retry".to_owned(),
                    }),
                }
            };
            if mood == Mood::WriteLate {
                let (books, key, plan) = (self.books.clone(), key.clone(), plan.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(LATE / 2).await;
                    let mut books = books.lock().expect("books");
                    if !(remembers && books.has(&key)) {
                        books.write(&key, &plan);
                    }
                });
            }
            self.books.lock().expect("books").under_way.remove(key.as_str());
            outcome
        })
    }

    fn look_up<'a>(&'a self, key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            let mut books = self.books.lock().expect("books");
            if plan.form != WRITES {
                books
                    .broken
                    .push(format!("{key} is looked for as another form than was planned"));
            }
            match books.written.iter().filter(|(known, _)| known == key.as_str()).count() {
                0 => Found::Nothing,
                1 => Found::Same(acknowledgement(key)),
                _ => Found::Several(vec![key.to_string(); 2]),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move {
            match self.books.lock().expect("books").down {
                true => Err("connection refused".to_owned()),
                false => Ok(()),
            }
        })
    }
}

fn acknowledgement(key: &Key) -> Acknowledgement {
    Acknowledgement {
        external_id: format!("L-{key}"),
        response_digest: "00".to_owned(),
    }
}

/// A log whose process can be made to die: at a commit that is planned, before it happens or after, every later call
/// fails, as if the process were gone.
struct Mortal {
    inner: Arc<EmbeddedLog>,
    life: Arc<Life>,
}

#[derive(Default)]
struct Life {
    /// Commits until the end; `u64::MAX` for ever.
    left: AtomicU64,
    /// Whether the last commit happens.
    happens: bool,
    dead: AtomicU64,
}

impl Life {
    fn check(&self) -> Result<(), LogError> {
        match self.dead.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(LogError::fatal("the process is gone")),
        }
    }
}

struct MortalProducer {
    inner: Box<dyn Producer>,
    life: Arc<Life>,
}

impl Log for Mortal {
    left_to_inner!(create_topics partitions reader end start committed members move_group grow offset_at);

    fn consumer(&self, group: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        self.life.check()?;
        self.inner.consumer(group)
    }
    fn producer(&self, id: &str) -> Result<Box<dyn Producer>, LogError> {
        self.life.check()?;
        Ok(Box::new(MortalProducer {
            inner: self.inner.producer(id)?,
            life: self.life.clone(),
        }))
    }
}

impl Producer for MortalProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.life.check()?;
        self.inner.begin()
    }
    fn send(&mut self, record: Outgoing) -> Result<(), LogError> {
        self.life.check()?;
        self.inner.send(record)
    }
    fn commit(&mut self, offsets: &Positions, membership: Option<&Membership>) -> Result<Positions, LogError> {
        self.life.check()?;
        let left = self.life.left.load(Ordering::SeqCst);
        if left == 0 {
            self.life.dead.store(1, Ordering::SeqCst);
            if self.life.happens {
                self.inner.commit(offsets, membership)?;
            }
            return Err(LogError::new(LogErrorKind::Fatal, "the process is gone"));
        }
        if left != u64::MAX {
            self.life.left.store(left - 1, Ordering::SeqCst);
        }
        self.inner.commit(offsets, membership)
    }
    fn abort(&mut self) -> Result<(), LogError> {
        self.inner.abort()
    }
}

/// Everything but the ledger.
struct World {
    dir: tempfile::TempDir,
    topology: Topology,
    clock: Clock,
    log: Arc<EmbeddedLog>,
    schemas: Arc<Schemas>,
    /// Of the last start.
    figures: Mutex<prometheus::Registry>,
}

const PARTITIONS: u32 = 2;

impl World {
    fn new(sink: &str) -> World {
        let dir = tempfile::tempdir().expect("folder");
        let topology = topology(dir.path(), sink, ACCOUNTS);
        let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), false).expect("log"));
        log.create_topics(&pipeline::topics(&topology)).expect("topics");
        log.create_topics(&application::topics(&topology)).expect("topics");
        let registry = Arc::new(Embedded::open(&dir.path().join("registry")).expect("registry"));
        let schemas = Arc::new(pipeline::schemas(&topology, registry).expect("schemas"));
        // So that the commits at which a process dies are all those of the sink's work.
        let sink = topology.sinks.values().next().expect("a sink");
        let shape = application::shape(&topology, sink).expect("shape");
        layout::admit(&shape, log.as_ref()).expect("admitted");
        World {
            dir,
            topology,
            clock: clock(),
            log,
            schemas,
            figures: Mutex::default(),
        }
    }

    fn sink(&self) -> &config::Sink {
        self.topology.sinks.values().next().expect("a sink")
    }

    fn issue(&self, entries: &[JournalEntry]) {
        let records: Vec<_> = entries
            .iter()
            .map(|entry| {
                let key = format!("{}/{}", entry.tenant, entry.deal).into_bytes();
                let value = self.schemas.encode_journal_entry(entry).expect("encodes");
                (partition_for(&key, PARTITIONS), key, value)
            })
            .collect();
        self.write(self.topology.outputs.journal_entries.as_str(), records);
    }

    fn write(&self, topic: &str, records: Vec<(accrue::stream::record::Partition, Vec<u8>, Vec<u8>)>) {
        let topic = Topic::new(topic);
        let mut producer = self.log.producer("test").expect("producer");
        producer.begin().expect("begin");
        for (partition, key, value) in records {
            producer
                .send(Outgoing {
                    to: TopicPartition::new(&topic, partition),
                    timestamp: Timestamp(Instant9::now().as_millisecond()),
                    key: Some(key),
                    value: Some(value),
                    headers: Vec::new(),
                })
                .expect("send");
        }
        producer.commit(&Positions::new(), None).expect("commit");
    }

    fn decide(&self, key: &str, decision: Decision) {
        let attempts = self.waits(key).row.track.attempts;
        self.decide_on(key, attempts, decision);
    }

    fn waits(&self, key: &str) -> reading::Waiting {
        let mut waiting = self.holdings().waiting.into_iter();
        let found = waiting.find(|waiting| waiting.row.key.as_str() == key);
        found.expect("the document waits")
    }

    /// As who had looked when the document had been sent so often.
    fn decide_on(&self, key: &str, attempts: u64, decision: Decision) {
        let queue = self.waits(key).row.queue();
        let value = self
            .schemas
            .encode_sink_command(&SinkCommand {
                sink: "ledger".to_owned(),
                key: key.to_owned(),
                attempts: Some(attempts),
                decision,
                by: "kim".to_owned(),
                note: "looked at it".to_owned(),
            })
            .expect("encodes");
        let key = queue.into_bytes();
        self.write(
            self.topology.outputs.sink_commands.as_str(),
            vec![(accrue::stream::record::Partition(0), key, value)],
        );
    }

    fn holdings(&self) -> reading::Holdings {
        reading::holdings(self.log.as_ref(), &self.topology, self.sink()).expect("holdings")
    }

    fn receipts(&self) -> Vec<Receipt> {
        let mut all = Vec::new();
        reading::receipts(self.log.as_ref(), &self.topology, &self.schemas, |receipt| {
            all.push(receipt);
            Ok(())
        })
        .expect("receipts");
        all
    }

    fn start(&self, ledger: &Arc<Ledger>, life: Option<Arc<Life>>) -> (Application, Runtime) {
        let registry = prometheus::Registry::new();
        *self.figures.lock().expect("figures") = registry.clone();
        let application = application::build(
            &self.topology,
            self.sink(),
            Outside {
                destination: ledger.clone(),
                threads: Threads::start().expect("threads"),
                clock: self.clock.clone(),
            },
            self.schemas.clone(),
            metrics::Metrics::new(&registry).expect("metrics"),
            pipeline::dead_letters(self.schemas.clone()),
        )
        .expect("an application");
        let log: Arc<dyn Log> = match life {
            Some(life) => Arc::new(Mortal {
                inner: self.log.clone(),
                life,
            }),
            None => self.log.clone(),
        };
        let config = RuntimeConfig {
            threads: 1,
            state_dir: self.dir.path().join("state"),
            memory: Budget::of(16 << 20),
            commit_interval: Duration::from_millis(5),
            max_records_per_commit: 1_000,
            overlay_max_bytes: 1 << 20,
            ask_ends_after: Duration::from_millis(20),
            restore_threads: 1,
            standbys: false,
            instance: None,
        };
        let metrics = Metrics::new(&registry).expect("metrics");
        let runtime = Runtime::start(application.topology.clone(), log, config, metrics).expect("start");
        (application, runtime)
    }

    /// Runs until nothing is left that will happen by itself, then stops cleanly.
    fn drain(&self, ledger: &Arc<Ledger>) {
        let (application, runtime) = self.start(ledger, None);
        let flush = || {
            if application.board.work().gathering > 0 {
                application.board.flush();
            }
        };
        wait("nothing is left", || {
            assert!(!runtime.is_finished(), "{:?}", runtime.join());
            let idle = runtime.is_ready() && runtime.lag().expect("lag") == 0;
            if idle {
                flush();
            }
            let work = application.board.work();
            idle && work.active == 0 && work.gathering == 0 && !work.uncommitted
        });
        runtime.stop();
        runtime.join().expect("a clean end");
    }

    /// Runs until the process dies at a planned commit, or nothing is left.
    fn run_until_death(&self, ledger: &Arc<Ledger>, commits: u64, happens: bool) {
        let life = Arc::new(Life {
            left: AtomicU64::new(commits),
            happens,
            dead: AtomicU64::new(0),
        });
        let (application, runtime) = self.start(ledger, Some(life));
        wait("it dies or is done", || {
            let work = application.board.work();
            let idle = runtime.is_ready() && runtime.lag().expect("lag") == 0;
            runtime.is_finished() || idle && work.active == 0 && !work.uncommitted
        });
        runtime.stop();
        let _ = runtime.join();
    }

    /// Everything that must hold when all is done.
    fn assert_whole(&self, ledger: &Ledger, entries: &[JournalEntry]) {
        let books = ledger.books.lock().expect("books");
        assert_eq!(books.broken, Vec::<String>::new());
        let mut written: Vec<&str> = books.written.iter().map(|(key, _)| key.as_str()).collect();
        // In each deal's order.
        let mut by_deal: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (key, body) in &books.written {
            let deal = String::from_utf8_lossy(body).split(' ').next().unwrap_or("").to_owned();
            by_deal.entry(deal).or_default().push(key);
        }
        for (deal, keys) in &by_deal {
            let wanted: Vec<&str> = entries
                .iter()
                .filter(|entry| entry.deal.as_str() == deal)
                .map(|entry| entry.entry_id.as_str())
                .filter(|id| keys.contains(id))
                .collect();
            assert_eq!(*keys, wanted, "the order of {deal}");
        }
        // Each once, and each with a receipt.
        written.sort_unstable();
        let mut wanted: Vec<&str> = entries.iter().map(|entry| entry.entry_id.as_str()).collect();
        wanted.sort_unstable();
        assert_eq!(written, wanted);
        let receipts = self.receipts();
        let mut receipted: Vec<&str> = receipts.iter().flat_map(|it| &it.entries).map(String::as_str).collect();
        receipted.sort_unstable();
        assert_eq!(receipted, wanted);
        let mut chains = Chains::default();
        let mut broken: Vec<_> = receipts.iter().flat_map(|receipt| chains.add(receipt)).collect();
        broken.extend(chains.end(&self.holdings().chains));
        assert_eq!(broken, Vec::new());
        assert!(self.holdings().waiting.is_empty());
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !done() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn clock() -> Clock {
    Arc::new(|| Instant9::from_millisecond(Instant9::now().as_millisecond()).expect("a time"))
}

const ACCOUNTS: &str = "accounts_receivable = \"1100\"\ncash = \"1000\"\n";

fn topology(dir: &Path, sink: &str, accounts: &str) -> Topology {
    let text = format!(
        "[[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n\
         [runtime]\npartitions = {PARTITIONS}\n\
         [sinks.ledger]\nkind = \"file\"\n{sink}\n\
         [sinks.ledger.file]\nformat = \"csv\"\ndir = \"{}\"\n\
         [sinks.ledger.accounts]\n{accounts}",
        dir.join("unused").display()
    );
    config::parse("topology.toml", &text, &|_| None).expect("a topology")
}

fn ledger(certainty: Certainty, moods: &[Mood]) -> Arc<Ledger> {
    Arc::new(Ledger {
        certainty,
        limits: Limits {
            in_flight: 4,
            per_minute: None,
            per_day: None,
        },
        books: Arc::new(Mutex::new(Books {
            moods: moods.iter().copied().collect(),
            ..Books::default()
        })),
    })
}

const LOOK_UP: Certainty = Certainty::LookUp { after: LATE };

/// `count` entries of each of `deals` deals, dealt out in turn.
fn entries(deals: usize, count: usize) -> Vec<JournalEntry> {
    let usd = Currency::parse("USD").expect("a currency");
    let line = |role: Role, debit: i64, credit: i64| EntryLine {
        account: role.name().into_owned(),
        role,
        debit: Decimal::from(debit),
        credit: Decimal::from(credit),
        functional_debit: Decimal::from(debit),
        functional_credit: Decimal::from(credit),
    };
    (0..count)
        .flat_map(|n| (0..deals).map(move |deal| (deal, n)))
        .map(|(deal, n)| JournalEntry {
            entry_id: EntryId::parse(format!("je_{deal}_{n}")).expect("an id"),
            tenant: TenantId::parse("acme").expect("a tenant"),
            deal: DealId::parse(format!("D{deal}")).expect("a deal"),
            contract: ContractId::parse(format!("D{deal}")).expect("a contract"),
            obligation: None,
            kind: Kind::Payment,
            date: jiff::civil::date(2026, 1, 31),
            period: Period::parse("2026-01").expect("a period"),
            concerns: Period::parse("2026-01").expect("a period"),
            currency: usd,
            functional_currency: usd,
            lines: vec![
                line(Role::Cash, 100 + n as i64, 0),
                line(Role::AccountsReceivable, 0, 100 + n as i64),
            ],
            cause: EventId::parse("e").expect("an event"),
            provenance: Vec::new(),
            reverses: None,
            customer_id: None,
            customer_name: None,
        })
        .collect()
}

#[test]
fn each_document_is_written_once_whatever_the_ledger_does() {
    let moods = [
        Mood::WriteAndLose,
        Mood::Serve,
        Mood::Throttle,
        Mood::Lose,
        Mood::WriteLate,
        Mood::Serve,
        Mood::Away,
        Mood::WriteAndLose,
        Mood::WriteLate,
    ];
    for certainty in [
        LOOK_UP,
        Certainty::Key {
            remembered: Duration::from_secs(3600),
            look_up_after: None,
        },
    ] {
        let world = World::new("breaker = { after = 100 }");
        let all = entries(5, 4);
        world.issue(&all);
        let ledger = ledger(certainty, &moods);
        world.drain(&ledger);
        world.assert_whole(&ledger, &all);
        // The topics from the start: nothing new.
        world.issue(&all);
        world.drain(&ledger);
        world.assert_whole(&ledger, &all);
    }
}

#[test]
fn a_process_that_dies_at_any_commit_leaves_each_document_once() {
    for happens in [false, true] {
        let world = World::new("breaker = { after = 100 }");
        let all = entries(3, 3);
        world.issue(&all);
        let ledger = ledger(
            LOOK_UP,
            &[Mood::Serve, Mood::WriteAndLose, Mood::WriteLate, Mood::Throttle],
        );
        let mut lives = 0;
        while world.receipts().len() < all.len() {
            lives += 1;
            assert!(lives < 200, "it makes no progress");
            world.run_until_death(&ledger, lives % 4, happens);
        }
        assert!(lives > 4, "it died only {lives} times");
        world.drain(&ledger);
        world.assert_whole(&ledger, &all);
    }
}

#[test]
fn a_refused_document_holds_up_its_own_deal_until_a_person_decides() {
    // A ledger that repeats its answers by key would repeat the refusal for ever.
    let key = Certainty::Key {
        remembered: Duration::from_secs(3600),
        look_up_after: Some(LATE),
    };
    for certainty in [LOOK_UP, key] {
        refused_and_mended(certainty);
    }
}

fn refused_and_mended(certainty: Certainty) {
    let world = World::new("");
    let all = entries(3, 3);
    world.issue(&all);
    let ledger = ledger(certainty, &[]);
    ledger.books.lock().expect("books").refuses.insert("D1".to_owned());
    world.drain(&ledger);
    let holdings = world.holdings();
    let waiting: Vec<&str> = holdings.waiting.iter().map(|it| it.row.key.as_str()).collect();
    assert_eq!(waiting, ["je_1_0", "je_1_1", "je_1_2"], "the rest of the deal waits");
    assert_eq!(world.receipts().len(), 6, "other deals went on");
    match &holdings.waiting[0].row.track.state {
        State::Parked(refusal) => {
            assert_eq!(refusal.words, "The period is locked");
            assert_eq!(refusal.advice, "open the period, then retry");
        }
        other => panic!("{other:?}"),
    }

    // Retried before it is mended, it is refused again; a retry of what is not parked becomes a dead letter.
    world.decide("je_1_0", Decision::Retry);
    world.drain(&ledger);
    assert_eq!(world.holdings().waiting.len(), 3);
    ledger.books.lock().expect("books").refuses.clear();
    world.decide("je_1_0", Decision::Retry);
    world.drain(&ledger);
    world.assert_whole(&ledger, &all);
}

#[test]
fn a_process_with_all_partitions_has_the_whole_limit() {
    let world = World::new("limits = { per_minute = 4 }");
    world.issue(&entries(8, 1));
    let ledger = ledger(LOOK_UP, &[]);
    let (_, runtime) = world.start(&ledger, None);
    // Within the first minute: a part of the limit would be less.
    let began = Instant::now();
    wait("four are written", || world.receipts().len() == 4);
    assert!(began.elapsed() < Duration::from_secs(60));
    runtime.stop();
    runtime.join().expect("a clean end");
    assert_eq!(world.receipts().len(), 4);
}

#[test]
fn what_people_said_before_a_start_is_heard_before_anything_is_tried_again() {
    let mut world = World::new("");
    world.topology = topology(world.dir.path(), "", "accounts_receivable = \"1100\"\n");
    let all = entries(2, 1);
    world.issue(&all);
    let ledger = ledger(LOOK_UP, &[]);
    world.drain(&ledger);
    assert_eq!(world.holdings().waiting.len(), 2, "both wait for an account");
    // One was booked by hand; then the line was added. Whatever is put off for seconds comes at once by this clock.
    world.decide(
        "je_0_0",
        Decision::Confirm {
            external_id: "L-9".to_owned(),
        },
    );
    world.topology = topology(world.dir.path(), "", ACCOUNTS);
    let calls = AtomicU64::new(0);
    world.clock = Arc::new(move || {
        let ahead = calls.fetch_add(1, Ordering::SeqCst).min(20);
        Instant9::from_millisecond(Instant9::now().as_millisecond() + 1_000 * ahead as i64).expect("a time")
    });
    world.drain(&ledger);
    let books = ledger.books.lock().expect("books");
    let written: Vec<&str> = books.written.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(written, ["je_1_0"]);
    let outcomes: BTreeMap<String, String> = world.receipts().into_iter().map(|it| (it.key, it.outcome)).collect();
    assert_eq!(outcomes["je_0_0"], "confirmed");
    assert_eq!(outcomes["je_1_0"], "acknowledged");
}

#[test]
fn what_a_person_decides_is_in_the_receipt() {
    let world = World::new("");
    let all = entries(2, 2);
    world.issue(&all);
    let ledger = ledger(Certainty::None, &[Mood::WriteAndLose, Mood::Lose]);
    world.drain(&ledger);
    // Without any way to know, both are parked and neither is sent again.
    let holdings = world.holdings();
    let parked: Vec<String> = holdings
        .waiting
        .iter()
        .filter(|it| matches!(&it.row.track.state, State::Parked(refusal) if refusal.code == "uncertain"))
        .map(|it| it.row.key.to_string())
        .collect();
    assert_eq!(parked.len(), 2, "{parked:?}");
    let (there, lost): (Vec<String>, Vec<String>) = {
        let books = ledger.books.lock().expect("books");
        parked
            .into_iter()
            .partition(|key| books.written.iter().any(|(known, _)| known == key))
    };
    world.decide(
        &there[0],
        Decision::Confirm {
            external_id: "L-9".to_owned(),
        },
    );
    world.decide(&lost[0], Decision::Cancel);
    world.drain(&ledger);
    let receipts = world.receipts();
    let of = |key: &str| receipts.iter().find(|receipt| receipt.key == key).expect("a receipt");
    let confirmed = of(&there[0]);
    assert_eq!(
        (confirmed.outcome.as_str(), confirmed.external_id.as_deref()),
        ("confirmed", Some("L-9"))
    );
    assert_eq!(confirmed.by.as_deref(), Some("kim"));
    assert_eq!(of(&lost[0]).outcome, "cancelled");
    assert_eq!(receipts.len(), all.len(), "every entry is accounted for");
}

/// Who says "try again" twice, since nothing happened at first, has looked once.
#[test]
fn a_decision_holds_for_nothing_that_was_sent_since() {
    let world = World::new("");
    world.issue(&entries(1, 1));
    let ledger = ledger(Certainty::None, &[Mood::Lose, Mood::WriteAndLose]);
    world.drain(&ledger);
    world.decide("je_0_0", Decision::Retry);
    world.drain(&ledger);
    for stale in [Decision::Retry, Decision::Cancel] {
        world.decide_on("je_0_0", 1, stale);
        world.drain(&ledger);
        let row = world.waits("je_0_0").row;
        assert!(matches!(&row.track.state, State::Parked(refusal) if refusal.code == "uncertain"));
        assert_eq!(row.track.attempts, 2);
    }
    assert_eq!(ledger.books.lock().expect("books").written.len(), 1, "written once");
    let letters = Topic::new(world.topology.outputs.dead_letters.as_str());
    let mut refused = 0;
    let read = accrue::stream::log::read_topic(world.log.as_ref(), &letters, |record| {
        let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        refused += usize::from(text.contains("delivery_changed") && text.contains("accrue deliveries explain je_0_0"));
        Ok::<(), LogError>(())
    });
    assert!(read.expect("letters"));
    assert_eq!(refused, 2);
    let confirm = Decision::Confirm {
        external_id: "L-1".to_owned(),
    };
    world.decide("je_0_0", confirm);
    world.drain(&ledger);
    assert_eq!(world.receipts()[0].outcome, "confirmed");
}

#[test]
fn a_ledger_that_is_away_is_probed_and_a_ticket_says_since_when() {
    let world = World::new("breaker = { after = 2, probe_after = \"30ms\", probe_at_most = \"60ms\" }");
    let all = entries(4, 1);
    world.issue(&all);
    let ledger = ledger(LOOK_UP, &[]);
    ledger.books.lock().expect("books").down = true;
    let (application, runtime) = world.start(&ledger, None);
    wait("the breaker opens", || !application.gate.is_closed());
    let sent = || -> u64 { ledger.books.lock().expect("books").sends.values().sum() };
    std::thread::sleep(Duration::from_millis(50));
    let before = sent();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(sent(), before, "nothing is sent while it is open");
    ledger.books.lock().expect("books").down = false;
    wait("all is written", || world.receipts().len() == all.len());
    runtime.stop();
    runtime.join().expect("a clean end");
    world.assert_whole(&ledger, &all);
    let mut tickets = Vec::new();
    let topic = Topic::new(world.topology.outputs.tickets.as_str());
    reading::each(world.log.as_ref(), &topic, |record| {
        let value = record.value.expect("a value");
        tickets.push(world.schemas.decode_ticket(&value).expect("a ticket"));
        Ok(())
    })
    .expect("tickets");
    let states: Vec<TicketState> = tickets.iter().map(|ticket| ticket.state).collect();
    assert_eq!(states, [TicketState::Opened, TicketState::Closed]);
    assert_eq!(tickets[0].id, tickets[1].id);
    assert!(tickets[0].reason.contains("connection refused"));
}

#[test]
fn summaries_carry_every_entry_once() {
    let world = World::new("granularity = \"summary\"\nsummary_interval = \"1h\"");
    let all = entries(4, 5);
    world.issue(&all);
    let ledger = ledger(LOOK_UP, &[Mood::WriteAndLose]);
    world.drain(&ledger);
    let receipts = world.receipts();
    assert!(receipts.len() <= PARTITIONS as usize, "{} summaries", receipts.len());
    let mut carried: Vec<&str> = receipts.iter().flat_map(|it| &it.entries).map(String::as_str).collect();
    carried.sort_unstable();
    let mut wanted: Vec<&str> = all.iter().map(|entry| entry.entry_id.as_str()).collect();
    wanted.sort_unstable();
    assert_eq!(carried, wanted);
    world.issue(&all);
    world.drain(&ledger);
    assert_eq!(world.receipts().len(), receipts.len(), "a replay writes nothing");
    assert_eq!(ledger.books.lock().expect("books").written.len(), receipts.len());
}

#[test]
fn entries_of_other_tenants_are_left_to_other_sinks_and_not_remembered() {
    let mut world = World::new("tenants = [\"acme\"]");
    let ours = entries(2, 2);
    let mut theirs = entries(2, 2);
    for entry in &mut theirs {
        entry.tenant = TenantId::parse("beta").expect("a tenant");
        entry.entry_id = EntryId::parse(format!("beta_{}", entry.entry_id)).expect("an id");
    }
    world.issue(&ours);
    world.issue(&theirs);
    let ledger = ledger(LOOK_UP, &[]);
    world.drain(&ledger);
    world.assert_whole(&ledger, &ours);
    // Once the sink is theirs too, nothing of them counts as delivered.
    world.topology = topology(world.dir.path(), "", ACCOUNTS);
    world.issue(&theirs);
    world.drain(&ledger);
    assert_eq!(world.receipts().len(), ours.len() + theirs.len());
}

#[test]
fn what_was_delivered_counts_for_the_books_it_was_delivered_to() {
    let mut world = World::new("");
    let all = entries(2, 1);
    world.issue(&all);
    let sandbox = ledger(LOOK_UP, &[]);
    world.drain(&sandbox);
    // The same sink, and other books: it says so, and sends nothing.
    let production = ledger(LOOK_UP, &[]);
    let elsewhere = world.dir.path().join("production");
    world.topology = topology(&elsewhere, "", ACCOUNTS);
    let (_, runtime) = world.start(&production, None);
    wait("it ends", || runtime.is_finished());
    let refused = runtime.join().expect_err("other books").to_string();
    let before = world.dir.path().join("unused").display().to_string();
    for part in ["other books", &before, "another name", "moved_from = "] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(production.books.lock().expect("books").sends.is_empty());
    // The same books at another address: they know what they have.
    world.topology = topology(&elsewhere, &format!("moved_from = \"file {before}\""), ACCOUNTS);
    world.issue(&all);
    world.drain(&production);
    world.topology = topology(&elsewhere, "", ACCOUNTS);
    world.drain(&production);
    assert!(production.books.lock().expect("books").sends.is_empty());
}

#[test]
fn the_intake_keeps_entries_as_long_as_the_journal() {
    for (retention, kept) in [("forever", None), ("90d", Some(Duration::from_secs(90 * 86_400)))] {
        let mut world = World::new("");
        let text = format!("{ACCOUNTS}[outputs]\nretention = \"{retention}\"\n");
        world.topology = topology(world.dir.path(), "", &text);
        let specs = application::topics(&world.topology);
        let intake = specs.iter().find(|spec| spec.topic.as_str().ends_with("-intake"));
        assert_eq!(intake.expect("intake").cleanup, Cleanup::Delete { retention: kept });
    }
}

#[test]
fn what_can_be_no_request_takes_nothing_of_the_limits() {
    let world = World::new("limits = { per_minute = 2 }");
    let mut all = entries(8, 1);
    // Most need an account that is not mapped.
    for entry in &mut all[..7] {
        entry.lines[0].role = Role::TaxPayable;
        entry.lines[0].account = Role::TaxPayable.name().into_owned();
    }
    world.issue(&all);
    let ledger = ledger(LOOK_UP, &[]);
    let (application, runtime) = world.start(&ledger, None);
    let began = Instant::now();
    wait("one is written and all others are parked", || {
        application.board.work().parked == 7 && world.receipts().len() == 1
    });
    assert!(began.elapsed() < Duration::from_secs(45));
    runtime.stop();
    runtime.join().expect("a clean end");
}

#[test]
fn the_age_of_what_was_never_delivered_is_a_figure() {
    let mut world = World::new("");
    let ledger = ledger(LOOK_UP, &[]);
    ledger.books.lock().expect("books").refuses.insert("D0".to_owned());
    world.issue(&entries(2, 1));
    world.clock = Arc::new(|| {
        let hour = 3_600_000;
        Instant9::from_millisecond(Instant9::now().as_millisecond() + hour).expect("a time")
    });
    world.drain(&ledger);
    let families = world.figures.lock().expect("figures").gather();
    let oldest = families
        .iter()
        .find(|family| family.name() == "accrue_sink_oldest_seconds")
        .expect("the figure");
    let ages: Vec<f64> = oldest
        .get_metric()
        .iter()
        .map(|it| it.get_gauge().get_value())
        .collect();
    assert!(ages.iter().any(|age| (3_600.0..3_700.0).contains(age)), "{ages:?}");
    assert!(ages.contains(&0.0), "the other partition has nothing: {ages:?}");
}

/// Entries of one deal, one of each day.
fn days(days: usize) -> Vec<JournalEntry> {
    let mut all = entries(1, days);
    for (n, entry) in all.iter_mut().enumerate() {
        entry.date = jiff::civil::date(2026, 1, 1 + n as i8);
    }
    all
}

#[test]
fn a_reversal_is_not_summed_before_the_invoice_that_waits() {
    let world = World::new("documents = \"invoices\"\ngranularity = \"summary\"\nsummary_interval = \"1h\"");
    let mut all = days(3);
    all[0].kind = Kind::Invoice;
    all[1].kind = Kind::Reversal;
    all[1].reverses = Some(all[0].entry_id.clone());
    world.issue(&all);
    let ledger = ledger(LOOK_UP, &[]);
    ledger.books.lock().expect("books").refuses.insert("D0".to_owned());
    world.drain(&ledger);
    assert_eq!(
        ledger.books.lock().expect("books").written,
        Vec::new(),
        "all of the deal waits"
    );
    ledger.books.lock().expect("books").refuses.clear();
    world.decide("je_0_0", Decision::Retry);
    world.drain(&ledger);
    world.assert_whole(&ledger, &all);
}

#[test]
fn a_summary_that_is_full_does_not_overtake_an_older_one() {
    let world = World::new("granularity = \"summary\"\nsummary_interval = \"1h\"");
    let mut all = entries(1, 2_001);
    all[0].date = jiff::civil::date(2026, 1, 30);
    world.issue(&all);
    let ledger = ledger(LOOK_UP, &[]);
    let (_, runtime) = world.start(&ledger, None);
    wait("both are written", || world.receipts().len() == 2);
    runtime.stop();
    runtime.join().expect("a clean end");
    let counts: Vec<usize> = world.receipts().iter().map(|receipt| receipt.entries.len()).collect();
    assert_eq!(counts, [1, 2_000]);
}
