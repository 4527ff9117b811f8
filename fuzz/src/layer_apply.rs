//! Layers applied one after the other into a real directory, against a model that only knows a map of paths.
//!
//! The input is a small program that writes archives (so that every input is a well-formed one and the odd names, links
//! and whiteouts are what varies), or, behind the byte 255, one archive as it is. The model follows OCI image-spec
//! `layer.md` and what Go runtimes do: parents are looked up through links inside the root, entries replace what has
//! their name, whiteouts reach the layers below only. It shares the tar reader with the code it tests, which has a target
//! of its own, and nothing else.

pub(crate) mod archives;
mod model;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::Path;

use windlass_core::digest::Digest;
use windlass_store::LayerError;
use windlass_store::layer::{self, Compression, LayerLimits, LayerSpec};

use archives::Dialect;
use model::{Model, What};

/// Applies each archive to a directory and to the model, and compares the two after each.
pub fn run(bytes: &[u8]) {
    let place = tempfile::Builder::new().prefix("windlass-fuzz-").tempdir_in(memory()).expect("a directory");
    let outside = place.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("file"), "untouched").expect("a file");
    let before = look(&outside);
    let target = private(&place.path().join("target"));
    let scratch = private(&place.path().join("scratch"));
    let mut limits = LayerLimits::default();
    limits.unpacked_bytes = 1 << 20;
    let mut model = Model::default();
    for tar in archives::of(bytes, &outside, Dialect::Plain) {
        let digest = Digest::sha256(&tar);
        let spec = LayerSpec::new(&digest, tar.len() as u64, Compression::None, &digest, &limits);
        let result = layer::apply_plain(&mut &tar[..], &spec, target.as_fd(), scratch.as_fd(), &());
        assert_eq!(look(&outside), before, "something outside was touched");
        assert_eq!(fs::read_dir(place.path().join("scratch")).expect("scratch").count(), 0, "scratch is empty again");
        // Without root's rights modes may shut us out of our own tree, and owners are not set.
        let is_root = rustix::process::geteuid().is_root();
        if !is_root || matches!(result, Err(LayerError::Limit { .. })) || !model.knows(&tar, &limits) {
            return;
        }
        let next = model.applied(&tar, &limits);
        match (&result, next) {
            (Ok(_), Ok(next)) => model = next,
            (Err(_), Err(_)) => {
                compare(&model, &place.path().join("target"), "after a refused layer");
                return;
            }
            (Ok(_), Err(why)) => panic!("applied, though {why}"),
            (Err(error), Ok(_)) => panic!("refused by us alone: {error}"),
        }
        compare(&model, &place.path().join("target"), "after a layer");
    }
}

/// Memory where there is such a file system: a run makes a dozen files.
pub(crate) fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}

pub(crate) fn private(path: &Path) -> File {
    fs::DirBuilder::new().mode(0o700).create(path).expect("a directory");
    File::open(path).expect("a directory")
}

/// What and mode, and owner where it counts.
type Seen = (What, u32, (u32, u32));

fn compare(model: &Model, root: &Path, when: &str) {
    let mut got = look(root);
    let mut want: BTreeMap<Vec<u8>, Seen> =
        model.nodes().map(|(path, node)| (path.clone(), (node.what.clone(), node.mode, node.owner))).collect();
    // The root's own mode before any layer says something is the caller's.
    if !model.has_root() {
        got.remove(&b""[..]);
        want.remove(&b""[..]);
    }
    for (what, mode, _) in got.values_mut().chain(want.values_mut()) {
        if matches!(what, What::Symlink(_)) {
            *mode = 0;
        }
    }
    if got != want {
        let only = |a: &BTreeMap<Vec<u8>, Seen>, b: &BTreeMap<Vec<u8>, Seen>| {
            let lines = a.iter().filter(|(path, seen)| b.get(*path) != Some(*seen));
            lines.map(|(path, seen)| format!("\n  {} {seen:?}", path.escape_ascii())).collect::<String>()
        };
        panic!("{when}\non disk:{}\nin the model:{}", only(&got, &want), only(&want, &got));
    }
}

fn look(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let full = if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&path)) };
        let meta = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            let Ok(entries) = fs::read_dir(&full) else { continue };
            for entry in entries {
                let name = entry.expect("an entry").file_name().into_vec();
                todo.push(if path.is_empty() { name } else { [&path[..], b"/", &name].concat() });
            }
            What::Directory
        } else if kind.is_symlink() {
            What::Symlink(fs::read_link(&full).expect("a link").into_os_string().into_vec())
        } else if kind.is_file() {
            What::File(fs::read(&full).unwrap_or_default())
        } else if kind.is_fifo() {
            What::Fifo
        } else {
            What::Other
        };
        found.insert(path, (what, meta.mode() & 0o7777, (meta.uid(), meta.gid())));
    }
    found
}
