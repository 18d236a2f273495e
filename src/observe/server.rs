//! The operators' HTTP endpoint.
//!
//! Owns: `/live` (the process runs), `/ready` (every task is restored; 503 with the reason until then), `/metrics`
//! (Prometheus text). Invariant: answering never waits for the log or a store.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Encoder, Registry, TextEncoder};

/// Says why the process is not ready; `Ok` when it is.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The routes, to be served alone or beside others.
pub fn routes(metrics: Registry, ready: Readiness) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route(
            "/ready",
            get(move || {
                let state = ready();
                async move {
                    match state {
                        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                    }
                }
            }),
        )
        .route("/metrics", get(move || async move { exposition(&metrics) }))
}

fn exposition(metrics: &Registry) -> (StatusCode, String) {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&metrics.gather(), &mut text) {
        Ok(()) => (StatusCode::OK, String::from_utf8_lossy(&text).into_owned()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The same routes for those alone who show `token`; for nobody where there is none.
pub fn guarded(routes: Router, token: Option<String>) -> Router {
    let token: Option<Arc<str>> = token.map(Arc::from);
    routes.route_layer(from_fn(move |request: Request, next: Next| {
        let token = token.clone();
        async move {
            let refused = |status: StatusCode, message: &str| {
                (
                    status,
                    Json(serde_json::json!({"error_code": status.as_u16(), "message": message})),
                )
            };
            match token {
                None => refused(StatusCode::FORBIDDEN, "read-only: http.token is not set").into_response(),
                Some(token) if bears(request.headers(), &token) => next.run(request).await,
                Some(_) => refused(StatusCode::UNAUTHORIZED, SHOW_THE_TOKEN).into_response(),
            }
        }
    }))
}

pub const SHOW_THE_TOKEN: &str = "show the token of http.token: Authorization: Bearer TOKEN";

/// Whether a request shows the token.
pub fn bears(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let shown = shown.and_then(|value| value.strip_prefix(b"Bearer "));
    shown.is_some_and(|shown| same(shown, token.as_bytes()))
}

/// Compares without telling by its time where the two differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// An address that is bound and not served yet: who calls waits.
pub struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Bound {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` on a thread of its own, for as long as the process lives.
    ///
    /// # Errors
    /// There is no thread.
    pub fn serve(self, routes: Router) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            let served = runtime
                .block_on(async { axum::serve(tokio::net::TcpListener::from_std(self.listener)?, routes).await });
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP endpoint ended");
            }
        })?;
        Ok(())
    }
}

/// Binds `listen`.
///
/// # Errors
/// The address is in use, or not this machine's.
pub fn bind(listen: SocketAddr) -> std::io::Result<Bound> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(Bound {
        address: listener.local_addr()?,
        listener,
    })
}

/// Binds and serves in one. Returns the address bound.
///
/// # Errors
/// As [`bind`], or there is no thread.
pub fn serve(listen: SocketAddr, routes: Router) -> std::io::Result<SocketAddr> {
    let bound = bind(listen)?;
    let address = bound.address();
    bound.serve(routes)?;
    Ok(address)
}
