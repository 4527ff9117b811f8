//! Logins for Google's registries: Container Registry and Artifact Registry.
//!
//! In: an image, and the service account that it is pulled for. Out: one login under the image's own host, made from the
//! node's account (the metadata server), from the service account (workload identity), or from a document that the
//! instance's metadata hold or point to. Google's token goes to Google's hosts and those that an operator added, no others.
//! Source of truth: kubernetes/cloud-provider-gcp `cmd/auth-provider-gcp`, whose flags and variables are taken.
//!
//! Invariants: `a_foreign_image_gets_nothing_and_nobody_is_asked`, `the_login_stands_under_the_images_host_only`,
//! `an_account_that_wants_its_own_identity_never_gets_the_node_s`, `metadata_are_believed_with_their_header_only`,
//! `a_failing_metadata_server_is_an_error_and_no_empty_answer`.

mod document;
mod metadata;
mod settings;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use windlass_core::keyring::Credential;
use windlass_core::provider::{CacheKeyType, ProviderAnswer};
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;
use windlass_distribution::web::Web;

use super::CloudError;
use super::retry::Deadline;
use crate::provider::{Answering, Provider, ProviderRequest};
use crate::serve;
use metadata::Metadata;

pub use settings::{AuthFlow, GoogleSettings};
pub use workload::WANTS_OWN_IDENTITY;

/// The user name that goes with a token.
const USER: &str = "_token";
/// Longest time that a token is used again: tokens live for an hour.
const CACHE_MAX: Duration = Duration::from_secs(50 * 60);
/// A token is not used in the last minutes of its life: a pull has to end before it does.
const CACHE_MARGIN: Duration = Duration::from_secs(5 * 60);
/// A document of the metadata is read again after this time, as in Kubernetes 1.20.
const DOCUMENT_CACHE: Duration = Duration::from_secs(60);
/// All questions to the metadata server for one login.
const METADATA_LIMIT: Duration = Duration::from_secs(10);

/// Google as a provider of logins.
#[derive(Clone, Debug)]
pub struct Google {
    settings: GoogleSettings,
    web: Web,
}

/// A token and how long it will live.
struct Token {
    text: Secret<String>,
    life: Duration,
}

impl Google {
    /// Nothing is asked yet.
    pub fn new(settings: GoogleSettings, web: Web) -> Google {
        Google { settings, web }
    }

    async fn answer(&self, request: &ProviderRequest) -> Result<ProviderAnswer, CloudError> {
        if !self.settings.serves(&request.image) {
            return Ok(serve::nothing());
        }
        match self.settings.flow {
            AuthFlow::Gcr => self.token_login(request).await,
            AuthFlow::DockerCfg | AuthFlow::DockerCfgUrl => self.document_logins(&request.image).await,
        }
    }

    async fn token_login(&self, request: &ProviderRequest) -> Result<ProviderAnswer, CloudError> {
        let account = request.service_account.as_ref();
        let own = account.filter(|account| self.settings.wants_own_identity(&account.annotations));
        let token = match (own, &self.settings.workload) {
            (Some(account), Some(identity)) => {
                workload::exchange(&self.web, &self.settings.sts, identity, &account.token).await?
            }
            (Some(_) | None, _) => self.metadata().await?.token().await?,
        };
        let login = Credential::Basic { username: USER.to_owned(), password: token.text };
        let key = request.image.host().as_str().to_owned();
        Ok(self.kept(vec![(key, login)], token.life.saturating_sub(CACHE_MARGIN).min(CACHE_MAX)))
    }

    async fn document_logins(&self, image: &Reference) -> Result<ProviderAnswer, CloudError> {
        let metadata = self.metadata().await?;
        let logins = match self.settings.flow {
            AuthFlow::Gcr | AuthFlow::DockerCfg => document::of_metadata(&metadata).await?,
            AuthFlow::DockerCfgUrl => document::of_url(&metadata, &self.web).await?,
        };
        Ok(self.kept(document::for_host(logins, image), DOCUMENT_CACHE))
    }

    async fn metadata(&self) -> Result<Metadata<'_>, CloudError> {
        let deadline = Deadline::after(METADATA_LIMIT, Instant::now());
        Metadata::find(&self.web, self.settings.metadata.as_ref(), deadline).await
    }

    fn kept(&self, auth: Vec<(String, Credential)>, usually: Duration) -> ProviderAnswer {
        let cache_key_type = self.settings.cache_type.unwrap_or(CacheKeyType::Registry);
        let cache_duration = Some(self.settings.cache_duration.unwrap_or(usually));
        ProviderAnswer { cache_key_type, cache_duration, auth }
    }
}

impl Provider for Google {
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a> {
        Box::pin(async move { Ok(self.answer(request).await?) })
    }
}

impl GoogleSettings {
    /// Whether images of this registry are answered at all. Asks nobody.
    pub fn serves(&self, image: &Reference) -> bool {
        match self.flow {
            AuthFlow::Gcr => self.is_google(image),
            // What such a document holds is known only when it is read.
            AuthFlow::DockerCfg | AuthFlow::DockerCfgUrl => true,
        }
    }

    /// Whether a service account with these annotations must be answered with its own identity or not at all.
    pub fn wants_own_identity(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.workload.is_some() && annotations.get(WANTS_OWN_IDENTITY).is_some_and(|value| value == "true")
    }
}
