//! Room in vectors that may become large.

/// Makes room for more elements; a quarter at a time, since most of a doubled table would stay empty.
pub(super) fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 4).max(64));
    }
}

/// Bytes that [`reserve`] would take.
pub(super) fn growth<T>(vec: &Vec<T>, more: usize) -> usize {
    if vec.capacity() - vec.len() >= more { 0 } else { more.max(vec.len() / 4).max(64) * size_of::<T>() }
}
