//! What Google is told before it is asked: flags and variables of the plugin that it stands in for, and the places that a
//! test or a private cloud replaces.
//!
//! Invariants: `cache_variables_are_read_strictly`, `a_metadata_host_is_this_machine_or_a_metadata_address`.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use windlass_core::httpurl::HttpUrl;
use windlass_core::provider::{CacheKeyType, GoDuration};
use windlass_core::reference::Reference;
use windlass_core::registryclass::{RegistryClass, classify};

use super::workload::WorkloadIdentity;
use crate::cloud::{CloudError, endpoint};

/// Hosts beside loopback that are asked by plain http: metadata servers. The last two are those of nodes that keep the
/// machine's own server from their pods.
const METADATA_HOSTS: [&str; 6] = [
    "metadata.google.internal",
    "metadata.goog",
    "169.254.169.254",
    "[fd20:ce::254]",
    "169.254.169.252",
    "169.254.169.253",
];

/// Where tokens of service accounts are exchanged.
const STS: &str = "https://sts.googleapis.com/v1/token";

/// Where logins come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthFlow {
    /// A token of the node's account, or of the pod's.
    #[default]
    Gcr,
    /// A `.dockercfg` in the attribute `google-dockercfg` of the instance.
    DockerCfg,
    /// A `.dockercfg` at the URL in the attribute `google-dockercfg-url`.
    DockerCfgUrl,
}

impl FromStr for AuthFlow {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<AuthFlow, CloudError> {
        match text {
            "gcr" => Ok(AuthFlow::Gcr),
            "dockercfg" => Ok(AuthFlow::DockerCfg),
            "dockercfg-url" => Ok(AuthFlow::DockerCfgUrl),
            _ => Err(settings("--authFlow", "is none of gcr, dockercfg and dockercfg-url")),
        }
    }
}

/// How Google is asked.
#[derive(Clone, Debug)]
pub struct GoogleSettings {
    pub(super) flow: AuthFlow,
    pub(super) workload: Option<WorkloadIdentity>,
    /// Hosts beside Google's own that get its token.
    extra_hosts: Vec<String>,
    /// `None`: wherever Google has it.
    pub(super) metadata: Option<HttpUrl>,
    pub(super) sts: HttpUrl,
    pub(super) cache_type: Option<CacheKeyType>,
    pub(super) cache_duration: Option<Duration>,
}

impl GoogleSettings {
    /// Reads `KUBE_SIDECAR_CACHE_TYPE`, `KUBE_SIDECAR_CACHE_DURATION` and `GCE_METADATA_HOST`.
    ///
    /// # Errors
    /// [`CloudError::Settings`] names the variable that cannot be used.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<GoogleSettings, CloudError> {
        let text = |name: &str| -> Result<Option<String>, CloudError> {
            let value = environment(name).filter(|value| !value.is_empty());
            value.map(|value| value.into_string().map_err(|_| settings(name, "is no text"))).transpose()
        };
        let (type_name, duration_name) = ("KUBE_SIDECAR_CACHE_TYPE", "KUBE_SIDECAR_CACHE_DURATION");
        let mut found = GoogleSettings {
            flow: AuthFlow::Gcr,
            workload: None,
            extra_hosts: Vec::new(),
            metadata: None,
            sts: endpoint::read("the address of Google's STS", STS, &[])?,
            cache_type: text(type_name)?.map(|value| cache_type(type_name, &value)).transpose()?,
            cache_duration: text(duration_name)?.map(|value| cache_duration(duration_name, &value)).transpose()?,
        };
        if let Some(host) = text("GCE_METADATA_HOST")? {
            found = found.metadata_at("GCE_METADATA_HOST", &host)?;
        }
        Ok(found)
    }

    /// Where logins come from.
    pub fn flow(mut self, flow: AuthFlow) -> GoogleSettings {
        self.flow = flow;
        self
    }

    /// The metadata server, as `HOST[:PORT]` or as a URL that stands before `/computeMetadata`. `what` gave it.
    ///
    /// # Errors
    /// [`CloudError::Settings`]: plain http is for loopback and metadata addresses.
    pub fn metadata_at(mut self, what: &str, place: &str) -> Result<GoogleSettings, CloudError> {
        let url = if place.contains("://") { place.to_owned() } else { format!("http://{place}") };
        self.metadata = Some(endpoint::read(what, &url, &METADATA_HOSTS)?);
        Ok(self)
    }

    /// Another token exchange; a URL without a path gets Google's own. `what` gave it.
    ///
    /// # Errors
    /// [`CloudError::Settings`]: plain http is for loopback.
    pub fn sts_at(mut self, what: &str, url: &str) -> Result<GoogleSettings, CloudError> {
        let url = endpoint::read(what, url, &[])?;
        self.sts = if url.path() == "/" { endpoint::under(what, &url, "/v1/token")? } else { url };
        Ok(self)
    }

    /// Lets service accounts that say so act for themselves: the cluster as an identity provider, and its project.
    ///
    /// # Errors
    /// [`CloudError::Settings`] when only one of the two is there.
    pub fn workload_identity(
        mut self,
        provider: Option<&str>,
        project: Option<&str>,
    ) -> Result<GoogleSettings, CloudError> {
        let filled = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        self.workload = match (filled(provider), filled(project)) {
            (Some(provider), Some(project)) => Some(WorkloadIdentity { provider, project }),
            (Some(_), None) => return Err(settings("--project-id", "is missing: --identity-provider needs it")),
            (None, Some(_) | None) => None,
        };
        Ok(self)
    }

    /// Hosts beside Google's own that get Google's token, with their port where they have one. `what` named them.
    ///
    /// # Errors
    /// [`CloudError::Settings`] when one is no host.
    pub fn extra_hosts(
        mut self,
        what: &str,
        hosts: impl IntoIterator<Item = String>,
    ) -> Result<GoogleSettings, CloudError> {
        for host in hosts {
            let is_host = Reference::parse(&format!("{host}/x")).is_ok_and(|image| image.host().as_str() == host);
            if !is_host {
                return Err(settings(what, "is no host, such as registry.example or registry.example:5000"));
            }
            self.extra_hosts.push(host.to_ascii_lowercase());
        }
        Ok(self)
    }

    /// Whether an image lies at Google or at a host that was added.
    pub(super) fn is_google(&self, image: &Reference) -> bool {
        let host = image.host().as_str().to_ascii_lowercase();
        matches!(classify(image), RegistryClass::Gcr { .. }) || self.extra_hosts.contains(&host)
    }
}

fn cache_type(name: &str, text: &str) -> Result<CacheKeyType, CloudError> {
    match text {
        "image" => Ok(CacheKeyType::Image),
        "registry" => Ok(CacheKeyType::Registry),
        "global" => Ok(CacheKeyType::Global),
        _ => Err(settings(name, "is none of image, registry and global")),
    }
}

fn cache_duration(name: &str, text: &str) -> Result<Duration, CloudError> {
    let duration = GoDuration::parse(text).map_err(|error| settings(name, &error.to_string()))?;
    if duration.is_negative() { Err(settings(name, "is negative")) } else { Ok(duration.or_zero()) }
}

fn settings(what: &str, problem: &str) -> CloudError {
    CloudError::Settings { what: what.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> Result<GoogleSettings, CloudError> {
        let value = OsString::from(value);
        GoogleSettings::from_environment(&|asked| (asked == name).then(|| value.clone()))
    }

    #[test]
    fn cache_variables_are_read_strictly() {
        let unset = with("", "").unwrap();
        assert_eq!((unset.cache_type, unset.cache_duration), (None, None));
        assert_eq!(with("KUBE_SIDECAR_CACHE_TYPE", "image").unwrap().cache_type, Some(CacheKeyType::Image));
        let minutes = with("KUBE_SIDECAR_CACHE_DURATION", "5m").unwrap().cache_duration;
        assert_eq!(minutes, Some(Duration::from_secs(300)));
        assert_eq!(with("KUBE_SIDECAR_CACHE_DURATION", "0").unwrap().cache_duration, Some(Duration::ZERO));
        for (name, value) in [
            ("KUBE_SIDECAR_CACHE_TYPE", "Registry"),
            ("KUBE_SIDECAR_CACHE_TYPE", "all"),
            ("KUBE_SIDECAR_CACHE_DURATION", "300"),
            ("KUBE_SIDECAR_CACHE_DURATION", "-5m"),
        ] {
            assert!(with(name, value).unwrap_err().to_string().starts_with(name), "{value}");
        }
    }

    #[test]
    fn a_metadata_host_is_this_machine_or_a_metadata_address() {
        for good in
            ["127.0.0.1:8080", "localhost:1", "169.254.169.254", "metadata.google.internal", "169.254.169.252:988"]
        {
            assert!(with("GCE_METADATA_HOST", good).is_ok(), "{good}");
        }
        for bad in ["evil.example", "10.0.0.1:80", "user@127.0.0.1", "http://evil.example/", "a b"] {
            assert!(with("GCE_METADATA_HOST", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_checked() {
        let base = || with("", "").unwrap();
        assert!(base().workload_identity(Some("https://c"), None).is_err());
        assert!(base().workload_identity(None, Some("p")).unwrap().workload.is_none());
        for bad in ["", "a/b", "UPPER/x", "registry", "a.example:x", "*.example"] {
            assert!(base().extra_hosts("a test", [bad.to_owned()]).is_err(), "{bad}");
        }
        let extra = base().extra_hosts("a test", ["docker.us.goog".to_owned()]).unwrap();
        let image = |text| Reference::parse(text).unwrap();
        assert!(extra.is_google(&image("docker.us.goog/p/i")) && extra.is_google(&image("eu.gcr.io/p/i")));
        assert!(!extra.is_google(&image("docker.us.goog:8443/p/i")) && !extra.is_google(&image("quay.io/p/i")));
        let sts = base().sts_at("--google-sts-endpoint", "http://127.0.0.1:9").unwrap().sts;
        assert_eq!(sts.to_request_uri(), "http://127.0.0.1:9/v1/token");
        assert!("GCR".parse::<AuthFlow>().is_err());
    }
}
