//! Whether two hosts belong to the same owner, by their names.

/// Suffixes under which each name has its own owner.
const SHARED: [&str; 37] = [
    "co.uk",
    "org.uk",
    "ac.uk",
    "gov.uk",
    "com.au",
    "net.au",
    "org.au",
    "co.jp",
    "ne.jp",
    "or.jp",
    "com.cn",
    "net.cn",
    "org.cn",
    "com.br",
    "co.in",
    "co.kr",
    "com.tw",
    "com.sg",
    "com.hk",
    "co.nz",
    "co.za",
    "com.mx",
    "com.tr",
    "pkg.dev",
    "run.app",
    "appspot.com",
    "herokuapp.com",
    "github.io",
    "gitlab.io",
    "ngrok.io",
    "fly.dev",
    "vercel.app",
    "netlify.app",
    "workers.dev",
    "web.app",
    "amazonaws.eu",
    "ocir.io",
];
/// Azure: the registry's name is the first label, below it regions and roles.
const AZURE: [&str; 4] = ["azurecr.io", "azurecr.cn", "azurecr.us", "azurecr.de"];
/// Clouds whose names are shared at every depth (regions, buckets, machines): no two hosts are one owner's.
const TENANTS_AT_ANY_DEPTH: [&str; 3] = ["amazonaws.com", "amazonaws.com.cn", "on.aws"];

/// Whether two host names (lower case, without port) have the same owner: the last two labels are equal, one label
/// more under a suffix that many owners share. Addresses and single labels never have an owner.
pub fn same_site(a: &str, b: &str) -> bool {
    match (site(a), site(b)) {
        (Some(a), Some(b)) => a == b,
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

/// The part of a name that tells the owner: a suffix of it, or for Azure its first and last parts.
fn site(name: &str) -> Option<(&str, &str)> {
    if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() {
        return None;
    }
    let under = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if let Some(suffix) = AZURE.iter().find(|suffix| under(suffix)) {
        let (registry, _) = name.strip_suffix(suffix)?.split_once('.')?;
        return Some((registry, suffix));
    }
    if TENANTS_AT_ANY_DEPTH.iter().any(|suffix| under(suffix)) {
        return Some((name, ""));
    }
    let labels = if SHARED.iter().any(|suffix| under(suffix)) { 3 } else { 2 };
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    match dots.nth(labels - 1) {
        Some(at) => Some((&name[at + 1..], "")),
        None => (name.matches('.').count() == labels - 1).then_some((name, "")),
    }
}
