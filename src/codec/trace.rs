//! W3C trace context on records: <https://www.w3.org/TR/trace-context/>.
//!
//! Invariant: the context of an output depends only on its input record and its own name, so a replay repeats it.
//! Deliberately absent: exporting spans, and randomness.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Incoming;

pub const TRACEPARENT: &str = "traceparent";
pub const TRACESTATE: &str = "tracestate";

/// The trace a record belongs to, and the span that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
    /// Vendors' own data, passed on as it came.
    state: Option<String>,
}

impl Trace {
    /// The trace the record carries; one derived from where the record was read when it carries none that is valid.
    pub fn of(record: &Incoming<'_>) -> Trace {
        let carried = record.header(TRACEPARENT).and_then(Trace::parse);
        if let Some(mut trace) = carried {
            trace.state = record
                .header(TRACESTATE)
                .and_then(|state| std::str::from_utf8(state).ok())
                .filter(|state| !state.is_empty() && state.len() <= 512)
                .map(str::to_string);
            return trace;
        }
        let place = format!("{}\n{}\n{}", record.topic, record.partition, record.offset);
        let hash = hash(&[&[b"trace"], &[place.as_bytes()]]);
        Trace {
            trace_id: part(&hash, 0),
            span_id: part(&hash, 16),
            sampled: true,
            state: None,
        }
    }

    /// The same trace, one step on: `topic` and `id` tell the outputs of one input apart.
    pub fn child(&self, topic: &str, id: &str) -> Trace {
        let name = [topic, "/", id].map(str::as_bytes);
        let hash = hash(&[&[b"span"], &[&self.trace_id], &[&self.span_id], &name]);
        Trace {
            span_id: part(&hash, 0),
            ..self.clone()
        }
    }

    /// `traceparent`, and `tracestate` when there is one.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, Bytes)> {
        let state = self.state.as_ref().map(|state| (TRACESTATE, state.clone().into()));
        std::iter::once((TRACEPARENT, self.header().into())).chain(state)
    }

    /// Version, trace, span, flags. Digit by digit: `write!` of a byte costs more than all the rest of a header.
    fn header(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(55);
        let hex = |text: &mut String, bytes: &[u8]| {
            for byte in bytes {
                text.push(DIGITS[usize::from(byte >> 4)].into());
                text.push(DIGITS[usize::from(byte & 15)].into());
            }
        };
        text.push_str("00-");
        hex(&mut text, &self.trace_id);
        text.push('-');
        hex(&mut text, &self.span_id);
        text.push('-');
        hex(&mut text, &[u8::from(self.sampled)]);
        text
    }

    fn parse(header: &[u8]) -> Option<Trace> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version: [u8; 1] = hex(version)?;
        // Version 00 has four parts; later ones may have more, ff is forbidden.
        if version == [0xff] || (version == [0] && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (hex(trace_id)?, hex(span_id)?);
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        let [flags] = hex::<1>(flags)?;
        Some(Trace {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
            state: None,
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.header())
    }
}

/// Of parts, each in one or more pieces.
fn hash(parts: &[&[&[u8]]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        part.iter().for_each(|piece| hasher.update(piece));
        hasher.update([0]);
    }
    hasher.finalize().into()
}

/// Bytes of a hash as an id; an id of zeros is not valid, so its last bit is set.
fn part<const N: usize>(hash: &[u8; 32], from: usize) -> [u8; N] {
    let mut id = [0; N];
    id.copy_from_slice(&hash[from..from + N]);
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

/// Lower-case hexadecimal, as the standard demands.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARRIED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn record<'a>(headers: &'a [(&'a str, &'a [u8])], offset: u64) -> Incoming<'a> {
        Incoming {
            topic: "crm.deals",
            partition: 3,
            offset,
            key: None,
            value: None,
            headers,
        }
    }

    #[test]
    fn a_valid_context_is_carried_on() {
        let headers = [(TRACEPARENT, CARRIED), (TRACESTATE, &b"vendor=1"[..])];
        let trace = Trace::of(&record(&headers, 7));
        assert_eq!(trace.to_string().as_bytes(), CARRIED);
        let child = trace.child("journal.entries", "je-1");
        assert_eq!(child.trace_id, trace.trace_id);
        assert_ne!(child.span_id, trace.span_id);
        assert_ne!(child, trace.child("journal.entries", "je-2"));
        assert_eq!(child.headers().nth(1), Some((TRACESTATE, Bytes::from("vendor=1"))));
    }

    #[test]
    fn an_invalid_context_is_replaced_by_one_derived_from_the_place() {
        let derived = Trace::of(&record(&[], 7));
        for bad in [
            &b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"[..],
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            b"00-\xff",
            b"",
        ] {
            let headers = [(TRACEPARENT, bad)];
            assert_eq!(Trace::of(&record(&headers, 7)), derived);
        }
        assert_ne!(Trace::of(&record(&[], 8)), derived);
        assert_eq!(derived.to_string().len(), 55);
    }
}
