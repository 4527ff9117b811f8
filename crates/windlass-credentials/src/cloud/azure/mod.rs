//! Logins for Azure Container Registry.
//!
//! In: an image, and the service account that it is pulled for. Out: a refresh token of the registry under the image's own
//! host, got for a token of the identity that is chosen here; or, where `azure.json` holds a service principal, that.
//! The identity's token goes to the login server that the image names, and to no other place that a challenge may name.
//! Source of truth: kubernetes-sigs/cloud-provider-azure `pkg/credentialprovider`, whose file and flags are taken.
//!
//! Invariants: `a_foreign_image_gets_nothing_and_nobody_is_asked`, `the_login_stands_under_the_images_host_only`,
//! `a_realm_elsewhere_gets_no_token`, `the_identity_is_chosen_by_the_table`,
//! `a_mirror_rule_covers_whole_names_only`.

mod choice;
mod claims;
mod clouds;
mod entra;
mod exchange;
mod file;
mod imds;
mod settings;
mod target;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OnceCell;
use windlass_core::httpurl::HttpUrl;
use windlass_core::keyring::Credential;
use windlass_core::provider::{CacheKeyType, ProviderAnswer};
use windlass_core::secret::Secret;
use windlass_distribution::web::Web;

use super::CloudError;
use super::retry::Deadline;
use crate::provider::{Answering, Provider, ProviderRequest};
use crate::serve;
use choice::Identity;
use clouds::Cloud;
use target::Target;

pub use choice::{ANNOTATION_CLIENT, ANNOTATION_TENANT};
pub use settings::AzureSettings;

/// The user name that goes with a refresh token.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";
/// Longest time that a login is used again: refresh tokens live for three hours.
const CACHE_MAX: Duration = Duration::from_secs(60 * 60);
/// A login is not used in the last minutes of its life.
const CACHE_MARGIN: Duration = Duration::from_secs(5 * 60);

/// Azure as a provider of logins.
#[derive(Clone, Debug)]
pub struct Azure {
    settings: AzureSettings,
    web: Web,
    /// A cloud of the operator's own, once it has described itself.
    own: Arc<OnceCell<Cloud>>,
}

impl Azure {
    /// Nothing is asked yet.
    pub fn new(settings: AzureSettings, web: Web) -> Azure {
        Azure { settings, web, own: Arc::default() }
    }

    async fn answer(&self, request: &ProviderRequest) -> Result<ProviderAnswer, CloudError> {
        let deadline = Deadline::after(serve::BUDGET, Instant::now());
        let Some(target) = self.target(request, deadline).await? else { return Ok(serve::nothing()) };
        let identity = choice::choose(&self.settings, request.service_account.as_ref(), target.is_mirrored)?;
        let (login, kept) = match identity.as_it_is() {
            Some(login) => (login, CACHE_MAX),
            None => self.exchanged(&identity, &target, deadline).await?,
        };
        let auth = target.keys.into_iter().map(|key| (key, login.clone())).collect();
        Ok(ProviderAnswer { cache_key_type: CacheKeyType::Registry, cache_duration: Some(kept), auth })
    }

    /// The registry to ask, if the image is Azure's; a custom cloud has to be asked what its registries are called.
    async fn target(&self, request: &ProviderRequest, deadline: Deadline) -> Result<Option<Target>, CloudError> {
        if let Some(target) = self.settings.target(&request.image, None) {
            return Ok(Some(target));
        }
        let suffix = self.own_cloud(deadline).await?.and_then(|cloud| cloud.registry_suffix.as_deref());
        Ok(suffix.and_then(|suffix| self.settings.target(&request.image, Some(suffix))))
    }

    /// The cloud that the node's file leads to; it is asked once.
    async fn own_cloud(&self, deadline: Deadline) -> Result<Option<&Cloud>, CloudError> {
        let Some(manager) = &self.settings.file.resource_manager else { return Ok(None) };
        let ask = || Cloud::ask(&self.web, manager, self.settings.file.cloud.as_deref(), deadline);
        self.own.get_or_try_init(ask).await.map(Some)
    }

    /// The login service to ask for a token.
    async fn login_place(&self, target: &Target, deadline: Deadline) -> Result<HttpUrl, CloudError> {
        if let Some(login) = &self.settings.login {
            return Ok(login.clone());
        }
        let own = self.own_cloud(deadline).await?.and_then(|cloud| cloud.login.clone());
        Ok(own.unwrap_or_else(|| clouds::login_place(self.settings.file.cloud.as_deref().or(target.cloud))))
    }

    async fn exchanged(
        &self,
        identity: &Identity,
        target: &Target,
        deadline: Deadline,
    ) -> Result<(Credential, Duration), CloudError> {
        let token = match identity {
            Identity::Managed(id) => imds::token(&self.web, &self.settings.imds, id.as_ref()).await?,
            Identity::Client(client) => {
                let login = self.login_place(target, deadline).await?;
                entra::token(&self.web, &login, client, deadline).await?
            }
            Identity::Bound(bound) => entra::bound_token(&self.web, bound, deadline).await?,
            Identity::AsItIs { secret, .. } => secret.clone(),
        };
        let tenant = identity.tenant().or(self.settings.tenant.as_deref());
        let refresh = exchange::refresh_token(&self.web, &self.settings, target, tenant, &token, deadline).await?;
        let kept = kept_for(&refresh, SystemTime::now());
        Ok((Credential::Basic { username: TOKEN_USER.to_owned(), password: refresh }, kept))
    }
}

impl Provider for Azure {
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a> {
        Box::pin(async move { Ok(self.answer(request).await?) })
    }
}

/// How long a refresh token is used again.
fn kept_for(token: &Secret<String>, now: SystemTime) -> Duration {
    let left = claims::read(token).expires.map(|end| super::moment::remaining(end, now));
    left.map_or(CACHE_MAX, |left| left.saturating_sub(CACHE_MARGIN).min(CACHE_MAX))
}
