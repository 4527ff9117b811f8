//! What the command line asks the daemon for, below `/windlass/v1/` on the socket.
//!
//! | path | answer |
//! | --- | --- |
//! | `GET status` | one [`NodeStatus`](crate::status::NodeStatus); `?images=none` leaves the images out |
//! | `GET status?watch` | one such document a line, after each change |
//! | `POST pull` | [`PullAsk`] → events, then the report or the failure, one [`Line`] each |
//! | `POST ensure` | [`EnsureAsk`] → the same |
//!
//! A caller that goes away cancels its work; what is finished stays. A draining daemon takes no new work.
//!
//! Invariants: `bodies_are_bounded_and_never_repeated`; and with the whole daemon (in the command's tests)
//! `pull_prints_the_same_with_and_without_a_daemon`, `an_interrupted_command_cancels_its_pull_in_the_daemon`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use windlass_core::access::VerificationPolicy;
use windlass_core::decide::ensure::Verification;
use windlass_core::digest::Digest;
use windlass_core::keyring::{Candidate, Mode};
use windlass_core::platform::Platform;
use windlass_core::reason::{Reason, chain};
use windlass_credentials::Lookup;
use windlass_pull::events::{Event, EventSink};
use windlass_pull::workload::{ManifestText, read};
use windlass_pull::{Credentials, EnsureCredentials, EnsureRequest, PullError, PullOptions, PullRequest, Wait};

use crate::daemon::{Daemon, Images};
use crate::drain::Place;
use crate::wire::{EnsureAsk, EnsureLine, EventWire, Line, PREFIX, PullAsk, PullLine, Refusal};

/// Longest request for a pull: a reference and some credentials of at most 64 KiB each.
const PULL_BYTES_MAX: usize = 4 << 20;
/// Longest request of `ensure`: manifests as long as their reader takes, escaped, and credentials.
const ENSURE_BYTES_MAX: usize = 64 << 20;
/// Lines that wait for a slow reader; byte counts beyond that are left out.
const LINES_MAX: usize = 1024;
/// How often an answer says that it goes on.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// Shortest time between two documents of a watched status.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
/// Longest time between two of them.
const WATCH_REST: Duration = Duration::from_secs(2);

/// What is asked often, as one media type: a JSON value a line.
const LINES_TYPE: &str = "application/x-ndjson";

pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route(&format!("{PREFIX}/status"), get(status))
        .route(&format!("{PREFIX}/pull"), post(pull))
        .route(&format!("{PREFIX}/ensure"), post(ensure))
        .with_state(daemon)
}

async fn status(State(daemon): State<Arc<Daemon>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let words: Vec<&str> = query.split('&').collect();
    let images = if words.contains(&"images=none") { Images::Counted } else { Images::Listed };
    if words.iter().any(|word| *word == "watch" || word.starts_with("watch=")) {
        return lines(documents(daemon, images));
    }
    let mut text = line(&daemon.status(images).await);
    text.push('\n');
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

/// The status after each change, until the daemon ends.
fn documents(daemon: Arc<Daemon>, images: Images) -> impl Stream<Item = String> {
    let changes = daemon.engine.board().changes();
    stream::unfold((daemon, changes, false), move |(daemon, mut changes, has_begun)| async move {
        if has_begun {
            tokio::select! {
                biased;
                () = daemon.ended.cancelled() => return None,
                () = async {
                    tokio::time::sleep(WATCH_PAUSE).await;
                    // Who asks sees a changed rate, too: it falls while nothing comes.
                    drop(tokio::time::timeout(WATCH_REST, changes.changed()).await);
                } => {}
            }
        }
        changes.mark_unchanged();
        let text = line(&daemon.status(images).await);
        Some((text, (daemon, changes, true)))
    })
}

async fn pull(State(daemon): State<Arc<Daemon>>, body: Body) -> Response {
    let ask = match ask::<PullAsk>(body, PULL_BYTES_MAX).await {
        Ok(ask) => ask,
        Err(refused) => return refused,
    };
    work(daemon, async move |daemon, cancel, sink| {
        let platform = platform(ask.platform.as_deref())?;
        let request = PullRequest {
            image: ask.image,
            mode: Mode::Windlass,
            credentials: Credentials::Given(ask.candidates.into_iter().map(Candidate::from).collect()),
            options: PullOptions { platform, cancel, ..PullOptions::default() },
        };
        let report = daemon.engine.pull(request, sink).await.map_err(|error| Refusal::of(&error))?;
        daemon.know(&report.id).await?;
        Ok(Line::Pulled { report: Box::new(PullLine::from(&report)) })
    })
}

async fn ensure(State(daemon): State<Arc<Daemon>>, body: Body) -> Response {
    let ask = match ask::<EnsureAsk>(body, ENSURE_BYTES_MAX).await {
        Ok(ask) => ask,
        Err(refused) => return refused,
    };
    work(daemon, async move |daemon, cancel, sink| {
        let request = ensure_request(ask, cancel)?;
        let report = daemon.engine.ensure(request, sink).await.map_err(|error| Refusal::of(&error))?;
        let pulled = report.containers.iter().filter_map(|container| container.pull.as_ref());
        let pulled: BTreeSet<Digest> = pulled.map(|pull| pull.id.clone()).collect();
        for id in &pulled {
            daemon.know(id).await?;
        }
        Ok(Line::Ensured { report: Box::new(EnsureLine::from(&report)) })
    })
}

fn ensure_request(ask: EnsureAsk, cancel: CancellationToken) -> Result<EnsureRequest, Refusal> {
    let texts: Vec<ManifestText> = ask
        .manifests
        .iter()
        .map(|file| ManifestText { name: file.name.clone(), text: file.text.expose().clone() })
        .collect();
    let workloads = read(&texts).map_err(|error| Refusal::new(error.reason(), chain(&error)))?;
    let policy = VerificationPolicy::parse(&ask.verification, &ask.allowlist);
    let policy = policy.map_err(|error| Refusal::new(Reason::InvalidConfig, chain(&error)))?;
    let given = ask.credentials.into_iter().map(|(image, given)| (image, Lookup::from(given)));
    Ok(EnsureRequest {
        pods: workloads.pods,
        mode: if ask.strict_kubelet { Mode::Kubelet } else { Mode::Windlass },
        credentials: EnsureCredentials::Given(given.collect()),
        verification: Verification::On(policy),
        wait: ask.wait_ms.map_or(Wait::Once, |ms| Wait::Until(Duration::from_millis(ms))),
        options: PullOptions { platform: platform(ask.platform.as_deref())?, cancel, ..PullOptions::default() },
    })
}

fn platform(text: Option<&str>) -> Result<Option<Platform>, Refusal> {
    let parsed = text.map(Platform::parse).transpose();
    parsed.map_err(|error| Refusal::new(Reason::InvalidConfig, chain(&error)))
}

impl Daemon {
    /// An image has come: everybody who shows images or runs containers knows it when this returns.
    async fn know(&self, id: &Digest) -> Result<(), Refusal> {
        let told = self.images.pulled(id).await;
        told.map_err(|status| {
            Refusal::new(Reason::Internal, format!("the image is in the store, and not everybody knows it: {status}"))
        })
    }
}

/// Reads a request, bounded.
async fn ask<T: DeserializeOwned>(body: Body, bytes_max: usize) -> Result<T, Response> {
    let Ok(bytes) = axum::body::to_bytes(body, bytes_max).await else {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"));
    };
    // The words of the parser may quote the request, secrets among it.
    serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("the request cannot be read at line {} column {}", error.line(), error.column());
        refused(StatusCode::BAD_REQUEST, &place)
    })
}

fn refused(status: StatusCode, why: &str) -> Response {
    let line = line(&Line::Failed { failure: Refusal::new(Reason::InvalidConfig, why) });
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(LINES_TYPE))], format!("{line}\n")).into_response()
}

/// Does the work in a task of its own and answers line by line. The last line is its result.
fn work<W, F>(daemon: Arc<Daemon>, work: W) -> Response
where
    W: FnOnce(Arc<Daemon>, CancellationToken, Arc<dyn EventSink>) -> F + Send + 'static,
    F: Future<Output = Result<Line, Refusal>> + Send + 'static,
{
    let (lines_in, lines_out) = mpsc::channel(LINES_MAX);
    // A child of the drain's own: what the drain cuts off is cancelled here too.
    let cancel = daemon.drain.cut().child_token();
    let gone = cancel.clone().drop_guard();
    daemon.pulls.clone().spawn(async move {
        let place: Option<Place> = daemon.drain.enter();
        let last = match place {
            None => Err(Refusal { hint: "run the command again".to_owned(), ..Refusal::of(&PullError::Canceled) }),
            Some(_) => {
                let sink = Arc::new(Lines(lines_in.clone()));
                let beat = beat(lines_in.clone());
                tokio::select! {
                    result = work(daemon.clone(), cancel, sink) => result,
                    never = beat => match never {},
                }
            }
        };
        let last = last.unwrap_or_else(|failure| Line::Failed { failure });
        // Whoever asked may have gone away.
        drop(lines_in.send(last).await);
        drop(place);
    });
    lines(Guarded { lines: ReceiverStream::new(lines_out), _gone: gone }.texts())
}

/// Says from time to time that the work goes on.
async fn beat(lines: mpsc::Sender<Line>) -> Infallible {
    loop {
        tokio::time::sleep(ALIVE_EVERY).await;
        drop(lines.try_send(Line::Alive));
    }
}

/// Lines for a caller; the work is cancelled when the caller goes away.
struct Guarded {
    lines: ReceiverStream<Line>,
    _gone: DropGuard,
}

impl Guarded {
    fn texts(self) -> impl Stream<Item = String> {
        stream::unfold(self, async |mut this| {
            let next = this.lines.next().await?;
            Some((line(&next), this))
        })
    }
}

/// Events as lines. What a slow reader does not take in time is left out.
struct Lines(mpsc::Sender<Line>);

impl EventSink for Lines {
    fn event(&self, event: Event) {
        if let Some(event) = EventWire::of(event) {
            drop(self.0.try_send(Line::Event { event }));
        }
    }
}

/// One JSON value without a line feed.
fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written");
        "null".to_owned()
    })
}

fn lines(texts: impl Stream<Item = String> + Send + 'static) -> Response {
    let body = texts.map(|mut text| {
        text.push('\n');
        Ok::<Bytes, Infallible>(Bytes::from(text))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded_and_never_repeated() {
        let table = [
            (format!("\"{}\"", "x".repeat(PULL_BYTES_MAX)), StatusCode::PAYLOAD_TOO_LARGE),
            (
                "{\"image\": \"a\", \"candidates\": [{\"password\": \"canary-secret\"}]}".to_owned(),
                StatusCode::BAD_REQUEST,
            ),
            (
                "{\"image\": \"a\", \"platform\": null, \"candidates\": [], \"canary-secret\": 1}".to_owned(),
                StatusCode::BAD_REQUEST,
            ),
            ("canary-secret".to_owned(), StatusCode::BAD_REQUEST),
        ];
        for (body, want) in table {
            let refused = ask::<PullAsk>(Body::from(body), PULL_BYTES_MAX).await.unwrap_err();
            assert_eq!(refused.status(), want);
            let text = axum::body::to_bytes(refused.into_body(), 10_000).await.unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains("canary"), "{text}");
            let line: Line = serde_json::from_str(&text).unwrap();
            assert!(matches!(line, Line::Failed { failure } if failure.reason() == Reason::InvalidConfig));
        }
    }
}
