//! Images that are always here: pulled at start, looked up again from time to time, and pinned.
//!
//! In: the list of the configuration, which may change. Out: each image pulled as under the policy Always, with a pin of
//! the source `config`; an image that leaves the list, or that its tag has left, loses that pin. What fails is tried
//! again with the kubelet's back-off.
//!
//! Invariants: `what_is_new_on_the_list_is_due_at_once`; and with the whole daemon (in the command's tests)
//! `pinned_images_come_by_a_changed_file_and_go_by_another`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_core::backoff::{Backoff, BackoffKey};
use windlass_core::digest::Digest;
use windlass_core::keyring::Mode;
use windlass_core::pin::PinSource;
use windlass_core::reason::{Reason, chain};
use windlass_pull::events::Silent;
use windlass_pull::{Credentials, PullOptions, PullRequest};
use windlass_store::{Store, StoreError};

use crate::daemon::{Daemon, locked};
use crate::rows::shortened;
use crate::status::PinnedRow;

/// Pinned images that are looked up at the same time: they must not keep pods' images waiting.
const AT_ONCE: usize = 3;
/// The reason in the store's pin.
const WHY: &str = "listed in node.pinnedImages";
/// The back-off's word for whom it is tried.
const WHO: &str = "config";

/// When each image of the list is looked up next.
#[derive(Debug, Default)]
struct Plan {
    due: BTreeMap<String, Instant>,
}

/// What became of one look-up.
struct Looked {
    image: String,
    result: Result<Digest, (Reason, String)>,
}

/// Keeps the images of the list here until told to stop.
pub(crate) async fn run(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut changes = daemon.tunables.subscribe();
    let mut plan = Plan::default();
    let mut backoff = Backoff::default();
    let began = Instant::now();
    let mut running = JoinSet::new();
    changes.mark_changed();
    loop {
        if changes.has_changed().unwrap_or(false) {
            let listed = changes.borrow_and_update().pinned_images.clone();
            plan.take(&listed, Instant::now());
            daemon.list_pinned(&listed);
            daemon.unpin_others().await;
        }
        while running.len() < AT_ONCE
            && let Some(image) = plan.next(Instant::now())
        {
            daemon.see_pinned(&image, |row| row.state = "pulling".to_owned());
            running.spawn_on(look_up(daemon.clone(), image, stop.clone()), &daemon.pulls);
        }
        let next = plan.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = changes.changed() => changes.mark_changed(),
            Some(done) = running.join_next(), if !running.is_empty() => {
                let Ok(Looked { image, result }) = done else { continue };
                let every = daemon.tunables().pinned_check_every;
                let wait = match &result {
                    Ok(_) => { backoff.succeeded(began.elapsed()); every }
                    Err((_, why)) => backoff.failed(&BackoffKey::new(WHO, &image), began.elapsed(), Some(why.clone())),
                };
                plan.again(&image, Instant::now() + wait);
                daemon.looked_up(&image, result, wait).await;
            }
            () = tokio::time::sleep_until(next), if running.len() < AT_ONCE => {}
        }
    }
    while running.join_next().await.is_some() {}
}

impl Plan {
    /// The list as it is now; what is new is due at once.
    fn take(&mut self, listed: &[String], now: Instant) {
        self.due.retain(|image, _| listed.contains(image));
        for image in listed {
            self.due.entry(image.clone()).or_insert(now);
        }
    }

    /// An image that is due. It is not due again until [`Plan::again`].
    fn next(&mut self, now: Instant) -> Option<String> {
        let (image, due) = self.due.iter_mut().filter(|(_, due)| **due <= now).min_by_key(|(_, due)| **due)?;
        // Far enough: a look-up says when it is due again.
        *due = now + Duration::from_secs(365 * 24 * 3600);
        Some(image.clone())
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    fn again(&mut self, image: &str, at: Instant) {
        if let Some(due) = self.due.get_mut(image) {
            *due = at;
        }
    }
}

/// Pulls one image, as under the policy Always, and pins it.
async fn look_up(daemon: Arc<Daemon>, image: String, stop: CancellationToken) -> Looked {
    let result = look_up_now(&daemon, &image, &stop).await;
    Looked { image, result }
}

async fn look_up_now(daemon: &Daemon, image: &str, stop: &CancellationToken) -> Result<Digest, (Reason, String)> {
    let _place = daemon.drain.enter().ok_or_else(|| (Reason::Canceled, "the daemon is ending".to_owned()))?;
    let request = PullRequest {
        image: image.to_owned(),
        mode: Mode::Windlass,
        credentials: Credentials::Sources,
        options: PullOptions { cancel: stop.clone(), ..PullOptions::default() },
    };
    let report = daemon.engine.pull(request, Arc::new(Silent)).await;
    let report = report.map_err(|error| (error.reason(), error.chain()))?;
    let (store, name, id) = (daemon.engine.store().clone(), image.to_owned(), report.id.clone());
    daemon.in_store(move || pin(&store, &name, &id)).await?;
    let told = daemon.images.pulled(&report.id).await;
    told.map_err(|status| (Reason::Internal, format!("the image is here, and containerd does not know it: {status}")))?;
    Ok(report.id)
}

/// Pins the image, unless it has this pin already: a new pin would forget since when.
fn pin(store: &Store, name: &str, id: &Digest) -> Result<(), StoreError> {
    let source = PinSource::config();
    let is_pinned = store.find_id(id)?.is_some_and(|image| image.pins.iter().any(|pin| pin.source == source));
    if !is_pinned {
        store.pin(name, &source, WHY)?;
    }
    Ok(())
}

impl Daemon {
    /// The rows of the list as it is now; what is known of an image stays.
    fn list_pinned(&self, listed: &[String]) {
        let mut rows = locked(&self.pinned);
        let mut known: BTreeMap<String, PinnedRow> = rows.drain(..).map(|row| (row.image.clone(), row)).collect();
        for image in listed {
            let new = || PinnedRow {
                image: image.clone(),
                state: "waiting".to_owned(),
                id: None,
                checked: None,
                next_check: None,
                problem: None,
            };
            let row = known.remove(image).unwrap_or_else(new);
            if !rows.iter().any(|row| row.image == *image) {
                rows.push(row);
            }
        }
        self.count_pinned(&rows);
    }

    fn see_pinned(&self, image: &str, change: impl FnOnce(&mut PinnedRow)) {
        let mut rows = locked(&self.pinned);
        if let Some(row) = rows.iter_mut().find(|row| row.image == image) {
            change(row);
        }
        self.count_pinned(&rows);
    }

    fn count_pinned(&self, rows: &[PinnedRow]) {
        self.metrics.set_pinned(rows.len(), rows.iter().filter(|row| row.id.is_none()).count());
    }

    /// Takes in what became of a look-up.
    async fn looked_up(&self, image: &str, result: Result<Digest, (Reason, String)>, wait: Duration) {
        let now = Timestamp::now();
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let next_check = now.checked_add(wait).ok();
        match result {
            Ok(id) => {
                self.see_pinned(image, |row| {
                    row.state = "here".to_owned();
                    row.id = Some(id.to_string());
                    (row.checked, row.next_check, row.problem) = (Some(now), next_check, None);
                });
                self.unpin_others().await;
            }
            Err((reason, why)) => {
                tracing::warn!(image, %reason, error = why.as_str(), "a pinned image is not up to date");
                self.see_pinned(image, |row| {
                    row.state = "failed".to_owned();
                    (row.checked, row.next_check) = (Some(now), next_check);
                    row.problem = Some(shortened(why));
                });
            }
        }
    }

    /// Takes the configuration's pin from every image that no name of the list means.
    async fn unpin_others(&self) {
        let listed: Vec<String> = locked(&self.pinned).iter().map(|row| row.image.clone()).collect();
        let store = self.engine.store().clone();
        let unpinned = self.in_store(move || unpin_others(&store, &listed)).await;
        match unpinned {
            Ok(ids) => {
                for id in ids {
                    // Whoever shows images shows the pin too.
                    if let Err(status) = self.images.pulled(&id).await {
                        tracing::warn!(%id, error = %status, "that an image is not pinned any more is not known everywhere");
                    }
                }
            }
            Err((_, why)) => {
                tracing::warn!(error = why.as_str(), "pins of images that left the list were not taken back")
            }
        }
    }

    /// Work on the store, off the async threads.
    pub(crate) async fn in_store<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, (Reason, String)> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| (error.reason(), chain(&error))),
            Err(_) => Err((Reason::Internal, "a worker ended without a result".to_owned())),
        }
    }
}

fn unpin_others(store: &Store, listed: &[String]) -> Result<Vec<Digest>, StoreError> {
    let source = PinSource::config();
    // A name that cannot be parsed means no image; its pull says so.
    let meant: Vec<Digest> =
        listed.iter().filter_map(|name| store.find(name).ok().flatten()).map(|image| image.id).collect();
    let mut unpinned = Vec::new();
    for image in store.images()? {
        let is_pinned = image.pins.iter().any(|pin| pin.source == source);
        if is_pinned && !meant.contains(&image.id) && store.unpin(image.id.as_str(), &source)? {
            unpinned.push(image.id);
        }
    }
    Ok(unpinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_new_on_the_list_is_due_at_once() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        plan.take(&list(&["a", "b"]), now);
        assert_eq!((plan.next(now), plan.next(now), plan.next(now)), (Some("a".into()), Some("b".into()), None));
        plan.again("a", now + Duration::from_secs(60));
        // One that goes and comes back is new; one that stays keeps its time.
        plan.take(&list(&["a", "c"]), now);
        assert_eq!((plan.next(now), plan.next(now)), (Some("c".into()), None));
        plan.again("b", now);
        assert_eq!(plan.next(now), None, "what left the list is not looked up");
        assert_eq!(plan.next_due(), Some(now + Duration::from_secs(60)));
        assert_eq!(plan.next(now + Duration::from_secs(60)).as_deref(), Some("a"));
    }
}
