//! `CredentialProviderConfig`: which programs are asked for which images.
//!
//! In: the documents of one file, or of every file of a directory in order. Out: the providers, or every problem at once.
//! Source of truth: kubernetes `pkg/credentialprovider/plugin/config.go`. Ours alone: `timeout` of a provider.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::fields::Fields;
use super::token::is_qualified_name;
use super::{ExecVersion, GoDuration, Raw, TokenAttributes, TokenCacheType};
use crate::digest::Algorithm;
use crate::matchimage::check_pattern;
use crate::secret::Secret;

/// Longest file of a configuration.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Longest run of a program. Kubelet: one minute, fixed.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Shortest `timeout` of a provider.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Longest `timeout` of a provider: two such runs still end before a pull is given up.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(120);

const KIND: &str = "CredentialProviderConfig";
const GROUP: &str = "kubelet.config.k8s.io";

/// Something that is wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigProblem {
    /// The field, with its file where there are several.
    pub place: String,
    /// What is wrong, without any value that may be secret.
    pub problem: String,
}

impl ConfigProblem {
    /// A problem at a place.
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> ConfigProblem {
        ConfigProblem { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => f.write_str(&self.problem),
            place => write!(f, "{} {}", place.trim_end_matches(": "), self.problem),
        }
    }
}

/// Every provider, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderConfig {
    /// At least one.
    pub providers: Vec<ExecProvider>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecProvider {
    /// Its file name in the directory of programs.
    pub name: String,
    /// Patterns of the images that it is asked for; at least one.
    pub match_images: Vec<String>,
    /// How long an answer is kept that does not say so itself; nothing: it is not.
    pub default_cache: Duration,
    /// The version of requests and answers.
    pub api_version: ExecVersion,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables, set over those of our own environment.
    pub env: Vec<(String, Secret<String>)>,
    /// How it acts for service accounts, where it does.
    pub token: Option<TokenAttributes>,
    /// Its own limit of time.
    pub timeout: Option<Duration>,
}

/// What a kubelet shows as the hash of its configuration: `sha256:` and the sum of every file, its length in front.
pub fn config_hash<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Algorithm::Sha256.hasher();
    for bytes in files {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    }
    hasher.finish().to_string()
}

/// Reads the files of a configuration; `files` names each (empty where there is one only).
///
/// # Errors
/// Every problem of every file.
pub fn read_config(files: &[(String, Raw)]) -> Result<ProviderConfig, Vec<ConfigProblem>> {
    let (mut problems, mut config, mut names) = (Vec::new(), ProviderConfig::default(), BTreeSet::new());
    let mut count = 0;
    for (file, raw) in files {
        let root = if file.is_empty() { String::new() } else { format!("{file}: ") };
        count += read_file(&root, raw, &mut names, &mut config.providers, &mut problems);
    }
    if count == 0 && problems.is_empty() {
        problems.push(ConfigProblem::new("providers", "must have at least one entry"));
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Reads one file; returns how many providers it names, right or wrong.
fn read_file(
    root: &str,
    raw: &Raw,
    names: &mut BTreeSet<String>,
    providers: &mut Vec<ExecProvider>,
    problems: &mut Vec<ConfigProblem>,
) -> usize {
    let Some(mut fields) = Fields::of(root, raw, problems) else { return 0 };
    if fields.text("kind", problems) != Some(KIND) {
        problems.push(ConfigProblem::new(fields.place("kind"), format!("must be {KIND}")));
    }
    let version = fields.text("apiVersion", problems).and_then(|text| text.strip_prefix(GROUP)?.strip_prefix('/'));
    let version = version.filter(|version| ["v1alpha1", "v1beta1", "v1"].contains(version));
    if version.is_none() {
        let place = fields.place("apiVersion");
        problems.push(ConfigProblem::new(place, format!("must be {GROUP}/v1, {GROUP}/v1beta1 or {GROUP}/v1alpha1")));
    }
    let tokens = version == Some("v1");
    let entries = fields.list("providers", problems);
    fields.end(problems);
    for (place, entry) in &entries {
        if let Some(provider) = read_provider(place, entry, tokens, problems) {
            if !provider.name.is_empty() && !names.insert(provider.name.clone()) {
                problems.push(ConfigProblem::new(format!("{place}.name"), "stands twice"));
            }
            providers.push(provider);
        }
    }
    entries.len()
}

/// Reads one provider as far as it goes; the result counts only if there is no problem.
fn read_provider(place: &str, raw: &Raw, tokens: bool, problems: &mut Vec<ConfigProblem>) -> Option<ExecProvider> {
    let mut fields = Fields::of(place, raw, problems)?;
    let name = fields.text("name", problems).unwrap_or_default().to_owned();
    let bad_name = name.is_empty() || name == "." || name == ".." || name.contains(['/', ' ', '\0']);
    if bad_name {
        let problem = "must be the name of a program: not empty, not . or .., no slash and no space";
        problems.push(ConfigProblem::new(fields.place("name"), problem));
    }
    let match_images = patterns(&mut fields, problems);
    let default_cache = duration(&mut fields, "defaultCacheDuration", problems);
    if default_cache == Some(Err(Absent)) {
        problems.push(ConfigProblem::new(fields.place("defaultCacheDuration"), "is required, a duration such as 10m"));
    }
    let api_version = fields.text("apiVersion", problems).and_then(ExecVersion::parse);
    if api_version.is_none() {
        let known = ExecVersion::ALL.map(ExecVersion::as_str).join(", ");
        problems.push(ConfigProblem::new(fields.place("apiVersion"), format!("must be one of {known}")));
    }
    let args = fields.texts("args", problems);
    for (place, _) in args.iter().filter(|(_, text)| text.contains('\0')) {
        problems.push(ConfigProblem::new(place, "must not hold a zero byte"));
    }
    let env = environment(&mut fields, problems);
    let timeout = timeout(&mut fields, problems);
    let token = match fields.take("tokenAttributes") {
        None => None,
        Some(raw) if tokens => token(&fields.place("tokenAttributes"), raw, api_version, problems),
        Some(_) => {
            let place = fields.place("tokenAttributes");
            problems.push(ConfigProblem::new(place, format!("is a field of {GROUP}/v1 only")));
            None
        }
    };
    fields.end(problems);
    Some(ExecProvider {
        name: if bad_name { String::new() } else { name },
        match_images,
        default_cache: default_cache.and_then(Result::ok).unwrap_or_default(),
        api_version: api_version.unwrap_or(ExecVersion::V1),
        args: args.into_iter().map(|(_, text)| text.to_owned()).collect(),
        env,
        token,
        timeout,
    })
}

fn patterns(fields: &mut Fields<'_>, problems: &mut Vec<ConfigProblem>) -> Vec<String> {
    let before = problems.len();
    let patterns = fields.texts("matchImages", problems);
    if patterns.is_empty() && problems.len() == before {
        problems.push(ConfigProblem::new(fields.place("matchImages"), "must have at least one entry"));
    }
    for (place, pattern) in &patterns {
        if let Err(error) = check_pattern(pattern) {
            problems.push(ConfigProblem::new(place, format!("is not the pattern of a registry: {error}")));
        }
    }
    patterns.into_iter().map(|(_, pattern)| pattern.to_owned()).collect()
}

/// A duration is not there.
#[derive(Debug, PartialEq)]
struct Absent;

/// A duration that is not negative; `None` where a problem was told.
fn duration(
    fields: &mut Fields<'_>,
    name: &str,
    problems: &mut Vec<ConfigProblem>,
) -> Option<Result<Duration, Absent>> {
    let before = problems.len();
    let place = fields.place(name);
    let Some(text) = fields.text(name, problems) else {
        return (problems.len() == before).then_some(Err(Absent));
    };
    match GoDuration::parse(text) {
        Ok(duration) if duration.is_negative() => problems.push(ConfigProblem::new(place, "must not be negative")),
        Ok(duration) => return Some(Ok(duration.or_zero())),
        Err(error) => problems.push(ConfigProblem::new(place, error.to_string())),
    }
    None
}

fn timeout(fields: &mut Fields<'_>, problems: &mut Vec<ConfigProblem>) -> Option<Duration> {
    let timeout = duration(fields, "timeout", problems)?.ok()?;
    if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
        let (least, most) = (TIMEOUT_MIN.as_secs(), TIMEOUT_MAX.as_secs());
        problems.push(ConfigProblem::new(fields.place("timeout"), format!("must be from {least}s to {most}s")));
    }
    Some(timeout)
}

fn environment(fields: &mut Fields<'_>, problems: &mut Vec<ConfigProblem>) -> Vec<(String, Secret<String>)> {
    let mut variables = Vec::new();
    for (place, entry) in fields.list("env", problems) {
        let Some(mut entry) = Fields::of(&place, entry, problems) else { continue };
        let name = entry.text("name", problems).unwrap_or_default();
        let value = entry.text("value", problems).unwrap_or_default();
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.push(ConfigProblem::new(entry.place("name"), "must be the name of a variable"));
        }
        if value.contains('\0') {
            problems.push(ConfigProblem::new(entry.place("value"), "must not hold a zero byte"));
        }
        entry.end(problems);
        variables.push((name.to_owned(), Secret::new(value.to_owned())));
    }
    variables
}

fn token(
    place: &str,
    raw: &Raw,
    version: Option<ExecVersion>,
    problems: &mut Vec<ConfigProblem>,
) -> Option<TokenAttributes> {
    let mut fields = Fields::of(place, raw, problems)?;
    if version.is_some_and(|version| version != ExecVersion::V1) {
        let problem = format!("needs apiVersion {} of the provider", ExecVersion::V1.as_str());
        problems.push(ConfigProblem::new(place, problem));
    }
    let audience = fields.text("serviceAccountTokenAudience", problems).unwrap_or_default();
    if audience.is_empty() {
        problems.push(ConfigProblem::new(fields.place("serviceAccountTokenAudience"), "is required"));
    }
    let cache_type = match fields.text("cacheType", problems) {
        Some("Token") => TokenCacheType::Token,
        Some("ServiceAccount") => TokenCacheType::ServiceAccount,
        Some(_) | None => {
            problems.push(ConfigProblem::new(fields.place("cacheType"), "must be Token or ServiceAccount"));
            TokenCacheType::Token
        }
    };
    let require = match fields.take("requireServiceAccount") {
        Some(Raw::Bool(require)) => Some(*require),
        Some(_) | None => {
            problems.push(ConfigProblem::new(fields.place("requireServiceAccount"), "must be true or false"));
            None
        }
    };
    let required = annotations(&mut fields, "requiredServiceAccountAnnotationKeys", problems);
    let optional = annotations(&mut fields, "optionalServiceAccountAnnotationKeys", problems);
    if require == Some(false) && !required.is_empty() {
        let problem = "must be true where annotations are required";
        problems.push(ConfigProblem::new(fields.place("requireServiceAccount"), problem));
    }
    for key in optional.iter().filter(|key| required.contains(key)) {
        let place = fields.place("optionalServiceAccountAnnotationKeys");
        problems.push(ConfigProblem::new(place, format!("repeats {key:?}, which is required")));
    }
    fields.end(problems);
    Some(TokenAttributes {
        audience: audience.to_owned(),
        cache_type,
        require_service_account: require.unwrap_or(true),
        required_annotations: required,
        optional_annotations: optional,
    })
}

fn annotations(fields: &mut Fields<'_>, name: &str, problems: &mut Vec<ConfigProblem>) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (place, key) in fields.texts(name, problems) {
        if !is_qualified_name(key) {
            problems.push(ConfigProblem::new(&place, "is not the name of an annotation"));
        }
        if keys.iter().any(|known| known == key) {
            problems.push(ConfigProblem::new(&place, "stands twice"));
        }
        keys.push(key.to_owned());
    }
    keys
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
