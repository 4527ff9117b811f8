//! Sparse files: which stretches of the file the data of the entry fills (Go `reader.go`, `handleSparseFile`).

use super::number::{decimal, numeric, text};
use super::pax::Records;
use super::{BLOCK, Malformed, Refusal};
use crate::layer::limits::LayerLimits;

/// One stretch of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Stretch {
    pub(super) fn end(self) -> u64 {
        self.offset + self.length
    }
}

/// Where pax keeps the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PaxForm {
    /// In records (0.0 and 0.1).
    InRecords,
    /// At the beginning of the data (1.0).
    InData,
}

/// Whether these records describe a sparse file. An unknown version is an ordinary file, as in Go.
pub(super) fn pax_form(records: &Records) -> Option<PaxForm> {
    let (major, minor) = (records.get("GNU.sparse.major"), records.get("GNU.sparse.minor"));
    match (major, minor) {
        (Some(b"0"), Some(b"0" | b"1")) => Some(PaxForm::InRecords),
        (Some(b"1"), Some(b"0")) => Some(PaxForm::InData),
        (None, None) => records.get("GNU.sparse.map").map(|_| PaxForm::InRecords),
        _ => None,
    }
}

/// The real size of a pax sparse file, if stated.
pub(super) fn pax_size(records: &Records) -> Result<Option<u64>, Malformed> {
    let text = records.get("GNU.sparse.size").or_else(|| records.get("GNU.sparse.realsize"));
    text.map(|text| u64::try_from(decimal(text)?).map_err(|_| "a negative size")).transpose()
}

/// The map of forms 0.0 and 0.1.
pub(super) fn from_records(records: &Records, limits: &LayerLimits) -> Result<Vec<Stretch>, Refusal> {
    let count = records.get("GNU.sparse.numblocks").ok_or("a sparse file without a map")?;
    let count = usize::try_from(decimal(count)?).map_err(|_| "a malformed map of a sparse file")?;
    if count > limits.sparse_pieces {
        return Err(Refusal::Limit("sparsePieces", limits.sparse_pieces as u64));
    }
    let list = records.get("GNU.sparse.map").unwrap_or_default();
    let numbers: Vec<&[u8]> = if list.is_empty() { Vec::new() } else { list.split(|&b| b == b',').collect() };
    if numbers.len() != count * 2 {
        return Err("a malformed map of a sparse file".into());
    }
    numbers.chunks_exact(2).map(|pair| Ok(stretch(decimal(pair[0])?, decimal(pair[1])?)?)).collect()
}

fn stretch(offset: i64, length: i64) -> Result<Stretch, Malformed> {
    match (u64::try_from(offset), u64::try_from(length)) {
        (Ok(offset), Ok(length)) => Ok(Stretch { offset, length }),
        _ => Err("a malformed map of a sparse file"),
    }
}

/// Reads the map of form 1.0: decimal numbers, one a line, padded to whole blocks.
#[derive(Debug, Default)]
pub(super) struct MapText {
    line: Vec<u8>,
    count: Option<usize>,
    offset: Option<i64>,
    map: Vec<Stretch>,
}

impl MapText {
    /// Takes the next block; true when the map is complete.
    pub(super) fn push(&mut self, block: &[u8; BLOCK], limits: &LayerLimits) -> Result<bool, Refusal> {
        for &byte in block {
            if self.is_complete() {
                return Ok(true);
            }
            if byte != b'\n' {
                // No number of 64 bits has more digits.
                if self.line.len() >= 20 {
                    return Err("a malformed map of a sparse file".into());
                }
                self.line.push(byte);
                continue;
            }
            let number = decimal(&self.line)?;
            self.line.clear();
            match (self.count, self.offset.take()) {
                (None, _) => {
                    let count = usize::try_from(number).map_err(|_| "a malformed map of a sparse file")?;
                    if count > limits.sparse_pieces {
                        return Err(Refusal::Limit("sparsePieces", limits.sparse_pieces as u64));
                    }
                    self.count = Some(count);
                }
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => self.map.push(stretch(offset, number)?),
            }
        }
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.map.len() >= count)
    }

    pub(super) fn finish(self) -> Vec<Stretch> {
        self.map
    }
}

/// Takes the entries of one block of GNU's old map; true when the last was seen.
pub(super) fn old_gnu(table: &[u8], into: &mut Vec<Stretch>, limits: &LayerLimits) -> Result<bool, Refusal> {
    for slot in table.chunks_exact(24) {
        if slot[0] == 0 {
            return Ok(true);
        }
        if into.len() >= limits.sparse_pieces {
            return Err(Refusal::Limit("sparsePieces", limits.sparse_pieces as u64));
        }
        into.push(stretch(numeric(&slot[..12])?, numeric(&slot[12..])?)?);
    }
    Ok(false)
}

/// Old GNU: the real size of the file.
pub(super) fn old_gnu_size(block: &[u8; BLOCK]) -> Result<u64, Malformed> {
    let field = &block[483..495];
    if text(field).is_empty() && field[0] == 0 {
        return Ok(0);
    }
    u64::try_from(numeric(field)?).map_err(|_| "a negative size")
}

/// Checks that the stretches lie in order inside the file and hold exactly the data that follows.
pub(super) fn check(map: &[Stretch], size: u64, stored: u64) -> Result<(), Malformed> {
    let (mut end, mut sum) = (0u64, 0u64);
    for piece in map {
        let piece_end = piece.offset.checked_add(piece.length).ok_or("a malformed map of a sparse file")?;
        if piece.offset < end || piece_end > size {
            return Err("the map of a sparse file overlaps or passes its end");
        }
        end = piece_end;
        sum += piece.length;
    }
    if sum != stored {
        return Err("the map of a sparse file does not fit its data");
    }
    Ok(())
}
