//! One entry of `registries:`, for what `hosts.toml` cannot say.
//!
//! Invariant: `an_entry_is_read_strictly`.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::nearest;
use super::tree::{Fault, Tree, Value, read};
use super::value::{ByteSize, Setting};

/// Settings of one registry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registry {
    /// As written in references.
    pub(crate) host: String,
    /// How to talk to the registry itself.
    pub(crate) own: Talk,
    /// Hosts of `hosts.toml` that may get the registry's own credentials.
    pub(crate) trusted_mirrors: Vec<String>,
    /// Mirrors that are asked before those of `hosts.toml`.
    pub(crate) mirrors: Vec<Mirror>,
    /// Whether the registry itself is asked after its mirrors.
    pub(crate) fallback: bool,
}

/// A mirror.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mirror {
    /// Where it is.
    pub(crate) url: String,
    /// The URL's path is the whole API root.
    pub(crate) override_path: bool,
    /// It may also say which digest a tag has.
    pub(crate) resolve_tags: bool,
    /// It may get the registry's own credentials.
    pub(crate) trusted: bool,
    /// Its own user.
    pub(crate) username: Option<String>,
    /// The file with that user's password.
    pub(crate) password_file: Option<PathBuf>,
    /// How to talk to it.
    pub(crate) talk: Talk,
}

/// How to talk to one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Talk {
    pub(crate) plain_http: bool,
    pub(crate) http1_only: bool,
    pub(crate) ca_file: Vec<PathBuf>,
    pub(crate) allowed_realms: Vec<String>,
    pub(crate) parallel_ranges: u64,
    pub(crate) parallel_ranges_above: Option<ByteSize>,
}

/// The keys that a registry and a mirror share, and what each does.
pub(crate) const TALK_KEYS: &[(&str, &str)] = &[
    ("plainHttp", "speaks http; nothing is encrypted, passwords included"),
    ("http1Only", "never offers HTTP/2"),
    ("caFile", "more certificate authorities, PEM"),
    ("allowedRealms", "hosts whose token endpoints may get this host's credentials"),
    ("parallelRanges", "fetches one large blob over up to this many connections, 2 to 4; without it one stream"),
    ("parallelRangesAbove", "blobs up to this size come in one stream; 32MiB unless set"),
];

/// The keys of a registry beside those.
pub(crate) const REGISTRY_KEYS: &[(&str, &str)] = &[
    ("host", "the registry as written in references, such as `docker.io` or `registry.example:5000` (required)"),
    ("trustedMirrors", "hosts of `hosts.toml` that may get the registry's own credentials"),
    ("mirrors", "mirrors that are asked before those of `hosts.toml`, see below"),
    ("fallback", "whether the registry itself is asked after its mirrors; true unless set"),
];

/// The keys of a mirror beside those.
pub(crate) const MIRROR_KEYS: &[(&str, &str)] = &[
    ("url", "where it is, such as `https://mirror.example` (required)"),
    ("overridePath", "the URL's path is the whole API root: `/v2` is not added"),
    ("resolveTags", "it may also say which digest a tag has; a stale mirror then answers with an old image"),
    ("trusted", "it may get the registry's own credentials"),
    ("username", "its own user"),
    ("passwordFile", "the file with that user's password"),
];

impl Setting for Vec<Registry> {
    const SHAPE: &'static str = "a list of registries";

    fn from_tree(tree: &Tree) -> Result<Vec<Registry>, Fault> {
        each(tree, Self::SHAPE, registry)
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

fn each<T>(tree: &Tree, shape: &str, item: fn(&Tree) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    match &tree.value {
        Value::List(items) => items.iter().map(item).collect(),
        Value::Scalar(Json::Null) => Ok(Vec::new()),
        Value::Scalar(_) | Value::Map(_) => Err(tree.fault(format!("wants {shape}, not {}", tree.kind()))),
    }
}

fn registry(tree: &Tree) -> Result<Registry, Fault> {
    let mut registry = Registry {
        host: String::new(),
        own: Talk::default(),
        trusted_mirrors: Vec::new(),
        mirrors: Vec::new(),
        fallback: true,
    };
    fields(tree, "registry", REGISTRY_KEYS, &mut |key, value| {
        match key {
            "host" => registry.host = Setting::from_tree(value)?,
            "trustedMirrors" => registry.trusted_mirrors = Setting::from_tree(value)?,
            "mirrors" => registry.mirrors = each(value, "a list of mirrors", mirror)?,
            "fallback" => registry.fallback = Setting::from_tree(value)?,
            _ => return registry.own.take(key, value),
        }
        Ok(true)
    })?;
    if registry.host.is_empty() || registry.host.contains('/') {
        return Err(tree.fault("a registry needs its host, as in `host: registry.example:5000`, without a scheme"));
    }
    Ok(registry)
}

fn mirror(tree: &Tree) -> Result<Mirror, Fault> {
    let mut mirror = Mirror::default();
    fields(tree, "mirror", MIRROR_KEYS, &mut |key, value| {
        match key {
            "url" => mirror.url = Setting::from_tree(value)?,
            "overridePath" => mirror.override_path = Setting::from_tree(value)?,
            "resolveTags" => mirror.resolve_tags = Setting::from_tree(value)?,
            "trusted" => mirror.trusted = Setting::from_tree(value)?,
            "username" => mirror.username = Setting::from_tree(value)?,
            "passwordFile" => mirror.password_file = Setting::from_tree(value)?,
            _ => return mirror.talk.take(key, value),
        }
        Ok(true)
    })?;
    match (&mirror.url, &mirror.username, &mirror.password_file) {
        (url, _, _) if url.is_empty() => Err(tree.fault("a mirror needs its url, as in `url: https://mirror.example`")),
        (_, Some(_), None) | (_, None, Some(_)) => {
            Err(tree.fault("username and passwordFile of a mirror belong together"))
        }
        (_, None, None) | (_, Some(_), Some(_)) => Ok(mirror),
    }
}

impl Talk {
    /// Takes a key that registries and mirrors share; whether it is one.
    fn take(&mut self, key: &str, value: &Tree) -> Result<bool, Fault> {
        match key {
            "plainHttp" => self.plain_http = Setting::from_tree(value)?,
            "http1Only" => self.http1_only = Setting::from_tree(value)?,
            "caFile" => self.ca_file = Setting::from_tree(value)?,
            "allowedRealms" => self.allowed_realms = Setting::from_tree(value)?,
            "parallelRanges" => self.parallel_ranges = Setting::from_tree(value)?,
            "parallelRangesAbove" => self.parallel_ranges_above = Setting::from_tree(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Hands each key to `take`; one that it does not know is an error that names the nearest.
fn fields(
    tree: &Tree,
    what: &str,
    own: &[(&'static str, &str)],
    take: &mut dyn FnMut(&str, &Tree) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    let Value::Map(entries) = &tree.value else {
        return Err(tree.fault(format!("wants a {what} with its keys, not {}", tree.kind())));
    };
    for (key, place, value) in entries {
        if !take(key, value)? {
            let known = own.iter().chain(TALK_KEYS).map(|(name, _)| *name);
            let message = format!("unknown key {key} in a {what}{}", nearest::suggestion(key, known));
            return Err(Fault { place: *place, message });
        }
    }
    Ok(())
}

fn printed(registry: &Registry) -> Json {
    let mirrors = registry.mirrors.iter().map(|mirror| {
        with_talk(
            json!({
                "url": mirror.url,
                "overridePath": mirror.override_path,
                "resolveTags": mirror.resolve_tags,
                "trusted": mirror.trusted,
                "username": mirror.username.to_json(),
                "passwordFile": mirror.password_file.to_json(),
            }),
            &mirror.talk,
        )
    });
    let own = json!({
        "host": registry.host,
        "trustedMirrors": registry.trusted_mirrors,
        "mirrors": mirrors.collect::<Vec<_>>(),
        "fallback": registry.fallback,
    });
    with_talk(own, &registry.own)
}

fn with_talk(mut object: Json, talk: &Talk) -> Json {
    object["plainHttp"] = talk.plain_http.into();
    object["http1Only"] = talk.http1_only.into();
    object["caFile"] = talk.ca_file.to_json();
    object["allowedRealms"] = talk.allowed_realms.to_json();
    object["parallelRanges"] = talk.parallel_ranges.into();
    object["parallelRangesAbove"] = talk.parallel_ranges_above.to_json();
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_strictly() {
        let good = "[{host: 'r.example:5000', http1Only: true, allowedRealms: [auth.example], caFile: /a.pem, \
                    mirrors: [{url: 'https://m.example', trusted: true}], fallback: false}]";
        let registries = <Vec<Registry>>::from_text(good).unwrap();
        let registry = &registries[0];
        assert_eq!(
            (registry.host.as_str(), registry.own.http1_only, registry.fallback),
            ("r.example:5000", true, false)
        );
        assert_eq!((registry.mirrors[0].url.as_str(), registry.mirrors[0].trusted), ("https://m.example", true));
        let again = <Vec<Registry>>::from_text(&registries.to_json().to_string()).unwrap();
        assert_eq!(again, registries, "what is printed can be read");
        let table = [
            ("[{hostt: a}]", "unknown key hostt in a registry (did you mean host?)"),
            ("[{host: 'https://a'}]", "without a scheme"),
            ("[{http1Only: true}]", "needs its host"),
            ("[{host: a, http1Only: 1}]", "wants true or false, not a number"),
            ("[{host: a, mirrors: [{trusted: true}]}]", "a mirror needs its url"),
            ("[{host: a, mirrors: [{url: 'https://b', username: c}]}]", "belong together"),
            ("[{host: a, mirrors: [{uri: 'https://b'}]}]", "unknown key uri in a mirror (did you mean url?)"),
            ("{host: a}", "wants a list of registries, not a map"),
        ];
        for (text, want) in table {
            let message = <Vec<Registry>>::from_text(text).unwrap_err();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}
