//! Commands on images, against the real registry on a loopback port, each in a world of its own.

mod run;

use run::{Windlass, World};
use windlass_registry::access::Action;
use windlass_testkit::canary::Canary;
use windlass_testkit::images::{Entry, Image, Index, Layer};
use windlass_testkit::registry::TestRegistry;

fn small(text: &str) -> Image {
    let base = Layer::new([Entry::dir("etc"), Entry::file("etc/os-release", "ID=test\n")]);
    Image::build().layer(base).layer(Layer::new([Entry::file("greeting", text)])).finish()
}

fn registry_with(text: &str) -> (TestRegistry, String, Image) {
    let registry = TestRegistry::open();
    let image = small(text);
    let reference = registry.place(&image.bundle(), "team/app", "1");
    (registry, reference, image)
}

#[test]
fn pull_prints_the_id_alone_and_the_image_is_listed() {
    let (_registry, reference, image) = registry_with("hello");
    let world = World::new();
    let output = world.run(["pull", &reference]).succeeds();
    assert_eq!(output.stdout, format!("{}\n", image.id()));
    let again = world.run(["pull", &reference, "-o", "json"]).succeeds().stdout_json();
    assert_eq!((again["kind"].as_str(), again["items"][0]["outcome"].as_str()), (Some("PullList"), Some("up-to-date")));
    assert_eq!(again["items"][0]["fetchedBytes"], 0);
    let images = world.run(["images", "-o", "json"]).succeeds().stdout_json();
    assert_eq!(images["items"][0]["id"], image.id().as_str());
    assert_eq!(images["items"][0]["repoTags"][0], reference);
    let looked = world.run(["inspect", &reference, "-o", "json"]).succeeds().stdout_json();
    assert_eq!(looked["items"][0]["config"]["architecture"], "amd64");
    assert_eq!(looked["items"][0]["layerList"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.run(["fsck", "-o", "json"]).succeeds().stdout_json()["verdict"], "clean");
}

#[test]
fn names_pins_and_collection_do_what_they_say() {
    let (_registry, reference, image) = registry_with("names");
    let world = World::new();
    world.run(["pull", &reference]).succeeds();
    world.run(["tag", &reference, "mine:1"]).succeeds();
    world.run(["pin", "mine:1", "--reason", "test"]).succeeds();
    let refused = world.run(["rmi", image.id().as_str()]).fails(1);
    assert!(refused.stderr.contains("pinned"), "{}", refused.stderr);
    world.run(["rmi", &reference]).succeeds();
    let kept = world.run(["gc", "--all", "--dry-run", "-o", "json"]).succeeds().stdout_json();
    assert_eq!(kept["victims"].as_array().map(Vec::len), Some(0), "a pinned image stays: {kept}");
    world.run(["unpin", "mine:1"]).succeeds();
    let dry = world.run(["gc", "--all", "--dry-run", "-o", "json"]).succeeds().stdout_json();
    let kinds: Vec<&str> = dry["victims"].as_array().unwrap().iter().filter_map(|v| v["kind"].as_str()).collect();
    assert!(kinds.contains(&"image") && kinds.contains(&"layer") && kinds.contains(&"blob"), "{dry}");
    assert_eq!(world.run(["images", "-q"]).succeeds().stdout.lines().count(), 1, "a dry run deletes nothing");
    world.run(["gc", "--all"]).succeeds();
    assert_eq!(world.run(["images", "-q"]).succeeds().stdout, "");
}

#[test]
fn one_platform_of_an_index_is_chosen_by_flag() {
    let registry = TestRegistry::open();
    let image = |architecture: &str| {
        let layer = Layer::new([Entry::file("arch", architecture)]);
        Image::build().platform("linux", architecture, None).layer(layer).finish()
    };
    let index = Index::of([image("amd64"), image("riscv64")]);
    let reference = registry.place(&index.bundle(), "team/multi", "1");
    let world = World::new();
    let output = world.run(["pull", &reference, "--platform", "linux/riscv64"]).succeeds();
    assert_eq!(output.stdout.trim(), index.images[1].id().as_str());
    let refused = world.run(["pull", &reference, "--platform", "linux/s390x", "-o", "json"]).fails(1).stderr_json();
    assert_eq!(refused["error"]["class"], "no-matching-platform");
    assert!(refused["error"]["message"].as_str().unwrap().contains("linux/riscv64"), "{refused}");
}

#[test]
fn several_images_are_all_tried_and_each_failure_is_told() {
    let (registry, reference, image) = registry_with("several");
    let missing = registry.reference("team/none", "1");
    let world = World::new();
    let output = world.run(["pull", &missing, &reference, "Not Valid"]).fails(1);
    assert_eq!(output.stdout, format!("{}\n", image.id()));
    for said in [format!("cannot pull {missing}"), "cannot pull Not Valid".to_owned(), "InvalidImageName".to_owned()] {
        assert!(output.stderr.contains(&said), "{said}: {}", output.stderr);
    }
}

#[test]
fn an_unreachable_registry_is_undecided() {
    // Bound and closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reference = format!("127.0.0.1:{port}/team/app:1");
    let world = World::new();
    let output = world.run(["pull", &reference, "-o", "json", "--progress-timeout", "1s"]).fails(3).stderr_json();
    assert_eq!(output["error"]["class"], "registry-unavailable");
    assert_eq!(output["error"]["reason"], "RegistryUnavailable");
}

#[test]
fn ensure_reports_each_container_and_fails_for_the_refused() {
    let registry = TestRegistry::build().bearer().user("ci", "canary-right", "team/**", &[Action::Pull]).start();
    let image = small("ensure");
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let host = registry.host();
    let pod = |name: &str, secret: &str, policy: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  imagePullSecrets: [{{name: {secret}}}]\n  \
             containers: [{{name: c, image: '{reference}', imagePullPolicy: {policy}}}]\n"
        )
    };
    let secret = |name: &str, password: &str| {
        let json = format!("{{\"auths\":{{\"{host}\":{{\"username\":\"ci\",\"password\":\"{password}\"}}}}}}");
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/dockerconfigjson\n\
             stringData: {{.dockerconfigjson: '{json}'}}\n"
        )
    };
    let manifests = [
        secret("right", "canary-right"),
        secret("wrong", "canary-wrong"),
        pod("good", "right", "IfNotPresent"),
        pod("bad", "wrong", "Always"),
        pod("never", "wrong", "Never"),
    ];
    let world = World::new();
    world.file("pods.yaml", &manifests.concat());
    let output = world.run(["ensure", "-f", "pods.yaml", "-o", "json"]).fails(1);
    let report = output.stdout_json();
    let result = |pod: &str| {
        let containers = report["containers"].as_array().unwrap();
        containers.iter().find(|container| container["pod"] == pod).unwrap().clone()
    };
    assert_eq!((result("good")["ready"].as_bool(), result("good")["action"].as_str()), (Some(true), Some("pull")));
    assert_eq!(result("good")["credential"], "secret default/right");
    assert_eq!(result("bad")["error"]["reason"], "ErrImagePull");
    assert_eq!(result("bad")["error"]["class"], "unauthorized");
    assert_eq!(result("never")["error"]["reason"], "ErrImageNeverPull");
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains("canary"), "{text}");
    }
    let table = world.run(["ensure", "-f", "pods.yaml"]).fails(1);
    assert!(table.stdout.starts_with("POD"), "{}", table.stdout);
    assert!(table.stderr.contains("tried:"), "{}", table.stderr);
}

#[test]
fn saved_images_load_into_another_store() {
    let (_registry, reference, image) = registry_with("saved");
    let world = World::new();
    world.run(["pull", &reference]).succeeds();
    for (form, source) in
        [("oci:layout", "oci:layout"), ("oci-archive:a.tar", "a.tar"), ("docker-archive:d.tar", "d.tar")]
    {
        world.run(["save", &reference, "--to", form]).succeeds();
        let other = World::new();
        let path = source.strip_prefix("oci:").unwrap_or(source);
        let given = if source.starts_with("oci:") {
            format!("oci:{}", world.path(path).display())
        } else {
            world.path(path).display().to_string()
        };
        let loaded = other.run(["load", &given, "-o", "json"]).succeeds().stdout_json();
        assert_eq!(loaded["items"][0]["id"], image.id().as_str(), "{form}: {loaded}");
        assert_eq!(other.run(["fsck", "-o", "json"]).succeeds().stdout_json()["verdict"], "clean", "{form}");
    }
    Windlass::new().args(["save", "x", "--to", "nowhere"]).fails(2);
}

#[test]
fn progress_goes_to_standard_error_in_the_form_asked_for() {
    let (_registry, reference, _image) = registry_with("progress");
    let output = World::new().run(["pull", &reference, "--progress", "json"]).succeeds();
    let events: Vec<serde_json::Value> =
        output.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"resolved"), Some(&"finished")), "{names:?}");
    let quiet = World::new().run(["pull", &reference, "-q"]).succeeds();
    assert_eq!(quiet.stderr, "");
    let plain = World::new().run(["pull", &reference]).succeeds();
    assert!(plain.stderr.contains("layer 1/2") && !plain.stderr.contains('\u{1b}'), "{}", plain.stderr);
}

#[test]
fn pushed_and_copied_images_keep_their_digest() {
    let (registry, reference, image) = registry_with("pushed");
    let world = World::new();
    world.run(["pull", &reference]).succeeds();
    let other = TestRegistry::open();
    let target = other.reference("mirror/app", "2");
    let pushed = world.run(["push", &reference, &target]).succeeds();
    assert_eq!(pushed.stdout.trim(), image.manifest.digest.as_str());
    let copied = registry.reference("team/copy", "3");
    let report = world.run(["copy", &target, &copied, "-o", "json"]).succeeds().stdout_json();
    assert_eq!(report["digest"], image.manifest.digest.as_str());
    let fresh = World::new();
    assert_eq!(fresh.run(["pull", &copied]).succeeds().stdout.trim(), image.id().as_str());
}

#[test]
fn unpack_needs_no_store_and_refuses_a_full_directory() {
    let (_registry, reference, image) = registry_with("unpacked");
    let world = World::new();
    let output = world.run(["unpack", &reference, "rootfs"]).succeeds();
    assert_eq!(output.stdout.trim(), image.id().as_str());
    assert_eq!(std::fs::read_to_string(world.path("rootfs/greeting")).unwrap(), "unpacked");
    assert!(!world.path("store").exists(), "no store was made");
    let refused = world.run(["unpack", &reference, "rootfs", "-o", "json"]).fails(1).stderr_json();
    assert!(refused["error"]["message"].as_str().unwrap().contains("rootfs"), "{refused}");
}

#[test]
fn a_mounted_image_shows_its_files_and_stays_until_it_is_unmounted() {
    let (_registry, reference, image) = registry_with("mounted");
    let world = World::new();
    world.run(["pull", &reference]).succeeds();
    std::fs::create_dir(world.path("mnt")).unwrap();
    let mounted = world.run(["mount", &reference, "mnt"]).ends_somehow();
    if mounted.stderr.contains("not-permitted") {
        // An ordinary user, or a container without the right to mount: the error says what works instead.
        assert!(mounted.stderr.contains("windlass unpack"), "{}", mounted.stderr);
        return;
    }
    assert_eq!(mounted.stdout.trim(), image.id().as_str(), "{}", mounted.stderr);
    assert_eq!(std::fs::read_to_string(world.path("mnt/greeting")).unwrap(), "mounted");
    let refused = world.run(["rmi", &reference, "-o", "json"]).fails(1).stderr_json();
    assert_eq!(refused["error"]["class"], "in-use");
    world.run(["umount", "mnt"]).succeeds();
    world.run(["rmi", &reference]).succeeds();
}

#[test]
fn a_password_shows_nowhere_even_at_trace_level() {
    let canary = Canary::new("canary-4711-hunter2");
    let image = small("secret");
    let registry = TestRegistry::build().bearer().user("ci", canary.secret(), "team/**", &[Action::Pull]).start();
    let reference = registry.place(&image.bundle(), "team/app", "1");
    let world = World::new();
    let logins = |password: &str| {
        format!("{{\"auths\":{{\"{}\":{{\"username\":\"ci\",\"password\":\"{password}\"}}}}}}", registry.host())
    };
    world.file("auth.json", &logins(canary.secret()));
    world.file("wrong.json", &logins(&format!("{}-wrong", canary.secret())));
    let pull = |file: &str| {
        world.run(["pull", &reference, "--authfile", file, "--log-level", "trace", "--progress", "json"]).ends_somehow()
    };
    // The refused login first, so that nothing is here that would make asking needless.
    for (file, works) in [("wrong.json", false), ("auth.json", true)] {
        let output = pull(file);
        assert_eq!(output.stdout.contains(image.id().as_str()), works, "{file}: {}", output.stderr);
        canary.assert_absent(file, &output.stdout);
        canary.assert_absent(file, &output.stderr);
    }
    assert_eq!(canary.files_with(&world.path("store")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn stored_layers_are_converted_and_each_is_told() {
    let (_registry, reference, image) = registry_with("converted");
    let world = World::new();
    world.run(["pull", &reference]).env("WINDLASS_STORE_SNAPSHOT_FORMAT", "overlay").succeeds();
    let convert = |format: &str| {
        world.run(["fsck", "--convert", "-o", "json"]).env("WINDLASS_STORE_SNAPSHOT_FORMAT", format).succeeds()
    };
    let idle = convert("overlay").stdout_json();
    assert_eq!((idle["kind"].as_str(), idle["form"].as_str()), (Some("ConvertReport"), Some("directory")));
    assert_eq!((idle["already"].as_u64(), idle["converted"].as_u64()), (Some(2), Some(0)));
    let output = convert("auto");
    let done = output.stdout_json();
    if done["form"] == "directory" {
        // This kernel, file system or user keeps layers as directories.
        return;
    }
    assert_eq!((done["converted"].as_u64(), done["failed"].as_u64()), (Some(2), Some(0)), "{done}");
    for (at, layer) in image.layers.iter().enumerate() {
        let told = &done["layers"][at];
        assert_eq!((told["diffId"].as_str(), told["tar"].as_str()), (Some(layer.diff_id.as_str()), Some("read-back")));
        assert!(output.stderr.contains(layer.diff_id.as_str()), "{}", output.stderr);
    }
    assert_eq!(world.run(["fsck", "-o", "json"]).succeeds().stdout_json()["verdict"], "clean");
    world.run(["pull", &reference]).succeeds();
    world.run(["fsck", "--convert", "--repair"]).fails(2);
    let back = world.run(["fsck", "--convert"]).env("WINDLASS_STORE_SNAPSHOT_FORMAT", "overlay").succeeds();
    assert!(back.stdout.ends_with("to directory: 2 converted, 0 already, 0 skipped, 0 failed\n"), "{}", back.stdout);
}

/// Removes a blob from a registry's storage, wherever it has it.
fn forget(dir: &std::path::Path, hex: &str) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match (path.file_name().is_some_and(|name| name.to_string_lossy().contains(hex)), path.is_dir()) {
            (true, true) => std::fs::remove_dir_all(path).unwrap(),
            (true, false) => std::fs::remove_file(path).unwrap(),
            (false, true) => forget(&path, hex),
            (false, false) => {}
        }
    }
}

#[test]
fn what_no_registry_serves_any_more_is_compressed_anew_when_asked() {
    let (registry, reference, image) = registry_with("anew");
    let world = World::new();
    world.run(["pull", &reference]).succeeds();
    image.layers.iter().for_each(|layer| forget(registry.root(), layer.blob.digest.hex()));
    let save = |flags: &[&str]| {
        let run = world.run(["save", &reference, "--to", "oci:layout", "-o", "json"]);
        flags.iter().fold(run, |run, flag| run.args([flag]))
    };
    let refused = save(&[]).fails(1).stderr_json();
    assert_eq!(refused["error"]["class"], "blob-missing");
    if !refused["error"]["hint"].as_str().unwrap().contains("--recompress") {
        // This kernel, file system or user keeps layers as directories: their own tars are not here.
        return;
    }
    let saved = save(&["--recompress"]).succeeds();
    let told = &saved.stdout_json()["recompressed"][0];
    assert_eq!((told["image"].as_str(), told["layers"].as_u64()), (Some(image.id().as_str()), Some(2)));
    assert_eq!(told["storedManifest"], image.manifest.digest.as_str());
    assert!(saved.stderr.contains("compressed anew"), "{}", saved.stderr);
    let other = TestRegistry::open();
    let target = other.reference("team/app", "2");
    world.run(["push", &reference, &target]).fails(1);
    let pushed = world.run(["push", &reference, &target, "--recompress"]).succeeds();
    assert_eq!(pushed.stdout.trim(), told["writtenManifest"].as_str().unwrap(), "the same blobs each time");
    assert_eq!(World::new().run(["pull", &target]).succeeds().stdout.trim(), image.id().as_str());
}

#[test]
fn the_files_of_an_image_are_listed_in_every_form() {
    let registry = TestRegistry::open();
    let low = Layer::new([
        Entry::dir("etc"),
        Entry::file("etc/os-release", "ID=test\n"),
        Entry::file("etc/gone", "x"),
        Entry::symlink("release", "etc/os-release"),
    ]);
    let top = Layer::new([Entry::whiteout("etc/gone"), Entry::file("etc/new", "12345")]);
    let reference = registry.place(&Image::build().layer(low).layer(top).finish().bundle(), "team/app", "1");
    for format in ["overlay", "auto"] {
        let world = World::new();
        world.run(["pull", &reference]).env("WINDLASS_STORE_SNAPSHOT_FORMAT", format).succeeds();
        let names = world.run(["inspect", "--files", &reference, "-o", "name"]).succeeds().stdout;
        assert_eq!(names, "/\n/etc\n/etc/new\n/etc/os-release\n/release\n", "{format}");
        let list = world.run(["inspect", &reference, "--files", "-o", "json"]).succeeds().stdout_json();
        assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("FileList"), Some(5)));
        let (new, link) = (&list["items"][2], &list["items"][4]);
        assert_eq!((new["path"].as_str(), new["type"].as_str()), (Some("/etc/new"), Some("file")));
        assert_eq!((new["sizeBytes"].as_u64(), new["mode"].as_str()), (Some(5), Some("0644")), "{new}");
        assert_eq!((link["type"].as_str(), link["target"].as_str()), (Some("symlink"), Some("etc/os-release")));
        let yaml = world.run(["inspect", &reference, "--files", "-o", "yaml"]).succeeds().stdout;
        let yaml: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(yaml, list, "{format}");
        let table = world.run(["inspect", &reference, "--files"]).succeeds().stdout;
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("MODE") && lines.len() == 6, "{table}");
        assert!(lines[3].starts_with("-rw-r--r--   0:0") && lines[3].ends_with("   /etc/new"), "{table}");
        assert!(lines[5].ends_with("   /release -> etc/os-release"), "{table}");
        let column = lines[0].find("PATH").unwrap();
        assert!(lines[1..].iter().all(|line| line[column..].starts_with('/')), "{table}");
        world.run(["inspect", "--files", &reference, &reference]).fails(2);
        world.run(["inspect", "--files", "nobody/knows"]).fails(1);
    }
}
