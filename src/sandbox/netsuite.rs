//! SuiteTalk REST's record service, as far as a writer of journals and sales documents meets it.
//!
//! Source: <https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/chapter_1540391670.html>. A created record is 204
//! with its address in `Location`; external ids are unique for each record type; errors list `o:errorDetails`.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::{Company, is_day, number};
use super::room::{Kind, Limits, Posted, Request, Response, Settings, Vendor};
use super::tokens::Issuer;

const RECORDS: [&str; 4] = ["journalEntry", "invoice", "creditMemo", "customer"];
const RECEIVABLE: &str = "1100";

/// See the module. An item's account has the item's own id, with `item-` before it.
pub struct NetSuite {
    company: Company,
    tokens: Issuer,
    records: BTreeMap<&'static str, Vec<Value>>,
}

impl Default for NetSuite {
    fn default() -> Self {
        NetSuite {
            company: Company::default(),
            tokens: Issuer::new(Duration::from_secs(3600), Duration::from_secs(7 * 24 * 3600)),
            records: BTreeMap::new(),
        }
    }
}

impl Vendor for NetSuite {
    fn name(&self) -> &'static str {
        "netsuite"
    }

    fn kind(&self, request: &Request) -> Kind {
        match request.method.as_str() {
            _ if request.path.ends_with("/oauth2/v1/token") => Kind::Token,
            "GET" => Kind::Read,
            _ if request.path.ends_with("/customer") => Kind::Read,
            _ => Kind::Write,
        }
    }

    fn handle(&mut self, request: &Request, now: Duration) -> Response {
        if request.path.ends_with("/oauth2/v1/token") {
            return self.tokens.answer(request, now);
        }
        if !self.tokens.admits(request, now) {
            return error(401, "Invalid login attempt.", "INVALID_LOGIN");
        }
        let Some(rest) = request.path.strip_prefix("services/rest/record/v1/") else {
            return error(404, "The requested resource was not found.", "NONEXISTENT_ENDPOINT");
        };
        let (name, id) = rest.split_once('/').map_or((rest, None), |(name, id)| (name, Some(id)));
        let Some(record) = RECORDS.into_iter().find(|known| *known == name) else {
            return error(404, "Record type does not exist.", "NONEXISTENT_ID");
        };
        match (request.method.as_str(), id) {
            ("GET", Some(id)) => self.read(record, id),
            ("GET", None) => Response::json(200, &json!({ "count": 0, "items": [], "hasMore": false })),
            ("POST", None) => self.create(record, &request.json(), &request.path),
            _ => error(405, "The method is not allowed.", "METHOD_NOT_ALLOWED"),
        }
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn documents(&self) -> Vec<Posted> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut all = Vec::new();
        for (record, kind, sign) in [
            ("journalEntry", "journal", 0),
            ("invoice", "invoice", 1),
            ("creditMemo", "credit_note", -1),
        ] {
            for one in self.records.get(record).into_iter().flatten() {
                let mut lines: Vec<(String, Decimal)> = Vec::new();
                for line in one["line"]["items"].as_array().into_iter().flatten() {
                    let side = |name: &str| number(&line[name]).unwrap_or_default();
                    lines.push((text(&line["account"]["id"]), side("debit") - side("credit")));
                }
                for line in one["item"]["items"].as_array().into_iter().flatten() {
                    let amount = number(&line["amount"]).unwrap_or_default();
                    let item = text(&line["item"]["id"]);
                    lines.push((
                        item.trim_start_matches("item-").to_owned(),
                        -amount * Decimal::from(sign),
                    ));
                }
                if sign != 0 {
                    let total: Decimal = lines.iter().map(|(_, amount)| *amount).sum();
                    lines.insert(0, (text(&one["account"]["id"]), -total));
                }
                all.push(Posted {
                    kind,
                    id: text(&one["id"]),
                    reference: text(&one["externalId"]),
                    date: text(&one["tranDate"]),
                    currency: one["currency"]["refName"].as_str().unwrap_or("USD").to_owned(),
                    status: "posted".to_owned(),
                    customer: text(&one["entity"]["externalId"]),
                    text: text(&one["memo"]),
                    lines,
                });
            }
        }
        all
    }

    fn expire_tokens(&mut self) {
        self.tokens.expire();
    }

    fn set(&mut self, settings: &Settings) {
        self.company.set(settings);
    }
}

impl NetSuite {
    fn read(&self, record: &str, id: &str) -> Response {
        let (field, id) = id.strip_prefix("eid:").map_or(("id", id), |id| ("externalId", id));
        let found = self
            .records
            .get(record)
            .into_iter()
            .flatten()
            .find(|one| one[field] == id);
        match found {
            Some(one) => Response::json(200, one),
            None => error(
                404,
                "The record instance does not exist. Provide a valid record instance ID.",
                "NONEXISTENT_ID",
            ),
        }
    }

    fn create(&mut self, record: &'static str, body: &Value, path: &str) -> Response {
        let refuse =
            |detail: &str, code: &str| error(400, &format!("Error while accessing a resource. {detail}"), code);
        let taken = self
            .records
            .get(record)
            .into_iter()
            .flatten()
            .any(|one| one["externalId"] == body["externalId"]);
        if taken && body["externalId"].is_string() {
            return refuse("This record already exists.", "USER_ERROR");
        }
        if record != "customer"
            && let Some((detail, code)) = self.wrong(record, body)
        {
            return refuse(&detail, code);
        }
        let mut one = body.clone();
        let id = self.company.next_number().to_string();
        one["id"] = json!(id);
        self.records.entry(record).or_default().push(one);
        Response::empty(204).with("location", &format!("https://sandbox/{path}/{id}"))
    }

    fn wrong(&self, record: &str, body: &Value) -> Option<(String, &'static str)> {
        let date = body["tranDate"].as_str().unwrap_or_default();
        if !is_day(date) {
            return Some(("Invalid value for the field tranDate.".to_owned(), "INVALID_CONTENT"));
        }
        if self.company.is_closed(date) {
            return Some((
                "You cannot post to a closed period: the posting period is closed.".to_owned(),
                "USER_ERROR",
            ));
        }
        let is_customer = |entity: &Value| {
            self.records
                .get("customer")
                .into_iter()
                .flatten()
                .any(|one| one["externalId"] == entity["externalId"])
        };
        let unknown =
            |what: &str, id: &str| Some((format!("Invalid reference key {id} for {what}."), "INVALID_KEY_OR_REF"));
        if record == "journalEntry" {
            let mut sum = Decimal::ZERO;
            for line in body["line"]["items"].as_array().into_iter().flatten() {
                let account = line["account"]["id"].as_str().unwrap_or_default();
                if !self.company.knows(account) {
                    return unknown("account", account);
                }
                if account == RECEIVABLE && !is_customer(&line["entity"]) {
                    return Some((
                        "You must enter a customer for an accounts receivable line.".to_owned(),
                        "USER_ERROR",
                    ));
                }
                let amount = |name: &str| {
                    if line[name].is_null() {
                        Some(Decimal::ZERO)
                    } else {
                        number(&line[name])
                    }
                };
                match amount("debit").zip(amount("credit")) {
                    Some((debit, credit)) => sum += debit - credit,
                    None => return Some(("Amounts must be numbers.".to_owned(), "INVALID_CONTENT")),
                }
            }
            return (!sum.is_zero()).then(|| ("The amounts in a journal entry must balance.".to_owned(), "USER_ERROR"));
        }
        if !is_customer(&body["entity"]) {
            return unknown("entity", &body["entity"].to_string());
        }
        let lines = body["item"]["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        for line in lines {
            let item = line["item"]["id"].as_str().unwrap_or_default();
            if !item.starts_with("item-") {
                return unknown("item", item);
            }
            if number(&line["amount"]).is_none() {
                return Some(("Amounts must be numbers.".to_owned(), "INVALID_CONTENT"));
            }
        }
        lines.is_empty().then(|| {
            (
                "You must enter at least one line item for this transaction.".to_owned(),
                "USER_ERROR",
            )
        })
    }
}

fn error(status: u16, detail: &str, code: &str) -> Response {
    let body = json!({
        "type": "https://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html",
        "title": "Error",
        "status": status,
        "o:errorDetails": [{ "detail": detail, "o:errorCode": code }],
    });
    Response::json(status, &body)
}
