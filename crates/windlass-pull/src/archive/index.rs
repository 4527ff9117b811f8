//! OCI image layouts: `oci-layout`, `index.json`, `blobs/`.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use windlass_core::manifest::{Descriptor, Document, DocumentLimits, media_type, parse_document};
use windlass_core::reference::Reference;

use super::source::Source;
use super::{Archive, Listed};
use crate::PullError;

/// The only version there is. image-spec: `ImageLayoutVersion`.
const VERSION: &str = "1.0.0";
/// Longest `oci-layout` file; it holds one field.
const LAYOUT_BYTES_MAX: u64 = 64 << 10;
/// A tag, by the image-spec; others (containerd, buildkit) put the whole name here.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, as containerd, docker and buildkit write it.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Digest of the index that a manifest was chosen from, which lies beside it. Ours: other tools take an index whose
/// other platforms are missing for damaged, so the entry is the manifest, and the index comes back when it is loaded.
pub(crate) const CHOSEN_FROM: &str = "dev.windlass.chosen-from";

#[derive(Deserialize)]
struct LayoutFile {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// An index as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WrittenIndex<'d> {
    pub(crate) schema_version: u8,
    pub(crate) media_type: &'d str,
    pub(crate) manifests: &'d [Descriptor],
}

pub(super) fn open(source: Source, limits: &DocumentLimits) -> Result<Archive, PullError> {
    let layout = source.small("oci-layout", LAYOUT_BYTES_MAX)?.unwrap_or_default();
    let layout: LayoutFile = serde_json::from_slice(&layout)
        .map_err(|error| source.bad(format!("the oci-layout file cannot be read: {error}")))?;
    if layout.version != VERSION {
        return Err(source.bad(format!("layout version {:?}, only {VERSION} is known", layout.version)));
    }
    let index =
        source.small("index.json", limits.manifest_bytes)?.ok_or_else(|| source.bad("index.json is missing"))?;
    let entries = match parse_document(&index, None, Some(media_type::OCI_INDEX), limits)? {
        Document::Index(index) => index.entries,
        Document::Manifest(_) => return Err(source.bad("index.json is not an index")),
    };
    let mut images: Vec<Listed> = Vec::new();
    for root in entries.into_iter().filter(Descriptor::is_document) {
        let (names, tags) = names(&root);
        match images.iter_mut().find(|image| image.root.digest == root.digest) {
            Some(image) => {
                image.names.extend(names);
                image.tags.extend(tags);
            }
            None => images.push(Listed { names, tags, root }),
        }
    }
    Ok(Archive { source, images, elsewhere: HashMap::new() })
}

/// Full names and bare tags of an entry. What is neither is left out: a name is for looking up, never a path.
fn names(root: &Descriptor) -> (Vec<Reference>, Vec<String>) {
    let full = |text: &String| Reference::parse(text).ok();
    if let Some(name) = root.annotations.get(IMAGE_NAME).and_then(full) {
        return (vec![name], Vec::new());
    }
    match root.annotations.get(REF_NAME) {
        // A name always says where it ends: by a slash, a tag or a digest. A bare word is a tag.
        Some(text) if text.contains(['/', ':', '@']) => (full(text).into_iter().collect(), Vec::new()),
        Some(text) if Reference::parse(&format!("x:{text}")).is_ok() => (Vec::new(), vec![text.clone()]),
        Some(_) | None => (Vec::new(), Vec::new()),
    }
}
