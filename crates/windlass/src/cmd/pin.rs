//! `windlass pin` and `windlass unpin`: images that neither the collector nor a removal may take.
//!
//! These are the pins of the user; other parts pin under their own names and take only those back.

use serde_json::json;
use windlass_core::pin::PinSource;

use super::many::{Done, each};
use crate::failure::Failure;
use crate::session::Session;
use crate::wire::{store_failure, store_to_write};

/// Arguments of `pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct PinArgs {
    /// References or image IDs.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Why, shown by `inspect` and `gc --dry-run`.
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
}

/// Arguments of `unpin`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnpinArgs {
    /// References or image IDs.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn pin(args: &PinArgs, session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    each("PinList", &args.images, session, |name| {
        let pinned = store.pin(name, &PinSource::user(), &args.reason);
        let id = pinned.map_err(|error| store_failure(&format!("cannot pin {name}"), &error))?;
        Ok(done(name, "pinned", &id.to_string()))
    })
}

pub(super) fn unpin(args: &UnpinArgs, session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    each("PinList", &args.images, session, |name| {
        let failed = |error| store_failure(&format!("cannot unpin {name}"), &error);
        let was_pinned = store.unpin(name, &PinSource::user()).map_err(failed)?;
        Ok(done(name, if was_pinned { "unpinned" } else { "was not pinned" }, ""))
    })
}

fn done(name: &str, state: &'static str, id: &str) -> Done {
    Done { name: name.to_owned(), state, detail: id.to_owned(), fields: json!({ "source": PinSource::user() }) }
}
