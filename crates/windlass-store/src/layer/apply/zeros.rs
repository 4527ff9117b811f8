//! Checksums of holes.

/// The checksum after so many zeros, without making them.
pub(in crate::layer) fn append_zeros(crc: u32, mut count: u64) -> u32 {
    const CHUNK: usize = 4096;
    let (mut crc, mut power, mut length) = (crc, crc32c::crc32c(&[0; CHUNK]), CHUNK);
    let rest = usize::try_from(count % CHUNK as u64).unwrap_or_default();
    crc = crc32c::crc32c_append(crc, &[0; CHUNK][..rest]);
    count /= CHUNK as u64;
    while count > 0 {
        if count & 1 == 1 {
            crc = crc32c::crc32c_combine(crc, power, length);
        }
        power = crc32c::crc32c_combine(power, power, length);
        length = length.saturating_mul(2);
        count >>= 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_summed_without_being_made() {
        for count in [0usize, 1, 511, 4096, 4097, 1_000_000] {
            let zeros = vec![0; count];
            let want = crc32c::crc32c_append(crc32c::crc32c(b"windlass"), &zeros);
            assert_eq!(append_zeros(crc32c::crc32c(b"windlass"), count as u64), want, "{count} zeros");
        }
    }
}
