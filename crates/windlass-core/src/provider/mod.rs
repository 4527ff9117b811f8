//! Credential providers: programs and clouds that answer with logins for one image.
//!
//! Source of truth: kubernetes `pkg/credentialprovider/plugin`, KEP-2133 and KEP-4412.

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
