//! The daemon's socket: the one the service manager hands over, or one of its own.
//!
//! Source: `sd_listen_fds(3)`.

use std::path::Path;

use listenfd::ListenFd;
use tokio::net::UnixListener;
use windlass_cri::socket::{SocketFile, bind};

use crate::error::NodeError;

/// A socket that is listened on.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    /// Taken away at the end, where it is ours.
    pub(crate) file: Option<SocketFile>,
}

/// Takes the socket that was handed over, or makes one at `path`.
pub(crate) fn take(path: &Path) -> Result<Socket, NodeError> {
    if let Some(listener) = handed_over(path)? {
        tracing::info!(path = %path.display(), "the service manager keeps the socket");
        return Ok(Socket { listener, file: None });
    }
    let (listener, file) = bind(path)?;
    Ok(Socket { listener, file: Some(file) })
}

fn handed_over(path: &Path) -> Result<Option<UnixListener>, NodeError> {
    let failed = |source: std::io::Error| NodeError::HandedOver { source };
    let mut handed = ListenFd::from_env();
    let Some(listener) = handed.take_unix_listener(0).map_err(failed)? else { return Ok(None) };
    if handed.len() > 1 {
        return Err(failed(std::io::Error::other("more than one socket")));
    }
    let at = listener.local_addr().map_err(failed)?;
    if at.as_pathname() != Some(path) {
        // The command line looks for it where the configuration says.
        return Err(failed(std::io::Error::other(format!("it is {at:?}, and node.socket is {}", path.display()))));
    }
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map(Some).map_err(failed)
}
