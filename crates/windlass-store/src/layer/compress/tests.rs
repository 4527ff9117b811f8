//! The wrappers around tar.

use std::io::Write;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

use super::{Compression, Decoder};
use crate::layer::blob::Blob;
use crate::layer::error::LayerError;
use crate::layer::limits::LayerLimits;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, 3).expect("memory")
}

fn skippable(data: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &u32::try_from(data.len()).expect("small").to_le_bytes(), data].concat()
}

fn decode_with(blob: &[u8], step: usize) -> Result<Vec<u8>, LayerError> {
    let digest = Digest::sha256(blob);
    let mut input = std::io::BufReader::with_capacity(step, blob);
    let mut blob = Blob::new(&mut input, &digest, blob.len() as u64, &());
    let (mut decoder, _) = Decoder::new(&mut blob, Compression::Gzip, &LayerLimits::default())?;
    let (mut out, mut buffer) = (Vec::new(), vec![0; 1000]);
    loop {
        match decoder.read(&mut blob, &mut buffer)? {
            0 => break,
            count => out.extend_from_slice(&buffer[..count]),
        }
    }
    blob.finish()?;
    Ok(out)
}

fn decode(blob: &[u8]) -> Result<Vec<u8>, Reason> {
    decode_with(blob, 4096).map_err(|error| error.reason())
}

#[test]
fn members_and_frames_are_joined() {
    let (a, b) = (vec![b'a'; 5000], vec![b'b'; 3000]);
    let both = [a.clone(), b.clone()].concat();
    let table = [
        ("two members", [gzip(&a), gzip(&b)].concat()),
        ("an empty member between", [gzip(&a), gzip(b""), gzip(&b)].concat()),
        ("zeros at the end", [gzip(&a), gzip(&b), vec![0; 700]].concat()),
        ("two frames", [zstd(&a), zstd(&b)].concat()),
        ("skippable frames", [skippable(b"toc"), zstd(&a), skippable(b"x"), zstd(&b), skippable(b"")].concat()),
    ];
    for (what, blob) in table {
        for step in [1, 3, 4096] {
            assert_eq!(decode_with(&blob, step).expect(what), both, "{what}, {step} bytes at a time");
        }
    }
    assert_eq!(decode(b"plain text"), Ok(b"plain text".to_vec()));
    assert_eq!(decode(b""), Ok(Vec::new()));
}

#[test]
fn a_cut_stream_is_an_error() {
    for whole in [gzip(&[7; 9000]), zstd(&[7; 9000])] {
        for end in 4..whole.len() {
            // Reading stops early without the size rule noticing, since the size is that of the cut blob.
            let got = decode(&whole[..end]);
            assert!(matches!(got, Err(Reason::SizeMismatch | Reason::BadCompression)), "{end}: {got:?}");
        }
    }
}

#[test]
fn junk_after_the_last_member_is_an_error() {
    let mut broken = gzip(b"x");
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let mut crc = gzip(b"x");
    let at = crc.len() - 8;
    crc[at] ^= 1;
    let table = [
        ("junk after gzip", [gzip(b"x"), b"junk and more".to_vec()].concat()),
        ("zeros and junk", [gzip(b"x"), vec![0, 0, 1]].concat()),
        ("junk after zstd", [zstd(b"x"), b"junk".to_vec()].concat()),
        ("zeros after zstd", [zstd(b"x"), vec![0; 16]].concat()),
        ("a wrong length", broken),
        ("a wrong sum", crc),
    ];
    for (what, blob) in table {
        assert_eq!(decode(&blob), Err(Reason::BadCompression), "{what}");
    }
}

#[test]
fn gzip_headers_are_read_and_bounded() {
    let body = &gzip(b"content")[10..];
    let with = |flags: u8, fields: &[u8]| [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255][..], fields, body].concat();
    let head = [0x1f, 0x8b, 8, 2, 0, 0, 0, 0, 0, 255];
    let mut sum = flate2::Crc::new();
    sum.update(&head);
    let sum = u16::try_from(sum.sum() & 0xffff).expect("16 bits").to_le_bytes();
    let table = [
        ("a name", with(8, b"file.tar\0"), Ok(())),
        ("a comment", with(16, b"hello\0"), Ok(())),
        ("extra bytes", with(4, b"\x03\x00abc"), Ok(())),
        ("its own sum", with(2, &sum), Ok(())),
        ("a wrong sum of its own", with(2, b"\0\0"), Err(Reason::BadCompression)),
        ("an endless name", with(8, &[b'a'; 70_000]), Err(Reason::LimitExceeded)),
        ("reserved flags", with(0x80, b""), Err(Reason::BadCompression)),
    ];
    for (what, blob, want) in table {
        assert_eq!(decode(&blob).map(drop), want, "{what}");
    }
}

#[test]
fn zstd_windows_are_bounded() {
    // A frame header that asks for a window of 1 GiB (RFC 8878 3.1.1.1.2: exponent 20, so 2^30 bytes).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
    assert_eq!(decode(&frame), Err(Reason::LimitExceeded));
    // Dictionary ID 1, which nobody gives us.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x01, 0x00, 0x01, 0x00, 0x00];
    assert_eq!(decode(&frame), Err(Reason::BadCompression));
}

proptest! {
    #[test]
    fn what_was_packed_comes_out(data in prop::collection::vec(any::<u8>(), 0..5000), step in 1usize..64) {
        prop_assert_eq!(decode_with(&gzip(&data), step).expect("gzip"), data.clone());
        prop_assert_eq!(decode_with(&zstd(&data), step).expect("zstd"), data);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(magic in 0usize..3, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let magics: [&[u8]; 3] = [&[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]];
        let _ = decode(&[magics[magic], &noise].concat());
    }
}
