//! Reads a configuration from its file or files and checks the programs it names. Blocks.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windlass_core::provider::{
    CONFIG_BYTES_MAX, ConfigProblem, ProviderConfig, Raw, TIMEOUT_DEFAULT, config_hash, read_config,
};
use windlass_core::reason::Reason;
use zeroize::Zeroizing;

use crate::helper::{HelperError, TrustedOwner, trust};

/// Most files of a directory; a node has one or two providers.
const FILES_MAX: usize = 256;
/// Deepest nesting of a document: ours has six levels.
const DEPTH_MAX: usize = 32;
/// Most values of a document.
const NODES_MAX: usize = 100_000;
/// Longest text about a document that is no YAML.
const MESSAGE_CHARS_MAX: usize = 200;
/// Variables that are about this process, and none of a program's business.
const OWN_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "CREDENTIALS_DIRECTORY", "WATCHDOG_USEC"];

/// Where the configuration and the programs are, and how programs run.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginSettings {
    /// A file, or a directory whose `.json`, `.yaml` and `.yml` files are one configuration. Kubelet:
    /// `--image-credential-provider-config`.
    pub config: PathBuf,
    /// The programs. Kubelet: `--image-credential-provider-bin-dir`.
    pub bin_dir: PathBuf,
    /// Who may own programs and the directories above them.
    pub owner: TrustedOwner,
    /// The environment that each program has beside its `env`.
    pub environment: Vec<(OsString, OsString)>,
    /// Longest run of a program that has no `timeout` of its own.
    pub timeout: Duration,
}

impl PluginSettings {
    /// As a kubelet does it: programs of root or of us, with our own environment, 60 seconds.
    pub fn new(config: impl Into<PathBuf>, bin_dir: impl Into<PathBuf>) -> PluginSettings {
        let ours = |name: &OsStr| {
            name.to_str().is_some_and(|name| OWN_VARIABLES.contains(&name) || name.starts_with("WINDLASS_"))
        };
        PluginSettings {
            config: config.into(),
            bin_dir: bin_dir.into(),
            owner: TrustedOwner::RootOrSelf,
            environment: std::env::vars_os().filter(|(name, _)| !ours(name)).collect(),
            timeout: TIMEOUT_DEFAULT,
        }
    }
}

impl std::fmt::Debug for PluginSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold secrets that are not ours.
        let mut shown = f.debug_struct("PluginSettings");
        shown.field("config", &self.config).field("bin_dir", &self.bin_dir).finish_non_exhaustive()
    }
}

/// Why a configuration of providers is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginConfigError {
    /// The file, or one of the directory, cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The directory has no file of a configuration.
    #[error("{path} has no file that ends in .json, .yaml or .yml", path = path.display())]
    NoFiles {
        /// The directory.
        path: PathBuf,
    },
    /// Something in it is wrong; every problem.
    #[error("{path} is not a usable configuration of credential providers: {}", told(problems), path = path.display())]
    Wrong {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<ConfigProblem>,
    },
}

impl PluginConfigError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

fn told(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A configuration that was read and checked.
#[derive(Debug)]
pub(crate) struct LoadedConfig {
    pub(crate) config: ProviderConfig,
    pub(crate) hash: String,
}

/// What tells that a file or directory has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(PathBuf, Option<[i64; 6]>)>);

/// What the configuration looks like from outside.
pub(crate) fn stamp(settings: &PluginSettings) -> Stamp {
    let files = files(&settings.config).unwrap_or_default();
    let paths = std::iter::once(settings.config.clone()).chain(files);
    Stamp(paths.map(|path| (path.clone(), look(&path))).collect())
}

fn look(path: &Path) -> Option<[i64; 6]> {
    let meta = std::fs::metadata(path).ok()?;
    let bits = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
    Some([bits(meta.ino()), bits(meta.size()), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
}

/// Reads and checks everything.
pub(crate) fn load(settings: &PluginSettings) -> Result<LoadedConfig, PluginConfigError> {
    let path = &settings.config;
    let (several, files) = (path.is_dir(), files(path)?);
    let mut contents = Vec::new();
    for file in &files {
        let bytes = read(file).map_err(|source| PluginConfigError::Io { path: file.clone(), source })?;
        let name = file.file_name().filter(|_| several).map(|name| name.to_string_lossy().into_owned());
        contents.push((name.unwrap_or_default(), bytes));
    }
    let contents: Vec<(&str, &[u8])> = contents.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let hash = config_hash(contents.iter().map(|(_, bytes)| *bytes));
    let (config, problems) = match read_provider_files(&contents) {
        Ok(config) => {
            let missing = config.providers.iter().filter_map(|provider| program(settings, &provider.name).err());
            let problems = missing.collect();
            (config, problems)
        }
        Err(problems) => (ProviderConfig::default(), problems),
    };
    if problems.is_empty() {
        Ok(LoadedConfig { config, hash })
    } else {
        Err(PluginConfigError::Wrong { path: path.clone(), problems })
    }
}

/// Reads the files of one configuration, each with its name (empty where there is one only), as JSON or YAML. Programs
/// are not looked for.
///
/// # Errors
/// Every problem of every file.
pub fn read_provider_files(files: &[(&str, &[u8])]) -> Result<ProviderConfig, Vec<ConfigProblem>> {
    let (mut problems, mut documents) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        match document(bytes) {
            Ok(raw) => documents.push(((*name).to_owned(), raw)),
            Err(problem) => problems.push(ConfigProblem::new(*name, problem)),
        }
    }
    match read_config(&documents) {
        Ok(config) if problems.is_empty() => Ok(config),
        // Where no file can be read at all, that there are no providers is no news.
        Ok(_) => Err(problems),
        Err(_) if documents.is_empty() && !problems.is_empty() => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// The files of a configuration, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, PluginConfigError> {
    let failed = |source| PluginConfigError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.path();
        let is_ours = file.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml");
        if is_ours && entry.file_type().map_err(failed)?.is_file() {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(PluginConfigError::NoFiles { path: path.to_owned() });
    }
    if found.len() > FILES_MAX {
        let problem = format!("has more than {FILES_MAX} files");
        let problems = vec![ConfigProblem::new("the directory", problem)];
        return Err(PluginConfigError::Wrong { path: path.to_owned(), problems });
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {CONFIG_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// One JSON or YAML document.
fn document(bytes: &[u8]) -> Result<Raw, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    if text.trim_start().starts_with('{')
        && let Ok(raw) = serde_json::from_str(text)
    {
        return Ok(raw);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
            max_documents: 1,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Raw>(text, options).map_err(|error| {
        let place = error.location().map(|at| format!(" in line {}", at.line())).unwrap_or_default();
        let words = error.to_string();
        let words: String = words.lines().next().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect();
        format!("is not a document of a configuration{place}: {words}")
    })
}

/// Whether the program of a provider may run.
fn program(settings: &PluginSettings, name: &str) -> Result<(), ConfigProblem> {
    let problem = |problem: String| ConfigProblem::new(format!("provider {name}"), problem);
    let path = settings.bin_dir.join(name);
    let found = std::fs::canonicalize(&path)
        .map_err(|_| problem(format!("has no program in {}", settings.bin_dir.display())))?;
    trust::check_program(settings.owner, &settings.bin_dir, &found).map_err(|error| match error {
        HelperError::Untrusted { path, why } => problem(format!("is not run: {}: {why}", path.display())),
        other => problem(other.to_string()),
    })?;
    let executable = std::fs::metadata(&found).is_ok_and(|meta| meta.mode() & 0o111 != 0);
    if executable { Ok(()) } else { Err(problem(format!("has a program that is not executable: {}", path.display()))) }
}
