//! Journals as files: one for each document, and a manifest that says which are there.
//!
//! ```text
//! DIR/TENANT/manifest.jsonl          one line for each document: key, file, SHA-256, entries
//! DIR/TENANT/documents/KEY.journal   (.beancount, .csv)
//! DIR/TENANT/ledger.journal          declares the accounts and includes the documents (.beancount; none for CSV)
//! ```
//!
//! Invariant: a document is there when its line is in the manifest, and its file is complete before the line is
//! written. A file without a line is what a crash left; it is written again. A line cut short is taken off.
//! Absent: deleting and changing documents; books are corrected by further entries.

mod format;
mod manifest;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::manifest::{Manifests, Place, Wrote};
use crate::config::{Accounts, FileFormat, FileSystem};
use crate::sink::accounting::http::sha256_hex;
use crate::sink::destination::{
    Acknowledgement, Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries,
};
use crate::sink::document::{Document, Key};

/// A folder that documents are written to.
pub struct Folder {
    format: FileFormat,
    manifests: Arc<Manifests>,
}

impl Folder {
    /// # Errors
    /// The folder cannot be made or written to.
    pub fn open(system: &FileSystem, accounts: &Accounts) -> io::Result<Folder> {
        std::fs::create_dir_all(&system.dir)?;
        Ok(Folder {
            format: system.format,
            manifests: Arc::new(Manifests::new(system.dir.clone(), system.format, accounts.clone())),
        })
    }

    /// Runs file work off the asynchronous threads.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manifests) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let manifests = self.manifests.clone();
        match tokio::task::spawn_blocking(move || work(&manifests)).await {
            Ok(done) => done,
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Destination for Folder {
    fn certainty(&self) -> Certainty {
        // Lines are appended under the manifest's lock, and a key that is listed is not listed again: a writer that comes
        // late finds the line of its successor.
        Certainty::LookUp {
            after: Duration::from_secs(1),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            // They take turns at the manifest; this many make good use of one commit.
            in_flight: 64,
            per_minute: None,
            per_day: None,
        }
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        let body = format::body(self.format, document)?;
        Ok(Plan {
            form: document.form,
            reference: Place::of(&document.tenant, &document.key, self.format).file(),
            body: body.into_bytes(),
        })
    }

    fn send<'a>(&'a self, key: &'a Key, plan: &'a Plan, _tries: &'a Tries) -> Answer<'a, Outcome> {
        let (key, plan) = (key.clone(), plan.clone());
        Box::pin(async move {
            let wrote = self
                .work(move |manifests| manifests.write(&place(&plan)?, &key, plan.form, &plan.body))
                .await;
            match wrote {
                Ok(Wrote::Now(file) | Wrote::Before(file)) => Outcome::Acknowledged(acknowledgement(file)),
                Ok(Wrote::Other(file)) => Outcome::Refused(Refusal {
                    code: "different_content".to_owned(),
                    words: String::new(),
                    advice: format!(
                        "{file} was written under this key with another content. Compare the two; if the file is right, cancel the delivery"
                    ),
                }),
                // What was begun and not finished is not in the manifest, unless the last step failed.
                Err(error) => Outcome::Uncertain(format!("writing the file: {error}")),
            }
        })
    }

    fn look_up<'a>(&'a self, key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        let (key, plan) = (key.clone(), plan.clone());
        let planned = sha256_hex(&plan.body);
        Box::pin(async move {
            match self.work(move |manifests| manifests.find(&place(&plan)?, &key)).await {
                Ok(Some((file, sha256))) if sha256 == planned => Found::Same(acknowledgement(file)),
                Ok(Some((file, _))) => Found::Different {
                    external_id: file,
                    what: "the file's SHA-256".to_owned(),
                },
                Ok(None) => Found::Nothing,
                Err(error) => Found::Unknown(format!("reading the manifest: {error}")),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move {
            self.work(|manifests| manifests.writable())
                .await
                .map_err(|error| format!("the folder cannot be written to: {error}"))
        })
    }
}

fn place(plan: &Plan) -> io::Result<Place> {
    Place::parse(&plan.reference).ok_or_else(|| io::Error::other(format!("{:?} is no document's file", plan.reference)))
}

fn acknowledgement(file: String) -> Acknowledgement {
    Acknowledgement {
        response_digest: sha256_hex(file.as_bytes()),
        external_id: file,
    }
}
