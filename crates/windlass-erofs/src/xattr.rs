//! Extended attributes as they stand behind an inode: a head of 12 zeros, then one record each, padded to 4 bytes.
//!
//! | offset in a record | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | length of the name behind its prefix |
//! | 1 | 1 | number of the prefix |
//! | 2 | 2 | length of the value, little-endian |
//! | 4 | | the name, then the value |
//!
//! Source of truth: Linux `fs/erofs/erofs_fs.h`, `struct erofs_xattr_ibody_header` and `struct erofs_xattr_entry`.
//!
//! Invariants: `attributes_are_read_as_they_were_written`; `no_bytes_make_the_parser_panic`.

use crate::attributes::Xattrs;
use crate::error::TreeError;

/// Bytes before the first record.
const HEAD: usize = 12;

/// The most bytes behind one inode: its count has 16 bits.
pub(crate) const BODY_MAX: usize = HEAD + 4 * (u16::MAX as usize - 1);

/// Longest full name; Linux: `XATTR_NAME_MAX`.
const NAME_MAX: usize = 255;

/// What marks a directory as hiding what the layers below have in its place.
pub(crate) const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// Number of each prefix; the names of the access lists are their whole prefix.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// A name's prefix and the rest of it.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    let (number, rest) = PREFIXES.iter().find_map(|&(number, prefix)| Some((number, name.strip_prefix(prefix)?)))?;
    let whole = matches!(number, 2 | 3);
    (whole == rest.is_empty() && name.len() <= NAME_MAX && !name.contains(&0)).then_some((number, rest))
}

/// The body of these attributes in the order of their names; empty when there are none.
pub(crate) fn encode<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Vec<u8>, TreeError> {
    let mut sorted: Vec<_> = xattrs.collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(TreeError::XattrTwice);
    }
    let mut body = Vec::new();
    for (name, value) in sorted {
        let (prefix, rest) = split(name).ok_or(TreeError::XattrName)?;
        let size = u16::try_from(value.len()).map_err(|_| TreeError::XattrValue { size_bytes: value.len() })?;
        if body.is_empty() {
            body.resize(HEAD, 0);
        }
        body.push(rest.len() as u8);
        body.push(prefix);
        body.extend_from_slice(&size.to_le_bytes());
        body.extend_from_slice(rest);
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    if body.len() > BODY_MAX {
        return Err(TreeError::XattrsTooLarge { size_bytes: body.len(), max_bytes: BODY_MAX });
    }
    Ok(body)
}

/// The count that an inode has for a body of this size.
pub(crate) fn count(body_bytes: usize) -> u16 {
    if body_bytes == 0 { 0 } else { (1 + (body_bytes - HEAD) / 4) as u16 }
}

/// Bytes of the body that this count stands for.
pub(crate) fn body_bytes(count: u16) -> usize {
    if count == 0 { 0 } else { HEAD + 4 * (usize::from(count) - 1) }
}

/// Reads a body; says what is wrong with it.
pub(crate) fn parse(body: &[u8]) -> Result<Xattrs, &'static str> {
    let mut xattrs = Vec::new();
    if body.is_empty() {
        return Ok(xattrs);
    }
    let Some((head, mut rest)) = body.split_at_checked(HEAD) else { return Err("a short head of attributes") };
    if head.iter().any(|&byte| byte != 0) {
        return Err("shared attributes");
    }
    while let Some((&[name, prefix, low, high], record)) = rest.split_first_chunk() {
        let (name, value) = (usize::from(name), usize::from(u16::from_le_bytes([low, high])));
        let (_, start) = PREFIXES.iter().find(|(number, _)| *number == prefix).ok_or("an unknown kind of attribute")?;
        let data = record.get(..name + value).ok_or("an attribute beyond its inode")?;
        xattrs.push(([*start, &data[..name]].concat(), data[name..].to_vec()));
        rest = record.get((name + value).next_multiple_of(4)..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(xattrs) } else { Err("bytes behind the attributes") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let rest = proptest::collection::vec(1_u8..=255, 1..60);
        prop_oneof![
            Just(b"system.posix_acl_access".to_vec()),
            Just(b"system.posix_acl_default".to_vec()),
            (prop_oneof![Just("user."), Just("trusted."), Just("security.")], rest).prop_map(|(prefix, rest)| [
                prefix.as_bytes(),
                &rest
            ]
            .concat()),
        ]
    }

    proptest! {
        #[test]
        fn attributes_are_read_as_they_were_written(
            xattrs in proptest::collection::btree_map(name(), proptest::collection::vec(any::<u8>(), 0..400), 0..8),
        ) {
            let body = encode(xattrs.iter().map(|(name, value)| (&name[..], &value[..]))).unwrap();
            prop_assert_eq!(body_bytes(count(body.len())), body.len());
            prop_assert_eq!(parse(&body).unwrap(), xattrs.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(body in proptest::collection::vec(0_u8..8, 0..200)) {
            let _either = parse(&body);
        }
    }

    #[test]
    fn a_body_is_what_the_format_says() {
        let xattrs: [(&[u8], &[u8]); 3] =
            [(b"user.ab", b"12345"), (b"system.posix_acl_access", b"x"), (b"security.capability", b"")];
        let want =
            [&[0; 12][..], &[10, 6, 0, 0], b"capability\0\0", &[0, 2, 1, 0], b"x\0\0\0", &[2, 1, 5, 0], b"ab12345\0"];
        assert_eq!(encode(xattrs.into_iter()).unwrap(), want.concat());
        assert_eq!(count(want.concat().len()), 1 + (16 + 8 + 12) / 4);
        assert_eq!((count(0), body_bytes(0), body_bytes(u16::MAX)), (0, 0, BODY_MAX));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said() {
        let head = [0; 12];
        let table: [(&[&[u8]], &str); 5] = [
            (&[&[0; 8]], "a short head of attributes"),
            (&[&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]], "shared attributes"),
            (&[&head, &[1, 5, 0, 0], b"a\0\0\0"], "an unknown kind of attribute"),
            (&[&head, &[1, 1, 4, 0], b"abcd"], "an attribute beyond its inode"),
            (&[&head, &[1, 1]], "bytes behind the attributes"),
        ];
        for (body, want) in table {
            assert_eq!(parse(&body.concat()), Err(want));
        }
    }
}
