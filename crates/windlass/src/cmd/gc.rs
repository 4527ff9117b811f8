//! `windlass gc`: removes what nothing needs, and images by age or for space, each with its reason.
//!
//! Which images go is windlass-core's decision; the store sweeps and explains the rest.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use windlass_core::digest::Digest;
use windlass_core::gc::{Clock, Disk, GcSettings, ImageUse, under_pressure};
use windlass_node::collect;
use windlass_store::{Dry, GcReport, GcRequest, Store, VictimKind};

use crate::config::node::{Collection, Node};
use crate::config::value::Setting;
use crate::failure::Failure;
use crate::output::Report;
use crate::output::size::bytes;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{chain, store_failure, store_to_write};

/// Arguments of `gc`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Images go when they were unused for gc.maximumAge, or the longest unused first when the disk is \
                        fuller than gc.highThresholdPercent. Pinned and mounted images stay."
)]
pub(crate) struct Args {
    /// Explains what would go, and deletes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Every image that is not pinned or mounted goes.
    #[arg(long, conflicts_with = "unused_for")]
    all: bool,
    /// Images unused for this long go, whatever the configuration says.
    #[arg(long, value_name = "DURATION", value_parser = Duration::from_text)]
    unused_for: Option<Duration>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let store = store_to_write(&node)?;
    let failed = |error: windlass_store::StoreError| store_failure("cannot collect", &error);
    let uses = collect::uses(&store).map_err(failed)?;
    let chosen = choose(args, &node, &store, &uses, session)?;
    let request = GcRequest {
        dry: if args.dry_run { Dry::Run } else { Dry::No },
        // What is in work is protected by leases and locks, so nothing has to be left alone for its age.
        grace: Duration::ZERO,
        images: chosen,
    };
    let began = Timestamp::now();
    let report = store.gc(&request).map_err(failed)?;
    // Records that a kubelet shares are also about images of its runtime, which are not ours to judge.
    if !args.dry_run && node.general.kubelet_root.is_none() {
        let listed = store.images().map_err(failed)?.iter().map(|image| image.id.to_string()).collect();
        store.records().prune(&listed, began).map_err(failed)?;
    }
    session.screen.show(&Collected { report, is_dry: args.dry_run })
}

/// The images that go, each with its reason.
fn choose(
    args: &Args,
    node: &Node,
    store: &Store,
    uses: &[ImageUse],
    session: &Session,
) -> Result<Vec<(Digest, String)>, Failure> {
    let mut settings = settings(&node.gc);
    settings.check().map_err(|error| Failure::new(error.reason(), "cannot collect", chain(&error)))?;
    // A run by hand has watched for ever: use is on record.
    let clock = Clock { now: Timestamp::now(), watched_for: Duration::MAX };
    if args.all {
        settings.min_age = Duration::ZERO;
        let all = under_pressure(uses, &settings, clock).victims;
        return Ok(all.into_iter().map(|victim| (victim.id, "all images were asked to go".to_owned())).collect());
    }
    settings.max_age = args.unused_for.unwrap_or(settings.max_age);
    let disk = store.file_system().map_err(|error| store_failure("cannot collect", &error))?;
    let disk = Disk { capacity_bytes: disk.capacity_bytes, available_bytes: disk.available_bytes };
    let chosen = collect::choose(uses, &settings, disk, clock);
    let chosen = chosen.map_err(|error| Failure::new(error.reason(), "cannot collect", chain(&error)))?;
    if chosen.missing_bytes > 0 {
        let missing = bytes(chosen.missing_bytes);
        session.warn(&format!("{missing} more would have to go; the other images are young, pinned or in use"));
    }
    Ok(chosen.victims.iter().map(|victim| (victim.id.clone(), victim.why.to_string())).collect())
}

fn settings(gc: &Collection) -> GcSettings {
    let percent = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    GcSettings {
        high_percent: percent(gc.high_threshold_percent),
        low_percent: percent(gc.low_threshold_percent),
        min_age: gc.minimum_age,
        max_age: gc.maximum_age,
    }
}

struct Collected {
    report: GcReport,
    is_dry: bool,
}

const fn word(kind: VictimKind) -> &'static str {
    match kind {
        VictimKind::Image => "image",
        VictimKind::Layer => "layer",
        VictimKind::Blob => "blob",
    }
}

impl Report for Collected {
    fn kind(&self) -> &'static str {
        "GcReport"
    }

    fn fields(&self) -> Json {
        let victims = self.report.victims.iter().map(|victim| {
            json!({ "kind": word(victim.kind), "what": victim.what, "why": victim.why, "sizeBytes": victim.size_bytes })
        });
        let kept = self.report.kept.iter().map(|(id, why)| json!({ "image": id.as_str(), "why": why }));
        json!({
            "dryRun": self.is_dry,
            "freedBytes": self.report.freed_bytes,
            "victims": victims.collect::<Vec<_>>(),
            "kept": kept.collect::<Vec<_>>(),
        })
    }

    fn table(&self, _wide: bool) -> Table {
        let mut table = Table::bare();
        if !self.report.victims.is_empty() {
            table = Table::new(["KIND", "SIZE", "WHAT", "WHY"]);
        }
        for victim in &self.report.victims {
            table = table.row([word(victim.kind), &bytes(victim.size_bytes), &victim.what, &victim.why]);
        }
        for (id, why) in &self.report.kept {
            table = table.line(format!("kept {id}: {why}"));
        }
        let verb = if self.is_dry { "would be freed" } else { "freed" };
        table.line(format!("{} {verb}", bytes(self.report.freed_bytes)))
    }

    fn names(&self) -> Vec<String> {
        self.report.victims.iter().map(|victim| victim.what.clone()).collect()
    }
}
