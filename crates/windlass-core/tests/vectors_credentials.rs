//! The rule vectors about credentials: documents, keyrings, patterns, challenges, realms, registry classes.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_core::challenge::{Selection, parse, select};
use windlass_core::dockerconfig::{Layout, decode};
use windlass_core::host::Host;
use windlass_core::httpurl::{UrlScheme, WebOrigin};
use windlass_core::keyring::{Credential, Keyring, Mode, Origin, Ring};
use windlass_core::matchimage::{check_pattern, matches};
use windlass_core::provider::{ExecVersion, read_answer, read_config};
use windlass_core::realm::{Trust, judge_realm};
use windlass_core::reference::Reference;
use windlass_core::registryclass::{ECR_PUBLIC_ENDPOINT, ECR_PUBLIC_REGION, RegistryClass, classify};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is not a string in {value}"))
}

/// `user:password` as the files write a credential.
fn pair(credential: &Credential) -> String {
    match credential {
        Credential::Basic { username, password } => format!("{username}:{}", password.expose()),
        Credential::Anonymous => ":".to_owned(),
        other => panic!("not a password: {other:?}"),
    }
}

#[test]
fn dockerconfig() {
    support::run("credentials-dockerconfig.json", |case| {
        let layout = match text(case, "format") {
            "dockerconfigjson" => Layout::ConfigJson,
            "dockercfg" => Layout::DockerCfg,
            other => panic!("layout {other}"),
        };
        let bytes = text(case, "input").as_bytes();

        let own = decode(bytes, layout, Mode::Windlass);
        let want = &case["windlass"];
        assert_eq!(own.is_ok(), want["ok"] == true, "{case}");
        if let Ok(own) = own {
            let entries: BTreeMap<&str, Value> =
                own.entries.iter().map(|e| (e.key.as_str(), entry(&e.credential))).collect();
            assert_eq!(json!(entries), want["entries"], "{case}");
            let rejected: Vec<&str> = own.rejected.iter().map(|r| r.key.as_str()).collect();
            assert_eq!(json!(rejected), want["rejected"], "{case}");
        }

        let Some(want) = case.get("kubelet") else { return };
        let kubelet = decode(bytes, layout, Mode::Kubelet);
        assert_eq!(kubelet.is_ok(), want["ok"] == true, "kubelet, {case}");
        if let Ok(kubelet) = kubelet {
            let entries: BTreeMap<&str, Value> = kubelet
                .entries
                .iter()
                .map(|e| {
                    let both = pair(&e.credential);
                    let (username, password) = both.split_once(':').expect("a pair has a colon");
                    let mut shown = json!({"username": username, "password": password});
                    if !e.email.is_empty() {
                        shown["email"] = json!(e.email);
                    }
                    (e.key.as_str(), shown)
                })
                .collect();
            assert_eq!(json!(entries), want["entries"], "kubelet, {case}");
        }
    });
}

fn entry(credential: &Credential) -> Value {
    match credential {
        Credential::Basic { username, password } => {
            json!({"kind": "basic", "username": username, "password": password.expose()})
        }
        Credential::IdentityToken { token, .. } => json!({"kind": "identity_token", "token": token.expose()}),
        Credential::RegistryToken { token } => json!({"kind": "registry_token", "token": token.expose()}),
        Credential::Anonymous => json!({"kind": "anonymous"}),
        other => panic!("unknown kind: {other:?}"),
    }
}

#[test]
fn keyring() {
    support::run("credentials-keyring.json", |case| {
        let mut ring = Ring::new();
        for secret in case["secrets"].as_array().expect("a list of secrets") {
            for (key, login) in secret.as_object().expect("a map of logins") {
                let (user, password) = login.as_str().expect("a login").split_once(':').expect("a colon");
                ring.add(key, Credential::basic(user, password), "", Origin::Given);
            }
        }
        // Providers that answer the same come to the same.
        for ring in [ring, ring_of_answers(case)] {
            let mut keyring = Keyring::new();
            keyring.push(ring);
            for (mode, want) in [(Mode::Kubelet, case), (Mode::Windlass, case.get("windlass").unwrap_or(case))] {
                let found = keyring.lookup(text(case, "image"), mode);
                let shown: Vec<String> = found.iter().map(|c| pair(&c.credential)).collect();
                assert_eq!(json!(shown), want["credentials"], "{mode:?}, {case}");
                assert_eq!(!found.is_empty(), want["found"] == true, "{mode:?}, {case}");
            }
        }
    });
}

/// Each secret as the answer of a provider.
fn ring_of_answers(case: &Value) -> Ring {
    let mut ring = Ring::new();
    for (at, secret) in case["secrets"].as_array().expect("a list of secrets").iter().enumerate() {
        let logins = secret.as_object().expect("a map of logins").iter().map(|(key, login)| {
            let (username, password) = login.as_str().expect("a login").split_once(':').expect("a colon");
            (key.clone(), json!({"username": username, "password": password}))
        });
        let answer = json!({
            "kind": "CredentialProviderResponse", "apiVersion": ExecVersion::V1.as_str(), "cacheKeyType": "Image",
            "auth": logins.collect::<serde_json::Map<String, Value>>(),
        });
        let answer = read_answer(answer.to_string().as_bytes(), ExecVersion::V1).expect("a good answer");
        for (key, login) in answer.auth {
            ring.add(&key, login, "", Origin::Plugin { name: at.to_string() });
        }
    }
    ring
}

/// Whether a provider may be configured with a pattern.
fn may_be_configured(pattern: &str) -> bool {
    let config = json!({
        "kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1", "providers": [{
            "name": "p", "matchImages": [pattern], "defaultCacheDuration": "0", "apiVersion": ExecVersion::V1.as_str(),
        }],
    });
    let raw = serde_json::from_value(config).expect("any JSON");
    match read_config(&[(String::new(), raw)]) {
        Ok(config) => config.providers[0].match_images == [pattern],
        Err(problems) => {
            assert!(problems.len() == 1 && problems[0].place == "providers[0].matchImages[0]", "{problems:?}");
            false
        }
    }
}

#[test]
fn matchimages() {
    support::run("credentials-matchimages.json", |case| {
        let (pattern, image) = (text(case, "pattern"), text(case, "image"));
        let result = matches(pattern, image);
        assert_eq!(result.unwrap_or(false), case["match"] == true, "{case}");
        assert_eq!(result.is_err(), case["match_error"] == true, "{case}");
        assert_eq!(check_pattern(pattern).is_ok(), case["pattern_valid"] == true, "{case}");
        assert_eq!(may_be_configured(pattern), case["pattern_valid"] == true, "{case}");
    });
}

#[test]
fn realm_trust() {
    support::run("credentials-realm-trust.json", |case| {
        let scheme = if case["registry_plain_http"] == true { UrlScheme::Http } else { UrlScheme::Https };
        let registry = WebOrigin::of_host(scheme, &Host::new(text(case, "registry")));
        let verdict = judge_realm(&registry, text(case, "realm"), &[]);
        let shown = json!({
            "anonymous": verdict.trust >= Trust::Anonymous,
            "credentials": verdict.trust == Trust::Credentials,
            "reason": verdict.reason.as_str(),
        });
        assert_eq!(shown, case["windlass"], "{case}");
    });
}

#[test]
fn registry_class() {
    support::run("credentials-registry-class.json", |case| {
        let shown = match Reference::parse(text(case, "image")) {
            Err(_) => json!({"class": "invalid"}),
            Ok(reference) => class(&classify(&reference)),
        };
        assert_eq!(shown, case["windlass"], "{case}");
    });
}

fn class(class: &RegistryClass) -> Value {
    match class {
        RegistryClass::Ecr(ecr) => json!({
            "class": "ecr", "host": ecr.host, "account": ecr.account, "region": ecr.region, "fips": ecr.fips,
            "suffix": ecr.suffix, "api_endpoint": ecr.api_endpoint(),
        }),
        RegistryClass::EcrPublic { host } => json!({
            "class": "ecr_public", "host": host, "region": ECR_PUBLIC_REGION, "api_endpoint": ECR_PUBLIC_ENDPOINT,
        }),
        RegistryClass::Gcr { host } => json!({"class": "gcr", "host": host}),
        RegistryClass::Acr { host, cloud, region } => match region {
            Some(region) => json!({"class": "acr", "host": host, "cloud": cloud, "region": region}),
            None => json!({"class": "acr", "host": host, "cloud": cloud}),
        },
        RegistryClass::None { host } => json!({"class": "none", "host": host}),
        other => panic!("unknown class: {other:?}"),
    }
}

#[test]
fn www_authenticate() {
    support::run("credentials-www-authenticate.json", |case| {
        let lines = case["headers"].as_array().expect("a list of headers");
        let challenges = parse(lines.iter().map(|line| line.as_str().expect("a header")));
        let shown: Vec<Value> = challenges
            .iter()
            .map(|c| {
                let params: BTreeMap<&String, &String> = c.params.iter().map(|(name, value)| (name, value)).collect();
                match &c.token68 {
                    Some(token) => json!({"scheme": c.scheme, "params": params, "token68": token}),
                    None => json!({"scheme": c.scheme, "params": params}),
                }
            })
            .collect();
        assert_eq!(json!(shown), case["windlass"]["challenges"], "{case}");
        let selected = match select(&challenges) {
            Selection::Bearer(b) => json!({
                "scheme": "bearer", "realm": b.realm, "service": b.service, "scopes": b.scopes, "error": b.error,
            }),
            Selection::Basic => json!({"scheme": "basic"}),
            Selection::Unsupported { .. } => Value::Null,
        };
        assert_eq!(selected, case["windlass"]["select"], "{case}");
    });
}
