//! Faults on a real broker: the network between, the process, its machine. `make test` starts the servers and runs the short
//! forms; `make torture` is the long one.
//!
//! The judge of each is the same: an outsider reads every event that was sent, each once; nothing hangs in a
//! transaction; and all products are, record by record, those of an undisturbed installation on the same input.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod installation;

use installation::deals::Deals;
use installation::{Installation, PATIENCE, Platform, Running, signal};

/// Short enough to be outlasted: a silence longer than these aborts the transaction, and takes the partitions.
const TIMEOUTS: &str = "transaction_timeout = \"7s\"\nsession_timeout = \"8s\"";

/// Runs `work` while deals are sent, `count` every tenth of a second.
fn under_load<T>(deals: &mut Deals, count: u64, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| deals.send_until(&over, count));
        let stop = StopOnDrop(&over);
        let done = work();
        drop(stop);
        sender.join().expect("sender");
        done
    })
}

/// Also when the work panics: the scope waits for the sender.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Every event that was sent is in `deal.canonical`, once.
fn all_came_once(books: &Installation<'_>, deals: &Deals) {
    let topic = format!("{}deal.canonical", books.prefix());
    let mut came: BTreeMap<String, u32> = BTreeMap::new();
    for line in books.platform.script("e2e/reader.py", &["dump", &topic]).lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("a decoded event");
        let id = record["value"]["event_id"].as_str().expect("event id").to_owned();
        *came.entry(id).or_default() += 1;
    }
    let twice: Vec<_> = came.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "came more than once: {twice:?}");
    let missing: Vec<_> = deals.ids().into_iter().filter(|id| !came.contains_key(id)).collect();
    assert!(missing.is_empty(), "never came: {missing:?}");
    assert_eq!(came.len(), deals.ids().len(), "came and was never sent: {came:?}");
}

/// What an undisturbed installation makes of the same input.
fn undisturbed(platform: &Platform, name: &str, deals: &Deals) -> BTreeMap<String, String> {
    let twin = Installation::of_deals(platform, &format!("{name}-calm"), &deals.topic, "");
    twin.apply();
    let mut running = twin.run();
    twin.settle(&mut running);
    running.stop();
    let hashes = twin.hashes();
    assert!(
        !hashes["journal.entries"].starts_with("0\t"),
        "nothing was booked: {hashes:?}"
    );
    hashes
}

/// The proxy between Kafka and those who were given its address.
struct Network(TcpStream);

impl Network {
    fn of(platform: &Platform) -> Network {
        let mut network = Network(TcpStream::connect(&platform.env["PROXY_CONTROL"]).expect("proxy"));
        network.order("pass");
        network
    }

    /// See tests/platform/proxy.py; the answer is the proxy's state.
    fn order(&mut self, command: &str) -> serde_json::Value {
        self.0.write_all(format!("{command}\n").as_bytes()).expect("order");
        let mut line = String::new();
        BufReader::new(&self.0).read_line(&mut line).expect("answer");
        let state: serde_json::Value = serde_json::from_str(&line).expect("state");
        assert!(state["error"].is_null(), "{state}");
        state
    }

    /// Answers taken away so far, of requests of one kind or of all.
    fn dropped(&mut self, key: Option<&str>) -> u64 {
        let state = self.order("state");
        let dropped = state["dropped"].as_object().expect("dropped");
        let counts = dropped.iter().filter(|(of, _)| key.is_none_or(|key| key == *of));
        counts.filter_map(|(_, count)| count.as_u64()).sum()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.write_all(b"pass\n");
    }
}

/// Requests, as Kafka numbers them.
const END_TXN: &str = "26";
const TXN_OFFSET_COMMIT: &str = "28";

/// What happens to the network, for how long, and what has to show that it did.
struct Trouble {
    order: &'static str,
    seconds: u64,
    shows: Shows,
}

enum Shows {
    /// The program's log says one of these again.
    Log(&'static [&'static str]),
    /// Answers to EndTxn were lost, and this the program's log says again.
    Unanswered(&'static str),
    /// Answers were lost.
    Losses,
    Nothing,
}

const ABORTED: &str = "going back to the last commit";

/// What a network that is gone for a session leads to: work in vain if a transaction was open at that moment, else the loss of
/// the partitions.
const GONE: &[&str] = &[
    ABORTED,
    "another owner took over; joining again",
    "partitions released",
    "Kafka is away",
];

/// A process whose network fails in each way, in the middle of its work.
#[test]
#[ignore = "needs real servers: make test"]
fn network_faults() {
    let platform = Platform::get();
    let mut network = Network::of(&platform);
    let mut deals = Deals::new(&platform, "faults-network.events", 20);
    let books = Installation::of_deals(&platform, "faults-network", &deals.topic, TIMEOUTS);
    books.apply();
    deals.send(50);
    let follower = books.follow();
    let mut running = books.run_with(&[("KAFKA_BOOTSTRAP", &platform.env["KAFKA_PROXIED"])]);
    books.settle(&mut running);
    let troubles = [
        // Each commit takes a dozen requests, one after the other.
        (
            "half a second of delay",
            Trouble {
                order: "delay 500",
                seconds: 6,
                shows: Shows::Nothing,
            },
        ),
        (
            "cut for some seconds",
            Trouble {
                order: "cut",
                seconds: 4,
                shows: Shows::Log(&["Kafka is away"]),
            },
        ),
        // The broker commits, and the client never hears of it.
        (
            "the end of a transaction unanswered",
            Trouble {
                order: "lose 26 1",
                seconds: 9,
                shows: Shows::Unanswered(ABORTED),
            },
        ),
        // The same, but the client notices at once and asks again.
        (
            "the end of a transaction, cut before its answer",
            Trouble {
                order: "snap 26 3",
                seconds: 2,
                shows: Shows::Unanswered(""),
            },
        ),
        (
            "silent for longer than a transaction and a session last",
            Trouble {
                order: "hold",
                seconds: 9,
                shows: Shows::Log(GONE),
            },
        ),
        (
            "requests arrive and answers do not",
            Trouble {
                order: "deaf",
                seconds: 9,
                shows: Shows::Log(GONE),
            },
        ),
        (
            "one answer in twenty lost with its connection",
            Trouble {
                order: "shaky 20 606",
                seconds: 8,
                shows: Shows::Losses,
            },
        ),
    ];
    for (what, trouble) in troubles {
        let signs = |running: &Running, network: &mut Network| {
            let said = match trouble.shows {
                Shows::Log(texts) => texts.iter().map(|text| running.said(text)).sum(),
                Shows::Unanswered(text) => running.said(text),
                Shows::Losses | Shows::Nothing => 0,
            };
            (said, network.dropped(Some(END_TXN)), network.dropped(None))
        };
        let before = signs(&running, &mut network);
        let began = Instant::now();
        under_load(&mut deals, 3, || {
            std::thread::sleep(Duration::from_millis(500));
            network.order(trouble.order);
            std::thread::sleep(Duration::from_secs(trouble.seconds));
            network.order("pass");
            std::thread::sleep(Duration::from_millis(500));
        });
        let sent = began.elapsed();
        books.settle(&mut running);
        println!(
            "{what}: settled {:.1} s after the last event",
            (began.elapsed() - sent).as_secs_f64()
        );
        let after = signs(&running, &mut network);
        match trouble.shows {
            Shows::Log(texts) => assert!(after.0 > before.0, "{what}: none of {texts:?} in the log"),
            Shows::Unanswered(text) => assert!(
                after.1 > before.1 && (text.is_empty() || after.0 > before.0),
                "{what}: before {before:?}, after {after:?}"
            ),
            Shows::Losses => assert!(after.2 > before.2, "{what}: nothing was lost"),
            Shows::Nothing => {}
        }
        all_came_once(&books, &deals);
        books.nothing_hangs();
    }
    running.stop();
    let wanted = undisturbed(&platform, "faults-network", &deals);
    assert_eq!(books.hashes(), wanted);
    assert_eq!(follower.hashes(), wanted, "what a reader was given meanwhile");
}

/// Killed when its offsets are in a transaction that has not ended: Kafka gives them to nobody until it has, by itself after
/// the transaction's timeout. The next life ends it before it asks.
#[test]
#[ignore = "needs real servers: make test"]
fn killed_between_offsets_and_commit() {
    let platform = Platform::get();
    let mut network = Network::of(&platform);
    let mut deals = Deals::new(&platform, "faults-offsets.events", 20);
    let runtime = "transaction_timeout = \"40s\"";
    let books = Installation::of_deals(&platform, "faults-offsets", &deals.topic, runtime);
    books.apply();
    deals.send(20);
    let mut running = books.run_with(&[("KAFKA_BOOTSTRAP", &platform.env["KAFKA_PROXIED"])]);
    books.settle(&mut running);
    let before = network.dropped(Some(TXN_OFFSET_COMMIT));
    network.order(&format!("lose {TXN_OFFSET_COMMIT} 1"));
    deals.send(20);
    let sent = Instant::now();
    while network.dropped(Some(TXN_OFFSET_COMMIT)) == before {
        assert!(sent.elapsed() < PATIENCE, "no offsets were sent");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.kill();
    network.order("pass");
    let killed = Instant::now();
    let mut running = books.run();
    books.settle(&mut running);
    let took = killed.elapsed();
    println!("at work again {:.1} s after the kill", took.as_secs_f64());
    assert!(took < Duration::from_secs(20), "{took:?}: it waited for the timeout");
    running.stop();
    all_came_once(&books, &deals);
    books.nothing_hangs();
}

/// Three instances under load, of which every few seconds one is killed, loses its network, or is stopped for longer than
/// its session, so that it wakes as a zombie whose work others have taken over. `ACCRUE_TEST_FIRE_SECONDS` makes it
/// longer, and `ACCRUE_TEST_GROUP_PROTOCOL` is their `kafka.group_protocol`.
#[test]
#[ignore = "needs real servers: make test"]
fn three_instances_under_fire() {
    let platform = Platform::get();
    let fire: u64 = std::env::var("ACCRUE_TEST_FIRE_SECONDS")
        .map_or(Ok(40), |text| text.parse())
        .expect("ACCRUE_TEST_FIRE_SECONDS is a number of seconds");
    let mut network = Network::of(&platform);
    let mut deals = Deals::new(&platform, "faults-fire.events", 20);
    // Small transactions: more of them are open when it happens.
    let runtime = format!("{TIMEOUTS}\nmax_records_per_commit = 20\nstandbys = true");
    let books = Installation::of_deals(&platform, "faults-fire", &deals.topic, &runtime);
    books.apply();
    let follower = books.follow();
    let instances: Vec<Installation<'_>> = ["a", "b", "c"].map(|name| books.instance(name)).into();
    // The last one reaches Kafka through the proxy.
    let start = |n: usize| match n {
        2 => instances[n].run_with(&[("KAFKA_BOOTSTRAP", &platform.env["KAFKA_PROXIED"])]),
        _ => instances[n].run(),
    };
    let mut running: Vec<Option<Running>> = (0..3).map(|n| Some(start(n))).collect();
    let began = Instant::now();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut kills, mut pauses, mut cuts) = (0, 0, 0);
    let (mut turn, mut told) = (0, 0);
    under_load(&mut deals, 2, || {
        while began.elapsed() < Duration::from_secs(fire) {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            std::thread::sleep(Duration::from_millis(800 + dice % 1_500));
            let victim = (dice >> 20) as usize % instances.len();
            let mut restart = |running: &mut Vec<Option<Running>>, n: usize| {
                running[n].take().expect("running").kill();
                running[n] = Some(start(n));
                kills += 1;
            };
            match turn % 5 {
                // Longer than the session: the others take over, one of them dies over it, then it wakes.
                2 => {
                    let zombie = running[victim].as_ref().expect("running").pid();
                    signal("STOP", zombie);
                    std::thread::sleep(Duration::from_secs(8));
                    restart(&mut running, (victim + 1) % 3);
                    std::thread::sleep(Duration::from_secs(3));
                    signal("CONT", zombie);
                    pauses += 1;
                }
                4 => {
                    network.order(if dice & 64 == 0 { "cut" } else { "hold" });
                    std::thread::sleep(Duration::from_secs(1 + (dice >> 50) % 10));
                    network.order("pass");
                    cuts += 1;
                }
                _ => restart(&mut running, victim),
            }
            turn += 1;
            let minutes = began.elapsed().as_secs() / 60;
            if minutes > told {
                told = minutes;
                println!("{minutes} min: {kills} kills, {pauses} pauses, {cuts} cuts");
            }
        }
    });
    println!(
        "{kills} kills, {pauses} pauses, {cuts} cuts, {} deals sent meanwhile",
        deals.closed()
    );
    assert!(kills > 0 && pauses > 0 && cuts > 0, "the time was too short");
    // From three to two, cleanly.
    running[2].take().expect("running").stop();
    let mut first = running[0].take().expect("running");
    books.settle(&mut first);
    first.stop();
    running[1].take().expect("running").stop();
    all_came_once(&books, &deals);
    books.nothing_hangs();
    let wanted = undisturbed(&platform, "faults-fire", &deals);
    assert_eq!(books.hashes(), wanted);
    assert_eq!(follower.hashes(), wanted, "what a reader was given meanwhile");
}

/// The owner of half of the state dies with work at hand; the other process, a standby for it, takes over and has next to
/// nothing to replay. The broker shares out the partitions, so what the other process had goes on without a break.
#[test]
#[ignore = "needs real servers: make test"]
fn a_standby_takes_over() {
    let platform = Platform::get();
    let mut deals = Deals::new(&platform, "faults-standby.events", 20);
    let runtime = format!("{TIMEOUTS}\nstandbys = true");
    let books = Installation::of_deals(&platform, "faults-standby", &deals.topic, &runtime);
    books.apply();
    deals.send(800);
    let (one, two) = (books.instance("one"), books.instance("two"));
    let protocol = ("ACCRUE_TEST_GROUP_PROTOCOL", "consumer");
    let mut owner = one.run_with(&[protocol]);
    books.settle(&mut owner);
    // It comes with an empty disk, gets half of the tasks, and follows the other half.
    let port = free_port();
    let mut standby = two.run_with(&[protocol, ("ACCRUE_HTTP_LISTEN", &format!("127.0.0.1:{port}"))]);
    let began = Instant::now();
    let figure = |name: &str| figures(port).get(name).copied();
    while !(figure("accrue_stream_tasks{state=\"standby\"}") == Some(HALF_OF_STATE)
        && figure("accrue_stream_tasks{state=\"restoring\"}") == Some(0)
        && figure("accrue_stream_standby_offsets_left") == Some(0)
        && figure("accrue_stream_restore_records_total{stage=\"contract\"}") >= Some(1_500))
    {
        standby.assert_alive();
        assert!(
            began.elapsed() < PATIENCE,
            "{:?}\n{}",
            figures(port),
            standby.last_words()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = standby.events("restored").len();
    let mut owner = Some(owner);
    let killed = under_load(&mut deals, 3, || {
        std::thread::sleep(Duration::from_secs(3));
        owner.take().expect("owner").kill();
        let killed = Instant::now();
        std::thread::sleep(Duration::from_secs(3));
        killed
    });
    books.settle(&mut standby);
    println!("settled {:.1} s after the kill", killed.elapsed().as_secs_f64());
    let restores = standby.events("restored").split_off(before);
    let sum = |field: &str| -> u64 {
        let of = |restore: &serde_json::Value| restore[field].as_str()?.parse::<u64>().ok();
        restores.iter().filter_map(of).sum()
    };
    let (from, to) = (sum("from"), sum("to"));
    println!(
        "{} stores taken over, {} of {to} offsets replayed",
        restores.len(),
        to - from
    );
    assert!(restores.len() as i64 == HALF_OF_STATE && to > 700, "{restores:?}");
    assert!((to - from) * 20 < to, "{restores:?}");
    standby.stop();
    all_came_once(&books, &deals);
    books.nothing_hangs();
    assert_eq!(books.hashes(), undisturbed(&platform, "faults-standby", &deals));
}

/// Tasks with state of one of two instances: half of the partitions of `canonicalize` and `contract`.
const HALF_OF_STATE: i64 = 6;

fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    probe.local_addr().expect("address").port()
}

/// The whole numbers of `/metrics`, by name and labels; none while nobody answers.
fn figures(port: u16) -> BTreeMap<String, i64> {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return BTreeMap::new();
    };
    let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
    let mut text = String::new();
    if asked.and_then(|()| stream.read_to_string(&mut text)).is_err() {
        return BTreeMap::new();
    }
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}
