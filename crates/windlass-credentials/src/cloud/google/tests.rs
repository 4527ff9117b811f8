//! Google against scripted servers.

use windlass_distribution::web::WebConfig;

use super::*;
use crate::cloud::script::{Reply, Script, Seen, certified, web};
use crate::provider::ServiceAccountToken;

const SCOPES: &str = "/computeMetadata/v1/instance/service-accounts/default/scopes?alt=json";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

fn settings() -> GoogleSettings {
    GoogleSettings::from_environment(&|_| None).unwrap()
}

fn ask_for(image: &str) -> ProviderRequest {
    ProviderRequest { image: Reference::parse(image).unwrap(), service_account: None }
}

fn account(annotations: &[(&str, &str)]) -> ServiceAccountToken {
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ServiceAccountToken { token: Secret::from("ksa-jwt"), annotations }
}

/// A metadata server with a token that lives this long.
fn metadata(seen: &Seen, seconds: &str) -> Reply {
    let body = match seen.target.as_str() {
        TOKEN => format!(r#"{{"access_token":"ya29.x","expires_in":{seconds},"token_type":"Bearer"}}"#),
        SCOPES => r#"["https://www.googleapis.com/auth/devstorage.read_only"]"#.to_owned(),
        _ => return Reply::new(404, "").header("Metadata-Flavor", "Google"),
    };
    assert_eq!(seen.header("Metadata-Flavor"), "Google", "{}", seen.target);
    Reply::new(200, body).header("Metadata-Flavor", "Google")
}

async fn google_at(script: &Script) -> Google {
    Google::new(settings().metadata_at("test", &script.url()).unwrap(), web())
}

fn logins(answer: &ProviderAnswer) -> Vec<(String, String)> {
    let shown = |credential: &Credential| match credential {
        Credential::Basic { username, password } => format!("{username}:{}", password.expose()),
        other => other.kind().to_owned(),
    };
    answer.auth.iter().map(|(key, credential)| (key.clone(), shown(credential))).collect()
}

#[tokio::test]
async fn a_foreign_image_gets_nothing_and_nobody_is_asked() {
    let script = Script::start(|_, seen| metadata(seen, "3600")).await;
    let google = google_at(&script).await;
    for image in ["quay.io/org/app", "nginx", "gcr.io.evil.example/p/i", "a.b.gcr.io/p/i", "gcr.io:8443/p/i"] {
        assert_eq!(google.ask(&ask_for(image)).await.unwrap(), serve::nothing(), "{image}");
    }
    assert!(script.seen().is_empty());
}

#[tokio::test]
async fn the_login_stands_under_the_images_host_only() {
    let script = Script::start(|_, seen| metadata(seen, "3600")).await;
    let google = google_at(&script).await;
    for (image, host) in [
        ("eu.gcr.io/p/i:1", "eu.gcr.io"),
        ("us-docker.pkg.dev/p/r/i", "us-docker.pkg.dev"),
        ("us-docker.pkg.dev:443/p/r/i", "us-docker.pkg.dev:443"),
    ] {
        let answer = google.ask(&ask_for(image)).await.unwrap();
        assert_eq!(logins(&answer), [(host.to_owned(), "_token:ya29.x".to_owned())]);
        assert_eq!(answer.cache_key_type, CacheKeyType::Registry);
        assert_eq!(answer.cache_duration, Some(Duration::from_secs(50 * 60)));
        assert!(!format!("{answer:?} {google:?}").contains("ya29"));
    }
}

#[tokio::test]
async fn a_token_is_kept_for_less_than_its_life() {
    for (life, want) in [("3600", 3000), ("1000.5", 700), ("\"400\"", 100), ("120", 0), ("-1", 0), ("null", 0)] {
        let script = Script::start(move |_, seen| metadata(seen, life)).await;
        let answer = google_at(&script).await.ask(&ask_for("gcr.io/p/i")).await.unwrap();
        assert_eq!(answer.cache_duration.map(|kept| kept.as_secs()), Some(want), "{life}");
    }
    let script = Script::start(|_, seen| metadata(seen, "3600")).await;
    let variables = |name: &str| match name {
        "KUBE_SIDECAR_CACHE_DURATION" => Some("7m".into()),
        "KUBE_SIDECAR_CACHE_TYPE" => Some("global".into()),
        "GCE_METADATA_HOST" => Some(script.url().trim_start_matches("http://").into()),
        _ => None,
    };
    let google = Google::new(GoogleSettings::from_environment(&variables).unwrap(), web());
    let answer = google.ask(&ask_for("gcr.io/p/i")).await.unwrap();
    assert_eq!((answer.cache_key_type, answer.cache_duration), (CacheKeyType::Global, Some(Duration::from_secs(420))));
}

#[tokio::test]
async fn metadata_are_believed_with_their_header_only() {
    let script = Script::start(|_, _| Reply::new(200, r#"{"access_token":"canary","expires_in":3600}"#)).await;
    let error = google_at(&script).await.ask(&ask_for("gcr.io/p/i")).await.unwrap_err().to_string();
    assert!(error.contains("Metadata-Flavor") && !error.contains("canary"), "{error}");
}

#[tokio::test]
async fn a_failing_metadata_server_is_an_error_and_no_empty_answer() {
    let table = [
        (503, "", "fails: HTTP 503", 3),
        (403, "Missing Metadata-Flavor", "refused: HTTP 403 Missing", 1),
        (404, "", "has no default service account", 1),
        (200, r#"{"access_token":"can"#, "is cut", 1),
        (200, "<html>canary", "is no JSON", 1),
        (200, "{}", "has no access_token", 1),
    ];
    for (status, body, want, asked) in table {
        let script = Script::start(move |_, _| Reply::new(status, body).header("Metadata-Flavor", "Google")).await;
        let error = google_at(&script).await.ask(&ask_for("gcr.io/p/i")).await.unwrap_err().to_string();
        assert!(error.contains(want) && !error.contains("canary"), "{status} {body}: {error}");
        assert_eq!(script.seen().len(), asked, "{status} {body}");
    }
}

#[tokio::test]
async fn an_account_without_the_scopes_is_told_so() {
    let script = Script::start(|_, seen| match seen.target.as_str() {
        SCOPES => Reply::new(200, r#"["https://www.googleapis.com/auth/logging.write"]"#),
        _ => metadata(seen, "3600"),
    });
    let script = script.await;
    // Without the header the list is not believed, and the token is tried.
    assert!(google_at(&script).await.ask(&ask_for("gcr.io/p/i")).await.is_ok());
    let script = Script::start(|_, seen| match seen.target.as_str() {
        SCOPES => {
            Reply::new(200, r#"["https://www.googleapis.com/auth/logging.write"]"#).header("Metadata-Flavor", "Google")
        }
        _ => metadata(seen, "3600"),
    });
    let script = script.await;
    let error = google_at(&script).await.ask(&ask_for("gcr.io/p/i")).await.unwrap_err().to_string();
    assert!(error.contains("access scopes"), "{error}");
}

#[tokio::test]
async fn scopes_that_come_late_hold_nobody_up() {
    let script = Script::start(|_, seen| match seen.target.as_str() {
        SCOPES => metadata(seen, "3600").after(Duration::from_secs(30)),
        _ => metadata(seen, "3600"),
    });
    let (script, begun) = (script.await, Instant::now());
    assert!(google_at(&script).await.ask(&ask_for("gcr.io/p/i")).await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn an_account_that_wants_its_own_identity_never_gets_the_node_s() {
    let node = Script::start(|_, seen| metadata(seen, "3600")).await;
    let sts = Script::start(|_, seen| {
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/token"));
        assert_eq!(body["audience"], "identitynamespace:proj.svc.id.goog:https://cluster.example/id");
        assert_eq!(body["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
        assert_eq!(body["requested_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(body["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
        match body["subject_token"].as_str() {
            Some("ksa-jwt") => Reply::new(200, r#"{"access_token":"federated","expires_in":900}"#),
            _ => Reply::new(400, r#"{"error":"invalid_grant","error_description":"The token is expired"}"#),
        }
    })
    .await;
    let settings = settings().metadata_at("test", &node.url()).unwrap().sts_at("test", &sts.url()).unwrap();
    let plain = Google::new(settings.clone(), web());
    let google = settings.workload_identity(Some("https://cluster.example/id"), Some("proj")).unwrap();
    let google = Google::new(google, web());
    let with = |account| ProviderRequest { service_account: Some(account), ..ask_for("gcr.io/p/i") };
    let wants = account(&[(WANTS_OWN_IDENTITY, "true")]);

    let own = google.ask(&with(wants.clone())).await.unwrap();
    assert_eq!(logins(&own)[0].1, "_token:federated");
    assert_eq!(own.cache_duration, Some(Duration::from_secs(600)));
    assert!(node.seen().is_empty());

    let expired = ServiceAccountToken { token: Secret::from("old"), ..wants.clone() };
    let error = google.ask(&with(expired)).await.unwrap_err().to_string();
    assert!(error.contains("HTTP 400 invalid_grant The token is expired"), "{error}");
    assert!(node.seen().is_empty(), "no fallback");

    for (google, account) in [(&google, account(&[(WANTS_OWN_IDENTITY, "True")])), (&plain, wants)] {
        assert_eq!(logins(&google.ask(&with(account)).await.unwrap())[0].1, "_token:ya29.x");
    }
}

#[tokio::test]
async fn a_document_of_the_metadata_answers_for_every_host_in_it() {
    let script = Script::start(|_, seen| match seen.target.as_str() {
        "/computeMetadata/v1/instance/attributes/google-dockercfg" => {
            Reply::new(200, r#"{"quay.io/org":{"auth":"dTpw"},"gcr.io":{"auth":"eDp5"}}"#)
                .header("Metadata-Flavor", "Google")
        }
        "/computeMetadata/v1/instance/attributes/google-dockercfg-url" => {
            Reply::new(200, "http://127.0.0.1/x").header("Metadata-Flavor", "Google")
        }
        _ => metadata(seen, "3600"),
    })
    .await;
    let flow = |flow| Google::new(settings().flow(flow).metadata_at("test", &script.url()).unwrap(), web());
    let answer = flow(AuthFlow::DockerCfg).ask(&ask_for("quay.io/org/app")).await.unwrap();
    assert_eq!(logins(&answer), [("quay.io/org".to_owned(), "u:p".to_owned())]);
    assert_eq!(answer.cache_duration, Some(DOCUMENT_CACHE));
    assert!(flow(AuthFlow::DockerCfg).ask(&ask_for("nginx")).await.unwrap().auth.is_empty());
    let error = flow(AuthFlow::DockerCfgUrl).ask(&ask_for("quay.io/org/app")).await.unwrap_err().to_string();
    assert!(error.starts_with("google-dockercfg-url must be an https URL"), "{error}");
}

#[tokio::test]
async fn a_document_is_fetched_from_where_the_metadata_point() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.crt");
    let place = Script::start_tls(certified("127.0.0.1", &ca_file), |_, seen| {
        assert_eq!((seen.target.as_str(), seen.header("metadata-flavor")), ("/logins?sig=x", ""));
        Reply::new(200, r#"{"quay.io":{"auth":"dTpw"}}"#)
    })
    .await;
    let url = format!("https://127.0.0.1:{}/logins?sig=x\n", place.port());
    let script = Script::start(move |_, _| Reply::new(200, url.clone()).header("Metadata-Flavor", "Google")).await;
    let config = WebConfig { ca_files: vec![ca_file], ..WebConfig::default() };
    let settings = settings().flow(AuthFlow::DockerCfgUrl).metadata_at("test", &script.url()).unwrap();
    let google = Google::new(settings, Web::new(&config).unwrap());
    let answer = google.ask(&ask_for("quay.io/org/app")).await.unwrap();
    assert_eq!(logins(&answer), [("quay.io".to_owned(), "u:p".to_owned())]);
}
