//! Azure against scripted servers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use windlass_core::reference::Reference;

use super::*;
use crate::cloud::script::{Reply, Script, Seen, certified, web};
use crate::provider::ServiceAccountToken;

const HOST: &str = "contoso.azurecr.io";

fn ask_for(image: &str) -> ProviderRequest {
    ProviderRequest { image: Reference::parse(image).unwrap(), service_account: None }
}

fn with_account(image: &str) -> ProviderRequest {
    let annotations = [(ANNOTATION_CLIENT, "client-1"), (ANNOTATION_TENANT, "tenant-1")];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let account = ServiceAccountToken { token: Secret::from("ksa+jwt"), annotations };
    ProviderRequest { service_account: Some(account), ..ask_for(image) }
}

fn logins(answer: &ProviderAnswer) -> Vec<(String, String)> {
    let shown = |credential: &Credential| match credential {
        Credential::Basic { username, password } => format!("{username}:{}", password.expose()),
        other => other.kind().to_owned(),
    };
    answer.auth.iter().map(|(key, credential)| (key.clone(), shown(credential))).collect()
}

fn json(body: &str) -> Reply {
    Reply::new(200, body)
}

/// Azure with all its services at one place; a realm that is empty is the place itself.
fn azure_reply(realm: &str, seen: &Seen) -> Reply {
    let path = seen.target.split('?').next().unwrap_or_default();
    let host = seen.header("host").to_owned();
    match (seen.method.as_str(), path) {
        ("GET", "/metadata/identity/oauth2/token") => {
            assert_eq!(seen.header("metadata"), "true");
            json(r#"{"access_token":"aad-mi","expires_in":"86399","expires_on":"1700000000","token_type":"Bearer"}"#)
        }
        ("POST", "/tenant-1/oauth2/v2.0/token") => {
            assert!(seen.body.contains("grant_type=client_credentials") && seen.body.contains("client_id=client-1"));
            assert!(seen.body.contains("scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default"));
            let jwt = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
            match () {
                () if seen.body.contains(&format!("{jwt}&client_assertion=ksa%2Bjwt")) => {
                    json(r#"{"access_token":"aad-fed","expires_in":3599}"#)
                }
                () if seen.body.contains("client_secret=s%26cret") => json(r#"{"access_token":"aad-secret"}"#),
                () => Reply::new(
                    401,
                    r#"{"error":"invalid_client","error_description":"AADSTS70021: No matching federated identity record found for presented assertion.\r\nTrace ID: x"}"#,
                ),
            }
        }
        ("GET", "/v2/") => {
            assert_eq!(seen.header("authorization"), "");
            let realm = if realm.is_empty() { format!("http://{host}/oauth2/token") } else { realm.to_owned() };
            Reply::new(401, "{}").header("Www-Authenticate", &format!(r#"Bearer realm="{realm}",service="{HOST}""#))
        }
        ("POST", "/oauth2/exchange") => {
            let field = |name: &str| {
                let found = seen.body.split('&').find_map(|field| field.strip_prefix(&format!("{name}=")));
                found.unwrap_or_default().to_owned()
            };
            assert_eq!((field("grant_type").as_str(), field("service").as_str()), ("access_token", HOST));
            match field("access_token").as_str() {
                token if token.starts_with("aad") => {
                    json(&format!(r#"{{"refresh_token":"refresh of {token} in {}"}}"#, field("tenant")))
                }
                _ => Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#),
            }
        }
        _ => Reply::new(404, ""),
    }
}

async fn azure_script(realm: &'static str) -> Script {
    Script::start(move |_, seen| azure_reply(realm, seen)).await
}

fn settings(script: &Script) -> AzureSettings {
    let settings = AzureSettings::from_environment(&|_| None).unwrap();
    let settings = settings.imds_at("test", &script.url()).unwrap().login_at("test", &script.url()).unwrap();
    settings.registry_at("test", &format!("{HOST}={}", script.url())).unwrap()
}

fn azure(settings: AzureSettings) -> Azure {
    Azure::new(settings, web())
}

fn node_file(settings: AzureSettings, text: &str) -> AzureSettings {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("azure.json");
    std::fs::write(&path, text).unwrap();
    settings.node_file("CONFIG", &path).unwrap()
}

fn targets(script: &Script) -> Vec<String> {
    script.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
}

#[tokio::test]
async fn a_foreign_image_gets_nothing_and_nobody_is_asked() {
    let script = azure_script("").await;
    let azure = azure(settings(&script));
    let images = [
        "quay.io/org/app",
        "nginx",
        "evil.example/contoso.azurecr.io/app",
        "contoso.azurecr.io.evil.example/app",
        "contoso.eastus.data.azurecr.io/app",
        "contoso.azurecr.io:5000/app",
    ];
    for image in images {
        assert_eq!(azure.ask(&ask_for(image)).await.unwrap(), serve::nothing(), "{image}");
        assert_eq!(azure.ask(&with_account(image)).await.unwrap(), serve::nothing(), "{image}");
    }
    assert!(script.seen().is_empty());
}

#[tokio::test]
async fn the_login_stands_under_the_images_host_only() {
    let script = azure_script("").await;
    let azure = azure(node_file(settings(&script), r#"{"tenantId":"node-tenant","useManagedIdentityExtension":true}"#));
    for (image, key) in [
        ("contoso.azurecr.io/app:1", "contoso.azurecr.io"),
        ("Contoso.azurecr.io/app", "Contoso.azurecr.io"),
        ("contoso.azurecr.io:443/app", "contoso.azurecr.io:443"),
    ] {
        let answer = azure.ask(&ask_for(image)).await.unwrap();
        let want = format!("{TOKEN_USER}:refresh of aad-mi in node-tenant");
        assert_eq!(logins(&answer), [(key.to_owned(), want)]);
        assert_eq!((answer.cache_key_type, answer.cache_duration), (CacheKeyType::Registry, Some(CACHE_MAX)));
        assert!(!format!("{answer:?} {azure:?}").contains("aad-mi"));
    }
    let first = script.seen()[0].target.clone();
    assert!(first.ends_with("?api-version=2018-02-01&resource=https%3A%2F%2Fcontainerregistry.azure.net"), "{first}");
}

#[tokio::test]
async fn every_identity_leads_to_a_login() {
    let script = azure_script("").await;
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "ksa+jwt\n").unwrap();
    let file = token_file.path().as_os_str().to_owned();
    let of_variables = |proof: &'static str, value: std::ffi::OsString| {
        let found = AzureSettings::from_environment(&move |name| match name {
            "AZURE_CLIENT_ID" => Some("client-1".into()),
            "AZURE_TENANT_ID" => Some("tenant-1".into()),
            name if name == proof => Some(value.clone()),
            _ => None,
        });
        let place = |settings: AzureSettings| settings.registry_at("t", &format!("{HOST}={}", script.url())).unwrap();
        place(found.unwrap().login_at("t", &script.url()).unwrap())
    };
    let principal = r#"{"aadClientId":"sp","aadClientSecret":"p:w","tenantId":"x"}"#;
    let refresh = |of: &str| format!("{TOKEN_USER}:refresh of {of} in tenant-1");
    let table = [
        (settings(&script), with_account("contoso.azurecr.io/a"), refresh("aad-fed")),
        (of_variables("AZURE_FEDERATED_TOKEN_FILE", file), ask_for("contoso.azurecr.io/a"), refresh("aad-fed")),
        (of_variables("AZURE_CLIENT_SECRET", "s&cret".into()), ask_for("contoso.azurecr.io/a"), refresh("aad-secret")),
        (node_file(settings(&script), principal), ask_for("contoso.azurecr.io/a"), "sp:p:w".to_owned()),
        (node_file(settings(&script), principal), with_account("contoso.azurecr.io/a"), refresh("aad-fed")),
    ];
    for (settings, request, want) in table {
        let answer = azure(settings).ask(&request).await.unwrap();
        assert_eq!(logins(&answer), [(HOST.to_owned(), want)]);
    }
}

#[tokio::test]
async fn a_mirrored_image_is_answered_under_both_hosts() {
    let script = azure_script("").await;
    let settings = settings(&script).mirrors("mcr.example.com:contoso.azurecr.io/cache").unwrap();
    let answer = azure(settings).ask(&with_account("mcr.example.com/a/b:1")).await.unwrap();
    let keys: Vec<String> = logins(&answer).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["mcr.example.com", HOST]);
    assert!(targets(&script)[0].starts_with("GET /metadata/identity/"), "the node's identity, not the pod's");
}

#[tokio::test]
async fn a_realm_elsewhere_gets_no_token() {
    let thief = Arc::new(Script::start(|_, _| Reply::new(200, r#"{"refresh_token":"x"}"#)).await);
    let realm = format!("{}/oauth2/token", thief.url());
    for realm in [realm, "https://evil.azurecr.io/oauth2/token".to_owned(), "https://contoso.azurecr.io:1/".to_owned()]
    {
        let named = realm.clone();
        let script = Script::start(move |_, seen| azure_reply(&named, seen)).await;
        let error = azure(settings(&script)).ask(&ask_for("contoso.azurecr.io/a")).await.unwrap_err();
        assert_eq!(error.reason(), windlass_core::reason::Reason::RealmNotTrusted, "{realm}: {error}");
        assert!(!targets(&script).iter().any(|target| target.contains("exchange")), "{realm}");
    }
    // A redirect is an answer like any other, and no success.
    let away = format!("{}/", thief.url());
    let script = Script::start(move |_, seen| match seen.target.as_str() {
        "/oauth2/exchange" => Reply::new(307, "").header("Location", &away),
        _ => azure_reply("", seen),
    });
    let script = script.await;
    azure(settings(&script)).ask(&ask_for("contoso.azurecr.io/a")).await.unwrap_err();
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_metadata_server_that_is_being_updated_is_asked_again() {
    let script = Script::start(|number, seen| match number {
        0 => Reply::new(410, ""),
        _ => azure_reply("", seen),
    });
    let script = script.await;
    let answer = azure(settings(&script)).ask(&ask_for("contoso.azurecr.io/a")).await.unwrap();
    assert_eq!(logins(&answer)[0].1, format!("{TOKEN_USER}:refresh of aad-mi in "));
}

#[tokio::test]
async fn refusals_say_who_refused_and_what_to_do() {
    let unknown = Script::start(|_, seen| match seen.target.starts_with("/metadata") {
        true => Reply::new(400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#),
        false => azure_reply("", seen),
    });
    let unknown = unknown.await;
    let error = azure(settings(&unknown)).ask(&ask_for("contoso.azurecr.io/a")).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 400 invalid_request Identity not found"), "{error}");
    assert!(error.hint().contains("assign an identity to the machine"), "{}", error.hint());

    let script = azure_script("").await;
    let mut stranger = with_account("contoso.azurecr.io/a");
    stranger.service_account.as_mut().unwrap().token = Secret::from("canary-token");
    let error = azure(settings(&script)).ask(&stranger).await.unwrap_err();
    assert!(error.to_string().contains("AADSTS70021") && !error.to_string().contains("canary"), "{error}");
    assert!(error.hint().contains("federated credential"), "{}", error.hint());

    let no_role = Script::start(|_, seen| match seen.target.as_str() {
        "/oauth2/exchange" => Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"aad-mi"}]}"#),
        _ => azure_reply("", seen),
    });
    let no_role = no_role.await;
    let error = azure(settings(&no_role)).ask(&ask_for("contoso.azurecr.io/a")).await.unwrap_err();
    assert!(error.hint().contains("AcrPull") && !error.to_string().contains("aad-mi"), "{error}");
}

#[tokio::test]
async fn malformed_answers_are_errors_without_their_words() {
    for (part, body) in [
        ("/metadata", "<html>canary"),
        ("/metadata", r#"{"access_token":""}"#),
        ("/metadata", r#"{"access_token":["canary"]}"#),
        ("/oauth2/exchange", r#"{"refresh_token":"can"#),
        ("/oauth2/exchange", "{}"),
    ] {
        let script = Script::start(move |_, seen| match seen.target.starts_with(part) {
            true => Reply::new(200, body),
            false => azure_reply("", seen),
        });
        let script = script.await;
        let error = azure(settings(&script)).ask(&ask_for("contoso.azurecr.io/a")).await.unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        assert_eq!(error.reason(), windlass_core::reason::Reason::InvalidCredentials, "{body}: {error}");
    }
}

#[tokio::test]
async fn a_cloud_of_ones_own_is_asked_what_its_registries_are_called() {
    let script = Script::start(|_, seen| match seen.target.split('?').next() {
        Some("/metadata/endpoints") => {
            json(r#"[{"name":"Stack","suffixes":{"acrLoginServer":"azurecr.stack.example"}}]"#)
        }
        _ => azure_reply("", seen),
    });
    let script = script.await;
    let text = format!(
        r#"{{"cloud":"Stack","useManagedIdentityExtension":true,"resourceManagerEndpoint":"{}"}}"#,
        script.url()
    );
    let settings = node_file(settings(&script), &text);
    let settings = settings.registry_at("t", &format!("team.azurecr.stack.example={}", script.url())).unwrap();
    assert_eq!(settings.serves(&Reference::parse("quay.io/a").unwrap()), None);
    let azure = azure(settings);
    let answer = azure.ask(&ask_for("team.azurecr.stack.example/app")).await.unwrap();
    assert_eq!(logins(&answer)[0].0, "team.azurecr.stack.example");
    for _ in 0..3 {
        assert_eq!(azure.ask(&ask_for("quay.io/a/b")).await.unwrap(), serve::nothing());
    }
    let asked = targets(&script).iter().filter(|target| target.contains("/metadata/endpoints")).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_login_is_kept_for_less_than_its_life() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let token = |seconds: i64| {
        let claims = format!(r#"{{"exp":{}}}"#, 1_700_000_000 + seconds);
        Secret::new(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims)))
    };
    for (life, want) in [(3 * 3600, 3600), (3600, 3300), (300, 0), (-5, 0)] {
        assert_eq!(kept_for(&token(life), now), Duration::from_secs(want), "{life}");
    }
    assert_eq!(kept_for(&Secret::from("opaque"), now), CACHE_MAX);
}

#[tokio::test]
async fn bindings_go_through_the_cluster_s_own_door() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.crt");
    let door = Script::start_tls(certified("door.example", &ca_file), |_, seen| {
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/"));
        assert!(seen.header("host").starts_with("door.example:"), "{}", seen.header("host"));
        assert!(seen.body.contains("client_assertion=ksa%2Bjwt") && seen.body.contains("client_id=client-1"));
        json(r#"{"access_token":"aad-bound","expires_in":3599}"#)
    })
    .await;
    let script = azure_script("").await;
    let server = format!("127.0.0.1:{}", door.port());
    let bound = |sni: &str| {
        let settings = settings(&script).identity_bindings(Some(sni), Some(&server), None, None).unwrap();
        azure(settings.cluster_ca(ca_file.clone()))
    };
    let answer = bound("door.example").ask(&with_account("contoso.azurecr.io/a")).await.unwrap();
    assert_eq!(logins(&answer)[0].1, format!("{TOKEN_USER}:refresh of aad-bound in tenant-1"));
    let error = bound("other.example").ask(&with_account("contoso.azurecr.io/a")).await.unwrap_err();
    assert!(error.hint().contains("--ib-sni-name"), "{error}: {}", error.hint());
}
