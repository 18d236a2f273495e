//! The exchange with NetSuite.
//!
//! Owns: addresses, and the customer of a document: found by external id, or made. Absent: what a reply means (`judge`).

use std::collections::HashSet;

use serde_json::Value;
use tokio::sync::Mutex;

use super::config::{LIMITS, Settings};
use super::{judge, request};
use crate::sink::accounting::http::{Ask, Http, Lost, Method, Reply, below};
use crate::sink::accounting::judge as common;
use crate::sink::accounting::oauth::Tokens;
use crate::sink::destination::{Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries};
use crate::sink::document::{Document, Form, Key};

/// One subsidiary of NetSuite.
pub struct NetSuite {
    settings: Settings,
    tokens: Tokens,
    /// External ids of customers that are there.
    customers: Mutex<HashSet<String>>,
}

impl NetSuite {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(settings: Settings) -> Result<NetSuite, reqwest::Error> {
        let tokens = Tokens::new(Http::new(settings.timeout)?, settings.client.clone());
        Ok(NetSuite {
            settings,
            tokens,
            customers: Mutex::default(),
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply, Lost> {
        let ask = Ask {
            method,
            url: below(&self.settings.url, &format!("services/rest/record/v1/{path}"))?,
            headers: Vec::new(),
            body: body.map(|body| ("application/json", body.to_string().into_bytes())),
        };
        self.tokens.exchange(&ask).await
    }

    /// Makes sure that the customer is there. Nothing of the document was sent yet, so no failure leaves it in doubt.
    async fn customer(&self, customer: &Value) -> Result<(), Outcome> {
        let Some(id) = customer["externalId"].as_str() else {
            return Ok(());
        };
        let mut known = self.customers.lock().await;
        if known.contains(id) {
            return Ok(());
        }
        let unsent = |why: String| Outcome::Unavailable(format!("the customer {id:?} could not be looked up: {why}"));
        let path = external("customer", id).map_err(|lost| unsent(lost.to_string()))?;
        let found = self
            .ask(Method::GET, &path, None)
            .await
            .map_err(|lost| unsent(lost.to_string()))?;
        let found = common::patient(found)?;
        if !judge::is_there(&found).map_err(unsent)? {
            let made = self.ask(Method::POST, "customer", Some(customer)).await;
            let made = made.map_err(|lost| unsent(lost.to_string()))?;
            match judge::sent(&made) {
                Outcome::Acknowledged(_) => {}
                Outcome::Uncertain(why) | Outcome::Taken(why) => return Err(Outcome::Unavailable(why)),
                outcome @ (Outcome::Refused(_) | Outcome::Throttled { .. } | Outcome::Unavailable(_)) => {
                    return Err(outcome);
                }
            }
        }
        known.insert(id.to_owned());
        Ok(())
    }
}

/// `customer/eid:C-1`, with what an address does not take encoded.
fn external(record: &str, id: &str) -> Result<String, Lost> {
    let mut url = below(
        &"http://path"
            .parse()
            .map_err(|_| Lost::Unsent("no address".to_owned()))?,
        "",
    )?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().push(record).push(&format!("eid:{id}"));
    }
    Ok(url.path().trim_start_matches('/').to_owned())
}

fn record(form: Form) -> &'static str {
    match form {
        Form::Journal => "journalEntry",
        Form::Invoice => "invoice",
        Form::CreditNote => "creditMemo",
    }
}

impl Destination for NetSuite {
    fn certainty(&self) -> Certainty {
        self.settings.certainty
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        request::plan(document, self.settings.subsidiary.as_deref(), &self.settings.items)
    }

    fn send<'a>(&'a self, _key: &'a Key, plan: &'a Plan, _tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let body: Value = match serde_json::from_slice(&plan.body) {
                Ok(body) => body,
                Err(error) => return Outcome::Unavailable(error.to_string()),
            };
            if let Err(outcome) = self.customer(&body["customer"]).await {
                return outcome;
            }
            match self.ask(Method::POST, record(plan.form), Some(&body["record"])).await {
                Ok(reply) => judge::sent(&reply),
                Err(lost) => common::lost(lost),
            }
        })
    }

    fn look_up<'a>(&'a self, _key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            let path = format!("{}/eid:{}?expandSubResources=true", record(plan.form), plan.reference);
            match self.ask(Method::GET, &path, None).await {
                Ok(reply) => judge::found(&reply, plan),
                Err(lost) => Found::Unknown(lost.to_string()),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move { common::probe(self.ask(Method::GET, "journalEntry?limit=1", None).await, "NetSuite") })
    }
}
