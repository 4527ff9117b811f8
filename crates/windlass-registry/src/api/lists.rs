//! Lists: the tags of a repository, and the repositories a caller may read.

use std::collections::BTreeSet;

use http::{HeaderValue, Method, StatusCode, header};

use super::Asked;
use crate::access::Action;
use crate::body::{self, Answer};
use crate::config::Auth;
use crate::error::ApiError;
use crate::query::Page;
use crate::route::RepositoryName;
use crate::storage::blocking;

pub(super) async fn tags(asked: &Asked<'_>, name: RepositoryName) -> Result<Answer, ApiError> {
    only_reads(asked)?;
    asked.allow(&name, &[Action::Pull])?;
    let limits = &asked.state.config.limits;
    let page = asked.query.page(limits.tags_page, limits.tags_page_max)?;
    let storage = asked.state.storage.clone();
    let repository = name.clone();
    let found =
        blocking(
            move || {
                if storage.has_repository(&repository) { storage.tags(&repository).map(Some) } else { Ok(None) }
            },
        );
    let all = found.await?.ok_or_else(ApiError::name_unknown)?;
    Ok(paged(
        &format!("/v2/{name}/tags/list"),
        &page,
        all,
        |tags| serde_json::json!({ "name": name.as_str(), "tags": tags }),
    ))
}

pub(super) async fn catalog(asked: &Asked<'_>) -> Result<Answer, ApiError> {
    only_reads(asked)?;
    asked.state.gate.authorize_base(&asked.caller, &asked.headers, &asked.origin)?;
    let limits = &asked.state.config.limits;
    let page = asked.query.page(limits.catalog_page, limits.catalog_page_max)?;
    let storage = asked.state.storage.clone();
    let mut all = blocking(move || storage.repositories()).await?;
    if asked.state.config.auth != Auth::Open {
        // By the rules alone: a token for one repository does not hide the others of its user.
        let gate = &asked.state.gate;
        all.retain(|name| gate.rules.allows(&asked.caller.identity, name, Action::Pull));
    }
    Ok(paged("/v2/_catalog", &page, all, |names| serde_json::json!({ "repositories": names })))
}

fn only_reads(asked: &Asked<'_>) -> Result<(), ApiError> {
    match asked.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn paged(
    path: &str,
    page: &Page,
    all: BTreeSet<String>,
    render: impl FnOnce(&[String]) -> serde_json::Value,
) -> Answer {
    let (entries, more) = page.cut(all);
    let mut answer = body::json(StatusCode::OK, &render(&entries));
    if let (true, Some(last)) = (more, entries.last()) {
        let last: String = url::form_urlencoded::byte_serialize(last.as_bytes()).collect();
        let link = format!("<{path}?n={}&last={last}>; rel=\"next\"", page.n);
        answer.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    answer
}
