//! What the engine is asked, and what it answers. No behaviour here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windlass_core::decide::ensure::{Event, Verification};
use windlass_core::digest::Digest;
use windlass_core::keyring::{Candidate, Mode};
use windlass_core::platform::Platform;
use windlass_core::policy::PullPolicy;
use windlass_credentials::Lookup;

use crate::attempt::{Accepted, Attempts};
use crate::events::Outcome;
use crate::workload::{PodSpec, PolicySet, Slot};

/// Where the bytes of a pull may come from beside the registry, and what is asked of the result.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to choose from an index; `None`: the engine's own.
    pub platform: Option<Platform>,
    /// Whether an image for another architecture is an error rather than a warning.
    pub strict_platform: StrictPlatform,
    /// Ends the call when it fires: transfers stop, workers are joined, finished layers stay.
    pub cancel: CancellationToken,
}

/// What to do about an image whose config is for another architecture than asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StrictPlatform {
    /// Warn and go on.
    #[default]
    Warn,
    /// Refuse it.
    Refuse,
}

/// One image to be made present, whatever is here already.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The reference as typed.
    pub image: String,
    /// Whose rules the credentials follow.
    pub mode: Mode,
    /// What may be shown to the registry.
    pub credentials: Credentials,
    /// The rest.
    pub options: PullOptions,
}

/// What a pull may show to a registry.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Whatever the engine's own sources have for the reference.
    #[default]
    Sources,
    /// These, in this order, and nobody else's: an image that came by another credential would prove nothing about them.
    Given(Vec<Candidate>),
}

/// One image that is now present.
#[derive(Debug, Clone)]
pub struct PullReport {
    /// The reference as typed.
    pub image: String,
    /// The image ID, which is the config's digest.
    pub id: Digest,
    /// What the reference names at the registry: an index or a manifest.
    pub digest: Digest,
    /// The manifest of the platform chosen.
    pub manifest: Digest,
    /// The platform chosen, `linux/amd64`.
    pub platform: String,
    /// Whether anything was fetched.
    pub outcome: Outcome,
    /// Number of layers, a layer used twice counted once.
    pub layers: usize,
    /// Of these, how many were here before.
    pub layers_already_here: usize,
    /// Sum of the compressed layers.
    pub size_bytes: u64,
    /// Bytes of layers fetched by this call.
    pub fetched_bytes: u64,
    /// The host the manifest came from: the registry or a mirror.
    pub source: Option<String>,
    /// Every credential tried, in order; the accepted one last.
    pub attempts: Attempts,
    /// Who the registry let in.
    pub accepted: Accepted,
    /// Requests sent.
    pub requests: u64,
    /// How long it took, waiting for others included.
    pub took: Duration,
    /// What a person should know although it worked.
    pub warnings: Vec<String>,
    /// What is odd about the image without being wrong.
    pub notes: Vec<String>,
}

/// The images of pods to be made present as a kubelet would.
#[derive(Debug, Clone)]
pub struct EnsureRequest {
    /// The pods, from [`crate::workload::read`].
    pub pods: Vec<PodSpec>,
    /// Whose credential rules apply; [`Mode::Kubelet`] is `--strict-kubelet`.
    pub mode: Mode,
    /// What stands beside the pods' secrets.
    pub credentials: EnsureCredentials,
    /// Who may use an image that is here already: the kubelet's gate and policy.
    pub verification: Verification,
    /// Whether to go on after a failure.
    pub wait: Wait,
    /// The rest.
    pub options: PullOptions,
}

/// What `ensure` may show to a registry beside the pods' secrets.
#[derive(Debug, Clone, Default)]
pub enum EnsureCredentials {
    /// Whatever the engine's own sources have.
    #[default]
    Sources,
    /// These after the secrets, by the image as written, and what was found on the way to them; for an image that is
    /// not named, nothing.
    Given(BTreeMap<String, Lookup>),
}

/// How long `ensure` goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// One try per container.
    Once,
    /// Again and again with the kubelet's back-off, until all are there or this much time has passed.
    Until(Duration),
}

/// What became of every container.
#[derive(Debug, Clone, Default)]
pub struct EnsureReport {
    /// One entry per image of each pod, in the order of the pods.
    pub containers: Vec<ContainerReport>,
    /// How long it all took.
    pub took: Duration,
}

impl EnsureReport {
    /// Whether every container has its image.
    pub fn is_complete(&self) -> bool {
        self.containers.iter().all(|container| container.failure.is_none())
    }
}

/// What became of one container's image.
#[derive(Debug, Clone)]
pub struct ContainerReport {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name, or that of its template's object.
    pub pod: String,
    /// The kind of the object that holds the pod.
    pub kind: String,
    /// The container's or volume's name.
    pub container: String,
    /// The list it stands in.
    pub slot: Slot,
    /// The image as written.
    pub image: String,
    /// The policy in force.
    pub policy: PullPolicy,
    /// Whether the manifest sets it.
    pub policy_was_set: PolicySet,
    /// What was done.
    pub action: Action,
    /// The image ID, when the image is there and may be used.
    pub image_ref: Option<Digest>,
    /// The events the kubelet would have sent, in order, those of every try.
    pub events: Vec<Event>,
    /// How often it was tried.
    pub tries: u32,
    /// Credentials tried in the last try.
    pub attempts: Attempts,
    /// The pull's report, when one was made and worked.
    pub pull: Option<Arc<PullReport>>,
    /// Why it is not there.
    pub failure: Option<Failure>,
    /// What was passed over on the way, e.g. an entry of a pull secret that makes no sense.
    pub notes: Vec<String>,
    /// How long it took, all tries and waits included.
    pub took: Duration,
}

/// What was done about one container's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The image here was used.
    UsedLocal,
    /// The registry was asked.
    Pulled,
    /// Neither: a bad name, policy Never, a failed inspection, an unreadable secret.
    Refused,
    /// An earlier failure's back-off had not ended.
    BackedOff,
}

impl Action {
    /// The word for it in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::UsedLocal => "local",
            Action::Pulled => "pull",
            Action::Refused => "refuse",
            Action::BackedOff => "back-off",
        }
    }
}

/// Why a container's image is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kubelet's waiting reason, e.g. `ErrImagePull`; for errors without one the raw text.
    pub waiting: String,
    /// The kubelet's status message.
    pub message: String,
    /// Our stable reason.
    pub reason: windlass_core::reason::Reason,
    /// What to do next, one line without a full stop.
    pub hint: String,
}
