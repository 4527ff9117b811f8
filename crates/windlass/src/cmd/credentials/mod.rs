//! `windlass credentials`: which credentials would be tried for an image, in order, and where they come from.
//!
//! In: a reference, and whose credentials are meant. Out: the candidates in trying order, what was passed over and why;
//! with `--verify`, what the registry answers to each of them alone. Never a secret.

mod providers;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};
use windlass_core::keyring::{Candidate, Credential, Mode, PullSecret, Skipped};
use windlass_core::reference::Reference;
use windlass_credentials::{Asker, Lookup, ServiceAccount};
use windlass_distribution::{Client, FetchError, TagOrDigest};
use windlass_pull::workload::PodSpec;

use super::ensure::read_files;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Report;
use crate::output::size::age;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{self, Whose};

/// Arguments of `credentials`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image, such as registry.example/team/app:1.4.
    #[arg(value_name = "REF")]
    image: String,
    /// Manifests with the pods that use the image, and with the Secrets and ServiceAccounts they name; - is standard
    /// input. The credentials are then those that `ensure` would use.
    #[arg(short = 'f', long = "filename", num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The credentials of the node, as its daemon would use them, instead of those of the person who asks.
    #[arg(long)]
    node: bool,
    /// Exactly the kubelet's rules, without those that Windlass adds.
    #[arg(long)]
    strict_kubelet: bool,
    /// Shows each credential to the registry, alone, and tells the answer. Asks for the manifest's head only.
    #[arg(long)]
    verify: bool,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let reference = Reference::parse(&args.image)
        .map_err(|error| wire::reference_failure(&format!("cannot look for credentials for {}", args.image), &error))?;
    let mode = if args.strict_kubelet { Mode::Kubelet } else { Mode::Windlass };
    let is_person = !args.node && !args.strict_kubelet && args.files.is_empty();
    let whose = if is_person { Whose::Person } else { Whose::Node(mode) };
    let pods = args.pods(&reference, session)?;
    let sources = wire::sources(&node, whose)?;
    let client = wire::client(&node, &session.globals)?;
    let shown = interrupt::to_end(async |_| {
        let mut groups = Vec::new();
        for pod in pods {
            let asker = Asker { pull_secrets: &pod.secrets, service_account: pod.account.as_ref() };
            let found = sources.candidates_for(&reference, asker, mode).await.map_err(|error| {
                Failure::new(error.reason(), "cannot look for credentials", wire::chain(&error))
                    .hint("correct or remove what is named; a pull would fail in the same way")
            })?;
            let tries = tries(&client, &reference, &found, mode, args.verify).await;
            groups.push(Group { pod: pod.name, tries, found });
        }
        Ok(Shown { reference: reference.clone(), mode, groups })
    })?;
    for path in shown.groups.iter().flat_map(|group| &group.found.exposed_files) {
        session.warn(&format!("{} may be read by others; chmod 600 it", path.display()));
    }
    session.screen.show(&shown)
}

/// Whose secrets are meant.
struct Pod {
    /// Kind, namespace and name; none where no manifest was given.
    name: Option<String>,
    secrets: Vec<PullSecret>,
    account: Option<ServiceAccount>,
}

impl Args {
    fn pods(&self, reference: &Reference, session: &Session) -> Result<Vec<Pod>, Failure> {
        if self.files.is_empty() {
            return Ok(vec![Pod { name: None, secrets: Vec::new(), account: None }]);
        }
        let workloads = read_files(&self.files)?;
        for note in &workloads.notes {
            session.warn(&format!("{}: {}", note.place, note.text));
        }
        let uses = |pod: &&PodSpec| {
            let same = |image: &str| Reference::parse(image).is_ok_and(|it| it.repository() == reference.repository());
            pod.containers.iter().any(|container| same(&container.image))
        };
        let pods: Vec<Pod> = workloads
            .pods
            .iter()
            .filter(uses)
            .map(|pod| Pod {
                name: Some(format!("{} {}/{}", pod.kind, pod.namespace, pod.name)),
                secrets: pod.resolved_secrets().cloned().collect(),
                account: Some(pod.account()),
            })
            .collect();
        if pods.is_empty() {
            let why = format!("no pod of the files has a container of {}", reference.repository());
            return Err(Failure::usage("nothing to look for", why));
        }
        Ok(pods)
    }
}

/// One line: a credential, or the attempt without one.
struct Try {
    candidate: Option<Candidate>,
    /// What the registry said, where it was asked.
    answer: Option<Answer>,
}

struct Answer {
    accepted: bool,
    words: String,
}

/// Everything that a pull would try, in its order.
async fn tries(client: &Client, reference: &Reference, found: &Lookup, mode: Mode, verify: bool) -> Vec<Try> {
    let mut candidates: Vec<Option<Candidate>> = found.candidates.iter().cloned().map(Some).collect();
    let has_anonymous = found.candidates.iter().any(|candidate| candidate.credential == Credential::Anonymous);
    if candidates.is_empty() || (mode == Mode::Windlass && !has_anonymous) {
        candidates.push(None);
    }
    let mut tries = Vec::new();
    for candidate in candidates {
        let answer = if verify { Some(ask(client, reference, candidate.as_ref()).await) } else { None };
        tries.push(Try { candidate, answer });
    }
    tries
}

/// Shows one credential, and nothing but it.
async fn ask(client: &Client, reference: &Reference, candidate: Option<&Candidate>) -> Answer {
    // The kubelet's mode is the one in which nothing follows a refusal.
    let repository = client.repository(reference, candidate.cloned().into_iter().collect(), Mode::Kubelet);
    match repository.head(&TagOrDigest::from(reference)).await {
        Ok(Some(head)) => Answer { accepted: true, words: format!("accepted: {}", head.digest) },
        Ok(None) => Answer { accepted: true, words: "accepted; the registry does not say the digest".to_owned() },
        Err(error) => Answer { accepted: false, words: refusal(&error) },
    }
}

/// The registry's answer, without the names that the line has already.
fn refusal(error: &FetchError) -> String {
    match error.attempts() {
        [.., last] => last.answer.clone(),
        [] => wire::chain(error),
    }
}

/// What is tried for one pod, or for nobody in particular.
struct Group {
    pod: Option<String>,
    tries: Vec<Try>,
    found: Lookup,
}

struct Shown {
    reference: Reference,
    mode: Mode,
    groups: Vec<Group>,
}

impl Report for Shown {
    fn kind(&self) -> &'static str {
        "CredentialList"
    }

    fn fields(&self) -> Json {
        json!({
            "repository": self.reference.repository(),
            "mode": match self.mode { Mode::Kubelet => "kubelet", Mode::Windlass => "windlass" },
            "items": self.groups.iter().map(Group::fields).collect::<Vec<_>>(),
        })
    }

    fn table(&self, _wide: bool) -> Table {
        let verified = self.groups.iter().flat_map(|group| &group.tries).any(|one| one.answer.is_some());
        let of_pods = self.groups.iter().any(|group| group.pod.is_some());
        let pod = of_pods.then_some("POD");
        let headings = pod.into_iter().chain(["#", "SOURCE", "KEY", "USER", "KIND", "EXPIRES"]);
        let mut table = Table::new(headings.chain(verified.then_some("ANSWER")));
        for group in &self.groups {
            for (at, one) in group.tries.iter().enumerate() {
                let mut cells: Vec<String> = group.pod.iter().cloned().collect();
                cells.push((at + 1).to_string());
                cells.extend(one.cells());
                cells.push(group.expires_in(one).map_or_else(String::new, |left| format!("in {}", age(left))));
                cells.extend(one.answer.as_ref().map(|answer| answer.words.clone()));
                table = table.row(cells);
            }
        }
        for skipped in self.groups.iter().flat_map(|group| group.found.skipped.iter().filter(|it| !group.is_told(it))) {
            let key = if skipped.key.is_empty() { String::new() } else { format!(" key {}", skipped.key) };
            table = table.line(format!("note: {}{key}: {}", skipped.origin, skipped.why));
        }
        for note in self.groups.iter().flat_map(|group| &group.found.providers) {
            for line in providers::lines(note) {
                table = table.line(line);
            }
        }
        table
    }

    fn names(&self) -> Vec<String> {
        self.groups.iter().flat_map(|group| &group.tries).map(Try::source).collect()
    }
}

impl Group {
    /// Whether the lines of the providers say it already.
    fn is_told(&self, skipped: &Skipped) -> bool {
        self.found.providers.iter().any(|note| note.title() == skipped.origin.to_string())
    }

    /// How long a credential is kept yet, where it came from a provider that said so.
    fn expires_in(&self, one: &Try) -> Option<Duration> {
        let note = self.found.providers.iter().find(|note| note.title() == one.source())?;
        note.expires_in
    }

    fn fields(&self) -> Json {
        let skipped =
            |skipped: &Skipped| json!({ "source": skipped.origin.to_string(), "key": skipped.key, "why": skipped.why });
        json!({
            "pod": self.pod,
            "credentials": self.tries.iter().map(|one| one.fields(self.expires_in(one))).collect::<Vec<_>>(),
            "skipped": self.found.skipped.iter().map(skipped).collect::<Vec<_>>(),
            "providers": self.found.providers.iter().map(providers::fields).collect::<Vec<_>>(),
        })
    }
}

impl Try {
    fn source(&self) -> String {
        self.candidate.as_ref().map_or_else(|| "anonymous".to_owned(), |candidate| candidate.origin.to_string())
    }

    /// Source, key, user, kind.
    fn cells(&self) -> [String; 4] {
        let candidate = self.candidate.as_ref();
        let user = candidate.and_then(|candidate| candidate.credential.username()).unwrap_or_default();
        let kind = candidate.map_or("anonymous", |candidate| candidate.credential.kind());
        let key = candidate.map(|candidate| candidate.key.clone()).unwrap_or_default();
        [self.source(), key, user.to_owned(), kind.to_owned()]
    }

    fn fields(&self, expires_in: Option<Duration>) -> Json {
        let [source, key, user, kind] = self.cells();
        let mut fields = json!({
            "source": source,
            "key": key,
            "username": user,
            "credentialKind": kind,
            "expiresInSeconds": expires_in.map(|left| left.as_secs()),
        });
        if let Some(answer) = &self.answer {
            fields["verified"] = json!({ "accepted": answer.accepted, "answer": answer.words });
        }
        fields
    }
}
