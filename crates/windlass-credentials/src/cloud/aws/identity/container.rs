//! The endpoint that a container gets beside it: EKS Pod Identity, ECS.
//!
//! Source of truth: "Container credential provider" of the AWS SDKs reference guide; where it may be is stricter here.
//!
//! Invariants: `only_known_places_are_asked`, `the_token_file_is_read_each_time`.

use std::path::PathBuf;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use windlass_core::httpurl::{HttpUrl, UrlScheme};
use windlass_core::secret::Secret;
use windlass_distribution::web::{WebRequest, WebRoute};

use super::Found;
use crate::cloud::asking::{ANSWER_BYTES, Service};
use crate::cloud::aws::Ask;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::refusal::Refusal;
use crate::cloud::aws::settings::{AwsSettings, Variable};
use crate::cloud::retry::Retries;
use crate::cloud::{CloudError, endpoint, files, json, moment};

const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
/// Where a relative one is: the agent of ECS.
const ECS: &str = "http://169.254.170.2";
/// Agents that are asked by plain http: of ECS, and of EKS by IPv4 and IPv6.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
/// An agent on the same machine answers at once, but asks AWS first.
const LIMIT: Duration = Duration::from_secs(5);

/// The container's endpoint, if variables name one.
///
/// # Errors
/// [`CloudError`] of the variables or the endpoint.
pub(super) async fn keys(ask: &Ask<'_>) -> Result<Found, CloudError> {
    let Some((variable, url)) = place(ask.settings)? else {
        return Ok(Found::Nothing(format!("{FULL} is not set")));
    };
    ask_agent(ask, variable, url).await.map(Found::Keys)
}

/// As [`keys`], for a profile that insists on it (`credential_source = EcsContainer`).
///
/// # Errors
/// As [`keys`]; also when no variable names an endpoint.
pub(super) async fn required(ask: &Ask<'_>) -> Result<Keys, CloudError> {
    match keys(ask).await? {
        Found::Keys(keys) => Ok(keys),
        Found::Nothing(looked) => Err(CloudError::NoIdentity { looked, hint: String::new() }),
    }
}

fn place(settings: &AwsSettings) -> Result<Option<(&'static str, HttpUrl)>, CloudError> {
    if let Some(variable) = settings.variable(RELATIVE) {
        let refuse = |variable: Variable<'_>| CloudError::Settings {
            what: variable.name.to_owned(),
            problem: "must begin with a slash".to_owned(),
        };
        let tail = variable.value();
        if !tail.starts_with('/') {
            return Err(refuse(variable));
        }
        return endpoint::read(RELATIVE, &format!("{ECS}{tail}"), &AGENTS).map(|url| Some((RELATIVE, url)));
    }
    let read = |variable: Variable<'_>| endpoint::read(FULL, variable.value(), &AGENTS).map(|url| (FULL, url));
    settings.variable(FULL).map(read).transpose()
}

async fn ask_agent(ask: &Ask<'_>, variable: &'static str, url: HttpUrl) -> Result<Keys, CloudError> {
    let name = format!("the container's credential endpoint at {}", url.authority());
    let hint = format!("check that the Pod Identity agent runs on this node; {variable} names the endpoint");
    let mut headers = HeaderMap::new();
    let secret = token(ask.settings).await?;
    if let Some((what, token)) = &secret {
        let refuse = |_| CloudError::Settings { what: (*what).to_owned(), problem: "holds no token".to_owned() };
        let mut value = HeaderValue::from_str(token.expose()).map_err(refuse)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let route = match url.origin().scheme {
        UrlScheme::Http => WebRoute::Direct,
        UrlScheme::Https => WebRoute::Usual,
    };
    let request = WebRequest {
        method: Method::GET,
        url,
        headers,
        body: Secret::new(Vec::new()),
        route,
        limit: LIMIT,
        bytes_max: ANSWER_BYTES,
    };
    let service = Service { web: ask.web, name, retries: Retries::USUAL, deadline: ask.deadline, hint };
    let answer = service.ask_usual(&request).await?;
    if !answer.status.is_success() {
        let known: Vec<&str> = secret.iter().map(|(_, token)| token.expose().as_str()).collect();
        let hint = |code: &str| match (code, answer.status.is_client_error()) {
            ("ExpiredTokenException", _) => "the pod's token has expired: check that its file is renewed".to_owned(),
            (_, true) => "give the pod's service account a pod identity association, with a role that trusts \
                          pods.eks.amazonaws.com"
                .to_owned(),
            (_, false) => String::new(),
        };
        return Err(Refusal::read(&answer).error(&service.name, &known, hint));
    }
    json::read::<Answer>(&service.name, answer.body.expose())?.keys(&service.name)
}

/// The token as it stands in its file, or in a variable.
async fn token(settings: &AwsSettings) -> Result<Option<(&'static str, Secret<String>)>, CloudError> {
    if let Some(file) = settings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        let token = files::token(file.name, &PathBuf::from(file.value())).await?;
        return Ok(Some((file.name, token)));
    }
    let variable = settings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    Ok(variable.map(|variable| (variable.name, Secret::from(variable.value()))))
}

/// Keys as endpoints beside a workload write them.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default, rename = "Code")]
    pub(super) code: Option<String>,
    #[serde(default, rename = "AccessKeyId")]
    id: Option<String>,
    #[serde(default, rename = "SecretAccessKey", deserialize_with = "json::secret")]
    secret: Option<Secret<String>>,
    #[serde(default, rename = "Token", alias = "SessionToken", deserialize_with = "json::secret")]
    token: Option<Secret<String>>,
    #[serde(default, rename = "Expiration")]
    expiration: Option<String>,
}

impl Answer {
    /// The keys, if the answer has all of them.
    ///
    /// # Errors
    /// [`CloudError::Malformed`] names what is missing.
    pub(super) fn keys(self, service: &str) -> Result<Keys, CloudError> {
        let expires = self.expiration.filter(|text| !text.is_empty()).map(|text| {
            moment::rfc3339(&text).ok_or_else(|| json::malformed(service, "has an Expiration that is no time"))
        });
        Ok(Keys {
            access_key_id: json::need(service, "AccessKeyId", self.id.filter(|id| !id.is_empty()))?,
            secret: json::need(service, "SecretAccessKey", self.secret)?,
            session_token: self.token,
            expires: expires.transpose()?,
            source: service.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &'static str, value: &'static str) -> Option<String> {
        let settings = AwsSettings::from_environment(&|n| (n == name).then(|| value.into()));
        place(&settings).ok().flatten().map(|(_, url)| url.to_request_uri())
    }

    #[test]
    fn only_known_places_are_asked() {
        let table = [
            (RELATIVE, "/v2/credentials/1?x=2", Some("http://169.254.170.2/v2/credentials/1?x=2")),
            (RELATIVE, "@evil.example/", None),
            (RELATIVE, ".evil.example/", None),
            (FULL, "http://169.254.170.23/v1/credentials", Some("http://169.254.170.23/v1/credentials")),
            (FULL, "http://[fd00:ec2::23]/v1/credentials", Some("http://[fd00:ec2::23]/v1/credentials")),
            (FULL, "http://localhost:7/x", Some("http://localhost:7/x")),
            (FULL, "https://broker.example/x", Some("https://broker.example/x")),
            (FULL, "http://169.254.169.254/x", None),
            (FULL, "http://169.254.170.23.evil.example/x", None),
            (FULL, "http://broker.example/x", None),
        ];
        for (name, value, want) in table {
            assert_eq!(placed(name, value).as_deref(), want, "{value}");
        }
    }
}
