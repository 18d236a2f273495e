//! What comes in: entries of the journal, and decisions of operators.
//!
//! Invariant: an entry that is known, on its way or settled, is passed over, so a replay of the topics writes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Deliver, Gathered, Unmapped};
use crate::codec::delivery::GroupRow;
use crate::codec::delivery_command::{Decision, SinkCommand};
use crate::config::Granularity;
use crate::revenue::journal::JournalEntry;
use crate::sink::assemble::{NOT_MAPPED, form, summary_key};
use crate::sink::collect::COMMANDS;
use crate::sink::delivery::{Event, Person, State, Track, later, step};
use crate::sink::document::{Form, Key};
use crate::sink::store::{Known, Row, Store, group, place, queue, queue_of};
use crate::stream::fault::Fault;
use crate::stream::processor::{Context, Emission, Failure, Rejected, Route};
use crate::stream::record::{Record, Timestamp as RecordTime};
use crate::stream::seeded::{self, Bug};

/// Entries of one summary, at which it is written early: its receipt names them all.
const MOST_ENTRIES: u64 = 2_000;

impl Deliver {
    /// Takes in an entry of the journal.
    pub(super) fn take_in(
        &mut self,
        record: &Record,
        source_time: RecordTime,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let Some(value) = &record.value else {
            return Ok(());
        };
        let entry = self.shared.schemas.decode_journal_entry(value)?;
        // Collected before the topology named the sink's tenants.
        if !self.shared.sink.takes(&entry.tenant) {
            return Ok(());
        }
        let id = entry.entry_id.as_str();
        let Some(key) = Key::parse(id) else {
            return Err(rejected(
                "bad_entry_id",
                format!("entry {id:?} has no id that can be a key"),
            ));
        };
        if Store(cx).known(id)?.is_some() {
            return Ok(());
        }
        let now = (self.shared.clock)();
        let source_at = Timestamp::from_millisecond(source_time.0).unwrap_or(now);
        let form = form(&entry, self.shared.sink.documents);
        let summed = match (self.shared.sink.granularity, form) {
            (Granularity::Summary { .. }, Form::Journal) => self.may_be_summed(&entry, cx)?,
            (Granularity::Summary { .. }, Form::Invoice | Form::CreditNote) | (Granularity::Entry, _) => false,
        };
        match summed {
            true => self.gather(&entry, source_at, now, cx)?,
            false => {
                let mut store = Store(cx);
                store.put_entry(id, 0, &entry)?;
                let row = Row {
                    form,
                    tenant: entry.tenant.clone(),
                    deal: Some(entry.deal.clone()),
                    source: id.to_owned(),
                    entries: vec![id.to_owned()],
                    source_at,
                    planned_at: now,
                    plan: None,
                    track: Track::new(now),
                    key,
                };
                self.queue_up(row, cx)?;
            }
        }
        Ok(())
    }

    /// Whether an entry may go into a summary: not before what its deal still waits for, unless it reverses an entry that
    /// is in a summary itself.
    fn may_be_summed(&self, entry: &JournalEntry, cx: &mut Context<'_>) -> Result<bool, Fault> {
        if let Some(reversed) = &entry.reverses {
            match Store(cx).known(reversed.as_str())? {
                Some(Known::Gathered) => return Ok(true),
                Some(Known::OnItsWay(at)) => return Ok(queue_of(&at) == Some(queue(&entry.tenant, None))),
                Some(Known::Done(_)) | None => {}
            }
        }
        Ok(!self.heads.contains_key(&queue(&entry.tenant, Some(&entry.deal))))
    }

    /// Puts a document at the end of its queue.
    fn queue_up(&mut self, row: Row, cx: &mut Context<'_>) -> Result<(), Fault> {
        let queue = row.queue();
        let mut store = Store(cx);
        let at = place(&queue, store.next_number()?);
        store.put_row(&at, &row)?;
        store.put_known(row.key.as_str(), Known::OnItsWay(at.clone()))?;
        for entry in row.entries.iter().filter(|entry| *entry != row.key.as_str()) {
            store.put_known(entry, Known::OnItsWay(at.clone()))?;
        }
        if !self.heads.contains_key(&queue) {
            self.note(at, &row);
        }
        Ok(())
    }

    /// Adds an entry to its summary.
    fn gather(
        &mut self,
        entry: &JournalEntry,
        source_at: Timestamp,
        now: Timestamp,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let name = [
            entry.tenant.as_str(),
            &entry.date.to_string(),
            entry.currency.code(),
            entry.functional_currency.code(),
        ]
        .join("/");
        let mut store = Store(cx);
        let known = store.group(&name)?;
        let mut row = match known {
            Some(row) => row,
            None => GroupRow {
                tenant: entry.tenant.as_str().to_owned(),
                opened_at: now,
                source_at,
                source: format!("{name}/{}", store.next_number()?),
                count: 0,
            },
        };
        store.put_entry(&row.source, row.count, entry)?;
        store.put_known(entry.entry_id.as_str(), Known::Gathered)?;
        row.count += 1;
        row.source_at = row.source_at.min(source_at);
        store.put_group(&name, &row)?;
        let mut gathered = self.gathered(&row);
        if row.count >= MOST_ENTRIES {
            gathered.due = now;
        }
        self.gathering.insert(name, gathered);
        Ok(())
    }

    /// What is kept in memory of a summary that is being gathered.
    pub(super) fn gathered(&self, row: &GroupRow) -> Gathered {
        let number = row.source.rsplit('/').next().and_then(|number| number.parse().ok());
        Gathered {
            tenant: row.tenant.clone(),
            number: number.unwrap_or(0),
            due: self.group_due(row.opened_at),
            source_at: row.source_at,
        }
    }

    /// When a summary is written.
    fn group_due(&self, opened_at: Timestamp) -> Timestamp {
        match self.shared.sink.granularity {
            Granularity::Summary { every } => later(opened_at, every.get()),
            // The topology asked for summaries once; what was gathered is written now.
            Granularity::Entry => opened_at,
        }
    }

    /// Queues the summaries whose time has come, and before each what was begun earlier of its tenant: a reversal must not
    /// come before what it reverses.
    pub(super) fn write_groups(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Result<(), Fault> {
        let flush = self.shared.board.is_flushing();
        let mut last_due: BTreeMap<&str, u64> = BTreeMap::new();
        for group in self.gathering.values().filter(|group| flush || group.due <= now) {
            let last = last_due.entry(&group.tenant).or_default();
            *last = group.number.max(*last);
        }
        let is_due = |group: &Gathered| {
            last_due
                .get(group.tenant.as_str())
                .is_some_and(|last| group.number <= *last)
        };
        let due = self.gathering.iter().filter(|(_, group)| is_due(group));
        let mut due: Vec<(u64, String)> = due.map(|(name, group)| (group.number, name.clone())).collect();
        due.sort_unstable();
        for (_, name) in due {
            self.gathering.remove(&name);
            let mut store = Store(cx);
            let Some(group_row) = store.group(&name)? else {
                continue;
            };
            let all = store.entries(&group_row.source)?;
            let Some(first) = all.first() else {
                continue;
            };
            let entries: Vec<String> = all.iter().map(|entry| entry.entry_id.as_str().to_owned()).collect();
            let text = summary_key(&entries);
            let key = Key::parse(text.clone()).ok_or_else(|| Fault::Fatal(format!("{text} is no key")))?;
            store.delete(&group(&name))?;
            let row = Row {
                key,
                form: Form::Journal,
                tenant: first.tenant.clone(),
                deal: None,
                source: group_row.source,
                entries,
                source_at: group_row.source_at,
                planned_at: now,
                plan: None,
                track: Track::new(now),
            };
            self.queue_up(row, cx)?;
            self.uncommitted = true;
        }
        Ok(())
    }

    /// Asks, through the log, that what waits for an account be tried again: the topology may have the line by now. So
    /// what people said before the start, such as that it was booked by hand, is read first.
    pub(super) fn ask_for_unmapped(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.unmapped != Unmapped::Found {
            return Ok(());
        }
        let command = SinkCommand {
            sink: self.shared.sink.name.as_str().to_owned(),
            key: self.partition.to_string(),
            attempts: None,
            decision: Decision::RetryUnmapped,
            by: "accrue".to_owned(),
            note: "the sink was started".to_owned(),
        };
        let value = self.shared.schemas.encode_sink_command(&command);
        cx.emit(Emission {
            topic: self.shared.topics.commands.clone(),
            // Where people's decisions are.
            route: Route::To(COMMANDS),
            timestamp: RecordTime((self.shared.clock)().as_millisecond()),
            key: Some(command.key.into_bytes()),
            value: Some(value.map_err(|refused| Fault::Fatal(refused.to_string()))?),
            headers: Vec::new(),
        })?;
        self.unmapped = Unmapped::Asked;
        self.uncommitted = true;
        Ok(())
    }

    fn retry_unmapped(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        self.unmapped = Unmapped::None;
        let now = (self.shared.clock)();
        for queue in self.parked.clone() {
            let Some((place, row)) = Store(cx).head(&queue)? else {
                continue;
            };
            if let State::Parked(refusal) = &row.track.state
                && refusal.code == NOT_MAPPED
                && let Ok((track, effect)) = step(&row.track, Event::Retry, self.certainty, now)
            {
                self.apply(place, row, track, effect, None, cx)?;
            }
        }
        Ok(())
    }

    /// Carries out a decision of an operator.
    pub(super) fn obey(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(value) = &record.value else {
            return Ok(());
        };
        let command = self.shared.schemas.decode_sink_command(value)?;
        if command.decision == Decision::RetryUnmapped {
            if command.key == self.partition.to_string() {
                self.retry_unmapped(cx)?;
            }
            return Ok(());
        }
        let store = Store(cx);
        let at = match store.known(&command.key)? {
            Some(Known::OnItsWay(place)) => place,
            // Every partition hears of every decision.
            None => return Ok(()),
            Some(Known::Gathered) => {
                let message = format!("entry {} is gathered for a summary, which is not made yet", command.key);
                return Err(rejected("delivery_not_ready", message));
            }
            Some(Known::Done(done)) => {
                let message = format!("document {} is settled: {}", command.key, done.outcome);
                return Err(rejected("delivery_settled", message));
            }
        };
        let Some(row) = store.row(&at)? else {
            return Err(Fault::Fatal(format!("document {} is not where it should be", command.key)).into());
        };
        let is_stale = command.attempts.is_some_and(|seen| seen != row.track.attempts);
        if is_stale && !seeded::has(Bug::StaleDecisionObeyed) {
            let message = format!(
                "document {} was sent since this was decided; look at it again (`accrue deliveries explain {}`), and decide then",
                row.key, row.key
            );
            return Err(rejected("delivery_changed", message));
        }
        let person = Person {
            by: command.by,
            note: command.note,
        };
        let event = match command.decision {
            Decision::Retry => Event::Retry,
            Decision::Cancel => Event::Cancel(person),
            Decision::Confirm { external_id } => Event::Confirm { external_id, person },
            Decision::RetryUnmapped => return Ok(()),
        };
        let now = (self.shared.clock)();
        match step(&row.track, event, self.certainty, now) {
            Ok((track, effect)) => Ok(self.apply(at, row, track, effect, None, cx)?),
            Err(misplaced) => Err(rejected("delivery_not_ready", misplaced.to_string())),
        }
    }
}

fn rejected(code: &str, message: String) -> Failure {
    Failure::Record(Rejected {
        code: code.to_owned(),
        message,
    })
}
