//! The extended inode of EROFS: 64 bytes, with full ids and nanoseconds.
//!
//! | offset | bytes | what, little-endian |
//! | --- | --- | --- |
//! | 0 | 2 | bit 0: extended; bits 1 to 3: the layout of the data |
//! | 2 | 2 | extended attributes: 0, or 1 + (their bytes - 12) / 4 |
//! | 4 | 2 | mode with the kind |
//! | 8 | 8 | size |
//! | 16 | 4 | first block, or device number |
//! | 20 | 4 | a number for `stat` on 32 bits |
//! | 24, 28 | 4 each | owner, group |
//! | 32, 40 | 8, 4 | seconds and nanoseconds |
//! | 44 | 4 | number of names |

use crate::attributes::{Device, Kind, Time};

/// Bytes of an inode.
pub(crate) const INODE_BYTES: u64 = 64;

/// Numbers of inodes count places of this size. EROFS: `EROFS_ISLOTBITS`.
pub(crate) const SLOT_BYTES: u64 = 32;

/// Where the data of an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In consecutive blocks.
    Plain,
    /// In consecutive blocks, what does not fill one right behind the inode.
    Inline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawInode {
    pub(crate) layout: Layout,
    pub(crate) xattr_count: u16,
    pub(crate) mode: u16,
    pub(crate) size_bytes: u64,
    /// First block, or the packed number of a device.
    pub(crate) block: u32,
    pub(crate) number: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) links: u32,
}

impl RawInode {
    pub(crate) fn encode(&self) -> [u8; INODE_BYTES as usize] {
        let mut bytes = [0; INODE_BYTES as usize];
        let layout: u16 = match self.layout {
            Layout::Plain => 0,
            Layout::Inline => 2,
        };
        bytes[0..2].copy_from_slice(&(1 | layout << 1).to_le_bytes());
        bytes[2..4].copy_from_slice(&self.xattr_count.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.mode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.block.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.uid.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.gid.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.mtime.seconds.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.mtime.nanos.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.links.to_le_bytes());
        bytes
    }

    /// Takes what [`RawInode::encode`] makes, and says what is unknown about anything else.
    pub(crate) fn parse(bytes: &[u8; INODE_BYTES as usize]) -> Result<RawInode, &'static str> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let layout = match u16_at(0) {
            0b0001 => Layout::Plain,
            0b0101 => Layout::Inline,
            _ => return Err("an inode of another layout"),
        };
        let unused = bytes[6..8].iter().chain(&bytes[48..64]);
        if unused.into_iter().any(|&byte| byte != 0) {
            return Err("an inode with more than is known");
        }
        let mtime = Time { seconds: u64_at(32).cast_signed(), nanos: u32_at(40) };
        Ok(RawInode {
            layout,
            xattr_count: u16_at(2),
            mode: u16_at(4),
            size_bytes: u64_at(8),
            block: u32_at(16),
            number: u32_at(20),
            uid: u32_at(24),
            gid: u32_at(28),
            mtime,
            links: u32_at(44),
        })
    }

    /// What the mode says it is; `None` for sockets and nonsense.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let device = |block| Kind::Device(Device::unpacked(block, self.block));
        let kind = match self.mode & 0o170_000 {
            0o040_000 => Kind::Directory,
            0o100_000 => Kind::File,
            0o120_000 => Kind::Symlink,
            0o020_000 => device(false),
            0o060_000 => device(true),
            0o010_000 => Kind::Fifo,
            _ => return None,
        };
        Some(kind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_inode_is_what_the_format_says() {
        let inode = RawInode {
            layout: Layout::Inline,
            xattr_count: 0x0102,
            mode: 0o120_777,
            size_bytes: 0x0304,
            block: 0x0506,
            number: 7,
            uid: 8,
            gid: 9,
            mtime: Time { seconds: -1, nanos: 10 },
            links: 11,
        };
        let mut want = [0; 64];
        want[0] = 0b101;
        want[2..4].copy_from_slice(&[2, 1]);
        want[4..6].copy_from_slice(&[0xff, 0xa1]);
        want[8..10].copy_from_slice(&[4, 3]);
        want[16..18].copy_from_slice(&[6, 5]);
        (want[20], want[24], want[28], want[40], want[44]) = (7, 8, 9, 10, 11);
        want[32..40].fill(0xff);
        assert_eq!(inode.encode(), want);
        assert_eq!(RawInode::parse(&want), Ok(inode));
        assert_eq!(inode.kind(), Some(Kind::Symlink));
        for (at, value) in [(0, 0b100), (0, 0b011), (1, 1), (6, 1), (7, 1), (48, 1), (63, 1)] {
            let mut other = want;
            other[at] = value;
            assert!(RawInode::parse(&other).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_encoded_as_it_was(bytes in any::<[u8; 32]>(), more in any::<[u8; 16]>()) {
            let mut whole = [0; 64];
            whole[..32].copy_from_slice(&bytes);
            whole[32..48].copy_from_slice(&more);
            (whole[0], whole[1], whole[6], whole[7]) = (1 | whole[0] & 4, 0, 0, 0);
            let inode = RawInode::parse(&whole).unwrap();
            prop_assert_eq!(inode.encode(), whole);
        }
    }
}
