//! The kinds of values that a configuration key may hold, each read from YAML or from one line of text.
//!
//! Invariants: `sizes_and_durations_read_what_they_print`, `wrong_kinds_say_what_is_wanted`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::tree::{Fault, Tree, Value};

/// A value that a key, a variable and a flag can give.
pub(crate) trait Setting: Sized {
    /// What is wanted, for messages and the reference page.
    const SHAPE: &'static str;

    /// From a configuration file.
    fn from_tree(tree: &Tree) -> Result<Self, Fault>;

    /// From a flag or an environment variable.
    fn from_text(text: &str) -> Result<Self, String>;

    /// From a flag, which may have been repeated: the last one counts, unless this is a list.
    fn from_texts(texts: &[String]) -> Result<Self, String> {
        Self::from_text(texts.last().map_or("", String::as_str))
    }

    /// As `config print` and the reference page show it.
    fn to_json(&self) -> Json;
}

fn wanted<T: Setting>(tree: &Tree) -> Fault {
    tree.fault(format!("wants {}, not {}", T::SHAPE, tree.kind()))
}

impl Setting for String {
    const SHAPE: &'static str = "a string";

    fn from_tree(tree: &Tree) -> Result<String, Fault> {
        tree.text().map(str::to_owned).ok_or_else(|| wanted::<String>(tree))
    }

    fn from_text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn to_json(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for PathBuf {
    const SHAPE: &'static str = "a path";

    fn from_tree(tree: &Tree) -> Result<PathBuf, Fault> {
        let text = tree.text().ok_or_else(|| wanted::<PathBuf>(tree))?;
        PathBuf::from_text(text).map_err(|message| tree.fault(message))
    }

    fn from_text(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() || text.contains('\0') { Err("is not a path".to_owned()) } else { Ok(text.into()) }
    }

    fn to_json(&self) -> Json {
        self.to_string_lossy().into_owned().into()
    }
}

impl Setting for SocketAddr {
    const SHAPE: &'static str = "an address and a port, such as 127.0.0.1:9470";

    fn from_tree(tree: &Tree) -> Result<SocketAddr, Fault> {
        let text = tree.text().ok_or_else(|| wanted::<SocketAddr>(tree))?;
        SocketAddr::from_text(text).map_err(|message| tree.fault(message))
    }

    fn from_text(text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| format!("wants {}", Self::SHAPE))
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

impl Setting for bool {
    const SHAPE: &'static str = "true or false";

    fn from_tree(tree: &Tree) -> Result<bool, Fault> {
        match &tree.value {
            Value::Scalar(Json::Bool(value)) => Ok(*value),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => Err(wanted::<bool>(tree)),
        }
    }

    fn from_text(text: &str) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(format!("wants {}", Self::SHAPE)),
        }
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl Setting for u64 {
    const SHAPE: &'static str = "a whole number, 0 or more";

    fn from_tree(tree: &Tree) -> Result<u64, Fault> {
        match &tree.value {
            Value::Scalar(Json::Number(number)) => number.as_u64().ok_or_else(|| wanted::<u64>(tree)),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => Err(wanted::<u64>(tree)),
        }
    }

    fn from_text(text: &str) -> Result<u64, String> {
        text.parse().map_err(|_| format!("wants {}", Self::SHAPE))
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

/// A number of bytes: `4194304`, `4MiB`, `2GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Setting for ByteSize {
    const SHAPE: &'static str = "a size such as 4MiB or 4194304";

    fn from_tree(tree: &Tree) -> Result<ByteSize, Fault> {
        match (&tree.value, tree.text()) {
            (Value::Scalar(Json::Number(number)), _) => {
                number.as_u64().map(ByteSize).ok_or_else(|| wanted::<ByteSize>(tree))
            }
            (_, Some(text)) => ByteSize::from_text(text).map_err(|message| tree.fault(message)),
            (_, None) => Err(wanted::<ByteSize>(tree)),
        }
    }

    fn from_text(text: &str) -> Result<ByteSize, String> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = (&text[..digits], text[digits..].trim());
        let scale = match unit {
            "" => Some(1),
            _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale),
        };
        let value = number.parse::<u64>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
        value.map(ByteSize).ok_or_else(|| format!("wants {}", Self::SHAPE))
    }

    fn to_json(&self) -> Json {
        let binary = UNITS.iter().take(4).find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match binary {
            Some((unit, scale)) => format!("{}{unit}", self.0 / scale).into(),
            None => self.0.into(),
        }
    }
}

impl Setting for Duration {
    const SHAPE: &'static str = "a duration such as 60s, 1m30s or 500ms";

    fn from_tree(tree: &Tree) -> Result<Duration, Fault> {
        let text = tree.text().ok_or_else(|| wanted::<Duration>(tree))?;
        Duration::from_text(text).map_err(|message| tree.fault(message))
    }

    fn from_text(text: &str) -> Result<Duration, String> {
        let wrong = || format!("wants {}", Self::SHAPE);
        let mut total = Duration::ZERO;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let part = match &rest[..letters] {
                "ms" => Some(Duration::from_millis(number)),
                "s" => Some(Duration::from_secs(number)),
                "m" => number.checked_mul(60).map(Duration::from_secs),
                "h" => number.checked_mul(3600).map(Duration::from_secs),
                _ => None,
            };
            total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            rest = &rest[letters..];
        }
        Ok(total)
    }

    fn to_json(&self) -> Json {
        let (seconds, millis) = (self.as_secs(), self.subsec_millis());
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (millis.into(), "ms")];
        let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
        if text.is_empty() { "0s".into() } else { text.into() }
    }
}

/// A key that may be left out altogether.
impl<T: Setting> Setting for Option<T> {
    const SHAPE: &'static str = T::SHAPE;

    fn from_tree(tree: &Tree) -> Result<Option<T>, Fault> {
        match &tree.value {
            Value::Scalar(Json::Null) => Ok(None),
            Value::Scalar(Json::String(text)) if text.is_empty() => Ok(None),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => T::from_tree(tree).map(Some),
        }
    }

    fn from_text(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::to_json)
    }
}

/// Several values; in a variable they are separated by commas, and a single one needs no brackets.
macro_rules! lists {
    ($($item:ty: $shape:literal,)+) => {
        $(impl Setting for Vec<$item> {
            const SHAPE: &'static str = $shape;

            fn from_tree(tree: &Tree) -> Result<Vec<$item>, Fault> {
                match &tree.value {
                    Value::List(items) => items.iter().map(<$item>::from_tree).collect(),
                    Value::Scalar(Json::Null) => Ok(Vec::new()),
                    Value::Scalar(_) | Value::Map(_) => match tree.text() {
                        Some(_) => <$item>::from_tree(tree).map(|item| vec![item]),
                        None => Err(wanted::<Vec<$item>>(tree)),
                    },
                }
            }

            fn from_text(text: &str) -> Result<Vec<$item>, String> {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(<$item>::from_text).collect()
            }

            fn from_texts(texts: &[String]) -> Result<Vec<$item>, String> {
                texts.iter().map(|text| <$item>::from_text(text)).collect()
            }

            fn to_json(&self) -> Json {
                self.iter().map(Setting::to_json).collect()
            }
        })+
    };
}

lists! {
    String: "a list of strings",
    PathBuf: "a list of paths",
}

/// A word out of a fixed set.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $shape:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $crate::config::value::Setting for $name {
            const SHAPE: &'static str = $shape;

            fn from_tree(tree: &$crate::config::tree::Tree) -> Result<$name, $crate::config::tree::Fault> {
                // YAML readers take `on` and `off` for booleans.
                let text = match &tree.value {
                    $crate::config::tree::Value::Scalar(serde_json::Value::Bool(true)) => "on",
                    $crate::config::tree::Value::Scalar(serde_json::Value::Bool(false)) => "off",
                    $crate::config::tree::Value::Scalar(_)
                    | $crate::config::tree::Value::List(_)
                    | $crate::config::tree::Value::Map(_) => tree.text().unwrap_or_default(),
                };
                let is_text = tree.text().is_some();
                Self::from_text(text).map_err(|message| match is_text {
                    true => tree.fault(message),
                    false => tree.fault(format!("wants {}, not {}", $shape, tree.kind())),
                })
            }

            fn from_text(text: &str) -> Result<$name, String> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("wants {}", $shape)),
                }
            }

            fn to_json(&self) -> serde_json::Value {
                match self { $($name::$variant => $word.into(),)+ }
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_what_they_print() {
        let sizes = [("4MiB", 4 << 20), ("4194304", 4 << 20), ("2 GB", 2_000_000_000), ("0", 0), ("17B", 17)];
        for (text, bytes) in sizes {
            let size = ByteSize::from_text(text).unwrap();
            assert_eq!(size, ByteSize(bytes), "{text}");
            let printed = size.to_json().as_str().map_or_else(|| size.to_json().to_string(), str::to_owned);
            assert_eq!(ByteSize::from_text(&printed).unwrap(), size, "{printed}");
        }
        let durations = [("60s", 60_000), ("1m30s", 90_000), ("500ms", 500), ("2h", 7_200_000), ("0s", 0)];
        for (text, millis) in durations {
            let duration = Duration::from_text(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            let printed = duration.to_json();
            assert_eq!(Duration::from_text(printed.as_str().unwrap()).unwrap(), duration, "{printed}");
        }
    }

    #[test]
    fn wrong_kinds_say_what_is_wanted() {
        for text in ["", "MiB", "1.5MiB", "-1", "99999999999999999999", "17179869184TiB", "1 mib"] {
            assert!(ByteSize::from_text(text).unwrap_err().contains("size"), "{text}");
        }
        for text in ["", "60", "s", "1d", "1m 30s", "18446744073709551615h"] {
            assert!(Duration::from_text(text).unwrap_err().contains("duration"), "{text}");
        }
        let tree = &super::super::tree::read("a: 1").unwrap()[0];
        assert_eq!(String::from_tree(tree).unwrap_err().message, "wants a string, not a map");
    }
}
