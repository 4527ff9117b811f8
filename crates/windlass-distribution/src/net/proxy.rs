//! Which requests go through a proxy, from the values of the usual environment variables.
//!
//! Pure: the values are given, nothing is read here. `NO_PROXY` as in Go's `httpproxy`: names match
//! themselves and their subdomains, a leading dot only subdomains, addresses and CIDR blocks match addresses,
//! a port narrows the entry, `*` matches everything. Loopback never goes through a proxy.

use std::net::IpAddr;

use base64::Engine as _;
use windlass_core::host::Host;
use windlass_core::httpurl::{HttpUrl, UrlScheme, WebOrigin};
use windlass_core::secret::Secret;

use super::profile::bare_name;
use crate::config::ProxyConfig;
use crate::error::ClientError;

/// One proxy server.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) origin: WebOrigin,
    /// Value of `Proxy-Authorization`.
    pub(crate) authorization: Option<Secret<String>>,
}

/// The parsed settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Name { name: String, subdomains_only: bool, port: Option<u16> },
    Block { address: IpAddr, prefix: u8, port: Option<u16> },
}

impl Proxies {
    /// # Errors
    /// [`ClientError::Proxy`] when an address is not a URL of kind http or https.
    pub(crate) fn new(config: &ProxyConfig) -> Result<Proxies, ClientError> {
        Ok(Proxies {
            http: config.http.as_ref().map(|text| parse_proxy("http", text.expose())).transpose()?.flatten(),
            https: config.https.as_ref().map(|text| parse_proxy("https", text.expose())).transpose()?.flatten(),
            exceptions: config.no_proxy.as_deref().map(parse_exceptions).unwrap_or_default(),
        })
    }

    /// The proxy for this site, if any.
    pub(crate) fn choose(&self, site: &WebOrigin) -> Option<&Proxy> {
        let proxy = match site.scheme {
            UrlScheme::Http => self.http.as_ref(),
            UrlScheme::Https => self.https.as_ref(),
        }?;
        let excepted = site.host().is_loopback() || self.exceptions.iter().any(|e| e.covers(site));
        (!excepted).then_some(proxy)
    }
}

impl Exception {
    fn covers(&self, site: &WebOrigin) -> bool {
        let fits = |port: &Option<u16>| port.is_none_or(|p| p == site.port);
        match self {
            Exception::All => true,
            Exception::Name { name, subdomains_only, port } => {
                let exact = !subdomains_only && site.name == *name;
                let below = site.name.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (exact || below) && fits(port)
            }
            Exception::Block { address, prefix, port } => {
                bare_name(site).parse().is_ok_and(|ip: IpAddr| in_block(ip, *address, *prefix)) && fits(port)
            }
        }
    }
}

fn in_block(ip: IpAddr, block: IpAddr, prefix: u8) -> bool {
    match (ip.to_canonical(), block.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(prefix.min(32));
            u32::from(a).checked_shr(shift) == u32::from(b).checked_shr(shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(prefix.min(128));
            u128::from(a).checked_shr(shift) == u128::from(b).checked_shr(shift)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn parse_proxy(which: &'static str, text: &str) -> Result<Option<Proxy>, ClientError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let bad = || ClientError::Proxy { which };
    let (scheme, rest) = with_scheme.split_once("://").ok_or_else(bad)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (user, place) = rest[..end].rsplit_once('@').unwrap_or(("", &rest[..end]));
    let url = HttpUrl::parse(&format!("{scheme}://{place}")).map_err(|_| bad())?;
    let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
    let authorization = (!user.is_empty()).then(|| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let pair = Secret::new(format!("{}:{}", decode(name), decode(password)));
        Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.expose())))
    });
    Ok(Some(Proxy { origin: url.origin().clone(), authorization }))
}

fn parse_exceptions(text: &str) -> Vec<Exception> {
    text.split([',', ' ']).map(str::trim).filter(|e| !e.is_empty()).filter_map(parse_exception).collect()
}

fn parse_exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some((address, prefix)) = entry.split_once('/') {
        let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
        return Some(Exception::Block { address, prefix, port: None });
    }
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(Exception::Block { address, prefix: 128, port: None });
    }
    let host = Host::new(entry.to_ascii_lowercase());
    if let Some(address) = host.ip() {
        return Some(Exception::Block { address, prefix: 128, port: host.port() });
    }
    let name = host.name().trim_start_matches('*');
    let subdomains_only = name.starts_with('.');
    let name = name.trim_start_matches('.').to_owned();
    (!name.is_empty()).then_some(Exception::Name { name, subdomains_only, port: host.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_follows_the_usual_reading() {
        let config = ProxyConfig {
            http: Some(Secret::from("proxy.example:3128")),
            https: Some(Secret::from("http://user:p%40ss@proxy.example:3128")),
            no_proxy: Some("a.example, .b.example ,10.0.0.0/8,192.0.2.7:5000,[2001:db8::1],c.example:444".into()),
        };
        let proxies = Proxies::new(&config).unwrap();
        let table = [
            ("https://registry.example/", true),
            ("http://registry.example/", true),
            ("https://a.example/", false),
            ("https://x.a.example/", false),
            ("https://xa.example/", true),
            ("https://b.example/", true),
            ("https://x.b.example/", false),
            ("https://10.20.30.40:5000/", false),
            ("https://11.0.0.1/", true),
            ("https://192.0.2.7:5000/", false),
            ("https://192.0.2.7/", true),
            ("https://[2001:db8::1]/", false),
            ("https://c.example:444/", false),
            ("https://c.example/", true),
            ("http://localhost:5000/", false),
            ("http://127.0.0.1/", false),
        ];
        for (url, proxied) in table {
            let url_read = HttpUrl::parse(url).unwrap();
            assert_eq!(proxies.choose(url_read.origin()).is_some(), proxied, "{url}");
        }
        let https = proxies.https.unwrap();
        // base64 of "user:p@ss".
        assert_eq!(https.authorization.unwrap().expose(), "Basic dXNlcjpwQHNz");
    }

    #[test]
    fn a_proxy_that_is_no_url_is_refused_without_being_shown() {
        let config = ProxyConfig { https: Some(Secret::from("socks5://user:hunter2@x")), ..ProxyConfig::default() };
        let error = Proxies::new(&config).unwrap_err().to_string();
        assert!(error.contains("https") && !error.contains("hunter2"), "{error}");
    }
}
