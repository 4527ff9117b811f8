//! The provider as it is asked.

use windlass_core::keyring::Credential;
use windlass_core::reference::Reference;

use super::*;
use crate::cloud::script::{Reply, Script, web};

fn request(image: &str) -> ProviderRequest {
    ProviderRequest { image: Reference::parse(image).unwrap(), service_account: None }
}

fn aws(script: &Script) -> Aws {
    let mut settings = AwsSettings::from_environment(&|name| match name {
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("canary".into()),
        _ => None,
    });
    settings.ecr_endpoint = Some(script.url());
    Aws::new(settings, web())
}

#[tokio::test]
async fn a_foreign_image_asks_nobody() {
    let script = Script::start(|_, _| Reply::new(500, "")).await;
    for image in ["nginx", "ghcr.io/a/b", "gcr.io/a/b", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example/a"] {
        let answer = aws(&script).ask(&request(image)).await.unwrap();
        assert_eq!((answer.auth.len(), answer.cache_duration), (0, Some(Duration::ZERO)), "{image}");
    }
    assert!(script.seen().is_empty());
}

#[tokio::test]
async fn the_login_is_for_the_image_s_host_only() {
    let body = r#"{"authorizationData":[{"authorizationToken":"QVdTOmNhbmFyeQ==","proxyEndpoint":"https://x"}]}"#;
    let script = Script::start(move |_, _| Reply::new(200, body)).await;
    let aws = aws(&script);
    for image in ["123456789012.dkr.ecr.eu-west-1.amazonaws.com:443/a", "public.ecr.aws/a/b"] {
        let answer = aws.ask(&request(image)).await.unwrap();
        let host = image.split(['/', ':']).next().unwrap();
        assert!(matches!(&answer.auth[..], [(key, Credential::Basic { .. })] if key == host), "{answer:?}");
        assert_eq!(answer.cache_key_type, CacheKeyType::Registry);
        assert!(!format!("{answer:?} {aws:?}").contains("canary"));
    }
}

#[tokio::test]
async fn an_answer_comes_in_time_or_not_at_all() {
    let script = Script::start(|_, _| Reply::new(200, "").after(Duration::from_secs(60))).await;
    let mut aws = aws(&script);
    aws.settings.limit = Duration::from_millis(100);
    let start = Instant::now();
    let error = aws.ask(&request("public.ecr.aws/a/b")).await.unwrap_err();
    assert!(error.hint().contains("VPC endpoint"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
