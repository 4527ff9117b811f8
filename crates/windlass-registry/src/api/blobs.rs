//! Blobs: GET and HEAD with ranges, DELETE.
//!
//! A blob is served only where this repository links it, whoever else has it.

use std::fs::File;

use http::{HeaderValue, Method, StatusCode, header};
use windlass_core::digest::Digest;

use super::{Asked, CONTENT_DIGEST};
use crate::access::Action;
use crate::body::{self, Answer, AnswerBody, FilePart};
use crate::error::{ApiError, ErrorCode};
use crate::range::{self, Served};
use crate::route::RepositoryName;
use crate::storage::{Storage, StorageError, blocking};

pub(super) async fn serve(asked: &Asked<'_>, name: RepositoryName, digest: Digest) -> Result<Answer, ApiError> {
    match asked.method {
        Method::GET | Method::HEAD => {
            asked.allow(&name, &[Action::Pull])?;
            get(asked, name, digest).await
        }
        Method::DELETE => {
            asked.allow(&name, &[Action::Delete])?;
            asked.deletes_are_on()?;
            delete(asked, name, digest).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn get(asked: &Asked<'_>, name: RepositoryName, digest: Digest) -> Result<Answer, ApiError> {
    let storage = asked.state.storage.clone();
    let wanted = digest.clone();
    let found = blocking(move || open_linked(&storage, &name, &wanted)).await?;
    let (file, size_bytes) = found.ok_or_else(ApiError::blob_unknown)?;
    let etag = format!("\"{digest}\"");
    if asked.has_etag(&etag) {
        return Ok(describe(body::empty(StatusCode::NOT_MODIFIED), &digest, &etag));
    }
    let mut answer = body::empty(StatusCode::OK);
    // A range with a condition that does not hold means the whole; content under a digest never changes.
    let conditional = asked.header(header::IF_RANGE).is_some_and(|condition| condition != etag);
    let wanted = if conditional { None } else { asked.header(header::RANGE) };
    let (first, len) = match range::served(wanted, size_bytes) {
        Served::Whole => (0, size_bytes),
        Served::Part { first, last } => {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let content_range = format!("bytes {first}-{last}/{size_bytes}");
            answer.headers_mut().insert(header::CONTENT_RANGE, ascii(&content_range));
            (first, last - first + 1)
        }
        Served::Unsatisfiable => {
            let message = "the range starts behind the end of the blob";
            let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message);
            return Err(error.with(header::CONTENT_RANGE, ascii(&format!("bytes */{size_bytes}"))));
        }
    };
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    *answer.body_mut() = match asked.method {
        Method::HEAD => AnswerBody::Head(len),
        _ => AnswerBody::File(FilePart::new(file, first, len)),
    };
    Ok(describe(answer, &digest, &etag))
}

fn open_linked(storage: &Storage, name: &RepositoryName, digest: &Digest) -> Result<Option<(File, u64)>, StorageError> {
    // Manifests are asked for as blobs by some clients that copy whole repositories.
    if !storage.links_blob(name, digest) && storage.manifest_type(name, digest)?.is_none() {
        return Ok(None);
    }
    storage.open_blob(digest)
}

fn describe(mut answer: Answer, digest: &Digest, etag: &str) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    headers.insert(header::ETAG, ascii(etag));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    answer
}

/// Digests, numbers and names that passed a grammar are header values.
pub(super) fn ascii(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("digests, numbers and checked names have no control characters")
}

async fn delete(asked: &Asked<'_>, name: RepositoryName, digest: Digest) -> Result<Answer, ApiError> {
    let storage = asked.state.storage.clone();
    let removed = blocking(move || {
        if is_referenced(&storage, &name, &digest)? {
            return Ok(None);
        }
        storage.unlink_blob(&name, &digest).map(Some)
    });
    match removed.await? {
        Some(true) => Ok(body::empty(StatusCode::ACCEPTED)),
        Some(false) => Err(ApiError::blob_unknown()),
        None => {
            let message = "a manifest of this repository needs the blob";
            Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message))
        }
    }
}

/// Whether a manifest of this repository mentions the blob.
fn is_referenced(storage: &Storage, name: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
    for manifest in storage.manifests(name)? {
        let Some(manifest) = storage.manifest(name, &manifest)? else { continue };
        let needle = digest.as_str().as_bytes();
        if manifest.bytes.windows(needle.len()).any(|window| window == needle) {
            return Ok(true);
        }
    }
    Ok(false)
}
