//! What a pull will do: which layers are here, which have to be fetched, in which order, and how much that is.
//!
//! In: a checked manifest and config, and what the store holds. Out: a [`Plan`], which is also what a dry run prints.
//! Source of truth: the manifest; image-spec `layer.md` for layers that are listed twice.
//!
//! Invariants: `a_blob_listed_twice_is_fetched_once`, `the_longest_fetch_comes_first`,
//! `foreign_addresses_are_used_only_when_allowed`.

use std::collections::{HashMap, HashSet};

use url::Url;

use crate::digest::Digest;
use crate::manifest::{Descriptor, DocumentLimits, ImageConfig, LayerType, Manifest, ManifestError, chain_ids};

/// More layers than this are worth a warning: older Docker versions cannot run the image.
pub const LAYERS_WARNED_ABOVE: usize = 127;

/// What the store holds of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// Its unpacked tree, on top of exactly these lower layers.
    Unpacked,
    /// Its blob, so it only has to be unpacked.
    Blob,
    /// Nothing.
    Nothing,
}

/// What is done about one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerStep {
    /// It is used as it is.
    Use,
    /// The blob that is here is unpacked.
    Unpack,
    /// It is fetched and unpacked in one pass.
    Fetch,
    /// The bytes of an earlier layer of this plan (its position) are unpacked once more.
    Share(usize),
}

/// One layer of the image, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLayer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// What its type says.
    pub layer_type: LayerType,
    /// Digest of its tar.
    pub diff_id: Digest,
    /// The address of its tree on top of the lower ones.
    pub chain_id: Digest,
    /// What is done about it.
    pub step: LayerStep,
}

/// What a pull will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All layers, lowest first.
    pub layers: Vec<PlannedLayer>,
    /// Compressed bytes of all distinct blobs.
    pub total_bytes: u64,
    /// Compressed bytes to fetch; to be compared with the free space before the first request. What unpacking needs
    /// beyond that is not known before.
    pub fetch_bytes: u64,
}

impl Plan {
    /// Plans an image.
    ///
    /// # Errors
    /// [`ManifestError`] where manifest and config do not make an image that can be unpacked.
    pub fn of(
        manifest: &Manifest,
        config: &ImageConfig,
        limits: &DocumentLimits,
        held: impl Fn(&Descriptor, &Digest) -> Held,
    ) -> Result<Plan, ManifestError> {
        let types = manifest.layer_types(limits)?;
        config.check_layers(manifest)?;
        let mut plan = Plan { layers: Vec::with_capacity(types.len()), total_bytes: 0, fetch_bytes: 0 };
        let mut first_fetch: HashMap<&Digest, usize> = HashMap::new();
        let mut counted: HashSet<&Digest> = HashSet::new();
        let chain = chain_ids(&config.diff_ids);
        let parts = manifest.layers.iter().zip(types).zip(config.diff_ids.iter().zip(chain));
        for (at, ((descriptor, layer_type), (diff_id, chain_id))) in parts.enumerate() {
            if counted.insert(&descriptor.digest) {
                plan.total_bytes = plan.total_bytes.saturating_add(descriptor.size_bytes);
            }
            let step = match (held(descriptor, &chain_id), first_fetch.get(&descriptor.digest)) {
                (Held::Unpacked, _) => LayerStep::Use,
                (Held::Blob, _) => LayerStep::Unpack,
                (Held::Nothing, Some(first)) => LayerStep::Share(*first),
                (Held::Nothing, None) => {
                    first_fetch.insert(&descriptor.digest, at);
                    plan.fetch_bytes = plan.fetch_bytes.saturating_add(descriptor.size_bytes);
                    LayerStep::Fetch
                }
            };
            let (descriptor, diff_id) = (descriptor.clone(), diff_id.clone());
            plan.layers.push(PlannedLayer { descriptor, layer_type, diff_id, chain_id, step });
        }
        Ok(plan)
    }

    /// Positions of the layers to fetch, the longest first, so that none of them is waited for alone at the end.
    pub fn fetch_order(&self) -> Vec<usize> {
        let is_fetched = |at: &usize| self.layers[*at].step == LayerStep::Fetch;
        let mut order: Vec<usize> = (0..self.layers.len()).filter(is_fetched).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.layers[*at].descriptor.size_bytes));
        order
    }

    /// Whether nothing has to be fetched or unpacked.
    pub fn is_complete(&self) -> bool {
        self.layers.iter().all(|layer| layer.step == LayerStep::Use)
    }

    /// What is odd about the image without being wrong.
    pub fn warning(&self) -> Option<String> {
        let count = self.layers.len();
        (count > LAYERS_WARNED_ABOVE).then(|| format!("{count} layers: some runtimes allow {LAYERS_WARNED_ABOVE}"))
    }
}

/// Whether layers may come from the addresses in their descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignUrls {
    /// Never.
    #[default]
    Refuse,
    /// After the registry has failed, by https.
    Https,
    /// Also by http, for hosts that are marked insecure.
    HttpToo,
}

/// Other addresses of a layer, to be asked without any credentials after its registry has failed, and never when they
/// answer 401. Only layers of a foreign type have any (CVE-2020-15157); what is not a plain address is left out.
pub fn foreign_urls(descriptor: &Descriptor, allowed: ForeignUrls) -> Vec<Url> {
    let is_foreign = LayerType::of(&descriptor.media_type).is_some_and(|layer| layer.foreign);
    let is_allowed = |url: &Url| {
        let scheme = match (allowed, url.scheme()) {
            (ForeignUrls::Https | ForeignUrls::HttpToo, "https") | (ForeignUrls::HttpToo, "http") => true,
            (ForeignUrls::Refuse | ForeignUrls::Https | ForeignUrls::HttpToo, _) => false,
        };
        scheme && url.username().is_empty() && url.password().is_none()
    };
    let urls = descriptor.urls.iter().filter_map(|text| Url::parse(text).ok());
    urls.filter(|url| is_foreign && is_allowed(url)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Document, media_type, parse_config, parse_document};

    /// An image of one blob per letter, as long as the letter's place in the alphabet.
    fn image(blobs: &str) -> (Manifest, ImageConfig) {
        let digest = |c: char| Digest::sha256(c.to_string().as_bytes());
        let layers: Vec<_> = blobs
            .chars()
            .map(|c| {
                let size = u32::from(c) - u32::from('a') + 1;
                serde_json::json!({"mediaType": media_type::OCI_LAYER, "digest": digest(c), "size": size})
            })
            .collect();
        let ids: Vec<Digest> = blobs.chars().map(|c| digest(c.to_ascii_uppercase())).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": layers,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest('0'), "size": 1}});
        let config = serde_json::json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
        let limits = DocumentLimits::default();
        let document = parse_document(manifest.to_string().as_bytes(), None, None, &limits).expect("a manifest");
        let Document::Manifest(manifest) = document else { panic!("a manifest") };
        (manifest, parse_config(config.to_string().as_bytes(), &limits).expect("a config"))
    }

    fn plan(blobs: &str, held: impl Fn(usize) -> Held) -> Plan {
        let (manifest, config) = image(blobs);
        let chain = chain_ids(&config.diff_ids);
        let held = |_: &Descriptor, id: &Digest| held(chain.iter().position(|c| c == id).expect("a layer"));
        Plan::of(&manifest, &config, &DocumentLimits::default(), held).expect("an image")
    }

    fn steps(plan: &Plan) -> Vec<LayerStep> {
        plan.layers.iter().map(|layer| layer.step).collect()
    }

    #[test]
    fn a_blob_listed_twice_is_fetched_once() {
        let plan = plan("abab", |_| Held::Nothing);
        assert_eq!(steps(&plan), [LayerStep::Fetch, LayerStep::Fetch, LayerStep::Share(0), LayerStep::Share(1)]);
        assert_eq!((plan.total_bytes, plan.fetch_bytes), (3, 3));
    }

    #[test]
    fn the_longest_fetch_comes_first() {
        let plan = plan("acbd", |at| if at == 3 { Held::Unpacked } else { Held::Nothing });
        assert_eq!(plan.fetch_order(), [1, 2, 0]);
        assert_eq!((plan.total_bytes, plan.fetch_bytes), (10, 6));
    }

    #[test]
    fn what_is_here_is_not_fetched() {
        let plan_held = plan("ab", |at| if at == 0 { Held::Unpacked } else { Held::Blob });
        assert_eq!(steps(&plan_held), [LayerStep::Use, LayerStep::Unpack]);
        assert_eq!((plan_held.fetch_bytes, plan_held.is_complete()), (0, false));
        assert!(plan("ab", |_| Held::Unpacked).is_complete());
        assert_eq!(
            plan(&"a".repeat(128), |_| Held::Unpacked).warning().expect("many"),
            "128 layers: some runtimes allow 127"
        );
    }

    #[test]
    fn foreign_addresses_are_used_only_when_allowed() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let urls = ["https://a.example/x", "http://b.example/x", "file:///etc/passwd", "https://u:p@c.example/", "::"];
        let layer = |media_type: &str| {
            let urls = urls.map(str::to_owned).to_vec();
            Descriptor { urls, ..Descriptor::new(media_type, Digest::sha256(b""), 1) }
        };
        let table: [(&str, ForeignUrls, &[&str]); 4] = [
            (foreign, ForeignUrls::Refuse, &[]),
            (foreign, ForeignUrls::Https, &["https://a.example/x"]),
            (foreign, ForeignUrls::HttpToo, &["https://a.example/x", "http://b.example/x"]),
            (media_type::OCI_LAYER_GZIP, ForeignUrls::HttpToo, &[]),
        ];
        for (media_type, allowed, want) in table {
            let found = foreign_urls(&layer(media_type), allowed);
            assert_eq!(found.iter().map(Url::as_str).collect::<Vec<_>>(), want, "{media_type} {allowed:?}");
        }
    }
}
