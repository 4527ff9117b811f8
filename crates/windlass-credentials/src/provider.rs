//! What a credential provider is: asked for one image, it answers with logins for a while.
//!
//! Two kinds: programs that a kubelet's configuration names, and the clouds that are built in.

use std::collections::BTreeMap;
use std::pin::Pin;

use windlass_core::provider::ProviderAnswer;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;

use crate::cloud::CloudError;
use crate::plugin::PluginError;

/// What a provider is asked.
#[derive(Clone, Debug)]
pub struct ProviderRequest {
    /// The image; tag and digest do not count.
    pub image: Reference,
    /// For whom, where the provider acts for service accounts.
    pub service_account: Option<ServiceAccountToken>,
}

/// A service account that vouches for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountToken {
    /// Its token, for the audience that the provider wants.
    pub token: Secret<String>,
    /// Those of its annotations that the provider wants.
    pub annotations: BTreeMap<String, String>,
}

/// A future that a provider answers with.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<ProviderAnswer, ProviderError>> + Send + 'a>>;

/// One provider. It neither caches nor retries across calls; who asks does.
pub trait Provider: std::fmt::Debug + Send + Sync {
    /// Asks. An image that is not the provider's is answered with no logins. Dropping the future stops the work.
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a>;
}

/// Why a provider gave no answer. No secret in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// A cloud.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// A program.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

impl ProviderError {
    /// The reason in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            ProviderError::Cloud(error) => error.reason(),
            ProviderError::Plugin(error) => error.reason(),
        }
    }

    /// What to do; empty where nothing is known beyond the reason.
    pub fn hint(&self) -> &str {
        match self {
            ProviderError::Cloud(error) => error.hint(),
            ProviderError::Plugin(_) => "",
        }
    }
}
