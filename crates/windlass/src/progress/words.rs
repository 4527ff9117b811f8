//! The sentences that bars and plain lines share.

use windlass_pull::events::{Event, LayerInfo, Outcome, TotalsLine};

use crate::failure::shown;
use crate::output::size::{age, bytes};

/// Letters of a digest that people compare: its algorithm is the same everywhere.
const SHORT_DIGEST: usize = 12;

/// `sha256:9f2c...` as its first letters.
pub(crate) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHORT_DIGEST).collect()
}

/// `registry.example/team/app:1.4  linux/amd64  sha256:9f2c...  6 layers, 182 MB`.
pub(super) fn resolved(image: &str, platform: &str, digest: &str, layers: &[LayerInfo]) -> String {
    let total = layers.iter().map(|layer| layer.size_bytes).sum();
    let noun = if layers.len() == 1 { "layer" } else { "layers" };
    // A manifest that no index led to does not say where it runs.
    let platform = if platform.is_empty() { String::new() } else { format!("  {}", shown(platform)) };
    format!("{}{platform}  {digest}  {} {noun}, {}", shown(image), layers.len(), bytes(total))
}

/// `3 of 6 here already | 61.2 MB/94.0 MB  188 MB/s  unpack 2  eta 3s`.
pub(super) fn totals(line: TotalsLine, bytes_per_second: u64) -> String {
    let mut text = String::new();
    if line.already_here > 0 {
        text.push_str(&format!("{} of {} here already | ", line.already_here, line.layers));
    }
    text.push_str(&format!("{}/{}", bytes(line.done_bytes), bytes(line.total_bytes)));
    if bytes_per_second > 0 {
        text.push_str(&format!("  {}/s", bytes(bytes_per_second)));
    }
    if line.unpacking > 0 {
        text.push_str(&format!("  unpack {}", line.unpacking));
    }
    let left = line.total_bytes.saturating_sub(line.done_bytes);
    if let Some(seconds) = left.checked_div(bytes_per_second).filter(|_| left > 0) {
        text.push_str(&format!("  eta {}", age(std::time::Duration::from_secs(seconds + 1))));
    }
    text
}

/// Events that are one line in every form for people; the others belong to the bars.
pub(super) fn line(event: &Event) -> Option<String> {
    match event {
        Event::Resolved { image, platform, digest, layers } => Some(resolved(image, platform, digest.as_str(), layers)),
        Event::Warning { image, text } => Some(format!("warning: {}: {}", shown(image), shown(text))),
        Event::Waiting { image, pod, delay, reason } => {
            Some(format!("{}: {} ({}), next try in {}", shown(pod), shown(image), shown(reason), age(*delay)))
        }
        _ => None,
    }
}

/// How an image came to be there.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pulled => "pulled",
        Outcome::UpToDate => "up to date",
        Outcome::AlreadyHere => "here already",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_totals_leaves_out_what_is_nothing() {
        let all = TotalsLine {
            layers: 6,
            already_here: 3,
            done: 1,
            unpacking: 2,
            done_bytes: 61_200_000,
            total_bytes: 94_000_000,
        };
        assert_eq!(totals(all, 188_000_000), "3 of 6 here already | 61.2 MB/94.0 MB  188 MB/s  unpack 2  eta 1s");
        let few = TotalsLine { layers: 1, total_bytes: 10, ..TotalsLine::default() };
        assert_eq!(totals(few, 0), "0 B/10 B");
    }

    #[test]
    fn a_short_digest_has_no_algorithm() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
