//! Moves a blob from the registry into the pipes of those who read it.
//!
//! The one loop between [`BlobFetch`] and [`pipe`](crate::pipe): what differs is who listens, and what is done when the
//! blob is complete or its readers are gone.

use windlass_distribution::{BlobEvent, BlobFetch, FetchError};

use crate::events::{Events, LayerState, Throttle};
use crate::pipe::PipeWriter;

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Every byte was handed over; the pipes are still open.
    Complete,
    /// A reader gave up; its own result says why.
    ReaderGone,
}

/// Hands every byte to every writer. `first` is an event that was taken from the fetch before; `heard` is told each.
pub(crate) async fn pump(
    mut first: Option<BlobEvent>,
    fetch: &mut BlobFetch,
    writers: &[PipeWriter],
    mut heard: impl FnMut(&BlobEvent),
) -> Result<Pumped, FetchError> {
    loop {
        let event = match first.take() {
            Some(event) => Some(event),
            None => fetch.next().await?,
        };
        let Some(event) = event else { return Ok(Pumped::Complete) };
        heard(&event);
        for writer in writers {
            let sent = match &event {
                BlobEvent::Bytes(bytes) => writer.send(bytes.clone()).await,
                BlobEvent::Restart => writer.restart().await,
            };
            if sent.is_err() {
                return Ok(Pumped::ReaderGone);
            }
        }
    }
}

/// The same into one pipe, ended with the blob.
pub(crate) async fn pump_to_end(
    first: Option<BlobEvent>,
    fetch: &mut BlobFetch,
    writer: PipeWriter,
    heard: impl FnMut(&BlobEvent),
) -> Result<(), FetchError> {
    match pump(first, fetch, std::slice::from_ref(&writer), heard).await? {
        // A reader that has gone says itself why.
        Pumped::Complete => drop(writer.finish().await),
        Pumped::ReaderGone => {}
    }
    Ok(())
}

/// Tells how far the download of a layer is, a few times a second.
pub(crate) struct Downloading<'e> {
    events: &'e Events,
    layer: usize,
    throttle: Throttle,
    done_bytes: u64,
}

impl<'e> Downloading<'e> {
    pub(crate) fn new(events: &'e Events, layer: usize, done_bytes: u64) -> Downloading<'e> {
        Downloading { events, layer, throttle: Throttle::new(), done_bytes }
    }

    pub(crate) fn hear(&mut self, event: &BlobEvent) {
        let is_told = match event {
            BlobEvent::Bytes(bytes) => {
                self.done_bytes += bytes.len() as u64;
                self.throttle.admits(tokio::time::Instant::now())
            }
            BlobEvent::Restart => {
                self.done_bytes = 0;
                true
            }
        };
        if is_told {
            self.events.layer(self.layer, LayerState::Downloading { done_bytes: self.done_bytes });
        }
    }
}
