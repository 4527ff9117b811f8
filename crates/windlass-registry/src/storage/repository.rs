//! What a repository holds: links to blobs and manifests, and tags.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use windlass_core::digest::Digest;

use super::{Storage, StorageError};
use crate::route::{RepositoryName, Tag};

/// Longest media type that is stored. RFC 6838: 127 characters on either side of the slash.
pub(crate) const MEDIA_TYPE_MAX_BYTES: usize = 255;

/// A manifest with the media type it was pushed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

impl Storage {
    fn repository_dir(&self, name: &RepositoryName) -> PathBuf {
        self.repositories_dir().join(name.as_str())
    }

    fn link(&self, name: &RepositoryName, folder: &str, digest: &Digest) -> PathBuf {
        self.repository_dir(name).join(folder).join(digest.algorithm().as_str()).join(digest.hex())
    }

    fn tag_path(&self, name: &RepositoryName, tag: &Tag) -> PathBuf {
        self.repository_dir(name).join("_tags").join(tag.as_str())
    }

    /// Whether anything was ever accepted for this repository.
    pub(crate) fn has_repository(&self, name: &RepositoryName) -> bool {
        let dir = self.repository_dir(name);
        ["_tags", "_manifests", "_blobs"].iter().any(|folder| dir.join(folder).is_dir())
    }

    /// Every repository's name, sorted.
    pub(crate) fn repositories(&self) -> Result<BTreeSet<String>, StorageError> {
        let mut found = BTreeSet::new();
        let mut open = vec![(self.repositories_dir(), String::new())];
        while let Some((dir, name)) = open.pop() {
            for entry in names_in(&dir)? {
                if entry.starts_with('_') {
                    found.insert(name.clone());
                } else {
                    let child = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
                    open.push((dir.join(entry), child));
                }
            }
        }
        Ok(found)
    }

    /// Whether this repository holds the blob.
    pub(crate) fn links_blob(&self, name: &RepositoryName, digest: &Digest) -> bool {
        self.link(name, "_blobs", digest).exists()
    }

    /// Makes the repository hold a blob that is here.
    pub(crate) fn link_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<(), StorageError> {
        let path = self.link(name, "_blobs", digest);
        if path.exists() {
            return Ok(());
        }
        self.write_file(&path, b"")
    }

    /// Takes a blob away from this repository; other ones keep it. Whether it was there.
    pub(crate) fn unlink_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
        self.remove(&self.link(name, "_blobs", digest))
    }

    /// The media type of a manifest that this repository holds.
    pub(crate) fn manifest_type(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<String>, StorageError> {
        read_small(&self.link(name, "_manifests", digest), MEDIA_TYPE_MAX_BYTES)
    }

    /// A manifest that this repository holds.
    pub(crate) fn manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<StoredManifest>, StorageError> {
        let Some(media_type) = self.manifest_type(name, digest)? else { return Ok(None) };
        let Some((file, size_bytes)) = self.open_blob(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(size_bytes).read_to_end(&mut bytes).map_err(StorageError::io("read", self.blob_path(digest)))?;
        Ok(Some(StoredManifest { digest: digest.clone(), media_type, bytes: bytes.into() }))
    }

    /// Stores a manifest byte for byte under a digest that fits it. What it says is not looked at.
    ///
    /// # Errors
    /// [`StorageError::Digest`] when the digest does not fit; [`StorageError::Io`].
    pub fn put_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        self.put_bytes(digest, bytes)?;
        self.write_file(&self.link(name, "_manifests", digest), media_type.as_bytes())
    }

    /// Stores a blob that is at hand and links it to a repository.
    ///
    /// # Errors
    /// [`StorageError::Digest`] when the digest does not fit; [`StorageError::Io`].
    pub fn put_blob(&self, name: &RepositoryName, digest: &Digest, bytes: &[u8]) -> Result<(), StorageError> {
        self.put_bytes(digest, bytes)?;
        self.link_blob(name, digest)
    }

    fn put_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StorageError> {
        let got = digest.algorithm().digest(bytes);
        if got != *digest {
            return Err(StorageError::Digest { want: digest.clone(), got });
        }
        let mut file = self.temp_file()?;
        file.write_all(bytes).map_err(StorageError::io("write", self.blob_path(digest)))?;
        self.adopt(file, digest)
    }

    /// Every digest this repository holds as a manifest.
    pub(crate) fn manifests(&self, name: &RepositoryName) -> Result<Vec<Digest>, StorageError> {
        let dir = self.repository_dir(name).join("_manifests");
        let mut found = Vec::new();
        for algorithm in names_in(&dir)? {
            for hex in names_in(&dir.join(&algorithm))? {
                found.extend(Digest::parse(&format!("{algorithm}:{hex}")));
            }
        }
        Ok(found)
    }

    /// Takes a manifest and every tag that names it away from this repository. Whether it was there.
    pub(crate) fn remove_manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
        for tag in self.tags(name)? {
            let Ok(tag) = Tag::parse(&tag) else { continue };
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                self.remove_tag(name, &tag)?;
            }
        }
        self.remove(&self.link(name, "_manifests", digest))
    }

    /// What a tag names.
    pub(crate) fn tag(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<Digest>, StorageError> {
        let text = read_small(&self.tag_path(name, tag), MEDIA_TYPE_MAX_BYTES)?;
        Ok(text.and_then(|text| Digest::parse(&text).ok()))
    }

    /// Points a tag at a digest.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn put_tag(&self, name: &RepositoryName, tag: &Tag, digest: &Digest) -> Result<(), StorageError> {
        self.write_file(&self.tag_path(name, tag), digest.as_str().as_bytes())
    }

    /// Takes a tag away. Whether it was there.
    pub(crate) fn remove_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<bool, StorageError> {
        self.remove(&self.tag_path(name, tag))
    }

    /// Every tag of this repository, sorted by bytes.
    pub(crate) fn tags(&self, name: &RepositoryName) -> Result<BTreeSet<String>, StorageError> {
        Ok(names_in(&self.repository_dir(name).join("_tags"))?.into_iter().collect())
    }

    fn remove(&self, path: &Path) -> Result<bool, StorageError> {
        match fs::remove_file(path) {
            Ok(()) => self.sync_parent(path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StorageError::io("remove", path)(error)),
        }
    }
}

/// Names in a directory; a missing directory has none. Names that are not UTF-8 are not ours.
fn names_in(dir: &Path) -> Result<Vec<String>, StorageError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::io("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StorageError::io("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// Reads a file of at most `max` bytes; what is longer or not text is damage and counts as absent.
fn read_small(path: &Path, max: usize) -> Result<Option<String>, StorageError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(StorageError::io("read", path))?;
    Ok(if bytes.len() > max { None } else { String::from_utf8(bytes).ok() })
}
