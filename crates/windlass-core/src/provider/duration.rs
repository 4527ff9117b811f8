//! Durations as Go writes them: `1h30m`, `500ms`, `-1.5s`, `0`.
//!
//! Source of truth: Go `time.ParseDuration`. Invariant: `durations_are_read_as_go_reads_them`.

use std::time::Duration;

/// A duration with a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration {
    nanoseconds: i64,
}

/// The text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a duration such as 10m or 1h30m")]
pub struct GoDurationError;

impl GoDuration {
    /// Reads a duration; at most about 292 years either way.
    ///
    /// # Errors
    /// The text is no duration, or has no unit.
    pub fn parse(text: &str) -> Result<GoDuration, GoDurationError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) | None => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration { nanoseconds: 0 });
        }
        if rest.is_empty() {
            return Err(GoDurationError);
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (value, after) = one(rest)?;
            total += value;
            // Go counts in 64 bits; the smallest number has no positive counterpart.
            if total > i128::from(i64::MAX) + i128::from(negative) {
                return Err(GoDurationError);
            }
            rest = after;
        }
        let total = if negative { -total } else { total };
        i64::try_from(total).map(|nanoseconds| GoDuration { nanoseconds }).map_err(|_| GoDurationError)
    }

    /// Whether it lies in the past.
    pub fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// The length; nothing where it is negative.
    pub fn or_zero(self) -> Duration {
        u64::try_from(self.nanoseconds).map(Duration::from_nanos).unwrap_or_default()
    }
}

/// One number with its unit, in nanoseconds, and what follows.
fn one(text: &str) -> Result<(i128, &str), GoDurationError> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let (integer, mut rest) = text.split_at(whole);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let (found, after) = after.split_at(digits(after));
        (fraction, rest) = (found, after);
    }
    if integer.is_empty() && fraction.is_empty() {
        return Err(GoDurationError);
    }
    let length = rest.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
    let (unit, rest) = rest.split_at(length);
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(GoDurationError),
    };
    let integer = integer.trim_start_matches('0');
    if integer.len() > 19 {
        return Err(GoDurationError);
    }
    let integer: i128 = if integer.is_empty() { 0 } else { integer.parse().map_err(|_| GoDurationError)? };
    // Go drops what is finer than a nanosecond; 18 digits are more than any unit has.
    let (mut part, mut scale) = (0_i128, 1_i128);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    Ok((integer * unit + part * unit / scale, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0s", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("6h0m0s", Some(21_600_000_000_000)),
            ("1h15m30.918s", Some(4_530_918_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("-2m3.4s", Some(-123_400_000_000)),
            ("+5s", Some(5_000_000_000)),
            ("1ns2us3ms", Some(3_002_001)),
            ("3\u{b5}s", Some(3_000)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("3000000h", None),
            ("", None),
            ("3", None),
            ("-", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("5 s", None),
            ("--5s", None),
            ("1h-5m", None),
        ];
        for (text, want) in table {
            let got = GoDuration::parse(text).ok().map(|d| d.nanoseconds);
            assert_eq!(got, want, "{text}");
        }
        let parse = |text| GoDuration::parse(text).map(GoDuration::or_zero);
        assert_eq!((parse("-1s"), parse("2s")), (Ok(Duration::ZERO), Ok(Duration::from_secs(2))));
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(text in ".{0,40}", numbers in "[-+]?[0-9.]{0,30}(h|m|s|ms|µs|ns)[0-9.]{0,9}") {
            let _ = GoDuration::parse(&text);
            let _ = GoDuration::parse(&numbers);
        }
    }
}
