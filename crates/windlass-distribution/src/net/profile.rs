//! How a connection is made: the TLS material and the addresses that are off limits.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::httpurl::WebOrigin;
use windlass_core::mirror::{ClientCertificate, Http2, Settings, Verify};

/// How TLS and HTTP are spoken with the hosts of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Profile {
    /// Certificate authorities beside the system's and the client's own.
    pub(crate) ca: Vec<PathBuf>,
    /// Shown to the registry's own host only.
    pub(crate) client: Vec<ClientCertificate>,
    /// Waived for the registry's own host only.
    pub(crate) verify: Verify,
    pub(crate) http2: Http2,
    /// In place of the client's own time-out.
    pub(crate) dial_timeout: Option<Duration>,
    /// Where the host is found, where that is not what its name resolves to: an address or another name.
    pub(crate) found_at: Option<Box<str>>,
}

impl Profile {
    /// The profile for the endpoint with these settings.
    pub(crate) fn of(settings: &Settings) -> Profile {
        Profile {
            ca: settings.ca.clone(),
            client: settings.client.clone(),
            verify: settings.verify,
            http2: settings.http2,
            dial_timeout: settings.dial_timeout,
            found_at: None,
        }
    }

    /// The profile for hosts the registry refers to: its CAs still count, its client certificate and its
    /// waiver of verification stay behind.
    pub(crate) fn for_other_hosts(&self) -> Profile {
        Profile { client: Vec::new(), verify: Verify::Yes, ..self.clone() }
    }
}

/// The host as the resolver and TLS want it, without brackets.
pub(crate) fn bare_name(origin: &WebOrigin) -> &str {
    origin.name.trim_start_matches('[').trim_end_matches(']')
}

/// Decides whether an address that a name resolved to may be connected to.
///
/// A configured registry may live anywhere; a place that a registry names may not (CVE-2020-15157 class).
#[derive(Clone)]
pub(crate) enum Guard {
    /// The operator named this host.
    Configured,
    /// Somebody else named this host: the rule says which addresses it may have.
    Named(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>),
}

impl Guard {
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        match self {
            Guard::Configured => true,
            Guard::Named(rule) => rule(address),
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Guard::Configured => "Configured",
            Guard::Named(_) => "Named",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_certificates_stay_with_the_registrys_own_host() {
        let own = Profile {
            ca: vec!["/ca.pem".into()],
            client: vec![ClientCertificate { certificate: "/c.pem".into(), key: None }],
            verify: Verify::Skip,
            http2: Http2::Off,
            dial_timeout: None,
            found_at: None,
        };
        let other = own.for_other_hosts();
        assert_eq!((other.ca, other.http2), (own.ca, own.http2));
        assert!(other.client.is_empty());
        assert_eq!(other.verify, Verify::Yes);
    }
}
