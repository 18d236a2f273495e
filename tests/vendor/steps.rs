//! `accrue sink`, killed around every kind of write. Where it dies follows from what the system does with one write, so that
//! every step is met and none by chance.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use accrue::sandbox::{Fault, Sandbox, Script};

use super::worker::{accrue, done};

/// Where a worker dies.
pub const STEPS: [&str; 4] = [
    "before it is taken",
    "after it is taken",
    "taken after the death",
    "among answers",
];
/// Lives of the worker before the one that may finish.
const LIVES: usize = 20;
/// How long a worker may take to its next write: what an earlier one left in doubt is tried again later each time.
const PATIENCE: Duration = Duration::from_secs(30);

/// `speed`: how fast the system's clock runs.
fn fault(step: usize, speed: u32) -> Option<Fault> {
    match step {
        0 => Some(Fault::Hang),
        1 => Some(Fault::CommitThenHang),
        // A second, or half of one.
        2 => Some(Fault::HangThenCommit {
            after_seconds: u64::from(speed / 2).max(1),
        }),
        _ => None,
    }
}

/// Kills the sink of the system's name, then lets it finish. Returns how often it died where.
pub fn kill_and_finish(dir: &Path, sandbox: &Sandbox, name: &str, speed: u32) -> [u32; 4] {
    let mut died = [0; 4];
    for life in 0..LIVES {
        let step = life % STEPS.len();
        if let Some(fault) = fault(step, speed) {
            sandbox.misbehave(name, Script::once(fault));
        }
        let before = sandbox.writes(name);
        let mut child = accrue(dir, &["sink", name, "--until-idle"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while sandbox.writes(name) == before && child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Among answers: a little later each time, so that receipts are staged, committed and about to be.
        let later = if step == 3 {
            15 * (life / STEPS.len()) as u64
        } else {
            10
        };
        std::thread::sleep(Duration::from_millis(later));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            died[step] += u32::from(sandbox.writes(name) > before);
        }
        child.wait().unwrap();
    }
    done(accrue(dir, &["sink", name, "--until-idle"]));
    assert!(
        died.iter().all(|times| *times >= 3),
        "{name}: {died:?}: the test proves nothing"
    );
    died
}
