//! Images of ours in containerd, which runs the containers: handing them over, taking them back, and keeping both sides
//! the same.
//!
//! No byte of a layer is sent. containerd gets the documents of an image, adopts its layers from our snapshotter, and gets
//! the records that lead to it; everything is kept together by a lease until the last record stands. What comes of it
//! cannot be told from an image that containerd's own CRI pulled, except that the layers' blobs are not there.
//!
//! | step of [`Handover::after_pull`] | why there |
//! | --- | --- |
//! | lease | what follows is kept, and goes by itself should we die |
//! | config, with a label to the top layer | from now on the label keeps the layers, also those it knows already |
//! | layers, top first | one call when all are known |
//! | manifest, index | they lead to the config |
//! | records: ID, names | the image appears |
//! | its CRI shows it | containers are created from its memory |
//! | end of the lease | the records keep everything |
//!
//! Everything may be done again at any time, and is: it heals what was lost (`check`). Changes that others make in
//! containerd are repeated here within a second ([`Handover::run`]); what they did while nobody listened is undone, since
//! it cannot be told from an image that was never handed over.
//!
//! Source of truth: containerd `internal/cri/server/images/image_pull.go`, `core/unpack`, `core/metadata/gc.go`.
//!
//! Invariants, with a real containerd: `what_is_handed_over_runs_and_survives_collections`,
//! `what_others_change_in_containerd_is_repeated_here`, `a_ghost_is_found_and_healed`.

mod adopt;
mod belongs;
mod check;
mod client;
mod content;
mod error;
mod lease;
mod locks;
mod mirror;
mod plan;
mod records;
mod remove;
mod runtime;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use windlass_core::digest::Digest;
use windlass_store::{Store, StoreError};

use belongs::Targets;
use client::Client;
use lease::{Lease, Leases};
use locks::ImageLocks;
use plan::Plan;

pub use check::Checked;
pub use error::HandoverError;
pub use remove::Removal;
pub use runtime::Seen;

/// Longest name of a snapshotter or namespace (containerd `pkg/identifiers`).
const NAME_MAX_BYTES: usize = 76;

/// Where containerd is, and what we are called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// The namespace whose images the kubelet's containers use.
    pub namespace: String,
    /// The name under which containerd has us as a proxy plugin, and which its CRI uses.
    pub snapshotter: String,
}

impl HandoverConfig {
    /// The kubelet's namespace, and `windlass` as the snapshotter.
    pub fn new(socket: impl Into<PathBuf>) -> HandoverConfig {
        HandoverConfig { socket: socket.into(), namespace: "k8s.io".to_owned(), snapshotter: "windlass".to_owned() }
    }
}

/// Our side of one containerd; a cheap clone.
#[derive(Clone, Debug)]
pub struct Handover {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    store: Store,
    snapshotter: String,
    leases: Leases,
    locks: ImageLocks,
    targets: Targets,
    /// Names as containerd last told them, with the manifest or index that they lead to there.
    heard: Mutex<HashMap<String, Digest>>,
}

impl Handover {
    /// Prepares to talk to containerd, which need not run yet. Must be called within a runtime.
    ///
    /// # Errors
    /// [`HandoverError::Name`].
    pub fn connect(config: &HandoverConfig, store: Store) -> Result<Handover, HandoverError> {
        for (what, name) in [("the namespace", &config.namespace), ("the snapshotter", &config.snapshotter)] {
            if !is_identifier(name) {
                return Err(HandoverError::Name { what, name: name.clone() });
            }
        }
        let client = Client::new(&config.socket, &config.namespace)?;
        let snapshotter = config.snapshotter.clone();
        let (leases, locks, targets) = (Leases::default(), ImageLocks::default(), Targets::default());
        let heard = Mutex::default();
        Ok(Handover { inner: Arc::new(Inner { client, store, snapshotter, leases, locks, targets, heard }) })
    }

    /// The manifest or index to which a name leads in containerd, by its own word. To hand over what it has said itself
    /// would make the name anew where somebody removes it just then.
    pub(crate) fn heard(&self, name: &str) -> Option<Digest> {
        self.inner.heard().get(name).cloned()
    }

    /// containerd's version.
    ///
    /// # Errors
    /// [`HandoverError::Unreachable`] when it does not run.
    pub async fn version(&self) -> Result<String, HandoverError> {
        let client = &self.inner.client;
        Ok(client.answer("tell its version", client.version().version(client.request(()))).await?.version)
    }

    /// Makes an image of the store known to containerd, with all its names and pins as they are now; several images at
    /// once, and one image again and again. When it returns, containers can be created from it.
    ///
    /// Given up half-way, it leaves nothing that hinders the next, at most records that are right.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`] and [`StoreError::Damaged`] for what is not here or not whole; whatever containerd
    /// refuses.
    pub async fn after_pull(&self, image: &Digest) -> Result<Seen, HandoverError> {
        let began = Instant::now();
        let alone = self.inner.locks.lock(image).await;
        let Some(plan) = self.plan(image).await? else {
            return Err(StoreError::UnknownImage { name: image.to_string() }.into());
        };
        let lease = self.inner.leases.begin(&self.inner.client).await?;
        let mut done = self.hand_over(&plan, &lease).await.map(|()| Seen::NotYet);
        drop(alone);
        let handed_over = began.elapsed();
        if done.is_ok() {
            done = runtime::wait(&self.inner.client, &plan).await;
        }
        // The records keep everything now.
        drop(lease);
        if let Ok(seen) = &done {
            let layers = plan.chains.len();
            tracing::debug!(%image, layers, ?handed_over, took = ?began.elapsed(), ?seen, "handed to containerd");
        }
        done
    }

    /// What containerd is to be told of an image; `None` if it is not here.
    async fn plan(&self, image: &Digest) -> Result<Option<Plan>, HandoverError> {
        let (store, image, snapshotter) = (self.inner.store.clone(), image.clone(), self.inner.snapshotter.clone());
        blocking(move || {
            let Some(image) = store.find_id(&image)? else { return Ok(None) };
            match image.damage.clone() {
                Some(what) => Err(StoreError::Damaged { image: image.id, what }.into()),
                None => Plan::read(&store, &image, &snapshotter).map(Some),
            }
        })
        .await
    }

    async fn hand_over(&self, plan: &Plan, lease: &Lease) -> Result<(), HandoverError> {
        let client = &self.inner.client;
        content::put(client, lease.id(), &plan.config).await?;
        let documents = async {
            for document in &plan.documents {
                content::put(client, lease.id(), document).await?;
            }
            Ok(())
        };
        tokio::try_join!(adopt::adopt(&self.inner, lease.id(), plan), documents)?;
        for record in &plan.records {
            records::put(client, record, plan.pinned).await?;
        }
        Ok(())
    }
}

impl Inner {
    fn heard(&self) -> MutexGuard<'_, HashMap<String, Digest>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names as containerd takes them (`pkg/identifiers`): letters and digits, single `-`, `_` and `.` between them.
pub(crate) fn is_identifier(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    name.len() <= NAME_MAX_BYTES && name.split(['-', '_', '.']).all(is_word)
}

/// Work on the store, on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HandoverError> + Send + 'static,
) -> Result<T, HandoverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(HandoverError::Internal("work on the store ended early")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_containerd_takes() {
        for name in ["k8s.io", "windlass", "a-b_c.d", "A1"] {
            assert!(is_identifier(name), "{name}");
        }
        for name in ["", ".", "a..b", "-a", "a-", "a b", "a/b", "\u{e9}", &"a".repeat(77)] {
            assert!(!is_identifier(name), "{name}");
        }
    }
}
