//! The superblock of EROFS: where the kernel begins.
//!
//! It has no checksum of its own, as those of `mkfs.erofs` for blocks of 512 bytes have none: the kernel would take it,
//! but `fsck.erofs` 1.8 reads beyond its buffer then. [`crate::Head`] has one instead.

use crate::BLOCK_BYTES;
use crate::attributes::Time;
use crate::error::ReadError;

/// EROFS: `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u32 = 0xe0f5_e1e2;

/// log2 of [`BLOCK_BYTES`].
const BLOCK_BITS: u8 = 9;

/// Times of inodes are times of change. EROFS: `EROFS_FEATURE_COMPAT_MTIME`.
const MTIME: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) root: u16,
    pub(crate) inodes: u64,
    /// Time of the last change of all compact inodes; not before 1970.
    pub(crate) common_mtime: Time,
    /// Blocks of the whole file.
    pub(crate) blocks: u32,
    /// Block at which the metadata begins; inode numbers count from there.
    pub(crate) metadata_block: u32,
    pub(crate) uuid: [u8; 16],
}

impl Superblock {
    /// Bytes of it that are not zero.
    pub(crate) const SIZE: usize = 128;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&MTIME.to_le_bytes());
        bytes[12] = BLOCK_BITS;
        bytes[14..16].copy_from_slice(&self.root.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.inodes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.common_mtime.seconds.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.common_mtime.nanos.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.metadata_block.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.uuid);
        bytes
    }

    /// Reads the block in which the superblock is. Only what [`Superblock::encode`] makes is taken.
    pub(crate) fn parse(block: &[u8]) -> Result<Superblock, ReadError> {
        let damaged = |what| ReadError::Damaged { what, at: 1024 };
        let bytes: &[u8; Self::SIZE] = block.first_chunk().ok_or(damaged("no superblock"))?;
        if bytes[0..4] != MAGIC.to_le_bytes() {
            return Err(damaged("no superblock"));
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[48..64]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let superblock = Superblock {
            root: u16::from_le_bytes([bytes[14], bytes[15]]),
            inodes: u64_at(16),
            common_mtime: Time { seconds: u64_at(24).cast_signed(), nanos: u32_at(32) },
            blocks: u32_at(36),
            metadata_block: u32_at(40),
            uuid,
        };
        // Features and the block size are all in this comparison.
        if superblock.encode() != *bytes {
            return Err(ReadError::Unsupported { what: "another superblock", at: 1024 });
        }
        if superblock.common_mtime.seconds < 0 || superblock.common_mtime.nanos > 999_999_999 {
            return Err(damaged("the time in the superblock"));
        }
        Ok(superblock)
    }

    pub(crate) fn metadata_offset(&self) -> u64 {
        u64::from(self.metadata_block) * BLOCK_BYTES
    }
}
