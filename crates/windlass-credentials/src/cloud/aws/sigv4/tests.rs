//! The test suite that AWS published.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../../../../vectors/aws-sigv4.json");

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

/// Headers as the suite writes them; a line that begins with a blank goes on with the one before.
fn headers(head: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.lines().skip(1) {
        match (line.starts_with(' '), headers.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => value.push_str(line),
            (_, _, Some((name, value))) => headers.push((name.to_owned(), value.to_owned())),
            (_, _, None) => panic!("no header: {line}"),
        }
    }
    headers
}

fn keys(context: &Value) -> Keys {
    let credentials = &context["credentials"];
    let signed = context["omit_session_token"].as_bool() != Some(true);
    let token = credentials["token"].as_str().filter(|_| signed);
    Keys {
        access_key_id: text(credentials, "access_key_id").to_owned(),
        secret: Secret::from(text(credentials, "secret_access_key")),
        session_token: token.map(Secret::from),
        expires: None,
        source: String::new(),
    }
}

fn check(case: &Value) {
    let (request, context) = (text(case, "request"), &case["context"]);
    let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
    let first = head.lines().next().unwrap();
    let (method, target) = first.strip_suffix(" HTTP/1.1").unwrap().split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = headers(head);
    if context["sign_body"] == true {
        // Whoever signs the body sends its hash.
        headers
            .push(("x-amz-content-sha256".to_owned(), hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())));
    }
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let what = ToSign { method, path, query, headers: &headers, body: body.as_bytes() };
    let scope = Scope { region: text(context, "region"), service: text(context, "service") };
    let at = moment::rfc3339(text(context, "timestamp")).unwrap();
    let signed = sign(&what, &keys(context), scope, at);
    assert_eq!(signed.canonical, text(case, "canonical_request"), "{}", case["id"]);
    let signature = format!("Signature={}", text(case, "signature"));
    assert!(signed.authorization.expose().ends_with(&signature), "{}", case["id"]);
    let sent = format!("Authorization:{}", signed.authorization.expose());
    assert!(text(case, "signed_request").lines().any(|line| line == sent), "{}: {sent}", case["id"]);
}

#[test]
#[expect(clippy::print_stdout, reason = "the runner of all tests adds up the vectors that passed")]
fn published_vectors_pass() {
    let document: Value = serde_json::from_str(VECTORS).unwrap();
    let cases = document["vectors"].as_array().unwrap();
    cases.iter().for_each(check);
    println!("vectors aws-sigv4.json: {} cases passed", cases.len());
}

#[test]
fn no_key_shows() {
    let keys = Keys {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret: Secret::from("canary-secret"),
        session_token: Some(Secret::from("canary-token")),
        expires: None,
        source: "a test".to_owned(),
    };
    let what = ToSign { method: "GET", path: "/", query: "", headers: &[("host", "a.example")], body: b"" };
    let mut signed = sign(&what, &keys, Scope { region: "r", service: "s" }, SystemTime::UNIX_EPOCH);
    signed.canonical.clear();
    let shown = format!("{keys:?} {signed:?}");
    assert!(!shown.contains("canary") && !shown.contains("Signature="), "{shown}");
}

proptest! {
    #[test]
    fn every_request_can_be_signed(path in ".{0,40}", query in "([%&=/+]|.){0,40}", body: Vec<u8>, seconds in 0u64..1 << 40) {
        let keys = Keys {
            access_key_id: "A".to_owned(),
            secret: Secret::from("s"),
            session_token: None,
            expires: None,
            source: String::new(),
        };
        let what = ToSign { method: "POST", path: &path, query: &query, headers: &[("host", "h")], body: &body };
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let signed = sign(&what, &keys, Scope { region: "r", service: "s" }, at);
        prop_assert!(signed.authorization.expose().starts_with(ALGORITHM) && signed.date.len() >= 16);
    }
}
