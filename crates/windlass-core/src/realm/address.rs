//! Addresses that a registry may not send us to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::TrustReason;
use crate::host::Host;

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// The internet, as far as can be seen; also every name before it is resolved.
    Public,
    /// A private network: RFC 1918, carrier-grade NAT, unique local.
    Private,
    /// This machine.
    Loopback,
    /// Never a registry: link-local, multicast, unspecified, metadata services of clouds.
    Forbidden,
}

/// Addresses of metadata services outside the link-local range.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
const METADATA_NAMES: [&str; 5] =
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

/// The class of an address. IPv6 forms that carry an IPv4 address are judged by that.
pub fn address_class(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => class_v4(v4),
            None => class_v6(v6),
        },
    }
}

fn class_v4(v4: Ipv4Addr) -> AddressClass {
    let [a, b, ..] = v4.octets();
    if a == 0 || a >= 224 || v4.is_link_local() || METADATA_V4.contains(&v4) {
        AddressClass::Forbidden
    } else if v4.is_loopback() {
        AddressClass::Loopback
    } else if v4.is_private() || (a == 100 && (64..128).contains(&b)) {
        AddressClass::Private
    } else {
        AddressClass::Public
    }
}

fn class_v6(v6: Ipv6Addr) -> AddressClass {
    let first = v6.segments()[0];
    if v6.is_unspecified() || v6.is_multicast() || (first & 0xffc0) == 0xfe80 || METADATA_V6.contains(&v6) {
        AddressClass::Forbidden
    } else if v6.is_loopback() {
        AddressClass::Loopback
    } else if (first & 0xfe00) == 0xfc00 || (first & 0xffc0) == 0xfec0 {
        AddressClass::Private
    } else {
        AddressClass::Public
    }
}

/// IPv4-mapped, IPv4-compatible, NAT64 and 6to4 addresses reach an IPv4 host.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(from(high, low)),
        _ => None,
    }
}

/// The class of a host as far as its text says; a name that is not special counts as public until it is resolved.
pub fn host_class(name: &str) -> AddressClass {
    let host = Host::new(name);
    if let Some(address) = host.ip() {
        return address_class(address);
    }
    let name = host.name().trim_end_matches('.').to_ascii_lowercase();
    if METADATA_NAMES.contains(&name.as_str()) {
        AddressClass::Forbidden
    } else if name == "localhost" || name.ends_with(".localhost") {
        AddressClass::Loopback
    } else {
        AddressClass::Public
    }
}

/// The rule that forbids a target, if one does.
pub(super) fn refusal(
    target: AddressClass,
    registry: AddressClass,
    same_host: bool,
    allowed: bool,
) -> Option<TrustReason> {
    match (target, registry) {
        (AddressClass::Forbidden, _) => Some(TrustReason::ForbiddenAddress),
        (AddressClass::Public, _)
        | (AddressClass::Loopback, AddressClass::Loopback)
        | (AddressClass::Private, AddressClass::Private) => None,
        (AddressClass::Loopback, _) => (!same_host && !allowed).then_some(TrustReason::Loopback),
        (AddressClass::Private, _) => (!same_host && !allowed).then_some(TrustReason::PrivateAddress),
    }
}

/// Judges the address that a realm's or redirect's name resolved to, right before the connection.
///
/// `registry` is the class of the address at which the registry itself was reached; `same_host` says that the
/// target is the registry's own host; `allowed` that the configuration names it.
///
/// # Errors
/// The rule that forbids the address.
pub fn check_address(
    address: IpAddr,
    registry: AddressClass,
    same_host: bool,
    allowed: bool,
) -> Result<(), TrustReason> {
    refusal(address_class(address), registry, same_host, allowed).map_or(Ok(()), Err)
}
