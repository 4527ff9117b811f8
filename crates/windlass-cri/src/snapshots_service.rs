//! containerd's Snapshots service over the snapshots of the store: this is how containerd has us as a proxy plugin.
//!
//! In: the calls of containerd's proxy client. Out: mounts and records; a layer of ours that is asked for by its label is
//! answered with ALREADY_EXISTS and nothing is unpacked. Everything is known from the key: of the metadata that may come
//! along (`containerd-namespace`, `containerd-lease`) some versions send nothing.
//! The store blocks, so its work is done on threads that may. A call that its client gave up is finished all the same.
//!
//! Source of truth: containerd `api/services/snapshots/v1`, `core/snapshots/snapshotter.go`, `contrib/snapshotservice`.
//!
//! Invariants: `codes_are_those_that_containerd_acts_on`, `a_list_comes_in_messages_of_bounded_size`,
//! `masks_name_labels_and_nothing_else`, `a_client_of_containerd_gets_what_it_expects`.

use std::pin::Pin;

use axum::Router;
use futures_util::Stream;
use jiff::Timestamp;
use prost::Message as _;
use tonic::{Code, Request, Response, Status};
use windlass_core::reason;
use windlass_proto::containerd::services::snapshots::v1 as api;
use windlass_proto::containerd::services::snapshots::v1::snapshots_server::{Snapshots as Api, SnapshotsServer};
use windlass_proto::containerd::types::Mount;
use windlass_store::{
    LabelMask, Labels, Prepared, SnapshotError, SnapshotInfo, SnapshotKind, SnapshotMount, Snapshots, Store, StoreError,
};

use crate::containerd::is_identifier;
use crate::filter::{Filters, Subject};

/// Most bytes of one message, as in containerd's own clients (`defaults.DefaultMaxRecvMsgSize`).
const MESSAGE_MAX_BYTES: usize = 16 << 20;
/// Bytes after which a list goes on in another message. A snapshot with all the labels it may have is some MiB at most.
const PIECE_BYTES: usize = 1 << 20;
/// Snapshots after which it does, as in containerd (`contrib/snapshotservice`).
const PIECE_SNAPSHOTS: usize = 100;

/// The service; a cheap clone.
#[derive(Clone, Debug)]
pub struct SnapshotsService {
    snapshots: Snapshots,
}

impl SnapshotsService {
    /// Serves the snapshots of a store.
    pub fn new(store: &Store) -> SnapshotsService {
        SnapshotsService { snapshots: store.snapshots() }
    }

    /// Its routes. There is no fallback, so that others can be merged.
    pub fn router(&self) -> Router {
        let service = SnapshotsServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        Router::new().route_service("/containerd.services.snapshots.v1.Snapshots/{*call}", service)
    }

    /// Work on the snapshots, on a thread that may wait.
    async fn work<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce(&Snapshots) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Status> {
        let snapshots = self.snapshots.clone();
        let done = tokio::task::spawn_blocking(move || work(&snapshots)).await;
        let done = done.map_err(|_| Status::internal("the work ended early"))?;
        done.map_err(|error| {
            let status = status(&error);
            match status.code() {
                // Part of the protocol.
                Code::NotFound | Code::AlreadyExists | Code::InvalidArgument | Code::FailedPrecondition => {
                    tracing::debug!(call, error = %status.message(), "a snapshot was refused");
                }
                _ => tracing::error!(call, error = %status.message(), "a snapshot failed"),
            }
            status
        })
    }
}

/// What containerd makes of an error depends on the code alone.
fn status(error: &SnapshotError) -> Status {
    let code = match error {
        SnapshotError::AlreadyExists { .. } => Code::AlreadyExists,
        SnapshotError::NotFound { .. } => Code::NotFound,
        SnapshotError::InvalidArgument { .. } => Code::InvalidArgument,
        SnapshotError::FailedPrecondition { .. } => Code::FailedPrecondition,
        SnapshotError::Store(StoreError::NoSpace { .. }) => Code::ResourceExhausted,
        SnapshotError::Store(StoreError::Locked { .. }) => Code::Unavailable,
        SnapshotError::Store(StoreError::NotPermitted { .. }) => Code::PermissionDenied,
        // An enum of another crate: what comes later is a failure too.
        SnapshotError::Store(_) | _ => Code::Internal,
    };
    Status::new(code, reason::chain(error))
}

/// The name under which containerd has us is its own affair, as long as it is one.
fn check_snapshotter(name: &str) -> Result<(), Status> {
    match name.is_empty() || is_identifier(name) {
        true => Ok(()),
        false => Err(Status::invalid_argument("the snapshotter's name is not one")),
    }
}

/// An empty parent is none.
fn parent(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

fn mounts(mounts: Vec<SnapshotMount>) -> Vec<Mount> {
    let mount =
        |SnapshotMount { fs_type, source, options }| Mount { r#type: fs_type, source, target: String::new(), options };
    mounts.into_iter().map(mount).collect()
}

fn info(info: SnapshotInfo) -> api::Info {
    let kind = match info.kind {
        SnapshotKind::View => api::Kind::View,
        SnapshotKind::Active => api::Kind::Active,
        SnapshotKind::Committed => api::Kind::Committed,
    };
    api::Info {
        name: info.name,
        parent: info.parent.unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp(info.created)),
        updated_at: Some(timestamp(info.updated)),
        labels: info.labels.into_iter().collect(),
    }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    // Both count nanoseconds from the second before, but jiff counts them towards zero before 1970.
    let nanoseconds = at.as_nanosecond();
    let second = nanoseconds.div_euclid(1_000_000_000);
    prost_types::Timestamp {
        seconds: i64::try_from(second).unwrap_or_default(),
        nanos: i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// What an update is about: `labels.<key>`, or all labels. Nothing else of a snapshot can be changed.
fn mask(mask: Option<prost_types::FieldMask>) -> Result<LabelMask, Status> {
    let paths = mask.unwrap_or_default().paths;
    if paths.is_empty() || paths.iter().any(|path| path == "labels") {
        return Ok(LabelMask::All);
    }
    let key = |path: String| {
        let key = path.strip_prefix("labels.").filter(|key| !key.is_empty()).map(str::to_owned);
        key.ok_or_else(|| Status::invalid_argument("only labels of a snapshot can be changed"))
    };
    Ok(LabelMask::Keys(paths.into_iter().map(key).collect::<Result<_, _>>()?))
}

/// Those snapshots that are meant.
fn chosen(all: Vec<SnapshotInfo>, filters: &Filters) -> Vec<SnapshotInfo> {
    let is_meant = |info: &SnapshotInfo| {
        let kind = match info.kind {
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        };
        let parent = info.parent.as_deref().unwrap_or_default();
        filters.matches(&Subject { name: &info.name, parent, kind, labels: &info.labels })
    };
    all.into_iter().filter(is_meant).collect()
}

/// A list in messages of bounded size.
struct Pieces(std::iter::Peekable<std::vec::IntoIter<SnapshotInfo>>);

impl Pieces {
    fn new(infos: Vec<SnapshotInfo>) -> Pieces {
        Pieces(infos.into_iter().peekable())
    }
}

impl Iterator for Pieces {
    type Item = api::ListSnapshotsResponse;

    fn next(&mut self) -> Option<api::ListSnapshotsResponse> {
        self.0.peek()?;
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES && piece.len() < PIECE_SNAPSHOTS {
            let Some(next) = self.0.next().map(info) else { break };
            bytes += next.encoded_len();
            piece.push(next);
        }
        Some(api::ListSnapshotsResponse { info: piece })
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Api for SnapshotsService {
    type ListStream = Pin<Box<dyn Stream<Item = Result<api::ListSnapshotsResponse, Status>> + Send>>;

    async fn prepare(&self, request: Request<api::PrepareSnapshotRequest>) -> Answer<api::PrepareSnapshotResponse> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let labels: Labels = asked.labels.into_iter().collect();
        let prepared =
            self.work("Prepare", move |store| store.prepare(&asked.key, parent(&asked.parent), &labels)).await?;
        match prepared {
            Prepared::Mounts(found) => Ok(Response::new(api::PrepareSnapshotResponse { mounts: mounts(found) })),
            Prepared::Held => Err(Status::already_exists("the layer is here")),
        }
    }

    async fn view(&self, request: Request<api::ViewSnapshotRequest>) -> Answer<api::ViewSnapshotResponse> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let labels: Labels = asked.labels.into_iter().collect();
        let found = self.work("View", move |store| store.view(&asked.key, parent(&asked.parent), &labels)).await?;
        Ok(Response::new(api::ViewSnapshotResponse { mounts: mounts(found) }))
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Answer<api::MountsResponse> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let found = self.work("Mounts", move |store| store.mounts(&asked.key)).await?;
        Ok(Response::new(api::MountsResponse { mounts: mounts(found) }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Answer<()> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let labels: Labels = asked.labels.into_iter().collect();
        self.work("Commit", move |store| store.commit(&asked.name, &asked.key, &labels)).await.map(Response::new)
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Answer<()> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        self.work("Remove", move |store| store.remove(&asked.key)).await.map(Response::new)
    }

    async fn stat(&self, request: Request<api::StatSnapshotRequest>) -> Answer<api::StatSnapshotResponse> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let found = self.work("Stat", move |store| store.stat(&asked.key)).await?;
        Ok(Response::new(api::StatSnapshotResponse { info: Some(info(found)) }))
    }

    async fn update(&self, request: Request<api::UpdateSnapshotRequest>) -> Answer<api::UpdateSnapshotResponse> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let mask = mask(asked.update_mask)?;
        let given = asked.info.ok_or_else(|| Status::invalid_argument("no snapshot is named"))?;
        let labels: Labels = given.labels.into_iter().collect();
        let found = self.work("Update", move |store| store.update(&given.name, &labels, &mask)).await?;
        Ok(Response::new(api::UpdateSnapshotResponse { info: Some(info(found)) }))
    }

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let filters = Filters::parse(&asked.filters).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found = self.work("List", move |store| Ok(chosen(store.list()?, &filters))).await?;
        Ok(Response::new(Box::pin(futures_util::stream::iter(Pieces::new(found).map(Ok)))))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Answer<api::UsageResponse> {
        let asked = request.into_inner();
        check_snapshotter(&asked.snapshotter)?;
        let usage = self.work("Usage", move |store| store.usage(&asked.key)).await?;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Ok(Response::new(api::UsageResponse { size: number(usage.used_bytes), inodes: number(usage.inodes) }))
    }

    async fn cleanup(&self, request: Request<api::CleanupRequest>) -> Answer<()> {
        check_snapshotter(&request.into_inner().snapshotter)?;
        self.work("Cleanup", Snapshots::cleanup).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests;
