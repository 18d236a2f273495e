//! Codes to Tryton's own ids.
//!
//! Owns: what was looked up before (accounts, journals, currencies, the company do not change their ids). Periods are
//! asked for every time, since they close, and whether an account needs a party again before that is a reason to refuse;
//! parties are made where there is none of the code.
//! Invariant: two writers that make the same party get one: Tryton's codes are unique, so the second looks again.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::rpc::{Fault, Session};

/// Ids that were found, by model and code.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<(&'static str, String), Value>>);

/// The values for `create`, with ids in place of codes.
///
/// # Errors
/// As a call; what Tryton lacks is a `Business` fault of kind `missing_...`.
pub(super) async fn resolve(session: &Session, known: &Known, form: Values, body: &Value) -> Result<Value, Fault> {
    let company = company(session, known).await?;
    let currency = one(
        session,
        known,
        "currency.currency",
        "code",
        &body["currency"],
        "currency",
        &[],
    )
    .await?;
    if form == Values::Move && company["currency."]["code"] != body["currency"] {
        let words = format!(
            "the company's currency is {}, not {}",
            company["currency."]["code"], body["currency"]
        );
        return Err(missing("company_currency", words));
    }
    let company = company["id"].clone();
    let party = match &body["party"] {
        Value::Null => None,
        party => Some(find_or_make_party(session, party).await?),
    };
    let date = match form {
        Values::Move => &body["date"],
        Values::Invoice => &body["accounting_date"],
    };
    let period = period(session, &company, date).await?;
    let journal = match form {
        Values::Move => &session.settings().journal,
        Values::Invoice => &session.settings().invoice_journal,
    };
    let journal = one(
        session,
        known,
        "account.journal",
        "code",
        &json!(journal),
        "journal",
        &[],
    )
    .await?;
    let mut lines = Vec::new();
    for line in body["lines"].as_array().into_iter().flatten() {
        let mut line = line.clone();
        let code = line["account"].take();
        let mut account = account(session, known, &company, &code).await?;
        if form == Values::Move && party.is_none() && account["party_required"] == true {
            // A setting, unlike an id, may have changed since.
            known.0.lock().await.remove(&("account.account", code.to_string()));
            account = self::account(session, known, &company, &code).await?;
        }
        line["account"] = account["id"].clone();
        match form {
            Values::Move => {
                if account["party_required"] == true {
                    let Some(party) = &party else {
                        let words = format!(
                            "account {} needs a party, and the entry names no customer",
                            account["code"]
                        );
                        return Err(missing("party", words));
                    };
                    line["party"] = party.clone();
                }
                if !line["second_currency"].is_null() {
                    let code = line["second_currency"].take();
                    let second = one(session, known, "currency.currency", "code", &code, "currency", &[]).await?;
                    line["second_currency"] = second["id"].clone();
                }
            }
            Values::Invoice => {
                // Tryton's quantities are floats; ours are 1 and -1.
                let negative = line["quantity"].as_str().is_some_and(|text| text.starts_with('-'));
                line["quantity"] = json!(if negative { -1 } else { 1 });
                line["type"] = json!("line");
            }
        }
        lines.push(line);
    }
    let lines = json!([["create", lines]]);
    Ok(match form {
        Values::Move => json!({
            "company": company,
            "journal": journal["id"],
            "period": period,
            "date": date,
            "description": body["description"],
            "lines": lines,
        }),
        Values::Invoice => {
            let Some(party) = party else {
                return Err(missing("party", "an invoice needs a party".to_owned()));
            };
            json!({
                "company": company,
                "type": "out",
                "party": party,
                "invoice_address": address(session, &party).await?,
                "currency": currency["id"],
                "account": account(session, known, &company, &body["account"]).await?["id"],
                "journal": journal["id"],
                "accounting_date": date,
                "reference": body["reference"],
                "description": body["description"],
                "lines": lines,
            })
        }
    })
}

/// What values are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Move,
    Invoice,
}

/// The context of calls: the company, and no questions back, since nobody is there to answer.
pub(super) fn context(company: &Value) -> Value {
    json!({ "company": company, "_skip_warnings": true })
}

/// The company, with its currency.
pub(super) async fn company(session: &Session, known: &Known) -> Result<Value, Fault> {
    let key = ("company.company", String::new());
    if let Some(found) = known.0.lock().await.get(&key) {
        return Ok(found.clone());
    }
    let domain = match &session.settings().company {
        None => json!([]),
        Some(name) => json!([["party.name", "=", name]]),
    };
    let params = json!([domain, 0, 2, null, ["party.name", "currency.code"], {}]);
    let (found, _) = session.call("model.company.company.search_read", params).await?;
    match found.as_array().map(Vec::as_slice) {
        Some([company]) => {
            known.0.lock().await.insert(key, company.clone());
            Ok(company.clone())
        }
        Some([]) => Err(missing("company", "the user sees no company of this name".to_owned())),
        _ => Err(missing(
            "company",
            "the user sees several companies; name one in company".to_owned(),
        )),
    }
}

async fn account(session: &Session, known: &Known, company: &Value, code: &Value) -> Result<Value, Fault> {
    let more = [json!(["company", "=", company]), json!(["closed", "!=", true])];
    one(session, known, "account.account", "code", code, "account", &more).await
}

/// The one record of a code.
async fn one(
    session: &Session,
    known: &Known,
    model: &'static str,
    field: &str,
    code: &Value,
    what: &str,
    more: &[Value],
) -> Result<Value, Fault> {
    let key = (model, code.to_string());
    if let Some(found) = known.0.lock().await.get(&key) {
        return Ok(found.clone());
    }
    let mut domain = vec![json!([field, "=", code])];
    domain.extend(more.iter().cloned());
    let fields: &[&str] = match model {
        "account.account" => &["code", "party_required"],
        _ => &["code"],
    };
    let params = json!([domain, 0, 2, null, fields, {}]);
    let (found, _) = session.call(&format!("model.{model}.search_read"), params).await?;
    match found.as_array().map(Vec::as_slice) {
        Some([record]) => {
            known.0.lock().await.insert(key, record.clone());
            Ok(record.clone())
        }
        Some([]) => Err(missing(what, format!("there is no {what} of code {code}"))),
        _ => Err(missing(what, format!("there are several {what}s of code {code}"))),
    }
}

async fn period(session: &Session, company: &Value, date: &Value) -> Result<Value, Fault> {
    let domain = json!([
        ["company", "=", company],
        ["type", "=", "standard"],
        ["start_date", "<=", date],
        ["end_date", ">=", date],
    ]);
    let (found, _) = session
        .call(
            "model.account.period.search_read",
            json!([domain, 0, 1, null, ["state", "name"], {}]),
        )
        .await?;
    let period = &found[0];
    match period["state"].as_str() {
        Some("open") => Ok(period["id"].clone()),
        Some(_) => Err(missing(
            "period_open",
            format!("the period {} is closed", period["name"]),
        )),
        None => Err(missing("period", "there is no period for this day".to_owned())),
    }
}

async fn find_or_make_party(session: &Session, party: &Value) -> Result<Value, Fault> {
    let find = json!([[["code", "=", party["code"]]], 0, 1, null, { "active_test": false }]);
    let (found, _) = session.call("model.party.party.search", find.clone()).await?;
    if let Some(id) = found.get(0) {
        return Ok(id.clone());
    }
    let values = json!({ "name": party["name"], "code": party["code"], "addresses": [["create", [{}]]] });
    let made = session.call("model.party.party.create", json!([[values], {}])).await;
    let (found, _) = match made {
        Ok((made, reply)) if made.get(0).is_some() => (made, reply),
        // Another writer was first, or the answer was lost: its code tells.
        Ok(_) | Err(Fault::Business { .. } | Fault::Unknown(_)) => {
            session.call("model.party.party.search", find).await?
        }
        Err(fault @ (Fault::Unsent(_) | Fault::Throttled(_))) => return Err(fault),
    };
    found.get(0).cloned().ok_or_else(|| {
        missing(
            "party",
            format!("there is no party of code {}, and none could be made", party["code"]),
        )
    })
}

async fn address(session: &Session, party: &Value) -> Result<Value, Fault> {
    let find = json!([[["party", "=", party]], 0, 1, null, {}]);
    let (found, _) = session.call("model.party.address.search", find).await?;
    match found.get(0) {
        Some(address) => Ok(address.clone()),
        None => Err(missing("address", format!("the party {party} has no address"))),
    }
}

fn missing(what: &str, words: String) -> Fault {
    Fault::Business {
        kind: format!("missing_{what}"),
        words,
    }
}
