//! Streams by zlib, whole, in pieces, broken, and with something behind them.

use std::io::Write as _;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::{AHEAD_MAX, Inflater, Invalid};

fn deflate(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

/// What comes out, how many bytes of the input belong to the stream, and whether it ended.
fn inflate(inflater: &mut Inflater, input: &[u8], step: usize, room: usize) -> Result<(Vec<u8>, usize, bool), Invalid> {
    let (mut out, mut buffer, mut at) = (Vec::new(), vec![0xee; room], 0);
    loop {
        let piece = &input[at..input.len().min(at + step)];
        let done = inflater.inflate(piece, &mut buffer)?;
        assert!(done.used <= piece.len() && done.made <= room);
        at += done.used;
        out.extend_from_slice(&buffer[..done.made]);
        if done.is_end {
            let ahead = inflater.ahead();
            assert!(ahead.len() <= AHEAD_MAX);
            assert_eq!(ahead, input[at - ahead.len()..at], "what was read ahead is what stands there");
            return Ok((out, at - ahead.len(), true));
        }
        if done.made == 0 && done.used == 0 {
            return Ok((out, at, false));
        }
    }
}

/// Text that repeats near and far, so that matches reach back over whole windows.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut bytes = Vec::with_capacity(size + 300);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let back = usize::try_from(state >> 33).expect("small") % 40_000;
        let long = 3 + usize::try_from(state >> 20 & 0xff).expect("small");
        if back > long && back < bytes.len() && state >> 13 & 3 != 0 {
            let from = bytes.len() - back;
            bytes.extend_from_within(from..from + long);
        } else {
            bytes.extend_from_slice(&state.to_le_bytes());
        }
    }
    bytes.truncate(size);
    bytes
}

#[test]
fn streams_come_out_as_zlib_reads_them() {
    let mut inflater = Inflater::new();
    for size in [0, 1, 100, 32_768, 65_535, 65_536, 300_000, 1_000_000] {
        let data = sample(size);
        for level in [0, 1, 6, 9] {
            let stream = deflate(&data, level);
            for (step, room) in [(1 << 20, 256 << 10), (4096, 1000), (8191, 70_001), (13, 40_000)] {
                inflater.reset();
                let (out, used, is_end) = inflate(&mut inflater, &stream, step, room).expect("a stream");
                assert!(out == data && is_end && used == stream.len(), "{size} {level} {step} {room}");
            }
        }
    }
}

#[test]
fn bytes_behind_the_end_are_given_back() {
    let data = sample(5_000);
    let stream = deflate(&data, 6);
    for behind in 0..20_u8 {
        let input = [stream.clone(), (100..100 + behind).collect()].concat();
        for step in [1, 2, 7, 8, 9, 4096, 1 << 20] {
            let (out, used, is_end) = inflate(&mut Inflater::new(), &input, step, 10_000).expect("a stream");
            assert!(out == data && is_end, "{behind} {step}");
            assert_eq!(used, stream.len(), "{behind} {step}");
        }
    }
}

#[test]
fn a_broken_stream_is_an_error_or_ends_early() {
    let stream = deflate(&sample(20_000), 6);
    for end in 0..stream.len() {
        match inflate(&mut Inflater::new(), &stream[..end], 4096, 100_000) {
            Ok((_, _, is_end)) => assert!(!is_end, "{end}"),
            Err(Invalid) => panic!("a cut stream is not an invalid one: {end}"),
        }
    }
    assert_eq!(Inflater::new().inflate(&[0x07], &mut [0; 100]), Err(Invalid), "a block of the reserved kind");
    // A match that reaches to before the beginning: fixed codes, length 3, distance 1, nothing written yet.
    assert_eq!(Inflater::new().inflate(&[0x03, 0x02, 0x00], &mut [0; 100]).map(|step| step.made), Err(Invalid));
}

/// What zlib makes of it; none when it refuses.
fn reference(input: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut zlib = Decompress::new(false);
    let mut out = vec![0; 1 << 20];
    let status = zlib.decompress(input, &mut out, FlushDecompress::None).ok()?;
    out.truncate(usize::try_from(zlib.total_out()).expect("small"));
    Some((out, status == Status::StreamEnd))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// ISA-L may read a few streams that zlib refuses, but never differently; digests decide in the end.
    #[test]
    fn damage_never_makes_other_bytes_than_zlib(
        at in any::<prop::sample::Index>(), bit in 0..8_u8, step in 1..5000_usize, room in 1..70_000_usize,
    ) {
        let mut stream = deflate(&sample(60_000), 6);
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        let ours = inflate(&mut Inflater::new(), &stream, step, room).ok().map(|(out, _, is_end)| (out, is_end));
        if let (Some(ours), Some(zlib)) = (ours, reference(&stream)) {
            prop_assert_eq!(ours, zlib);
        }
    }
}
