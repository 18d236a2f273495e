//! The pipeline and a sink under simulated faults. One seed is one run of each; a failing seed is printed, and repeats.
//!
//! * `cargo test --test sim` runs a fixed set of seeds and some fresh ones.
//! * `make sim SEEDS=20000` runs many; `make sim SEED=17` runs one again.

#[path = "sim/broker.rs"]
mod broker;
#[path = "sim/checks.rs"]
mod checks;
#[path = "sim/client.rs"]
mod client;
#[path = "sim/consumer.rs"]
mod consumer;
#[path = "sim/delivery.rs"]
mod delivery;
#[path = "sim/group.rs"]
mod group;
#[path = "sim/partition.rs"]
mod partition;
#[path = "sim/pipeline.rs"]
mod pipeline;
#[path = "sim/producer.rs"]
mod producer;
#[path = "sim/replay.rs"]
mod replay;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/scene.rs"]
mod scene;
#[path = "sim/shaky.rs"]
mod shaky;
#[path = "sim/vendor.rs"]
mod vendor;
#[path = "sim/workload.rs"]
mod workload;
#[path = "sim/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use delivery::Delivery;
use pipeline::Pipeline;
use world::Tally;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Pipeline,
    Sink,
}

/// Runs `count` seeds from `first` on, on all cores; the first that fails ends it.
fn seeds(what: What, first: u64, count: u64) -> Tally {
    let next = AtomicU64::new(first);
    let began = Instant::now();
    let work = || -> Result<Tally, (u64, String)> {
        let mut sum = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first + count {
                return Ok(sum);
            }
            let tally = run(what, seed).map_err(|why| {
                next.store(first + count, Ordering::SeqCst);
                (seed, why)
            })?;
            sum = sum.and(tally);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let done: Vec<Result<Tally, (u64, String)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("worker"))
            .collect()
    });
    let mut sum = Tally::default();
    for one in done {
        match one {
            Ok(tally) => sum = sum.and(tally),
            Err((seed, why)) => panic!("{what:?}, seed {seed} (again: make sim SEED={seed}): {why}"),
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "{what:?}: {count} seeds from {first}, {:.0} a minute: {sum:?}",
        count as f64 / minutes
    );
    sum
}

/// One seed; a panic in it is a failure like any other.
fn run(what: What, seed: u64) -> Result<Tally, String> {
    let run = || match what {
        What::Pipeline => world::run(&Pipeline, seed),
        What::Sink => world::run(&Delivery::new(seed), seed),
    };
    std::panic::catch_unwind(run).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| {
            payload
                .downcast_ref::<&str>()
                .copied()
                .unwrap_or("it panicked")
                .to_owned()
        }))
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn fixed_seeds() {
    let tally = seeds(What::Pipeline, 0, 200);
    // A simulation in which nothing happens proves nothing.
    assert!(tally.transactions > 3_000 && tally.deaths > 300 && tally.freezes > 100 && tally.snapshots > 1_000);
    assert!(tally.nights > 200);
}

#[test]
fn fixed_seeds_of_a_sink() {
    let tally = seeds(What::Sink, 0, 200);
    assert!(tally.transactions > 3_000 && tally.deaths > 300 && tally.freezes > 100 && tally.snapshots > 1_000);
    assert!(tally.requests > 3_000 && tally.lost > 500);
}

#[test]
fn fresh_seeds() {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
    let first = 1_000_000 + (nanos as u64 >> 16) % 1_000_000_000;
    seeds(What::Pipeline, first, 200);
    seeds(What::Sink, first, 200);
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..20 {
        for what in [What::Pipeline, What::Sink] {
            assert_eq!(run(what, seed), run(what, seed), "{what:?}, seed {seed}");
        }
    }
}

#[test]
#[ignore = "make sim: as many seeds as asked for"]
fn many_seeds() {
    let seed = number("SEED");
    if seed.is_some() {
        accrue::observe::logs::init("info");
    }
    let (first, count) = match seed {
        Some(seed) => (seed, 1),
        None => (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(10_000)),
    };
    for what in [What::Pipeline, What::Sink] {
        seeds(what, first, count);
    }
}

/// The simulation finds each bug that can be switched on, within the stated number of seeds.
#[cfg(feature = "seeded-bugs")]
#[test]
fn the_net_catches_each_bug() {
    use accrue::stream::seeded::{self, Bug};

    let bugs = [
        (What::Pipeline, Bug::OffsetsBeforeChangelog, 20),
        (What::Pipeline, Bug::StoreBeforeCommit, 20),
        (What::Pipeline, Bug::RestoreStopsAtStableOffset, 600),
        (What::Pipeline, Bug::ProducerReused, 200),
        (What::Pipeline, Bug::OverlayKept, 20),
        (What::Pipeline, Bug::GenerationNotShown, 20),
        (What::Pipeline, Bug::RevocationForgotten, 400),
        (What::Pipeline, Bug::RunsUnrestored, 200),
        (What::Pipeline, Bug::RecordForgotten, 200),
        (What::Pipeline, Bug::InputForgotten, 200),
        (What::Pipeline, Bug::ResumeAssumed, 200),
        (What::Pipeline, Bug::StaleStoreKept, 400),
        (What::Pipeline, Bug::ClaimOfAnotherGivenBack, 600),
        (What::Sink, Bug::SentBeforeCommit, 50),
        (What::Sink, Bug::OrphanSentAgain, 50),
        (What::Sink, Bug::StaleRequestMade, 1_000),
        (What::Sink, Bug::StaleDecisionObeyed, 400),
    ];
    let hunt = |(what, bug, within): (What, Bug, u64)| {
        seeded::set(Some(bug));
        let found = (0..within).find_map(|seed| run(what, seed).err().map(|why| (seed, why)));
        match &found {
            Some((seed, why)) => println!("{bug:?}: found by seed {seed} of {within}: {why}"),
            None => println!("{bug:?}: not found in {within} seeds"),
        }
        (bug, found.is_some())
    };
    let hunted: Vec<(Bug, bool)> = std::thread::scope(|scope| {
        let hunters: Vec<_> = bugs.into_iter().map(|bug| scope.spawn(move || hunt(bug))).collect();
        hunters
            .into_iter()
            .map(|hunter| hunter.join().expect("hunter"))
            .collect()
    });
    let missed: Vec<Bug> = hunted
        .into_iter()
        .filter(|(_, found)| !found)
        .map(|(bug, _)| bug)
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
