//! `windlass pull`: images by reference, whatever is here already.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windlass_core::keyring::Mode;
use windlass_core::platform::Platform;
use windlass_pull::events::{EventSink, Outcome};
use windlass_pull::{Credentials, Engine, PullOptions, PullReport, PullRequest};

use super::many::worst;
use crate::failure::Failure;
use crate::output::Report;
use crate::output::size::bytes;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Beside, Whose};
use crate::{interrupt, progress};

/// What a person must know who pulls on a node.
const RECORDS: &str = "The credentials are those of the person who runs it, and no pull record is written: like every \
image that did not come for a pod, it counts as pre-pulled, and imagePullCredentialsVerificationPolicy says whether a \
pod must prove that it may use it. What `ensure` pulls, with the secrets of pods, is recorded.";

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = RECORDS)]
pub(crate) struct Args {
    /// Images, such as registry.example/team/app:1.4.
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let puller = match Beside::find(&node, Whose::Person, session)? {
        Some(beside) => Puller::Daemon(beside),
        None => Puller::Here {
            engine: Box::new(wire::engine(&node, &session.globals, Whose::Person)?),
            platform: wire::platform(&node)?,
        },
    };
    let results = interrupt::to_end(async |cancel| {
        let sink = progress::sink(&session.globals);
        let mut running = JoinSet::new();
        let mut results: Vec<Option<Result<PullReport, Failure>>> = args.images.iter().map(|_| None).collect();
        let mut waiting = args.images.iter().cloned().enumerate();
        let at_once = usize::try_from(node.limits.parallel_pulls.max(1)).unwrap_or(usize::MAX);
        loop {
            while running.len() < at_once
                && let Some((at, image)) = waiting.next()
            {
                let (puller, sink, cancel) = (puller.clone(), sink.clone(), cancel.clone());
                running
                    .spawn(async move { (at, puller.pull(image, sink, cancel).await.map_err(Failure::for_kubelet)) });
            }
            match running.join_next().await {
                Some(Ok((at, result))) => results[at] = Some(result),
                Some(Err(error)) => return Err(wire::panicked(&error)),
                None => break,
            }
        }
        Ok(results.into_iter().flatten().collect::<Vec<_>>())
    })?;
    end(results, &args.images, session)
}

/// Who pulls.
#[derive(Clone)]
enum Puller {
    /// This process.
    Here { engine: Box<Engine>, platform: Option<Platform> },
    /// The daemon on the store.
    Daemon(Beside),
}

impl Puller {
    async fn pull(
        &self,
        image: String,
        sink: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<PullReport, Failure> {
        let (engine, platform) = match self {
            Puller::Daemon(beside) => return beside.pull(&image, &cancel, &*sink).await,
            Puller::Here { engine, platform } => (engine, platform.clone()),
        };
        let what = format!("cannot pull {image}");
        let request = PullRequest {
            image,
            mode: Mode::Windlass,
            credentials: Credentials::Sources,
            options: PullOptions { platform, cancel, ..PullOptions::default() },
        };
        engine.pull(request, sink).await.map_err(|error| wire::pull_failure(&what, &error))
    }
}

fn end(results: Vec<Result<PullReport, Failure>>, images: &[String], session: &Session) -> Result<(), Failure> {
    let pulled = Pulled(images.iter().cloned().zip(results).collect());
    let failures: Vec<Failure> = pulled.0.iter().filter_map(|(_, result)| result.as_ref().err().cloned()).collect();
    if let ([failure], 1) = (failures.as_slice(), images.len()) {
        return Err(failure.clone());
    }
    session.screen.show(&pulled)?;
    for report in pulled.0.iter().filter_map(|(_, result)| result.as_ref().ok()) {
        remarks(report, session);
    }
    failures.iter().for_each(|failure| session.tell(failure));
    worst(failures.iter().map(Failure::exit_code)).map_or(Ok(()), |exit| Err(Failure::told(exit)))
}

/// Tells what was odd about a pull that worked.
pub(super) fn remarks(report: &PullReport, session: &Session) {
    report.warnings.iter().for_each(|text| session.warn(&format!("{}: {text}", report.image)));
    report.notes.iter().for_each(|text| session.note(&format!("{}: {text}", report.image)));
}

struct Pulled(Vec<(String, Result<PullReport, Failure>)>);

/// The word for how an image came to be there.
pub(super) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pulled => "pulled",
        Outcome::UpToDate => "up-to-date",
        Outcome::AlreadyHere => "already-here",
    }
}

/// The fields of a pull that stay the same in every document.
pub(super) fn fields(report: &PullReport) -> Json {
    let attempts = report.attempts.0.iter().map(ToString::to_string);
    json!({
        "image": report.image,
        "id": report.id.as_str(),
        "digest": report.digest.as_str(),
        "manifest": report.manifest.as_str(),
        "platform": report.platform,
        "outcome": outcome(report.outcome),
        "layers": report.layers,
        "layersAlreadyHere": report.layers_already_here,
        "sizeBytes": report.size_bytes,
        "fetchedBytes": report.fetched_bytes,
        "source": report.source,
        "credential": report.attempts.accepted().map(|attempt| attempt.source.clone().unwrap_or_else(|| "anonymous".to_owned())),
        "attempts": attempts.collect::<Vec<_>>(),
        "requests": report.requests,
        "tookSeconds": report.took.as_secs_f64(),
        "warnings": report.warnings,
        "notes": report.notes,
    })
}

impl Report for Pulled {
    fn kind(&self) -> &'static str {
        "PullList"
    }

    fn fields(&self) -> Json {
        let items = self.0.iter().map(|(image, result)| match result {
            Ok(report) => fields(report),
            Err(failure) => json!({ "image": image, "error": failure.json_body() }),
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    /// The IDs alone, for pipes; `-o wide` has columns.
    fn table(&self, wide: bool) -> Table {
        let reports = self.0.iter().filter_map(|(_, result)| result.as_ref().ok());
        if !wide {
            return reports.fold(Table::bare(), |table, report| table.row([report.id.as_str()]));
        }
        let headings = ["IMAGE", "ID", "PLATFORM", "OUTCOME", "SIZE", "FETCHED", "FROM", "REQUESTS", "TOOK"];
        reports.fold(Table::new(headings), |table, report| {
            table.row([
                report.image.clone(),
                report.id.to_string(),
                report.platform.clone(),
                outcome(report.outcome).to_owned(),
                bytes(report.size_bytes),
                bytes(report.fetched_bytes),
                report.source.clone().unwrap_or_default(),
                report.requests.to_string(),
                format!("{:.2}s", report.took.as_secs_f64()),
            ])
        })
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().filter_map(|(_, result)| result.as_ref().ok()).map(|report| report.id.to_string()).collect()
    }
}
