//! What `ensure` asks the daemon for, and the report of it, which is also what the command shows without a daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;
use windlass_core::reason::Reason;
use windlass_core::secret::Secret;
use windlass_pull::workload::PolicySet;
use windlass_pull::{Attempt, Attempts, ContainerReport, EnsureReport, PullReport};

use super::credentials::GivenLookup;
use super::pull::{AttemptLine, PullLine, micros};

/// Pods whose images are to be made present.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnsureAsk {
    /// The manifests, Secrets among them.
    pub manifests: Vec<ManifestFile>,
    /// Whether exactly the kubelet's credential rules apply.
    pub strict_kubelet: bool,
    /// What stands beside the pods' secrets, by the image as written.
    pub credentials: BTreeMap<String, GivenLookup>,
    /// The verification policy by its name.
    pub verification: String,
    /// Images that need no proof under the policy with an allow-list.
    pub allowlist: Vec<String>,
    /// How long it goes on, in milliseconds; `None`: one try.
    pub wait_ms: Option<u64>,
    /// The platform; `None`: the machine's.
    pub platform: Option<String>,
}

/// One file of manifests.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// What errors call it.
    pub name: String,
    /// What it holds; Secrets may be among it.
    #[serde(with = "exposed")]
    pub text: Secret<String>,
}

impl fmt::Debug for ManifestFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Written to this wire, and nowhere else.
mod exposed {
    use serde::{Deserialize, Deserializer, Serializer};
    use windlass_core::secret::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// What became of every container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnsureLine {
    /// One entry per image of each pod, in the order of the pods.
    pub containers: Vec<ContainerLine>,
    took_us: u64,
}

impl EnsureLine {
    /// Whether every container has its image.
    pub fn is_complete(&self) -> bool {
        self.containers.iter().all(|container| container.failure.is_none())
    }

    /// How long it all took.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us)
    }
}

/// What became of one container's image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerLine {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The kind of the object that holds the pod.
    pub kind: String,
    /// The container's or volume's name.
    pub container: String,
    /// The list it stands in: `volume`, `init`, `container` or `ephemeral`.
    pub slot: String,
    /// The image as written.
    pub image: String,
    /// The policy in force.
    pub policy: String,
    /// Whether the manifest sets it.
    pub policy_was_set: bool,
    /// What was done.
    pub action: String,
    /// The image ID, when the image is there and may be used.
    pub image_ref: Option<Digest>,
    /// The events the kubelet would have sent.
    pub events: Vec<EventLine>,
    /// How often it was tried.
    pub tries: u32,
    attempts: Vec<AttemptLine>,
    /// The pull's report, when one was made and worked.
    pull: Option<Box<PullLine>>,
    /// Why it is not there.
    pub failure: Option<FailureLine>,
    /// What was passed over on the way.
    pub notes: Vec<String>,
    took_us: u64,
}

/// An event the kubelet would have sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// `Normal` or `Warning`.
    pub severity: String,
    /// The machine's word.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
}

/// Why a container's image is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureLine {
    /// The kubelet's waiting reason.
    pub waiting: String,
    /// The kubelet's status message.
    pub message: String,
    class: String,
    /// What to do next.
    pub hint: String,
}

impl FailureLine {
    /// Our stable reason.
    pub fn reason(&self) -> Reason {
        super::reason(&self.class).unwrap_or(Reason::Internal)
    }
}

impl ContainerLine {
    /// Credentials tried in the last try.
    pub fn attempts(&self) -> Attempts {
        Attempts(self.attempts.iter().cloned().map(Attempt::from).collect())
    }

    /// The pull's report, when one was made and worked.
    pub fn pull(&self) -> Option<PullReport> {
        self.pull.as_deref().cloned().map(PullReport::from)
    }

    /// How long it took, all tries and waits included.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us)
    }
}

impl From<&EnsureReport> for EnsureLine {
    fn from(report: &EnsureReport) -> EnsureLine {
        EnsureLine {
            containers: report.containers.iter().map(ContainerLine::from).collect(),
            took_us: micros(report.took),
        }
    }
}

impl From<&ContainerReport> for ContainerLine {
    fn from(container: &ContainerReport) -> ContainerLine {
        let events = container.events.iter().map(|event| EventLine {
            severity: event.severity.as_str().to_owned(),
            reason: event.reason.to_owned(),
            message: event.message.clone(),
        });
        let failure = container.failure.as_ref().map(|failure| FailureLine {
            waiting: failure.waiting.clone(),
            message: failure.message.clone(),
            class: failure.reason.class().to_owned(),
            hint: failure.hint.clone(),
        });
        ContainerLine {
            namespace: container.namespace.clone(),
            pod: container.pod.clone(),
            kind: container.kind.clone(),
            container: container.container.clone(),
            slot: container.slot.as_str().to_owned(),
            image: container.image.clone(),
            policy: container.policy.to_string(),
            policy_was_set: container.policy_was_set == PolicySet::Written,
            action: container.action.as_str().to_owned(),
            image_ref: container.image_ref.clone(),
            events: events.collect(),
            tries: container.tries,
            attempts: container.attempts.0.iter().map(AttemptLine::from).collect(),
            pull: container.pull.as_deref().map(|pull| Box::new(pull.into())),
            failure,
            notes: container.notes.clone(),
            took_us: micros(container.took),
        }
    }
}
