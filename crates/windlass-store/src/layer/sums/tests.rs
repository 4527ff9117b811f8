//! Records go out and come back.

use std::fs::File;
use std::io::{Read, Seek};

use proptest::prelude::*;

use super::{Content, Origin, Reader, Record, Writer};
use crate::layer::rules::{Device, Meta};
use crate::layer::tar::Time;

fn file() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn record(path: &str, content: Content) -> Record {
    let meta = Meta { mode: 0o644, uid: 1, gid: 2, mtime: Time { seconds: 3, nanos: 4 }, xattrs: Vec::new() };
    Record { path: path.into(), content, meta, origin: Origin::Archive }
}

fn round_trip(records: &[Record], overrides: bool) -> Vec<Record> {
    let mut writer = Writer::new(file());
    for record in records {
        writer.put_record(record).expect("write");
    }
    let file = writer.finish(overrides, 1 << 20).expect("finish");
    Reader::new(file).expect("magic").collect::<Result<_, _>>().expect("records")
}

fn text(size_bytes: u64) -> Content {
    Content::File { size_bytes, crc32c: 7 }
}

#[test]
fn the_last_record_of_a_name_stays() {
    let given = [
        record("a", Content::Directory),
        record("a/b", text(1)),
        record("l", Content::HardLink(b"a/b".to_vec())),
        record("m", Content::HardLink(b"l".to_vec())),
        record("a", Content::Opaque),
        record("a", Content::Removed),
        record("a", text(2)),
        record("b", text(3)),
        record("b", text(4)),
    ];
    let want = [
        record("l", text(1)),
        record("m", Content::HardLink(b"l".to_vec())),
        record("a", text(2)),
        record("b", text(4)),
    ];
    assert_eq!(round_trip(&given, true), want);
}

#[test]
fn a_flipped_bit_is_noticed() {
    let mut writer = Writer::new(file());
    for at in 0..20 {
        writer.put_record(&record(&format!("dir/file{at}"), text(at))).expect("write");
    }
    let mut bytes = Vec::new();
    let mut file = writer.finish(false, 0).expect("finish");
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    assert!(Reader::new(&bytes[..]).expect("magic").totals().is_ok());
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        let whole = Reader::new(&bytes[..]).and_then(Reader::totals);
        assert!(whole.is_err(), "byte {at}");
        bytes[at] ^= 1;
    }
    assert!(Reader::new(&bytes[..bytes.len() - 1]).and_then(Reader::totals).is_err(), "cut");
}

fn any_record() -> impl Strategy<Value = Record> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    let content = prop_oneof![
        Just(Content::Directory),
        (any::<u64>(), any::<u32>()).prop_map(|(size_bytes, crc32c)| Content::File { size_bytes, crc32c }),
        bytes().prop_map(Content::Symlink),
        bytes().prop_map(Content::HardLink),
        (any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(block, major, minor)| Content::Device(Device {
            block,
            major,
            minor
        })),
        Just(Content::Fifo),
        Just(Content::Whiteout),
        Just(Content::Opaque),
    ];
    let meta = (
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        any::<u32>(),
        prop::collection::vec((bytes(), bytes()), 0..3),
    )
        .prop_map(|(mode, uid, gid, seconds, nanos, xattrs)| Meta {
            mode,
            uid,
            gid,
            mtime: Time { seconds, nanos },
            xattrs,
        });
    let origin = prop_oneof![Just(Origin::Archive), Just(Origin::Implicit), Just(Origin::CopiedUp)];
    (bytes(), content, meta, origin).prop_map(|(path, content, meta, origin)| Record { path, content, meta, origin })
}

proptest! {
    #[test]
    fn written_records_read_back_equal(records in prop::collection::vec(any_record(), 0..20)) {
        prop_assert_eq!(round_trip(&records, false), records);
    }

    #[test]
    fn random_bytes_never_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Reader::new(&[super::MAGIC, &noise].concat()[..]).and_then(Reader::totals);
    }
}
