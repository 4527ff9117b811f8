//! A small image: one layer, one config, one manifest.

use windlass_core::digest::Digest;
use windlass_core::manifest::Descriptor;

use super::server::{Reply, Seen};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
}

impl Image {
    /// An image whose layer has `layer_bytes` bytes of a pattern without short periods.
    pub(crate) fn new(layer_bytes: usize) -> Image {
        let layer: Vec<u8> = (0..layer_bytes).map(|i| ((i * 31) ^ (i >> 8) ^ (i >> 16)) as u8).collect();
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"{LAYER_TYPE}","digest":"{}","size":{}}}]}}"#,
            Digest::sha256(&config),
            config.len(),
            Digest::sha256(&layer),
            layer.len()
        );
        Image { manifest: manifest.into_bytes(), layer, config }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    pub(crate) fn layer(&self) -> Descriptor {
        Descriptor::new(LAYER_TYPE, Digest::sha256(&self.layer), self.layer.len() as u64)
    }

    pub(crate) fn config(&self) -> Descriptor {
        let media_type = "application/vnd.oci.image.config.v1+json";
        Descriptor::new(media_type, Digest::sha256(&self.config), self.config.len() as u64)
    }

    /// What an honest registry answers.
    pub(crate) fn serve(&self, seen: &Seen) -> Reply {
        let path = seen.path();
        if path.contains("/manifests/") {
            return self.manifest_reply();
        }
        if path.ends_with(&format!("/blobs/{}", Digest::sha256(&self.layer))) {
            return ranged(&self.layer, seen);
        }
        if path.ends_with(&format!("/blobs/{}", Digest::sha256(&self.config))) {
            return ranged(&self.config, seen);
        }
        Reply::error(404, "NAME_UNKNOWN", "nothing here")
    }

    pub(crate) fn manifest_reply(&self) -> Reply {
        Reply::new(200)
            .header("Content-Type", MANIFEST_TYPE)
            .header("Docker-Content-Digest", self.digest().as_str())
            .body(self.manifest.clone())
    }
}

/// The content, or the range of it that was asked for.
pub(crate) fn ranged(content: &[u8], seen: &Seen) -> Reply {
    let reply = Reply::new(200).header("Content-Type", "application/octet-stream");
    let Some(range) = seen.header("range").and_then(|r| r.strip_prefix("bytes=").map(str::to_owned)) else {
        return reply.body(content.to_vec());
    };
    let (first, last) = range.split_once('-').expect("a range");
    let first: usize = first.parse().expect("a number");
    let last: usize = last.parse().unwrap_or(content.len() - 1).min(content.len() - 1);
    Reply::new(206)
        .header("Content-Range", &format!("bytes {first}-{last}/{}", content.len()))
        .body(content[first..=last].to_vec())
}
