//! One header block: its sum, its dialect, its fields (Go `format.go`, `reader.go` `readHeader`).

use super::number::{Time, numeric, octal, text};
use super::{BLOCK, Entry, Kind, Malformed, Refusal};

/// A header block whose sum fits.
pub(super) struct Header(pub(super) [u8; BLOCK]);

/// Who wrote the block, found by its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// What a block announces.
pub(super) enum Type {
    /// An entry of a kind that may be created.
    Entry(Kind),
    /// A regular file of the oldest form: a directory if its name ends in a slash.
    OldFile,
    /// A sparse file in GNU's old form.
    Sparse,
    /// Extended header for the next entry.
    Extended,
    /// Extended header for all entries; skipped.
    Global,
    /// Long name, or long link target, of the next entry.
    LongName,
    LongLink,
}

impl Header {
    /// Checks the sum, as unsigned bytes or as signed ones (old Sun programs).
    pub(super) fn check(block: [u8; BLOCK]) -> Result<Header, Malformed> {
        let stated = octal(&block[148..156])?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated != unsigned && stated != signed {
            return Err("the checksum of a header does not fit");
        }
        Ok(Header(block))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match (&self.0[257..263], &self.0[263..265], &self.0[508..512]) {
            (b"ustar\0", b"00", b"tar\0") => Dialect::Star,
            (b"ustar\0", _, b"tar\0") => Dialect::Star,
            (b"ustar\0", _, _) => Dialect::Ustar,
            (b"ustar ", b" \0", _) => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    pub(super) fn kind(&self) -> Result<Type, Refusal> {
        Ok(match self.0[156] {
            0 => Type::OldFile,
            b'0' => Type::Entry(Kind::File),
            b'1' => Type::Entry(Kind::HardLink),
            b'2' => Type::Entry(Kind::Symlink),
            b'3' => Type::Entry(Kind::CharDevice),
            b'4' => Type::Entry(Kind::BlockDevice),
            b'5' => Type::Entry(Kind::Directory),
            b'6' => Type::Entry(Kind::Fifo),
            b'S' => Type::Sparse,
            b'x' => Type::Extended,
            b'g' => Type::Global,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            b'7' => return Err(Refusal::Unsupported("contiguous files are not supported")),
            b'V' => return Err(Refusal::Unsupported("volume labels are not supported")),
            b'M' => return Err(Refusal::Unsupported("archives over several volumes are not supported")),
            _ => return Err(Refusal::Unsupported("its type is not known")),
        })
    }

    /// Bytes of data that follow, as stated.
    pub(super) fn size(&self) -> Result<u64, Malformed> {
        u64::try_from(numeric(&self.0[124..136])?).map_err(|_| "a negative size")
    }

    /// Fills everything but kind and size.
    pub(super) fn read(&self, into: &mut Entry) -> Result<(), Malformed> {
        let block = &self.0;
        into.clear();
        into.mode = numeric(&block[100..108])?;
        into.uid = numeric(&block[108..116])?;
        into.gid = numeric(&block[116..124])?;
        into.mtime = Time { seconds: numeric(&block[136..148])?, nanos: 0 };
        into.link.extend_from_slice(text(&block[157..257]));
        let dialect = self.dialect();
        if dialect != Dialect::V7 {
            into.device = (numeric(&block[329..337])?, numeric(&block[337..345])?);
        }
        let prefix = match dialect {
            Dialect::V7 => &block[..0],
            Dialect::Ustar => text(&block[345..500]),
            Dialect::Star => {
                numeric(&block[476..488])?;
                numeric(&block[488..500])?;
                text(&block[345..476])
            }
            Dialect::Gnu => self.misplaced_prefix(),
        };
        if !prefix.is_empty() {
            into.name.extend_from_slice(prefix);
            into.name.push(b'/');
        }
        into.name.extend_from_slice(text(&block[..100]));
        Ok(())
    }

    /// Go before 1.8 wrote a ustar prefix into GNU headers, where two times belong; Go still reads that.
    fn misplaced_prefix(&self) -> &[u8] {
        let time = |field: &[u8]| field[0] == 0 || numeric(field).is_ok();
        let prefix = text(&self.0[345..500]);
        if time(&self.0[345..357]) && time(&self.0[357..369]) || !prefix.is_ascii() { &[] } else { prefix }
    }
}
