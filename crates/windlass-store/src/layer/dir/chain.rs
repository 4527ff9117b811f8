//! Goes about a tree path by path without opening everything from the root each time.
//!
//! Neighbouring paths share most of their directories, and a path may have thousands of them: without this, visiting a
//! deep tree costs the square of its depth. A bounded number of levels stays open.
//!
//! Invariants: `a_chain_finds_what_opening_from_the_root_finds`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::marks::{self, Form};
use super::resolve;
use crate::layer::error::{Doing, Failed};

/// Levels that stay open.
const OPEN_MAX: usize = 64;

/// A walker. The tree must not lose or gain directories under it, except where it just was.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    root: BorrowedFd<'a>,
    /// Whether opaque marks are looked at, and which.
    marks: Option<Form>,
    path: Vec<u8>,
    /// The last directories of `path`, outermost first; the outermost ones may be closed again.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// How much of the path leads here.
    end: usize,
    fd: OwnedFd,
    hides_below: bool,
}

impl<'a> Chain<'a> {
    /// Starts at the root of a tree; with a form, opaque marks on the way are read.
    pub(crate) fn new(root: BorrowedFd<'a>, marks: Option<Form>) -> Chain<'a> {
        Chain { root, marks, path: Vec::new(), levels: Vec::new() }
    }

    /// The directory at a cleaned path; none if there is no directory.
    pub(crate) fn at(&mut self, path: &[u8]) -> Result<Option<BorrowedFd<'_>>, Failed> {
        let shared = shared_directories(&self.path, path);
        self.levels.truncate(self.levels.iter().take_while(|level| level.end <= shared).count());
        let mut end = self.levels.last().map_or(0, |level| level.end);
        while end < path.len() {
            let from = if end == 0 { 0 } else { end + 1 };
            let to = path[from..].iter().position(|&b| b == b'/').map_or(path.len(), |at| from + at);
            let (above, hidden) =
                self.levels.last().map_or((self.root, false), |level| (level.fd.as_fd(), level.hides_below));
            let fd = match resolve::open_directory(above, &path[from..to], OFlags::RDONLY) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    self.path = path[..end].to_vec();
                    return Ok(None);
                }
                Err(errno) => return Err(Failed { action: "open", errno }),
            };
            let hides_below = match self.marks {
                Some(form) if !hidden => marks::is_opaque(fd.as_fd(), form).doing("look at")?,
                Some(_) | None => hidden,
            };
            if self.levels.len() == OPEN_MAX {
                self.levels.remove(0);
            }
            self.levels.push(Level { end: to, fd, hides_below });
            end = to;
        }
        self.path = path.to_vec();
        Ok(Some(self.levels.last().map_or(self.root, |level| level.fd.as_fd())))
    }

    /// Whether the directory that [`Chain::at`] found last, or one above it, is opaque.
    pub(crate) fn hides_below(&self) -> bool {
        self.levels.last().is_some_and(|level| level.hides_below)
    }
}

/// Length of the longest path of directories that two paths share.
pub(crate) fn shared_directories(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let ends = |path: &[u8]| path.len() == same || path[same] == b'/';
    if ends(a) && ends(b) { same } else { a[..same].iter().rposition(|&b| b == b'/').unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shared_directories_end_at_slashes() {
        let table = [
            ("", "", 0),
            ("a", "a", 1),
            ("a", "a/b", 1),
            ("a/b", "a/c", 1),
            ("a/bc", "a/bd", 1),
            ("ab", "ac", 0),
            ("a/b", "ab", 0),
        ];
        for (a, b, want) in table {
            assert_eq!(shared_directories(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_chain_finds_what_opening_from_the_root_finds(
            made in prop::collection::vec(prop::collection::vec(0u8..2, 0..100), 1..6),
            asked in prop::collection::vec((0usize..6, 0usize..101, any::<bool>()), 1..20),
        ) {
            let place = tempfile::tempdir().expect("a directory");
            let text = |parts: &[u8]| parts.iter().map(|part| part.to_string()).collect::<Vec<_>>().join("/");
            for path in &made {
                std::fs::create_dir_all(place.path().join(text(path))).expect("directories");
            }
            let root = std::fs::File::open(place.path()).expect("root");
            let mut chain = Chain::new(root.as_fd(), None);
            for (which, length, more) in asked {
                let parts = &made[which % made.len()];
                let mut path = text(&parts[..length.min(parts.len())]);
                if more {
                    path = if path.is_empty() { "2".into() } else { path + "/2/1" };
                }
                let found = chain.at(path.as_bytes()).expect("no failure").map(|dir| rustix::fs::fstat(dir).expect("stat").st_ino);
                use std::os::unix::fs::MetadataExt;
                let want = std::fs::metadata(place.path().join(&path)).ok().map(|meta| meta.ino());
                prop_assert_eq!(found, want, "{}", path);
            }
        }
    }
}
