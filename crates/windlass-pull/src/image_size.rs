//! What the layers of one image come to together, and where that ends.
//!
//! Each layer has its own limits in the store; an image of many layers may still be a bomb. Layers are unpacked at the
//! same time, so their running totals are shared here, and the one that passes the limit stops. What was here before
//! counts as well: the limit is about the image, not about the transfer.
//!
//! Invariants: `an_image_is_bounded_over_all_its_layers`, `a_layer_that_begins_again_counts_once`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;
use windlass_store::{LayerSize, Step};

use crate::PullError;

/// Bounds of one image over all its layers; keys under `limits:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the unpacked layers, holes of sparse files included (`imageUnpackedBytes`, 256 GiB).
    pub unpacked_bytes: u64,
    /// Entries of the layers (`imageEntries`, 8 000 000).
    pub entries: u64,
}

impl Default for ImageLimits {
    fn default() -> ImageLimits {
        ImageLimits { unpacked_bytes: 256 << 30, entries: 8_000_000 }
    }
}

/// The running totals of one image.
#[derive(Debug)]
pub(crate) struct ImageSize {
    limits: ImageLimits,
    layers: Mutex<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    /// By chain ID.
    each: BTreeMap<Digest, LayerSize>,
    sum: LayerSize,
}

impl Layers {
    fn put(&mut self, chain: &Digest, size: LayerSize) {
        let before = self.each.insert(chain.clone(), size).unwrap_or_default();
        let swap = |sum: u64, before: u64, now: u64| sum.saturating_sub(before).saturating_add(now);
        self.sum.unpacked_bytes = swap(self.sum.unpacked_bytes, before.unpacked_bytes, size.unpacked_bytes);
        self.sum.entries = swap(self.sum.entries, before.entries, size.entries);
    }
}

impl ImageSize {
    pub(crate) fn new(limits: ImageLimits) -> ImageSize {
        ImageSize { limits, layers: Mutex::default() }
    }

    /// A layer is whole and this big.
    pub(crate) fn put(&self, chain: &Digest, size: LayerSize) -> Result<(), PullError> {
        let mut layers = self.lock();
        layers.put(chain, size);
        self.check(layers.sum)
    }

    /// A layer grew while it is unpacked.
    fn grow(&self, chain: &Digest, step: Step) -> Result<(), PullError> {
        let mut layers = self.lock();
        let before = layers.each.get(chain).copied().unwrap_or_default();
        let unpacked_bytes = before.unpacked_bytes.saturating_add(step.tar_bytes);
        let entries = before.entries.saturating_add(step.entries);
        layers.put(chain, LayerSize { unpacked_bytes, entries });
        self.check(layers.sum)
    }

    /// Hears how a layer is unpacked, from its first byte.
    pub(crate) fn watch<'a>(&'a self, chain: &'a Digest, cancel: &'a CancellationToken) -> Watch<'a> {
        self.lock().put(chain, LayerSize::default());
        Watch { size: self, chain, cancel }
    }

    /// A layer that stopped because the image is too large looks canceled; this is the true reason.
    pub(crate) fn why(&self, error: PullError) -> PullError {
        match (error.reason(), self.check(self.lock().sum)) {
            (Reason::Canceled, Err(exceeded)) => exceeded,
            (_, Ok(()) | Err(_)) => error,
        }
    }

    fn check(&self, sum: LayerSize) -> Result<(), PullError> {
        let limits = [
            ("imageUnpackedBytes", sum.unpacked_bytes, self.limits.unpacked_bytes),
            ("imageEntries", sum.entries, self.limits.entries),
        ];
        let passed = limits.into_iter().find(|(_, value, max)| value > max);
        passed.map_or(Ok(()), |(what, value, limit)| Err(PullError::ImageLimit { what, value, limit }))
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        // Changed in single steps, so a thread that panicked left it sound.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the extractor stop between two pieces: when the caller gives up, or when the image grows too large.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    size: &'a ImageSize,
    chain: &'a Digest,
    cancel: &'a CancellationToken,
}

impl windlass_store::Progress for Watch<'_> {
    fn advance(&self, step: Step) -> ControlFlow<()> {
        match self.cancel.is_cancelled() || self.size.grow(self.chain, step).is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_store::Progress as _;

    use super::*;

    #[test]
    fn a_layer_that_begins_again_counts_once() {
        let size = ImageSize::new(ImageLimits { unpacked_bytes: 100, entries: 10 });
        let (one, two, cancel) = (Digest::sha256(b"1"), Digest::sha256(b"2"), CancellationToken::new());
        size.put(&one, LayerSize { unpacked_bytes: 40, entries: 9 }).unwrap();
        for _again in 0..3 {
            let watch = size.watch(&two, &cancel);
            assert!(watch.advance(Step { tar_bytes: 60, entries: 1, ..Step::default() }).is_continue());
        }
        assert!(matches!(size.why(PullError::Canceled), PullError::Canceled));
        assert!(size.watch(&two, &cancel).advance(Step { entries: 2, ..Step::default() }).is_break());
        let error = size.why(PullError::Canceled);
        assert_eq!(error.reason(), Reason::LimitExceeded);
        assert_eq!(error.to_string(), "imageEntries is 11, the limit limits.imageEntries is 10");
        assert!(matches!(size.why(PullError::Internal("another")), PullError::Internal(_)));
    }
}
