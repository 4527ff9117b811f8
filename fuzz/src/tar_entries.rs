//! The tar reader on raw bytes: what it gives out is bounded and consistent, and written anew it reads the same.

use windlass_store::layer::LayerLimits;
use windlass_store::layer::rules::{Action, Rules, components};
use windlass_store::layer::tar::{BLOCK, Entry, Kind, Piece, Reader};

/// Holes of sparse files are only counted, so that a few bytes may announce many.
const LIMITS: fn() -> LayerLimits = || {
    let mut limits = LayerLimits::default();
    limits.xattrs = 8;
    limits.pax_records = 32;
    limits.pax_bytes = 16 << 10;
    limits.sparse_pieces = 256;
    limits
};

/// The input is an archive.
pub fn run(bytes: &[u8]) {
    let limits = LIMITS();
    let once = walk(bytes, bytes, &limits);
    // The same bytes in small pieces are the same archive.
    let pieces = walk(Drops { bytes, step: 1 + bytes.len() % 700 }, bytes, &limits);
    assert_eq!(once, pieces);
}

/// Everything that was read, and how it ended.
type Walked = (Vec<(Vec<u8>, Vec<u8>, u64, u64)>, Option<String>);

fn walk(source: impl windlass_store::layer::tar::Source, bytes: &[u8], limits: &LayerLimits) -> Walked {
    let mut reader = Reader::new(source, limits);
    let mut seen = Vec::new();
    let mut data_in_all = 0;
    loop {
        match reader.advance() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return (seen, Some(checked(&error))),
        }
        let entry = reader.entry().clone();
        check(&entry, limits);
        let (mut data, mut holes, mut sum) = (0_u64, 0_u64, 0_u64);
        // Every second entry is passed over unread.
        if seen.len() % 2 == 0 {
            loop {
                match reader.data() {
                    Ok(Piece::Data(piece)) => {
                        assert!(!piece.is_empty());
                        data += piece.len() as u64;
                        sum = piece.iter().fold(sum, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
                    }
                    Ok(Piece::Hole(hole)) => {
                        assert!(hole > 0);
                        holes += hole;
                    }
                    Ok(Piece::End) => break,
                    Err(error) => return (seen, Some(checked(&error))),
                }
            }
            assert_eq!(data + holes, entry.size_bytes, "{entry:?}");
        }
        data_in_all += data;
        assert!(data_in_all <= bytes.len() as u64, "data comes from the archive");
        seen.push((entry.name, entry.link, entry.size_bytes, sum));
        assert!(seen.len() <= bytes.len() / BLOCK, "each entry takes a block");
    }
    match reader.drain() {
        Ok(()) => (seen, None),
        Err(error) => (seen, Some(checked(&error))),
    }
}

fn check(entry: &Entry, limits: &LayerLimits) {
    assert!(!entry.name.is_empty() && !entry.name.contains(&0), "{entry:?}");
    assert!(entry.xattrs.len() <= limits.xattrs);
    assert!(entry.kind == Kind::File || entry.size_bytes == 0, "{entry:?}");
    assert!(matches!(entry.kind, Kind::Symlink | Kind::HardLink) || entry.link.is_empty(), "{entry:?}");
    for (at, (name, _)) in entry.xattrs.iter().enumerate() {
        assert!(entry.xattrs[..at].iter().all(|(earlier, _)| earlier != name), "the last record of a name counts");
    }
    assert!(entry.mtime.nanos < 1_000_000_000, "{entry:?}");
    let rules = Rules { limits, integrity_xattrs: false };
    let mut path = Vec::new();
    if let Ok(action) = rules.judge(entry, &mut path) {
        assert!(!path.starts_with(b"/") && !path.ends_with(b"/") && path.len() <= limits.path_bytes);
        assert!(components(&path).all(|c| c != b"." && c != b".." && c.len() <= limits.component_bytes));
        assert!(components(&path).count() <= limits.depth);
        if let Action::Node(_) = action {
            assert!(components(&path).all(|c| !c.starts_with(b".wh.")), "{entry:?}");
        }
    }
    if let Ok(meta) = rules.meta(entry) {
        assert!(meta.mode <= 0o7777 && meta.uid != u32::MAX && meta.gid != u32::MAX);
        assert!(meta.mtime.seconds >= 0);
        assert!(
            meta.xattrs.iter().all(|(name, _)| !name.starts_with(b"trusted.") && !name.starts_with(b"user.overlay."))
        );
    }
}

fn checked(error: &windlass_store::LayerError) -> String {
    let text = format!("{error} {}", error.reason().class());
    assert!(text.len() < 4_000 && !text.contains(char::is_control), "{text:?}");
    text
}

/// A source that gives a few bytes at a time.
struct Drops<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl windlass_store::layer::tar::Source for Drops<'_> {
    fn fill(&mut self) -> Result<&[u8], windlass_store::LayerError> {
        Ok(&self.bytes[..self.bytes.len().min(self.step)])
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
    }

    fn charge(&mut self, _: u64) -> Result<(), windlass_store::LayerError> {
        Ok(())
    }
}
