//! A layer on top of a plain tree: extracted beside it, then moved in.
//!
//! Moving is what makes it safe and quick: the rules are those of every other form, an unverified byte never reaches
//! the tree, and a directory that is new moves with everything in it by one rename.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::dir::chain::Chain;
use super::dir::marks::{self, Form};
use super::dir::meta::take_over;
use super::dir::{remove_tree, resolve};
use super::error::{Doing, Failed, LayerError};
use super::extract::extract;
use super::rules::Rules;
use super::stored::Stored;
use super::sums::{self, Content};
use super::{Extracted, Format, LayerSpec, Progress, SUMS, TREE, dir};

/// See [`super::apply_plain`].
pub(super) fn apply(
    input: &mut (dyn BufRead + Send),
    spec: &LayerSpec<'_>,
    target: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    let below = [Stored::plain(target)?];
    let spec = LayerSpec { below: Some(&below), format: Format::Overlay, ..*spec };
    let applied = move_in(input, &spec, target, scratch, progress);
    let cleaned = remove_tree(scratch, TREE.as_bytes()).and_then(|()| remove_tree(scratch, SUMS.as_bytes()));
    let extracted = applied?;
    cleaned.doing("remove").map_err(Failed::at_stage)?;
    Ok(extracted)
}

fn move_in(
    input: &mut (dyn BufRead + Send),
    spec: &LayerSpec<'_>,
    target: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
    progress: &dyn Progress,
) -> Result<Extracted, LayerError> {
    let extracted = extract(input, spec, scratch, progress)?;
    // The layers below were given, so nothing is left that would need another extraction.
    let _ = dir::settled::settle(scratch, &extracted.needs, spec.below.unwrap_or_default(), spec.form)?;
    let tree =
        resolve::open_directory(scratch, TREE.as_bytes(), OFlags::RDONLY).doing("open").map_err(Failed::at_stage)?;
    let rules = Rules { limits: spec.limits, integrity_xattrs: true };
    let mut merge = Merge {
        from: Chain::new(tree.as_fd(), None),
        to: Chain::new(target, None),
        form: spec.form,
        rules,
        merged: vec![Vec::new()],
    };
    merge.all()?;
    unmark(scratch, target, spec.form)?;
    Ok(extracted)
}

struct Merge<'a> {
    from: Chain<'a>,
    to: Chain<'a>,
    form: Form,
    rules: Rules<'a>,
    /// Directories that both sides have, in the order they were found.
    merged: Vec<Vec<u8>>,
}

impl Merge<'_> {
    fn all(&mut self) -> Result<(), LayerError> {
        let mut next = 0;
        let mut stats = Vec::new();
        while let Some(path) = self.merged.get(next).cloned() {
            stats.push(self.directory(&path).map_err(|failed| failed.at(&path))?);
            next += 1;
        }
        for (path, stat) in self.merged.iter().zip(&stats) {
            let both = self.from.at(path).and_then(|from| Ok((from, self.to.at(path)?)));
            if let ((Some(from), Some(to)), Some(stat)) = (both.map_err(|failed| failed.at(path))?, stat) {
                take_over(from, to, stat, self.form, &self.rules).map_err(|failed| failed.at(path))?;
            }
        }
        Ok(())
    }

    /// Moves what a directory has; says how it was before.
    fn directory(&mut self, path: &[u8]) -> Result<Option<Stat>, Failed> {
        let (Some(from), Some(to)) = (self.from.at(path)?, self.to.at(path)?) else { return Ok(None) };
        let stat = rustix::fs::fstat(from).doing("look at")?;
        let list = resolve::reopen(from)?;
        for entry in rustix::fs::Dir::new(list).doing("list")? {
            let entry = entry.doing("list")?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                Self::entry(&mut self.merged, self.form, from, to, name, path)?;
            }
        }
        Ok(Some(stat))
    }

    fn entry(
        merged: &mut Vec<Vec<u8>>,
        form: Form,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), Failed> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).doing("look at")?;
        if marks::is_whiteout(from, name, &stat, form).doing("look at")? {
            return remove_tree(to, name).doing("remove");
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match resolve::open_directory(to, name, OFlags::PATH) {
            Ok(_) if is_directory && !is_opaque(from, name, form)? => {
                let slash = if path.is_empty() { &b""[..] } else { b"/" };
                merged.push([path, slash, name].concat());
                return Ok(());
            }
            Ok(_) => remove_tree(to, name).doing("remove")?,
            Err(Errno::NOENT) => {}
            // A file or link gives way to a directory; to anything else it does so by the rename.
            Err(Errno::NOTDIR | Errno::LOOP) if is_directory => remove_tree(to, name).doing("remove")?,
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(Failed { action: "look at", errno }),
        }
        rustix::fs::renameat(from, name, to, name).doing("move")
    }
}

fn is_opaque(from: BorrowedFd<'_>, name: &[u8], form: Form) -> Result<bool, Failed> {
    let dir = resolve::open_directory(from, name, OFlags::RDONLY).doing("open")?;
    marks::is_opaque(dir.as_fd(), form).doing("look at")
}

/// Takes the marks for overlayfs off the directories that have moved in with them.
fn unmark(scratch: BorrowedFd<'_>, target: BorrowedFd<'_>, form: Form) -> Result<(), LayerError> {
    let sums = resolve::open_file(scratch, SUMS.as_bytes()).doing("open").map_err(Failed::at_stage)?;
    let mut chain = Chain::new(target, None);
    for record in sums::Reader::new(File::from(sums))? {
        let record = record?;
        if record.content != Content::Opaque {
            continue;
        }
        // Missing: it was only there for whiteouts, and went with them.
        if let Some(dir) = chain.at(&record.path).map_err(|failed| failed.at(&record.path))? {
            marks::clear_opaque(dir, form).doing("unmark").map_err(|failed| failed.at(&record.path))?;
        }
    }
    Ok(())
}
