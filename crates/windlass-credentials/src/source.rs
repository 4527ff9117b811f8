//! Places where credentials lie, and files as they are now.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_core::keyring::{Credential, Origin, Ring};

use crate::file::{Choice, ConfigFile, Content, FileError};
use crate::lookup::CredentialsError;
use crate::places::{NodePlaces, Person};

/// One place where credentials come from. A source is asked for a ring and never fails for reasons of its own
/// content, except where it was named on purpose.
#[derive(Debug)]
pub struct Source(pub(crate) Kind);

#[derive(Debug)]
pub(crate) enum Kind {
    Given(Ring),
    /// Every file counts, in order; the ring of each is separate.
    Each(Vec<ConfigFile>),
    /// The first usable file wins.
    First(Vec<ConfigFile>),
}

impl Source {
    /// A credential that the caller has at hand, for the registry (host, or host and path) it belongs to.
    pub fn given(registry: &str, credential: Credential) -> Source {
        let mut ring = Ring::new();
        ring.add(registry, credential, "", Origin::Given);
        Source(Kind::Given(ring))
    }

    /// Files named on purpose; each must be there and usable.
    pub fn authfiles(paths: impl IntoIterator<Item = PathBuf>) -> Source {
        Source(Kind::Each(paths.into_iter().map(|path| ConfigFile::new(path, Choice::Explicit)).collect()))
    }

    /// The node's configuration, searched as the kubelet does.
    pub fn node(places: &NodePlaces) -> Source {
        Source(Kind::First(places.files().into_iter().map(|path| ConfigFile::new(path, Choice::Usual)).collect()))
    }

    /// A person's logins by docker and podman.
    pub fn person(person: &Person) -> Source {
        Source(Kind::Each(person.files().into_iter().map(|path| ConfigFile::new(path, Choice::Usual)).collect()))
    }

    /// Reads what has changed since the last time. Blocks.
    pub(crate) fn load(&self) -> Result<Vec<Loaded>, CredentialsError> {
        let (files, first_only) = match &self.0 {
            Kind::Given(_) => return Ok(Vec::new()),
            Kind::Each(files) => (files, false),
            Kind::First(files) => (files, true),
        };
        let mut loaded = Vec::new();
        for file in files {
            let found = match (file.load(), file.choice()) {
                (Ok(content), _) => Found::Content(content),
                (Err(FileError::Missing), Choice::Usual) => continue,
                (Err(error), Choice::Usual) => Found::Unusable(error),
                (Err(source), Choice::Explicit) => {
                    return Err(CredentialsError::AuthFile { path: file.path.clone(), source });
                }
            };
            loaded.push(Loaded { path: file.path.clone(), choice: file.choice(), found, first_only });
        }
        Ok(loaded)
    }
}

/// A file as it is now.
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    pub(crate) choice: Choice,
    pub(crate) found: Found,
    pub(crate) first_only: bool,
}

pub(crate) enum Found {
    Content(Arc<Content>),
    Unusable(FileError),
}
