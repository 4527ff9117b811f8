//! Extended headers: `length key=value\n` records (POSIX pax; Go `strconv.go` `parsePAXRecord`, `reader.go`).
//!
//! The later of two headers replaces the earlier one whole; of two records with one key the last counts; an empty
//! value means that the header block counts.

use std::collections::HashMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::number::{decimal, pax_time};
use super::{Entry, Refusal};
use crate::layer::limits::LayerLimits;

/// Records of one extended header, by key.
#[derive(Debug, Default)]
pub(super) struct Records {
    values: HashMap<Vec<u8>, Vec<u8>>,
    /// Offsets and lengths of the oldest pax sparse form, whose keys come again and again.
    sparse_map: Vec<Vec<u8>>,
}

impl Records {
    /// Splits the data of an extended header.
    pub(super) fn parse(data: &[u8], limits: &LayerLimits) -> Result<Records, Refusal> {
        let mut records = Records::default();
        let (mut rest, mut count) = (data, 0);
        while !rest.is_empty() {
            let (key, value, after) = split_record(rest).ok_or("a malformed record in an extended header")?;
            rest = after;
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                let offset_is_due = records.sparse_map.len().is_multiple_of(2);
                if offset_is_due != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                    return Err("a malformed map of a sparse file".into());
                }
                if records.sparse_map.len() / 2 >= limits.sparse_pieces {
                    return Err(Refusal::Limit("sparsePieces", limits.sparse_pieces as u64));
                }
                records.sparse_map.push(value.to_vec());
                continue;
            }
            count += 1;
            if count > limits.pax_records {
                return Err(Refusal::Limit("paxRecords", limits.pax_records as u64));
            }
            records.values.insert(key.to_vec(), value.to_vec());
        }
        if !records.sparse_map.is_empty() {
            records.values.insert(b"GNU.sparse.map".to_vec(), records.sparse_map.join(&b','));
        }
        Ok(records)
    }

    /// The value of a key; none if absent or empty.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Lets the records override what the header block says. The size goes to `size`.
    pub(super) fn merge(&self, entry: &mut Entry, size: &mut u64, limits: &LayerLimits) -> Result<(), Refusal> {
        if let Some(name) = self.get("path") {
            entry.name = name.to_vec();
        }
        if let Some(link) = self.get("linkpath") {
            entry.link = link.to_vec();
        }
        if let Some(uid) = self.get("uid") {
            entry.uid = decimal(uid)?;
        }
        if let Some(gid) = self.get("gid") {
            entry.gid = decimal(gid)?;
        }
        if let Some(mtime) = self.get("mtime") {
            entry.mtime = pax_time(mtime)?;
        }
        for key in ["atime", "ctime"] {
            self.get(key).map(pax_time).transpose()?;
        }
        if let Some(text) = self.get("size") {
            *size = u64::try_from(decimal(text)?).map_err(|_| "a negative size")?;
        }
        self.xattrs(entry, limits)
    }

    fn xattrs(&self, entry: &mut Entry, limits: &LayerLimits) -> Result<(), Refusal> {
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (key, value) in &self.values {
            let (name, value) = if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                (name.to_vec(), value.clone())
            } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                let name = percent_decoded(name).ok_or("a malformed name of an extended attribute")?;
                if self.values.contains_key(&[b"SCHILY.xattr.", name.as_slice()].concat()) {
                    continue;
                }
                (name, BASE64.decode(value).map_err(|_| "an extended attribute that is not base64")?)
            } else {
                continue;
            };
            if name.is_empty() || name.contains(&0) {
                return Err("a malformed name of an extended attribute".into());
            }
            // POSIX pax: an empty value takes the record back. Go's reader, and with it every other runtime, does so.
            if value.is_empty() {
                continue;
            }
            if value.len() > limits.xattr_bytes {
                return Err(Refusal::Limit("xattrBytes", limits.xattr_bytes as u64));
            }
            found.push((name, value));
        }
        if found.len() > limits.xattrs {
            return Err(Refusal::Limit("xattrs", limits.xattrs as u64));
        }
        // The map has no order of its own, and the same layer has to give the same calls each time.
        found.sort();
        entry.xattrs = found;
        Ok(())
    }
}

/// Libarchive leaves the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == b'%' {
            out.push(hex(*text.get(at + 1)?)? << 4 | hex(*text.get(at + 2)?)?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Some(out)
}

type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn split_record(data: &[u8]) -> Option<Record<'_>> {
    let space = data.iter().take(20).position(|&b| b == b' ')?;
    let digits = &data[..space];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?;
    let body = record.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    let named = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    if key.is_empty() || key.contains(&0) || named && value.contains(&0) {
        return None;
    }
    Some((key, value, &data[length..]))
}
