//! What a reply means, as far as all systems agree (RFC 9110 and what their pages say alike).
//!
//! Owns: the meaning of the transport: throttling, authorisation, outages; and the ends that all judges share: a refusal
//! known by its words, a document that was found. A system's own `judge` asks here for what it does not document otherwise.
//! Invariant: 5xx and a timeout are uncertain; nothing here refuses a document, since nothing here has read it.
//! Absent: a system's own error codes.

use serde_json::Value;

use super::http::{Lost, Reply};
use super::voucher::{Content, refuse};
use crate::sink::destination::{Acknowledgement, Found, Outcome};

/// The outcome of a reply that is no answer of the ledger to the document. `None`: it is one (2xx, 400, 409, 422).
pub fn transport(reply: &Reply, system: &str) -> Option<Outcome> {
    let unavailable = |advice: &str| {
        let words = reply.words();
        Some(Outcome::Unavailable(format!(
            "{system} answered HTTP {}: {advice}; it said: {words}",
            reply.status
        )))
    };
    match reply.status {
        200..=299 | 400 | 409 | 412 | 422 => None,
        429 => Some(Outcome::Throttled {
            retry_after: reply.retry_after,
        }),
        401 => unavailable("the access token was refused twice; check the app's credentials"),
        403 => unavailable("the credentials may not do this; give the app or its user the right to post"),
        404 | 405 | 410 | 421 => {
            unavailable("there is nothing at this address; check url and the company or tenant id")
        }
        300..=399 => unavailable("the address has moved; configure the new one"),
        413 => Some(Outcome::Refused(refuse(
            "too_large",
            reply.words(),
            "the document has too many lines for the system; post by entry (granularity = \"entry\")",
        ))),
        // Includes 408: the server stopped waiting, at a point it does not tell.
        status => Some(Outcome::Uncertain(format!(
            "{system} answered HTTP {status}: {}",
            reply.words()
        ))),
    }
}

/// The outcome without a reply.
pub fn lost(lost: Lost) -> Outcome {
    match lost {
        Lost::Unsent(why) => Outcome::Unavailable(why),
        Lost::Unknown(why) => Outcome::Uncertain(why),
    }
}

/// A refusal in the system's words.
pub fn refused(code: &str, words: &str, advice: &str) -> Outcome {
    Outcome::Refused(refuse(code, super::http::words(words), advice))
}

/// Small letters of an error's words, the stable code for it, and what to do.
pub type Sign = (&'static str, &'static str, &'static str);

/// A refusal, told apart by the first sign that its words show.
pub fn told(words: &str, signs: &[Sign], system: &str) -> Outcome {
    let small = words.to_lowercase();
    match signs.iter().find(|(sign, _, _)| small.contains(sign)) {
        Some((_, code, advice)) => refused(code, words, advice),
        None => invalid(words, system),
    }
}

/// A refusal that no sign explains.
pub fn invalid(words: &str, system: &str) -> Outcome {
    let advice = format!("correct what {system} names, in the mapping or there, then retry the delivery");
    refused("invalid", words, &advice)
}

/// A refusal without the system's own words.
pub fn not_understood(words: &str, system: &str) -> Outcome {
    let advice = format!("{system} refused the request in words that are not its API's: check url");
    refused("not_understood", words, &advice)
}

/// The document is there.
pub fn acknowledged(external_id: &str, reply: &Reply) -> Outcome {
    Outcome::Acknowledged(acknowledgement(external_id, reply))
}

pub fn acknowledgement(external_id: &str, reply: &Reply) -> Acknowledgement {
    Acknowledgement {
        external_id: external_id.to_owned(),
        response_digest: reply.digest(),
    }
}

/// The one document of a reference.
///
/// # Errors
/// There is none, or there are several, by their names.
pub fn only(documents: &[Value], name: impl Fn(&Value) -> String) -> Result<&Value, Found> {
    match documents {
        [document] => Ok(document),
        [] => Err(Found::Nothing),
        several => Err(Found::Several(several.iter().map(name).collect())),
    }
}

/// What a look-up found, by what was planned and what is there.
pub fn compared(wanted: &Content, there: &Content, external_id: String, reply: &Reply) -> Found {
    match wanted.difference(there) {
        None => Found::Same(acknowledgement(&external_id, reply)),
        Some(what) => Found::Different { external_id, what },
    }
}

/// The same, where a document is begun and completed: its `state` is one of these words.
pub fn in_state(document: &Value, begun: &[&str], completed: &[&str], found: Found) -> Found {
    let state = document["state"].as_str().unwrap_or("not known");
    match found {
        Found::Same(there) if begun.contains(&state) => Found::Unfinished {
            external_id: there.external_id,
        },
        Found::Same(there) if !completed.contains(&state) => Found::Different {
            external_id: there.external_id,
            what: format!("its state is {state}"),
        },
        found => found,
    }
}

/// What a question before the document's own request came to, where the system asks for patience: that is no failure.
///
/// # Errors
/// It does.
pub fn patient(reply: Reply) -> Result<Reply, Outcome> {
    match reply.status {
        429 => Err(Outcome::Throttled {
            retry_after: reply.retry_after,
        }),
        _ => Ok(reply),
    }
}

/// A look-up's reply, when it is none: look again.
pub fn unknown(reply: &Reply, system: &str) -> Found {
    if reply.status == 429 {
        return Found::Throttled {
            retry_after: reply.retry_after,
        };
    }
    Found::Unknown(format!(
        "{system} answered the look-up with HTTP {}: {}",
        reply.status,
        reply.words()
    ))
}

/// What a probe makes of a reply.
///
/// # Errors
/// The system does not serve, in words.
pub fn probe(reply: Result<Reply, Lost>, system: &str) -> Result<(), String> {
    let reply = reply.map_err(|lost| lost.to_string())?;
    match reply.status {
        200..=299 => Ok(()),
        status => Err(format!("{system} answered HTTP {status}: {}", reply.words())),
    }
}
