//! What a path asks for. Pure.
//!
//! In: the path of a request, as it came. Out: a [`Route`] whose parts are valid, or what is wrong with them.
//! Source of truth: OCI distribution-spec `spec.md`, "Endpoints"; name and tag grammar in "Pulling manifests".
//!
//! Repository names contain slashes and may contain the words `blobs`, `manifests`, `tags` and `uploads`, so a
//! path is read from its right end.
//!
//! Invariants: `names_are_parsed_from_the_right`, `no_odd_name_becomes_a_path`.

use std::fmt;

use windlass_core::digest::{Digest, DigestError};

/// Longest repository name in bytes. Distribution-spec: clients limit host and name to 255 together.
pub const NAME_MAX_BYTES: usize = 255;
/// Longest tag in bytes. Distribution-spec.
pub const TAG_MAX_BYTES: usize = 128;

/// A repository's name: components of lower-case letters and digits, joined by `/`. Safe as a relative path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// Checks a name against the grammar of the distribution specification.
    ///
    /// # Errors
    /// [`RouteError::Name`] when it does not fit.
    pub fn parse(name: &str) -> Result<RepositoryName, RouteError> {
        let fits = !name.is_empty() && name.len() <= NAME_MAX_BYTES && name.split('/').all(is_component);
        if fits { Ok(RepositoryName(name.into())) } else { Err(RouteError::Name) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(component: &str) -> bool {
    let is_alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_alnum(first) || !is_alnum(last) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`. Safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// Checks a tag against the grammar.
    ///
    /// # Errors
    /// [`RouteError::Tag`] when it does not fit.
    pub fn parse(tag: &str) -> Result<Tag, RouteError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let mut bytes = tag.bytes();
        let fits = tag.len() <= TAG_MAX_BYTES
            && bytes.next().is_some_and(is_word)
            && bytes.all(|b| is_word(b) || b == b'.' || b == b'-');
        if fits { Ok(Tag(tag.into())) } else { Err(RouteError::Tag) }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    /// A name that may move.
    Tag(Tag),
    /// An address that cannot.
    Digest(Digest),
}

impl TagOrDigest {
    /// A text with a colon is a digest, every other one a tag.
    ///
    /// # Errors
    /// [`RouteError::Digest`] or [`RouteError::Tag`].
    pub fn parse(text: &str) -> Result<TagOrDigest, RouteError> {
        if text.contains(':') {
            Ok(TagOrDigest::Digest(Digest::parse(text).map_err(RouteError::Digest)?))
        } else {
            Ok(TagOrDigest::Tag(Tag::parse(text)?))
        }
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TagOrDigest::Tag(tag) => tag.fmt(f),
            TagOrDigest::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An upload session's id: 32 lower-case hexadecimal digits, made by us.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Box<str>);

impl UploadId {
    /// Writes random bytes as an id.
    pub fn from_random(random: u128) -> UploadId {
        UploadId(format!("{random:032x}").into())
    }

    fn parse(text: &str) -> Result<UploadId, RouteError> {
        let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fits { Ok(UploadId(text.into())) } else { Err(RouteError::Upload) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One end-point with its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// `/v2/`: does this speak the API, and who am I.
    Base,
    /// `/v2/_catalog`: the repositories.
    Catalog,
    /// `/token`: the token service.
    Token,
    /// `/v2/<name>/tags/list`.
    Tags(RepositoryName),
    /// `/v2/<name>/manifests/<reference>`.
    Manifest(RepositoryName, TagOrDigest),
    /// `/v2/<name>/blobs/<digest>`.
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/`.
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<id>`.
    Upload(RepositoryName, UploadId),
    /// `/v2/<name>/referrers/<digest>`.
    Referrers(RepositoryName, Digest),
}

/// The kind of a route, for logs and assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RouteKind {
    /// `/v2/`.
    Base,
    /// `/v2/_catalog`.
    Catalog,
    /// `/token`.
    Token,
    /// A tag list.
    Tags,
    /// A manifest.
    Manifest,
    /// A blob.
    Blob,
    /// Start of an upload.
    Uploads,
    /// An upload session.
    Upload,
    /// A list of referrers.
    Referrers,
    /// A path that is none of these, or malformed.
    Unknown,
}

/// Why a path is no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Not a path of this API.
    #[error("no such end-point")]
    Path,
    /// The repository name breaks the grammar.
    #[error("invalid repository name")]
    Name,
    /// The tag breaks the grammar.
    #[error("invalid tag")]
    Tag,
    /// The digest is malformed or of an unknown algorithm.
    #[error("invalid digest: {0}")]
    Digest(DigestError),
    /// Not an upload id of ours.
    #[error("invalid upload id")]
    Upload,
}

impl Route {
    /// Reads a path from its right end.
    ///
    /// # Errors
    /// [`RouteError`] names the part that is wrong.
    pub fn parse(path: &str) -> Result<Route, RouteError> {
        if path == "/token" {
            return Ok(Route::Token);
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Route::Base),
            Some("/_catalog") => return Ok(Route::Catalog),
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::Path)?,
            None => return Err(RouteError::Path),
        };
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Route::Tags(RepositoryName::parse(name)?));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return Ok(Route::Uploads(RepositoryName::parse(name)?));
        }
        let (before, last) = rest.rsplit_once('/').ok_or(RouteError::Path)?;
        // Some clients write the colon of a digest as %3A; nothing else of ours may be escaped.
        let last = last.replacen("%3A", ":", 1).replacen("%3a", ":", 1);
        let (name, word) = before.rsplit_once('/').ok_or(RouteError::Path)?;
        match word {
            "manifests" => Ok(Route::Manifest(RepositoryName::parse(name)?, TagOrDigest::parse(&last)?)),
            "blobs" => Ok(Route::Blob(RepositoryName::parse(name)?, Digest::parse(&last).map_err(RouteError::Digest)?)),
            "referrers" => {
                Ok(Route::Referrers(RepositoryName::parse(name)?, Digest::parse(&last).map_err(RouteError::Digest)?))
            }
            "uploads" => {
                let name = name.strip_suffix("/blobs").ok_or(RouteError::Path)?;
                Ok(Route::Upload(RepositoryName::parse(name)?, UploadId::parse(&last)?))
            }
            _ => Err(RouteError::Path),
        }
    }

    /// The kind of this route.
    pub fn kind(&self) -> RouteKind {
        match self {
            Route::Base => RouteKind::Base,
            Route::Catalog => RouteKind::Catalog,
            Route::Token => RouteKind::Token,
            Route::Tags(_) => RouteKind::Tags,
            Route::Manifest(..) => RouteKind::Manifest,
            Route::Blob(..) => RouteKind::Blob,
            Route::Uploads(_) => RouteKind::Uploads,
            Route::Upload(..) => RouteKind::Upload,
            Route::Referrers(..) => RouteKind::Referrers,
        }
    }

    /// The repository this route is about.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Route::Base | Route::Catalog | Route::Token => None,
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => Some(name),
        }
    }

    /// The tag or digest this route is about, as text.
    pub fn reference(&self) -> Option<String> {
        match self {
            Route::Manifest(_, reference) => Some(reference.to_string()),
            Route::Blob(_, digest) | Route::Referrers(_, digest) => Some(digest.to_string()),
            Route::Base | Route::Catalog | Route::Token | Route::Tags(_) | Route::Uploads(_) | Route::Upload(..) => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).expect("a valid name")
    }

    #[test]
    fn names_are_parsed_from_the_right() {
        let digest = Digest::parse(&format!("sha256:{HEX}")).expect("a digest");
        let tag = |t: &str| TagOrDigest::Tag(Tag::parse(t).expect("a tag"));
        let id = UploadId::from_random(0xab);
        let table = [
            ("/v2/".to_owned(), Route::Base),
            ("/v2".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/token".to_owned(), Route::Token),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/tags/list/tags/list".to_owned(), Route::Tags(name("tags/list"))),
            ("/v2/a/b/manifests/v1".to_owned(), Route::Manifest(name("a/b"), tag("v1"))),
            ("/v2/manifests/manifests/manifests".to_owned(), Route::Manifest(name("manifests"), tag("manifests"))),
            ("/v2/a/tags/manifests/list".to_owned(), Route::Manifest(name("a/tags"), tag("list"))),
            ("/v2/a/blobs/uploads/manifests/x".to_owned(), Route::Manifest(name("a/blobs/uploads"), tag("x"))),
            (format!("/v2/a/manifests/sha256:{HEX}"), Route::Manifest(name("a"), TagOrDigest::Digest(digest.clone()))),
            (format!("/v2/blobs/uploads/blobs/sha256:{HEX}"), Route::Blob(name("blobs/uploads"), digest.clone())),
            (format!("/v2/a/blobs/sha256%3A{HEX}"), Route::Blob(name("a"), digest.clone())),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            ("/v2/blobs/uploads/blobs/uploads/".to_owned(), Route::Uploads(name("blobs/uploads"))),
            (format!("/v2/a/blobs/uploads/{}", id.as_str()), Route::Upload(name("a"), id)),
            (format!("/v2/a/referrers/sha256:{HEX}"), Route::Referrers(name("a"), digest)),
        ];
        for (path, want) in table {
            assert_eq!(Route::parse(&path), Ok(want), "{path}");
        }
    }

    #[test]
    fn no_odd_name_becomes_a_path() {
        let long = "a".repeat(NAME_MAX_BYTES + 1);
        for bad in
            ["..", "a/..", "a//b", "/a", "a/", "A", "a_", "_a", "a___b", "a..b", ".a", "a b", "ä", "a\0b", "", &long]
        {
            assert_eq!(RepositoryName::parse(bad), Err(RouteError::Name), "{bad}");
        }
        for good in ["a", "a/b", "a.b", "a_b", "a__b", "a---b", "0/1", "blobs"] {
            assert!(RepositoryName::parse(good).is_ok(), "{good}");
        }
        let table = [
            ("/v1/".to_owned(), RouteError::Path),
            ("/v2/a".to_owned(), RouteError::Path),
            ("/v2/a/b".to_owned(), RouteError::Path),
            ("/v2/../tags/list".to_owned(), RouteError::Name),
            ("/v2/a%2Fb/tags/list".to_owned(), RouteError::Name),
            ("/v2/a/manifests/-x".to_owned(), RouteError::Tag),
            ("/v2/a/manifests/..".to_owned(), RouteError::Tag),
            (format!("/v2/a/manifests/{}", "t".repeat(TAG_MAX_BYTES + 1)), RouteError::Tag),
            ("/v2/a/blobs/uploads/../../x".to_owned(), RouteError::Path),
            ("/v2/a/blobs/uploads/xyz".to_owned(), RouteError::Upload),
            ("/v2/a/blobs/x".to_owned(), RouteError::Digest(DigestError::Format)),
            (format!("/v2/a/manifests/sha3:{HEX}"), RouteError::Digest(DigestError::Algorithm)),
        ];
        for (path, want) in table {
            assert_eq!(Route::parse(&path), Err(want), "{path}");
        }
    }
}
