//! containerd's `hosts.toml`, and the list of places to ask that comes of it.

use std::path::Path;

use windlass_core::host::Host;
use windlass_core::httpurl::HttpUrl;
use windlass_core::mirror::{
    CredentialPolicy, HostsFile, MAX_FILE_BYTES, MAX_HOSTS, MirrorError, Operation, RegistryOverride, Role, endpoints,
};

use super::secrets::assert_hidden;

/// The input is the text of a file.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.lines().count() + 1;
    let loose = toml::from_str::<toml::Table>(text);
    let file = match HostsFile::parse(text, Path::new("/etc/containerd/certs.d/x")) {
        Ok(file) => file,
        Err(error) => return refused(&error, lines),
    };
    let loose = loose.unwrap_or_else(|error| panic!("a file that is no TOML was taken: {error}"));
    let hosts = loose.get("host").and_then(toml::Value::as_table).map_or(0, toml::Table::len);
    assert!(file.hosts.len() == hosts && hosts <= MAX_HOSTS && text.len() <= MAX_FILE_BYTES);
    assert!(file.unknown.iter().all(|key| (1..=lines).contains(&key.line)), "{:?}", file.unknown);
    assert!(file.hosts.iter().all(|host| host.url.is_some()));

    let headers = || file.hosts.iter().chain([&file.server]).flat_map(|host| host.settings.headers.iter());
    for (name, value) in headers() {
        let clean = |text: &str| !text.is_empty() && text.bytes().all(|b| b > b' ' && b != 0x7f && b != b':');
        assert!(clean(name), "{name:?}");
        assert!(!value.expose().contains(['\r', '\n', '\0']), "a header that carries a second one");
    }
    // Everything but the values may be shown.
    let blanked = format!("{:?}", blank_headers(&loose));
    let names: Vec<&str> = vec![&blanked, "HostsFile HostEntry EndpointUrl capabilities settings referrers resolve"];
    assert_hidden(
        &format!("{file:?}"),
        headers().map(|(_, value)| value.expose().as_str()).filter(|v| v.len() > 12),
        &names,
    );

    for name in ["docker.io", "registry.example.com", "localhost:5000", "10.1.2.3"] {
        let registry = Host::new(name);
        for operation in [Operation::Resolve, Operation::Pull, Operation::Push] {
            let list = endpoints(&registry, Some(&file), &RegistryOverride::default(), operation);
            assert!(list.len() <= hosts + 1);
            for (at, endpoint) in list.iter().enumerate() {
                assert!(!list[..at].contains(endpoint), "the same place twice");
                assert!(endpoint.base_path.is_empty() || endpoint.base_path.starts_with('/'), "{endpoint:?}");
                assert!(!endpoint.base_path.ends_with('/'), "{endpoint:?}");
                assert!(operation != Operation::Push || endpoint.role == Role::Registry, "pushes go to the registry");
                if endpoint.role == Role::Mirror {
                    assert_eq!(endpoint.credentials, CredentialPolicy::Anonymous, "a mirror gets no login unasked");
                }
                let url = format!("https://{}{}/x", endpoint.host, endpoint.base_path);
                HttpUrl::parse(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
            }
        }
    }
}

fn refused(error: &MirrorError, lines: usize) {
    match error {
        MirrorError::Toml { line, .. }
        | MirrorError::Type { line, .. }
        | MirrorError::Capability { line, .. }
        | MirrorError::Url { line, .. } => assert!((1..=lines).contains(line), "{error}, of {lines} lines"),
        _ => {}
    }
    assert!(!error.to_string().is_empty());
}

fn blank_headers(table: &toml::Table) -> toml::Table {
    let blank = |(name, value): (&String, &toml::Value)| {
        let value = match value {
            toml::Value::Table(headers) if name == "header" => {
                toml::Value::Array(headers.keys().map(|key| toml::Value::String(key.clone())).collect())
            }
            toml::Value::Table(inner) => toml::Value::Table(blank_headers(inner)),
            other => other.clone(),
        };
        (name.clone(), value)
    };
    table.iter().map(blank).collect()
}
