//! One conversation with a token endpoint.
//!
//! `GET` with Basic or anonymously; `POST` (OAuth2) for identity tokens, and for passwords only where `GET` is
//! not known. Source of truth: distribution `docs/content/spec/auth/{token,oauth}.md`.

use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use windlass_core::httpurl::HttpUrl;
use windlass_core::keyring::Credential;
use windlass_core::secret::Secret;

use super::{Token, TokenKey, basic};
use crate::config::ERROR_BYTES;
use crate::counters::{Kind, Tally};
use crate::error::{FetchError, Step};
use crate::exchange::{self, Answer, Ask, Purpose};
use crate::net::{Network, Payload, Profile};
use crate::words::{Words, retry_after};

/// Sent as `client_id` of OAuth2 requests.
const CLIENT_ID: &str = "windlass";
/// Life of a token whose reply does not say, and the least that is believed.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// Longest life that is believed.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What the network needs to reach a token endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) network: &'a Network,
    pub(crate) tallies: &'a [&'a Tally],
    pub(crate) profile: &'a Profile,
    pub(crate) user_agent: &'a HeaderValue,
    pub(crate) purpose: &'a Purpose,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The endpoint does not take this credential: the next one may do.
    Credential { status: u16, words: Words },
    /// The endpoint failed.
    Failed(FetchError),
}

/// What came of a request for a token.
pub(crate) type TokenOutcome = Result<Token, Refusal>;

#[derive(Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// Asks once for a token.
pub(crate) async fn fetch(reach: Reach<'_>, key: &TokenKey, realm: &HttpUrl) -> TokenOutcome {
    let wants_post = matches!(key.credential, Credential::IdentityToken { .. });
    let ask = if wants_post { post(key, realm) } else { get(key, realm) }.map_err(Refusal::Failed)?;
    let answer = send(reach, ask).await?;
    let no_such_method = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
    if no_such_method && matches!(key.credential, Credential::Basic { .. }) {
        let ask = post(key, realm).map_err(Refusal::Failed)?;
        return read(realm, send(reach, ask).await?).await;
    }
    if no_such_method && wants_post {
        let problem = "it takes no identity tokens (no OAuth2 POST)".to_owned();
        return Err(Refusal::Failed(FetchError::Token { host: realm.authority(), problem }));
    }
    read(realm, answer).await
}

async fn send(reach: Reach<'_>, mut ask: Ask) -> Result<Answer, Refusal> {
    ask.headers.insert(header::USER_AGENT, reach.user_agent.clone());
    ask.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    exchange::ask(reach.network, reach.tallies, reach.profile, &ask, reach.purpose).await.map_err(Refusal::Failed)
}

fn get(key: &TokenKey, realm: &HttpUrl) -> Result<Ask, FetchError> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    if !key.service.is_empty() {
        form.append_pair("service", &key.service);
    }
    for scope in key.scopes.texts() {
        form.append_pair("scope", &scope);
    }
    let more = form.finish();
    let text = realm.to_request_uri();
    let joined = match (more.is_empty(), realm.query()) {
        (true, _) => text,
        (false, None | Some("")) => format!("{}?{more}", text.trim_end_matches('?')),
        (false, Some(_)) => format!("{text}&{more}"),
    };
    let url = HttpUrl::parse(&joined).map_err(|_| FetchError::Token {
        host: realm.authority(),
        problem: "its realm makes no usable URL".to_owned(),
    })?;
    let mut ask = Ask::new(Method::GET, url, Step::Token, Kind::Token);
    if let Some(value) = basic(&key.credential) {
        ask.headers.insert(header::AUTHORIZATION, value);
    }
    Ok(ask)
}

fn post(key: &TokenKey, realm: &HttpUrl) -> Result<Ask, FetchError> {
    let scopes: Vec<String> = key.scopes.texts().collect();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    match &key.credential {
        Credential::IdentityToken { token, .. } => {
            form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose());
        }
        Credential::Basic { username, password } => {
            form.append_pair("grant_type", "password")
                .append_pair("username", username)
                .append_pair("password", password.expose());
        }
        _ => {
            let problem = "only passwords and identity tokens are posted".to_owned();
            return Err(FetchError::Token { host: realm.authority(), problem });
        }
    }
    if !key.service.is_empty() {
        form.append_pair("service", &key.service);
    }
    form.append_pair("client_id", CLIENT_ID).append_pair("scope", &scopes.join(" "));
    let payload = Payload::Bytes(form.finish().into(), HeaderValue::from_static("application/x-www-form-urlencoded"));
    Ok(Ask { payload, ..Ask::new(Method::POST, realm.clone(), Step::Token, Kind::Token) })
}

async fn read(realm: &HttpUrl, answer: Answer) -> TokenOutcome {
    let host = realm.authority();
    let unusable = |problem: String| Refusal::Failed(FetchError::Token { host: realm.authority(), problem });
    let Answer { status, headers, body, .. } = answer;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let body = match body.collect(ERROR_BYTES as u64).await {
        Ok(Some(body)) => body,
        Ok(None) => return Err(unusable("the answer is larger than 64 KiB".to_owned())),
        Err(source) => return Err(Refusal::Failed(FetchError::Transport { host, step: Step::Token, source })),
    };
    match status.as_u16() {
        200..=299 => parse(&body).map_err(unusable),
        code @ (429 | 408 | 499 | 500..=599) => Err(Refusal::Failed(FetchError::Status {
            host,
            step: Step::Token,
            status: code,
            retry_after: retry_after(&headers, std::time::SystemTime::now()),
            words: Words::from_body(content_type, &body),
        })),
        // 400 is OAuth2's word for a refused grant.
        code @ (400 | 401 | 403) => {
            Err(Refusal::Credential { status: code, words: Words::from_body(content_type, &body) })
        }
        code => Err(unusable(format!("status {code}{}", Words::from_body(content_type, &body)))),
    }
}

fn parse(body: &[u8]) -> Result<Token, String> {
    let reply: Reply = serde_json::from_slice(body).map_err(|_| "the answer is no token document".to_owned())?;
    let text = [reply.access_token, reply.token].into_iter().flatten().find(|t| !t.is_empty());
    let text = Secret::new(text.ok_or("the answer holds no token")?);
    if super::bearer(&text).is_none() {
        return Err("the token cannot stand in a header".to_owned());
    }
    // Some servers write the number as text.
    let seconds = match reply.expires_in {
        Some(serde_json::Value::Number(number)) => number.as_f64().unwrap_or(0.0),
        Some(serde_json::Value::String(text)) => text.parse().unwrap_or(0.0),
        _ => 0.0,
    };
    let lives = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST_LIFE);
    Ok(Token { text, obtained: Instant::now(), lives: lives.clamp(SHORTEST_LIFE, LONGEST_LIFE) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_as_registries_write_them() {
        type Row = (&'static str, Result<(&'static str, u64), &'static str>);
        let table: [Row; 9] = [
            (r#"{"token":"a"}"#, Ok(("a", 60))),
            (r#"{"token":"a","access_token":"b","expires_in":300}"#, Ok(("b", 300))),
            (r#"{"access_token":"b","expires_in":"900"}"#, Ok(("b", 900))),
            (r#"{"token":"a","expires_in":1}"#, Ok(("a", 60))),
            (r#"{"token":"a","expires_in":-5}"#, Ok(("a", 60))),
            (r#"{"token":"a","expires_in":1e300}"#, Ok(("a", 86400))),
            (r#"{"token":""}"#, Err("holds no token")),
            (r#"{"token":"a\nb"}"#, Err("cannot stand in a header")),
            ("<html>", Err("no token document")),
        ];
        for (body, want) in table {
            match (parse(body.as_bytes()), want) {
                (Ok(token), Ok((text, seconds))) => {
                    assert_eq!((token.text.expose().as_str(), token.lives.as_secs()), (text, seconds), "{body}");
                }
                (Err(problem), Err(part)) => assert!(problem.contains(part), "{body}: {problem}"),
                (got, want) => panic!("{body}: {got:?} instead of {want:?}"),
            }
        }
    }
}
