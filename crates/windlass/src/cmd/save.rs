//! `windlass save`: images out of the store, as an OCI layout or a docker archive.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use windlass_core::keyring::Mode;
use windlass_pull::{ImageSource, PullOptions, Recompress, Recompressed, SaveFormat, SaveReport, SaveRequest};

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
named by the index's digest is written as the index.

Compressed layers that the store has dropped are fetched again by digest. A docker archive holds layers uncompressed, so \
those kept as image files (store.snapshotFormat) need no registry for it; for the other forms --recompress does without.";

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
    /// Compresses layers anew that cannot be fetched again: the manifest gets another digest, the image ID stays.
    #[arg(long)]
    recompress: bool,
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
    let recompress = recompress(args.recompress);
    let report = interrupt::to_end(async |cancel| {
        let options = PullOptions { cancel, ..PullOptions::default() };
        let request = SaveRequest { images, format, path, mode: Mode::Windlass, recompress, options };
        engine.save(request).await.map_err(|error| wire::pull_failure(&format!("cannot save to {}", args.to), &error))
    })?;
    report.recompressed.iter().for_each(|image| note_recompressed(image, session));
    // The archive itself is what standard output carries then.
    if to_stdout { Ok(()) } else { session.screen.show(&Saved { report, to: args.to.clone() }) }
}

/// What the flag `--recompress` asks for.
pub(super) const fn recompress(flag: bool) -> Recompress {
    if flag { Recompress::Yes } else { Recompress::No }
}

/// Says what differs from the stored image.
pub(super) fn note_recompressed(image: &Recompressed, session: &Session) {
    let Recompressed { image, stored, written, layers } = image;
    session.note(&format!(
        "{layers} layers of {image} were compressed anew: its manifest is {written} there and {stored} here; image ID \
         and diff IDs are the same, digests and signatures of the manifest are not"
    ));
}

/// The same for programs.
pub(super) fn recompressed_fields(image: &Recompressed) -> Json {
    json!({
        "image": image.image.as_str(),
        "storedManifest": image.stored.as_str(),
        "writtenManifest": image.written.as_str(),
        "layers": image.layers,
    })
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
        let recompressed = self.report.recompressed.iter().map(recompressed_fields);
        json!({
            "images": self.names(),
            "to": self.to,
            "fetchedAgain": self.report.fetched_again,
            "recompressed": recompressed.collect::<Vec<_>>(),
        })
    }

    fn table(&self, _wide: bool) -> Table {
        self.report.images.iter().fold(Table::bare(), |table, id| table.row([id.as_str()]))
    }

    fn names(&self) -> Vec<String> {
        self.report.images.iter().map(ToString::to_string).collect()
    }
}
