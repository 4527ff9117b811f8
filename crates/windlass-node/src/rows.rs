//! From the engine's board to what is shown of it.
//!
//! Invariants: `layers_in_work_are_shown_before_those_that_are_done`, `text_of_others_is_shortened`.

use windlass_pull::{BoardState, Ending, PastPull, Phase, PullState, RowState};

use crate::status::{LAYERS_MAX, LayerRow, PULLS_MAX, PastRow, PullRow, RECENT_MAX};

/// Letters of a reference or an error that are shown.
const TEXT_CHARS_MAX: usize = 1000;

/// Pulls under way, and those that have ended, of all that the board has.
pub(crate) fn rows(board: BoardState) -> (Vec<PullRow>, Vec<PastRow>) {
    let pulls = board.pulls.into_iter().take(PULLS_MAX).map(pull);
    (pulls.collect(), board.recent.into_iter().take(RECENT_MAX).map(past).collect())
}

const fn state_word(state: RowState) -> &'static str {
    match state {
        RowState::AlreadyHere => "already-here",
        RowState::Waiting => "waiting",
        RowState::Downloading => "downloading",
        RowState::Unpacking => "unpacking",
        RowState::Done => "done",
    }
}

/// Smaller is shown first.
const fn rank(state: RowState) -> u8 {
    match state {
        RowState::Downloading | RowState::Unpacking => 0,
        RowState::Waiting => 1,
        RowState::Done => 2,
        RowState::AlreadyHere => 3,
    }
}

fn pull(pull: PullState) -> PullRow {
    let layers_done =
        pull.layers.iter().filter(|layer| matches!(layer.state, RowState::Done | RowState::AlreadyHere)).count();
    let mut chosen: Vec<(usize, windlass_pull::LayerRow)> = pull.layers.into_iter().enumerate().collect();
    if chosen.len() > LAYERS_MAX {
        chosen.sort_by_key(|(at, layer)| (rank(layer.state), *at));
        chosen.truncate(LAYERS_MAX);
        chosen.sort_by_key(|(at, _)| *at);
    }
    let layers = chosen.into_iter().map(|(_, layer)| LayerRow {
        digest: layer.digest,
        size_bytes: layer.size_bytes,
        done_bytes: layer.done_bytes.min(layer.size_bytes),
        state: state_word(layer.state).to_owned(),
        rate_bytes_per_second: layer.rate_bytes_per_second,
        eta_seconds: layer.eta_seconds,
    });
    PullRow {
        number: pull.number,
        image: shortened(pull.image),
        platform: pull.platform,
        digest: pull.digest,
        since: pull.since,
        phase: match pull.phase {
            Phase::Resolving => "resolving",
            Phase::Layers => "layers",
            Phase::Committing => "committing",
        }
        .to_owned(),
        layer_count: pull.layer_count,
        layers_done,
        layers: layers.collect(),
        done_bytes: pull.done_bytes,
        total_bytes: pull.total_bytes,
        rate_bytes_per_second: pull.rate_bytes_per_second,
        eta_seconds: pull.eta_seconds,
    }
}

fn past(past: PastPull) -> PastRow {
    let (outcome, reason, message) = match past.ending {
        Ending::Pulled => ("pulled", None, None),
        Ending::UpToDate => ("up-to-date", None, None),
        Ending::Failed { reason, message } => ("failed", Some(reason.to_owned()), Some(shortened(message))),
        Ending::Canceled => ("canceled", None, None),
    };
    PastRow {
        number: past.number,
        image: shortened(past.image),
        at: past.at,
        outcome: outcome.to_owned(),
        reason,
        message,
        credential: past.credential,
        tried: past.tried,
        fetched_bytes: past.fetched_bytes,
        total_ms: past.times.total_ms,
    }
}

/// Text of others, no longer than a screen takes.
pub(crate) fn shortened(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn layers_in_work_are_shown_before_those_that_are_done() {
        let layer = |at: usize, state| windlass_pull::LayerRow {
            digest: format!("sha256:{at}"),
            size_bytes: 10,
            done_bytes: 12,
            state,
            rate_bytes_per_second: 0,
            eta_seconds: None,
        };
        let states = |at: usize| if at < 100 { RowState::Done } else { RowState::Downloading };
        let state = PullState {
            number: 1,
            image: "a".to_owned(),
            platform: None,
            digest: None,
            since: Timestamp::UNIX_EPOCH,
            phase: Phase::Layers,
            layers: (0..110).map(|at| layer(at, states(at))).collect(),
            layer_count: 110,
            done_bytes: 0,
            total_bytes: 0,
            rate_bytes_per_second: 0,
            eta_seconds: None,
        };
        let row = pull(state);
        assert_eq!((row.layers.len(), row.layers_done, row.layer_count), (LAYERS_MAX, 100, 110));
        let shown: Vec<&str> = row.layers.iter().map(|layer| layer.digest.as_str()).collect();
        assert_eq!((shown[0], shown[LAYERS_MAX - 10], shown[LAYERS_MAX - 1]), ("sha256:0", "sha256:100", "sha256:109"));
        assert!(row.layers.iter().all(|layer| layer.done_bytes <= layer.size_bytes));
    }

    #[test]
    fn text_of_others_is_shortened() {
        assert_eq!(shortened("a".to_owned()), "a");
        assert_eq!(shortened("ä".repeat(5_000)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}
