//! What Azure is told before it is asked: the node's file, the plugin's flags, and variables as Azure's libraries have them.
//!
//! Invariants: `flags_of_bindings_come_together`, `an_endpoint_of_a_registry_is_for_that_registry`.

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use windlass_core::httpurl::{HttpUrl, WebOrigin};
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;

use super::entra::is_name;
use super::file::{self, NodeFile};
use super::target::{Mirror, suffix};
use crate::cloud::{CloudError, endpoint, files};

/// Where a machine of Azure's asks who it is.
const IMDS: &str = "http://169.254.169.254";
/// The only place beside loopback that is asked by plain http.
const METADATA: [&str; 1] = ["169.254.169.254"];

/// How Azure is asked.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    pub(super) has_file: bool,
    pub(super) file: NodeFile,
    pub(super) variables: Variables,
    /// The tenant that the file or a variable names.
    pub(super) tenant: Option<String>,
    /// What registries of a cloud of the operator's own are called.
    pub(super) suffix: Option<String>,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) bindings: Option<Bindings>,
    pub(super) imds: HttpUrl,
    /// The login service that an operator named.
    pub(super) login: Option<HttpUrl>,
    /// Login servers that are found elsewhere.
    registries: Vec<(String, HttpUrl)>,
}

/// What variables say.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pub(super) tenant: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret<String>>,
    pub(super) federated_file: Option<PathBuf>,
}

/// Identity bindings: the API server passes a service account's token on to Azure under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bindings {
    /// The name that is asked for.
    pub(super) sni: String,
    /// Where it is found: an address or a name.
    pub(super) server: String,
    pub(super) port: u16,
    /// Whom it is trusted to: the cluster's certificate authority.
    pub(super) ca_file: PathBuf,
    pub(super) client_id: Option<String>,
    pub(super) tenant: Option<String>,
}

/// Where nodes have the cluster's certificate authority.
const CLUSTER_CA: &str = "/etc/kubernetes/certs/ca.crt";

/// The part of a cloud's description that counts here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    #[serde(default, rename = "containerRegistryDNSSuffix")]
    registry_suffix: Option<String>,
    #[serde(default)]
    active_directory_endpoint: Option<String>,
}

impl AzureSettings {
    /// Reads `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`, `AZURE_FEDERATED_TOKEN_FILE`,
    /// `AZURE_AUTHORITY_HOST`, and the file that `AZURE_ENVIRONMENT_FILEPATH` names. Blocks for that file.
    ///
    /// # Errors
    /// [`CloudError::Settings`] names the variable that cannot be used.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<AzureSettings, CloudError> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let text = |name: &str| -> Result<Option<String>, CloudError> {
            set(name).map(|value| value.into_string().map_err(|_| settings(name, "is no text"))).transpose()
        };
        let name = |variable: &str| -> Result<Option<String>, CloudError> {
            let value = text(variable)?.map(|value| value.trim().to_owned());
            let wrong = || settings(variable, "is no ID: letters, digits, hyphens and dots");
            value.map(|value| if is_name(&value) { Ok(value) } else { Err(wrong()) }).transpose()
        };
        let variables = Variables {
            tenant: name("AZURE_TENANT_ID")?,
            client_id: name("AZURE_CLIENT_ID")?,
            client_secret: text("AZURE_CLIENT_SECRET")?.map(Secret::new),
            federated_file: set("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
        };
        let mut found = AzureSettings {
            has_file: false,
            file: NodeFile::default(),
            tenant: variables.tenant.clone(),
            variables,
            suffix: None,
            mirrors: Vec::new(),
            bindings: None,
            imds: endpoint::read("the address of the metadata server", IMDS, &METADATA)?,
            login: None,
            registries: Vec::new(),
        };
        if let Some(path) = set("AZURE_ENVIRONMENT_FILEPATH") {
            found.describe("AZURE_ENVIRONMENT_FILEPATH", Path::new(&path))?;
        }
        match text("AZURE_AUTHORITY_HOST")? {
            // The SDKs take a bare host as well.
            Some(host) if !host.contains("://") => found.login_at("AZURE_AUTHORITY_HOST", &format!("https://{host}")),
            Some(url) => found.login_at("AZURE_AUTHORITY_HOST", &url),
            None => Ok(found),
        }
    }

    /// Whether a variable says that there is an identity for Azure here. Metadata servers are not asked.
    pub fn names_identity(&self) -> bool {
        let set = &self.variables;
        set.client_id.is_some() && (set.client_secret.is_some() || set.federated_file.is_some())
    }

    /// Reads the node's `azure.json`, which `what` names. Blocks.
    ///
    /// # Errors
    /// [`CloudError::Settings`] names the file, and no value of it.
    pub fn node_file(mut self, what: &str, path: &Path) -> Result<AzureSettings, CloudError> {
        self.file = file::read(what, path)?;
        let wrong = || files::unusable(what, path, "tenantId is no ID");
        self.tenant = match &self.file.tenant {
            Some(tenant) if !is_name(tenant) => return Err(wrong()),
            Some(tenant) => Some(tenant.clone()),
            None => self.tenant,
        };
        self.has_file = true;
        Ok(self)
    }

    /// `--registry-mirror`: images of one registry that are found in another, `SOURCE:TARGET` separated by commas.
    ///
    /// # Errors
    /// [`CloudError::Settings`] when it is written otherwise.
    pub fn mirrors(mut self, text: &str) -> Result<AzureSettings, CloudError> {
        self.mirrors.extend(Mirror::parse(text)?);
        Ok(self)
    }

    /// `--ib-sni-name` and its companions.
    ///
    /// # Errors
    /// [`CloudError::Settings`] when they do not fit together.
    pub fn identity_bindings(
        mut self,
        sni: Option<&str>,
        server: Option<&str>,
        client_id: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<AzureSettings, CloudError> {
        let filled = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let (sni, server) = (filled(sni), filled(server));
        let ids = [("--ib-default-client-id", filled(client_id)), ("--ib-default-tenant-id", filled(tenant))];
        for (flag, value) in &ids {
            if value.as_deref().is_some_and(|value| !is_name(value)) {
                return Err(settings(flag, "is no ID: letters, digits, hyphens and dots"));
            }
        }
        let [(_, client_id), (_, tenant)] = ids;
        let (sni, server) = match (sni, server) {
            (Some(sni), Some(server)) => (sni, server),
            (Some(_), None) => return Err(settings("--ib-apiserver-ip", "is missing: --ib-sni-name needs it")),
            (None, None) if client_id.is_none() && tenant.is_none() => return Ok(self),
            (None, Some(_) | None) => return Err(settings("--ib-sni-name", "is missing: the other flags need it")),
        };
        if origin(&sni).is_none() || sni.contains(':') {
            return Err(settings("--ib-sni-name", "must be a host name, without a scheme"));
        }
        // An IPv6 address may come without brackets, but then without a port.
        let bracketed = server.parse::<Ipv6Addr>().map_or(server, |address| format!("[{address}]"));
        let wrong = || settings("--ib-apiserver-ip", "must be an address or a host name, perhaps with a port");
        let origin = origin(&bracketed).ok_or_else(wrong)?;
        let server = origin.name.trim_matches(['[', ']']).to_owned();
        self.bindings =
            Some(Bindings { sni, server, port: origin.port, ca_file: CLUSTER_CA.into(), client_id, tenant });
        Ok(self)
    }

    /// The cluster's certificate authority, for identity bindings.
    pub fn cluster_ca(mut self, file: PathBuf) -> AzureSettings {
        if let Some(bindings) = &mut self.bindings {
            bindings.ca_file = file;
        }
        self
    }

    /// Another metadata server: a URL that stands before `/metadata`. `what` gave it.
    ///
    /// # Errors
    /// [`CloudError::Settings`]: plain http is for loopback and the metadata address.
    pub fn imds_at(mut self, what: &str, url: &str) -> Result<AzureSettings, CloudError> {
        self.imds = endpoint::read(what, url, &METADATA)?;
        Ok(self)
    }

    /// Another login service, for every cloud. `what` gave it.
    ///
    /// # Errors
    /// [`CloudError::Settings`]: plain http is for loopback.
    pub fn login_at(mut self, what: &str, url: &str) -> Result<AzureSettings, CloudError> {
        self.login = Some(endpoint::read(what, url, &[])?);
        Ok(self)
    }

    /// Where a login server is found, as `HOST=URL`. `what` gave it.
    ///
    /// # Errors
    /// [`CloudError::Settings`]: plain http is for loopback.
    pub fn registry_at(mut self, what: &str, rule: &str) -> Result<AzureSettings, CloudError> {
        let (host, url) = rule.split_once('=').ok_or_else(|| settings(what, "must be HOST=URL"))?;
        let is_host = Reference::parse(&format!("{host}/x")).is_ok_and(|image| image.host().as_str() == host);
        if !is_host {
            return Err(settings(what, "must be HOST=URL"));
        }
        self.registries.push((host.to_ascii_lowercase(), endpoint::read(what, url, &[])?));
        Ok(self)
    }

    /// Whether images of this registry are answered at all; `None`: only the operator's own cloud can tell. Asks nobody.
    pub fn serves(&self, image: &Reference) -> Option<bool> {
        match (self.target(image, None), &self.file.resource_manager) {
            (Some(_), _) => Some(true),
            (None, None) => Some(false),
            (None, Some(_)) => None,
        }
    }

    /// Where a login server is asked.
    pub(super) fn place_of(&self, host: &str) -> Result<HttpUrl, CloudError> {
        match self.registries.iter().find(|(known, _)| known == host) {
            Some((_, url)) => Ok(url.clone()),
            None => endpoint::read("the login server", &format!("https://{host}"), &[]),
        }
    }

    /// Takes over what a file says about a cloud of the operator's own.
    fn describe(&mut self, what: &str, path: &Path) -> Result<(), CloudError> {
        let text = files::read_now(path).map_err(|error| files::unusable(what, path, &error.to_string()))?;
        let described: Described =
            serde_json::from_str(text.expose()).map_err(|_| files::unusable(what, path, "it is no JSON"))?;
        if let Some(written) = described.registry_suffix.filter(|text| !text.is_empty()) {
            let bad = || files::unusable(what, path, "containerRegistryDNSSuffix is no suffix of hosts");
            self.suffix = Some(suffix(&written).ok_or_else(bad)?);
        }
        if let Some(url) = described.active_directory_endpoint.filter(|text| !text.is_empty()) {
            self.login = Some(endpoint::read("activeDirectoryEndpoint", &url, &[])?);
        }
        Ok(())
    }
}

/// Host and port of a text that is nothing else.
fn origin(text: &str) -> Option<WebOrigin> {
    let url = HttpUrl::parse(&format!("https://{text}")).ok()?;
    (!text.contains(['/', '?'])).then(|| url.origin().clone())
}

fn settings(what: &str, problem: &str) -> CloudError {
    CloudError::Settings { what: what.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> AzureSettings {
        AzureSettings::from_environment(&|_| None).unwrap()
    }

    #[test]
    fn flags_of_bindings_come_together() {
        let (sni, ip, id) = (Some("sni.example"), Some("10.0.0.1"), Some("c-1"));
        let table = [
            (None, None, None, None, true),
            (sni, ip, None, None, true),
            (sni, Some("api.example"), id, id, true),
            (sni, Some("fd00::1"), None, None, true),
            (sni, Some("[fd00::1]:6443"), None, None, true),
            (sni, Some("api.example:6443"), None, None, true),
            (sni, None, None, None, false),
            (None, ip, None, None, false),
            (None, None, id, None, false),
            (None, None, None, id, false),
            (Some("https://sni.example"), ip, None, None, false),
            (Some("sni.example/x"), ip, None, None, false),
            (sni, Some("10.0.0.1/x"), None, None, false),
            (sni, Some("https://10.0.0.1"), None, None, false),
            (Some("sni.example:1"), ip, None, None, false),
            (sni, ip, Some("a/b"), None, false),
        ];
        for (sni, ip, client, tenant, want) in table {
            let got = base().identity_bindings(sni, ip, client, tenant);
            assert_eq!(got.is_ok(), want, "{sni:?} {ip:?} {client:?} {tenant:?}");
        }
    }

    #[test]
    fn an_endpoint_of_a_registry_is_for_that_registry() {
        let settings = base().registry_at("--acr-endpoint", "Contoso.azurecr.io=http://127.0.0.1:9").unwrap();
        let place = |host: &str| settings.place_of(host).unwrap().to_request_uri();
        assert_eq!(place("contoso.azurecr.io"), "http://127.0.0.1:9/");
        assert_eq!(place("other.azurecr.io"), "https://other.azurecr.io/");
        for wrong in ["contoso.azurecr.io", "=http://127.0.0.1:9", "a.b=http://a.b", "a.b/c=http://127.0.0.1"] {
            assert!(base().registry_at("--acr-endpoint", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_name_places() {
        let with = |name: &'static str, value: &'static str| {
            AzureSettings::from_environment(&|asked| (asked == name).then(|| value.into()))
        };
        let login = |value| with("AZURE_AUTHORITY_HOST", value).map(|s| s.login.map(|url| url.to_request_uri()));
        assert_eq!(login("https://login.x.example/").unwrap().as_deref(), Some("https://login.x.example/"));
        assert_eq!(login("login.x.example").unwrap().as_deref(), Some("https://login.x.example/"));
        assert_eq!(login("http://127.0.0.1:1").unwrap().as_deref(), Some("http://127.0.0.1:1/"));
        login("http://login.x.example").unwrap_err();
        with("AZURE_TENANT_ID", "a/b").unwrap_err();
        assert!(!with("AZURE_CLIENT_ID", "x").unwrap().names_identity());
    }

    #[test]
    fn a_description_of_a_cloud_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloud.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let value = path.clone().into_os_string();
            AzureSettings::from_environment(&|name| (name == "AZURE_ENVIRONMENT_FILEPATH").then(|| value.clone()))
        };
        let text = r#"{"name":"x","containerRegistryDNSSuffix":".azurecr.x.example","activeDirectoryEndpoint":"https://login.x.example/"}"#;
        let found = read(text).unwrap();
        assert_eq!(found.suffix.as_deref(), Some("azurecr.x.example"));
        assert!(found.login.is_some());
        for wrong in
            ["", "{", r#"{"containerRegistryDNSSuffix":"io"}"#, r#"{"activeDirectoryEndpoint":"http://x.example"}"#]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
