//! Async commands: one runtime, ended by the first signal in good order and by the second at once.
//!
//! In: the work, which gets a token that fires when the user gives up. Out: its result, once everything it started
//! has stopped; 130 when it was interrupted. Finished layers are kept, so the next run goes on from there.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_core::reason::Reason;

use crate::failure::Failure;

/// How long threads that are still writing may take to notice that the run is over.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// Threads for network and control; the heavy work has its own.
const WORKERS_MAX: usize = 4;
/// Threads for hashing, unpacking and the disk. The whole process stays below 64.
const BLOCKING_MAX: usize = 48;
/// Status of a process that a second signal ended.
const INTERRUPTED: i32 = 130;

/// Runs the work to its end.
pub(crate) fn to_end<T>(work: impl AsyncFnOnce(CancellationToken) -> Result<T, Failure>) -> Result<T, Failure> {
    let cannot = |error: std::io::Error| Failure::new(Reason::Internal, "cannot start", error.to_string());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKERS_MAX))
        .max_blocking_threads(BLOCKING_MAX)
        .enable_all()
        .build()
        .map_err(cannot)?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let watching = tokio::spawn(watch(cancel.clone()));
        let result = work(cancel.clone()).await;
        watching.abort();
        match result {
            Err(_) if cancel.is_cancelled() => {
                Err(Failure::new(Reason::Canceled, "interrupted", "finished layers are kept"))
            }
            result => result,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

/// First signal: stop in order. Second: at once; the store is sound at every moment.
async fn watch(cancel: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be watched; an interrupt ends the process at once");
        return;
    };
    for round in 0.. {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if round > 0 {
            std::process::exit(INTERRUPTED);
        }
        cancel.cancel();
    }
}
