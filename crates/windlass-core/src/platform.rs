//! Platforms: what an image is for, what this host is, and which entry of an index fits best.
//!
//! In: texts (`linux/arm64/v8`, cpuinfo), an [`Index`](crate::manifest::Index). Out: a [`Platform`], or a ranking.
//! Source of truth: image-spec `image-index.md` (first match among equals) and containerd/platforms (names,
//! Windows builds). Unlike containerd, 32-bit code is chosen only on request, and amd64 levels of the host count.
//!
//! Invariants: `print_then_parse_is_identity`, `choice_is_deterministic`, `attestations_are_never_chosen`,
//! `thirty_two_bit_only_on_request`.

mod choose;
mod host;
mod windows;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use choose::{Candidate, ConfigVerdict, Fallback, PlatformLie, Wanted, choose, judge_config, lie, rank};
pub use host::{amd64_level, arm_variant, host_platform};

use crate::reason::Reason;

/// Most platforms that an error lists.
pub const OFFERED_SHOWN_MAX: usize = 20;
/// Longest part of a platform text, in bytes.
const PART_MAX_BYTES: usize = 64;
/// Most features of a foreign platform that are printed.
const FEATURES_SHOWN_MAX: usize = 16;

/// Operating system, architecture and what narrows them, by their Go names, normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, `GOARCH`: `amd64`, `arm64`. Empty where an index entry did not say.
    pub architecture: String,
    /// Operating system, `GOOS`: `linux`. Empty where an index entry did not say.
    pub os: String,
    /// Windows build, `10.0.20348.1`.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features the operating system must have, `win32k`.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// CPU variant: `v7` for arm, `v3` for amd64. Absent where it is the architecture's base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a platform was not understood or not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The text is not `os/architecture[/variant]`.
    #[error("platform {text:?} is not os/architecture[/variant]")]
    Format {
        /// The text, shortened.
        text: String,
    },
    /// No entry of the index fits.
    #[error("no image for {wanted}; offered: {}", Offered(offered, *more))]
    NoMatch {
        /// What was looked for.
        wanted: Box<Platform>,
        /// The distinct platforms the index offers, at most [`OFFERED_SHOWN_MAX`].
        offered: Vec<Platform>,
        /// How many further ones it offers.
        more: usize,
    },
    /// The only fitting entry is addressed by a hash that cannot be verified.
    #[error("the image for {wanted} is addressed by {digest}, which cannot be verified")]
    Unverifiable {
        /// What was looked for.
        wanted: Box<Platform>,
        /// The digest as written.
        digest: String,
    },
    /// The image is for another operating system, and no index offers a choice.
    #[error("the image is for {found}, not for {wanted}")]
    OtherSystem {
        /// What was looked for.
        wanted: Box<Platform>,
        /// What the config says.
        found: Box<Platform>,
    },
}

impl PlatformError {
    /// The word for it in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            PlatformError::Format { .. } => Reason::InvalidConfig,
            PlatformError::NoMatch { .. } | PlatformError::OtherSystem { .. } => Reason::NoMatchingPlatform,
            PlatformError::Unverifiable { .. } => Reason::BadManifest,
        }
    }
}

/// Prints a bounded list of platforms.
struct Offered<'a>(&'a [Platform], usize);

impl fmt::Display for Offered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, platform) in self.0.iter().enumerate() {
            write!(f, "{}{platform}", if at == 0 { "" } else { ", " })?;
        }
        if self.1 > 0 { write!(f, " and {} more", self.1) } else { Ok(()) }
    }
}

impl Platform {
    /// A normalised platform without operating system version and features.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = normalise_architecture(architecture, variant.unwrap_or(""));
        Platform { architecture, os: normalise_os(os), os_version: None, os_features: Vec::new(), variant }
    }

    /// The same platform in Go's names: lower case, `x86_64` as `amd64`, base variants dropped.
    #[must_use]
    pub fn normalised(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone().filter(|version| !version.is_empty()),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// Parses `os/architecture[/variant]`; the system may carry a version and features, `windows(10.0.20348+win32k)`.
    ///
    /// # Errors
    /// [`PlatformError::Format`], where a part is missing or holds anything but letters, digits and `_.-`.
    pub fn parse(text: &str) -> Result<Platform, PlatformError> {
        let fault = || PlatformError::Format { text: text.chars().take(100).collect() };
        let mut parts = text.split('/');
        let (Some(system), Some(architecture), variant, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(fault());
        };
        let (os, details) = match system.split_once('(') {
            Some((os, details)) => (os, details.strip_suffix(')').ok_or_else(fault)?),
            None => (system, ""),
        };
        let mut features = details.split('+');
        let version = features.next().unwrap_or("");
        let features: Vec<String> = features.map(str::to_owned).collect();
        let version_fits = version.is_empty() || is_part(version);
        let named = [os, architecture].into_iter().chain(variant).chain(features.iter().map(String::as_str));
        if !named.into_iter().all(is_part) || !version_fits {
            return Err(fault());
        }
        Ok(Platform {
            os_version: (!version.is_empty()).then(|| version.to_owned()),
            os_features: features,
            ..Platform::new(os, architecture, variant)
        })
    }

    /// Whether this is BuildKit's `unknown/unknown`, which marks what is no image.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

fn is_part(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !text.is_empty() && text.len() <= PART_MAX_BYTES && text.bytes().all(is_allowed)
}

fn normalise_os(os: &str) -> String {
    match os.to_ascii_lowercase() {
        os if os == "macos" => "darwin".to_owned(),
        os => os,
    }
}

fn normalise_architecture(architecture: &str, variant: &str) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (name, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", "2" | "3" | "4") => return ("amd64".to_owned(), Some(format!("v{variant}"))),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "8.0" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", other) if other.starts_with(|c: char| c.is_ascii_digit()) => {
            return ("arm64".to_owned(), Some(format!("v{other}")));
        }
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5" | "6" | "8") => return ("arm".to_owned(), Some(format!("v{variant}"))),
        (other, variant) => (other, variant),
    };
    (name.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
}

/// One part of a platform out of a foreign document, fit to be printed.
struct Part<'a>(&'a str);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars().take(PART_MAX_BYTES);
        chars
            .try_for_each(|c| if c.is_ascii_graphic() { write!(f, "{c}") } else { write!(f, "{}", c.escape_default()) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Part(&self.os))?;
        if self.os_version.is_some() || !self.os_features.is_empty() {
            write!(f, "({}", Part(self.os_version.as_deref().unwrap_or("")))?;
            for feature in self.os_features.iter().take(FEATURES_SHOWN_MAX) {
                write!(f, "+{}", Part(feature))?;
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", Part(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", Part(variant)),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        Platform::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised() {
        let table = [
            ("linux/x86_64", "linux/amd64"),
            ("linux/x86-64", "linux/amd64"),
            ("Linux/AMD64/V1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/amd64/2", "linux/amd64/v2"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v8.0", "linux/arm64"),
            ("linux/arm64/v8.2", "linux/arm64/v8.2"),
            ("linux/arm64/9.0", "linux/arm64/v9"),
            ("linux/i386", "linux/386"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.20348.1)/amd64", "windows(10.0.20348.1)/amd64"),
            ("windows(10.0+win32k)/amd64", "windows(10.0+win32k)/amd64"),
            ("linux(+erofs)/amd64", "linux(+erofs)/amd64"),
            ("linux/riscv64", "linux/riscv64"),
        ];
        for (text, want) in table {
            assert_eq!(Platform::parse(text).expect(text).to_string(), want, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "linux(/amd64", "l x/amd64", "l/\u{e9}"]
        {
            let error = Platform::parse(text).expect_err(text);
            assert_eq!(error.reason(), Reason::InvalidConfig, "{text}");
        }
    }

    #[test]
    fn foreign_platforms_print_short_and_plain() {
        let platform = Platform {
            os_features: vec!["x".repeat(1000); 1000],
            ..Platform::new("\u{1b}[2J\u{202e}", &"a".repeat(10_000), None)
        };
        let text = platform.to_string();
        assert!(text.len() < 2_000 && text.is_ascii() && !text.contains('\u{1b}'), "{text}");
    }

    proptest! {
        #[test]
        fn print_then_parse_is_identity(text in "[a-z]{1,8}(\\([0-9.]{0,6}(\\+[a-z]{1,3}){0,2}\\))?/[a-z0-9_]{1,8}(/v?[0-9.]{1,4})?") {
            let platform = Platform::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(Platform::parse(&platform.to_string()), Ok(platform));
        }
    }
}
