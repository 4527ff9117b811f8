//! What images take on disk, measured now and then and answered from memory.
//!
//! In: the store's own sums. Out: the CRI's `FilesystemUsage`: blobs and unpacked layers together, where containerd
//! counts only what is unpacked. The kubelet asks every ten seconds, and once as its first question of all.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use windlass_proto::cri::v1;
use windlass_store::{Store, Usage};

/// How often it is measured. containerd: `stats_collect_period`, 10 s.
pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Measured {
    usage: Usage,
    at: Timestamp,
}

/// The last measurement.
#[derive(Debug)]
pub(crate) struct FsInfo {
    mountpoint: String,
    last: watch::Sender<Option<Measured>>,
}

impl FsInfo {
    pub(crate) fn new(store: &Store) -> FsInfo {
        let root = std::path::absolute(store.root()).unwrap_or_else(|_| store.root().to_owned());
        FsInfo { mountpoint: root.display().to_string(), last: watch::Sender::new(None) }
    }

    /// Notes what the store takes now.
    pub(crate) fn measured(&self, usage: Usage) {
        self.last.send_replace(Some(Measured { usage, at: Timestamp::now() }));
    }

    /// The same, unless something was noted before.
    pub(crate) fn measured_once(&self, usage: Usage) {
        if self.last.borrow().is_none() {
            self.measured(usage);
        }
    }

    /// The answer; waits only in the first moments of a daemon.
    pub(crate) async fn answer(&self) -> v1::ImageFsInfoResponse {
        let last = *self.last.borrow();
        let last = match last {
            Some(last) => Some(last),
            // The sender lives in `self`, so waiting ends only with numbers.
            None => self.last.subscribe().wait_for(Option::is_some).await.ok().and_then(|last| *last),
        };
        let Measured { usage, at } = last.unwrap_or(Measured { usage: Usage::default(), at: Timestamp::now() });
        let filesystem = v1::FilesystemUsage {
            // Until the year 2262 it fits.
            timestamp: i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX),
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: self.mountpoint.clone() }),
            used_bytes: Some(v1::UInt64Value { value: usage.used_bytes }),
            inodes_used: Some(v1::UInt64Value { value: usage.inodes }),
        };
        // No file systems of containers: they are the same one.
        v1::ImageFsInfoResponse { image_filesystems: vec![filesystem], container_filesystems: Vec::new() }
    }
}
