//! Figures of delivery.
//!
//! Invariant: labels are sinks and words of ours, never keys, ids or a system's words.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The collectors; clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// `accrue_sink_deliveries_total{sink,outcome}`: receipts by outcome.
    pub settled: IntCounterVec,
    /// `accrue_sink_answers_total{sink,answer}`: answers of the destination, by what they were.
    pub answers: IntCounterVec,
    /// `accrue_sink_documents{sink,partition,state}`: documents at the head of their deal: active or parked.
    pub documents: IntGaugeVec,
    /// `accrue_sink_oldest_seconds{sink,partition}`: time since the oldest source event of what has no receipt yet; 0 without
    /// any. What is never delivered breaches no promise by a receipt: this shows it.
    pub oldest: IntGaugeVec,
    /// `accrue_sink_breaker_open{sink}`: 1 while nothing is sent.
    pub breaker: IntGaugeVec,
    /// `accrue_sink_event_to_ledger_seconds{sink}`: from the source event to the receipt.
    pub latency: HistogramVec,
    /// `accrue_sink_sla_breaches_total{sink}`: receipts that took longer than promised.
    pub breaches: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(format!("accrue_sink_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(format!("accrue_sink_{name}"), help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let latency = HistogramVec::new(
            HistogramOpts::new(
                "accrue_sink_event_to_ledger_seconds",
                "time from the source event to the receipt",
            )
            .buckets(vec![
                0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0,
            ]),
            &["sink"],
        )?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Metrics {
            settled: counters("deliveries_total", "receipts, by outcome", &["sink", "outcome"])?,
            answers: counters("answers_total", "answers of the destination", &["sink", "answer"])?,
            documents: gauges(
                "documents",
                "documents at the head of their deal",
                &["sink", "partition", "state"],
            )?,
            oldest: gauges(
                "oldest_seconds",
                "time since the oldest source event of what has no receipt yet",
                &["sink", "partition"],
            )?,
            breaker: gauges("breaker_open", "1 while nothing is sent", &["sink"])?,
            latency,
            breaches: counters("sla_breaches_total", "receipts later than promised", &["sink"])?,
        })
    }
}
