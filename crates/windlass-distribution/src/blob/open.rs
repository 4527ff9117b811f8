//! Opens a blob at the current offset: request, answer, and what the answer may be.

use http::{HeaderValue, Method, StatusCode, header};
use windlass_core::httpurl::{HttpUrl, UrlScheme};
use windlass_core::manifest::LayerType;
use windlass_core::scope::ScopeSet;

use super::parallel::PART;
use super::range::ContentRange;
use super::{BlobEvent, BlobFetch, OpenBody, Progressed, Ranges, Source};
use crate::config::ForeignUrls;
use crate::counters::Kind;
use crate::error::{FetchError, Step};
use crate::exchange::{self, Answer, Ask, Purpose};
use crate::net::Profile;
use crate::repository::Turn;
use crate::resolve::{content_length, refuse_encoding};
use crate::session::{Job, Missing, Patience};

impl BlobFetch {
    /// Opens the blob at the current offset.
    pub(super) async fn open(&mut self) -> Result<Progressed, FetchError> {
        let turn = self.take_turn().await?;
        if self.offset == self.descriptor.size_bytes && self.offset > 0 {
            return Ok(Progressed::Complete);
        }
        let resumes = self.offset > 0 && self.ranges == Ranges::Usable;
        let answer = match self.direct.clone() {
            Some(url) if resumes => match self.ask_direct(&turn, url).await? {
                Some(answer) => answer,
                None => {
                    self.direct = None;
                    self.ask(&turn, resumes).await?
                }
            },
            _ => self.ask(&turn, resumes).await?,
        };
        self.accept(&turn, answer, resumes).await
    }

    pub(super) fn job(&self, url: HttpUrl) -> Job {
        let mut ask = Ask::new(Method::GET, url, Step::Blob, Kind::Blob);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Job {
            ask,
            what: self.what.clone(),
            scopes: ScopeSet::pull(self.repository.path()),
            patience: self.turn.as_ref().map_or(Patience::Wait, |t| t.patience),
            missing: Missing::Refusal,
            deadline: Some(self.deadline()),
        }
    }

    async fn ask(&mut self, turn: &Turn, resumes: bool) -> Result<Answer, FetchError> {
        let mut job = self.job(self.url(turn).await?);
        if resumes {
            job.ask.headers.insert(header::RANGE, range_from(self.offset));
        } else if self.streams() > 1 {
            let first = HeaderValue::from_str(&format!("bytes=0-{}", PART - 1)).expect("digits make a header value");
            job.ask.headers.insert(header::RANGE, first);
        }
        turn.session.request(&job, &mut self.tries).await
    }

    async fn url(&self, turn: &Turn) -> Result<HttpUrl, FetchError> {
        turn.session.url(&format!("{}/blobs/{}", self.repository.path(), self.descriptor.digest)).await
    }

    /// Asks the signed URL of before for the rest; `None` when it has expired.
    async fn ask_direct(&mut self, turn: &Turn, url: HttpUrl) -> Result<Option<Answer>, FetchError> {
        let mut job = self.job(url);
        job.ask.headers.insert(header::RANGE, range_from(self.offset));
        let answer = turn.session.elsewhere(&job).await;
        Ok(answer.ok().filter(|answer| answer.status == StatusCode::PARTIAL_CONTENT))
    }

    async fn accept(&mut self, turn: &Turn, answer: Answer, resumes: bool) -> Result<Progressed, FetchError> {
        let (size, session) = (self.descriptor.size_bytes, &turn.session);
        let length = content_length(&answer.headers);
        if !resumes && self.streams() > 1 && self.is_first_part(&answer) {
            refuse_encoding(&answer.headers, session.host(), &self.what)?;
            let job = self.job(self.url(turn).await?);
            self.open_window(session, answer, job);
            return Ok(Progressed::Again);
        }
        match answer.status {
            StatusCode::OK => {
                refuse_encoding(&answer.headers, session.host(), &self.what)?;
                if let Some(got) = length.filter(|got| *got != size) {
                    return Err(self.wrong_size(got));
                }
                self.skip = self.offset;
            }
            StatusCode::PARTIAL_CONTENT if resumes => {
                refuse_encoding(&answer.headers, session.host(), &self.what)?;
                let range = answer.headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
                let range = range.and_then(ContentRange::parse);
                if !range.is_some_and(|r| r.answers(self.offset, size - 1, size) && r.last == size - 1) {
                    self.ranges = Ranges::Distrusted;
                    return Ok(Progressed::Again);
                }
                self.skip = 0;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if self.streams() > 1 => {
                self.narrow = true;
                return Ok(Progressed::Again);
            }
            StatusCode::RANGE_NOT_SATISFIABLE if resumes => {
                self.ranges = Ranges::Distrusted;
                self.start_again();
                return Ok(Progressed::Event(BlobEvent::Restart));
            }
            _ => return Err(session.failure(Step::Blob, answer).await),
        }
        self.open_stream(answer);
        Ok(Progressed::Again)
    }

    /// Tries the descriptor's `urls`, if it is a foreign layer and that is allowed: https only, no credentials,
    /// no answer to a 401.
    pub(super) async fn open_foreign(&mut self, missing: FetchError) -> Result<(), FetchError> {
        let client = self.repository.inner.client.clone();
        let foreign = LayerType::of(&self.descriptor.media_type).is_some_and(|t| t.foreign);
        if !foreign || client.config.foreign_urls == ForeignUrls::Refused || self.offset > 0 {
            return Err(missing);
        }
        let registry = self.repository.registry().clone();
        let origin = windlass_core::httpurl::WebOrigin::of_host(UrlScheme::Https, &registry);
        let class = windlass_core::realm::host_class(&origin.name);
        for text in &self.descriptor.urls {
            let Ok(url) = HttpUrl::parse(text) else { continue };
            let insecure = client.overrides(&url.authority()).own.plain_http;
            if url.origin().scheme == UrlScheme::Http && !insecure {
                continue;
            }
            let job = self.job(url);
            let purpose = Purpose::Referred { registry: origin.clone(), class };
            let tallies = [&client.tally, &self.repository.inner.shared.tally];
            let answer = exchange::ask(&client.network, &tallies, &Profile::default(), &job.ask, &purpose).await;
            let Ok(answer) = answer else { continue };
            let fits = content_length(&answer.headers).is_none_or(|length| length == self.descriptor.size_bytes);
            if answer.status == StatusCode::OK && fits {
                self.skip = 0;
                self.source = Source::Stream(Box::new(OpenBody { body: answer.body, until_close: false }));
                return Ok(());
            }
        }
        Err(missing)
    }
}

fn range_from(offset: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits make a header value")
}
