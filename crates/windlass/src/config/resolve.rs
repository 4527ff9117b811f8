//! Which value of a key wins: flag over environment over file over default.
//!
//! In: the texts of the files in order, the environment, the flags. Out: a value and its [`Origin`] per key, and
//! every fault found, so that one run names all of them.
//!
//! Invariants: `flag_beats_variable_beats_file_beats_default`, `later_files_win`,
//! `unknown_keys_name_the_nearest_and_their_place`, `each_kind_stands_once`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::section::{Key, variable};
use super::tree::{Fault, Place, Tree, Value, read};
use super::value::Setting;
use super::{FlagValue, nearest};

/// The one version of our configuration.
pub(crate) const API_VERSION: &str = "config.windlass.dev/v1alpha1";
/// The kind that this program reads now.
pub(crate) const NODE_KIND: &str = "NodeConfiguration";
/// Every kind that may stand in the file; the others belong to other components.
const KINDS: [&str; 4] = [NODE_KIND, "RegistryConfiguration", "AdmissionConfiguration", "ControllerConfiguration"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// A file, and the place in it.
    File(PathBuf, Place),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, place) => write!(f, "{}:{}", path.display(), place.line),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing that is wrong, with the place to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(path, Place { line: 0, .. }) => write!(f, "{}: {}", path.display(), self.message),
            Origin::File(path, place) => write!(f, "{}:{place}: {}", path.display(), self.message),
            Origin::Default | Origin::Variable(_) | Origin::Flag(_) => write!(f, "{}: {}", self.origin, self.message),
        }
    }
}

/// A value that somebody gave.
#[derive(Clone, Debug)]
enum Given {
    Text(String),
    Texts(Vec<String>),
    Tree(Tree),
}

/// A key with the value that won.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) path: String,
    pub(crate) value: Json,
    pub(crate) origin: Origin,
}

/// Everything that was said, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Last one wins.
    given: BTreeMap<String, (Origin, Given)>,
    pub(crate) effective: Vec<Effective>,
    pub(crate) problems: Vec<Problem>,
}

impl Sources {
    /// Adds a file; keys in it replace those of files before it.
    pub(crate) fn add_file(&mut self, path: &Path, text: &str, keys: &[Key]) {
        let documents = match read(text) {
            Ok(documents) => documents,
            Err(fault) => return self.fault(path, fault),
        };
        let mut kinds = Vec::new();
        for document in &documents {
            match kind_of(document) {
                Ok(kind) if kinds.contains(&kind) => {
                    let message = format!("a second {kind} in one file");
                    self.fault(path, document.fault(message));
                }
                Ok(kind) => {
                    kinds.push(kind);
                    if kind == NODE_KIND {
                        self.add_document(path, document, keys);
                    }
                }
                Err(fault) => self.fault(path, fault),
            }
        }
    }

    /// Adds a value from the environment.
    pub(crate) fn add_variable(&mut self, key: &Key, text: String) {
        self.given.insert(key.path.clone(), (Origin::Variable(key.variable()), Given::Text(text)));
    }

    /// Adds a value from a flag, or from the flag's own variable.
    pub(crate) fn add_flag(&mut self, given: &FlagValue) {
        let FlagValue { path, flag, from_environment, texts } = given;
        let (origin, value) = if *from_environment {
            (Origin::Variable(variable(flag)), Given::Text(texts.join(",")))
        } else {
            (Origin::Flag(flag), Given::Texts(texts.clone()))
        };
        self.given.insert((*path).to_owned(), (origin, value));
    }

    /// The value of a key. A value that cannot be read becomes a problem, and the default stands in.
    pub(crate) fn take<T: Setting>(&mut self, path: &str, default: T) -> T {
        let (value, origin) = match self.given.remove(path) {
            None => (default, Origin::Default),
            Some((origin, given)) => match read_value::<T>(&origin, &given) {
                Ok(value) => (value, origin),
                Err(problem) => {
                    let message = format!("{path} {}", problem.message);
                    self.problems.push(Problem { message, ..problem });
                    (default, origin)
                }
            },
        };
        self.effective.push(Effective { path: path.to_owned(), value: value.to_json(), origin });
        value
    }

    fn add_document(&mut self, path: &Path, document: &Tree, keys: &[Key]) {
        self.add_map(path, "", document, keys);
    }

    fn add_map(&mut self, path: &Path, prefix: &str, tree: &Tree, keys: &[Key]) {
        let Value::Map(entries) = &tree.value else {
            return self
                .fault(path, tree.fault(format!("{} wants a map, not {}", prefix.trim_end_matches('.'), tree.kind())));
        };
        for (name, place, value) in entries {
            let full = format!("{prefix}{name}");
            if prefix.is_empty() && (name == "apiVersion" || name == "kind") {
                continue;
            }
            if keys.iter().any(|key| key.path == full) {
                let origin = Origin::File(path.to_owned(), *place);
                self.given.insert(full, (origin, Given::Tree(value.clone())));
                continue;
            }
            let inner = format!("{full}.");
            if !keys.iter().any(|key| key.path.starts_with(&inner)) {
                let message = format!("unknown key {full}{}", nearest::suggestion(&full, names(keys)));
                self.fault(path, Fault { place: *place, message });
            } else if value.value != Value::Scalar(Json::Null) {
                self.add_map(path, &inner, value, keys);
            }
        }
    }

    fn fault(&mut self, path: &Path, fault: Fault) {
        self.problems.push(Problem { origin: Origin::File(path.to_owned(), fault.place), message: fault.message });
    }
}

/// Every key and every area.
fn names(keys: &[Key]) -> impl Iterator<Item = &str> {
    let areas = keys.iter().filter_map(|key| key.path.split_once('.')).map(|(area, _)| area);
    keys.iter().map(|key| key.path.as_str()).chain(areas)
}

fn read_value<T: Setting>(origin: &Origin, given: &Given) -> Result<T, Problem> {
    match given {
        Given::Text(text) => T::from_text(text).map_err(|message| Problem { origin: origin.clone(), message }),
        Given::Texts(texts) => T::from_texts(texts).map_err(|message| Problem { origin: origin.clone(), message }),
        Given::Tree(tree) => T::from_tree(tree).map_err(|fault| {
            let origin = match origin {
                Origin::File(path, _) => Origin::File(path.clone(), fault.place),
                Origin::Default | Origin::Variable(_) | Origin::Flag(_) => origin.clone(),
            };
            Problem { origin, message: fault.message }
        }),
    }
}

/// The kind of a document, checked together with its version.
fn kind_of(document: &Tree) -> Result<&'static str, Fault> {
    let Value::Map(_) = &document.value else {
        return Err(document.fault(format!("wants a configuration, not {}", document.kind())));
    };
    let version = document.get("apiVersion");
    match version.and_then(Tree::text) {
        Some(API_VERSION) => {}
        Some(other) => {
            let message = format!("apiVersion {other} is not known; this program reads {API_VERSION}");
            return Err(version.unwrap_or(document).fault(message));
        }
        None => return Err(document.fault(format!("needs `apiVersion: {API_VERSION}`"))),
    }
    let kind = document.get("kind");
    match kind.and_then(Tree::text) {
        Some(word) => KINDS.iter().find(|known| **known == word).copied().ok_or_else(|| {
            let message = format!("unknown kind {word}{}", nearest::suggestion(word, KINDS));
            kind.unwrap_or(document).fault(message)
        }),
        None => Err(document.fault(format!("needs a kind, such as `kind: {NODE_KIND}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Node;
    use super::*;

    fn file(body: &str) -> String {
        format!("apiVersion: {API_VERSION}\nkind: {NODE_KIND}\n{body}")
    }

    fn problems(text: &str) -> Vec<String> {
        let mut sources = Sources::default();
        sources.add_file(Path::new("c.yaml"), text, &Node::keys());
        Node::resolve(&mut sources);
        sources.problems.iter().map(ToString::to_string).collect()
    }

    fn key(path: &str) -> Key {
        Node::keys().into_iter().find(|key| key.path == path).unwrap()
    }

    #[test]
    fn flag_beats_variable_beats_file_beats_default() {
        let table: [(&[&str], &str, &str); 5] = [
            (&[], "/default", "default"),
            (&["file"], "/file", "c.yaml:3"),
            (&["file", "variable"], "/variable", "WINDLASS_ROOT"),
            (&["file", "variable", "flag"], "/flag", "--root"),
            (&["file", "flag"], "/flag", "--root"),
        ];
        for (said, want, origin) in table {
            let mut sources = Sources::default();
            if said.contains(&"file") {
                sources.add_file(Path::new("c.yaml"), &file("root: /file\n"), &Node::keys());
            }
            if said.contains(&"variable") {
                sources.add_variable(&key("root"), "/variable".to_owned());
            }
            if said.contains(&"flag") {
                let texts = vec!["/flag".to_owned()];
                sources.add_flag(&FlagValue { path: "root", flag: "root", from_environment: false, texts });
            }
            assert_eq!(sources.take("root", PathBuf::from("/default")), PathBuf::from(want), "{said:?}");
            assert_eq!(sources.effective[0].origin.to_string(), origin, "{said:?}");
            assert!(sources.problems.is_empty(), "{:?}", sources.problems);
        }
    }

    #[test]
    fn later_files_win() {
        let mut sources = Sources::default();
        sources.add_file(Path::new("a"), &file("limits: {manifestBytes: 1MiB, configBytes: 1MiB}\n"), &Node::keys());
        sources.add_file(Path::new("b"), &file("limits: {manifestBytes: 2MiB}\n"), &Node::keys());
        let node = Node::resolve(&mut sources);
        assert_eq!((node.limits.manifest_bytes.0, node.limits.config_bytes.0), (2 << 20, 1 << 20));
    }

    #[test]
    fn unknown_keys_name_the_nearest_and_their_place() {
        let table = [
            (file("roott: /a\n"), "c.yaml:3:1: unknown key roott (did you mean root?)"),
            (
                file("limits:\n  manifestByte: 1\n"),
                "c.yaml:4:3: unknown key limits.manifestByte (did you mean limits.manifestBytes?)",
            ),
            (file("limit: {}\n"), "c.yaml:3:1: unknown key limit (did you mean limits?)"),
            (file("limits: 5\n"), "c.yaml:3:9: limits wants a map, not a number"),
            (file("root: 5\n"), "c.yaml:3:7: root wants a path, not a number"),
            (file("registries:\n- host: a\n  x: 1\n"), "c.yaml:5:3: registries unknown key x in a registry"),
            (file("log: {level: loud}\n"), "c.yaml:3:14: log.level wants error, warn, info, debug or trace"),
        ];
        for (text, want) in table {
            assert_eq!(problems(&text), [want], "{text}");
        }
    }

    #[test]
    fn each_kind_stands_once() {
        let other = format!("apiVersion: {API_VERSION}\nkind: RegistryConfiguration\nanything: [goes]\n");
        assert_eq!(problems(&format!("{}---\n{other}", file("root: /a\n"))), [""; 0]);
        let table = [
            (format!("{}---\n{}", file(""), file("")), "c.yaml:4:1: a second NodeConfiguration in one file"),
            (
                other.replace("RegistryC", "registryC"),
                "c.yaml:2:7: unknown kind registryConfiguration (did you mean RegistryConfiguration?)",
            ),
            ("kind: NodeConfiguration\n".to_owned(), "c.yaml:1:1: needs `apiVersion: config.windlass.dev/v1alpha1`"),
            (
                "apiVersion: config.windlass.dev/v2\nkind: NodeConfiguration\n".to_owned(),
                "c.yaml:1:13: apiVersion config.windlass.dev/v2 is not known; this program reads config.windlass.dev/v1alpha1",
            ),
            (format!("apiVersion: {API_VERSION}\n"), "c.yaml:1:1: needs a kind, such as `kind: NodeConfiguration`"),
            ("- a\n".to_owned(), "c.yaml:1:1: wants a configuration, not a list"),
        ];
        for (text, want) in table {
            assert_eq!(problems(&text), [want], "{text}");
        }
    }
}
