//! The status page: what the daemon says of itself, for people, on the listener of the metrics.
//!
//! Rendered here, whole, so that it works without JavaScript, which then comes anew every few seconds; with it, the parts
//! that change are sent as server-sent events. Nothing of another origin is ever asked for, everything foreign is
//! escaped by the templates, and the policy in the headers allows nothing but the page's own files.
//!
//! Invariants: `the_page_escapes_what_others_wrote`, `the_page_asks_no_other_origin`, `only_what_has_changed_is_sent`,
//! `other_hosts_names_get_no_page`; in a browser `a_browser_sees_a_pull_advance_and_asks_no_other_origin`.

mod shown;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, StatusCode, header};

use crate::daemon::{Daemon, Images};
use crate::status::NodeStatus;
use shown::Shown;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
const ICON: &str = include_str!("icon.svg");
/// Nothing but the page's own style, script and events.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Shortest time between two events: as fast as a person reads numbers.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest time between two events; ages and rates change by themselves.
const REST: Duration = Duration::from_secs(2);
/// Pages that may be open at once; each costs a rendering four times a second while something is pulled.
const OPEN_MAX: usize = 16;

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'s> {
    s: &'s Shown,
}

#[derive(Template)]
#[template(path = "head.html")]
struct Head<'s> {
    s: &'s Shown,
}

#[derive(Template)]
#[template(path = "pulls.html")]
struct Pulls<'s> {
    s: &'s Shown,
}

#[derive(Template)]
#[template(path = "rest.html")]
struct Rest<'s> {
    s: &'s Shown,
}

#[derive(Clone)]
struct Open {
    daemon: Arc<Daemon>,
    places: Arc<tokio::sync::Semaphore>,
}

pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    let open = Open { daemon, places: Arc::new(tokio::sync::Semaphore::new(OPEN_MAX)) };
    Router::new()
        .route("/", get(page))
        .route("/status.json", get(document))
        .route("/events", get(events))
        .route("/style.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/icon.svg", get(async || file("image/svg+xml", ICON)))
        .route("/live.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .with_state(open)
        .layer(axum::middleware::from_fn(guard))
}

/// Only for who asks by address or as localhost: a page of another site cannot read this one by giving its own name
/// this address. And nothing is kept or framed.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or_default();
    if !is_own_name(host) {
        return (StatusCode::MISDIRECTED_REQUEST, "ask by address, or as localhost\n").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Whether the host of a request is an address or `localhost`, whatever the port.
fn is_own_name(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

async fn page(State(open): State<Open>) -> Response {
    let shown = Shown::of(&open.daemon.status(Images::Listed).await);
    html(&Page { s: &shown })
}

fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => file("text/html; charset=utf-8", text),
        Err(error) => {
            tracing::error!(%error, "the status page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn file(media_type: &'static str, text: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], text.into()).into_response()
}

async fn document(State(open): State<Open>) -> Response {
    let status = open.daemon.status(Images::Listed).await;
    match serde_json::to_string_pretty(&status) {
        Ok(text) => file("application/json", text),
        Err(error) => {
            tracing::error!(%error, "the status could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Server-sent events: each names a part of the page, its data is the part anew.
async fn events(State(open): State<Open>) -> Response {
    let Ok(place) = open.places.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, HeaderValue::from_static("10"))])
            .into_response();
    };
    let texts = parts(open.daemon).map(move |text| {
        // Held as long as somebody reads.
        let _held = &place;
        Ok::<Bytes, Infallible>(Bytes::from(text))
    });
    file("text/event-stream", Body::from_stream(texts))
}

/// What a page shows now, part by part.
#[derive(Default)]
struct Sent {
    head: String,
    pulls: String,
    rest: String,
}

fn parts(daemon: Arc<Daemon>) -> impl Stream<Item = String> {
    let changes = daemon.engine.board().changes();
    stream::unfold((daemon, changes, Sent::default()), async |(daemon, mut changes, mut sent)| {
        loop {
            if !sent.head.is_empty() {
                tokio::select! {
                    biased;
                    () = daemon.ended.cancelled() => return None,
                    () = async {
                        tokio::time::sleep(PAUSE).await;
                        drop(tokio::time::timeout(REST, changes.changed()).await);
                    } => {}
                }
            }
            changes.mark_unchanged();
            let text = sent.news(&daemon.status(Images::Listed).await);
            if !text.is_empty() {
                return Some((text, (daemon, changes, sent)));
            }
        }
    })
}

impl Sent {
    /// The parts that have changed, as events.
    fn news(&mut self, status: &NodeStatus) -> String {
        let shown = Shown::of(status);
        let parts = [
            ("head", Head { s: &shown }.render(), &mut self.head),
            ("pulls", Pulls { s: &shown }.render(), &mut self.pulls),
            ("rest", Rest { s: &shown }.render(), &mut self.rest),
        ];
        let mut events = String::new();
        for (name, rendered, sent) in parts {
            match rendered {
                Ok(text) if text != *sent => {
                    events.push_str(&format!("event: {name}\n"));
                    text.lines().for_each(|line| events.push_str(&format!("data: {line}\n")));
                    events.push('\n');
                    *sent = text;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, name, "a part of the status page could not be rendered"),
            }
        }
        events
    }
}

#[cfg(test)]
mod tests;
