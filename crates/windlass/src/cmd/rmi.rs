//! `windlass rmi`: removes names, and images with their last name.

use serde_json::json;

use super::many::{Done, each};
use crate::failure::Failure;
use crate::output::size::bytes;
use crate::session::Session;
use crate::wire::{store_failure, store_to_write};

/// Arguments of `rmi`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// References, or image IDs (or their beginning), which go with all their names.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    each("RemovalList", &args.images, session, |name| {
        let removed = store.remove(name).map_err(|error| store_failure(&format!("cannot remove {name}"), &error))?;
        let names: Vec<String> = removed.names.iter().map(ToString::to_string).collect();
        let freed = removed.swept.freed_bytes;
        Ok(Done {
            name: name.to_owned(),
            state: if removed.image.is_some() { "removed" } else { "untagged" },
            detail: if removed.image.is_some() { format!("{} freed", bytes(freed)) } else { names.join(", ") },
            fields: json!({
                "names": names,
                "image": removed.image.map(|id| id.to_string()),
                "freedBytes": freed,
            }),
        })
    })
}
