//! Names under which images are kept, and what a person may type to mean one.
//!
//! A name is a repository with a tag, or with the digest of a manifest or index; both lead to one image. Digest
//! names of a pull by tag are implied: they go with the last tag of their repository.
//!
//! Invariant: `whatever_names_an_image_finds_it`.

use std::fmt;

use windlass_core::digest::Digest;
use windlass_core::reference::Reference;

/// A normalised name: `host/path:tag` or `host/path@digest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    repository: String,
    rest: Rest,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rest {
    Tag(String),
    Digest(String),
}

impl Name {
    /// A name by tag. `repository` is host and path, normalised.
    pub fn tagged(repository: &str, tag: &str) -> Name {
        Name { repository: repository.to_owned(), rest: Rest::Tag(tag.to_owned()) }
    }

    /// A name by the digest of a manifest or index.
    pub fn digested(repository: &str, digest: &Digest) -> Name {
        Name { repository: repository.to_owned(), rest: Rest::Digest(digest.to_string()) }
    }

    /// The name that a reference asks for: by digest if it has one, else by its tag or the implied one.
    pub fn of(reference: &Reference) -> Name {
        let repository = reference.repository();
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Name::digested(&repository, digest),
            (None, Some(tag)) => Name::tagged(&repository, tag),
            (None, None) => Name::tagged(&repository, windlass_core::reference::DEFAULT_TAG),
        }
    }

    /// Parses a key of the database, which was written by [`fmt::Display`].
    pub(crate) fn from_key(key: &str) -> Option<Name> {
        if let Some((repository, digest)) = key.split_once('@') {
            return Some(Name { repository: repository.to_owned(), rest: Rest::Digest(digest.to_owned()) });
        }
        let (repository, tag) = key.rsplit_once(':')?;
        Some(Name::tagged(repository, tag))
    }

    /// Host and path.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if it is a name by tag.
    pub fn tag(&self) -> Option<&str> {
        match &self.rest {
            Rest::Tag(tag) => Some(tag),
            Rest::Digest(_) => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rest {
            Rest::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Rest::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

/// Fewest hexadecimal digits that are taken for the beginning of an image ID.
const PREFIX_MIN: usize = 4;

/// What a text may mean, in the order in which it is looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meant {
    /// The reference it spells.
    pub(crate) reference: Option<Reference>,
    /// The image ID it is, or begins.
    pub(crate) id_prefix: Option<String>,
}

/// Reads what a person typed: a reference, a whole image ID, or the beginning of one.
pub(crate) fn meant(text: &str) -> Option<Meant> {
    if Digest::parse(text).is_ok() {
        return Some(Meant { reference: None, id_prefix: Some(text.to_owned()) });
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_prefix =
        (PREFIX_MIN..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let reference = Reference::parse(text).ok();
    let id_prefix = is_prefix.then(|| format!("sha256:{hex}"));
    (reference.is_some() || id_prefix.is_some()).then_some(Meant { reference, id_prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_key() {
        let digest = Digest::sha256(b"x");
        for name in [
            Name::tagged("localhost:5000/a/b", "v1"),
            Name::tagged("docker.io/library/busybox", "latest"),
            Name::digested("localhost:5000/a/b", &digest),
        ] {
            assert_eq!(Name::from_key(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn a_text_means_a_reference_or_an_id() {
        let id = Digest::sha256(b"x").to_string();
        let table = [
            ("busybox", true, false),
            ("cafe", true, true),
            ("sha256:cafe", true, true),
            (&id[..20], true, true),
            (id.as_str(), false, true),
            (&id[7..], false, true),
            ("caf", true, false),
        ];
        for (text, reference, prefix) in table {
            let found = meant(text).unwrap();
            assert_eq!((found.reference.is_some(), found.id_prefix.is_some()), (reference, prefix), "{text}");
        }
        assert_eq!(meant("UPPER CASE"), None);
    }
}
