//! One service of a cloud, asked with tries and a deadline.
//!
//! In: how the request is made (anew for each try: signatures carry the time), and whether an answer is worth another
//! try. Out: the last answer, whatever its status, or [`CloudError::Unreachable`].
//!
//! Invariants: `what_passes_is_asked_again`, `no_try_begins_past_the_deadline`,
//! `a_wait_that_is_too_long_is_not_begun`, `an_answer_that_is_too_long_is_not_the_network_s_fault`.

use std::time::{Duration, Instant, SystemTime};

use windlass_distribution::web::{Web, WebAnswer, WebPeer, WebRequest};
use windlass_distribution::{TransportError, chance, escape, retry_after};

use super::CloudError;
use super::json::malformed;
use super::retry::{Deadline, Retries, passing};

/// Most bytes of a service's own words that are shown.
pub(crate) const WORDS_BYTES: usize = 400;

/// A service and the patience for it.
#[derive(Clone, Debug)]
pub(crate) struct Service<'a> {
    /// The transport.
    pub(crate) web: &'a Web,
    /// As an operator knows it, with its host: `the STS at sts.eu-west-1.amazonaws.com`.
    pub(crate) name: String,
    /// Tries.
    pub(crate) retries: Retries,
    /// The end of all tries.
    pub(crate) deadline: Deadline,
    /// What to do when it does not answer; may be empty.
    pub(crate) hint: String,
}

impl Service<'_> {
    /// Asks until an answer is not worth another try, or the tries are used up.
    ///
    /// # Errors
    /// [`CloudError::Unreachable`], [`CloudError::Timeout`], and what `make` gives.
    pub(crate) async fn ask(
        &self,
        make: impl FnMut() -> Result<WebRequest, CloudError> + Send,
        again: impl Fn(&WebAnswer) -> bool + Send,
    ) -> Result<WebAnswer, CloudError> {
        self.ask_by(None, make, again).await
    }

    /// As [`Service::ask`], at a host that is found elsewhere.
    pub(crate) async fn ask_at(
        &self,
        peer: &WebPeer,
        make: impl FnMut() -> Result<WebRequest, CloudError> + Send,
        again: impl Fn(&WebAnswer) -> bool + Send,
    ) -> Result<WebAnswer, CloudError> {
        self.ask_by(Some(peer), make, again).await
    }

    async fn ask_by(
        &self,
        peer: Option<&WebPeer>,
        mut make: impl FnMut() -> Result<WebRequest, CloudError> + Send,
        again: impl Fn(&WebAnswer) -> bool + Send,
    ) -> Result<WebAnswer, CloudError> {
        let mut failed = 0;
        loop {
            let mut request = make()?;
            let left = self.deadline.left(Instant::now());
            if left.is_zero() {
                return Err(CloudError::Timeout { limit_seconds: self.deadline.limit_seconds() });
            }
            request.limit = request.limit.min(left);
            let got = match peer {
                Some(peer) => self.web.ask_at(peer, &request).await,
                None => self.web.ask(&request).await,
            };
            failed += 1;
            let asked = match &got {
                Ok(answer) if again(answer) => retry_after(&answer.headers, SystemTime::now()),
                Err(error) if error.retryable() => None,
                Ok(_) | Err(_) => return self.end(got),
            };
            match self.retries.wait(failed, asked, chance()) {
                Some(wait) if wait < self.deadline.left(Instant::now()) => tokio::time::sleep(wait).await,
                Some(_) | None => return self.end(got),
            }
        }
    }

    /// As [`Service::ask`]: server errors, 429 and 408 are asked again.
    pub(crate) async fn ask_usual(&self, request: &WebRequest) -> Result<WebAnswer, CloudError> {
        self.ask(|| Ok(request.clone()), |answer| passing(answer.status)).await
    }

    fn end(&self, got: Result<WebAnswer, TransportError>) -> Result<WebAnswer, CloudError> {
        got.map_err(|source| match source {
            // Somebody answered; the network is not what is wrong.
            TransportError::BodyTooLarge { .. } | TransportError::HeadersTooLarge | TransportError::Protocol { .. } => {
                malformed(&self.name, format!("cannot be read: {source}"))
            }
            source => {
                let (service, hint) = (self.name.clone(), self.hint.clone());
                CloudError::Unreachable { service, hint, source: Box::new(source) }
            }
        })
    }
}

/// A service's words for people: escaped and cut.
pub(crate) fn words(text: &str) -> String {
    escape(text.trim(), WORDS_BYTES)
}

/// Longest time for one request, unless a service has its own.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// Most bytes of an answer: a login has some KiB.
pub(crate) const ANSWER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::script::{Reply, Script, service, web};
    use http::{HeaderMap, Method};
    use windlass_core::httpurl::HttpUrl;
    use windlass_core::secret::Secret;
    use windlass_distribution::web::WebRoute;

    fn request(url: &str) -> WebRequest {
        WebRequest {
            method: Method::GET,
            url: HttpUrl::parse(url).unwrap(),
            headers: HeaderMap::new(),
            body: Secret::new(Vec::new()),
            route: WebRoute::Direct,
            limit: REQUEST_LIMIT,
            bytes_max: ANSWER_BYTES,
        }
    }

    #[tokio::test]
    async fn what_passes_is_asked_again() {
        let table: [(&[u16], u16); 5] = [
            (&[200], 200),
            (&[500, 429, 200], 200),
            (&[400, 200], 400),
            (&[503, 503, 503, 200], 503),
            (&[302, 200], 302),
        ];
        for (answers, want) in table {
            let script = Script::start(|number, _| Reply::new(answers[number], "")).await;
            let (web, request) = (web(), request(&script.url()));
            let answer = service(&web, "it").ask_usual(&request).await.unwrap();
            assert_eq!(answer.status.as_u16(), want, "{answers:?}");
        }
        let cut =
            Script::start(|number, _| if number == 0 { Reply::new(200, "12").cut() } else { Reply::new(200, "12") });
        let (web, cut) = (web(), cut.await);
        assert_eq!(service(&web, "it").ask_usual(&request(&cut.url())).await.unwrap().body.expose(), b"12");
    }

    #[tokio::test]
    async fn no_try_begins_past_the_deadline() {
        let script = Script::start(|_, _| Reply::new(200, "").after(Duration::from_secs(30))).await;
        let web = web();
        let mut service = Service { hint: "do this".to_owned(), ..service(&web, "it") };
        service.deadline = Deadline::after(Duration::from_millis(50), Instant::now());
        let error = service.ask_usual(&request(&script.url())).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), ("it cannot be asked", "do this"));
        assert_eq!(script.seen().len(), 1);
        service.deadline = Deadline::after(Duration::ZERO, Instant::now());
        let error = service.ask_usual(&request(&script.url())).await.unwrap_err();
        assert!(matches!(error, CloudError::Timeout { limit_seconds: 0 }), "{error}");
    }

    #[tokio::test]
    async fn a_wait_that_is_too_long_is_not_begun() {
        let script = Script::start(|_, _| Reply::new(429, "").header("Retry-After", "7200")).await;
        let web = web();
        let answer = service(&web, "it").ask_usual(&request(&script.url())).await.unwrap();
        assert_eq!((answer.status.as_u16(), script.seen().len()), (429, 1));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_not_the_network_s_fault() {
        let script = Script::start(|_, _| Reply::new(200, "x".repeat(ANSWER_BYTES + 1))).await;
        let web = web();
        let error = service(&web, "it").ask_usual(&request(&script.url())).await.unwrap_err();
        assert_eq!(error.to_string(), "the answer of it cannot be read: the answer has more than 262144 bytes");
        assert_eq!(script.seen().len(), 1);
    }
}
