//! QuickBooks Online's Accounting API v3, as far as a writer of journals and sales documents meets it.
//!
//! Source: Intuit's schemas (Finance, v3) and
//! <https://developer.intuit.com/app/developer/qbo/docs/develop/troubleshooting/error-codes>. A `requestid` repeats the
//! first answer; a document number that is taken is refused (as where "warn if duplicate" is on).

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::{Company, Memory, is_day, number};
use super::room::{Kind, Limits, Posted, Request, Response, Settings, Vendor};
use super::tokens::Issuer;

/// The one company there is.
pub const REALM: &str = "9130350000000001";
const RECEIVABLE: &str = "1100";

/// See the module. An item's account has the item's own id, with `item-` before it.
pub struct QuickBooks {
    company: Company,
    tokens: Issuer,
    answers: Memory<Response>,
    objects: BTreeMap<&'static str, Vec<Value>>,
}

impl Default for QuickBooks {
    fn default() -> Self {
        QuickBooks {
            company: Company::default(),
            tokens: Issuer::new(Duration::from_secs(3600), Duration::from_secs(24 * 3600)),
            answers: Memory::new(Duration::from_secs(3600)),
            objects: BTreeMap::new(),
        }
    }
}

const ENTITIES: [(&str, &str); 4] = [
    ("journalentry", "JournalEntry"),
    ("invoice", "Invoice"),
    ("creditmemo", "CreditMemo"),
    ("customer", "Customer"),
];

impl Vendor for QuickBooks {
    fn name(&self) -> &'static str {
        "quickbooks"
    }

    fn kind(&self, request: &Request) -> Kind {
        match (request.path.as_str(), request.method.as_str()) {
            ("oauth2/v1/tokens/bearer", _) => Kind::Token,
            (_, "GET") => Kind::Read,
            (path, _) if path.ends_with("/customer") => Kind::Read,
            _ => Kind::Write,
        }
    }

    fn handle(&mut self, request: &Request, now: Duration) -> Response {
        if request.path == "oauth2/v1/tokens/bearer" {
            return self.tokens.answer(request, now);
        }
        if !self.tokens.admits(request, now) {
            return fault(
                401,
                "AUTHENTICATION",
                "3200",
                "message=AuthenticationFailed; errorCode=003200; statusCode=401",
            );
        }
        let Some(resource) = request.path.strip_prefix(&format!("v3/company/{REALM}/")) else {
            return fault(403, "AuthorizationFault", "3100", "ApplicationAuthorizationFailed");
        };
        match (request.method.as_str(), resource) {
            ("GET", "query") => self.query(request.query("query")),
            ("POST", resource) => match ENTITIES.iter().find(|(path, _)| *path == resource) {
                Some((_, entity)) => self.create(entity, request, now),
                None => fault(400, "ValidationFault", "500", "Unsupported Operation"),
            },
            _ => fault(400, "ValidationFault", "500", "Unsupported Operation"),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            per_minute: Some(500),
            per_day: None,
        }
    }

    fn documents(&self) -> Vec<Posted> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut all = Vec::new();
        for (entity, kind, sign) in [
            ("JournalEntry", "journal", 0),
            ("Invoice", "invoice", 1),
            ("CreditMemo", "credit_note", -1),
        ] {
            for document in self.objects.get(entity).into_iter().flatten() {
                let mut lines: Vec<(String, Decimal)> = Vec::new();
                for line in document["Line"].as_array().into_iter().flatten() {
                    let amount = number(&line["Amount"]).unwrap_or_default();
                    let journal = &line["JournalEntryLineDetail"];
                    match journal["PostingType"].as_str() {
                        Some("Debit") => lines.push((text(&journal["AccountRef"]["value"]), amount)),
                        Some(_) => lines.push((text(&journal["AccountRef"]["value"]), -amount)),
                        None => {
                            let item = text(&line["SalesItemLineDetail"]["ItemRef"]["value"]);
                            lines.push((
                                item.trim_start_matches("item-").to_owned(),
                                -amount * Decimal::from(sign),
                            ));
                        }
                    }
                }
                if sign != 0 {
                    let total: Decimal = lines.iter().map(|(_, amount)| *amount).sum();
                    lines.insert(0, (RECEIVABLE.to_owned(), -total));
                }
                all.push(Posted {
                    kind,
                    id: text(&document["Id"]),
                    reference: text(&document["DocNumber"]),
                    date: text(&document["TxnDate"]),
                    currency: document["CurrencyRef"]["value"].as_str().unwrap_or("USD").to_owned(),
                    status: "posted".to_owned(),
                    customer: text(&document["CustomerRef"]["name"]),
                    text: text(&document["PrivateNote"]),
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

impl QuickBooks {
    fn create(&mut self, entity: &'static str, request: &Request, now: Duration) -> Response {
        let id = request.query("requestid");
        if id.len() > 50 {
            return fault(400, "ValidationFault", "2050", "requestid is longer than 50 characters");
        }
        let id = format!("{entity} {id}");
        if let Some(answer) = self
            .answers
            .get(&id, now)
            .filter(|_| !request.query("requestid").is_empty())
        {
            return answer;
        }
        let mut object = request.json();
        let error = match entity {
            "Customer" => self.customer_error(&object),
            "JournalEntry" => self
                .document_error(&object, entity)
                .or_else(|| self.journal_error(&object)),
            _ => self
                .document_error(&object, entity)
                .or_else(|| self.sale_error(&object)),
        };
        let answer = match error {
            Some((code, detail)) => fault(400, "ValidationFault", code, &detail),
            None => {
                object["Id"] = json!(self.company.next_number().to_string());
                object["SyncToken"] = json!("0");
                object["domain"] = json!("QBO");
                self.objects.entry(entity).or_default().push(object.clone());
                Response::json(200, &json!({ entity: object, "time": "2026-01-01T00:00:00.000-08:00" }))
            }
        };
        self.answers.put(&id, now, answer.clone());
        answer
    }

    fn customer_error(&self, customer: &Value) -> Option<(&'static str, String)> {
        let name = customer["DisplayName"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains([':', '\t', '\n']) || name.chars().count() > 500 {
            return Some(("2040", "Invalid String. DisplayName".to_owned()));
        }
        let taken = self
            .objects
            .get("Customer")
            .into_iter()
            .flatten()
            .any(|known| known["DisplayName"] == name);
        taken.then(|| {
            (
                "6240",
                "The name supplied already exists. : Another customer is already using this name.".to_owned(),
            )
        })
    }

    fn document_error(&self, document: &Value, entity: &str) -> Option<(&'static str, String)> {
        let date = document["TxnDate"].as_str().unwrap_or_default();
        if !is_day(date) {
            return Some((
                "2010",
                "Request has invalid or unsupported property : TxnDate".to_owned(),
            ));
        }
        if self.company.is_closed(date) {
            let detail = "Account Period Closed, Cannot Update Through Services API : the account period has closed";
            return Some(("6210", detail.to_owned()));
        }
        let doc_number = document["DocNumber"].as_str().unwrap_or_default();
        if doc_number.chars().count() > 21 {
            return Some((
                "2050",
                "String length is either shorter or longer than supported by specification : DocNumber".to_owned(),
            ));
        }
        let taken = self
            .objects
            .get(entity)
            .into_iter()
            .flatten()
            .any(|known| known["DocNumber"] == doc_number);
        if taken && !doc_number.is_empty() {
            return Some((
                "6140",
                "Duplicate Document Number Error : You must specify a different number.".to_owned(),
            ));
        }
        let lines = document["Line"].as_array().map(Vec::as_slice).unwrap_or_default();
        if lines.is_empty() {
            return Some(("2020", "Required parameter Line is missing in the request".to_owned()));
        }
        let wrong = |line: &Value| number(&line["Amount"]).is_none_or(|amount| amount.normalize().scale() > 2);
        lines
            .iter()
            .any(wrong)
            .then(|| ("2040", "Invalid Number : Amount".to_owned()))
    }

    fn journal_error(&self, journal: &Value) -> Option<(&'static str, String)> {
        let mut sum = Decimal::ZERO;
        for line in journal["Line"].as_array().into_iter().flatten() {
            let detail = &line["JournalEntryLineDetail"];
            let amount = number(&line["Amount"]).unwrap_or_default();
            let account = detail["AccountRef"]["value"].as_str().unwrap_or_default();
            if !self.company.knows(account) {
                return Some((
                    "2500",
                    format!("Invalid Reference Id : Accounts element id {account} not found"),
                ));
            }
            if account == RECEIVABLE && !self.is_customer(&detail["Entity"]["EntityRef"]["value"]) {
                let detail = "When you use Accounts Receivable, you must choose a customer in the Name field.";
                return Some(("6000", format!("A business validation error has occurred : {detail}")));
            }
            match detail["PostingType"].as_str() {
                Some("Debit") if amount >= Decimal::ZERO => sum += amount,
                Some("Credit") if amount >= Decimal::ZERO => sum -= amount,
                _ => return Some(("2170", "Invalid Enumeration : PostingType".to_owned())),
            }
        }
        (!sum.is_zero()).then(|| {
            (
                "6000",
                "A business validation error has occurred : debits and credits do not balance".to_owned(),
            )
        })
    }

    fn sale_error(&self, sale: &Value) -> Option<(&'static str, String)> {
        if !self.is_customer(&sale["CustomerRef"]["value"]) {
            return Some(("2500", "Invalid Reference Id : Names element id not found".to_owned()));
        }
        let mut total = Decimal::ZERO;
        for line in sale["Line"].as_array().into_iter().flatten() {
            let detail = &line["SalesItemLineDetail"];
            let amount = number(&line["Amount"]).unwrap_or_default();
            let price = number(&detail["UnitPrice"]).unwrap_or_default() * number(&detail["Qty"]).unwrap_or_default();
            if price != amount {
                return Some(("6070", "Amount calculation incorrect in the request.".to_owned()));
            }
            let item = detail["ItemRef"]["value"].as_str().unwrap_or_default();
            if !item.starts_with("item-") {
                return Some((
                    "2500",
                    format!("Invalid Reference Id : Item elements id {item} not found"),
                ));
            }
            total += amount;
        }
        (total < Decimal::ZERO).then(|| {
            (
                "6000",
                "A business validation error has occurred : Transaction amount must be 0 or greater".to_owned(),
            )
        })
    }

    fn is_customer(&self, id: &Value) -> bool {
        id.is_string()
            && self
                .objects
                .get("Customer")
                .into_iter()
                .flatten()
                .any(|known| known["Id"] == *id)
    }

    /// `select ... from ENTITY where FIELD = 'x'` or `LIKE '%x'`.
    fn query(&self, query: &str) -> Response {
        let words: Vec<&str> = query.splitn(5, ' ').collect();
        let (Some(entity), rest) = (words.get(3), words.get(4).copied().unwrap_or_default()) else {
            return fault(400, "ValidationFault", "4000", "Error parsing query");
        };
        let condition = rest.strip_prefix("where ").unwrap_or_default();
        let (field, like, value) = match (condition.split_once(" = "), condition.split_once(" LIKE ")) {
            (Some((field, value)), _) => (field, false, value),
            (None, Some((field, value))) => (field, true, value),
            (None, None) => ("", false, ""),
        };
        let value = value.trim_matches('\'').replace("\\'", "'");
        let matches = |object: &&Value| match (field, like) {
            ("", _) => true,
            (field, false) => object[field] == value.as_str(),
            (field, true) => object[field]
                .as_str()
                .is_some_and(|text| text.ends_with(value.trim_start_matches('%'))),
        };
        let found: Vec<&Value> = self
            .objects
            .get(*entity)
            .into_iter()
            .flatten()
            .filter(matches)
            .collect();
        let body = match found.is_empty() {
            true => json!({}),
            false => json!({ *entity: found, "startPosition": 1, "maxResults": found.len() }),
        };
        Response::json(
            200,
            &json!({ "QueryResponse": body, "time": "2026-01-01T00:00:00.000-08:00" }),
        )
    }
}

fn fault(status: u16, kind: &str, code: &str, detail: &str) -> Response {
    let message = detail.split(" : ").next().unwrap_or_default();
    let error = json!({ "Message": message, "Detail": detail, "code": code, "element": "" });
    Response::json(
        status,
        &json!({ "Fault": { "Error": [error], "type": kind }, "time": "2026-01-01T00:00:00.000-08:00" }),
    )
}
