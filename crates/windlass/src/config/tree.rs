//! A configuration file as a tree whose every key and value knows its line and column.
//!
//! In: the text of one file, several documents. Out: one [`Tree`] per document that is not empty.
//!
//! Invariants: `positions_are_those_of_the_file`, `a_key_may_stand_once`, `size_and_depth_are_bounded`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::Spanned;

/// Longest configuration file. A generous one with a hundred registries stays below 100 KiB.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting: ours is four.
const DEPTH_MAX: usize = 16;
/// Most values in a file.
const NODES_MAX: usize = 50_000;
/// Most documents in a file: one of each kind, and some empty ones.
const DOCUMENTS_MAX: usize = 32;

/// A place in a file, counted from 1; 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something that is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a value is; scalars keep the type that YAML gave them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Scalar(Json),
    List(Vec<Tree>),
    Map(Vec<(String, Place, Tree)>),
}

impl Tree {
    /// An error about this value.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { place: self.place, message: message.into() }
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Json::Null) => "nothing",
            Value::Scalar(Json::Bool(_)) => "a boolean",
            Value::Scalar(Json::Number(_)) => "a number",
            Value::Scalar(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The value of a key of this map.
    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _, _)| name == key).map(|(_, _, value)| value)
    }

    /// The text, where this is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Json::String(text)) => Some(text),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// Reads every document of a text.
pub(crate) fn read(text: &str) -> Result<Vec<Tree>, Fault> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("{} bytes, more than the {FILE_BYTES_MAX} a configuration file may have", text.len());
        return Err(Fault { place: Place::default(), message });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
            max_documents: DOCUMENTS_MAX,
        },
        with_snippet: false,
    };
    let documents = serde_saphyr::from_multiple_with_options::<Spanned<Bare>>(text, options).map_err(|error| {
        let place = error.location().map_or_else(Place::default, place_of);
        Fault { place, message: first_line(&error.to_string()) }
    })?;
    let trees = documents.into_iter().map(Tree::from);
    Ok(trees.filter(|tree| tree.value != Value::Scalar(Json::Null)).collect())
}

fn place_of(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

/// The first line without the place, which is told apart.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    match line.split_once(": ") {
        Some((before, after)) if before.contains("line") => after.to_owned(),
        _ => line.to_owned(),
    }
}

/// A value without its place, as the YAML reader gives it inside a span.
#[derive(Debug)]
struct Bare(Value);

impl From<Spanned<Bare>> for Tree {
    fn from(spanned: Spanned<Bare>) -> Tree {
        Tree { place: place_of(spanned.referenced), value: spanned.value.0 }
    }
}

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bare, D::Error> {
        deserializer.deserialize_any(Reader).map(Bare)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Scalar(Json::Null))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Scalar(Json::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Bare>>()? {
            items.push(Tree::from(item));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Spanned<Bare>>()?;
            entries.push((key.value, place_of(key.referenced), Tree::from(value)));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_file() {
        let documents = read("---\n---\n# one\na: 1\nb:\n  c: [x, z]\n---\nd: yes\n").unwrap();
        assert_eq!(documents.len(), 2);
        let Value::Map(entries) = &documents[0].value else { panic!("{documents:?}") };
        let keys: Vec<_> = entries.iter().map(|(key, place, _)| (key.as_str(), place.line, place.column)).collect();
        assert_eq!(keys, [("a", 4, 1), ("b", 5, 1)]);
        let list = documents[0].get("b").and_then(|b| b.get("c")).unwrap();
        let Value::List(items) = &list.value else { panic!("{list:?}") };
        assert_eq!((items[1].text(), items[1].place), (Some("z"), Place { line: 6, column: 10 }));
        assert_eq!(documents[1].get("d").map(|d| d.value.clone()), Some(Value::Scalar(true.into())));
    }

    #[test]
    fn a_key_may_stand_once() {
        let fault = read("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(fault.place.line, 3, "{fault:?}");
        assert!(fault.message.contains("duplicate"), "{fault:?}");
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert!(read(&"#".repeat(FILE_BYTES_MAX + 1)).unwrap_err().message.contains("bytes"));
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert!(read(&deep).is_err());
    }
}
