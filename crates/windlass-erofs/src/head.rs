//! The first 4096 bytes: our own head, then the superblock.
//!
//! | offset | bytes | what, little-endian |
//! | --- | --- | --- |
//! | 0 | 16 | `windlass-layer 1` |
//! | 16, 24, 32 | 8 each | size of the tar, offset of the metadata, size of the file |
//! | 40 | 4 | crc32c of the metadata |
//! | 44 | 4 | crc32c of bytes 1024 to 4096 |
//! | 48 | 2 | length of the digest's text |
//! | 50 | 200 | the digest's text |
//! | 252 | 4 | crc32c of what stands between the tar and the metadata, then zeros to 1020 |
//! | 1020 | 4 | crc32c of bytes 0 to 1020 |
//!
//! Invariants: `a_head_is_read_as_it_was_written`; `no_head_but_a_whole_one_is_read`.

use crate::error::ReadError;
use crate::superblock::Superblock;
use crate::{BLOCK_BYTES, DATA_START};

/// Name and version of the layout.
const MAGIC: &[u8; 16] = b"windlass-layer 1";

/// Longest text of a digest; SHA-512 takes 135.
pub const DIGEST_TEXT_MAX: usize = 200;

/// Where the superblock begins; EROFS: `EROFS_SUPER_OFFSET`.
const SUPERBLOCK: usize = 1024;

const SUM: usize = SUPERBLOCK - 4;
const DIGEST: usize = 50;
const BETWEEN: usize = 252;

/// The first 4096 bytes of an image, to be written when all else is there.
pub type Front = Box<[u8; DATA_START as usize]>;

/// What an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Size of the tar, which begins at [`DATA_START`].
    pub tar_bytes: u64,
    /// Digest of the tar as text, e.g. `sha256:` and 64 digits; visible ASCII, not checked further.
    pub tar_digest: String,
    /// Where the metadata begins.
    pub metadata_offset: u64,
    /// Size of the file, which is where the metadata ends.
    pub total_bytes: u64,
    /// crc32c of the metadata.
    pub metadata_crc32c: u32,
    /// crc32c of what stands between the tar and the metadata.
    pub between_crc32c: u32,
}

/// Whether a digest's text can be kept.
pub(crate) fn is_digest_text(text: &[u8]) -> bool {
    (1..=DIGEST_TEXT_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

impl Head {
    /// The front of the file. The digest must be one that [`is_digest_text`] likes.
    pub(crate) fn front(&self, superblock: &Superblock) -> Front {
        let mut bytes = Box::new([0; DATA_START as usize]);
        bytes[SUPERBLOCK..SUPERBLOCK + Superblock::SIZE].copy_from_slice(&superblock.encode());
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..24].copy_from_slice(&self.tar_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.metadata_offset.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.metadata_crc32c.to_le_bytes());
        let rest = crc32c::crc32c(&bytes[SUPERBLOCK..]);
        bytes[44..48].copy_from_slice(&rest.to_le_bytes());
        let digest = self.tar_digest.as_bytes();
        let digest = &digest[..digest.len().min(DIGEST_TEXT_MAX)];
        bytes[48..50].copy_from_slice(&(digest.len() as u16).to_le_bytes());
        bytes[DIGEST..DIGEST + digest.len()].copy_from_slice(digest);
        bytes[BETWEEN..BETWEEN + 4].copy_from_slice(&self.between_crc32c.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..SUM]);
        bytes[SUM..SUPERBLOCK].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the front of a file of this size, and checks it against itself.
    pub(crate) fn parse(front: &[u8; DATA_START as usize], size_bytes: u64) -> Result<(Head, Superblock), ReadError> {
        if front[..16] != MAGIC[..] {
            return Err(ReadError::NotALayer);
        }
        if crc32c::crc32c(&front[..SUM]) != u32_at(front, SUM) {
            return Err(ReadError::Sum { what: "head" });
        }
        if crc32c::crc32c(&front[SUPERBLOCK..]) != u32_at(front, 44) {
            return Err(ReadError::Sum { what: "superblock" });
        }
        let digest = usize::from(u16::from_le_bytes([front[48], front[49]]));
        let digest = front.get(DIGEST..DIGEST + digest).filter(|text| is_digest_text(text));
        let digest = digest.and_then(|text| str::from_utf8(text).ok()).ok_or_else(|| damaged("its digest"))?;
        let head = Head {
            tar_bytes: u64_at(front, 16),
            tar_digest: digest.to_owned(),
            metadata_offset: u64_at(front, 24),
            total_bytes: u64_at(front, 32),
            metadata_crc32c: u32_at(front, 40),
            between_crc32c: u32_at(front, BETWEEN),
        };
        if head.total_bytes != size_bytes {
            return Err(ReadError::Size { size_bytes, want_bytes: head.total_bytes });
        }
        head.check()?;
        let superblock = Superblock::parse(&front[SUPERBLOCK..SUPERBLOCK + 512])?;
        if superblock.metadata_offset() != head.metadata_offset {
            return Err(damaged("where its metadata begins"));
        }
        Ok((head, superblock))
    }

    fn check(&self) -> Result<(), ReadError> {
        let tar_end = DATA_START.checked_add(self.tar_bytes);
        if tar_end.is_none_or(|end| end > self.metadata_offset) {
            return Err(damaged("the size of its tar"));
        }
        let aligned = [self.metadata_offset, self.total_bytes].iter().all(|at| at.is_multiple_of(BLOCK_BYTES));
        if !aligned || self.metadata_offset >= self.total_bytes {
            return Err(damaged("the place of its metadata"));
        }
        Ok(())
    }
}

fn damaged(what: &'static str) -> ReadError {
    ReadError::Damaged { what, at: 0 }
}

fn u32_at(bytes: &[u8; DATA_START as usize], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; DATA_START as usize], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> (Head, Superblock) {
        let head = Head {
            tar_bytes: 10_240,
            tar_digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            metadata_offset: 4096 + 10_240,
            total_bytes: 4096 + 10_240 + 1024,
            metadata_crc32c: 0x0102_0304,
            between_crc32c: 0x0506_0708,
        };
        let blocks = (head.total_bytes / BLOCK_BYTES) as u32;
        let metadata_block = (head.metadata_offset / BLOCK_BYTES) as u32;
        let common_mtime = crate::Time { seconds: 1_735_689_600, nanos: 7 };
        (head, Superblock { root: 1, inodes: 3, common_mtime, blocks, metadata_block, uuid: *b"0123456789abcdef" })
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let (head, superblock) = head();
        let front = head.front(&superblock);
        assert_eq!(Head::parse(&front, head.total_bytes).unwrap(), (head.clone(), superblock.clone()));
        let (longest, shortest) = ("x".repeat(DIGEST_TEXT_MAX), "y".to_owned());
        for tar_digest in [longest, shortest] {
            let head = Head { tar_digest, ..head.clone() };
            let front = head.front(&superblock);
            assert_eq!(Head::parse(&front, head.total_bytes).unwrap().0, head);
        }
    }

    #[test]
    fn no_head_but_a_whole_one_is_read() {
        let (head, superblock) = head();
        let front = head.front(&superblock);
        for at in 0..front.len() {
            let mut other = front.clone();
            other[at] ^= 0x10;
            let error = Head::parse(&other, head.total_bytes).unwrap_err();
            let want = match at {
                0..16 => matches!(error, ReadError::NotALayer),
                16..1024 => matches!(error, ReadError::Sum { what: "head" }),
                _ => matches!(error, ReadError::Sum { what: "superblock" }),
            };
            assert!(want, "{at}: {error}");
        }
        let error = Head::parse(&front, head.total_bytes + 1).unwrap_err();
        assert!(matches!(error, ReadError::Size { .. }), "{error}");
    }

    #[test]
    fn numbers_that_contradict_each_other_are_damage_even_with_their_sum() {
        let (good, superblock) = head();
        let table = [
            Head { tar_bytes: 10_241, ..good.clone() },
            Head { tar_bytes: u64::MAX, ..good.clone() },
            Head { metadata_offset: good.metadata_offset + 1, ..good.clone() },
            Head { metadata_offset: good.metadata_offset + 512, ..good.clone() },
            Head { metadata_offset: good.total_bytes, ..good.clone() },
            Head { total_bytes: good.total_bytes + 1, ..good.clone() },
            Head { tar_digest: String::new(), ..good.clone() },
            Head { tar_digest: "with space".to_owned(), ..good },
        ];
        for head in table {
            let error = Head::parse(&head.front(&superblock), head.total_bytes).unwrap_err();
            assert!(matches!(error, ReadError::Damaged { .. }), "{head:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_head_panic(
            bytes in proptest::collection::vec(any::<u8>(), 1008),
            size_bytes in any::<u64>(),
            digest in 0_u16..300,
        ) {
            let mut front = Box::new([0; DATA_START as usize]);
            front[..16].copy_from_slice(MAGIC);
            front[16..SUPERBLOCK].copy_from_slice(&bytes);
            front[48..50].copy_from_slice(&digest.to_le_bytes());
            front[32..40].copy_from_slice(&size_bytes.to_le_bytes());
            let rest = crc32c::crc32c(&front[SUPERBLOCK..]);
            front[44..48].copy_from_slice(&rest.to_le_bytes());
            let sum = crc32c::crc32c(&front[..SUM]);
            front[SUM..SUPERBLOCK].copy_from_slice(&sum.to_le_bytes());
            prop_assert!(Head::parse(&front, size_bytes).is_err());
        }
    }
}
