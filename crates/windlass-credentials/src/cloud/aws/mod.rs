//! Amazon ECR, private and public: a login for twelve hours, from the identity that is to be had here.
//!
//! In: an image, perhaps with the token of a service account. Out: a login for the image's host and for nothing else. One
//! question is: find keys ([`identity`]), then ask the region that the host names ([`ecr`]), signed ([`signed`], [`sigv4`]).
//! Source of truth: kubernetes/cloud-provider-aws `cmd/ecr-credential-provider`, the AWS SDKs' common credential chain.
//!
//! Invariants: `a_foreign_image_asks_nobody`, `the_login_is_for_the_image_s_host_only`, `an_answer_comes_in_time_or_not_at_all`.

mod ecr;
mod identity;
mod keys;
mod partition;
mod refusal;
mod settings;
mod signed;
mod sigv4;
mod sts;

use std::time::{Duration, Instant};

use windlass_core::provider::{CacheKeyType, ProviderAnswer};
use windlass_core::reference::Reference;
use windlass_core::registryclass::{RegistryClass, classify};
use windlass_distribution::web::Web;

use super::CloudError;
use super::retry::Deadline;
use crate::provider::{Answering, Provider, ProviderRequest};

pub use settings::{AwsSettings, CredentialProcess, NodeFallback};

/// What steps may take past the deadline to say what kept them.
const GRACE: Duration = Duration::from_secs(1);

/// Logins for Amazon's registries.
#[derive(Clone, Debug)]
pub struct Aws {
    settings: AwsSettings,
    web: Web,
}

/// What one question needs on its way.
#[derive(Clone, Copy, Debug)]
struct Ask<'a> {
    settings: &'a AwsSettings,
    web: &'a Web,
    deadline: Deadline,
    /// The region of the registry.
    region: &'a str,
}

impl Aws {
    /// Asks nobody yet. Settings that cannot be used are reported by the first question that needs them.
    pub fn new(settings: AwsSettings, web: Web) -> Aws {
        Aws { settings, web }
    }

    async fn answer(&self, request: &ProviderRequest) -> Result<ProviderAnswer, CloudError> {
        let nothing = ProviderAnswer {
            cache_key_type: CacheKeyType::Registry,
            cache_duration: Some(Duration::ZERO),
            auth: vec![],
        };
        let Some(registry) = registry_of(&request.image) else { return Ok(nothing) };
        let deadline = Deadline::after(self.settings.limit, Instant::now());
        let ask = Ask { settings: &self.settings, web: &self.web, deadline, region: registry.region() };
        let work = async {
            let keys = identity::find(&ask, request.service_account.as_ref()).await?;
            ecr::login(&ask, &registry, &keys).await
        };
        let late = CloudError::Timeout { limit_seconds: deadline.limit_seconds() };
        // Each step keeps the deadline and knows more about why it was missed; this one is for the rest.
        tokio::time::timeout(self.settings.limit + GRACE, work).await.unwrap_or(Err(late))
    }
}

/// The registry of an image, where it is one of Amazon's.
fn registry_of(image: &Reference) -> Option<ecr::Registry> {
    match classify(image) {
        RegistryClass::Ecr(ecr) => Some(ecr::Registry::Private(ecr)),
        RegistryClass::EcrPublic { host } => Some(ecr::Registry::Public { host }),
        // Foreign images, and classes to come.
        _ => None,
    }
}

/// Whether images of this registry are answered at all. Asks nobody.
pub fn serves(image: &Reference) -> bool {
    registry_of(image).is_some()
}

impl Provider for Aws {
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a> {
        Box::pin(async { Ok(self.answer(request).await?) })
    }
}

#[cfg(test)]
mod tests;
