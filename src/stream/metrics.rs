//! Figures of the runtime, named as Kafka Streams names them where it has the figure.
//!
//! Owns: the collectors and their registration.
//! Invariant: labels are bounded (stages, codes, threads), never keys or ids.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The runtime's collectors; clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// `accrue_stream_process_total{stage}`: records processed, dead letters included.
    pub processed: IntCounterVec,
    /// `accrue_stream_dead_letters_total{stage,code}`.
    pub dead_letters: IntCounterVec,
    /// `accrue_stream_commit_latency_seconds`: from the first changelog record to the store write.
    pub commit_latency: Histogram,
    /// `accrue_stream_commit_total`.
    pub commits: IntCounter,
    /// `accrue_stream_faults_total{kind}`: aborts, fencings, corrupted stores, waits.
    pub faults: IntCounterVec,
    /// `accrue_stream_restore_records_total{stage}`.
    pub restored: IntCounterVec,
    /// `accrue_stream_tasks{state}`: tasks of this process, restoring, running or standby.
    pub tasks: IntGaugeVec,
    /// `accrue_stream_standby_offsets_left`: changelog offsets that the standbys of this process have still to pass.
    pub standby_left: IntGauge,
    /// `accrue_stream_records_lag{application,topic}`: records that are still to be processed, of all its processes.
    pub lag: IntGaugeVec,
    /// `accrue_stream_record_e2e_latency_seconds{stage}`: from a record's timestamp until it was processed (KIP-613).
    pub e2e_latency: HistogramVec,
    /// `accrue_stream_turn_age_seconds`: since when the slowest stream thread has not come round.
    pub turn_age: IntGauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(format!("accrue_stream_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let commits = IntCounter::new("accrue_stream_commit_total", "transactions committed")?;
        registry.register(Box::new(commits.clone()))?;
        let commit_latency = Histogram::with_opts(
            HistogramOpts::new(
                "accrue_stream_commit_latency_seconds",
                "time from the first changelog record of a commit to the store write",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ]),
        )?;
        registry.register(Box::new(commit_latency.clone()))?;
        let tasks = IntGaugeVec::new(
            Opts::new("accrue_stream_tasks", "tasks of this process by state"),
            &["state"],
        )?;
        registry.register(Box::new(tasks.clone()))?;
        let standby_left = IntGauge::new(
            "accrue_stream_standby_offsets_left",
            "changelog offsets that the standbys of this process have still to pass",
        )?;
        registry.register(Box::new(standby_left.clone()))?;
        let turn_age = IntGauge::new(
            "accrue_stream_turn_age_seconds",
            "seconds since the slowest stream thread came round; the process ends itself at its limit",
        )?;
        registry.register(Box::new(turn_age.clone()))?;
        let lag = IntGaugeVec::new(
            Opts::new(
                "accrue_stream_records_lag",
                "records that an application has still to process, for all its processes together",
            ),
            &["application", "topic"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        let e2e_latency = HistogramVec::new(
            HistogramOpts::new(
                "accrue_stream_record_e2e_latency_seconds",
                "time from a record's timestamp until it was processed",
            )
            .buckets(vec![0.05, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0]),
            &["stage"],
        )?;
        registry.register(Box::new(e2e_latency.clone()))?;
        Ok(Metrics {
            processed: counters("process_total", "records processed", &["stage"])?,
            dead_letters: counters(
                "dead_letters_total",
                "records sent to the dead letters",
                &["stage", "code"],
            )?,
            faults: counters("faults_total", "faults handled, by what was done", &["kind"])?,
            restored: counters("restore_records_total", "changelog records restored", &["stage"])?,
            commits,
            commit_latency,
            tasks,
            standby_left,
            lag,
            e2e_latency,
            turn_age,
        })
    }
}
