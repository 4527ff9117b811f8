//! Mounting an image's root file system: a read-only overlay of its layers.
//!
//! The layers are given to the kernel one by one (`lowerdir+`, Linux 6.5), so 500 of them work; an older kernel gets
//! one string, which must fit in a page. An overlay without an upper layer wants two lower ones, so an image of a
//! single layer gets an empty directory below it.
//! A mount is noted in `meta/mounts` before it is made: removal and collection see the image as in use until it is
//! unmounted or the machine is started again.
//!
//! Invariants: `a_mounted_image_is_in_use`, `five_hundred_layers_mount`, `an_ordinary_user_keeps_a_store_and_cannot_mount`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::image::Image;
use crate::image_mounts::ImageMounts;
use crate::intent::sweep_lock;
use crate::layout::{Sync, make_dir, write_whole};
use crate::lock::{Share, boot_id};
use crate::meta::record::SnapshotRecord;
use crate::recover::entries;
use crate::snapshots::need;
use crate::snapshots::record::RuntimeRecord;
use crate::store::Store;

/// What stands as the device in the kernel's list of mounts.
const DEVICE: &str = "windlass";
/// Most bytes of options that the old mount call takes: a page less its end.
const OPTIONS_MAX_BYTES: usize = 4095;
const NOT_PERMITTED: &str = "mount (an ordinary user can write the image's files with `windlass unpack`)";

/// Whether set-user-ID bits count in a mounted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SetUserId {
    /// They do.
    #[default]
    Honoured,
    /// They do not (`nosuid`).
    Ignored,
}

/// A note that an image is mounted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MountNote {
    image: Digest,
    target: PathBuf,
    boot_id: String,
    /// The mount namespace, as `/proc/self/ns/mnt` names it.
    namespace: PathBuf,
}

impl Store {
    /// Mounts the image that `text` names, read-only, at an existing directory. Device files in it do not work.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`], [`StoreError::Damaged`], [`StoreError::NotPermitted`] without the right to mount.
    pub fn mount(&self, text: &str, target: &Path, set_user_id: SetUserId) -> Result<Image, StoreError> {
        self.meta()?;
        let target = target.canonicalize().map_err(|source| StoreError::io("find", target, source))?;
        let sweep = sweep_lock(self.layout(), Share::Shared)?;
        let image = self.whole(text)?;
        let layers = self.layers(&image)?;
        let note = self.note_mount(&image.id, &target)?;
        let mounted = self.mount_layers(&layers, &target, set_user_id);
        drop(sweep);
        if mounted.is_err() {
            drop(fs::remove_file(note));
            // Nobody needs what was mounted for it.
            drop(self.unmount_unused());
        }
        mounted.map(|()| image)
    }

    fn mount_layers(
        &self,
        layers: &[(Digest, SnapshotRecord)],
        target: &Path,
        set_user_id: SetUserId,
    ) -> Result<(), StoreError> {
        // Held until the overlay needs them, too.
        let mounts = ImageMounts::lock(self.layout())?;
        let mut lowers = mounts.directories(layers)?;
        let empty = self.layout().root().join("meta/empty");
        make_dir(&empty)?;
        for name in ["a", "b"].iter().skip(lowers.len().min(2)) {
            make_dir(&empty.join(name))?;
            lowers.push(empty.join(name));
        }
        mount_overlay(&lowers, target, set_user_id)
    }

    /// Unmounts image files of layers that no mounted image and no container needs any more, and gives the page cache of the others back.
    ///
    /// # Errors
    /// I/O errors; [`StoreError::Locked`].
    pub(crate) fn unmount_unused(&self) -> Result<usize, StoreError> {
        if !self.layout().image_mounts().exists() {
            return Ok(0);
        }
        let mounts = ImageMounts::lock(self.layout())?;
        let mut needed = BTreeSet::new();
        for (_, note) in self.mount_notes()?.into_iter().filter(|(_, note)| is_live(note)) {
            let Some(image) = self.find_id(&note.image)? else { continue };
            // A layer whose record is lost has no place to be found at.
            for (chain, record) in self.layers(&image).unwrap_or_default() {
                needed.insert(mounts.place(record.n, &chain));
            }
        }
        for (chain, record) in self.layers_in_use()? {
            needed.insert(mounts.place(record.n, &chain));
        }
        let gone = mounts.keep_only(&needed)?;
        mounts.give_back()?;
        Ok(gone)
    }

    /// Layers under active snapshots and views of a container runtime.
    fn layers_in_use(&self) -> Result<Vec<(Digest, SnapshotRecord)>, StoreError> {
        self.read(|tx| {
            let mut layers = Vec::new();
            for chain in need::used_chains(&tx.all::<RuntimeRecord>()?).into_keys() {
                if let Some(record) = tx.get::<SnapshotRecord>(chain.as_str())? {
                    layers.push((chain, record));
                }
            }
            Ok(layers)
        })
    }

    /// Unmounts what [`Store::mount`] mounted at a directory.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`] when nothing of this store is mounted there, [`StoreError::NotPermitted`], and
    /// [`StoreError::Io`] when it is busy.
    pub fn unmount(&self, target: &Path) -> Result<(), StoreError> {
        let target = target.canonicalize().map_err(|source| StoreError::io("find", target, source))?;
        let notes = self.mount_notes()?;
        let Some((path, _)) = notes.iter().find(|(_, note)| note.target == target && is_live(note)) else {
            return Err(StoreError::UnknownImage { name: format!("mounted at {}", target.display()) });
        };
        rustix::mount::unmount(&target, UnmountFlags::NOFOLLOW).map_err(|errno| match errno {
            Errno::PERM => StoreError::NotPermitted { action: "unmount", source: errno.into() },
            errno => StoreError::io("unmount", &target, errno),
        })?;
        fs::remove_file(path).map_err(|source| StoreError::io("remove", path, source))?;
        self.unmount_unused().map(drop)
    }

    /// Where an image is mounted.
    ///
    /// # Errors
    /// The notes of mounts cannot be read.
    pub fn mounted_at(&self, image: &Digest) -> Result<Vec<PathBuf>, StoreError> {
        let notes = self.mount_notes()?.into_iter().map(|(_, note)| note);
        Ok(notes.filter(|note| note.image == *image && is_live(note)).map(|note| note.target).collect())
    }

    /// Every mounted image, with one of the places.
    ///
    /// # Errors
    /// The notes of mounts cannot be read.
    pub(crate) fn mounted(&self) -> Result<BTreeMap<Digest, PathBuf>, StoreError> {
        let notes = self.mount_notes()?.into_iter().map(|(_, note)| note);
        Ok(notes.filter(is_live).map(|note| (note.image, note.target)).collect())
    }

    /// An image's layers by chain ID, topmost first.
    pub(crate) fn layers(&self, image: &Image) -> Result<Vec<(Digest, SnapshotRecord)>, StoreError> {
        self.read(|tx| {
            let mut layers = Vec::with_capacity(image.layers.len());
            for layer in image.layers.iter().rev() {
                let record = tx.get::<SnapshotRecord>(layer.chain_id.as_str())?;
                let missing = || StoreError::Incomplete { part: "layer", digest: layer.chain_id.clone() };
                layers.push((layer.chain_id.clone(), record.ok_or_else(missing)?));
            }
            Ok(layers)
        })
    }

    fn note_mount(&self, image: &Digest, target: &Path) -> Result<PathBuf, StoreError> {
        let dir = self.layout().mounts();
        make_dir(&dir)?;
        let note = MountNote {
            image: image.clone(),
            target: target.to_owned(),
            boot_id: boot_id().to_owned(),
            namespace: namespace(),
        };
        let path = dir.join(Digest::sha256(target.as_os_str().as_bytes()).hex());
        let bytes =
            serde_json::to_vec(&note).map_err(|source| StoreError::PullRecord { path: path.clone(), source })?;
        write_whole(&path, &bytes, Sync::Later)?;
        Ok(path)
    }

    fn mount_notes(&self) -> Result<Vec<(PathBuf, MountNote)>, StoreError> {
        let dir = self.layout().mounts();
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let notes = entries(&dir)?.into_iter().filter_map(|(_, path)| {
            // One that cannot be read is half a note of a process that died before it mounted.
            let note = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            Some((path, note))
        });
        Ok(notes.collect())
    }
}

/// Whether what a note says is still so. In another mount namespace one cannot look, so it counts.
fn is_live(note: &MountNote) -> bool {
    note.boot_id == boot_id() && (note.namespace != namespace() || is_mounted(&note.target))
}

fn namespace() -> PathBuf {
    fs::read_link("/proc/self/ns/mnt").unwrap_or_default()
}

fn is_mounted(target: &Path) -> bool {
    let Ok(text) = fs::read("/proc/self/mountinfo") else { return true };
    text.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let at = fields.nth(4).is_some_and(|at| unescape(at) == target.as_os_str().as_bytes());
        // Optional fields end with a lone dash; file system type and device follow.
        at && fields.skip_while(|field| *field != b"-").nth(2) == Some(DEVICE.as_bytes())
    })
}

/// Where something is mounted in this namespace.
///
/// # Errors
/// The kernel's list cannot be read.
pub(crate) fn mount_points() -> Result<BTreeSet<PathBuf>, StoreError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read(path).map_err(|source| StoreError::io("read", path, source))?;
    let fields = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(fields.map(|field| PathBuf::from(OsString::from_vec(unescape(field)))).collect())
}

/// Undoes the kernel's `\040` for blanks, tabs, line ends and backslashes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

pub(crate) fn mount_overlay(lowers: &[PathBuf], target: &Path, set_user_id: SetUserId) -> Result<(), StoreError> {
    let failed = |errno: Errno| match errno {
        Errno::PERM | Errno::ACCESS => StoreError::NotPermitted { action: NOT_PERMITTED, source: errno.into() },
        errno => StoreError::io("mount at", target, errno),
    };
    match configured(lowers) {
        Ok(context) => attach(&context, target, set_user_id).map_err(failed)?,
        // No such call before 5.2, no such option before 6.5.
        Err(Errno::NOSYS | Errno::INVAL) => mount_by_string(lowers, target, set_user_id)?,
        Err(errno) => return Err(failed(errno)),
    }
    rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE).map_err(failed)
}

fn configured(lowers: &[PathBuf]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", DEVICE)?;
    for lower in lowers {
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
    }
    rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(context)
}

fn attach(context: &OwnedFd, target: &Path, set_user_id: SetUserId) -> Result<(), Errno> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    if set_user_id == SetUserId::Ignored {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
    }
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let at = rustix::fs::open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", at.as_fd(), "", flags)
}

fn mount_by_string(lowers: &[PathBuf], target: &Path, set_user_id: SetUserId) -> Result<(), StoreError> {
    let options = lower_option(lowers);
    if options.len() > OPTIONS_MAX_BYTES {
        let source = io::Error::other("this kernel (before 6.5) takes fewer layers, or shorter paths of the store");
        return Err(StoreError::Io { action: "mount at", path: target.to_owned(), source });
    }
    let options = std::ffi::CString::new(options).map_err(|source| StoreError::io("mount at", target, source))?;
    let mut flags = MountFlags::RDONLY | MountFlags::NODEV;
    if set_user_id == SetUserId::Ignored {
        flags |= MountFlags::NOSUID;
    }
    rustix::mount::mount(DEVICE, target, "overlay", flags, options.as_c_str()).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => StoreError::NotPermitted { action: NOT_PERMITTED, source: errno.into() },
        errno => StoreError::io("mount at", target, errno),
    })
}

/// `lowerdir=` with colons and backslashes of the paths escaped.
fn lower_option(lowers: &[PathBuf]) -> Vec<u8> {
    let mut option = b"lowerdir=".to_vec();
    for (at, lower) in lowers.iter().enumerate() {
        if at > 0 {
            option.push(b':');
        }
        for byte in lower.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\' | b',') {
                option.push(b'\\');
            }
            option.push(*byte);
        }
    }
    option
}
