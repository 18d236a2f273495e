//! What is set for an Oracle Fusion ledger, and what Oracle says of its own limits.
//!
//! Source: <https://docs.oracle.com/en/cloud/saas/financials/24d/farfa/Importing_Financials_Data.html> (the import and its
//! job). Oracle states no quota and no longest time for a job.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{OracleSystem, Secret};
use crate::sink::accounting::http::Url;
use crate::sink::accounting::{address, looked_up_after};
use crate::sink::courier::LONGEST_REQUEST;
use crate::sink::destination::{Certainty, Limits};

/// Imports run one after another on the scheduler; more at once only wait there.
pub const LIMITS: Limits = Limits {
    in_flight: 2,
    per_minute: None,
    per_day: None,
};

/// A job whose number we know is asked about, however long it takes. This time, ours, is for the case that even the number
/// was lost.
pub const CERTAINTY: Certainty = Certainty::LookUp {
    after: Duration::from_secs(60 * 60),
};

/// What separates columns and rows of the import file and the parameters of its job.
pub(super) const SEPARATORS: [char; 4] = [',', '"', '\n', '\r'];

/// One ledger.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://POD.fa.REGION.oraclecloud.com`.
    pub url: Url,
    pub user: String,
    pub password: Secret,
    pub ledger_id: u64,
    pub data_access_set_id: u64,
    /// Journal source and category, as Oracle shows them.
    pub source: String,
    pub category: String,
    /// Where the numbers of jobs are kept until they have ended.
    pub jobs_dir: PathBuf,
    pub timeout: Duration,
    /// How often, and for how long, a job is asked about before the delivery is told that it is not known yet.
    pub poll_every: Duration,
    pub poll_for: Duration,
    pub certainty: Certainty,
}

impl Settings {
    /// # Errors
    /// The address is none; source or category hold what separates columns; a job would be asked about for longer than a
    /// request may take.
    pub fn of(system: &OracleSystem) -> Result<Settings, String> {
        for (key, text) in [("source", &system.source), ("category", &system.category)] {
            if text.contains(SEPARATORS) {
                return Err(format!(
                    "oracle.{key} {text:?} holds a comma, a quote or a line's end, which Oracle's import takes for its own"
                ));
            }
        }
        if system.poll_for.get() + system.poll_every.get() >= LONGEST_REQUEST {
            let longest = LONGEST_REQUEST.as_secs();
            return Err(format!(
                "oracle.poll_for and poll_every together must be below {longest}s, after which a request is given up"
            ));
        }
        Ok(Settings {
            url: address(&system.url)?,
            user: system.user.clone(),
            password: system.password.clone(),
            ledger_id: system.ledger_id,
            data_access_set_id: system.data_access_set_id,
            source: system.source.clone(),
            category: system.category.clone(),
            jobs_dir: system.jobs_dir.clone(),
            timeout: system.timeout.get(),
            poll_every: system.poll_every.get(),
            poll_for: system.poll_for.get(),
            certainty: looked_up_after(CERTAINTY, system.look_up_after),
        })
    }
}
