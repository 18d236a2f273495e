//! The exchange with Xero.
//!
//! Owns: addresses, headers and the order of requests. Absent: what a reply means (`judge`).

use super::config::{LIMITS, Settings};
use super::{judge, request};
use crate::sink::accounting::http::{Ask, Http, Lost, Method, Reply, below};
use crate::sink::accounting::judge as common;
use crate::sink::accounting::oauth::Tokens;
use crate::sink::destination::{Answer, Certainty, Destination, Found, Limits, Outcome, Plan, Refusal, Tries};
use crate::sink::document::{Document, Form, Key};

/// One organisation of Xero.
pub struct Xero {
    settings: Settings,
    tokens: Tokens,
}

impl Xero {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(settings: Settings) -> Result<Xero, reqwest::Error> {
        let tokens = Tokens::new(Http::new(settings.timeout)?, settings.client.clone());
        Ok(Xero { settings, tokens })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<String>,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Reply, Lost> {
        let mut url = below(&self.settings.url, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut headers = vec![("xero-tenant-id", self.settings.organisation.clone())];
        headers.extend(key.map(|key| ("Idempotency-Key", key)));
        let body = body.map(|body| ("application/json", body.to_vec()));
        self.tokens
            .exchange(&Ask {
                method,
                url,
                headers,
                body,
            })
            .await
    }
}

fn path(form: Form) -> &'static str {
    match form {
        Form::Journal => "ManualJournals",
        Form::Invoice => "Invoices",
        Form::CreditNote => "CreditNotes",
    }
}

impl Destination for Xero {
    fn certainty(&self) -> Certainty {
        self.settings.certainty
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn plan(&self, document: &Document) -> Result<Plan, Refusal> {
        request::plan(document, self.settings.due_days)
    }

    fn send<'a>(&'a self, key: &'a Key, plan: &'a Plan, tries: &'a Tries) -> Answer<'a, Outcome> {
        Box::pin(async move {
            match self
                .ask(
                    Method::PUT,
                    path(plan.form),
                    Some(key.of_round(tries.round)),
                    &[],
                    Some(&plan.body),
                )
                .await
            {
                Ok(reply) => judge::sent(&reply, plan),
                Err(lost) => common::lost(lost),
            }
        })
    }

    fn look_up<'a>(&'a self, _key: &'a Key, plan: &'a Plan) -> Answer<'a, Found> {
        Box::pin(async move {
            let filter = match plan.form {
                Form::Journal => format!("Narration.EndsWith(\"[{}]\")", plan.reference),
                Form::Invoice => format!("InvoiceNumber==\"{}\"", plan.reference),
                Form::CreditNote => format!("CreditNoteNumber==\"{}\"", plan.reference),
            };
            // Without a page number Xero leaves out the lines.
            let query = [("where", filter.as_str()), ("page", "1")];
            match self.ask(Method::GET, path(plan.form), None, &query, None).await {
                Ok(reply) => judge::found(&reply, plan),
                Err(lost) => Found::Unknown(lost.to_string()),
            }
        })
    }

    fn probe(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async move { common::probe(self.ask(Method::GET, "Organisation", None, &[], None).await, "Xero") })
    }
}
