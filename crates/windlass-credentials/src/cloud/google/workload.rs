//! Workload identity: the token of a Kubernetes service account against one of Google's own, at Google's STS.

use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebRequest, WebRoute};

use super::Token;
use crate::cloud::asking::{ANSWER_BYTES, REQUEST_LIMIT, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries};
use crate::cloud::{CloudError, json};

/// The annotation by which a service account asks to be answered with its own identity: `"true"`.
pub const WANTS_OWN_IDENTITY: &str = "iam.gke.io/enable-wi-image-pull";

/// All tries of one exchange.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(30);
const HINT: &str = "check --identity-provider and --project-id, and that the token has the audience of the workload \
                    identity pool";

/// Where the service accounts of a cluster are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkloadIdentity {
    /// The cluster as an identity provider, a URL.
    pub(super) provider: String,
    /// The project whose pool the cluster is in.
    pub(super) project: String,
}

#[derive(Serialize)]
struct Exchange<'a> {
    audience: String,
    grant_type: &'a str,
    requested_token_type: &'a str,
    scope: &'a str,
    subject_token: &'a str,
    subject_token_type: &'a str,
}

#[derive(Deserialize)]
struct Exchanged {
    #[serde(default, deserialize_with = "json::secret")]
    access_token: Option<Secret<String>>,
    #[serde(default, deserialize_with = "json::number")]
    expires_in: Option<f64>,
}

/// Exchanges the token. A failure is one: the node's account never stands in for the service account.
pub(super) async fn exchange(
    web: &Web,
    sts: &HttpUrl,
    identity: &WorkloadIdentity,
    token: &Secret<String>,
) -> Result<Token, CloudError> {
    let service = Service {
        web,
        name: format!("Google's STS at {}", sts.authority()),
        retries: Retries::USUAL,
        deadline: Deadline::after(EXCHANGE_LIMIT, Instant::now()),
        hint: String::new(),
    };
    let body = Exchange {
        audience: format!("identitynamespace:{}.svc.id.goog:{}", identity.project, identity.provider),
        grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
        requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
        scope: "https://www.googleapis.com/auth/cloud-platform",
        subject_token: token.expose(),
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    };
    // Room at once: a body that grew would leave copies of the token behind.
    let mut bytes = Vec::with_capacity(1024 + 2 * token.expose().len() + 2 * body.audience.len());
    serde_json::to_writer(&mut bytes, &body).expect("texts are always JSON");
    let request = WebRequest {
        method: Method::POST,
        url: sts.clone(),
        headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
        body: Secret::new(bytes),
        route: WebRoute::Usual,
        limit: REQUEST_LIMIT,
        bytes_max: ANSWER_BYTES,
    };
    let answer = service.ask_usual(&request).await?;
    if answer.status != StatusCode::OK {
        return Err(refusal(&service.name, &answer, &[token.expose()], |_| HINT.to_owned()));
    }
    let answer: Exchanged = json::read(&service.name, answer.body.expose())?;
    let text = json::need(&service.name, "access_token", answer.access_token)?;
    let life = Duration::try_from_secs_f64(answer.expires_in.unwrap_or(0.0)).unwrap_or_default();
    Ok(Token { text, life })
}
