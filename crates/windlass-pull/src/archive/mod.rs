//! Images outside a registry: OCI image layouts and docker archives, read and written.
//!
//! In: a directory, a tar file or a stream. Out: an [`Archive`], which lists its images and opens blobs by digest.
//! A docker archive is shown as if it were an OCI layout: its manifest is made from its config and layers.
//! Source of truth: image-spec `image-layout.md`, `annotations.md`; docker `image/tarexport`.
//!
//! Nothing here is a trusted path: documents pass the same checks as from a registry, blobs are verified by those
//! who read them, and names inside are only ever names, never paths.
//!
//! Invariants: `both_forms_list_their_images`, `a_layout_of_another_version_is_refused`,
//! `names_come_from_annotations_and_must_be_references`.

mod docker;
mod index;
pub(crate) mod sink;
pub(crate) mod source;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use windlass_core::digest::Digest;
use windlass_core::manifest::{Descriptor, Document, DocumentLimits, media_type, parse_document};
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;

use crate::PullError;
pub(crate) use docker::Item as DockerItem;
pub(crate) use index::{CHOSEN_FROM, IMAGE_NAME, REF_NAME, WrittenIndex};
use sink::blob_name;
use source::{Opened, Source};

/// Where an image that is not in the store comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A registry, by reference.
    Registry(String),
    /// A directory or tar file of any known form, recognised by what it holds; `-` is standard input.
    Detect {
        /// The path.
        path: PathBuf,
    },
    /// An OCI layout in a directory.
    OciDir {
        /// The directory.
        path: PathBuf,
        /// Which image, by tag or name; needed where there are several.
        name: Option<String>,
    },
    /// An OCI layout in a tar file.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Which image, by tag or name; needed where there are several.
        name: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image, by name; needed where there are several.
        name: Option<String>,
    },
}

impl ImageSource {
    /// Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`; everything else is a reference.
    /// The path ends at the first colon, as in other tools.
    pub fn parse(text: &str) -> ImageSource {
        let split = |rest: &str| match rest.split_once(':') {
            Some((path, name)) if !name.is_empty() => (PathBuf::from(path), Some(name.to_owned())),
            Some((path, _)) => (PathBuf::from(path), None),
            None => (PathBuf::from(rest), None),
        };
        match text.split_once(':') {
            Some(("oci", rest)) => {
                let (path, name) = split(rest);
                ImageSource::OciDir { path, name }
            }
            Some(("oci-archive", rest)) => {
                let (path, name) = split(rest);
                ImageSource::OciArchive { path, name }
            }
            Some(("docker-archive", rest)) => {
                let (path, name) = split(rest);
                ImageSource::DockerArchive { path, name }
            }
            Some(_) | None => ImageSource::Registry(text.to_owned()),
        }
    }
}

/// One image of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Its full names, valid references.
    pub(crate) names: Vec<Reference>,
    /// Its tags where only the tag is written.
    pub(crate) tags: Vec<String>,
    /// What the name stands for: an index or a manifest.
    pub(crate) root: Descriptor,
}

impl Listed {
    fn is_called(&self, name: &str) -> bool {
        let wanted = Reference::parse(name).ok();
        let same = |reference: &Reference| {
            reference.tag_explicit() == Some(name) || wanted.as_ref().is_some_and(|wanted| is_same(wanted, reference))
        };
        self.tags.iter().any(|tag| tag == name) || self.names.iter().any(same)
    }
}

/// Whether two references, typed in whatever form, mean the same image.
fn is_same(a: &Reference, b: &Reference) -> bool {
    (a.host(), a.path(), a.tag(), a.digest()) == (b.host(), b.path(), b.tag(), b.digest())
}

/// Where a blob of an archive lies.
#[derive(Debug)]
enum Lies {
    Member(String),
    Made(Vec<u8>),
}

/// An open layout or archive.
#[derive(Debug)]
pub(crate) struct Archive {
    source: Source,
    pub(crate) images: Vec<Listed>,
    /// Blobs that do not lie under their digest.
    elsewhere: HashMap<Digest, Lies>,
}

/// Which form is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Any,
    Oci,
    Docker,
}

/// A blob, open.
#[derive(Debug)]
pub(crate) enum Blob {
    Member(Opened),
    Made(std::io::Cursor<Vec<u8>>),
}

impl std::io::Read for Blob {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Blob::Member(member) => member.read(out),
            Blob::Made(bytes) => bytes.read(out),
        }
    }
}

impl Archive {
    /// Opens what a source names. `spool_dir` takes what has to be written down to be read twice.
    ///
    /// # Errors
    /// Not an archive, not of the form asked for, or of an unknown version.
    pub(crate) fn open(source: &ImageSource, spool_dir: &Path, limits: &DocumentLimits) -> Result<Archive, PullError> {
        let (source, form) = match source {
            ImageSource::Registry(_) => return Err(PullError::Internal("a registry is not an archive")),
            ImageSource::Detect { path } if path.is_dir() => (Source::dir(path)?, Form::Any),
            ImageSource::Detect { path } => (Source::tar(path, spool_dir)?, Form::Any),
            ImageSource::OciDir { path, .. } => (Source::dir(path)?, Form::Oci),
            ImageSource::OciArchive { path, .. } => (Source::tar(path, spool_dir)?, Form::Oci),
            ImageSource::DockerArchive { path, .. } if path.is_dir() => (Source::dir(path)?, Form::Docker),
            ImageSource::DockerArchive { path, .. } => (Source::tar(path, spool_dir)?, Form::Docker),
        };
        let is_oci = form != Form::Docker && source.open("oci-layout")?.is_some();
        let is_docker = form != Form::Oci && source.open("manifest.json")?.is_some();
        match (is_oci, is_docker) {
            (true, _) => index::open(source, limits),
            (false, true) => docker::open(source, limits),
            (false, false) => Err(source.bad(match form {
                Form::Any => "neither an OCI layout (no oci-layout file) nor a docker archive (no manifest.json)",
                Form::Oci => "not an OCI layout: there is no oci-layout file",
                Form::Docker => "not a docker archive: there is no manifest.json",
            })),
        }
    }

    /// The one image meant: by name, or the only one.
    pub(crate) fn select(&self, name: Option<&str>) -> Result<&Listed, PullError> {
        let fits: Vec<&Listed> = match name {
            Some(name) => self.images.iter().filter(|image| image.is_called(name)).collect(),
            None => self.images.iter().collect(),
        };
        match (fits.as_slice(), name) {
            ([one], _) => Ok(one),
            ([], Some(name)) => Err(PullError::Layout {
                path: self.source.path().to_owned(),
                what: format!("holds no image called {name}; it holds {}", self.called()),
                reason: Reason::NotFound,
            }),
            ([], None) => Err(self.source.bad("holds no image")),
            (_, _) => Err(PullError::Layout {
                path: self.source.path().to_owned(),
                what: format!("holds several images, name one of {}", self.called()),
                reason: Reason::InvalidConfig,
            }),
        }
    }

    /// The names an error lists, at most 20.
    fn called(&self) -> String {
        let names = self
            .images
            .iter()
            .flat_map(|image| image.names.iter().map(Reference::familiar).chain(image.tags.iter().cloned()));
        let names: Vec<String> = names.take(20).collect();
        if names.is_empty() { "images without a name".to_owned() } else { names.join(", ") }
    }

    /// Opens a blob; nothing of it is verified yet.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Option<Blob>, PullError> {
        match self.elsewhere.get(digest) {
            Some(Lies::Made(bytes)) => Ok(Some(Blob::Made(std::io::Cursor::new(bytes.clone())))),
            Some(Lies::Member(name)) => Ok(self.source.open(name)?.map(Blob::Member)),
            None => Ok(self.source.open(&blob_name(digest))?.map(Blob::Member)),
        }
    }

    /// The index beside a manifest that was chosen from it, by the manifest's entry; `None` where the entry names none,
    /// or one that is not there or does not list the manifest.
    ///
    /// # Errors
    /// The index does not hash to its name or breaks the rules.
    pub(crate) fn chosen_from(
        &self,
        entry: &Descriptor,
        limits: &DocumentLimits,
    ) -> Result<Option<(Digest, Vec<u8>)>, PullError> {
        let named = entry.annotations.get(CHOSEN_FROM).and_then(|text| Digest::parse(text).ok());
        let Some(digest) = named else { return Ok(None) };
        let Some(bytes) = self.source.small(&blob_name(&digest), limits.manifest_bytes)? else { return Ok(None) };
        let descriptor = Descriptor::new(media_type::OCI_INDEX, digest.clone(), bytes.len() as u64);
        let bytes = self.document(&descriptor, limits.manifest_bytes)?;
        let lists = match parse_document(&bytes, None, None, limits)? {
            Document::Index(index) => index.entries.iter().any(|listed| listed.digest == entry.digest),
            Document::Manifest(_) => false,
        };
        Ok(lists.then_some((digest, bytes)))
    }

    /// Reads a document or config whole and verifies it.
    pub(crate) fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, PullError> {
        let name = match self.elsewhere.get(&descriptor.digest) {
            Some(Lies::Made(bytes)) => return Ok(bytes.clone()),
            Some(Lies::Member(name)) => name.clone(),
            None => blob_name(&descriptor.digest),
        };
        let bytes = self.source.small(&name, limit)?.ok_or_else(|| self.missing(&descriptor.digest))?;
        let mismatch = |what, reason| PullError::Layout { path: self.source.path().to_owned(), what, reason };
        if bytes.len() as u64 != descriptor.size_bytes {
            let what = format!("{name} has {} bytes, its descriptor says {}", bytes.len(), descriptor.size_bytes);
            return Err(mismatch(what, Reason::SizeMismatch));
        }
        if !descriptor.digest.matches(&bytes) {
            return Err(mismatch(format!("{name} does not hash to its name"), Reason::DigestMismatch));
        }
        Ok(bytes)
    }

    /// The error that a blob is not there.
    pub(crate) fn missing(&self, digest: &Digest) -> PullError {
        PullError::Layout {
            path: self.source.path().to_owned(),
            what: format!("blob {digest} is missing"),
            reason: Reason::BlobMissing,
        }
    }
}
