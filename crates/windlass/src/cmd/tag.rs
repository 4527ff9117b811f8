//! `windlass tag`: one more name for an image of the store.

use serde_json::json;
use windlass_core::reference::Reference;

use super::many::{Done, each};
use crate::failure::Failure;
use crate::session::Session;
use crate::wire::{reference_failure, store_failure, store_to_write};

/// Arguments of `tag`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a reference or an image ID.
    source: String,
    /// The names it gets beside those it has; a name that another image has moves.
    #[arg(required = true, value_name = "REF")]
    names: Vec<String>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    each("TagList", &args.names, session, |name| {
        let what = format!("cannot tag {} as {name}", args.source);
        let target = Reference::parse(name).map_err(|error| reference_failure(&what, &error))?;
        let given = store.tag(&args.source, &target).map_err(|error| store_failure(&what, &error))?;
        Ok(Done {
            name: name.to_owned(),
            state: "tagged",
            detail: given.to_string(),
            fields: json!({ "reference": given.to_string() }),
        })
    })
}
