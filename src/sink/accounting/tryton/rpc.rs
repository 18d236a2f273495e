//! Tryton's JSON-RPC: sessions, calls, and its spelling of amounts and days.
//!
//! Owns: the session. Invariant: a call is repeated only after a 401, which Tryton answers before it does anything.
//! Source: `trytond/protocols/jsonrpc.py` and `dispatcher.py` of release 8.2: a business error is HTTP 200 with an `error`
//! of `[kind, [message, description, domain]]`; a call that takes too long ends as 504.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::config::Settings;
use crate::config::Secret;
use crate::revenue::money::Currency;
use crate::sink::accounting::http::{Ask, Http, Lost, Method, Reply, below, words};

/// An amount as Tryton writes one.
pub fn amount(amount: Decimal, currency: Currency) -> Value {
    json!({ "__class__": "Decimal", "decimal": currency.format(amount) })
}

/// A day as Tryton writes one.
pub fn day(day: Date) -> Value {
    json!({ "__class__": "date", "year": day.year(), "month": day.month(), "day": day.day() })
}

/// Reads an amount; a number of other origin than `Decimal` is no amount.
pub fn read_amount(value: &Value) -> Option<Decimal> {
    value["decimal"].as_str()?.parse().ok()
}

/// Reads a day as `2026-02-28`.
pub fn read_day(value: &Value) -> Option<String> {
    let part = |name: &str| value[name].as_i64();
    let day = Date::new(
        part("year")?.try_into().ok()?,
        part("month")?.try_into().ok()?,
        part("day")?.try_into().ok()?,
    );
    day.ok().map(|day| day.to_string())
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Tryton refused, and undid what it had begun: `UserError` and the like, in its words.
    #[error("{words}")]
    Business { kind: String, words: String },
    /// Nothing was done.
    #[error("{0}")]
    Unsent(String),
    /// Nothing was done; Tryton asks for patience.
    #[error("Tryton answered HTTP 429")]
    Throttled(Option<Duration>),
    /// Perhaps done.
    #[error("{0}")]
    Unknown(String),
}

impl From<Lost> for Fault {
    fn from(lost: Lost) -> Fault {
        match lost {
            Lost::Unsent(why) => Fault::Unsent(why),
            Lost::Unknown(why) => Fault::Unknown(why),
        }
    }
}

/// A session with one database.
pub struct Session {
    http: Http,
    settings: Settings,
    /// The value of the authorisation header.
    held: Mutex<Option<Secret>>,
}

impl Session {
    pub fn new(http: Http, settings: Settings) -> Session {
        Session {
            http,
            settings,
            held: Mutex::new(None),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Calls, and logs in (again) where that is asked for. Returns the result and the reply that held it.
    pub async fn call(&self, method: &str, params: Value) -> Result<(Value, Reply), Fault> {
        let body = json!({ "id": 1, "method": method, "params": params });
        let held = self.session(None).await?;
        let mut reply = self.post(&body, held.reveal()).await?;
        if reply.status == 401 {
            let held = self.session(Some(&held)).await?;
            reply = self.post(&body, held.reveal()).await?;
        }
        result(&reply).map(|result| (result, reply))
    }

    /// A session that should work; another one than `refused`.
    async fn session(&self, refused: Option<&Secret>) -> Result<Secret, Fault> {
        let mut held = self.held.lock().await;
        if let Some(session) = held.as_ref().filter(|session| Some(*session) != refused) {
            return Ok(session.clone());
        }
        let user = &self.settings.user;
        let params = json!([user, { "password": self.settings.password.reveal() }]);
        let login = json!({ "id": 0, "method": "common.db.login", "params": params });
        // Whatever goes wrong here, nothing was written.
        let reply = self
            .post(&login, "")
            .await
            .map_err(|fault| Fault::Unsent(format!("no login: {fault}")))?;
        let said = reply.json().unwrap_or_default();
        let (Some(id), Some(token)) = (said["result"][0].as_i64(), said["result"][1].as_str()) else {
            // Not its words: an error of a login may repeat what it was given.
            let why = match reply.status {
                401 | 403 | 200 => "check user and password".to_owned(),
                404 => format!("there is no database {:?} at this address", self.settings.database),
                429 => "too many failed logins; Tryton waits longer after each".to_owned(),
                status => format!("HTTP {status}"),
            };
            return Err(Fault::Unsent(format!("no login to Tryton as {user:?}: {why}")));
        };
        let session = Secret::new(format!("Session {}", BASE64.encode(format!("{user}:{id}:{token}"))));
        *held = Some(session.clone());
        Ok(session)
    }

    async fn post(&self, body: &Value, authorization: &str) -> Result<Reply, Fault> {
        let ask = Ask {
            method: Method::POST,
            url: below(&self.settings.url, &format!("{}/rpc/", self.settings.database))?,
            headers: Vec::new(),
            body: Some(("application/json", body.to_string().into_bytes())),
        };
        Ok(self.http.exchange(&ask, authorization).await?)
    }
}

fn result(reply: &Reply) -> Result<Value, Fault> {
    match reply.status {
        200 => {}
        401 => {
            return Err(Fault::Unsent(
                "Tryton refuses the session that it gave; check the user".to_owned(),
            ));
        }
        403 => {
            return Err(Fault::Unsent(
                "Tryton has no such method for this user; check its groups and the modules".to_owned(),
            ));
        }
        404 => return Err(Fault::Unsent("there is no such database at this address".to_owned())),
        429 => return Err(Fault::Throttled(reply.retry_after)),
        // 504 is Tryton's own time limit, which rolls back; but a proxy says 504 as well.
        status => {
            return Err(Fault::Unknown(format!(
                "Tryton answered HTTP {status}: {}",
                reply.words()
            )));
        }
    }
    let mut said = reply.json().map_err(Fault::Unknown)?;
    match said.get("error") {
        None => match said.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(Fault::Unknown(format!(
                "Tryton's reply has no result: {}",
                reply.words()
            ))),
        },
        Some(error) => {
            let kind = error[0].as_str().unwrap_or_default();
            match kind {
                "UserError" | "UserWarning" | "ConcurrencyException" => Err(Fault::Business {
                    kind: kind.to_owned(),
                    words: words(&business_words(error)),
                }),
                // Any other exception: the database may have gone away in the middle of a commit.
                other => Err(Fault::Unknown(format!("Tryton failed: {}", words(other)))),
            }
        }
    }
}

/// `["UserError", [message, description, domain]]`, `["UserWarning", [name, message, description]]`,
/// `["ConcurrencyException", message]`.
fn business_words(error: &Value) -> String {
    match &error[1] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let skip = usize::from(error[0] == "UserWarning");
            let texts = parts
                .iter()
                .skip(skip)
                .filter_map(Value::as_str)
                .filter(|text| !text.is_empty());
            texts.collect::<Vec<_>>().join(" ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => error.to_string(),
    }
}
