//! Layers in each form they can be stored in: whatever a layer is, the forms are refused alike or are the same tree.
//!
//! The input is what `layer_apply` takes, in its rich dialect: a program that writes archives, one archive behind the
//! byte 255, or a lower and an upper one behind 254 and the blocks of the lower one. Image files are read with
//! `windlass_erofs`, directories with the kernel; nothing is mounted. Each layer is compared by itself, as it is when
//! the layers below have settled it.

mod seen;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use windlass_core::digest::Digest;
use windlass_store::layer::{
    self, Completion, Compression, Depth, Form, Format, IMAGE, LayerError, LayerLimits, LayerSpec, Settled, Stored,
    TREE, Warning,
};

use super::layer_apply::archives::{self, Dialect};
use super::layer_apply::{memory, private};
use seen::{Listing, What};

/// A hostile sparse file is as large as this in every form.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

/// Each directory on the way down is held open while a tree is compared.
const DEPTH_MAX: usize = 200;

/// How many extended attributes, and how large: each form has limits of its own far above.
const XATTRS_MAX: (usize, usize) = (8, 4 << 10);

/// Which form a layer gets, by its place in the stack.
type FormatAt = fn(usize) -> Format;

/// What one form makes of the layers.
struct Stack {
    /// The settled layers, lowest first.
    layers: Vec<PathBuf>,
    /// Whether extended attributes were left out for reasons of the file system.
    lost_xattrs: bool,
}

/// Unpacks the layers in every form, and compares what came out.
pub fn run(bytes: &[u8]) {
    let place = tempfile::Builder::new().prefix("windlass-fuzz-").tempdir_in(memory()).expect("a directory");
    let outside = place.path().join("outside");
    let tars = archives::of(bytes, &outside, Dialect::Rich);
    let mut limits = LayerLimits::default();
    limits.unpacked_bytes = UNPACKED_BYTES_MAX;
    limits.depth = DEPTH_MAX;
    (limits.xattrs, limits.xattr_bytes) = XATTRS_MAX;
    let unpacked = |name: &str, format: FormatAt| stack(&place.path().join(name), &tars, &limits, format);

    let directories = unpacked("directories", |_| Format::Overlay);
    let images = unpacked("images", |_| Format::Erofs);
    same(&directories, &images, "image files");
    if tars.len() > 1 {
        let mixed = match bytes.len() % 2 {
            0 => unpacked("mixed", |at| if at % 2 == 0 { Format::Overlay } else { Format::Erofs }),
            _ => unpacked("mixed", |at| if at % 2 == 1 { Format::Overlay } else { Format::Erofs }),
        };
        same(&directories, &mixed, "both in one image");
    }
    assert!(!outside.exists(), "something outside was made");
}

/// Unpacks every layer by itself, then settles them from the lowest on.
fn stack(place: &Path, tars: &[Vec<u8>], limits: &LayerLimits, format: FormatAt) -> Result<Stack, LayerError> {
    fs::create_dir(place).expect("a directory");
    let form = Form::of_this_process();
    let mut stages = Vec::new();
    let mut stacked = Stack { layers: Vec::new(), lost_xattrs: false };
    for (at, tar) in tars.iter().enumerate() {
        let path = place.join(at.to_string());
        let stage = private(&path);
        let diff_id = Digest::sha256(tar);
        let mut spec = LayerSpec::new(&diff_id, tar.len() as u64, Compression::None, &diff_id, limits);
        spec.format = format(at);
        let mut extracted = layer::extract(&mut &tar[..], &spec, stage.as_fd(), &())?;
        assert_eq!(extracted.tar_bytes, tar.len() as u64);
        // Every second layer is settled as after a restart.
        if at % 2 == 1 {
            extracted.needs = layer::needs_of(stage.as_fd(), limits)?;
        }
        stages.push((path, extracted));
    }
    let mut below = Vec::new();
    for (at, (mut path, mut extracted)) in stages.into_iter().enumerate() {
        let tar = &tars[at];
        let (diff_id, chain_id) = (Digest::sha256(tar), Digest::sha256(at.to_string().as_bytes()));
        let completion =
            Completion { below: &below, form, diff_id: &diff_id, chain_id: &chain_id, limits, integrity_xattrs: false };
        let stage = File::open(&path).expect("a stage");
        if layer::settle(stage.as_fd(), &mut extracted, &completion)? == Settled::Redo {
            path = place.join(format!("again-{at}"));
            let stage = private(&path);
            let mut spec = LayerSpec::new(&diff_id, tar.len() as u64, Compression::None, &diff_id, limits);
            spec.below = Some(&below);
            extracted = layer::extract(&mut &tar[..], &spec, stage.as_fd(), &())?;
            assert_eq!(layer::settle(stage.as_fd(), &mut extracted, &completion)?, Settled::Done, "done again once");
        }
        let snapshot = File::open(&path).expect("a snapshot");
        sound(&snapshot, &diff_id);
        if path.join(IMAGE).exists() {
            let before = fs::read(path.join(IMAGE)).expect("an image file");
            // A second time from the tar alone, as after a crash.
            assert_eq!(layer::settle(snapshot.as_fd(), &mut extracted, &completion)?, Settled::Done, "settled again");
            assert!(before == fs::read(path.join(IMAGE)).expect("an image file"), "the same bytes again");
            let mut read_back = Vec::new();
            layer::read_back(snapshot.as_fd(), &mut read_back).expect("a whole image file");
            assert!(read_back == *tar, "the very tar comes back");
        }
        stacked.lost_xattrs |= extracted.warnings.contains(&Warning::XattrsNotStored);
        below.insert(0, Stored::open(snapshot.as_fd())?);
        stacked.layers.push(path);
    }
    Ok(stacked)
}

/// What is stored is what was written.
fn sound(snapshot: &File, diff_id: &Digest) {
    for depth in [Depth::Quick, Depth::Full] {
        let mut damage = Vec::new();
        let mut note = |found| damage.push(found);
        layer::verify(snapshot.as_fd(), depth, Form::of_this_process(), diff_id, &mut note).expect("a whole layer");
        assert_eq!(damage, [], "nothing is damaged");
    }
}

/// Compares two forms of the same layers.
fn same(directories: &Result<Stack, LayerError>, other: &Result<Stack, LayerError>, which: &str) {
    let (directories, other) = match (directories, other) {
        (Ok(directories), Ok(other)) => (directories, other),
        (Err(a), Err(b)) => return assert_eq!(a.reason().class(), b.reason().class(), "{which}: {a}; {b}"),
        (Err(error), Ok(_)) if is_of_the_file_system(error) => return,
        (Err(error), Ok(_)) => panic!("{which}: refused as directories alone: {error}"),
        (Ok(_), Err(error)) => panic!("{which}: refused alone: {}", windlass_core::reason::chain(error)),
    };
    // Without root's rights owners, modes, devices and attributes are in the record of a directory only.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lost_xattrs = directories.lost_xattrs != other.lost_xattrs;
    let mut below: Vec<Listing> = Vec::new();
    for (at, (a, b)) in directories.layers.iter().zip(&other.layers).enumerate() {
        let (mut a, mut b) = (listing(a), listing(b));
        let here = a.clone();
        for listing in [&mut a, &mut b] {
            forget_idle_marks(listing, &below);
        }
        if lost_xattrs {
            a.values_mut().chain(b.values_mut()).for_each(|seen| seen.xattrs.clear());
        }
        if a != b {
            let only = |a: &Listing, b: &Listing| {
                let lines = a.iter().filter(|(path, seen)| b.get(*path) != Some(*seen));
                lines.map(|(path, seen)| format!("\n  {} {seen:?}", path.escape_ascii())).collect::<String>()
            };
            panic!("{which}, layer {at}\nas a directory:{}\nas here:{}", only(&a, &b), only(&b, &a));
        }
        below.push(here);
    }
}

/// An opaque directory over nothing hides nothing: whether it has the mark depends on when the layers below were known.
fn forget_idle_marks(listing: &mut Listing, below: &[Listing]) {
    for (path, seen) in listing.iter_mut() {
        if let What::Directory { opaque } = &mut seen.what {
            *opaque = *opaque && is_directory(path, below);
        }
    }
}

/// Whether a stack of layers, lowest first, shows a directory at a path.
fn is_directory(path: &[u8], stack: &[Listing]) -> bool {
    for layer in stack.iter().rev() {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends {
            match layer.get(&path[..end]).map(|seen| &seen.what) {
                None | Some(What::Directory { opaque: false }) => {}
                Some(What::Directory { opaque: true }) => {
                    return matches!(layer.get(path).map(|seen| &seen.what), Some(What::Directory { .. }));
                }
                Some(_) => return false,
            }
        }
        match layer.get(path).map(|seen| &seen.what) {
            None => {}
            Some(What::Directory { .. }) => return true,
            Some(_) => return false,
        }
    }
    false
}

/// File systems have limits of their own for extended attributes, and the kernel judges some of them.
fn is_of_the_file_system(error: &LayerError) -> bool {
    matches!(error, LayerError::Entry { action: "set an extended attribute of", .. })
}

fn listing(snapshot: &Path) -> Listing {
    let image = snapshot.join(IMAGE);
    if image.exists() { seen::image(&image) } else { seen::directory(&snapshot.join(TREE)) }
}
