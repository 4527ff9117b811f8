//! The status in words, as the templates take it.

use std::time::Duration;

use jiff::Timestamp;

use crate::status::{
    BackOffRow, CachedRow, CollectionStatus, DaemonState, DiskStatus, ImageRow, LayerRow, NodeStatus, PastRow,
    PinnedRow, ProviderRow, PullRow,
};
use crate::words::{age, bytes, short};

/// Failures shown.
const FAILURES_MAX: usize = 20;

pub(super) struct Shown {
    pub(super) state: &'static str,
    pub(super) state_class: &'static str,
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) uptime: String,
    pub(super) root: String,
    pub(super) socket: String,
    pub(super) not_ready: Vec<String>,
    pub(super) configuration_problem: Option<String>,
    pub(super) needs_restart: String,
    pub(super) pulls: Vec<Pull>,
    pub(super) pulls_left_out: usize,
    pub(super) failures: Vec<Failed>,
    pub(super) back_off: Vec<Waiting>,
    pub(super) pinned: Vec<Pinned>,
    pub(super) images: Vec<Image>,
    pub(super) image_count: usize,
    pub(super) images_left_out: usize,
    pub(super) disk: Option<Disk>,
    pub(super) collection: String,
    pub(super) removed: Vec<String>,
    pub(super) login_problem: Option<String>,
    pub(super) providers: Vec<Provider>,
}

pub(super) struct Pull {
    pub(super) number: u64,
    pub(super) image: String,
    pub(super) about: String,
    pub(super) done_bytes: u64,
    /// At least 1: a bar of nothing is a bar that moves by itself.
    pub(super) total_bytes: u64,
    pub(super) percent: u64,
    pub(super) done: String,
    pub(super) total: String,
    pub(super) speed: String,
    pub(super) layers_done: usize,
    pub(super) layer_count: usize,
    pub(super) layers_caption: String,
    pub(super) layers: Vec<Layer>,
}

pub(super) struct Layer {
    pub(super) digest: String,
    pub(super) state: String,
    pub(super) done: String,
    pub(super) size: String,
    pub(super) speed: String,
}

pub(super) struct Failed {
    pub(super) image: String,
    pub(super) when: String,
    pub(super) reason: String,
    pub(super) credential: String,
    pub(super) message: String,
    pub(super) tried: Vec<String>,
}

pub(super) struct Provider {
    pub(super) title: String,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) kept: Vec<String>,
}

pub(super) struct Waiting {
    pub(super) image: String,
    pub(super) who: String,
    pub(super) left: String,
    pub(super) cause: String,
}

pub(super) struct Pinned {
    pub(super) image: String,
    pub(super) state: String,
    pub(super) checked: String,
    pub(super) problem: String,
}

pub(super) struct Image {
    pub(super) names: Vec<String>,
    pub(super) id: String,
    pub(super) platform: String,
    pub(super) size: String,
    pub(super) shared: String,
    pub(super) unpacked: String,
    pub(super) pins: String,
    pub(super) used: String,
    pub(super) damage: Option<String>,
}

pub(super) struct Disk {
    pub(super) percent: u8,
    pub(super) available: String,
    pub(super) capacity: String,
    pub(super) images: String,
}

/// The time between two moments; none when the clock went back.
fn between(from: Timestamp, to: Timestamp) -> String {
    age(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

/// `12 MB/s, 3s left`.
fn speed(rate: u64, eta_seconds: Option<u64>) -> String {
    match (rate, eta_seconds) {
        (0, _) => String::new(),
        (rate, None) => format!("{}/s", bytes(rate)),
        (rate, Some(seconds)) => format!("{}/s, {} left", bytes(rate), age(Duration::from_secs(seconds))),
    }
}

impl Shown {
    pub(super) fn of(status: &NodeStatus) -> Shown {
        let now = status.now;
        let failures = status.recent.iter().filter(|past| past.outcome == "failed").take(FAILURES_MAX);
        let images = status.images.as_deref().unwrap_or_default();
        Shown {
            state: status.state.as_str(),
            state_class: match status.state {
                DaemonState::Ready => "good",
                DaemonState::Waiting | DaemonState::Draining => "bad",
            },
            version: status.version.clone(),
            pid: status.pid,
            uptime: between(status.started, now),
            root: status.root.display().to_string(),
            socket: status.socket.display().to_string(),
            not_ready: status.not_ready.iter().map(|check| format!("{}: {}", check.check, check.why)).collect(),
            configuration_problem: status.configuration.problem.clone(),
            needs_restart: status.configuration.needs_restart.join(", "),
            pulls: status.pulls.iter().map(|row| Pull::of(row, now)).collect(),
            pulls_left_out: status.pull_count.saturating_sub(status.pulls.len()),
            failures: failures.map(|row| Failed::of(row, now)).collect(),
            back_off: status.back_off.iter().map(|row| Waiting::of(row, now)).collect(),
            pinned: status.pinned.iter().map(|row| Pinned::of(row, now)).collect(),
            images: images.iter().map(|row| Image::of(row, now)).collect(),
            image_count: status.image_count,
            images_left_out: status.image_count.saturating_sub(images.len()),
            disk: status.disk.as_ref().map(Disk::of),
            collection: collection(&status.collection, now),
            removed: status.collection.removed.clone(),
            login_problem: status.logins.problem.clone(),
            providers: status.logins.providers.iter().map(|row| Provider::of(row, now)).collect(),
        }
    }
}

impl Pull {
    fn of(row: &PullRow, now: Timestamp) -> Pull {
        let platform = row.platform.as_deref().unwrap_or_default();
        let left_out = row.layer_count.saturating_sub(row.layers.len());
        Pull {
            number: row.number,
            image: row.image.clone(),
            about: format!("{} {platform} for {}", row.phase, between(row.since, now)),
            done_bytes: row.done_bytes,
            total_bytes: row.total_bytes.max(1),
            percent: row.done_bytes.saturating_mul(100).checked_div(row.total_bytes).unwrap_or(0),
            done: bytes(row.done_bytes),
            total: bytes(row.total_bytes),
            speed: speed(row.rate_bytes_per_second, row.eta_seconds),
            layers_done: row.layers_done,
            layer_count: row.layer_count,
            layers_caption: if left_out > 0 { format!("{left_out} more layers are not shown") } else { String::new() },
            layers: row.layers.iter().map(Layer::of).collect(),
        }
    }
}

impl Layer {
    fn of(row: &LayerRow) -> Layer {
        Layer {
            digest: short(&row.digest),
            state: row.state.replace('-', " "),
            done: bytes(row.done_bytes),
            size: bytes(row.size_bytes),
            speed: speed(row.rate_bytes_per_second, row.eta_seconds),
        }
    }
}

impl Failed {
    fn of(row: &PastRow, now: Timestamp) -> Failed {
        Failed {
            image: row.image.clone(),
            when: between(row.at, now),
            reason: row.reason.clone().unwrap_or_default(),
            credential: row.credential.clone().unwrap_or_else(|| "anonymous".to_owned()),
            message: row.message.clone().unwrap_or_default(),
            tried: row.tried.clone(),
        }
    }
}

impl Provider {
    fn of(row: &ProviderRow, now: Timestamp) -> Provider {
        let kept = |kept: &CachedRow| format!("{}, {} more", kept.key, between(now, kept.expires));
        Provider {
            title: format!("{} {}", row.kind, row.name),
            calls: row.calls,
            errors: row.errors,
            kept: row.cached.iter().map(kept).collect(),
        }
    }
}

impl Waiting {
    fn of(row: &BackOffRow, now: Timestamp) -> Waiting {
        Waiting {
            image: row.image.clone(),
            who: row.who.clone(),
            left: between(now, row.next_try),
            cause: row.cause.clone(),
        }
    }
}

impl Pinned {
    fn of(row: &PinnedRow, now: Timestamp) -> Pinned {
        Pinned {
            image: row.image.clone(),
            state: row.state.clone(),
            checked: row.checked.map_or_else(|| "never".to_owned(), |at| format!("{} ago", between(at, now))),
            problem: row.problem.clone().unwrap_or_default(),
        }
    }
}

impl Image {
    fn of(row: &ImageRow, now: Timestamp) -> Image {
        Image {
            names: row.names.clone(),
            id: short(&row.id),
            platform: row.platform.clone(),
            size: bytes(row.size_bytes),
            shared: bytes(row.shared_bytes),
            unpacked: bytes(row.unpacked_bytes),
            pins: row.pins.join("; "),
            used: row.last_used.map_or_else(|| "never".to_owned(), |at| format!("{} ago", between(at, now))),
            damage: row.damage.clone(),
        }
    }
}

impl Disk {
    fn of(disk: &DiskStatus) -> Disk {
        Disk {
            percent: disk.used_percent,
            available: bytes(disk.available_bytes),
            capacity: bytes(disk.capacity_bytes),
            images: bytes(disk.images_bytes),
        }
    }
}

fn collection(status: &CollectionStatus, now: Timestamp) -> String {
    if !status.enabled {
        return "The daemon does not collect; a kubelet does, or `windlass gc`.".to_owned();
    }
    let marks = format!("Collection above {} %, down to {} %.", status.high_percent, status.low_percent);
    let last = match status.last_run {
        Some(at) => format!(" Last run {} ago freed {}.", between(at, now), bytes(status.freed_bytes)),
        None => " No run yet.".to_owned(),
    };
    let problem = status.problem.as_ref().map_or_else(String::new, |problem| format!(" {problem}"));
    format!("{marks}{last}{problem}")
}
