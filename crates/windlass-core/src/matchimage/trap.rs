//! Patterns that are valid and cover less than they seem to.
//!
//! Invariant: `traps_of_patterns_are_known`.

/// Why a pattern that the kubelet takes may not do what its author means; `None` for an ordinary one.
pub fn trap(pattern: &str) -> Option<&'static str> {
    if pattern.contains("://") {
        return Some("a pattern has no scheme; this one covers nothing");
    }
    if pattern.contains(['?', '#']) {
        return Some("what follows ? or # does not count, and ? stands for no letter");
    }
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    if host.contains('@') {
        return Some("what stands before @ does not count");
    }
    if path.contains('*') {
        return Some("a * in the path stands for itself; a path covers everything that begins with it");
    }
    if path.contains([':', '@']) {
        return Some("the tag and the digest of an image do not count, so this covers nothing");
    }
    if host.ends_with(":443") {
        return Some("an image without a port is not covered by one with :443");
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("hosts are compared with their case; images are usually written in lower case");
    }
    if !host.contains(['.', ':']) && host != "localhost" {
        return Some("a host of one part covers only images whose registry has no dot; * stays in its part");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::trap;

    #[test]
    fn traps_of_patterns_are_known() {
        for good in ["r.io", "*.dkr.ecr.*.amazonaws.com", "r.io:5000/team", "localhost", "localhost:5000", "[::1]:5000"]
        {
            assert_eq!(trap(good), None, "{good}");
        }
        for bad in [
            "https://r.io",
            "r?.io",
            "me@r.io",
            "*.registry.io/*",
            "r.io/app:v1",
            "r.io:443",
            "R.io",
            "*",
            "registry/a",
        ] {
            assert!(trap(bad).is_some(), "{bad}");
        }
    }
}
