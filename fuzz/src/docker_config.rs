//! Docker configuration files in both layouts, by the kubelet's rules and by ours.

use base64::Engine as _;
use serde_json::Value;
use windlass_core::dockerconfig::{
    DecodeError, Document, Layout, LoginEntry, decode, is_json_object, write_config_json,
};
use windlass_core::keyring::{Credential, Keyring, Mode, Origin, Ring};
use windlass_core::secret::Secret;

use super::secrets::assert_hidden;

/// Decodes the input as a document, looks images up in it, writes what it held and decodes that again.
pub fn run(bytes: &[u8]) {
    let loose: Option<Value> = serde_json::from_slice(bytes).ok();
    let written = loose.as_ref().map(written_secrets).unwrap_or_default();
    for layout in [Layout::ConfigJson, Layout::DockerCfg] {
        for mode in [Mode::Kubelet, Mode::Windlass] {
            match decode(bytes, layout, mode) {
                Ok(document) => decoded(bytes, &document, layout, mode, &written),
                Err(error) => refused(&error, mode, &written),
            }
        }
        assert_modes_agree(bytes, layout);
    }
}

fn decoded(bytes: &[u8], document: &Document, layout: Layout, mode: Mode, written: &[String]) {
    assert!(is_json_object(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)));
    if mode == Mode::Kubelet {
        assert!(document.rejected.is_empty(), "the kubelet drops no single entry");
    }
    let printed = format!("{document:?}");
    let shown = shown_texts(document);
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    assert_hidden(&printed, document.entries.iter().filter_map(|entry| secret_of(&entry.credential)), &shown);
    assert_hidden(&printed, written.iter().map(String::as_str), &shown);

    let mut ring = Ring::new();
    let mut skipped = Vec::new();
    ring.add_document(bytes, layout, mode, &Origin::Given, &mut skipped).expect("it was decoded before");
    assert_hidden(&format!("{ring:?}{skipped:?}"), written.iter().map(String::as_str), &shown);
    let mut keyring = Keyring::new();
    keyring.push(ring);
    let images = document.entries.iter().map(|entry| format!("{}/app", entry.key));
    for image in images.take(4).chain(["docker.io/library/nginx".to_owned(), "quay.io/a/b".to_owned()]) {
        for candidate in keyring.lookup(&image, mode) {
            let known = document.entries.iter().any(|e| e.key == candidate.key && e.credential == candidate.credential);
            assert!(known, "{image} got a credential that nobody wrote");
            assert!(candidate.hash.len() == 64 && candidate.hash.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
    rewritten(document);
}

/// Logins that are written are read back.
fn rewritten(document: &Document) {
    let logins: Vec<LoginEntry> = document
        .entries
        .iter()
        .filter_map(|entry| match &entry.credential {
            Credential::Basic { username, password } if !password.expose().starts_with('\0') => {
                let (registry, username) = (entry.key.clone(), username.clone());
                Some(LoginEntry { registry, username, password: password.clone() })
            }
            _ => None,
        })
        .filter(|login| !login.password.expose().contains(['\0', '\u{fffd}']) && !login.username.contains('\u{fffd}'))
        .collect();
    let text = write_config_json(&logins);
    for mode in [Mode::Kubelet, Mode::Windlass] {
        let again = decode(text.expose(), Layout::ConfigJson, mode).expect("we wrote it");
        assert!(again.rejected.is_empty());
        for login in &logins {
            let kept = again.entries.iter().any(|e| {
                e.credential
                    == Credential::Basic {
                        username: login.username.clone(),
                        password: Secret::new(login.password.expose().clone()),
                    }
            });
            let replaced = logins.iter().filter(|other| other.registry == login.registry).count() > 1
                || again.entries.iter().any(|e| e.key == "https://index.docker.io/v1/");
            assert!(kept || replaced, "a login was lost");
        }
    }
}

fn refused(error: &DecodeError, mode: Mode, written: &[String]) {
    let text = format!("{error} {error:?} {:?}", error.reason());
    match error {
        DecodeError::Entry { key, .. } => {
            assert_eq!(mode, Mode::Kubelet, "our own rules drop an entry, not the document");
            assert_hidden(&text, written.iter().map(String::as_str), &[key]);
        }
        _ => assert!(text.len() < 400 && text.is_ascii(), "{text}"),
    }
}

/// A document that the kubelet reads is read by us too, with the same keys.
fn assert_modes_agree(bytes: &[u8], layout: Layout) {
    let Ok(kubelet) = decode(bytes, layout, Mode::Kubelet) else { return };
    let ours = decode(bytes, layout, Mode::Windlass).expect("the kubelet can read it");
    let keys = |document: &Document| document.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>();
    if ours.rejected.is_empty() {
        assert_eq!(keys(&kubelet), keys(&ours));
    }
}

fn secret_of(credential: &Credential) -> Option<&str> {
    match credential {
        Credential::Basic { password, .. } => Some(password.expose()),
        Credential::IdentityToken { token, .. } | Credential::RegistryToken { token } => Some(token.expose()),
        Credential::Anonymous => None,
        _ => panic!("a credential of a kind that is not looked at here"),
    }
}

fn shown_texts(document: &Document) -> Vec<String> {
    let mut shown: Vec<String> = document.rejected.iter().map(|rejected| rejected.key.clone()).collect();
    for entry in &document.entries {
        shown.push(entry.key.clone());
        shown.push(entry.email.clone());
        shown.extend(entry.credential.username().map(str::to_owned));
    }
    shown.extend(document.cred_helpers.iter().flat_map(|(host, helper)| [host.clone(), helper.clone()]));
    shown.extend(document.creds_store.clone());
    shown
}

/// Every text under a key that holds a secret, and what `auth` hides, found without the decoder.
fn written_secrets(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let Value::Object(members) = value else { return found };
    for (name, value) in members {
        match (name.to_ascii_lowercase().as_str(), value) {
            ("password" | "identitytoken" | "registrytoken", Value::String(text)) => found.push(text.clone()),
            ("auth", Value::String(text)) => {
                let plain = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
                let plain = String::from_utf8_lossy(&plain);
                found.extend(plain.split_once(':').map(|(_, password)| password.to_owned()));
                found.push(text.clone());
            }
            (_, value) => found.extend(written_secrets(value)),
        }
    }
    found
}
