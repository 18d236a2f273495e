//! The third stage: from facts to the books.
//!
//! Owns: the store `contract` (contracts, reference facts, and who is due or waits) and what is emitted for a decision.
//! Invariants: a decision rests on the contract, the facts of this partition in their order, and the policy; so a replay
//! of `contract.facts` repeats every byte. A tick, a rate or a period change is finished for all contracts it concerns
//! before the next fact is looked at; it is done in slices, so that it fits the overlay.
//! Absent: rules of accounting; they are in `revenue`.
//!
//! Keys of the store:
//!
//! ```text
//! c, h <tenant>/<deal>          the contract: see `kept`
//! r <number, big-endian>        a reference fact, in the order of arrival
//! u <tenant>/<day>/<deal>       a contract on which a tick of that day or later acts
//! w <tenant>/<deal>             a contract that waits for a rate
//! p                             how far the reference fact at hand has come (phase, last key)
//! ```

use std::sync::Arc;

use super::emit::{self, Cause, deal_key, incoming};
use super::kept::{Kept, Warm, head_key};
use crate::codec::Refused;
use crate::codec::contract_store::{self, Paged};
use crate::codec::schemas::Schemas;
use crate::codec::trace::Trace;
use crate::revenue::contract::{self, Contract, Decision};
use crate::revenue::fact::{Body, Fact};
use crate::revenue::ids::TenantId;
use crate::revenue::reference::{Context as Judgement, Learned, Reference, Settings};
use crate::revenue::reject::{Code, Rejection};
use crate::stream::fault::Fault;
use crate::stream::processor::{Context, Emission, Failure, Processor, Progress, Rejected, Route};
use crate::stream::record::{LARGEST_RECORD_BYTES, Record, Topic};

pub const STORE: &str = "contract";

/// Contracts settled in one go before the runtime may commit.
const SLICE: usize = 200;

/// The topics of the books.
pub struct Outputs {
    pub state: Topic,
    pub recognition: Topic,
    pub billing: Topic,
    pub journal: Topic,
}

/// See the module.
pub struct ContractStage {
    schemas: Arc<Schemas>,
    settings: Arc<Settings>,
    outputs: Arc<Outputs>,
    /// What the reference facts of this partition said; the store has them all.
    reference: Reference,
    /// How many reference facts are stored.
    known: u64,
    warm: Warm,
}

impl ContractStage {
    pub fn new(schemas: Arc<Schemas>, settings: Arc<Settings>, outputs: Arc<Outputs>) -> ContractStage {
        ContractStage {
            schemas,
            settings,
            outputs,
            reference: Reference::default(),
            known: 0,
            warm: Warm::default(),
        }
    }
}

/// Of the facts that are kept, only a close that came too early was refused when it came, as it is again.
pub(super) fn refused_before(rejection: Rejection) -> Result<(), Rejection> {
    match rejection.code {
        Code::PeriodNotOver => Ok(()),
        _ => Err(rejection),
    }
}

impl Processor for ContractStage {
    fn open(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        for (_, bytes) in cx.range(STORE, b"r ", b"r!", usize::MAX)? {
            let fact = contract_store::decode_fact(&bytes)?;
            // It was learned before, so it is learned again; a refusal would have been refused then.
            if let Err(rejection) = self.learn(&fact).map(|_| ()).or_else(refused_before) {
                return Err(emit::rejected(fact.event_id.as_str(), &rejection).into());
            }
            self.known += 1;
        }
        Ok(())
    }

    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let fact = self.schemas.decode_fact(record.value.as_deref().unwrap_or_default())?;
        let trace = incoming(record, Trace::of);
        let done = match fact.body.deal_id() {
            Some(_) => self.deal_fact(&fact, record, &trace, cx).map(|()| Progress::Done),
            None => self.reference_fact(&fact, record, &trace, cx),
        };
        if done.is_err() {
            // What was staged for the record is taken back.
            self.warm = Warm::default();
        }
        done
    }
}

impl ContractStage {
    fn deal_fact(&mut self, fact: &Fact, record: &Record, trace: &Trace, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(deal) = fact.body.deal_id() else {
            return Ok(());
        };
        let key = deal_key(&fact.tenant, deal);
        let (old, paged) = match self.load(&key, cx)? {
            Some(kept) => (Some(kept.contract), kept.paged),
            None => (None, Paged::default()),
        };
        let before = Revisions::of(old.as_ref());
        let repeated = old
            .as_ref()
            .is_some_and(|contract| contract.fact(&fact.event_id).is_some());
        let found = Found::of(&key, old.as_ref());
        let judgement = Judgement::new(&self.settings, &self.reference, &fact.tenant);
        let decision = contract::apply(old, fact, &judgement)
            .map_err(|rejection| emit::rejected(fact.event_id.as_str(), &rejection))?;
        if repeated {
            return Ok(());
        }
        for (event, rejection) in &decision.rejections {
            // A fact before its deal.closed waits with the draft, and is judged with it; every other reason is for people.
            let judged = *event == fact.event_id || before.is_none();
            if judged && rejection.code != Code::DealNotClosed {
                cx.reject(emit::rejected(event.as_str(), rejection));
            }
        }
        let said = self.said(&key, fact, (before, &decision), record, trace)?;
        self.keep(&key, found, decision.contract, paged, cx)?;
        Ok(said.into_iter().try_for_each(|emission| cx.emit(emission))?)
    }

    fn reference_fact(
        &mut self,
        fact: &Fact,
        record: &Record,
        trace: &Trace,
        cx: &mut Context<'_>,
    ) -> Result<Progress, Failure> {
        let place = match cx.get(STORE, b"p")? {
            Some(place) => place,
            None => {
                let seen = self.reference.has_seen(fact);
                // Before it is learned: what cannot be kept must not be known.
                let stored = contract_store::encode_fact(fact)?;
                let learned = match self.learn(fact) {
                    // People hear of it, and it is kept.
                    Err(rejection) if rejection.code == Code::PeriodNotOver => {
                        cx.reject(emit::rejected(fact.event_id.as_str(), &rejection));
                        Learned::Already
                    }
                    learned => learned.map_err(|rejection| emit::rejected(fact.event_id.as_str(), &rejection))?,
                };
                if !seen {
                    // One that changes nothing now is kept as well: come again after others, it must change nothing then.
                    let key = [b"r ".as_slice(), &self.known.to_be_bytes()].concat();
                    cx.put(STORE, key, stored)?;
                    self.known += 1;
                }
                match learned {
                    Learned::Already => return Ok(Progress::Done),
                    Learned::New => vec![0],
                }
            }
        };
        let (phase, last) = place.split_first().unwrap_or((&0, &[]));
        let Some(range) = concerned(fact, *phase) else {
            cx.delete(STORE, b"p".as_slice())?;
            return Ok(Progress::Done);
        };
        let from = if last.is_empty() {
            range.from
        } else {
            [last, &[0]].concat()
        };
        let entries = cx.range(STORE, &from, &range.to, SLICE)?;
        let next = match entries.last() {
            Some((key, _)) => [&[*phase], key.as_slice()].concat(),
            None => vec![phase + 1],
        };
        for (key, _) in entries {
            let key = range.by.contract_of(&key);
            match self.settle(&key, fact, record, trace, cx) {
                // One contract that cannot be settled stays as it was, and stops no other.
                Err(Failure::Record(why)) => cx.reject(Rejected {
                    message: format!("contract {}: {}", String::from_utf8_lossy(&key), why.message),
                    ..why
                }),
                settled => settled?,
            }
        }
        cx.put(STORE, b"p".as_slice(), next)?;
        Ok(Progress::More)
    }

    fn learn(&mut self, fact: &Fact) -> Result<Learned, Rejection> {
        self.settings.learn(fact, &mut self.reference)
    }

    /// Errors: what came of it cannot be written; then nothing is staged.
    fn settle(
        &mut self,
        key: &[u8],
        fact: &Fact,
        record: &Record,
        trace: &Trace,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let Some(Kept { contract, paged }) = self.load(key, cx)? else {
            return Ok(());
        };
        let found = Found::of(key, Some(&contract));
        let revisions = Revisions::of(Some(&contract));
        let before = (contract.issued.len(), contract.waits_for, contract.next_due);
        let judgement = Judgement::new(&self.settings, &self.reference, &fact.tenant);
        let decision = contract::settle(contract, &judgement)
            .map_err(|rejection| emit::rejected(fact.event_id.as_str(), &rejection))?;
        let after = &decision.contract;
        let nothing_new = before == (after.issued.len(), after.waits_for, after.next_due)
            && decision.schedule.is_empty()
            && revisions == Revisions::of(Some(after));
        let said = match nothing_new {
            true => Vec::new(),
            false => self.said(key, fact, (revisions, &decision), record, trace)?,
        };
        self.keep(key, found, decision.contract, paged, cx)?;
        Ok(said.into_iter().try_for_each(|emission| cx.emit(emission))?)
    }

    fn load(&mut self, key: &[u8], cx: &Context<'_>) -> Result<Option<Kept>, Failure> {
        if let Some(kept) = self.warm.take(key) {
            return Ok(Some(kept));
        }
        let Some(head) = cx.get(STORE, &head_key(key))? else {
            return Ok(None);
        };
        let read = |from: &[u8], to: &[u8], most| cx.range(STORE, from, to, most).map_err(Failure::Fault);
        let refuse = |refused: Refused| {
            Failure::Fault(Fault::Fatal(format!(
                "the stored contract {} cannot be read: {refused}",
                String::from_utf8_lossy(key)
            )))
        };
        Kept::read(key, &head, read, refuse).map(Some)
    }

    /// Stores the contract, and where it is found when it is due or waits; `before`: where it was. Errors: it cannot be
    /// encoded; then nothing is staged.
    fn keep(
        &mut self,
        key: &[u8],
        before: Found,
        contract: Contract,
        paged: Paged,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let after = Found::of(key, Some(&contract));
        let mut kept = Kept { contract, paged };
        let values = kept.write(key)?;
        values.iter().try_for_each(|(_, value)| fits(value))?;
        for (old, new) in [(before.due, after.due), (before.waiting, after.waiting)] {
            if old != new {
                if let Some(old) = old {
                    cx.delete(STORE, old)?;
                }
                if let Some(new) = new {
                    cx.put(STORE, new, Vec::new())?;
                }
            }
        }
        for (at, value) in values {
            cx.put(STORE, at, value)?;
        }
        self.warm.put(key, kept);
        Ok(())
    }

    /// What is emitted for a decision. A plan is one record with all its rows, so that the last record of a deal is its plan:
    /// it comes when the plan is another than `before`, also when nothing is left of it, and when rows of it were posted.
    fn said(
        &self,
        key: &[u8],
        fact: &Fact,
        (before, decision): (Revisions, &Decision),
        record: &Record,
        trace: &Trace,
    ) -> Result<Vec<Emission>, Refused> {
        let contract = &decision.contract;
        let caused = Cause::new(record, trace, fact, Some(&contract.deal));
        let cause = fact.event_id.as_str();
        let mut said = Vec::with_capacity(3 + decision.entries.len());
        let mut say = |topic: &Topic, kind: &'static str, id: &str, value: Vec<u8>| {
            fits(&value)?;
            said.push(caused.emission((topic, Route::ByKey), key.to_vec(), value, (id, kind)));
            Ok::<(), Refused>(())
        };
        let after = Revisions::of(Some(contract));
        let state = self.schemas.encode_contract_state(decision)?;
        let id = format!("{cause}/state/{}", contract.deal);
        say(&self.outputs.state, "contract.state", &id, state)?;
        if after.recognition != before.recognition || !decision.schedule.is_empty() {
            let id = format!("{cause}/recognition/{}", contract.deal);
            let value = self.schemas.encode_recognition_schedule(decision)?;
            say(&self.outputs.recognition, "recognition.schedule", &id, value)?;
        }
        if after.billing != before.billing {
            let id = format!("{cause}/billing/{}", contract.deal);
            let value = self.schemas.encode_billing_schedule(decision)?;
            say(&self.outputs.billing, "billing.schedule", &id, value)?;
        }
        for entry in &decision.entries {
            let value = self.schemas.encode_journal_entry(entry)?;
            say(&self.outputs.journal, "journal.entry", entry.entry_id.as_str(), value)?;
        }
        Ok(said)
    }
}

/// Whether a record can be written at all: a producer that is asked to write a larger one stops the process.
fn fits(value: &[u8]) -> Result<(), Refused> {
    match value.len() > LARGEST_RECORD_BYTES {
        false => Ok(()),
        true => Err(Refused::new(
            "record_too_large",
            format!(
                "it leads to a record of {} bytes, and {LARGEST_RECORD_BYTES} can be written: split the deal into several",
                value.len()
            ),
        )),
    }
}

/// Which plans of a contract were given out last; zero: none yet.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Revisions {
    recognition: u32,
    billing: u32,
}

impl Revisions {
    /// Whether nothing was given out yet: the deal was not closed.
    fn is_none(self) -> bool {
        self.recognition == 0
    }

    fn of(contract: Option<&Contract>) -> Revisions {
        Revisions {
            recognition: contract.map_or(0, |contract| contract.schedule_revision),
            billing: contract.map_or(0, |contract| contract.billing_revision),
        }
    }
}

/// Contracts that a reference fact concerns: a range of the store, and how its keys name contracts.
struct Concerned {
    from: Vec<u8>,
    to: Vec<u8>,
    by: Index,
}

enum Index {
    Contract,
    Waiting,
    Due,
}

impl Index {
    /// `tenant/deal` of a key of this index.
    fn contract_of(&self, key: &[u8]) -> Vec<u8> {
        let rest = &key[2.min(key.len())..];
        match self {
            Index::Contract | Index::Waiting => rest.to_vec(),
            Index::Due => {
                let mut parts = rest.splitn(3, |byte| *byte == b'/');
                let (tenant, _, deal) = (parts.next(), parts.next(), parts.next());
                [tenant.unwrap_or_default(), b"/", deal.unwrap_or_default()].concat()
            }
        }
    }
}

/// Who has to be looked at: first whoever waits; then, after a tick, whoever is due; after a period change, everyone.
fn concerned(fact: &Fact, phase: u8) -> Option<Concerned> {
    let prefix = |kind: &str, tenant: &TenantId| format!("{kind} {tenant}/").into_bytes();
    let whole = |from: Vec<u8>, by: Index| {
        let mut to = from.clone();
        to.pop();
        to.push(b'/' + 1);
        Concerned { from, to, by }
    };
    match (phase, &fact.body) {
        (0, _) => Some(whole(prefix("w", &fact.tenant), Index::Waiting)),
        (1, Body::ClockTicked(day)) => Some(Concerned {
            from: prefix("u", &fact.tenant),
            // Days are ISO text, so they sort; all keys of the day itself end before `0`, the sign after `/`.
            to: format!("u {}/{day}0", fact.tenant).into_bytes(),
            by: Index::Due,
        }),
        (1, Body::PeriodClosed(_) | Body::PeriodReopened(_)) => Some(whole(prefix("c", &fact.tenant), Index::Contract)),
        _ => None,
    }
}

/// Under which keys a contract is found beside its own.
struct Found {
    due: Option<Vec<u8>>,
    waiting: Option<Vec<u8>>,
}

impl Found {
    fn of(key: &[u8], contract: Option<&Contract>) -> Found {
        let deal = key.splitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
        let due = contract.and_then(|contract| {
            let day = contract.next_due()?;
            Some([format!("u {}/{day}/", contract.tenant).as_bytes(), deal].concat())
        });
        let waiting = contract.and_then(Contract::waits_for);
        Found {
            due,
            waiting: waiting.map(|_| [b"w ".as_slice(), key].concat()),
        }
    }
}
