//! Modes of everything in the store. Alone in its binary, since the umask belongs to the whole process.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use support::{open, small};
use windlass_core::access::Grant;

const NAME: &str = "registry.example/team/app:1";

#[test]
fn everything_is_private_even_under_umask_zero() {
    rustix::process::umask(Mode::empty());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    let mark = store.records().begin(NAME).unwrap();
    let image = small(NAME);
    let (committed, _) = image.pull(&store).unwrap();
    mark.succeeded(committed.id.as_str(), "registry.example/team/app", Grant::NodePods, jiff::Timestamp::now())
        .unwrap();
    let _half = store.records().begin("registry.example/half:1").unwrap();
    let lease = store.begin(windlass_store::LeaseOptions::pull("half")).unwrap();
    small("registry.example/half:1").put_documents(&lease).unwrap();
    assert!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777 == 0o700);
    private_below(&root);
}

/// Directories 0700, files 0600 or 0400. What is inside an unpacked tree has the modes of the image: its parent
/// keeps everybody out.
fn private_below(path: &Path) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let mode = found.permissions().mode() & 0o7777;
        if found.is_dir() {
            if entry.file_name() == "fs" {
                continue;
            }
            assert_eq!(mode, 0o700, "{}", entry.path().display());
            private_below(&entry.path());
        } else {
            assert!(matches!(mode, 0o600 | 0o400), "{mode:o} {}", entry.path().display());
        }
    }
}
