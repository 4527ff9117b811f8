//! Real clients against our registry, and our images in real clients.

use windlass_registry::access::Action::{Pull, Push};
use windlass_registry::route::RouteKind;
use windlass_testkit::images::{Compression, Entry, Family, Image, Index, Layer, small, small_for};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{Containerd, DockerRegistry, Sandbox, Tool, run, run_failing};

#[test]
fn skopeo_copies_in_and_out_without_a_difference() {
    let Some(_) = Tool::Skopeo.find("skopeo_copies_in_and_out_without_a_difference") else { return };
    let registry = TestRegistry::open();
    let sandbox = Sandbox::new();
    for (family, compression, name) in [
        (Family::Oci, Compression::Gzip, "oci-gzip"),
        (Family::Oci, Compression::Zstd, "oci-zstd"),
        (Family::Oci, Compression::None, "oci-plain"),
        (Family::Docker, Compression::Gzip, "docker-gzip"),
    ] {
        let layer = Layer::new([Entry::file("a", name), Entry::symlink("b", "a")]).compression(compression);
        let image = Image::build().family(family).layer(layer).finish();
        let placed = registry.place(&image.bundle(), "src/placed", name);
        let copied = registry.reference("dst/copied", name);
        run(&mut sandbox.skopeo([
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &format!("docker://{placed}"),
            &format!("docker://{copied}"),
        ]));
        let out = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", &format!("docker://{copied}")]));
        assert_eq!(out.stdout, image.manifest.bytes, "{name}");
    }
    assert!(registry.count("PATCH", RouteKind::Upload) > 0, "blobs were uploaded in chunks");
}

#[test]
fn skopeo_mounts_what_it_may_read() {
    let Some(_) = Tool::Skopeo.find("skopeo_mounts_what_it_may_read") else { return };
    let registry = TestRegistry::open();
    let sandbox = Sandbox::new();
    let from = registry.place(&small("mount").bundle(), "src", "1");
    // The first copy teaches skopeo where the blobs are; the second one mounts them.
    for target in ["dst1", "dst2"] {
        registry.take_requests();
        run(&mut sandbox.skopeo([
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &format!("docker://{from}"),
            &format!("docker://{}", registry.reference(target, "1")),
        ]));
    }
    let mounts = registry.requests().into_iter().filter(|r| r.route == RouteKind::Uploads && r.status == 201).count();
    assert_eq!(mounts, 2, "both layers were mounted; skopeo always uploads the config");
}

#[test]
fn skopeo_copies_an_index_with_all_its_platforms() {
    let Some(_) = Tool::Skopeo.find("skopeo_copies_an_index_with_all_its_platforms") else { return };
    let registry = TestRegistry::open();
    let sandbox = Sandbox::new();
    let index = Index::of([small("m"), small_for("m", "arm64", Some("v8")), small_for("m", "s390x", None)]);
    let layout = sandbox.path("layout");
    index.bundle().write_layout(&layout, "v1");
    let target = registry.reference("multi", "v1");
    run(&mut sandbox.skopeo([
        "copy",
        "--all",
        "--dest-tls-verify=false",
        &format!("oci:{}:v1", layout.display()),
        &format!("docker://{target}"),
    ]));
    let out = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", &format!("docker://{target}")]));
    assert_eq!(out.stdout, index.index.bytes);
}

#[test]
fn our_archives_are_read_by_skopeo() {
    let Some(_) = Tool::Skopeo.find("our_archives_are_read_by_skopeo") else { return };
    let sandbox = Sandbox::new();
    let image = small("archive");
    let (docker, oci) = (sandbox.path("docker.tar"), sandbox.path("oci.tar"));
    image.write_docker_archive(&docker, "example.org/a/b:c");
    image.bundle().write_layout_tar(&oci, "v1");
    for source in [format!("docker-archive:{}", docker.display()), format!("oci-archive:{}:v1", oci.display())] {
        let out = run(&mut sandbox.skopeo(["inspect", "--config", &source]));
        let config: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(config["rootfs"]["diff_ids"][1], image.layers[1].diff_id.as_str(), "{source}");
    }
}

#[test]
fn skopeo_logs_in_by_basic_and_by_token() {
    let Some(_) = Tool::Skopeo.find("skopeo_logs_in_by_basic_and_by_token") else { return };
    let image = small("login");
    for (mode, builder) in [("basic", TestRegistry::build().basic()), ("bearer", TestRegistry::build().bearer())] {
        let registry = builder
            .user("alice", "wonder", "alice/**", &[Pull, Push])
            .user("bob", "builder", "bob/**", &[Pull, Push])
            .rule("anonymous", "public/**", &[Pull])
            .start();
        let sandbox = Sandbox::new();
        let layout = sandbox.path("layout");
        image.bundle().write_layout(&layout, "v1");
        let source = format!("oci:{}:v1", layout.display());
        let target = |name: &str| format!("docker://{}", registry.reference(name, "v1"));
        let alice = sandbox.login(&registry.host(), "alice", "wonder");
        let bob = sandbox.login(&registry.host(), "bob", "builder");
        let wrong = sandbox.login(&registry.host(), "alice2", "wonder");
        let copy = |auth: &std::path::Path, name: &str| {
            let mut command = sandbox.skopeo(["copy", "--dest-tls-verify=false", "--authfile"]);
            command.arg(auth).args([&source, &target(name)]);
            command
        };
        let inspect = |auth: &std::path::Path, name: &str| {
            let mut command = sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", "--authfile"]);
            command.arg(auth).arg(target(name));
            command
        };
        run(&mut copy(&alice, "alice/app"));
        run(&mut inspect(&alice, "alice/app"));
        for refused in [inspect(&bob, "alice/app"), inspect(&wrong, "alice/app"), copy(&bob, "alice/app")] {
            let mut refused = refused;
            let said = run_failing(&mut refused);
            assert!(!said.contains("wonder") && !said.contains("builder"), "{mode}: {said}");
        }
        registry.place(&image.bundle(), "public/app", "v1");
        let nobody = sandbox.path("nobody.json");
        std::fs::write(&nobody, "{}").expect("a file");
        run(&mut inspect(&nobody, "public/app"));
        run_failing(&mut inspect(&nobody, "alice/app"));
    }
}

#[test]
fn podman_pulls_over_https_and_finds_the_files() {
    let Some(_) = Tool::Podman.find("podman_pulls_over_https_and_finds_the_files") else { return };
    if !windlass_testkit::tools::is_root() {
        windlass_testkit::tools::skipped("podman_pulls_over_https_and_finds_the_files", "needs root");
        return;
    }
    let registry = TestRegistry::build().https().start();
    let image = small("podman");
    let placed = registry.place(&image.bundle(), "app", "v1");
    let sandbox = Sandbox::new();
    let certs = sandbox.path("certs");
    std::fs::create_dir(&certs).expect("a directory");
    std::fs::write(certs.join("ca.crt"), &registry.tls().expect("TLS").ca_pem).expect("a file");
    let mut pull = sandbox.podman(["pull", "--quiet", "--cert-dir"]);
    pull.arg(&certs).arg(format!("localhost:{}/app:v1", registry.addr().port()));
    let out = run(&mut pull);
    let id = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    assert_eq!(id, image.id().hex(), "{placed}");
    let mounted = run(&mut sandbox.podman(["image", "mount", &id]));
    let root = std::path::PathBuf::from(String::from_utf8_lossy(&mounted.stdout).trim());
    assert_eq!(std::fs::read(root.join("etc/marker")).expect("the file"), b"podman amd64\n");
    assert!(!root.join("etc/hostname").exists(), "the whiteout took it away");
    run(&mut sandbox.podman(["image", "unmount", "--all"]));
}

#[test]
fn docker_registry_takes_our_images() {
    let Some(_) = Tool::Skopeo.find("docker_registry_takes_our_images") else { return };
    let Some(peer) = DockerRegistry::start("docker_registry_takes_our_images") else { return };
    let sandbox = Sandbox::new();
    let image = small("peer");
    let registry = TestRegistry::open();
    let placed = registry.place(&image.bundle(), "app", "v1");
    let target = peer.reference("app", "v1");
    run(&mut sandbox.skopeo([
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &format!("docker://{placed}"),
        &format!("docker://{target}"),
    ]));
    let out = run(&mut sandbox.skopeo(["inspect", "--raw", "--tls-verify=false", &format!("docker://{target}")]));
    assert_eq!(out.stdout, image.manifest.bytes);
}

#[test]
fn ctr_pulls_public_and_private_images() {
    let Some(containerd) = Containerd::start("ctr_pulls_public_and_private_images") else { return };
    let image = small("ctr");
    for builder in [TestRegistry::build().basic(), TestRegistry::build().bearer()] {
        let registry =
            builder.user("alice", "wonder", "private/**", &[Pull]).rule("anonymous", "public/**", &[Pull]).start();
        let public = registry.place(&image.bundle(), "public/app", "v1");
        let private = registry.place(&image.bundle(), "private/app", "v1");
        let pull = |more: &[&str], reference: &str| {
            let mut command = containerd.ctr(["images", "pull", "--plain-http", "--snapshotter", "native"]);
            command.args(more).arg(reference);
            command
        };
        run(&mut pull(&[], &public));
        run(&mut pull(&["--user", "alice:wonder"], &private));
        run_failing(&mut pull(&["--user", "alice:wrong"], &private));
        run_failing(&mut pull(&[], &private));
    }
    let listed = run(&mut containerd.ctr(["images", "ls"])).stdout;
    let digest = image.manifest.digest.as_str();
    assert_eq!(String::from_utf8_lossy(&listed).matches(digest).count(), 4);
}
