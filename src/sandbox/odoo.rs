//! Odoo's JSON-2 API, as far as a writer of `account.move` meets it.
//!
//! Source: <https://www.odoo.com/documentation/19.0/developer/reference/external_api.html>, and the models `account.move`,
//! `account.move.line`, `res.partner`. References are not unique; an entry must balance when it is made; nothing may be
//! dated on or before the lock date.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::{Company, is_day, number};
use super::room::{Kind, Limits, Posted, Request, Response, Settings, Vendor};

/// What a user of the sandbox configures.
pub const API_KEY: &str = "sandbox-odoo-api-key";
const RECEIVABLE: &str = "1100";

/// See the module.
#[derive(Default)]
pub struct Odoo {
    company: Company,
    partners: Vec<Value>,
    /// Codes; the id is the place, from 1.
    accounts: Vec<String>,
    moves: Vec<Value>,
}

impl Vendor for Odoo {
    fn name(&self) -> &'static str {
        "odoo"
    }

    fn kind(&self, request: &Request) -> Kind {
        match request.path.as_str() {
            "json/2/account.move/create" | "json/2/account.move/action_post" | "json/2/account.move/unlink" => {
                Kind::Write
            }
            _ => Kind::Read,
        }
    }

    fn handle(&mut self, request: &Request, _now: Duration) -> Response {
        if request.header("authorization") != format!("bearer {API_KEY}") {
            return error(401, "werkzeug.exceptions.Unauthorized", "Invalid apikey");
        }
        let Some((model, method)) = request
            .path
            .strip_prefix("json/2/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return error(404, "werkzeug.exceptions.NotFound", "404: Not Found");
        };
        let body = request.json();
        match (model, method) {
            (_, "search_read") => self.search(model, &body),
            ("res.partner", "create") => self.create_partner(&body["vals_list"][0]),
            ("account.move", "create") => self.create_move(&body["vals_list"][0]),
            ("account.move", "action_post") => self.post(&body["ids"][0]),
            ("account.move", "unlink") => self.unlink(&body["ids"][0]),
            _ => error(404, "werkzeug.exceptions.NotFound", "the method does not exist"),
        }
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn documents(&self) -> Vec<Posted> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let partner = |id: &Value| {
            self.partners
                .iter()
                .find(|one| one["id"] == *id)
                .map_or(String::new(), |one| text(&one["name"]))
        };
        let shown = |one: &Value| Posted {
            kind: match one["move_type"].as_str() {
                Some("out_invoice") => "invoice",
                Some("out_refund") => "credit_note",
                _ => "journal",
            },
            id: one["id"].to_string(),
            reference: text(&one["ref"]),
            date: text(&one["date"]),
            currency: "USD".to_owned(),
            status: text(&one["state"]),
            customer: partner(&one["partner_id"]),
            text: text(&one["lines"][0]["name"]),
            lines: one["lines"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|line| {
                    (
                        self.code(&line["account_id"]),
                        number(&line["balance"]).unwrap_or_default(),
                    )
                })
                .collect(),
        };
        self.moves.iter().map(shown).collect()
    }

    fn expire_tokens(&mut self) {}

    fn set(&mut self, settings: &Settings) {
        self.company.set(settings);
    }
}

impl Odoo {
    fn search(&mut self, model: &str, body: &Value) -> Response {
        let wanted = |field: &str| {
            let terms = body["domain"].as_array().into_iter().flatten();
            terms.filter(|term| term[0] == field).map(|term| term[2].clone()).next()
        };
        let found: Vec<Value> = match model {
            "res.company" => vec![json!({ "id": 1 })],
            "res.currency" => vec![json!({ "id": 2 })],
            "account.journal" => vec![json!({ "id": 3 })],
            "account.account" => {
                let code = wanted("code")
                    .and_then(|code| code.as_str().map(str::to_owned))
                    .unwrap_or_default();
                match self.company.knows(&code) {
                    true => vec![json!({ "id": self.account_id(&code) })],
                    false => Vec::new(),
                }
            }
            "res.partner" => self
                .partners
                .iter()
                .filter(|one| Some(&one["ref"]) == wanted("ref").as_ref())
                .cloned()
                .collect(),
            "account.move" => {
                let (reference, kind) = (wanted("ref"), wanted("move_type"));
                let matching = self
                    .moves
                    .iter()
                    .filter(|one| Some(&one["ref"]) == reference.as_ref() && Some(&one["move_type"]) == kind.as_ref());
                matching.cloned().collect()
            }
            "account.move.line" => {
                let ids = wanted("move_id").unwrap_or_default();
                let ids = ids.as_array().cloned().unwrap_or_default();
                let matching = self.moves.iter().filter(|one| ids.contains(&one["id"]));
                let lines = matching.flat_map(|one| one["lines"].as_array().cloned().unwrap_or_default());
                lines
                    .map(|mut line| {
                        line["account_id"] = json!([line["account_id"], self.code(&line["account_id"])]);
                        line
                    })
                    .collect()
            }
            _ => return error(404, "werkzeug.exceptions.NotFound", "the model does not exist"),
        };
        Response::json(200, &json!(found))
    }

    fn account_id(&mut self, code: &str) -> usize {
        match self.accounts.iter().position(|known| known == code) {
            Some(at) => at + 1,
            None => {
                self.accounts.push(code.to_owned());
                self.accounts.len()
            }
        }
    }

    fn code(&self, id: &Value) -> String {
        let at = id
            .as_u64()
            .and_then(|id| usize::try_from(id).ok())
            .and_then(|id| id.checked_sub(1));
        at.and_then(|at| self.accounts.get(at)).cloned().unwrap_or_default()
    }

    fn create_partner(&mut self, values: &Value) -> Response {
        let mut partner = values.clone();
        let id = self.company.next_number();
        partner["id"] = json!(id);
        self.partners.push(partner);
        Response::json(200, &json!([id]))
    }

    fn create_move(&mut self, values: &Value) -> Response {
        let refuse = |words: &str| error(422, "odoo.exceptions.UserError", words);
        let date = values["date"].as_str().unwrap_or_default();
        if !is_day(date) {
            return error(422, "odoo.exceptions.ValidationError", "the date is not valid");
        }
        let kind = values["move_type"].as_str().unwrap_or_default();
        let (field, sign) = match kind {
            "entry" => ("line_ids", Decimal::ZERO),
            "out_invoice" => ("invoice_line_ids", -Decimal::ONE),
            "out_refund" => ("invoice_line_ids", Decimal::ONE),
            _ => return error(422, "odoo.exceptions.ValidationError", "wrong value for move_type"),
        };
        let mut lines = Vec::new();
        let mut sum = Decimal::ZERO;
        for command in values[field].as_array().into_iter().flatten() {
            let mut line = command[2].clone();
            let code = self.code(&line["account_id"]);
            if code.is_empty() {
                return error(422, "odoo.exceptions.ValidationError", "the account does not exist");
            }
            if !self.company.knows(&code) {
                return refuse(&format!("You cannot use the archived account {code}."));
            }
            let amount = match kind {
                "entry" => number(&line["debit"])
                    .zip(number(&line["credit"]))
                    .map(|(debit, credit)| debit - credit),
                _ => number(&line["price_unit"]).map(|price| price * sign),
            };
            let Some(amount) = amount else {
                return error(422, "odoo.exceptions.ValidationError", "amounts must be numbers");
            };
            line["display_type"] = json!("product");
            line["balance"] = amount.to_string().parse().map_or(Value::Null, Value::Number);
            sum += amount;
            lines.push(line);
        }
        if kind == "entry" && !sum.is_zero() {
            return refuse("The entry is not balanced.");
        }
        if kind != "entry" {
            if !self.partners.iter().any(|one| one["id"] == values["partner_id"]) {
                return refuse("The 'Customer' field is required to validate the invoice.");
            }
            let receivable = self.account_id(RECEIVABLE);
            let balance = (-sum).to_string().parse().map_or(Value::Null, Value::Number);
            lines.insert(
                0,
                json!({ "account_id": receivable, "display_type": "payment_term", "balance": balance }),
            );
        }
        let id = self.company.next_number();
        self.moves.push(json!({
            "id": id, "move_type": kind, "ref": values["ref"], "date": date, "invoice_date": values["invoice_date"],
            "partner_id": values["partner_id"], "state": "draft", "lines": lines,
        }));
        Response::json(200, &json!([id]))
    }

    fn post(&mut self, id: &Value) -> Response {
        let Some(one) = self.moves.iter_mut().find(|one| one["id"] == *id) else {
            return error(
                404,
                "odoo.exceptions.MissingError",
                "Record does not exist or has been deleted.",
            );
        };
        if one["state"] == "posted" {
            return error(422, "odoo.exceptions.UserError", "The entry must be in draft.");
        }
        if self.company.is_closed(one["date"].as_str().unwrap_or_default()) {
            let words = "You cannot add/modify entries prior to and inclusive of the lock date.";
            return error(422, "odoo.exceptions.UserError", words);
        }
        one["state"] = json!("posted");
        Response::json(200, &json!(false))
    }

    fn unlink(&mut self, id: &Value) -> Response {
        if self
            .moves
            .iter()
            .any(|one| one["id"] == *id && one["state"] == "posted")
        {
            return error(422, "odoo.exceptions.UserError", "You cannot delete a posted entry.");
        }
        self.moves.retain(|one| one["id"] != *id);
        Response::json(200, &json!(true))
    }
}

fn error(status: u16, name: &str, message: &str) -> Response {
    Response::json(
        status,
        &json!({ "name": name, "message": message, "arguments": [message], "context": {}, "debug": "" }),
    )
}
