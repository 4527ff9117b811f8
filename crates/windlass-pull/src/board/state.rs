//! What the board shows: plain data, in the names of its JSON.

use jiff::Timestamp;
use serde::Serialize;

/// All there is to see.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BoardState {
    /// Pulls under way, the oldest first.
    pub pulls: Vec<PullState>,
    /// Pulls that have ended, the latest first.
    pub recent: Vec<PastPull>,
}

/// One pull under way.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullState {
    /// Number within this process.
    pub number: u64,
    /// The reference as typed.
    pub image: String,
    /// The platform chosen, once it is.
    pub platform: Option<String>,
    /// What the reference names, once it is known.
    pub digest: Option<String>,
    /// When it began.
    pub since: Timestamp,
    /// What it is doing.
    pub phase: Phase,
    /// The layers, lowest first, at most 512.
    pub layers: Vec<LayerRow>,
    /// Layers in all.
    pub layer_count: usize,
    /// Compressed bytes here, of those that this pull fetches.
    pub done_bytes: u64,
    /// Compressed bytes that this pull fetches.
    pub total_bytes: u64,
    /// Bytes a second in the last seconds.
    pub rate_bytes_per_second: u64,
    /// Seconds until all bytes are here at that rate; `None`: not known.
    pub eta_seconds: Option<u64>,
}

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asking the registry what the reference names.
    Resolving,
    /// Fetching and unpacking.
    Layers,
    /// Making the image durable and visible.
    Committing,
}

/// One layer of a pull under way.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRow {
    /// Digest of the compressed bytes.
    pub digest: String,
    /// Compressed bytes in all.
    pub size_bytes: u64,
    /// Compressed bytes here.
    pub done_bytes: u64,
    /// What it is doing.
    pub state: RowState,
    /// Bytes a second in the last seconds.
    pub rate_bytes_per_second: u64,
    /// Seconds until all bytes are here at that rate.
    pub eta_seconds: Option<u64>,
}

/// What a layer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowState {
    /// It was here before.
    AlreadyHere,
    /// It waits for a slot or for another pull.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// All bytes are here.
    Unpacking,
    /// It is in the store.
    Done,
}

/// One pull that has ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PastPull {
    /// Number within this process.
    pub number: u64,
    /// The reference as typed.
    pub image: String,
    /// When it ended.
    pub at: Timestamp,
    /// Time of each phase.
    pub times: PhaseTimes,
    /// How it ended.
    pub ending: Ending,
    /// The credential that was accepted or else the last one that was refused, by its source; `None`: anonymous.
    pub credential: Option<String>,
    /// Every credential that was tried, by its source, with the registry's answer, in order; at most 16.
    pub tried: Vec<String>,
    /// Bytes of layers that were fetched.
    pub fetched_bytes: u64,
    /// Layers of an image that is now here, a layer used twice counted once.
    pub layers: usize,
    /// Of these, how many were here before.
    pub layers_already_here: usize,
}

/// How long each phase took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTimes {
    /// Until the reference had led to a manifest.
    pub resolve_ms: u64,
    /// Fetching and unpacking.
    pub layers_ms: u64,
    /// Making it durable and visible.
    pub commit_ms: u64,
    /// In all.
    pub total_ms: u64,
}

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "ending")]
pub enum Ending {
    /// Something was fetched.
    Pulled,
    /// Nothing newer at the registry.
    UpToDate,
    /// It failed.
    Failed {
        /// Our stable word.
        reason: &'static str,
        /// What happened, without secrets.
        message: String,
    },
    /// The caller gave up.
    Canceled,
}
