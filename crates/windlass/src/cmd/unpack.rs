//! `windlass unpack`: the root file system of an image in a new directory, out of the store or from a registry or archive.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use windlass_core::keyring::Mode;
use windlass_pull::{ImageSource, PullOptions, UnpackReport, UnpackRequest, UnpackedFrom};

use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Whose};
use crate::{interrupt, progress};

/// What is taken from where.
const AFTER: &str = "An image that the store has, under this name and for this platform, is unpacked from there, and no \
registry is asked; `windlass pull` first where a tag may have moved. Any other image comes from its registry, and the \
store is not changed by it: none is needed.

The tree is the same either way. Layers are checked as in a pull: by the diff ID where the store has the layer's own tar \
(image files) or its compressed blob, else by the sums that were recorded when it was unpacked.";

/// Arguments of `unpack`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// A reference or image ID, or oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME].
    source: String,
    /// A directory that does not exist yet, or is empty.
    directory: PathBuf,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let platform = wire::platform(&node)?;
    let engine = wire::engine_without_store(&node, &session.globals, Whose::Person)?;
    let what = format!("cannot unpack {}", args.source);
    let report = interrupt::to_end(async |cancel| {
        let request = UnpackRequest {
            source: ImageSource::parse(&args.source),
            directory: args.directory.clone(),
            mode: Mode::Windlass,
            options: PullOptions { platform, cancel, ..PullOptions::default() },
        };
        let sink = progress::sink(&session.globals);
        engine.unpack(request, sink).await.map_err(|error| wire::pull_failure(&what, &error))
    })?;
    report.warnings.iter().for_each(|text| session.warn(text));
    report.notes.iter().for_each(|text| session.note(text));
    session.screen.show(&Unpacked { report, directory: args.directory.clone() })
}

/// The word for where an image came from.
const fn from(from: UnpackedFrom) -> &'static str {
    match from {
        UnpackedFrom::Store => "store",
        UnpackedFrom::Registry => "registry",
        UnpackedFrom::Archive => "archive",
    }
}

struct Unpacked {
    report: UnpackReport,
    directory: PathBuf,
}

impl Report for Unpacked {
    fn kind(&self) -> &'static str {
        "Unpack"
    }

    fn fields(&self) -> Json {
        json!({
            "id": self.report.id.as_str(),
            "manifest": self.report.manifest.as_str(),
            "from": from(self.report.from),
            "layers": self.report.layers,
            "warnings": self.report.warnings,
            "notes": self.report.notes,
            "directory": self.directory.to_string_lossy(),
        })
    }

    fn table(&self, _wide: bool) -> Table {
        Table::bare().row([self.report.id.as_str()])
    }

    fn names(&self) -> Vec<String> {
        vec![self.report.id.to_string()]
    }
}
