//! Xero's Accounting API 2.0, as far as a writer of journals and sales documents meets it.
//!
//! Source: Xero's OpenAPI description, and <https://developer.xero.com/documentation/api/accounting/responsecodes>.
//! PUT creates; POST of a number that exists changes that document. Validation errors are 400 with `Elements`; an
//! `Idempotency-Key` repeats the first answer.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::{Company, Memory, is_day, number};
use super::room::{Kind, Limits, Posted, Request, Response, Settings, Vendor};
use super::tokens::Issuer;

/// The one organisation there is.
pub const ORGANISATION: &str = "11111111-2222-4333-8444-555555555555";
/// Receivables and payables: Xero keeps them for its own documents.
const SYSTEM_ACCOUNTS: [&str; 2] = ["610", "800"];

/// See the module.
pub struct Xero {
    company: Company,
    tokens: Issuer,
    answers: Memory<(Vec<u8>, Response)>,
    journals: Vec<Value>,
    invoices: Vec<Value>,
    notes: Vec<Value>,
    /// Number and name.
    contacts: Vec<(String, String)>,
}

impl Default for Xero {
    fn default() -> Self {
        Xero {
            company: Company::default(),
            tokens: Issuer::new(Duration::from_secs(30 * 60), Duration::from_secs(30 * 60)),
            answers: Memory::new(Duration::from_secs(6 * 60)),
            journals: Vec::new(),
            invoices: Vec::new(),
            notes: Vec::new(),
            contacts: Vec::new(),
        }
    }
}

impl Vendor for Xero {
    fn name(&self) -> &'static str {
        "xero"
    }

    fn kind(&self, request: &Request) -> Kind {
        match (request.path.as_str(), request.method.as_str()) {
            ("connect/token", _) => Kind::Token,
            (_, "GET") => Kind::Read,
            _ => Kind::Write,
        }
    }

    fn handle(&mut self, request: &Request, now: Duration) -> Response {
        if request.path == "connect/token" {
            return self.tokens.answer(request, now);
        }
        let plain = |status: u16, title: &str| {
            Response::json(status, &json!({ "Title": title, "Status": status, "Detail": title }))
        };
        if !self.tokens.admits(request, now) {
            return plain(401, "Unauthorized: AuthenticationUnsuccessful");
        }
        if request.header("xero-tenant-id") != ORGANISATION {
            return plain(403, "Forbidden: AuthenticationUnsuccessful");
        }
        let Some(resource) = request.path.strip_prefix("api.xro/2.0/") else {
            return plain(404, "NotFound");
        };
        if (request.method.as_str(), resource) == ("GET", "Organisation") {
            return Response::json(
                200,
                &json!({ "Organisations": [{ "Name": "Sandbox", "BaseCurrency": "USD" }] }),
            );
        }
        if !matches!(resource, "ManualJournals" | "Invoices" | "CreditNotes") {
            return plain(404, "NotFound");
        }
        match request.method.as_str() {
            "GET" => self.list(resource, request),
            "PUT" | "POST" => self.write(resource, request, now),
            _ => plain(405, "MethodNotAllowed"),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            per_minute: Some(60),
            per_day: Some(5000),
        }
    }

    fn documents(&self) -> Vec<Posted> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value, amount: &str, sign: i64| -> Vec<(String, Decimal)> {
            let lines = value.as_array().into_iter().flatten();
            lines
                .map(|line| {
                    (
                        text(&line["AccountCode"]),
                        number(&line[amount]).unwrap_or_default() * Decimal::from(sign),
                    )
                })
                .collect()
        };
        let journal = |document: &Value| Posted {
            kind: "journal",
            id: text(&document["ManualJournalID"]),
            reference: text(&document["Narration"])
                .rsplit_once('[')
                .map_or(String::new(), |(_, end)| end.trim_end_matches(']').to_owned()),
            date: text(&document["DateString"]),
            currency: "USD".to_owned(),
            status: text(&document["Status"]),
            customer: String::new(),
            text: text(&document["Narration"]),
            lines: list(&document["JournalLines"], "LineAmount", 1),
        };
        let sale = |document: &Value, kind, number_name: &str, id: &str, sign: i64| {
            let mut lines = list(&document["LineItems"], "LineAmount", -sign);
            let total: Decimal = lines.iter().map(|(_, amount)| *amount).sum();
            lines.insert(0, (SYSTEM_ACCOUNTS[0].to_owned(), -total));
            Posted {
                kind,
                id: text(&document[id]),
                reference: text(&document[number_name]),
                date: text(&document["DateString"]).chars().take(10).collect(),
                currency: text(&document["CurrencyCode"]),
                status: text(&document["Status"]),
                customer: text(&document["Contact"]["Name"]),
                text: text(&document["Reference"]),
                lines,
            }
        };
        let mut all: Vec<Posted> = self.journals.iter().map(journal).collect();
        all.extend(
            self.invoices
                .iter()
                .map(|one| sale(one, "invoice", "InvoiceNumber", "InvoiceID", 1)),
        );
        all.extend(
            self.notes
                .iter()
                .map(|one| sale(one, "credit_note", "CreditNoteNumber", "CreditNoteID", -1)),
        );
        all
    }

    fn expire_tokens(&mut self) {
        self.tokens.expire();
    }

    fn set(&mut self, settings: &Settings) {
        self.company.set(settings);
    }
}

impl Xero {
    fn write(&mut self, resource: &str, request: &Request, now: Duration) -> Response {
        let key = request.header("idempotency-key").to_owned();
        if key.len() > 128 {
            return invalid(&["The Idempotency-Key is longer than 128 characters".to_owned()]);
        }
        if let Some((body, answer)) = self.answers.get(&key, now).filter(|_| !key.is_empty()) {
            return match body == request.body {
                true => answer,
                false => invalid(&["The Idempotency-Key was used with another request".to_owned()]),
            };
        }
        let answer = self.create(resource, request);
        if !key.is_empty() {
            self.answers.put(&key, now, (request.body.clone(), answer.clone()));
        }
        answer
    }

    fn create(&mut self, resource: &str, request: &Request) -> Response {
        let body = request.json();
        let Some([document]) = body[resource].as_array().map(Vec::as_slice) else {
            return invalid(&[format!("{resource} must have one element here")]);
        };
        let mut document = document.clone();
        let errors = match resource {
            "ManualJournals" => self.journal_errors(&document),
            _ => self.sale_errors(&document, resource),
        };
        if !errors.is_empty() {
            return invalid(&errors);
        }
        let id = self.company.next_uuid();
        let (id_name, number_name) = match resource {
            "ManualJournals" => ("ManualJournalID", ""),
            "Invoices" => ("InvoiceID", "InvoiceNumber"),
            _ => ("CreditNoteID", "CreditNoteNumber"),
        };
        document[id_name] = json!(id);
        document["DateString"] = document["Date"].clone();
        if !number_name.is_empty() {
            let number = document[number_name].as_str().unwrap_or(&id).to_owned();
            document[number_name] = json!(number);
            let list = if resource == "Invoices" {
                &mut self.invoices
            } else {
                &mut self.notes
            };
            if let Some(before) = list.iter_mut().find(|one| one[number_name] == number.as_str()) {
                if request.method == "PUT" {
                    return invalid(&["Invoice # must be unique.".to_owned()]);
                }
                document[id_name] = before[id_name].clone();
                *before = document.clone();
            } else {
                list.push(document.clone());
            }
            let contact = &document["Contact"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let contact = (text(&contact["ContactNumber"]), text(&contact["Name"]));
            if !self.contacts.contains(&contact) {
                self.contacts.push(contact);
            }
        } else {
            self.journals.push(document.clone());
        }
        Response::json(
            200,
            &json!({ "Id": self.company.next_uuid(), "Status": "OK", resource: [shown(&document)] }),
        )
    }

    fn journal_errors(&self, journal: &Value) -> Vec<String> {
        let mut errors = self.common_errors(journal);
        if journal["Narration"].as_str().is_none_or(str::is_empty) {
            errors.push("The Narration field is required".to_owned());
        }
        let lines = journal["JournalLines"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if lines.len() < 2 {
            errors.push("A manual journal must have at least two lines".to_owned());
        }
        let mut sum = Decimal::ZERO;
        for line in lines {
            errors.extend(self.line_errors(line, "LineAmount"));
            let code = line["AccountCode"].as_str().unwrap_or_default();
            if SYSTEM_ACCOUNTS.contains(&code) {
                errors.push(format!(
                    "Account code '{code}' is a system account and cannot be used in a manual journal"
                ));
            }
            sum += number(&line["LineAmount"]).unwrap_or_default();
        }
        if !sum.is_zero() {
            errors.push("The total debits must equal total credits".to_owned());
        }
        errors
    }

    fn sale_errors(&self, sale: &Value, resource: &str) -> Vec<String> {
        let mut errors = self.common_errors(sale);
        let (wanted, number_name) = match resource {
            "Invoices" => ("ACCREC", "InvoiceNumber"),
            _ => ("ACCRECCREDIT", "CreditNoteNumber"),
        };
        if sale["Type"] != wanted {
            errors.push(format!("Type must be {wanted} here"));
        }
        if sale[number_name].as_str().is_some_and(|number| number.len() > 255) {
            errors.push(format!("{number_name} is longer than 255 characters"));
        }
        if resource == "Invoices" && sale["Status"] == "AUTHORISED" && !sale["DueDate"].as_str().is_some_and(is_day) {
            errors.push("The DueDate field is required for approved invoices".to_owned());
        }
        let contact = &sale["Contact"];
        let (id, name) = (
            contact["ContactNumber"].as_str().unwrap_or_default(),
            contact["Name"].as_str().unwrap_or_default(),
        );
        if name.is_empty() || id.len() > 50 {
            errors.push("A contact needs a Name, and a ContactNumber of at most 50 characters".to_owned());
        }
        if self.contacts.iter().any(|(other, known)| known == name && other != id) {
            errors.push(format!(
                "The contact name {name} is already assigned to another contact"
            ));
        }
        let lines = sale["LineItems"].as_array().map(Vec::as_slice).unwrap_or_default();
        if lines.is_empty() {
            errors.push("At least one line item is required".to_owned());
        }
        let mut total = Decimal::ZERO;
        for line in lines {
            errors.extend(self.line_errors(line, "UnitAmount"));
            let amount = number(&line["LineAmount"]).unwrap_or_default();
            let product =
                number(&line["Quantity"]).unwrap_or_default() * number(&line["UnitAmount"]).unwrap_or_default();
            if product != amount {
                errors.push("The line total does not match the expected line total".to_owned());
            }
            total += amount;
        }
        if total < Decimal::ZERO {
            errors.push("The document total cannot be negative".to_owned());
        }
        errors
    }

    fn common_errors(&self, document: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        let date = document["Date"].as_str().unwrap_or_default();
        if !is_day(date) {
            errors.push("Date must be a day such as 2026-02-28".to_owned());
        }
        if self.company.is_closed(date) {
            errors.push("The document date cannot be before the period lock date".to_owned());
        }
        if !matches!(
            document["LineAmountTypes"].as_str(),
            Some("NoTax" | "Exclusive" | "Inclusive")
        ) {
            errors.push("LineAmountTypes is not one of NoTax, Exclusive, Inclusive".to_owned());
        }
        errors
    }

    fn line_errors(&self, line: &Value, amount: &str) -> Vec<String> {
        let mut errors = Vec::new();
        let code = line["AccountCode"].as_str().unwrap_or_default();
        if !self.company.knows(code) || code.len() > 10 {
            errors.push(format!("Account code '{code}' is not a valid code for this document."));
        }
        match number(&line[amount]) {
            None => errors.push(format!("{amount} must be a number")),
            Some(amount) if amount.normalize().scale() > 2 => {
                errors.push("Amounts have at most two decimals".to_owned())
            }
            Some(_) => {}
        }
        errors
    }

    fn list(&self, resource: &str, request: &Request) -> Response {
        let documents = match resource {
            "ManualJournals" => &self.journals,
            "Invoices" => &self.invoices,
            _ => &self.notes,
        };
        let Some(tests) = conditions(request.query("where")) else {
            let why = "The where clause cannot be parsed";
            return Response::json(
                400,
                &json!({ "ErrorNumber": 16, "Type": "QueryParseException", "Message": why }),
            );
        };
        let matching = documents.iter().filter(|document| {
            tests.iter().all(|(field, test, wanted)| {
                let there = document[field].as_str().unwrap_or_default();
                match *test {
                    "EndsWith" => there.ends_with(wanted),
                    "StartsWith" => there.starts_with(wanted),
                    "Contains" => there.contains(wanted),
                    _ => there == *wanted,
                }
            })
        });
        let shown: Vec<Value> = matching
            .map(|document| {
                let mut shown = shown(document);
                if let (true, Some(fields)) = (request.query("page").is_empty(), shown.as_object_mut()) {
                    fields.remove("JournalLines");
                    fields.remove("LineItems");
                }
                shown
            })
            .collect();
        Response::json(200, &json!({ "Status": "OK", resource: shown }))
    }
}

/// `Field=="x"` or `Field.EndsWith("x")`, joined by AND.
fn conditions(text: &str) -> Option<Vec<(&str, &str, &str)>> {
    let one = |condition| {
        let condition: &str = str::trim(condition);
        if let Some((field, value)) = condition.split_once("==") {
            return Some((field.trim(), "==", value.trim().strip_prefix('"')?.strip_suffix('"')?));
        }
        let (field, call) = condition.split_once('.')?;
        let (test, value) = call.split_once('(')?;
        matches!(test, "EndsWith" | "StartsWith" | "Contains").then_some(())?;
        Some((
            field,
            test,
            value.strip_suffix(')')?.strip_prefix('"')?.strip_suffix('"')?,
        ))
    };
    match text.is_empty() {
        true => Some(Vec::new()),
        false => text.split(" AND ").map(one).collect(),
    }
}

/// Dates as Xero writes them; amounts without trailing zeros, as it may.
fn shown(document: &Value) -> Value {
    let mut shown = document.clone();
    let day: Option<jiff::civil::Date> = document["Date"].as_str().and_then(|day| day.parse().ok());
    let midnight = day.and_then(|day| jiff::tz::TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok());
    if let Some(midnight) = midnight {
        shown["Date"] = json!(format!("/Date({}+0000)/", midnight.as_millisecond()));
    }
    if let Some(fields) = shown.as_object_mut() {
        match fields.contains_key("ManualJournalID") {
            true => fields.remove("DateString"),
            false => fields.insert(
                "DateString".to_owned(),
                json!(format!("{}T00:00:00", document["Date"].as_str().unwrap_or_default())),
            ),
        };
    }
    shown
}

fn invalid(messages: &[String]) -> Response {
    let errors: Vec<Value> = messages.iter().map(|message| json!({ "Message": message })).collect();
    let body = json!({
        "ErrorNumber": 10,
        "Type": "ValidationException",
        "Message": "A validation exception occurred",
        "Elements": [{ "ValidationErrors": errors }],
    });
    Response::json(400, &body)
}
