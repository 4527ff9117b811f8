//! What windlass writes is read by the others, what they write is read by windlass, and the trees stay the same.

use std::collections::BTreeSet;
use std::path::Path;

use windlass_e2e::gallery::{Holes, everything, tars};
use windlass_e2e::peers::{Containerd, PodmanMount, podman_pull, skopeo_copy};
use windlass_e2e::tree::{Tree, differences, directories_without_entry, read};
use windlass_e2e::world::World;
use windlass_testkit::images::{Compression, Family, Image, Index, small, small_for};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{DockerRegistry, Sandbox, Tool, is_root, run, skipped};

/// Whether everything is there that comparing trees needs; says loudly what is missing.
fn can_compare(test: &str) -> bool {
    if !is_root() {
        skipped(test, "needs root");
    }
    is_root() && [Tool::Skopeo, Tool::Podman].into_iter().all(|tool| tool.find(test).is_some())
}

fn tree(world: &World, image: &str) -> Tree {
    read(world.mount(image).path())
}

fn podman_tree(sandbox: &Sandbox, image: &str) -> Tree {
    read(PodmanMount::new(sandbox, image).path())
}

#[track_caller]
fn assert_same(what: &str, one: &Tree, other: &Tree, timeless: &BTreeSet<Vec<u8>>) {
    let lines: Vec<String> = differences(one, other, timeless).iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

/// ID of an image in windlass's store, without its algorithm.
fn id_of(world: &World, image: &str) -> String {
    let shown = world.ok(["images", "-o", "json"]).json();
    let items = shown["items"].as_array().expect("a list");
    let text = |item: &serde_json::Value| item.to_string();
    let item = items.iter().find(|item| text(item).contains(image)).unwrap_or_else(|| panic!("{image}: {shown}"));
    item["id"].as_str().expect("an ID").trim_start_matches("sha256:").to_owned()
}

/// ID of the only image that a `podman load` brought.
fn podman_load(sandbox: &Sandbox, archive: &Path) -> String {
    run(sandbox.podman(["load", "--quiet", "--input"]).arg(archive));
    let listed = run(&mut sandbox.podman(["images", "--no-trunc", "--quiet"]));
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().next().expect("an image").trim_start_matches("sha256:").to_owned()
}

#[test]
fn saved_images_are_read_by_skopeo_and_podman() {
    if !can_compare("saved_images_are_read_by_skopeo_and_podman") {
        return;
    }
    let registry = TestRegistry::open();
    let image = everything(Family::Oci, Compression::Gzip, Holes::Written);
    let timeless = directories_without_entry(&tars(&image));
    let reference = registry.place(&image.bundle(), "saved", "v1");
    let direct = Sandbox::new();
    let id = podman_pull(&direct, &reference);
    let want = podman_tree(&direct, &id);
    let world = World::new();
    world.ok(["pull", &reference]);
    for (form, name) in [("oci", "layout"), ("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
        let path = world.path(name);
        world.ok(["save", &reference, "--to", &format!("{form}:{}", path.display())]);
        let sandbox = Sandbox::new();
        let source = format!("{form}:{}", path.display());
        let inspected = run(&mut sandbox.skopeo(["inspect", "--config", &source]));
        let config: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
        let diff_ids: Vec<&str> = image.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids), "{form}");
        // skopeo reads every byte and checks every digest on the way.
        skopeo_copy_plain(&sandbox, &source, &format!("dir:{}", sandbox.path("copied").display()));
        let loaded = podman_load(&sandbox, &path);
        assert_eq!(loaded, image.id().hex(), "{form}");
        assert_same(form, &podman_tree(&sandbox, &loaded), &want, &timeless);
    }
}

fn skopeo_copy_plain(sandbox: &Sandbox, from: &str, to: &str) {
    run(&mut sandbox.skopeo(["copy", "--src-tls-verify=false", "--dest-tls-verify=false", from, to]));
}

#[test]
fn archives_of_skopeo_and_podman_are_loaded() {
    if !can_compare("archives_of_skopeo_and_podman_are_loaded") {
        return;
    }
    let registry = TestRegistry::open();
    let image = everything(Family::Docker, Compression::Gzip, Holes::Written);
    let timeless = directories_without_entry(&tars(&image));
    let reference = registry.place(&image.bundle(), "loaded", "v1");
    let direct = World::new();
    direct.ok(["pull", &reference]);
    let want = tree(&direct, &reference);

    let sandbox = Sandbox::new();
    let source = format!("docker://{reference}");
    let name = "example.org/loaded:v1";
    let path = |file: &str| sandbox.path(file).display().to_string();
    skopeo_copy_plain(&sandbox, &source, &format!("oci:{}:{name}", path("skopeo-layout")));
    skopeo_copy_plain(&sandbox, &source, &format!("oci-archive:{}:{name}", path("skopeo-oci.tar")));
    skopeo_copy_plain(&sandbox, &source, &format!("docker-archive:{}:{name}", path("skopeo-docker.tar")));
    let id = podman_pull(&sandbox, &reference);
    run(&mut sandbox.podman(["tag", &id, name]));
    for (form, file) in
        [("docker-archive", "podman-docker.tar"), ("oci-archive", "podman-oci.tar"), ("oci-dir", "podman-layout")]
    {
        run(&mut sandbox.podman(["save", "--quiet", "--format", form, "--output", &path(file), name]));
    }
    for file in
        ["skopeo-layout", "skopeo-oci.tar", "skopeo-docker.tar", "podman-docker.tar", "podman-oci.tar", "podman-layout"]
    {
        // The form is found out.
        let world = World::new();
        world.ok(["load", &path(file), "--tag", name]);
        assert_same(file, &tree(&world, name), &want, &timeless);
        world.ok(["fsck"]);
        // What was loaded can be saved again with no registry at hand.
        world.ok(["save", name, "--to", &format!("oci-archive:{}", world.path("again.tar").display())]);
    }
    // Names in an archive are taken over, and standard input is a source too.
    let world = World::new();
    let mut load = world.command(["load"]);
    load.stdin(std::fs::File::open(path("skopeo-docker.tar")).expect("the archive"));
    let answer = windlass_e2e::world::answer(load, None);
    assert_eq!(answer.code(), Some(0), "{answer}");
    assert_same("stdin", &tree(&world, name), &want, &timeless);
}

#[test]
fn a_saved_image_loads_as_itself() {
    let registry = TestRegistry::open();
    let image = small("round");
    let reference = registry.place(&image.bundle(), "round", "v1");
    let world = World::new();
    world.ok(["pull", &reference]);
    for (form, name) in [("oci", "layout"), ("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
        let target = format!("{form}:{}", world.path(name).display());
        world.ok(["save", &reference, "--to", &target]);
        let other = World::new();
        other.ok(["load", &target]);
        assert_eq!(id_of(&other, &reference), image.id().hex(), "{form}");
    }
}

#[test]
fn pushed_images_are_pulled_by_skopeo_podman_and_containerd() {
    let test = "pushed_images_are_pulled_by_skopeo_podman_and_containerd";
    if !can_compare(test) {
        return;
    }
    let (Some(peer), Some(containerd)) = (DockerRegistry::start(test), Containerd::start(test)) else { return };
    let source = TestRegistry::open();
    for (family, compression, name) in [
        (Family::Oci, Compression::Gzip, "oci-gzip"),
        (Family::Oci, Compression::Zstd, "oci-zstd"),
        (Family::Oci, Compression::None, "oci-plain"),
        (Family::Docker, Compression::Gzip, "docker-gzip"),
    ] {
        let image = plain(family, compression, name);
        let placed = source.place(&image.bundle(), "pushed", name);
        let pushed = peer.reference("pushed", name);
        let world = World::new();
        world.ok(["pull", &placed]);
        world.ok(["push", &placed, &pushed]);
        let want = tree(&world, &placed);
        let timeless = directories_without_entry(&tars(&image));

        let sandbox = Sandbox::new();
        let from = format!("docker://{pushed}");
        let raw = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", &from]));
        assert_eq!(raw.stdout, image.manifest.bytes, "{name}: the manifest is the same, byte by byte");
        skopeo_copy(&sandbox, &from, &format!("dir:{}", sandbox.path("copied").display()));
        let id = podman_pull(&sandbox, &pushed);
        assert_eq!(id, image.id().hex(), "{name}");
        assert_same(name, &podman_tree(&sandbox, &id), &want, &timeless);

        run(&mut containerd.ctr(["images", "pull", "--plain-http", &pushed]));
        let at = sandbox.path("mounted");
        std::fs::create_dir(&at).expect("a directory");
        let at_text = at.display().to_string();
        run(&mut containerd.ctr(["images", "mount", &pushed, &at_text]));
        let theirs = read(&at);
        run(&mut containerd.ctr(["images", "unmount", &at_text]));
        assert_same(name, &theirs, &want, &timeless);
    }
}

/// What containerd can unpack as well.
fn plain(family: Family, compression: Compression, name: &str) -> Image {
    use windlass_testkit::images::{Entry, Layer};
    Image::build()
        .family(family)
        .layer(
            Layer::new([
                Entry::dir("./"),
                Entry::dir("etc"),
                Entry::file("etc/name", name).mode(0o4755).owner(7, 8).mtime(1_600_000_000, 5),
                Entry::hard_link("etc/same", "etc/name").mode(0o4755).owner(7, 8).mtime(1_600_000_000, 5),
                Entry::symlink("etc/link", "name"),
                Entry::file("etc/gone", "x"),
                Entry::dir("opaque"),
                Entry::file("opaque/old", "x"),
                Entry::char_device("null", 1, 3),
            ])
            .compression(compression),
        )
        .layer(
            Layer::new([
                Entry::dir("etc"),
                Entry::whiteout("etc/gone"),
                Entry::dir("opaque"),
                Entry::opaque("opaque"),
                Entry::file("opaque/new", "x").xattr("user.a", "b"),
            ])
            .compression(compression),
        )
        .finish()
}

#[test]
fn a_copied_index_keeps_every_platform() {
    let test = "a_copied_index_keeps_every_platform";
    let (Some(_), Some(peer)) = (Tool::Skopeo.find(test), DockerRegistry::start(test)) else { return };
    let source = TestRegistry::open();
    let index = Index::of([small("c"), small_for("c", "arm64", Some("v8")), small_for("c", "s390x", None)]);
    let placed = source.place(&index.bundle(), "several", "v1");
    let copied = peer.reference("several", "v1");
    let world = World::new();
    world.ok(["copy", &placed, &copied]);
    let sandbox = Sandbox::new();
    let raw = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", &format!("docker://{copied}")]));
    assert_eq!(raw.stdout, index.index.bytes);
    let target = format!("dir:{}", sandbox.path("all").display());
    run(&mut sandbox.skopeo(["copy", "--all", "--src-tls-verify=false", &format!("docker://{copied}"), &target]));
}
