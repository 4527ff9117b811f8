//! Writes an answer.

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_core::keyring::Credential;
use windlass_core::provider::{CacheKeyType, ExecVersion, ProviderAnswer};
use windlass_core::secret::Secret;

use super::duration::go_duration;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    kind: &'static str,
    api_version: &'static str,
    cache_key_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_duration: Option<String>,
    auth: BTreeMap<&'a str, Login<'a>>,
}

#[derive(Serialize)]
struct Login<'a> {
    username: &'a str,
    password: &'a str,
}

/// The text of an answer: one JSON object and a line feed. Of two logins under one key the first counts. What is neither
/// a password nor the wish to be anonymous is left out: the protocol has no place for tokens of registries.
pub fn render(version: ExecVersion, answer: &ProviderAnswer) -> Secret<String> {
    let mut auth = BTreeMap::new();
    for (key, credential) in &answer.auth {
        let login = match credential {
            Credential::Basic { username, password } => Login { username, password: password.expose() },
            Credential::Anonymous => Login { username: "", password: "" },
            _ => continue,
        };
        auth.entry(key.as_str()).or_insert(login);
    }
    let wire = Wire {
        kind: "CredentialProviderResponse",
        api_version: version.as_str(),
        cache_key_type: match answer.cache_key_type {
            CacheKeyType::Image => "Image",
            CacheKeyType::Registry => "Registry",
            CacheKeyType::Global => "Global",
        },
        cache_duration: answer.cache_duration.map(go_duration),
        auth,
    };
    let mut text = serde_json::to_string(&wire).expect("texts under texts are always JSON");
    text.push('\n');
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::nothing;
    use super::*;

    #[test]
    fn the_answer_has_the_version_of_the_request() {
        for version in ExecVersion::ALL {
            let want = format!(
                r#"{{"kind":"CredentialProviderResponse","apiVersion":"{}","cacheKeyType":"Registry","cacheDuration":"0s","auth":{{}}}}"#,
                version.as_str()
            );
            assert_eq!(render(version, &nothing()).expose().trim_end(), want);
        }
    }

    #[test]
    fn logins_stand_under_their_keys() {
        let auth = vec![
            ("reg.example".to_owned(), Credential::basic("u", "p\"")),
            ("*.reg.example".to_owned(), Credential::Anonymous),
            ("reg.example".to_owned(), Credential::basic("second", "x")),
            ("token.example".to_owned(), Credential::RegistryToken { token: Secret::from("t") }),
        ];
        let hour = Some(Duration::from_secs(3600));
        let answer = ProviderAnswer { cache_key_type: CacheKeyType::Image, cache_duration: hour, auth };
        let want = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","cacheDuration":"1h0m0s","auth":{"*.reg.example":{"username":"","password":""},"reg.example":{"username":"u","password":"p\""}}}"#;
        let text = render(ExecVersion::V1, &answer);
        assert_eq!(text.expose(), &format!("{want}\n"));
        let kept_by_default = ProviderAnswer { cache_duration: None, ..answer };
        assert!(!render(ExecVersion::V1, &kept_by_default).expose().contains("cacheDuration"));
    }
}
