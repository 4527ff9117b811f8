//! One endpoint in one session: its credentials in order, its retries, its answers.
//!
//! Invariants: `the_next_credential_is_tried_on_401_403_and_404`, `the_same_credential_is_retried_on_429_and_5xx`,
//! `kubelet_mode_tries_exactly_what_it_was_given`, `two_rounds_are_all_there_are`,
//! `a_refused_credential_is_renewed_once`.

mod negotiate;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::{Instant, timeout, timeout_at};
use windlass_core::host::Host;
use windlass_core::httpurl::{HttpUrl, UrlScheme, WebOrigin};
use windlass_core::keyring::{Candidate, Credential};
use windlass_core::mirror::{CredentialPolicy, Endpoint, Role, Scheme};
use windlass_core::realm::{AddressClass, PlainHttp, host_class};
use windlass_core::scope::ScopeSet;

use crate::attempt::Attempt;
use crate::client::{ClientInner, CredentialMode};
use crate::config::{AnonymousFallback, ERROR_BYTES};
use crate::counters::Tally;
use crate::error::{FetchError, Step, TransportError};
use crate::exchange::{self, Answer, Ask, Purpose};
use crate::net::{Body, Profile};
use crate::repository::Shared;
use crate::retry::{Next, Tries, chance};
use crate::words::{Words, retry_after};
use negotiate::{Negotiation, Proof, Refused, Verdict};

/// One request of a session.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) ask: Ask,
    /// For messages: `manifest team/app:1.4`.
    pub(crate) what: String,
    /// Rights the token must have.
    pub(crate) scopes: ScopeSet,
    pub(crate) patience: Patience,
    pub(crate) missing: Missing,
    /// Everything, waits included, ends by then.
    pub(crate) deadline: Option<Instant>,
}

/// Whether failures of the moment are waited out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Retry with growing waits.
    Wait,
    /// Another endpoint is left, or the request must not be repeated: fail at once.
    OneTry,
}

/// What a 404 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Perhaps that this credential may not see it: the next one is tried.
    Refusal,
    /// Just that: nothing is there.
    Answer,
}

/// An endpoint with the credentials to show it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) endpoint: Endpoint,
    client: Arc<ClientInner>,
    shared: Arc<Shared>,
    profile: Profile,
    /// In trying order; `None` is the anonymous attempt. A refused one may be replaced by a newer one.
    candidates: Mutex<Vec<Option<Candidate>>>,
    mode: CredentialMode,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    accepted: Option<usize>,
    /// The endpoint asked for authentication at least once.
    challenged: bool,
    /// The class of the address at which the endpoint was reached.
    class: Option<AddressClass>,
    attempts: Vec<Attempt>,
}

impl Session {
    pub(crate) fn new(
        client: Arc<ClientInner>,
        shared: Arc<Shared>,
        endpoint: Endpoint,
        given: &[Candidate],
        mode: CredentialMode,
    ) -> Session {
        let profile = Profile::of(&endpoint.settings);
        let candidates = Mutex::new(candidates(&endpoint, given, mode, client.config.anonymous_fallback));
        Session { endpoint, client, shared, profile, candidates, mode, state: Mutex::default() }
    }

    /// The endpoint's host, for messages.
    pub(crate) fn host(&self) -> &Host {
        &self.endpoint.host
    }

    /// Whether this is the registry itself rather than a mirror.
    pub(crate) fn is_registry(&self) -> bool {
        self.endpoint.role == Role::Registry
    }

    /// Credentials that were tried here.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.clone()
    }

    /// The candidate that was accepted: `Some(None)` is anonymous.
    pub(crate) fn accepted(&self) -> Option<Option<Candidate>> {
        let at = self.state().accepted?;
        Some(self.candidates()[at].clone())
    }

    /// The URL of something below the endpoint's API root.
    pub(crate) async fn url(&self, path: &str) -> Result<HttpUrl, FetchError> {
        let origin = self.origin().await?;
        let ns = self.endpoint.namespace.as_ref().map(|ns| format!("?ns={ns}")).unwrap_or_default();
        let text = format!("{origin}{}/{path}{ns}", self.endpoint.base_path);
        HttpUrl::parse(&text).map_err(|_| self.transport(Step::Resolve, TransportError::Scheme))
    }

    /// The endpoint's origin; a loopback host is asked once whether it speaks TLS.
    pub(crate) async fn origin(&self) -> Result<WebOrigin, FetchError> {
        let host = &self.endpoint.host;
        let scheme = match self.endpoint.scheme {
            Scheme::Https => UrlScheme::Https,
            Scheme::Http => UrlScheme::Http,
            Scheme::Probe => {
                let secure = WebOrigin::of_host(UrlScheme::Https, host);
                self.probe(&secure).await?
            }
        };
        Ok(WebOrigin::of_host(scheme, host))
    }

    /// Finds out whether the host speaks TLS; one that is just starting is waited for.
    async fn probe(&self, secure: &WebOrigin) -> Result<UrlScheme, FetchError> {
        let mut tries = Tries::new(self.client.config.retry);
        loop {
            let source = match self.client.network.probe(&secure.name, secure.port, &self.profile).await {
                Ok(scheme) => return Ok(scheme),
                Err(source) => source,
            };
            let next = if source.retryable() { tries.failed(None, chance()) } else { Next::GiveUp };
            match next {
                Next::Wait(wait) => tokio::time::sleep(wait).await,
                Next::GiveUp => return Err(self.transport(Step::Resolve, source)),
            }
        }
    }

    /// Sends a request with the accepted credential, or with each in turn until one is accepted.
    ///
    /// The answer may have any status but 401, 403, 404, 408, 429 and those of a failing server.
    pub(crate) async fn request(&self, job: &Job, tries: &mut Tries) -> Result<Answer, FetchError> {
        let known = self.state().accepted;
        let (mut at, end) = (known.unwrap_or(0), self.candidates().len());
        let (mut refusals, mut is_renewed) = (Vec::new(), false);
        while at < end {
            let candidate = self.candidates()[at].clone();
            let credential = candidate.as_ref().map_or(Credential::Anonymous, |c| c.credential.clone());
            let refused = match Negotiation::new(self, credential, job, tries).run().await? {
                Verdict::Answer(answer) => {
                    self.state().accepted = Some(at);
                    self.client.breakers.answered(self.host());
                    return Ok(*answer);
                }
                Verdict::Refused(refused) => refused,
            };
            let not_there = refused.status == 404 && (known == Some(at) || !self.state().challenged);
            let elsewhere = refused.elsewhere;
            self.note(candidate.as_ref(), &refused);
            if !is_renewed && matches!(refused.status, 401 | 403) && !elsewhere && self.renew(at, candidate).await {
                is_renewed = true;
                continue;
            }
            refusals.push(refused);
            (at, is_renewed) = (at + 1, false);
            if not_there || elsewhere || self.mode == CredentialMode::Kubelet {
                break;
            }
        }
        self.client.breakers.answered(self.host());
        Err(self.refusal(job, refusals))
    }

    /// Puts a newer credential in the place of a refused one. `false`: there is none.
    async fn renew(&self, at: usize, refused: Option<Candidate>) -> bool {
        let Some(refused) = refused.filter(|_| self.endpoint.credentials == CredentialPolicy::Registry) else {
            return false;
        };
        let newer = |candidate: &Candidate| candidate.credential != refused.credential;
        // Another request may have met the same refusal before.
        if self.candidates()[at].as_ref().is_some_and(newer) {
            return true;
        }
        let Some(candidate) = self.shared.renewed(&refused).await.filter(newer) else { return false };
        tracing::debug!(host = %self.host(), origin = %candidate.origin, "a refused credential was renewed");
        self.candidates()[at] = Some(candidate);
        true
    }

    fn candidates(&self) -> MutexGuard<'_, Vec<Option<Candidate>>> {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the request with this proof; failures of the moment are waited out.
    async fn send(&self, job: &Job, proof: &Proof, tries: &mut Tries) -> Result<Answer, FetchError> {
        let ask = self.dressed(job, proof);
        let purpose = Purpose::Configured(self.plain_http());
        let tallies: [&Tally; 2] = [&self.client.tally, &self.shared.tally];
        loop {
            let network = &self.client.network;
            let sent = exchange::ask(network, &tallies, &self.profile, &ask, &purpose);
            let error = match self.in_time(job, sent).await? {
                Ok(answer) => {
                    self.shared.note(&answer.headers);
                    self.state().class = Some(answer.first_class);
                    match answer.status.as_u16() {
                        408 | 429 | 499 | 500 | 502 | 503 | 504 | 522 => self.failure(job.ask.step, answer).await,
                        _ => return Ok(answer),
                    }
                }
                Err(error) => error,
            };
            self.wait_after(error, job, tries).await?;
        }
    }

    /// The request with its credential and the headers configured for this host.
    fn dressed(&self, job: &Job, proof: &Proof) -> Ask {
        let mut ask = job.ask.clone();
        ask.headers.insert(header::USER_AGENT, self.client.user_agent.clone());
        for (name, value) in &self.endpoint.settings.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(value.expose())) {
                value.set_sensitive(true);
                ask.headers.append(name, value);
            }
        }
        match proof {
            Proof::Nothing => {}
            Proof::Basic(header) | Proof::RegistryToken(header) | Proof::Bearer { header, .. } => {
                ask.headers.insert(header::AUTHORIZATION, header.clone());
            }
        }
        ask
    }

    /// Redirects may leave TLS only where the registry itself does without it by configuration.
    fn plain_http(&self) -> PlainHttp {
        match self.endpoint.scheme {
            Scheme::Http => PlainHttp::Allowed,
            Scheme::Https | Scheme::Probe => PlainHttp::Refused,
        }
    }

    /// The class of the address at which the endpoint was reached, or that of its name.
    pub(crate) fn class(&self, registry: &WebOrigin) -> AddressClass {
        self.state().class.unwrap_or_else(|| host_class(&registry.name))
    }

    async fn in_time<T>(&self, job: &Job, work: impl Future<Output = T>) -> Result<T, FetchError> {
        match job.deadline {
            None => Ok(work.await),
            Some(deadline) => timeout_at(deadline, work).await.map_err(|_| self.no_progress(&job.what)),
        }
    }

    /// Asks a place that the registry named before, without any credential and once.
    pub(crate) async fn elsewhere(&self, job: &Job) -> Result<Answer, FetchError> {
        let registry = self.origin().await?;
        let purpose = Purpose::Referred { class: self.class(&registry), registry };
        let mut ask = job.ask.clone();
        ask.headers.insert(header::USER_AGENT, self.client.user_agent.clone());
        let tallies: [&Tally; 2] = [&self.client.tally, &self.shared.tally];
        let profile = self.profile.for_other_hosts();
        self.in_time(job, exchange::ask(&self.client.network, &tallies, &profile, &ask, &purpose)).await?
    }

    /// Waits before the next try, or gives the error back when there is none.
    pub(crate) async fn wait_after(&self, error: FetchError, job: &Job, tries: &mut Tries) -> Result<(), FetchError> {
        if job.patience == Patience::OneTry || !error.passes() {
            return Err(error);
        }
        let asked = error.retry_after();
        if let Some(asked) = asked
            && !self.shared.grant_wait(asked)
        {
            return Err(error.rate_limited());
        }
        let Next::Wait(wait) = tries.failed(asked, chance()) else { return Err(error) };
        if job.deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return Err(self.no_progress(&job.what));
        }
        tracing::debug!(host = %self.host(), step = %job.ask.step, %error, wait_ms = wait.as_millis() as u64, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    pub(crate) fn no_progress(&self, what: &str) -> FetchError {
        let limit = self.client.config.timeouts.progress;
        FetchError::NoProgress { host: self.host().clone(), what: what.to_owned(), limit }
    }

    pub(crate) fn transport(&self, step: Step, source: TransportError) -> FetchError {
        FetchError::Transport { host: self.host().clone(), step, source }
    }

    /// The registry's own words, read from an error's body.
    pub(crate) async fn words(&self, headers: &HeaderMap, body: Body) -> Words {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let limit = self.client.config.timeouts.idle;
        match timeout(limit, body.collect(ERROR_BYTES as u64)).await {
            Ok(Ok(Some(body))) => Words::from_body(content_type, &body),
            // Words are a courtesy; the status says what matters.
            Ok(Ok(None) | Err(_)) | Err(_) => Words::default(),
        }
    }

    /// An unexpected status as an error.
    pub(crate) async fn failure(&self, step: Step, answer: Answer) -> FetchError {
        let retry_after = retry_after(&answer.headers, SystemTime::now());
        let status = answer.status.as_u16();
        let words = self.words(&answer.headers, answer.body).await;
        let host = self.host().clone();
        if status == 429 {
            FetchError::RateLimited { host, retry_after, words }
        } else {
            FetchError::Status { host, step, status, retry_after, words }
        }
    }

    fn note(&self, candidate: Option<&Candidate>, refused: &Refused) {
        let untrusted = match &refused.untrusted {
            Some((realm, _)) => format!(" (asked anonymously: {realm} must not get the credential)"),
            None => String::new(),
        };
        let answer = format!("{}{}{untrusted}", refused.status, refused.words);
        let attempt = Attempt::new(candidate, answer);
        let mut state = self.state();
        if !state.attempts.contains(&attempt) {
            state.attempts.push(attempt);
        }
    }

    /// The error for a request that no credential opened. A 404 says most, then a 403.
    fn refusal(&self, job: &Job, mut refusals: Vec<Refused>) -> FetchError {
        let (host, what, attempts) = (self.host().clone(), job.what.clone(), self.attempts());
        let rank = |refused: &Refused| match refused.status {
            404 => 0,
            403 => 1,
            _ => 2,
        };
        refusals.sort_by_key(rank);
        let untrusted = refusals.iter_mut().find_map(|r| r.untrusted.take());
        let Some(Refused { status, words, .. }) = refusals.into_iter().next() else {
            return FetchError::Protocol { host, problem: "no credential could be tried" };
        };
        match (status, untrusted) {
            (404, _) => FetchError::NotFound { host, what, words, attempts },
            (_, Some((realm, why))) => FetchError::RealmNotTrusted { host, realm, why },
            (403, None) => FetchError::Denied { host, what, words, attempts },
            (_, None) => FetchError::Unauthorized { host, what, words, attempts },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The credentials for an endpoint, in trying order; `None` is the anonymous attempt.
fn candidates(
    endpoint: &Endpoint,
    given: &[Candidate],
    mode: CredentialMode,
    fallback: AnonymousFallback,
) -> Vec<Option<Candidate>> {
    let own;
    let mine: &[Candidate] = match &endpoint.credentials {
        CredentialPolicy::Registry => given,
        CredentialPolicy::Anonymous => &[],
        CredentialPolicy::Own(credential) => {
            own = [Candidate::new(credential.clone(), windlass_core::keyring::Origin::Given, endpoint.host.as_str())];
            &own
        }
    };
    let mut list: Vec<Option<Candidate>> = mine.iter().cloned().map(Some).collect();
    let anonymous = list.iter().flatten().any(|c| c.credential == Credential::Anonymous);
    let at_the_end = mode == CredentialMode::Windlass && fallback == AnonymousFallback::Allowed && !anonymous;
    if list.is_empty() || at_the_end {
        list.push(None);
    }
    list
}

/// Waits that `Retry-After` may still ask for within one session.
#[derive(Debug)]
pub(crate) struct WaitBudget(Mutex<Duration>);

impl WaitBudget {
    pub(crate) fn new(total: Duration) -> WaitBudget {
        WaitBudget(Mutex::new(total))
    }

    /// Takes `wait` from the budget if it is there.
    pub(crate) fn grant(&self, wait: Duration) -> bool {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match left.checked_sub(wait) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}
