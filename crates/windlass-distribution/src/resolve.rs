//! Tags to digests, and manifests with everything about them checked.
//!
//! Invariants: `a_manifest_is_what_its_digest_says`, `a_head_without_its_headers_means_get`,
//! `html_is_no_image`, `a_manifest_has_a_size_limit`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::timeout;
use windlass_core::digest::Digest;
use windlass_core::host::Host;
use windlass_core::manifest::media_type::{ACCEPT_DOCUMENTS, essence};
use windlass_core::manifest::{Descriptor, Document, parse_document};
use windlass_core::mirror::Operation;
use windlass_core::reference::Reference;
use windlass_core::scope::ScopeSet;

use crate::counters::Kind;
use crate::error::{FetchError, Step};
use crate::exchange::{Answer, Ask};
use crate::repository::{Failures, Repository, Turn};
use crate::session::{Job, Missing, Session};

/// A header of distribution-spec that names the content's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What of a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    /// Whatever the tag names now.
    Tag(String),
    /// Exactly this content.
    Digest(Digest),
}

impl TagOrDigest {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            TagOrDigest::Tag(tag) => tag,
            TagOrDigest::Digest(digest) => digest.as_str(),
        }
    }

    /// Kubernetes lets an image name carry a digest that no content can be checked against.
    ///
    /// # Errors
    /// [`FetchError::UnverifiableDigest`] for such a digest.
    pub fn check(&self) -> Result<(), FetchError> {
        match self {
            TagOrDigest::Digest(digest) if !digest.algorithm().addresses_content() => {
                Err(FetchError::UnverifiableDigest { algorithm: digest.algorithm().as_str() })
            }
            TagOrDigest::Tag(_) | TagOrDigest::Digest(_) => Ok(()),
        }
    }

    fn operation(&self) -> Operation {
        match self {
            TagOrDigest::Tag(_) => Operation::Resolve,
            TagOrDigest::Digest(_) => Operation::Pull,
        }
    }
}

impl From<&Reference> for TagOrDigest {
    /// The digest where there is one, else the tag.
    fn from(image: &Reference) -> TagOrDigest {
        match (image.digest(), image.tag()) {
            (Some(digest), _) => TagOrDigest::Digest(digest.clone()),
            (None, tag) => TagOrDigest::Tag(tag.unwrap_or("latest").to_owned()),
        }
    }
}

impl From<Digest> for TagOrDigest {
    fn from(digest: Digest) -> TagOrDigest {
        TagOrDigest::Digest(digest)
    }
}

/// What a `HEAD` of a manifest says. The digest is the registry's word: enough to see that nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestHead {
    /// The digest.
    pub digest: Digest,
    /// The media type, without parameters.
    pub media_type: String,
    /// The size of the manifest.
    pub size_bytes: u64,
    /// The endpoint that answered.
    pub source: Host,
}

/// A manifest or index: its exact bytes, and what they are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FetchedManifest {
    /// The bytes as they came.
    pub bytes: Bytes,
    /// The media type as transport and document agree on it.
    pub media_type: String,
    /// The digest that was asked for, or the SHA-256 of the bytes.
    pub digest: Digest,
    /// What the bytes say.
    pub document: Document,
    /// The endpoint that served it.
    pub source: Host,
}

impl Repository {
    /// Asks what `what` names without fetching it: one `HEAD`, which Docker Hub does not count as a pull.
    ///
    /// `None` when the registry answers in a way that only [`Repository::manifest`] can clear up.
    ///
    /// # Errors
    /// [`FetchError`]; also when the registry has no such manifest.
    pub async fn head(&self, what: &TagOrDigest) -> Result<Option<ManifestHead>, FetchError> {
        what.check()?;
        let label = self.label(what);
        let mut failures = Failures::default();
        for turn in self.order(what.operation(), Step::Resolve).await? {
            match self.head_at(&turn, what, &label).await {
                Ok(head) => return Ok(head),
                Err(error) => failures.add(&self.inner.client, &turn, error, &label)?,
            }
        }
        Err(failures.take(&label))
    }

    /// Fetches a manifest or index.
    ///
    /// # Errors
    /// [`FetchError`]; nothing of a refused document is returned.
    pub async fn manifest(&self, what: &TagOrDigest) -> Result<FetchedManifest, FetchError> {
        self.fetch_document(what, None).await
    }

    /// Fetches the manifest or index that an index names, checked against the entry's type and size.
    ///
    /// # Errors
    /// As [`Repository::manifest`].
    pub async fn child(&self, entry: &Descriptor) -> Result<FetchedManifest, FetchError> {
        self.fetch_document(&TagOrDigest::Digest(entry.digest.clone()), Some(entry)).await
    }

    pub(crate) fn label(&self, what: &TagOrDigest) -> String {
        let mark = match what {
            TagOrDigest::Tag(_) => ':',
            TagOrDigest::Digest(_) => '@',
        };
        format!("manifest {}{mark}{}", self.path(), what.as_str())
    }

    async fn job(&self, turn: &Turn, method: Method, what: &TagOrDigest, label: &str) -> Result<Job, FetchError> {
        let url = turn.session.url(&format!("{}/manifests/{}", self.path(), what.as_str())).await?;
        let (step, kind) =
            if method == Method::HEAD { (Step::Resolve, Kind::Head) } else { (Step::Manifest, Kind::Manifest) };
        let mut ask = Ask::new(method, url, step, kind);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT_DOCUMENTS));
        ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (what, scopes) = (label.to_owned(), ScopeSet::pull(self.path()));
        Ok(Job { ask, what, scopes, patience: turn.patience, missing: Missing::Refusal, deadline: None })
    }

    async fn head_at(&self, turn: &Turn, what: &TagOrDigest, label: &str) -> Result<Option<ManifestHead>, FetchError> {
        let job = self.job(turn, Method::HEAD, what, label).await?;
        let answer = turn.session.request(&job, &mut self.tries()).await?;
        match answer.status {
            StatusCode::OK => Ok(read_head(&answer.headers, turn.session.host())),
            // Some registries know no HEAD; GET tells what is wrong, if anything is.
            _ => Ok(None),
        }
    }

    async fn fetch_document(
        &self,
        what: &TagOrDigest,
        entry: Option<&Descriptor>,
    ) -> Result<FetchedManifest, FetchError> {
        what.check()?;
        let label = self.label(what);
        let mut failures = Failures::default();
        for turn in self.order(what.operation(), Step::Manifest).await? {
            match self.fetch_document_at(&turn, what, entry, &label).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => failures.add(&self.inner.client, &turn, error, &label)?,
            }
        }
        Err(failures.take(&label))
    }

    async fn fetch_document_at(
        &self,
        turn: &Turn,
        what: &TagOrDigest,
        entry: Option<&Descriptor>,
        label: &str,
    ) -> Result<FetchedManifest, FetchError> {
        let session = &turn.session;
        let job = self.job(turn, Method::GET, what, label).await?;
        let mut tries = self.tries();
        let mut fresh_download = true;
        loop {
            let answer = session.request(&job, &mut tries).await?;
            if answer.status != StatusCode::OK {
                return Err(session.failure(Step::Manifest, answer).await);
            }
            match self.read_document(session, answer, what, entry, label).await {
                // A damaged transfer looks like a lie; one more download tells them apart.
                Err(FetchError::DigestMismatch { .. }) if fresh_download => fresh_download = false,
                Err(error) if error.passes() => session.wait_after(error, &job, &mut tries).await?,
                outcome => return outcome,
            }
        }
    }

    async fn read_document(
        &self,
        session: &Session,
        answer: Answer,
        what: &TagOrDigest,
        entry: Option<&Descriptor>,
        label: &str,
    ) -> Result<FetchedManifest, FetchError> {
        let host = session.host().clone();
        let limits = &self.inner.client.config.limits.documents;
        let Answer { headers, body, .. } = answer;
        refuse_encoding(&headers, &host, label)?;
        let length = content_length(&headers);
        let what_for = label.to_owned();
        if let (Some(want), Some(got)) = (entry.map(|e| e.size_bytes), length)
            && want != got
        {
            return Err(FetchError::SizeMismatch { host, what: what_for, want, got });
        }
        let limit = limits.manifest_bytes;
        let too_large =
            || FetchError::TooLarge { host: host.clone(), what: label.to_owned(), limit, key: "manifestBytes" };
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let patience = self.inner.client.config.timeouts.progress;
        let bytes = match timeout(patience, body.collect(limit)).await {
            Err(_) => return Err(session.no_progress(label)),
            Ok(Err(source)) => return Err(session.transport(Step::Manifest, source)),
            Ok(Ok(None)) => return Err(too_large()),
            Ok(Ok(Some(bytes))) => bytes,
        };
        let (client, shared) = (&self.inner.client, &self.inner.shared);
        client.tally.bytes(bytes.len());
        shared.tally.bytes(bytes.len());
        if let Some(want) = entry.map(|e| e.size_bytes).filter(|want| *want != bytes.len() as u64) {
            return Err(FetchError::SizeMismatch { host, what: what_for, want, got: bytes.len() as u64 });
        }
        let digest = check_digest(what, &headers, &bytes, &host, label)?;
        let content_type =
            headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let expected = entry.map(|e| e.media_type.as_str());
        let document = parse_document(&bytes, content_type.as_deref(), expected, limits)
            .map_err(|source| FetchError::Manifest { host: host.clone(), what: what_for, source })?;
        let media_type = match &document {
            Document::Index(index) => index.media_type.clone(),
            Document::Manifest(manifest) => manifest.media_type.clone(),
        };
        Ok(FetchedManifest { bytes, media_type, digest, document, source: host })
    }
}

/// The digest of the bytes, after everybody who named one was found to be right.
fn check_digest(
    what: &TagOrDigest,
    headers: &HeaderMap,
    bytes: &[u8],
    host: &Host,
    label: &str,
) -> Result<Digest, FetchError> {
    let mismatch = |want: &Digest, got: Digest| FetchError::DigestMismatch {
        host: host.clone(),
        what: label.to_owned(),
        want: want.clone(),
        got,
    };
    let digest = match what {
        TagOrDigest::Tag(_) => Digest::sha256(bytes),
        TagOrDigest::Digest(want) => {
            let got = want.algorithm().digest(bytes);
            if got != *want {
                return Err(mismatch(want, got));
            }
            got
        }
    };
    // The header is a hint: one that is no digest is passed over, one that is wrong is not.
    if let Some(said) = header_digest(headers) {
        let got = said.algorithm().digest(bytes);
        if got != said {
            return Err(mismatch(&said, got));
        }
    }
    Ok(digest)
}

pub(crate) fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get(CONTENT_DIGEST)?.to_str().ok()?.trim()).ok()
}

fn read_head(headers: &HeaderMap, host: &Host) -> Option<ManifestHead> {
    let media_type = essence(headers.get(header::CONTENT_TYPE)?.to_str().ok()?);
    let size_bytes = content_length(headers)?;
    Some(ManifestHead { digest: header_digest(headers)?, media_type, size_bytes, source: host.clone() })
}

/// `Content-Length` where it is one number.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Refuses content that was encoded although we asked for none: its digest is over other bytes.
pub(crate) fn refuse_encoding(headers: &HeaderMap, host: &Host, what: &str) -> Result<(), FetchError> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"identity") || value.is_empty() => Ok(()),
        Some(value) => Err(FetchError::ContentEncoding {
            host: host.clone(),
            what: what.to_owned(),
            encoding: crate::words::escape(&String::from_utf8_lossy(value.as_bytes()), 64),
        }),
    }
}
