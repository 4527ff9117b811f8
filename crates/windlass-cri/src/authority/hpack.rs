//! A block of HTTP/2 header fields (RFC 7541) in which the authority is written anew.
//!
//! Only the syntax is read, no table is kept: a first mention of `:authority` names entry 1 of the static table and
//! brings its value, every later one is an index. The new value is one byte long, so that an entry of the peer's table
//! never becomes larger by it: entries then have the same indices on both sides for as long as the peer uses them.
//!
//! Invariants: `an_authority_that_is_written_out_is_replaced`, `what_is_no_block_stays_as_it_is`.

/// The static table's index of `:authority`, RFC 7541 appendix A.
const AUTHORITY: u64 = 1;
/// A string of one letter, not in Huffman's code: what stands for every authority.
const ANYBODY: [u8; 2] = [1, b'u'];
/// More bytes of a number than this are no number of ours: 2^28 is longer than any block.
const NUMBER_BYTES_MAX: usize = 4;

/// The block with another authority; `None` when it writes none out, or is no block.
pub(super) fn with_any_authority(block: &[u8]) -> Option<Vec<u8>> {
    let value = authority(block)?;
    let (before, after) = (block.get(..value.start)?, block.get(value.end..)?);
    Some([before, &ANYBODY, after].concat())
}

/// Where the value of a written-out authority stands, its length included.
fn authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut reader = Reader { block, at: 0 };
    while let Some(first) = block.get(reader.at).copied() {
        // The kinds of fields, RFC 7541 section 6.
        let literal = match first {
            0x80.. => None,
            0x40.. => Some(6),
            0x20.. => None,
            _ => Some(4),
        };
        let Some(prefix_bits) = literal else {
            reader.number(if first >= 0x80 { 7 } else { 5 })?;
            continue;
        };
        let name = reader.number(prefix_bits)?;
        if name == 0 {
            reader.string()?;
        }
        let start = reader.at;
        reader.string()?;
        if name == AUTHORITY {
            return Some(start..reader.at);
        }
    }
    None
}

struct Reader<'b> {
    block: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    /// An integer whose first byte has this many bits of it, RFC 7541 section 5.1.
    fn number(&mut self, prefix_bits: u32) -> Option<u64> {
        let most = (1u8 << prefix_bits) - 1;
        let prefix = *self.block.get(self.at)? & most;
        self.at += 1;
        let mut number = u64::from(prefix);
        if prefix < most {
            return Some(number);
        }
        for place in 0..NUMBER_BYTES_MAX {
            let byte = *self.block.get(self.at)?;
            self.at += 1;
            number += u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Passes over a string, RFC 7541 section 5.2.
    fn string(&mut self) -> Option<()> {
        let length = usize::try_from(self.number(7)?).ok()?;
        self.at = self.at.checked_add(length).filter(|end| *end <= self.block.len())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hexadecimal digits of the RFC's examples.
    fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn an_authority_that_is_written_out_is_replaced() {
        let table = [
            // RFC 7541 C.3.1 and C.4.1: `www.example.com` as it is and in Huffman's code.
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", Some("8286 8441 0175")),
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", Some("8286 8441 0175")),
            // Between other fields, not to be indexed, after a change of the table's size.
            ("3fe11f 01 03 2f612f 82", Some("3fe11f 01 0175 82")),
            // C.3.2 and C.2.1: by its index, and no authority at all.
            ("8286 84be 5808 6e6f 2d63 6163 6865", None),
            ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", None),
        ];
        for (block, want) in table {
            assert_eq!(with_any_authority(&bytes(block)), want.map(bytes), "{block}");
        }
    }

    #[test]
    fn what_is_no_block_stays_as_it_is() {
        for block in ["", "41", "41 05 61", "41 7f ff ff ff ff ff 01", "40 03 61", "ff ff ff ff ff ff", "7f"] {
            assert_eq!(with_any_authority(&bytes(block)), None, "{block}");
        }
    }
}
