//! Durations as Go prints them, which is how the protocol carries them.

use std::time::Duration;

/// The text of a duration: `6h0m0s`, `1m30s`, `1.5s`, `250ms`, `0s`.
pub fn go_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", decimal(u64::from(nanos / 1_000), nanos % 1_000, 3)),
            _ => format!("{}ms", decimal(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(seconds % 60, nanos, 9);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// `whole.fraction` without the zeros at the end.
fn decimal(whole: u64, fraction: u32, digits: usize) -> String {
    match fraction {
        0 => whole.to_string(),
        _ => format!("{whole}.{}", format!("{fraction:0digits$}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let table = [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(7), "7ns"),
            (Duration::from_nanos(1_100), "1.1µs"),
            (Duration::from_millis(250), "250ms"),
            (Duration::from_micros(2_200), "2.2ms"),
            (Duration::from_millis(1_500), "1.5s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_secs(3_000), "50m0s"),
            (Duration::from_secs(21_600), "6h0m0s"),
            (Duration::from_millis(3_725_001), "1h2m5.001s"),
        ];
        for (duration, want) in table {
            assert_eq!(go_duration(duration), want);
        }
    }
}
