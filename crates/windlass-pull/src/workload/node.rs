//! A document as a tree whose every value knows the line it stands on.
//!
//! Kubernetes objects are read loosely: kinds that are not ours may hold anything, so nothing is decoded into
//! a typed object before its kind is known. In: the text of one file, YAML or JSON, several documents.
//! Out: one [`Node`] per document.
//!
//! Invariants: `lines_are_those_of_the_file`, `json_is_read_too`, `depth_and_size_are_bounded`,
//! `a_key_may_stand_once`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Longest text of one manifest file. A Kubernetes object is at most about 1.5 MiB (etcd's request limit); ten
/// of that size in one file are generous.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of a document. Pods nest about 12 deep, custom resource definitions about 40.
pub(super) const DEPTH_MAX: usize = 64;
/// Most values in one file.
const NODES_MAX: usize = 1_000_000;
/// Most values that aliases may repeat. Manifests written by hand repeat a few hundred.
const REPLAYED_EVENTS_MAX: usize = 100_000;
/// Most documents in one file.
const DOCUMENTS_MAX: usize = 4_096;

/// One value and the line it starts on, counted from 1; 0 where it is not known.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) value: Value,
}

/// What a value is. Numbers and booleans keep no content: no field that is read here may hold one.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool,
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value under `key`, where this is a map and the value is not null.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        let node = &entries.iter().find(|(name, _)| name == key)?.1;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// The value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of this value, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool | Value::Number | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What kind of value this is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool => "a boolean",
            Value::Number => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Why a text is not a list of documents: a sentence and where.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) line: Option<u32>,
    pub(super) message: String,
}

/// Reads every document of a file. Empty documents are left out.
pub(super) fn read_documents(text: &str) -> Result<Vec<Node>, Unreadable> {
    if text.len() > MANIFEST_BYTES_MAX {
        let message = format!("{} bytes, more than the {MANIFEST_BYTES_MAX} a manifest file may have", text.len());
        return Err(Unreadable { line: None, message });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
            max_documents: DOCUMENTS_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_EVENTS_MAX,
        },
        with_snippet: false,
    };
    let yaml = serde_saphyr::from_multiple_with_options::<Spanned<Tree>>(text, options);
    match yaml {
        Ok(documents) => Ok(documents.into_iter().map(Node::from).collect()),
        Err(error) => match read_json(text) {
            Some(documents) => Ok(documents),
            None => {
                let line = error.location().and_then(|at| u32::try_from(at.line()).ok()).filter(|line| *line > 0);
                Err(Unreadable { line, message: first_line(&error.to_string()) })
            }
        },
    }
}

/// JSON that the YAML reader stumbles over (it may be indented with tabs), without lines.
fn read_json(text: &str) -> Option<Vec<Node>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Plain>();
    documents.take(DOCUMENTS_MAX).map(|document| document.map(|plain| plain.0).ok()).collect()
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}

/// A value under the YAML reader, which wraps each in its span.
#[derive(Debug)]
struct Tree(Value);

/// A value under a reader without spans.
#[derive(Debug)]
struct Plain(Node);

impl From<Spanned<Tree>> for Node {
    fn from(spanned: Spanned<Tree>) -> Node {
        let line = u32::try_from(spanned.referenced.line()).unwrap_or(0);
        Node { line, value: spanned.value.0 }
    }
}

impl From<Plain> for Node {
    fn from(plain: Plain) -> Node {
        plain.0
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Reader::<Spanned<Tree>>(std::marker::PhantomData)).map(Tree)
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        let value = deserializer.deserialize_any(Reader::<Plain>(std::marker::PhantomData))?;
        Ok(Plain(Node { line: 0, value }))
    }
}

/// Builds a [`Value`] whose children are read as `C`.
struct Reader<C>(std::marker::PhantomData<C>);

impl<'de, C: Deserialize<'de> + Into<Node>> Visitor<'de> for Reader<C> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(child) = seq.next_element::<C>()? {
            list.push(child.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format_args!("key {key:?} stands twice")));
            }
            entries.push((key, map.next_value::<C>()?.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_file() {
        let text = "# first\n---\na: 1\nb:\n  - x: \"y\"\n    z: yes\n---\n\n---\nc: |\n  many\n  lines\n";
        let documents = read_documents(text).unwrap();
        assert_eq!(documents.len(), 2);
        let b = documents[0].get("b").unwrap();
        let Value::List(items) = &b.value else { panic!("{b:?}") };
        assert_eq!((items[0].line, items[0].get("x").unwrap().line), (5, 5));
        assert_eq!(items[0].get("z").unwrap().line, 6);
        assert_eq!(items[0].get("x").unwrap().text(), Some("y"));
        assert_eq!(documents[1].get("c").unwrap().text(), Some("many\nlines\n"));
    }

    #[test]
    fn json_is_read_too() {
        for text in [
            "{\"a\": {\"b\": [\"c\", null, 1.5, true]}}",
            "{\n\t\"a\": {\n\t\t\"b\": [\"c\", null, 1.5, true]\n\t}\n}\n",
        ] {
            let documents = read_documents(text).unwrap();
            let Value::List(items) = &documents[0].at(&["a", "b"]).unwrap().value else { panic!() };
            assert_eq!(items.len(), 4);
            assert_eq!(items[0].text(), Some("c"));
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = format!("a: {}{}", "[".repeat(500), "]".repeat(500));
        assert!(read_documents(&deep).is_err());
        let deep_json = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(read_documents(&deep_json).is_err());
        let long = " ".repeat(MANIFEST_BYTES_MAX + 1);
        assert!(read_documents(&long).unwrap_err().message.contains("bytes"));
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(b'b'..=b'i')
                .map(|c| {
                    let (this, last) = (char::from(c), char::from(c - 1));
                    format!("{this}: &{this} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n")
                })
                .collect::<String>();
        assert!(read_documents(&laughs).is_err(), "aliases may not multiply without bound");
    }

    #[test]
    fn a_key_may_stand_once() {
        assert_eq!(read_documents("a: 1\nb: 2\na: 3\n").unwrap_err().line, Some(3));
        assert!(read_documents("{\"a\":1,\"a\":2}").is_err());
    }
}
