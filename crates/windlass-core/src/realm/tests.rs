use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn origin(text: &str) -> WebOrigin {
    HttpUrl::parse(text).expect("a URL").origin().clone()
}

fn reason(registry: &str, realm: &str, allowed: &[&str]) -> &'static str {
    let allowed: Vec<Host> = allowed.iter().map(|host| Host::new(*host)).collect();
    judge_realm(&origin(registry), realm, &allowed).reason.as_str()
}

#[test]
fn metadata_addresses_are_never_asked() {
    let hosts = [
        "169.254.169.254",
        "169.254.170.2",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[::169.254.169.254]",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[ff02::1]",
        "metadata.google.internal.",
        "Metadata",
    ];
    for host in hosts {
        for registry in ["https://r.io", "https://10.0.0.1", "https://localhost:5000", &format!("https://{host}")] {
            let realm = format!("https://{host}/token");
            assert_eq!(reason(registry, &realm, &[host]), "forbidden_address", "{registry} {realm}");
        }
    }
}

#[test]
fn an_allowed_realm_still_obeys_the_address_rules() {
    let table = [
        ("https://r.io", "https://auth.other.io/t", &["auth.other.io"] as &[&str], "allowed"),
        ("https://r.io", "https://auth.other.io:8443/t", &["auth.other.io:8443"], "allowed"),
        ("https://r.io", "https://auth.other.io/t", &["auth.other.io:8443"], "cross_site"),
        ("https://r.io", "https://10.0.0.9/t", &["10.0.0.9"], "allowed"),
        ("https://r.io", "https://10.0.0.9/t", &[], "private_address"),
        ("https://r.io", "http://auth.r.io/t", &["auth.r.io"], "downgrade"),
        ("http://r.io", "http://auth.r.io/t", &["auth.r.io"], "cross_host_http"),
        ("https://r.io", "https://x.localhost/t", &[], "loopback"),
    ];
    for (registry, realm, allowed, want) in table {
        assert_eq!(reason(registry, realm, allowed), want, "{registry} {realm} {allowed:?}");
    }
}

#[test]
fn tenants_of_one_cloud_are_strangers() {
    let table = [
        ("registry.a.com", "auth.a.com", true),
        ("a.com", "auth.a.com", true),
        ("a.com", "b.com", false),
        ("x.a.co.uk", "y.a.co.uk", true),
        ("a.co.uk", "b.co.uk", false),
        ("co.uk", "co.uk", false),
        ("one.azurecr.io", "two.azurecr.io", false),
        ("one.azurecr.io", "one.eastus.geo.azurecr.io", true),
        ("one.eastus.geo.azurecr.io", "two.eastus.geo.azurecr.io", false),
        ("one.azurecr.io", "one.azurecr.cn", false),
        ("1.dkr.ecr.us-east-1.amazonaws.com", "evil.s3.us-east-1.amazonaws.com", false),
        ("a.github.io", "b.github.io", false),
        ("registry", "registry", false),
        ("10.0.0.4", "10.0.0.4", false),
        ("10.0.0.4", "9.0.0.4", false),
        ("[::1]", "[::1]", false),
    ];
    for (a, b, want) in table {
        assert_eq!((same_site(a, b), same_site(b, a)), (want, want), "{a} {b}");
    }
}

#[test]
fn resolved_addresses_are_judged_like_written_ones() {
    use AddressClass::{Loopback, Private, Public};
    let table = [
        ("169.254.169.254", Loopback, true, Err(TrustReason::ForbiddenAddress)),
        ("::ffff:169.254.169.254", Public, true, Err(TrustReason::ForbiddenAddress)),
        ("127.0.0.1", Public, false, Err(TrustReason::Loopback)),
        ("127.0.0.1", Public, true, Ok(())),
        ("::1", Loopback, false, Ok(())),
        ("10.1.2.3", Public, false, Err(TrustReason::PrivateAddress)),
        ("fd12::1", Private, false, Ok(())),
        ("100.64.0.1", Public, true, Ok(())),
        ("8.8.8.8", Private, false, Ok(())),
    ];
    for (address, registry, same_host, want) in table {
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(check_address(address, registry, same_host, false), want, "{address} {registry:?}");
    }
    let private: IpAddr = [10, 0, 0, 1].into();
    assert_eq!(check_address(private, Public, false, true), Ok(()), "allowed by the configuration");
}

#[test]
fn credentials_never_leave_their_origin_by_redirect() {
    let registry = origin("https://r.io");
    let from = HttpUrl::parse("https://r.io/v2/a/blobs/x").expect("a URL");
    let table = [
        ("/v2/other", true),
        ("https://r.io:443/x", true),
        ("https://r.io:8443/x", false),
        ("https://cdn.r.io/x", false),
        ("https://evil.io/x", false),
    ];
    for (location, same) in table {
        let redirect = judge_redirect(&registry, &from, location, 0, PlainHttp::Refused).expect(location);
        assert_eq!(redirect.same_origin, same, "{location}");
        let fate = if same { HeaderFate::Kept } else { HeaderFate::Dropped };
        for header in ["Authorization", "cookie", "Proxy-Authorization", "X-Configured"] {
            assert_eq!(header_fate(header, &redirect), fate, "{location} {header}");
        }
        assert_eq!(header_fate("Range", &redirect), HeaderFate::Kept);
    }
    // Back at the registry after a stranger's hop: what was dropped stays dropped.
    let stranger = HttpUrl::parse("https://evil.io/x").expect("a URL");
    let back = judge_redirect(&registry, &stranger, "https://r.io/x", 1, PlainHttp::Refused).expect("back");
    assert!(!back.same_origin);
}

#[test]
fn redirects_end_where_they_must() {
    let registry = origin("https://r.io");
    let from = HttpUrl::parse("https://r.io/v2/a/blobs/x").expect("a URL");
    let judge = |location: &str, followed, plain| judge_redirect(&registry, &from, location, followed, plain);
    assert!(matches!(judge("/x", 5, PlainHttp::Refused), Err(RedirectError::TooMany { limit: 5 })));
    assert!(matches!(judge("http://r.io/x", 0, PlainHttp::Refused), Err(RedirectError::Downgrade { .. })));
    assert!(judge("http://r.io/x", 0, PlainHttp::Allowed).is_ok_and(|r| !r.same_origin));
    assert!(judge("https://10.0.0.7/bucket", 0, PlainHttp::Refused).is_ok());
    for location in ["https://169.254.169.254/x", "https://127.0.0.1/x", "https://localhost/x"] {
        assert!(matches!(judge(location, 0, PlainHttp::Allowed), Err(RedirectError::Address { .. })), "{location}");
    }
    for location in ["file:///etc/passwd", "https://u:canary@h/x"] {
        let error = judge(location, 0, PlainHttp::Allowed).expect_err(location);
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn token_redirects_keep_credentials_at_home() {
    let registry = origin("https://r.io");
    let from = HttpUrl::parse("https://auth.r.io/token").expect("a URL");
    let judge = |location: &str, sent| judge_token_redirect(&registry, &from, location, 0, sent, &[]);
    assert!(judge("/v2", Trust::Credentials).is_ok());
    assert!(matches!(judge("https://r.io/t", Trust::Credentials), Err(RedirectError::Credentials { .. })));
    assert!(judge("https://other.io/t", Trust::Anonymous).is_ok());
    assert!(matches!(judge("https://10.0.0.1/t", Trust::Anonymous), Err(RedirectError::Address { .. })));
    assert!(matches!(judge("http://auth.r.io/t", Trust::Anonymous), Err(RedirectError::Downgrade { .. })));
    let third = judge_token_redirect(&registry, &from, "/x", 3, Trust::Anonymous, &[]);
    assert!(matches!(third, Err(RedirectError::TooMany { limit: 3 })));
}

proptest! {
    #[test]
    fn nothing_makes_the_judge_panic(realm in ".{0,60}", host in "[a-z.:0-9\\[\\]]{0,20}") {
        for registry in ["https://r.io", "http://localhost:5000"] {
            judge_realm(&origin(registry), &realm, &[]);
            judge_realm(&origin(registry), &format!("https://{host}/t"), &[Host::new(host.as_str())]);
        }
    }
}
