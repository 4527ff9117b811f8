//! `windlass push` and `windlass copy`: images to and between registries, by digest, the tag last.

use serde_json::{Value as Json, json};
use windlass_core::keyring::Mode;
use windlass_pull::{CopyRequest, Platforms, PullOptions, PushRequest, TransferReport};

use super::save::{note_recompressed, recompress, recompressed_fields};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Whose};

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// A reference or image ID of the store.
    image: String,
    /// Where to [default: the registry that the reference names].
    #[arg(value_name = "REF")]
    target: Option<String>,
    /// Compresses layers anew that cannot be fetched again: the manifest gets another digest, the image ID stays.
    #[arg(long)]
    recompress: bool,
}

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "An index is copied whole; with --platform only the image of that platform is.")]
pub(crate) struct CopyArgs {
    /// From where.
    #[arg(value_name = "REF")]
    source: String,
    /// To where.
    #[arg(value_name = "REF")]
    target: String,
}

pub(super) fn push(args: &PushArgs, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let engine = wire::engine(&node, &session.globals, Whose::Person)?;
    let what = format!("cannot push {}", args.image);
    let report = interrupt::to_end(async |cancel| {
        let request = PushRequest {
            image: args.image.clone(),
            target: args.target.clone(),
            mode: Mode::Windlass,
            recompress: recompress(args.recompress),
            options: PullOptions { cancel, ..PullOptions::default() },
        };
        engine.push(request).await.map_err(|error| wire::pull_failure(&what, &error))
    })?;
    report.recompressed.iter().for_each(|image| note_recompressed(image, session));
    session.screen.show(&Transferred(report))
}

pub(super) fn copy(args: &CopyArgs, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let platform = wire::platform(&node)?;
    let engine = wire::engine_without_store(&node, &session.globals, Whose::Person)?;
    let what = format!("cannot copy {} to {}", args.source, args.target);
    let report = interrupt::to_end(async |cancel| {
        let request = CopyRequest {
            source: args.source.clone(),
            target: args.target.clone(),
            platforms: if platform.is_some() { Platforms::One } else { Platforms::All },
            mode: Mode::Windlass,
            options: PullOptions { platform, cancel, ..PullOptions::default() },
        };
        engine.copy(request).await.map_err(|error| wire::pull_failure(&what, &error))
    })?;
    session.screen.show(&Transferred(report))
}

struct Transferred(TransferReport);

impl Report for Transferred {
    fn kind(&self) -> &'static str {
        "Transfer"
    }

    fn fields(&self) -> Json {
        json!({
            "target": self.0.target,
            "digest": self.0.digest.as_str(),
            "documents": self.0.documents,
            "uploadedBlobs": self.0.uploaded,
            "mountedBlobs": self.0.mounted,
            "blobsAlreadyThere": self.0.already_there,
            "recompressed": self.0.recompressed.as_ref().map(recompressed_fields),
        })
    }

    fn table(&self, wide: bool) -> Table {
        if !wide {
            return Table::bare().row([self.0.digest.as_str()]);
        }
        Table::new(["TARGET", "DIGEST", "UPLOADED", "MOUNTED", "THERE BEFORE"]).row([
            self.0.target.clone(),
            self.0.digest.to_string(),
            self.0.uploaded.to_string(),
            self.0.mounted.to_string(),
            self.0.already_there.to_string(),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.0.digest.to_string()]
    }
}
