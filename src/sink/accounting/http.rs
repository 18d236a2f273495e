//! One HTTP exchange with an accounting system, and what is known when it fails.
//!
//! Owns: the request, the bounded reply, and the words of a reply that may be kept.
//! Invariant: a failure is [`Lost::Unsent`] only when no byte of the request can have reached the system; no secret of
//! the request is in anything returned, even where the system repeats it.
//! Absent: retries and waiting (the worker's), and what a reply means (`judge`).

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::codec::receipt::hex;

pub use reqwest::{Method, Url};

/// The longest reply that is read. A longer one is not understood.
pub const REPLY_MAX_BYTES: usize = 4 << 20;
/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How much of a system's own words is kept.
const WORDS_MAX_CHARS: usize = 500;

/// A client of one system: connections, time limits, no redirects (a redirected POST would become a GET).
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
}

/// What is asked.
pub struct Ask {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(&'static str, String)>,
    /// Content type and bytes.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// What was answered, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub location: Option<String>,
    pub body: Vec<u8>,
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nothing was done: not connected, or not authorised to begin with.
    #[error("{0}")]
    Unsent(String),
    /// The request may have been carried out.
    #[error("{0}")]
    Unknown(String),
}

impl Http {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(timeout: Duration) -> Result<Http, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .redirect(Policy::none())
            .user_agent(concat!("accrue/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Http { client })
    }

    /// Asks once. `authorization` is the value of that header; it is taken out of the reply.
    pub async fn exchange(&self, ask: &Ask, authorization: &str) -> Result<Reply, Lost> {
        let mut request = self
            .client
            .request(ask.method.clone(), ask.url.clone())
            .header(ACCEPT, "application/json");
        if !authorization.is_empty() {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some((content_type, body)) = &ask.body {
            request = request.header(CONTENT_TYPE, *content_type).body(body.clone());
        }
        let mut response = request.send().await.map_err(lost)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let mut reply = Reply {
            status: response.status().as_u16(),
            retry_after: header(RETRY_AFTER).and_then(retry_after),
            location: header(LOCATION)
                .map(|at| String::from_utf8_lossy(&scrubbed(at.as_bytes(), authorization)).into_owned()),
            body: Vec::new(),
        };
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if reply.body.len() + chunk.len() > REPLY_MAX_BYTES {
                return Err(Lost::Unknown(format!(
                    "the reply is longer than {REPLY_MAX_BYTES} bytes"
                )));
            }
            reply.body.extend_from_slice(&chunk);
        }
        reply.body = scrubbed(&reply.body, authorization);
        Ok(reply)
    }
}

impl Reply {
    /// # Errors
    /// What is wrong, with the start of the text.
    pub fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("the reply is not JSON ({error}): {}", self.words()))
    }

    /// SHA-256 of the body, in hexadecimal.
    pub fn digest(&self) -> String {
        sha256_hex(&self.body)
    }

    /// The start of the body as one line of text.
    pub fn words(&self) -> String {
        words(&String::from_utf8_lossy(&self.body))
    }
}

/// One line of at most 500 characters, without control characters.
pub fn words(text: &str) -> String {
    let line = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = line.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A base address with a path below it. The base is checked where it is configured.
///
/// # Errors
/// The two together are no address.
pub fn below(base: &Url, path: &str) -> Result<Url, Lost> {
    let joined = format!(
        "{}/{}",
        base.as_str().trim_end_matches('/'),
        path.trim_start_matches('/')
    );
    Url::parse(&joined).map_err(|error| Lost::Unsent(format!("{joined:?} is no address: {error}")))
}

/// `a=b&c=d`, encoded as forms are.
pub fn form(pairs: &[(&str, &str)]) -> Vec<u8> {
    // An address knows how to encode its query, which has the same form.
    let Ok(mut url) = Url::parse("http://form") else {
        return Vec::new();
    };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().as_bytes().to_vec()
}

fn lost(error: reqwest::Error) -> Lost {
    let unsent = error.is_connect() || error.is_builder();
    // Addresses may carry what a person typed into them: left out.
    let mut error: &dyn std::error::Error = &error.without_url();
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    match unsent {
        true => Lost::Unsent(text),
        false => Lost::Unknown(text),
    }
}

/// Whole seconds only: a date would have to be compared with a clock of ours that may be wrong.
fn retry_after(text: &str) -> Option<Duration> {
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The text with `***` in place of every word of the authorisation that is long enough to be a secret.
fn scrubbed(text: &[u8], authorization: &str) -> Vec<u8> {
    let words = authorization.split([' ', ',', '"']);
    let mut secrets: Vec<&[u8]> = words.filter(|word| word.len() >= 12).map(str::as_bytes).collect();
    // Of two, one of which begins the other, the longer.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let secret = secrets.iter().find(|secret| rest.starts_with(secret));
        match secret {
            Some(secret) => {
                kept.extend_from_slice(b"***");
                rest = &rest[secret.len()..];
            }
            None => {
                kept.push(*first);
                rest = after;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_a_system_repeats_is_not_kept() {
        let body = b"{\"got\":\"Bearer abcdefghijklmnop\",\"twice\":\"abcdefghijklmnop\"}";
        let kept = scrubbed(body, "Bearer abcdefghijklmnop");
        assert_eq!(kept, b"{\"got\":\"Bearer ***\",\"twice\":\"***\"}");
        let kept = scrubbed(b"/?a=abcdefghijklmnop&b=abcdefghijkl", "abcdefghijkl,abcdefghijklmnop");
        assert_eq!(kept, b"/?a=***&b=***");
    }

    #[test]
    fn words_are_one_short_line() {
        assert_eq!(words("a\r\n\tb\u{7}c  d"), "a b c d");
        assert_eq!(words(&"x".repeat(501)), format!("{}...", "x".repeat(500)));
    }

    #[test]
    fn patience_is_bounded_and_dates_are_not_believed() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999999"), Some(RETRY_AFTER_MAX));
        for text in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a b", "c&d"), ("e", "ü+")]), b"a+b=c%26d&e=%C3%BC%2B");
    }
}
