//! What stands before every call on the socket: it is counted, and pulls are handed to the threads that pull, or refused
//! once the daemon drains.
//!
//! In: calls of gRPC, told apart by their path. Out: the answer of who serves them, its code counted when its trailers
//! have gone by, or `Unavailable` where the daemon is ending.
//! Source of truth: gRPC over HTTP/2, `PROTOCOL-HTTP2.md`.
//!
//! Invariants: `calls_are_counted_with_the_code_of_their_trailers`, `a_draining_daemon_refuses_pulls_and_answers_reads`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Frame;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::drain::{Drain, Place};
use crate::metrics::Metrics;

/// Services that are counted by name; everything else is counted as `other`.
const SERVICES: &[(&str, &[&str])] = &[
    ("runtime.v1.ImageService", IMAGE_METHODS),
    ("runtime.v1alpha2.ImageService", IMAGE_METHODS),
    ("runtime.v1.RuntimeService", &["Version", "Status"]),
    ("runtime.v1alpha2.RuntimeService", &["Version", "Status"]),
    (
        "containerd.services.snapshots.v1.Snapshots",
        &["Prepare", "View", "Mounts", "Commit", "Remove", "Stat", "Update", "List", "Usage", "Cleanup"],
    ),
];
const IMAGE_METHODS: &[&str] =
    &["ListImages", "StreamImages", "ImageStatus", "PullImage", "RemoveImage", "ImageFsInfo"];

/// Names of the codes, by their number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: &str = CODES[1];
const UNAVAILABLE: usize = 14;

/// What the edge needs of the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    pub(crate) pulls: Handle,
}

/// Lets a call through.
pub(crate) async fn pass(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let Some((service, method)) = call(request.uri().path()) else { return next.run(request).await };
    let mut count = Count { metrics: edge.metrics, service, method, began: Instant::now(), code: None, place: None };
    if method != "PullImage" {
        return count.over(next.run(request).await);
    }
    count.place = edge.drain.enter();
    if count.place.is_none() {
        return count.over(unavailable());
    }
    let cut = edge.drain.cut().clone();
    let pulled = AbortOnDropHandle::new(edge.pulls.spawn(next.run(request)));
    tokio::select! {
        biased;
        response = pulled => match response {
            Ok(response) => count.over(response),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        () = cut.cancelled() => count.over(unavailable()),
    }
}

/// Service and method of a path, if it is a call.
fn call(path: &str) -> Option<(&'static str, &'static str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let Some((service, methods)) = SERVICES.iter().find(|(known, _)| *known == service) else {
        // Ours are paths of plain HTTP; a service of gRPC has a full stop in its name.
        return service.contains('.').then_some(("other", "other"));
    };
    Some((service, methods.iter().find(|known| **known == method).copied().unwrap_or("other")))
}

fn unavailable() -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(UNAVAILABLE));
    headers.insert("grpc-message", HeaderValue::from_static("windlass node is ending%3B try again"));
    response
}

/// One call, counted when this is dropped.
struct Count {
    metrics: Arc<Metrics>,
    service: &'static str,
    method: &'static str,
    began: Instant,
    /// Nothing until an answer says it: the caller went away.
    code: Option<&'static str>,
    /// A pull's place, until its answer is out.
    place: Option<Place>,
}

impl Drop for Count {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(CANCELED);
        self.metrics.call_ended(self.service, self.method, code, self.began.elapsed());
    }
}

impl Count {
    /// Counts once the answer has gone by.
    fn over(mut self, response: Response) -> Response {
        self.see(response.headers());
        if self.code.is_some() {
            return response;
        }
        let (head, body) = response.into_parts();
        Response::from_parts(head, Body::new(Counted { body, count: self }))
    }

    fn see(&mut self, headers: &HeaderMap) {
        if let Some(value) = headers.get("grpc-status") {
            let number: Option<usize> = value.to_str().ok().and_then(|text| text.parse().ok());
            self.code = Some(number.and_then(|number| CODES.get(number)).copied().unwrap_or(CODES[2]));
        }
    }
}

/// The body of an answer, looked through for its trailers.
struct Counted {
    body: Body,
    count: Count,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.count.see(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::routing::post;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::inventory::Inventory;
    use crate::status::LoginStatus;

    const PULL: &str = "/runtime.v1.ImageService/PullImage";
    const STATUS: &str = "/runtime.v1.ImageService/ImageStatus";

    fn edge() -> Edge {
        Edge { metrics: Arc::new(Metrics::new("1")), drain: Drain::new(), pulls: Handle::current() }
    }

    /// Answers with `NotFound` in the trailers.
    async fn not_found() -> Response {
        let trailers = async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            Some(Ok(trailers))
        };
        Response::new(Body::new(http_body_util::Full::new(Bytes::from_static(b"x")).with_trailers(trailers)))
    }

    fn router(edge: &Edge) -> Router {
        let router = Router::new().route(PULL, post(not_found)).route(STATUS, post(not_found));
        router.layer(axum::middleware::from_fn_with_state(edge.clone(), pass))
    }

    async fn ask(router: &Router, path: &str) -> Option<String> {
        let request = Request::post(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let code = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
        response.into_body().collect().await.unwrap();
        code
    }

    fn counted(edge: &Edge, method: &str, code: &str) -> bool {
        let text = edge.metrics.text(&Inventory::default(), &LoginStatus::default(), 0, true);
        text.contains(&format!("method=\"{method}\",code=\"{code}\"}} 1"))
    }

    #[tokio::test]
    async fn calls_are_counted_with_the_code_of_their_trailers() {
        let edge = edge();
        let router = router(&edge);
        ask(&router, STATUS).await;
        ask(&router, PULL).await;
        ask(&router, "/runtime.v1.ImageService/NoSuchMethod").await;
        assert!(counted(&edge, "ImageStatus", "NotFound") && counted(&edge, "PullImage", "NotFound"));
        let text = edge.metrics.text(&Inventory::default(), &LoginStatus::default(), 0, true);
        assert!(!text.contains("NoSuchMethod"), "{text}");
        assert_eq!(edge.drain.run(Duration::from_secs(1)).await, 0, "no place is left behind");
    }

    #[tokio::test]
    async fn a_draining_daemon_refuses_pulls_and_answers_reads() {
        let edge = edge();
        let router = router(&edge);
        edge.drain.run(Duration::ZERO).await;
        assert_eq!(ask(&router, PULL).await.as_deref(), Some("14"));
        assert_eq!(ask(&router, STATUS).await, None, "answered by who serves it");
        assert!(counted(&edge, "PullImage", "Unavailable"));
    }
}
