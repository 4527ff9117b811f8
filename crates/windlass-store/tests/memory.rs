//! What unpacking into an image file keeps in memory: something for each entry, nothing for each byte.
//!
//! The child is this binary once more, with [`child`] as its only test: a process of its own has a peak of its own.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::Command;

use flate2::write::GzEncoder;
use support::{LAYER_TYPE, gzip, open_as, usual_formats};
use windlass_core::digest::{Algorithm, Digest, Hasher};
use windlass_store::{LayerClaim, LayerKey, LeaseOptions, SnapshotFormat};
use windlass_testkit::hostile::raw::Tar;

const MILLION: u64 = 1_000_000;
/// What a million entries may take.
const MILLION_BYTES_MAX: u64 = 256 << 20;
/// A directory for each so many files.
const FILES_IN_A_DIRECTORY: u64 = 50;
const TAR_BLOCK: usize = 512;

const ROOT: &str = "WINDLASS_TEST_MEMORY_ROOT";
const LAYER: &str = "WINDLASS_TEST_MEMORY_LAYER";

/// Hashes what it passes on.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Hashed<W> {
        Hashed { out, hasher: Algorithm::Sha256.hasher(), bytes: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Writes a layer of so many small files, after one of this name; says its digest and size and its diff ID.
fn write_layer(path: &Path, first: &str, entries: u64) -> String {
    let file = Hashed::new(BufWriter::new(File::create(path).unwrap()));
    let mut tar = Hashed::new(GzEncoder::new(file, flate2::Compression::fast()));
    let mut header = tar::Header::new_ustar();
    let mut buffer = Vec::new();
    let mut entry = |path: &str, kind: tar::EntryType, content: &[u8]| {
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_path(path).unwrap();
        header.set_cksum();
        buffer.extend_from_slice(header.as_bytes());
        buffer.extend_from_slice(content);
        buffer.resize(buffer.len().next_multiple_of(TAR_BLOCK), 0);
        if buffer.len() > 1 << 20 {
            tar.write_all(&buffer).unwrap();
            buffer.clear();
        }
    };
    entry(first, tar::EntryType::Regular, b"first");
    let mut dir = String::new();
    for at in 0..entries - 1 {
        if at % FILES_IN_A_DIRECTORY == 0 {
            dir = format!("usr/lib/node_modules/package-{at:07}/");
            entry(&dir, tar::EntryType::Directory, b"");
        } else {
            let content: &[u8] = if at % 10 == 0 { b"module.exports = 1;\n" } else { b"" };
            entry(&format!("{dir}file-with-a-usual-name-{at:07}.js"), tar::EntryType::Regular, content);
        }
    }
    buffer.resize(buffer.len() + 2 * TAR_BLOCK, 0);
    tar.write_all(&buffer).unwrap();
    let mut file = tar.out.finish().unwrap();
    file.flush().unwrap();
    format!("{} {} {} {entries}", file.hasher.finish(), file.bytes, tar.hasher.finish())
}

/// Most memory that this process ever had resident.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Unpacks `blob` into an image file, on top of a layer in which `way` is a link.
#[test]
fn child() {
    let (Some(root), Ok(told)) = (std::env::var_os(ROOT), std::env::var(LAYER)) else { return };
    let root = Path::new(&root);
    let [digest, size_bytes, diff_id, entries] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let lower = Tar::new().dir("usr").symlink("way", "usr").end();
    let lower_blob = gzip(&lower);
    let keys = LayerKey::stack([
        (Digest::sha256(&lower_blob), lower_blob.len() as u64, LAYER_TYPE.to_owned(), Digest::sha256(&lower)),
        (
            Digest::parse(digest).unwrap(),
            size_bytes.parse().unwrap(),
            LAYER_TYPE.to_owned(),
            Digest::parse(diff_id).unwrap(),
        ),
    ]);
    let store = open_as(&root.join("store"), SnapshotFormat::Erofs);
    let lease = store.begin(LeaseOptions::pull("large")).unwrap();
    let unpack = |key: &LayerKey, blob: &mut (dyn BufRead + Send)| {
        let LayerClaim::Work(work) = lease.claim_layer(key, &|| false).unwrap() else { panic!("there") };
        let unpacked = work.unpack(blob, &()).unwrap();
        assert!(unpacked.again.is_empty());
        unpacked.size.entries
    };
    let mut blob = BufReader::new(File::open(root.join("blob")).unwrap());
    assert_eq!(unpack(&keys[1], &mut blob).to_string(), entries);
    unpack(&keys[0], &mut lower_blob.as_slice());
    assert_eq!(fs::read_dir(root.join("store/snapshots")).unwrap().count(), 2, "both are settled");
    fs::write(root.join("peak"), peak_bytes().to_string()).unwrap();
}

/// What a process that unpacks such a layer has resident at most.
fn peak_of_a_layer(first: &str, entries: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let told = write_layer(&dir.path().join("blob"), first, entries);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(ROOT, dir.path())
        .env(LAYER, told)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    fs::read_to_string(dir.path().join("peak")).unwrap().parse().unwrap()
}

#[test]
fn a_million_entries_of_an_image_file_take_256_mib() {
    if usual_formats().contains(&SnapshotFormat::Erofs) {
        // Half of them and half of that, so that the test is quick.
        let peak_bytes = peak_of_a_layer("first", MILLION / 2);
        assert!(peak_bytes <= MILLION_BYTES_MAX / 2, "{peak_bytes} bytes were resident");
    }
}

#[test]
fn entries_that_are_read_again_with_the_layers_below_take_no_more() {
    if usual_formats().contains(&SnapshotFormat::Erofs) {
        // The layer below, which comes later, says that this is a name over a link.
        let peak_bytes = peak_of_a_layer("way/first", MILLION / 4);
        assert!(peak_bytes <= MILLION_BYTES_MAX / 4, "{peak_bytes} bytes were resident");
    }
}
