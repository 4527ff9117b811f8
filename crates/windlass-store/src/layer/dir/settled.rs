//! A layer of the directory form, being settled.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::chain::Chain;
use super::marks::{self, Form};
use super::meta::{give, keeping_times};
use super::resolve;
use crate::layer::below::Below;
use crate::layer::error::{Doing, Failed, LayerError};
use crate::layer::limits::LayerLimits;
use crate::layer::needs::Needs;
use crate::layer::rules::{Meta, Rules, split};
use crate::layer::settle::{Leave, Own, carry_out};
use crate::layer::stored::Stored;
use crate::layer::{Settled, TREE};

/// Settles the tree in a stage.
///
/// # Errors
/// What the file system says.
pub(crate) fn settle(
    stage: BorrowedFd<'_>,
    needs: &Needs,
    below: &[Stored],
    form: Form,
) -> Result<Settled, LayerError> {
    let mut below = Below::new(below, form).map_err(Failed::at_stage)?;
    let root =
        resolve::open_directory(stage, TREE.as_bytes(), OFlags::RDONLY).doing("open").map_err(Failed::at_stage)?;
    let limits = LayerLimits::default();
    let rules = Rules { limits: &limits, integrity_xattrs: true };
    let mut own = OwnDirectories { root: root.as_fd(), chain: Chain::new(root.as_fd(), Some(form)), form, rules };
    carry_out(&mut own, needs, &mut below, &rules)
}

/// The tree of a layer.
#[derive(Debug)]
struct OwnDirectories<'a> {
    root: BorrowedFd<'a>,
    chain: Chain<'a>,
    form: Form,
    rules: Rules<'a>,
}

impl Own for OwnDirectories<'_> {
    fn hides_below(&mut self, dir: &[u8]) -> Result<Option<bool>, Failed> {
        let found = self.chain.at(dir)?.is_some();
        Ok(found.then(|| self.chain.hides_below()))
    }

    fn remove_whiteout(&mut self, path: &[u8]) -> Result<(), Failed> {
        let (parent, name) = split(path);
        let form = self.form;
        let Some(dir) = self.chain.at(parent)? else { return Ok(()) };
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if marks::is_whiteout(dir, name, &stat, form).doing("look at")? => {
                keeping_times(dir, || rustix::fs::unlinkat(dir, name, AtFlags::empty()).doing("remove the whiteout"))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Failed { action: "look at", errno }),
        }
    }

    fn give(&mut self, dir: &[u8], meta: &Meta) -> Result<(), Failed> {
        match self.chain.at(dir)? {
            Some(fd) => give(fd, meta, self.form, &self.rules),
            None => Ok(()),
        }
    }

    fn remove_empty(&mut self, dir: &[u8], leave: Leave) -> Result<(), Failed> {
        let (parent, name) = split(dir);
        let form = self.form;
        let Some(parent) = self.chain.at(parent)? else { return Ok(()) };
        keeping_times(parent, || match (rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR), leave) {
            (Ok(()), Leave::Whiteout) => marks::make_whiteout(parent, name, form).doing("create the whiteout"),
            (Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST), _) => Ok(()),
            (Err(errno), _) => Err(Failed { action: "remove", errno }),
        })
    }

    fn hide(&mut self, name: &[u8]) -> Result<(), Failed> {
        let (root, form) = (self.root, self.form);
        match resolve::open_directory(root, name, OFlags::RDONLY) {
            Ok(own) => marks::set_opaque(own.as_fd(), form).doing("mark as opaque"),
            Err(Errno::NOENT) => {
                keeping_times(root, || marks::make_whiteout(root, name, form).doing("create the whiteout"))
            }
            // A file or link of this layer hides what is below by itself.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(Failed { action: "open", errno }),
        }
    }
}
