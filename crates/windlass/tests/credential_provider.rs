//! The plugin role as a kubelet sees it: standard input, standard output, exit status, the name of the file.

mod run;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use run::{Windlass, World};
use serde_json::{Value as Json, json};

const VERSIONS: [&str; 3] = ["v1alpha1", "v1beta1", "v1"];

fn request(version: &str, image: &str) -> String {
    let api_version = format!("credentialprovider.kubelet.k8s.io/{version}");
    json!({"kind": "CredentialProviderRequest", "apiVersion": api_version, "image": image}).to_string()
}

#[test]
fn an_image_of_another_registry_is_answered_with_nothing_in_each_version() {
    for cloud in ["ecr", "gcp", "acr"] {
        for version in VERSIONS {
            // A proxy and roots that cannot be used: nobody may be asked.
            let windlass = Windlass::new().env("HTTPS_PROXY", "http://127.0.0.1:9").env("SSL_CERT_FILE", "/nowhere");
            let windlass = windlass.args(["credential-provider", cloud]).stdin(&request(version, "quay.io/org/app"));
            let output = windlass.succeeds();
            let want = json!({
                "kind": "CredentialProviderResponse",
                "apiVersion": format!("credentialprovider.kubelet.k8s.io/{version}"),
                "cacheKeyType": "Registry",
                "cacheDuration": "0s",
                "auth": {},
            });
            assert_eq!((output.stdout_json(), output.stderr.as_str()), (want, ""), "{cloud} {version}");
        }
    }
}

#[test]
fn a_broken_configuration_does_not_matter() {
    let windlass = Windlass::new().config("rooot: broken\n").args(["credential-provider", "gcp"]);
    windlass.stdin(&request("v1", "nginx")).succeeds();
}

#[test]
fn a_failure_is_one_line_and_status_one() {
    let table = [
        ("{", "is not a CredentialProviderRequest in JSON"),
        ("", "there is no request on standard input"),
        (r#"{"kind":"Pod","apiVersion":"v1","image":"a"}"#, "not of kind CredentialProviderRequest"),
        (&request("v2", "a"), "the version of the request is none of"),
        (&request("v1", "A/../b"), "couldn't parse image name"),
        (&request("v1", "gcr.io/p/i"), "the metadata server at 127.0.0.1:9 cannot be asked"),
    ];
    for (stdin, want) in table {
        let windlass = Windlass::new().env("GCE_METADATA_HOST", "127.0.0.1:9").args(["credential-provider", "gcp"]);
        let output = windlass.stdin(stdin).fails(1);
        assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "{stdin}: {output:?}");
        assert!(output.stderr.contains(want), "{stdin}: {}", output.stderr);
    }
    let wrong = Windlass::new().args(["credential-provider", "gcp", "--authFlow", "x"]);
    assert!(wrong.stdin(&request("v1", "nginx")).fails(1).stderr.contains("--authFlow is none of gcr"), "authFlow");
    Windlass::new().args(["credential-provider", "gcp", "--no-such-flag"]).fails(2);
}

/// A metadata server for one test; ends with it.
fn metadata_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let head = stream.by_ref().lines().map_while(Result::ok);
            let lines: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            let is_token = lines.first().is_some_and(|line| line.contains("/default/token "));
            let (status, body) =
                if is_token { (200, r#"{"access_token":"canary-token","expires_in":3600}"#) } else { (404, "") };
            let head = format!("HTTP/1.1 {status} X\r\nMetadata-Flavor: Google\r\nConnection: close\r\n");
            let reply = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            // The client may have gone; the next one gets its answer.
            drop(stream.get_mut().write_all(reply.as_bytes()));
        }
    });
    address
}

#[test]
fn a_login_for_azure_is_followed_by_an_anonymous_attempt() {
    let file = r#"{"aadClientId":"sp","aadClientSecret":"canary","useManagedIdentityExtension":false}"#;
    let windlass = Windlass::new().file("azure.json", file).args(["credential-provider", "acr", "azure.json"]);
    let answer = windlass.stdin(&request("v1alpha1", "contoso.azurecr.io/app")).succeeds().stdout_json();
    assert_eq!(answer["apiVersion"], "credentialprovider.kubelet.k8s.io/v1alpha1");
    let login = json!({"username": "sp", "password": "canary"});
    let want = json!({"contoso.azurecr.io": login, "*.azurecr.*": {"username": "", "password": ""}});
    assert_eq!((&answer["auth"], &answer["cacheDuration"]), (&want, &json!("1h0m0s")));
    let missing = Windlass::new().args(["credential-provider", "acr", "/no/such/azure.json"]);
    let missing = missing.stdin(&request("v1", "contoso.azurecr.io/app")).fails(1);
    assert!(missing.stderr.contains("CONFIG names /no/such/azure.json"), "{}", missing.stderr);
}

#[test]
fn a_link_with_the_name_of_the_clouds_plugin_is_that_plugin() {
    let world = World::new();
    let (link, server) = (world.path("auth-provider-gcp"), metadata_server());
    std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin!("windlass"), &link).expect("links can be made");
    let mut child = std::process::Command::new(link)
        .args(["get-credentials", "--v=3"])
        .env_clear()
        .env("GCE_METADATA_HOST", server)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    stdin.write_all(request("v1beta1", "eu.gcr.io/p/i").as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let answer: Json = serde_json::from_slice(&output.stdout).expect("it answers in JSON");
    assert_eq!(answer["apiVersion"], "credentialprovider.kubelet.k8s.io/v1beta1");
    assert_eq!(answer["auth"], json!({"eu.gcr.io": {"username": "_token", "password": "canary-token"}}));
    assert_eq!(answer["cacheDuration"], "50m0s");
}
