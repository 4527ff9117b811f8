use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::keyring::Credential;

fn read(text: &str) -> HostsFile {
    HostsFile::parse(text, Path::new("/etc/certs.d/r.io")).expect("a valid file")
}

/// Role, scheme, host, root, namespace and credentials of every endpoint, one line each.
fn shown(registry: &str, file: Option<&HostsFile>, own: &RegistryOverride, operation: Operation) -> Vec<String> {
    endpoints(&Host::new(registry), file, own, operation)
        .iter()
        .map(|e| {
            let ns = e.namespace.as_ref().map_or("-", Host::as_str);
            let credentials = match &e.credentials {
                CredentialPolicy::Registry => "registry",
                CredentialPolicy::Own(_) => "own",
                CredentialPolicy::Anonymous => "anonymous",
            };
            format!("{:?} {:?} {}{} {ns} {credentials}", e.role, e.scheme, e.host, e.base_path)
        })
        .collect()
}

const TWO_MIRRORS: &str = r#"
server = "https://r.io"
[host."https://b.mirror/proxy"]
  capabilities = ["pull"]
  ca = "ca.pem"
[host."http://a.mirror:5000"]
  override_path = true
  [host."http://a.mirror:5000".header]
    x-key = ["canary", "two"]
[host."https://r.io"]
"#;

#[test]
fn mirrors_come_first_and_the_registry_last() {
    let file = read(TWO_MIRRORS);
    let none = RegistryOverride::default();
    let b = "Mirror Https b.mirror/proxy/v2 r.io anonymous";
    let a = "Mirror Http a.mirror:5000 r.io anonymous";
    let own = "Registry Https r.io/v2 - registry";
    assert_eq!(shown("r.io", Some(&file), &none, Operation::Pull), [b, a, own]);
    assert_eq!(shown("r.io", Some(&file), &none, Operation::Resolve), [a, own]);
    assert_eq!(shown("r.io", Some(&file), &none, Operation::Push), [own]);
}

#[test]
fn hosts_keep_the_order_of_the_file() {
    let file = read(TWO_MIRRORS);
    let hosts: Vec<&str> = file.hosts.iter().filter_map(|h| h.url.as_ref()).map(|u| u.host.as_str()).collect();
    assert_eq!(hosts, ["b.mirror", "a.mirror:5000", "r.io"]);
    assert_eq!(file.hosts[0].settings.ca, [Path::new("/etc/certs.d/r.io/ca.pem")]);
}

#[test]
fn without_a_file_the_port_decides_on_this_machine() {
    let table = [
        ("docker.io", "Registry Https registry-1.docker.io/v2 - registry"),
        ("r.io:5000", "Registry Https r.io:5000/v2 - registry"),
        ("localhost", "Registry Https localhost/v2 - registry"),
        ("localhost:443", "Registry Https localhost:443/v2 - registry"),
        ("127.0.0.1:80", "Registry Http 127.0.0.1:80/v2 - registry"),
        ("[::1]:5000", "Registry Probe [::1]:5000/v2 - registry"),
    ];
    for (registry, want) in table {
        assert_eq!(shown(registry, None, &RegistryOverride::default(), Operation::Pull), [want], "{registry}");
    }
}

#[test]
fn credentials_of_the_registry_stay_with_it() {
    let file =
        read("server = \"https://up.io\"\n[host.\"https://up.io:443/x\"]\n[host.\"https://m.io\"]\n[host.\"t.io\"]");
    let trusted = HostOverride { trusted: true, ..HostOverride::default() };
    let own = HostOverride { credential: Some(Credential::basic("u", "p")), ..HostOverride::default() };
    let overrides = RegistryOverride {
        hosts: vec![(Host::new("t.io"), trusted)],
        mirrors: vec![MirrorOverride {
            url: HttpUrl::parse("https://o.io").expect("a URL"),
            override_path: false,
            resolve_tags: false,
            host: own,
        }],
        ..RegistryOverride::default()
    };
    assert_eq!(
        shown("r.io", Some(&file), &overrides, Operation::Pull),
        [
            "Mirror Https o.io/v2 r.io own",
            "Registry Https up.io/x/v2 r.io registry",
            "Mirror Https m.io/v2 r.io anonymous",
            "Mirror Https t.io/v2 r.io registry",
            "Registry Https up.io/v2 r.io registry",
        ]
    );
    let tags = shown("r.io", Some(&file), &overrides, Operation::Resolve);
    assert!(!tags.iter().any(|e| e.contains("o.io")), "own mirrors answer tags only when asked to: {tags:?}");
}

#[test]
fn pushes_never_go_to_a_mirror() {
    let file = read("[host.\"https://m.io\"]\ncapabilities = [\"push\", \"pull\"]");
    let no_fallback = RegistryOverride { fallback: Fallback::Never, ..RegistryOverride::default() };
    let own = ["Registry Https r.io/v2 - registry"];
    assert_eq!(shown("r.io", Some(&file), &no_fallback, Operation::Push), own);
    assert_eq!(shown("r.io", Some(&file), &no_fallback, Operation::Pull), ["Mirror Https m.io/v2 r.io anonymous"]);
}

#[test]
fn the_same_place_is_asked_once() {
    let file = read("server = \"https://r.io\"\n[host.\"https://r.io\"]\n[host.\"https://r.io/v2/\"]");
    assert_eq!(
        shown("r.io", Some(&file), &RegistryOverride::default(), Operation::Pull),
        ["Registry Https r.io/v2 - registry"]
    );
}

#[test]
fn capabilities_of_the_top_level_belong_to_server() {
    let with = read("server = \"https://r.io\"\ncapabilities = [\"pull\"]");
    let without = read("capabilities = [\"pull\"]");
    let none = RegistryOverride::default();
    assert!(shown("r.io", Some(&with), &none, Operation::Push).is_empty());
    assert_eq!(shown("r.io", Some(&without), &none, Operation::Push), ["Registry Https r.io/v2 - registry"]);
}

#[test]
fn a_default_port_makes_no_other_place() {
    let file = read("server = \"https://r.io:443\"\n[host.\"https://r.io\"]");
    let want = ["Registry Https r.io/v2 - registry"];
    for registry in ["r.io", "r.io:443"] {
        assert_eq!(shown(registry, Some(&file), &RegistryOverride::default(), Operation::Pull), want, "{registry}");
    }
}

#[test]
fn docker_hub_has_one_identity() {
    let file = read("[host.\"https://registry-1.docker.io\"]\n[host.\"https://mirror.gcr.io\"]");
    assert_eq!(
        shown("docker.io", Some(&file), &RegistryOverride::default(), Operation::Pull),
        ["Registry Https registry-1.docker.io/v2 - registry", "Mirror Https mirror.gcr.io/v2 docker.io anonymous"]
    );
}

#[test]
fn plain_http_is_used_only_where_it_was_asked_for() {
    let file = read("server = \"http://r.io:8080\"\nskip_verify = true");
    assert_eq!(
        shown("r.io:8080", Some(&file), &RegistryOverride::default(), Operation::Pull),
        ["Registry Probe r.io:8080/v2 - registry"]
    );
    let plain = RegistryOverride {
        own: HostOverride { plain_http: true, ..HostOverride::default() },
        ..RegistryOverride::default()
    };
    assert_eq!(shown("r.io:5000", None, &plain, Operation::Pull), ["Registry Http r.io:5000/v2 - registry"]);
}

#[test]
fn settings_reach_their_host_only() {
    let text = r#"
ca = ["/abs/a.pem", "b.pem"]
client = [["c.pem", "k.pem"], "both.pem"]
dial_timeout = "1m2.5s"
typo = 1
[host."https://m.io"]
skip_verify = true
header = { authorization = "canary" }
"#;
    let file = read(text);
    let list = endpoints(&Host::new("r.io"), Some(&file), &RegistryOverride::default(), Operation::Pull);
    let (mirror, own) = (&list[0].settings, &list[1].settings);
    assert_eq!((mirror.verify, mirror.headers.len(), mirror.ca.len()), (Verify::Skip, 1, 0));
    assert_eq!((own.verify, own.headers.len()), (Verify::Yes, 0));
    assert_eq!(own.ca, [Path::new("/abs/a.pem"), Path::new("/etc/certs.d/r.io/b.pem")]);
    assert_eq!(own.client[0].key.as_deref(), Some(Path::new("/etc/certs.d/r.io/k.pem")));
    assert_eq!((own.client.len(), own.client[1].key.clone()), (2, None));
    assert_eq!(own.dial_timeout, Some(Duration::from_millis(62_500)));
    assert_eq!(file.unknown, [UnknownKey { line: 5, key: "typo".into() }]);
}

#[test]
fn no_header_value_shows() {
    let file = read(TWO_MIRRORS);
    let list = endpoints(&Host::new("r.io"), Some(&file), &RegistryOverride::default(), Operation::Pull);
    assert!(!format!("{file:?} {list:?}").contains("canary"));
    for text in ["[header]\nx = \"canary", "[header]\nx = \"canary\\r\\ny: z\"", "[header]\nx = [\"canary\", 1]"] {
        let error = HostsFile::parse(text, Path::new("/")).expect_err("an invalid file");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn mistakes_name_their_line() {
    let table = [
        ("a = ", 1, "TOML"),
        ("\nunknown = 0x", 2, "TOML"),
        ("[host.\"https://m.io\"]\nunknown = 99999999999999999999", 2, "TOML"),
        ("\ncapabilities = [\"pul\"]", 2, "capabilities"),
        ("\n\nca = 5", 3, "ca must be"),
        ("client = [[\"a\"]]", 1, "client must be"),
        ("skip_verify = \"yes\"", 1, "true or false"),
        ("dial_timeout = \"5\"", 1, "duration"),
        ("server = \"https://u@h\"", 1, "server"),
        ("[host.\"ftp://x\"]", 1, "host"),
        ("host = 1", 1, "host must be"),
    ];
    for (text, line, what) in table {
        let error = HostsFile::parse(text, Path::new("/")).expect_err(text).to_string();
        assert!(error.starts_with(&format!("line {line}:")) && error.contains(what), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_the_parser_panic(text in "(server|host|ca|\\[|\\]|\"|=|\\.|https://a|\n| |[a-z0-9]){0,30}") {
        if let Ok(file) = HostsFile::parse(&text, Path::new("/")) {
            endpoints(&Host::new("r.io"), Some(&file), &RegistryOverride::default(), Operation::Pull);
        }
    }
}
