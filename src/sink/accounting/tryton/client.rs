//! The exchange with Tryton: create a draft, post it.
//!
//! Owns: the order of calls. A draft that Tryton refuses to post is deleted, so that a refused document leaves nothing
//! behind; where that fails the draft is found again and completed or shown. Absent: what an answer means (`judge`).

use serde_json::{Value, json};

use super::config::{LIMITS, Settings};
use super::resolve::{Known, Values, company, context, resolve};
use super::rpc::{Fault, Session};
use super::{judge, request};
use crate::sink::accounting::http::{Http, Reply};
use crate::sink::accounting::judge as common;
use crate::sink::destination::{Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries};
use crate::sink::document::{Document, Form, Key};

/// One company of Tryton.
pub struct Tryton {
    session: Session,
    known: Known,
}

impl Tryton {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(settings: Settings) -> Result<Tryton, reqwest::Error> {
        let http = Http::new(settings.timeout)?;
        Ok(Tryton {
            session: Session::new(http, settings),
            known: Known::default(),
        })
    }

    async fn write(&self, plan: &Plan, resume: Option<&str>) -> Result<Outcome, Fault> {
        let (model, values) = model(plan.form);
        let body: Value = serde_json::from_slice(&plan.body).map_err(|error| Fault::Unsent(error.to_string()))?;
        let company = before(company(&self.session, &self.known).await)?;
        let context = context(&company["id"]);
        let id = match resume {
            Some(draft) => json!(draft.parse::<i64>().map_err(|error| Fault::Unsent(error.to_string()))?),
            None => {
                let values = before(resolve(&self.session, &self.known, values, &body).await)?;
                let (made, reply) = self
                    .session
                    .call(&format!("model.{model}.create"), json!([[values], context]))
                    .await?;
                match made.get(0).filter(|id| id.is_i64()) {
                    Some(id) => id.clone(),
                    None => return Err(Fault::Unknown(format!("Tryton's reply names no id: {}", reply.words()))),
                }
            }
        };
        let posted = self
            .session
            .call(&format!("model.{model}.post"), json!([[id], context]))
            .await;
        match posted {
            Ok((_, reply)) => Ok(common::acknowledged(&id.to_string(), &reply)),
            Err(fault @ Fault::Business { .. }) => {
                let deleted = self
                    .session
                    .call(&format!("model.{model}.delete"), json!([[id], context]))
                    .await;
                match deleted {
                    Ok(_) => Err(fault),
                    // Posted after all (by a try before this one), or still a draft: a look tells.
                    Err(_) => Err(Fault::Unknown(format!("{model} {id}: {fault}"))),
                }
            }
            // The draft exists, whatever became of its posting.
            Err(fault) => Err(Fault::Unknown(format!(
                "{model} {id} was made, and posting it failed: {fault}"
            ))),
        }
    }

    async fn find(&self, plan: &Plan) -> Result<Found, Fault> {
        let (model, values) = model(plan.form);
        let (field, fields, line_fields) = match values {
            Values::Move => (
                "description",
                json!(["state", "date"]),
                json!([
                    "move",
                    "account.code",
                    "debit",
                    "credit",
                    "second_currency.code",
                    "amount_second_currency"
                ]),
            ),
            Values::Invoice => (
                "reference",
                json!(["state", "accounting_date", "currency.code"]),
                json!(["invoice", "account.code", "amount"]),
            ),
        };
        let company = company(&self.session, &self.known).await?;
        let context = context(&company["id"]);
        let domain = json!([[field, "=", plan.reference], ["company", "=", company["id"]]]);
        let params = json!([domain, 0, 10, null, fields, context]);
        let (documents, reply) = self.session.call(&format!("model.{model}.search_read"), params).await?;
        let owner = match values {
            Values::Move => "move",
            Values::Invoice => "invoice",
        };
        let ids: Vec<&Value> = documents
            .as_array()
            .into_iter()
            .flatten()
            .map(|document| &document["id"])
            .collect();
        let lines = match ids.is_empty() {
            true => json!([]),
            false => {
                let params = json!([[[owner, "in", ids]], 0, null, null, line_fields, context]);
                self.session
                    .call(&format!("model.{model}.line.search_read"), params)
                    .await?
                    .0
            }
        };
        Ok(judge::found(&documents, &lines, plan, &reply))
    }
}

fn model(form: Form) -> (&'static str, Values) {
    match form {
        Form::Journal => ("account.move", Values::Move),
        Form::Invoice | Form::CreditNote => ("account.invoice", Values::Invoice),
    }
}

/// A fault before the document was sent: nothing of it can be there.
fn before<T>(result: Result<T, Fault>) -> Result<T, Fault> {
    result.map_err(|fault| match fault {
        Fault::Unknown(why) => Fault::Unsent(why),
        Fault::Business { .. } | Fault::Unsent(_) | Fault::Throttled(_) => fault,
    })
}

impl Destination for Tryton {
    fn certainty(&self) -> Certainty {
        self.session.settings().certainty
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
            let read = self
                .session
                .call("model.company.company.search", json!([[], 0, 1, null, {}]))
                .await;
            read.map(|(_, _): (Value, Reply)| ()).map_err(|fault| fault.to_string())
        })
    }
}
