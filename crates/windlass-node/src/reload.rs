//! A new configuration without a restart: by signal, or because a file has changed.
//!
//! In: asks, and a look at the files from time to time. Out: what can be taken over is; what cannot is said; where
//! something is wrong, everything stays as it was, and log and status say so. Credentials, hosts' files and the
//! configuration of login providers are not part of the looking: they are looked at for every pull.
//!
//! Invariants, with the whole daemon (in the command's tests): `a_bad_file_changes_nothing_and_is_told`,
//! `pinned_images_come_by_a_changed_file_and_go_by_another`.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, locked};
use crate::status::ConfigurationStatus;
use crate::systemd::{self, Moment};

/// How often the files are looked at: as quick as a person who has just written one, some system calls each time.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one state of the files from another.
type Seen = Vec<(PathBuf, Option<(u64, i64, i64, u64)>)>;

/// Takes over new configurations until told to stop.
pub(crate) async fn run(daemon: Arc<Daemon>, mut asks: mpsc::Receiver<()>, stop: CancellationToken) {
    let mut seen = look(&daemon).await;
    loop {
        let is_asked = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // Nobody can ask any more: files are still looked at.
            Some(()) = asks.recv() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = look(&daemon).await;
        if is_asked || now != seen {
            seen = now;
            systemd::tell(Moment::Reloading);
            read(&daemon).await;
            systemd::tell(Moment::Ready);
        }
    }
}

async fn look(daemon: &Arc<Daemon>) -> Seen {
    let daemon = daemon.clone();
    let look = move || {
        let files = daemon.configuration.files().into_iter();
        let state = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
        };
        files
            .map(|path| {
                let state = state(&path);
                (path, state)
            })
            .collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

async fn read(daemon: &Arc<Daemon>) {
    let reader = daemon.clone();
    let reread = tokio::task::spawn_blocking(move || reader.configuration.read()).await;
    match reread.unwrap_or_else(|_| Err("reading ended without a result".to_owned())) {
        Ok(reread) => {
            daemon.metrics.reloaded(true);
            *locked(&daemon.configured) = ConfigurationStatus {
                loaded: Timestamp::now(),
                problem: None,
                needs_restart: reread.needs_restart.clone(),
            };
            let is_new = daemon.tunables.send_if_modified(|tunables| {
                let is_new = **tunables != reread.tunables;
                if is_new {
                    *tunables = Arc::new(reread.tunables.clone());
                }
                is_new
            });
            let needs_restart = reread.needs_restart.join(", ");
            tracing::info!(is_new, needs_restart, "the configuration was read again");
            if !needs_restart.is_empty() {
                tracing::warn!(keys = needs_restart, "these keys are taken over by a restart only");
            }
        }
        Err(why) => {
            daemon.metrics.reloaded(false);
            tracing::error!(error = why.as_str(), "the new configuration is not valid; the old one stays in force");
            locked(&daemon.configured).problem = Some(why);
        }
    }
}
