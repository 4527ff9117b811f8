//! Short names for lower layers, all in one directory: `l/<n>` for a layer of the store, `l/C<n>` for what a runtime
//! committed, the numbers in base 36. They are links that can be made again at any time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use crate::error::StoreError;
use crate::layout::{Layout, make_dir};
use crate::recover::entries;

/// A number in as few letters as digits and small letters allow.
pub(super) fn short(mut n: u64) -> String {
    let mut text = Vec::new();
    loop {
        text.extend(char::from_digit((n % 36) as u32, 36));
        n /= 36;
        if n == 0 {
            return text.into_iter().rev().collect();
        }
    }
}

/// The link of a name, leading to `target` from now on. Another one under that name led to what is gone.
pub(super) fn lead(layout: &Layout, name: &str, target: &Path) -> Result<PathBuf, StoreError> {
    let dir = layout.links();
    let link = dir.join(name);
    if fs::read_link(&link).is_ok_and(|found| found == target) {
        return Ok(link);
    }
    make_dir(&dir)?;
    let fresh = dir.join(format!(".{name}-{}", std::process::id()));
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::io("remove", &fresh, source)),
    }
    rustix::fs::symlinkat(target, CWD, &fresh).map_err(|errno| StoreError::io("create", &fresh, errno))?;
    fs::rename(&fresh, &link).map_err(|source| StoreError::io("rename", &fresh, source))?;
    Ok(link)
}

/// Removes links that lead nowhere. The caller holds the sweep lock alone, so nobody is about to use one.
pub(crate) fn drop_dangling(layout: &Layout) -> Result<(), StoreError> {
    if !layout.links().exists() {
        return Ok(());
    }
    for (_, path) in entries(&layout.links())? {
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            fs::remove_file(&path).map_err(|source| StoreError::io("remove", &path, source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_different() {
        for (n, want) in [(0, "0"), (1, "1"), (35, "z"), (36, "10"), (46_655, "zzz"), (u64::MAX, "3w5e11264sgsf")] {
            assert_eq!(short(n), want);
            assert_eq!(u64::from_str_radix(want, 36), Ok(n));
        }
    }

    #[test]
    fn a_link_follows_its_target_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let link = lead(&layout, "a", Path::new("../one")).unwrap();
        assert_eq!(lead(&layout, "a", Path::new("../two")).unwrap(), link);
        assert_eq!(link.canonicalize().unwrap(), dir.path().join("two").canonicalize().unwrap());
        drop_dangling(&layout).unwrap();
        assert!(link.exists());
        fs::remove_dir(dir.path().join("two")).unwrap();
        drop_dangling(&layout).unwrap();
        assert_eq!(fs::read_dir(layout.links()).unwrap().count(), 0);
    }
}
