//! What a kubelet would do for every container of some pods, done.
//!
//! The decisions are `core::decide::ensure`, a machine that asks one question at a time; this module answers from
//! the store, the pull records, the pods' secrets and the registry, and carries out what it is told. Nothing is
//! decided here. Source of truth: kubernetes `pkg/kubelet/images/image_manager.go`.
//!
//! Equal images are taken one after the other, so that the second finds the first; different ones at the same time.
//! A canceled or dropped call leaves no intent behind and nothing half done.
//!
//! Invariants: `every_container_gets_what_a_kubelet_would_have_got`, `equal_images_are_pulled_once`,
//! `wait_goes_on_with_the_kubelets_backoff` (and holds nobody else up), `waiting_ends_at_the_deadline`.

mod attempt;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use windlass_core::backoff::{BACKOFF_INITIAL, BackoffKey};
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;

use crate::PullError;
use crate::engine::{Engine, Inner};
use crate::events::{EventSink, Events};
use crate::request::{ContainerReport, EnsureCredentials, EnsureReport, EnsureRequest, PullReport, Wait};
use crate::workload::{ContainerImage, PodSpec};
use attempt::Tried;

/// How long the kubelet waits before it looks again at a pod whose failure counts in no back-off.
/// kubernetes `pkg/kubelet/pod_workers.go`: `backOffOnTransientErrorPeriod` and the sync period, 10 s.
const LOOK_AGAIN: Duration = BACKOFF_INITIAL;

/// One container of one pod.
#[derive(Debug, Clone)]
struct Item {
    /// Its place in the report.
    at: usize,
    pod: Arc<PodSpec>,
    container: ContainerImage,
}

/// What all items of a call share.
struct Call {
    engine: Arc<Inner>,
    request: EnsureRequest,
    sink: Arc<dyn EventSink>,
    /// Places for pulls.
    places: Semaphore,
    /// When waiting ends.
    deadline: Option<Instant>,
}

/// Pulls of this call that worked, by image as written and the hashes of the credentials at hand: what another
/// container with the same claims need not ask again.
type Memory = HashMap<(String, Vec<String>), Arc<PullReport>>;

impl Engine {
    /// Ensures every image of the pods. A container's failure is part of the report, not of the result.
    ///
    /// # Errors
    /// [`PullError::Canceled`]; [`PullError::Internal`].
    pub async fn ensure(&self, request: EnsureRequest, sink: Arc<dyn EventSink>) -> Result<EnsureReport, PullError> {
        let began = Instant::now();
        let deadline = match request.wait {
            Wait::Once => None,
            Wait::Until(wait) => Some(began + wait),
        };
        let groups = groups(&request.pods);
        if let EnsureCredentials::Given(_) = request.credentials {
            self.forget_failures(&groups);
        }
        let places = Semaphore::new(self.inner.pulls_at_once);
        let call = Arc::new(Call { engine: self.inner.clone(), request, sink, places, deadline });
        let mut tasks = JoinSet::new();
        for group in groups {
            tasks.spawn(ensure_group(call.clone(), group));
        }
        let mut containers = BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            let reports = done.map_err(|_| PullError::Internal("a task of ensure panicked"))?;
            containers.extend(reports);
        }
        if call.request.options.cancel.is_cancelled() {
            return Err(PullError::Canceled);
        }
        Ok(EnsureReport { containers: containers.into_values().collect(), took: began.elapsed() })
    }
}

impl Engine {
    /// A caller with credentials of its own asks anew, whatever an earlier one met: it has its back-off to itself.
    fn forget_failures(&self, groups: &[Vec<Item>]) {
        let mut backoff = self.inner.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        for item in groups.iter().flatten() {
            backoff.forget(&BackoffKey::new(&item.pod.backoff_id(), &item.container.image));
        }
    }
}

/// Containers by image: whatever their spelling, one image is handled in one place.
fn groups(pods: &[PodSpec]) -> Vec<Vec<Item>> {
    let mut groups: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    let mut at = 0;
    for pod in pods {
        let pod = Arc::new(pod.clone());
        for container in &pod.containers {
            let key = Reference::parse(&container.image)
                .map_or_else(|_| container.image.clone(), |image| image.runtime_ref());
            groups.entry(key).or_default().push(Item { at, pod: pod.clone(), container: container.clone() });
            at += 1;
        }
    }
    groups.into_values().collect()
}

/// Every container with one image, in order; under `--wait` again and again, each by its own back-off.
async fn ensure_group(call: Arc<Call>, group: Vec<Item>) -> Vec<(usize, ContainerReport)> {
    let began = Instant::now();
    let mut memory = Memory::new();
    let mut done = Vec::new();
    let mut waiting: Vec<(Instant, Item, Option<ContainerReport>)> =
        group.into_iter().map(|item| (began, item, None)).collect();
    while !waiting.is_empty() {
        waiting.sort_by_key(|(due, item, _)| (*due, item.at));
        let (due, item, before) = waiting.remove(0);
        if !sleep_until(&call, due).await {
            done.extend(before.map(|report| (item.at, report)));
            continue;
        }
        let tried = attempt::attempt(&call, &item, &mut memory).await;
        let report = merge(before, report(&item, &tried, began));
        match next_try(&call, &item, &tried) {
            Some(due) => waiting.push((due, item, Some(report))),
            None => done.push((item.at, report)),
        }
    }
    done
}

/// Sleeps until `due`; `false` when the deadline or a cancellation comes first.
async fn sleep_until(call: &Call, due: Instant) -> bool {
    let due = match call.deadline {
        Some(deadline) if deadline < due => return false,
        Some(_) | None => due,
    };
    tokio::select! {
        biased;
        () = call.request.options.cancel.cancelled() => false,
        () = tokio::time::sleep_until(due) => true,
    }
}

/// When a failed container is tried again; `None`: never.
fn next_try(call: &Call, item: &Item, tried: &Tried) -> Option<Instant> {
    let deadline = call.deadline?;
    let failure = tried.failure.as_ref()?;
    // What the manifest itself gets wrong cannot change while we wait.
    if matches!(failure.reason, Reason::InvalidReference | Reason::InvalidCredentials) {
        return None;
    }
    let now = Instant::now();
    let due = now + tried.backoff.unwrap_or(LOOK_AGAIN);
    if due > deadline || call.request.options.cancel.is_cancelled() {
        return None;
    }
    let events = Events::new(call.sink.clone(), &item.container.image);
    let pod = format!("{}/{}", item.pod.namespace, item.pod.name);
    events.waiting(pod, due - now, failure.waiting.clone());
    Some(due)
}

fn report(item: &Item, tried: &Tried, began: Instant) -> ContainerReport {
    ContainerReport {
        namespace: item.pod.namespace.clone(),
        pod: item.pod.name.clone(),
        kind: item.pod.kind.clone(),
        container: item.container.name.clone(),
        slot: item.container.slot,
        image: item.container.image.clone(),
        policy: item.container.policy,
        policy_was_set: item.container.policy_was_set,
        action: tried.action,
        image_ref: tried.image_ref.clone(),
        events: tried.events.clone(),
        tries: 1,
        attempts: tried.attempts.clone(),
        pull: tried.pull.clone(),
        failure: tried.failure.clone(),
        notes: tried.notes.clone(),
        took: began.elapsed(),
    }
}

/// The latest try, with the events of those before it.
fn merge(before: Option<ContainerReport>, mut latest: ContainerReport) -> ContainerReport {
    if let Some(before) = before {
        let mut events = before.events;
        events.append(&mut latest.events);
        // A pod that waits for hours must not gather memory; the kubelet's events are counted, not kept, too.
        let surplus = events.len().saturating_sub(EVENTS_MAX);
        events.drain(..surplus);
        latest.events = events;
        latest.tries += before.tries;
    }
    latest
}

/// Events kept for one container, the latest ones.
const EVENTS_MAX: usize = 200;
