//! Images from real files: what is installed on this machine has the sizes and the compressibility of real layers.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_testkit::images::{Image, Layer};

/// Where the layers of the large image come from, each up to [`LAYER_MAX_BYTES`].
const LARGE: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/share",
    "/usr/lib/python3",
    "/usr/include",
    "/usr/bin",
];

/// Plain bytes of one layer of the large image, at most.
const LAYER_MAX_BYTES: u64 = 120_000_000;

/// Plain bytes of the small image, at most.
const SMALL_MAX_BYTES: u64 = 6_000_000;

/// A few megabytes of small files, in one layer.
pub(crate) fn small() -> Image {
    Image::build().layer(layer(Path::new("/usr/share"), SMALL_MAX_BYTES)).finish()
}

/// A few hundred megabytes in several layers: libraries, programs, many small files.
pub(crate) fn large() -> Image {
    let folders = LARGE.iter().map(Path::new).filter(|folder| folder.is_dir());
    folders.fold(Image::build(), |image, folder| image.layer(layer(folder, LAYER_MAX_BYTES))).finish()
}

/// The files below a folder in the order of their names, until the next one would be too much.
fn layer(folder: &Path, max_bytes: u64) -> Layer {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    let mut left = max_bytes;
    add(&mut archive, folder, &mut left);
    Layer::from_tar(archive.into_inner().expect("a tar in memory"))
}

fn add(archive: &mut tar::Builder<Vec<u8>>, folder: &Path, left: &mut u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    archive.append_dir(inside(folder), folder).expect("a tar in memory");
    for path in paths {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            add(archive, &path, left);
        } else if (metadata.is_file() || metadata.is_symlink()) && metadata.len() <= *left {
            *left -= metadata.len();
            // A file that vanished or may not be read is left out; the image is whatever could be read.
            drop(archive.append_path_with_name(&path, inside(&path)));
        }
    }
}

fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").expect("an absolute path")
}
