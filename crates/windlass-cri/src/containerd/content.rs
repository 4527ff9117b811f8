//! Blobs in containerd: writing one with its labels, and reading what others wrote.
//!
//! A blob that is there already is opened for writing all the same: that puts it under our lease.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use windlass_core::digest::Digest;
use windlass_proto::containerd::services::content::v1::{
    Info, InfoRequest, ListContentRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};

use super::HandoverError;
use super::client::{ANSWER_MAX, Client, LeaseId, extend};
use super::plan::{Blob, Labels, joined};

/// Bytes of a blob in one message; containerd's own client sends 8 MiB at most.
const PIECE_BYTES: usize = 1 << 20;
/// First and longest wait while somebody else writes the same blob, as in containerd (`core/content/helpers.go`).
const LOCKED_WAIT: (Duration, Duration) = (Duration::from_millis(8), Duration::from_secs(2));
/// How often a locked blob is tried: half a minute together.
const LOCKED_TRIES: u32 = 24;

/// Puts a blob under the lease, with all its labels.
pub(super) async fn put(client: &Client, lease: &LeaseId, blob: &Blob) -> Result<(), HandoverError> {
    let mut wait = LOCKED_WAIT.0;
    for _ in 0..LOCKED_TRIES {
        match write(client, lease, blob).await? {
            Written::Now => return Ok(()),
            Written::Before => return label(client, blob).await,
            Written::Locked => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(LOCKED_WAIT.1);
    }
    let text = format!("{} is being written by somebody else", blob.reference);
    Err(HandoverError::Refused { action: WRITE, code: Code::Unavailable.description(), text })
}

const WRITE: &str = "take a blob";

enum Written {
    /// By us, with its labels.
    Now,
    /// It was there.
    Before,
    /// Somebody else is at it.
    Locked,
}

async fn write(client: &Client, lease: &LeaseId, blob: &Blob) -> Result<Written, HandoverError> {
    match tokio::time::timeout(ANSWER_MAX, exchange(client, lease, blob)).await {
        Ok(Ok(())) => Ok(Written::Now),
        Ok(Err(status)) if status.code() == Code::AlreadyExists => Ok(Written::Before),
        Ok(Err(status)) if is_locked(&status) => Ok(Written::Locked),
        Ok(Err(status)) => Err(client.error(WRITE, &status)),
        Err(_) => Err(HandoverError::Timeout { action: WRITE, seconds: ANSWER_MAX.as_secs() }),
    }
}

/// A refusal by containerd itself, and no lost connection.
fn is_locked(status: &Status) -> bool {
    status.code() == Code::Unavailable && std::error::Error::source(status).is_none()
}

/// The conversation of one write: how far the blob is, the rest of it, the commit.
async fn exchange(client: &Client, lease: &LeaseId, blob: &Blob) -> Result<(), Status> {
    let (send, receive) = mpsc::channel(1);
    let total = blob.bytes.len();
    let message = |action: WriteAction, offset: usize, data: &[u8]| WriteContentRequest {
        action: action.into(),
        r#ref: blob.reference.clone(),
        total: total as i64,
        expected: blob.digest.to_string(),
        offset: offset as i64,
        data: data.to_vec(),
        labels: Default::default(),
    };
    let gone = |_| Status::unavailable("the write was not finished");
    send.send(message(WriteAction::Stat, 0, &[])).await.map_err(gone)?;
    let request = client.leased(ReceiverStream::new(receive), lease);
    let mut answers = client.content().write(request).await?.into_inner();
    // What an earlier try, or another namespace, has of it is not sent again.
    let offset = usize::try_from(next(&mut answers).await?.offset).unwrap_or(0);
    let mut offset = if offset <= total { offset } else { 0 };
    while offset < total {
        let piece = &blob.bytes[offset..(offset + PIECE_BYTES).min(total)];
        send.send(message(WriteAction::Write, offset, piece)).await.map_err(gone)?;
        next(&mut answers).await?;
        offset += piece.len();
    }
    let labels = blob.labels.iter().chain(&blob.sources).map(|(key, value)| (key.clone(), value.clone())).collect();
    let commit = WriteContentRequest { labels, ..message(WriteAction::Commit, total, &[]) };
    send.send(commit).await.map_err(gone)?;
    next(&mut answers).await?;
    Ok(())
}

async fn next(answers: &mut Streaming<WriteContentResponse>) -> Result<WriteContentResponse, Status> {
    answers.message().await?.ok_or_else(|| Status::unavailable("the answers ended early"))
}

/// Gives a blob that is there the labels it lacks; labels of others stay.
async fn label(client: &Client, blob: &Blob) -> Result<(), HandoverError> {
    let request = client.request(InfoRequest { digest: blob.digest.to_string() });
    let info = client.answer("tell of a blob", client.content().info(request)).await?.info.unwrap_or_default();
    let mut labels = blob.labels.clone();
    for (key, ours) in &blob.sources {
        labels.insert(key.clone(), joined(key, info.labels.get(key).map_or("", String::as_str), ours));
    }
    labels.retain(|key, value| info.labels.get(key) != Some(value));
    update(client, &blob.digest, labels).await
}

/// Sets these labels of a blob.
async fn update(client: &Client, digest: &Digest, labels: Labels) -> Result<(), HandoverError> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Info { digest: digest.to_string(), labels: labels.into_iter().collect(), ..Info::default() };
    let update = UpdateRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }) };
    client.answer("label a blob", client.content().update(client.request(update))).await.map(drop)
}

/// Every blob of the namespace with its labels.
pub(super) async fn list(client: &Client) -> Result<Vec<Info>, HandoverError> {
    const LIST: &str = "list its blobs";
    let all = async {
        let mut answers = client.content().list(client.request(ListContentRequest::default())).await?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            extend(&mut all, answer.info)?;
        }
        Ok(tonic::Response::new(all))
    };
    client.within(ANSWER_MAX, LIST, all).await?.map_err(|status| client.error(LIST, &status))
}

/// Reads a blob of at most `max_bytes`; `None` if it is not there, or larger, or not what its digest says.
pub(super) async fn read(client: &Client, digest: &Digest, max_bytes: u64) -> Result<Option<Vec<u8>>, HandoverError> {
    const READ: &str = "give a blob";
    let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let whole = async {
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut answers = client.content().read(client.request(request)).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(answer) = answers.message().await? {
            if bytes.len() + answer.data.len() > max_bytes {
                return Ok(tonic::Response::new(None));
            }
            bytes.extend_from_slice(&answer.data);
        }
        Ok(tonic::Response::new(Some(bytes)))
    };
    match client.within(ANSWER_MAX, READ, whole).await? {
        // A manifest or an index of a few KiB: hashing it costs less than a change of threads.
        Ok(bytes) => Ok(bytes.filter(|bytes| digest.algorithm().digest(bytes) == *digest)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(client.error(READ, &status)),
    }
}
