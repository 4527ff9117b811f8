//! ECR as it answers, and as it refuses.

use std::time::Instant;

use super::*;
use crate::cloud::retry::Deadline;
use crate::cloud::script::{Reply, Script, web};
use windlass_core::reference::Reference;
use windlass_core::registryclass::{RegistryClass, classify};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn registry(image: &str) -> Registry {
    match classify(&Reference::parse(image).unwrap()) {
        RegistryClass::Ecr(ecr) => Registry::Private(ecr),
        RegistryClass::EcrPublic { host } => Registry::Public { host },
        other => panic!("{other:?}"),
    }
}

fn keys() -> Keys {
    Keys {
        access_key_id: "AKID".to_owned(),
        secret: Secret::from("canary-secret"),
        session_token: Some(Secret::from("canary-session")),
        expires: None,
        source: "a test".to_owned(),
    }
}

async fn ask(script: &Script, image: &str) -> Result<ProviderAnswer, CloudError> {
    let mut settings = AwsSettings::from_environment(&|_| None);
    settings.ecr_endpoint = Some(script.url());
    let web = web();
    let (registry, deadline) = (registry(image), Deadline::after(Duration::from_secs(20), Instant::now()));
    let ask = Ask { settings: &settings, web: &web, deadline, region: registry.region() };
    login(&ask, &registry, &keys()).await
}

fn private(token: &str, expires: &str) -> String {
    let token = STANDARD.encode(token);
    format!(
        r#"{{"authorizationData":[{{"authorizationToken":"{token}"{expires},"proxyEndpoint":"https://evil.example"}}]}}"#
    )
}

#[tokio::test]
async fn a_login_is_for_the_host_of_the_image() {
    let script = Script::start(|_, _| Reply::new(200, private("AWS:pass:word", ""))).await;
    let answer = ask(&script, &format!("{HOST}/team/app:1")).await.unwrap();
    let password = Secret::from("pass:word");
    let want = vec![(HOST.to_owned(), Credential::Basic { username: "AWS".to_owned(), password })];
    assert_eq!((answer.auth, answer.cache_duration), (want, Some(Duration::ZERO)));
    let seen = &script.seen()[0];
    assert_eq!(seen.body, "{}");
    assert_eq!(seen.header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(seen.header("x-amz-target"), "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
    assert!(seen.header("authorization").contains("/eu-west-1/ecr/aws4_request"));
}

#[tokio::test]
async fn the_public_gallery_answers_with_one_object() {
    let body = r#"{"authorizationData":{"authorizationToken":"QVdTOng=","expiresAt":253402300799}}"#;
    let script = Script::start(move |_, _| Reply::new(200, body)).await;
    let answer = ask(&script, "public.ecr.aws/nginx/nginx").await.unwrap();
    assert_eq!(answer.auth[0].0, "public.ecr.aws");
    let seen = &script.seen()[0];
    assert_eq!(seen.header("x-amz-target"), "SpencerFrontendService.GetAuthorizationToken");
    assert!(seen.header("authorization").contains("/us-east-1/ecr-public/aws4_request"));
}

#[test]
fn half_of_the_remaining_time_is_kept() {
    let now = moment::unix(1_700_000_000.0).unwrap();
    let table = [
        (r#","expiresAt":1700043200"#, Some(21_600)),
        (r#","expiresAt":1700043200.123"#, Some(21_600)),
        (r#","expiresAt":1.7000432E9"#, Some(21_600)),
        (r#","expiresAt":1700000003.9"#, Some(1)),
        (r#","expiresAt":1700000001"#, Some(0)),
        (r#","expiresAt":1700000000"#, None),
        (r#","expiresAt":1600000000"#, None),
        ("", Some(0)),
        (r#","expiresAt":null"#, Some(0)),
    ];
    for (expires, want) in table {
        let answer = read("ECR", private("AWS:x", expires).as_bytes(), HOST, now).unwrap();
        assert_eq!(answer.cache_duration, want.map(Duration::from_secs), "{expires}");
    }
}

#[test]
fn an_answer_without_a_login_is_malformed() {
    let now = SystemTime::UNIX_EPOCH;
    let table = [
        ("{}".to_owned(), "has no authorizationData"),
        (r#"{"authorizationData":[]}"#.to_owned(), "has no login in its authorizationData"),
        (r#"{"authorizationData":[{}]}"#.to_owned(), "has no authorizationToken"),
        (r#"{"authorizationData":[{"authorizationToken":"%canary"}]}"#.to_owned(), "no base64 of USER:PASSWORD"),
        (private("canary", ""), "no base64 of USER:PASSWORD"),
        (private(":canary", ""), "no base64 of USER:PASSWORD"),
        (private("canary:", ""), "no base64 of USER:PASSWORD"),
        (private("AWS:canary", r#","expiresAt":-7"#), "an expiresAt that is no time"),
        (private("AWS:canary", r#","expiresAt":{}"#), "has another form than expected (line 1, column"),
        ("<html>canary".to_owned(), "is no JSON"),
    ];
    for (body, want) in table {
        let error = read("ECR", body.as_bytes(), HOST, now).unwrap_err().to_string();
        assert!(error.contains(want) && !error.contains("canary"), "{body}: {error}");
    }
}

#[test]
fn the_region_and_variant_of_the_host_are_asked() {
    let table: [(&str, &str, &str); 9] = [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "", "https://api.ecr.eu-west-1.amazonaws.com/"),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "", "https://api.ecr-fips.us-east-1.amazonaws.com/"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "", "https://api.ecr.cn-north-1.amazonaws.com.cn/"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "", "https://ecr.eu-west-1.api.aws/"),
        ("123456789012.dkr-ecr-fips.us-east-1.on.aws", "", "https://ecr-fips.us-east-1.api.aws/"),
        ("public.ecr.aws", "", "https://api.ecr-public.us-east-1.amazonaws.com/"),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "AWS_USE_FIPS_ENDPOINT",
            "https://api.ecr-fips.us-east-1.amazonaws.com/",
        ),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "https://ecr.us-east-1.api.aws/",
        ),
        ("public.ecr.aws", "AWS_USE_FIPS_ENDPOINT", "https://api.ecr-public.us-east-1.amazonaws.com/"),
    ];
    for (host, yes, want) in table {
        let mut settings = AwsSettings::from_environment(&|name| (name == yes).then(|| "true".into()));
        let registry = registry(&format!("{host}/app"));
        assert_eq!(registry.endpoint(&settings).unwrap().to_request_uri(), want, "{host} {yes}");
        settings.ecr_endpoint = Some("http://ecr.example/".to_owned());
        registry.endpoint(&settings).unwrap_err();
    }
}

#[tokio::test]
async fn refusals_name_what_to_do() {
    let table = [
        ("AccessDeniedException", "allow this to a test: ecr:GetAuthorizationToken on *"),
        ("UnrecognizedClientException", "the keys of a test are not known here"),
        ("ExpiredTokenException", "the keys of a test have expired"),
        ("InvalidSignatureException", "this machine's clock"),
        ("InvalidParameterException", ""),
    ];
    for (code, hint) in table {
        let body = format!(r#"{{"__type":"{code}","message":"x canary-session\ncanary"}}"#);
        let script = Script::start(move |_, _| Reply::new(400, body.clone())).await;
        let error = ask(&script, &format!("{HOST}/app")).await.unwrap_err();
        assert!(error.to_string().ends_with(&format!("refused: {code}, x ***")), "{error}");
        assert!(error.hint().starts_with(hint) || error.hint().contains(hint), "{}", error.hint());
    }
    let script = Script::start(|_, _| Reply::new(400, r#"{"__type":"AccessDeniedException"}"#)).await;
    let error = ask(&script, "public.ecr.aws/a/b").await.unwrap_err();
    assert!(error.hint().contains("sts:GetServiceBearerToken"), "{}", error.hint());
}
