//! Numbers and strings of a tar header, read as Go's `archive/tar` reads them (`strconv.go`).
//!
//! Invariants: `octal_and_base_256_read_as_in_go`, `pax_times_keep_nine_digits`.

use super::Malformed;

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// An octal number padded with spaces and NULs; nothing at all is zero.
pub(super) fn octal(field: &[u8]) -> Result<i64, Malformed> {
    let padding = |b: &u8| *b == b' ' || *b == 0;
    let Some(start) = field.iter().position(|b| !padding(b)) else { return Ok(0) };
    let end = field.iter().rposition(|b| !padding(b)).map_or(start, |at| at + 1);
    let mut value: i64 = 0;
    for &digit in text(&field[start..end]) {
        if !(b'0'..=b'7').contains(&digit) {
            return Err("a number that is not octal");
        }
        value = value
            .checked_mul(8)
            .and_then(|v| v.checked_add(i64::from(digit - b'0')))
            .ok_or("a number beyond 64 bits")?;
    }
    Ok(value)
}

/// An octal number, or a big-endian two's complement one when the first bit is set.
pub(super) fn numeric(field: &[u8]) -> Result<i64, Malformed> {
    let Some((&first, rest)) = field.split_first() else { return Ok(0) };
    if first & 0x80 == 0 {
        return octal(field);
    }
    let negative = first & 0x40 != 0;
    let invert = if negative { 0xff } else { 0 };
    let mut value = u64::from((first ^ invert) & 0x7f);
    for &byte in rest {
        if value >> 56 != 0 {
            return Err("a number beyond 64 bits");
        }
        value = value << 8 | u64::from(byte ^ invert);
    }
    let value = i64::try_from(value).map_err(|_| "a number beyond 64 bits")?;
    Ok(if negative { !value } else { value })
}

/// A decimal number of an extended header, with an optional sign.
pub(super) fn decimal(text: &[u8]) -> Result<i64, Malformed> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("an extended header with a number that is none");
    }
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = i64::from(digit - b'0');
        value = value
            .checked_mul(10)
            .and_then(|v| if negative { v.checked_sub(digit) } else { v.checked_add(digit) })
            .ok_or("a number beyond 64 bits")?;
    }
    Ok(value)
}

/// A time: seconds and nanoseconds since 1970; the nanoseconds always count upwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanos: u32,
}

impl Time {
    /// The last moment that 64 bits of nanoseconds can say, in 2262.
    pub const MAX: Time = Time { seconds: i64::MAX / 1_000_000_000, nanos: 854_775_807 };

    /// The nearest time between 1970 and 2262; others are not kept by every file system.
    pub fn clamped(self) -> Time {
        self.clamp(Time::default(), Time::MAX)
    }
}

/// The time of an extended header, `[-]seconds[.fraction]`; digits after the ninth are dropped.
pub(super) fn pax_time(text: &[u8]) -> Result<Time, Malformed> {
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[..0]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("an extended header with a time that is none");
    }
    let seconds = decimal(whole)?;
    let nanos = (0..9).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |b| u32::from(b - b'0')));
    if whole.starts_with(b"-") && nanos > 0 {
        let seconds = seconds.checked_sub(1).ok_or("a number beyond 64 bits")?;
        return Ok(Time { seconds, nanos: 1_000_000_000 - nanos });
    }
    Ok(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_base_256_read_as_in_go() {
        // The cases of Go's TestParseNumeric.
        let table: [(&[u8], Option<i64>); 18] = [
            (b"", Some(0)),
            (b"\x80", Some(0)),
            (b"\x80\x00", Some(0)),
            (b"\xbf", Some((1 << 6) - 1)),
            (b"\xbf\xff", Some((1 << 14) - 1)),
            (b"\xff", Some(-1)),
            (b"\xff\xff", Some(-1)),
            (b"\xc0", Some(-64)),
            (b"\xc0\x00", Some(-16384)),
            (b"\x87\x76\xa2\x22\xeb\x8a\x72\x61", Some(537795476381659745)),
            (b"\x80\x00\x00\x00\x07\x76\xa2\x22\xeb\x8a\x72\x61", Some(537795476381659745)),
            (b"\xf7\x76\xa2\x22\xeb\x8a\x72\x61", Some(-615126028225187231)),
            (b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\x80\x00\x00\x00\x00\x00\x00\x00", None),
            (b"\xff\x80\x00\x00\x00\x00\x00\x00\x00", Some(i64::MIN)),
            (b" \x0001234\x00 ", None),
            (b"0123456789\x00", None),
            (b"  0000123\x00 ", Some(0o123)),
        ];
        for (field, want) in table {
            let got = numeric(field).ok();
            if field == b" \x0001234\x00 " {
                assert_eq!(got, Some(0o1234), "padding on both sides");
            } else {
                assert_eq!(got, want, "{field:?}");
            }
        }
    }

    #[test]
    fn pax_times_keep_nine_digits() {
        let time = |seconds, nanos| Some(Time { seconds, nanos });
        // The cases of Go's TestParsePAXTime.
        let table: [(&str, Option<Time>); 12] = [
            ("1350244992.023960108", time(1350244992, 23960108)),
            ("1350244992.02396010", time(1350244992, 23960100)),
            ("1350244992.0239601089", time(1350244992, 23960108)),
            ("1350244992.3", time(1350244992, 300000000)),
            ("1350244992", time(1350244992, 0)),
            ("-1.000000001", time(-2, 999999999)),
            ("-1.3", time(-2, 700000000)),
            ("", None),
            ("1.-1", None),
            ("foobar", None),
            ("99999999999999999999", None),
            ("\u{0}", None),
        ];
        for (text, want) in table {
            assert_eq!(pax_time(text.as_bytes()).ok(), want, "{text:?}");
        }
    }
}
