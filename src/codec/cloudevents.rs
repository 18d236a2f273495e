//! CloudEvents in and out: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>.
//!
//! Invariant: a plain event, a binary CloudEvent (`ce_*` headers) and a structured one with the same content are the
//! same fact. `id`, `source`, `type`, `time` and the extension `tenantid` are the envelope, `data` is the payload; data
//! that is itself a whole canonical event stands as it is. Deliberately absent: batches.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::trace::Trace;
use super::{Incoming, Refused};
use crate::revenue::ids::TenantId;

/// The canonical event a record carries, as the bytes of its JSON, whichever of the three ways it was sent.
///
/// # Errors
/// A CloudEvent that is not JSON, or without an attribute that the envelope needs. A plain event is not looked into.
pub fn canonical<'a>(record: &Incoming<'a>) -> Result<Cow<'a, [u8]>, Refused> {
    let Some(bytes) = record.value else {
        return Err(Refused::new(
            "bad_event",
            "the record has no value; an event cannot be deleted, send another event",
        ));
    };
    let content_type = record
        .header("content-type")
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    if content_type.starts_with("application/cloudevents-batch") {
        return Err(Refused::new(
            "bad_event",
            "CloudEvents batches are not read; send one event for each record",
        ));
    }
    let event = if record.header("ce_specversion").is_some() {
        binary(record, &content_type, bytes)?
    } else if content_type.starts_with("application/cloudevents") {
        structured(parse("value", bytes)?)?
    } else if mentions_specversion(bytes) {
        let json = parse("value", bytes)?;
        if json.get("specversion").is_none() {
            return Ok(Cow::Borrowed(bytes));
        }
        structured(json)?
    } else {
        return Ok(Cow::Borrowed(bytes));
    };
    Ok(Cow::Owned(event.to_string().into_bytes()))
}

/// A cheap look, so that plain events are parsed once.
fn mentions_specversion(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"\"specversion\"";
    bytes.windows(NAME.len()).any(|window| window == NAME)
}

/// The attributes that all records which we emit for one event have in common. To copy them is to count.
#[derive(Debug, Clone)]
pub struct Attributes {
    source: Bytes,
    time: Bytes,
    subject: Option<Bytes>,
    tenant: Bytes,
}

impl Attributes {
    /// `subject` is what the event is about: the deal.
    pub fn new(source: &str, time: Timestamp, subject: Option<&str>, tenant: &TenantId) -> Attributes {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Attributes {
            source: text(source),
            time: time.to_string().into(),
            subject: subject.map(text),
            tenant: text(tenant.as_str()),
        }
    }

    /// The headers of a record that we emit: a binary CloudEvent whose data is Avro, with its trace. `kind` is such as
    /// `deal.closed` or `journal.entry`.
    pub fn headers(&self, id: &str, kind: &'static str, trace: &Trace) -> impl Iterator<Item = (&'static str, Bytes)> {
        let named = [
            ("ce_specversion", Some(Bytes::from_static(b"1.0"))),
            ("ce_id", Some(Bytes::copy_from_slice(id.as_bytes()))),
            ("ce_source", Some(self.source.clone())),
            ("ce_type", Some(Bytes::from_static(kind.as_bytes()))),
            ("ce_time", Some(self.time.clone())),
            ("ce_subject", self.subject.clone()),
            ("ce_tenantid", Some(self.tenant.clone())),
            ("content-type", Some(Bytes::from_static(b"application/avro"))),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        named.chain(trace.headers())
    }
}

fn binary(record: &Incoming<'_>, content_type: &str, bytes: &[u8]) -> Result<Json, Refused> {
    if !content_type.is_empty() && !is_json(content_type) {
        let message = format!("the CloudEvent's content-type is {content_type:?}; send JSON");
        return Err(Refused::new("bad_event", message));
    }
    let mut attributes = Map::new();
    for name in ["specversion", "id", "source", "type", "time", "tenantid"] {
        if let Some(value) = record.header(&format!("ce_{name}")) {
            let text = std::str::from_utf8(value)
                .map_err(|_| Refused::new("bad_event", format!("the header ce_{name} is not UTF-8")))?;
            attributes.insert(name.to_string(), text.into());
        }
    }
    event(attributes, parse("value", bytes)?, "ce_")
}

fn structured(json: Json) -> Result<Json, Refused> {
    let Json::Object(mut fields) = json else {
        return Err(Refused::new("bad_event", "a structured CloudEvent is a JSON object"));
    };
    let data = match (fields.remove("data"), fields.remove("data_base64")) {
        (Some(data), None) => data,
        (None, Some(Json::String(text))) => {
            let bytes = BASE64
                .decode(text)
                .map_err(|error| Refused::new("bad_event", format!("data_base64 is not base64: {error}")))?;
            parse("data_base64", &bytes)?
        }
        (None, None) => return Err(Refused::new("bad_event", "the CloudEvent has no data")),
        (_, Some(_)) => {
            return Err(Refused::new(
                "bad_event",
                "the CloudEvent needs one of data and data_base64 (text)",
            ));
        }
    };
    event(fields, data, "")
}

/// Attributes and data as a canonical event. `prefix` is how the sender spells attributes, for messages.
fn event(mut attributes: Map<String, Json>, data: Json, prefix: &str) -> Result<Json, Refused> {
    match attributes.get("specversion").and_then(Json::as_str) {
        Some("1.0") => {}
        other => {
            let found = other.unwrap_or("none");
            return Err(Refused::new(
                "bad_event",
                format!("{prefix}specversion is {found}; 1.0 is read"),
            ));
        }
    }
    if data.get("event_id").is_some() && data.get("payload").is_some() {
        return Ok(data);
    }
    let mut event = Map::new();
    for (attribute, field) in [
        ("id", "event_id"),
        ("source", "source"),
        ("type", "type"),
        ("time", "occurred_at"),
        ("tenantid", "tenant_id"),
    ] {
        let value = attributes.remove(attribute).ok_or_else(|| {
            Refused::new(
                "bad_event",
                format!("the CloudEvent lacks {prefix}{attribute}, the event's {field}"),
            )
        })?;
        event.insert(field.to_string(), value);
    }
    event.insert("payload".to_string(), data);
    Ok(Json::Object(event))
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media == "application/json" || media.ends_with("+json")
}

fn parse(part: &str, bytes: &[u8]) -> Result<Json, Refused> {
    serde_json::from_slice(bytes).map_err(|error| Refused::not_json(part, bytes, &error))
}
