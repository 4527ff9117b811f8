//! Pins: who wants an image kept, and why.
//!
//! In: what a person, a configuration or a runtime says. Out: a [`Pin`] fit to be stored and shown. The store keeps at
//! most one pin of each source for an image; an image goes only when the last one is taken back.
//!
//! Invariant: `a_pin_is_short_and_printable`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// Longest reason, in characters.
pub const PIN_REASON_MAX_CHARS: usize = 256;
/// Longest name of a source, in bytes.
pub const PIN_SOURCE_MAX_BYTES: usize = 63;

/// Who asked for it: `user`, `config`, `runtime`, or a name of a controller's choice in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PinSource(String);

/// Why an image must stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Who asked for it.
    pub source: PinSource,
    /// Why, one line; may be empty.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Why a pin is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The source is not a short lower-case name.
    #[error("the source of a pin is a name of at most {PIN_SOURCE_MAX_BYTES} lower-case letters, digits and -")]
    Source,
    /// The reason is too long or has control characters.
    #[error("the reason of a pin is one line of at most {PIN_REASON_MAX_CHARS} characters")]
    Reason,
}

impl PinError {
    /// Always [`Reason::InvalidConfig`].
    pub fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

impl PinSource {
    /// A person, through the command line.
    pub fn user() -> PinSource {
        PinSource("user".to_owned())
    }

    /// The configuration of this node.
    pub fn config() -> PinSource {
        PinSource("config".to_owned())
    }

    /// The container runtime, for its sandbox image.
    pub fn runtime() -> PinSource {
        PinSource("runtime".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PinSource {
    type Err = PinError;

    fn from_str(text: &str) -> Result<PinSource, PinError> {
        PinSource::try_from(text.to_owned())
    }
}

impl TryFrom<String> for PinSource {
    type Error = PinError;

    fn try_from(text: String) -> Result<PinSource, PinError> {
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=PIN_SOURCE_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_allowed);
        if fits { Ok(PinSource(text)) } else { Err(PinError::Source) }
    }
}

impl From<PinSource> for String {
    fn from(source: PinSource) -> String {
        source.0
    }
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Pin {
    /// A pin, with its reason checked.
    ///
    /// # Errors
    /// [`PinError::Reason`].
    pub fn new(source: PinSource, reason: &str, since: Timestamp) -> Result<Pin, PinError> {
        if reason.chars().count() > PIN_REASON_MAX_CHARS || reason.chars().any(char::is_control) {
            return Err(PinError::Reason);
        }
        Ok(Pin { source, reason: reason.to_owned(), since })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() {
            write!(f, "{}", self.source)
        } else {
            write!(f, "{}: {}", self.source, self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(source: &str, reason: &str, second: i64) -> Result<Pin, PinError> {
        Pin::new(source.parse()?, reason, Timestamp::from_second(second).expect("in range"))
    }

    #[test]
    fn a_pin_is_short_and_printable() {
        assert_eq!(pin("user", "base image", 1).expect("good").to_string(), "user: base image");
        assert_eq!(pin("prefetch-7", "", 1).expect("good").to_string(), "prefetch-7");
        for source in ["", "User", "a b", "a/b", &"a".repeat(64)] {
            assert_eq!(pin(source, "", 1), Err(PinError::Source), "{source}");
        }
        for reason in ["a\nb", "\u{1b}[2J", &"a".repeat(257)] {
            assert_eq!(pin("user", reason, 1), Err(PinError::Reason), "{reason}");
        }
        assert!(serde_json::from_str::<PinSource>("\"A B\"").is_err());
    }
}
