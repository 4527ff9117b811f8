//! Whether this kernel and file system can keep layers as image files: tried, not guessed.
//!
//! A tiny image is written into the store's own file system, mounted, read, and put under an overlay with a whiteout
//! in it, with another overlay on top. What came of it is noted for this boot, so that it is asked, and said, once.
//!
//! Invariants: `image_files_are_used_where_they_can_be`, `forcing_image_files_where_they_cannot_be_is_an_error`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};
use windlass_erofs::{Attributes, Content, DATA_START, Device, Layer, New, Tree};

use crate::error::StoreError;
use crate::image_mounts::{self, ImageMounts};
use crate::layout::{Layout, Sync, make_dir, write_whole};
use crate::lock::boot_id;
use crate::mount::{SetUserId, mount_overlay};

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probed {
    boot_id: String,
    /// Device of the root's file system: a store may be moved.
    device: u64,
    /// Why it cannot be; none: it can.
    pub(crate) why_not: Option<String>,
}

/// Asks the note of this boot, or tries.
///
/// # Errors
/// The store cannot be written to at all.
pub(crate) fn probe(layout: &Layout) -> Result<Probed, StoreError> {
    let device = rustix::fs::stat(layout.root()).map_err(|errno| StoreError::io("stat", layout.root(), errno))?.st_dev;
    if !rustix::process::geteuid().is_root() {
        // Not noted: it says nothing about root.
        return Ok(Probed { boot_id: String::new(), device, why_not: Some("only root can mount".to_owned()) });
    }
    if let Some(noted) = noted(layout, device) {
        return Ok(noted);
    }
    let lock = ImageMounts::lock(layout)?;
    // Somebody else may have tried while we waited.
    if let Some(noted) = noted(layout, device) {
        return Ok(noted);
    }
    let why_not = try_out(layout).err();
    match &why_not {
        Some(why) => tracing::warn!(%why, "layers are kept as directories, not as image files"),
        None => tracing::debug!("layers are kept as image files"),
    }
    let probed = Probed { boot_id: boot_id().to_owned(), device, why_not };
    if let Ok(bytes) = serde_json::to_vec(&probed) {
        write_whole(&layout.probed(), &bytes, Sync::Later)?;
    }
    drop(lock);
    Ok(probed)
}

/// What was found in this boot, on this file system.
fn noted(layout: &Layout, device: u64) -> Option<Probed> {
    let noted: Probed = serde_json::from_slice(&fs::read(layout.probed()).ok()?).ok()?;
    (!noted.boot_id.is_empty() && noted.boot_id == boot_id() && noted.device == device).then_some(noted)
}

fn try_out(layout: &Layout) -> Result<(), String> {
    let said = |error: StoreError| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let place = Place::new(layout.image_mounts().join(format!("probe-{}", std::process::id()))).map_err(said)?;
    let image = place.0.join("image");
    write_image(&image).map_err(|error| format!("a small image file cannot be written: {error}"))?;
    image_mounts::mount(&image, &place.0.join("m")).map_err(said)?;
    let read =
        |path: &str| fs::read(place.0.join(path)).map_err(|error| format!("an image file cannot be read: {error}"));
    if read("m/file")? != CONTENT {
        return Err("an image file shows other content than it holds".to_owned());
    }
    // A whiteout of the image hides a file of the directory below it.
    fs::write(place.0.join("d/hidden"), b"").map_err(|error| error.to_string())?;
    overlay(&place, ["m", "d"], "o").map_err(|error| format!("an overlay on an image file fails: {}", said(error)))?;
    if read("o/file")? != CONTENT || place.0.join("o/hidden").exists() {
        return Err("an overlay on an image file does not hide what it should".to_owned());
    }
    // As a container engine in a container does.
    overlay(&place, ["o", "d"], "p")
        .map_err(|error| format!("an overlay on an overlay on an image file fails: {}", said(error)))?;
    if read("p/file")? != CONTENT {
        return Err("an overlay on an overlay on an image file shows other content".to_owned());
    }
    Ok(())
}

const CONTENT: &[u8] = b"windlass\n";

fn write_image(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut tree = Tree::new(1 << 20);
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let file = tree.insert(tree.root(), b"file", New::File, &attributes)?;
    tree.set_content(file, Content { offset: DATA_START, size_bytes: CONTENT.len() as u64 })?;
    tree.insert(tree.root(), b"hidden", New::Device(Device::WHITEOUT), &attributes)?;
    let tar_bytes = windlass_erofs::BLOCK_BYTES;
    let mut out = File::create_new(path)?;
    out.write_all(&[0; DATA_START as usize])?;
    out.write_all(CONTENT)?;
    let at_bytes = DATA_START + tar_bytes;
    out.set_len(at_bytes)?;
    std::io::Seek::seek(&mut out, std::io::SeekFrom::Start(at_bytes))?;
    let layer = Layer { tar_bytes, tar_digest: "none", between_crc32c: 0, uuid: [0; 16] };
    let front = windlass_erofs::write(&tree, &layer, at_bytes, &mut out)?.front;
    out.write_all_at(&front[..], 0)?;
    Ok(())
}

fn overlay(place: &Place, lowers: [&str; 2], target: &str) -> Result<(), StoreError> {
    let lowers = lowers.map(|name| place.0.join(name));
    mount_overlay(&lowers, &place.0.join(target), SetUserId::Ignored)
}

/// The directory in which it is tried; unmounted and removed when dropped.
struct Place(PathBuf);

const NAMES: [&str; 4] = ["p", "o", "m", "d"];

impl Place {
    fn new(path: PathBuf) -> Result<Place, StoreError> {
        let place = Place(path);
        place.clear();
        make_dir(&place.0)?;
        for name in NAMES {
            make_dir(&place.0.join(name))?;
        }
        Ok(place)
    }

    fn clear(&self) {
        for name in NAMES {
            let _ = rustix::mount::unmount(self.0.join(name), UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
        // What cannot be removed is tried again by the next probe of a process with this number.
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}
