//! Around every provider, program or cloud, the same: cache, single flight, back-off, renewal ahead of time, figures.
//!
//! In: an image, for whom, by whose rules. Out: an answer from the cache or from the provider, and a note for people. The
//! rules are in `windlass_core::provider`; here they meet the clock and the tasks. By the kubelet's rules failures are not
//! remembered and nothing is asked for ahead of time.
//!
//! Invariants (`tests/providers.rs`): `concurrent_calls_share_one_run`, `a_registry_s_images_share_one_run_once_that_is_known`,
//! `failures_are_waited_out`, `an_answer_is_renewed_ahead_of_time`, `a_refused_answer_is_asked_for_again`.

mod slot;
mod state;
mod telling;
mod whom;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use windlass_core::keyring::{Mode, Origin};
use windlass_core::provider::ProviderAnswer;
use windlass_core::reference::Reference;

pub(crate) use slot::Slot;

use crate::accounts::{ServiceAccount, TokenDirectory};
use crate::lookup::ProviderNote;
use crate::provider::Provider;

/// A cloud that is asked in this process.
#[derive(Clone)]
pub struct BuiltIn {
    /// Its short name: `ecr`, `gcp` or `acr`.
    pub name: String,
    /// Whether an image is one of the cloud's.
    pub matches: Arc<dyn Fn(&Reference) -> bool + Send + Sync>,
    /// What is asked.
    pub provider: Arc<dyn Provider>,
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltIn").field("name", &self.name).field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What a provider is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) image: &'a Reference,
    pub(crate) account: Option<&'a ServiceAccount>,
    pub(crate) tokens: Option<&'a TokenDirectory>,
    pub(crate) mode: Mode,
}

/// Tasks that renew answers; dropped, they end.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<JoinSet<()>>);

impl Renewals {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// An answer with where it came from and what is to be told.
pub(crate) struct Told {
    pub(crate) note: ProviderNote,
    pub(crate) answer: Option<(Arc<ProviderAnswer>, Origin)>,
}

/// A number in 0..1 that is good enough to spread renewals.
fn chance() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
