//! Credential providers: programs and clouds that answer with logins for one image.
//!
//! In: the documents of a `CredentialProviderConfig`, the bytes that a program printed, the time. Out: which providers
//! there are ([`read_config`]), what one answered ([`read_answer`]), for how long and for what the answer may be used
//! again ([`AnswerCache`]), and when a provider that failed is asked again ([`Failures`]).
//! Source of truth: kubernetes `pkg/credentialprovider/plugin` (`config.go`, `plugin.go`), KEP-2133 and KEP-4412.
//!
//! Invariants: `every_problem_of_a_configuration_is_told_at_once`, `unknown_and_repeated_fields_are_errors`,
//! `an_answer_of_another_version_is_refused_before_it_is_read`, `an_entry_is_used_until_its_time_is_over`,
//! `no_secret_is_left_in_an_error_text`, `no_debug_text_holds_a_secret`.

mod answer;
mod cache;
mod claims;
mod config;
mod duration;
mod failures;
mod fields;
mod mask;
mod raw;
mod request;
mod token;

pub use answer::{ANSWER_BYTES_MAX, AnswerError, read_answer, refuse_echoed_token};
pub use cache::{
    AccountKey, AnswerCache, CACHED_ANSWERS_MAX, CacheKey, CachedAnswer, Hit, REFRESH_AFTER, SWEEP_EVERY, Scope,
};
pub use claims::{TokenClaims, TokenClaimsError, read_claims};
pub use config::{
    CONFIG_BYTES_MAX, ConfigProblem, ExecProvider, ProviderConfig, TIMEOUT_DEFAULT, TIMEOUT_MAX, TIMEOUT_MIN,
    config_hash, read_config,
};
pub use duration::{GoDuration, GoDurationError};
pub use failures::{FAILURE_DELAY_FIRST, FAILURE_DELAY_MAX, FAILURES_MAX, Failures};
pub use mask::{STDERR_BYTES_MAX, mask};
pub use raw::Raw;
pub use request::{EXEC_GROUP, ExecVersion, request_body};
pub use token::{AccountDecision, TokenAttributes, TokenCacheType, judge_account};

use std::time::Duration;

use crate::keyring::Credential;

/// For what an answer may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKeyType {
    /// For this image only, whatever its tag.
    Image,
    /// For every image of this registry.
    Registry,
    /// For every image.
    Global,
}

/// What a provider answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderAnswer {
    /// For what it may be used again.
    pub cache_key_type: CacheKeyType,
    /// For how long; `None`: the default of the one who asked; nothing: it is not kept.
    pub cache_duration: Option<Duration>,
    /// Keys as in `auths`, with what to send. Empty: no login is known, which is an answer like any other.
    pub auth: Vec<(String, Credential)>,
}
