//! Where the bytes of an upload come from.

use std::fmt;
use std::io::{self, Cursor, Read, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;

type Open = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync;

/// Bytes that can be read again from any offset, because an upload may have to be repeated. Cheap to clone.
#[derive(Clone)]
pub struct UploadSource {
    open: Arc<Open>,
}

impl UploadSource {
    /// Bytes in memory.
    pub fn bytes(bytes: Bytes) -> UploadSource {
        UploadSource::new(move |offset| {
            let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Ok(Box::new(Cursor::new(bytes.slice(at..))))
        })
    }

    /// A file, opened by path for every try.
    pub fn file(path: impl Into<std::path::PathBuf>) -> UploadSource {
        let path = path.into();
        UploadSource::new(move |offset| {
            let mut file = std::fs::File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file))
        })
    }

    /// Anything that can be opened at a byte offset. Called, and read, on a thread where blocking is allowed.
    pub fn new(open: impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static) -> UploadSource {
        UploadSource { open: Arc::new(open) }
    }

    /// Opens the bytes from `offset`. Blocking.
    pub(crate) fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        (self.open)(offset)
    }

    /// Reads `length` bytes from `offset` on a blocking thread.
    pub(crate) async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let source = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            source.open(offset)?.take(length as u64).read_to_end(&mut piece)?;
            if piece.len() == length { Ok(piece.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
        .await
        .map_err(io::Error::other)?
    }
}

impl fmt::Debug for UploadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadSource")
    }
}
