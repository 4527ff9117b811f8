//! The client's deadline: a call that outlasts its `grpc-timeout` ends with `DEADLINE_EXCEEDED`, and its work stops.
//!
//! Dropping the call's future is what stops the work; see the image service. The answer's head counts, not a stream
//! behind it. Source of truth: gRPC over HTTP/2, "Timeout".
//!
//! Invariant: `a_timeout_is_read_as_the_protocol_writes_it`.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use tonic::Status;

/// Most digits of a time-out; the protocol allows no more, so nothing overflows.
const DIGITS_MAX: usize = 8;

/// Ends calls at their deadline. A header that makes no sense is no deadline, as in other servers.
pub(crate) async fn enforce(request: Request, next: Next) -> Response {
    let Some(limit) = timeout(request.headers()) else { return next.run(request).await };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Status::deadline_exceeded("context deadline exceeded").into_http::<axum::body::Body>().into_response()
        }
    }
}

fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_the_protocol_writes_it() {
        let table = [
            ("1m", Some(Duration::from_millis(1))),
            ("999943u", Some(Duration::from_micros(999_943))),
            ("2S", Some(Duration::from_secs(2))),
            ("10n", Some(Duration::from_nanos(10))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("999999999S", None),
            ("0m", Some(Duration::ZERO)),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("1.5S", None),
        ];
        for (text, want) in table {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout(&headers), want, "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
