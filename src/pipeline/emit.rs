//! From decoded values to records to emit, with their headers.
//!
//! Owns: record keys (`tenant/deal`), CloudEvents and trace headers on everything we write.
//! Invariant: headers depend on the input record and the output alone, so a replay repeats them.

use crate::codec::cloudevents::Attributes;
use crate::codec::trace::Trace;
use crate::codec::{DecodeError, Incoming, Refused};
use crate::revenue::fact::Fact;
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::reject::Rejection;
use crate::stream::fault::Fault;
use crate::stream::processor::{Emission, Failure, Rejected, Route};
use crate::stream::record::{Header, Record, Topic};

/// The key of everything that belongs to a deal.
pub fn deal_key(tenant: &TenantId, deal: &DealId) -> Vec<u8> {
    format!("{tenant}/{deal}").into_bytes()
}

/// Calls `read` with the record as the codec sees it.
pub fn incoming<T>(record: &Record, read: impl FnOnce(&Incoming<'_>) -> T) -> T {
    let headers: Vec<(&str, &[u8])> = record
        .headers
        .iter()
        .map(|header| (header.name.as_ref(), header.value.as_ref()))
        .collect();
    read(&Incoming {
        topic: record.at.topic.as_str(),
        partition: record.at.partition.0,
        offset: record.offset.0,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    })
}

/// A record that is processed, and what all its outputs have in common.
pub struct Cause<'a> {
    record: &'a Record,
    trace: &'a Trace,
    attributes: Attributes,
}

/// Headers that we write, at most.
const HEADERS: usize = 10;

impl<'a> Cause<'a> {
    /// `record` said `fact`, which is about `deal` here.
    pub fn new(record: &'a Record, trace: &'a Trace, fact: &Fact, deal: Option<&DealId>) -> Cause<'a> {
        let subject = deal.map(DealId::as_str);
        Cause {
            record,
            trace,
            attributes: Attributes::new(&fact.source, fact.occurred_at, subject, &fact.tenant),
        }
    }

    /// An output, by its id and CloudEvents type.
    pub fn emission(
        &self,
        (topic, route): (&Topic, Route),
        key: Vec<u8>,
        value: Vec<u8>,
        (id, kind): (&str, &'static str),
    ) -> Emission {
        let trace = self.trace.child(topic.as_str(), id);
        // A chain of iterators does not know its length, and the list would grow three times.
        let mut headers = Vec::with_capacity(HEADERS);
        let named = self.attributes.headers(id, kind, &trace);
        headers.extend(named.map(|(name, value)| Header::new(name, value)));
        Emission {
            topic: topic.clone(),
            route,
            timestamp: self.record.timestamp,
            key: Some(key),
            value: Some(value),
            headers,
        }
    }
}

/// How a fact is named in headers: its id and its type.
pub fn named(fact: &Fact) -> (&str, &'static str) {
    (fact.event_id.as_str(), fact.body.type_name())
}

impl From<Refused> for Rejected {
    fn from(refused: Refused) -> Rejected {
        Rejected {
            code: refused.code.to_owned(),
            message: refused.message,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::Record(refused.into())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        match error {
            DecodeError::Refused(refused) => refused.into(),
            // The record is good; the registry will be back.
            DecodeError::Unavailable(why) => Failure::Fault(Fault::Retry(format!("schema registry: {why}"))),
        }
    }
}

/// A business reason, with the fact it is about.
pub fn rejected(event_id: &str, rejection: &Rejection) -> Rejected {
    Rejected {
        code: rejection.code.as_str().to_owned(),
        message: format!("event {event_id}: {rejection}"),
    }
}
