//! `windlass save`: images out of the store, as an OCI layout or a docker archive.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use windlass_core::keyring::Mode;
use windlass_pull::{ImageSource, PullOptions, SaveFormat, SaveReport, SaveRequest};

use super::ensure::read_files;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Whose};

/// How an image out of an index is written.
const INDEXES: &str = "An image that was chosen from an index is written as the manifest of its platform, since other \
tools refuse an index whose other platforms are missing; the index lies beside it, and `load` puts it back. An image \
named by the index's digest is written as the index.";

/// Arguments of `save`.
#[derive(Debug, clap::Args)]
#[command(after_help = INDEXES)]
pub(crate) struct Args {
    /// References or image IDs of the store.
    #[arg(required_unless_present = "files", value_name = "IMAGE")]
    images: Vec<String>,
    /// Manifests whose images are saved; - is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to: oci:DIR, oci-archive:FILE or docker-archive:FILE; - in place of FILE is standard output.
    #[arg(long, value_name = "FORM:PATH")]
    to: String,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let (format, path) = target(&args.to)?;
    let to_stdout = path.as_os_str() == "-";
    let mut images = args.images.clone();
    if !args.files.is_empty() {
        let pods = read_files(&args.files)?.pods;
        images.extend(pods.into_iter().flat_map(|pod| pod.containers).map(|container| container.image));
    }
    let mut seen = std::collections::BTreeSet::new();
    images.retain(|image| seen.insert(image.clone()));
    let engine = wire::engine(&node, &session.globals, Whose::Person)?;
    let report = interrupt::to_end(async |cancel| {
        let options = PullOptions { cancel, ..PullOptions::default() };
        let request = SaveRequest { images, format, path, mode: Mode::Windlass, options };
        engine.save(request).await.map_err(|error| wire::pull_failure(&format!("cannot save to {}", args.to), &error))
    })?;
    // The archive itself is what standard output carries then.
    if to_stdout { Ok(()) } else { session.screen.show(&Saved { report, to: args.to.clone() }) }
}

fn target(text: &str) -> Result<(SaveFormat, PathBuf), Failure> {
    match ImageSource::parse(text) {
        ImageSource::OciDir { path, name: None } => Ok((SaveFormat::OciDir, path)),
        ImageSource::OciArchive { path, name: None } => Ok((SaveFormat::OciArchive, path)),
        ImageSource::DockerArchive { path, name: None } => Ok((SaveFormat::DockerArchive, path)),
        ImageSource::OciDir { .. }
        | ImageSource::OciArchive { .. }
        | ImageSource::DockerArchive { .. }
        | ImageSource::Registry(_)
        | ImageSource::Detect { .. } => Err(Failure::usage("cannot save", format!("{text} names no form and path"))
            .hint("write oci:DIR, oci-archive:FILE or docker-archive:FILE")),
    }
}

struct Saved {
    report: SaveReport,
    to: String,
}

impl Report for Saved {
    fn kind(&self) -> &'static str {
        "Save"
    }

    fn fields(&self) -> Json {
        json!({ "images": self.names(), "to": self.to, "fetchedAgain": self.report.fetched_again })
    }

    fn table(&self, _wide: bool) -> Table {
        self.report.images.iter().fold(Table::bare(), |table, id| table.row([id.as_str()]))
    }

    fn names(&self) -> Vec<String> {
        self.report.images.iter().map(ToString::to_string).collect()
    }
}
