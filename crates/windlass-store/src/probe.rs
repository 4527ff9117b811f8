//! Whether this kernel and file system can keep layers as image files: tried, not guessed.
//!
//! A tiny image is written into the store's own file system, mounted, read, and put under an overlay with a whiteout
//! in it, with another overlay on top. What came of it is noted for this boot, so that it is asked, and said, once.
//! A disk that is full says nothing about that: then there is an error and no note.
//!
//! Invariants: `image_files_are_used_where_they_can_be`, `forcing_image_files_where_they_cannot_be_is_an_error`,
//! `an_ordinary_user_is_told_once_and_keeps_directories`, `what_a_killed_probe_left_is_gone_after_the_next`.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};
use windlass_erofs::{Attributes, Content, DATA_START, Device, Layer, New, Tree, WriteError};

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
    /// Who tried; what an ordinary user may not says nothing about root.
    user: u32,
    /// Why it cannot be; none: it can.
    pub(crate) why_not: Option<String>,
}

/// Asks the note of this boot, or tries.
///
/// # Errors
/// The store cannot be written to: that says nothing about image files and is not noted.
pub(crate) fn probe(layout: &Layout) -> Result<Probed, StoreError> {
    let device = rustix::fs::stat(layout.root()).map_err(|errno| StoreError::io("stat", layout.root(), errno))?.st_dev;
    let user = rustix::process::geteuid();
    let noted = || noted(layout).filter(|noted| noted.device == device && noted.user == user.as_raw());
    if let Some(noted) = noted() {
        return Ok(noted);
    }
    let lock = ImageMounts::lock(layout)?;
    // Somebody else may have tried while we waited.
    if let Some(noted) = noted() {
        return Ok(noted);
    }
    let why_not = if user.is_root() { try_out(layout)? } else { Some("only root can mount".to_owned()) };
    match &why_not {
        Some(why) => tracing::warn!(%why, "layers are kept as directories, not as image files"),
        None => tracing::debug!("layers are kept as image files"),
    }
    let probed = Probed { boot_id: boot_id().to_owned(), device, user: user.as_raw(), why_not };
    if let Ok(bytes) = serde_json::to_vec(&probed) {
        write_whole(&layout.probed(), &bytes, Sync::Later)?;
    }
    drop(lock);
    Ok(probed)
}

/// What was found in this boot.
fn noted(layout: &Layout) -> Option<Probed> {
    let noted: Probed = serde_json::from_slice(&fs::read(layout.probed()).ok()?).ok()?;
    (!noted.boot_id.is_empty() && noted.boot_id == boot_id()).then_some(noted)
}

/// Says why image files cannot be used, if they cannot.
fn try_out(layout: &Layout) -> Result<Option<String>, StoreError> {
    let place = Place::new(layout.image_mounts().join(PLACE))?;
    let (image, hidden) = (place.0.join("image"), place.0.join("d/hidden"));
    write_image(&image).map_err(|source| StoreError::io("write", &image, source))?;
    fs::write(&hidden, b"").map_err(|source| StoreError::io("write", &hidden, source))?;
    Ok(use_image(&place, &image).err())
}

fn use_image(place: &Place, image: &Path) -> Result<(), String> {
    let said = |error: StoreError| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    image_mounts::mount(image, &place.0.join("m")).map_err(said)?;
    let read =
        |path: &str| fs::read(place.0.join(path)).map_err(|error| format!("an image file cannot be read: {error}"));
    if read("m/file")? != CONTENT {
        return Err("an image file shows other content than it holds".to_owned());
    }
    // A whiteout of the image hides a file of the directory below it.
    overlay(place, ["m", "d"], "o").map_err(|error| format!("an overlay on an image file fails: {}", said(error)))?;
    if read("o/file")? != CONTENT || place.0.join("o/hidden").exists() {
        return Err("an overlay on an image file does not hide what it should".to_owned());
    }
    // As a container engine in a container does.
    overlay(place, ["o", "d"], "p")
        .map_err(|error| format!("an overlay on an overlay on an image file fails: {}", said(error)))?;
    if read("p/file")? != CONTENT {
        return Err("an overlay on an overlay on an image file shows other content".to_owned());
    }
    Ok(())
}

const CONTENT: &[u8] = b"windlass\n";

fn write_image(path: &Path) -> io::Result<()> {
    let mut tree = Tree::new(1 << 20);
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let file = tree.insert(tree.root(), b"file", New::File, &attributes).map_err(io::Error::other)?;
    let content = Content { offset: DATA_START, size_bytes: CONTENT.len() as u64 };
    tree.set_content(file, content).map_err(io::Error::other)?;
    tree.insert(tree.root(), b"hidden", New::Device(Device::WHITEOUT), &attributes).map_err(io::Error::other)?;
    let tar_bytes = windlass_erofs::BLOCK_BYTES;
    let mut out = File::create_new(path)?;
    out.write_all(&[0; DATA_START as usize])?;
    out.write_all(CONTENT)?;
    let at_bytes = DATA_START + tar_bytes;
    out.set_len(at_bytes)?;
    out.seek(io::SeekFrom::Start(at_bytes))?;
    let layer = Layer { tar_bytes, tar_digest: "none", between_crc32c: 0, uuid: [0; 16] };
    let written = windlass_erofs::write(&tree, &layer, at_bytes, &mut out).map_err(|why| match why {
        WriteError::Io(source) => source,
        other => io::Error::other(other),
    })?;
    out.write_all_at(&written.front[..], 0)
}

fn overlay(place: &Place, lowers: [&str; 2], target: &str) -> Result<(), StoreError> {
    let lowers = lowers.map(|name| place.0.join(name));
    mount_overlay(&lowers, &place.0.join(target), SetUserId::Ignored)
}

/// Its name. Whoever tries holds the lock, so what stands there was left by one that was killed.
const PLACE: &str = "probe";

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
        // What cannot be removed is tried again by the next probe.
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}
