//! Writes an image layout or archive: a directory or a tar file that appears whole or not at all.
//!
//! In: members by name, each with its length, blobs with their digest. Out: the finished directory or file.
//! Every blob is hashed while it is written, so a layout never holds what its names do not promise. The same
//! input gives the same bytes: times are 0, owners root, order as called.
//!
//! Invariants: `nothing_appears_unless_finished`, `a_blob_that_lies_is_refused`, `a_blob_is_written_once`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use windlass_core::digest::{Digest, Hasher};
use windlass_core::reason::Reason;

use super::source::io_error;
use crate::PullError;

/// Size of the buffer between reader and file.
const COPY_BYTES: usize = 256 << 10;

/// A layout or archive being written.
#[derive(Debug)]
pub(crate) struct Sink {
    path: PathBuf,
    form: Form,
    written: HashSet<Digest>,
}

enum Form {
    /// Files go below a private directory beside the final one.
    Dir(tempfile::TempDir),
    /// A private file beside the final one.
    Tar(tar::Builder<BufWriter<tempfile::NamedTempFile>>),
    /// Standard output: what was written cannot be taken back.
    Stream(tar::Builder<BufWriter<io::Stdout>>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Form::Dir(_) => "Dir",
            Form::Tar(_) => "Tar",
            Form::Stream(_) => "Stream",
        })
    }
}

impl Sink {
    /// A directory that must not exist yet, or be empty.
    pub(crate) fn dir(path: &Path) -> Result<Sink, PullError> {
        match fs::read_dir(path) {
            Ok(entries) => {
                if entries.count() > 0 {
                    return Err(io_error(path, io::ErrorKind::DirectoryNotEmpty.into()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(path, error)),
        }
        let stage = tempfile::Builder::new().prefix(".windlass-save-").tempdir_in(parent(path));
        let stage = stage.map_err(|error| io_error(path, error))?;
        Ok(Sink { path: path.to_owned(), form: Form::Dir(stage), written: HashSet::new() })
    }

    /// A tar file, replaced if it exists; `-` is standard output.
    pub(crate) fn tar(path: &Path) -> Result<Sink, PullError> {
        let form = if path == Path::new("-") {
            Form::Stream(tar::Builder::new(BufWriter::with_capacity(COPY_BYTES, io::stdout())))
        } else {
            let file = tempfile::Builder::new().prefix(".windlass-save-").tempfile_in(parent(path));
            let file = file.map_err(|error| io_error(path, error))?;
            Form::Tar(tar::Builder::new(BufWriter::with_capacity(COPY_BYTES, file)))
        };
        Ok(Sink { path: path.to_owned(), form, written: HashSet::new() })
    }

    /// Whether a blob is there already.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.written.contains(digest)
    }

    /// Writes `blobs/<algorithm>/<hex>`; a second call for one digest does nothing.
    ///
    /// # Errors
    /// Digest or size mismatch; the layout is void then.
    pub(crate) fn blob(&mut self, digest: &Digest, size_bytes: u64, input: &mut dyn Read) -> Result<(), PullError> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let name = blob_name(digest);
        let mut checked = Checked { input, hasher: Some(digest.algorithm().hasher()), left: size_bytes };
        self.member(&name, size_bytes, &mut checked)?;
        checked.finish(digest).map_err(|problem| problem.into_error(&self.path, digest))
    }

    /// Writes a small file.
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PullError> {
        self.member(name, bytes.len() as u64, &mut &bytes[..])
    }

    /// Writes a member of known length.
    pub(crate) fn member(&mut self, name: &str, size_bytes: u64, input: &mut dyn Read) -> Result<(), PullError> {
        let result = match &mut self.form {
            Form::Dir(stage) => write_file(&stage.path().join(name), size_bytes, input),
            Form::Tar(builder) => append(builder, name, size_bytes, input),
            Form::Stream(builder) => append(builder, name, size_bytes, input),
        };
        result.map_err(|error| io_error(&self.path.join(name), error))
    }

    /// Makes the layout or archive appear.
    pub(crate) fn finish(self) -> Result<(), PullError> {
        let path = self.path;
        let done = match self.form {
            Form::Dir(stage) => finish_dir(stage, &path),
            Form::Tar(builder) => finish_tar(builder, &path),
            Form::Stream(builder) => builder.into_inner().and_then(|mut out| out.flush()),
        };
        done.map_err(|error| io_error(&path, error))
    }
}

/// `blobs/sha256/<hex>`.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn write_file(path: &Path, size_bytes: u64, input: &mut dyn Read) -> io::Result<()> {
    fs::create_dir_all(parent(path))?;
    let mut file = File::create_new(path)?;
    let copied = io::copy(&mut input.take(size_bytes), &mut file)?;
    if copied == size_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    name: &str,
    size_bytes: u64,
    input: &mut dyn Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    let mut counted = Exactly { input, left: size_bytes };
    builder.append_data(&mut header, name, &mut counted)?;
    if counted.left == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// At most the announced bytes, counted.
struct Exactly<'r> {
    input: &'r mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.input.read(&mut out[..want])?;
        self.left -= got as u64;
        Ok(got)
    }
}

fn finish_dir(stage: tempfile::TempDir, path: &Path) -> io::Result<()> {
    let stage = stage.keep();
    // An empty directory gives way to a rename; one that holds something does not.
    let renamed = set_mode(&stage, 0o755).and_then(|()| fs::rename(&stage, path));
    if renamed.is_err() {
        // The stage is ours alone; what is left of it is worth nothing.
        let _ = fs::remove_dir_all(&stage);
    }
    renamed
}

fn finish_tar(builder: tar::Builder<BufWriter<tempfile::NamedTempFile>>, path: &Path) -> io::Result<()> {
    let file = builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    set_mode(file.path(), 0o644)?;
    file.persist(path).map(drop).map_err(|failed| failed.error)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Hashes what passes through and knows how much should.
struct Checked<'r> {
    input: &'r mut dyn Read,
    hasher: Option<Hasher>,
    left: u64,
}

enum Problem {
    Hash(Digest),
    Longer,
    Io(io::Error),
}

impl Problem {
    fn into_error(self, path: &Path, digest: &Digest) -> PullError {
        let (what, reason) = match self {
            Problem::Hash(got) => (format!("blob {digest} hashed to {got}"), Reason::DigestMismatch),
            Problem::Longer => (format!("blob {digest} is longer than its descriptor says"), Reason::SizeMismatch),
            Problem::Io(error) => return io_error(path, error),
        };
        PullError::Layout { path: path.to_owned(), what, reason }
    }
}

impl Checked<'_> {
    fn finish(mut self, want: &Digest) -> Result<(), Problem> {
        let mut one = [0];
        if self.input.read(&mut one).map_err(Problem::Io)? > 0 {
            return Err(Problem::Longer);
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(got) if got != *want => Err(Problem::Hash(got)),
            Some(_) | None => Ok(()),
        }
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.input.read(&mut out[..want])?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&out[..got]);
        }
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_appears_unless_finished() {
        let dir = tempfile::tempdir().unwrap();
        let blob = b"content";
        let digest = Digest::sha256(blob);
        type Make = fn(&Path) -> Result<Sink, PullError>;
        for (name, make) in [("out.tar", Sink::tar as Make), ("out", Sink::dir as Make)] {
            let path = dir.path().join(name);
            let mut given_up = make(&path).unwrap();
            given_up.blob(&digest, 7, &mut &blob[..]).unwrap();
            drop(given_up);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{name}");
            let mut sink = make(&path).unwrap();
            sink.blob(&digest, 7, &mut &blob[..]).unwrap();
            sink.file("index.json", b"{}").unwrap();
            sink.finish().unwrap();
            let source = match name {
                "out" => super::super::source::Source::dir(&path).unwrap(),
                _ => super::super::source::Source::tar(&path, dir.path()).unwrap(),
            };
            assert_eq!(source.small(&blob_name(&digest), 100).unwrap().as_deref(), Some(&blob[..]));
            assert_eq!(source.small("index.json", 100).unwrap().as_deref(), Some(&b"{}"[..]));
            if name == "out" {
                assert!(Sink::dir(&path).is_err(), "a directory that holds something is not written to");
                fs::remove_dir_all(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn a_blob_that_lies_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"content");
        let table: [(u64, &[u8], Reason); 4] = [
            (7, b"kontent", Reason::DigestMismatch),
            (7, b"content and more", Reason::SizeMismatch),
            (6, b"content", Reason::SizeMismatch),
            (7, b"cont", Reason::IoError),
        ];
        for (size, bytes, want) in table {
            let mut sink = Sink::tar(&dir.path().join("x")).unwrap();
            assert_eq!(sink.blob(&digest, size, &mut &bytes[..]).unwrap_err().reason(), want, "{size} {bytes:?}");
        }
    }

    #[test]
    fn a_blob_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"content");
        let mut sink = Sink::dir(&dir.path().join("x")).unwrap();
        sink.blob(&digest, 7, &mut &b"content"[..]).unwrap();
        assert!(sink.has_blob(&digest));
        sink.blob(&digest, 7, &mut &b""[..]).unwrap();
    }
}
