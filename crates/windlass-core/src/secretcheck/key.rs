//! What is odd about an `auths` key.

use super::ProblemKind;
use crate::keyring::normalise_key;

/// Names that people use for Docker Hub and that no image is looked up under.
const NOT_HUB: [&str; 4] = ["registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com", "*.docker.io"];

pub(super) fn problems(written: &str) -> Vec<ProblemKind> {
    let bare = written.strip_prefix("https://").or_else(|| written.strip_prefix("http://")).unwrap_or(written);
    if bare.contains("://") {
        return vec![ProblemKind::KeyScheme];
    }
    let (host, path) = bare.split_once('/').map_or((bare, ""), |(host, path)| (host, path));
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let odd_host_glob = host.contains('?') || (host.contains(['[', ']']) && !host.starts_with('['));
    if odd_host_glob || path.contains(['*', '?', '[']) || host.ends_with(":*") {
        return vec![ProblemKind::KeyGlob];
    }
    let Some(key) = normalise_key(written) else { return vec![ProblemKind::KeyUnparsable] };
    let path = key.split_once('/').map_or("", |(_, path)| path);
    let mut found = Vec::new();
    if NOT_HUB.contains(&name.to_ascii_lowercase().as_str()) {
        found.push(ProblemKind::KeyHubName);
    }
    if matches!(path, "v1" | "v2") {
        found.push(ProblemKind::KeyVersionPath);
    } else if path.contains(':') || path.contains('@') {
        found.push(ProblemKind::KeyTag);
    } else if !path.is_empty() && !path.ends_with('/') {
        found.push(ProblemKind::KeyNeighbours);
    }
    if host.ends_with(":443") {
        found.push(ProblemKind::KeyDefaultPort);
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        found.push(ProblemKind::KeyUpperCase);
    }
    found
}
