//! Uploads: in one request, in chunks, or by mounting what another repository has.
//!
//! Bytes go through a short queue to a blocking thread that hashes and writes them; the async side only moves
//! them. A client that goes away ends the queue, and the session stays at its true offset.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use windlass_core::digest::{Algorithm, Digest};

use super::blobs::ascii;
use super::{Asked, CONTENT_DIGEST};
use crate::access::Action;
use crate::body::{self, Answer};
use crate::error::{ApiError, ErrorCode};
use crate::range;
use crate::route::{RepositoryName, RouteError, UploadId};
use crate::storage::{Storage, StorageError, Upload, Writer, blocking};

/// Pieces of a body waiting to be written: enough that reading and writing overlap, and few enough that a slow
/// disk slows the client and not our memory.
const QUEUE_PIECES: usize = 8;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST `/v2/<name>/blobs/uploads/`.
pub(super) async fn begin(asked: &Asked<'_>, name: RepositoryName, body: Incoming) -> Result<Answer, ApiError> {
    if asked.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    asked.allow(&name, &[Action::Pull, Action::Push])?;
    if let Some(mounted) = mount(asked, &name).await? {
        return Ok(mounted);
    }
    let want = asked.query.first("digest").map(parse_digest).transpose()?;
    let algorithm = match (&want, asked.query.first("digest-algorithm")) {
        (Some(want), _) => want.algorithm(),
        (None, None | Some("sha256")) => Algorithm::Sha256,
        (None, Some("sha512")) => Algorithm::Sha512,
        (None, Some(_)) => {
            let message = "digest-algorithm is neither sha256 nor sha512";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, message));
        }
    };
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| StorageError::Stopped)?;
    let id = UploadId::from_random(u128::from_be_bytes(id));
    let storage = asked.state.storage.clone();
    let (repository, owner) = (name.clone(), asked.caller.identity.clone());
    let upload = blocking(move || storage.begin_upload(id, &repository, &owner, algorithm)).await?;
    match want {
        None => Ok(progress(StatusCode::ACCEPTED, &name, &upload, 0)),
        Some(want) => {
            let writer = append(asked, &upload, body).await?;
            commit(asked, &name, upload, writer, want).await
        }
    }
}

/// Links a blob of another repository, where the caller may read that one. `None`: upload it instead; whether it
/// exists elsewhere is not told.
async fn mount(asked: &Asked<'_>, name: &RepositoryName) -> Result<Option<Answer>, ApiError> {
    let (Some(digest), Some(from)) = (asked.query.first("mount"), asked.query.first("from")) else { return Ok(None) };
    let digest = parse_digest(digest)?;
    let Ok(from) = RepositoryName::parse(from) else { return Ok(None) };
    if !asked.state.gate.may(&asked.caller, &from, &[Action::Pull]) {
        return Ok(None);
    }
    let storage = asked.state.storage.clone();
    let (target, wanted) = (name.clone(), digest.clone());
    let mounted = blocking(move || {
        let there = storage.links_blob(&from, &wanted) && storage.open_blob(&wanted)?.is_some();
        if there {
            storage.link_blob(&target, &wanted)?;
        }
        Ok(there)
    });
    Ok(mounted.await?.then(|| created(name, &digest)))
}

/// Everything under `/v2/<name>/blobs/uploads/<id>`.
pub(super) async fn go_on(
    asked: &Asked<'_>,
    name: RepositoryName,
    id: UploadId,
    body: Incoming,
) -> Result<Answer, ApiError> {
    asked.allow(&name, &[Action::Pull, Action::Push])?;
    let upload = asked.state.storage.upload(&id, &name, &asked.caller.identity)?;
    match asked.method {
        Method::GET | Method::HEAD => {
            let written = upload.written_bytes().ok_or(StorageError::Busy)?;
            Ok(progress(StatusCode::NO_CONTENT, &name, &upload, written))
        }
        Method::PATCH => {
            check_offset(asked, &name, &upload)?;
            let writer = append(asked, &upload, body).await?;
            let written = writer.written_bytes();
            upload.give_back(writer);
            Ok(progress(StatusCode::ACCEPTED, &name, &upload, written))
        }
        Method::PUT => {
            let want = asked.query.first("digest").unwrap_or_default();
            let want = parse_digest(want)?;
            check_offset(asked, &name, &upload)?;
            let writer = append(asked, &upload, body).await?;
            commit(asked, &name, upload, writer, want).await
        }
        Method::DELETE => {
            asked.state.storage.end_upload(&upload);
            Ok(body::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    Ok(Digest::parse(text).map_err(RouteError::Digest)?)
}

/// A chunk must begin where the upload stands, and be as long as it says.
fn check_offset(asked: &Asked<'_>, name: &RepositoryName, upload: &Upload) -> Result<(), ApiError> {
    let Some(header) = asked.header(header::CONTENT_RANGE) else { return Ok(()) };
    let written = upload.written_bytes().ok_or(StorageError::Busy)?;
    let length = asked.header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let fits = range::chunk(header).is_some_and(|(first, last)| {
        first == written && length.is_none_or(|length| length.checked_sub(1) == Some(last - first))
    });
    if fits {
        return Ok(());
    }
    let message = "the chunk does not begin where the upload stands";
    let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message);
    Err(error
        .with(header::LOCATION, ascii(&location(name, upload)))
        .with(header::RANGE, ascii(&written_range(written)))
        .with(UPLOAD_UUID, ascii(upload.id.as_str())))
}

/// Appends a body to a session and hands over the right to write, so that nobody writes between this and what the
/// caller does next. When this fails the session holds what arrived, or is gone if the disk failed.
async fn append(asked: &Asked<'_>, upload: &Arc<Upload>, mut body: Incoming) -> Result<Writer, ApiError> {
    let lease = WriterLease::take(upload.clone(), asked.state.storage.clone())?;
    let (queue, pieces) = mpsc::channel(QUEUE_PIECES);
    let writing = tokio::task::spawn_blocking(move || write_all(lease, pieces));
    let fed = feed(&mut body, &queue, asked.state.config.limits.idle).await;
    drop(queue);
    let lease = match writing.await {
        Ok(written) => written?,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return Err(StorageError::Stopped.into()),
    };
    match fed {
        Ok(()) => Ok(lease.keep()),
        Err(error) => Err(error),
    }
}

/// Moves a body into the queue until its end. A full queue whose reader is gone means the writer failed, which it
/// reports itself.
async fn feed(body: &mut Incoming, queue: &mpsc::Sender<Bytes>, idle: Duration) -> Result<(), ApiError> {
    loop {
        let frame = match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                let message = "the body was cut off";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, message));
            }
            Err(_) => {
                let message = "no bytes arrived for too long";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid, message));
            }
        };
        let Ok(piece) = frame.into_data() else { continue };
        if queue.send(piece).await.is_err() {
            return Ok(());
        }
    }
}

/// On a blocking thread: hashes and writes what comes.
fn write_all(mut lease: WriterLease, mut pieces: mpsc::Receiver<Bytes>) -> Result<WriterLease, StorageError> {
    while let Some(piece) = pieces.blocking_recv() {
        if let Err(error) = lease.write(&piece) {
            lease.spoil();
            return Err(error);
        }
    }
    Ok(lease)
}

/// The right to write to a session, given back when dropped, whatever happens to the request.
struct WriterLease {
    upload: Arc<Upload>,
    storage: Arc<Storage>,
    writer: Option<Writer>,
}

impl WriterLease {
    fn take(upload: Arc<Upload>, storage: Arc<Storage>) -> Result<WriterLease, StorageError> {
        let writer = Some(upload.take_writer()?);
        Ok(WriterLease { upload, storage, writer })
    }

    fn write(&mut self, piece: &Bytes) -> Result<(), StorageError> {
        self.writer.as_mut().map_or(Err(StorageError::Busy), |writer| writer.write(piece))
    }

    /// The session cannot go on.
    fn spoil(&mut self) {
        self.writer = None;
        self.storage.end_upload(&self.upload);
    }

    fn keep(mut self) -> Writer {
        self.writer.take().expect("a lease that was not spoiled holds its writer until it is dropped")
    }
}

impl Drop for WriterLease {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.upload.give_back(writer);
        }
    }
}

async fn commit(
    asked: &Asked<'_>,
    name: &RepositoryName,
    upload: Arc<Upload>,
    writer: Writer,
    want: Digest,
) -> Result<Answer, ApiError> {
    let storage = asked.state.storage.clone();
    let digest = want.clone();
    blocking(move || storage.commit_upload(&upload, writer, &digest)).await?;
    Ok(created(name, &want))
}

fn created(name: &RepositoryName, digest: &Digest) -> Answer {
    let mut answer = body::empty(StatusCode::CREATED);
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, ascii(&format!("/v2/{name}/blobs/{digest}")));
    headers.insert(CONTENT_DIGEST, ascii(digest.as_str()));
    answer
}

fn location(name: &RepositoryName, upload: &Upload) -> String {
    format!("/v2/{name}/blobs/uploads/{}", upload.id.as_str())
}

/// `0-<last>`; with nothing written it is `0-0`, as clients know it from distribution.
fn written_range(written_bytes: u64) -> String {
    format!("0-{}", written_bytes.saturating_sub(1))
}

fn progress(status: StatusCode, name: &RepositoryName, upload: &Upload, written_bytes: u64) -> Answer {
    let mut answer = body::empty(status);
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, ascii(&location(name, upload)));
    headers.insert(header::RANGE, HeaderValue::try_from(written_range(written_bytes)).unwrap_or(ascii("0-0")));
    headers.insert(UPLOAD_UUID, ascii(upload.id.as_str()));
    answer
}
