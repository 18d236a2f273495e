//! HTTP, time and misbehaviour around the doubles.
//!
//! Owns: the listener, the clock (which may run faster than the world's), rate limits, and the control addresses:
//!
//! ```text
//! GET  /                          what every system holds, as a page
//! GET  /NAME/_sandbox/documents   the same as JSON
//! POST /NAME/_sandbox/faults      {"fault": "commit_then_hang", "times": 1, "skip": 0, "on": "write"}
//! POST /NAME/_sandbox/settings    {"closed_until": "2026-01-31"}
//! *    /NAME/...                  the system
//! ```
//!
//! Invariant: a request is carried out at most once, unless a fault says twice. Absent: persistence; a restart forgets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fault::{Fault, Garbage, Plan, Script};
use super::page;
use super::room::{Kind, Posted, Request, Response, Settings, Vendor};

const BODY_MAX_BYTES: usize = 16 << 20;
/// How long a hanging answer hangs, where the client does not leave before.
const HANG: Duration = Duration::from_secs(600);

/// How the sandbox behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many seconds of its clock pass in one second.
    pub speed: u32,
    pub seed: u64,
    /// Of a thousand writes, so many meet a fault.
    pub faults_per_thousand: u32,
    /// Whether rate limits are kept.
    pub limits: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            speed: 1,
            seed: 1,
            faults_per_thousand: 0,
            limits: true,
        }
    }
}

/// A running sandbox; it stops when dropped.
pub struct Sandbox {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Shared {
    options: Options,
    started: Instant,
    seats: BTreeMap<&'static str, Mutex<Seat>>,
}

struct Seat {
    vendor: Box<dyn Vendor>,
    faults: Plan,
    /// Times of counted requests, within the last day.
    counted: Vec<Duration>,
    /// Writes that reached the system, carried out or not.
    writes: u32,
}

impl Sandbox {
    /// Listens and serves.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start(
        vendors: Vec<Box<dyn Vendor>>,
        listen: SocketAddr,
        options: Options,
    ) -> std::io::Result<Sandbox> {
        let seat = |vendor: Box<dyn Vendor>| {
            let seat = Seat {
                faults: Plan::seeded(options.seed, options.faults_per_thousand),
                counted: Vec::new(),
                writes: 0,
                vendor,
            };
            (seat.vendor.name(), Mutex::new(seat))
        };
        let shared = Arc::new(Shared {
            options,
            started: Instant::now(),
            seats: vendors.into_iter().map(seat).collect(),
        });
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(serve).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Sandbox {
            address,
            shared,
            server,
        })
    }

    /// Serves until the server ends.
    pub async fn wait(mut self) -> std::io::Result<()> {
        (&mut self.server).await.map_err(std::io::Error::other)?
    }

    /// The system's address, to which its paths are added.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    pub fn documents(&self, name: &str) -> Vec<Posted> {
        self.shared
            .seat(name)
            .map(|seat| seat.vendor.documents())
            .unwrap_or_default()
    }

    pub fn misbehave(&self, name: &str, script: Script) {
        if let Some(mut seat) = self.shared.seat(name) {
            seat.faults.add(script);
        }
    }

    pub fn set(&self, name: &str, settings: &Settings) {
        if let Some(mut seat) = self.shared.seat(name) {
            seat.vendor.set(settings);
        }
    }

    /// Writes that reached the system, carried out or not.
    pub fn writes(&self, name: &str) -> u32 {
        self.shared.seat(name).map_or(0, |seat| seat.writes)
    }
}

impl Shared {
    fn seat(&self, name: &str) -> Option<MutexGuard<'_, Seat>> {
        // A double that panicked is a defect of ours; what it holds is still shown.
        self.seats
            .get(name)
            .map(|seat| seat.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.started.elapsed() * self.options.speed
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX_BYTES).await else {
        return answer(Response::empty(413));
    };
    let path = parts.uri.path();
    let (name, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let request = Request {
        method: parts.method.as_str().to_owned(),
        path: rest.to_owned(),
        query: pairs(parts.uri.query().unwrap_or_default()),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        body: body.to_vec(),
    };
    if path == "/" {
        let all = shared
            .seats
            .keys()
            .filter_map(|name| Some((*name, shared.seat(name)?.vendor.documents())));
        return html(page::page(&all.collect::<Vec<_>>()));
    }
    if !shared.seats.contains_key(name) {
        return answer(Response::empty(404));
    }
    if let Some(control) = rest.strip_prefix("_sandbox/") {
        return answer(steer(&shared, name, control, &request));
    }
    let name = name.to_owned();
    play(shared, name, request).await
}

/// The control addresses.
fn steer(shared: &Shared, name: &str, control: &str, request: &Request) -> Response {
    let Some(mut seat) = shared.seat(name) else {
        return Response::empty(404);
    };
    let wrong = |why: String| Response::json(400, &serde_json::json!({ "error": why }));
    match (request.method.as_str(), control) {
        ("GET", "documents") => {
            let documents = seat.vendor.documents();
            Response::json(200, &documents.iter().map(Posted::json).collect())
        }
        ("POST", "faults") => match Script::parse(&request.body) {
            Ok(script) => {
                seat.faults.add(script);
                Response::empty(204)
            }
            Err(why) => wrong(why),
        },
        ("POST", "settings") => match serde_json::from_slice::<Settings>(&request.body) {
            Ok(settings) => {
                seat.vendor.set(&settings);
                Response::empty(204)
            }
            Err(error) => wrong(error.to_string()),
        },
        _ => Response::empty(404),
    }
}

/// One request to a system, with what befalls it.
async fn play(shared: Arc<Shared>, name: String, request: Request) -> axum::response::Response {
    enum Then {
        Answer(Response),
        Hang,
        HangThenCommit(Duration),
    }
    let then = {
        let Some(mut seat) = shared.seat(&name) else {
            return answer(Response::empty(404));
        };
        let (kind, now) = (seat.vendor.kind(&request), shared.now());
        seat.writes += u32::from(kind == Kind::Write);
        match seat.exhausted(kind, now).filter(|_| shared.options.limits) {
            Some(patience) => Then::Answer(Response::throttled(patience / shared.options.speed.max(1))),
            None => match seat.faults.next(kind) {
                None => Then::Answer(seat.vendor.handle(&request, now)),
                Some(Fault::CommitThenHang) => {
                    seat.vendor.handle(&request, now);
                    Then::Hang
                }
                Some(Fault::HangThenCommit { after_seconds }) => {
                    Then::HangThenCommit(Duration::from_secs(after_seconds))
                }
                Some(Fault::Hang) => Then::Hang,
                Some(Fault::Throttle { retry_after_seconds }) => {
                    Then::Answer(Response::throttled(Duration::from_secs(retry_after_seconds)))
                }
                Some(Fault::Fail { status }) => Then::Answer(proxy(status)),
                Some(Fault::CommitThenFail { status }) => {
                    seat.vendor.handle(&request, now);
                    Then::Answer(proxy(status))
                }
                Some(Fault::CommitThenGarbage { garbage }) => {
                    let response = seat.vendor.handle(&request, now);
                    Then::Answer(broken(response, garbage))
                }
                Some(Fault::Twice) => {
                    seat.vendor.handle(&request, now);
                    Then::Answer(seat.vendor.handle(&request, now))
                }
                Some(Fault::ExpireTokens) => {
                    seat.vendor.expire_tokens();
                    Then::Answer(seat.vendor.handle(&request, now))
                }
                Some(Fault::RepeatSecrets) => {
                    let headers: BTreeMap<_, _> = request.headers.iter().cloned().collect();
                    Then::Answer(Response::json(
                        400,
                        &serde_json::json!({ "Message": headers, "message": headers }),
                    ))
                }
                Some(Fault::Answer { status, body }) => Then::Answer(Response::json(status, &body)),
            },
        }
    };
    match then {
        Then::Answer(response) => answer(response),
        Then::Hang => hang().await,
        Then::HangThenCommit(after) => {
            let wait = after / shared.options.speed.max(1);
            // A task of its own, since this one ends when the client leaves.
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                if let Some(mut seat) = shared.seat(&name) {
                    seat.vendor.handle(&request, shared.now());
                }
            });
            hang().await
        }
    }
}

impl Seat {
    /// How long to wait for the next request, where the limit is reached; counts the request otherwise.
    fn exhausted(&mut self, kind: Kind, now: Duration) -> Option<Duration> {
        const MINUTE: Duration = Duration::from_secs(60);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if kind == Kind::Token {
            return None;
        }
        let limits = self.vendor.limits();
        self.counted.retain(|at| *at + DAY > now);
        for (limit, window) in [(limits.per_day, DAY), (limits.per_minute, MINUTE)] {
            let within: Vec<Duration> = self.counted.iter().copied().filter(|at| *at + window > now).collect();
            if let (Some(limit), Some(first)) = (limit, within.first())
                && within.len() >= limit as usize
            {
                return Some(*first + window - now);
            }
        }
        self.counted.push(now);
        None
    }
}

async fn hang() -> axum::response::Response {
    tokio::time::sleep(HANG).await;
    answer(Response::empty(504))
}

fn proxy(status: u16) -> Response {
    Response {
        status,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: format!("<html><body><h1>{status}</h1>upstream</body></html>").into_bytes(),
    }
}

fn broken(mut response: Response, garbage: Garbage) -> Response {
    response.body = match garbage {
        Garbage::Empty => Vec::new(),
        Garbage::Html => b"<!doctype html><title>Sign in</title>".to_vec(),
        Garbage::Truncated => response.body[..response.body.len() / 2].to_vec(),
        Garbage::Shape => br#"{"ManualJournals":7,"Invoices":[[]],"id":{"a":null},"result":[]}"#.to_vec(),
        Garbage::Deep => "[".repeat(100_000).into_bytes(),
        Garbage::Huge => vec![b' '; 8 << 20],
    };
    response
}

fn answer(response: Response) -> axum::response::Response {
    let mut builder = axum::response::Response::builder().status(response.status);
    for (name, value) in &response.headers {
        builder = builder.header(name, value);
    }
    builder
        .body(Body::from(response.body))
        .unwrap_or_else(|_| axum::response::Response::new(Body::empty()))
}

fn html(page: String) -> axum::response::Response {
    answer(Response {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/html; charset=utf-8".to_owned())],
        body: page.into_bytes(),
    })
}

/// The names and values of a form or query.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    reqwest::Url::parse(&format!("http://query/?{text}"))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}
