//! What a layer may ask of us. Each limit is a configuration key under `limits:` and is named in the error.

/// Bounds of one layer. The defaults are what a product image never comes near.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerLimits {
    /// Bytes of the unpacked stream, the holes of sparse files included (`layerUnpackedBytes`, 64 GiB).
    pub unpacked_bytes: u64,
    /// Unpacked bytes for one compressed byte, looked at once above [`LayerLimits::ratio_from_bytes`]
    /// (`layerRatio`, 1000; deflate cannot do better than 1032).
    pub ratio: u64,
    /// Unpacked bytes below which the ratio does not matter (64 MiB).
    pub ratio_from_bytes: u64,
    /// Entries (`layerEntries`, 2 000 000).
    pub entries: u64,
    /// Bytes of a name (`pathBytes`, 4095: what a system call takes).
    pub path_bytes: usize,
    /// Bytes of one component of a name (`componentBytes`, 255: what file systems take).
    pub component_bytes: usize,
    /// Bytes of a link target (`linkBytes`, 4095).
    pub link_bytes: usize,
    /// Directories above one another (`directoryDepth`, 2048: what a path can hold).
    pub depth: usize,
    /// Bytes of one extended or long-name header (`paxBytes`, 1 MiB, as in Go's reader).
    pub pax_bytes: u64,
    /// Records of one extended header (`paxRecords`, 1024).
    pub pax_records: usize,
    /// Extended attributes of one entry (`xattrs`, 64).
    pub xattrs: usize,
    /// Bytes of one extended attribute (`xattrBytes`, 64 KiB, the kernel's own).
    pub xattr_bytes: usize,
    /// Pieces of data of one sparse file (`sparsePieces`, 65 536).
    pub sparse_pieces: usize,
    /// Base-2 logarithm of the zstd window (`zstdWindowLog`, 27 for 128 MiB, the zstd tool's own).
    pub zstd_window_log: u32,
    /// Bytes of the optional fields of one gzip header (`gzipHeaderBytes`, 64 KiB).
    pub gzip_header_bytes: usize,
    /// Bytes of names kept in memory until the layers below are there: parents without an entry, whiteouts
    /// (`layerPendingBytes`, 32 MiB).
    pub pending_bytes: usize,
    /// Bytes of names and attributes kept in memory while an image file is written (`layerMetadataBytes`, 384 MiB; a
    /// million entries with usual names take 150).
    pub metadata_bytes: u64,
    /// Look-ups of directories for the whole layer (`layerLookups`, 20 million; a layer of 40 000 files takes 5 000).
    pub lookups: u64,
    /// Directories kept open at once (256).
    pub open_directories: usize,
}

impl Default for LayerLimits {
    fn default() -> LayerLimits {
        LayerLimits {
            unpacked_bytes: 64 << 30,
            ratio: 1000,
            ratio_from_bytes: 64 << 20,
            entries: 2_000_000,
            path_bytes: 4095,
            component_bytes: 255,
            link_bytes: 4095,
            depth: 2048,
            pax_bytes: 1 << 20,
            pax_records: 1024,
            xattrs: 64,
            xattr_bytes: 64 << 10,
            sparse_pieces: 1 << 16,
            zstd_window_log: 27,
            gzip_header_bytes: 64 << 10,
            pending_bytes: 32 << 20,
            metadata_bytes: 384 << 20,
            lookups: 20_000_000,
            open_directories: 256,
        }
    }
}
