//! Challenges, the choice among them, and how far the chosen realm is trusted.

use std::net::IpAddr;

use windlass_core::challenge::{MAX_CHALLENGES, MAX_PARAMETERS, Selection, parse, select};
use windlass_core::host::Host;
use windlass_core::httpurl::{HttpUrl, UrlScheme, WebOrigin};
use windlass_core::realm::{AddressClass, RealmVerdict, Trust, address_class, host_class, judge_realm};
use windlass_core::realm::{PlainHttp, header_fate, judge_redirect, judge_token_redirect};

/// Registries that ask: the first byte chooses.
const REGISTRIES: [(UrlScheme, &str); 8] = [
    (UrlScheme::Https, "registry.example.com"),
    (UrlScheme::Https, "registry-1.docker.io"),
    (UrlScheme::Https, "quay.io:8443"),
    (UrlScheme::Http, "localhost:5000"),
    (UrlScheme::Http, "10.0.0.7:5000"),
    (UrlScheme::Https, "[fd00::7]"),
    (UrlScheme::Https, "acct.azurecr.io"),
    (UrlScheme::Https, "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
];

/// First byte: the registry; the rest: header lines.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let lines: Vec<&str> = text.split('\n').collect();
    let challenges = parse(lines.iter().copied());
    assert!(challenges.len() <= MAX_CHALLENGES);
    for challenge in &challenges {
        assert!(!challenge.scheme.is_empty() && challenge.scheme == challenge.scheme.to_ascii_lowercase());
        assert!(challenge.params.len() <= MAX_PARAMETERS);
        for (at, (name, value)) in challenge.params.iter().enumerate() {
            assert!(!name.is_empty() && *name == name.to_ascii_lowercase());
            assert!(challenge.params[..at].iter().all(|(earlier, _)| earlier != name), "of doubles the first counts");
            assert_eq!(challenge.param(name), Some(value.as_str()));
        }
    }
    let (scheme, host) = REGISTRIES[usize::from(*first) % REGISTRIES.len()];
    let registry = WebOrigin::of_host(scheme, &Host::new(host));
    match select(&challenges) {
        Selection::Bearer(bearer) => {
            assert!(!bearer.realm.is_empty());
            assert!(bearer.scopes.iter().all(|scope| !scope.is_empty() && !scope.contains(' ')));
            judged(&registry, &bearer.realm);
        }
        Selection::Basic => assert!(challenges.iter().any(|c| c.scheme == "basic")),
        Selection::Unsupported { schemes } => {
            assert_eq!(schemes.len(), challenges.len());
            assert!(!schemes.iter().any(|scheme| scheme == "basic"));
        }
    }
    // Locations arrive from the same hands.
    redirected(&registry, lines[0]);
}

fn judged(registry: &WebOrigin, realm: &str) {
    let verdict = judge_realm(registry, realm, &[]);
    sound(registry, &verdict);
    if let Some(url) = &verdict.url {
        let allowed = judge_realm(registry, realm, &[url.authority()]);
        assert!(allowed.trust >= verdict.trust, "{realm:?}: an allowance takes nothing away");
    }
    let Some(url) = &verdict.url else {
        assert_eq!(verdict.trust, Trust::Refused);
        return;
    };
    let again = HttpUrl::parse(&url.to_request_uri()).unwrap_or_else(|e| panic!("{}: {e}", url.to_request_uri()));
    assert_eq!((again.origin(), again.to_request_uri()), (url.origin(), url.to_request_uri()));
    let hidden = if url.query().is_some() { "?***" } else { "" };
    assert_eq!(url.to_string(), format!("{}{}{hidden}", url.origin(), url.path()), "a query may be a signature");
    assert_eq!(format!("{url:?}"), url.to_string());
    // A browser's parser must see the same host, or one of the two would be deceived.
    let other = url::Url::parse(realm.trim()).unwrap_or_else(|e| panic!("{realm:?} was read as {url}: {e}"));
    let theirs = other.host_str().unwrap_or_default().trim_end_matches('.');
    assert!(same_host(theirs, &url.origin().name), "{realm:?}: {theirs} or {url}");
    assert_eq!(other.port_or_known_default(), Some(url.origin().port), "{realm:?}");
    assert!(other.username().is_empty() && other.password().is_none(), "{realm:?}");
}

/// Necessary conditions for sending anything, and for sending credentials, stated once more.
fn sound(registry: &WebOrigin, verdict: &RealmVerdict) {
    let Some(url) = &verdict.url else { return };
    let target = url.origin();
    let ip: Option<IpAddr> = target.name.trim_matches(['[', ']']).parse().ok();
    if verdict.trust != Trust::Refused {
        assert!(registry.scheme == UrlScheme::Http || target.scheme == UrlScheme::Https, "{url}: TLS was left");
        let link_local = match ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(v4)) => v4.is_link_local() || v4.is_multicast() || v4.is_unspecified(),
            Some(IpAddr::V6(v6)) => v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified(),
            None => ["metadata.google.internal", "metadata.goog"].contains(&target.name.as_str()),
        };
        assert!(!link_local, "{url} must never be asked");
        if registry.name != target.name {
            match host_class(&target.name) {
                AddressClass::Public => {}
                AddressClass::Forbidden => panic!("{url} must never be asked"),
                here => assert_eq!(here, host_class(&registry.name), "{url} for {registry}"),
            }
        }
    }
    if let Some(ip) = ip {
        assert_eq!(host_class(&target.name), address_class(ip), "{url}");
    }
    if verdict.trust == Trust::Credentials && registry.name != target.name {
        let hub = registry.name.ends_with("docker.io") && target.name == "auth.docker.io";
        let tail = |name: &str| name.rsplitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
        assert!(ip.is_none() && (hub || tail(&registry.name) == tail(&target.name)), "{url} got {registry}'s login");
        assert_eq!(target.scheme, UrlScheme::Https, "{url}");
        assert!(!registry.name.ends_with("amazonaws.com"), "{url}: its neighbours are strangers");
    }
}

fn redirected(registry: &WebOrigin, location: &str) {
    let start = format!("{registry}/v2/a/blobs/x?y=z");
    let from = HttpUrl::parse(&start).unwrap_or_else(|e| panic!("{start}: {e}"));
    if let Ok(redirect) = judge_redirect(registry, &from, location, 0, PlainHttp::Refused) {
        assert!(registry.scheme == UrlScheme::Http || redirect.url.origin().scheme == UrlScheme::Https);
        assert_eq!(redirect.same_origin, redirect.url.origin() == registry);
        assert!(host_class(&redirect.url.origin().name) != AddressClass::Forbidden, "{}", redirect.url);
        let fate = header_fate("Authorization", &redirect);
        assert_eq!(fate == windlass_core::realm::HeaderFate::Kept, redirect.same_origin);
    }
    if let Ok(redirect) = judge_token_redirect(registry, &from, location, 0, Trust::Credentials, &[]) {
        assert_eq!(redirect.url.origin(), registry, "credentials stay where they are");
    }
    if let Ok(redirect) = judge_token_redirect(registry, &from, location, 0, Trust::Anonymous, &[]) {
        sound(registry, &judge_realm(registry, &redirect.url.to_request_uri(), &[]));
    }
    // Relative ones resolve as in every browser, save that a backslash is no slash here, and that control characters,
    // which no header can hold, are not passed over.
    if location.contains(|c: char| c == '\\' || c.is_control()) {
        return;
    }
    if let (Ok(ours), Ok(base)) = (from.join(location), url::Url::parse(&start)) {
        let theirs = base.join(location.trim()).unwrap_or_else(|e| panic!("{location:?} was read as {ours}: {e}"));
        let name = theirs.host_str().unwrap_or_default().trim_end_matches('.');
        assert!(same_host(name, &ours.origin().name), "{location:?}: {theirs} or {ours}");
        assert_eq!(theirs.scheme(), ours.origin().scheme.as_str(), "{location:?}");
    }
}

/// Equal, or the same address in two notations.
fn same_host(one: &str, other: &str) -> bool {
    let address = |name: &str| name.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    one == other || (address(one).is_some() && address(one) == address(other))
}
