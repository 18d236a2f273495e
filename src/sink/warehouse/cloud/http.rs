//! Requests that are sent again until they are answered.
//!
//! Invariant: what is sent here may be sent again: its sender gave it an id, or it changes nothing.
//! Absent: what an answer means.

use std::time::Duration;

use reqwest::RequestBuilder;

use super::WarehouseError;

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

pub(super) struct Http {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

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
        let refused = |error: &dyn std::fmt::Display| WarehouseError::Refused(format!("HTTP client: {error}"));
        Ok(Http {
            client: reqwest::Client::builder()
                .timeout(REQUEST_TIMEOUT)
                .user_agent(concat!("accrue/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| refused(&error))?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| refused(&error))?,
        })
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
            let wait = match self.runtime.block_on(once(request(&self.client, attempt))) {
                Ok(Once::Answer(answer)) => return Ok(answer),
                Ok(Once::Later(words, wait)) => {
                    last = words;
                    wait
                }
                // An address may hold an id, never a secret; the library's words repeat it at length.
                Err(error) => {
                    last = error.without_url().to_string();
                    None
                }
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

async fn once(request: RequestBuilder) -> Result<Once, reqwest::Error> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let after = answer
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok());
    let after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let body = answer.bytes().await?;
    let words = || String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
    // Google says with 403, too, that there were too many requests.
    let later =
        matches!(status, 408 | 425 | 429 | 500..=599) || (status == 403 && words().contains("ateLimitExceeded"));
    if later {
        return Ok(Once::Later(format!("{status} {}", words()), after));
    }
    Ok(match serde_json::from_slice(&body) {
        Ok(json) => Once::Answer(Answer { status, json }),
        // A proxy's page, or half an answer.
        Err(_) if (200..=299).contains(&status) => Once::Later(format!("{status} and no JSON: {}", words()), after),
        Err(_) => Once::Answer(Answer {
            status,
            json: serde_json::Value::String(words()),
        }),
    })
}
