//! What `save` and `push` write with `--recompress`, when the registry that an image came from is gone: an image that
//! skopeo and podman read, with digests that fit and the files it had.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;
use windlass_core::digest::Digest;
use windlass_e2e::gallery::{Holes, everything, tars};
use windlass_e2e::peers::{PodmanMount, podman_pull, skopeo_copy};
use windlass_e2e::tree::{Tree, differences, directories_without_entry, read};
use windlass_e2e::world::{Snapshots, World};
use windlass_testkit::images::{Compression, Family, Image, Layer};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{DockerRegistry, Sandbox, Tool, is_root, run, skipped};

/// An image whose registry is gone: in the store of a machine, and as podman had it from the registry.
struct Orphan {
    image: Image,
    world: World,
    reference: String,
    want: Tree,
    /// Directories whose time no layer decides.
    timeless: BTreeSet<Vec<u8>>,
}

impl Orphan {
    fn new(family: Family, compression: Compression) -> Orphan {
        let registry = TestRegistry::open();
        let gallery = everything(family, Compression::None, Holes::Written);
        // Not as windlass compresses, or the blobs would be the same again.
        let layer = |tar: &[u8]| Layer::from_tar(tar).compression(compression).level(1);
        let image = Image::build().family(family);
        let image = tars(&gallery).into_iter().fold(image, |image, tar| image.layer(layer(tar))).finish();
        let reference = registry.place(&image.bundle(), "orphan", "v1");
        let timeless = directories_without_entry(&tars(&image));
        let direct = Sandbox::new();
        let want = podman_tree(&direct, &podman_pull(&direct, &reference));
        let world = World::new().keeping(Snapshots::ImageFiles);
        world.ok(["pull", &reference]);
        Orphan { image, world, reference, want, timeless }
    }

    /// Runs a command that writes the image; says what manifest it has there.
    #[track_caller]
    fn written(&self, words: &[&str], recompressed: impl Fn(&Json) -> Json) -> Digest {
        let refused = self.world.run(words);
        assert_ne!(refused.code(), Some(0), "the blobs are nowhere: {refused}");
        assert!(refused.stderr.contains("--recompress"), "{refused}");
        let report = self.world.ok(words.iter().chain(&["--recompress", "-o", "json"])).json();
        let told = recompressed(&report);
        assert_eq!(told["image"], self.image.id().as_str(), "{report}");
        assert_eq!(told["storedManifest"], self.image.manifest.digest.as_str(), "{report}");
        assert_eq!(told["layers"], self.image.layers.len(), "{report}");
        Digest::parse(told["writtenManifest"].as_str().expect("a digest")).expect("a digest")
    }

    /// What skopeo finds at a place: the manifest that was told of, the same config, layers of the same kinds.
    #[track_caller]
    fn inspect(&self, sandbox: &Sandbox, place: &str, manifest: &Digest) {
        let raw = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", place])).stdout;
        assert_eq!(Digest::sha256(&raw), *manifest, "{place}");
        let raw: Json = serde_json::from_slice(&raw).expect("JSON");
        assert_eq!(raw["config"]["digest"], self.image.id().as_str(), "{place}");
        let layers = raw["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), self.image.layers.len(), "{place}");
        for (layer, own) in layers.iter().zip(&self.image.layers) {
            assert_eq!(layer["mediaType"], own.blob.media_type, "{place}");
            assert_ne!(layer["digest"], own.blob.digest.as_str(), "{place}: it is gone");
        }
        let config = run(&mut sandbox.skopeo(["inspect", "--config", "--tls-verify=false", place])).stdout;
        let config: Json = serde_json::from_slice(&config).expect("JSON");
        let diff_ids: Vec<&str> = self.image.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids), "{place}");
        // Every byte is read on the way, and every digest checked.
        skopeo_copy(sandbox, place, &format!("dir:{}", sandbox.path("copied").display()));
    }

    /// What podman makes of the image under one of its names: it checks the diff IDs, too.
    #[track_caller]
    fn same_in_podman(&self, what: &str, sandbox: &Sandbox, id: &str) {
        assert_eq!(id, self.image.id().hex(), "{what}");
        let lines = differences(&podman_tree(sandbox, id), &self.want, &self.timeless);
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
    }
}

fn podman_tree(sandbox: &Sandbox, image: &str) -> Tree {
    read(PodmanMount::new(sandbox, image).path())
}

/// ID of the only image that a `podman load` brought.
fn podman_load(sandbox: &Sandbox, archive: &Path) -> String {
    run(sandbox.podman(["load", "--quiet", "--input"]).arg(archive));
    let listed = run(&mut sandbox.podman(["images", "--no-trunc", "--quiet"]));
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().next().expect("an image").trim_start_matches("sha256:").to_owned()
}

/// Whether everything is there that these tests need; says loudly what is missing.
fn possible(test: &str) -> bool {
    if !is_root() {
        skipped(test, "needs root");
        return false;
    }
    let has_tools = [Tool::Skopeo, Tool::Podman].into_iter().all(|tool| tool.find(test).is_some());
    // Only an image file has the layer's own tar.
    has_tools && Snapshots::possible(&std::env::temp_dir(), test).contains(&Snapshots::ImageFiles)
}

const KINDS: [(Family, Compression); 3] =
    [(Family::Oci, Compression::Gzip), (Family::Oci, Compression::Zstd), (Family::Docker, Compression::Gzip)];

#[test]
fn what_is_saved_compressed_anew_is_read_by_skopeo_and_podman() {
    if !possible("what_is_saved_compressed_anew_is_read_by_skopeo_and_podman") {
        return;
    }
    for ((family, compression), (form, name)) in KINDS.into_iter().zip([("oci-archive", "oci.tar"), ("oci", "layout")])
    {
        let what = format!("{form} {family:?} {compression:?}");
        let orphan = Orphan::new(family, compression);
        let path = orphan.world.path(name);
        let place = format!("{form}:{}", path.display());
        let words = ["save", &orphan.reference, "--to", &place];
        let manifest = orphan.written(&words, |report| report["recompressed"][0].clone());
        let sandbox = Sandbox::new();
        orphan.inspect(&sandbox, &place, &manifest);
        orphan.same_in_podman(&what, &sandbox, &podman_load(&sandbox, &path));
    }
}

#[test]
fn what_is_pushed_compressed_anew_is_pulled_by_skopeo_and_podman() {
    let test = "what_is_pushed_compressed_anew_is_pulled_by_skopeo_and_podman";
    if !possible(test) {
        return;
    }
    let Some(peer) = DockerRegistry::start(test) else { return };
    for (family, compression) in KINDS {
        let orphan = Orphan::new(family, compression);
        let name = format!("{family:?}-{compression:?}").to_lowercase();
        let pushed = peer.reference(&format!("anew/{name}"), "v1");
        let words = ["push", &orphan.reference, &pushed];
        let manifest = orphan.written(&words, |report| report["recompressed"].clone());
        let sandbox = Sandbox::new();
        orphan.inspect(&sandbox, &format!("docker://{pushed}"), &manifest);
        orphan.same_in_podman(&name, &sandbox, &podman_pull(&sandbox, &pushed));
        // And as itself by windlass.
        let other = World::new();
        let report = other.ok(["pull", &pushed, "-o", "json"]).json();
        let item = &report["items"][0];
        assert_eq!((&item["id"], &item["manifest"]), (&orphan.image.id().as_str().into(), &manifest.as_str().into()));
        other.ok(["fsck"]);
    }
}
