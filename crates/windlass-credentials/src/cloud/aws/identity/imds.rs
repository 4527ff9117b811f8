//! The instance metadata service, version 2 only: what version 1 answers, any web application can be made to fetch.
//!
//! Source of truth: Amazon EC2 user guide, "Use IMDSv2".
//!
//! Invariants: `version_one_is_never_asked`, `a_token_that_ended_is_replaced_once`, `an_instance_without_a_role_is_no_error`,
//! `silence_names_the_hop_limit`.

use std::io;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::TransportError;
use windlass_distribution::web::{WebAnswer, WebRequest, WebRoute};

use super::Found;
use super::container::Answer;
use crate::cloud::asking::{ANSWER_BYTES, Service};
use crate::cloud::aws::Ask;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::refusal::Refusal;
use crate::cloud::aws::settings::AwsSettings;
use crate::cloud::retry::Retries;
use crate::cloud::{CloudError, endpoint, json};

const TOKEN: &str = "/latest/api/token";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// How long the token lasts, in seconds: the most there is.
const TOKEN_SECONDS: (&str, &str) = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// Addresses of the service.
const IPV4: &str = "169.254.169.254";
const IPV6: &str = "[fd00:ec2::254]";
/// A second for the connection, one for the answer: it is on the same machine.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest name of a role that IAM allows.
const ROLE_BYTES: usize = 64;
const RETRIES: Retries =
    Retries { tries: 4, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(1) };

/// Keys of the instance's role.
///
/// # Errors
/// [`CloudError`] of the service, if there is one.
pub(super) async fn keys(ask: &Ask<'_>) -> Result<Found, CloudError> {
    if ask.settings.says_yes("AWS_EC2_METADATA_DISABLED") {
        return Ok(Found::Nothing("AWS_EC2_METADATA_DISABLED is set".to_owned()));
    }
    let (what, base) = place(ask.settings)?;
    let name = format!("the instance metadata service at {}", base.authority());
    let hint = "in a container the answer may not get through: set the instance's HttpPutResponseHopLimit to 2; on a \
                machine that is not Amazon's set AWS_EC2_METADATA_DISABLED=true"
        .to_owned();
    let service = Service { web: ask.web, name, retries: RETRIES, deadline: ask.deadline, hint };
    match (Imds { service, what, base }).keys().await {
        Err(CloudError::Unreachable { service, source, .. }) if nobody_is_there(source.as_ref()) => {
            Ok(Found::Nothing(format!("{service} is not there")))
        }
        other => other,
    }
}

/// As [`keys`], for a profile that insists on it (`credential_source = Ec2InstanceMetadata`).
///
/// # Errors
/// As [`keys`]; also when the instance has no role.
pub(super) async fn required(ask: &Ask<'_>) -> Result<Keys, CloudError> {
    match keys(ask).await? {
        Found::Keys(keys) => Ok(keys),
        Found::Nothing(looked) => Err(CloudError::NoIdentity { looked, hint: String::new() }),
    }
}

/// The base, and what named it.
fn place(settings: &AwsSettings) -> Result<(&'static str, HttpUrl), CloudError> {
    let mode = settings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    let six = mode.is_some_and(|mode| mode.value().eq_ignore_ascii_case("ipv6"));
    let default = format!("http://{}", if six { IPV6 } else { IPV4 });
    let variable = settings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let (what, text) = match (&settings.imds_endpoint, &variable) {
        (Some(flag), _) => ("--imds-endpoint", flag.as_str()),
        (None, Some(variable)) => (variable.name, variable.value()),
        (None, None) => ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", default.as_str()),
    };
    endpoint::read(what, text, &[IPV4, IPV6]).map(|url| (what, url))
}

/// Whether the machine itself knows that nobody answers there: it is not Amazon's.
fn nobody_is_there(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let kinds = [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::AddrNotAvailable,
    ];
    let Some(TransportError::Connect { .. }) = error.downcast_ref::<TransportError>() else { return false };
    error.source().and_then(|s| s.downcast_ref::<io::Error>()).is_some_and(|error| kinds.contains(&error.kind()))
}

struct Imds<'a> {
    service: Service<'a>,
    what: &'static str,
    base: HttpUrl,
}

impl Imds<'_> {
    async fn keys(&self) -> Result<Found, CloudError> {
        let mut token = self.token().await?;
        let roles = self.get(ROLES, &mut token).await?;
        if roles.status == StatusCode::NOT_FOUND {
            return Ok(Found::Nothing("this instance has no role".to_owned()));
        }
        let text = String::from_utf8_lossy(self.success(&roles)?).into_owned();
        let Some(role) = text.lines().map(str::trim).find(|line| !line.is_empty()) else {
            return Ok(Found::Nothing("this instance has no role".to_owned()));
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
        if role.len() > ROLE_BYTES || !role.bytes().all(plain) {
            return Err(json::malformed(&self.service.name, "names a role that cannot be one"));
        }
        let answer = self.get(&format!("{ROLES}{role}"), &mut token).await?;
        let name = &self.service.name;
        let answer: Answer = json::read(name, self.success(&answer)?)?;
        match answer.code.as_deref() {
            None | Some("Success") => {
                let mut keys = answer.keys(name)?;
                keys.source = format!("this instance's role {role}");
                Ok(Found::Keys(keys))
            }
            Some(code) => {
                let words = crate::cloud::asking::words(&format!("{code} for the role {role}"));
                let hint = format!("the trust policy of {role} must allow ec2.amazonaws.com to assume it");
                Err(CloudError::Refused { service: name.clone(), words, hint })
            }
        }
    }

    async fn token(&self) -> Result<Secret<String>, CloudError> {
        let (header, seconds) = TOKEN_SECONDS;
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(header), HeaderValue::from_static(seconds));
        let answer = self.service.ask_usual(&self.request(Method::PUT, TOKEN, headers)?).await?;
        let text = std::str::from_utf8(self.success(&answer)?).unwrap_or_default().trim();
        if text.is_empty() || HeaderValue::from_str(text).is_err() {
            return Err(json::malformed(&self.service.name, "has no token"));
        }
        Ok(Secret::from(text))
    }

    /// Asks with the token, and once more with a new one if that has ended.
    async fn get(&self, tail: &str, token: &mut Secret<String>) -> Result<WebAnswer, CloudError> {
        let answer = self.get_with(tail, token).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        *token = self.token().await?;
        self.get_with(tail, token).await
    }

    async fn get_with(&self, tail: &str, token: &Secret<String>) -> Result<WebAnswer, CloudError> {
        let mut headers = HeaderMap::new();
        if let Ok(mut value) = HeaderValue::from_str(token.expose()) {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(TOKEN_HEADER), value);
        }
        self.service.ask_usual(&self.request(Method::GET, tail, headers)?).await
    }

    fn request(&self, method: Method, tail: &str, headers: HeaderMap) -> Result<WebRequest, CloudError> {
        Ok(WebRequest {
            method,
            url: endpoint::under(self.what, &self.base, tail)?,
            headers,
            body: Secret::new(Vec::new()),
            route: WebRoute::Direct,
            limit: LIMIT,
            bytes_max: ANSWER_BYTES,
        })
    }

    fn success<'a>(&self, answer: &'a WebAnswer) -> Result<&'a [u8], CloudError> {
        if answer.status.is_success() {
            return Ok(answer.body.expose());
        }
        let refusal = Refusal::read(answer);
        let off = matches!(answer.status.as_u16(), 403..=405);
        Err(refusal.error(&self.service.name, &[], |_| match off {
            true => "turn the instance's metadata endpoint on, with version 2, or set AWS_EC2_METADATA_DISABLED=true"
                .to_owned(),
            false => String::new(),
        }))
    }
}
