//! `/metrics`, `/livez` and `/readyz`; with `?verbose` a line for each check, below `/readyz/` each check alone.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;

use crate::daemon::Daemon;
use crate::logins::logins;
use crate::metrics::CONTENT_TYPE;

/// How old the numbers of the store may be in the metrics; a scraper comes every 15 s or so.
const METRICS_AGE: Duration = Duration::from_secs(10);

pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        // Whoever gets an answer at all has it from a runtime that lives.
        .route(
            "/livez",
            get(async |RawQuery(query)| if is_verbose(query) { "[+]ping ok\nlivez check passed\n" } else { "ok\n" }),
        )
        .route("/readyz", get(readyz))
        .route("/readyz/{check}", get(readyz_of))
        .with_state(daemon)
}

async fn metrics(State(daemon): State<Arc<Daemon>>) -> Response {
    let inventory = daemon.inventories.within(METRICS_AGE).await;
    let in_flight = daemon.engine.board().state().pulls.len();
    let logins = logins(daemon.engine.sources(), Timestamp::now());
    let text = daemon.metrics.text(&inventory, &logins, in_flight, daemon.health.not_ready().is_empty());
    ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], text).into_response()
}

/// As Kubernetes' own servers answer: every check where one fails or where somebody asks for it.
async fn readyz(State(daemon): State<Arc<Daemon>>, RawQuery(query): RawQuery) -> Response {
    match daemon.health.lines() {
        (true, _) if !is_verbose(query) => "ok\n".into_response(),
        (true, text) => text.into_response(),
        (false, text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

/// One check alone.
async fn readyz_of(State(daemon): State<Arc<Daemon>>, Path(check): Path<String>) -> Response {
    match daemon.health.one(&check) {
        None => (StatusCode::NOT_FOUND, "no such check\n").into_response(),
        Some(Ok(())) => "ok\n".into_response(),
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

fn is_verbose(query: Option<String>) -> bool {
    query.unwrap_or_default().split('&').any(|word| word == "verbose" || word.starts_with("verbose="))
}
