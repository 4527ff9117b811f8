//! `windlass load`: images from layouts and archives into the store, with the same checks as a pull.

use serde_json::{Value as Json, json};
use windlass_pull::{ImageSource, LoadRequest, PullOptions, PullReport};

use super::pull::{fields, remarks};
use crate::failure::Failure;
use crate::output::Report;
use crate::output::size::bytes;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Whose};
use crate::{interrupt, progress};

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], or a path whose form is found out;
    /// - is standard input.
    #[arg(default_value = "-")]
    source: String,
    /// A name to give instead of those in the archive; only for one image.
    #[arg(long, value_name = "REF")]
    tag: Option<String>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let source = match ImageSource::parse(&args.source) {
        // What is no known form is a path here: registries are what `pull` is for.
        ImageSource::Registry(path) => ImageSource::Detect { path: path.into() },
        source => source,
    };
    let what = format!("cannot load {}", args.source);
    let engine = wire::engine(&node, &session.globals, Whose::Nobody)?;
    let reports = interrupt::to_end(async |cancel| {
        let options = PullOptions { platform: wire::platform(&node)?, cancel, ..PullOptions::default() };
        let request = LoadRequest { source, name: args.tag.clone(), options };
        let sink = progress::sink(&session.globals);
        engine.load(request, sink).await.map_err(|error| wire::pull_failure(&what, &error))
    })?;
    for report in &reports {
        remarks(report, session);
    }
    session.screen.show(&Loaded(reports))
}

struct Loaded(Vec<PullReport>);

impl Report for Loaded {
    fn kind(&self) -> &'static str {
        "LoadList"
    }

    fn fields(&self) -> Json {
        json!({ "items": self.0.iter().map(fields).collect::<Vec<_>>() })
    }

    fn table(&self, _wide: bool) -> Table {
        self.0.iter().fold(Table::new(["IMAGE", "ID", "PLATFORM", "SIZE"]), |table, report| {
            table.row([report.image.clone(), report.id.to_string(), report.platform.clone(), bytes(report.size_bytes)])
        })
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|report| report.id.to_string()).collect()
    }
}
