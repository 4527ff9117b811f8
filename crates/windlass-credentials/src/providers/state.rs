//! What is remembered about one provider, and what a refusal does to it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use windlass_core::keyring::{Candidate, Origin, credential_hash};
use windlass_core::provider::{AnswerCache, CacheKey, CacheKeyType, Failures, ProviderAnswer};

use super::lock;
use super::slot::{Inner, Slot};
use crate::lookup::{CachedLogin, ProviderState, RefusedOutcome};
use crate::provider::ProviderError;

/// An answer younger than this is not asked for again when a registry refuses it.
const FRESH: Duration = Duration::from_secs(1);
/// Most logins remembered that were given out and not kept.
const GIVEN_MAX: usize = 256;

pub(super) type Fetched = Result<Arc<ProviderAnswer>, Arc<ProviderError>>;
pub(super) type Flight = Arc<OnceCell<Fetched>>;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) cache: AnswerCache,
    pub(super) failures: Failures<CacheKey, Arc<ProviderError>>,
    pub(super) flights: HashMap<CacheKey, Flight>,
    pub(super) renewing: HashSet<CacheKey>,
    /// What the last answer was good for: from then on calls for a registry share a run.
    pub(super) learned: Option<CacheKeyType>,
    /// Logins of answers that were not kept, by hash, and when they came.
    pub(super) given: VecDeque<(String, Duration)>,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) total: Duration,
}

impl State {
    /// The run under way for a key, or room for one.
    pub(super) fn flight(&mut self, key: &CacheKey) -> Flight {
        // Those whose callers have all gone away stay behind; they hold nothing.
        self.flights.retain(|_, flight| Arc::strong_count(flight) > 1 || flight.initialized());
        Arc::clone(self.flights.entry(key.clone()).or_default())
    }

    /// A run has ended; the next call begins a new one.
    pub(super) fn landed(&mut self, key: &CacheKey, flight: &Flight) {
        if self.flights.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            self.flights.remove(key);
        }
    }

    pub(super) fn remember(&mut self, answer: &ProviderAnswer, now: Duration) {
        for (_, login) in &answer.auth {
            self.given.push_back((credential_hash(login, ""), now));
        }
        let surplus = self.given.len().saturating_sub(GIVEN_MAX);
        self.given.drain(..surplus);
    }
}

impl Slot {
    /// Whether a candidate may have come from here.
    pub(crate) fn may_have_given(&self, origin: &Origin) -> bool {
        match (origin, &self.inner) {
            (Origin::Plugin { name }, Inner::Exec(_)) | (Origin::Cloud { name }, Inner::Cloud(_)) => *name == self.name,
            (Origin::ServiceAccount { .. }, Inner::Exec(plugin)) => plugin.config().token.is_some(),
            _ => false,
        }
    }

    /// Forgets the answer that a refused candidate came from; `None`: it is not known here.
    pub(crate) fn refused(&self, candidate: &Candidate) -> Option<RefusedOutcome> {
        let now = self.began.elapsed();
        let mut state = lock(&self.state);
        let gave = |answer: &ProviderAnswer| answer.auth.iter().any(|(_, login)| *login == candidate.credential);
        let kept = state.cache.entries(now).filter(|(_, kept)| gave(&kept.answer)).map(|(_, kept)| kept.stored).max();
        let given = state.given.iter().rev().find(|(hash, _)| *hash == candidate.hash).map(|(_, at)| *at);
        let came = kept.or(given)?;
        if now.saturating_sub(came) < FRESH {
            return Some(RefusedOutcome::Fresh);
        }
        state.cache.drop_where(|kept| gave(&kept.answer));
        state.given.retain(|(hash, _)| *hash != candidate.hash);
        Some(RefusedOutcome::AskAgain)
    }

    /// How it has fared.
    pub(crate) fn state(&self) -> ProviderState {
        let now = self.began.elapsed();
        let state = lock(&self.state);
        let mut cached: Vec<CachedLogin> = state
            .cache
            .entries(now)
            .map(|(key, kept)| CachedLogin {
                key: key.to_string(),
                expires_in: kept.expires.saturating_sub(now),
                logins: kept.answer.auth.len(),
            })
            .collect();
        cached.sort();
        ProviderState {
            name: self.name.clone(),
            kind: self.kind(),
            calls: state.calls,
            errors: state.errors,
            total_seconds: state.total.as_secs_f64(),
            cached,
        }
    }
}
