//! Puts a layer right that was unpacked without the layers below, once those are there.
//!
//! | noted | the layers below have | then |
//! | --- | --- | --- |
//! | a directory without an entry | a directory | it takes its owner, mode, times and attributes, as overlayfs's copy-up does |
//! | | a link | extract again with them: what lies below it belongs elsewhere |
//! | | something else or nothing | it stays as it is; only for whiteouts: it goes |
//! | a whiteout | that name | it stays |
//! | | nothing of that name | it goes: overlayfs would list it in a directory that is not merged |
//! | an opaque root | names | each gets a whiteout, or an opaque mark: overlayfs has no opaque root |
//!
//! Settling twice changes nothing the second time.
//!
//! Invariants: `any_stack_equals_layers_applied_one_after_the_other`; `a_settled_layer_has_no_whiteouts_that_show`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::below::{Below, Lower, Merged};
use super::copy_up;
use super::dir::marks::{self, Form};
use super::dir::resolve;
use super::error::{Doing, Failed, LayerError};
use super::limits::LayerLimits;
use super::needs::{Implicit, Needs};
use super::rules::{Rules, components, split};
use super::{Settled, TREE};

/// Owner, mode, times, the bits that matter.
const MODE: u32 = 0o7777;

/// See [`super::settle`].
pub(super) fn settle(
    stage: BorrowedFd<'_>,
    needs: &Needs,
    lowers: &[BorrowedFd<'_>],
    form: Form,
) -> Result<Settled, LayerError> {
    if needs.redo {
        return Ok(Settled::Redo);
    }
    let below = Below::new(lowers, form).map_err(Failed::at_stage)?;
    let root =
        resolve::open_directory(stage, TREE.as_bytes(), OFlags::RDONLY).doing("open").map_err(Failed::at_stage)?;
    let limits = LayerLimits::default();
    let mut layer = Layer {
        root: root.as_fd(),
        below,
        form,
        rules: Rules { limits: &limits, integrity_xattrs: true },
        root_opaque: false,
    };
    layer.settle(needs)
}

struct Layer<'a> {
    root: BorrowedFd<'a>,
    below: Below,
    form: Form,
    rules: Rules<'a>,
    root_opaque: bool,
}

impl Layer<'_> {
    fn settle(&mut self, needs: &Needs) -> Result<Settled, LayerError> {
        if needs.root_opaque {
            self.root_opaque = true;
            self.hide_root().map_err(|failed| failed.at(b"/"))?;
        }
        for (path, implicit) in &needs.implicit {
            if !implicit.cut && self.is_link_below(path).map_err(|failed| failed.at(path))? {
                return Ok(Settled::Redo);
            }
        }
        for path in &needs.whiteouts {
            self.whiteout(path).map_err(|failed| failed.at(path))?;
        }
        // Deepest first, so that a directory made for whiteouts only is empty when its turn comes.
        for (path, implicit) in needs.implicit.iter().rev() {
            self.implicit(path, *implicit).map_err(|failed| failed.at(path))?;
        }
        Ok(Settled::Done)
    }

    /// What the layers below show at a path of this layer: nothing where this layer hides it.
    fn lower(&mut self, path: &[u8]) -> Result<Lower, Failed> {
        let parent = split(path).0;
        let mut dir = resolve::reopen(self.root)?;
        for name in components(parent) {
            dir = match resolve::open_directory(dir.as_fd(), name, OFlags::RDONLY) {
                Ok(dir) => dir,
                // Removed again while unpacking.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Lower::Absent),
                Err(errno) => return Err(Failed { action: "open", errno }),
            };
            if marks::is_opaque(dir.as_fd(), self.form).doing("look at")? {
                return Ok(Lower::Absent);
            }
        }
        self.below.find(path)
    }

    /// The same, where the names themselves are gone with an opaque root.
    fn lower_unless_hidden(&mut self, path: &[u8]) -> Result<Lower, Failed> {
        if self.root_opaque && !path.is_empty() { Ok(Lower::Absent) } else { self.lower(path) }
    }

    fn is_link_below(&mut self, path: &[u8]) -> Result<bool, Failed> {
        Ok(match self.lower_unless_hidden(path)? {
            Lower::Symlink(..) => true,
            Lower::Absent | Lower::Directory(_) | Lower::Other(_) => false,
        })
    }

    fn open(&self, path: &[u8]) -> Result<Option<std::os::fd::OwnedFd>, Failed> {
        let mut dir = resolve::reopen(self.root)?;
        for name in components(path) {
            dir = match resolve::open_directory(dir.as_fd(), name, OFlags::RDONLY) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(Failed { action: "open", errno }),
            };
        }
        Ok(Some(dir))
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Failed> {
        let hides = match self.lower(path)? {
            Lower::Absent => false,
            Lower::Directory(_) | Lower::Symlink(..) | Lower::Other(_) => true,
        };
        let (parent, name) = split(path);
        if hides {
            return Ok(());
        }
        let Some(dir) = self.open(parent)? else { return Ok(()) };
        let dir = dir.as_fd();
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if marks::is_whiteout(dir, name, &stat, self.form).doing("look at")? => {
                keeping_times(dir, || rustix::fs::unlinkat(dir, name, AtFlags::empty()).doing("remove the whiteout"))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Failed { action: "look at", errno }),
        }
    }

    fn implicit(&mut self, path: &[u8], implicit: Implicit) -> Result<(), Failed> {
        if implicit.cut {
            return Ok(());
        }
        let lower = match self.lower_unless_hidden(path)? {
            Lower::Directory(merged) => Some(merged),
            Lower::Absent | Lower::Symlink(..) | Lower::Other(_) => None,
        };
        let Some(dir) = self.open(path)? else { return Ok(()) };
        match lower {
            Some(lower) => self.take_over(dir.as_fd(), &lower),
            None if implicit.for_whiteouts && !path.is_empty() => {
                let (parent, name) = split(path);
                let Some(parent) = self.open(parent)? else { return Ok(()) };
                let parent = parent.as_fd();
                keeping_times(parent, || match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
                    Err(errno) => Err(Failed { action: "remove", errno }),
                })
            }
            None => Ok(()),
        }
    }

    /// Gives a directory what the one below has.
    fn take_over(&self, dir: BorrowedFd<'_>, lower: &Merged) -> Result<(), Failed> {
        let stat = rustix::fs::fstat(lower.top()).doing("look at")?;
        if self.form == Form::Root {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(dir, Some(uid), Some(gid)).doing("change the owner of")?;
        }
        for (name, value) in copy_up::xattrs(lower.top(), &self.rules)? {
            if self.form == Form::Root || name.starts_with(b"user.") {
                rustix::fs::fsetxattr(dir, name.as_slice(), &value, XattrFlags::empty())
                    .doing("set an extended attribute of")?;
            }
        }
        rustix::fs::fchmod(dir, Mode::from_raw_mode(stat.st_mode & MODE)).doing("change the mode of")?;
        rustix::fs::futimens(dir, &times_of(&stat)).doing("set the times of")
    }

    /// Hides every name of the layers' roots below, since overlayfs always merges the roots.
    fn hide_root(&mut self) -> Result<(), Failed> {
        let Lower::Directory(lower) = self.below.find(b"")? else { return Ok(()) };
        let root = self.root;
        keeping_times(root, || {
            for part in lower.parts() {
                let dir = resolve::reopen(part)?;
                for entry in rustix::fs::Dir::new(dir).doing("list")? {
                    let entry = entry.doing("list")?;
                    let name = entry.file_name().to_bytes();
                    if name == b"." || name == b".." {
                        continue;
                    }
                    self.hide(root, name)?;
                }
            }
            Ok(())
        })
    }

    fn hide(&mut self, root: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failed> {
        if let Lower::Absent = self.below.find(name)? {
            return Ok(());
        }
        match resolve::open_directory(root, name, OFlags::RDONLY) {
            Ok(own) => marks::set_opaque(own.as_fd(), self.form).doing("mark as opaque"),
            Err(Errno::NOENT) => marks::make_whiteout(root, name, self.form).doing("create the whiteout"),
            // A file or link of this layer hides what is below by itself.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(Failed { action: "open", errno }),
        }
    }
}

fn times_of(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or_default() };
    Timestamps {
        last_access: time(stat.st_mtime, stat.st_mtime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Changes names in a directory and gives it its times back.
fn keeping_times(dir: BorrowedFd<'_>, change: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let stat = rustix::fs::fstat(dir).doing("look at")?;
    debug_assert!(FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    change()?;
    rustix::fs::futimens(dir, &times_of(&stat)).doing("set the times of")
}
