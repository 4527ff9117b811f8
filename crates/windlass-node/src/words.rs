//! Quantities as people read them, on the page and in tables.
//!
//! Invariants: `sizes_have_three_figures`, `ages_have_one_unit`.

use std::time::Duration;

/// Letters of a digest that people compare: its algorithm is the same everywhere.
const SHORT_DIGEST: usize = 12;

/// Bytes in decimal units, as registries and disks are sold: `182 MB`, `1.5 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut whole = count;
    let mut rest = 0;
    while whole >= 1000 && unit + 1 < UNITS.len() {
        rest = whole % 1000;
        whole /= 1000;
        unit += 1;
    }
    let name = UNITS[unit];
    if unit > 0 && whole < 10 {
        format!("{whole}.{:02} {name}", rest / 10)
    } else if unit > 0 && whole < 100 {
        format!("{whole}.{} {name}", rest / 100)
    } else {
        format!("{whole} {name}")
    }
}

/// A span of time in its largest unit: `45s`, `3m`, `2h`, `5d`.
pub fn age(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `sha256:9f2c...` as its first letters.
pub fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHORT_DIGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_figures() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (61_200_000, "61.2 MB"),
            (182_000_000, "182 MB"),
            (1_549_000_000, "1.54 GB"),
            (u64::MAX, "18446744 TB"),
        ];
        for (count, want) in table {
            assert_eq!(bytes(count), want);
        }
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, want) in [(0, "0s"), (59, "59s"), (60, "1m"), (3_600, "1h"), (172_800, "2d")] {
            assert_eq!(age(Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn a_short_digest_has_no_algorithm() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
