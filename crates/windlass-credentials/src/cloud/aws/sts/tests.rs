//! The STS as it answers, and as it refuses.

use std::time::{Duration, Instant};

use super::*;
use crate::cloud::aws::AwsSettings;
use crate::cloud::retry::Deadline;
use crate::cloud::script::{Reply, Script, web};

const ARN: &str = "arn:aws:iam::123456789012:role/pull";

/// As the API reference shows it.
const ANSWER: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:a:b</SubjectFromWebIdentityToken>
    <Credentials>
      <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE=</SessionToken>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
      <Expiration>2014-10-24T23:00:23Z</Expiration>
      <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>";

fn settings(script: &Script) -> AwsSettings {
    let mut settings = AwsSettings::from_environment(&|name| (name == "AWS_REGION").then(|| "eu-central-1".into()));
    settings.sts_endpoint = Some(script.url());
    settings
}

fn role() -> Role {
    Role { arn: ARN.to_owned(), named_by: "a test".to_owned(), ..Role::default() }
}

fn own() -> Keys {
    Keys {
        access_key_id: "AKID".to_owned(),
        secret: Secret::from("secret"),
        session_token: None,
        expires: None,
        source: "the profile base".to_owned(),
    }
}

async fn asked<T>(script: &Script, call: impl AsyncFnOnce(&Ask<'_>) -> T) -> T {
    let (settings, web) = (settings(script), web());
    let deadline = Deadline::after(Duration::from_secs(20), Instant::now());
    call(&Ask { settings: &settings, web: &web, deadline, region: "us-east-1" }).await
}

async fn by_token(script: &Script) -> Result<Keys, CloudError> {
    asked(script, async |ask| with_web_identity(ask, &role(), &Secret::from("canary.jwt+")).await).await
}

fn refusal(code: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no canary.jwt+</Message></Error></ErrorResponse>"
    )
}

#[tokio::test]
async fn a_token_becomes_keys_without_a_signature() {
    let script = Script::start(|_, _| Reply::new(200, ANSWER)).await;
    let keys = by_token(&script).await.unwrap();
    assert_eq!(keys.access_key_id, "ASgeIAIOSFODNN7EXAMPLE");
    assert_eq!(keys.secret.expose(), "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY");
    assert_eq!(keys.session_token.unwrap().expose(), "AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE=");
    assert_eq!(keys.expires, moment::rfc3339("2014-10-24T23:00:23Z"));
    let seen = &script.seen()[0];
    assert_eq!((seen.header("authorization"), seen.header("content-type")), ("", form::FORM));
    let want = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
                &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpull\
                &RoleSessionName=ecr-credential-provider&WebIdentityToken=canary.jwt%2B";
    assert_eq!(seen.body, want);
}

#[tokio::test]
async fn a_role_is_assumed_with_other_keys_signed() {
    let script = Script::start(|_, _| Reply::new(200, ANSWER)).await;
    let role = Role {
        session_name: Some("me".to_owned()),
        external_id: Some(Secret::from("ext")),
        duration_seconds: Some("900".to_owned()),
        ..role()
    };
    asked(&script, async |ask| assume(ask, &role, &own()).await).await.unwrap();
    let seen = &script.seen()[0];
    assert!(seen.header("authorization").contains("/eu-central-1/sts/aws4_request"), "{seen:?}");
    assert!(seen.body.contains("Action=AssumeRole&") && seen.body.contains("&RoleSessionName=me&"), "{seen:?}");
    assert!(seen.body.ends_with("&DurationSeconds=900&ExternalId=ext"), "{seen:?}");
}

#[tokio::test]
async fn a_refusal_never_repeats_the_token() {
    let table = [
        (403, "AccessDenied", "trust policy", 1),
        (400, "InvalidIdentityToken", "OIDC identity provider", 1),
        (400, "ExpiredTokenException", "renewed", 1),
        (400, "IDPCommunicationError", "discovery document", 3),
    ];
    for (status, code, hint, asked) in table {
        let script = Script::start(move |_, _| Reply::new(status, refusal(code))).await;
        let error = by_token(&script).await.unwrap_err();
        assert!(error.to_string().ends_with(&format!("refused: {code}, no ***")), "{error}");
        assert!(error.hint().contains(hint), "{}", error.hint());
        assert_eq!(script.seen().len(), asked, "{code}");
    }
    let script = Script::start(|_, _| Reply::new(403, refusal("AccessDenied"))).await;
    let error = asked(&script, async |ask| assume(ask, &role(), &own()).await).await.unwrap_err();
    assert!(error.hint().contains(ARN) && error.hint().contains("the profile base"), "{}", error.hint());
}

#[tokio::test]
async fn answers_without_keys_are_malformed() {
    let table = [
        (String::new(), "has no Credentials"),
        (ANSWER.replace("SessionToken>", "Other>"), "has no SessionToken"),
        (ANSWER.replace("2014-10-24T23:00:23Z", "soon"), "an Expiration that is no time"),
        (ANSWER.replace("ASgeIAIOSFODNN7EXAMPLE", ""), "has no AccessKeyId"),
    ];
    for (body, want) in table {
        let script = Script::start(move |_, _| Reply::new(200, body.clone())).await;
        let error = by_token(&script).await.unwrap_err().to_string();
        assert!(error.starts_with("the answer of the STS at 127.0.0.1:") && error.ends_with(want), "{error}");
    }
}
