//! Moments as clouds write them: RFC 3339 with any offset, seconds since 1970 with or without decimals, HTTP dates.
//!
//! Invariants: `moments_are_read_in_every_notation`, `what_is_no_moment_is_refused`.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;
use jiff::Timestamp;

/// The last second that is believed: the end of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Reads `2026-11-20T12:00:00Z`; fractions and offsets are fine.
pub(crate) fn rfc3339(text: &str) -> Option<SystemTime> {
    text.trim().parse::<Timestamp>().ok().map(SystemTime::from)
}

/// Seconds since 1970; `None` for what no calendar has.
pub(crate) fn unix(seconds: f64) -> Option<SystemTime> {
    let sane = (0.0..=LAST_SECOND).contains(&seconds);
    sane.then(|| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

/// The clock of whoever answered.
pub(crate) fn of_answer(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()
}

/// `20261120T120000Z`, as signatures write it.
pub(crate) fn basic(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// How long until `end`; nothing once it is over.
pub(crate) fn remaining(end: SystemTime, now: SystemTime) -> Duration {
    end.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn moments_are_read_in_every_notation() {
        let noon = at(1_440_938_160);
        for text in ["2015-08-30T12:36:00Z", " 2015-08-30T14:36:00+02:00", "2015-08-30T12:36:00.000Z"] {
            assert_eq!(rfc3339(text), Some(noon), "{text}");
        }
        assert_eq!(unix(1_440_938_160.5), Some(noon + Duration::from_millis(500)));
        assert_eq!(basic(noon), "20150830T123600Z");
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("Sun, 30 Aug 2015 12:36:00 GMT"));
        assert_eq!(of_answer(&headers), Some(noon));
        assert_eq!(
            (remaining(noon, at(1_440_938_100)), remaining(at(1), noon)),
            (Duration::from_secs(60), Duration::ZERO)
        );
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "soon", "2015-08-30", "2015-13-30T12:36:00Z", "2015-08-30T12:36:00"] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
        for seconds in [f64::NAN, f64::INFINITY, -1.0, 1e18] {
            assert_eq!(unix(seconds), None, "{seconds}");
        }
        assert_eq!(of_answer(&HeaderMap::new()), None);
    }
}
