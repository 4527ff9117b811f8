//! The other end of the kubelet's exec protocol: a request comes in on standard input, one answer goes out.
//!
//! In: the bytes of a `CredentialProviderRequest` in any of the three API versions. Out: the [`Question`] in it, and the
//! text of a `CredentialProviderResponse` in the version that was asked in, so that a kubelet configured for any of them
//! understands it. Who answers is a [`crate::Provider`]; nothing here knows a cloud.
//! Source of truth: kubernetes `staging/src/k8s.io/kubelet/pkg/apis/credentialprovider`, KEP-2133 and KEP-4412.
//!
//! Invariants: `the_answer_has_the_version_of_the_request`, `an_older_version_knows_no_service_account`,
//! `a_request_that_is_too_long_is_refused`, `no_value_of_a_request_shows`.

mod answer;
mod duration;
mod request;

use std::time::Duration;

use windlass_core::provider::{CacheKeyType, ProviderAnswer};

pub use answer::render;
pub use duration::go_duration;
pub use request::{Question, REQUEST_BYTES_MAX, ServeError, read};

/// All that an answer may take: a kubelet kills a plugin after a minute.
pub const BUDGET: Duration = Duration::from_secs(50);

/// The answer for an image that is not the provider's: nothing, and not to be remembered.
pub fn nothing() -> ProviderAnswer {
    ProviderAnswer { cache_key_type: CacheKeyType::Registry, cache_duration: Some(Duration::ZERO), auth: Vec::new() }
}
