//! Snowflake's SQL API, version 2.
//!
//! Invariant: a statement that changes anything has a `requestId`, and is sent again with `retry=true`; Snowflake does not
//! run it twice. Absent: OAuth and passwords; a key pair is what services use.
//!
//! Sources: <https://docs.snowflake.com/en/developer-guide/sql-api/reference>,
//! <https://docs.snowflake.com/en/developer-guide/sql-api/authenticating>,
//! <https://docs.snowflake.com/en/developer-guide/sql-api/submitting-multiple-statements>.

use serde_json::{Map, Value as Json, json};

use super::http::{Answer, Http, LOOK_PAUSE, LOOKS};
use super::script::{Dialect, FENCED};
use super::token::{Bearer, Held, Key, now};
use super::{Cells, Client, RequestId, WarehouseError};

/// Snowflake takes tokens of an hour at most.
const TOKEN_SECONDS: i64 = 3_600;
/// A token is made anew so long before its end.
const TOKEN_MARGIN_SECONDS: i64 = 300;
/// Snowflake ends a statement of ours that runs longer.
const STATEMENT_SECONDS: u32 = 900;

/// Where and who. Names are as Snowflake holds them: in capitals, unless they were made in quotes.
pub struct Place<'a> {
    /// Such as `https://ORG-ACCOUNT.snowflakecomputing.com`.
    pub endpoint: &'a str,
    /// `ORG-ACCOUNT`, or the account's locator alone.
    pub account: &'a str,
    pub user: &'a str,
    pub private_key: &'a str,
    pub database: &'a str,
    pub schema: &'a str,
    pub warehouse: &'a str,
    /// Without it, the user's default role.
    pub role: Option<&'a str>,
}

/// See the module.
pub struct Snowflake {
    http: Http,
    key: Key,
    statements: String,
    /// `ACCOUNT.USER`
    subject: String,
    /// What every request says: database, schema, warehouse, role, timeout.
    context: Map<String, Json>,
    bearer: Bearer,
}

impl Snowflake {
    /// # Errors
    /// The private key is none.
    pub fn new(place: &Place<'_>) -> Result<Snowflake, WarehouseError> {
        let mut context = Map::new();
        for (name, value) in [
            ("database", Some(place.database)),
            ("schema", Some(place.schema)),
            ("warehouse", Some(place.warehouse)),
            ("role", place.role),
        ] {
            if let Some(value) = value {
                context.insert(name.to_owned(), json!(value));
            }
        }
        context.insert("timeout".to_owned(), json!(STATEMENT_SECONDS));
        Ok(Snowflake {
            http: Http::new()?,
            key: Key::from_pem(place.private_key)?,
            statements: format!("{}/api/v2/statements", place.endpoint.trim_end_matches('/')),
            subject: format!("{}.{}", place.account.replace('.', "-"), place.user).to_uppercase(),
            context,
            bearer: Bearer::default(),
        })
    }

    fn token(&self) -> Result<Held, WarehouseError> {
        let made = now();
        let token = self.key.sign(&json!({
            "iss": format!("{}.{}", self.subject, self.key.fingerprint()?),
            "sub": self.subject,
            "iat": made,
            "exp": made + TOKEN_SECONDS,
        }))?;
        let until = made + TOKEN_SECONDS - TOKEN_MARGIN_SECONDS;
        Ok(Held { token, until })
    }

    /// Sends to an address.
    fn call(&self, address: &str, body: Option<&Json>) -> Result<Answer, WarehouseError> {
        self.bearer.call(
            || self.token(),
            |token, again| {
                self.http.send("Snowflake", |client, attempt| {
                    let request = match body {
                        // An earlier attempt, or one under the old token, may have been taken.
                        Some(_) if attempt > 0 || again => client.post(format!("{address}&retry=true")),
                        Some(_) => client.post(address),
                        None => client.get(address),
                    };
                    let request = request
                        .header("accept", "application/json")
                        .header("x-snowflake-authorization-token-type", "KEYPAIR_JWT")
                        .bearer_auth(token);
                    match body {
                        Some(body) => request.json(body),
                        None => request,
                    }
                })
            },
        )
    }

    /// Has a statement carried out, and waits for its end.
    fn run(&self, id: &str, mut body: Map<String, Json>) -> Result<Json, WarehouseError> {
        body.extend(self.context.clone());
        let mut answer = self.call(
            &format!("{}?requestId={id}", self.statements),
            Some(&Json::Object(body)),
        )?;
        for _ in 0..LOOKS {
            match answer.status {
                200 => return Ok(answer.json),
                202 => {
                    let Some(handle) = answer.json["statementHandle"].as_str() else {
                        return Err(unreadable(&answer));
                    };
                    let address = format!("{}/{handle}", self.statements);
                    std::thread::sleep(LOOK_PAUSE);
                    answer = self.call(&address, None)?;
                }
                status => return Err(judge(status, &answer)),
            }
        }
        Err(WarehouseError::Away("Snowflake: a statement does not end".to_owned()))
    }
}

impl Client for Snowflake {
    fn dialect(&self) -> Dialect {
        Dialect::Snowflake
    }

    fn ask(&mut self, statement: &str) -> Result<Vec<Cells>, WarehouseError> {
        let mut id = [0; 16];
        openssl::rand::rand_bytes(&mut id)
            .map_err(|error| WarehouseError::Refused(format!("no random bytes: {error}")))?;
        let mut answer = self.run(&RequestId(id).uuid(), object(json!({"statement": statement})))?;
        let mut rows = cells(&answer)?;
        let partitions = answer["resultSetMetaData"]["partitionInfo"]
            .as_array()
            .map_or(1, Vec::len);
        let handle = answer["statementHandle"].as_str().unwrap_or_default().to_owned();
        for partition in 1..partitions {
            let address = format!("{}/{handle}?partition={partition}", self.statements);
            let next = self.call(&address, None)?;
            if next.status != 200 {
                return Err(judge(next.status, &next));
            }
            answer = next.json;
            rows.extend(cells(&answer)?);
        }
        Ok(rows)
    }

    fn write(&mut self, id: &RequestId, statement: &str, texts: &[&str]) -> Result<(), WarehouseError> {
        let bound = texts.iter().enumerate();
        let bound = bound.map(|(n, text)| ((n + 1).to_string(), json!({"type": "TEXT", "value": text})));
        let body = json!({"statement": statement, "bindings": bound.collect::<Map<_, _>>()});
        self.run(&id.uuid(), object(body)).map(drop)
    }

    fn transact(&mut self, id: &RequestId, statements: &[String]) -> Result<(), WarehouseError> {
        let body = json!({
            "statement": statements.join(";\n"),
            "parameters": {"MULTI_STATEMENT_COUNT": statements.len().to_string()},
        });
        self.run(&id.uuid(), object(body)).map(drop)
    }
}

fn object(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

fn cells(answer: &Json) -> Result<Vec<Cells>, WarehouseError> {
    let rows = answer["data"].as_array().cloned().unwrap_or_default();
    let cells = rows.iter().map(|row| {
        let row = row.as_array()?.iter();
        Some(row.map(|cell| cell.as_str().map(str::to_owned)).collect())
    });
    cells.collect::<Option<_>>().ok_or_else(|| {
        WarehouseError::Refused("Snowflake answers with rows that are no lists; is that its SQL API?".to_owned())
    })
}

fn unreadable(answer: &Answer) -> WarehouseError {
    WarehouseError::Away(format!(
        "Snowflake: {} names no statement: {}",
        answer.status,
        answer.words()
    ))
}

/// <https://docs.snowflake.com/en/developer-guide/sql-api/handling-errors>
fn judge(status: u16, answer: &Answer) -> WarehouseError {
    let said = |name: &str| answer.json[name].as_str().unwrap_or_default();
    let message = match said("message") {
        "" => answer.words(),
        message => message.to_owned(),
    };
    let text = format!("Snowflake: {message} ({status} {})", said("code"));
    match (status, said("code")) {
        (422, _) if message.contains(FENCED) => WarehouseError::Fenced(text),
        // Ended by a time limit, cancelled, or waited too long for a lock: nothing of it stands.
        (422, "000604" | "000625" | "000630" | "000627") => WarehouseError::Away(text),
        // The handle of a statement that is forgotten: what came of it, the positions say.
        (404, _) if !said("code").is_empty() => WarehouseError::Away(text),
        (401, _) => WarehouseError::Refused(format!(
            "{text}: does the user have the public key, is the account's name right, and this machine's clock?"
        )),
        _ => WarehouseError::Refused(text),
    }
}
