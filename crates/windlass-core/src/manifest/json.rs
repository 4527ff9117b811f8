//! JSON from strangers: one value, bounded in depth and size, no key twice in one object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DocumentLimits, ManifestError, error::shown};

/// The one JSON value in `bytes`.
///
/// # Errors
/// [`ManifestError::Json`] for a byte-order mark, text after the value, a repeated key or bad syntax;
/// [`ManifestError::Limit`] for `jsonDepth` and `jsonNodes`.
pub(crate) fn parse(bytes: &[u8], limits: &DocumentLimits) -> Result<Value, ManifestError> {
    let fault = |problem: &str| ManifestError::Json { problem: problem.to_owned() };
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(fault("it starts with a byte-order mark"));
    }
    let mut walk = Walk { limits, nodes: 0, fault: None };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { walk: &mut walk, depth: 0 }.deserialize(&mut deserializer);
    match (value, walk.fault) {
        (_, Some(found)) => Err(found),
        (Err(error), None) => Err(fault(&shown(&error.to_string()))),
        (Ok(value), None) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(_) => Err(fault("there is text after the value")),
        },
    }
}

struct Walk<'a> {
    limits: &'a DocumentLimits,
    nodes: usize,
    /// What the walk itself refused; serde's errors carry text only.
    fault: Option<ManifestError>,
}

impl Walk<'_> {
    fn count(&mut self, depth: usize) -> Result<(), ManifestError> {
        self.nodes += 1;
        ManifestError::check_limit("jsonNodes", self.nodes as u64, self.limits.json_nodes as u64)?;
        ManifestError::check_limit("jsonDepth", depth as u64, self.limits.json_depth as u64)
    }

    fn refuse<E: serde::de::Error>(&mut self, fault: ManifestError) -> E {
        self.fault.get_or_insert(fault);
        E::custom("refused")
    }
}

/// One value, `depth` arrays and objects below the root.
struct Node<'w, 'a> {
    walk: &'w mut Walk<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if let Err(fault) = self.walk.count(self.depth) {
            return Err(self.walk.refuse(fault));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let Node { walk, depth } = self;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(Node { walk, depth: depth + 1 })? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Node { walk, depth } = self;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let problem = format!("the key {:?} occurs twice in one object", shown(&key));
                walk.fault.get_or_insert(ManifestError::Json { problem });
                return Err(A::Error::custom("refused"));
            }
            let value = entries.next_value_seed(Node { walk, depth: depth + 1 })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
