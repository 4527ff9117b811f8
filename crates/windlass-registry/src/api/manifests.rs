//! Manifests: GET and HEAD byte for byte, PUT after a check, DELETE of tags and manifests.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use windlass_core::digest::{Algorithm, Digest};

use super::blobs::ascii;
use super::{Asked, CONTENT_DIGEST, lists_etag, manifest_check};
use crate::access::Action;
use crate::body::{self, Answer, AnswerBody};
use crate::error::{ApiError, ErrorCode};
use crate::route::{RepositoryName, Tag, TagOrDigest};
use crate::storage::{Storage, StorageError, StoredManifest, blocking};

/// Longest media type. RFC 6838 allows 127 characters on either side of the slash.
const MEDIA_TYPE_MAX_BYTES: usize = 255;

/// Most tags that one push may set. The specification asks for at least 10.
const TAGS_PER_PUSH_MAX: usize = 32;

pub(super) async fn serve(
    asked: &Asked<'_>,
    name: RepositoryName,
    reference: TagOrDigest,
    body: Incoming,
) -> Result<Answer, ApiError> {
    match asked.method {
        Method::GET | Method::HEAD => {
            asked.allow(&name, &[Action::Pull])?;
            get(asked, name, reference).await
        }
        Method::PUT => {
            asked.allow(&name, &[Action::Pull, Action::Push])?;
            put(asked, name, reference, body).await
        }
        Method::DELETE => {
            asked.allow(&name, &[Action::Delete])?;
            asked.deletes_are_on()?;
            delete(asked, name, reference).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn get(asked: &Asked<'_>, name: RepositoryName, reference: TagOrDigest) -> Result<Answer, ApiError> {
    let storage = asked.state.storage.clone();
    let found = blocking(move || find(&storage, &name, &reference)).await?;
    let StoredManifest { digest, media_type, bytes } = found.ok_or_else(ApiError::manifest_unknown)?;
    let etag = format!("\"{digest}\"");
    let mut answer = body::empty(StatusCode::OK);
    if asked.has_etag(&etag) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *answer.body_mut() = AnswerBody::Bytes(bytes);
    }
    let headers = answer.headers_mut();
    headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    headers.insert(header::ETAG, ascii(&etag));
    if let Ok(media_type) = HeaderValue::try_from(media_type) {
        headers.insert(header::CONTENT_TYPE, media_type);
    }
    Ok(answer)
}

fn find(
    storage: &Storage,
    name: &RepositoryName,
    reference: &TagOrDigest,
) -> Result<Option<StoredManifest>, StorageError> {
    match reference {
        TagOrDigest::Digest(digest) => storage.manifest(name, digest),
        TagOrDigest::Tag(tag) => match storage.tag(name, tag)? {
            Some(digest) => storage.manifest(name, &digest),
            None => Ok(None),
        },
    }
}

/// A push, read and parsed, before it is judged.
struct Push {
    name: RepositoryName,
    media_type: String,
    bytes: Bytes,
    want: Option<Digest>,
    tags: Vec<Tag>,
    if_match: Option<String>,
}

async fn put(
    asked: &Asked<'_>,
    name: RepositoryName,
    reference: TagOrDigest,
    body: Incoming,
) -> Result<Answer, ApiError> {
    let media_type = media_type(asked)?;
    let (want, mut tags) = match reference {
        TagOrDigest::Digest(digest) => (Some(digest), Vec::new()),
        TagOrDigest::Tag(tag) => (None, vec![tag]),
    };
    let from_query = want.is_some();
    if from_query {
        for tag in asked.query.all("tag") {
            tags.push(Tag::parse(tag)?);
        }
        if tags.len() > TAGS_PER_PUSH_MAX {
            let message = format!("more than {TAGS_PER_PUSH_MAX} tags");
            return Err(ApiError::new(StatusCode::URI_TOO_LONG, ErrorCode::ManifestInvalid, message));
        }
    }
    let limit_bytes = asked.state.config.limits.manifest_bytes;
    let bytes = read_whole(body, limit_bytes).await?;
    let if_match = asked.header(header::IF_MATCH).map(str::to_owned);
    let push = Push { name: name.clone(), media_type, bytes, want, tags: tags.clone(), if_match };
    let storage = asked.state.storage.clone();
    let accepted = blocking(move || accept(&storage, push, limit_bytes)).await?;
    let digest = accepted?;
    let mut answer = body::empty(StatusCode::CREATED);
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, ascii(&format!("/v2/{name}/manifests/{digest}")));
    headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    if from_query && !tags.is_empty() {
        let list = tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ");
        headers.insert(HeaderName::from_static("oci-tag"), ascii(&list));
    }
    Ok(answer)
}

/// The media type without its parameters.
fn media_type(asked: &Asked<'_>) -> Result<String, ApiError> {
    let value = asked.header(header::CONTENT_TYPE).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() || media_type.len() > MEDIA_TYPE_MAX_BYTES {
        return Err(ApiError::manifest_invalid("Content-Type is missing or too long"));
    }
    Ok(media_type.to_owned())
}

pub(super) async fn read_whole(body: Incoming, limit_bytes: u64) -> Result<Bytes, ApiError> {
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::SizeInvalid,
            format!("larger than {limit_bytes} bytes"),
        )),
        Err(_) => Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid, "the body was cut off")),
    }
}

/// Judges and stores. The outer error is ours, the inner one the client's.
fn accept(storage: &Storage, push: Push, limit_bytes: u64) -> Result<Result<Digest, ApiError>, StorageError> {
    let digest = match &push.want {
        None => Digest::sha256(&push.bytes),
        Some(want) => want.algorithm().digest(&push.bytes),
    };
    if push.want.as_ref().is_some_and(|want| *want != digest) {
        let message = format!("the manifest hashed to {digest}");
        return Ok(Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, message)));
    }
    let needed = match manifest_check::needed_blobs(&push.media_type, &push.bytes, limit_bytes) {
        Ok(needed) => needed,
        Err(what) => return Ok(Err(ApiError::manifest_invalid(what))),
    };
    for blob in &needed {
        if !storage.links_blob(&push.name, blob) {
            let message = format!("blob {blob} is not in this repository");
            return Ok(Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown, message)));
        }
    }
    if let (Some(condition), [tag]) = (&push.if_match, push.tags.as_slice()) {
        let current = storage.tag(&push.name, tag)?;
        if !current.is_some_and(|digest| lists_etag(condition, &format!("\"{digest}\""))) {
            let message = "the tag names another manifest";
            return Ok(Err(ApiError::new(StatusCode::PRECONDITION_FAILED, ErrorCode::ManifestInvalid, message)));
        }
    }
    storage.put_manifest(&push.name, &digest, &push.media_type, &push.bytes)?;
    if digest.algorithm() != Algorithm::Sha256 {
        // Reachable by the digest every client knows as well.
        let usual = Digest::sha256(&push.bytes);
        storage.put_manifest(&push.name, &usual, &push.media_type, &push.bytes)?;
    }
    for tag in &push.tags {
        storage.put_tag(&push.name, tag, &digest)?;
    }
    Ok(Ok(digest))
}

async fn delete(asked: &Asked<'_>, name: RepositoryName, reference: TagOrDigest) -> Result<Answer, ApiError> {
    let storage = asked.state.storage.clone();
    let removed = blocking(move || match &reference {
        TagOrDigest::Tag(tag) => storage.remove_tag(&name, tag),
        TagOrDigest::Digest(digest) => storage.remove_manifest(&name, digest),
    });
    if removed.await? { Ok(body::empty(StatusCode::ACCEPTED)) } else { Err(ApiError::manifest_unknown()) }
}
