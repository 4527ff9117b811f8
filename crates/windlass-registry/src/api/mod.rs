//! From a request to an answer: route, caller, access, end-point, log.

mod blobs;
mod lists;
mod manifest_check;
mod manifests;
mod tokens;
mod uploads;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use crate::access::Action;
use crate::auth::{self, Caller, Gate, Origin};
use crate::body::{self, Answer};
use crate::config::{Deletes, RegistryConfig};
use crate::error::{ApiError, ErrorCode};
use crate::log::AccessRecord;
use crate::query::Query;
use crate::route::{RepositoryName, Route, RouteKind};
use crate::storage::Storage;

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: RegistryConfig,
    pub(crate) gate: Gate,
    pub(crate) storage: Arc<Storage>,
    /// The address listened on, for clients that name no host.
    pub(crate) listening: String,
}

/// One request with what was found out about it.
pub(crate) struct Asked<'a> {
    pub(crate) state: &'a State,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) caller: Caller,
    pub(crate) origin: Origin,
}

impl Asked<'_> {
    /// A header as text; what is not ASCII counts as absent.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the caller already has what carries this entity tag.
    pub(crate) fn has_etag(&self, etag: &str) -> bool {
        self.header(header::IF_NONE_MATCH).is_some_and(|list| lists_etag(list, etag))
    }

    pub(crate) fn allow(&self, repository: &RepositoryName, actions: &[Action]) -> Result<(), ApiError> {
        self.state.gate.authorize(&self.caller, repository, actions, &self.origin)
    }

    /// Refuses a deletion where deletions are off.
    pub(crate) fn deletes_are_on(&self) -> Result<(), ApiError> {
        match self.state.config.deletes {
            Deletes::On => Ok(()),
            Deletes::Off => Err(ApiError::method_not_allowed()),
        }
    }
}

/// Whether a list of entity tags names this one, weak or strong.
pub(crate) fn lists_etag(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// Answers one request; never fails.
pub(crate) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path());
    let mut record = AccessRecord {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        route: route.as_ref().map_or(RouteKind::Unknown, Route::kind),
        repository: route.as_ref().ok().and_then(|r| r.repository()).map(|name| name.to_string()),
        reference: route.as_ref().ok().and_then(Route::reference),
        status: StatusCode::OK,
        identity: None,
        credential: auth::credential_kind(&parts.headers),
        range: parts.headers.get(header::RANGE).and_then(|v| v.to_str().ok()).map(str::to_owned),
        answer_bytes: 0,
    };
    let is_head = parts.method == Method::HEAD;
    let answered = match route {
        Ok(route) => serve(&state, route, parts, body, &mut record).await,
        Err(error) => Err(error.into()),
    };
    let mut answer = answered.unwrap_or_else(ApiError::into_answer);
    finish(&mut answer, is_head);
    record.status = answer.status();
    record.answer_bytes = answer.body().len();
    log(&state, record);
    answer
}

async fn serve(
    state: &State,
    route: Route,
    parts: Parts,
    body: Incoming,
    record: &mut AccessRecord,
) -> Result<Answer, ApiError> {
    let host = parts.headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let asked_host = host.or_else(|| parts.uri.authority().map(|a| a.as_str()));
    let scheme = if state.config.tls.is_some() { "https" } else { "http" };
    let origin = Origin::new(scheme, asked_host, &state.listening);
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if route == Route::Token {
        let (issued, identity) = tokens::serve(state, &parts, query, body).await?;
        record.identity = identity.name().map(str::to_owned);
        return Ok(issued);
    }
    let caller = state.gate.identify(&parts.headers, &origin).await?;
    record.identity = caller.identity.name().map(str::to_owned);
    let asked = Asked { state, method: parts.method, headers: parts.headers, query, caller, origin };
    match route {
        Route::Base => base(&asked),
        Route::Catalog => lists::catalog(&asked).await,
        Route::Tags(name) => lists::tags(&asked, name).await,
        Route::Manifest(name, reference) => manifests::serve(&asked, name, reference, body).await,
        Route::Blob(name, digest) => blobs::serve(&asked, name, digest).await,
        Route::Uploads(name) => uploads::begin(&asked, name, body).await,
        Route::Upload(name, id) => uploads::go_on(&asked, name, id, body).await,
        Route::Referrers(name, _) => {
            asked.allow(&name, &[Action::Pull])?;
            // A client that sees 404 here falls back to the referrers tag.
            Err(ApiError::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, "referrers are not offered"))
        }
        // Answered above.
        Route::Token => Err(ApiError::method_not_allowed()),
    }
}

fn base(asked: &Asked<'_>) -> Result<Answer, ApiError> {
    if asked.method != Method::GET && asked.method != Method::HEAD {
        return Err(ApiError::method_not_allowed());
    }
    asked.state.gate.authorize_base(&asked.caller, &asked.headers, &asked.origin)?;
    Ok(body::json(StatusCode::OK, &serde_json::json!({})))
}

/// What every answer carries; HEAD has the headers of GET and no body.
fn finish(answer: &mut Answer, is_head: bool) {
    let len = answer.body().len();
    let headers = answer.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    let status = answer.status();
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    if is_head {
        let body = std::mem::replace(answer.body_mut(), body::AnswerBody::Head(0));
        *answer.body_mut() = body.head();
    }
}

fn log(state: &State, record: AccessRecord) {
    tracing::debug!(
        method = %record.method,
        path = record.path,
        status = record.status.as_u16(),
        identity = record.identity,
        answer_bytes = record.answer_bytes,
        "request"
    );
    if let Some(log) = &state.config.access_log {
        log.record(record);
    }
}
