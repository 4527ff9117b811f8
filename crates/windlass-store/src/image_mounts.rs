//! Image files of layers, mounted for those who put an overlay on top.
//!
//! Each is mounted once for the whole node, at `<root>/e/<n>-<chain>`, whoever needs it and how often: read-only,
//! private, without devices and set-user-ID (the overlay on top decides about those). The kernel reads the file itself,
//! no loop device is made. A mount outlives its process; it goes when nothing that is mounted needs it any more, and
//! with its layer. One lock per store keeps those who mount and those who unmount apart.
//!
//! Invariants: `layers_are_mounted_once_and_unmounted_with_their_last_user`,
//! `a_collection_gives_the_page_cache_of_mounted_layers_back`.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use windlass_core::digest::Digest;

use crate::error::StoreError;
use crate::layers;
use crate::layout::{Layout, make_dir};
use crate::lock::{Lock, Share};
use crate::meta::record::{Form, SnapshotRecord};
use crate::mount::mount_points;
use crate::recover::entries;

/// How long to wait for another process that mounts or unmounts: milliseconds for hundreds of layers.
const WAIT: Duration = Duration::from_secs(30);

/// Digits of the chain ID in a path: it tells a mount of today from one of a layer that had the number before.
const CHAIN_DIGITS: usize = 16;

/// The right to change what is mounted in `e/`.
#[derive(Debug)]
pub(crate) struct ImageMounts<'a> {
    layout: &'a Layout,
    /// `e/` as the kernel names it: the root may have been named over links.
    dir: PathBuf,
    _lock: Lock,
}

impl<'a> ImageMounts<'a> {
    /// Waits for others.
    ///
    /// # Errors
    /// [`StoreError::Locked`], I/O errors.
    pub(crate) fn lock(layout: &'a Layout) -> Result<ImageMounts<'a>, StoreError> {
        let dir = layout.image_mounts();
        make_dir(&dir)?;
        let dir = dir.canonicalize().map_err(|source| StoreError::io("find", &dir, source))?;
        let lock = Lock::wait(&layout.image_mounts_lock(), Share::Alone, Instant::now() + WAIT)?;
        let lock = lock.ok_or_else(|| StoreError::Locked { root: layout.root().to_owned(), holder: None })?;
        Ok(ImageMounts { layout, dir, _lock: lock })
    }

    /// Where a layer is mounted.
    pub(crate) fn place(&self, n: u64, chain: &Digest) -> PathBuf {
        self.dir.join(name(n, chain))
    }

    /// The directories of layers, in the order given, those of image files mounted.
    ///
    /// # Errors
    /// [`StoreError::NotPermitted`], I/O errors.
    pub(crate) fn directories(&self, layers: &[(Digest, SnapshotRecord)]) -> Result<Vec<PathBuf>, StoreError> {
        let directory = |(chain, record): &(Digest, SnapshotRecord)| {
            let content = layers::content(&self.layout.snapshot(record.n), record.form);
            match record.form {
                Form::Directory | Form::UserDirectory => Ok(content),
                Form::Erofs => {
                    let target = self.place(record.n, chain);
                    if !is_mounted(&target) {
                        make_dir(&target)?;
                        mount(&content, &target)?;
                    }
                    Ok(target)
                }
            }
        };
        layers.iter().map(directory).collect()
    }

    /// Gives the page cache of mounted image files back. What is read through a mount is kept for the mount; that the file
    /// behind it is kept, too, serves nobody. Only what is on disk can be given back, and a refusal harms nothing.
    ///
    /// # Errors
    /// The directory of mounts cannot be read.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        for (name, _) in entries(&self.dir)? {
            let Some(n) = name.split_once('-').and_then(|(n, _)| n.parse().ok()) else { continue };
            let image = layers::content(&self.layout.snapshot(n), Form::Erofs);
            if let Ok(image) = fs::File::open(&image) {
                let _ = rustix::fs::fadvise(&image, 0, None, Advice::DontNeed);
            }
        }
        Ok(())
    }

    /// Unmounts every layer that is not among `needed`; says how many. One that is still busy stays.
    ///
    /// # Errors
    /// The directory of mounts cannot be read.
    pub(crate) fn keep_only(&self, needed: &BTreeSet<PathBuf>) -> Result<usize, StoreError> {
        let mut gone = 0;
        let found = entries(&self.dir)?;
        if found.is_empty() {
            return Ok(gone);
        }
        let mounted = mount_points()?;
        for (_, path) in found.into_iter().filter(|(_, path)| !needed.contains(path)) {
            if mounted.contains(&path) {
                match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW) {
                    Ok(()) => gone += 1,
                    Err(errno) => {
                        tracing::debug!(path = %path.display(), %errno, "layer stays mounted");
                        continue;
                    }
                }
            }
            // Somebody else's mount in another namespace keeps it busy: then it stays.
            drop(fs::remove_dir(&path));
        }
        Ok(gone)
    }
}

/// Where a layer is mounted, below the root as `layout` names it.
pub(crate) fn place(layout: &Layout, n: u64, chain: &Digest) -> PathBuf {
    layout.image_mounts().join(name(n, chain))
}

/// Whether all of these layers that are image files are mounted. Without the lock: so it stays for as long as somebody
/// needs them.
pub(crate) fn are_mounted(layout: &Layout, layers: &[(Digest, SnapshotRecord)]) -> bool {
    let is_there = |(chain, record): &(Digest, SnapshotRecord)| match record.form {
        Form::Directory | Form::UserDirectory => true,
        Form::Erofs => is_mounted(&place(layout, record.n, chain)),
    };
    layers.iter().all(is_there)
}

/// Asked of the directory itself: the kernel's list of mounts is long where many containers run.
fn is_mounted(target: &Path) -> bool {
    rustix::fs::statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn name(n: u64, chain: &Digest) -> String {
    let hex = chain.hex();
    format!("{n}-{}", &hex[..hex.len().min(CHAIN_DIGITS)])
}

/// Takes a layer's mount away before the layer goes, whoever still looks at it.
pub(crate) fn detach(layout: &Layout, n: u64, chain: &Digest) {
    let path = place(layout, n, chain);
    if rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).is_ok() || path.exists() {
        drop(fs::remove_dir(&path));
    }
}

/// Mounts an image file.
///
/// # Errors
/// [`StoreError::NotPermitted`]; what the kernel says, `ENOTBLK` for a file on a file system that it cannot read from.
pub(crate) fn mount(image: &Path, target: &Path) -> Result<(), StoreError> {
    attach(image, target).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => {
            StoreError::NotPermitted { action: "mount the layer's image file", source: errno.into() }
        }
        errno => StoreError::io("mount", image, errno),
    })
}

fn attach(image: &Path, target: &Path) -> Result<(), Errno> {
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", image)?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let at =
        rustix::fs::open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", at.as_fd(), "", flags)?;
    rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE)
}
