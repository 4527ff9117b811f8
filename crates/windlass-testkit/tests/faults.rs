//! The faulty registry does what its faults say, seen from a bare socket.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use windlass_testkit::faults::{Cut, Fault, FaultyRegistry, Guard, PASSWORD, SeenAuthorization, USER, When, plans};
use windlass_testkit::images::{Image, small};

/// Sends one GET and reads until the end, or until `max` bytes.
fn get(registry: &FaultyRegistry, path: &str, headers: &str, max: u64) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = TcpStream::connect(registry.addr()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let error = stream.take(max).read_to_end(&mut answer).err().map(|error| error.kind());
    (answer, error)
}

fn body(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    &answer[end + 4..]
}

fn with_image() -> (FaultyRegistry, Image, String) {
    let registry = FaultyRegistry::open();
    let image = small("faults");
    registry.place(&image.bundle(), "a/b", "v1");
    let blob = format!("/v2/a/b/blobs/{}", image.layers[0].blob.digest);
    (registry, image, blob)
}

#[test]
fn without_faults_it_is_honest() {
    let (registry, image, blob) = with_image();
    let layer = &image.layers[0].blob.bytes;
    assert_eq!(body(&get(&registry, "/v2/a/b/manifests/v1", "", 1 << 20).0), &image.manifest.bytes);
    assert_eq!(body(&get(&registry, &blob, "", 1 << 20).0), layer);
    let (part, _) = get(&registry, &blob, "Range: bytes=10-19\r\n", 1 << 20);
    assert!(part.starts_with(b"HTTP/1.1 206"));
    assert_eq!(body(&part), &layer[10..20]);
    assert!(get(&registry, "/v2/a/b/manifests/v2", "", 1 << 20).0.starts_with(b"HTTP/1.1 404"));
    assert_eq!(registry.count("GET", "/blobs/"), 2);
}

#[test]
fn bodies_are_cut_reset_lengthened_and_flipped() {
    let (registry, image, blob) = with_image();
    let layer = &image.layers[0].blob.bytes;
    registry.inject(When::blob().only(1), Fault::Truncate { at: 7, how: Cut::Close });
    registry.inject(When::blob().only(2), Fault::Truncate { at: 7, how: Cut::Reset });
    registry.inject(When::blob().only(3), Fault::Longer(3));
    registry.inject(When::blob().only(4), Fault::FlipBit(8));
    registry.inject(When::blob().only(5), Fault::Endless { is_chunked: false });
    assert_eq!(body(&get(&registry, &blob, "", 1 << 20).0), &layer[..7]);
    assert_eq!(get(&registry, &blob, "", 1 << 20).1, Some(ErrorKind::ConnectionReset));
    assert_eq!(body(&get(&registry, &blob, "", 1 << 20).0).len(), layer.len() + 3);
    let flipped = get(&registry, &blob, "", 1 << 20).0;
    assert_eq!(body(&flipped)[1], layer[1] ^ 1);
    assert_eq!(get(&registry, &blob, "", 4 << 20).0.len(), 4 << 20);
    assert_eq!(body(&get(&registry, &blob, "", 1 << 20).0), layer, "the sixth is honest again");
}

#[test]
fn a_stall_ends_with_the_registry() {
    let (registry, _, blob) = with_image();
    registry.inject(When::blob(), Fault::Stall { at: 5, how_long: None });
    let mut stream = TcpStream::connect(registry.addr()).expect("connected");
    stream.write_all(format!("GET {blob} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
    let mut first = [0; 17];
    stream.read_exact(&mut first).expect("the head comes");
    let started = Instant::now();
    drop(registry);
    let mut rest = Vec::new();
    // Whether it ends with FIN or RST does not matter.
    let _ended = stream.read_to_end(&mut rest);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn credentials_are_seen_but_not_kept() {
    let registry = FaultyRegistry::build().guard(Guard::bearer(USER, PASSWORD)).start();
    registry.place(&small("guard").bundle(), "a/b", "v1");
    let manifest = "/v2/a/b/manifests/v1";
    let refused = String::from_utf8(get(&registry, manifest, "", 1 << 20).0).expect("text");
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("scope=\"repository:a/b:pull\""), "{refused}");
    assert!(!registry.saw_credentials());
    let token_path = "/token?service=faulty&scope=repository:a/b:pull";
    assert!(get(&registry, token_path, "", 1 << 20).0.starts_with(b"HTTP/1.1 401"), "not for nobody");
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let answer = get(&registry, token_path, &format!("Authorization: Basic {basic}\r\n"), 1 << 20).0;
    let token: serde_json::Value = serde_json::from_slice(body(&answer)).expect("JSON");
    let header = format!("Authorization: Bearer {}\r\n", token["token"].as_str().expect("a token"));
    assert!(get(&registry, manifest, &header, 1 << 20).0.starts_with(b"HTTP/1.1 200"));
    registry.revoke_tokens();
    assert!(get(&registry, manifest, &header, 1 << 20).0.starts_with(b"HTTP/1.1 401"));
    let seen = registry.requests();
    assert_eq!(seen[2].authorization, SeenAuthorization::Basic { user: USER.to_owned(), is_good: true });
    assert_eq!(seen[3].authorization, SeenAuthorization::Bearer { is_good: true });
    assert!(!format!("{seen:?}").contains(PASSWORD));
}

#[test]
fn every_plan_has_a_name_of_its_own_and_a_setting_that_starts() {
    let plans = plans();
    let names: BTreeSet<&str> = plans.iter().map(|plan| plan.id).collect();
    assert_eq!(names.len(), plans.len());
    for family in [
        "endless",
        "long",
        "short",
        "corrupt",
        "digest-lie",
        "bitflips",
        "html",
        "redirect-",
        "auth-loop",
        "realm-",
        "e500",
        "e503",
        "e429",
        "flaky",
        "outage-",
        "reset-",
        "range-ignore",
        "range-lie",
        "stall",
        "slow",
        "stall-for-ever",
        "headers",
        "manyheaders",
        "path-control",
        "gzip-enc",
        "tag-move",
    ] {
        assert!(names.iter().any(|name| name.starts_with(family)), "{family}");
    }
    for plan in plans {
        let setting = plan.set();
        assert!(setting.reference.starts_with(&setting.registry.host()), "{}", plan.id);
        assert!(!setting.other.saw_credentials(), "{}", plan.id);
    }
}
