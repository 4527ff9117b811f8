//! `/metrics`, `/livez` and `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

use crate::daemon::Daemon;
use crate::metrics::CONTENT_TYPE;

/// How old the numbers of the store may be in the metrics; a scraper comes every 15 s or so.
const METRICS_AGE: Duration = Duration::from_secs(10);

pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        // Whoever gets an answer at all has it from a runtime that lives.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(daemon)
}

async fn metrics(State(daemon): State<Arc<Daemon>>) -> Response {
    let inventory = daemon.inventories.within(METRICS_AGE).await;
    let in_flight = daemon.engine.board().state().pulls.len();
    let text = daemon.metrics.text(&inventory, in_flight, daemon.health.not_ready().is_empty());
    ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], text).into_response()
}

async fn readyz(State(daemon): State<Arc<Daemon>>) -> Response {
    let (is_ready, text) = daemon.health.lines();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}
