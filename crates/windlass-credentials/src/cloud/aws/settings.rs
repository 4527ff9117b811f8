//! What an operator says about Amazon: variables, and flags that win over them.
//!
//! Invariants: `variables_are_read_once_and_never_shown`, `an_empty_variable_is_none`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use windlass_core::secret::Secret;

/// The variables that are read.
const VARIABLES: [&str; 29] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ECR_ROLE_ARN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ECR",
    "AWS_ENDPOINT_URL_ECR_PUBLIC",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HOME",
];

/// Those of which any one says that there is an identity for Amazon.
const IDENTITIES: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ECR_ROLE_ARN",
];

/// Longest time for one login: the kubelet waits 60 s for a provider, which needs some for itself.
const LIMIT: Duration = Duration::from_secs(45);

/// Whether the programs that `credential_process` names are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialProcess {
    /// A profile that names one is an error.
    #[default]
    Refused,
    /// They are run with the rights of this process.
    Allowed,
}

/// What happens when a service account brings a token, but no role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeFallback {
    /// An error: the pod asked for an identity of its own.
    #[default]
    Refused,
    /// The identity of the machine is used (`--allow-node-fallback`).
    Allowed,
}

/// What an operator says about Amazon. The fields are the flags; the variables come by
/// [`AwsSettings::from_environment`].
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// `--ecr-endpoint`: where every login is asked for, private and public.
    pub ecr_endpoint: Option<String>,
    /// `--sts-endpoint`: where roles are assumed.
    pub sts_endpoint: Option<String>,
    /// `--imds-endpoint`: the instance metadata service.
    pub imds_endpoint: Option<String>,
    /// `--allow-node-fallback`.
    pub node_fallback: NodeFallback,
    /// Whether programs may bring keys.
    pub credential_process: CredentialProcess,
    /// Longest time for one login, identity included.
    pub limit: Duration,
    variables: BTreeMap<&'static str, Secret<String>>,
}

/// A variable and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: &'static str,
    value: &'a Secret<String>,
}

impl<'a> Variable<'a> {
    /// The value; it may be secret.
    pub(super) fn value(&self) -> &'a str {
        self.value.expose()
    }
}

impl AwsSettings {
    /// Reads the variables that AWS documents for its tools, once. Empty ones count as unset.
    pub fn from_environment(env: &dyn Fn(&str) -> Option<OsString>) -> AwsSettings {
        let set = |name: &'static str| {
            let value = env(name)?.to_string_lossy().into_owned();
            (!value.is_empty()).then(|| (name, Secret::new(value)))
        };
        AwsSettings {
            ecr_endpoint: None,
            sts_endpoint: None,
            imds_endpoint: None,
            node_fallback: NodeFallback::default(),
            credential_process: CredentialProcess::default(),
            limit: LIMIT,
            variables: VARIABLES.into_iter().filter_map(set).collect(),
        }
    }

    /// `AWS_CA_BUNDLE`: certificates that the transport has to trust as well.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.variable("AWS_CA_BUNDLE").map(|v| PathBuf::from(v.value()))
    }

    /// Whether a variable says that there is an identity for Amazon here. Metadata servers are not asked.
    pub fn names_identity(&self) -> bool {
        IDENTITIES.iter().any(|name| self.variable(name).is_some())
    }

    /// A variable that is set and not empty. All names in use are in [`VARIABLES`].
    pub(super) fn variable(&self, name: &'static str) -> Option<Variable<'_>> {
        debug_assert!(VARIABLES.contains(&name), "{name} is not read");
        self.variables.get(name).map(|value| Variable { name, value })
    }

    /// Whether a variable says yes, as the SDKs read it.
    pub(super) fn says_yes(&self, name: &'static str) -> bool {
        self.variable(name).is_some_and(|v| v.value().eq_ignore_ascii_case("true"))
    }

    /// The endpoint of a service: the flag, then the service's variable, then the general one; with what named it.
    pub(super) fn endpoint(&self, flag: Flag, variable: &'static str) -> Option<(&'static str, &str)> {
        let (name, value) = match flag {
            Flag::Ecr => ("--ecr-endpoint", &self.ecr_endpoint),
            Flag::Sts => ("--sts-endpoint", &self.sts_endpoint),
        };
        let given = value.as_deref().map(|value| (name, value));
        let variables = || {
            let found = self.variable(variable).or_else(|| self.variable("AWS_ENDPOINT_URL"))?;
            let ignored = self.says_yes("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
            (!ignored).then(|| (found.name, found.value()))
        };
        given.or_else(variables)
    }
}

/// Flags that name endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    Ecr,
    Sts,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &'static [(&'static str, &'static str)]) -> AwsSettings {
        AwsSettings::from_environment(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn variables_are_read_once_and_never_shown() {
        let settings = settings(&[("AWS_SECRET_ACCESS_KEY", "canary"), ("AWS_CA_BUNDLE", "/ca.pem"), ("PATH", "x")]);
        assert!(!format!("{settings:?}").contains("canary"));
        assert_eq!(settings.ca_file(), Some(PathBuf::from("/ca.pem")));
        assert!(!settings.names_identity());
    }

    #[test]
    fn an_empty_variable_is_none() {
        assert!(!settings(&[("AWS_PROFILE", "")]).names_identity());
        assert!(settings(&[("AWS_PROFILE", "p")]).names_identity());
    }

    #[test]
    fn an_endpoint_comes_from_the_flag_then_its_variable_then_the_general_one() {
        let all: &[_] = &[("AWS_ENDPOINT_URL", "general"), ("AWS_ENDPOINT_URL_STS", "sts")];
        let mut settings = settings(all);
        assert_eq!(settings.endpoint(Flag::Sts, "AWS_ENDPOINT_URL_STS"), Some(("AWS_ENDPOINT_URL_STS", "sts")));
        assert_eq!(settings.endpoint(Flag::Ecr, "AWS_ENDPOINT_URL_ECR"), Some(("AWS_ENDPOINT_URL", "general")));
        settings.sts_endpoint = Some("flag".to_owned());
        assert_eq!(settings.endpoint(Flag::Sts, "AWS_ENDPOINT_URL_STS"), Some(("--sts-endpoint", "flag")));
    }
}
