//! The credentials of a pull request: which of the CRI's `AuthConfig` fields count.
//!
//! In: the request's `AuthConfig`, or none, and the reference. Out: what the engine may show to the registry.
//! None at all means the node's own keyring. Credentials that are given are never followed by the node's: the kubelet
//! would note the pod's secret as proof of access. Whether anonymous access is tried last, and that no mirror sees
//! them, is decided where registries are asked.
//! Source of truth: kubernetes/cri-api `api.proto`, `AuthConfig`; containerd `internal/cri/server/images`, `ParseAuth`,
//! whose order is kept. It ignores `registry_token`, which here is what its definition says, a bearer token.
//!
//! Invariants: `the_fields_count_in_the_order_of_containerd`, `credentials_for_another_registry_are_ignored`,
//! `no_error_repeats_a_credential`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use windlass_core::host::Host;
use windlass_core::keyring::{Candidate, Credential, Origin, normalise_key};
use windlass_core::mirror::hub_names_are_one;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;
use windlass_proto::cri::v1::AuthConfig;
use windlass_pull::Credentials;

/// Why an `AuthConfig` cannot be used. Never repeats a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// `server_address` is not an address.
    #[error("auth.server_address of the request is not a URL or host")]
    ServerAddress,
    /// `auth` is not base64.
    #[error("auth.auth of the request is not base64 of user:password")]
    Base64,
    /// `auth` has no colon.
    #[error("auth.auth of the request decodes to a text without a colon between user and password")]
    NoColon,
    /// `auth` is not text.
    #[error("auth.auth of the request decodes to something that is not UTF-8")]
    NotUtf8,
}

impl AuthError {
    /// Always [`Reason::InvalidCredentials`].
    pub fn reason(&self) -> Reason {
        Reason::InvalidCredentials
    }
}

/// What a pull of `reference` may show to its registry.
pub(crate) fn credentials(auth: Option<AuthConfig>, reference: &Reference) -> Result<Credentials, AuthError> {
    let Some(auth) = auth else { return Ok(Credentials::Sources) };
    let credential = credential(auth, reference)?;
    let given = credential.map(|credential| Candidate::new(credential, Origin::Given, ""));
    Ok(Credentials::Given(given.into_iter().collect()))
}

fn credential(auth: AuthConfig, reference: &Reference) -> Result<Option<Credential>, AuthError> {
    if !auth.server_address.is_empty() && !is_registry(&auth.server_address, reference.host())? {
        return Ok(None);
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credential::basic(auth.username, auth.password)));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Credential::IdentityToken { username: None, token: Secret::new(auth.identity_token) }));
    }
    if !auth.auth.is_empty() {
        return basic(&auth.auth).map(Some);
    }
    if !auth.registry_token.is_empty() {
        return Ok(Some(Credential::RegistryToken { token: Secret::new(auth.registry_token) }));
    }
    Ok(None)
}

/// Whether an address means the registry of the reference. Docker Hub has several names; a missing port is that of
/// the scheme.
fn is_registry(address: &str, registry: &Host) -> Result<bool, AuthError> {
    let key = normalise_key(address).ok_or(AuthError::ServerAddress)?;
    let host = Host::new(key.split('/').next().unwrap_or_default());
    if host.as_str().is_empty() {
        return Err(AuthError::ServerAddress);
    }
    let default_port = if address.starts_with("http://") { 80 } else { 443 };
    Ok(host.same_origin(registry, default_port) || hub_names_are_one(&host, registry))
}

fn basic(auth: &str) -> Result<Credential, AuthError> {
    let decoded = STANDARD.decode(auth).map_err(|_| AuthError::Base64)?;
    let decoded = Secret::new(String::from_utf8(decoded).map_err(|_| AuthError::NotUtf8)?);
    let (user, password) = decoded.expose().split_once(':').ok_or(AuthError::NoColon)?;
    Ok(Credential::basic(user, password.trim_matches('\0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        Reference::parse("registry.example:5000/team/app:v1").expect("a reference")
    }

    fn given(auth: AuthConfig, reference: &Reference) -> Result<Option<Credential>, AuthError> {
        match credentials(Some(auth), reference)? {
            Credentials::Given(candidates) => {
                assert!(candidates.len() <= 1);
                Ok(candidates.into_iter().next().map(|candidate| {
                    assert_eq!(candidate.origin, Origin::Given);
                    candidate.credential
                }))
            }
            Credentials::Sources => panic!("the node's credentials follow those of the request"),
        }
    }

    #[test]
    fn none_at_all_is_the_nodes_own_keyring() {
        assert!(matches!(credentials(None, &reference()), Ok(Credentials::Sources)));
        assert_eq!(given(AuthConfig::default(), &reference()), Ok(None), "an empty one is anonymous");
    }

    #[test]
    fn the_fields_count_in_the_order_of_containerd() {
        let all = AuthConfig {
            username: "user".to_owned(),
            password: "password".to_owned(),
            identity_token: "identity".to_owned(),
            auth: STANDARD.encode("other:word"),
            registry_token: "bearer".to_owned(),
            server_address: String::new(),
        };
        let token = |text: &str| Secret::new(text.to_owned());
        let without_user = AuthConfig { username: String::new(), ..all.clone() };
        let without_identity = AuthConfig { identity_token: String::new(), ..without_user.clone() };
        let without_auth = AuthConfig { auth: String::new(), ..without_identity.clone() };
        let table = [
            (all, Credential::basic("user", "password")),
            (without_user, Credential::IdentityToken { username: None, token: token("identity") }),
            (without_identity, Credential::basic("other", "word")),
            (without_auth, Credential::RegistryToken { token: token("bearer") }),
            (AuthConfig { username: "user".to_owned(), ..AuthConfig::default() }, Credential::basic("user", "")),
        ];
        for (auth, want) in table {
            assert_eq!(given(auth, &reference()), Ok(Some(want)));
        }
        let password_alone = AuthConfig { password: "password".to_owned(), ..AuthConfig::default() };
        assert_eq!(given(password_alone, &reference()), Ok(None));
    }

    #[test]
    fn auth_is_base64_of_user_and_password() {
        let encoded = |text: &[u8]| STANDARD.encode(text);
        let table = [
            (encoded(b"user:pass"), Ok(Some(Credential::basic("user", "pass")))),
            (encoded(b"user:pa:ss"), Ok(Some(Credential::basic("user", "pa:ss")))),
            (encoded(b"user:pass\0\0"), Ok(Some(Credential::basic("user", "pass")))),
            (encoded(b"user:"), Ok(Some(Credential::basic("user", "")))),
            (encoded(b":pass"), Ok(Some(Credential::basic("", "pass")))),
            (encoded(b"user"), Err(AuthError::NoColon)),
            (encoded(b"us\xffer:pass"), Err(AuthError::NotUtf8)),
            ("%%%".to_owned(), Err(AuthError::Base64)),
        ];
        for (auth, want) in table {
            let config = AuthConfig { auth: auth.clone(), ..AuthConfig::default() };
            assert_eq!(given(config, &reference()), want, "{auth}");
        }
    }

    #[test]
    fn credentials_for_another_registry_are_ignored() {
        let table = [
            ("registry.example:5000/app", "https://registry.example:5000", true),
            ("registry.example:5000/app", "https://registry.example:5000/v2/", true),
            ("registry.example:5000/app", "registry.example:5000", true),
            ("registry.example:5000/app", "https://registry.example", false),
            ("registry.example:5000/app", "https://other.example:5000", false),
            ("registry.example/app", "https://registry.example", true),
            ("registry.example/app", "https://registry.example:443/", true),
            ("registry.example/app", "https://REGISTRY.example", true),
            ("registry.example/app", "http://registry.example", true),
            ("registry.example/app", "https://registry.example.evil", false),
            ("registry.example/app", "https://registry.example@evil", false),
            ("busybox", "https://index.docker.io/v1/", true),
            ("busybox", "docker.io", true),
            ("busybox", "https://registry-1.docker.io", true),
            ("registry.example/app", "https://index.docker.io/v1/", false),
        ];
        for (image, address, wanted) in table {
            let reference = Reference::parse(image).expect("a reference");
            let auth = AuthConfig {
                username: "user".to_owned(),
                password: "password".to_owned(),
                server_address: address.to_owned(),
                ..AuthConfig::default()
            };
            assert_eq!(given(auth, &reference).map(|found| found.is_some()), Ok(wanted), "{image} {address}");
        }
        for address in ["https://a b", "https://", "/", "https://[::1"] {
            let auth = AuthConfig { server_address: address.to_owned(), ..AuthConfig::default() };
            assert_eq!(given(auth, &reference()), Err(AuthError::ServerAddress), "{address}");
        }
    }

    #[test]
    fn no_error_repeats_a_credential() {
        for (auth, address) in [("hunter2%%", ""), ("aHVudGVyMg==", ""), ("", "https://user:hunter2@[")] {
            let config =
                AuthConfig { auth: auth.to_owned(), server_address: address.to_owned(), ..AuthConfig::default() };
            let error = credentials(Some(config), &reference()).expect_err("a bad config");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2") && !text.contains("aHVu"), "{text}");
            assert_eq!(error.reason(), Reason::InvalidCredentials);
        }
    }
}
