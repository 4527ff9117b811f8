//! One large blob over several connections: parts fetched beside each other, given in order.
//!
//! Only where the host's configuration asks for it. At most [`WINDOW_PARTS`] parts are under way or waiting to be
//! taken, so memory stays within 16 MiB per blob. Anything unusual (a 200, a wrong range, an error) closes the
//! window, and the blob goes on in one stream from where the consumer is.
//!
//! Invariants: `a_large_blob_comes_over_several_connections_in_order`, `a_200_to_a_part_means_one_stream`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use windlass_core::httpurl::HttpUrl;

use super::range::ContentRange;
use super::{BlobFetch, OpenBody, Progressed, Source};
use crate::config::PROGRESS_BYTES;
use crate::error::{FetchError, Step};
use crate::exchange::Answer;
use crate::net::Body;
use crate::resolve::refuse_encoding;
use crate::retry::Tries;
use crate::session::{Job, Session};

/// Bytes of one part.
pub(super) const PART: u64 = 4 * 1024 * 1024;
/// Parts under way or waiting to be taken: a window of 16 MiB.
const WINDOW_PARTS: usize = 4;

/// The parts of one blob that are under way.
#[derive(Debug)]
pub(crate) struct Window {
    plan: Arc<Plan>,
    streams: usize,
    /// First byte of the next part to start.
    next: u64,
    parts: VecDeque<Part>,
    /// Pieces of the part that is being given.
    ready: VecDeque<Bytes>,
    /// Bytes that had arrived when the progress clock was last looked at.
    seen: u64,
}

/// What all parts share.
#[derive(Debug)]
struct Plan {
    session: Arc<Session>,
    /// A request for the whole blob; each part adds its range.
    job: Job,
    size: u64,
    tries: Tries,
    progress: Duration,
    /// The signed URL, resolved once.
    direct: Mutex<Option<HttpUrl>>,
    arrived: AtomicU64,
}

/// A part that is being fetched; dropped, it stops.
#[derive(Debug)]
struct Part(JoinHandle<Option<VecDeque<Bytes>>>);

impl Drop for Part {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl BlobFetch {
    /// How many streams this blob may use at the current endpoint; 1 unless its configuration says more.
    pub(super) fn streams(&self) -> usize {
        let settings = self.turn.as_ref().and_then(|t| t.session.endpoint.settings.ranges);
        match settings {
            Some(ranges) if self.descriptor.size_bytes > ranges.above_bytes && self.offset == 0 && !self.narrow => {
                usize::from(ranges.streams).min(WINDOW_PARTS)
            }
            Some(_) | None => 1,
        }
    }

    /// Opens the window with the answer to its first part.
    pub(super) fn open_window(&mut self, session: &Arc<Session>, answer: Answer, job: Job) {
        let direct = answer.elsewhere.then_some(answer.url);
        let plan = Arc::new(Plan {
            session: session.clone(),
            job: Job { deadline: None, ..job },
            size: self.descriptor.size_bytes,
            tries: self.repository.tries(),
            progress: self.progress.limit(),
            direct: Mutex::new(direct),
            arrived: AtomicU64::new(0),
        });
        let last = PART.min(plan.size) - 1;
        let (first_plan, body) = (plan.clone(), answer.body);
        let first = tokio::spawn(async move { first_plan.fetch(0, last, Some(body)).await });
        let mut window = Window {
            plan,
            streams: self.streams(),
            next: last + 1,
            parts: VecDeque::from([Part(first)]),
            ready: VecDeque::new(),
            seen: 0,
        };
        window.fill();
        self.source = Source::Window(Box::new(window));
    }

    /// Gives the next piece of the window, or closes it and goes on in one stream.
    pub(super) async fn read_window(&mut self) -> Result<Progressed, FetchError> {
        let deadline = self.progress.deadline();
        let Source::Window(window) = &mut self.source else { return Ok(Progressed::Again) };
        if let Some(piece) = window.ready.pop_front() {
            return Ok(Progressed::Event(self.give(piece)));
        }
        let Some(part) = window.parts.front_mut() else { return Ok(Progressed::Complete) };
        match timeout_at(deadline, &mut part.0).await {
            Ok(Ok(Some(pieces))) => {
                window.parts.pop_front();
                window.ready = pieces;
                window.fill();
                Ok(Progressed::Again)
            }
            Ok(Ok(None) | Err(_)) => {
                self.direct = window.plan.direct().clone();
                self.narrow = true;
                self.source = Source::Closed;
                Ok(Progressed::Again)
            }
            Err(_) => {
                let arrived = window.plan.arrived.load(Ordering::Relaxed);
                if arrived < window.seen + PROGRESS_BYTES {
                    return Err(self.stuck());
                }
                window.seen = arrived;
                self.progress.reset();
                Ok(Progressed::Again)
            }
        }
    }

    /// Whether this answer is the first part that was asked for.
    pub(super) fn is_first_part(&self, answer: &Answer) -> bool {
        let size = self.descriptor.size_bytes;
        answer.status == StatusCode::PARTIAL_CONTENT
            && content_range(answer).is_some_and(|r| r == ContentRange { first: 0, last: PART - 1, total: Some(size) })
    }

    /// One response as the only stream.
    pub(super) fn open_stream(&mut self, answer: Answer) {
        let until_close = answer.body.ends_by_close;
        if answer.elsewhere {
            self.direct = Some(answer.url);
        }
        self.source = Source::Stream(Box::new(OpenBody { body: answer.body, until_close }));
    }
}

impl Window {
    fn fill(&mut self) {
        let room = if self.ready.is_empty() { WINDOW_PARTS } else { WINDOW_PARTS - 1 };
        while self.parts.len() < self.streams.min(room) && self.next < self.plan.size {
            let (plan, first) = (self.plan.clone(), self.next);
            let last = (first + PART).min(plan.size) - 1;
            self.next = last + 1;
            self.parts.push_back(Part(tokio::spawn(async move { plan.fetch(first, last, None).await })));
        }
    }
}

impl Plan {
    fn direct(&self) -> std::sync::MutexGuard<'_, Option<HttpUrl>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the bytes from `first` to `last`; `None` when one stream had better take over.
    async fn fetch(&self, first: u64, last: u64, mut body: Option<Body>) -> Option<VecDeque<Bytes>> {
        let mut pieces = VecDeque::new();
        let (mut at, mut tries) = (first, self.tries.clone());
        let mut deadline = Instant::now() + self.progress;
        let mut marked = at;
        loop {
            let mut open = match body.take() {
                Some(body) => body,
                None => self.open(at, last, deadline, &mut tries).await?,
            };
            let broken = loop {
                match timeout_at(deadline, open.next()).await {
                    Err(_) => return None,
                    Ok(Err(source)) => break source,
                    Ok(Ok(None)) if at == last + 1 => return Some(pieces),
                    // Shorter than its own range says.
                    Ok(Ok(None)) => return None,
                    Ok(Ok(Some(piece))) => {
                        at += piece.len() as u64;
                        if at > last + 1 {
                            return None;
                        }
                        self.arrived.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        tries.progressed(piece.len() as u64);
                        pieces.push_back(piece);
                        if at - marked >= PROGRESS_BYTES {
                            marked = at;
                            deadline = Instant::now() + self.progress;
                        }
                    }
                }
            };
            let error = self.session.transport(Step::Blob, broken);
            self.session.wait_after(error, &self.job, &mut tries).await.ok()?;
        }
    }

    async fn open(&self, first: u64, last: u64, deadline: Instant, tries: &mut Tries) -> Option<Body> {
        let mut job = Job { deadline: Some(deadline), ..self.job.clone() };
        let range = HeaderValue::from_str(&format!("bytes={first}-{last}")).expect("digits make a header value");
        job.ask.headers.insert(header::RANGE, range);
        let direct = self.direct().clone();
        if let Some(url) = direct {
            let mut job = job.clone();
            job.ask.url = url;
            if let Ok(answer) = self.session.elsewhere(&job).await
                && self.fits(&answer, first, last)
            {
                return Some(answer.body);
            }
            *self.direct() = None;
        }
        let answer = self.session.request(&job, tries).await.ok()?;
        if !self.fits(&answer, first, last) {
            return None;
        }
        if answer.elsewhere {
            *self.direct() = Some(answer.url);
        }
        Some(answer.body)
    }

    fn fits(&self, answer: &Answer, first: u64, last: u64) -> bool {
        answer.status == StatusCode::PARTIAL_CONTENT
            && refuse_encoding(&answer.headers, self.session.host(), "").is_ok()
            && content_range(answer).is_some_and(|r| r.answers(first, last, self.size) && r.last == last)
    }
}

fn content_range(answer: &Answer) -> Option<ContentRange> {
    ContentRange::parse(answer.headers.get(header::CONTENT_RANGE)?.to_str().ok()?)
}
