//! What entries are and what they carry, the same for writing and for reading.

/// Full names (`user.x`, `security.capability`) and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds of the second, below 1,000,000,000.
    pub nanos: u32,
}

/// Owner, mode, time and extended attributes of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky: 07777 at most, other bits are dropped.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
    /// Extended attributes; read back sorted by name.
    pub xattrs: Xattrs,
}

/// Kind and number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// A block device; else a character device.
    pub block: bool,
    /// Major number, 12 bits.
    pub major: u32,
    /// Minor number, 20 bits.
    pub minor: u32,
}

impl Device {
    /// The mark of a whiteout: character device 0:0.
    pub const WHITEOUT: Device = Device { block: false, major: 0, minor: 0 };

    /// The number as the kernel packs it (`new_encode_dev`); `None` where Linux has no such device.
    pub(crate) fn packed(self) -> Option<u32> {
        (self.major < 1 << 12 && self.minor < 1 << 20)
            .then_some((self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12))
    }

    pub(crate) fn unpacked(block: bool, packed: u32) -> Device {
        Device { block, major: (packed >> 8) & 0xfff, minor: (packed & 0xff) | ((packed >> 12) & 0xf_ff00) }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device; a whiteout is [`Device::WHITEOUT`].
    Device(Device),
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// The bits of the mode that tell kinds apart (`S_IFMT`).
    pub(crate) fn format_bits(self) -> u16 {
        match self {
            Kind::Directory => 0o040_000,
            Kind::File => 0o100_000,
            Kind::Symlink => 0o120_000,
            Kind::Device(Device { block: false, .. }) => 0o020_000,
            Kind::Device(Device { block: true, .. }) => 0o060_000,
            Kind::Fifo => 0o010_000,
        }
    }

    /// The kind in an entry of a directory (`EROFS_FT_*`, as `FT_*` of ext4).
    pub(crate) fn directory_code(self) -> u8 {
        match self {
            Kind::File => 1,
            Kind::Directory => 2,
            Kind::Device(Device { block: false, .. }) => 3,
            Kind::Device(Device { block: true, .. }) => 4,
            Kind::Fifo => 5,
            Kind::Symlink => 7,
        }
    }
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Offset in the image file, a multiple of 512; 0 for an empty file.
    pub offset: u64,
    /// Size of the file.
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_packed_as_the_kernel_does() {
        // Values of `new_encode_dev`, include/linux/kdev_t.h.
        let table = [(0, 0, 0), (1, 3, 0x103), (8, 255, 0x8ff), (8, 256, 0x0010_0800), (0xfff, 0xf_ffff, 0xffff_ffff)];
        for (major, minor, packed) in table {
            let device = Device { block: true, major, minor };
            assert_eq!(device.packed(), Some(packed), "{major}:{minor}");
            assert_eq!(Device::unpacked(true, packed), device);
        }
        assert_eq!(Device { block: true, major: 1 << 12, minor: 0 }.packed(), None);
        assert_eq!(Device { block: true, major: 0, minor: 1 << 20 }.packed(), None);
    }
}
