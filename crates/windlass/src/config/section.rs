//! Declares one area of the configuration: a struct, its keys, their defaults and their documentation, once.
//!
//! Doc comments become the reference page, so a key cannot exist without an explanation.

use serde_json::Value as Json;

/// A key as the reference page and the error messages see it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Its path, e.g. `limits.manifestBytes`.
    pub(crate) path: String,
    /// What it wants, e.g. `a size such as 4MiB or 4194304`.
    pub(crate) shape: &'static str,
    /// Its default, `null` where there is none.
    pub(crate) default: Json,
    /// What it does.
    pub(crate) doc: String,
}

impl Key {
    /// The environment variable of this key: `limits.manifestBytes` is `WINDLASS_LIMITS_MANIFEST_BYTES`.
    pub(crate) fn variable(&self) -> String {
        variable(&self.path)
    }
}

/// The environment variable of a path of keys.
pub(crate) fn variable(path: &str) -> String {
    let mut name = String::from("WINDLASS_");
    for letter in path.chars() {
        if letter == '.' || letter == '-' {
            name.push('_');
            continue;
        }
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// Joins the lines of a doc comment.
pub(crate) fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident at $prefix:literal {
            $($(#[doc = $key_doc:literal])+ $field:ident: $type:ty = $key:literal or $default:expr;)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            $($(#[doc = $key_doc])+ pub(crate) $field: $type,)+
        }

        impl $name {
            /// The keys of this area, in the order of the reference page.
            pub(crate) fn keys() -> Vec<$crate::config::section::Key> {
                vec![$({
                    let default: $type = $default;
                    $crate::config::section::Key {
                        path: concat!($prefix, $key).to_owned(),
                        shape: <$type as $crate::config::value::Setting>::SHAPE,
                        default: $crate::config::value::Setting::to_json(&default),
                        doc: $crate::config::section::joined(&[$($key_doc),+]),
                    }
                }),+]
            }

            /// Takes each key from the place that wins.
            pub(crate) fn resolve(sources: &mut $crate::config::resolve::Sources) -> $name {
                $name { $($field: sources.take(concat!($prefix, $key), $default),)+ }
            }
        }
    };
}
pub(crate) use section;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_the_path_in_capitals() {
        let table = [
            ("root", "WINDLASS_ROOT"),
            ("limits.layerUnpackedBytes", "WINDLASS_LIMITS_LAYER_UNPACKED_BYTES"),
            ("hosts-dir", "WINDLASS_HOSTS_DIR"),
        ];
        for (path, want) in table {
            assert_eq!(variable(path), want);
        }
    }
}
