//! Queries over HTTP: contracts as the books know them now.
//!
//! ```text
//! GET /contracts/{tenant}/{deal}                      one deal
//! GET /contracts?tenant=T[&from=DEAL][&limit=N]       deals of a tenant in the order of their ids; `next` goes on
//! ```
//!
//! Owns: the two routes, and asking the process that has a partition when this one has not (a client may sit behind a
//! balancer and reach no process by name, so requests are handed on here, not redirected). A request that is handed on
//! says `local=true` and is never handed on again.
//! Invariants: an answer is committed state and says which changelog position it is as of; a list has every partition or
//! there is no answer (503 with the reason and `Retry-After`); no contract leaves the machine unless a token is set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::observe::server;
use crate::pipeline::queries::{Contracts, Found};
use crate::revenue::ids::{DealId, TenantId};
use crate::stream::app::App;
use crate::stream::directory::Directory;
use crate::stream::task::TaskId;

/// Deals of one answer, unless `limit` says fewer.
const LIMIT: usize = 100;
const LIMIT_AT_MOST: usize = 500;
/// How long another process may take.
const HANDED_ON: Duration = Duration::from_secs(5);
/// When to ask again, in seconds, while a partition is restored or changes hands.
const RETRY_AFTER: u64 = 2;

/// What the routes share.
pub struct Desk {
    app: Arc<App>,
    contracts: Arc<Contracts>,
    directory: Arc<Directory>,
    client: reqwest::Client,
    access: Access,
    /// `accrue_query_total{answer}`
    answers: IntCounterVec,
    /// `accrue_query_seconds`
    seconds: Histogram,
}

/// Who may ask.
pub enum Access {
    /// Whoever reaches the address: it is one of this machine alone.
    Machine,
    Token(String),
    /// Nobody: the address is open and there is no token.
    Closed,
}

/// Why there is no answer.
enum Refusal {
    Unauthorized,
    Closed,
    NotFound,
    Wrong(String),
    /// For now.
    Away(String),
    Failed(String),
}

#[derive(Deserialize)]
struct Range {
    tenant: Option<String>,
    #[serde(default)]
    from: String,
    limit: Option<usize>,
    #[serde(default)]
    local: bool,
}

#[derive(Deserialize)]
struct Handed {
    #[serde(default)]
    local: bool,
}

type Answer = Result<Value, Refusal>;

impl Desk {
    pub fn new(
        app: Arc<App>,
        contracts: Arc<Contracts>,
        directory: Arc<Directory>,
        access: Access,
        metrics: &Registry,
    ) -> anyhow::Result<Arc<Desk>> {
        let answers = IntCounterVec::new(
            Opts::new("accrue_query_total", "requests for contracts, by what was answered"),
            &["answer"],
        )?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new("accrue_query_seconds", "time to answer a request for contracts")
                .buckets(vec![0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0]),
        )?;
        metrics.register(Box::new(answers.clone()))?;
        metrics.register(Box::new(seconds.clone()))?;
        Ok(Arc::new(Desk {
            app,
            contracts,
            directory,
            client: reqwest::Client::builder().timeout(HANDED_ON).build()?,
            access,
            answers,
            seconds,
        }))
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.access {
            Access::Machine => Ok(()),
            Access::Closed => Err(Refusal::Closed),
            Access::Token(token) if server::bears(headers, token) => Ok(()),
            Access::Token(_) => Err(Refusal::Unauthorized),
        }
    }

    /// Notes how it went, and makes a response of it.
    fn respond(&self, began: Instant, answer: Answer) -> Response {
        let (name, status, body) = match answer {
            Ok(body) => ("found", StatusCode::OK, body),
            Err(refusal) => {
                let (name, status, why) = refusal.parts();
                (name, status, json!({"error": why}))
            }
        };
        self.answers.with_label_values(&[name]).inc();
        self.seconds.observe(began.elapsed().as_secs_f64());
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
        }
        response
    }

    /// Why a task of this process does not answer.
    fn why_not(&self, task: &TaskId) -> Refusal {
        let report = self.app.tasks().into_iter().find(|report| report.task == *task);
        Refusal::Away(match report {
            Some(report) => match report.restore {
                Some(at) => format!("{task} is being restored, {} offsets are left", at.offsets_left),
                None => format!("{task} is about to start"),
            },
            None => format!("{task} is not here"),
        })
    }

    /// Where a task of another process answers.
    fn elsewhere(&self, task: &TaskId) -> Result<String, Refusal> {
        if self.app.tasks().iter().any(|report| report.task == *task) {
            return Err(self.why_not(task));
        }
        self.directory
            .owner(task)
            .ok_or_else(|| Refusal::Away(format!("no process is known to have {task}")))
    }

    async fn hand_on(&self, address: &str, path: &str, query: &[(&str, &str)]) -> Answer {
        let away = |why: String| Refusal::Away(format!("{address}, where the partition was last: {why}"));
        let url = format!("{}{path}", address.trim_end_matches('/'));
        let mut url = reqwest::Url::parse(&url).map_err(|error| away(error.to_string()))?;
        url.query_pairs_mut().extend_pairs(query).append_pair("local", "true");
        let mut request = self.client.get(url);
        if let Access::Token(token) = &self.access {
            request = request.bearer_auth(token);
        }
        let response = request
            .send()
            .await
            .map_err(|error| away(error.without_url().to_string()))?;
        let status = response.status();
        let body: Value = response
            .json()
            .await
            .map_err(|error| away(error.without_url().to_string()))?;
        match status.as_u16() {
            200 => Ok(body),
            404 => Err(Refusal::NotFound),
            _ => Err(away(body["error"].as_str().unwrap_or(status.as_str()).to_owned())),
        }
    }

    async fn one(self: &Arc<Self>, tenant: TenantId, deal: DealId, local: bool) -> Answer {
        let task = Contracts::task_of(&self.app, &tenant, &deal);
        let path = format!("/contracts/{}/{}", escaped(tenant.as_str()), escaped(deal.as_str()));
        let asked = task.clone();
        let here = self
            .blocking(move |desk| desk.contracts.one(&desk.app, &asked, &tenant, &deal))
            .await?;
        match here {
            Some(found) => {
                let found = found.map_err(|error| Refusal::Failed(error.to_string()))?;
                let position = found.position;
                let (_, mut deal) = found.deals.into_iter().next().ok_or(Refusal::NotFound)?;
                deal["position"] = position;
                Ok(deal)
            }
            None if local => Err(self.why_not(&task)),
            None => {
                let address = self.elsewhere(&task)?;
                self.hand_on(&address, &path, &[]).await
            }
        }
    }

    async fn range(self: &Arc<Self>, range: Range) -> Answer {
        let tenant = range.tenant.as_deref().and_then(TenantId::parse);
        let tenant = tenant.ok_or_else(|| Refusal::Wrong("give tenant=, the id of one tenant".to_owned()))?;
        let limit = range.limit.unwrap_or(LIMIT);
        // One more than asked for, so that the next one is known; a handed-on request asks for it itself.
        if !(1..=LIMIT_AT_MOST + usize::from(range.local)).contains(&limit) {
            return Err(Refusal::Wrong(format!("limit is from 1 to {LIMIT_AT_MOST}")));
        }
        let wanted = limit + usize::from(!range.local);
        let mut deals: BTreeMap<String, Value> = BTreeMap::new();
        let mut positions: BTreeMap<u64, Value> = BTreeMap::new();
        let mut missing = BTreeSet::new();
        for task in Contracts::tasks(&self.app) {
            let (asked, tenant, from) = (task.clone(), tenant.clone(), range.from.clone());
            let here: Option<Result<Found, _>> = self
                .blocking(move |desk| desk.contracts.range(&desk.app, &asked, &tenant, &from, wanted))
                .await?;
            match here {
                Some(found) => {
                    let found = found.map_err(|error| Refusal::Failed(error.to_string()))?;
                    positions.insert(task.partition.0.into(), found.position);
                    deals.extend(found.deals);
                }
                None => {
                    missing.insert(task);
                }
            }
        }
        if range.local {
            return Ok(json!({
                "deals": deals.into_values().take(wanted).collect::<Vec<_>>(),
                "positions": positions.into_values().collect::<Vec<_>>(),
            }));
        }
        while let Some(task) = missing.pop_first() {
            let address = self.elsewhere(&task)?;
            let count = wanted.to_string();
            let query = [("tenant", tenant.as_str()), ("from", &range.from), ("limit", &count)];
            let mut answer = self.hand_on(&address, "/contracts", &query).await?;
            for position in taken(&mut answer, "positions") {
                if let Some(partition) = position["partition"].as_u64() {
                    missing.retain(|task| u64::from(task.partition.0) != partition);
                    positions.entry(partition).or_insert(position);
                }
            }
            if !positions.contains_key(&task.partition.0.into()) {
                return Err(Refusal::Away(format!(
                    "{task} is not at {address} any more, or not yet"
                )));
            }
            for deal in taken(&mut answer, "deals") {
                let id = deal["deal_id"].as_str().unwrap_or_default().to_owned();
                deals.insert(id, deal);
            }
        }
        let next = deals.keys().nth(limit).cloned();
        Ok(json!({
            "deals": deals.into_values().take(limit).collect::<Vec<_>>(),
            "next": next,
            "positions": positions.into_values().collect::<Vec<_>>(),
        }))
    }

    /// Reads a store off the threads that serve health.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Desk) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let desk = self.clone();
        tokio::task::spawn_blocking(move || read(&desk))
            .await
            .map_err(|error| Refusal::Failed(error.to_string()))
    }
}

impl Refusal {
    fn parts(self) -> (&'static str, StatusCode, String) {
        match self {
            Refusal::Unauthorized => (
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                server::SHOW_THE_TOKEN.to_owned(),
            ),
            Refusal::Closed => (
                "closed",
                StatusCode::FORBIDDEN,
                "contracts are not served at an open address without a token; set http.token, or let http.listen be 127.0.0.1"
                    .to_owned(),
            ),
            Refusal::NotFound => ("not_found", StatusCode::NOT_FOUND, "no such contract".to_owned()),
            Refusal::Wrong(why) => ("wrong", StatusCode::BAD_REQUEST, why),
            Refusal::Away(why) => ("away", StatusCode::SERVICE_UNAVAILABLE, why),
            Refusal::Failed(why) => ("failed", StatusCode::INTERNAL_SERVER_ERROR, why),
        }
    }
}

/// The routes.
pub fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/contracts/{tenant}/{deal}", get(one))
        .route("/contracts", get(range))
        .with_state(desk)
}

async fn one(
    State(desk): State<Arc<Desk>>,
    Path((tenant, deal)): Path<(String, String)>,
    Query(handed): Query<Handed>,
    headers: HeaderMap,
) -> Response {
    let began = Instant::now();
    let answer = match (desk.admit(&headers), TenantId::parse(&tenant), DealId::parse(&deal)) {
        (Err(refusal), _, _) => Err(refusal),
        (Ok(()), Some(tenant), Some(deal)) => desk.one(tenant, deal, handed.local).await,
        (Ok(()), _, _) => Err(Refusal::NotFound),
    };
    desk.respond(began, answer)
}

async fn range(State(desk): State<Arc<Desk>>, Query(range): Query<Range>, headers: HeaderMap) -> Response {
    let began = Instant::now();
    let answer = match desk.admit(&headers) {
        Ok(()) => desk.range(range).await,
        Err(refusal) => Err(refusal),
    };
    desk.respond(began, answer)
}

/// A list of an answer.
fn taken(answer: &mut Value, name: &str) -> Vec<Value> {
    match answer[name].take() {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

/// An id as one segment of a path.
fn escaped(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    let each = id.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    each.collect()
}
