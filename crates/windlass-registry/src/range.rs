//! Byte ranges of requests. Pure.
//!
//! Source of truth: RFC 9110 section 14 for `Range`; distribution-spec "Pushing a blob in chunks" for the
//! `Content-Range: <start>-<end>` of uploads, which has no unit.
//!
//! Invariant: `a_served_range_lies_inside_the_blob`.

/// What of a blob is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// All of it, with 200.
    Whole,
    /// These bytes, with 206; both ends inclusive.
    Part { first: u64, last: u64 },
    /// Nothing lies in the range: 416.
    Unsatisfiable,
}

/// Decides what a `Range` header asks for. What is malformed, reversed or has several ranges is ignored.
pub(crate) fn served(header: Option<&str>, size_bytes: u64) -> Served {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Served::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Served::Whole };
    match (parse(first), parse(last)) {
        (Some(first), Some(last)) if last < first => Served::Whole,
        (Some(first), Some(last)) => part(first, last, size_bytes),
        (Some(first), None) if last.trim().is_empty() => part(first, u64::MAX, size_bytes),
        (None, Some(suffix)) if first.trim().is_empty() => {
            if suffix == 0 {
                Served::Unsatisfiable
            } else {
                part(size_bytes.saturating_sub(suffix), u64::MAX, size_bytes)
            }
        }
        _ => Served::Whole,
    }
}

fn part(first: u64, last: u64, size_bytes: u64) -> Served {
    if first >= size_bytes {
        return Served::Unsatisfiable;
    }
    Served::Part { first, last: last.min(size_bytes - 1) }
}

/// Reads the `Content-Range` of an upload, `<start>-<end>` with both ends inclusive; `bytes ` before it and
/// `/total` after it are tolerated. `None` when it is malformed.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").or_else(|| text.strip_prefix("bytes=")).unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (first, last) = (parse(first)?, parse(last)?);
    (first <= last).then_some((first, last))
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_served_range_lies_inside_the_blob() {
        let part = |first, last| Served::Part { first, last };
        let table = [
            (None, 10, Served::Whole),
            (Some("bytes=0-3"), 10, part(0, 3)),
            (Some("bytes=4-"), 10, part(4, 9)),
            (Some("bytes=-3"), 10, part(7, 9)),
            (Some("bytes=-30"), 10, part(0, 9)),
            (Some("bytes=-0"), 10, Served::Unsatisfiable),
            (Some("bytes=8-99"), 10, part(8, 9)),
            (Some("bytes=10-"), 10, Served::Unsatisfiable),
            (Some("bytes=0-"), 0, Served::Unsatisfiable),
            (Some("bytes=500-0"), 10, Served::Whole),
            (Some("bytes=0-1,4-5"), 10, Served::Whole),
            (Some("bytes=a-b"), 10, Served::Whole),
            (Some("bytes=99999999999999999999-"), 10, Served::Whole),
            (Some("items=0-1"), 10, Served::Whole),
            (Some("bytes=-"), 10, Served::Whole),
        ];
        for (header, size, want) in table {
            assert_eq!(served(header, size), want, "{header:?} of {size}");
        }
    }

    #[test]
    fn a_chunk_names_both_its_ends() {
        assert_eq!(chunk("0-9"), Some((0, 9)));
        assert_eq!(chunk("bytes 5-9/20"), Some((5, 9)));
        for bad in ["", "5", "5-", "-5", "9-5", "a-b"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
