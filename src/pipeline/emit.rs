//! From decoded values to records to emit, with their headers.
//!
//! Owns: record keys (`tenant/deal`), CloudEvents and trace headers on everything we write.
//! Invariant: headers depend on the input record and the output alone, so a replay repeats them.

use jiff::Timestamp;

use crate::codec::cloudevents::{self, Attributes};
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
        .map(|header| (header.name.as_ref(), header.value.as_slice()))
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

/// What an output is called, for its headers.
pub struct Named<'a> {
    pub id: &'a str,
    pub source: &'a str,
    pub kind: &'a str,
    pub time: Timestamp,
    pub tenant: &'a TenantId,
    pub deal: Option<&'a DealId>,
}

/// An output of `input`.
pub fn emission(
    input: &Record,
    trace: &Trace,
    topic: &Topic,
    route: Route,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    named: &Named<'_>,
) -> Emission {
    let attributes = Attributes {
        id: named.id,
        source: named.source,
        kind: named.kind,
        time: named.time,
        subject: named.deal.map(DealId::as_str),
        tenant: named.tenant,
    };
    let trace = trace.child(&format!("{topic}/{}", named.id));
    let headers = cloudevents::headers(&attributes, &trace)
        .into_iter()
        .map(|(name, value)| Header::new(name, value))
        .collect();
    Emission {
        topic: topic.clone(),
        route,
        timestamp: input.timestamp,
        key: Some(key),
        value,
        headers,
    }
}

/// How a fact is named in headers.
pub fn named(fact: &Fact) -> Named<'_> {
    Named {
        id: fact.event_id.as_str(),
        source: &fact.source,
        kind: fact.body.type_name(),
        time: fact.occurred_at,
        tenant: &fact.tenant,
        deal: fact.body.deal_id(),
    }
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
