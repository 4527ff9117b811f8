//! The images of the store as the CRI shows them, in memory, and finding one by whatever names it.
//!
//! In: the images that are here and whole, read elsewhere. Out: [`Index`], immutable, and [`ImageView`], which always
//! holds the latest one and never waits. Nothing here touches a disk or a lock.
//! Source of truth: kubernetes/cri-api `api.proto` (`Image.id`, `PullImageResponse.image_ref`), and the names that
//! containerd's CRI accepts (`LocalResolve`): an ID, a reference, the beginning of an ID, in this order.
//!
//! Invariants: `a_look_up_finds_what_a_search_through_all_would_find`, `every_form_of_a_name_finds_its_image`,
//! `a_beginning_of_several_ids_is_an_error`.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use windlass_core::digest::{Algorithm, Digest};
use windlass_core::reference::Reference;

/// Longest name that is looked at. A host name has 253 bytes at most, a path 255, a tag 128, a digest 135.
pub const NAME_MAX_BYTES: usize = 1024;

/// Who an image's process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// The config does not say.
    Unset,
    /// A number; 0 is said, not implied.
    Uid(i64),
    /// A name, to be looked up in the image.
    Name(String),
}

impl ImageUser {
    /// The user of a config's `User`, which may have a group behind a colon. A decimal number is a user ID, as Go's
    /// `strconv.ParseInt` has it.
    pub fn of_config(user: &str) -> ImageUser {
        let user = user.split(':').next().unwrap_or_default();
        match user.parse() {
            _ if user.is_empty() => ImageUser::Unset,
            Ok(uid) => ImageUser::Uid(uid),
            Err(_) => ImageUser::Name(user.to_owned()),
        }
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEntry {
    /// The image ID: the digest of its config.
    pub id: Digest,
    /// `host/path:tag`, sorted.
    pub repo_tags: Vec<String>,
    /// `host/path@digest` of what names resolved to, sorted: the index where there is one, else the manifest.
    pub repo_digests: Vec<String>,
    /// `host/path@digest` of manifests that were reached through an index: they find the image, and are not shown.
    pub more_digests: Vec<String>,
    /// Bytes of index, manifest, config and compressed layers.
    pub size_bytes: u64,
    /// Who it runs as.
    pub user: ImageUser,
    /// Whether anybody asked for it to be kept.
    pub pinned: bool,
    /// The manifest last committed, and its index: what `size_bytes` counts.
    pub manifest: (Digest, Option<Digest>),
}

/// What a text leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// One image.
    Found(Arc<ImageEntry>),
    /// None; a text that names nothing is no error.
    Absent,
    /// The beginning of several IDs.
    Ambiguous,
}

/// All images at one moment.
#[derive(Debug, Default)]
pub struct Index {
    /// In the order of the hexadecimal digits of their IDs.
    images: Vec<Arc<ImageEntry>>,
    /// Positions by normalised name.
    names: HashMap<String, usize>,
}

impl Index {
    /// Makes an index; each ID must be there once.
    pub fn new(images: impl IntoIterator<Item = ImageEntry>) -> Index {
        let mut images: Vec<Arc<ImageEntry>> = images.into_iter().map(Arc::new).collect();
        images.sort_by(|a, b| order(&a.id).cmp(&order(&b.id)));
        let mut names = HashMap::new();
        for (at, image) in images.iter().enumerate() {
            for name in image.repo_tags.iter().chain(&image.repo_digests).chain(&image.more_digests) {
                names.insert(name.clone(), at);
            }
        }
        Index { images, names }
    }

    /// Every image, each once.
    pub fn images(&self) -> &[Arc<ImageEntry>] {
        &self.images
    }

    /// The image with this ID.
    pub fn by_id(&self, id: &Digest) -> Option<&Arc<ImageEntry>> {
        let at = self.images.binary_search_by(|image| order(&image.id).cmp(&order(id))).ok()?;
        self.images.get(at)
    }

    /// The image that a text means: a whole ID, else a reference, else the beginning of an ID.
    pub fn look_up(&self, text: &str) -> Lookup {
        if text.len() > NAME_MAX_BYTES {
            return Lookup::Absent;
        }
        if let Ok(id) = Digest::parse(text) {
            return self.by_id(&id).cloned().map_or(Lookup::Absent, Lookup::Found);
        }
        match Reference::parse(text).ok().and_then(|reference| self.names.get(&reference.runtime_ref())) {
            Some(at) => Lookup::Found(self.images[*at].clone()),
            None => self.by_beginning(text),
        }
    }

    fn by_beginning(&self, text: &str) -> Lookup {
        let (algorithm, hex) = match text.split_once(':') {
            None => (None, text),
            Some(("sha256", hex)) => (Some(Algorithm::Sha256), hex),
            Some(("sha512", hex)) => (Some(Algorithm::Sha512), hex),
            Some(_) => return Lookup::Absent,
        };
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Lookup::Absent;
        }
        let first = self.images.partition_point(|image| image.id.hex() < hex);
        let mut matching = self.images[first..]
            .iter()
            .take_while(|image| image.id.hex().starts_with(hex))
            .filter(|image| algorithm.is_none_or(|algorithm| image.id.algorithm() == algorithm));
        match (matching.next(), matching.next()) {
            (None, _) => Lookup::Absent,
            // A whole ID stands before those that go on after it.
            (Some(image), other) if other.is_none() || image.id.hex() == hex => Lookup::Found(image.clone()),
            (Some(_), _) => Lookup::Ambiguous,
        }
    }
}

fn order(id: &Digest) -> (&str, &str) {
    (id.hex(), id.as_str())
}

/// The latest [`Index`]. Reading it never waits.
#[derive(Debug, Default)]
pub struct ImageView {
    current: ArcSwap<Index>,
}

impl ImageView {
    /// The images now. What was taken stays as it is; take it again for later calls.
    pub fn index(&self) -> Arc<Index> {
        self.current.load_full()
    }

    /// Shows other images from now on.
    pub(crate) fn show(&self, index: Index) {
        self.current.store(Arc::new(index));
    }
}

#[cfg(test)]
mod tests;
