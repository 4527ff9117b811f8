//! Docker credential helpers: programs called `docker-credential-NAME`.
//!
//! Source of truth: docker/docker-credential-helpers, `client/client.go` and `credentials/error.go`. A helper runs only
//! if the policy permits its name, from directories that nobody but their trusted owner can write to, in an environment
//! of our making, bounded in time and output, in a process group of its own that is killed when time is up.

mod run;
pub(crate) mod trust;

pub use trust::TrustedOwner;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;
use windlass_core::host::Host;
use windlass_core::keyring::Credential;
use windlass_core::reason::Reason;

/// Longest run of a helper; one that asks a person on a screen would block a pull for ever.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes read from a helper.
pub const HELPER_OUTPUT_BYTES: usize = 1024 * 1024;
/// How long an answer is used again, unless the registry refuses it.
pub const HELPER_CACHE: Duration = Duration::from_secs(300);
/// Most answers kept; beyond that all are forgotten, since a node talks to a few registries only.
const MAX_CACHED: usize = 256;

/// Which helpers may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WhichHelpers {
    /// None, whatever a file says.
    #[default]
    None,
    /// Those that the administrator listed, where `credHelpers` names them.
    Listed(BTreeSet<String>),
    /// Any that the person's own configuration names, by `credHelpers` or `credsStore`.
    AnyNamed,
}

/// What a helper may be, and how it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperPolicy {
    /// Which names.
    pub which: WhichHelpers,
    /// Where programs are looked for, in order. Nothing else is searched, `PATH` is not.
    pub directories: Vec<PathBuf>,
    /// Who may own the directories and programs.
    pub owner: TrustedOwner,
    /// The whole environment beside `PATH`, e.g. `HOME`.
    pub environment: Vec<(OsString, OsString)>,
    /// Longest run.
    pub timeout: Duration,
}

impl Default for HelperPolicy {
    fn default() -> HelperPolicy {
        HelperPolicy {
            which: WhichHelpers::None,
            directories: ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
            owner: TrustedOwner::Root,
            environment: Vec::new(),
            timeout: HELPER_TIMEOUT,
        }
    }
}

/// Why a helper gave no answer. Its output is shown only where it is an error text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// The name has characters that could lead elsewhere.
    #[error("the name of a credential helper consists of letters, digits, dot, underscore and hyphen")]
    Name,
    /// No directory has the program.
    #[error("docker-credential-{name} is in none of the directories for helpers")]
    Missing {
        /// The helper.
        name: String,
    },
    /// Somebody else could have written the program.
    #[error("{path} is not run: {why}", path = path.display())]
    Untrusted {
        /// The directory or program.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It could not be started or talked to.
    #[error("the program cannot be run")]
    Io(#[source] std::io::Error),
    /// It was killed when its time was up.
    #[error("it did not end within {} s and was killed", limit.as_secs())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// It wrote more than [`HELPER_OUTPUT_BYTES`].
    #[error("it wrote more than {HELPER_OUTPUT_BYTES} bytes")]
    TooLarge,
    /// It failed.
    #[error("it ended with {status}{}", if message.is_empty() { String::new() } else { format!(": {message}") })]
    Failed {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The first line of what it said.
        message: String,
    },
    /// Its answer is not what the protocol asks for; the answer is withheld.
    #[error("its answer is not a JSON object with Username and Secret")]
    Answer,
}

impl HelperError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            HelperError::Name | HelperError::Missing { .. } | HelperError::Untrusted { .. } => Reason::InvalidConfig,
            HelperError::Io(_)
            | HelperError::Timeout { .. }
            | HelperError::TooLarge
            | HelperError::Failed { .. }
            | HelperError::Answer => Reason::InvalidCredentials,
        }
    }
}

/// An answer that several callers may wait for.
#[derive(Debug)]
struct Answer {
    until: Instant,
    cell: OnceCell<Option<Credential>>,
}

/// Runs helpers and remembers their answers.
#[derive(Debug)]
pub struct Helpers {
    policy: HelperPolicy,
    answers: Mutex<HashMap<(String, Host), Arc<Answer>>>,
}

impl Helpers {
    /// Helpers under a policy.
    pub fn new(policy: HelperPolicy) -> Helpers {
        Helpers { policy, answers: Mutex::default() }
    }

    /// Which helpers may run at all.
    pub fn which(&self) -> &WhichHelpers {
        &self.policy.which
    }

    /// Whether this one may.
    pub fn permits(&self, name: &str) -> bool {
        match &self.policy.which {
            WhichHelpers::None => false,
            WhichHelpers::Listed(names) => names.contains(name),
            WhichHelpers::AnyNamed => true,
        }
    }

    /// What a helper knows about a registry; `None` if it knows nothing. Callers that ask at the same time share one
    /// run; failures are not remembered.
    ///
    /// # Errors
    /// [`HelperError`] without any secret.
    pub async fn get(&self, name: &str, registry: &Host) -> Result<Option<Credential>, HelperError> {
        let now = Instant::now();
        let key = (name.to_owned(), registry.clone());
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.retain(|_, answer| answer.until > now);
            if answers.len() >= MAX_CACHED {
                answers.clear();
            }
            let fresh = || Arc::new(Answer { until: now + HELPER_CACHE, cell: OnceCell::new() });
            Arc::clone(answers.entry(key).or_insert_with(fresh))
        };
        answer.cell.get_or_try_init(|| run::get(&self.policy, name, server_url(registry))).await.cloned()
    }

    /// Forgets the answers for a registry. Returns whether there were any.
    pub fn forget(&self, registry: &Host) -> bool {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = answers.len();
        answers.retain(|(_, host), _| host != registry);
        answers.len() != before
    }
}

/// What helpers know a registry by: its host, and for Docker Hub the URL that `docker login` uses.
fn server_url(registry: &Host) -> &str {
    match registry.as_str() {
        "docker.io" => "https://index.docker.io/v1/",
        host => host,
    }
}
