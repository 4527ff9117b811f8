//! Layers of ours become snapshots in containerd's own books, without a byte of them being moved.
//!
//! containerd asks our snapshotter for each, hears that it exists, and notes it under its chain ID. It does so only on top
//! of a layer that it knows. Which is the highest known one is found by halves, the top first: when all are known, one
//! call is enough. When not, our snapshotter's records of all of them are written first, in one go: then each answer to
//! containerd is a look-up and not a transaction.
//!
//! Source of truth: containerd `core/metadata/snapshot.go` (`createSnapshot`), `core/unpack/unpacker.go`.

use std::time::Duration;

use tonic::Code;
use windlass_core::digest::Digest;
use windlass_proto::containerd::services::snapshots::v1::{
    ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};

use super::client::{ANSWER_MAX, Client, LeaseId, extend};
use super::lease::unique;
use super::plan::Plan;
use super::{HandoverError, Inner, blocking};

/// The label that asks for a layer (containerd `core/snapshots/snapshotter.go`).
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// How often it is begun anew when lower layers went away meanwhile: a collection may do that once.
const TRIES: usize = 3;
/// Longest wait for one layer: it waits for our own store, which may be extracting to a slow disk.
const ADOPTION_MAX: Duration = Duration::from_secs(60);

/// What containerd made of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It knows it, since long or since now.
    Known,
    /// It does not know the layer below.
    ParentUnknown,
}

/// Makes all layers of an image known to containerd.
pub(super) async fn adopt(inner: &Inner, lease: &LeaseId, plan: &Plan) -> Result<(), HandoverError> {
    let (client, snapshotter, chains) = (&inner.client, inner.snapshotter.as_str(), plan.chains.as_slice());
    let Some(top) = chains.len().checked_sub(1) else { return Ok(()) };
    for _ in 0..TRIES {
        if ask(client, lease, snapshotter, chains, top).await? == Asked::Known {
            return Ok(());
        }
        let (snapshots, top_chain) = (inner.store.snapshots(), chains[top].clone());
        blocking(move || snapshots.rebuild(&top_chain).map_err(|error| HandoverError::Snapshots(Box::new(error))))
            .await?;
        // All below `known` are known, `unknown` and all above are not.
        let (mut known, mut unknown) = (0, top);
        while known < unknown {
            let middle = known.midpoint(unknown);
            match ask(client, lease, snapshotter, chains, middle).await? {
                Asked::Known => known = middle + 1,
                Asked::ParentUnknown => unknown = middle,
            }
        }
        let mut at = known;
        while at <= top && ask(client, lease, snapshotter, chains, at).await? == Asked::Known {
            at += 1;
        }
        if at > top {
            return Ok(());
        }
    }
    Err(HandoverError::Restless { image: plan.id.clone() })
}

async fn ask(
    client: &Client,
    lease: &LeaseId,
    snapshotter: &str,
    chains: &[Digest],
    at: usize,
) -> Result<Asked, HandoverError> {
    const ADOPT: &str = "adopt a layer";
    let chain = &chains[at];
    let key = format!("extract-{} {chain}", unique());
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.clone(),
        parent: at.checked_sub(1).map(|below| chains[below].to_string()).unwrap_or_default(),
        labels: [(SNAPSHOT_REF.to_owned(), chain.to_string())].into(),
    };
    let request = client.leased(request, lease);
    match client.within(ADOPTION_MAX, ADOPT, client.snapshots().prepare(request)).await? {
        Err(status) if status.code() == Code::AlreadyExists => Ok(Asked::Known),
        Err(status) if status.code() == Code::NotFound && at > 0 => Ok(Asked::ParentUnknown),
        Err(status) => Err(client.error(ADOPT, &status)),
        Ok(_) => {
            let request = client.request(RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key });
            client.answer("remove a snapshot", client.snapshots().remove(request)).await?;
            Err(HandoverError::NotHeld { snapshotter: snapshotter.to_owned(), chain: chain.clone() })
        }
    }
}

/// Names of the snapshots that containerd has of our snapshotter.
pub(super) async fn known(client: &Client, snapshotter: &str) -> Result<Vec<String>, HandoverError> {
    const LIST: &str = "list its snapshots";
    let all = async {
        let request = ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), filters: Vec::new() };
        let mut answers = client.snapshots().list(client.request(request)).await?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            extend(&mut all, answer.info.into_iter().map(|info| info.name))?;
        }
        Ok(tonic::Response::new(all))
    };
    client.within(ANSWER_MAX, LIST, all).await?.map_err(|status| client.error(LIST, &status))
}
