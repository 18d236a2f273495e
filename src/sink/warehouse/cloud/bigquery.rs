//! BigQuery's REST API, version 2: queries as jobs.
//!
//! Invariant: a statement that changes anything is a job with an id of ours. BigQuery refuses a second job of that id
//! (409), so that whoever hears no answer sends it again and looks at the job. Chosen over the Storage Write API, whose
//! streams append exactly once but neither merge nor move a position in the same transaction, and which would bring
//! gRPC. Absent: load jobs, and identities without a key.
//!
//! Sources: <https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/insert>,
//! <https://developers.google.com/identity/protocols/oauth2/service-account>,
//! <https://cloud.google.com/bigquery/docs/error-messages>.

use serde_json::{Value as Json, json};

use super::http::{Answer, Http, LOOK_PAUSE, LOOKS};
use super::script::{Dialect, FENCED};
use super::token::{Bearer, Held, Key, now};
use super::{Cells, Client, RequestId, WarehouseError};

const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
const TOKEN_SECONDS: i64 = 3_600;
const TOKEN_MARGIN_SECONDS: i64 = 300;

/// Where and who.
pub struct Place<'a> {
    /// Such as `https://bigquery.googleapis.com`.
    pub endpoint: &'a str,
    pub project: &'a str,
    pub dataset: &'a str,
    /// Of the dataset, such as `EU`; without it BigQuery finds it where it can.
    pub location: Option<&'a str>,
    /// The service account's key file: JSON with `client_email`, `private_key`, `token_uri`.
    pub credentials: &'a str,
}

/// See the module.
pub struct BigQuery {
    http: Http,
    key: Key,
    email: String,
    token_uri: String,
    project: String,
    dataset: String,
    location: Option<String>,
    /// `.../bigquery/v2/projects/PROJECT`
    address: String,
    bearer: Bearer,
}

impl BigQuery {
    /// # Errors
    /// The credentials are no service account's key.
    pub fn new(place: &Place<'_>) -> Result<BigQuery, WarehouseError> {
        let account: Json = serde_json::from_str(place.credentials).unwrap_or_default();
        let of = |name: &str| {
            let value = account[name].as_str().map(str::to_owned);
            value.ok_or_else(|| {
                WarehouseError::Refused(format!(
                    "the credentials are no service account's key file: they have no {name}"
                ))
            })
        };
        let endpoint = place.endpoint.trim_end_matches('/');
        Ok(BigQuery {
            http: Http::new()?,
            key: Key::from_pem(&of("private_key")?)?,
            email: of("client_email")?,
            token_uri: of("token_uri")?,
            project: place.project.to_owned(),
            dataset: place.dataset.to_owned(),
            location: place.location.map(str::to_owned),
            address: format!("{endpoint}/bigquery/v2/projects/{}", place.project),
            bearer: Bearer::default(),
        })
    }

    fn token(&self) -> Result<Held, WarehouseError> {
        let made = now();
        let assertion = self.key.sign(&json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": made,
            "exp": made + TOKEN_SECONDS,
        }))?;
        let body = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let answer = self.http.send("Google's token server", |client, _| {
            let form = "application/x-www-form-urlencoded";
            client
                .post(&self.token_uri)
                .header("content-type", form)
                .body(body.clone())
        })?;
        let Some(token) = answer.json["access_token"].as_str() else {
            let (error, why) = (&answer.json["error"], &answer.json["error_description"]);
            return Err(WarehouseError::Refused(format!(
                "Google gives no token for {}: {} {error} {why}",
                self.email, answer.status
            )));
        };
        let seconds = answer.json["expires_in"].as_i64().unwrap_or(TOKEN_SECONDS);
        Ok(Held {
            token: token.to_owned(),
            until: made + (seconds - TOKEN_MARGIN_SECONDS).max(seconds / 2),
        })
    }

    /// Sends to an address.
    fn call(&self, address: &str, body: Option<&Json>) -> Result<Answer, WarehouseError> {
        self.bearer.call(
            || self.token(),
            |token, _| {
                self.http.send("BigQuery", |client, _| match body {
                    Some(body) => client.post(address).bearer_auth(token).json(body),
                    None => client.get(address).bearer_auth(token),
                })
            },
        )
    }

    /// Parameters of an address that concern the location.
    fn at(&self, first: char) -> String {
        self.location
            .as_ref()
            .map_or(String::new(), |location| format!("{first}location={location}"))
    }

    fn query(&self, statement: &str) -> Json {
        json!({
            "query": statement,
            "useLegacySql": false,
            "defaultDataset": {"projectId": self.project, "datasetId": self.dataset},
        })
    }

    /// Has a job carried out under its id, or looks at the one that has it, and waits for its end.
    fn run(&self, id: &RequestId, query: Json) -> Result<(), WarehouseError> {
        let id = format!("accrue_{}", id.hex());
        let mut reference = json!({"projectId": self.project, "jobId": id});
        if let Some(location) = &self.location {
            reference["location"] = json!(location);
        }
        let job = json!({"jobReference": reference, "configuration": {"query": query}});
        let mut answer = self.call(&format!("{}/jobs", self.address), Some(&job))?;
        for _ in 0..LOOKS {
            match answer.status {
                200 if answer.json["status"]["state"] == "DONE" => {
                    return match &answer.json["status"]["errorResult"] {
                        Json::Null => Ok(()),
                        error => Err(judge(error)),
                    };
                }
                200 => std::thread::sleep(LOOK_PAUSE),
                // It is there: an earlier attempt arrived.
                409 => {}
                status => return Err(refused(status, &answer)),
            }
            answer = self.call(&format!("{}/jobs/{id}{}", self.address, self.at('?')), None)?;
        }
        Err(WarehouseError::Away("BigQuery: a job does not end".to_owned()))
    }
}

impl Client for BigQuery {
    fn dialect(&self) -> Dialect {
        Dialect::BigQuery {
            dataset: format!("{}.{}", self.project, self.dataset),
        }
    }

    fn ask(&mut self, statement: &str) -> Result<Vec<Cells>, WarehouseError> {
        let mut query = self.query(statement);
        if let Some(location) = &self.location {
            query["location"] = json!(location);
        }
        let mut answer = self.call(&format!("{}/queries", self.address), Some(&query))?;
        let mut rows = Vec::new();
        let mut looks = 0;
        while looks < LOOKS {
            if answer.status != 200 {
                return Err(refused(answer.status, &answer));
            }
            let id = answer.json["jobReference"]["jobId"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let mut address = format!("{}/queries/{id}?timeoutMs=10000{}", self.address, self.at('&'));
            if answer.json["jobComplete"] == true {
                rows.extend(cells(&answer.json)?);
                match answer.json["pageToken"].as_str() {
                    Some(page) => address += &format!("&pageToken={page}"),
                    None => return Ok(rows),
                }
            } else {
                looks += 1;
                std::thread::sleep(LOOK_PAUSE);
            }
            answer = self.call(&address, None)?;
        }
        Err(WarehouseError::Away("BigQuery: a query does not end".to_owned()))
    }

    fn write(&mut self, id: &RequestId, statement: &str, texts: &[&str]) -> Result<(), WarehouseError> {
        let mut query = self.query(statement);
        let text = |text: &&str| json!({"parameterType": {"type": "STRING"}, "parameterValue": {"value": text}});
        query["parameterMode"] = json!("POSITIONAL");
        query["queryParameters"] = texts.iter().map(text).collect();
        self.run(id, query)
    }

    fn transact(&mut self, id: &RequestId, statements: &[String]) -> Result<(), WarehouseError> {
        self.run(id, self.query(&(statements.join(";\n") + ";")))
    }
}

fn cells(answer: &Json) -> Result<Vec<Cells>, WarehouseError> {
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    let cells = rows.iter().map(|row| {
        let row = row["f"].as_array()?.iter();
        Some(row.map(|cell| cell["v"].as_str().map(str::to_owned)).collect())
    });
    cells.collect::<Option<_>>().ok_or_else(|| {
        WarehouseError::Refused("BigQuery answers with rows without fields; is that its API?".to_owned())
    })
}

/// A request that was not carried out.
fn refused(status: u16, answer: &Answer) -> WarehouseError {
    let error = &answer.json["error"];
    let message = error["message"].as_str().map_or_else(|| answer.words(), str::to_owned);
    let text = format!("BigQuery: {message} ({status})");
    match (status, error["errors"][0]["reason"].as_str()) {
        (_, Some(reason)) if passes(reason) => WarehouseError::Away(text),
        _ => WarehouseError::Refused(text),
    }
}

/// A job that failed: nothing of it stands.
fn judge(error: &Json) -> WarehouseError {
    let said = |name: &str| error[name].as_str().unwrap_or_default();
    let text = format!("BigQuery: {} ({})", said("message"), said("reason"));
    if said("message").contains(FENCED) || said("message").contains("concurrent update") {
        WarehouseError::Fenced(text)
    } else if passes(said("reason")) {
        WarehouseError::Away(text)
    } else {
        WarehouseError::Refused(text)
    }
}

fn passes(reason: &str) -> bool {
    matches!(
        reason,
        "backendError"
            | "internalError"
            | "jobBackendError"
            | "jobInternalError"
            | "jobRateLimitExceeded"
            | "rateLimitExceeded"
            | "stopped"
            | "timeout"
    )
}
