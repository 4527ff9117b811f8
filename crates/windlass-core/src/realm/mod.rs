//! Who may see credentials: token realms, resolved addresses, redirects.
//!
//! In: where a registry was asked, and where it sends us. Out: a [`RealmVerdict`] or [`Redirect`], with the rule
//! that decided. Nothing here resolves names; [`check_address`] judges what the resolver found, at connect time.
//! Known attacks: CVE-2020-15157, CVE-2021-41092, CVE-2026-24845, CVE-2026-33540, CVE-2026-33990.
//! The vectors are `credentials-realm-trust.json`.
//!
//! Invariants: `metadata_addresses_are_never_asked`, `tenants_of_one_cloud_are_strangers`,
//! `credentials_never_leave_their_origin_by_redirect`, `an_allowed_realm_still_obeys_the_address_rules`.

mod address;
mod redirect;
mod site;

pub use address::{AddressClass, address_class, check_address, host_class};
pub use redirect::{
    HeaderFate, MAX_REDIRECTS, MAX_TOKEN_REDIRECTS, PlainHttp, Redirect, RedirectError, header_fate, judge_redirect,
    judge_token_redirect,
};
pub use site::same_site;

use crate::host::Host;
use crate::httpurl::{HttpUrl, HttpUrlError, UrlScheme, WebOrigin};

/// The rule that decided about a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrustReason {
    /// The realm has no scheme and host.
    NotAbsolute,
    /// Its scheme is neither http nor https.
    Scheme,
    /// It holds a user name.
    UserInfo,
    /// It holds a fragment.
    Fragment,
    /// Its host or port is malformed.
    BadUrl,
    /// An https registry names an http realm.
    Downgrade,
    /// A link-local, multicast, unspecified or metadata address.
    ForbiddenAddress,
    /// This machine, named by a registry that is not on it.
    Loopback,
    /// A private address, named by a registry that has none.
    PrivateAddress,
    /// The registry's own scheme, host and port.
    SameOrigin,
    /// The registry's host at another port.
    SameHost,
    /// A pair that is known, such as Docker Hub and its token service.
    BuiltIn,
    /// A host of the same owner by its name.
    SameSite,
    /// Allowed in the configuration of the registry.
    Allowed,
    /// Another host, and over plain http.
    CrossHostHttp,
    /// A host of somebody else.
    CrossSite,
}

impl TrustReason {
    /// A stable word for messages and tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrustReason::NotAbsolute => "not_absolute",
            TrustReason::Scheme => "scheme",
            TrustReason::UserInfo => "userinfo",
            TrustReason::Fragment => "fragment",
            TrustReason::BadUrl => "bad_url",
            TrustReason::Downgrade => "downgrade",
            TrustReason::ForbiddenAddress => "forbidden_address",
            TrustReason::Loopback => "loopback",
            TrustReason::PrivateAddress => "private_address",
            TrustReason::SameOrigin => "same_origin",
            TrustReason::SameHost => "same_host",
            TrustReason::BuiltIn => "built_in",
            TrustReason::SameSite => "same_site",
            TrustReason::Allowed => "allowed",
            TrustReason::CrossHostHttp => "cross_host_http",
            TrustReason::CrossSite => "cross_site",
        }
    }

    /// What this rule allows.
    pub const fn trust(self) -> Trust {
        match self {
            TrustReason::NotAbsolute
            | TrustReason::Scheme
            | TrustReason::UserInfo
            | TrustReason::Fragment
            | TrustReason::BadUrl
            | TrustReason::Downgrade
            | TrustReason::ForbiddenAddress
            | TrustReason::Loopback
            | TrustReason::PrivateAddress => Trust::Refused,
            TrustReason::CrossHostHttp | TrustReason::CrossSite => Trust::Anonymous,
            TrustReason::SameOrigin
            | TrustReason::SameHost
            | TrustReason::BuiltIn
            | TrustReason::SameSite
            | TrustReason::Allowed => Trust::Credentials,
        }
    }
}

/// How far a realm is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// No request at all.
    Refused,
    /// A request without credentials.
    Anonymous,
    /// A request with the registry's credentials.
    Credentials,
}

/// What was decided about a realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealmVerdict {
    /// How far it is trusted.
    pub trust: Trust,
    /// The rule that decided.
    pub reason: TrustReason,
    /// The realm, where it could be read at all. Connect to this, not to the text.
    pub url: Option<HttpUrl>,
}

impl RealmVerdict {
    fn new(reason: TrustReason, url: Option<HttpUrl>) -> RealmVerdict {
        RealmVerdict { trust: reason.trust(), reason, url }
    }
}

/// Token services on other sites than their registries: registry host, realm host.
const BUILT_IN: [(&str, &str); 3] = [
    ("docker.io", "auth.docker.io"),
    ("index.docker.io", "auth.docker.io"),
    ("registry-1.docker.io", "auth.docker.io"),
];

/// Decides whether a token may be asked for at `realm`, and whether with credentials.
///
/// `registry` is the origin that answered 401, `allowed` the hosts that its configuration adds. A host in `allowed`
/// without a port stands for all ports.
pub fn judge_realm(registry: &WebOrigin, realm: &str, allowed: &[Host]) -> RealmVerdict {
    let url = match HttpUrl::parse(realm) {
        Ok(url) => url,
        Err(error) => return RealmVerdict::new(unreadable(error), None),
    };
    let reason = judge_origin(registry, url.origin(), allowed);
    RealmVerdict::new(reason, Some(url))
}

fn unreadable(error: HttpUrlError) -> TrustReason {
    match error {
        HttpUrlError::NotAbsolute => TrustReason::NotAbsolute,
        HttpUrlError::Scheme => TrustReason::Scheme,
        HttpUrlError::UserInfo => TrustReason::UserInfo,
        HttpUrlError::Fragment => TrustReason::Fragment,
        HttpUrlError::Malformed => TrustReason::BadUrl,
    }
}

fn judge_origin(registry: &WebOrigin, realm: &WebOrigin, allowed: &[Host]) -> TrustReason {
    if registry.scheme == UrlScheme::Https && realm.scheme == UrlScheme::Http {
        return TrustReason::Downgrade;
    }
    let same_host = registry.name == realm.name;
    let is_allowed = allowed.iter().any(|host| allows(host, realm));
    if let Some(reason) = address::refusal(host_class(&realm.name), host_class(&registry.name), same_host, is_allowed) {
        return reason;
    }
    if registry == realm {
        return TrustReason::SameOrigin;
    }
    if same_host {
        return TrustReason::SameHost;
    }
    // A realm in plain text would show the credentials to the whole path there.
    if realm.scheme == UrlScheme::Http {
        return TrustReason::CrossHostHttp;
    }
    if BUILT_IN.contains(&(registry.name.as_str(), realm.name.as_str())) {
        TrustReason::BuiltIn
    } else if same_site(&registry.name, &realm.name) {
        TrustReason::SameSite
    } else if is_allowed {
        TrustReason::Allowed
    } else {
        TrustReason::CrossSite
    }
}

fn allows(host: &Host, realm: &WebOrigin) -> bool {
    host.name().trim_end_matches('.').eq_ignore_ascii_case(&realm.name)
        && host.port().is_none_or(|port| port == realm.port)
}

#[cfg(test)]
mod tests;
