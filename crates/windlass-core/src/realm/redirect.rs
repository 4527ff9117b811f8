//! Redirects: where they may lead, and what may travel along.

use super::{RealmVerdict, Trust, TrustReason, judge_realm};
use crate::host::Host;
use crate::httpurl::{HttpUrl, HttpUrlError, UrlScheme, WebOrigin};
use crate::realm::address;
use crate::realm::host_class;
use crate::reason::Reason;

/// Most redirects of one registry request; chains to a content network need one or two.
pub const MAX_REDIRECTS: usize = 5;
/// Most redirects of one token request.
pub const MAX_TOKEN_REDIRECTS: usize = 3;

/// Whether plain http is in order for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlainHttp {
    /// It is marked insecure in the configuration, or a loopback one that does not speak TLS.
    Allowed,
    /// https only.
    Refused,
}

/// Whether a request header goes along to the target of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderFate {
    /// It is sent again.
    Kept,
    /// It stays behind.
    Dropped,
}

/// A redirect that may be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to.
    pub url: HttpUrl,
    /// Whether scheme, host and port are the same. If not, no credential, cookie, configured header or client
    /// certificate goes along, and a 401 from there is an error.
    pub same_origin: bool,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// The target cannot be read.
    #[error("the redirect is unusable: {0}")]
    Target(HttpUrlError),
    /// One too many.
    #[error("more than {limit} redirects")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// From https to plain http.
    #[error("the redirect to {host} leaves TLS")]
    Downgrade {
        /// The target.
        host: Host,
    },
    /// To an address that is out of bounds.
    #[error("the redirect to {host} is refused: {}", reason.as_str())]
    Address {
        /// The target.
        host: Host,
        /// The rule.
        reason: TrustReason,
    },
    /// A token request with credentials is sent elsewhere.
    #[error("the token service redirects credentials to {host}")]
    Credentials {
        /// The target.
        host: Host,
    },
}

impl RedirectError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            RedirectError::Target(_) | RedirectError::TooMany { .. } => Reason::RegistryUnavailable,
            RedirectError::Downgrade { .. } => Reason::Tls,
            RedirectError::Address { .. } | RedirectError::Credentials { .. } => Reason::RealmNotTrusted,
        }
    }
}

/// Judges a redirect of a registry request (blobs go to object stores this way).
///
/// `registry` is the origin first asked, `from` the URL that redirected, `followed` how many redirects came before.
///
/// # Errors
/// [`RedirectError`]; the query of the target is never part of it.
pub fn judge_redirect(
    registry: &WebOrigin,
    from: &HttpUrl,
    location: &str,
    followed: usize,
    plain_http: PlainHttp,
) -> Result<Redirect, RedirectError> {
    let url = next_hop(from, location, followed, MAX_REDIRECTS)?;
    let target = url.origin();
    let leaves_tls = target.scheme == UrlScheme::Http && from.origin().scheme == UrlScheme::Https;
    if leaves_tls && plain_http == PlainHttp::Refused {
        return Err(RedirectError::Downgrade { host: url.authority() });
    }
    let same_host = target.name == registry.name;
    // Object stores in the registry's private network are usual, this machine's services are not.
    if let Some(reason) = address::refusal(host_class(&target.name), host_class(&registry.name), same_host, false)
        && reason != TrustReason::PrivateAddress
    {
        return Err(RedirectError::Address { host: url.authority(), reason });
    }
    Ok(Redirect { same_origin: url.origin() == from.origin() && url.origin() == registry, url })
}

/// Judges a redirect of a token request: each hop obeys the rules for realms, and credentials stay at their origin.
///
/// # Errors
/// [`RedirectError`]; the query of the target is never part of it.
pub fn judge_token_redirect(
    registry: &WebOrigin,
    from: &HttpUrl,
    location: &str,
    followed: usize,
    sent: Trust,
    allowed: &[Host],
) -> Result<Redirect, RedirectError> {
    let url = next_hop(from, location, followed, MAX_TOKEN_REDIRECTS)?;
    let host = url.authority();
    let leaves_tls = url.origin().scheme == UrlScheme::Http && from.origin().scheme == UrlScheme::Https;
    if leaves_tls {
        return Err(RedirectError::Downgrade { host });
    }
    let RealmVerdict { trust, reason, .. } = judge_realm(registry, &url.to_request_uri(), allowed);
    let same_origin = url.origin() == from.origin();
    match (trust, sent) {
        (Trust::Refused, _) => Err(RedirectError::Address { host, reason }),
        (Trust::Anonymous | Trust::Credentials, Trust::Credentials) if !same_origin => {
            Err(RedirectError::Credentials { host })
        }
        (Trust::Anonymous | Trust::Credentials, _) => Ok(Redirect { url, same_origin }),
    }
}

fn next_hop(from: &HttpUrl, location: &str, followed: usize, limit: usize) -> Result<HttpUrl, RedirectError> {
    if followed >= limit {
        return Err(RedirectError::TooMany { limit });
    }
    from.join(location).map_err(RedirectError::Target)
}

/// Whether a header goes along. To another origin only what says which bytes are wanted: a list of what is harmless
/// cannot forget a header, unlike a list of what is not.
pub fn header_fate(name: &str, redirect: &Redirect) -> HeaderFate {
    const HARMLESS: [&str; 4] = ["accept", "accept-encoding", "range", "user-agent"];
    if redirect.same_origin || HARMLESS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        HeaderFate::Kept
    } else {
        HeaderFate::Dropped
    }
}
