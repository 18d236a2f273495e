//! The embedded registry over HTTP: the part of the Confluent REST API that producers and consumers use, so that any
//! Avro client can read our topics. Deliberately absent: deletion, schema references, modes.
//!
//! Error bodies are `{"error_code", "message"}` with Confluent's codes (40401 subject, 40402 version, 40403 schema,
//! 409 incompatible, 42201 invalid schema, 42203 invalid compatibility).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json as JsonBody, Router};
use serde_json::{Value as Json, json};

use super::embedded::Version;
use super::{Compatibility, Embedded, Registry, RegistryError, SchemaId, Subject};

type Shared = State<Arc<Embedded>>;

/// What readers ask.
pub fn reading(registry: Arc<Embedded>) -> Router {
    Router::new()
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(lookup))
        .route("/subjects/{subject}/versions", get(versions))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/schemas/ids/{id}", get(schema))
        .route("/compatibility/subjects/{subject}/versions", post(check_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(check))
        .route("/config", get(default_config))
        .route("/config/{subject}", get(config))
        .with_state(registry)
}

/// What changes a registry, on the same paths: for whoever may.
pub fn writing(registry: Arc<Embedded>) -> Router {
    Router::new()
        .route("/subjects/{subject}/versions", post(register))
        .route("/config/{subject}", put(set_config))
        .with_state(registry)
}

/// An answer, or Confluent's error code and words.
type Answer = Result<Json, Failure>;

struct Failure {
    code: u32,
    message: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = if self.code >= 10_000 {
            self.code / 100
        } else {
            self.code
        };
        let status = u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok());
        let body = json!({ "error_code": self.code, "message": self.message });
        let mut response = (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), JsonBody(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        response
    }
}

const CONTENT_TYPE: header::HeaderValue = header::HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

fn answer(result: Answer) -> Response {
    match result {
        Ok(body) => {
            let mut response = JsonBody(body).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
            response
        }
        Err(failure) => failure.into_response(),
    }
}

async fn subjects(State(registry): Shared) -> Response {
    answer(Ok(registry.subjects().iter().map(Subject::as_str).collect()))
}

async fn versions(State(registry): Shared, Path(subject): Path<String>) -> Response {
    let versions = registry.versions(&Subject::new(&subject));
    if versions.is_empty() {
        return answer(Err(no_subject(&subject)));
    }
    answer(Ok(versions.iter().map(|version| version.version).collect()))
}

async fn version(State(registry): Shared, Path((subject, wanted)): Path<(String, String)>) -> Response {
    answer(find_version(&registry, &subject, &wanted).map(|found| describe(&subject, &found)))
}

async fn schema(State(registry): Shared, Path(id): Path<String>) -> Response {
    let unknown = || Failure {
        code: 40403,
        message: format!("Schema {id} not found"),
    };
    let found = id
        .parse()
        .map_err(|_| unknown())
        .and_then(|number| registry.schema(SchemaId(number)).map_err(|_| unknown()));
    answer(found.map(|schema| json!({ "schema": schema })))
}

async fn register(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Response {
    let task = move || {
        let subject = Subject::new(subject);
        let schema = supplied(&body)?;
        let id = registry.register(&subject, &schema).map_err(failure)?;
        Ok(json!({ "id": id.0 }))
    };
    answer(off_the_reactor(task).await)
}

async fn lookup(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Response {
    let found = supplied(&body).and_then(|schema| {
        let name = Subject::new(&subject);
        let versions = registry.versions(&name);
        if versions.is_empty() {
            return Err(no_subject(&subject));
        }
        let id = registry.lookup(&name, &schema).map_err(failure)?;
        versions
            .into_iter()
            .find(|version| Some(version.id) == id)
            .map(|version| describe(&subject, &version))
            .ok_or_else(|| Failure {
                code: 40403,
                message: "Schema not found".into(),
            })
    });
    answer(found)
}

/// By the subject's level, whichever versions it looks at; a subject without versions takes any schema.
async fn check_all(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Response {
    answer(verdict(&registry, &subject, &body))
}

/// The version only has to exist: the embedded registry checks by the subject's level.
async fn check(State(registry): Shared, Path((subject, wanted)): Path<(String, String)>, body: Bytes) -> Response {
    answer(find_version(&registry, &subject, &wanted).and_then(|_| verdict(&registry, &subject, &body)))
}

fn verdict(registry: &Embedded, subject: &str, body: &Bytes) -> Answer {
    match registry.check(&Subject::new(subject), &supplied(body)?) {
        Ok(()) => Ok(json!({ "is_compatible": true })),
        Err(RegistryError::Incompatible { reason, .. }) => Ok(json!({ "is_compatible": false, "messages": [reason] })),
        Err(error) => Err(failure(error)),
    }
}

async fn default_config(State(registry): Shared) -> Response {
    answer(Ok(
        json!({ "compatibilityLevel": registry.default_compatibility().as_str() }),
    ))
}

async fn config(State(registry): Shared, Path(subject): Path<String>) -> Response {
    let level = registry
        .compatibility(&Subject::new(subject))
        .unwrap_or(registry.default_compatibility());
    answer(Ok(json!({ "compatibilityLevel": level.as_str() })))
}

async fn set_config(State(registry): Shared, Path(subject): Path<String>, body: Bytes) -> Response {
    let task = move || {
        let wanted = body_json(&body)?;
        let name = wanted.get("compatibility").and_then(Json::as_str).unwrap_or_default();
        let level: Compatibility = name.parse().map_err(|message| Failure { code: 42203, message })?;
        registry
            .set_compatibility(&Subject::new(subject), level)
            .map_err(failure)?;
        Ok(json!({ "compatibility": level.as_str() }))
    };
    answer(off_the_reactor(task).await)
}

/// Writes sync files: not on a thread that serves requests.
async fn off_the_reactor(task: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    match tokio::task::spawn_blocking(task).await {
        Ok(result) => result,
        Err(error) => Err(Failure {
            code: 50001,
            message: error.to_string(),
        }),
    }
}

fn find_version(registry: &Embedded, subject: &str, wanted: &str) -> Result<Version, Failure> {
    let mut versions = registry.versions(&Subject::new(subject));
    let Some(last) = versions.pop() else {
        return Err(no_subject(subject));
    };
    if wanted == "latest" || wanted == "-1" || wanted.parse() == Ok(last.version) {
        return Ok(last);
    }
    versions
        .into_iter()
        .find(|version| wanted.parse() == Ok(version.version))
        .ok_or_else(|| Failure {
            code: 40402,
            message: format!("Version {wanted} not found."),
        })
}

fn describe(subject: &str, version: &Version) -> Json {
    json!({ "subject": subject, "version": version.version, "id": version.id.0, "schema": version.schema })
}

fn supplied(body: &Bytes) -> Result<String, Failure> {
    let body = body_json(body)?;
    match body.get("schemaType").and_then(Json::as_str) {
        None | Some("AVRO") => {}
        Some(other) => {
            return Err(Failure {
                code: 42201,
                message: format!("Schema type {other} is not served here; use AVRO"),
            });
        }
    }
    let schema = body.get("schema").and_then(Json::as_str).map(str::to_string);
    schema.ok_or_else(|| Failure {
        code: 42201,
        message: "The body has no schema".into(),
    })
}

fn body_json(body: &Bytes) -> Result<Json, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure {
        code: 42201,
        message: format!("Not JSON: {error}"),
    })
}

fn no_subject(subject: &str) -> Failure {
    Failure {
        code: 40401,
        message: format!("Subject '{subject}' not found."),
    }
}

fn failure(error: RegistryError) -> Failure {
    let message = error.to_string();
    match error {
        RegistryError::Unavailable(_) => Failure { code: 50001, message },
        RegistryError::UnknownSchema(_) => Failure { code: 40403, message },
        RegistryError::Incompatible { reason, .. } if reason.starts_with("not an Avro schema") => {
            Failure { code: 42201, message }
        }
        RegistryError::Incompatible { .. } => Failure { code: 409, message },
        RegistryError::Refused(_) | RegistryError::NotAvro { .. } => Failure { code: 42201, message },
    }
}
