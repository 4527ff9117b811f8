//! The token service: GET with Basic or nothing, POST with a form.
//!
//! A token carries what was asked for and is granted; fewer rights are no error. Wrong credentials are.
//! Source of truth: distribution `docs/content/spec/auth/token.md` and `oauth.md`.

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use windlass_core::secret::Secret;

use super::State;
use super::manifests::read_whole;
use crate::access::Identity;
use crate::auth::{self, token};
use crate::body::{self, Answer};
use crate::error::{ApiError, ErrorCode};
use crate::query::Query;

/// Most bytes of a token request's form.
const FORM_MAX_BYTES: u64 = 64 << 10;

/// What was asked, by either method.
struct Wish {
    identity: Identity,
    scopes: token::Scope,
    /// Whether a refresh token is wanted.
    offline: bool,
}

pub(super) async fn serve(
    state: &State,
    parts: &Parts,
    query: Query,
    body: Incoming,
) -> Result<(Answer, Identity), ApiError> {
    let Some(signer) = state.gate.signer() else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, "no token service here"));
    };
    let wish = match parts.method {
        Method::GET => by_get(state, parts, &query).await?,
        Method::POST => {
            let form = read_whole(body, FORM_MAX_BYTES).await?;
            by_post(state, signer, &Query::parse(&String::from_utf8_lossy(&form))).await?
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    let Wish { identity, scopes, offline } = wish;
    let granted: token::Scope = scopes
        .into_iter()
        .map(|(name, actions)| (state.gate.rules.granted(&identity, &name, &actions), name))
        .filter(|(actions, _)| !actions.is_empty())
        .map(|(actions, name)| (name, actions))
        .collect();
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "cannot sign a token");
    let issued = signer.issue(identity.name(), &granted).map_err(failed)?;
    let mut reply = serde_json::json!({
        "token": issued.token.expose(),
        "access_token": issued.token.expose(),
        "expires_in": issued.life_seconds,
        "issued_at": issued.issued_at.to_string(),
    });
    if let (true, Identity::User(user)) = (offline, &identity) {
        reply["refresh_token"] = signer.issue_refresh(user).map_err(failed)?.expose().as_str().into();
    }
    let mut answer = body::json(StatusCode::OK, &reply);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((answer, identity))
}

async fn by_get(state: &State, parts: &Parts, query: &Query) -> Result<Wish, ApiError> {
    let identity = match auth::basic_of(&parts.headers) {
        Some((user, password)) => state.gate.basic(&user, &password).await.ok_or_else(refused)?,
        None if parts.headers.contains_key(header::AUTHORIZATION) => return Err(refused()),
        None => Identity::Anonymous,
    };
    let offline = query.first("offline_token").is_some_and(|v| v == "true" || v == "1");
    Ok(Wish { identity, scopes: token::parse_scopes(query.all("scope")), offline })
}

async fn by_post(state: &State, signer: &token::Signer, form: &Query) -> Result<Wish, ApiError> {
    if form.first("service").is_some_and(|service| service != signer.service()) {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, "unknown service"));
    }
    let user = match form.first("grant_type") {
        Some("password") => {
            let user = form.first("username").unwrap_or_default();
            let password = Secret::from(form.first("password").unwrap_or_default());
            state.gate.login(user, &password).await.then(|| user.to_owned())
        }
        Some("refresh_token") => {
            let refresh = Secret::from(form.first("refresh_token").unwrap_or_default());
            match signer.verify_refresh(&refresh) {
                Some(user) if state.gate.knows(&user).await => Some(user),
                Some(_) | None => None,
            }
        }
        Some(_) | None => {
            let message = "grant_type is neither password nor refresh_token";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
        }
    };
    let identity = Identity::User(user.ok_or_else(refused)?);
    let offline = form.first("access_type") == Some("offline");
    Ok(Wish { identity, scopes: token::parse_scopes(form.all("scope")), offline })
}

/// The same for unknown users, wrong passwords and bad refresh tokens.
fn refused() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "incorrect username or password")
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"windlass\""))
}
