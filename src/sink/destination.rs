//! What a system outside must offer, and what its answers mean to the delivery.
//!
//! Owns: [`Destination`], implemented once for each system, and the few outcomes an external write can have.
//! Invariant: an outcome other than [`Outcome::Uncertain`] and [`Outcome::Taken`] is known. An implementation answers `Uncertain` whenever the
//! request may have reached the system and its effect is not known: a timeout, a lost connection after sending, a 5xx
//! without a documented meaning, a reply that cannot be read.
//! Absent: retries, waiting, order, receipts; those are the worker's.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::document::{Document, Form, Key};

/// An answer to come.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A system that documents are written to.
pub trait Destination: Send + Sync {
    /// How the system lets a writer be sure. Without any way, an uncertain write is parked, never guessed at.
    fn certainty(&self) -> Certainty;

    /// How much may be asked of the system.
    fn limits(&self) -> Limits;

    /// What would be sent. Pure: the same document gives the same bytes.
    ///
    /// # Errors
    /// The system could never take this document, for a reason a person can mend.
    fn plan(&self, document: &Document) -> Result<Plan, Refusal>;

    /// Writes.
    fn send<'a>(&'a self, key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome>;

    /// Looks for a document of this key, once [`Certainty::LookUp::after`] has passed since the last try.
    fn look_up<'a>(&'a self, key: &'a Key, plan: &'a Plan) -> Answer<'a, Found>;

    /// A harmless request that shows whether the system serves again: the circuit breaker's probe.
    fn probe(&self) -> Answer<'_, Result<(), String>>;
}

/// What is sent, durable before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub form: Form,
    /// The text under which the document can be found again in the system, such as its reference or number.
    pub reference: String,
    /// The body of the request, byte for byte.
    pub body: Vec<u8>,
}

/// What earlier tries have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How often it was made anew after a refusal, with the cause corrected. A system that repeats its answer to a key
    /// would repeat the refusal: it gets the key of the round ([`Key::of_round`]).
    pub round: u64,
    /// What [`Found::Unfinished`] found.
    pub resume: Option<String>,
}

/// How a writer can know what became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The system recognises the key for at least this long and answers a repetition with the first result. After that
    /// time the document is looked up, if the system can: `look_up_after` as below.
    Key {
        remembered: Duration,
        look_up_after: Option<Duration>,
    },
    /// The document can be found by its reference, once this time has passed: the longest time after which a request
    /// whose answer was lost may still take effect.
    LookUp { after: Duration },
    /// Neither.
    None,
}

/// A system's limits; the worker also heeds [`Outcome::Throttled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub in_flight: usize,
    pub per_minute: Option<u32>,
    pub per_day: Option<u32>,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged(Acknowledgement),
    /// Will not change by itself.
    Refused(Refusal),
    /// Not written; the system asks for patience.
    Throttled {
        retry_after: Option<Duration>,
    },
    /// Not written, for certain: the request never left, or the system says that it did nothing.
    Unavailable(String),
    /// Perhaps written.
    Uncertain(String),
    /// The system has a document of this number or key: ours from an earlier try, or another. Only a look can tell.
    Taken(String),
}

/// The system has the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The system's own name for it.
    pub external_id: String,
    /// SHA-256 of the reply, in hexadecimal.
    pub response_digest: String,
}

/// A refusal that a person must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for counting: `snake_case`.
    pub code: String,
    /// The system's own words, without secrets; empty when the refusal is ours.
    pub words: String,
    /// What it means and what to correct.
    pub advice: String,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The document, with the content that was planned.
    Same(Acknowledgement),
    /// A document under this reference whose content differs: a person decides.
    Different {
        external_id: String,
        what: String,
    },
    /// The document, begun and not completed (a draft): sending again resumes it.
    Unfinished {
        external_id: String,
    },
    /// More than one document under this reference.
    Several(Vec<String>),
    Nothing,
    /// The system asks for patience: look again then.
    Throttled {
        retry_after: Option<Duration>,
    },
    /// The look-up itself failed: look again.
    Unknown(String),
}
