//! The metadata server of an instance: what the machine is, and tokens of the account that it runs as.
//!
//! Asked past every proxy. An answer counts only with the header `Metadata-Flavor: Google`: on other machines something
//! else may answer at the same address.

use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebRequest, WebRoute};

use super::Token;
use crate::cloud::asking::{ANSWER_BYTES, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries};
use crate::cloud::{CloudError, endpoint, json};

/// With its final dot, so that no search domain of this machine is tried.
const NAME: &str = "metadata.google.internal.";
const BY_NAME: &str = "http://metadata.google.internal";
const BY_ADDRESS: &str = "http://169.254.169.254";
/// The name is either known at once or not at all.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);
/// One question.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// The question for the scopes, which only helps to explain.
const SCOPES_LIMIT: Duration = Duration::from_secs(1);

const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

/// Scopes of which an account needs one to read images.
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/devstorage", "https://www.googleapis.com/auth/cloud-platform"];

/// The metadata server.
pub(super) struct Metadata<'a> {
    service: Service<'a>,
    base: HttpUrl,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, deserialize_with = "json::secret")]
    access_token: Option<Secret<String>>,
    #[serde(default, deserialize_with = "json::number")]
    expires_in: Option<f64>,
}

impl<'a> Metadata<'a> {
    /// Where it is; `place` is what an operator said.
    pub(super) async fn find(
        web: &'a Web,
        place: Option<&HttpUrl>,
        deadline: Deadline,
    ) -> Result<Metadata<'a>, CloudError> {
        let base = match place {
            Some(place) => place.clone(),
            None => {
                let resolved = timeout(RESOLVE_LIMIT, tokio::net::lookup_host((NAME, 80))).await;
                let by_name = resolved.is_ok_and(|found| found.is_ok_and(|mut addresses| addresses.next().is_some()));
                HttpUrl::parse(if by_name { BY_NAME } else { BY_ADDRESS }).expect("both are URLs")
            }
        };
        let service = Service {
            web,
            name: format!("the metadata server at {}", base.authority()),
            retries: Retries::USUAL,
            deadline,
            hint: "is this a machine of Google's, and may this process reach its metadata server?".to_owned(),
        };
        Ok(Metadata { service, base })
    }

    /// The token of the account that the instance runs as.
    pub(super) async fn token(&self) -> Result<Token, CloudError> {
        let body =
            self.get("instance/service-accounts/default/token").await?.ok_or_else(|| CloudError::NoIdentity {
                looked: format!("{} has no default service account", self.service.name),
                hint: "attach a service account to the instance or node pool".to_owned(),
            })?;
        let answer: TokenAnswer = json::read(&self.service.name, body.expose())?;
        let text = json::need(&self.service.name, "access_token", answer.access_token)?;
        self.check_scopes().await?;
        let life = Duration::try_from_secs_f64(answer.expires_in.unwrap_or(0.0)).unwrap_or_default();
        Ok(Token { text, life })
    }

    /// A token without the right scopes is refused by the registry with words that do not tell why. Where the scopes
    /// cannot be learnt at once the token is tried.
    async fn check_scopes(&self) -> Result<(), CloudError> {
        let once = Retries { tries: 1, ..Retries::USUAL };
        let deadline = Deadline::after(SCOPES_LIMIT.min(self.service.deadline.left(Instant::now())), Instant::now());
        let service = Service { retries: once, deadline, ..self.service.clone() };
        let quick = Metadata { service, base: self.base.clone() };
        let Ok(Some(body)) = quick.get("instance/service-accounts/default/scopes?alt=json").await else {
            return Ok(());
        };
        let Ok(scopes) = json::read::<Vec<String>>(&self.service.name, body.expose()) else { return Ok(()) };
        let fits = |scope: &String| SCOPES.iter().any(|wanted| scope.starts_with(wanted));
        if scopes.is_empty() || scopes.iter().any(fits) {
            return Ok(());
        }
        Err(CloudError::NoIdentity {
            looked: "the instance's service account may not read images: its access scopes lack both \
                     devstorage.read_only and cloud-platform"
                .to_owned(),
            hint: "give the instance or node pool the access scope cloud-platform".to_owned(),
        })
    }

    /// An attribute of the instance; `None` if it has no such attribute.
    pub(super) async fn attribute(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, CloudError> {
        self.get(&format!("instance/attributes/{name}")).await
    }

    /// What is asked here, for messages.
    pub(super) fn name(&self) -> &str {
        &self.service.name
    }

    async fn get(&self, path: &str) -> Result<Option<Secret<Vec<u8>>>, CloudError> {
        let url = endpoint::under("the metadata server", &self.base, &format!("/computeMetadata/v1/{path}"))?;
        let request = WebRequest {
            method: Method::GET,
            url,
            headers: HeaderMap::from_iter([(FLAVOR, GOOGLE)]),
            body: Secret::new(Vec::new()),
            route: WebRoute::Direct,
            limit: REQUEST_LIMIT,
            bytes_max: ANSWER_BYTES,
        };
        let answer = self.service.ask_usual(&request).await?;
        if answer.headers.get(FLAVOR) != Some(&GOOGLE) {
            let problem = "lacks the header Metadata-Flavor: Google, so something else answers there";
            return Err(json::malformed(&self.service.name, problem));
        }
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(&self.service.name, &answer, &[], |_| String::new())),
        }
    }
}
