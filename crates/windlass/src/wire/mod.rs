//! From configuration to the parts that do the work: store, registry client, engine; and from their errors to ours.

mod beside;
mod client;
mod clouds;
mod credentials;
mod engine;
mod store;
mod web;

use windlass_core::reason::Reason;
pub(crate) use windlass_core::reason::chain;
use windlass_core::reference::ReferenceError;
use windlass_pull::PullError;
use windlass_store::StoreError;

pub(crate) use beside::{Beside, manifest};
pub(crate) use client::client;
pub(crate) use credentials::{Whose, sources};
pub(crate) use engine::{document_limits, engine, engine_of_daemon, engine_without_store, platform, verification};
pub(crate) use store::{store_of_daemon, store_to_read, store_to_write};
pub(crate) use web::web;

use crate::failure::Failure;

/// A number of a limit as the machine counts; what does not fit is no limit.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Tells an error of the store.
pub(crate) fn store_failure(what: &str, error: &StoreError) -> Failure {
    Failure::new(error.reason(), what, chain(error))
}

/// Tells that a text is no reference.
pub(crate) fn reference_failure(what: &str, error: &ReferenceError) -> Failure {
    Failure::new(error.reason(), what, chain(error))
}

/// Tells an error of the engine, with every credential that was tried.
pub(crate) fn pull_failure(what: &str, error: &PullError) -> Failure {
    let tried = error.attempts().0.iter().map(ToString::to_string);
    Failure::new(error.reason(), what, error.chain()).tried(tried).hint(error.hint())
}

/// Tells that a task ended without a result, which is a bug.
pub(crate) fn panicked(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Reason::Internal, "a task ended without a result", error.to_string())
}
