//! The files of an image, listed without mounting it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use support::{TestImage, open, open_as};
use windlass_store::{FileKind, SetUserId, SnapshotFormat, Store, StoreError};

const NAME: &str = "registry.example/team/app:1";
const USER_ROOT: &str = "WINDLASS_TEST_USER_ROOT";
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// Kind, mode, owner, group, time, length, link text or device number.
type Seen = (char, u32, u32, u32, i64, u64, Vec<u8>, (u32, u32));

fn put(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(u64::from(mode % 97));
    header.set_gid(u64::from(mode % 89));
    header.set_mtime(1_600_000_000 + u64::from(mode));
    header.set_size(data.len() as u64);
    if kind == tar::EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    match link.is_empty() {
        true => builder.append_data(&mut header, path, data).unwrap(),
        false => builder.append_link(&mut header, path, link).unwrap(),
    }
}

fn image() -> TestImage {
    use tar::EntryType as T;
    let mut low = tar::Builder::new(Vec::new());
    put(&mut low, T::Directory, "./", "", 0o751, b"");
    put(&mut low, T::Directory, "etc/", "", 0o711, b"");
    put(&mut low, T::Regular, "etc/shadow", "", 0o000, b"secret");
    put(&mut low, T::Regular, "etc/gone", "", 0o644, b"x");
    put(&mut low, T::Regular, "bin/su", "", 0o4755, b"su");
    put(&mut low, T::Link, "bin/also", "bin/su", 0o755, b"");
    put(&mut low, T::Char, "dev/null", "", 0o666, b"");
    put(&mut low, T::Directory, "cleared/", "", 0o2770, b"");
    put(&mut low, T::Regular, "cleared/old", "", 0o600, b"old");
    put(&mut low, T::Directory, "file/", "", 0o700, b"");
    put(&mut low, T::Regular, "file/below", "", 0o600, b"");
    let mut top = tar::Builder::new(Vec::new());
    put(&mut top, T::Regular, "etc/.wh.gone", "", 0o644, b"");
    put(&mut top, T::Regular, "etc/new", "", 0o604, b"new");
    put(&mut top, T::Regular, "cleared/.wh..wh..opq", "", 0o644, b"");
    put(&mut top, T::Symlink, "link", "/etc/new", 0o777, b"");
    put(&mut top, T::Regular, "file", "", 0o640, b"a file now");
    put(&mut top, T::Fifo, "pipe", "", 0o622, b"");
    TestImage::of_tars(NAME, &[low, top].map(|builder| builder.into_inner().unwrap()))
}

fn listed(store: &Store) -> BTreeMap<Vec<u8>, Seen> {
    let image = store.find(NAME).unwrap().unwrap();
    let mut order = Vec::new();
    let mut seen = BTreeMap::new();
    let mut each = |entry: &windlass_store::FileEntry<'_>| {
        let (kind, size, text, device) = match entry.kind {
            FileKind::Directory => ('d', 0, &b""[..], (0, 0)),
            FileKind::File { size_bytes } => ('-', size_bytes, &b""[..], (0, 0)),
            FileKind::Symlink(text) => ('l', 0, text, (0, 0)),
            FileKind::Device(device) => {
                (if device.block { 'b' } else { 'c' }, 0, &b""[..], (device.major, device.minor))
            }
            FileKind::Fifo => ('p', 0, &b""[..], (0, 0)),
        };
        let what = (kind, entry.mode, entry.uid, entry.gid, entry.mtime.seconds, size, text.to_vec(), device);
        order.push(entry.path.to_vec());
        seen.insert(entry.path.to_vec(), what);
        ControlFlow::Continue(())
    };
    store.files(&image, &mut each).unwrap();
    assert_eq!(order.len(), seen.len(), "each once");
    for path in order.iter().filter(|path| !path.is_empty()) {
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &path[..at]);
        let place = |wanted: &[u8]| order.iter().position(|path| path == wanted);
        assert!(place(parent) < place(path), "a directory comes first");
    }
    seen
}

/// What stands on disk below a directory.
fn on_disk(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let (kind, size, text, device) = match found.file_type() {
            kind if kind.is_dir() => {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                ('d', 0, Vec::new(), 0)
            }
            kind if kind.is_symlink() => ('l', 0, fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(), 0),
            kind if kind.is_fifo() => ('p', 0, Vec::new(), 0),
            kind if kind.is_char_device() => ('c', 0, Vec::new(), found.rdev()),
            _ => ('-', found.len(), Vec::new(), 0),
        };
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let what = (kind, found.mode() & 0o7777, found.uid(), found.gid(), found.mtime(), size, text, device);
        seen.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), what);
    }
    seen
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED store::files: {what}");
}

#[test]
fn the_files_of_an_image_are_those_that_a_mount_shows() {
    for format in [SnapshotFormat::Overlay, SnapshotFormat::Erofs] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_as(&dir.path().join("store"), format);
        match image().pull(&store) {
            Ok(_) => {}
            Err(error @ StoreError::NoImageFiles { .. }) => return skipped(&error.to_string()),
            Err(error) => panic!("{error}"),
        }
        let at = dir.path().join("at");
        fs::create_dir(&at).unwrap();
        if let Err(error) = store.mount(NAME, &at, SetUserId::Honoured) {
            return skipped(&error.to_string());
        }
        let want = on_disk(&at);
        store.unmount(&at).unwrap();
        assert!(want.contains_key(&b"etc/new"[..]) && !want.contains_key(&b"etc/gone"[..]));
        assert_eq!(listed(&store), want, "{format:?}");
    }
}

/// Run by [`a_user_sees_the_owners_that_the_image_says`] as an ordinary user.
#[test]
fn as_user() {
    let Some(root) = std::env::var_os(USER_ROOT) else { return };
    let store = open(&Path::new(&root).join("store"));
    image().pull(&store).unwrap();
    let seen = listed(&store);
    let time = |mode: u32| 1_600_000_000 + i64::from(mode);
    let file = |mode: u32, size| ('-', mode, mode % 97, mode % 89, time(mode), size, Vec::new(), (0, 0));
    let dir = |mode: u32| ('d', mode, mode % 97, mode % 89, time(mode), 0, Vec::new(), (0, 0));
    let implicit = ('d', 0o755, 0, 0, 0, 0, Vec::new(), (0, 0));
    let null = ('c', 0o666, 0o666 % 97, 0o666 % 89, time(0o666), 0, Vec::new(), (1, 3));
    let fifo = ('p', 0o622, 0o622 % 97, 0o622 % 89, time(0o622), 0, Vec::new(), (0, 0));
    let link = ('l', 0o777, 0o777 % 97, 0o777 % 89, time(0o777), 0, b"/etc/new".to_vec(), (0, 0));
    let want: [(&str, Seen); 13] = [
        ("", dir(0o751)),
        ("bin", implicit.clone()),
        ("bin/also", file(0o4755, 2)),
        ("bin/su", file(0o4755, 2)),
        ("cleared", dir(0o2770)),
        ("dev", implicit),
        ("dev/null", null),
        ("etc", dir(0o711)),
        ("etc/new", file(0o604, 3)),
        ("etc/shadow", file(0, 6)),
        ("file", file(0o640, 10)),
        ("link", link),
        ("pipe", fifo),
    ];
    let want: BTreeMap<Vec<u8>, Seen> = want.into_iter().map(|(path, seen)| (path.as_bytes().to_vec(), seen)).collect();
    assert_eq!(seen, want);
}

#[test]
fn a_user_sees_the_owners_that_the_image_says() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("user");
    fs::create_dir(&root).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "as_user"]).env(USER_ROOT, &root);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&root, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        child.uid(NOBODY).gid(NOBODY);
    }
    match child.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => skipped(&format!("an ordinary user cannot run this test binary: {error}")),
    }
}

#[test]
fn a_list_ends_when_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    image().pull(&store).unwrap();
    let image = store.find(NAME).unwrap().unwrap();
    for stop_after in [1, 2, 5] {
        let mut heard = 0;
        let mut each = |_: &windlass_store::FileEntry<'_>| {
            heard += 1;
            if heard == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.files(&image, &mut each).unwrap();
        assert_eq!(heard, stop_after);
    }
}
