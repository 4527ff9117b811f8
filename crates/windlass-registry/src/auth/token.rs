//! Tokens: what is signed, and what a presented one is worth.
//!
//! Signed with ES256 by a key made at start, so a restart ends every token. The algorithm is fixed by the key;
//! keys that a token brings along (`jwk`, `x5c`, `jku`) are never looked at.
//! Source of truth: distribution `docs/content/spec/auth/jwt.md` and `scope.md`.
//!
//! Invariants: `forged_tokens_are_refused`, `a_scope_is_split_at_its_first_and_last_colon`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::rand;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use windlass_core::secret::Secret;

use crate::access::Action;
use crate::config::BearerConfig;
use crate::error::RegistryError;

/// Bounds on the life of a token: the specification's least, and the most for changed rights to take effect.
const TOKEN_LIFE_SECONDS: std::ops::RangeInclusive<u64> = 60..=300;
/// Life of a refresh token.
const REFRESH_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Clocks may differ by this much. `Validation::leeway` takes seconds.
const SKEW_SECONDS: u64 = 60;
/// Longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 16 << 10;

/// Actions per repository.
pub(crate) type Scope = BTreeMap<String, BTreeSet<Action>>;

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// `None`: anonymous.
    pub(crate) user: Option<String>,
    pub(crate) scope: Scope,
}

/// A token just made.
pub(crate) struct Issued {
    pub(crate) token: Secret<String>,
    pub(crate) life_seconds: u64,
    pub(crate) issued_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    #[serde(default)]
    access: Vec<ClaimedAccess>,
}

#[derive(Serialize, Deserialize)]
struct ClaimedAccess {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// Makes and checks tokens.
pub(crate) struct Signer {
    signing: EncodingKey,
    checking: DecodingKey,
    service: String,
    life_seconds: u64,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    pub(crate) fn new(config: &BearerConfig) -> Result<Signer, RegistryError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| RegistryError::Key)?;
        let private = pair.to_pkcs8v1().map_err(|_| RegistryError::Key)?;
        let life = config.token_life.as_secs().clamp(*TOKEN_LIFE_SECONDS.start(), *TOKEN_LIFE_SECONDS.end());
        Ok(Signer {
            signing: EncodingKey::from_ec_der(private.as_ref()),
            checking: DecodingKey::from_ec_der(pair.public_key().as_ref()),
            service: config.service.clone(),
            life_seconds: life,
        })
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Signs what was granted.
    pub(crate) fn issue(&self, user: Option<&str>, scope: &Scope) -> Result<Issued, RegistryError> {
        let access = scope
            .iter()
            .map(|(name, actions)| ClaimedAccess {
                kind: "repository".to_owned(),
                name: name.clone(),
                actions: actions.iter().map(|a| a.as_str().to_owned()).collect(),
            })
            .collect();
        self.sign(user, &self.service, self.life_seconds, access)
    }

    /// Signs a right to ask for tokens later.
    pub(crate) fn issue_refresh(&self, user: &str) -> Result<Secret<String>, RegistryError> {
        Ok(self.sign(Some(user), &self.refresh_audience(), REFRESH_LIFE.as_secs(), Vec::new())?.token)
    }

    /// Whose refresh token this is.
    pub(crate) fn verify_refresh(&self, token: &Secret<String>) -> Option<String> {
        self.claims(token, &self.refresh_audience()).map(|claims| claims.sub).filter(|user| !user.is_empty())
    }

    /// What a token is worth; `None` for a bad one.
    pub(crate) fn verify(&self, token: &Secret<String>) -> Option<Access> {
        let claims = self.claims(token, &self.service)?;
        let mut scope = Scope::new();
        for access in claims.access.into_iter().filter(|access| access.kind == "repository") {
            let actions = access.actions.iter().filter_map(|word| Action::parse(word));
            scope.entry(access.name).or_default().extend(actions);
        }
        Some(Access { user: (!claims.sub.is_empty()).then_some(claims.sub), scope })
    }

    fn refresh_audience(&self) -> String {
        format!("{}#refresh", self.service)
    }

    fn sign(
        &self,
        user: Option<&str>,
        audience: &str,
        life_seconds: u64,
        access: Vec<ClaimedAccess>,
    ) -> Result<Issued, RegistryError> {
        let issued_at = Timestamp::now();
        let now = issued_at.as_second();
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| RegistryError::Key)?;
        let claims = Claims {
            iss: self.service.clone(),
            sub: user.unwrap_or_default().to_owned(),
            aud: audience.to_owned(),
            exp: now.saturating_add_unsigned(life_seconds),
            nbf: now,
            iat: now,
            jti: format!("{:032x}", u128::from_be_bytes(id)),
            access,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing);
        let token = Secret::new(token.map_err(|_| RegistryError::Key)?);
        Ok(Issued { token, life_seconds, issued_at })
    }

    fn claims(&self, token: &Secret<String>, audience: &str) -> Option<Claims> {
        if token.expose().len() > TOKEN_MAX_BYTES {
            return None;
        }
        let mut rules = Validation::new(Algorithm::ES256);
        rules.leeway = SKEW_SECONDS;
        rules.validate_nbf = true;
        rules.set_audience(&[audience]);
        rules.set_issuer(&[&self.service]);
        rules.set_required_spec_claims(&["exp", "nbf", "aud", "iss"]);
        jsonwebtoken::decode::<Claims>(token.expose(), &self.checking, &rules).ok().map(|data| data.claims)
    }
}

/// Reads scopes as asked for: `repository:NAME:ACTIONS`, several separated by spaces. Other types and unknown
/// actions are left out; `*` asks for every action.
pub(crate) fn parse_scopes<'a>(scopes: impl Iterator<Item = &'a str>) -> Scope {
    let mut asked = Scope::new();
    for scope in scopes.flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty()).take(SCOPES_MAX) {
        let Some((kind, rest)) = scope.split_once(':') else { continue };
        let Some((name, actions)) = rest.rsplit_once(':') else { continue };
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        if kind != "repository" {
            continue;
        }
        let entry = asked.entry(name.to_owned()).or_default();
        for word in actions.split(',') {
            if word == "*" {
                entry.extend(Action::ALL);
            } else {
                entry.extend(Action::parse(word));
            }
        }
    }
    asked
}

/// Most scopes of one request.
const SCOPES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn signer() -> Signer {
        Signer::new(&BearerConfig::default()).expect("a signer")
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let signer = signer();
        let scope = parse_scopes(["repository:a/b:pull,push"].into_iter());
        let token = signer.issue(Some("u"), &scope).expect("a token").token;
        assert_eq!(signer.verify(&token), Some(Access { user: Some("u".to_owned()), scope }));
        assert_eq!(signer.verify_refresh(&token), None, "an access token is no refresh token");
        let refresh = signer.issue_refresh("u").expect("a token");
        assert_eq!(signer.verify_refresh(&refresh).as_deref(), Some("u"));
        assert_eq!(signer.verify(&refresh), None, "a refresh token opens nothing by itself");
    }

    #[test]
    fn forged_tokens_are_refused() {
        let signer = signer();
        let token = signer.issue(Some("u"), &Scope::new()).expect("a token").token;
        let parts: Vec<&str> = token.expose().split('.').collect();
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).expect("base64")).expect("text");
        let other = Signer::new(&BearerConfig::default()).expect("a signer");
        let stranger = other.issue(Some("u"), &Scope::new()).expect("a token").token;
        let elsewhere = BearerConfig { service: "elsewhere".to_owned(), ..BearerConfig::default() };
        let elsewhere = Signer { service: elsewhere.service, ..signer_with(&signer) };
        let table = [
            ("none", format!("{}.{}.", part(r#"{"alg":"none","typ":"JWT"}"#), parts[1])),
            ("hmac", format!("{}.{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), parts[1], parts[2])),
            ("changed", format!("{}.{}.{}", parts[0], part(&claims.replace("\"u\"", "\"v\"")), parts[2])),
            ("stranger", stranger.expose().clone()),
            ("audience", elsewhere.issue(Some("u"), &Scope::new()).expect("a token").token.expose().clone()),
            ("empty", String::new()),
            ("dots", "..".to_owned()),
            ("long", "a".repeat(TOKEN_MAX_BYTES + 1)),
        ];
        for (what, forged) in table {
            assert_eq!(signer.verify(&Secret::new(forged)), None, "{what}");
        }
        assert!(signer.verify(&token).is_some());
    }

    fn signer_with(signer: &Signer) -> Signer {
        Signer {
            signing: signer.signing.clone(),
            checking: signer.checking.clone(),
            service: signer.service.clone(),
            life_seconds: signer.life_seconds,
        }
    }

    #[test]
    fn a_token_past_its_time_is_refused() {
        let signer = signer();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.validate_exp = false;
        rules.validate_aud = false;
        let token = signer.issue(Some("u"), &Scope::new()).expect("a token").token;
        let mut claims =
            jsonwebtoken::decode::<Claims>(token.expose(), &signer.checking, &rules).expect("claims").claims;
        claims.exp -= 300 + 61;
        let old = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signer.signing).expect("a token");
        assert_eq!(signer.verify(&Secret::new(old)), None);
    }

    #[test]
    fn a_scope_is_split_at_its_first_and_last_colon() {
        let table = [
            ("repository:a:pull", vec![("a", vec![Action::Pull])]),
            ("repository:host:5000/a:pull,push", vec![("host:5000/a", vec![Action::Pull, Action::Push])]),
            ("repository(plugin):a:*", vec![("a", Action::ALL.to_vec())]),
            ("registry:catalog:*", vec![]),
            ("repository:a:pull repository:b:push", vec![("a", vec![Action::Pull]), ("b", vec![Action::Push])]),
            ("repository:a:fly", vec![("a", vec![])]),
            ("nonsense", vec![]),
        ];
        for (text, want) in table {
            let want: Scope =
                want.into_iter().map(|(name, actions)| (name.to_owned(), actions.into_iter().collect())).collect();
            assert_eq!(parse_scopes([text].into_iter()), want, "{text}");
        }
    }
}
