//! One credential's conversation with an endpoint: request, challenge, proof, at most two rounds.
//!
//! Only a 401 of the endpoint itself is answered, never one of a place it redirected to.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;
use windlass_core::challenge::{self, Bearer, Challenge, Selection};
use windlass_core::httpurl::HttpUrl;
use windlass_core::keyring::Credential;
use windlass_core::mirror::CredentialPolicy;
use windlass_core::realm::{Trust, judge_realm};
use windlass_core::scope::ScopeSet;

use super::{Job, Missing, Session};
use crate::auth::{self, Freshness, Known, Reach, Refusal, Token, TokenKey};
use crate::config::{AUTH_ROUNDS, ERROR_BYTES};
use crate::counters::Tally;
use crate::error::{FetchError, Step, TransportError};
use crate::exchange::{Answer, Purpose};
use crate::retry::Tries;
use crate::words::Words;

/// What the request is sent with.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Nothing,
    Basic(HeaderValue),
    RegistryToken(HeaderValue),
    Bearer { header: HeaderValue, key: Box<TokenKey>, token: Token, freshness: Freshness },
}

/// What one credential achieved.
pub(super) enum Verdict {
    Answer(Box<Answer>),
    Refused(Refused),
}

/// A 401, 403 or 404.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) words: Words,
    /// The realm would not get the credential; the attempt was anonymous.
    pub(super) untrusted: Option<Untrusted>,
    /// A place the registry redirected to said so: no other credential changes its mind.
    pub(super) elsewhere: bool,
}

/// A realm that must not get credentials, and the rule that says so.
pub(super) type Untrusted = (String, &'static str);

/// The state of one credential's conversation.
pub(super) struct Negotiation<'a> {
    pub(super) session: &'a Session,
    pub(super) credential: Credential,
    pub(super) job: &'a Job,
    pub(super) tries: &'a mut Tries,
    scopes: ScopeSet,
    untrusted: Option<Untrusted>,
}

impl<'a> Negotiation<'a> {
    pub(super) fn new(session: &'a Session, credential: Credential, job: &'a Job, tries: &'a mut Tries) -> Self {
        Negotiation { session, credential, scopes: job.scopes.clone(), job, tries, untrusted: None }
    }

    /// Sends the request until it is answered or the credential is refused.
    pub(super) async fn run(mut self) -> Result<Verdict, FetchError> {
        let mut proof = match self.known_proof().await? {
            Ok(proof) => proof,
            Err(refused) => return Ok(Verdict::Refused(refused)),
        };
        for round in 0.. {
            let answer = self.session.send(self.job, &proof, self.tries).await?;
            let narrow = answer.status == StatusCode::FORBIDDEN && insufficient_scope(&answer.headers);
            let asks = answer.status == StatusCode::UNAUTHORIZED || narrow;
            if !asks || answer.elsewhere || round == AUTH_ROUNDS {
                return Ok(self.verdict(answer).await);
            }
            self.session.state().challenged = true;
            match self.next_proof(&answer.headers, &proof).await? {
                Err(refused) => return Ok(Verdict::Refused(refused)),
                Ok(None) => return Ok(self.verdict(answer).await),
                Ok(Some(next)) => {
                    answer.body.drain(ERROR_BYTES as u64).await;
                    proof = next;
                }
            }
        }
        unreachable!("the last round returns")
    }

    /// What to send at first, from what is known of this registry: saves the round with the 401.
    async fn known_proof(&mut self) -> Result<Result<Proof, Refused>, FetchError> {
        let anonymous_only = self.session.endpoint.credentials == CredentialPolicy::Anonymous;
        if anonymous_only && self.credential != Credential::Anonymous {
            return Ok(Ok(Proof::Nothing));
        }
        let origin = self.session.origin().await?;
        match self.session.client.tokens.known(&origin) {
            None => Ok(Ok(Proof::Nothing)),
            Some(Known::Basic) => Ok(Ok(auth::basic(&self.credential).map_or(Proof::Nothing, Proof::Basic))),
            Some(Known::Bearer { realm, service }) => {
                let bearer = Bearer { realm, service, ..Bearer::default() };
                let found = self.bearer(&bearer, &Proof::Nothing).await?;
                if found.is_ok() {
                    self.session.state().challenged = true;
                }
                Ok(found.map(|proof| proof.unwrap_or(Proof::Nothing)))
            }
        }
    }

    /// The answer to a challenge; `None` when there is nothing better than what was sent.
    async fn next_proof(
        &mut self,
        headers: &HeaderMap,
        sent: &Proof,
    ) -> Result<Result<Option<Proof>, Refused>, FetchError> {
        let session = self.session;
        let origin = session.origin().await?;
        match challenge::select(&challenges(headers)) {
            Selection::Unsupported { schemes } if schemes.is_empty() => Ok(Ok(None)),
            Selection::Unsupported { schemes } => {
                let schemes = crate::words::escape(&schemes.join(", "), 256);
                Err(FetchError::Challenge { host: session.host().clone(), schemes })
            }
            Selection::Basic => {
                session.client.tokens.learn(&origin, Known::Basic);
                let again = matches!(sent, Proof::Basic(_));
                Ok(Ok(auth::basic(&self.credential).filter(|_| !again).map(Proof::Basic)))
            }
            Selection::Bearer(bearer) => {
                self.scopes.widen(bearer.scopes.iter().map(String::as_str), &session.shared.path);
                let known = Known::Bearer { realm: bearer.realm.clone(), service: bearer.service.clone() };
                session.client.tokens.learn(&origin, known);
                self.bearer(&bearer, sent).await
            }
        }
    }

    /// The proof for a Bearer challenge; `None` when there is nothing better than what was sent.
    async fn bearer(&mut self, bearer: &Bearer, sent: &Proof) -> Result<Result<Option<Proof>, Refused>, FetchError> {
        if let Credential::RegistryToken { token } = &self.credential {
            let again = matches!(sent, Proof::RegistryToken(_));
            return Ok(Ok(auth::bearer(token).filter(|_| !again).map(Proof::RegistryToken)));
        }
        let (key, realm) = self.token_key(bearer).await?;
        if let Proof::Bearer { key: sent_key, token, freshness, .. } = sent
            && **sent_key == key
        {
            match freshness {
                Freshness::Fetched => return Ok(Ok(None)),
                Freshness::Kept => self.session.client.tokens.discard(&key, token).await,
            }
        }
        match self.token(&key, &realm).await {
            Ok((token, freshness)) => {
                let (host, problem) = (self.session.host().clone(), "a token no header can hold");
                let header = auth::bearer(&token.text).ok_or(FetchError::Protocol { host, problem })?;
                Ok(Ok(Some(Proof::Bearer { header, key: Box::new(key), token, freshness })))
            }
            Err(Refusal::Credential { status, words }) => {
                Ok(Err(Refused { status, words, untrusted: self.untrusted.take(), elsewhere: false }))
            }
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// Which token is wanted, and where from: with the credential only where the realm may see it.
    async fn token_key(&mut self, bearer: &Bearer) -> Result<(TokenKey, HttpUrl), FetchError> {
        let session = self.session;
        let registry = session.origin().await?;
        let verdict = judge_realm(&registry, &bearer.realm, &session.endpoint.settings.allowed_realms);
        let why = verdict.reason.as_str();
        let (realm, credential) = match (verdict.url, verdict.trust) {
            (Some(realm), Trust::Credentials) => (realm, self.credential.clone()),
            (Some(realm), Trust::Anonymous) => {
                if self.credential != Credential::Anonymous {
                    self.untrusted = Some((realm.authority().to_string(), why));
                }
                (realm, Credential::Anonymous)
            }
            (None, _) | (_, Trust::Refused) => {
                let realm = crate::words::escape(bearer.realm.split(['?', '#']).next().unwrap_or_default(), 256);
                return Err(FetchError::RealmNotTrusted { host: session.host().clone(), realm, why });
            }
        };
        let (service, scopes) = (bearer.service.clone(), self.scopes.clone());
        Ok((TokenKey { realm: realm.to_request_uri(), service, scopes, credential, registry }, realm))
    }

    /// A token from the cache or the token endpoint, which is retried like the registry.
    async fn token(&mut self, key: &TokenKey, realm: &HttpUrl) -> Result<(Token, Freshness), Refusal> {
        let (session, job, tries) = (self.session, self.job, &mut *self.tries);
        let own_host = realm.origin().name == key.registry.name;
        let profile = if own_host { session.profile.clone() } else { session.profile.for_other_hosts() };
        let purpose = Purpose::Token {
            registry: key.registry.clone(),
            class: session.class(&key.registry),
            allowed: session.endpoint.settings.allowed_realms.clone(),
            sent: if key.credential == Credential::Anonymous { Trust::Anonymous } else { Trust::Credentials },
        };
        let tallies: [&Tally; 2] = [&session.client.tally, &session.shared.tally];
        let reach = Reach {
            network: &session.client.network,
            tallies: &tallies,
            profile: &profile,
            user_agent: &session.client.user_agent,
            purpose: &purpose,
        };
        // A token reply is small: one that trickles is no reply.
        let limit = session.client.config.timeouts.progress;
        let too_slow = || FetchError::Transport {
            host: realm.authority(),
            step: Step::Token,
            source: TransportError::IdleTimeout,
        };
        let fetch = async || loop {
            let asked = timeout(limit, auth::fetch(reach, key, realm));
            let error = match session.in_time(job, asked).await {
                Err(error) => return Err(Refusal::Failed(error)),
                Ok(Err(_)) => too_slow(),
                Ok(Ok(Err(Refusal::Failed(error)))) => error,
                Ok(Ok(outcome)) => return outcome,
            };
            session.wait_after(error, job, tries).await.map_err(Refusal::Failed)?;
        };
        session.client.tokens.get(key, fetch).await
    }

    async fn verdict(self, answer: Answer) -> Verdict {
        match answer.status.as_u16() {
            404 if self.job.missing == Missing::Answer => Verdict::Answer(Box::new(answer)),
            status @ (401 | 403 | 404) => {
                let elsewhere = answer.elsewhere;
                let words = self.session.words(&answer.headers, answer.body).await;
                Verdict::Refused(Refused { status, words, untrusted: self.untrusted, elsewhere })
            }
            _ => Verdict::Answer(Box::new(answer)),
        }
    }
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all(header::WWW_AUTHENTICATE);
    challenge::parse(lines.iter().filter_map(|v| v.to_str().ok()))
}

fn insufficient_scope(headers: &HeaderMap) -> bool {
    let selected = challenge::select(&challenges(headers));
    matches!(selected, Selection::Bearer(bearer) if bearer.error == "insufficient_scope")
}
