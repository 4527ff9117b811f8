//! Uploads: only to the registry itself, only what is not there yet, safe to repeat.
//!
//! In: a descriptor and a source that can be opened again. Out: the blob or manifest is there, or an error.
//! Source of truth: OCI distribution-spec, "Pushing". A blob goes up in one streamed `PUT`; in chunks where
//! the configuration says so or the registry finds the single request too large.
//!
//! Invariants: `an_image_goes_up_and_what_is_there_is_not_sent_again`, `an_upload_elsewhere_gets_no_credential`,
//! `a_broken_upload_starts_again`, `chunks_are_resumed_where_the_registry_says`.

mod source;
mod upload;

pub use source::UploadSource;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use windlass_core::digest::Digest;
use windlass_core::manifest::Descriptor;
use windlass_core::mirror::Operation;
use windlass_core::scope::ScopeSet;

use crate::counters::Kind;
use crate::error::{FetchError, Step};
use crate::exchange::Ask;
use crate::net::Payload;
use crate::repository::{Failures, Repository, Turn};
use crate::resolve::{TagOrDigest, content_length, header_digest};
use crate::session::{Job, Missing, Patience};

/// What came of a cross-repository mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// The blob is in this repository now.
    Mounted,
    /// The registry wants an upload instead.
    UploadNeeded,
}

/// What came of a push of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was uploaded.
    Uploaded,
    /// It was there before; nothing was sent.
    AlreadyThere,
}

impl Repository {
    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::SizeMismatch`] when it has it with another size.
    pub async fn has_blob(&self, blob: &Descriptor) -> Result<bool, FetchError> {
        let turn = self.push_turn().await?;
        let done = self.has_blob_at(&turn, blob).await;
        self.told(&turn, done, &label(blob))
    }

    /// Uploads a blob unless it is there. `source` is opened again for every try; it must give exactly the
    /// descriptor's bytes, which the registry checks against the digest.
    ///
    /// Dropped while it runs, an unfinished upload stays at the registry until that removes it.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Source`] when the bytes cannot be read.
    pub async fn push_blob(&self, blob: &Descriptor, source: &UploadSource) -> Result<Pushed, FetchError> {
        let turn = self.push_turn().await?;
        let done = match self.has_blob_at(&turn, blob).await {
            Ok(true) => Ok(Pushed::AlreadyThere),
            Ok(false) => self.upload(&turn, blob, source).await.map(|()| Pushed::Uploaded),
            Err(error) => Err(error),
        };
        self.told(&turn, done, &label(blob))
    }

    /// Asks the registry to take a blob over from another of its repositories.
    ///
    /// # Errors
    /// [`FetchError`]; a registry that cannot or may not do it answers [`Mount::UploadNeeded`].
    pub async fn mount_blob(&self, blob: &Descriptor, from: &str) -> Result<Mount, FetchError> {
        let what = format!("mount of {} from {}", label(blob), crate::words::escape(from, 256));
        let turn = self.push_turn().await?;
        let done = self.mount_at(&turn, blob, from, &what).await;
        self.told(&turn, done, &what)
    }

    /// Uploads a manifest or index under a tag or its digest; everything it names must be there already.
    /// Answers the digest of the bytes.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::DigestMismatch`] when the bytes are not what `name` says, or when the
    /// registry stored something else.
    pub async fn push_manifest(
        &self,
        name: &TagOrDigest,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, FetchError> {
        let what = self.label(name);
        let turn = self.push_turn().await?;
        let done = self.put_manifest(&turn, name, media_type, bytes, &what).await;
        self.told(&turn, done, &what)
    }

    async fn put_manifest(
        &self,
        turn: &Turn,
        name: &TagOrDigest,
        media_type: &str,
        bytes: Bytes,
        what: &str,
    ) -> Result<Digest, FetchError> {
        name.check()?;
        let host = turn.session.host().clone();
        let mismatch = |want: &Digest, got: Digest| {
            let (host, what) = (turn.session.host().clone(), what.to_owned());
            FetchError::DigestMismatch { host, what, want: want.clone(), got }
        };
        let digest = match name {
            TagOrDigest::Tag(_) => Digest::sha256(&bytes),
            TagOrDigest::Digest(want) => match want.algorithm().digest(&bytes) {
                got if got == *want => got,
                got => return Err(mismatch(want, got)),
            },
        };
        let problem = "the media type cannot stand in a header";
        let media_type = HeaderValue::from_str(media_type).map_err(|_| FetchError::Protocol { host, problem })?;
        let path = format!("{}/manifests/{}", self.path(), name.as_str());
        let mut job = self.push_job(turn, Method::PUT, &path, what).await?;
        job.ask.payload = Payload::Bytes(bytes, media_type);
        let answer = turn.session.request(&job, &mut self.tries()).await?;
        if !matches!(answer.status, StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(turn.session.failure(Step::Push, answer).await);
        }
        match header_digest(&answer.headers).filter(|d| d.algorithm() == digest.algorithm() && *d != digest) {
            Some(stored) => Err(mismatch(&digest, stored)),
            None => Ok(digest),
        }
    }

    /// The one place pushes go to: the registry itself.
    async fn push_turn(&self) -> Result<Turn, FetchError> {
        let turns = self.order(Operation::Push, Step::Push).await?;
        let first = turns.into_iter().next().map(|turn| Turn { patience: Patience::Wait, ..turn });
        first.ok_or_else(|| FetchError::NoEndpoint { host: self.registry().clone(), step: Step::Push })
    }

    /// Remembers a host that failed.
    fn told<T>(&self, turn: &Turn, done: Result<T, FetchError>, what: &str) -> Result<T, FetchError> {
        done.map_err(|error| match Failures::default().add(&self.inner.client, turn, error, what) {
            Err(error) => error,
            Ok(()) => FetchError::NoEndpoint { host: self.registry().clone(), step: Step::Push },
        })
    }

    async fn push_job(&self, turn: &Turn, method: Method, path: &str, what: &str) -> Result<Job, FetchError> {
        let ask = Ask::new(method, turn.session.url(path).await?, Step::Push, Kind::Other);
        Ok(Job {
            ask,
            what: what.to_owned(),
            scopes: ScopeSet::push(self.path(), None),
            patience: Patience::Wait,
            missing: Missing::Refusal,
            deadline: None,
        })
    }

    async fn has_blob_at(&self, turn: &Turn, blob: &Descriptor) -> Result<bool, FetchError> {
        let (what, path) = (label(blob), format!("{}/blobs/{}", self.path(), blob.digest));
        let job = self.push_job(turn, Method::HEAD, &path, &what).await?;
        let job = Job { missing: Missing::Answer, ..job };
        let answer = turn.session.request(&job, &mut self.tries()).await?;
        match answer.status {
            StatusCode::OK => match content_length(&answer.headers).filter(|got| *got != blob.size_bytes) {
                Some(got) => {
                    let host = turn.session.host().clone();
                    Err(FetchError::SizeMismatch { host, what, want: blob.size_bytes, got })
                }
                None => Ok(true),
            },
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(turn.session.failure(Step::Push, answer).await),
        }
    }

    async fn mount_at(&self, turn: &Turn, blob: &Descriptor, from: &str, what: &str) -> Result<Mount, FetchError> {
        let path = format!("{}/blobs/uploads/", self.path());
        let mut job = self.push_job(turn, Method::POST, &path, what).await?;
        let digest = blob.digest.to_string();
        job.ask.url = upload::with_query(&job.ask.url, &[("mount", &digest), ("from", from)], turn)?;
        job.scopes = ScopeSet::push(self.path(), Some(from));
        let answer = match turn.session.request(&job, &mut self.tries()).await {
            Ok(answer) => answer,
            // Without the right to read there, or without such a repository, an upload may still be in order.
            Err(FetchError::NotFound { .. } | FetchError::Denied { .. }) => return Ok(Mount::UploadNeeded),
            Err(error) => return Err(error),
        };
        match answer.status {
            StatusCode::CREATED => Ok(Mount::Mounted),
            StatusCode::ACCEPTED => {
                self.cancel_upload(turn, &answer).await;
                Ok(Mount::UploadNeeded)
            }
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => Ok(Mount::UploadNeeded),
            _ => Err(turn.session.failure(Step::Push, answer).await),
        }
    }
}

fn label(blob: &Descriptor) -> String {
    format!("blob {}", blob.digest)
}
