//! OAuth 2.0 as accounting systems give it (RFC 6749): client credentials, and refresh tokens that rotate.
//!
//! Owns: the tokens of one double. Invariant: a refresh token is replaced with every use, and works once more only
//! within the grace period.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::room::{Request, Response};

/// What a user of the sandbox configures.
pub const CLIENT_ID: &str = "sandbox-client";
pub const CLIENT_SECRET: &str = "sandbox-client-secret";
pub const REFRESH_TOKEN: &str = "sandbox-refresh-token";

/// See the module.
#[derive(Clone, Debug)]
pub struct Issuer {
    lifetime: Duration,
    grace: Duration,
    /// With the time they end.
    access: BTreeMap<String, Duration>,
    refresh: String,
    before: Option<(String, Duration)>,
    given: u32,
}

impl Issuer {
    pub fn new(lifetime: Duration, grace: Duration) -> Issuer {
        Issuer {
            lifetime,
            grace,
            access: BTreeMap::new(),
            refresh: REFRESH_TOKEN.to_owned(),
            before: None,
            given: 0,
        }
    }

    /// Answers the token address.
    pub fn answer(&mut self, request: &Request, now: Duration) -> Response {
        let error = |status, code: &str| Response::json(status, &json!({ "error": code }));
        let who = format!("Basic {}", BASE64.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
        if request.header("authorization") != who {
            return error(401, "invalid_client");
        }
        let form: BTreeMap<String, String> = super::server::pairs(&String::from_utf8_lossy(&request.body))
            .into_iter()
            .collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        match field("grant_type") {
            "client_credentials" => {
                let access = self.access(now);
                Response::json(
                    200,
                    &json!({
                        "access_token": access, "token_type": "Bearer", "expires_in": self.lifetime.as_secs(),
                    }),
                )
            }
            "refresh_token" => {
                let given = field("refresh_token");
                let late = self
                    .before
                    .as_ref()
                    .is_some_and(|(token, until)| token == given && now < *until);
                if given != self.refresh && !late {
                    return error(400, "invalid_grant");
                }
                let access = self.access(now);
                self.before = Some((std::mem::take(&mut self.refresh), now + self.grace));
                self.refresh = format!("refresh-{}-0123456789abcdef", self.given);
                Response::json(
                    200,
                    &json!({
                        "access_token": access, "token_type": "Bearer", "expires_in": self.lifetime.as_secs(),
                        "refresh_token": self.refresh,
                    }),
                )
            }
            _ => error(400, "unsupported_grant_type"),
        }
    }

    fn access(&mut self, now: Duration) -> String {
        self.given += 1;
        let token = format!("access-{}-0123456789abcdef", self.given);
        self.access.insert(token.clone(), now + self.lifetime);
        token
    }

    /// Whether the request carries a token that works.
    pub fn admits(&self, request: &Request, now: Duration) -> bool {
        let token = request
            .header("authorization")
            .strip_prefix("Bearer ")
            .unwrap_or_default();
        self.access.get(token).is_some_and(|until| now < *until)
    }

    pub fn expire(&mut self) {
        self.access.clear();
    }
}
