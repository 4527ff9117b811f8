//! Authentication of the faulty registry: simple, honest, and able to name any realm.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Shared;
use super::http1::Request;
use crate::wire::Reply;

/// How requests have to prove themselves.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    /// Not at all.
    #[default]
    Open,
    /// One user with a password, by Basic.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// A token from `/token`.
    Bearer {
        /// The user who gets a token; `None`: anybody does, without credentials.
        user: Option<(String, String)>,
        /// An identity token that POST accepts in place of a password.
        identity_token: Option<String>,
        /// The realm to name; `None`: `/token` of this registry.
        realm: Option<String>,
        /// `expires_in` of the answers.
        life_seconds: u64,
    },
}

impl Guard {
    /// One user, by Basic.
    pub fn basic(user: &str, password: &str) -> Guard {
        Guard::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    /// One user, by tokens of this registry.
    pub fn bearer(user: &str, password: &str) -> Guard {
        let user = Some((user.to_owned(), password.to_owned()));
        Guard::Bearer { user, identity_token: None, realm: None, life_seconds: 300 }
    }

    /// Tokens for everybody.
    pub fn bearer_anonymous() -> Guard {
        Guard::Bearer { user: None, identity_token: None, realm: None, life_seconds: 300 }
    }

    /// The same, naming another realm.
    pub fn with_realm(self, url: &str) -> Guard {
        match self {
            Guard::Bearer { user, identity_token, life_seconds, .. } => {
                Guard::Bearer { user, identity_token, realm: Some(url.to_owned()), life_seconds }
            }
            Guard::Open | Guard::Basic { .. } => panic!("only Bearer has a realm to go to"),
        }
    }

    /// The same, accepting this identity token by POST.
    pub fn with_identity_token(self, token: &str) -> Guard {
        match self {
            Guard::Bearer { user, realm, life_seconds, .. } => {
                Guard::Bearer { user, identity_token: Some(token.to_owned()), realm, life_seconds }
            }
            Guard::Open | Guard::Basic { .. } => panic!("only Bearer has identity tokens"),
        }
    }
}

/// What an `Authorization` header held, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenAuthorization {
    /// There was none.
    None,
    /// User and password.
    Basic {
        /// The user's name.
        user: String,
        /// Whether they are the ones the guard wants.
        is_good: bool,
    },
    /// A token.
    Bearer {
        /// Whether we made it and it still holds.
        is_good: bool,
    },
    /// Something else.
    Other,
}

/// Tokens given out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    good: HashMap<String, Vec<String>>,
    made: u64,
}

impl Tokens {
    pub(super) fn revoke(&mut self) {
        self.good.clear();
    }

    fn make(&mut self, scopes: Vec<String>) -> String {
        self.made += 1;
        let token = format!("faulty-token-{}", self.made);
        self.good.insert(token.clone(), scopes);
        token
    }
}

/// What a header holds.
pub(super) fn look(shared: &Shared, tokens: &Tokens, header: Option<&str>) -> SeenAuthorization {
    let Some((scheme, rest)) = header.map(|header| header.split_once(' ').unwrap_or((header, ""))) else {
        return SeenAuthorization::None;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return SeenAuthorization::Bearer { is_good: tokens.good.contains_key(rest.trim()) };
    }
    let Some((user, password)) = scheme.eq_ignore_ascii_case("basic").then(|| basic(rest)).flatten() else {
        return SeenAuthorization::Other;
    };
    let is_good = match &shared.guard {
        Guard::Open => false,
        Guard::Basic { user: want, password: secret } => *want == user && *secret == password,
        Guard::Bearer { user: wanted, .. } => *wanted == Some((user.clone(), password)),
    };
    SeenAuthorization::Basic { user, is_good }
}

fn basic(encoded: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Lets a request pass to the content, answers it as token service, or refuses it.
pub(super) fn admit(shared: &Shared, tokens: &mut Tokens, request: &Request) -> Result<(), Box<Reply>> {
    let seen = &request.seen;
    if let (Guard::Bearer { .. }, "/token") = (&shared.guard, seen.path.as_str()) {
        return Err(Box::new(token(shared, tokens, request)));
    }
    let challenge = match &shared.guard {
        Guard::Open => return Ok(()),
        Guard::Basic { .. } => {
            if matches!(&seen.authorization, SeenAuthorization::Basic { is_good: true, .. }) {
                return Ok(());
            }
            "Basic realm=\"faulty\"".to_owned()
        }
        Guard::Bearer { realm, .. } => {
            let repository = repository(&seen.path);
            let scope = repository.map(|name| format!("repository:{name}:pull"));
            let presented = request.authorization.as_deref().and_then(|header| header.split_once(' '));
            let granted = presented.and_then(|(_, token)| tokens.good.get(token.trim()));
            let covers = |scopes: &Vec<String>| scope.as_ref().is_none_or(|scope| scopes.contains(scope));
            if granted.is_some_and(covers) {
                return Ok(());
            }
            let own = format!("{}://{}/token", shared.scheme(), shared.addr);
            let mut text = format!("Bearer realm=\"{}\",service=\"faulty\"", realm.as_ref().unwrap_or(&own));
            if let Some(scope) = scope {
                text.push_str(&format!(",scope=\"{scope}\""));
            }
            text
        }
    };
    let refusal = Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge);
    Err(Box::new(refusal))
}

/// The repository of a path, where it names one.
fn repository(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|word| rest.rsplit_once(word)).map(|(name, _)| name)
}

fn token(shared: &Shared, tokens: &mut Tokens, request: &Request) -> Reply {
    let Guard::Bearer { user, identity_token, life_seconds, .. } = &shared.guard else {
        return Reply::error(404, "UNSUPPORTED", "no token service");
    };
    let field = |key: &str| request.form.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let by_form = match field("grant_type").as_deref() {
        Some("password") => field("username").zip(field("password")) == *user,
        Some("refresh_token") => field("refresh_token").is_some_and(|token| identity_token.as_ref() == Some(&token)),
        _ => false,
    };
    let by_header = matches!(&request.seen.authorization, SeenAuthorization::Basic { is_good: true, .. });
    let nothing = request.seen.authorization == SeenAuthorization::None && request.form.is_empty();
    if !(by_form || by_header || (user.is_none() && identity_token.is_none() && nothing)) {
        return Reply::error(401, "UNAUTHORIZED", "incorrect username or password");
    }
    let mut scopes = request.seen.query_values("scope");
    scopes.extend(field("scope").iter().flat_map(|scope| scope.split(' ')).map(str::to_owned));
    let token = tokens.make(scopes);
    let reply = serde_json::json!({ "token": token, "access_token": token, "expires_in": life_seconds });
    Reply::new(200, "application/json", reply.to_string())
}
