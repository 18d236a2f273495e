//! A registry server with the Confluent REST API: Confluent, Apicurio (`/apis/ccompat/v7`), Karapace, Redpanda.
//!
//! Invariant: a missing answer is `Unavailable`, a negative answer never is. The calls of `schema_registry_converter`
//! are async; they run on this registry's own small runtime and the calling OS thread waits.

use std::error::Error as _;
use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use reqwest::StatusCode;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SrCall, SuppliedSchema};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use super::{Compatibility, Registry, RegistryError, SchemaId, Subject};

/// Longer than a registry's own election of a leader, shorter than a session timeout.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub struct Confluent {
    url: String,
    access: Access,
    settings: SrSettings,
    client: reqwest::Client,
    runtime: Runtime,
}

/// How to show the registry who we are. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    Open,
    Basic { user: String, password: String },
    Bearer { token: String },
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Access::Open => "Open",
            Access::Basic { .. } => "Basic(****)",
            Access::Bearer { .. } => "Bearer(****)",
        })
    }
}

impl Confluent {
    /// `url` is the API's base, without a trailing slash: `http://registry:8081` or `.../apis/ccompat/v7`.
    ///
    /// # Errors
    /// The HTTP client or its runtime cannot be made; nothing is sent yet.
    pub fn new(url: &str, access: Access) -> Result<Confluent, RegistryError> {
        let url = url.trim_end_matches('/').to_string();
        let refused = |error: String| RegistryError::Refused(format!("{url}: {error}"));
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(TIMEOUT);
        match &access {
            Access::Open => {}
            Access::Basic { user, password } => {
                builder.set_basic_authorization(user, Some(password));
            }
            Access::Bearer { token } => {
                builder.set_token_authorization(token);
            }
        }
        let settings = builder.build().map_err(|error| refused(error.to_string()))?;
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("schema-registry")
            .enable_all()
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Confluent {
            url,
            access,
            settings,
            client,
            runtime,
        })
    }

    /// Runs `call` on the registry's runtime. Waiting on a channel, unlike `block_on`, is allowed on any thread.
    fn wait<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // The receiver is gone only if the waiting thread died: nobody is left to tell.
            let _ = sender.send(call.await);
        });
        receiver
            .recv()
            .unwrap_or_else(|_| Err(RegistryError::Unavailable("the registry call was dropped".into())))
    }

    /// A call that `schema_registry_converter` does not have. The answer's status and body.
    fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Json>,
    ) -> Result<(StatusCode, Json), RegistryError> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        request = match &self.access {
            Access::Open => request,
            Access::Basic { user, password } => request.basic_auth(user, Some(password)),
            Access::Bearer { token } => request.bearer_auth(token),
        };
        if let Some(body) = body {
            request = request.header("Content-Type", CONTENT_TYPE).body(body.to_string());
        }
        self.wait(async move {
            let unavailable = |error: reqwest::Error| RegistryError::Unavailable(error.to_string());
            let answer = request
                .header("Accept", CONTENT_TYPE)
                .send()
                .await
                .map_err(unavailable)?;
            let status = answer.status();
            let text = answer.text().await.map_err(unavailable)?;
            let body = serde_json::from_str(&text).unwrap_or(Json::String(text));
            Ok((status, body))
        })
    }
}

impl Registry for Confluent {
    fn register(&self, subject: &Subject, schema: &str) -> Result<SchemaId, RegistryError> {
        let settings = self.settings.clone();
        let subject = subject.clone();
        let schema = SuppliedSchema::new(None, SchemaType::Avro, schema.to_string());
        self.wait(async move {
            let registered = post_schema(&settings, escaped(&subject), schema).await;
            registered
                .map(|schema| SchemaId(schema.id))
                .map_err(|error| judge(error, &subject))
        })
    }

    fn lookup(&self, subject: &Subject, schema: &str) -> Result<Option<SchemaId>, RegistryError> {
        let settings = self.settings.clone();
        let subject = subject.clone();
        let body = json!({ "schema": schema, "schemaType": "AVRO" }).to_string();
        self.wait(async move {
            match perform_sr_call(&settings, SrCall::PostForVersion(&escaped(&subject), &body)).await {
                Ok(found) => Ok(found.id.map(SchemaId)),
                Err(error) if code(&error).is_some_and(is_not_found) => Ok(None),
                Err(error) => Err(judge(error, &subject)),
            }
        })
    }

    fn schema(&self, id: SchemaId) -> Result<String, RegistryError> {
        let settings = self.settings.clone();
        self.wait(async move {
            match get_schema_by_id(id.0, &settings).await {
                Ok(found) if found.schema_type == SchemaType::Avro => Ok(found.schema),
                Ok(found) => Err(RegistryError::NotAvro {
                    id,
                    kind: format!("{:?}", found.schema_type),
                }),
                Err(error) if code(&error).is_some_and(is_not_found) => Err(RegistryError::UnknownSchema(id)),
                Err(error) => Err(judge(error, &Subject::new(format!("schema id {}", id.0)))),
            }
        })
    }

    fn check(&self, subject: &Subject, schema: &str) -> Result<(), RegistryError> {
        // Without a version: all of those that the subject's level asks for.
        let path = format!("/compatibility/subjects/{}/versions?verbose=true", escaped(subject));
        let body = json!({ "schema": schema, "schemaType": "AVRO" });
        let (status, answer) = self.call(reqwest::Method::POST, &path, Some(body))?;
        if status == StatusCode::NOT_FOUND {
            return Ok(()); // a subject without versions takes any schema
        }
        refuse(status, &answer)?;
        match answer.get("is_compatible").and_then(Json::as_bool) {
            Some(true) => Ok(()),
            Some(false) | None => {
                let reason = answer.get("messages").unwrap_or(&answer).to_string();
                Err(RegistryError::Incompatible {
                    subject: subject.clone(),
                    reason,
                })
            }
        }
    }

    fn set_compatibility(&self, subject: &Subject, level: Compatibility) -> Result<(), RegistryError> {
        let path = format!("/config/{}", escaped(subject));
        let body = json!({ "compatibility": level.as_str() });
        let (status, answer) = self.call(reqwest::Method::PUT, &path, Some(body))?;
        refuse(status, &answer)
    }
}

/// What an HTTP status means for the caller.
fn refuse(status: StatusCode, answer: &Json) -> Result<(), RegistryError> {
    let words = || {
        format!(
            "{status}: {}",
            answer.get("message").and_then(Json::as_str).unwrap_or("")
        )
    };
    if status.is_success() {
        Ok(())
    } else if status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
    {
        Err(RegistryError::Unavailable(words()))
    } else {
        Err(RegistryError::Refused(words()))
    }
}

/// The library's error, by the registry's own code where it gave one (409: incompatible, 422xx: invalid, 404xx: not
/// found, 401xx and 403xx: not allowed, 500xx: cannot now); anything else is a call that failed on the way.
fn judge(error: SRCError, subject: &Subject) -> RegistryError {
    let words = error.cause.clone().unwrap_or_else(|| error.error.clone());
    match code(&error).map(class) {
        Some(409 | 422) => RegistryError::Incompatible {
            subject: subject.clone(),
            reason: words,
        },
        Some(401 | 403 | 404) => RegistryError::Refused(format!("{subject}: {words}")),
        Some(_) | None => RegistryError::Unavailable(format!("{subject}: {}: {words}", error.error)),
    }
}

fn code(error: &SRCError) -> Option<u32> {
    Some(error.source()?.downcast_ref::<RawError>()?.error_code)
}

fn is_not_found(code: u32) -> bool {
    class(code) == 404
}

/// 40403 and 404 alike are 404.
fn class(code: u32) -> u32 {
    if code >= 10_000 { code / 100 } else { code }
}

/// A subject as one segment of a path.
fn escaped(subject: &Subject) -> String {
    let mut segment = String::new();
    for byte in subject.as_str().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'~' => segment.push(char::from(byte)),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}
