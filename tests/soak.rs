//! A long run with more state than memory: `make soak`. The process must stay within `state.memory_budget`, by the kernel's
//! own count of its peak, while it fills its state, changes it all over, and restores it from nothing.

use std::path::Path;
use std::time::{Duration, Instant};

mod installation;

use installation::deals::Deals;
use installation::{Installation, PATIENCE, Platform, Running};

const MIB: u64 = 1 << 20;
/// Characters of the name of each line of a deal: contracts large enough to outgrow the memory in minutes.
const NAME_CHARS: usize = 8_000;
/// State that is enough, in budgets.
const MUCH: u64 = 4;
/// Events ahead of the program: it always has work, and the queues are always full.
const AHEAD: u64 = 4_000;

#[test]
#[ignore = "takes minutes: make soak"]
fn memory_stays_within_its_budget() {
    let minutes: u64 = std::env::var("ACCRUE_TEST_SOAK_MINUTES").map_or(10, |text| text.parse().expect("minutes"));
    let budget: u64 = std::env::var("ACCRUE_TEST_SOAK_MIB").map_or(192, |text| text.parse().expect("MiB")) * MIB;
    let platform = Platform::get();
    let mut deals = Deals::new(&platform, "soak.events", NAME_CHARS);
    let books = Installation::of_deals(&platform, "soak", &deals.topic, "");
    books.apply();
    let start = || books.run_with(&[("ACCRUE_MEMORY_BUDGET", &format!("{}MiB", budget / MIB))]);
    let mut running = start();

    println!("| minute | what | deals | state MiB | RSS MiB | peak MiB | budget MiB |");
    println!("|---|---|---|---|---|---|---|");
    let began = Instant::now();
    let mut told = Duration::ZERO;
    let mut tell = |what: &str, running: &mut Running, deals: &Deals, now: bool| {
        running.assert_alive();
        let (rss, peak) = memory(running);
        let at = began.elapsed();
        if now || at - told >= Duration::from_secs(30) {
            told = at;
            println!(
                "| {:.1} | {what} | {} | {} | {} | {} | {} |",
                at.as_secs_f64() / 60.0,
                deals.closed(),
                bytes_in(&books.state) / MIB,
                rss / MIB,
                peak / MIB,
                budget / MIB
            );
        }
        assert!(peak <= budget, "{what}: the process took {peak} bytes, of {budget}");
    };

    let time = Duration::from_secs(60 * minutes);
    let mut what = "new deals";
    while began.elapsed() < time {
        // First more and more, then here and there. The broker keeps ten times as much as the stores.
        if began.elapsed() > time / 2 || bytes_in(&books.state) > MUCH * budget {
            what = "old deals amended";
        }
        if deals.sent().saturating_sub(deals.processed(&books.name)) < AHEAD {
            match what {
                "new deals" => deals.send(500),
                _ => deals.amend_anywhere(1_000),
            }
        } else {
            std::thread::sleep(Duration::from_millis(200));
        }
        tell(what, &mut running, &deals, false);
    }
    books.settle(&mut running);
    tell("settled", &mut running, &deals, true);
    let state = bytes_in(&books.state);
    assert!(
        state > budget,
        "{state} bytes of state are less than the budget of {budget}; give it more minutes"
    );
    let before = running.events("restored").len();
    running.stop();

    // All of it once more, from the changelogs.
    std::fs::remove_dir_all(&books.state).expect("wipe");
    let mut running = start();
    let began = Instant::now();
    while running.events("restored").len() < before + 12 {
        assert!(began.elapsed() < PATIENCE * 5, "no restore:\n{}", running.last_words());
        std::thread::sleep(Duration::from_millis(200));
        tell("restore", &mut running, &deals, false);
    }
    tell("restored", &mut running, &deals, true);
    deals.amend_anywhere(1_000);
    books.settle(&mut running);
    tell("settled", &mut running, &deals, true);
    running.stop();
    let canonical = format!("{}deal.canonical\t", books.prefix());
    let counts = books.read("count");
    let count = counts.lines().find_map(|line| line.strip_prefix(&canonical));
    assert_eq!(count, Some(deals.sent().to_string().as_str()), "each event once");
    books.nothing_hangs();
}

/// Resident memory now and at its peak, in bytes, as the kernel counts them.
fn memory(running: &Running) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("Linux");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("field");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") * 1_024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Bytes of the files below a folder; files may go away meanwhile.
fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    });
    sizes.sum()
}
