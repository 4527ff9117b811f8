//! One upload session: opened by `POST`, filled, closed by `PUT` with the digest.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use windlass_core::httpurl::{HttpUrl, UrlScheme};
use windlass_core::manifest::Descriptor;

use super::{UploadSource, label};
use crate::counters::Kind;
use crate::error::{FetchError, Step};
use crate::exchange::{Answer, Ask};
use crate::net::Payload;
use crate::repository::{Repository, Turn};
use crate::resolve::header_digest;
use crate::session::{Job, Missing, Patience};

/// Least chunk a registry takes (distribution-spec).
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// Largest chunk that is held in memory, whatever the registry wants.
const CHUNK_MOST: usize = 128 * 1024 * 1024;
/// Type of uploaded bytes.
const OCTETS: &str = "application/octet-stream";

/// How the bytes of a blob go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Whole,
    Chunks,
}

/// A session the registry opened.
#[derive(Clone, Debug)]
struct Opened {
    location: HttpUrl,
    least_chunk: usize,
}

impl Repository {
    /// Uploads a blob that is not there. A session that breaks is given up and another one begun.
    pub(super) async fn upload(&self, turn: &Turn, blob: &Descriptor, source: &UploadSource) -> Result<(), FetchError> {
        let config = &self.inner.client.config;
        let mut way = match config.upload_chunk_bytes {
            Some(_) => Way::Chunks,
            None => Way::Whole,
        };
        let mut tries = self.tries();
        loop {
            let opened = self.open_upload(turn, blob).await?;
            let done = match way {
                Way::Whole => self.put_whole(turn, blob, source, &opened).await,
                Way::Chunks => self.put_chunks(turn, blob, source, opened).await,
            };
            let error = match done {
                Ok(()) => return Ok(()),
                Err(FetchError::Status { status: 413, .. }) if way == Way::Whole => {
                    way = Way::Chunks;
                    continue;
                }
                // The session is unknown: it expired, or another replica has it.
                Err(FetchError::NotFound { host, words, .. }) => {
                    FetchError::Status { host, step: Step::Push, status: 503, retry_after: None, words }
                }
                Err(error) => error,
            };
            let job = self.upload_job(turn, Method::PUT, turn.session.url("").await?, blob);
            turn.session.wait_after(error, &Job { patience: Patience::Wait, ..job }, &mut tries).await?;
            // The last answer may have been lost after the registry had everything.
            if self.has_blob_at(turn, blob).await? {
                return Ok(());
            }
        }
    }

    /// Gives up a session that is not needed; if that fails the registry removes it by itself.
    pub(super) async fn cancel_upload(&self, turn: &Turn, answer: &Answer) {
        let Ok(location) = location(turn, &answer.url, &answer.headers) else { return };
        let blob_free = Ask::new(Method::DELETE, location, Step::Push, Kind::Other);
        let job = Job {
            ask: blob_free,
            what: "an upload that is not needed".to_owned(),
            scopes: windlass_core::scope::ScopeSet::push(self.path(), None),
            patience: Patience::OneTry,
            missing: Missing::Answer,
            deadline: None,
        };
        if let Err(error) = self.send_upload(turn, &job).await {
            tracing::debug!(%error, "an unused upload session stays open");
        }
    }

    async fn open_upload(&self, turn: &Turn, blob: &Descriptor) -> Result<Opened, FetchError> {
        let path = format!("{}/blobs/uploads/", self.path());
        let job = self.push_job(turn, Method::POST, &path, &label(blob)).await?;
        let answer = turn.session.request(&job, &mut self.tries()).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(turn.session.failure(Step::Push, answer).await);
        }
        let least = answer.headers.get(CHUNK_MIN_LENGTH).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let location = location(turn, &answer.url, &answer.headers)?;
        Ok(Opened { location, least_chunk: least.unwrap_or(0) })
    }

    async fn put_whole(
        &self,
        turn: &Turn,
        blob: &Descriptor,
        source: &UploadSource,
        opened: &Opened,
    ) -> Result<(), FetchError> {
        let digest = blob.digest.to_string();
        let url = with_query(&opened.location, &[("digest", &digest)], turn)?;
        let mut job = self.upload_job(turn, Method::PUT, url, blob);
        job.ask.payload = Payload::stream(source.clone(), blob.size_bytes);
        let sent = self.send_upload(turn, &job).await;
        if let Some(source) = job.ask.payload.source_error() {
            return Err(FetchError::Source { what: label(blob), source });
        }
        self.finished(turn, blob, sent?).await
    }

    async fn put_chunks(
        &self,
        turn: &Turn,
        blob: &Descriptor,
        source: &UploadSource,
        mut opened: Opened,
    ) -> Result<(), FetchError> {
        let wanted = self.inner.client.config.upload_chunk_bytes.unwrap_or(crate::config::UPLOAD_CHUNK);
        if opened.least_chunk > CHUNK_MOST {
            let host = turn.session.host().clone();
            return Err(FetchError::Protocol { host, problem: "it wants chunks larger than 128 MiB" });
        }
        let chunk = wanted.max(opened.least_chunk).clamp(1, CHUNK_MOST) as u64;
        let (mut offset, mut tries) = (0, self.tries());
        while offset < blob.size_bytes {
            let length = chunk.min(blob.size_bytes - offset);
            let piece = source
                .read(offset, length as usize)
                .await
                .map_err(|source| FetchError::Source { what: label(blob), source })?;
            let mut job = self.upload_job(turn, Method::PATCH, opened.location.clone(), blob);
            let range = format!("{offset}-{}", offset + length - 1);
            job.ask.headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits and a dash"));
            job.ask.payload = Payload::Bytes(piece, HeaderValue::from_static(OCTETS));
            let outcome = match self.send_upload(turn, &job).await {
                Ok(answer) if answer.status == StatusCode::ACCEPTED => Ok(answer),
                Ok(answer) => Err(turn.session.failure(Step::Push, answer).await),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => {
                    opened.location = location(turn, &answer.url, &answer.headers)?;
                    offset = received(&answer.headers).unwrap_or(offset + length).min(offset + length);
                    tries.progressed(length);
                }
                Err(error) => {
                    let resumable = matches!(&error, FetchError::Status { status: 416, .. }) || error.passes();
                    if !resumable {
                        return Err(error);
                    }
                    let waits = Job { patience: Patience::Wait, ..job };
                    match error.passes() {
                        true => turn.session.wait_after(error, &waits, &mut tries).await?,
                        false if tries.failed(None, 0.5) == crate::retry::Next::GiveUp => return Err(error),
                        false => {}
                    }
                    (opened.location, offset) = self.upload_offset(turn, blob, &opened.location).await?;
                }
            }
        }
        let digest = blob.digest.to_string();
        let url = with_query(&opened.location, &[("digest", &digest)], turn)?;
        let job = self.upload_job(turn, Method::PUT, url, blob);
        let answer = self.send_upload(turn, &job).await?;
        self.finished(turn, blob, answer).await
    }

    /// Asks how much of a session the registry has.
    async fn upload_offset(&self, turn: &Turn, blob: &Descriptor, at: &HttpUrl) -> Result<(HttpUrl, u64), FetchError> {
        let job = self.upload_job(turn, Method::GET, at.clone(), blob);
        let answer = self.send_upload(turn, &job).await?;
        if answer.status != StatusCode::NO_CONTENT {
            return Err(turn.session.failure(Step::Push, answer).await);
        }
        let location = location(turn, &answer.url, &answer.headers).unwrap_or_else(|_| at.clone());
        Ok((location, received(&answer.headers).unwrap_or(0).min(blob.size_bytes)))
    }

    async fn finished(&self, turn: &Turn, blob: &Descriptor, answer: Answer) -> Result<(), FetchError> {
        if answer.status != StatusCode::CREATED {
            // Another success than the specification's counts if the blob is there.
            if answer.status.is_success() && self.has_blob_at(turn, blob).await? {
                return Ok(());
            }
            return Err(turn.session.failure(Step::Push, answer).await);
        }
        let same = |d: &windlass_core::digest::Digest| d.algorithm() == blob.digest.algorithm();
        match header_digest(&answer.headers).filter(same).filter(|d| *d != blob.digest) {
            Some(got) => Err(FetchError::DigestMismatch {
                host: turn.session.host().clone(),
                what: label(blob),
                want: blob.digest.clone(),
                got,
            }),
            None => Ok(()),
        }
    }

    fn upload_job(&self, _turn: &Turn, method: Method, url: HttpUrl, blob: &Descriptor) -> Job {
        Job {
            ask: Ask::new(method, url, Step::Push, Kind::Other),
            what: label(blob),
            scopes: windlass_core::scope::ScopeSet::push(self.path(), None),
            patience: Patience::OneTry,
            missing: Missing::Refusal,
            deadline: None,
        }
    }

    /// Sends a request of an upload session: with credentials to the registry's own origin, without to another.
    async fn send_upload(&self, turn: &Turn, job: &Job) -> Result<Answer, FetchError> {
        if *job.ask.url.origin() == turn.session.origin().await? {
            turn.session.request(job, &mut self.tries()).await
        } else {
            turn.session.elsewhere(job).await
        }
    }
}

/// Where the session goes on. Never from https to http.
fn location(turn: &Turn, from: &HttpUrl, headers: &HeaderMap) -> Result<HttpUrl, FetchError> {
    let problem = |problem| FetchError::Protocol { host: turn.session.host().clone(), problem };
    let text = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let url = from.join(text.ok_or_else(|| problem("an upload without a Location"))?);
    let url = url.map_err(|_| problem("an upload's Location that is no http or https URL"))?;
    if url.origin().scheme == UrlScheme::Http && from.origin().scheme == UrlScheme::Https {
        return Err(problem("an upload's Location that leaves TLS (set the registry's external URL to https)"));
    }
    Ok(url)
}

/// Bytes the registry has, from `Range: 0-N` or `bytes=0-N`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    // `0-0` stands for one byte and for none; nothing is lost by sending one byte again.
    (first == "0").then_some(if last == 0 { 0 } else { last + 1 })
}

/// The URL with more query parameters; those it has stay as they are.
pub(super) fn with_query(url: &HttpUrl, more: &[(&str, &str)], turn: &Turn) -> Result<HttpUrl, FetchError> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(more);
    let mark = if url.query().is_some() { '&' } else { '?' };
    HttpUrl::parse(&format!("{}{mark}{}", url.to_request_uri(), form.finish())).map_err(|_| FetchError::Protocol {
        host: turn.session.host().clone(),
        problem: "an upload URL that is no URL",
    })
}
