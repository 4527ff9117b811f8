//! A signed question: `POST /` with tries, and once more by the service's clock when ours is wrong.
//!
//! Invariants: `a_wrong_clock_is_put_right_once`, `everything_that_must_be_signed_is_signed`.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::web::{WebAnswer, WebRequest, WebRoute};

use super::keys::Keys;
use super::refusal::Refusal;
use super::sigv4::{Scope, ToSign, sign};
use crate::cloud::CloudError;
use crate::cloud::asking::{ANSWER_BYTES, REQUEST_LIMIT, Service};
use crate::cloud::{json, moment};

/// Clocks that differ by less are not why a signature was refused; AWS allows 5 minutes and more.
const SKEW_MIN: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) url: &'a HttpUrl,
    pub(super) scope: Scope<'a>,
    /// `Content-Type`.
    pub(super) media_type: &'static str,
    /// `X-Amz-Target`, for services that speak JSON.
    pub(super) target: Option<&'static str>,
    pub(super) body: &'a Secret<Vec<u8>>,
}

/// An answer, and what time it was by the clock that the service accepts.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) answer: WebAnswer,
    pub(super) now: SystemTime,
}

/// Asks. Refusals are answers.
///
/// # Errors
/// As [`Service::ask`].
pub(super) async fn post(service: &Service<'_>, question: &Question<'_>, keys: &Keys) -> Result<Answered, CloudError> {
    let again = |answer: &WebAnswer| !answer.status.is_success() && Refusal::read(answer).is_passing();
    let answer = service.ask(|| request(question, keys, SystemTime::now()), again).await?;
    let Some(skew) = skew(&answer, SystemTime::now()) else {
        return Ok(Answered { answer, now: SystemTime::now() });
    };
    let answer = service.ask(|| request(question, keys, skew.now()), again).await?;
    Ok(Answered { answer, now: skew.now() })
}

/// How far our clock is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skew {
    Slow(Duration),
    Fast(Duration),
}

impl Skew {
    fn now(self) -> SystemTime {
        let now = SystemTime::now();
        match self {
            Skew::Slow(by) => now.checked_add(by),
            Skew::Fast(by) => now.checked_sub(by),
        }
        .unwrap_or(now)
    }
}

/// The difference of the clocks, if the answer is a refusal that it explains.
fn skew(answer: &WebAnswer, now: SystemTime) -> Option<Skew> {
    if answer.status.is_success() || !Refusal::read(answer).may_be_skew() {
        return None;
    }
    let theirs = moment::of_answer(&answer.headers)?;
    let skew = match theirs.duration_since(now) {
        Ok(by) => (by, Skew::Slow(by)),
        Err(error) => (error.duration(), Skew::Fast(error.duration())),
    };
    (skew.0 >= SKEW_MIN).then_some(skew.1)
}

fn request(question: &Question<'_>, keys: &Keys, at: SystemTime) -> Result<WebRequest, CloudError> {
    let Question { url, scope, media_type, target, body } = question;
    let host = url.authority();
    let mut to_sign = vec![("content-type", *media_type), ("host", host.as_str())];
    to_sign.extend(target.iter().map(|target| ("x-amz-target", *target)));
    let query = url.query().unwrap_or_default();
    let what = ToSign { method: "POST", path: url.path(), query, headers: &to_sign, body: body.expose() };
    let signed = sign(&what, keys, *scope, at);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(HeaderName::from_static("x-amz-date"), value(&signed.date)?);
    if let Some(target) = target {
        headers.insert(HeaderName::from_static("x-amz-target"), HeaderValue::from_static(target));
    }
    if let Some(token) = &keys.session_token {
        headers.insert(HeaderName::from_static("x-amz-security-token"), value(token.expose())?);
    }
    headers.insert(AUTHORIZATION, value(signed.authorization.expose())?);
    Ok(WebRequest {
        method: Method::POST,
        url: (*url).clone(),
        headers,
        body: (*body).clone(),
        route: WebRoute::Usual,
        limit: REQUEST_LIMIT,
        bytes_max: ANSWER_BYTES,
    })
}

fn value(text: &str) -> Result<HeaderValue, CloudError> {
    let refused = |_| json::malformed("whoever gave the keys", "holds characters that cannot be sent");
    let mut value = HeaderValue::from_str(text).map_err(refused)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::script::{Reply, Script, service, web};

    const BODY: &[u8] = b"{}";

    fn keys() -> Keys {
        Keys {
            access_key_id: "AKID".to_owned(),
            secret: Secret::from("secret"),
            session_token: Some(Secret::from("session")),
            expires: None,
            source: "a test".to_owned(),
        }
    }

    async fn ask(script: &Script) -> Answered {
        let (url, body) = (HttpUrl::parse(&script.url()).unwrap(), Secret::new(BODY.to_vec()));
        let scope = Scope { region: "eu-west-1", service: "ecr" };
        let media_type = "application/x-amz-json-1.1";
        let question = Question { url: &url, scope, media_type, target: Some("T.Get"), body: &body };
        post(&service(&web(), "ECR"), &question, &keys()).await.unwrap()
    }

    #[tokio::test]
    async fn everything_that_must_be_signed_is_signed() {
        let script = Script::start(|_, _| Reply::new(200, "{}")).await;
        ask(&script).await;
        let seen = &script.seen()[0];
        assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body.as_str()), ("POST", "/", "{}"));
        assert_eq!((seen.header("x-amz-target"), seen.header("x-amz-security-token")), ("T.Get", "session"));
        let names = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target,";
        assert!(seen.header("authorization").contains(names), "{seen:?}");
        let day = &seen.header("x-amz-date")[..8];
        assert!(seen.header("authorization").contains(&format!("Credential=AKID/{day}/eu-west-1/ecr/aws4_request")));
    }

    #[tokio::test]
    async fn a_wrong_clock_is_put_right_once() {
        let refusal = r#"{"__type":"InvalidSignatureException","message":"Signature not yet current"}"#;
        let noon = "Sun, 30 Aug 2015 12:36:00 GMT";
        let script = Script::start(move |number, _| match number {
            0 => Reply::new(400, refusal).header("Date", noon),
            _ => Reply::new(200, "{}"),
        });
        let script = script.await;
        let answered = ask(&script).await;
        assert!(answered.answer.status.is_success());
        assert!(moment::basic(answered.now).starts_with("20150830T1236"), "{:?}", answered.now);
        assert!(script.seen()[1].header("x-amz-date").starts_with("20150830T1236"));

        let script = Script::start(move |_, _| Reply::new(400, refusal).header("Date", noon)).await;
        assert_eq!((ask(&script).await.answer.status.as_u16(), script.seen().len()), (400, 2));
        let script = Script::start(move |_, _| Reply::new(400, refusal)).await;
        assert_eq!((ask(&script).await.answer.status.as_u16(), script.seen().len()), (400, 1));
    }

    #[tokio::test]
    async fn throttling_is_asked_again_and_refusals_are_not() {
        for (status, body, asked) in [
            (400, r#"{"__type":"ThrottlingException"}"#, 3),
            (500, r#"{"__type":"ServerException"}"#, 3),
            (400, r#"{"__type":"AccessDeniedException"}"#, 1),
        ] {
            let script = Script::start(move |_, _| Reply::new(status, body)).await;
            ask(&script).await;
            assert_eq!(script.seen().len(), asked, "{body}");
        }
    }
}
