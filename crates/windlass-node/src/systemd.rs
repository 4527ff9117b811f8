//! What the service manager is told, where there is one.
//!
//! Source: `sd_notify(3)`. Without `NOTIFY_SOCKET` in the environment everything here does nothing.

use sd_notify::NotifyState;

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
