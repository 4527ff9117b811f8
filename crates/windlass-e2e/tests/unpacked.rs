//! `unpack` of what the store has: the tree is the registry's, whatever the layers are kept as, and nothing is asked.

use std::collections::BTreeSet;
use std::path::Path;

use windlass_e2e::gallery::{Holes, everything, sparse, tars, twice};
use windlass_e2e::tree::{Tree, differences, directories_without_entry, read};
use windlass_e2e::world::{Snapshots, User, World};
use windlass_testkit::images::{Compression, Family, Image};
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::{is_root, skipped};

/// How layers come into the store and what becomes of them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// As pulled.
    Pulled,
    /// As pulled, and their blobs beside them.
    WithBlobs,
    /// Pulled as directories and made into image files: their own tars are gone.
    Converted,
}

fn images() -> [(&'static str, Image); 4] {
    [
        ("gzip", everything(Family::Oci, Compression::Gzip, Holes::Left)),
        ("zstd", everything(Family::Docker, Compression::Zstd, Holes::Written)),
        ("twice", twice()),
        ("sparse", sparse()),
    ]
}

#[track_caller]
fn assert_same(what: &str, one: &Tree, other: &Tree, timeless: &BTreeSet<Vec<u8>>) {
    let lines: Vec<String> = differences(one, other, timeless).iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

/// Unpacks an image; says where it came from and what it is.
#[track_caller]
fn unpacked(world: &World, image: &str, to: &str) -> (String, Tree) {
    let report = world.ok(["unpack", image, to, "-o", "json"]).json();
    (report["from"].as_str().expect("a word").to_owned(), read(&world.path(to)))
}

/// Pulls into a world, unpacks once from the registry and once, when that is gone, from the store.
fn compare(user: User, forms: &[(Snapshots, Kept)]) {
    for (name, image) in images() {
        let timeless = directories_without_entry(&tars(&image));
        for (snapshots, kept) in forms.iter().copied() {
            let what = format!("{name} {snapshots:?} {kept:?}");
            let registry = TestRegistry::open();
            let reference = registry.place(&image.bundle(), "unpacked", name);
            let pulled_as = if kept == Kept::Converted { Snapshots::Directories } else { snapshots };
            let mut world = World::of(user).keeping(pulled_as);
            let (from, want) = unpacked(&world, &reference, "fetched");
            assert_eq!(from, "registry", "{what}");
            let mut pull = world.command(["pull", &reference]);
            if kept == Kept::WithBlobs {
                pull.env("WINDLASS_STORE_KEEP_LAYERS", "true");
            }
            let answer = windlass_e2e::world::answer(pull, None);
            assert_eq!(answer.code(), Some(0), "{answer}");
            if kept == Kept::Converted {
                world = world.keeping(snapshots);
                world.ok(["fsck", "--convert"]);
            }
            drop(registry);
            let (from, found) = unpacked(&world, &reference, "stored");
            assert_eq!(from, "store", "{what}");
            assert_same(&what, &found, &want, &timeless);
            world.ok(["fsck"]);
        }
    }
}

#[test]
fn a_stored_layer_is_applied_as_the_registrys_is() {
    let test = "a_stored_layer_is_applied_as_the_registrys_is";
    let mut forms = Vec::new();
    for snapshots in Snapshots::possible(&std::env::temp_dir(), test) {
        forms.extend([(snapshots, Kept::Pulled), (snapshots, Kept::WithBlobs)]);
        if snapshots == Snapshots::ImageFiles {
            forms.push((snapshots, Kept::Converted));
        }
    }
    compare(User::Caller, &forms);
}

#[test]
fn an_ordinary_users_layers_are_applied_as_the_registrys_are() {
    let test = "an_ordinary_users_layers_are_applied_as_the_registrys_are";
    if !is_root() {
        // The other test is that one then.
        skipped(test, "needs root, to become an ordinary user");
        return;
    }
    compare(User::Nobody, &[(Snapshots::Directories, Kept::Pulled), (Snapshots::Directories, Kept::WithBlobs)]);
}

#[test]
fn a_damaged_layer_ends_unpack_with_what_to_do() {
    let registry = TestRegistry::open();
    let image = everything(Family::Oci, Compression::Gzip, Holes::Written);
    let reference = registry.place(&image.bundle(), "damaged", "v1");
    let world = World::new().keeping(Snapshots::Directories);
    world.ok(["pull", &reference]);
    // The lowest layer is the only one with this file.
    let snapshots = std::fs::read_dir(world.root().join("snapshots")).expect("layers");
    let tools: Vec<_> = snapshots
        .map(|entry| entry.expect("a layer").path().join("fs/usr/bin/tool"))
        .filter(|file| file.exists())
        .collect();
    std::fs::write(tools.first().expect("the file"), "other bytes").expect("written");
    let out = world.make_dir("out");
    let target = out.join("root").display().to_string();
    let answer = world.refused(["unpack", &reference, &target], "inspect-failed");
    assert!(answer.stderr.contains("windlass fsck --repair") && answer.stderr.contains("windlass pull"), "{answer}");
    let left = |dir: &Path| std::fs::read_dir(dir).expect("a directory").count();
    assert_eq!(left(&out), 0, "neither the tree nor a part of it");
    let repaired = world.run(["fsck", "--repair"]);
    assert_eq!(repaired.code(), Some(0), "{repaired}");
    world.ok(["pull", &reference]);
    world.ok(["unpack", &reference, &target]);
}
