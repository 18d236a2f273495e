//! HTTP for workers that have a thread to themselves: one request, and its whole answer.
//!
//! Absent: sending again, and what an answer means beyond [`judge`].

use std::time::Duration;

use reqwest::{Client, RequestBuilder};

use super::WarehouseError;

/// A client whose calls block.
pub struct Http {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// A whole answer.
pub struct Reply {
    pub status: u16,
    /// `Retry-After`, where it is in seconds.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

impl Http {
    /// # Errors
    /// TLS or a thread cannot be set up on this machine.
    pub fn new(timeout: Duration) -> Result<Http, WarehouseError> {
        let refused = |error: &dyn std::fmt::Display| WarehouseError::Refused(format!("HTTP client: {error}"));
        let client = Client::builder()
            .timeout(timeout)
            .user_agent(concat!("accrue/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| refused(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| refused(&error))?;
        Ok(Http { client, runtime })
    }

    /// What requests are made of.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// # Errors
    /// There is no answer; in words without the address, which may hold a signature.
    pub fn send(&self, request: RequestBuilder) -> Result<Reply, String> {
        let answer = self.runtime.block_on(async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            let after = answer.headers().get("retry-after").and_then(|it| it.to_str().ok());
            let retry_after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
            Ok(Reply {
                status,
                retry_after,
                body: answer.bytes().await?.to_vec(),
            })
        });
        answer.map_err(|error: reqwest::Error| error.without_url().to_string())
    }
}

impl Reply {
    /// The start of what it says.
    pub fn words(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }
}

/// Whether a status is one that passes: throttling, time-outs, an outage.
pub fn passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// The error of an answer that is not the one hoped for. What is forbidden or missing does not pass.
pub fn judge(what: &str, reply: &Reply) -> WarehouseError {
    let text = format!("{what}: {} {}", reply.status, reply.words());
    match passes(reply.status) {
        true => WarehouseError::Away(text),
        false => WarehouseError::Refused(text),
    }
}
