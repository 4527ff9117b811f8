//! `windlass demo`: a registry, a pod and a wrong secret on one machine, and nothing left behind.
//!
//! The registry listens on a free loopback port and keeps its content in a temporary folder, which also holds the
//! store; both are removed at the end, also when the demonstration is interrupted. The machine's configuration is
//! not read, so it looks the same everywhere.

mod image;
mod pod;

use std::path::Path;
use std::sync::Arc;

use windlass_core::keyring::Mode;
use windlass_core::reason::Reason;
use windlass_core::secret::Secret;
use windlass_pull::workload::{ManifestText, read};
use windlass_pull::{ContainerReport, EnsureCredentials, EnsureReport, EnsureRequest, PullOptions, Wait};
use windlass_registry::access::{Action, Rule, Rules};
use windlass_registry::log::MemoryLog;
use windlass_registry::route::{RepositoryName, Tag};
use windlass_registry::{Auth, BearerConfig, Durability, RegistryConfig, RegistryServer, RunningRegistry, Users};

use super::ensure::Ensured;
use crate::config;
use crate::failure::Failure;
use crate::session::Session;
use crate::wire::{self, Whose};
use crate::{interrupt, progress};

/// Tag of every image.
const TAG: &str = "1";
/// Platforms of the index.
const PLATFORMS: [(&str, Option<&str>); 3] = [("amd64", None), ("arm64", Some("v8")), ("riscv64", None)];

pub(super) fn run(session: &Session) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("windlass-demo-").tempdir().map_err(|error| cannot(&error))?;
    let result = show(folder.path(), session);
    // Removing is part of the promise, so that a failure to do so is told.
    let removed = folder.close().map_err(|error| cannot(&error));
    result.and(removed)?;
    session.screen.line("\nThe registry is stopped and its folder removed; nothing is left behind.")
}

fn show(folder: &Path, session: &Session) -> Result<(), Failure> {
    let mut node = config::defaults().node;
    node.general.root = folder.join("store");
    node.general.hosts_dir.clear();
    let engine = wire::engine(&node, &session.globals, Whose::Nobody)?;
    let verification = wire::verification(&node)?;
    let log = Arc::new(MemoryLog::default());
    let report = interrupt::to_end(async |cancel| {
        let registry = start(folder, log.clone()).await?;
        let address = registry.addr().to_string();
        let filled = {
            let storage = registry.storage();
            tokio::task::spawn_blocking(move || fill(&storage)).await.map_err(|error| wire::panicked(&error))
        };
        filled??;
        introduce(&address, session)?;
        let text = pod::manifests(&address);
        let files = [ManifestText { name: "demo.yaml".to_owned(), text }];
        let request = EnsureRequest {
            pods: read(&files).map_err(|error| cannot(&error))?.pods,
            mode: Mode::Windlass,
            credentials: EnsureCredentials::Sources,
            verification,
            wait: Wait::Once,
            options: PullOptions { cancel, ..PullOptions::default() },
        };
        let report = engine.ensure(request, progress::sink(&session.globals)).await;
        registry.shutdown().await;
        report.map_err(|error| wire::pull_failure("cannot ensure the pod", &error))
    })?;
    conclude(report, log.records().len(), session)
}

async fn start(folder: &Path, log: Arc<MemoryLog>) -> Result<RunningRegistry, Failure> {
    let rules = [
        Rule::allow(&["anonymous"], &["public/**"], &[Action::Pull]),
        Rule::allow(&["user:team-a"], &["team-a/**"], &[Action::Pull]),
        Rule::allow(&["user:team-b"], &["team-b/**"], &[Action::Pull]),
    ];
    let rules = rules.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| cannot(&error))?;
    let users = pod::USERS.iter().map(|(name, password)| ((*name).to_owned(), Secret::from(*password)));
    let config = RegistryConfig {
        auth: Auth::Bearer(BearerConfig::default()),
        users: Users::Memory(users.collect()),
        rules: Rules::new(rules),
        durability: Durability::Relaxed,
        access_log: Some(log),
        ..RegistryConfig::open(folder.join("registry"))
    };
    RegistryServer::start(config).await.map_err(|error| cannot(&error))
}

/// Puts the images in, as a push would.
fn fill(storage: &windlass_registry::Storage) -> Result<(), Failure> {
    let here = std::env::consts::ARCH;
    let architecture = match here {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    for container in &pod::CONTAINERS {
        let built = match container.repository {
            "public/multi" => image::multi_platform("hello", &PLATFORMS),
            repository => image::single(&format!("hello from {repository}"), architecture, None),
        };
        let name = RepositoryName::parse(container.repository).map_err(|error| cannot(&error))?;
        let tag = Tag::parse(TAG).map_err(|error| cannot(&error))?;
        for blob in &built.blobs {
            storage.put_blob(&name, &blob.digest, &blob.bytes).map_err(|error| cannot(&error))?;
        }
        for document in &built.documents {
            let content = &document.content;
            let put = storage.put_manifest(&name, &content.digest, document.media_type, &content.bytes);
            put.map_err(|error| cannot(&error))?;
        }
        storage.put_tag(&name, &tag, &built.root().content.digest).map_err(|error| cannot(&error))?;
    }
    Ok(())
}

fn introduce(address: &str, session: &Session) -> Result<(), Failure> {
    let screen = &session.screen;
    screen.line(&format!("A registry runs at {address} with public images and with those of two users."))?;
    screen.line("The pod demo/demo has these containers:")?;
    for container in &pod::CONTAINERS {
        screen.line(&format!("  {:<10}{}", container.name, container.about))?;
    }
    screen.line("Ensuring it, as `windlass ensure -f pod.yaml` would:\n")
}

/// Shows the result; it is the expected one, or the demonstration has failed.
fn conclude(report: EnsureReport, requests: usize, session: &Session) -> Result<(), Failure> {
    let as_shown = pod::CONTAINERS.iter().all(|container| {
        let found = report.containers.iter().find(|found| found.container == container.name);
        found.is_some_and(|found| match &found.failure {
            None => !container.is_refused,
            Some(failure) => container.is_refused && failure.reason == Reason::Unauthorized,
        })
    });
    let ensured = Ensured((&report).into());
    session.screen.show(&ensured)?;
    session.screen.line("\nWhat happened:")?;
    for container in &report.containers {
        session.screen.line(&happened(container))?;
    }
    session.screen.line("")?;
    for failure in ensured.failures() {
        for line in failure.render(crate::args::Format::Table).lines() {
            session.screen.line(line)?;
        }
    }
    session.screen.line(&format!("\nThe registry answered {requests} requests."))?;
    if as_shown {
        Ok(())
    } else {
        Err(Failure::new(Reason::Internal, "the demonstration did not go as it should", "see the table above"))
    }
}

/// One sentence on how a container got its image, or did not.
fn happened(container: &ContainerReport) -> String {
    let name = &container.container;
    let Some(pull) = &container.pull else { return format!("  {name:<10}no image; the reason is below") };
    let who = match container.attempts.accepted() {
        Some(attempt) => attempt.source.clone().unwrap_or_else(|| "nobody's credentials, it is public".to_owned()),
        None => "no question asked".to_owned(),
    };
    let choice = if container.image.contains("/multi:") {
        let offered: Vec<String> = PLATFORMS.iter().map(|(architecture, _)| format!("linux/{architecture}")).collect();
        format!("{} chosen of {}", pull.platform, offered.join(", "))
    } else {
        pull.platform.clone()
    };
    format!("  {name:<10}{} layers, {} here before; {choice}; pulled with {who}", pull.layers, pull.layers_already_here)
}

fn cannot(error: &dyn std::error::Error) -> Failure {
    Failure::new(Reason::IoError, "cannot set up the demonstration", wire::chain(error))
}
