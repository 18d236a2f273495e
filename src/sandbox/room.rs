//! What a system must offer to be played.
//!
//! Owns: [`Vendor`], implemented once for each system, and the requests and responses it sees. Absent: sockets and time,
//! which the server passes in.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

/// One accounting system. `now` is the time since the start, by the sandbox's clock.
pub trait Vendor: Send {
    /// Its name in addresses: `xero`.
    fn name(&self) -> &'static str;

    /// What a request is, before it is carried out.
    fn kind(&self, request: &Request) -> Kind;

    /// Carries one request out.
    fn handle(&mut self, request: &Request, now: Duration) -> Response;

    /// Requests a minute and a day, tokens not counted.
    fn limits(&self) -> Limits;

    /// Every document it holds, oldest first.
    fn documents(&self) -> Vec<Posted>;

    /// Access tokens given so far stop working.
    fn expire_tokens(&mut self);

    /// Sets what a test or a user may choose: see [`Settings`].
    fn set(&mut self, settings: &Settings);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Token,
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub per_minute: Option<u32>,
    pub per_day: Option<u32>,
}

/// Choices of `POST /NAME/_sandbox/settings`; what is left out stays as it is.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// No document may be dated on or before this day.
    pub closed_until: Option<String>,
    /// The only accounts there are. Before this is set, any account is known.
    pub accounts: Option<Vec<String>>,
    /// How many times a job is asked about before it has run (systems that import by jobs).
    pub pending_polls: Option<u32>,
}

/// An HTTP request whose path starts below the system's own address.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn query(&self, name: &str) -> &str {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: &Value) -> Response {
        Response {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        }
    }

    pub fn empty(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn throttled(retry_after: Duration) -> Response {
        let seconds = retry_after.as_secs().max(1).to_string();
        Response::json(429, &json!({ "message": "too many requests" })).with("retry-after", &seconds)
    }
}

/// A document as the sandbox shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// `journal`, `invoice`, `credit_note`.
    pub kind: &'static str,
    pub id: String,
    pub reference: String,
    pub date: String,
    pub currency: String,
    pub status: String,
    pub customer: String,
    pub text: String,
    /// Account and amount, debit above zero, in the document's currency.
    pub lines: Vec<(String, Decimal)>,
}

impl Posted {
    /// The same as JSON, amounts as text.
    pub fn json(&self) -> Value {
        let line = |(account, amount): &(String, Decimal)| json!({ "account": account, "amount": amount.to_string() });
        json!({
            "kind": self.kind,
            "id": self.id,
            "reference": self.reference,
            "date": self.date,
            "currency": self.currency,
            "status": self.status,
            "customer": self.customer,
            "text": self.text,
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}
