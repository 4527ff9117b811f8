//! How many requests were sent, by kind, and how many bytes came.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a request was for, as metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Manifest,
    Blob,
    Token,
    Other,
}

/// Requests sent and bytes received since the client or session began. Redirects count as requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `HEAD` of manifests.
    pub head: u64,
    /// `GET` of manifests and indexes.
    pub manifest: u64,
    /// `GET` of blobs.
    pub blob: u64,
    /// Requests to token endpoints.
    pub token: u64,
    /// Everything else, uploads among them.
    pub other: u64,
    /// Bytes of blobs and manifests received.
    pub bytes: u64,
}

impl Counters {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.head + self.manifest + self.blob + self.token + self.other
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    kinds: [AtomicU64; 5],
    bytes: AtomicU64,
}

impl Tally {
    pub(crate) fn request(&self, kind: Kind) {
        self.kinds[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        let kind = |kind: Kind| self.kinds[kind as usize].load(Ordering::Relaxed);
        Counters {
            head: kind(Kind::Head),
            manifest: kind(Kind::Manifest),
            blob: kind(Kind::Blob),
            token: kind(Kind::Token),
            other: kind(Kind::Other),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
