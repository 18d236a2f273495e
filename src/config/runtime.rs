//! `[runtime]`, `[state]` and `[http]`: how much, how often, where.
//!
//! These sections need no second form: each key is valid by itself, and what is read is what is used. Every bound has
//! its unit in its name or its value. Absent on purpose: settings that no code reads.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::leaf::{HttpUrl, Listen, Secret};
use super::measure::{ByteSize, Interval};
use super::problem::{KeyPath, Problems};

/// Threads, commits and partitions of the stream processor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Stream threads of one process. More threads than partitions stay idle.
    #[schemars(range(min = 1, max = 64))]
    pub threads: u16,
    /// Longest time between two commits: what a crash makes the processor do again. When nothing waits to be processed, a
    /// commit comes after a fifth of it.
    pub commit_interval: Interval,
    /// A commit comes early after this many records.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_records_per_commit: u32,
    /// A commit comes early when the uncommitted writes of a thread reach this size, or their part of
    /// `state.memory_budget`.
    pub overlay_max_bytes: ByteSize,
    /// Partitions of the topics `accrue apply` creates. All records of a deal are in one partition, so this cannot
    /// change once there is data.
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: u16,
    /// Replicas of the topics `accrue apply` creates. Without it, the cluster's own default.
    #[schemars(range(min = 1, max = 32))]
    pub replication_factor: Option<u16>,
    /// The broker aborts a transaction that is open for longer. Must be shorter than `session_timeout`, so that a
    /// process that lost its partitions cannot still commit, and longer than `commit_interval`.
    pub transaction_timeout: Interval,
    /// The group takes the partitions of a process that was silent for longer.
    pub session_timeout: Interval,
    /// Threads of one process that rebuild state from changelogs, beside the stream threads.
    #[schemars(range(min = 1, max = 64))]
    pub restore_threads: u16,
    /// Whether each process also keeps up to date the state of tasks that others run, so that it takes them over without
    /// a restore. Costs the disk and the network of a full copy of the state in each process.
    pub standbys: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            threads: 1,
            commit_interval: Interval::millis(100),
            max_records_per_commit: 10_000,
            overlay_max_bytes: ByteSize::mebibytes(64),
            partitions: 6,
            replication_factor: None,
            transaction_timeout: Interval::seconds(30),
            session_timeout: Interval::seconds(45),
            restore_threads: 2,
            standbys: false,
        }
    }
}

/// The rules between the times of `[runtime]`, reported at the one that has to give way.
pub(super) fn check(runtime: &Runtime, problems: &mut Problems<'_>) {
    let at = KeyPath::of(["runtime", "transaction_timeout"]);
    let timeout = runtime.transaction_timeout;
    if timeout >= runtime.session_timeout {
        let session = runtime.session_timeout;
        problems.report(
            &at,
            format!("must be shorter than session_timeout; write less than \"{session}\""),
        );
    } else if timeout <= runtime.commit_interval {
        let commit = runtime.commit_interval;
        problems.report(
            &at,
            format!("must be longer than commit_interval; write more than \"{commit}\""),
        );
    }
}

/// A smaller budget leaves nothing to share out beside what a process takes at rest.
const LEAST_MEMORY: ByteSize = ByteSize::mebibytes(128);

/// The bounds of `[state]`.
pub(super) fn check_state(state: &State, problems: &mut Problems<'_>) {
    if state.memory_budget < LEAST_MEMORY {
        let at = KeyPath::of(["state", "memory_budget"]);
        problems.report(
            &at,
            format!("too little for a process; write at least \"{LEAST_MEMORY}\""),
        );
    }
}

/// Where state is kept, and how much memory the process may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// Folder of the state stores. Losing it costs a restore, not data.
    #[schemars(length(min = 1))]
    pub dir: PathBuf,
    /// Ceiling of the memory of one process of `accrue run` or `accrue sink` as a whole (its resident set): caches and write
    /// buffers of the stores, records that were read or wait to be written, and what a process takes at rest. At least
    /// 128MiB. The embedded log takes its own on top.
    pub memory_budget: ByteSize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            dir: "data/state".into(),
            memory_budget: ByteSize::mebibytes(512),
        }
    }
}

/// The process's own HTTP server: health, metrics, console.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port to listen on. The default is reachable from this machine only.
    pub listen: Listen,
    /// Where the other processes of the application reach this one. Without it, `listen`, or the machine's name where
    /// that is every address.
    pub advertised: Option<HttpUrl>,
    /// What a request for contracts, or one that changes the embedded registry, must show as its bearer token. Without it,
    /// contracts are served only where `listen` is an address of this machine alone, and the registry is read-only.
    pub token: Option<Secret>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: Listen(([127, 0, 0, 1], 8080).into()),
            advertised: None,
            token: None,
        }
    }
}
