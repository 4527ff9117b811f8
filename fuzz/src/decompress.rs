//! Decompression of layers against the usual decoders: the same streams are taken, with the same bytes.

use std::io::Read;

use windlass_store::LayerError;
use windlass_store::layer::LayerLimits;
use windlass_store::layer::compress::{Compression, inflate};

/// Most plain bytes of one input.
const PLAIN_MAX: u64 = 4 << 20;

/// Room that the usual decoders get at once, as ours do.
const STEP_BYTES: usize = 64 << 10;

/// First byte: zero takes the input as it is, one and two put a magic number in front, so that every input gets far.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let stream: Vec<u8> = match first % 3 {
        0 => rest.to_vec(),
        1 => [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], rest].concat(),
        _ => [&[0x28, 0xb5, 0x2f, 0xfd], rest].concat(),
    };
    let mut limits = LayerLimits::default();
    limits.unpacked_bytes = PLAIN_MAX;
    let plain = inflate(&stream, Compression::None, &limits);
    assert!(plain.is_ok_and(|(plain, _)| plain == stream), "what is not compressed passes");
    let ours = inflate(&stream, Compression::Gzip, &limits);
    let by_magic = inflate(&stream, Compression::Zstd, &limits);
    assert_eq!(format!("{ours:?}"), format!("{by_magic:?}"), "the first bytes decide, not the media type");
    if let Ok((plain, _)) = &ours {
        assert!(plain.len() as u64 <= PLAIN_MAX);
    }
    match Compression::of_bytes(&stream) {
        Compression::None => assert!(ours.is_ok_and(|(plain, padded)| plain == stream && !padded)),
        Compression::Gzip => gzip(&stream, ours),
        Compression::Zstd => zstd(&stream, ours),
    }
}

fn gzip(stream: &[u8], ours: Result<(Vec<u8>, bool), LayerError>) {
    let usual = |stream: &[u8]| -> Option<Vec<u8>> { bounded(flate2::bufread::MultiGzDecoder::new(stream)) };
    match (ours, usual(stream)) {
        (Ok((plain, false)), theirs) => assert_eq!(Some(plain), theirs, "gzip, taken by us"),
        (Ok((plain, true)), _) => {
            let zeros = stream.iter().rev().take_while(|b| **b == 0).count();
            let found = (1..=zeros).any(|cut| usual(&stream[..stream.len() - cut]).as_ref() == Some(&plain));
            assert!(found, "gzip with zeros behind it");
        }
        (Err(LayerError::Limit { .. }), _) | (Err(_), None) => {}
        (Err(error), Some(_)) => panic!("gzip, refused by us alone: {error}"),
    }
}

fn zstd(stream: &[u8], ours: Result<(Vec<u8>, bool), LayerError>) {
    // In the same two pieces and with the same room: where that suffices for the announced size, the library looks for a
    // whole frame in what it is given, and a second piece may look like one that is to be skipped.
    let pieces = stream[..4].chain(&stream[4..]);
    let usual = zstd::stream::read::Decoder::with_buffer(pieces).ok().and_then(|mut decoder| {
        decoder.window_log_max(LayerLimits::default().zstd_window_log).ok()?;
        bounded(decoder)
    });
    match (ours, usual) {
        // The library itself refuses some frames of a wrong announced size only if they come in other pieces.
        (Ok((_, padded)), None) => assert!(!padded, "zstd, taken by us"),
        (Ok((plain, padded)), theirs) => assert!(!padded && Some(plain) == theirs, "zstd, taken by us"),
        (Err(LayerError::Limit { .. }), _) | (Err(_), None) => {}
        (Err(error), Some(_)) => panic!("zstd, refused by us alone: {error}"),
    }
}

fn bounded(mut decoder: impl Read) -> Option<Vec<u8>> {
    let (mut plain, mut room) = (Vec::new(), vec![0; STEP_BYTES]);
    // Beyond the bound there is nothing to compare.
    while plain.len() as u64 <= PLAIN_MAX {
        match decoder.read(&mut room).ok()? {
            0 => return Some(plain),
            count => plain.extend_from_slice(&room[..count]),
        }
    }
    None
}

/// The plain bytes of a stream, if it is good and at most 4 MiB.
pub fn plain(stream: &[u8]) -> Option<Vec<u8>> {
    let mut limits = LayerLimits::default();
    limits.unpacked_bytes = PLAIN_MAX;
    inflate(stream, Compression::Gzip, &limits).ok().map(|(plain, _)| plain)
}
