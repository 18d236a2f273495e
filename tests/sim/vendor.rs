//! An accounting system, as bad as they are: it serves late, loses answers, writes what it said nothing about, leaves drafts, forgets keys,
//! throttles, refuses, and is away for a while.
//!
//! Owns: the documents it has, whoever sent them and whatever became of the sender since. Invariant: what it does follows
//! from its seed and the order of requests. It promises what [`Certainty`] says and no more: a number may be there twice, unless it has that rule too.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use accrue::sink::destination::{
    Acknowledgement, Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries,
};
use accrue::sink::document::{Document, Key};

use super::rng::Rng;

/// The longest time after which a request may still take effect.
pub const LATEST: Duration = Duration::from_secs(8);
/// How long keys are remembered, in systems that know them.
const REMEMBERED: Duration = Duration::from_secs(200);

/// A document that it has.
pub struct Written {
    pub id: String,
    pub reference: String,
    pub body: Vec<u8>,
    /// Begun, and not completed.
    pub is_draft: bool,
}

/// A request that was received, and what is to become of it.
struct Coming {
    due: Duration,
    ticket: u64,
    key: String,
    plan: Plan,
    /// The draft that it completes.
    resume: Option<String>,
    /// Whether the sender hears of it.
    answered: bool,
}

struct State {
    rng: Rng,
    now: Duration,
    certainty: Certainty,
    /// Whether it has no number twice.
    is_unique: bool,
    /// Of a hundred new documents, those that stay drafts, because what completes them is lost.
    drafts: u64,
    /// Of a thousand requests.
    loses: u64,
    throttles: u64,
    refuses: u64,
    outages: u64,
    away_until: Duration,
    documents: Vec<Written>,
    /// First effect and answer, by key.
    remembered: BTreeMap<String, (Duration, Acknowledgement)>,
    /// Keys whose answer was a refusal: it is repeated.
    refused: BTreeSet<String>,
    coming: Vec<Coming>,
    answers: BTreeMap<u64, (Duration, Outcome)>,
    requests: u64,
    lost: u64,
}

/// See the module; clones share it.
#[derive(Clone)]
pub struct Vendor(Arc<Mutex<State>>);

impl Vendor {
    pub fn new(mut rng: Rng) -> Vendor {
        let certainty = match rng.below(4) {
            0 => Certainty::Key {
                remembered: REMEMBERED,
                look_up_after: Some(LATEST),
            },
            1 => Certainty::Key {
                remembered: REMEMBERED,
                look_up_after: None,
            },
            2 => Certainty::LookUp { after: LATEST },
            _ => Certainty::None,
        };
        let mut often = |most: u64| if rng.chance(30) { 0 } else { rng.below(most) };
        let drafts = match certainty {
            Certainty::LookUp { .. } => often(60),
            Certainty::Key { .. } | Certainty::None => 0,
        };
        Vendor(Arc::new(Mutex::new(State {
            loses: often(600),
            throttles: often(200),
            refuses: often(60),
            outages: often(20),
            drafts,
            is_unique: rng.chance(30),
            rng,
            now: Duration::ZERO,
            certainty,
            away_until: Duration::ZERO,
            documents: Vec::new(),
            remembered: BTreeMap::new(),
            refused: BTreeSet::new(),
            coming: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
            lost: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("vendor")
    }

    /// What is due takes effect, at its time, whether or not anybody waits for it.
    pub fn pass(&self, now: Duration) {
        let mut state = self.state();
        state.now = now;
        let outages = state.outages;
        if state.rng.rarely(outages) {
            state.away_until = now + Duration::from_millis(state.rng.below(8_000));
        }
        let mut due: Vec<Coming> = state.coming.extract_if(.., |coming| coming.due <= now).collect();
        due.sort_by_key(|coming| (coming.due, coming.ticket));
        due.into_iter().for_each(|coming| state.write(coming));
    }

    /// From now on it serves.
    pub fn peace(&self) {
        let mut state = self.state();
        (state.loses, state.throttles, state.refuses, state.outages, state.drafts) = (0, 0, 0, 0, 0);
        state.away_until = Duration::ZERO;
    }

    /// What a person finds of a number, who completes it when it is a draft.
    pub fn find(&self, reference: &str) -> Option<String> {
        let mut state = self.state();
        let mut found = state
            .documents
            .iter_mut()
            .filter(|written| written.reference == reference);
        found.next().map(|written| {
            written.is_draft = false;
            written.id.clone()
        })
    }

    /// What it has, in the order of writing.
    pub fn documents<T>(&self, look: impl FnOnce(&[Written]) -> T) -> T {
        look(&self.state().documents)
    }

    /// Requests that have still to take effect.
    pub fn coming(&self) -> usize {
        self.state().coming.len()
    }

    /// Requests, and those whose answers were lost.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.requests, state.lost)
    }
}

impl State {
    fn write(&mut self, coming: Coming) {
        let known = match self.certainty {
            Certainty::Key { remembered, .. } => self
                .remembered
                .get(&coming.key)
                .filter(|(since, _)| coming.due < *since + remembered)
                .map(|(_, acknowledgement)| acknowledgement.clone()),
            Certainty::LookUp { .. } | Certainty::None => None,
        };
        let begun = self
            .documents
            .iter_mut()
            .find(|written| Some(&written.id) == coming.resume.as_ref());
        let is_taken = |written: &Written| written.reference == coming.plan.reference;
        let mut is_lost = !coming.answered;
        let outcome = if let Some(acknowledgement) = known {
            Outcome::Acknowledged(acknowledgement)
        } else if let Some(begun) = begun {
            begun.is_draft = false;
            Outcome::Acknowledged(acknowledgement(&begun.id))
        } else if self.is_unique && self.documents.iter().any(is_taken) {
            Outcome::Taken("The number is used already".to_owned())
        } else {
            let id = format!("V-{}", self.documents.len());
            let is_draft = self.rng.chance(self.drafts);
            is_lost |= is_draft;
            self.documents.push(Written {
                id: id.clone(),
                reference: coming.plan.reference,
                body: coming.plan.body,
                is_draft,
            });
            let acknowledgement = acknowledgement(&id);
            self.remembered
                .insert(coming.key.clone(), (coming.due, acknowledgement.clone()));
            Outcome::Acknowledged(acknowledgement)
        };
        tracing::info!(now = ?coming.due, key = coming.key, request = coming.ticket, ?outcome, is_lost, "the system writes");
        if coming.answered {
            let when = coming.due + Duration::from_millis(self.rng.below(200));
            let outcome = match is_lost {
                true => Outcome::Uncertain("the connection broke".to_owned()),
                false => outcome,
            };
            self.lost += u64::from(is_lost);
            self.answers.insert(coming.ticket, (when, outcome));
        }
    }

    /// Takes a request, and decides what becomes of it.
    fn receive(&mut self, key: String, plan: Plan, resume: Option<String>) -> u64 {
        self.requests += 1;
        let (ticket, now) = (self.requests, self.now);
        tracing::info!(?now, key, request = ticket, "the system is asked to write");
        let mut soon = |most: u64| now + Duration::from_millis(self.rng.below(most));
        let (at_once, later, latest) = (soon(1_000), soon(6_000), soon(LATEST.as_millis() as u64));
        let mut say = |when: Duration, outcome: Outcome| {
            self.answers.insert(ticket, (when, outcome));
        };
        if now < self.away_until {
            say(at_once, Outcome::Unavailable("connection refused".to_owned()));
        } else if self.rng.rarely(self.throttles) {
            let retry_after = self.rng.chance(50).then_some(Duration::from_secs(1));
            say(at_once, Outcome::Throttled { retry_after });
        } else if self.refused.contains(&key) || self.rng.rarely(self.refuses) {
            if let Certainty::Key { .. } = self.certainty {
                self.refused.insert(key);
            }
            let refusal = Refusal {
                code: "closed_period".to_owned(),
                words: "The period is locked".to_owned(),
                advice: "open the period, then retry".to_owned(),
            };
            say(at_once, Outcome::Refused(refusal));
        } else {
            let is_lost = self.rng.rarely(self.loses);
            let due = match is_lost {
                true if self.rng.chance(50) => Some(latest),
                true if self.rng.chance(50) => None,
                true | false => Some(at_once),
            };
            if is_lost {
                self.lost += 1;
                say(later, Outcome::Uncertain("no answer".to_owned()));
            }
            self.coming.extend(due.map(|due| Coming {
                due,
                ticket,
                key,
                plan,
                resume,
                answered: !is_lost,
            }));
        }
        ticket
    }

    fn answer(&mut self, ticket: u64) -> Option<Outcome> {
        let (when, _) = self.answers.get(&ticket)?;
        match *when <= self.now {
            true => self.answers.remove(&ticket).map(|(_, outcome)| outcome),
            false => None,
        }
    }
}

fn acknowledgement(id: &str) -> Acknowledgement {
    Acknowledgement {
        external_id: id.to_owned(),
        response_digest: String::new(),
    }
}

impl Destination for Vendor {
    fn certainty(&self) -> Certainty {
        self.state().certainty
    }

    fn limits(&self) -> Limits {
        Limits {
            in_flight: 3,
            per_minute: None,
            per_day: None,
        }
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        Ok(Plan {
            form: document.form,
            reference: document.key.to_string(),
            body: format!("{document:?}").into_bytes(),
        })
    }

    fn send<'a>(&'a self, key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let ticket = self
                .state()
                .receive(key.of_round(tries.round), plan.clone(), tries.resume.clone());
            // Time passes between two turns of the process, and wakes nobody.
            poll_fn(|cx| match self.state().answer(ticket) {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            })
            .await
        })
    }

    fn look_up<'a>(&'a self, _key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            let mut state = self.state();
            if state.now < state.away_until {
                return Found::Unknown("connection refused".to_owned());
            }
            let throttles = state.throttles;
            if state.rng.rarely(throttles) {
                return Found::Throttled { retry_after: None };
            }
            let found: Vec<&Written> = state
                .documents
                .iter()
                .filter(|written| written.reference == plan.reference)
                .collect();
            tracing::info!(now = ?state.now, key = plan.reference, found = found.len(), "the system is asked what it has");
            match found.as_slice() {
                [] => Found::Nothing,
                [one] if one.is_draft => Found::Unfinished {
                    external_id: one.id.clone(),
                },
                [one] if one.body == plan.body => Found::Same(acknowledgement(&one.id)),
                [one] => Found::Different {
                    external_id: one.id.clone(),
                    what: "its lines".to_owned(),
                },
                several => Found::Several(several.iter().map(|one| one.id.clone()).collect()),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move {
            let state = self.state();
            match state.now < state.away_until {
                true => Err("connection refused".to_owned()),
                false => Ok(()),
            }
        })
    }
}
