//! Azure's clouds: where each has its login service, and what its registries are called.
//!
//! Invariants: `every_cloud_has_its_login_host`, `a_cloud_of_ones_own_is_asked_for_its_names`.

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use windlass_core::httpurl::{HttpUrl, UrlScheme};
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebRequest, WebRoute};

use super::target::suffix;
use crate::cloud::asking::{ANSWER_BYTES, REQUEST_LIMIT, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries};
use crate::cloud::{CloudError, endpoint, json};

const PUBLIC: &str = "https://login.microsoftonline.com";
/// Names as `azure.json` has them, in lower case; what is not among them is the public cloud.
const LOGIN_PLACES: [(&str, &str); 5] = [
    ("azurecloud", PUBLIC),
    ("azurepubliccloud", PUBLIC),
    ("azurechinacloud", "https://login.chinacloudapi.cn"),
    ("azureusgovernment", "https://login.microsoftonline.us"),
    ("azureusgovernmentcloud", "https://login.microsoftonline.us"),
];
const ENDPOINTS: &str = "/metadata/endpoints?api-version=2019-05-01";

/// Where a cloud has its login service.
pub(super) fn login_place(cloud: Option<&str>) -> HttpUrl {
    let name = cloud.unwrap_or_default().to_ascii_lowercase();
    let place = LOGIN_PLACES.iter().find(|(known, _)| *known == name).map_or(PUBLIC, |(_, place)| place);
    HttpUrl::parse(place).expect("every place of the table is a URL")
}

/// A cloud of somebody's own, as its resource manager describes it.
#[derive(Clone, Debug)]
pub(super) struct Cloud {
    pub(super) login: Option<HttpUrl>,
    pub(super) registry_suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    authentication: Option<Authentication>,
    #[serde(default)]
    suffixes: Option<Suffixes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    #[serde(default)]
    login_endpoint: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Suffixes {
    #[serde(default)]
    acr_login_server: Option<String>,
}

impl Cloud {
    /// Asks the resource manager. Without a name the first cloud it describes counts.
    pub(super) async fn ask(
        web: &Web,
        manager: &HttpUrl,
        name: Option<&str>,
        deadline: Deadline,
    ) -> Result<Cloud, CloudError> {
        let service = Service {
            web,
            name: format!("the resource manager at {}", manager.authority()),
            retries: Retries::USUAL,
            deadline,
            hint: "resourceManagerEndpoint of azure.json names it".to_owned(),
        };
        let request = WebRequest {
            method: Method::GET,
            url: endpoint::under("resourceManagerEndpoint", manager, ENDPOINTS)?,
            headers: HeaderMap::new(),
            body: Secret::new(Vec::new()),
            route: WebRoute::Usual,
            limit: REQUEST_LIMIT,
            bytes_max: ANSWER_BYTES,
        };
        let answer = service.ask_usual(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(&service.name, &answer, &[], |_| String::new()));
        }
        let found: Vec<Described> = json::read(&service.name, answer.body.expose())?;
        let is_meant = |cloud: &Described| match (name, &cloud.name) {
            (None, _) => true,
            (Some(wanted), Some(name)) => name.eq_ignore_ascii_case(wanted),
            (Some(_), None) => false,
        };
        let cloud = json::need(&service.name, "cloud of that name", found.into_iter().find(is_meant))?;
        let login = cloud.authentication.and_then(|a| a.login_endpoint).filter(|url| !url.is_empty());
        let login = login.map(|url| place(&service.name, &url)).transpose()?;
        let written = cloud.suffixes.and_then(|s| s.acr_login_server).filter(|suffix| !suffix.is_empty());
        let bad = || json::malformed(&service.name, "has a suffix of registries that is none");
        let registry_suffix = written.map(|text| suffix(&text).ok_or_else(bad)).transpose()?;
        Ok(Cloud { login, registry_suffix })
    }
}

/// A login service that somebody else named.
fn place(service: &str, text: &str) -> Result<HttpUrl, CloudError> {
    let url = HttpUrl::parse(text).ok();
    let is_good = |url: &HttpUrl| url.origin().scheme == UrlScheme::Https || url.origin().host().is_loopback();
    url.filter(is_good).ok_or_else(|| json::malformed(service, "names a login service that is no https URL"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::cloud::script::{Reply, Script, web};

    #[test]
    fn every_cloud_has_its_login_host() {
        let table = [
            (None, "login.microsoftonline.com"),
            (Some("AZURECLOUD"), "login.microsoftonline.com"),
            (Some("AzureChinaCloud"), "login.chinacloudapi.cn"),
            (Some("azureusgovernment"), "login.microsoftonline.us"),
            (Some("AzureUSGovernmentCloud"), "login.microsoftonline.us"),
            (Some("AzureGermanCloud"), "login.microsoftonline.com"),
            (Some("somewhere"), "login.microsoftonline.com"),
        ];
        for (cloud, want) in table {
            assert_eq!(login_place(cloud).authority().as_str(), want, "{cloud:?}");
        }
    }

    #[tokio::test]
    async fn a_cloud_of_ones_own_is_asked_for_its_names() {
        let body = r#"[{"name":"AzureCloud","suffixes":{"acrLoginServer":"azurecr.io"}},
            {"name":"Stack","authentication":{"loginEndpoint":"https://adfs.stack.example/adfs","audiences":[]},
             "suffixes":{"acrLoginServer":".azurecr.stack.example","storage":null}},
            {"name":"Odd","suffixes":{"acrLoginServer":"io"}},
            {"name":"Plain","authentication":{"loginEndpoint":"http://login.example/"}}]"#;
        let script = Script::start(move |_, seen| {
            assert_eq!(seen.target, "/base/metadata/endpoints?api-version=2019-05-01");
            Reply::new(200, body)
        })
        .await;
        let manager = HttpUrl::parse(&format!("{}/base/", script.url())).unwrap();
        let (web, deadline) = (web(), Deadline::after(Duration::from_secs(5), Instant::now()));
        let stack = Cloud::ask(&web, &manager, Some("stack"), deadline).await.unwrap();
        assert_eq!(stack.registry_suffix.as_deref(), Some("azurecr.stack.example"));
        assert_eq!(stack.login.map(|url| url.to_request_uri()).as_deref(), Some("https://adfs.stack.example/adfs"));
        let first = Cloud::ask(&web, &manager, None, deadline).await.unwrap();
        assert_eq!((first.registry_suffix.as_deref(), first.login.is_none()), (Some("azurecr.io"), true));
        for name in ["Odd", "Plain", "unknown"] {
            Cloud::ask(&web, &manager, Some(name), deadline).await.unwrap_err();
        }
    }
}
