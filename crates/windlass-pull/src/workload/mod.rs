//! Kubernetes manifests, read for their images.
//!
//! In: the text of files, YAML or JSON, several documents each; all files of one call are read together, so
//! that a pod finds its `Secret` and `ServiceAccount` in another file. Out: one [`PodSpec`] per pod or pod
//! template, with every image it needs, the pull policy the API server would have filled in, and the pull
//! secrets admission would have given it; and what was passed over.
//! Source of truth: kubernetes `pkg/apis/core/v1/defaults.go`, `plugin/pkg/admission/serviceaccount`.
//!
//! Invariants: `every_workload_kind_yields_its_pod`, `account_secrets_are_copied_only_into_an_empty_list`,
//! `unknown_kinds_are_passed_over_and_named`, `an_unknown_policy_is_refused_by_name`,
//! `helm_templates_are_explained`, `secrets_never_print`.

mod node;
mod objects;
mod pod;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use windlass_core::keyring::PullSecret;
use windlass_core::policy::PullPolicy;
use windlass_core::reason::Reason;
use windlass_credentials::ServiceAccount;

pub use node::MANIFEST_BYTES_MAX;
pub use objects::GivenSecret;

/// The text of one manifest file and the name errors call it by.
#[derive(Debug, Clone)]
pub struct ManifestText {
    /// The path as given, or `-` for standard input.
    pub name: String,
    /// YAML or JSON, at most [`MANIFEST_BYTES_MAX`] bytes.
    pub text: String,
}

/// Where something stands in the given files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file's name as given.
    pub file: String,
    /// The line, counted from 1; 0 where the reader could not tell (JSON indented with tabs).
    pub line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Everything the given files say about images.
#[derive(Debug, Clone, Default)]
pub struct Workloads {
    /// Pods and pod templates, in the order of the files.
    pub pods: Vec<PodSpec>,
    /// Objects of kinds that hold no pod and that no pod needs.
    pub skipped: Vec<Skipped>,
    /// What deserves a word but stops nothing, e.g. a pull secret that is not in the files.
    pub notes: Vec<Note>,
}

/// An object that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its kind, `apps/v2/Widget` or `ConfigMap`.
    pub kind: String,
    /// Its name, empty where it has none.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// A remark with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What the remark is about.
    pub place: Place,
    /// One line without a full stop.
    pub text: String,
}

/// One pod, or the pod a template would make.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// The namespace, `default` where none is given.
    pub namespace: String,
    /// The name of the object that holds the pod.
    pub name: String,
    /// Its `metadata.uid`; only a pod that came from a cluster has one.
    pub uid: Option<String>,
    /// The kind of the object that holds the pod, e.g. `Deployment`.
    pub kind: String,
    /// Where the object stands.
    pub place: Place,
    /// Every image the pod needs: volumes, then init containers, containers and ephemeral containers, each
    /// in the order written. The kubelet ensures them in this order.
    pub containers: Vec<ContainerImage>,
    /// The pull secrets the kubelet would read, in order.
    pub pull_secrets: Vec<PullSecretRef>,
    /// Who listed them.
    pub pull_secrets_from: SecretsFrom,
    /// The service account, `default` where none is given.
    pub service_account: String,
    /// Its annotations; empty where the account is not in the files.
    pub service_account_annotations: BTreeMap<String, String>,
}

impl PodSpec {
    /// What the kubelet's back-off keys this pod by: its UID, else namespace and name.
    pub fn backoff_id(&self) -> String {
        match &self.uid {
            Some(uid) => uid.clone(),
            None => format!("{}/{}", self.namespace, self.name),
        }
    }

    /// The service account, as providers of credentials want it. Its UID is known to the cluster alone.
    pub fn account(&self) -> ServiceAccount {
        ServiceAccount {
            namespace: self.namespace.clone(),
            name: self.service_account.clone(),
            uid: String::new(),
            annotations: self.service_account_annotations.clone(),
        }
    }

    /// The secrets that are at hand, in the kubelet's order.
    pub fn resolved_secrets(&self) -> impl Iterator<Item = &PullSecret> {
        self.pull_secrets.iter().filter_map(|secret| match &secret.found {
            SecretFound::Here(given) => Some(&given.secret),
            SecretFound::Missing { .. } => None,
        })
    }
}

/// Who named the pull secrets of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretsFrom {
    /// The pod's own `imagePullSecrets`.
    Pod,
    /// Its service account, because the pod's own list is empty and the account is in the files.
    ServiceAccount,
    /// Nobody that is in the files: in a cluster the service account may add some.
    Unknown,
}

/// One image of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerImage {
    /// The container's or volume's name.
    pub name: String,
    /// Which list it stands in.
    pub slot: Slot,
    /// The image exactly as written; may be empty or malformed, which is for the decision to say.
    pub image: String,
    /// The pull policy in force.
    pub policy: PullPolicy,
    /// Whether the manifest sets the policy; otherwise it is the API server's default.
    pub policy_was_set: PolicySet,
    /// Where the image stands.
    pub place: Place,
}

/// Whether a policy was written or filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicySet {
    /// The manifest says it.
    Written,
    /// The API server's default for this image name.
    Defaulted,
}

/// The list of a pod that an image stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// `volumes[].image`.
    Volume,
    /// `initContainers`.
    Init,
    /// `containers`.
    Container,
    /// `ephemeralContainers`.
    Ephemeral,
}

impl Slot {
    /// The word for it in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Slot::Volume => "volume",
            Slot::Init => "init",
            Slot::Container => "container",
            Slot::Ephemeral => "ephemeral",
        }
    }
}

/// A pull secret a pod names.
#[derive(Debug, Clone)]
pub struct PullSecretRef {
    /// Its name; the namespace is the pod's.
    pub name: String,
    /// Whether the files hold it.
    pub found: SecretFound,
}

/// Whether a secret is at hand.
#[derive(Debug, Clone)]
pub enum SecretFound {
    /// It is in the files.
    Here(std::sync::Arc<GivenSecret>),
    /// It is not; the kubelet would go on without it too, with a warning.
    Missing {
        /// A namespace in whose files there is one of that name, which the pod cannot use.
        elsewhere: Option<String>,
    },
}

/// Why manifests could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The text is neither YAML nor JSON, or passes a limit.
    #[error("{place}: not a Kubernetes manifest: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// The reader's words.
        message: String,
    },
    /// The text is a template, not a manifest.
    #[error(
        "{place}: this is a Helm template, not a manifest; render it first: helm template CHART | windlass ensure -f -"
    )]
    HelmTemplate {
        /// The first line that holds template code.
        place: Place,
    },
    /// A field has the wrong shape.
    #[error("{place}: {field} must be {want}, not {got}")]
    Field {
        /// Where.
        place: Place,
        /// The field's path within the object.
        field: String,
        /// What it should be.
        want: &'static str,
        /// What it is.
        got: String,
    },
    /// `imagePullPolicy` is none of the three.
    #[error("{place}: imagePullPolicy {value:?} of {container} is none of Always, IfNotPresent, Never")]
    UnknownPolicy {
        /// Where.
        place: Place,
        /// The container or volume.
        container: String,
        /// The value written.
        value: String,
    },
    /// `List` objects inside one another, too deep.
    #[error("{place}: lists are nested deeper than {limit}")]
    ListDepth {
        /// Where.
        place: Place,
        /// The limit.
        limit: usize,
    },
}

impl WorkloadError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            WorkloadError::Syntax { .. }
            | WorkloadError::HelmTemplate { .. }
            | WorkloadError::Field { .. }
            | WorkloadError::UnknownPolicy { .. }
            | WorkloadError::ListDepth { .. } => Reason::InvalidConfig,
        }
    }
}

/// Reads the files of one call together.
///
/// # Errors
/// The first thing that is wrong, with its file and line. Unknown kinds are no error.
pub fn read(files: &[ManifestText]) -> Result<Workloads, WorkloadError> {
    let mut found = objects::Found::default();
    for file in files {
        objects::collect(file, &mut found)?;
    }
    let pods = found.holders.iter().map(|holder| pod::pod_spec(holder, &found)).collect::<Result<Vec<_>, _>>()?;
    let notes = pods.iter().flat_map(pod::notes).collect();
    Ok(Workloads { pods, skipped: found.skipped, notes })
}
