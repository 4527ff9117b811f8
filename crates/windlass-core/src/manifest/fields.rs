//! Typed reading of one JSON object, with paths in the errors.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::ManifestError;

/// An object and where it stands.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: String,
}

impl<'a> Fields<'a> {
    /// Takes an object in which no key differs from one of `known` in case only.
    pub(super) fn new(value: &'a Value, at: &str, known: &[&str]) -> Result<Fields<'a>, ManifestError> {
        let name = if at.is_empty() { "document" } else { at };
        let Value::Object(map) = value else {
            return Err(ManifestError::field(name, format!("must be an object, is {}", kind(value))));
        };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            // encoding/json of Go, which most tools use, takes such keys for the known ones.
            if let Some(like) = known.iter().find(|name| fold(key) == fold(name)) {
                return Err(ManifestError::field(name, format!("a key differs from {like:?} in case only")));
            }
        }
        Ok(Fields { map, at: at.to_owned() })
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value, unless absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value even where it is null; an error where it is absent.
    pub(super) fn required(&self, key: &str) -> Result<&'a Value, ManifestError> {
        self.map.get(key).ok_or_else(|| ManifestError::field(self.path(key), "is missing"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ManifestError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn required_text(&self, key: &str) -> Result<&'a str, ManifestError> {
        self.required(key)?;
        self.text(key)?.ok_or_else(|| ManifestError::field(self.path(key), "must be a string, is null"))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ManifestError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ManifestError> {
        self.typed(key, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn required_list(&self, key: &str) -> Result<&'a [Value], ManifestError> {
        self.required(key)?;
        self.list(key)?.ok_or_else(|| ManifestError::field(self.path(key), "must be an array, is null"))
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, ManifestError> {
        self.typed(key, "an object", Value::as_object)
    }

    /// An array of strings; absent and null are empty.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, ManifestError> {
        let list = self.list(key)?.unwrap_or_default();
        let text = |(at, value): (usize, &Value)| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong(&format!("{key}[{at}]"), "a string", value)),
        };
        list.iter().enumerate().map(text).collect()
    }

    /// An object of strings; absent and null are empty.
    pub(super) fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, ManifestError> {
        let Some(map) = self.object(key)? else { return Ok(BTreeMap::new()) };
        let text = |(name, value): (&String, &Value)| match value.as_str() {
            Some(text) => Ok((name.clone(), text.to_owned())),
            None => Err(self.wrong(&format!("{key}[{name:?}]"), "a string", value)),
        };
        map.iter().map(text).collect()
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ManifestError> {
        self.get(key).map(|value| read(value).ok_or_else(|| self.wrong(key, wanted, value))).transpose()
    }

    fn wrong(&self, key: &str, wanted: &str, value: &Value) -> ManifestError {
        ManifestError::field(self.path(key), format!("must be {wanted}, is {}", kind(value)))
    }
}

/// Upper case first, so that letters such as U+017F and U+212A meet their plain relatives.
fn fold(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
