//! Whether the store changed, for those who keep what it says in memory: some microseconds to ask, nothing to wait for.
//!
//! Every transaction, of this process or another, writes the beginning of the database file, where the number of the
//! transaction stands. Times alone would not do: two changes may fall into one tick of the file system's clock.
//!
//! Invariants: `every_change_changes_the_stamp`.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use crate::store::Store;

/// Both commit slots of the database and all that is before them stand in these bytes.
const HEAD_BYTES: usize = 512;

/// A state of the store's metadata. Two that are equal are of one state; a state being written may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<Seen>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size_bytes: u64,
    changed: (i64, i64),
    head: [u8; HEAD_BYTES],
}

impl Store {
    /// The state that the metadata is in now. After a change by this process it is another as soon as the call returns.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.seen().ok())
    }

    fn seen(&self) -> std::io::Result<Seen> {
        let file = File::open(self.layout().database())?;
        let found = file.metadata()?;
        let mut head = [0; HEAD_BYTES];
        let mut filled = 0;
        while filled < HEAD_BYTES {
            match file.read_at(&mut head[filled..], filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        let changed = (found.mtime(), found.mtime_nsec());
        Ok(Seen { inode: found.ino(), size_bytes: found.len(), changed, head })
    }
}
