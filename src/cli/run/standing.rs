//! Figures of the books, read from the stores when somebody asks for `/metrics`.
//!
//! Owns: their names. Invariant: a partition has a figure while its task runs here, and no longer.
//! Absent: tenants and deals as labels, which nothing bounds.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::pipeline::queries::Contracts;
use crate::stream::app::App;

/// See the module.
pub struct Standing {
    app: Arc<App>,
    contracts: Arc<Contracts>,
    /// `accrue_books_clock_timestamp_seconds{partition}`: midnight (UTC) of the day up to which the clock was said, of the
    /// tenant that is furthest behind.
    clock: IntGaugeVec,
    /// `accrue_books_waiting_contracts{partition}`
    waiting: IntGaugeVec,
}

impl Standing {
    /// # Errors
    /// Never, as the names stand.
    pub fn new(app: Arc<App>, contracts: Arc<Contracts>) -> Result<Standing, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["partition"]);
        Ok(Standing {
            app,
            contracts,
            clock: gauge(
                "accrue_books_clock_timestamp_seconds",
                "the day up to which the clock was said, of the tenant furthest behind",
            )?,
            waiting: gauge(
                "accrue_books_waiting_contracts",
                "contracts that wait for an exchange rate, and post nothing meanwhile",
            )?,
        })
    }

    fn look(&self) {
        self.clock.reset();
        self.waiting.reset();
        for task in Contracts::tasks(&self.app) {
            let standing = match self.contracts.standing(&self.app, &task) {
                None => continue,
                Some(Err(why)) => {
                    tracing::warn!(%task, %why, "no figures of the books");
                    continue;
                }
                Some(Ok(standing)) => standing,
            };
            let partition = [task.partition.to_string()];
            self.waiting.with_label_values(&partition).set(standing.waiting as i64);
            let midnight = |day: Date| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok();
            if let Some(midnight) = standing.clock.and_then(midnight) {
                self.clock.with_label_values(&partition).set(midnight.as_second());
            }
        }
    }
}

impl Collector for Standing {
    fn desc(&self) -> Vec<&Desc> {
        [&self.clock, &self.waiting]
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        [&self.clock, &self.waiting]
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
