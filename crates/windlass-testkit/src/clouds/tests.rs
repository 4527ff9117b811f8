//! The clouds as a client by hand meets them.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::sigv4::Presented;
use super::*;
use crate::canary::Canary;
use crate::wire::{Answer, Message, ask};

fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    ask(url, "GET", headers, "").expect("an answer")
}

fn post(url: &str, fields: &[(&str, &str)]) -> Answer {
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    ask(url, "POST", &[("Content-Type", "application/x-www-form-urlencoded")], &form).expect("an answer")
}

/// Keys as AWS gives them out.
#[derive(Clone)]
struct Keys {
    id: String,
    secret: String,
    session: Option<String>,
}

impl Keys {
    fn of(answer: &Json) -> Keys {
        let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
        Keys { id: text("AccessKeyId"), secret: text("SecretAccessKey"), session: Some(text("Token")) }
    }
}

/// A signed request for an ECR token at a time.
fn ecr(clouds: &Clouds, service: Service, keys: &Keys, region: &str, at: jiff::Timestamp) -> Answer {
    let url = clouds.url(service);
    let date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let (name, target) = match service {
        Service::EcrPublic => ("ecr-public", "SpencerFrontendService.GetAuthorizationToken"),
        _ => ("ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"),
    };
    let mut headers = vec![
        ("content-type", "application/x-amz-json-1.1"),
        ("host", url.trim_start_matches("http://")),
        ("x-amz-date", date.as_str()),
    ];
    headers.extend(keys.session.as_deref().map(|token| ("x-amz-security-token", token)));
    headers.push(("x-amz-target", target));
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let owned = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let (method, path, query) = ("POST".to_owned(), "/".to_owned(), String::new());
    let message = Message { method, path, query, headers: owned, body: b"{}".to_vec() };
    let mut authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{}/{region}/{name}/aws4_request, SignedHeaders={}, Signature=",
        keys.id,
        &date[..8],
        names.join(";")
    );
    let presented = Presented::parse(&authorization).expect("it is well formed");
    authorization.push_str(&presented.expected(&message, &keys.secret, &date).expect("every header is there"));
    headers.retain(|(name, _)| *name != "host");
    headers.push(("authorization", &authorization));
    ask(&url, "POST", &headers, "{}").expect("an answer")
}

fn instance_keys(clouds: &Clouds) -> Keys {
    let root = clouds.url(Service::Imds);
    let life = [("X-aws-ec2-metadata-token-ttl-seconds", "21600")];
    let session = ask(&format!("{root}/latest/api/token"), "PUT", &life, "").expect("an answer").text();
    let shown = [("X-aws-ec2-metadata-token", session.as_str())];
    let roles = format!("{root}/latest/meta-data/iam/security-credentials/");
    let role = get(&roles, &shown).text();
    Keys::of(&get(&format!("{roles}{role}"), &shown).json())
}

fn password(answer: &Answer) -> String {
    let token = answer.json()["authorizationData"][0]["authorizationToken"].as_str().map(str::to_owned);
    let login = STANDARD.decode(token.expect("a token")).expect("base64");
    String::from_utf8(login).expect("text").strip_prefix("AWS:").expect("the user").to_owned()
}

#[test]
fn a_machine_s_keys_become_a_login_that_the_registry_accepts() {
    let clouds = Clouds::start();
    let keys = instance_keys(&clouds);
    clouds.set(|settings| settings.ecr_password_has_colon = true);
    let answer = ecr(&clouds, Service::Ecr, &keys, "eu-central-1", jiff::Timestamp::now());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains(".125"), "the end has decimals: {}", answer.text());
    let password = password(&answer);
    assert!(password.contains(':') && clouds.lets_in(ECR_USER, &password));
    assert!(!clouds.lets_in(ECR_USER, "another") && !clouds.lets_in(GOOGLE_USER, &password));
    clouds.revoke_all();
    assert!(!clouds.lets_in(ECR_USER, &password));
}

#[test]
fn a_login_ends_with_its_life() {
    let clouds = Clouds::start();
    let keys = instance_keys(&clouds);
    clouds.set(|settings| {
        settings.ecr_life = Duration::ZERO;
        settings.ecr_expiry = Expiry::Absent;
    });
    let answer = ecr(&clouds, Service::Ecr, &keys, "eu-central-1", jiff::Timestamp::now());
    assert!(!answer.text().contains("expiresAt"));
    assert!(!clouds.lets_in(ECR_USER, &password(&answer)));
}

#[test]
fn signatures_are_verified() {
    let clouds = Clouds::start();
    let (keys, now) = (instance_keys(&clouds), jiff::Timestamp::now());
    let hour = jiff::SignedDuration::from_hours(1);
    let wrong = Keys { secret: format!("{}x", keys.secret), ..keys.clone() };
    let bare = Keys { session: None, ..keys.clone() };
    let unknown = Keys { id: "ASIAUNKNOWN".to_owned(), ..keys.clone() };
    let table = [
        (Service::Ecr, &keys, "eu-central-1", now, None),
        (Service::EcrPublic, &keys, "us-east-1", now, None),
        (Service::EcrPublic, &keys, "eu-central-1", now, Some("InvalidSignatureException")),
        (Service::Ecr, &wrong, "eu-central-1", now, Some("InvalidSignatureException")),
        (Service::Ecr, &bare, "eu-central-1", now, Some("UnrecognizedClientException")),
        (Service::Ecr, &unknown, "eu-central-1", now, Some("UnrecognizedClientException")),
        (Service::Ecr, &keys, "eu-central-1", now - hour, Some("Signature expired")),
        (Service::Ecr, &keys, "eu-central-1", now + hour, Some("Signature not yet current")),
    ];
    for (service, keys, region, at, refusal) in table {
        let answer = ecr(&clouds, service, keys, region, at);
        assert_eq!(answer.status, if refusal.is_some() { 400 } else { 200 }, "{}", answer.text());
        assert!(refusal.is_none_or(|words| answer.text().contains(words)), "{refusal:?}: {}", answer.text());
    }
    // A clock that is an hour ahead wants the requests of its own time.
    clouds.set(|settings| settings.clock_ahead_seconds = 3600);
    let keys = instance_keys(&clouds);
    assert_eq!(ecr(&clouds, Service::Ecr, &keys, "eu-central-1", now).status, 400);
    assert_eq!(ecr(&clouds, Service::Ecr, &keys, "eu-central-1", now + hour).status, 200);
    clouds.set(|settings| settings.key_life = Duration::ZERO);
    let keys = instance_keys(&clouds);
    let answer = ecr(&clouds, Service::Ecr, &keys, "eu-central-1", now + hour);
    assert!(answer.text().contains("ExpiredTokenException"), "{}", answer.text());
    assert!(clouds.calls().iter().any(|call| call.signed.as_ref().is_some_and(|s| s.region == "eu-central-1")));
}

#[test]
fn metadata_servers_insist_on_their_headers() {
    let clouds = Clouds::start();
    let imds = clouds.url(Service::Imds);
    assert_eq!(get(&format!("{imds}/latest/meta-data/iam/security-credentials/"), &[]).status, 401);
    assert_eq!(ask(&format!("{imds}/latest/api/token"), "PUT", &[], "").expect("an answer").status, 400);
    let token =
        format!("{}/computeMetadata/v1/instance/service-accounts/default/token", clouds.url(Service::GceMetadata));
    assert_eq!(get(&token, &[]).status, 403);
    let good = get(&token, &[("Metadata-Flavor", "Google")]);
    assert!(good.head.contains("Metadata-Flavor: Google"), "{}", good.head);
    assert!(clouds.lets_in(GOOGLE_USER, good.json()["access_token"].as_str().expect("a token")));
    let azure = format!(
        "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcontainerregistry.azure.net",
        clouds.url(Service::AzureImds)
    );
    let metadata = [("Metadata", "true")];
    assert_eq!(get(&azure, &[]).status, 400);
    assert_eq!(get(&format!("{azure}&client_id=unknown"), &metadata).json()["error_description"], "Identity not found");
    assert!(get(&azure, &metadata).json()["expires_on"].is_string(), "Azure writes numbers as text");
}

#[test]
fn tokens_hold_for_one_audience_and_a_while() {
    let clouds = Clouds::start();
    let account = Account::new("team", "puller");
    let mut good = None;
    for (audience, life, refusal) in [
        ("sts.amazonaws.com", 600, None),
        ("sts.amazonaws.com", -1, Some("ExpiredTokenException")),
        ("another", 600, Some("Incorrect token audience")),
    ] {
        let token = clouds.account_token(&account, audience, life);
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", "arn:aws:iam::123456789012:role/puller"),
            ("RoleSessionName", "ecr-credential-provider"),
            ("WebIdentityToken", &token),
        ];
        let answer = post(&clouds.url(Service::Sts), &fields);
        assert_eq!(answer.status, if refusal.is_some() { 400 } else { 200 }, "{}", answer.text());
        match refusal {
            Some(words) => assert!(answer.text().contains(words), "{}", answer.text()),
            None => good = Some(answer.text()),
        }
    }
    let text = good.expect("the first is good");
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>")).expect("the tag");
        rest.split_once('<').expect("its end").0.to_owned()
    };
    let keys = Keys { id: tag("AccessKeyId"), secret: tag("SecretAccessKey"), session: Some(tag("SessionToken")) };
    let answer = ecr(&clouds, Service::Ecr, &keys, "eu-central-1", jiff::Timestamp::now());
    assert!(clouds.lets_in(ECR_USER, &password(&answer)));

    let entra = format!("{}/{}/oauth2/v2.0/token", clouds.url(Service::Aad), azure::TENANT);
    let secret = [
        ("grant_type", "client_credentials"),
        ("client_id", azure::CLIENT),
        ("client_secret", azure::CLIENT_SECRET),
        ("scope", "https://containerregistry.azure.net/.default"),
    ];
    let token = post(&entra, &secret).json()["access_token"].as_str().expect("a token").to_owned();
    let exchange = format!("{}/oauth2/exchange", clouds.url(Service::Acr));
    let fields = |token| [("grant_type", "access_token"), ("service", ACR_HOST), ("access_token", token)];
    assert_eq!(post(&exchange, &fields("another")).status, 401);
    let refresh = post(&exchange, &fields(&token)).json()["refresh_token"].as_str().expect("a token").to_owned();
    assert!(clouds.lets_in(ACR_USER, &refresh));
    let challenge = get(&format!("{}/v2/", clouds.url(Service::Acr)), &[]);
    assert!(challenge.head.contains("realm=\"https://contoso.azurecr.io/oauth2/token\""), "{}", challenge.head);

    let body = json!({
        "audience": format!("identitynamespace:{}:{}", google::pool(), google::PROVIDER),
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "subject_token": clouds.account_token(&account, &google::pool(), 600),
    });
    let url = format!("{}/v1/token", clouds.url(Service::GoogleSts));
    let json = [("Content-Type", "application/json")];
    let answer = ask(&url, "POST", &json, &body.to_string()).expect("an answer");
    assert!(clouds.lets_in(GOOGLE_USER, answer.json()["access_token"].as_str().expect("a token")));
}

#[test]
fn trouble_strikes_as_often_as_it_was_asked_to() {
    let clouds = Clouds::start();
    let url = format!("{}/latest/api/token", clouds.url(Service::Imds));
    let put = || ask(&url, "PUT", &[("X-aws-ec2-metadata-token-ttl-seconds", "60")], "");
    clouds.disturb(On::service(Service::Imds).at("/api/token").first(1), Trouble::Status(503));
    assert_eq!([put(), put()].map(|answer| answer.map(|a| a.status)), [Some(503), Some(200)]);
    clouds.disturb(On::service(Service::Imds).after(1).first(1), Trouble::Throttled { retry_after_seconds: Some(7) });
    assert_eq!(put().map(|a| a.status), Some(200));
    let throttled = put().expect("an answer");
    assert!(throttled.status == 429 && throttled.head.contains("Retry-After: 7"), "{}", throttled.head);
    clouds.disturb(On::service(Service::Imds).first(1), Trouble::Reset);
    assert!(put().is_none(), "the connection is reset");
    clouds.disturb(On::service(Service::Imds).first(1), Trouble::Cut);
    assert_eq!(put().map(|a| a.body.len()), Some(28), "half of the token");
    clouds.disturb(On::service(Service::Imds).first(1), Trouble::Elsewhere("http://127.0.0.1:1/".to_owned()));
    assert!(put().is_some_and(|a| a.status == 307 && a.head.contains("Location: http://127.0.0.1:1/")));
    clouds.disturb(On::service(Service::Imds).first(1), Trouble::Slow(Duration::from_millis(300)));
    let started = Instant::now();
    assert!(put().is_some() && started.elapsed() >= Duration::from_millis(300));
    clouds.disturb(On::service(Service::Imds), Trouble::Malformed);
    clouds.calm();
    assert_eq!(put().map(|a| a.status), Some(200));
    for service in Service::ALL {
        for trouble in [Trouble::Refused, Trouble::Expired, Trouble::Throttled { retry_after_seconds: None }] {
            clouds.disturb(On::service(service).first(1), trouble);
            let answer = get(&format!("{}/x", clouds.url(service)), &[]);
            assert!((400..=503).contains(&answer.status), "{service:?}");
        }
    }
}

#[test]
fn no_secret_is_in_the_record() {
    let clouds = Clouds::start();
    let keys = instance_keys(&clouds);
    let answer = ecr(&clouds, Service::Ecr, &keys, "eu-central-1", jiff::Timestamp::now());
    assert_eq!(answer.status, 200);
    let record = format!("{:?}", clouds.calls());
    assert!(record.contains("assumed-role/node-role"), "{record}");
    for secret in clouds.secrets() {
        Canary::new(&secret).assert_absent("the record", &record);
    }
}

#[test]
fn every_way_has_its_setup() {
    let clouds = Clouds::build().https().start();
    for way in Way::ALL {
        let setup = clouds.setup(way);
        let toml = std::fs::read_to_string(clouds.hosts_dir().join(setup.host()).join("hosts.toml")).expect("a file");
        assert!(toml.contains(&clouds.registry().host()), "{way:?}");
        assert_eq!(setup.request("v1")["serviceAccountToken"].is_string(), way.needs_request(), "{way:?}");
    }
}
