//! Images pushed by skopeo and podman, pulled by windlass: the tree is the one podman and umoci make of them, whether
//! layers are kept as directories or as image files.
//!
//! Where those two disagree, or neither keeps what the image specification keeps, [`RULES`] names the rule that
//! decides and the value it decides on; the test fails when a rule is not needed or is not followed.

use std::collections::BTreeSet;

use windlass_e2e::gallery::{Holes, everything, sparse, tars, twice};
use windlass_e2e::peers::{PodmanMount, gnu_extract, podman_pull, skopeo_copy, umoci_unpack};
use windlass_e2e::tree::{Difference, Property, Tree, differences, directories_without_entry, read};
use windlass_e2e::world::{Snapshots, World};
use windlass_testkit::images::{Compression, Family, Image};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{DockerRegistry, Sandbox, Tool, is_root, run, skipped};

/// One path where a peer differs for a reason.
struct Rule {
    path: &'static str,
    property: Property,
    /// Who differs from us there.
    who: Who,
    /// The rule that decides.
    rule: &'static str,
    /// What must stand there; a part of its description.
    decided: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Podman,
    Umoci,
    Both,
}

const fn rule(path: &'static str, property: Property, who: Who, rule: &'static str, decided: &'static str) -> Rule {
    Rule { path, property, who, rule, decided }
}

/// Directories nobody wrote an entry for are made as if somebody had written the plainest one.
const PARENT: &str = "a parent without an entry is made 0755 and root's, whatever set-group-ID bit is above it";
/// OCI image-spec `layer.md`, "Additions and modifications": the attributes are replaced.
const REPLACED: &str = "a directory over a directory replaces its extended attributes";
/// POSIX `ln`: names of one file, which has one mode and one owner.
const LINK: &str = "a hard link is another name; what its entry says about mode and owner does not count";
/// Its storage copies each layer and makes only hard links of regular files again.
const ONE_FILE: &str = "hard links to symbolic links and pipes are links";
/// OCI image-spec `layer.md`, "Change types": xattrs are part of what a layer holds.
const ACL: &str = "an access list is kept";
/// What overlayfs says to itself, and what belongs to the system that made the archive, is no content.
const FOREIGN: &str = "attributes of trusted.* and of overlayfs are dropped";

const RULES: &[Rule] = &[
    rule("implicit/made", Property::Mode, Who::Both, PARENT, "0755"),
    rule("implicit/made", Property::Owner, Who::Both, PARENT, "(0, 0)"),
    rule("implicit/made/on", Property::Mode, Who::Both, PARENT, "0755"),
    rule("implicit/made/on", Property::Owner, Who::Both, PARENT, "(0, 0)"),
    rule("implicit/made/on/the", Property::Mode, Who::Both, PARENT, "0755"),
    rule("implicit/made/on/the", Property::Owner, Who::Both, PARENT, "(0, 0)"),
    rule("merged", Property::Xattrs, Who::Podman, REPLACED, "user.new=2"),
    rule("links/says", Property::Mode, Who::Podman, LINK, "0604"),
    rule("links/says", Property::Owner, Who::Podman, LINK, "(21, 22)"),
    rule("links/says-otherwise", Property::Mode, Who::Podman, LINK, "0604"),
    rule("links/says-otherwise", Property::Owner, Who::Podman, LINK, "(21, 22)"),
    rule("dangling", Property::Links, Who::Podman, ONE_FILE, "link-to-symlink"),
    rule("link-to-symlink", Property::Links, Who::Podman, ONE_FILE, "dangling"),
    rule("dev/pipe", Property::Links, Who::Podman, ONE_FILE, "dev/pipe-too"),
    rule("dev/pipe-too", Property::Links, Who::Podman, ONE_FILE, "dev/pipe"),
    rule("xattrs/acl", Property::Xattrs, Who::Podman, ACL, "system.posix_acl_access="),
    rule("xattrs/overlay", Property::Xattrs, Who::Both, FOREIGN, ""),
    rule("xattrs/trusted", Property::Xattrs, Who::Umoci, FOREIGN, ""),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pusher {
    Skopeo,
    Podman,
}

/// What every test here needs; `None`, said loudly, when something is missing.
fn peers(test: &str) -> Option<DockerRegistry> {
    if !is_root() {
        skipped(test, "needs root");
        return None;
    }
    for tool in [Tool::Skopeo, Tool::Podman, Tool::Umoci] {
        tool.find(test)?;
    }
    DockerRegistry::start(test)
}

fn push(pusher: Pusher, image: &Image, compression: Compression, registry: &DockerRegistry) -> String {
    let sandbox = Sandbox::new();
    let source = TestRegistry::open();
    let placed = source.place(&image.bundle(), "gallery", "v1");
    let reference = registry.reference("gallery", "v1");
    match pusher {
        Pusher::Skopeo => skopeo_copy(&sandbox, &format!("docker://{placed}"), &format!("docker://{reference}")),
        Pusher::Podman => {
            let id = podman_pull(&sandbox, &placed);
            let format = match image.family {
                Family::Oci => "oci",
                Family::Docker => "v2s2",
            };
            let packed = match compression {
                Compression::Zstd => "zstd",
                Compression::None | Compression::Gzip => "gzip",
            };
            let to = format!("docker://{reference}");
            let words = ["push", "--tls-verify=false", "--format", format, "--compression-format", packed, &id, &to];
            run(&mut sandbox.podman(words));
        }
    }
    let raw = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]));
    let manifest: serde_json::Value = serde_json::from_slice(&raw.stdout).expect("JSON");
    for layer in manifest["layers"].as_array().expect("layers") {
        assert_eq!(layer["mediaType"], image.family.layer(compression), "pushed as it was meant to be");
    }
    reference
}

fn compare(test: &str, pusher: Pusher, family: Family, compression: Compression) {
    let Some(registry) = peers(test) else { return };
    let holes = if pusher == Pusher::Skopeo { Holes::Left } else { Holes::Written };
    let image = everything(family, compression, holes);
    let reference = push(pusher, &image, compression, &registry);

    let ours = mounted_in_each_form(test, &reference);

    let sandbox = Sandbox::new();
    let id = podman_pull(&sandbox, &reference);
    let podman = PodmanMount::new(&sandbox, &id);
    let podman = read(podman.path());

    let umoci = (compression != Compression::Zstd).then(|| {
        let layout = sandbox.path("layout");
        let to = format!("oci:{}:v1", layout.display());
        run(&mut sandbox.skopeo(["copy", "--src-tls-verify=false", &format!("docker://{reference}"), &to]));
        read(&umoci_unpack(&sandbox, &layout, "v1", &sandbox.path("bundle")))
    });

    let timeless = directories_without_entry(&tars(&image));
    let mut unexplained = Vec::new();
    for (form, ours) in ours {
        let mut found = judge(&ours, &podman, Who::Podman, &timeless);
        if let Some(umoci) = &umoci {
            found.extend(judge(&ours, umoci, Who::Umoci, &timeless));
        }
        unexplained.extend(found.into_iter().map(|what| format!("{form:?}: {what}")));
    }
    assert!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
}

/// What mounting an image shows, with its layers kept in each form.
fn mounted_in_each_form(test: &str, reference: &str) -> Vec<(Snapshots, Tree)> {
    let mounted = |snapshots| {
        let world = World::new().keeping(snapshots);
        world.ok(["pull", reference]);
        let tree = read(world.mount(reference).path());
        (snapshots, tree)
    };
    Snapshots::possible(&std::env::temp_dir(), test).into_iter().map(mounted).collect()
}

#[test]
fn names_that_are_twice_in_a_layer_make_the_tree_that_umoci_makes() {
    let Some(registry) = peers("names_that_are_twice_in_a_layer_make_the_tree_that_umoci_makes") else { return };
    let image = twice();
    let sandbox = Sandbox::new();
    let layout = sandbox.path("layout");
    image.bundle().write_layout(&layout, "v1");
    let theirs = read(&umoci_unpack(&sandbox, &layout, "v1", &sandbox.path("bundle")));
    same("names_that_are_twice_in_a_layer_make_the_tree_that_umoci_makes", &image, &registry, &theirs, &BOTH_DIR);
}

/// umoci leaves the time at which it took `both-dir/x` away, though the layer has an entry for the directory.
const BOTH_DIR: [(&[u8], Property); 1] = [(b"both-dir", Property::Mtime)];

#[test]
fn sparse_files_of_gnu_tar_make_the_tree_that_gnu_tar_makes() {
    let Some(registry) = peers("sparse_files_of_gnu_tar_make_the_tree_that_gnu_tar_makes") else { return };
    let image = sparse();
    let sandbox = Sandbox::new();
    gnu_extract(&sandbox, &image.layers[0].tar, &sandbox.path("tree"));
    let theirs = read(&sandbox.path("tree"));
    same("sparse_files_of_gnu_tar_make_the_tree_that_gnu_tar_makes", &image, &registry, &theirs, &[]);
}

/// The image, pushed, pulled and mounted, is this tree but for `except`.
#[track_caller]
fn same(test: &str, image: &Image, registry: &DockerRegistry, theirs: &Tree, except: &[(&[u8], Property)]) {
    let reference = push(Pusher::Skopeo, image, Compression::Gzip, registry);
    for (form, ours) in mounted_in_each_form(test, &reference) {
        let mut found = differences(&ours, theirs, &directories_without_entry(&tars(image)));
        // The directory that was unpacked into is not the image's.
        found.retain(|found| !found.path.is_empty() && !except.contains(&(&found.path, found.property)));
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{form:?}: {}", lines.join("\n"));
    }
}

/// Differences that no rule explains, and rules that were not followed.
fn judge(ours: &Tree, theirs: &Tree, who: Who, timeless: &BTreeSet<Vec<u8>>) -> Vec<String> {
    let found = differences(ours, theirs, timeless);
    let rules = || RULES.iter().filter(|rule| rule.who == who || rule.who == Who::Both);
    let fits = |rule: &Rule, found: &Difference| rule.path.as_bytes() == found.path && rule.property == found.property;
    let mut bad = Vec::new();
    for difference in &found {
        match rules().find(|rule| fits(rule, difference)) {
            Some(rule) if difference.ours.contains(rule.decided) => {}
            Some(rule) => bad.push(format!("{who:?}: {difference}; {} asks for {}", rule.rule, rule.decided)),
            None => bad.push(format!("{who:?}: {difference}")),
        }
    }
    for rule in rules().filter(|rule| !found.iter().any(|difference| fits(rule, difference))) {
        bad.push(format!("{who:?}: no difference at {} {:?}, so no rule is needed", rule.path, rule.property));
    }
    bad
}

macro_rules! trees {
    ($($name:ident: $pusher:ident, $family:ident, $compression:ident;)+) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), Pusher::$pusher, Family::$family, Compression::$compression);
        })+
    };
}

trees! {
    skopeo_oci_gzip_makes_the_same_tree: Skopeo, Oci, Gzip;
    skopeo_oci_zstd_makes_the_same_tree: Skopeo, Oci, Zstd;
    skopeo_oci_uncompressed_makes_the_same_tree: Skopeo, Oci, None;
    skopeo_docker_gzip_makes_the_same_tree: Skopeo, Docker, Gzip;
    skopeo_docker_uncompressed_makes_the_same_tree: Skopeo, Docker, None;
    podman_oci_gzip_makes_the_same_tree: Podman, Oci, Gzip;
    podman_oci_zstd_makes_the_same_tree: Podman, Oci, Zstd;
    podman_docker_gzip_makes_the_same_tree: Podman, Docker, Gzip;
}
