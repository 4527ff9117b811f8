//! One entry of `registries:`, for what `hosts.toml` cannot say.
//!
//! Invariant: `an_entry_is_read_strictly`.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::nearest;
use super::tree::{Fault, Tree, Value, read};
use super::value::Setting;

/// Settings of one registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Registry {
    /// As written in references.
    pub(crate) host: String,
    /// Hosts whose token endpoints may get this registry's credentials.
    pub(crate) allowed_realms: Vec<String>,
    /// Never offers HTTP/2.
    pub(crate) http1_only: bool,
    /// Fetches one large blob over up to this many connections.
    pub(crate) parallel_ranges: u64,
    /// Mirrors that get the registry's own credentials.
    pub(crate) trusted_mirrors: Vec<String>,
    /// More certificate authorities.
    pub(crate) ca_file: Vec<PathBuf>,
    /// Speaks plain http.
    pub(crate) plain_http: bool,
}

/// The keys of an entry and what each does.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("host", "the registry as written in references, such as `docker.io` or `registry.example:5000` (required)"),
    ("allowedRealms", "hosts whose token endpoints may get this registry's credentials"),
    ("http1Only", "never offers HTTP/2"),
    ("parallelRanges", "fetches one large blob over up to this many connections; 0 and 1 mean one stream"),
    ("trustedMirrors", "mirrors that get the registry's own credentials"),
    ("caFile", "more certificate authorities, PEM"),
    ("plainHttp", "speaks http; nothing is encrypted, passwords included"),
];

impl Setting for Vec<Registry> {
    const SHAPE: &'static str = "a list of registries";

    fn from_tree(tree: &Tree) -> Result<Vec<Registry>, Fault> {
        match &tree.value {
            Value::List(items) => items.iter().map(entry).collect(),
            Value::Scalar(Json::Null) => Ok(Vec::new()),
            Value::Scalar(_) | Value::Map(_) => Err(tree.fault(format!("wants {}, not {}", Self::SHAPE, tree.kind()))),
        }
    }

    /// In a variable: the same list as YAML in one line.
    fn from_text(text: &str) -> Result<Vec<Registry>, String> {
        let documents = read(text).map_err(|fault| fault.message)?;
        match documents.as_slice() {
            [] => Ok(Vec::new()),
            [one] => Self::from_tree(one).map_err(|fault| fault.message),
            _ => Err(format!("wants {}", Self::SHAPE)),
        }
    }

    fn to_json(&self) -> Json {
        self.iter().map(printed).collect()
    }
}

fn entry(tree: &Tree) -> Result<Registry, Fault> {
    let Value::Map(entries) = &tree.value else {
        return Err(tree.fault(format!("wants a registry with a host, not {}", tree.kind())));
    };
    let mut registry = Registry::default();
    for (key, place, value) in entries {
        match key.as_str() {
            "host" => registry.host = Setting::from_tree(value)?,
            "allowedRealms" => registry.allowed_realms = Setting::from_tree(value)?,
            "http1Only" => registry.http1_only = Setting::from_tree(value)?,
            "parallelRanges" => registry.parallel_ranges = Setting::from_tree(value)?,
            "trustedMirrors" => registry.trusted_mirrors = Setting::from_tree(value)?,
            "caFile" => registry.ca_file = Setting::from_tree(value)?,
            "plainHttp" => registry.plain_http = Setting::from_tree(value)?,
            _ => {
                let known = KEYS.iter().map(|(name, _)| *name);
                let message = format!("unknown key {key} in a registry{}", nearest::suggestion(key, known));
                return Err(Fault { place: *place, message });
            }
        }
    }
    if registry.host.is_empty() || registry.host.contains('/') {
        return Err(tree.fault("a registry needs its host, as in `host: registry.example:5000`, without a scheme"));
    }
    Ok(registry)
}

fn printed(registry: &Registry) -> Json {
    json!({
        "host": registry.host,
        "allowedRealms": registry.allowed_realms,
        "http1Only": registry.http1_only,
        "parallelRanges": registry.parallel_ranges,
        "trustedMirrors": registry.trusted_mirrors,
        "caFile": registry.ca_file.to_json(),
        "plainHttp": registry.plain_http,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_strictly() {
        let good = "[{host: 'r.example:5000', http1Only: true, allowedRealms: [auth.example], caFile: /a.pem}]";
        let registries = <Vec<Registry>>::from_text(good).unwrap();
        assert_eq!((registries[0].host.as_str(), registries[0].http1_only), ("r.example:5000", true));
        let table = [
            ("[{hostt: a}]", "unknown key hostt in a registry (did you mean host?)"),
            ("[{host: 'https://a'}]", "without a scheme"),
            ("[{http1Only: true}]", "needs its host"),
            ("[{host: a, http1Only: 1}]", "wants true or false, not a number"),
            ("{host: a}", "wants a list of registries, not a map"),
        ];
        for (text, want) in table {
            let message = <Vec<Registry>>::from_text(text).unwrap_err();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}
