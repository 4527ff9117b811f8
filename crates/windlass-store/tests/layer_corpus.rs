//! Every hostile layer of the test kit, through every way a layer can go, as root and as an ordinary user.

mod layer_support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use layer_support::{Blob, FORMS, Kind, Root, Seen, overlay, plain, read_tree, read_tree_of, side_by_side};
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;
use windlass_store::layer::{self, Compression, Form, LayerError, LayerLimits, SUMS, sums};
use windlass_testkit::hostile::{Case, Expect, GZIP, Layer, Node, SENTINEL, What, ZSTD};

/// No case is large; one that takes longer is stuck.
const CASE_TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn hostile_layers_are_refused_or_applied_safely() {
    let cases = windlass_testkit::hostile::layers();
    let place = tempfile::tempdir().expect("a directory");
    let sentinel = Sentinel::set();
    let mut mounted = [0; FORMS.len()];
    let mut failed = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let start = Instant::now();
        let place = place.path().join(case.id);
        fs::create_dir(&place).expect("a directory");
        match std::panic::catch_unwind(|| run(case, &place, at % 2 == 0)) {
            Ok(seen) => mounted.iter_mut().zip(seen).for_each(|(count, seen)| *count += usize::from(seen)),
            Err(_) => failed.push(case.id),
        }
        sentinel.check(case.id);
        assert!(start.elapsed() < CASE_TIME_MAX, "{} took {:?}", case.id, start.elapsed());
        let gone = layer::remove_tree(
            File::open(place.parent().expect("parent")).expect("parent").as_fd(),
            case.id.as_bytes(),
        );
        assert_eq!(gone, Ok(()), "{} is removed", case.id);
    }
    assert_eq!(failed, [""; 0], "each of these has said above what is wrong");
    let who = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    let [directories, image_files, mixed] = mounted;
    let text = format!(
        "layer corpus: {} cases as {who}, seen through overlayfs: {directories} as directories, {image_files} as image files, {mixed} as both\n",
        cases.len()
    );
    std::io::stderr().write_all(text.as_bytes()).expect("stderr");
}

/// The same with the rights of nobody: this program again, in a process of its own.
#[test]
fn hostile_layers_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        // Then the test above was it.
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let work = place.path().join("work");
    fs::create_dir(&work).expect("a directory");
    std::os::unix::fs::chown(&work, Some(65534), Some(65534)).expect("chown");
    let program = place.path().join("corpus");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    let output = Command::new(&program)
        .args(["--exact", "hostile_layers_are_refused_or_applied_safely", "--nocapture"])
        .env("TMPDIR", &work)
        .current_dir(&work)
        .uid(65534)
        .gid(65534)
        .output()
        .expect("the copy starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
    let line = text.lines().find(|line| line.starts_with("layer corpus:")).expect("the count");
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("stderr");
}

/// A directory that lies where many cases try to go.
struct Sentinel(BTreeMap<Vec<u8>, Seen>);

impl Sentinel {
    fn set() -> Sentinel {
        let path = Path::new(SENTINEL);
        fs::create_dir_all(path).expect("the sentinel");
        let file = path.join("file");
        if !file.exists() {
            fs::write(&file, "sentinel").expect("the sentinel");
        }
        Sentinel(read_tree(path))
    }

    fn check(&self, case: &str) {
        assert_eq!(read_tree(Path::new(SENTINEL)), self.0, "{case} leaves the outside alone");
        assert!(!Path::new("/tmp/windlass-escape").exists(), "{case} leaves the outside alone");
        assert!(!Path::new("/windlass-escape").exists(), "{case} leaves the outside alone");
    }
}

fn blob(layer: &Layer) -> Blob {
    let compression = match layer.media_type {
        GZIP => Compression::Gzip,
        ZSTD => Compression::Zstd,
        _ => Compression::None,
    };
    Blob { bytes: layer.blob.clone(), compression, diff_id: layer.diff_id.clone() }
}

/// Runs a case; says in which forms overlayfs was asked too.
fn run(case: &Case, place: &Path, split: bool) -> [bool; FORMS.len()] {
    let id = case.id;
    let limits = LayerLimits::default();
    let blobs: Vec<Blob> = case.layers.iter().map(blob).collect();
    let in_turn = plain(place, &blobs, &limits);
    if let Expect::Refuse(class) = &case.expect {
        refused(id, "in turn", class, in_turn);
        let before = plain(&place.join("scratch"), &blobs[..blobs.len() - 1], &limits).expect(id);
        let (now, before) = (read_tree(&place.join("plain")), read_tree(&before));
        assert!(now.keys().eq(before.keys()), "{id}: nothing of a refused layer is visible");
    } else if let Expect::Apply(tree) = &case.expect {
        let target = in_turn.unwrap_or_else(|error| panic!("{id}, in turn: {error} ({})", error.reason()));
        compare(id, "in turn", &read_tree(&target), tree, None);
    }
    let mut seen = [false; FORMS.len()];
    // What a case says about one layer alone is said by the first two.
    let forms = if blobs.len() > 1 { 3 } else { 2 };
    for ((way, format), seen) in FORMS.into_iter().zip(&mut seen).take(forms) {
        let place = place.join(way);
        fs::create_dir(&place).expect("a directory");
        let stored = side_by_side(&place, &blobs, &limits, split, format);
        *seen = match &case.expect {
            Expect::Refuse(class) => {
                refused(id, way, class, stored);
                false
            }
            Expect::Apply(tree) => {
                let layers = stored.unwrap_or_else(|error| panic!("{id}, {way}: {error} ({})", error.reason()));
                applied(id, way, &place, &layers, &blobs, tree)
            }
        };
    }
    seen
}

fn applied(id: &str, way: &str, place: &Path, layers: &[PathBuf], blobs: &[Blob], tree: &[Node]) -> bool {
    for (layer, blob) in layers.iter().zip(blobs) {
        sound(id, layer, &blob.diff_id);
    }
    let seen = overlay(place, layers);
    if let Some(view) = &seen {
        let roots: Vec<Root> = layers.iter().filter_map(|layer| Root::of(layer)).collect();
        compare(id, &format!("{way}, through overlayfs"), &read_tree_of(view), tree, Some(&roots));
    }
    if let [layer] = layers {
        if layer.join(SUMS).exists() {
            recorded(id, layer, tree);
        }
        written_back(id, place, layer, tree);
    }
    seen.is_some()
}

fn refused<T>(id: &str, way: &str, class: &str, result: Result<T, LayerError>) {
    let Err(error) = result else { panic!("{id}, {way}: applied, but should be refused as {class}") };
    assert_eq!(error.reason().class(), class, "{id}, {way}: {error}");
    let shown = error.to_string();
    assert!(shown.chars().all(|c| c.is_ascii() && !c.is_ascii_control()), "{id}: {shown:?} is safe to print");
    assert_ne!(error.reason(), Reason::IoError, "{id}: {error}");
}

/// What is stored is what was recorded.
fn sound(id: &str, layer: &Path, diff_id: &Digest) {
    let snapshot = File::open(layer).expect("snapshot");
    let mut damage = Vec::new();
    let mut note = |found| damage.push(found);
    layer::verify(snapshot.as_fd(), layer::Depth::Full, Form::of_this_process(), diff_id, &mut note)
        .unwrap_or_else(|error| panic!("{id}: {error}"));
    assert_eq!(damage, [], "{id}: the record fits the tree");
}

/// The record holds the truth about owners and modes, also where the tree cannot.
fn recorded(id: &str, layer: &Path, tree: &[Node]) {
    let records: Vec<sums::Record> = sums::Reader::new(File::open(layer.join(SUMS)).expect("record"))
        .expect("record")
        .collect::<Result<_, _>>()
        .expect("record");
    for node in tree {
        let is_mark = |record: &sums::Record| {
            matches!(record.content, sums::Content::Opaque | sums::Content::Assumed | sums::Content::Stacked)
        };
        let record = records.iter().find(|record| record.path == node.path && !is_mark(record));
        let Some(record) = record else { panic!("{id}: {:?} is recorded", String::from_utf8_lossy(&node.path)) };
        if matches!(record.content, sums::Content::HardLink(_)) {
            continue;
        }
        let name = String::from_utf8_lossy(&node.path).into_owned();
        assert_eq!(node.mode.unwrap_or(record.meta.mode), record.meta.mode, "{id}: mode of {name}");
        assert_eq!(
            node.owner.unwrap_or((record.meta.uid, record.meta.gid)),
            (record.meta.uid, record.meta.gid),
            "{id}: owner of {name}"
        );
        let mtime = (record.meta.mtime.seconds, record.meta.mtime.nanos);
        assert_eq!(node.mtime.unwrap_or(mtime), mtime, "{id}: time of {name}");
        assert_eq!(
            node.xattrs.as_ref().unwrap_or(&record.meta.xattrs),
            &record.meta.xattrs,
            "{id}: attributes of {name}"
        );
    }
}

/// A stored layer read back gives the same tree again.
fn written_back(id: &str, place: &Path, layer: &Path, tree: &[Node]) {
    let mut tar = Vec::new();
    layer::read_back(File::open(layer).expect("snapshot").as_fd(), &mut tar)
        .unwrap_or_else(|error| panic!("{id}: {error}"));
    let place = place.join("again");
    fs::create_dir(&place).expect("a directory");
    let limits = LayerLimits::default();
    let again = plain(&place, &[Blob::of_tar(tar)], &limits).unwrap_or_else(|error| panic!("{id}, read back: {error}"));
    compare(id, "read back", &read_tree(&again), tree, None);
}

/// Compares a tree with what is expected of it. Inode numbers of overlayfs say nothing, those in `layers` do.
fn compare(id: &str, way: &str, seen: &BTreeMap<Vec<u8>, Seen>, tree: &[Node], layers: Option<&[Root]>) {
    let form = Form::of_this_process();
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for (path, entry) in seen {
        let listed = tree.iter().any(|node| node.path == *path);
        let prefix = if path.is_empty() { Vec::new() } else { [path, &b"/"[..]].concat() };
        let leads = entry.kind == Kind::Directory
            && (path.is_empty() || tree.iter().any(|node| node.path.starts_with(&prefix)));
        assert!(listed || leads, "{id}, {way}: {:?} should not be there: {entry:?}", text(path));
    }
    for node in tree {
        let Some(entry) = seen.get(&node.path) else { panic!("{id}, {way}: {:?} is missing", text(&node.path)) };
        let at = format!("{id}, {way}: {:?}", text(&node.path));
        what(&at, form, seen, node, entry, layers);
        if matches!(node.what, What::SameAs(_)) {
            continue;
        }
        if let Some(mode) = node.mode {
            let on_disk = match (form, &entry.kind) {
                (Form::Root, _) => mode,
                (Form::User, Kind::Directory) => mode & 0o777 | 0o700,
                (Form::User, _) => mode & 0o777 | 0o600,
            };
            assert_eq!(format!("{:o}", entry.mode), format!("{on_disk:o}"), "{at}: mode");
        }
        if let (Some(owner), Form::Root) = (node.owner, form) {
            assert_eq!(entry.owner, owner, "{at}: owner");
        }
        if let Some(mtime) = node.mtime {
            assert_eq!(entry.mtime, mtime, "{at}: time");
        }
        if let Some(xattrs) = &node.xattrs {
            let mut want = xattrs.clone();
            want.retain(|(name, _)| form == Form::Root || name.starts_with(b"user."));
            assert_eq!(entry.xattrs, want, "{at}: attributes");
        }
    }
}

fn what(at: &str, form: Form, seen: &BTreeMap<Vec<u8>, Seen>, node: &Node, entry: &Seen, layers: Option<&[Root]>) {
    let placeholder = Kind::File { size: 0, content: Vec::new() };
    let want = match (&node.what, form) {
        (What::Directory, _) => Kind::Directory,
        (What::File(content), _) => Kind::File { size: content.len() as u64, content: content.clone() },
        (What::Zeros(size), _) => Kind::File { size: *size, content: Vec::new() },
        (What::Symlink(text), _) => Kind::Symlink(text.clone()),
        (What::Char(major, minor), Form::Root) => Kind::Char(*major, *minor),
        (What::Block(major, minor), Form::Root) => Kind::Block(*major, *minor),
        (What::Char(..) | What::Block(..), Form::User) => placeholder,
        (What::Fifo, _) => Kind::Fifo,
        (What::SameAs(other), _) => {
            let other_entry = seen.get(other).unwrap_or_else(|| panic!("{at}: the other name is missing"));
            let inode = |root: &Root, path: &[u8]| {
                let path = root.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
                fs::symlink_metadata(path).map(|meta| meta.ino()).ok()
            };
            let same = match layers {
                None => other_entry.inode == entry.inode,
                Some(roots) => {
                    roots.iter().any(|root| inode(root, other).is_some_and(|a| inode(root, &node.path) == Some(a)))
                }
            };
            assert!(same, "{at}: one file with two names");
            return;
        }
    };
    assert_eq!(entry.kind, want, "{at}");
}
