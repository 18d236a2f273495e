//! The state machine of every external write.
//!
//! ```text
//!              Due: not mapped, never possible
//!            .--------------------------------------------------.
//!            |                                                  v
//!         Planned --Due--> Sent --Answered: acknowledged--> Acknowledged
//!          ^  ^ ^           | |
//!          |  | `-----------' |  Answered: throttled, unavailable (not written)
//!          |  |   nothing     |
//!          |  |   found       |--Answered: refused---------> Parked --Cancel--> Cancelled
//!          |  |               |                               ^ | |
//!          |  `--Uncertain<---'  Answered: uncertain;         | | `--Confirm--> Acknowledged
//!          |      | ^   |        taken; or the process ended  | |
//!          |      | |   `------ found different, several -----' |
//!          |      | `------------- Retry, if it was sent -------|
//!          |      `--found: same--> Acknowledged                |
//!          `------------ Retry, if it was never sent -----------'
//! ```
//!
//! Owns: [`step`], the only way from one state to another; pure. Invariants: a document is sent only from `Planned`, and
//! comes there with doubt only while the system remembers the key; doubt ends only by a look-up that found nothing after
//! the system's longest commit time, or by a person; a number that is taken, and taken again after looks that found
//! nothing, is parked; `Acknowledged` and `Cancelled` are final. Deliberately absent: storing, sending, waiting, order.

use std::time::Duration;

use jiff::Timestamp;

use super::destination::{Acknowledgement, Certainty, Found, Outcome, Refusal};

/// Where a document is, and what its attempts have left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    pub state: State,
    pub since: Timestamp,
    /// Times it was sent.
    pub attempts: u64,
    pub first_sent_at: Option<Timestamp>,
    /// Answers in a row that said it was not written.
    pub failures: u64,
    /// An earlier attempt may have been written.
    pub doubt: bool,
    /// A person has corrected what refused it: what is sent is made anew, once nothing of it is in the system.
    pub remake: bool,
    /// How often that was done.
    pub rounds: u64,
    /// Times that the system said it has a document of this number, while none was found.
    pub taken: u64,
}

/// How often a number may be taken by a document that no look finds, before a person has to look.
const TAKEN_MOST: u64 = 5;

/// See the diagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Planned {
        not_before: Timestamp,
        /// An unfinished document in the system, to go on with.
        resume: Option<String>,
        /// Why it was not written last time; empty at first.
        why: String,
    },
    Sent {
        resume: Option<String>,
    },
    Uncertain {
        look_up_at: Timestamp,
        /// Look-ups that failed.
        looks: u64,
        why: String,
    },
    Parked(Refusal),
    Acknowledged {
        acknowledgement: Acknowledgement,
        how: How,
    },
    Cancelled(Person),
}

/// How it is known that a document is in the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Answered,
    Found,
    Confirmed(Person),
}

/// Who decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub by: String,
    pub note: String,
}

/// What happens to a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is its turn, and its time has come.
    Due,
    /// Before sending: it cannot be made into something to send.
    Unplannable(Refusal),
    Answered(Outcome),
    Found(Found),
    /// It was sent by a process, or an owner of the partition, that is gone.
    Orphaned,
    Retry,
    Confirm {
        external_id: String,
        person: Person,
    },
    Cancel(Person),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// Send, once the new state is durable.
    Send {
        resume: Option<String>,
    },
    LookUp,
    /// Write the receipt.
    Settle,
}

/// An event that cannot happen in this state; nothing changes. The message is for the operator who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misplaced(pub String);

impl Track {
    /// A document that was just taken up.
    pub fn new(now: Timestamp) -> Track {
        Track {
            state: State::Planned {
                not_before: now,
                resume: None,
                why: String::new(),
            },
            since: now,
            attempts: 0,
            first_sent_at: None,
            failures: 0,
            doubt: false,
            remake: false,
            rounds: 0,
            taken: 0,
        }
    }

    /// When something is to be done without anybody asking; `None`: never, or an answer is awaited.
    pub fn due_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Planned { not_before, .. } => Some(*not_before),
            State::Uncertain { look_up_at, .. } => Some(*look_up_at),
            State::Sent { .. } | State::Parked(_) | State::Acknowledged { .. } | State::Cancelled(_) => None,
        }
    }

    /// What is to be sent is made anew, because a person asked for it and nothing of it can be in the system.
    pub fn is_remade(&self) -> bool {
        match &self.state {
            State::Planned { resume, .. } => self.remake && !self.doubt && resume.is_none(),
            State::Sent { .. }
            | State::Uncertain { .. }
            | State::Parked(_)
            | State::Acknowledged { .. }
            | State::Cancelled(_) => false,
        }
    }

    fn to(&self, state: State, now: Timestamp) -> Track {
        Track {
            state,
            since: now,
            ..self.clone()
        }
    }
}

/// The state after an event, and what follows from it.
///
/// # Errors
/// The event cannot happen in this state.
pub fn step(track: &Track, event: Event, certainty: Certainty, now: Timestamp) -> Result<(Track, Effect), Misplaced> {
    match (&track.state, event) {
        (State::Planned { resume, why, .. }, Event::Due) => {
            if track.doubt && !is_remembered(track, certainty, now) {
                return Ok((in_doubt(track, certainty, why.clone(), now), Effect::None));
            }
            let sent = Track {
                attempts: track.attempts + 1,
                first_sent_at: track.first_sent_at.or(Some(now)),
                rounds: track.rounds + u64::from(track.is_remade() && track.attempts > 0),
                remake: false,
                ..track.to(State::Sent { resume: resume.clone() }, now)
            };
            Ok((sent, Effect::Send { resume: resume.clone() }))
        }
        (State::Planned { .. }, Event::Unplannable(refusal)) => {
            Ok((track.to(State::Parked(refusal), now), Effect::None))
        }
        (State::Sent { resume }, Event::Answered(outcome)) => Ok(answered(track, outcome, resume, certainty, now)),
        (State::Sent { .. }, Event::Orphaned) => {
            let why = "the process ended before the answer came".to_owned();
            Ok((in_doubt(track, certainty, why, now), Effect::None))
        }
        (State::Uncertain { .. }, Event::Due) => Ok((track.clone(), Effect::LookUp)),
        (State::Uncertain { looks, .. }, Event::Found(found)) => Ok(looked_up(track, found, *looks, certainty, now)),
        (State::Uncertain { .. } | State::Parked(_), Event::Confirm { external_id, person }) => {
            let acknowledgement = Acknowledgement {
                external_id,
                response_digest: String::new(),
            };
            let how = How::Confirmed(person);
            Ok((
                track.to(State::Acknowledged { acknowledgement, how }, now),
                Effect::Settle,
            ))
        }
        (State::Parked(_), Event::Retry) => Ok((retried(track, certainty, now), Effect::None)),
        (State::Planned { resume, why, .. }, Event::Retry) => {
            let (resume, why) = (resume.clone(), why.clone());
            let not_before = now;
            Ok((
                track.to(
                    State::Planned {
                        not_before,
                        resume,
                        why,
                    },
                    now,
                ),
                Effect::None,
            ))
        }
        (State::Parked(_), Event::Cancel(person)) => Ok((track.to(State::Cancelled(person), now), Effect::Settle)),
        (State::Planned { .. }, Event::Cancel(person)) if !track.doubt => {
            Ok((track.to(State::Cancelled(person), now), Effect::Settle))
        }
        (state, event) => Err(misplaced(state, &event)),
    }
}

fn answered(
    track: &Track,
    outcome: Outcome,
    resume: &Option<String>,
    certainty: Certainty,
    now: Timestamp,
) -> (Track, Effect) {
    let again = |wait: Duration, why: String| Track {
        failures: track.failures + 1,
        ..track.to(
            State::Planned {
                not_before: later(now, wait),
                resume: resume.clone(),
                why,
            },
            now,
        )
    };
    match outcome {
        Outcome::Acknowledged(acknowledgement) => {
            let how = How::Answered;
            (
                track.to(State::Acknowledged { acknowledgement, how }, now),
                Effect::Settle,
            )
        }
        Outcome::Refused(refusal) => {
            let parked = Track {
                // What was begun there is there still.
                doubt: track.doubt || resume.is_some(),
                ..track.to(State::Parked(refusal), now)
            };
            (parked, Effect::None)
        }
        Outcome::Throttled { retry_after } => {
            let wait = retry_after.unwrap_or_else(|| backoff(track.failures));
            (again(wait, "the system asked for patience".to_owned()), Effect::None)
        }
        Outcome::Unavailable(why) => (again(backoff(track.failures), why), Effect::None),
        Outcome::Uncertain(why) => (in_doubt(track, certainty, why, now), Effect::None),
        Outcome::Taken(why) => (taken(track, certainty, why, now), Effect::None),
    }
}

fn looked_up(track: &Track, found: Found, looks: u64, certainty: Certainty, now: Timestamp) -> (Track, Effect) {
    let parked = |code: &str, advice: String| {
        let refusal = Refusal {
            code: code.to_owned(),
            words: String::new(),
            advice,
        };
        (track.to(State::Parked(refusal), now), Effect::None)
    };
    let planned = |resume: Option<String>, why: &str| {
        let state = State::Planned {
            not_before: now,
            resume,
            why: why.to_owned(),
        };
        Track {
            doubt: false,
            ..track.to(state, now)
        }
    };
    match found {
        Found::Same(acknowledgement) => {
            let how = How::Found;
            (
                track.to(State::Acknowledged { acknowledgement, how }, now),
                Effect::Settle,
            )
        }
        Found::Nothing => match commit_time(certainty).map(|after| later(track.since, after)) {
            // Looked up early: what is on its way may still arrive.
            Some(look_up_at) if track.doubt && now < look_up_at => {
                let why = "looked up, and not found yet".to_owned();
                let state = State::Uncertain { look_up_at, looks, why };
                (since(track, state, now), Effect::None)
            }
            Some(_) | None => (planned(None, "looked up, and not found"), Effect::None),
        },
        Found::Unfinished { external_id } => {
            let begun = planned(Some(external_id), "begun, and not completed");
            (Track { taken: 0, ..begun }, Effect::None)
        }
        Found::Different { external_id, what } => parked(
            "different_content",
            format!(
                "{external_id} is there under this reference and differs: {what}. Correct or remove it there and retry; confirm it if it is right"
            ),
        ),
        Found::Several(ids) => parked(
            "several_documents",
            format!(
                "{} are there under this reference. Remove all but one there and retry; confirm the one that is right",
                ids.join(", ")
            ),
        ),
        Found::Throttled { retry_after } => {
            let state = State::Uncertain {
                look_up_at: later(now, retry_after.unwrap_or_else(|| backoff(looks))),
                looks,
                why: "the system asked for patience".to_owned(),
            };
            (since(track, state, now), Effect::None)
        }
        Found::Unknown(why) => {
            let state = State::Uncertain {
                look_up_at: later(now, backoff(looks)),
                looks: looks + 1,
                why,
            };
            (since(track, state, now), Effect::None)
        }
    }
}

/// A new state, in doubt as long as before.
fn since(track: &Track, state: State, now: Timestamp) -> Track {
    Track {
        since: track.since,
        ..track.to(state, now)
    }
}

/// After an attempt that may have been written: sent again under its key, or looked up when all that is on its way has
/// arrived.
fn in_doubt(track: &Track, certainty: Certainty, why: String, now: Timestamp) -> Track {
    let doubted = doubted(track);
    match is_remembered(&doubted, certainty, now) {
        true => {
            let not_before = later(now, backoff(doubted.failures));
            let state = State::Planned {
                not_before,
                resume: None,
                why,
            };
            doubted.to(state, now)
        }
        false => to_look(&doubted, commit_time(certainty), why, now),
    }
}

/// The system has a document of this key or number: there is something to look at now, and sending again tells nothing.
/// Where no look finds it, round after round, it is there for the system alone.
fn taken(track: &Track, certainty: Certainty, why: String, now: Timestamp) -> Track {
    let track = Track {
        taken: track.taken + 1,
        ..doubted(track)
    };
    if track.taken > TAKEN_MOST {
        let refusal = Refusal {
            code: "number_taken".to_owned(),
            words: why,
            advice: "the system says that it has a document of this number or key, and shows none: look for it there, among deleted and voided ones too. Confirm it if it is this one; else free the number and retry".to_owned(),
        };
        return track.to(State::Parked(refusal), now);
    }
    let soon = commit_time(certainty).map(|after| after.min(backoff(track.failures - 1)));
    to_look(&track, soon, why, now)
}

fn doubted(track: &Track) -> Track {
    Track {
        doubt: true,
        failures: track.failures + 1,
        ..track.clone()
    }
}

/// Looks after a time; a person must, where the system shows nothing.
fn to_look(track: &Track, after: Option<Duration>, why: String, now: Timestamp) -> Track {
    let state = match after {
        Some(after) => State::Uncertain {
            look_up_at: later(now, after),
            looks: 0,
            why,
        },
        None => State::Parked(Refusal {
            code: "uncertain".to_owned(),
            words: why,
            advice: "it may have been written, and the system offers no way to know. Look for it there: confirm it if it is there, retry if it is not".to_owned(),
        }),
    };
    track.to(state, now)
}

/// The longest time in which a request may still take effect; `None` where the system shows no documents.
fn commit_time(certainty: Certainty) -> Option<Duration> {
    match certainty {
        Certainty::Key { look_up_after, .. } => look_up_after,
        Certainty::LookUp { after } => Some(after),
        Certainty::None => None,
    }
}

/// Whether the system still recognises the key of the first attempt. A tenth of the time is left unused, for clocks that
/// differ and requests that travel.
fn is_remembered(track: &Track, certainty: Certainty, now: Timestamp) -> bool {
    match (certainty, track.first_sent_at) {
        (Certainty::Key { remembered, .. }, Some(first)) => now < later(first, remembered - remembered / 10),
        (Certainty::Key { .. } | Certainty::LookUp { .. } | Certainty::None, _) => false,
    }
}

/// A parked document that a person sends round again. What was sent before is looked up where that is possible: a refusal
/// may have left something behind. Where it is not possible, the person has looked.
fn retried(track: &Track, certainty: Certainty, now: Timestamp) -> Track {
    let track = Track {
        failures: 0,
        taken: 0,
        remake: true,
        ..track.clone()
    };
    if track.attempts > 0 && commit_time(certainty).is_some() {
        let state = State::Uncertain {
            look_up_at: now,
            looks: 0,
            why: "looked up before it is sent round again".to_owned(),
        };
        return since(&track, state, now);
    }
    let state = State::Planned {
        not_before: now,
        resume: None,
        why: "sent round again by a person".to_owned(),
    };
    Track {
        doubt: false,
        ..track.to(state, now)
    }
}

fn misplaced(state: &State, event: &Event) -> Misplaced {
    let is = match state {
        State::Planned { .. } => "planned, and an earlier attempt may have been written",
        State::Sent { .. } => "sent, and its answer is awaited",
        State::Uncertain { .. } => "uncertain, and will be looked up",
        State::Parked(_) => "parked",
        State::Acknowledged { .. } => "in the ledger",
        State::Cancelled(_) => "cancelled",
    };
    let asked = match event {
        Event::Due => "be started",
        Event::Unplannable(_) => "be parked as impossible",
        Event::Answered(_) => "take an answer",
        Event::Found(_) => "take the result of a look-up",
        Event::Orphaned => "be orphaned",
        Event::Retry => "be retried",
        Event::Confirm { .. } => "be confirmed",
        Event::Cancel(_) => "be cancelled",
    };
    Misplaced(format!("the document is {is}; it cannot {asked} now"))
}

/// 1, 2, 4 seconds and so on to a minute.
pub fn backoff(failures: u64) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(u32::MAX).min(6);
    Duration::from_secs(60.min(1 << doublings))
}

/// An instant after another; the end of time where it would be later.
pub fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}
