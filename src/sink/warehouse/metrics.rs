//! Figures of a worker, and whether it works.
//!
//! Invariant: labels are a kind and a name of the topology, never a table's content. Absent: the time since the last
//! commit; whoever asks subtracts, so that it grows also while the worker hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::{IntCounter, IntGauge, Opts, Registry};

/// The collectors; clones share them. `kind` is `warehouse` or `budget`.
#[derive(Clone)]
pub struct Metrics {
    /// `accrue_KIND_rows_total{name}`: rows written; a row written again counts again.
    pub(super) rows: IntCounter,
    /// `accrue_KIND_commits_total{name}`
    pub(super) commits: IntCounter,
    /// `accrue_KIND_unfit_records_total{name}`: records that were left out; each is in the log.
    pub(super) unfit: IntCounter,
    /// `accrue_KIND_restarts_total{name}`: sessions that ended early: the destination was away, or another worker wrote.
    pub(super) restarts: IntCounter,
    /// `accrue_KIND_last_commit_timestamp_seconds{name}`: seconds since 1970; 0 before the first.
    pub(super) last_commit: IntGauge,
    /// `accrue_KIND_lag_records{name}`: offsets between what is read and the ends of the topics, of all partitions.
    pub(super) lag: IntGauge,
    working: Arc<AtomicBool>,
}

impl Metrics {
    pub fn new(registry: &Registry, kind: &str, name: &str) -> Result<Metrics, prometheus::Error> {
        let opts = |what: &str, help: &str| Opts::new(format!("accrue_{kind}_{what}"), help).const_label("name", name);
        let counter = |what: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::with_opts(opts(what, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |what: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::with_opts(opts(what, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Metrics {
            rows: counter("rows_total", "rows written")?,
            commits: counter("commits_total", "commits")?,
            unfit: counter("unfit_records_total", "records that fit no table")?,
            restarts: counter("restarts_total", "sessions that ended early")?,
            last_commit: gauge("last_commit_timestamp_seconds", "time of the last commit")?,
            lag: gauge("lag_records", "offsets that are not read yet")?,
            working: Arc::default(),
        })
    }

    pub(super) fn set_working(&self, working: bool) {
        self.working.store(working, Ordering::SeqCst);
    }

    /// Whether the destination has answered and nothing has failed since.
    pub fn is_working(&self) -> bool {
        self.working.load(Ordering::SeqCst)
    }
}
