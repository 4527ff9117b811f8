//! Filters of containerd's API, as far as they reach a snapshotter: which snapshots a List means. Pure.
//!
//! In: texts like `labels."containerd.io/snapshot.ref"==sha256:1,parent==""`. Out: [`Filters`], asked with a [`Subject`].
//! A comma is "and", several filters are "or", none at all means everything, and so does an empty one.
//! Source of truth: containerd `filters/` (grammar, quoting) and `snapshots/storage/bolt.go` (fields).
//!
//! Invariants: `the_filters_of_containerd_are_understood`, `what_is_malformed_is_refused`,
//! `a_quoted_value_matches_itself` (any text can be asked for), `any_text_is_read_in_bounds`.

mod parse;

use std::collections::BTreeMap;

use regex::bytes::Regex;

/// Longest text of one filter. A label's key and value have 4096 bytes in containerd, and quoting makes four of one.
pub(crate) const FILTER_MAX_BYTES: usize = 64 << 10;
/// Most filters of one request. containerd sends one.
pub(crate) const FILTERS_MAX: usize = 256;
/// Largest compiled pattern. A name and some alternatives take a few KiB.
const PATTERN_MAX_BYTES: usize = 1 << 20;

/// What filters look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) parent: &'a str,
    /// `active`, `view` or `committed`.
    pub(crate) kind: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    /// The value at a path, if there is one.
    fn field(&self, path: &[Vec<u8>]) -> Option<&'a str> {
        let (first, rest) = path.split_first()?;
        match first.as_slice() {
            b"name" => Some(self.name),
            b"parent" => Some(self.parent),
            b"kind" => Some(self.kind),
            b"labels" => {
                let key = rest.join(&b'.');
                self.labels.get(std::str::from_utf8(&key).ok()?).map(String::as_str)
            }
            _ => None,
        }
    }
}

/// Why a filter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// More filters or bytes than any client sends.
    #[error("{what} has a limit of {limit}")]
    Limit { what: &'static str, limit: usize },
    /// Not the grammar.
    #[error("filter at byte {at}: {what}")]
    Syntax { at: usize, what: &'static str },
}

/// A set of filters; one that matches is enough.
#[derive(Clone, Debug)]
pub(crate) struct Filters(Vec<Vec<Selector>>);

/// One comparison.
#[derive(Clone, Debug)]
struct Selector {
    path: Vec<Vec<u8>>,
    test: Test,
}

/// Values are bytes: an escape may spell what is no text.
#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    /// `None` for a pattern that does not compile: it matches nothing, as in containerd.
    Matches(Option<Regex>),
}

impl Filters {
    /// Reads the filters of a request.
    ///
    /// # Errors
    /// [`FilterError`] says where and why.
    pub(crate) fn parse(texts: &[String]) -> Result<Filters, FilterError> {
        if texts.len() > FILTERS_MAX {
            return Err(FilterError::Limit { what: "a list of filters", limit: FILTERS_MAX });
        }
        texts.iter().map(|text| parse::selectors(text)).collect::<Result<_, _>>().map(Filters)
    }

    /// Whether a snapshot is meant.
    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|selector| selector.matches(subject)))
    }
}

impl Selector {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        let found = subject.field(&self.path);
        let value = found.unwrap_or("").as_bytes();
        match &self.test {
            Test::Present => found.is_some(),
            Test::Equal(wanted) => found.is_some() && value == wanted,
            Test::NotEqual(wanted) => value != wanted,
            Test::Matches(pattern) => pattern.as_ref().is_some_and(|pattern| pattern.is_match(value)),
        }
    }
}

/// Compiles a pattern. Its dialect is that of Go: linear time, classes of ASCII.
fn compile(pattern: &[u8]) -> Option<Regex> {
    let pattern = std::str::from_utf8(pattern).ok()?;
    regex::bytes::RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_MAX_BYTES).build().ok()
}

#[cfg(test)]
mod tests;
