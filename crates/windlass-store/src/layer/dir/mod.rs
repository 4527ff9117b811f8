//! The directory form: one tree of files per layer, ready to be a lower layer of overlayfs.
//!
//! Everything happens by a directory's descriptor and one name. A file costs four system calls as root: create, write,
//! times, close; owner and mode only where creating did not already give them. What the process's umask is shows on
//! the stage itself, so it is never changed (it belongs to the whole process).
//!
//! Invariants: `modes_are_exact_whatever_the_umask`; `times_of_directories_survive_their_children`.

pub(crate) mod chain;
pub mod marks;
pub(crate) mod meta;
mod remove;
pub(crate) mod resolve;
pub(crate) mod settled;
mod special;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{Advice, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid, XattrFlags};
use rustix::io::Errno;

pub use remove::remove_tree;

use self::marks::Form;
use self::meta::times;
use super::error::{Doing, Failed, RESOLVE};
use super::rules::{Device, Meta};
use super::tree::{Found, Made, Source, Tree};

/// Files of at least this size are sent to the disk as soon as they are complete, so that the sync at the end of the
/// pull finds little to do; for smaller ones the call costs more than it gains.
const WRITE_BACK_FROM_BYTES: u64 = 256 << 10;

/// A directory of the layer, open.
#[derive(Debug)]
pub struct DirNode {
    fd: OwnedFd,
    path: Vec<u8>,
    hides_below: bool,
}

/// A file being written.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    size_bytes: u64,
    ends_in_hole: bool,
}

/// Writes a layer as a tree of files.
#[derive(Debug)]
pub struct DirTree {
    root: Rc<DirNode>,
    form: Form,
    owner: (u32, u32),
    umask: u32,
    /// Whether the layers below are consulted, so that opaque marks matter while extracting.
    stacked: bool,
    lost_xattrs: bool,
}

impl DirTree {
    /// Makes the directory `name`, which must not exist, and starts a tree there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(stage: BorrowedFd<'_>, name: &str, form: Form, stacked: bool) -> Result<DirTree, Failed> {
        rustix::fs::mkdirat(stage, name, Mode::from_raw_mode(0o777)).doing("create")?;
        let fd = resolve::open_directory(stage, name.as_bytes(), OFlags::RDONLY).doing(RESOLVE)?;
        let stat = rustix::fs::fstat(&fd).doing("look at")?;
        // What the stage would hand down to every file: a default ACL, a set group bit.
        for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
            match rustix::fs::fremovexattr(&fd, acl) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(errno) => return Err(Failed { action: "remove the ACL of", errno }),
            }
        }
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if form == Form::Root {
            rustix::fs::fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT)).doing("change the owner of")?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).doing("change the mode of")?;
        let root = Rc::new(DirNode { fd, path: Vec::new(), hides_below: false });
        Ok(DirTree { root, form, owner, umask: 0o777 & !stat.st_mode, stacked, lost_xattrs: false })
    }

    /// Whether extended attributes were left out because the file system or the user's rights do not allow them.
    pub fn lost_xattrs(&self) -> bool {
        self.lost_xattrs
    }

    fn file_mode(&self, meta: &Meta) -> u32 {
        match self.form {
            Form::Root => meta.mode,
            // Readable and writable for whoever keeps the store; no setuid of a stranger's choice.
            Form::User => meta.mode & 0o777 | 0o600,
        }
    }

    fn directory_mode(&self, meta: &Meta) -> u32 {
        match self.form {
            Form::Root => meta.mode,
            Form::User => meta.mode & 0o777 | 0o700,
        }
    }

    fn owns(&self, meta: &Meta) -> bool {
        self.form == Form::User || self.owner == (meta.uid, meta.gid)
    }

    fn chown_at(&self, dir: &DirNode, name: &[u8], meta: &Meta) -> Result<(), Failed> {
        if self.owns(meta) {
            return Ok(());
        }
        let (uid, gid) = ids(meta);
        rustix::fs::chownat(&dir.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).doing("change the owner of")
    }

    /// Sets the extended attributes that this form keeps on disk; says whether an ACL was among them.
    fn set_xattrs(&mut self, fd: BorrowedFd<'_>, meta: &Meta, default_acl: bool) -> Result<bool, Failed> {
        let mut acl = false;
        for (name, value) in &meta.xattrs {
            if (name == b"system.posix_acl_default") != default_acl {
                continue;
            }
            if self.form == Form::User && !name.starts_with(b"user.") {
                self.lost_xattrs = true;
                continue;
            }
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => acl |= name.starts_with(b"system."),
                // Without its capabilities a program is another program; other attributes may be missing.
                Err(Errno::NOTSUP) if name != b"security.capability" => self.lost_xattrs = true,
                Err(errno) => return Err(Failed { action: "set an extended attribute of", errno }),
            }
        }
        Ok(acl)
    }

    /// Removes the attributes that an earlier entry of the same directory had set.
    fn clear_xattrs(&self, fd: BorrowedFd<'_>) -> Result<(), Failed> {
        let mut names = vec![0u8; 64 << 10];
        let length = match rustix::fs::flistxattr(fd, &mut names) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(()),
            Err(errno) => return Err(Failed { action: "list the extended attributes of", errno }),
        };
        for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
            let ours = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if ours || name == b"security.capability" || name.starts_with(b"system.posix_acl_") {
                rustix::fs::fremovexattr(fd, name).doing("remove an extended attribute of")?;
            }
        }
        Ok(())
    }
}

fn ids(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

fn made<T>(result: Result<T, Errno>, action: &'static str) -> Result<Made<T>, Failed> {
    match result {
        Ok(value) => Ok(Made::New(value)),
        Err(Errno::EXIST) => Ok(Made::Taken),
        Err(errno) => Err(Failed { action, errno }),
    }
}

impl Tree for DirTree {
    type Dir = Rc<DirNode>;
    type File = OpenFile;

    fn root(&self) -> Rc<DirNode> {
        Rc::clone(&self.root)
    }

    fn path<'d>(&self, dir: &'d Rc<DirNode>) -> &'d [u8] {
        &dir.path
    }

    fn memory_bytes(&self) -> u64 {
        // Everything is on disk; what is open is bounded by the limits.
        0
    }

    fn hides_below(&self, dir: &Rc<DirNode>) -> bool {
        dir.hides_below
    }

    fn find(&mut self, dir: &Rc<DirNode>, name: &[u8]) -> Result<Found<Rc<DirNode>>, Failed> {
        match resolve::open_directory(dir.fd.as_fd(), name, OFlags::PATH) {
            Ok(fd) => {
                let mut path = Vec::with_capacity(dir.path.len() + 1 + name.len());
                path.extend_from_slice(&dir.path);
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                let hides_below = dir.hides_below
                    || self.stacked && marks::is_opaque(resolve::reopen(&fd)?.as_fd(), self.form).doing("look at")?;
                return Ok(Found::Directory(Rc::new(DirNode { fd, path, hides_below })));
            }
            // A name that is too long comes from a link's text; whoever wants to create it hears of the limit.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(Found::Absent),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(Failed { action: RESOLVE, errno }),
        }
        let stat = rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).doing("look at")?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let text = rustix::fs::readlinkat(&dir.fd, name, Vec::new()).doing("read the link")?;
            return Ok(Found::Symlink(text.into_bytes()));
        }
        let whiteout = marks::is_whiteout(dir.fd.as_fd(), name, &stat, self.form).doing("look at")?;
        Ok(if whiteout { Found::Whiteout } else { Found::Other })
    }

    fn make_directory(&mut self, dir: &Rc<DirNode>, name: &[u8], meta: &Meta) -> Result<Made<()>, Failed> {
        let mode = Mode::from_raw_mode(self.directory_mode(meta) & 0o1777);
        if let Made::Taken = made(rustix::fs::mkdirat(&dir.fd, name, mode), "create")? {
            return Ok(Made::Taken);
        }
        self.chown_at(dir, name, meta)?;
        if !meta.xattrs.is_empty() {
            let fd = resolve::open_directory(dir.fd.as_fd(), name, OFlags::RDONLY).doing(RESOLVE)?;
            self.set_xattrs(fd.as_fd(), meta, false)?;
        }
        Ok(Made::New(()))
    }

    fn update_directory(&mut self, dir: &Rc<DirNode>, meta: &Meta) -> Result<(), Failed> {
        let fd = resolve::reopen(&dir.fd)?;
        if self.form == Form::Root {
            let (uid, gid) = ids(meta);
            rustix::fs::fchown(&fd, uid, gid).doing("change the owner of")?;
        }
        self.clear_xattrs(fd.as_fd())?;
        self.set_xattrs(fd.as_fd(), meta, false)?;
        // The set-group bit waits for the children, which would take it over.
        let mode = self.directory_mode(meta) & 0o5777;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).doing("change the mode of")
    }

    fn finish_directory(&mut self, dir: &Rc<DirNode>, name: &[u8], meta: &Meta) -> Result<(), Failed> {
        let name = if name.is_empty() { b"." } else { name };
        let mode = self.directory_mode(meta);
        let acls = meta.xattrs.iter().any(|(name, _)| name.starts_with(b"system."));
        if mode & (self.umask | 0o6000) != 0 || acls {
            let fd = resolve::open_directory(dir.fd.as_fd(), name, OFlags::RDONLY).doing(RESOLVE)?;
            self.set_xattrs(fd.as_fd(), meta, true)?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).doing("change the mode of")?;
        }
        rustix::fs::utimensat(&dir.fd, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW).doing("set the times of")
    }

    fn make_file(
        &mut self,
        dir: &Rc<DirNode>,
        name: &[u8],
        meta: &Meta,
        size_bytes: u64,
    ) -> Result<Made<OpenFile>, Failed> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.file_mode(meta) & 0o777);
        Ok(match made(rustix::fs::openat(&dir.fd, name, flags, mode), "create")? {
            Made::New(fd) => Made::New(OpenFile { fd, size_bytes, ends_in_hole: false }),
            Made::Taken => Made::Taken,
        })
    }

    fn write(&mut self, file: &mut OpenFile, bytes: &[u8], _: Source) -> Result<(), Failed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&file.fd, rest) {
                Ok(0) => return Err(Failed { action: "write", errno: Errno::NOSPC }),
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failed { action: "write", errno }),
            }
        }
        file.ends_in_hole = false;
        Ok(())
    }

    fn hole(&mut self, file: &mut OpenFile, bytes: u64) -> Result<(), Failed> {
        let bytes = i64::try_from(bytes).map_err(|_| Failed { action: "write", errno: Errno::FBIG })?;
        rustix::fs::seek(&file.fd, SeekFrom::Current(bytes)).doing("write")?;
        file.ends_in_hole = true;
        Ok(())
    }

    fn close(&mut self, file: OpenFile, meta: &Meta) -> Result<(), Failed> {
        if file.ends_in_hole {
            rustix::fs::ftruncate(&file.fd, file.size_bytes).doing("write")?;
        }
        let owns = self.owns(meta);
        if !owns {
            let (uid, gid) = ids(meta);
            rustix::fs::fchown(&file.fd, uid, gid).doing("change the owner of")?;
        }
        let acl = !meta.xattrs.is_empty() && self.set_xattrs(file.fd.as_fd(), meta, false)?;
        let mode = self.file_mode(meta);
        if acl || mode & (self.umask | 0o7000) != 0 {
            rustix::fs::fchmod(&file.fd, Mode::from_raw_mode(mode)).doing("change the mode of")?;
        }
        rustix::fs::futimens(&file.fd, &times(meta)).doing("set the times of")?;
        if file.size_bytes >= WRITE_BACK_FROM_BYTES {
            // Starts the write-back; a refusal costs time, not correctness.
            let _ = rustix::fs::fadvise(&file.fd, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    fn make_symlink(&mut self, dir: &Rc<DirNode>, name: &[u8], target: &[u8], meta: &Meta) -> Result<Made<()>, Failed> {
        if let Made::Taken = made(rustix::fs::symlinkat(target, &dir.fd, name), "create")? {
            return Ok(Made::Taken);
        }
        self.chown_at(dir, name, meta)?;
        self.lost_xattrs |= !meta.xattrs.is_empty();
        rustix::fs::utimensat(&dir.fd, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW).doing("set the times of")?;
        Ok(Made::New(()))
    }

    fn make_special(
        &mut self,
        dir: &Rc<DirNode>,
        name: &[u8],
        device: Option<Device>,
        meta: &Meta,
    ) -> Result<Made<()>, Failed> {
        if let Made::Taken =
            made(special::make(dir.fd.as_fd(), name, device, self.file_mode(meta), self.form), "create")?
        {
            return Ok(Made::Taken);
        }
        self.chown_at(dir, name, meta)?;
        self.lost_xattrs |= !meta.xattrs.is_empty();
        let mode = self.file_mode(meta);
        if mode & (self.umask | 0o7000) != 0 {
            // No link can stand here: the name was made just now, in a directory nobody else can enter.
            rustix::fs::chmodat(&dir.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .doing("change the mode of")?;
        }
        rustix::fs::utimensat(&dir.fd, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW).doing("set the times of")?;
        Ok(Made::New(()))
    }

    fn make_link(
        &mut self,
        dir: &Rc<DirNode>,
        name: &[u8],
        target_dir: &Rc<DirNode>,
        target_name: &[u8],
    ) -> Result<Made<()>, Failed> {
        made(rustix::fs::linkat(&target_dir.fd, target_name, &dir.fd, name, AtFlags::empty()), "link")
    }

    fn make_whiteout(&mut self, dir: &Rc<DirNode>, name: &[u8]) -> Result<Made<()>, Failed> {
        made(marks::make_whiteout(dir.fd.as_fd(), name, self.form), "create the whiteout")
    }

    fn make_opaque(&mut self, dir: &Rc<DirNode>) -> Result<(), Failed> {
        let fd = resolve::reopen(&dir.fd)?;
        marks::set_opaque(fd.as_fd(), self.form).doing("mark as opaque")
    }

    fn remove(&mut self, dir: &Rc<DirNode>, name: &[u8]) -> Result<(), Failed> {
        remove_tree(dir.fd.as_fd(), name).doing("remove")
    }
}
