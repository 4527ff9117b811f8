//! The search as a whole: order, ends, and the endpoints beside a workload.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use windlass_core::secret::Secret;

use super::*;
use crate::cloud::aws::{AwsSettings, CredentialProcess};
use crate::cloud::retry::Deadline;
use crate::cloud::script::{Reply, Script, Seen, web};

const ARN: &str = "arn:aws:iam::123456789012:role/pull";

/// The variables of a machine that has nothing.
fn bare() -> BTreeMap<&'static str, String> {
    BTreeMap::from([("AWS_EC2_METADATA_DISABLED", "true".to_owned()), ("HOME", "/nowhere".to_owned())])
}

async fn search(
    variables: &BTreeMap<&'static str, String>,
    fallback: NodeFallback,
    account: Option<&ServiceAccountToken>,
) -> Result<Keys, CloudError> {
    let mut settings = AwsSettings::from_environment(&|name| variables.get(name).map(Into::into));
    settings.node_fallback = fallback;
    let web = web();
    let deadline = Deadline::after(Duration::from_secs(20), Instant::now());
    find(&Ask { settings: &settings, web: &web, deadline, region: "eu-west-1" }, account).await
}

async fn plain(variables: &BTreeMap<&'static str, String>) -> Result<Keys, CloudError> {
    search(variables, NodeFallback::Refused, None).await
}

fn account(annotation: Option<&str>) -> ServiceAccountToken {
    let annotations = annotation.map(|arn| (ROLE_ANNOTATION.to_owned(), arn.to_owned())).into_iter().collect();
    ServiceAccountToken { token: Secret::from("canary.jwt"), annotations }
}

fn sts(id: &str) -> String {
    format!(
        "<R><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
         <SessionToken>t</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></R>"
    )
}

fn keys_json(id: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"s","Token":"t","Expiration":"2030-01-01T00:00:00Z"}}"#
    )
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// An instance with the role `node`.
fn imds(seen: &Seen) -> Reply {
    match (seen.method.as_str(), seen.target.as_str(), seen.header("x-aws-ec2-metadata-token")) {
        ("PUT", "/latest/api/token", _) if seen.header("x-aws-ec2-metadata-token-ttl-seconds") == "21600" => {
            Reply::new(200, "session")
        }
        ("GET", "/latest/meta-data/iam/security-credentials/", "session") => Reply::new(200, "node\n"),
        ("GET", "/latest/meta-data/iam/security-credentials/node", "session") => Reply::new(200, keys_json("IMDS")),
        _ => Reply::new(401, ""),
    }
}

/// Every place at once; the test takes them away one by one.
#[tokio::test]
async fn the_order_is_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::start(|_, seen| match seen.body.contains("WebIdentityToken=canary.jwt") {
        true => Reply::new(200, sts("ACCOUNT")),
        false if seen.body.contains("WebIdentityToken=irsa") => Reply::new(200, sts("IRSA")),
        false if seen.target == "/pod" => Reply::new(200, keys_json("POD")),
        false => imds(seen),
    });
    let script = script.await;
    let profiles = "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n";
    let mut variables = BTreeMap::from([
        ("AWS_ENDPOINT_URL_STS", script.url()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", script.url()),
        ("AWS_ACCESS_KEY_ID", "VARIABLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", write(folder.path(), "credentials", profiles)),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", write(folder.path(), "token", "irsa\n")),
        ("AWS_ROLE_ARN", ARN.to_owned()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/pod", script.url())),
    ]);
    let of_account = search(&variables, NodeFallback::Refused, Some(&account(Some(ARN)))).await.unwrap();
    assert_eq!(of_account.access_key_id, "ACCOUNT");
    let steps = [
        ("VARIABLE", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].as_slice()),
        ("FILE", &["AWS_SHARED_CREDENTIALS_FILE"]),
        ("IRSA", &["AWS_WEB_IDENTITY_TOKEN_FILE"]),
        ("POD", &["AWS_CONTAINER_CREDENTIALS_FULL_URI"]),
        ("IMDS", &[]),
    ];
    for (want, then_without) in steps {
        assert_eq!(plain(&variables).await.unwrap().access_key_id, want);
        then_without.iter().for_each(|name| {
            variables.remove(name);
        });
    }
}

#[tokio::test]
async fn nothing_found_says_where_it_was_looked_for() {
    let error = plain(&bare()).await.unwrap_err();
    let want = "no identity: AWS_ACCESS_KEY_ID is not set; there is no profile default in ~/.aws; \
                AWS_WEB_IDENTITY_TOKEN_FILE is not set; AWS_CONTAINER_CREDENTIALS_FULL_URI is not set; \
                AWS_EC2_METADATA_DISABLED is set";
    assert_eq!(error.to_string(), want);
    assert!(!error.hint().is_empty());
}

#[tokio::test]
async fn a_token_without_a_role_is_an_error() {
    let error = search(&bare(), NodeFallback::Refused, Some(&account(None))).await.unwrap_err();
    assert!(error.to_string().contains(ROLE_ANNOTATION) && error.hint().contains("--allow-node-fallback"), "{error}");
    let mut variables = bare();
    variables.extend([("AWS_ACCESS_KEY_ID", "NODE".to_owned()), ("AWS_SECRET_ACCESS_KEY", "s".to_owned())]);
    let keys = search(&variables, NodeFallback::Allowed, Some(&account(None))).await.unwrap();
    assert_eq!(keys.access_key_id, "NODE");
    // A role that refuses is no reason to be the machine.
    let script = Script::start(|_, _| Reply::new(403, "<E><Code>AccessDenied</Code></E>")).await;
    variables.extend([("AWS_ECR_ROLE_ARN", ARN.to_owned()), ("AWS_ENDPOINT_URL", script.url())]);
    search(&variables, NodeFallback::Allowed, Some(&account(None))).await.unwrap_err();
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn what_is_set_up_by_half_is_an_error() {
    let table = [
        ("AWS_ACCESS_KEY_ID", "x", "AWS_SECRET_ACCESS_KEY is not"),
        ("AWS_SECRET_ACCESS_KEY", "canary", "AWS_ACCESS_KEY_ID is not"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere", "AWS_ROLE_ARN is not"),
        ("AWS_PROFILE", "ghost", "in none of the shared files"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example", "https"),
    ];
    for (name, value, want) in table {
        let mut variables = bare();
        variables.insert(name, value.to_owned());
        let error = plain(&variables).await.unwrap_err().to_string();
        assert!(error.starts_with(name) && error.contains(want) && !error.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_profile_that_was_asked_for_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::start(|number, _| Reply::new(200, sts(&format!("ROLE{number}")))).await;
    let config = "[profile a]\nrole_arn = arn:aws:iam::123456789012:role/a\nsource_profile = b\n\
                  [profile b]\nrole_arn = arn:aws:iam::123456789012:role/b\ncredential_source = Environment\n";
    let mut variables = bare();
    variables.extend([
        ("AWS_CONFIG_FILE", write(folder.path(), "config", config)),
        ("AWS_PROFILE", "a".to_owned()),
        ("AWS_ENDPOINT_URL_STS", script.url()),
    ]);
    assert!(plain(&variables).await.unwrap_err().to_string().contains("AWS_ACCESS_KEY_ID is not set"));
    variables.insert("AWS_PROFILE", "ghost".to_owned());
    assert!(plain(&variables).await.unwrap_err().to_string().starts_with("AWS_PROFILE names a profile"));
}

#[tokio::test]
async fn the_token_file_is_read_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::start(|_, seen| Reply::new(200, keys_json(seen.header("authorization")))).await;
    let mut variables = bare();
    variables.extend([
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", script.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", write(folder.path(), "token", "first")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "never".to_owned()),
    ]);
    assert_eq!(plain(&variables).await.unwrap().access_key_id, "first");
    write(folder.path(), "token", "second");
    assert_eq!(plain(&variables).await.unwrap().access_key_id, "second");
    variables.remove("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    assert_eq!(plain(&variables).await.unwrap().access_key_id, "never");
}

fn on_instance(script: &Script) -> BTreeMap<&'static str, String> {
    let mut variables = bare();
    variables.remove("AWS_EC2_METADATA_DISABLED");
    variables.insert("AWS_EC2_METADATA_SERVICE_ENDPOINT", script.url());
    variables
}

#[tokio::test]
async fn a_token_that_ended_is_replaced_once() {
    let script = Script::start(|number, seen| if number == 1 { Reply::new(401, "") } else { imds(seen) }).await;
    let keys = plain(&on_instance(&script)).await.unwrap();
    assert_eq!((keys.access_key_id.as_str(), keys.source.as_str()), ("IMDS", "this instance's role node"));
    let put = |seen: &&Seen| seen.method == "PUT";
    assert_eq!((script.seen().iter().filter(put).count(), script.seen().len()), (2, 5));
    let script = Script::start(|_, seen| Reply::new(if seen.method == "PUT" { 200 } else { 401 }, "x")).await;
    assert!(matches!(plain(&on_instance(&script)).await, Err(CloudError::Refused { .. })));
    assert_eq!(script.seen().len(), 4);
}

#[tokio::test]
async fn an_instance_without_a_role_is_no_error() {
    for body in [(404, ""), (200, ""), (200, "\n")] {
        let script = Script::start(move |_, seen| match seen.method.as_str() {
            "PUT" => Reply::new(200, "session"),
            _ => Reply::new(body.0, body.1),
        });
        let error = plain(&on_instance(&script.await)).await.unwrap_err();
        assert!(error.to_string().ends_with("this instance has no role"), "{error}");
    }
}

#[tokio::test]
async fn version_one_is_never_asked() {
    for status in [403, 404, 405] {
        let script = Script::start(move |_, _| Reply::new(status, "")).await;
        let error = plain(&on_instance(&script)).await.unwrap_err();
        assert!(matches!(error, CloudError::Refused { .. }) && error.hint().contains("version 2"), "{error}");
        assert!(script.seen().iter().all(|seen| seen.method == "PUT") && script.seen().len() == 1);
    }
}

#[tokio::test]
async fn what_an_instance_answers_is_not_trusted() {
    let table = [
        ("../../evil", "", "names a role that cannot be one"),
        (
            "node",
            r#"{"Code":"AssumeRoleUnauthorizedAccess"}"#,
            "refused: AssumeRoleUnauthorizedAccess for the role node",
        ),
        ("node", r#"{"Code":"Success","AccessKeyId":"x"}"#, "has no SecretAccessKey"),
        ("node", "<html>", "is no JSON"),
    ];
    for (role, body, want) in table {
        let script = Script::start(move |number, _| Reply::new(200, ["session", role, body][number])).await;
        let error = plain(&on_instance(&script)).await.unwrap_err().to_string();
        assert!(error.ends_with(want), "{error}");
    }
}

#[tokio::test]
async fn silence_names_the_hop_limit() {
    let script = Script::start(|_, _| Reply::new(200, "").after(Duration::from_secs(60))).await;
    let settings = AwsSettings::from_environment(&|name| on_instance(&script).get(name).map(Into::into));
    let web = web();
    let deadline = Deadline::after(Duration::from_millis(100), Instant::now());
    let ask = Ask { settings: &settings, web: &web, deadline, region: "eu-west-1" };
    let error = find(&ask, None).await.unwrap_err();
    assert!(
        matches!(error, CloudError::Unreachable { .. }) && error.hint().contains("HttpPutResponseHopLimit"),
        "{error}"
    );
    // Where nobody listens is no instance.
    let mut variables = on_instance(&script);
    variables.insert("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1".to_owned());
    assert!(plain(&variables).await.unwrap_err().to_string().ends_with("127.0.0.1:1 is not there"));
}

/// A profile whose keys a shell script brings.
async fn by_program(folder: &Path, script: &str, allowed: CredentialProcess) -> Result<Keys, CloudError> {
    let program = write(folder, "keys.sh", script);
    let config = format!("[default]\ncredential_process = /bin/sh '{program}' it\n");
    let mut variables = bare();
    variables.insert("AWS_CONFIG_FILE", write(folder, "config", &config));
    variables.insert("AWS_SESSION_TOKEN", "canary".to_owned());
    let mut settings = AwsSettings::from_environment(&|name| variables.get(name).map(Into::into));
    settings.credential_process = allowed;
    let web = web();
    let deadline = Deadline::after(Duration::from_secs(20), Instant::now());
    find(&Ask { settings: &settings, web: &web, deadline, region: "eu-west-1" }, None).await
}

#[tokio::test]
async fn programs_run_only_where_that_was_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ran");
    let answer = keys_json("$1-$HOME-$AWS_SESSION_TOKEN").replace('"', "\\\"").replace("Token\\\"", "SessionToken\\\"");
    let script = format!("touch '{}'; echo \"{answer}\"", mark.display());
    let error = by_program(folder.path(), &script, CredentialProcess::Refused).await.unwrap_err();
    assert!(error.to_string().contains("only where --allow-credential-process") && !mark.exists(), "{error}");
    let keys = by_program(folder.path(), &script, CredentialProcess::Allowed).await.unwrap();
    assert_eq!((keys.access_key_id.as_str(), mark.exists()), ("it-/nowhere-", true));
    assert_eq!(keys.session_token, Some(Secret::from("t")));
}

#[tokio::test]
async fn what_a_program_says_never_shows() {
    let folder = tempfile::tempdir().unwrap();
    let table = [
        ("echo canary; echo canary >&2; exit 3", "failed: exit status: 3"),
        ("echo canary", "is no JSON"),
        ("echo '{\"AccessKeyId\":\"canary\"}'", "has no SecretAccessKey"),
        ("head -c 70000 /dev/zero", "says more than 64 KiB"),
    ];
    for (script, want) in table {
        let error = by_program(folder.path(), script, CredentialProcess::Allowed).await.unwrap_err().to_string();
        assert!(error.ends_with(want) && !error.contains("canary"), "{error}");
    }
}
