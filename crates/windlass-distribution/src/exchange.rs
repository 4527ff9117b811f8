//! One request with its redirects, followed by hand.
//!
//! Where a redirect may lead and what travels along is decided by `windlass_core::realm`; here the decisions meet
//! the network, and resolved addresses are judged right before the connection.
//!
//! Invariants: `credentials_stay_with_the_origin_that_was_asked`, `redirect_loops_end`,
//! `https_never_becomes_http`, `metadata_addresses_are_refused`.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use windlass_core::host::Host;
use windlass_core::httpurl::{HttpUrl, HttpUrlError, WebOrigin};
use windlass_core::realm::{
    AddressClass, HeaderFate, PlainHttp, Redirect, RedirectError, Trust, TrustReason, address_class, check_address,
    header_fate, host_class, judge_redirect, judge_token_redirect,
};

use crate::counters::{Kind, Tally};
use crate::error::{FetchError, Step};
use crate::net::{Body, Guard, Network, Payload, Profile, Response};

/// Unread rest of a redirect's or error's body that is read to keep the connection.
const DRAIN: u64 = 16 * 1024;

/// What to ask.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: HttpUrl,
    /// Credentials and headers of `hosts.toml` among them; to another origin only harmless ones go.
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) step: Step,
    pub(crate) kind: Kind,
}

impl Ask {
    /// A request without body or headers.
    pub(crate) fn new(method: Method, url: HttpUrl, step: Step, kind: Kind) -> Ask {
        Ask { method, url, headers: HeaderMap::new(), payload: Payload::Empty, step, kind }
    }
}

/// The answer after all redirects.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// Where it came from; its query may be a signature.
    pub(crate) url: HttpUrl,
    /// Another origin than the one asked answered.
    pub(crate) elsewhere: bool,
    /// The class of the address at which the first origin was reached.
    pub(crate) first_class: AddressClass,
}

/// Why a place is asked, which decides where it may be and lead to.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// The operator named the place.
    Configured(PlainHttp),
    /// A registry named the place as its token endpoint.
    Token { registry: WebOrigin, class: AddressClass, allowed: Vec<Host>, sent: Trust },
    /// A manifest or upload of a registry named the place.
    Referred { registry: WebOrigin, class: AddressClass },
}

/// Sends `ask` and follows its redirects.
pub(crate) async fn ask(
    network: &Network,
    tallies: &[&Tally],
    profile: &Profile,
    ask: &Ask,
    purpose: &Purpose,
) -> Result<Answer, FetchError> {
    let foreign = profile.for_other_hosts();
    let (mut url, mut headers) = (ask.url.clone(), ask.headers.clone());
    let mut elsewhere = false;
    let mut first_class = None;
    for followed in 0.. {
        let class = first_class.unwrap_or_else(|| host_class(&ask.url.origin().name));
        let guard = purpose.guard(url.origin(), ask.url.origin(), class);
        tallies.iter().for_each(|t| t.request(ask.kind));
        let host = url.authority();
        tracing::trace!(method = %ask.method, %url, "request");
        let profile = if elsewhere { &foreign } else { profile };
        let response = network
            .send(&ask.method, &url, &headers, &ask.payload, profile, &guard)
            .await
            .map_err(|source| FetchError::Transport { host: host.clone(), step: ask.step, source })?;
        let Response { status, headers: answered, body, peer } = response;
        let class = *first_class.get_or_insert_with(|| peer.map_or(class, address_class));
        let Some(location) = location(&ask.method, status, &answered) else {
            return Ok(Answer { status, headers: answered, body, url, elsewhere, first_class: class });
        };
        let hop = location
            .ok_or(RedirectError::Target(HttpUrlError::Malformed))
            .and_then(|location| purpose.judge(ask.url.origin(), &url, &location, followed))
            .map_err(|source| FetchError::Redirect { host: host.clone(), source })?;
        // A body with a token in it stays where it was meant for.
        if ask.step == Step::Token && ask.payload.len() > 0 && !hop.same_origin {
            let source = RedirectError::Credentials { host: hop.url.authority() };
            return Err(FetchError::Redirect { host, source });
        }
        body.drain(DRAIN).await;
        headers = travelling(headers, &hop);
        elsewhere |= !hop.same_origin;
        url = hop.url;
    }
    unreachable!("judging a redirect fails once the limit is reached")
}

/// The headers that go along; what was left behind once never comes back.
fn travelling(headers: HeaderMap, hop: &Redirect) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| header_fate(name.as_str(), hop) == HeaderFate::Kept);
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Where a 3xx leads, `Some(None)` when it does not say; `None` for what is no redirect.
fn location(method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<Option<String>> {
    let keeps_method = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let may_change = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER);
    (keeps_method || (may_change && reads))
        .then(|| headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned))
}

impl Purpose {
    fn judge(
        &self,
        first: &WebOrigin,
        from: &HttpUrl,
        location: &str,
        followed: usize,
    ) -> Result<Redirect, RedirectError> {
        match self {
            Purpose::Configured(plain) => judge_redirect(first, from, location, followed, *plain),
            Purpose::Referred { registry, .. } => {
                judge_redirect(registry, from, location, followed, PlainHttp::Refused)
            }
            Purpose::Token { registry, allowed, sent, .. } => {
                judge_token_redirect(registry, from, location, followed, *sent, allowed)
            }
        }
    }

    /// Which addresses the hop to `target` may have. `class` is that of the first origin's address.
    fn guard(&self, target: &WebOrigin, first: &WebOrigin, class: AddressClass) -> Guard {
        let (registry, class, allowed, private) = match self {
            Purpose::Configured(_) if target == first => return Guard::Configured,
            // Object stores in a private network are usual.
            Purpose::Configured(_) => (first, class, false, true),
            Purpose::Referred { registry, class } => (registry, *class, false, true),
            Purpose::Token { registry, .. } if target == registry => return Guard::Configured,
            Purpose::Token { registry, class, allowed, .. } => {
                let named = |h: &Host| {
                    h.name().eq_ignore_ascii_case(&target.name) && h.port().is_none_or(|port| port == target.port)
                };
                (registry, *class, allowed.iter().any(named), false)
            }
        };
        let same_host = registry.name == target.name;
        Guard::Named(Arc::new(move |address: IpAddr| match check_address(address, class, same_host, allowed) {
            Ok(()) => true,
            Err(reason) => private && reason == TrustReason::PrivateAddress,
        }))
    }
}
