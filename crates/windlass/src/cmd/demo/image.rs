//! Images made of nothing but a few files, for the demonstration: built here, so that it needs no network.
//!
//! Invariant: `an_image_is_whole_and_its_digests_fit`.

use serde_json::{Value as Json, json};
use windlass_core::digest::Digest;

/// Media types of OCI image-spec 1.1.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Size of a tar block.
const BLOCK: usize = 512;

/// Something to put into a registry.
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

/// A document with its media type.
pub(super) struct Document {
    pub(super) media_type: &'static str,
    pub(super) content: Content,
}

/// Everything that one tag leads to: blobs first, the document that the tag names last.
pub(super) struct Built {
    pub(super) blobs: Vec<Content>,
    pub(super) documents: Vec<Document>,
}

impl Built {
    /// What the tag names.
    pub(super) fn root(&self) -> &Document {
        self.documents.last().expect("a built image has a document")
    }
}

/// An index with one image per platform, each saying where it runs.
pub(super) fn multi_platform(greeting: &str, platforms: &[(&str, Option<&str>)]) -> Built {
    let (mut blobs, mut documents, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (architecture, variant) in platforms {
        let mut one = single(&format!("{greeting} on {architecture}"), architecture, *variant);
        let root = one.root();
        let mut platform = json!({ "os": "linux", "architecture": architecture });
        if let Some(variant) = variant {
            platform["variant"] = (*variant).into();
        }
        entries.push(described(MANIFEST, &root.content, Some(platform)));
        blobs.append(&mut one.blobs);
        documents.append(&mut one.documents);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    documents.push(Document { media_type: INDEX, content: content(index.to_string().into_bytes()) });
    Built { blobs, documents }
}

/// An image of two layers for one platform.
pub(super) fn single(greeting: &str, architecture: &str, variant: Option<&str>) -> Built {
    let layers = [
        archive(&[("etc/", None), ("etc/os-release", Some("ID=windlass-demo\n"))]),
        archive(&[("greeting", Some(&format!("{greeting}\n")))]),
    ]
    .map(content);
    let mut config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": ["/greeting"], "Labels": { "org.opencontainers.image.title": greeting } },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| layer.digest.as_str()).collect::<Vec<_>>() },
    });
    if let Some(variant) = variant {
        config["variant"] = variant.into();
    }
    let config = content(config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(CONFIG, &config, None),
        "layers": layers.iter().map(|layer| described(LAYER, layer, None)).collect::<Vec<_>>(),
    });
    let manifest = Document { media_type: MANIFEST, content: content(manifest.to_string().into_bytes()) };
    Built { blobs: layers.into_iter().chain([config]).collect(), documents: vec![manifest] }
}

fn content(bytes: Vec<u8>) -> Content {
    Content { digest: Digest::sha256(&bytes), bytes }
}

fn described(media_type: &str, content: &Content, platform: Option<Json>) -> Json {
    let mut descriptor = json!({
        "mediaType": media_type,
        "digest": content.digest.as_str(),
        "size": content.bytes.len(),
    });
    if let Some(platform) = platform {
        descriptor["platform"] = platform;
    }
    descriptor
}

/// A POSIX tar archive of directories (names that end with a slash) and files, owned by root, dated 1970.
fn archive(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, text) in entries {
        let text = text.unwrap_or_default().as_bytes();
        bytes.extend_from_slice(&header(name, text.len()));
        bytes.extend_from_slice(text);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// One header block (POSIX.1-1988 ustar).
fn header(name: &str, length: usize) -> [u8; BLOCK] {
    let is_directory = name.ends_with('/');
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, if is_directory { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, if is_directory { b"5" } else { b"0" });
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_whole_and_its_digests_fit() {
        let built = multi_platform("hello", &[("amd64", None), ("arm64", Some("v8"))]);
        let index: Json = serde_json::from_slice(&built.root().content.bytes).unwrap();
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
        let all = built.blobs.iter().chain(built.documents.iter().map(|document| &document.content));
        let known: Vec<&Content> = all.collect();
        for content in &known {
            assert_eq!(Digest::sha256(&content.bytes), content.digest);
        }
        for document in &built.documents[..2] {
            let manifest: Json = serde_json::from_slice(&document.content.bytes).unwrap();
            let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
            for part in parts {
                let found = known.iter().find(|content| part["digest"] == content.digest.as_str()).unwrap();
                assert_eq!(part["size"], found.bytes.len());
            }
        }
    }

    #[test]
    fn an_archive_has_blocks_and_a_sum() {
        let bytes = archive(&[("a/", None), ("a/b", Some("text"))]);
        assert_eq!(bytes.len(), 5 * BLOCK);
        let header = &bytes[BLOCK..2 * BLOCK];
        let plain =
            header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) });
        let want = format!("{:06o}", plain.sum::<u32>());
        assert_eq!(&header[148..154], want.as_bytes());
    }
}
