//! Logins in a document in the layout of `.dockercfg`, which the instance's metadata hold or point to.
//!
//! Invariant: `a_document_comes_by_https_from_a_public_place`.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use windlass_core::dockerconfig::{Layout, MAX_DOCUMENT_BYTES, decode};
use windlass_core::httpurl::{HttpUrl, UrlScheme};
use windlass_core::keyring::{Credential, Mode, normalise_key};
use windlass_core::matchimage::matches;
use windlass_core::realm::{AddressClass, host_class};
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebRequest, WebRoute};

use super::metadata::Metadata;
use crate::cloud::asking::{REQUEST_LIMIT, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries};
use crate::cloud::{CloudError, json};

const DOCUMENT: &str = "google-dockercfg";
const DOCUMENT_URL: &str = "google-dockercfg-url";
/// All tries to fetch a document from its URL.
const FETCH_LIMIT: Duration = Duration::from_secs(30);

/// The logins of the attribute `google-dockercfg`.
pub(super) async fn of_metadata(metadata: &Metadata<'_>) -> Result<Vec<(String, Credential)>, CloudError> {
    let text = metadata.attribute(DOCUMENT).await?.ok_or_else(|| missing(DOCUMENT, metadata))?;
    logins(metadata.name(), text.expose())
}

/// The logins at the URL in the attribute `google-dockercfg-url`.
pub(super) async fn of_url(metadata: &Metadata<'_>, web: &Web) -> Result<Vec<(String, Credential)>, CloudError> {
    let text = metadata.attribute(DOCUMENT_URL).await?.ok_or_else(|| missing(DOCUMENT_URL, metadata))?;
    let url = place(&String::from_utf8_lossy(text.expose()))?;
    let service = Service {
        web,
        name: format!("{}, which {DOCUMENT_URL} names,", url.authority()),
        retries: Retries::USUAL,
        deadline: Deadline::after(FETCH_LIMIT, Instant::now()),
        hint: String::new(),
    };
    let request = WebRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: Secret::new(Vec::new()),
        route: WebRoute::Named,
        limit: REQUEST_LIMIT,
        bytes_max: MAX_DOCUMENT_BYTES,
    };
    let answer = service.ask_usual(&request).await?;
    if answer.status != StatusCode::OK {
        return Err(refusal(&service.name, &answer, &[], |_| String::new()));
    }
    logins(&service.name, answer.body.expose())
}

/// The logins whose key has the image's host; paths stay, so that the keys still say what they are for.
pub(super) fn for_host(logins: Vec<(String, Credential)>, image: &Reference) -> Vec<(String, Credential)> {
    let host = image.host().as_str();
    let is_for = |key: &str| {
        let key = normalise_key(key)?;
        let pattern = key.split('/').next()?;
        matches(pattern, host).ok()
    };
    logins.into_iter().filter(|(key, _)| is_for(key) == Some(true)).collect()
}

/// The URL in an attribute that everyone with rights on the instance can set.
fn place(text: &str) -> Result<HttpUrl, CloudError> {
    let refuse = |problem: &str| CloudError::Settings { what: DOCUMENT_URL.to_owned(), problem: problem.to_owned() };
    let url = HttpUrl::parse(text.trim()).map_err(|error| refuse(&format!("cannot be used: {error}")))?;
    let origin = url.origin();
    match (origin.scheme, host_class(&origin.name)) {
        (UrlScheme::Http, _) => Err(refuse("must be an https URL, since logins stand there")),
        (UrlScheme::Https, AddressClass::Forbidden) => Err(refuse("names a metadata or link-local address")),
        (UrlScheme::Https, AddressClass::Public | AddressClass::Private | AddressClass::Loopback) => Ok(url),
    }
}

fn logins(service: &str, text: &[u8]) -> Result<Vec<(String, Credential)>, CloudError> {
    let document = decode(text, Layout::DockerCfg, Mode::Windlass)
        .map_err(|error| json::malformed(service, format!("cannot be used: {error}")))?;
    Ok(document.entries.into_iter().map(|entry| (entry.key, entry.credential)).collect())
}

fn missing(name: &str, metadata: &Metadata<'_>) -> CloudError {
    CloudError::NoIdentity {
        looked: format!("{} has no attribute {name}", metadata.name()),
        hint: format!("set the instance's attribute {name}, or use --authFlow=gcr"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_comes_by_https_from_a_public_place() {
        for good in ["https://config.example/dockercfg", " https://10.0.0.1/x\n"] {
            assert!(place(good).is_ok(), "{good}");
        }
        for bad in [
            "http://config.example/dockercfg",
            "https://169.254.169.254/x",
            "https://metadata.google.internal/x",
            "https://[fe80::1]/x",
            "gs://bucket/x",
            "https://user:canary@config.example/",
        ] {
            let error = place(bad).unwrap_err().to_string();
            assert!(error.starts_with("google-dockercfg-url ") && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn keys_are_chosen_by_their_host() {
        let text = br#"{"quay.io/org":{"auth":"dTpw"},"https://quay.io":{"auth":"dTpw"},"*.io":{"auth":"dTpw"},
            "quay.io:443":{"auth":"dTpw"},"evil.example/quay.io":{"auth":"dTpw"}}"#;
        let image = Reference::parse("quay.io/org/app").unwrap();
        let keys: Vec<String> = for_host(logins("it", text).unwrap(), &image).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["quay.io/org", "https://quay.io", "*.io"]);
        assert!(logins("it", b"canary").unwrap_err().to_string().starts_with("the answer of it cannot be used"));
    }
}
