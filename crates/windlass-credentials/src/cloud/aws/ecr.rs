//! ECR's one question: a login for the registries that a principal may read.
//!
//! In: the registry and keys. Out: `AWS` and a password, under the image's host, for half of the time that is left.
//! Source of truth: Amazon ECR and ECR Public API reference, `GetAuthorizationToken`; cloud-provider-aws for the half.
//!
//! Invariants: `the_region_and_variant_of_the_host_are_asked`, `half_of_the_remaining_time_is_kept`,
//! `an_answer_without_a_login_is_malformed`.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use windlass_core::httpurl::HttpUrl;
use windlass_core::keyring::Credential;
use windlass_core::provider::{CacheKeyType, ProviderAnswer};
use windlass_core::registryclass::{ECR_PUBLIC_ENDPOINT, ECR_PUBLIC_REGION, Ecr};
use windlass_core::secret::Secret;
use zeroize::Zeroizing;

use super::Ask;
use super::keys::Keys;
use super::refusal::Refusal;
use super::settings::{AwsSettings, Flag};
use super::signed::{Question, post};
use super::sigv4::Scope;
use crate::cloud::asking::Service;
use crate::cloud::retry::Retries;
use crate::cloud::{CloudError, endpoint, json, moment};

const MEDIA_TYPE: &str = "application/x-amz-json-1.1";

/// A registry of Amazon's.
#[derive(Clone, Debug)]
pub(super) enum Registry {
    /// Of one account.
    Private(Ecr),
    /// The public gallery, which gives higher limits to those who log in.
    Public {
        /// The host.
        host: String,
    },
}

impl Registry {
    /// The region to ask: the host's, never the machine's.
    pub(super) fn region(&self) -> &str {
        match self {
            Registry::Private(ecr) => &ecr.region,
            Registry::Public { .. } => ECR_PUBLIC_REGION,
        }
    }

    fn host(&self) -> &str {
        match self {
            Registry::Private(ecr) => &ecr.host,
            Registry::Public { host } => host,
        }
    }

    fn service(&self) -> &'static str {
        match self {
            Registry::Private(_) => "ecr",
            Registry::Public { .. } => "ecr-public",
        }
    }

    fn target(&self) -> &'static str {
        match self {
            Registry::Private(_) => "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            Registry::Public { .. } => "SpencerFrontendService.GetAuthorizationToken",
        }
    }

    fn endpoint(&self, settings: &AwsSettings) -> Result<HttpUrl, CloudError> {
        let variable = match self {
            Registry::Private(_) => "AWS_ENDPOINT_URL_ECR",
            Registry::Public { .. } => "AWS_ENDPOINT_URL_ECR_PUBLIC",
        };
        if let Some((what, text)) = settings.endpoint(Flag::Ecr, variable) {
            return endpoint::read(what, text, &[]);
        }
        let url = match self {
            Registry::Private(ecr) => variant(ecr, settings).api_endpoint(),
            Registry::Public { .. } => ECR_PUBLIC_ENDPOINT.to_owned(),
        };
        endpoint::read("the image's host", &url, &[])
    }

    fn denied_hint(&self, keys: &Keys) -> String {
        let allow = match self {
            Registry::Private(_) => {
                "ecr:GetAuthorizationToken on *; a pull also needs ecr:BatchCheckLayerAvailability, \
                 ecr:GetDownloadUrlForLayer and ecr:BatchGetImage"
            }
            Registry::Public { .. } => "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken",
        };
        format!("allow this to {}: {allow}", keys.source)
    }
}

/// The endpoints that variables ask for, beside those that the host itself asks for.
fn variant(ecr: &Ecr, settings: &AwsSettings) -> Ecr {
    let dual = |suffix: &'static str| match suffix {
        "amazonaws.com" => "on.aws",
        "amazonaws.com.cn" => "on.amazonwebservices.com.cn",
        suffix => suffix,
    };
    let suffix = if settings.says_yes("AWS_USE_DUALSTACK_ENDPOINT") { dual(ecr.suffix) } else { ecr.suffix };
    Ecr { fips: ecr.fips || settings.says_yes("AWS_USE_FIPS_ENDPOINT"), suffix, ..ecr.clone() }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "authorizationData")]
    data: Option<OneOrMany>,
}

/// A list for private registries, one object for the public one.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Login>),
    One(Login),
}

#[derive(Deserialize)]
struct Login {
    #[serde(default, rename = "authorizationToken", deserialize_with = "json::secret")]
    token: Option<Secret<String>>,
    #[serde(default, rename = "expiresAt", deserialize_with = "json::number")]
    expires_at: Option<f64>,
}

/// Asks for a login.
///
/// # Errors
/// [`CloudError`], with what the service says and what to do.
pub(super) async fn login(ask: &Ask<'_>, registry: &Registry, keys: &Keys) -> Result<ProviderAnswer, CloudError> {
    let url = registry.endpoint(ask.settings)?;
    let name = format!("ECR at {}", url.authority());
    let hint = "check the network from here to it; private subnets need a VPC endpoint for ecr.api".to_owned();
    let service = Service { web: ask.web, name, retries: Retries::USUAL, deadline: ask.deadline, hint };
    let body = Secret::new(b"{}".to_vec());
    let scope = Scope { region: registry.region(), service: registry.service() };
    let question = Question { url: &url, scope, media_type: MEDIA_TYPE, target: Some(registry.target()), body: &body };
    let answered = post(&service, &question, keys).await?;
    if !answered.answer.status.is_success() {
        let hint = |code: &str| match code {
            "AccessDeniedException" | "AccessDenied" => registry.denied_hint(keys),
            code => keys.hint(code),
        };
        return Err(Refusal::read(&answered.answer).error(&service.name, &keys.secrets(), hint));
    }
    read(&service.name, answered.answer.body.expose(), registry.host(), answered.now)
}

fn read(service: &str, body: &[u8], host: &str, now: SystemTime) -> Result<ProviderAnswer, CloudError> {
    let answer: Answer = json::read(service, body)?;
    let login = match json::need(service, "authorizationData", answer.data)? {
        OneOrMany::One(login) => Some(login),
        OneOrMany::Many(logins) => logins.into_iter().next(),
    };
    let login = json::need(service, "login in its authorizationData", login)?;
    let token = json::need(service, "authorizationToken", login.token)?;
    let no_token = || json::malformed(service, "has an authorizationToken that is no base64 of USER:PASSWORD");
    let pair = Zeroizing::new(STANDARD.decode(token.expose().trim()).map_err(|_| no_token())?);
    let pair = std::str::from_utf8(&pair).map_err(|_| no_token())?;
    let (username, password) = pair.split_once(':').ok_or_else(no_token)?;
    if username.is_empty() || password.is_empty() {
        return Err(no_token());
    }
    let expires = login
        .expires_at
        .map(|at| moment::unix(at).ok_or_else(|| json::malformed(service, "has an expiresAt that is no time")));
    let credential = Credential::Basic { username: username.to_owned(), password: Secret::from(password) };
    Ok(ProviderAnswer {
        cache_key_type: CacheKeyType::Registry,
        cache_duration: keep_for(expires.transpose()?, now),
        auth: vec![(host.to_owned(), credential)],
    })
}

/// Half of what is left, in whole seconds. Without an end nothing is kept; past it the asking side's default holds.
fn keep_for(expires: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    let Some(expires) = expires else { return Some(Duration::ZERO) };
    let left = moment::remaining(expires, now);
    (!left.is_zero()).then(|| Duration::from_secs(left.as_secs() / 2))
}

#[cfg(test)]
mod tests;
