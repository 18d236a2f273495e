//! The processor of a sink: one task for each partition of its intake.
//!
//! ```text
//! process    an entry or a command is taken in (intake)
//! tick       answers are taken; what is due at the head of its deal is staged as sent
//! committed  what is now durably sent goes to the couriers
//! ```
//!
//! Owns: what is at the head of each deal, in memory; the store has the rest. Invariants: only the head of a queue is
//! ever sent, so a deal's documents are written in order; a write leaves this process only after `Sent` is committed.
//! Deliberately absent: the meaning of answers (`delivery`), limits (`gate`), requests (`courier`).

mod intake;
mod settle;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use jiff::Timestamp;

use super::assemble;
use super::board::{Board, Work};
use super::breaker::Change;
use super::collect::{Kind, marks};
use super::courier::{Answer, Clock, Couriers, Errand, Job, Said};
use super::delivery::{Effect, Event, Person, State, Track, step};
use super::destination::{Certainty, Outcome, Plan, Refusal, Tries};
use super::gate::{Gate, Permit, Share};
use super::metrics::Metrics;
use super::store::{Place, Queue, Row, Store, queue_of};
use crate::codec::delivery::ChainRow;
use crate::codec::schemas::Schemas;
use crate::config::Sink;
use crate::stream::fault::Fault;
use crate::stream::processor::{Context, Failure, Processor, Progress};
use crate::stream::record::{Partition, Record, Timestamp as RecordTime, Topic};
use crate::stream::seeded::{self, Bug};

/// What the tasks of a sink share.
pub struct Shared {
    pub sink: Sink,
    pub schemas: Arc<Schemas>,
    pub couriers: Couriers,
    pub gate: Gate,
    pub clock: Clock,
    pub board: Board,
    pub metrics: Metrics,
    pub topics: Topics,
}

pub struct Topics {
    pub commands: Topic,
    pub receipts: Topic,
    pub tickets: Topic,
}

/// Whether documents wait for an account that the topology may have since this start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unmapped {
    None,
    Found,
    /// The command is written; what people decided before comes before it.
    Asked,
}

/// A summary that is being gathered.
struct Gathered {
    tenant: String,
    /// Which was begun first.
    number: u64,
    /// When it is written.
    due: Timestamp,
    source_at: Timestamp,
}

/// The first document of a queue.
struct Head {
    place: Place,
    /// The event behind it: the oldest of its queue.
    source_at: Timestamp,
    /// As in `ready`; `None` when it is not there.
    due: Option<Timestamp>,
}

/// See the module.
pub struct Deliver {
    shared: Arc<Shared>,
    certainty: Certainty,
    partition: Partition,
    /// Its part of the limits, once it is open.
    share: Option<Share>,
    /// The first document of each queue that has one.
    heads: HashMap<Queue, Head>,
    /// Heads by the events behind them: the first has waited longest.
    waiting: BTreeSet<(Timestamp, Queue)>,
    /// Heads that something is to be done about, by when.
    ready: BTreeSet<(Timestamp, Queue)>,
    /// Queues whose head waits for an answer.
    awaited: BTreeSet<Queue>,
    parked: BTreeSet<Queue>,
    /// Heads that were sent by a task before this one.
    orphans: Vec<Queue>,
    unmapped: Unmapped,
    /// A head that was planned, and could not be sent then: it is not planned again before it can.
    held_up: Option<Place>,
    /// Summaries that are being gathered, by name.
    gathering: BTreeMap<String, Gathered>,
    chain: ChainRow,
    /// Staged as sent; they leave with the commit.
    outbox: Vec<Job>,
    /// Changes of the breaker, written and not yet committed.
    tickets: Vec<Change>,
    uncommitted: bool,
    answers: Receiver<Answer>,
    answer_to: Sender<Answer>,
}

impl Deliver {
    pub fn new(shared: Arc<Shared>) -> Deliver {
        let (answer_to, answers) = channel();
        Deliver {
            certainty: shared.couriers.destination().certainty(),
            shared,
            partition: Partition(0),
            share: None,
            heads: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            awaited: BTreeSet::new(),
            parked: BTreeSet::new(),
            orphans: Vec::new(),
            unmapped: Unmapped::None,
            held_up: None,
            gathering: BTreeMap::new(),
            chain: ChainRow::default(),
            outbox: Vec::new(),
            tickets: Vec::new(),
            uncommitted: false,
            answers,
            answer_to,
        }
    }

    /// What is remembered counts for the books it was delivered to, and for no others.
    fn keep_books(&self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let sink = &self.shared.sink;
        let (mut store, books) = (Store(cx), sink.system.identity());
        match store.books()? {
            Some(known) if known == books => Ok(()),
            Some(known) if sink.moved_from.as_ref() != Some(&known) => Err(Fault::Fatal(format!(
                "sink {0} has delivered to other books: {known}; the topology says {books}. What was delivered there is not in the new ones, and would never be sent to them. Put the old ones back; or leave [sinks.{0}] as it was and give the new ones a sink of another name, which delivers everything there; or, if they are the same books at another address, write moved_from = \"{known}\" in [sinks.{0}]",
                sink.name
            ))),
            // Versions before this one wrote nothing down: these are the books that it delivered to.
            Some(_) | None => store.put_books(&books),
        }
    }

    /// Remembers what is at the head of a queue.
    fn note(&mut self, place: Place, row: &Row) {
        let queue = row.queue();
        self.forget(&queue);
        let due = row.track.due_at();
        let source_at = row.source_at;
        self.waiting.insert((source_at, queue.clone()));
        self.heads.insert(queue.clone(), Head { place, source_at, due });
        match &row.track.state {
            State::Planned { .. } | State::Uncertain { .. } => {
                self.ready.extend(due.map(|due| (due, queue)));
            }
            State::Sent { .. } => {
                self.awaited.insert(queue);
            }
            State::Parked(_) => {
                self.parked.insert(queue);
            }
            State::Acknowledged { .. } | State::Cancelled(_) => {}
        }
    }

    fn forget(&mut self, queue: &Queue) {
        if let Some(Head { due, source_at, .. }) = self.heads.remove(queue) {
            self.waiting.remove(&(source_at, queue.clone()));
            if let Some(due) = due {
                self.ready.remove(&(due, queue.clone()));
            }
        }
        self.awaited.remove(queue);
        self.parked.remove(queue);
    }

    fn is_head(&self, place: &Place, row: &Row) -> bool {
        self.heads.get(&row.queue()).is_some_and(|head| head.place == *place)
    }

    /// Stores a new state and does what follows from it; sending waits for the commit.
    fn apply(
        &mut self,
        place: Place,
        mut row: Row,
        track: Track,
        effect: Effect,
        permit: Option<Permit>,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        row.track = track;
        self.uncommitted = true;
        match effect {
            Effect::Settle => return self.settle(&place, &row, cx),
            Effect::LookUp => {
                if let (Some(permit), Some(plan)) = (permit, row.plan.clone()) {
                    let queue = row.queue();
                    if let Some(due) = self.heads.get_mut(&queue).and_then(|head| head.due.take()) {
                        self.ready.remove(&(due, queue.clone()));
                    }
                    self.awaited.insert(queue);
                    let job = self.job(Errand::LookUp, place, &row, plan, permit);
                    self.shared.couriers.dispatch(job);
                }
                return Ok(());
            }
            Effect::Send { resume } => {
                if let (Some(permit), Some(plan)) = (permit, row.plan.clone()) {
                    let round = row.track.rounds;
                    let errand = Errand::Send(Tries { round, resume });
                    let job = self.job(errand, place.clone(), &row, plan, permit);
                    match seeded::has(Bug::SentBeforeCommit) {
                        true => self.shared.couriers.dispatch(job),
                        false => self.outbox.push(job),
                    }
                }
            }
            Effect::None => {}
        }
        Store(cx).put_row(&place, &row)?;
        if self.is_head(&place, &row) {
            self.note(place, &row);
        }
        Ok(())
    }

    fn job(&self, errand: Errand, place: Place, row: &Row, plan: Plan, permit: Permit) -> Job {
        Job {
            errand,
            place,
            key: row.key.clone(),
            plan,
            permit,
            staged_at: (self.shared.clock)(),
            answer_to: self.answer_to.clone(),
        }
    }

    /// What a task before this one had sent is in doubt.
    fn adopt_orphans(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Result<(), Fault> {
        for queue in std::mem::take(&mut self.orphans) {
            let Some((place, row)) = Store(cx).head(&queue)? else {
                continue;
            };
            let event = match seeded::has(Bug::OrphanSentAgain) {
                true => Event::Answered(Outcome::Unavailable(String::new())),
                false => Event::Orphaned,
            };
            if let State::Sent { .. } = row.track.state
                && let Ok((track, effect)) = step(&row.track, event, self.certainty, now)
            {
                self.apply(place, row, track, effect, None, cx)?;
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Result<(), Fault> {
        while let Ok(answer) = self.answers.try_recv() {
            let word = match &answer.said {
                Said::Outcome(Outcome::Acknowledged(_)) => "acknowledged",
                Said::Outcome(Outcome::Refused(_)) => "refused",
                Said::Outcome(Outcome::Throttled { .. }) => "throttled",
                Said::Outcome(Outcome::Unavailable(_)) => "unavailable",
                Said::Outcome(Outcome::Uncertain(_)) => "uncertain",
                Said::Outcome(Outcome::Taken(_)) => "taken",
                Said::Found(_) => "looked_up",
            };
            let sink = self.shared.sink.name.as_str();
            self.shared.metrics.answers.with_label_values(&[sink, word]).inc();
            let Some(row) = Store(cx).row(&answer.place)? else {
                // A person has settled it meanwhile.
                continue;
            };
            let event = match answer.said {
                Said::Outcome(outcome) => Event::Answered(outcome),
                Said::Found(found) => Event::Found(found),
            };
            match step(&row.track, event, self.certainty, now) {
                Ok((track, effect)) => {
                    if let State::Parked(refusal) = &track.state {
                        tracing::warn!(sink, key = %row.key, code = refusal.code, words = refusal.words, "parked");
                    }
                    self.apply(answer.place, row, track, effect, None, cx)?;
                }
                Err(misplaced) => {
                    tracing::debug!(%misplaced, key = %row.key, "answer left aside");
                    if self.is_head(&answer.place, &row) {
                        self.note(answer.place, &row);
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts what is due, as far as the gate allows.
    fn start_due(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Result<(), Fault> {
        while let Some((due, queue)) = self.ready.first().cloned() {
            if due > now {
                break;
            }
            let Some(place) = self.heads.get(&queue).map(|head| head.place.clone()) else {
                self.ready.remove(&(due, queue));
                continue;
            };
            let Some(mut row) = Store(cx).row(&place)? else {
                return Err(Fault::Fatal(format!("the head of {queue} is not in the store")));
            };
            // Planned first: what cannot be made into a request takes nothing of the limits.
            let mut permit = None;
            if self.held_up.as_ref() == Some(&place) {
                permit = self.shared.gate.enter(now);
                if permit.is_none() {
                    break;
                }
            }
            let mut event = Event::Due;
            if row.plan.is_none() || row.track.is_remade() {
                match self.plan(&row, cx)? {
                    Ok(Some(plan)) => {
                        // A destination may write an invoice as a journal, and must be asked about a journal afterwards.
                        row.form = plan.form;
                        row.plan = Some(plan);
                    }
                    Ok(None) => {
                        event = Event::Cancel(Person {
                            by: "accrue".to_owned(),
                            note: "the entries cancel each other out; there is nothing to write".to_owned(),
                        });
                    }
                    Err(refusal) => {
                        tracing::warn!(key = %row.key, code = refusal.code, advice = refusal.advice, "parked");
                        event = Event::Unplannable(refusal);
                    }
                }
            }
            match step(&row.track, event, self.certainty, now) {
                Ok((track, effect)) => {
                    let asks = match &effect {
                        Effect::Send { .. } | Effect::LookUp => true,
                        Effect::None | Effect::Settle => false,
                    };
                    if asks && permit.is_none() {
                        permit = self.shared.gate.enter(now);
                        if permit.is_none() {
                            self.held_up = Some(place);
                            break;
                        }
                    }
                    self.held_up = None;
                    self.apply(place, row, track, effect, permit, cx)?;
                }
                Err(misplaced) => {
                    return Err(Fault::Fatal(format!("document {}: {misplaced}", row.key)));
                }
            }
        }
        Ok(())
    }

    /// What would be sent; `None` where nothing is left to write.
    fn plan(&self, row: &Row, cx: &mut Context<'_>) -> Result<Result<Option<Plan>, Refusal>, Fault> {
        let entries = Store(cx).entries(&row.source)?;
        let sink = &self.shared.sink;
        if !sink.takes(&row.tenant) {
            return Ok(Err(Refusal {
                code: "not_of_this_sink".to_owned(),
                words: String::new(),
                advice: format!(
                    "{} is not among the tenants of [sinks.{}] any more: cancel the document, or name the tenant there again and retry",
                    row.tenant, sink.name
                ),
            }));
        }
        let document = assemble::document(sink.name.as_str(), &row.key, row.form, &entries, &sink.accounts);
        Ok(document.and_then(|document| match document.lines.is_empty() {
            true => Ok(None),
            false => self.shared.couriers.destination().plan(&document).map(Some),
        }))
    }

    fn report(&self) {
        let work = Work {
            active: self.ready.len()
                + self.awaited.len()
                + self.orphans.len()
                + usize::from(self.unmapped != Unmapped::None),
            parked: self.parked.len(),
            gathering: self.gathering.len(),
            uncommitted: self.uncommitted,
        };
        self.shared.board.post(self.partition, Some(work));
        let (sink, partition) = (self.shared.sink.name.as_str(), self.partition.to_string());
        let documents = &self.shared.metrics.documents;
        let gauge = |state: &str, count: usize| {
            documents
                .with_label_values(&[sink, &partition, state])
                .set(count as i64)
        };
        gauge("active", work.active);
        gauge("parked", work.parked);
        let oldest = self.waiting.first().map(|(source_at, _)| *source_at).into_iter();
        let oldest = oldest.chain(self.gathering.values().map(|group| group.source_at)).min();
        let age = oldest.map_or(0, |oldest| {
            (self.shared.clock)().duration_since(oldest).as_secs().max(0)
        });
        self.shared
            .metrics
            .oldest
            .with_label_values(&[sink, &partition])
            .set(age);
        let open = i64::from(!self.shared.gate.is_closed());
        self.shared.metrics.breaker.with_label_values(&[sink]).set(open);
    }
}

impl Processor for Deliver {
    fn open(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        self.partition = cx.partition();
        self.share = Some(self.shared.gate.join());
        self.keep_books(cx)?;
        let store = Store(cx);
        self.chain = store.chain()?;
        let mut last: Option<Queue> = None;
        while let Some((place, row)) = store.next_head(last.as_deref())? {
            let queue = queue_of(&place).ok_or_else(|| Fault::Fatal("a document without a queue".to_owned()))?;
            self.note(place, &row);
            match &row.track.state {
                State::Sent { .. } => self.orphans.push(queue.clone()),
                State::Parked(refusal) if refusal.code == assemble::NOT_MAPPED => self.unmapped = Unmapped::Found,
                State::Parked(_)
                | State::Planned { .. }
                | State::Uncertain { .. }
                | State::Acknowledged { .. }
                | State::Cancelled(_) => {}
            }
            last = Some(queue);
        }
        for (name, row) in store.groups()? {
            let gathered = self.gathered(&row);
            self.gathering.insert(name, gathered);
        }
        self.report();
        Ok(())
    }

    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        self.uncommitted = true;
        self.report();
        match marks(record)? {
            (Kind::Command, _) => self.obey(record, cx)?,
            (Kind::Entry, source_time) => self.take_in(record, source_time, cx)?,
        }
        Ok(Progress::Done)
    }

    fn tick(&mut self, _now: RecordTime, cx: &mut Context<'_>) -> Result<(), Fault> {
        let now = (self.shared.clock)();
        self.adopt_orphans(now, cx)?;
        self.ask_for_unmapped(cx)?;
        self.take_answers(now, cx)?;
        self.write_groups(now, cx)?;
        if self.shared.gate.take_probe(now) {
            self.shared.couriers.probe();
        }
        self.write_tickets(cx)?;
        self.start_due(now, cx)?;
        self.report();
        Ok(())
    }

    fn committed(&mut self) {
        for job in self.outbox.drain(..) {
            self.shared.couriers.dispatch(job);
        }
        self.tickets.clear();
        self.uncommitted = false;
        self.report();
    }
}

impl Drop for Deliver {
    fn drop(&mut self) {
        self.shared.gate.give_back(std::mem::take(&mut self.tickets));
        self.shared.board.post(self.partition, None);
    }
}
