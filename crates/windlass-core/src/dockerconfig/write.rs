//! Makes a `config.json` from logins, for `windlass secret` and for tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// One login to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginEntry {
    /// Registry host with an optional path. Docker Hub under any of its names is written as docker writes it.
    pub registry: String,
    /// User name; holds no colon, which would end it.
    pub username: String,
    /// Password or access token.
    pub password: Secret<String>,
}

/// The document that `kubectl create secret docker-registry` would make, without e-mail addresses.
///
/// Later entries for a registry replace earlier ones. A user name with a colon is written in `username` and
/// `password` alone, because `auth` could not be split again.
pub fn write_config_json(entries: &[LoginEntry]) -> Secret<Vec<u8>> {
    let mut kept: Vec<(&str, &LoginEntry)> = Vec::new();
    for entry in entries {
        let key = written_key(&entry.registry);
        match kept.iter_mut().find(|(known, _)| *known == key) {
            Some(slot) => slot.1 = entry,
            None => kept.push((key, entry)),
        }
    }
    // Enough room from the start: growing would leave copies behind.
    let longest: usize =
        kept.iter().map(|(key, e)| key.len() + 3 * (e.username.len() + e.password.expose().len())).sum();
    let mut out = Vec::with_capacity(64 + 6 * longest + 128 * kept.len());
    out.extend_from_slice(b"{\"auths\":{");
    for (i, (key, entry)) in kept.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let password = entry.password.expose();
        push_json(&mut out, key);
        out.extend_from_slice(b":{\"username\":");
        push_json(&mut out, &entry.username);
        out.extend_from_slice(b",\"password\":");
        push_json(&mut out, password);
        if !entry.username.contains(':') {
            let plain = Zeroizing::new(format!("{}:{password}", entry.username));
            let auth = Zeroizing::new(STANDARD.encode(plain.as_bytes()));
            out.extend_from_slice(b",\"auth\":\"");
            out.extend_from_slice(auth.as_bytes());
            out.push(b'"');
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
    Secret::new(out)
}

/// Kubelets know Docker Hub only by the key that docker writes.
fn written_key(registry: &str) -> &str {
    match registry.trim_end_matches('/') {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" | "https://index.docker.io/v1" => {
            "https://index.docker.io/v1/"
        }
        _ => registry,
    }
}

fn push_json(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory cannot fail.
    let json = Zeroizing::new(serde_json::to_string(text).unwrap_or_default());
    out.extend_from_slice(json.as_bytes());
}
