//! Azure: the metadata server of a machine, Entra's token service, a login server of the registries, the description of
//! a cloud.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use super::accounts::NotAccepted;
use super::desk::Desk;
use super::trouble::Ill;
use super::{ACR_CUSTOM_HOST, ACR_HOST, ACR_USER, Realm, Service};
use crate::wire::Reply;

/// The tenant.
pub(super) const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// An application with a secret and with a federated credential.
pub(super) const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
/// A managed identity that was assigned to the machine.
pub(super) const ASSIGNED: &str = "66666666-7777-8888-9999-000000000000";
/// The same identity by its resource.
pub(super) const ASSIGNED_RESOURCE: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/test/\
                                            providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller";
/// The audience of service accounts' tokens for Entra.
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";
/// The registries' audience.
const REGISTRIES: &str = "https://containerregistry.azure.net";
/// Suffix of the login servers of the custom cloud that the resource manager describes.
const CUSTOM_SUFFIX: &str = "azurecr.custom.example";
/// How an assertion says what it is.
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Length of a token.
const TOKEN_LEN: usize = 200;

/// The secret of the application: there is one for all tests, since it is known before anything starts.
pub(super) const CLIENT_SECRET: &str = "Q~application~secret~of~the~test~clouds";

fn json_reply(status: u16, body: &Json) -> Reply {
    Reply::new(status, "application/json; charset=utf-8", body.to_string())
}

/// A new token of Entra for the registries.
fn entra_token(desk: &mut Desk<'_>, who: &str) -> (String, Timestamp) {
    let token = format!("eyJ0eXAiOiJKV1QifQ.{}.{}", desk.state.secret(TOKEN_LEN), desk.state.secret(43));
    let until = desk.now + SignedDuration::try_from(desk.state.settings.azure_life).expect("a life of this length");
    desk.state.secrets.push(token.clone());
    desk.state.entra.push((token.clone(), until, who.to_owned()));
    desk.call.who = Some(who.to_owned());
    (token, until)
}

pub(super) fn metadata(desk: &mut Desk<'_>) -> Reply {
    let refuse =
        |status, error: &str, words: &str| json_reply(status, &json!({ "error": error, "error_description": words }));
    if desk.message.method != "GET" || desk.message.path != "/metadata/identity/oauth2/token" {
        return refuse(404, "not_found", "");
    }
    if desk.message.header("metadata") != Some("true") || desk.message.header("x-forwarded-for").is_some() {
        return refuse(400, "bad_request_102", "Required metadata header not specified");
    }
    if desk.parameter("api-version").as_deref() != Some("2018-02-01") {
        return refuse(400, "bad_request", "api-version is not supported");
    }
    if desk.parameter("resource").as_deref() != Some(REGISTRIES) {
        return refuse(400, "invalid_resource", "AADSTS500011: The resource principal was not found in the tenant");
    }
    let by_resource = desk.parameter("msi_res_id").or_else(|| desk.parameter("mi_res_id"));
    let who = match (desk.parameter("client_id"), by_resource) {
        (None, None) if desk.state.settings.azure_has_system_identity => "system-assigned",
        (Some(id), None) if id == ASSIGNED => ASSIGNED,
        (None, Some(id)) if id.eq_ignore_ascii_case(ASSIGNED_RESOURCE) => ASSIGNED,
        _ => return metadata_words(Ill::Refused),
    };
    let (token, until) = entra_token(desk, who);
    let mut body = json!({
        "access_token": token,
        "client_id": ASSIGNED,
        "not_before": (desk.now.as_second()).to_string(),
        "resource": REGISTRIES,
        "token_type": "Bearer",
    });
    let expiry = desk.state.settings.azure_expiry;
    let left = until.as_second() - desk.now.as_second();
    for (name, seconds, past) in
        [("expires_in", left, -3600), ("ext_expires_in", left, -3600), ("expires_on", until.as_second(), 1)]
    {
        if let Some(value) = expiry.json(seconds, past) {
            body[name] = value;
        }
    }
    json_reply(200, &body)
}

pub(super) fn metadata_words(ill: Ill) -> Reply {
    let refuse =
        |status, error: &str, words: &str| json_reply(status, &json!({ "error": error, "error_description": words }));
    match ill {
        Ill::Throttled => refuse(429, "too_many_requests", "Too many requests"),
        Ill::Refused => refuse(400, "invalid_request", "Identity not found"),
        Ill::Expired => Reply::new(410, "text/html", "the service is being updated"),
    }
}

pub(super) fn entra(desk: &mut Desk<'_>) -> Reply {
    let path = desk.message.path.clone();
    let tenant = path.strip_prefix('/').and_then(|path| path.strip_suffix("/oauth2/v2.0/token"));
    let (Some(tenant), "POST") = (tenant, desk.message.method.as_str()) else {
        return json_reply(404, &json!({}));
    };
    if tenant != TENANT {
        let words = format!("AADSTS90002: Tenant '{tenant}' not found.");
        return entra_error(400, "invalid_request", 90002, &words);
    }
    if desk.field("grant_type").as_deref() != Some("client_credentials") {
        let words = "AADSTS70003: The app requested an unsupported grant type.";
        return entra_error(400, "unsupported_grant_type", 70003, words);
    }
    if desk.field("scope").as_deref() != Some("https://containerregistry.azure.net/.default") {
        let words = "AADSTS500011: The resource principal was not found in the tenant.";
        return entra_error(400, "invalid_resource", 500_011, words);
    }
    let client = desk.field("client_id").unwrap_or_default();
    if client != CLIENT {
        let words = format!("AADSTS700016: Application with identifier '{client}' was not found in the directory.");
        return entra_error(400, "unauthorized_client", 700_016, &words);
    }
    let who = match (desk.field("client_assertion"), desk.field("client_secret")) {
        (Some(assertion), None) => match federated(desk, &assertion) {
            Ok(who) => who,
            Err(reply) => return *reply,
        },
        (None, Some(secret)) if secret == CLIENT_SECRET => CLIENT.to_owned(),
        _ => {
            let words = "AADSTS7000215: Invalid client secret provided.";
            return entra_error(401, "invalid_client", 7_000_215, words);
        }
    };
    let (token, until) = entra_token(desk, &who);
    let left = until.as_second() - desk.now.as_second();
    let body = json!({ "token_type": "Bearer", "expires_in": left, "ext_expires_in": left, "access_token": token });
    json_reply(200, &body)
}

fn federated(desk: &Desk<'_>, assertion: &str) -> Result<String, Box<Reply>> {
    if desk.field("client_assertion_type").as_deref() != Some(ASSERTION) {
        let words = "AADSTS900144: The request body must contain the parameter 'client_assertion_type'.";
        return Err(Box::new(entra_error(400, "invalid_request", 900_144, words)));
    }
    desk.state.accounts.check(assertion, AUDIENCE, desk.now).map_err(|why| {
        Box::new(match why {
            NotAccepted::Expired => entra_words(Ill::Expired),
            NotAccepted::Unknown => entra_words(Ill::Refused),
            NotAccepted::Audience => {
                let words =
                    "AADSTS700212: No matching federated identity record found for presented assertion audience.";
                entra_error(401, "invalid_client", 700_212, words)
            }
        })
    })
}

pub(super) fn entra_words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => entra_error(
            429,
            "temporarily_unavailable",
            90055,
            "AADSTS90055: The server has received too many requests.",
        ),
        Ill::Refused => {
            let words = "AADSTS70021: No matching federated identity record found for presented assertion.";
            entra_error(401, "invalid_client", 70021, words)
        }
        Ill::Expired => {
            let words = "AADSTS700024: Client assertion is not within its valid time range.";
            entra_error(401, "invalid_client", 700_024, words)
        }
    }
}

fn entra_error(status: u16, error: &str, code: u32, words: &str) -> Reply {
    let body = json!({
        "error": error,
        "error_description": format!("{words} Trace ID: 0d4b0a1f Correlation ID: 5a1c"),
        "error_codes": [code],
        "trace_id": "0d4b0a1f",
        "correlation_id": "5a1c",
    });
    json_reply(status, &body)
}

/// The login server: the challenge at `/v2/`, the exchange, and nothing else; images are in the registry.
pub(super) fn registry(desk: &mut Desk<'_>) -> Reply {
    match (desk.message.method.as_str(), desk.message.path.as_str()) {
        ("GET" | "HEAD", "/v2/") => challenge(desk),
        ("POST", "/oauth2/exchange") => exchange(desk),
        _ => registry_error(404, "NOT_FOUND", "404 page not found"),
    }
}

/// The name of the login server that was asked.
fn login_server(desk: &Desk<'_>) -> &'static str {
    if desk.call.service == Service::AcrCustom { ACR_CUSTOM_HOST } else { ACR_HOST }
}

fn challenge(desk: &Desk<'_>) -> Reply {
    let settings = &desk.state.settings;
    let host = login_server(desk);
    let realm = match &settings.acr_realm {
        Realm::LoginServer => format!("https://{host}/oauth2/token"),
        Realm::Asked => format!("{}/oauth2/token", desk.shared.urls[&desk.call.service]),
        Realm::Url(url) => url.clone(),
    };
    let usual = format!("Bearer realm=\"{realm}\",service=\"{host}\"");
    let challenge = settings.acr_challenge.clone().unwrap_or(usual);
    registry_error(401, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization")
        .with("WWW-Authenticate", challenge)
}

fn exchange(desk: &mut Desk<'_>) -> Reply {
    let grant = desk.field("grant_type").unwrap_or_default();
    if !["access_token", "access_token_refresh_token"].contains(&grant.as_str()) {
        return registry_error(400, "UNSUPPORTED", "grant_type is not supported");
    }
    if desk.field("service").as_deref() != Some(login_server(desk)) {
        return registry_error(400, "BAD_REQUEST", "service is not this login server");
    }
    if desk.field("tenant").is_some_and(|tenant| tenant != TENANT) {
        return registry_words(Ill::Refused);
    }
    let shown = desk.field("access_token").unwrap_or_default();
    let known = desk.state.entra.iter().find(|(token, until, _)| *token == shown && *until > desk.now);
    let Some((_, _, who)) = known.cloned() else { return registry_words(Ill::Refused) };
    let refresh = format!("eyJhbGciOiJSUzI1NiJ9.{}.{}", desk.state.secret(TOKEN_LEN), desk.state.secret(43));
    desk.state.secrets.push(refresh.clone());
    let life = desk.state.settings.acr_life;
    desk.admit(ACR_USER, &refresh, life);
    desk.call.who = Some(who);
    json_reply(200, &json!({ "refresh_token": refresh }))
}

pub(super) fn registry_words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => registry_error(429, "TOOMANYREQUESTS", "too many requests"),
        Ill::Refused => registry_error(401, "UNAUTHORIZED", "authentication required: the identity lacks AcrPull"),
        Ill::Expired => registry_error(401, "UNAUTHORIZED", "the access token has expired"),
    }
}

fn registry_error(status: u16, code: &str, words: &str) -> Reply {
    json_reply(status, &json!({ "errors": [{ "code": code, "message": words }] }))
}

/// The resource manager of a custom cloud.
pub(super) fn manager(desk: &mut Desk<'_>) -> Reply {
    let is_it = desk.message.method == "GET"
        && desk.message.path == "/metadata/endpoints"
        && desk.parameter("api-version").as_deref() == Some("2019-05-01");
    if !is_it {
        return json_reply(404, &json!({}));
    }
    let cloud = |name: &str, login: &str, suffix: &str| {
        json!({
            "name": name,
            "portal": "https://portal.example",
            "authentication": { "loginEndpoint": login, "audiences": ["https://management.example/"], "tenant": "common" },
            "suffixes": { "acrLoginServer": suffix, "storage": "core.windows.net" },
        })
    };
    let own = desk.shared.urls[&Service::Aad].clone();
    json_reply(
        200,
        &json!([
            cloud("AzureCloud", "https://login.microsoftonline.com/", "azurecr.io"),
            cloud("TestCloud", &format!("{own}/"), CUSTOM_SUFFIX),
        ]),
    )
}

pub(super) fn manager_words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => json_reply(429, &json!({ "error": { "code": "TooManyRequests" } })),
        Ill::Refused | Ill::Expired => json_reply(403, &json!({ "error": { "code": "AuthorizationFailed" } })),
    }
}
