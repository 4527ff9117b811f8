//! A registry host with its optional port, as it stands in a reference or a URL's authority.
//!
//! Case is kept, because the kubelet's keyring compares hosts byte by byte; compare with
//! [`Host::same_origin`] where the network is meant.
//!
//! Invariant: `loopback_is_recognised_in_every_spelling`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Host and optional port, e.g. `registry.example:5000`, `[::1]:5000`, `docker.io`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Host(Box<str>);

impl Host {
    /// Wraps a text that was checked by a grammar before (a reference, a URL authority, a configuration key).
    pub fn new(authority: impl Into<Box<str>>) -> Host {
        Host(authority.into())
    }

    /// The whole text, host and port.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without its port; an IPv6 address keeps its brackets.
    pub fn name(&self) -> &str {
        match self.split_port() {
            Some((name, _)) => name,
            None => &self.0,
        }
    }

    /// The port, if one was written and fits.
    pub fn port(&self) -> Option<u16> {
        self.split_port().and_then(|(_, port)| port.parse().ok())
    }

    /// The address, where the host is a literal one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.name().trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether this is `localhost` or a loopback address, IPv4-mapped ones included.
    pub fn is_loopback(&self) -> bool {
        self.name().eq_ignore_ascii_case("localhost") || self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Whether two hosts are the same place for a scheme whose default port is `default_port`.
    pub fn same_origin(&self, other: &Host, default_port: u16) -> bool {
        self.name().eq_ignore_ascii_case(other.name())
            && self.port().unwrap_or(default_port) == other.port().unwrap_or(default_port)
    }

    fn split_port(&self) -> Option<(&str, &str)> {
        let (name, port) = self.0.rsplit_once(':')?;
        // A colon inside brackets belongs to the address.
        (!port.contains(']') && !port.is_empty()).then_some((name, port))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_port_are_told_apart() {
        let table = [
            ("docker.io", "docker.io", None),
            ("localhost:5000", "localhost", Some(5000)),
            ("[::1]", "[::1]", None),
            ("[::1]:5000", "[::1]", Some(5000)),
            ("a.b:99999", "a.b", None),
        ];
        for (text, name, port) in table {
            let host = Host::new(text);
            assert_eq!((host.name(), host.port()), (name, port), "{text}");
        }
    }

    #[test]
    fn loopback_is_recognised_in_every_spelling() {
        for text in ["localhost", "LocalHost:80", "127.0.0.1:5000", "127.9.9.9", "[::1]:1", "[::ffff:127.0.0.1]"] {
            assert!(Host::new(text).is_loopback(), "{text}");
        }
        for text in ["localhost.example", "128.0.0.1", "[::2]", "127.0.0.1.example"] {
            assert!(!Host::new(text).is_loopback(), "{text}");
        }
    }
}
