//! What the service manager is told, where there is one.
//!
//! Source: `sd_notify(3)`. Without `NOTIFY_SOCKET` in the environment everything here does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// A moment in the daemon's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment<'t> {
    /// Everything listens.
    Ready,
    /// A new configuration is being read; [`Moment::Ready`] follows.
    Reloading,
    /// It is about to end.
    Stopping,
    /// What it does, in a few words.
    Status(&'t str),
}

/// Says that the daemon lives, as often as the service manager wants to hear it.
pub(crate) async fn live(stop: CancellationToken) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    // Half of it, so that one that comes late is not the last.
    let every = (within / 2).max(Duration::from_millis(1));
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
            tracing::debug!(%error, "the service manager does not hear");
        }
    }
}

/// Tells it. Who does not hear it is no reason to stop.
pub(crate) fn tell(moment: Moment<'_>) {
    let states = match moment {
        Moment::Ready => vec![NotifyState::Ready],
        // The time is asked for by `Type=notify-reload` (systemd 253).
        Moment::Reloading => {
            [Some(NotifyState::Reloading), NotifyState::monotonic_usec_now().ok()].into_iter().flatten().collect()
        }
        Moment::Stopping => vec![NotifyState::Stopping],
        Moment::Status(text) => vec![NotifyState::Status(text)],
    };
    if let Err(error) = sd_notify::notify(&states) {
        tracing::debug!(%error, ?moment, "the service manager does not hear");
    }
}
