//! Blocks of a directory: entries of 12 bytes, then their names, as many as fit into one block.
//!
//! | offset in an entry | bytes | what, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | number of the inode |
//! | 8 | 2 | where the name begins in the block |
//! | 10 | 1 | kind |
//!
//! The first name tells how many entries there are; the last one ends with the block, or with a NUL. Entries, `.` and
//! `..` among them, are sorted by bytes over all blocks.
//! Source of truth: Linux `fs/erofs/dir.c`, `fs/erofs/namei.c`.

use crate::BLOCK_BYTES;

/// Bytes of an entry without its name.
pub(crate) const ENTRY_BYTES: usize = 12;

const BLOCK: usize = BLOCK_BYTES as usize;

/// Bytes that a block takes which holds names of these lengths; `None` when they do not fit.
pub(crate) fn grown(used: usize, name_bytes: usize) -> Option<usize> {
    Some(used + ENTRY_BYTES + name_bytes).filter(|&used| used <= BLOCK)
}

/// One entry to be encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) nid: u64,
    pub(crate) code: u8,
}

/// Appends a block without padding.
pub(crate) fn encode<'a>(entries: impl Iterator<Item = RawEntry<'a>> + Clone, out: &mut Vec<u8>) {
    let mut name_at = entries.clone().count() * ENTRY_BYTES;
    for entry in entries.clone() {
        out.extend_from_slice(&entry.nid.to_le_bytes());
        out.extend_from_slice(&(name_at as u16).to_le_bytes());
        out.extend_from_slice(&[entry.code, 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        out.extend_from_slice(entry.name);
    }
}

/// A block as it was read: at most 512 bytes, checked as far as it was walked.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: [u8; BLOCK],
    used: usize,
    entries: usize,
}

impl Block {
    /// Takes a block of this many bytes; says what is wrong with it.
    pub(crate) fn new(bytes: [u8; BLOCK], used: usize) -> Result<Block, &'static str> {
        let mut block = Block { bytes, used: used.min(BLOCK), entries: 0 };
        let names = if block.used < ENTRY_BYTES { 0 } else { block.name_at(0) };
        if names < ENTRY_BYTES || !names.is_multiple_of(ENTRY_BYTES) || names > block.used {
            return Err("a directory's block without entries");
        }
        block.entries = names / ENTRY_BYTES;
        Ok(block)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// The entry of this index, which must be below [`Block::len`].
    pub(crate) fn get(&self, index: usize) -> Result<RawEntry<'_>, &'static str> {
        let at = index * ENTRY_BYTES;
        let end = if index + 1 < self.entries { self.name_at(index + 1) } else { self.used };
        let mut name =
            self.bytes[..self.used].get(self.name_at(index)..end).ok_or("a directory's names are mixed up")?;
        if index + 1 == self.entries {
            name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        }
        if name.is_empty() || name.len() > crate::NAME_MAX || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err("a name that no entry can have");
        }
        let (nid, rest) = self.bytes[at..].split_first_chunk().ok_or("a directory's block that ends early")?;
        Ok(RawEntry { name, nid: u64::from_le_bytes(*nid), code: rest[2] })
    }

    fn name_at(&self, index: usize) -> usize {
        let at = index * ENTRY_BYTES + 8;
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(bytes: &[u8]) -> Result<Block, &'static str> {
        let mut whole = [0; BLOCK];
        whole[..bytes.len()].copy_from_slice(bytes);
        Block::new(whole, bytes.len())
    }

    fn names(block: &Block) -> Result<Vec<Vec<u8>>, &'static str> {
        (0..block.len()).map(|index| Ok(block.get(index)?.name.to_vec())).collect()
    }

    #[test]
    fn a_block_is_what_the_format_says() {
        let entries = [(&b"."[..], 1, 2), (b"..", 1, 2), (b"file", 0x0102, 1)];
        let mut bytes = Vec::new();
        encode(entries.iter().map(|&(name, nid, code)| RawEntry { name, nid, code }), &mut bytes);
        let want = [
            &[1, 0, 0, 0, 0, 0, 0, 0, 36, 0, 2, 0][..],
            &[1, 0, 0, 0, 0, 0, 0, 0, 37, 0, 2, 0],
            &[2, 1, 0, 0, 0, 0, 0, 0, 39, 0, 1, 0],
            b"...file",
        ];
        assert_eq!(bytes, want.concat());
        assert_eq!(names(&block(&bytes).unwrap()).unwrap(), [&b"."[..], b"..", b"file"]);
        bytes.extend_from_slice(&[0; 5]);
        assert_eq!(names(&block(&bytes).unwrap()).unwrap(), [&b"."[..], b"..", b"file"]);
    }

    #[test]
    fn no_more_fits_than_there_is_room_for() {
        assert_eq!(grown(0, 255), Some(267));
        assert_eq!(grown(512 - 13, 1), Some(512));
        assert_eq!(grown(512 - 12, 1), None);
    }

    #[test]
    fn damaged_blocks_are_told_apart() {
        let no_entries = "a directory's block without entries";
        let table: [(&[u8], Result<usize, &str>); 6] = [
            (&[], Err(no_entries)),
            (&[0; 12], Err(no_entries)),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 13, 0, 1, 0, b'a'], Err(no_entries)),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 24, 0, 1, 0, b'a'], Err(no_entries)),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 12, 0, 1, 0, b'/'], Err("a name that no entry can have")),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 12, 0, 1, 0, b'a'], Ok(1)),
        ];
        for (bytes, want) in table {
            assert_eq!(block(bytes).and_then(|block| names(&block)).map(|names| names.len()), want, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_block_panic(bytes in proptest::collection::vec(prop_oneof![0_u8..40, any::<u8>()], 0..=512)) {
            let _either = block(&bytes).map(|block| names(&block));
        }
    }
}
