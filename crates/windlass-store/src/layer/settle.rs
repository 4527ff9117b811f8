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
//! Invariants: `any_stack_equals_layers_applied_one_after_the_other`; `hostile_layers_are_refused_or_applied_safely` (no whiteout shows).

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::below::{Below, Lower};
use super::dir::chain::Chain;
use super::dir::marks::{self, Form};
use super::dir::meta::{keeping_times, take_over};
use super::dir::resolve;
use super::error::{Doing, Failed, LayerError};
use super::limits::LayerLimits;
use super::needs::{Implicit, Needs};
use super::rules::{Rules, split};
use super::{Settled, TREE};

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
        own: Chain::new(root.as_fd(), Some(form)),
        below,
        form,
        rules: Rules { limits: &limits, integrity_xattrs: true },
        root_opaque: false,
    };
    layer.settle(needs)
}

struct Layer<'a> {
    root: BorrowedFd<'a>,
    own: Chain<'a>,
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
        if !needs.stacked {
            for path in needs.implicit.keys() {
                // Whether this layer hides the link does not matter: what went through it may have come before.
                if let Lower::Symlink(..) = self.below.find(path).map_err(|failed| failed.at(path))? {
                    return Ok(Settled::Redo);
                }
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
        // Missing: removed again while unpacking.
        if self.own.at(split(path).0)?.is_none() || self.own.hides_below() {
            return Ok(Lower::Absent);
        }
        self.below.find(path)
    }

    /// The same, where the names themselves are gone with an opaque root.
    fn lower_unless_hidden(&mut self, path: &[u8]) -> Result<Lower, Failed> {
        if self.root_opaque && !path.is_empty() { Ok(Lower::Absent) } else { self.lower(path) }
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
        let form = self.form;
        let Some(dir) = self.own.at(parent)? else { return Ok(()) };
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if marks::is_whiteout(dir, name, &stat, form).doing("look at")? => {
                keeping_times(dir, || rustix::fs::unlinkat(dir, name, AtFlags::empty()).doing("remove the whiteout"))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Failed { action: "look at", errno }),
        }
    }

    fn implicit(&mut self, path: &[u8], implicit: Implicit) -> Result<(), Failed> {
        if implicit.described {
            return Ok(());
        }
        let lower = match self.lower_unless_hidden(path)? {
            Lower::Directory(merged) => Some(merged),
            Lower::Absent | Lower::Symlink(..) | Lower::Other(_) => None,
        };
        match lower {
            Some(lower) => match self.own.at(path)? {
                Some(dir) => {
                    let stat = rustix::fs::fstat(lower.top()).doing("look at")?;
                    take_over(lower.top(), dir, &stat, self.form, &self.rules)
                }
                None => Ok(()),
            },
            None if implicit.for_whiteouts && !path.is_empty() => {
                let (parent, name) = split(path);
                // In an opaque root the directory itself hid one below.
                let hides = self.root_opaque && parent.is_empty() && !matches!(self.below.find(path)?, Lower::Absent);
                let form = self.form;
                let Some(parent) = self.own.at(parent)? else { return Ok(()) };
                keeping_times(parent, || match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Ok(()) if hides => marks::make_whiteout(parent, name, form).doing("create the whiteout"),
                    Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
                    Err(errno) => Err(Failed { action: "remove", errno }),
                })
            }
            None => Ok(()),
        }
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
