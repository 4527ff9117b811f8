//! Query strings and forms, read with bounds.

use std::collections::BTreeSet;

use http::StatusCode;

use crate::error::{ApiError, ErrorCode};

/// Most parameters of one request; the specification asks for ten tags, ours is generous.
const PARAMETERS_MAX: usize = 64;

/// Parameters of a query string or a form, in their order.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Query(pairs.take(PARAMETERS_MAX).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    pub(crate) fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn all(&self, key: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The `n` and `last` of a list request.
    pub(crate) fn page(&self, default: usize, max: usize) -> Result<Page, ApiError> {
        let n = match self.first("n") {
            None | Some("") => default,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().unwrap_or(max).min(max),
            Some(_) => {
                let message = "n must be a number that is not negative";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::PaginationNumberInvalid, message));
            }
        };
        Ok(Page { n, last: self.first("last").map(str::to_owned) })
    }
}

/// A page of a sorted list.
pub(crate) struct Page {
    pub(crate) n: usize,
    pub(crate) last: Option<String>,
}

impl Page {
    /// The entries after `last`, `n` of them, and whether more follow.
    pub(crate) fn cut(&self, all: BTreeSet<String>) -> (Vec<String>, bool) {
        let after = |entry: &String| self.last.as_ref().is_none_or(|last| entry > last);
        let mut page: Vec<String> = all.into_iter().filter(after).take(self.n.saturating_add(1)).collect();
        let more = page.len() > self.n && self.n > 0;
        page.truncate(self.n);
        (page, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_starts_after_last_and_holds_at_most_n() {
        let all: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        let table = [
            ("", vec!["a", "b"], true),
            ("n=5", vec!["a", "b", "c"], false),
            ("n=0", vec![], false),
            ("n=1&last=a", vec!["b"], true),
            ("last=bb", vec!["c"], false),
            ("n=99999999999999999999999", vec!["a", "b", "c"], false),
        ];
        for (query, want, more) in table {
            let page = Query::parse(query).page(2, 10).expect("a page");
            assert_eq!(page.cut(all.clone()), (want.into_iter().map(str::to_owned).collect(), more), "{query}");
        }
        assert!(Query::parse("n=-1").page(2, 10).is_err() && Query::parse("n=x").page(2, 10).is_err());
    }
}
