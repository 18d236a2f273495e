//! Requests that are sent again until they are answered.
//!
//! Invariant: what is sent here may be sent again: its sender gave it an id, or it changes nothing.
//! Absent: what an answer means.

use std::time::Duration;

use reqwest::RequestBuilder;

use super::WarehouseError;
use crate::sink::warehouse::http::{self, Reply};

/// Longer than Snowflake lets a caller wait (45 seconds) before it answers with 202.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(75);
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A vendor may ask for more patience; the worker's own pauses follow.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Between two looks at work that is under way.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// So often it is looked at: half an hour, far more than the vendors let our statements run.
pub(super) const LOOKS: u32 = 6_000;

pub(super) struct Http(http::Http);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) json: serde_json::Value,
}

impl Answer {
    /// What it says, cut short.
    pub(super) fn words(&self) -> String {
        self.json.to_string().chars().take(500).collect()
    }
}

impl Http {
    pub(super) fn new() -> Result<Http, WarehouseError> {
        http::Http::new(REQUEST_TIMEOUT).map(Http)
    }

    /// Sends what `request` makes of a client and the number of the attempt, from 0, until the answer is one that
    /// sending again would not change.
    ///
    /// # Errors
    /// `Away` when no attempt was answered so.
    pub(super) fn send(
        &self,
        what: &str,
        request: impl Fn(&reqwest::Client, u32) -> RequestBuilder,
    ) -> Result<Answer, WarehouseError> {
        let mut pause = FIRST_PAUSE;
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            let wait;
            (last, wait) = match self.0.send(request(self.0.client(), attempt)).map(once) {
                Ok(Once::Answer(answer)) => return Ok(answer),
                Ok(Once::Later(words, wait)) => (words, wait),
                Err(why) => (why, None),
            };
            if attempt + 1 < ATTEMPTS {
                tracing::debug!(what, attempt, last, "sent again after a pause");
                std::thread::sleep(wait.unwrap_or(pause).min(LONGEST_PAUSE));
                pause *= 2;
            }
        }
        Err(WarehouseError::Away(format!("{what}: {last}")))
    }
}

enum Once {
    Answer(Answer),
    /// Not now; perhaps the vendor says when.
    Later(String, Option<Duration>),
}

fn once(reply: Reply) -> Once {
    // Google says with 403, too, that there were too many requests.
    let limited = reply.status == 403 && reply.words().contains("ateLimitExceeded");
    if http::passes(reply.status) || limited {
        return Once::Later(format!("{} {}", reply.status, reply.words()), reply.retry_after);
    }
    match serde_json::from_slice(&reply.body) {
        Ok(json) => Once::Answer(Answer {
            status: reply.status,
            json,
        }),
        // A proxy's page, or half an answer.
        Err(_) if (200..=299).contains(&reply.status) => {
            let words = format!("{} and no JSON: {}", reply.status, reply.words());
            Once::Later(words, reply.retry_after)
        }
        Err(_) => Once::Answer(Answer {
            status: reply.status,
            json: serde_json::Value::String(reply.words()),
        }),
    }
}
