//! Google: the metadata server of a machine, and the exchange of a service account's token.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::accounts::NotAccepted;
use super::desk::Desk;
use super::trouble::Ill;
use super::{Expiry, GOOGLE_USER};
use crate::wire::Reply;

/// The project of the workload identity pool.
pub(super) const PROJECT: &str = "test-project";
/// The cluster as identity provider.
pub(super) const PROVIDER: &str =
    "https://container.googleapis.com/v1/projects/test-project/locations/europe-west3/clusters/test";
/// Life of a token from the exchange.
const EXCHANGED_LIFE: Duration = Duration::from_secs(3599);
/// Length of a token.
const TOKEN_LEN: usize = 160;
/// The user name that people also write.
const OTHER_USER: &str = "oauth2accesstoken";
/// Where everything is.
const ROOT: &str = "/computeMetadata/v1/";
/// The machine's account.
const EMAIL: &str = "node@test-project.iam.gserviceaccount.com";

/// The audience of service accounts' tokens for Google.
pub(super) fn pool() -> String {
    format!("{PROJECT}.svc.id.goog")
}

pub(super) fn metadata(desk: &mut Desk<'_>) -> Reply {
    if desk.message.header("metadata-flavor") != Some("Google") || desk.message.header("x-forwarded-for").is_some() {
        return Reply::new(403, "text/html", "Missing required header: Metadata-Flavor");
    }
    if desk.message.method != "GET" {
        return Reply::new(405, "text/html", "");
    }
    document(desk)
}

fn document(desk: &mut Desk<'_>) -> Reply {
    let text = |body: &str| Reply::new(200, "application/text", body.to_owned());
    let missing = || Reply::new(404, "text/html", "<html><title>Error 404 (Not Found)!!1</title></html>");
    let path = desk.message.path.clone();
    let Some(path) = path.strip_prefix(ROOT) else { return missing() };
    if let Some(name) = path.strip_prefix("instance/attributes/") {
        return desk.state.settings.google_attributes.get(name).map_or_else(missing, |value| text(value));
    }
    let Some(path) = path.strip_prefix("instance/service-accounts/") else { return missing() };
    let has_account = desk.state.settings.google_has_account;
    match path {
        "" if has_account => text(&format!("default/\n{EMAIL}/\n")),
        "" => text(""),
        _ if !has_account => missing(),
        "default/email" => text(EMAIL),
        "default/scopes" if desk.parameter("alt").as_deref() == Some("json") => {
            Reply::new(200, "application/json", json!(desk.state.settings.google_scopes).to_string())
        }
        "default/scopes" => text(&desk.state.settings.google_scopes.join("\n")),
        "default/token" => {
            let (life, expiry) = (desk.state.settings.google_life, desk.state.settings.google_expiry);
            desk.call.who = Some(EMAIL.to_owned());
            token(desk, life, expiry, &json!({ "token_type": "Bearer" }))
        }
        _ => missing(),
    }
}

fn token(desk: &mut Desk<'_>, life: Duration, expiry: Expiry, more: &Json) -> Reply {
    let token = format!("ya29.{}", desk.state.secret(TOKEN_LEN));
    desk.state.secrets.push(token.clone());
    for user in [GOOGLE_USER, OTHER_USER] {
        desk.admit(user, &token, life);
    }
    let mut body = more.clone();
    body["access_token"] = token.into();
    let seconds = i64::try_from(life.as_secs()).expect("a life of this length");
    if let Some(left) = expiry.json(seconds, -3600) {
        body["expires_in"] = left;
    }
    Reply::new(200, "application/json", body.to_string())
}

pub(super) fn exchange(desk: &mut Desk<'_>) -> Reply {
    if desk.message.method != "POST" || desk.message.path != "/v1/token" {
        return Reply::new(404, "text/html", "");
    }
    let object: Json = serde_json::from_slice(&desk.message.body).unwrap_or_default();
    let field = |snake: &str, camel: &str| {
        let value = object[snake].as_str().or_else(|| object[camel].as_str()).map(str::to_owned);
        value.or_else(|| desk.field(snake)).unwrap_or_default()
    };
    let wanted = [
        ("audience", "audience", format!("identitynamespace:{PROJECT}.svc.id.goog:{PROVIDER}")),
        ("grant_type", "grantType", "urn:ietf:params:oauth:grant-type:token-exchange".to_owned()),
        ("requested_token_type", "requestedTokenType", "urn:ietf:params:oauth:token-type:access_token".to_owned()),
        ("subject_token_type", "subjectTokenType", "urn:ietf:params:oauth:token-type:jwt".to_owned()),
        ("scope", "scope", "https://www.googleapis.com/auth/cloud-platform".to_owned()),
    ];
    for (snake, camel, value) in wanted {
        if field(snake, camel) != value {
            return refusal(400, "invalid_request", &format!("Invalid value for \"{snake}\"."));
        }
    }
    let subject = field("subject_token", "subjectToken");
    match desk.state.accounts.check(&subject, &pool(), desk.now) {
        Ok(who) => {
            desk.call.who = Some(who);
            let more = json!({
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
            });
            token(desk, EXCHANGED_LIFE, Expiry::Whole, &more)
        }
        Err(NotAccepted::Expired) => exchange_words(Ill::Expired),
        Err(NotAccepted::Unknown) => refusal(400, "invalid_grant", "Unable to verify the ID Token signature."),
        Err(NotAccepted::Audience) => {
            refusal(400, "invalid_grant", "The audience in ID Token does not match the expected audience.")
        }
    }
}

pub(super) fn metadata_words(ill: Ill) -> Reply {
    let page =
        |status, words: &str| Reply::new(status, "text/html", words.to_owned()).with("Metadata-Flavor", "Google");
    match ill {
        Ill::Throttled => page(429, "Too Many Requests"),
        Ill::Refused => page(403, "the account is disabled"),
        Ill::Expired => page(503, "the token cannot be renewed"),
    }
}

pub(super) fn exchange_words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => refusal(429, "rate_limit_exceeded", "Quota exceeded for token exchange requests."),
        Ill::Refused => refusal(400, "unauthorized_client", "The audience is not configured for this project."),
        Ill::Expired => refusal(400, "invalid_grant", "ID Token has expired."),
    }
}

fn refusal(status: u16, error: &str, words: &str) -> Reply {
    let body = json!({ "error": error, "error_description": words });
    Reply::new(status, "application/json", body.to_string())
}
