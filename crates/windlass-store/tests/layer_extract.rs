//! What holds for every extraction, whatever the layer.

mod layer_support;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use layer_support::{private_directory, read_tree};
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;
use windlass_store::layer::{self, Compression, Extracted, LayerError, LayerLimits, LayerSpec, Progress, Step, TREE};
use windlass_testkit::hostile::raw::{Header, Tar, gzip};

fn unpack(
    place: &Path,
    tar: &[u8],
    limits: &LayerLimits,
    split: bool,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    let blob = gzip(tar);
    let (digest, diff_id) = (Digest::sha256(&blob), Digest::sha256(tar));
    let mut spec = LayerSpec::new(&digest, blob.len() as u64, Compression::Gzip, &diff_id, limits);
    spec.split = split;
    layer::extract(&mut &blob[..], &spec, private_directory(place).as_fd(), progress)
}

/// A layer with files of many sizes around those of the buffers.
fn sample() -> Vec<u8> {
    let mut tar = Tar::new().head(Header::new(b'5', "d").mode(0o750).mtime(5));
    for size in [0usize, 1, 511, 512, 513, 262_143, 262_144, 262_145, 1_000_000] {
        let content: Vec<u8> = (0..size).map(|at| u8::try_from(at * 7 % 251).expect("a byte")).collect();
        tar = tar.with(Header::new(b'0', format!("d/{size}")).mode(0o666).mtime(size as u64), content);
    }
    tar.symlink("l", "d").link("h", "d/513").end()
}

#[test]
fn one_thread_and_two_give_the_same_tree() {
    let place = tempfile::tempdir().expect("a directory");
    let (tar, limits) = (sample(), LayerLimits::default());
    let one = unpack(&place.path().join("one"), &tar, &limits, false, &()).expect("one thread");
    let two = unpack(&place.path().join("two"), &tar, &limits, true, &()).expect("two threads");
    assert_eq!((one.entries, one.unpacked_bytes, &one.needs), (two.entries, two.unpacked_bytes, &two.needs));
    let tree = |name: &str| {
        let mut tree = read_tree(&place.path().join(name).join(TREE));
        tree.values_mut().for_each(|seen| seen.inode = (0, 0));
        tree
    };
    assert_eq!(tree("one"), tree("two"));
    let sums = |name: &str| fs::read(place.path().join(name).join("sums")).expect("record");
    assert_eq!(sums("one"), sums("two"), "the record is the same, byte for byte");
}

#[test]
fn times_of_directories_survive_their_children() {
    let place = tempfile::tempdir().expect("a directory");
    unpack(&place.path().join("s"), &sample(), &LayerLimits::default(), false, &()).expect("unpacked");
    assert_eq!(fs::metadata(place.path().join("s/fs/d")).expect("the directory").mtime(), 5);
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    if std::env::var_os("WINDLASS_TEST_UMASK").is_none() {
        // The umask belongs to the whole process, so another one does it.
        for umask in ["000", "022", "077", "777"] {
            let program = std::env::current_exe().expect("this program");
            let script = format!("umask {umask}; exec \"$0\" --exact modes_are_exact_whatever_the_umask");
            let place = tempfile::tempdir().expect("a directory");
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).arg(program).env("WINDLASS_TEST_UMASK", umask).env("TMPDIR", place.path());
            let output = command.output().expect("a shell");
            assert!(output.status.success(), "umask {umask}: {}", String::from_utf8_lossy(&output.stdout));
        }
        return;
    }
    let place = std::env::temp_dir();
    let tar = Tar::new()
        .head(Header::new(b'5', "d").mode(0o777))
        .with(Header::new(b'0', "d/f").mode(0o666), "x")
        .with(Header::new(b'0', "g").mode(0o755), "x")
        .file("implicit/x", "x")
        .end();
    unpack(&place.join("s"), &tar, &LayerLimits::default(), false, &()).expect("unpacked");
    for (path, want) in
        [("", 0o755), ("d", 0o777), ("d/f", 0o666), ("g", 0o755), ("implicit", 0o755), ("implicit/x", 0o644)]
    {
        let mode = fs::symlink_metadata(place.join("s/fs").join(path)).expect(path).mode() & 0o7777;
        assert_eq!(format!("{mode:o}"), format!("{want:o}"), "{path}");
    }
}

#[test]
fn every_limit_is_named_when_it_is_passed() {
    type Change = fn(&mut LayerLimits);
    let files = (0..20).fold(Tar::new(), |tar, at| tar.file(format!("a/b/c/{at}"), "x")).end();
    let large = Tar::new().with(Header::new(b'0', "f"), vec![0; 100_000]).end();
    let table: [(&str, &[u8], Change); 8] = [
        ("layerEntries", &files, |limits| limits.entries = 19),
        ("layerUnpackedBytes", &large, |limits| limits.unpacked_bytes = 99_999),
        ("layerRatio", &large, |limits| {
            limits.ratio = 2;
            limits.ratio_from_bytes = 50_000;
        }),
        ("directoryDepth", &files, |limits| limits.depth = 3),
        ("pathBytes", &files, |limits| limits.path_bytes = 6),
        ("componentBytes", &files, |limits| limits.component_bytes = 1),
        ("layerPendingBytes", &files, |limits| limits.pending_bytes = 100),
        ("layerLookups", &files, |limits| limits.lookups = 2),
    ];
    for (name, tar, change) in table {
        for split in [false, true] {
            let place = tempfile::tempdir().expect("a directory");
            let mut limits = LayerLimits::default();
            change(&mut limits);
            let error = unpack(&place.path().join("s"), tar, &limits, split, &()).expect_err(name);
            assert_eq!(error.reason(), Reason::LimitExceeded, "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

struct StopAfter(std::sync::atomic::AtomicU32);

impl Progress for StopAfter {
    fn advance(&self, _: Step) -> ControlFlow<()> {
        match self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) {
            0..=1 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn a_cancelled_extraction_stops() {
    for split in [false, true] {
        let place = tempfile::tempdir().expect("a directory");
        let progress = StopAfter(3.into());
        let error =
            unpack(&place.path().join("s"), &sample(), &LayerLimits::default(), split, &progress).expect_err("stopped");
        assert_eq!(error.reason(), Reason::Canceled, "{error}");
    }
}

#[test]
fn size_and_digest_are_compared() {
    let (tar, limits) = (sample(), LayerLimits::default());
    let blob = gzip(&tar);
    let (digest, diff_id) = (Digest::sha256(&blob), Digest::sha256(&tar));
    let mut damaged = blob.clone();
    damaged[2000] ^= 1;
    let longer = [&blob[..], b"x"].concat();
    let table: [(&str, &[u8], Reason); 4] = [
        ("one byte short", &blob[..blob.len() - 1], Reason::SizeMismatch),
        ("one byte more", &longer, Reason::SizeMismatch),
        ("a flipped bit: the transfer is to blame, not the image", &damaged, Reason::DigestMismatch),
        ("nothing", b"", Reason::SizeMismatch),
    ];
    for (what, bytes, want) in table {
        for split in [false, true] {
            let place = tempfile::tempdir().expect("a directory");
            let mut spec = LayerSpec::new(&digest, blob.len() as u64, Compression::Gzip, &diff_id, &limits);
            spec.split = split;
            let stage = private_directory(&place.path().join("s"));
            let error = layer::extract(&mut &bytes[..], &spec, stage.as_fd(), &()).expect_err(what);
            assert_eq!(error.reason(), want, "{what}: {error}");
        }
    }
}

#[test]
fn damage_in_a_stored_layer_is_found() {
    let place = tempfile::tempdir().expect("a directory");
    let layer = place.path().join("s");
    unpack(&layer, &sample(), &LayerLimits::default(), false, &()).expect("unpacked");
    let check = |depth| {
        let mut found = Vec::new();
        let snapshot = File::open(&layer).expect("snapshot");
        let diff_id = Digest::sha256(&sample());
        let mut note = |damage: layer::Damage| found.push(damage.kind);
        layer::verify(snapshot.as_fd(), depth, layer::Form::of_this_process(), &diff_id, &mut note).expect("record");
        found
    };
    assert_eq!(check(layer::Depth::Full), []);
    fs::write(layer.join("fs/d/1"), "y").expect("write");
    assert_eq!(check(layer::Depth::Quick), [], "of the same size");
    assert_eq!(check(layer::Depth::Full), [layer::DamageKind::Content]);
    fs::write(layer.join("fs/d/1"), "").expect("write");
    fs::remove_file(layer.join("fs/d/511")).expect("remove");
    fs::remove_file(layer.join("fs/l")).expect("remove");
    symlink("elsewhere", layer.join("fs/l")).expect("link");
    fs::remove_file(layer.join("fs/h")).expect("remove");
    fs::create_dir(layer.join("fs/h")).expect("directory");
    use layer::DamageKind::{Content, Kind, Missing, Size};
    assert_eq!(check(layer::Depth::Quick), [Size, Missing, Content, Kind]);
}

#[test]
fn links_are_removed_not_followed() {
    let place = tempfile::tempdir().expect("a directory");
    fs::create_dir(place.path().join("keep")).expect("directory");
    fs::write(place.path().join("keep/file"), "x").expect("file");
    fs::create_dir(place.path().join("tree")).expect("directory");
    symlink("../keep", place.path().join("tree/link")).expect("link");
    symlink("keep", place.path().join("link")).expect("link");
    let root = File::open(place.path()).expect("root");
    for name in ["tree", "link", "nothing"] {
        assert_eq!(layer::remove_tree(root.as_fd(), name.as_bytes()), Ok(()), "{name}");
        assert!(fs::symlink_metadata(place.path().join(name)).is_err(), "{name}");
    }
    assert!(place.path().join("keep/file").exists());
}

#[test]
fn trees_deeper_than_a_path_go() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().expect("a directory");
    let root = File::open(place.path()).expect("root");
    let name = "n".repeat(200);
    let mut dir = rustix::fs::openat(&root, ".", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("root");
    rustix::fs::mkdirat(&dir, "top", rustix::fs::Mode::RWXU).expect("directory");
    dir = rustix::fs::openat(&dir, "top", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("directory");
    for _ in 0..300 {
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU).expect("directory");
        dir = rustix::fs::openat(&dir, &name, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("directory");
        rustix::fs::mkdirat(&dir, "other", rustix::fs::Mode::RWXU).expect("directory");
    }
    // Rights that would keep an ordinary user out.
    fs::set_permissions(place.path().join("top"), fs::Permissions::from_mode(0o000)).expect("permissions");
    assert_eq!(layer::remove_tree(root.as_fd(), b"top"), Ok(()));
    assert_eq!(fs::read_dir(place.path()).expect("root").count(), 0);
}
