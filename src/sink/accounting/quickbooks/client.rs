//! The exchange with QuickBooks Online.
//!
//! Owns: addresses, the `requestid`, and the customer of a document: found, or made once. Absent: what a reply means
//! (`judge`).

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::config::{LIMITS, Settings};
use super::{judge, request};
use crate::sink::accounting::http::{Ask, Http, Lost, Method, Reply, below, sha256_hex};
use crate::sink::accounting::judge as common;
use crate::sink::accounting::oauth::Tokens;
use crate::sink::destination::{Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries};
use crate::sink::document::{Document, Form, Key};

/// Since August 2025 the oldest behaviour that Intuit serves.
const MINOR_VERSION: &str = "75";

/// One company of QuickBooks Online.
pub struct QuickBooks {
    settings: Settings,
    tokens: Tokens,
    /// Customers by display name.
    customers: Mutex<HashMap<String, String>>,
}

impl QuickBooks {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(settings: Settings) -> Result<QuickBooks, reqwest::Error> {
        let tokens = Tokens::new(Http::new(settings.timeout)?, settings.client.clone());
        Ok(QuickBooks {
            settings,
            tokens,
            customers: Mutex::default(),
        })
    }

    async fn post(&self, entity: &str, id: &str, body: &Value) -> Result<Reply, Lost> {
        // At most 50 characters, the same for the same write.
        let request_id = &sha256_hex(id.as_bytes())[..36];
        let query = [("requestid", request_id), ("minorversion", MINOR_VERSION)];
        self.ask(Method::POST, entity, &query, Some(body.to_string().into_bytes()))
            .await
    }

    async fn query(&self, query: &str) -> Result<Reply, Lost> {
        let query = [("query", query), ("minorversion", MINOR_VERSION)];
        self.ask(Method::GET, "query", &query, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Reply, Lost> {
        let mut url = below(
            &self.settings.url,
            &format!("v3/company/{}/{path}", self.settings.realm),
        )?;
        url.query_pairs_mut().extend_pairs(query);
        let body = body.map(|body| ("application/json", body));
        self.tokens
            .exchange(&Ask {
                method,
                url,
                headers: Vec::new(),
                body,
            })
            .await
    }

    /// Puts the customer's id beside its name.
    async fn with_customers(&self, plan: &Plan, round: u64) -> Result<Value, Outcome> {
        let mut body: Value =
            serde_json::from_slice(&plan.body).map_err(|error| Outcome::Unavailable(error.to_string()))?;
        if let Some(name) = body["CustomerRef"]["name"].as_str() {
            body["CustomerRef"]["value"] = json!(self.customer(name, round).await?);
        }
        for line in body["Line"].as_array_mut().into_iter().flatten() {
            let entity = &mut line["JournalEntryLineDetail"]["Entity"]["EntityRef"];
            if let Some(name) = entity["name"].as_str() {
                entity["value"] = json!(self.customer(name, round).await?);
            }
        }
        // Reading what is not there made it null; QuickBooks does not mind, but the body should be what was planned.
        prune(&mut body);
        Ok(body)
    }

    async fn customer(&self, name: &str, round: u64) -> Result<String, Outcome> {
        let mut known = self.customers.lock().await;
        if let Some(id) = known.get(name) {
            return Ok(id.clone());
        }
        let end = name.rfind(" (").map_or(name, |at| &name[at..]);
        let find = format!(
            "select Id from Customer where DisplayName LIKE '%{}'",
            end.replace('\\', "\\\\").replace('\'', "\\'")
        );
        // Nothing of the document was sent yet: whatever goes wrong here, it is not in QuickBooks.
        let unsent = |why: String| Outcome::Unavailable(format!("the customer {name:?} could not be looked up: {why}"));
        let found = self.query(&find).await.map_err(|lost| unsent(lost.to_string()))?;
        let found = common::patient(found)?;
        let id = match judge::first_id(&found, "Customer").map_err(unsent)? {
            Some(id) => id,
            None => {
                let again = match round {
                    0 => String::new(),
                    later => format!("~{later}"),
                };
                let made = self
                    .post(
                        "customer",
                        &format!("customer {name}{again}"),
                        &json!({ "DisplayName": name }),
                    )
                    .await;
                let made = made.map_err(|lost| unsent(lost.to_string()))?;
                judge::made_customer(&made)?
            }
        };
        known.insert(name.to_owned(), id.clone());
        Ok(id)
    }
}

/// Removes nulls and what became empty by that.
fn prune(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.values_mut().for_each(prune);
        fields.retain(|_, field| !field.is_null() && field.as_object().is_none_or(|inner| !inner.is_empty()));
    }
    value.as_array_mut().into_iter().flatten().for_each(prune);
}

/// The entity of a form: in addresses, and in bodies.
pub(super) fn entity(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Journal => ("journalentry", "JournalEntry"),
        Form::Invoice => ("invoice", "Invoice"),
        Form::CreditNote => ("creditmemo", "CreditMemo"),
    }
}

impl Destination for QuickBooks {
    fn certainty(&self) -> Certainty {
        self.settings.certainty
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        request::plan(document, &self.settings.items)
    }

    fn send<'a>(&'a self, key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let id = key.of_round(tries.round);
            let body = match self.with_customers(plan, tries.round).await {
                Ok(body) => body,
                Err(outcome) => return outcome,
            };
            match self.post(entity(plan.form).0, &id, &body).await {
                Ok(reply) => judge::sent(&reply, plan),
                Err(lost) => common::lost(lost),
            }
        })
    }

    fn look_up<'a>(&'a self, key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            let query = format!(
                "select * from {} where DocNumber = '{}'",
                entity(plan.form).1,
                plan.reference
            );
            match self.query(&query).await {
                Ok(reply) => judge::found(&reply, key, plan),
                Err(lost) => Found::Unknown(lost.to_string()),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move { common::probe(self.query("select Id from CompanyInfo").await, "QuickBooks") })
    }
}
