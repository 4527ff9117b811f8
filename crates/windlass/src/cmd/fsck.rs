//! `windlass fsck`: whether everything in the store is whole, and putting aside what is not.

mod convert;

use serde_json::{Value as Json, json};
use windlass_store::{Depth, Finding, FindingClass, FsckReport, Outcome, Repair, Verdict};

use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{store_failure, store_to_read, store_to_write};

/// Status when damage is left.
const DAMAGED: u8 = 1;

/// What --convert does, and the statuses.
const AFTER: &str = "--convert works without a registry, from what is stored; each layer is checked on the way, and \
replaced in one step, so that a kill at any moment costs nothing. Layers of mounted images and of pulls under way are \
skipped. A layer that is a directory and whose compressed blob was dropped becomes an image file around a tar that was \
read back from it: the same files, but not the bytes the registry had, so `save` and `push` still fetch those.

Exit status: 0 clean, or all damage repaired, or all layers converted or skipped; 1 damage left, or a layer that could \
not be converted.";

/// Arguments of `fsck`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Puts damaged content into quarantine and removes what names it; the image is then absent and can be pulled again.
    #[arg(long)]
    repair: bool,
    /// Looks at presence, sizes and kinds only, not at every byte.
    #[arg(long)]
    quick: bool,
    /// Rewrites stored layers into the form of store.snapshotFormat instead: image files or directories.
    #[arg(long, conflicts_with_all = ["repair", "quick"])]
    convert: bool,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    if args.convert {
        return convert::run(session);
    }
    let node = session.load()?.node;
    let (store, repair) =
        if args.repair { (store_to_write(&node)?, Repair::Yes) } else { (store_to_read(&node)?, Repair::No) };
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let report = store.fsck(depth, repair).map_err(|error| store_failure("cannot check the store", &error))?;
    let verdict = report.verdict();
    session.screen.show(&Checked(report))?;
    match verdict {
        Verdict::Clean | Verdict::Repaired => Ok(()),
        Verdict::Damaged => Err(Failure::told(DAMAGED)),
    }
}

struct Checked(FsckReport);

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "clean",
        Verdict::Repaired => "repaired",
        Verdict::Damaged => "damaged",
    }
}

fn class(class: FindingClass) -> &'static str {
    match class {
        FindingClass::RecordUnreadable => "record-unreadable",
        FindingClass::RecordMissing => "record-missing",
        FindingClass::NameDangling => "name-dangling",
        FindingClass::BlobMissing => "blob-missing",
        FindingClass::BlobSize => "blob-size",
        FindingClass::BlobDigest => "blob-digest",
        FindingClass::LayerMissing => "layer-missing",
        FindingClass::LayerContent => "layer-content",
        FindingClass::SnapshotDangling => "snapshot-dangling",
        FindingClass::Garbage => "garbage",
        _ => "other",
    }
}

fn outcome(finding: &Finding) -> &'static str {
    match finding.outcome {
        Outcome::Harmless => "harmless",
        Outcome::Repaired => "repaired",
        Outcome::Left => "left",
    }
}

impl Report for Checked {
    fn kind(&self) -> &'static str {
        "FsckReport"
    }

    fn fields(&self) -> Json {
        let findings = self.0.findings.iter().map(|finding| {
            json!({
                "class": class(finding.class),
                "what": finding.what,
                "detail": finding.detail,
                "images": finding.images.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "outcome": outcome(finding),
            })
        });
        json!({
            "verdict": word(self.0.verdict()),
            "blobs": self.0.blobs,
            "layers": self.0.layers,
            "findings": findings.collect::<Vec<_>>(),
        })
    }

    fn table(&self, _wide: bool) -> Table {
        let mut table = Table::bare();
        if !self.0.findings.is_empty() {
            table = Table::new(["FINDING", "OUTCOME", "WHAT", "DETAIL"]);
        }
        for finding in &self.0.findings {
            table = table.row([class(finding.class), outcome(finding), &finding.what, &finding.detail]);
        }
        table.line(format!("{}: {} blobs and {} layers looked at", word(self.0.verdict()), self.0.blobs, self.0.layers))
    }

    /// What is damaged and was not put right.
    fn names(&self) -> Vec<String> {
        let left = self.0.findings.iter().filter(|finding| finding.outcome == Outcome::Left);
        left.map(|finding| finding.what.clone()).collect()
    }
}
