//! Azure's login service: a token for a proof.
//!
//! Source of truth: Microsoft's "OAuth 2.0 client credentials flow", the cases with a secret and with a federated credential.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebAnswer, WebPeer, WebRequest, WebRoute};

use super::choice::{Bound, Client, Proof};
use crate::cloud::asking::{ANSWER_BYTES, REQUEST_LIMIT, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries, passing};
use crate::cloud::{CloudError, endpoint, files, form, json};

/// For whom a token is made. Registries refuse tokens for the resource manager where an administrator says so.
pub(super) const AUDIENCE: &str = "https://containerregistry.azure.net";
const SCOPE: &str = "https://containerregistry.azure.net/.default";
const JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, deserialize_with = "json::secret")]
    access_token: Option<Secret<String>>,
}

/// The token in an answer that is a success.
pub(super) fn token_of(service: &str, answer: &WebAnswer) -> Result<Secret<String>, CloudError> {
    let found: TokenAnswer = json::read(service, answer.body.expose())?;
    json::need(service, "access_token", found.access_token)
}

/// A token for an application of a tenant.
pub(super) async fn token(
    web: &Web,
    login: &HttpUrl,
    client: &Client,
    deadline: Deadline,
) -> Result<Secret<String>, CloudError> {
    let proof = match &client.proof {
        Proof::Assertion(token) => token.clone(),
        Proof::AssertionFile(path) => files::token("AZURE_FEDERATED_TOKEN_FILE", path).await?,
        Proof::Secret(secret) => secret.clone(),
    };
    let mut fields = vec![("grant_type", "client_credentials"), ("client_id", &client.client_id), ("scope", SCOPE)];
    match &client.proof {
        Proof::Assertion(_) | Proof::AssertionFile(_) => {
            fields.extend([("client_assertion_type", JWT), ("client_assertion", proof.expose().as_str())]);
        }
        Proof::Secret(_) => fields.push(("client_secret", proof.expose())),
    }
    let service = Service {
        web,
        name: format!("the login service at {}", login.authority()),
        retries: Retries::USUAL,
        deadline,
        hint: String::new(),
    };
    // A tenant is letters, digits, hyphens and dots, whoever wrote it.
    let url = endpoint::under("the login service", login, &format!("/{}/oauth2/v2.0/token", client.tenant))?;
    let answer = service.ask_usual(&posted(url, form::body(&fields), WebRoute::Usual)).await?;
    if answer.status != StatusCode::OK {
        return Err(refusal(&service.name, &answer, &[proof.expose()], hint));
    }
    token_of(&service.name, &answer)
}

/// A token for a service account with identity bindings: the API server has a door of its own to Azure, which trusts the
/// cluster's certificate authority. No proxy is between.
pub(super) async fn bound_token(web: &Web, bound: &Bound, deadline: Deadline) -> Result<Secret<String>, CloudError> {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT),
        ("scope", SCOPE),
        ("client_assertion", bound.assertion.expose()),
        ("client_id", &bound.client_id),
    ];
    let bindings = &bound.bindings;
    let peer = WebPeer { host: bindings.server.clone(), ca_files: vec![bindings.ca_file.clone()] };
    let url = endpoint::read("--ib-sni-name", &format!("https://{}:{}/", bindings.sni, bindings.port), &[])?;
    let service = Service {
        web,
        name: format!("the cluster's door to Azure, {} at {},", bindings.sni, bindings.server),
        retries: Retries::USUAL,
        deadline,
        hint: format!("check --ib-sni-name, --ib-apiserver-ip and {}", bindings.ca_file.display()),
    };
    let request = posted(url, form::body(&fields), WebRoute::Direct);
    let answer = service.ask_at(&peer, || Ok(request.clone()), |answer| passing(answer.status)).await?;
    if answer.status != StatusCode::OK {
        return Err(refusal(&service.name, &answer, &[bound.assertion.expose()], hint));
    }
    token_of(&service.name, &answer)
}

/// A form that is posted.
pub(super) fn posted(url: HttpUrl, body: Secret<Vec<u8>>, route: WebRoute) -> WebRequest {
    WebRequest {
        method: Method::POST,
        url,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(form::FORM))]),
        body,
        route,
        limit: REQUEST_LIMIT,
        bytes_max: ANSWER_BYTES,
    }
}

/// Whether a text may name a tenant or a client: IDs, and domains for tenants.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(plain) && !text.bytes().all(|b| b == b'.')
}

/// What the login service's numbers mean.
fn hint(words: &str) -> String {
    let known = [
        ("AADSTS70021", "no federated credential of the identity has the token's issuer, subject and audience"),
        ("AADSTS700211", "no federated credential of the identity has the token's issuer"),
        (
            "AADSTS700212",
            "no federated credential of the identity has the token's audience: it must be api://AzureADTokenExchange",
        ),
        (
            "AADSTS700213",
            "no federated credential of the identity has the token's subject, system:serviceaccount:NAMESPACE:NAME",
        ),
        ("AADSTS700024", "the token of the service account is not valid now: check the clocks"),
        ("AADSTS7000215", "the secret of the application is wrong: its value is wanted, not its ID"),
        ("AADSTS7000222", "the secret of the application has expired"),
        ("AADSTS700016", "the tenant does not know the client ID"),
        ("AADSTS90002", "there is no such tenant in this cloud"),
        (
            "AADSTS500011",
            "the tenant does not know container registries: register the resource provider Microsoft.ContainerRegistry",
        ),
    ];
    let number: String =
        words.split_once("AADSTS").map_or("", |(_, rest)| rest).chars().take_while(char::is_ascii_digit).collect();
    let code = format!("AADSTS{number}");
    known.iter().find(|(known, _)| *known == code).map_or("", |(_, hint)| hint).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place() {
        for good in ["72f988bf-86f1-41af-91ab-2d7cd011db47", "contoso.onmicrosoft.com", "organizations"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "..", "a/b", "a?b", "a b", "a%2f", "ä", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn numbers_are_told_in_words() {
        assert!(hint("invalid_client AADSTS70021: No matching").starts_with("no federated credential"));
        assert!(hint("AADSTS700213: x").contains("subject"));
        for unknown in ["", "AADSTS", "AADSTS7", "invalid_client"] {
            assert_eq!(hint(unknown), "", "{unknown}");
        }
    }
}
