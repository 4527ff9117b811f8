//! The files of an image layout or archive, by name, wherever they lie.
//!
//! In: a directory, a tar file, or a stream (spooled to an unnamed file first, decompressed if need be). Out:
//! readers of members by name. Nothing here is believed: names are only looked up, sizes only bound reads, and
//! every content is checked by its digest further up.
//!
//! Invariants: `members_are_found_by_name_wherever_they_lie`, `a_directory_is_not_left_through_links`,
//! `archives_are_bounded_in_members`, `compressed_archives_are_read_too`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use windlass_core::reason::Reason;

use crate::PullError;

/// Most members of one archive. 500 layers in 100 images stay below it.
const MEMBERS_MAX: usize = 65_536;
/// Longest archive that is decompressed or taken from a stream. The limit of an image's unpacked size.
const SPOOL_BYTES_MAX: u64 = 256 << 30;
/// Longest chain of links from one member to another. docker save wrote one.
const LINKS_MAX: usize = 8;

/// Where the members are.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Dir(File),
    Tar { file: Arc<File>, members: HashMap<String, Member> },
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, size_bytes: u64 },
    Link { target: String },
}

/// One member, open.
#[derive(Debug)]
pub(crate) struct Opened {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Opened {
    /// Length of the member in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Opened {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = out.len().min(left);
        let got = self.file.read_at(&mut out[..want], self.at)?;
        if got == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        Ok(got)
    }
}

impl Source {
    /// Opens a directory.
    pub(crate) fn dir(path: &Path) -> Result<Source, PullError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io_error(path, errno.into()))?;
        Ok(Source { path: path.to_owned(), form: Form::Dir(dir.into()) })
    }

    /// Opens a tar file, plain or compressed by gzip or zstd; `-` is standard input. What cannot be read twice is
    /// first written to an unnamed file in `spool_dir`.
    pub(crate) fn tar(path: &Path, spool_dir: &Path) -> Result<Source, PullError> {
        let file = if path == Path::new("-") {
            spool(path, io::stdin().lock(), spool_dir)?
        } else {
            let file = File::open(path).map_err(|error| io_error(path, error))?;
            if !file.metadata().map_err(|error| io_error(path, error))?.is_file() {
                spool(path, file, spool_dir)?
            } else if magic(&file).map_err(|error| io_error(path, error))? == Magic::Plain {
                file
            } else {
                spool(path, file, spool_dir)?
            }
        };
        let members = index_members(&file, path)?;
        Ok(Source { path: path.to_owned(), form: Form::Tar { file: Arc::new(file), members } })
    }

    /// What errors call this source.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a member; `None` if there is none of that name.
    pub(crate) fn open(&self, name: &str) -> Result<Option<Opened>, PullError> {
        match &self.form {
            Form::Dir(dir) => self.open_in_dir(dir, name),
            Form::Tar { file, members } => Ok(find(members, name).map(|(offset, size_bytes)| Opened {
                file: file.clone(),
                at: offset,
                end: offset + size_bytes,
            })),
        }
    }

    fn open_in_dir(&self, dir: &File, name: &str) -> Result<Option<Opened>, PullError> {
        // NONBLOCK: a named pipe must not hang the open.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file: File = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Ok(file) => file.into(),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
                let what = format!("{name} is a link that leads out of the layout");
                return Err(PullError::Layout { path: self.path.clone(), what, reason: Reason::UnsafePath });
            }
            Err(errno) => return Err(io_error(&self.path.join(name), errno.into())),
        };
        let meta = file.metadata().map_err(|error| io_error(&self.path.join(name), error))?;
        if !meta.is_file() {
            return Err(self.bad(format!("{name} is not a regular file")));
        }
        Ok(Some(Opened { file: Arc::new(file), at: 0, end: meta.len() }))
    }

    /// Reads a small member whole; `None` if there is none.
    pub(crate) fn small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, PullError> {
        let Some(mut member) = self.open(name)? else { return Ok(None) };
        if member.size_bytes() > limit {
            return Err(PullError::Layout {
                path: self.path.clone(),
                what: format!("{name} has {} bytes, the limit is {limit}", member.size_bytes()),
                reason: Reason::LimitExceeded,
            });
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|error| io_error(&self.path.join(name), error))?;
        Ok(Some(bytes))
    }

    /// An error that this source breaks a rule of its format.
    pub(crate) fn bad(&self, what: impl Into<String>) -> PullError {
        PullError::Layout { path: self.path.clone(), what: what.into(), reason: Reason::BadManifest }
    }
}

/// Follows links between members; `None` if the name leads nowhere.
fn find(members: &HashMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = clean(Path::new(name))?;
    for _ in 0..LINKS_MAX {
        match members.get(&name)? {
            Member::File { offset, size_bytes } => return Some((*offset, *size_bytes)),
            Member::Link { target } => name = target.clone(),
        }
    }
    None
}

/// A member's name without `.` and with `..` resolved inside the archive; `None` if it would leave it.
fn clean(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// One pass over the headers of a tar file: the name of each member and where it lies.
fn index_members(file: &File, path: &Path) -> Result<HashMap<String, Member>, PullError> {
    let archive_error = |error: io::Error| PullError::Layout {
        path: path.to_owned(),
        what: format!("not a tar archive: {error}"),
        reason: Reason::BadArchive,
    };
    let mut reader = file;
    reader.seek(SeekFrom::Start(0)).map_err(|error| io_error(path, error))?;
    let size_bytes = file.metadata().map_err(|error| io_error(path, error))?.len();
    let mut archive = tar::Archive::new(reader);
    let mut members = HashMap::new();
    for entry in archive.entries_with_seek().map_err(archive_error)? {
        let entry = entry.map_err(archive_error)?;
        if members.len() >= MEMBERS_MAX {
            return Err(PullError::Layout {
                path: path.to_owned(),
                what: format!("more than {MEMBERS_MAX} members"),
                reason: Reason::LimitExceeded,
            });
        }
        let Some(name) = entry.path().ok().and_then(|name| clean(&name)) else { continue };
        let (offset, length) = (entry.raw_file_position(), entry.size());
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if offset.checked_add(length).is_none_or(|end| end > size_bytes) {
                    return Err(archive_error(io::ErrorKind::UnexpectedEof.into()));
                }
                members.insert(name, Member::File { offset, size_bytes: length });
            }
            kind @ (tar::EntryType::Link | tar::EntryType::Symlink) => {
                let Ok(Some(target)) = entry.link_name() else { continue };
                let base = match kind {
                    tar::EntryType::Symlink => Path::new(&name).parent().unwrap_or(Path::new("")),
                    _ => Path::new(""),
                };
                if let Some(target) = clean(&base.join(target)) {
                    members.insert(name, Member::Link { target });
                }
            }
            _ => {}
        }
    }
    Ok(members)
}

#[derive(Debug, PartialEq, Eq)]
enum Magic {
    Plain,
    Gzip,
    Zstd,
}

fn magic(file: &File) -> io::Result<Magic> {
    let mut head = [0; 4];
    let got = file.read_at(&mut head, 0)?;
    Ok(magic_of(&head[..got]))
}

fn magic_of(head: &[u8]) -> Magic {
    match head {
        [0x1f, 0x8b, ..] => Magic::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Magic::Zstd,
        _ => Magic::Plain,
    }
}

/// Copies a stream to an unnamed file, decompressed.
fn spool(path: &Path, mut input: impl Read, spool_dir: &Path) -> Result<File, PullError> {
    let mut head = Vec::new();
    input.by_ref().take(4).read_to_end(&mut head).map_err(|error| io_error(path, error))?;
    let kind = magic_of(&head);
    let input = io::Cursor::new(head).chain(input);
    let mut plain: Box<dyn Read + '_> = match kind {
        Magic::Plain => Box::new(input),
        Magic::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Magic::Zstd => Box::new(zstd::Decoder::new(input).map_err(|error| io_error(path, error))?),
    };
    let mut file = tempfile::tempfile_in(spool_dir).map_err(|error| io_error(spool_dir, error))?;
    let copied = io::copy(&mut plain.by_ref().take(SPOOL_BYTES_MAX + 1), &mut file);
    let failed = |error: io::Error| match (kind, error.raw_os_error()) {
        // What no system call said, the decoder did.
        (Magic::Gzip | Magic::Zstd, None) => {
            let what = format!("it cannot be decompressed: {error}");
            PullError::Layout { path: path.to_owned(), what, reason: Reason::BadCompression }
        }
        (Magic::Gzip | Magic::Zstd, Some(_)) | (Magic::Plain, _) => io_error(path, error),
    };
    match copied.map_err(failed)? {
        bytes if bytes > SPOOL_BYTES_MAX => Err(PullError::Layout {
            path: path.to_owned(),
            what: format!("more than {SPOOL_BYTES_MAX} bytes"),
            reason: Reason::LimitExceeded,
        }),
        _ => Ok(file),
    }
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> PullError {
    PullError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn archive(entries: &[(&str, tar::EntryType, &[u8], &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, bytes, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            if link.is_empty() {
                builder.append_data(&mut header, name, *bytes).unwrap();
            } else {
                builder.append_link(&mut header, name, link).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn content(source: &Source, name: &str) -> Option<String> {
        source.small(name, 1 << 20).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_link_out_of_a_layout_and_a_cut_stream_are_the_archives_fault() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("index.json")).unwrap();
        let source = Source::dir(dir.path()).unwrap();
        assert_eq!(source.small("index.json", 1).unwrap_err().reason(), Reason::UnsafePath);
        let bytes = archive(&[("a", tar::EntryType::Regular, b"content", "")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let (gzip, zstd) = (gzip.finish().unwrap(), zstd::encode_all(bytes.as_slice(), 1).unwrap());
        for (name, packed) in [("gzip", gzip), ("zstd", zstd)] {
            let path = dir.path().join(name);
            std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
            assert_eq!(Source::tar(&path, dir.path()).unwrap_err().reason(), Reason::BadCompression, "{name}");
        }
    }

    #[test]
    fn members_are_found_by_name_wherever_they_lie() {
        use tar::EntryType::{Link, Regular, Symlink};
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive(&[
            ("./blobs/sha256/ab", Regular, b"one", ""),
            ("a/layer.tar", Symlink, b"", "../b/layer.tar"),
            ("b/layer.tar", Regular, b"two", ""),
            ("c", Link, b"", "b/layer.tar"),
            ("loop", Symlink, b"", "loop"),
            ("out", Symlink, b"", "../../etc/passwd"),
        ]);
        let path = dir.path().join("x.tar");
        std::fs::write(&path, bytes).unwrap();
        let source = Source::tar(&path, dir.path()).unwrap();
        assert_eq!(content(&source, "blobs/sha256/ab").as_deref(), Some("one"));
        assert_eq!(content(&source, "a/layer.tar").as_deref(), Some("two"));
        assert_eq!(content(&source, "c").as_deref(), Some("two"));
        for missing in ["loop", "out", "nope", "../x.tar"] {
            assert_eq!(content(&source, missing), None, "{missing}");
        }
        assert!(matches!(source.small("c", 2), Err(PullError::Layout { reason: Reason::LimitExceeded, .. })));
    }

    #[test]
    fn compressed_archives_are_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive(&[("a", tar::EntryType::Regular, b"one", "")]);
        let path = dir.path().join("x");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        for packed in [gzip.finish().unwrap(), zstd::encode_all(&bytes[..], 1).unwrap()] {
            std::fs::write(&path, packed).unwrap();
            assert_eq!(content(&Source::tar(&path, dir.path()).unwrap(), "a").as_deref(), Some("one"));
        }
    }

    #[test]
    fn cut_archives_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive(&[("a", tar::EntryType::Regular, &[7; 4096], "")]);
        let path = dir.path().join("x");
        std::fs::write(&path, &bytes[..1024]).unwrap();
        assert_eq!(Source::tar(&path, dir.path()).unwrap_err().reason(), Reason::BadArchive);
        std::fs::write(&path, b"this is no archive at all, not even close to one").unwrap();
        assert_eq!(Source::tar(&path, dir.path()).unwrap_err().reason(), Reason::BadArchive);
    }

    #[test]
    fn a_directory_is_not_left_through_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let layout = dir.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        std::fs::write(layout.join("in"), "fine").unwrap();
        std::os::unix::fs::symlink("in", layout.join("link")).unwrap();
        std::os::unix::fs::symlink("../secret", layout.join("out")).unwrap();
        let source = Source::dir(&layout).unwrap();
        assert_eq!(content(&source, "in").as_deref(), Some("fine"));
        assert_eq!(content(&source, "link").as_deref(), Some("fine"));
        assert_eq!(content(&source, "missing"), None);
        assert!(source.open("out").is_err() && source.open("../secret").is_err());
    }

    #[test]
    fn archives_are_bounded_in_members() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        let mut file = io::BufWriter::new(File::create(&path).unwrap());
        for n in 0..=MEMBERS_MAX {
            header.set_path(format!("{n}")).unwrap();
            header.set_cksum();
            file.write_all(header.as_bytes()).unwrap();
        }
        file.flush().unwrap();
        drop(file);
        assert_eq!(Source::tar(&path, dir.path()).unwrap_err().reason(), Reason::LimitExceeded);
    }
}
