//! The stream as a whole; single entries are covered by the corpus of hostile layers.

use proptest::prelude::*;

use super::{BLOCK, Piece, Reader};
use crate::layer::error::LayerError;
use crate::layer::limits::LayerLimits;

/// A ustar header with a good sum.
fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    out.resize(data.len().next_multiple_of(BLOCK), 0);
    out
}

/// Names, sizes and contents of all entries.
/// Name and content.
type Read = (Vec<u8>, Vec<u8>);

fn read_all(archive: &[u8]) -> Result<Vec<Read>, LayerError> {
    let limits = LayerLimits::default();
    let mut reader = Reader::new(archive, &limits);
    let mut found = Vec::new();
    while reader.advance()? {
        let (name, size) = (reader.entry().name.clone(), reader.entry().size_bytes);
        let mut content = Vec::new();
        loop {
            match reader.data()? {
                Piece::Data(bytes) => content.extend_from_slice(bytes),
                Piece::Hole(count) if count < 1 << 20 => content.resize(content.len() + count as usize, 0),
                Piece::Hole(_) => break,
                Piece::End => {
                    assert_eq!(content.len() as u64, size, "data_is_never_longer_than_the_header_says");
                    break;
                }
            }
        }
        found.push((name, content));
    }
    reader.drain()?;
    Ok(found)
}

#[test]
fn the_end_of_an_archive_has_several_forms() {
    let entry = [header(b"a", b'0', 3), padded(b"abc")].concat();
    let unpadded = [header(b"a", b'0', 3), b"abc".to_vec()].concat();
    let zero = vec![0u8; BLOCK];
    let good = [
        (entry.clone(), "no end marker"),
        ([entry.clone(), zero.clone()].concat(), "one zero block"),
        ([entry.clone(), zero.clone(), zero.clone()].concat(), "two zero blocks"),
        ([entry.clone(), zero.clone(), zero.clone(), entry.clone()].concat(), "an entry after the end"),
        (unpadded, "an unpadded last block"),
    ];
    for (archive, what) in good {
        assert_eq!(read_all(&archive).expect(what), [(b"a".to_vec(), b"abc".to_vec())], "{what}");
    }
    assert_eq!(read_all(&[]).expect("an empty stream"), []);
    let bad = [
        ([zero.clone(), entry.clone()].concat(), "one zero block and an entry"),
        (entry[..BLOCK + 2].to_vec(), "cut inside the data"),
        (entry[..BLOCK - 1].to_vec(), "cut inside the header"),
        ([entry.clone(), header(b"x", b'x', 0)].concat(), "an extended header at the end"),
        ([entry, header(b"x", b'L', 3), padded(b"ab\0")].concat(), "a long name at the end"),
    ];
    for (archive, what) in bad {
        assert!(read_all(&archive).is_err(), "{what}");
    }
}

#[test]
fn sparse_files_of_every_form_read_alike() {
    let want = [b"ab".to_vec(), vec![0; 1022], b"cd".to_vec(), vec![0; 10]].concat();
    let mut old = header(b"s", b'S', 4);
    old[257..265].copy_from_slice(b"ustar  \0");
    old[345..512].fill(0);
    for (at, number) in [(386, 0u64), (398, 2), (410, 1024), (422, 2), (483, 1036)] {
        old[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
    }
    seal(&mut old);
    let pax = |records: &[(&str, &str)]| {
        let data: String = records
            .iter()
            .map(|(key, value)| {
                let body = key.len() + value.len() + 3;
                let length = (body + 1..).find(|n| *n == body + n.to_string().len()).expect("a length");
                format!("{length} {key}={value}\n")
            })
            .collect();
        [header(b"x", b'x', data.len() as u64), padded(data.as_bytes())].concat()
    };
    let v00 = pax(&[
        ("GNU.sparse.size", "1036"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "2"),
        ("GNU.sparse.offset", "1024"),
        ("GNU.sparse.numbytes", "2"),
    ]);
    let v01 = pax(&[
        ("GNU.sparse.size", "1036"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", "0,2,1024,2"),
        ("GNU.sparse.name", "s"),
    ]);
    let v10 = pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "1036"),
        ("GNU.sparse.name", "s"),
    ]);
    let map = padded(b"2\n0\n2\n1024\n2\n");
    let table = [
        ("old", [old, padded(b"abcd")].concat()),
        ("0.0", [v00, header(b"s", b'0', 4), padded(b"abcd")].concat()),
        ("0.1", [v01, header(b"other", b'0', 4), padded(b"abcd")].concat()),
        ("1.0", [v10, header(b"other", b'0', 516), map, padded(b"abcd")].concat()),
    ];
    for (form, archive) in table {
        assert_eq!(read_all(&archive).expect(form), [(b"s".to_vec(), want.clone())], "{form}");
    }
}

/// Bytes that look enough like an archive to get somewhere.
#[test]
fn only_links_have_a_target() {
    for (kind, want) in [(b'0', &b""[..]), (b'5', b""), (b'6', b""), (b'1', b"x"), (b'2', b"x")] {
        let mut block = header(b"a", kind, 0);
        block[157] = b'x';
        seal(&mut block);
        let limits = LayerLimits::default();
        let mut reader = Reader::new(&block[..], &limits);
        assert!(reader.advance().expect("one entry"));
        assert_eq!(reader.entry().link, want, "{}", char::from(kind));
    }
}

fn almost_tar() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(b"\x000123456xgLKS7".to_vec());
    let block = (kind, prop::collection::vec(any::<u8>(), 0..40), 0u64..3000, any::<bool>(), any::<bool>()).prop_map(
        |(kind, name, size, gnu, base256)| {
            let mut block = header(&name, kind, size);
            if gnu {
                block[257..265].copy_from_slice(b"ustar  \0");
            }
            if base256 {
                block[124] = 0x80;
                block[125..136].fill(0);
                block[134..136].copy_from_slice(&(size as u16).to_be_bytes());
            }
            seal(&mut block);
            block
        },
    );
    let text = prop::sample::select(vec![
        "30 mtime=1350244992.023960108\n",
        "11 path=a\n",
        "12 size=70\n",
        "13 uid=1000\n",
        "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
        "22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n",
        "3\n0\n2\n10\n20\n100\n7\n",
    ])
    .prop_map(|text| padded(text.as_bytes()));
    let noise = prop::collection::vec(any::<u8>(), 0..700);
    prop::collection::vec(prop_oneof![4 => block, 2 => text, 1 => noise, 1 => Just(vec![0; BLOCK])], 0..12)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(archive in almost_tar()) {
        let _ = read_all(&archive);
    }

    #[test]
    fn every_cut_is_an_error_or_an_end(at in 0usize..2048) {
        let whole = [header(b"a", b'0', 700), vec![7; 1024]].concat();
        let cut = &whole[..at.min(whole.len())];
        let ok = read_all(cut).is_ok();
        // Complete data without its padding is accepted, nothing at all is an empty archive.
        prop_assert_eq!(ok, cut.is_empty() || cut.len() >= BLOCK + 700);
    }
}
