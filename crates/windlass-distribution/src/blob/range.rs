//! `Content-Range`, read strictly.

/// The range an answer claims to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// First byte.
    pub(crate) first: u64,
    /// Last byte, included.
    pub(crate) last: u64,
    /// Size of the whole, if it is told.
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    /// Parses `bytes 5-9/10` or `bytes 5-9/*`.
    pub(crate) fn parse(text: &str) -> Option<ContentRange> {
        let (unit, rest) = text.trim().split_once(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total.trim() {
            "*" => None,
            number => Some(digits(number)?),
        };
        let range = ContentRange { first: digits(first.trim())?, last: digits(last.trim())?, total };
        let sound = range.first <= range.last && range.total.is_none_or(|total| range.last < total);
        (unit.eq_ignore_ascii_case("bytes") && sound).then_some(range)
    }

    /// Whether this answers a request for the bytes from `first` to `last` of a blob of `size` bytes. It may
    /// end earlier than asked.
    pub(crate) fn answers(&self, first: u64, last: u64, size: u64) -> bool {
        self.first == first && self.last <= last && self.total.is_none_or(|total| total == size)
    }
}

/// A number of digits alone; Rust's own parser takes a plus sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        let table = [
            ("bytes 5-9/10", Some((5, 9, Some(10)))),
            ("Bytes 0-0/*", Some((0, 0, None))),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("bytes +5-9/10", None),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("bytes 5-99999999999999999999/*", None),
            ("", None),
        ];
        for (text, want) in table {
            let got = ContentRange::parse(text).map(|r| (r.first, r.last, r.total));
            assert_eq!(got, want, "{text}");
        }
        let range = ContentRange::parse("bytes 5-9/10").unwrap();
        assert!(range.answers(5, 9, 10) && !range.answers(4, 9, 10) && !range.answers(5, 9, 11));
        assert!(!range.answers(5, 8, 10), "more than was asked for");
    }
}
