//! `windlass inspect --files`: every file of an image, without mounting it. Written entry by entry, so that an image of
//! a million files takes no more memory than a small one.
//!
//! Invariants: `the_files_of_an_image_are_listed_in_every_form`, `a_mode_reads_as_ls_prints_it`.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::ops::ControlFlow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use windlass_core::reason::Reason;
use windlass_store::{FileEntry, FileKind, Store};

use crate::args::Format;
use crate::failure::{Failure, shown};
use crate::output::API_VERSION;
use crate::session::Session;
use crate::wire::store_failure;

/// Size of the buffer before standard output.
const BUFFER_BYTES: usize = 64 << 10;

pub(super) fn run(store: &Store, name: &str, session: &Session) -> Result<(), Failure> {
    let what = format!("cannot list the files of {name}");
    let failed = |error| store_failure(&what, &error);
    let image = store.find(name).map_err(failed)?;
    let image = image.ok_or_else(|| Failure::new(Reason::ImageUnknown, &what, "no such image is here"))?;
    let form = match (session.screen.format, session.screen.quiet) {
        (Format::Table | Format::Wide, true) | (Format::Name, _) => Form::Names,
        (Format::Table | Format::Wide, false) => Form::Table,
        (Format::Json, _) => Form::Json,
        (Format::Yaml, _) => Form::Yaml,
    };
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let mut written = begin(form, image.id.as_str(), &mut out);
    let mut count = 0u64;
    let mut each = |entry: &FileEntry<'_>| {
        if written.is_ok() {
            written = one(form, entry, count, &mut out);
        }
        count += 1;
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let listed = store.files(&image, &mut each);
    let ended = written.and_then(|()| if listed.is_ok() { end(form, count, &mut out) } else { Ok(()) });
    match ended.and_then(|()| out.flush()) {
        // A reader that has gone away (`| head`) is not a failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Reason::IoError, "cannot write to standard output", error.to_string())),
        Ok(()) => listed.map_err(failed),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Table,
    Names,
    Json,
    Yaml,
}

type Out<'o> = BufWriter<StdoutLock<'o>>;

fn begin(form: Form, image: &str, out: &mut Out<'_>) -> io::Result<()> {
    match form {
        Form::Table => writeln!(out, "MODE         OWNER         SIZE           MODIFIED               PATH"),
        Form::Names => Ok(()),
        Form::Json => {
            let head = json!({ "apiVersion": API_VERSION, "kind": "FileList", "image": image }).to_string();
            // The document goes on where its object would end.
            write!(out, "{},\"items\":[", head.trim_end_matches('}'))
        }
        Form::Yaml => write!(out, "apiVersion: {API_VERSION}\nkind: FileList\nimage: {image}\nitems:\n"),
    }
}

fn one(form: Form, entry: &FileEntry<'_>, before: u64, out: &mut Out<'_>) -> io::Result<()> {
    match form {
        Form::Table => writeln!(out, "{}", row(entry)),
        Form::Names => writeln!(out, "{}", line(&path(entry))),
        Form::Json => write!(out, "{}\n{}", if before == 0 { "" } else { "," }, item(entry)),
        // What JSON can say, YAML reads.
        Form::Yaml => writeln!(out, "- {}", item(entry)),
    }
}

fn end(form: Form, count: u64, out: &mut Out<'_>) -> io::Result<()> {
    match form {
        Form::Table | Form::Names => Ok(()),
        Form::Json => writeln!(out, "\n]}}"),
        Form::Yaml if count == 0 => writeln!(out, "[]"),
        Form::Yaml => Ok(()),
    }
}

/// One line as `ls -l` and `tar -tv` have it; sizes in bytes, owners by number, since the names are the image's.
fn row(entry: &FileEntry<'_>) -> String {
    let owner = format!("{}:{}", entry.uid, entry.gid);
    let size = match entry.kind {
        FileKind::File { size_bytes } => size_bytes.to_string(),
        FileKind::Device(device) => format!("{},{}", device.major, device.minor),
        FileKind::Directory | FileKind::Symlink(_) | FileKind::Fifo => "-".to_owned(),
    };
    let target = match entry.kind {
        FileKind::Symlink(target) => format!(" -> {}", line(target)),
        FileKind::Directory | FileKind::File { .. } | FileKind::Device(_) | FileKind::Fifo => String::new(),
    };
    let (mode, time, path) = (mode(entry), time(entry), line(&path(entry)));
    format!("{mode}   {owner:<11}   {size:>12}   {time:<20}   {path}{target}")
}

/// A name on one line: bytes that are no text and control characters are spelled out.
fn line(name: &[u8]) -> String {
    let text: String = name
        .utf8_chunks()
        .flat_map(|chunk| {
            let rest = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            std::iter::once(chunk.valid().to_owned()).chain(rest)
        })
        .collect();
    shown(&text).replace('\n', "\\n")
}

fn path(entry: &FileEntry<'_>) -> Vec<u8> {
    [b"/", entry.path].concat()
}

const fn kind(kind: FileKind<'_>) -> (char, &'static str) {
    match kind {
        FileKind::Directory => ('d', "directory"),
        FileKind::File { .. } => ('-', "file"),
        FileKind::Symlink(_) => ('l', "symlink"),
        FileKind::Device(device) if device.block => ('b', "block-device"),
        FileKind::Device(_) => ('c', "character-device"),
        FileKind::Fifo => ('p', "fifo"),
    }
}

/// The letters of `ls -l`.
fn mode(entry: &FileEntry<'_>) -> String {
    let mut letters = vec![kind(entry.kind).0];
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = entry.mode >> shift;
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        letters.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    letters.into_iter().collect()
}

/// The time of the last change in whole seconds; as a number where no calendar has it.
fn time(entry: &FileEntry<'_>) -> String {
    let seconds = entry.mtime.seconds;
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn item(entry: &FileEntry<'_>) -> Json {
    let exact = Timestamp::new(entry.mtime.seconds, i32::try_from(entry.mtime.nanos).unwrap_or_default());
    let mut item = json!({
        "type": kind(entry.kind).1,
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": exact.map_or_else(|_| time(entry), |time| time.to_string()),
    });
    put_bytes(&mut item, "path", &path(entry));
    match entry.kind {
        FileKind::File { size_bytes } => item["sizeBytes"] = size_bytes.into(),
        FileKind::Symlink(target) => put_bytes(&mut item, "target", target),
        FileKind::Device(device) => item["device"] = json!({ "major": device.major, "minor": device.minor }),
        FileKind::Directory | FileKind::Fifo => {}
    }
    item
}

/// Bytes as text; those that are none also exactly, in base64.
fn put_bytes(item: &mut Json, key: &str, bytes: &[u8]) {
    item[key] = String::from_utf8_lossy(bytes).into();
    if str::from_utf8(bytes).is_err() {
        item[format!("{key}Base64")] = STANDARD.encode(bytes).into();
    }
}

#[cfg(test)]
mod tests {
    use windlass_store::layer::tar::Time;

    use super::*;

    fn entry(kind: FileKind<'static>, mode: u32) -> FileEntry<'static> {
        FileEntry { path: b"a", kind, mode, uid: 0, gid: 0, mtime: Time::default() }
    }

    #[test]
    fn a_mode_reads_as_ls_prints_it() {
        let file = FileKind::File { size_bytes: 0 };
        let table = [
            (FileKind::Directory, 0o755, "drwxr-xr-x"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Directory, 0o1776, "drwxrwxrwT"),
            (file, 0o4755, "-rwsr-xr-x"),
            (file, 0o4644, "-rwSr--r--"),
            (file, 0o2711, "-rwx--s--x"),
            (file, 0o2701, "-rwx--S--x"),
            (FileKind::Symlink(b"x"), 0o777, "lrwxrwxrwx"),
            (FileKind::Fifo, 0, "p---------"),
        ];
        for (kind, bits, want) in table {
            assert_eq!(mode(&entry(kind, bits)), want, "{bits:o}");
        }
    }

    #[test]
    fn a_name_stays_on_its_line_and_is_kept_exactly_for_programs() {
        assert_eq!(line(b"/a\nb\x1b[2J\xff\xc3\xa9"), "/a\\nb\\u{1b}[2J\\xff\u{e9}");
        let odd = FileEntry { path: b"\xff", ..entry(FileKind::Fifo, 0) };
        assert_eq!((item(&odd)["path"].as_str(), item(&odd)["pathBase64"].as_str()), (Some("/\u{fffd}"), Some("L/8=")));
        assert!(item(&entry(FileKind::Fifo, 0)).get("pathBase64").is_none());
    }
}
