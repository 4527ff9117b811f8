//! One try for one container: the machine's questions, answered.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use windlass_core::access::{AccountProof, Grant, PodProofs, SecretProof};
use windlass_core::backoff::{Backoff, BackoffKey};
use windlass_core::decide::ensure::{
    self, Effect, EnsureError, Event, Next, Outcome, PullFailure, PullTimes, Pulled, Usable,
};
use windlass_core::digest::Digest;
use windlass_core::keyring::{Candidate, Mode, Origin};
use windlass_core::reference::Reference;
use windlass_credentials::{CredentialSources, Lookup};
use windlass_store::PullMark;

use super::{Call, Item, Memory};
use crate::PullError;
use crate::attempt::{Accepted, Attempts};
use crate::engine::{ForWhom, Inner, Login, blocking};
use crate::events::Events;
use crate::pull::pull;
use crate::request::{Action, EnsureCredentials, Failure, PullReport};

/// What one try came to.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) action: Action,
    pub(super) image_ref: Option<Digest>,
    pub(super) events: Vec<Event>,
    pub(super) attempts: Attempts,
    pub(super) pull: Option<Arc<PullReport>>,
    pub(super) failure: Option<Failure>,
    /// How long the back-off wants to wait before the next try.
    pub(super) backoff: Option<Duration>,
    pub(super) notes: Vec<String>,
}

/// The state of one try.
struct Try<'c> {
    call: &'c Call,
    item: &'c Item,
    key: BackoffKey,
    /// Everything the pod can show, in trying order.
    candidates: Vec<Candidate>,
    /// Holds the intent on disk; dropped, it is gone.
    mark: Option<PullMark>,
    tried: Tried,
    hint: Option<String>,
}

/// Asks and answers until the machine is done.
pub(super) async fn attempt(call: &Call, item: &Item, memory: &mut Memory) -> Tried {
    let request = ensure::Request {
        image: item.container.image.clone(),
        policy: item.container.policy,
        verification: call.request.verification.clone(),
        mode: call.request.mode,
    };
    let mut state = Try {
        call,
        item,
        key: BackoffKey::new(&item.pod.backoff_id(), &item.container.image),
        candidates: Vec::new(),
        mark: None,
        tried: Tried {
            action: Action::Refused,
            image_ref: None,
            events: Vec::new(),
            attempts: Attempts::default(),
            pull: None,
            failure: None,
            backoff: None,
            notes: Vec::new(),
        },
        hint: None,
    };
    let mut turn = ensure::begin(request);
    loop {
        for effect in std::mem::take(&mut turn.effects) {
            state.carry_out(effect).await;
        }
        turn = match turn.next {
            Next::Inspect(question) => {
                let found = state.inspect(question.reference().clone()).await;
                question.answer(found)
            }
            Next::ReadRecords(question) => {
                let (image_ref, image) = (question.image_ref().to_owned(), question.image().to_owned());
                let records = call.engine.records.clone();
                let found =
                    blocking(move || Ok::<_, PullError>((records.record(&image_ref), records.has_intent(&image))));
                match found.await {
                    Ok((record, intent)) => question.answer(&record, intent),
                    Err(_) => question.answer(&windlass_core::access::RecordLookup::Unreadable, false),
                }
            }
            Next::LookUpCredentials(question) => match state.lookup(question.reference(), &for_whom(item)).await {
                Ok(found) => {
                    state.tried.notes = notes(&found);
                    state.candidates = found.candidates;
                    question.answer(Ok(proofs(&state.candidates)))
                }
                Err(error) => question.answer(Err(error.chain())),
            },
            Next::WriteIntent(question) => {
                let (records, image) = (call.engine.records.clone(), question.image().to_owned());
                match blocking(move || records.begin(&image)).await {
                    Ok(mark) => {
                        state.mark = Some(mark);
                        question.answer(Ok(()))
                    }
                    Err(error) => question.answer(Err(error.chain())),
                }
            }
            Next::AskGate(question) => {
                let gate = with_backoff(&call.engine, |backoff, now| backoff.gate(&state.key, now));
                question.answer(gate)
            }
            Next::Pull(question) => {
                let pulled = state.pull(question.reference().clone(), memory).await;
                question.answer(pulled)
            }
            Next::Done(outcome) => {
                state.touch(&outcome).await;
                return state.finish(outcome);
            }
        };
    }
}

impl Try<'_> {
    async fn inspect(&self, reference: Reference) -> Result<Option<String>, String> {
        let store = self.call.engine.store.clone();
        let found = blocking(move || store.find_reference(&reference)).await;
        match found {
            // A damaged image is not there: pulling makes it whole.
            Ok(image) => Ok(image.filter(|image| image.damage.is_none()).map(|image| image.id.to_string())),
            Err(error) => Err(error.chain()),
        }
    }

    /// The pod's secrets, then what stands beside them.
    async fn lookup(&self, reference: &Reference, pod: &ForWhom) -> Result<Lookup, PullError> {
        let (request, engine) = (&self.call.request, &self.call.engine);
        let EnsureCredentials::Given(given) = &request.credentials else {
            return engine.credentials(reference, pod, request.mode).await;
        };
        let found = CredentialSources::builder().build().candidates(reference, &pod.secrets, request.mode).await;
        let mut found = found.map_err(|source| PullError::Credentials { source: Box::new(source) })?;
        if let Some(given) = given.get(&self.item.container.image) {
            for candidate in &given.candidates {
                let is_known = found.candidates.iter().any(|known| known.credential == candidate.credential);
                if !(is_known && request.mode == Mode::Windlass) {
                    found.candidates.push(candidate.clone());
                }
            }
            found.skipped.extend(given.skipped.iter().cloned());
            found.exposed_files.extend(given.exposed_files.iter().cloned());
        }
        Ok(found)
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Emit(event) => self.tried.events.push(event),
            Effect::RecordProof { image_ref, repository, grant } => {
                let records = self.call.engine.records.clone();
                let written = blocking(move || {
                    records.update(&image_ref, |record| record.grant(&repository, grant, Timestamp::now()))
                });
                if let Err(error) = written.await {
                    self.tried.notes.push(format!("the pull record was not completed: {error}"));
                }
            }
            Effect::RecordPulled { image: _, image_ref, repository, grant } => {
                let Some(mark) = self.mark.take() else { return };
                let written = blocking(move || mark.succeeded(&image_ref, &repository, grant, Timestamp::now()));
                if let Err(error) = written.await {
                    self.tried.notes.push(format!("the pull record was not written: {error}"));
                }
            }
            Effect::DropIntent { image: _ } => {
                let Some(mark) = self.mark.take() else { return };
                // Removing the intent syncs a directory.
                let _ = blocking(move || {
                    mark.failed();
                    Ok::<_, PullError>(())
                })
                .await;
            }
            Effect::CountFailure { previous } => {
                let key = self.key.clone();
                let delay = with_backoff(&self.call.engine, |backoff, now| backoff.failed(&key, now, Some(previous)));
                self.tried.backoff = Some(delay);
            }
            Effect::CountSuccess => with_backoff(&self.call.engine, |backoff, now| backoff.succeeded(now)),
        }
    }

    /// Pulls, unless a container with the same claims has done so in this call.
    async fn pull(&mut self, reference: Reference, memory: &mut Memory) -> Result<Pulled, PullFailure> {
        self.tried.action = Action::Pulled;
        let began = Instant::now();
        let known = (self.item.container.image.clone(), hashes(&self.candidates));
        if let Some(report) = memory.get(&known) {
            return Ok(self.pulled(report.clone(), began, began));
        }
        let events = Events::new(self.call.sink.clone(), &self.item.container.image);
        let place = self.call.places.acquire().await;
        let got_place = Instant::now();
        let result = match self.call.request.mode {
            Mode::Windlass => self.pull_once(reference, self.candidates.clone(), &events).await,
            Mode::Kubelet => self.pull_each(reference, &events).await,
        };
        drop(place);
        match result {
            Ok(report) => {
                let report = Arc::new(report);
                memory.insert(known, report.clone());
                Ok(self.pulled(report, began, got_place))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn pull_once(
        &mut self,
        reference: Reference,
        candidates: Vec<Candidate>,
        events: &Events,
    ) -> Result<PullReport, PullFailure> {
        let (engine, request) = (&self.call.engine, &self.call.request);
        let login = match &request.credentials {
            EnsureCredentials::Given(_) => Login::given(candidates),
            EnsureCredentials::Sources => engine.login(&reference, candidates, for_whom(self.item), request.mode),
        };
        let result = pull(engine, reference, login, request.mode, &request.options, events).await;
        match result {
            Ok(report) => {
                self.tried.attempts.0.extend(report.attempts.0.iter().cloned());
                Ok(report)
            }
            Err(error) => {
                self.tried.attempts.0.extend(error.attempts().0.iter().cloned());
                self.hint = Some(error.hint());
                Err(PullFailure::new(error.reason(), &error.chain()))
            }
        }
    }

    /// The kubelet's loop: each credential in order, whatever the failure, and no anonymous try behind them.
    /// kubernetes `pkg/kubelet/kuberuntime/kuberuntime_image.go`, `PullImage`.
    async fn pull_each(&mut self, reference: Reference, events: &Events) -> Result<PullReport, PullFailure> {
        if self.candidates.is_empty() {
            return self.pull_once(reference, Vec::new(), events).await;
        }
        let mut failures = Vec::new();
        for candidate in self.candidates.clone() {
            match self.pull_once(reference.clone(), vec![candidate], events).await {
                Ok(report) => return Ok(report),
                Err(failure) => failures.push(failure),
            }
        }
        let all = PullFailure::all(failures);
        Err(all.unwrap_or_else(|| PullFailure::new(windlass_core::reason::Reason::Internal, "nothing was tried")))
    }

    fn pulled(&mut self, report: Arc<PullReport>, began: Instant, got_place: Instant) -> Pulled {
        self.tried.pull = Some(report.clone());
        let accepted = match &report.accepted {
            Accepted::Credential(candidate) => Some(candidate.as_ref()),
            Accepted::Anonymous => None,
            // Mirrors alone answered: what the pod would have shown to the registry stands for it.
            Accepted::Nobody => self.candidates.first(),
        };
        let times =
            PullTimes { pull: got_place.elapsed(), with_waiting: began.elapsed(), size_bytes: report.size_bytes };
        Pulled { image_ref: report.id.to_string(), grant: Grant::of(accepted), times }
    }

    /// Tells the store that the image is used, for the order of collection.
    async fn touch(&mut self, outcome: &Outcome) {
        let used = outcome.result.as_ref().ok().and_then(|usable| Digest::parse(usable.image_ref()).ok());
        let Some(used) = used else { return };
        let store = self.call.engine.store.clone();
        if let Err(error) = blocking(move || store.touch(&used, Timestamp::now())).await {
            self.tried.notes.push(format!("the use of the image was not noted: {error}"));
        }
    }

    fn finish(mut self, outcome: Outcome) -> Tried {
        match outcome.result {
            Ok(usable) => {
                if let Usable::Local(_) = usable {
                    self.tried.action = Action::UsedLocal;
                }
                self.tried.image_ref = Digest::parse(usable.image_ref()).ok();
            }
            Err(error) => {
                if let EnsureError::BackOff { .. } = &error {
                    self.tried.action = Action::BackedOff;
                }
                let hint = self.hint.unwrap_or_else(|| error.reason().hint().to_owned());
                self.tried.failure = Some(Failure {
                    waiting: error.waiting_reason().into_owned(),
                    message: error.to_string(),
                    reason: error.reason(),
                    hint,
                });
            }
        }
        self.tried
    }
}

/// Works on the back-off table with its own clock.
fn with_backoff<T>(engine: &Inner, work: impl FnOnce(&mut Backoff, Duration) -> T) -> T {
    let mut backoff = engine.backoff.lock().unwrap_or_else(PoisonError::into_inner);
    work(&mut backoff, engine.began.elapsed())
}

/// What pull records compare.
fn proofs(candidates: &[Candidate]) -> PodProofs {
    let secrets = candidates.iter().filter_map(|candidate| match &candidate.origin {
        Origin::PullSecret { namespace, name, uid } => Some(SecretProof {
            uid: uid.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            credential_hash: candidate.hash.clone(),
        }),
        _ => None,
    });
    let account = candidates.iter().find_map(|candidate| match &candidate.origin {
        Origin::ServiceAccount { namespace, name, uid } => {
            Some(AccountProof { uid: uid.clone(), namespace: namespace.clone(), name: name.clone() })
        }
        _ => None,
    });
    PodProofs { secrets: secrets.collect(), service_account: account }
}

/// What the pod brings.
fn for_whom(item: &Item) -> ForWhom {
    ForWhom { secrets: item.pod.resolved_secrets().cloned().collect(), account: Some(item.pod.account()) }
}

/// Equal for two pods that can show the same.
fn hashes(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(|candidate| candidate.hash.clone()).collect()
}

/// What was passed over, for people.
fn notes(found: &Lookup) -> Vec<String> {
    let skipped = found.skipped.iter().map(|skipped| match skipped.key.as_str() {
        "" => format!("{}: {}", skipped.origin, skipped.why),
        key => format!("{} key {key}: {}", skipped.origin, skipped.why),
    });
    let exposed = found.exposed_files.iter();
    let exposed = exposed.map(|path| format!("file {} may be read by others", path.display()));
    skipped.chain(exposed).collect()
}
