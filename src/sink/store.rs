//! What a sink keeps, and under which keys.
//!
//! ```text
//! q 0 QUEUE 0 number     a document on its way; a queue is `tenant/deal`, or `tenant/` for summaries
//! d 0 KEY                where the document of a key or an entry is, or what became of it
//! s 0 SOURCE 0 number    an entry behind a document on its way
//! g 0 GROUP              a summary that is being gathered
//! c                      the chain of receipts
//! n                      the number of the next document
//! b                      the books that all of it is about: the identity of the system
//! ```
//!
//! Owns: these keys, and [`Row`]: a document on its way. Invariant: ids hold no control character, so a zero ends one.
//! Deliberately absent: bytes of values (`codec::delivery`), and the state machine.

use jiff::Timestamp;

use super::delivery::{State, Track};
use super::destination::{Plan, Refusal};
use super::document::{Form, Key};
use crate::codec::delivery::{self, ChainRow, DeliveryRow, DoneRow, GroupRow, RefusalRow, Stored};
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::journal::JournalEntry;
use crate::stream::fault::Fault;
use crate::stream::processor::Context;

/// The store's name.
pub const STORE: &str = "delivery";

/// The order in which documents of one deal are written: `tenant/deal`, or `tenant/` for summaries.
pub type Queue = String;

pub fn queue(tenant: &TenantId, deal: Option<&DealId>) -> Queue {
    format!("{tenant}/{}", deal.map_or("", DealId::as_str))
}

/// Where a document is: its key in the store.
pub type Place = Vec<u8>;

pub fn place(queue: &str, number: u64) -> Place {
    let mut key = prefix(b'q', queue);
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The queue of a place.
pub fn queue_of(place: &[u8]) -> Option<Queue> {
    let rest = place.strip_prefix(b"q\0")?;
    let end = rest.len().checked_sub(9)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

/// The start of the keys of an entry or document.
pub fn known(key: &str) -> Vec<u8> {
    prefix(b'd', key)
}

fn source(source: &str, number: u64) -> Vec<u8> {
    let mut key = prefix(b's', source);
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub fn group(name: &str) -> Vec<u8> {
    prefix(b'g', name)
}

fn prefix(kind: u8, name: &str) -> Vec<u8> {
    let mut key = vec![kind, 0];
    key.extend_from_slice(name.as_bytes());
    key
}

/// A document on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: Key,
    pub form: Form,
    pub tenant: TenantId,
    /// `None` for a summary.
    pub deal: Option<DealId>,
    pub source: String,
    pub entries: Vec<String>,
    pub source_at: Timestamp,
    pub planned_at: Timestamp,
    /// `None` until it is first sent, so that what is corrected in the topology counts.
    pub plan: Option<Plan>,
    pub track: Track,
}

impl Row {
    pub fn queue(&self) -> Queue {
        queue(&self.tenant, self.deal.as_ref())
    }

    pub fn encoded(&self) -> DeliveryRow {
        let track = &self.track;
        let mut row = DeliveryRow {
            key: self.key.as_str().to_owned(),
            form: self.form.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            deal: self.deal.as_ref().map(ToString::to_string),
            source: self.source.clone(),
            entries: self.entries.clone(),
            source_at: self.source_at,
            planned_at: self.planned_at,
            first_sent_at: track.first_sent_at,
            attempts: track.attempts,
            failures: track.failures,
            doubt: track.doubt,
            remake: track.remake,
            reference: self.plan.as_ref().map(|plan| plan.reference.clone()),
            body: self.plan.as_ref().map(|plan| plan.body.clone()),
            state: word(&track.state).to_owned(),
            since: track.since,
            due_at: None,
            resume: None,
            looks: 0,
            why: String::new(),
            refusal: None,
            rounds: track.rounds,
            taken: track.taken,
        };
        match &track.state {
            State::Planned {
                not_before,
                resume,
                why,
            } => {
                row.due_at = Some(*not_before);
                row.resume = resume.clone();
                row.why = why.clone();
            }
            State::Sent { resume } => row.resume = resume.clone(),
            State::Uncertain { look_up_at, looks, why } => {
                row.due_at = Some(*look_up_at);
                row.looks = *looks;
                row.why = why.clone();
            }
            State::Parked(refusal) => {
                row.refusal = Some(RefusalRow {
                    code: refusal.code.clone(),
                    words: refusal.words.clone(),
                    advice: refusal.advice.clone(),
                });
            }
            // Final states are not on their way.
            State::Acknowledged { .. } | State::Cancelled(_) => {}
        }
        row
    }

    /// # Errors
    /// A row that this program did not write.
    pub fn decoded(row: DeliveryRow) -> Result<Row, String> {
        let bad = |what: &str| format!("document {}: {what} cannot be read by this program", row.key);
        let due = || row.due_at.ok_or_else(|| bad("its time"));
        let state = match row.state.as_str() {
            "planned" => State::Planned {
                not_before: due()?,
                resume: row.resume.clone(),
                why: row.why.clone(),
            },
            "sent" => State::Sent {
                resume: row.resume.clone(),
            },
            "uncertain" => State::Uncertain {
                look_up_at: due()?,
                looks: row.looks,
                why: row.why.clone(),
            },
            "parked" => {
                let refusal = row.refusal.clone().ok_or_else(|| bad("its refusal"))?;
                State::Parked(Refusal {
                    code: refusal.code,
                    words: refusal.words,
                    advice: refusal.advice,
                })
            }
            _ => return Err(bad("its state")),
        };
        let form = Form::parse(&row.form).ok_or_else(|| bad("its form"))?;
        Ok(Row {
            key: Key::parse(row.key.clone()).ok_or_else(|| bad("its key"))?,
            form,
            tenant: TenantId::parse(row.tenant.clone()).ok_or_else(|| bad("its tenant"))?,
            deal: match &row.deal {
                Some(deal) => Some(DealId::parse(deal.clone()).ok_or_else(|| bad("its deal"))?),
                None => None,
            },
            plan: match (row.reference.clone(), row.body.clone()) {
                (Some(reference), Some(body)) => Some(Plan { form, reference, body }),
                _ => None,
            },
            track: Track {
                state,
                since: row.since,
                attempts: row.attempts,
                first_sent_at: row.first_sent_at,
                failures: row.failures,
                doubt: row.doubt,
                remake: row.remake,
                rounds: row.rounds,
                taken: row.taken,
            },
            source: row.source,
            entries: row.entries,
            source_at: row.source_at,
            planned_at: row.planned_at,
        })
    }
}

/// The word of a state, for people and in the store.
pub fn word(state: &State) -> &'static str {
    match state {
        State::Planned { .. } => "planned",
        State::Sent { .. } => "sent",
        State::Uncertain { .. } => "uncertain",
        State::Parked(_) => "parked",
        State::Acknowledged { .. } => "acknowledged",
        State::Cancelled(_) => "cancelled",
    }
}

/// What is known of an entry or a document.
pub enum Known {
    OnItsWay(Place),
    /// Gathered for a summary.
    Gathered,
    Done(DoneRow),
}

/// The store of a task, while its context is at hand.
pub struct Store<'a, 'c>(pub &'a mut Context<'c>);

impl Store<'_, '_> {
    pub fn row(&self, place: &[u8]) -> Result<Option<Row>, Fault> {
        match self.get(place)? {
            Some(Stored::Delivery(row)) => Row::decoded(*row).map(Some).map_err(Fault::Fatal),
            Some(_) => Err(strange(place)),
            None => Ok(None),
        }
    }

    pub fn put_row(&mut self, place: &Place, row: &Row) -> Result<(), Fault> {
        self.put(place.clone(), &Stored::Delivery(Box::new(row.encoded())))
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<(), Fault> {
        self.0.delete(STORE, key)
    }

    /// The first document of a queue.
    pub fn head(&self, queue: &str) -> Result<Option<(Place, Row)>, Fault> {
        self.first_row(&place(queue, 0), &place(queue, u64::MAX))
    }

    /// The first document of the first queue after another; of all, without one.
    pub fn next_head(&self, after: Option<&str>) -> Result<Option<(Place, Row)>, Fault> {
        // 1 sorts after the 0 that ends a queue's name, and no name holds either.
        let from = match after {
            Some(queue) => {
                let mut key = prefix(b'q', queue);
                key.push(1);
                key
            }
            None => prefix(b'q', ""),
        };
        self.first_row(&from, b"q\x01")
    }

    fn first_row(&self, from: &[u8], to: &[u8]) -> Result<Option<(Place, Row)>, Fault> {
        match self.0.range(STORE, from, to, 1)?.pop() {
            Some((place, bytes)) => match decode(&place, &bytes)? {
                Stored::Delivery(row) => Ok(Some((place, Row::decoded(*row).map_err(Fault::Fatal)?))),
                _ => Err(strange(&place)),
            },
            None => Ok(None),
        }
    }

    pub fn known(&self, key: &str) -> Result<Option<Known>, Fault> {
        let at = known(key);
        match self.get(&at)? {
            Some(Stored::Placed(place)) if place.is_empty() => Ok(Some(Known::Gathered)),
            Some(Stored::Placed(place)) => Ok(Some(Known::OnItsWay(place))),
            Some(Stored::Done(row)) => Ok(Some(Known::Done(row))),
            Some(_) => Err(strange(&at)),
            None => Ok(None),
        }
    }

    pub fn put_known(&mut self, key: &str, what: Known) -> Result<(), Fault> {
        let value = match what {
            Known::OnItsWay(place) => Stored::Placed(place),
            Known::Gathered => Stored::Placed(Vec::new()),
            Known::Done(row) => Stored::Done(row),
        };
        self.put(known(key), &value)
    }

    pub fn put_entry(&mut self, of: &str, number: u64, entry: &JournalEntry) -> Result<(), Fault> {
        self.put(source(of, number), &Stored::Entry(Box::new(entry.clone())))
    }

    /// The entries behind a document, in order.
    pub fn entries(&self, of: &str) -> Result<Vec<JournalEntry>, Fault> {
        let mut entries = Vec::new();
        for (key, bytes) in self.0.range(STORE, &source(of, 0), &source(of, u64::MAX), usize::MAX)? {
            match decode(&key, &bytes)? {
                Stored::Entry(entry) => entries.push(*entry),
                _ => return Err(strange(&key)),
            }
        }
        Ok(entries)
    }

    pub fn delete_entries(&mut self, of: &str, count: usize) -> Result<(), Fault> {
        (0..count as u64).try_for_each(|number| self.delete(&source(of, number)))
    }

    /// Every summary that is being gathered, by name.
    pub fn groups(&self) -> Result<Vec<(String, GroupRow)>, Fault> {
        let mut groups = Vec::new();
        for (key, bytes) in self.0.range(STORE, b"g\0", b"g\x01", usize::MAX)? {
            let name = String::from_utf8(key[2..].to_vec()).map_err(|_| strange(&key))?;
            match decode(&key, &bytes)? {
                Stored::Group(row) => groups.push((name, row)),
                _ => return Err(strange(&key)),
            }
        }
        Ok(groups)
    }

    /// A summary that is being gathered.
    pub fn group(&self, name: &str) -> Result<Option<GroupRow>, Fault> {
        let at = group(name);
        match self.get(&at)? {
            Some(Stored::Group(row)) => Ok(Some(row)),
            Some(_) => Err(strange(&at)),
            None => Ok(None),
        }
    }

    pub fn put_group(&mut self, name: &str, row: &GroupRow) -> Result<(), Fault> {
        self.put(group(name), &Stored::Group(row.clone()))
    }

    pub fn chain(&self) -> Result<ChainRow, Fault> {
        match self.get(b"c")? {
            Some(Stored::Chain(row)) => Ok(row),
            Some(_) => Err(strange(b"c")),
            None => Ok(ChainRow::default()),
        }
    }

    pub fn put_chain(&mut self, row: &ChainRow) -> Result<(), Fault> {
        self.put(b"c".to_vec(), &Stored::Chain(row.clone()))
    }

    /// The identity of the system that all of this is about; `None` before anything was written down.
    pub fn books(&self) -> Result<Option<String>, Fault> {
        match self.get(b"b")? {
            Some(Stored::Books(identity)) => Ok(Some(identity)),
            Some(_) => Err(strange(b"b")),
            None => Ok(None),
        }
    }

    pub fn put_books(&mut self, identity: &str) -> Result<(), Fault> {
        self.put(b"b".to_vec(), &Stored::Books(identity.to_owned()))
    }

    /// The number of the next document; it is used up.
    pub fn next_number(&mut self) -> Result<u64, Fault> {
        let next = match self.get(b"n")? {
            Some(Stored::Sequence(next)) => next,
            Some(_) => return Err(strange(b"n")),
            None => 1,
        };
        self.put(b"n".to_vec(), &Stored::Sequence(next + 1))?;
        Ok(next)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Stored>, Fault> {
        let bytes = self.0.get(STORE, key)?;
        bytes.map(|bytes| decode(key, &bytes)).transpose()
    }

    fn put(&mut self, key: Vec<u8>, value: &Stored) -> Result<(), Fault> {
        let bytes = delivery::encode(value).map_err(|refused| Fault::Fatal(refused.to_string()))?;
        self.0.put(STORE, key, bytes)
    }
}

/// Neither a restore nor a retry makes these bytes readable: the operator has to run the program that wrote them.
fn decode(key: &[u8], bytes: &[u8]) -> Result<Stored, Fault> {
    delivery::decode(bytes).map_err(|refused| Fault::Fatal(format!("{}: {refused}", shown(key))))
}

fn strange(key: &[u8]) -> Fault {
    Fault::Fatal(format!("{}: the store holds another kind of value here", shown(key)))
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', " ")
}
