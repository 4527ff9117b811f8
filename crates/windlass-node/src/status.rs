//! What a daemon says of itself: the document behind `windlass status`, the status page and its JSON.
//!
//! Only plain data, written by the daemon and read by the command line; both are the same program, so fields only get
//! more. Lists are bounded by [`IMAGES_MAX`] and its like, with the true count beside them.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Images listed; a node has a few hundred.
pub const IMAGES_MAX: usize = 500;
/// Names listed of one image.
pub const NAMES_MAX: usize = 8;
/// Layers listed of one pull; those that are done or here already are left out first.
pub const LAYERS_MAX: usize = 64;
/// Pulls under way that are listed.
pub const PULLS_MAX: usize = 200;
/// Pulls that have ended and are listed.
pub const RECENT_MAX: usize = 50;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The root of its store.
    pub root: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Since when it runs.
    pub started: Timestamp,
    /// When this was put together.
    pub now: Timestamp,
    /// Whether it takes work.
    pub state: DaemonState,
    /// What keeps it from being ready.
    pub not_ready: Vec<NotReady>,
    /// What became of its configuration.
    pub configuration: ConfigurationStatus,
    /// The containerd it works for.
    pub containerd: Option<ContainerdStatus>,
    /// Pulls under way, the oldest first.
    pub pulls: Vec<PullRow>,
    /// How many there are.
    pub pull_count: usize,
    /// Pulls that have ended, the latest first.
    pub recent: Vec<PastRow>,
    /// Images whose next try has to wait.
    pub back_off: Vec<BackOffRow>,
    /// Images that are always here.
    pub pinned: Vec<PinnedRow>,
    /// The images, the largest first; left out where they were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<ImageRow>>,
    /// How many images there are.
    pub image_count: usize,
    /// The disk of the store, when it could be looked at.
    pub disk: Option<DiskStatus>,
    /// Collection by the daemon.
    pub collection: CollectionStatus,
    /// Who is asked for logins.
    #[serde(default)]
    pub logins: LoginStatus,
}

/// Who is asked for logins, and how that goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginStatus {
    /// What is wrong with the configuration of provider programs as it is now; the one before is in force then.
    pub problem: Option<String>,
    /// The hash of the one in force, as a kubelet shows it.
    pub config_hash: Option<String>,
    /// Programs and clouds, in the order in which they are asked.
    pub providers: Vec<ProviderRow>,
}

/// A provider of logins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderRow {
    /// Its name.
    pub name: String,
    /// `plugin` or `cloud`.
    pub kind: String,
    /// How often it was asked; answers that were kept do not count.
    pub calls: u64,
    /// How many of these failed.
    pub errors: u64,
    /// How long all of them took.
    pub total_seconds: f64,
    /// When the first of the kept answers ends.
    pub next_expiry: Option<Timestamp>,
    /// Answers that are kept.
    pub cached: Vec<CachedRow>,
}

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedRow {
    /// For what: an image, a registry, or all.
    pub key: String,
    /// Logins in it.
    pub logins: usize,
    /// When it ends.
    pub expires: Timestamp,
}

/// Whether the daemon takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonState {
    /// Something is not ready yet.
    Waiting,
    /// It does.
    Ready,
    /// It is ending: pulls under way are finished, new ones refused.
    Draining,
}

impl DaemonState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            DaemonState::Waiting => "waiting",
            DaemonState::Ready => "ready",
            DaemonState::Draining => "draining",
        }
    }
}

/// A check that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// Its name.
    pub check: String,
    /// Why.
    pub why: String,
}

/// What became of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationStatus {
    /// When the one in force was read.
    pub loaded: Timestamp,
    /// What is wrong with the files as they are now; the old configuration is in force then.
    pub problem: Option<String>,
    /// Keys that have changed and wait for a restart.
    pub needs_restart: Vec<String>,
}

/// The containerd the daemon works for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdStatus {
    /// Its socket.
    pub socket: PathBuf,
    /// The namespace of the kubelet's containers.
    pub namespace: String,
    /// Why it cannot be reached; `None`: it can.
    pub problem: Option<String>,
}

/// A pull under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullRow {
    /// Number within the daemon's life.
    pub number: u64,
    /// The reference as asked for.
    pub image: String,
    /// The platform chosen, once it is.
    pub platform: Option<String>,
    /// What the reference names, once it is known.
    pub digest: Option<String>,
    /// When it began.
    pub since: Timestamp,
    /// What it is doing: `resolving`, `layers` or `committing`.
    pub phase: String,
    /// Layers in all.
    pub layer_count: usize,
    /// Of these, those that are in the store.
    pub layers_done: usize,
    /// Layers, lowest first, those in work before the others where not all fit.
    pub layers: Vec<LayerRow>,
    /// Compressed bytes here, of those to fetch.
    pub done_bytes: u64,
    /// Compressed bytes to fetch.
    pub total_bytes: u64,
    /// Bytes a second in the last seconds.
    pub rate_bytes_per_second: u64,
    /// Seconds until all bytes are here at that rate.
    pub eta_seconds: Option<u64>,
}

/// A layer of a pull under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRow {
    /// Digest of the compressed bytes.
    pub digest: String,
    /// Compressed bytes in all.
    pub size_bytes: u64,
    /// Compressed bytes here.
    pub done_bytes: u64,
    /// `already-here`, `waiting`, `downloading`, `unpacking` or `done`.
    pub state: String,
    /// Bytes a second in the last seconds.
    pub rate_bytes_per_second: u64,
    /// Seconds until all bytes are here at that rate.
    pub eta_seconds: Option<u64>,
}

/// A pull that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastRow {
    /// Number within the daemon's life.
    pub number: u64,
    /// The reference as asked for.
    pub image: String,
    /// When it ended.
    pub at: Timestamp,
    /// `pulled`, `up-to-date`, `failed` or `canceled`.
    pub outcome: String,
    /// Why it failed: our stable word.
    pub reason: Option<String>,
    /// Why it failed, for people.
    pub message: Option<String>,
    /// The credential that was accepted, or the last that was refused, by its source; `None`: anonymous.
    pub credential: Option<String>,
    /// Every credential that was tried, by its source, with the registry's answer, in order.
    #[serde(default)]
    pub tried: Vec<String>,
    /// Bytes of layers that were fetched.
    pub fetched_bytes: u64,
    /// Milliseconds in all.
    pub total_ms: u64,
}

/// An image whose next try has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackOffRow {
    /// The image.
    pub image: String,
    /// For whom it was tried.
    pub who: String,
    /// Why the last try failed.
    pub cause: String,
    /// When the next may come.
    pub next_try: Timestamp,
}

/// An image that is always here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedRow {
    /// As configured.
    pub image: String,
    /// `waiting`, `pulling`, `here` or `failed`.
    pub state: String,
    /// The image ID, once it is here.
    pub id: Option<String>,
    /// When its tag was last looked up.
    pub checked: Option<Timestamp>,
    /// When it is looked up again.
    pub next_check: Option<Timestamp>,
    /// Why the last look-up failed.
    pub problem: Option<String>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRow {
    /// The image ID.
    pub id: String,
    /// Its names, those by tag first.
    pub names: Vec<String>,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Compressed bytes of its layers, as a registry has them.
    pub size_bytes: u64,
    /// Of these, of layers that other images have too.
    pub shared_bytes: u64,
    /// Bytes of its unpacked layers.
    pub unpacked_bytes: u64,
    /// Who wants it kept, and why.
    pub pins: Vec<String>,
    /// When it came.
    pub first_seen: Timestamp,
    /// When it was last used; `None`: never.
    pub last_used: Option<Timestamp>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// The disk of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Size of the file system.
    pub capacity_bytes: u64,
    /// What may still be written.
    pub available_bytes: u64,
    /// Inodes still free.
    pub free_inodes: u64,
    /// How full it is, as the kubelet counts.
    pub used_percent: u8,
    /// Bytes of blobs and unpacked layers.
    pub images_bytes: u64,
    /// Blobs and entries of unpacked layers.
    pub images_inodes: u64,
}

/// Collection by the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectionStatus {
    /// Whether the daemon collects.
    pub enabled: bool,
    /// From how full a disk on, in percent.
    pub high_percent: u8,
    /// Down to how full a disk.
    pub low_percent: u8,
    /// When it last looked.
    pub last_run: Option<Timestamp>,
    /// Bytes freed by that run.
    pub freed_bytes: u64,
    /// Images removed by that run, each with its reason.
    pub removed: Vec<String>,
    /// Why it failed, or what it could not reach.
    pub problem: Option<String>,
}
