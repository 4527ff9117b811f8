//! `fsck.erofs` accepts the images, where it is installed.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Contents, directory_on_disk, skipped, store};
use crate::{model, samples};

fn program(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(more).map(|dir| dir.join("fsck.erofs")).find(|file| file.is_file());
    if found.is_none() {
        skipped(test, "fsck.erofs is not installed");
    }
    found
}

/// It goes down recursively, and its stack ends before ours does.
const LEVELS: usize = 500;

#[test]
fn fsck_accepts_the_images() {
    let Some(program) = program("fsck_accepts_the_images") else { return };
    let dir = directory_on_disk();
    let check = |what: &str, tree: &windlass_erofs::Tree, contents: &Contents| {
        let path = store(dir.path(), "image", tree, contents);
        let output = Command::new(&program).arg("--extract").arg(&path).output().expect("fsck.erofs runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("<E>"), "{what}: {}\n{said}", output.status);
    };
    for (what, tree, contents) in samples::all(LEVELS) {
        check(what, &tree, &contents);
    }
    for (number, model) in model::some(50).enumerate() {
        check(&number.to_string(), &model.tree, &model.contents);
    }
}
