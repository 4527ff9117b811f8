//! The texts of events and states, as the kubelet words them.

use std::fmt::Write as _;
use std::time::Duration;

/// A text in double quotes, as Go's `%q` writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\'' => out.push(c),
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            // Rust escapes in `Debug` what cannot be printed, much as Go does.
            c if c.escape_debug().len() > 1 => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A duration to the millisecond, as Go prints it: `0s`, `87ms`, `1.25s`, `1m3.5s`, `1h0m2s`.
pub(super) fn duration(duration: Duration) -> String {
    let total = duration.as_millis();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1000 {
        return format!("{total}ms");
    }
    let (hours, minutes, rest) = (total / 3_600_000, total / 60_000 % 60, total % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

pub(super) fn invalid_name(image: &str, error: &str) -> String {
    format!("Failed to apply default image tag {}: {error}", quoted(image))
}

pub(super) fn inspect_failed(image: &str, error: &str) -> String {
    format!("Failed to inspect image {}: {error}", quoted(image))
}

pub(super) fn never(image: &str) -> String {
    format!("Container image {} is not present with pull policy of Never", quoted(image))
}

pub(super) fn present(image: &str) -> String {
    format!("Container image {} already present on machine", quoted(image))
}

pub(super) fn present_and_allowed(image: &str) -> String {
    format!("{} and can be accessed by the pod", present(image))
}

pub(super) fn intent_failed(image: &str, error: &str) -> String {
    format!("Failed to record image pull intent for container image {}: {error}", quoted(image))
}

pub(super) fn back_off(image: &str) -> String {
    format!("Back-off pulling image {}", quoted(image))
}

pub(super) fn pulling(image: &str) -> String {
    format!("Pulling image {}", quoted(image))
}

pub(super) fn pulled(image: &str, pull: Duration, with_waiting: Duration, size_bytes: u64) -> String {
    let (pull, waiting) = (duration(pull), duration(with_waiting));
    let image = quoted(image);
    format!(
        "Successfully pulled image {image} in {pull} ({waiting} including waiting). Image size: {size_bytes} bytes."
    )
}

pub(super) fn pull_failed(image: &str, error: &str) -> String {
    format!("Failed to pull image {}: {error}", quoted(image))
}

pub(super) fn unavailable(image: &str, rest: &str) -> String {
    format!("image pull failed for {image} because the registry is unavailable{rest}")
}

pub(super) fn unsigned(image: &str, rest: &str) -> String {
    format!("image pull failed for {image} because the signature validation failed{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_and_times_printed_as_go_does() {
        let table =
            [("a", "\"a\""), ("a\"b\\", "\"a\\\"b\\\\\""), ("\n\u{1b}\u{202e}\u{e9}'", "\"\\n\\x1b\\u202e\u{e9}'\"")];
        for (text, want) in table {
            assert_eq!(quoted(text), want);
        }
        let table = [
            (0, "0s"),
            (87, "87ms"),
            (1000, "1s"),
            (1250, "1.25s"),
            (10_000, "10s"),
            (63_500, "1m3.5s"),
            (60_000, "1m0s"),
            (3_602_000, "1h0m2s"),
        ];
        for (millis, want) in table {
            assert_eq!(duration(Duration::from_millis(millis)), want);
        }
    }
}
