//! Blobs: bytes in order, resumed, bounded, from whichever endpoint has them.
//!
//! In: a descriptor. Out: [`BlobEvent`]s; after the last one exactly `size_bytes` bytes were given since the last
//! restart. The digest is the consumer's to check (it hashes anyway); it reports a mismatch by
//! [`BlobFetch::reject_source`].
//!
//! Nothing is queued: [`BlobFetch::next`] pulls, TCP or HTTP/2 flow control holds the sender back. Dropping a
//! [`BlobFetch`] closes its connection (HTTP/1.1) or resets its stream (HTTP/2); nothing else is left behind.
//!
//! Invariants: `a_blob_never_exceeds_its_size`, `a_cut_blob_is_resumed_by_range`,
//! `a_200_to_a_range_is_skipped_to_the_offset`, `a_416_starts_again`, `a_lying_range_is_not_believed`,
//! `trickle_is_not_progress`, `a_wrong_blob_puts_its_source_behind_the_others`.

mod open;
mod parallel;
mod progress;
mod range;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use windlass_core::host::Host;
use windlass_core::httpurl::HttpUrl;
use windlass_core::manifest::Descriptor;
use windlass_core::mirror::Operation;

use crate::error::{FetchError, Step, TransportError};
use crate::net::Body;
use crate::repository::{Failures, Repository, Turn};
use crate::retry::Tries;
use parallel::Window;
use progress::Progress;

/// What comes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobEvent {
    /// The next bytes, never empty.
    Bytes(Bytes),
    /// Forget all bytes so far: the blob starts again at byte 0.
    Restart,
}

/// A blob being fetched.
#[derive(Debug)]
pub struct BlobFetch {
    repository: Repository,
    descriptor: Descriptor,
    /// For messages.
    what: String,
    turns: Option<std::vec::IntoIter<Turn>>,
    /// The endpoint in use.
    turn: Option<Turn>,
    source: Source,
    /// Bytes given to the consumer since the last restart.
    offset: u64,
    /// Bytes of the current body that the consumer has already.
    skip: u64,
    tries: Tries,
    progress: Progress,
    failures: Failures,
    /// The signed URL the registry redirected to, used again for the rest.
    direct: Option<HttpUrl>,
    /// The endpoint's ranges cannot be relied on.
    ranges: Ranges,
    /// Several ranges at once did not work: one stream from now on.
    narrow: bool,
    /// Who gave bytes since the last restart.
    givers: Vec<Host>,
    fresh_downloads: u32,
    finished: bool,
}

/// Where bytes come from at the moment.
#[derive(Debug)]
enum Source {
    /// Nothing is open.
    Closed,
    /// The descriptor's own data.
    Inline(Bytes),
    /// One response.
    Stream(Box<OpenBody>),
    /// Several ranges at once, in order.
    Window(Box<Window>),
}

/// An open response.
#[derive(Debug)]
struct OpenBody {
    body: Body,
    /// Its end is told by the connection's end, so a cut cannot be told from the end.
    until_close: bool,
}

/// How far ranges of the current endpoint are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranges {
    Usable,
    /// It answered 416 or a wrong range once: whole blobs only.
    Distrusted,
}

/// Fresh downloads allowed after wrong bytes when no other source is left.
const FRESH_DOWNLOADS: u32 = 1;

impl Repository {
    /// Starts a blob; nothing is sent before the first [`BlobFetch::next`].
    pub fn blob(&self, descriptor: &Descriptor) -> BlobFetch {
        let progress = Progress::new(self.inner.client.config.timeouts.progress);
        BlobFetch {
            repository: self.clone(),
            what: format!("blob {}", descriptor.digest),
            source: match &descriptor.data {
                Some(data) => Source::Inline(Bytes::from(data.clone())),
                None => Source::Closed,
            },
            descriptor: descriptor.clone(),
            turns: None,
            turn: None,
            offset: 0,
            skip: 0,
            tries: self.tries(),
            progress,
            failures: Failures::default(),
            direct: None,
            ranges: Ranges::Usable,
            narrow: false,
            givers: Vec::new(),
            fresh_downloads: FRESH_DOWNLOADS,
            finished: false,
        }
    }

    /// Starts a blob whose first `offset_bytes` the caller has already, unverified: the rest of it is asked for.
    /// [`BlobEvent::Restart`] voids them too.
    pub fn blob_from(&self, descriptor: &Descriptor, offset_bytes: u64) -> BlobFetch {
        let mut fetch = self.blob(descriptor);
        if descriptor.data.is_none() && offset_bytes < descriptor.size_bytes {
            fetch.offset = offset_bytes;
        }
        fetch
    }

    /// Fetches a small blob whole and verifies it; `cap` bounds it whatever the descriptor says.
    ///
    /// # Errors
    /// [`FetchError::TooLarge`] before anything is asked when the descriptor announces more than `cap`.
    pub async fn blob_bytes(&self, descriptor: &Descriptor, cap: u64) -> Result<Bytes, FetchError> {
        let what = format!("blob {}", descriptor.digest);
        if descriptor.size_bytes > cap {
            let host = self.registry().clone();
            return Err(FetchError::TooLarge { host, what, limit: cap, key: "configBytes" });
        }
        let mut fetch = self.blob(descriptor);
        loop {
            let mut pieces: Vec<Bytes> = Vec::new();
            while let Some(event) = fetch.next().await? {
                match event {
                    BlobEvent::Bytes(bytes) => pieces.push(bytes),
                    BlobEvent::Restart => pieces.clear(),
                }
            }
            let bytes: Bytes = match pieces.len() {
                1 => pieces.remove(0),
                _ => pieces.concat().into(),
            };
            let got = descriptor.digest.algorithm().digest(&bytes);
            if got == descriptor.digest {
                return Ok(bytes);
            }
            let host = fetch.source().cloned().unwrap_or_else(|| self.registry().clone());
            if !fetch.reject_source() {
                return Err(FetchError::DigestMismatch { host, what, want: descriptor.digest.clone(), got });
            }
        }
    }
}

impl BlobFetch {
    /// The blob's descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The endpoint that gave the last bytes.
    pub fn source(&self) -> Option<&Host> {
        self.givers.last()
    }

    /// Bytes given since the last restart.
    pub fn offset_bytes(&self) -> u64 {
        self.offset
    }

    /// The next event; `None` when the blob is complete.
    ///
    /// May be dropped between two calls. Dropped while it runs, the bytes of that moment may be lost: drop the
    /// whole fetch then.
    ///
    /// # Errors
    /// [`FetchError`]; the fetch is over then. Retries, resumption and other endpoints were tried before.
    pub async fn next(&mut self) -> Result<Option<BlobEvent>, FetchError> {
        if self.finished {
            return Ok(None);
        }
        self.progress.enter();
        let outcome = self.advance().await;
        self.progress.leave();
        if !matches!(outcome, Ok(Some(_))) {
            self.finished = true;
            self.source = Source::Closed;
        }
        outcome
    }

    /// The consumer found that the bytes do not hash to the digest. Whoever gave them is asked last from now on.
    ///
    /// `true`: call [`BlobFetch::next`] again, the blob starts at byte 0. `false`: nobody is left to ask.
    pub fn reject_source(&mut self) -> bool {
        let client = self.repository.inner.client.clone();
        for host in self.givers.drain(..) {
            client.breakers.punish(&host, std::time::Instant::now(), client.config.timeouts.penalty);
        }
        let others = self.turns.as_ref().is_some_and(|turns| turns.len() > 0);
        if !others {
            if self.fresh_downloads == 0 {
                return false;
            }
            self.fresh_downloads -= 1;
        }
        // Endpoints are put in order anew, the punished ones last.
        self.turns = None;
        self.turn = None;
        self.start_again();
        self.finished = false;
        true
    }

    async fn advance(&mut self) -> Result<Option<BlobEvent>, FetchError> {
        loop {
            let error = match self.step().await {
                Ok(Progressed::Event(event)) => return Ok(Some(event)),
                Ok(Progressed::Complete) => return Ok(None),
                Ok(Progressed::Again) => continue,
                Err(error) => error,
            };
            self.source = Source::Closed;
            let had_bytes = self.offset > 0;
            self.next_endpoint(error).await?;
            // What an endpoint with wrong content gave cannot be built upon.
            if self.givers.is_empty() && had_bytes {
                self.start_again();
                return Ok(Some(BlobEvent::Restart));
            }
        }
    }

    /// One step at the current endpoint.
    async fn step(&mut self) -> Result<Progressed, FetchError> {
        match &mut self.source {
            Source::Inline(data) => {
                let data = std::mem::take(data);
                if data.len() as u64 != self.descriptor.size_bytes || !self.descriptor.digest.matches(&data) {
                    return Err(FetchError::InlineData { digest: self.descriptor.digest.clone() });
                }
                self.finished = true;
                self.offset = data.len() as u64;
                Ok(if data.is_empty() { Progressed::Complete } else { Progressed::Event(BlobEvent::Bytes(data)) })
            }
            Source::Closed => self.open().await,
            Source::Stream(_) => self.read().await,
            Source::Window(_) => self.read_window().await,
        }
    }

    async fn read(&mut self) -> Result<Progressed, FetchError> {
        let Source::Stream(open) = &mut self.source else { return Ok(Progressed::Again) };
        let (deadline, until_close) = (self.progress.deadline(), open.until_close);
        let size = self.descriptor.size_bytes;
        match timeout_at(deadline, open.body.next()).await {
            Err(_) => Err(self.stuck()),
            Ok(Ok(Some(mut bytes))) => {
                let skipped = (bytes.len() as u64).min(self.skip);
                let _ = bytes.split_to(skipped as usize);
                self.skip -= skipped;
                if bytes.is_empty() {
                    return Ok(Progressed::Again);
                }
                if self.offset + bytes.len() as u64 > size {
                    return Err(self.wrong_size(size + 1));
                }
                Ok(Progressed::Event(self.give(bytes)))
            }
            Ok(Ok(None)) if self.offset == size && self.skip == 0 => Ok(Progressed::Complete),
            Ok(Ok(None)) if until_close => {
                let early: Box<dyn std::error::Error + Send + Sync> = "the connection ended early".into();
                self.resume_after(TransportError::Closed { source: early }).await
            }
            Ok(Ok(None)) => Err(self.wrong_size(self.offset)),
            Ok(Err(source)) => self.resume_after(source).await,
        }
    }

    /// Takes bytes as given to the consumer.
    fn give(&mut self, bytes: Bytes) -> BlobEvent {
        self.offset += bytes.len() as u64;
        self.tries.progressed(bytes.len() as u64);
        self.progress.came(bytes.len() as u64);
        self.repository.inner.client.tally.bytes(bytes.len());
        self.repository.inner.shared.tally.bytes(bytes.len());
        if let Some(turn) = &self.turn
            && self.givers.last() != Some(turn.session.host())
        {
            self.givers.push(turn.session.host().clone());
        }
        BlobEvent::Bytes(bytes)
    }

    /// Waits for another try at the same endpoint after the connection broke.
    async fn resume_after(&mut self, source: TransportError) -> Result<Progressed, FetchError> {
        self.source = Source::Closed;
        let Some(turn) = &self.turn else { return Ok(Progressed::Again) };
        let job = self.job(turn.session.url("").await?);
        let error = turn.session.transport(Step::Blob, source);
        let session = turn.session.clone();
        // A body that was under way is resumed even where the next endpoint could take over.
        let job = crate::session::Job { patience: crate::session::Patience::Wait, ..job };
        session.wait_after(error, &job, &mut self.tries).await?;
        Ok(Progressed::Again)
    }

    /// Goes to the next endpoint after this one failed for good.
    async fn next_endpoint(&mut self, error: FetchError) -> Result<(), FetchError> {
        let Some(turn) = self.turn.take() else { return Err(error) };
        if error.is_wrong_content() {
            self.givers.clear();
        }
        let foreign = matches!(error, FetchError::NotFound { .. });
        match self.failures.add(&self.repository.inner.client, &turn, error, &self.what) {
            Ok(()) => {}
            Err(error) if foreign => self.open_foreign(error).await?,
            Err(error) => return Err(error),
        }
        self.tries = self.repository.tries();
        self.progress.reset();
        self.direct = None;
        self.ranges = Ranges::Usable;
        self.narrow = false;
        Ok(())
    }

    fn start_again(&mut self) {
        self.source = match &self.descriptor.data {
            Some(data) => Source::Inline(Bytes::from(data.clone())),
            None => Source::Closed,
        };
        self.offset = 0;
        self.skip = 0;
        self.givers.clear();
    }

    fn stuck(&self) -> FetchError {
        let limit = self.progress.limit();
        FetchError::NoProgress { host: self.asked_host(), what: self.what.clone(), limit }
    }

    fn wrong_size(&self, got: u64) -> FetchError {
        let want = self.descriptor.size_bytes;
        FetchError::SizeMismatch { host: self.asked_host(), what: self.what.clone(), want, got }
    }

    fn asked_host(&self) -> Host {
        self.turn.as_ref().map_or_else(|| self.repository.registry().clone(), |t| t.session.host().clone())
    }

    fn deadline(&self) -> Instant {
        self.progress.deadline()
    }

    /// Takes the next endpoint's turn if none is in use.
    async fn take_turn(&mut self) -> Result<Turn, FetchError> {
        if let Some(turn) = &self.turn {
            return Ok(turn.clone());
        }
        if self.turns.is_none() {
            self.turns = Some(self.repository.order(Operation::Pull, Step::Blob).await?.into_iter());
        }
        match self.turns.as_mut().and_then(Iterator::next) {
            Some(turn) => {
                self.turn = Some(turn.clone());
                Ok(turn)
            }
            None => Err(self.failures.take(&self.what)),
        }
    }
}

/// What one step achieved.
#[derive(Debug)]
enum Progressed {
    Event(BlobEvent),
    Again,
    Complete,
}
