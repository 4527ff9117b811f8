//! The credential hash of the kubelet's pull records.
//!
//! Source of truth: kubernetes `pkg/credentialprovider/keyring.go`, `hashAuthConfig`: SHA-256 over Go's JSON of
//! the `AuthConfig`. Fields in the order of the struct, empty ones left out, HTML characters escaped.
//!
//! Invariant: held by every hash in the vectors `keyring.json`.

use zeroize::Zeroizing;

use super::Credential;
use crate::digest::Digest;

/// Lower-case hexadecimal SHA-256 of the credential, 64 digits. `email` is what the entry said, or empty.
pub fn credential_hash(credential: &Credential, email: &str) -> String {
    let mut json = Zeroizing::new(String::from("{"));
    let (username, password, identity, registry) = match credential {
        Credential::Basic { username, password } => (username.as_str(), password.expose().as_str(), "", ""),
        Credential::IdentityToken { username, token } => {
            (username.as_deref().unwrap_or(""), "", token.expose().as_str(), "")
        }
        Credential::RegistryToken { token } => ("", "", "", token.expose().as_str()),
        Credential::Anonymous => ("", "", "", ""),
    };
    for (name, value) in [
        ("username", username),
        ("password", password),
        ("email", email),
        ("identitytoken", identity),
        ("registrytoken", registry),
    ] {
        if !value.is_empty() {
            if json.len() > 1 {
                json.push(',');
            }
            push_string(&mut json, name);
            json.push(':');
            push_string(&mut json, value);
        }
    }
    json.push('}');
    Digest::sha256(json.as_bytes()).hex().to_owned()
}

/// One string as Go's `encoding/json` writes it with HTML escaping on.
fn push_string(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' => {
                let code = c as usize;
                out.push_str("\\u00");
                out.push(char::from(HEX[code >> 4]));
                out.push(char::from(HEX[code & 15]));
            }
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_as_go_writes_them() {
        let table = [
            ("plain", "\"plain\""),
            ("<&>", "\"\\u003c\\u0026\\u003e\""),
            ("a\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}", "\"a\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001f\""),
            ("ü\u{7f}\u{2028}\u{2029}✓", "\"ü\u{7f}\\u2028\\u2029✓\""),
        ];
        for (text, want) in table {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(out, want, "{text:?}");
        }
    }
}
