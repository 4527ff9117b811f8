//! JSON objects member by member, with Go's habits: order kept, doubles kept, names compared without case.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::DecodeError;

/// One member of an object, its value unread.
pub(super) type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// The value is not an object.
pub(super) struct NotAnObject;

/// Checks the grammar of the whole text.
pub(super) fn parse(text: &str) -> Result<&RawValue, DecodeError> {
    serde_json::from_str(text).map_err(|e| DecodeError::NotJson { line: e.line(), column: e.column().max(1) })
}

/// The members of an object in order; `None` for `null`.
pub(super) fn members<'a>(value: &'a RawValue) -> Result<Option<Vec<Member<'a>>>, NotAnObject> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Option<Vec<Member<'de>>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(member) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                found.push((member.0.0, member.1));
            }
            Ok(Some(found))
        }
    }

    #[derive(serde::Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::Deserializer::from_str(value.get()).deserialize_any(Members).map_err(|_| NotAnObject)
}

/// A string value, wiped when dropped.
pub(super) fn string(value: &RawValue) -> Option<Zeroizing<String>> {
    serde_json::from_str(value.get()).ok().map(Zeroizing::new)
}

/// An object whose values are all strings or `null`.
pub(super) fn string_map(value: &RawValue) -> Option<BTreeMap<String, String>> {
    let map: Option<BTreeMap<String, Option<String>>> = serde_json::from_str(value.get()).ok()?;
    Some(map.unwrap_or_default().into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect())
}

/// Whether a member is the field `field`, as Go compares names: without case, and with the two letters outside
/// ASCII that fold to ASCII ones.
pub(super) fn same_field(name: &str, field: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).eq(field.chars().map(fold))
}

/// How deep brackets nest outside of strings. Right for valid JSON, an upper bound otherwise.
pub(super) fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
