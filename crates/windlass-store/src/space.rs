//! Room on the file system: asked for before bytes are written, so that a full disk is a clear refusal early.
//!
//! The reserve keeps the node alive: a pull may not use the last 5 % or 2 GiB, whichever is smaller.
//!
//! Invariants: `the_reserve_is_the_smaller_of_the_two`.

use std::path::Path;

use crate::error::StoreError;

/// What no pull may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Percent of the file system.
    pub percent: u8,
    /// Bytes. The smaller of the two counts.
    pub bytes: u64,
}

impl Default for Reserve {
    /// 5 % or 2 GiB.
    fn default() -> Reserve {
        Reserve { percent: 5, bytes: 2 << 30 }
    }
}

impl Reserve {
    /// No reserve at all.
    pub const NONE: Reserve = Reserve { percent: 0, bytes: 0 };

    fn of(self, capacity_bytes: u64) -> u64 {
        (capacity_bytes / 100 * u64::from(self.percent)).min(self.bytes)
    }
}

/// Size and use of the file system that holds the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// All bytes of it.
    pub capacity_bytes: u64,
    /// Bytes an ordinary process may still write.
    pub available_bytes: u64,
    /// Inodes still free.
    pub free_inodes: u64,
}

impl FileSystem {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`StoreError::Io`] when `path` cannot be looked at.
    pub fn of(path: &Path) -> Result<FileSystem, StoreError> {
        let found = rustix::fs::statvfs(path).map_err(|errno| StoreError::io("stat", path, errno))?;
        Ok(FileSystem {
            capacity_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            free_inodes: found.f_favail,
        })
    }

    /// Bytes that may be written without touching the reserve.
    pub fn usable_bytes(&self, reserve: Reserve) -> u64 {
        self.available_bytes.saturating_sub(reserve.of(self.capacity_bytes))
    }
}

/// Refuses when `need_bytes` do not fit beside the reserve.
pub(crate) fn require(path: &Path, need_bytes: u64, reserve: Reserve) -> Result<(), StoreError> {
    let free = FileSystem::of(path)?.usable_bytes(reserve);
    if need_bytes <= free {
        return Ok(());
    }
    Err(StoreError::NoSpace { path: path.to_owned(), need_bytes: Some(need_bytes), free_bytes: Some(free) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_the_smaller_of_the_two() {
        let table =
            [(10 << 30, 8 << 30, 8 * (1 << 30) - (10 << 30) / 100 * 5), (1 << 40, 8 << 30, 6 << 30), (10 << 30, 0, 0)];
        for (capacity_bytes, available_bytes, want) in table {
            let found = FileSystem { capacity_bytes, available_bytes, free_inodes: 1 };
            assert_eq!(found.usable_bytes(Reserve::default()), want, "{capacity_bytes} {available_bytes}");
        }
    }
}
