//! Who is asking, and the answer when that is not enough.
//!
//! In: the `Authorization` header. Out: a [`Caller`], or a 401 with the challenge that says what would do.
//! Source of truth: distribution `docs/content/spec/auth/token.md` and RFC 7617.
//!
//! | caller                                   | Basic          | Bearer                          |
//! | ---                                      | ---            | ---                             |
//! | says nothing                             | 401 challenge  | 401 challenge with the scope    |
//! | wrong password, bad token                | 401 challenge  | 401 `invalid_token`             |
//! | token lacks what its user may            |                | 401 `insufficient_scope`        |
//! | user may not even read, reads            | 404            | 404                             |
//! | user may read but not write              | 403 `DENIED`   | 401 `insufficient_scope`        |
//! | user may neither and writes              | 403 `DENIED`   | 401 `insufficient_scope`        |
//!
//! With Basic, a caller who says nothing is served where `anonymous` has the right; with Bearer everybody brings a
//! token, as with every public registry.
//!
//! Invariants: `private_and_missing_look_alike`, `forged_tokens_are_refused`.

mod htpasswd;
mod live;
pub(crate) mod token;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use windlass_core::secret::Secret;

use crate::access::{Action, Identity, Rules};
use crate::config::{Auth, RegistryConfig};
use crate::error::{ApiError, ErrorCode, RegistryError};
use crate::log::CredentialKind;
use crate::route::RepositoryName;
pub use live::LiveUsers;
use token::{Access, Signer};
use users::UserTable;

/// Who is asking and with what limits.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    /// What the token is good for; `None` where no token limits the caller.
    scope: Option<BTreeMap<String, BTreeSet<Action>>>,
}

/// What a request's `Authorization` header holds.
enum Given {
    Nothing,
    Basic { user: String, password: Secret<String> },
    Bearer(Secret<String>),
    Other,
}

/// Decides who may do what with this registry.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) auth: Auth,
    pub(crate) rules: Rules,
    users: UserTable,
    signer: Option<Signer>,
}

impl Gate {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Gate, RegistryError> {
        let signer = match &config.auth {
            Auth::Open | Auth::Basic => None,
            Auth::Bearer(bearer) => Some(Signer::new(bearer)?),
        };
        let users = UserTable::new(&config.users)?;
        Ok(Gate { auth: config.auth.clone(), rules: config.rules.clone(), users, signer })
    }

    /// The token service, where there is one.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Checks a user's password.
    pub(crate) async fn login(&self, user: &str, password: &Secret<String>) -> bool {
        self.users.verify(user, password).await
    }

    /// Whether the user still exists.
    pub(crate) async fn knows(&self, user: &str) -> bool {
        self.users.knows(user).await
    }

    /// Who is asking. `host` is where a token would be asked for.
    pub(crate) async fn identify(&self, headers: &HeaderMap, host: &Origin) -> Result<Caller, ApiError> {
        let anonymous = Caller { identity: Identity::Anonymous, scope: None };
        match (&self.auth, given(headers)) {
            (Auth::Open, _) => Ok(anonymous),
            (Auth::Basic, Given::Nothing) => Ok(anonymous),
            (Auth::Basic, Given::Basic { user, password }) => match self.basic(&user, &password).await {
                Some(identity) => Ok(Caller { identity, scope: None }),
                None => Err(self.unauthorized(host, &[], None)),
            },
            (Auth::Bearer(_), Given::Nothing) => Ok(Caller { scope: Some(BTreeMap::new()), ..anonymous }),
            (Auth::Bearer(_), Given::Bearer(token)) => match self.bearer(&token).await {
                Some(caller) => Ok(caller),
                None => Err(self.unauthorized(host, &[], Some("invalid_token"))),
            },
            (Auth::Basic, Given::Bearer(_) | Given::Other) => Err(self.unauthorized(host, &[], None)),
            (Auth::Bearer(_), Given::Basic { .. } | Given::Other) => Err(self.unauthorized(host, &[], None)),
        }
    }

    /// User and password by Basic. Both empty is how some clients spell "nobody".
    pub(crate) async fn basic(&self, user: &str, password: &Secret<String>) -> Option<Identity> {
        if user.is_empty() && password.expose().is_empty() {
            return Some(Identity::Anonymous);
        }
        self.login(user, password).await.then(|| Identity::User(user.to_owned()))
    }

    async fn bearer(&self, token: &Secret<String>) -> Option<Caller> {
        let Access { user, scope } = self.signer.as_ref()?.verify(token)?;
        let identity = match user {
            None => Identity::Anonymous,
            // A token of a user who is gone is worth nothing.
            Some(name) if self.knows(&name).await => Identity::User(name),
            Some(_) => return None,
        };
        Some(Caller { identity, scope: Some(scope) })
    }

    /// Whether the caller may do all of `actions`, quietly.
    pub(crate) fn may(&self, caller: &Caller, repository: &RepositoryName, actions: &[Action]) -> bool {
        self.auth == Auth::Open || actions.iter().all(|action| self.may_one(caller, repository, *action))
    }

    fn may_one(&self, caller: &Caller, repository: &RepositoryName, action: Action) -> bool {
        let in_scope = match &caller.scope {
            None => true,
            Some(scope) => scope.get(repository.as_str()).is_some_and(|actions| actions.contains(&action)),
        };
        in_scope && self.rules.allows(&caller.identity, repository.as_str(), action)
    }

    /// Lets the caller pass, or says what is missing. Decided without looking whether anything exists.
    pub(crate) fn authorize(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        actions: &[Action],
        host: &Origin,
    ) -> Result<(), ApiError> {
        if self.may(caller, repository, actions) {
            return Ok(());
        }
        let scope = [format!("repository:{repository}:{}", words(actions))];
        let by_rules = |action: &Action| self.rules.allows(&caller.identity, repository.as_str(), *action);
        let reads = actions == [Action::Pull];
        match (&self.auth, &caller.identity) {
            (Auth::Open, _) => Ok(()),
            (Auth::Basic, Identity::Anonymous) => Err(self.unauthorized(host, &scope, None)),
            (Auth::Basic, Identity::User(_)) if reads => Err(ApiError::name_unknown()),
            (Auth::Basic, Identity::User(_)) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                ErrorCode::Denied,
                "requested access to the resource is denied",
            )),
            (Auth::Bearer(_), Identity::User(_)) if reads && !actions.iter().all(by_rules) => {
                Err(ApiError::name_unknown())
            }
            (Auth::Bearer(_), Identity::Anonymous | Identity::User(_)) => {
                let missing = match &caller.scope {
                    Some(granted) if granted.is_empty() && caller.identity == Identity::Anonymous => None,
                    Some(_) | None => Some("insufficient_scope"),
                };
                Err(self.unauthorized(host, &scope, missing))
            }
        }
    }

    /// For end-points that are about no repository: anybody who proved anything, or a challenge.
    pub(crate) fn authorize_base(&self, caller: &Caller, headers: &HeaderMap, host: &Origin) -> Result<(), ApiError> {
        match (&self.auth, &caller.identity) {
            (Auth::Open, _) | (_, Identity::User(_)) => Ok(()),
            // Clients learn from this answer how to authenticate, so nobody is waved through silently.
            (Auth::Basic | Auth::Bearer(_), Identity::Anonymous) if !headers.contains_key(header::AUTHORIZATION) => {
                Err(self.unauthorized(host, &[], None))
            }
            (Auth::Basic | Auth::Bearer(_), Identity::Anonymous) => {
                if self.rules.know_anonymous() {
                    Ok(())
                } else {
                    Err(self.unauthorized(host, &[], None))
                }
            }
        }
    }

    fn unauthorized(&self, host: &Origin, scopes: &[String], error: Option<&str>) -> ApiError {
        let challenge = match &self.auth {
            Auth::Open | Auth::Basic => "Basic realm=\"windlass\"".to_owned(),
            Auth::Bearer(bearer) => {
                let realm = bearer.realm.clone().unwrap_or_else(|| format!("{}/token", host.0));
                let mut text = format!("Bearer realm=\"{realm}\",service=\"{}\"", bearer.service);
                if !scopes.is_empty() {
                    text.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
                }
                if let Some(error) = error {
                    text.push_str(&format!(",error=\"{error}\""));
                }
                text
            }
        };
        let answer = ApiError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "authentication required");
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => answer.with(header::WWW_AUTHENTICATE, challenge),
            // A service name with control characters; the answer stands without a challenge.
            Err(_) => answer,
        }
    }
}

fn words(actions: &[Action]) -> String {
    actions.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(",")
}

/// Scheme and host by which the client reached us, for absolute URLs in challenges.
#[derive(Clone, Debug)]
pub(crate) struct Origin(String);

impl Origin {
    /// From the `Host` header or the authority of the request; anything odd gives way to the listening address.
    pub(crate) fn new(scheme: &str, asked: Option<&str>, listening: &str) -> Origin {
        let plain = |host: &&str| {
            !host.is_empty()
                && host.len() <= 255
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        };
        Origin(format!("{scheme}://{}", asked.filter(plain).unwrap_or(listening)))
    }
}

/// How a request carries credentials, for the log.
pub(crate) fn credential_kind(headers: &HeaderMap) -> CredentialKind {
    let scheme = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.split(' ').next());
    match scheme {
        None if headers.contains_key(header::AUTHORIZATION) => CredentialKind::Other,
        None => CredentialKind::None,
        Some(scheme) if scheme.eq_ignore_ascii_case("basic") => CredentialKind::Basic,
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => CredentialKind::Bearer,
        Some(_) => CredentialKind::Other,
    }
}

fn given(headers: &HeaderMap) -> Given {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Given::Nothing };
    let Some((scheme, rest)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else { return Given::Other };
    if scheme.eq_ignore_ascii_case("bearer") {
        return Given::Bearer(Secret::from(rest.trim()));
    }
    match basic_parts(scheme, rest) {
        Some((user, password)) => Given::Basic { user, password },
        None => Given::Other,
    }
}

fn basic_parts(scheme: &str, encoded: &str) -> Option<(String, Secret<String>)> {
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Secret::new(STANDARD.decode(encoded.trim()).ok()?);
    let (user, password) = std::str::from_utf8(decoded.expose()).ok()?.split_once(':')?;
    Some((user.to_owned(), Secret::from(password)))
}

/// User and password of a request's Basic header.
pub(crate) fn basic_of(headers: &HeaderMap) -> Option<(String, Secret<String>)> {
    match given(headers) {
        Given::Basic { user, password } => Some((user, password)),
        Given::Nothing | Given::Bearer(_) | Given::Other => None,
    }
}
