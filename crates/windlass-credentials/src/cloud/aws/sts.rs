//! The Security Token Service: keys of a role, for a token or for other keys.
//!
//! Source of truth: the AWS STS API reference, `AssumeRoleWithWebIdentity` (unsigned) and `AssumeRole` (signed).
//!
//! Invariants: `a_token_becomes_keys_without_a_signature`, `a_refusal_never_repeats_the_token`.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::web::{WebAnswer, WebRequest, WebRoute};

use super::Ask;
use super::keys::Keys;
use super::partition::{Partition, Variant, check_region, of_role, region_for};
use super::refusal::{Refusal, element};
use super::settings::Flag;
use super::signed::{Question, post};
use super::sigv4::Scope;
use crate::cloud::asking::{ANSWER_BYTES, REQUEST_LIMIT, Service};
use crate::cloud::retry::Retries;
use crate::cloud::{CloudError, endpoint, form, json, moment};

/// The API's version.
const VERSION: (&str, &str) = ("Version", "2011-06-15");

/// The session's name where nobody gives one; the same as upstream's, which policies may name.
pub(super) const SESSION_NAME: &str = "ecr-credential-provider";

/// A role to assume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    /// The ARN.
    pub(super) arn: String,
    /// Who gave it: a variable, a profile, an annotation.
    pub(super) named_by: String,
    /// The session's name.
    pub(super) session_name: Option<String>,
    /// What a foreign account wants to hear.
    pub(super) external_id: Option<Secret<String>>,
    /// How long the keys last.
    pub(super) duration_seconds: Option<String>,
    /// The region of the profile.
    pub(super) region: Option<String>,
}

/// Where a role is assumed.
struct Place {
    url: HttpUrl,
    region: String,
    name: String,
}

/// Keys for a token that an identity provider signed.
///
/// # Errors
/// [`CloudError`] says what the service says; the token is not in it.
pub(super) async fn with_web_identity(ask: &Ask<'_>, role: &Role, token: &Secret<String>) -> Result<Keys, CloudError> {
    let place = place(ask, role)?;
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        VERSION,
        ("RoleArn", &role.arn),
        ("RoleSessionName", role.session_name()),
        ("WebIdentityToken", token.expose()),
    ];
    let mut fields = fields.to_vec();
    fields.extend(role.duration_seconds.as_deref().map(|seconds| ("DurationSeconds", seconds)));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form::FORM));
    let request = WebRequest {
        method: Method::POST,
        url: place.url.clone(),
        headers,
        body: form::body(&fields),
        route: WebRoute::Usual,
        limit: REQUEST_LIMIT,
        bytes_max: ANSWER_BYTES,
    };
    let again = |answer: &WebAnswer| !answer.status.is_success() && Refusal::read(answer).is_passing();
    let answer = service(ask, &place).ask(|| Ok(request.clone()), again).await?;
    if !answer.status.is_success() {
        let hint = |code: &str| web_identity_hint(code, role);
        return Err(Refusal::read(&answer).error(&place.name, &[token.expose()], hint));
    }
    keys(&place.name, &answer, role)
}

/// Keys of a role for other keys.
///
/// # Errors
/// [`CloudError`] says what the service says.
pub(super) async fn assume(ask: &Ask<'_>, role: &Role, own: &Keys) -> Result<Keys, CloudError> {
    let place = place(ask, role)?;
    let mut fields =
        vec![("Action", "AssumeRole"), VERSION, ("RoleArn", &role.arn), ("RoleSessionName", role.session_name())];
    fields.extend(role.duration_seconds.as_deref().map(|seconds| ("DurationSeconds", seconds)));
    fields.extend(role.external_id.as_ref().map(|id| ("ExternalId", id.expose().as_str())));
    let body = form::body(&fields);
    let scope = Scope { region: &place.region, service: "sts" };
    let question = Question { url: &place.url, scope, media_type: form::FORM, target: None, body: &body };
    let answer = post(&service(ask, &place), &question, own).await?.answer;
    if !answer.status.is_success() {
        let hint = |code: &str| match code {
            "AccessDenied" => format!(
                "allow sts:AssumeRole on {} to the keys of {}, and them in the role's trust policy",
                role.arn, own.source
            ),
            code => own.hint(code),
        };
        return Err(Refusal::read(&answer).error(&place.name, &own.secrets(), hint));
    }
    keys(&place.name, &answer, role)
}

impl Role {
    fn session_name(&self) -> &str {
        self.session_name.as_deref().unwrap_or(SESSION_NAME)
    }
}

/// The region: of the partition that the role belongs to, the machine's one before the registry's.
fn place(ask: &Ask<'_>, role: &Role) -> Result<Place, CloudError> {
    let partition = of_role(&role.named_by, &role.arn)?;
    let of_machine = ask.settings.variable("AWS_REGION").or_else(|| ask.settings.variable("AWS_DEFAULT_REGION"));
    // A name that stands for no region in particular.
    let of_machine = of_machine.filter(|region| region.value() != "aws-global");
    if let Some(variable) = of_machine {
        check_region(variable.name, variable.value())?;
    }
    if let Some(region) = &role.region {
        check_region(&role.named_by, region)?;
    }
    let regions = [of_machine.map(|v| v.value()), role.region.as_deref(), Some(ask.region)];
    let region = region_for(partition, regions.into_iter().flatten()).to_owned();
    let variant = Variant {
        fips: ask.settings.says_yes("AWS_USE_FIPS_ENDPOINT"),
        dual_stack: ask.settings.says_yes("AWS_USE_DUALSTACK_ENDPOINT"),
    };
    let host = Partition::of_region(&region).sts_host(&region, variant);
    let url = match ask.settings.endpoint(Flag::Sts, "AWS_ENDPOINT_URL_STS") {
        Some((what, text)) => endpoint::read(what, text, &[])?,
        None => endpoint::read("the region", &format!("https://{host}/"), &[])?,
    };
    let name = format!("the STS at {}", url.authority());
    Ok(Place { url, region, name })
}

fn service<'a>(ask: &Ask<'a>, place: &Place) -> Service<'a> {
    let hint =
        "check the network from here to it; AWS_REGION chooses the region, AWS_ENDPOINT_URL_STS another endpoint";
    let (name, hint) = (place.name.clone(), hint.to_owned());
    Service { web: ask.web, name, retries: Retries::USUAL, deadline: ask.deadline, hint }
}

fn keys(service: &str, answer: &WebAnswer, role: &Role) -> Result<Keys, CloudError> {
    let text = std::str::from_utf8(answer.body.expose()).map_err(|_| json::malformed(service, "is no text"))?;
    let inside = text.split_once("<Credentials>").and_then(|(_, rest)| rest.split_once("</Credentials>"));
    let (inside, _) = json::need(service, "Credentials", inside)?;
    let need = |name: &str| json::need(service, name, element(inside, name).filter(|text| !text.is_empty()));
    let expires = need("Expiration")?;
    let expires =
        moment::rfc3339(&expires).ok_or_else(|| json::malformed(service, "has an Expiration that is no time"))?;
    Ok(Keys {
        access_key_id: need("AccessKeyId")?,
        secret: Secret::new(need("SecretAccessKey")?),
        session_token: Some(Secret::new(need("SessionToken")?)),
        expires: Some(expires),
        source: format!("the role {}", role.arn),
    })
}

fn web_identity_hint(code: &str, role: &Role) -> String {
    let arn = &role.arn;
    match code {
        "AccessDenied" => format!(
            "the trust policy of {arn} must allow sts:AssumeRoleWithWebIdentity for this service account: compare its \
             conditions on sub (system:serviceaccount:NAMESPACE:NAME) and aud with the token"
        ),
        "InvalidIdentityToken" => {
            "IAM needs an OIDC identity provider for the issuer of the cluster's tokens, with the \
                                   token's audience"
                .to_owned()
        }
        "ExpiredTokenException" | "ExpiredToken" => {
            "the token has expired: check that its file is renewed, and this machine's clock".to_owned()
        }
        "IDPCommunicationError" => {
            "AWS could not fetch the keys of the cluster's token issuer: its discovery document must be public"
                .to_owned()
        }
        "RegionDisabledException" => "activate the STS for this region in the account, or set AWS_REGION".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
