//! The exchange with Odoo: create a draft, post it.
//!
//! Owns: the order of calls, and Odoo's ids for codes (they do not change). A draft that Odoo refuses to post is deleted;
//! where that fails it is found again. Absent: what an answer means (`judge`).

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::config::{LIMITS, Settings};
use super::judge::{self, Fault};
use super::request;
use crate::sink::accounting::http::{Ask, Http, Method, Reply, below};
use crate::sink::accounting::judge as common;
use crate::sink::destination::{Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries};
use crate::sink::document::{Document, Form, Key};

/// One company of Odoo.
pub struct Odoo {
    settings: Settings,
    http: Http,
    /// Ids by model and code. Held while one is looked for, so that two writers do not make one partner twice.
    ids: Mutex<HashMap<(&'static str, String), Value>>,
}

impl Odoo {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(settings: Settings) -> Result<Odoo, reqwest::Error> {
        Ok(Odoo {
            http: Http::new(settings.timeout)?,
            settings,
            ids: Mutex::default(),
        })
    }

    async fn call(&self, model: &str, method: &str, mut body: Value) -> Result<(Value, Reply), Fault> {
        if let Some(company) = self.settings.company {
            body["context"] = json!({ "allowed_company_ids": [company] });
        }
        let database = self
            .settings
            .database
            .iter()
            .map(|name| ("X-Odoo-Database", name.clone()));
        let ask = Ask {
            method: Method::POST,
            url: below(&self.settings.url, &format!("json/2/{model}/{method}"))?,
            headers: database.collect(),
            body: Some(("application/json", body.to_string().into_bytes())),
        };
        let authorization = format!("bearer {}", self.settings.api_key.reveal());
        let reply = self.http.exchange(&ask, &authorization).await?;
        judge::result(&reply).map(|result| (result, reply))
    }

    /// Odoo's id for a code.
    async fn id(&self, model: &'static str, field: &str, code: &str) -> Result<Value, Fault> {
        let mut ids = self.ids.lock().await;
        let key = (model, code.to_owned());
        if let Some(id) = ids.get(&key) {
            return Ok(id.clone());
        }
        let body = json!({ "domain": [[field, "=", code]], "fields": ["id"], "limit": 2 });
        let (found, _) = self.call(model, "search_read", body).await?;
        match found.as_array().map(Vec::as_slice) {
            Some([one]) => {
                ids.insert(key, one["id"].clone());
                Ok(one["id"].clone())
            }
            Some([]) => Err(judge::missing(model, code)),
            _ => Err(Fault::Business(format!("several {model} have the {field} {code:?}"))),
        }
    }

    async fn partner(&self, partner: &Value) -> Result<Value, Fault> {
        let reference = partner["ref"].as_str().unwrap_or_default();
        match self.id("res.partner", "ref", reference).await {
            Err(Fault::Missing(_)) => {
                let mut ids = self.ids.lock().await;
                let key = ("res.partner", reference.to_owned());
                if let Some(id) = ids.get(&key) {
                    return Ok(id.clone());
                }
                let (made, reply) = self
                    .call("res.partner", "create", json!({ "vals_list": [partner] }))
                    .await?;
                match made.get(0).filter(|id| id.is_i64()) {
                    Some(id) => {
                        ids.insert(key, id.clone());
                        Ok(id.clone())
                    }
                    None => Err(Fault::Unknown(format!(
                        "Odoo's reply names no partner: {}",
                        reply.words()
                    ))),
                }
            }
            found => found,
        }
    }

    /// The planned values with Odoo's ids of accounts, which is what a look-up compares.
    async fn with_accounts(&self, form: Form, body: &Value) -> Result<Value, Fault> {
        let mut values = body.clone();
        let mut commands = Vec::new();
        for line in body[lines(form)].as_array().into_iter().flatten() {
            let mut line = line.clone();
            let code = line["account_id"].as_str().unwrap_or_default();
            line["account_id"] = self.id("account.account", "code", code).await?;
            // 0: create. Odoo's commands for lists.
            commands.push(json!([0, 0, line]));
        }
        values[lines(form)] = json!(commands);
        Ok(values)
    }

    /// The values for `create`, with ids in place of codes. A partner that Odoo lacks is made.
    async fn resolve(&self, form: Form, body: &Value) -> Result<Value, Fault> {
        let mut values = body.clone();
        let journal = match form {
            Form::Journal => &self.settings.journal,
            Form::Invoice | Form::CreditNote => &self.settings.invoice_journal,
        };
        values["journal_id"] = self.id("account.journal", "code", journal).await?;
        let partner = match &body["partner_id"] {
            Value::Null => Value::Bool(false),
            partner => self.partner(partner).await?,
        };
        values["partner_id"] = partner.clone();
        if let Some(code) = body["currency_id"].as_str() {
            values["currency_id"] = self.id("res.currency", "name", code).await?;
        }
        let mut values = self.with_accounts(form, &values).await?;
        for command in values[lines(form)].as_array_mut().into_iter().flatten() {
            let line = &mut command[2];
            if let Some(code) = line["currency_id"].as_str() {
                line["currency_id"] = self.id("res.currency", "name", code).await?;
            }
            if form == Form::Journal {
                line["partner_id"] = partner.clone();
            }
        }
        Ok(values)
    }

    async fn write(&self, plan: &Plan, resume: Option<&str>) -> Result<Outcome, Fault> {
        let body: Value = serde_json::from_slice(&plan.body).map_err(|error| Fault::Unsent(error.to_string()))?;
        let id = match resume {
            Some(draft) => json!(draft.parse::<i64>().map_err(|error| Fault::Unsent(error.to_string()))?),
            None => {
                let values = self.resolve(plan.form, &body).await.map_err(Fault::before)?;
                let (made, reply) = self
                    .call("account.move", "create", json!({ "vals_list": [values] }))
                    .await?;
                match made.get(0).filter(|id| id.is_i64()) {
                    Some(id) => id.clone(),
                    None => return Err(Fault::Unknown(format!("Odoo's reply names no id: {}", reply.words()))),
                }
            }
        };
        match self.call("account.move", "action_post", json!({ "ids": [id] })).await {
            Ok((_, reply)) => Ok(common::acknowledged(&id.to_string(), &reply)),
            Err(Fault::Business(words)) => match self.call("account.move", "unlink", json!({ "ids": [id] })).await {
                Ok(_) => Err(Fault::Business(words)),
                // Posted after all, or still a draft: a look tells.
                Err(_) => Err(Fault::Unknown(format!("move {id}: {words}"))),
            },
            Err(fault) => Err(Fault::Unknown(format!(
                "move {id} was made, and posting it failed: {fault}"
            ))),
        }
    }

    async fn find(&self, plan: &Plan) -> Result<Found, Fault> {
        let planned: Value = serde_json::from_slice(&plan.body).map_err(|error| Fault::Unsent(error.to_string()))?;
        let domain = json!([["ref", "=", plan.reference], ["move_type", "=", planned["move_type"]]]);
        let fields = ["state", "date", "invoice_date"];
        let body = json!({ "domain": domain, "fields": fields, "limit": 10 });
        let (moves, reply) = self.call("account.move", "search_read", body).await?;
        let ids: Vec<&Value> = moves.as_array().into_iter().flatten().map(|one| &one["id"]).collect();
        if ids.is_empty() {
            return Ok(judge::found(&moves, &json!([]), &planned, plan, &reply));
        }
        let body = json!({
            "domain": [["move_id", "in", ids]],
            "fields": ["account_id", "balance", "amount_currency", "display_type"],
        });
        let (lines, _) = self.call("account.move.line", "search_read", body).await?;
        // Accounts by id on both sides.
        let wanted = self.with_accounts(plan.form, &planned).await?;
        Ok(judge::found(&moves, &lines, &wanted, plan, &reply))
    }
}

/// The field of a move that has its lines.
fn lines(form: Form) -> &'static str {
    match form {
        Form::Journal => "line_ids",
        Form::Invoice | Form::CreditNote => "invoice_line_ids",
    }
}

impl Destination for Odoo {
    fn certainty(&self) -> Certainty {
        self.settings.certainty
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        request::plan(document)
    }

    fn send<'a>(&'a self, _key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(async move {
            self.write(plan, tries.resume.as_deref())
                .await
                .unwrap_or_else(judge::fault)
        })
    }

    fn look_up<'a>(&'a self, _key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            self.find(plan).await.unwrap_or_else(|fault| match fault {
                Fault::Throttled(retry_after) => Found::Throttled { retry_after },
                fault => Found::Unknown(fault.to_string()),
            })
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move {
            let body = json!({ "domain": [], "fields": ["id"], "limit": 1 });
            let read = self.call("res.company", "search_read", body).await;
            read.map(drop).map_err(|fault| fault.to_string())
        })
    }
}
