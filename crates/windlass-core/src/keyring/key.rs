//! From an `auths` key as people write it to the key that is matched.
//!
//! Source of truth: kubernetes `pkg/credentialprovider/keyring.go`, `BasicDockerKeyring.Add`.

use crate::matchimage::GoUrl;

/// The normalised key that serves as fallback for images of Docker Hub.
pub const HUB_KEY: &str = "index.docker.io";

/// The lookup key of an `auths` key: scheme, `/v1` or `/v2` in front of a slash, user info, query and fragment
/// removed. `None` for a key that does not parse; such a key is never used.
///
/// Only lower-case `http://` and `https://` are schemes here: `oci://quay.io` is a host called `oci`.
pub fn normalise_key(written: &str) -> Option<String> {
    let url = if written.starts_with("https://") || written.starts_with("http://") {
        GoUrl::parse(written)
    } else {
        GoUrl::parse(&format!("https://{written}"))
    };
    let url = url.ok()?;
    let path = if url.path.starts_with(b"/v1/") || url.path.starts_with(b"/v2/") { &url.path[3..] } else { &url.path };
    let mut key = url.host;
    if path != b"/" {
        key.extend_from_slice(path);
    }
    // A key that is not text after unescaping could never be written into a matching image name.
    String::from_utf8(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lose_what_docker_login_adds() {
        let table = [
            ("quay.io", Some("quay.io")),
            ("https://quay.io/", Some("quay.io")),
            ("https://index.docker.io/v1/", Some(HUB_KEY)),
            ("http://r.io:5000/v2/team", Some("r.io:5000/team")),
            ("https://r.io/v1", Some("r.io/v1")),
            ("me@r.io?x=1#y", Some("r.io")),
            ("oci://quay.io", Some("oci://quay.io")),
            ("r.io:port", None),
            ("https://a b", None),
            ("eu[0-9].gcr.io", None),
            ("r.io/%zz", None),
        ];
        for (written, want) in table {
            assert_eq!(normalise_key(written).as_deref(), want, "{written}");
        }
    }
}
