//! The exchange with Oracle Fusion: submit a job, ask until it has ended, read the batch back.
//!
//! Owns: the order of requests, and the notes of jobs. Absent: what a reply means (`judge`).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::time::Instant;

use super::config::{LIMITS, Settings};
use super::judge::{self, Job};
use super::request;
use crate::sink::accounting::http::{Ask, Http, Lost, Method, Reply, below};
use crate::sink::accounting::judge as common;
use crate::sink::destination::{Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries};
use crate::sink::document::{Document, Key};

const REST: &str = "fscmRestApi/resources/11.13.18.05";

/// One ledger of Oracle Fusion.
pub struct Oracle {
    settings: Settings,
    http: Http,
}

impl Oracle {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(settings: Settings) -> Result<Oracle, reqwest::Error> {
        Ok(Oracle {
            http: Http::new(settings.timeout)?,
            settings,
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Reply, Lost> {
        let mut url = below(&self.settings.url, &format!("{REST}/{path}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let who = BASE64.encode(format!("{}:{}", self.settings.user, self.settings.password.reveal()));
        let ask = Ask {
            method,
            url,
            headers: Vec::new(),
            body: body.map(|body| ("application/vnd.oracle.adf.resourceitem+json", body.to_vec())),
        };
        self.http.exchange(&ask, &format!("Basic {who}")).await
    }

    /// Submits the import, unless a job of this document is known, and waits for its end.
    async fn import(&self, plan: &Plan, resume: Option<&str>) -> Outcome {
        let job = match resume {
            Some(job) => job.to_owned(),
            None => {
                let submitted = match self.ask(Method::POST, "erpintegrations", &[], Some(&plan.body)).await {
                    Ok(reply) => judge::submitted(&reply),
                    Err(lost) => Err(common::lost(lost)),
                };
                let job = match submitted {
                    Ok(job) => job,
                    Err(outcome) => return outcome,
                };
                if let Err(error) = self.note(&plan.reference, &job) {
                    return Outcome::Uncertain(format!("job {job} runs, but its number could not be kept: {error}"));
                }
                job
            }
        };
        let until = Instant::now() + self.settings.poll_for;
        loop {
            match self.status(&job).await {
                Ok(Job::Ended) => break,
                Ok(Job::Failed(status)) => {
                    self.forget(&plan.reference);
                    return judge::failed(&job, &status);
                }
                // It serves, and takes its time: a look soon, which goes on with the job.
                Ok(Job::Pending(status)) if Instant::now() >= until => {
                    return Outcome::Taken(format!("job {job} is still {status}"));
                }
                Err(why) if Instant::now() >= until => return Outcome::Uncertain(format!("job {job}: {why}")),
                Ok(Job::Pending(_)) | Err(_) => tokio::time::sleep(self.settings.poll_every).await,
            }
        }
        match self.batch(plan).await {
            Found::Same(there) => {
                self.forget(&plan.reference);
                Outcome::Acknowledged(there)
            }
            Found::Nothing => {
                self.forget(&plan.reference);
                judge::failed(&job, "SUCCEEDED without a batch")
            }
            Found::Throttled { .. } => {
                Outcome::Taken(format!("job {job} has ended; its batch is read when Oracle allows"))
            }
            found @ (Found::Different { .. } | Found::Unfinished { .. } | Found::Several(_) | Found::Unknown(_)) => {
                Outcome::Uncertain(format!("job {job} has ended, and its batch: {found:?}"))
            }
        }
    }

    async fn status(&self, job: &str) -> Result<Job, String> {
        let query = [("finder", &*format!("ESSJobStatusRF;requestId={job}"))];
        let reply = self
            .ask(Method::GET, "erpintegrations", &query, None)
            .await
            .map_err(|lost| lost.to_string())?;
        judge::job(&reply)
    }

    async fn batch(&self, plan: &Plan) -> Found {
        let filter = format!("BatchName LIKE '{}%'", plan.reference);
        let query = [
            ("q", filter.as_str()),
            ("expand", "journalHeaders.journalLines"),
            ("limit", "10"),
        ];
        match self.ask(Method::GET, "journalBatches", &query, None).await {
            Ok(reply) => judge::found(&reply, plan),
            Err(lost) => Found::Unknown(lost.to_string()),
        }
    }

    /// A file of the document's key, which holds the job's number.
    fn path(&self, reference: &str) -> PathBuf {
        self.settings.jobs_dir.join(reference.replace(':', "_"))
    }

    fn note(&self, reference: &str, job: &str) -> std::io::Result<()> {
        fs::create_dir_all(&self.settings.jobs_dir)?;
        let path = self.path(reference);
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(job.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.settings.jobs_dir)?.sync_all()
    }

    /// The number of the document's job; `None` where none was submitted.
    ///
    /// # Errors
    /// It cannot be told: a job may run, so nothing is to be submitted.
    fn noted(&self, reference: &str) -> Result<Option<String>, String> {
        let path = self.path(reference);
        match fs::read_to_string(&path) {
            Ok(job) if judge::is_job(&job) => Ok(Some(job)),
            Ok(_) => Err(format!("{} holds no number of a job", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!(
                "the job's number in {} cannot be read: {error}",
                path.display()
            )),
        }
    }

    /// A note that stays behind costs one question more.
    fn forget(&self, reference: &str) {
        let _ = fs::remove_file(self.path(reference));
    }
}

impl Destination for Oracle {
    fn certainty(&self) -> Certainty {
        self.settings.certainty
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        request::plan(document, &self.settings)
    }

    fn send<'a>(&'a self, _key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(self.import(plan, tries.resume.as_deref()))
    }

    fn look_up<'a>(&'a self, _key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            let job = match self.noted(&plan.reference) {
                Ok(Some(job)) => job,
                Ok(None) => return self.batch(plan).await,
                Err(why) => return Found::Unknown(why),
            };
            match self.status(&job).await {
                Ok(Job::Pending(_)) => Found::Unfinished { external_id: job },
                Ok(Job::Ended | Job::Failed(_)) => self.batch(plan).await,
                Err(why) => Found::Unknown(format!("job {job}: {why}")),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move {
            let query = [("limit", "1"), ("onlyData", "true")];
            common::probe(self.ask(Method::GET, "journalBatches", &query, None).await, "Oracle")
        })
    }
}
