//! The two inodes of EROFS: 64 bytes with full ids and a time of its own, or 32 bytes with small numbers and the time
//! that the superblock gives.
//!
//! | extended: offset | bytes | compact: offset | bytes | what, little-endian |
//! | --- | --- | --- | --- | --- |
//! | 0 | 2 | 0 | 2 | bit 0: extended; bits 1 to 3: the layout of the data |
//! | 2 | 2 | 2 | 2 | extended attributes: 0, or 1 + (their bytes - 12) / 4 |
//! | 4 | 2 | 4 | 2 | mode with the kind |
//! | 8 | 8 | 8 | 4 | size |
//! | 16 | 4 | 16 | 4 | first block, or device number |
//! | 20 | 4 | 20 | 4 | a number for `stat` on 32 bits |
//! | 24, 28 | 4 each | 24, 26 | 2 each | owner, group |
//! | 32, 40 | 8, 4 | | | seconds and nanoseconds |
//! | 44 | 4 | 6 | 2 | number of names |
//!
//! Source of truth: Linux `fs/erofs/erofs_fs.h`, `fs/erofs/inode.c`. Kernels from 6.15 on add the four bytes at 12 of a
//! compact inode to the superblock's time; they stay zero.

use crate::attributes::{Device, Kind, Time};

/// Numbers of inodes count places of this size, which is also the least that an inode takes. EROFS: `EROFS_ISLOTBITS`.
pub(crate) const SLOT_BYTES: u64 = 32;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Compact,
    Extended,
}

impl Form {
    /// What the first byte of an inode says.
    pub(crate) fn of(first: u8) -> Form {
        if first & 1 == 0 { Form::Compact } else { Form::Extended }
    }

    /// Bytes of an inode.
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Form::Compact => 32,
            Form::Extended => 64,
        }
    }
}

/// Most bytes of an inode.
pub(crate) const INODE_MAX: usize = Form::Extended.bytes() as usize;

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
    /// The smallest that holds these numbers, where the superblock has this time.
    pub(crate) fn form(&self, common: Time) -> Form {
        let is_small = self.size_bytes <= u32::MAX.into()
            && self.links <= u16::MAX.into()
            && self.uid <= u16::MAX.into()
            && self.gid <= u16::MAX.into();
        if is_small && self.mtime == common { Form::Compact } else { Form::Extended }
    }

    /// Appends it in its smallest form.
    pub(crate) fn encode(&self, common: Time, out: &mut Vec<u8>) {
        let layout: u16 = match self.layout {
            Layout::Plain => 0,
            Layout::Inline => 2,
        };
        let mut bytes = [0; INODE_MAX];
        bytes[2..4].copy_from_slice(&self.xattr_count.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.mode.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.block.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.number.to_le_bytes());
        let form = self.form(common);
        match form {
            Form::Compact => {
                // `form` has seen that these fit.
                bytes[0..2].copy_from_slice(&(layout << 1).to_le_bytes());
                bytes[6..8].copy_from_slice(&(self.links as u16).to_le_bytes());
                bytes[8..12].copy_from_slice(&(self.size_bytes as u32).to_le_bytes());
                bytes[24..26].copy_from_slice(&(self.uid as u16).to_le_bytes());
                bytes[26..28].copy_from_slice(&(self.gid as u16).to_le_bytes());
            }
            Form::Extended => {
                bytes[0..2].copy_from_slice(&(1 | layout << 1).to_le_bytes());
                bytes[8..16].copy_from_slice(&self.size_bytes.to_le_bytes());
                bytes[24..28].copy_from_slice(&self.uid.to_le_bytes());
                bytes[28..32].copy_from_slice(&self.gid.to_le_bytes());
                bytes[32..40].copy_from_slice(&self.mtime.seconds.to_le_bytes());
                bytes[40..44].copy_from_slice(&self.mtime.nanos.to_le_bytes());
                bytes[44..48].copy_from_slice(&self.links.to_le_bytes());
            }
        }
        out.extend_from_slice(&bytes[..form.bytes() as usize]);
    }

    /// Takes what [`RawInode::encode`] makes, as many bytes as [`Form::of`] the first one says, and says what is unknown
    /// about anything else.
    pub(crate) fn parse(bytes: &[u8], common: Time) -> Result<RawInode, &'static str> {
        let mut whole = [0; INODE_MAX];
        whole.get_mut(..bytes.len()).ok_or("an inode of another size")?.copy_from_slice(bytes);
        let bytes = whole;
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let layout = match u16_at(0) & !1 {
            0b0000 => Layout::Plain,
            0b0100 => Layout::Inline,
            _ => return Err("an inode of another layout"),
        };
        let form = Form::of(bytes[0]);
        let unused = match form {
            Form::Compact => [12..16, 28..64],
            Form::Extended => [6..8, 48..64],
        };
        if unused.into_iter().any(|unused| bytes[unused].iter().any(|&byte| byte != 0)) {
            return Err("an inode with more than is known");
        }
        let (xattr_count, mode, block, number) = (u16_at(2), u16_at(4), u32_at(16), u32_at(20));
        Ok(match form {
            Form::Compact => RawInode {
                layout,
                xattr_count,
                mode,
                size_bytes: u32_at(8).into(),
                block,
                number,
                uid: u16_at(24).into(),
                gid: u16_at(26).into(),
                mtime: common,
                links: u16_at(6).into(),
            },
            Form::Extended => RawInode {
                layout,
                xattr_count,
                mode,
                size_bytes: u64_at(8),
                block,
                number,
                uid: u32_at(24),
                gid: u32_at(28),
                mtime: Time { seconds: u64_at(32).cast_signed(), nanos: u32_at(40) },
                links: u32_at(44),
            },
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

    const COMMON: Time = Time { seconds: 1_735_689_600, nanos: 5 };

    fn encoded(inode: &RawInode) -> Vec<u8> {
        let mut bytes = Vec::new();
        inode.encode(COMMON, &mut bytes);
        bytes
    }

    fn link() -> RawInode {
        RawInode {
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
        }
    }

    #[test]
    fn an_inode_is_what_the_format_says() {
        let inode = link();
        let mut want = [0; 64];
        want[0] = 0b101;
        want[2..4].copy_from_slice(&[2, 1]);
        want[4..6].copy_from_slice(&[0xff, 0xa1]);
        want[8..10].copy_from_slice(&[4, 3]);
        want[16..18].copy_from_slice(&[6, 5]);
        (want[20], want[24], want[28], want[40], want[44]) = (7, 8, 9, 10, 11);
        want[32..40].fill(0xff);
        assert_eq!(encoded(&inode), want);
        assert_eq!(RawInode::parse(&want, COMMON), Ok(inode));
        assert_eq!(inode.kind(), Some(Kind::Symlink));
        for (at, value) in [(0, 0b100), (0, 0b011), (1, 1), (6, 1), (7, 1), (48, 1), (63, 1)] {
            let mut other = want;
            other[at] = value;
            assert!(RawInode::parse(&other, COMMON).is_err(), "{at}");
        }
    }

    #[test]
    fn a_compact_inode_is_what_the_format_says() {
        let inode = RawInode { mtime: COMMON, ..link() };
        let mut want = [0; 32];
        want[0] = 0b100;
        want[2..4].copy_from_slice(&[2, 1]);
        want[4..6].copy_from_slice(&[0xff, 0xa1]);
        want[8..10].copy_from_slice(&[4, 3]);
        want[16..18].copy_from_slice(&[6, 5]);
        (want[6], want[20], want[24], want[26]) = (11, 7, 8, 9);
        assert_eq!(encoded(&inode), want);
        assert_eq!(RawInode::parse(&want, COMMON), Ok(inode));
        for (at, value) in [(0, 0b110), (1, 1), (12, 1), (15, 1), (28, 1), (31, 1)] {
            let mut other = want;
            other[at] = value;
            assert!(RawInode::parse(&other, COMMON).is_err(), "{at}");
        }
        assert!(RawInode::parse(&[0; 65], COMMON).is_err());
    }

    #[test]
    fn numbers_that_are_too_large_make_an_inode_extended() {
        let small =
            RawInode { mtime: COMMON, size_bytes: 0xffff_ffff, links: 0xffff, uid: 0xffff, gid: 0xffff, ..link() };
        assert_eq!(small.form(COMMON), Form::Compact);
        for large in [
            RawInode { size_bytes: 0x1_0000_0000, ..small },
            RawInode { links: 0x1_0000, ..small },
            RawInode { uid: 0x1_0000, ..small },
            RawInode { gid: 0x1_0000, ..small },
            RawInode { mtime: Time { nanos: 6, ..COMMON }, ..small },
            RawInode { mtime: Time { seconds: 1_735_689_601, ..COMMON }, ..small },
        ] {
            assert_eq!(large.form(COMMON), Form::Extended);
            assert_eq!(RawInode::parse(&encoded(&large), COMMON), Ok(large));
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_what_it_is(bytes in any::<[u8; 32]>(), more in any::<[u8; 16]>()) {
            let mut whole = [0; 64];
            whole[..32].copy_from_slice(&bytes);
            whole[32..48].copy_from_slice(&more);
            (whole[0], whole[1], whole[6], whole[7]) = (1 | whole[0] & 4, 0, 0, 0);
            let inode = RawInode::parse(&whole, COMMON).unwrap();
            prop_assert_eq!(encoded(&inode), whole);
            let mut compact = bytes;
            (compact[0], compact[1]) = (bytes[0] & 4, 0);
            compact[12..16].fill(0);
            compact[28..].fill(0);
            let inode = RawInode::parse(&compact, COMMON).unwrap();
            prop_assert_eq!(encoded(&inode), compact);
        }
    }
}
