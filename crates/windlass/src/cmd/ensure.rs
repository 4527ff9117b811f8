//! `windlass ensure`: what the kubelet would do for every container of the pods in manifests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};
use windlass_core::keyring::Mode;
use windlass_node::wire::{ContainerLine, EnsureAsk, EnsureLine};
use windlass_pull::workload::{ManifestText, Workloads, read};
use windlass_pull::{EnsureCredentials, EnsureReport, EnsureRequest, PullOptions, Wait};

use super::many::worst;
use crate::config::node::{Node, VerificationPolicy};
use crate::config::value::Setting;
use crate::failure::{Failure, shown};
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Beside, Whose};
use crate::{input, interrupt, progress};

/// How long `--wait` goes on when nothing is said: the kubelet's longest back-off, twice.
const WAIT_DEFAULT: Duration = Duration::from_secs(600);

/// Arguments of `ensure`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifests with pods or workloads, and with the Secrets and ServiceAccounts they name; - is standard input.
    /// May be repeated; all files are read together.
    #[arg(short = 'f', long = "filename", required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Goes on with the kubelet's back-off until every image is there or the time is over.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long --wait goes on [default: 10m].
    #[arg(long, value_name = "DURATION", value_parser = Duration::from_text)]
    pub(crate) timeout: Option<Duration>,
    /// Exactly the kubelet's credential rules, without those that Windlass adds.
    #[arg(long)]
    pub(crate) strict_kubelet: bool,
    /// Whose images need proof before a pod may use them: NeverVerify, NeverVerifyPreloadedImages,
    /// NeverVerifyAllowlistedImages or AlwaysVerify [default: the configuration's].
    #[arg(long, value_name = "POLICY", value_parser = VerificationPolicy::from_text)]
    pub(crate) policy: Option<VerificationPolicy>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let mut node = session.load()?.node;
    if let Some(policy) = args.policy {
        node.general.verification = policy;
    }
    let texts = read_texts(&args.files)?;
    let workloads = read_together(&texts)?;
    for skipped in &workloads.skipped {
        session.note(&format!("{}: {} {} holds no pod", skipped.place, skipped.kind, skipped.name));
    }
    for note in &workloads.notes {
        session.warn(&format!("{}: {}", note.place, note.text));
    }
    if workloads.pods.is_empty() {
        return Err(Failure::usage("nothing to ensure", "the files hold no pod and no workload"));
    }
    let beside = Beside::find(&node, Whose::Node(args.mode()), session)?;
    let report = match beside.filter(|_| may_ask_daemon(&node, session)) {
        Some(beside) => through_daemon(&node, args, &texts, &workloads, &beside, session)?,
        None => EnsureLine::from(&ensure(&node, args, workloads, session)?),
    };
    remarks(&report, session);
    let shown = Ensured(report);
    session.screen.show(&shown)?;
    shown.end(session)
}

/// The daemon takes credentials for an image, and those of a service account are for one pod.
fn may_ask_daemon(node: &Node, session: &Session) -> bool {
    let own_tokens = node.logins.service_account_tokens.is_some();
    if own_tokens {
        session.note("credentials.serviceAccountTokens is set, so the daemon on this store is not asked");
    }
    !own_tokens
}

/// Tells what was odd, each thing once for an image.
fn remarks(report: &EnsureLine, session: &Session) {
    let mut said = std::collections::BTreeSet::new();
    for container in &report.containers {
        let pull = container.pull();
        let warnings = container.notes.iter().chain(pull.iter().flat_map(|pull| &pull.warnings));
        let notes = pull.iter().flat_map(|pull| &pull.notes);
        let all = warnings.map(|text| (true, text)).chain(notes.map(|text| (false, text)));
        for (is_warning, text) in all {
            if !said.insert((&container.image, text.clone())) {
                continue;
            }
            let text = format!("{}: {text}", container.image);
            if is_warning { session.warn(&text) } else { session.note(&text) }
        }
    }
}

/// Reads the manifests of one call together.
pub(super) fn read_files(files: &[PathBuf]) -> Result<Workloads, Failure> {
    read_together(&read_texts(files)?)
}

fn read_texts(files: &[PathBuf]) -> Result<Vec<ManifestText>, Failure> {
    let text = |file: &PathBuf| {
        let text = input::text(file, input::MANIFEST_BYTES_MAX)?;
        Ok(ManifestText { name: file.display().to_string(), text })
    };
    files.iter().map(text).collect()
}

fn read_together(texts: &[ManifestText]) -> Result<Workloads, Failure> {
    read(texts).map_err(|error| {
        Failure::new(error.reason(), "cannot read the manifests", wire::chain(&error))
            .hint("correct the manifest at the place named")
    })
}

fn ensure(node: &Node, args: &Args, workloads: Workloads, session: &Session) -> Result<EnsureReport, Failure> {
    let mode = args.mode();
    let engine = wire::engine(node, &session.globals, Whose::Node(mode))?;
    interrupt::to_end(async |cancel| {
        let request = EnsureRequest {
            pods: workloads.pods,
            mode,
            credentials: EnsureCredentials::Sources,
            verification: wire::verification(node)?,
            wait: args.wait().map_or(Wait::Once, Wait::Until),
            options: PullOptions { platform: wire::platform(node)?, cancel, ..PullOptions::default() },
        };
        let sink = progress::sink(&session.globals);
        engine
            .ensure(request, sink)
            .await
            .map_err(|error| wire::pull_failure("cannot ensure the images", &error).for_kubelet())
    })
}

/// The same, done by the daemon on the store.
fn through_daemon(
    node: &Node,
    args: &Args,
    texts: &[ManifestText],
    workloads: &Workloads,
    beside: &Beside,
    session: &Session,
) -> Result<EnsureLine, Failure> {
    // What the daemon could not read either is told before it is asked.
    wire::verification(node)?;
    let ask = EnsureAsk {
        manifests: texts.iter().map(|text| wire::manifest(&text.name, &text.text)).collect(),
        strict_kubelet: args.strict_kubelet,
        credentials: BTreeMap::new(),
        verification: node.general.verification.to_json().as_str().unwrap_or_default().to_owned(),
        allowlist: node.general.allowlist.clone(),
        wait_ms: args.wait().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        platform: None,
    };
    let images = workloads.pods.iter().flat_map(|pod| &pod.containers).map(|container| container.image.clone());
    let images: Vec<String> = images.collect();
    interrupt::to_end(async |cancel| {
        let sink = progress::sink(&session.globals);
        beside.ensure(ask, images, &cancel, &*sink).await.map_err(Failure::for_kubelet)
    })
}

impl Args {
    fn mode(&self) -> Mode {
        if self.strict_kubelet { Mode::Kubelet } else { Mode::Windlass }
    }

    /// How long it goes on; `None`: one try.
    fn wait(&self) -> Option<Duration> {
        self.wait.then(|| self.timeout.unwrap_or(WAIT_DEFAULT))
    }
}

/// What became of every container.
pub(super) struct Ensured(pub(super) EnsureLine);

impl Ensured {
    /// One failure per container that has no image.
    pub(super) fn failures(&self) -> impl Iterator<Item = Failure> {
        self.0.containers.iter().filter_map(failure)
    }

    /// Tells each failure; the status is that of the worst.
    fn end(&self, session: &Session) -> Result<(), Failure> {
        let failures: Vec<Failure> = self.failures().collect();
        failures.iter().for_each(|failure| session.tell(failure));
        worst(failures.iter().map(Failure::exit_code)).map_or(Ok(()), |exit| Err(Failure::told(exit)))
    }
}

/// The failure of one container, with the kubelet's word for it.
fn failure(container: &ContainerLine) -> Option<Failure> {
    let failed = container.failure.as_ref()?;
    let what = format!("{}: cannot ensure {}", place(container), container.image);
    let tried = container.attempts().0.into_iter().map(|attempt| attempt.to_string());
    Some(Failure::new(failed.reason(), what, &failed.message).tried(tried).hint(&failed.hint).waiting(&failed.waiting))
}

/// `pod team-a/web container app`.
fn place(container: &ContainerLine) -> String {
    let slot = match container.slot.as_str() {
        "init" => "init container",
        "ephemeral" => "ephemeral container",
        other => other,
    };
    let kind = container.kind.to_lowercase();
    format!("{kind} {}/{} {slot} {}", container.namespace, container.pod, container.container)
}

impl Report for Ensured {
    fn kind(&self) -> &'static str {
        "EnsureReport"
    }

    fn fields(&self) -> Json {
        json!({
            "complete": self.0.is_complete(),
            "tookSeconds": self.0.took().as_secs_f64(),
            "containers": self.0.containers.iter().map(fields).collect::<Vec<_>>(),
        })
    }

    fn table(&self, wide: bool) -> Table {
        let mut headings = vec!["POD", "CONTAINER", "IMAGE", "POLICY", "ACTION", "RESULT"];
        if wide {
            headings.extend(["CREDENTIAL", "TRIES", "TOOK", "ID"]);
        }
        let mut table = Table::new(headings);
        for container in &self.0.containers {
            let result = container.failure.as_ref().map_or("ready", |failure| failure.waiting.as_str());
            let mut cells = vec![
                format!("{}/{}", container.namespace, container.pod),
                container.container.clone(),
                container.image.clone(),
                container.policy.clone(),
                container.action.clone(),
                shown(result),
            ];
            if wide {
                cells.extend([
                    credential(container),
                    container.tries.to_string(),
                    format!("{:.2}s", container.took().as_secs_f64()),
                    container.image_ref.as_ref().map_or_else(String::new, ToString::to_string),
                ]);
            }
            table = table.row(cells);
        }
        table
    }

    /// The IDs of the images that may be used.
    fn names(&self) -> Vec<String> {
        self.0.containers.iter().filter_map(|container| container.image_ref.as_ref()).map(ToString::to_string).collect()
    }
}

/// Where the accepted credential came from.
fn credential(container: &ContainerLine) -> String {
    let attempts = container.attempts();
    attempts
        .accepted()
        .map_or_else(String::new, |attempt| attempt.source.clone().unwrap_or_else(|| "anonymous".to_owned()))
}

fn fields(container: &ContainerLine) -> Json {
    let events = container
        .events
        .iter()
        .map(|event| json!({ "type": event.severity, "reason": event.reason, "message": event.message }));
    let pull = container.pull();
    json!({
        "namespace": container.namespace,
        "pod": container.pod,
        "kind": container.kind,
        "container": container.container,
        "slot": container.slot,
        "image": container.image,
        "imagePullPolicy": container.policy,
        "imagePullPolicySet": container.policy_was_set,
        "action": container.action,
        "ready": container.failure.is_none(),
        "imageRef": container.image_ref.as_ref().map(ToString::to_string),
        "credential": credential(container),
        "attempts": container.attempts().0.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "notes": container.notes.iter().chain(pull.iter().flat_map(|pull| &pull.notes)).collect::<Vec<_>>(),
        "tries": container.tries,
        "tookSeconds": container.took().as_secs_f64(),
        "events": events.collect::<Vec<_>>(),
        "error": failure(container).map(|failure| failure.json_body()),
    })
}
