//! A run: processes that work, die, freeze and come back, under a seed; then peace, in which all must drain.
//!
//! Owns: the processes, the schedule, time. Invariant: a run is a function of its seed (and of the bug that is on).
//! Absent: what must hold; `checks.rs` says.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use accrue::stream::app::{App, RuntimeConfig};
use accrue::stream::budget::Budget;
use accrue::stream::log::{DELETIONS_KEPT, Log};
use accrue::stream::metrics::Metrics;
use accrue::stream::processor::Processor;
use accrue::stream::record::{Outgoing, Timestamp};
use accrue::stream::store::StoreHome;
use accrue::stream::thread::{Now, StreamThread};
use accrue::stream::topology::Topology;

use super::broker::Broker;
use super::checks::{self, Snapshot};
use super::client::{Died, SimLog, Trouble};
use super::rng::Rng;
use super::scene::{self, Scene};
use super::shaky::Shaky;

/// Rounds of all threads within which everything must be drained once faults are off: of the pipeline about a minute of
/// simulated time, four times the longest timeout.
const PEACE: usize = 300;

/// What a run did, for the report.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Tally {
    pub transactions: usize,
    pub deaths: usize,
    pub freezes: usize,
    pub snapshots: usize,
    pub nights: usize,
    /// Requests to a system outside, and those whose answers were lost.
    pub requests: u64,
    pub lost: u64,
    /// Of all that was written, so that two runs of a seed can be compared.
    pub digest: u64,
}

impl Tally {
    /// Two runs together.
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            transactions: self.transactions + other.transactions,
            deaths: self.deaths + other.deaths,
            freezes: self.freezes + other.freezes,
            snapshots: self.snapshots + other.snapshots,
            nights: self.nights + other.nights,
            requests: self.requests + other.requests,
            lost: self.lost + other.lost,
            digest: self.digest ^ other.digest,
        }
    }
}

struct Process {
    number: usize,
    static_member: bool,
    standbys: bool,
    threads: usize,
    home: StoreHome,
    running: Option<Running>,
}

struct Running {
    app: Arc<App>,
    log: SimLog,
    threads: Vec<(StreamThread, Duration)>,
    /// Last, so that requests are given up when nobody waits for them any more.
    process: scene::Process,
}

struct World<'a> {
    scene: &'a dyn Scene,
    rng: Rng,
    log: SimLog,
    trouble: Arc<Mutex<Trouble>>,
    processes: Vec<Process>,
    feed: VecDeque<Outgoing>,
    snapshots: Vec<Snapshot>,
    tally: Tally,
}

/// Runs one seed of a scene.
///
/// # Errors
/// What did not hold.
pub fn run(scene: &dyn Scene, seed: u64) -> Result<Tally, String> {
    let mut world = World::new(scene, seed);
    world.storm()?;
    world.peace()?;
    world.close();
    world.tally.snapshots = world.snapshots.len();
    world.tally.transactions = world.log.broker().history.len();
    world.tally.digest = world.log.broker().digest();
    checks::run(scene.shape(), &world.log.broker(), &world.snapshots)?;
    scene.check(&world.log, &mut world.tally)?;
    Ok(world.tally)
}

impl<'a> World<'a> {
    fn new(scene: &'a dyn Scene, seed: u64) -> World<'a> {
        let mut rng = Rng::new(seed);
        let feed = scene.feed(&mut rng);
        // Each seed has its own weather: some kinds of trouble much, some never.
        let mut often = |most: u64| if rng.chance(30) { 0 } else { rng.below(most) };
        let calm = scene.pace().calm;
        let trouble = Arc::new(Mutex::new(Trouble {
            fails: often(40) / calm,
            dies: often(8) / calm,
            unknown: often(60),
        }));
        let mut broker = Broker::new(Rng::new(seed ^ 0x5eed));
        broker.slow_markers = [0, 30, 90][rng.below(3) as usize];
        broker.marker_pace = [50, 8, 2][rng.below(3) as usize];
        scene.topics().iter().for_each(|spec| broker.create(spec));
        let processes = (0..2 + rng.below(2) as usize).map(|number| Process {
            number,
            static_member: rng.chance(50),
            standbys: rng.chance(50),
            threads: 1 + rng.below(2) as usize,
            home: StoreHome::memory(),
            running: None,
        });
        World {
            scene,
            processes: processes.collect(),
            log: SimLog::new(Arc::new(Mutex::new(broker)), trouble.clone()),
            trouble,
            rng,
            feed,
            snapshots: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn storm(&mut self) -> Result<(), String> {
        let calm = self.scene.pace().calm;
        let mut often = |most: u64| self.rng.below(most) / calm;
        let (crashes, freezes, stops, nights) = (often(20), often(15), often(15), often(6));
        // The CRM goes on to talk until shortly before the end.
        let steps = self.scene.pace().storm_steps;
        let pace = (self.feed.len() * 1_200 / steps) as u64;
        for step in 0..steps {
            if step % 50 == 0 && !self.log.broker().is_busy() {
                self.people()?;
            }
            let most_ms = if self.rng.chance(2) {
                4_000
            } else {
                self.scene.pace().storm_ms
            };
            self.pass(most_ms);
            if self.rng.rarely(nights) {
                // Who runs sleeps, who does not is away: and compaction forgets deletions meanwhile.
                self.log.broker().now += DELETIONS_KEPT;
                self.tally.nights += 1;
            }
            if self.rng.rarely(pace) {
                self.feed(1);
            }
            let number = self.rng.below(self.processes.len() as u64) as usize;
            if self.processes[number].running.is_none() {
                if self.rng.chance(15) {
                    self.start(number)?;
                }
                continue;
            }
            if self.rng.rarely(crashes) {
                self.kill(number);
            } else if self.rng.rarely(freezes) {
                self.tally.freezes += 1;
                let vital = &self.processes[number].running.as_ref().ok_or("no process")?.log.vital;
                let flag = if self.rng.chance(50) { &vital.frozen } else { &vital.cut };
                flag.fetch_xor(true, Ordering::SeqCst);
            } else if self.rng.rarely(stops) {
                self.stop(number)?;
            } else {
                self.turn(number)?;
            }
        }
        Ok(())
    }

    /// Faults end, everything runs: all that was said must be processed, and nothing may hang.
    fn peace(&mut self) -> Result<(), String> {
        *self.trouble.lock().map_err(|_| "trouble")? = Trouble::default();
        self.scene.peace();
        self.log.broker().marker_pace = 100;
        self.feed(usize::MAX);
        for _ in 0..PEACE {
            self.pass(self.scene.pace().peace_ms);
            for number in 0..self.processes.len() {
                match &self.processes[number].running {
                    None => self.start(number)?,
                    Some(running) => {
                        running.log.vital.frozen.store(false, Ordering::SeqCst);
                        running.log.vital.cut.store(false, Ordering::SeqCst);
                    }
                }
                let threads = self.processes[number].threads;
                (0..threads).try_for_each(|thread| self.turn_thread(number, thread))?;
            }
            if self.log.broker().is_busy() {
                // What is committed can be read only up to the first open transaction.
                continue;
            }
            self.people()?;
            if checks::is_drained(self.scene.shape(), &self.log.broker()) && self.scene.left(&self.log).is_none() {
                return Ok(());
            }
        }
        Err(format!(
            "not drained in peace: {} {}",
            checks::left(self.scene.shape(), &self.log.broker()),
            self.scene.left(&self.log).unwrap_or_default()
        ))
    }

    /// Their tools may die like any other process.
    fn people(&self) -> Result<(), String> {
        let log = self.log.of_another_process();
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.scene.people(&log))) {
            Ok(done) => done,
            Err(payload) if payload.is::<Died>() => Ok(()),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    fn pass(&mut self, most_ms: u64) {
        let ms = self.rng.below(most_ms) + 1;
        let mut broker = self.log.broker();
        broker.now += Duration::from_millis(ms);
        broker.background();
        self.scene.pass(broker.now);
    }

    fn feed(&mut self, most: usize) {
        let count = most.min(self.feed.len());
        let mut broker = self.log.broker();
        self.feed.drain(..count).for_each(|record| broker.append(record));
    }

    fn start(&mut self, number: usize) -> Result<(), String> {
        let process = &mut self.processes[number];
        if self.rng.chance(5) {
            // The disk is gone too.
            process.home = StoreHome::memory();
        }
        let log = self.log.of_another_process();
        let config = RuntimeConfig {
            threads: process.threads,
            state_dir: PathBuf::from("state"),
            memory: Budget::of(0),
            commit_interval: Duration::from_millis([50, 400][self.rng.below(2) as usize]),
            max_records_per_commit: 1 + self.rng.below(12) as usize,
            overlay_max_bytes: 1 << 20,
            ask_ends_after: Duration::from_millis(50),
            restore_threads: 0,
            standbys: process.standbys,
            instance: process.static_member.then(|| format!("p{number}")),
        };
        let of_process = self.scene.process(&log)?;
        let topology = shaky(&of_process.topology, &log);
        let app = app(topology, &log, config, process.home.clone(), number)?;
        let app = Arc::new(app);
        let threads = (0..process.threads).map(|index| (StreamThread::new(app.clone(), index), Duration::ZERO));
        process.running = Some(Running {
            threads: threads.collect(),
            app,
            log,
            process: of_process,
        });
        Ok(())
    }

    fn turn(&mut self, number: usize) -> Result<(), String> {
        let thread = self.rng.below(self.processes[number].threads as u64) as usize;
        self.turn_thread(number, thread)
    }

    fn turn_thread(&mut self, number: usize, thread: usize) -> Result<(), String> {
        let now = self.log.broker().now;
        let process = &mut self.processes[number];
        let Some(running) = &mut process.running else {
            return Ok(());
        };
        if running.log.vital.frozen.load(Ordering::SeqCst) {
            return Ok(());
        }
        running.process.go_on();
        let (stream, not_before) = &mut running.threads[thread];
        if now < *not_before {
            return Ok(());
        }
        match std::panic::catch_unwind(AssertUnwindSafe(|| stream.turn(moment(now)))) {
            Ok(Ok(wait)) => {
                *not_before = now + wait;
                Ok(())
            }
            Ok(Err(fault)) => Err(format!("process {number} ended: {fault}")),
            Err(payload) if payload.is::<Died>() => {
                self.kill(number);
                Ok(())
            }
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// `kill -9`: what is on disk stays, nobody says goodbye.
    fn kill(&mut self, number: usize) {
        self.tally.deaths += 1;
        let process = &mut self.processes[number];
        let Some(running) = process.running.take() else { return };
        running.log.vital.dead.store(true, Ordering::SeqCst);
        let tasks = running.app.tasks();
        drop(running);
        let decided = self.log.broker().history.len();
        let taken = checks::snapshots(self.scene.shape(), &process.home, process.number, &tasks, decided);
        self.snapshots.extend(taken);
    }

    /// SIGTERM: the last commit, then the group is left.
    fn stop(&mut self, number: usize) -> Result<(), String> {
        let now = self.log.broker().now;
        let Some(mut running) = self.processes[number].running.take() else {
            return Ok(());
        };
        for (stream, _) in &mut running.threads {
            match std::panic::catch_unwind(AssertUnwindSafe(|| stream.finish(moment(now)))) {
                Ok(Ok(_)) => {}
                Ok(Err(fault)) => return Err(format!("process {number} did not stop cleanly: {fault}")),
                Err(payload) if payload.is::<Died>() => break,
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        for number in 0..self.processes.len() {
            self.kill(number);
        }
    }
}

/// A time of the simulation.
pub fn moment(now: Duration) -> Now {
    Now {
        since_start: now,
        wall: Timestamp(1_767_225_600_000 + now.as_millis() as i64),
    }
}

/// The topology, with stages that fail now and then.
fn shaky(topology: &Topology, log: &SimLog) -> Topology {
    let mut topology = topology.clone();
    for factory in &mut topology.processors {
        let (inner, log) = (factory.clone(), log.clone());
        *factory = Arc::new(move || -> Box<dyn Processor> {
            Box::new(Shaky {
                inner: inner(),
                log: log.clone(),
            })
        });
    }
    topology
}

/// An application over a log.
pub fn app(
    topology: Topology,
    log: &SimLog,
    config: RuntimeConfig,
    home: StoreHome,
    number: usize,
) -> Result<App, String> {
    let metrics = Metrics::new(&prometheus::Registry::new()).map_err(|error| error.to_string())?;
    let log: Arc<dyn Log> = Arc::new(log.clone());
    App::new(topology, log, config, metrics, home, format!("p{number}")).map_err(|fault| fault.to_string())
}
