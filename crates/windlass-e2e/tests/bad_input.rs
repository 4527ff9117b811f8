//! What a person runs into: full disks, two processes, newer stores, wrong names, malformed secrets, and no secret
//! shown anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use windlass_e2e::tree::read;
use windlass_e2e::world::{COMMAND_LIMIT, World, end};
use windlass_registry::access::Action::{Pull, Push};
use windlass_registry::route::RouteKind;
use windlass_testkit::canary::Canary;
use windlass_testkit::images::{Entry, Image, Layer, incompressible, small};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{is_root, run, skipped};

/// A file system of its own in a file.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Makes and mounts one of this many MiB; `None`, said loudly, where that is not possible.
    fn new(test: &str, world: &World, mebibytes: u64) -> Option<Disk> {
        if !is_root() {
            skipped(test, "needs root");
            return None;
        }
        let image = world.path("disk");
        fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("a sparse file");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-I", "256"]).arg(&image));
        let at = world.make_dir("mounted");
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output().expect("mount starts");
        if !mounted.status.success() {
            skipped(test, &format!("no loop mount: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
            return None;
        }
        Some(Disk { at })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.at));
    }
}

fn image_of(bytes: usize, seed: u64) -> Image {
    let files = (0..4).map(|n| Entry::file(format!("file-{seed}-{n}"), incompressible(bytes / 4, seed * 10 + n)));
    Image::build().layer(Layer::new(files).level(1)).finish()
}

#[test]
fn a_full_disk_fails_the_pull_and_costs_nothing_else() {
    let test = "a_full_disk_fails_the_pull_and_costs_nothing_else";
    let world = World::new();
    let Some(disk) = Disk::new(test, &world, 64) else { return };
    let registry = TestRegistry::open();
    let before = registry.place(&image_of(4 << 20, 1).bundle(), "a", "before");
    let large = registry.place(&image_of(100 << 20, 2).bundle(), "a", "large");
    let after = registry.place(&image_of(4 << 20, 3).bundle(), "a", "after");
    let root = disk.at.join("store").display().to_string();
    let on =
        |words: &[&str]| -> Vec<String> { ["--root", &root].iter().chain(words).map(|w| (*w).to_owned()).collect() };
    world.ok(on(&["pull", &before]));
    let refused = world.refused(on(&["pull", &large]), "no-space");
    assert!(refused.stderr.contains("windlass gc"), "{refused}");
    // Filled by somebody else: not even the small one fits.
    let filler = disk.at.join("filler");
    let _full = fs::write(&filler, vec![1; 70 << 20]).expect_err("the disk is full");
    world.refused(on(&["pull", &after]), "no-space");
    fs::remove_file(&filler).expect("a file");
    world.ok(on(&["pull", &after]));
    world.ok(on(&["fsck"]));
    let listed = world.ok(on(&["images", "-o", "json"]));
    assert!(listed.stdout.contains(&before) && listed.stdout.contains(&after), "{listed}");
    assert!(!listed.stdout.contains(&large), "{listed}");
    for name in ["stage", "ingest"] {
        let left: Vec<_> = fs::read_dir(disk.at.join("store").join(name)).expect("a directory").collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

#[test]
fn two_processes_on_one_store_fetch_each_blob_once() {
    let registry = TestRegistry::open();
    let layers = (0..6).map(|n| Layer::new([Entry::file(format!("f{n}"), incompressible(400_000, n))]).level(1));
    let image = layers.fold(Image::build(), |image, layer| image.layer(layer)).finish();
    let reference = registry.place(&image.bundle(), "shared", "v1");
    let world = World::new();
    let started = Instant::now();
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = world.command(["pull", "--quiet", &reference]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
        })
        .collect();
    for mut child in children {
        let status = end(&mut child, started + COMMAND_LIMIT);
        let output = child.wait_with_output().expect("its output");
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for layer in &image.layers {
        let digest = layer.blob.digest.to_string();
        let fetched = registry
            .requests()
            .into_iter()
            .filter(|r| r.route == RouteKind::Blob && r.reference.as_deref() == Some(&digest));
        assert_eq!(fetched.count(), 1, "{digest}");
    }
    world.ok(["fsck"]);
}

#[test]
fn a_store_of_a_newer_format_is_refused_untouched() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("newer").bundle(), "newer", "v1");
    let world = World::new();
    world.ok(["pull", &reference]);
    fs::write(world.root().join("meta/format"), "99\n").expect("a file");
    let before = read(&world.root());
    registry.take_requests();
    for words in [
        &["pull", &reference][..],
        &["images"],
        &["gc"],
        &["fsck"],
        &["fsck", "--repair"],
        &["rmi", &reference],
        &["inspect", &reference],
    ] {
        let refused = world.refused(words, "store-format");
        assert!(refused.stderr.contains("99"), "{refused}");
    }
    assert_eq!(read(&world.root()), before);
    assert_eq!(registry.take_requests(), []);
}

#[test]
fn a_directory_with_other_things_in_it_is_no_store() {
    let world = World::new();
    fs::create_dir(world.root()).expect("a directory");
    fs::write(world.root().join("letter"), "dear").expect("a file");
    let before = read(&world.root());
    let answer = world.run(["pull", "127.0.0.1:1/a:v1", "-o", "json"]);
    assert_ne!(answer.code(), Some(0), "{answer}");
    assert!(answer.stderr.contains("store"), "{answer}");
    assert_eq!(read(&world.root()), before);
}

#[test]
fn wrong_references_are_named_before_anything_is_asked() {
    let world = World::new();
    let long = format!("example.org/{}", "a".repeat(300));
    for reference in [
        "example.org/UPPER",
        "https://example.org/a",
        "example.org/a@sha256:12",
        "example.org/a:",
        "example.org//a",
        "example.org/a:tag with blank",
        "example.org/a/../b",
        " ",
        "-leading/dash:1x!",
        long.as_str(),
    ] {
        let answer = world.run(["pull", "-o", "json", "--", reference]);
        assert_eq!(answer.class().as_deref(), Some("invalid-reference"), "{reference:?}: {answer}");
        assert_eq!(answer.code(), Some(2), "{reference:?}: {answer}");
        assert!(answer.stderr.contains("InvalidImageName"), "{answer}");
    }
}

fn pod(image: &str, secret: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: n}}\nspec:\n  imagePullSecrets: [{{name: s}}]\n  \
         containers:\n  - {{name: c, image: \"{image}\"}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s, namespace: n}}\n\
         {secret}\n"
    )
}

#[test]
fn malformed_pull_secrets_are_explained_and_never_shown() {
    let registry = TestRegistry::build().basic().user("alice", "wonder", "**", &[Pull]).start();
    let reference = registry.place(&small("secret").bundle(), "private", "v1");
    let canary = Canary::new("hidden-hare-7777");
    let host = registry.host();
    let typed = "type: kubernetes.io/dockerconfigjson\n";
    let config = |text: String| format!("{typed}data: {{.dockerconfigjson: {}}}", STANDARD.encode(text));
    let password = canary.secret();
    for (what, secret) in [
        ("not base64", format!("{typed}data: {{.dockerconfigjson: \"%%{password}%%\"}}")),
        ("not JSON", config(format!("password={password}"))),
        ("cut", config(format!("{{\"auths\":{{\"{host}\":{{\"password\":\"{password}\""))),
        ("no auths", config(format!("{{\"{host}\":{{\"username\":\"alice\",\"password\":\"{password}\"}}}}"))),
        ("auth not base64", config(format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"!{password}!\"}}}}}}"))),
        (
            "auth without colon",
            config(format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{}\"}}}}}}", STANDARD.encode(password))),
        ),
        ("wrong key", format!("{typed}data: {{config.json: {}}}", STANDARD.encode(password))),
        ("wrong type", format!("type: Opaque\ndata: {{.dockerconfigjson: {}}}", STANDARD.encode("{\"auths\":{}}"))),
        ("auths is a list", config(format!("{{\"auths\":[\"{password}\"]}}"))),
        (
            "wrong password",
            config(format!("{{\"auths\":{{\"{host}\":{{\"username\":\"alice\",\"password\":\"{password}\"}}}}}}")),
        ),
    ] {
        let world = World::new();
        world.write("pod.yaml", pod(&reference, &secret));
        for form in ["table", "json"] {
            let answer = world.run(["ensure", "-f", "pod.yaml", "-o", form, "--log-level", "trace"]);
            assert!(answer.defect().is_none(), "{what}: {answer}");
            assert_ne!(answer.code(), Some(0), "{what}: {answer}");
            assert!(answer.stdout.contains("ErrImagePull") || answer.stderr.contains("hint"), "{what}: {answer}");
            canary.assert_absent(what, &answer.stdout);
            canary.assert_absent(what, &answer.stderr);
        }
        assert!(
            canary.files_with(&world.path("home")).is_empty() && found_in_store(&canary, &world).is_empty(),
            "{what}"
        );
    }
}

fn found_in_store(canary: &Canary, world: &World) -> Vec<PathBuf> {
    if world.root().exists() { canary.files_with(&world.root()) } else { Vec::new() }
}

/// A command under watch: its line and environment as every user of the machine can see them, and what it says.
fn watched(world: &World, words: &[&Path]) -> (Vec<u8>, Vec<u8>) {
    let mut command = world.command(words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut seen = Vec::new();
    let deadline = Instant::now() + COMMAND_LIMIT;
    while child.try_wait().expect("a state").is_none() && Instant::now() < deadline {
        for name in ["cmdline", "environ", "comm"] {
            // It may end at any moment.
            seen.extend(fs::read(format!("/proc/{}/{name}", child.id())).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().expect("its output");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
    (seen, said)
}

#[test]
fn passwords_show_nowhere_at_the_most_talkative_log() {
    let canary = Canary::new("canary-b1rd-in-a-mine");
    let image = small("canary");
    for (what, builder) in [("basic", TestRegistry::build().basic()), ("bearer", TestRegistry::build().bearer())] {
        let registry = builder.user("alice", canary.secret(), "**", &[Pull, Push]).start();
        let reference = registry.place(&image.bundle(), "private", "v1");
        let target = registry.reference("private", "pushed");
        let world = World::new();
        let auth = STANDARD.encode(format!("alice:{}", canary.secret()));
        let config = serde_json::json!({ "auths": { registry.host(): { "auth": auth } } }).to_string();
        world.write("auth.json", &config);
        let secret =
            format!("type: kubernetes.io/dockerconfigjson\ndata: {{.dockerconfigjson: {}}}", STANDARD.encode(&config));
        world.write("pod.yaml", pod(&reference, &secret));
        for form in ["text", "json"] {
            let logged = ["--log-level", "trace", "--log-format", form];
            for words in [
                vec!["ensure", "-f", "pod.yaml"],
                vec!["pull", &reference, "--authfile", "auth.json"],
                vec!["push", &reference, &target, "--authfile", "auth.json"],
                vec!["copy", &reference, &target, "--authfile", "auth.json"],
                vec!["config", "print", "--authfile", "auth.json"],
            ] {
                let line: Vec<&Path> = words.iter().chain(&logged).map(Path::new).collect();
                let (seen, said) = watched(&world, &line);
                canary.assert_absent(&format!("{what}: process list of {words:?}"), seen);
                canary.assert_absent(&format!("{what}: what {words:?} says"), said);
            }
        }
        assert_eq!(found_in_store(&canary, &world), Vec::<PathBuf>::new(), "{what}");
        assert_eq!(canary.files_with(&world.path("home")), Vec::<PathBuf>::new(), "{what}");
    }
}
