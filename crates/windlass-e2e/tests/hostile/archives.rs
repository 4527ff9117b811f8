//! Layouts and archives that lie, lead outside, or are broken around content that is good.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use windlass_testkit::hostile::SENTINEL;
use windlass_testkit::hostile::raw::{Header, Tar, gzip};
use windlass_testkit::images::{Content, Entry, Image, Layer, small};
use windlass_testkit::tools::run;

use super::case::Outcome;

/// Files of a layout or archive, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// What is written, and how.
#[derive(Clone, Debug)]
pub(crate) enum Archive {
    /// A layout directory of these files, and what is done to it afterwards.
    Directory(Files, fn(&Path)),
    /// An archive of these bytes; the word of the command line for its form.
    File(&'static str, Vec<u8>),
}

impl Archive {
    /// Writes it into a folder; says how the command line calls it.
    pub(crate) fn write(&self, folder: &Path) -> String {
        match self {
            Archive::Directory(files, change) => {
                for (name, bytes) in files {
                    let path = folder.join(name);
                    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                    fs::write(path, bytes).expect("a file");
                }
                change(folder);
                format!("oci:{}", folder.display())
            }
            Archive::File(form, bytes) => {
                let path = folder.join("archive");
                fs::write(&path, bytes).expect("a file");
                format!("{form}:{}", path.display())
            }
        }
    }
}

const OCI: &str = "oci-archive";
const DOCKER: &str = "docker-archive";

fn refused(classes: &[&'static str]) -> Outcome {
    Outcome::Refused(classes.to_vec())
}

fn bad() -> Outcome {
    refused(&["bad-manifest"])
}

fn missing() -> Outcome {
    refused(&["blob-missing"])
}

fn broken() -> Outcome {
    refused(&["bad-archive"])
}

/// A link that leads out of a layout is no member of it.
fn outside() -> Outcome {
    refused(&["unsafe-path"])
}

pub(crate) fn cases() -> Vec<(&'static str, Archive, Outcome)> {
    let mut cases = layouts();
    cases.extend(layouts_with_links());
    cases.extend(oci_archives());
    cases.extend(docker_archives());
    cases
}

fn image() -> Image {
    small("archive")
}

fn blob_name(content: &Content) -> String {
    format!("blobs/{}/{}", content.digest.algorithm(), content.digest.hex())
}

/// The good layout.
fn layout() -> Files {
    let image = image();
    let mut root = image.manifest.descriptor();
    root["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let mut files = Files::from([
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), json!({ "schemaVersion": 2, "manifests": [root] }).to_string().into_bytes()),
    ]);
    files.extend(image.bundle().contents().map(|content| (blob_name(content), content.bytes.to_vec())));
    files
}

/// The good layout with one file of other content.
fn with(name: &str, bytes: impl AsRef<[u8]>) -> Files {
    let mut files = layout();
    files.insert(name.to_owned(), bytes.as_ref().to_vec());
    files
}

fn without(name: &str) -> Files {
    let mut files = layout();
    files.remove(name).expect("it was there");
    files
}

/// The good layout with a changed entry of its index.
fn lying(change: impl FnOnce(&mut Value)) -> Files {
    let mut index: Value = serde_json::from_slice(&layout()["index.json"]).expect("our own index");
    change(&mut index);
    with("index.json", index.to_string())
}

/// The good layout in which the last byte of a file is another one.
fn flipped(name: &str) -> Files {
    let mut files = layout();
    let bytes = files.get_mut(name).expect("it is there");
    let last = bytes.last_mut().expect("it has bytes");
    // JSON stays JSON.
    *last = if *last == b'}' { b' ' } else { *last ^ 1 };
    files
}

fn layouts() -> Vec<(&'static str, Archive, Outcome)> {
    let image = image();
    let (manifest, config) = (blob_name(&image.manifest), blob_name(&image.config));
    let layer = blob_name(&image.layers[0].blob);
    let layer_bytes = &layout()[&layer];
    let longer = [layer_bytes.as_slice(), &[0]].concat();
    let directory = |files: Files| Archive::Directory(files, |_| {});
    let mismatch = || refused(&["digest-mismatch"]);
    let size = || refused(&["size-mismatch"]);
    let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    vec![
        ("ar-layout-good", directory(layout()), Outcome::Accepted),
        ("ar-layout-no-version-file", directory(without("oci-layout")), bad()),
        ("ar-layout-version-2", directory(with("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#)), bad()),
        ("ar-layout-version-number", directory(with("oci-layout", r#"{"imageLayoutVersion":1}"#)), bad()),
        ("ar-layout-version-absent", directory(with("oci-layout", "{}")), bad()),
        ("ar-layout-version-text", directory(with("oci-layout", "1.0.0")), bad()),
        ("ar-layout-version-huge", directory(with("oci-layout", " ".repeat(1 << 20))), refused(&["limit-exceeded"])),
        ("ar-index-absent", directory(without("index.json")), bad()),
        ("ar-index-cut", directory(with("index.json", &layout()["index.json"][..40])), bad()),
        ("ar-index-is-manifest", directory(with("index.json", &image.manifest.bytes)), bad()),
        ("ar-index-huge", directory(with("index.json", " ".repeat(5 << 20))), refused(&["limit-exceeded"])),
        (
            "ar-index-twice",
            directory(with("index.json", r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#)),
            bad(),
        ),
        (
            "ar-index-empty",
            directory(lying(|index| index["manifests"] = json!([]))),
            refused(&["image-unknown", "not-found", "bad-manifest", "not-an-image"]),
        ),
        ("ar-index-size-more", directory(lying(|i| i["manifests"][0]["size"] = json!(9_999))), size()),
        ("ar-index-size-less", directory(lying(|i| i["manifests"][0]["size"] = json!(5))), size()),
        ("ar-index-size-negative", directory(lying(|i| i["manifests"][0]["size"] = json!(-1))), bad()),
        (
            "ar-index-size-huge",
            directory(lying(|i| i["manifests"][0]["size"] = json!(1_u64 << 50))),
            refused(&["limit-exceeded", "size-mismatch"]),
        ),
        ("ar-index-digest-other", directory(lying(|i| i["manifests"][0]["digest"] = json!(other))), missing()),
        (
            "ar-index-digest-traversal",
            directory(lying(|i| i["manifests"][0]["digest"] = json!("sha256:../../../../../../etc/passwd"))),
            bad(),
        ),
        (
            "ar-index-digest-of-config",
            directory(lying(|i| i["manifests"][0]["digest"] = json!(small("archive").config.digest.as_str()))),
            refused(&["size-mismatch", "not-an-image", "bad-manifest"]),
        ),
        (
            "ar-index-name-traversal",
            directory(lying(|i| {
                i["manifests"][0]["annotations"] =
                    json!({ "org.opencontainers.image.ref.name": "../../../tmp/windlass-escape" });
            })),
            Outcome::Accepted,
        ),
        (
            "ar-index-name-number",
            directory(lying(|i| i["manifests"][0]["annotations"] = json!({ "org.opencontainers.image.ref.name": 1 }))),
            bad(),
        ),
        (
            "ar-index-two-images",
            directory(lying(|i| {
                let mut second = i["manifests"][0].clone();
                second["digest"] = json!("sha256:0000000000000000000000000000000000000000000000000000000000000000");
                i["manifests"].as_array_mut().expect("a list").push(second);
            })),
            Outcome::Safe,
        ),
        ("ar-manifest-absent", directory(without(&manifest)), missing()),
        ("ar-manifest-changed", directory(flipped(&manifest)), mismatch()),
        ("ar-config-absent", directory(without(&config)), missing()),
        ("ar-config-changed", directory(flipped(&config)), mismatch()),
        ("ar-config-longer", directory(with(&config, [&image.config.bytes[..], b" "].concat())), size()),
        ("ar-layer-absent", directory(without(&layer)), missing()),
        ("ar-layer-changed", directory(flipped(&layer)), mismatch()),
        ("ar-layer-cut", directory(with(&layer, &layer_bytes[..layer_bytes.len() / 2])), size()),
        ("ar-layer-empty", directory(with(&layer, "")), size()),
        ("ar-layer-longer", directory(with(&layer, longer)), size()),
    ]
}

/// Replaces the blob of the image's lowest layer.
fn replace_layer(folder: &Path, make: impl FnOnce(&Path)) {
    let path = folder.join(blob_name(&image().layers[0].blob));
    fs::remove_file(&path).expect("it is there");
    make(&path);
}

/// Moves a member away and puts a link to it in its place.
fn move_out(folder: &Path, name: &str) {
    let away = folder.parent().expect("a folder").join("out-of-it");
    fs::rename(folder.join(name), &away).expect("a rename");
    symlink(away, folder.join(name)).expect("a link");
}

fn layouts_with_links() -> Vec<(&'static str, Archive, Outcome)> {
    let directory = |change| Archive::Directory(layout(), change);
    vec![
        (
            "ar-layer-is-directory",
            directory(|f| replace_layer(f, |path| fs::create_dir(path).expect("a folder"))),
            bad(),
        ),
        (
            "ar-layer-is-pipe",
            directory(|f| replace_layer(f, |path| drop(run(Command::new("mkfifo").arg(path))))),
            bad(),
        ),
        (
            "ar-layer-is-link-to-outside",
            directory(|f| replace_layer(f, |path| symlink(format!("{SENTINEL}/file"), path).expect("a link"))),
            outside(),
        ),
        (
            "ar-layer-is-link-to-itself",
            directory(|f| replace_layer(f, |path| symlink(path, path).expect("a link"))),
            outside(),
        ),
        (
            "ar-layer-is-link-inside",
            directory(|f| {
                replace_layer(f, |path| {
                    fs::write(f.join("elsewhere"), &layout()[&blob_name(&image().layers[0].blob)]).expect("a file");
                    symlink("../../elsewhere", path).expect("a link");
                });
            }),
            Outcome::Accepted,
        ),
        (
            "ar-layer-is-endless",
            directory(|f| replace_layer(f, |path| symlink("/dev/zero", path).expect("a link"))),
            outside(),
        ),
        ("ar-blobs-are-outside", directory(|f| move_out(f, "blobs")), outside()),
        ("ar-index-is-outside", directory(|f| move_out(f, "index.json")), outside()),
        ("ar-version-is-outside", directory(|f| move_out(f, "oci-layout")), outside()),
    ]
}

/// A tar of these files, and more entries behind or before them.
fn tar_of(files: &Files) -> Tar {
    files.iter().fold(Tar::new(), |tar, (name, bytes)| tar.with(header(name), bytes))
}

/// Names of more than 100 bytes are split in the way of ustar.
fn header(name: &str) -> Header {
    assert!(name.len() <= 100, "{name}");
    Header::new(b'0', name)
}

fn oci_archives() -> Vec<(&'static str, Archive, Outcome)> {
    let good = tar_of(&layout());
    let whole = good.clone().end();
    let layer = blob_name(&image().layers[0].blob);
    let lacking = || tar_of(&without(&layer));
    let oci = |bytes: Vec<u8>| Archive::File(OCI, bytes);
    let many = (0..70_000).fold(good.clone(), |tar, n| tar.head(Header::new(b'0', format!("more/{n}"))));
    let prefixed: Files = layout().into_iter().map(|(name, bytes)| (format!("x/{name}"), bytes)).collect();
    let dotted: Files = layout().into_iter().map(|(name, bytes)| (format!("./{name}"), bytes)).collect();
    let absolute: Files = layout().into_iter().map(|(name, bytes)| (format!("/{name}"), bytes)).collect();
    let outer: Files = layout().into_iter().map(|(name, bytes)| (format!("../{name}"), bytes)).collect();
    let random = windlass_testkit::images::incompressible(10_000, 4);
    vec![
        ("ar-tar-good", oci(whole.clone()), Outcome::Accepted),
        ("ar-tar-gzip", oci(gzip(&whole)), Outcome::Accepted),
        ("ar-tar-dotted", oci(tar_of(&dotted).end()), Outcome::Accepted),
        ("ar-tar-absolute", oci(tar_of(&absolute).end()), Outcome::Safe),
        ("ar-tar-outer", oci(tar_of(&outer).end()), refused(&["bad-manifest", "unsafe-path", "bad-archive"])),
        ("ar-tar-below-a-folder", oci(tar_of(&prefixed).end()), bad()),
        ("ar-tar-cut-in-half", oci(whole[..whole.len() / 2].to_vec()), broken()),
        ("ar-tar-cut-in-header", oci(whole[..700].to_vec()), refused(&["bad-archive", "bad-manifest"])),
        ("ar-tar-gzip-cut", oci(gzip(&whole)[..200].to_vec()), refused(&["bad-archive", "bad-compression"])),
        ("ar-tar-random", oci(random), broken()),
        ("ar-tar-empty", oci(Vec::new()), refused(&["bad-manifest", "bad-archive"])),
        ("ar-tar-escape-beside", oci(good.clone().file("../../../../tmp/windlass-escape", "x").end()), Outcome::Safe),
        ("ar-tar-escape-absolute", oci(good.clone().file("/windlass-escape", "x").end()), Outcome::Safe),
        ("ar-tar-index-twice", oci(good.clone().file("index.json", "{}").end()), Outcome::Safe),
        ("ar-tar-layer-link", oci(lacking().symlink(&layer, format!("{SENTINEL}/file")).end()), missing()),
        ("ar-tar-layer-link-up", oci(lacking().symlink(&layer, "../../../../../../etc/passwd").end()), missing()),
        (
            "ar-tar-layer-link-loop",
            oci(lacking().symlink(&layer, layer.rsplit('/').next().expect("a name")).end()),
            missing(),
        ),
        ("ar-tar-layer-hard-link", oci(lacking().link(&layer, "/etc/passwd").end()), missing()),
        ("ar-tar-layer-device", oci(lacking().head(Header::new(b'3', &layer).device(1, 5)).end()), missing()),
        ("ar-tar-layer-directory", oci(lacking().dir(&layer).end()), missing()),
        (
            "ar-tar-member-huge",
            oci(good.clone().head(Header::new(b'0', "more").octal(124, 12, 0o77_777_777_777)).cut()),
            broken(),
        ),
        (
            "ar-tar-member-huge-256",
            oci(good.clone().head(Header::new(b'0', "more").base256(124, 12, i64::MAX)).cut()),
            broken(),
        ),
        (
            "ar-tar-member-negative",
            oci(good.clone().head(Header::new(b'0', "more").base256(124, 12, -1)).cut()),
            broken(),
        ),
        ("ar-tar-member-sum", oci(good.clone().head(Header::new(b'0', "more").wrong_sum()).end()), broken()),
        ("ar-tar-members-70000", oci(many.end()), refused(&["limit-exceeded"])),
    ]
}

/// A docker archive: its `manifest.json` after a change, its config, its layers.
fn docker(change: impl FnOnce(&mut Value)) -> Tar {
    docker_of(&image(), change)
}

fn docker_of(image: &Image, change: impl FnOnce(&mut Value)) -> Tar {
    let config = format!("{}.json", image.config.digest.hex());
    let names: Vec<String> = (0..image.layers.len()).map(|at| format!("layer-{at}/layer.tar")).collect();
    let mut manifest = json!([{ "Config": config, "RepoTags": ["example.org/a:v1"], "Layers": names }]);
    change(&mut manifest);
    let tar = Tar::new().with(header("manifest.json"), manifest.to_string()).with(header(&config), &image.config.bytes);
    image.layers.iter().zip(&names).fold(tar, |tar, (layer, name)| tar.with(header(name), &layer.tar))
}

/// A docker archive with this `manifest.json`.
fn with_manifest(manifest: &str) -> Tar {
    let config = image().config;
    Tar::new().with(header("manifest.json"), manifest).with(header("config.json"), &config.bytes)
}

fn docker_archives() -> Vec<(&'static str, Archive, Outcome)> {
    let docker_file = |tar: Tar| Archive::File(DOCKER, tar.end());
    let whole = docker(|_| {}).end();
    let evil = Image::build().layer(Layer::new([Entry::file("../../../../tmp/windlass-escape", "x")])).finish();
    let large_config = with_manifest(r#"[{"Config":"config.json","Layers":[]}]"#).with(header("more"), "x");
    let huge = Tar::new()
        .with(header("manifest.json"), r#"[{"Config":"config.json","Layers":[]}]"#)
        .with(header("config.json"), " ".repeat(9 << 20));
    let deep = format!("[{{\"Config\":{}1{}}}]", "[".repeat(50_000), "]".repeat(50_000));
    let other_layer = |m: &mut Value| m[0]["Layers"] = json!(["layer-1/layer.tar", "layer-0/layer.tar"]);
    vec![
        ("ar-docker-good", docker_file(docker(|_| {})), Outcome::Accepted),
        ("ar-docker-not-one", Archive::File(DOCKER, tar_of(&layout()).end()), bad()),
        ("ar-docker-as-oci", Archive::File(OCI, whole.clone()), bad()),
        ("ar-docker-manifest-text", docker_file(with_manifest("hello")), bad()),
        ("ar-docker-manifest-object", docker_file(with_manifest("{}")), bad()),
        ("ar-docker-manifest-no-config", docker_file(with_manifest("[{}]")), bad()),
        (
            "ar-docker-manifest-none",
            docker_file(with_manifest("[]")),
            refused(&["image-unknown", "not-found", "bad-manifest", "not-an-image"]),
        ),
        ("ar-docker-manifest-huge", docker_file(with_manifest(&" ".repeat(5 << 20))), refused(&["limit-exceeded"])),
        ("ar-docker-manifest-deep", docker_file(with_manifest(&deep)), refused(&["bad-manifest", "limit-exceeded"])),
        ("ar-docker-config-huge", docker_file(huge), refused(&["limit-exceeded"])),
        ("ar-docker-config-absent", docker_file(docker(|m| m[0]["Config"] = json!("other.json"))), missing()),
        (
            "ar-docker-config-up",
            docker_file(docker(|m| m[0]["Config"] = json!("../../../../../../etc/passwd"))),
            missing(),
        ),
        ("ar-docker-config-absolute", docker_file(docker(|m| m[0]["Config"] = json!("/etc/passwd"))), missing()),
        ("ar-docker-config-nul", docker_file(docker(|m| m[0]["Config"] = json!("a\u{0}b"))), missing()),
        ("ar-docker-layers-count", docker_file(large_config), bad()),
        ("ar-docker-layer-up", docker_file(docker(|m| m[0]["Layers"][0] = json!("../../../../etc/passwd"))), missing()),
        ("ar-docker-layer-absolute", docker_file(docker(|m| m[0]["Layers"][0] = json!("/etc/passwd"))), missing()),
        ("ar-docker-layer-number", docker_file(docker(|m| m[0]["Layers"][0] = json!(1))), bad()),
        (
            "ar-docker-layers-swapped",
            docker_file(docker(other_layer)),
            refused(&["diffid-mismatch", "digest-mismatch", "size-mismatch"]),
        ),
        (
            "ar-docker-layer-link",
            docker_file(
                docker(|m| m[0]["Layers"][0] = json!("l/layer.tar")).symlink("l/layer.tar", "../layer-0/layer.tar"),
            ),
            Outcome::Accepted,
        ),
        (
            "ar-docker-layer-link-loop",
            docker_file(docker(|m| m[0]["Layers"][0] = json!("a/l")).symlink("a/l", "../b/l").symlink("b/l", "../a/l")),
            missing(),
        ),
        (
            "ar-docker-layer-link-up",
            docker_file(docker(|m| m[0]["Layers"][0] = json!("a/l")).symlink("a/l", format!("{SENTINEL}/file"))),
            missing(),
        ),
        (
            "ar-docker-tags-evil",
            docker_file(docker(|m| m[0]["RepoTags"] = json!(["../../../tmp/windlass-escape:v1"]))),
            Outcome::Accepted,
        ),
        ("ar-docker-tags-null", docker_file(docker(|m| m[0]["RepoTags"] = Value::Null)), Outcome::Accepted),
        ("ar-docker-tags-number", docker_file(docker(|m| m[0]["RepoTags"] = json!([1]))), bad()),
        ("ar-docker-cut", Archive::File(DOCKER, whole[..whole.len() - 2_000].to_vec()), broken()),
        ("ar-docker-layer-evil", docker_file(docker_of(&evil, |_| {})), refused(&["unsafe-path"])),
    ]
}
