//! Small files that hold identities: tokens, keys, profiles. Read anew each time, since others write them anew.
//!
//! Invariants: `a_file_is_bounded_and_regular`, `a_device_does_not_hold_anybody_up`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use windlass_core::secret::Secret;
use zeroize::Zeroizing;

use super::CloudError;

/// Most bytes of a file. A service account's token has about 1 KiB, a file of profiles some 10 KiB.
pub(crate) const FILE_BYTES: u64 = 1024 * 1024;

/// The text of the file that `what` (a variable, a flag, a key) names; `None` if there is none.
///
/// # Errors
/// [`CloudError::Settings`] names `what` and the file.
pub(crate) async fn read(what: &str, path: &Path) -> Result<Option<Secret<String>>, CloudError> {
    let file: PathBuf = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&file)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(what, path, &error.to_string())),
    }
}

/// As [`read`], for a file that must be there; blanks around its text do not count.
///
/// # Errors
/// As [`read`]; also when the file is missing or empty.
pub(crate) async fn token(what: &str, path: &Path) -> Result<Secret<String>, CloudError> {
    let text = read(what, path).await?.ok_or_else(|| unusable(what, path, "it does not exist"))?;
    let trimmed = text.expose().trim();
    if trimmed.is_empty() { Err(unusable(what, path, "it is empty")) } else { Ok(Secret::from(trimmed)) }
}

/// A file that cannot be used.
pub(crate) fn unusable(what: &str, path: &Path, problem: &str) -> CloudError {
    let problem = format!("names {}, which cannot be used: {problem}", path.display());
    CloudError::Settings { what: what.to_owned(), problem }
}

/// As [`read`], here and now. Blocks.
pub(crate) fn read_now(path: &Path) -> io::Result<Secret<String>> {
    // Without the flag a pipe would hold the thread until somebody writes.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("it is no text"))?;
    Ok(Secret::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_bounded_and_regular() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
            folder.path().join(name)
        };
        assert_eq!(token("T", &write("good", b" ey.J.x\n")).await.unwrap().expose(), "ey.J.x");
        assert!(read("T", &folder.path().join("none")).await.unwrap().is_none());
        let long = write("long", &vec![b'x'; FILE_BYTES as usize + 1]);
        let table = [
            (write("empty", b" \n"), "is empty"),
            (write("bytes", b"canary\xff"), "no text"),
            (long, "1 MiB"),
            (folder.path().join("none"), "not exist"),
            (folder.path().to_owned(), "regular file"),
        ];
        for (path, want) in table {
            let error = token("T", &path).await.unwrap_err().to_string();
            assert!(error.starts_with("T names ") && error.contains(want) && !error.contains("canary"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_device_does_not_hold_anybody_up() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(token("T", &pipe).await.unwrap_err().to_string().contains("regular file"));
    }
}
